"""Publishes how far a run is while it runs.

A thread reads the counts of the run once or twice a second, so that the run itself does nothing for it, and a run that waits for a
database or a broker is shown too.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime

from core.errors import PsttError
from core.model.progress import RunProgress
from core.records.ledger import Ledger
from core.records.run_progress import ProgressFiles
from core.run.planning import last_row_count
from core.run.row_reader import RowReader

__all__ = ["ProgressMeter", "published"]

WRITE_EVERY_S = 0.5
MOST_CPU_SHARE = 0.005
SELDOM_S = 1.0
"""Where the writes take more than that share of the run's CPU time, as on a machine that is busy with other programs."""
RATE_OVER_S = 30.0
"""As the bar of the terminal."""


class ProgressMeter:
    """Computes rate and time left of one run.

    Args:
        reader: The run.
        expected_rows: Rows of the last complete run of this job; None: not known.
        now: The clock, aware UTC.
        monotonic: Seconds that only go forward.
    """

    def __init__(
        self,
        reader: RowReader,
        expected_rows: int | None,
        *,
        now: Callable[[], datetime],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._reader = reader
        self._expected_rows = expected_rows
        self._now = now
        self._monotonic = monotonic
        self._points: deque[tuple[float, int]] = deque()
        self._measures_reading = True
        self._acknowledged = 0

    def progress(self) -> RunProgress:
        """Returns how far the run is now; the rate is that since the earliest call within 30 s."""
        reader = self._reader
        step, is_reading = reader.current_step(), not reader.has_read_all()
        rows_read, acknowledged, rejected = reader.counts()
        # Deliveries are between two lists for a moment; a count that falls would confuse.
        self._acknowledged = acknowledged = max(acknowledged, self._acknowledged)
        counted = reader.rows_counted
        expected = (self._expected_rows if counted is None else counted) if is_reading else rows_read
        done = rows_read if is_reading else min(acknowledged + rejected, rows_read)
        rate = self._rate(done, is_reading=is_reading) if step not in ("verifying", "recording") else None
        return RunProgress(
            run_id=reader.run_id,
            step=step,
            at=self._now(),
            rows_read=rows_read,
            acknowledged=acknowledged,
            rejected=rejected,
            rows_expected=expected,
            is_counted=counted is not None or not is_reading,
            rate_per_s=rate,
            remaining_s=(expected - done) / rate if rate and expected is not None and expected >= done else None,
        )

    def _rate(self, done: int, *, is_reading: bool) -> float | None:
        if is_reading != self._measures_reading or not done:  # the time before the first row does not count
            self._points.clear()
            self._measures_reading = is_reading
        at = self._monotonic()
        self._points.append((at, done))
        while at - self._points[0][0] > RATE_OVER_S:
            self._points.popleft()
        since, before = self._points[0]
        return (done - before) / (at - since) if at > since else None


@contextmanager
def published(reader: RowReader, files: ProgressFiles) -> Iterator[None]:
    """Writes the progress of a run once or twice a second until it ends; nothing for one that ends within half a second."""
    done = threading.Event()
    thread = threading.Thread(target=_write, args=(reader, files, done), name="pstt-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        files.remove(reader.run_id)


def _write(reader: RowReader, files: ProgressFiles, done: threading.Event) -> None:
    if done.wait(WRITE_EVERY_S):
        return
    files.clean()
    expected_rows = None
    # An SQLite connection belongs to one thread.
    with suppress(PsttError), Ledger(files.workspace.ledger_file) as ledger:
        expected_rows = last_row_count(ledger, reader.plan.job.slug) if reader.plan.is_whole else None
    meter = ProgressMeter(reader, expected_rows, now=reader.context.now)
    cpu_began_s, began_s = time.process_time(), time.thread_time()
    while True:
        files.write(meter.progress())
        is_cheap = time.thread_time() - began_s < MOST_CPU_SHARE * (time.process_time() - cpu_began_s)
        if done.wait(WRITE_EVERY_S if is_cheap else max(WRITE_EVERY_S, SELDOM_S)):
            return
