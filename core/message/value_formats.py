"""The formats of a message's value: each turns rows into bytes and says what precedes them. JSON is the plainest of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

import msgspec

from core.clock import iso_utc
from core.errors import ConfigError, RowRejected
from core.message.field_types import Field, identifier
from core.message.json_schema import RowValidator, json_schema_object
from core.model.job import Job
from core.model.schema import Schema, Schemas
from core.version import __version__

__all__ = [
    "MAGIC",
    "SYSTEM",
    "Formats",
    "JsonSchemaValue",
    "JsonValue",
    "Rejects",
    "ValueFormat",
    "latency_ms",
    "record_name",
    "schema_prefix",
    "subject_of",
]

SYSTEM = "PSTT_Tool"
Rejects = dict[int, RowRejected]
MAGIC = b"\0"
"""The first byte of a message in Confluent's wire format; four bytes with the id of its schema follow."""
_json = msgspec.json.Encoder(decimal_format="number").encode


@dataclass(frozen=True, slots=True)
class Formats:
    """What the formats of a job need besides its columns."""

    topic: str = ""
    schemas: Schemas | None = None
    """Gives ids to schemas; None: the cluster has no `schema_registry`."""
    value_schema: str = ""
    """The text of the job's `schema.value_file`; empty: it has none."""
    key_schema: str = ""

    def prefix(self, job: Job, schema: Schema, part: str) -> bytes:
        """Returns what precedes a key or a value of this schema, whose id is asked for.

        Args:
            job: Its subject strategy.
            schema: The schema.
            part: `key` or `value`.

        Raises:
            ConfigError: There is no registry.
            SchemaRefused, RegistryUnavailable, NotAuthorised: As `Schemas.id_of`.
        """
        if self.schemas is None:
            raise ConfigError(
                f'job "{job.name}" sends {schema.type.lower().replace("json", "JSON Schema")}, and its cluster has no schema registry',
                remedy='add "schema_registry": {"url": "https://…"} to the cluster in connections.json',
                key=f"{part}_format",
            )
        return schema_prefix(self.schemas.id_of(subject_of(job, self.topic, schema, part), schema))

    def earlier(self, job: Job, schema: Schema, part: str) -> str | None:
        """Returns the text of the newest registered schema of the same subject; None: there is none."""
        return None if self.schemas is None else self.schemas.latest(subject_of(job, self.topic, schema, part))


def schema_prefix(schema_id: int) -> bytes:
    """Returns the first five bytes of a message in Confluent's wire format."""
    return MAGIC + schema_id.to_bytes(4, "big")


def subject_of(job: Job, topic: str, schema: Schema, part: str) -> str:
    """Returns the subject of a schema; a key without a record has no name, so its subject is that of the topic."""
    if job.schemas.subject == "topic" or not schema.name:
        return f"{topic}-{part}"
    return schema.name if job.schemas.subject == "record" else f"{topic}-{schema.name}"


class ValueFormat(Protocol):
    """One format of a value."""

    content_type: str
    schema: Schema | None
    """None: plain JSON."""
    prefix: bytes
    """What precedes each value."""

    def rows(self, values: Sequence[Sequence[Any]], rows: Sequence[bytes], bad: Rejects) -> Sequence[bytes]:
        """Returns each row in this format.

        Args:
            values: By columns, encoded cells as they become JSON.
            rows: The JSON object of each row.
            bad: Row → why it is rejected; rows that do not fit are added.
        """
        ...

    def with_data(self, row: bytes) -> bytes:
        """Returns the beginning of a message with the row as its `data`."""
        ...

    def metadata(self, extracted_at: datetime, published_at: datetime) -> bytes:
        """Returns the end of that message: where the row comes from, and when."""
        ...


def record_name(job: Job) -> str:
    """Returns the full name of the record of a job's values."""
    return job.schemas.name or f"pstt.{identifier(job.slug)}"


class JsonValue:
    """JSON without a schema."""

    content_type = "application/json"
    schema: Schema | None = None
    prefix = b""

    def __init__(self, job: Job) -> None:
        source = {"system": SYSTEM, "version": __version__, "connection": job.connection, "query": job.query}
        self._source = b',"metadata":{"source":' + _json(source) + b',"timestamp":"'
        self._has_metadata = job.kafka_config.include_metadata

    def rows(self, values: Sequence[Sequence[Any]], rows: Sequence[bytes], bad: Rejects) -> Sequence[bytes]:
        """See `ValueFormat.rows`."""
        return rows

    def with_data(self, row: bytes) -> bytes:
        """See `ValueFormat.with_data`."""
        return b'{"data":' + row

    def metadata(self, extracted_at: datetime, published_at: datetime) -> bytes:
        """See `ValueFormat.metadata`."""
        if not self._has_metadata:
            return b"}"
        published = iso_utc(published_at).encode()
        return b"".join(
            (
                self._source,
                published,
                b'","processing":{"extracted_at":"',
                iso_utc(extracted_at, "seconds").encode(),
                b'","published_at":"',
                published[: len("2026-01-17T10:30:45")],
                b'Z","latency_ms":%d}}}' % latency_ms(extracted_at, published_at),
            )
        )


def latency_ms(extracted_at: datetime, published_at: datetime) -> int:
    """Returns the time between reading and publishing, in whole milliseconds."""
    return round((published_at - extracted_at) / timedelta(milliseconds=1))


class JsonSchemaValue(JsonValue):
    """JSON with the id of its JSON Schema before it."""

    def __init__(self, job: Job, fields: Sequence[Field], formats: Formats) -> None:
        super().__init__(job)
        name = record_name(job)
        text = formats.value_schema
        self._validator = RowValidator(text) if text else None
        if text:
            name = _title(text) or name
        else:
            row = json_schema_object(name, fields, digits_as_text=job.decimals == "string")
            text = json.dumps(self._around(row, job) if job.envelope == "pstt" else row, ensure_ascii=False)
        self.schema = schema = Schema("JSON", text, name)
        self.prefix = formats.prefix(job, schema, "value")

    @staticmethod
    def _around(row: dict[str, Any], job: Job) -> dict[str, Any]:
        draft = row.pop("$schema")
        text, number = {"type": "string"}, {"type": "integer"}
        processing = {"extracted_at": text, "published_at": text, "latency_ms": number}
        metadata = {
            "source": {
                "type": "object",
                "properties": dict.fromkeys(("system", "version", "connection", "query"), text),
            },
            "timestamp": text,
            "processing": {"type": "object", "properties": processing},
        }
        properties = {
            "data": row,
            **({"metadata": {"type": "object", "properties": metadata}} if job.kafka_config.include_metadata else {}),
        }
        return {
            "$schema": draft,
            "title": row.pop("title"),
            "type": "object",
            "properties": properties,
            "additionalProperties": False,
        }

    def rows(self, values: Sequence[Sequence[Any]], rows: Sequence[bytes], bad: Rejects) -> Sequence[bytes]:
        """See `ValueFormat.rows`."""
        if self._validator is not None:
            self._validator.check(rows, bad)
        return rows


def _title(text: str) -> str:
    try:
        found = json.loads(text)
    except ValueError:
        return ""
    return str(found.get("title", "")) if isinstance(found, dict) else ""
