"""What became of the scheduled runs of each day, for the overview's first sentence and the calendar."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import streamlit as st

from core import open_workspace
from core.model.job import Job
from core.records.outcomes import DayTotals, ScheduledOutcome, day_totals, outcomes_of_days, with_deleted_jobs
from ui import data
from ui.data.jobs import all_jobs, jobs_of
from ui.data.status import workspace_status

if TYPE_CHECKING:
    from core.app import App

__all__ = ["DayAnswer", "file_jobs", "newest_day", "outcomes_by_job", "today_and_yesterday"]


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
    at = data.now()
    with open_workspace(folder, log=False) as app:
        yesterday = today - timedelta(days=1)
        jobs = _jobs(folder, app)
        outcomes = [outcome for job in jobs for outcome in outcomes_of_days(job, app.ledger, yesterday, today, at)]
    files = {job.slug for job in jobs if job.export_format != "kafka"}
    return [_answer(day, [one for one in outcomes if one.day == day], files) for day in (today, yesterday)]


def _answer(day: date, outcomes: list[ScheduledOutcome], files: set[str]) -> DayAnswer:
    written = [one for one in outcomes if (one.run.is_file if one.run else one.job in files)]
    sent = [one for one in outcomes if one not in written]
    return DayAnswer(day, day_totals(day, sent), day_totals(day, written), tuple(outcomes))


def outcomes_by_job(days: int) -> dict[str, list[ScheduledOutcome]]:
    """Slug → the outcome of each scheduled time of the last days, today included, of every job."""
    return _outcomes_by_job(data.root(), days)


@st.cache_resource(ttl=data.CHECK_S, show_spinner=False, max_entries=32)  # it is never changed: readers need no copy
def _outcomes_by_job(folder: Path, days: int) -> dict[str, list[ScheduledOutcome]]:
    at = data.now()
    with open_workspace(folder, log=False) as app:
        found = {}
        for job in _jobs(folder, app):
            today = at.astimezone(ZoneInfo(job.timezone)).date()
            first = today - timedelta(days=days - 1)
            found[job.slug] = outcomes_of_days(job, app.ledger, first, today, at)
    return found


data.on_clear(_outcomes_by_job.clear)


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
