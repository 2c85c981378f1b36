"""aiokafka's producer in a thread of its own, with one queue of messages for each partition.

aiokafka carries connections, metadata, retries and transactions. The record batches are ours (`core.kafka.record_batch`):
built from columns, so that no Python call or object is made for a single message.

What aiokafka 0.14 does not do, and is done here, above it:

- A batch that the broker refuses for good leaves a gap in aiokafka's sequence numbers, after which every later batch of that
  partition is refused. So each partition counts its own, and a refused batch does not count.
- After an error that does not show whether the batch is stored, the next batch would have a sequence number that the broker
  may know. It would answer as for a repeated batch, and the new one would be lost. So nothing more is sent with that
  producer id; another producer goes on.
- An idempotent batch is retried for ever. `core.kafka.aiokafka` ends it after the delivery time-out, by a new producer.
- A transaction of a producer that had to be closed can only be aborted by a new one, which would also fence a newer run.
  `abort_as` aborts it with the old producer's id, which the coordinator refuses if there is a newer one.
- While a partition has no leader, metadata is requested without a pause, 450 times a second. Here a batch waits until there
  is one, and `paced` makes pauses for a batch that was on its way.
- A connection that ends while the coordinator is looked up ends the producer. Here it is looked up again.
- Closing waits until everything is sent. `abandon` does not wait.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

import aiokafka.errors as client_errors
import numpy as np
from aiokafka import AIOKafkaProducer
from aiokafka.structs import TopicPartition

from core.kafka.aiokafka_errors import is_surely_not_stored
from core.kafka.aiokafka_workarounds import EventLoop, abort_transaction, forgiving, paced
from core.kafka.partition_messages import Messages, can_share_batch, encoded
from core.kafka.record_batch import BATCH_HEADER_BYTES, RecordBatch

__all__ = ["Answer", "ProducerThread"]

T = TypeVar("T")

SEQUENCES = 2**31
"""Sequence numbers of an idempotent producer begin again at 0 after the largest int32."""
LEADERLESS = -1
END_S = 0.5
"""For each step of closing. A broker that is stuck does not close its side of a TLS connection."""

_numbers = itertools.count(1)
_log = logging.getLogger("aiokafka.pstt")


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
        self.waiting_bytes += messages.size_bytes

    def take(self, limit_bytes: int) -> list[Messages]:
        """Removes and returns what fits into one record batch: at least one message, all with the same headers."""
        taken: list[Messages] = []
        left_bytes = limit_bytes - BATCH_HEADER_BYTES
        while self.waiting:
            messages = self.waiting[0]
            is_whole = messages.are_alone or messages.record_batch is not None
            if taken and (is_whole or not can_share_batch(messages, taken[0])):
                break
            ends = np.cumsum(messages.sizes)
            fitting = 1 if messages.are_alone else int(ends.searchsorted(left_bytes, "right"))
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
            if first is not messages or is_whole:
                break
        return taken

    def take_all(self) -> list[Messages]:
        """Removes and returns everything that waits."""
        taken = list(self.waiting)
        self.waiting.clear()
        self.waiting_bytes = 0
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
        self.attempts = 0

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
        """Called once for each attempt."""
        self.attempts += 1
        if self._bytes is None:
            self._bytes = self._batch.to_bytes(*self._state)
        return self._bytes


class ProducerThread:
    """One producer, from its start to its end. Every method may be called from one other thread.

    Larger than other classes: its steps share the queues and the loop.

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
        self._backoff_s = settings["retry_backoff_ms"] / 1000
        self._compression = compression
        self._transactional_id: str | None = settings.get("transactional_id")
        self._limit_bytes = limit_bytes
        self._on_answer = on_answer
        self._queues: dict[tuple[str, int], _PartitionQueue] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._sending = 0
        """Record batches in flight."""
        self._doubt: Exception | None = None
        """The error of a batch that may be stored: the next one would have its sequence number, so nothing more is sent."""
        self._loop = EventLoop()
        self._producer: AIOKafkaProducer | None = None
        self._can_send = asyncio.Event()
        self._thread = threading.Thread(target=self._work, name=f"kafka-producer-{next(_numbers)}", daemon=True)
        self._thread.start()

    @property
    def name(self) -> str:
        """Name of the thread, in which aiokafka writes its log lines."""
        return self._thread.name

    @property
    def identity(self) -> tuple[int, int]:
        """Producer id and epoch; (-1, -1) without idempotence."""
        producer = self._producer
        manager = producer._txn_manager if producer else None
        return (manager.producer_id, manager.producer_epoch) if manager else (-1, -1)

    @property
    def can_abort(self) -> bool:
        """Whether aiokafka itself can abort the transaction and begin another one.

        After an error of AddPartitionsToTxn it forgets which partitions there are, and would not ask the coordinator.
        """
        producer = self._producer
        manager = producer._txn_manager if producer else None
        return manager is not None and manager.is_in_transaction() and self._doubt is None

    @property
    def _live(self) -> AIOKafkaProducer:
        if self._producer is None:
            raise client_errors.ProducerClosed
        return self._producer

    def start(self, timeout_s: float) -> None:
        """Connects; an idempotent producer gets its id, a transactional one fences earlier holders of its id.

        Raises:
            KafkaError, TimeoutError: aiokafka's own; nothing is open then.
        """
        try:
            self._wait_for(self._start_when_possible(), timeout_s)
        except BaseException:
            self.abandon()
            raise

    def partitions_of(self, topic: str, timeout_s: float) -> tuple[int, list[int]]:
        """Returns the number of partitions, and those that have a leader.

        Raises:
            KafkaError, TimeoutError: aiokafka's own; the topic is missing, or its metadata did not come.
        """
        producer = self._producer
        cluster = producer.client.cluster if producer else None
        found = cluster.partitions_for_topic(topic) if cluster else None
        if cluster is None or found is None:
            cluster, found = self._wait_for(self._found_partitions(topic), timeout_s)
        return len(found), sorted(cluster.available_partitions_for_topic(topic) or ())

    def add(self, topic: str, messages: Sequence[tuple[int, Messages]]) -> None:
        """Adds messages to the queues of their partitions; `on_answer` reports each exactly once, unless abandoned."""
        self._loop.call_soon_threadsafe(self._add, topic, messages)

    def begin(self, timeout_s: float) -> None:
        """Begins a transaction."""
        self._wait_for(self._live.begin_transaction(), timeout_s)

    def commit(self, timeout_s: float) -> None:
        """Commits the transaction."""
        self._wait_for(self._live.commit_transaction(), timeout_s)

    def abort(self, timeout_s: float) -> None:
        """Aborts the transaction."""
        self._wait_for(self._live.abort_transaction(), timeout_s)

    def abort_as(self, identity: tuple[int, int], timeout_s: float) -> None:
        """Aborts the transaction of an earlier producer with our transactional id. Needs no `start`.

        Args:
            identity: Its producer id and epoch.
            timeout_s: For all of it.

        Raises:
            ProducerFenced: A newer producer has the transactional id, and nothing was done.
            KafkaError, TimeoutError: aiokafka's own; the transaction may be open.
        """
        self._wait_for(abort_transaction(self._settings, identity), timeout_s)

    def abandon(self, timeout_s: float = 5.0) -> None:
        """Closes connections at once; what is in flight is not reported any more."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._begin_end)
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
        producer = AIOKafkaProducer(**self._settings)
        client = producer.client
        client._metadata_update = paced(client._metadata_update, self._backoff_s)
        client.coordinator_lookup = forgiving(client.coordinator_lookup)
        try:
            await producer.start()
        except BaseException:
            await producer.stop()
            raise
        self._producer = producer
        self._can_send.set()

    async def _start_when_possible(self) -> None:
        while True:
            try:
                return await self._start()
            except client_errors.KafkaConnectionError as error:
                _log.warning("Cannot start: %s", error)
                await asyncio.sleep(self._backoff_s)

    async def _renew(self, old: AIOKafkaProducer) -> None:
        """Goes on with another producer, whose sequence numbers begin at 0."""
        self._can_send.clear()
        with suppress(Exception):  # it is not used again
            await asyncio.wait_for(old.stop(), END_S)
        while self._producer is None:
            try:
                await self._start()
            except (client_errors.KafkaError, OSError, TimeoutError) as error:
                _log.warning("Cannot get another producer id: %s", error)
                await asyncio.sleep(self._backoff_s)
        self._doubt = None
        for queue_ in self._queues.values():
            self._send_if_due(queue_)

    def _begin_end(self) -> None:
        task = self._loop.create_task(self._end())
        task.add_done_callback(lambda _task: self._loop.stop())

    async def _end(self) -> None:
        await self._cancel_tasks()
        if self._producer is not None:
            with suppress(Exception):  # whatever it is, this producer is not used again
                await asyncio.wait_for(self._producer.stop(), END_S)
            await self._cancel_tasks()
        for connection in list(self._loop.connections):
            connection.abort()  # type: ignore[attr-defined]
        for _ in range(3):  # until the connections know it
            await asyncio.sleep(0)

    async def _cancel_tasks(self) -> None:
        tasks = asyncio.all_tasks(self._loop) - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=END_S)

    async def _found_partitions(self, topic: str) -> tuple[Any, set[int]]:
        await self._can_send.wait()
        producer = self._live
        found = await producer.partitions_for(topic)
        return producer.client.cluster, found

    def _add(self, topic: str, messages: Sequence[tuple[int, Messages]]) -> None:
        for partition, some in messages:
            queue_ = self._queues.get((topic, partition))
            if queue_ is None:
                queue_ = self._queues[topic, partition] = _PartitionQueue(topic, partition)
            queue_.add(some)
            self._send_if_due(queue_)
        if self._doubt is not None:
            self._leave_producer()

    def _send_if_due(self, queue_: _PartitionQueue) -> None:
        """Sends the next record batch of a partition, or waits for more messages."""
        if queue_.is_in_flight or not queue_.waiting or self._doubt:
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
        self._sending += 1
        self._do(self._send(queue_))

    def _do(self, step: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(step)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _linger_is_over(self, queue_: _PartitionQueue) -> None:
        queue_.linger = None
        self._send_if_due(queue_)

    async def _send(self, queue_: _PartitionQueue) -> None:
        await self._wait_for_leader(queue_)
        if queue_.waiting and not self._doubt:
            messages = queue_.take(self._limit_bytes(queue_.topic))
            offset, error = await self._sent(queue_, messages)
            self._answer(queue_, messages, offset, error)
        queue_.is_in_flight = False
        self._sending -= 1
        if self._doubt is not None:
            self._leave_producer()
        else:
            self._send_if_due(queue_)

    async def _sent(self, queue_: _PartitionQueue, messages: Sequence[Messages]) -> tuple[int, Exception | None]:
        """Sends one record batch; returns the offset of its first record, -1 if that is unknown, and the error."""
        builder: _BatchBuilder | None = None
        try:
            batch = messages[0].record_batch or encoded(
                messages, self._compression, is_transactional=self._transactional_id is not None
            )
            builder = _BatchBuilder(batch, queue_)
            response = await self._live.send_batch(builder, queue_.topic, partition=queue_.partition)
            offset = int((await response).offset)
        except Exception as error:  # noqa: BLE001 - each message gets a report, whatever happens
            attempts = builder.attempts if builder else 0
            # An attempt whose answer was lost may be stored, whatever a later one was answered.
            if attempts > 1 or (attempts and not is_surely_not_stored(error)):
                self._doubt = error if self.identity[0] >= 0 else None
            return -1, error
        queue_.sequence = (queue_.sequence + builder.record_count()) % SEQUENCES
        return offset, None

    async def _wait_for_leader(self, queue_: _PartitionQueue) -> None:
        """Waits while the partition is known to have no leader."""
        place = TopicPartition(queue_.topic, queue_.partition)
        while self._producer is not None and not self._doubt:
            if self._producer.client.cluster.leader_for_partition(place) != LEADERLESS:
                return
            self._producer.client.force_metadata_update()
            await asyncio.sleep(self._backoff_s)

    def _leave_producer(self) -> None:
        """Goes on with another producer; within a transaction, where there can be none, ends what waits."""
        if self._transactional_id is None:
            if not self._sending and self._producer is not None:
                self._producer, old = None, self._producer
                self._do(self._renew(old))
            return
        for queue_ in self._queues.values():
            if waiting := queue_.take_all():
                self._answer(queue_, waiting, -1, self._doubt)

    def _answer(
        self, queue_: _PartitionQueue, messages: Sequence[Messages], offset: int, error: Exception | None
    ) -> None:
        size_bytes = sum(some.size_bytes for some in messages)
        self._on_answer(
            Answer(queue_.topic, queue_.partition, messages, offset, error, time.perf_counter(), size_bytes)
        )
