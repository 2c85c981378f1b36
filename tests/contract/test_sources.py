"""What every `core.model.Source` promises, asked of each database alike.

A database is one small class below: how it is reached, and the words of its dialect for what the suite needs.
"""

from __future__ import annotations

import sqlite3
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from core.errors import PsttError, QueryFailed
from core.model import DatabaseConnection, Rows, Source, Step
from core.sources import open_source

if TYPE_CHECKING:
    from tests.rigs.postgres import PostgresRig

WRONG = "wrong-pässwörd-8213"
PATIENCE_S = 30.0
"""Longer than anything here takes; only a hang gets there."""


# ── the databases ─────────────────────────────────────────────────────────────────────────────


class SourceRig(ABC):
    """One database, and what the suite has to say to it. `table` holds (n, name); `execute` commits at once."""

    is_server = True
    """Whether there is a network between us, hence logins, hosts and sessions."""

    connection: DatabaseConnection
    table: str
    slow: str
    """A SELECT that gives no row for a minute."""
    slow_rows: str
    """A SELECT of many rows that takes a minute, and whose first rows come at once."""
    setting: str
    """A session setting …"""
    setting_shown: str
    """… and a SELECT of one value that is ON with it, and something else without."""
    bad_sql: str
    own_words: str
    """Part of what the database itself says to `bad_sql`."""
    hidden_writes: tuple[str, ...]
    """Statements that give rows and would write one into `table`."""

    @abstractmethod
    def execute(self, sql: str) -> None:
        """Runs and commits a statement on a connection that has nothing to do with ours."""

    @abstractmethod
    def rows_in_table(self) -> int:
        """As such a connection sees it."""

    @abstractmethod
    def numbers(self, count: int) -> str:
        """A SELECT of (n, name) for n from 1 to `count`, in that order, made up by the database."""

    def sessions(self) -> int:
        """Sessions of ours that the server holds."""
        return 0

    def running(self) -> int:
        """Statements of ours that the server runs."""
        return 0

    def kill_sessions(self) -> None:
        """Ends our sessions from the server's side."""
        raise NotImplementedError

    def fill(self, count: int) -> None:
        self.execute(f"INSERT INTO {self.table} (n, name) {self.numbers(count)}")

    def source(self, **changes: Any) -> Source:
        return open_source(replace(self.connection, **changes))


class SqliteRig(SourceRig):
    is_server = False
    table = "parcel"
    _count = (
        "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c LIMIT {}) SELECT n, 'p' || n AS name FROM c"
    )
    slow = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c LIMIT 1000000000) SELECT count(*) FROM c"
    slow_rows = _count.format(1_000_000_000)
    setting = "PRAGMA case_sensitive_like = ON"
    setting_shown = "SELECT CASE WHEN 'a' LIKE 'A' THEN 'OFF' ELSE 'ON' END AS shown"
    bad_sql = "SELECT nowhere FROM parcel"
    own_words = "no such column: nowhere"
    hidden_writes = ("INSERT INTO parcel (n, name) VALUES (-1, 'x') RETURNING n",)

    def __init__(self, folder: Path) -> None:
        self._file = folder / "parcels.sqlite"
        self.execute("PRAGMA journal_mode = WAL")  # else a reader keeps writers out
        self.execute("CREATE TABLE parcel (n INTEGER, name TEXT)")
        self.connection = DatabaseConnection(name="lite", db_type="sqlite", database=str(self._file))

    def execute(self, sql: str) -> None:
        with closing(sqlite3.connect(self._file, isolation_level=None)) as other:
            other.execute(sql)

    def rows_in_table(self) -> int:
        with closing(sqlite3.connect(self._file)) as other:
            return int(other.execute("SELECT count(*) FROM parcel").fetchone()[0])

    def numbers(self, count: int) -> str:
        return self._count.format(count)


class PostgresSourceRig(SourceRig):
    slow = "SELECT pg_sleep(60)"
    slow_rows = "SELECT n, CASE WHEN n > 20000 THEN pg_sleep(0.01)::text END AS name FROM generate_series(1, 30000) n"
    setting_shown = "SELECT CASE current_setting('pstt.shown', true) WHEN 'on' THEN 'ON' ELSE 'OFF' END AS shown"
    own_words = 'column "nowhere" does not exist'

    def __init__(self, server: PostgresRig, name: str) -> None:
        self._server = server
        self.table = name
        self.setting = "SET pstt.shown = 'on'"
        self.bad_sql = f"SELECT nowhere FROM {name}"
        self.hidden_writes = (
            f"WITH written AS (INSERT INTO {name} (n, name) VALUES (-1, 'x') RETURNING n) SELECT n FROM written",
            f"SELECT {name}_writes()",
        )
        self.execute(f"CREATE TABLE {name} (n bigint, name text)")
        self.execute(
            f"CREATE FUNCTION {name}_writes() RETURNS int LANGUAGE sql AS $$INSERT INTO {name} VALUES (-1, 'x') RETURNING 1$$"
        )
        self.connection = server.connection()

    def execute(self, sql: str) -> None:
        with closing(self._server.connect()) as other:
            other.execute(sql.encode())

    def _value(self, sql: str) -> int:
        with closing(self._server.connect()) as other:
            row = other.execute(sql.encode()).fetchone()
            assert row is not None
            return int(row[0])

    def rows_in_table(self) -> int:
        return self._value(f"SELECT count(*) FROM {self.table}")

    def numbers(self, count: int) -> str:
        return f"SELECT n, 'p' || n AS name FROM generate_series(1, {count}) n"

    def sessions(self) -> int:
        return self._value("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pstt-kafka'")

    def running(self) -> int:
        return self._value(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pstt-kafka' AND state = 'active'"
        )

    def kill_sessions(self) -> None:
        self.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pstt-kafka'")

    def drop(self) -> None:
        self.execute(f"DROP FUNCTION {self.table}_writes()")
        self.execute(f"DROP TABLE {self.table}")


def _sqlite(request: pytest.FixtureRequest) -> Iterator[SourceRig]:
    yield SqliteRig(request.getfixturevalue("tmp_path"))


def _postgresql(request: pytest.FixtureRequest) -> Iterator[SourceRig]:
    rig = PostgresSourceRig(request.getfixturevalue("postgres"), f"parcel_{time.time_ns()}")
    yield rig
    rig.drop()


RIGS: dict[str, Callable[[pytest.FixtureRequest], Iterator[SourceRig]]] = {
    "sqlite": _sqlite,
    "postgresql": _postgresql,
}


@pytest.fixture(params=RIGS)
def source_rig(request: pytest.FixtureRequest) -> Iterator[SourceRig]:
    yield from RIGS[request.param](request)


@pytest.fixture
def server_rig(source_rig: SourceRig) -> SourceRig:
    """Those with a network between."""
    if not source_rig.is_server:
        pytest.skip("a file has no logins, hosts and sessions")
    return source_rig


@pytest.fixture
def source(source_rig: SourceRig) -> Iterator[Source]:
    with closing(source_rig.source()) as opened:
        yield opened


# ── tools ─────────────────────────────────────────────────────────────────────────────────────


def query(sql: str) -> list[Step]:
    return [Step(sql)]


def read_all(source: Source, sql: str, *, fetch_rows: int = 5000) -> list[tuple[Any, ...]]:
    with source.read(query(sql), fetch_rows=fetch_rows) as reading:
        return [tuple(row) for rows in reading for row in rows.rows]


def is_usable(source: Source, rig: SourceRig) -> bool:
    return [n for n, _ in read_all(source, rig.numbers(3))] == [1, 2, 3]


def eventually(holds: Callable[[], bool]) -> bool:
    end = time.monotonic() + PATIENCE_S
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


@contextmanager
def raises(wanted: type[PsttError], *secrets: str) -> Iterator[pytest.ExceptionInfo[PsttError]]:
    """As pytest.raises, exactly that class; no text of the error, nor of those behind it, holds a secret."""
    with pytest.raises(PsttError) as caught:
        yield caught
    assert type(caught.value) is wanted, repr(caught.value)
    for error in chain_of(caught.value):
        texts = [str(error), repr(error), *map(repr, error.args), *map(str, vars(error).values())]
        assert not [text for text in texts if any(secret and secret in text for secret in secrets)]


def chain_of(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


# ── rows ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("count", [1, 9, 10, 11, 95])
def test_rows_come_in_order_in_numbered_blocks_of_fetch_rows(source_rig: SourceRig, source: Source, count: int) -> None:
    with source.read(query(source_rig.numbers(count)), fetch_rows=10) as reading:
        blocks: list[Rows] = list(reading)

    assert [len(block.rows) for block in blocks] == [10] * (count // 10) + [count % 10] * (count % 10 > 0)
    assert [block.first_row for block in blocks] == list(range(1, count + 1, 10))
    assert [row[0] for block in blocks for row in block.rows] == list(range(1, count + 1))
    assert all(block.extracted_at.utcoffset() is not None for block in blocks)


def test_empty_result_has_columns_and_no_block(source_rig: SourceRig, source: Source) -> None:
    with source.read(query(f"SELECT n, name FROM {source_rig.table}"), count=True) as reading:
        assert [column.name.lower() for column in reading.columns] == ["n", "name"]
        assert list(reading) == []
        assert reading.counted == 0


def test_bad_sql_is_told_in_the_databases_own_words(source_rig: SourceRig, source: Source) -> None:
    with raises(QueryFailed, secret_of(source_rig)) as caught, source.read(query(source_rig.bad_sql)):
        pass
    assert source_rig.own_words in caught.value.text
    assert source_rig.connection.name in caught.value.text
    assert not caught.value.is_retriable
    assert is_usable(source, source_rig)


def secret_of(rig: SourceRig) -> str:
    return rig.connection.password.reveal() if rig.connection.password else ""
