"""Rows → xlsx and csv: typed cells, nothing that a spreadsheet would run, no half file under the final name.

A row comes as the JSON that a message of it would hold, so that a file and a topic reject the same rows for the same
reasons and `core.parity` compares like with like. Memory stays flat: XlsxWriter's constant-memory mode, csv row by row.
"""

from __future__ import annotations

import csv
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import date, datetime, time
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import msgspec

from core.envelope import Reject
from core.errors import ConfigError, StorageFailed
from core.model import Column, CsvDialect, Job, RunFile
from core.templates import resolve
from core.workspace import replace_file

if TYPE_CHECKING:
    from xlsxwriter import Workbook
    from xlsxwriter.worksheet import Worksheet

__all__ = ["Cells", "Digits", "Sink", "inert", "open_sink", "output_name"]

MOST_ROWS = 1_048_576
"""Of one sheet of Excel, its header included."""
MOST_CHARACTERS = 32_767
"""Of one cell of Excel; XlsxWriter would leave a longer text out."""
MOST_DIGITS = 15
"""Excel holds a number as a double: what has more digits is written as text, whole."""
EXCEL_BEGINS = datetime(1900, 3, 1)  # noqa: DTZ001 - Excel's days have no zone; it believes in a 29 February 1900
WIDTH_ROWS = 200
"""Rows that decide how wide a column is."""
SUFFIXES: Mapping[str, tuple[str, ...]] = {"excel": (".xlsx",), "csv": (".csv", ".txt")}
_FORMULA = re.compile(r"^[=+\-@\t\r]")
_FORBIDDEN = re.compile(r'[<>:"/\\|?*\x00-\x1f]')
_RESERVED = re.compile(r"(?i)^(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(\..*)?$")


class Digits(str):
    """A number as its exact digits."""

    __slots__ = ()


Cell = None | bool | Digits | date | datetime | time | str


# ── from JSON to cells ────────────────────────────────────────────────────────────────────────


class Cells:
    """What stands in the cells of a row, from the JSON of its message.

    Args:
        columns: Of the result, in order.
        job: Its `types` decide a column's form.
    """

    def __init__(self, columns: Sequence[Column], job: Job) -> None:
        types = {name.lower(): form for name, form in job.types.items()}
        self.columns = tuple(columns)
        self.names = [column.name.lower() for column in columns]
        self._parsers = [
            _parser(types.get(name, column.kind)) for name, column in zip(self.names, columns, strict=True)
        ]
        self._decode = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode

    def of(self, data: bytes) -> list[Cell]:
        """The cells of one row; numbers keep every digit."""
        return [_cell(bytes(raw), parse) for raw, parse in zip(self._decode(data).values(), self._parsers, strict=True)]


def _cell(raw: bytes, parse: Callable[[str], Cell]) -> Cell:
    first = raw[:1]
    if first == b'"':
        return parse(msgspec.json.decode(raw, type=str))
    if first == b"n":
        return None
    if first in b"tf":
        return first == b"t"
    return raw.decode() if first in b"[{" else Digits(raw.decode())


def _parser(form: str) -> Callable[[str], Cell]:
    if form == "date":
        return date.fromisoformat
    if form in ("oracle_date", "datetime"):
        return _moment
    return _time if form == "time" else str


def _moment(text: str) -> Cell:
    """A moment without a zone, or a date alone; a year that Python does not have stays text."""
    return date.fromisoformat(text) if len(text) == 10 else datetime.fromisoformat(text)


def _time(text: str) -> Cell:
    moment = time.fromisoformat(text)
    return text if moment.tzinfo else moment


# ── names ─────────────────────────────────────────────────────────────────────────────────────


def output_name(job: Job, values: Mapping[str, str], scheduled_at: datetime) -> str:
    """The file's name below `exports/`, templates replaced.

    `{query}`, `{connection}`, `{job}` and each parameter stand for their text beside the templates of `core.templates`;
    what no file name may hold becomes `_`.

    Raises:
        ConfigError: An unknown template, or a name that is no file of that format.
    """
    suffixes = SUFFIXES[job.export_format]
    template = job.output or f"{{query}}_{{connection}}_{{date:%Y%m%d}}{suffixes[0]}"
    names = {name.lower(): _safe(value) for name, value in values.items()}
    names |= {"query": _safe(Path(job.query).stem), "connection": _safe(job.connection), "job": _safe(job.slug)}
    own = {name: text for name, text in names.items() if name not in ("date", "month_start", "now")}
    name = resolve(template, scheduled_at, job.timezone, own).replace("\\", "/")
    if not name.lower().endswith(suffixes):
        raise ConfigError(
            f'output "{job.output}" of job "{job.name}" is no {job.export_format} file',
            remedy=f"end it in {' or '.join(suffixes)}",
            key="output",
        )
    for part in name.split("/"):
        if part in (".", ".."):
            continue  # where it leads is looked at by `Workspace.inside`
        if _RESERVED.match(part) or part != part.rstrip(" .") or _FORBIDDEN.search(part):
            raise ConfigError(
                f'output "{name}" of job "{job.name}" cannot be a file on Windows',
                why=f"{part!r} has a character, an end or a name that is not allowed there",
                remedy="choose another name",
                key="output",
            )
    return name


def _safe(text: str) -> str:
    return _FORBIDDEN.sub("_", text).strip(" .") or "_"


# ── writing ───────────────────────────────────────────────────────────────────────────────────


class Sink(Protocol):
    """A file that rows are written into."""

    def write(self, row_numbers: Sequence[int], rows: Sequence[bytes]) -> list[Reject]:
        """Adds rows, as JSON; those that the format cannot hold come back and are not in the file."""
        ...


@contextmanager
def open_sink(file: Path, root: Path, columns: Sequence[Column], job: Job) -> Iterator[tuple[Sink, list[RunFile]]]:
    """A file that gets its final name when the block ends without an error, and else leaves nothing.

    Args:
        file: Its final name; replaced where it is there.
        root: The workspace, below which the path is told.
        columns: Of the result.
        job: Decides format, dialect and forms.

    Yields:
        The sink, and a list that holds the finished file after the block.

    Raises:
        StorageFailed: The disk is full, the folder may not be written, or another program has the file open.
    """
    finished: list[RunFile] = []
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(dir=file.parent, prefix=f".{file.name}.", suffix=".part"))
    except OSError as error:
        raise _not_written(file, error) from None
    part = aside / file.name
    kind = _ExcelSink if job.export_format == "excel" else _CsvSink
    try:
        with _translated(file):
            sink = kind(part, Cells(columns, job), job)
        try:
            yield sink, finished
            with _translated(file):
                sink.finish()
                finished.append(_described(part, file, root, sink.rows))
                replace_file(part, file)
        finally:
            sink.abandon()
    except BaseException:
        finished.clear()
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _described(part: Path, file: Path, root: Path, rows: int) -> RunFile:
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
        remedy="close it where it is open, or mend the folder's permissions; then run again"
        if held
        else "make room on that disk, then run again; nothing was left under the final name",
    )


class _CsvSink:
    def __init__(self, part: Path, cells: Cells, job: Job) -> None:
        self.rows = 0
        self._cells, self._dialect = cells, job.csv
        encoding = "utf-8-sig" if job.csv.bom and job.csv.encoding == "utf-8" else job.csv.encoding
        self._stream = part.open("w", encoding=encoding, newline="")
        self._writer = csv.writer(
            self._stream,
            delimiter=job.csv.separator,
            quoting=csv.QUOTE_ALL if job.csv.quote_all else csv.QUOTE_MINIMAL,
            lineterminator=job.csv.line_end,
        )
        self._writer.writerow([inert(column.name) for column in cells.columns])

    def write(self, row_numbers: Sequence[int], rows: Sequence[bytes]) -> list[Reject]:
        rejects = []
        for number, row in zip(row_numbers, rows, strict=True):
            texts = [_csv_text(cell, self._dialect) for cell in self._cells.of(row)]
            try:
                self._writer.writerow(texts)
                self.rows += 1
            except UnicodeEncodeError:
                rejects.append(self._unencodable(number, texts))
        return rejects

    def finish(self) -> None:
        self._stream.close()

    def abandon(self) -> None:
        with suppress(OSError):  # a full disk: what the buffer still holds has no place to go
            self._stream.close()

    def _unencodable(self, number: int, texts: list[str]) -> Reject:
        encoding = self._dialect.encoding
        column = next(c for c, text in zip(self._cells.columns, texts, strict=True) if not _fits(text, encoding))
        return Reject(number, column.name, column.database_type, f"the text has a character that {encoding} has not")


def _fits(text: str, encoding: str) -> bool:
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def _csv_text(cell: Cell, dialect: CsvDialect) -> str:
    if cell is None:
        return ""
    if isinstance(cell, Digits):
        return cell.replace(".", dialect.decimal)
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, datetime):
        return (
            cell.strftime(dialect.datetime_format) if dialect.datetime_format else cell.isoformat(" ", "microseconds")
        )
    if isinstance(cell, date):
        return cell.strftime(dialect.date_format) if dialect.date_format else cell.isoformat()
    if isinstance(cell, time):
        return cell.isoformat()
    return inert(cell)


def inert(text: str) -> str:
    """Text that no spreadsheet takes for a formula."""
    return f"'{text}" if _FORMULA.match(text) else text


class _ExcelSink:
    def __init__(self, part: Path, cells: Cells, job: Job) -> None:
        from xlsxwriter import Workbook

        self.rows = 0
        self._cells = cells
        # What it keeps aside goes beside the file and not into the system's folder, which may be small.
        options = {"constant_memory": True, "tmpdir": str(part.parent), "strings_to_formulas": False}
        self._book: Workbook = Workbook(str(part), options)
        self._open = True
        self._head = self._book.add_format({"bold": True, "bg_color": "#DDE6F0", "bottom": 1})
        self._date = self._book.add_format({"num_format": "yyyy-mm-dd"})
        self._datetime = self._book.add_format({"num_format": "yyyy-mm-dd hh:mm:ss.000"})
        self._time = self._book.add_format({"num_format": "hh:mm:ss"})
        self._text = self._book.add_format({"num_format": "@"})
        self._widths = [len(column.name) + 3 for column in cells.columns]
        self._sheet: Worksheet = self._add_sheet()

    def write(self, row_numbers: Sequence[int], rows: Sequence[bytes]) -> list[Reject]:
        rejects = []
        for number, row in zip(row_numbers, rows, strict=True):
            cells = self._cells.of(row)
            long = next((i for i, cell in enumerate(cells) if _is_too_long(cell)), None)
            if long is not None:
                column = self._cells.columns[long]
                reason = f"the text is longer than the {MOST_CHARACTERS:,} characters of a cell of Excel"
                rejects.append(Reject(number, column.name, column.database_type, reason))
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
        self._open = False
        self._book.close()

    def abandon(self) -> None:
        if self._open:
            self._open = False
            with suppress(OSError):  # only its temporary files matter now
                for sheet in self._book.worksheets():
                    sheet._opt_close()
                    sheet.row_data_fh.close()

    def _put(self, place: int, cell: Cell) -> None:
        sheet, row = self._sheet, self._next_row
        if cell is None:
            return
        if isinstance(cell, Digits):
            if _is_exact(cell):
                sheet.write_number(row, place, float(cell))
            else:
                sheet.write_string(row, place, cell, self._text)
        elif isinstance(cell, bool):
            sheet.write_boolean(row, place, cell)
        elif isinstance(cell, time):
            sheet.write_datetime(row, place, cell, self._time)
        elif isinstance(cell, date):
            self._put_date(place, cell)
        else:
            sheet.write_string(row, place, cell, self._text)

    def _put_date(self, place: int, cell: date) -> None:
        """A date before Excel's own beginning is text."""
        is_moment = isinstance(cell, datetime)
        moment = cell if isinstance(cell, datetime) else datetime(cell.year, cell.month, cell.day)  # noqa: DTZ001
        if moment < EXCEL_BEGINS:
            self._sheet.write_string(self._next_row, place, cell.isoformat(), self._text)
        else:
            self._sheet.write_datetime(self._next_row, place, moment, self._datetime if is_moment else self._date)

    def _widen(self, cells: Sequence[Cell]) -> None:
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


def _is_too_long(cell: Cell) -> bool:
    # Excel counts UTF-16 units.
    return (
        isinstance(cell, str)
        and len(cell) > MOST_CHARACTERS // 2
        and len(cell.encode("utf-16-le")) // 2 > MOST_CHARACTERS
    )


def _is_exact(digits: str) -> bool:
    """Whether a double keeps every digit."""
    mantissa = re.split("[eE]", digits)[0]
    return len(mantissa.replace("-", "").replace(".", "").lstrip("0")) <= MOST_DIGITS
