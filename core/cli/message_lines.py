"""Topics, messages and consumer groups as JSON documents and as lines; REST answers with the same documents."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from core.cli.output import said
from core.clock import iso_utc
from core.formatting import counted, local_time, size_text
from core.language import Data

if TYPE_CHECKING:
    from core.admin.group_offsets import GroupReset
    from core.admin.topic_messages import ReadableMessage, TopicMessages
    from core.kafka.consumer_groups import ConsumerGroup, GroupsOfTopic
    from core.kafka.topic_list import TopicSummary
    from core.message.shown import ShownBytes

__all__ = [
    "MOCK_NOTE",
    "group_lines",
    "groups_document",
    "message_document",
    "message_line",
    "message_lines",
    "messages_document",
    "messages_lines",
    "reset_document",
    "reset_lines",
    "topic_document",
    "topic_lines",
]

SHOWN_VALUE = 160
"""Characters of a value on the line of a list."""
MOCK_NOTE = "a mock broker: only what this very process has sent is there; runs have brokers of their own"


def topic_document(topic: TopicSummary) -> dict[str, Any]:
    """Returns one topic of a list."""
    return {
        "name": topic.name,
        "partitions": topic.partitions,
        "replication": topic.replication,
        "messages": topic.messages,
    }


def topic_lines(topics: Sequence[TopicSummary], total: int, text: str) -> list[str]:
    """Returns one line for each topic: name, partitions, messages."""
    if not topics:
        return [f'no topic has "{Data(text)}" in its name' if text else "this account sees no topic"]
    width = max(len(topic.name) for topic in topics)
    lines = [
        f"{Data(topic.name):<{width}}  {counted(topic.partitions, 'partition'):>15}  "
        f"{'not known messages' if topic.messages is None else counted(topic.messages, 'message'):>25}"
        for topic in topics
    ]
    return lines if len(topics) == total else [*lines, f"  {len(topics):,} of {total:,} topics; --limit shows more"]


def message_document(message: ReadableMessage) -> dict[str, Any]:
    """Returns one message; key and value as text, since JSON readers would round large numbers in them."""
    stored = message.stored
    return {
        "topic": stored.topic,
        "partition": stored.partition,
        "offset": stored.offset,
        "timestamp": iso_utc(stored.at, "milliseconds") if stored.at else None,
        "timestamp_type": "append" if stored.is_append_time else "create",
        "key": _text(message.key),
        "key_format": message.key.described,
        "value": _text(message.value),
        "value_format": message.value.described,
        "schema_id": message.value.schema_id,
        "size_bytes": stored.size_bytes,
        "is_cut": message.value.is_cut,
        "problem": message.value.problem or message.key.problem,
        "headers": [
            {"name": name, "value": None if value is None else _header(value)} for name, value in stored.headers
        ],
        "run_id": stored.header("run_id") or None,
        "job": stored.header("job") or None,
        "message_id": stored.header("message_id") or None,
    }


def messages_document(found: TopicMessages) -> dict[str, Any]:
    """Returns one page of messages, and how far it looked."""
    return {
        "cluster": found.cluster,
        "topic": found.topic,
        "partitions": [
            {"partition": number, "earliest": span.earliest, "end": span.end, "messages": span.end - span.earliest}
            for number, span in sorted(found.spans.items())
        ],
        "messages": [message_document(message) for message in found.messages],
        "examined": found.examined,
        "bounded": found.end == "bound",
        "left": found.left,
        "missing": list(found.missing),
        "next": found.next or None,
        "note": MOCK_NOTE if found.is_mock else None,
    }


def messages_lines(found: TopicMessages, timezone: str, *, whole: bool = False) -> Iterator[str]:
    """Yields the messages of a page, and how far it looked."""
    there = sum(span.end - span.earliest for span in found.spans.values())
    yield f"{Data(found.topic)} on {Data(found.cluster)}   {there:,} {'message' if there == 1 else 'messages'} in {counted(len(found.spans), 'partition')}   times are those of {timezone}"
    for message in found.messages:
        if whole:
            yield from message_lines(message, timezone)
        else:
            yield message_line(message, timezone)
    if not found.messages:
        yield "  no message is like that" if there else "  there is no message"
    yield f"  {_how_far(found)}"
    if found.missing:
        yield f"  none of them has {Data(', '.join(found.missing))}"
    if found.next:
        yield f"  next   --next {found.next}"
    if found.is_mock:
        yield f"  {MOCK_NOTE}"


def message_lines(message: ReadableMessage, timezone: str) -> Iterator[str]:
    """Yields one message whole: place, time, headers, key and value."""
    stored = message.stored
    yield Data(f"{stored.topic}-{stored.partition} @ {stored.offset}").marked
    if stored.at:
        kind = "when the broker stored it" if stored.is_append_time else "set by its producer"
        yield f"  time    {local_time(stored.at, timezone, seconds=True)} {timezone}, {kind}"
    yield f"  size    {size_text(stored.size_bytes)}"
    for name, value in stored.headers:
        shown = "null" if value is None else _header(value)
        yield f"  header  {Data(f'{name} = {shown}')}"
    yield f"  key     {Data(_short(message.key))}"
    if message.value.schema_id is not None:
        yield f"  schema  {message.value.described}, id {message.value.schema_id}"
    if message.value.problem:
        yield f"  not decoded: {message.value.problem}"
    yield ("  a tombstone: the key without a value" if stored.value is None else Data(message.value.text).marked)


def groups_document(topic: str, found: GroupsOfTopic) -> dict[str, Any]:
    """Returns the consumer groups of a topic."""
    return {
        "topic": topic,
        "groups": [_group_document(group) for group in found.groups],
        "asked": found.asked,
        "total": found.total,
        "refused": found.refused,
        "note": found.note or None,
    }


def group_lines(topic: str, found: GroupsOfTopic) -> Iterator[str]:
    """Yields each group of a topic with its lag and its members."""
    if found.note:
        yield found.note
        return
    if not found.groups:
        yield f"no consumer group reads {Data(topic)} or has read it"
    for group in found.groups:
        lag = "never committed" if group.never_committed else f"lag {group.lag:,}"
        if group.uncommitted and not group.never_committed:
            lag += f"   {counted(group.uncommitted, 'message')} in partitions without a committed offset"
        state = Data(group.state).marked if group.state else "may not be seen"
        yield f"{Data(group.name)}   {lag}   {state}   {counted(len(group.members), 'member')}"
        for part in group.partitions:
            read = "never committed" if part.committed is None else f"{part.committed} of {part.end}, lag {part.lag:,}"
            readers = [member.client_id for member in group.members if part.partition in member.partitions]
            yield f"  partition {part.partition:>4}   {read}" + (f"   {Data(', '.join(readers))}" if readers else "")
    if found.asked < found.total:
        yield f"  {found.asked:,} of {found.total:,} groups of the cluster {'was' if found.asked == 1 else 'were'} asked"
    if found.refused:
        yield f"  this account may not read {counted(found.refused, 'group')}"


def reset_document(plan: GroupReset, *, done: bool) -> dict[str, Any]:
    """Returns what a reset of a group's offsets changes, or has changed."""
    return {
        "cluster": plan.cluster,
        "topic": plan.topic,
        "group": plan.group,
        "to": plan.to,
        "partitions": [
            {
                "partition": part.partition,
                "before": part.before,
                "after": part.after,
                "end": part.end,
                "again": part.again,
                "left_out": part.left_out,
            }
            for part in plan.partitions
        ],
        "changed": len(plan.changed),
        "again": plan.again,
        "left_out": plan.left_out,
        "done": done,
    }


def reset_lines(plan: GroupReset) -> Iterator[str]:
    """Yields what a reset of a group's offsets would change, partition by partition."""
    yield f"{Data(plan.group)} on {Data(plan.topic)} of {Data(plan.cluster)}, reset to {plan.to}"
    for part in plan.partitions:
        before = "never committed" if part.before is None else str(part.before)
        what = "stays" if part.before == part.after else f"to {part.after}"
        moved = f"   {counted(part.again, 'message')} again" if part.again else ""
        moved += f"   {counted(part.left_out, 'message')} left out" if part.left_out else ""
        yield f"  partition {part.partition:>4}   {before} {what} of {part.end}{moved}"
    if not plan.changed:
        yield "  nothing would change"
    else:
        yield f"  {counted(plan.again, 'message')} would be read again, {plan.left_out:,} left out"


def _group_document(group: ConsumerGroup) -> dict[str, Any]:
    return {
        "group": group.name,
        "state": group.state,
        "lag": group.lag,
        "uncommitted": group.uncommitted,
        "never_committed": group.never_committed,
        "partitions": [
            {"partition": part.partition, "committed": part.committed, "end": part.end, "lag": part.lag}
            for part in group.partitions
        ],
        "members": [
            {
                "client_id": member.client_id,
                "host": member.host,
                "member_id": member.member_id,
                "partitions": list(member.partitions),
            }
            for member in group.members
        ],
    }


def message_line(message: ReadableMessage, timezone: str) -> str:
    """Returns one message in one line: time, place, key, size, the beginning of the value."""
    stored = message.stored
    when = local_time(stored.at, timezone, seconds=True) if stored.at else said("no time")
    key = _short(message.key, 60)
    value = "tombstone" if stored.value is None else _short(message.value)
    shown = Data(f"{key}   {size_text(stored.size_bytes)}   {value}")
    return f"  {when}   {stored.partition} @ {stored.offset}   {shown}"


def _how_far(found: TopicMessages) -> str:
    looked = f"looked through {counted(found.examined, 'message')}"
    if found.end == "bound":
        return f"{looked} and stopped there: {found.left:,} {'is' if found.left == 1 else 'are'} left"
    return looked if found.next else f"{looked}: these are all"


def _short(shown: ShownBytes, most: int = SHOWN_VALUE) -> str:
    if shown.form == "null":
        return "null"
    text = " ".join(shown.text[: most + 1].split())
    return text if len(text) <= most and not shown.is_cut else f"{text[:most]}…"


def _text(shown: ShownBytes) -> str | None:
    return None if shown.form == "null" else shown.text


def _header(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.hex(" ")
