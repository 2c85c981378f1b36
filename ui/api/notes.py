"""`/api/scheduler/notes`: what users have written about the days of jobs, such as why one is missing."""

from __future__ import annotations

from dataclasses import asdict
from datetime import date
from typing import Annotated

from fastapi import APIRouter, Depends, Query

from core.admin.day_notes import write_note
from ui.api import shapes
from ui.api.auth import MessageSender, Reader
from ui.api.body import document
from ui.api.documents import takes
from ui.api.problems import responses
from ui.api.workspace import now, opened

router = APIRouter(prefix="/scheduler", tags=["scheduler"], responses=responses(401, 403, 422, 503))

EXAMPLE = {"day": "2026-01-16", "text": "the database was down for maintenance until noon; sent again by hand"}


@router.get("/notes")
def notes(
    caller: Reader,
    job: Annotated[str | None, Query(max_length=300, description="Its id; left out: every job.")] = None,
    first: Annotated[date | None, Query(alias="from", description="The first day.", examples=["2026-01-01"])] = None,
    last: Annotated[
        date | None, Query(alias="to", description="The last day, included.", examples=["2026-01-31"])
    ] = None,
) -> shapes.NoteRows:
    """The notes on days, the newest day first."""
    with opened() as app:
        found = app.ledger.day_notes.between(first or date.min, last or date.max, job)
    return shapes.NoteRows(items=[shapes.NoteRow(**asdict(one)) for one in found])


@router.put(
    "/scheduling/{id}/notes",
    responses=responses(404, 413, 415),
    openapi_extra=takes(shapes.NoteShape, example=EXAMPLE),
)
def write(
    caller: MessageSender, id: str, asked: Annotated[shapes.NoteShape, Depends(document(shapes.NoteShape))]
) -> shapes.NoteRow:
    """Writes the note on a day of a job, in place of the one that was there. An empty text removes it."""
    with opened() as app:
        note = write_note(app, id, asked.day, asked.text, caller=caller, now=now())
    if note is None:
        return shapes.NoteRow(job=id, day=asked.day, text="", written_by=None, written_at=None)
    return shapes.NoteRow(**asdict(note))
