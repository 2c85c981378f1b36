"""The outcome of each scheduled time and of each day: the one answer for calendar, overview, daily report, health and alerts.

A time was due if a runner decided about it, or if the version of the job's file in force at that time was enabled and
its calendar contains it. A due time without a run is waiting or missing. A time with runs is complete if one of them
succeeded; otherwise its newest run gives its state.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from zoneinfo import ZoneInfo

from core.calendar.cron import next_scheduled_times, scheduled_times
from core.errors import ConfigError
from core.model.job import Job
from core.workspace.jobs import SUFFIX, parse_job

if TYPE_CHECKING:
    from core.model.run import Run
    from core.records.ledger import Ledger
    from core.records.scheduled_runs import ScheduledRun

__all__ = [
    "GOOD",
    "NEVER_STARTED",
    "DayState",
    "DayTotals",
    "LatestDue",
    "OutcomeState",
    "ScheduledOutcome",
    "day_state",
    "day_totals",
    "is_on_day",
    "latest_due",
    "next_due",
    "outcomes_of_days",
    "scheduled_outcomes",
    "with_deleted_jobs",
]

OutcomeState = Literal["complete", "complete_with_rejects", "partial", "failed", "running", "waiting", "missing"]
DayState = OutcomeState | Literal["nothing_due"]
GOOD: frozenset[OutcomeState] = frozenset({"complete", "complete_with_rejects"})

START_DEADLINE = timedelta(minutes=2)
"""A running runner starts a scheduled run within seconds; a due time that is older and has no run is missing."""
NEVER_STARTED = "it was never started: no runner worked"
"""Reason of a missing time about which no runner decided."""
TICK = timedelta(microseconds=1)
"""Resolution of stored times; turns a closed end of a span into an open one."""
END_OF_TIME = datetime.max.replace(tzinfo=UTC)
WIDEST_ZONE = timedelta(hours=14)
"""Largest offset of a time zone from UTC."""


@dataclass(frozen=True, slots=True)
class ScheduledOutcome:
    """One scheduled time of one job and its outcome."""

    job: str
    job_name: str
    timezone: str
    scheduled_at: datetime
    is_due: bool
    """False: the calendar did not ask for it; a user ran the job for this time."""
    run: Run | None
    """The run that decides the state; None: there was none."""
    state: OutcomeState
    reason: str = ""
    """Why there was no run, if a runner recorded it."""
    attempts: tuple[Run, ...] = ()
    """All runs of this time in the order in which they began, `run` among them."""

    @property
    def day(self) -> date:
        """Its day in the job's time zone."""
        return self.scheduled_at.astimezone(ZoneInfo(self.timezone)).date()

    @property
    def has_succeeded(self) -> bool:
        """Whether one of its runs succeeded, with rejects or without."""
        return self.state in GOOD

    @property
    def rows_read(self) -> int:
        """Rows of this time; of a replay of what was missing, also those that had arrived before it."""
        return self.run.rows_read + self.run.arrived_before if self.run else 0

    @property
    def acknowledged(self) -> int:
        """Those of them that have arrived."""
        return self.run.acknowledged + self.run.arrived_before if self.run else 0

    @property
    def missing_reason(self) -> str:
        """Why a missing time has no run; never empty for one."""
        return self.reason or (NEVER_STARTED if self.state == "missing" else "")


@dataclass(frozen=True, slots=True)
class LatestDue:
    """The newest due time up to some moment, and whether the job has caught up with it since."""

    due: ScheduledOutcome
    succeeded: ScheduledOutcome | None
    """The newest time from `due` on, also one that was not due, whose run succeeded; None: there is none."""
    running: Run | None
    """A run of the job that is still going, for whichever time; None where `succeeded` is set or nothing runs."""


@dataclass(frozen=True, slots=True)
class DayTotals:
    """Counts of scheduled times and rows of one day."""

    day: date
    due: int
    complete: int
    """Times whose run succeeded, with rejects or without."""
    running: int
    waiting: int
    failed: int
    missing: int
    rows_read: int
    acknowledged: int
    rejected: int

    @property
    def is_complete(self) -> bool:
        """Whether every time succeeded and every row was acknowledged."""
        return self.complete == self.due and self.rows_read == self.acknowledged


@dataclass(frozen=True, slots=True)
class _VersionInForce:
    """A version of a job's file while it was in force: after `since`, up to and including `until`."""

    since: datetime
    until: datetime
    job: Job | None
    """None: there was no file, or this program cannot read it."""

    def contains(self, moment: datetime) -> bool:
        return self.since < moment <= self.until


def _job_versions(job: Job, ledger: Ledger) -> list[_VersionInForce]:
    """The versions of a job's file in order of time. Before the first one the job did not exist.

    A job that ran before its file was first recorded (an older workspace, without a runner) existed from its first run
    on, as its first known version, up to the time from which a runner planned it and stored what was due.
    """
    starts: list[tuple[datetime, Job | None]] = []
    for since, document in ledger.job_versions.history(job.slug):
        while starts and starts[-1][0] >= since:  # the clock was set back: the later record counts
            starts.pop()
        starts.append((since, _parsed(job.slug, document) if document else None))
    starts.append((END_OF_TIME, None))
    versions = [_VersionInForce(since, until, version) for (since, version), (until, _) in pairwise(starts)]
    ran = ledger.history.first_started(job.slug) or END_OF_TIME
    until = min(
        versions[0].since if versions else END_OF_TIME,
        ledger.scheduled_runs.first_scheduled_at(job.slug) or END_OF_TIME,
    )
    return [_VersionInForce(ran, until, versions[0].job if versions else job), *versions] if ran < until else versions


@lru_cache(maxsize=2000)
def _parsed(slug: str, document: str) -> Job | None:
    try:
        return parse_job(Path(f"{slug}{SUFFIX}"), document)
    except ConfigError:  # an older version of this program accepted it
        return None


def _calendar_times(versions: Iterable[_VersionInForce], since: datetime, until: datetime) -> Iterator[datetime]:
    """Yields the times with `since` ≤ t < `until` in the calendar of the version then in force, if it was enabled."""
    for version in versions:
        if version.job is not None and version.job.is_scheduled:
            yield from scheduled_times(version.job, max(since - TICK, version.since), min(until - TICK, version.until))


def with_deleted_jobs(jobs: Iterable[Job], ledger: Ledger, timezone: str) -> list[Job]:
    """Adds the jobs whose file is gone or invalid: their last readable version, disabled.

    Args:
        jobs: Jobs with a valid file.
        ledger: The jobs that ran, and those whose files were recorded.
        timezone: Used for a job without a recorded version.

    Returns:
        All of them by slug.
    """
    found = {job.slug: job for job in jobs}
    names = {slug: slug for slug in ledger.job_versions.jobs()} | ledger.history.jobs()
    for slug in names.keys() - found.keys():
        version = ledger.job_versions.get(slug)
        last = (_parsed(slug, version.document) if version else None) or Job(
            slug, names[slug], "", "", timezone=timezone
        )
        found[slug] = replace(last, enabled=False)
    return [found[slug] for slug in sorted(found)]


def scheduled_outcomes(
    job: Job, ledger: Ledger, since: datetime, until: datetime, now: datetime
) -> list[ScheduledOutcome]:
    """Returns the outcome of each scheduled time with `since` ≤ t < `until`, up to `now`, in order of time.

    Args:
        job: The job as it is now; disabled (`with_deleted_jobs`) if its file is gone.
        ledger: Its runs and scheduled runs, and the history of its file.
        since: Aware.
        until: Aware.
        now: The current time, aware.
    """
    until = min(until, now + TICK)
    runs: dict[datetime, list[Run]] = {}
    for run in ledger.history.of_job(job.slug, since, until):
        runs.setdefault(run.scheduled_at, []).append(run)
    planned: dict[datetime, list[ScheduledRun]] = {}
    for scheduled_run in ledger.scheduled_runs.between(since - TICK, until - TICK, job.slug):
        planned.setdefault(scheduled_run.scheduled_at, []).append(scheduled_run)
    versions = _job_versions(job, ledger)
    due = set(_calendar_times(versions, since, until)) | _decided(job, versions, planned, since, until)
    started = {
        moment
        for moment, of_moment in planned.items()
        if any(planned_run.state != "skipped" for planned_run in of_moment)
    }
    return [
        _outcome(_version_at(versions, moment) or job, moment, moment in due, runs.get(moment, ()), planned, now)
        for moment in sorted({*due, *runs, *started})
    ]


def _decided(
    job: Job,
    versions: Sequence[_VersionInForce],
    planned: Mapping[datetime, list[ScheduledRun]],
    since: datetime,
    until: datetime,
) -> set[datetime]:
    """Calendar times that a runner decided about, without those that it skipped because the job was disabled then."""
    of_calendar = [
        planned_run
        for of_moment in planned.values()
        for planned_run in of_moment
        if planned_run.kind in ("calendar", "catch_up")
    ]
    decided = {
        planned_run.scheduled_at
        for planned_run in of_calendar
        if planned_run.state != "skipped" or planned_run.run_id or not _was_off(versions, planned_run.scheduled_at)
    }
    if any(planned_run.skipped_until for planned_run in of_calendar):
        known_from = versions[0].since if versions else until
        decided |= {
            moment
            for moment in scheduled_times(job, since - TICK, min(until - TICK, known_from))
            if _in_skipped_spans(of_calendar, moment)
        }
    return decided


def _version_at(versions: Sequence[_VersionInForce], moment: datetime) -> Job | None:
    return next((version.job for version in versions if version.contains(moment)), None)


def _was_off(versions: Sequence[_VersionInForce], moment: datetime) -> bool:
    """Whether the job is known to have been disabled, without a calendar, or deleted."""
    version = next((version for version in versions if version.contains(moment)), None)
    return version is not None and (version.job is None or not version.job.is_scheduled)


def _outcome(
    job: Job,
    moment: datetime,
    is_due: bool,
    runs: Sequence[Run],
    planned: Mapping[datetime, list[ScheduledRun]],
    now: datetime,
) -> ScheduledOutcome:
    state: OutcomeState
    run = _deciding_run([run for run in runs if not (is_due and run.is_ad_hoc)])
    if run is not None:
        state = _state_of_run(run)
        return ScheduledOutcome(job.slug, run.job_name, run.timezone, moment, is_due, run, state, attempts=tuple(runs))
    decided = planned.get(moment) or _in_skipped_spans(
        (planned_run for of_moment in planned.values() for planned_run in of_moment), moment
    )
    waits = any(planned_run.state != "skipped" for planned_run in decided) or (
        not decided and now - moment < START_DEADLINE
    )
    reason = next((planned_run.reason for planned_run in reversed(decided) if planned_run.reason), "")
    if runs and not reason:
        reason = f"run {runs[-1].run_id} had other parameters than the job's own"
    state = "waiting" if waits else "missing"
    return ScheduledOutcome(job.slug, job.name, job.timezone, moment, is_due, None, state, reason, attempts=tuple(runs))


def _in_skipped_spans(planned: Iterable[ScheduledRun], moment: datetime) -> list[ScheduledRun]:
    """The rows that each record a whole span of skipped times, this one among them."""
    return [
        planned_run
        for planned_run in planned
        if planned_run.skipped_until and planned_run.scheduled_at <= moment <= planned_run.skipped_until
    ]


def _deciding_run(runs: Sequence[Run]) -> Run | None:
    """The newest success, a whole run before a replay of rejects; without a success the newest run."""
    good = [run for run in runs if run.state == "succeeded"]
    whole = [run for run in good if run.kind == "job"]
    return next(reversed(whole or good or list(runs)), None)


def _state_of_run(run: Run) -> OutcomeState:
    verdict = run.verdict
    if verdict == "complete" or verdict == "complete_with_rejects" or verdict == "partial":
        return verdict
    return "running" if verdict in ("running", "planned") else "failed"


def next_due(job: Job, ledger: Ledger, now: datetime) -> datetime | None:
    """Returns the next time after `now` in the calendar of the newest version of a job's file; None: there is none."""
    versions = _job_versions(job, ledger)
    newest = versions[-1].job if versions else None
    if newest is None or not newest.is_scheduled:
        return None
    return next(iter(next_scheduled_times(newest, now, 1)), None)


def is_on_day(moment: datetime, timezone: str, first: date, last: date) -> bool:
    """Whether an aware moment falls on one of these days in that zone."""
    return first <= moment.astimezone(ZoneInfo(timezone)).date() <= last


def outcomes_of_days(job: Job, ledger: Ledger, first: date, last: date, now: datetime) -> list[ScheduledOutcome]:
    """Returns the outcome of each scheduled time of these days, in the job's time zone, up to `now`."""
    since = datetime.combine(first, time(), UTC) - WIDEST_ZONE
    until = datetime.combine(last + timedelta(days=1), time(), UTC) + WIDEST_ZONE
    found = scheduled_outcomes(job, ledger, since, until, now)
    return [outcome for outcome in found if first <= outcome.day <= last]


def latest_due(
    job: Job, ledger: Ledger, at: datetime, now: datetime, *, since: datetime | None = None
) -> LatestDue | None:
    """Returns the newest due time of a job at or before `at`, and whether it or a later one has succeeded.

    Args:
        job: The job as it is now.
        ledger: Its runs and scheduled runs, and the history of its file.
        at: Aware; later times count only as successes.
        now: The current time, aware.
        since: Aware; earlier times do not count. None: every time since the job exists.

    Returns:
        None if the job is not scheduled now (disabled or manual), or had no due time in that span.
    """
    if not job.is_scheduled:
        return None
    due = _newest_due(job, ledger, since, at, now)
    if due is None:
        return None
    later = scheduled_outcomes(job, ledger, due.scheduled_at, now + TICK, now)
    succeeded = next((outcome for outcome in reversed(later) if outcome.has_succeeded), None)
    running = None
    if succeeded is None:
        running = _still_running(job, ledger, due.scheduled_at)
    return LatestDue(due, succeeded, running)


def _still_running(job: Job, ledger: Ledger, due_at: datetime) -> Run | None:
    """Returns the newest run that is still going; a backfill of earlier times says nothing about the due one."""
    of_backfills = ledger.history.running_backfill_times(job.slug)
    running = ledger.history.running(job.slug)
    return next((run for run in running if run.scheduled_at >= due_at or run.scheduled_at not in of_backfills), None)


def _newest_due(
    job: Job, ledger: Ledger, earliest: datetime | None, at: datetime, now: datetime
) -> ScheduledOutcome | None:
    """Searches ever longer spans before `at`, so that a yearly job costs as little as an hourly one."""
    starts = [version.since for version in _job_versions(job, ledger)]
    starts += [first for first in [ledger.scheduled_runs.first_scheduled_at(job.slug)] if first]
    begins = max(min(starts, default=at), earliest or min(starts, default=at))
    span = timedelta(hours=1)
    while True:
        since = max(at - span, begins)
        outcomes = scheduled_outcomes(job, ledger, since, at + TICK, now)
        due = next((outcome for outcome in reversed(outcomes) if outcome.is_due), None)
        if due is not None or since <= begins:
            return due
        span *= 24


def day_state(outcomes: Sequence[ScheduledOutcome]) -> DayState:
    """Returns one state for all outcomes of a day; `partial` if they are mixed."""
    states = {outcome.state for outcome in outcomes}
    if not states:
        return "nothing_due"
    if len(states) == 1:
        return next(iter(states))
    if "running" in states:
        return "running"
    if states <= GOOD:
        return "complete_with_rejects"
    if states <= {*GOOD, "waiting"}:
        return "waiting"
    return "partial"


def day_totals(day: date, outcomes: Iterable[ScheduledOutcome]) -> DayTotals:
    """Counts the outcomes of one day and the rows of their runs."""
    chosen = list(outcomes)
    return DayTotals(
        day=day,
        due=len(chosen),
        complete=sum(outcome.has_succeeded for outcome in chosen),
        running=sum(outcome.state == "running" for outcome in chosen),
        waiting=sum(outcome.state == "waiting" for outcome in chosen),
        failed=sum(outcome.state in ("failed", "partial") for outcome in chosen),
        missing=sum(outcome.state == "missing" for outcome in chosen),
        rows_read=sum(outcome.rows_read for outcome in chosen),
        acknowledged=sum(outcome.acknowledged for outcome in chosen),
        rejected=sum(outcome.run.rejected for outcome in chosen if outcome.run),
    )
