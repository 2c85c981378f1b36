"""Every type of MySQL and MariaDB, from a real server through source and envelope, to the JSON text."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import pytest

from core.message.envelope import Encoded, Envelope
from core.model.job import Job, KafkaConfig
from core.model.query import Step
from core.model.source import Column, Rows
from core.sources.mysql import MySqlSource
from tests.rigs.mysql import MySqlRig

AT = datetime(2026, 1, 17, 1, tzinfo=UTC)

# column type, value in SQL, its JSON, the type's name for people
TYPES = [
    # integers
    ("tinyint", "-128", "-128", "tinyint"),
    ("tinyint unsigned", "255", "255", "tinyint unsigned"),
    ("boolean", "true", "1", "tinyint"),
    ("smallint", "-32768", "-32768", "smallint"),
    ("mediumint", "8388607", "8388607", "mediumint"),
    ("int", "-2147483648", "-2147483648", "int"),
    ("int(6) unsigned zerofill", "42", "42", "int unsigned"),
    ("bigint", "-9223372036854775808", "-9223372036854775808", "bigint"),
    ("bigint unsigned", "18446744073709551615", "18446744073709551615", "bigint unsigned"),
    ("year", "2026", "2026", "year"),
    ("bit(8)", "b'10000001'", "129", "bit(8)"),
    ("bit(64)", "18446744073709551615", "18446744073709551615", "bit(64)"),
    # true and false
    ("bit(1)", "b'1'", "true", "bit(1)"),
    ("bit", "b'0'", "false", "bit(1)"),
    # exact numbers
    ("decimal(10,2)", "1.50", "1.50", "decimal(10,2)"),
    ("decimal(10,2)", "-7", "-7.00", "decimal(10,2)"),
    ("decimal(10,0)", "0", "0", "decimal(10,0)"),
    ("decimal(12,4) unsigned", "0.25", "0.2500", "decimal(12,4)"),
    (
        "decimal(65,30)",
        "12345678901234567890123456789012345.000000000000000000000000000001",
        "12345678901234567890123456789012345.000000000000000000000000000001",
        "decimal(65,30)",
    ),
    # floats
    ("double", "0.1", "0.1", "double"),
    ("double", "0.1e0 + 0.2e0", "0.30000000000000004", "double"),
    ("double", "1.7976931348623157e308", "1.7976931348623157e308", "double"),
    ("double", "2.2250738585072014e-308", "2.2250738585072014e-308", "double"),
    ("float(10,2)", "1234567.75", "1234567.75", "float"),
    # moments
    ("date", "'2026-01-16'", '"2026-01-16"', "date"),
    ("date", "'9999-12-31'", '"9999-12-31"', "date"),
    ("datetime", "'2026-01-16 11:50:32'", '"2026-01-16T11:50:32.000000"', "datetime"),
    ("datetime(3)", "'2026-01-16 11:50:32.665'", '"2026-01-16T11:50:32.665000"', "datetime"),
    ("datetime(6)", "'1000-01-01 00:00:00.000001'", '"1000-01-01T00:00:00.000001"', "datetime"),
    ("timestamp null", "'2026-01-16 11:50:32'", '"2026-01-16T11:50:32.000000+00:00"', "timestamp"),
    ("timestamp(6) null", "'2026-01-16 11:50:32.6'", '"2026-01-16T11:50:32.600000+00:00"', "timestamp"),
    ("time", "'11:50:32'", '"11:50:32"', "time"),
    ("time(3)", "'11:50:32.665'", '"11:50:32.665"', "time"),
    # texts
    ("char(5)", "'ab'", '"ab"', "char"),
    ("varchar(10)", "'ab '", '"ab "', "varchar"),
    ("varchar(50)", "'价格 😀 \"quoted\" è'", '"价格 😀 \\"quoted\\" è"', "varchar"),
    ("varchar(10) character set latin1", "'è€'", '"è€"', "varchar"),
    ("text", "'tab\\tline\\n'", '"tab\\tline\\n"', "text"),
    ("longtext", "''", '""', "text"),
    ("enum('N','S')", "'S'", '"S"', "enum"),
    ("set('a','b')", "'a,b'", '"a,b"', "set"),
    ("uuid", "'6f9619ff-8b86-d011-b42d-00c04fc964ff'", '"6f9619ff-8b86-d011-b42d-00c04fc964ff"', "char"),
    ("inet6", "'2001:db8::1'", '"2001:db8::1"', "char"),
    # binaries
    ("binary(3)", "x'00ff10'", '"AP8Q"', "binary"),
    ("varbinary(9)", "x'00ff10'", '"AP8Q"', "varbinary"),
    ("blob", "x''", '""', "blob"),
    ("longblob", "x'00ff10'", '"AP8Q"', "blob"),
]
REJECTS = [
    ("date", "'0000-00-00'", "no such date"),
    ("date", "'2026-02-00'", "no such date"),
    ("datetime", "'0000-00-00 00:00:00'", "no such date"),
    ("timestamp null", "'0000-00-00 00:00:00'", "no such date"),
    ("time", "'838:59:59'", "the text is not a time of day"),
    ("time", "'-01:00:00'", "the text is not a time of day"),
]


@pytest.fixture(scope="module")
def results(mariadb: MySqlRig) -> Iterator[tuple[tuple[Column, ...], Rows, Encoded, Encoded]]:
    """A table with a column for each case: its values in row 1, NULL in row 2; and both as messages."""
    cases = [(type_, value) for type_, value, *_ in [*TYPES, *REJECTS]]
    columns = ", ".join(f"c{i} {type_}" for i, (type_, _) in enumerate(cases))
    with closing(mariadb.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("SET sql_mode = '', time_zone = '+00:00'")
        cursor.execute(f"CREATE TABLE kinds ({columns}) CHARACTER SET utf8mb4")
        cursor.execute(f"INSERT INTO kinds VALUES ({', '.join(value for _, value in cases)})")
        cursor.execute(f"INSERT INTO kinds VALUES ({', '.join('NULL' for _ in cases)})")
    yield read(mariadb, "SELECT * FROM kinds")
    mariadb.execute("DROP TABLE kinds")


def read(server: MySqlRig, *sql: str) -> tuple[tuple[Column, ...], Rows]:
    """The last statement's columns and rows, in one block; the others go before it."""
    with (
        closing(MySqlSource(server.connection())) as source,
        source.read([Step(text, returns_rows=text is sql[-1]) for text in sql]) as reading,
    ):
        (rows,) = reading
        return reading.columns, rows


def encoded(results: Any, at: int, **settings: Any) -> Encoded:
    """One column of the table as messages, the same whether taken as a whole column or cell by cell."""
    columns, rows = results
    job = Job(slug="j", name="J", query="q.sql", connection="c", kafka_config=KafkaConfig(), **settings)
    column = Column("v", columns[at].kind, columns[at].database_type, columns[at].element)
    one = Rows(1, [(row[at],) for row in rows.rows], rows.extracted_at)
    envelope = Envelope((column,), job, scheduled_at=AT)
    done = envelope.encode(one)
    envelope._fast = [None]
    by_cell = envelope.encode(one)
    assert (done.data, done.rejects) == (by_cell.data, by_cell.rejects)
    assert done.data[-1] == b'{"v":null}'
    return done


@pytest.mark.parametrize("at", range(len(TYPES)), ids=lambda at: f"{TYPES[at][0]} {TYPES[at][1][:20]}")
def test_type_becomes_this_json(results: Any, at: int) -> None:
    done = encoded(results, at)
    assert done.rejects == []
    assert done.data[0].decode() == f'{{"v":{TYPES[at][2]}}}'
    assert results[0][at].database_type == TYPES[at][3]


@pytest.mark.parametrize("at", range(len(REJECTS)), ids=lambda at: f"{REJECTS[at][0]} {REJECTS[at][1]}")
def test_value_without_json_form_rejects_its_row_alone(results: Any, at: int) -> None:
    (reject,) = encoded(results, len(TYPES) + at).rejects
    assert (reject.row_number, reject.column) == (1, "v")
    assert REJECTS[at][2] in reject.reason


def test_a_json_column_of_mariadb_is_a_text_that_the_job_may_call_json(results: Any, mariadb: MySqlRig) -> None:
    columns, rows = read(mariadb, "SELECT JSON_OBJECT('a', 1.50) AS v UNION ALL SELECT NULL")
    assert columns[0].kind == "text"
    assert encoded((columns, rows), 0, types={"V": "json"}).data[0] == b'{"v":{"a": 1.50}}'


def test_a_float_is_refused_with_the_sql_that_keeps_its_digits(mariadb: MySqlRig) -> None:
    columns, _ = read(mariadb, "SELECT CAST(16777215 AS float) AS v, CAST(CAST(16777215 AS float) AS double) AS exact")
    assert "CAST(v AS double) AS v" in columns[0].refusal
    assert columns[1].refusal == ""
    _, rows = read(mariadb, "SELECT CAST(CAST(16777215 AS float) AS double) AS v")
    assert rows.rows[0][0] == 16777215.0


def test_a_timestamp_is_refused_once_a_step_has_set_the_time_zone(mariadb: MySqlRig) -> None:
    sql = "SELECT TIMESTAMP(t) AS v, t FROM (SELECT MIN(last_update) AS t FROM mysql.innodb_table_stats) given"
    columns, _ = read(mariadb, "SET time_zone = '+05:00'", sql)
    assert [bool(column.refusal) for column in columns] == [False, True]
    columns, _ = read(mariadb, sql)
    assert [bool(column.refusal) for column in columns] == [False, False]


def test_values_of_expressions_have_their_types(mariadb: MySqlRig) -> None:
    sql = (
        "SELECT 1 + 1 AS a, 1.5 * 2 AS b, NOW(6) AS c, CURDATE() AS d, CONCAT('x', 1) AS e, NULL AS f, x'00ff' AS g, "
        "COUNT(*) AS h, AVG(1) AS i, SUM(1) AS j, 1 = 1 AS k, GROUP_CONCAT('x') AS l, UUID() AS m, CURTIME() AS n"
    )
    columns, _ = read(mariadb, sql)
    assert {column.name: column.kind for column in columns} == {
        **{"a": "integer", "b": "decimal", "c": "datetime", "d": "date", "e": "text", "f": "unknown", "g": "bytes"},
        **{"h": "integer", "i": "decimal", "j": "decimal", "k": "integer", "l": "text", "m": "char", "n": "time"},
    }
