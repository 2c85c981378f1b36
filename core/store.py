"""The SQLite file below `.pstt/` that knows what happened and what should: opened, its tables made, its errors translated.

WAL, so that readers never wait for the writer; fsync at each commit, so that what is claimed survives a power cut.
Each room that keeps something in it (`core.ledger`, …) has its tables and statements in an `.sql` file of its
name and derives its class from `Store`. A `Store` belongs to the thread that made it; threads and processes open
their own.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Self

from core.errors import ConfigError, LedgerBusy, StorageFailed
from core.named_sql import load_named_sql

__all__ = ["Store"]

SCHEMAS: Mapping[int, tuple[tuple[str, str], ...]] = {
    1: (("ledger.sql", "schema"), ("agenda.sql", "schema"), ("columns.sql", "schema"), ("alerts.sql", "schema")),
    2: (("accounts.sql", "schema"), ("idempotency.sql", "schema")),
    3: (("ledger.sql", "schema_3"),),
}
"""Version of the file → the `.sql` files and their statements that bring a file of the version before to it, in order."""
SCHEMA_VERSION = max(SCHEMAS)
BUSY_TIMEOUT_S = 30.0
"""Writers hold the file for milliseconds; one that waits longer has met a stuck process."""


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
        with self._translated():
            file.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(file, timeout=BUSY_TIMEOUT_S, isolation_level=None)
            self._db.row_factory = sqlite3.Row
            try:
                self._prepare()
            except BaseException:
                self._db.close()
                raise

    def close(self) -> None:
        """Lets go of the file."""
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _prepare(self) -> None:
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.execute("PRAGMA foreign_keys=ON")
        if self._version() == SCHEMA_VERSION:
            return
        with self._transaction():
            version = self._version()  # another process may have been faster
            if version > SCHEMA_VERSION:
                raise ConfigError(
                    f"{self.file.name} was written by a newer version of PSTT Kafka",
                    remedy="install that version, or use another workspace",
                    file=self.file,
                )
            for file, name in (step for added in SCHEMAS if added > version for step in SCHEMAS[added]):
                for statement in load_named_sql(file)[name].split(";"):
                    self._db.execute(statement)
            self._db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")

    def _version(self) -> int:
        return int(self._db.execute("PRAGMA user_version").fetchone()[0])

    def _rows(self, name: str, values: Mapping[str, Any] | None = None) -> list[sqlite3.Row]:
        """All rows of the named statement."""
        with self._translated():
            return self._db.execute(self._sql[name], values or {}).fetchall()

    def _write(self, name: str, values: Mapping[str, Any]) -> int:
        """The named statement in a transaction of its own; the number of rows it changed."""
        with self._translated(), self._transaction():
            return self._db.execute(self._sql[name], values).rowcount

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

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
            raise StorageFailed(
                f"the ledger {self.file} cannot be used",
                why=str(error),
                remedy="check the disk and the folder's permissions",
            ) from None
        except (sqlite3.DatabaseError, OSError) as error:
            raise StorageFailed(
                f"the ledger {self.file} cannot be used",
                why=str(error),
                remedy="move the file away to begin a new ledger; the sends stay in metrics.duckdb",
            ) from None
