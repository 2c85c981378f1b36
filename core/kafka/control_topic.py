"""The control topic: one marker for each run that was sent exactly once, compacted by its key.

A run writes its marker as an ordinary message inside its own transaction.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from core.errors import NotAuthorised, PsttError
from core.kafka.client_log import ClientLog
from core.kafka.diagnosis import Diagnosis
from core.kafka.librdkafka import client_config, open_reader, translated
from core.model.connection import Cluster

__all__ = ["ControlTopic"]

END_WAIT_MS = 20
"""How long the broker waits for another record before it says that there is none; by default half a second."""
TURN_S = 1.0
"""The longest wait for a record before the time-out is checked again."""
AT_ONCE = 500
"""Records taken from librdkafka in one call."""


class ControlTopic:
    """One control topic of one cluster.

    Args:
        name: The topic.
        cluster: Its cluster.
        diagnosis: Creates the errors.
        log: Receives the clients' log lines.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        name: str,
        cluster: Cluster,
        diagnosis: Diagnosis,
        log: ClientLog,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self._cluster = cluster
        self._diagnosis = diagnosis
        self._log = log
        self._clock = clock

    def make(self, timeout_s: float) -> None:
        """Creates the topic with one partition, compacted. Another process may create it first.

        Raises:
            NotAuthorised: This account may not create topics; the text says what to ask for.
        """
        admin = AdminClient(client_config(self._cluster), logger=self._log)
        topic = NewTopic(self.name, 1, -1, config={"cleanup.policy": "compact"})
        try:
            admin.create_topics([topic])[self.name].result(timeout_s)
        except KafkaException as failure:
            error: KafkaError = failure.args[0]
            if error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
                raise NotAuthorised(
                    f'topic "{self.name}" cannot be made on {self._diagnosis.place}',
                    why="the broker's access rules (ACL) say no",
                    remedy="have it made with one partition and cleanup.policy=compact, and Read and Write on it given to this account",
                ) from None
            if error.code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise self._error_of(error) from None

    def newest(self, keys: Collection[bytes], partitions: int, timeout_s: float) -> dict[bytes, bytes]:
        """Returns the newest value of each existing key, by reading all committed records.

        Args:
            keys: The keys.
            partitions: The number of partitions of the topic.
            timeout_s: For the whole reading.

        Raises:
            BrokerUnavailable, NotAuthorised: The topic cannot be read to its end.
        """
        settings = {
            "auto.offset.reset": "earliest",  # where the oldest records were deleted
            "fetch.wait.max.ms": END_WAIT_MS,
        }
        consumer = open_reader(self._cluster, self._diagnosis, self._log, settings)
        try:
            # OFFSET_BEGINNING is looked up with a leader that is not known yet, and again after half a second.
            consumer.assign([TopicPartition(self.name, number, 0) for number in range(partitions)])
            return self._last(consumer, keys, partitions, timeout_s)
        finally:
            consumer.close()

    def _last(
        self, consumer: Consumer, keys: Collection[bytes], partitions: int, timeout_s: float
    ) -> dict[bytes, bytes]:
        last: dict[bytes, bytes | None] = {}
        ended = 0
        deadline = self._clock() + timeout_s
        while ended < partitions:
            if self._clock() > deadline:
                raise self._diagnosis.no_contact(timeout_s)
            # `consume` waits until it has that many: one is waited for, and the others are taken if they are here.
            for message in consumer.consume(1, TURN_S) + consumer.consume(AT_ONCE, 0):
                error = message.error()
                if error is None:
                    key = message.key()
                    last |= {key: message.value()} if key is not None and key in keys else {}
                elif error.code() == KafkaError._PARTITION_EOF:
                    ended += 1
                else:
                    raise self._error_of(error)
        return {key: value for key, value in last.items() if value is not None}  # an empty value deletes the key

    def _error_of(self, error: KafkaError) -> PsttError:
        return translated(self._diagnosis, error, self.name, None)
