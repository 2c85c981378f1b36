"""The common part of databases behind ODBC: cursors that another thread may cancel, and values as pyodbc returns them."""

from __future__ import annotations

import re
import threading
from abc import abstractmethod
from collections.abc import Generator, Iterator, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

import pyodbc

from core.model.query import Step
from core.model.source import Column, ColumnType
from core.sources.cursors import fetched_in_pieces, shortest_single
from core.sources.pooled import PooledSource

__all__ = ["INTEGERS", "KINDS", "LABELS", "PyodbcSource", "words"]

pyodbc.pooling = False  # the driver manager's pool, on by default on Windows, would reuse sessions with their settings

KINDS: dict[type, ColumnType] = {
    int: "integer",
    float: "float",
    Decimal: "decimal",
    str: "text",
    bytes: "bytes",
    bytearray: "bytes",
    bool: "boolean",
    date: "date",
    datetime: "datetime",
    time: "time",
}

INTEGERS = {3: "tinyint", 5: "smallint", 10: "int", 19: "bigint"}
LABELS: dict[type, str] = {
    str: "varchar",
    bytes: "varbinary",
    bytearray: "varbinary",
    bool: "bit",
    datetime: "datetime2",
}
"""The type objects of the driver, which distinguish families of types only."""

_UTF16 = (pyodbc.SQL_WCHAR, pyodbc.SQL_WVARCHAR, pyodbc.SQL_WLONGVARCHAR, -152)
"""Types that arrive as UTF-16; the last one is XML."""


class CancellableCursor:
    """A cursor that one thread may cancel while another one closes it.

    pyodbc checks that a cursor is open, lets other threads go on, and then calls SQLCancel. If the cursor was closed in
    between, the driver reads freed memory and the process ends.

    Args:
        cursor: Of pyodbc.
    """

    def __init__(self, cursor: pyodbc.Cursor) -> None:
        self._cursor = cursor
        self._lock = threading.Lock()
        self._is_open = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursor, name)

    def cancel(self) -> None:
        """Cancels what the cursor does, unless it is closed."""
        with self._lock:
            if self._is_open:
                self._cursor.cancel()

    def close(self) -> None:
        """Closes the cursor; waits for a cancel."""
        with self._lock:
            self._is_open = False
            self._cursor.close()


class PyodbcSource(PooledSource):
    """Base of a database behind ODBC. It adds how it connects, begins, describes a column and translates errors."""

    driver_errors = (pyodbc.Error, ValueError, OverflowError)
    """ValueError and OverflowError: text with half a character, a date that Python cannot represent."""
    reads_ahead = True
    _cursor: CancellableCursor | None = None

    @abstractmethod
    def column(self, described: Sequence[Any]) -> Column:
        """Returns a column from its description."""

    def stream(
        self, raw: pyodbc.Connection, step: Step, fetch_rows: int
    ) -> tuple[tuple[Column, ...], Iterator[Sequence[Any]]]:
        """Runs the statement; yields the blocks of the driver."""
        columns, blocks = self._opened(raw, step, fetch_rows)
        return columns, self.readable(blocks, lambda: self._with_halves(raw, step, fetch_rows), fetch_rows)

    def _opened(
        self, raw: pyodbc.Connection, step: Step, fetch_rows: int
    ) -> tuple[tuple[Column, ...], Iterator[Sequence[Any]]]:
        cursor = self.cursor_of(raw)
        try:
            cursor.execute(step.sql, *step.binds) if step.binds else cursor.execute(step.sql)
            columns = tuple(self.column(described) for described in cursor.description or ())
        except BaseException:
            cursor.close()
            raise
        blocks = fetched_in_pieces(cursor, fetch_rows, self.note_response, self.silence_s)
        singles = [i for i, column in enumerate(columns) if column.database_type == "real"]
        return columns, (_shortened(block, singles) for block in blocks) if singles else blocks

    def _with_halves(self, raw: pyodbc.Connection, step: Step, fetch_rows: int) -> Generator[Sequence[Any], None, None]:
        """Reads the result again; halves of characters, which LEFT can produce, become lone surrogates and reject their row."""
        for type_ in _UTF16:
            raw.add_output_converter(type_, _with_halves)
        yield from self._opened(raw, step, fetch_rows)[1]

    def run(self, raw: pyodbc.Connection, step: Step) -> None:
        """Runs a step on a cursor of its own, so that it can be cancelled."""
        cursor = self.cursor_of(raw)
        try:
            cursor.execute(step.sql, *step.binds) if step.binds else cursor.execute(step.sql)
        finally:
            cursor.close()

    def stop(self, raw: pyodbc.Connection) -> None:
        """Cancels the newest cursor; SQLCancel is the only call that another thread may make."""
        if self._cursor is not None:
            self._cursor.cancel()

    def cursor_of(self, raw: pyodbc.Connection) -> CancellableCursor:
        """Returns a new cursor, which `stop` cancels."""
        self._cursor = CancellableCursor(raw.cursor())
        return self._cursor

    def count(self, raw: pyodbc.Connection, step: Step) -> int:
        """Counts on a cursor of its own, so that it can be cancelled."""
        cursor = self.cursor_of(raw)
        try:
            return int(cursor.execute(self.counting(step.sql), *step.binds).fetchone()[0])
        finally:
            cursor.close()

    def rows(self, raw: pyodbc.Connection, step: Step) -> list[tuple[Any, ...]]:
        """Returns all rows of a statement."""
        cursor = self.cursor_of(raw)
        try:
            return [tuple(row) for row in cursor.execute(step.sql, *step.binds).fetchall()]
        finally:
            cursor.close()


def _with_halves(data: bytes | None) -> str | None:
    return None if data is None else data.decode("utf-16-le", "surrogatepass")


def _shortened(block: Sequence[Any], indexes: Sequence[int]) -> list[tuple[Any, ...]]:
    """Shortens REAL values, which arrive widened to a double: 0.1 as 0.10000000149."""
    columns = list(zip(*block, strict=True))
    for i in indexes:
        columns[i] = tuple(None if v is None else shortest_single(v) for v in columns[i])
    return list(zip(*columns, strict=True))


def words(text: str) -> str:
    """Returns the text without the prefixes of the driver layers: `[42S02] [FreeTDS][SQL Server]…`."""
    text = re.sub(r"\[[^\]]*\]\s?", "", text)
    return " ".join(re.sub(r"\(SQL\w+\)", "", text).split()).strip("; ")
