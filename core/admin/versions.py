"""The versions of a job, an SQL file or connections.json: listed, shown, compared, and restored as the page does it."""

from __future__ import annotations

import difflib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Literal

from core.admin.deleted import restore_job, restore_query
from core.admin.edit_files import brought_back, check_query, save_connections, save_query
from core.admin.edit_jobs import job_files, replace_job
from core.admin.edit_queries import query_names, query_versions, read_query
from core.admin.uses import uses_of_query
from core.errors import ConfigError
from core.records.connections_versions import ConnectionsVersion, hidden_secrets
from core.records.job_versions import JobVersion
from core.records.opened import OpenWorkspace
from core.records.rights import Caller
from core.workspace.jobs import SUFFIX, parse_job, read_job_file
from core.workspace.json_file import document_of
from core.workspace.stored_file import StoredFile, read_stored

__all__ = [
    "FileVersion",
    "NoSuchVersion",
    "VersionKind",
    "difference",
    "restore_version",
    "version_text",
    "versions_of",
]

COMPARED_BYTES = 300_000
"""The lines of larger versions are not counted: reading a hundred of them takes seconds."""
VersionKind = Literal["job", "query", "connections"]
CheckQuery = Callable[[str, Path, bytes], tuple[str, ...]]


class NoSuchVersion(ConfigError):
    """The file has no version with that number."""


@dataclass(frozen=True, slots=True)
class FileVersion:
    """A version of a file. Its number stays the same while newer ones are added."""

    number: int
    """Of a job and of connections.json counted from the oldest; of an SQL file given once in the workspace."""
    seen_at: datetime
    saved_by: str
    """Empty: it was found on disk."""
    size_bytes: int
    added: int | None
    """Lines that the version before does not have; None: the versions are too large to be compared here."""
    removed: int | None
    """Lines that only the version before has."""


@dataclass(frozen=True, slots=True)
class _Kept:
    number: int
    seen_at: datetime
    saved_by: str
    size_bytes: int
    read: Callable[[], bytes]
    """Returns the content."""

    def lines(self) -> Counter[str] | None:
        """Returns how often each line occurs; None: there are too many to be counted."""
        return None if self.size_bytes > COMPARED_BYTES else Counter(_as_text(self.read()).splitlines())


def versions_of(opened: OpenWorkspace, kind: VersionKind, name: str) -> list[FileVersion]:
    """Returns the versions of a file, newest first; also of a deleted one.

    Args:
        opened: The workspace.
        kind: Of the file.
        name: Slug of a job, name of an SQL file below `queries/`; empty for connections.json.

    Raises:
        NoSuchJob: No job of that name is there, and none was.
        NoSuchQuery: As for a job.
    """
    with _kept(opened, kind, name) as kept:
        lines = [version.lines() for version in kept]
    before = [*lines, Counter[str]()][1:]
    return [_file_version(*known) for known in zip(kept, lines, before, strict=True)]


def version_text(opened: OpenWorkspace, kind: VersionKind, name: str, number: int) -> tuple[FileVersion, bytes]:
    """Returns a version and its content. That of connections.json has `***` in place of each password.

    Raises:
        NoSuchVersion: The file has no such version.
    """
    with _kept(opened, kind, name) as kept:
        at = next((at for at, one in enumerate(kept) if one.number == number), None)
        if at is None:
            raise NoSuchVersion(f"{_label(kind, name)} has no version {number}", remedy="list its versions again")
        before = kept[at + 1].lines() if at + 1 < len(kept) else Counter[str]()
        return _file_version(kept[at], kept[at].lines(), before), kept[at].read()


def difference(opened: OpenWorkspace, kind: VersionKind, name: str, number: int, other: int | None) -> Iterator[str]:
    """Yields the lines by which a version differs from another one, as `diff -u` prints them.

    Args:
        opened: The workspace.
        kind: Of the file.
        name: As in `versions_of`.
        number: The version.
        other: The version it is compared with; None: the file as it is now.

    Raises:
        NoSuchVersion: One of them does not exist.
    """
    before = _as_text(version_text(opened, kind, name, number)[1])
    if other is None:
        after, label = _shown(opened, kind, name), "now"
    else:
        after, label = _as_text(version_text(opened, kind, name, other)[1]), f"version {other}"
    yield from difflib.unified_diff(
        before.splitlines(), after.splitlines(), f"version {number}", label, lineterm="", n=2
    )


def restore_version(
    opened: OpenWorkspace,
    kind: VersionKind,
    name: str,
    number: int,
    *,
    seen_sha256: str | None,
    connection: str = "",
    check: CheckQuery | None = None,
    caller: Caller,
    now: datetime,
) -> list[str]:
    """Makes a version the newest one again, by the function with which the page saves such a file.

    Args:
        opened: The workspace.
        kind: Of the file.
        name: As in `versions_of`.
        number: The version.
        seen_sha256: Of the file that the caller has read, empty if there was none; None: any version is replaced.
        connection: As SQL of which database a query is checked; empty: that of the jobs that read it.
        check: Checks a query in another process, by connection, path and content; None: it is done in this one.
        caller: Who asks for it.
        now: The clock.

    Returns:
        The connections and clusters whose password has to be entered again.

    Raises:
        AccessRefused: The caller may not change such a file.
        NoSuchVersion: The file has no such version.
        NewerEdit: The file was changed since it was read.
        ConfigError: The version is not accepted any more, or no connection is known for the query; nothing is written.
        StorageFailed: The file cannot be written.
    """
    _, content = version_text(opened, kind, name, number)
    workspace, ledger = opened.workspace, opened.ledger
    if kind == "job":
        if name not in job_files(workspace):
            restore_job(workspace, ledger, name, content=content, caller=caller, now=now)
        else:
            job = parse_job(workspace.queries_dir / f"{name}{SUFFIX}", _as_text(content))
            replace_job(workspace, ledger, job, content=content, seen_sha256=seen_sha256, caller=caller, now=now)
        return []
    if kind == "query":
        if name not in query_names(workspace):
            restore_query(workspace, ledger, name, version_id=number, caller=caller, now=now)
        else:
            _save_query(opened, name, content, connection, seen_sha256, check, caller, now)
        return []
    stored = read_stored(workspace.connections_file)
    current = document_of(stored)
    document, missing = brought_back(_as_text(content), current)
    seen = stored.sha256 if seen_sha256 is None else seen_sha256
    about = f"connections.json as of version {number}"
    save_connections(
        workspace, ledger, document, opened.variables, about=about, seen_sha256=seen, caller=caller, now=now
    )
    return missing


def _save_query(
    opened: OpenWorkspace,
    name: str,
    content: bytes,
    connection: str,
    seen_sha256: str | None,
    check: CheckQuery | None,
    caller: Caller,
    now: datetime,
) -> None:
    database = connection or _connection_of(opened, name)
    dialect, writes = opened.connections.dialect(database), opened.connections.allows_writes(database)
    save_query(
        opened.workspace,
        opened.ledger,
        name,
        content,
        dialect=dialect,
        allow_writes=writes,
        seen_sha256=read_query(opened.workspace, name).sha256 if seen_sha256 is None else seen_sha256,
        caller=caller,
        now=now,
        check=partial(check, database) if check else partial(check_query, dialect=dialect, allow_writes=writes),
    )


def _connection_of(opened: OpenWorkspace, name: str) -> str:
    """Returns the connection of the jobs that read an SQL file, or the only one that there is."""
    found = {job.connection for job in uses_of_query(opened.workspace, opened.ledger, name).jobs}
    known = found or set(opened.connections.database_names)
    if len(known) != 1:
        raise ConfigError(
            f"it is not clear as SQL of which database {name} is to be checked",
            why=f"jobs read it from {', '.join(sorted(found))}" if found else "no job reads it",
            remedy="name the connection",
        )
    return known.pop()


@contextmanager
def _kept(opened: OpenWorkspace, kind: VersionKind, name: str) -> Iterator[list[_Kept]]:
    """Yields the versions, newest first, which can be read within it; raises as `versions_of`."""
    if kind == "query":
        with query_versions(opened.workspace) as versions:
            found = [
                _Kept(
                    one.version_id,
                    one.seen_at,
                    one.saved_by,
                    one.size_bytes,
                    partial(versions.content, name, one.version_id),
                )
                for one in versions.of_query(name)
            ]
            if not found:
                _current(opened, kind, name)
            yield found
        return
    ledger = opened.ledger
    kept: list[tuple[JobVersion | ConnectionsVersion, bytes]] = (
        [(one, one.content) for one in ledger.job_versions.of_job(name)]
        if kind == "job"
        else [(one, one.document.encode()) for one in ledger.connections_versions.newest_first()]
    )
    if not kept:
        _current(opened, kind, name)
    yield [
        _Kept(len(kept) - place, one.seen_at, one.saved_by, len(content), partial(bytes, content))
        for place, (one, content) in enumerate(kept)
    ]


def _file_version(version: _Kept, lines: Counter[str] | None, before: Counter[str] | None) -> FileVersion:
    """Returns a version; a line that was moved is neither added nor removed."""
    added = removed = None
    if lines is not None and before is not None:
        added, removed = (lines - before).total(), (before - lines).total()
    return FileVersion(version.number, version.seen_at, version.saved_by, version.size_bytes, added, removed)


def sha256_now(opened: OpenWorkspace, kind: VersionKind, name: str) -> str:
    """Returns the hash of the file as it is now; empty: there is none."""
    if kind == "job" and name not in job_files(opened.workspace):
        return ""
    if kind == "query" and name not in query_names(opened.workspace):
        return ""
    return _current(opened, kind, name).sha256


def _current(opened: OpenWorkspace, kind: VersionKind, name: str) -> StoredFile:
    """Reads the file as it is now.

    Raises:
        NoSuchJob: There is no such job.
        NoSuchQuery: There is no such SQL file.
    """
    if kind == "job":
        return read_stored(read_job_file(opened.workspace, name).path)
    return read_query(opened.workspace, name) if kind == "query" else read_stored(opened.workspace.connections_file)


def _shown(opened: OpenWorkspace, kind: VersionKind, name: str) -> str:
    """Returns the file as it is now, with `***` in place of passwords; empty: it was deleted."""
    if not sha256_now(opened, kind, name):
        return ""
    stored = _current(opened, kind, name)
    if kind == "connections":
        return json.dumps(hidden_secrets(document_of(stored)), ensure_ascii=False, indent=2)
    return stored.text


def _as_text(content: bytes) -> str:
    return StoredFile(Path(), content, "").text


def _label(kind: VersionKind, name: str) -> str:
    return {"job": f'job "{name}"', "query": f"SQL file {name}", "connections": "connections.json"}[kind]
