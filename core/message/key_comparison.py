"""Compares the keys of records in a format of their own with the texts of keys that the records of sends have.

Both are brought into one form: numbers without trailing zeros, times in UTC with microseconds.
"""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from core.errors import PsttError
from core.message.cells import key_text
from core.message.decoding import NOT_OF_THIS_SCHEMA, Lookup
from core.message.field_types import identifier
from core.message.protobuf_schema import parse_proto
from core.message.value_formats import MAGIC
from core.model.job import Job
from core.model.schema import Schema

__all__ = ["NOT_COMPARED", "KeyComparison"]

NOT_COMPARED = b"\xff"
"""Instead of a key that cannot be compared; no text is that."""
_UNLIKE = b"\xfe"
"""Before the bytes of a key that is none of its schema: no text begins so."""
_HEAD = 5
_NUMBER = re.compile(r"-?\d+(?:\.\d+(?:[eE][-+]?\d+)?|[eE][-+]?\d+)")
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d")
_AVRO_TYPES = frozenset({"int", "long", "string", "bytes", "double", "boolean", "null"})
_AVRO_LOGICAL = frozenset(
    {
        "date",
        "decimal",
        "timestamp-micros",
        "timestamp-millis",
        "local-timestamp-micros",
        "local-timestamp-millis",
    }
)

Decode = Callable[[bytes], Any]
"""The bytes of a key after its schema id → its value, or an object of several."""


class KeyComparison:
    """Brings keys of records and texts of sends into one form.

    Args:
        job: The job as it was when it sent.
        lookup: Finds schemas; None: the cluster has no registry.
    """

    def __init__(self, job: Job, lookup: Lookup | None) -> None:
        given = job.kafka_config.message_key_field or ()
        columns = [name.lower() for name in ([given] if isinstance(given, str) else given)]
        self._columns, self._names = columns, [identifier(name).lower() for name in columns]
        self._separator = job.key_separator if len(columns) > 1 else None
        self._is_json = job.key_format == "json"
        self._lookup = lookup
        self._decoders: dict[int, Decode | None] = {}
        self._has_decoded = False
        self.problem = ""
        """Why a key cannot be decoded; empty: there was none."""

    @property
    def is_blind(self) -> bool:
        """Whether no key can be compared: there is no registry, or it does not have the schema of the run any more."""
        return bool(self.problem) and not self._has_decoded

    def of_topic(self, raw: bytes | None) -> bytes | None:
        """Returns the key of a record in that form; `NOT_COMPARED` where its text is not known."""
        if raw is None:
            return None
        decode: Decode = _decode_json
        body = raw
        if not self._is_json:
            if len(raw) < _HEAD or raw[:1] != MAGIC:
                return _UNLIKE + raw
            found = self._decoder(int.from_bytes(raw[1:_HEAD], "big"))
            if found is None:  # all keys of a run have one schema
                return _UNLIKE + raw
            decode, body = found, raw[_HEAD:]
        try:
            texts = self._texts(decode(body))
            self._has_decoded = True
        except ArithmeticError:  # a time that Python does not have
            texts = None
        except NOT_OF_THIS_SCHEMA:
            return _UNLIKE + raw
        if texts is None or self._separator == "":
            return NOT_COMPARED
        return self._canonical((self._separator or "").join(texts))

    def of_spool(self, text: bytes | None) -> bytes | None:
        """Returns the key of a send, which is recorded as text, in that form."""
        return None if text is None else self._canonical(text.decode())

    def _decoder(self, schema_id: int) -> Decode | None:
        """Returns what decodes keys of a schema; None: it is not known, or has types whose text is not known."""
        if schema_id not in self._decoders:
            try:
                schema = self._lookup(schema_id) if self._lookup else None
            except PsttError as error:
                schema, self.problem = None, error.text
            if schema is None:
                self.problem = self.problem or "the cluster has no schema registry any more"
            made = None if schema is None else _decoder_of(schema)
            if schema is not None and made is None:
                self.problem = "the schema has types that no text of a key says"
            self._decoders[schema_id] = made
        return self._decoders[schema_id]

    def _texts(self, tree: Any) -> list[str] | None:
        """Returns the text of each column of the key; None: a column is not in it."""
        if not isinstance(tree, dict):
            return [_text(tree)] if len(self._columns) == 1 else None
        found = {name.lower(): value for name, value in tree.items()}
        names = self._columns if all(name in found for name in self._columns) else self._names
        values = [found.get(name) for name in names]
        return None if None in values else [_text(value) for value in values]

    def _canonical(self, text: str) -> bytes:
        if self._separator:
            text = self._separator.join(map(_plain, text.split(self._separator)))
        else:
            text = _plain(text)
        return text.encode("utf-8", "backslashreplace")


def _decoder_of(schema: Schema) -> Decode | None:
    if schema.type == "JSON":
        return _decode_json
    if schema.type == "PROTOBUF":
        from core.message.protobuf import decode_protobuf  # loads numpy, 70 ms

        message = parse_proto(schema.text)

        def protobuf(body: bytes) -> Any:
            if body[:1] != b"\0":
                raise ValueError("another message than the first one of its schema")
            return decode_protobuf(body[1:], message)

        return protobuf
    return _avro_decoder(json.loads(schema.text))


def _avro_decoder(given: Any) -> Decode | None:
    import fastavro  # 60 ms

    if not _is_plain(given):
        return None
    parsed = fastavro.parse_schema(given) if isinstance(given, dict | list) else given

    def avro(body: bytes) -> Any:
        stream = io.BytesIO(body)
        found = fastavro.schemaless_reader(stream, parsed, None)
        if stream.read(1):
            raise ValueError("the key is longer than its schema says")
        return found

    return avro


def _is_plain(given: Any) -> bool:
    """Returns whether an Avro type has only values whose text is known."""
    if isinstance(given, list):
        return all(map(_is_plain, given))
    if isinstance(given, str):
        return given in _AVRO_TYPES
    kind, logical = given.get("type"), given.get("logicalType", "")
    if kind == "record":
        fields: Sequence[Mapping[str, Any]] = given["fields"]
        return all(_is_plain(field["type"]) for field in fields)
    return kind == "enum" or (kind in _AVRO_TYPES and (not logical or logical in _AVRO_LOGICAL))


def _decode_json(body: bytes) -> Any:
    """Returns a JSON value with numbers as the text that they are written with."""
    return json.loads(body, parse_float=str, parse_int=str)


def _text(value: Any) -> str:
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, date):  # a datetime is one too
        return value.isoformat()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return key_text(value)


def _plain(text: str) -> str:
    """Returns a number with a fraction without trailing zeros, and a time in UTC with microseconds; other text as it is."""
    if _NUMBER.fullmatch(text):
        number = format(Decimal(text), "f")
        return number.rstrip("0").rstrip(".") if "." in number else number
    if _MOMENT.match(text):
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            return text
        aware = moment if moment.tzinfo is None else moment.astimezone(UTC)
        return aware.isoformat(timespec="microseconds")
    return text
