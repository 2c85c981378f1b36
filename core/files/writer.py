"""Writes rows to xlsx and csv: typed cells, no text that a spreadsheet would execute, no partial file under the final name.

A row comes as the JSON of its message, so that files and topics reject the same rows for the same reasons and
`core.files.parity` compares equal representations. Memory stays flat: XlsxWriter writes in constant-memory mode, csv row
by row.
"""

from __future__ import annotations

import codecs
import csv
import glob
import hashlib
import math
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import date, datetime, time
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TextIO

import msgspec

from core.errors import QueryFailed, StorageFailed
from core.model.job import CsvDialect, Job
from core.model.run import Reject, RunFile
from core.model.source import Column
from core.workspace.atomic import replace_file

if TYPE_CHECKING:
    from xlsxwriter import Workbook
    from xlsxwriter.format import Format
    from xlsxwriter.worksheet import Worksheet

__all__ = ["DoubleText", "NumberText", "RowDecoder", "Sink", "cell_text", "escape_formula", "escape_text", "open_sink"]

MOST_ROWS = 1_048_576
"""Rows of an Excel sheet, including its header."""
MOST_COLUMNS = 16_384
"""Columns of an Excel sheet; XlsxWriter omits further ones silently."""
MOST_CHARACTERS = 32_767
"""Characters of an Excel cell; XlsxWriter omits a longer text silently."""
MOST_DECIMALS = 30
"""Decimals of an Excel number format."""
MOST_DIGITS = 15
"""Excel stores a number as a double: one with more digits is written as text."""
EXCEL_BEGINS = datetime(1900, 3, 1)  # noqa: DTZ001 - Excel's days have no zone; it counts a 29 February 1900
NEXT_SECOND_US = 999_500
"""Excel shows milliseconds: from so many microseconds on it rounds to the next second or day, or past 9999 to an error."""
MOST_SHOWN = 500
"""Characters of each cell that are stored with a rejected row."""
PART_SUFFIX = ".part"
"""Suffix of the hidden folder in which a file is written."""
WIDTH_ROWS = 200
"""Rows from which the width of a column is computed."""
_FORMULA = re.compile(r"^[=+\-@\t\r]")


class NumberText(str):
    """The exact digits of a number."""

    __slots__ = ()


class DoubleText(NumberText):
    """The shortest digits of a double, which a spreadsheet stores unchanged."""

    __slots__ = ()


class _ExactFloat(float):
    """A double that XlsxWriter writes with all 17 digits; it formats others with 16."""

    __slots__ = ()

    def __format__(self, _spec: str) -> str:
        return repr(float(self))


CellValue = None | bool | NumberText | date | datetime | time | str


class RowDecoder:
    """Converts the JSON of a message to the cells of a row.

    Args:
        columns: Of the result, in order.
        job: Its `types` override the form of a column.
    """

    def __init__(self, columns: Sequence[Column], job: Job) -> None:
        types: dict[str, str] = {name.lower(): form for name, form in job.types.items()}
        self.columns = tuple(columns)
        self.names = [column.name.lower() for column in columns]
        forms = [types.get(name, column.kind) for name, column in zip(self.names, columns, strict=True)]
        self._parsers = [(_parser(form), _number(form, job)) for form in forms]
        self._decode = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode

    def reject(self, row_number: int, place: int, reason: str, row: Sequence[CellValue]) -> Reject:
        """Returns the reject for a row that the format cannot store because of the cell at that place."""
        column = self.columns[place]
        texts = [None if cell is None else str(cell) for cell in row]
        cell_text = [text if text is None or len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}…" for text in texts]
        cells = dict(zip(self.names, cell_text, strict=True))
        return Reject(row_number, column.name, column.database_type, reason, row=cells)

    def of(self, data: bytes) -> list[CellValue]:
        """Returns the cells of one row; numbers keep every digit."""
        return [
            _decoded_cell(bytes(raw), *parse)
            for raw, parse in zip(self._decode(data).values(), self._parsers, strict=True)
        ]


def _decoded_cell(raw: bytes, parse: Callable[[str], CellValue], number: Callable[[str], NumberText]) -> CellValue:
    first = raw[:1]
    if first == b'"':
        return parse(msgspec.json.decode(raw, type=str))
    if first == b"n":
        return None
    if first in b"tf":
        return first == b"t"
    return raw.decode() if first in b"[{" else number(raw.decode())


def _parser(form: str) -> Callable[[str], CellValue]:
    if form in ("date", "oracle_date", "datetime"):
        return _moment
    return _time if form == "time" else str


def _number(form: str, job: Job) -> Callable[[str], NumberText]:
    if form == "unknown":  # SQLite: a whole number, or a double
        return lambda text: NumberText(text) if text.lstrip("-").isdigit() else DoubleText(text)
    return DoubleText if form == "float" or (form == "decimal" and job.decimals == "float") else NumberText


def _moment(text: str) -> CellValue:
    """A moment without a zone, or a date. A moment with a zone stays text: spreadsheets have no zones."""
    moment = date.fromisoformat(text) if len(text) == 10 else datetime.fromisoformat(text)
    return text if isinstance(moment, datetime) and moment.tzinfo else moment


def _time(text: str) -> CellValue:
    """A time of day. What Python's type cannot hold (24:00, nanoseconds) and a time with a zone stay text."""
    try:
        moment = time.fromisoformat(text)
    except ValueError:
        return text
    return text if moment.tzinfo or len(text) > len("HH:MM:SS.ffffff") else moment


class Sink(Protocol):
    """A file to which rows are written."""

    def write(self, row_numbers: Sequence[int], rows: Sequence[bytes]) -> list[Reject]:
        """Adds rows, given as JSON. Returns the rejects: rows that the format cannot store and that are not in the file."""
        ...


@contextmanager
def open_sink(file: Path, root: Path, columns: Sequence[Column], job: Job) -> Iterator[tuple[Sink, list[RunFile]]]:
    """Opens a file that gets its final name if the block ends without an error; otherwise nothing is left of it.

    Args:
        file: Its final name; an existing file is replaced.
        root: The workspace; `RunFile.path` is relative to it.
        columns: Of the result.
        job: Its format, dialect and types.

    Yields:
        The sink, and a list that contains the finished file after the block.

    Raises:
        StorageFailed: The disk is full, the folder may not be written, or another program has the file open.
    """
    finished: list[RunFile] = []
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        _remove_unfinished(file)
        aside = Path(tempfile.mkdtemp(dir=file.parent, prefix=f".{file.name}.", suffix=PART_SUFFIX))
    except OSError as error:
        raise _not_written(file, error) from None
    part = aside / file.name
    kind = _ExcelSink if job.export_format == "excel" else _CsvSink
    try:
        with _translated(file):
            sink = kind(part, RowDecoder(columns, job), job)
        try:
            yield sink, finished
            with _translated(file):
                sink.finish()
                finished.append(_run_file(part, file, root, sink.rows))
                replace_file(part, file)
        finally:
            sink.abandon()
    except BaseException:
        finished.clear()
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _remove_unfinished(file: Path) -> None:
    """Removes what a killed run left of the same file; only one run at a time writes it."""
    for left in file.parent.glob(f".{glob.escape(file.name)}.*{PART_SUFFIX}"):
        shutil.rmtree(left, ignore_errors=True)


def _run_file(part: Path, file: Path, root: Path, rows: int) -> RunFile:
    with part.open("rb+") as stream:
        os.fsync(stream.fileno())
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    return RunFile(file.relative_to(root).as_posix(), rows, part.stat().st_size, sha256)


@contextmanager
def _translated(file: Path) -> Iterator[None]:
    from xlsxwriter.exceptions import XlsxWriterException

    try:
        yield
    except OSError as error:
        raise _not_written(file, error) from None
    except XlsxWriterException as error:
        cause = error.__context__ if isinstance(error.__context__, OSError) else OSError(str(error))
        raise _not_written(file, cause) from None


def _not_written(file: Path, error: OSError) -> StorageFailed:
    held = isinstance(error, PermissionError)
    return StorageFailed(
        f"{file.name} cannot be written into {file.parent}",
        why=error.strerror or str(error),
        remedy="close it where it is open, or fix the folder's permissions; then run again"
        if held
        else "make room on that disk, then run again; nothing was left under the final name",
    )


_CRLF = "\r\n"
"""Before 3.11.9 and 3.12.3 Python quotes a cell only for line breaks that are part of its own line end."""


class _LineEndStream:
    """A stream that replaces the line end of each row; the cells stay quoted for the original one."""

    def __init__(self, stream: TextIO, line_end: str) -> None:
        self._stream = stream
        self._line_end = line_end

    def write(self, row: str) -> None:
        self._stream.write(row.removesuffix(_CRLF) + self._line_end)


class _CsvSink:
    def __init__(self, part: Path, cells: RowDecoder, job: Job) -> None:
        self.rows = 0
        head = [escape_formula(column.name) for column in cells.columns]
        for name in head:
            if not _is_encodable(name, job.csv.encoding):
                raise QueryFailed(
                    f"the name of column {name} has a character that {job.csv.encoding} has not",
                    remedy="give it another name in the query: … AS some_name; or write the file in utf-8",
                )
        self._cells, self._dialect = cells, job.csv
        is_utf8 = codecs.lookup(job.csv.encoding).name == "utf-8"  # it has many names
        self._stream = part.open("w", encoding="utf-8-sig" if job.csv.bom and is_utf8 else job.csv.encoding, newline="")
        self._writer = csv.writer(
            self._stream if job.csv.line_end == _CRLF else _LineEndStream(self._stream, job.csv.line_end),
            delimiter=job.csv.separator,
            quoting=csv.QUOTE_ALL if job.csv.quote_all else csv.QUOTE_MINIMAL,
            lineterminator=_CRLF,
        )
        self._writer.writerow(head)

    def write(self, row_numbers: Sequence[int], rows: Sequence[bytes]) -> list[Reject]:
        rejects = []
        for number, row in zip(row_numbers, rows, strict=True):
            cells = self._cells.of(row)
            texts = [_csv_text(cell, self._dialect) for cell in cells]
            try:
                self._writer.writerow(texts)
                self.rows += 1
            except UnicodeEncodeError:
                encoding = self._dialect.encoding
                place = next(i for i, text in enumerate(texts) if not _is_encodable(text, encoding))
                reason = f"the text has a character that {encoding} has not"
                rejects.append(self._cells.reject(number, place, reason, cells))
        return rejects

    def finish(self) -> None:
        self._stream.close()

    def abandon(self) -> None:
        with suppress(OSError):  # the disk is full: the buffer cannot be flushed
            self._stream.close()


def _is_encodable(text: str, encoding: str) -> bool:
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def _csv_text(cell: CellValue, dialect: CsvDialect) -> str:
    if cell is None:
        return ""
    if isinstance(cell, NumberText):
        return cell.replace(".", dialect.decimal)
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, datetime):
        return _formatted(cell, dialect.datetime_format) or cell.isoformat(" ", "microseconds")
    if isinstance(cell, date):
        return _formatted(cell, dialect.date_format) or cell.isoformat()
    if isinstance(cell, time):
        return cell.isoformat()
    return escape_formula(cell)


def cell_text(cell: CellValue, job: Job) -> str:
    """Returns the text of a cell: as in the CSV, or as Excel would show it."""
    dialect = job.csv if job.export_format == "csv" else CsvDialect(decimal=".")
    return str(cell) if type(cell) is str and job.export_format == "excel" else _csv_text(cell, dialect)


def _formatted(moment: date, form: str) -> str:
    # Some C libraries write the year 999 with three digits.
    return moment.strftime(form.replace("%Y", f"{moment.year:04}")) if form else ""


def escape_formula(text: str) -> str:
    """Prefixes a text that a spreadsheet would execute as a formula with `'`."""
    return f"'{text}" if _FORMULA.match(text) else text


def escape_text(text: str | None) -> str | None:
    """Does the same to a value whose type is not known: a negative number stays a number."""
    is_number = text is not None and text[:1] == "-" and text[1:].replace(".", "", 1).isdigit()
    return text if text is None or is_number else escape_formula(text)


class _ExcelSink:
    def __init__(self, part: Path, cells: RowDecoder, job: Job) -> None:
        from xlsxwriter import Workbook

        if len(cells.columns) > MOST_COLUMNS:
            raise QueryFailed(
                f"the result has {len(cells.columns):,} columns",
                why=f"a sheet of Excel has {MOST_COLUMNS:,}",
                remedy='name the columns that are needed in the query, or set "export_format": "csv"',
            )
        self.rows = 0
        self._cells = cells
        # Its temporary files go beside the file and not into the system's folder, which may be small.
        options = {"constant_memory": True, "tmpdir": str(part.parent), "use_zip64": True}
        self._book: Workbook = Workbook(str(part), options)
        self._open = True
        self._head = self._book.add_format({"bold": True, "bg_color": "#DDE6F0", "bottom": 1})
        self._date = self._book.add_format({"num_format": "yyyy-mm-dd"})
        self._datetime = self._book.add_format({"num_format": "yyyy-mm-dd hh:mm:ss.000"})
        self._time = self._book.add_format({"num_format": "hh:mm:ss"})
        self._fraction = self._book.add_format({"num_format": "hh:mm:ss.000"})
        self._text = self._book.add_format({"num_format": "@"})
        self._scales: dict[int, Format] = {}
        self._widths = [len(column.name) + 3 for column in cells.columns]
        self._sheet: Worksheet = self._add_sheet()

    def write(self, row_numbers: Sequence[int], rows: Sequence[bytes]) -> list[Reject]:
        rejects = []
        for number, row in zip(row_numbers, rows, strict=True):
            cells = self._cells.of(row)
            long = next((i for i, cell in enumerate(cells) if _is_too_long(cell)), None)
            if long is not None:
                reason = f"the text is longer than the {MOST_CHARACTERS:,} characters of a cell of Excel"
                rejects.append(self._cells.reject(number, long, reason, cells))
                continue
            if self._next_row == MOST_ROWS:
                self._close_sheet()
                self._sheet = self._add_sheet()
            for place, cell in enumerate(cells):
                self._put(place, cell)
            if self.rows < WIDTH_ROWS:
                self._widen(cells)
            self._next_row += 1
            self.rows += 1
        return rejects

    def finish(self) -> None:
        self._close_sheet()
        self._book.close()
        self._open = False

    def abandon(self) -> None:
        if self._open:
            self._open = False
            for sheet in self._book.worksheets():
                with suppress(OSError):  # closing lets Windows delete its temporary file
                    sheet._opt_close()

    def _put(self, place: int, cell: CellValue) -> None:
        sheet, row = self._sheet, self._next_row
        if cell is None:
            return
        if isinstance(cell, NumberText):
            if isinstance(cell, DoubleText) or (_is_exact(cell) and "e" in cell.lower()):  # JSON has 1E5
                sheet.write_number(row, place, _ExactFloat(cell))
            elif _is_exact(cell):
                number = _ExactFloat(cell) if "." in cell else int(cell)
                sheet.write_number(row, place, number, self._scale(cell))
            else:
                sheet.write_string(row, place, cell, self._text)
        elif isinstance(cell, bool):
            sheet.write_boolean(row, place, cell)
        elif isinstance(cell, time | datetime) and cell.microsecond >= NEXT_SECOND_US:
            sheet.write_string(row, place, cell.isoformat(), self._text)
        elif isinstance(cell, time):
            sheet.write_datetime(row, place, cell, self._fraction if cell.microsecond else self._time)
        elif isinstance(cell, date):
            self._put_date(place, cell)
        else:
            sheet.write_string(row, place, cell, self._text)

    def _scale(self, digits: str) -> Format:
        """The format with as many decimals as the database returned; a long integer is not shown as 5.7E+11."""
        scale = len(digits.partition(".")[2])
        if scale not in self._scales:
            zeros = f"0.{'0' * scale}" if scale else "0"
            self._scales[scale] = self._book.add_format({"num_format": zeros if scale <= MOST_DECIMALS else "General"})
        return self._scales[scale]

    def _put_date(self, place: int, cell: date) -> None:
        """A date that Excel cannot represent is text."""
        is_moment = isinstance(cell, datetime)
        moment = cell if isinstance(cell, datetime) else datetime(cell.year, cell.month, cell.day)  # noqa: DTZ001
        if moment < EXCEL_BEGINS:
            self._sheet.write_string(self._next_row, place, cell.isoformat(), self._text)
        else:
            self._sheet.write_datetime(self._next_row, place, moment, self._datetime if is_moment else self._date)

    def _widen(self, cells: Sequence[CellValue]) -> None:
        for i, cell in enumerate(cells):
            length = 23 if isinstance(cell, datetime) else len(str(cell))
            self._widths[i] = min(max(self._widths[i], length + 1), 60)

    def _add_sheet(self) -> Worksheet:
        count = len(self._book.worksheets())
        sheet: Worksheet = self._book.add_worksheet("Data" if not count else f"Data {count + 1}")
        sheet.freeze_panes(1, 0)
        for place, column in enumerate(self._cells.columns):
            sheet.write_string(0, place, column.name, self._head)
        self._next_row = 1
        return sheet

    def _close_sheet(self) -> None:
        last = len(self._cells.columns) - 1
        self._sheet.autofilter(0, 0, max(self._next_row - 1, 0), last)
        for place, width in enumerate(self._widths):
            self._sheet.set_column(place, place, width)


def _is_too_long(cell: CellValue) -> bool:
    # Excel counts UTF-16 code units.
    return (
        isinstance(cell, str)
        and len(cell) > MOST_CHARACTERS // 2
        and len(cell.encode("utf-16-le")) // 2 > MOST_CHARACTERS
    )


def _is_exact(digits: str) -> bool:
    """Whether a double preserves every digit."""
    mantissa = re.split("[eE]", digits)[0]
    return len(mantissa.replace("-", "").replace(".", "").lstrip("0")) <= MOST_DIGITS and math.isfinite(float(digits))
