"""Column drift: the columns of each job's result are stored, so that a changed source is noticed before the first message.

A column that was removed, added or changed its kind changes what every reader of the topic gets. The order does not: JSON
has none. Nor does a length (`varchar(20)` → `varchar(30)`), which readers never see.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from core.clock import iso_utc
from core.errors import ConfigError
from core.model.job import Job
from core.records.rows import from_row
from core.records.store import Store

__all__ = ["ColumnMemory", "Columns", "Drift", "drift_between", "gained_types"]

Columns = Sequence[tuple[str, str, str]]
"""Name, kind, database type of each column."""


@dataclass(frozen=True, slots=True)
class _StoredColumns:
    """One job's row of the ledger."""

    columns: tuple[tuple[str, str, str], ...]
    found: tuple[tuple[str, str, str], ...] | None


@dataclass(frozen=True, slots=True)
class Drift:
    """The differences between two results."""

    gone: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.gone or self.added or self.changed)

    @property
    def text(self) -> str:
        """`gone: CANALE (varchar); added: X (int4)`, in one line."""
        parts = (("gone", self.gone), ("added", self.added), ("changed", self.changed))
        return "; ".join(f"{name}: {', '.join(columns)}" for name, columns in parts if columns)


def drift_between(before: Columns, after: Columns) -> Drift:
    """Returns the difference; names compare in any case, as everywhere in a job."""
    old, new = ({name.lower(): (name, kind, type_) for name, kind, type_ in columns} for columns in (before, after))
    return Drift(
        tuple(f"{name} ({type_})" for key, (name, _, type_) in old.items() if key not in new),
        tuple(f"{name} ({type_})" for key, (name, _, type_) in new.items() if key not in old),
        tuple(
            f"{new[key][0]} ({_change_text(old[key], new[key])})"
            for key in old.keys() & new.keys()
            if old[key][1] != new[key][1] and not _has_gained_its_type(old[key], new[key])
        ),
    )


def _has_gained_its_type(old: tuple[str, str, str], new: tuple[str, str, str]) -> bool:
    """Returns whether an SQLite column that was typed by its values now has its declared type, and the same JSON.

    Until 1.0.4 an alias of such a column had no type.
    """
    return old[1:] == ("unknown", "value") and new[1] in ("integer", "float", "decimal", "text", "char", "bytes")


def gained_types(before: Columns, after: Columns) -> bool:
    """Returns whether a column of unknown type has its declared type now, which changes no message."""
    now = {column[0].lower(): column for column in after}
    return any(_has_gained_its_type(column, now[column[0].lower()]) for column in before)


def _change_text(old: tuple[str, str, str], new: tuple[str, str, str]) -> str:
    if old[2] != new[2]:
        return f"{old[2]} → {new[2]}"
    return f"{old[2]}: {old[1]} → {new[1]}"


class ColumnMemory(Store):
    """The stored columns of one workspace; opened as every `Store`."""

    sql_file: ClassVar[str] = "columns.sql"

    def remembered(self, job: str) -> Columns | None:
        """Returns the accepted columns of a job; None: no run has read any."""
        stored = self._stored(job)
        return stored.columns if stored else None

    def found(self, job: str) -> Columns | None:
        """Returns the columns that a run was stopped for; None: there is nothing to accept."""
        stored = self._stored(job)
        return stored.found if stored else None

    def _stored(self, job: str) -> _StoredColumns | None:
        rows = self._rows("columns_of_job", {"job": job})
        return from_row(_StoredColumns, rows[0]) if rows else None

    def remember(self, job: str, columns: Columns, who: str, now: datetime) -> None:
        """Stores the accepted columns of a job."""
        self._write("accept_columns", {"job": job, "columns": json.dumps(columns), "who": who, "now": iso_utc(now)})

    def note(self, job: str, found: Columns | None, now: datetime) -> None:
        """Stores the columns that a run was stopped for, so that they can be accepted; None: the columns match again."""
        if found is None:
            self._write("forget_found_columns", {"job": job})
        else:
            self._write("note_found_columns", {"job": job, "found": json.dumps(found), "now": iso_utc(now)})

    def accept(self, job: Job, who: str, now: datetime) -> tuple[Columns, Columns]:
        """Accepts the columns that a run was stopped for; returns those accepted before and those accepted now.

        Raises:
            ConfigError: No run of the job was stopped for its columns.
        """
        before, after = self.remembered(job.slug), self.found(job.slug)
        if before is None or after is None:
            why = "no run has read its columns yet" if before is None else "its last run had the columns that are known"
            raise ConfigError(f'job "{job.name}" has no changed columns to accept', why=why)
        self.remember(job.slug, after, who, now)
        return before, after
