"""The sends as people ask for them: `metrics.duckdb`, fed from the spool, made again from it when lost.

DuckDB lets one process write or many read. So nobody waits for it here: a run has finished when its
segments are on disk; copying them is tried afterwards and left for the next time when a reader
holds the file; and every reader sees the segments that are not copied yet beside those that are.

What charts ask for is counted once, when a segment is copied, into the table `traffic`: quarter-hours by run, topic
and latency. A segment not copied yet is counted by the same statement when somebody asks, so numbers never depend on it.
The questions themselves are in `core.figures`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import duckdb

from core.errors import LedgerBusy, StorageFailed
from core.figures import Figures, Scope, keep_zone, metrics_sql
from core.ledger import Ledger

if TYPE_CHECKING:
    from core.workspace import Workspace

__all__ = ["Metrics", "Synced"]

READ_WAIT_S = 5.0
"""A copy holds the file for 15 to 30 ms; who waits longer has met a program that keeps it open."""
TOGETHER = 20
"""Segments a transaction: a million sends, in half the time that twenty transactions take."""
MEMORY = "16MB"
"""What DuckDB may hold while it copies, as the copy and not the run makes the process's peak. 200MB would save half a
second a million sends, 24MB a tenth."""
MOST_MEMORY = "1GB"

FORMAT = 4
"""Of metrics.duckdb; one of another format is made again from the spool."""
FILE_VIEWS = ("sends_copied", "runs", "rejects", "daily", "hourly_latency", "latency", "errors")
"""What whoever opens metrics.duckdb itself may ask of: what is copied."""
ROWS_AT_ONCE = 2_000
"""Runs or rejects that are copied by one statement; more would need more memory than a segment."""
SETTLED_S = 2.0
"""A folder that has not changed for so long can be trusted to show each change by its time (ext4: 4 ms, FAT: 2 s)."""


@dataclass(frozen=True, slots=True)
class Synced:
    """What became of an attempt to copy the spool into metrics.duckdb."""

    state: Literal["copied", "held", "rebuilt"]
    segments: int = 0
    sends: int = 0
    """Sends copied this time."""
    note: str = ""


class Metrics:
    """`metrics.duckdb` of one workspace and the segments beside it. Holds nothing open between calls.

    Args:
        workspace: Whose.
        timezone: Where the days and hours of the views in the file begin.
    """

    def __init__(self, workspace: Workspace, timezone: str = "UTC") -> None:
        self.timezone = timezone
        self.file = workspace.metrics_file
        self.spool_dir = workspace.spool_dir
        self.ledger_file = workspace.ledger_file
        self._sql = metrics_sql()
        self.waiting: Sequence[Path] = ()
        """The segments that the last reading found not copied yet."""
        self._listing: tuple[int, tuple[str, ...]] | None = None
        """The spool's folder by its time of change: a year has 40,000 segments."""
        self._copied: tuple[tuple[int, ...], set[str]] | None = None
        """The segments in metrics.duckdb, by that file's state."""

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
            db.execute(self._sql["macros"])
            _require_format(db)
            db.execute(self._sql["tables"])
            self._keep_views(db)
            known = _names_copied(db, "segment")
            new = [name for name in names if name not in known]
            sends = sum(self._copy_segments(db, new[i : i + TOGETHER]) for i in range(0, len(new), TOGETHER))
            self._copy_runs(db)
        return Synced("copied", len(new), sends)

    def _keep_views(self, db: duckdb.DuckDBPyConnection) -> None:
        """The documented views, in the file itself, with the macros that they need."""
        keep_zone(db, self.timezone)
        db.execute(self._sql["macros"].replace("CREATE OR REPLACE TEMP MACRO", "CREATE MACRO IF NOT EXISTS"))
        for view in FILE_VIEWS:
            db.execute(self._sql[f"view_{view}"].replace("CREATE VIEW", "CREATE VIEW IF NOT EXISTS"))

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
        paths = [self.spool_dir / name for name in names]
        db.execute("BEGIN")
        try:
            (count,) = db.execute(self._over("copy_sends", paths)).fetchone() or (0,)
            db.execute(self._over("copy_traffic", paths))
            moment = datetime.now(UTC).replace(tzinfo=None)
            for name, path in zip(names, paths, strict=True):
                db.execute(self._sql["remember_segment"], [name, moment, str(path)])
            db.execute("COMMIT")
        except BaseException:
            db.execute("ROLLBACK")
            raise
        return int(count)

    def _over(self, statement: str, paths: Sequence[Path]) -> str:
        """A statement over these segments."""
        return self._sql[statement].replace("{paths}", "[" + ", ".join(f"'{_quoted(path)}'" for path in paths) + "]")

    def _copy_runs(self, db: duckdb.DuckDBPyConnection, known: str = "run") -> None:
        """Copies runs that `known` does not have, or has as still open, and the rejects of those that ended."""
        if not self.ledger_file.exists():
            return
        of_known = {name: self._sql[name].replace("FROM run", f"FROM {known}") for name in ("newest_run", "open_runs")}
        newest = db.execute(of_known["newest_run"]).fetchone()
        still_open = [run_id for (run_id,) in db.execute(of_known["open_runs"]).fetchall()]
        ended: list[str] = []
        with Ledger(self.ledger_file) as ledger:
            db.execute("BEGIN")
            for rows in _chunks(ledger.run_rows(newest, still_open)):
                ids = [row["run_id"] for row in rows]
                db.execute(self._sql["forget_runs"], [ids])
                db.execute(self._sql["forget_rejects"], [ids])
                _insert(db, "run", rows)
                ended += [row["run_id"] for row in rows if row["rejected"] and row["finished_at"]]
            for rows in _chunks(ledger.reject_rows(ended)):
                _insert(db, "reject", rows)
            db.execute("COMMIT")

    # ── reading ───────────────────────────────────────────────────────────────────────────────

    @contextmanager
    def reading(self, *, counted: bool = True) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection with the views `sends`, `runs`, `rejects` and `traffic`, copied or not yet; keep it briefly.

        Args:
            counted: Whether `traffic` is needed: segments not copied yet are then counted first, 20 ms each.

        Yields:
            An in-memory DuckDB with metrics.duckdb attached read-only.

        Raises:
            LedgerBusy: Another program writes into the file for longer than 5 s.
            StorageFailed: A segment cannot be read.
        """
        names = self._segment_names()
        with duckdb.connect(":memory:", config={"threads": 2}) as db:
            db.execute(self._sql["macros"])
            known = self._attach(db)
            self.waiting = [self.spool_dir / name for name in names if known is None or name not in known]
            with self._reading_segments():
                self._make_views(db, attached=known is not None, waiting=self.waiting, counted=counted)
            try:
                yield db
            except duckdb.Error as error:
                raise StorageFailed(
                    "the sends cannot be read",
                    why=str(error).splitlines()[0],
                    remedy="python -m core metrics rebuild makes metrics.duckdb again from the spool",
                ) from None

    @contextmanager
    def figures(self, timezone: str) -> Iterator[Figures]:
        """Several questions in one opening; days and hours are those of `timezone`.

        Raises:
            LedgerBusy: Another program writes into the file for longer than 5 s.
            StorageFailed: A segment cannot be read.
        """
        with self.reading() as db:
            yield Figures(db, timezone)

    def state(self) -> tuple[int, ...]:
        """Another one whenever there are sends that were not there before, or copied ones."""
        spool = (self.spool_dir.stat().st_mtime_ns,) if self.spool_dir.exists() else ()
        return (*self._file_state(), *spool)

    def find(self, key: str) -> list[dict[str, Any]]:
        """Every send of that key, oldest first; times aware UTC."""
        with self.reading(counted=False) as db:
            return Figures(db, "UTC").find(key)

    def find_beginning(self, start: str, limit: int = 200) -> list[dict[str, Any]]:
        """The first `limit` sends whose key begins so, by key and time; times aware UTC."""
        with self.reading(counted=False) as db:
            return Figures(db, "UTC").find_beginning(start, limit)

    def acknowledged_ids(self, run_ids: list[str]) -> frozenset[bytes]:
        """Message ids that these runs have acknowledged."""
        with self.reading(counted=False) as db:
            rows = db.execute(self._sql["acknowledged_ids"], [run_ids]).fetchall()
        return frozenset(message_id.encode() for (message_id,) in rows)

    def summary(self, now: datetime, timezone: str, scope: Scope | None = None) -> dict[str, Any]:
        """Today, the last 7 days and everything: see `Figures.summary`."""
        with self.figures(timezone) as figures:
            return figures.summary(now, scope)

    def _segment_names(self) -> Sequence[str]:
        try:
            changed_ns = self.spool_dir.stat().st_mtime_ns
        except FileNotFoundError:
            return ()
        if self._listing is not None and self._listing[0] == changed_ns:
            return self._listing[1]
        names = tuple(sorted(name for name in os.listdir(self.spool_dir) if name.endswith(".parquet")))
        is_settled = time.time() - changed_ns / 1e9 > SETTLED_S
        self._listing = (changed_ns, names) if is_settled else None
        return names

    def _attach(self, db: duckdb.DuckDBPyConnection) -> set[str] | None:
        """Attaches metrics.duckdb; the names of the segments copied into it, None where it is not there or not whole."""
        if not self.file.exists():
            return None
        deadline = time.monotonic() + READ_WAIT_S
        while True:
            try:
                with _translated():
                    db.execute(f"ATTACH '{_quoted(self.file)}' AS store (READ_ONLY)")
                    _require_format(db, "store")
                    return self._names_in_store(db)
            except _Held as held:
                if time.monotonic() > deadline:
                    raise self._busy(str(held)) from None
                time.sleep(0.05)
            except _Broken:
                return None  # everything in it is in the segments too

    def _names_in_store(self, db: duckdb.DuckDBPyConnection) -> set[str]:
        """Nobody can write while it is attached, so the file's state tells whether these are the names of last time."""
        state = self._file_state()
        if self._copied is None or self._copied[0] != state:
            self._copied = state, _names_copied(db, "store.segment")
        return self._copied[1]

    def _file_state(self) -> tuple[int, ...]:
        state: tuple[int, ...] = ()
        for path in (self.file, self.file.with_name(f"{self.file.name}.wal")):
            with suppress(FileNotFoundError):
                told = path.stat()
                state += (told.st_ino, told.st_size, told.st_mtime_ns)
        return state

    @contextmanager
    def _reading_segments(self) -> Iterator[None]:
        try:
            yield
        except duckdb.Error as error:
            raise StorageFailed(
                "a segment of the spool cannot be read",
                why=str(error).splitlines()[0],
                remedy=f"move that file out of {self.spool_dir}; its sends are lost to the metrics",
            ) from None

    def _make_views(
        self, db: duckdb.DuckDBPyConnection, *, attached: bool, waiting: Sequence[Path], counted: bool
    ) -> None:
        """What is in `store` and what is not in it yet (`fresh`), as one."""
        db.execute("ATTACH ':memory:' AS fresh")
        db.execute("USE fresh")
        db.execute(self._sql["tables"])
        if counted and waiting:
            db.execute(self._over("copy_traffic", waiting))
        self._copy_runs(db, "store.run" if attached else "run")
        db.execute("USE memory")
        place = "store" if attached else "fresh"
        db.execute(f"CREATE VIEW send AS SELECT rowid AS number, * FROM {place}.send")  # noqa: S608 - names of our own
        for table, is_newer in (("traffic", ""), ("run", "ANTI JOIN fresh.run USING (run_id)"),
                                ("reject", "ANTI JOIN fresh.run USING (run_id)")):  # fmt: skip
            parts = [f"SELECT * FROM fresh.{table}"]  # noqa: S608 - names of our own
            if attached:
                parts.append(f"SELECT * FROM store.{table} {is_newer}")  # noqa: S608 - as above
            db.execute(f"CREATE VIEW {table} AS {' UNION ALL '.join(parts)}")
        segments = self._over("segments_read", waiting) if waiting else "fresh.send"
        db.execute(f"CREATE VIEW waiting AS SELECT {self._sql['send_columns']} FROM {segments}")  # noqa: S608 - as above
        for view in ("view_sends", "view_runs", "view_rejects"):
            db.execute(self._sql[view])

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


def _require_format(db: duckdb.DuckDBPyConnection, place: str = "main") -> None:
    """A file of another version is treated as one that cannot be read: all that is in it is in the spool."""
    try:
        is_ours = db.execute(metrics_sql()["is_our_format"].format(place=place, version=FORMAT)).fetchall() == [(True,)]
    except duckdb.CatalogException:
        is_ours = place == "main" and not db.execute("SELECT 1 FROM duckdb_tables()").fetchall()  # a new file
    if not is_ours:
        raise _Broken("it was made by another version")


def _names_copied(db: duckdb.DuckDBPyConnection, table: str) -> set[str]:
    return {name for (name,) in db.execute(f"SELECT name FROM {table}").fetchall()}  # noqa: S608 - names of our own


def _chunks(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    while chunk := list(islice(rows, ROWS_AT_ONCE)):
        yield chunk


def _insert(db: duckdb.DuckDBPyConnection, table: str, rows: Sequence[dict[str, Any]]) -> None:
    """One statement for all rows: a list a column, which is 50 times faster than a statement a row."""
    names = list(rows[0])
    lists = ", ".join("unnest(?::VARCHAR[])" for _ in names)
    values = [[None if row[name] is None else str(row[name]) for row in rows] for name in names]
    db.execute(f"INSERT INTO {table} ({', '.join(names)}) SELECT {lists}", values)


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")


def _remove(file: Path) -> None:
    for path in (file, file.with_name(f"{file.name}.wal")):
        path.unlink(missing_ok=True)
