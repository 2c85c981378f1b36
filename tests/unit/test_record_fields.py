"""Headers, time and placement of a record come from the columns of its row; a row without them is rejected by itself."""

# ruff: noqa: DTZ001 - a DATE or TIMESTAMP of a database has no zone

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import ConfigError
from core.message.envelope import Encoded, Envelope
from core.message.record_fields import columns_of_header, fixed_headers
from core.model.job import Job, KafkaConfig
from core.model.publisher import NO_TIME
from core.model.source import Column, ColumnType, Rows

AT = datetime(2026, 1, 17, 2, 0, tzinfo=UTC)
JOB = Job("tracce", "Tracce", "q.sql", "c")
OFFICE, ROUTE = Column("TRACK_OFFICE", "text", "VARCHAR2"), Column("ROUTE", "integer", "NUMBER")


def encode(columns: Sequence[Column], rows: Sequence[Sequence[Any]], **job: Any) -> Encoded:
    envelope = Envelope(columns, replace(JOB, **job), scheduled_at=AT)
    return envelope.encode(Rows(1, [tuple(row) for row in rows], AT))


def header(text: str, *rows: Sequence[Any]) -> list[bytes | None]:
    """The values of one header with that text."""
    encoded = encode([OFFICE, ROUTE], rows, headers={"h": text})
    assert encoded.rejects == []
    (found,) = encoded.fields.headers
    assert found[0] == "h"
    return found[1]


def time_of(kind: ColumnType, value: Any, **job: Any) -> int:
    encoded = encode(
        [Column("AT", kind, kind.upper())], [[value]], kafka_config=KafkaConfig(timestamp_field="at"), **job
    )
    assert encoded.rejects == []
    assert encoded.fields.timestamps_ms is not None
    return encoded.fields.timestamps_ms[0]


# ── headers ───────────────────────────────────────────────────────────────────────────────────


def test_a_header_is_the_text_of_its_column_in_any_case():
    assert header("{track_office}", ["38713", 1], ["è", 2]) == [b"38713", "è".encode()]
    assert header("{ROUTE}", ["x", 7], ["x", -1]) == [b"7", b"-1"]


def test_a_header_joins_text_and_columns():
    assert header("it/{TRACK_OFFICE}-{ROUTE}!", ["38713", 7]) == [b"it/38713-7!"]


def test_null_leaves_out_a_header_that_is_one_column_and_is_empty_in_a_longer_text():
    assert header("{TRACK_OFFICE}", [None, 1], ["", 1]) == [None, b""]
    assert header("office {TRACK_OFFICE}", [None, 1]) == [b"office "]


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("it", b"it"),
        ("", b""),
        ('{"a": 1}', b'{"a": 1}'),
        ("{}", b"{}"),
        ("{1}", b"{1}"),
        ("{{TRACK_OFFICE}}", b"{TRACK_OFFICE}"),
        ("a } b {", b"a } b {"),
    ],
)
def test_text_without_a_column_is_the_same_for_each_message(text: str, sent: bytes):
    job = replace(JOB, headers={"h": text})
    assert fixed_headers(job) == (("h", sent),)
    assert encode([OFFICE, ROUTE], [["a", 1]], headers={"h": text}).fields.headers == ()


def test_doubled_braces_are_plain_text_also_beside_a_column():
    assert header("{{ROUTE}}={ROUTE}", ["a", 7]) == [b"{ROUTE}=7"]


@given(st.text(st.characters(codec="utf-8")))
def test_any_text_is_taken_apart_and_nothing_of_it_is_lost(text: str):
    names = columns_of_header(text)
    job = replace(JOB, headers={"h": text})
    columns = [Column(name, "text", "TEXT") for name in {n.lower(): n for n in names}.values()] or [OFFICE]
    fields = Envelope(columns, job, scheduled_at=AT).encode(Rows(1, [("v",) * len(columns)], AT)).fields
    assert len(fields.headers) + len(fixed_headers(job)) == 1


def test_a_column_that_the_query_does_not_return_is_named_with_the_way_out():
    with pytest.raises(ConfigError) as refused:
        encode([OFFICE], [["a"]], headers={"office": "{UFFICIO}"})
    assert "headers.office names column UFFICIO, which the query does not return" in str(refused.value)
    assert "its columns are: track_office; text in braces is written {{UFFICIO}}" in refused.value.remedy


@pytest.mark.parametrize("key", ["timestamp_field", "partition_field"])
def test_the_other_fields_have_to_be_in_the_result_too(key: str):
    with pytest.raises(ConfigError, match=f"kafka_config.{key} names column X"):
        encode([OFFICE], [["a"]], kafka_config=KafkaConfig(**{key: "X"}))


def test_a_value_without_text_rejects_its_row_and_the_others_keep_their_headers():
    columns = [OFFICE, Column("TAGS", "array", "TEXT[]", element="text")]
    rows = [["a", ["x"]], ["b", None], ["c", ["y"]]]
    encoded = encode(columns, rows, headers={"office": "{TRACK_OFFICE}", "tags": "{TAGS}"})
    assert encoded.row_numbers == [2]
    assert encoded.fields.headers == (("office", [b"b"]), ("tags", [None]))
    assert [(reject.row_number, reject.column) for reject in encoded.rejects] == [(1, "TAGS"), (3, "TAGS")]


def test_half_a_character_in_a_header_rejects_the_row():
    encoded = encode([Column("A", "text", "TEXT")], [["\ud83d"], ["b"]], headers={"a": "{A}"})
    assert (encoded.row_numbers, len(encoded.rejects)) == ([2], 1)
    assert encoded.fields.headers == (("a", [b"b"]),)


# ── the record's time ─────────────────────────────────────────────────────────────────────────

MOMENT_MS = 1_768_560_632_665
"""2026-01-16T10:50:32.665Z, which is 11:50 in Rome."""


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("datetime", datetime(2026, 1, 16, 11, 50, 32, 665_999)),
        ("oracle_date", datetime(2026, 1, 16, 11, 50, 32, 665_000)),
        ("datetime", "2026-01-16 11:50:32.665"),
        ("text", " 2026-01-16T11:50:32.665123456 "),
        ("datetime_tz", datetime(2026, 1, 16, 10, 50, 32, 665_000, UTC)),
        ("datetime_tz", datetime(2026, 1, 16, 5, 50, 32, 665_000, timezone(timedelta(hours=-5)))),
        ("datetime_tz", "2026-01-16 10:50:32.665+00"),
        ("datetime_tz", "2026-01-16T12:20:32.665+01:30"),
        ("integer", MOMENT_MS),
        ("decimal", Decimal(MOMENT_MS)),
        ("decimal", str(MOMENT_MS)),
    ],
)
def test_a_time_is_that_of_the_column_and_without_a_zone_in_that_of_the_job(kind: ColumnType, value: Any):
    assert time_of(kind, value) == MOMENT_MS


def test_a_date_is_its_midnight_in_the_zone_of_the_job():
    assert time_of("date", date(2026, 1, 16), timezone="UTC") == 1_768_521_600_000
    assert time_of("date", "2026-01-16") == 1_768_521_600_000 - 3_600_000
    assert time_of("date", date(2026, 7, 16)) == 1_784_160_000_000 - 7_200_000, "summer time"


def test_null_is_the_time_of_sending():
    assert time_of("datetime", None) == NO_TIME


@pytest.mark.parametrize(
    ("kind", "value", "reason"),
    [
        ("datetime", datetime(1969, 12, 31, 23), "before 1970"),
        ("integer", -1, "before 1970"),
        ("text", "yesterday", "no date and no time"),
        ("text", "", "no date and no time"),
        ("integer", 10**18, "after the year 9999"),
        ("float", 1.5, "type float is no date"),
        ("decimal", Decimal("1.5"), "type Decimal is no date"),
        ("boolean", True, "type bool is no date"),
        ("bytes", b"x", "type bytes is no date"),
    ],
)
def test_what_is_no_time_rejects_its_row_alone(kind: ColumnType, value: Any, reason: str):
    config = KafkaConfig(timestamp_field="AT")
    encoded = encode([Column("AT", kind, kind.upper())], [[value], [None]], kafka_config=config)
    assert (encoded.row_numbers, encoded.fields.timestamps_ms) == ([2], [NO_TIME])
    (reject,) = encoded.rejects
    assert (reject.row_number, reject.column) == (1, "AT")
    assert reason in reject.reason


# ── what places a row ─────────────────────────────────────────────────────────────────────────


def test_a_row_is_placed_by_the_text_that_would_be_its_key():
    config = KafkaConfig(partitioner="column", partition_field=("ROUTE", "track_office"))
    encoded = encode([OFFICE, ROUTE], [["a", 1], [None, 2], ["c", None]], kafka_config=config, key_separator="/")
    assert encoded.fields.placed_by == [b"1/a", b"2/", b"/c"]


def test_only_rows_that_are_kept_keep_their_fields():
    config = KafkaConfig(partitioner="column", partition_field="ROUTE", timestamp_field="ROUTE")
    encoded = encode([OFFICE, ROUTE], [["a", 1], ["b", 2], ["c", 3]], kafka_config=config, headers={"o": "{ROUTE}"})
    kept = encoded.kept([True, False, True])
    assert kept.row_numbers == [1, 3]
    assert kept.message_ids == [encoded.message_ids[0], encoded.message_ids[2]]
    assert kept.fields.headers == (("o", [b"1", b"3"]),)
    assert (kept.fields.timestamps_ms, kept.fields.placed_by) == ([1, 3], [b"1", b"3"])


def test_ids_do_not_depend_on_headers_times_and_placement():
    plain = encode([OFFICE, ROUTE], [["a", 1]])
    config = KafkaConfig(partitioner="column", partition_field="ROUTE", timestamp_field="ROUTE")
    assert encode([OFFICE, ROUTE], [["a", 1]], kafka_config=config, headers={"o": "{ROUTE}"}).message_ids == (
        plain.message_ids
    )
