"""What `preview` shows of a job's first rows, and its warning for each unusual value in them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from core.errors import ConfigError
from core.message.envelope import Envelope
from core.model.check_result import CheckResult
from core.model.job import Job, KafkaConfig
from core.model.query import Query, Step
from core.model.run import Plan
from core.model.source import Column, Rows
from core.run.preview import Preview, preview
from core.sources import find_dialect

NOW = datetime(2026, 1, 17, 10, 30, 45, 123456, tzinfo=UTC)
EXTRACTED = datetime(2026, 1, 17, 10, 30, 30, tzinfo=UTC)
JOB = Job(
    slug="export-cdg-tracce",
    name="Export CDG Tracce to Kafka",
    query="q.sql",
    connection="A00",
    kafka_config=KafkaConfig(message_key_field="BARCODE"),
)
BARCODE = Column("BARCODE", "text", "VARCHAR2(13)")
AMOUNT = Column("IMPORTO", "decimal", "NUMBER")


class Table:
    """A source whose rows are in the test; it counts its calls."""

    name = "A00"

    def __init__(self, columns: Sequence[Column], rows: Sequence[Sequence[Any]], db_type: str = "oracle") -> None:
        self.columns = tuple(columns)
        self.counted: int | None = None
        self.rows = rows
        self.dialect = find_dialect(db_type)
        self.fetch_rows = 0
        self.fetches = 0
        self.closed = False

    @contextmanager
    def read(self, steps: Sequence[Step], *, fetch_rows: int = 5000, count: bool = False) -> Iterator[Table]:
        assert not count
        self.fetch_rows = fetch_rows
        try:
            yield self
        finally:
            self.closed = True

    def __iter__(self) -> Iterator[Rows]:
        for start in range(0, len(self.rows), self.fetch_rows):
            self.fetches += 1
            yield Rows(start + 1, self.rows[start : start + self.fetch_rows], EXTRACTED)

    def cancel(self) -> None: ...

    def check(self) -> list[CheckResult]:
        return []

    def close(self) -> None: ...


def plan_of(job: Job = JOB) -> Plan:
    query = Query("q.sql", (Step("SELECT 1"),), {}, "0" * 64)
    return Plan(job, query, "Kafka Collaudo", "pstt-traces", datetime(2026, 1, 17, 1, tzinfo=UTC), batch_size=100)


def look(table: Table, job: Job = JOB, *, rows: int = 20, limit: int = 1_048_576) -> Preview:
    return preview(plan_of(job), table, rows=rows, now=lambda: NOW, max_request_size_bytes=limit)


def only(seen: Preview) -> str:
    assert len(seen.warnings) == 1, seen.warnings
    return seen.warnings[0]


# ── the messages ──────────────────────────────────────────────────────────────────────────────


def test_a_message_is_shown_exactly_as_the_run_would_send_it() -> None:
    job = replace(JOB, headers={"origine": "CDG"})
    seen = look(Table([BARCODE, AMOUNT], [("0026", Decimal("12.50"))]), job)
    (message,) = seen.messages
    envelope = Envelope([BARCODE, AMOUNT], job, scheduled_at=plan_of().scheduled_at)
    encoded = envelope.encode(Rows(1, [("0026", Decimal("12.50"))], EXTRACTED))
    assert message.value.encode() == envelope.wrap(encoded.data, extracted_at=EXTRACTED, published_at=NOW)[0]
    assert json.loads(message.value)["metadata"]["processing"]["latency_ms"] == 15123
    assert (message.row_number, message.key) == (1, "0026")
    assert message.headers == {
        "message_id": encoded.message_ids[0].decode(),
        "run_id": "(made at the run)",
        "job": "Export CDG Tracce to Kafka",
        "origine": "CDG",
    }
    assert message.size_bytes == len(message.value.encode())
    assert (seen.warnings, seen.rejects) == ([], [])


def test_headers_and_time_from_columns_are_shown() -> None:
    at, office = Column("AT", "datetime", "TIMESTAMP"), Column("OFFICE", "text", "VARCHAR2")
    config = replace(JOB.kafka_config, timestamp_field="AT")
    job = replace(JOB, headers={"office": "{OFFICE}", "plain": "{{x}}"}, kafka_config=config)
    rows = [("1", "2026-01-16 11:50:32.665", "38713"), ("2", None, None)]
    seen = look(Table([BARCODE, at, office], rows), job)
    first, second = seen.messages
    assert {name: first.headers[name] for name in ("office", "plain")} == {"office": "38713", "plain": "{x}"}
    assert "office" not in second.headers
    assert (first.timestamp, second.timestamp) == ("2026-01-16T10:50:32.665Z", None)
    assert only(seen) == "AT: it is null in 1 of 2 rows, whose records get the time when they are sent"


@pytest.mark.parametrize(
    ("changes", "is_spread"),
    [
        ({"partitioner": "round_robin"}, True),
        ({"partitioner": "column", "partition_field": "IMPORTO"}, True),
        ({"partitioner": "column", "partition_field": "barcode"}, False),
        ({"partitioner": "fixed", "partition": 1}, False),
    ],
)
def test_a_key_that_goes_to_several_partitions_is_warned_about(changes: dict[str, Any], is_spread: bool) -> None:
    job = replace(JOB, kafka_config=replace(JOB.kafka_config, **changes))
    warnings = look(Table([BARCODE, AMOUNT], [("1", Decimal(2))]), job).warnings
    assert any("messages of one key go to several partitions" in text for text in warnings) is is_spread


def test_no_more_rows_are_read_than_are_shown() -> None:
    table = Table([BARCODE], [(str(n),) for n in range(1000)])
    seen = look(table, rows=20)
    assert [m.key for m in seen.messages] == [str(n) for n in range(20)]
    assert (table.fetch_rows, table.fetches, table.closed) == (20, 1, True)


def test_a_source_that_fetches_more_than_asked_shows_only_what_was_asked() -> None:
    class Eager(Table):
        def __iter__(self) -> Iterator[Rows]:
            yield Rows(1, self.rows, EXTRACTED)

    assert len(look(Eager([BARCODE], [("a",), ("b",), ("c",)]), rows=2).messages) == 2


def test_without_a_key_column_the_key_is_none_and_nothing_is_warned() -> None:
    seen = look(Table([AMOUNT], [(1,), (1,)]), replace(JOB, kafka_config=KafkaConfig()))
    assert [m.key for m in seen.messages] == [None, None]
    assert seen.warnings == []


def test_an_unknown_key_column_is_an_error_that_names_the_columns() -> None:
    with pytest.raises(ConfigError, match="names column BARCODE, which the query does not return"):
        look(Table([AMOUNT], [(1,)]))


# ── the warnings ──────────────────────────────────────────────────────────────────────────────


def test_no_rows_are_said() -> None:
    assert only(look(Table([BARCODE], []))) == (
        "the query returns no rows for these parameters: a run would be green and send nothing"
    )


def test_a_null_key_is_warned_as_a_reject_and_says_how_to_send_it() -> None:
    seen = look(Table([BARCODE], [("a",), (None,), (None,)]))
    assert only(seen) == (
        "BARCODE: the key is null in 2 of 3 rows (first in row 2), which would be rejected; add BARCODE IS NOT NULL "
        'to the query, or set "on_null_key": "send"'
    )
    assert [(r.row_number, r.column) for r in seen.rejects] == [(2, "BARCODE"), (3, "BARCODE")]


def test_a_null_key_that_ends_the_run_is_said_to() -> None:
    seen = look(Table([BARCODE], [("a",), (None,)]), replace(JOB, on_null_key="fail"))
    assert "(first in row 2), which would end the run" in only(seen)


def test_a_null_key_that_is_sent_is_warned_too() -> None:
    seen = look(Table([BARCODE], [("a",), (None,)]), replace(JOB, on_null_key="send"))
    assert "BARCODE: the key is null in 1 of 2 rows, sent without a key to any partition" in only(seen)
    assert [m.key for m in seen.messages] == ["a", None]


def test_repeated_keys_are_counted_over_all_columns_of_the_key() -> None:
    columns = [BARCODE, Column("CAUSAL", "text", "CHAR(3)")]
    rows = [("a", "X"), ("a", "X"), ("a", "Y"), ("b", "X")]
    one = look(Table(columns, rows))
    assert only(one).startswith("BARCODE: 3 of 4 messages share their key with another one; a compacted topic keeps")
    both = look(Table(columns, rows), replace(JOB, kafka_config=KafkaConfig(message_key_field=("barcode", "causal"))))
    assert only(both).startswith("BARCODE + CAUSAL: 2 of 4 messages share")


@pytest.mark.parametrize(
    ("db_type", "sql"),
    [
        ("oracle", "LPAD(TO_CHAR(BARCODE), 12, '0')"),
        ("postgresql", "LPAD(BARCODE::text, 12, '0')"),
        ("sqlserver", "RIGHT('000000000000' + CAST(BARCODE AS varchar(12)), 12)"),
        ("sqlite", "printf('%012d', BARCODE)"),
    ],
)
def test_a_key_that_is_a_number_may_have_lost_its_zeros(db_type: str, sql: str) -> None:
    column = Column("BARCODE", "integer", "NUMBER(12)")
    text = only(look(Table([column], [(2680001120,)], db_type)))
    assert text.startswith(
        "BARCODE is a number in the database (NUMBER(12)): leading zeros, if the real keys have them"
    )
    assert f"write {sql} in the query" in text


def test_a_key_that_is_text_keeps_its_zeros_without_a_warning() -> None:
    seen = look(Table([BARCODE], [("002680001120",)]))
    assert (seen.messages[0].key, seen.warnings) == ("002680001120", [])


@pytest.mark.parametrize(
    "number", [2**53 + 1, -(2**53) - 2, Decimal(10) ** 37, "12345678901234567890", Decimal("0.1234567890123456789")]
)
def test_a_number_that_doubles_cannot_hold_is_warned(number: Any) -> None:
    text = only(look(Table([BARCODE, AMOUNT], [("a", number), ("b", 1)])))
    assert text.startswith("IMPORTO: 1 of 2 rows holds a number beyond 2^53")
    assert 'set "decimals": "string", or "types": {"IMPORTO": "string"} for this column alone' in text


@pytest.mark.parametrize("number", [2**53, Decimal("12.50"), "0.1", Decimal("1E+3"), 0])
def test_a_number_that_doubles_hold_is_not_warned(number: Any) -> None:
    assert look(Table([BARCODE, AMOUNT], [("a", number)])).warnings == []


def test_large_numbers_that_are_sent_as_text_are_not_warned() -> None:
    table = Table([BARCODE, AMOUNT], [("a", 10**20)])
    assert look(table, replace(JOB, decimals="string")).warnings == []
    assert look(table, replace(JOB, types={"importo": "string"})).warnings == []
    assert 'so set "types": {"IMPORTO": "string"}' in only(look(table, replace(JOB, types={"importo": "integer"})))


@pytest.mark.parametrize("kind", ["char", "text"])
def test_a_key_that_ends_with_blanks_is_warned_until_types_trims_it(kind: str) -> None:
    table = Table([Column("BARCODE", kind, "CHAR(5)"), AMOUNT], [("AB   ", 1), ("ABCDE", 2), (None, 3)])
    job = replace(JOB, on_null_key="send")
    (text,) = [text for text in look(table, job).warnings if "blanks" in text]
    assert text.startswith("BARCODE (CHAR(5)): the key ends with blanks in 1 of 3 rows, ")
    assert 'set "types": {"BARCODE": "string"}' in text
    trimmed = look(table, replace(job, types={"barcode": "string"}))
    assert not any("blanks" in text for text in trimmed.warnings)
    assert [message.key for message in trimmed.messages] == ["AB", "ABCDE", None]


def test_sqlite_dates_with_and_without_a_time_are_warned() -> None:
    days = ["2026-01-16", "2026-01-16 08:00:00", "2026-01-16 00:00:00.000", None]
    table = Table([BARCODE, Column("DAY", "date", "DATE")], [(str(i), day) for i, day in enumerate(days)])
    assert only(look(table)).startswith("DAY: 1 of 3 dates carries a time of day and the others do not")


def test_oracle_dates_with_and_without_a_time_are_warned_until_types_fixes_one_shape() -> None:
    column = Column("TRKDATE", "oracle_date", "DATE")
    table = Table([BARCODE, column], [("a", datetime(2026, 1, 16)), ("b", datetime(2026, 1, 16, 8)), ("c", None)])  # noqa: DTZ001
    assert only(look(table)).startswith(
        "TRKDATE: 1 of 2 dates carries a time of day and the others do not, so readers would meet two shapes; set "
        '"types": {"TRKDATE": "datetime"} or "date"'
    )
    assert look(table, replace(JOB, types={"trkdate": "date"})).warnings == []


def test_oracle_dates_of_one_shape_are_not_warned() -> None:
    column = Column("TRKDATE", "oracle_date", "DATE")
    for hour in (0, 8):
        assert look(Table([BARCODE, column], [("a", datetime(2026, 1, 16, hour))])).warnings == []  # noqa: DTZ001


def test_a_message_near_the_limit_and_one_over_it_are_told_apart() -> None:
    table = Table([BARCODE], [("a" * 10,), ("b" * 600,), ("c" * 2000,)])
    seen = look(
        table, replace(JOB, kafka_config=KafkaConfig(message_key_field="BARCODE", include_metadata=False)), limit=1500
    )
    over, near = seen.warnings
    assert over.startswith(
        "1 of 3 rows (first: row 3) makes a message over the limit of 1,500 bytes and would be rejected"
    )
    assert near.startswith("1 of 3 rows (first: row 2) makes a message of 80 % or more of the limit of 1,500 bytes")
    assert "KAFKA_MAX_REQUEST_SIZE" in over


def test_a_refused_time_zone_is_a_warning_and_no_message_is_shown() -> None:
    refusal = "the driver drops the zone; write TO_CHAR(T, 'YYYY-MM-DD\"T\"HH24:MI:SS.FF6TZH:TZM') AS T"
    column = Column("T", "datetime", "TIMESTAMP WITH TIME ZONE", refusal=refusal)
    table = Table([BARCODE, column], [("a", None)])
    seen = look(table)
    assert only(seen) == f"T (TIMESTAMP WITH TIME ZONE) cannot be sent, so nothing is shown: {refusal}"
    assert (seen.messages, seen.columns, table.fetches) == ([], (BARCODE, column), 0)


def test_rows_that_would_be_rejected_are_counted_with_the_first_reason() -> None:
    table = Table([BARCODE, AMOUNT], [("a", 1), ("b", Decimal("NaN")), ("c", "x")])
    seen = look(table)
    assert only(seen).startswith(
        "2 of 3 rows would be rejected, the first is row 2, column IMPORTO: NaN has no JSON form"
    )
    assert [m.row_number for m in seen.messages] == [1]
    assert [r.row_number for r in seen.rejects] == [2, 3]


def test_a_bad_row_that_ends_the_run_is_said_to() -> None:
    seen = look(Table([BARCODE, AMOUNT], [("b", Decimal("NaN"))]), replace(JOB, on_bad_row="fail"))
    assert only(seen) == (
        'row 1, column IMPORTO would end the run: NaN has no JSON form; mend the row, or set "on_bad_row": "reject"'
    )
