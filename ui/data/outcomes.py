"""What became of the scheduled runs of each day, for the overview's first sentence and the calendar."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import date, datetime, timedelta
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

__all__ = ["DayAnswer", "file_jobs", "newest_day", "outcomes_by_job", "outcomes_of_job", "today_and_yesterday"]

MANY_JOBS = 50
CHECK_MANY_S = 30.0
"""Seconds between two checks of more than so many jobs: 250 of them take a second."""


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
    """Slug → the outcome of each scheduled time of the last days, today included, of every job.

    They are up to `CHECK_S` seconds old, with many jobs up to `CHECK_MANY_S`.
    """
    fresh_s = CHECK_MANY_S if len(all_jobs()[0]) > MANY_JOBS else data.CHECK_S
    return _outcomes_by_job(data.root(), days, int(time.monotonic() / fresh_s))


@st.cache_resource(ttl=CHECK_MANY_S, show_spinner=False, max_entries=32)  # it is never changed: readers need no copy
def _outcomes_by_job(folder: Path, days: int, period: int) -> dict[str, list[ScheduledOutcome]]:
    at = data.now()
    with open_workspace(folder, log=False) as app:
        return {job.slug: _of_last_days(job, app, days, at) for job in _jobs(folder, app)}


data.on_clear(_outcomes_by_job.clear)


def outcomes_of_job(slug: str, days: int) -> list[ScheduledOutcome]:
    """The same of one job, up to `STATUS_TTL_S` seconds old; empty where there is no such job."""
    return _outcomes_of_job(data.root(), slug, days)


@st.cache_resource(ttl=data.STATUS_TTL_S, show_spinner=False, max_entries=64)
def _outcomes_of_job(folder: Path, slug: str, days: int) -> list[ScheduledOutcome]:
    with open_workspace(folder, log=False) as app:
        job = next((job for job in _jobs(folder, app) if job.slug == slug), None)
        return [] if job is None else _of_last_days(job, app, days, data.now())


data.on_clear(_outcomes_of_job.clear)


def _of_last_days(job: Job, app: App, days: int, at: datetime) -> list[ScheduledOutcome]:
    today = at.astimezone(ZoneInfo(job.timezone)).date()
    return outcomes_of_days(job, app.ledger, today - timedelta(days=days - 1), today, at)


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
