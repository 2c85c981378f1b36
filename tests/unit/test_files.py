"""Files as a user opens them: typed cells, names, no formula from data, and no partial file under the final name."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openpyxl import load_workbook
from python_calamine import CalamineWorkbook

from core.errors import ConfigError, QueryFailed, StorageFailed
from core.files.names import output_name
from core.files.rejects_csv import write_rejects
from core.files.writer import MOST_COLUMNS, MOST_ROWS, open_sink
from core.message.column_types import COLUMN_TYPES
from core.message.envelope import Envelope
from core.model.job import CsvDialect, Job, KafkaConfig
from core.model.run import Reject
from core.model.source import Column, ColumnType, Rows
from core.workspace.jobs import checked_job

MOMENT = datetime(2026, 1, 16, 11, 50, 32, 665000)  # noqa: DTZ001 - as a database gives it
AT = datetime(2026, 1, 17, 1, 0, tzinfo=UTC)
JOB = Job("export", "Export", "CDG-001.sql", "A00-CDG", export_format="excel", kafka_config=KafkaConfig())
CSV = replace(JOB, export_format="csv")
COLUMNS = (
    Column("BARCODE", "text", "VARCHAR2"),
    Column("N", "integer", "NUMBER"),
    Column("IMPORTO", "decimal", "NUMBER(12,2)"),
    Column("DAY", "date", "DATE"),
    Column("AT", "datetime", "TIMESTAMP"),
    Column("ORA", "oracle_date", "DATE"),
    Column("T", "time", "TIME"),
    Column("OK", "boolean", "BIT"),
    Column("DOC", "json", "JSON"),
    Column("RAW", "bytes", "RAW"),
)
ROW = (
    "000123456789",
    848,
    Decimal("-12.50"),
    date(2026, 1, 16),
    MOMENT,
    datetime.combine(date(2026, 1, 16), time()),
    time(12, 30),
    True,
    '{"k":1}',
    b"\x00\x01",
)


def written(file: Path, columns, rows, job: Job = JOB):
    """Writes rows as a run does; returns the file and the rejects of the format."""
    encoded = Envelope(columns, job, scheduled_at=AT).encode(Rows(1, rows, AT))
    assert encoded.rejects == []
    with open_sink(file, file.parent, columns, job) as (sink, finished):
        rejects = sink.write(encoded.row_numbers, encoded.data)
    return finished[0], rejects


def sheets(file: Path) -> list[list[list[object]]]:
    book = CalamineWorkbook.from_path(str(file))
    return [book.get_sheet_by_name(name).to_python() for name in book.sheet_names]


def lines(file: Path, encoding: str = "utf-8-sig", separator: str = ";") -> list[list[str]]:
    with file.open(encoding=encoding, newline="") as stream:
        return list(csv.reader(stream, delimiter=separator))


def test_each_kind_of_cell_is_what_it_says_in_excel(tmp_path: Path):
    made, rejects = written(tmp_path / "a.xlsx", COLUMNS, [ROW, tuple(None for _ in ROW), ROW])
    ((head, cells, empty, _),) = sheets(tmp_path / "a.xlsx")
    assert rejects == []
    assert head == [column.name for column in COLUMNS]
    assert cells == [
        "000123456789",
        848.0,
        -12.5,
        date(2026, 1, 16),
        MOMENT,
        date(2026, 1, 16),
        time(12, 30),
        True,
        '{"k":1}',
        "AAE=",
    ]
    assert set(empty) == {""}
    assert (made.path, made.rows, made.size_bytes) == ("a.xlsx", 3, (tmp_path / "a.xlsx").stat().st_size)


def test_a_number_with_more_digits_than_a_double_holds_is_text(tmp_path: Path):
    columns = (Column("N", "integer", "NUMBER(38)"), Column("D", "decimal", "NUMBER"))
    big = int("9" * 38)
    written(tmp_path / "a.xlsx", columns, [(big, Decimal("0.1234567890123456")), (10**14, Decimal("123456789.12345"))])
    ((_, first, second),) = sheets(tmp_path / "a.xlsx")
    assert first == ["9" * 38, "0.1234567890123456"]
    assert second == [float(10**14), 123456789.12345]


@pytest.mark.parametrize("text", ["=1+1", "+39 02", "-5", "@SUM(A1)", "\tx", "{=1}", "http://example.com", "<script>"])
def test_text_from_data_is_never_a_formula_or_a_link(tmp_path: Path, text: str):
    import zipfile

    written(tmp_path / "a.xlsx", (Column("A", "text", "text"),), [(text,)])
    ((_, (cell,)),) = sheets(tmp_path / "a.xlsx")
    assert cell == text
    with zipfile.ZipFile(tmp_path / "a.xlsx") as archive:
        sheet = archive.read("xl/worksheets/sheet1.xml").decode()
    assert "<f>" not in sheet
    assert "hyperlink" not in sheet


def test_the_head_is_frozen_and_filtered_and_columns_are_as_wide_as_their_content(tmp_path: Path):
    import zipfile

    written(tmp_path / "a.xlsx", (Column("A", "text", "text"),), [("x" * 30,)])
    with zipfile.ZipFile(tmp_path / "a.xlsx") as archive:
        sheet = archive.read("xl/worksheets/sheet1.xml").decode()
    assert 'state="frozen"' in sheet
    assert '<autoFilter ref="A1:A2"/>' in sheet
    assert 'width="31.7' in sheet


def test_a_text_that_excel_would_cut_rejects_its_row(tmp_path: Path):
    columns = (Column("A", "text", "CLOB"),)
    made, rejects = written(tmp_path / "a.xlsx", columns, [("x" * 32_767,), ("x" * 32_768,), ("😀" * 16_384,)])
    assert made.rows == 1
    assert [(r.row_number, r.column) for r in rejects] == [(2, "A"), (3, "A")]
    assert "32,767" in rejects[0].reason


def test_a_date_before_excels_own_time_is_text(tmp_path: Path):
    columns = (Column("D", "date", "date"),)
    written(tmp_path / "a.xlsx", columns, [(date(1, 1, 1),), (date(1900, 2, 28),), (date(9999, 12, 31),)])
    ((_, first, second, last),) = sheets(tmp_path / "a.xlsx")
    assert (first, second, last) == (["0001-01-01"], ["1900-02-28"], [date(9999, 12, 31)])


SECONDS = datetime(2026, 1, 17, 23, 59, 59)  # noqa: DTZ001 - no zone in Excel
LAST = datetime(9999, 12, 31, 23, 59, 59)  # noqa: DTZ001


@pytest.mark.parametrize("second", [SECONDS, LAST, MOMENT.replace(microsecond=0)])
def test_a_moment_that_excel_would_show_as_the_next_second_is_text(tmp_path: Path, second: datetime):
    columns = (Column("K", "text", "t"), Column("AT", "datetime", "t"), Column("T", "time", "t"))
    given = [second.replace(microsecond=us) for us in (0, 999_499, 999_500, 999_600, 999_999)]
    written(tmp_path / "a.xlsx", columns, [("k", at, at.time()) for at in given])
    ((_, *found),) = sheets(tmp_path / "a.xlsx")
    near = second.replace(microsecond=999_000)
    assert found[:2] == [["k", second, second.time()], ["k", near, near.time()]]
    assert found[2:] == [["k", at.isoformat(), at.time().isoformat()] for at in given[2:]]


def test_a_date_that_carries_a_time_keeps_it(tmp_path: Path):
    columns = (Column("K", "text", "t"), Column("D", "date", "DATE"))
    given = [("a", "2026-01-16"), ("b", "2026-01-16 11:50:32"), ("c", "2026-01-16 11:50:32.665")]
    at = MOMENT.replace(microsecond=0)
    written(tmp_path / "a.xlsx", columns, given)
    assert [row[1] for row in sheets(tmp_path / "a.xlsx")[0][1:]] == [at.date(), at, MOMENT]
    written(tmp_path / "a.csv", columns, given, CSV)
    shown = [row[1] for row in lines(tmp_path / "a.csv")[1:]]
    assert shown == ["2026-01-16", "2026-01-16 11:50:32.000000", "2026-01-16 11:50:32.665000"]


def test_values_of_a_column_without_a_type_are_what_each_is(tmp_path: Path):
    columns = (Column("K", "text", "t"), Column("V", "unknown", "value"))
    given = [1, -5, 0.5, 0.1 + 0.2, 1e22, -1.5e-9, "007", b"\0\xff", 12345678901234567]
    written(tmp_path / "a.xlsx", columns, [("k", value) for value in given])
    found = [row[1] for row in sheets(tmp_path / "a.xlsx")[0][1:]]
    assert found == [1.0, -5.0, 0.5, 0.1 + 0.2, 1e22, -1.5e-9, "007", "AP8=", "12345678901234567"]
    written(tmp_path / "a.csv", columns, [("k", value) for value in given[:5]], CSV)
    assert [row[1] for row in lines(tmp_path / "a.csv")[1:]] == ["1", "-5", "0,5", "0,30000000000000004", "1e22"]


def test_a_json_number_with_an_exponent_is_a_number_or_text_where_no_double_holds_it(tmp_path: Path):
    columns = (Column("K", "text", "t"), Column("J", "json", "json"))
    written(tmp_path / "a.xlsx", columns, [("k", text) for text in ("1E5", "-2.5e-3", "1e400", "1.50")])
    assert [row[1] for row in sheets(tmp_path / "a.xlsx")[0][1:]] == [1e5, -2.5e-3, "1e400", 1.5]


def test_rows_beyond_a_sheet_go_on_in_the_next_one_under_the_same_head(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("core.files.writer.MOST_ROWS", 11)
    made, _ = written(tmp_path / "a.xlsx", (Column("N", "integer", "int"),), [(n,) for n in range(25)])
    found = sheets(tmp_path / "a.xlsx")
    assert [len(sheet) for sheet in found] == [11, 11, 6]
    assert [sheet[0] for sheet in found] == [["N"]] * 3
    assert [row[0] for sheet in found for row in sheet[1:]] == list(map(float, range(25)))
    assert (made.rows, MOST_ROWS) == (25, 1_048_576)


def formatted(file: Path) -> list[list[tuple[object, str]]]:
    """Value and number format of each cell below the head, read by openpyxl."""
    sheet = load_workbook(file).worksheets[0]
    return [[(cell.value, cell.number_format) for cell in row] for row in sheet.iter_rows(min_row=2)]


def test_numbers_are_shown_with_the_digits_that_the_database_gave(tmp_path: Path):
    columns = (Column("N", "integer", "int8"), Column("D", "decimal", "numeric"), Column("F", "float", "float8"))
    given = [(572680001120, "12.50", 0.1 + 0.2), (-5, "-0.005", 1e300), (0, "7", 1 / 3)]
    written(tmp_path / "a.xlsx", columns, given)
    assert formatted(tmp_path / "a.xlsx") == [
        [(572680001120, "0"), (12.5, "0.00"), (0.1 + 0.2, "General")],
        [(-5, "0"), (-0.005, "0.000"), (1e300, "General")],
        [(0, "0"), (7, "0"), (1 / 3, "General")],
    ]


@settings(max_examples=30)
@given(st.lists(st.decimals(allow_nan=False, allow_infinity=False, places=None), min_size=1, max_size=40))
def test_a_number_is_exact_in_excel_or_text_with_all_its_digits(values: list[Decimal]):
    texts = [format(value, "f") for value in values if abs(value.adjusted()) < 60]
    columns = (Column("K", "integer", "int"), Column("D", "decimal", "numeric"))
    with TemporaryDirectory() as folder:
        file = Path(folder) / "a.xlsx"
        written(file, columns, list(enumerate(texts)))
        found = [row[1][0] for row in formatted(file)]
    assert len(found) == len(texts)
    for text, cell in zip(texts, found, strict=True):
        if isinstance(cell, str):
            assert cell == text
            assert len(Decimal(text).as_tuple().digits) > 15 or text.lstrip("-0.") == ""
        else:
            assert cell == float(text)
            assert Decimal(repr(cell)) == Decimal(text)


@settings(max_examples=30)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=40))
def test_a_double_is_the_same_double_in_excel(values: list[float]):
    """XlsxWriter by default writes 16 digits, which changes one double in four."""
    columns = (Column("K", "integer", "int"), Column("F", "float", "float8"))
    with TemporaryDirectory() as folder:
        file = Path(folder) / "a.xlsx"
        written(file, columns, list(enumerate(values)))
        assert [row[1][0] for row in formatted(file)] == values


def test_what_excel_has_no_number_or_moment_for_is_text_and_whole(tmp_path: Path):
    columns = (Column("T", "time", "time"), Column("Z", "datetime_tz", "timestamptz"), Column("I", "interval", "i"))
    given = [
        ("24:00:00", AT, timedelta(days=1, hours=2)),
        (time(12, 30, 1, 250000), AT, (1, 2)),
        ("12:30:00.123456789", AT, "P1D"),
        ("12:30:00+02:00", AT, "PT0S"),
    ]
    for types in ({}, {"Z": "datetime"}):
        job = replace(JOB, types=types)
        written(tmp_path / "a.xlsx", columns, given, job)
        assert formatted(tmp_path / "a.xlsx") == [
            [("24:00:00", "@"), ("2026-01-17T01:00:00.000000+00:00", "@"), ("P1DT2H", "@")],
            [(time(12, 30, 1, 250000), "hh:mm:ss.000"), ("2026-01-17T01:00:00.000000+00:00", "@"), ("P1Y2M", "@")],
            [("12:30:00.123456789", "@"), ("2026-01-17T01:00:00.000000+00:00", "@"), ("P1D", "@")],
            [("12:30:00+02:00", "@"), ("2026-01-17T01:00:00.000000+00:00", "@"), ("PT0S", "@")],
        ]


KINDS: dict[ColumnType, tuple[object, str | None, object, str]] = {
    # kind: value, element, cell in Excel, text in CSV
    "integer": (848, None, 848, "848"),
    "decimal": ("12.50", None, 12.5, "12,50"),
    "float": (0.25, None, 0.25, "0,25"),
    "date": (date(2026, 1, 16), None, datetime(2026, 1, 16), "2026-01-16"),  # noqa: DTZ001
    "oracle_date": (MOMENT.replace(microsecond=0), None, MOMENT.replace(microsecond=0), "2026-01-16 11:50:32.000000"),
    "datetime": (MOMENT, None, MOMENT, "2026-01-16 11:50:32.665000"),
    "datetime_tz": (AT, None, "2026-01-17T01:00:00.000000+00:00", "2026-01-17T01:00:00.000000+00:00"),
    "time": (time(12, 30), None, time(12, 30), "12:30:00"),
    "interval": (timedelta(hours=1), None, "PT1H", "PT1H"),
    "text": ("00848", None, "00848", "00848"),
    "char": ("00848  ", None, "00848  ", "00848  "),
    "bytes": (b"\x00\x01", None, "AAE=", "AAE="),
    "json": ('{"k":[1,2.50]}', None, '{"k":[1,2.50]}', '{"k":[1,2.50]}'),
    "array": (["a", None], "text", '["a",null]', '["a",null]'),
    "boolean": (True, None, True, "true"),
    "unknown": ("x", None, "x", "x"),
}


@pytest.mark.parametrize("kind", [*COLUMN_TYPES, "array"])
def test_each_kind_of_column_has_its_cell_and_null_is_empty(tmp_path: Path, kind: ColumnType):
    value, element, in_excel, in_csv = KINDS[kind]
    columns = (Column("K", "integer", "int"), Column("V", kind, kind, element=element))  # type: ignore[arg-type]
    given = [(1, value), (2, None)]
    written(tmp_path / "a.xlsx", columns, given)
    assert [row[1][0] for row in formatted(tmp_path / "a.xlsx")] == [in_excel, None]
    written(tmp_path / "a.csv", columns, given, CSV)
    assert lines(tmp_path / "a.csv") == [["K", "V"], ["1", in_csv], ["2", ""]]


def test_types_of_the_job_decide_the_cell(tmp_path: Path):
    columns = (
        Column("A", "text", "t"),
        Column("B", "text", "t"),
        Column("C", "integer", "i"),
        Column("D", "oracle_date", "d"),
    )
    job = replace(JOB, types={"a": "integer", "b": "date", "c": "string", "d": "date"})
    written(tmp_path / "a.xlsx", columns, [("0848", "2026-01-16", 848, MOMENT)], job)
    day = datetime(2026, 1, 16)  # noqa: DTZ001
    assert formatted(tmp_path / "a.xlsx") == [[(848, "0"), (day, "yyyy-mm-dd"), ("848", "@"), (day, "yyyy-mm-dd")]]


def test_columns_beyond_those_of_a_sheet_are_refused_and_not_left_out(tmp_path: Path):
    columns = tuple(Column(f"c{i}", "integer", "int") for i in range(MOST_COLUMNS + 1))
    with pytest.raises(QueryFailed, match=r"the result has 16,385 columns: a sheet of Excel has 16,384"):
        written(tmp_path / "a.xlsx", columns, [tuple(range(MOST_COLUMNS + 1))])
    assert list(tmp_path.iterdir()) == []
    assert written(tmp_path / "a.csv", columns, [tuple(range(MOST_COLUMNS + 1))], CSV)[0].rows == 1


def test_no_rows_make_a_file_with_the_head_alone(tmp_path: Path):
    for job, name in ((JOB, "a.xlsx"), (CSV, "a.csv")):
        made, _ = written(tmp_path / name, COLUMNS[:2], [], job)
        assert made.rows == 0
    assert sheets(tmp_path / "a.xlsx") == [[["BARCODE", "N"]]]
    assert lines(tmp_path / "a.csv") == [["BARCODE", "N"]]


def test_each_kind_of_cell_in_csv(tmp_path: Path):
    written(tmp_path / "a.csv", COLUMNS, [ROW, tuple(None for _ in ROW)], CSV)
    assert (tmp_path / "a.csv").read_bytes().startswith(b"\xef\xbb\xbfBARCODE;N;")
    _, cells, empty = lines(tmp_path / "a.csv")
    assert cells == [
        "000123456789",
        "848",
        "-12,50",
        "2026-01-16",
        "2026-01-16 11:50:32.665000",
        "2026-01-16",
        "12:30:00",
        "true",
        '{"k":1}',
        "AAE=",
    ]
    assert set(empty) == {""}


def test_formulas_of_data_are_made_inert_in_csv_and_numbers_stay_numbers(tmp_path: Path):
    columns = (Column("A", "text", "text"), Column("N", "integer", "int"))
    written(tmp_path / "a.csv", columns, [("=cmd|' /C calc'!A0", -5), ("@x", 1), ("\tx", 2), ("a=b", 3)], CSV)
    assert lines(tmp_path / "a.csv")[1:] == [["'=cmd|' /C calc'!A0", "-5"], ["'@x", "1"], ["'\tx", "2"], ["a=b", "3"]]


def test_formulas_are_inert_in_the_csv_of_rejected_rows_too(tmp_path: Path):
    row = {"BARCODE": "=HYPERLINK(A1)", "N": "-5.50", "+A": None}
    write_rejects(tmp_path / "r.csv", [Reject(1, "N", "int", "@bad", key="=HYPERLINK(A1)", row=row)])
    with (tmp_path / "r.csv").open(encoding="utf-8-sig", newline="") as stream:
        head, cells = csv.reader(stream)
    assert head == ["row_number", "key", "column", "database_type", "reason", "BARCODE", "N", "'+A"]
    assert cells == ["1", "'=HYPERLINK(A1)", "N", "int", "'@bad", "'=HYPERLINK(A1)", "-5.50", ""]


def test_the_dialect_is_the_jobs(tmp_path: Path):
    dialect = CsvDialect(",", ".", "cp1252", False, True, "\n", "%d/%m/%Y", "%d/%m/%Y %H:%M")
    written(tmp_path / "a.csv", COLUMNS[:5], [ROW[:5]], replace(CSV, csv=dialect))
    text = (tmp_path / "a.csv").read_bytes()
    assert text == (
        b'"BARCODE","N","IMPORTO","DAY","AT"\n"000123456789","848","-12.50","16/01/2026","16/01/2026 11:50"\n'
    )


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_line_breaks_of_a_cell_are_quoted_whatever_the_line_end_is(tmp_path: Path, line_end: str):
    job = replace(CSV, csv=CsvDialect(line_end=line_end, bom=False))
    columns = (Column("ID", "integer", "int"), Column("T", "text", "text"), Column("Z", "integer", "int"))
    texts = ["a\rb", "a\nb", "a\r\nb", "b\r", "b\n", "b\r\n", 'q"', "plain", None]
    written(tmp_path / "a.csv", columns, [(1, text, 2) for text in texts], job)
    raw = (tmp_path / "a.csv").read_bytes().decode()
    assert raw.startswith(f'ID;T;Z{line_end}1;"a\rb";2{line_end}1;"a\nb";2{line_end}1;"a\r\nb";2{line_end}')
    assert raw.endswith(f"1;plain;2{line_end}1;;2{line_end}")
    assert [row[1] or None for row in lines(tmp_path / "a.csv", "utf-8")[1:]] == texts


@pytest.mark.parametrize("name", ["utf-8", "UTF-8", "utf_8", "utf8", "UTF8", "u8", "cp65001"])
def test_utf8_under_any_of_its_names_has_its_mark(tmp_path: Path, name: str):
    job = replace(CSV, csv=CsvDialect(encoding=name))
    written(tmp_path / "a.csv", (Column("A", "text", "t"),), [("è",)], job)
    assert (tmp_path / "a.csv").read_bytes() == b"\xef\xbb\xbfA\r\n\xc3\xa8\r\n"
    written(
        tmp_path / "a.csv",
        (Column("A", "text", "t"),),
        [("è",)],
        replace(job, csv=CsvDialect(",", encoding=name, bom=False)),
    )
    assert (tmp_path / "a.csv").read_bytes() == b"A\r\n\xc3\xa8\r\n"


def test_names_that_json_has_to_escape_stand_in_both_files_as_they_are(tmp_path: Path):
    columns = (Column('a"b', "text", "t"), Column("c\\d", "integer", "int"))
    written(tmp_path / "a.xlsx", columns, [("x", 1)])
    written(tmp_path / "a.csv", columns, [("x", 1)], CSV)
    assert sheets(tmp_path / "a.xlsx") == [[['a"b', "c\\d"], ["x", 1.0]]]
    assert lines(tmp_path / "a.csv") == [['a"b', "c\\d"], ["x", "1"]]


def test_a_name_of_a_column_that_the_encoding_has_not_is_refused(tmp_path: Path):
    job = replace(CSV, csv=CsvDialect(encoding="iso-8859-1", bom=False))
    with pytest.raises(QueryFailed, match="the name of column PREZZO_€ has a character that iso-8859-1 has not"):
        written(tmp_path / "a.csv", (Column("PREZZO_€", "text", "t"),), [("a",)], job)
    assert list(tmp_path.iterdir()) == []


def test_dates_of_early_years_keep_four_digits(tmp_path: Path):
    job = replace(CSV, csv=CsvDialect(date_format="%d/%m/%Y"))
    written(tmp_path / "a.csv", (Column("D", "date", "date"),), [(date(999, 1, 2),)], job)
    assert lines(tmp_path / "a.csv") == [["D"], ["02/01/0999"]]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("separator", ";;"),
        ("separator", '"'),
        ("separator", "1"),
        ("separator", "."),
        ("encoding", "klingon"),
        ("encoding", "base64"),
        ("date_format", "%Q"),
        ("date_format", "day"),
        ("decimal", "'"),
    ],
)
def test_a_dialect_that_cannot_be_is_refused_with_its_line(tmp_path: Path, key: str, value: str):
    file = tmp_path / "e.job.json"
    document = {"name": "E", "query": "e.sql", "connection": "c", "export_format": "csv", "csv": {key: value}}
    file.write_text(json.dumps(document, indent=1), encoding="utf-8")
    (problem,) = checked_job(file, file.read_text(encoding="utf-8"))[1]
    assert problem.line == 7
    assert key in problem.text


def test_a_character_that_the_encoding_has_not_rejects_its_row(tmp_path: Path):
    job = replace(CSV, csv=CsvDialect(encoding="cp1252"))
    made, rejects = written(tmp_path / "a.csv", (Column("A", "text", "text"),), [("è €",), ("日本",)], job)
    assert made.rows == 1
    assert [(r.row_number, r.column, r.reason) for r in rejects] == [
        (2, "A", "the text has a character that cp1252 has not")
    ]
    assert lines(tmp_path / "a.csv", "cp1252") == [["A"], ["è €"]]


@pytest.mark.parametrize(("job", "name"), [(JOB, "a.xlsx"), (CSV, "a.csv")])
def test_a_run_that_fails_leaves_the_file_of_yesterday_and_nothing_else(tmp_path: Path, job: Job, name: str):
    (tmp_path / name).write_text("of yesterday", encoding="utf-8")
    encoded = Envelope(COLUMNS, job, scheduled_at=AT).encode(Rows(1, [ROW] * 5000, AT))

    def fail_in_the_middle() -> None:
        with open_sink(tmp_path / name, tmp_path, COLUMNS, job) as (sink, _):
            sink.write(encoded.row_numbers, encoded.data)
            raise RuntimeError("the database is gone")

    with pytest.raises(RuntimeError):
        fail_in_the_middle()
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text(encoding="utf-8") == "of yesterday"


@pytest.mark.parametrize(("job", "name"), [(JOB, "a.xlsx"), (CSV, "a.csv")])
def test_what_a_killed_run_left_is_taken_away_by_the_next_of_that_file(tmp_path: Path, job: Job, name: str):
    left, other = tmp_path / f".{name}.x1y2.part", tmp_path / ".b.xlsx.x1y2.part"
    for folder in (left, other):
        folder.mkdir()
        (folder / "half").write_bytes(b"half")
    written(tmp_path / name, COLUMNS, [ROW], job)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, other.name])


@pytest.mark.parametrize(("job", "name"), [(JOB, "a.xlsx"), (CSV, "a.csv")])
def test_a_file_that_is_open_in_excel_is_one_error_that_says_close_it(tmp_path: Path, monkeypatch, job: Job, name: str):
    """Windows refuses the rename; here the system call is patched to do the same."""
    (tmp_path / name).write_text("of yesterday", encoding="utf-8")
    tries = []

    def refuse(part: Path, file: Path) -> None:
        tries.append(file)
        raise PermissionError(13, "The process cannot access the file because it is being used by another process")

    monkeypatch.setattr(Path, "replace", refuse)
    monkeypatch.setattr("core.workspace.atomic.time.sleep", lambda _s: None)
    with pytest.raises(StorageFailed, match="used by another process") as caught:
        written(tmp_path / name, COLUMNS, [ROW], job)
    assert caught.value.remedy.startswith("close it where it is open")
    assert len(tries) > 1
    assert [(path.name, path.read_text(encoding="utf-8")) for path in tmp_path.iterdir()] == [(name, "of yesterday")]


def test_a_folder_in_place_of_the_file_is_one_clear_error_and_leaves_nothing(tmp_path: Path):
    (tmp_path / "a.csv" / "x").mkdir(parents=True)
    with pytest.raises(StorageFailed, match=r"a\.csv cannot be written"):
        written(tmp_path / "a.csv", COLUMNS, [ROW], CSV)
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (None, "CDG-001_A00-CDG_20260117.xlsx"),
        ("{query}_{connection}_{date:%Y%m%d}.xlsx", "CDG-001_A00-CDG_20260117.xlsx"),
        ("{job}-{DATA}.xlsx", "export-16_01_2026.xlsx"),
        ("sub/{date-1}.XLSX", "sub/2026-01-16.XLSX"),
    ],
)
def test_names_are_made_from_query_connection_dates_and_parameters(output, expected):
    assert output_name(replace(JOB, output=output), {"DATA": "16/01/2026"}, AT) == expected


def test_templates_of_environment_and_of_parameters_called_as_ours():
    job = replace(JOB, output="{environment}/{query}-{param:QUERY}-{param: date }-{now}-{date:%d/%m/%Y}.xlsx")
    values = {"QUERY": "CON", "DATE": "a\\b:c"}
    assert output_name(job, values, AT, "collaudo") == (
        "collaudo/CDG-001-CON-a_b_c-2026-01-17T02_00_00-17_01_2026.xlsx"
    )


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("CON", "_CON.xlsx"),
        ("..", "_.xlsx"),
        ("nul.txt", "_nul.txt.xlsx"),
        ("a.", "a.xlsx"),
        ("\x00a\n", "_a_.xlsx"),
        ("{date}", "{date}.xlsx"),
        ("e\u0300", "\u00e8.xlsx"),
    ],
)
def test_a_value_that_no_file_may_be_called_is_made_safe(value, expected):
    assert output_name(replace(JOB, output="{DATA}/{DATA}.xlsx"), {"DATA": value}, AT).split("/")[1] == expected


def test_the_folder_of_exports_may_be_written_before_the_name():
    assert output_name(replace(JOB, output="exports/a.xlsx"), {}, AT) == "a.xlsx"


@pytest.mark.parametrize(
    "output", ["../a.xlsx", "a/../b.xlsx", "/etc/a.xlsx", "C:/a.xlsx", "c:a.xlsx", "..\\a.xlsx", ""]
)
def test_a_name_outside_of_exports_is_refused(output):
    with pytest.raises(ConfigError, match=r"is not a file below exports/|is no excel file"):
        output_name(replace(JOB, output=output), {}, AT)


def test_a_parameter_that_is_not_there_is_named_with_the_nearest():
    with pytest.raises(ConfigError, match=r"\{param:DAT\}.*no such parameter") as caught:
        output_name(replace(JOB, output="{param:DAT}.xlsx"), {"DATA": "x"}, AT)
    assert caught.value.remedy == 'did you mean "DATA"?'


def test_a_name_that_is_too_long_for_a_file_system_is_refused():
    with pytest.raises(ConfigError, match="makes a name of 305 bytes"):
        output_name(replace(JOB, output="{DATA}.xlsx"), {"DATA": "è" * 150}, AT)


@pytest.mark.parametrize(
    "output", ["a.csv", "a", "NUL.xlsx", "con/a.xlsx", "a:b.xlsx", "a /b.xlsx", "{nope}.xlsx", "x?.xlsx"]
)
def test_a_name_that_cannot_be_the_file_is_refused(output):
    with pytest.raises(ConfigError):
        output_name(replace(JOB, output=output), {}, AT)


def test_a_parameter_cannot_lead_out_of_the_folder():
    name = output_name(replace(JOB, output="{DATA}.xlsx"), {"DATA": "../../etc/passwd"}, AT)
    assert name == "_.._etc_passwd.xlsx"
