"""A file made earlier against what a job would send: equal means equal, and each difference is named."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from core.envelope import Envelope
from core.errors import ConfigError
from core.files import open_sink
from core.model import Column, Job, KafkaConfig, Plan, Query, Rows
from core.parity import compare, write_differences

MOMENT = datetime(2026, 1, 16, 11, 50, 32, 665000)  # noqa: DTZ001 - as a database gives it
AT = datetime(2026, 1, 17, 1, 0, tzinfo=UTC)
KAFKA = Job("e", "E", "e.sql", "pg", kafka_config=KafkaConfig(message_key_field="BARCODE"))
COLUMNS = (
    Column("BARCODE", "text", "text"),
    Column("N", "integer", "int"),
    Column("IMPORTO", "decimal", "numeric"),
    Column("DAY", "date", "date"),
    Column("AT", "datetime", "timestamp"),
    Column("OK", "boolean", "bool"),
)


@dataclass
class Result:
    rows: list[tuple[Any, ...]]
    columns: tuple[Column, ...] = COLUMNS
    counted: None = None
    blocks: int = field(default=1000)

    def __iter__(self):
        for start in range(0, len(self.rows), self.blocks):
            yield Rows(start + 1, self.rows[start : start + self.blocks], AT)


def rows(count: int) -> list[tuple[Any, ...]]:
    return [(f"00{n:010}", n, Decimal(n) / 4, date(2026, 1, 16), MOMENT, n % 2 == 0) for n in range(count)]


def plan_of(job: Job = KAFKA) -> Plan:
    return Plan(job, Query("e", (), {}, ""), "c", "t", AT, 100)


def made_earlier(file: Path, given: list[tuple[Any, ...]]) -> Path:
    job = replace(KAFKA, export_format="excel" if file.suffix == ".xlsx" else "csv", kafka_config=KafkaConfig())
    encoded = Envelope(COLUMNS, job, scheduled_at=AT).encode(Rows(1, given, AT))
    with open_sink(file, file.parent, COLUMNS, job) as (sink, _):
        sink.write(encoded.row_numbers, encoded.data)
    return file


@pytest.mark.parametrize("name", ["a.xlsx", "a.csv"])
def test_a_file_of_our_own_says_the_same_as_the_job(tmp_path: Path, name: str):
    found = compare(KAFKA, plan_of(), Result(rows(2500)), made_earlier(tmp_path / name, rows(2500)))
    assert found.differences == []
    assert found.is_equal
    assert (found.our_rows, found.file_rows, len(found.columns)) == (2500, 2500, 6)


@pytest.mark.parametrize("name", ["a.xlsx", "a.csv"])
def test_missing_and_extra_keys_and_differing_cells_are_named_with_both_values(tmp_path: Path, name: str):
    ours, theirs = rows(50), rows(51)[1:]
    theirs[4] = (*theirs[4][:2], Decimal("99.5"), *theirs[4][3:])
    found = compare(KAFKA, plan_of(), Result(ours), made_earlier(tmp_path / name, theirs))
    assert not found.is_equal
    assert (found.missing, found.extra, found.differing_rows, found.differing_cells) == (1, 1, 1, 1)
    (cell,) = [d for d in found.differences if d.kind == "cell"]
    assert (cell.column, cell.ours, cell.theirs) == ("importo", "1.25", "99.5" if name == "a.xlsx" else "99,5")
    write_differences(tmp_path / "differences.csv", found)
    assert len((tmp_path / "differences.csv").read_text(encoding="utf-8-sig").splitlines()) == 4


def test_what_excel_made_of_a_csv_is_the_same_but_for_lost_zeros(tmp_path: Path):
    file = tmp_path / "old.csv"
    file.write_text(
        "Barcode;N;Importo;Day;At;Ok\r\n1;1;0,25;16/01/2026;16/01/2026 11:50:32;FALSO\r\n", encoding="cp1252"
    )
    (row,) = rows(2)[1:]
    result = Result([(*row[:4], MOMENT.replace(microsecond=0), row[5])])
    found = compare(KAFKA, plan_of(), result, file)
    assert found.differences == []
    assert (found.lost_zeros, found.is_equal) == (1, True)


def test_an_identifier_with_zeros_is_no_number(tmp_path: Path):
    file = tmp_path / "old.csv"
    file.write_text("BARCODE;CUST\nA;0012\nB;12.0\n", encoding="utf-8")
    columns = (COLUMNS[0], Column("CUST", "text", "text"))
    found = compare(KAFKA, plan_of(), Result([("A", "0012"), ("B", "0012")], columns), file)
    assert [(d.key, d.ours, d.theirs) for d in found.differences] == [("B", "0012", "12.0")]


def test_repeated_keys_and_rows_that_cannot_be_sent_are_counted(tmp_path: Path):
    file = tmp_path / "old.csv"
    file.write_text("BARCODE;N\nA;1\nA;2\nB;3\n", encoding="utf-8")
    columns = (COLUMNS[0], Column("N", "float", "float8"))
    found = compare(KAFKA, plan_of(), Result([("A", 1.0), ("B", float("nan"))], columns), file)
    assert (found.duplicates, found.rejected, found.extra) == (1, 1, 1)
    assert not found.is_equal


def test_columns_of_one_side_only_are_named(tmp_path: Path):
    file = tmp_path / "old.csv"
    file.write_text("barcode,n,other\nA,1,x\n", encoding="utf-8")
    found = compare(KAFKA, plan_of(), Result([("A", 1, None)], COLUMNS[:3]), file)
    assert (found.columns, found.only_ours, found.only_theirs) == (("barcode", "n"), ("importo",), ("other",))
    assert not found.is_equal


@contextmanager
def refused(match: str):
    with pytest.raises(ConfigError, match=match) as caught:
        yield
    assert caught.value.remedy


def test_files_that_cannot_be_compared_say_why(tmp_path: Path):
    torn = tmp_path / "torn.xlsx"
    torn.write_bytes(b"PK\x03\x04 not really")
    empty = tmp_path / "empty.csv"
    empty.write_text("", encoding="utf-8")
    other = tmp_path / "other.csv"
    other.write_text("a;b\n1;2\n", encoding="utf-8")
    result = Result(rows(1))
    with refused("cannot be read as an Excel file"):
        compare(KAFKA, plan_of(), result, torn)
    with refused("is empty"):
        compare(KAFKA, plan_of(), result, empty)
    with refused("has no column barcode"):
        compare(KAFKA, plan_of(), result, other)
    with refused("there is no file"):
        compare(KAFKA, plan_of(), result, tmp_path / "none.csv")
    with refused("neither"):
        compare(KAFKA, plan_of(), result, torn.rename(tmp_path / "x.ods"))
    with refused("no message_key_field"):
        compare(replace(KAFKA, kafka_config=KafkaConfig()), plan_of(), result, other)
