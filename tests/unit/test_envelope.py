"""A row becomes the message of SPEC 6, to the byte; a row that cannot is rejected, and the others are sent."""

# ruff: noqa: DTZ001 - a DATE or TIMESTAMP of a database has no zone

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from core import __version__
from core.errors import ConfigError, QueryFailed
from core.message.cells import TOO_DEEP
from core.message.duplicates import DuplicateRows
from core.message.envelope import NULL_KEY, Encoded, Envelope, proves_data
from core.model.job import Job, KafkaConfig
from core.model.source import Column, Rows

AT = datetime(2026, 1, 17, 2, 0, tzinfo=UTC)
EXTRACTED = datetime(2026, 1, 17, 10, 30, 30, tzinfo=UTC)
PUBLISHED = datetime(2026, 1, 17, 10, 30, 45, 123456, tzinfo=UTC)
JOB = Job(
    slug="export-cdg-tracce",
    name="Export CDG Tracce to Kafka",
    query="CDG-KAFKA-001--SelezioneTracceGiornaliere.sql",
    connection="A00-CDG-Collaudo",
)


def columns(**kinds: str) -> list[Column]:
    return [Column(name, kind, kind.upper()) for name, kind in kinds.items()]


def encode(cols: Sequence[Column], rows: Sequence[Sequence[Any]], job: Job = JOB, **more: Any) -> Encoded:
    job = replace(job, **more)
    return Envelope(cols, job, scheduled_at=AT).encode(Rows(1, [tuple(row) for row in rows], EXTRACTED))


def one(kind: str, value: Any, **more: Any) -> str:
    """The JSON of one value of a column of that kind."""
    encoded = encode([Column("X", kind, kind.upper())], [[value]], **more)
    assert encoded.rejects == []
    return encoded.data[0].decode().removeprefix('{"x":').removesuffix("}")


def refused(kind: str, value: Any, **more: Any) -> str:
    """Why one value of a column of that kind cannot be sent; the row after it is sent."""
    encoded = encode([Column("X", kind, kind.upper())], [[value], [None]], **more)
    assert encoded.data == [b'{"x":null}']
    assert encoded.row_numbers == [2]
    (reject,) = encoded.rejects
    assert (reject.row_number, reject.column, reject.database_type) == (1, "X", kind.upper())
    return reject.reason


def keyed(kind: str, value: Any, **more: Any) -> bytes | None:
    config = KafkaConfig(message_key_field="x")
    encoded = encode([Column("X", kind, kind.upper())], [[value]], kafka_config=config, **more)
    assert encoded.rejects == []
    return encoded.keys[0]


# ── the message of the specification ──────────────────────────────────────────────────────────

SPEC_COLUMNS = columns(
    BARCODE="text",
    TRKDATE="oracle_date",
    OPERATOR="integer",
    MSGTYPE="text",
    CAUSAL="text",
    TEST_FLAG="char",
    PHASE_AT="text",
    ARRIVETIMESTAMP="datetime",
    STATUS="text",
    TRACK_OFFICE="text",
    MTF_MTFID="decimal",
    DATE_OTHER="oracle_date",
    CANALE="text",
    CUSTCODE="text",
    CUST_SPED="text",
    IDSPED="text",
)
SPEC_ROW = (
    "572680001120",
    datetime(2026, 1, 16),
    848,
    "M3",
    "RKE",
    "N",
    "W",
    datetime(2026, 1, 16, 11, 50, 32, 665000),
    "N",
    "38713",
    Decimal(9),
    datetime(2026, 1, 16),
    "SGU",
    "0030526661",
    "PS6",
    "S2132224",
)
SPEC_DATA = (
    '{"barcode":"572680001120","trkdate":"2026-01-16","operator":848,"msgtype":"M3","causal":"RKE","test_flag":"N",'
    '"phase_at":"W","arrivetimestamp":"2026-01-16T11:50:32.665000","status":"N","track_office":"38713","mtf_mtfid":9,'
    '"date_other":"2026-01-16","canale":"SGU","custcode":"0030526661","cust_sped":"PS6","idsped":"S2132224"}'
)
SPEC_METADATA = (
    '{"source":{"system":"PSTT_Tool","version":"1.0.4","connection":"A00-CDG-Collaudo",'
    '"query":"CDG-KAFKA-001--SelezioneTracceGiornaliere.sql"},"timestamp":"2026-01-17T10:30:45.123456Z",'
    '"processing":{"extracted_at":"2026-01-17T10:30:30Z","published_at":"2026-01-17T10:30:45Z","latency_ms":15123}}'
)


def test_the_message_is_that_of_the_specification_to_the_byte():
    envelope = Envelope(
        SPEC_COLUMNS, replace(JOB, kafka_config=KafkaConfig(message_key_field="BARCODE")), scheduled_at=AT
    )
    encoded = envelope.encode(Rows(1, [SPEC_ROW], EXTRACTED))
    (value,) = envelope.wrap(encoded.data, extracted_at=EXTRACTED, published_at=PUBLISHED)
    assert __version__ == "1.0.4"
    assert encoded.keys == [b"572680001120"]
    assert value.decode() == f'{{"data":{SPEC_DATA},"metadata":{SPEC_METADATA}}}'


def test_without_metadata_only_data_is_left():
    envelope = Envelope(SPEC_COLUMNS, replace(JOB, kafka_config=KafkaConfig(include_metadata=False)), scheduled_at=AT)
    data = envelope.encode(Rows(1, [SPEC_ROW], EXTRACTED)).data
    assert envelope.wrap(data, extracted_at=EXTRACTED, published_at=PUBLISHED) == [f'{{"data":{SPEC_DATA}}}'.encode()]


def test_a_percent_sign_in_a_name_stays_what_it_is():
    envelope = Envelope(SPEC_COLUMNS, replace(JOB, query="rate %d 100%.sql", connection="%b"), scheduled_at=AT)
    (value,) = envelope.wrap([b'{"x":"5 %"}'], extracted_at=EXTRACTED, published_at=PUBLISHED)
    source = json.loads(value)["metadata"]["source"]
    assert (source["query"], source["connection"]) == ("rate %d 100%.sql", "%b")
    assert value.startswith(b'{"data":{"x":"5 %"},')


def test_rows_of_another_width_than_the_columns_are_a_defect():
    with pytest.raises(ValueError, match="2 rows of 2 columns have 3 values"):
        encode(columns(A="integer", B="integer"), [[1, 2], [3]])


def test_the_querys_order_stays_and_names_become_lower_case():
    assert encode(columns(Zeta="text", ALPHA="integer"), [["a", 1]]).data == [b'{"zeta":"a","alpha":1}']


def test_no_rows_make_no_messages():
    encoded = encode(SPEC_COLUMNS, [])
    assert (encoded.data, encoded.keys, encoded.message_ids, encoded.rejects) == ([], [], [], [])


# ── each kind of column ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("integer", 0, "0"),
        ("integer", int("9" * 40), "9" * 40),
        ("integer", Decimal("7.0"), "7"),
        ("integer", True, "1"),
        ("decimal", Decimal("12.50"), "12.50"),
        ("decimal", "-0.10", "-0.10"),
        ("decimal", Decimal("1E+3"), "1000"),
        ("decimal", Decimal("1E-7"), "0.0000001"),
        ("decimal", "1234567890123456789012345678901234567890", "1234567890123456789012345678901234567890"),
        ("decimal", 9, "9"),
        ("float", 0.1, "0.1"),
        ("float", 5e-324, "5e-324"),
        ("date", date(1, 1, 1), '"0001-01-01"'),
        ("date", date(9999, 12, 31), '"9999-12-31"'),
        ("date", "0001-01-01", '"0001-01-01"'),
        ("oracle_date", datetime(2026, 1, 16), '"2026-01-16"'),
        ("oracle_date", datetime(2026, 1, 16, 8, 9, 10), '"2026-01-16T08:09:10"'),
        ("datetime", datetime(1, 1, 1), '"0001-01-01T00:00:00.000000"'),
        ("datetime", datetime(9999, 12, 31, 23, 59, 59, 999999), '"9999-12-31T23:59:59.999999"'),
        ("datetime", "2026-01-16 11:50:32.665", '"2026-01-16T11:50:32.665000"'),
        ("datetime", "2026-01-16T11:50:32", '"2026-01-16T11:50:32.000000"'),
        (
            "datetime_tz",
            datetime(2026, 1, 16, 11, tzinfo=timezone(timedelta(hours=5, minutes=30))),
            '"2026-01-16T11:00:00.000000+05:30"',
        ),
        ("datetime_tz", "2026-01-16 11:50:32.665+00", '"2026-01-16T11:50:32.665000+00:00"'),
        ("time", time(8, 9, 10, 11), '"08:09:10.000011"'),
        ("time", timedelta(hours=8), '"08:00:00"'),
        ("interval", timedelta(days=1, hours=2, seconds=3.5), '"P1DT2H3.5S"'),
        ("interval", -timedelta(minutes=1), '"-PT1M"'),
        ("interval", timedelta(0), '"PT0S"'),
        ("interval", (1, 2), '"P1Y2M"'),
        ("text", 'quotes " and \\ and\nlines and \0', '"quotes \\" and \\\\ and\\nlines and \\u0000"'),
        ("text", "città 🚚 日本", '"città 🚚 日本"'),
        ("text", "", '""'),
        ("char", "N   ", '"N   "'),
        ("bytes", b"\x00\xff", '"AP8="'),
        ("json", '{"k": [1, 2.50]}', '{"k": [1, 2.50]}'),
        ("json", {"k": [1, Decimal("2.50")]}, '{"k":[1,2.50]}'),
        ("boolean", True, "true"),
        ("boolean", 0, "false"),
        ("unknown", "plain", '"plain"'),
        ("unknown", 0.1, "0.1"),
        ("unknown", b"\x00\xff", '"AP8="'),
        ("date", "2026-01-17 10:30:00", '"2026-01-17T10:30:00"'),
        ("date", "2026-01-17T10:30", '"2026-01-17T10:30:00"'),
        ("date", "2026-01-17 10:30:00.5", '"2026-01-17T10:30:00.500000"'),
        ("date", "2026-01-17 00:00:00", '"2026-01-17"'),
        ("date", "2026-01-17 00:00:00+01:00", '"2026-01-17T00:00:00.000000+01:00"'),
        ("json", "[" * 800 + "]" * 800, "[" * 800 + "]" * 800),
    ],
)
def test_a_value_becomes_the_json_of_its_kind(kind, value, expected):
    assert one(kind, value) == expected
    assert one(kind, None) == "null"


@pytest.mark.parametrize(
    ("kind", "value", "reason"),
    [
        ("float", float("nan"), "NaN has no JSON form"),
        ("float", float("inf"), "Infinity has no JSON form"),
        ("float", float("-inf"), "Infinity has no JSON form"),
        ("decimal", Decimal("NaN"), "NaN has no JSON form"),
        ("decimal", "NaN", "NaN has no JSON form"),
        ("decimal", "-Infinity", "Infinity has no JSON form"),
        ("decimal", "12,50", "the text is not a number"),
        ("integer", Decimal("1.5"), "not a whole number"),
        ("integer", "abc", "the text is not a number"),
        ("text", "half \ud800 of it", "the text holds half of a character (a lone surrogate) and has no UTF-8 form"),
        ("text", 5, "int has no plain text form"),
        ("date", "infinity", "the text is not a date between the years 0001 and 9999"),
        ("date", "0000-01-01", "no such date"),
        ("date", "2026-02-30", "no such date"),
        ("date", "10000-01-01", "the text is not a date between the years 0001 and 9999"),
        ("datetime", "2026-01-01 25:00:00", "no such date"),
        ("datetime_tz", datetime(2026, 1, 1), "the driver dropped the time zone"),
        ("datetime_tz", "2026-01-01 10:00:00", "the time zone is missing"),
        ("time", timedelta(hours=24), "the time of day is not below 24 hours"),
        ("time", -timedelta(hours=1), "the time of day is not below 24 hours"),
        ("interval", "1 day", "str is not an interval"),
        ("boolean", 2, "int is neither true nor false"),
        ("bytes", "text", "str is not binary"),
        ("json", {"k": float("nan")}, "NaN has no JSON form"),
        ("unknown", object(), "object has no JSON form; set it under `types`, or convert it in the query"),
        ("unknown", float("inf"), "Infinity has no JSON form"),
        ("date", "2026-01-17 25:00:00", "no such date"),
        ("json", "[" * 1200 + "]" * 1200, TOO_DEEP),
        ("json", '{"k":' * 1200 + "1" + "}" * 1200, TOO_DEEP),
        ("json", '{"k": "perch\udce8"}', "the text is not valid UTF-8"),
    ],
)
def test_a_value_without_a_json_form_rejects_its_row_alone_and_says_why(kind, value, reason):
    assert refused(kind, value) == reason


def test_json_that_was_read_as_structures_is_not_nested_too_deeply_either():
    deep: list[Any] = []
    for _ in range(3000):
        deep = [deep]
    assert refused("json", deep) == TOO_DEEP


def test_json_that_is_nested_as_deeply_as_it_may_be_is_read_deeper_in_the_stack():
    row = one("json", "[" * 800 + "]" * 800)

    def below(levels: int) -> Any:
        return below(levels - 1) if levels else json.loads(f'{{"data":{{"x":{row}}}}}')

    assert below(40)["data"]["x"]


@pytest.mark.parametrize("name", ['a"b', "a\\b", "to_char(d,'YYYY\"T\"HH24')", "two\nlines", "tab\t", "nul\0", 'ì"€'])
def test_a_column_name_that_json_has_to_escape_is_escaped(name):
    cols = [Column(name, "text", "text"), Column("N", "decimal", "numeric"), Column("B", "bytes", "bytea")]
    encoded = encode(cols, [["x", "1.50", b"\0"], [None, None, None], ["half \ud800", "2", b""]])
    assert [json.loads(data) for data in encoded.data] == [
        {name.lower(): "x", "n": 1.5, "b": "AA=="},
        {name.lower(): None, "n": None, "b": None},
    ]
    assert encoded.data[0].endswith(b',"n":1.50,"b":"AA=="}')
    assert [(r.row_number, r.column) for r in encoded.rejects] == [(3, name)]


def test_an_array_keeps_its_nulls_and_its_depth():
    cols = [Column("X", "array", "numeric[]", element="decimal")]
    assert encode(cols, [[[Decimal("1.50"), None, [2]]]]).data == [b'{"x":[1.50,null,[2]]}']
    (reject,) = encode(cols, [[["NaN"]]]).rejects
    assert reject.reason == "NaN has no JSON form"


def test_a_two_megabyte_value_is_encoded_whole():
    text = "x" * 2_000_000
    assert json.loads(encode(columns(X="text"), [[text]]).data[0]) == {"x": text}


def test_a_reject_shows_the_row_and_its_key_and_shortens_what_is_long():
    job = replace(JOB, kafka_config=KafkaConfig(message_key_field="barcode"))
    cols = columns(BARCODE="text", IMPORTO="decimal", NOTE="text", RAW="bytes", NULL_ONE="text")
    (reject,) = encode(cols, [["572", "NaN", "y" * 2_000, b"abc", None]], job).rejects
    assert reject.key == "572"
    assert reject.row == {
        "barcode": "572",
        "importo": "NaN",
        "note": "y" * 500 + "…",
        "raw": "3 bytes",
        "null_one": None,
    }


def test_several_bad_cells_are_one_reject_and_good_rows_keep_their_numbers():
    cols = columns(A="float", B="text")
    encoded = encode(cols, [[1.0, "a"], [float("nan"), "\ud800"], [2.0, "\udfff"], [3.0, "d"]])
    assert encoded.row_numbers == [1, 4]
    assert [(r.row_number, r.column) for r in encoded.rejects] == [(2, "A"), (3, "B")]


# ── decimals and overrides ────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("decimals", "kind", "value", "expected"),
    [
        ("number", "decimal", "0.10", "0.10"),
        ("string", "decimal", "0.10", '"0.10"'),
        ("string", "decimal", Decimal("1E+2"), '"100"'),
        ("float", "decimal", "0.10", "0.1"),
        ("string", "integer", 2**53, str(2**53)),
        ("string", "integer", 2**53 + 1, f'"{2**53 + 1}"'),
        ("float", "integer", 2**53 + 1, str(2**53 + 1)),
    ],
)
def test_decimals_are_written_as_the_job_says(decimals, kind, value, expected):
    assert one(kind, value, decimals=decimals) == expected


@pytest.mark.parametrize("decimals", ["number", "string", "float"])
def test_no_form_of_decimals_lets_nan_through(decimals):
    assert refused("decimal", Decimal("NaN"), decimals=decimals) == "NaN has no JSON form"


@pytest.mark.parametrize(
    ("override", "kind", "value", "expected"),
    [
        ("date", "datetime", datetime(2026, 1, 16, 11, 50), '"2026-01-16"'),
        ("date", "text", "2026-01-16 11:50:00", '"2026-01-16"'),
        ("datetime", "date", date(2026, 1, 16), '"2026-01-16T00:00:00.000000"'),
        ("datetime", "oracle_date", datetime(2026, 1, 16), '"2026-01-16T00:00:00"'),
        ("string", "integer", 7, '"7"'),
        ("string", "decimal", Decimal("1.50"), '"1.50"'),
        ("string", "char", "N   ", '"N"'),
        ("string", "boolean", True, '"true"'),
        ("integer", "text", " 0042", "42"),
        ("integer", "float", 3.0, "3"),
        ("decimal", "text", "12.50", "12.50"),
        ("decimal", "float", 0.1, "0.1"),
        ("base64", "text", "hello", '"aGVsbG8="'),
        ("base64", "bytes", b"\x00", '"AA=="'),
        ("json", "text", '{"a":1}', '{"a":1}'),
    ],
)
def test_types_overrules_the_databases_own_type_whatever_the_case_of_the_name(override, kind, value, expected):
    assert one(kind, value, types={"x": override}) == expected


@pytest.mark.parametrize(
    ("override", "kind", "value", "reason"),
    [
        ("integer", "text", "abc", "the text is not a number"),
        ("integer", "decimal", Decimal("1.5"), "not a whole number"),
        ("decimal", "text", "", "the text is not a number"),
        ("date", "text", "yesterday", "the text is not a date between the years 0001 and 9999"),
        ("datetime", "integer", 5, "int is not a date"),
        ("base64", "integer", 5, "int is not binary"),
        ("json", "text", "{broken", "the text is not JSON"),
        ("json", "text", "NaN", "the text is not JSON"),
    ],
)
def test_a_value_that_does_not_fit_its_override_rejects_the_row(override, kind, value, reason):
    assert refused(kind, value, types={"X": override}) == reason


def test_an_array_has_no_plain_text_form():
    cols = [Column("X", "array", "int[]", element="integer")]
    (reject,) = encode(cols, [[[1]]], types={"X": "string"}).rejects
    assert reject.reason == "a list or an object has no plain text form"


# ── keys ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("kind", "value", "key"),
    [
        ("text", "572680001120", b"572680001120"),
        ("text", "000123", b"000123"),
        ("text", "città", "città".encode()),
        ("text", "", b""),
        ("integer", 42, b"42"),
        ("decimal", Decimal("572680001120.0"), b"572680001120"),
        ("decimal", "7.00", b"7"),
        ("decimal", "7.50", b"7.50"),
        ("decimal", Decimal("1E+3"), b"1000"),
        ("float", 7.0, b"7"),
        ("float", 7.5, b"7.5"),
        ("date", date(2026, 1, 16), b"2026-01-16"),
        ("datetime", datetime(2026, 1, 16, 1), b"2026-01-16T01:00:00.000000"),
        ("bytes", b"\x00\xff", b"AP8="),
        ("boolean", True, b"true"),
    ],
)
def test_a_key_is_the_plain_text_of_its_column(kind, value, key):
    assert keyed(kind, value) == key


def test_without_a_key_field_messages_have_no_key():
    assert encode(columns(X="text"), [["a"], ["b"]]).keys == [None, None]


def test_a_composite_key_is_joined_in_the_jobs_order_with_its_separator():
    cols = columns(A="text", B="integer", C="date")
    row = ["x", 7, date(2026, 1, 16)]
    config = KafkaConfig(message_key_field=("C", "a"))
    assert encode(cols, [row], kafka_config=config).keys == [b"2026-01-16|x"]
    assert encode(cols, [row], kafka_config=config, key_separator="::").keys == [b"2026-01-16::x"]


@pytest.mark.parametrize("option", ["reject", "fail"])
def test_a_null_key_is_a_reject_of_its_own_kind(option):
    config = KafkaConfig(message_key_field="x")
    encoded = encode(columns(X="text"), [["a"], [None]], kafka_config=config, on_null_key=option)
    assert encoded.keys == [b"a"]
    assert [(r.row_number, r.reason) for r in encoded.rejects] == [(2, NULL_KEY)]


def test_a_null_key_is_sent_without_a_key_where_the_job_says_so():
    config = KafkaConfig(message_key_field=("x", "y"))
    cols = columns(X="text", Y="text")
    encoded = encode(cols, [["a", None], ["a", "b"]], kafka_config=config, on_null_key="send")
    assert encoded.keys == [None, b"a|b"]
    assert encoded.rejects == []


def test_half_a_character_in_the_key_rejects_the_row():
    config = KafkaConfig(message_key_field="x")
    encoded = encode(columns(X="text"), [["a\ud800"], ["b"]], kafka_config=config)
    assert encoded.keys == [b"b"]
    assert "lone surrogate" in encoded.rejects[0].reason


# ── what is refused before the first row ──────────────────────────────────────────────────────


def test_two_columns_of_one_name_are_refused_with_the_sql_to_write():
    with pytest.raises(QueryFailed, match=r"called Code and CODE.*AS code_2"):
        encode([Column("Code", "text", ""), Column("CODE", "text", "")], [])


def test_a_column_without_a_name_is_refused():
    with pytest.raises(QueryFailed, match=r"no name.*AS some_name"):
        encode([Column("", "text", "")], [])


def test_a_column_that_the_source_refuses_is_named_with_its_reason():
    with pytest.raises(QueryFailed, match=r"WHEN_TZ \(TSTZ\) cannot be sent: the driver drops the zone"):
        encode([Column("WHEN_TZ", "datetime_tz", "TSTZ", refusal="the driver drops the zone")], [])


@pytest.mark.parametrize(
    ("more", "place"),
    [
        ({"kafka_config": KafkaConfig(message_key_field="CODE")}, "kafka_config.message_key_field"),
        ({"types": {"CODE": "date"}}, "types"),
    ],
)
def test_a_job_that_names_a_column_which_is_not_there_lists_those_that_are(more, place):
    with pytest.raises(ConfigError, match=f"{place} names column CODE.*its columns are: barcode, importo") as caught:
        encode(columns(BARCODE="text", IMPORTO="decimal"), [], **more)
    assert caught.value.key == place


# ── identity ──────────────────────────────────────────────────────────────────────────────────


def ids(rows: Sequence[Sequence[Any]], block: int, *, at: datetime = AT, slug: str = "job") -> list[bytes]:
    envelope = Envelope(columns(A="text", B="integer"), replace(JOB, slug=slug), scheduled_at=at)
    found: list[bytes] = []
    for start in range(0, len(rows), block):
        found += envelope.encode(Rows(start + 1, rows[start : start + block], EXTRACTED)).message_ids
    return found


ROWS = [(f"row {n % 700}", n % 350) for n in range(2_000)]
"""Returns rows in which each occurs two or three times, far apart."""


def test_equal_rows_have_ids_of_their_own_wherever_a_fetch_begins_and_ends():
    whole = ids(ROWS, 2_000)
    assert len(set(whole)) == len(ROWS)
    for block in (1, 7, 700, 1_999):
        assert ids(ROWS, block) == whole


def test_ids_do_not_depend_on_the_order_of_the_rows():
    assert sorted(ids(ROWS[::-1], 300)) == sorted(ids(ROWS, 700))


def test_ids_differ_by_job_and_by_scheduled_time():
    row = [("a", 1)]
    found = ids(row, 1) + ids(row, 1, slug="other") + ids(row, 1, at=AT + timedelta(days=1))
    assert len(set(found)) == 3


def test_the_scheduled_time_counts_as_a_moment_not_as_a_text():
    rome = timezone(timedelta(hours=1))
    assert ids([("a", 1)], 1, at=AT.astimezone(rome)) == ids([("a", 1)], 1)


def test_an_id_is_the_same_in_a_process_with_another_hash_seed():
    code = (
        "from tests.unit.test_envelope import ROWS, ids; import hashlib;"
        "print(hashlib.sha256(b''.join(ids(ROWS, 123))).hexdigest())"
    )
    shown = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=Path(__file__).parents[2],
            env={"PYTHONHASHSEED": seed, "PATH": "", "SYSTEMROOT": "C:\\Windows"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(shown) == 1


def test_a_rejected_row_changes_no_other_rows_id():
    cols = columns(A="text", B="float")
    good = encode(cols, [["a", 1.0], ["b", 2.0]]).message_ids
    assert encode(cols, [["a", 1.0], ["x", float("nan")], ["b", 2.0]]).message_ids == good


def test_an_id_is_32_hex_digits():
    (message_id,) = ids([("a", 1)], 1)
    assert len(message_id) == 32
    assert int(message_id, 16) > 0


def test_repeats_are_numbered_upwards_for_ever_in_flat_memory():
    repeats = DuplicateRows()
    digest = bytes(range(16))
    numbers = []
    for _ in range(300):
        numbers += repeats.numbers([digest]).values()
    assert numbers == list(range(1, 300))


def test_of_two_hundred_thousand_different_rows_none_is_taken_for_a_repeat():
    import xxhash

    repeats = DuplicateRows()
    for start in range(0, 200_000, 2_000):
        digests = [xxhash.xxh3_128_digest(b"row %d" % n) for n in range(start, start + 2_000)]
        assert repeats.numbers(digests) == {}


# ── proving a message by its id ───────────────────────────────────────────────────────────────


@pytest.mark.parametrize("include_metadata", [True, False])
def test_the_data_of_a_message_is_proven_by_its_id_and_a_changed_one_is_not(include_metadata):
    job = replace(JOB, kafka_config=KafkaConfig(include_metadata=include_metadata))
    envelope = Envelope(columns(document="json", n="integer"), job, scheduled_at=AT)
    sly = '{"a":1,"metadata":{"source":2}}'
    encoded = envelope.encode(Rows(1, [(sly, 1), ("[]", 2), ("[]", 2), ("[]", 2)], EXTRACTED))
    values = envelope.wrap(encoded.data, extracted_at=EXTRACTED, published_at=PUBLISHED)
    for value, message_id in zip(values, encoded.message_ids, strict=True):
        assert proves_data(message_id.decode(), value, job.slug, AT)
        assert not proves_data(message_id.decode(), value.replace(b'"n":', b'"m":'), job.slug, AT)
        assert not proves_data(message_id.decode(), value, "another", AT)
        assert not proves_data(message_id.decode(), value, job.slug, AT.replace(hour=3))
    assert not proves_data("0" * 32, b"no message of ours", job.slug, AT)
