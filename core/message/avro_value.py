"""A message's value in Avro: the row alone, or `data` and `metadata` around it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import fastavro.schema

from core.errors import ConfigError
from core.message.avro import AvroRows, avro_long, avro_record, avro_text
from core.message.field_types import Field
from core.message.value_formats import SYSTEM, Formats, Rejects, latency_ms, record_name
from core.model.job import Job
from core.model.schema import Schema
from core.model.source import Column
from core.version import __version__

__all__ = ["AvroValue", "parsed_avro"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROS = {"type": "long", "logicalType": "timestamp-micros"}
_SOURCE = ("system", "version", "connection", "query")


class AvroValue:
    """See `core.message.value_formats.ValueFormat`."""

    content_type = "application/avro"

    def __init__(self, job: Job, columns: Sequence[Column], fields: Sequence[Field], formats: Formats) -> None:
        if formats.value_schema:
            row = message = parsed_avro(formats.value_schema, job.schemas.value_file or "")
            if not isinstance(row, dict) or row.get("type") != "record":
                raise ConfigError(
                    f"the schema in {job.schemas.value_file} is no record", remedy="declare a record of the row"
                )
        else:
            message = row = avro_record(record_name(job), fields)
            if job.envelope == "pstt":
                message = _around(row, job)
        self._rows = AvroRows(columns, fields, row)
        self._has_metadata = job.kafka_config.include_metadata
        self._source = b"".join(map(avro_text, (SYSTEM, __version__, job.connection, job.query)))
        name = fastavro.schema.fullname(message)
        schema = Schema("AVRO", json.dumps(message, ensure_ascii=False), name)
        self.schema: Schema | None = schema
        self.prefix = formats.prefix(job, schema, "value")

    def rows(self, values: Sequence[Sequence[Any]], rows: Sequence[bytes], bad: Rejects) -> list[bytes]:
        """See `ValueFormat.rows`."""
        return self._rows.rows(values, bad)

    def with_data(self, row: bytes) -> bytes:
        """See `ValueFormat.with_data`."""
        return self.prefix + row

    def metadata(self, extracted_at: datetime, published_at: datetime) -> bytes:
        """See `ValueFormat.metadata`."""
        if not self._has_metadata:
            return b""
        published = avro_long(_micros(published_at))
        return b"".join(
            (
                self._source,
                published,
                avro_long(_micros(extracted_at)),
                published,
                avro_long(latency_ms(extracted_at, published_at)),
            )
        )


def parsed_avro(text: str, file: str) -> Any:
    """Returns the schema of a text.

    Raises:
        ConfigError: It is no Avro schema.
    """
    try:
        schema = json.loads(text)
        fastavro.schema.parse_schema(schema)
    except (
        ValueError,
        TypeError,
        KeyError,
        fastavro.schema.SchemaParseException,
        fastavro.schema.UnknownType,
    ) as error:
        raise ConfigError(f"the schema in {file} is no Avro schema", why=str(error).split("\n")[0]) from None
    return schema


def _around(row: dict[str, Any], job: Job) -> dict[str, Any]:
    """Returns the record of a message; the row's own record is `data`."""
    fields: list[dict[str, Any]] = [{"name": "data", "type": {**row, "name": f"{row['name']}_data"}}]
    if job.kafka_config.include_metadata:
        source = {"type": "record", "name": "Source", "fields": [{"name": name, "type": "string"} for name in _SOURCE]}
        processing = {
            "type": "record",
            "name": "Processing",
            "fields": [
                {"name": "extracted_at", "type": _MICROS},
                {"name": "published_at", "type": _MICROS},
                {"name": "latency_ms", "type": "long"},
            ],
        }
        metadata = {
            "type": "record",
            "name": "Metadata",
            "fields": [
                {"name": "source", "type": source},
                {"name": "timestamp", "type": _MICROS},
                {"name": "processing", "type": processing},
            ],
        }
        fields.append({"name": "metadata", "type": metadata})
    space = {"namespace": row["namespace"]} if "namespace" in row else {}
    return {"type": "record", "name": row["name"], **space, "fields": fields}


def _micros(at: datetime) -> int:
    return (at - _EPOCH) // timedelta(microseconds=1)
