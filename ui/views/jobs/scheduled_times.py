"""The scheduled times of a job in words."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import streamlit as st

from core.calendar.cron import next_scheduled_times, previous_scheduled_time
from core.calendar.describe import describe_calendar
from core.model.job import Job
from ui import changes, data
from ui.components.text import plain
from ui.formats import clock, day, moment, number
from ui.language import current, t

__all__ = ["show_next_times", "suggested_times", "time_words"]

SHOWN_TIMES = 5


def show_next_times(drafted: changes.Draft) -> None:
    """Shows the calendar in words, the next scheduled times with their UTC offsets, and how missed ones are caught up."""
    job = drafted.job
    if job is None or any(
        error.key in ("cron", "timezone", "scheduling_mode", "interval_s") for error in drafted.problems
    ):
        return
    st.markdown(f"**{plain(describe_calendar(job, current()))}**")
    zone = ZoneInfo(job.timezone)
    lines = [
        f"- {plain(day(scheduled_run.astimezone(zone).date()))} {plain(clock(scheduled_run, job.timezone))} {plain(_offset(scheduled_run, zone))}"
        for scheduled_run in next_scheduled_times(job, data.now(), SHOWN_TIMES)
    ]
    if lines:
        st.markdown("\n".join(lines))
        st.caption(_catch_up(job))


def _offset(scheduled_run: datetime, zone: ZoneInfo) -> str:
    text = f"{scheduled_run.astimezone(zone):%z}"
    return f"UTC{text[:3]}:{text[3:]}"


def _catch_up(job: Job) -> str:
    if job.catch_up == "none":
        return t("If the machine was off, missed runs are not caught up; they are listed as skipped.")
    if job.catch_up == "all":
        return t(
            "If the machine was off, every missed run is caught up, the newest {count} at most.",
            count=number(job.max_catch_up),
        )
    return t("If the machine was off, the latest missed run is caught up once.")


def suggested_times(job: Job) -> list[datetime]:
    """The next and the last scheduled time; the current time for a manual job."""
    at = data.now().replace(second=0, microsecond=0)
    found = [*next_scheduled_times(job, at, 1), previous_scheduled_time(job, at)]
    return [scheduled_run for scheduled_run in found if scheduled_run is not None] or [at]


def time_words(job: Job, at: datetime) -> str:
    """`the last one, 17 Jan 2026 02:00`."""
    text = moment(at, job.timezone)
    if job.scheduling_mode == "manual":
        return t("now, {time}", time=text)
    return t("the next one, {time}", time=text) if at > data.now() else t("the last one, {time}", time=text)
