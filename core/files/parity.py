"""Compares what a job would send with an existing file, for teams that move from files to Kafka.

A spreadsheet stores less than a message: dates become serial numbers, 848 and "848" are the same, leading zeros are
lost. Both cells are therefore converted to a normal text by the form of their column (see `core.files.cell_comparison`),
and what the file has lost is reported as a loss. Rows are matched by their key. Both sides are stored and sorted in a
temporary SQLite file, so that memory does not grow with the number of rows.
"""

from __future__ import annotations

import csv
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from itertools import groupby, islice, zip_longest
from operator import itemgetter
from pathlib import Path
from typing import Any

import msgspec
import xxhash

from core.errors import ConfigError, StorageFailed
from core.files.cell_comparison import CellComparison, forms_of, without_leading_zeros
from core.files.names import distinct_columns
from core.files.reader import FileOptions, Table, column_name, open_table
from core.files.writer import RowDecoder, escape_text
from core.message.column_types import CellForm
from core.message.envelope import Envelope
from core.model.job import Job
from core.model.run import Plan
from core.model.source import Reading

__all__ = ["Difference", "OnDifference", "ParityResult", "compare", "write_differences"]

MOST_KEPT = 1_000
"""Differences that `ParityResult` keeps; all are counted, and all are passed to `on_difference`."""
ROWS_PER_INSERT = 5_000
CACHE_KIB = 32_768

OnDifference = Callable[["Difference"], None]


@dataclass(frozen=True, slots=True)
class Difference:
    """One differing cell, or one row that only one side has."""

    kind: str
    """`missing` (not in the file), `extra` (only in the file), `duplicate` (one side has the key more often), `cell`,
    `rejected` (the row cannot become a message)."""
    key: str
    column: str = ""
    ours: str | None = None
    """What the job would send."""
    theirs: str | None = None
    """What the file contains."""
    note: str = ""


@dataclass(slots=True)
class ParityResult:
    """The result of a comparison. Rows are those that can become messages."""

    our_rows: int = 0
    file_rows: int = 0
    rejected: int = 0
    """Rows of the query that cannot become a message; not counted in `our_rows`."""
    columns: tuple[str, ...] = ()
    """Columns of both sides."""
    only_ours: tuple[str, ...] = ()
    only_theirs: tuple[str, ...] = ()
    equal_rows: int = 0
    missing: int = 0
    extra: int = 0
    duplicates: int = 0
    """Rows that one side has in excess of those with the same key on the other."""
    differing_rows: int = 0
    differing_cells: int = 0
    differing_columns: dict[str, int] = field(default_factory=dict)
    """Column → number of differing cells."""
    repeated_keys_ours: int = 0
    repeated_keys_theirs: int = 0
    """Keys of several rows of the file; no difference if the other side has them as often."""
    lost_zeros: int = 0
    """Cells that are equal except for leading zeros, which the file has lost."""
    dialect: str = ""
    """How the file was read."""
    difference_count: int = 0
    """All differences."""
    differences: list[Difference] = field(default_factory=list)
    """The first `MOST_KEPT` differences."""

    @property
    def is_equal(self) -> bool:
        """Whether both sides have the same rows with the same cells."""
        return not self.different_rows and not self.rejected and not self.only_ours and not self.only_theirs

    @property
    def different_rows(self) -> int:
        """Rows that only one side has, or that differ."""
        return self.missing + self.extra + self.duplicates + self.differing_rows

    @property
    def rows(self) -> int:
        """Rows of both sides; matching rows count once."""
        return self.equal_rows + self.different_rows


def compare(
    job: Job,
    plan: Plan,
    reading: Reading,
    file: Path,
    *,
    keys: Sequence[str] | None = None,
    options: FileOptions | None = None,
    on_difference: OnDifference | None = None,
) -> ParityResult:
    """Compares a query's result with a file.

    Args:
        job: Its `message_key_field` identifies rows if `keys` is None.
        plan: Its scheduled time and job determine the messages.
        reading: The query's result.
        file: `.xlsx`, or CSV.
        keys: Columns that identify rows, case-insensitive.
        options: Overrides of what is recognised in the file; None: no overrides.
        on_difference: Called with every difference, not only with those that are kept.

    Raises:
        ConfigError: The file cannot be read, or a key column is missing on one side.
        QueryFailed: The result cannot be read, or cannot become messages.
        StorageFailed: The temporary folder has no space for the comparison.
    """
    options = options or FileOptions()
    key_names = [name.lower() for name in (keys or _keys_of(job))]
    columns = reading.columns if plan.output is None else distinct_columns(reading.columns)
    # A file is compared with the rows themselves: their format, envelope and tombstones have no part in it.
    plain = replace(plan.job, value_format="json", key_format="text", envelope="pstt", null_value_when=None)
    envelope = Envelope(columns, plain, scheduled_at=plan.scheduled_at)
    cells = RowDecoder(columns, plan.job)
    ours = [column_name(name) for name in cells.names]
    with open_table(file, options, cells.names) as table, _temporary_database() as db:
        found = ParityResult(
            columns=tuple(n for n, c in zip(cells.names, ours, strict=True) if c in table.names),
            only_ours=tuple(n for n, c in zip(cells.names, ours, strict=True) if c not in table.names),
            only_theirs=tuple(name for name in table.names if name and name not in ours),
            dialect=table.dialect,
        )
        _require_columns(key_names, cells.names, "the query")
        _require_columns(key_names, found.columns, file.name)
        forms = forms_of(cells.columns, plan.job.types, found.columns)
        comparison = CellComparison(table.kind, options.decimal, (job.csv.date_format, job.csv.datetime_format))
        sides = _RowTables(db, found, key_names, forms, comparison, job.key_separator, on_difference)
        found.file_rows = sides.fill("theirs", _theirs(table, found.columns))
        found.our_rows = sides.fill("ours", _ours(reading, envelope, cells, sides))
        sides.compare()
    return found


def _keys_of(job: Job) -> Sequence[str]:
    fields = job.kafka_config.message_key_field
    if fields is None:
        raise ConfigError(
            f'job "{job.name}" has no message_key_field, so rows cannot be distinguished',
            remedy="name the column(s) by --key BARCODE",
        )
    return (fields,) if isinstance(fields, str) else fields


def _require_columns(key_names: Sequence[str], there: Sequence[str], where: str) -> None:
    for name in key_names:
        if name not in there:
            raise ConfigError(
                f"{where} has no column {name}",
                why=f"its columns are: {', '.join(there)}",
                remedy="name another by --key",
            )


def _ours(reading: Reading, envelope: Envelope, cells: RowDecoder, sides: _RowTables) -> Iterator[Sequence[Any]]:
    places = [cells.names.index(name) for name in sides.found.columns]
    pick = itemgetter(*places) if len(places) > 1 else lambda row: (row[places[0]],)
    for rows in reading:
        encoded = envelope.encode(rows)
        for reject in encoded.rejects:
            sides.found.rejected += 1
            key = reject.key or f"row {reject.row_number}"
            sides.add(Difference("rejected", key, reject.column, note=reject.reason))
        for data in encoded.data:
            yield pick(cells.of(data))


def _theirs(table: Table, columns: Sequence[str]) -> Iterator[Sequence[Any]]:
    places = [table.names.index(column_name(name)) for name in columns]
    for row in table.rows:
        yield [row[place] if place < len(row) else None for place in places]


@contextmanager
def _temporary_database() -> Iterator[sqlite3.Connection]:
    # On Windows a folder can be removed only after the file in it was closed.
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        closing(sqlite3.connect(Path(folder) / "parity.sqlite", isolation_level=None)) as db,
    ):
        try:
            db.execute("PRAGMA journal_mode=OFF")
            db.execute("PRAGMA synchronous=OFF")
            db.execute(f"PRAGMA cache_size=-{CACHE_KIB}")
            for side in ("ours", "theirs"):
                db.execute(f"CREATE TABLE {side} (key TEXT, digest BLOB, cells BLOB)")
            yield db
        except sqlite3.OperationalError as error:
            raise StorageFailed(
                "the comparison needs room in the system's temporary folder", why=str(error), remedy="make room there"
            ) from None


_Row = tuple[str, bytes, bytes]
"""The key without leading zeros, the hash of the cells, the cells as msgpack."""


@dataclass(slots=True)
class _RowTables:
    """The rows of both sides in two SQLite tables, and their comparison."""

    db: sqlite3.Connection
    found: ParityResult
    key_names: Sequence[str]
    forms: Sequence[CellForm]
    comparison: CellComparison
    key_separator: str
    on_difference: OnDifference | None

    def add(self, difference: Difference) -> None:
        """Counts and reports a difference, and keeps it unless there are too many."""
        self.found.difference_count += 1
        if self.on_difference:
            self.on_difference(difference)
        if len(self.found.differences) < MOST_KEPT:
            self.found.differences.append(difference)

    def fill(self, side: str, rows: Iterable[Sequence[Any]]) -> int:
        """Inserts rows into the table of one side; returns how many."""
        pack = msgspec.msgpack.Encoder().encode
        digest = xxhash.xxh3_128_digest
        texts = [self.comparison.normalizer(form) for form in self.forms]
        places = self.key_places
        sql = f"INSERT INTO {side} VALUES (?, ?, ?)"  # noqa: S608 - one of two constant names

        def packed(row: Sequence[Any]) -> _Row:
            cells = [text(cell) for text, cell in zip(texts, row, strict=True)]
            data = pack(cells)
            # A file may have lost leading zeros of a key; it is still the same key.
            return "\0".join(without_leading_zeros(cells[place]) for place in places), digest(data), data

        count = 0
        rows = iter(rows)
        while block := [packed(row) for row in islice(rows, ROWS_PER_INSERT)]:
            self.db.execute("BEGIN")
            self.db.executemany(sql, block)
            self.db.execute("COMMIT")
            count += len(block)
        return count

    @property
    def key_places(self) -> list[int]:
        return [self.found.columns.index(name) for name in self.key_names]

    def compare(self) -> None:
        """Merges both tables in the order of the keys."""
        sides = [groupby(self._sorted(side), key=itemgetter(0)) for side in ("ours", "theirs")]
        ours, theirs = (next(side, None) for side in sides)
        while ours or theirs:
            if theirs is None or (ours is not None and ours[0] < theirs[0]):
                self._count_single(ours, "missing")
                ours = next(sides[0], None)
            elif ours is None or theirs[0] < ours[0]:
                self._count_single(theirs, "extra")
                theirs = next(sides[1], None)
            else:
                self._compare_rows(list(ours[1]), list(theirs[1]))
                ours, theirs = next(sides[0], None), next(sides[1], None)

    def _sorted(self, side: str) -> Iterator[_Row]:
        # SQLite compares the bytes of UTF-8, which gives the same order as Python's comparison of texts.
        yield from self.db.execute(f"SELECT key, digest, cells FROM {side} ORDER BY key, rowid")  # noqa: S608 - as above

    def _count_single(self, group: tuple[str, Iterator[_Row]] | None, kind: str) -> None:
        rows = list(group[1]) if group else []
        self._count_repeated(rows, "repeated_keys_ours" if kind == "missing" else "repeated_keys_theirs")
        for row in rows:
            setattr(self.found, kind, getattr(self.found, kind) + 1)
            note = "not in the file" if kind == "missing" else "only in the file"
            self.add(Difference(kind, self._key(_cells(row)), note=note))

    def _compare_rows(self, ours: list[_Row], theirs: list[_Row]) -> None:
        self._count_repeated(ours, "repeated_keys_ours")
        self._count_repeated(theirs, "repeated_keys_theirs")
        for our_row, their_row in _paired(ours, theirs, self._exact_key):
            if our_row is None or their_row is None:
                self.found.duplicates += 1
                where = "in the file" if our_row is None else "in the query"
                key = self._key(_cells(our_row or their_row))
                self.add(Difference("duplicate", key, note=f"one more row with this key {where}"))
            elif our_row[1] == their_row[1]:
                self.found.equal_rows += 1
            else:
                self._compare_cells(_cells(our_row), _cells(their_row))

    def _compare_cells(self, ours: Sequence[str], theirs: Sequence[str]) -> None:
        """Compares two rows of one key cell by cell."""
        differs = False
        for name, form, our, their in zip(self.found.columns, self.forms, ours, theirs, strict=True):
            if self.comparison.are_equal(form, our, their):
                continue
            note = self.comparison.loss(form, our, their)
            if note == self.comparison.ZEROS_LOST:
                self.found.lost_zeros += 1
                continue
            differs = True
            self.found.differing_cells += 1
            self.found.differing_columns[name] = self.found.differing_columns.get(name, 0) + 1
            shown = (self.comparison.shown(form, our), self.comparison.shown(form, their))
            self.add(Difference("cell", self._key(ours), name, *shown, note))
        self.found.differing_rows += differs
        self.found.equal_rows += not differs

    def _count_repeated(self, rows: Sequence[_Row], name: str) -> None:
        if len(rows) > 1:
            repeated = sum(count > 1 for count in Counter(map(self._exact_key, rows)).values())
            setattr(self.found, name, getattr(self.found, name) + repeated)

    def _exact_key(self, row: _Row) -> str:
        return self._key(_cells(row))

    def _key(self, cells: Sequence[str]) -> str:
        return self.key_separator.join(cells[place] for place in self.key_places)


def _cells(row: _Row | None) -> list[str]:
    return [] if row is None else msgspec.msgpack.decode(row[2], type=list[str])


def _paired(
    ours: list[_Row], theirs: list[_Row], exact_key: Callable[[_Row], str]
) -> Iterator[tuple[_Row | None, _Row | None]]:
    """Pairs the rows of one key: equal rows first, then rows with the same leading zeros of the key, then in their order."""
    for pairing_key in (itemgetter(1), exact_key):
        if len(ours) == len(theirs) == 1:
            break
        waiting: dict[Any, list[_Row]] = {}
        for row in theirs:
            waiting.setdefault(pairing_key(row), []).append(row)
        alone = []
        for row in ours:
            if found := waiting.get(pairing_key(row)):
                yield row, found.pop(0)
            else:
                alone.append(row)
        ours, theirs = alone, [row for rows in waiting.values() for row in rows]
    yield from zip_longest(ours, theirs)


@contextmanager
def write_differences(file: Path) -> Iterator[OnDifference]:
    """Opens a CSV and yields the function that adds a difference; the file gets its name if the block ends without an error.

    Raises:
        StorageFailed: It cannot be written.
    """
    aside = file.with_name(f"{file.name}.tmp")
    try:
        with aside.open("w", encoding="utf-8-sig", newline="") as stream:
            writer = csv.writer(stream, delimiter=";", lineterminator="\r\n")
            writer.writerow(["kind", "key", "column", "ours", "theirs", "note"])
            yield lambda d: writer.writerow(
                [escape_text(v) for v in (d.kind, d.key, d.column, d.ours, d.theirs, d.note)]
            )
        aside.replace(file)
    except OSError as error:
        raise StorageFailed(f"{file} cannot be written", why=error.strerror or str(error)) from None
    finally:
        aside.unlink(missing_ok=True)
