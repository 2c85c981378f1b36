"""A file made earlier is compared with what a job would send, and each difference is named."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from core.errors import ConfigError
from core.files.parity import MOST_KEPT, compare, write_differences
from core.files.reader import FileOptions
from core.files.writer import open_sink
from core.message.envelope import Envelope
from core.model.job import CsvDialect, Job, KafkaConfig
from core.model.query import Query
from core.model.run import Plan
from core.model.source import Column, Rows

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


def seconds(*moment: int) -> datetime:
    return datetime(*moment)  # type: ignore[arg-type]  # noqa: DTZ001 - as a database gives it


ODD_COLUMNS = (
    Column("BARCODE", "text", "text"),
    Column("AT", "datetime", "timestamp"),
    Column("T", "time", "time"),
    Column("V", "unknown", "value"),
    Column("J", "json", "json"),
    Column("DAY", "date", "DATE"),
    Column('a"b', "text", "text"),
)
LAST_DAY = (9999, 12, 31, 23, 59, 59)
ODD = [
    (
        "k0",
        seconds(2026, 1, 17, 23, 59, 59, 999999),
        time(23, 59, 59, 999999),
        0.1 + 0.2,
        "1E5",
        "2026-01-17 10:30:00",
        "a\rb",
    ),
    ("k1", seconds(*LAST_DAY, 999999), time(10, 0, 0, 999500), 1e22, "1.5e300", "2026-01-17", "a\nb"),
    ("k2", seconds(*LAST_DAY, 999600), time(10, 0, 0, 999499), -5, "1e400", None, "a\r\nb"),
    ("k3", seconds(*LAST_DAY, 999499), time(23, 59, 59), "x", "-0.0", "2026-01-17 00:00:00", "\r"),
    ("k4", seconds(2026, 1, 17, 23, 59, 59, 999499), None, b"\0\xff", '"t"', "2026-01-17 10:30:00.5", "\n"),
    ("k5", seconds(2026, 1, 17), None, "007", "12345678901234567890.5", "2026-01-17 10:30:00+01:00", " a "),
    ("k6", seconds(2026, 1, 17), None, 12345678901234567890, "true", "2026-01-17", " 'q\" "),
]


@pytest.mark.parametrize(
    ("name", "dialect"),
    [
        ("a.xlsx", CsvDialect()),
        ("a.csv", CsvDialect()),
        ("b.csv", CsvDialect(line_end="\n")),
        ("c.csv", CsvDialect(",", ".", line_end="\n", quote_all=True, bom=False)),
    ],
)
def test_a_file_of_our_own_with_odd_values_says_the_same_as_the_job(tmp_path: Path, name: str, dialect: CsvDialect):
    form = "excel" if name.endswith("xlsx") else "csv"
    job = replace(KAFKA, export_format=form, kafka_config=KafkaConfig(), csv=dialect)
    encoded = Envelope(ODD_COLUMNS, job, scheduled_at=AT).encode(Rows(1, ODD, AT))
    with open_sink(tmp_path / name, tmp_path, ODD_COLUMNS, job) as (sink, _):
        assert sink.write(encoded.row_numbers, encoded.data) == encoded.rejects == []
    found = compare(KAFKA, plan_of(), Result(ODD, ODD_COLUMNS), tmp_path / name)
    assert found.differences == []
    assert (found.is_equal, found.our_rows) == (True, len(ODD))


@pytest.mark.parametrize("name", ["a.xlsx", "a.csv"])
def test_a_column_whose_name_is_signs_alone_is_compared_like_any_other(tmp_path: Path, name: str):
    columns = (COLUMNS[0], Column("%", "integer", "int"), Column('"', "text", "text"))
    job = replace(KAFKA, export_format="excel" if name == "a.xlsx" else "csv")
    given: list[tuple[Any, ...]] = [("k1", 5, "x"), ("k2", 6, "y")]
    encoded = Envelope(columns, job, scheduled_at=AT).encode(Rows(1, given, AT))
    with open_sink(tmp_path / name, tmp_path, columns, job) as (sink, _):
        sink.write(encoded.row_numbers, encoded.data)
    assert compare(KAFKA, plan_of(), Result(given, columns), tmp_path / name).is_equal
    found = compare(KAFKA, plan_of(), Result([("k1", 5, "x"), ("k2", 7, "y")], columns), tmp_path / name)
    assert [(d.column, d.ours, d.theirs) for d in found.differences] == [("%", "7", "6")]


def test_a_last_moment_of_excels_time_that_another_program_wrote_is_read(tmp_path: Path):
    from xlsxwriter import Workbook

    with Workbook(tmp_path / "old.xlsx") as book:
        sheet = book.add_worksheet()
        sheet.write_row(0, 0, ["BARCODE", "AT"])
        sheet.write_string(1, 0, "k2")
        sheet.write_datetime(1, 1, ODD[2][1], book.add_format({"num_format": "yyyy-mm-dd hh:mm:ss.000"}))
    columns = ODD_COLUMNS[:2]
    found = compare(KAFKA, plan_of(), Result([ODD[2][:2]], columns), tmp_path / "old.xlsx")
    assert (found.differing_cells, found.missing, found.extra) == (1, 0, 0)


@pytest.mark.parametrize("name", ["a.xlsx", "a.csv"])
def test_missing_and_extra_keys_and_differing_cells_are_named_with_both_values(tmp_path: Path, name: str):
    ours, theirs = rows(50), rows(51)[1:]
    theirs[4] = (*theirs[4][:2], Decimal("99.5"), *theirs[4][3:])
    file = made_earlier(tmp_path / name, theirs)
    with write_differences(tmp_path / "differences.csv") as on_difference:
        found = compare(KAFKA, plan_of(), Result(ours), file, on_difference=on_difference)
    assert not found.is_equal
    assert (found.rows, found.equal_rows, found.different_rows) == (51, 48, 3)
    assert (found.missing, found.extra, found.differing_rows, found.differing_cells) == (1, 1, 1, 1)
    (cell,) = [d for d in found.differences if d.kind == "cell"]
    assert (cell.key, cell.column, cell.ours, cell.theirs) == ("000000000005", "importo", "1.25", "99.5")
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


NUMBERED = (COLUMNS[0], Column("N", "integer", "int"))


def old(folder: Path, text: str, name: str = "old.csv", encoding: str = "utf-8") -> Path:
    file = folder / name
    file.write_text(text, encoding=encoding)
    return file


def told(file: Path, given: list[tuple[Any, ...]], columns=NUMBERED, job: Job = KAFKA, **options: str):
    """Differences as (kind, key, column, ours, theirs)."""
    found = compare(job, plan_of(job), Result(given, columns), file, options=FileOptions(**options))
    return found, [(d.kind, d.key, d.column, d.ours, d.theirs) for d in found.differences]


def test_an_equal_row_that_the_file_has_once_and_the_job_twice_is_a_difference_however_far_apart(tmp_path: Path):
    file = old(tmp_path, "BARCODE;N\n" + "".join(f"k{i};{i}\n" for i in range(12_000)))
    given = [(f"k{i}", i) for i in range(12_000)]
    found, differences = told(file, [*given, ("k0", 0)])
    assert differences == [("duplicate", "k0", "", None, None)]
    assert (found.our_rows, found.file_rows, found.repeated_keys_ours, found.is_equal) == (12_001, 12_000, 1, False)


def test_rows_of_one_key_are_paired_by_what_they_say_in_any_order(tmp_path: Path):
    file = old(tmp_path, "BARCODE;N\na;1\na;2\na;3\nb;9\n")
    found, _ = told(file, [("a", 3), ("a", 1), ("a", 2), ("b", 9)])
    assert found.is_equal
    assert (found.repeated_keys_ours, found.repeated_keys_theirs) == (1, 1)
    found, differences = told(file, [("a", 3), ("a", 1), ("a", 7), ("b", 9)])
    assert differences == [("cell", "a", "n", "7", "2")]


def test_keys_that_differ_in_their_zeros_alone_are_two_keys_where_both_sides_have_both(tmp_path: Path):
    found, _ = told(old(tmp_path, "BARCODE;N\n7;2\n007;1\n"), [("007", 1), ("7", 2)])
    assert found.is_equal
    assert (found.repeated_keys_ours, found.lost_zeros) == (0, 0)


def test_digits_are_compared_to_the_last_and_rounding_is_called_out(tmp_path: Path):
    found, differences = told(old(tmp_path, "BARCODE;N\na;123456789012345678\n"), [("a", 123456789012345679)])
    assert differences == [("cell", "a", "n", "123456789012345679", "123456789012345678")]
    found, _ = told(old(tmp_path, "BARCODE;N\na;1,23457E+17\n"), [("a", 123456789012345679)])
    assert found.differences[0].note == "rounded to 6 digits in the file"


def test_numbers_are_read_as_people_write_them(tmp_path: Path):
    columns = (COLUMNS[0], COLUMNS[2])
    text = "BARCODE;IMPORTO\na;1.234,50\nb;1,5\nc; 2.50 \nd;-1.234.567,00\ne;1,234.5\n"
    given = [("a", "1234.50"), ("b", "1.5"), ("c", "2.5"), ("d", "-1234567"), ("e", "1234.5")]
    assert told(old(tmp_path, text), given, columns)[1] == []
    # 1.234 is 1.234, unless the options say that the comma is the decimal separator.
    assert told(old(tmp_path, "BARCODE;IMPORTO\na;1.234\n"), [("a", "1.234")], columns)[1] == []
    assert told(old(tmp_path, "BARCODE;IMPORTO\na;1.234\n"), [("a", "1234")], columns, decimal=",")[1] == []


def test_moments_that_the_file_has_cut_say_to_what(tmp_path: Path):
    columns = (COLUMNS[0], COLUMNS[4])
    text = "BARCODE;AT\na;16/01/2026 11:50\nb;16/01/2026\nc;2026-01-16 11:50:32.665\nd;46038,5\n".replace(",", ".")
    noon = datetime(2026, 1, 16, 12)  # noqa: DTZ001
    found, _ = told(old(tmp_path, text), [("a", MOMENT), ("b", MOMENT), ("c", MOMENT), ("d", noon)], columns)
    assert [(d.key, d.note) for d in found.differences] == [
        ("a", "only to the minute in the file"),
        ("b", "only to the day in the file"),
    ]


def test_moments_with_and_without_offset_are_compared_by_the_clock_and_two_offsets_by_the_instant(tmp_path: Path):
    columns = (COLUMNS[0], Column("AT", "datetime_tz", "timestamptz"))
    text = "BARCODE;AT\na;2026-01-16 12:00:00\nb;2026-01-16 13:00:00+01:00\nc;2026-01-16 13:00:00\n"
    noon = datetime(2026, 1, 16, 12, tzinfo=UTC)
    _, differences = told(old(tmp_path, text), [("a", noon), ("b", noon), ("c", noon)], columns)
    assert [key for _, key, *_ in differences] == ["c"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig", "cp1252"])
@pytest.mark.parametrize("separator", [";", ",", "\t", "|"])
def test_the_dialect_is_told_from_the_file_below_titles_and_empty_lines(tmp_path: Path, encoding: str, separator: str):
    columns = (COLUMNS[0], Column("CITTÀ", "text", "text"), Column("N_O", "integer", "int"))
    lines = ["Report of the day, 17/01", "", "Barcode|Città|N. O.", 'a|"Forlì|Cesena, a|b; c"|1'.replace("|C", " C")]
    text = "\n".join(lines[:2] + [line.replace("|", separator) for line in lines[2:]])
    job = replace(KAFKA, csv=KAFKA.csv)
    found, differences = told(
        old(tmp_path, text, encoding=encoding), [("a", f"Forlì Cesena, a{separator}b; c", 1)], columns, job
    )
    assert differences == []
    assert found.is_equal
    assert found.dialect.startswith(f"separator {'tab' if separator == chr(9) else separator} · ")


@pytest.mark.parametrize("most_bytes", [0, 10**9])
def test_excel_is_read_alike_at_once_and_streamed(tmp_path: Path, monkeypatch, most_bytes: int):
    """A large workbook is streamed: same cells, less memory, ten times slower."""
    monkeypatch.setattr("core.files.reader.MOST_BYTES_AT_ONCE", most_bytes)
    monkeypatch.setattr("core.files.writer.MOST_ROWS", 100)
    columns = (
        *COLUMNS,
        Column("T", "text", "text"),
        Column("F", "float", "double"),
        Column("BIG", "integer", "number"),
        Column("CLOCK", "time", "time"),
        Column("DOC", "json", "json"),
        Column("TZ", "datetime_tz", "timestamptz"),
    )
    texts = ["=1+1", "-5", "848", "00848", "a\r\nb", "\x01", "_x0041_", "TRUE", "16/01/2026", "1e5", "", None, " x "]
    given = [
        (*row, texts[i % len(texts)], 0.1 * i, 10**20 + i, time(11, 50, i % 60), '{"b":[1,2.50],"a":null}', AT)
        for i, row in enumerate(rows(250))
    ]
    job = replace(KAFKA, export_format="excel", kafka_config=KafkaConfig())
    file = tmp_path / "a.xlsx"
    encoded = Envelope(columns, job, scheduled_at=AT).encode(Rows(1, given, AT))
    with open_sink(file, file.parent, columns, job) as (sink, _):
        assert sink.write(encoded.row_numbers, encoded.data) == []
    found, differences = told(file, given, columns)
    assert differences == []
    assert (found.is_equal, found.file_rows, found.lost_zeros, found.dialect) == (True, 250, 0, 'sheet "Data"')


def test_all_differences_are_told_and_some_are_kept(tmp_path: Path):
    file = old(tmp_path, "BARCODE;N\n" + "".join(f"k{i};{i}\n" for i in range(3 * MOST_KEPT)))
    with write_differences(tmp_path / "all.csv") as on_difference:
        found = compare(
            KAFKA,
            plan_of(),
            Result([(f"k{i}", -i - 1) for i in range(3 * MOST_KEPT)], NUMBERED),
            file,
            on_difference=on_difference,
        )
    assert (len(found.differences), found.difference_count, found.differing_columns) == (
        MOST_KEPT,
        3 * MOST_KEPT,
        {"n": 3 * MOST_KEPT},
    )
    lines = (tmp_path / "all.csv").read_text(encoding="utf-8-sig").splitlines()
    assert len(lines) == 1 + 3 * MOST_KEPT
    assert lines[1] == "cell;k0;n;-1;0;"


def test_a_comparison_that_fails_leaves_no_list_of_differences(tmp_path: Path):
    with pytest.raises(ConfigError), write_differences(tmp_path / "all.csv") as on_difference:
        compare(KAFKA, plan_of(), Result(rows(1)), tmp_path / "none.csv", on_difference=on_difference)
    assert list(tmp_path.iterdir()) == []


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
    with refused("no row of other.csv names a column of the job"):
        compare(KAFKA, plan_of(), result, other)
    other.write_text("n;day\n1;2\n", encoding="utf-8")
    with refused("other.csv has no column barcode"):
        compare(KAFKA, plan_of(), result, other)
    with refused("is not in ascii"):
        other.write_text("barcode;n\né;2\n", encoding="utf-8")
        compare(KAFKA, plan_of(), result, other, options=FileOptions(encoding="ascii"))
    with refused('has no sheet "Other"'):
        made = made_earlier(tmp_path / "made.xlsx", rows(1))
        compare(KAFKA, plan_of(), result, made, options=FileOptions(sheet="Other"))
    with refused("has column n twice"):
        other.write_text("barcode;n;N\na;2;3\n", encoding="utf-8")
        compare(KAFKA, plan_of(), result, other)
    with refused("there is no file"):
        compare(KAFKA, plan_of(), result, tmp_path / "none.csv")
    with refused("neither"):
        compare(KAFKA, plan_of(), result, torn.rename(tmp_path / "x.ods"))
    with refused("no message_key_field"):
        compare(replace(KAFKA, kafka_config=KafkaConfig()), plan_of(), result, other)
