"""The versions of each SQL file that was saved, renamed or deleted here."""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass
from datetime import datetime

from core.clock import iso_utc
from core.errors import ConfigError
from core.records.edits_file import EditsFile
from core.records.rows import from_row

__all__ = ["KEPT_VERSIONS", "NewestVersion", "QueryVersion", "QueryVersions"]

KEPT_VERSIONS = 100
"""Of each SQL file. A file of 5 MB takes about 1 MB a version."""


@dataclass(frozen=True, slots=True)
class QueryVersion:
    """A version of an SQL file."""

    version_id: int
    query: str
    """The file's name below `queries/`."""
    sha256: str
    size_bytes: int
    seen_at: datetime
    saved_by: str
    """Who saved it; empty: it was found on disk."""


@dataclass(frozen=True, slots=True)
class NewestVersion:
    """The last thing known of an SQL file."""

    version_id: int
    query: str
    sha256: str
    """Empty: it was deleted."""
    seen_at: datetime
    saved_by: str
    """Who saved or deleted it; empty: it was found on disk."""


class QueryVersions:
    """The versions of all SQL files of one workspace, also of deleted ones. A deleted file keeps its versions."""

    def __init__(self, file: EditsFile) -> None:
        self._file = file

    def add(self, query: str, content: bytes, now: datetime, saved_by: str = "") -> None:
        """Writes a version, unless it is the newest one already. Each keeps the time at which it was written."""
        self._add(query, hashlib.sha256(content).hexdigest(), content, now, saved_by)

    def end(self, query: str, now: datetime, deleted_by: str) -> None:
        """Writes that an SQL file was deleted."""
        self._add(query, "", b"", now, deleted_by)

    def rename(self, query: str, to: str) -> None:
        """Gives the versions of a file to its new name."""
        with self._file.transaction() as db:
            db.execute(self._file.sql["rename"], {"query": query, "to": to})

    def of_query(self, query: str) -> list[QueryVersion]:
        """Returns every version of an SQL file, newest first."""
        return [from_row(QueryVersion, row) for row in self._file.rows("versions", {"query": query})]

    def newest_of_each(self) -> list[NewestVersion]:
        """Returns the last thing known of every SQL file that has a version, by name."""
        return [from_row(NewestVersion, row) for row in self._file.rows("newest_of_each", {})]

    def content(self, query: str, version_id: int) -> bytes:
        """Returns the bytes of a version.

        Raises:
            ConfigError: The file has no such version.
        """
        rows = self._file.rows("text", {"query": query, "version_id": version_id})
        if not rows:
            raise ConfigError(f"{query} has no version {version_id}", remedy="list its versions again")
        return zlib.decompress(rows[0]["content"])

    def _add(self, query: str, sha256: str, content: bytes, now: datetime, saved_by: str) -> None:
        newest = self._file.rows("newest_sha256", {"query": query})
        if sha256 == (newest[0]["sha256"] if newest else ""):
            return
        sql = self._file.sql
        row = {"query": query, "sha256": sha256, "seen_at": iso_utc(now), "saved_by": saved_by}
        text = {"sha256": sha256, "size_bytes": len(content), "content": zlib.compress(content, level=1)}
        with self._file.transaction() as db:
            if sha256:
                db.execute(sql["insert_text"], text)
            db.execute(sql["insert_version"], row)
            if db.execute(sql["drop_old_versions"], {"query": query, "kept": KEPT_VERSIONS}).rowcount:
                db.execute(sql["drop_unused_texts"])
