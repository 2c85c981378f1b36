"""A run is green only if the topic still is the one it sent to, and holds what was acknowledged: on real brokers."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from core.bootstrap import App
from core.model import Cluster, Run
from core.publishers import open_publisher
from core.stop import Stop
from tests.rigs.kafka import KafkaRig, KafkaTopics

ROWS = 6000


def now() -> datetime:
    return datetime.now(UTC)


class Place:
    """A workspace whose job `export` sends the rows of an SQLite table, 500 a fetch."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

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

    def run(self, meanwhile: Callable[[int], None] | None = None) -> Run:
        """Runs the job in this process; `meanwhile` is called with the rows read after each fetch."""
        environ = {"PSTT_FETCH_ROWS": "500"}
        with App.open(self.folder, environ, log=False) as app:
            plan = app.plan(app.job("export"), now=now())

            def progress(rows_read: int, _acknowledged: int, _counted: int | None) -> None:
                if meanwhile:
                    meanwhile(rows_read)

            return app.execute(plan, stop=Stop(), now=now, progress=progress)


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
