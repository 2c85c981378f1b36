"""The history of runs: which ran, when and with what verdict."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from datetime import date, datetime, timedelta
from typing import Any, ClassVar

from core.clock import iso_utc
from core.model.run import PartitionRange, Run, RunFile, RunPart, Verification
from core.model.window import RunWindow
from core.records.named_sql import load_named_sql
from core.records.rows import from_row
from core.records.store import Store, StorePart

__all__ = ["RunHistory", "run_from_row"]


class RunHistory(StorePart):
    """Reads the runs of one workspace."""

    sql_file: ClassVar[str] = "run_history.sql"

    def newest(self, job: str | None = None, limit: int = 50) -> list[Run]:
        """Returns the newest runs first; of one job (its slug) or of all."""
        return [run_from_row(self._store, row) for row in self._rows("newest", {"job": job, "limit": limit})]

    def changes(self) -> dict[str, int]:
        """Returns slug → a number that grows with each change of the job's runs, scheduled runs and file.

        As long as it is the same, `scheduled_outcomes` changes with time only. A job of which nothing was written since the
        ledger has these numbers has none.
        """
        return {row["job"]: row["changes"] for row in self._rows("changes")}

    def page(
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
        """Returns one page of the runs, newest first, and how many there are in all.

        Args:
            job: Its slug; None: all.
            topic: The topic they sent to; None: any.
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
        (count,) = self._rows("page_count", values)
        rows = self._rows("page", values | {"limit": limit, "offset": offset})
        return [run_from_row(self._store, row) for row in rows], int(count[0])

    def of_job(self, job: str, since: datetime, until: datetime) -> list[Run]:
        """Returns the runs of a job with `since` ≤ scheduled time < `until`, oldest first, without partitions and files."""
        span = {"job": job, "since": iso_utc(since), "until": iso_utc(until)}
        return [run_from_row(self._store, row, with_details=False) for row in self._rows("of_job", span)]

    def last_row_count(self, job: str) -> int | None:
        """Returns the rows that the newest succeeded run of a job has read, no replay; None: none of the last 20 is one."""
        row = next(iter(self._rows("last_row_count", {"job": job})), None)
        return int(row["rows_read"]) if row else None

    def running(self, job: str | None = None) -> list[Run]:
        """Returns the runs of a job (None: of all jobs) that have no verdict yet, newest first, without partitions and files."""
        return [run_from_row(self._store, row, with_details=False) for row in self._rows("running", {"job": job})]

    def running_backfill_times(self, job: str) -> set[datetime]:
        """Returns the scheduled times of a job that runs of backfills are sending."""
        rows = self._rows("running_backfill_times", {"job": job})
        return {datetime.fromisoformat(row["scheduled_at"]) for row in rows}

    def sent_before(self, job: str, scheduled_at: datetime, *, with_ad_hoc: bool = False) -> Run | None:
        """Returns the newest succeeded run of this scheduled time that sent to a topic; None where there is none.

        Args:
            job: The job's file name.
            scheduled_at: Aware.
            with_ad_hoc: Also a run with other parameters than the job's own (`Run.is_ad_hoc`).
        """
        values = {"job": job, "scheduled_at": iso_utc(scheduled_at), "with_ad_hoc": int(with_ad_hoc)}
        rows = self._rows("sent_before", values)
        return run_from_row(self._store, rows[0]) if rows else None

    def family(self, run: Run) -> list[Run]:
        """Returns the other runs of the same job and scheduled time, oldest first."""
        found = self.of_job(run.job, run.scheduled_at, run.scheduled_at + timedelta(microseconds=1))
        return [other for other in found if other.run_id != run.run_id]

    def jobs(self) -> dict[str, str]:
        """Returns slug → newest name of every job that ever ran."""
        return {row["job"]: row["job_name"] for row in self._rows("jobs")}

    def topics(self) -> list[str]:
        """Returns every topic that a run sent to."""
        return [row["topic"] for row in self._rows("topics") if row["topic"]]

    def cluster_ids(self) -> dict[str, str]:
        """Returns addresses of a cluster → the cluster id that the newest run found there."""
        return {row["bootstrap_servers"]: row["cluster_id"] for row in self._rows("cluster_ids")}

    def state(self) -> tuple[int, int, int]:
        """Returns a value that changes whenever a run begins or ends.

        It is the newest run's number, how many runs are open, and how many were interrupted.
        """
        (row,) = self._rows("state")
        return int(row[0]), int(row[1]), int(row[2])

    def first_started(self, job: str) -> datetime | None:
        """Returns when a job ran for the first time, however it was started; None where it never did."""
        row = next(iter(self._rows("first_started", {"job": job})), None)
        return datetime.fromisoformat(row["started_at"]) if row else None

    def last_succeeded(self, job: str) -> datetime | None:
        """Returns the newest scheduled time of a job that has a succeeded run; None where there is none."""
        (row,) = self._rows("last_succeeded", {"job": job})
        return datetime.fromisoformat(row["scheduled_at"]) if row["scheduled_at"] else None

    def row_counts(self, job: str, since: datetime, until: datetime) -> list[tuple[datetime, int]]:
        """Returns how many rows each complete run read, for scheduled times with `since` ≤ t < `until`.

        A run that failed because its row count was not expected counts too.
        """
        span = {"job": job, "since": iso_utc(since), "until": iso_utc(until)}
        return [(datetime.fromisoformat(row[0]), row[1]) for row in self._rows("row_counts", span)]

    def rows(self, after: tuple[int, str] | None = None, again: Iterable[str] = ()) -> Iterator[dict[str, Any]]:
        """Yields runs as plain rows with their `number`, in the order in which they began; times are text.

        Args:
            after: Number and id of a run: only those that began after it. All where this ledger has no such run.
            again: Ids of runs to yield in any case.
        """
        number = after[0] if after and self._is_run(*after) else 0
        for row in self._each("rows", {"after": number, "again": json.dumps(list(again))}):
            yield dict(row)

    def _is_run(self, number: int, run_id: str) -> bool:
        return [row["number"] for row in self._rows("run_number", {"run_id": run_id})] == [number]


_SQL = load_named_sql(RunHistory.sql_file)


def run_from_row(store: Store, row: sqlite3.Row, *, with_details: bool = True) -> Run:
    """Converts a row of the table `run`; with details also its partitions, files and newest verification."""
    if not with_details:
        return from_row(Run, row)
    of_run = {"run_id": row["run_id"]}
    found = store.query(_SQL["newest_verification"], of_run)
    windows = store.query(_SQL["increment"], of_run)
    return from_row(
        Run,
        row,
        partitions=tuple(from_row(PartitionRange, p) for p in store.query(_SQL["partitions"], of_run)),
        parts=tuple(from_row(RunPart, p) for p in store.query(_SQL["parts"], of_run)),
        files=tuple(from_row(RunFile, f) for f in store.query(_SQL["files"], of_run)),
        verification=from_row(Verification, found[0]) if found else None,
        increment=from_row(RunWindow, windows[0]) if windows else None,
    )
