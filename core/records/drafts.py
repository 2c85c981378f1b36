"""What a user typed on the page and has not saved."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from core.clock import iso_utc
from core.records.edits_file import EditsFile
from core.records.rows import from_row

__all__ = ["KEPT_DAYS", "KEPT_DRAFTS", "LARGEST_DRAFT_BYTES", "Draft", "DraftKind", "Drafts"]

DraftKind = Literal["job", "query", "connection"]
KEPT_DAYS = 30
KEPT_DRAFTS = 50
"""Of each user; the oldest ones are dropped."""
LARGEST_DRAFT_BYTES = 2_000_000
"""More is an uploaded file, which the user still has."""


@dataclass(frozen=True, slots=True)
class Draft:
    """What one user typed into one form."""

    user: str
    kind: DraftKind
    name: str
    """Of the job, SQL file or entry; empty: a new one."""
    base_sha256: str
    """Of the file when the draft was begun; empty: there was none."""
    document: str
    """The typed values, as JSON or SQL. It has no secret: the form leaves them out."""
    saved_at: datetime


class Drafts:
    """The drafts of all users of one workspace. They are dropped after `KEPT_DAYS`."""

    def __init__(self, file: EditsFile) -> None:
        self._file = file

    def save(self, draft: Draft) -> bool:
        """Writes a draft in place of the one before. Returns False if it is too large: the one before stays."""
        document = draft.document.encode("utf-8", "replace")  # SQLite takes no half of a character
        if len(document) > LARGEST_DRAFT_BYTES:
            return False
        row = {
            "user": draft.user,
            "kind": draft.kind,
            "name": draft.name,
            "base_sha256": draft.base_sha256,
            "document": document.decode(),
            "saved_at": iso_utc(draft.saved_at),
        }
        with self._file.transaction() as db:
            db.execute(self._file.sql["save_draft"], row)
            old = {"since": _oldest(draft.saved_at), "user": draft.user, "kept": KEPT_DRAFTS}
            db.execute(self._file.sql["drop_old_drafts"], old)
        return True

    def get(self, user: str, kind: DraftKind, name: str, now: datetime) -> Draft | None:
        """Returns the draft of a user for that form; None: there is none."""
        values = {"user": user, "kind": kind, "name": name, "since": _oldest(now)}
        rows = self._file.rows("draft", values)
        return from_row(Draft, rows[0]) if rows else None

    def of_user(self, user: str, now: datetime) -> list[Draft]:
        """Returns the drafts of a user, newest first."""
        return [from_row(Draft, row) for row in self._file.rows("drafts", {"user": user, "since": _oldest(now)})]

    def drop(self, user: str, kind: DraftKind, name: str) -> None:
        """Deletes the draft of a user for that form, if there is one."""
        with self._file.transaction() as db:
            db.execute(self._file.sql["drop_draft"], {"user": user, "kind": kind, "name": name})


def _oldest(now: datetime) -> str:
    return iso_utc(now - timedelta(days=KEPT_DAYS))
