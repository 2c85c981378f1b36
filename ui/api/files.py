"""`/api/files`: the SQL files, their versions, and what was deleted and can be brought back."""

from __future__ import annotations

import os
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Depends, Header, Query, Response

from core.admin.deleted import deleted, restore_entry, restore_job, restore_query
from core.admin.edit_files import save_query
from core.admin.edit_queries import (
    delete_query,
    finish_rename,
    query_names,
    query_versions,
    read_query,
    rename_query,
)
from core.admin.uses import Uses, uses_of_query
from core.workspace.stored_file import StoredFile
from ui import apart
from ui.api import file_shapes
from ui.api.auth import Changer, Reader
from ui.api.body import document, large_document
from ui.api.documents import takes
from ui.api.etags import ETAG, IfMatch, required_match, seen_sha256
from ui.api.pages import Limit, Offset, page
from ui.api.problems import responses
from ui.api.workspace import now, opened

if TYPE_CHECKING:
    from core.app import App

router = APIRouter(prefix="/files", tags=["files"], responses=responses(401, 403, 422, 503))

QUERY = "CDG-KAFKA-001--SelezioneTracceGiornaliere.sql"
Name = Annotated[
    str, Query(max_length=300, description="The SQL file, below queries/; folders by /.", examples=[QUERY])
]


@router.get("/queries")
def queries(caller: Reader, limit: Limit = 100, offset: Offset = 0) -> file_shapes.QueryRows:
    """The SQL files, by name."""
    with opened() as app:
        shown = page(query_names(app.workspace), limit, offset)
        items = []
        for name in shown["items"]:
            stored = read_query(app.workspace, name)
            jobs = uses_of_query(app.workspace, app.ledger, name).jobs
            items.append(
                file_shapes.QueryRow(
                    name=name, size_bytes=len(stored.content), etag=_etag(stored), jobs=[job.slug for job in jobs]
                )
            )
    return file_shapes.QueryRows(**shown | {"items": items})


@router.get("/query", responses={**responses(404), 200: ETAG})
def query(caller: Reader, name: Name, response: Response) -> file_shapes.QueryDetail:
    """One SQL file: its text, the jobs that read it, and their runs that have not ended."""
    with opened() as app:
        stored = read_query(app.workspace, name)
        response.headers["ETag"] = _etag(stored)
        return _detail(name, stored, uses_of_query(app.workspace, app.ledger, name))


@router.put(
    "/query",
    responses={**responses(404, 412, 413, 415, 428), 200: ETAG},
    openapi_extra=takes(file_shapes.QueryShape, example={"sql": "SELECT 1 AS n", "connection": "A00-CDG-Collaudo"}),
)
def save(
    caller: Changer,
    name: Name,
    asked: Annotated[file_shapes.QueryShape, Depends(large_document(file_shapes.QueryShape))],
    response: Response,
    match: IfMatch = None,
    none_match: Annotated[
        str | None, Header(alias="If-None-Match", description="* for a new file.", examples=["*"])
    ] = None,
) -> file_shapes.SavedQuery:
    """Writes an SQL file that only reads, unless it was changed after you read it. A new one needs `If-None-Match: *`."""
    with opened() as app:
        finish_rename(app.workspace, app.ledger)
        seen = "" if none_match is not None and none_match.strip() == "*" else _seen(app, name, match)
        notes = save_query(
            app.workspace,
            app.ledger,
            name,
            asked.sql.encode(),
            dialect=app.connections.dialect(asked.connection),
            allow_writes=app.connections.allows_writes(asked.connection),
            seen_sha256=seen,
            caller=caller,
            now=now(),
            check=partial(apart.checked, app.workspace.root, asked.connection),
        )
        stored = read_query(app.workspace, name)
    response.headers["ETag"] = _etag(stored)
    return file_shapes.SavedQuery(name=name, etag=_etag(stored), notes=list(notes))


@router.delete("/query", status_code=HTTPStatus.NO_CONTENT, responses=responses(404, 409, 412, 428))
def delete(
    caller: Changer,
    name: Name,
    even_if_used: Annotated[bool, Query(description="Also where jobs read it; without it 409.")] = False,
    match: IfMatch = None,
) -> None:
    """Deletes an SQL file; its versions are kept, so that it can be brought back."""
    with opened() as app:
        seen = _seen(app, name, match)
        delete_query(
            app.workspace, app.ledger, name, seen_sha256=seen, even_if_used=even_if_used, caller=caller, now=now()
        )


@router.post(
    "/query/rename",
    responses=responses(404, 409, 412, 413, 415, 428),
    openapi_extra=takes(file_shapes.RenameShape, example={"new_name": "tracce.sql"}),
)
def rename(
    caller: Changer,
    name: Name,
    asked: Annotated[file_shapes.RenameShape, Depends(document(file_shapes.RenameShape))],
    match: IfMatch = None,
) -> file_shapes.RenamedQuery:
    """Renames an SQL file, and in the same step every job that reads it follows, or nothing is changed."""
    with opened() as app:
        seen = _seen(app, name, match)
        jobs = rename_query(app.workspace, app.ledger, name, asked.new_name, seen_sha256=seen, caller=caller, now=now())
    return file_shapes.RenamedQuery(name=asked.new_name, jobs=jobs)


@router.get("/query/versions")
def versions(caller: Reader, name: Name) -> file_shapes.QueryVersions:
    """The versions of an SQL file that were saved or found, the newest first; also of a deleted one."""
    with opened() as app, query_versions(app.workspace) as kept:
        rows = [
            file_shapes.QueryVersionRow(
                version_id=one.version_id, seen_at=one.seen_at, saved_by=one.saved_by, size_bytes=one.size_bytes
            )
            for one in kept.of_query(name)
        ]
    return file_shapes.QueryVersions(items=rows)


@router.get("/deleted")
def deleted_files(caller: Reader, limit: Limit = 100, offset: Offset = 0) -> file_shapes.DeletedRows:
    """The deleted jobs, SQL files, connections and clusters that can be brought back, the newest deletion first."""
    with opened() as app:
        shown = page(deleted(app.workspace, app.ledger), limit, offset)
    items = [
        file_shapes.DeletedRow(
            kind=one.kind, name=one.name, title=one.title, deleted_at=one.deleted_at, deleted_by=one.deleted_by
        )
        for one in shown["items"]
    ]
    return file_shapes.DeletedRows(**shown | {"items": items})


@router.post(
    "/restore",
    responses=responses(404, 409, 413, 415),
    openapi_extra=takes(file_shapes.RestoreShape, example={"kind": "job", "name": "export-cdg-tracce"}),
)
def restore(
    caller: Changer, asked: Annotated[file_shapes.RestoreShape, Depends(document(file_shapes.RestoreShape))]
) -> file_shapes.Restored:
    """Brings something deleted back as it was last. Connections and clusters need an admin."""
    needs_password = False
    with opened() as app:
        if asked.kind == "job":
            restore_job(app.workspace, app.ledger, asked.name, caller=caller, now=now())
        elif asked.kind == "query":
            restore_query(app.workspace, app.ledger, asked.name, caller=caller, now=now())
        else:
            needs_password = not restore_entry(
                app.workspace, app.ledger, asked.kind, asked.name, os.environ, caller=caller, now=now()
            )
    return file_shapes.Restored(kind=asked.kind, name=asked.name, needs_password=needs_password)


def _detail(name: str, stored: StoredFile, uses: Uses) -> file_shapes.QueryDetail:
    return file_shapes.QueryDetail(
        name=name,
        sql=stored.text,
        size_bytes=len(stored.content),
        jobs=[job.slug for job in uses.jobs],
        waiting_runs=uses.waiting_runs,
        running=uses.running,
    )


def _etag(stored: StoredFile) -> str:
    return f'"{stored.sha256}"'


def _seen(app: App, name: str, match: str | None) -> str:
    """Returns the hash of the version that the caller read; see `seen_sha256`."""
    return seen_sha256(read_query(app.workspace, name).sha256, required_match(match))
