"""Talks to the runner of a workspace from another process, and returns what is and was due in it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from core.calendar.cron import scheduled_times
from core.errors import ConfigError, LedgerBusy
from core.model.job import Job
from core.model.query import ParameterValue
from core.model.run import Run
from core.records.opened import OpenWorkspace
from core.records.rights import Caller
from core.records.scheduled_runs import ScheduledRun
from core.scheduler.commands import cancel_job, cancel_run, request_run, request_stop
from core.workspace.jobs import find_job, load_jobs

__all__ = [
    "ask_for_run",
    "cancel",
    "coming_scheduled_times",
    "first_answer",
    "past_scheduled_runs",
    "runner_note",
    "stop_runner",
]

STOP_SLACK_S = 20.0
"""What a runner may take beyond PSTT_STOP_TIMEOUT_S: to kill what does not end, and to record it."""
POLL_EVERY_S = 0.1
ANSWER_WITHIN_S = 3.0
"""How long a request waits for the runner's first answer."""


def stop_runner(opened: OpenWorkspace, caller: Caller, now: Callable[[], datetime]) -> str:
    """Asks the runner to end and waits for it; returns what happened, in words.

    Raises:
        AccessRefused: The caller is no admin.
        LedgerBusy: It has not ended in its time.
    """
    status = opened.ledger.heartbeats.newest()
    if status is None or not status.is_alive(now()):
        return "no runner works here"
    request_stop(opened.ledger, caller=caller, now=now())
    asked = status.pid, status.pid_started_at
    deadline = time.monotonic() + opened.settings.PSTT_STOP_TIMEOUT_S + STOP_SLACK_S
    while time.monotonic() < deadline:
        status = opened.ledger.heartbeats.newest()
        if status is None or not status.is_alive(now()) or (status.pid, status.pid_started_at) != asked:
            return "the runner has ended"
        time.sleep(POLL_EVERY_S)
    raise LedgerBusy("the runner has not ended in its time", remedy=f"check pid {status.pid} on {status.host}")


def ask_for_run(
    opened: OpenWorkspace,
    text: str,
    *,
    at: datetime | None,
    params: Mapping[str, ParameterValue],
    caller: Caller,
    now: Callable[[], datetime],
    dry_run: bool = False,
    again: bool = False,
) -> dict[str, Any]:
    """Asks the runner to run a job, or to try it without sending; waits 3 s for its first answer.

    Args:
        opened: The workspace.
        text: The job's name or file name.
        at: Scheduled time, naive in the job's zone; None: the newest of its calendar, or now.
        params: Values or templates that override the job's own.
        caller: Who asks.
        now: The clock, aware UTC.
        dry_run: Sends nothing.
        again: Also if this scheduled time was sent before.

    Returns:
        `request_id`, `state`, `answer` and `run_id` (None: there is no run yet).

    Raises:
        AccessRefused: The caller may not send.
        AlreadySent: The scheduled time has succeeded, and `again` is not given.
        NotDueYet: It is in the future, and `again` is not given.
        ConfigError: There is no such job, or the runner refuses.
    """
    ledger = opened.ledger
    job = find_job(opened.workspace, text)
    number = request_run(ledger, job, caller=caller, now=now(), at=at, parameters=params, again=again, dry_run=dry_run)
    return first_answer(opened, number, now)


def first_answer(opened: OpenWorkspace, number: int, now: Callable[[], datetime]) -> dict[str, Any]:
    """Waits up to 3 s for the runner's first answer to a request for a run; returns it as `ask_for_run`.

    Raises:
        ConfigError: The runner refuses.
    """
    ledger = opened.ledger
    if note := runner_note(opened, now()):
        answer = f"asked as request {number}; {note[0]}"
        return {"request_id": number, "state": "waiting", "answer": answer, "run_id": None}
    deadline = time.monotonic() + ANSWER_WITHIN_S
    while (request := ledger.requests.get(number)).state == "waiting" and time.monotonic() < deadline:
        time.sleep(POLL_EVERY_S / 2)
    if request.state == "refused":
        raise ConfigError(f"the runner refused: {request.answer}")
    answer = request.answer or "the runner has not taken it"
    return {
        "request_id": number,
        "state": request.state,
        "answer": answer,
        "run_id": ledger.scheduled_runs.run_of_request(number),
    }


def cancel(opened: OpenWorkspace, text: str, *, caller: Caller, now: datetime) -> str:
    """Asks a run to end (its id), or all runs of a job that run or wait; returns what was done, in words.

    Raises:
        AccessRefused: The caller may not send.
        ConfigError: There is no such run or job, or nothing of it runs or waits.
    """
    try:
        return cancel_run(opened.ledger, text, caller=caller, now=now)
    except ConfigError as error:
        try:
            slug = find_job(opened.workspace, text).slug
        except ConfigError:
            raise error from None
    return cancel_job(opened.ledger, slug, caller=caller, now=now)


def runner_note(opened: OpenWorkspace, now: datetime) -> list[str]:
    """Returns a line that says that no runner works; empty if one does."""
    status = opened.ledger.heartbeats.newest()
    is_alive = status is not None and status.is_alive(now)
    return [] if is_alive else ["no runner works here: python -m core runner starts one"]


def past_scheduled_runs(
    opened: OpenWorkspace, now: datetime, days: float, job: str | None = None
) -> list[tuple[ScheduledRun, Run | None]]:
    """Returns the scheduled runs of the last days, and earlier ones that still wait, each with its newest run.

    Args:
        opened: The workspace.
        now: Aware UTC.
        days: How far back.
        job: Only those of this slug.

    Returns:
        Oldest first; None: it has no run.
    """
    found = opened.ledger.scheduled_runs.between(now - timedelta(days=days), now, job)
    known = {one.scheduled_run_id for one in found}
    waiting = [
        one
        for one in opened.ledger.scheduled_runs.unfinished()
        if one.scheduled_run_id not in known and job in (None, one.job)
    ]
    return [(one, opened.ledger.run(one.run_id) if one.run_id else None) for one in [*waiting, *found]]


def coming_scheduled_times(
    opened: OpenWorkspace, now: datetime, days: float
) -> tuple[list[Job], list[tuple[datetime, str]]]:
    """Returns the enabled jobs, and their scheduled times of the next days: (time in the job's zone, slug), by time."""
    jobs = [job for job in load_jobs(opened.workspace)[0] if job.enabled]
    until = now + timedelta(days=days)
    found = [
        (moment.astimezone(ZoneInfo(job.timezone)), job.slug)
        for job in jobs
        for moment in scheduled_times(job, now, until)
    ]
    return jobs, sorted(found)
