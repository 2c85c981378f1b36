"""`metrics.duckdb`: a copy of the spool for queries, which is rebuilt from the spool when it is lost.

DuckDB lets one process write or many read, so no run waits for it. A run has finished when its segments are on disk.
They are copied afterwards: by the runner, or at the end of a run by hand where no runner works. Every reader sees copied
segments and those not copied yet.

When a segment is copied, its sends are counted into the table `traffic`: quarter-hours by run, topic and latency. A
segment not copied yet is counted by the same statement when it is queried, so a result never depends on the copying.
The queries are in `core.records.metrics_queries`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import duckdb
from loguru import logger

from core.errors import LedgerBusy, PsttError, StorageFailed
from core.records.damaged_segments import are_ours, damage_of, quoted, set_aside
from core.records.ledger import Ledger
from core.records.merged_segments import run_of
from core.records.merged_store import MergedSegments
from core.records.metrics_file import (
    FileHeld,
    FileUnreadable,
    NeedsMemory,
    copying,
    is_copied_into,
    log_of,
    may_be_damage,
    may_be_read,
    names_copied,
    opened,
    remove,
    require_format,
    state_of,
    translated,
)
from core.records.metrics_queries import MetricsQueries, SendFilter, keep_zone, metrics_sql
from core.records.rolled_up import RolledUp
from core.records.segment_copies import TOGETHER, copy_together, first_of, over, portions

if TYPE_CHECKING:
    from core.workspace.paths import Workspace

__all__ = ["Metrics", "SyncResult"]

T = TypeVar("T")

READ_WAIT_S = 5.0
"""A reader's wait while another program keeps the file open."""
COPY_WAIT_S = 60.0
"""Its wait while the file is held by a copy, at most 1 s of a processor at a time: on a busy machine that is longer."""
MOST_WAITING = 100
"""A reader that finds more segments than these copies `TOGETHER` of them first: each costs every count 1 to 20 ms."""
MOST_MEMORY = "1GB"

FILE_VIEWS = ("sends_copied", "runs", "rejects", "daily", "hourly_latency", "latency", "errors")
"""The views in metrics.duckdb itself, for programs that open the file; they show what is copied."""
ROWS_AT_ONCE = 2_000
"""Runs or rejects copied by one statement, and segments looked at by one; more would need more memory than a segment."""
SETTLED_S = 2.0
"""Resolution of file times (ext4: 4 ms, FAT: 2 s). A folder unchanged for longer shows each later change by its time."""


@dataclass(frozen=True, slots=True)
class SyncResult:
    """The result of copying the spool into metrics.duckdb."""

    state: Literal["copied", "held", "rebuilt"]
    segments: int = 0
    sends: int = 0
    """Sends copied this time."""
    left: int = 0
    """Segments that still wait, where only some were to be copied."""
    note: str = ""
    set_aside: tuple[str, ...] = ()
    """Segments that could not be read."""


class Metrics:
    """`metrics.duckdb` of one workspace and its segments. Keeps no file open between calls.

    Larger than other classes: writing, reading and remaking the file share its lock and what is waiting in the spool.

    Args:
        workspace: The workspace.
        timezone: IANA time zone of the days and hours in the views of the file.
    """

    def __init__(self, workspace: Workspace, timezone: str = "UTC") -> None:
        self.timezone = timezone
        self.file = workspace.metrics_file
        self.spool_dir = workspace.spool_dir
        self.ledger_file = workspace.ledger_file
        self.rolled_up = RolledUp(workspace.spool_dir)
        self.merged = MergedSegments(workspace.spool_dir)
        self.lock_file = workspace.state_dir / "locks" / "metrics.lock"
        self._sql = metrics_sql()
        self.waiting: Sequence[Path] = ()
        """The segments that were not copied yet at the last reading."""
        self._listing: tuple[int, tuple[str, ...]] | None = None
        """The spool's file names, by the folder's time of change: a year has 40,000 segments."""
        self._copied: tuple[tuple[int, ...], set[str]] | None = None
        """The segments in metrics.duckdb, by that file's state."""
        self._checked: dict[str, tuple[int, ...]] = {}
        """Segments that were read completely once, by their state."""
        self._left_out: set[str] = set()
        """Segments that could not be read; each is logged once."""
        self._damaged_state: tuple[int, ...] | None = None
        """State of a metrics.duckdb that is damaged and could not be renamed."""

    def sync(self, most: int | None = None) -> SyncResult:
        """Copies new segments and runs in one short exclusive opening; skips it while another process reads the file.

        A file that DuckDB cannot read is renamed and rebuilt; a segment that cannot be read is moved to `damaged/`.

        Args:
            most: Whole segments to copy in this opening, or as many sends in shorter ones; None: all.

        Raises:
            StorageFailed: The disk is full, or a file may not be read or written.
        """
        try:
            return self._copy(most=most)
        except FileHeld as held:
            return SyncResult(
                "held",
                note=f"{self.file.name} is open in another program ({held}); the sends are safe in "
                "the spool and are copied next time",
            )
        except FileUnreadable as broken:
            why = self._damage()
            if not why:
                raise self._not_updated(str(broken)) from None
        try:
            kept = self._rename_damaged()
            copied = self._copy(most=most)
        except (FileHeld, FileUnreadable, OSError) as error:
            raise self._not_updated(str(error)) from None
        note = f"{self.file.name} could not be read ({why}); it is kept as {kept.name}"
        return replace(copied, state="rebuilt", note=note)

    def rebuild(self) -> SyncResult:
        """Rebuilds metrics.duckdb from all segments; the old file is replaced when the new one is complete.

        Raises:
            LedgerBusy: Another program holds the file.
            StorageFailed: The disk is full, or a file may not be read or written.
        """
        aside = self.file.with_name(f"{self.file.name}.rebuild")
        remove(aside)
        try:
            self._restore_rolled_up()
            copied = self._copy(aside)
            self.require_free()
            if copied.set_aside and self.file.exists():  # the old file has the only copy of their sends
                self._rename_damaged()
            remove(self.file)
            os.replace(aside, self.file)
        except (FileHeld, PermissionError) as held:
            raise self._busy(str(held)) from None
        except (FileUnreadable, OSError) as error:
            remedy = "make room on the disk of the workspace, or give this account the right to write there"
            raise StorageFailed(f"{self.file.name} cannot be rebuilt", why=str(error), remedy=remedy) from None
        finally:
            remove(aside)
        return replace(copied, state="rebuilt")

    def _restore_rolled_up(self) -> None:
        """Writes the counts of old days again if their file was deleted and the database has them."""
        if self.rolled_up.exists or not self.file.exists():
            return
        with suppress(FileUnreadable, duckdb.Error), opened(self.file) as db:
            if self.rolled_up.restore(db):
                logger.warning("{} was missing: it is made again from {}", self.rolled_up.file.name, self.file.name)

    def require_free(self) -> None:
        """Raises `FileHeld` while a program has the file open.

        Windows refuses to replace an open file; on Linux a reader would keep the deleted one.
        """
        if not self.file.exists():
            return
        try:
            with opened(self.file):
                pass
        except FileUnreadable:
            pass

    def _copy(self, aside: Path | None = None, most: int | None = None) -> SyncResult:
        """Copies into the file with little memory, and with much if that is not enough; into one aside with much."""
        if aside is None:
            with suppress(NeedsMemory):
                return self._copy_into(self.file, most, is_hurried=False)
        return self._copy_into(aside or self.file, most, is_hurried=True)

    def _copy_into(self, file: Path, most: int | None, *, is_hurried: bool) -> SyncResult:
        names = self.segment_names()
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with copying(self.lock_file), opened(file, is_hurried=is_hurried) as db:
            self.prepare(db)
            waiting = self._not_in(names, names_copied(db, "segment"), db)
            # A damaged segment that cannot be moved comes last, so that it keeps no other from its turn.
            missing = sorted(waiting, key=lambda name: name in self._left_out)
            if most is not None:
                missing = missing[: first_of((self.spool_dir / name for name in missing), most)]
            new = self._sound(missing, whole=False)
            sends = sum(
                self._copy_segments(db, [segment.name for segment in portion])
                for portion in portions([self.spool_dir / name for name in new])
            )
            self._copy_runs(db)
        left_out = tuple(name for name in missing if name in self._left_out)
        left = len(waiting) - len(missing)
        return SyncResult("copied", len(missing) - len(left_out), sends, set_aside=left_out, left=left)

    def prepare(self, db: duckdb.DuckDBPyConnection, *, is_new: bool = False) -> None:
        """Creates tables and views that are missing in the open file, and applies what is rolled up and merged.

        Args:
            db: The open file.
            is_new: It gets a copy of another file; nothing is applied.

        Raises:
            FileUnreadable: The file has another format, or what is rolled up cannot be read.
        """
        db.execute(self._sql["macros"])
        require_format(db)
        db.execute(self._sql["tables"])
        self._keep_views(db)
        if not is_new:
            self.rolled_up.apply(db)
            self.merged.adopt(db, self.segment_names())

    def waiting_runs(self, db: duckdb.DuckDBPyConnection) -> list[str]:
        """Returns the runs of which a segment is not copied into the open file yet."""
        waiting = self._not_in(self.segment_names(), names_copied(db, "segment"), db)
        return sorted({run_of(name) for name in waiting})

    def _not_in(
        self, names: Sequence[str], known: set[str] | None, db: duckdb.DuckDBPyConnection, place: str = "main"
    ) -> list[str]:
        """Returns the segments that are neither copied nor rolled up, nor merged into one that is or waits."""
        # Mostly all are copied: 38,000 names of a year are looked up in 3 ms instead of 15.
        is_all_known = known is not None and known.issuperset(names)
        waiting = [] if is_all_known else [name for name in names if known is None or name not in known]
        rolled_up = self.rolled_up.replaced_segments() if waiting else frozenset()
        return self.merged.waiting([name for name in waiting if name not in rolled_up], known, db, place)

    def _keep_views(self, db: duckdb.DuckDBPyConnection) -> None:
        """Creates the documented views in the file itself, with the macros that they need."""
        keep_zone(db, self.timezone)
        db.execute(self._sql["macros"].replace("CREATE OR REPLACE TEMP MACRO", "CREATE MACRO IF NOT EXISTS"))
        for view in FILE_VIEWS:
            db.execute(self._sql[f"view_{view}"].replace("CREATE VIEW", "CREATE VIEW IF NOT EXISTS"))

    def _copy_segments(self, db: duckdb.DuckDBPyConnection, names: Sequence[str]) -> int:
        """Copies segments and writes their names in one transaction, so that none counts twice. Returns the sends."""
        try:
            return self._copy_in_one(db, names)
        except duckdb.Error:
            # One of them is damaged, or has such long values that they need more memory: copied one by one it is found.
            db.execute(f"SET memory_limit = '{MOST_MEMORY}'")
            return sum(self._copy_in_one(db, [name]) for name in self._sound(names, whole=True))

    def _sound(self, names: Sequence[str], *, whole: bool) -> list[str]:
        """Returns the segments that can be read; moves the others to `damaged/` and logs them."""
        found: list[str] = []
        if not names:  # as at nearly every reading: an opening of DuckDB costs as much as a small query
            return found
        with duckdb.connect(":memory:", config={"threads": 1}) as db:
            unknown = () if whole else _chunks(iter(names))
            sound = {
                name for some in unknown if are_ours(db, [self.spool_dir / name for name in some]) for name in some
            }
            for name in names:
                if name in sound:
                    found.append(name)
                    continue
                state = state_of(self.spool_dir / name)
                if state and self._checked.get(name) == state:
                    found.append(name)
                    continue
                if why := damage_of(db, self.spool_dir / name, whole=whole):
                    self._set_aside(name, why)
                elif state:  # else it was removed meanwhile
                    found.append(name)
                    self._checked |= {name: state} if whole else {}
        return found

    def _set_aside(self, name: str, why: str) -> None:
        where = "set aside in damaged/" if set_aside(self.spool_dir / name) else "left out"
        self._listing = None
        if name in self._left_out:
            return
        self._left_out.add(name)
        logger.warning("segment {} of the spool cannot be read ({}): it is {}, its sends are missing", name, why, where)

    def _damage(self) -> str:
        """Returns why metrics.duckdb is damaged; empty where it is not, or is held. Reads all of it (1 GB/s)."""
        try:
            with duckdb.connect(":memory:", config={"threads": 2}) as db, translated():
                db.execute(self._sql["macros"])
                db.execute(f"ATTACH '{quoted(self.file)}' AS store (READ_ONLY)")
                require_format(db, "store")
                for (table,) in db.execute(
                    "SELECT table_name FROM duckdb_tables() WHERE database_name = 'store'"
                ).fetchall():
                    db.execute(f"SELECT bit_xor(hash(COLUMNS(*))) FROM store.{table}").fetchall()  # noqa: S608 - our tables
        except FileHeld:
            return ""
        except FileUnreadable as broken:
            return str(broken) if may_be_read(self.file) else ""
        return ""

    def _rename_damaged(self) -> Path:
        """Renames metrics.duckdb and its log, which DuckDB would replay into the next file. Returns the new path."""
        kept = self.file.with_name(f"{self.file.name}.broken-{int(time.time())}")
        self.file.replace(kept)
        with suppress(FileNotFoundError):
            log_of(self.file).replace(log_of(kept))
        return kept

    def _not_updated(self, why: str) -> StorageFailed:
        return StorageFailed(
            f"{self.file.name} cannot be brought up to date",
            why=why,
            remedy="make room on the disk, or give this account the right to read and write it; nothing is lost, sends wait "
            "in the spool",
        )

    def _copy_in_one(self, db: duckdb.DuckDBPyConnection, names: Sequence[str]) -> int:
        return copy_together(db, [self.spool_dir / name for name in names], self.merged)

    def _copy_runs(self, db: duckdb.DuckDBPyConnection, known: str = "run") -> None:
        """Copies runs that table `known` does not have or has as open, and the rejects of those that have ended."""
        if not self.ledger_file.exists():
            return
        of_known = {name: self._sql[name].replace("FROM run", f"FROM {known}") for name in ("newest_run", "open_runs")}
        newest = db.execute(of_known["newest_run"]).fetchone()
        still_open = [run_id for (run_id,) in db.execute(of_known["open_runs"]).fetchall()]
        with Ledger(self.ledger_file) as ledger:
            # One transaction for each portion: those of a year need more memory than a copy may take.
            for rows in _chunks(ledger.history.rows(newest, still_open)):
                ids = [row["run_id"] for row in rows]
                ended = [row["run_id"] for row in rows if row["rejected"] and row["finished_at"]]
                db.execute("BEGIN")
                db.execute(self._sql["forget_runs"], [ids])
                db.execute(self._sql["forget_rejects"], [ids])
                _insert(db, "run", rows)
                for rejects in _chunks(ledger.rejects.rows(ended)):
                    _insert(db, "reject", rejects)
                db.execute("COMMIT")

    @contextmanager
    def reading(self, *, counted: bool = True) -> Iterator[duckdb.DuckDBPyConnection]:
        """Opens the views `sends`, `runs`, `rejects` and `traffic` over copied and new segments; close it soon.

        Args:
            counted: Whether `traffic` is needed; segments not copied yet are then counted first, 20 ms each.

        Yields:
            An in-memory DuckDB with metrics.duckdb attached read-only.

        Raises:
            LedgerBusy: Another program writes into the file for longer than 5 s.
            StorageFailed: A file may not be read, or memory is short.
        """
        try:
            with self._reading(counted=counted) as db:
                yield db
        except duckdb.Error as error:
            raise _unreadable(error) from None

    @contextmanager
    def _reading(self, *, counted: bool) -> Iterator[duckdb.DuckDBPyConnection]:
        names = self.segment_names()
        with duckdb.connect(":memory:", config={"threads": 2}) as db:
            db.execute(self._sql["macros"])
            known = self._attach(db)
            missing = self._not_in(names, known, db, "store")
            if known is not None and (len(missing) > MOST_WAITING or self.merged.is_behind(missing, known)):
                db.execute("DETACH store")
                with suppress(PsttError, OSError):  # then they are read where they are
                    self.sync(TOGETHER)
                known = self._attach(db)
                missing = self._not_in(names, known, db, "store")
                if known is not None and self.merged.is_behind(missing, known):
                    db.execute("DETACH store")  # all of it is in the segments too
                    known, missing = None, self._not_in(names, None, db)
            self.waiting = [self.spool_dir / name for name in self._sound(missing, whole=True)]
            self._make_views(db, attached=known is not None, waiting=self.waiting, counted=counted)
            yield db

    def answer(self, question: Callable[[duckdb.DuckDBPyConnection], T], *, counted: bool = True) -> T:
        """Calls `question` with an opening, and once more where metrics.duckdb turns out to be damaged.

        Raises:
            LedgerBusy: Another program writes into the file for longer than 5 s.
            StorageFailed: A file may not be read, or memory is short.
        """
        try:
            with self._reading(counted=counted) as db:
                return question(db)
        except duckdb.Error as error:
            if not self._repair(error):
                raise _unreadable(error) from None
        with self.reading(counted=counted) as db:
            return question(db)

    @contextmanager
    def figures(self, timezone: str, *, counted: bool = True) -> Iterator[MetricsQueries]:
        """Opens the metrics for several queries; days and hours are those of `timezone`.

        Raises:
            LedgerBusy: Another program writes into the file for longer than 5 s.
            StorageFailed: A file may not be read, or memory is short.
        """
        with ExitStack() as opening:

            def again(error: duckdb.Error) -> duckdb.DuckDBPyConnection:
                opening.close()
                if not self._repair(error):
                    raise error
                return opening.enter_context(self._reading(counted=counted))

            try:
                db = opening.enter_context(self._reading(counted=counted))
            except duckdb.Error as error:
                db = again(error)
            try:
                yield MetricsQueries(db, timezone, again)
            except duckdb.Error as error:
                raise _unreadable(error) from None

    def _repair(self, error: duckdb.Error) -> bool:
        """Renames metrics.duckdb if it is damaged, and rebuilds it. Returns whether it was; the query can then be repeated."""
        if not may_be_damage(error) or not self.file.exists() or not (why := self._damage()):
            return False

        try:
            kept = self._rename_damaged()
        except OSError:  # another program has it open, or the disk cannot be written
            self._damaged_state = self._file_state()
            return True
        logger.warning("{} was damaged ({}): it is kept as {} and made again", self.file.name, why, kept.name)
        with suppress(PsttError, OSError):  # the next run copies again
            self.sync()
        return True

    def state(self) -> tuple[int, ...]:
        """Returns a value that changes whenever sends are added or copied."""
        spool = (self.spool_dir.stat().st_mtime_ns,) if self.spool_dir.exists() else ()
        return (*self._file_state(), *spool)

    def find(self, key: str) -> list[dict[str, Any]]:
        """Returns every send of that key, oldest first; times aware UTC."""
        with self.figures("UTC", counted=False) as figures:
            return figures.find(key)

    def find_beginning(self, start: str, limit: int = 200) -> list[dict[str, Any]]:
        """Returns the newest `limit` sends whose key begins with `start`, by key and time; times aware UTC."""
        with self.figures("UTC", counted=False) as figures:
            return figures.find_beginning(start, limit)

    def acknowledged_ids(self, run_ids: list[str]) -> frozenset[bytes]:
        """Returns the message ids that these runs have acknowledged."""
        sql = self._sql["acknowledged_ids"]
        rows = self.answer(lambda db: db.execute(sql, [run_ids]).fetchall(), counted=False)
        return frozenset(message_id.encode() for (message_id,) in rows)

    def summary(self, now: datetime, timezone: str, scope: SendFilter | None = None) -> dict[str, Any]:
        """Returns today, the last 7 days and everything: see `MetricsQueries.summary`."""
        with self.figures(timezone) as figures:
            return figures.summary(now, scope)

    def segment_names(self) -> Sequence[str]:
        """Returns the names of the files in the spool, in order."""
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
        """Attaches metrics.duckdb. Returns the names of the copied segments; None where the file is missing or damaged."""
        if not self.file.exists() or self._file_state() == self._damaged_state:
            return None
        since_s, was_copied_into = time.monotonic(), True
        while True:
            try:
                with translated():
                    db.execute(f"ATTACH '{quoted(self.file)}' AS store (READ_ONLY)")
                    require_format(db, "store")
                    return self._names_in_store(db)
            except FileHeld as held:
                waited_s = time.monotonic() - since_s
                if waited_s > READ_WAIT_S and (waited_s > COPY_WAIT_S or not was_copied_into):
                    raise self._busy(str(held)) from None
                was_copied_into = is_copied_into(self.lock_file)  # a copy that ends now lets the next attempt succeed
                time.sleep(0.05)
            except FileUnreadable:
                return None  # all of it is in the segments too

    def _names_in_store(self, db: duckdb.DuckDBPyConnection) -> set[str]:
        """Returns the copied segments, cached by the file's state: no process can write while it is attached."""
        state = self._file_state()
        if self._copied is None or self._copied[0] != state:
            self._copied = state, names_copied(db, "store.segment")
        return self._copied[1]

    def _file_state(self) -> tuple[int, ...]:
        state: tuple[int, ...] = ()
        for path in (self.file, log_of(self.file)):
            state += state_of(path)
        return state

    def _make_views(
        self, db: duckdb.DuckDBPyConnection, *, attached: bool, waiting: Sequence[Path], counted: bool
    ) -> None:
        """Creates views over what is copied (`store`) and what is not copied yet (`fresh`)."""
        db.execute("ATTACH ':memory:' AS fresh")
        db.execute("USE fresh")
        db.execute(self._sql["tables"])
        if not attached and self.rolled_up.exists:
            self.rolled_up.insert(db)
        if counted and waiting:
            db.execute(over("copy_traffic", waiting))
        self._copy_runs(db, "store.run" if attached else "run")
        db.execute("USE memory")
        place = "store" if attached else "fresh"
        db.execute(f"CREATE VIEW send AS SELECT rowid AS number, * FROM {place}.send")  # noqa: S608 - names of our own
        db.execute(f"CREATE VIEW sender AS SELECT * FROM {place}.sender")  # noqa: S608 - as above
        for table, is_newer in (("traffic", ""), ("run", "ANTI JOIN fresh.run USING (run_id)"),
                                ("reject", "ANTI JOIN fresh.run USING (run_id)")):  # fmt: skip
            parts = [f"SELECT * FROM fresh.{table}"]  # noqa: S608 - names of our own
            if attached:
                parts.append(f"SELECT * FROM store.{table} {is_newer}")  # noqa: S608 - as above
            db.execute(f"CREATE VIEW {table} AS {' UNION ALL '.join(parts)}")
        segments = over("segments_read", waiting) if waiting else f"({self._sql['read_columns']} LIMIT 0)"
        db.execute(f"CREATE VIEW waiting AS SELECT {self._sql['send_columns']} FROM {segments}")  # noqa: S608 - as above
        db.execute(f"CREATE VIEW known_since AS SELECT * FROM {place}.known_since")  # noqa: S608 - as above
        for view in ("view_sends", "view_runs", "view_rejects"):
            db.execute(self._sql[view])

    def _busy(self, why: str) -> LedgerBusy:
        return LedgerBusy(
            f"{self.file.name} is held by another program",
            why=why,
            remedy="close the notebook or tool that has it open; nothing is lost, sends wait in the spool",
        )


def _unreadable(error: duckdb.Error) -> StorageFailed:
    return StorageFailed(
        "the sends cannot be read",
        why=str(error).splitlines()[0],
        remedy="python -m core doctor looks at disk, permissions and files",
    )


def _chunks(rows: Iterator[T]) -> Iterator[list[T]]:
    while chunk := list(islice(rows, ROWS_AT_ONCE)):
        yield chunk


def _insert(db: duckdb.DuckDBPyConnection, table: str, rows: Sequence[dict[str, Any]]) -> None:
    """Inserts all rows by one statement with a list for each column, 50 times faster than a statement a row."""
    names = list(rows[0])
    lists = ", ".join("unnest(?::VARCHAR[])" for _ in names)
    values = [[None if row[name] is None else str(row[name]) for row in rows] for name in names]
    db.execute(f"INSERT INTO {table} ({', '.join(names)}) SELECT {lists}", values)
