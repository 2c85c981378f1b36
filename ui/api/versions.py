"""`/api/files/versions`: the versions of a job, an SQL file or connections.json, and the way back to one."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query, Response

from core.admin.versions import VersionKind, restore_version, sha256_now, version_text, versions_of
from core.workspace.stored_file import StoredFile
from ui import apart
from ui.api import file_shapes
from ui.api.auth import Changer, Reader
from ui.api.etags import ETAG, IfMatch, required_match, seen_sha256
from ui.api.problems import responses
from ui.api.workspace import now, opened

router = APIRouter(prefix="/files/versions", tags=["files"], responses=responses(401, 403, 404, 422, 503))

Kind = Annotated[VersionKind, Query(description="Of the file.", examples=["job"])]
Name = Annotated[
    str,
    Query(
        max_length=300,
        description="The id of the job, or the SQL file below queries/; none for connections.",
        examples=["export-cdg-tracce"],
    ),
]


@router.get("", responses={200: ETAG})
def versions(caller: Reader, kind: Kind, response: Response, name: Name = "") -> file_shapes.VersionRows:
    """The versions of a file that were saved or found, also of a deleted one. The ETag is that of the file as it is now."""
    with opened() as app:
        found = versions_of(app, kind, name)
        if etag := sha256_now(app, kind, name):
            response.headers["ETag"] = f'"{etag}"'
    return file_shapes.VersionRows(items=[file_shapes.VersionRow(**asdict(one)) for one in found])


@router.get("/{number}")
def version(caller: Reader, number: int, kind: Kind, name: Name = "") -> file_shapes.VersionDetail:
    """One version with its text."""
    with opened() as app:
        found, content = version_text(app, kind, name, number)
    return file_shapes.VersionDetail(**asdict(found), text=StoredFile(Path(), content, "").text)


@router.post("/{number}/restore", responses={**responses(409, 412, 428), 200: ETAG})
def restore(
    caller: Changer,
    number: int,
    kind: Kind,
    response: Response,
    name: Name = "",
    connection: Annotated[
        str, Query(max_length=300, description="A query is checked as its SQL; empty: that of the jobs that read it.")
    ] = "",
    match: IfMatch = None,
) -> file_shapes.RestoredVersion:
    """Makes a version the newest again, unless the file was changed after you read it. connections.json needs an admin."""
    with opened() as app:
        stored = sha256_now(app, kind, name)
        missing = restore_version(
            app,
            kind,
            name,
            number,
            seen_sha256=seen_sha256(stored, required_match(match)) if stored else "",
            connection=connection,
            check=partial(apart.checked, app.workspace.root),
            caller=caller,
            now=now(),
        )
        etag = f'"{sha256_now(app, kind, name)}"'
    response.headers["ETag"] = etag
    return file_shapes.RestoredVersion(kind=kind, name=name, number=number, etag=etag, missing_passwords=missing)
