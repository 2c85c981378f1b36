"""Asks for the ends of a topic again and again, through one client that stays open: a login for each would be felt."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from confluent_kafka import IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import OffsetSpec  # type: ignore[attr-defined]

from core.kafka.admin_client import open_admin
from core.kafka.client_log import ClientLog
from core.kafka.diagnosis import Diagnosis
from core.kafka.librdkafka import translated
from core.model.connection import Cluster

__all__ = ["TopicEnds"]

TIMEOUT_S = 5.0


class TopicEnds:
    """The ends of a topic's partitions, as committed readers see them.

    Args:
        cluster: The topic's cluster; its mock brokers are started already.
        topic: Its name.
        partitions: Their numbers.
        clock: Monotonic seconds.
    """

    def __init__(
        self, cluster: Cluster, topic: str, partitions: Iterable[int], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._topic = topic
        self._places = [TopicPartition(topic, number) for number in partitions]
        self._diagnosis = Diagnosis(cluster, clock=clock, use="read")
        self._admin = open_admin(cluster, self._diagnosis, ClientLog(self._diagnosis, clock))

    def now(self) -> dict[int, int]:
        """Returns, by partition, the offset up to which a committed reader can read: an open transaction ends it.

        Raises:
            BrokerUnavailable, NotAuthorised: The cluster cannot be asked.
        """
        latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        answers = self._admin.list_offsets(
            dict.fromkeys(self._places, latest),
            isolation_level=IsolationLevel.READ_COMMITTED,
            request_timeout=TIMEOUT_S,
        )
        try:
            return {place.partition: answer.result(TIMEOUT_S + 1).offset for place, answer in answers.items()}
        except KafkaException as failure:
            raise translated(self._diagnosis, failure.args[0], self._topic, None) from None
