"""Reads an existing Excel or CSV file row by row; finds its header and recognises its dialect."""

from __future__ import annotations

import codecs
import csv
import re
import warnings
import zipfile
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal

from core.errors import ConfigError

__all__ = ["FileOptions", "Table", "column_name", "open_table"]

HEADER_ROWS = 20
"""The header is searched in so many rows: titles and empty lines may precede it."""
EXCEL = (".xlsx", ".xlsm")
CSV = (".csv", ".txt", ".tsv")
SEPARATORS = (";", ",", "\t", "|")
FALLBACK_ENCODING = "cp1252"
"""The encoding of Excel on a western Windows, assumed if the bytes are not UTF-8."""
MOST_CHARACTERS = 100_000_000
"""Longest cell of a CSV."""
MOST_BYTES_AT_ONCE = 200_000_000
"""A workbook of so many unpacked bytes (about 300,000 rows of 16 columns) needs some 400 MB if it is read at once."""
_BOMS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_ESCAPE = re.compile(r"_x((?![dD][89A-Fa-f])[0-9A-Fa-f]{4})_")


@dataclass(frozen=True, slots=True)
class FileOptions:
    """Options given by the user; None: recognised in the file."""

    separator: str | None = None
    encoding: str | None = None
    decimal: str | None = None
    """The decimal separator of a CSV."""
    sheet: str | None = None
    """Excel: the name of a sheet; None: the first one, and later ones with the same header."""


@dataclass(frozen=True, slots=True)
class Table:
    """The rows below the header."""

    kind: Literal["excel", "csv"]
    names: tuple[str, ...]
    """As `column_name` returns them; empty for a column without a header."""
    dialect: str
    """How it was read, for reports: `separator ; · utf-8-sig`."""
    rows: Iterator[Sequence[Any]]
    """Cells of each row: text in CSV; numbers, dates and text in Excel. Empty rows are omitted."""


def column_name(text: object) -> str:
    """Normalises a header: lower-case, with one `_` between its words. A header without a letter or digit stays as it is."""
    lower = str(text if text is not None else "").strip().lower()
    return re.sub(r"\W+", "_", lower).strip("_") or lower


@contextmanager
def open_table(file: Path, options: FileOptions, wanted: Collection[str]) -> Iterator[Table]:
    """Opens a file for reading once; uses at most some 400 MB, however many rows it has.

    Args:
        file: Its suffix decides between Excel and CSV.
        options: Overrides of what is recognised in the file.
        wanted: Column names (lower-case); the header is the row that contains most of them.

    Raises:
        ConfigError: The file does not exist, has another format, or no row contains a wanted name.
    """
    if not file.is_file():
        raise ConfigError(f"there is no file {file}", remedy="give the path of an .xlsx or .csv file")
    if file.suffix.lower() not in (*EXCEL, *CSV):
        raise ConfigError(f"{file.name} is neither .xlsx nor .csv", remedy="save it as one of them")
    names = {column_name(name) for name in wanted}
    opened = _excel if file.suffix.lower() in EXCEL else _csv
    try:
        with opened(file, options, names) as table:
            yield table
    except OSError as error:
        raise ConfigError(
            f"{file.name} cannot be read",
            why=error.strerror or str(error),
            remedy="close it where it is open, or copy it to this machine",
        ) from None


@contextmanager
def _excel(file: Path, options: FileOptions, wanted: Collection[str]) -> Iterator[Table]:
    opened = _read_at_once if _unpacked_bytes(file) <= MOST_BYTES_AT_ONCE else _read_streamed
    with opened(file) as sheets:
        chosen = _chosen_sheets(file, sheets, options)
        names, rows = _below_header(file, chosen[0].rows(), wanted)
        more = (_continued(sheet, names) for sheet in chosen[1:])
        yield Table("excel", names, f'sheet "{chosen[0].name}"', chain(rows, chain.from_iterable(more)))


@dataclass(frozen=True, slots=True)
class _Sheet:
    name: str
    rows: Callable[[], Iterator[Sequence[Any]]]


def _unpacked_bytes(file: Path) -> int:
    """A lower bound of the memory that the sheets need, from the directory of the archive."""
    try:
        with zipfile.ZipFile(file) as archive:
            return sum(entry.file_size for entry in archive.infolist())
    except zipfile.BadZipFile as error:
        raise _not_a_workbook(file, error) from None


@contextmanager
def _read_at_once(file: Path) -> Iterator[list[_Sheet]]:
    """Reads with calamine: ten times as fast, a whole sheet in memory."""
    from python_calamine import CalamineError, CalamineWorkbook

    def rows_of(name: str) -> Iterator[Sequence[Any]]:
        return _without_empty_rows(book.get_sheet_by_name(name).iter_rows())

    try:
        book = CalamineWorkbook.from_path(str(file))
        yield [_Sheet(name, partial(rows_of, name)) for name in book.sheet_names]
    except CalamineError as error:
        raise _not_a_workbook(file, error) from None


@contextmanager
def _read_streamed(file: Path) -> Iterator[list[_Sheet]]:
    """Reads with openpyxl: row by row, with constant memory."""
    from openpyxl import load_workbook

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # openpyxl warns of styles and extensions that it ignores
        try:
            book = load_workbook(file, read_only=True, data_only=True, keep_links=False)
            try:
                yield [_Sheet(sheet.title, partial(_all_rows, sheet)) for sheet in book.worksheets]
            finally:
                book.close()
        except (zipfile.BadZipFile, SyntaxError, EOFError, KeyError) as error:  # ParseError is a SyntaxError
            raise _not_a_workbook(file, error) from None


def _all_rows(sheet: Any) -> Iterator[Sequence[Any]]:
    # Some programs store a wrong size of the sheet, which would truncate it.
    sheet.reset_dimensions()
    return _without_empty_rows(map(_unescaped, sheet.iter_rows(values_only=True)))


def _not_a_workbook(file: Path, error: Exception) -> ConfigError:
    return ConfigError(
        f"{file.name} cannot be read as an Excel file", why=str(error), remedy="open it and save it as .xlsx"
    )


def _chosen_sheets(file: Path, sheets: list[_Sheet], options: FileOptions) -> list[_Sheet]:
    if options.sheet is None and sheets:
        return sheets
    found = [sheet for sheet in sheets if sheet.name.lower() == (options.sheet or "").lower()]
    if not found:
        there = ", ".join(sheet.name for sheet in sheets)
        raise ConfigError(f'{file.name} has no sheet "{options.sheet or ""}"', remedy=f"it has: {there}")
    return found


def _without_empty_rows(rows: Iterable[Sequence[Any]]) -> Iterator[Sequence[Any]]:
    for row in rows:
        if any(cell not in (None, "") for cell in row):
            yield row


def _unescaped(row: Sequence[Any]) -> Sequence[Any]:
    """Decodes control characters, which Excel writes as `_x000D_`; calamine does so itself, openpyxl does not."""
    return [
        _ESCAPE.sub(lambda found: chr(int(found[1], 16)), cell) if isinstance(cell, str) and "_x" in cell else cell
        for cell in row
    ]


def _continued(sheet: _Sheet, names: tuple[str, ...]) -> Iterator[Sequence[Any]]:
    """The rows of a further sheet if it has the header of the first one: the result did not fit on one sheet."""
    rows = sheet.rows()
    for header in islice(rows, 1):
        if tuple(map(column_name, header)) == names:
            yield from rows


@contextmanager
def _csv(file: Path, options: FileOptions, wanted: Collection[str]) -> Iterator[Table]:
    encoding = options.encoding or _encoding(file)
    try:
        with file.open(encoding=encoding, newline="") as stream:
            head = stream.read(256 * 1024)
        separator = options.separator or _separator(head, wanted)
        csv.field_size_limit(MOST_CHARACTERS)
        with file.open(encoding=encoding, newline="") as stream:
            names, rows = _below_header(file, _lines(csv.reader(stream, delimiter=separator)), wanted)
            shown = {"\t": "tab"}.get(separator, separator)
            yield Table("csv", names, f"separator {shown} · {encoding}", rows)
    except (UnicodeError, LookupError) as error:
        raise ConfigError(
            f"{file.name} is not in {encoding}", why=str(error), remedy="give its encoding: --encoding cp1252"
        ) from None
    except (csv.Error, TypeError) as error:
        raise ConfigError(f"{file.name} is no CSV file", why=str(error), remedy="give its separator") from None


def _lines(reader: Iterable[list[str]]) -> Iterator[Sequence[str]]:
    yield from filter(any, reader)


def _encoding(file: Path) -> str:
    """UTF-8 or UTF-16 by the byte order mark; UTF-8 if the whole file is valid UTF-8; else the encoding of Excel."""
    with file.open("rb") as stream:
        start = stream.read(4)
        for bom, name in _BOMS:
            if start.startswith(bom):
                return name
        stream.seek(0)
        decoder = codecs.getincrementaldecoder("utf-8")()
        try:
            while block := stream.read(1 << 20):
                decoder.decode(block)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return FALLBACK_ENCODING
    return "utf-8"


def _separator(head: str, wanted: Collection[str]) -> str:
    """The separator with which one of the first rows contains most wanted names; of equal ones, that with most cells."""

    def found(separator: str) -> tuple[int, int]:
        lines = _lines(csv.reader(head.splitlines(keepends=True), delimiter=separator))
        rows = list(islice(lines, HEADER_ROWS))
        return max((_matches(row, wanted) for row in rows), default=0), len(rows[0]) if rows else 0

    return max(SEPARATORS, key=found)


def _matches(row: Sequence[Any], wanted: Collection[str]) -> int:
    return len({column_name(cell) for cell in row} & set(wanted))


def _below_header(
    file: Path, rows: Iterator[Sequence[Any]], wanted: Collection[str]
) -> tuple[tuple[str, ...], Iterator[Sequence[Any]]]:
    first = list(islice(rows, HEADER_ROWS))
    if not first:
        raise ConfigError(f"{file.name} is empty", remedy="give a file with a header row")
    place = max(range(len(first)), key=lambda i: _matches(first[i], wanted))
    names = tuple(map(column_name, first[place]))
    if not set(names) & set(wanted):
        raise ConfigError(
            f"no row of {file.name} names a column of the job",
            why=f"it begins {', '.join(names[:8])}; the job has {', '.join(sorted(wanted)[:8])}",
            remedy="give the file of this job, or its separator with --separator",
        )
    repeated = sorted({name for name in names if name and names.count(name) > 1 and name in wanted})
    if repeated:
        raise ConfigError(f"{file.name} has column {repeated[0]} twice", remedy="rename or delete one of them")
    return names, chain(first[place + 1 :], rows)
