"""Avro, Protobuf, JSON Schema, Connect and CloudEvents: each message is read back by a library that did not write it."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import fastavro
import jsonschema
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, timestamp_pb2
from hypothesis import given
from hypothesis import strategies as st

from core.errors import ConfigError, RegistryUnavailable
from core.message.decoding import is_same_key, readable
from core.message.envelope import Encoded, Envelope
from core.message.key_comparison import NOT_COMPARED, KeyComparison
from core.message.protobuf_schema import ProtoMessage, parse_proto
from core.message.value_formats import Formats
from core.model.job import CloudEvents, Job, KafkaConfig, SchemaOptions
from core.model.schema import Schema
from core.model.source import Column, Rows
from tests.rigs.schemas import ListedSchemas

AT = datetime(2026, 1, 17, 2, tzinfo=UTC)
READ_AT = datetime(2026, 1, 17, 10, 30, 30, 500, tzinfo=UTC)
SENT_AT = datetime(2026, 1, 17, 10, 30, 45, 123456, tzinfo=UTC)
KEY = KafkaConfig(topic="traces", message_key_field="BARCODE")
JOB = Job("tracce", "Tracce", "tracce.sql", "A00", kafka_config=KEY, envelope="none", value_format="avro")
COLUMNS = [
    Column("BARCODE", "text", "varchar"),
    Column("COUNT", "integer", "bigint"),
    Column("PRICE", "decimal", "numeric(10,2)"),
    Column("FREE", "decimal", "numeric"),
    Column("RATIO", "float", "float8"),
    Column("DAY", "date", "date"),
    Column("SEEN", "datetime", "timestamp"),
    Column("ARRIVED", "datetime_tz", "timestamptz"),
    Column("DONE", "boolean", "bool"),
    Column("IMAGE", "bytes", "bytea"),
    Column("MORE", "json", "jsonb"),
    Column("TAGS", "array", "text[]", element="text"),
    Column("SPAN", "interval", "interval"),
]
ROW = (
    "572680001120",
    848,
    "12.50",
    "0.1000",
    1.5,
    "2026-01-16",
    "2026-01-16 11:50:32.665",
    "2026-01-16 11:50:32.665+00",
    True,
    b"\0\xff",
    '{"a": [1, null]}',
    ["x", "è"],
    "P1DT2H",
)
NULLS = ("k", *[None] * (len(COLUMNS) - 1))


def encode(
    columns: Sequence[Column], rows: Sequence[Sequence[Any]], job: Job, formats: Formats | None = None
) -> tuple[list[bytes | None], Encoded, Envelope]:
    envelope = Envelope(columns, job, scheduled_at=AT, formats=formats or Formats("traces", ListedSchemas()))
    encoded = envelope.encode(Rows(1, [tuple(row) for row in rows], READ_AT))
    return envelope.values(encoded, published_at=SENT_AT), encoded, envelope


def from_avro(value: bytes | None, schema: Schema | None) -> Any:
    assert value is not None
    assert schema is not None
    assert value[:5] == b"\0\0\0\0\1"
    body = io.BytesIO(value[5:])
    found = fastavro.schemaless_reader(body, json.loads(schema.text), None)
    assert body.read() == b""
    return found


# ── Avro ──────────────────────────────────────────────────────────────────────────────────────


def test_a_row_in_avro_has_the_types_of_its_columns() -> None:
    values, encoded, envelope = encode(COLUMNS, [ROW, NULLS], JOB)
    assert encoded.rejects == []
    assert from_avro(values[0], envelope.value_schema) == {
        "barcode": "572680001120",
        "count": 848,
        "price": Decimal("12.50"),
        "free": "0.1000",
        "ratio": 1.5,
        "day": date(2026, 1, 16),
        "seen": datetime.fromisoformat("2026-01-16T11:50:32.665"),
        "arrived": datetime(2026, 1, 16, 11, 50, 32, 665000, UTC),
        "done": True,
        "image": b"\0\xff",
        "more": '{"a": [1, null]}',
        "tags": ["x", "è"],
        "span": "P1DT2H",
    }
    assert from_avro(values[1], envelope.value_schema) == {c.name.lower(): None for c in COLUMNS} | {"barcode": "k"}


def test_the_derived_schema_has_scales_micros_and_nulls() -> None:
    _, _, envelope = encode(COLUMNS, [ROW], JOB)
    assert envelope.value_schema is not None
    schema = json.loads(envelope.value_schema.text)
    assert (schema["namespace"], schema["name"], envelope.value_schema.name) == ("pstt", "tracce", "pstt.tracce")
    types = {field["name"]: field["type"] for field in schema["fields"]}
    assert types["price"] == ["null", {"type": "bytes", "logicalType": "decimal", "precision": 10, "scale": 2}]
    assert types["seen"] == ["null", {"type": "long", "logicalType": "local-timestamp-micros"}]
    assert types["arrived"] == ["null", {"type": "long", "logicalType": "timestamp-micros"}]
    assert all(field["default"] is None for field in schema["fields"])


def test_message_ids_are_the_same_in_every_format_and_envelope() -> None:
    plain = replace(JOB, value_format="json", envelope="pstt")
    expected = encode(COLUMNS, [ROW, NULLS], plain)[1].message_ids
    for fmt in ("json", "avro", "protobuf", "json_schema"):
        for envelope in ("pstt", "none", "cloudevents"):
            job = replace(JOB, value_format=fmt, envelope=envelope, key_format="avro")
            assert encode(COLUMNS, [ROW, NULLS], job)[1].message_ids == expected
    assert encode(COLUMNS, [ROW, NULLS], replace(plain, envelope="connect"))[1].message_ids == expected


def test_pstt_envelope_in_avro_has_data_and_metadata() -> None:
    values, _, envelope = encode(COLUMNS[:2], [ROW[:2]], replace(JOB, envelope="pstt"))
    assert from_avro(values[0], envelope.value_schema) == {
        "data": {"barcode": "572680001120", "count": 848},
        "metadata": {
            "source": {"system": "PSTT_Tool", "version": "1.0.4", "connection": "A00", "query": "tracce.sql"},
            "timestamp": SENT_AT,
            "processing": {"extracted_at": READ_AT, "published_at": SENT_AT, "latency_ms": 15123},
        },
    }
    bare = replace(JOB, envelope="pstt", kafka_config=replace(KEY, include_metadata=False))
    values, _, envelope = encode(COLUMNS[:2], [ROW[:2]], bare)
    assert from_avro(values[0], envelope.value_schema) == {"data": {"barcode": "572680001120", "count": 848}}


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        (Column("N", "integer", "numeric"), 2**63, "does not fit into 64 bits"),
        (Column("N", "decimal", "numeric(5,2)"), "1.505", "more than 2 digits after the point"),
        (Column("N", "decimal", "numeric(5,2)"), "12345.00", "more than 5 digits"),
        (Column("N", "array", "int[]", element="integer"), [[1]], "an array of arrays"),
        (Column("N", "array", "numeric[]", element="decimal"), [Decimal("NaN")], "NaN"),
        (Column("N", "date", "date"), "2026-01-16 10:00:00", "time of day"),
    ],
)
def test_a_value_that_does_not_fit_rejects_its_row_alone(column: Column, value: object, reason: str) -> None:
    values, encoded, envelope = encode([COLUMNS[0], column], [("a", None), ("b", value), ("c", None)], JOB)
    assert [(reject.row_number, reject.column) for reject in encoded.rejects] == [(2, "N")]
    assert reason in encoded.rejects[0].reason
    assert [from_avro(value, envelope.value_schema)["barcode"] for value in values] == ["a", "c"]
    assert (encoded.row_numbers, encoded.keys) == ([1, 3], [b"a", b"c"])


def test_a_number_of_38_digits_is_a_decimal_of_avro() -> None:
    column = Column("N", "integer", "NUMBER(38)")
    values, _, envelope = encode([COLUMNS[0], column], [("a", int("9" * 38)), ("b", -1)], JOB)
    assert [from_avro(v, envelope.value_schema)["n"] for v in values] == [Decimal("9" * 38), Decimal(-1)]


LONGS = st.none() | st.integers(-(2**63), 2**63 - 1)
TEXTS = st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
MOMENTS = st.none() | st.datetimes().map(lambda at: at.isoformat(" ", "microseconds"))
DECIMALS = st.none() | st.decimals(-(10**7), 10**7, places=2, allow_nan=False).map(lambda d: f"{d:.2f}")
DAYS = st.none() | st.dates().map(date.isoformat)
DOUBLES = st.none() | st.floats(allow_nan=False, allow_infinity=False)


@given(st.lists(st.tuples(st.just("k"), LONGS, TEXTS, MOMENTS, DECIMALS, DAYS, DOUBLES), min_size=1, max_size=30))
def test_any_row_comes_back_from_avro_and_protobuf_as_it_was(rows: list[tuple[Any, ...]]) -> None:
    kinds = ("text", "integer", "text", "datetime", "decimal", "date", "float")
    columns = [Column(f"C{i}", kind, "numeric(10,2)" if kind == "decimal" else "") for i, kind in enumerate(kinds)]
    job = replace(JOB, kafka_config=KafkaConfig(message_key_field="C0"))
    values, encoded, envelope = encode(columns, rows, job)
    assert encoded.rejects == []
    for row, value in zip(rows, values, strict=True):
        found = from_avro(value, envelope.value_schema)
        expected = {
            "c0": row[0],
            "c1": row[1],
            "c2": row[2],
            "c3": row[3] and datetime.fromisoformat(row[3]),
            "c4": row[4] and Decimal(row[4]),
            "c5": row[5] and date.fromisoformat(row[5]),
            "c6": row[6],
        }
        assert found == expected
    values, encoded, envelope = encode(columns, rows, replace(job, value_format="protobuf"))
    reader = proto_reader(envelope.value_schema)
    for row, value in zip(rows, values, strict=True):
        found = reader(value)
        wanted = [row[0], row[1], row[2], row[3] and row[3].replace(" ", "T"), row[4], row[5], row[6]]
        assert [getattr(found, f"c{i}") if found.HasField(f"c{i}") else None for i in range(7)] == wanted


# ── a schema that is given ────────────────────────────────────────────────────────────────────

GIVEN = {
    "type": "record",
    "name": "Parcel",
    "namespace": "it.example",
    "fields": [
        {"name": "version", "type": "int", "default": 3},
        {"name": "COUNT", "type": "int"},
        {"name": "barcode", "type": ["string", "null"]},
        {"name": "state", "type": {"type": "enum", "name": "State", "symbols": ["OPEN", "SHUT"]}},
        {"name": "seen", "type": ["null", {"type": "long", "logicalType": "timestamp-millis"}]},
        {"name": "more", "type": ["null", {"type": "map", "values": ["null", "long"]}]},
    ],
}
GIVEN_COLUMNS = [
    Column("BARCODE", "text", ""),
    Column("COUNT", "integer", ""),
    Column("STATE", "text", ""),
    Column("SEEN", "datetime_tz", ""),
    Column("MORE", "json", ""),
]


def given_formats(schema: object) -> Formats:
    return Formats("traces", ListedSchemas(), json.dumps(schema))


GIVEN_JOB = replace(JOB, schemas=SchemaOptions(value_file="parcel.avsc", subject="record"))


def test_a_given_avro_schema_orders_and_types_the_fields() -> None:
    rows = [("k", 5, "SHUT", "2026-01-16 11:50:32.665+00", '{"a": 1}'), (None, 6, "OPEN", None, None)]
    job = replace(GIVEN_JOB, on_null_key="send")
    formats = given_formats(GIVEN)
    values, encoded, envelope = encode(GIVEN_COLUMNS, rows, job, formats)
    assert encoded.rejects == []
    at = datetime(2026, 1, 16, 11, 50, 32, 665000, UTC)
    first = {"version": 3, "COUNT": 5, "barcode": "k", "state": "SHUT", "seen": at, "more": {"a": 1}}
    assert from_avro(values[0], envelope.value_schema) == first
    second = {"version": 3, "COUNT": 6, "barcode": None, "state": "OPEN", "seen": None, "more": None}
    assert from_avro(values[1], envelope.value_schema) == second
    assert isinstance(formats.schemas, ListedSchemas)
    assert list(formats.schemas.subjects) == ["it.example.Parcel"]


@pytest.mark.parametrize(
    ("row", "column", "reason"),
    [
        (("k", 2**31, "OPEN", None, None), "COUNT", "32 bits"),
        (("k", None, "OPEN", None, None), "COUNT", "NULL"),
        (("k", 1, "LOST", None, None), "STATE", "symbols"),
        (("k", 1, "OPEN", "2026-01-16 11:50:32.665001+00", None), "SEEN", "microseconds"),
        (("k", 1, "OPEN", None, '{"a": "x"}'), "MORE", "does not fit"),
    ],
)
def test_a_row_that_a_given_avro_schema_does_not_allow_is_rejected(row: Any, column: str, reason: str) -> None:
    _, encoded, _ = encode(GIVEN_COLUMNS, [row], GIVEN_JOB, given_formats(GIVEN))
    assert encoded.data == []
    assert [reject.column for reject in encoded.rejects] == [column]
    assert reason in encoded.rejects[0].reason


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "no Avro schema"),
        ('{"type": "record", "name": "A", "fields": [{"name": "x", "type": "nothing"}]}', "no Avro schema"),
        ('"string"', "no record"),
        (json.dumps({**GIVEN, "fields": GIVEN["fields"][:-1]}), "no field for the columns more"),
        (
            json.dumps({**GIVEN, "fields": [*GIVEN["fields"], {"name": "new", "type": "int"}]}),
            "field new is not in the result",
        ),
    ],
)
def test_a_given_schema_that_does_not_fit_is_refused(text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        encode(GIVEN_COLUMNS, [], GIVEN_JOB, Formats("t", ListedSchemas(), text))


def test_column_names_that_avro_does_not_allow_are_mapped_and_never_confused() -> None:
    columns = [COLUMNS[0], Column("Preis in €", "integer", ""), Column("1ST", "integer", "")]
    values, _, envelope = encode(columns, [("k", 1, 2)], JOB)
    assert from_avro(values[0], envelope.value_schema) == {"barcode": "k", "preis_in__": 1, "_1st": 2}
    with pytest.raises(ConfigError, match="columns a b and a_b become the same field a_b"):
        encode([COLUMNS[0], Column("A B", "text", ""), Column("A_B", "text", "")], [], JOB)


# ── Protobuf ──────────────────────────────────────────────────────────────────────────────────

_PROTO_TYPES = {"string": 9, "bytes": 12, "int64": 3, "double": 1, "bool": 8, "int32": 5, "sint32": 17, "uint32": 13}


def proto_reader(schema: Schema | None) -> Any:
    """A reader made by protobuf's own library from the text of the schema."""
    assert schema is not None
    message = parse_proto(schema.text)
    file = descriptor_pb2.FileDescriptorProto(name="m.proto", package=message.package, syntax="proto3")
    file.dependency.append("google/protobuf/timestamp.proto")
    describe(message, file.message_type.add())
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(timestamp_pb2.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(file.SerializeToString())
    kind = message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{message.package}.{message.name}".lstrip(".")))

    def read(value: bytes | None) -> Any:
        assert value is not None
        assert value[:6] == b"\0\0\0\0\1\0"
        return kind.FromString(value[6:])

    return read


def describe(message: ProtoMessage, made: descriptor_pb2.DescriptorProto) -> None:
    made.name = message.name
    for nested in message.messages:
        describe(nested, made.nested_type.add())
    for field in message.fields:
        entry = made.field.add(name=field.name, number=field.number, label=3 if field.label == "repeated" else 1)
        if field.type in _PROTO_TYPES:
            entry.type = _PROTO_TYPES[field.type]
        else:
            entry.type = 11
            entry.type_name = field.type
        if field.label == "optional":
            entry.oneof_index = len(made.oneof_decl)
            entry.proto3_optional = True
            made.oneof_decl.add(name=f"_{field.name}")


def test_a_row_in_protobuf_has_the_types_of_its_columns() -> None:
    values, encoded, envelope = encode(COLUMNS, [ROW, NULLS], replace(JOB, value_format="protobuf"))
    assert encoded.rejects == []
    read = proto_reader(envelope.value_schema)
    found = read(values[0])
    assert (found.barcode, found.count, found.price, found.free, found.ratio) == (
        "572680001120",
        848,
        "12.50",
        "0.1000",
        1.5,
    )
    assert (found.day, found.seen, found.done, found.image) == (
        "2026-01-16",
        "2026-01-16T11:50:32.665000",
        True,
        b"\0\xff",
    )
    assert found.arrived.ToDatetime(UTC) == datetime(2026, 1, 16, 11, 50, 32, 665000, UTC)
    assert (found.more, list(found.tags), found.span) == ('{"a": [1, null]}', ["x", "è"], "P1DT2H")
    assert [name.name for name, _ in read(values[1]).ListFields()] == ["barcode"]


def test_pstt_envelope_in_protobuf_has_data_and_metadata() -> None:
    values, _, envelope = encode(COLUMNS[:2], [ROW[:2]], replace(JOB, value_format="protobuf", envelope="pstt"))
    found = proto_reader(envelope.value_schema)(values[0])
    assert (found.data.barcode, found.data.count) == ("572680001120", 848)
    assert (found.metadata.source.connection, found.metadata.processing.latency_ms) == ("A00", 15123)
    assert found.metadata.timestamp.ToDatetime(UTC) == SENT_AT


def test_a_field_keeps_its_number_when_columns_come_go_and_move() -> None:
    schemas, job = ListedSchemas(), replace(JOB, value_format="protobuf")
    columns = [Column(name, "text", "") for name in ("BARCODE", "A", "B", "C")]
    encode(columns, [], job, Formats("traces", schemas))
    moved = [columns[3], Column("NEW", "text", ""), columns[0], columns[1]]
    _, _, envelope = encode(moved, [], job, Formats("traces", schemas))
    assert envelope.value_schema is not None
    message = parse_proto(envelope.value_schema.text)
    assert {field.name: field.number for field in message.fields} == {"c": 4, "new": 5, "barcode": 1, "a": 2}
    assert message.reserved == {3}
    _, _, envelope = encode(columns, [], job, Formats("traces", schemas))
    assert envelope.value_schema is not None
    numbers = {field.name: field.number for field in parse_proto(envelope.value_schema.text).fields}
    assert numbers == {"barcode": 1, "a": 2, "b": 6, "c": 4}


def test_a_given_proto_file_decides_names_numbers_and_types() -> None:
    text = """// parcels
        syntax = "proto3"; package it.example; option java_package = "it.example";
        message Parcel { reserved 1 to 4, 9; optional string barcode = 7; /* how many */ sint32 count = 5 [deprecated = true]; }"""
    job = replace(JOB, value_format="protobuf", schemas=SchemaOptions(value_file="parcel.proto"))
    rows = [("k", -3), ("k", None), ("k", 2**31)]
    values, encoded, envelope = encode(COLUMNS[:2], rows, job, Formats("traces", ListedSchemas(), text))
    found = proto_reader(envelope.value_schema)(values[0])
    assert (found.barcode, found.count) == ("k", -3)
    assert [reject.reason for reject in encoded.rejects] == [
        "the value is NULL, and the schema's field is not optional",
        "the number does not fit into sint32",
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no message"),
        ("message", "no .proto file"),
        ('syntax = "proto2"; message A { required string barcode = 1; }', "not of version 3"),
        ("message A { string barcode = 1; }", "no field for the column count"),
        ("message A { string barcode = 1; fixed32 count = 2; }", "has the type fixed32"),
        ("message A { string barcode = one; }", "no .proto file"),
    ],
)
def test_a_given_proto_file_that_does_not_fit_is_refused(text: str, told: str) -> None:
    job = replace(JOB, value_format="protobuf", schemas=SchemaOptions(value_file="parcel.proto"))
    with pytest.raises(ConfigError, match=told):
        encode(COLUMNS[:2], [], job, Formats("traces", ListedSchemas(), text or " "))


# ── JSON Schema ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("envelope", ["pstt", "none"])
@pytest.mark.parametrize("decimals", ["number", "string", "float"])
def test_a_row_satisfies_the_json_schema_that_is_derived(envelope: Any, decimals: Any) -> None:
    job = replace(JOB, value_format="json_schema", envelope=envelope, decimals=decimals)
    large = (*ROW[:1], 2**60, *ROW[2:])
    values, encoded, made = encode(COLUMNS, [ROW, NULLS, large], job)
    assert encoded.rejects == []
    assert made.value_schema is not None
    schema = json.loads(made.value_schema.text)
    plain, *_ = encode(COLUMNS, [ROW, NULLS, large], replace(job, value_format="json"))
    for value, same in zip(values, plain, strict=True):
        assert value is not None
        jsonschema.validate(json.loads(value[5:]), schema)
        assert (value[:5], value[5:]) == (b"\0\0\0\0\1", same)


def test_a_row_that_a_given_json_schema_refuses_is_rejected() -> None:
    schema = {"type": "object", "properties": {"barcode": {"type": "string", "pattern": "^[0-9]+$"}}}
    job = replace(JOB, value_format="json_schema", schemas=SchemaOptions(value_file="parcel.json"))
    values, encoded, _ = encode(COLUMNS[:2], [("12", 1), ("secret", 2)], job, given_formats(schema))
    assert values == [b'\0\0\0\0\1{"barcode":"12","count":1}']
    (reject,) = encoded.rejects
    assert (reject.row_number, reject.column) == (2, "barcode")
    assert "secret" not in reject.reason
    with pytest.raises(ConfigError, match="no JSON Schema"):
        encode(COLUMNS[:2], [], job, Formats("t", ListedSchemas(), '{"type": "nothing"}'))


# ── keys ──────────────────────────────────────────────────────────────────────────────────────


def test_keys_in_a_format_of_their_own_keep_their_text_for_people() -> None:
    job = replace(JOB, key_format="avro", on_null_key="send")
    schemas = ListedSchemas()
    _, encoded, envelope = encode(COLUMNS[:2], [("k1", 1), (None, 2)], job, Formats("traces", schemas))
    assert encoded.keys == [b"\0\0\0\0\2\x04k1", None]
    assert encoded.readable_keys == [b"k1", None]
    assert envelope.key_schema == Schema("AVRO", '"string"')
    assert list(schemas.subjects) == ["traces-value", "traces-key"]
    assert is_same_key(encoded.keys[0], "k1", schemas.schema)
    assert is_same_key(b'"k1"', "k1", None)
    assert not is_same_key(b"k2", "k1", schemas.schema)
    assert not is_same_key(b'"k2"', "k1", None)
    assert not is_same_key(None, "k1", None)


def test_a_key_of_two_columns_is_a_record_or_an_object() -> None:
    two = replace(KEY, message_key_field=("BARCODE", "COUNT"))
    rows = [("k", 5), ("k", None)]
    job = replace(JOB, kafka_config=two, key_format="avro", on_null_key="send")
    _, encoded, envelope = encode(COLUMNS[:2], rows, job)
    assert envelope.key_schema is not None
    key = encoded.keys[0]
    assert key is not None
    found = fastavro.schemaless_reader(io.BytesIO(key[5:]), json.loads(envelope.key_schema.text), None)
    assert (found, encoded.keys[1]) == ({"barcode": "k", "count": 5}, None)
    assert encoded.readable_keys == [b"k|5", None]
    for key_format, expected in (
        ("json", b'{"barcode":"k","count":5}'),
        ("json_schema", b'\0\0\0\0\2{"barcode":"k","count":5}'),
    ):
        assert encode(COLUMNS[:2], rows, replace(job, key_format=key_format))[1].keys == [expected, None]
    _, encoded, envelope = encode(COLUMNS[:2], rows, replace(job, key_format="protobuf"))
    assert encoded.keys[0] == b"\0\0\0\0\2\0\x0a\1k\x10\5"


KEYS = [column.name for column in COLUMNS if column.kind not in ("array", "json")]
NINE = "2026-01-16 11:50:32.6650"


@pytest.mark.parametrize("key_format", ["json", "avro", "protobuf", "json_schema"])
@pytest.mark.parametrize(
    "names", [*[(name,) for name in KEYS], ("BARCODE", "PRICE", "ARRIVED", "DONE"), ("FREE", "SEEN")]
)
def test_a_key_of_any_type_is_compared_with_the_text_of_its_send(names: tuple[str, ...], key_format: str) -> None:
    given = replace(KEY, message_key_field=names if len(names) > 1 else names[0])
    job = replace(JOB, kafka_config=given, key_format=key_format, value_format="json", on_null_key="send")
    other = (
        "a|b",
        7,
        "12.05",
        "3",
        1e16,
        "2026-01-17",
        "1999-01-01 00:00:00",
        NINE + "+02",
        False,
        b"x",
        None,
        [],
        "PT1S",
    )
    schemas = ListedSchemas()
    _, encoded, _ = encode(COLUMNS, [ROW, other], job, Formats("traces", schemas))
    keys = KeyComparison(job, schemas.schema)
    found = [keys.of_topic(raw) for raw in encoded.keys]
    assert encoded.rejects == []
    assert found == [keys.of_spool(text) for text in encoded.readable_keys]
    assert found[0] != found[1]
    assert NOT_COMPARED not in found
    assert (keys.problem, keys.of_topic(None)) == ("", None)


def test_a_key_that_is_not_what_was_sent_is_told_from_one_that_cannot_be_read() -> None:
    job, schemas = replace(JOB, key_format="avro", value_format="json"), ListedSchemas()
    _, encoded, _ = encode(COLUMNS[:2], [("k1", 1)], job, Formats("traces", schemas))
    sent, raw = b"k1", encoded.keys[0]
    assert raw is not None
    keys = KeyComparison(job, schemas.schema)
    assert keys.of_topic(raw) == keys.of_spool(sent)
    for other in (raw[:-1] + b"2", raw + b"x", raw[:-1], b"k1", b"", raw[:4] + b"\x63" + raw[5:]):
        assert keys.of_topic(other) not in (keys.of_spool(sent), NOT_COMPARED)
    assert not keys.is_blind  # one key was decoded, so that the unknown schema is another producer's

    def away(schema_id: int) -> Schema:
        raise RegistryUnavailable("the registry does not answer")

    for lookup in (None, away):
        blind = KeyComparison(job, lookup)
        blind.of_topic(raw)
        assert blind.is_blind
    uuid = Schema("AVRO", '{"type": "string", "logicalType": "uuid"}')
    unknown = KeyComparison(job, lambda _: uuid)
    unknown.of_topic(raw)
    assert unknown.is_blind


def test_the_columns_of_a_key_are_found_by_name_in_a_schema_that_was_given() -> None:
    two = replace(KEY, message_key_field=("BARCODE", "COUNT"))
    job = replace(JOB, kafka_config=two, key_format="avro", value_format="json")
    schema = {
        "type": "record",
        "name": "key",
        "fields": [
            {"name": "Count", "type": "int"},
            {"name": "more", "type": "string", "default": "x"},
            {"name": "BARCODE", "type": "string"},
        ],
    }
    schemas = ListedSchemas()
    formats = Formats("traces", schemas, key_schema=json.dumps(schema))
    _, encoded, _ = encode(COLUMNS[:2], [("a|b", 5)], job, formats)
    keys = KeyComparison(job, schemas.schema)
    assert encoded.readable_keys == [b"a|b|5"]
    assert keys.of_topic(encoded.keys[0]) == keys.of_spool(b"a|b|5") == b"a|b|5"


def test_a_plain_json_key_is_the_value_of_its_column() -> None:
    job = replace(JOB, value_format="json", key_format="json")
    _, encoded, _ = encode(COLUMNS[:2], [("k", 1)], job, Formats())
    assert encoded.keys == [b'"k"']


# ── what is around a row ──────────────────────────────────────────────────────────────────────

PLAIN = replace(JOB, value_format="json")


def test_the_bare_row_is_the_value() -> None:
    values, *_ = encode(COLUMNS[:2], [ROW[:2]], PLAIN, Formats())
    assert values == [b'{"barcode":"572680001120","count":848}']


def test_a_structured_cloud_event_has_every_attribute() -> None:
    given = CloudEvents("structured", source="/tracce", type="it.example.parcel")
    job = replace(PLAIN, envelope="cloudevents", cloudevents=given)
    values, encoded, envelope = encode(COLUMNS[:2], [('k"1', 1)], job, Formats())
    assert values[0] is not None
    assert json.loads(values[0]) == {
        "specversion": "1.0",
        "id": encoded.message_ids[0].decode(),
        "source": "/tracce",
        "type": "it.example.parcel",
        "time": "2026-01-17T10:30:30.000500Z",
        "subject": 'k"1',
        "datacontenttype": "application/json",
        "data": {"barcode": 'k"1', "count": 1},
    }
    assert envelope.headers(encoded) == (("content-type", b"application/cloudevents+json; charset=UTF-8"),)
    assert envelope.header_columns(encoded) == ()


def test_a_binary_cloud_event_has_its_attributes_as_headers() -> None:
    job = replace(JOB, envelope="cloudevents", key_format="avro", on_null_key="send")
    values, encoded, envelope = encode(COLUMNS[:2], [("k", 1), (None, 2)], job)
    assert from_avro(values[0], envelope.value_schema) == {"barcode": "k", "count": 1}
    assert dict(envelope.headers(encoded)) == {
        "content-type": b"application/avro",
        "ce_specversion": b"1.0",
        "ce_source": b"/pstt/A00/tracce.sql",
        "ce_type": b"pstt.tracce",
        "ce_time": b"2026-01-17T10:30:30.000500Z",
    }
    assert dict(envelope.header_columns(encoded)) == {"ce_id": encoded.message_ids, "ce_subject": [b"k", None]}


def test_connect_has_its_schema_and_exact_values_in_each_message() -> None:
    values, encoded, _ = encode(COLUMNS, [ROW, NULLS], replace(PLAIN, envelope="connect"), Formats())
    assert encoded.rejects == []
    assert values[0] is not None
    found = json.loads(values[0])
    types = {field.pop("field"): field for field in found["schema"]["fields"]}
    assert (found["schema"]["type"], found["schema"]["name"]) == ("struct", "pstt.tracce")
    assert types["count"] == {"type": "int64", "optional": True}
    assert types["price"]["name"] == "org.apache.kafka.connect.data.Decimal"
    assert types["price"]["parameters"]["scale"] == "2"
    assert types["seen"]["name"] == "io.debezium.time.MicroTimestamp"
    assert found["payload"] == {
        "barcode": "572680001120",
        "count": 848,
        "price": "BOI=",  # 1250, two bytes, the highest first
        "free": "0.1000",
        "ratio": 1.5,
        "day": 20469,
        "seen": 1768564232665000,
        "arrived": "2026-01-16T11:50:32.665000+00:00",
        "done": True,
        "image": "AP8=",
        "more": '{"a": [1, null]}',
        "tags": ["x", "è"],
        "span": "P1DT2H",
    }
    assert values[1] is not None
    assert set(json.loads(values[1])["payload"].values()) == {"k", None}


# ── tombstones ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("value_format", ["json", "avro", "protobuf", "json_schema"])
@pytest.mark.parametrize("envelope", ["pstt", "none", "cloudevents"])
def test_rows_for_which_the_condition_is_true_become_tombstones(value_format: Any, envelope: Any) -> None:
    columns = [COLUMNS[0], Column("DELETED", "char", "char(2)")]
    job = replace(JOB, value_format=value_format, envelope=envelope, null_value_when="deleted = 'Y'")
    rows = [("a", "Y "), ("b", "N "), ("c", None), ("d", "Y")]
    values, encoded, _ = encode(columns, rows, job)
    assert [value is None for value in values] == [True, False, False, True]
    assert encoded.keys == [b"a", b"b", b"c", b"d"]
    assert len(set(encoded.message_ids)) == 4


def test_a_tombstone_without_a_key_is_rejected() -> None:
    job = replace(PLAIN, null_value_when="COUNT = 0", on_null_key="send")
    values, encoded, _ = encode(COLUMNS[:2], [(None, 0), (None, 1), ("k", 0)], job, Formats())
    assert [reject.reason for reject in encoded.rejects] == ["a tombstone without a key would delete nothing"]
    assert [value is None for value in values] == [False, True]


def test_the_condition_names_a_column_of_the_result() -> None:
    with pytest.raises(ConfigError, match="null_value_when names column removed, which the query does not return"):
        encode(COLUMNS[:2], [], replace(PLAIN, null_value_when="REMOVED = 1"), Formats())


# ── without a registry, and for people ────────────────────────────────────────────────────────


@pytest.mark.parametrize("value_format", ["avro", "protobuf", "json_schema"])
def test_a_format_with_a_schema_needs_a_registry(value_format: Any) -> None:
    with pytest.raises(ConfigError, match="no schema registry") as caught:
        encode(COLUMNS, [], replace(JOB, value_format=value_format), Formats("traces"))
    assert "schema_registry" in caught.value.remedy


@pytest.mark.parametrize("value_format", ["avro", "protobuf", "json_schema"])
@pytest.mark.parametrize("envelope", ["pstt", "none"])
def test_every_format_is_shown_as_a_json_tree(value_format: Any, envelope: Any) -> None:
    schemas = ListedSchemas()
    job = replace(JOB, value_format=value_format, envelope=envelope)
    values, *_ = encode(COLUMNS, [ROW, NULLS], job, Formats("traces", schemas))
    found = readable(values[0], schemas.schema)
    assert (found.schema_id, found.format, found.problem) == (1, value_format, "")
    tree = json.loads(found.text)
    row = tree["data"] if envelope == "pstt" else tree
    assert (row["barcode"], row["count"], row["done"], row["tags"]) == ("572680001120", 848, True, ["x", "è"])
    assert json.loads(readable(values[1], schemas.schema).text)


@pytest.mark.parametrize("cut", [5, 6, 9, 40])
@pytest.mark.parametrize("value_format", ["avro", "protobuf", "json_schema"])
def test_a_damaged_message_is_shown_as_it_is_with_the_reason(value_format: Any, cut: int) -> None:
    schemas = ListedSchemas()
    values, *_ = encode(COLUMNS, [ROW], replace(JOB, value_format=value_format), Formats("traces", schemas))
    assert values[0] is not None
    found = readable(values[0][:cut] + b"\xff\xff", schemas.schema)
    assert found.schema_id == 1
    assert found.problem


def test_what_has_no_schema_is_shown_as_text() -> None:
    schemas = ListedSchemas()
    assert readable(None, schemas.schema).text == "null"
    assert readable(b'{"a":1}', schemas.schema).text == '{"a":1}'
    unknown = readable(b"\0\0\0\0\x09abc", schemas.schema)
    assert (unknown.schema_id, unknown.problem) == (9, "there is no schema 9")
    assert readable(b"\0\0\0\0\x09abc", None).problem == ""
