"""KafkaService, the library's interface to Kafka: send one message or many, read health and metrics.

It is the pipeline's own publisher and retry behind a queue, for callers in several threads.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from types import TracebackType
from typing import Any

import msgspec

from core.errors import ConfigError, PsttError, RunCancelled
from core.kafka import open_publisher
from core.kafka.sender import Sender
from core.model.connection import Cluster, Destination
from core.model.percentile import percentile
from core.model.publisher import Batch, Delivery, Publisher

__all__ = [
    "BatchResult",
    "Health",
    "KafkaService",
    "RecentError",
    "SendResult",
    "ServiceMetrics",
    "TopicMetrics",
]

TURN_S = 0.005
"""How long one caller waits for reports before it checks for messages of others."""
KEPT_LATENCIES = 10_000
KEPT_ERRORS = 100

Key = str | bytes | None
Message = str | bytes | bytearray | memoryview | Mapping[str, Any] | Sequence[Any]
Headers = Mapping[str, str | bytes]


@dataclass(frozen=True, slots=True)
class SendResult:
    """Where an acknowledged message is stored."""

    topic: str
    partition: int
    offset: int
    latency_ms: float
    """From publishing to acknowledgement."""
    message_id: str


@dataclass(frozen=True, slots=True)
class BatchResult:
    """The result of sending many messages."""

    total: int
    succeeded: int
    failed: int
    errors: Mapping[int, str]
    """Index in the list of messages, from 0 → what failed and why."""


@dataclass(frozen=True, slots=True)
class Health:
    """Whether the cluster answers."""

    connected: bool
    brokers: tuple[str, ...] = ()
    """`host:port` of each."""
    latency_ms: float | None = None
    """Time for one request and its response."""
    error: str | None = None


@dataclass(frozen=True, slots=True)
class TopicMetrics:
    """What was sent to one topic."""

    messages: int
    bytes: int
    """Of keys and values."""
    last_send: datetime


@dataclass(frozen=True, slots=True)
class RecentError:
    """One failed message."""

    at: datetime
    topic: str
    error: str
    text: str


@dataclass(frozen=True, slots=True)
class ServiceMetrics:
    """What this service has sent since it was created. Latencies are those of the latest 10,000 messages."""

    total_sent: int
    """Acknowledged messages."""
    failed: int
    success_rate: float
    """0 … 1; 1 if nothing was sent."""
    latency_avg_ms: float | None
    latency_p50_ms: float | None
    latency_p90_ms: float | None
    latency_p99_ms: float | None
    topics: Mapping[str, TopicMetrics]
    recent_errors: tuple[RecentError, ...]
    """The latest 100, the newest last."""


class KafkaService:
    """One cluster, for callers in any thread.

    `send_message` waits for the acknowledgement, some 15 ms. Many messages are 300 times faster through `send_batch`, as they
    wait together; so are those of several threads.

    Args:
        cluster: Its addresses and settings.
        recorder: Called with each finished delivery, one at a time; a PsttError that it raises reaches the sender.
        publisher: Opens the client; the default is the cluster's own.
        now: The clock, aware UTC.

    Raises:
        ConfigError: The settings are incomplete, or the client does not support what they ask for.
    """

    def __init__(
        self,
        cluster: Cluster,
        *,
        recorder: Callable[[Delivery], None] | None = None,
        publisher: Callable[[Cluster], Publisher] = open_publisher,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.cluster = cluster
        self._recorder = recorder
        self._open = publisher
        self._now = now
        self._lock = threading.RLock()
        """Held by the one caller that serves the client for all."""
        self._asking = 0
        """Callers that want the client for something else than sending."""
        self._numbers = count(1)
        self._figures = _Counters()
        self._inbox: deque[_WaitingBatch] = deque()
        self._under_way: dict[Delivery, _WaitingBatch] = {}
        self._to_note: deque[Delivery] = deque()
        self._closed = False
        self._sender: Sender | None = self._start()

    def send_message(self, topic: str, key: Key, value: Message, headers: Headers | None = None) -> SendResult:
        """Sends one message and waits until it is acknowledged.

        Args:
            topic: The topic.
            key: Text is sent as UTF-8; None: no key, any partition.
            value: bytes unchanged, text as UTF-8, anything else as JSON.
            headers: Text is sent as UTF-8. `message_id` is always added.

        Raises:
            BrokerUnavailable, NotAuthorised, TopicMissing, MessageRefused, RetriesExhausted: What failed and why.
            ConfigError: The service is closed, or the value has no JSON form.
        """
        batch = self._batch(topic, [(key, value)], headers)
        delivery = self._deliver(batch)
        if delivery.errors:
            raise delivery.errors[0]
        return SendResult(
            topic,
            delivery.partitions[0],
            delivery.offsets[0],
            delivery.latencies_ms[0],
            batch.message_ids[0].decode(),
        )

    def send_batch(
        self, topic: str, messages: Iterable[tuple[Key, Message]], headers: Headers | None = None
    ) -> BatchResult:
        """Sends many messages and waits until each is acknowledged or has failed.

        Args:
            topic: The topic.
            messages: Keys and values, as in `send_message`.
            headers: The same for each message.

        Raises:
            PsttError: Nothing can be sent at all. Failures of single messages are in the result.
        """
        batch = self._batch(topic, list(messages), headers)
        delivery = self._deliver(batch)
        failed = {index: str(error) for index, error in sorted(delivery.errors.items())}
        return BatchResult(len(batch), len(batch) - len(failed), len(failed), failed)

    def health_check(self, timeout_s: float = 5.0) -> Health:
        """Requests the cluster's metadata. Raises nothing: a failure is part of the result."""
        started = time.perf_counter()
        try:
            with self._exclusive():
                brokers = self._live().publisher.brokers(timeout_s)
        except PsttError as error:
            return Health(connected=False, error=str(error))
        return Health(True, tuple(brokers), (time.perf_counter() - started) * 1000)

    def destination(self, topic: str, timeout_s: float = 5.0) -> Destination:
        """Returns the cluster that messages to this topic go to. Raises nothing: the id is empty if the cluster does not answer."""
        try:
            with self._exclusive():
                found = self._live().publisher.describe(topic, timeout_s)
        except PsttError:
            return Destination(self.cluster.name, "", self.cluster.bootstrap_servers)
        return Destination(self.cluster.name, found.cluster_id, found.bootstrap_servers)

    def get_metrics(self) -> ServiceMetrics:
        """Returns what was sent since this service was created."""
        return self._figures.summary()

    def close(self, timeout_s: float = 10.0) -> None:
        """Waits at most that long for what is in flight, then closes. May be called twice."""
        with self._exclusive():
            self._closed = True
            self._drop(timeout_s)

    def __enter__(self) -> KafkaService:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _deliver(self, batch: Batch) -> Delivery:
        """Queues a batch; until it is finished, one of the waiting callers serves the client for all."""
        ticket = _WaitingBatch(batch)
        if not len(batch):
            return ticket.delivery
        self._inbox.append(ticket)
        while not ticket.done.is_set():
            if self._asking or not self._lock.acquire(blocking=False):
                ticket.done.wait(TURN_S)
                continue
            try:
                self._serve_once()
            finally:
                self._lock.release()
        if ticket.error is not None:
            raise ticket.error
        return ticket.delivery

    def _serve_once(self) -> None:
        """Publishes what is in the queue, then waits a moment for reports."""
        while self._inbox:
            self._hand_over(self._inbox.popleft())
        if self._sender is not None:
            try:
                self._sender.serve(TURN_S)
            except PsttError as error:
                self._drop(1.0, error)
            else:
                self._note(self._sender.finished())
        self._note([])

    def _hand_over(self, ticket: _WaitingBatch) -> None:
        try:
            sender = self._live()
        except PsttError as error:
            ticket.fail(error)
            return
        try:
            ticket.delivery = sender.submit(ticket.batch)
        except PsttError as error:
            # The client failed for good: it is closed, and the next message opens a new one.
            self._drop(1.0, error)
            ticket.fail(error)
        except BaseException:
            ticket.fail(RunCancelled("sending was interrupted", why="another caller's thread was told to end"))
            raise
        else:
            self._under_way[ticket.delivery] = ticket

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Gives the client to one caller. Sending callers make room, as a lock that is taken again at once never would."""
        with self._figures.lock:
            self._asking += 1
        try:
            with self._lock:
                yield
        finally:
            with self._figures.lock:
                self._asking -= 1

    def _note(self, deliveries: Iterable[Delivery], end: PsttError | None = None) -> None:
        """Counts and records finished deliveries and notifies the waiting callers; `end`: the client's fatal error."""
        self._to_note.extend(deliveries)
        while self._to_note:
            delivery = self._to_note.popleft()
            ticket = self._under_way.pop(delivery, None)
            if ticket is not None and delivery.errors:
                ticket.error = end
            self._figures.add(delivery, self._now())
            try:
                if self._recorder is not None:
                    self._recorder(delivery)
            except PsttError as error:
                if ticket is not None:
                    ticket.error = error
            finally:
                if ticket is not None:
                    ticket.done.set()

    def _drop(self, timeout_s: float, end: PsttError | None = None) -> None:
        sender, self._sender = self._sender, None
        if sender is None:
            return
        with suppress(PsttError):  # the client's fatal error; what it left is in the deliveries
            self._note(sender.drain(timeout_s), end)
        deliveries = sender.give_up(1.0)
        sender.publisher.close(1.0)
        self._note(deliveries, end)

    def _live(self) -> Sender:
        if self._closed:
            raise ConfigError(f'the service for cluster "{self.cluster.name}" is closed', remedy="make a new one")
        if self._sender is None:
            self._sender = self._start()
        return self._sender

    def _start(self) -> Sender:
        publisher = self._open(self.cluster)
        return Sender(publisher, max_retries=self.cluster.max_retries, backoff_ms=self.cluster.retry_backoff_ms)

    def _batch(self, topic: str, messages: Sequence[tuple[Key, Message]], headers: Headers | None) -> Batch:
        if not topic:
            raise ConfigError("a message needs a topic", why="its name is empty", remedy="name one")
        return Batch(
            next(self._numbers),
            topic,
            [None if key is None else _as_bytes(key, "key") for key, _ in messages],
            [_to_value(value) for _, value in messages],
            [uuid.uuid4().hex.encode() for _ in messages],
            range(1, len(messages) + 1),
            tuple((name, _as_bytes(text, f'header "{name}"')) for name, text in (headers or {}).items()),
        )


@dataclass(slots=True, eq=False)
class _WaitingBatch:
    """A batch that a caller waits for."""

    batch: Batch
    done: threading.Event = field(default_factory=threading.Event)
    delivery: Delivery = field(init=False)
    error: PsttError | None = None

    def __post_init__(self) -> None:
        self.delivery = Delivery.of(self.batch)

    def fail(self, error: PsttError) -> None:
        self.error = error
        self.done.set()


@dataclass(slots=True)
class _Counters:
    """Counts what `get_metrics` returns."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    sent: int = 0
    failed: int = 0
    latencies_ms: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT_LATENCIES))
    topics: dict[str, TopicMetrics] = field(default_factory=dict)
    errors: deque[RecentError] = field(default_factory=lambda: deque(maxlen=KEPT_ERRORS))

    def add(self, delivery: Delivery, now: datetime) -> None:
        with self.lock:
            self._add(delivery, now)

    def _add(self, delivery: Delivery, now: datetime) -> None:
        batch = delivery.batch
        arrived = [index for index, partition in enumerate(delivery.partitions) if partition != -1]
        self.sent += len(arrived)
        self.failed += len(delivery.errors)
        self.latencies_ms.extend(delivery.latencies_ms[index] for index in arrived)
        for error in delivery.errors.values():
            self.errors.append(RecentError(now, batch.topic, type(error).__name__, str(error)))
        if arrived:
            size = sum(len(batch.values[index]) + len(batch.keys[index] or b"") for index in arrived)
            before = self.topics.get(batch.topic, TopicMetrics(0, 0, now))
            self.topics[batch.topic] = TopicMetrics(before.messages + len(arrived), before.bytes + size, now)

    def summary(self) -> ServiceMetrics:
        with self.lock:
            return self._summary()

    def _summary(self) -> ServiceMetrics:
        total = self.sent + self.failed
        counts = Counter(self.latencies_ms)
        return ServiceMetrics(
            total_sent=self.sent,
            failed=self.failed,
            success_rate=self.sent / total if total else 1.0,
            latency_avg_ms=sum(self.latencies_ms) / len(self.latencies_ms) if self.latencies_ms else None,
            latency_p50_ms=percentile(counts, 0.5),
            latency_p90_ms=percentile(counts, 0.9),
            latency_p99_ms=percentile(counts, 0.99),
            topics=dict(self.topics),
            recent_errors=tuple(self.errors),
        )


_encode = msgspec.json.Encoder(decimal_format="number").encode


def _to_value(value: Message) -> bytes:
    if isinstance(value, str | bytes | bytearray | memoryview):
        return _as_bytes(value, "value")
    try:
        return _encode(value)
    except (TypeError, ValueError, msgspec.MsgspecError) as error:
        raise ConfigError("a value has no JSON form", why=str(error), remedy="give bytes, text or plain data") from None


def _as_bytes(text: object, what: str) -> bytes:
    """Returns text as UTF-8, bytes unchanged; the clients themselves fail on anything else in the middle of a batch."""
    if isinstance(text, bytes | bytearray | memoryview):
        return bytes(text)
    if not isinstance(text, str):
        raise ConfigError(
            f"a {what} is neither text nor bytes", why=f"it is of type {type(text).__name__}", remedy="use str"
        )
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise ConfigError(f"a {what} is no UTF-8 text", why=error.reason, remedy="give it as bytes") from None
