"""Every type of Oracle in the contract, on Oracle's wire protocol through the real driver to the JSON text.

The server is the double (tests/oracle_double): values are encoded as Oracle encodes them, and everything from the
socket on is the driver and the product. XMLTYPE is the exception: the double knows no object types.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import oracledb
import pytest
from oracle_double import Column as Described
from oracle_double import OracleDouble, Wire

from core.errors import QueryFailed
from core.message.envelope import Encoded, Envelope
from core.model.connection import DatabaseConnection, Secret
from core.model.job import Job, KafkaConfig
from core.model.query import Step
from core.model.source import Column, Rows
from core.sources import oracle as oracle_module
from core.sources.oracle import OracleSource

AT = datetime(2026, 1, 17, 1, tzinfo=UTC)


def source_of(double: OracleDouble, **changes: Any) -> OracleSource:
    values: dict[str, Any] = {
        "host": double.host,
        "port": double.port,
        "service_name": double.service,
        "username": "pstt",
        "password": Secret("pw"),
    }
    return OracleSource(DatabaseConnection("A00", "oracle", **{**values, **changes}))


def read(
    double: OracleDouble, described: Described, values: Sequence[Any], before: Sequence[Step] = ()
) -> tuple[tuple[Column, ...], Rows]:
    double.on("FROM t$", columns=[described], rows=[(value,) for value in values])
    with closing(source_of(double)) as source, source.read([*before, Step("SELECT v FROM t")]) as reading:
        (rows,) = reading
        return reading.columns, rows


def encode(columns: Sequence[Column], rows: Rows, *, key: str | None = None, **settings: Any) -> Encoded:
    kafka = KafkaConfig(message_key_field=key)
    job = Job(slug="j", name="J", query="q.sql", connection="A00", kafka_config=kafka, **settings)
    return Envelope(columns, job, scheduled_at=AT).encode(rows)


def json_of(double: OracleDouble, type_: str, value: Any, **settings: Any) -> str:
    encoded = encode(*read(double, Described("V", type_), [value]), **settings)
    assert encoded.rejects == []
    (data,) = encoded.data
    return data.decode().removeprefix('{"v":').removesuffix("}")


def moment(*parts: int) -> datetime:
    return datetime(*parts)  # type: ignore[arg-type]  # noqa: DTZ001


BIG = 12345678901234567890123456789012345678
NOON = moment(2026, 1, 16, 11, 50, 32)
MIDNIGHT = moment(2026, 1, 16)

TYPES: list[tuple[str, Any, str]] = [
    ("NUMBER(10)", 848, "848"),
    ("NUMBER(38)", BIG, str(BIG)),
    ("NUMBER(38)", -BIG, f"-{BIG}"),
    ("NUMBER(*,0)", 7, "7"),
    ("NUMBER(5,-2)", 12300, "12300"),
    ("NUMBER(12,2)", Decimal("9.90"), "9.9"),
    ("NUMBER(12,2)", Decimal("9"), "9"),
    ("NUMBER(38,38)", Decimal("0.12345678901234567890123456789012345678"), "0.12345678901234567890123456789012345678"),
    ("NUMBER", 848, "848"),
    ("NUMBER", BIG, str(BIG)),
    ("NUMBER", Decimal("0.1"), "0.1"),
    ("NUMBER", Decimal("-123456789012345678901234567890.12345678"), "-123456789012345678901234567890.12345678"),
    ("NUMBER", Decimal("1E+30"), "1" + "0" * 30),
    ("NUMBER", Decimal("1E-30"), "0." + "0" * 29 + "1"),
    ("NUMBER", 0, "0"),
    ("FLOAT", Decimal("0.1"), "0.1"),
    ("BINARY_FLOAT", 0.5, "0.5"),
    ("BINARY_FLOAT", 1.17, "1.17"),
    ("BINARY_FLOAT", 3.4028234663852886e38, "3.4028235e38"),
    ("BINARY_DOUBLE", 0.1, "0.1"),
    ("BINARY_DOUBLE", -1.7976931348623157e308, "-1.7976931348623157e308"),
    ("DATE", MIDNIGHT, '"2026-01-16"'),
    ("DATE", NOON, '"2026-01-16T11:50:32"'),
    ("DATE", moment(1, 1, 1), '"0001-01-01"'),
    ("DATE", moment(9999, 12, 31, 23, 59, 59), '"9999-12-31T23:59:59"'),
    ("TIMESTAMP(6)", moment(2026, 1, 16, 11, 50, 32, 665000), '"2026-01-16T11:50:32.665000"'),
    ("TIMESTAMP(3)", NOON, '"2026-01-16T11:50:32.000000"'),
    (
        "TIMESTAMP(9)",
        Wire(bytes((120, 126, 1, 16, 12, 51, 33)) + (123456789).to_bytes(4, "big")),
        '"2026-01-16T11:50:32.123456"',
    ),
    (
        "TIMESTAMP WITH LOCAL TIME ZONE",
        datetime(2026, 1, 16, 12, 50, 32, 665000, timezone(timedelta(hours=1))),
        '"2026-01-16T11:50:32.665000+00:00"',
    ),
    ("INTERVAL DAY TO SECOND", timedelta(days=3, hours=4, minutes=5, seconds=6.5), '"P3DT4H5M6.5S"'),
    ("INTERVAL DAY TO SECOND", -timedelta(hours=36), '"-P1DT12H"'),
    ("INTERVAL DAY TO SECOND", timedelta(0), '"PT0S"'),
    ("INTERVAL YEAR TO MONTH", (2, 3), '"P2Y3M"'),
    ("INTERVAL YEAR TO MONTH", (0, 11), '"P0Y11M"'),
    ("CHAR(5)", "ab", '"ab   "'),
    ("NCHAR(5)", "è€", '"è€   "'),
    ("VARCHAR2(30)", 'ab "c" \\ 😀', '"ab \\"c\\" \\\\ 😀"'),
    ("VARCHAR2(30)", "ab  ", '"ab  "'),
    ("VARCHAR2(30)", None, "null"),
    ("NVARCHAR2(30)", "価格😀", '"価格😀"'),
    ("CLOB", "clob è" * 3000, '"' + "clob è" * 3000 + '"'),
    ("NCLOB", "価😀" * 3000, '"' + "価😀" * 3000 + '"'),
    ("LONG", "long", '"long"'),
    ("RAW(16)", b"\xff\x00\xfe", '"/wD+"'),
    ("LONG RAW", b"\x00", '"AA=="'),
    ("BLOB", b"abc" * 10_000, '"' + "YWJj" * 10_000 + '"'),
    ("ROWID", "AAAR3sAAEAAAACXAAA", '"AAAR3sAAEAAAACXAAA"'),
]


@pytest.mark.parametrize(("type_", "value", "text"), TYPES, ids=[f"{t}-{str(v)[:30]}" for t, v, _ in TYPES])
def test_type_becomes_exactly_this_json(oracle: OracleDouble, type_: str, value: Any, text: str) -> None:
    assert json_of(oracle, type_, value) == text


@pytest.mark.parametrize("type_", sorted({type_ for type_, *_ in TYPES}))
def test_null_of_every_type_stays_as_null(oracle: OracleDouble, type_: str) -> None:
    assert json_of(oracle, type_, None) == "null"


@pytest.fixture
def oracle23() -> Any:
    with OracleDouble(version=(23, 4, 0, 0, 0)) as double:
        yield double
        assert double.failures == []


@pytest.mark.parametrize(("value", "text"), [(True, "true"), (False, "false"), (None, "null")])
def test_boolean_of_23ai_is_true_or_false(oracle23: OracleDouble, value: bool | None, text: str) -> None:
    assert json_of(oracle23, "BOOLEAN", value) == text


DOCUMENTS: list[tuple[Any, str]] = [
    (
        {"b": [1, Decimal("2.50"), None, True, "è"], "a": {"n": Decimal("12345678901234567890")}},
        '{"b":[1,2.5,null,true,"è"],"a":{"n":12345678901234567890}}',
    ),
    ([], "[]"),
    ('text "è"', '"text \\"è\\""'),
    (b"\xff", '"/w=="'),
    (True, "true"),
    (Decimal("12.5"), "12.5"),
    ({"at": moment(2026, 1, 16, 11, 50, 32, 665000)}, '{"at":"2026-01-16T11:50:32.665000"}'),
    ({"raw": b"\xff"}, '{"raw":"/w=="}'),
]


@pytest.mark.parametrize(("document", "text"), DOCUMENTS)
def test_json_is_nested_as_it_is(oracle: OracleDouble, document: Any, text: str) -> None:
    with oracledb.connect(user="pstt", password="pw", dsn=oracle.dsn) as connection:
        stored = connection.encode_oson(document)
    assert json_of(oracle, "JSON", stored) == text
    assert json_of(oracle, "JSON", None) == "null"


def test_empty_string_is_null_as_oracle_has_it(oracle: OracleDouble) -> None:
    assert json_of(oracle, "VARCHAR2(10)", "") == "null"


def test_column_that_is_null_by_its_description_stays_as_null(oracle: OracleDouble) -> None:
    columns, rows = read(oracle, Described("V", "VARCHAR2", size=0), [None])
    assert encode(columns, rows).data == [b'{"v":null}']


# ── XMLTYPE, short of the server ──


def test_short_xml_is_text_and_long_xml_is_read_from_its_lob(oracle: OracleDouble) -> None:
    oracle.on("FROM lobs", columns=[("V", "CLOB")], rows=[("<a>è</a>" * 5000,)])
    with oracledb.connect(user="pstt", password="pw", dsn=oracle.dsn) as connection, connection.cursor() as cursor:
        (lob,) = cursor.execute("SELECT v FROM lobs", fetch_lobs=True).fetchone()
        (block,) = oracle_module._converted(
            iter([[("<a/>",), (lob,), (None,)]]),
            {0: oracle_module.OracleSource(DatabaseConnection("ora", "oracle"))._xml},
        )
    assert [row[0] for row in block] == ["<a/>", "<a>è</a>" * 5000, None]
    described = type("FetchInfo", (), {"name": "V", "type_code": oracledb.DB_TYPE_XMLTYPE})()
    assert oracle_module._column(described) == Column("V", "text", "XMLTYPE")


# ── what is refused, as a column or as a row ──


def test_zoned_timestamp_is_refused_with_the_sql_to_write_instead(oracle: OracleDouble) -> None:
    columns, rows = read(oracle, Described("SEEN_AT", "TIMESTAMP WITH TIME ZONE"), [AT])
    with pytest.raises(QueryFailed) as caught:
        encode(columns, rows)
    assert "SEEN_AT (TIMESTAMP WITH TIME ZONE)" in caught.value.text
    assert "TO_CHAR(SEEN_AT, 'YYYY-MM-DD\"T\"HH24:MI:SS.FF6TZH:TZM') AS SEEN_AT" in caught.value.text


@pytest.mark.parametrize(
    "statement", ["ALTER SESSION SET TIME_ZONE = 'Europe/Rome'", "alter session set time_zone = local"]
)
def test_local_timestamp_is_refused_after_a_step_that_moves_the_sessions_zone(
    oracle: OracleDouble, statement: str
) -> None:
    columns, rows = read(
        oracle, Described("AT", "TIMESTAMP WITH LOCAL TIME ZONE"), [AT], [Step(statement, returns_rows=False)]
    )
    with pytest.raises(QueryFailed, match="SYS_EXTRACT_UTC") as caught:
        encode(columns, rows)
    assert "an earlier step sets TIME_ZONE" in caught.value.text


def test_session_is_in_utc_whatever_the_clients_zone_is(oracle: OracleDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORA_SDTZ", "Asia/Tokyo")
    assert json_of(oracle, "TIMESTAMP WITH LOCAL TIME ZONE", AT) == '"2026-01-17T01:00:00.000000+00:00"'
    assert oracle.statements("TIME_ZONE")[0].sql == "ALTER SESSION SET TIME_ZONE = '+00:00'"


@pytest.mark.parametrize("type_", ["BINARY_FLOAT", "BINARY_DOUBLE"])
@pytest.mark.parametrize(
    ("value", "word"), [(float("nan"), "NaN"), (float("inf"), "Infinity"), (float("-inf"), "Infinity")]
)
def test_nan_and_infinity_reject_their_row_alone(oracle: OracleDouble, type_: str, value: float, word: str) -> None:
    encoded = encode(*read(oracle, Described("V", type_), [0.5, value, None]))
    assert encoded.data == [b'{"v":0.5}', b'{"v":null}']
    (reject,) = encoded.rejects
    assert (reject.row_number, reject.column) == (2, "V")
    assert reject.database_type == type_
    assert word in reject.reason


HALF = b"\0a\xd8\x3d\0b"
"""UTF-16 with one half of a character."""


@pytest.mark.parametrize(
    ("type_", "wire", "word"),
    [
        ("VARCHAR2(30)", b"a\xffc", "UTF-8"),
        ("CHAR(3)", b"a\xffc", "UTF-8"),
        ("LONG", b"a\xffc", "UTF-8"),
        ("CLOB", b"a\xffc", "UTF-8"),
        ("NVARCHAR2(30)", HALF, "half of a character"),
        ("NCHAR(3)", HALF, "half of a character"),
        ("NCLOB", HALF, "half of a character"),
    ],
)
def test_bytes_that_are_no_text_reject_their_row_alone(
    oracle: OracleDouble, type_: str, wire: bytes, word: str
) -> None:
    encoded = encode(*read(oracle, Described("V", type_), ["abc", Wire(wire), "def"]))
    assert encoded.data == [b'{"v":"abc"}', b'{"v":"def"}']
    (reject,) = encoded.rejects
    assert (reject.row_number, reject.column) == (2, "V")
    assert word in reject.reason


def test_name_of_an_expression_that_json_has_to_escape_is_escaped(oracle: OracleDouble) -> None:
    name = """TO_CHAR(D,'YYYY-MM-DD"T"HH24:MI:SS')"""
    (data,) = encode(*read(oracle, Described(name, "VARCHAR2"), ["2026-01-16T11:50:32"])).data
    assert json.loads(data) == {name.lower(): "2026-01-16T11:50:32"}


# ── moments that Python has not ──

OLD = Wire(bytes((53, 88, 1, 1, 1, 1, 1)))
"""1 January -4712, Oracle's first day."""
NO_MONTH = Wire(bytes((120, 126, 0, 0, 1, 1, 1)))


def old_moments(double: OracleDouble, type_: str, rows: Sequence[Any], again: Sequence[Any], **changes: Any) -> Encoded:
    """Reads ids and moments in blocks of two; `again` is what the server answers when it writes the moments."""
    columns = [Described("ID", "NUMBER(10)"), Described("V", type_)]
    double.on("FROM t", columns=columns, rows=list(enumerate(rows, 1)))
    double.on("TO_CHAR", columns=[columns[0], Described("C2", "VARCHAR2", size=60)], rows=list(enumerate(again, 1)))
    with (
        closing(source_of(double, **changes)) as source,
        source.read([Step("SELECT id, v FROM t -- all")], fetch_rows=2) as reading,
    ):
        given = list(reading)
    read_rows = Rows(1, [row for rows in given for row in rows.rows], AT)
    assert [rows.first_row for rows in given] == list(range(1, len(read_rows.rows) + 1, 2))
    return encode(reading.columns, read_rows)


@pytest.mark.parametrize(
    ("type_", "bad", "noon", "text"),
    [
        ("DATE", OLD, NOON, "2026-01-16T11:50:32"),
        ("DATE", NO_MONTH, NOON, "2026-01-16T11:50:32"),
        ("TIMESTAMP(6)", OLD, NOON, "2026-01-16T11:50:32.000000"),
        ("TIMESTAMP WITH LOCAL TIME ZONE", OLD, NOON.replace(tzinfo=UTC), "2026-01-16T11:50:32.000000+00:00"),
    ],
)
def test_moment_that_python_has_not_rejects_its_row_and_the_others_go_on(
    oracle: OracleDouble, type_: str, bad: Wire, noon: datetime, text: str
) -> None:
    fraction = "" if type_ == "DATE" else ".000000"
    good, odd = f" 2026-01-16 11:50:32{fraction}", f"-4712-01-01 00:00:00{fraction}"
    encoded = old_moments(
        oracle,
        type_,
        [noon, None, noon, noon, noon, bad, noon, bad, noon],
        [good, None, good, good, good, odd, good, odd, good],
    )
    rest = [b'{"id":%d,"v":"%s"}' % (i, text.encode()) for i in (3, 4, 5, 7, 9)]
    assert encoded.data == [b'{"id":1,"v":"%s"}' % text.encode(), b'{"id":2,"v":null}', *rest]
    assert [(r.row_number, r.column, r.database_type) for r in encoded.rejects] == [
        (6, "V", type_.replace("(6)", "")),
        (8, "V", type_.replace("(6)", "")),
    ]
    assert {r.reason for r in encoded.rejects} == {"the text is not a date between the years 0001 and 9999"}
    (asked,) = oracle.statements("TO_CHAR")
    assert asked.sql.startswith(
        "WITH given (c1, c2) AS (\nSELECT id, v FROM t -- all\n)\nSELECT c1, TO_CHAR(c2, 'SYYYY-"
    )
    assert len(oracle.statements("READ ONLY")) == 1  # the same snapshot


def test_first_row_may_be_the_one_at_fault(oracle: OracleDouble) -> None:
    encoded = old_moments(oracle, "DATE", [OLD, NOON], ["-4712-01-01 00:00:00", " 2026-01-16 11:50:32"])
    assert encoded.data == [b'{"id":2,"v":"2026-01-16T11:50:32"}']
    assert [r.row_number for r in encoded.rejects] == [1]


def test_rows_in_another_order_the_second_time_end_the_run(oracle: OracleDouble) -> None:
    good = [f" 2026-01-16 11:50:{second}" for second in (32, 33)]
    with pytest.raises(QueryFailed, match="another order") as caught:
        old_moments(oracle, "DATE", [NOON, NOON, OLD, NOON], [good[0], good[1], "-4712-01-01 00:00:00", good[0]])
    assert "-4712" in caught.value.text


def test_statement_that_cannot_be_wrapped_fails_in_words(oracle: OracleDouble) -> None:
    oracle.on("FROM t", columns=[Described("V", "DATE")], rows=[(OLD,)])
    oracle.on("TO_CHAR", error=(997, "illegal use of LONG datatype"))
    with (
        pytest.raises(QueryFailed, match="the driver cannot read a value") as caught,
        closing(source_of(oracle)) as source,
        source.read([Step("SELECT v FROM t")]) as reading,
    ):
        list(reading)
    assert "-4712" in caught.value.text
    assert "ORA-00997" in caught.value.text


def test_connection_that_may_write_has_no_snapshot_to_read_again(oracle: OracleDouble) -> None:
    with pytest.raises(QueryFailed, match="the driver cannot read a value"):
        old_moments(oracle, "DATE", [NOON, OLD], [" 2026-01-16 11:50:32", "-4712-01-01 00:00:00"], allow_writes=True)
    assert oracle.statements("TO_CHAR") == []


# ── what a job may say about types ──

OVERRIDES: list[tuple[str, Any, str, str]] = [
    ("DATE", NOON, "date", '"2026-01-16"'),
    ("DATE", MIDNIGHT, "date", '"2026-01-16"'),
    ("DATE", NOON, "datetime", '"2026-01-16T11:50:32"'),
    ("DATE", MIDNIGHT, "datetime", '"2026-01-16T00:00:00"'),
    ("TIMESTAMP(6)", NOON, "date", '"2026-01-16"'),
    ("CHAR(5)", "ab", "string", '"ab"'),
    ("NCHAR(5)", "è", "string", '"è"'),
    ("NUMBER", 848, "string", '"848"'),
    ("NUMBER", Decimal("1.50"), "string", '"1.5"'),
    ("NUMBER", 848, "integer", "848"),
    ("VARCHAR2(9)", "00572", "integer", "572"),
    ("VARCHAR2(9)", "572.50", "decimal", "572.50"),
    ("VARCHAR2(9)", "ab", "base64", '"YWI="'),
    ("CLOB", '{"k": [1, 2.50]}', "json", '{"k": [1, 2.50]}'),
    ("VARCHAR2(20)", "2026-01-16 11:50", "datetime", '"2026-01-16T11:50:00.000000"'),
]


@pytest.mark.parametrize(("type_", "value", "override", "text"), OVERRIDES)
def test_override_of_a_job_decides_the_json(
    oracle: OracleDouble, type_: str, value: Any, override: str, text: str
) -> None:
    assert json_of(oracle, type_, value, types={"V": override}) == text


MODES: list[tuple[str, str, Any, str]] = [
    ("number", "NUMBER(38)", BIG, str(BIG)),
    ("string", "NUMBER(38)", BIG, f'"{BIG}"'),
    ("string", "NUMBER(38)", 848, "848"),
    ("string", "NUMBER(12,2)", Decimal("9.90"), '"9.9"'),
    ("float", "NUMBER(12,2)", Decimal("9.90"), "9.9"),
    ("number", "NUMBER", BIG, str(BIG)),
    ("string", "NUMBER", BIG, f'"{BIG}"'),
    ("string", "NUMBER", Decimal("0.1"), '"0.1"'),
]


@pytest.mark.parametrize(("mode", "type_", "value", "text"), MODES)
def test_mode_of_decimals_decides_how_numbers_are_written(
    oracle: OracleDouble, mode: str, type_: str, value: Any, text: str
) -> None:
    assert json_of(oracle, type_, value, decimals=mode) == text


KEYS: list[tuple[str, Any, bytes]] = [
    ("VARCHAR2(20)", "00572", b"00572"),
    ("NUMBER", 572680001120, b"572680001120"),
    ("NUMBER(12)", 572680001120, b"572680001120"),
    ("NUMBER(14,2)", Decimal("572680001120.00"), b"572680001120"),
    ("NUMBER(14,2)", Decimal("5.50"), b"5.5"),
    ("DATE", MIDNIGHT, b"2026-01-16"),
]


@pytest.mark.parametrize(("type_", "value", "key"), KEYS)
def test_key_is_the_plain_text_of_its_value(oracle: OracleDouble, type_: str, value: Any, key: bytes) -> None:
    assert encode(*read(oracle, Described("V", type_), [value]), key="v").keys == [key]


def test_column_is_named_by_oracles_own_type(oracle: OracleDouble) -> None:
    types = {
        "NUMBER(12,2)": "NUMBER(12,2)",
        "NUMBER(5,-2)": "NUMBER(5,-2)",
        "NUMBER": "NUMBER",
        "FLOAT(20)": "FLOAT(20)",
        "VARCHAR2(3)": "VARCHAR2",
        "NVARCHAR2(3)": "NVARCHAR2",
        "TIMESTAMP(6)": "TIMESTAMP",
        "TIMESTAMP WITH LOCAL TIME ZONE": "TIMESTAMP WITH LOCAL TIME ZONE",
        "INTERVAL DAY TO SECOND": "INTERVAL DAY TO SECOND",
        "BINARY_DOUBLE": "BINARY_DOUBLE",
    }
    for given, shown in types.items():
        (column,), _ = read(oracle, Described("V", given), [None])
        assert column.database_type == shown


# ── what is bound ──

BINDS: list[tuple[Any, str, Any]] = [
    ("価è😀';--", "VARCHAR2", "価è😀';--"),
    (date(2026, 1, 16), "DATE", MIDNIGHT),
    (moment(2026, 1, 16, 11, 50, 32, 123456), "TIMESTAMP", moment(2026, 1, 16, 11, 50, 32, 123456)),
    (BIG, "NUMBER", BIG),
    (Decimal("1.50"), "NUMBER", Decimal("1.5")),
]


@pytest.mark.parametrize(("value", "type_", "expected"), BINDS)
def test_bound_value_arrives_as_it_is(oracle: OracleDouble, value: Any, type_: str, expected: Any) -> None:
    oracle.on("FROM b", columns=[("V", "NUMBER")], rows=[(1,)])
    with closing(source_of(oracle)) as source, source.read([Step("SELECT v FROM b WHERE x = :P_X", {"P_X": value})]):
        pass
    (arrived,) = oracle.statements("FROM b")
    assert arrived.binds == {"P_X": expected}
    assert arrived.bind_types == {"P_X": type_}
