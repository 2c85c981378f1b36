"""A fifth database, in the one file that a new database takes: what `docs/ARCHITECTURE.md` describes, and a test runs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import duckdb

from core.errors import PsttError
from core.model.check_result import CheckResult
from core.model.dialect import BindRules, ConnectionRules, Dialect, GuardRules, LexicalRules
from core.model.query import Step
from core.model.source import Column, ColumnType
from core.sources.cursors import fetched
from core.sources.pooled import PooledSource

__all__ = ["DIALECT", "SOURCE"]

DIALECT = Dialect(
    name="duckdb",
    title="DuckDB",
    sqlglot="duckdb",
    install="pip install duckdb",
    connection=ConnectionRules(required=("database",), form=("database",), is_file=True),
    lexical=LexicalRules(string_prefixes=frozenset({"E", "X"}), dollar_quotes=True, cast_operator=True),
    binds=BindRules(placeholder="${}", foreign=re.compile(r"[$?]"), foreign_takes_words=True),
    guard=GuardRules(
        begins_setting=re.compile(r"SET\b"),
        settings=re.compile(r"SET (?:THREADS|TIMEZONE) = (?:\w+|'\?')"),
        calls=re.compile(r"READ_\w+|GLOB|WRITE_\w+"),
    ),
)
KINDS: dict[str, ColumnType] = {
    "BIGINT": "integer",
    "INTEGER": "integer",
    "VARCHAR": "text",
    "DATE": "date",
    "TIMESTAMP": "datetime",
    "BOOLEAN": "boolean",
    "DOUBLE": "float",
}


class DuckDbSource(PooledSource):
    """One database file, opened read-only."""

    dialect: ClassVar[Dialect] = DIALECT
    driver_errors = (duckdb.Error,)

    def connect(self) -> duckdb.DuckDBPyConnection:
        return duckdb.connect(self.connection.database, read_only=not self.connection.allow_writes)

    def begin(self, raw: duckdb.DuckDBPyConnection) -> None:
        raw.execute("BEGIN TRANSACTION")

    def stream(
        self, raw: duckdb.DuckDBPyConnection, step: Step, fetch_rows: int
    ) -> tuple[tuple[Column, ...], Iterator[Sequence[Any]]]:
        cursor = raw.execute(step.sql, dict(step.binds))
        columns = tuple(_column(name, str(type_)) for name, type_, *_ in cursor.description or ())
        return columns, fetched(cursor, fetch_rows)

    def stop(self, raw: duckdb.DuckDBPyConnection) -> None:
        raw.interrupt()

    def error(self, error: BaseException, *, reading: bool) -> PsttError:
        return (
            self.lost(str(error), reading=reading) if isinstance(error, duckdb.IOException) else self.failed(str(error))
        )

    def server_checks(self, raw: duckdb.DuckDBPyConnection) -> Iterator[CheckResult]:
        yield CheckResult("pass", f"database {self.name}", f"DuckDB {duckdb.__version__}")


def _column(name: str, declared: str) -> Column:
    return Column(name, "decimal" if declared.startswith("DECIMAL") else KINDS.get(declared, "unknown"), declared)


SOURCE = DuckDbSource
