"""What a job would send, against a file made earlier: how a team convinces itself to move from files to Kafka.

A spreadsheet keeps less than a message: dates become serial numbers, 848 and "848" look alike, leading zeros go. So a
cell is compared as what it says: equal text, or equal number, or equal moment. Zeros that the file has lost are called
out as that. Rows are told apart by the key; both sides wait in a SQLite file, so that memory stays flat.
"""

from __future__ import annotations

import codecs
import csv
import re
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from itertools import islice
from pathlib import Path
from typing import Any

from core.envelope import Envelope
from core.errors import ConfigError, StorageFailed
from core.files import Cell, Cells, Digits
from core.model import Job, Plan, Reading

__all__ = ["Difference", "Parity", "compare", "write_differences"]

KEPT = 100_000
"""Differences that are kept to be shown or written; all are counted."""
_EPOCH = datetime(1899, 12, 30)  # noqa: DTZ001 - Excel's days have no zone
_NUMBER = re.compile(r"-?\d+(\.\d+)?([eE][+-]?\d+)?")


@dataclass(frozen=True, slots=True)
class Difference:
    """One cell that differs, or one key that only one side has."""

    kind: str
    """`missing` (not in the file), `extra` (only in the file), `duplicate`, `cell`."""
    key: str
    column: str = ""
    ours: str | None = None
    """What the job would send."""
    theirs: str | None = None
    """What stands in the file."""
    note: str = ""


@dataclass(slots=True)
class Parity:
    """What a comparison found."""

    our_rows: int = 0
    file_rows: int = 0
    rejected: int = 0
    """Rows of ours that cannot become a message; they count as missing on our side."""
    columns: tuple[str, ...] = ()
    """Those that both sides have."""
    only_ours: tuple[str, ...] = ()
    only_theirs: tuple[str, ...] = ()
    missing: int = 0
    extra: int = 0
    duplicates: int = 0
    differing_rows: int = 0
    differing_cells: int = 0
    lost_zeros: int = 0
    """Of the equal cells: those whose leading zeros the file has lost."""
    differences: list[Difference] = field(default_factory=list)

    @property
    def is_equal(self) -> bool:
        """Whether every row of one side is on the other, with the same cells."""
        counts = (self.missing, self.extra, self.duplicates, self.differing_cells, self.rejected)
        return not any(counts) and not self.only_ours and not self.only_theirs

    def add(self, difference: Difference) -> None:
        """Keeps it, unless there are too many."""
        if len(self.differences) < KEPT:
            self.differences.append(difference)


def compare(
    job: Job,
    plan: Plan,
    reading: Reading,
    file: Path,
    *,
    keys: Sequence[str] | None = None,
    separator: str | None = None,
    encoding: str | None = None,
) -> Parity:
    """Compares a query's result with a file.

    Args:
        job: Its `message_key_field` tells rows apart where `keys` is None.
        plan: Its scheduled time and job make the messages.
        reading: The result.
        file: `.xlsx`, `.csv` or `.txt`, its first row the names of the columns.
        keys: Columns that tell rows apart, whatever their case.
        separator: Of a CSV; None: told from its first line.
        encoding: Of a CSV; None: UTF-8, else cp1252.

    Raises:
        ConfigError: The file cannot be read, or a key column is missing on one side.
        QueryFailed: The result cannot be read, or cannot become messages.
    """
    key_names = [name.lower() for name in (keys or _keys_of(job))]
    envelope = Envelope(reading.columns, plan.job, scheduled_at=plan.scheduled_at)
    cells = Cells(reading.columns, plan.job)
    found = Parity()
    with _read_file(file, separator, encoding) as (names, rows), _table() as db:
        found.columns = tuple(name for name in cells.names if name in names)
        found.only_ours = tuple(name for name in cells.names if name not in names)
        found.only_theirs = tuple(name for name in names if name not in cells.names)
        for where, there in (("the query", cells.names), (file.name, names)):
            _require(key_names, there, where)
        found.file_rows = _fill(db, "theirs", (_Row(key_names, names, row) for row in rows), found)
        found.our_rows = _fill(db, "ours", _ours(reading, envelope, cells, key_names, found), found)
        _only_one_side(db, found)
        _cells(db, found, [cells.names.index(n) for n in found.columns], [names.index(n) for n in found.columns])
    return found


def _keys_of(job: Job) -> Sequence[str]:
    fields = job.kafka_config.message_key_field
    if fields is None:
        raise ConfigError(
            f'job "{job.name}" has no message_key_field, so rows cannot be told apart',
            remedy="name the column(s) by --key BARCODE",
        )
    return (fields,) if isinstance(fields, str) else fields


def _require(key_names: Sequence[str], there: Sequence[str], where: str) -> None:
    for name in key_names:
        if name not in there:
            raise ConfigError(
                f"{where} has no column {name}",
                why=f"its columns are: {', '.join(there)}",
                remedy="name another by --key",
            )


# ── both sides in one table ───────────────────────────────────────────────────────────────────


class _Row:
    """A row and the key that tells it apart."""

    __slots__ = ("cells", "key")

    def __init__(self, key_names: Sequence[str], names: Sequence[str], cells: Sequence[Any]) -> None:
        self.cells = [*cells, *[None] * (len(names) - len(cells))]
        parts = [_plain(self.cells[names.index(name)]) for name in key_names]
        # A file may have lost the zeros of a key, and then it is still the same key.
        self.key = "|".join("" if part is None else _without_zeros(part) for part in parts)


def _ours(
    reading: Reading, envelope: Envelope, cells: Cells, key_names: Sequence[str], found: Parity
) -> Iterator[_Row]:
    for rows in reading:
        encoded = envelope.encode(rows)
        found.rejected += len(encoded.rejects)
        for reject in encoded.rejects:
            found.add(
                Difference("rejected", reject.key or f"row {reject.row_number}", reject.column, note=reject.reason)
            )
        for data in encoded.data:
            yield _Row(key_names, cells.names, cells.of(data))


@contextmanager
def _table() -> Iterator[sqlite3.Connection]:
    with tempfile.TemporaryDirectory() as folder, closing(sqlite3.connect(Path(folder) / "parity.sqlite")) as db:
        try:
            db.execute("PRAGMA journal_mode=OFF")
            db.execute("PRAGMA synchronous=OFF")
            for side in ("ours", "theirs"):
                db.execute(f"CREATE TABLE {side} (key TEXT PRIMARY KEY, cells TEXT) WITHOUT ROWID")
            yield db
        except sqlite3.OperationalError as error:
            raise StorageFailed(
                "the comparison needs room in the system's temporary folder", why=str(error), remedy="make room there"
            ) from None


def _fill(db: sqlite3.Connection, side: str, rows: Iterable[_Row], found: Parity) -> int:
    import json

    count = 0
    rows = iter(rows)
    while block := list(islice(rows, 5_000)):
        count += len(block)
        texts = [(row.key, json.dumps([_form(cell) for cell in row.cells], ensure_ascii=False)) for row in block]
        before = db.total_changes
        db.executemany(f"INSERT OR IGNORE INTO {side} VALUES (?, ?)", texts)  # noqa: S608 - one of two names of ours
        if db.total_changes - before < len(block):
            _note_duplicates(db, side, texts, found)
    return count


def _note_duplicates(db: sqlite3.Connection, side: str, texts: list[tuple[str, str]], found: Parity) -> None:
    seen: set[str] = set()
    for key, cells in texts:
        (kept,) = db.execute(f"SELECT cells FROM {side} WHERE key = ?", (key,)).fetchone()  # noqa: S608 - as above
        if key in seen or kept != cells:
            found.duplicates += 1
            where = "in the query" if side == "ours" else "in the file"
            found.add(Difference("duplicate", key, note=f"more than one row with this key {where}"))
        seen.add(key)


def _only_one_side(db: sqlite3.Connection, found: Parity) -> None:
    for kind, here, there in (("missing", "ours", "theirs"), ("extra", "theirs", "ours")):
        sql = f"SELECT key FROM {here} WHERE key NOT IN (SELECT key FROM {there}) ORDER BY key"  # noqa: S608 - names of ours
        for (key,) in db.execute(sql):
            setattr(found, kind, getattr(found, kind) + 1)
            found.add(Difference(kind, key, note="not in the file" if kind == "missing" else "only in the file"))


def _cells(db: sqlite3.Connection, found: Parity, our_places: list[int], their_places: list[int]) -> None:
    import json

    pairs = db.execute(
        "SELECT key, o.cells, t.cells FROM ours o JOIN theirs t USING (key) WHERE o.cells <> t.cells ORDER BY key"
    )
    for key, our_text, their_text in pairs:
        ours, theirs = json.loads(our_text), json.loads(their_text)
        differs = False
        for name, o, t in zip(found.columns, our_places, their_places, strict=True):
            if _says_the_same(ours[o], theirs[t]):
                continue
            if _is_zeros_lost(ours[o], theirs[t]):
                found.lost_zeros += 1
                continue
            differs = True
            found.differing_cells += 1
            found.add(Difference("cell", key, name, _shown(ours[o]), _shown(theirs[t])))
        found.differing_rows += differs


# ── what a cell says ──────────────────────────────────────────────────────────────────────────
# A form is [kind, text]: n number, d moment, b boolean, s text; None for nothing.


def _form(cell: Cell | float | int | timedelta) -> list[str] | None:
    if cell is None or cell == "":
        return None
    if isinstance(cell, bool):
        return ["b", str(cell).lower()]
    if isinstance(cell, Digits):
        return ["n", str(cell)]
    if isinstance(cell, int | float):
        return ["n", repr(cell)]
    if isinstance(cell, datetime):
        return ["d", cell.isoformat()]
    if isinstance(cell, date):
        return ["d", datetime(cell.year, cell.month, cell.day).isoformat()]  # noqa: DTZ001 - no zone on either side
    if isinstance(cell, timedelta):
        cell = (_EPOCH + cell).time()
    if isinstance(cell, time):
        return ["s", cell.isoformat()]
    return ["s", cell[1:] if re.match(r"'[=+\-@\t\r]", cell) else cell]


def _says_the_same(ours: list[str] | None, theirs: list[str] | None) -> bool:
    if ours == theirs:
        return True
    if ours is None or theirs is None:
        return (ours or theirs or ["", ""])[1].strip() == ""
    if ours[1] == theirs[1]:
        return True
    kinds = {ours[0], theirs[0]}
    if "b" in kinds:
        return _boolean(ours[1]) == _boolean(theirs[1]) is not None
    if "d" in kinds:
        return (moment := _moment(*ours)) is not None and moment == _moment(*theirs)
    if "n" in kinds:
        return (number := _number(ours)) is not None and number == _number(theirs)
    return ours[1].rstrip(" ") == theirs[1].rstrip(" ")


def _is_zeros_lost(ours: list[str] | None, theirs: list[str] | None) -> bool:
    if ours is None or theirs is None or ours[0] != "s" or not ours[1].startswith("0"):
        return False
    text = _plain_text(theirs)
    return ours[1].isdigit() and text.isdigit() and ours[1].lstrip("0") == text.lstrip("0")


def _boolean(text: str) -> bool | None:
    known = {"true": True, "1": True, "vero": True, "false": False, "0": False, "falso": False}
    return known.get(text.strip().lower())


def _number(form: list[str]) -> Decimal | None:
    kind, text = form
    text = text.strip()
    if kind == "s":
        # A number that was written with a decimal comma, or with zeros in front: an identifier is no number.
        text = text.replace(",", ".") if text.count(",") == 1 and "." not in text else text
        if not _NUMBER.fullmatch(text) or re.match(r"-?0\d", text):
            return None
    try:
        number = Decimal(text)
    except InvalidOperation:
        return None
    # A spreadsheet holds 15 digits.
    return Decimal(f"{number:.14e}") if number.is_finite() else None


def _moment(kind: str, text: str) -> datetime | None:
    """To the millisecond, which is what a spreadsheet keeps."""
    text = text.strip()
    moment: datetime | None = None
    if kind == "n":
        number = _number([kind, text])
        moment = None if number is None or not 0 < number < 3_000_000 else _EPOCH + timedelta(days=float(number))
    else:
        for form in (None, "%d/%m/%Y", "%d/%m/%Y %H:%M", "%d/%m/%Y %H:%M:%S", "%d-%m-%Y"):
            try:
                moment = datetime.fromisoformat(text) if form is None else datetime.strptime(text, form)  # noqa: DTZ007
                break
            except ValueError:
                continue
    if moment is None:
        return None
    rounded = moment + timedelta(microseconds=500)
    return rounded.replace(microsecond=rounded.microsecond // 1000 * 1000, tzinfo=None)


def _plain(cell: Any) -> str | None:
    form = _form(cell)
    return None if form is None else _plain_text(form)


def _plain_text(form: list[str]) -> str:
    """The text of a key: a number without `.0`, a day without its midnight."""
    kind, text = form
    if kind == "n":
        return re.sub(r"\.0+$", "", text)
    return text.removesuffix("T00:00:00") if kind == "d" else text.strip()


def _without_zeros(text: str) -> str:
    return text.lstrip("0") or "0" if text.isdigit() else text


def _shown(form: list[str] | None) -> str | None:
    return None if form is None else form[1].removesuffix("T00:00:00") if form[0] == "d" else form[1]


# ── the file ──────────────────────────────────────────────────────────────────────────────────


@contextmanager
def _read_file(
    file: Path, separator: str | None, encoding: str | None
) -> Iterator[tuple[list[str], Iterator[Sequence[Any]]]]:
    """Names in lower case, and the rows."""
    if not file.is_file():
        raise ConfigError(f"there is no file {file}", remedy="give the path of the .xlsx or .csv that was made earlier")
    if file.suffix.lower() == ".xlsx":
        rows = _xlsx_rows(file)
        yield _names(next(rows, None), file), rows
        return
    if file.suffix.lower() not in (".csv", ".txt"):
        raise ConfigError(f"{file.name} is neither .xlsx nor .csv", remedy="save it as one of them")
    encoding = encoding or _encoding_of(file)
    try:
        with file.open(encoding=encoding, newline="") as stream:
            first = stream.readline()
            stream.seek(0)
            rows = iter(csv.reader(stream, delimiter=separator or _separator_of(first)))
            yield _names(next(rows, None), file), rows
    except (UnicodeDecodeError, LookupError, csv.Error, TypeError) as error:
        raise ConfigError(
            f"{file.name} cannot be read as CSV", why=str(error), remedy="give --encoding and --separator"
        ) from None


def _xlsx_rows(file: Path) -> Iterator[Sequence[Any]]:
    from python_calamine import CalamineError, CalamineWorkbook

    try:
        book = CalamineWorkbook.from_path(str(file))
        for number, name in enumerate(book.sheet_names):
            rows = book.get_sheet_by_name(name).iter_rows()
            # A result that was too long for one sheet goes on in the next, under the same head.
            yield from islice(rows, 1 if number else 0, None)
    except CalamineError as error:
        raise ConfigError(
            f"{file.name} cannot be read as an Excel file", why=str(error), remedy="open it and save it as .xlsx"
        ) from None


def _names(head: Sequence[Any] | None, file: Path) -> list[str]:
    names = [str(name).strip().lower() for name in head or ()]
    if not any(names):
        raise ConfigError(f"{file.name} is empty", remedy="its first row has to name the columns")
    return names


def _encoding_of(file: Path) -> str:
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                decoder.decode(block)
            decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return "cp1252"
    return "utf-8-sig"


def _separator_of(line: str) -> str:
    return max(";\t,|", key=line.count)


def write_differences(file: Path, found: Parity) -> None:
    """Every kept difference as CSV.

    Raises:
        StorageFailed: It cannot be written.
    """
    import io

    from core.workspace import write_whole

    text = io.StringIO()
    writer = csv.writer(text, delimiter=";", lineterminator="\r\n")
    writer.writerow(["kind", "key", "column", "ours", "theirs", "note"])
    writer.writerows([d.kind, d.key, d.column, d.ours, d.theirs, d.note] for d in found.differences)
    write_whole(file, b"\xef\xbb\xbf" + text.getvalue().encode())
