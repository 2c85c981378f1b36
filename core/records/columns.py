"""Column drift: the columns of each job's result are remembered, so that a changed source is met before the first message.

A column that has gone, come or changed its kind changes what every reader of the topic gets. The order does not: JSON
has none. Nor does a length (`varchar(20)` → `varchar(30)`), which readers never see.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from core.clock import iso_utc
from core.errors import ColumnsChanged, ConfigError
from core.model.job import Job
from core.model.source import Column
from core.records.store import Store

__all__ = ["ColumnMemory", "Drift", "drift_between", "watcher"]

Shape = list[tuple[str, str, str]]
"""Name, kind, database type of each column."""


@dataclass(frozen=True, slots=True)
class Drift:
    """What is different."""

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


def drift_between(before: Shape, after: Shape) -> Drift:
    """The difference; names are compared whatever their case, as everywhere in a job."""
    old, new = ({name.lower(): (name, kind, type_) for name, kind, type_ in shape} for shape in (before, after))
    return Drift(
        tuple(f"{name} ({type_})" for key, (name, _, type_) in old.items() if key not in new),
        tuple(f"{name} ({type_})" for key, (name, _, type_) in new.items() if key not in old),
        tuple(
            f"{new[key][0]} ({_told(old[key], new[key])})"
            for key in old.keys() & new.keys()
            if old[key][1] != new[key][1] and not _is_type_made_known(old[key], new[key])
        ),
    )


def _is_type_made_known(old: tuple[str, str, str], new: tuple[str, str, str]) -> bool:
    """Whether an SQLite column taken by value now has its declared type, and the same JSON as before.

    Until 1.0.4 an alias of such a column had no type.
    """
    return old[1:] == ("unknown", "value") and new[1] in ("integer", "float", "decimal", "text", "char", "bytes")


def _has_types_made_known(before: Shape, after: Shape) -> bool:
    now = {column[0].lower(): column for column in after}
    return any(_is_type_made_known(column, now[column[0].lower()]) for column in before)


def _told(old: tuple[str, str, str], new: tuple[str, str, str]) -> str:
    if old[2] != new[2]:
        return f"{old[2]} → {new[2]}"
    return f"{old[2]}: {old[1]} → {new[1]}"


class ColumnMemory(Store):
    """The remembered columns of one workspace; opened as every `Store`."""

    sql_file: ClassVar[str] = "columns.sql"

    def remembered(self, job: str) -> Shape | None:
        """The columns that its runs may have; None: no run has had any."""
        rows = self._rows("columns_of_job", {"job": job})
        return _shape(rows[0]["columns"]) if rows else None

    def found(self, job: str) -> Shape | None:
        """The columns that a run was stopped for; None: there is nothing to accept."""
        rows = self._rows("columns_of_job", {"job": job})
        return _shape(rows[0]["found"]) if rows and rows[0]["found"] else None

    def remember(self, job: str, shape: Shape, who: str, now: datetime) -> None:
        """From now on these are right."""
        self._write("accept_columns", {"job": job, "columns": json.dumps(shape), "who": who, "now": iso_utc(now)})

    def note(self, job: str, found: Shape | None, now: datetime) -> None:
        """Keeps what a run was stopped for, so that it can be accepted; None: the columns are right again."""
        if found is None:
            self._write("forget_found_columns", {"job": job})
        else:
            self._write("note_found_columns", {"job": job, "found": json.dumps(found), "now": iso_utc(now)})

    def accept(self, job: Job, who: str, now: datetime) -> tuple[Shape, Shape]:
        """The columns that a run was stopped for are right from now on; what stood before, and what stands now.

        Raises:
            ConfigError: No run of the job was stopped for its columns.
        """
        before, after = self.remembered(job.slug), self.found(job.slug)
        if before is None or after is None:
            why = "no run has read its columns yet" if before is None else "its last run had the columns that are known"
            raise ConfigError(f'job "{job.name}" has no changed columns to accept', why=why)
        self.remember(job.slug, after, who, now)
        return before, after


def watcher(
    job: Job, memory: ColumnMemory, who: str, now: Callable[[], datetime], *, dry_run: bool = False
) -> Callable[[Sequence[Column]], None]:
    """What a run calls with the columns of its result, before the first message."""

    def look(columns: Sequence[Column]) -> None:
        if job.on_drift == "ignore":
            return
        shape: Shape = [(column.name, column.kind, column.database_type) for column in columns]
        known = memory.remembered(job.slug)
        drift = drift_between(known, shape) if known is not None else None
        if drift:
            _tell(job, memory, shape, drift, who, now(), dry_run=dry_run)
        elif dry_run:
            return
        elif known is None or _has_types_made_known(known, shape):
            memory.remember(job.slug, shape, who, now())
        else:
            memory.note(job.slug, None, now())

    return look


def _tell(
    job: Job, memory: ColumnMemory, shape: Shape, drift: Drift, who: str, now: datetime, *, dry_run: bool
) -> None:
    from loguru import logger

    if job.on_drift == "warn":
        logger.warning("job {}: the columns of the result have changed: {}", job.slug, drift.text)
        if not dry_run:
            memory.remember(job.slug, shape, who, now)
        return
    if not dry_run:
        memory.note(job.slug, shape, now)
    raise ColumnsChanged(
        f'the columns of job "{job.name}" have changed',
        why=drift.text,
        remedy=f"mend the query; or, if the readers of the topic agree: python -m core accept-columns {job.slug}",
    )


def _shape(text: str) -> Shape:
    return [(name, kind, type_) for name, kind, type_ in json.loads(text)]
