"""Every format on a real broker with a real registry, read by confluent-kafka's own deserializers."""

from __future__ import annotations

import json
import sqlite3
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Message
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.schema_registry.json_schema import JSONDeserializer
from confluent_kafka.schema_registry.protobuf import ProtobufDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, timestamp_pb2

from core.admin.schema_checks import check_schemas
from core.app import App
from core.kafka.schema_registry import RegistryClient
from core.message.protobuf_schema import parse_proto
from core.model.connection import SchemaRegistry
from core.model.run import Run
from core.run.cancellation import Stop
from core.run.replay import replay_plan
from core.run.verify_run import verify_run
from tests.rigs.kafka import KafkaRig
from tests.rigs.registry import RegistryRig
from tests.unit.test_formats import describe

ROWS = 300
COLUMNS = "barcode TEXT, pieces INTEGER, price DECIMAL(10,2), day DATE, seen TIMESTAMP, state CHAR(1)"


def now() -> datetime:
    return datetime.now(UTC)


class Place:
    """A workspace whose job `export` sends the rows of an SQLite table in some format."""

    def __init__(self, folder: Path, kafka: KafkaRig, registry: RegistryRig) -> None:
        self.folder, self.kafka, self.registry = folder, kafka, registry
        self.topic = kafka.create_topic()
        self.readers = SchemaRegistryClient({"url": registry.url})
        (folder / "queries").mkdir(parents=True)
        with closing(sqlite3.connect(folder / "data.sqlite")) as db, db:
            db.execute(f"CREATE TABLE parcel ({COLUMNS})")
            db.executemany("INSERT INTO parcel VALUES (?, ?, ?, ?, ?, ?)", map(row_of, range(ROWS)))
        self.query("SELECT barcode, pieces, price, day, seen, state FROM parcel ORDER BY rowid")
        self.connections()

    def query(self, sql: str) -> None:
        (self.folder / "queries/export.sql").write_text(sql, encoding="utf-8")

    def connections(self, cluster: Mapping[str, Any] | None = None, **registry: Any) -> None:
        document = {
            "default_environment": "rig",
            "connections": [{"name": "db", "environment": "rig", "db_type": "sqlite", "database": "data.sqlite"}],
            "kafka_connections": {
                "rig": {
                    "name": "Rig",
                    "bootstrap_servers": self.kafka.plaintext,
                    "schema_registry": {"url": self.registry.url, **registry},
                    **(cluster or {}),
                }
            },
        }
        (self.folder / "connections.json").write_text(json.dumps(document), encoding="utf-8")

    def job(self, **more: Any) -> None:
        kafka = {"topic": self.topic, "message_key_field": "barcode"}
        job = {
            "name": "Export",
            "query": "export.sql",
            "connection": "db",
            "kafka_config": kafka,
            "on_drift": "ignore",
            **more,
        }
        (self.folder / "queries/export.job.json").write_text(json.dumps(job), encoding="utf-8")

    def run(self) -> Run:
        with App.open(self.folder, {}, log=False) as app:
            return app.execute(app.plan(app.job("export"), now=now()), stop=Stop(), now=now)

    def messages(self) -> list[Message]:
        found = self.kafka.read(self.topic)
        return sorted(found, key=lambda message: int(dict(message.headers() or [])["row"]))

    def context(self, field: MessageField = MessageField.VALUE) -> SerializationContext:
        return SerializationContext(self.topic, field)

    def ask(self, method: str, path: str, body: object = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {"content-type": "application/vnd.schemaregistry.v1+json"}
        with urllib.request.urlopen(
            urllib.request.Request(self.registry.url + path, data, headers, method=method)
        ) as answer:
            return json.loads(answer.read())

    def versions(self, subject: str) -> list[int]:
        return list(self.ask("GET", f"/subjects/{subject}/versions"))


def row_of(n: int) -> tuple[Any, ...]:
    if n % 7 == 6:
        return (f"k{n}", None, None, None, None, "N")
    day = date.fromordinal(738_000 + n)
    return (f"k{n}", n * 10**15, f"{n / 4:.2f}", day.isoformat(), f"{day} 11:50:32.{n:06}", "Y" if n % 5 == 0 else "N")


def tree_of(n: int) -> dict[str, Any]:
    """The row as a reader of Avro has it."""
    barcode, pieces, price, day, seen, state = row_of(n)
    return {
        "barcode": barcode,
        "pieces": pieces,
        "price": price and Decimal(price),
        "day": day and date.fromisoformat(day),
        "seen": seen and datetime.fromisoformat(seen),
        "state": state,
    }


@pytest.fixture
def place(tmp_path: Path, kafka: KafkaRig, registry: RegistryRig) -> Iterator[Place]:
    made = Place(tmp_path / "ws", kafka, registry)
    with made.readers:
        yield made


def is_complete(run: Run) -> bool:
    return (run.state, run.acknowledged, run.rejected, run.error_text) == ("succeeded", ROWS, 0, None)


# ── each format ───────────────────────────────────────────────────────────────────────────────


def in_order(place: Place) -> list[Message]:
    """The messages by the number in their barcode."""
    keys = {}
    for message in place.kafka.read(place.topic):
        key = message.key()
        assert isinstance(key, bytes)
        keys[int(key.rsplit(b"k", 1)[1])] = message
    return [keys[n] for n in range(ROWS)]


@pytest.mark.parametrize("client", ["aiokafka", "confluent"])
def test_confluents_reader_reads_our_avro_and_tombstones(client: str, place: Place) -> None:
    place.connections({"client": client})
    place.job(value_format="avro", key_format="avro", envelope="none", null_value_when="STATE = 'Y'", verify="full")
    run = place.run()
    assert is_complete(run), run
    read = AvroDeserializer(place.readers)
    messages = in_order(place)
    for n, message in enumerate(messages):
        expected = None if row_of(n)[5] == "Y" else tree_of(n)
        assert read(message.value(), place.context()) == expected
        assert read(message.key(), place.context(MessageField.KEY)) == f"k{n}"
    assert sum(message.value() is None for message in messages) == sum(row_of(n)[5] == "Y" for n in range(ROWS))


def test_confluents_reader_reads_our_protobuf(place: Place) -> None:
    place.job(value_format="protobuf", key_format="json_schema", envelope="pstt")
    assert is_complete(place.run())
    schema = RegistryClient(SchemaRegistry(place.registry.url)).latest(f"{place.topic}-value")
    assert schema is not None
    read = ProtobufDeserializer(proto_class(schema[1].text), {"use.deprecated.format": False})
    for n, message in enumerate(in_json_order(place)):
        found = read(message.value(), place.context())
        barcode, pieces, price, day, seen, state = row_of(n)
        data = found.data
        assert (data.barcode, data.state) == (barcode, state)
        wanted = {"pieces": pieces, "day": day, "seen": seen and seen.replace(" ", "T")}
        assert {name: getattr(data, name) if data.HasField(name) else None for name in wanted} == wanted
        # SQLite stores 0.50 as 0.5: it has no decimals.
        assert (Decimal(data.price) if data.HasField("price") else None) == (price and Decimal(price))
        assert found.metadata.source.connection == "db"


def in_json_order(place: Place) -> list[Message]:
    keys = {}
    for message in place.kafka.read(place.topic):
        key = message.key()
        assert isinstance(key, bytes)
        keys[int(json.loads(key[5:])[1:])] = message
    return [keys[n] for n in range(ROWS)]


def proto_class(text: str) -> Any:
    message = parse_proto(text)
    file = descriptor_pb2.FileDescriptorProto(name="m.proto", package=message.package, syntax="proto3")
    file.dependency.append("google/protobuf/timestamp.proto")
    describe(message, file.message_type.add())
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(timestamp_pb2.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{message.package}.{message.name}"))


def test_confluents_reader_validates_our_json_schema(place: Place) -> None:
    place.job(value_format="json_schema", key_format="protobuf", envelope="none")
    assert is_complete(place.run())
    read = JSONDeserializer(None, schema_registry_client=place.readers)
    found = {}
    for message in place.kafka.read(place.topic):
        row = read(message.value(), place.context())
        found[row["barcode"]] = row
    for n in range(ROWS):
        barcode, pieces, price, day, _, state = row_of(n)
        row = found[barcode]
        assert (row["pieces"], row["price"], row["day"], row["state"]) == (pieces, price and float(price), day, state)


@pytest.mark.parametrize("client", ["aiokafka", "confluent", "kafka-python-ng"])
def test_a_binary_cloud_event_and_a_tombstone_arrive_with_every_client(client: str, place: Place) -> None:
    place.connections({"client": client, "enable_idempotence": client != "kafka-python-ng"})
    place.job(envelope="cloudevents", null_value_when="STATE = 'Y'")
    assert is_complete(place.run())
    for n, message in enumerate(in_order(place)):
        headers = dict(message.headers() or [])
        assert headers["ce_id"] == headers["message_id"]
        assert (headers["ce_subject"], headers["ce_specversion"]) == (f"k{n}".encode(), b"1.0")
        value = message.value()
        assert (value is None) == (row_of(n)[5] == "Y")
        assert value is None or json.loads(value)["barcode"] == f"k{n}"


def test_exactly_once_and_parts_send_avro_and_a_replay_repeats_the_ids(place: Place) -> None:
    place.job(
        value_format="avro",
        key_format="avro",
        envelope="none",
        delivery="exactly_once",
        null_value_when="STATE = 'Y'",
        partitions={"column": "barcode", "count": 2, "by": "hash"},
    )
    run = place.run()
    assert is_complete(run), run
    with App.open(place.folder, {}, log=False) as app:
        again = app.execute(replay_plan(app, run.run_id, rejects_only=False, asked_by=""), stop=Stop(), now=now)
        assert is_complete(again), again
        assert verify_run(app, run.run_id, should_stop=lambda: False, now=now).answer == "complete"
        assert verify_run(app, again.run_id, should_stop=lambda: False, now=now).answer == "complete"
    read = AvroDeserializer(place.readers)
    ids: dict[str, set[bytes]] = {}
    for message in place.kafka.read(place.topic):
        key = read(message.key(), place.context(MessageField.KEY))
        ids.setdefault(key, set()).add(dict(message.headers() or [])["message_id"])
    assert len(ids) == ROWS
    assert all(len(found) == 1 for found in ids.values())


# ── schemas over time ─────────────────────────────────────────────────────────────────────────


def test_an_incompatible_schema_stops_the_run_before_its_first_message(place: Place) -> None:
    place.job(value_format="avro", envelope="none")
    assert is_complete(place.run())
    place.ask("PUT", f"/config/{place.topic}-value", {"compatibility": "BACKWARD"})
    before = place.kafka.count(place.topic)
    place.query("SELECT barcode, price AS pieces FROM parcel")
    run = place.run()
    assert (run.state, run.error_class, run.sent) == ("failed", "SchemaRefused", 0)
    assert "not compatible" in (run.error_text or "")
    assert "pieces has another type" in (run.error_text or "")
    assert place.kafka.count(place.topic) == before
    with App.open(place.folder, {}, log=False) as app:
        (finding,) = check_schemas(app, now())
    assert finding.severity == "error"
    assert "not compatible" in finding.text
    place.query("SELECT barcode, pieces, price, day, seen, state, 'x' AS extra FROM parcel")
    with App.open(place.folder, {}, log=False) as app:
        finding, untyped = check_schemas(app, now())
    assert (finding.severity, untyped.severity) == ("warning", "warning")
    assert "extra is new" in finding.text
    run = place.run()
    assert is_complete(run)
    assert any(warning.endswith("extra is new") for warning in run.warnings)
    assert place.versions(f"{place.topic}-value") == [1, 2]
    with App.open(place.folder, {}, log=False) as app:
        assert len(list(check_schemas(app, now()))) == 1


@pytest.mark.parametrize("value_format", ["avro", "protobuf", "json_schema"])
def test_a_second_run_registers_nothing_and_columns_that_come_stay_readable(value_format: str, place: Place) -> None:
    subject = f"{place.topic}-value"
    place.job(value_format=value_format, envelope="none")
    assert is_complete(place.run())
    place.ask("PUT", f"/config/{subject}", {"compatibility": "BACKWARD"})
    assert is_complete(place.run())
    assert place.versions(subject) == [1]
    place.query("SELECT state AS first_of_all, barcode, pieces, price, day, seen, state FROM parcel")
    assert is_complete(place.run())
    assert place.versions(subject) == [1, 2]


def test_preview_shows_what_would_be_sent_and_registers_nothing(place: Place) -> None:
    place.job(value_format="avro", key_format="avro", envelope="none", null_value_when="STATE = 'Y'")
    with App.open(place.folder, {}, log=False) as app:
        seen = app.preview(app.plan(app.job("export"), now=now()), rows=2)
    assert any(f'new under subject "{place.topic}-value"' in warning for warning in seen.warnings)
    dead, alive = seen.messages
    assert (dead.is_tombstone, dead.value, dead.size_bytes, dead.key) == (True, "null", 0, "k0")
    assert json.loads(alive.value)["barcode"] == "k1"
    assert alive.value_base64
    assert seen.value_schema
    assert seen.value_schema.name == "pstt.export"
    assert f"{place.topic}-value" not in place.ask("GET", "/subjects")


def test_a_schema_that_may_not_be_registered_stops_the_run(place: Place) -> None:
    place.connections(auto_register=False)
    place.job(value_format="avro")
    run = place.run()
    assert (run.state, run.error_class, run.sent) == ("failed", "SchemaRefused", 0)
    assert "auto_register" in (run.error_text or "")


def test_a_registry_that_is_away_fails_the_run_for_now(place: Place) -> None:
    place.connections(url="http://127.0.0.1:9")
    place.job(value_format="avro")
    run = place.run()
    assert (run.state, run.error_class, run.sent) == ("failed", "RegistryUnavailable", 0)


def test_a_schema_of_a_file_under_its_own_name(place: Place) -> None:
    name = f"it.example.P{place.topic.replace('-', '')}"
    space, _, short = name.rpartition(".")
    fields = [
        {"name": "barcode", "type": "string"},
        {"name": "state", "type": {"type": "enum", "name": "S", "symbols": ["Y", "N"]}},
    ]
    schema = {"type": "record", "name": short, "namespace": space, "fields": fields}
    (place.folder / "queries/parcel.avsc").write_text(json.dumps(schema), encoding="utf-8")
    place.query("SELECT barcode, state FROM parcel")
    place.job(value_format="avro", envelope="none", schemas={"value_file": "parcel.avsc", "subject": "topic_record"})
    assert is_complete(place.run())
    assert place.versions(f"{place.topic}-{name}") == [1]
    read = AvroDeserializer(place.readers)
    assert read(in_order(place)[5].value(), place.context()) == {"barcode": "k5", "state": "Y"}
