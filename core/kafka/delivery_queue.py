"""Batches of several callers through one client, which is opened again after it failed for good.

`KafkaService` and `AsyncKafkaService` are two ways to wait for what is sent here: in the caller's thread, or in an event loop.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime

from core.errors import ConfigError, DeliveryTimeout, PsttError, RunCancelled, RunFailed
from core.kafka.sender import Sender
from core.kafka.service_metrics import Counters
from core.kafka.service_results import Health, SendResult
from core.model.connection import Cluster
from core.model.publisher import Batch, Delivery, Publisher

__all__ = ["JOINED_MESSAGES", "TURN_S", "DeliveryQueue", "WaitingBatch", "closed_error"]

TURN_S = 0.005
"""The longest wait for reports before the queue is checked for new batches."""
SLOW_S = 0.1
"""After this time, callers whose messages are acknowledged no longer wait for the others of their delivery."""
JOINED_MESSAGES = 2500
"""The most messages that wait for each other: half of what the client has in flight, so that the other half can be made meanwhile."""


@dataclass(slots=True, eq=False)
class WaitingBatch:
    """A batch that a caller waits for; a part of a delivery, or all of it."""

    batch: Batch
    on_end: Callable[[], None]
    """Called once, in the thread that serves the queue."""
    on_part: Callable[[], None] | None = None
    """Called in that thread while the delivery waits for retries: some of its messages may be acknowledged."""
    delivery: Delivery | None = None
    """None: it was never published."""
    first: int = 0
    """Index of its first message in the delivery."""
    error: PsttError | None = None
    """The client failed for good, or was never opened: the result of each message that is not acknowledged."""
    recorder_error: Exception | None = None
    """What the recorder raised: the result of every message."""

    @property
    def errors(self) -> dict[int, PsttError]:
        """Index in this batch, from 0 → why that message failed; in this order."""
        if self.delivery is None or not self.delivery.errors:
            return {}
        here = range(self.first, self.first + len(self.batch))
        return {index - self.first: error for index, error in sorted(self.delivery.errors.items()) if index in here}

    def results(self) -> Sequence[SendResult | Exception]:
        """Returns what became of each message, in their order."""
        count = len(self.batch)
        if self.delivery is None or self.recorder_error is not None:
            return [self.recorder_error or self.error or RunFailed("a message was not sent")] * count
        errors = self.errors
        if not errors:
            return SendResult.all_of(self.delivery, self.first, count)
        return [
            self.error or errors[index] if index in errors else SendResult.of(self.delivery, self.first + index)
            for index in range(count)
        ]

    def acknowledged(self) -> list[int]:
        """Returns the indexes of its acknowledged messages, from 0."""
        if self.delivery is None:
            return []
        part = self.delivery.partitions[self.first : self.first + len(self.batch)]
        return [index for index, partition in enumerate(part) if partition != -1]

    def fail(self, error: PsttError) -> None:
        """Ends a batch that was not published."""
        self.error = error
        self.on_end()


def closed_error(cluster: Cluster) -> ConfigError:
    """Returns the error of a message that is sent through a closed service."""
    return ConfigError(f'the service for cluster "{cluster.name}" is closed', remedy="make a new one")


class DeliveryQueue:
    """One client and its retries, counters and recorder.

    Any thread may call `add`; everything else is for one thread at a time.

    Args:
        cluster: Its addresses and settings.
        recorder: Called with each finished delivery; what it raises is the result of that batch.
        publisher: Opens the client.
        now: The clock, aware UTC.
        joins: Whether queued batches with the same topic and headers are published as one delivery: publishing 30 messages
            takes the time of one. Their callers then share what the recorder raises.
    """

    def __init__(
        self,
        cluster: Cluster,
        *,
        recorder: Callable[[Delivery], None] | None,
        publisher: Callable[[Cluster], Publisher],
        now: Callable[[], datetime],
        joins: bool,
    ) -> None:
        self.cluster = cluster
        self.figures = Counters()
        self._recorder = recorder
        self._open = publisher
        self._now = now
        self._joins = joins
        self._inbox: deque[WaitingBatch] = deque()
        self._in_flight: dict[Delivery, list[WaitingBatch]] = {}
        self._slow: set[Delivery] = set()
        """In flight at the last check, at `_checked_s`."""
        self._checked_s = 0.0
        self._to_note: deque[Delivery] = deque()
        self._is_closed = False
        self._sender: Sender | None = None

    @property
    def is_idle(self) -> bool:
        """Whether no batch waits or is in flight."""
        return not self._inbox and not self._in_flight

    def add(self, waiting: WaitingBatch) -> None:
        """Queues a batch; `serve` publishes it and calls its `on_end`."""
        self._inbox.append(waiting)

    def client(self) -> Sender:
        """Returns the client; opens it if there is none.

        Raises:
            ConfigError: The settings are incomplete, the client does not support them, or the queue is closed.
        """
        if self._is_closed:
            raise closed_error(self.cluster)
        if self._sender is None:
            publisher = self._open(self.cluster)
            self._sender = Sender(
                publisher, max_retries=self.cluster.max_retries, backoff_ms=self.cluster.retry_backoff_ms
            )
        return self._sender

    def serve(self, timeout_s: float = TURN_S) -> None:
        """Publishes what is queued, as far as the client takes it and for that long; then waits at most that long for reports.

        It raises nothing: every failure is the result of a batch.
        """
        try:
            # Publishing takes seconds where no broker answers, and others may want the client meanwhile.
            end = time.monotonic() + timeout_s
            while (is_behind := self._has_room_for_next) and time.monotonic() < end:
                self._publish(self._take())
            self._serve_client(0.0 if is_behind else timeout_s)
            self._note([])
            self._report_parts()
        except Exception as fault:  # noqa: BLE001 - callers wait for these batches, whatever it is
            self._abandon(fault)

    def health(self, timeout_s: float) -> Health:
        """Requests the cluster's metadata. Raises nothing: a failure is part of the result."""
        started = time.perf_counter()
        try:
            brokers = self.client().publisher.brokers(timeout_s)
        except PsttError as error:
            return Health(connected=False, error=str(error))
        return Health(True, tuple(brokers), (time.perf_counter() - started) * 1000)

    def close(self, timeout_s: float) -> None:
        """Waits at most that long for what is queued and in flight, gives up the rest, then closes the client."""
        deadline = time.monotonic() + timeout_s
        while self._inbox and time.monotonic() < deadline:
            self.serve()
        self._is_closed = True
        try:
            self._drop(max(deadline - time.monotonic(), 0.0))
        except Exception as fault:  # noqa: BLE001 - as in `serve`
            self._abandon(fault)
        while self._inbox:
            self._give_up(self._inbox.popleft())

    @property
    def _has_room_for_next(self) -> bool:
        """Whether a batch is queued that the client takes without waiting.

        A batch larger than half the client's limit goes in parts, as soon as half is free.
        """
        if not self._inbox or self._sender is None:
            return bool(self._inbox)
        return min(len(self._inbox[0].batch), self._sender.publisher.max_in_flight // 2) <= self._sender.room

    def _serve_client(self, timeout_s: float) -> None:
        if self._sender is None:
            return
        try:
            self._sender.serve(timeout_s)
        except PsttError as error:
            self._drop(1.0, error)
        else:
            self._note(self._sender.finished())

    def _report_parts(self) -> None:
        """Reports what is acknowledged of deliveries that are in flight for long; a recorder has to have them whole before."""
        if self._recorder is not None or time.monotonic() - self._checked_s < SLOW_S:
            return
        for delivery in self._slow & self._in_flight.keys():
            for waiting in self._in_flight[delivery] if delivery.acknowledged else ():
                if waiting.on_part is not None:
                    waiting.on_part()
        self._slow, self._checked_s = set(self._in_flight), time.monotonic()

    def _take(self) -> list[WaitingBatch]:
        """Removes from the queue what is published together."""
        taken = [self._inbox.popleft()]
        first, count = taken[0].batch, len(taken[0].batch)
        most = JOINED_MESSAGES if self._sender is None else min(JOINED_MESSAGES, self._sender.room)
        while self._joins and self._inbox:
            batch = self._inbox[0].batch
            if (batch.topic, batch.headers) != (first.topic, first.headers) or count + len(batch) > most:
                break
            taken.append(self._inbox.popleft())
            count += len(batch)
        return taken

    def _publish(self, group: list[WaitingBatch]) -> None:
        try:
            sender = self.client()
        except PsttError as error:
            _fail(group, error)
            return
        batch = _joined(group)
        try:
            delivery = sender.submit(batch)
        except PsttError as error:
            # The client failed for good: it is closed, and the next message opens a new one.
            self._drop(1.0, error)
            _fail(group, error)
        except Exception:
            self._register(Delivery.of(batch), group)  # `serve` ends it with the others
            raise
        except BaseException:
            _fail(group, RunCancelled("sending was interrupted", why="another caller's thread was told to end"))
            raise
        else:
            self._register(delivery, group)

    def _register(self, delivery: Delivery, group: list[WaitingBatch]) -> None:
        self._in_flight[delivery] = group
        first = 0
        for waiting in group:
            waiting.delivery, waiting.first = delivery, first
            first += len(waiting.batch)

    def _abandon(self, fault: Exception) -> None:
        """Ends everything in flight after a fault of the client that is not one of its errors; the next batch opens another."""
        sender, self._sender = self._sender, None
        error = RunFailed("the Kafka client failed", why=f"{type(fault).__name__}: {fault}")
        error.__cause__ = fault
        with suppress(Exception):  # it is broken already
            if sender is not None:
                sender.publisher.close(0.0)
        for delivery in self._in_flight:
            delivery.fail_unreported(lambda: error)
        self._note(list(self._in_flight), error)

    def _give_up(self, waiting: WaitingBatch) -> None:
        """Ends a batch that was queued and never published; it is counted and recorded as the others."""
        error = DeliveryTimeout(
            f'a message for topic "{waiting.batch.topic}" was given up', why="the service was closed before it was sent"
        )
        delivery = Delivery.of(waiting.batch)
        delivery.fail_unreported(lambda: error)
        self._register(delivery, [waiting])
        self._note([delivery])

    def _note(self, deliveries: Iterable[Delivery], end: PsttError | None = None) -> None:
        """Counts and records finished deliveries and notifies the waiting callers; `end`: the client's fatal error."""
        self._to_note.extend(deliveries)
        while self._to_note:
            delivery = self._to_note.popleft()
            group = self._in_flight.pop(delivery, [])
            for waiting in group if delivery.errors else ():
                waiting.error = end if waiting.errors else None
            try:
                self.figures.add(delivery, self._now())
                if self._recorder is not None:
                    self._recorder(delivery)
            except Exception as error:  # noqa: BLE001 - whatever it is, it reaches the caller who sent these messages
                for waiting in group:
                    waiting.recorder_error = _raisable(error)
            finally:
                for waiting in group:
                    waiting.on_end()

    def _drop(self, timeout_s: float, end: PsttError | None = None) -> None:
        sender, self._sender = self._sender, None
        if sender is None:
            return
        with suppress(PsttError):  # the client's fatal error; what it left is in the deliveries
            self._note(sender.drain(timeout_s), end)
        deliveries = sender.give_up(1.0)
        sender.publisher.close(1.0)
        self._note(deliveries, end)


def _fail(group: Iterable[WaitingBatch], error: PsttError) -> None:
    for waiting in group:
        waiting.fail(error)


def _joined(group: Sequence[WaitingBatch]) -> Batch:
    """Returns one batch of the messages of all."""
    first = group[0].batch
    if len(group) == 1:
        return first
    batches = [waiting.batch for waiting in group]
    keys = [key for batch in batches for key in batch.keys]
    values = [value for batch in batches for value in batch.values]
    message_ids = [message_id for batch in batches for message_id in batch.message_ids]
    return replace(first, keys=keys, values=values, message_ids=message_ids, row_numbers=range(1, len(values) + 1))


def _raisable(error: Exception) -> Exception:
    """Returns an error that a future can have as its result, which StopIteration cannot."""
    if not isinstance(error, StopIteration):
        return error
    raised = RuntimeError("the recorder raised StopIteration")
    raised.__cause__ = error
    return raised
