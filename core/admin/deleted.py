"""Lists deleted jobs, SQL files, connections and clusters, and brings them back from their versions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from core.admin.edit_files import brought_back, require_query_name, save_connections
from core.admin.edit_jobs import NameTaken, editing, job_files, require_free_name
from core.admin.edit_queries import query_names, query_versions
from core.errors import ConfigError
from core.records.connections_versions import ConnectionsVersion
from core.records.ledger import Ledger
from core.records.rights import Caller, require
from core.workspace.atomic import write_atomically
from core.workspace.jobs import SUFFIX, JobFile, checked_job, parse_job, read_job_file, save_job
from core.workspace.json_file import document_of
from core.workspace.paths import Workspace
from core.workspace.stored_file import StoredFile, read_stored

__all__ = ["Deleted", "DeletedKind", "NothingDeleted", "deleted", "restore_entry", "restore_job", "restore_query"]

_LONG_AGO = datetime.min.replace(tzinfo=UTC)
DeletedKind = Literal["job", "query", "connection", "cluster"]


class NothingDeleted(ConfigError):
    """No version of such a thing is known, so it cannot be brought back."""


@dataclass(frozen=True, slots=True)
class Deleted:
    """Something that was deleted and can be brought back."""

    kind: DeletedKind
    name: str
    """Slug of a job, name of an SQL file or of a connection, key of a cluster."""
    title: str
    """The name of a job or cluster for people; else as `name`."""
    deleted_at: datetime | None
    """None: it was deleted outside of PSTT Kafka, and no process has noticed when."""
    deleted_by: str
    """Empty: not known."""


def deleted(workspace: Workspace, ledger: Ledger) -> list[Deleted]:
    """Returns what was deleted and has a version, the newest deletion first."""
    found = [*_jobs(workspace, ledger), *_queries(workspace), *_entries(workspace, ledger)]
    return sorted(found, key=lambda one: one.deleted_at or _LONG_AGO, reverse=True)


def _jobs(workspace: Workspace, ledger: Ledger) -> list[Deleted]:
    there = {slug.lower() for slug in job_files(workspace)}
    seen = ledger.job_versions.deleted()
    found = []
    for slug in ledger.job_versions.jobs():
        version = ledger.job_versions.get(slug)
        if slug.lower() in there or version is None:
            continue
        entry = next((e for e in ledger.audit.entries(f"job {slug}", 1) if e.action == "delete"), None)
        job, _ = checked_job(workspace.queries_dir / f"{slug}{SUFFIX}", version.document)
        at = entry.at if entry else seen.get(slug)
        found.append(Deleted("job", slug, job.name if job else slug, at, entry.who if entry else ""))
    return found


def _queries(workspace: Workspace) -> list[Deleted]:
    there = {name.lower() for name in query_names(workspace)}
    with query_versions(workspace) as versions:
        newest = [one for one in versions.newest_of_each() if one.query.lower() not in there]
    return [
        Deleted("query", one.query, one.query, None if one.sha256 else one.seen_at, "" if one.sha256 else one.saved_by)
        for one in newest
    ]


def _entries(workspace: Workspace, ledger: Ledger) -> list[Deleted]:
    current = _document(workspace)
    known = {(kind, name) for kind, name, _ in _entries_of(current)}
    found: list[Deleted] = []
    newer: ConnectionsVersion | None = None
    for version in ledger.connections_versions.newest_first():
        for kind, name, entry in _entries_of(json.loads(version.document)):
            if (kind, name) not in known:
                known.add((kind, name))
                title = str(entry.get("name") or name)
                at, who = (newer.seen_at, newer.saved_by) if newer else (None, "")
                found.append(Deleted(kind, name, title, at, who))
        newer = version
    return found


def _entries_of(document: Mapping[str, Any]) -> list[tuple[DeletedKind, str, dict[str, Any]]]:
    """Returns kind, name and entry of each connection and cluster in a text of connections.json."""
    databases, clusters = document.get("connections"), document.get("kafka_connections")
    found: list[tuple[DeletedKind, str, dict[str, Any]]] = []
    for entry in databases if isinstance(databases, list) else []:
        if isinstance(entry, dict) and str(entry.get("name") or "").strip():
            found.append(("connection", str(entry["name"]), entry))
    for key, entry in clusters.items() if isinstance(clusters, dict) else ():
        if isinstance(entry, dict) and key.strip():
            found.append(("cluster", key, entry))
    return found


def _document(workspace: Workspace) -> dict[str, Any]:
    """Returns connections.json as it is; empty if there is none.

    Raises:
        ConfigError: It is no JSON.
    """
    return document_of(read_stored(workspace.connections_file))


def restore_job(
    workspace: Workspace, ledger: Ledger, slug: str, *, content: bytes | None = None, caller: Caller, now: datetime
) -> JobFile:
    """Writes a version of a deleted job's file again, byte for byte; its calendar begins now.

    Args:
        workspace: Where.
        ledger: Has the versions, and stores the audit line.
        slug: Of the job.
        content: Of one of its versions; None: that of the newest one.
        caller: Who asks for it.
        now: The clock.

    Raises:
        AccessRefused: The caller may not change jobs.
        NothingDeleted: No version of such a job is known.
        NameTaken: There is such a job, or one with its name.
        ConfigError: This version of the program does not accept the file any more.
        StorageFailed: The file cannot be written.
    """
    require(caller, "restore")
    with editing(workspace):
        if slug.lower() in map(str.lower, job_files(workspace)):
            raise NameTaken(f"there is a job file {slug}{SUFFIX}", remedy="delete or rename it first")
        version = ledger.job_versions.get(slug)
        if version is None:
            raise NothingDeleted(f'no version of a job "{slug}" is known')
        if content is None:
            content = version.content
        path = workspace.inside(f"{slug}{SUFFIX}", workspace.queries_dir)
        job = parse_job(path, StoredFile(path, content, "").text)
        require_free_name(workspace, job)
        save_job(workspace, job, content)
        saved = read_job_file(workspace, slug)
        ledger.job_versions.add(slug, saved.sha256, saved.text, now, saved_by=caller.name)
        ledger.audit.add(caller.name, "restore", f"job {slug}", now, after=saved.text)
    return saved


def restore_query(
    workspace: Workspace, ledger: Ledger, name: str, *, version_id: int | None = None, caller: Caller, now: datetime
) -> None:
    """Writes a version of a deleted SQL file again, byte for byte.

    Args:
        workspace: Where.
        ledger: Stores the audit line.
        name: Of the file below `queries/`.
        version_id: Of the version; None: the newest one.
        caller: Who asks for it.
        now: The clock.

    Raises:
        AccessRefused: The caller may not change SQL files.
        NothingDeleted: No such version of such a file is known.
        NameTaken: There is such a file.
        StorageFailed: The file cannot be written.
    """
    require(caller, "restore")
    with editing(workspace), query_versions(workspace) as versions:
        if name.lower() in map(str.lower, query_names(workspace)):
            raise NameTaken(f"there is an SQL file {name}", remedy="delete or rename it first")
        wanted = (one for one in versions.of_query(name) if version_id in (None, one.version_id))
        version = next(wanted, None)
        if version is None:
            raise NothingDeleted(f"no version of an SQL file {name} is known")
        content = versions.content(name, version.version_id)
        write_atomically(require_query_name(workspace, name), content)
        versions.add(name, content, now, saved_by=caller.name)
        ledger.audit.add(caller.name, "restore", f"query {name}", now, after={"sha256": version.sha256})


def restore_entry(
    workspace: Workspace,
    ledger: Ledger,
    kind: Literal["connection", "cluster"],
    name: str,
    environ: Mapping[str, str],
    *,
    caller: Caller,
    now: datetime,
) -> bool:
    """Puts a deleted connection or cluster into connections.json again, as it was last.

    Returns:
        False: its password was in the file itself, which no version keeps; it has to be entered again.

    Raises:
        AccessRefused: The caller is no admin.
        NothingDeleted: No version of such an entry is known.
        NameTaken: There is such an entry.
        ConfigError: connections.json is no JSON, or the entry is not accepted any more.
        StorageFailed: The file cannot be written.
    """
    require(caller, "connections")
    seen = read_stored(workspace.connections_file).sha256
    current = _document(workspace)
    if any((kind, name) == (other, there) for other, there, _ in _entries_of(current)):
        raise NameTaken(f"there is a {kind} {name}", remedy="delete or rename it first")
    entry = _newest_entry(ledger, kind, name)
    if kind == "connection":
        only: dict[str, Any] = {"connections": [entry]}
        restored, missing = brought_back(json.dumps(only), {})
        document = {**current, "connections": [*current.get("connections", []), *restored["connections"]]}
    else:
        only = {"kafka_connections": {name: entry}}
        restored, missing = brought_back(json.dumps(only), {})
        document = {
            **current,
            "kafka_connections": {**current.get("kafka_connections", {}), **restored["kafka_connections"]},
        }
    save_connections(
        workspace, ledger, document, environ, about=f"{kind} {name}", seen_sha256=seen, caller=caller, now=now
    )
    return not missing


def _newest_entry(ledger: Ledger, kind: DeletedKind, name: str) -> dict[str, Any]:
    for version in ledger.connections_versions.newest_first():
        for other, there, entry in _entries_of(json.loads(version.document)):
            if (other, there) == (kind, name):
                return entry
    raise NothingDeleted(f"no version of a {kind} {name} is known")
