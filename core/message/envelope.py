"""The message of a row: its key, its JSON and its id. Pure: no clock, no connection.

A block is encoded by columns (`core.message.column_types`). Only a column with an unusual value is encoded value by
value, and only the rows with a value that cannot be encoded are rejected.
"""

from __future__ import annotations

import re
import struct
from binascii import hexlify
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import chain, compress, repeat
from typing import Any, TypeVar

import msgspec
import xxhash

from core.errors import ConfigError, QueryFailed, RowRejected
from core.message.cells import CannotEncode, encoding_reason, key_text
from core.message.column_types import cell_encoder, column_encoder
from core.message.field_types import field_of
from core.message.keys import KeyEncoder
from core.message.predicate import parse_predicate
from core.message.record_fields import NO_FIELDS, RecordFields, RowFields, columns_of_records
from core.message.shapes import shape_of
from core.message.value_formats import MAGIC, Formats
from core.model.job import Job
from core.model.run import Reject
from core.model.source import Column, Rows

__all__ = ["NULL_KEY", "Encoded", "Envelope", "proves_data"]

NULL_KEY = "the key is null"
KEYLESS_TOMBSTONE = "a tombstone without a key would delete nothing"
MOST_EQUAL_ROWS = 10_000
"""How many equal rows of one run `proves_data` considers."""
_DATA, _METADATA = b'{"data":', b',"metadata":{"source":'
T = TypeVar("T")
_EVENT_DATA = b',"data":'
_has_to_be_escaped = re.compile(r'["\\\x00-\x1f]').search


@dataclass(frozen=True, slots=True)
class Encoded:
    """Encoded rows of one fetch. The first four lists have the same length."""

    row_numbers: list[int]
    keys: list[bytes | None]
    data: list[bytes]
    """What of each value does not depend on when it is published: by default the JSON object of the row."""
    message_ids: list[bytes]
    rejects: list[Reject]
    extracted_at: datetime
    fields: RowFields = NO_FIELDS
    """What of the rows goes into their records beside key and value."""
    tombstones: list[bool] | None = None
    """Which rows are sent as tombstones; None: none of them."""
    key_texts: list[bytes | None] | None = None
    """The keys as text; None: they are text themselves."""

    @property
    def readable_keys(self) -> list[bytes | None]:
        """The keys as text, for people and for the records of sends."""
        return self.keys if self.key_texts is None else self.key_texts

    def kept(self, are_kept: Sequence[bool]) -> Encoded:
        """Returns these rows only, with all rejects."""
        return replace(
            self,
            row_numbers=list(compress(self.row_numbers, are_kept)),
            keys=list(compress(self.keys, are_kept)),
            data=list(compress(self.data, are_kept)),
            message_ids=list(compress(self.message_ids, are_kept)),
            fields=self.fields.kept(are_kept),
            tombstones=None if self.tombstones is None else list(compress(self.tombstones, are_kept)),
            key_texts=None if self.key_texts is None else list(compress(self.key_texts, are_kept)),
        )


def proves_data(message_id: str, value: bytes | None, slug: str, scheduled_at: datetime) -> bool | None:
    """Returns whether the row in a message is byte for byte what the id was computed from, a hash of 128 bits.

    The metadata is not part of the hash, as it holds times.

    Args:
        message_id: The id that the row was sent with.
        value: The whole message; None: a tombstone.
        slug: The job's.
        scheduled_at: Of the run, aware.

    Returns:
        None if that cannot be said: only JSON with the row in it has the bytes that were hashed.
    """
    if value is None or not value.endswith(b"}"):
        return None
    if value.startswith(MAGIC):  # JSON Schema; what is binary proves nothing below
        value = value[5:]
    rows = {value[value.find(mark) + len(mark) : end] for mark, end in _places(value) if value.find(mark) >= 0}
    seeds = _seed(slug, scheduled_at), _seed(slug)
    firsts = [xxhash.xxh3_128_hexdigest(row, seed) for row in (*rows, value) for seed in seeds]
    numbers = range(1, MOST_EQUAL_ROWS)
    is_proven = message_id in firsts or any(
        message_id == xxhash.xxh3_128_hexdigest(first.encode(), number) for first in firsts for number in numbers
    )
    return True if is_proven else False if value.startswith(_DATA) else None


def _places(value: bytes) -> Iterator[tuple[bytes, int]]:
    """Yields what may precede the row in a message, and where the row may end."""
    # With or without metadata; a column of JSON may hold what looks like the beginning of ours.
    for end in (value.rfind(_METADATA), len(value) - 1):
        if end > 0 and value.startswith(_DATA):
            yield _DATA, end
    yield _EVENT_DATA, len(value) - 1


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
        formats: Topic, registry and given schemas, for every format but JSON and text.

    Raises:
        QueryFailed: Two columns have the same name, or a column cannot be sent; the remedy is the SQL to write.
        ConfigError: The job names a column that the result does not have, or there is no registry for its format.
        SchemaRefused, RegistryUnavailable, NotAuthorised: As `core.model.schema.Schemas.id_of`.
    """

    def __init__(
        self, columns: Sequence[Column], job: Job, *, scheduled_at: datetime, formats: Formats | None = None
    ) -> None:
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
        self._fields = RecordFields(self.columns, job, self._cells)
        self._record = _record(self._names)
        self._json = msgspec.json.Encoder(decimal_format="number").encode
        self._seed = _seed(job.slug, None if job.incremental else scheduled_at)
        self._duplicates = DuplicateRows()
        fields = [field_of(c, overrides.get(c.name.lower()), job.decimals) for c in columns]
        formats = formats or Formats()
        self._shape = shape_of(job, self.columns, fields, formats)
        self._key_encoder = None
        if job.key_format != "text":
            key_columns = [self.columns[k] for k in self._key_indexes]
            self._key_encoder = KeyEncoder(job, key_columns, [fields[k] for k in self._key_indexes], formats)
        self._tombstone = parse_predicate(job.null_value_when) if job.null_value_when else None
        self.fields = tuple(fields)
        """What each column is in a schema."""
        self.value_schema = self._shape.format.schema
        """None: the values are plain JSON."""
        self.key_schema = None if self._key_encoder is None else self._key_encoder.schema

    def encode(self, rows: Rows) -> Encoded:
        """Encodes the rows of one fetch; rows with a value that cannot be encoded are in `rejects`."""
        bad: dict[int, RowRejected] = {}
        count = len(rows.rows)
        given = _columns_of(rows.rows, len(self.columns))
        values = [self._column(i, column, bad) for i, column in enumerate(given)]
        texts = self._keys(given, count, bad)
        tombstones = self._tombstones(values, texts, count, bad)
        fields = NO_FIELDS if self._fields.is_empty else self._fields.of(given, count, bad)
        data = self._rows(values, range(count), bad)
        left = [i for i in range(count) if i not in bad] if bad else None
        if left is not None:
            values, data, texts = (
                [_picked(column, left) for column in values],
                _picked(data, left),
                _picked(texts, left),
            )
        found: dict[int, RowRejected] = {}
        shaped = self._shape.rows(values, data, found)
        keys: list[bytes | None] = texts
        if self._key_encoder is not None:
            keys = self._key_encoder.keys([values[k] for k in self._key_indexes], texts, found)
        if found:
            bad |= {left[i] if left is not None else i: reason for i, reason in found.items()}
            good = [i for i in range(len(data)) if i not in found]
            data, shaped = _picked(data, good), _picked(shaped, good)
            texts, keys = _picked(texts, good), _picked(keys, good)
        ids = self._ids(data)
        kept = range(count) if not bad else [i for i in range(count) if i not in bad]
        return Encoded(
            [rows.first_row + i for i in kept] if bad else list(range(rows.first_row, rows.first_row + count)),
            keys,
            self._shape.bodies(shaped, ids, texts, rows.extracted_at),
            ids,
            [self._reject(rows, i, reason) for i, reason in sorted(bad.items())],
            rows.extracted_at,
            fields.kept([i not in bad for i in range(count)]) if bad else fields,
            None if tombstones is None else _picked(tombstones, kept),
            None if self._key_encoder is None else texts,
        )

    def wrap(self, data: Sequence[bytes], *, extracted_at: datetime, published_at: datetime) -> list[bytes]:
        """Returns the message values: the data of each row, with metadata where the job wants it.

        Args:
            data: `Encoded.data` of rows that are published together.
            extracted_at: When they were fetched.
            published_at: When they are published.
        """
        return self._shape.wrap(data, extracted_at, published_at)

    def values(
        self, encoded: Encoded, *, published_at: datetime, start: int = 0, stop: int | None = None
    ) -> list[bytes | None]:
        """Returns the values of these rows; None for a tombstone."""
        some = encoded.data[start:stop]
        values: list[bytes | None] = [*self.wrap(some, extracted_at=encoded.extracted_at, published_at=published_at)]
        if encoded.tombstones is None:
            return values
        return [None if dead else value for dead, value in zip(encoded.tombstones[start:stop], values, strict=True)]

    def headers(self, encoded: Encoded) -> tuple[tuple[str, bytes], ...]:
        """Returns the headers of the job's envelope that are the same for each of these rows."""
        return self._shape.headers(encoded.extracted_at)

    def header_columns(self, encoded: Encoded) -> tuple[tuple[str, Sequence[bytes | None]], ...]:
        """Returns the headers of the job's envelope with a value for each of these rows."""
        return self._shape.header_columns(encoded.message_ids, encoded.readable_keys)

    def _tombstones(
        self,
        values: Sequence[Sequence[Any]],
        keys: Sequence[bytes | None],
        count: int,
        bad: dict[int, RowRejected],
    ) -> list[bool] | None:
        """Returns which rows are tombstones; one without a key would delete nothing, so it is rejected."""
        if self._tombstone is None:
            return None
        found = self._tombstone.of(dict(zip(self._names, values, strict=True)), count)
        for i, (dead, key) in enumerate(zip(found, keys, strict=True)):
            if dead and key is None:
                bad.setdefault(i, RowRejected(KEYLESS_TOMBSTONE))
        return found

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


def _columns_of(rows: Sequence[Sequence[Any]], width: int) -> list[Sequence[Any]]:
    """Returns the columns of rows of this width; slices of one list take half of the time of `zip`."""
    cells = list(chain.from_iterable(rows))
    if len(cells) != len(rows) * width:
        raise ValueError(f"{len(rows)} rows of {width} columns have {len(cells)} values")
    return [cells[place::width] for place in range(width)]


def _picked(column: Sequence[T], indexes: Sequence[int]) -> list[T]:
    return [column[i] for i in indexes]


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
    condition = parse_predicate(job.null_value_when).columns if job.null_value_when else ()
    wanted = [("kafka_config.message_key_field", name) for name in _key_fields(job)]
    wanted += [("types", name) for name in job.types]
    wanted += [("null_value_when", name) for name in condition]
    wanted += columns_of_records(job)
    for place, name in wanted:
        if name.lower() not in names:
            braces = f"; text in braces is written {{{{{name}}}}}" if place.startswith("headers.") else ""
            raise ConfigError(
                f'job "{job.name}": {place} names column {name}, which the query does not return',
                remedy=f"its columns are: {', '.join(names)}{braces}",
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
