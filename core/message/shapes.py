"""What is around a row: `data` and `metadata`, nothing, CloudEvents 1.0, or Kafka Connect's schema and payload."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Protocol
from urllib.parse import quote

import msgspec

from core.clock import iso_utc
from core.message.field_types import Field, identifier
from core.message.value_formats import Formats, JsonSchemaValue, JsonValue, Rejects, ValueFormat, record_name
from core.model.job import Job
from core.model.source import Column

__all__ = ["Shape", "shape_of"]

_json = msgspec.json.encode


class Shape(Protocol):
    """The form of a job's values. `rows` and `bodies` are made once; `wrap` adds what a time changes."""

    format: ValueFormat

    def rows(self, values: Sequence[Sequence[Any]], rows: Sequence[bytes], bad: Rejects) -> Sequence[bytes]:
        """Returns each row in the job's format; see `ValueFormat.rows`."""
        ...

    def bodies(
        self, rows: Sequence[bytes], message_ids: Sequence[bytes], keys: Sequence[bytes | None], extracted_at: datetime
    ) -> list[bytes]:
        """Returns what of each value does not depend on when it is published.

        Args:
            rows: As `rows` returned them.
            message_ids: The id of each.
            keys: The text of each key, as UTF-8.
            extracted_at: When they were fetched.
        """
        ...

    def wrap(self, bodies: Sequence[bytes], extracted_at: datetime, published_at: datetime) -> list[bytes]:
        """Returns the values."""
        ...

    def headers(self, extracted_at: datetime) -> tuple[tuple[str, bytes], ...]:
        """Returns the headers that are the same for each message."""
        ...

    def header_columns(
        self, message_ids: Sequence[bytes], keys: Sequence[bytes | None]
    ) -> tuple[tuple[str, Sequence[bytes | None]], ...]:
        """Returns the headers with a value for each message; None: the message has no such header."""
        ...


def shape_of(job: Job, columns: Sequence[Column], fields: Sequence[Field], formats: Formats) -> Shape:
    """Returns the form of a job's values; raises as `core.message.envelope.Envelope`."""
    if job.envelope == "connect":
        return _Connect(job, columns, fields)
    made = _value_format(job, columns, fields, formats)
    if job.envelope == "pstt":
        return _Pstt(made)
    if job.envelope == "none":
        return _Bare(made)
    return _BinaryEvent(made, job) if job.cloudevents.mode == "binary" else _StructuredEvent(made, job)


def _value_format(job: Job, columns: Sequence[Column], fields: Sequence[Field], formats: Formats) -> ValueFormat:
    """Returns the format of a job's values; asks the registry for the id of their schema.

    Raises:
        ConfigError: There is no registry, or the given schema does not fit the columns.
        SchemaRefused, RegistryUnavailable, NotAuthorised: As `Schemas.id_of`.
    """
    if job.value_format == "avro":
        from core.message.avro_value import AvroValue  # loads fastavro, 60 ms

        return AvroValue(job, columns, fields, formats)
    if job.value_format == "protobuf":
        from core.message.protobuf_value import ProtobufValue  # loads numpy, 70 ms

        return ProtobufValue(job, columns, fields, formats)
    return JsonSchemaValue(job, fields, formats) if job.value_format == "json_schema" else JsonValue(job)


class _Bare:
    """The row and nothing else."""

    def __init__(self, made: ValueFormat) -> None:
        self.format = made

    def rows(self, values: Sequence[Sequence[Any]], rows: Sequence[bytes], bad: Rejects) -> Sequence[bytes]:
        return self.format.rows(values, rows, bad)

    def bodies(
        self, rows: Sequence[bytes], message_ids: Sequence[bytes], keys: Sequence[bytes | None], extracted_at: datetime
    ) -> list[bytes]:
        prefix = self.format.prefix
        return [prefix + row for row in rows] if prefix else list(rows)

    def wrap(self, bodies: Sequence[bytes], extracted_at: datetime, published_at: datetime) -> list[bytes]:
        return list(bodies)

    def headers(self, extracted_at: datetime) -> tuple[tuple[str, bytes], ...]:
        return ()

    def header_columns(
        self, message_ids: Sequence[bytes], keys: Sequence[bytes | None]
    ) -> tuple[tuple[str, Sequence[bytes | None]], ...]:
        return ()


class _Pstt(_Bare):
    """`data` and `metadata`; the metadata has times, so that it is added when messages are published."""

    def bodies(
        self, rows: Sequence[bytes], message_ids: Sequence[bytes], keys: Sequence[bytes | None], extracted_at: datetime
    ) -> list[bytes]:
        return list(rows)

    def wrap(self, bodies: Sequence[bytes], extracted_at: datetime, published_at: datetime) -> list[bytes]:
        end = self.format.metadata(extracted_at, published_at)
        if isinstance(self.format, JsonValue):
            start = self.format.prefix + self.format.with_data(b"")
            whole = start.replace(b"%", b"%%") + b"%b" + end.replace(b"%", b"%%")
            return list(map(whole.__mod__, bodies))  # one copy of each row, not two
        return [self.format.with_data(row) + end for row in bodies]


class _Connect(_Bare):
    """Kafka Connect's JSON."""

    def __init__(self, job: Job, columns: Sequence[Column], fields: Sequence[Field]) -> None:
        from core.message.connect import ConnectRows  # imports numpy, 70 ms

        super().__init__(JsonValue(job))
        self._rows = ConnectRows(record_name(job), columns, fields)

    def rows(self, values: Sequence[Sequence[Any]], rows: Sequence[bytes], bad: Rejects) -> Sequence[bytes]:
        head = self._rows.head
        return [head + row + b"}" for row in self._rows.rows(values, bad)]


class _BinaryEvent(_Bare):
    """CloudEvents 1.0, binary mode of the Kafka protocol binding: attributes are headers, the value is the row."""

    def __init__(self, made: ValueFormat, job: Job) -> None:
        super().__init__(made)
        source, kind = _source_and_type(job)
        self._headers = (
            ("content-type", made.content_type.encode()),
            ("ce_specversion", b"1.0"),
            ("ce_source", source.encode()),
            ("ce_type", kind.encode()),
        )

    def headers(self, extracted_at: datetime) -> tuple[tuple[str, bytes], ...]:
        return (*self._headers, ("ce_time", iso_utc(extracted_at).encode()))

    def header_columns(
        self, message_ids: Sequence[bytes], keys: Sequence[bytes | None]
    ) -> tuple[tuple[str, Sequence[bytes | None]], ...]:
        # An empty subject is not allowed by CloudEvents.
        return (("ce_id", message_ids), ("ce_subject", [key or None for key in keys]))


class _StructuredEvent(_Bare):
    """CloudEvents 1.0, structured mode: the value is one JSON object with attributes and data."""

    def __init__(self, made: ValueFormat, job: Job) -> None:
        super().__init__(made)
        source, kind = _source_and_type(job)
        fixed = {"specversion": "1.0", "source": source, "type": kind, "datacontenttype": made.content_type}
        self._head = _json(fixed)[:-1] + b',"id":"'

    def bodies(
        self, rows: Sequence[bytes], message_ids: Sequence[bytes], keys: Sequence[bytes | None], extracted_at: datetime
    ) -> list[bytes]:
        time = b'","time":"' + iso_utc(extracted_at).encode() + b'"'
        subjects = [b',"subject":' + _json(key.decode()) if key else b"" for key in keys]
        return [
            self._head + message_id + time + subject + b',"data":' + row + b"}"
            for row, message_id, subject in zip(rows, message_ids, subjects, strict=True)
        ]

    def headers(self, extracted_at: datetime) -> tuple[tuple[str, bytes], ...]:
        return (("content-type", b"application/cloudevents+json; charset=UTF-8"),)


def _source_and_type(job: Job) -> tuple[str, str]:
    """Returns where the events come from, as a URI reference, and what they are."""
    given = job.cloudevents
    return (
        given.source or f"/pstt/{quote(job.connection, safe='')}/{quote(job.query, safe='')}",
        given.type or f"pstt.{identifier(job.slug)}",
    )
