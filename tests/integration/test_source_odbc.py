"""Any ODBC driver: those of SQLite, MariaDB and FreeTDS, each with the SQL of its database."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from threading import Thread
from typing import Any

import pyodbc
import pytest

from core.errors import ConfigError, NotAuthorised, PsttError, QueryFailed, RunCancelled, SourceUnavailable, SqlError
from core.model.connection import DatabaseConnection, Secret
from core.model.job import Partitions
from core.model.query import Step
from core.sources import find_dialect, open_source
from core.sources.odbc import OdbcSource
from core.sql.parser import parse
from tests.integration.test_query_binds import DEFINES, HOSTILE
from tests.integration.test_splitting import split_and_read
from tests.rigs.mysql import MySqlRig
from tests.rigs.odbc import odbc_driver
from tests.rigs.proxy import Proxy
from tests.rigs.server import free_ports
from tests.rigs.sqlserver import SqlServerRig
from tests.rigs.waiting import until


def read_all(connection: DatabaseConnection, *steps: str | Step) -> list[tuple[Any, ...]]:
    made = [step if isinstance(step, Step) else Step(step, returns_rows=step is steps[-1]) for step in steps]
    with closing(open_source(connection)) as source, source.read(made) as reading:
        return [tuple(row) for rows in reading for row in rows.rows]


def error_of(connection: DatabaseConnection, sql: str = "SELECT 1 AS n") -> PsttError:
    with pytest.raises(PsttError) as caught:
        read_all(connection, sql)
    secret = connection.password.reveal() if connection.password else ""
    assert not secret or secret not in f"{caught.value}{caught.value!r}"
    return caught.value


@pytest.fixture
def lite(tmp_path: Path) -> DatabaseConnection:
    file = tmp_path / "parcels.sqlite"
    with closing(sqlite3.connect(file)) as made:
        made.execute("CREATE TABLE parcel (n INTEGER, name TEXT, day DATE, at TIMESTAMP, photo BLOB, weight REAL)")
        made.execute("INSERT INTO parcel VALUES (1, 'è€😀', '2026-01-16', '2026-01-16 11:50:32.665', x'00ff', 0.1)")
        made.commit()
    return DatabaseConnection(
        "LITE", "odbc", dialect="sqlite", driver=odbc_driver("SQLite3"), database=str(file), options={"NoTXN": False}
    )


@pytest.fixture(scope="module")
def maria(mariadb: MySqlRig) -> DatabaseConnection:
    driver = odbc_driver("MariaDB Unicode")
    return replace(mariadb.connection(), db_type="odbc", dialect="mysql", driver=driver)


@pytest.fixture(scope="module")
def tds(sqlserver: SqlServerRig) -> DatabaseConnection:
    options = {"TDS_Version": "7.4", "ClientCharset": "UTF-8"}
    return replace(sqlserver.connection(), db_type="odbc", dialect="sqlserver", sslmode="", options=options)


# ── values ────────────────────────────────────────────────────────────────────────────────────


def test_values_of_sqlite(lite: DatabaseConnection) -> None:
    at = datetime(2026, 1, 16, 11, 50, 32, 665000)  # noqa: DTZ001 - a column without a zone
    assert read_all(lite, "SELECT * FROM parcel") == [(1, "è€😀", date(2026, 1, 16), at, b"\x00\xff", 0.1)]


def test_values_of_mariadb(maria: DatabaseConnection) -> None:
    sql = (
        "SELECT 18446744073709551615 AS a, CAST(1.5 AS decimal(10,2)) AS b, DATE '2026-01-16' AS c, TIME '11:50:00' AS d, "
        "TIMESTAMP '2026-01-16 11:50:32.665' AS e, x'00ff' AS f, 0.1e0 AS g, NULL AS h, 'it\\'s \"è😀' AS i"
    )
    at = datetime(2026, 1, 16, 11, 50, 32, 665000)  # noqa: DTZ001 - a column without a zone
    assert read_all(maria, sql) == [
        (2**64 - 1, Decimal("1.50"), date(2026, 1, 16), time(11, 50), at, b"\x00\xff", 0.1, None, "it's \"è😀")
    ]
    with closing(open_source(maria)) as source, source.read([Step(sql)]) as reading:
        kinds = [column.kind for column in reading.columns]
    assert kinds == ["integer", "decimal", "date", "time", "datetime", "bytes", "float", "text", "text"]


def test_values_of_freetds(tds: DatabaseConnection) -> None:
    sql = "SELECT CAST(1.5 AS decimal(10,2)) AS a, N'è€' AS b, CAST(7 AS bigint) AS c, CAST('2026-01-16' AS date) AS d"
    ((a, b, c, d),) = read_all(tds, sql)
    assert (a, b, c) == (Decimal("1.50"), "è€", 7)
    assert str(d) == "2026-01-16"


@pytest.mark.parametrize("name", ["lite", "maria", "tds"])
def test_hostile_values_come_back(name: str, request: pytest.FixtureRequest) -> None:
    given: DatabaseConnection = request.getfixturevalue(name)
    dialect = find_dialect(given.db_type, given.dialect)
    # As a plain literal, T-SQL has a text in the code page of the database.
    whole, part = ("CAST('&X' AS nvarchar(max))", "N'a&X.b'") if name == "tds" else ("'&X'", "'a&X.b'")
    for value in HOSTILE:
        if name == "maria" and len(value) > 1000:
            continue  # the driver of MariaDB describes a long bind in the SELECT list as binary
        text = DEFINES + f"SELECT {whole} AS a, {part} AS b"
        (step,) = parse(text, name="q", dialect=dialect).bind({"X": value}).steps
        assert read_all(given, step) == [(value, f"a{value}b")], value


def test_a_literal_of_a_date_is_bound(maria: DatabaseConnection) -> None:
    text = DEFINES + "SELECT DATE '&D' AS a, TIMESTAMP '&D 10:00:00' AS b"
    (step,) = parse(text, name="q", dialect=find_dialect("odbc", "mysql")).bind({"D": "2026-01-17"}).steps
    assert read_all(maria, step) == [(date(2026, 1, 17), datetime(2026, 1, 17, 10))]  # noqa: DTZ001


# ── the session ───────────────────────────────────────────────────────────────────────────────


def test_a_session_is_read_only_where_its_sql_can_say_so(
    lite: DatabaseConnection, maria: DatabaseConnection, mariadb: MySqlRig
) -> None:
    mariadb.execute("CREATE TABLE odbc_writes (n int)")
    try:
        for given, sql in (
            (lite, "INSERT INTO parcel (n) VALUES (2) RETURNING n"),
            (maria, "INSERT INTO odbc_writes VALUES (1) RETURNING n"),
        ):
            error = error_of(given, sql)
            assert type(error) is QueryFailed
            assert "read-only" in error.text
        assert mariadb.execute("SELECT COUNT(*) FROM odbc_writes") == [(0,)]
        assert read_all(replace(maria, allow_writes=True), "INSERT INTO odbc_writes VALUES (1) RETURNING n") == [(1,)]
        assert mariadb.execute("SELECT COUNT(*) FROM odbc_writes") == [(1,)]
    finally:
        mariadb.execute("DROP TABLE odbc_writes")


def test_rows_and_count_are_of_one_snapshot(maria: DatabaseConnection, mariadb: MySqlRig) -> None:
    mariadb.execute("CREATE TABLE odbc_seen (n int)")
    mariadb.execute("INSERT INTO odbc_seen SELECT seq FROM seq_1_to_30")
    try:
        with closing(open_source(maria)) as source:
            stream = source.stream  # type: ignore[attr-defined]

            def late(*given: Any) -> Any:
                mariadb.execute("INSERT INTO odbc_seen VALUES (-1)")
                return stream(*given)

            source.stream = late  # type: ignore[attr-defined]
            with source.read([Step("SELECT n FROM odbc_seen")], count=True) as reading:
                assert (reading.counted, sum(len(rows.rows) for rows in reading)) == (30, 30)
    finally:
        mariadb.execute("DROP TABLE odbc_seen")


def test_modes_that_change_where_literals_end_are_off(maria: DatabaseConnection, mariadb: MySqlRig) -> None:
    (before,) = mariadb.execute("SELECT @@GLOBAL.sql_mode")[0]
    try:
        mariadb.execute("SET GLOBAL sql_mode = 'STRICT_TRANS_TABLES,ANSI,NO_BACKSLASH_ESCAPES'")
        sql = """SELECT "a'b" AS x, 'it\\'s' AS y, @@SESSION.time_zone AS z"""
        assert read_all(maria, sql) == [("a'b", "it's", "+00:00")]
    finally:
        mariadb.execute(f"SET GLOBAL sql_mode = '{before}'")


def test_check_reports_server_driver_and_whether_the_session_is_read_only(
    lite: DatabaseConnection, maria: DatabaseConnection, tds: DatabaseConnection
) -> None:
    for given, words, warns in (
        (lite, "SQLite", False),
        (maria, "through libmaodbc.so", False),
        (replace(maria, dialect=""), "through libmaodbc.so", True),
        (tds, "through", True),
    ):
        with closing(open_source(given)) as source:
            found = source.check()
        assert any(words in result.text for result in found)
        assert any("not read-only" in result.text for result in found) == warns


def test_parts_by_range_and_by_hash(maria: DatabaseConnection) -> None:
    sql = "SELECT seq AS id, CONCAT('p', seq) AS name FROM seq_1_to_1000 WHERE seq <= ?"
    for partitions in (Partitions("id", 4), Partitions("name", 3, "hash")):
        _, rows = split_and_read(maria, [Step(sql, (900,))], partitions)
        assert sum(rows) == 900
        assert len(rows) == partitions.count


# ── errors ────────────────────────────────────────────────────────────────────────────────────


def test_errors_say_what_to_do(maria: DatabaseConnection, tds: DatabaseConnection, lite: DatabaseConnection) -> None:
    (closed,) = free_ports(1)
    cases: list[tuple[DatabaseConnection, str, type[PsttError], str]] = [
        (replace(maria, password=Secret("wrong-8213")), "SELECT 1 AS n", NotAuthorised, "password"),
        (replace(maria, database="no_such_database"), "SELECT 1 AS n", ConfigError, "no_such_database"),
        (replace(maria, port=closed), "SELECT 1 AS n", SourceUnavailable, str(closed)),
        (maria, "SELECT nowhere FROM seq_1_to_3", QueryFailed, "nowhere"),
        (replace(tds, password=Secret("wrong-8213")), "SELECT 1 AS n", NotAuthorised, "password"),
        (replace(tds, port=closed), "SELECT 1 AS n", SourceUnavailable, str(closed)),
        (tds, "SELECT nowhere FROM sys.objects", QueryFailed, "nowhere"),
        (lite, "SELECT nowhere FROM parcel", QueryFailed, "nowhere"),
        (replace(lite, driver="no such driver"), "SELECT 1 AS n", ConfigError, "install it, or correct driver"),
        (replace(lite, driver="", dsn="no such source"), "SELECT 1 AS n", ConfigError, "driver or dsn"),
    ]
    for given, sql, wanted, words in cases:
        error = error_of(given, sql)
        assert type(error) is wanted, (given, error)
        assert words in error.text + error.remedy


def test_a_lost_session_is_unavailable(maria: DatabaseConnection, mariadb: MySqlRig) -> None:
    def kill() -> None:
        until(lambda: bool(sleeping(mariadb)), timeout_s=30)
        mariadb.execute(f"KILL {sleeping(mariadb)[0]}")

    thread = Thread(target=kill)
    thread.start()
    error = error_of(maria, "SELECT SLEEP(20) AS n")
    thread.join()
    assert type(error) is SourceUnavailable
    assert error.is_retriable


def sleeping(server: MySqlRig) -> list[int]:
    sql = "SELECT id FROM information_schema.processlist WHERE info LIKE '%SLEEP(20)%' AND id <> CONNECTION_ID()"
    return [int(row[0]) for row in server.execute(sql)]


def test_a_cancel_ends_the_statement(maria: DatabaseConnection, mariadb: MySqlRig) -> None:
    source = open_source(maria)

    def cancel() -> None:
        until(lambda: bool(sleeping(mariadb)), timeout_s=30)
        source.cancel()

    thread = Thread(target=cancel)
    thread.start()
    with closing(source), pytest.raises(RunCancelled), source.read([Step("SELECT SLEEP(20) AS n")]):
        pytest.fail("there is no result")
    thread.join()
    until(lambda: not sleeping(mariadb), timeout_s=30)


def test_a_silent_server_is_given_up(maria: DatabaseConnection) -> None:
    with Proxy(maria.host, maria.port or 0) as way:
        given = replace(maria, host=way.host, port=way.port, read_timeout_s=2.0, connect_timeout_s=2.0)
        with closing(open_source(given)) as source:
            stream = source.stream  # type: ignore[attr-defined]

            def silenced(*arguments: Any) -> Any:
                way.is_silent.set()
                return stream(*arguments)

            source.stream = silenced  # type: ignore[attr-defined]
            with pytest.raises(SourceUnavailable, match="fell silent"), source.read([Step("SELECT 1 AS n")]):
                pytest.fail("there is no result")


# ── its rules ─────────────────────────────────────────────────────────────────────────────────


def test_values_are_in_braces_only_where_odbc_needs_them() -> None:
    given = DatabaseConnection(
        "X", "odbc", driver="SQLite3", database="a b.sqlite", password=Secret("p;}=x"), options={"A": True, "B": "c"}
    )
    made = OdbcSource(given).connection_string()
    assert made == "DRIVER=SQLite3;DATABASE=a b.sqlite;PWD={p;}}=x};A=1;B=c;"


def test_each_dialect_has_the_binds_of_odbc_and_its_own_guard() -> None:
    text = "define X='a'  --Opzionale: x\nSELECT a FROM t WHERE b = '&X' AND c IN (&X)"
    for name in ("", "oracle", "sqlserver", "postgresql", "mysql", "sqlite"):
        dialect = find_dialect("odbc", name)
        assert dialect.name == "odbc"
        assert dialect is find_dialect("odbc", name)
        (step,) = parse(text.replace("&X)", "'&X')"), name="q", dialect=dialect).bind({"X": "v"}).steps
        assert step.binds == ("v", "v")
        assert step.sql.count("?") == 2
        with pytest.raises(SqlError, match="not allowed here"):
            parse("DELETE FROM t", name="q", dialect=dialect).bind({})
    with pytest.raises(SqlError, match="not allowed here"):
        parse("SET sql_mode = ''; SELECT 1", name="q", dialect=find_dialect("odbc")).bind({})


def test_pooling_of_the_driver_manager_is_off() -> None:
    assert pyodbc.pooling is False
