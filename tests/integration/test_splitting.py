"""A query that is split gives each row in exactly one part, on the real databases."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from core.errors import ConfigError, QueryFailed, SqlError
from core.model.connection import DatabaseConnection
from core.model.job import Partitions
from core.model.query import Step
from core.model.source import Column, Split
from core.sources import find_dialect, open_source
from core.sql.partitioning import part_steps, require_wrappable
from tests.rigs.postgres import PostgresRig
from tests.rigs.sqlserver import SqlServerRig, number_table
from tests.rigs.sweeps import sweep


def parts_of(source: Any, split: Split) -> list[list[tuple[Any, ...]]]:
    parts = []
    for steps in split.parts:
        with source.read(steps, snapshot=split.snapshot) as reading:
            assert reading.columns == split.columns
            parts.append([tuple(row) for block in reading for row in block.rows])
    return parts


def whole(source: Any, steps: Sequence[Step]) -> Counter[tuple[Any, ...]]:
    with source.read(steps) as reading:
        return Counter(tuple(row) for block in reading for row in block.rows)


def split_and_read(given: DatabaseConnection, steps: Sequence[Step], partitions: Partitions) -> tuple[Split, list[int]]:
    """Splits, reads all parts, and compares them with the whole; returns the rows of each part."""
    source, reader = open_source(given), open_source(given)
    try:
        with source.split(steps, partitions, count=True) as split:
            parts = parts_of(reader, split)
        found = sum((Counter(part) for part in parts), Counter())
        assert found == whole(reader, steps)
        assert split.counted == found.total()
        return split, [len(part) for part in parts]
    finally:
        source.close()
        reader.close()


HUGE = "99999999999999999999999999999999999999"
PG_COLUMNS = {
    "integer": "g",
    "bigint": "g::bigint * 1000000000000",
    "38 digits": f"({HUGE}::numeric - g)",
    "fractions": "(g::numeric / 7)",
    "float": "(g::float8 / 3)",
    "date": "date '2026-01-01' + (g / 10)",
    "timestamp with microseconds": "timestamp '2026-01-01 00:00:00.000001' + g * interval '1 microsecond'",
    "timestamp of a zone": "timestamptz '2026-03-29 00:30:00+00' + g * interval '7 seconds'",
    "infinite dates": "case when g = 3 then 'infinity'::date else date '2026-01-01' + g end",
    "time": "time '00:00' + g * interval '1 second'",
}


@pytest.mark.parametrize("expression", PG_COLUMNS.values(), ids=PG_COLUMNS.keys())
def test_postgresql_ranges_have_each_row_once_and_are_even(postgres: PostgresRig, expression: str) -> None:
    sql = f'select {expression} as "Split By", g % 5 as rest from generate_series(1, 803) g'
    split, rows = split_and_read(postgres.connection(), [Step(sql)], Partitions("split by", 8))
    assert len(rows) == 8
    assert max(rows) <= 1.2 * min(rows), rows
    assert not split.warnings


def test_postgresql_nulls_are_in_the_first_part(postgres: PostgresRig) -> None:
    sql = "select nullif(g % 10, 0) as id, g as g from generate_series(1, 1000) g"
    given = postgres.connection()
    for by in ("range", "hash"):
        source, reader = open_source(given), open_source(given)
        with source.split([Step(sql)], Partitions("ID", 4, by)) as split:
            parts = parts_of(reader, split)
        assert [sum(row[0] is None for row in part) for part in parts] == [100, 0, 0, 0]


@pytest.mark.parametrize("type_", ["text", "bigint", "uuid", "jsonb", "bytea", "timestamptz"])
def test_postgresql_hash_splits_any_type(postgres: PostgresRig, type_: str) -> None:
    values = {
        "text": "'parcel ' || g",
        "bigint": "g::bigint",
        "uuid": "md5(g::text)::uuid",
        "jsonb": "to_jsonb(g)",
        "bytea": "decode(md5(g::text), 'hex')",
        "timestamptz": "now() + g * interval '1 s'",
    }
    sql = f"select {values[type_]} as id, g from generate_series(1, 4000) g"
    if type_ == "timestamptz":
        sql = sql.replace("now()", "timestamptz '2026-01-01'")
    _, rows = split_and_read(postgres.connection(), [Step(sql)], Partitions("id", 4, "hash"))
    assert len(rows) == 4
    assert max(rows) <= 1.2 * min(rows), rows


@pytest.mark.parametrize(
    "sql",
    [
        "select id, n from {t} where id % 2 = 0 -- a comment at the end",
        "with even as (select * from {t} where id % 2 = 0) select * from even",
        "select id, n from {t} where id < 100 union all select id, n from {t} where id > 300",
        "select id, n from {t} order by n desc, id",
        "select id, n, '100 % sure' as sure from {t} where n like 'n%'",
        "select id, (select count(*) from {t} x limit 1) as n from {t}",
    ],
)
def test_postgresql_statements_that_can_be_wrapped(postgres: PostgresRig, sql: str) -> None:
    with postgres.connect() as connection:
        connection.execute("drop table if exists split_me")
        connection.execute("create table split_me as select g as id, 'n' || g % 7 as n from generate_series(1, 500) g")
    _, rows = split_and_read(postgres.connection(), [Step(sql.format(t="split_me"))], Partitions("id", 3))
    assert len(rows) == 3


def test_postgresql_parameters_stay_bound_and_settings_are_made_for_each_part(postgres: PostgresRig) -> None:
    steps = [
        Step("SET work_mem = '8MB'", returns_rows=False),
        Step(
            "select g as id, %(P_A)s::text as a, 50 %% 7 as n from generate_series(1, 100) g where g > %(P_B)s",
            {"P_A": "it's 100 %", "P_B": 10},
        ),
    ]
    split, rows = split_and_read(postgres.connection(), steps, Partitions("id", 3))
    assert rows == [30, 30, 30]
    assert split.parts[1][0] == steps[0]
    assert dict(split.parts[1][1].binds) == {"P_A": "it's 100 %", "P_B": 10, "PSTT_LOW": "40", "PSTT_HIGH": "70"}


REFUSED = {
    "select 1 as id limit 5": "LIMIT",
    "select 1 as id offset 5": "OFFSET",
    "select 1 as id fetch first 5 rows only": "FETCH",
    "select 1 as id from pg_class for update": "FOR UPDATE",
    "select 1 as id, 2 as id": "two columns of the result are called id",
    "values (1), (2)": "grammar",
}


@pytest.mark.parametrize("sql", REFUSED)
def test_postgresql_statements_that_cannot_be_wrapped_are_refused_with_the_reason(
    postgres: PostgresRig, sql: str
) -> None:
    with pytest.raises(SqlError, match="cannot be split into parts") as caught:
        split_and_read(postgres.connection(), [Step(sql, line=4)], Partitions("id", 3))
    assert REFUSED[sql] in caught.value.why
    assert caught.value.line == 4
    assert "partitions" in caught.value.remedy


def test_several_results_are_refused(postgres: PostgresRig) -> None:
    with pytest.raises(SqlError, match="several statements that return rows"):
        split_and_read(postgres.connection(), [Step("select 1 as id"), Step("select 2 as id")], Partitions("id", 2))


@pytest.mark.parametrize(
    ("column", "by", "words"),
    [
        ("missing", "range", "does not return"),
        ("missing", "hash", "does not return"),
        ("t", "range", "cannot be split into ranges"),
    ],
)
def test_a_column_that_does_not_fit_is_refused(postgres: PostgresRig, column: str, by: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        split_and_read(postgres.connection(), [Step("select 1 as id, 'a' as t")], Partitions(column, 2, by))


@pytest.mark.parametrize(
    ("values", "parts"), [("5", 1), ("null::int", 1), ("g % 2", 2), ("case when g > 5 then 1 end", 1)]
)
def test_too_few_values_make_fewer_parts_and_a_warning(postgres: PostgresRig, values: str, parts: int) -> None:
    sql = f"select {values} as id, g from generate_series(1, 10) g"
    split, rows = split_and_read(postgres.connection(), [Step(sql)], Partitions("id", 4))
    assert len(rows) == parts
    assert "too few different values" in split.warnings[0]


def test_an_empty_result_is_one_part(postgres: PostgresRig) -> None:
    split, rows = split_and_read(postgres.connection(), [Step("select 1 as id where false")], Partitions("id", 4))
    assert rows == [0]
    assert split.counted == 0


def test_postgresql_parts_read_one_snapshot(postgres: PostgresRig) -> None:
    given = postgres.connection()
    with postgres.connect() as connection:
        connection.execute("drop table if exists moving")
        connection.execute("create table moving as select g as id from generate_series(1, 100) g")
        source, reader = open_source(given), open_source(given)
        with source.split([Step("select id from moving")], Partitions("id", 2)) as split:
            connection.execute("delete from moving where id <= 40")
            connection.execute("update moving set id = id + 1000 where id > 90")
            parts = parts_of(reader, split)
        assert [len(part) for part in parts] == [50, 50]
        assert sorted(row[0] for part in parts for row in part) == list(range(1, 101))
        with pytest.raises(QueryFailed, match="snapshot"), reader.read(split.parts[0], snapshot=split.snapshot):
            pass


def test_the_bounds_of_an_earlier_attempt_are_used_again(postgres: PostgresRig) -> None:
    source, steps = open_source(postgres.connection()), [Step("select g as id from generate_series(1, 100) g")]
    with source.split(steps, Partitions("id", 3), bounds=("10", "20")) as split:
        assert split.bounds == ("10", "20")
        assert [len(part) for part in parts_of(open_source(postgres.connection()), split)] == [10, 10, 80]


# ── SQLite ────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def sqlite(tmp_path: Path) -> DatabaseConnection:
    file = tmp_path / "some.db"
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE t (id INTEGER, price DECIMAL, at TIMESTAMP, code TEXT, data BLOB)")
        rows = [
            (g if g % 50 else None, g / 7, f"2026-01-{1 + g % 28:02} 10:00:00.{g:06}", f"c{g % 40}", bytes([g % 256]))
            for g in range(1, 801)
        ]
        connection.executemany("INSERT INTO t VALUES (?, ?, ?, ?, ?)", rows)
    connection.close()
    return DatabaseConnection("lite", "sqlite", database=str(file))


@pytest.mark.parametrize("column", ["id", "price", "at"])
def test_sqlite_ranges(sqlite: DatabaseConnection, column: str) -> None:
    steps = [Step("SELECT * FROM t WHERE code <> :P_A ORDER BY code", {"P_A": "c7"})]
    split, rows = split_and_read(sqlite, steps, Partitions(column, 4))
    assert len(rows) == 4
    assert sum(rows) == 780
    assert not split.warnings  # no other connection can commit meanwhile


@pytest.mark.parametrize("column", ["id", "price", "at", "code", "data"])
def test_sqlite_hash(sqlite: DatabaseConnection, column: str) -> None:
    _, rows = split_and_read(sqlite, [Step("SELECT * FROM t")], Partitions(column, 3, "hash"))
    assert len(rows) == 3
    assert all(rows)


def test_sqlite_in_wal_mode_has_no_common_snapshot_and_says_so(sqlite: DatabaseConnection) -> None:
    with sqlite3.connect(sqlite.database) as connection:
        connection.execute("PRAGMA journal_mode = wal")
    connection.close()
    split, _ = split_and_read(sqlite, [Step("SELECT * FROM t")], Partitions("id", 3))
    assert "not read in one snapshot" in split.warnings[0]
    assert "verify_count" in split.warnings[0]


# ── SQL Server ────────────────────────────────────────────────────────────────────────────────

SQLSERVER_COLUMNS = {
    "int": "CAST(n AS int)",
    "huge": "CAST(12345678901234567890123456789012345678 - n AS decimal(38, 0))",
    "fractions": "CAST(n AS decimal(18, 4)) / 8",
    "date": "DATEADD(day, n / 3, CAST('2026-01-01' AS date))",
    "datetime2": "DATEADD(microsecond, n, CAST('2026-01-01T00:00:00.000001' AS datetime2(6)))",
}


@pytest.mark.parametrize(
    "expression",
    sweep(SQLSERVER_COLUMNS.values(), always=[SQLSERVER_COLUMNS["huge"]]),
    ids=SQLSERVER_COLUMNS.keys(),
)
def test_sqlserver_ranges(sqlserver: SqlServerRig, expression: str) -> None:
    sql = f"SELECT {expression} AS [Split By], n % 5 AS rest FROM {number_table(403)}"
    split, rows = split_and_read(sqlserver.connection(), [Step(sql)], Partitions("split by", 4))
    assert len(rows) == 4
    assert max(rows) <= 1.2 * min(rows), rows
    assert "not read in one snapshot" in split.warnings[0]


def test_sqlserver_hash_and_positional_binds(sqlserver: SqlServerRig) -> None:
    sql = f"SELECT 'code ' + CAST(n AS varchar(9)) AS code, n AS g FROM {number_table(800)} WHERE n > ?"
    for by, column in (("hash", "code"), ("range", "g")):
        _, rows = split_and_read(sqlserver.connection(), [Step(sql, (100,))], Partitions(column, 3, by))  # type: ignore[arg-type]
        assert len(rows) == 3
        assert sum(rows) == 700


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("WITH x AS (SELECT 1 AS id) SELECT id FROM x", "takes no WITH inside"),
        ("SELECT name AS id FROM sys.objects ORDER BY name", "takes no ORDER BY inside"),
        ("SELECT TOP 5 object_id AS id FROM sys.objects", "limits its rows"),
        ("SELECT 1 AS id, 2", "has no name"),
    ],
)
def test_sqlserver_statements_that_cannot_be_wrapped(sql: str, words: str) -> None:
    with pytest.raises(SqlError, match=words):
        require_wrappable([Step(sql)], find_dialect("sqlserver"))


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("SELECT id FROM t WHERE ROWNUM <= 10", "ROWNUM"),
        ("SELECT id FROM t FETCH FIRST 5 ROWS ONLY", "limits its rows"),
        ("SELECT id FROM t FOR UPDATE", "locks its rows"),
    ],
)
def test_oracle_statements_that_cannot_be_wrapped(sql: str, words: str) -> None:
    with pytest.raises(SqlError, match=words):
        require_wrappable([Step(sql)], find_dialect("oracle"))


def test_oracle_parts_are_bound_without_loss() -> None:
    dialect, step = find_dialect("oracle"), Step("SELECT * FROM t WHERE a = :P_A", {"P_A": "x"})
    column = Column("AT", "datetime", "TIMESTAMP(6)")
    parts = part_steps(step, dialect, column, Partitions("at", 2), ["2026-01-01 00:00:00.000001000"])
    assert parts[0].sql == (
        "SELECT * FROM (\nSELECT * FROM t WHERE a = :P_A\n) part WHERE "
        '(part."AT" <= TO_TIMESTAMP(:PSTT_HIGH, \'SYYYY-MM-DD HH24:MI:SS.FF9\') OR part."AT" IS NULL)'
    )
    assert parts[1].binds == {"P_A": "x", "PSTT_LOW": "2026-01-01 00:00:00.000001000"}
    hashed = part_steps(step, dialect, column, Partitions("at", 4, "hash"), [])
    assert hashed[3].sql.endswith(
        "part WHERE ORA_HASH(SUBSTR(TO_CHAR(part.\"AT\", 'SYYYY-MM-DD HH24:MI:SS.FF9'), 1, 27), 4 - 1) = 3"
        ' AND part."AT" IS NOT NULL'
    )
