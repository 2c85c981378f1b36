"""The watermarks of incremental jobs: how far each job has sent its rows, and which rows each run has read.

A watermark moves in the transaction that writes the verdict of a run (`core.records.ledger.Ledger.finish`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from core.clock import iso_utc
from core.model.job import CursorKind, Incremental
from core.model.source import Increment
from core.model.window import Cursor, RunWindow, Window
from core.records.rows import from_row
from core.records.store import StorePart

__all__ = ["Watermark", "Watermarks"]


@dataclass(frozen=True, slots=True)
class Watermark:
    """How far an incremental job has sent its rows."""

    job: str
    column_name: str
    kind: CursorKind
    tie_column: str
    """Empty: none."""
    value: str
    tie: str
    version: int
    """From 1; each move and each change by a user makes the next one."""
    run_id: str
    """The run that moved it; empty: a user, or the control topic."""
    changed_by: str
    why: str
    changed_at: datetime
    floor: str
    """Where a user or the job file had it begin, before which no run looks back; empty: at the first row."""
    floor_version: int

    @property
    def cursor(self) -> Cursor:
        """The position: every row up to it was sent or rejected."""
        return Cursor(self.value, self.tie)

    def is_of(self, incremental: Incremental) -> bool:
        """Returns whether it is a position of this cursor."""
        mine = (self.column_name.lower(), self.kind, self.tie_column.lower())
        return mine == (incremental.column.lower(), incremental.kind, (incremental.tie_column or "").lower())


class Watermarks(StorePart):
    """The watermarks of all jobs of one workspace."""

    sql_file: ClassVar[str] = "watermarks.sql"

    def get(self, job: str) -> Watermark | None:
        """Returns the watermark of a job; None: it has none yet."""
        return next((from_row(Watermark, row) for row in self._rows("get", {"job": job})), None)

    def all(self) -> list[Watermark]:
        """Returns the watermarks of all jobs, by job."""
        return [from_row(Watermark, row) for row in self._rows("all")]

    def set(
        self,
        job: str,
        incremental: Incremental,
        at: Cursor,
        *,
        changed_by: str,
        why: str,
        now: datetime,
        version: int | None = None,
    ) -> Watermark:
        """Writes a position that no run has reached by itself; the caller audits it.

        Args:
            job: The job.
            incremental: Its cursor.
            at: The position.
            changed_by: Who wants it.
            why: The reason.
            now: The clock.
            version: The version that it gets; None: the next one.
        """
        with self._store.transaction() as db:
            known = self.get(job)
            row = {
                "job": job,
                "column_name": incremental.column,
                "kind": incremental.kind,
                "tie_column": incremental.tie_column or "",
                "value": at.value,
                "tie": at.tie,
                "version": version or (known.version if known else 0) + 1,
                "changed_by": changed_by,
                "why": why,
                "changed_at": iso_utc(now),
            }
            db.execute(self._sql["set"], row)
            (written,) = self._rows("get", {"job": job})
        return from_row(Watermark, written)

    def put_window(self, run_id: str, job: str, incremental: Incremental, window: Window, found: Increment) -> None:
        """Writes which rows a run reads, before the first one is read."""
        low, high = window.low or Cursor(""), found.high or Cursor("")
        row = {
            "run_id": run_id,
            "job": job,
            "column_name": incremental.column,
            "kind": incremental.kind,
            "tie_column": incremental.tie_column or "",
            "version": window.version,
            "low": low.value,
            "low_tie": low.tie,
            "since": window.since.value if window.since else "",
            "high": high.value,
            "high_tie": high.tie,
            "nulls": found.nulls,
        }
        self._write("put_window", row)

    def window(self, run_id: str) -> RunWindow | None:
        """Returns which rows a run has read; None: all, or it has not asked its database."""
        return next((from_row(RunWindow, row) for row in self._rows("window", {"run_id": run_id})), None)

    def windows_since(self, job: str, version: int) -> Iterator[RunWindow]:
        """Yields what the complete runs of a job have read that started from this version or a later one, newest first."""
        return (from_row(RunWindow, row) for row in self._each("windows_since", {"job": job, "version": version}))

    def attempts_in_parts(self, job: str, version: int) -> list[str]:
        """Returns runs in parts that ended early, at versions from which a later run has moved the watermark.

        What their parts have sent exactly once was taken over by that run, and is recorded under their own ids.
        """
        rows = self._rows("attempts_in_parts", {"job": job, "version": version})
        return [run_id for (run_id,) in rows]

    def move(self, run_id: str, at: Cursor, now: datetime) -> bool:
        """Moves the watermark to the end of a run.

        Returns:
            False: a user has changed it since the run began, so that it stays, or the run has moved it before.
        """
        row = {"run_id": run_id, "value": at.value, "tie": at.tie}
        with self._store.transaction() as db:
            is_moved = db.execute(self._sql["move"], row | {"changed_at": iso_utc(now)}).rowcount == 1
            if is_moved:
                db.execute(self._sql["moved"], row)
        return is_moved
