"""What of a row goes into its record beside key and value: headers, the record's time, and the text that places it.

Each is made by columns, and only where the job wants it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from itertools import compress
from typing import Any
from zoneinfo import ZoneInfo

from core.errors import RowRejected
from core.message.cells import CannotEncode, CellEncoder, encoding_reason, key_text
from core.model.job import Job
from core.model.publisher import NO_TIME
from core.model.source import Column

__all__ = ["NO_FIELDS", "RecordFields", "RowFields", "columns_of_header", "columns_of_records", "fixed_headers"]

Rejects = dict[int, RowRejected]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_LATEST_MS = 253_402_300_799_999
"""The end of year 9999."""
# A pair of doubled braces is that text in single ones. JSON in a header, which has quotes and colons, stays as it is.
_PLACEHOLDER = re.compile(r"\{\{([\w $#.\-]+)\}\}|\{([^\W\d][\w $#.\-]*)\}")


@dataclass(frozen=True, slots=True)
class RowFields:
    """Headers, times and placement of the rows of one fetch; each list has a value for each row."""

    headers: tuple[tuple[str, list[bytes | None]], ...] = ()
    """Headers that are made from columns; None: the row has no such header."""
    timestamps_ms: list[int] | None = None
    """Unix time of each record, in ms, or NO_TIME; None: the job has no `timestamp_field`."""
    placed_by: list[bytes] | None = None
    """The text of `partition_field`; None: the job has none."""

    def kept(self, are_kept: Sequence[bool]) -> RowFields:
        """Returns the fields of these rows only."""
        if not (self.headers or self.timestamps_ms or self.placed_by):
            return self
        return RowFields(
            tuple((name, list(compress(values, are_kept))) for name, values in self.headers),
            None if self.timestamps_ms is None else list(compress(self.timestamps_ms, are_kept)),
            None if self.placed_by is None else list(compress(self.placed_by, are_kept)),
        )


NO_FIELDS = RowFields()
"""Of a job whose records have nothing but key and value from their rows."""


def fixed_headers(job: Job) -> tuple[tuple[str, bytes], ...]:
    """Returns the job's headers that are the same for each message, as UTF-8."""
    return tuple((name, _literal(text).encode()) for name, text in job.headers.items() if not columns_of_header(text))


def columns_of_header(text: str) -> list[str]:
    """Returns the columns that the text of a header names, in their order."""
    return [found[2] for found in _PLACEHOLDER.finditer(text) if found[2]]


def columns_of_records(job: Job) -> list[tuple[str, str]]:
    """Returns place and name of each column that the job's records need beside key and value, as its file writes them."""
    kafka = job.kafka_config
    found = [(f"headers.{name}", column) for name, text in job.headers.items() for column in columns_of_header(text)]
    found += [("kafka_config.partition_field", column) for column in _names(kafka.partition_field)]
    found += [("kafka_config.timestamp_field", column) for column in _names(kafka.timestamp_field)]
    return found


@dataclass(slots=True)
class RecordFields:
    """Makes the fields of rows.

    Args:
        columns: The result's columns, in order.
        job: Its settings; each column that it names is in the result.
        cells: The encoder of each column.
    """

    columns: Sequence[Column]
    job: Job
    cells: Sequence[CellEncoder]
    _headers: list[tuple[str, list[str | int]]] = field(init=False)
    """Header → its texts and the indexes of its columns, in their order."""
    _placing: list[int] = field(init=False)
    _time: int | None = field(init=False)
    _zone: ZoneInfo = field(init=False)

    def __post_init__(self) -> None:
        job, kafka = self.job, self.job.kafka_config
        index = {column.name.lower(): i for i, column in enumerate(self.columns)}
        self._headers = [(name, _parts(text, index)) for name, text in job.headers.items() if columns_of_header(text)]
        self._placing = [index[name.lower()] for name in _names(kafka.partition_field)]
        self._time = None if kafka.timestamp_field is None else index[kafka.timestamp_field.lower()]
        self._zone = ZoneInfo(job.timezone)

    @property
    def is_empty(self) -> bool:
        """Whether the job wants none of them."""
        return not (self._headers or self._placing or self._time is not None)

    def of(self, given: Sequence[Sequence[Any]], count: int, bad: Rejects) -> RowFields:
        """Returns the fields of rows.

        Args:
            given: The values by columns.
            count: The number of rows.
            bad: Row → why it is rejected; rows whose values have no text or no time are added.
        """
        texts: dict[int, list[str | None]] = {}

        def texts_of(column: int) -> list[str | None]:
            if column not in texts:
                texts[column] = self._texts(column, given[column], bad)
            return texts[column]

        headers = tuple((name, _header(parts, texts_of, count)) for name, parts in self._headers)
        placed_by = None
        if self._placing:
            joined = zip(*(texts_of(column) for column in self._placing), strict=True)
            separator = self.job.key_separator
            placed_by = [separator.join(text or "" for text in row).encode() for row in joined]
        times = None if self._time is None else self._times(self._time, given[self._time], bad)
        return RowFields(headers, times, placed_by)

    def _texts(self, index: int, values: Sequence[Any], bad: Rejects) -> list[str | None]:
        """Returns each value as the text of a key would be; None for NULL."""
        column, cell = self.columns[index], self.cells[index]
        out: list[str | None] = []
        for row, value in enumerate(values):
            text = None
            if value is not None:
                try:
                    text = key_text(cell(value))
                    text.encode()
                except CannotEncode as unfit:
                    text = None
                    bad.setdefault(row, _rejected(column, str(unfit)))
                except UnicodeError as error:
                    text = None
                    bad.setdefault(row, _rejected(column, encoding_reason(error)))
            out.append(text)
        return out

    def _times(self, index: int, values: Sequence[Any], bad: Rejects) -> list[int]:
        column, zone = self.columns[index], self._zone
        out: list[int] = []
        for row, value in enumerate(values):
            try:
                out.append(NO_TIME if value is None else _unix_ms(value, column, zone))
            except (CannotEncode, ValueError, OverflowError) as unfit:
                reason = str(unfit) if isinstance(unfit, CannotEncode) else "the value is no date and no time"
                bad.setdefault(row, _rejected(column, f"the record's time: {reason}"))
                out.append(NO_TIME)
        return out


def _unix_ms(value: Any, column: Column, zone: ZoneInfo) -> int:
    """Returns a time of the database in ms; one without a zone is in the job's, a number counts ms since 1970."""
    if isinstance(value, str):
        value = int(value) if column.kind in ("integer", "decimal") else datetime.fromisoformat(value.strip())
    if isinstance(value, datetime):
        aware = value if value.tzinfo else value.replace(tzinfo=zone)
        ms = (aware - _EPOCH) // _MILLISECOND
    elif isinstance(value, date):
        ms = (datetime.combine(value, time(), zone) - _EPOCH) // _MILLISECOND
    elif isinstance(value, int | Decimal) and not isinstance(value, bool) and value == int(value):
        ms = int(value)
    else:
        raise CannotEncode(f"a value of type {type(value).__name__} is no date, no time and no whole number of ms")
    if ms < 0:
        raise CannotEncode("it is before 1970, which Kafka does not take")
    if ms > _LATEST_MS:
        raise CannotEncode("it is after the year 9999; a number counts milliseconds")
    return ms


def _header(parts: Sequence[str | int], texts_of: Callable[[int], list[str | None]], count: int) -> list[bytes | None]:
    """Returns the value of a header for each row.

    A header that is one column and nothing else is left out where the column is NULL; in a longer text NULL is empty.
    """
    if len(parts) == 1 and isinstance(parts[0], int):
        return [None if text is None else text.encode() for text in texts_of(parts[0])]
    columns = [[part] * count if isinstance(part, str) else texts_of(part) for part in parts]
    return ["".join(text or "" for text in row).encode() for row in zip(*columns, strict=True)]


def _parts(text: str, index: Mapping[str, int]) -> list[str | int]:
    """Cuts the text of a header into plain texts and indexes of columns."""
    parts: list[str | int] = []
    end = 0
    for found in _PLACEHOLDER.finditer(text):
        if not found[2]:
            continue
        parts += [_literal(text[end : found.start()]), index[found[2].lower()]]
        end = found.end()
    parts.append(_literal(text[end:]))
    return [part for part in parts if part != ""]


def _literal(text: str) -> str:
    """Returns plain text with `{{NAME}}` as `{NAME}`."""
    return _PLACEHOLDER.sub(lambda found: f"{{{found[1]}}}" if found[1] else found[0], text)


def _names(fields: str | tuple[str, ...] | None) -> tuple[str, ...]:
    if fields is None:
        return ()
    return (fields,) if isinstance(fields, str) else fields


def _rejected(column: Column, reason: str) -> RowRejected:
    return RowRejected(reason, column=column.name, database_type=column.database_type)
