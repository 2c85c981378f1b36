"""Retries above the client: batches in flight, batches that wait for their next attempt, and finished ones.

A client retries by itself within its delivery time-out. What it has given up is published again here, for every client
in the same way, and only what is not acknowledged.
"""

from __future__ import annotations

import heapq
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count

from core.errors import BatchRefused, BatchTooLarge, DeliveryTimeout, MessageTooLarge, PsttError, RetriesExhausted
from core.model.publisher import Batch, Delivery, Publisher

__all__ = ["Sender"]

TURN_S = 0.1
"""The longest wait for a report before deadlines and due retries are checked again."""


@dataclass(slots=True, eq=False)
class _PendingBatch:
    """A delivery and its number of retries."""

    delivery: Delivery
    retries: int = 0
    times_made_smaller: int = 0
    """How often record batches had been made smaller when it was sent."""


class Sender:
    """Brings every batch to its end: each message is acknowledged or has an error.

    A message with a retriable error is published again up to `max_retries` times, after 100, 200, 400 ms; other batches
    continue meanwhile. An acknowledged message is never published again. Messages that the broker refuses together are sent
    once more, each alone, some 3,000 a second, with nothing else in flight: the faulty one is found and the others arrive. If
    only their common size was too large, record batches are smaller from then on.

    Within a transaction every error of the publisher is final and nothing is retried.

    Args:
        publisher: The client.
        max_retries: Attempts after the first; 0: none.
        backoff_ms: The wait before the second attempt; it doubles each time.
        clock: Monotonic seconds.
        sleep: Waits that many seconds.
    """

    def __init__(
        self,
        publisher: Publisher,
        *,
        max_retries: int,
        backoff_ms: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.publisher = publisher
        self.max_retries = max_retries
        self.backoff_ms = backoff_ms
        self._clock = clock
        self._sleep = sleep
        self._in_flight: deque[_PendingBatch] = deque()
        self._waiting: list[tuple[float, int, _PendingBatch, list[int]]] = []
        """A heap by due time: (due, tie-break, pending batch, indexes)."""
        self._waiting_messages = 0
        self._finished: list[Delivery] = []
        self._numbers = count()
        self._published = 0
        self._reports_seen = 0
        self._times_made_smaller = 0
        self._fatal: PsttError | None = None

    def submit(self, batch: Batch) -> Delivery:
        """Publishes a batch and returns at once, unless the client or the retry queue is full.

        Raises:
            PsttError: The client has failed for good. `give_up` then accounts for every message.
        """
        if self._fatal is not None:
            raise self._fatal
        # A broker that fails at once and at full speed must not fill the memory with waiting batches.
        while self._waiting_messages >= self.publisher.max_in_flight:
            self.serve(TURN_S)
        pending = _PendingBatch(Delivery.of(batch))
        self._in_flight.append(pending)
        self._publish(pending)
        self._resend_due()
        self._collect()
        return pending.delivery

    def finished(self) -> list[Delivery]:
        """Returns the deliveries that ended since the last call."""
        self._collect()
        finished, self._finished = self._finished, []
        return finished

    def acknowledged_unclaimed(self) -> int:
        """Returns how many messages are acknowledged in deliveries that `finished` has not returned; any thread may ask."""
        return sum(delivery.acknowledged for delivery in list(self._finished))

    def serve(self, timeout_s: float) -> None:
        """Publishes due retries and serves reports; waits for one at most this long."""
        self._resend_due()
        if self._waiting:
            timeout_s = min(timeout_s, max(self._waiting[0][0] - self._clock(), 0.0))
        reports = 0
        if self.publisher.in_flight:
            with self._noting_fatal_errors():
                reports = self.publisher.poll(timeout_s)
        elif self._waiting and timeout_s:
            self._sleep(timeout_s)
        self._collect(all_of_them=not reports or not self.publisher.in_flight)

    def drain(self, timeout_s: float | None = None) -> list[Delivery]:
        """Waits until every batch has ended, or this long; returns the deliveries that ended.

        Raises:
            PsttError: As `submit`, and only once: later calls do what `give_up` does.
        """
        if self._fatal is not None:
            return self.give_up()
        deadline = None if timeout_s is None else self._clock() + timeout_s
        while self._in_flight or self._waiting:
            left_s = TURN_S if deadline is None else deadline - self._clock()
            if left_s <= 0:
                break
            self.serve(min(left_s, TURN_S))
        return self.finished()

    def give_up(self, timeout_s: float = 10.0) -> list[Delivery]:
        """Ends everything now: each message gets a report or an error. Returns the deliveries that ended."""
        self.publisher.give_up(timeout_s)
        pending_batches = [*self._in_flight, *(pending for _, _, pending, _ in self._waiting)]
        self._in_flight.clear()
        self._waiting.clear()
        self._waiting_messages = 0
        for pending in pending_batches:
            self._fail_unfinished(pending.delivery)
        return self.finished()

    @property
    def unfinished(self) -> int:
        """Batches that are in flight or wait for their next attempt."""
        return len(self._in_flight) + len(self._waiting)

    @property
    def room(self) -> int:
        """Messages that `submit` takes without waiting for reports or retries; less than 0: retries fill the queue."""
        return self.publisher.max_in_flight - self.publisher.in_flight - self._waiting_messages

    def _publish(self, pending: _PendingBatch, indexes: Sequence[int] | None = None) -> None:
        pending.times_made_smaller = self._times_made_smaller
        self._published += len(pending.delivery.batch) if indexes is None else len(indexes)
        with self._noting_fatal_errors():
            self.publisher.publish(pending.delivery, indexes)

    def _resend_due(self) -> None:
        while self._waiting and self._waiting[0][0] <= self._clock():
            _, _, pending, indexes = heapq.heappop(self._waiting)
            self._waiting_messages -= len(indexes)
            self._in_flight.append(pending)
            self._publish(pending, indexes)

    def _collect(self, *, all_of_them: bool = False) -> None:
        """Finds the batches that are complete.

        Checking costs one step for each batch in flight. So it waits until enough reports came in: with batches of one message
        there are 5,000 in flight.
        """
        reports = self._published - self.publisher.in_flight
        if not all_of_them and (reports - self._reports_seen) * 8 < len(self._in_flight):
            return
        self._reports_seen = reports
        for _ in range(len(self._in_flight)):
            pending = self._in_flight.popleft()
            if pending.delivery.pending:
                self._in_flight.append(pending)
                continue
            try:
                self._finish_or_retry(pending)
            except BaseException:
                self._in_flight.append(pending)
                raise

    def _finish_or_retry(self, pending: _PendingBatch) -> None:
        """Finishes a batch of which every message was reported, or schedules its retry."""
        delivery = pending.delivery
        if delivery.errors:
            self._send_alone(pending)
            again = sorted(index for index, error in delivery.errors.items() if error.is_retriable)
            if again and pending.retries < self.max_retries:
                self._schedule_retry(pending, again)
                return
            _make_final(delivery, again)
        self._finished.append(delivery)

    def _schedule_retry(self, pending: _PendingBatch, indexes: list[int]) -> None:
        due = self._clock() + self.backoff_ms / 1000 * 2**pending.retries
        pending.retries += 1
        heapq.heappush(self._waiting, (due, next(self._numbers), pending, indexes))
        self._waiting_messages += len(indexes)

    def _send_alone(self, pending: _PendingBatch) -> None:
        """Sends messages that were refused together each alone; what is refused then has its final error."""
        delivery = pending.delivery
        refused = [index for index, error in delivery.errors.items() if isinstance(error, BatchRefused)]
        if not refused:
            return
        was_too_large = any(isinstance(delivery.errors[index], BatchTooLarge) for index in refused)
        self._wait_until_idle()
        self._published += len(refused)
        with self._noting_fatal_errors():
            self.publisher.publish_alone(delivery, sorted(refused))
        self._wait_until_idle()
        is_one_too_large = any(isinstance(delivery.errors.get(index), MessageTooLarge) for index in refused)
        if was_too_large and not is_one_too_large and pending.times_made_smaller == self._times_made_smaller:
            self._times_made_smaller += 1
            with self._noting_fatal_errors():
                self.publisher.fit(delivery.batch.topic)

    def _wait_until_idle(self) -> None:
        """Waits until nothing is in flight, so that what follows shares no record batch with anything else."""
        with self._noting_fatal_errors():
            while self.publisher.in_flight:
                self.publisher.poll(TURN_S)

    def _fail_unfinished(self, delivery: Delivery) -> None:
        """Sets an error for each message without error and acknowledgement."""
        topic = delivery.batch.topic
        delivery.fail_unreported(
            lambda: (
                self._fatal
                or DeliveryTimeout(
                    f'a message for topic "{topic}" was given up', why="the run ended before it was sent"
                )
            )
        )
        self._finished.append(delivery)

    @contextmanager
    def _noting_fatal_errors(self) -> Iterator[None]:
        try:
            yield
        except PsttError as error:
            self._fatal = error
            raise


def _make_final(delivery: Delivery, indexes: Sequence[int]) -> None:
    """Replaces the last error of each message with the final one, which says how often it was sent."""
    made: dict[tuple[int, int], RetriesExhausted] = {}
    for index in indexes:
        last, tries = delivery.errors[index], delivery.attempts[index]
        final = made.get((id(last), tries))
        if final is None:
            often = "once" if tries == 1 else f"{tries} times"
            final = RetriesExhausted(last.what, why=f"{last.why or last.what}, handed over {often}", remedy=last.remedy)
            final.__cause__ = last
            made[id(last), tries] = final
        delivery.errors[index] = final
