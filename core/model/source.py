"""The protocol that every database implements, and the columns and rows it returns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from core.model.check_result import CheckResult
from core.model.dialect import Dialect
from core.model.query import Step

__all__ = ["Column", "ColumnType", "Reading", "Rows", "Source"]

ColumnType = str
"""What a column holds, whatever the database calls it: a name in `core.message.column_types.COLUMN_TYPES`, or `array`.

That table also says which values a source may return for each; None always may be returned.
"""


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a result."""

    name: str
    """As the database spells it."""
    kind: ColumnType
    database_type: str
    """For people: `NUMBER(10,2)`, `timestamptz`."""
    element: ColumnType | None = None
    """Kind of the elements where kind is array."""
    refusal: str = ""
    """Why no value of this column may be sent, with the SQL to write instead; empty: it may."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows that were fetched together."""

    first_row: int
    """Number of `rows[0]` in the result, from 1."""
    rows: Sequence[Sequence[Any]]
    extracted_at: datetime


class Reading(Protocol):
    """One result being read. Closing it, also early, gives the connection back in a clean state."""

    columns: tuple[Column, ...]
    counted: int | None
    """COUNT(*) over the same statement in the same snapshot, where it was asked for."""

    def __iter__(self) -> Iterator[Rows]:
        """Yields the rows in the query's order; holds no more than two fetches in memory.

        Raises:
            QueryFailed: The database stopped in the middle; what was yielded is not the whole result.
            RunCancelled: `Source.cancel` was called.
        """
        ...


CANCEL_S = 3.0
"""A server that answers at all has ended a statement by then."""


class Source(Protocol):
    """One database, for one run at a time. Implementations: `core.sources`.

    Every foreign exception is translated at this seam; SourceUnavailable and QueryFailed name the
    connection and carry the database's own text without secrets.
    """

    name: str
    dialect: Dialect

    def read(
        self, steps: Sequence[Step], *, fetch_rows: int = 5000, count: bool = False
    ) -> AbstractContextManager[Reading]:
        """Runs all steps on one connection, in one snapshot, in a read-only session where there is one.

        With `allow_writes`, what the steps wrote is committed once the last row was read and the reader ended
        without an exception; else it is undone.

        Args:
            steps: At least one that returns rows; the last of these is the result, earlier results are discarded.
            fetch_rows: Rows a fetch.
            count: Also count the result in the same snapshot, before the first row.

        Raises:
            SourceUnavailable: Not reachable, or lost before the first row; try later.
            NotAuthorised: The server said no to this account.
            QueryFailed: The server refused a statement; fix it.
        """
        ...

    def cancel(self, within_s: float = CANCEL_S) -> None:
        """Stops the statement that runs, in the server too. Safe from another thread, and when nothing runs.

        It ends one `read`: the one that is open, else the next one, with RunCancelled; the source is usable after it.

        Args:
            within_s: How long the server may take to end it, in seconds; then its connection is given up.
        """
        ...

    def check(self) -> list[CheckResult]:
        """Reaches the server and says what was found: version, account, may it write? Never raises PsttError."""
        ...

    def close(self) -> None:
        """Closes every connection. May be called twice."""
        ...
