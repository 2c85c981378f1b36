"""Opens `.pstt/edits.sqlite`: the versions of SQL files, and drafts of the page.

It is apart from the ledger: it has texts of megabytes and is written while a user types, and losing it loses no record
of a run. The `.sql` file has its tables and statements.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from core.errors import ConfigError
from core.records.named_sql import load_named_sql
from core.records.sqlite_errors import errors_of_edits, is_busy

__all__ = ["EditsFile"]

SCHEMA_VERSION = 1
BUSY_TIMEOUT_S = 10.0


class EditsFile:
    """One opening of the file.

    Args:
        file: Created with its folder when it does not exist.

    Raises:
        StorageFailed: The file cannot be created or used.
        ConfigError: It was written by a newer version.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.sql = load_named_sql("edits.sql")
        self._translated = errors_of_edits(file, BUSY_TIMEOUT_S).translated
        with self._translated():
            try:
                file.parent.mkdir(parents=True, exist_ok=True)
                self._db = sqlite3.connect(file, timeout=BUSY_TIMEOUT_S, isolation_level=None)
                try:
                    self._prepare()
                except BaseException:
                    self._db.close()
                    raise
            except (sqlite3.OperationalError, OSError) as error:
                if is_busy(error):
                    raise
                self._db = self._read_only()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._db.close()

    def rows(self, name: str, values: Mapping[str, Any]) -> list[sqlite3.Row]:
        """Returns all rows of the named statement."""
        with self._translated():
            return self._db.execute(self.sql[name], values).fetchall()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Runs its block in one transaction, which is rolled back when the block raises."""
        with self._translated():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:  # on a full disk SQLite may have rolled back already
                    self._db.execute("ROLLBACK")
                raise

    def _prepare(self) -> None:
        self._db.row_factory = sqlite3.Row
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        if self._version() == SCHEMA_VERSION:
            return
        with self.transaction() as db:
            version = self._version()  # another process may have created the tables meanwhile
            if version > SCHEMA_VERSION:
                raise ConfigError(
                    f"{self.file.name} was written by a newer version of PSTT Kafka",
                    remedy="install that version, or use another workspace",
                    file=self.file,
                )
            if version == 0:
                for statement in self.sql["schema"].split(";"):
                    db.execute(statement)
                db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")

    def _read_only(self) -> sqlite3.Connection:
        """Opens the file to read on a disk that is full or read-only; one that does not exist is empty.

        What is in the WAL and not in the file yet is not seen.
        """
        opened = self._stored() if self.file.exists() else None
        if opened is None:
            opened = sqlite3.connect(":memory:", isolation_level=None)
            opened.executescript(self.sql["schema"])
            opened.execute("PRAGMA query_only=ON")
        opened.row_factory = sqlite3.Row
        return opened

    def _stored(self) -> sqlite3.Connection | None:
        """Opens the file as it is on disk; None: it has no tables, as it was created while the disk was full."""
        opened = sqlite3.connect(f"{self.file.resolve().as_uri()}?mode=ro&immutable=1", uri=True)
        if opened.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'draft'").fetchone()[0]:
            return opened
        opened.close()
        return None

    def _version(self) -> int:
        return int(self._db.execute("PRAGMA user_version").fetchone()[0])
