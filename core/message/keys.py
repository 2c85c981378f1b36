"""The bytes of keys in a format of their own: JSON, Avro, Protobuf, JSON Schema. A key of plain text needs none of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import msgspec

from core.message.field_types import Field
from core.message.json_schema import DRAFT, json_schema_object, json_schema_type
from core.message.protobuf_schema import parse_proto
from core.message.value_formats import Formats, Rejects, record_name
from core.model.job import Job
from core.model.schema import Schema
from core.model.source import Column

__all__ = ["KeyEncoder"]

_json = msgspec.json.Encoder(decimal_format="number").encode


class KeyEncoder:
    """Encodes keys. One column is its bare value (in Protobuf a message with it), several are an object or a record.

    Args:
        job: Its key format.
        columns: The columns of the key.
        fields: Their fields.
        formats: Registry and given schema.

    Raises:
        ConfigError: There is no registry, or the given schema does not fit.
        SchemaRefused, RegistryUnavailable, NotAuthorised: As `Schemas.id_of`.
    """

    def __init__(self, job: Job, columns: Sequence[Column], fields: Sequence[Field], formats: Formats) -> None:
        self._format, self._names = job.key_format, [field.name for field in fields]
        self.prefix = b""
        self.schema: Schema | None = None
        self._rows: Any = None
        name = f"{record_name(job)}_key"
        if job.key_format == "avro":
            self._use_avro(job, name, columns, fields, formats)
        elif job.key_format == "protobuf":
            self._use_protobuf(job, name, columns, fields, formats)
        elif job.key_format == "json_schema":
            self._use_json_schema(job, name, fields, formats)

    def _use_avro(
        self, job: Job, name: str, columns: Sequence[Column], fields: Sequence[Field], formats: Formats
    ) -> None:
        from core.message.avro import AvroRows, avro_key_schema  # loads fastavro, 60 ms
        from core.message.avro_value import parsed_avro

        given = parsed_avro(formats.key_schema, job.schemas.key_file or "") if formats.key_schema else None
        schema = avro_key_schema(name, fields) if given is None else given
        is_record = isinstance(schema, dict) and schema.get("type") == "record"
        if is_record:
            name = ".".join(filter(None, (schema.get("namespace"), schema["name"])))
        self.schema = Schema("AVRO", json.dumps(schema, ensure_ascii=False), name if is_record else "")
        self._rows = AvroRows(columns, fields, schema)
        self.prefix = formats.prefix(job, self.schema, "key")

    def _use_protobuf(
        self, job: Job, name: str, columns: Sequence[Column], fields: Sequence[Field], formats: Formats
    ) -> None:
        from core.message.protobuf import ProtobufRows  # loads numpy, 70 ms
        from core.message.protobuf_value import FIRST_MESSAGE, derived_proto

        if formats.key_schema:
            message = parse_proto(formats.key_schema)
            self.schema = Schema("PROTOBUF", formats.key_schema, f"{message.package}.{message.name}".lstrip("."))
        else:
            self.schema, message = derived_proto(job, name, fields, formats, "key")
        self._rows = ProtobufRows(columns, fields, message)
        self.prefix = formats.prefix(job, self.schema, "key") + FIRST_MESSAGE

    def _use_json_schema(self, job: Job, name: str, fields: Sequence[Field], formats: Formats) -> None:
        text = formats.key_schema
        if not text:
            alone = len(fields) == 1
            made = (
                {"$schema": DRAFT, "title": name, **json_schema_type(fields[0])}
                if alone
                else json_schema_object(name, fields)
            )
            text = json.dumps(made, ensure_ascii=False)
        self.schema = Schema("JSON", text, name)
        self.prefix = formats.prefix(job, self.schema, "key")

    def keys(self, values: Sequence[Sequence[Any]], texts: Sequence[bytes | None], bad: Rejects) -> list[bytes | None]:
        """Returns the key of each row.

        Args:
            values: The columns of the key, encoded cells as they become JSON.
            texts: The keys as text; None: the row has no key.
            bad: Row → why it is rejected; rows whose key does not fit are added.
        """
        if self._rows is not None:
            present = [row for row, text in enumerate(texts) if text is not None]
            chosen = values if len(present) == len(texts) else [[cells[row] for row in present] for cells in values]
            found: Rejects = {}
            encoded = iter(self._rows.rows(chosen, found))
            bad.update((present[at], reason) for at, reason in found.items())
        elif len(values) == 1:
            encoded = map(_json, (cell for cell, text in zip(values[0], texts, strict=True) if text is not None))
        else:
            rows = zip(*values, strict=True)
            encoded = (
                _json(dict(zip(self._names, row, strict=True)))
                for row, text in zip(rows, texts, strict=True)
                if text is not None
            )
        return [None if text is None else self.prefix + next(encoded) for text in texts]
