"""Browses the topics of a cluster: their messages as people read them, and the consumer groups that read them.

It reads with the login of the cluster in connections.json, commits nothing and joins no group.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from core.errors import ConfigError, PsttError
from core.kafka.mock_cluster import resolved
from core.message.shown import ShownBytes, asked_once, shown
from core.message.value_formats import MAGIC
from core.model.connection import Cluster
from core.model.publisher import LogSpan
from core.model.run import Run
from core.records.opened import OpenWorkspace
from core.records.rights import RIGHT_TO_SEE, Caller, require_right
from core.run.destination import cluster_of_run
from core.run.schemas import schema_lookup

if TYPE_CHECKING:
    from core.kafka.consumer_groups import GroupsOfTopic
    from core.kafka.topic_list import TopicSummary
    from core.kafka.topic_reader import Matches, PageEnd, StoredMessage
    from core.message.decoding import Lookup

__all__ = [
    "MessageQuery",
    "ReadableMessage",
    "RunPosition",
    "TopicMessages",
    "browse",
    "consumer_groups",
    "message_at",
    "message_of_run",
    "topics_of_cluster",
]

MOST_MESSAGES = 500
"""On a page."""
KeyMatch = Literal["exact", "contains"]
_REST = re.compile(r"\d{1,9}:\d{1,18}-\d{1,18}(,\d{1,9}:\d{1,18}-\d{1,18})*")


@dataclass(frozen=True, slots=True)
class MessageQuery:
    """Which messages of a topic are read."""

    partitions: tuple[int, ...] = ()
    """Empty: all."""
    first_offset: int | None = None
    last_offset: int | None = None
    """Included, in each of the partitions."""
    since: datetime | None = None
    """Aware. By the timestamps of the records."""
    until: datetime | None = None
    """Aware; not included."""
    key: str = ""
    """Empty: any."""
    key_match: KeyMatch = "exact"
    value: str = ""
    """A part of the value, as UTF-8 text; empty: any."""
    newest_first: bool = True
    limit: int = 50
    """Messages on a page, 1 to 500."""
    rest: str = ""
    """`next` of the page before; empty: the first page."""


@dataclass(frozen=True, slots=True)
class ReadableMessage:
    """A message, and its key and value as a person reads them."""

    stored: StoredMessage
    key: ShownBytes
    value: ShownBytes


@dataclass(frozen=True, slots=True)
class TopicMessages:
    """One page of the messages of a topic."""

    cluster: str
    topic: str
    spans: Mapping[int, LogSpan]
    """The offsets that each partition has."""
    messages: tuple[ReadableMessage, ...]
    examined: int
    """How many messages were looked through."""
    end: PageEnd
    """`full`: there may be more; `end`: these are all; `bound`: it looked through as many as it may."""
    next: str
    """`rest` of the next page; empty: there is none."""
    left: int
    """How many offsets were not looked through."""
    is_mock: bool = False
    """A mock broker outside of a demo, which has only what this very process has sent."""


def topics_of_cluster(
    cluster: Cluster, text: str = "", *, limit: int = 100, offset: int = 0
) -> tuple[list[TopicSummary], int]:
    """Returns one page of the topics whose names have this text, and how many there are.

    Raises:
        BrokerUnavailable, NotAuthorised: The cluster cannot be asked.
    """
    from core.kafka.topic_list import list_topics  # loads confluent_kafka

    return list_topics(_reachable(cluster), text, limit=limit, offset=offset)


def consumer_groups(cluster: Cluster, topic: str) -> GroupsOfTopic:
    """Returns the consumer groups of a topic with their lag.

    Raises:
        TopicMissing: There is no such topic.
        BrokerUnavailable, NotAuthorised: The cluster cannot be asked.
    """
    from core.kafka.consumer_groups import groups_of_topic  # loads confluent_kafka
    from core.kafka.topic_list import offsets_of_topic

    there = _reachable(cluster)
    return groups_of_topic(there, topic, offsets_of_topic(there, topic))


def browse(cluster: Cluster, topic: str, query: MessageQuery, *, caller: Caller) -> TopicMessages:
    """Reads one page of a topic's messages.

    Args:
        cluster: The topic's cluster.
        topic: Its name.
        query: Which messages.
        caller: Who wants to see them.

    Raises:
        AccessRefused: The caller may not see messages.
        ConfigError: The query asks for a partition that is not there, contradicts itself, or asks a mock broker for a time.
        TopicMissing: There is no such topic.
        BrokerUnavailable, NotAuthorised: The topic cannot be read.
    """
    from core.kafka.topic_list import offsets_of_topic  # loads confluent_kafka
    from core.kafka.topic_reader import ReadLimits, TopicReader

    require_right(caller, RIGHT_TO_SEE["messages"])
    _require_sense(query)
    if cluster.mock_brokers and (query.since or query.until):
        raise ConfigError(
            f'"{cluster.name}" does not find messages by their time',
            why="a mock broker, as that of the demo, does not know that request",
            remedy="choose them by partition and offset, by key or by value",
        )
    there = _reachable(cluster)
    lookup = asked_once(schema_lookup(cluster))
    spans = offsets_of_topic(there, topic)
    with TopicReader(there, topic) as reader:
        ranges = _ranges(query, spans, lambda at: reader.offsets_at(sorted(spans), at))
        page = reader.page(
            ranges,
            limits=ReadLimits(messages=query.limit),
            newest_first=query.newest_first,
            matches=_matches(query, lookup),
        )
    return TopicMessages(
        cluster=cluster.name,
        topic=topic,
        spans=spans,
        messages=tuple(_readable(message, lookup) for message in page.messages),
        examined=page.examined,
        end=page.end,
        next=",".join(f"{p}:{left.start}-{left.stop}" for p, left in sorted(page.rest.items())),
        left=sum(map(len, page.rest.values())),
        is_mock=_forgets(cluster),
    )


def message_at(cluster: Cluster, topic: str, partition: int, offset: int, *, caller: Caller) -> ReadableMessage:
    """Reads one message whole.

    Raises:
        AccessRefused: The caller may not see messages.
        BrokerUnavailable, NotAuthorised, TopicMissing: It cannot be read.
        PsttError: It is not there any more.
    """
    from core.kafka.topic_list import offsets_of_topic  # loads confluent_kafka

    require_right(caller, RIGHT_TO_SEE["messages"])
    there = _reachable(cluster)
    spans = offsets_of_topic(there, topic)
    _require_partitions((partition,), spans)
    found = _first(there, topic, {partition: _within(offset, offset + 1, spans[partition])})
    if found is None:
        raise _gone(topic, partition, offset, spans[partition])
    return _readable(found, asked_once(schema_lookup(cluster)))


# ── the messages of a run ─────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class RunPosition:
    """One message of a run, and its place among the others."""

    message: ReadableMessage
    cluster: str
    number: int | None
    """From 1, by partition and offset; None: the run's messages are not contiguous, so it is not known."""
    has_previous: bool
    has_next: bool


def message_of_run(
    opened: OpenWorkspace,
    run: Run,
    place: tuple[int, int] | None = None,
    *,
    step: Literal[-1, 0, 1] = 0,
    caller: Caller,
) -> RunPosition:
    """Reads a message of a run, or the one before or after it, by partition and offset.

    Args:
        opened: The workspace.
        run: A run that sent messages.
        place: Partition and offset; None: its first message.
        step: 0: the message at `place`, or the next of the run after it; 1: the one after it; -1: the one before.
        caller: Who wants to see it.

    Raises:
        AccessRefused: The caller may not see messages.
        ConfigError: The run's cluster is not set up any more, or the broker of a demo has ended.
        BrokerUnavailable, NotAuthorised, TopicMissing: The topic cannot be read.
        PsttError: No message of the run is on the topic any more, or none before or after that one.
    """
    require_right(caller, RIGHT_TO_SEE["messages"])
    parts = sorted(run.partitions, key=lambda part: part.partition)
    if not parts:
        raise PsttError(f"run {run.run_id} has no messages on a topic", why="none was acknowledged")
    cluster = cluster_of_run(opened, run)
    there = _reachable(cluster)
    topic = parts[0].topic
    ranges = {part.partition: range(part.first_offset, part.last_offset + 1) for part in parts}
    found = _step(there, topic, run.run_id, ranges, place, step, is_mock=_forgets(cluster))
    contiguous = all(part.count == len(ranges[part.partition]) for part in parts)
    before = sum(len(offsets) for partition, offsets in ranges.items() if partition < found.partition)
    first, last = parts[0], parts[-1]
    return RunPosition(
        _readable(found, asked_once(schema_lookup(cluster))),
        cluster.name,
        before + found.offset - ranges[found.partition].start + 1 if contiguous else None,
        has_previous=(found.partition, found.offset) > (first.partition, first.first_offset),
        has_next=(found.partition, found.offset) < (last.partition, last.last_offset),
    )


def _step(
    cluster: Cluster,
    topic: str,
    run_id: str,
    ranges: Mapping[int, range],
    place: tuple[int, int] | None,
    step: Literal[-1, 0, 1],
    *,
    is_mock: bool,
) -> StoredMessage:
    """Returns the next message of the run from a place on, one partition after the other."""
    from core.kafka.topic_list import offsets_of_topic  # loads confluent_kafka

    spans = offsets_of_topic(cluster, topic)
    partition, offset = place or (-1, -1)
    backward = step == -1
    for number in sorted(ranges, reverse=backward):
        if number not in spans or (number > partition if backward else number < partition):
            continue
        offsets = ranges[number]
        begin, stop = offsets.start, offsets.stop
        if number == partition:
            begin, stop = (begin, min(offset, stop)) if backward else (max(offset + step, begin), stop)
        wanted = _within(begin, stop, spans[number])
        if found := _first(cluster, topic, {number: wanted}, newest_first=backward, run_id=run_id):
            return found
    why = (
        "a mock broker ends with the process of its run"
        if is_mock
        else "retention or compaction removed them, the topic was made anew, or other programs wrote very many between them"
    )
    raise PsttError(
        f"no {'earlier ' if backward else 'later ' if step else ''}message of run {run_id} is on topic {topic} any more",
        why=why,
        remedy="what was sent is in the ledger all the same: python -m core show",
    )


def _first(
    cluster: Cluster, topic: str, ranges: Mapping[int, range], *, newest_first: bool = False, run_id: str = ""
) -> StoredMessage | None:
    """Reads the first message of the ranges, whole; that of a run if one is named."""
    from core.kafka.topic_reader import ReadLimits, TopicReader  # loads confluent_kafka

    mark = ("run_id", run_id.encode())
    limits = ReadLimits(messages=1, kept_bytes=2**31, page_bytes=2**31)
    with TopicReader(cluster, topic) as reader:
        matches: Matches | None = (lambda key, value, headers: mark in (headers() or ())) if run_id else None
        found = reader.page(ranges, limits=limits, newest_first=newest_first, matches=matches)
    return found.messages[0] if found.messages else None


def _forgets(cluster: Cluster) -> bool:
    """Returns whether it is a mock broker whose messages end with its process; those of a demo are kept."""
    return bool(cluster.mock_brokers) and cluster.kept_in is None


def _reachable(cluster: Cluster) -> Cluster:
    """Returns the cluster, with the mock brokers of a demo started.

    Raises:
        ConfigError: confluent-kafka, which reads topics, is not installed.
    """
    try:
        import confluent_kafka  # noqa: F401 - 40 ms, and not installed everywhere
    except ImportError:
        raise ConfigError(
            "topics cannot be browsed without confluent-kafka",
            why="it is not installed on this machine",
            remedy="pip install confluent-kafka",
        ) from None
    return resolved(cluster)


# ── which messages ────────────────────────────────────────────────────────────────────────────


def _require_sense(query: MessageQuery) -> None:
    first, last = query.first_offset, query.last_offset
    if first is not None and last is not None and first > last:
        raise ConfigError(f"offset {first:,} is after offset {last:,}", remedy="exchange them")
    if query.since and query.until and query.since >= query.until:
        raise ConfigError("the time range is empty", why="it ends before it begins", remedy="exchange its ends")
    if not 1 <= query.limit <= MOST_MESSAGES:
        raise ConfigError(f"a page has 1 to {MOST_MESSAGES} messages, not {query.limit:,}")
    if query.rest and not _REST.fullmatch(query.rest):
        raise ConfigError("the next page is not named as the page before named it", remedy="begin with the first page")


def _require_partitions(asked: tuple[int, ...], spans: Mapping[int, LogSpan]) -> None:
    unknown = sorted(set(asked) - spans.keys())
    if unknown:
        raise ConfigError(
            f"the topic has no partition {', '.join(map(str, unknown))}",
            remedy=f"it has 0 to {max(spans)}" if len(spans) > 1 else f"it has only {max(spans)}",
        )


def _ranges(
    query: MessageQuery, spans: Mapping[int, LogSpan], at: Callable[[datetime], Mapping[int, int | None]]
) -> dict[int, range]:
    """Returns the offsets of each partition that the query asks for."""
    if query.rest:
        return _rest_of(query.rest, spans)
    _require_partitions(query.partitions, spans)
    since = at(query.since) if query.since else {}
    until = at(query.until) if query.until else {}
    found = {}
    for number in query.partitions or sorted(spans):
        span = spans[number]
        begin = span.earliest if query.first_offset is None else query.first_offset
        stop = span.end if query.last_offset is None else query.last_offset + 1
        if query.since:
            begin = max(begin, _or_end(since.get(number), span))
        if query.until:
            stop = min(stop, _or_end(until.get(number), span))
        found[number] = _within(begin, stop, span)
    return found


def _or_end(offset: int | None, span: LogSpan) -> int:
    return span.end if offset is None else offset


def _within(begin: int, stop: int, span: LogSpan) -> range:
    return range(max(begin, span.earliest), min(stop, span.end))


def _rest_of(text: str, spans: Mapping[int, LogSpan]) -> dict[int, range]:
    found = {}
    for part in text.split(","):
        number, _, offsets = part.partition(":")
        begin, _, stop = offsets.partition("-")
        _require_partitions((int(number),), spans)
        found[int(number)] = _within(int(begin), int(stop), spans[int(number)])
    return found


def _matches(query: MessageQuery, lookup: Lookup | None) -> Matches | None:
    """Returns what chooses messages; None: the query wants all."""
    if not query.key and not query.value:
        return None
    key, raw, value = query.key, query.key.encode(), query.value.encode()
    contains = query.key_match == "contains"

    def wanted(raw_key: bytes | None, raw_value: bytes | None, headers: object) -> bool:
        if value and (raw_value is None or value not in raw_value):
            return False
        if not key:
            return True
        if raw_key is None:
            return False
        if raw in raw_key if contains else raw == raw_key:
            return True
        if raw_key.isascii() and raw_key[:1] != MAGIC:  # it is its own text: 20 times faster than to decode it
            return False
        text = shown(raw_key, lookup).text
        return key in text if contains else key == _bare(text)

    return wanted


def _bare(text: str) -> str:
    """Returns the text of a key; that of one column with a schema is a JSON text in quotes."""
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text


def _readable(message: StoredMessage, lookup: Lookup | None) -> ReadableMessage:
    value = shown(message.value, lookup, size_bytes=message.size_bytes)
    return ReadableMessage(message, _unquoted(shown(message.key, lookup)), value)


def _unquoted(key: ShownBytes) -> ShownBytes:
    return replace(key, text=_bare(key.text)) if key.format else key


def _gone(topic: str, partition: int, offset: int, span: LogSpan) -> PsttError:
    why = "compaction or an aborted transaction removed it"
    if offset < span.earliest:
        why = f"the topic keeps that partition from offset {span.earliest:,} on"
    elif offset >= span.end:
        why = f"the next message of that partition will have offset {span.end:,}"
    return PsttError(f"there is no message at {topic}-{partition} @ {offset:,}", why=why)
