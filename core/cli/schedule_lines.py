"""What the command line prints about the calendar: the next scheduled times, and what became of those of the last days."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from core.calendar.describe import describe_calendar
from core.cli.output import language
from core.cli.render import job_in_zone
from core.errors import ConfigError
from core.formatting import local_time
from core.language import Data
from core.model.job import Job
from core.model.run import Run
from core.model.verdict import headline
from core.records.scheduled_runs import ScheduledRun

__all__ = ["scheduled_runs_table", "scheduled_time_lines"]


def scheduled_time_lines(
    jobs: Sequence[Job],
    times: Sequence[tuple[datetime, str]],
    days: float,
    unusable: Mapping[str, ConfigError],
    invalid: Sequence[ConfigError] = (),
    most: int = 20,
) -> list[str]:
    """Returns the calendar of each job in words, the next scheduled times, and which of these runs will fail.

    Args:
        jobs: The enabled jobs.
        times: (time in the job's zone, file name of the job), soonest first.
        days: How far ahead they reach.
        unusable: File name of the job → why it cannot run.
        invalid: Why files of jobs cannot be read; a runner that read them before keeps to what they were.
        most: Scheduled times that are shown.
    """
    failing = [f"✘ {Data(slug)} will fail: {error.text}" for slug, error in unusable.items()]
    failing += [
        f"✘ {error.text}; its times are not listed, the runner keeps to its last valid version" for error in invalid
    ]
    if not jobs:
        return ["no job is enabled", "  next   README: how to add a job", *failing]
    width = max(len(job.slug) for job in jobs)
    lines = [f"{Data(job.slug):<{width}}  {describe_calendar(job, language())}, {job.timezone}" for job in jobs]
    lines += ["", *(f"{moment:%a %d %b %Y %H:%M:%S %z}  {Data(slug)}" for moment, slug in times[:most])]
    if len(times) > most:
        lines.append(f"and {len(times) - most:,} more in {days:g} days; --json lists them all")
    if not times:
        lines.append(f"no scheduled time in the next {days:g} days")
    return lines + failing


def scheduled_runs_table(
    scheduled_runs: Sequence[tuple[ScheduledRun, Run | None]], zones: Mapping[str, str], timezone: str
) -> list[str]:
    """Returns one line for each scheduled run: when, which job, and its outcome.

    Args:
        scheduled_runs: With the run that each has become.
        zones: Time zone of each job, whose times these are.
        timezone: Of the workspace; a job of another zone has it behind its name.
    """
    if not scheduled_runs:
        return ["no scheduled time in these days", "  next   python -m core next shows what comes"]
    lines = []
    for scheduled_run, run in scheduled_runs:
        zone = run.timezone if run else zones.get(scheduled_run.job, timezone)
        when = local_time(scheduled_run.scheduled_at, zone, seconds=True)
        lines.append((when, job_in_zone(scheduled_run.job, zone, timezone), zone, scheduled_run, run))
    width = max(len(job) for _, job, *_ in lines)
    return [
        f"{when:<21} {Data(job):<{width}}  {scheduled_run.kind:<8}  {_outcome(scheduled_run, run, zone)}"
        for when, job, zone, scheduled_run, run in lines
    ]


def _outcome(scheduled_run: ScheduledRun, run: Run | None, zone: str) -> str:
    if scheduled_run.state == "skipped":
        span = ""
        if scheduled_run.skipped_until:
            skipped = scheduled_run.skipped_count
            count = f"{skipped:,} scheduled {'time' if skipped == 1 else 'times'} " if skipped else ""
            span = f"({count}until {local_time(scheduled_run.skipped_until, zone, seconds=True)}) "
        return f"skipped {span}{scheduled_run.reason}"
    attempt = f", attempt {run.attempt}" if run and run.attempt > 1 else ""
    verdict_ = f"{headline(run.verdict)}, run {run.run_id}{attempt}" if run else ""
    if scheduled_run.state == "planned":
        return f"waits   {scheduled_run.reason or verdict_ or 'for a worker'}"
    return f"{scheduled_run.state:<7} {verdict_}"
