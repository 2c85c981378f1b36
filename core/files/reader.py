"""An Excel or CSV file that was made earlier, row by row: its header found, its dialect told from the file itself."""

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
"""A header is looked for in so many rows: titles and empty lines may stand above it."""
EXCEL = (".xlsx", ".xlsm")
CSV = (".csv", ".txt", ".tsv")
SEPARATORS = (";", ",", "\t", "|")
FALLBACK_ENCODING = "cp1252"
"""What Excel on a western Windows saves; it is taken where the bytes are no UTF-8."""
MOST_CHARACTERS = 100_000_000
"""Of one cell of a CSV."""
AT_ONCE_BYTES = 200_000_000
"""A workbook of so many unpacked bytes (about 300,000 rows of 16 columns) takes some 400 MB when it is read at once."""
_BOMS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_ESCAPE = re.compile(r"_x((?![dD][89A-Fa-f])[0-9A-Fa-f]{4})_")


@dataclass(frozen=True, slots=True)
class FileOptions:
    """What a person knows better than the file tells; None: it is told from the file."""

    separator: str | None = None
    encoding: str | None = None
    decimal: str | None = None
    """The sign before the fraction in a CSV."""
    sheet: str | None = None
    """Excel: a sheet's name; None: the first, and those after it that have the same header."""


@dataclass(frozen=True, slots=True)
class Table:
    """The rows below the header."""

    kind: Literal["excel", "csv"]
    names: tuple[str, ...]
    """As `column_name` makes them; empty where the header has none."""
    dialect: str
    """How it was read, for people: `separator ; · utf-8-sig`."""
    rows: Iterator[Sequence[Any]]
    """The cells: text in CSV; numbers, dates and text in Excel. Empty rows are left out."""


def column_name(text: object) -> str:
    """A header as it is compared: lower-case, one `_` for whatever stands between its words; one of signs alone as it is."""
    lower = str(text if text is not None else "").strip().lower()
    return re.sub(r"\W+", "_", lower).strip("_") or lower


@contextmanager
def open_table(file: Path, options: FileOptions, wanted: Collection[str]) -> Iterator[Table]:
    """Opens a file for one reading; memory does not grow with its rows beyond some 400 MB.

    Args:
        file: Its ending tells what it is.
        options: What is not told from the file.
        wanted: Column names (lower-case); the header is the row that has most of them.

    Raises:
        ConfigError: There is no such file, it is no such file, or no row has a wanted name.
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
    opened = _at_once if _unpacked_bytes(file) <= AT_ONCE_BYTES else _streamed
    with opened(file) as sheets:
        chosen = _chosen(file, sheets, options)
        names, rows = _below_header(file, chosen[0].rows(), wanted)
        more = (_continued(sheet, names) for sheet in chosen[1:])
        yield Table("excel", names, f'sheet "{chosen[0].name}"', chain(rows, chain.from_iterable(more)))


@dataclass(frozen=True, slots=True)
class _Sheet:
    name: str
    rows: Callable[[], Iterator[Sequence[Any]]]


def _unpacked_bytes(file: Path) -> int:
    """What the sheets take in memory at least, from the directory of the archive."""
    try:
        with zipfile.ZipFile(file) as archive:
            return sum(entry.file_size for entry in archive.infolist())
    except zipfile.BadZipFile as error:
        raise _no_workbook(file, error) from None


@contextmanager
def _at_once(file: Path) -> Iterator[list[_Sheet]]:
    """With calamine: ten times quicker, a whole sheet in memory."""
    from python_calamine import CalamineError, CalamineWorkbook

    def rows_of(name: str) -> Iterator[Sequence[Any]]:
        return _filled(book.get_sheet_by_name(name).iter_rows())

    try:
        book = CalamineWorkbook.from_path(str(file))
        yield [_Sheet(name, partial(rows_of, name)) for name in book.sheet_names]
    except CalamineError as error:
        raise _no_workbook(file, error) from None


@contextmanager
def _streamed(file: Path) -> Iterator[list[_Sheet]]:
    """With openpyxl: row by row, in memory that does not grow."""
    from openpyxl import load_workbook

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # openpyxl tells of styles and extensions that it leaves out
        try:
            book = load_workbook(file, read_only=True, data_only=True, keep_links=False)
            try:
                yield [_Sheet(sheet.title, partial(_all_rows, sheet)) for sheet in book.worksheets]
            finally:
                book.close()
        except (zipfile.BadZipFile, SyntaxError, EOFError, KeyError) as error:  # ParseError is a SyntaxError
            raise _no_workbook(file, error) from None


def _all_rows(sheet: Any) -> Iterator[Sequence[Any]]:
    # Some programs write a wrong size of the sheet, which would cut it off.
    sheet.reset_dimensions()
    return _filled(map(_unescaped, sheet.iter_rows(values_only=True)))


def _no_workbook(file: Path, error: Exception) -> ConfigError:
    return ConfigError(
        f"{file.name} cannot be read as an Excel file", why=str(error), remedy="open it and save it as .xlsx"
    )


def _chosen(file: Path, sheets: list[_Sheet], options: FileOptions) -> list[_Sheet]:
    if options.sheet is None and sheets:
        return sheets
    found = [sheet for sheet in sheets if sheet.name.lower() == (options.sheet or "").lower()]
    if not found:
        there = ", ".join(sheet.name for sheet in sheets)
        raise ConfigError(f'{file.name} has no sheet "{options.sheet or ""}"', remedy=f"it has: {there}")
    return found


def _filled(rows: Iterable[Sequence[Any]]) -> Iterator[Sequence[Any]]:
    for row in rows:
        if any(cell not in (None, "") for cell in row):
            yield row


def _unescaped(row: Sequence[Any]) -> Sequence[Any]:
    """Excel writes a control character as `_x000D_`, which calamine knows and openpyxl does not."""
    return [
        _ESCAPE.sub(lambda found: chr(int(found[1], 16)), cell) if isinstance(cell, str) and "_x" in cell else cell
        for cell in row
    ]


def _continued(sheet: _Sheet, names: tuple[str, ...]) -> Iterator[Sequence[Any]]:
    """The rows of a further sheet, where it has the header of the first: a result that did not fit on one."""
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
    """UTF-8 or UTF-16 by its mark, UTF-8 where every byte of the file is, else what Excel saves."""
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
    """The one with which a row of the beginning has most of the wanted names; then the one with most cells."""

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
