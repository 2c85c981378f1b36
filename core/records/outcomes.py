"""What became of each scheduled time and of each day: the one answer for calendar, overview, receipt, health and alerts.

A time was due where a runner decided about it, or where the version of the job's file that was in force then was
enabled and its calendar names it. A due time without a run waits or is missing. One with runs counts as complete when
one of them came to a good end; else its newest run says what it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from zoneinfo import ZoneInfo

from core.calendar.cron import scheduled_times
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
    "TICK",
    "DayAnswer",
    "DayState",
    "Slot",
    "SlotState",
    "answer_for",
    "day_state",
    "is_on_day",
    "newest_due",
    "slots_of",
    "slots_of_days",
    "with_gone",
]

SlotState = Literal["complete", "complete_with_rejects", "partial", "failed", "running", "waiting", "missing"]
DayState = SlotState | Literal["nothing_due"]
GOOD: frozenset[SlotState] = frozenset({"complete", "complete_with_rejects"})

TAKES_AT_MOST = timedelta(minutes=2)
"""A runner that works starts a fire within seconds; later than this it is missing."""
NEVER_STARTED = "it was never started: no runner worked"
"""Why a due time is missing about which nobody decided anything."""
TICK = timedelta(microseconds=1)
FOR_EVER = datetime.max.replace(tzinfo=UTC)
WIDEST_ZONE = timedelta(hours=14)
"""No zone is further from UTC."""


@dataclass(frozen=True, slots=True)
class Slot:
    """One scheduled time of one job and what became of it."""

    job: str
    job_name: str
    timezone: str
    scheduled_at: datetime
    is_due: bool
    """False: the calendar did not ask for it; somebody ran the job for this time."""
    run: Run | None
    """The run that counts; None: there was none."""
    state: SlotState
    reason: str = ""
    """Why there was no run, as far as it is known."""

    @property
    def day(self) -> date:
        """Its day in the job's time zone."""
        return self.scheduled_at.astimezone(ZoneInfo(self.timezone)).date()

    @property
    def has_succeeded(self) -> bool:
        """Whether one of its runs came to a good end."""
        return self.run is not None and self.run.state == "succeeded"


@dataclass(frozen=True, slots=True)
class DayAnswer:
    """What arrived of the runs of one day."""

    day: date
    due: int
    complete: int
    """Those that came to a good end, with rejects or without."""
    running: int
    waiting: int
    failed: int
    missing: int
    rows_read: int
    acknowledged: int
    rejected: int

    @property
    def is_complete(self) -> bool:
        """Whether all that was due came to a good end, every row of it acknowledged."""
        return self.complete == self.due and self.rows_read == self.acknowledged


@dataclass(frozen=True, slots=True)
class _Era:
    """A version of a job's file while it was in force: after `since` up to and including `until`."""

    since: datetime
    until: datetime
    job: Job | None
    """None: there was no file, or this program cannot read it."""

    def has(self, moment: datetime) -> bool:
        return self.since < moment <= self.until


def _eras(job: Job, ledger: Ledger) -> list[_Era]:
    """The versions of a job's file one after the other; before the first one nobody knew of the job.

    A job that ran before its file was ever noticed (an older workspace, without a runner) was there from its first run
    on, as its first known version; up to the time from which a runner followed it and wrote down whatever was due.
    """
    starts: list[tuple[datetime, Job | None]] = []
    for since, document in ledger.job_versions.history(job.slug):
        while starts and starts[-1][0] >= since:  # the clock was set back: what was noticed later is true
            starts.pop()
        starts.append((since, _parsed(job.slug, document) if document else None))
    starts.append((FOR_EVER, None))
    eras = [_Era(since, until, version) for (since, version), (until, _) in pairwise(starts)]
    ran = ledger.history.first_started(job.slug) or FOR_EVER
    until = min(eras[0].since if eras else FOR_EVER, ledger.scheduled_runs.first_scheduled_at(job.slug) or FOR_EVER)
    return [_Era(ran, until, eras[0].job if eras else job), *eras] if ran < until else eras


@lru_cache(maxsize=2000)
def _parsed(slug: str, document: str) -> Job | None:
    try:
        return parse_job(Path(f"{slug}{SUFFIX}"), document)
    except ConfigError:  # an older program took it
        return None


def _calendar_times(eras: Iterable[_Era], since: datetime, until: datetime) -> Iterator[datetime]:
    """The times with `since` ≤ t < `until` that the versions in force name, where those were enabled."""
    for era in eras:
        if era.job is not None and era.job.enabled:
            yield from scheduled_times(era.job, max(since - TICK, era.since), min(until - TICK, era.until))


def with_gone(jobs: Iterable[Job], ledger: Ledger, timezone: str) -> list[Job]:
    """These jobs, and what is left of those whose file is gone or wrong: the last version that could be read, disabled.

    Args:
        jobs: Those whose files are right.
        ledger: Knows the jobs that ran, and those whose files were seen.
        timezone: For one of which there is no version.
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


def slots_of(job: Job, ledger: Ledger, since: datetime, until: datetime, now: datetime) -> list[Slot]:
    """What became of each scheduled time with `since` ≤ t < `until`, up to now, in order.

    Args:
        job: The job as it is now, or what is left of it (disabled) where its file is gone.
        ledger: Its runs, its scheduled runs and the history of its file.
        since: Aware.
        until: Aware.
        now: The clock.
    """
    until = min(until, now + TICK)
    runs: dict[datetime, list[Run]] = {}
    for run in ledger.history.of_job(job.slug, since, until):
        runs.setdefault(run.scheduled_at, []).append(run)
    planned: dict[datetime, list[ScheduledRun]] = {}
    for scheduled_run in ledger.scheduled_runs.between(since - TICK, until - TICK, job.slug):
        planned.setdefault(scheduled_run.scheduled_at, []).append(scheduled_run)
    eras = _eras(job, ledger)
    due = set(_calendar_times(eras, since, until)) | _decided(job, eras, planned, since, until)
    open_ = {
        moment for moment, found in planned.items() if any(scheduled_run.state != "skipped" for scheduled_run in found)
    }
    return [
        _slot(_version_at(eras, moment) or job, moment, moment in due, runs.get(moment, ()), planned, now)
        for moment in sorted({*due, *runs, *open_})
    ]


def _decided(
    job: Job, eras: Sequence[_Era], planned: dict[datetime, list[ScheduledRun]], since: datetime, until: datetime
) -> set[datetime]:
    """Times of the calendar that a runner decided about; not those that it skipped although the job was disabled then."""
    of_calendar = [
        scheduled_run
        for found in planned.values()
        for scheduled_run in found
        if scheduled_run.kind in ("calendar", "catch_up")
    ]
    found = {
        scheduled_run.scheduled_at
        for scheduled_run in of_calendar
        if scheduled_run.state != "skipped" or scheduled_run.run_id or not _was_off(eras, scheduled_run.scheduled_at)
    }
    spans = [
        (scheduled_run.scheduled_at, scheduled_run.skipped_until)
        for scheduled_run in of_calendar
        if scheduled_run.skipped_until
    ]
    if spans:
        known_from = eras[0].since if eras else until
        found |= {
            moment
            for moment in scheduled_times(job, since - TICK, min(until - TICK, known_from))
            if any(first <= moment <= last for first, last in spans)
        }
    return found


def _era_at(eras: Sequence[_Era], moment: datetime) -> _Era | None:
    return next((era for era in eras if era.has(moment)), None)


def _version_at(eras: Sequence[_Era], moment: datetime) -> Job | None:
    era = _era_at(eras, moment)
    return era.job if era else None


def _was_off(eras: Sequence[_Era], moment: datetime) -> bool:
    """Whether the job is known to have been disabled, without a calendar, or gone."""
    era = _era_at(eras, moment)
    return era is not None and (era.job is None or not era.job.enabled or era.job.scheduling_mode == "manual")


def _slot(
    job: Job,
    moment: datetime,
    is_due: bool,
    runs: Sequence[Run],
    planned: dict[datetime, list[ScheduledRun]],
    now: datetime,
) -> Slot:
    run = _counting(runs)
    if run is not None:
        return Slot(job.slug, run.job_name, run.timezone, moment, is_due, run, _of_run(run))
    decided = planned.get(moment) or _of_span(planned, moment)
    waits = any(scheduled_run.state != "skipped" for scheduled_run in decided) or (
        not decided and now - moment < TAKES_AT_MOST
    )
    reason = next((scheduled_run.reason for scheduled_run in reversed(decided) if scheduled_run.reason), "")
    return Slot(job.slug, job.name, job.timezone, moment, is_due, None, "waiting" if waits else "missing", reason)


def _of_span(planned: dict[datetime, list[ScheduledRun]], moment: datetime) -> list[ScheduledRun]:
    """The row that stands for many skipped times, this one among them."""
    return [
        scheduled_run
        for found in planned.values()
        for scheduled_run in found
        if scheduled_run.skipped_until and scheduled_run.scheduled_at <= moment <= scheduled_run.skipped_until
    ]


def _counting(runs: Sequence[Run]) -> Run | None:
    good = [run for run in runs if run.state == "succeeded"]
    whole = [run for run in good if run.kind == "job"]
    return next(reversed(whole or good or list(runs)), None)


def _of_run(run: Run) -> SlotState:
    verdict = run.verdict
    if verdict == "complete" or verdict == "complete_with_rejects" or verdict == "partial":
        return verdict
    return "running" if verdict in ("running", "planned") else "failed"


def is_on_day(moment: datetime, timezone: str, first: date, last: date) -> bool:
    """Whether a moment falls on one of these days in that zone."""
    return first <= moment.astimezone(ZoneInfo(timezone)).date() <= last


def slots_of_days(job: Job, ledger: Ledger, first: date, last: date, now: datetime) -> list[Slot]:
    """What became of each scheduled time of these days, which are those of the job's time zone, up to now."""
    since = datetime.combine(first, time(), UTC) - WIDEST_ZONE
    until = datetime.combine(last + timedelta(days=1), time(), UTC) + WIDEST_ZONE
    return [slot for slot in slots_of(job, ledger, since, until, now) if first <= slot.day <= last]


def newest_due(job: Job, ledger: Ledger, at: datetime, now: datetime) -> Slot | None:
    """The newest scheduled time at or before `at` that was due, and what became of it; None: it was never due.

    Looks into ever longer spans before `at`: a yearly job costs as little as an hourly one.
    """
    eras = _eras(job, ledger)
    begins = min(
        [era.since for era in eras]
        + [first for first in [ledger.scheduled_runs.first_scheduled_at(job.slug)] if first],
        default=at,
    )
    span = timedelta(hours=1)
    while True:
        since = max(at - span, begins)
        slots = slots_of(job, ledger, since, at + TICK, now)
        due = next((slot for slot in reversed(slots) if slot.is_due), None)
        if due is not None or since <= begins:
            return due
        span *= 24


def day_state(slots: Sequence[Slot]) -> DayState:
    """One state for all of a day: where it is mixed, `partial`."""
    states = {slot.state for slot in slots}
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


def answer_for(day: date, slots: Iterable[Slot]) -> DayAnswer:
    """What arrived of a day, from the slots that are scheduled on it."""
    chosen = list(slots)
    runs = [slot.run for slot in chosen if slot.run is not None]
    counts = {state: sum(slot.state == state for slot in chosen) for state in ("running", "waiting")}
    return DayAnswer(
        day=day,
        due=len(chosen),
        complete=sum(slot.state in GOOD for slot in chosen),
        **counts,
        failed=sum(slot.state in ("failed", "partial") for slot in chosen),
        missing=sum(slot.state == "missing" for slot in chosen),
        rows_read=sum(run.rows_read for run in runs),
        acknowledged=sum(run.acknowledged for run in runs),
        rejected=sum(run.rejected for run in runs),
    )
