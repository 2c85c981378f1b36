"""Every type in the contract, from a SQLite file through source and envelope, to the JSON text.

SQLite keeps a type with each value and treats the declared type as a preference; both are covered here.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from core.errors import QueryFailed
from core.message.envelope import Encoded, Envelope
from core.model.connection import DatabaseConnection
from core.model.job import Job, KafkaConfig
from core.model.query import Step
from core.model.source import Column, Rows
from core.sources.sqlite import SqliteSource

AT = datetime(2026, 1, 17, 1, tzinfo=UTC)


class File:
    """A database file of one test."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.run("CREATE TABLE first (n INTEGER)")

    def run(self, sql: str, *values: Any) -> None:
        with closing(sqlite3.connect(self.path, isolation_level=None)) as connection:
            connection.execute(sql, values)

    def read(self, sql: str) -> tuple[tuple[Column, ...], Rows]:
        connection = DatabaseConnection(name="lite", db_type="sqlite", database=str(self.path))
        with closing(SqliteSource(connection)) as source, source.read([Step(sql)]) as reading:
            (rows,) = reading
            return reading.columns, rows

    def encoded(self, declared: str, values: list[Any], **settings: Any) -> Encoded:
        """Stores the values in a column of that declared type, and makes messages of them; cell by cell is the same."""
        self.run("DROP TABLE IF EXISTS kept")
        self.run(f"CREATE TABLE kept (v {declared})")
        for value in values:
            self.run(f"INSERT INTO kept VALUES ({value if isinstance(value, Sql) else '?'})", *given(value))
        columns, rows = self.read("SELECT v FROM kept ORDER BY rowid")
        made = envelope(columns, **settings)
        done = made.encode(rows)
        made._fast = [None]
        by_cell = made.encode(rows)
        assert (done.data, done.rejects) == (by_cell.data, by_cell.rejects)
        return done

    def json_of(self, declared: str, value: Any, **settings: Any) -> str:
        done = self.encoded(declared, [value, None], **settings)
        assert done.rejects == []
        assert done.data[1] == b'{"v":null}'
        return done.data[0].decode().removeprefix('{"v":').removesuffix("}")

    def reason_of(self, declared: str, value: Any, **settings: Any) -> str:
        done = self.encoded(declared, [value, None], **settings)
        (reject,) = done.rejects
        assert (reject.row_number, reject.column) == (1, "v")
        assert done.data == [b'{"v":null}']
        return reject.reason


class Sql(str):
    """An expression instead of a bound value."""


def given(value: Any) -> tuple[Any, ...]:
    return () if isinstance(value, Sql) else (value,)


def envelope(columns: tuple[Column, ...], *, key: str | None = None, **settings: Any) -> Envelope:
    job = Job(
        slug="j", name="J", query="q.sql", connection="c", kafka_config=KafkaConfig(message_key_field=key), **settings
    )
    return Envelope(columns, job, scheduled_at=AT)


@pytest.fixture
def file(tmp_path: Path) -> File:
    return File(tmp_path / "kinds.sqlite")


TYPES = [
    ("INTEGER", 9223372036854775807, "9223372036854775807"),
    ("BIGINT", -9223372036854775808, "-9223372036854775808"),
    ("INT", "0042", "42"),
    ("INTEGER", 7.0, "7"),
    ("NUMERIC(10,2)", 1.5, "1.5"),
    ("NUMERIC(10,2)", 150, "150"),
    ("DECIMAL(38,0)", 9007199254740993, "9007199254740993"),
    ("NUMBER(10)", 848, "848"),
    ("MONEY", "12.50", "12.5"),
    ("NUMERIC", 1e20, "100000000000000000000"),
    ("NUMERIC", Sql("0.1"), "0.1"),
    ("REAL", 0.1, "0.1"),
    ("REAL", 5, "5.0"),
    ("DOUBLE PRECISION", 1.7976931348623157e308, "1.7976931348623157e308"),
    ("FLOAT", -0.5, "-0.5"),
    ("DATE", "2026-01-16", '"2026-01-16"'),
    ("DATE", "0001-01-01", '"0001-01-01"'),
    ("DATE", "9999-12-31", '"9999-12-31"'),
    ("DATE", "2024-02-29", '"2024-02-29"'),
    ("DATE", "2000-02-29", '"2000-02-29"'),
    ("DATE", "2026-01-16 11:50:32", '"2026-01-16T11:50:32"'),
    ("DATE", "2026-01-16 11:50:32.5", '"2026-01-16T11:50:32.500000"'),
    ("DATE", "2026-01-16 00:00:00", '"2026-01-16"'),
    ("TIMESTAMP", "2026-01-16 11:50:32.665", '"2026-01-16T11:50:32.665000"'),
    ("TIMESTAMP", "2026-01-16 11:50:32", '"2026-01-16T11:50:32.000000"'),
    ("DATETIME", "2026-01-16T11:50", '"2026-01-16T11:50:00.000000"'),
    ("DATETIME", "2026-01-16", '"2026-01-16T00:00:00.000000"'),
    ("TIMESTAMP", "0001-01-01 00:00:00", '"0001-01-01T00:00:00.000000"'),
    ("TIMESTAMP", "9999-12-31 23:59:59.999999", '"9999-12-31T23:59:59.999999"'),
    ("TIMESTAMP", "2026-01-16 11:50:32+01:00", '"2026-01-16T11:50:32.000000+01:00"'),
    ("TIME", "11:50:32", '"11:50:32"'),
    ("TIME", "11:50", '"11:50"'),
    ("CHAR(5)", "ab   ", '"ab   "'),
    ("VARCHAR(12)", "0030526661", '"0030526661"'),
    ("VARCHAR2(12)", 30526661, '"30526661"'),
    ("NVARCHAR(9)", "价格 😀 è", '"价格 😀 è"'),
    ("CLOB", "", '""'),
    ("TEXT", 'a"\\\n', '"a\\"\\\\\\n"'),
    ("TEXT", "a\0b", '"a\\u0000b"'),
    ("TEXT", "1234567890123456789012345678901234567890", '"1234567890123456789012345678901234567890"'),
    ("BLOB", b"\x00\xff\x10", '"AP8Q"'),
    ("BLOB", b"", '""'),
    ("JSON", '{"a": [1.50, null]}', '{"a": [1.50, null]}'),
    ("JSON", 5, "5"),
    ("BOOLEAN", 1, "true"),
    ("BOOLEAN", 0, "false"),
    ("", 5, "5"),
    ("", "5", '"5"'),
    ("", 0.1, "0.1"),
    ("", 1e22, "1e22"),
    ("", b"\x00\xff", '"AP8="'),
    ("UUID", "6f9619ff-8b86-d011-b42d-00c04fc964ff", '"6f9619ff-8b86-d011-b42d-00c04fc964ff"'),
    ("INTEGER", Sql("1234567890123456789012345678901234567890"), "1234567890123456800000000000000000000000"),
]


@pytest.mark.parametrize(("declared", "value", "text"), TYPES)
def test_declared_type_becomes_this_json(file: File, declared: str, value: Any, text: str) -> None:
    assert file.json_of(declared, value) == text


REJECTS = [
    ("INTEGER", "abc", "the text is not a number"),
    ("INTEGER", "1\n2", "the text is not a number"),
    ("INTEGER", 1.5, "not a whole number"),
    ("INTEGER", b"\x01", "bytes is not a number"),
    ("INTEGER", Sql("9e999"), "Infinity has no JSON form"),
    ("NUMERIC", "1\n2", "the text is not a number"),
    ("NUMERIC", "", "the text is not a number"),
    ("NUMERIC", "NaN", "NaN has no JSON form"),
    ("NUMERIC", Sql("-9e999"), "Infinity has no JSON form"),
    ("REAL", Sql("9e999"), "Infinity has no JSON form"),
    ("REAL", "abc", "str is not a number"),
    ("DATE", "16/01/2026", "the text is not a date between the years 0001 and 9999"),
    ("DATE", "2026-02-30", "no such date"),
    ("DATE", "2026-02-29", "no such date"),
    ("DATE", "1900-02-29", "no such date"),
    ("DATE", "2026-13-01", "no such date"),
    ("DATE", "2026-04-31", "no such date"),
    ("DATE", "0000-01-01", "no such date"),
    ("DATE", "2026-01-16\n2026-01-17", "the text is not a date between the years 0001 and 9999"),
    ("DATE", "2026-01-16\n", "the text is not a date between the years 0001 and 9999"),
    ("DATE", 20260116, "int is not a date"),
    ("DATE", "2026-01-16 25:00:00", "no such date"),
    ("", Sql("9e999"), "Infinity has no JSON form"),
    ("TIMESTAMP", "2026-01-16 25:00:00", "no such date"),
    ("TIMESTAMP", "2026-01-16 11:50:32.665000\n2026-01-16 11:50:32.665000", None),
    ("TIMESTAMP", 1768564232, "int is not a date"),
    ("TIME", "25:00", "the text is not a time of day"),
    ("TIME", "noon", "the text is not a time of day"),
    ("BOOLEAN", 2, "int is neither true nor false"),
    ("BOOLEAN", "yes", "str is neither true nor false"),
    ("JSON", "{torn", "the text is not JSON"),
    ("JSON", "NaN", "the text is not JSON"),
    ("TEXT", b"\x00", "bytes has no plain text form"),
    ("BLOB", "text", "str is not binary"),
    ("TEXT", Sql("CAST(x'61e862' AS TEXT)"), "the text is not valid UTF-8"),
    ("TEXT", Sql("CAST(x'eda080' AS TEXT)"), "the text is not valid UTF-8"),
]


@pytest.mark.parametrize(("declared", "value", "reason"), REJECTS)
def test_value_that_is_not_of_its_declared_type_rejects_its_row_alone(
    file: File, declared: str, value: Any, reason: str | None
) -> None:
    assert file.reason_of(declared, value) == (reason or "the text is not a date between the years 0001 and 9999")


OVERRIDES = [
    ("TEXT", "2026-01-16", "date", '"2026-01-16"'),
    ("TEXT", "2026-01-16 11:50:32", "date", '"2026-01-16"'),
    ("TEXT", "2026-01-16 11:50:32.5", "datetime", '"2026-01-16T11:50:32.500000"'),
    ("TEXT", "0042", "integer", "42"),
    ("TEXT", "12.50", "decimal", "12.50"),
    ("TEXT", "1234567890123456789012345678901234567890", "integer", "1234567890123456789012345678901234567890"),
    ("TEXT", '{"a": 1}', "json", '{"a": 1}'),
    ("TEXT", "abc", "base64", '"YWJj"'),
    ("CHAR(5)", "ab   ", "string", '"ab"'),
    ("INTEGER", 42, "string", '"42"'),
    ("REAL", 1.5, "decimal", "1.5"),
    ("REAL", 7.0, "integer", "7"),
    ("REAL", 0.5, "string", '"0.5"'),
    ("BLOB", b"\x00\xff", "string", '"AP8="'),
    ("", 1.5, "decimal", "1.5"),
    ("", 1.5, "string", '"1.5"'),
    ("DATE", "2026-01-16 11:50:32", "date", '"2026-01-16"'),
    ("DATE", "2026-01-16", "datetime", '"2026-01-16T00:00:00.000000"'),
    ("", b"ab", "base64", '"YWI="'),
]


@pytest.mark.parametrize(("declared", "value", "type_", "text"), OVERRIDES)
def test_types_of_the_job_decide(file: File, declared: str, value: Any, type_: Any, text: str) -> None:
    assert file.json_of(declared, value, types={"V": type_}) == text


@pytest.mark.parametrize(
    ("declared", "value", "type_", "reason"),
    [
        ("TEXT", "2026-02-30", "date", "no such date"),
        ("TEXT", "torn", "json", "the text is not JSON"),
        ("TEXT", "x", "decimal", "the text is not a number"),
        ("TEXT", b"x", "string", "bytes has no plain text form"),
        ("INTEGER", 1, "base64", "int is not binary"),
        ("INTEGER", 1, "datetime", "int is not a date"),
    ],
)
def test_value_that_is_not_of_the_jobs_type_rejects_its_row(
    file: File, declared: str, value: Any, type_: Any, reason: str
) -> None:
    assert file.reason_of(declared, value, types={"v": type_}) == reason


@pytest.mark.parametrize(
    ("mode", "declared", "value", "text"),
    [
        ("string", "NUMERIC", 1.5, '"1.5"'),
        ("string", "NUMERIC", 150, '"150"'),
        ("string", "INTEGER", 9007199254740993, '"9007199254740993"'),
        ("string", "INTEGER", 42, "42"),
        ("float", "NUMERIC", 9007199254740993, "9007199254740992.0"),
        ("float", "NUMERIC", 1.5, "1.5"),
        ("float", "INTEGER", 42, "42"),
    ],
)
def test_decimals_of_the_job_decide(file: File, mode: Any, declared: str, value: Any, text: str) -> None:
    assert file.json_of(declared, value, decimals=mode) == text


def test_bad_text_among_good_ones_is_the_only_one_rejected(file: File) -> None:
    values = ["a", Sql("CAST(x'e8' AS TEXT)"), "è", b"blob", "z"]
    done = file.encoded("TEXT", values)
    assert [r.row_number for r in done.rejects] == [2, 4]
    assert done.data == [b'{"v":"a"}', '{"v":"è"}'.encode(), b'{"v":"z"}']


def test_value_of_two_megabytes_comes_through(file: File) -> None:
    assert file.json_of("TEXT", "è" * 1_000_000) == '"' + "è" * 1_000_000 + '"'


# ── which declared type a column of the result has ────────────────────────────────────────────


def kinds(file: File, sql: str) -> list[tuple[str, str]]:
    columns, _ = file.read(sql)
    return [(c.name.lower(), c.kind) for c in columns]


def test_declared_type_is_found_through_joins_views_and_quotes(file: File) -> None:
    file.run('CREATE TABLE "odd name" (day DATE, "Price €" NUMERIC)')
    file.run("CREATE TABLE other (at TIMESTAMP, flag BOOLEAN)")
    file.run('CREATE VIEW seen AS SELECT day FROM "odd name"')
    file.run("INSERT INTO \"odd name\" VALUES ('2026-01-16', 1)")
    file.run("INSERT INTO other VALUES ('2026-01-16 11:50:32', 1)")
    assert kinds(file, 'SELECT day, "Price €", at, flag FROM "odd name" JOIN other') == [
        ("day", "date"),
        ("price €", "decimal"),
        ("at", "datetime"),
        ("flag", "boolean"),
    ]
    assert kinds(file, "SELECT * FROM [odd name], main.other") == [
        ("day", "date"),
        ("price €", "decimal"),
        ("at", "datetime"),
        ("flag", "boolean"),
    ]
    assert kinds(file, "SELECT day FROM seen") == [("day", "date")]


def test_column_of_one_of_two_tables_has_the_type_of_that_one(file: File) -> None:
    file.run("CREATE TABLE a (v DATE)")
    file.run("CREATE TABLE b (v INTEGER)")
    file.run("INSERT INTO b VALUES (5)")
    assert kinds(file, "SELECT b.v FROM b LEFT JOIN a ON a.v = 'x'") == [("v", "integer")]


def test_expression_on_whose_name_two_tables_disagree_is_taken_by_value(file: File) -> None:
    file.run("CREATE TABLE a (v DATE)")
    file.run("CREATE TABLE b (v INTEGER)")
    file.run("INSERT INTO b VALUES (5)")
    assert kinds(file, "SELECT max(b.v) AS v FROM b LEFT JOIN a ON a.v = 'x'") == [("v", "unknown")]


ALIASES = """WITH first AS (SELECT flag AS f, at AS moment, day AS d, doc AS j, price AS p, r AS prezzo, id AS n FROM kept)
    SELECT f AS attivo, moment, d AS giorno, j, p, prezzo, n, (SELECT flag FROM kept) AS g, r * 2 AS doppio,
    'a' || n AS t, x'00ff' AS b FROM first JOIN kept USING (r) WHERE n = :P_N"""


def test_alias_keeps_the_type_of_its_column(file: File) -> None:
    file.run(
        "CREATE TABLE kept (flag BOOLEAN, at DATETIME, day DATE, doc JSON, price NUMERIC(10,2), r REAL, id INTEGER)"
    )
    file.run("INSERT INTO kept VALUES (1, '2026-01-16 11:50', '2026-01-16', '{\"k\": 1}', 1.5, 0.5, 7)")
    connection = DatabaseConnection(name="lite", db_type="sqlite", database=str(file.path))
    sql = ALIASES.replace("USING (r)", "ON r = prezzo")
    with closing(SqliteSource(connection)) as source, source.read([Step(sql, {"P_N": 7})]) as reading:
        (rows,) = reading
    assert envelope(reading.columns).encode(rows).data == [
        b'{"attivo":true,"moment":"2026-01-16T11:50:00.000000","giorno":"2026-01-16","j":{"k": 1},"p":1.5,"prezzo":0.5,'
        b'"n":7,"g":true,"doppio":1.0,"t":"a7","b":"AP8="}'
    ]


def test_names_that_json_has_to_escape_are_escaped(file: File) -> None:
    file.run('CREATE TABLE kept ("a""b" INTEGER, "c\\d" BOOLEAN)')
    file.run("INSERT INTO kept VALUES (1, 1)")
    columns, rows = file.read("SELECT * FROM kept")
    assert envelope(columns).encode(rows).data == [rb'{"a\"b":1,"c\\d":true}']


def test_connection_that_may_write_gives_the_same_types_and_leaves_no_view(file: File) -> None:
    file.run("CREATE TABLE kept (flag BOOLEAN)")
    file.run("INSERT INTO kept VALUES (1)")
    connection = DatabaseConnection(name="lite", db_type="sqlite", database=str(file.path), allow_writes=True)
    sql = "SELECT flag AS f, (SELECT count(*) FROM temp.sqlite_master) AS views FROM kept"
    with closing(SqliteSource(connection)) as source, source.read([Step(sql)]) as reading:
        (rows,) = reading
    assert ([c.kind for c in reading.columns], rows.rows) == (["boolean", "unknown"], [(1, 0)])


def test_declared_type_is_found_below_subqueries_and_whatever_the_case(file: File) -> None:
    file.run("CREATE TABLE a (Day DATE, n INTEGER)")
    file.run("INSERT INTO a VALUES ('2026-01-16', 5)")
    assert kinds(file, "WITH c AS (SELECT DAY, n FROM A) SELECT day, n, n + 1 AS more FROM (SELECT * FROM c)") == [
        ("day", "date"),
        ("n", "integer"),
        ("more", "unknown"),
    ]


def test_name_of_a_column_that_is_not_read_gives_no_type(file: File) -> None:
    file.run("CREATE TABLE a (v DATE, n INTEGER)")
    file.run("INSERT INTO a VALUES ('2026-01-16', 5)")
    columns, rows = file.read("SELECT n AS v FROM a")
    assert envelope(columns).encode(rows).data == [b'{"v":5}']


def test_column_under_the_name_of_another_that_is_read_is_not_mistaken(file: File) -> None:
    file.run("CREATE TABLE a (v DATE, n INTEGER)")
    file.run("INSERT INTO a VALUES ('2026-01-16', 5)")
    columns, rows = file.read("SELECT n AS v, v AS n FROM a")
    assert envelope(columns).encode(rows).data == [b'{"v":5,"n":"2026-01-16"}']


@pytest.mark.parametrize("sql", ["SELECT 1 AS a, 2 AS a", "SELECT 1 AS a, 2 AS A"])
def test_two_columns_of_one_name_are_refused(file: File, sql: str) -> None:
    columns, _ = file.read(sql)
    with pytest.raises(QueryFailed, match="two columns"):
        envelope(columns)
