"""What became of each scheduled time and of each day: cells of a calendar, and whether yesterday's rows all arrived.

A scheduled time counts as complete when one of its runs came to a good end; else its newest run says what it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Literal
from zoneinfo import ZoneInfo

from core.calendar import fires

if TYPE_CHECKING:
    from core.agenda import Agenda, Fire
    from core.ledger import Ledger
    from core.model import Job, Run

__all__ = ["GOOD", "DayAnswer", "DayState", "Slot", "SlotState", "answer_for", "day_state", "rows_day", "slots_of"]

SlotState = Literal["complete", "complete_with_rejects", "partial", "failed", "running", "waiting", "missing"]
DayState = SlotState | Literal["nothing_due"]
GOOD: frozenset[SlotState] = frozenset({"complete", "complete_with_rejects"})

TAKES_AT_MOST = timedelta(minutes=2)
"""A runner that works starts a fire within seconds; later than this it is missing."""


@dataclass(frozen=True, slots=True)
class Slot:
    """One scheduled time of one job and what became of it."""

    job: str
    job_name: str
    timezone: str
    scheduled_at: datetime
    run: Run | None
    """The run that counts; None: there was none."""
    state: SlotState
    reason: str = ""
    """Why there was no run, as far as it is known."""


@dataclass(frozen=True, slots=True)
class DayAnswer:
    """What arrived of the rows of one day."""

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


def slots_of(job: Job, ledger: Ledger, agenda: Agenda, since: datetime, until: datetime, now: datetime) -> list[Slot]:
    """What became of each scheduled time with `since` ≤ t < `until`, up to now, in order.

    A time of the calendar without a run and without a row of the agenda counts as missing, from the job's first
    scheduled time on. Not so while a runner followed the job: it writes a row for whatever is due, so nothing was, as
    the job was disabled or had another calendar.

    Args:
        job: The job as it is now.
        ledger: Its runs.
        agenda: Its fires.
        since: Aware.
        until: Aware.
        now: The clock.
    """
    until = min(until, now + timedelta(microseconds=1))
    runs: dict[datetime, list[Run]] = {}
    for run in ledger.runs_of_job(job.slug, since, until):
        runs.setdefault(run.scheduled_at, []).append(run)
    tick = timedelta(microseconds=1)
    planned = agenda.fires(since - tick, until - tick, job.slug)
    by_time = {fire.scheduled_at: fire for fire in planned}
    due = set(_due(job, ledger, agenda, since, until, planned))
    moments = sorted({*runs, *by_time, *due})
    return [_slot(job, moment, runs.get(moment, ()), by_time.get(moment), now) for moment in moments]


def _due(
    job: Job, ledger: Ledger, agenda: Agenda, since: datetime, until: datetime, planned: Sequence[Fire]
) -> Iterable[datetime]:
    """Times of the calendar that nobody has decided about, and those within a span of skipped fires."""
    spans = [(fire.scheduled_at, fire.skipped_until) for fire in planned if fire.skipped_until]
    begun = ledger.first_scheduled(job.slug) or until
    watermark = agenda.watermarks().get(job.slug)
    followed_from = agenda.first_fire(job.slug) or until
    followed_to = watermark[0] if watermark else begun
    tick = timedelta(microseconds=1)
    for moment in fires(job, since - tick, until - tick):
        was_followed = followed_from <= moment <= followed_to
        is_due = job.enabled and moment >= begun and not was_followed
        if is_due or any(first <= moment <= last for first, last in spans):
            yield moment


def _slot(job: Job, moment: datetime, runs: Sequence[Run], fire: Fire | None, now: datetime) -> Slot:
    run = _counting(runs)
    state: SlotState
    reason = ""
    if run is not None:
        state = _of_run(run)
        name, timezone = run.job_name, run.timezone
    else:
        name, timezone = job.name, job.timezone
        reason = fire.reason if fire else ""
        waits = fire is not None and fire.state in ("planned", "running")
        state = "waiting" if waits or (fire is None and now - moment < TAKES_AT_MOST) else "missing"
    return Slot(job.slug, name, timezone, moment, run, state, reason)


def _counting(runs: Sequence[Run]) -> Run | None:
    good = [run for run in runs if run.state == "succeeded"]
    whole = [run for run in good if run.kind == "job"]
    return next(reversed(whole or good or list(runs)), None)


def _of_run(run: Run) -> SlotState:
    verdict = run.verdict
    if verdict == "complete" or verdict == "complete_with_rejects" or verdict == "partial":
        return verdict
    return "running" if verdict in ("running", "planned") else "failed"


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


def rows_day(slot: Slot, previous: datetime | None) -> date:
    """The day whose rows a run carries: that on which its window began, at most a day before its scheduled time.

    A daily run at 02:00 carries yesterday's rows; an hourly one those of its own day, the first of the night yesterday's.

    Args:
        slot: The scheduled time.
        previous: The scheduled time before it; None for a job without a calendar, which carries its own day's rows.
    """
    begins = slot.scheduled_at if previous is None else max(previous, slot.scheduled_at - timedelta(days=1))
    return begins.astimezone(ZoneInfo(slot.timezone)).date()


def answer_for(day: date, slots: Iterable[Slot]) -> DayAnswer:
    """What arrived of the rows of a day, from the slots that carry them."""
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
