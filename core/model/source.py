"""The protocol that every database implements, and the columns and rows it returns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from core.model.check_result import CheckResult
from core.model.dialect import Dialect
from core.model.job import Incremental, Partitions
from core.model.query import Step, Value
from core.model.window import Cursor, Window

__all__ = ["Column", "ColumnType", "Increment", "Reading", "Rows", "Source", "Split"]

ColumnType = str
"""The content of a column, whatever the database calls its type: a name in `core.message.column_types.COLUMN_TYPES`, or `array`.

That table also says which values a source may return for each; None is always allowed.
"""


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a result."""

    name: str
    """The name as the database spells it."""
    kind: ColumnType
    database_type: str
    """For display: `NUMBER(10,2)`, `timestamptz`."""
    element: ColumnType | None = None
    """Type of the elements if `kind` is array."""
    refusal: str = ""
    """Why no value of this column may be sent, with the SQL to write instead; empty: it may."""
    is_uniform: bool = False
    """Whether the driver makes all values, but None, of the one class that `COLUMN_TYPES` names for this type."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows that were fetched together."""

    first_row: int
    """Number of `rows[0]` in the result, from 1."""
    rows: Sequence[Sequence[Any]]
    extracted_at: datetime


class Reading(Protocol):
    """One result that is being read. Closing it, also early, returns the connection in a clean state."""

    columns: tuple[Column, ...]
    counted: int | None
    """COUNT(*) over the same statement in the same snapshot, if it was requested."""

    def __iter__(self) -> Iterator[Rows]:
        """Yields the rows in the query's order; holds no more than two fetches in memory.

        Raises:
            QueryFailed: The database stopped in the middle; what was yielded is not the whole result.
            RunCancelled: `Source.cancel` was called.
        """
        ...


@dataclass(frozen=True, slots=True)
class Split:
    """A query that is split into parts."""

    columns: tuple[Column, ...]
    parts: tuple[tuple[Step, ...], ...]
    """The statements of each part. Every row of the query is in exactly one; NULLs of the column are in the first."""
    bounds: tuple[Value, ...] = ()
    """By range: the highest value of each part but the last."""
    counted: int | None = None
    """COUNT(*) over the whole query in the snapshot; None: it was not counted."""
    snapshot: str = ""
    """What `Source.read` takes to read the same snapshot; empty: nothing is needed, or there is none."""
    is_one_snapshot: bool = True
    """Whether all parts read the same state of the database."""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Increment:
    """What a run of an incremental job reads."""

    columns: tuple[Column, ...]
    steps: tuple[Step, ...]
    """The statements that read the window, with its bounds as binds."""
    high: Cursor | None
    """The highest position of a row in the window; None: it has no new rows."""
    nulls: int | None = None
    """Rows without a cursor, which no run reads; None: not counted."""


CANCEL_S = 3.0
"""By then a server that responds at all has ended a statement."""


class Source(Protocol):
    """One database, for one run at a time. Implementations: `core.sources`.

    Every exception of the driver is translated; SourceUnavailable and QueryFailed name the
    connection and have the database's own text without secrets.
    """

    name: str
    dialect: Dialect
    statements_dir: Path | None
    """Where `split` and `increment` remember which statements may be wrapped; None: they parse each one again."""

    def read(
        self, steps: Sequence[Step], *, fetch_rows: int = 5000, count: bool = False, snapshot: str = ""
    ) -> AbstractContextManager[Reading]:
        """Runs all steps on one connection, in one snapshot, in a read-only session if the database supports one.

        With `allow_writes`, the writes of the steps are committed once the last row was read and the reader ended
        without an exception; otherwise they are rolled back.

        Args:
            steps: At least one that returns rows; the last of these is the result, earlier results are discarded.
            fetch_rows: Rows per fetch.
            count: Also count the result in the same snapshot, before the first row.
            snapshot: The `Split.snapshot` to read; empty: one of its own.

        Raises:
            SourceUnavailable: Not reachable, or lost before the first row; try later.
            NotAuthorised: The server refused the login or a right.
            QueryFailed: The server refused a statement; fix it.
        """
        ...

    def split(
        self,
        steps: Sequence[Step],
        partitions: Partitions,
        *,
        count: bool = False,
        bounds: Sequence[Value] | None = None,
    ) -> AbstractContextManager[Split]:
        """Splits the result into parts, which other connections read while the returned context is open.

        Ranges have the same number of rows: their bounds are found by sorting the column, or a sample of it.

        Args:
            steps: As for `read`.
            partitions: Into how many parts, and by what.
            count: Also count by hash; ranges are counted in any case.
            bounds: The bounds of an earlier attempt, which are used again; None: they are found.

        Raises:
            SqlError: The statement cannot be wrapped; the reason says why.
            ConfigError: The column is not there, or has no ranges.
            SourceUnavailable, NotAuthorised, QueryFailed: As `read`.
        """
        ...

    def increment(self, steps: Sequence[Step], incremental: Incremental, window: Window) -> Increment:
        """Asks up to which position the rows of a window reach now, and returns the statements that read them.

        Rows that are committed between this question and the reading are read if they are below that position.

        Args:
            steps: As for `read`.
            incremental: The settings of the job.
            window: From where, and how old the rows have to be.

        Raises:
            SqlError: The statement cannot be wrapped; the reason says why.
            ConfigError: The column is not there, or cannot be a cursor.
            SourceUnavailable, NotAuthorised, QueryFailed: As `read`.
        """
        ...

    def cancel(self, within_s: float = CANCEL_S) -> None:
        """Stops the running statement, in the server too. May be called from another thread, and if nothing runs.

        It ends one `read`: the one that is open, else the next one, with RunCancelled; the source is usable after it.

        Args:
            within_s: How long the server may take to end it, in seconds; then its connection is given up.
        """
        ...

    def check(self) -> list[CheckResult]:
        """Connects to the server and returns what was found: version, account, whether it may write.

        Never raises PsttError.
        """
        ...

    def close(self) -> None:
        """Closes every connection. May be called twice."""
        ...
