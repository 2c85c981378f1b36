"""What users write about a day of a job: why it is missing, who was told. One note a job and day; the audit trail has the earlier ones."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import ClassVar

from core.clock import iso_utc
from core.records.rows import from_row
from core.records.store import StorePart

__all__ = ["DayNote", "DayNotes"]


@dataclass(frozen=True, slots=True)
class DayNote:
    """The note on a day of a job."""

    job: str
    day: date
    """In the time zone of the job."""
    text: str
    written_by: str
    written_at: datetime


class DayNotes(StorePart):
    """The notes of one workspace, also of jobs that are deleted."""

    sql_file: ClassVar[str] = "day_notes.sql"

    def put(self, note: DayNote) -> None:
        """Writes a note in place of the one that was there."""
        written_at = iso_utc(note.written_at)
        row = {"job": note.job, "day": str(note.day), "text": note.text, "written_by": note.written_by}
        self._write("put", row | {"written_at": written_at})

    def remove(self, job: str, day: date) -> None:
        """Deletes a note; nothing happens where there is none."""
        self._write("remove", {"job": job, "day": str(day)})

    def between(self, first: date, last: date, job: str | None = None) -> list[DayNote]:
        """Returns the notes on these days, newest day first; of one job (its slug) or of all."""
        return [
            from_row(DayNote, row)
            for row in self._rows("between", {"first": str(first), "last": str(last), "job": job})
        ]

    def on(self, job: str, day: date) -> DayNote | None:
        """Returns the note on a day of a job; None: there is none."""
        return next(iter(self.between(day, day, job)), None)
