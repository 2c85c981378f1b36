"""Adding a Kafka client takes one file (`tests/rigs/list_client.py`) and one entry in the registry."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from core.admin.diagnosis import diagnose_cluster
from core.app import App
from core.errors import BrokerUnavailable, ConfigError
from core.kafka import clients
from core.model.run import Run
from core.run.cancellation import Stop
from tests.rigs.list_client import BROKERS, ListBroker

NOW = datetime(2026, 1, 17, 1, tzinfo=UTC)
ADDRESS = "list:9092"
ROWS = 20


@pytest.fixture(autouse=True)
def entry(monkeypatch: pytest.MonkeyPatch) -> None:
    client = clients.KafkaClient("tests.rigs.list_client:ListPublisher", libraries=("nothing",))
    monkeypatch.setitem(clients.CLIENTS, "list", client)


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> ListBroker:
    made = ListBroker()
    monkeypatch.setitem(BROKERS, ADDRESS, made)
    return made


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    with closing(sqlite3.connect(tmp_path / "tracce.sqlite")) as db, db:
        db.execute("CREATE TABLE tracce (barcode TEXT, importo NUMERIC)")
        db.executemany("INSERT INTO tracce VALUES (?, ?)", [(f"57268{n:03}", n / 4) for n in range(ROWS)])
    connection = {"name": "LITE", "environment": "test", "db_type": "sqlite", "database": "tracce.sqlite"}
    cluster = {"name": "List", "client": "list", "enable_idempotence": False, "bootstrap_servers": ADDRESS}
    document = {"connections": [connection], "kafka_connections": {"test": cluster}}
    (tmp_path / "connections.json").write_text(json.dumps(document), encoding="utf-8")
    (tmp_path / "queries").mkdir()
    (tmp_path / "queries/tracce.sql").write_text(
        "SELECT barcode, importo FROM tracce ORDER BY barcode", encoding="utf-8"
    )
    write_job(tmp_path)
    return tmp_path


def write_job(workspace: Path, **more: object) -> None:
    job = {
        "name": "Tracce",
        "query": "tracce.sql",
        "connection": "LITE",
        "kafka_config": {"message_key_field": "barcode", "topic": "tracce"},
        **more,
    }
    (workspace / "queries/tracce.job.json").write_text(json.dumps(job), encoding="utf-8")


def run(workspace: Path, environ: dict[str, str] | None = None) -> Run:
    with App.open(workspace, environ or {}, log=False) as app:
        return app.execute(app.plan(app.job("tracce"), now=NOW), stop=Stop(), now=lambda: NOW)


def test_a_job_runs_with_a_client_that_is_one_file_and_one_entry(workspace: Path, broker: ListBroker) -> None:
    done = run(workspace)
    assert (done.verdict, done.acknowledged, done.bootstrap_servers) == ("complete", ROWS, ADDRESS)
    keys = [record.key for record in broker.records["tracce"]]
    assert sorted(key.decode() for key in keys if key) == [f"57268{n:03}" for n in range(ROWS)]
    assert b'"importo":4.75' in broker.records["tracce"][-1].value


def test_a_message_that_the_client_gives_up_is_sent_again_above_it(workspace: Path, broker: ListBroker) -> None:
    broker.fail = lambda topic, key, value, attempt: BrokerUnavailable("no leader") if attempt == 1 else None
    done = run(workspace, {"KAFKA_RETRY_BACKOFF_MS": "1"})
    assert (done.verdict, done.acknowledged, done.retried) == ("complete", ROWS, ROWS)
    assert len(broker.records["tracce"]) == ROWS


def test_kafka_client_may_name_it(workspace: Path, broker: ListBroker) -> None:
    file = workspace / "connections.json"
    document = json.loads(file.read_text(encoding="utf-8"))
    del document["kafka_connections"]["test"]["client"]
    file.write_text(json.dumps(document), encoding="utf-8")
    run(workspace, {"KAFKA_CLIENT": "list"})
    assert len(broker.records["tracce"]) == ROWS


def test_what_its_entry_says_that_it_cannot_do_is_refused(workspace: Path, broker: ListBroker) -> None:
    write_job(workspace, delivery="exactly_once")
    with pytest.raises(ConfigError, match='"exactly_once" cannot be had with KAFKA_CLIENT=list'):
        run(workspace)
    assert broker.records == {}


def test_its_cluster_can_be_tested(workspace: Path, broker: ListBroker) -> None:
    run(workspace)
    with App.open(workspace, {}, log=False) as app:
        results = list(diagnose_cluster(app, "test"))
    assert [result.text for result in results if result.status == "fail"] == []
