"""What became of the scheduled runs of each day, for the overview's first sentence and the calendar."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import streamlit as st

from core import open_workspace
from core.model.job import Job
from core.records.outcomes import DayTotals, ScheduledOutcome, day_totals, next_due, outcomes_of_days, with_deleted_jobs
from ui import data
from ui.data.jobs import all_jobs, jobs_of
from ui.data.status import workspace_status

if TYPE_CHECKING:
    from core.app import App

__all__ = [
    "CALENDAR_DAYS",
    "DayAnswer",
    "file_jobs",
    "newest_day",
    "outcomes_by_job",
    "outcomes_of_job",
    "today_and_yesterday",
]

CALENDAR_DAYS = 60
"""Days that the calendar shows."""
RECHECK = timedelta(minutes=15)
"""After it the outcomes of a job are read again although nothing was noticed: a run may be of a time that was to come."""
Days = tuple[date, date]


@dataclass(frozen=True)
class _Known:
    """The outcomes of one job, and as long as what they are right."""

    job: Job
    days: Days
    changes: int
    made_at: datetime
    until: datetime
    """From then on time alone makes them others."""
    outcomes: list[ScheduledOutcome]


class _KnownOutcomes:
    """The outcomes that were read last, by job; only those are read again that can have changed.

    250 jobs of 60 days take 1.6 s of a processor. The pages of all sessions wait for one reader.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[tuple[Path, int | None], tuple[int, dict[str, _Known]]] = {}

    def get(self, folder: Path, of: int | None, days: Callable[[Job], Days]) -> dict[str, _Known]:
        """Returns slug → outcomes, of every job.

        Args:
            folder: Of the workspace.
            of: Which of the answers: those of the last days, or None: of two days.
            days: Returns the first and the last day for a job.
        """
        with self._lock:
            # The clock before the numbers, and these before the runs: what is written meanwhile is read again.
            at = data.now()
            with open_workspace(folder, log=False) as app:
                changes = app.ledger.history.changes()
                inode = app.workspace.ledger_file.stat().st_ino  # a folder that was made anew has other numbers
                seen, before = self._known.get((folder, of), (inode, {}))
                before = before if seen == inode else {}
                found = {
                    job.slug: _still(before.get(job.slug), job, days(job), changes.get(job.slug, 0), at)
                    or _read(job, app, days(job), changes.get(job.slug, 0), at)
                    for job in _jobs(folder, app)
                }
            self._known[folder, of] = inode, found
            return found


def _still(known: _Known | None, job: Job, days: Days, changes: int, at: datetime) -> _Known | None:
    """Returns what is known, if it is still right."""
    if known is None or (known.job, known.days, known.changes) != (job, days, changes):
        return None
    return known if known.made_at <= at < known.until else None


def _read(job: Job, app: App, days: Days, changes: int, at: datetime) -> _Known:
    outcomes = outcomes_of_days(job, app.ledger, *days, at)
    if any(outcome.state == "waiting" for outcome in outcomes):
        until = at  # it is missing after a while
    else:
        until = min(at + RECHECK, next_due(job, app.ledger, at) or at + RECHECK)
    return _Known(job, days, changes, at, until, outcomes)


_known = _KnownOutcomes()


@dataclass(frozen=True)
class DayAnswer:
    """One day: what was sent to topics and what was written to files, counted apart, because they are other rows."""

    day: date
    sent: DayTotals
    written: DayTotals
    outcomes: tuple[ScheduledOutcome, ...]
    """Of each scheduled time, of either kind."""

    @property
    def parts(self) -> tuple[DayTotals, ...]:
        """Those of the two in which something was due."""
        return tuple(totals for totals in (self.sent, self.written) if totals.due)


def today_and_yesterday() -> list[DayAnswer]:
    """Of today up to now, and of yesterday."""
    return _of_two_days(data.root(), data.now().astimezone(ZoneInfo(workspace_status().timezone)).date())


@st.cache_data(ttl=data.CHECK_S, show_spinner=False, max_entries=32)
def _of_two_days(folder: Path, today: date) -> list[DayAnswer]:
    yesterday = today - timedelta(days=1)
    found = _known.get(folder, None, lambda job: (yesterday, today)).values()
    outcomes = [outcome for of_job in found for outcome in of_job.outcomes]
    files = {of_job.job.slug for of_job in found if of_job.job.export_format != "kafka"}
    return [_answer(day, [one for one in outcomes if one.day == day], files) for day in (today, yesterday)]


def _answer(day: date, outcomes: list[ScheduledOutcome], files: set[str]) -> DayAnswer:
    written = [one for one in outcomes if (one.run.is_file if one.run else one.job in files)]
    sent = [one for one in outcomes if one not in written]
    return DayAnswer(day, day_totals(day, sent), day_totals(day, written), tuple(outcomes))


def outcomes_by_job(days: int, *, folder: Path | None = None) -> dict[str, list[ScheduledOutcome]]:
    """Slug → the outcome of each scheduled time of the last days, today included, of every job.

    They are up to `CHECK_S` seconds old. A list in which nothing has changed is the same object as before.

    Args:
        days: How many days.
        folder: Of the workspace; None: that of the session.
    """
    return _outcomes_by_job(folder or data.root(), days)


@st.cache_resource(ttl=data.CHECK_S, show_spinner=False, max_entries=32)  # it is never changed: readers need no copy
def _outcomes_by_job(folder: Path, days: int) -> dict[str, list[ScheduledOutcome]]:
    at = data.now()
    found = _known.get(folder, days, lambda job: _last_days(job, days, at))
    return {slug: of_job.outcomes for slug, of_job in found.items()}


data.on_clear(_outcomes_by_job.clear)


def outcomes_of_job(slug: str, days: int) -> list[ScheduledOutcome]:
    """The same of one job, up to `STATUS_TTL_S` seconds old; empty where there is no such job."""
    return _outcomes_of_job(data.root(), slug, days)


@st.cache_resource(ttl=data.STATUS_TTL_S, show_spinner=False, max_entries=64)
def _outcomes_of_job(folder: Path, slug: str, days: int) -> list[ScheduledOutcome]:
    with open_workspace(folder, log=False) as app:
        job = next((job for job in _jobs(folder, app) if job.slug == slug), None)
        at = data.now()
        return [] if job is None else outcomes_of_days(job, app.ledger, *_last_days(job, days, at), at)


data.on_clear(_outcomes_of_job.clear)


def _last_days(job: Job, days: int, at: datetime) -> Days:
    today = at.astimezone(ZoneInfo(job.timezone)).date()
    return today - timedelta(days=days - 1), today


def file_jobs() -> set[str]:
    """The slugs of the jobs that write Excel or CSV files now."""
    return {job.slug for job in all_jobs()[0] if job.export_format != "kafka"}


def newest_day() -> date:
    """The latest date that it is now in any of the time zones of workspace and jobs."""
    zones = {workspace_status().timezone, *(job.timezone for job in all_jobs()[0])}
    return max(data.now().astimezone(ZoneInfo(zone)).date() for zone in zones)


def _jobs(folder: Path, app: App) -> list[Job]:
    """All jobs, including those whose file was deleted or is not valid."""
    return with_deleted_jobs(jobs_of(folder)[0], app.ledger, app.timezone)
