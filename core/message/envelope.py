"""The message of a row: its key, its JSON and its id. Pure: no clock, no connection.

A block is encoded by columns (`core.message.column_types`). Only a column with an unusual value is encoded value by
value, and only the rows with a value that cannot be encoded are rejected.
"""

from __future__ import annotations

import re
import struct
from binascii import hexlify
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import repeat
from typing import Any

import msgspec
import xxhash

from core.clock import iso_utc
from core.errors import ConfigError, QueryFailed, RowRejected
from core.message.cells import CannotEncode, encoding_reason, key_text
from core.message.column_types import cell_encoder, column_encoder
from core.model.job import Job
from core.model.run import Reject
from core.model.source import Column, Rows
from core.version import __version__

__all__ = ["NULL_KEY", "Encoded", "Envelope", "proves_data"]

SYSTEM = "PSTT_Tool"
NULL_KEY = "the key is null"
MOST_EQUAL_ROWS = 10_000
"""How many equal rows of one run `proves_data` considers."""
_DATA, _METADATA = b'{"data":', b',"metadata":{"source":'
_has_to_be_escaped = re.compile(r'["\\\x00-\x1f]').search


@dataclass(frozen=True, slots=True)
class Encoded:
    """Encoded rows of one fetch. The first four lists have the same length."""

    row_numbers: list[int]
    keys: list[bytes | None]
    data: list[bytes]
    """The JSON object of each row, without metadata."""
    message_ids: list[bytes]
    rejects: list[Reject]
    extracted_at: datetime


def proves_data(message_id: str, value: bytes, slug: str, scheduled_at: datetime) -> bool:
    """Returns True if the `data` of a message is byte for byte what the id was computed from, a hash of 128 bits.

    The metadata is not part of the hash, as it holds times.

    Args:
        message_id: The id that the row was sent with.
        value: The whole message.
        slug: The job's.
        scheduled_at: Of the run, aware.
    """
    if not value.startswith(_DATA):
        return False
    # With or without metadata; a column of JSON may hold what looks like the beginning of ours.
    ends = {end for end in (value.rfind(_METADATA), len(value) - 1) if end > 0}
    seeds = _seed(slug, scheduled_at), _seed(slug)
    firsts = [xxhash.xxh3_128_hexdigest(value[len(_DATA) : end], seed) for end in ends for seed in seeds]
    numbers = range(1, MOST_EQUAL_ROWS)
    return message_id in firsts or any(
        message_id == xxhash.xxh3_128_hexdigest(first.encode(), number) for first in firsts for number in numbers
    )


def _seed(slug: str, scheduled_at: datetime | None = None) -> int:
    """Returns the seed of the ids of a run; without a scheduled time that of all runs of an incremental job."""
    moment = scheduled_at.astimezone(UTC).isoformat() if scheduled_at else "incremental"
    return xxhash.xxh3_64_intdigest(f"{slug}\0{moment}".encode())


class Envelope:
    """Encodes the rows of one result: key, JSON, metadata and id.

    Args:
        columns: The result's columns, in order.
        job: Its settings for key, types, decimals and metadata.
        scheduled_at: Aware. With the job's slug it seeds `message_id`, so that every attempt computes the same ids.
            A row of an incremental job has the same id in every run, since a later run may read it again.

    Raises:
        QueryFailed: Two columns have the same name, or a column cannot be sent; the remedy is the SQL to write.
        ConfigError: The job names a column that the result does not have.
    """

    def __init__(self, columns: Sequence[Column], job: Job, *, scheduled_at: datetime) -> None:
        from core.message.duplicates import DuplicateRows  # imports numpy, 70 ms

        _refuse_unusable(columns)
        self.columns = tuple(columns)
        self._names = [column.name.lower() for column in columns]
        _refuse_unknown(job, self._names)
        overrides = {name.lower(): override for name, override in job.types.items()}
        self._cells = [cell_encoder(c, overrides.get(c.name.lower()), job.decimals) for c in columns]
        self._fast = [None if c.name.lower() in overrides else column_encoder(c, job.decimals) for c in columns]
        self._key_indexes = [self._names.index(name.lower()) for name in _key_fields(job)]
        self._key_separator = job.key_separator
        self._on_null_key = job.on_null_key
        self._record = _record(self._names)
        self._json = msgspec.json.Encoder(decimal_format="number").encode
        self._seed = _seed(job.slug, None if job.incremental else scheduled_at)
        self._duplicates = DuplicateRows()
        self._include_metadata = job.kafka_config.include_metadata
        source = {"system": SYSTEM, "version": __version__, "connection": job.connection, "query": job.query}
        self._source = b',"metadata":{"source":' + self._json(source) + b',"timestamp":"'

    def encode(self, rows: Rows) -> Encoded:
        """Encodes the rows of one fetch; rows with a value that cannot be encoded are in `rejects`."""
        bad: dict[int, RowRejected] = {}
        given = list(zip(*rows.rows, strict=True)) or [() for _ in self.columns]
        values = [self._column(i, column, bad) for i, column in enumerate(given)]
        keys = self._keys(given, len(rows.rows), bad)
        kept = range(len(rows.rows))
        data = self._rows(values, kept, bad)
        if bad:
            left = [i for i in kept if i not in bad]
            data = [data[i] for i in left]
            keys = [keys[i] for i in left]
            row_numbers = [rows.first_row + i for i in left]
        else:
            row_numbers = list(range(rows.first_row, rows.first_row + len(rows.rows)))
        rejects = [self._reject(rows, i, keys_error) for i, keys_error in sorted(bad.items())]
        return Encoded(row_numbers, keys, data, self._ids(data), rejects, rows.extracted_at)

    def wrap(self, data: Sequence[bytes], *, extracted_at: datetime, published_at: datetime) -> list[bytes]:
        """Returns the message values: the JSON of each row, with metadata where the job wants it.

        Args:
            data: The JSON objects of rows that are published together.
            extracted_at: When they were fetched.
            published_at: When they are published.
        """
        if not self._include_metadata:
            return [b'{"data":' + row + b"}" for row in data]
        latency_ms = round((published_at - extracted_at) / timedelta(milliseconds=1))
        tail = b"".join(
            (
                self._source,
                iso_utc(published_at).encode(),
                b'","processing":{"extracted_at":"',
                iso_utc(extracted_at, "seconds").encode(),
                b'","published_at":"',
                iso_utc(published_at, "seconds").encode(),
                b'","latency_ms":%d}}}' % latency_ms,
            )
        )
        return [b'{"data":' + row + tail for row in data]

    def _column(self, index: int, column: Sequence[Any], bad: dict[int, RowRejected]) -> Sequence[Any]:
        fast = self._fast[index]
        if fast is not None:
            taken = fast(column)
            if taken is not None:
                return taken
        described = self.columns[index]
        cell = self._cells[index]
        out: list[Any] = []
        for i, value in enumerate(column):
            try:
                out.append(None if value is None else cell(value))
            except CannotEncode as unfit:
                bad.setdefault(i, RowRejected(str(unfit), column=described.name, database_type=described.database_type))
                out.append(None)
        return out

    def _rows(self, values: list[Sequence[Any]], kept: Iterable[int], bad: dict[int, RowRejected]) -> list[bytes]:
        try:
            return list(map(self._json, map(self._record, *values)))
        except (UnicodeError, ValueError, TypeError, OverflowError, RecursionError):
            return [self._row([column[i] for column in values], i, bad) for i in kept]

    def _row(self, cells: list[Any], index: int, bad: dict[int, RowRejected]) -> bytes:
        """Encodes one row by itself, to find the value at fault."""
        if index in bad:
            return b""
        try:
            return self._json(self._record(*cells))
        except (UnicodeError, ValueError, TypeError, OverflowError, RecursionError):
            for column, cell in zip(self.columns, cells, strict=True):
                try:
                    self._json(cell)
                except (UnicodeError, ValueError, TypeError, OverflowError, RecursionError) as error:
                    bad[index] = RowRejected(
                        encoding_reason(error), column=column.name, database_type=column.database_type
                    )
                    return b""
            raise

    def _keys(self, given: list[Any], count: int, bad: dict[int, RowRejected]) -> list[bytes | None]:
        if not self._key_indexes:
            return [None] * count
        if len(self._key_indexes) == 1:
            try:
                # The usual key is one text column, encoded at C speed; None and lone surrogates raise and are handled below.
                return list(map(str.encode, given[self._key_indexes[0]])) if self._cells_keep_text() else self._fail()
            except (TypeError, UnicodeError):
                pass
        return [self._key([given[k][i] for k in self._key_indexes], i, bad) for i in range(count)]

    def _cells_keep_text(self) -> bool:
        return self.columns[self._key_indexes[0]].kind == "text" and self._fast[self._key_indexes[0]] is not None

    @staticmethod
    def _fail() -> list[bytes | None]:
        raise TypeError

    def _key(self, parts: list[Any], index: int, bad: dict[int, RowRejected]) -> bytes | None:
        texts = []
        for k, part in zip(self._key_indexes, parts, strict=True):
            column = self.columns[k]
            if part is None:
                if self._on_null_key != "send":
                    bad.setdefault(index, RowRejected(NULL_KEY, column=column.name, database_type=column.database_type))
                return None
            try:
                texts.append(key_text(self._cells[k](part)))
            except CannotEncode as unfit:
                bad.setdefault(index, RowRejected(str(unfit), column=column.name, database_type=column.database_type))
                return None
        try:
            return self._key_separator.join(texts).encode()
        except UnicodeError as error:
            column = self.columns[self._key_indexes[0]]
            bad.setdefault(
                index,
                RowRejected(encoding_reason(error), column=column.name, database_type=column.database_type),
            )
            return None

    def _ids(self, data: list[bytes]) -> list[bytes]:
        digests = list(map(xxhash.xxh3_128_digest, data, repeat(self._seed)))
        ids: list[bytes] = list(struct.unpack("32s" * len(digests), hexlify(b"".join(digests))))
        if digests:
            # Rows that are equal in every column are different messages, so they need different ids.
            for i, number in self._duplicates.numbers(digests).items():
                ids[i] = xxhash.xxh3_128_hexdigest(ids[i], number).encode()
        return ids

    def _reject(self, rows: Rows, index: int, error: RowRejected) -> Reject:
        row = rows.rows[index]
        key = [row[k] for k in self._key_indexes]
        return Reject(
            rows.first_row + index,
            error.column,
            error.database_type,
            error.reason,
            key=self._key_separator.join(map(str, key)) if key and None not in key else None,
            row={name: _shown(value) for name, value in zip(self._names, row, strict=True)},
        )


def _record(names: Sequence[str]) -> Callable[..., Any]:
    """Returns a function that makes of the cells of a row what msgspec writes as a JSON object with these names."""
    if any(map(_has_to_be_escaped, names)):  # msgspec refuses such names for a struct; a dict takes twice the time
        return lambda *cells: dict(zip(names, cells, strict=True))
    fields = [(f"f{i}", Any) for i in range(len(names))]
    return msgspec.defstruct("Row", fields, rename={f"f{i}": name for i, name in enumerate(names)}, gc=False)


def _key_fields(job: Job) -> tuple[str, ...]:
    fields = job.kafka_config.message_key_field
    if fields is None:
        return ()
    return (fields,) if isinstance(fields, str) else fields


def _refuse_unusable(columns: Sequence[Column]) -> None:
    names: dict[str, str] = {}
    for column in columns:
        if column.refusal:
            raise QueryFailed(f"column {column.name} ({column.database_type}) cannot be sent", why=column.refusal)
        if not column.name:
            raise QueryFailed("a column of the result has no name", remedy="give it one in the query: … AS some_name")
        if column.name.lower() in names:
            raise QueryFailed(
                f"two columns of the result are called {names[column.name.lower()]} and {column.name}",
                why="a JSON object holds each (lower-case) name once",
                remedy=f"give one of them another name in the query: … AS {column.name.lower()}_2",
            )
        names[column.name.lower()] = column.name


def _refuse_unknown(job: Job, names: list[str]) -> None:
    for place, wanted in (("kafka_config.message_key_field", _key_fields(job)), ("types", tuple(job.types))):
        for name in wanted:
            if name.lower() not in names:
                raise ConfigError(
                    f'job "{job.name}": {place} names column {name}, which the query does not return',
                    remedy=f"its columns are: {', '.join(names)}",
                    key=place,
                )


def _shown(value: Any) -> str | None:
    if value is None:
        return None
    try:
        text = f"{len(value)} bytes" if isinstance(value, bytes | bytearray | memoryview) else str(value)
    except RecursionError:
        return f"a {type(value).__name__} that is nested too deeply"
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= 500 else text[:500] + "…"
