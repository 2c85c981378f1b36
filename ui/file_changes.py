"""What the page does with files as a whole: SQL files renamed and deleted, deleted things brought back, what uses what.

As `ui.changes`: core checks the right and audits.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

import streamlit as st

from core.admin import deleted as deleted_files
from core.admin import edit_queries, uses
from core.admin.deleted import Deleted, DeletedKind
from core.admin.uses import Uses
from core.records.query_versions import QueryVersion
from core.workspace.connections import read_connections
from core.workspace.jobs import read_job_file
from core.workspace.paths import Workspace
from ui import changes, data

__all__ = ["Deleted", "DeletedKind", "QueryVersion", "Uses"]


def uses_of_job(slug: str) -> Uses:
    """Returns the runs of a job that have not ended."""
    with data.opened() as app:
        return uses.uses_of_job(app.ledger, read_job_file(app.workspace, slug).job)


def uses_of_query(name: str) -> Uses:
    """Returns the jobs that read an SQL file, and their runs that have not ended."""
    with data.opened() as app:
        return uses.uses_of_query(app.workspace, app.ledger, name)


def uses_of_connection(name: str) -> Uses:
    """Returns the jobs that read from a database connection, and their runs that have not ended."""
    with data.opened() as app:
        return uses.uses_of_connection(app.workspace, app.ledger, name)


def uses_of_cluster(key: str) -> Uses:
    """Returns the jobs that send to the cluster under that key of `kafka_connections`; also of an invalid file."""
    with data.opened() as app:
        connections, _ = read_connections(app.workspace, os.environ)
        return uses.uses_of_cluster(app.workspace, app.ledger, key, connections)


def uses_of_registry(key: str | None, own: Collection[str]) -> Uses:
    """Returns the jobs that need that registry; the arguments are those of `core.admin.uses.uses_of_registry`."""
    with data.opened() as app:
        connections, _ = read_connections(app.workspace, os.environ)
        return uses.uses_of_registry(app.workspace, app.ledger, key, own, connections)


def rename_query(name: str, new_name: str, seen_sha256: str) -> list[str]:
    """Renames an SQL file with its jobs. Returns the slugs of these jobs."""
    by = changes.caller("rename query")
    with data.opened() as app:
        jobs = edit_queries.rename_query(
            app.workspace, app.ledger, name, new_name, seen_sha256=seen_sha256, caller=by, now=data.now()
        )
    data.clear_caches()
    return jobs


def delete_query(name: str, seen_sha256: str) -> None:
    """Deletes an SQL file, also where jobs read it: the page has asked."""
    by = changes.caller("delete query")
    with data.opened() as app:
        edit_queries.delete_query(
            app.workspace, app.ledger, name, seen_sha256=seen_sha256, even_if_used=True, caller=by, now=data.now()
        )
    data.clear_caches()


def query_versions(name: str) -> list[QueryVersion]:
    """Returns the versions of an SQL file, newest first."""
    with edit_queries.query_versions(data.workspace()) as versions:
        return versions.of_query(name)


def query_version(name: str, version_id: int) -> bytes:
    """Returns the bytes of a version of an SQL file."""
    with edit_queries.query_versions(data.workspace()) as versions:
        return versions.content(name, version_id)


def deleted() -> list[Deleted]:
    """Returns what was deleted and can be brought back, the newest deletion first."""
    return _deleted(data.root())


@st.cache_data(ttl=data.STATUS_TTL_S, show_spinner=False, max_entries=32)
def _deleted(folder: Path) -> list[Deleted]:
    with data.opened() as app:
        return deleted_files.deleted(Workspace(folder), app.ledger)


def restore(kind: DeletedKind, name: str) -> bool:
    """Brings something back. Returns False if its password has to be entered again."""
    by = changes.caller("connections" if kind in ("connection", "cluster") else "restore")
    has_all = True
    with data.opened() as app:
        if kind == "job":
            deleted_files.restore_job(app.workspace, app.ledger, name, caller=by, now=data.now())
        elif kind == "query":
            deleted_files.restore_query(app.workspace, app.ledger, name, caller=by, now=data.now())
        else:
            has_all = deleted_files.restore_entry(
                app.workspace, app.ledger, kind, name, os.environ, caller=by, now=data.now()
            )
    data.clear_caches()
    return has_all
