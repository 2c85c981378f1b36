"""The command `health`: whether the runner is alive, and whether each job has succeeded as its calendar requires.

It is made for external monitoring, which notices by its exit code also that the runner, which reports everything else,
has stopped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from core.formatting import counted
from core.model.check_result import CheckResult
from core.model.job import Job
from core.notify.outbox import Outbox
from core.records.ledger import Ledger
from core.records.outcomes import latest_due

__all__ = ["health"]

MAIL_DELAY = timedelta(hours=1)
"""A message that has waited longer is a warning."""


def health(
    ledger: Ledger,
    outbox: Outbox,
    jobs: Sequence[Job],
    problems: Sequence[str],
    now: datetime,
    grace_s: float,
) -> Iterator[CheckResult]:
    """Yields the results of all checks, from the files and the ledger alone; contacts nothing.

    Args:
        ledger: Heartbeat, scheduled runs and runs.
        outbox: Incidents and messages.
        jobs: All jobs with a valid file.
        problems: The problems of the other files.
        now: The current time.
        grace_s: How long after its scheduled time, in seconds, a success may still come; a job's `timeout_s` if that is
            longer.
    """
    yield from _runner(ledger, now)
    for problem in problems:
        yield CheckResult("fail", "job file", problem, "python -m core check")
    for job in jobs:
        if job.is_scheduled:
            yield _job(job, ledger, now, timedelta(seconds=max(grace_s, job.timeout_s or 0)))
    yield from _alerts(outbox, now)


def _runner(ledger: Ledger, now: datetime) -> Iterator[CheckResult]:
    beat = ledger.heartbeats.newest()
    start = "python -m core runner, or start its service"
    if beat is None:
        yield CheckResult("fail", "runner", "no runner has ever worked here", start)
        return
    age_s = (now - beat.beat_at).total_seconds()
    where = f"pid {beat.pid} on {beat.host}"
    if beat.is_alive(now):
        yield CheckResult("pass", "runner", f"{where}, heartbeat {age_s:.0f} s ago, {counted(beat.jobs_loaded, 'job')}")
    elif beat.state == "stopped":
        yield CheckResult("fail", "runner", f"was stopped {_ago(age_s)} ago", start)
    else:
        yield CheckResult("fail", "runner", f"the last heartbeat, of {where}, is {_ago(age_s)} old", start)
    if beat.is_alive(now):
        for problem in beat.problems:
            yield CheckResult("warn", "runner", f"{problem['where']}: {problem['text']}; {problem['instead']}")


def _job(job: Job, ledger: Ledger, now: datetime, grace: timedelta) -> CheckResult:
    subject = f"job {job.slug}"
    latest = latest_due(job, ledger, now - grace, now)
    if latest is None:
        return CheckResult("pass", subject, _begun(job, ledger, now, grace))
    due, good, running = latest.due, latest.succeeded, latest.running
    when = f"{_local(due.scheduled_at, job)} {job.timezone}"
    if good is not None:
        return CheckResult("pass", subject, f"succeeded for {_local(good.scheduled_at, job)} {job.timezone}")
    if running is not None:
        return CheckResult(
            "warn", subject, f"the run due {when} has not succeeded; run {running.run_id} is in progress"
        )
    if due.state == "waiting":
        return CheckResult(
            "warn", subject, f"the run due {when} waits for its start" + (due.reason and f": {due.reason}")
        )
    why = f" ({due.missing_reason})" if due.state == "missing" else ""
    last = ledger.history.last_succeeded(job.slug)
    before = f"the last success is that of {_local(last, job)}" if last else "it never succeeded"
    remedy = f"python -m core runs --job {job.slug}, then run or replay it"
    return CheckResult("fail", subject, f"no success for {when}{why}; {before}", remedy)


def _local(moment: datetime, job: Job) -> str:
    return f"{moment.astimezone(ZoneInfo(job.timezone)):%d %b %Y %H:%M}"


def _alerts(outbox: Outbox, now: datetime) -> Iterator[CheckResult]:
    incidents = [incident for incident in outbox.open_incidents() if incident.state == "open"]
    for incident in incidents:
        yield CheckResult(
            "warn", f"alert {incident.rule}", f"{incident.subject}: {incident.text}", "python -m core alerts"
        )
    if not incidents:
        yield CheckResult("pass", "alerts", "none is open")
    for entry in outbox.given_up_since(now - timedelta(days=1)):
        whom = ", ".join(entry.recipients) or entry.channel
        yield CheckResult(
            "fail",
            "outbox",
            f'"{entry.subject}" did not reach {whom}: {entry.last_error}',
            "python -m core alerts test",
        )
    late = [entry for entry in outbox.waiting() if now - entry.created_at > MAIL_DELAY]
    if late:
        why = late[-1].last_error or "no runner delivers them"
        text = f"{counted(len(late), 'message')} {'waits' if len(late) == 1 else 'wait'} for more than an hour: {why}"
        yield CheckResult("warn", "outbox", text, "python -m core alerts test says what is wrong")


def _begun(job: Job, ledger: Ledger, now: datetime, grace: timedelta) -> str:
    """Returns what is to be said of a job whose first due time, if there is one, is not late yet."""
    latest = latest_due(job, ledger, now, now)
    if latest is None:
        return "was never due yet"
    if latest.succeeded is not None:
        return f"succeeded for {_local(latest.succeeded.scheduled_at, job)} {job.timezone}"
    return f"was due for the first time less than {_ago(grace.total_seconds())} ago and has not succeeded yet"


def _ago(age_s: float) -> str:
    for unit_s, unit in ((86_400, "days"), (3600, "hours"), (60, "minutes")):
        if age_s >= 2 * unit_s:
            return f"{age_s / unit_s:.0f} {unit}"
    return f"{age_s:.0f} s"
