"""The ledger: one row for each run, written so that no crash, second process or reader can change it.

The sends are stored in the spool (`core.records.spool`), since there are a thousand times more of them.
"""

from __future__ import annotations

import json
import os
import platform
import secrets
import sqlite3
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import psutil

from core.clock import iso_utc
from core.errors import ConfigError, LedgerBusy, PsttError
from core.model.publisher import TopicState
from core.model.run import PartitionRange, Run, RunFile, Verification
from core.model.window import Cursor
from core.records.audit import AuditTrail
from core.records.backfills import Backfills
from core.records.connections_versions import ConnectionsVersions
from core.records.day_notes import DayNotes
from core.records.job_versions import JobVersions
from core.records.rejects import Rejects
from core.records.requests import Requests
from core.records.run_history import RunHistory, run_from_row
from core.records.run_parts import RunParts
from core.records.runner_status import BrokerSamples, Heartbeats
from core.records.scheduled_runs import ScheduledRuns
from core.records.store import Store
from core.records.watermarks import Watermarks
from core.workspace.process import is_running

if TYPE_CHECKING:
    from pathlib import Path

    from core.model.job import Job
    from core.model.run import Plan, RunState

__all__ = ["Ledger", "Outcome"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a run, as `Ledger.finish` writes it. Times in seconds or milliseconds as named, sizes in bytes."""

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
    """Latency in ms to two digits → messages; percentiles over several runs are computed from it."""
    files: tuple[RunFile, ...] = ()
    warnings: tuple[str, ...] = ()
    arrived_before: int = 0
    """Rows that a replay of what is missing has left out."""
    moved_to: Cursor | None = None
    """Incremental job: the watermark moves there with the verdict; None: it stays."""


class Ledger(Store):
    """One opening of the ledger of a workspace: its runs and rejects, and a part for each other kind of record.

    The parts share the opening, so that a caller passes one object and opens one file.
    """

    def __init__(self, file: Path) -> None:
        super().__init__(file)
        self.history = RunHistory(self)
        self.rejects = Rejects(self)
        self.parts = RunParts(self)
        self.watermarks = Watermarks(self)
        self.scheduled_runs = ScheduledRuns(self)
        self.requests = Requests(self)
        self.backfills = Backfills(self)
        self.heartbeats = Heartbeats(self)
        self.broker_samples = BrokerSamples(self)
        self.audit = AuditTrail(self)
        self.job_versions = JobVersions(self)
        self.day_notes = DayNotes(self)
        self.connections_versions = ConnectionsVersions(self)

    def _prepared(self, db: sqlite3.Connection) -> sqlite3.Connection:
        db.create_function("local_day", 2, _local_day, deterministic=True)
        return super()._prepared(db)

    def start(self, plan: Plan, now: datetime) -> Run:
        """Writes that a run has begun, before anything is read or sent.

        Its scheduled run becomes `running` in the same transaction.

        Raises:
            LedgerBusy: The scheduled run is no longer planned: another process took it, or it was cancelled. Or a
                backfill is sending this scheduled time, or this is one and another run is sending it.
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
            "is_ad_hoc": int(plan.is_ad_hoc),
        }
        with self._translated(), self._transaction():
            self._require_free_time(plan)
            run_id = self._begin(row, now)
        return self.run(run_id)

    def _require_free_time(self, plan: Plan) -> None:
        """Refuses two runs of a job for the same scheduled time at once; runs that are of no backfill have a lock instead."""
        values = {
            "job": plan.job.slug,
            "scheduled_at": iso_utc(plan.scheduled_at),
            "of_backfill": int(plan.is_backfill),
        }
        for row in self._db.execute(self._sql["runs_of_time"], values):
            if row["host"] != platform.node() or _is_alive(row):
                raise LedgerBusy(
                    f'job "{plan.job.name}" is running for this scheduled time already',
                    why=f"run {row['run_id']}",
                    remedy="wait for it; python -m core runs shows its state",
                )

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
        """Writes the failed run of a scheduled run that could not start: a file is wrong, or a secret is missing."""
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
            "is_ad_hoc": 0,
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
                    f"scheduled run {row['scheduled_run_id']} of job {row['job']} is not planned any more",
                    why="another process took it, or it was cancelled",
                    remedy="python -m core runs shows what became of it",
                )
        return run_id

    def place(self, run_id: str, topic: TopicState) -> None:
        """Writes the ids of the cluster and topic that a run sends to, which no renaming changes."""
        place = {
            "run_id": run_id,
            "cluster_id": topic.cluster_id,
            "bootstrap_servers": topic.bootstrap_servers,
            "topic_id": topic.topic_id,
        }
        self._write("place_run", place)

    def finish(self, run_id: str, outcome: Outcome, now: datetime) -> Run:
        """Writes the verdict, the offsets, the files and the watermark of a run in one transaction."""
        error = outcome.error
        row = {
            f.name: getattr(outcome, f.name)
            for f in fields(outcome)
            if f.name not in ("partitions", "files", "error", "moved_to")
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
            if outcome.moved_to is not None:
                self.watermarks.move(run_id, outcome.moved_to, now)
        return self.run(run_id)

    def add_verification(self, found: Verification) -> None:
        """Writes the result of a verification; earlier ones are kept."""
        row = asdict(found) | {"checked_at": iso_utc(found.checked_at)}
        self._write("insert_verification", row | {"listed": json.dumps(row["listed"], ensure_ascii=False)})

    def recognise(self, run_id: str, earlier: str) -> None:
        """Writes that the rows of this run were sent by an earlier run."""
        self._write("recognise", {"run_id": run_id, "earlier": earlier})

    def close_run(self, run_id: str, state: RunState, error: PsttError, now: datetime) -> Run:
        """Writes the verdict of a run whose process ended without one; a run that has a verdict keeps it."""
        self._write("close_run", _closing(run_id, state, error, now))
        return self.run(run_id)

    def ask_to_end(self, run_id: str, asked_by: str, now: datetime) -> bool:
        """Asks the process of a run to stop. Returns False if the run is not running or was asked already."""
        return bool(self._write("ask_to_end", {"run_id": run_id, "asked_by": asked_by, "asked_at": iso_utc(now)}))

    def asked_to_end(self, job: str) -> str | None:
        """Returns who asked the run of this process to stop; None where no one did."""
        row = next(iter(self._rows("asked_to_end", {"pid": os.getpid(), "host": platform.node(), "job": job})), None)
        return row["cancel_asked_by"] if row else None

    def process_of(self, run_id: str) -> tuple[str, int, float]:
        """Returns host, pid and start (Unix time) of the process of a run."""
        (row,) = self._rows("process_of", {"run_id": run_id})
        return row["host"], row["pid"], row["pid_started_at"]

    def is_alive(self, run_id: str) -> bool:
        """Whether the process that runs it is there, on this machine."""
        (row,) = self._rows("process_of", {"run_id": run_id})
        return row["host"] == platform.node() and _is_alive(row)

    def mark_interrupted(self, now: datetime, gone_host: str = "") -> list[Run]:
        """Marks running runs as `interrupted` whose process on this machine has ended. Returns those runs.

        Args:
            now: The clock.
            gone_host: Another machine whose processes have ended, such as a container that was replaced.
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
        """Returns the run whose id begins with `prefix`.

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
        return run_from_row(self, rows[0])

    def known(self, run_id: str) -> Run | None:
        """Returns the run with that complete id; None where this ledger has none."""
        rows = self._rows("run_of_id", {"run_id": run_id})
        return run_from_row(self, rows[0]) if rows else None


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


def _is_alive(row: Mapping[str, Any] | sqlite3.Row) -> bool:
    return is_running(row["pid"], float(row["pid_started_at"]))
