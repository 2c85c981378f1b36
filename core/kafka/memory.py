"""A publisher without a broker, for tests of the layers above and for dry runs.

It keeps the contract of `core.model.publisher.Publisher` as strictly as the real ones, and fails on request.
"""

from __future__ import annotations

import time
import zlib
from array import array
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from core.errors import (
    BatchRefused,
    BatchTooLarge,
    ConfigError,
    DeliveryTimeout,
    MessageRefused,
    MessageTooLarge,
    PsttError,
    TopicMissing,
)
from core.model.publisher import Batch, Delivery, LogSpan, TopicInfo, TopicState

__all__ = ["MemoryPublisher", "MemoryRecord", "PendingMessage"]

Fail = Callable[[str, bytes | None, bytes | None, int], PsttError | None]
"""(Topic, key, value, attempt from 1) → the error of this attempt, or None for success."""


@dataclass(frozen=True, slots=True)
class MemoryRecord:
    """A message as stored on a topic."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    """None: a tombstone."""
    headers: tuple[tuple[str, bytes], ...]
    timestamp_ms: int = 0
    """Unix time."""


@dataclass(slots=True)
class PendingMessage:
    """A message that is published and not yet reported."""

    delivery: Delivery
    index: int
    at_s: float
    partition: int
    error: PsttError | None = None


@dataclass(slots=True, eq=False)
class MemoryPublisher:
    """Appends messages to lists.

    Larger than other classes: it implements the 16 methods of the protocol over state that all of them share.

    Args:
        fail: Called for each published message; its result is the broker's response.
        fatal: While set, every call that needs the broker raises it, as after a fatal client error.
        delay_s: Time from publishing to the report.
        partitions: Of every topic.
        max_in_flight: As in the protocol.
        max_request_size_bytes: The client's limit for key and value of one message.
        max_record_batch_bytes: The broker's limit for a record batch; None: none. What is sent together to one
            partition is one batch, up to `batch_size_bytes`. Above the limit all of it fails, as with a real broker.
        refuse: Called for each message; returns the broker's error for a record that it never accepts. The other
            messages of its record batch fail with it.
        batch_size_bytes: The largest record batch; None: everything that is sent together.
        keep: False: only count, for dry runs of any size.
        topics_made: Existing topics; None: every topic is created on first use.
        clock: Monotonic seconds.
        sleep: Waits that many seconds.
        unix_us: Unix time in µs, of each publishing.
    """

    fail: Fail | None = None
    fatal: PsttError | None = None
    delay_s: float = 0.0
    partitions: int = 6
    max_in_flight: int = 5000
    max_request_size_bytes: int = 1_048_576
    max_record_batch_bytes: int | None = None
    refuse: Callable[[bytes | None, bytes | None], MessageRefused | None] | None = None
    batch_size_bytes: int | None = None
    keep: bool = True
    topics_made: Iterable[str] | None = None
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    unix_us: Callable[[], int] = lambda: time.time_ns() // 1000
    records: dict[str, list[MemoryRecord]] = field(default_factory=dict)
    """Topic → the committed records, in the order of acknowledgement."""
    transactions: int = 0
    """Number of committed transactions."""
    _queue: deque[PendingMessage] = field(default_factory=deque)
    _ends: dict[str, array[int]] = field(default_factory=dict)
    _newest: dict[tuple[str, int], int] = field(default_factory=dict)
    """(Topic, partition) → the last acknowledged offset."""
    _makings: dict[str, int] = field(default_factory=dict)
    """Topic → how often it was created."""
    _uncommitted: list[tuple[str, MemoryRecord]] | None = None

    @property
    def in_flight(self) -> int:
        """Messages that are published and not yet reported."""
        return len(self._queue)

    def publish(self, delivery: Delivery, indexes: Sequence[int] | None = None) -> None:
        """Queues the messages; none is reported before the queue is full or `poll` is called."""
        self._require_life()
        todo = range(len(delivery.batch)) if indexes is None else indexes
        refused = self._refused_together(delivery, todo)
        for index in todo:
            self._put(delivery, index, refused.get(index))

    def publish_alone(self, delivery: Delivery, indexes: Sequence[int]) -> None:
        """Queues the messages, each in a record batch of its own."""
        self._require_life()
        for index in indexes:
            self._put(delivery, index, self._refused_alone(delivery.batch, index))

    def fit(self, topic: str) -> None:
        """Keeps record batches within the limit from now on."""
        self.batch_size_bytes = self.max_record_batch_bytes

    def _put(self, delivery: Delivery, index: int, refusal: PsttError | None) -> None:
        batch = delivery.batch
        key, value = batch.keys[index], batch.values[index]
        delivery.errors.pop(index, None)
        delivery.attempts[index] += 1
        delivery.sent_at_us[index] = self.unix_us()
        if _size(key, value) > self.max_request_size_bytes:
            delivery.errors[index] = self._too_large(batch.topic, _size(key, value))
            return
        while len(self._queue) >= self.max_in_flight:
            self.poll(0.1)
        delivery.pending += 1
        item = PendingMessage(delivery, index, self.clock(), self._partition_of(batch, index))
        item.error = self.fail(batch.topic, key, value, delivery.attempts[index]) if self.fail else None
        item.error = refusal or item.error
        self._queue.append(item)

    def poll(self, timeout_s: float) -> int:
        """Reports what is due."""
        self._require_life()
        served = 0
        deadline = self.clock() + timeout_s
        while not served and self._queue:
            while self._queue and self._queue[0].at_s + self.delay_s <= self.clock():
                self._report(self._queue.popleft())
                served += 1
            if served or self.clock() >= deadline:
                break
            self.sleep(min(max(self._queue[0].at_s + self.delay_s - self.clock(), 0.0), timeout_s))
        return served

    def give_up(self, timeout_s: float) -> None:
        """Drops the queue."""
        while self._queue:
            item = self._queue.popleft()
            item.error = DeliveryTimeout("a message was given up", why="no acknowledgement before the run ended")
            self._report(item)

    def prepare_once(self, control_topic: str) -> None:
        """Does nothing: transactions need no preparation here."""
        self._require_life()

    def read_control(self, control_topic: str, keys: Collection[bytes]) -> Mapping[bytes, bytes]:
        """Returns the newest committed values."""
        records = self.records.get(control_topic, [])
        return {r.key: r.value for r in records if r.key is not None and r.key in keys and r.value is not None}

    def begin(self) -> None:
        """Begins a transaction."""
        self._require_life()
        self._uncommitted = []

    def commit(self) -> None:
        """Makes visible what was sent since `begin`."""
        self._require_life()
        if self._queue:
            raise RuntimeError(f"commit with {len(self._queue)} messages under way")
        if self._uncommitted is None:
            raise ConfigError("there is no transaction", why="commit without begin")
        for topic, record in self._uncommitted:
            self.records.setdefault(topic, []).append(record)
        self._uncommitted = None
        self.transactions += 1

    def abort(self) -> None:
        """Drops what was sent since `begin`."""
        self.give_up(0)
        self._uncommitted = None

    def topics(self, timeout_s: float = 10.0) -> list[TopicInfo]:
        """Returns the topics that were created or used."""
        self._require_life()
        return [TopicInfo(name, self.partitions, 1) for name in sorted({*(self.topics_made or ()), *self._ends})]

    def brokers(self, timeout_s: float = 10.0) -> list[str]:
        """Returns one address, which stands for this process."""
        self._require_life()
        return ["memory:0"]

    def require_topic(self, topic: str, timeout_s: float = 10.0) -> None:
        """Raises if `topics_made` is set and lacks the topic."""
        self._require_life()
        if self.topics_made is not None and topic not in self.topics_made:
            raise TopicMissing(
                f'topic "{topic}" does not exist in memory',
                why="the cluster does not make topics on first use",
                remedy="have it created, or correct the topic in the job's kafka_config",
            )

    def describe(self, topic: str, timeout_s: float = 10.0) -> TopicState:
        """Returns a topic that begins at offset 0 and keeps its id until `remake`."""
        self._require_life()
        if self.topics_made is not None and topic not in self.topics_made:
            return TopicState(topic, "memory", "memory:0")
        ends = self._ends.get(topic) or array("q", [0]) * self.partitions
        spans = {number: LogSpan(0, end) for number, end in enumerate(ends)}
        return TopicState(topic, "memory", "memory:0", f"{topic}#{self._makings.get(topic, 1)}", spans)

    def remake(self, topic: str) -> None:
        """Deletes and creates the topic again, as another user could during a run."""
        self.records.pop(topic, None)
        self._ends.pop(topic, None)
        self._makings[topic] = self._makings.get(topic, 1) + 1

    def close(self, timeout_s: float = 10.0) -> None:
        """Reports what is due within that time and drops the rest."""
        deadline = self.clock() + timeout_s
        while self.fatal is None and self._queue and self.clock() < deadline:
            self.poll(deadline - self.clock())
        self.give_up(0)

    def _require_life(self) -> None:
        if self.fatal is not None:
            raise self.fatal

    def _partition_of(self, batch: Batch, index: int) -> int:
        if batch.partitions is not None:
            return batch.partitions[index]
        # A key always goes to the same partition, not to the one that Kafka would choose.
        key = batch.keys[index]
        seed = self._ends.get(batch.topic, [0])[0] if key is None else zlib.crc32(key)
        return seed % self.partitions

    def _refused_together(self, delivery: Delivery, indexes: Sequence[int]) -> dict[int, PsttError]:
        """Returns index → why the broker refuses the record batch of that message."""
        refused: dict[int, PsttError] = {}
        for members in self._record_batches(delivery.batch, indexes):
            alone = [self._refused_alone(delivery.batch, index) for index in members]
            if self._is_too_large(delivery.batch, members):
                error: PsttError = BatchTooLarge(
                    f'a message is too large for topic "{delivery.batch.topic}"', why="max.message.bytes"
                )
            elif any(alone):
                error = BatchRefused("a record batch is refused", why="one of its records is")
            else:
                continue
            refused |= dict.fromkeys(members, error)
        return refused

    def _record_batches(self, batch: Batch, indexes: Sequence[int]) -> Iterator[list[int]]:
        """Yields what goes to one partition together, split at `batch_size_bytes`."""
        if self.max_record_batch_bytes is None and self.refuse is None:
            return
        members: dict[int, list[int]] = {}
        sizes: dict[int, int] = {}
        for index in indexes:
            partition = self._partition_of(batch, index)
            size = _size(batch.keys[index], batch.values[index])
            if self.batch_size_bytes is not None and sizes.get(partition, 0) + size > self.batch_size_bytes:
                yield members.pop(partition, [])
                sizes[partition] = 0
            members.setdefault(partition, []).append(index)
            sizes[partition] = sizes.get(partition, 0) + size
        yield from members.values()

    def _refused_alone(self, batch: Batch, index: int) -> MessageRefused | None:
        if self._is_too_large(batch, [index]):
            return MessageTooLarge(f'a message is too large for topic "{batch.topic}"', why="max.message.bytes")
        return self.refuse(batch.keys[index], batch.values[index]) if self.refuse else None

    def _is_too_large(self, batch: Batch, members: Sequence[int]) -> bool:
        limit = self.max_record_batch_bytes
        return limit is not None and sum(_size(batch.keys[i], batch.values[i]) for i in members) > limit

    def _too_large(self, topic: str, size: int) -> MessageTooLarge:
        return MessageTooLarge(
            f'a message of {size:,} bytes for topic "{topic}" is too large',
            why=f"KAFKA_MAX_REQUEST_SIZE is {self.max_request_size_bytes:,}",
            remedy="shorten the row, or raise KAFKA_MAX_REQUEST_SIZE and max.message.bytes of the topic",
        )

    def _report(self, item: PendingMessage) -> None:
        delivery, index = item.delivery, item.index
        delivery.pending -= 1
        if item.error is not None:
            delivery.errors[index] = item.error
            return
        batch = delivery.batch
        ends = self._ends.setdefault(batch.topic, array("q", [0]) * self.partitions)
        offset = ends[item.partition]
        ends[item.partition] += 1
        newest = self._newest.get((batch.topic, item.partition), -1)
        if offset <= newest:
            delivery.went_back[item.partition] = newest, offset
        self._newest[batch.topic, item.partition] = offset
        delivery.partitions[index] = item.partition
        delivery.offsets[index] = offset
        delivery.latencies_ms[index] = max((self.clock() - item.at_s) * 1000, 1e-6)
        if self.keep:
            own_ms = batch.timestamp_ms(index)
            record = MemoryRecord(
                item.partition,
                offset,
                batch.keys[index],
                batch.values[index],
                tuple(batch.headers_of(index)),
                delivery.sent_at_us[index] // 1000 if own_ms is None else own_ms,
            )
            self._append(batch.topic, record)

    def _append(self, topic: str, record: MemoryRecord) -> None:
        if self._uncommitted is not None:
            self._uncommitted.append((topic, record))
        else:
            self.records.setdefault(topic, []).append(record)


def _size(key: bytes | None, value: bytes | None) -> int:
    return len(key or b"") + len(value or b"")
