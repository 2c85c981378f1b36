"""Finds the consumer groups of a topic: how far each has read, who reads, and how much is left."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from core.kafka.admin_client import open_admin
from core.kafka.client_log import ClientLog
from core.kafka.diagnosis import Diagnosis
from core.kafka.librdkafka import translated
from core.model.connection import Cluster
from core.model.publisher import LogSpan

__all__ = ["ConsumerGroup", "GroupLag", "GroupMember", "GroupsOfTopic", "groups_of_topic"]

MOST_GROUPS = 500
"""Groups that are asked for their offsets, which takes one request each."""
AT_ONCE = 50
TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class GroupMember:
    """A consumer of a group."""

    client_id: str
    host: str
    member_id: str
    partitions: tuple[int, ...]
    """Of the topic; empty: it reads other topics only, or waits for a partition."""


@dataclass(frozen=True, slots=True)
class GroupLag:
    """How far a group has read one partition."""

    partition: int
    committed: int | None
    """Offset of the next message that it will read; None: it never committed one for this partition."""
    end: int
    """Offset of the next message that will be written."""
    earliest: int = 0
    """Offset of the oldest message that is still stored."""

    @property
    def lag(self) -> int | None:
        """Messages that it has not read yet; None: it never committed."""
        return None if self.committed is None else max(self.end - self.committed, 0)


@dataclass(frozen=True, slots=True)
class ConsumerGroup:
    """A group that has read the topic, or reads it now."""

    name: str
    state: str
    """`stable`, `empty`, `preparing rebalancing`, …; empty: it may not be seen."""
    partitions: tuple[GroupLag, ...]
    """Every partition of the topic."""
    members: tuple[GroupMember, ...]
    """All of the group, also those that read other topics."""

    @property
    def lag(self) -> int | None:
        """Messages that it has not read yet in the partitions for which it committed; None: it never committed."""
        known = [part.lag for part in self.partitions if part.lag is not None]
        return sum(known) if known else None

    @property
    def uncommitted(self) -> int:
        """Messages in partitions for which it never committed: no lag counts them, and it may not have read them."""
        return sum(part.end - part.earliest for part in self.partitions if part.committed is None)

    @property
    def never_committed(self) -> bool:
        """Whether it reads the topic and has no committed offset, so that its lag is not known."""
        return self.lag is None


@dataclass(frozen=True, slots=True)
class GroupsOfTopic:
    """The groups of a topic."""

    groups: tuple[ConsumerGroup, ...]
    """Those with the largest lag first; those without one last."""
    asked: int
    """How many groups of the cluster were asked."""
    total: int
    """How many groups of the cluster this account may see."""
    refused: int
    """How many of the asked ones it may not read."""
    note: str = ""
    """Why none could be asked for; empty: they were."""


def groups_of_topic(
    cluster: Cluster,
    topic: str,
    spans: Mapping[int, LogSpan],
    *,
    timeout_s: float = TIMEOUT_S,
    clock: Callable[[], float] = time.monotonic,
) -> GroupsOfTopic:
    """Returns the groups that have committed offsets of a topic, or whose members read it now.

    Args:
        cluster: Its cluster.
        topic: Its name.
        spans: Its partitions and their offsets.
        timeout_s: For each request.
        clock: Monotonic seconds.

    Raises:
        BrokerUnavailable, NotAuthorised: The cluster cannot be asked.
    """
    if cluster.mock_brokers:
        return GroupsOfTopic((), 0, 0, 0, "a mock broker does not list consumer groups")
    diagnosis = Diagnosis(cluster, clock=clock, use="read")
    admin = open_admin(cluster, diagnosis, ClientLog(diagnosis, clock))
    try:
        listed = admin.list_consumer_groups(request_timeout=timeout_s).result(timeout_s + 1)
        names = sorted(group.group_id for group in listed.valid or ())
        asked = names[:MOST_GROUPS]
        described = _described(admin, asked, timeout_s)
        committed = _committed(admin, asked, topic, spans, timeout_s)
    except KafkaException as failure:
        raise translated(diagnosis, failure.args[0], topic, None) from None
    found = [_group(name, described.get(name), committed[name], topic, spans) for name in asked if name in committed]
    reading = [group for group in found if group.lag is not None or any(m.partitions for m in group.members)]
    reading.sort(key=lambda group: (group.lag is None, -(group.lag or 0), group.name))
    return GroupsOfTopic(tuple(reading), len(asked), len(names), len(asked) - len(found))


def _described(admin: AdminClient, names: Sequence[str], timeout_s: float) -> dict[str, Any]:
    if not names:
        return {}
    answers = admin.describe_consumer_groups(list(names), request_timeout=timeout_s)
    return {name: found for name, answer in answers.items() if (found := _allowed(answer, timeout_s)) is not None}


def _committed(
    admin: AdminClient, names: Sequence[str], topic: str, spans: Iterable[int], timeout_s: float
) -> dict[str, dict[int, int]]:
    """Returns group → partition → committed offset, of the groups that this account may read."""
    places = list(spans)
    found: dict[str, dict[int, int]] = {}
    for begin in range(0, len(names), AT_ONCE):
        answers: dict[str, Future[Any]] = {}
        for name in names[begin : begin + AT_ONCE]:
            asked = ConsumerGroupTopicPartitions(name, [TopicPartition(topic, number) for number in places])
            answers |= admin.list_consumer_group_offsets([asked], request_timeout=timeout_s)
        for name, answer in answers.items():
            if (group := _allowed(answer, timeout_s)) is not None:
                found[name] = {p.partition: p.offset for p in group.topic_partitions if p.offset >= 0}
    return found


def _allowed(answer: Future[Any], timeout_s: float) -> Any:
    """Returns what was answered about one group; None: it may not be seen, or is gone."""
    try:
        return answer.result(timeout_s + 1)
    except KafkaException as failure:
        if failure.args[0].code() in (
            KafkaError.GROUP_AUTHORIZATION_FAILED,
            KafkaError.TOPIC_AUTHORIZATION_FAILED,
            KafkaError.GROUP_ID_NOT_FOUND,
        ):
            return None
        raise


def _group(
    name: str, described: Any, committed: Mapping[int, int], topic: str, spans: Mapping[int, LogSpan]
) -> ConsumerGroup:
    parts = tuple(
        GroupLag(number, committed.get(number), span.end, span.earliest) for number, span in sorted(spans.items())
    )
    if described is None:
        return ConsumerGroup(name, "", parts, ())
    members = tuple(
        GroupMember(
            member.client_id,
            str(member.host or "").lstrip("/"),
            member.member_id,
            tuple(sorted(p.partition for p in member.assignment.topic_partitions if p.topic == topic)),
        )
        for member in described.members
    )
    return ConsumerGroup(name, described.state.name.lower().replace("_", " "), parts, members)
