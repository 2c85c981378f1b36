"""A Kafka cluster inside this process, for the demo: librdkafka's own mock brokers.

They speak the real protocol on a local port, to any client, and create topics on first use. They keep everything in memory
and show aborted transactions, so they prove nothing about exactly-once delivery.

The cluster of a demo workspace has its messages in `core.kafka.kept_topics` as well (decision 029): a process that starts
the brokers publishes those that earlier processes kept, in their order, so that each one gets its offset again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from core.errors import BrokerUnavailable
from core.kafka.kept_topics import KeptMessage, KeptTopics
from core.model.connection import Cluster

if TYPE_CHECKING:
    from confluent_kafka import Consumer, Message, Producer

__all__ = ["MOCK_PARTITIONS", "keep", "resolved", "start"]

MOCK_PARTITIONS = 4
"""Of each topic that a mock broker creates."""
KEPT_WITHIN_S = 60.0
AT_ONCE = 5_000
NOT_KEPT = (("pstt", b"this message was not kept"),)
"""Header of what is published in place of a message that the mock broker dropped before it was kept: it holds 5 MB a partition."""

_lock = threading.Lock()
_running: dict[tuple[str, Path | None], _MockCluster] = {}


def resolved(cluster: Cluster) -> Cluster:
    """Returns the cluster itself or, if it asks for mock brokers, with their address and without security.

    Messages that other processes have kept since are published first.

    Raises:
        StorageFailed: The kept messages cannot be read.
    """
    if not cluster.mock_brokers:
        return cluster
    address = start(cluster.name, cluster.mock_brokers, cluster.kept_in)
    return replace(cluster, bootstrap_servers=address, security_protocol="PLAINTEXT")


def start(name: str, brokers: int, kept_in: Path | None = None) -> str:
    """Returns the address of the mock cluster with that name; it is started once and ends with the process.

    Args:
        name: Its name.
        brokers: How many it has.
        kept_in: The folder of its kept messages; None: it begins empty.
    """
    with _lock:
        running = _running.get((name, kept_in))
        if running is None or not running.has_only_what_is_kept():  # a new demo in the same folder
            running = _running[name, kept_in] = _MockCluster.started(brokers, kept_in)
        running.load()
        return running.address


def keep(cluster: Cluster) -> int:
    """Keeps the messages that were sent to the mock brokers in this process. Returns how many.

    Only one process at a time may send to the cluster: see `core.run.kept_messages`.

    Raises:
        BrokerUnavailable: They cannot be read from the mock brokers.
        StorageFailed: They cannot be written.
    """
    with _lock:
        running = _running.get((cluster.name, cluster.kept_in))
        return 0 if running is None else running.keep()


@dataclass(slots=True)
class _MockCluster:
    """The mock brokers of this process, and how many of their messages are kept."""

    host: Producer
    """The brokers live as long as this producer, which sends nothing."""
    address: str
    kept: KeptTopics | None
    """None: nothing is kept."""
    loaded: dict[Path, int] = field(default_factory=dict)
    """Segment → when its file was changed, in ns."""
    ends: dict[tuple[str, int], int] = field(default_factory=dict)
    """Topic and partition → the offset after the last message that is kept."""

    @classmethod
    def started(cls, brokers: int, kept_in: Path | None) -> _MockCluster:
        """Starts mock brokers, which are empty."""
        from confluent_kafka import Producer  # kafka-python-ng is used where it cannot be installed

        settings = {"bootstrap.servers": "127.0.0.1:1", "test.mock.num.brokers": brokers, "log_level": 0}
        host = Producer(settings, logger=logging.getLogger("pstt.kafka"))
        found = host.list_topics(timeout=10).brokers.values()
        address = ",".join(sorted(f"{broker.host}:{broker.port}" for broker in found))
        return cls(host, address, None if kept_in is None else KeptTopics(kept_in))

    def has_only_what_is_kept(self) -> bool:
        """Returns whether every segment that was published is still there, unchanged."""
        return all(_changed_ns(segment) == known for segment, known in self.loaded.items())

    def load(self) -> None:
        """Publishes the segments that were added since the last call."""
        if self.kept is None:
            return
        added = [segment for segment in self.kept.segments() if segment not in self.loaded]
        if not added:
            return
        with _Loader(self.address) as loader:
            for segment in added:
                stamp = _changed_ns(segment)
                for message in self.kept.read(segment):
                    place = message.topic, message.partition
                    for offset in range(self.ends.get(place, 0), message.offset):
                        loader.publish(KeptMessage(*place, offset, message.timestamp_ms, None, None, NOT_KEPT))
                    loader.publish(message)
                    self.ends[place] = message.offset + 1
                self.loaded[segment] = stamp

    def keep(self) -> int:
        """Writes what is on the topics and not yet kept as one more segment. Returns how many messages that are."""
        if self.kept is None:
            return 0
        with closing(_consumer(self.address)) as consumer:
            messages = list(_read_from(consumer, self.ends))
        segment = self.kept.add(messages)
        if segment is not None:
            self.loaded[segment] = _changed_ns(segment)
        for message in messages:
            self.ends[message.topic, message.partition] = message.offset + 1
        return len(messages)


class _Loader:
    """Publishes kept messages to mock brokers; use it in a `with` statement."""

    def __init__(self, address: str) -> None:
        from confluent_kafka import Producer

        self._failed = 0
        self._producer = Producer(
            {
                "bootstrap.servers": address,
                "log_level": 0,
                "acks": "all",
                "compression.type": "zstd",  # mock brokers hold 5 MB of a partition as it is sent
                "linger.ms": 20,
                "batch.size": 1_000_000,
                "queue.buffering.max.messages": 20_000,
                "on_delivery": self._delivered,
            },
            logger=logging.getLogger("pstt.kafka"),
        )

    def __enter__(self) -> _Loader:
        return self

    def __exit__(self, failure: type[BaseException] | None, *_: object) -> None:
        left = self._producer.flush(KEPT_WITHIN_S)
        if failure is None and (left or self._failed):
            raise BrokerUnavailable(
                "the demo's mock broker did not take the messages of earlier runs",
                why=f"{left or self._failed} of them were not acknowledged",
                remedy="try again; python -m core demo makes the demo anew",
            )

    def publish(self, message: KeptMessage) -> None:
        """Queues a message for its partition; waits while the queue is full."""
        while True:
            try:
                self._producer.produce(
                    message.topic,
                    message.value,
                    message.key,
                    message.partition,
                    timestamp=message.timestamp_ms,
                    headers=list(message.headers),
                )
                return
            except BufferError:
                self._producer.poll(0.1)

    def _delivered(self, error: object, _message: object) -> None:
        self._failed += error is not None


def _consumer(address: str) -> Consumer:
    from confluent_kafka import Consumer

    settings = {
        "bootstrap.servers": address,
        "group.id": "pstt-keep",  # librdkafka requires one; the group is never joined
        "enable.auto.commit": False,
        "auto.offset.reset": "earliest",
        "fetch.wait.max.ms": 20,
        "log_level": 0,
    }
    return Consumer(settings, logger=logging.getLogger("pstt.kafka"))


def _read_from(consumer: Consumer, ends: dict[tuple[str, int], int]) -> Iterator[KeptMessage]:
    """Yields the messages after these offsets, of every topic; those of one partition in the order of their offsets.

    Raises:
        BrokerUnavailable: They did not come in time.
    """
    from confluent_kafka import KafkaException

    try:
        yield from _read_in_time(consumer, ends, time.monotonic() + KEPT_WITHIN_S)
    except KafkaException as failure:
        raise _not_kept(failure.args[0].str()) from None


def _read_in_time(consumer: Consumer, ends: dict[tuple[str, int], int], deadline: float) -> Iterator[KeptMessage]:
    from confluent_kafka import KafkaException, TopicPartition

    left: dict[tuple[str, int], int] = {}
    begin = []
    for topic, described in consumer.list_topics(timeout=10).topics.items():
        for partition in described.partitions:
            low, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=10)
            first = max(low, ends.get((topic, partition), 0))
            if first < high:
                left[topic, partition] = high
                begin.append(TopicPartition(topic, partition, first))
    consumer.assign(begin)
    while left:
        if time.monotonic() > deadline:
            raise _not_kept(f"{len(left)} partitions were not read to their end in {KEPT_WITHIN_S:g} s")
        for message in consumer.consume(AT_ONCE, timeout=0.1):
            if (error := message.error()) is not None:
                raise KafkaException(error)
            found = _kept_message(message)
            place = found.topic, found.partition
            if found.offset + 1 >= left.get(place, 0):
                left.pop(place, None)
            yield found


def _kept_message(message: Message) -> KeptMessage:
    return KeptMessage(
        message.topic() or "",
        message.partition() or 0,
        message.offset() or 0,
        message.timestamp()[1],
        _bytes(message.key()),
        _bytes(message.value()),
        tuple((name, _bytes(value) or b"") for name, value in dict(message.headers() or []).items()),
    )


def _bytes(data: bytes | str | None) -> bytes | None:
    return data.encode() if isinstance(data, str) else data


def _not_kept(why: str) -> BrokerUnavailable:
    return BrokerUnavailable(
        "the messages of this run are not kept for later",
        why=why,
        remedy="the run itself is complete; send it again to keep its messages",
    )


def _changed_ns(file: Path) -> int:
    with suppress(OSError):
        return file.stat().st_mtime_ns
    return -1
