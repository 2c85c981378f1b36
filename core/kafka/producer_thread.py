"""aiokafka's producer in a thread of its own, with one queue of messages for each partition.

aiokafka carries connections, metadata, retries and transactions. The record batches are ours (`core.kafka.record_batch`):
built from columns, so that no Python call or object is made for a single message.

Three things that aiokafka 0.14 does not do are done here, above it:

- A batch that the broker refuses for good leaves a gap in aiokafka's sequence numbers, after which every later batch of that
  partition is refused. So each partition counts its own, and a refused batch does not count.
- An idempotent batch is retried for ever. `core.kafka.aiokafka` ends it after the delivery time-out, by a new producer.
- Closing waits until everything is sent. `abandon` does not wait.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from aiokafka import AIOKafkaProducer
from numpy.typing import NDArray

from core.kafka.record_batch import RecordBatch, encode_batch
from core.model.publisher import Delivery

__all__ = ["Answer", "Messages", "ProducerThread"]

T = TypeVar("T")

SEQUENCES = 2**31
"""Sequence numbers of an idempotent producer begin again at 0 after the largest int32."""
BATCH_OVERHEAD_BYTES = 61
"""The head of a record batch."""


@dataclass(slots=True, eq=False)
class Messages:
    """Messages of one delivery for one partition, in their order."""

    delivery: Delivery
    indexes: NDArray[np.int64]
    """Their positions in the delivery."""
    sizes: NDArray[np.int64]
    """Bytes of each in a record batch, at most."""
    sent_at_ms: int
    published_at_s: float
    """Of `time.perf_counter`."""
    are_alone: bool = False
    """Each goes in a record batch of its own."""

    def split(self, count: int) -> tuple[Messages, Messages]:
        """Returns the first `count` messages and the others."""
        first, rest = (
            Messages(
                self.delivery,
                self.indexes[part],
                self.sizes[part],
                self.sent_at_ms,
                self.published_at_s,
                self.are_alone,
            )
            for part in (slice(0, count), slice(count, None))
        )
        return first, rest


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one record batch."""

    topic: str
    partition: int
    messages: Sequence[Messages]
    first_offset: int
    """-1: it is stored, at an unknown offset, or it failed."""
    error: Exception | None
    answered_at_s: float
    """Of `time.perf_counter`."""
    size_bytes: int
    """Of the record batch, uncompressed."""


@dataclass(slots=True, eq=False)
class _PartitionQueue:
    """Messages that wait for their record batch; one record batch of a partition is in flight at a time."""

    topic: str
    partition: int
    waiting: deque[Messages] = field(default_factory=deque)
    waiting_bytes: int = 0
    is_in_flight: bool = False
    linger: asyncio.TimerHandle | None = None
    producer: tuple[int, int] = (-1, -1)
    """Id and epoch to which `sequence` belongs."""
    sequence: int = 0
    """Of the next record."""

    def add(self, messages: Messages) -> None:
        self.waiting.append(messages)
        self.waiting_bytes += int(messages.sizes.sum())

    def take(self, limit_bytes: int) -> list[Messages]:
        """Removes and returns what fits into one record batch: at least one message, all with the same headers."""
        taken: list[Messages] = []
        left_bytes = limit_bytes - BATCH_OVERHEAD_BYTES
        while self.waiting:
            messages = self.waiting[0]
            if taken and (messages.are_alone or messages.delivery.batch.headers != taken[0].delivery.batch.headers):
                break
            ends = np.cumsum(messages.sizes)
            fitting = 1 if messages.are_alone else int(np.searchsorted(ends, left_bytes, "right"))
            if not fitting and taken:
                break
            fitting = max(fitting, 1)
            if fitting < len(messages.indexes):
                first, self.waiting[0] = messages.split(fitting)
            else:
                first = self.waiting.popleft()
            taken.append(first)
            size = int(ends[fitting - 1])
            self.waiting_bytes -= size
            left_bytes -= size
            if first is not messages or messages.are_alone:
                break
        return taken

    def sequence_of(self, producer: tuple[int, int]) -> int:
        """Returns the sequence number of the next record; a new producer begins at 0."""
        if producer != self.producer:
            self.producer, self.sequence = producer, 0
        return self.sequence


class _BatchBuilder:
    """A finished record batch in the form in which aiokafka's `send_batch` takes one."""

    def __init__(self, batch: RecordBatch, partition: _PartitionQueue) -> None:
        self._batch = batch
        self._partition = partition
        self._bytes: bytes | None = None
        self._state = (-1, -1, -1)

    def record_count(self) -> int:
        return self._batch.count

    def size(self) -> int:
        return self._batch.size_bytes

    def closed(self) -> bool:
        return True

    def close(self) -> None:
        """It is finished already."""

    def _set_producer_state(self, producer_id: int, producer_epoch: int, base_sequence: int) -> None:
        """Called once, before the first attempt. Their sequence number is not used: it counts refused batches too."""
        self._state = (producer_id, producer_epoch, self._partition.sequence_of((producer_id, producer_epoch)))

    def _build(self) -> bytes:
        if self._bytes is None:
            self._bytes = self._batch.to_bytes(*self._state)
        return self._bytes


class ProducerThread:
    """One producer, from its start to its end. Every method may be called from one other thread.

    Args:
        settings: Of `AIOKafkaProducer`.
        batch_size_bytes: A partition's messages are sent as soon as they have that many bytes.
        linger_ms: They are sent as soon as the first of them has waited that long.
        compression: Of record batches.
        limit_bytes: Topic → the largest record batch.
        on_answer: Called in this thread with what became of each record batch.
    """

    def __init__(
        self,
        settings: Mapping[str, Any],
        *,
        batch_size_bytes: int,
        linger_ms: float,
        compression: str,
        limit_bytes: Callable[[str], int],
        on_answer: Callable[[Answer], None],
    ) -> None:
        self._settings = settings
        self._batch_size_bytes = batch_size_bytes
        self._linger_s = linger_ms / 1000
        self._compression = compression
        self._is_transactional = settings.get("transactional_id") is not None
        self._limit_bytes = limit_bytes
        self._on_answer = on_answer
        self._queues: dict[tuple[str, int], _PartitionQueue] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        # The default loop of Windows has no add_reader, which some TLS versions of asyncio need.
        self._loop = asyncio.SelectorEventLoop()
        self._producer: AIOKafkaProducer
        self._thread = threading.Thread(target=self._work, name="kafka-producer", daemon=True)
        self._thread.start()

    def start(self, timeout_s: float) -> None:
        """Connects; an idempotent producer gets its id, a transactional one fences earlier holders of its id.

        Raises:
            KafkaError, TimeoutError: aiokafka's own; nothing is open then.
        """
        try:
            self._wait_for(self._start(), timeout_s)
        except BaseException:
            self.abandon()
            raise

    def partitions_of(self, topic: str, timeout_s: float) -> tuple[int, list[int]]:
        """Returns the number of partitions, and those that have a leader.

        Raises:
            KafkaError, TimeoutError: aiokafka's own; the topic is missing, or its metadata did not come.
        """
        cluster = self._producer.client.cluster
        found = cluster.partitions_for_topic(topic)
        if found is None:
            found = self._wait_for(self._producer.partitions_for(topic), timeout_s)
        return len(found), sorted(cluster.available_partitions_for_topic(topic) or ())

    def add(self, topic: str, messages: Sequence[tuple[int, Messages]]) -> None:
        """Adds messages to the queues of their partitions; `on_answer` reports each exactly once, unless abandoned."""
        self._loop.call_soon_threadsafe(self._add, topic, messages)

    def begin(self, timeout_s: float) -> None:
        """Begins a transaction."""
        self._wait_for(self._producer.begin_transaction(), timeout_s)

    def commit(self, timeout_s: float) -> None:
        """Commits the transaction."""
        self._wait_for(self._producer.commit_transaction(), timeout_s)

    def abort(self, timeout_s: float) -> None:
        """Aborts the transaction."""
        self._wait_for(self._producer.abort_transaction(), timeout_s)

    def abandon(self, timeout_s: float = 1.0) -> None:
        """Closes connections at once; what is in flight is not reported any more."""
        if not self._thread.is_alive():
            return
        asyncio.run_coroutine_threadsafe(self._end(), self._loop)
        self._thread.join(timeout_s)

    def _wait_for(self, step: Coroutine[Any, Any, T], timeout_s: float) -> T:
        waiting = asyncio.run_coroutine_threadsafe(asyncio.wait_for(step, timeout_s), self._loop)
        return waiting.result(timeout_s + 5.0)

    def _work(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.set_exception_handler(lambda _loop, _context: None)  # of tasks that `abandon` ended
        try:
            self._loop.run_forever()
        finally:
            self._loop.close()

    async def _start(self) -> None:
        self._producer = AIOKafkaProducer(**self._settings)
        await self._producer.start()

    async def _end(self) -> None:
        producer = getattr(self, "_producer", None)
        try:
            if producer is not None:
                await asyncio.wait_for(producer.client.close(), 0.5)
                # Marks the producer as closed, which its destructor checks; it would wait for what is in flight.
                await asyncio.wait_for(producer.stop(), 0.05)
        except Exception:  # noqa: BLE001, S110 - whatever it is, this producer is not used again
            pass
        for task in asyncio.all_tasks(self._loop):
            if task is not asyncio.current_task():
                task.cancel()
        self._loop.call_soon(self._loop.stop)

    def _add(self, topic: str, messages: Sequence[tuple[int, Messages]]) -> None:
        for partition, some in messages:
            queue_ = self._queues.get((topic, partition))
            if queue_ is None:
                queue_ = self._queues[topic, partition] = _PartitionQueue(topic, partition)
            queue_.add(some)
            self._send_if_due(queue_)

    def _send_if_due(self, queue_: _PartitionQueue) -> None:
        """Sends the next record batch of a partition, or waits for more messages."""
        if queue_.is_in_flight or not queue_.waiting:
            return
        oldest = queue_.waiting[0]
        left_s = oldest.published_at_s + self._linger_s - time.perf_counter()
        if queue_.waiting_bytes < self._batch_size_bytes and left_s > 0 and not oldest.are_alone:
            if queue_.linger is None:
                queue_.linger = self._loop.call_later(left_s, self._linger_is_over, queue_)
            return
        if queue_.linger is not None:
            queue_.linger.cancel()
            queue_.linger = None
        queue_.is_in_flight = True
        task = self._loop.create_task(self._send(queue_, queue_.take(self._limit_bytes(queue_.topic))))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _linger_is_over(self, queue_: _PartitionQueue) -> None:
        queue_.linger = None
        self._send_if_due(queue_)

    async def _send(self, queue_: _PartitionQueue, messages: Sequence[Messages]) -> None:
        error: Exception | None = None
        offset = -1
        try:
            batch = self._encoded(messages)
            response = await self._producer.send_batch(
                _BatchBuilder(batch, queue_), queue_.topic, partition=queue_.partition
            )
            offset = (await response).offset
            queue_.sequence = (queue_.sequence + batch.count) % SEQUENCES
        except Exception as failure:  # noqa: BLE001 - each message gets a report, whatever happens
            error = failure
        queue_.is_in_flight = False
        size_bytes = sum(int(some.sizes.sum()) for some in messages)
        self._on_answer(
            Answer(queue_.topic, queue_.partition, messages, offset, error, time.perf_counter(), size_bytes)
        )
        self._send_if_due(queue_)

    def _encoded(self, messages: Sequence[Messages]) -> RecordBatch:
        keys: list[bytes | None] = []
        values: list[bytes] = []
        message_ids: list[bytes] = []
        timestamps_ms: list[int] = []
        for some in messages:
            batch, indexes = some.delivery.batch, some.indexes.tolist()
            keys += map(batch.keys.__getitem__, indexes)
            values += map(batch.values.__getitem__, indexes)
            message_ids += map(batch.message_ids.__getitem__, indexes)
            timestamps_ms += [some.sent_at_ms] * len(indexes) if len(messages) > 1 else ()
        return encode_batch(
            keys,
            values,
            message_ids,
            messages[0].delivery.batch.headers,
            timestamps_ms=timestamps_ms or messages[0].sent_at_ms,
            compression=self._compression,
            is_transactional=self._is_transactional,
        )
