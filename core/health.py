"""The dead man's check: is the runner alive, and has each job succeeded as lately as its calendar says?

Exit code 1 where not, for the company's own monitoring: it also speaks when the runner, which tells everything else, is
the one that is gone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from core.agenda import Agenda, JobVersion
from core.calendar import previous_fire
from core.envelope import iso_utc
from core.ledger import Ledger
from core.model import Fact, Job
from core.outbox import Outbox

__all__ = ["health"]

MAIL_WAITS = timedelta(hours=1)


def health(
    agenda: Agenda,
    ledger: Ledger,
    outbox: Outbox,
    jobs: Sequence[Job],
    problems: Sequence[str],
    now: datetime,
    grace_s: float,
) -> Iterator[Fact]:
    """One fact a line; contacts nothing.

    Args:
        agenda: Heartbeat.
        ledger: Runs.
        outbox: Alerts, and successes.
        jobs: All jobs whose files are right.
        problems: What is wrong with the other files.
        now: The clock.
        grace_s: How long after its scheduled time, in seconds, a success may still come; a job's `timeout_s` where that
            is longer.
    """
    yield from _runner(agenda, now)
    for problem in problems:
        yield Fact("fail", "job file", problem, "python -m core check")
    for job in jobs:
        if job.enabled and job.scheduling_mode != "manual":
            yield _job(job, agenda, ledger, outbox, now, timedelta(seconds=max(grace_s, job.timeout_s or 0)))
    yield from _alerts(outbox, now)


def _runner(agenda: Agenda, now: datetime) -> Iterator[Fact]:
    beat = agenda.runner()
    start = "python -m core runner, or start its service"
    if beat is None:
        yield Fact("fail", "runner", "no runner has ever worked here", start)
        return
    age_s = (now - beat.beat_at).total_seconds()
    where = f"pid {beat.pid} on {beat.host}"
    if beat.is_alive(now):
        yield Fact("pass", "runner", f"{where}, heartbeat {age_s:.0f} s ago, {beat.jobs_loaded} jobs")
    elif beat.state == "stopped":
        yield Fact("fail", "runner", f"was stopped {_ago(age_s)} ago", start)
    else:
        yield Fact("fail", "runner", f"the last heartbeat, of {where}, is {_ago(age_s)} old", start)
    if beat.is_alive(now):
        for problem in beat.problems:
            yield Fact("warn", "runner", f"{problem['where']}: {problem['text']}; {problem['instead']}")


def _job(job: Job, agenda: Agenda, ledger: Ledger, outbox: Outbox, now: datetime, grace: timedelta) -> Fact:
    subject = f"job {job.slug}"
    due = previous_fire(job, now - grace)
    if due is None:
        return Fact("pass", subject, "was never due yet")
    zone = ZoneInfo(job.timezone)
    when = f"{due.astimezone(zone):%d %b %Y %H:%M} {job.timezone}"
    (row,) = outbox.rows("last_success", job=job.slug, since=iso_utc(due))
    if row["scheduled_at"] is not None:
        newest = datetime.fromisoformat(row["scheduled_at"]).astimezone(zone)
        return Fact("pass", subject, f"succeeded for {newest:%d %b %Y %H:%M} {job.timezone}")
    since = _enabled_since(agenda.job_versions(job.slug))
    if since is not None and since > due:
        return Fact(
            "pass", subject, f"is on its calendar since {since.astimezone(zone):%d %b %Y %H:%M}, not due since then"
        )
    (last,) = outbox.rows("last_success", job=job.slug, since="")
    before = "it never succeeded"
    if last["scheduled_at"] is not None:
        before = f"the last success is that of {datetime.fromisoformat(last['scheduled_at']).astimezone(zone):%d %b %Y %H:%M}"
    running = next((run for run in ledger.runs(job.slug, 3) if run.state == "running"), None)
    if running is not None:
        return Fact("warn", subject, f"the run due {when} has not succeeded; run {running.run_id} is under way")
    remedy = f"python -m core runs --job {job.slug}, then run or replay it"
    return Fact("fail", subject, f"no success for {when}; {before}", remedy)


def _enabled_since(versions: Sequence[JobVersion]) -> datetime | None:
    """Since when the newest versions of the file, one after the other, have it enabled; None: nobody has seen it."""
    from pathlib import Path

    from core.errors import ConfigError
    from core.jobs import SUFFIX, parse_job

    since = None
    for version in versions:
        try:
            if not parse_job(Path(f"{version.job}{SUFFIX}"), version.document).enabled:
                break
        except ConfigError:  # an older program took it
            break
        since = version.seen_at
    return since


def _alerts(outbox: Outbox, now: datetime) -> Iterator[Fact]:
    episodes = [episode for episode in outbox.open_episodes() if episode.state == "open"]
    for episode in episodes:
        yield Fact("warn", f"alert {episode.rule}", f"{episode.subject}: {episode.text}", "python -m core alerts")
    if not episodes:
        yield Fact("pass", "alerts", "none is open")
    for entry in outbox.given_up_since(now - timedelta(days=1)):
        whom = ", ".join(entry.recipients) or entry.channel
        yield Fact(
            "fail",
            "outbox",
            f'"{entry.subject}" did not reach {whom}: {entry.last_error}',
            "python -m core alerts test",
        )
    late = [entry for entry in outbox.waiting() if now - entry.created_at > MAIL_WAITS]
    if late:
        text = f"{len(late)} messages wait for more than an hour: {late[-1].last_error or 'no runner delivers them'}"
        yield Fact("warn", "outbox", text, "python -m core alerts test says what is wrong")


def _ago(age_s: float) -> str:
    for unit_s, unit in ((86_400, "days"), (3600, "hours"), (60, "minutes")):
        if age_s >= 2 * unit_s:
            return f"{age_s / unit_s:.0f} {unit}"
    return f"{age_s:.0f} s"
