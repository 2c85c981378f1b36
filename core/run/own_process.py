"""Runs the parts of a run in its own process, one after the other: for PSTT_RUN_PROCESSES=1.

A process of its own would import everything once more and has nothing to run beside. The next part connects and lets
the database look for its first rows while the last quarter of the part before is read, and waits with them until that
part has read all of its own: two that read at once would wait for each other. One of a transaction begins while the part
before commits.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from core.errors import RunCancelled
from core.records.opened import OpenWorkspace
from core.run.cancellation import Stop
from core.run.kept_publishers import KeptPublishers
from core.run.part import PartSettings, run_part
from core.run.parts import PartError, PartEvent, PartLost, PartProgress, PartResult, PartTask

__all__ = ["OwnProcess"]

TURN_S = 10.0
"""How long a part waits with its first rows: a database may end a statement whose rows nobody takes, MySQL after 60 s."""
END_S = 5.0
"""How long `close` waits for parts that it has told to end."""


@dataclass(slots=True)
class _Running:
    """A part that has begun."""

    task: PartTask
    stop: Stop
    thread: threading.Thread
    turn: threading.Event
    """Set when it may read on from its first rows."""
    has_read_all: bool = False
    """Whether only its last messages are in flight."""
    has_read_most: bool = False
    """Whether the next part may begin, to be ready when this one ends."""


class OwnProcess:
    """A `core.run.parts.PartExecutor` of threads of this process; one of them reads, near its end a second one.

    Args:
        opened: The workspace; its ledger is not used.
    """

    def __init__(self, opened: OpenWorkspace) -> None:
        self._opened = opened
        self._name = f"process {os.getpid()}"
        self._publishers = KeptPublishers()
        self._waiting: deque[PartTask] = deque()
        self._running: dict[tuple[int, int], _Running] = {}
        self._events: queue.Queue[PartEvent] = queue.Queue()
        self._early: list[PartEvent] = []
        """Ends of parts that never began."""
        self._give_up_at: float | None = None

    def prepare(self, task: PartTask, parts: int) -> None:
        """See `core.run.parts.PartExecutor`: there is nothing to start."""

    def start(self, task: PartTask) -> None:
        """See `core.run.parts.PartExecutor`."""
        self._waiting.append(task)
        self._begin_next()

    def events(self, timeout_s: float) -> list[PartEvent]:
        """See `core.run.parts.PartExecutor`."""
        ready, self._early = self._early, []
        found: list[PartEvent] = []
        with suppress(queue.Empty):
            found.append(self._events.get(timeout=0 if ready else timeout_s))
            while True:
                found.append(self._events.get_nowait())
        return [*ready, *(event for event in found if self._take(event)), *self._given_up()]

    def cancel(self, within_s: float) -> None:
        """See `core.run.parts.PartExecutor`; a part that does not end in time is reported as lost, and ends later."""
        error = PartError.of(RunCancelled("the run was cancelled", why="before this part began"))
        self._early += [PartResult(index=task.index, attempt=task.attempt, error=error) for task in self._waiting]
        self._waiting.clear()
        self._stop_all()
        self._give_up_at = time.monotonic() + within_s

    def close(self) -> None:
        """See `core.run.parts.PartExecutor`; waits up to 5 s for parts that run."""
        self._waiting.clear()
        self._stop_all()
        until = time.monotonic() + END_S
        for running in self._running.values():
            running.thread.join(max(until - time.monotonic(), 0))
        self._running.clear()
        self._publishers.close()

    def _stop_all(self) -> None:
        for running in self._running.values():
            running.stop.set(RunCancelled("the run was cancelled"))

    def _given_up(self) -> list[PartEvent]:
        if self._give_up_at is None or time.monotonic() < self._give_up_at:
            return []
        why = "it did not end in time after it was cancelled"
        lost: list[PartEvent] = [PartLost(index, attempt, why, self._name) for index, attempt in self._running]
        self._running.clear()
        return lost

    def _take(self, event: PartEvent) -> bool:
        """Takes an event of a part into account; returns whether it is for the coordinator."""
        running = self._running.get((event.index, event.attempt))
        if running is None:  # it was given up
            return False
        if isinstance(event, PartProgress):
            # exactly_once reports "sending" when all its rows are on the disk; they are not encoded and sent yet.
            running.has_read_all = event.state == ("committing" if running.task.once else "sending")
            most = running.task.rows_before_next
            running.has_read_most = running.has_read_all or 0 < most <= event.rows_read
        else:
            del self._running[event.index, event.attempt]
        self._give_turn()
        self._begin_next()
        return True

    def _give_turn(self) -> None:
        """Lets the first of the parts that wait with their first rows go on, if no other one reads."""
        reading = [running for running in self._running.values() if not running.has_read_all]
        if reading:
            reading[0].turn.set()

    def _begin_next(self) -> None:
        """Begins a waiting part if none reads, or only one that is near its end."""
        reading = [running for running in self._running.values() if not running.has_read_all]
        if not self._waiting or len(reading) > 1 or not all(running.has_read_most for running in reading):
            return
        task, stop, turn = self._waiting.popleft(), Stop(), threading.Event()
        stop.on_stop(turn.set)
        args = task, stop, turn
        thread = threading.Thread(target=self._run, args=args, name=f"pstt-part-{task.index}", daemon=True)
        self._running[task.index, task.attempt] = _Running(task, stop, thread, turn)
        self._give_turn()
        thread.start()

    def _run(self, task: PartTask, stop: Stop, turn: threading.Event) -> None:
        settings = PartSettings(worker=self._name, before_rows=partial(turn.wait, TURN_S), publishers=self._publishers)
        self._events.put(run_part(task, self._opened, stop=stop, report=self._events.put, settings=settings))
