"""Browses the topics of a cluster: their messages as people read them, and the consumer groups that read them.

It reads with the login of the cluster in connections.json, commits nothing and joins no group.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from core.admin.message_query import (
    MOST_MESSAGES,
    MessageChoice,
    MessageQuery,
    bare_key,
    ranges_of,
    require_partitions,
    require_sense,
    within,
)
from core.errors import ConfigError, PsttError
from core.kafka.mock_cluster import resolved
from core.message.shown import ShownBytes, asked_once, shown
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
    "MOST_MESSAGES",
    "MessageQuery",
    "ReadableMessage",
    "RunPosition",
    "TopicMessages",
    "browse",
    "consumer_groups",
    "forgets",
    "message_at",
    "message_of_run",
    "reachable",
    "readable_message",
    "topics_of_cluster",
]


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
    missing: tuple[str, ...] = ()
    """Paths of the filter on the value that none of the messages has which were looked through."""
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

    return list_topics(reachable(cluster), text, limit=limit, offset=offset)


def consumer_groups(cluster: Cluster, topic: str) -> GroupsOfTopic:
    """Returns the consumer groups of a topic with their lag.

    Raises:
        TopicMissing: There is no such topic.
        BrokerUnavailable, NotAuthorised: The cluster cannot be asked.
    """
    from core.kafka.consumer_groups import groups_of_topic  # loads confluent_kafka
    from core.kafka.topic_list import offsets_of_topic

    there = reachable(cluster)
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
    require_sense(query)
    lookup = asked_once(schema_lookup(cluster))
    choice = MessageChoice(query, lookup)
    if cluster.mock_brokers and (query.since or query.until):
        raise ConfigError(
            f'"{cluster.name}" does not find messages by their time',
            why="a mock broker, as that of the demo, does not know that request",
            remedy="choose them by partition and offset, by key or by value",
        )
    there = reachable(cluster)
    spans = offsets_of_topic(there, topic)
    with TopicReader(there, topic) as reader:
        ranges = ranges_of(query, spans, lambda at: reader.offsets_at(sorted(spans), at))
        page = reader.page(
            ranges,
            limits=ReadLimits(messages=query.limit),
            newest_first=query.newest_first,
            matches=None if choice.takes_all else choice,
        )
    return TopicMessages(
        cluster=cluster.name,
        topic=topic,
        spans=spans,
        messages=tuple(readable_message(message, lookup) for message in page.messages),
        examined=page.examined,
        end=page.end,
        next=",".join(f"{p}:{left.start}-{left.stop}" for p, left in sorted(page.rest.items())),
        left=sum(map(len, page.rest.values())),
        missing=choice.missing if page.examined else (),
        is_mock=forgets(cluster),
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
    there = reachable(cluster)
    spans = offsets_of_topic(there, topic)
    require_partitions((partition,), spans)
    found = _first(there, topic, {partition: within(offset, offset + 1, spans[partition])})
    if found is None:
        raise _gone(topic, partition, offset, spans[partition])
    return readable_message(found, asked_once(schema_lookup(cluster)))


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
    there = reachable(cluster)
    topic = parts[0].topic
    ranges = {part.partition: range(part.first_offset, part.last_offset + 1) for part in parts}
    found = _step(there, topic, run.run_id, ranges, place, step, is_mock=forgets(cluster))
    contiguous = all(part.count == len(ranges[part.partition]) for part in parts)
    before = sum(len(offsets) for partition, offsets in ranges.items() if partition < found.partition)
    first, last = parts[0], parts[-1]
    return RunPosition(
        readable_message(found, asked_once(schema_lookup(cluster))),
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
        wanted = within(begin, stop, spans[number])
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


def forgets(cluster: Cluster) -> bool:
    """Returns whether it is a mock broker whose messages end with its process; those of a demo are kept."""
    return bool(cluster.mock_brokers) and cluster.kept_in is None


def reachable(cluster: Cluster) -> Cluster:
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


def readable_message(message: StoredMessage, lookup: Lookup | None) -> ReadableMessage:
    """Returns a message with its key and value as a person reads them."""
    value = shown(message.value, lookup, size_bytes=message.size_bytes)
    return ReadableMessage(message, _unquoted(shown(message.key, lookup)), value)


def _unquoted(key: ShownBytes) -> ShownBytes:
    return replace(key, text=bare_key(key.text)) if key.format else key


def _gone(topic: str, partition: int, offset: int, span: LogSpan) -> PsttError:
    why = "compaction or an aborted transaction removed it"
    if offset < span.earliest:
        why = f"the topic keeps that partition from offset {span.earliest} on"
    elif offset >= span.end:
        why = f"the next message of that partition will have offset {span.end}"
    return PsttError(f"there is no message at {topic}-{partition} @ {offset}", why=why)
