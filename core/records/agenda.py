"""The agenda: what should happen. Fires, requests, the runner's heartbeat, broker samples, and who changed what.

A fire is written before its run starts and is unique on (job, scheduled time): whoever comes second finds it there.
What became of it is told by its run (`core.records.ledger`), or by the reason why it was skipped.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Literal, TypeVar

from core.calendar.cron import Skipped
from core.clock import iso_utc
from core.errors import ConfigError
from core.model.job import Overlap
from core.records.store import Store

__all__ = [
    "Agenda",
    "AuditEntry",
    "BrokerSample",
    "BrokerState",
    "JobVersion",
    "NewScheduledRuns",
    "Request",
    "RunnerStatus",
    "ScheduledRun",
]

ScheduledRunKind = Literal["calendar", "catch_up", "backfill", "request"]
ScheduledRunState = Literal["planned", "running", "done", "skipped"]
RequestKind = Literal["run", "dry_run", "replay", "backfill", "enable", "disable", "cancel", "stop"]
RequestState = Literal["waiting", "taken", "done", "skipped", "refused"]
"""`skipped`: it came to an end and nothing ran, as what was planned for it was skipped; the answer says why."""

SAMPLES_KEPT = timedelta(days=90)
BEAT_EVERY_S = 5.0
SILENT_AFTER_S = 15.0
"""Three heartbeats that did not come: the runner is believed to be gone."""


@dataclass(frozen=True, slots=True)
class ScheduledRun:
    """One scheduled time of one job, or one wish to run it. A span of skipped fires is one row: see `skipped_count`."""

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
    """`parameters` of a run, `of_run` and `rejects_only` of a replay."""
    job_sha256: str
    asked_by: str
    request_id: int | None
    skipped_until: datetime | None
    skipped_count: int
    created_at: datetime
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class NewScheduledRuns:
    """What the calendar of one job brought, to be written in one transaction with its watermark."""

    job: str
    overlap: Overlap
    on_time: Sequence[datetime]
    missed: Sequence[datetime]
    skipped: Sequence[Skipped]
    considered_until: datetime
    calendar: str


@dataclass(frozen=True, slots=True)
class Request:
    """Something that somebody asked of the runner."""

    request_id: int
    kind: RequestKind
    job: str
    run_id: str | None
    args: Mapping[str, Any]
    asked_by: str
    asked_at: datetime
    state: RequestState
    taken_at: datetime | None
    finished_at: datetime | None
    answer: str


@dataclass(frozen=True, slots=True)
class RunnerStatus:
    """The last heartbeat of the runner."""

    host: str
    pid: int
    pid_started_at: float
    started_at: datetime
    beat_at: datetime
    version: str
    memory_bytes: int
    memory_share: float
    """Of the machine's memory, 0 to 1."""
    state: Literal["working", "stopping", "stopped"]
    jobs_loaded: int
    problems: tuple[Mapping[str, str], ...]
    """`where`, `text` and `instead` (what is used meanwhile) of each problem that a person should mend."""

    def is_alive(self, now: datetime) -> bool:
        """Whether it still beats."""
        return self.state != "stopped" and now - self.beat_at <= timedelta(seconds=SILENT_AFTER_S)


@dataclass(frozen=True, slots=True)
class BrokerSample:
    """One look at a cluster."""

    cluster: str
    at: datetime
    connected: bool
    latency_ms: float | None
    error: str | None


@dataclass(frozen=True, slots=True)
class BrokerState(BrokerSample):
    """The newest look at a cluster."""

    since: datetime
    """When the first of the looks was that all found the same."""


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One change that somebody made."""

    audit_id: int
    at: datetime
    who: str
    action: str
    object: str
    before: Any
    after: Any


@dataclass(frozen=True, slots=True)
class JobVersion:
    """A job file as it was once."""

    job: str
    sha256: str
    document: str
    seen_at: datetime
    saved_by: str
    """Who saved it through the page; empty: it was found on disk."""


@dataclass(frozen=True, slots=True)
class ConnectionsVersion:
    """connections.json as it was once, `***` for each password that stood in it."""

    sha256: str
    document: str
    seen_at: datetime
    saved_by: str
    """Who saved it through the page; empty: it was found on disk."""


class Agenda(Store):
    """What should happen in one workspace; opened as every `Store`."""

    sql_file: ClassVar[str] = "agenda.sql"
    _seen_version = 0

    def was_written(self) -> bool:
        """Whether another connection has written into the file since the last call; costs microseconds."""
        with self._translated():
            version = int(self._db.execute("PRAGMA data_version").fetchone()[0])
        changed, self._seen_version = version != self._seen_version, version
        return changed

    def watermarks(self) -> dict[str, tuple[datetime, str]]:
        """Job → up to when each of its fires has a row, and of which calendar."""
        return {row["job"]: (_moment(row["considered_until"]), row["calendar"]) for row in self._rows("watermarks")}

    def set_watermarks(self, begun: Mapping[str, tuple[datetime, str]], ended: Iterable[str] = ()) -> None:
        """Calendars begin to count, or have ended, in one transaction.

        Args:
            begun: Job → from when, and which calendar.
            ended: Jobs without a calendar now; when one has one again it begins then, without what was between.
        """
        with self._translated(), self._transaction():
            for job, (at, calendar) in begun.items():
                row = {"job": job, "considered_until": iso_utc(at), "calendar": calendar}
                self._db.execute(self._sql["set_watermark"], row)
            for job in ended:
                self._db.execute(self._sql["forget_watermark"], {"job": job})

    def turn_back(self, jobs: Iterable[str], now: datetime) -> None:
        """The clock was set back: fires after `now` that were only skipped may come again; what ran does not."""
        with self._translated(), self._transaction():
            for job in jobs:
                values = {"job": job, "now": iso_utc(now)}
                self._db.execute(self._sql["forget_future_skips"], values)
                self._db.execute(self._sql["cut_future_spans"], values)
                self._db.execute(self._sql["turn_back_watermark"], values)
            self._db.execute(self._sql["turn_back_history"], {"now": iso_utc(now)})

    def plan(self, brought: Iterable[NewScheduledRuns], now: datetime) -> int:
        """Writes fires and watermarks in one transaction; a fire that has a row already is left as it is.

        With `overlap: skip` a fire is written as skipped while the one before it runs or waits for its start.

        Returns:
            How many rows were written.
        """
        written = 0
        with self._translated(), self._transaction():
            for new in brought:
                for row in _calendar_rows(new, iso_utc(now)):
                    written += self._db.execute(self._sql["insert_calendar_run"], row).rowcount
                until = iso_utc(new.considered_until)
                watermark = {"job": new.job, "considered_until": until, "calendar": new.calendar}
                self._db.execute(self._sql["set_watermark"], watermark)
        return written

    def plan_asked(
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
        """Plans runs outside of the calendar, in one transaction; their fire ids."""
        with self._translated(), self._transaction():
            return self._insert_asked(job, moments, kind, asked_by, now, args, request_id)

    def plan_backfill(
        self,
        job: str,
        moments: Sequence[datetime],
        *,
        args: Mapping[str, Any],
        asked_by: str,
        now: datetime,
        answer: str,
    ) -> tuple[int, list[int]]:
        """Stores a backfill request, already answered, and plans its runs, in one transaction.

        Returns:
            The request's number and the ids of the scheduled runs.
        """
        row = {
            "kind": "backfill",
            "job": job,
            "run_id": None,
            "args": json.dumps(dict(args), ensure_ascii=False),
            "asked_by": asked_by,
            "asked_at": iso_utc(now),
        }
        with self._translated(), self._transaction():
            request_id = int(self._db.execute(self._sql["insert_request"], row).lastrowid or 0)
            taken = {"request_id": request_id, "state": "taken" if moments else "done", "answer": answer}
            self._db.execute(self._sql["take_request"], taken | {"now": iso_utc(now)})
            return request_id, self._insert_asked(job, moments, "backfill", asked_by, now, None, request_id)

    def _insert_asked(
        self,
        job: str,
        moments: Iterable[datetime],
        kind: str,
        asked_by: str,
        now: datetime,
        args: Mapping[str, Any] | None,
        request_id: int | None,
    ) -> list[int]:
        """Part of a transaction."""
        made = []
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
            made.append(int(self._db.execute(self._sql["insert_asked_run"], row).lastrowid or 0))
        return made

    def settled_times(self, job: str, after: datetime, until: datetime) -> tuple[set[datetime], set[datetime]]:
        """Scheduled times with `after` < t ≤ `until` that have a succeeded run, and those that wait or run."""
        span = {"job": job, "after": iso_utc(after), "until": iso_utc(until)}
        succeeded, planned = (self._rows(name, span) for name in ("succeeded_times", "planned_times"))
        return {_moment(row[0]) for row in succeeded}, {_moment(row[0]) for row in planned}

    def scheduled_run(self, scheduled_run_id: int) -> ScheduledRun:
        """One fire.

        Raises:
            ConfigError: There is none with that number.
        """
        rows = self._rows("scheduled_run", {"scheduled_run_id": scheduled_run_id})
        if not rows:
            raise ConfigError(f"there is no fire {scheduled_run_id}")
        return _made(ScheduledRun, rows[0])

    def scheduled_runs(self, after: datetime, until: datetime, job: str | None = None) -> list[ScheduledRun]:
        """Fires with `after` < scheduled time ≤ `until`, oldest first; of one job (its slug) or of all."""
        span = {"after": iso_utc(after), "until": iso_utc(until), "job": job}
        return [_made(ScheduledRun, row) for row in self._rows("scheduled_runs", span)]

    def first_scheduled_at(self, job: str) -> datetime | None:
        """The earliest scheduled time of a job's calendar that a runner decided about; None where there is none."""
        (row,) = self._rows("first_scheduled_at", {"job": job})
        return _moment(row[0]) if row[0] else None

    def startable(self, now: datetime) -> list[ScheduledRun]:
        """Planned fires whose time has come and whose job does not run, in the order in which they should start."""
        return [_made(ScheduledRun, row) for row in self._rows("startable", {"now": iso_utc(now)})]

    def open_scheduled_runs(self) -> list[ScheduledRun]:
        """Planned and running ones."""
        return [_made(ScheduledRun, row) for row in self._rows("open_scheduled_runs")]

    def running_scheduled_runs(self) -> list[ScheduledRun]:
        """Those that a process has taken."""
        return [_made(ScheduledRun, row) for row in self._rows("running_scheduled_runs")]

    def assign(self, scheduled_run_id: int, job_sha256: str) -> None:
        """Notes which version of the job the fire is to run with."""
        self._write("assign", {"scheduled_run_id": scheduled_run_id, "job_sha256": job_sha256})

    def finish(self, scheduled_run_id: int, now: datetime) -> None:
        """Its run has a verdict that stands."""
        self._write("finish_scheduled_run", {"scheduled_run_id": scheduled_run_id, "now": iso_utc(now)})

    def repeat(self, scheduled_run_id: int, not_before: datetime | None, reason: str) -> None:
        """It is planned again: the same scheduled time, so the same parameters and message ids."""
        moment = iso_utc(not_before) if not_before else None
        self._write(
            "repeat_scheduled_run", {"scheduled_run_id": scheduled_run_id, "not_before": moment, "reason": reason}
        )

    def skip(self, scheduled_run_id: int, reason: str, now: datetime) -> None:
        """It does not run, for that reason."""
        self._write("skip_scheduled_run", {"scheduled_run_id": scheduled_run_id, "reason": reason, "now": iso_utc(now)})

    def skip_planned(self, job: str, reason: str, now: datetime, *, calendar_only: bool = False) -> int:
        """All waiting fires of a job do not run, for that reason; how many."""
        name = "skip_calendar_of_job" if calendar_only else "skip_planned_of_job"
        return self._write(name, {"job": job, "reason": reason, "now": iso_utc(now)})

    def ask(
        self,
        kind: RequestKind,
        *,
        asked_by: str,
        now: datetime,
        job: str = "",
        run_id: str | None = None,
        args: Mapping[str, Any] | None = None,
    ) -> int:
        """Asks the runner for something, which it takes within a second; the request's number."""
        row = {
            "kind": kind,
            "job": job,
            "run_id": run_id,
            "args": json.dumps(dict(args or {}), ensure_ascii=False),
            "asked_by": asked_by,
            "asked_at": iso_utc(now),
        }
        with self._translated(), self._transaction():
            return int(self._db.execute(self._sql["insert_request"], row).lastrowid or 0)

    def request(self, request_id: int) -> Request:
        """One request and what became of it.

        Raises:
            ConfigError: There is none with that number.
        """
        rows = self._rows("request", {"request_id": request_id})
        if not rows:
            raise ConfigError(f"there is no request {request_id}")
        return _made(Request, rows[0])

    def requests(self, limit: int = 50) -> list[Request]:
        """The newest requests first."""
        return [_made(Request, row) for row in self._rows("requests", {"limit": limit})]

    def scheduled_runs_of(self, request_id: int) -> list[ScheduledRun]:
        """What was planned because of a request, in the order of its times."""
        return [_made(ScheduledRun, row) for row in self._rows("scheduled_runs_of_request", {"request_id": request_id})]

    def run_of(self, request_id: int) -> str | None:
        """The newest run that was made because of a request."""
        return next(
            (
                scheduled_run.run_id
                for scheduled_run in reversed(self.scheduled_runs_of(request_id))
                if scheduled_run.run_id
            ),
            None,
        )

    def waiting_requests(self) -> list[Request]:
        """Those that nobody has taken, oldest first."""
        return [_made(Request, row) for row in self._rows("waiting_requests")]

    def taken_requests(self, kind: RequestKind) -> list[Request]:
        """Those of a kind that were taken and have not ended, oldest first."""
        return [_made(Request, row) for row in self._rows("taken_requests", {"kind": kind})]

    def take(self, request_id: int, state: Literal["taken", "done", "refused"], answer: str, now: datetime) -> None:
        """Answers a request."""
        self._write("take_request", {"request_id": request_id, "state": state, "answer": answer, "now": iso_utc(now)})

    def finish_request(self, request_id: int, answer: str, now: datetime) -> None:
        """Ends a request whose fires have all come to an end: `skipped` where none of them ran, else `done`.

        Nothing happens while one has not.
        """
        self._write("finish_request", {"request_id": request_id, "answer": answer, "now": iso_utc(now)})

    def close_ended_requests(self, now: datetime) -> None:
        """Ends requests whose fires were all cancelled (`skipped`), or ended while nobody looked (`done`)."""
        self._write("close_ended_requests", {"now": iso_utc(now)})

    def beat(self, beat: RunnerStatus) -> None:
        """Writes the heartbeat."""
        row = {f.name: getattr(beat, f.name) for f in fields(RunnerStatus)}
        row |= {"started_at": iso_utc(beat.started_at), "beat_at": iso_utc(beat.beat_at)}
        row["problems"] = json.dumps([dict(problem) for problem in beat.problems], ensure_ascii=False)
        self._write("beat", row)

    def runner(self) -> RunnerStatus | None:
        """The last heartbeat; None where no runner has ever worked here."""
        rows = self._rows("runner")
        return _made(RunnerStatus, rows[0]) if rows else None

    def add_broker_sample(self, sample: BrokerSample) -> None:
        """Keeps one look at a cluster, for 90 days."""
        row = {
            "cluster": sample.cluster,
            "at": iso_utc(sample.at),
            "connected": int(sample.connected),
            "latency_ms": sample.latency_ms,
            "error": sample.error,
        }
        with self._translated(), self._transaction():
            self._db.execute(self._sql["insert_broker_sample"], row)
            self._db.execute(self._sql["prune_broker_samples"], {"before": iso_utc(sample.at - SAMPLES_KEPT)})

    def broker_samples(self, since: datetime, cluster: str | None = None) -> list[BrokerSample]:
        """Looks at a cluster (None: all) at or after `since`, oldest first."""
        return [
            _made(BrokerSample, r) for r in self._rows("broker_samples", {"since": iso_utc(since), "cluster": cluster})
        ]

    def broker_states(self) -> list[BrokerState]:
        """The newest look at each cluster, and since when it has been so."""
        return [_made(BrokerState, row) for row in self._rows("broker_states")]

    def audit(self, who: str, action: str, object_: str, now: datetime, before: Any = None, after: Any = None) -> None:
        """Writes down a change.

        Args:
            who: A person, or the rule or process of ours that did it.
            action: A verb: `disable`, `accept-columns`.
            object_: What was changed: `job export`.
            now: The clock.
            before: What stood there, as JSON can hold it; never a secret.
            after: What stands there now.
        """
        texts = [None if value is None else json.dumps(value, ensure_ascii=False) for value in (before, after)]
        row = {
            "at": iso_utc(now),
            "who": who,
            "action": action,
            "object": object_,
            "before": texts[0],
            "after": texts[1],
        }
        self._write("insert_audit", row)

    def audit_trail(self, object_: str | None = None, limit: int = 100) -> list[AuditEntry]:
        """Changes, the newest first; of one thing or of all."""
        return [_made(AuditEntry, row) for row in self._rows("audit_trail", {"object": object_, "limit": limit})]

    def add_job_version(self, job: str, sha256: str, document: str, now: datetime, saved_by: str = "") -> None:
        """Keeps a job file as it is now; one that was seen before becomes the newest again.

        It is in force from now on, if it was not already.
        """
        row = {"job": job, "sha256": sha256, "document": document, "seen_at": iso_utc(now), "saved_by": saved_by}
        with self._translated(), self._transaction():
            self._db.execute(self._sql["insert_job_version"], row)
            self._db.execute(self._sql["add_to_history"], {"job": job, "since": iso_utc(now), "sha256": sha256})

    def end_job(self, job: str, now: datetime) -> None:
        """The file of a job is gone: from now on nothing of it is due."""
        self._write("add_to_history", {"job": job, "since": iso_utc(now), "sha256": ""})

    def job_history(self, job: str) -> list[tuple[datetime, str | None]]:
        """Since when which text of a job's file was in force, in the order in which it was noticed; None: it was gone."""
        return [(_moment(row["since"]), row["document"]) for row in self._rows("job_history", {"job": job})]

    def jobs_noticed(self) -> list[str]:
        """The slug of every job whose file anyone has ever noticed, also of those that are gone."""
        return [row["job"] for row in self._rows("in_force", {"job": None})]

    def in_force(self, job: str | None = None) -> dict[str, str]:
        """Job → hash of the version of its file that is in force, as far as anyone has noticed; gone ones are left out."""
        return {row["job"]: row["sha256"] for row in self._rows("in_force", {"job": job}) if row["sha256"]}

    def job_version(self, job: str, sha256: str | None = None) -> JobVersion | None:
        """That version of a job file, or the newest one; None where there is none."""
        name = "job_version" if sha256 else "newest_job_version"
        rows = self._rows(name, {"job": job, **({"sha256": sha256} if sha256 else {})})
        return _made(JobVersion, rows[0]) if rows else None

    def add_connections_version(self, sha256: str, document: str, now: datetime, saved_by: str = "") -> None:
        """Keeps connections.json as it is now; one that was seen before becomes the newest again."""
        row = {"sha256": sha256, "document": document, "seen_at": iso_utc(now), "saved_by": saved_by}
        self._write("insert_connections_version", row)

    def connections_versions(self) -> list[ConnectionsVersion]:
        """Every version of connections.json that was seen, the newest first."""
        return [_made(ConnectionsVersion, row) for row in self._rows("connections_versions")]

    def job_versions(self, job: str) -> list[JobVersion]:
        """Every version of a job file that was seen, the newest first."""
        return [_made(JobVersion, row) for row in self._rows("job_versions", {"job": job})]


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


_MOMENTS = frozenset(
    "scheduled_at not_before skipped_until created_at finished_at asked_at taken_at started_at beat_at at seen_at since".split()
)
_DOCUMENTS = frozenset("args problems before after".split())
_Row = TypeVar("_Row")


def _made(kind: type[_Row], row: sqlite3.Row) -> _Row:
    """A row as its dataclass."""
    values: dict[str, Any] = {}
    for name in (f.name for f in fields(kind)):  # type: ignore[arg-type]
        value = row[name]
        if name in _MOMENTS and value is not None:
            value = _moment(value)
        elif name in _DOCUMENTS and value is not None:
            value = json.loads(value)
        values[name] = tuple(value) if name == "problems" else bool(value) if name == "connected" else value
    return kind(**values)


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)
