"""Incremental jobs: each row is sent once, whatever happens between two runs."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from core.app import App
from core.errors import BrokerUnavailable, ConfigError, SqlError
from core.kafka import clients
from core.model.run import Run
from core.records.ledger import Ledger
from core.records.watermarks import Watermark
from core.run.cancellation import Stop
from core.run.replay import replay_plan
from tests.rigs.list_client import BROKERS, ListBroker

NOON = datetime(2026, 1, 17, 12, tzinfo=UTC)
ADDRESS = "list:9092"


@dataclass
class Place:
    """A workspace with one incremental job over SQLite, and its broker."""

    folder: Path
    broker: ListBroker
    now: datetime = NOON
    incremental: dict[str, Any] = field(default_factory=dict)

    def write_job(self, sql: str = "SELECT id, at, name FROM item", **more: Any) -> None:
        (self.folder / "queries/item.sql").write_text(sql, encoding="utf-8")
        job = {
            "name": "Item",
            "query": "item.sql",
            "connection": "LITE",
            "kafka_config": {"message_key_field": "id", "topic": "item"},
            "incremental": self.incremental,
            **more,
        }
        (self.folder / "queries/item.job.json").write_text(json.dumps(job), encoding="utf-8")

    def execute(self, sql: str, rows: Any = ()) -> None:
        with closing(sqlite3.connect(self.folder / "item.sqlite")) as db, db:
            db.executemany(sql, rows) if rows else db.execute(sql)

    def insert(self, *rows: tuple[Any, Any, str]) -> None:
        self.execute("INSERT INTO item VALUES (?, ?, ?)", rows)

    def run(self, *, at: datetime | None = None) -> Run:
        self.now += timedelta(minutes=1)
        with App.open(self.folder, {}, log=False) as app:
            plan = app.plan(app.job("item"), now=self.now, at=at or self.now)
            return app.execute(plan, stop=Stop(), now=lambda: self.now)

    def replay(self, run: Run, *, rejects_only: bool = False) -> Run:
        with App.open(self.folder, {}, log=False) as app:
            plan = replay_plan(app, run.run_id, rejects_only=rejects_only, asked_by="test")
            return app.execute(plan, stop=Stop(), now=lambda: self.now)

    def ledger(self, ask: Callable[[Ledger], Any]) -> Any:
        with Ledger(self.folder / ".pstt/ledger.sqlite") as opened:
            return ask(opened)

    @property
    def watermark(self) -> Watermark | None:
        found: Watermark | None = self.ledger(lambda ledger: ledger.watermarks.get("item"))
        return found

    @property
    def value(self) -> str:
        found = self.watermark
        return found.cursor.text if found else ""

    @property
    def sent(self) -> list[int]:
        """The key of every message, in order of arrival."""
        return [int(record.key) for record in self.broker.records.get("item", []) if record.key]

    @property
    def ids(self) -> list[bytes]:
        return [dict(record.headers)["message_id"] for record in self.broker.records.get("item", [])]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    client = clients.KafkaClient("tests.rigs.list_client:ListPublisher", libraries=("nothing",), is_idempotent=True)
    monkeypatch.setitem(clients.CLIENTS, "list", client)
    monkeypatch.setitem(BROKERS, ADDRESS, ListBroker())
    (tmp_path / "queries").mkdir()
    connection = {"name": "LITE", "environment": "test", "db_type": "sqlite", "database": "item.sqlite"}
    cluster = {"name": "List", "client": "list", "bootstrap_servers": ADDRESS}
    document = {"connections": [connection], "kafka_connections": {"test": cluster}}
    (tmp_path / "connections.json").write_text(json.dumps(document), encoding="utf-8")
    made = Place(tmp_path, BROKERS[ADDRESS], incremental={"column": "ID", "kind": "integer"})
    made.execute("CREATE TABLE item (id INTEGER, at TIMESTAMP, name TEXT)")
    made.write_job()
    yield made


def item(number: int, at: datetime | str | None = None, name: str = "x") -> tuple[int, str | None, str]:
    return number, at.replace(tzinfo=None).isoformat(" ") if isinstance(at, datetime) else at, name


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
def test_each_run_sends_what_came_since_the_run_before(place: Place, delivery: str):
    place.write_job(delivery=delivery)
    assert place.run().verdict == "complete"  # an empty table
    assert place.watermark is None
    for first in (1, 4, 7):
        place.insert(*(item(n) for n in range(first, first + 3)))
        done = place.run()
        assert (done.verdict, done.acknowledged, place.value) == ("complete", 3, str(first + 2))
        nothing = place.run()
        assert (nothing.verdict, nothing.rows_read, place.value) == ("complete", 0, str(first + 2))
    assert sorted(place.sent) == list(range(1, 10))
    assert place.watermark is not None and place.watermark.version == 3
