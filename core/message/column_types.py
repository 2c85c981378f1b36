"""Every column type with its encoders. A new column type is one entry in `COLUMN_TYPES`.

A type has an encoder for one value (`core.message.cells`) and, where that is faster, one for a whole column
(`core.message.vectorized`), which gives up when it meets anything unusual.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Literal

from core.message.cells import (
    CannotEncode,
    CellEncoder,
    as_boolean,
    as_bytes,
    as_text,
    decimal_digits,
    decimal_number,
    exact_decimal,
    finite_float,
    integer,
    iso_date,
    iso_date_or_datetime,
    iso_datetime,
    iso_datetime_with_offset,
    iso_interval,
    iso_seconds,
    iso_time,
    json_value,
    oracle_date,
    plain_text,
    untyped,
)
from core.message.vectorized import (
    ColumnEncoder,
    are_dates,
    are_datetimes,
    are_utc_datetimes,
    converted,
    exactly,
    finite_floats,
    first_of,
    kept,
    raw_numbers,
    text_column,
    utc_with_six_digits,
    with_six_digits,
)
from core.model.job import TypeOverride
from core.model.source import Column, ColumnType

__all__ = ["COLUMN_TYPES", "CellForm", "Encoders", "cell_encoder", "column_encoder"]

CellForm = Literal["number", "float", "moment", "time", "boolean", "json", "text", "value"]

SAFE_INTEGER = 2**53
"""Readers that hold numbers as doubles (JavaScript, jq) are exact up to here."""


@dataclass(frozen=True, slots=True)
class Encoders:
    """How the values of a column type become JSON."""

    cell: CellEncoder
    """For one value, which is never None."""
    column: ColumnEncoder | None = None
    """For all values of a block at once; None: each value is encoded by `cell`."""
    form: CellForm = "text"
    """How `parity` compares it with the cell of a file."""
    is_kept: bool = False
    """Whether the values of a uniform column (`Column.is_uniform`) need no encoding."""


# The comment of each entry says which values a source may return for the type.
COLUMN_TYPES: dict[ColumnType, Encoders] = {
    # int
    "integer": Encoders(integer, exactly(int), "number", is_kept=True),
    # Decimal, int, or str with the exact digits: "-12.50", also "NaN" and "Infinity", which are rejected
    "decimal": Encoders(decimal_number, first_of(raw_numbers, exactly(int)), "number"),
    # float; NaN and infinities are rejected
    "float": Encoders(finite_float, finite_floats, "float"),
    # date, or ISO text "YYYY-MM-DD"; text out of range such as "infinity" is rejected
    "date": Encoders(
        iso_date_or_datetime,
        first_of(text_column(are_dates, list, repeats=True), converted(date, date.isoformat)),
        "moment",
    ),
    # naive datetime: a date that carries a time
    "oracle_date": Encoders(oracle_date, None, "moment"),
    # naive datetime, or ISO text with a space or T between date and time
    "datetime": Encoders(
        iso_datetime,
        first_of(
            text_column(are_datetimes, with_six_digits),
            converted(datetime, lambda v: v.isoformat("T", "microseconds")),
        ),
        "moment",
    ),
    # aware datetime, or ISO text with an offset
    "datetime_tz": Encoders(iso_datetime_with_offset, text_column(are_utc_datetimes, utc_with_six_digits), "moment"),
    # time, or ISO text; with an offset if the type has one
    "time": Encoders(iso_time, None, "time"),
    # timedelta, (years, months), or ISO 8601 text "P1Y2MT3.5S"
    "interval": Encoders(iso_interval),
    # str
    "text": Encoders(as_text, exactly(str), is_kept=True),
    # str, padded as the database returned it
    "char": Encoders(as_text, exactly(str), is_kept=True),
    # bytes
    "bytes": Encoders(as_bytes, exactly(bytes)),
    # str or bytes of JSON text, which is checked once, or a Python structure
    "json": Encoders(json_value, None, "json"),
    # bool
    "boolean": Encoders(as_boolean, exactly(bool), "boolean", is_kept=True),
    # anything: only str, int, bool, bytes and finite floats pass, the rest is rejected with its type named
    "unknown": Encoders(untyped, first_of(exactly(str, int, bool, bytes), finite_floats), "value"),
}
"""`array` is not listed: lists, nested ones included, whose elements are of one of these types."""


def cell_encoder(column: Column, override: TypeOverride | None, decimals: str) -> CellEncoder:
    """Returns the encoder for one value of a column, which is never None.

    Args:
        column: The column.
        override: The type that the job sets for it under `types`; None: its own.
        decimals: The job's setting: number, string or float.
    """
    if override is not None:
        return _overridden(column, override)
    if column.kind == "array":
        return _array(cell_encoder(Column(column.name, column.element or "unknown", ""), None, decimals))
    if column.kind == "decimal" and decimals == "string":
        return decimal_digits
    if column.kind == "decimal" and decimals == "float":
        return lambda value: finite_float(exact_decimal(value))
    if column.kind == "integer" and decimals == "string":
        return _integer_or_digits
    return COLUMN_TYPES[column.kind].cell


def column_encoder(column: Column, decimals: str) -> ColumnEncoder | None:
    """Returns the encoder for a whole column without an override; None where each value is encoded by itself."""
    if column.kind == "array" or (decimals != "number" and column.kind in ("decimal", "integer")):
        return None
    encoders = COLUMN_TYPES[column.kind]
    return kept if column.is_uniform and encoders.is_kept else encoders.column


def _array(element: CellEncoder) -> CellEncoder:
    def convert(value: Any) -> Any:
        if not isinstance(value, list | tuple):
            raise CannotEncode(f"{type(value).__name__} is not an array")
        return [None if v is None else convert(v) if isinstance(v, list | tuple) else element(v) for v in value]

    return convert


def _integer_or_digits(value: Any) -> Any:
    number = integer(value)
    return number if abs(number) <= SAFE_INTEGER else str(number)


def _overridden(column: Column, override: TypeOverride) -> CellEncoder:
    own = cell_encoder(column, None, "number")
    is_text = column.kind in ("char", "text")
    overrides: dict[TypeOverride, CellEncoder] = {
        "date": iso_date,
        "datetime": iso_seconds if column.kind == "oracle_date" else iso_datetime,
        "integer": integer,
        "decimal": decimal_number,
        "json": json_value,
        "base64": lambda value: value.encode() if isinstance(value, str) else as_bytes(value),
        "string": lambda value: as_text(value).rstrip(" ") if is_text else plain_text(own(value)),
    }
    return overrides[override]
