"""How many rows a run should bring: what the job says, else what runs of the same weekday and time have brought.

The learnt range is wide on purpose: it is there for the Tuesday without rows, not for the Tuesday that is busier than
usual. It speaks when at least four runs of the last eight weeks stand behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import median
from zoneinfo import ZoneInfo

from core.model.job import Job, RowRange

__all__ = ["Expected", "RunsOf", "expected_rows", "learnt_range"]

WEEKS = 8
LEAST_RUNS = 4
SPREADS = 5.0
"""A range reaches so many robust standard deviations from the median."""
SPREAD_OF_MAD = 1.4826
"""Median absolute deviation → standard deviation, where values are normal."""
LEAST_BELOW = 0.5
LEAST_ABOVE = 1.0
"""However alike the runs were, half of the median and twice the median are not remarkable yet."""
LEAST_ROWS = 20
"""Nor are 20 rows more or less: a job of three rows a day may well have none."""


@dataclass(frozen=True, slots=True)
class RunsOf:
    """An earlier run: when it was due, and what it brought."""

    scheduled_at: datetime
    rows_read: int


@dataclass(frozen=True, slots=True)
class Expected:
    """The range, and where it comes from."""

    rows: RowRange
    why: str


def expected_rows(job: Job, scheduled_at: datetime, earlier: Sequence[RunsOf]) -> Expected | None:
    """The range for one run; None: any number of rows is right, or too little is known.

    Args:
        job: The job.
        scheduled_at: Aware.
        earlier: Whole runs of this job that were due in the eight weeks before, in any order; the newest one of each
            scheduled time.
    """
    given = job.expect.rows
    if given != RowRange():
        return Expected(given, f"expect.rows of {job.slug}.job.json")
    if not job.expect.learn or job.scheduling_mode == "manual":
        return None
    zone = ZoneInfo(job.timezone)
    wanted = _weekday_and_time(scheduled_at, zone)
    since = scheduled_at - timedelta(weeks=WEEKS, hours=2)  # two hours: a clock change may lie between
    counts = [
        run.rows_read
        for run in earlier
        if since <= run.scheduled_at < scheduled_at and _weekday_and_time(run.scheduled_at, zone) == wanted
    ]
    learnt = learnt_range(counts)
    if learnt is None:
        return None
    when = f"{scheduled_at.astimezone(zone):%A %H:%M}"
    return Expected(learnt, f"the last {len(counts)} runs of {when} brought {min(counts):,} to {max(counts):,}")


def learnt_range(counts: Sequence[int]) -> RowRange | None:
    """The range that robust statistics give for these numbers of rows; None: there are too few.

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
