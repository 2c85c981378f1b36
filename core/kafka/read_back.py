"""Reads the committed records of a topic quickly: keys, message ids and sizes of millions of records.

One record costs 1.1 µs of CPU here, most of it in librdkafka's Python client, which creates an object for each.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, Self

from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition

from core.errors import BrokerUnavailable, PsttError, RunCancelled
from core.kafka.client_log import ClientLog
from core.kafka.diagnosis import Diagnosis
from core.kafka.librdkafka import family_of, open_reader, translated
from core.model.connection import Cluster

__all__ = ["Found", "ReadBack"]

Found = tuple[int, int, bytes | None, bytes | None, int]
"""Partition, offset, key, message id (None: of another producer or run), bytes of the value."""
AT_ONCE = 5_000
TURN_S = 0.5
QUEUED_KBYTES = 8_192
"""What librdkafka prefetches; its default of 64 MB is no faster."""
QUEUE_BACKOFF_MS = 5
"""How long it pauses with a full queue. Its default, 1 s, makes reading four times slower."""


class ReadBack:
    """A reader of one topic; use it in a `with` statement.

    Args:
        cluster: The topic's cluster; its mock brokers are started already.
        topic: Its name.
        run_id: The run whose messages are distinguished from all others.
        should_stop: Called between two blocks.
        silence_s: The longest time without a record.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        cluster: Cluster,
        topic: str,
        run_id: str,
        *,
        should_stop: Callable[[], bool] = lambda: False,
        silence_s: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._topic = topic
        self._mark = ("run_id", run_id.encode())
        self._should_stop = should_stop
        self._silence_s = silence_s
        self._clock = clock
        self._diagnosis = Diagnosis(cluster, clock=clock, use="read")
        settings = {
            "auto.offset.reset": "earliest",  # retention may delete faster than this reads
            "queued.max.messages.kbytes": QUEUED_KBYTES,
            "fetch.queue.backoff.ms": QUEUE_BACKOFF_MS,
        }
        self._consumer = open_reader(cluster, self._diagnosis, ClientLog(self._diagnosis, clock), settings)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._consumer.close()

    def records(self, ranges: Mapping[int, range]) -> Iterator[list[Found]]:
        """Yields every committed record of these offsets, in blocks.

        Args:
            ranges: Partition → offsets; empty ranges are ignored.

        Raises:
            BrokerUnavailable: Nothing came for `silence_s`: no broker, or a transaction that is still open.
            NotAuthorised, TopicMissing: The topic cannot be read or does not exist any more.
            RunCancelled: `should_stop` returned True.
        """
        ends = {partition: offsets.stop for partition, offsets in ranges.items() if offsets}
        self._consumer.assign([TopicPartition(self._topic, p, ranges[p].start) for p in ends])
        heard_at = self._clock()
        while ends:
            if self._should_stop():
                raise RunCancelled("reading back was stopped", why="somebody asked for it")
            try:
                messages = self._consumer.consume(AT_ONCE, TURN_S)
            except KafkaException as failure:
                raise translated(self._diagnosis, failure.args[0], self._topic, None) from None
            if messages:
                heard_at = self._clock()
                yield self._of_block(messages, ends)
            elif self._clock() - heard_at > self._silence_s:
                raise self._nothing_comes()

    def _of_block(self, messages: list[Message], ends: dict[int, int]) -> list[Found]:
        """Returns the requested records of a block; removes partitions that have been read to their end from `ends`."""
        found: list[Found] = []
        mark = self._mark
        for message in messages:
            partition, offset = message.partition() or 0, message.offset() or 0
            end = ends.get(partition)
            if end is None:
                continue
            error = message.error()
            if error is not None:
                self._note(error)
                if offset >= end:  # for an end of partition, the offset of the next record
                    self._end(ends, partition)
                continue
            if offset < end:
                headers: Any = message.headers()
                # Our messages begin with these two headers (`core.run.pipeline`, `core.kafka.service`).
                is_ours = headers and len(headers) > 1 and headers[1] == mark and headers[0][0] == "message_id"
                found.append((partition, offset, message.key(), headers[0][1] if is_ours else None, len(message)))
            if offset >= end - 1:
                self._end(ends, partition)
        return found

    def _end(self, ends: dict[int, int], partition: int) -> None:
        del ends[partition]
        self._consumer.incremental_unassign([TopicPartition(self._topic, partition)])

    def _note(self, error: KafkaError) -> None:
        if error.code() == KafkaError._PARTITION_EOF or family_of(error) in ("late", "away", "busy"):
            return
        raise translated(self._diagnosis, error, self._topic, None)

    def _nothing_comes(self) -> PsttError:
        if self._diagnosis.cause is not None:
            return self._diagnosis.no_contact(self._silence_s)
        return BrokerUnavailable(
            f'topic "{self._topic}" of {self._diagnosis.place} cannot be read to the end of the run',
            why=f"nothing came for {self._silence_s:g} s: a transaction of another program may be open there",
            remedy="wait until it ends, and verify again",
        )
