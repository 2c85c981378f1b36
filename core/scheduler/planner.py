"""Turns calendars into scheduled runs: each time of each enabled job gets one row, even if the clock is changed.

The next time of each job is kept in a heap, so that a second in which nothing is due costs nothing.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count

from core.calendar.cron import SkippedTimes, all_scheduled_times, apply_catch_up
from core.errors import ConfigError
from core.model.job import Job
from core.records.ledger import Ledger
from core.records.scheduled_runs import NewScheduledRuns

__all__ = ["Planner"]

CLOCK_NOISE = timedelta(seconds=2)
"""Time synchronisation corrects clocks by less than this all the time."""


@dataclass(frozen=True, slots=True)
class _Leap:
    """A span for which nothing is caught up, since the clock was wrong."""

    until: datetime
    reason: str


@dataclass(frozen=True, slots=True, order=True)
class _Coming:
    """The next scheduled time of a job, and all that follow it."""

    at: datetime
    number: int
    """Equal times keep the order in which they were added."""
    slug: str = field(compare=False)
    job: Job = field(compare=False)
    following: Iterator[datetime] = field(compare=False)


class Planner:
    """The calendars of all jobs over one ledger.

    Args:
        ledger: Stores scheduled runs and watermarks.
        grace_s: A scheduled time that is at most so old is on time (PSTT_GRACE_S).
        longest_gap: A longer time without a runner is taken for a wrong clock (PSTT_MAX_CATCH_UP_DAYS).
    """

    def __init__(self, ledger: Ledger, *, grace_s: float, longest_gap: timedelta) -> None:
        self.problem: str = ""
        """What the operator should know about the clock; empty: nothing."""
        self._ledger = ledger
        self._grace_s = grace_s
        self._longest_gap = longest_gap
        self._jobs: dict[str, Job] = {}
        self._watermarks: dict[str, datetime] = {}
        self._heap: list[_Coming] = []
        self._numbers = count()
        self._seen_at: datetime | None = None
        self._leap: _Leap | None = None
        self._is_refused = False
        self._must_load = False

    def open(
        self, jobs: Mapping[str, Job], now: datetime, seen_at: datetime | None, *, accept_clock: bool = False
    ) -> None:
        """Continues where the last runner ended; the next `tick` decides about missed times.

        Args:
            jobs: Slug → job, all that there are.
            now: Aware.
            seen_at: When the last runner was alive; None: there was none.
            accept_clock: The operator says that `now` is right, however far it is behind `seen_at`.

        Raises:
            ConfigError: The clock is behind `seen_at` by more than the longest gap.
        """
        now = now.astimezone(UTC)
        # A heartbeat shows the latest time of the clock, a watermark also one from before it was set back.
        marks = [considered_until for considered_until, _ in self._ledger.scheduled_runs.watermarks().values()]
        self._seen_at = max([*marks, seen_at] if seen_at else marks, default=None)
        if self._seen_at and self._seen_at - now > self._longest_gap and not accept_clock:
            raise wrong_clock(now, self._seen_at)
        self._jobs = {slug: job for slug, job in jobs.items() if job.is_scheduled}
        self._load(now)
        self._note_clock(now, accept=accept_clock)

    def change(self, slug: str, job: Job | None, now: datetime) -> None:
        """Takes an edited, enabled, disabled or deleted (None) job. What came due until now belongs to the old calendar."""
        self.tick(now)
        if job is not None and job.is_scheduled:
            self._jobs[slug] = job
            self._watermarks[slug] = now.astimezone(UTC)
            self._ledger.scheduled_runs.set_watermarks({slug: (self._watermarks[slug], _calendar_of(job))})
            self._await_next(slug, job)
        elif slug in self._jobs:
            del self._jobs[slug]
            self._watermarks.pop(slug, None)
            self._ledger.scheduled_runs.set_watermarks({}, [slug])

    def tick(self, now: datetime) -> int:
        """Stores the scheduled runs that have come due. Returns the number of rows.

        Raises:
            ConfigError: The clock was set back so far that which time is right is unknown; nothing is planned.
        """
        now = now.astimezone(UTC)
        self._note_clock(now)
        if self._must_load:  # what came due was not written, so it comes due again
            self._load(now)
        self._must_load = True
        brought = list(self._due(now))
        written = self._ledger.scheduled_runs.plan(brought, now) if brought else 0
        self._must_load = False
        self._seen_at, self._leap = now, None
        return written

    def next_scheduled_at(self) -> datetime | None:
        """Returns the next scheduled time of all jobs; None if there is none."""
        while self._heap and self._is_stale(self._heap[0]):
            heapq.heappop(self._heap)
        return self._heap[0].at if self._heap else None

    def count_until(self, until: datetime) -> int:
        """Returns how many jobs have a scheduled time by then."""
        return sum(1 for coming in self._heap if coming.at <= until and not self._is_stale(coming))

    def _load(self, now: datetime) -> None:
        """Reads the watermarks of the ledger. A new calendar begins now, one that was edited while no runner was running begins then."""
        known = self._ledger.scheduled_runs.watermarks()
        begun: dict[str, tuple[datetime, str]] = {}
        for slug, job in self._jobs.items():
            considered_until, calendar = known.get(slug, (now, ""))
            if calendar != _calendar_of(job):
                edited = max(considered_until, min(self._seen_at or now, now)) if slug in known else now
                begun[slug] = (edited, _calendar_of(job))
            self._watermarks[slug] = begun[slug][0] if slug in begun else considered_until
        ended = known.keys() - self._jobs.keys()
        if begun or ended:
            self._ledger.scheduled_runs.set_watermarks(begun, ended)
        self._heap = []
        for slug, job in self._jobs.items():
            self._await_next(slug, job)

    def _await_next(self, slug: str, job: Job) -> None:
        following = all_scheduled_times(job, self._watermarks[slug])
        for moment in following:
            heapq.heappush(self._heap, _Coming(moment, next(self._numbers), slug, job, following))
            return

    def _is_stale(self, coming: _Coming) -> bool:
        """Returns whether the job has changed since."""
        return self._jobs.get(coming.slug) is not coming.job

    def _due(self, now: datetime) -> Iterator[NewScheduledRuns]:
        while self._heap and self._heap[0].at <= now:
            coming = heapq.heappop(self._heap)
            if self._is_stale(coming):
                continue
            yield self._decide(coming, now)
            self._watermarks[coming.slug] = now

    def _decide(self, coming: _Coming, now: datetime) -> NewScheduledRuns:
        job, skipped, found = coming.job, [], [coming.at]
        following = coming.following
        if self._leap and coming.at <= self._leap.until:
            skipped.append(SkippedTimes(coming.at, self._leap.until, 0, self._leap.reason))
            found, following = [], all_scheduled_times(job, self._leap.until)
        for moment in following:
            if moment > now:
                heapq.heappush(self._heap, _Coming(moment, next(self._numbers), coming.slug, job, following))
                break
            found.append(moment)
        due = apply_catch_up(job, found, now, self._grace_s)
        all_skipped = (*skipped, *due.skipped)
        return NewScheduledRuns(coming.slug, job.overlap, due.on_time, due.missed, all_skipped, now, _calendar_of(job))

    def _note_clock(self, now: datetime, *, accept: bool = False) -> None:
        """Detects whether the clock was set since the last call."""
        if self._seen_at is None:
            return
        moved = now - self._seen_at
        if moved > self._longest_gap:
            self._leap = _Leap(
                now - timedelta(seconds=self._grace_s),
                f"the clock went from {self._seen_at:%Y-%m-%d %H:%M} to {now:%Y-%m-%d %H:%M} UTC: "
                f"more than {self._longest_gap.total_seconds() / 86_400:g} days are not caught up",
            )
            self.problem = (
                f"{self._leap.reason}; check the clock; python -m core backfill runs the days that are wanted"
            )
        elif -moved > self._longest_gap and not accept:
            error = wrong_clock(now, self._seen_at)
            self.problem, self._is_refused = str(error), True
            raise error
        elif moved < -CLOCK_NOISE:
            self._turn_back(now)
        elif self._is_refused:
            self.problem = ""
        self._is_refused = False

    def _turn_back(self, now: datetime) -> None:
        """The clock was set back. What ran stays done, since its row is there; what was only skipped may come again."""
        ahead = [slug for slug, watermark in self._watermarks.items() if watermark > now]
        self._ledger.scheduled_runs.rewind(ahead, now)
        self._ledger.audit.add("runner", "clock set back", "clock", now, str(self._seen_at), str(now))
        self._seen_at, self.problem = now, ""
        self._load(now)


def wrong_clock(now: datetime, seen_at: datetime) -> ConfigError:
    """The clock is far behind its earlier time, and it is not known which of the two was wrong."""
    return ConfigError(
        f"the clock says {now:%Y-%m-%d %H:%M} UTC, and a runner worked here at {seen_at:%Y-%m-%d %H:%M} UTC",
        why="with a wrong clock the jobs would ask for the wrong days",
        remedy="set the clock; if the earlier time was the wrong one: python -m core runner --accept-clock",
    )


def _calendar_of(job: Job) -> str:
    when = job.cron if job.scheduling_mode == "cron" else f"every {job.interval_s} s"
    return f"{when} {job.timezone}"
