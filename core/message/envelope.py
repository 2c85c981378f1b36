"""From a row to a message: its key, its JSON and its identity. Pure: no clock, no connection.

The work goes by columns, not by rows. A column is looked at as a whole (its Python types, one
regular expression over all its text) and, where nothing is unusual, taken over by a C-level loop;
only a column that holds something unusual is walked cell by cell, and only the rows at fault are
rejected. That keeps a 12-column row near 1.5 µs; one Python call per cell would make it 6 µs.
"""

from __future__ import annotations

import base64
import json
import math
import re
from binascii import hexlify
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec
import xxhash

from core.clock import iso_utc
from core.errors import ConfigError, QueryFailed, RowRejected
from core.model.job import Job, TypeOverride
from core.model.run import Reject
from core.model.source import Column, ColumnType, Rows
from core.version import __version__

__all__ = ["NULL_KEY", "TOO_DEEP", "Encoded", "Envelope", "proves_data"]

SYSTEM = "PSTT_Tool"
NULL_KEY = "the key is null"
MOST_EQUAL_ROWS = 10_000
"""Equal rows of one run whose ids are tried to prove one of them."""
_DATA, _METADATA = b'{"data":', b',"metadata":{"source":'
SAFE_INTEGER = 2**53
"""Readers that hold numbers as doubles (JavaScript, jq) are exact up to here."""

TOO_DEEP = "the value is nested too deeply: some 800 levels can be read"
SURELY_FLAT = 500
"""A JSON text with so few brackets is not nested too deeply for any reader of ours."""
SPARE_LEVELS = 60
"""A JSON text has to be readable inside so many more lists, as readers of the message call from deeper in the stack."""

_NUMBER = r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?"
# True dates only, since SQLite keeps whatever it is given; 29 February of 2000 and of no leap year is looked at alone.
_DATE = (
    r"(?:[0-9]{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)"
    r"|02-(?:0[1-9]|1[0-9]|2[0-8]))|[0-9]{2}(?:0[48]|[2468][048]|[13579][26])-02-29)"
)
_DATETIME = _DATE + r"[ T](?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,6})?"
_has_to_be_escaped = re.compile(r'["\\\x00-\x1f]').search
_is_number = re.compile(_NUMBER).fullmatch
_is_interval = re.compile(
    r"-?P(?=.)(?:-?\d+Y)?(?:-?\d+M)?(?:-?\d+W)?(?:-?\d+D)?(?:T(?=.)(?:-?\d+H)?(?:-?\d+M)?(?:-?\d+(?:\.\d+)?S)?)?"
).fullmatch
_is_time = re.compile(
    r"(?:(?:[01][0-9]|2[0-3]):[0-5][0-9](?::[0-5][0-9](?:\.[0-9]{1,9})?)?|24:00(?::00(?:\.0+)?)?)"
    r"(?:Z|[+-][0-9]{2}(?::?[0-9]{2}){0,2})?"
).fullmatch
_all_numbers = re.compile(rf"(?:{_NUMBER}\n)*").fullmatch
_all_dates = re.compile(rf"(?:{_DATE}\n)*").fullmatch
_all_datetimes = re.compile(rf"(?:{_DATETIME}\n)*").fullmatch
_all_utc_datetimes = re.compile(rf"(?:{_DATETIME}\+00\n)*").fullmatch
_datetime_text = re.compile(
    r"(?P<date>[0-9]{4}-[0-9]{2}-[0-9]{2})"
    r"(?:[ T](?P<time>[0-9]{2}:[0-9]{2}(?::[0-9]{2})?)(?:\.(?P<fraction>[0-9]{1,9}))?"
    r"\s?(?P<offset>Z|[+-][0-9]{2}(?::?[0-9]{2})?(?::?[0-9]{2})?)?)?"
).fullmatch

Cell = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Encoded:
    """Rows of one fetch that became messages; the four lists have the same length."""

    row_numbers: list[int]
    keys: list[bytes | None]
    data: list[bytes]
    """The JSON object of each row, without the envelope around it."""
    message_ids: list[bytes]
    rejects: list[Reject]
    extracted_at: datetime


def proves_data(message_id: str, value: bytes, slug: str, scheduled_at: datetime) -> bool:
    """Whether the `data` of a message is byte for byte what got that id: the id is a hash of 128 bits over it.

    The metadata around it is not part of the hash, as it holds times.

    Args:
        message_id: As it was given to the row.
        value: The whole message.
        slug: The job's.
        scheduled_at: Of the run, aware.
    """
    if not value.startswith(_DATA):
        return False
    # With or without metadata; a column of JSON may hold what looks like the beginning of ours.
    ends = {end for end in (value.rfind(_METADATA), len(value) - 1) if end > 0}
    seed = _seed(slug, scheduled_at)
    firsts = [xxhash.xxh3_128_hexdigest(value[len(_DATA) : end], seed) for end in ends]
    numbers = range(1, MOST_EQUAL_ROWS)
    return message_id in firsts or any(
        message_id == xxhash.xxh3_128_hexdigest(first.encode(), number) for first in firsts for number in numbers
    )


def _seed(slug: str, scheduled_at: datetime) -> int:
    return xxhash.xxh3_64_intdigest(f"{slug}\0{scheduled_at.astimezone(UTC).isoformat()}".encode())


class Envelope:
    """The plan for one result: how each column becomes JSON, what makes the key, what stands around it.

    Args:
        columns: The result's columns, in order.
        job: Decides key, types, decimals and metadata.
        scheduled_at: Aware; with the job's slug it seeds `message_id`, so that every attempt gives the same.

    Raises:
        QueryFailed: Two columns share a name, or a column may not be sent at all; names the SQL to write.
        ConfigError: The job names a column that the result does not have.
    """

    def __init__(self, columns: Sequence[Column], job: Job, *, scheduled_at: datetime) -> None:
        from core.message.duplicates import DuplicateRows  # numpy takes 100 ms to import

        _refuse_unusable(columns)
        self.columns = tuple(columns)
        self._names = [column.name.lower() for column in columns]
        _refuse_unknown(job, self._names)
        overrides = {name.lower(): override for name, override in job.types.items()}
        self._cells = [_cell(c, overrides.get(c.name.lower()), job.decimals) for c in columns]
        self._fast = [None if c.name.lower() in overrides else _fast(c, job.decimals) for c in columns]
        self._key_indexes = [self._names.index(name.lower()) for name in _key_fields(job)]
        self._key_separator = job.key_separator
        self._on_null_key = job.on_null_key
        self._record = _record(self._names)
        self._json = msgspec.json.Encoder(decimal_format="number").encode
        self._seed = _seed(job.slug, scheduled_at)
        self._repeats = DuplicateRows()
        self._include_metadata = job.kafka_config.include_metadata
        source = {"system": SYSTEM, "version": __version__, "connection": job.connection, "query": job.query}
        self._source = b',"metadata":{"source":' + self._json(source) + b',"timestamp":"'

    def encode(self, rows: Rows) -> Encoded:
        """Turns the rows of one fetch into keys, JSON and ids; what cannot be turned is in `rejects`."""
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
        """The message values around the JSON of rows that are handed over together, at `published_at`."""
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
            except _Unfit as unfit:
                bad.setdefault(i, RowRejected(str(unfit), column=described.name, database_type=described.database_type))
                out.append(None)
        return out

    def _rows(self, values: list[Sequence[Any]], kept: Iterable[int], bad: dict[int, RowRejected]) -> list[bytes]:
        try:
            return list(map(self._json, map(self._record, *values)))
        except (UnicodeError, ValueError, TypeError, OverflowError, RecursionError):
            return [self._row([column[i] for column in values], i, bad) for i in kept]

    def _row(self, cells: list[Any], index: int, bad: dict[int, RowRejected]) -> bytes:
        """One row on its own, to find the cell at fault."""
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
                        _encoding_reason(error), column=column.name, database_type=column.database_type
                    )
                    return b""
            raise

    def _keys(self, given: list[Any], count: int, bad: dict[int, RowRejected]) -> list[bytes | None]:
        if not self._key_indexes:
            return [None] * count
        if len(self._key_indexes) == 1:
            try:
                # The usual key, a text column, at C speed; None and lone surrogates end up below.
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
                texts.append(_key_text(self._cells[k](part)))
            except _Unfit as unfit:
                bad.setdefault(index, RowRejected(str(unfit), column=column.name, database_type=column.database_type))
                return None
        try:
            return self._key_separator.join(texts).encode()
        except UnicodeError as error:
            column = self.columns[self._key_indexes[0]]
            bad.setdefault(
                index,
                RowRejected(_encoding_reason(error), column=column.name, database_type=column.database_type),
            )
            return None

    def _ids(self, data: list[bytes]) -> list[bytes]:
        digest, seed = xxhash.xxh3_128_digest, self._seed
        digests = [digest(row, seed) for row in data]
        text = hexlify(b"".join(digests))
        ids = [text[i : i + 32] for i in range(0, len(text), 32)]
        if digests:
            # Rows that are equal in every column are different rows all the same.
            for i, number in self._repeats.numbers(digests).items():
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
    """Makes one row of its cells, in the form that msgspec writes as a JSON object of these names."""
    if any(map(_has_to_be_escaped, names)):  # msgspec takes no such names for a struct; a dict takes twice the time
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


def _key_text(value: Any) -> str:
    """The key as plain text: what stands in the JSON, without quotes, and a whole number without `.0`."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, msgspec.Raw):
        text = bytes(value).decode()
        whole, dot, fraction = text.partition(".")
        return whole if dot and not fraction.strip("0") else text
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, int | float):
        return str(value)
    raise _Unfit("a list or an object cannot be a key")


def _plain(value: Any) -> str:
    if isinstance(value, list | dict):
        raise _Unfit("a list or an object has no plain text form")
    return _key_text(value)


def _shown(value: Any) -> str | None:
    if value is None:
        return None
    try:
        text = f"{len(value)} bytes" if isinstance(value, bytes | bytearray | memoryview) else str(value)
    except RecursionError:
        return f"a {type(value).__name__} that is nested too deeply"
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= 500 else text[:500] + "…"


def _encoding_reason(error: Exception) -> str:
    if isinstance(error, UnicodeEncodeError) and "\udc80" <= error.object[error.start] <= "\udcff":
        return "the text is not valid UTF-8"  # a source has decoded it with surrogateescape
    if isinstance(error, UnicodeError):
        return "the text holds half of a character (a lone surrogate) and has no UTF-8 form"
    if isinstance(error, RecursionError):
        return TOO_DEEP
    return f"the value has no JSON form ({type(error).__name__})"


class _Unfit(Exception):
    """Why a value cannot be sent; never the value itself."""


def _integer(value: Any) -> Any:
    if type(value) is int:
        return value
    if isinstance(value, bool):
        return int(value)
    number = _exact(value)
    if number != number.to_integral_value():
        raise _Unfit("not a whole number")
    return int(number)


def _exact(value: Any) -> Decimal:
    """The value as a finite Decimal with exactly its digits."""
    if isinstance(value, float):
        value = repr(value)
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
        raise _Unfit(f"{type(value).__name__} is not a number")
    try:
        number = Decimal(value.strip() if isinstance(value, str) else value)
    except InvalidOperation:
        raise _Unfit("the text is not a number") from None
    if number.is_nan():
        raise _Unfit("NaN has no JSON form")
    if number.is_infinite():
        raise _Unfit("Infinity has no JSON form")
    return number


def _digits(value: Any) -> str:
    if isinstance(value, str) and _is_number(value):
        return value
    return format(_exact(value), "f")


def _decimal(value: Any) -> Any:
    return msgspec.Raw(_digits(value).encode())


def _float(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise _Unfit(f"{type(value).__name__} is not a number")
    if isinstance(value, Decimal) and value.is_snan():
        raise _Unfit("NaN has no JSON form")
    number = float(value)
    if math.isnan(number):
        raise _Unfit("NaN has no JSON form")
    if math.isinf(number):
        raise _Unfit("Infinity has no JSON form")
    return number


def _datetime_parts(value: Any) -> re.Match[str]:
    if not isinstance(value, str):
        raise _Unfit(f"{type(value).__name__} is not a date")
    parts = _datetime_text(value)
    if parts is None:
        raise _Unfit("the text is not a date between the years 0001 and 9999")
    try:
        date.fromisoformat(parts["date"])
        if parts["time"]:
            time.fromisoformat(parts["time"])
    except ValueError:
        raise _Unfit("no such date") from None
    return parts


def _date(value: Any) -> str:
    if isinstance(value, date):  # a datetime is a date too
        return value.isoformat()[:10]
    return _datetime_parts(value)["date"]


def _date_with_clock(value: Any) -> str:
    """The date alone at midnight, else with its clock: SQLite keeps one in a DATE column, and it may not be lost."""
    if isinstance(value, date):
        return value.isoformat()[:10] if not isinstance(value, datetime) else _date_of_moment(_datetime(value))
    parts = _datetime_parts(value)
    return parts["date"] if parts["time"] is None else _date_of_moment(_datetime(value))


def _date_of_moment(text: str) -> str:
    return text.replace("T00:00:00.000000", "", 1).replace(".000000", "", 1) if len(text) == 26 else text


def _oracle_date(value: Any) -> str:
    text = _seconds(value)
    return text[:10] if text.endswith("T00:00:00") else text


def _seconds(value: Any) -> str:
    """`YYYY-MM-DDTHH:MM:SS`: the shape of an Oracle DATE, which has no fraction."""
    if isinstance(value, datetime):
        return value.isoformat(timespec="seconds")
    if isinstance(value, date):
        return f"{value.isoformat()}T00:00:00"
    return _datetime(value)[:19]


def _datetime(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat(timespec="microseconds")
    if isinstance(value, date):
        return f"{value.isoformat()}T00:00:00.000000"
    parts = _datetime_parts(value)
    clock = parts["time"] or "00:00:00"
    clock = clock if len(clock) == 8 else f"{clock}:00"
    fraction = (parts["fraction"] or "").ljust(6, "0")[:6]
    return f"{parts['date']}T{clock}.{fraction}{_offset(parts['offset'])}"


def _offset(text: str | None) -> str:
    if not text:
        return ""
    if text == "Z":
        return "+00:00"
    digits = text[1:].replace(":", "").ljust(4, "0")
    pairs = [digits[i : i + 2] for i in range(0, len(digits), 2)]
    return text[0] + ":".join(pairs)


def _datetime_tz(value: Any) -> str:
    if isinstance(value, datetime):
        if value.utcoffset() is None:
            raise _Unfit("the driver dropped the time zone")
        return value.isoformat(timespec="microseconds")
    text = _datetime(value)
    if len(text) == 26:
        raise _Unfit("the time zone is missing")
    return text


def _time(value: Any) -> str:
    if isinstance(value, time):
        return value.isoformat()
    if isinstance(value, timedelta):
        if not timedelta(0) <= value < timedelta(days=1):
            raise _Unfit("the time of day is not below 24 hours")
        return (datetime(1, 1, 1) + value).time().isoformat()  # noqa: DTZ001 - only its clock is used
    if not isinstance(value, str):
        raise _Unfit(f"{type(value).__name__} is not a time of day")
    if not _is_time(value):
        raise _Unfit("the text is not a time of day")
    return value


def _interval(value: Any) -> str:
    if isinstance(value, timedelta):
        return _iso_duration(value)
    if isinstance(value, tuple) and len(value) == 2:
        years, months = value
        return f"P{years}Y{months}M"
    if isinstance(value, str) and _is_interval(value):
        return value
    raise _Unfit(f"{type(value).__name__} is not an interval")


def _iso_duration(value: timedelta) -> str:
    """ISO 8601 by days, hours, minutes and seconds; the sign stands before the P."""
    sign = "-" if value < timedelta(0) else ""
    value = abs(value)
    minutes, seconds = divmod(value.seconds, 60)
    hours, minutes = divmod(minutes, 60)
    fraction = f".{value.microseconds:06}".rstrip("0") if value.microseconds else ""
    parts = [f"{hours}H" if hours else "", f"{minutes}M" if minutes else ""]
    parts.append(f"{seconds}{fraction}S" if seconds or fraction else "")
    clock = "".join(parts)
    days = f"{value.days}D" if value.days else ""
    if not days and not clock:
        return "PT0S"
    return f"{sign}P{days}{'T' + clock if clock else ''}"


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    raise _Unfit(f"{type(value).__name__} has no plain text form")


def _bytes(value: Any) -> bytes:
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    raise _Unfit(f"{type(value).__name__} is not binary")


def _boolean(value: Any) -> bool:
    if isinstance(value, int) and value in (0, 1):
        return bool(value)
    raise _Unfit(f"{type(value).__name__} is neither true nor false")


def _json_value(value: Any) -> Any:
    """Text is looked at once, as not every database guarantees it; structures are walked, since msgspec writes NaN as null."""
    try:
        if not isinstance(value, str | bytes):
            return _structure(value)
        text = value.encode() if isinstance(value, str) else value
        msgspec.json.decode(text, type=msgspec.Raw)
        if text.count(b"[") + text.count(b"{") > SURELY_FLAT:
            msgspec.json.decode(b"[" * SPARE_LEVELS + text + b"]" * SPARE_LEVELS, type=msgspec.Raw)
        return msgspec.Raw(text)
    except RecursionError:
        raise _Unfit(TOO_DEEP) from None
    except UnicodeEncodeError as error:
        raise _Unfit(_encoding_reason(error)) from None
    except ValueError:
        raise _Unfit(_json_reason(value)) from None


def _json_reason(value: str | bytes) -> str:
    """Python's reader takes an escaped half of a character, which no reader can turn into text."""
    try:
        json.loads(value, parse_constant=_no_constant)
    except RecursionError:
        return TOO_DEEP
    except ValueError:
        return "the text is not JSON"
    return "the text escapes half of a character (a lone surrogate), which has no UTF-8 form"


def _no_constant(name: str) -> None:
    raise ValueError(name)


def _structure(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _structure(member) for name, member in value.items()}
    if isinstance(value, list | tuple):
        return [_structure(member) for member in value]
    if isinstance(value, float):
        return _float(value)
    if isinstance(value, Decimal):
        return _decimal(value)
    if isinstance(value, datetime):
        return _datetime(value)
    if isinstance(value, date):
        return _date(value)
    if isinstance(value, timedelta):
        return _iso_duration(value)
    if value is None or isinstance(value, str | int | bytes):
        return value
    raise _Unfit(f"{type(value).__name__} has no JSON form")


def _unknown(value: Any) -> Any:
    """Where the column has no type (SQLite), the value's own decides."""
    if isinstance(value, str | int | bytes):
        return value
    if isinstance(value, float):
        return _float(value)
    raise _Unfit(f"{type(value).__name__} has no JSON form; set it under `types`, or convert it in the query")


def _array(element: Cell) -> Cell:
    def convert(value: Any) -> Any:
        if not isinstance(value, list | tuple):
            raise _Unfit(f"{type(value).__name__} is not an array")
        return [None if v is None else convert(v) if isinstance(v, list | tuple) else element(v) for v in value]

    return convert


_CELLS: dict[ColumnType, Cell] = {
    "integer": _integer,
    "decimal": _decimal,
    "float": _float,
    "date": _date_with_clock,
    "oracle_date": _oracle_date,
    "datetime": _datetime,
    "datetime_tz": _datetime_tz,
    "time": _time,
    "interval": _interval,
    "text": _text,
    "char": _text,
    "bytes": _bytes,
    "json": _json_value,
    "boolean": _boolean,
    "unknown": _unknown,
}


def _cell(column: Column, override: TypeOverride | None, decimals: str) -> Cell:
    """The function for one value of a column, which is never None."""
    if override is not None:
        return _overridden(column, override)
    if column.kind == "array":
        return _array(_cell(Column(column.name, column.element or "unknown", ""), None, decimals))
    if column.kind == "decimal" and decimals == "string":
        return _digits
    if column.kind == "decimal" and decimals == "float":
        return lambda value: _float(_exact(value))
    if column.kind == "integer" and decimals == "string":
        return _safe_integer
    return _CELLS[column.kind]


def _safe_integer(value: Any) -> Any:
    number = _integer(value)
    return number if abs(number) <= SAFE_INTEGER else str(number)


def _overridden(column: Column, override: TypeOverride) -> Cell:
    plain = _cell(column, None, "number")
    table: dict[TypeOverride, Cell] = {
        "date": _date,
        "datetime": _seconds if column.kind == "oracle_date" else _datetime,
        "integer": _integer,
        "decimal": _decimal,
        "json": _json_value,
        "base64": lambda value: value.encode() if isinstance(value, str) else _bytes(value),
        "string": lambda value: _text(value).rstrip(" ") if column.kind in ("char", "text") else _plain(plain(value)),
    }
    return table[override]


Fast = Callable[[Sequence[Any]], "Sequence[Any] | None"]
"""The converted column, or None where it holds something that has to be looked at cell by cell."""

_NONE = type(None)


def _holding(*types: type) -> Fast:
    """Takes the column as it is when all its values are exactly of these types."""
    allowed = {*types, _NONE}
    return lambda column: column if allowed.issuperset(map(type, column)) else None


def _fast_float(column: Sequence[Any]) -> Sequence[Any] | None:
    types = set(map(type, column))
    if types == {float}:
        return column if all(map(math.isfinite, column)) else None
    if types <= {float, _NONE}:
        return column if all(map(math.isfinite, (v for v in column if v is not None))) else None
    return None


def _text_column(matches: Callable[[str], object], convert: Callable[[Sequence[str]], list[Any]]) -> Fast:
    """For columns of text in one shape, looked at by one regular expression over all of it."""

    def fast(column: Sequence[Any]) -> Sequence[Any] | None:
        types = set(map(type, column))
        if types == {str}:
            return convert(column) if _are(matches, column) else None
        if types != {str, _NONE}:
            return None
        present = [v for v in column if v is not None]
        if not _are(matches, present):
            return None
        converted = iter(convert(present))
        return [None if v is None else next(converted) for v in column]

    return fast


def _are(matches: Callable[[str], object], column: Sequence[str]) -> bool:
    """Whether each text has the shape; one that holds a line break could pass for two."""
    text = "\n".join(column)
    return text.count("\n") == len(column) - 1 and bool(matches(text + "\n"))


def _first(*ways: Fast) -> Fast:
    def fast(column: Sequence[Any]) -> Sequence[Any] | None:
        return next((taken for way in ways if (taken := way(column)) is not None), None)

    return fast


def _all(kind: type, convert: Callable[[Any], Any]) -> Fast:
    """Applies `convert` to each value of exactly one type."""
    allowed = {kind, _NONE}

    def fast(column: Sequence[Any]) -> Sequence[Any] | None:
        if not allowed.issuperset(map(type, column)):
            return None
        return [None if v is None else convert(v) for v in column]

    return fast


def _plausible_dates(text: str) -> bool:
    """Year 0000 is none."""
    return _all_dates(text) is not None and "0000-" not in text


def _plausible_datetimes(text: str) -> bool:
    return _all_datetimes(text) is not None and "0000-" not in text


def _plausible_utc_datetimes(text: str) -> bool:
    return _all_utc_datetimes(text) is not None and "0000-" not in text


_MISSING_DIGITS = {19: ".000000", 21: "00000", 22: "0000", 23: "000", 24: "00", 25: "0", 26: ""}
"""Length of a moment as PostgreSQL writes it, trailing zeros left out → what it lacks of six digits."""


def _six_digits(column: Sequence[str]) -> list[str]:
    return [v if len(v) == 26 else v + _MISSING_DIGITS[len(v)] for v in "\n".join(column).replace(" ", "T").split("\n")]


def _utc_six_digits(column: Sequence[str]) -> list[str]:
    return [v + "+00:00" for v in _six_digits("\n".join(column).replace("+00", "").split("\n"))]


_raw_numbers = _text_column(
    lambda text: _all_numbers(text), lambda column: [*map(msgspec.Raw, map(str.encode, column))]
)

_FAST: dict[ColumnType, Fast] = {
    "integer": _holding(int),
    "decimal": _first(_raw_numbers, _holding(int)),
    "float": _fast_float,
    "date": _first(_text_column(_plausible_dates, list), _all(date, date.isoformat)),
    "datetime": _first(
        _text_column(_plausible_datetimes, _six_digits),
        _all(datetime, lambda v: v.isoformat("T", "microseconds")),
    ),
    "datetime_tz": _text_column(_plausible_utc_datetimes, _utc_six_digits),
    "text": _holding(str),
    "char": _holding(str),
    "bytes": _holding(bytes),
    "boolean": _holding(bool),
    "unknown": _first(_holding(str, int, bool, bytes), _fast_float),
}


def _fast(column: Column, decimals: str) -> Fast | None:
    if decimals != "number" and column.kind in ("decimal", "integer"):
        return None
    return _FAST.get(column.kind)
