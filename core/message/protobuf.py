"""Protobuf by columns: rows in Protobuf's wire format, and messages as a JSON tree.

A field is its tag and its value; a null field is left out. Concatenated columns are a message, as with Avro.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from core.errors import ConfigError, RowRejected
from core.message.avro import Rejects
from core.message.field_types import Field, FieldKind, field_names
from core.message.field_values import values_of
from core.message.protobuf_schema import TIMESTAMP, ProtoField, ProtoMessage
from core.message.wire import LengthPrefix, Pieces, Problem, doubles, framed, once_each, varint, varints
from core.model.source import Column

__all__ = ["ProtobufRows", "decode_protobuf", "proto_bytes", "proto_number", "proto_timestamp"]

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROS = 1_000_000
# type → kind of its values, and the numbers that it holds
_NUMBERS: dict[str, tuple[int, int]] = {
    "int64": (-(2**63), 2**63),
    "sint64": (-(2**63), 2**63),
    "uint64": (0, 2**63),
    "int32": (-(2**31), 2**31),
    "sint32": (-(2**31), 2**31),
    "uint32": (0, 2**32),
}
_KINDS: dict[str, FieldKind] = {
    "double": "double",
    "bool": "boolean",
    "string": "text",
    "bytes": "bytes",
    TIMESTAMP: "instant",
}
Encode = Callable[[Sequence[Any], Problem], Pieces]


def proto_bytes(number: int, value: bytes) -> bytes:
    """Returns a field with a text, bytes or a message."""
    return varint(number << 3 | _BYTES) + varint(len(value)) + value


def proto_number(number: int, value: int) -> bytes:
    """Returns a field with a whole number (int64)."""
    return varint(number << 3 | _VARINT) + varint(value & 2**64 - 1)


def proto_timestamp(number: int, at: datetime) -> bytes:
    """Returns a field with a `google.protobuf.Timestamp`."""
    micros = (at - _EPOCH) // timedelta(microseconds=1)
    return proto_bytes(number, proto_number(1, micros // _MICROS) + proto_number(2, micros % _MICROS * 1000))


class ProtobufRows:
    """Encodes rows.

    Args:
        columns: The columns of the result, for rejects.
        fields: Their fields.
        message: The message of a row; its fields have the names of the columns.

    Raises:
        ConfigError: The message lacks a column, or has a field of a type that no column becomes.
    """

    def __init__(self, columns: Sequence[Column], fields: Sequence[Field], message: ProtoMessage) -> None:
        self._columns = columns
        known = {given.name.lower(): given for given in message.fields}
        self._encoders = [
            _encoder(_found(known, name, message), f) for name, f in zip(field_names(fields), fields, strict=True)
        ]

    def rows(self, values: Sequence[Sequence[Any]], bad: Rejects) -> list[bytes]:
        """Returns each row as a message; see `AvroRows.rows`."""
        pieces: Pieces = []
        for column, encode, cells in zip(self._columns, self._encoders, values, strict=True):

            def reject(row: int, reason: str, column: Column = column) -> None:
                bad.setdefault(row, RowRejected(reason, column=column.name, database_type=column.database_type))

            pieces += once_each(cells, encode, reject)
        return list(map(b"".join, zip(*pieces, strict=True)))


def _found(known: Mapping[str, ProtoField], name: str, message: ProtoMessage) -> ProtoField:
    if name.lower() not in known:
        raise ConfigError(
            f"message {message.name} of the schema has no field for the column {name}",
            why="its values would be lost",
            remedy="add the field to the schema, or remove the column from the query",
        )
    return known[name.lower()]


def _encoder(given: ProtoField, column: Field) -> Encode:
    if given.type not in _NUMBERS and given.type not in _KINDS:
        raise ConfigError(
            f"field {given.name} of the schema has the type {given.type}, which no column becomes",
            remedy=f"use one of {', '.join([*_NUMBERS, *_KINDS])}",
        )
    if given.label == "repeated":
        return _repeated(given, column)
    encode = _one(given, column)
    return encode if given.label == "optional" else _required(encode)


def _required(encode: Encode) -> Encode:
    """Rejects NULL in a field whose readers could not see that it is one."""

    def column(cells: Sequence[Any], reject: Problem) -> Pieces:
        for row, cell in enumerate(cells):
            if cell is None:
                reject(row, "the value is NULL, and the schema's field is not optional")
        return encode(cells, reject)

    return column


def _one(given: ProtoField, column: Field) -> Encode:
    if given.type in _NUMBERS:
        return _whole(given, Field(column.name, "long"))
    kind = _KINDS[given.type]
    if kind == "instant":
        return _timestamps(given, Field(column.name, kind))
    if kind == "double":
        tag = varint(given.number << 3 | _FIXED64)
        return lambda cells, reject: _tagged(values_of(Field(column.name, "double"), cells, reject), doubles, tag)
    if kind == "boolean":
        tag = varint(given.number << 3 | _VARINT)
        table = {None: b"", False: tag + b"\0", True: tag + b"\1"}
        field = Field(column.name, "boolean")
        return lambda cells, reject: [list(map(table.__getitem__, values_of(field, cells, reject)))]
    frame = LengthPrefix(varint(given.number << 3 | _BYTES), is_zigzag=False)
    if kind == "text":
        kind = "json" if column.kind in ("json", "array") else "text"
    field = Field(column.name, kind)
    return lambda cells, reject: framed(values_of(field, cells, reject), frame, b"")


def _whole(given: ProtoField, field: Field) -> Encode:
    tag, (low, high) = varint(given.number << 3 | _VARINT), _NUMBERS[given.type]
    is_zigzag = given.type.startswith("s")

    def column(cells: Sequence[Any], reject: Problem) -> Pieces:
        values = list(values_of(field, cells, reject))
        for row, value in enumerate(values):
            if value is not None and not low <= value < high:
                reject(row, f"the number does not fit into {given.type}")
                values[row] = None
        return _tagged(values, lambda present: varints(np.array(present, np.int64), is_zigzag=is_zigzag), tag)

    return column


def _timestamps(given: ProtoField, field: Field) -> Encode:
    frame = LengthPrefix(varint(given.number << 3 | _BYTES), is_zigzag=False)

    def messages(micros: Sequence[int]) -> list[bytes]:
        numbers = np.array(micros, np.int64)
        seconds = varints(numbers // _MICROS, is_zigzag=False)
        nanos = varints(numbers % _MICROS * 1000, is_zigzag=False)
        return [b"\x08" + s + b"\x10" + n for s, n in zip(seconds, nanos, strict=True)]

    def column(cells: Sequence[Any], reject: Problem) -> Pieces:
        values = values_of(field, cells, reject)
        present = iter(messages([value for value in values if value is not None]))
        return framed([None if value is None else next(present) for value in values], frame, b"")

    return column


def _repeated(given: ProtoField, column: Field) -> Encode:
    element = _one(given, Field(column.name, column.element or "any"))

    def encode(cells: Sequence[Any], reject: Problem) -> Pieces:
        lists = [cell if isinstance(cell, list) else [] for cell in cells]
        for row, items in enumerate(lists):
            if any(item is None or isinstance(item, list) for item in items):
                reject(row, "a NULL or an array within an array has no place in a repeated field")
                lists[row] = []
        owners = [row for row, items in enumerate(lists) for _ in items]
        pieces = element([item for items in lists for item in items], lambda at, reason: reject(owners[at], reason))
        joined = iter(list(map(b"".join, zip(*pieces, strict=True))))
        return [[b"".join(next(joined) for _ in items) for items in lists]]

    return encode


def _tagged(values: Sequence[Any], encode: Callable[[Sequence[Any]], list[bytes]], tag: bytes) -> Pieces:
    if None not in values:
        return [[tag] * len(values), encode(values)]
    encoded = iter(encode([value for value in values if value is not None]))
    return [
        [b"" if value is None else tag for value in values],
        [b"" if value is None else next(encoded) for value in values],
    ]


# ── reading ───────────────────────────────────────────────────────────────────────────────────


def decode_protobuf(value: bytes, message: ProtoMessage, root: ProtoMessage | None = None) -> dict[str, Any]:
    """Returns a message as a JSON tree; fields that the schema does not have are shown by their number.

    Raises:
        ValueError: The bytes are no message.
    """
    root = root or message
    known = {given.number: given for given in message.fields}
    tree: dict[str, Any] = {given.name: [] if given.label == "repeated" else None for given in message.fields}
    at = 0
    while at < len(value):
        key, at = _read_varint(value, at)
        raw, at = _read_value(value, at, key & 7)
        given = known.get(key >> 3)
        if given is None:
            tree[f"field {key >> 3}"] = _plain(raw)
            continue
        shown = _shown(raw, given.type, message.nested(given.type) or root.nested(given.type), root)
        if given.label == "repeated":
            tree[given.name] += (
                _packed(raw, given.type) if isinstance(raw, bytes) and given.type in _NUMBERS else [shown]
            )
        else:
            tree[given.name] = shown
    return tree


def _read_varint(value: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        if at >= len(value):
            raise ValueError("the message ends within a number")
        byte = value[at]
        number |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return number, at


def _read_value(value: bytes, at: int, wire: int) -> tuple[int | bytes, int]:
    if wire == _VARINT:
        return _read_varint(value, at)
    if wire == _BYTES:
        length, at = _read_varint(value, at)
    elif wire in (_FIXED32, _FIXED64):
        length = 4 if wire == _FIXED32 else 8
    else:
        raise ValueError("the message has a group")
    if at + length > len(value):
        raise ValueError("the message ends within a value")
    return value[at : at + length], at + length


def _shown(raw: int | bytes, kind: str, nested: ProtoMessage | None, root: ProtoMessage) -> Any:
    if isinstance(raw, int):
        if kind == "bool":
            return bool(raw)
        if kind.startswith("sint"):
            return raw >> 1 ^ -(raw & 1)
        return raw - 2**64 if kind.startswith("int") and raw >= 2**63 else raw
    if kind == TIMESTAMP:
        parts = {number: part for number, part in _numbers(raw)}
        seconds = parts.get(1, 0)
        seconds -= 2**64 if seconds >= 2**63 else 0
        return (_EPOCH + timedelta(seconds=seconds, microseconds=parts.get(2, 0) // 1000)).isoformat(
            timespec="microseconds"
        )
    if nested is not None:
        return decode_protobuf(raw, nested, root)
    if kind == "double":
        return struct.unpack("<d", raw)[0]
    if kind == "float":
        return struct.unpack("<f", raw)[0]
    return _plain(raw) if kind == "string" else base64.b64encode(raw).decode()


def _numbers(raw: bytes) -> list[tuple[int, int]]:
    found, at = [], 0
    while at < len(raw):
        key, at = _read_varint(raw, at)
        number, at = _read_varint(raw, at)
        found.append((key >> 3, number))
    return found


def _packed(raw: bytes, kind: str) -> list[Any]:
    found, at = [], 0
    while at < len(raw):
        number, at = _read_varint(raw, at)
        found.append(_shown(number, kind, None, ProtoMessage("")))
    return found


def _plain(raw: int | bytes) -> Any:
    return raw if isinstance(raw, int) else raw.decode("utf-8", "backslashreplace")
