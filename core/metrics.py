"""The sends as people ask for them: `metrics.duckdb`, fed from the spool, made again from it when lost.

DuckDB lets one process write or many read. So nobody waits for it here: a run has finished when its
segments are on disk; copying them is tried afterwards and left for the next time when a reader
holds the file; and every reader sees the segments that are not copied yet beside those that are.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from zoneinfo import ZoneInfo

import duckdb

from core.errors import LedgerBusy, StorageFailed
from core.ledger import Ledger
from core.named_sql import load_named_sql

if TYPE_CHECKING:
    from core.workspace import Workspace

__all__ = ["Metrics", "Synced"]

READ_WAIT_S = 5.0
"""A copy holds the file for 15 to 30 ms; who waits longer has met a program that keeps it open."""
TOGETHER = 20
"""Segments a transaction: a million sends, in half the time that twenty transactions take."""
MEMORY = "24MB"
"""What DuckDB may hold while it copies. With 200MB the copy, not the run, made the process's
peak; it saved half a second a million sends."""
MOST_MEMORY = "1GB"

_RUN_COLUMNS = (
    "run_id kind job job_name connection cluster topic query scheduled_at timezone attempt of_run asked_by state "
    "started_at finished_at rows_read rows_counted sent acknowledged rejected failed retried bytes duration_s "
    "latency_avg_ms latency_p50_ms latency_p90_ms latency_p99_ms error_class error_text"
).split()


@dataclass(frozen=True, slots=True)
class Synced:
    """What became of an attempt to copy the spool into metrics.duckdb."""

    state: Literal["copied", "held", "rebuilt"]
    segments: int = 0
    sends: int = 0
    """Sends copied this time."""
    note: str = ""


class Metrics:
    """`metrics.duckdb` of one workspace and the segments beside it. Holds nothing open between calls."""

    def __init__(self, workspace: Workspace) -> None:
        self.file = workspace.metrics_file
        self.spool_dir = workspace.spool_dir
        self.ledger_file = workspace.ledger_file
        self._sql = load_named_sql("metrics.sql")

    # ── writing ───────────────────────────────────────────────────────────────────────────────

    def sync(self) -> Synced:
        """Copies what is new in one short exclusive opening. A file that another process reads is left for later.

        A file that DuckDB cannot read is kept under another name and made again.
        """
        try:
            return self._copy()
        except _Held as held:
            return Synced(
                "held",
                note=f"{self.file.name} is open in another program ({held}); the sends are safe in "
                "the spool and are copied next time",
            )
        except _Broken as broken:
            kept = self.file.with_name(f"{self.file.name}.broken-{int(time.time())}")
            self.file.replace(kept)
            copied = self._copy()
            return Synced(
                "rebuilt",
                copied.segments,
                copied.sends,
                note=f"{self.file.name} could not be read ({broken}); it is kept as {kept.name}",
            )

    def rebuild(self) -> Synced:
        """Makes metrics.duckdb again from all segments; the old file is replaced when the new one is whole.

        Raises:
            LedgerBusy: Another program holds the file.
            StorageFailed: The disk is full, or a segment cannot be read.
        """
        aside = self.file.with_name(f"{self.file.name}.rebuild")
        _remove(aside)
        try:
            copied = self._copy(aside)
            self._require_free()
            _remove(self.file)
            os.replace(aside, self.file)
        except (_Held, PermissionError) as held:
            raise self._busy(str(held)) from None
        except (_Broken, OSError) as error:
            raise StorageFailed(f"{self.file.name} cannot be rebuilt", why=str(error)) from None
        finally:
            _remove(aside)
        return Synced("rebuilt", copied.segments, copied.sends)

    def _require_free(self) -> None:
        """On Windows replacing an open file fails by itself; on Linux it would leave a reader on a file without a name."""
        if not self.file.exists():
            return
        try:
            with _opened(self.file, read_only=False):
                pass
        except _Broken:
            pass

    def _copy(self, file: Path | None = None) -> Synced:
        names = self._segment_names()
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with _opened(file or self.file, read_only=False) as db:
            db.execute(self._sql["schema"])
            known = {name for (name,) in db.execute("SELECT name FROM segment").fetchall()}
            new = [name for name in names if name not in known]
            sends = sum(self._copy_segments(db, new[i : i + TOGETHER]) for i in range(0, len(new), TOGETHER))
            self._copy_runs(db)
        return Synced("copied", len(new), sends)

    def _copy_segments(self, db: duckdb.DuckDBPyConnection, names: list[str]) -> int:
        """Segments and the notes that they were copied, in one transaction, so that none counts twice."""
        try:
            return self._copy_in_one(db, names)
        except duckdb.Error:
            # One of them is broken, or holds values so long that they need more memory: alone it is found out.
            db.execute(f"SET memory_limit = '{MOST_MEMORY}'")
            return sum(self._copy_segment(db, name) for name in names)

    def _copy_segment(self, db: duckdb.DuckDBPyConnection, name: str) -> int:
        try:
            return self._copy_in_one(db, [name])
        except duckdb.Error as error:
            raise StorageFailed(
                f"segment {name} of the spool cannot be read",
                why=str(error).splitlines()[0],
                remedy=f"restore {self.spool_dir / name} from a backup, or move it away and lose its sends",
            ) from None

    def _copy_in_one(self, db: duckdb.DuckDBPyConnection, names: list[str]) -> int:
        paths = [str(self.spool_dir / name) for name in names]
        db.execute("BEGIN")
        try:
            (count,) = db.execute(self._sql["copy_segments"], [paths]).fetchone() or (0,)
            for name, path in zip(names, paths, strict=True):
                db.execute(self._sql["remember_segment"], [name, datetime.now(UTC).replace(tzinfo=None), path])
            db.execute("COMMIT")
        except BaseException:
            db.execute("ROLLBACK")
            raise
        return int(count)

    def _copy_runs(self, db: duckdb.DuckDBPyConnection) -> None:
        if not self.ledger_file.exists():
            return
        (last,) = db.execute(self._sql["last_run"]).fetchone() or (None,)
        with Ledger(self.ledger_file) as ledger:
            runs = ledger.runs_since(last.replace(tzinfo=UTC) if last else None)
        if not runs:
            return
        rows = [[_plain(getattr(run, name)) for name in _RUN_COLUMNS] for run in runs]
        marks = ", ".join("?" * len(_RUN_COLUMNS))
        db.execute("BEGIN")
        db.execute("DELETE FROM run WHERE run_id IN (SELECT unnest(?))", [[run.run_id for run in runs]])
        db.executemany(f"INSERT INTO run VALUES ({marks})", rows)  # noqa: S608 - question marks only
        db.execute("COMMIT")

    # ── reading ───────────────────────────────────────────────────────────────────────────────

    @contextmanager
    def reading(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection with the views `sends` and `runs`, copied or not yet copied; keep it briefly.

        Yields:
            An in-memory DuckDB with metrics.duckdb attached read-only.

        Raises:
            LedgerBusy: Another program writes into the file for longer than 5 s.
            StorageFailed: A segment cannot be read.
        """
        names = self._segment_names()
        with duckdb.connect(":memory:", config={"threads": 2}) as db:
            known = self._attach(db)
            pending = [str(self.spool_dir / name) for name in names if name not in known]
            self._make_views(db, attached=bool(known) or _has_store(db), pending=pending)
            try:
                yield db
            except duckdb.Error as error:
                raise StorageFailed(
                    "the sends cannot be read",
                    why=str(error).splitlines()[0],
                    remedy="python -m core metrics rebuild makes metrics.duckdb again from the spool",
                ) from None

    def find(self, key: str) -> list[dict[str, Any]]:
        """Every send of that key, oldest first; times aware UTC."""
        with self.reading() as db:
            return _dicts(db.execute(self._sql["find"], [key]))

    def acknowledged_ids(self, run_ids: list[str]) -> frozenset[bytes]:
        """Message ids that these runs have acknowledged."""
        with self.reading() as db:
            rows = db.execute(self._sql["acknowledged_ids"], [run_ids]).fetchall()
        return frozenset(message_id.encode() for (message_id,) in rows)

    def summary(self, now: datetime, timezone: str) -> dict[str, Any]:
        """Today, the last 7 days and everything; days begin at midnight in `timezone`.

        Returns:
            `total_sent, total_failed, success_rate, latency_ms{avg,p50,p90,p99}, by_topic{topic: messages, bytes,
            last_send}, recent_errors[{error, count, last_seen}], today{…}, last_7_days{…}`.
        """
        zone = ZoneInfo(timezone)
        midnight = now.astimezone(zone).replace(hour=0, minute=0, second=0, microsecond=0)
        week = (midnight.replace(tzinfo=None) - timedelta(days=6)).replace(tzinfo=zone)
        ever, end = datetime(1970, 1, 1, tzinfo=UTC), now + timedelta(days=1)
        with self.reading() as db:
            today, days, everything = (self._totals(db, since, end) for since in (midnight, week, ever))
            topics = _dicts(db.execute(self._sql["topics"], _span(ever, end)))
            errors = _dicts(db.execute(self._sql["errors"], _span(now - timedelta(days=1), end)))
        return {
            "total_sent": everything["messages"],
            "total_failed": everything["errors"],
            "success_rate": everything["success_rate"],
            "bytes": everything["bytes"],
            "latency_ms": everything["latency_ms"],
            "by_topic": {row.pop("topic"): row for row in topics},
            "recent_errors": errors,
            "today": today,
            "last_7_days": days | {"messages_per_day": round(days["messages"] / 7)},
        }

    def _totals(self, db: duckdb.DuckDBPyConnection, since: datetime, end: datetime) -> dict[str, Any]:
        row = _dicts(db.execute(self._sql["totals"], _span(since, end)))[0]
        latency_ms = {
            name: None if row[f"latency_{name}_ms"] is None else round(row[f"latency_{name}_ms"], 1)
            for name in ("avg", "p50", "p90", "p99")
        }
        return {
            "messages": row["sent"],
            "errors": row["failed"],
            "retried": row["retried"],
            "success_rate": row["sent"] / row["total"] if row["total"] else None,
            "bytes": row["bytes"],
            "avg_latency_ms": latency_ms["avg"],
            "latency_ms": latency_ms,
        }

    def _segment_names(self) -> list[str]:
        if not self.spool_dir.is_dir():
            return []
        return sorted(path.name for path in self.spool_dir.glob("*.parquet"))

    def _attach(self, db: duckdb.DuckDBPyConnection) -> set[str]:
        """Attaches metrics.duckdb where it is there and whole; the names of the segments copied into it."""
        if not self.file.exists():
            return set()
        deadline = time.monotonic() + READ_WAIT_S
        while True:
            try:
                with _translated():
                    db.execute(f"ATTACH '{_quoted(self.file)}' AS store (READ_ONLY)")
                    return {name for (name,) in db.execute("SELECT name FROM store.segment").fetchall()}
            except _Held as held:
                if time.monotonic() > deadline:
                    raise self._busy(str(held)) from None
                time.sleep(0.05)
            except _Broken:
                return set()  # everything in it is in the segments too

    def _make_views(self, db: duckdb.DuckDBPyConnection, *, attached: bool, pending: list[str]) -> None:
        db.execute(self._sql["schema"])
        parts = ["SELECT * FROM send"] + (["SELECT * FROM store.send"] if attached else [])
        if pending:
            files = ", ".join(f"'{_quoted(Path(path))}'" for path in pending)
            parts.append(f"SELECT * FROM read_parquet([{files}])")  # noqa: S608 - names of our own, quoted
        try:
            db.execute(f"CREATE VIEW sends AS {' UNION ALL '.join(parts)}")
        except duckdb.Error as error:
            raise StorageFailed(
                "a segment of the spool cannot be read",
                why=str(error).splitlines()[0],
                remedy=f"move that file out of {self.spool_dir}; its sends are lost to the metrics",
            ) from None
        self._load_runs(db)
        db.execute("CREATE VIEW runs AS SELECT * FROM run")

    def _load_runs(self, db: duckdb.DuckDBPyConnection) -> None:
        """The ledger is small (a row a run): it is read whole, so runs are never older than the sends."""
        self._copy_runs(db)

    def _busy(self, why: str) -> LedgerBusy:
        return LedgerBusy(
            f"{self.file.name} is held by another program",
            why=why,
            remedy="close the notebook or tool that has it open; nothing is lost, sends wait in the spool",
        )


class _Held(Exception):
    """Another process has the file open."""


class _Broken(Exception):
    """The file is no DuckDB database, or one that DuckDB cannot read."""


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except duckdb.Error as error:
        text = str(error)
        first = text.splitlines()[0] if text else type(error).__name__
        if (
            "lock" in text.lower()
            or "being used by another process" in text
            or "cannot access the file" in text.lower()
        ):
            raise _Held(first) from None
        raise _Broken(first) from None


@contextmanager
def _opened(file: Path, *, read_only: bool) -> Iterator[duckdb.DuckDBPyConnection]:
    with _translated():
        db = duckdb.connect(str(file), read_only=read_only, config={"memory_limit": MEMORY, "threads": 1})
    try:
        with _translated():
            yield db
    finally:
        db.close()


def _has_store(db: duckdb.DuckDBPyConnection) -> bool:
    return bool(
        db.execute("SELECT 1 FROM duckdb_tables() WHERE database_name = 'store' AND table_name = 'send'").fetchall()
    )


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")


def _plain(value: Any) -> Any:
    """DuckDB's TIMESTAMP columns hold UTC without a zone."""
    return value.astimezone(UTC).replace(tzinfo=None) if isinstance(value, datetime) else value


def _span(since: datetime, end: datetime) -> list[Any]:
    return [_plain(since), _plain(end)]


def _dicts(result: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    names = [column[0] for column in result.description or []]
    return [
        {n: v.replace(tzinfo=UTC) if isinstance(v, datetime) else v for n, v in zip(names, row, strict=True)}
        for row in result.fetchall()
    ]


def _remove(file: Path) -> None:
    for path in (file, file.with_name(f"{file.name}.wal")):
        path.unlink(missing_ok=True)
