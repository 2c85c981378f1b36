"""What users and programs ask for: runs, replays, cancels, and jobs enabled or disabled; backfills are in a module of their own.

Page, REST interface and command line call the same functions. Each checks the right of the caller and writes one line
into the audit trail.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from datetime import datetime
from typing import Any, Literal
from zoneinfo import ZoneInfo

from core.calendar.cron import previous_scheduled_time
from core.errors import AlreadySent, ConfigError, NotDueYet, StorageFailed
from core.formatting import counted, local_time
from core.model.job import Job
from core.model.query import ParameterValue
from core.model.run import Plan, Run
from core.records.ledger import Ledger
from core.records.rights import Caller, require
from core.run.replay import ReplayDestination
from core.workspace.jobs import read_job_file, set_enabled
from core.workspace.paths import Workspace

__all__ = [
    "audit_replay",
    "audit_run",
    "cancel_job",
    "cancel_run",
    "is_before_its_time",
    "replay_args",
    "request_replay",
    "request_run",
    "request_stop",
    "require_unsent",
    "sent_before",
    "set_job_enabled",
]


def sent_before(ledger: Ledger, job: Job, scheduled_at: datetime, *, with_ad_hoc: bool) -> Run | None:
    """Returns the run whose messages readers would see again if the job ran for this time.

    A run with other parameters had other rows, so that it counts only if this one has parameters of its own too. An exactly-once job never sends a message twice, and an incremental job goes on after its watermark: they have none.
    """
    is_never_twice = job.delivery == "exactly_once" or job.incremental is not None
    return None if is_never_twice else ledger.history.sent_before(job.slug, scheduled_at, with_ad_hoc=with_ad_hoc)


def is_before_its_time(job: Job, scheduled_at: datetime, now: datetime) -> bool:
    """Returns whether a run now would be the run of a coming time of the calendar, which the runner then skips."""
    return scheduled_at > now and previous_scheduled_time(job, scheduled_at) == scheduled_at


def require_unsent(
    ledger: Ledger, job: Job, scheduled_at: datetime, now: datetime, *, again: bool, with_ad_hoc: bool
) -> None:
    """Refuses to send a scheduled time a second time or before it is due, unless `again` says that this is intended.

    Raises:
        AlreadySent: A run for this time has succeeded; the text says which, and how many messages readers would see again.
        NotDueYet: The time is in the future.
    """
    if not again and is_before_its_time(job, scheduled_at, now):
        raise NotDueYet(
            f'job "{job.name}" is not due before {local_time(scheduled_at, job.timezone)} {job.timezone}',
            why="a run that is complete before then counts for that time: the runner would skip it, and rows that come "
            "until then would not be sent",
            remedy='leave the time out to run the last one; say that this is meant: --again on the command line, "again": '
            "true over REST",
        )
    sent = None if again else sent_before(ledger, job, scheduled_at, with_ad_hoc=with_ad_hoc)
    if sent is not None:
        raise AlreadySent(
            f'job "{job.name}" was sent for {local_time(sent.scheduled_at, job.timezone)} {job.timezone}: run {sent.run_id} '
            f"has {counted(sent.acknowledged, 'message')} on {sent.topic}",
            why="readers would see them again, with the same message ids",
            remedy='say that this is meant: --again on the command line, "again": true over REST',
        )


def request_run(
    ledger: Ledger,
    job: Job,
    *,
    caller: Caller,
    now: datetime,
    at: datetime | None = None,
    parameters: Mapping[str, ParameterValue] | None = None,
    again: bool = False,
    dry_run: bool = False,
) -> int:
    """Asks the runner to run a job, or to try it without sending. Returns the request's number.

    Args:
        ledger: Knows what was sent, and stores the request and the audit line.
        job: The job; a disabled one too.
        caller: Who asks for it.
        now: The clock.
        at: Scheduled time, naive in the job's zone; None: the newest one of its calendar, or now.
        parameters: Values or templates that take precedence over the job's own.
        again: Also where the scheduled time was sent before, or is in the future.
        dry_run: Reads every row and sends nothing.

    Raises:
        AccessRefused: The caller may not send.
        AlreadySent: The scheduled time was sent before, and `again` is not given.
        NotDueYet: It is in the future, and `again` is not given.
    """
    action: Literal["dry_run", "run"] = "dry_run" if dry_run else "run"
    require(caller, action)
    if at is not None and at.tzinfo is None:
        at = at.replace(tzinfo=ZoneInfo(job.timezone))
    if not dry_run and (due := at or previous_scheduled_time(job, now)) is not None:
        require_unsent(ledger, job, due, now, again=again, with_ad_hoc=bool(parameters))
    args = {"at": at.isoformat() if at else None, "parameters": dict(parameters or {}), "again": again}
    return _request(ledger, action, f"job {job.slug}", caller, now, args, job=job.slug)


def request_replay(
    ledger: Ledger,
    run_id: str,
    *,
    caller: Caller,
    now: datetime,
    rejects_only: bool = False,
    keys: Sequence[str] = (),
    to: ReplayDestination = "run",
) -> int:
    """Asks the runner to send a run again. Returns the request's number.

    Args:
        ledger: Knows the run, and stores the request and the audit line.
        run_id: The run's id, or its beginning.
        caller: Who asks for it.
        now: The clock.
        rejects_only: Leaves out what was acknowledged.
        keys: Only the rows with one of these keys; none: all rows.
        to: `run`: where the run was sent; `job`: where the job sends now.

    Raises:
        AccessRefused: The caller may not send.
        ConfigError: There is no such run.
    """
    require(caller, "replay")
    run = ledger.run(run_id)
    args = replay_args(rejects_only, keys, to)
    return _request(ledger, "replay", f"run {run.run_id}", caller, now, args, job=run.job, run_id=run.run_id)


def request_stop(ledger: Ledger, *, caller: Caller, now: datetime) -> int:
    """Asks the runner to stop. Returns the request's number.

    Raises:
        AccessRefused: The caller is no admin.
    """
    require(caller, "stop")
    return _request(ledger, "stop", "runner", caller, now, {})


def _request(
    ledger: Ledger,
    kind: Literal["run", "dry_run", "replay", "stop"],
    object_: str,
    caller: Caller,
    now: datetime,
    args: Mapping[str, Any],
    *,
    job: str = "",
    run_id: str | None = None,
) -> int:
    with ledger.transaction():
        number = ledger.requests.submit(kind, job=job, run_id=run_id, args=args, asked_by=caller.name, now=now)
        ledger.audit.add(caller.name, kind, object_, now, after={"request": number, **args})
    return number


def audit_run(ledger: Ledger, plan: Plan, *, caller: Caller, now: datetime, again: bool, dry_run: bool = False) -> None:
    """Allows a run that the caller's own process is about to do, and audits it.

    Raises:
        AccessRefused: The caller may not send.
        AlreadySent: The scheduled time was sent before, and `again` is not given.
        NotDueYet: It is in the future, and `again` is not given.
    """
    action: Literal["dry_run", "run"] = "dry_run" if dry_run else "run"
    require(caller, action)
    if not dry_run:
        require_unsent(ledger, plan.job, plan.scheduled_at, now, again=again, with_ad_hoc=plan.is_altered)
    after = {"at": plan.scheduled_at.isoformat(), "parameters": dict(plan.query.values), "again": again}
    with suppress(StorageFailed) if dry_run else nullcontext():  # a full disk does not stop what writes nothing else
        ledger.audit.add(caller.name, action, f"job {plan.job.slug}", now, after=after)


def audit_replay(
    ledger: Ledger,
    plan: Plan,
    *,
    rejects_only: bool,
    keys: Sequence[str] = (),
    to: ReplayDestination,
    caller: Caller,
    now: datetime,
) -> None:
    """Allows a replay that the caller's own process is about to do, and audits it.

    Raises:
        AccessRefused: The caller may not send.
    """
    require(caller, "replay")
    ledger.audit.add(caller.name, "replay", f"run {plan.of_run}", now, after=replay_args(rejects_only, keys, to))


def replay_args(rejects_only: bool, keys: Sequence[str], to: ReplayDestination) -> dict[str, Any]:
    """Returns what a request, a scheduled run and an audit line say of a replay."""
    return {"rejects_only": rejects_only, "to": to, **({"keys": list(keys)} if keys else {})}


def set_job_enabled(
    workspace: Workspace, ledger: Ledger, slug: str, *, enabled: bool, caller: Caller, now: datetime
) -> bool:
    """Enables or disables a job in its file. Returns whether that changed the file; only a change is audited.

    Raises:
        AccessRefused: The caller may not change jobs.
        ConfigError: There is no such job, or its file is wrong.
        StorageFailed: The file cannot be written.
    """
    action: Literal["enable", "disable"] = "enable" if enabled else "disable"
    require(caller, action)
    read_job_file(workspace, slug)  # refuses an unknown job in the words of all other commands
    changed = set_enabled(workspace, slug, enabled=enabled)
    if changed:
        saved = read_job_file(workspace, slug)
        ledger.job_versions.add(slug, saved.sha256, saved.text, now, saved_by=caller.name)
        before, after = {"enabled": not enabled}, {"enabled": enabled}
        ledger.audit.add(caller.name, action, f"job {slug}", now, before=before, after=after)
    return changed


def cancel_run(ledger: Ledger, run_id: str, *, caller: Caller, now: datetime) -> str:
    """Asks a run to end; its process sees that within half a second. Returns what was done, in words.

    Raises:
        AccessRefused: The caller may not send.
        ConfigError: There is no such run, or it has ended.
    """
    require(caller, "cancel")
    run = ledger.run(run_id)
    if not ledger.ask_to_end(run.run_id, caller.name, now):
        run = ledger.run(run.run_id)
        if run.cancel_asked_at is not None and run.state == "running":
            return f"run {run.run_id} was asked to end before, by {run.cancel_asked_by}"
        raise ConfigError(f"run {run.run_id} is not running, it {run.state}", remedy="python -m core runs lists them")
    ledger.audit.add(caller.name, "cancel", f"run {run.run_id}", now)
    return f"run {run.run_id} of {run.job} is asked to end"


def cancel_job(ledger: Ledger, slug: str, *, caller: Caller, now: datetime) -> str:
    """Skips what is planned of a job and asks its runs to end. Returns what was done, in words.

    Raises:
        AccessRefused: The caller may not send.
        ConfigError: Nothing of it is planned or running.
    """
    require(caller, "cancel")
    waiting = ledger.scheduled_runs.skip_planned(slug, f"cancelled by {caller.name}", now)
    running = ledger.history.running(slug)
    asked = [run.run_id for run in running if ledger.ask_to_end(run.run_id, caller.name, now)]
    if not waiting and not running:
        raise ConfigError(f"nothing of job {slug} waits or runs", remedy="python -m core runs lists what ran")
    ledger.audit.add(caller.name, "cancel", f"job {slug}", now, after={"scheduled_runs": waiting, "runs": asked})
    one = f"1 waiting run of {slug} is cancelled"
    parts = [one if waiting == 1 else f"{waiting} waiting runs of {slug} are cancelled"] if waiting else []
    return ", ".join([*parts, *(f"run {run.run_id} of {slug} is asked to end" for run in running)])
