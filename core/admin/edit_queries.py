"""Renames, deletes and lists SQL files. Their versions are kept, so that a deleted one can be brought back.

A rename is a change of several files. It is written down before it begins: what a power cut leaves half done is completed
by the next change of an SQL file, or by the start of the runner. Until then every job runs, as both names exist.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from core.admin.edit_files import require_query_name
from core.admin.edit_jobs import BEFORE, NameTaken, editing, job_files, require_seen
from core.admin.uses import uses_of_query
from core.errors import ConfigError, PsttError, StorageFailed
from core.records.edits_file import EditsFile
from core.records.ledger import Ledger
from core.records.query_versions import QueryVersions
from core.records.rights import Caller, require
from core.workspace.atomic import write_atomically
from core.workspace.jobs import SUFFIX, JobFile, read_job_file
from core.workspace.json_file import parse_json_file
from core.workspace.paths import Workspace
from core.workspace.stored_file import StoredFile, read_stored

__all__ = [
    "NoSuchQuery",
    "QueryInUse",
    "delete_query",
    "finish_rename",
    "query_names",
    "query_versions",
    "read_query",
    "rename_query",
]

_VALUE = re.compile(r'(:\s*)"(?:[^"\\]|\\.)*"')


class NoSuchQuery(ConfigError):
    """There is no SQL file of that name."""


class QueryInUse(ConfigError):
    """Jobs read the SQL file that is to be deleted."""


def query_names(workspace: Workspace) -> list[str]:
    """Returns the SQL files of `queries/`, also those in folders below it, sorted."""
    folder = workspace.queries_dir
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.sql") if path.is_file())


def read_query(workspace: Workspace, name: str) -> StoredFile:
    """Reads an SQL file. Its name is compared with those in `queries/` and is never used as a path.

    Raises:
        NoSuchQuery: There is no such file.
        ConfigError: It cannot be read.
    """
    found = read_stored(workspace.queries_dir / name) if name in query_names(workspace) else None
    if found is None or not found.sha256:
        raise NoSuchQuery(f"there is no SQL file {name} in queries/")
    return found


@contextmanager
def query_versions(workspace: Workspace) -> Iterator[QueryVersions]:
    """Yields the versions of the SQL files."""
    with EditsFile(workspace.edits_file) as file:
        yield QueryVersions(file)


def delete_query(
    workspace: Workspace,
    ledger: Ledger,
    name: str,
    *,
    seen_sha256: str | None,
    even_if_used: bool,
    caller: Caller,
    now: datetime,
) -> None:
    """Deletes an SQL file; its versions are kept.

    Args:
        workspace: Where.
        ledger: Stores the audit line.
        name: Of the file below `queries/`.
        seen_sha256: Of the file that the caller has read; None: any version is deleted.
        even_if_used: Also where jobs read it: their runs fail until it is back.
        caller: Who deletes it.
        now: The clock.

    Raises:
        AccessRefused: The caller may not change SQL files.
        NoSuchQuery: There is none.
        NewerEdit: It was changed since it was read.
        QueryInUse: Jobs read it.
        StorageFailed: It cannot be deleted.
    """
    require(caller, "delete query")
    with editing(workspace), query_versions(workspace) as versions:
        _finish(workspace, ledger, versions)
        before = read_query(workspace, name)
        require_seen(name, before.sha256, seen_sha256)
        used = uses_of_query(workspace, ledger, name).jobs
        if used and not even_if_used:
            raise QueryInUse(
                f"{name} is read by {', '.join(job.slug for job in used)}",
                why="these jobs fail without it",
                remedy="give them another query first, or delete it all the same",
            )
        versions.add(name, before.content, now - BEFORE)
        _remove(before.path)
        versions.end(name, now, caller.name)
        jobs = [job.slug for job in used]
        ledger.audit.add(
            caller.name, "delete query", f"query {name}", now, before={"sha256": before.sha256, "jobs": jobs}
        )


def rename_query(
    workspace: Workspace,
    ledger: Ledger,
    name: str,
    new_name: str,
    *,
    seen_sha256: str | None,
    caller: Caller,
    now: datetime,
) -> list[str]:
    """Renames an SQL file, in its folder or into another one below `queries/`. Every job that reads it follows.

    Args:
        workspace: Where.
        ledger: Stores the versions of the jobs and the audit line.
        name: Of the file below `queries/`.
        new_name: Its name from now on.
        seen_sha256: Of the file that the caller has read; None: any version is renamed.
        caller: Who renames it.
        now: The clock.

    Returns:
        The slugs of the jobs that were changed.

    Raises:
        AccessRefused: The caller may not change SQL files.
        NoSuchQuery: There is none.
        NewerEdit: It was changed since it was read.
        NameTaken: There is a file of the new name, in whatever case.
        ConfigError: The new name is not valid, or a job file names the SQL file and is no JSON.
        StorageFailed: A file cannot be written; nothing is changed.
    """
    require(caller, "rename query")
    require_query_name(workspace, new_name)
    with editing(workspace), query_versions(workspace) as versions:
        _finish(workspace, ledger, versions)
        before = read_query(workspace, name)
        require_seen(name, before.sha256, seen_sha256)
        if new_name.lower() in map(str.lower, query_names(workspace)):
            raise NameTaken(f"there is an SQL file {new_name} already", remedy="choose another name")
        rename = _Rename(name, new_name, caller.name, now)
        jobs = _jobs_of(workspace, name)
        rename.write_down(workspace)
        try:
            _carry_out(workspace, rename, before.content, jobs)
        except PsttError:
            _undo(workspace, rename, jobs)
            raise
        _record(workspace, ledger, versions, rename, before.content, jobs)
        _note(workspace).unlink(missing_ok=True)
    return [job.slug for job in jobs]


def finish_rename(workspace: Workspace, ledger: Ledger) -> None:
    """Completes a rename that a crash has interrupted; does nothing if there is none.

    Raises:
        LedgerBusy: Another process is changing a file.
        StorageFailed: A file cannot be written.
    """
    if not _note(workspace).exists():
        return
    with editing(workspace), query_versions(workspace) as versions:
        _finish(workspace, ledger, versions)


@dataclass(frozen=True, slots=True)
class _Rename:
    """What is written down before the first file is changed."""

    name: str
    new_name: str
    caller: str
    at: datetime

    def write_down(self, workspace: Workspace) -> None:
        note = {"name": self.name, "new_name": self.new_name, "caller": self.caller, "at": self.at.isoformat()}
        write_atomically(_note(workspace), json.dumps(note))


def _note(workspace: Workspace) -> Path:
    return workspace.state_dir / "rename.json"


def _finish(workspace: Workspace, ledger: Ledger, versions: QueryVersions) -> None:
    """Completes an interrupted rename; the lock is held."""
    note = _note(workspace)
    if not note.exists():
        return
    try:
        found = json.loads(note.read_text(encoding="utf-8"))
        at = datetime.fromisoformat(found["at"]).astimezone(UTC)
        rename = _Rename(found["name"], found["new_name"], found["caller"], at)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StorageFailed(f"{note} cannot be read", why=str(error), remedy="move it away") from None
    stored = read_stored(workspace.query_file(rename.name))
    if not stored.sha256:  # the last step was done
        stored = read_stored(workspace.query_file(rename.new_name))
    jobs = _jobs_of(workspace, rename.name)
    _carry_out(workspace, rename, stored.content, jobs)
    _record(workspace, ledger, versions, rename, stored.content, jobs)
    note.unlink(missing_ok=True)


def _carry_out(workspace: Workspace, rename: _Rename, content: bytes, jobs: list[JobFile]) -> None:
    """Writes the new file, then each job, and removes the old file last: at any time every job finds its query."""
    new = workspace.query_file(rename.new_name)
    if not new.exists():  # else it was written before the crash, and may have been edited since
        write_atomically(new, content)
    for job in jobs:
        write_atomically(job.path, _with_query(job, rename.new_name))
    _remove(workspace.query_file(rename.name))


def _undo(workspace: Workspace, rename: _Rename, jobs: list[JobFile]) -> None:
    """Puts every file back. If that fails too, the note stays and the rename is completed later."""
    for job in jobs:
        if read_stored(job.path).sha256 != job.sha256:
            write_atomically(job.path, job.text)
    if workspace.query_file(rename.name).exists():
        _remove(workspace.query_file(rename.new_name))
        _note(workspace).unlink(missing_ok=True)


def _record(
    workspace: Workspace,
    ledger: Ledger,
    versions: QueryVersions,
    rename: _Rename,
    content: bytes,
    jobs: list[JobFile],
) -> None:
    """Writes the versions and the audit line of a rename that is done."""
    versions.add(rename.name, content, rename.at - BEFORE)
    versions.rename(rename.name, rename.new_name)
    for job in jobs:
        saved = read_job_file(workspace, job.slug)
        ledger.job_versions.add(job.slug, job.sha256, job.text, rename.at - BEFORE)
        ledger.job_versions.add(job.slug, saved.sha256, saved.text, rename.at, saved_by=rename.caller)
    after = {"name": rename.new_name, "jobs": [job.slug for job in jobs]}
    ledger.audit.add(rename.caller, "rename query", f"query {rename.name}", rename.at, before=rename.name, after=after)


def _jobs_of(workspace: Workspace, name: str) -> list[JobFile]:
    """Returns the job files that read that SQL file, also those with a problem.

    Raises:
        ConfigError: A file is no JSON and has the name in it: whether it reads the SQL file is not known.
    """
    path = workspace.query_file(name)
    found = []
    for slug in job_files(workspace):
        job = read_job_file(workspace, slug)
        try:
            query = parse_json_file(job.path, job.text).document.get("query")
        except ConfigError as error:
            if name in job.text:
                raise ConfigError(
                    f"{slug}{SUFFIX} has the name {name} in it and is no valid JSON",
                    why=error.what,
                    remedy="fix that file first",
                    file=job.path,
                ) from None
            continue
        if isinstance(query, str) and query and workspace.queries_dir / query == path:
            found.append(job)
    return found


def _with_query(job: JobFile, query: str) -> str:
    """Returns the text of a job file with another query; every other character stays as it is."""
    file = parse_json_file(job.path, job.text)
    at = file.offsets["query",]
    value = json.dumps(query, ensure_ascii=False)
    return file.text[:at] + _VALUE.sub(lambda found: f"{found[1]}{value}", file.text[at:], count=1)


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise StorageFailed(f"{path} cannot be removed", why=error.strerror or str(error)) from None
