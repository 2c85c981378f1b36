"""Encoded cells as the values of schema fields: whole numbers, days, microseconds, unscaled decimals, UTF-8.

They start from what `core.message.column_types` made of a column for JSON, so that a value has one meaning in every format:
dates and times are ISO text there, decimals their exact digits.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal
from typing import Any

import msgspec
import numpy as np

from core.message.cells import CannotEncode
from core.message.field_types import Field, FieldKind
from core.message.wire import Problem

__all__ = ["cell_value", "column_values", "values_of"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_EXACT = Context(prec=400)
"""More digits than any database has; the default context rounds to 28."""
_LOWEST, _HIGHEST = -(2**63), 2**63 - 1
_json = msgspec.json.Encoder(decimal_format="number").encode
Values = Sequence[Any]


def values_of(field: Field, cells: Values, reject: Problem) -> Values:
    """Returns the values of a column; None where it is NULL, or was rejected because it does not fit into the field."""
    values = column_values(field, cells)
    if values is not None:
        return values
    out: list[Any] = []
    for row, cell in enumerate(cells):
        try:
            out.append(None if cell is None else cell_value(field, cell))
        except CannotEncode as unfit:
            reject(row, str(unfit))
            out.append(None)
    return out


def column_values(field: Field, cells: Values) -> Values | None:
    """Returns the values of a whole column, None where a cell is None; None: each cell has to be converted by itself.

    Args:
        field: The field.
        cells: Encoded values, as they become JSON.
    """
    try:
        return _column_values(field, cells)
    except (ValueError, TypeError):  # one of them does not fit: the caller finds out which
        return None


def _column_values(field: Field, cells: Values) -> Values | None:
    convert = _all_decimals(field) if field.kind == "decimal" else _COLUMNS.get(field.kind)
    if convert is None:
        return None
    if type(None) not in set(map(type, cells)):
        return convert(cells) if cells else cells
    present = [cell for cell in cells if cell is not None]
    converted = convert(present) if present else []
    if converted is None:
        return None
    left = iter(converted)
    return [None if cell is None else next(left) for cell in cells]


def cell_value(field: Field, cell: Any) -> Any:
    """Returns the value of one cell that is not None.

    Returns:
        int for long, date (days since 1970), local and instant (microseconds since 1970) and decimal (unscaled),
        float for double, bool, bytes for bytes, text as UTF-8 bytes for the others, a list of them for an array.

    Raises:
        CannotEncode: It does not fit into the field.
    """
    try:
        if field.kind == "decimal":
            return _unscaled(cell, field.precision, field.scale)
        if field.kind == "array":
            return _items(field, cell)
        return _CELLS[field.kind](cell)
    except (ValueError, TypeError, ArithmeticError):
        raise CannotEncode(f"the value does not fit into the schema's type ({field.kind})") from None


def _items(field: Field, cells: Values) -> list[Any]:
    if any(isinstance(item, list) for item in cells):
        raise CannotEncode("an array of arrays has no place in this schema; send the column as JSON")
    element = Field(field.name, field.element or "any")
    return [None if item is None else cell_value(element, item) for item in cells]


def _number(cell: Any) -> Decimal:
    return Decimal(bytes(cell).decode() if isinstance(cell, msgspec.Raw) else cell)


def _long(cell: Any) -> int:
    if type(cell) is int:
        number = cell
    else:
        exact = _number(cell)
        number = int(exact)
        if number != exact:
            raise CannotEncode("not a whole number")
    if not _LOWEST <= number <= _HIGHEST:
        raise CannotEncode("the number does not fit into 64 bits; send the column as string or decimal (`types`)")
    return number


def _unscaled(cell: Any, precision: int, scale: int) -> int:
    moved = _number(cell).scaleb(scale, _EXACT)
    unscaled = int(moved)
    if unscaled != moved:
        raise CannotEncode(f"the number has more than {scale} digits after the point")
    if abs(unscaled) >= 10**precision:
        raise CannotEncode(f"the number has more than {precision} digits")
    return unscaled


def _days(cell: str) -> int:
    if len(cell) > 10 and cell[10:].strip("T0:."):
        raise CannotEncode('the date has a time of day; set "datetime" for its column under types')
    return int(np.datetime64(cell[:10], "D").astype(np.int64))


def _local(cell: str) -> int:
    if len(cell) > 26:  # text with an offset in a column without zone
        raise CannotEncode("the time has an offset, and the column has no time zone")
    return int(np.datetime64(cell, "us").astype(np.int64))


def _instant(cell: str) -> int:
    return (datetime.fromisoformat(cell) - _EPOCH) // _MICROSECOND


def _json_text(cell: Any) -> bytes:
    return bytes(cell) if isinstance(cell, msgspec.Raw) else _json(cell)


def _text(cell: Any) -> bytes:
    if isinstance(cell, str):
        return cell.encode()
    return base64.b64encode(cell) if isinstance(cell, bytes) else _json_text(cell)


_CELLS: dict[FieldKind, Callable[[Any], Any]] = {
    "long": _long,
    "digits": _text,
    "double": float,
    "boolean": bool,
    "date": _days,
    "local": _local,
    "instant": _instant,
    "text": _text,
    "bytes": bytes,
    "json": _json_text,
    "any": _text,
}


def _texts(cells: Values) -> Values | None:
    return list(map(str.encode, cells)) if set(map(type, cells)) == {str} else None


def _longs(cells: Values) -> Values | None:
    return cells if set(map(type, cells)) == {int} and min(cells) >= _LOWEST and max(cells) <= _HIGHEST else None


def _all_days(cells: Values) -> Values | None:
    if set(map(len, cells)) != {10}:
        return None
    found: list[int] = np.array(cells, "datetime64[D]").astype(np.int64).tolist()
    return found


def _all_local(cells: Values) -> Values | None:
    if max(map(len, cells)) > 26:
        return None
    found: list[int] = np.array(cells, "datetime64[us]").astype(np.int64).tolist()
    return found


def _all_instants(cells: Values) -> Values | None:
    text = "\n".join(cells)
    if text.count("+00:00") != len(cells):
        return None
    found: list[int] = np.array(text.replace("+00:00", "").split("\n"), "datetime64[us]").astype(np.int64).tolist()
    return found


def _all_decimals(field: Field) -> Callable[[Values], Values | None]:
    point = rf"\.[0-9]{{{field.scale}}}" if field.scale else ""
    match = re.compile(rf"(?:-?[0-9]+{point}\n)*".encode()).fullmatch
    most = 10**field.precision

    def convert(cells: Values) -> Values | None:
        if set(map(type, cells)) != {msgspec.Raw}:
            return None
        text = b"\n".join(map(bytes, cells))
        if not match(text + b"\n"):
            return None
        numbers = list(map(int, text.replace(b".", b"").split(b"\n")))
        return numbers if -most < min(numbers) and max(numbers) < most else None

    return convert


def _as_they_are(kind: type) -> Callable[[Values], Values | None]:
    return lambda cells: cells if set(map(type, cells)) == {kind} else None


_COLUMNS: dict[FieldKind, Callable[[Values], Values | None]] = {
    "long": _longs,
    "double": _as_they_are(float),
    "boolean": _as_they_are(bool),
    "date": _all_days,
    "local": _all_local,
    "instant": _all_instants,
    "text": _texts,
    "bytes": _as_they_are(bytes),
    "any": _texts,
}
