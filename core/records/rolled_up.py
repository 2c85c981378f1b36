"""`spool/rolled-up/days.parquet`: the counts of days whose single sends are no longer kept.

The file is the source of these counts, as segments are of single sends: `metrics rebuild` reads both. It also names the
segments that its counts replace, so that none counts twice, whether or not its file is deleted yet.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import duckdb

from core.records.damaged_segments import quoted
from core.records.known_since import KnownSince
from core.records.metrics_file import state_of
from core.records.metrics_queries import metrics_sql
from core.records.segments import flush_folder
from core.workspace.atomic import replace_file

__all__ = ["RolledUp"]

NOTHING_BEFORE = "(SELECT NULL::VARCHAR AS segment, NULL::VARCHAR AS run_id)"


class RolledUp:
    """The file of one workspace.

    Args:
        spool_dir: `.pstt/spool`.
    """

    def __init__(self, spool_dir: Path) -> None:
        self.file = spool_dir / "rolled-up" / "days.parquet"
        self._sql = metrics_sql()
        self._replaced: tuple[tuple[int, ...], frozenset[str]] = ((), frozenset())
        """The names of segments, by the file's state."""

    @property
    def exists(self) -> bool:
        """Whether any day is rolled up."""
        return self.file.exists()

    def version(self) -> str:
        """Returns what identifies the content of the file; empty where there is none."""
        return str(self._rows("rolled_up_version")[0][0]) if self.exists else ""

    def replaced_segments(self) -> frozenset[str]:
        """Returns the names of the segments whose sends are in the counts."""
        state = state_of(self.file)
        if self._replaced[0] != state:
            names = frozenset(name for (name,) in self._rows("rolled_up_segments"))
            self._replaced = state, names
        return self._replaced[1]

    def runs(self, run_ids: Iterable[str]) -> frozenset[str]:
        """Returns those of the runs whose single sends are no longer known."""
        if not self.exists:
            return frozenset()
        return frozenset(run_id for (run_id,) in self._rows("rolled_up_runs", list(run_ids)))

    def known_since(self) -> KnownSince:
        """Returns from when on single sends are known."""
        return KnownSince(dict(self._rows("known_since"))) if self.exists else KnownSince()

    def write(self, db: duckdb.DuckDBPyConnection) -> None:
        """Adds the runs of the table `expired` to the counts; the new file replaces the old one when it is on the disk.

        Args:
            db: metrics.duckdb, with what is rolled up so far.

        Raises:
            OSError: The disk is full, or the file may not be written.
        """
        self.file.parent.mkdir(parents=True, exist_ok=True)
        aside = self.file.with_suffix(".tmp")
        before = f"read_parquet('{quoted(self.file)}')" if self.exists else NOTHING_BEFORE
        sql = self._sql["write_rolled_up"].replace("{before}", before).replace("{file}", quoted(aside))
        try:
            db.execute(sql.replace("{version}", secrets.token_hex(8)))
            with aside.open("rb+") as stream:
                os.fsync(stream.fileno())
            replace_file(aside, self.file)
            flush_folder(self.file.parent)
        finally:
            aside.unlink(missing_ok=True)

    def restore(self, db: duckdb.DuckDBPyConnection) -> bool:
        """Writes the file again from metrics.duckdb if it was deleted. Returns whether it was; segments are not named in it.

        Raises:
            OSError: The disk is full, or the file may not be written.
        """
        if self.exists or not db.execute("SELECT 1 FROM rolled_up").fetchone():
            return False
        db.execute(self._sql["nothing_expired"])
        self.write(db)
        return True

    def apply(self, db: duckdb.DuckDBPyConnection) -> bool:
        """Brings metrics.duckdb to the state of the file, in one transaction. Returns whether it was behind.

        A database from a backup, or of before a power cut, has single sends that are rolled up in the file: they are deleted.
        """
        version = self.version()
        known = db.execute("SELECT version FROM rolled_up").fetchone()
        if not version or known == (version,):
            return False
        db.execute("BEGIN")
        try:
            self.insert(db)
            db.execute("DELETE FROM rolled_up")
            db.execute("INSERT INTO rolled_up VALUES (?)", [version])
            db.execute("COMMIT")
        except BaseException:
            db.execute("ROLLBACK")
            raise
        return True

    def insert(self, db: duckdb.DuckDBPyConnection) -> None:
        """Replaces what the tables have of rolled up days and of the runs in them."""
        for name in (
            "gone_runs",
            "forget_sends",
            "forget_senders",
            "forget_traffic",
            "forget_segments",
            "forget_merged",
            "insert_rolled_up",
        ):
            db.execute(self._sql[name].replace("{file}", quoted(self.file)))
        db.execute("DELETE FROM known_since")
        db.execute(self._sql["insert_known_since"].replace("{file}", quoted(self.file)))

    def _rows(self, name: str, *values: Any) -> list[Any]:
        if not self.exists:
            return []
        with duckdb.connect(":memory:", config={"threads": 1}) as db:
            return db.execute(self._sql[name], [str(self.file), *values]).fetchall()
