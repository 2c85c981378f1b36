"""Kafka Connect's JSON with schema and payload, as `JsonConverter` with `schemas.enable` reads it.

Times are microseconds, which Connect's own Timestamp (milliseconds) would cut: they have the names that Debezium gives them.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import msgspec

from core.errors import RowRejected
from core.message.field_types import Field, FieldKind
from core.message.field_values import values_of
from core.message.wire import Problem
from core.model.source import Column

__all__ = ["ConnectRows"]

_TYPES: dict[FieldKind, tuple[str, str]] = {
    "long": ("int64", ""),
    "digits": ("string", ""),
    "double": ("double", ""),
    "boolean": ("boolean", ""),
    "date": ("int32", "org.apache.kafka.connect.data.Date"),
    "local": ("int64", "io.debezium.time.MicroTimestamp"),
    "instant": ("string", "io.debezium.time.ZonedTimestamp"),
    "text": ("string", ""),
    "bytes": ("bytes", ""),
    "json": ("string", "io.debezium.data.Json"),
    "any": ("string", ""),
}
_json = msgspec.json.Encoder(decimal_format="number").encode


class ConnectRows:
    """Encodes rows.

    Args:
        name: The full name of the record.
        columns: The columns of the result, for rejects.
        fields: Their fields.
    """

    def __init__(self, name: str, columns: Sequence[Column], fields: Sequence[Field]) -> None:
        self._columns, self._fields = columns, fields
        schema = {
            "type": "struct",
            "name": name,
            "optional": False,
            "fields": [{**_connect_type(field), "field": field.name} for field in fields],
        }
        self.head = b'{"schema":' + _json(schema) + b',"payload":'
        """What precedes the payload of every message."""

    def rows(self, values: Sequence[Sequence[Any]], bad: dict[int, RowRejected]) -> list[bytes]:
        """Returns the payload of each row; see `AvroRows.rows`."""
        converted = []
        for column, field, cells in zip(self._columns, self._fields, values, strict=True):

            def reject(row: int, reason: str, column: Column = column) -> None:
                bad.setdefault(row, RowRejected(reason, column=column.name, database_type=column.database_type))

            converted.append(_payload(field, cells, reject))
        names = [field.name for field in self._fields]
        return [_json(dict(zip(names, row, strict=True))) for row in zip(*converted, strict=True)]


def _connect_type(field: Field) -> dict[str, Any]:
    if field.kind == "array":
        return {"type": "array", "optional": True, "items": _connect_type(Field("", field.element or "any"))}
    if field.kind == "decimal":
        return {
            "type": "bytes",
            "optional": True,
            "name": "org.apache.kafka.connect.data.Decimal",
            "version": 1,
            "parameters": {"scale": str(field.scale), "connect.decimal.precision": str(field.precision)},
        }
    kind, name = _TYPES[field.kind]
    return {"type": kind, "optional": True, **({"name": name, "version": 1} if name else {})}


def _payload(field: Field, cells: Sequence[Any], reject: Problem) -> Sequence[Any]:
    if field.kind in ("instant", "bytes"):
        return cells
    values = values_of(field, cells, reject)
    return [_plain(field, value) for value in values]


def _plain(field: Field, value: Any) -> Any:
    if field.kind == "array" and value is not None:
        element = Field(field.name, field.element or "any")
        return [_plain(element, item) for item in value]
    if field.kind == "decimal" and value is not None:
        return base64.b64encode(value.to_bytes((value.bit_length() >> 3) + 1, "big", signed=True)).decode()
    return value.decode() if isinstance(value, bytes) and field.kind != "bytes" else value
