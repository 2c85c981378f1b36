"""Every type of SQL Server in the contract, through FreeTDS and pyodbc from a server that speaks TDS, to the JSON text.

The test server (Babelfish) keeps six digits of a second and has no sql_variant; a real SQL Server has seven.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest

from core.errors import QueryFailed
from core.message.envelope import Encoded, Envelope
from core.model.job import Job, KafkaConfig
from core.model.query import Step
from core.model.source import Column, Rows
from core.sources.sqlserver import SqlServerSource
from tests.rigs.proxy import Proxy
from tests.rigs.sqlserver import SqlServerRig

AT = datetime(2026, 1, 17, 1, tzinfo=UTC)
OFFSET = "TODATETIMEOFFSET(CAST('2026-01-16T11:50:32.{}' AS datetime2), '{}')"


def read(rig: SqlServerRig, sql: str, binds: Sequence[Any] = ()) -> tuple[tuple[Column, ...], list[Rows]]:
    with closing(SqlServerSource(rig.connection())) as source, source.read([Step(sql, tuple(binds))]) as reading:
        return reading.columns, list(reading)


def encode(columns: Sequence[Column], rows: Rows, *, key: str | None = None, **settings: Any) -> Encoded:
    kafka = KafkaConfig(message_key_field=key)
    job = Job(slug="j", name="J", query="q.sql", connection="c", kafka_config=kafka, **settings)
    return Envelope(columns, job, scheduled_at=AT).encode(rows)


def json_of(column: Column, value: Any, **settings: Any) -> str:
    encoded = encode([replace(column, name="V")], Rows(1, [(value,)], AT), **settings)
    assert encoded.rejects == []
    (data,) = encoded.data
    return data.decode().removeprefix('{"v":').removesuffix("}")


class Values:
    """Expressions, all read in one SELECT, since the test server takes half a second for a login."""

    def __init__(self, rig: SqlServerRig, expressions: Sequence[str]) -> None:
        expressions = list(dict.fromkeys(expressions))
        selected = ", ".join(f"{expression} AS c{i}" for i, expression in enumerate(expressions))
        columns, (rows,) = read(rig, f"SELECT {selected}")
        self._found = dict(zip(expressions, zip(columns, rows.rows[0], strict=True), strict=True))

    def json_of(self, expression: str, **settings: Any) -> str:
        return json_of(*self._found[expression], **settings)


@pytest.fixture(scope="module")
def values(sqlserver: SqlServerRig) -> Values:
    listed = [*TYPES, *((e, "") for e, *_ in OVERRIDES), *((e, "") for _, e, _ in MODES)]
    return Values(sqlserver, [expression for expression, _ in listed] + [null_of(type_) for type_ in NULLS])


TYPES = [
    ("CAST(255 AS tinyint)", "255"),
    ("CAST(-32768 AS smallint)", "-32768"),
    ("CAST(-2147483648 AS int)", "-2147483648"),
    ("CAST(9223372036854775807 AS bigint)", "9223372036854775807"),
    ("CAST(1 AS bit)", "true"),
    ("CAST(0 AS bit)", "false"),
    ("CAST('12345678901234567890123456789012345678' AS decimal(38,0))", "12345678901234567890123456789012345678"),
    (
        "CAST('-0.12345678901234567890123456789012345678' AS decimal(38,38))",
        "-0.12345678901234567890123456789012345678",
    ),
    ("CAST('1.50' AS numeric(10,2))", "1.50"),
    ("CAST('-7' AS numeric(10,2))", "-7.00"),
    ("CAST('922337203685477.5807' AS money)", "922337203685477.5807"),
    ("CAST('-214748.3648' AS smallmoney)", "-214748.3648"),
    ("CAST(0.1 AS real)", "0.1"),
    ("CAST(1.17 AS real)", "1.17"),
    ("CAST(16777216 AS real)", "16777216.0"),
    ("CAST(0.1 AS float)", "0.1"),
    ("CAST(1.7976931348623157E308 AS float)", "1.7976931348623157e308"),
    ("CAST('2026-01-16' AS date)", '"2026-01-16"'),
    ("CAST('0001-01-01' AS date)", '"0001-01-01"'),
    ("CAST('9999-12-31' AS date)", '"9999-12-31"'),
    ("CAST('2026-01-16T11:50:32.667' AS datetime)", '"2026-01-16T11:50:32.667000"'),
    ("CAST('2026-01-16' AS datetime)", '"2026-01-16T00:00:00.000000"'),
    ("CAST('2026-01-16T11:50:00' AS smalldatetime)", '"2026-01-16T11:50:00.000000"'),
    ("CAST('2026-01-16T11:50:32.123456' AS datetime2)", '"2026-01-16T11:50:32.123456"'),
    ("CAST('2026-01-16T11:50:32' AS datetime2(0))", '"2026-01-16T11:50:32.000000"'),
    ("CAST('0001-01-01' AS datetime2)", '"0001-01-01T00:00:00.000000"'),
    ("CAST('9999-12-31T23:59:59.999999' AS datetime2)", '"9999-12-31T23:59:59.999999"'),
    ("CAST('11:50:32.665' AS time)", '"11:50:32.665000"'),
    ("CAST('11:50:32' AS time(0))", '"11:50:32"'),
    (OFFSET.format("665", "+02:00"), '"2026-01-16T11:50:32.665000+02:00"'),
    (OFFSET.format("0", "-05:30"), '"2026-01-16T11:50:32.000000-05:30"'),
    (OFFSET.format("0", "+00:00"), '"2026-01-16T11:50:32.000000+00:00"'),
    (f"CAST({OFFSET.format('0', '+13:45')} AS datetimeoffset(0))", '"2026-01-16T11:50:32.000000+13:45"'),
    ("CAST('ab' AS char(5))", '"ab   "'),
    ("CAST(N'è€' AS nchar(5))", '"è€   "'),
    ("CAST('ab ' AS varchar(10))", '"ab "'),
    ("CAST('' AS varchar(10))", '""'),
    ("CAST(N'価格 😀 \"quoted\" \\' AS nvarchar(40))", '"価格 😀 \\"quoted\\" \\\\"'),
    ("CAST(N'価😀' AS nvarchar(max))", '"価😀"'),
    ("CAST('x' AS varchar(max))", '"x"'),
    ("CAST('t' AS text)", '"t"'),
    ("CAST(N'ntè' AS ntext)", '"ntè"'),
    ("CAST('6F9619FF-8B86-D011-B42D-00C04FC964FF' AS uniqueidentifier)", '"6F9619FF-8B86-D011-B42D-00C04FC964FF"'),
    ("CAST('<a>1</a>' AS xml)", '"<a>1</a>"'),
    ("CAST(0x0102 AS binary(4))", '"AQIAAA=="'),
    ("CAST(0xFF00FE AS varbinary(10))", '"/wD+"'),
    ("CAST(0xFF00 AS varbinary(max))", '"/wA="'),
    ("CAST(0x00 AS image)", '"AA=="'),
    ("CAST(0x00000000000007D1 AS rowversion)", '"AAAAAAAAB9E="'),
]


@pytest.mark.parametrize(("expression", "text"), TYPES, ids=[expression for expression, _ in TYPES])
def test_type_becomes_exactly_this_json(values: Values, expression: str, text: str) -> None:
    assert values.json_of(expression) == text


def null_of(type_: str) -> str:
    return f"CAST(NULL AS {type_})"


NULLS = [
    *("tinyint", "smallint", "int", "bigint", "bit", "decimal(38,10)", "numeric(10,2)", "money", "smallmoney", "real"),
    *("float", "date", "datetime", "datetime2", "smalldatetime", "time", "datetimeoffset", "char(3)", "nchar(3)"),
    *("varchar(3)", "nvarchar(3)", "varchar(max)", "nvarchar(max)", "text", "ntext", "uniqueidentifier", "xml"),
    *("binary(3)", "varbinary(3)", "varbinary(max)", "image", "rowversion"),
]


@pytest.mark.parametrize("type_", NULLS)
def test_null_of_every_type_stays_as_null(values: Values, type_: str) -> None:
    assert values.json_of(null_of(type_)) == "null"


@pytest.mark.parametrize("size", [4001, 70_000, 1_000_000])
def test_long_text_and_long_bytes_come_whole(sqlserver: SqlServerRig, size: int) -> None:
    text = f"REPLICATE(CAST(N'è' AS nvarchar(max)), {size})"
    binary = f"CAST(REPLICATE(CAST('abc' AS varchar(max)), {size}) AS varbinary(max))"
    long = Values(sqlserver, [text, binary])
    assert long.json_of(text) == f'"{"è" * size}"'
    assert long.json_of(binary) == f'"{"YWJj" * size}"'


def test_column_is_named_by_its_type_for_people(sqlserver: SqlServerRig) -> None:
    columns, _ = read(
        sqlserver,
        "SELECT CAST(1 AS bigint) a, CAST(1 AS tinyint) b, CAST(1 AS decimal(10,2)) c, CAST(1 AS real) d,"
        f" CAST(1 AS bit) e, CAST('x' AS nchar(2)) f, {OFFSET.format('5', '+01:00')} g, CAST(0x01 AS binary(1)) h",
    )
    assert [column.database_type for column in columns] == [
        *("bigint", "tinyint", "decimal(10,2)", "real", "bit", "varchar", "datetimeoffset", "varbinary")
    ]


def test_type_that_the_driver_cannot_read_stops_the_query_and_is_not_sent_as_something_else(
    sqlserver: SqlServerRig,
) -> None:
    _, (version,) = read(sqlserver, "SELECT @@VERSION AS v")
    if "Babelfish" not in version.rows[0][0]:
        pytest.skip("a true SQL Server has sql_variant, the test server names a type that FreeTDS does not know")
    with pytest.raises(QueryFailed, match="mssql"):
        read(sqlserver, "SELECT CAST(1 AS sql_variant) AS v")


# ── what a job may say about types ──

OVERRIDES = [
    ("CAST('ab' AS char(5))", "string", '"ab"'),
    ("CAST(N'è ' AS nchar(5))", "string", '"è"'),
    ("CAST('2026-01-16T11:50:32' AS datetime)", "date", '"2026-01-16"'),
    ("CAST('2026-01-16' AS date)", "datetime", '"2026-01-16T00:00:00.000000"'),
    ("CAST('572' AS varchar(5))", "integer", "572"),
    ("CAST('572.50' AS varchar(9))", "decimal", "572.50"),
    ("CAST('7.00' AS decimal(5,2))", "integer", "7"),
    ("CAST('1.50' AS money)", "string", '"1.5000"'),
    ("CAST(12 AS int)", "string", '"12"'),
    ("CAST('ab' AS varchar(5))", "base64", '"YWI="'),
    ("CAST('{\"k\": [1, 2.50]}' AS varchar(50))", "json", '{"k": [1, 2.50]}'),
]


@pytest.mark.parametrize(("expression", "override", "text"), OVERRIDES)
def test_override_of_a_job_decides_the_json(values: Values, expression: str, override: str, text: str) -> None:
    assert values.json_of(expression, types={"v": override}) == text


BIG = "CAST('9007199254740993' AS bigint)"
MODES = [
    ("number", "CAST('1.50' AS money)", "1.5000"),
    ("string", "CAST('1.50' AS money)", '"1.5000"'),
    ("float", "CAST('1.50' AS money)", "1.5"),
    ("number", BIG, "9007199254740993"),
    ("string", BIG, '"9007199254740993"'),
    ("string", "CAST(848 AS int)", "848"),
]


@pytest.mark.parametrize(("mode", "expression", "text"), MODES)
def test_mode_of_decimals_decides_how_numbers_are_written(
    values: Values, mode: str, expression: str, text: str
) -> None:
    assert values.json_of(expression, decimals=mode) == text


def test_value_that_does_not_fit_its_override_rejects_its_row_alone(sqlserver: SqlServerRig) -> None:
    columns, (rows,) = read(sqlserver, "SELECT '1' AS V UNION ALL SELECT 'x' UNION ALL SELECT '3' ORDER BY V")
    encoded = encode(columns, rows, types={"V": "integer"})
    assert encoded.data == [b'{"v":1}', b'{"v":3}']
    (reject,) = encoded.rejects
    assert (reject.row_number, reject.column, reject.database_type) == (3, "V", "varchar")


KEYS = [
    ("CAST('00572' AS varchar(9))", b"00572"),
    ("CAST(572680001120 AS bigint)", b"572680001120"),
    ("CAST('572680001120' AS decimal(20,0))", b"572680001120"),
    ("CAST('572680001120.00' AS decimal(20,2))", b"572680001120"),
    ("CAST('6F9619FF-8B86-D011-B42D-00C04FC964FF' AS uniqueidentifier)", b"6F9619FF-8B86-D011-B42D-00C04FC964FF"),
]


def test_key_is_the_plain_text_of_its_value(sqlserver: SqlServerRig) -> None:
    columns, (rows,) = read(sqlserver, "SELECT " + ", ".join(f"{e} AS K{i}" for i, (e, _) in enumerate(KEYS)))
    keys = [encode(columns, rows, key=f"k{i}").keys[0] for i in range(len(KEYS))]
    assert keys == [key for _, key in KEYS]


# ── what is bound ──

BINDS = [
    (date(2026, 1, 16), "date"),
    (datetime(2026, 1, 16, 11, 50, 32, 123456), "datetime2"),  # noqa: DTZ001
    (datetime(2026, 1, 16, 11, 50, 32, 667000), "datetime"),  # noqa: DTZ001
    ("価è😀';--", "nvarchar(50)"),
    ("x" * 5000, "nvarchar(max)"),
    (Decimal("12345678901234567890.50"), "decimal(38,2)"),
    (9223372036854775807, "bigint"),
]


def test_bound_values_arrive_as_they_are(sqlserver: SqlServerRig) -> None:
    selected = ", ".join(f"CAST(? AS {type_}) AS c{i}" for i, (_, type_) in enumerate(BINDS))
    _, (rows,) = read(sqlserver, f"SELECT {selected}", [value for value, _ in BINDS])
    assert list(rows.rows[0]) == [value for value, _ in BINDS]


def test_names_that_json_has_to_escape_are_escaped(sqlserver: SqlServerRig) -> None:
    columns, (rows,) = read(sqlserver, 'SELECT 1 AS [a"b], 2 AS [c\\d]')
    assert encode(columns, rows).data == [rb'{"a\"b":1,"c\\d":2}']


# ── half of a character, as LEFT makes it of an emoji ─────────────────────────────────────────

STAND_IN, HALF = "兑剒".encode("utf-16-le"), b"\x3d\xd8a\0"
"""The test server cannot store half a character, so the proxy inserts one."""


def halved(rig: SqlServerRig, sql: str, **changes: Any) -> Encoded:
    """Reads in blocks of two rows."""
    with (
        Proxy(rig.host, rig.port, alter=lambda data: data.replace(STAND_IN, HALF)) as proxy,
        closing(SqlServerSource(rig.connection(host=proxy.host, port=proxy.port, **changes))) as source,
        source.read([Step(sql)], fetch_rows=2) as reading,
    ):
        rows = [row for rows in reading for row in rows.rows]
    return encode(reading.columns, Rows(1, rows, AT))


@pytest.mark.parametrize("type_", ["nvarchar(20)", "nvarchar(max)", "nchar(4)"])
def test_half_of_a_character_rejects_its_row_and_the_others_go_on(sqlserver: SqlServerRig, type_: str) -> None:
    values = ["x", "y", "兑剒", "è😀", "z", "兑剒", "w"]
    rows = " UNION ALL ".join(f"SELECT {i} AS id, CAST(N'{v}' AS {type_}) AS v" for i, v in enumerate(values, 1))
    done = halved(sqlserver, f"{rows} UNION ALL SELECT 8, NULL ORDER BY id")
    if not done.rejects:
        pytest.skip("what this server sends is encrypted")
    width = 4 if type_ == "nchar(4)" else 0
    good = [f'{{"id":{i},"v":"{v:{width}}"}}' for i, v in ((1, "x"), (2, "y"), (5, "z"), (7, "w"))]
    assert [data.decode() for data in done.data if b"\xf0\x9f" not in data] == [*good, '{"id":8,"v":null}']
    assert '"id":4,"v":"è😀' in done.data[2].decode()
    assert [(r.row_number, r.column) for r in done.rejects] == [(3, "v"), (6, "v")]
    assert {r.reason for r in done.rejects} == {
        "the text holds half of a character (a lone surrogate) and has no UTF-8 form"
    }


def test_half_of_a_character_in_rows_of_no_sure_order_ends_the_run_in_words(sqlserver: SqlServerRig) -> None:
    sql = """SELECT CASE WHEN n = 5 THEN N'兑剒' ELSE CAST(NEWID() AS nvarchar(40)) END AS v
        FROM (VALUES (1), (2), (3), (4), (5)) AS given (n) ORDER BY n"""
    with pytest.raises(QueryFailed, match="cannot read a value") as caught:
        halved(sqlserver, sql)
    assert "in another order" in caught.value.text


def test_connection_that_may_write_is_not_read_again(sqlserver: SqlServerRig) -> None:
    with pytest.raises(QueryFailed, match="not valid Unicode"):
        halved(sqlserver, "SELECT N'兑剒' AS v", allow_writes=True)
