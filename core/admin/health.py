"""The dead man's check: is the runner alive, and has each job succeeded as lately as its calendar says?

Exit code 1 where not, for the company's own monitoring: it also speaks when the runner, which tells everything else, is
the one that is gone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from core.model.check_result import CheckResult
from core.model.job import Job
from core.notify.outbox import Outbox
from core.records.ledger import Ledger
from core.records.outcomes import NEVER_STARTED, TICK, newest_due, slots_of

__all__ = ["health"]

MAIL_WAITS = timedelta(hours=1)


def health(
    ledger: Ledger,
    outbox: Outbox,
    jobs: Sequence[Job],
    problems: Sequence[str],
    now: datetime,
    grace_s: float,
) -> Iterator[CheckResult]:
    """One fact a line; contacts nothing.

    Args:
        ledger: Heartbeat and runs.
        outbox: Alerts.
        jobs: All jobs whose files are right.
        problems: What is wrong with the other files.
        now: The clock.
        grace_s: How long after its scheduled time, in seconds, a success may still come; a job's `timeout_s` where that
            is longer.
    """
    yield from _runner(ledger, now)
    for problem in problems:
        yield CheckResult("fail", "job file", problem, "python -m core check")
    for job in jobs:
        if job.enabled and job.scheduling_mode != "manual":
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
        yield CheckResult("pass", "runner", f"{where}, heartbeat {age_s:.0f} s ago, {beat.jobs_loaded} jobs")
    elif beat.state == "stopped":
        yield CheckResult("fail", "runner", f"was stopped {_ago(age_s)} ago", start)
    else:
        yield CheckResult("fail", "runner", f"the last heartbeat, of {where}, is {_ago(age_s)} old", start)
    if beat.is_alive(now):
        for problem in beat.problems:
            yield CheckResult("warn", "runner", f"{problem['where']}: {problem['text']}; {problem['instead']}")


def _job(job: Job, ledger: Ledger, now: datetime, grace: timedelta) -> CheckResult:
    subject = f"job {job.slug}"
    due = newest_due(job, ledger, now - grace, now)
    if due is None:
        return CheckResult("pass", subject, "was never due yet")
    when = f"{_local(due.scheduled_at, job)} {job.timezone}"
    slots = slots_of(job, ledger, due.scheduled_at, now + TICK, now)
    good = next((slot for slot in reversed(slots) if slot.has_succeeded), None)
    if good is not None:
        return CheckResult("pass", subject, f"succeeded for {_local(good.scheduled_at, job)} {job.timezone}")
    running = next((run for run in ledger.history.newest(job.slug, 3) if run.state == "running"), None)
    if running is not None:
        return CheckResult("warn", subject, f"the run due {when} has not succeeded; run {running.run_id} is under way")
    if due.state == "waiting":
        return CheckResult(
            "warn", subject, f"the run due {when} waits for its start" + (due.reason and f": {due.reason}")
        )
    why = f" ({due.reason or NEVER_STARTED})" if due.state == "missing" else ""
    last = ledger.history.last_succeeded(job.slug)
    before = f"the last success is that of {_local(last, job)}" if last else "it never succeeded"
    remedy = f"python -m core runs --job {job.slug}, then run or replay it"
    return CheckResult("fail", subject, f"no success for {when}{why}; {before}", remedy)


def _local(moment: datetime, job: Job) -> str:
    return f"{moment.astimezone(ZoneInfo(job.timezone)):%d %b %Y %H:%M}"


def _alerts(outbox: Outbox, now: datetime) -> Iterator[CheckResult]:
    episodes = [episode for episode in outbox.open_episodes() if episode.state == "open"]
    for episode in episodes:
        yield CheckResult(
            "warn", f"alert {episode.rule}", f"{episode.subject}: {episode.text}", "python -m core alerts"
        )
    if not episodes:
        yield CheckResult("pass", "alerts", "none is open")
    for entry in outbox.given_up_since(now - timedelta(days=1)):
        whom = ", ".join(entry.recipients) or entry.channel
        yield CheckResult(
            "fail",
            "outbox",
            f'"{entry.subject}" did not reach {whom}: {entry.last_error}',
            "python -m core alerts test",
        )
    late = [entry for entry in outbox.waiting() if now - entry.created_at > MAIL_WAITS]
    if late:
        text = f"{len(late)} messages wait for more than an hour: {late[-1].last_error or 'no runner delivers them'}"
        yield CheckResult("warn", "outbox", text, "python -m core alerts test says what is wrong")


def _ago(age_s: float) -> str:
    for unit_s, unit in ((86_400, "days"), (3600, "hours"), (60, "minutes")):
        if age_s >= 2 * unit_s:
            return f"{age_s / unit_s:.0f} {unit}"
    return f"{age_s:.0f} s"
