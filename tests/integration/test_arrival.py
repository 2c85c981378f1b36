"""A run is green only if the topic is still the one it sent to and has the acknowledged messages; on real brokers."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from core.app import App
from core.kafka import open_publisher
from core.kafka.sender import Sender
from core.model.connection import Cluster
from core.model.run import Run
from core.run.cancellation import Stop
from tests.rigs.kafka import FurtherBroker, KafkaRig, KafkaTopics
from tests.rigs.sweeps import sweep
from tests.rigs.waiting import until

ROWS = 20_000


def now() -> datetime:
    return datetime.now(UTC)


class Place:
    """A workspace whose job `export` sends the rows of an SQLite table, 500 a fetch."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._next = datetime.min.replace(tzinfo=UTC)
        """Runs of one second would be the same scheduled run."""

    def make(
        self, broker: KafkaTopics, topic: str, *, rows: int = ROWS, cluster: Mapping[str, Any] | None = None, **job: Any
    ) -> None:
        (self.folder / "queries").mkdir(parents=True, exist_ok=True)
        with sqlite3.connect(self.folder / "data.sqlite") as db:
            db.execute("drop table if exists parcel")
            db.execute("create table parcel (barcode text, status text)")
            db.executemany("insert into parcel values (?, ?)", ((f"k{n}", f"s{n}") for n in range(rows)))
        db.close()
        (self.folder / "queries" / "export.sql").write_text(
            "select barcode, status from parcel order by rowid;", encoding="utf-8"
        )
        document = {
            "name": "Export",
            "query": "export.sql",
            "connection": "db",
            "kafka_config": {"topic": topic, "message_key_field": "barcode"},
            **job,
        }
        (self.folder / "queries" / "export.job.json").write_text(json.dumps(document), encoding="utf-8")
        connections = {
            "default_environment": "rig",
            "connections": [{"name": "db", "environment": "rig", "db_type": "sqlite", "database": "data.sqlite"}],
            "kafka_connections": {"rig": {"name": "Rig", "bootstrap_servers": broker.plaintext, **(cluster or {})}},
        }
        (self.folder / "connections.json").write_text(json.dumps(connections), encoding="utf-8")

    def run(self, meanwhile: Callable[[int], None] | None = None, after: Callable[[], object] | None = None) -> Run:
        """Runs the job in this process.

        Args:
            meanwhile: Called with the rows read after each fetch.
            after: Called when the last message is acknowledged.
        """
        environ = {"PSTT_FETCH_ROWS": "500"}
        until(lambda: now() >= self._next, every_s=0.02)
        with App.open(self.folder, environ, log=False) as app:
            plan = app.plan(app.job("export"), now=now())
            self._next = plan.scheduled_at + timedelta(seconds=1)

            def progress(rows_read: int, _acknowledged: int, _counted: int | None) -> None:
                if meanwhile:
                    meanwhile(rows_read)

            with pytest.MonkeyPatch.context() as patch:
                if after:
                    patch.setattr(Sender, "drain", _then(after))
                return app.execute(plan, stop=Stop(), now=now, progress=progress)


def _then(action: Callable[[], object]) -> Callable[..., list[Any]]:
    drain = Sender.drain

    def drained(sender: Sender, timeout_s: float | None = None) -> list[Any]:
        finished = drain(sender, timeout_s)
        action()
        return finished

    return drained


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "ws")


# ── where a run sent to ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
def test_a_run_keeps_the_ids_of_cluster_and_topic_and_the_addresses(delivery: str, place: Place, kafka: KafkaRig):
    topic = kafka.create_topic()
    place.make(kafka, topic, rows=20, delivery=delivery)
    run = place.run()
    publisher = open_publisher(Cluster("rig", kafka.plaintext))
    described = publisher.describe(topic)
    publisher.close()
    assert run.state == "succeeded"
    assert (run.cluster_id, run.bootstrap_servers, run.topic_id) == (
        described.cluster_id,
        kafka.plaintext,
        described.topic_id,
    )
    assert run.topic_id
    assert run.cluster_id


def test_the_ids_of_a_topic_that_is_made_on_first_use_are_kept(place: Place, own_kafka: Callable[..., KafkaRig]):
    broker = own_kafka(auto_create=True)
    place.make(broker, "made-by-the-run", rows=20)
    run = place.run()
    assert run.state == "succeeded"
    assert run.topic_id


def test_the_other_client_keeps_what_it_can_tell(place: Place, kafka: KafkaRig):
    topic = kafka.create_topic()
    place.make(kafka, topic, rows=20, cluster={"client": "kafka-python-ng", "enable_idempotence": False})
    run = place.run()
    assert run.state == "succeeded"
    assert (bool(run.cluster_id), run.bootstrap_servers, run.topic_id) == (True, kafka.plaintext, "")


# ── a topic that is another one at the end ────────────────────────────────────────────────────


def once_at(rows: int, action: Callable[[], object]) -> Callable[[int], None]:
    """Calls `action` once, when this many rows have been read."""
    done: list[object] = []

    def meanwhile(rows_read: int) -> None:
        if rows_read >= rows and not done:
            done.append(action())

    return meanwhile


def made_again(broker: KafkaTopics, topic: str, partitions: int = 3) -> Callable[[], object]:
    def act() -> None:
        broker.delete_topic(topic)
        broker.create_topic(topic, partitions=partitions)

    return act


def require_lost(run: Run, *words: str) -> None:
    assert run.state == "partial"
    assert run.error_class == "MessagesLost"
    assert not run.error_retriable
    for word in (f'topic "{run.topic}" does not hold all that was acknowledged', *words):
        assert word in str(run.error_text)
    assert f"python -m core replay {run.run_id}" in str(run.error_remedy)


CLIENTS = [{}, {"client": "confluent"}, {"client": "kafka-python-ng", "enable_idempotence": False}]


@pytest.mark.parametrize(
    "cluster", sweep(CLIENTS, always=CLIENTS[:1]), ids=["aiokafka", "confluent", "kafka-python-ng"]
)
@pytest.mark.parametrize("partitions", [1, 3])
def test_a_topic_made_again_while_a_run_sends_makes_no_green_run(
    cluster: dict[str, Any], partitions: int, place: Place, kafka: KafkaRig
):
    topic = kafka.create_topic(partitions=partitions)
    place.make(kafka, topic, cluster=cluster)
    run = place.run(once_at(10_000, made_again(kafka, topic, partitions)))
    assert kafka.count(topic) < ROWS
    require_lost(run, "went back from offset")
    if cluster.get("client") != "kafka-python-ng":
        assert "the topic was deleted and made again while the run sent" in str(run.error_text)
    most = int(str(run.error_text).split("at most ")[1].split(" of")[0].replace(",", ""))
    assert ROWS - kafka.count(topic) <= most <= ROWS


def test_a_topic_that_the_broker_makes_again_by_itself_makes_no_green_run(
    place: Place, own_kafka: Callable[..., KafkaRig]
):
    broker = own_kafka(auto_create=True, properties={"num.partitions": "1"})
    place.make(broker, "again")
    run = place.run(once_at(10_000, lambda: broker.delete_topic("again")))
    assert broker.count("again") < ROWS
    require_lost(run, "deleted and made again")


@pytest.mark.parametrize(
    "cluster", sweep(CLIENTS, always=CLIENTS[:1]), ids=["aiokafka", "confluent", "kafka-python-ng"]
)
def test_partitions_that_are_gone_with_their_topic_make_no_green_run(
    cluster: dict[str, Any], place: Place, kafka: KafkaRig
):
    topic = kafka.create_topic(partitions=4)
    place.make(kafka, topic, cluster=cluster)
    run = place.run(after=made_again(kafka, topic, partitions=2))
    require_lost(run, "partitions 2 and 3 are gone", f"at most {ROWS:,} of {ROWS:,} messages")


def test_a_topic_deleted_after_the_last_message_makes_no_green_run(place: Place, kafka: KafkaRig):
    topic = kafka.create_topic(partitions=1)
    place.make(kafka, topic, rows=400)
    run = place.run(after=lambda: kafka.delete_topic(topic))
    require_lost(run, "the topic was deleted while the run sent", "at most 400 of 400 messages")


# ── a log that was cut ────────────────────────────────────────────────────────────────────────


@pytest.fixture
def three(own_kafka: Callable[..., KafkaRig]) -> Iterator[list[KafkaRig]]:
    """Three brokers, the first with the controller."""
    quick = {
        "broker.session.timeout.ms": "2000",
        "replica.lag.time.max.ms": "3000",
        "unclean.leader.election.interval.ms": "500",
    }
    first = own_kafka(properties=quick)
    with FurtherBroker(first, 2, properties=quick) as second, FurtherBroker(first, 3, properties=quick) as third:
        yield [first, second, third]


@pytest.mark.parametrize(
    "cluster", sweep(CLIENTS, always=CLIENTS[:1]), ids=["aiokafka", "confluent", "kafka-python-ng"]
)
def test_a_replica_that_was_behind_and_leads_now_makes_no_green_run(
    cluster: dict[str, Any], place: Place, three: list[KafkaRig]
):
    first, leader, behind = three
    config = {"unclean.leader.election.enable": "true", "min.insync.replicas": "1"}
    topic = first.create_topic(replicas=[2, 3], config=config)
    place.make(first, topic, cluster=cluster)
    steps = [
        (5_000, lambda: (behind.kill(), until(lambda: first.replicas_in_sync(topic) == (2, {2}), "it is in sync"))),
        (15_000, lambda: until(lambda: first.count(topic) > 8_000, "nothing arrived without the replica")),
        (
            15_500,
            lambda: (
                leader.kill(),
                behind.start(),
                until(lambda: first.replicas_in_sync(topic)[0] == 3, "the replica does not lead"),
            ),
        ),
    ]

    def meanwhile(rows_read: int) -> None:
        while steps and rows_read >= steps[0][0]:
            steps.pop(0)[1]()

    run = place.run(meanwhile)
    assert first.count(topic) < ROWS
    require_lost(run, "partition 0")


@pytest.mark.slow
@pytest.mark.parametrize("cluster", CLIENTS, ids=["aiokafka", "confluent", "kafka-python-ng"])
def test_a_leader_that_falls_with_a_replica_in_sync_leaves_a_green_run(
    cluster: dict[str, Any], place: Place, three: list[KafkaRig]
):
    first, leader, _ = three
    topic = first.create_topic(replicas=[2, 3], config={"min.insync.replicas": "1"})
    place.make(first, topic, cluster=cluster)
    run = place.run(once_at(10_000, leader.kill))
    assert (run.state, run.error_text, run.warnings) == ("succeeded", None, ())
    assert run.acknowledged == ROWS


# ── what is no loss ───────────────────────────────────────────────────────────────────────────


def test_records_deleted_while_a_run_sends_are_a_warning(place: Place, kafka: KafkaRig):
    topic = kafka.create_topic(partitions=1)
    place.make(kafka, topic)
    run = place.run(once_at(10_000, lambda: kafka.delete_records(topic)), after=lambda: kafka.delete_records(topic))
    assert (run.state, run.error_text) == ("succeeded", None)
    assert run.warnings == (
        f"up to {ROWS:,} messages of this run were deleted from the topic before it ended (retention, or records "
        f"deleted by hand): partition 0 begins at offset {ROWS}",
    )


def test_messages_of_other_writers_and_marks_of_transactions_between_make_no_difference(place: Place, kafka: KafkaRig):
    topic = kafka.create_topic(partitions=1)
    place.make(kafka, topic, delivery="exactly_once")
    other = Producer({"bootstrap.servers": kafka.plaintext, "transactional.id": f"other-{topic}"})
    other.init_transactions()

    def write() -> None:
        other.begin_transaction()
        other.produce(topic, b"of another writer")
        other.commit_transaction()

    write()
    original, blocks = Sender.submit, 0

    def submitted(sender: Sender, batch: Any) -> Any:
        nonlocal blocks
        write()
        blocks += 1
        return original(sender, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Sender, "submit", submitted)
        run = place.run()
    assert (run.state, run.error_text, run.warnings) == ("succeeded", None, ())
    assert blocks >= 10
    assert kafka.count(topic) >= ROWS + 2 * blocks  # the message of the other writer, and the mark of its transaction


def test_a_compacted_topic_makes_no_difference(place: Place, kafka: KafkaRig):
    topic = kafka.create_topic(
        partitions=1,
        config={"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.01", "segment.ms": "100"},
    )
    place.make(kafka, topic)
    place.run()
    run = place.run()
    assert (run.state, run.error_text, run.warnings) == ("succeeded", None, ())


def test_a_topic_that_cannot_be_looked_at_in_the_end_is_a_warning(place: Place, own_kafka: Callable[..., KafkaRig]):
    broker = own_kafka()
    place.make(broker, broker.create_topic(), rows=100)
    run = place.run(after=broker.kill)
    assert (run.state, run.acknowledged) == ("succeeded", 100)
    assert len(run.warnings) == 1
    assert run.warnings[0].startswith("the topic could not be looked at after the last message: ")
