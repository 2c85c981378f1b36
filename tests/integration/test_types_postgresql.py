"""Every type of PostgreSQL in the contract, from a real server through source and envelope, to the JSON text."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import pytest

from core.errors import QueryFailed
from core.message.envelope import Encoded, Envelope
from core.model.job import Job, KafkaConfig
from core.model.query import Step
from core.model.source import Column, Rows
from core.sources.postgresql import PostgresSource
from tests.rigs.postgres import PostgresRig

AT = datetime(2026, 1, 17, 1, tzinfo=UTC)
SCHEMA = """
CREATE SCHEMA kinds;
CREATE TYPE kinds.mood AS ENUM ('happy', 'not so, {sad}');
CREATE TYPE kinds.place AS (office int, name text);
CREATE DOMAIN kinds.amount AS numeric(12, 2);
CREATE DOMAIN kinds.fee AS kinds.amount CHECK (VALUE >= 0);
CREATE DOMAIN kinds.tags AS text[];
CREATE TYPE kinds.date AS ENUM ('today');
CREATE TYPE kinds.span AS RANGE (subtype = float8);
"""


@pytest.fixture(scope="module")
def server(postgres: PostgresRig) -> Iterator[PostgresRig]:
    with closing(postgres.connect()) as connection:
        connection.execute(SCHEMA)
        yield postgres
        connection.execute("DROP SCHEMA kinds CASCADE")


def read(server: PostgresRig, *sql: str) -> tuple[tuple[Column, ...], Rows]:
    """The last statement's columns and rows, in one block; the others go before it."""
    with (
        closing(PostgresSource(server.connection())) as source,
        source.read([Step(text, returns_rows=text is sql[-1]) for text in sql]) as reading,
    ):
        (rows,) = reading
        return reading.columns, rows


def envelope(columns: tuple[Column, ...], *, key: str | None = None, **settings: Any) -> Envelope:
    job = Job(
        slug="j", name="J", query="q.sql", connection="c", kafka_config=KafkaConfig(message_key_field=key), **settings
    )
    return Envelope(columns, job, scheduled_at=AT)


def encoded(server: PostgresRig, expression: str, **settings: Any) -> Encoded:
    """One row with the value and one with NULL, of the same type down to its length."""
    sql = f"SELECT v FROM (SELECT {expression} AS v, 1 AS n) given RIGHT JOIN generate_series(1, 2) n USING (n) ORDER BY n"
    columns, rows = read(server, sql)
    at_once = envelope(columns, **settings)
    done = at_once.encode(rows)
    at_once._fast = [None]  # what is taken as a whole column is the same as cell by cell
    by_cell = at_once.encode(rows)
    assert (done.data, done.rejects) == (by_cell.data, by_cell.rejects)
    assert done.data[-1] == b'{"v":null}'
    return done


def json_of(server: PostgresRig, expression: str, **settings: Any) -> str:
    done = encoded(server, expression, **settings)
    assert done.rejects == []
    return done.data[0].decode().removeprefix('{"v":').removesuffix("}")


def reason_of(server: PostgresRig, expression: str, **settings: Any) -> tuple[str, str]:
    """Type and reason of the rejected row; the column is named and the other row is sent."""
    done = encoded(server, expression, **settings)
    (reject,) = done.rejects
    assert (reject.row_number, reject.column) == (1, "v")
    assert done.row_numbers == [2]
    return reject.database_type, reject.reason


TYPES = [
    # integers
    ("(-32768)::int2", "-32768"),
    ("2147483647::int4", "2147483647"),
    ("(-9223372036854775808)::int8", "-9223372036854775808"),
    ("9223372036854775807::int8", "9223372036854775807"),
    ("26::oid", "26"),
    # exact numbers
    ("12345678901234567890123456789012345678::numeric(38)", "12345678901234567890123456789012345678"),
    ("(-0.12345678901234567890123456789012345678)::numeric(38,38)", "-0.12345678901234567890123456789012345678"),
    ("1234567890123456789012345678901234567890::numeric", "1234567890123456789012345678901234567890"),
    ("1.50::numeric(10,2)", "1.50"),
    ("(-7)::numeric(10,2)", "-7.00"),
    ("0::numeric", "0"),
    ("0.000::numeric", "0.000"),
    ("1e-20::numeric", "0.00000000000000000001"),
    ("1e30::numeric", "1" + "0" * 30),
    ("123456::numeric(5,-2)", "123500"),
    ("2.5::kinds.amount", "2.50"),
    ("2.5::kinds.fee", "2.50"),
    ("92233720368547758.07::money", "92233720368547758.07"),
    ("(-1234.5)::money", "-1234.50"),
    ("0::money", "0.00"),
    # floats
    ("0.1::float4", "0.1"),
    ("1.17::float4", "1.17"),
    ("16777216::float4", "16777216.0"),
    ("3.4028235e38::float4", "3.4028235e38"),
    ("0.1::float8", "0.1"),
    ("(0.1::float8 + 0.2::float8)", "0.30000000000000004"),
    ("'-0'::float8", "-0.0"),
    ("1.7976931348623157e308::float8", "1.7976931348623157e308"),
    ("5e-324::float8", "5e-324"),
    # moments
    ("date '2026-01-16'", '"2026-01-16"'),
    ("date '0001-01-01'", '"0001-01-01"'),
    ("date '9999-12-31'", '"9999-12-31"'),
    ("date '2024-02-29'", '"2024-02-29"'),
    ("timestamp '2026-01-16 11:50:32.665'", '"2026-01-16T11:50:32.665000"'),
    ("timestamp '2026-01-16 11:50:32'", '"2026-01-16T11:50:32.000000"'),
    ("timestamp(0) '2026-01-16 00:00:00'", '"2026-01-16T00:00:00.000000"'),
    ("timestamp '0001-01-01 00:00:00.000001'", '"0001-01-01T00:00:00.000001"'),
    ("timestamp '9999-12-31 23:59:59.999999'", '"9999-12-31T23:59:59.999999"'),
    ("timestamptz '2026-01-16 11:50:32.665+01'", '"2026-01-16T10:50:32.665000+00:00"'),
    ("timestamptz '2026-07-16 11:50:32+02'", '"2026-07-16T09:50:32.000000+00:00"'),
    ("timestamptz '0001-01-02 00:00:00+00'", '"0001-01-02T00:00:00.000000+00:00"'),
    ("time '11:50:32.665'", '"11:50:32.665"'),
    ("time '00:00:00'", '"00:00:00"'),
    ("timetz '11:50:32+01'", '"11:50:32+01"'),
    ("timetz '11:50:32.5-05:30'", '"11:50:32.5-05:30"'),
    ("interval '1 year 2 months 3 days 4 hours 5 minutes 6.789 seconds'", '"P1Y2M3DT4H5M6.789S"'),
    ("interval '-1 month -2 days'", '"P-1M-2D"'),
    ("interval '1 month -2 days -3 hours'", '"P1M-2DT-3H"'),
    ("interval '0'", '"PT0S"'),
    ("interval '90 minutes'", '"PT1H30M"'),
    ("interval '-0.5 seconds'", '"PT-0.5S"'),
    # texts
    ("'ab'::char(5)", '"ab   "'),
    ("'x'::bpchar", '"x"'),
    ("'ab '::varchar(10)", '"ab "'),
    ("''::text", '""'),
    ("'价格 😀 \"quoted\" \\ è'::text", '"价格 😀 \\"quoted\\" \\\\ è"'),
    ("e'tab\\tline\\nbell\\x07'::text", '"tab\\tline\\nbell\\u0007"'),
    ("'x'::name", '"x"'),
    ("'c'::\"char\"", '"c"'),
    ("'6f9619ff-8b86-d011-b42d-00c04fc964ff'::uuid", '"6f9619ff-8b86-d011-b42d-00c04fc964ff"'),
    ("'happy'::kinds.mood", '"happy"'),
    ("'<a b=\"1\">è</a>'::xml", '"<a b=\\"1\\">è</a>"'),
    ("'10.0.0.1/24'::inet", '"10.0.0.1/24"'),
    ("'10.0.0.0/8'::cidr", '"10.0.0.0/8"'),
    ("'08:00:2b:01:02:03'::macaddr", '"08:00:2b:01:02:03"'),
    ("'fat & rat'::tsquery", "\"'fat' & 'rat'\""),
    ("'$.a'::jsonpath", '"$.\\"a\\""'),
    ("'pg_class'::regclass", '"pg_class"'),
    # binaries
    ("'\\x00ff10'::bytea", '"AP8Q"'),
    ("''::bytea", '""'),
    # JSON
    ('\'{"a": [1, 2.50, {"b": null}]}\'::json', '{"a": [1, 2.50, {"b": null}]}'),
    ('\'{"b":1,  "a":{"x":"è"}}\'::jsonb', '{"a": {"x": "è"}, "b": 1}'),
    (
        "'12345678901234567890123456789012345678.000000000001'::jsonb",
        "12345678901234567890123456789012345678.000000000001",
    ),
    ("'null'::jsonb", "null"),
    ("'\"text\"'::json", '"text"'),
    # arrays
    ("ARRAY[1, 2, NULL]", "[1,2,null]"),
    ("'{}'::int[]", "[]"),
    ("ARRAY[[1, 2], [3, 4]]", "[[1,2],[3,4]]"),
    ("'[0:1]={5,6}'::int[]", "[5,6]"),
    ("ARRAY[1.50, 12345678901234567890.1]::numeric[]", "[1.50,12345678901234567890.1]"),
    ("ARRAY['a', NULL, 'NULL', '', 'q\"\\,{}', 'è']::text[]", '["a",null,"NULL","","q\\"\\\\,{}","è"]'),
    ("ARRAY['ab']::char(4)[]", '["ab  "]'),
    ("ARRAY[timestamp '2026-01-16 11:50:32.5']", '["2026-01-16T11:50:32.500000"]'),
    ("ARRAY[timestamptz '2026-01-16 11:50:32+01']", '["2026-01-16T10:50:32.000000+00:00"]'),
    ("ARRAY[date '2026-01-16', NULL]", '["2026-01-16",null]'),
    ("ARRAY[true, false]", "[true,false]"),
    ("ARRAY['\\x00ff'::bytea]", '["AP8="]'),
    ("ARRAY[0.1::float4]", "[0.1]"),
    ("ARRAY[1.5::money]", "[1.50]"),
    ("ARRAY[interval '1 day']", '["P1D"]'),
    ("ARRAY['{\"a\": 1}'::jsonb]", '[{"a": 1}]'),
    ("ARRAY['6f9619ff-8b86-d011-b42d-00c04fc964ff'::uuid]", '["6f9619ff-8b86-d011-b42d-00c04fc964ff"]'),
    ("ARRAY['happy', 'not so, {sad}', NULL]::kinds.mood[]", '["happy","not so, {sad}",null]'),
    ("'today'::kinds.date", '"today"'),
    ("ARRAY['today']::kinds.date[]", '["today"]'),
    ("ARRAY[date '2026-01-16', NULL]::date[]", '["2026-01-16",null]'),
    ("ARRAY[2.5, NULL]::kinds.amount[]", "[2.50,null]"),
    ("ARRAY[2.5]::kinds.fee[]", "[2.50]"),
    ("ARRAY['a', 'b']::kinds.tags", '["a","b"]'),
    ("ARRAY[ROW(38713, 'Torino')::kinds.place]", '["(38713,Torino)"]'),
    ("'{(1,1),(0,0);(2,2),(1,1)}'::box[]", '["(1,1),(0,0)","(2,2),(1,1)"]'),
    # true and false
    ("true", "true"),
    ("false", "false"),
    ("B'1'::bit(1)", "true"),
    ("B'0'::bit", "false"),
    # anything else: plain text
    ("B'101'::bit(3)", '"101"'),
    ("'{1,NULL,0}'::bit(1)[]", "[true,null,false]"),
    ("'{{1,0},{0,1}}'::bit[]", "[[true,false],[false,true]]"),
    ("'{101}'::bit(3)[]", '["101"]'),
    ("B'1'::varbit", '"1"'),
    ("ROW(38713, 'Torino')::kinds.place", '"(38713,Torino)"'),
    ("ROW(1, 'a')", '"(1,a)"'),
    ("int4range(1, 5)", '"[1,5)"'),
    ("daterange('2026-01-16', NULL)", '"[2026-01-16,)"'),
    ("'{[1,2), [5,6)}'::int4multirange", '"{[1,2),[5,6)}"'),
    ("'[0.5,1]'::kinds.span", '"[0.5,1]"'),
    ("point(1, 2)", '"(1,2)"'),
    ("'((0,0),(1,1))'::polygon", '"((0,0),(1,1))"'),
    ("'1 2'::int2vector", '"1 2"'),
]


@pytest.mark.parametrize(("expression", "text"), TYPES)
def test_type_becomes_this_json(server: PostgresRig, expression: str, text: str) -> None:
    assert json_of(server, expression) == text


REJECTS = [
    ("'NaN'::numeric", "numeric", "NaN has no JSON form"),
    ("'Infinity'::numeric", "numeric", "Infinity has no JSON form"),
    ("'-Infinity'::numeric", "numeric", "Infinity has no JSON form"),
    ("'NaN'::float4", "float4", "NaN has no JSON form"),
    ("'NaN'::float8", "float8", "NaN has no JSON form"),
    ("'Infinity'::float8", "float8", "Infinity has no JSON form"),
    ("'-Infinity'::float4", "float4", "Infinity has no JSON form"),
    ("'infinity'::date", "date", "the text is not a date between the years 0001 and 9999"),
    ("'0044-03-15 BC'::date", "date", "the text is not a date between the years 0001 and 9999"),
    ("'10000-01-01'::date", "date", "the text is not a date between the years 0001 and 9999"),
    ("'-infinity'::timestamp", "timestamp", "the text is not a date between the years 0001 and 9999"),
    ("'0044-03-15 BC'::timestamp", "timestamp", "the text is not a date between the years 0001 and 9999"),
    ("'10000-01-01'::timestamp", "timestamp", "the text is not a date between the years 0001 and 9999"),
    ("'infinity'::timestamptz", "timestamptz", "the text is not a date between the years 0001 and 9999"),
    (
        '\'{"a": "\\ud800"}\'::json',
        "json",
        "the text escapes half of a character (a lone surrogate), which has no UTF-8 form",
    ),
    ("ARRAY['NaN'::numeric]", "numeric[]", "NaN has no JSON form"),
    ("ARRAY[1, 'Infinity'::float8]", "float8[]", "Infinity has no JSON form"),
    ("ARRAY['infinity'::date]", "date[]", "the text is not a date between the years 0001 and 9999"),
]


@pytest.mark.parametrize(("expression", "type_", "reason"), REJECTS)
def test_value_without_json_form_rejects_its_row_alone(
    server: PostgresRig, expression: str, type_: str, reason: str
) -> None:
    assert reason_of(server, expression) == (type_, reason)


OVERRIDES = [
    ("'ab'::char(5)", "string", '"ab"'),
    ("'007'::varchar", "string", '"007"'),
    ("1.50::numeric", "string", '"1.50"'),
    ("42::int8", "string", '"42"'),
    ("true", "string", '"true"'),
    ("timestamp '2026-01-16 11:50:32'", "string", '"2026-01-16T11:50:32.000000"'),
    ("'{\"a\": 1}'::jsonb", "string", '"{\\"a\\": 1}"'),
    ("timestamp '2026-01-16 11:50:32'", "date", '"2026-01-16"'),
    ("timestamptz '2026-01-16 11:50:32+01'", "date", '"2026-01-16"'),
    ("'2026-01-16'::text", "date", '"2026-01-16"'),
    ("'2026-01-16 11:50'::text", "datetime", '"2026-01-16T11:50:00.000000"'),
    ("date '2026-01-16'", "datetime", '"2026-01-16T00:00:00.000000"'),
    ("'0042'::text", "integer", "42"),
    ("7.00::numeric", "integer", "7"),
    ("'12.50'::text", "decimal", "12.50"),
    ("5::int4", "decimal", "5"),
    ("'12345678901234567890123456789012345678'::text", "integer", "12345678901234567890123456789012345678"),
    ("'abc'::text", "base64", '"YWJj"'),
    ("'{\"a\": [1.0]}'::text", "json", '{"a": [1.0]}'),
]


@pytest.mark.parametrize(("expression", "type_", "text"), OVERRIDES)
def test_types_of_the_job_decide(server: PostgresRig, expression: str, type_: Any, text: str) -> None:
    assert json_of(server, expression, types={"V": type_}) == text


OVERRIDE_REJECTS = [
    ("'16/01/2026'::text", "date", "the text is not a date between the years 0001 and 9999"),
    ("'2026-02-30'::text", "date", "no such date"),
    ("'x'::text", "integer", "the text is not a number"),
    ("1.5::numeric", "integer", "not a whole number"),
    ("''::text", "decimal", "the text is not a number"),
    ("'{\"a\": NaN}'::text", "json", "the text is not JSON"),
    ("'{'::text", "json", "the text is not JSON"),
    ("1::int4", "date", "int is not a date"),
    ("1::int4", "base64", "int is not binary"),
    ("ARRAY[1]", "string", "a list or an object has no plain text form"),
]


@pytest.mark.parametrize(("expression", "type_", "reason"), OVERRIDE_REJECTS)
def test_value_that_is_not_of_the_jobs_type_rejects_its_row(
    server: PostgresRig, expression: str, type_: Any, reason: str
) -> None:
    assert reason_of(server, expression, types={"v": type_})[1] == reason


@pytest.mark.parametrize(
    ("mode", "expression", "text"),
    [
        ("string", "1.50::numeric", '"1.50"'),
        ("string", "(-1234.5)::money", '"-1234.50"'),
        ("string", "9007199254740992::int8", "9007199254740992"),
        ("string", "9007199254740993::int8", '"9007199254740993"'),
        ("string", "1.50::float8", "1.5"),
        ("string", "ARRAY[1.50]::numeric[]", '["1.50"]'),
        ("float", "1.50::numeric", "1.5"),
        ("float", "12345678901234567890::numeric", "1.2345678901234567e19"),
        ("float", "9007199254740993::int8", "9007199254740993"),
        ("float", "ARRAY[1.50]::numeric[]", "[1.5]"),
        ("number", "9007199254740993::int8", "9007199254740993"),
    ],
)
def test_decimals_of_the_job_decide(server: PostgresRig, mode: Any, expression: str, text: str) -> None:
    assert json_of(server, expression, decimals=mode) == text


@pytest.mark.parametrize("mode", ["number", "string", "float"])
def test_nan_is_rejected_in_every_form_of_decimals(server: PostgresRig, mode: Any) -> None:
    assert reason_of(server, "'NaN'::numeric", decimals=mode) == ("numeric", "NaN has no JSON form")


@pytest.mark.parametrize(
    ("expression", "key"),
    [
        ("'00572680001120'::text", b"00572680001120"),
        ("572680001120::numeric", b"572680001120"),
        ("572680001120.00::numeric(20,2)", b"572680001120"),
        ("1.50::numeric", b"1.50"),
        ("5::int2", b"5"),
        ("5.0::float8", b"5"),
        ("date '2026-01-16'", b"2026-01-16"),
        ("timestamp '2026-01-16 11:50:32'", b"2026-01-16T11:50:32.000000"),
        ("true", b"true"),
        ("'ab'::char(4)", b"ab  "),
        ("'\\x00ff'::bytea", b"AP8="),
        ("'6f9619ff-8b86-d011-b42d-00c04fc964ff'::uuid", b"6f9619ff-8b86-d011-b42d-00c04fc964ff"),
    ],
)
def test_key_is_the_value_as_plain_text(server: PostgresRig, expression: str, key: bytes) -> None:
    columns, rows = read(server, f"SELECT {expression} AS v")
    assert envelope(columns, key="V").encode(rows).keys == [key]


def test_timestamp_with_time_zone_shows_the_zone_that_a_step_has_set(server: PostgresRig) -> None:
    sql = "SELECT timestamptz '2026-07-16 11:50:32Z' AS v, timestamptz '1860-01-01 00:00:00Z' AS old"
    columns, rows = read(server, "SET TIME ZONE 'Europe/Rome'", sql)
    assert envelope(columns).encode(rows).data == [
        b'{"v":"2026-07-16T13:50:32.000000+02:00","old":"1860-01-01T00:49:56.000000+00:49:56"}'
    ]


@pytest.mark.parametrize(
    "setting", ["SET DateStyle = 'SQL, DMY'", "SET IntervalStyle = 'postgres'", "SET DateStyle = 'German'"]
)
def test_text_in_a_shape_that_a_step_has_set_is_never_taken_for_another(server: PostgresRig, setting: str) -> None:
    columns, rows = read(server, setting, "SELECT date '2026-01-02' AS d, interval '1 day 02:00' AS i")
    done = envelope(columns).encode(rows)
    assert done.data == []
    assert done.rejects[0].column in ("d", "i")


def test_types_are_named_for_people(server: PostgresRig) -> None:
    sql = """SELECT 1.5::numeric(10,2) AS a, 'x'::varchar(9) AS b, 'happy'::kinds.mood AS c, ARRAY[1] AS d,
        ARRAY['happy']::kinds.mood[] AS e, ROW(1, 'x')::kinds.place AS f, 'x'::char(3) AS g, B'1'::bit(1) AS h"""
    columns, _ = read(server, sql)
    assert [(c.database_type, c.kind, c.element) for c in columns] == [
        ("numeric(10,2)", "decimal", None),
        ("varchar(9)", "text", None),
        ("kinds.mood", "text", None),
        ("int4[]", "array", "integer"),
        ("kinds.mood[]", "array", "text"),
        ("kinds.place", "text", None),
        ("bpchar(3)", "char", None),
        ("bit(1)", "boolean", None),
    ]


def test_value_of_two_megabytes_comes_through(server: PostgresRig) -> None:
    assert json_of(server, "repeat('è', 1000000)") == '"' + "è" * 1_000_000 + '"'
    assert len(json_of(server, "decode(repeat('00ff', 1000000), 'hex')")) == 2_666_668 + 2


def test_names_are_lower_case_and_in_the_querys_order(server: PostgresRig) -> None:
    columns, rows = read(server, 'SELECT 1 AS "Zeta", 2 AS "ALFA", 3 AS "con spazio è", 4 AS "_x"')
    assert envelope(columns).encode(rows).data == ['{"zeta":1,"alfa":2,"con spazio è":3,"_x":4}'.encode()]


def test_names_that_json_has_to_escape_are_escaped(server: PostgresRig) -> None:
    columns, rows = read(server, 'SELECT 1 AS "a""b", 2 AS "c\\d", 1.50 AS "e\nf"')
    assert envelope(columns).encode(rows).data == [rb'{"a\"b":1,"c\\d":2,"e\nf":1.50}']


@pytest.mark.parametrize("sql", ["SELECT 1 AS a, 2 AS a", 'SELECT 1 AS a, 2 AS "A"'])
def test_two_columns_of_one_name_are_refused_with_the_sql_to_write(server: PostgresRig, sql: str) -> None:
    columns, _ = read(server, sql)
    with pytest.raises(QueryFailed, match="two columns") as caught:
        envelope(columns)
    assert "AS a_2" in caught.value.remedy


def test_bad_row_among_good_ones_is_the_only_one_rejected(server: PostgresRig) -> None:
    sql = """SELECT n, CASE WHEN n % 3 = 0 THEN 'NaN'::numeric ELSE n::numeric / 2 END AS price,
        CASE WHEN n = 5 THEN 'infinity'::date ELSE date '2026-01-01' + n END AS day FROM generate_series(1, 9) n"""
    columns, rows = read(server, sql)
    done = envelope(columns, key="n").encode(rows)
    assert [(r.row_number, r.column, r.key) for r in done.rejects] == [
        (3, "price", "3"),
        (5, "day", "5"),
        (6, "price", "6"),
        (9, "price", "9"),
    ]
    assert done.row_numbers == [1, 2, 4, 7, 8]
    assert done.keys == [b"1", b"2", b"4", b"7", b"8"]
    assert done.data[2] == b'{"n":4,"price":2.0000000000000000,"day":"2026-01-05"}'


def test_columns_of_an_empty_result_are_described_like_those_of_a_full_one(server: PostgresRig) -> None:
    sql = "SELECT 1.5::numeric(10,2) AS a, ARRAY['happy']::kinds.mood[] AS b, B'1'::bit(1) AS c WHERE {}"
    full, _ = read(server, sql.format("true"))
    with closing(PostgresSource(server.connection())) as source, source.read([Step(sql.format("false"))]) as reading:
        assert reading.columns == full
        assert list(reading) == []


# ── databases of another encoding than UTF-8 ──────────────────────────────────────────────────

OLD_ENCODINGS = [
    ("SQL_ASCII", ["Forlì".encode(), b"perch\xe8", "Łódź €".encode()], [1, 3]),
    ("WIN1252", ["Forlì".encode("cp1252"), b"bad\x81", b"\x80 1"], [1, 3]),
    ("LATIN1", [b"Forl\xec", b"\x81", b"ok"], [1, 2, 3]),
    ("EUC_TW", [b"ok", b"1", b"2"], [1, 2, 3]),  # of which Python has no codec
]


@pytest.mark.parametrize(("encoding", "texts", "good"), OLD_ENCODINGS)
def test_text_that_is_none_in_an_old_encoding_rejects_its_row_and_the_others_go_on(
    postgres: PostgresRig, encoding: str, texts: list[bytes], good: list[int]
) -> None:
    name = f"old_{encoding.lower()}"
    with closing(postgres.connect()) as connection:
        connection.execute(f"CREATE DATABASE {name} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0".encode())
    try:
        _fill(postgres, name, encoding, texts)
        codec = {"SQL_ASCII": "utf-8", "WIN1252": "cp1252", "LATIN1": "latin-1", "EUC_TW": "ascii"}[encoding]
        for column, form in (("t", '"{}"'), ("v", '"{}"'), ("n", '"{}"'), ("a", '["{}"]'), ("j", '{{"k":"{}"}}')):
            sql = f"SELECT id, {column} AS x FROM kept WHERE id > %(P_N)s OR t = 'nò' ORDER BY id"
            sql = sql if codec != "ascii" else sql.replace("ò", "o")
            with (
                closing(PostgresSource(postgres.connection(database=name))) as source,
                source.read([Step(sql, {"P_N": 0})]) as reading,
            ):
                done = envelope(reading.columns).encode(next(iter(reading)))
            wanted = [f'{{"id":{i},"x":{form.format(texts[i - 1].decode(codec))}}}'.encode() for i in good]
            assert (column, done.data) == (column, wanted)
            assert [(r.row_number, r.column, r.reason) for r in done.rejects] == [
                (i, "x", "the text is not valid UTF-8") for i in (1, 2, 3) if i not in good
            ]
    finally:
        with closing(postgres.connect()) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def _fill(postgres: PostgresRig, database: str, encoding: str, texts: list[bytes]) -> None:
    with closing(postgres.connect(database)) as connection:
        connection.pgconn.exec_(f"SET client_encoding TO '{encoding}'".encode())
        connection.pgconn.exec_(b"CREATE TABLE kept (id int, t text, v varchar(20), n name, a text[], j json)")
        for i, text in enumerate(texts, 1):
            values = b"%d, '%s', '%s', '%s', ARRAY['%s'], '{\"k\":\"%s\"}'" % (i, text, text, text, text, text)
            done = connection.pgconn.exec_(b"INSERT INTO kept VALUES (" + values + b")")
            assert done.error_message == b""


def test_a_column_that_is_said_to_be_uniform_has_values_of_one_class(server: PostgresRig) -> None:
    """Its values are not looked at one by one."""
    columns, rows = read(
        server,
        "SELECT 1::int2 AS a, 2::int4 AS b, 3::int8 AS c, true AS d, 'x'::text AS e, 'y'::varchar(9) AS f, "
        "'z'::char(3) AS g, 'n'::name AS h, 1.5::numeric AS i, 2.5::float8 AS j, 'happy'::kinds.mood AS k "
        "UNION ALL SELECT NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL",
    )
    uniform = {
        column.name: type(value) for column, value in zip(columns, rows.rows[0], strict=True) if column.is_uniform
    }
    assert uniform == {name: int for name in "abc"} | {"d": bool} | {name: str for name in "efgh"}
    assert set(rows.rows[1]) == {None}
    envelope = Envelope(columns, Job("j", "j", "q.sql", "c"), scheduled_at=AT)
    assert envelope.encode(rows).data == [
        b'{"a":1,"b":2,"c":3,"d":true,"e":"x","f":"y","g":"z  ","h":"n","i":1.5,"j":2.5,"k":"happy"}',
        b'{"a":null,"b":null,"c":null,"d":null,"e":null,"f":null,"g":null,"h":null,"i":null,"j":null,"k":null}',
    ]
