"""What metrics.duckdb knows of merged segments: a send counts once, whether it is read from the small segment or the merged one."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from core.errors import StorageFailed
from core.records.merged_segments import is_merged, names_in, run_of
from core.records.metrics_file import MUCH_MEMORY
from core.records.metrics_queries import metrics_sql

__all__ = ["MergedSegments"]


class MergedSegments:
    """The merged segments of one spool.

    Args:
        spool_dir: `.pstt/spool`.
    """

    def __init__(self, spool_dir: Path) -> None:
        self._spool_dir = spool_dir
        self._sql = metrics_sql()
        self._names: dict[str, tuple[str, ...]] = {}
        """Merged segment → what it replaces; a merged segment never changes."""

    def waiting(
        self, names: Sequence[str], known: Collection[str] | None, db: duckdb.DuckDBPyConnection, place: str
    ) -> list[str]:
        """Returns those of the names that are not copied, neither as they are nor in another segment.

        Args:
            names: Segments that are not in `known`.
            known: The segments that metrics.duckdb has; None: there is no metrics.duckdb.
            db: A connection with metrics.duckdb.
            place: Its name there.
        """
        replaced = self.replaced(db, names, place) if known is not None else set()
        for name in filter(is_merged, names):
            parts = self._names_in(name)
            replaced.update(parts)
            if known is not None and parts and all(part in known for part in parts):
                replaced.add(name)
        return [name for name in names if name not in replaced]

    def is_behind(self, names: Sequence[str], known: Collection[str]) -> bool:
        """Returns whether metrics.duckdb, from a backup, has some of the runs of a merged segment and not the others."""
        unknown = [self._names_in(name) for name in names if is_merged(name) and name not in known]
        return any(0 < sum(part in known for part in parts) < len(parts) for parts in unknown)

    def adopt(self, db: duckdb.DuckDBPyConnection, names: Sequence[str]) -> None:
        """Replaces in the open file the segments that were merged by the merged ones. What has no sends there is left to a copy.

        A file from a backup may have some of the runs of a merged segment: they are forgotten and copied with the others.
        """
        merged = [name for name in names if is_merged(name)]
        if not merged:
            return
        known = {
            name for (name,) in db.execute("SELECT name FROM segment WHERE starts_with(name, 'merged-')").fetchall()
        }
        for name in merged:
            if name not in known and (parts := self._names_in(name)):
                here, sends = db.execute(self._sql["segments_here"], [list(parts)]).fetchone() or (0, 0)
                if here:
                    self._adopt_one(db, name, parts, int(sends) if here == len(parts) else None)

    def remember(self, db: duckdb.DuckDBPyConnection, name: str) -> None:
        """Notes what a segment has replaced, if it is a merged one; in the transaction that copies it."""
        if is_merged(name):
            parts = list(self._names_in(name))
            db.execute(self._sql["remember_merged"], [name, parts, [run_of(part) for part in parts]])

    def replaced(self, db: duckdb.DuckDBPyConnection, names: Sequence[str], place: str = "main") -> set[str]:
        """Returns those of the names that metrics.duckdb knows to be merged."""
        single = [name for name in names if not is_merged(name)]
        if not single:
            return set()
        try:
            rows = db.execute(self._sql["already_merged"].replace("{place}", place), [single]).fetchall()
        except duckdb.CatalogException:  # a file of before, which nothing was copied into since
            return set()
        return {name for (name,) in rows}

    def _adopt_one(self, db: duckdb.DuckDBPyConnection, name: str, parts: tuple[str, ...], sends: int | None) -> None:
        db.execute(f"SET memory_limit = '{MUCH_MEMORY}'")  # deleting needs more than copying
        db.execute("BEGIN")
        try:
            if sends is None:
                db.execute(self._sql["runs_to_forget"], [[run_of(part) for part in parts]])
                for statement in ("sends", "senders", "traffic_of_runs", "segments"):
                    db.execute(self._sql[f"forget_{statement}"])
            else:
                self.remember(db, name)
                db.execute(self._sql["forget_merged_ones"], [name])
                moment = datetime.now(UTC).replace(tzinfo=None)
                db.execute("INSERT INTO segment VALUES (?, ?, ?)", [name, sends, moment])
            db.execute("COMMIT")
        except BaseException:
            db.execute("ROLLBACK")
            raise

    def _names_in(self, name: str) -> tuple[str, ...]:
        """Returns what a merged segment replaces; nothing if it is damaged, which the copy reports."""
        if name not in self._names:
            try:
                self._names[name] = names_in(self._spool_dir / name)
            except StorageFailed:
                return ()
        return self._names[name]
