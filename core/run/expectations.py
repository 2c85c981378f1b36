"""How many rows a run should read: the range of its job, else one learnt from runs of the same weekday and time.

The learnt range is wide on purpose: it catches the Tuesday without rows, not the Tuesday that is busier than usual. It is
used from four runs in the last eight weeks on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import median
from zoneinfo import ZoneInfo

from core.model.job import Job, RowRange

__all__ = ["EarlierRun", "ExpectedRows", "expected_rows", "learnt_range"]

WEEKS = 8
LEAST_RUNS = 4
SPREADS = 5.0
"""The range extends so many robust standard deviations from the median."""
SPREAD_OF_MAD = 1.4826
"""Median absolute deviation → standard deviation, where values are normal."""
LEAST_BELOW = 0.5
LEAST_ABOVE = 1.0
"""Even if the runs were alike, half of the median and twice the median are still in range."""
LEAST_ROWS = 20
"""So are 20 rows more or less: a job of three rows a day may have none."""


@dataclass(frozen=True, slots=True)
class EarlierRun:
    """An earlier run: its scheduled time, and the rows that it read."""

    scheduled_at: datetime
    rows_read: int


@dataclass(frozen=True, slots=True)
class ExpectedRows:
    """The range, and its origin in words."""

    rows: RowRange
    why: str


def expected_rows(job: Job, scheduled_at: datetime, earlier: Sequence[EarlierRun]) -> ExpectedRows | None:
    """Returns the range for one run; None: any number of rows is accepted, or too little is known.

    Args:
        job: The job.
        scheduled_at: Aware.
        earlier: Complete runs of this job scheduled in the eight weeks before, in any order; the newest one of each
            scheduled time.
    """
    given = job.expect.rows
    if given != RowRange():
        return ExpectedRows(given, f"expect.rows of {job.slug}.job.json")
    # What is new since the run before is no measure of the source, and may be nothing.
    if not job.expect.learn or job.scheduling_mode == "manual" or job.incremental:
        return None
    zone = ZoneInfo(job.timezone)
    wanted = _weekday_and_time(scheduled_at, zone)
    since = scheduled_at - timedelta(weeks=WEEKS, hours=2)  # two hours: a clock change may be between
    counts = [
        run.rows_read
        for run in earlier
        if since <= run.scheduled_at < scheduled_at and _weekday_and_time(run.scheduled_at, zone) == wanted
    ]
    learnt = learnt_range(counts)
    if learnt is None:
        return None
    when = f"{scheduled_at.astimezone(zone):%A %H:%M}"
    return ExpectedRows(learnt, f"the last {len(counts)} runs of {when} brought {min(counts):,} to {max(counts):,}")


def learnt_range(counts: Sequence[int]) -> RowRange | None:
    """Returns the range that robust statistics give for these numbers of rows; None: there are too few.

    Median and median absolute deviation, so that one odd day, or three of eight, do not widen it.

    >>> learnt_range([20_000, 21_000, 19_500, 20_200, 0])
    RowRange(min=10000, max=40000)
    """
    if len(counts) < LEAST_RUNS:
        return None
    middle = median(counts)
    spread = SPREADS * SPREAD_OF_MAD * median(abs(count - middle) for count in counts)
    below = max(spread, LEAST_BELOW * middle, LEAST_ROWS)
    above = max(spread, LEAST_ABOVE * middle, LEAST_ROWS)
    return RowRange(max(0, int(middle - below)), int(middle + above))


def _weekday_and_time(moment: datetime, zone: ZoneInfo) -> tuple[int, int, int]:
    local = moment.astimezone(zone)
    return local.weekday(), local.hour, local.minute
