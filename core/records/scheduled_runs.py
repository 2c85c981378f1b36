"""Scheduled runs: every time at which a job is due by its calendar, by a backfill or by a request.

A scheduled run is written before its run starts and is unique on (job, scheduled time), so that two planners write it
once. How it ended is the verdict of its run (`core.records.ledger`), or the reason why it was skipped.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar, Literal

from core.calendar.cron import SkippedTimes
from core.clock import iso_utc
from core.errors import ConfigError
from core.model.job import Overlap
from core.records.rows import from_row
from core.records.store import StorePart

__all__ = ["NewScheduledRuns", "ScheduledRun", "ScheduledRuns"]

ScheduledRunKind = Literal["calendar", "catch_up", "backfill", "request"]
ScheduledRunState = Literal["planned", "running", "done", "skipped"]


@dataclass(frozen=True, slots=True)
class ScheduledRun:
    """One scheduled time of one job, or one request to run it.

    A span of skipped times is one row: see `skipped_count`.
    """

    scheduled_run_id: int
    job: str
    kind: ScheduledRunKind
    scheduled_at: datetime
    state: ScheduledRunState
    reason: str
    run_id: str | None
    tries: int
    not_before: datetime | None
    args: Mapping[str, Any]
    """`parameters` of a run; `of_run`, `rejects_only`, `to` and `keys` of a replay."""
    job_sha256: str
    asked_by: str
    request_id: int | None
    skipped_until: datetime | None
    skipped_count: int
    created_at: datetime
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class NewScheduledRuns:
    """The times that became due by the calendar of one job, written in one transaction with its watermark."""

    job: str
    overlap: Overlap
    on_time: Sequence[datetime]
    missed: Sequence[datetime]
    skipped: Sequence[SkippedTimes]
    considered_until: datetime
    calendar: str


class ScheduledRuns(StorePart):
    """The scheduled runs of one workspace."""

    sql_file: ClassVar[str] = "scheduled_runs.sql"

    def watermarks(self) -> dict[str, tuple[datetime, str]]:
        """Returns job → the time up to which its calendar has been planned, and which calendar that was."""
        return {row["job"]: (_moment(row["considered_until"]), row["calendar"]) for row in self._rows("watermarks")}

    def set_watermarks(self, begun: Mapping[str, tuple[datetime, str]], ended: Iterable[str] = ()) -> None:
        """Writes and deletes watermarks in one transaction.

        Args:
            begun: Job → from when its calendar counts, and which calendar it is.
            ended: Jobs that have no calendar now. One that gets a calendar again begins at that moment; the time
                between is not caught up.
        """
        with self._store.transaction() as db:
            for job, (at, calendar) in begun.items():
                row = {"job": job, "considered_until": iso_utc(at), "calendar": calendar}
                db.execute(self._sql["set_watermark"], row)
            for job in ended:
                db.execute(self._sql["delete_watermark"], {"job": job})

    def rewind(self, jobs: Iterable[str], now: datetime) -> None:
        """Sets jobs back to `now` after the clock was set back.

        Scheduled runs after `now` that were only skipped are deleted, so that they are planned again; what ran stays.
        The history of the job files is set back in the same transaction.
        """
        with self._store.transaction() as db:
            for job in jobs:
                values = {"job": job, "now": iso_utc(now)}
                db.execute(self._sql["delete_future_skips"], values)
                db.execute(self._sql["cut_future_spans"], values)
                db.execute(self._sql["rewind_watermark"], values)
            db.execute(self._sql["rewind_history"], {"now": iso_utc(now)})

    def plan(self, due: Iterable[NewScheduledRuns], now: datetime) -> int:
        """Writes scheduled runs and watermarks in one transaction; a scheduled run that has a row is left unchanged.

        With `overlap: skip` one is written as skipped while the one before it runs or waits for its start.

        Returns:
            How many rows were written.
        """
        written = 0
        with self._store.transaction() as db:
            for new in due:
                for row in _calendar_rows(new, iso_utc(now)):
                    written += db.execute(self._sql["insert_calendar_run"], row).rowcount
                until = iso_utc(new.considered_until)
                watermark = {"job": new.job, "considered_until": until, "calendar": new.calendar}
                db.execute(self._sql["set_watermark"], watermark)
        return written

    def plan_requested(
        self,
        job: str,
        moments: Iterable[datetime],
        *,
        kind: Literal["backfill", "request"],
        asked_by: str,
        now: datetime,
        args: Mapping[str, Any] | None = None,
        request_id: int | None = None,
    ) -> list[int]:
        """Plans runs outside of the calendar in one transaction. Returns the ids of the scheduled runs."""
        made = []
        with self._store.transaction() as db:
            for moment in moments:
                row = {
                    "job": job,
                    "kind": kind,
                    "scheduled_at": iso_utc(moment),
                    "args": json.dumps(dict(args or {}), ensure_ascii=False),
                    "asked_by": asked_by,
                    "request_id": request_id,
                    "now": iso_utc(now),
                }
                made.append(int(db.execute(self._sql["insert_requested_run"], row).lastrowid or 0))
        return made

    def settled_times(self, job: str, after: datetime, until: datetime) -> tuple[set[datetime], set[datetime]]:
        """Returns two sets of scheduled times with `after` < t ≤ `until`: with a succeeded run, and planned or running."""
        span = {"job": job, "after": iso_utc(after), "until": iso_utc(until)}
        succeeded, planned = (self._rows(name, span) for name in ("succeeded_times", "planned_times"))
        return {_moment(row[0]) for row in succeeded}, {_moment(row[0]) for row in planned}

    def get(self, scheduled_run_id: int) -> ScheduledRun:
        """Returns one scheduled run.

        Raises:
            ConfigError: There is none with that number.
        """
        rows = self._rows("scheduled_run", {"scheduled_run_id": scheduled_run_id})
        if not rows:
            raise ConfigError(f"there is no scheduled run {scheduled_run_id}")
        return from_row(ScheduledRun, rows[0])

    def between(self, after: datetime, until: datetime, job: str | None = None) -> list[ScheduledRun]:
        """Returns those with `after` < scheduled time ≤ `until`, oldest first; of one job (its slug) or of all."""
        span = {"after": iso_utc(after), "until": iso_utc(until), "job": job}
        return [from_row(ScheduledRun, row) for row in self._rows("between", span)]

    def first_scheduled_at(self, job: str) -> datetime | None:
        """Returns the earliest scheduled time that was planned by the calendar of a job; None where there is none."""
        (row,) = self._rows("first_scheduled_at", {"job": job})
        return _moment(row[0]) if row[0] else None

    def startable(self, now: datetime) -> list[ScheduledRun]:
        """Returns the planned ones that are due and whose job does not run, in the order in which they should start.

        Runs of backfills are not among them: see `core.records.backfills`.
        """
        return [from_row(ScheduledRun, row) for row in self._rows("startable", {"now": iso_utc(now)})]

    def unfinished(self) -> list[ScheduledRun]:
        """Returns those that are planned or running."""
        return [from_row(ScheduledRun, row) for row in self._rows("unfinished")]

    def running(self) -> list[ScheduledRun]:
        """Returns those that a process has taken."""
        return [from_row(ScheduledRun, row) for row in self._rows("running")]

    def assign(self, scheduled_run_id: int, job_sha256: str) -> None:
        """Writes with which version of the job file it is to run."""
        self._write("assign", {"scheduled_run_id": scheduled_run_id, "job_sha256": job_sha256})

    def finish(self, scheduled_run_id: int, now: datetime) -> None:
        """Writes that its run has a final verdict."""
        self._write("finish", {"scheduled_run_id": scheduled_run_id, "now": iso_utc(now)})

    def requeue(self, scheduled_run_id: int, not_before: datetime | None, reason: str) -> None:
        """Plans it again, with the same scheduled time and so the same parameters and message ids."""
        moment = iso_utc(not_before) if not_before else None
        self._write("requeue", {"scheduled_run_id": scheduled_run_id, "not_before": moment, "reason": reason})

    def wait(self, scheduled_run_id: int, not_before: datetime, reason: str) -> None:
        """Writes that a planned one is not tried before that time; one that a process has taken meanwhile is left unchanged."""
        values = {"scheduled_run_id": scheduled_run_id, "not_before": iso_utc(not_before), "reason": reason}
        self._write("wait", values)

    def skip(self, scheduled_run_id: int, reason: str, now: datetime) -> None:
        """Writes that a planned one is not run, and why."""
        self._write("skip", {"scheduled_run_id": scheduled_run_id, "reason": reason, "now": iso_utc(now)})

    def skip_planned(self, job: str, reason: str, now: datetime, *, calendar_only: bool = False) -> int:
        """Writes that none of the planned ones of a job is run, and why. Returns how many there were."""
        name = "skip_calendar_of_job" if calendar_only else "skip_planned_of_job"
        return self._write(name, {"job": job, "reason": reason, "now": iso_utc(now)})

    def of_request(self, request_id: int) -> list[ScheduledRun]:
        """Returns what was planned for a request, by scheduled time."""
        return [from_row(ScheduledRun, row) for row in self._rows("of_request", {"request_id": request_id})]

    def run_of_request(self, request_id: int) -> str | None:
        """Returns the id of the newest run that was made for a request; None where none has started."""
        planned = reversed(self.of_request(request_id))
        return next((scheduled_run.run_id for scheduled_run in planned if scheduled_run.run_id), None)


def _calendar_rows(new: NewScheduledRuns, now: str) -> Iterable[dict[str, Any]]:
    common = {"job": new.job, "overlap": new.overlap, "now": now, "skipped_until": None, "skipped_count": 1}
    for skipped in new.skipped:
        yield common | {
            "kind": "catch_up",
            "scheduled_at": iso_utc(skipped.first),
            "state": "skipped",
            "reason": skipped.reason,
            "skipped_until": iso_utc(skipped.last) if skipped.count != 1 else None,
            "skipped_count": skipped.count,
        }
    for kind, moments in (("catch_up", new.missed), ("calendar", new.on_time)):
        for moment in moments:
            yield common | {"kind": kind, "scheduled_at": iso_utc(moment), "state": "planned", "reason": ""}


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)
