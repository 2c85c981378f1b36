"""What a job says about its records and its topic, on a real broker: headers, times, partitions, a topic that it creates."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Message
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from core.admin.server_checks import Servers, check_clusters
from core.app import App
from core.errors import ConfigError, NotAuthorised
from core.kafka.topic_creation import create_topic, topic_differences
from core.model.connection import Cluster, Secret
from core.model.job import NewTopic
from core.model.publisher import TopicInfo
from core.model.run import Run
from core.run.cancellation import Stop
from core.run.replay import replay_plan
from core.run.verify_run import verify_run
from tests.rigs.http_receiver import http_receiver
from tests.rigs.kafka import KafkaRig, KafkaTopics
from tests.rigs.sweeps import sweep

ROWS = 120
OFFICES = 7
FOR_EVER = {"retention.ms": "-1"}
"""The broker deletes by the time of the record, and these are older than its seven days."""
NOON = datetime(2026, 1, 16, 12, 0, tzinfo=UTC)


def now() -> datetime:
    return datetime.now(UTC)


class Place:
    """A workspace whose job `tracce` sends the rows of an SQLite table, 25 a fetch."""

    def __init__(self, folder: Path, broker: KafkaTopics, topic: str) -> None:
        self.folder, self.broker, self.topic = folder, broker, topic
        (folder / "queries").mkdir(parents=True)
        with closing(sqlite3.connect(folder / "data.sqlite")) as db, db:
            db.execute("CREATE TABLE tracce (barcode TEXT, office TEXT, at TEXT)")
            db.executemany("INSERT INTO tracce VALUES (?, ?, ?)", map(row, range(ROWS)))
        query = "SELECT barcode, office, at FROM tracce ORDER BY barcode"
        (folder / "queries/tracce.sql").write_text(query, encoding="utf-8")
        connections = {
            "default_environment": "rig",
            "connections": [{"name": "db", "environment": "rig", "db_type": "sqlite", "database": "data.sqlite"}],
            "kafka_connections": {"rig": {"name": "Rig", "bootstrap_servers": broker.plaintext}},
        }
        (folder / "connections.json").write_text(json.dumps(connections), encoding="utf-8")

    def write_job(self, kafka_config: dict[str, Any], **job: Any) -> None:
        document = {
            "name": "Tracce",
            "query": "tracce.sql",
            "connection": "db",
            "kafka_config": {"topic": self.topic, "message_key_field": "BARCODE", **kafka_config},
            "timezone": "UTC",
            **job,
        }
        (self.folder / "queries/tracce.job.json").write_text(json.dumps(document), encoding="utf-8")

    def open(self, **settings: str) -> App:
        environ = {"PSTT_FETCH_ROWS": "25", "PSTT_CONTROL_TOPIC": f"control-{self.topic}", **settings}
        return App.open(self.folder, environ, log=False)

    def run(self, **settings: str) -> Run:
        with self.open(**settings) as app:
            return app.execute(app.plan(app.job("tracce"), now=now()), stop=Stop(), now=now)

    def read(self) -> list[Message]:
        return self.broker.read(self.topic)


def row(number: int) -> tuple[str, str | None, str | None]:
    office = None if number % 10 == 0 else f"3871{number % OFFICES}"
    at = (NOON + timedelta(minutes=number)).strftime("%Y-%m-%d %H:%M:%S.250")
    return f"5726{number:04}", office, at


def described(message: Message) -> tuple[Any, ...]:
    """Key, partition, time and the headers of the job of one message."""
    headers = [(name, value) for name, value in message.headers() or () if name in ("office", "place", "source")]
    return message.key(), message.partition(), message.timestamp()[1], headers


OF_COLUMNS = {"headers": {"source": "cdg", "office": "{OFFICE}", "place": "it/{Office}"}}
BY_OFFICE = {"partitioner": "column", "partition_field": "OFFICE", "timestamp_field": "AT"}


@pytest.mark.parametrize("delivery", sweep(["at_least_once", "exactly_once"], always=["at_least_once"]))
def test_a_replay_has_the_headers_times_and_partitions_of_its_run(tmp_path: Path, kafka: KafkaRig, delivery: str):
    place = Place(tmp_path, kafka, kafka.create_topic(partitions=5, config=FOR_EVER))
    place.write_job(BY_OFFICE, delivery=delivery, verify="full", **OF_COLUMNS)
    run = place.run()
    assert (run.verdict, run.acknowledged, run.warnings) == ("complete", ROWS, ())
    first = sorted(map(described, place.read()))
    for number, (key, _, time_ms, headers) in enumerate(first):
        barcode, office, _ = row(number)
        assert key == barcode.encode()
        assert datetime.fromtimestamp(time_ms / 1000, UTC) == NOON + timedelta(minutes=number, milliseconds=250)
        own = [] if office is None else [("office", office.encode())]
        assert headers == [("source", b"cdg"), *own, ("place", f"it/{office or ''}".encode())]
    places = {headers[-1]: {partition for _, partition, _, h in first if h[-1] == headers[-1]} for *_, headers in first}
    assert all(len(partitions) == 1 for partitions in places.values()), "an office has one partition"
    assert len({partition for _, partition, *_ in first}) > 1
    with place.open() as app:
        plan = replay_plan(app, run.run_id, rejects_only=False, asked_by="test")
        assert app.execute(plan, stop=Stop(), now=now).verdict == "complete"
        assert verify_run(app, run.run_id, should_stop=lambda: False, now=now).answer == "complete"
    both = sorted(map(described, place.read()))
    assert both == sorted([*first, *first])


def test_parts_of_a_run_place_their_rows_as_the_whole_does(tmp_path: Path, kafka: KafkaRig):
    place = Place(tmp_path, kafka, kafka.create_topic(partitions=5, config=FOR_EVER))
    place.write_job(BY_OFFICE, **OF_COLUMNS)
    assert place.run().verdict == "complete"
    whole = sorted(map(described, place.read()))
    parts = {"partitions": {"column": "BARCODE", "count": 2, "by": "hash"}}
    place.write_job(BY_OFFICE, **parts, **OF_COLUMNS)
    run = place.run()
    assert (run.verdict, run.acknowledged) == ("complete", ROWS)
    assert sorted(map(described, place.read())) == sorted([*whole, *whole])


def test_a_run_in_parts_is_one_trace_with_a_span_for_each_part(tmp_path: Path, kafka: KafkaRig):
    place = Place(tmp_path, kafka, kafka.create_topic())
    parts = {"partitions": {"column": "BARCODE", "count": 2, "by": "hash"}}
    place.write_job({"traceparent": True}, delivery="exactly_once", **parts)
    with http_receiver() as receiver:
        run = place.run(OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url, OPENLINEAGE_URL=receiver.url)
    assert (run.verdict, run.acknowledged) == ("complete", ROWS)
    (body,) = receiver.bodies("/v1/traces")
    spans = ExportTraceServiceRequest.FromString(body).resource_spans[0].scope_spans[0].spans
    whole = next(span for span in spans if span.name == "run tracce")
    of_parts = {span.name: span.span_id for span in spans if span.parent_span_id == whole.span_id}
    assert {"part 1", "part 2", "record"} <= set(of_parts)
    for name in ("part 1", "part 2"):
        steps = {span.name for span in spans if span.parent_span_id == of_parts[name]}
        assert steps == {"read", "encode", "send", "record"}
    context = f"00-{whole.trace_id.hex()}-{whole.span_id.hex()}-01".encode()
    assert {dict(message.headers() or ())["traceparent"] for message in place.read()} == {context}
    states = [json.loads(body)["eventType"] for body in receiver.bodies("/api/v1/lineage")]
    assert states == ["START", "COMPLETE"]


def test_round_robin_fills_all_partitions_alike_and_fixed_one(tmp_path: Path, kafka: KafkaRig):
    place = Place(tmp_path, kafka, kafka.create_topic(partitions=5))
    place.write_job({"partitioner": "round_robin"})
    assert place.run().verdict == "complete"
    spread = sorted((m.key(), m.partition()) for m in place.read())
    assert spread == [(f"5726{number:04}".encode(), number % 5) for number in range(ROWS)]
    place.write_job({"partitioner": "fixed", "partition": 3})
    assert place.run().verdict == "complete"
    assert sum(m.partition() == 3 for m in place.read()) == ROWS // 5 + ROWS


def test_a_partition_that_the_topic_lacks_ends_the_run_before_its_first_message(tmp_path: Path, kafka: KafkaRig):
    place = Place(tmp_path, kafka, kafka.create_topic(partitions=2))
    place.write_job({"partitioner": "fixed", "partition": 2})
    run = place.run()
    assert (run.state, run.error_class, run.acknowledged) == ("failed", "ConfigError", 0)
    assert f'topic "{place.topic}" has no partition 2: its partitions are 0 to 1' in str(run.error_text)
    assert [line for line in checked(place) if "partition 2" in line] == [
        f'fail: job tracce sends to partition 2, and topic "{place.topic}" has 0 to 1'
    ]


def test_a_row_whose_time_is_none_is_rejected_and_one_without_time_gets_that_of_sending(
    tmp_path: Path, kafka: KafkaRig
):
    place = Place(tmp_path, kafka, kafka.create_topic(config=FOR_EVER))
    with closing(sqlite3.connect(tmp_path / "data.sqlite")) as db, db:
        db.execute("UPDATE tracce SET at = NULL WHERE barcode = '57260000'")
        db.execute("UPDATE tracce SET at = 'soon' WHERE barcode = '57260001'")
    place.write_job({"timestamp_field": "at"})
    before_ms = now().timestamp() * 1000 - 1
    run = place.run()
    assert (run.acknowledged, run.rejected) == (ROWS - 1, 1)
    with place.open() as app:
        (reject,) = app.ledger.rejects.of_run(run.run_id)
    assert (reject.row_number, reject.key, reject.column) == (2, "57260001", "at")
    assert reject.reason == "the record's time: the value is no date and no time"
    times = {m.key(): m.timestamp()[1] for m in place.read()}
    assert times[b"57260000"] > before_ms > times[b"57260002"]


def test_doctor_says_how_the_broker_uses_the_times_of_a_job(tmp_path: Path, kafka: KafkaRig):
    place = Place(tmp_path, kafka, kafka.create_topic(config={"retention.ms": "86400000"}))
    place.write_job({"timestamp_field": "at"})
    assert (
        f'pass: topic "{place.topic}" keeps records for retention.ms=86,400,000 from their time in column at'
        in checked(place)
    )
    place.topic = kafka.create_topic(config={"message.timestamp.type": "LogAppendTime"})
    place.write_job({"timestamp_field": "at"})
    assert (
        f'warn: topic "{place.topic}" replaces the time in column at: message.timestamp.type is LogAppendTime'
        in checked(place)
    )


def test_a_time_that_the_topic_does_not_take_is_a_reject_that_names_the_field(tmp_path: Path, kafka: KafkaRig):
    config = {"message.timestamp.before.max.ms": "3600000"}
    place = Place(tmp_path, kafka, kafka.create_topic(partitions=1, config=config))
    with closing(sqlite3.connect(tmp_path / "data.sqlite")) as db, db:
        db.execute("UPDATE tracce SET at = NULL WHERE barcode <> '57260007'")
    place.write_job({"timestamp_field": "at"})
    run = place.run()
    assert (run.acknowledged, run.rejected, run.failed) == (ROWS - 1, 1, 0)
    with place.open() as app:
        (reject,) = app.ledger.rejects.of_run(run.run_id)
    assert reject.key == "57260007"
    assert "its time, which comes from timestamp_field, is outside the topic's limits" in reject.reason


# ── a topic that is created ───────────────────────────────────────────────────────────────────

WANTED = {"partitions": 4, "replication": 1, "config": {"retention.ms": 86_400_000, "cleanup.policy": "compact"}}


def checked(place: Place) -> list[str]:
    with place.open() as app:
        jobs = [app.job("tracce")]
        return [f"{r.status}: {r.text}" for r in check_clusters(app.settings, app.connections, jobs, Servers())]


def test_the_first_run_creates_the_topic_and_later_ones_only_compare_it(tmp_path: Path, kafka: KafkaRig):
    topic = f"made-{tmp_path.name.replace('_', '-')}-{now():%H%M%S%f}"
    place = Place(tmp_path, kafka, topic)
    place.write_job({"create_topic": WANTED})
    announced = f'pass: topic "{topic}" of job tracce is created by its first run, with 4 partitions'
    assert announced in checked(place)
    run = place.run()
    assert (run.verdict, run.warnings) == ("complete", ())
    config = kafka.topic_config(topic)
    assert (config["retention.ms"], config["cleanup.policy"]) == ("86400000", "compact")
    assert {message.partition() for message in place.read()} == {0, 1, 2, 3}
    assert (place.run().warnings, [line for line in checked(place) if line.startswith("warn")]) == ((), [])

    other = {"partitions": 6, "replication": 1, "config": {"retention.ms": 1000, "cleanup.policy": "compact"}}
    place.write_job({"create_topic": other})
    run = place.run()
    differences = (
        f'topic "{topic}": partitions is 4, create_topic says 6',
        f'topic "{topic}": retention.ms is 86400000, create_topic says 1000',
    )
    assert (run.verdict, run.warnings) == ("complete", differences)
    assert [line for line in checked(place) if line.startswith("warn")] == [f"warn: {text}" for text in differences]
    assert kafka.topic_config(topic)["retention.ms"] == "86400000", "it was not changed"


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        (NewTopic(1, 3), "replication"),
        (NewTopic(1, None, {"no.such.setting": "1"}), "no.such.setting"),
        (NewTopic(1, None, {"retention.ms": "soon"}), "retention.ms"),
    ],
)
def test_a_topic_that_the_cluster_refuses_ends_the_run_with_its_words(
    tmp_path: Path, kafka: KafkaRig, wanted: NewTopic, reason: str
):
    place = Place(tmp_path, kafka, f"refused-{now():%H%M%S%f}")
    place.write_job(
        {
            "create_topic": {
                "partitions": wanted.partitions,
                "replication": wanted.replication,
                "config": dict(wanted.config),
            }
        }
    )
    run = place.run()
    assert (run.state, run.error_class) == ("failed", "ConfigError")
    assert f'topic "{place.topic}" cannot be created' in str(run.error_text)
    assert reason in str(run.error_text)
    assert run.error_remedy == "correct kafka_config.create_topic"
    with pytest.raises(KeyError):
        kafka.replicas_in_sync(place.topic)


def test_two_that_create_one_topic_both_find_it(kafka: KafkaRig):
    cluster, topic = Cluster("rig", kafka.plaintext), f"twice-{now():%H%M%S%f}"
    assert create_topic(cluster, topic, NewTopic(2)) is True
    assert create_topic(cluster, topic, NewTopic(2)) is False
    assert topic_differences(cluster, TopicInfo(topic, 2, 1), NewTopic(2)) == []
    unknown = NewTopic(2, config={"no.such.setting": "1"})
    (difference,) = topic_differences(cluster, TopicInfo(topic, 2, 1), unknown)
    assert difference == f'topic "{topic}": no.such.setting is not a setting, create_topic says 1'


def test_an_account_that_may_not_create_topics_reads_what_to_ask_for(kafka: KafkaRig):
    cluster = Cluster(
        "rig",
        kafka.sasl_plaintext,
        security_protocol="SASL_PLAINTEXT",
        sasl_mechanism="PLAIN",
        sasl_username=kafka.limited_username,
        sasl_password=Secret(kafka.limited_password),
    )
    with pytest.raises(NotAuthorised, match=r"cannot be created .*access rules \(ACL\) say no") as refused:
        create_topic(cluster, f"denied-{now():%H%M%S%f}", NewTopic(1))
    assert "Describe and Write" in refused.value.remedy
    assert kafka.limited_password not in str(refused.value)
    assert not isinstance(refused.value, ConfigError)
