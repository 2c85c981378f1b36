"""Reads and sets the committed offsets of one consumer group, and says who reads in it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaError, KafkaException, TopicPartition

from core.errors import PsttError
from core.kafka.admin_client import open_admin
from core.kafka.client_log import ClientLog
from core.kafka.diagnosis import Diagnosis
from core.kafka.librdkafka import translated
from core.model.connection import Cluster

__all__ = ["GroupIsRead", "GroupOffsets", "GroupState"]

TIMEOUT_S = 10.0
_IS_READ = frozenset(
    {
        KafkaError.UNKNOWN_MEMBER_ID,
        KafkaError.NON_EMPTY_GROUP,
        KafkaError.ILLEGAL_GENERATION,
        KafkaError.REBALANCE_IN_PROGRESS,
    }
)
"""What a broker answers where a group has members: only they commit."""


class GroupIsRead(PsttError):
    """The broker refuses offsets from outside: a consumer has joined the group meanwhile."""


@dataclass(frozen=True, slots=True)
class GroupState:
    """One group, as far as a topic is concerned."""

    state: str
    """`empty`, `stable`, `dead`, …; empty: it may not be seen."""
    members: tuple[str, ...]
    """Client ids, also of those that read other topics."""
    committed: Mapping[int, int]
    """Partition → offset of the next message that it reads; without those for which it never committed."""


class GroupOffsets:
    """The offsets of one group for one topic.

    Args:
        cluster: Its cluster; no mock broker, which lists no groups.
        group: Its name.
        topic: The topic.
        clock: Monotonic seconds.
    """

    def __init__(
        self, cluster: Cluster, group: str, topic: str, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._group, self._topic = group, topic
        self._diagnosis = Diagnosis(cluster, clock=clock, use="read")
        self._admin = open_admin(cluster, self._diagnosis, ClientLog(self._diagnosis, clock))

    def state(self, partitions: Iterable[int]) -> GroupState:
        """Returns the group as it is now; one that does not exist has no members and no offsets.

        Raises:
            BrokerUnavailable, NotAuthorised: The group cannot be read.
        """
        asked = [ConsumerGroupTopicPartitions(self._group, [TopicPartition(self._topic, p) for p in partitions])]
        described = self._admin.describe_consumer_groups([self._group], request_timeout=TIMEOUT_S)
        listed = self._admin.list_consumer_group_offsets(asked, request_timeout=TIMEOUT_S)
        found = self._result(described)
        offsets = self._result(listed)
        return GroupState(
            found.state.name.lower().replace("_", " ") if found else "dead",
            tuple(member.client_id for member in found.members) if found else (),
            {place.partition: place.offset for place in offsets.topic_partitions if place.offset >= 0}
            if offsets
            else {},
        )

    def set(self, offsets: Mapping[int, int]) -> None:
        """Commits offsets for the group: partition → offset of the next message that it reads.

        Raises:
            GroupIsRead: A consumer has joined it; nothing is changed.
            BrokerUnavailable, NotAuthorised: They cannot be set.
        """
        places = [TopicPartition(self._topic, partition, offset) for partition, offset in sorted(offsets.items())]
        asked = [ConsumerGroupTopicPartitions(self._group, places)]
        answered = self._result(self._admin.alter_consumer_group_offsets(asked, request_timeout=TIMEOUT_S))
        for place in answered.topic_partitions if answered else ():
            if place.error is not None:
                raise self._error(place.error)

    def _result(self, answers: Mapping[Any, Any]) -> Any:
        """Returns what was answered about the group; None: there is no such group."""
        (answer,) = answers.values()
        try:
            return answer.result(TIMEOUT_S + 1)
        except KafkaException as failure:
            error: KafkaError = failure.args[0]
            if error.code() == KafkaError.GROUP_ID_NOT_FOUND:
                return None
            raise self._error(error) from None

    def _error(self, error: KafkaError) -> PsttError:
        if error.code() in _IS_READ:
            return GroupIsRead(f"consumer group {self._group} is in use", why=self._diagnosis.scrub(error.str()))
        return translated(self._diagnosis, error, self._topic, None)
