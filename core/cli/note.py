"""The command `note`: what users have written about the days of jobs, such as why one is missing."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from typing import Annotated, Any

import typer

from core.admin.day_notes import known_job, write_note
from core.app import App
from core.cli.options import JsonOption, WorkspaceOption, day_of, now
from core.cli.output import print_json, print_lines
from core.clock import iso_utc
from core.errors import ConfigError
from core.formatting import local_time
from core.language import Data
from core.records.day_notes import DayNote
from core.records.rights import local_caller

__all__ = ["app"]

LISTED = timedelta(days=60)
"""The notes of these last days are listed, and those of days to come."""
app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def note(
    job: Annotated[
        str, typer.Argument(metavar="[JOB]", help="Only of this job; its file name without .job.json.")
    ] = "",
    day: Annotated[str, typer.Argument(metavar="[DAY]", help="Only of this day, such as 2026-01-17.")] = "",
    text: Annotated[
        str | None, typer.Option("--text", metavar="TEXT", help="Write this note on the day of the job.")
    ] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Remove the note on the day of the job.")] = False,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Lists the notes on the days of jobs, or writes one: why a day is missing, who was told. Everybody sees it."""
    if remove and text is not None:
        raise ConfigError("--text and --remove do not go together", remedy="give one of them")
    if (remove or text is not None) and not (job and day):
        raise ConfigError("a note is on a day of a job", remedy='write note JOB 2026-01-17 --text "why it is missing"')
    of_day = day_of("DAY", day) if day else None
    with App.open(workspace) as opened:
        slug = known_job(opened, job.removesuffix(".job.json")) if job else None
        if slug and of_day and (remove or text is not None):
            write_note(opened, slug, of_day, text or "", caller=local_caller(), now=now())
        first, last = (of_day, of_day) if of_day else ((now() - LISTED).date(), date.max)
        found, timezone = opened.ledger.day_notes.between(first, last, slug), opened.timezone
    if as_json:
        print_json({"notes": [note_document(one) for one in found]})
    else:
        print_lines(_lines(found, timezone))


def note_document(note: DayNote) -> dict[str, Any]:
    """Returns a note as JSON has it."""
    return {
        "job": note.job,
        "day": str(note.day),
        "text": note.text,
        "written_by": note.written_by,
        "written_at": iso_utc(note.written_at),
    }


def _lines(notes: list[DayNote], timezone: str) -> Iterator[str]:
    if not notes:
        yield "There is no note."
    for one in notes:
        yield Data(f"{one.day}  {one.job}: {one.text}").marked
        yield f"            {Data(one.written_by)}, {local_time(one.written_at, timezone)}"
