"""The retry above the client: batches under way, those that wait for their next try, those that are done.

A client tries again by itself as long as its delivery time-out allows. What it has given up is handed
over again here, for every client alike, and only what is not acknowledged.
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
"""The longest wait for a report before deadlines and due tries are looked at again."""


@dataclass(slots=True, eq=False)
class _PendingBatch:
    """A delivery and how often it was tried again."""

    delivery: Delivery
    retries: int = 0
    fits: int = 0
    """How often the record batches had been made smaller when it was sent."""


class Sender:
    """Brings batches to an end: each message is acknowledged, or has its error.

    A message whose error is retriable is handed over again `max_retries` times, after 100, 200,
    400 ms; other batches keep flowing meanwhile. A message that is acknowledged is never handed over
    again. Messages that the broker refuses together are sent once more, each alone, some 3,000 a
    second, during which nothing else is in flight: so the one at fault is found, and the others arrive.
    Where only their common size was too large, record batches are smaller from then on.

    Within a transaction the publisher gives only final errors, and nothing is tried again.

    Args:
        publisher: The cluster.
        max_retries: Further tries after the first; 0: none.
        backoff_ms: The wait before the second try; it doubles each time.
        clock: Seconds that only go forward.
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
        self._under_way: deque[_PendingBatch] = deque()
        self._waiting: list[tuple[float, int, _PendingBatch, list[int]]] = []
        """A heap by due time: (due, tie-break, parcel, indexes)."""
        self._waiting_messages = 0
        self._finished: list[Delivery] = []
        self._numbers = count()
        self._handed_over = 0
        self._reports_seen = 0
        self._fits = 0
        self._fatal: PsttError | None = None

    def submit(self, batch: Batch) -> Delivery:
        """Hands a batch over and returns at once, unless the client or the waiting line is full.

        Raises:
            PsttError: The client can do nothing more at all. `give_up` then accounts for every message.
        """
        if self._fatal is not None:
            raise self._fatal
        # A broker that fails at once and at full speed must not fill the memory with waiting batches.
        while self._waiting_messages >= self.publisher.max_in_flight:
            self.serve(TURN_S)
        parcel = _PendingBatch(Delivery.of(batch))
        self._under_way.append(parcel)
        self._hand_over(parcel)
        self._resend_due()
        self._collect()
        return parcel.delivery

    def finished(self) -> list[Delivery]:
        """The deliveries that came to an end since the last call, in the order in which that was noticed."""
        self._collect()
        finished, self._finished = self._finished, []
        return finished

    def serve(self, timeout_s: float) -> None:
        """One turn: what is due goes out, reports come in; waits for one at most that long."""
        self._resend_due()
        if self._waiting:
            timeout_s = min(timeout_s, max(self._waiting[0][0] - self._clock(), 0.0))
        reports = 0
        if self.publisher.in_flight:
            with self._noting_the_end():
                reports = self.publisher.poll(timeout_s)
        elif self._waiting and timeout_s:
            self._sleep(timeout_s)
        self._collect(all_of_them=not reports or not self.publisher.in_flight)

    def drain(self, timeout_s: float | None = None) -> list[Delivery]:
        """Waits until every batch is done, or that long; returns those that came to an end.

        Raises:
            PsttError: As `submit`, and only once: after it, this is `give_up`.
        """
        if self._fatal is not None:
            return self.give_up()
        deadline = None if timeout_s is None else self._clock() + timeout_s
        while self._under_way or self._waiting:
            left_s = TURN_S if deadline is None else deadline - self._clock()
            if left_s <= 0:
                break
            self.serve(min(left_s, TURN_S))
        return self.finished()

    def give_up(self, timeout_s: float = 10.0) -> list[Delivery]:
        """Ends everything now; each message has a report or an error. Returns the deliveries that came to an end."""
        self.publisher.give_up(timeout_s)
        parcels = [*self._under_way, *(parcel for _, _, parcel, _ in self._waiting)]
        self._under_way.clear()
        self._waiting.clear()
        self._waiting_messages = 0
        for parcel in parcels:
            self._close(parcel.delivery)
        return self.finished()

    @property
    def unfinished(self) -> int:
        """Batches that are under way or wait for their next try."""
        return len(self._under_way) + len(self._waiting)

    def _hand_over(self, parcel: _PendingBatch, indexes: Sequence[int] | None = None) -> None:
        parcel.fits = self._fits
        self._handed_over += len(parcel.delivery.batch) if indexes is None else len(indexes)
        with self._noting_the_end():
            self.publisher.publish(parcel.delivery, indexes)

    def _resend_due(self) -> None:
        while self._waiting and self._waiting[0][0] <= self._clock():
            _, _, parcel, indexes = heapq.heappop(self._waiting)
            self._waiting_messages -= len(indexes)
            self._under_way.append(parcel)
            self._hand_over(parcel, indexes)

    def _collect(self, *, all_of_them: bool = False) -> None:
        """Looks which batches are complete.

        Looking costs one step for each batch under way. So it waits until enough reports came in to
        pay for that: with batches of one message there are 5,000 under way.
        """
        reports = self._handed_over - self.publisher.in_flight
        if not all_of_them and (reports - self._reports_seen) * 8 < len(self._under_way):
            return
        self._reports_seen = reports
        for _ in range(len(self._under_way)):
            parcel = self._under_way.popleft()
            if parcel.delivery.pending:
                self._under_way.append(parcel)
                continue
            try:
                self._settle(parcel)
            except BaseException:
                self._under_way.append(parcel)
                raise

    def _settle(self, parcel: _PendingBatch) -> None:
        """A batch of which every message was reported: done, or to be tried again."""
        delivery = parcel.delivery
        if delivery.errors:
            self._separate(parcel)
            again = sorted(index for index, error in delivery.errors.items() if error.is_retriable)
            if again and parcel.retries < self.max_retries:
                self._wait(parcel, again)
                return
            _exhaust(delivery, again)
        self._finished.append(delivery)

    def _wait(self, parcel: _PendingBatch, indexes: list[int]) -> None:
        due = self._clock() + self.backoff_ms / 1000 * 2**parcel.retries
        parcel.retries += 1
        heapq.heappush(self._waiting, (due, next(self._numbers), parcel, indexes))
        self._waiting_messages += len(indexes)

    def _separate(self, parcel: _PendingBatch) -> None:
        """Sends messages that were refused together each alone; what is refused then has its final error."""
        delivery = parcel.delivery
        refused = [index for index, error in delivery.errors.items() if isinstance(error, BatchRefused)]
        if not refused:
            return
        was_too_large = any(isinstance(delivery.errors[index], BatchTooLarge) for index in refused)
        self._quiet()
        self._handed_over += len(refused)
        with self._noting_the_end():
            self.publisher.publish_alone(delivery, sorted(refused))
        self._quiet()
        is_one_too_large = any(isinstance(delivery.errors.get(index), MessageTooLarge) for index in refused)
        if was_too_large and not is_one_too_large and parcel.fits == self._fits:
            self._fits += 1
            with self._noting_the_end():
                self.publisher.fit(delivery.batch.topic)

    def _quiet(self) -> None:
        """Waits until nothing is under way, so that what follows shares no record batch with anything else."""
        with self._noting_the_end():
            while self.publisher.in_flight:
                self.publisher.poll(TURN_S)

    def _close(self, delivery: Delivery) -> None:
        """Gives an error to whatever has neither that nor an acknowledgement."""
        delivery.pending = 0
        for index, partition in enumerate(delivery.partitions):
            if partition == -1 and index not in delivery.errors:
                delivery.errors[index] = self._fatal or DeliveryTimeout(
                    f'a message for topic "{delivery.batch.topic}" was given up', why="the run ended before it was sent"
                )
        self._finished.append(delivery)

    @contextmanager
    def _noting_the_end(self) -> Iterator[None]:
        try:
            yield
        except PsttError as error:
            self._fatal = error
            raise


def _exhaust(delivery: Delivery, indexes: Sequence[int]) -> None:
    """Turns the last error of each message into the final one, which says how often it was tried."""
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
