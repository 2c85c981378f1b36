"""Keys and values of every format as people read them: a JSON tree, with the id of the schema."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass

from core.errors import PsttError
from core.message.protobuf_schema import parse_proto
from core.message.value_formats import MAGIC
from core.model.schema import Schema

__all__ = ["NOT_OF_THIS_SCHEMA", "Lookup", "Readable", "is_same_key", "readable"]

Lookup = Callable[[int], Schema]
"""Returns the schema with an id; raises PsttError if there is none, or the registry does not answer."""
_HEAD = 5
NOT_OF_THIS_SCHEMA = (
    ValueError, EOFError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError, MemoryError, struct.error,
)  # fmt: skip
"""What decoding any bytes by any schema may raise."""


@dataclass(frozen=True, slots=True)
class Readable:
    """A key or a value as people read it."""

    text: str
    """JSON where it is JSON or has a schema; else the bytes as UTF-8, others escaped."""
    schema_id: int | None = None
    """None: it has no schema."""
    format: str = ""
    """`avro`, `protobuf` or `json_schema`; empty: it has no schema."""
    problem: str = ""
    """Why it is not decoded although it begins as a message with a schema does."""


def readable(raw: bytes | None, lookup: Lookup | None) -> Readable:
    """Returns a key or a value as people read it; `null` for a tombstone.

    Args:
        raw: The bytes of the record.
        lookup: Finds schemas; None: there is no registry.
    """
    if raw is None:
        return Readable("null")
    if lookup is None or len(raw) < _HEAD or raw[:1] != MAGIC:
        return Readable(_text(raw))
    schema_id = int.from_bytes(raw[1:_HEAD], "big")
    try:
        schema = lookup(schema_id)
        return Readable(_decoded(raw[_HEAD:], schema), schema_id, _FORMATS[schema.type])
    except PsttError as error:
        return Readable(_text(raw), schema_id, problem=error.text)
    except NOT_OF_THIS_SCHEMA as error:
        return Readable(_text(raw), schema_id, problem=f"the bytes do not fit the schema ({type(error).__name__})")


def is_same_key(raw: bytes | None, sent: str | None, lookup: Lookup | None) -> bool:
    """Returns whether a key may be what was sent with this text.

    A key with a schema is not compared: its value can be written in another way (1.50 for 1.5). The message id is a hash of
    the row, which has the columns of the key.

    Args:
        raw: The bytes of the record's key.
        sent: The text in the records of sends.
        lookup: Finds schemas; None: there is no registry.
    """
    if raw is None or sent is None:
        return raw is None and sent is None
    found = readable(raw, lookup)
    if found.schema_id is not None or found.text == sent:
        return True
    try:
        tree = json.loads(found.text, parse_float=str, parse_int=str)
    except ValueError:
        return False
    return isinstance(tree, dict) or tree == sent  # several columns are an object


_FORMATS = {"AVRO": "avro", "PROTOBUF": "protobuf", "JSON": "json_schema"}


def _decoded(body: bytes, schema: Schema) -> str:
    if schema.type == "JSON":
        json.loads(body)
        return body.decode()
    if schema.type == "AVRO":
        from core.message.avro import decode_avro  # loads fastavro, 60 ms

        return json.dumps(decode_avro(body, schema.text), ensure_ascii=False)
    from core.message.protobuf import decode_protobuf  # loads numpy, 70 ms

    if body[:1] != b"\0":
        raise ValueError("another message than the first one of its schema")
    return json.dumps(decode_protobuf(body[1:], parse_proto(schema.text)), ensure_ascii=False)


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace")
