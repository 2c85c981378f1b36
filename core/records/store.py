"""The SQLite file below `.pstt/` that knows what happened and what should: opened, its tables made, its errors translated.

WAL, so that readers never wait for the writer; fsync at each commit, so that what is claimed survives a power cut.
Each room that keeps something in it (`core.records.ledger`, …) has its tables and statements in an `.sql` file of its
name and derives its class from `Store`. A `Store` belongs to the thread that made it; threads and processes open
their own.

Reading needs no free byte. SQLite itself needs some for its index of the WAL, also to read: on a disk that is full, or
may not be written, what the file holds is read into memory and looked at there, and whoever writes is refused.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from time import monotonic
from typing import Any, ClassVar, Self

from core.errors import ConfigError, LedgerBusy, StorageFailed
from core.records.named_sql import load_named_sql

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
}
"""Version of the file → the `.sql` files and their statements that bring a file of the version before to it, in order."""
SCHEMA_VERSION = max(SCHEMAS)
BUSY_TIMEOUT_S = 30.0
"""Writers hold the file for milliseconds; one that waits longer has met a stuck process."""
COPY_LASTS_S = 1.0
"""How old a copy in memory may be; then the file itself is tried again."""
NO_ROOM_BYTES = 1024**2
"""Below it a ledger that is not there could not be made."""
UNWRITABLE = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY}
"""What SQLite says where it cannot make its index of the WAL."""


class Store:
    """One opening of `.pstt/ledger.sqlite`.

    Args:
        file: Made with its folder when it is not there.

    Raises:
        StorageFailed: The file cannot be made, read or is no ledger.
        ConfigError: It was written by a newer version.
    """

    sql_file: ClassVar[str] = "ledger.sql"

    def __init__(self, file: Path) -> None:
        self.file = file
        self._sql = load_named_sql(self.sql_file)
        self._copied_at: float | None = None
        """When (monotonic) the file was copied into memory; None: it is open itself."""
        self._in_transaction = False
        self._seen_version = 0
        with self._translated():
            self._opened = self._open()

    @property
    def _db(self) -> sqlite3.Connection:
        """The connection; of a copy that has grown old, another one."""
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
        """Lets go of the file."""
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _open(self) -> sqlite3.Connection:
        """The file itself, else a copy of it in memory."""
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            opened = self._prepared(sqlite3.connect(self.file, timeout=BUSY_TIMEOUT_S, isolation_level=None))
            self._copied_at = None
        except (sqlite3.OperationalError, OSError) as error:
            if isinstance(error, sqlite3.Error) and _code(error) not in UNWRITABLE:
                raise
            copy = self._copy()
            if copy is None:
                raise
            opened = self._prepared(copy)
            opened.execute("PRAGMA query_only=ON")
            self._copied_at = monotonic()
        return opened

    def _copy(self) -> sqlite3.Connection | None:
        """What the file holds, in memory; empty where it could not be made for want of room; None where it cannot be read."""
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
        """An opening that needs no index on disk.

        Without a WAL nothing changes the file, and it is taken as it is. What a process left in a WAL that is gone now
        is seen by an exclusive opening, which keeps the index in its own memory.
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
        told = self.file.stat()
        return told.st_size, told.st_mtime_ns, self._wal_bytes()

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
            version = _version(db)  # another process may have been faster
            if version > SCHEMA_VERSION:
                raise ConfigError(
                    f"{self.file.name} was written by a newer version of PSTT Kafka",
                    remedy="install that version, or use another workspace",
                    file=self.file,
                )
            for file, name in (step for added in SCHEMAS if added > version for step in SCHEMAS[added]):
                for statement in load_named_sql(file)[name].split(";"):
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

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Runs its block in one transaction, which is rolled back when the block raises."""
        with self._translated(), self._transaction():
            yield self._opened

    @contextmanager
    def _transaction(self) -> Iterator[None]:
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

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            if "locked" in str(error) or "busy" in str(error):
                raise LedgerBusy(
                    f"the ledger {self.file.name} is held by another process",
                    why=f"waited {BUSY_TIMEOUT_S:.0f} s",
                    remedy="look for a stuck PSTT Kafka process on this machine",
                ) from None
            is_full = _code(error) == sqlite3.SQLITE_FULL
            raise StorageFailed(
                f"the ledger {self.file} cannot be {'written' if is_full else 'used'}",
                why=str(error),
                remedy="make room on the disk of the workspace"
                if is_full
                else "check the disk and the folder's permissions",
            ) from None
        except (sqlite3.DatabaseError, OSError) as error:
            raise StorageFailed(
                f"the ledger {self.file} cannot be used",
                why=str(error),
                remedy="move the file away to begin a new ledger; the sends stay in metrics.duckdb",
            ) from None


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

    def _write(self, name: str, values: Mapping[str, Any]) -> int:
        """Runs the named statement in a transaction of its own. Returns the number of rows it changed."""
        with self._store.transaction() as db:
            return db.execute(self._sql[name], values).rowcount


def _code(error: sqlite3.Error) -> int:
    """SQLite's primary code; an extended one (SQLITE_IOERR_SHMSIZE) carries it in its lowest byte."""
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF


def _version(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA user_version").fetchone()[0])


@contextmanager
def _in_transaction(db: sqlite3.Connection) -> Iterator[None]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:  # of a full disk SQLite itself may have gone back already
            db.execute("ROLLBACK")
        raise


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    return next((path for path in (folder, *folder.parents) if path.exists()), folder)
