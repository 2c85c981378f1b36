"""Opens `.pstt/ledger.sqlite`, creates and migrates its tables, and translates the errors of SQLite.

WAL mode, so that readers never wait for the writer; fsync at each commit, so that a commit survives a power cut.
Each module that stores something in the file (`core.records.ledger`, …) has its tables and statements in an `.sql`
file of its name. It derives its class from `Store`, or from `StorePart` where several share one opening. A `Store`
belongs to the thread that made it; other threads and processes open their own.

Reading needs no free disk space, although SQLite needs some for its index of the WAL, also to read. On a disk that is
full or read-only the file is copied into memory and read there, and a write raises StorageFailed.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from time import monotonic
from typing import Any, ClassVar, Self

from core.errors import ConfigError, StorageFailed
from core.records.named_sql import load_named_sql
from core.records.sqlite_errors import errors_of_ledger, primary_code

__all__ = ["Store", "StorePart"]

SCHEMAS: Mapping[int, tuple[tuple[str, str], ...]] = {
    1: tuple(
        (f"{part}.sql", "schema")
        for part in ("ledger scheduled_runs requests runner_status audit job_versions columns alerts".split())
    ),
    2: (("accounts.sql", "schema"), ("idempotency.sql", "schema")),
    3: (("ledger.sql", "schema_3"),),
    4: (("job_versions.sql", "schema_4"),),
    5: (("scheduled_runs.sql", "schema_5"),),
    6: (("alerts.sql", "schema_6"),),
    7: (("run_parts.sql", "schema_7"),),
    8: (("backfills.sql", "schema_8"),),
    9: (("watermarks.sql", "schema_9"),),
    10: (("alerts.sql", "schema_10"),),
    11: (("run_history.sql", "schema_11"), ("day_notes.sql", "schema_11")),
    12: (("ledger.sql", "schema_12"),),
}
"""Schema version → the `.sql` files and their statements that migrate a file from the version before, in order."""
SCHEMA_VERSION = max(SCHEMAS)
BUSY_TIMEOUT_S = 30.0
"""Writers lock the file for milliseconds; one that waits longer waits for a stuck process."""
COPY_LASTS_S = 1.0
"""Lifetime of a copy in memory; afterwards the file itself is tried again."""
NO_ROOM_BYTES = 1024**2
"""Free space below which a missing ledger could not be created."""
UNWRITABLE = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY}
"""Error codes of SQLite when it cannot create its index of the WAL."""


class Store:
    """One opening of `.pstt/ledger.sqlite`.

    Args:
        file: Created with its folder when it does not exist.

    Raises:
        StorageFailed: The file cannot be created or read, or is no ledger.
        ConfigError: It was written by a newer version.
    """

    sql_file: ClassVar[str] = "ledger.sql"

    def __init__(self, file: Path) -> None:
        self.file = file
        self._sql = load_named_sql(self.sql_file)
        self._copied_at: float | None = None
        """When the file was copied into memory, in seconds of the monotonic clock; None: the file itself is open."""
        self._in_transaction = False
        self._seen_version = 0
        self._translated = errors_of_ledger(file, BUSY_TIMEOUT_S).translated
        with self._translated():
            self._opened = self._open()

    @property
    def _db(self) -> sqlite3.Connection:
        """Returns the connection; reopens it when it is a copy older than `COPY_LASTS_S`."""
        is_old = self._copied_at is not None and monotonic() - self._copied_at > COPY_LASTS_S
        if is_old and not self._in_transaction:
            self._opened = self._open()
        return self._opened

    def was_written_elsewhere(self) -> bool:
        """Returns whether another connection has written into the file since the last call; takes microseconds."""
        with self._translated():
            version = int(self._db.execute("PRAGMA data_version").fetchone()[0])
        changed, self._seen_version = version != self._seen_version, version
        return changed

    def close(self) -> None:
        """Closes the file."""
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _open(self) -> sqlite3.Connection:
        """Opens the file, or a copy of it in memory where the file cannot be opened for lack of space or rights."""
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            opened = self._prepared(sqlite3.connect(self.file, timeout=BUSY_TIMEOUT_S, isolation_level=None))
            self._copied_at = None
        except (sqlite3.OperationalError, OSError) as error:
            if isinstance(error, sqlite3.Error) and primary_code(error) not in UNWRITABLE:
                raise
            copy = self._copy()
            if copy is None:
                raise
            opened = self._prepared(copy)
            opened.execute("PRAGMA query_only=ON")
            self._copied_at = monotonic()
        return opened

    def _copy(self) -> sqlite3.Connection | None:
        """Returns a copy of the file in memory; an empty one where the disk is too full to create it; None on failure."""
        copy = sqlite3.connect(":memory:", isolation_level=None)
        for _ in range(3):
            before = self._state()
            with suppress(sqlite3.Error, OSError):
                if self.file.exists():
                    with closing(self._without_index()) as stored:
                        stored.backup(copy)
                elif shutil.disk_usage(_existing(self.file.parent)).free > NO_ROOM_BYTES:
                    break
                if self._state() == before:
                    return copy
        copy.close()
        return None

    def _without_index(self) -> sqlite3.Connection:
        """Opens the file without an index on disk.

        Without a WAL nothing changes the file, so it is opened as immutable. With one, the file is opened exclusively:
        SQLite then keeps the index in its own memory, and sees what an ended process left in the WAL.
        """
        if self._wal_bytes() == 0:
            return sqlite3.connect(f"{self.file.resolve().as_uri()}?mode=ro&immutable=1", uri=True)
        stored = sqlite3.connect(self.file, timeout=1, isolation_level=None)
        stored.execute("PRAGMA locking_mode=EXCLUSIVE")
        return stored

    def _wal_bytes(self) -> int:
        try:
            return self.file.with_name(f"{self.file.name}-wal").stat().st_size
        except FileNotFoundError:
            return 0

    def _state(self) -> tuple[int, int, int]:
        if not self.file.exists():
            return (0, 0, 0)
        stat = self.file.stat()
        return stat.st_size, stat.st_mtime_ns, self._wal_bytes()

    def _prepared(self, db: sqlite3.Connection) -> sqlite3.Connection:
        try:
            db.row_factory = sqlite3.Row
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=FULL")
            db.execute("PRAGMA foreign_keys=ON")
            db.execute("PRAGMA temp_store=MEMORY")  # sorting needs no disk
            if _version(db) != SCHEMA_VERSION:
                self._bring_up_to_date(db)
        except BaseException:
            db.close()
            raise
        return db

    def _bring_up_to_date(self, db: sqlite3.Connection) -> None:
        with _in_transaction(db):
            version = _version(db)  # another process may have migrated it meanwhile
            if version > SCHEMA_VERSION:
                raise ConfigError(
                    f"{self.file.name} was written by a newer version of PSTT Kafka",
                    remedy="install that version, or use another workspace",
                    file=self.file,
                )
            for file, name in (step for added in SCHEMAS if added > version for step in SCHEMAS[added]):
                for statement in _statements(load_named_sql(file)[name]):
                    db.execute(statement)
            db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")

    def _rows(self, name: str, values: Mapping[str, Any] | None = None) -> list[sqlite3.Row]:
        """Returns all rows of the named statement."""
        return self.query(self._sql[name], values)

    def _write(self, name: str, values: Mapping[str, Any]) -> int:
        """Runs the named statement in a transaction of its own. Returns the number of rows it changed."""
        with self.transaction() as db:
            return db.execute(self._sql[name], values).rowcount

    def query(self, sql: str, values: Mapping[str, Any] | None = None) -> list[sqlite3.Row]:
        """Returns all rows of a statement."""
        with self._translated():
            return self._db.execute(sql, values or {}).fetchall()

    def each(self, sql: str, values: Mapping[str, Any]) -> Iterator[sqlite3.Row]:
        """Yields the rows of a statement one by one, without holding all of them."""
        with self._translated():
            yield from self._db.execute(sql, values)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Runs its block in one transaction, which is rolled back when the block raises. One inside another is part of it."""
        with self._translated(), self._transaction():
            yield self._opened

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        if self._in_transaction:  # part of the caller's: they are committed together
            yield
            return
        if self._copied_at is not None:
            self._opened = self._open()
        if self._copied_at is not None:
            raise StorageFailed(
                f"the ledger {self.file} cannot be written",
                why="the disk is full, or this account may not write there",
                remedy="make room on the disk of the workspace; reading goes on meanwhile",
            )
        self._in_transaction = True
        try:
            with _in_transaction(self._opened):
                yield
        finally:
            self._in_transaction = False


class StorePart:
    """The statements of one `.sql` file, run on an open `Store` that several parts share.

    What two parts write inside one `Store.transaction` is committed together.
    """

    sql_file: ClassVar[str]

    def __init__(self, store: Store) -> None:
        self._store = store
        self._sql = load_named_sql(self.sql_file)

    def _rows(self, name: str, values: Mapping[str, Any] | None = None) -> list[sqlite3.Row]:
        """Returns all rows of the named statement."""
        return self._store.query(self._sql[name], values)

    def _each(self, name: str, values: Mapping[str, Any]) -> Iterator[sqlite3.Row]:
        """Yields the rows of the named statement one by one."""
        return self._store.each(self._sql[name], values)

    def _write(self, name: str, values: Mapping[str, Any]) -> int:
        """Runs the named statement in a transaction of its own. Returns the number of rows it changed."""
        with self._store.transaction() as db:
            return db.execute(self._sql[name], values).rowcount


def _statements(sql: str) -> Iterator[str]:
    """Yields the statements of a schema; the body of a trigger has semicolons of its own."""
    begun = ""
    for part in sql.split(";"):
        begun += part + ";"
        if sqlite3.complete_statement(begun):
            yield begun
            begun = ""


def _version(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA user_version").fetchone()[0])


@contextmanager
def _in_transaction(db: sqlite3.Connection) -> Iterator[None]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:  # on a full disk SQLite may have rolled back already
            db.execute("ROLLBACK")
        raise


def _existing(folder: Path) -> Path:
    """Returns the folder, or the nearest of its parents that exists."""
    return next((path for path in (folder, *folder.parents) if path.exists()), folder)
