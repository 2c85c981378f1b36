"""What a person may order besides a run: backfill, enable, disable, cancel. The command line and the runner do it alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from core.calendar.cron import scheduled_times
from core.errors import AlreadySent, ConfigError
from core.formatting import local_time
from core.model.job import Job
from core.model.run import Run
from core.records.ledger import Ledger
from core.workspace.jobs import read_job_file, set_enabled
from core.workspace.paths import Workspace

__all__ = ["Backfilled", "backfill", "cancel", "cancel_job", "require_unsent", "sent_before", "switch", "wanted_times"]

MOST_SCHEDULED_RUNS = 10_000
"""A backfill of more is a mistake, or wants a query of its own."""


@dataclass(frozen=True, slots=True)
class Backfilled:
    """What a backfill planned."""

    scheduled_run_ids: Sequence[int]
    succeeded_before: int
    """Left out: these have a succeeded run."""
    planned_before: int
    """Left out: these wait or run already."""

    @property
    def text(self) -> str:
        """In one line."""
        parts = [f"{len(self.scheduled_run_ids)} fires planned"]
        if self.succeeded_before:
            parts.append(f"{self.succeeded_before} left out that succeeded before")
        if self.planned_before:
            parts.append(f"{self.planned_before} left out that wait or run already")
        return ", ".join(parts)


def backfill(
    ledger: Ledger,
    job: Job,
    first: date,
    last: date,
    *,
    asked_by: str,
    now: datetime,
    again: bool = False,
    request_id: int | None = None,
) -> Backfilled:
    """Plans a run for each scheduled time of a range of days; for a manual job one a day, at midnight.

    Args:
        ledger: Where the fires are planned.
        job: The job, also a disabled one.
        first: The first day, in the job's time zone.
        last: The last day; it is among them.
        asked_by: Who wants it.
        now: The clock.
        again: Also times that have a succeeded run; readers then see their messages again.
        request_id: The request that this answers.

    Raises:
        ConfigError: The range is empty, reaches beyond now, or has more than 10,000 fires.
    """
    wanted, succeeded, planned = wanted_times(ledger, job, first, last, now=now, again=again)
    made = ledger.scheduled_runs.plan_requested(
        job.slug, wanted, kind="backfill", asked_by=asked_by, now=now, request_id=request_id
    )
    return Backfilled(made, succeeded, planned)


def wanted_times(
    ledger: Ledger, job: Job, first: date, last: date, *, now: datetime, again: bool
) -> tuple[list[datetime], int, int]:
    """The scheduled times that a backfill would plan; how many it leaves out that succeeded, that wait or run.

    Raises:
        ConfigError: As `backfill`.
    """
    moments = _moments(job, first, last, now)
    if not moments:
        raise ConfigError(f'job "{job.name}" has no scheduled time from {first} to {last}')
    succeeded, planned = ledger.scheduled_runs.settled_times(job.slug, moments[0] - timedelta(seconds=1), moments[-1])
    left_out = set() if again else succeeded & set(moments)
    planned = planned & set(moments) - left_out
    wanted = [moment for moment in moments if moment not in left_out and moment not in planned]
    return wanted, len(left_out), len(planned)


def _moments(job: Job, first: date, last: date, now: datetime) -> list[datetime]:
    zone = ZoneInfo(job.timezone)
    start = datetime.combine(first, time(), zone).astimezone(UTC)
    end = min(datetime.combine(last + timedelta(days=1), time(), zone).astimezone(UTC), now)
    if last < first or start > now:
        raise ConfigError(
            f"from {first} to {last} is no range of past days", remedy="write --from 2026-01-10 --to 2026-01-16"
        )
    if job.scheduling_mode == "manual":
        days = ((first + timedelta(days=n)) for n in range((last - first).days + 1))
        moments = [datetime.combine(day, time(), zone).astimezone(UTC) for day in days]
        found = [moment for moment in moments if moment <= now]
    else:
        tick = timedelta(microseconds=1)
        found = list(scheduled_times(job, start - tick, end - tick))
    if len(found) > MOST_SCHEDULED_RUNS:
        raise ConfigError(f"from {first} to {last} there are {len(found):,} fires", remedy="take a shorter range")
    return found


def sent_before(ledger: Ledger, job: Job, scheduled_at: datetime) -> Run | None:
    """The run whose messages readers would see again if the job ran for this time; None: there is none.

    An exactly-once job sends nothing twice by itself.
    """
    return None if job.delivery == "exactly_once" else ledger.sent_before(job.slug, scheduled_at)


def require_unsent(ledger: Ledger, job: Job, scheduled_at: datetime, *, again: bool) -> None:
    """Refuses to send a scheduled time a second time, unless `again` says that it is meant.

    Raises:
        AlreadySent: A run for this time has succeeded; the text says which, and how many messages readers would see again.
    """
    sent = None if again else sent_before(ledger, job, scheduled_at)
    if sent is not None:
        raise AlreadySent(
            f'job "{job.name}" was sent for {local_time(sent.scheduled_at, job.timezone)} {job.timezone}: run {sent.run_id} '
            f"has {sent.acknowledged:,} messages on {sent.topic}",
            why="readers would see them again, with the same message ids",
            remedy='say that this is meant: --again on the command line, "again": true over REST',
        )


def switch(workspace: Workspace, ledger: Ledger, slug: str, *, enabled: bool, who: str, now: datetime) -> bool:
    """Enables or disables a job in its file, and writes down who did it; whether that changed it.

    Raises:
        ConfigError: There is no such job, or its file is wrong.
        StorageFailed: The file cannot be written.
    """
    changed = set_enabled(workspace, slug, enabled=enabled)
    if changed:
        saved = read_job_file(workspace, slug)
        ledger.job_versions.add(slug, saved.sha256, saved.text, now, saved_by=who)
        ledger.audit.add(
            who,
            "enable" if enabled else "disable",
            f"job {slug}",
            now,
            before={"enabled": not enabled},
            after={"enabled": enabled},
        )
    return changed


def cancel(ledger: Ledger, run_id: str, *, who: str, now: datetime) -> str:
    """Asks a run to end, which its process sees within half a second; what was done, in words.

    Raises:
        ConfigError: There is no such run, or it has ended.
    """
    run = ledger.run(run_id)
    if not ledger.ask_to_end(run.run_id, who, now):
        run = ledger.run(run.run_id)
        if run.cancel_asked_at is not None and run.state == "running":
            return f"run {run.run_id} was asked to end before, by {run.cancel_asked_by}"
        raise ConfigError(f"run {run.run_id} is not running, it {run.state}", remedy="python -m core runs lists them")
    ledger.audit.add(who, "cancel", f"run {run.run_id}", now)
    return f"run {run.run_id} of {run.job} is asked to end"


def cancel_job(ledger: Ledger, slug: str, *, who: str, now: datetime) -> str:
    """Whatever of a job waits does not run, and what runs is asked to end; what was done, in words.

    Raises:
        ConfigError: Nothing of it waits or runs.
    """
    waiting = ledger.scheduled_runs.skip_planned(slug, f"cancelled by {who}", now)
    running = [run for run in ledger.runs(slug, 20) if run.state == "running"]
    asked = [run.run_id for run in running if ledger.ask_to_end(run.run_id, who, now)]
    if not waiting and not running:
        raise ConfigError(f"nothing of job {slug} waits or runs", remedy="python -m core runs lists what ran")
    ledger.audit.add(who, "cancel", f"job {slug}", now, after={"fires": waiting, "runs": asked})
    parts = [f"{waiting} waiting fires of {slug} are cancelled"] if waiting else []
    return ", ".join([*parts, *(f"run {run.run_id} of {slug} is asked to end" for run in running)])
