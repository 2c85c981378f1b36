"""SQLite: the demo, tests, and small extracts. SQLite stores a type with each value, not with each column.

A column of the result that is a table's column, also through an alias, a subquery or a view, has its declared type:
SQLite reports it for the columns of a view, so a temporary view of the statement is made. An expression has the declared
type of the columns of its name in the tables that the statement reads, if all of these agree. Any other column is typed by
its values.
"""

from __future__ import annotations

import math
import re
import sqlite3
import time
import zlib
from collections.abc import Iterator, Sequence, Set
from datetime import date, datetime
from decimal import Decimal
from functools import partial
from pathlib import Path, PurePath
from typing import Any, ClassVar
from urllib.parse import quote

from core.errors import ConfigError, PsttError
from core.model.check_result import CheckResult
from core.model.dialect import (
    DOUBLE_QUOTED,
    SETTING_VALUE,
    UNRESERVED_VERBS,
    WORD_BEYOND_ASCII,
    BindRules,
    BoundRules,
    ConnectionRules,
    Dialect,
    GuardRules,
    LexicalRules,
    MomentRules,
    PartitionRules,
    SessionRules,
    TypedValue,
)
from core.model.query import Step, Value
from core.model.source import Column, ColumnType
from core.sources.cursors import fetched
from core.sources.pooled import PooledSource
from core.sql.lexer import lex

__all__ = ["DIALECT", "SOURCE", "SqliteSource"]


def _value(value: TypedValue) -> Value:
    """Converts to what SQLite compares with: it has no decimals and no dates, its literals are REAL and text."""
    match value:
        case datetime():
            return value.isoformat(" ")
        case date():
            return value.isoformat()
        case Decimal():
            return float(value)
        case int() if value.bit_length() > 63:
            return float(value)
    return value


DIALECT = Dialect(
    name="sqlite",
    title="SQLite",
    sqlglot="sqlite",
    padded_number="printf('%012d', {})",
    connection=ConnectionRules(required=("database",), form=("database",), is_file=True),
    lexical=LexicalRules(
        word=WORD_BEYOND_ASCII,
        string_prefixes=frozenset({"X"}),
        quotes={
            '"': DOUBLE_QUOTED,
            "[": re.compile(r"\[[^\]]*\]"),
            "`": re.compile(r"`(?:[^`]+|``)*+`"),
        },
        blocks=re.compile(r"CREATE (TEMP |TEMPORARY )?TRIGGER\b"),
    ),
    binds=BindRules(
        placeholder=":{}",
        foreign=re.compile(r"[:@$?]"),
        foreign_takes_words=True,
        most=32_766,  # the default of SQLite
        most_in_list=32_766,
        convert=_value,
    ),
    # SQLite compares numbers with numbers and texts with texts, which its dates are; it has no hash, so `connect` adds one.
    partitions=PartitionRules(
        bounds={kind: BoundRules() for kind in ("integer", "decimal", "float", "date", "datetime", "time")},
        hash="pstt_hash({value}) % {count}",
        sample="abs(random() % 1000000) < {ppm}",
    ),
    # A time is text, in the form in which the application wrote it.
    moments=dict.fromkeys(
        ("date", "datetime", "text", "unknown"), MomentRules(compare="rtrim(replace({}, 'T', ' '), 'Z')")
    ),
    is_untyped=True,
    session=SessionRules(begin=("PRAGMA query_only = ON",)),
    guard=GuardRules(
        begins_setting=re.compile(r"PRAGMA\b"),
        settings=re.compile(
            rf"PRAGMA (?:CASE_SENSITIVE_LIKE|CACHE_SIZE|BUSY_TIMEOUT|TEMP_STORE)"
            rf" (?:= {SETTING_VALUE}|\( {SETTING_VALUE} \))"
            r"|PRAGMA QUERY_ONLY = (?:ON|TRUE|YES)"
        ),
        calls=re.compile(
            r"LOAD_EXTENSION|WRITEFILE|READFILE|EDIT|FTS3_TOKENIZER|FSDIR|LSDIR|ZIPFILE|SQLITE3?_EXEC|EVAL"
        ),
        unreserved={**UNRESERVED_VERBS, "MERGE": "", "REPLACE": "INTO"},
    ),
)

# The first word found in the declared type decides, as in SQLite's own affinity rules.
KINDS: tuple[tuple[str, ColumnType], ...] = (
    ("TIMESTAMP", "datetime"),
    ("DATETIME", "datetime"),
    ("DATE", "date"),
    ("TIME", "time"),
    ("BOOL", "boolean"),
    ("INT", "integer"),
    ("NUMERIC", "decimal"),
    ("DECIMAL", "decimal"),
    ("NUMBER", "decimal"),
    ("MONEY", "decimal"),
    ("JSON", "json"),
    ("CHAR", "text"),
    ("CLOB", "text"),
    ("TEXT", "text"),
    ("BLOB", "bytes"),
    ("REAL", "float"),
    ("FLOA", "float"),
    ("DOUB", "float"),
)
_VIEW = "columns of a PSTT result"
_AWAY = {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR}
_CONFLICTS = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_SCHEMA,
    sqlite3.SQLITE_NOMEM,
}
"""The file is locked, its tables have just changed, or memory is short: the same statement may succeed later."""


class SqliteSource(PooledSource):
    """One database file, opened read-only."""

    dialect: ClassVar[Dialect] = DIALECT
    driver_errors = (sqlite3.Error, sqlite3.Warning)  # 3.11 reports a second statement in the text by a Warning

    def connect(self) -> sqlite3.Connection:
        """Opens the file; a missing one is not created."""
        path = Path(self.connection.database)
        if not path.is_file():
            raise ConfigError(
                f'connection "{self.name}": there is no database file {path}',
                remedy="correct database in connections.json",
            )
        mode = "rw" if self.connection.allow_writes else "ro"
        raw = sqlite3.connect(
            f"{_uri(path.resolve())}?mode={mode}",
            uri=True,
            timeout=self.connection.connect_timeout_s,
            isolation_level=None,
            check_same_thread=False,
        )
        # A text that is not UTF-8 rejects its row; by default SQLite's driver would end the whole query.
        raw.text_factory = partial(str, encoding="utf-8", errors="surrogateescape")
        raw.create_function("pstt_hash", 1, _hash, deterministic=True)
        if not self.connection.allow_writes:
            raw.execute("PRAGMA query_only = ON")
        return raw

    def begin(self, raw: sqlite3.Connection) -> None:
        """Begins one read transaction, in which SQLite shows one state of the file."""
        raw.execute("BEGIN")
        deadline = time.monotonic() + (self.connection.statement_timeout_s or math.inf)
        # The flag is checked here too: an interrupt between two statements would be lost.
        raw.set_progress_handler(lambda: self._is_cancelled or time.monotonic() > deadline, 10_000)

    def export_snapshot(self, raw: sqlite3.Connection) -> tuple[str, str]:
        """Returns no token: while this connection reads, no other one can commit, unless the file is in WAL mode."""
        (mode,) = raw.execute("PRAGMA journal_mode").fetchone()
        if mode != "wal":
            raw.execute("SELECT count(*) FROM sqlite_master").fetchone()  # takes the lock
            return "", ""
        return super().export_snapshot(raw)

    def stream(
        self, raw: sqlite3.Connection, step: Step, fetch_rows: int
    ) -> tuple[tuple[Column, ...], Iterator[Sequence[Any]]]:
        """Runs the statement; SQLite computes each row when it is fetched."""
        traced = _traced(raw, step)
        read: set[tuple[str | None, str | None]] = set()

        def note(action: int, table: str | None, column: str | None, *_: str | None) -> int:
            if action == sqlite3.SQLITE_READ:
                read.add((table, column))
            return sqlite3.SQLITE_OK

        raw.set_authorizer(note)
        try:
            cursor = raw.execute(step.sql, dict(step.binds) if step.binds else ())  # type: ignore[arg-type]
        finally:
            raw.set_authorizer(None)
        declared = _declared(raw, read)
        names = [name for name, *_ in cursor.description or ()]
        if len(traced) != len(names):
            traced = [""] * len(names)
        columns = [_column(name, t or declared.get(name.lower())) for name, t in zip(names, traced, strict=True)]
        return tuple(columns), fetched(cursor, fetch_rows)

    @property
    def wait_s(self) -> None:
        """None: there is no server, so a call that takes long is computing."""
        return

    def stop(self, raw: sqlite3.Connection) -> None:
        """Sets a flag that SQLite checks every few operations."""
        raw.interrupt()

    def error(self, error: BaseException, *, reading: bool) -> PsttError:
        """Translates by the primary code, which an extended one (SQLITE_IOERR_READ) has in its lowest byte."""
        text = str(error)
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        if code in _AWAY:
            return self.lost(text, reading=reading)
        if code in _CONFLICTS:
            return self.conflict(text, reading=reading)
        if code == sqlite3.SQLITE_INTERRUPT:
            return self.timed_out()
        if code == sqlite3.SQLITE_READONLY:
            return self.failed(f"{text} (it is opened read-only)")
        if code in (sqlite3.SQLITE_AUTH, sqlite3.SQLITE_PERM):
            return self.forbidden(text)
        if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
            return ConfigError(
                f'connection "{self.name}": {self.connection.database} is no database, or a damaged one', why=text
            )
        return self.failed(text)

    def server_checks(self, raw: sqlite3.Connection) -> Iterator[CheckResult]:
        """Yields the version and how the file is opened."""
        how = "may write (allow_writes)" if self.connection.allow_writes else "opened read-only"
        tables = raw.execute("SELECT count(*) FROM sqlite_master WHERE type IN ('table', 'view')").fetchone()[0]
        found = "1 table or view" if tables == 1 else f"{tables} tables and views"
        yield CheckResult("pass", f"database {self.name}", f"SQLite {sqlite3.sqlite_version}, {found}, {how}")

    @property
    def place(self) -> str:
        """Returns the name of the file instead of host and port."""
        return f'"{self.name}" ({Path(self.connection.database).name})'


def _hash(value: Any) -> int:
    """Returns a number from 0 on that is the same in every process; values that are equal in SQLite have the same."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    stored = value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogateescape")
    return zlib.crc32(stored)


def _uri(path: PurePath) -> str:
    """Returns the URI of the file.

    Unlike `as_uri`, a share has an empty authority too: SQLite accepts no other (`file:////server/share/a.db`).
    """
    text = path.as_posix()
    return f"file://{'' if text.startswith('/') else '/'}{quote(text, safe='/:')}"


def _column(name: str, declared: str | None) -> Column:
    upper = (declared or "").upper()
    kind: ColumnType = next((kind for word, kind in KINDS if word in upper), "unknown")
    return Column(name, kind, declared or "value")


def _traced(raw: sqlite3.Connection, step: Step) -> list[str]:
    """Returns the declared type of each column of the result, empty for an expression; no types if it cannot be a view.

    From SQLite 3.41 on, an expression in a view has the type BLOB or NUM, whatever its values are.
    """
    tokens = lex(step.sql, DIALECT)
    binds = {token.end for token in tokens if token.text == ":"}  # a view takes no binds
    text = "".join("NULL" if t.start in binds else t.text for t in tokens if t.end not in binds)
    (was,) = raw.execute("PRAGMA query_only").fetchone()
    raw.execute("PRAGMA query_only = OFF")  # the file itself is opened read-only; a temporary view is in no file
    try:
        raw.execute(f'CREATE TEMP VIEW "{_VIEW}" AS {text}')
        try:
            types = [kind for (kind,) in raw.execute("SELECT type FROM pragma_table_xinfo(?, 'temp')", (_VIEW,))]
        finally:
            raw.execute(f'DROP VIEW temp."{_VIEW}"')
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF != sqlite3.SQLITE_ERROR:
            raise  # a lock or a cancel: the same statement must get the same types each time
        return []
    finally:
        raw.execute(f"PRAGMA query_only = {was}")
    return ["" if kind.upper() in ("BLOB", "NUM") else kind for kind in types]


def _declared(raw: sqlite3.Connection, read: Set[tuple[str | None, str | None]]) -> dict[str, str | None]:
    """Returns the declared type of each column name in lower case; None if two tables of the statement disagree."""
    found: dict[str, str | None] = {}
    for table in {table for table, _ in read}:
        for name, declared in raw.execute("SELECT name, type FROM pragma_table_xinfo(?)", (table,)):
            if (table, name) in read:
                key = name.lower()
                found[key] = declared if found.get(key, declared) == declared else None
    return found


SOURCE = SqliteSource
