"""Backfills: a range of days of one job is sent, several days at once, and can be paused, resumed, cancelled, repeated.

Page, REST interface and command line call the same functions. Each checks the right of the caller and writes one line
into the audit trail. The runner executes the planned runs: see `core.scheduler.backfill_queue`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

from core.calendar.cron import scheduled_times
from core.errors import ConfigError
from core.formatting import counted
from core.model.job import Job
from core.records.backfills import Backfill, BackfillOrder, BackfillProgress, BackfillState, IncompleteTime
from core.records.ledger import Ledger
from core.records.rights import Caller, require
from core.scheduler.backfill_queue import close_ended

__all__ = [
    "BackfillOptions",
    "BackfillReport",
    "Backfilled",
    "backfill",
    "cancel_backfill",
    "pause_backfill",
    "report",
    "reports",
    "resume_backfill",
    "retry_backfill",
    "wanted_times",
]

MOST_SCHEDULED_RUNS = 10_000
"""A larger backfill is a mistake, or needs a query of its own."""


@dataclass(frozen=True, slots=True)
class BackfillOptions:
    """How a backfill runs."""

    parallel: int = 1
    """Runs at once; 1: one after the other."""
    order: BackfillOrder = "oldest"
    """Which scheduled time is first."""
    again: bool = False
    """Also times that have a succeeded run; readers then see their messages again."""
    most_parallel: int = 4
    """PSTT_BACKFILL_WORKERS."""

    def check(self) -> None:
        """Raises ConfigError if so many runs at once are not possible."""
        if not 1 <= self.parallel <= self.most_parallel:
            raise ConfigError(
                f"{self.parallel:,} runs of a backfill at once are not possible",
                why=f"1 to {self.most_parallel} are (PSTT_BACKFILL_WORKERS)",
                remedy="set PSTT_BACKFILL_WORKERS, 64 at most, and start the runner again"
                if 1 <= self.parallel <= 64
                else f"give a number from 1 to {self.most_parallel}",
            )


@dataclass(frozen=True, slots=True)
class Backfilled:
    """What a backfill planned."""

    request_id: int
    """The number of the backfill."""
    scheduled_run_ids: Sequence[int]
    succeeded_before: int
    """Left out: these have a succeeded run."""
    planned_before: int
    """Left out: these are planned or running already."""

    @property
    def text(self) -> str:
        """In one line."""
        return _in_words(len(self.scheduled_run_ids), self.succeeded_before, self.planned_before)


@dataclass(frozen=True, slots=True)
class BackfillReport:
    """A backfill and its progress."""

    backfill: Backfill
    progress: BackfillProgress
    incomplete: Sequence[IncompleteTime]
    """Times without success, oldest first; empty where they were not asked for."""

    @property
    def left_s(self) -> float | None:
        """Seconds that the rest takes at the speed so far; None: unknown."""
        return self.progress.left_s(self.backfill)


def backfill(
    ledger: Ledger,
    job: Job,
    first: date,
    last: date,
    *,
    caller: Caller,
    now: datetime,
    options: BackfillOptions | None = None,
) -> Backfilled:
    """Plans a run for each scheduled time of a range of days; for a manual job one a day, at midnight.

    Args:
        ledger: Stores the backfill, its runs, the request and the audit line.
        job: The job; a disabled one too.
        first: The first day, in the job's time zone.
        last: The last day, included.
        caller: Who asks for it.
        now: The clock.
        options: How many at once, in which order; None: one after the other, the oldest first.

    Returns:
        The number of the backfill and what was planned.

    Raises:
        AccessRefused: The caller may not send.
        ConfigError: The range is empty, reaches beyond now, or has more than 10,000 scheduled times; or so many runs at
            once are not possible; or the job is incremental.
    """
    require(caller, "backfill")
    if job.incremental is not None:
        value = first.isoformat() if job.incremental.kind == "timestamp" else "VALUE"
        raise ConfigError(
            f'job "{job.name}" is incremental, so that its days cannot be sent one by one',
            remedy=f"python -m core backfill {job.slug} --from-value {value} --why TEXT sends all rows after it again",
        )
    options = options or BackfillOptions()
    options.check()
    with ledger.transaction():  # two that are asked for at once do not plan the same time
        wanted = wanted_times(ledger, job, first, last, now=now, again=options.again)
        return _plan(ledger, job, (first, last), wanted, options, caller, now)


def retry_backfill(
    ledger: Ledger, number: int, job: Job, *, caller: Caller, now: datetime, options: BackfillOptions | None = None
) -> Backfilled:
    """Plans the times of an ended backfill that have no success as a backfill of their own.

    Args:
        ledger: Knows the backfill, and stores the new one.
        number: The number of the ended backfill.
        job: Its job as it is now.
        caller: Who asks for it.
        now: The clock.
        options: How many at once, in which order; None: as before. Whether times are sent again is as before too.

    Returns:
        The number of the new backfill and what was planned.

    Raises:
        AccessRefused: The caller may not send.
        ConfigError: There is no such backfill, it goes on, or each of its times is complete.
    """
    require(caller, "backfill")
    earlier = ledger.backfills.get(number)
    given = options or BackfillOptions(earlier.parallel, earlier.run_order, most_parallel=max(earlier.parallel, 1))
    options = BackfillOptions(given.parallel, given.order, earlier.again, given.most_parallel)
    options.check()
    if earlier.finished_at is None:
        raise ConfigError(f"backfill {number} has not ended", remedy=f"python -m core backfill show {number}")
    with ledger.transaction():
        moments = [one.scheduled_at for one in ledger.backfills.incomplete(number)]
        if not moments:
            raise ConfigError(f"each scheduled time of backfill {number} is complete")
        sent = {moment for moment in moments if _was_sent_since(ledger, earlier, moment)}
        wanted = _left(ledger, job.slug, moments, sent)
        zone = ZoneInfo(job.timezone)
        days = (moments[0].astimezone(zone).date(), moments[-1].astimezone(zone).date())
        return _plan(ledger, job, days, wanted, options, caller, now)


def _was_sent_since(ledger: Ledger, earlier: Backfill, moment: datetime) -> bool:
    sent = ledger.history.sent_before(earlier.job, moment)
    return sent is not None and (not earlier.again or sent.started_at >= earlier.created_at)


def _plan(
    ledger: Ledger,
    job: Job,
    days: tuple[date, date],
    wanted: tuple[list[datetime], int, int],
    options: BackfillOptions,
    caller: Caller,
    now: datetime,
) -> Backfilled:
    moments, succeeded, planned = wanted
    first, last = map(str, days)
    args = {"from": first, "to": last, "again": options.again, "parallel": options.parallel, "order": options.order}
    number = ledger.requests.submit("backfill", job=job.slug, args=args, asked_by=caller.name, now=now)
    ledger.audit.add(caller.name, "backfill", f"job {job.slug}", now, after={"request": number, **args})
    answer = _in_words(len(moments), succeeded, planned)
    ledger.requests.answer(number, "taken" if moments else "done", answer, now)
    ledger.backfills.add(
        number,
        job,
        days=(first, last),
        again=options.again,
        parallel=options.parallel,
        order=options.order,
        asked_by=caller.name,
        now=now,
    )
    made = ledger.scheduled_runs.plan_requested(
        job.slug, moments, kind="backfill", asked_by=caller.name, now=now, request_id=number
    )
    if not made:
        ledger.backfills.close(number, answer, now)
    return Backfilled(number, made, succeeded, planned)


def _in_words(planned: int, succeeded_before: int, planned_before: int) -> str:
    parts = ["1 run planned" if planned == 1 else f"{planned} runs planned"]
    if succeeded_before:
        parts.append(f"{succeeded_before} left out that succeeded before")
    if planned_before:
        parts.append(f"{planned_before} left out that wait or run already")
    return ", ".join(parts)


def wanted_times(
    ledger: Ledger, job: Job, first: date, last: date, *, now: datetime, again: bool
) -> tuple[list[datetime], int, int]:
    """Returns the scheduled times that a backfill would plan, how many have succeeded, and how many are planned already.

    Raises:
        ConfigError: As `backfill`.
    """
    moments = _moments(job, first, last, now)
    if not moments:
        raise ConfigError(f'job "{job.name}" has no scheduled time from {first} to {last}')
    succeeded, _ = ledger.scheduled_runs.settled_times(job.slug, moments[0] - timedelta(seconds=1), moments[-1])
    return _left(ledger, job.slug, moments, set() if again else succeeded & set(moments))


def _left(
    ledger: Ledger, slug: str, moments: Sequence[datetime], left_out: set[datetime]
) -> tuple[list[datetime], int, int]:
    """Returns the times without those left out and those planned already, and how many there are of both."""
    _, planned = ledger.scheduled_runs.settled_times(slug, moments[0] - timedelta(seconds=1), moments[-1])
    planned = planned & set(moments) - left_out
    wanted = [moment for moment in moments if moment not in left_out and moment not in planned]
    return wanted, len(left_out), len(planned)


def _moments(job: Job, first: date, last: date, now: datetime) -> list[datetime]:
    zone = ZoneInfo(job.timezone)
    start = datetime.combine(first, time(), zone).astimezone(UTC)
    end = min(datetime.combine(last + timedelta(days=1), time(), zone).astimezone(UTC), now)
    if last < first or start > now:
        raise ConfigError(
            f"from {first} to {last} is no range of past days", remedy="write --from 2026-01-10 --to 2026-01-16"
        )
    if job.scheduling_mode == "manual":
        days = ((first + timedelta(days=n)) for n in range((last - first).days + 1))
        moments = [datetime.combine(day, time(), zone).astimezone(UTC) for day in days]
        found = [moment for moment in moments if moment <= now]
    else:
        tick = timedelta(microseconds=1)
        found = list(scheduled_times(job, start - tick, end - tick))
    if len(found) > MOST_SCHEDULED_RUNS:
        raise ConfigError(
            f"from {first} to {last} there are {len(found):,} scheduled times", remedy="take a shorter range"
        )
    return found


def pause_backfill(ledger: Ledger, number: int, *, caller: Caller, now: datetime) -> str:
    """Starts no further run of a backfill; those that run go on. Returns what was done, in words.

    Raises:
        AccessRefused: The caller may not send.
        ConfigError: There is no such backfill, or it has ended.
    """
    if unchanged := _switch(ledger, number, "pause", caller, now):
        return unchanged
    progress = ledger.backfills.progress(ledger.backfills.get(number))
    running = f"; {progress.running:,} go on to their end" if progress.running else ""
    if progress.running == 1:
        running = "; 1 goes on to its end"
    return f"backfill {number} is paused with {counted(progress.waiting, 'run')} waiting{running}"


def resume_backfill(ledger: Ledger, number: int, *, caller: Caller, now: datetime) -> str:
    """Lets a paused backfill go on, also one that has paused by itself. Returns what was done, in words.

    Raises:
        AccessRefused: The caller may not send.
        ConfigError: There is no such backfill, or it has ended.
    """
    if unchanged := _switch(ledger, number, "resume", caller, now):
        return unchanged
    progress = ledger.backfills.progress(ledger.backfills.get(number))
    return f"backfill {number} goes on with {counted(progress.waiting, 'run')} waiting"


def _switch(ledger: Ledger, number: int, action: Literal["pause", "resume"], caller: Caller, now: datetime) -> str:
    """Pauses a backfill or lets it go on. Returns that it was in that state before; empty where its state has changed."""
    before, after = _SWITCHES[action]
    require(caller, "pause backfill" if action == "pause" else "resume backfill")
    found = ledger.backfills.get(number)
    with ledger.transaction():
        # A user's pause of one that has paused by itself keeps it paused.
        is_changed = ledger.backfills.set_state(number, before, after, now) or (
            action == "pause" and found.paused_by_itself and ledger.backfills.set_state(number, after, after, now)
        )
        if not is_changed:
            return _unchanged(ledger, number, after)
        ledger.audit.add(caller.name, action, f"backfill {number}", now)
    return ""


_SWITCHES: Mapping[str, tuple[BackfillState, BackfillState]] = {
    "pause": ("running", "paused"),
    "resume": ("paused", "running"),
}


def cancel_backfill(ledger: Ledger, number: int, *, caller: Caller, now: datetime) -> str:
    """Runs nothing more of a backfill, and asks its runs in progress to end. Returns what was done, in words.

    Raises:
        AccessRefused: The caller may not send.
        ConfigError: There is no such backfill, or it has ended.
    """
    require(caller, "cancel backfill")
    ledger.backfills.get(number)
    with ledger.transaction():
        before: tuple[Literal["running", "paused"], ...] = ("running", "paused")
        if not any(ledger.backfills.set_state(number, state, "cancelled", now) for state in before):
            return _unchanged(ledger, number, "cancelled")
        skipped = ledger.backfills.skip_planned(number, f"cancelled by {caller.name}", now)
        asked = [run for run in ledger.backfills.running_run_ids(number) if ledger.ask_to_end(run, caller.name, now)]
        after = {"scheduled_runs": skipped, "runs": asked}
        ledger.audit.add(caller.name, "cancel", f"backfill {number}", now, after=after)
    close_ended(ledger, now)
    ending = f", {counted(len(asked), 'run')} asked to end" if asked else ""
    return f"backfill {number} is cancelled: {counted(skipped, 'run')} left out{ending}"


def _unchanged(ledger: Ledger, number: int, wanted: str) -> str:
    """Returns that a backfill was in that state before; refuses one that has ended."""
    found = ledger.backfills.get(number)
    if found.finished_at is not None:
        raise ConfigError(
            f"backfill {number} has ended: {found.summary or found.state}",
            remedy=f"python -m core backfill show {number}",
        )
    if found.state != wanted:
        raise ConfigError(f"backfill {number} is {found.state}", remedy=f"python -m core backfill show {number}")
    return f"backfill {number} was {wanted} before"


def report(ledger: Ledger, number: int) -> BackfillReport:
    """Returns a backfill, its progress, and its times without success.

    Raises:
        ConfigError: There is none with that number.
    """
    found = ledger.backfills.get(number)
    return BackfillReport(found, ledger.backfills.progress(found), ledger.backfills.incomplete(number))


def reports(ledger: Ledger, limit: int = 20, offset: int = 0) -> list[BackfillReport]:
    """Returns the backfills that have not ended and then the newest, each with its progress."""
    found = ledger.backfills.newest(limit, offset)
    return [BackfillReport(one, ledger.backfills.progress(one), ()) for one in found]
