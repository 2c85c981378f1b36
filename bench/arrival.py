"""When the messages of a contestant are in the topic, as the broker says."""

from __future__ import annotations

import logging
import time

from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

NO_LEADER_YET = (KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE)


class Arrival:
    """The times at which a topic got its first message and the last of those that are expected.

    Args:
        bootstrap_servers: Of the broker.
        topic: It may have messages already.
        rows: How many more are expected.
    """

    def __init__(self, bootstrap_servers: str, topic: str, rows: int) -> None:
        self._admin = AdminClient(
            {"bootstrap.servers": bootstrap_servers, "log_level": 0}, logger=logging.getLogger("pstt.kafka")
        )
        partitions = self._admin.list_topics(topic, timeout=10).topics[topic].partitions
        self._places = {TopicPartition(topic, partition): OffsetSpec.latest() for partition in partitions}
        self._rows, self._before = rows, self._count()
        self.arrived = 0
        self.first_at: float | None = None
        self.last_at: float | None = None

    def poll(self) -> bool:
        """Reads the end offsets; returns whether all rows are there."""
        if self.last_at is None:
            self.arrived = self._count() - self._before
            if self.arrived and self.first_at is None:
                self.first_at = time.perf_counter()
            if self.arrived >= self._rows:
                self.last_at = time.perf_counter()
        return self.last_at is not None

    @property
    def between_s(self) -> float | None:
        """From the first message to the last one, or None."""
        return self.last_at - self.first_at if self.first_at is not None and self.last_at is not None else None

    def _count(self) -> int:
        for _ in range(50):
            found = self._admin.list_offsets(self._places, request_timeout=10)
            try:
                return sum(future.result().offset for future in found.values())
            except KafkaException as error:
                # All may know the leader of a new partition before it knows it itself.
                if error.args[0].code() not in NO_LEADER_YET:
                    raise
                time.sleep(0.1)
        raise TimeoutError("the end offsets of the topic cannot be read")
