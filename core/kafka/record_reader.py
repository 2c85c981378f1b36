"""Reads one record at its offset, as a consumer would receive it now."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, Consumer, KafkaError, KafkaException, Message, TopicPartition

from core.errors import ConfigError, PsttError
from core.kafka.client_log import ClientLog
from core.kafka.diagnosis import Diagnosis
from core.kafka.librdkafka import open_reader, translated
from core.kafka.mock_cluster import resolved
from core.model.connection import Cluster

__all__ = ["TopicMessage", "cluster_id", "read_message"]


@dataclass(frozen=True, slots=True)
class TopicMessage:
    """A record of a topic."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Mapping[str, str]
    at: datetime | None
    """The record's timestamp; None if the broker keeps none."""


def read_message(
    cluster: Cluster,
    topic: str,
    partition: int,
    offset: int,
    *,
    timeout_s: float = 5.0,
    clock: Callable[[], float] = time.monotonic,
) -> TopicMessage:
    """Reads the committed record at an offset.

    Args:
        cluster: The topic's cluster.
        topic: Its name.
        partition: From 0.
        offset: In that partition.
        timeout_s: In total, including connecting.
        clock: Monotonic seconds.

    Raises:
        ConfigError: The cluster is a mock one outside of a demo, which existed only in the process of its run.
        BrokerUnavailable, NotAuthorised, TopicMissing: The record cannot be read.
        PsttError: The record is not on the topic any more; the text says why.
    """
    if cluster.mock_brokers and cluster.kept_in is None:
        raise ConfigError(
            f'messages on "{cluster.name}" cannot be read again',
            why="a mock broker lives inside the process of each run and ends with it",
            remedy="use a cluster of your own: README.md",
        )
    cluster = resolved(cluster)
    diagnosis = Diagnosis(cluster, clock=clock, use="read")
    consumer = _consumer(cluster, diagnosis, clock)
    try:
        place = TopicPartition(topic, partition, offset)
        return _read(consumer, place, diagnosis, clock() + timeout_s, timeout_s, clock)
    except KafkaException as failure:
        raise translated(diagnosis, failure.args[0], topic, None) from None
    finally:
        consumer.close()


def cluster_id(cluster: Cluster, *, timeout_s: float = 3.0, clock: Callable[[], float] = time.monotonic) -> str:
    """Asks a cluster for its id; empty if it does not answer in that time, or has none."""
    try:
        consumer = _consumer(cluster, Diagnosis(cluster, clock=clock), clock)
    except PsttError:  # no token for it, or no Kerberos in librdkafka
        return ""
    try:
        found: str | None = consumer.list_topics(timeout=timeout_s).cluster_id
    except KafkaException:
        return ""
    finally:
        consumer.close()
    return found or ""


def _consumer(cluster: Cluster, diagnosis: Diagnosis, clock: Callable[[], float]) -> Consumer:
    """Returns a consumer that reads at an offset and joins no group."""
    settings = {"auto.offset.reset": "error", "fetch.wait.max.ms": 50, "queued.min.messages": 1}
    return open_reader(cluster, diagnosis, ClientLog(diagnosis, clock), settings)


def _read(
    consumer: Consumer,
    place: TopicPartition,
    diagnosis: Diagnosis,
    deadline: float,
    timeout_s: float,
    clock: Callable[[], float],
) -> TopicMessage:
    low, high = _offsets(consumer, place, diagnosis, max(deadline - clock(), 0.1), timeout_s)
    if place.offset < low:
        raise _gone(place, f"the topic keeps that partition from offset {low} on")
    if place.offset >= high:
        seen = (
            f"readers see that partition up to offset {high - 1}" if high else "readers see nothing of that partition"
        )
        raise _gone(place, f"{seen}: a transaction is open there still, or the topic was made anew, or is another one")
    consumer.assign([place])
    while clock() < deadline:
        message = consumer.poll(min(max(deadline - clock(), 0.01), 0.2))
        if message is None:
            continue
        error = message.error()
        if error is not None and error.code() == KafkaError._PARTITION_EOF:
            raise _gone(place, "no committed message is there: compaction or an aborted transaction removed it")
        if error is not None:
            raise translated(diagnosis, error, place.topic, None)
        if message.offset() != place.offset:
            raise _gone(place, "the next one is read instead: compaction or an aborted transaction removed it")
        return _made(message)
    raise diagnosis.no_contact(timeout_s)


def _offsets(
    consumer: Consumer, place: TopicPartition, diagnosis: Diagnosis, left_s: float, timeout_s: float
) -> tuple[int, int]:
    try:
        low, high = consumer.get_watermark_offsets(TopicPartition(place.topic, place.partition), timeout=left_s)
    except KafkaException as failure:
        error: KafkaError = failure.args[0]
        if error.code() in (KafkaError._TRANSPORT, KafkaError._TIMED_OUT, KafkaError._ALL_BROKERS_DOWN):
            raise diagnosis.no_contact(timeout_s) from None
        if error.code() == KafkaError._UNKNOWN_PARTITION:  # librdkafka reports this for a missing topic, too
            raise diagnosis.of_family("topic", error.str(), place.topic, None) from None
        raise
    return low, high


def _gone(place: TopicPartition, why: str) -> PsttError:
    return PsttError(
        f"there is no message at {place.topic}-{place.partition} @ {place.offset} any more",
        why=why,
        remedy="what was sent stands in the ledger all the same; a replay of its run sends it again",
    )


def _made(message: Message) -> TopicMessage:
    kind, milliseconds = message.timestamp()
    at = None if kind == TIMESTAMP_NOT_AVAILABLE else datetime.fromtimestamp(milliseconds / 1000, UTC)
    headers = {name: _text(value) for name, value in dict(message.headers() or []).items()}
    return TopicMessage(
        message.topic() or "",
        message.partition() or 0,
        message.offset() or 0,
        _bytes(message.key()),
        _bytes(message.value()),
        headers,
        at,
    )


def _bytes(data: bytes | str | None) -> bytes | None:
    return data.encode() if isinstance(data, str) else data


def _text(value: bytes | str | None) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value or ""
