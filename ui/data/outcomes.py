"""What became of the scheduled runs of each day, for the overview's first sentence and the calendar."""

from __future__ import annotations

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

__all__ = ["newest_day", "outcomes_by_job", "today_and_yesterday"]


def today_and_yesterday() -> list[tuple[DayTotals, list[ScheduledOutcome]]]:
    """Of today up to now, and of yesterday: the counts, and the outcome of each scheduled time."""
    return _of_two_days(data.root(), data.now().astimezone(ZoneInfo(workspace_status().timezone)).date())


@st.cache_data(ttl=data.CHECK_S, show_spinner=False, max_entries=32)
def _of_two_days(folder: Path, today: date) -> list[tuple[DayTotals, list[ScheduledOutcome]]]:
    at = data.now()
    with open_workspace(folder, log=False) as app:
        yesterday = today - timedelta(days=1)
        slots = [
            slot for job in _kafka_jobs(folder, app) for slot in outcomes_of_days(job, app.ledger, yesterday, today, at)
        ]
    of_days = ((day, [slot for slot in slots if slot.day == day]) for day in (today, yesterday))
    return [(day_totals(day, chosen), chosen) for day, chosen in of_days]


def outcomes_by_job(days: int) -> dict[str, list[ScheduledOutcome]]:
    """Slug → the outcome of each scheduled time of the last days, today included."""
    return _outcomes_by_job(data.root(), days)


@st.cache_resource(ttl=data.CHECK_S, show_spinner=False, max_entries=32)  # it is never changed: readers need no copy
def _outcomes_by_job(folder: Path, days: int) -> dict[str, list[ScheduledOutcome]]:
    at = data.now()
    with open_workspace(folder, log=False) as app:
        found = {}
        for job in _kafka_jobs(folder, app):
            today = at.astimezone(ZoneInfo(job.timezone)).date()
            first = today - timedelta(days=days - 1)
            found[job.slug] = outcomes_of_days(job, app.ledger, first, today, at)
    return found


data.on_clear(_outcomes_by_job.clear)


def newest_day() -> date:
    """The latest date that it is now in any of the time zones of workspace and jobs."""
    zones = {workspace_status().timezone, *(job.timezone for job in all_jobs()[0])}
    return max(data.now().astimezone(ZoneInfo(zone)).date() for zone in zones)


def _kafka_jobs(folder: Path, app: App) -> list[Job]:
    """Jobs that send to Kafka, including those whose file was deleted or is not valid."""
    known = with_deleted_jobs(jobs_of(folder)[0], app.ledger, app.timezone)
    return [job for job in known if job.export_format == "kafka"]
