"""Keeps what an editor or a copy made of SQL files and connections.json as versions, as the job registry does with jobs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import datetime

from core.records.connections_versions import keep_connections
from core.records.edits_file import EditsFile
from core.records.ledger import Ledger
from core.records.query_versions import QueryVersions
from core.workspace.paths import Workspace
from core.workspace.stored_file import read_stored

__all__ = ["KeptFiles"]

CHECKED_EVERY_S = 5.0
"""An SQL file is kept when two checks have found it the same: one that is being written is not, and one that the page saves
has its version, with the name of the user, long before."""
MOST_BYTES = 5_000_000
"""Of a larger file no version is kept; the page does not save one either."""
LONGEST_S = 0.2
"""Scheduled runs wait while files are stored, so one check begins no further file after that; the next check goes on."""

Stamp = tuple[int, int]
"""Change time in ns and size in bytes."""


class KeptFiles:
    """The files of one workspace of which the runner keeps versions.

    Args:
        workspace: The workspace.
        ledger: Where the versions of connections.json are stored; those of SQL files are in `edits.sqlite`.
        monotonic: Seconds that only go forward.
    """

    def __init__(self, workspace: Workspace, ledger: Ledger, monotonic: Callable[[], float]) -> None:
        self._workspace = workspace
        self._ledger = ledger
        self._monotonic = monotonic
        self._connections_stamp: Stamp | None = None
        self._checked_s: float | None = None
        self._seen: dict[str, Stamp] = {}
        """The SQL files as the last check found them."""
        self._kept: dict[str, Stamp] = {}
        """The SQL files whose versions are stored."""
        self._missing: set[str] = set()

    def keep_connections(self, now: datetime) -> None:
        """Stores connections.json as a version if it was changed."""
        try:
            status = self._workspace.connections_file.stat()
        except OSError:
            return
        stamp = (status.st_mtime_ns, status.st_size)
        if stamp != self._connections_stamp:
            text = read_stored(self._workspace.connections_file).text
            keep_connections(self._workspace, self._ledger.connections_versions, text, now)
            self._connections_stamp = stamp

    def keep_queries(self, now: datetime) -> None:
        """Stores SQL files that were changed or deleted since the last check. Without changes 500 files cost 2 ms.

        Raises:
            StorageFailed: `edits.sqlite` cannot be written; the next check tries again.
        """
        if self._checked_s is not None and self._monotonic() - self._checked_s < CHECKED_EVERY_S:
            return
        self._checked_s = self._monotonic()
        try:
            found = dict(self._stamps())
        except OSError:  # a folder that cannot be read now: its files are not gone
            return
        settled = [
            name
            for name, stamp in found.items()
            if self._seen.get(name) == stamp != self._kept.get(name) and stamp[1] <= MOST_BYTES
        ]
        missing = self._kept.keys() - found.keys()
        # An editor may remove a file for a moment while it saves: it is gone when it is missing in two checks.
        gone, self._seen, self._missing = missing & self._missing, found, missing
        if not settled and not gone:
            return
        with ExitStack() as stack:
            versions = QueryVersions(stack.enter_context(EditsFile(self._workspace.edits_file)))
            for name in gone:
                versions.end(name, now, "")
                del self._kept[name]
            for name in settled:
                if self._monotonic() - self._checked_s > LONGEST_S:
                    break
                self._store(versions, name, found[name], now)

    def _store(self, versions: QueryVersions, name: str, stamp: Stamp, now: datetime) -> None:
        try:
            content = (self._workspace.queries_dir / name).read_bytes()
        except OSError:  # it is being deleted, or another program holds it: the next check reads it
            return
        if len(content) == stamp[1]:  # else it is being written
            versions.add(name, content, now)
            self._kept[name] = stamp

    def _stamps(self) -> Iterator[tuple[str, Stamp]]:
        """Yields each SQL file below `queries/` with its stamp."""
        folders = [(self._workspace.queries_dir, "")]
        while folders:
            folder, prefix = folders.pop()
            with os.scandir(folder) as files:
                for file in files:
                    if file.is_dir(follow_symlinks=False):
                        folders.append((folder / file.name, f"{prefix}{file.name}/"))
                    elif file.name.endswith(".sql") and file.is_file():
                        status = file.stat()
                        yield f"{prefix}{file.name}", (status.st_mtime_ns, status.st_size)
