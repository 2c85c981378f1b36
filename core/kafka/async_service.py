"""AsyncKafkaService: what `KafkaService` does, for programs with an event loop, such as one made with FastAPI.

Messages that are sent in one turn of the loop go to the client together, and their callers wake up together.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Iterable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from itertools import count, islice
from types import TracebackType
from typing import Any, TypeVar

from core.errors import ConfigError, PsttError
from core.kafka import open_publisher
from core.kafka.delivery_queue import JOINED_MESSAGES, DeliveryQueue, WaitingBatch, closed_error
from core.kafka.messages import (
    Headers,
    Key,
    Message,
    header_bytes,
    key_bytes,
    make_batch,
    require_topic_name,
    value_bytes,
)
from core.kafka.service_metrics import ServiceMetrics
from core.kafka.service_results import BatchResult, Health, SendResult
from core.model.connection import Cluster
from core.model.publisher import Delivery, Publisher

__all__ = ["AsyncKafkaService", "SentMessage"]

T = TypeVar("T")

ORPHAN_CLOSE_S = 10.0
"""How long a service that nobody closed waits for what is in flight."""

_HeaderBytes = tuple[tuple[str, bytes], ...]
_Callback = tuple[Callable[[Any], object], Context]


class SentMessage(asyncio.Future[SendResult], Coroutine[Any, Any, SendResult]):
    """The result of one message: awaited, or given to `asyncio.gather`, `create_task` or a task group.

    It is a future, as a task for each message would cost more than sending it; and a coroutine in form, as `create_task`
    takes nothing else. Its first callback, mostly the only one, is called by `wake` without a turn of the loop of its
    own, which would cost more than all else that the loop does for a message.
    """

    _steps: Generator[Any, None, SendResult] | None = None
    _first: _Callback | None = None
    """The first callback and its context; None: there is none, or it was called."""

    def add_done_callback(self, function: Callable[[Any], object], *, context: Context | None = None) -> None:
        """Has a function called with this future once it is done."""
        context = context or copy_context()
        if self._first is None and not self.done():
            self._first = function, context
        else:
            super().add_done_callback(function, context=context)

    def remove_done_callback(self, function: Callable[[Any], object], /) -> int:
        """Removes a callback; returns how many were removed."""
        is_first = self._first is not None and self._first[0] == function
        if is_first:
            self._first = None
        return super().remove_done_callback(function) + is_first

    def cancel(self, msg: Any | None = None) -> bool:
        """Ends the wait; returns whether there was something to wait for. The message is not withdrawn."""
        if self.done():
            return False
        self._schedule_first()
        return super().cancel(msg)

    @staticmethod
    def wake(messages: Iterable[SentMessage], results: Iterable[SendResult | Exception]) -> None:
        """Ends the wait for these messages, but for those that have ended; called in a turn of their loop."""
        woken: list[SentMessage] = []
        for message, result in zip(messages, results, strict=True):
            if message.done():  # its caller was cancelled, or had its result before
                continue
            if isinstance(result, SendResult):
                message.set_result(result)
            else:
                message.set_exception(result)
            woken.append(message)
        # A caller who waits for them one after the other finds all of them done.
        for at, message in enumerate(woken):
            try:
                message._call_first()
            except BaseException:  # the program is told to end: the others wake up in the turns in which it does
                for later in woken[at + 1 :]:
                    later._schedule_first()
                raise

    def _call_first(self) -> None:
        first, self._first = self._first, None
        if first is None:
            return
        try:
            first[1].run(first[0], self)
        except Exception as error:  # noqa: BLE001 - as the loop does
            self.get_loop().call_exception_handler({"message": "a callback failed", "exception": error, "future": self})

    def _schedule_first(self) -> None:
        first, self._first = self._first, None
        if first is not None:
            self.get_loop().call_soon(first[0], self, context=first[1])

    def send(self, value: Any) -> Any:
        """Runs a task that was made of this future: the first step waits for it, the second returns its result."""
        if self._steps is None:
            self._steps = super().__await__()
        return self._steps.send(value)

    def throw(self, *error: Any) -> Any:
        """Raises the error in that task."""
        if self._steps is None:
            self._steps = super().__await__()
        return self._steps.throw(*error)

    def close(self) -> None:
        """Ends that task; the message is not withdrawn."""


@dataclass(slots=True, eq=False)
class _Block:
    """Messages with the same topic and headers that wait together."""

    topic: str
    headers: _HeaderBytes
    loop: asyncio.AbstractEventLoop
    position: int
    """Among the blocks of its topic that are being collected, from 0."""
    keys: list[bytes | None] = field(default_factory=list)
    values: list[bytes] = field(default_factory=list)
    futures: list[SentMessage] = field(default_factory=list)
    waiting: WaitingBatch = field(init=False)

    def to_waiting(self, number: int) -> WaitingBatch:
        batch = make_batch(number, self.topic, self.keys, self.values, self.headers)
        self.waiting = WaitingBatch(batch, self._on_end, self._on_part)
        return self.waiting

    def _on_end(self) -> None:
        """Runs in the thread of the service: makes the results there, and the loop only gives them to the callers."""
        results = self.waiting.results()
        _notify(self.loop, lambda: SentMessage.wake(self.futures, results))

    def _on_part(self) -> None:
        indexes = [index for index in self.waiting.acknowledged() if not self.futures[index].done()]
        if not indexes or self.waiting.delivery is None:
            return
        futures = [self.futures[index] for index in indexes]
        results = [SendResult.of(self.waiting.delivery, self.waiting.first + index) for index in indexes]
        _notify(self.loop, lambda: SentMessage.wake(futures, results))


@dataclass(slots=True)
class _TopicBlocks:
    """The blocks of one topic that are being collected, in the order in which they will be sent."""

    by_headers: dict[_HeaderBytes, _Block] = field(default_factory=dict)
    last_position: dict[bytes, int] = field(default_factory=dict)
    """Key → the last block with it, where that is not the first block."""

    def overtakes(self, block: _Block, key: bytes | None) -> bool:
        """Whether a message with this key in that block would be sent before an earlier one with the same key."""
        return key is not None and self.last_position.get(key, 0) > block.position


class AsyncKafkaService:
    """One cluster, for the tasks of one event loop at a time. It never blocks the loop: one thread serves the client.

    Messages that are sent by `send_message` and awaited together travel as one `send_batch` does; 10,000 of them take 1.6
    times its processor time awaited one after the other, and twice with `asyncio.gather`, half of which is asyncio's own. A message is accepted when `send_message` is called. Cancelling the wait does not
    withdraw it: it is sent, counted and recorded.

    Args:
        cluster: Its addresses and settings.
        recorder: Called with each finished delivery, one at a time, in the thread of the service. Messages sent at the
            same time are in one delivery; what it raises is raised by `send_message` for each of them.
        publisher: Opens the client; the default is the cluster's own.
        now: The clock, aware UTC.
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
        self._queue = DeliveryQueue(cluster, recorder=recorder, publisher=publisher, now=now, joins=True)
        self._thread = _ServiceThread(self._queue)
        self._numbers = count(1)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._topics: dict[str, _TopicBlocks] = {}
        self._is_closed = False
        weakref.finalize(self, self._thread.end, ORPHAN_CLOSE_S)

    async def connect(self, timeout_s: float = 10.0) -> None:
        """Opens the client and requests the cluster's metadata. Sending does it too; this reports early what is wrong.

        Raises:
            BrokerUnavailable, NotAuthorised: The cause: refused, unknown host, certificate, password.
            ConfigError: The settings are incomplete, the client does not support them, or the service is closed.
        """
        self._require_open(asyncio.get_running_loop())
        await self._thread.call(lambda: self._queue.client().publisher.brokers(timeout_s))

    def send_message(self, topic: str, key: Key, value: Message, headers: Headers | None = None) -> SentMessage:
        """Sends one message; awaited, the future returns its `SendResult` when it is acknowledged.

        Messages with the same key are sent in the order of the calls.

        Args:
            topic: The topic.
            key: Text is sent as UTF-8; None: no key, any partition.
            value: bytes unchanged, text as UTF-8, anything else as JSON.
            headers: Text is sent as UTF-8. `message_id` is always added.

        Raises, when awaited:
            BrokerUnavailable, NotAuthorised, TopicMissing, MessageRefused, RetriesExhausted: What failed and why.
            ConfigError: The service is closed, or the value has no JSON form.
        """
        loop = asyncio.get_running_loop()
        message = SentMessage(loop=loop)
        try:
            if loop is not self._loop or self._is_closed:
                self._require_open(loop)
            require_topic_name(topic)
            self._collect(topic, key_bytes(key), value_bytes(value), header_bytes(headers) if headers else (), message)
        except PsttError as error:
            message.set_exception(error)
        return message

    async def send_batch(
        self, topic: str, messages: Iterable[tuple[Key, Message]], batch_size: int = 100, headers: Headers | None = None
    ) -> BatchResult:
        """Sends many messages and waits until each is acknowledged or has failed.

        Args:
            topic: The topic.
            messages: Keys and values, as in `send_message`.
            batch_size: Messages that are turned into bytes before other tasks of the loop run. It does not change what is
                sent: messages go to the client 2,500 at a time.
            headers: The same for each message.

        Raises:
            PsttError: Nothing can be sent at all. Failures of single messages are in the result.
        """
        loop = asyncio.get_running_loop()
        self._require_open(loop)
        require_topic_name(topic)
        if batch_size < 1:
            raise ConfigError("batch_size is too small", why=f"it is {batch_size}", remedy="give 1 or more")
        encoded = header_bytes(headers)
        blocks = await _converted(messages, batch_size)
        self._require_open(loop)
        self._flush()  # what was sent before goes first
        ended = _Countdown(loop, len(blocks))
        waiting = [
            WaitingBatch(make_batch(next(self._numbers), topic, keys, values, encoded), ended.count)
            for keys, values in blocks
        ]
        for block in waiting:
            self._thread.add(block)
        await ended.future
        return _batch_result(waiting)

    async def health_check(self, timeout_s: float = 5.0) -> Health:
        """Requests the cluster's metadata. Raises nothing: a failure is part of the result."""
        try:
            self._require_open(asyncio.get_running_loop())
        except ConfigError as error:
            return Health(connected=False, error=str(error))
        return await self._thread.call(lambda: self._queue.health(timeout_s))

    def get_metrics(self) -> ServiceMetrics:
        """Returns what was sent since this service was created."""
        return self._queue.figures.summary()

    async def close(self, timeout_s: float = 10.0) -> None:
        """Waits at most that long for what was sent, then closes. May be called twice. Cancelling it does not stop it."""
        self._flush()
        self._is_closed = True
        await asyncio.shield(asyncio.wrap_future(self._thread.end(timeout_s)))

    async def __aenter__(self) -> AsyncKafkaService:
        try:
            await self.connect()
        except BaseException:
            await self.close(0.0)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _collect(
        self, topic: str, key: bytes | None, value: bytes, headers: _HeaderBytes, message: SentMessage
    ) -> None:
        """Adds a message to the block of its topic and headers, which is sent at the end of this turn of the loop."""
        blocks = self._topics.get(topic)
        if blocks is None:
            blocks = self._blocks_of(topic)
        block = blocks.by_headers.get(headers)
        is_full = block is not None and len(block.keys) >= JOINED_MESSAGES
        if block is not None and (is_full or (blocks.last_position and blocks.overtakes(block, key))):
            self._flush_topic(topic)
            blocks, block = self._blocks_of(topic), None
        if block is None:
            block = _Block(topic, headers, message.get_loop(), len(blocks.by_headers))
            blocks.by_headers[headers] = block
        if block.position and key is not None:
            blocks.last_position[key] = block.position
        block.keys.append(key)
        block.values.append(value)
        block.futures.append(message)

    def _blocks_of(self, topic: str) -> _TopicBlocks:
        if not self._topics:
            asyncio.get_running_loop().call_soon(self._flush)
        return self._topics.setdefault(topic, _TopicBlocks())

    def _flush(self) -> None:
        """Sends the blocks that were collected."""
        for topic in list(self._topics):
            self._flush_topic(topic)

    def _flush_topic(self, topic: str) -> None:
        for block in self._topics.pop(topic).by_headers.values():
            self._thread.add(block.to_waiting(next(self._numbers)))

    def _adopt(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begins to work for another event loop, after the one before has ended.

        Raises:
            ConfigError: The one before still runs.
        """
        if self._loop is not None and self._loop.is_running():
            raise ConfigError(
                f'the service for cluster "{self.cluster.name}" is used by two event loops',
                why="the other one still runs",
                remedy="make a service for each",
            )
        self._flush()  # what a loop that ended in the middle of its turn has left
        self._loop = loop

    def _require_open(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._is_closed:
            raise closed_error(self.cluster)
        if loop is not self._loop:
            self._adopt(loop)


class _ServiceThread:
    """The thread that serves a queue: it starts with the first work and ends with `end`."""

    def __init__(self, queue: DeliveryQueue) -> None:
        self._queue = queue
        self._calls: deque[Callable[[], None]] = deque()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._ended: Future[None] | None = None
        self._close_s = 0.0

    def add(self, waiting: WaitingBatch) -> None:
        """Queues a batch."""
        self._queue.add(waiting)
        self._start()

    async def call(self, function: Callable[[], T]) -> T:
        """Runs a function in the thread, between two turns of the queue, and returns its result."""
        future: Future[T] = Future()
        self._calls.append(lambda: _run(function, future))
        self._start()
        return await asyncio.wrap_future(future)

    def end(self, timeout_s: float) -> Future[None]:
        """Closes the queue, then ends the thread; returns at once."""
        if self._ended is None:
            self._close_s = timeout_s
            self._ended = Future()
            if self._thread is None:
                self._close()
            self._wake.set()
        return self._ended

    def _start(self) -> None:
        if self._thread is None:
            # A daemon: a program that forgot to close the service can end.
            self._thread = threading.Thread(target=self._work, name="kafka-service", daemon=True)
            self._thread.start()
        self._wake.set()

    def _work(self) -> None:
        while self._ended is None or self._calls:
            if self._queue.is_idle and not self._calls:
                self._wake.wait()
            self._wake.clear()
            while self._calls:
                self._calls.popleft()()
            self._queue.serve()
        self._close()

    def _close(self) -> None:
        if self._ended is not None:
            _run(partial(self._queue.close, self._close_s), self._ended)


class _Countdown:
    """Wakes up the caller of several batches once all of them have ended."""

    def __init__(self, loop: asyncio.AbstractEventLoop, batches: int) -> None:
        self.future: asyncio.Future[None] = loop.create_future()
        self._loop = loop
        self._left = batches
        if not batches:
            self._wake()

    def count(self) -> None:
        """Counts one batch as ended. Only the thread of the service calls it."""
        self._left -= 1
        if not self._left:
            _notify(self._loop, self._wake)

    def _wake(self) -> None:
        if not self.future.done():  # its caller was cancelled
            self.future.set_result(None)


def _notify(loop: asyncio.AbstractEventLoop, function: Callable[[], None]) -> None:
    with suppress(RuntimeError):  # the loop is closed, and nobody waits in it
        loop.call_soon_threadsafe(function)


def _run(function: Callable[[], T], future: Future[T]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = function()
    except BaseException as error:  # noqa: BLE001 - it is raised where the future is awaited
        future.set_exception(error)
    else:
        future.set_result(result)


async def _converted(
    messages: Iterable[tuple[Key, Message]], batch_size: int
) -> list[tuple[list[bytes | None], list[bytes]]]:
    """Returns the keys and values of each block, as bytes."""
    blocks: list[tuple[list[bytes | None], list[bytes]]] = []
    rest = iter(messages)
    while some := list(islice(rest, batch_size)):
        if not blocks or len(blocks[-1][0]) + len(some) > JOINED_MESSAGES:
            blocks.append(([], []))
        keys, values = blocks[-1]
        keys += [key_bytes(key) for key, _ in some]
        values += [value_bytes(value) for _, value in some]
        await asyncio.sleep(0)
    return blocks


def _batch_result(waiting: Sequence[WaitingBatch]) -> BatchResult:
    """Returns the result of several finished batches.

    Raises:
        Exception: What the recorder raised, or why the client failed for good.
    """
    total = 0
    failed: dict[int, str] = {}
    for block in waiting:
        if failure := block.recorder_error or block.error:
            raise failure
        failed |= {total + index: str(error) for index, error in block.errors.items()}
        total += len(block.batch)
    return BatchResult(total, total - len(failed), len(failed), failed)
