"""A message's value in Protobuf: the row alone, or `data` and `metadata` around it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from core.errors import ConfigError
from core.message.field_types import Field, identifier
from core.message.protobuf import ProtobufRows, proto_bytes, proto_number, proto_timestamp
from core.message.protobuf_schema import TIMESTAMP, ProtoField, ProtoMessage, message_of, parse_proto, proto_text
from core.message.value_formats import SYSTEM, Formats, Rejects, latency_ms, record_name
from core.model.job import Job
from core.model.schema import Schema
from core.model.source import Column
from core.version import __version__

__all__ = ["FIRST_MESSAGE", "ProtobufValue", "derived_proto"]

FIRST_MESSAGE = b"\0"
"""After the id: the message is the first one of its schema."""
_SOURCE = ("system", "version", "connection", "query")


class ProtobufValue:
    """See `core.message.value_formats.ValueFormat`."""

    content_type = "application/protobuf"

    def __init__(self, job: Job, columns: Sequence[Column], fields: Sequence[Field], formats: Formats) -> None:
        if formats.value_schema:
            row = parse_proto(formats.value_schema)
            name = f"{row.package}.{row.name}".lstrip(".")
            schema = Schema("PROTOBUF", formats.value_schema, name)
        else:
            schema, row = derived_proto(
                job, record_name(job), fields, formats, "value", is_wrapped=job.envelope == "pstt"
            )
        self._rows = ProtobufRows(columns, fields, row)
        self._has_metadata = job.kafka_config.include_metadata
        texts = (SYSTEM, __version__, job.connection, job.query)
        self._source = proto_bytes(1, b"".join(proto_bytes(at, text.encode()) for at, text in enumerate(texts, 1)))
        self.schema: Schema | None = schema
        self.prefix = formats.prefix(job, schema, "value") + FIRST_MESSAGE

    def rows(self, values: Sequence[Sequence[Any]], rows: Sequence[bytes], bad: Rejects) -> list[bytes]:
        """See `ValueFormat.rows`."""
        return self._rows.rows(values, bad)

    def with_data(self, row: bytes) -> bytes:
        """See `ValueFormat.with_data`."""
        return self.prefix + proto_bytes(1, row)

    def metadata(self, extracted_at: datetime, published_at: datetime) -> bytes:
        """See `ValueFormat.metadata`."""
        if not self._has_metadata:
            return b""
        processing = b"".join(
            (
                proto_timestamp(1, extracted_at),
                proto_timestamp(2, published_at),
                proto_number(3, latency_ms(extracted_at, published_at)),
            )
        )
        return proto_bytes(2, self._source + proto_timestamp(2, published_at) + proto_bytes(3, processing))


def derived_proto(
    job: Job, name: str, fields: Sequence[Field], formats: Formats, part: str, *, is_wrapped: bool = False
) -> tuple[Schema, ProtoMessage]:
    """Returns the schema of a row and the message in it whose fields are the columns.

    A field has the number that the newest registered schema gives it.
    """
    package, _, short = name.rpartition(".")
    short = identifier(short)
    text = formats.earlier(job, Schema("PROTOBUF", "", name), part)
    earlier = _known(text, short, is_wrapped=is_wrapped)
    row = message = message_of("Data" if is_wrapped else short, fields, earlier)
    if is_wrapped:
        message = _around(short, row, job)
    return Schema("PROTOBUF", proto_text(message, package), name), row


def _known(text: str | None, short: str, *, is_wrapped: bool) -> ProtoMessage | None:
    if text is None:
        return None
    try:
        found = parse_proto(text)
    except ConfigError:  # another format is registered: the registry will refuse ours
        return None
    return found.nested("Data") if is_wrapped else found if found.name == short else None


def _around(name: str, row: ProtoMessage, job: Job) -> ProtoMessage:
    made = ProtoMessage(name, [ProtoField("data", 1, "Data", "optional")], [row])
    if job.kafka_config.include_metadata:
        source = ProtoMessage("Source", [ProtoField(text, at, "string") for at, text in enumerate(_SOURCE, 1)])
        processing = ProtoMessage(
            "Processing",
            [
                ProtoField("extracted_at", 1, TIMESTAMP),
                ProtoField("published_at", 2, TIMESTAMP),
                ProtoField("latency_ms", 3, "int64"),
            ],
        )
        metadata = ProtoMessage(
            "Metadata",
            [
                ProtoField("source", 1, "Source"),
                ProtoField("timestamp", 2, TIMESTAMP),
                ProtoField("processing", 3, "Processing"),
            ],
        )
        made.messages += [source, processing, metadata]
        made.fields.append(ProtoField("metadata", 2, "Metadata", "optional"))
    return made
