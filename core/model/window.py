"""What one run of an incremental job reads: the rows between two positions of its cursor."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from core.model.job import CursorKind

__all__ = ["Cursor", "RunWindow", "Window"]


@dataclass(frozen=True, slots=True)
class Cursor:
    """A position: the value of the cursor column and of the tie column, as text with every digit of the database.

    A time is `YYYY-MM-DD HH:MM:SS.ffffff`; one that ends in `Z` is UTC, another one is in the zone of the column.
    """

    value: str
    tie: str = ""
    """Empty: after all rows with that value."""

    @property
    def text(self) -> str:
        """For people."""
        return f"{self.value}, {self.tie}" if self.tie else self.value


@dataclass(frozen=True, slots=True)
class Window:
    """What a run will read, before its database is asked."""

    version: int
    """Of the watermark from which it starts; each move and each change by a user makes the next one. 0: there is none."""
    low: Cursor | None
    """The rows after it are read; None: from the first one."""
    latest: datetime | None = None
    """Aware. Rows with a later cursor are left to a later run; None: the cursor is no time."""
    since: Cursor | None = None
    """Look-back: rows after it are read too, and those in `known_ids` left out; None: no look-back."""
    known_ids: frozenset[bytes] = frozenset()
    """Ids of messages that earlier runs have sent from that time."""
    known_rejects: frozenset[str] = frozenset()
    """Rows from that time that earlier runs have rejected, as `core.model.run.Reject.content`."""
    high: Cursor | None = None
    """The end, where it is known before: of a replay, or of an earlier attempt of the same window."""
    moves: bool = True
    """False: a replay, which leaves the watermark where it is."""

    @property
    def first(self) -> Cursor | None:
        """The rows after it are read, with look-back."""
        return self.since or self.low


@dataclass(frozen=True, slots=True)
class RunWindow:
    """Which rows a run has read."""

    run_id: str
    job: str
    column_name: str
    kind: CursorKind
    tie_column: str
    version: int
    low: str
    low_tie: str
    since: str
    high: str
    high_tie: str
    nulls: int | None
    moved: bool

    @property
    def after(self) -> Cursor | None:
        """The run has read the rows after it; None: from the first one."""
        return Cursor(self.low, self.low_tie) if self.low else None

    @property
    def end(self) -> Cursor | None:
        """The position of the last row; None: there was no new row."""
        return Cursor(self.high, self.high_tie) if self.high else None

    @property
    def text(self) -> str:
        """In one line, for people."""
        name, after, end = self.column_name, self.after, self.end
        if after is None:
            return f"{name} from the first row up to {end.text}" if end else f"{name} from the first row: nothing new"
        return f"{name} after {after.text} up to {end.text}" if end else f"{name} after {after.text}: nothing new"
