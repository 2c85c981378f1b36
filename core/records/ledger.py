"""What happened: one row a run, one a rejected row, kept so that no crash, second process or reader can change it.

The sends themselves are in the spool (`core.records.spool`), since there are a thousand times more of them.
"""

from __future__ import annotations

import json
import os
import platform
import secrets
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import psutil

from core.clock import iso_utc
from core.errors import ConfigError, LedgerBusy, PsttError
from core.model.publisher import TopicState
from core.model.run import PartitionRange, Reject, Run, RunFile, Verification, VerificationProblem
from core.records.audit import AuditTrail
from core.records.connections_versions import ConnectionsVersions
from core.records.job_versions import JobVersions
from core.records.requests import Requests
from core.records.runner_status import BrokerSamples, Heartbeats
from core.records.scheduled_runs import ScheduledRuns
from core.records.store import Store
from core.workspace.process import is_running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from core.model.job import Job
    from core.model.run import Plan, RunState

__all__ = ["Ledger", "Outcome"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended: what `finish` writes. Times in seconds and milliseconds as named, sizes in bytes."""

    state: str
    rows_read: int = 0
    rows_counted: int | None = None
    sent: int = 0
    acknowledged: int = 0
    rejected: int = 0
    failed: int = 0
    retried: int = 0
    bytes: int = 0
    duration_s: float = 0.0
    latency_avg_ms: float | None = None
    latency_p50_ms: float | None = None
    latency_p90_ms: float | None = None
    latency_p99_ms: float | None = None
    partitions: tuple[PartitionRange, ...] = ()
    error: PsttError | None = None
    latency_counts: Mapping[str, int] = field(default_factory=dict)
    """Latency in ms to two digits → messages: what percentiles over several runs are told from."""
    files: tuple[RunFile, ...] = ()
    warnings: tuple[str, ...] = ()


class Ledger(Store):
    """One opening of the ledger of a workspace: its runs and rejects, and a part for each other kind of record.

    The parts share the opening, so that a caller passes one object and opens one file.
    """

    def __init__(self, file: Path) -> None:
        super().__init__(file)
        self.scheduled_runs = ScheduledRuns(self)
        self.requests = Requests(self)
        self.heartbeats = Heartbeats(self)
        self.broker_samples = BrokerSamples(self)
        self.audit = AuditTrail(self)
        self.job_versions = JobVersions(self)
        self.connections_versions = ConnectionsVersions(self)

    def _prepared(self, db: sqlite3.Connection) -> sqlite3.Connection:
        db.create_function("local_day", 2, _local_day, deterministic=True)
        return super()._prepared(db)

    def start(self, plan: Plan, now: datetime) -> Run:
        """Writes that the run has begun, before anything is read or sent; its fire is taken in the same transaction.

        Raises:
            LedgerBusy: The fire is not planned any more: another process took it, or it was cancelled.
        """
        row = {
            "kind": plan.kind,
            "job": plan.job.slug,
            "job_name": plan.job.name,
            "connection": plan.job.connection,
            "cluster": plan.cluster,
            "topic": plan.topic,
            "query": plan.job.query,
            "scheduled_at": iso_utc(plan.scheduled_at),
            "window_start": iso_utc(plan.window_start) if plan.window_start else None,
            "timezone": plan.job.timezone,
            "of_run": plan.of_run,
            "asked_by": plan.asked_by,
            "parameters": json.dumps(dict(plan.query.values), ensure_ascii=False),
            "sql_sha256": plan.query.sha256,
            "sql_text": plan.query.sql_text,
            "scheduled_run_id": plan.scheduled_run_id,
            "job_sha256": plan.job_sha256,
            "max_rejects": plan.job.max_rejects,
        }
        with self._translated(), self._transaction():
            run_id = self._begin(row, now)
        return self.run(run_id)

    def refuse(
        self,
        job: Job,
        scheduled_at: datetime,
        error: PsttError,
        now: datetime,
        *,
        scheduled_run_id: int,
        job_sha256: str,
        asked_by: str,
    ) -> Run:
        """Writes the verdict of a fire that failed before it could become a run: a file is wrong, a secret missing."""
        row = {
            "kind": "job",
            "job": job.slug,
            "job_name": job.name,
            "connection": job.connection,
            "cluster": job.kafka_config.cluster or "",
            "topic": job.kafka_config.topic or "",
            "query": job.query,
            "scheduled_at": iso_utc(scheduled_at),
            "window_start": None,
            "timezone": job.timezone,
            "of_run": None,
            "asked_by": asked_by,
            "parameters": "{}",
            "sql_sha256": "",
            "sql_text": "",
            "scheduled_run_id": scheduled_run_id,
            "job_sha256": job_sha256,
            "max_rejects": job.max_rejects,
        }
        with self._translated(), self._transaction():
            run_id = self._begin(row, now)
            self._db.execute(self._sql["close_run"], _closing(run_id, "failed", error, now))
        return self.run(run_id)

    def _begin(self, row: dict[str, Any], now: datetime) -> str:
        run_id = secrets.token_hex(5)
        process = {
            "run_id": run_id,
            "pid": os.getpid(),
            "pid_started_at": psutil.Process().create_time(),
            "host": platform.node(),
            "started_at": iso_utc(now),
        }
        self._db.execute(self._sql["insert_run"], row | process)
        if row["scheduled_run_id"] is not None:
            claim = {"scheduled_run_id": row["scheduled_run_id"], "run_id": run_id}
            if self._db.execute(self._sql["claim_scheduled_run"], claim).rowcount != 1:
                raise LedgerBusy(
                    f"fire {row['scheduled_run_id']} of job {row['job']} is not planned any more",
                    why="another process took it, or somebody cancelled it",
                    remedy="python -m core runs shows what became of it",
                )
        return run_id

    def place(self, run_id: str, topic: TopicState) -> None:
        """Writes which topic of which cluster a run sends to, by what no renaming changes."""
        place = {
            "run_id": run_id,
            "cluster_id": topic.cluster_id,
            "bootstrap_servers": topic.bootstrap_servers,
            "topic_id": topic.topic_id,
        }
        self._write("place_run", place)

    def finish(self, run_id: str, outcome: Outcome, now: datetime) -> Run:
        """Writes the verdict and the offsets in one transaction."""
        error = outcome.error
        row = {
            f.name: getattr(outcome, f.name) for f in fields(outcome) if f.name not in ("partitions", "files", "error")
        }
        row |= {
            "run_id": run_id,
            "finished_at": iso_utc(now),
            "latency_counts": json.dumps(dict(outcome.latency_counts)),
            "warnings": json.dumps(outcome.warnings, ensure_ascii=False),
            "error_class": type(error).__name__ if error else None,
            "error_text": error.text if error else None,
            "error_remedy": error.remedy if error else None,
            "error_retriable": int(error.is_retriable) if error else None,
        }
        with self._translated(), self._transaction():
            self._db.execute(self._sql["finish_run"], row)
            self._db.executemany(
                self._sql["insert_partition"],
                [
                    {
                        "run_id": run_id,
                        "topic": p.topic,
                        "partition": p.partition,
                        "first_offset": p.first_offset,
                        "last_offset": p.last_offset,
                        "count": p.count,
                    }
                    for p in outcome.partitions
                ],
            )
            self._db.executemany(self._sql["insert_file"], [{"run_id": run_id, **asdict(f)} for f in outcome.files])
        return self.run(run_id)

    def add_verification(self, found: Verification) -> None:
        """Writes what reading a run back found; earlier answers stay."""
        row = asdict(found) | {"checked_at": iso_utc(found.checked_at)}
        self._write("insert_verification", row | {"listed": json.dumps(row["listed"], ensure_ascii=False)})

    def add_rejects(self, run_id: str, rejects: Iterable[Reject]) -> None:
        """Writes rejected rows; they stay also when the run fails later."""
        rows = [
            {
                "run_id": run_id,
                "row_number": r.row_number,
                "column_name": r.column,
                "database_type": r.database_type,
                "reason": r.reason,
                "key": None if r.key is None else _storable(r.key),
                "row": None if r.row is None else _storable(json.dumps(r.row, ensure_ascii=False)),
            }
            for r in rejects
        ]
        if rows:
            with self._translated(), self._transaction():
                self._db.executemany(self._sql["insert_reject"], rows)

    def recognise(self, run_id: str, earlier: str) -> None:
        """Writes that the rows of this run were sent by an earlier one."""
        self._write("recognise", {"run_id": run_id, "earlier": earlier})

    def close_run(self, run_id: str, state: RunState, error: PsttError, now: datetime) -> Run:
        """Writes the verdict of a run whose process did not live to do it; one that has a verdict keeps it."""
        self._write("close_run", _closing(run_id, state, error, now))
        return self.run(run_id)

    def ask_to_end(self, run_id: str, asked_by: str, now: datetime) -> bool:
        """Asks the process that runs it to stop, whichever it is; whether the run was there to be asked."""
        return bool(self._write("ask_to_end", {"run_id": run_id, "asked_by": asked_by, "asked_at": iso_utc(now)}))

    def asked_to_end(self, job: str) -> str | None:
        """Who asked the run of this process to stop; None: nobody."""
        row = next(iter(self._rows("asked_to_end", {"pid": os.getpid(), "host": platform.node(), "job": job})), None)
        return row["cancel_asked_by"] if row else None

    def process_of(self, run_id: str) -> tuple[str, int, float]:
        """Host, pid and start (Unix time) of the process that runs it."""
        (row,) = self._rows("process_of", {"run_id": run_id})
        return row["host"], row["pid"], row["pid_started_at"]

    def is_alive(self, run_id: str) -> bool:
        """Whether the process that runs it is there, on this machine."""
        (row,) = self._rows("process_of", {"run_id": run_id})
        return row["host"] == platform.node() and _is_alive(row)

    def mark_interrupted(self, now: datetime, gone_host: str = "") -> list[Run]:
        """Runs that are `running` in a process of this machine that is gone become `interrupted`; those runs.

        Args:
            now: The clock.
            gone_host: A machine, such as a container that was replaced, whose processes are known to be gone.
        """
        with self._translated():
            open_runs = self._db.execute(self._sql["runs_open"]).fetchall()
        gone = [row for row in open_runs if row["host"] == platform.node() and not _is_alive(row)]
        gone += [row for row in open_runs if gone_host and row["host"] == gone_host]
        for row in gone:
            with self._translated(), self._transaction():
                self._db.execute(
                    self._sql["interrupt"],
                    {
                        "run_id": row["run_id"],
                        "finished_at": iso_utc(now),
                        "error_text": f"its process (pid {row['pid']}) ended without finishing the run; "
                        "how many rows arrived is not known",
                        "error_remedy": f"python -m core replay {row['run_id']} sends the same rows with the same "
                        "message ids",
                    },
                )
        return [self.run(row["run_id"]) for row in gone]

    def run(self, prefix: str) -> Run:
        """The run whose id begins with `prefix`.

        Raises:
            ConfigError: No run, or more than one, begins with it.
        """
        with self._translated():
            rows = self._db.execute(self._sql["runs_like"], {"prefix": prefix.lower()}).fetchall()
        if not prefix or not rows:
            raise ConfigError(f"there is no run {prefix!r}", remedy="python -m core runs lists them")
        if len(rows) > 1:
            raise ConfigError(
                f"more than one run begins with {prefix!r}", remedy="give more characters of the run's id"
            )
        return self._run(rows[0])

    def known(self, run_id: str) -> Run | None:
        """The run with that whole id; None: this ledger has no such run."""
        rows = self._rows("run_of_id", {"run_id": run_id})
        return self._run(rows[0]) if rows else None

    def count_rejects(self, run_id: str) -> int:
        """How many rejected rows of a run are kept, also of one that was broken off."""
        (row,) = self._rows("count_rejects", {"run_id": run_id})
        return int(row[0])

    def runs(self, job: str | None = None, limit: int = 50) -> list[Run]:
        """The newest runs first; of one job (its slug) or of all."""
        with self._translated():
            return [self._run(row) for row in self._db.execute(self._sql["runs"], {"job": job, "limit": limit})]

    def runs_where(
        self,
        *,
        job: str | None = None,
        topic: str | None = None,
        cluster: str | None = None,
        states: Iterable[str] = (),
        since: datetime | None = None,
        until: datetime | None = None,
        days: tuple[date, date] | None = None,
        run_ids: Iterable[str] | None = None,
        limit: int = 50,
        offset: int = 0,
    ) -> tuple[list[Run], int]:
        """One page of the runs, the newest first, and how many there are in all.

        Args:
            job: Its slug; None: all.
            topic: Where they sent to; None: anywhere.
            cluster: The cluster's name at that time; None: any.
            states: Only these, `RunState` or `Verdict`; empty: all.
            since: Scheduled at or after it.
            until: Scheduled before it.
            days: Scheduled on the first day, the last, or between them, each in the time zone of its job.
            run_ids: Only these; None: all.
            limit: Runs a page.
            offset: Runs on the pages before.
        """
        values = {
            "job": job,
            "topic": topic,
            "cluster": cluster,
            "states": json.dumps(list(states)),
            "since": iso_utc(since) if since else None,
            "until": iso_utc(until) if until else None,
            "first": str(days[0]) if days else None,
            "last": str(days[1]) if days else None,
            "run_ids": None if run_ids is None else json.dumps(list(run_ids)),
        }
        (count,) = self._rows("runs_where_count", values)
        rows = self._rows("runs_where", values | {"limit": limit, "offset": offset})
        return [self._run(row) for row in rows], int(count[0])

    def runs_of_job(self, job: str, since: datetime, until: datetime) -> list[Run]:
        """Runs of a job whose scheduled time is `since` ≤ t < `until`, oldest first, without their offsets."""
        span = {"job": job, "since": iso_utc(since), "until": iso_utc(until)}
        return [self._run(row, with_partitions=False) for row in self._rows("runs_of_job", span)]

    def sent_before(self, job: str, scheduled_at: datetime) -> Run | None:
        """The newest run that sent this scheduled time to a topic and came to a good end; None: there is none."""
        rows = self._rows("sent_before", {"job": job, "scheduled_at": iso_utc(scheduled_at)})
        return self._run(rows[0]) if rows else None

    def family(self, run: Run) -> list[Run]:
        """The other runs of the same job and scheduled time, oldest first."""
        found = self.runs_of_job(run.job, run.scheduled_at, run.scheduled_at + timedelta(microseconds=1))
        return [other for other in found if other.run_id != run.run_id]

    def jobs_known(self) -> dict[str, str]:
        """Every job that ever ran: slug → its newest name."""
        return {row["job"]: row["job_name"] for row in self._rows("jobs_known")}

    def topics_known(self) -> list[str]:
        """Every topic that a run sent to."""
        return [row["topic"] for row in self._rows("topics_known") if row["topic"]]

    def cluster_ids(self) -> dict[str, str]:
        """Addresses of a cluster → the id that the newest run found there."""
        return {row["bootstrap_servers"]: row["cluster_id"] for row in self._rows("cluster_ids")}

    def runs_state(self) -> tuple[int, int, int]:
        """Another one whenever a run has begun or ended: the newest run's number, how many are open, how many interrupted."""
        (row,) = self._rows("runs_state")
        return int(row[0]), int(row[1]), int(row[2])

    def first_started(self, job: str) -> datetime | None:
        """When a job ran for the first time, by any door; None where it never did."""
        row = next(iter(self._rows("first_started", {"job": job})), None)
        return datetime.fromisoformat(row["started_at"]) if row else None

    def last_succeeded(self, job: str) -> datetime | None:
        """The newest scheduled time of a job that has a succeeded run; None where there is none."""
        (row,) = self._rows("last_succeeded", {"job": job})
        return datetime.fromisoformat(row["scheduled_at"]) if row["scheduled_at"] else None

    def row_counts(self, job: str, since: datetime, until: datetime) -> list[tuple[datetime, int]]:
        """What whole runs read, by scheduled time with `since` ≤ t < `until`; also those with an unexpected number."""
        span = {"job": job, "since": iso_utc(since), "until": iso_utc(until)}
        return [(datetime.fromisoformat(row[0]), row[1]) for row in self._rows("row_counts", span)]

    def run_rows(self, after: tuple[int, str] | None = None, again: Iterable[str] = ()) -> Iterator[dict[str, Any]]:
        """Runs as plain rows with their `number` in the order in which they began; times are text.

        Args:
            after: Number and id of a run: only those that began after it. All, where this ledger has no such run.
            again: Ids of runs to give besides, whenever they began.
        """
        number = after[0] if after and self._is_run(*after) else 0
        with self._translated():
            for row in self._db.execute(self._sql["run_rows"], {"after": number, "again": json.dumps(list(again))}):
                yield dict(row)

    def reject_rows(self, run_ids: Iterable[str]) -> Iterator[dict[str, Any]]:
        """What was wrong with the rejected rows of these runs, without the rows themselves."""
        with self._translated():
            for row in self._db.execute(self._sql["reject_rows"], {"run_ids": json.dumps(list(run_ids))}):
                yield dict(row)

    def rejects(self, run_id: str) -> Iterator[Reject]:
        """The rejected rows of a run, by row number."""
        with self._translated():
            for row in self._db.execute(self._sql["rejects"], {"run_id": run_id}):
                yield Reject(
                    row["row_number"],
                    row["column_name"],
                    row["database_type"],
                    row["reason"],
                    key=row["key"],
                    row=json.loads(row["row"]) if row["row"] else None,
                )

    def _is_run(self, number: int, run_id: str) -> bool:
        return [row["number"] for row in self._rows("run_number", {"run_id": run_id})] == [number]

    def _run(self, row: sqlite3.Row, *, with_partitions: bool = True) -> Run:
        values: dict[str, Any] = dict(row)
        for name in ("scheduled_at", "window_start", "started_at", "finished_at", "cancel_asked_at"):
            values[name] = datetime.fromisoformat(values[name]) if values[name] else None
        values["parameters"] = json.loads(values["parameters"])
        values["warnings"] = tuple(json.loads(values["warnings"]))
        values["error_retriable"] = None if values["error_retriable"] is None else bool(values["error_retriable"])
        if with_partitions:
            partitions = self._db.execute(self._sql["partitions"], {"run_id": values["run_id"]}).fetchall()
            values["partitions"] = tuple(PartitionRange(**dict(p)) for p in partitions)
            files = self._db.execute(self._sql["files"], {"run_id": values["run_id"]}).fetchall()
            values["files"] = tuple(RunFile(**dict(f)) for f in files)
            found = self._db.execute(self._sql["newest_verification"], {"run_id": values["run_id"]}).fetchone()
            values["verification"] = _verification(found) if found else None
        return Run(**{name: value for name, value in values.items() if name in _OF_RUN})


_OF_RUN = frozenset(field.name for field in fields(Run))


def _verification(row: sqlite3.Row) -> Verification:
    values: dict[str, Any] = dict(row)
    values["checked_at"] = datetime.fromisoformat(values["checked_at"])
    values["listed"] = tuple(VerificationProblem(**entry) for entry in json.loads(values["listed"]))
    return Verification(**values)


def _closing(run_id: str, state: RunState, error: PsttError, now: datetime) -> dict[str, Any]:
    return {
        "run_id": run_id,
        "state": state,
        "finished_at": iso_utc(now),
        "error_class": type(error).__name__,
        "error_text": error.text,
        "error_remedy": error.remedy,
        "error_retriable": int(error.is_retriable),
    }


def _local_day(moment: str, timezone: str) -> str:
    return datetime.fromisoformat(moment).astimezone(ZoneInfo(timezone)).date().isoformat()


def _storable(text: str) -> str:
    """SQLite stores UTF-8: half of a character is written as its escape."""
    return text.encode("utf-8", "backslashreplace").decode()


def _is_alive(row: Mapping[str, Any] | sqlite3.Row) -> bool:
    return is_running(row["pid"], float(row["pid_started_at"]))
