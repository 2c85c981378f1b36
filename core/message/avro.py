"""Avro by columns: the schema of a row, and rows in Avro's binary encoding.

Each column becomes a column of bytes and a row is their concatenation, which is what Avro's encoding of a record is. Only a
type that a given schema has and no column type (a record, a map, a union of several types) goes through fastavro, value by value.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import fastavro
import fastavro.schema
import msgspec
import numpy as np

from core.errors import ConfigError, RowRejected
from core.message.field_types import Field, FieldKind, field_names
from core.message.field_values import values_of
from core.message.wire import LengthPrefix, Pieces, Problem, doubles, framed, once_each, varints, zigzag
from core.model.source import Column

__all__ = ["AvroRows", "avro_key_schema", "avro_long", "avro_record", "avro_text", "decode_avro"]

Rejects = dict[int, RowRejected]
_json = msgspec.json.Encoder(decimal_format="number").encode
Encode = Callable[[Sequence[Any], "Problem"], Pieces]

_PRIMITIVES: dict[FieldKind, Any] = {
    "long": "long",
    "digits": "string",
    "double": "double",
    "boolean": "boolean",
    "date": {"type": "int", "logicalType": "date"},
    "local": {"type": "long", "logicalType": "local-timestamp-micros"},
    "instant": {"type": "long", "logicalType": "timestamp-micros"},
    "text": "string",
    "bytes": "bytes",
    "json": "string",
    "any": "string",
}
_KIND_OF_LOGICAL: dict[tuple[str, str], FieldKind] = {
    ("int", "date"): "date",
    ("long", "local-timestamp-micros"): "local",
    ("long", "local-timestamp-millis"): "local",
    ("long", "timestamp-micros"): "instant",
    ("long", "timestamp-millis"): "instant",
}
_KIND_OF_PRIMITIVE: dict[str, FieldKind] = {
    "int": "long",
    "long": "long",
    "string": "text",
    "bytes": "bytes",
    "double": "double",
    "boolean": "boolean",
}


def avro_type(field: Field) -> Any:
    """Returns the Avro type of a field, without the null."""
    if field.kind == "decimal":
        return {"type": "bytes", "logicalType": "decimal", "precision": field.precision, "scale": field.scale}
    if field.kind == "array":
        return {"type": "array", "items": ["null", _PRIMITIVES[field.element or "any"]]}
    return _PRIMITIVES[field.kind]


def avro_record(name: str, fields: Sequence[Field]) -> dict[str, Any]:
    """Returns the record of a row; each field is a union with null, whose default is null.

    Args:
        name: Its full name.
        fields: Its fields.
    """
    space, _, short = name.rpartition(".")
    made = []
    for given, allowed in zip(fields, field_names(fields), strict=True):
        entry: dict[str, Any] = {"name": allowed, "type": ["null", avro_type(given)], "default": None}
        made.append(entry if allowed == given.name else {**entry, "doc": f"column {given.name}"})
    return {"type": "record", "name": short, **({"namespace": space} if space else {}), "fields": made}


def avro_key_schema(name: str, fields: Sequence[Field]) -> Any:
    """Returns the schema of a key: the bare type of its column, or a record of several."""
    return avro_type(fields[0]) if len(fields) == 1 else avro_record(name, fields)


def avro_text(text: str) -> bytes:
    """Returns a text as Avro's string."""
    raw = text.encode()
    return zigzag(len(raw)) + raw


def avro_long(number: int) -> bytes:
    """Returns a number as Avro's long."""
    return zigzag(number)


def decode_avro(value: bytes, schema_text: str) -> Any:
    """Returns a value as a JSON tree."""
    return json.loads(_json(fastavro.schemaless_reader(io.BytesIO(value), json.loads(schema_text), None)))


class AvroRows:
    """Encodes rows.

    Args:
        columns: The columns of the result, for rejects.
        fields: Their fields.
        schema: A record whose fields are these columns, in any order; or the type of the only column.

    Raises:
        ConfigError: The schema lacks a column, or has a field that no column fills.
    """

    def __init__(self, columns: Sequence[Column], fields: Sequence[Field], schema: Any) -> None:
        self._columns = columns
        parsed = fastavro.schema.parse_schema(schema)
        if isinstance(parsed, dict) and parsed.get("type") == "record":
            self._encoders = _of_record(parsed, fields)
        else:
            self._encoders = [(0, _encoder(schema, fields[0]))]

    def rows(self, values: Sequence[Sequence[Any]], bad: Rejects) -> list[bytes]:
        """Returns each row in Avro's encoding.

        Args:
            values: By columns, encoded cells as they become JSON.
            bad: Row → why it is rejected; rows that do not fit the schema are added.
        """
        pieces: Pieces = []
        for index, encode in self._encoders:
            column = self._columns[index]

            def reject(row: int, reason: str, column: Column = column) -> None:
                bad.setdefault(row, RowRejected(reason, column=column.name, database_type=column.database_type))

            pieces += once_each(values[index], encode, reject)
        return list(map(b"".join, zip(*pieces, strict=True)))


def _of_record(parsed: Mapping[str, Any], fields: Sequence[Field]) -> list[tuple[int, Encode]]:
    """Returns column → encoder, in the order of the record's fields."""
    index = {name.lower(): i for i, name in enumerate(field_names(fields))}
    encoders: list[tuple[int, Encode]] = []
    for entry in parsed["fields"]:
        at = index.pop(entry["name"].lower(), None)
        if at is not None:
            encoders.append((at, _encoder(entry["type"], fields[at])))
        elif "default" in entry:
            encoders.append((0, _constant(_written(entry["type"], entry["default"]))))
        else:
            raise ConfigError(
                f"the schema's field {entry['name']} is not in the result and has no default",
                remedy="add the column to the query, or a default to the schema",
            )
    if index:
        raise ConfigError(
            f"the schema has no field for the columns {', '.join(index)}",
            why="their values would be lost",
            remedy="add the fields to the schema, or remove the columns from the query",
        )
    return encoders


def _encoder(given: Any, column: Field) -> Encode:
    """Returns the encoder of a column in the type that a schema gives it."""
    branches = given if isinstance(given, list) else [given]
    types = [branch for branch in branches if branch != "null"]
    if len(types) != 1 or len(branches) > 2:
        return _by_fastavro(given)
    is_nullable = len(branches) == 2
    null = zigzag(branches.index("null")) if is_nullable else None
    some = zigzag(branches.index(types[0])) if is_nullable else b""
    encode = _of_type(types[0], column, some, null)
    return _by_fastavro(given) if encode is None else _checked(encode) if null is None else encode


def _checked(encode: Encode) -> Encode:
    """Rejects NULL where the schema allows none."""

    def column(cells: Sequence[Any], reject: Problem) -> Pieces:
        if not any(cell is None for cell in cells):
            return encode(cells, reject)
        for row, cell in enumerate(cells):
            if cell is None:
                reject(row, "the value is NULL, and the schema allows none")
        return encode(cells, reject)

    return column


def _of_type(given: Any, column: Field, some: bytes, null: bytes | None) -> Encode | None:
    """Returns the encoder for one branch; None if it is not one that is encoded by columns."""
    spec = given if isinstance(given, dict) else {"type": given}
    base, logical = spec["type"], spec.get("logicalType", "")
    nothing = null or b""
    if base == "enum":
        return _enum(spec["symbols"], some, nothing)
    if base == "bytes" and logical == "decimal":
        field = Field(column.name, "decimal", spec["precision"], spec.get("scale", 0))
        return _decimals(field, some, nothing)
    if base == "array":
        items = spec["items"]
        if items == ["null", _PRIMITIVES.get(column.element or "any")] and column.kind == "array":
            return _arrays(column, some, nothing)
        return None
    if not isinstance(base, str) or (logical and (base, logical) not in _KIND_OF_LOGICAL):
        return None
    kind = _KIND_OF_LOGICAL[base, logical] if logical else _KIND_OF_PRIMITIVE.get(base)
    if kind is None:
        return None
    if kind == "text" and column.kind == "json":
        kind = "json"
    unit = 1000 if logical.endswith("millis") else 1
    bound = 2**31 if base == "int" else 2**63
    return _by_columns(Field(column.name, kind), some, nothing, unit, bound)


def _by_columns(field: Field, some: bytes, null: bytes, unit: int, bound: int) -> Encode:
    frame = LengthPrefix(some, is_zigzag=True)
    truth = {None: null, False: some + b"\0", True: some + b"\1"}

    def numbers(cells: Sequence[Any], reject: Problem) -> Pieces:
        values = values_of(field, cells, reject)
        if unit > 1 or bound < 2**63:
            values = _narrowed(values, unit, bound, reject)
        return _spread(values, lambda present: varints(np.array(present, np.int64), is_zigzag=True), some, null)

    def floats(cells: Sequence[Any], reject: Problem) -> Pieces:
        return _spread(values_of(field, cells, reject), doubles, some, null)

    def booleans(cells: Sequence[Any], reject: Problem) -> Pieces:
        return [list(map(truth.__getitem__, values_of(field, cells, reject)))]

    def texts(cells: Sequence[Any], reject: Problem) -> Pieces:
        return framed(values_of(field, cells, reject), frame, null)

    by_kind: dict[str, Encode] = {"double": floats, "boolean": booleans}
    return by_kind.get(field.kind, numbers if field.kind in ("long", "date", "local", "instant") else texts)


def _narrowed(values: Sequence[Any], unit: int, bound: int, reject: Problem) -> list[Any]:
    """Returns values in a larger unit or of fewer bits; rejects those that would lose something."""
    out: list[Any] = []
    for row, value in enumerate(values):
        kept, rest = (None, 0) if value is None else divmod(value, unit)
        if rest:
            reject(row, "the time has microseconds, and the schema has milliseconds")
        elif kept is not None and not -bound <= kept < bound:
            reject(row, f"the number does not fit into {bound.bit_length()} bits")
            kept = None
        out.append(kept)
    return out


def _spread(values: Sequence[Any], encode: Callable[[Sequence[Any]], list[bytes]], some: bytes, null: bytes) -> Pieces:
    """Returns the branch of each value and its bytes; those that are None are left out of `encode`."""
    if None not in values:
        return [[some] * len(values), encode(values)]
    encoded = iter(encode([value for value in values if value is not None]))
    return [
        [null if value is None else some for value in values],
        [b"" if value is None else next(encoded) for value in values],
    ]


def _decimals(field: Field, some: bytes, null: bytes) -> Encode:
    frame = LengthPrefix(some, is_zigzag=True)

    def column(cells: Sequence[Any], reject: Problem) -> Pieces:
        values = values_of(field, cells, reject)
        raw = [None if v is None else v.to_bytes((v.bit_length() >> 3) + 1, "big", signed=True) for v in values]
        return framed(raw, frame, null)

    return column


def _arrays(column: Field, some: bytes, null: bytes) -> Encode:
    element = _by_columns(Field(column.name, column.element or "any"), b"\2", b"\0", 1, 2**63)

    def encode(cells: Sequence[Any], reject: Problem) -> Pieces:
        values = list(cells)
        for row, cell in enumerate(cells):
            if cell is not None and any(isinstance(item, list) for item in cell):
                reject(row, "an array of arrays has no place in this schema")
                values[row] = None
        owners = [row for row, cell in enumerate(values) for _ in cell or ()]
        items = [item for cell in values for item in cell or ()]
        pieces = element(items, lambda at, reason: reject(owners[at], reason)) if items else [[]]
        joined = iter(list(map(b"".join, zip(*pieces, strict=True))))
        out = []
        for cell in values:
            head = null if cell is None else some + (zigzag(len(cell)) if cell else b"")
            out.append(head + b"".join(next(joined) for _ in cell or ()) + (b"" if cell is None else b"\0"))
        return [out]

    return encode


def _enum(symbols: Sequence[str], some: bytes, null: bytes) -> Encode:
    table = {symbol: some + zigzag(at) for at, symbol in enumerate(symbols)}

    def column(cells: Sequence[Any], reject: Problem) -> Pieces:
        out = []
        for row, cell in enumerate(cells):
            found = null if cell is None else table.get(cell) if isinstance(cell, str) else None
            if found is None:
                reject(row, "the value is not among the symbols of the schema's enum")
            out.append(found or b"")
        return [out]

    return column


def _by_fastavro(given: Any) -> Encode:
    """Encodes values one by one, for types that no column has."""

    def column(cells: Sequence[Any], reject: Problem) -> Pieces:
        out = []
        for row, cell in enumerate(cells):
            try:
                out.append(_written(given, _plain(cell)))
            except (ValueError, TypeError, KeyError, OverflowError, AttributeError):
                reject(row, "the value does not fit into the schema's type")
                out.append(b"")
        return [out]

    return column


def _plain(cell: Any) -> Any:
    """Returns an encoded cell as Python's plain data."""
    if isinstance(cell, msgspec.Raw):
        return json.loads(bytes(cell))
    return cell


def _constant(value: bytes) -> Encode:
    return lambda cells, reject: [[value] * len(cells)]


def _written(given: Any, value: Any) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(
        out, fastavro.schema.parse_schema(given) if isinstance(given, dict | list) else given, value
    )
    return out.getvalue()
