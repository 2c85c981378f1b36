"""Every column type with its encoders. A new column type is one entry in `COLUMN_TYPES`.

A type has an encoder for one value (`core.message.cells`) and, where that is faster, one for a whole column
(`core.message.vectorized`), which gives up when it meets anything unusual.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

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
    raw_numbers,
    text_column,
    utc_with_six_digits,
    with_six_digits,
)
from core.model.job import TypeOverride
from core.model.source import Column, ColumnType

__all__ = ["COLUMN_TYPES", "Encoders", "cell_encoder", "column_encoder"]

SAFE_INTEGER = 2**53
"""Readers that hold numbers as doubles (JavaScript, jq) are exact up to here."""


@dataclass(frozen=True, slots=True)
class Encoders:
    """How the values of a column type become JSON."""

    cell: CellEncoder
    """For one value, which is never None."""
    column: ColumnEncoder | None = None
    """For all values of a block at once; None: each value is encoded by `cell`."""


COLUMN_TYPES: dict[ColumnType, Encoders] = {
    "integer": Encoders(integer, exactly(int)),
    "decimal": Encoders(decimal_number, first_of(raw_numbers, exactly(int))),
    "float": Encoders(finite_float, finite_floats),
    "date": Encoders(iso_date_or_datetime, first_of(text_column(are_dates, list), converted(date, date.isoformat))),
    "oracle_date": Encoders(oracle_date),
    "datetime": Encoders(
        iso_datetime,
        first_of(
            text_column(are_datetimes, with_six_digits),
            converted(datetime, lambda v: v.isoformat("T", "microseconds")),
        ),
    ),
    "datetime_tz": Encoders(iso_datetime_with_offset, text_column(are_utc_datetimes, utc_with_six_digits)),
    "time": Encoders(iso_time),
    "interval": Encoders(iso_interval),
    "text": Encoders(as_text, exactly(str)),
    "char": Encoders(as_text, exactly(str)),
    "bytes": Encoders(as_bytes, exactly(bytes)),
    "json": Encoders(json_value),
    "boolean": Encoders(as_boolean, exactly(bool)),
    "unknown": Encoders(untyped, first_of(exactly(str, int, bool, bytes), finite_floats)),
}
"""Arrays are not listed: their elements are of one of these types."""


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
    return COLUMN_TYPES[column.kind].column


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
