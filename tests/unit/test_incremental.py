"""Incremental jobs: each row is sent once, whatever happens between two runs."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from core.app import App
from core.errors import AccessRefused, BrokerUnavailable, ConfigError
from core.kafka import clients
from core.model.run import Run
from core.records.ledger import Ledger
from core.records.watermarks import Watermark
from core.run import execute, partitioned
from core.run.cancellation import Stop
from core.run.incremental import query_of_job
from core.run.replay import replay_plan
from core.scheduler.watermarks import set_watermark
from tests.rigs.callers import caller
from tests.rigs.list_client import BROKERS, ListBroker
from tests.rigs.parts_here import PartsHere
from tests.rigs.sweeps import sweep

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
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
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
    return made


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
    assert place.watermark is not None
    assert place.watermark.version == 3


def test_rows_need_not_be_sorted(place: Place):
    place.insert(item(5), item(1), item(3))
    place.run()
    assert (place.value, sorted(place.sent)) == ("5", [1, 3, 5])


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
def test_a_failed_run_moves_nothing_and_the_next_one_sends_the_same_ids(place: Place, delivery: str):
    place.write_job(delivery=delivery, kafka_config={"message_key_field": "id", "topic": "item", "batch_size": 1})
    place.insert(*(item(n) for n in range(1, 6)))
    place.broker.fail = lambda topic, key, value, attempt: BrokerUnavailable("no leader") if key == b"4" else None
    failed = place.run()
    assert failed.state in ("partial", "failed")
    assert place.watermark is None
    before = list(place.ids)
    place.broker.fail = None
    place.insert(item(6))
    assert place.run().acknowledged == 6
    assert place.value == "6"
    assert len(place.ids) - len(set(place.ids)) == len(before)
    assert delivery == "at_least_once" or not before


def test_start_is_where_the_first_run_begins(place: Place):
    place.incremental["start"] = 2
    place.write_job()
    place.insert(*(item(n) for n in range(1, 5)))
    place.run()
    assert place.sent == [3, 4]


def times(place: Place, **more: Any) -> None:
    place.incremental = {"column": "at", "kind": "timestamp", **more}
    place.write_job()


def test_a_row_that_is_younger_than_the_delay_is_left_to_a_later_run(place: Place):
    times(place, delay_s=90)
    place.insert(item(1, NOON - timedelta(seconds=60)), item(2, NOON))
    assert place.run().acknowledged == 1  # at 12:01 the row of 11:59 is old enough
    assert place.run().acknowledged == 1
    assert place.sent == [1, 2]


def test_the_default_delay_of_times_is_a_minute(place: Place):
    times(place)
    place.insert(item(1, NOON), item(2, NOON + timedelta(seconds=1)))
    place.run()
    assert place.sent == [1]


def test_rows_with_equal_times_are_neither_lost_nor_sent_twice_with_a_tie_column(place: Place):
    times(place, delay_s=0, tie_column="id")
    place.insert(item(1, NOON), item(2, NOON))
    place.run()
    assert place.value == "2026-01-17 12:00:00, 2"
    place.insert(item(3, NOON), item(4, NOON + timedelta(seconds=1)), item(0, NOON))
    place.run()
    assert sorted(place.sent) == [1, 2, 3, 4]  # 0 is below the watermark: look_back_s would find it
    assert place.run().rows_read == 0


def test_rows_without_a_cursor_are_counted_and_reported(place: Place):
    times(place, delay_s=0, tie_column="id")
    place.insert(item(1, NOON), item(2, None), (None, NOON.isoformat(" "), "x"))
    done = place.run()
    assert done.verdict == "complete"
    assert done.warnings == ("2 rows have no value in at or id: an incremental job never reads them",)
    assert place.ledger(lambda ledger: ledger.watermarks.window(done.run_id).nulls) == 2
    times(place, delay_s=0, tie_column="id", count_nulls=False)
    assert place.run().warnings == ()


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
def test_late_rows_are_found_by_looking_back_and_nothing_is_sent_twice(place: Place, delivery: str):
    times(place, delay_s=0, look_back_s=300)
    place.write_job(delivery=delivery)
    place.insert(item(1, NOON - timedelta(seconds=200)), item(2, NOON))
    place.run()
    for late in (3, 4):
        place.insert(item(late, NOON - timedelta(seconds=100 + late)))
        done = place.run()
        assert (done.acknowledged, done.verdict, place.value) == (1, "complete", "2026-01-17 12:00:00")
    place.insert(item(5, NOON - timedelta(seconds=400)), item(6, NOON + timedelta(seconds=1)))
    assert place.run().acknowledged == 1  # 5 is too late
    assert place.sent == [1, 2, 3, 4, 6]
    assert len(set(place.ids)) == 5


def test_the_preview_shows_what_the_next_run_sends(place: Place):
    place.insert(item(1), item(2))
    place.run()
    place.insert(item(3))
    with App.open(place.folder, {}, log=False) as app:
        shown = app.preview(app.plan(app.job("item"), now=NOON), rows=5)
    assert [message.key for message in shown.messages] == ["3"]
    place.run()
    assert place.ids[-1].decode() == shown.messages[0].headers["message_id"]


def test_sql_shows_what_the_next_run_asks_and_binds(place: Place):
    with App.open(place.folder, {}, log=False) as app:
        job, file = app.job("item"), place.folder / "queries/item.sql"
        first = query_of_job(app, job, file, {}, None, NOON).steps
        place.insert(item(1), item(2))
        place.run()
        asked, read = query_of_job(app, job, file, {}, None, NOON).steps
    assert "> " not in first[-1].sql
    assert "MAX(" in asked.sql
    assert dict(asked.binds) == {"PSTT_AFTER": 2}
    assert dict(read.binds) == {"PSTT_AFTER": 2, "PSTT_UP_TO": "(what the statement before has found)"}


def test_a_watermark_that_is_set_sends_the_rows_after_it_again_with_the_same_ids(place: Place):
    times(place, delay_s=0, tie_column="id", look_back_s=600)
    place.insert(*(item(n, NOON) for n in (1, 2, 3)))
    place.run()
    with App.open(place.folder, {}, log=False) as app:
        job = app.job("item")
        report = set_watermark(app, job, "2026-01-17T12:00:00, 1", why=" again ", caller=caller("maria"), now=NOON)
        assert report.known is not None
        assert (report.known.cursor.text, report.known.why) == ("2026-01-17 12:00:00, 1", "again")
        assert [(e.who, e.action) for e in app.ledger.audit.entries("job item")] == [("maria", "watermark")]
        for value, why in (("2026-01-17", ""), ("12:99", "x"), ("2026-01-17, x", "x")):
            with pytest.raises(ConfigError):
                set_watermark(app, job, value, why=why, caller=caller("maria"), now=NOON)
        with pytest.raises(AccessRefused):
            set_watermark(app, job, "2026-01-17", why="x", caller=caller("vera", "viewer"), now=NOON)
    assert place.run().acknowledged == 2
    assert place.sent == [1, 2, 3, 2, 3]
    assert len(set(place.ids)) == 3
    assert place.run().rows_read == 0


def test_a_changed_row_in_the_look_back_is_a_new_message(place: Place):
    times(place, delay_s=0, look_back_s=300)
    place.insert(item(1, NOON))
    place.run()
    place.execute("UPDATE item SET name = 'y'")
    place.run()
    assert place.sent == [1, 1]
    assert len(set(place.ids)) == 2


def test_a_rejected_row_in_the_look_back_is_counted_once_and_sent_when_it_is_fixed(place: Place):
    times(place, delay_s=0, look_back_s=300)
    place.write_job("SELECT id, at, CASE name WHEN 'bad' THEN 9e999 ELSE 1.5 END AS price FROM item")
    place.insert(item(1, NOON), item(2, NOON, "bad"))
    assert place.run().rejected == 1
    again = place.run()
    assert (again.verdict, again.rows_read, again.rejected) == ("complete", 0, 0)
    place.execute("UPDATE item SET name = 'good'")
    assert place.run().acknowledged == 1
    assert place.sent == [1, 2]


def test_no_run_looks_back_beyond_where_the_job_begins(place: Place):
    times(place, delay_s=0, look_back_s=300, start=(NOON - timedelta(seconds=10)).isoformat())
    place.insert(item(1, NOON - timedelta(seconds=20)), item(2, NOON))
    place.run()
    place.run()
    assert place.sent == [2]


def test_a_watermark_beyond_the_clock_reads_nothing_and_says_so(place: Place):
    times(place, delay_s=0)
    place.insert(item(1, NOON))
    place.run()
    place.now = NOON - timedelta(hours=2)
    place.insert(item(2, NOON - timedelta(hours=3)))
    done = place.run()
    assert (done.rows_read, done.verdict, place.value) == (0, "complete", "2026-01-17 12:00:00")
    assert "later than this machine's clock" in done.warnings[0]


def test_a_local_hour_that_comes_twice_is_read_once_it_has_passed(place: Place):
    times(place, delay_s=0, timezone="Europe/Rome")
    first, second = "2026-10-25 02:30:00", "2026-10-25 02:15:00"  # the clock is set back at 03:00 to 02:00
    place.insert(item(1, "2026-10-25 01:59:00"), item(2, first))
    place.now = datetime(2026, 10, 25, 0, 31, tzinfo=UTC)  # 02:31 the first time
    place.run()
    assert place.sent == [1]
    place.insert(item(3, second))
    place.now = datetime(2026, 10, 25, 1, 30, tzinfo=UTC)  # 02:30 the second time
    assert place.run().rows_read == 0
    place.now = datetime(2026, 10, 25, 2, 0, tzinfo=UTC)
    place.run()
    assert sorted(place.sent) == [1, 2, 3]


def test_the_highest_row_may_be_rejected_and_can_be_sent_later(place: Place):
    place.write_job("SELECT id, CASE name WHEN 'bad' THEN 9e999 ELSE 1.5 END AS price FROM item")
    place.insert(item(1), item(2, name="bad"))
    done = place.run()
    assert (done.verdict, done.rejected, place.value) == ("complete_with_rejects", 1, "2")
    assert place.run().rows_read == 0
    place.execute("UPDATE item SET name = 'good'")
    place.insert(item(3))
    again = place.replay(done, rejects_only=True)
    assert (again.acknowledged, again.verdict) == (1, "complete")
    assert (place.sent, place.value) == ([1, 2], "2")  # 3 is of no run yet
    place.run()
    assert place.sent == [1, 2, 3]


def test_if_all_rows_are_rejected_the_watermark_stays(place: Place):
    place.write_job("SELECT id, 9e999 AS price FROM item")
    place.insert(item(1))
    assert place.run().state == "failed"
    assert place.watermark is None


def test_a_run_that_is_not_balanced_cannot_be_sent_again(place: Place):
    place.insert(item(1))
    place.broker.fail = lambda topic, key, value, attempt: BrokerUnavailable("no leader")
    failed = place.run()
    with pytest.raises(ConfigError, match=r"cannot be sent again.*core run item"):
        place.replay(failed)


def test_two_jobs_share_a_query_and_not_a_watermark(place: Place):
    place.insert(item(1), item(2))
    place.run()
    text = (place.folder / "queries/item.job.json").read_text(encoding="utf-8").replace('"Item"', '"Other"')
    (place.folder / "queries/other.job.json").write_text(text, encoding="utf-8")
    with App.open(place.folder, {}, log=False) as app:
        plan = app.plan(app.job("other"), now=NOON)
        assert app.execute(plan, stop=Stop(), now=lambda: NOON).acknowledged == 2
    assert len(set(place.ids)) == 4


# ── in parts ──────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def parts(place: Place, monkeypatch: pytest.MonkeyPatch) -> Place:
    """The same place with a job that looks back, in three parts that run in this process."""
    monkeypatch.setattr(execute, "open_executor", PartsHere)
    place.incremental = {"column": "at", "kind": "timestamp", "delay_s": 0, "look_back_s": 300}
    return place


PARTS = {"partitions": {"column": "id", "count": 3}, "verify_count": True}


@pytest.mark.parametrize("delivery", sweep(["at_least_once", "exactly_once"], always=["exactly_once"]))
def test_parts_look_back_and_send_nothing_twice(parts: Place, delivery: str):
    parts.write_job(delivery=delivery, **PARTS)
    parts.insert(*(item(n, NOON - timedelta(seconds=200)) for n in range(1, 7)), item(7, NOON))
    done = parts.run()
    assert (done.verdict, done.acknowledged, len(done.parts), done.rows_counted) == ("complete", 7, 3, 7)
    for late in (8, 9):  # there is no new row, only late ones
        parts.insert(item(late, NOON - timedelta(seconds=100)))
        done = parts.run()
        assert (done.verdict, done.acknowledged, parts.value) == ("complete", 1, "2026-01-17 12:00:00")
        assert done.rows_counted == late
    version = parts.watermark.version if parts.watermark else 0
    nothing = parts.run()
    assert (nothing.verdict, nothing.rows_read, parts.watermark and parts.watermark.version) == ("complete", 0, version)
    parts.insert(item(10, NOON - timedelta(seconds=400)), item(11, NOON + timedelta(seconds=1)))
    assert parts.run().acknowledged == 1  # 10 is too late
    assert sorted(parts.sent) == [1, 2, 3, 4, 5, 6, 7, 8, 9, 11]
    assert len(set(parts.ids)) == 10


def test_a_rejected_row_in_the_look_back_of_parts_is_counted_once(parts: Place):
    parts.write_job("SELECT id, at, CASE name WHEN 'bad' THEN 9e999 ELSE 1.5 END AS price FROM item", **PARTS)
    parts.insert(*(item(n, NOON) for n in range(1, 6)), item(6, NOON, "bad"))
    assert parts.run().rejected == 1
    again = parts.run()
    assert (again.verdict, again.rows_read, again.rejected) == ("complete", 0, 0)
    parts.execute("UPDATE item SET name = 'good'")
    assert parts.run().acknowledged == 1
    assert sorted(parts.sent) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("only_late", sweep([False, True], always=[True]))
def test_parts_that_an_earlier_attempt_has_sent_are_known_to_the_look_back(parts: Place, only_late: bool):
    """exactly_once: one part of the first attempt is missing; the second one sends it, and a third one sends neither again."""
    parts.write_job(delivery="exactly_once", **PARTS)
    at = NOON
    if only_late:
        parts.insert(*(item(n, NOON) for n in (100, 200, 300)))
        parts.run()
        at = NOON - timedelta(seconds=100)
    parts.insert(*(item(n, at) for n in range(1, 10)))
    parts.broker.fail = lambda topic, key, value, attempt: BrokerUnavailable("no leader") if key == b"9" else None
    before, value = len(parts.sent), parts.value
    failed = parts.run()
    assert failed.state == "partial"
    assert (parts.value, len(parts.sent) - before) == (value, failed.acknowledged)
    assert 0 < failed.acknowledged < 9
    parts.broker.fail = None
    parts.insert(item(10, at), item(11, NOON + timedelta(seconds=1)))  # not of the window of the first attempt
    second = parts.run()
    assert (second.verdict, second.rows_read) in (("complete", 9), ("complete", 10))
    parts.insert(item(0, at))  # late, beside rows of the part that the first attempt has sent
    for _ in range(2):
        assert parts.run().verdict == "complete"
    late = [100, 200, 300] if only_late else []
    assert sorted(parts.sent) == [*range(12), *late]
    assert len(set(parts.ids)) == len(parts.ids)
    assert parts.value == "2026-01-17 12:00:01"


def test_a_part_without_what_it_has_to_leave_out_sends_nothing(parts: Place, monkeypatch: pytest.MonkeyPatch):
    parts.write_job(**PARTS)
    parts.insert(*(item(n, NOON) for n in range(1, 6)))
    parts.run()
    monkeypatch.setattr(partitioned, "write_known", lambda folder, window: None)
    parts.insert(item(6, NOON + timedelta(seconds=1)))
    failed = parts.run()
    assert (failed.verdict, failed.error_class, len(parts.sent)) == ("failed", "StorageFailed", 5)


# ── killed runs ───────────────────────────────────────────────────────────────────────────────


class Killed(BaseException):
    """The process ends here."""


def test_a_committed_transaction_whose_verdict_is_missing_is_not_sent_again(
    place: Place, monkeypatch: pytest.MonkeyPatch
):
    place.write_job(delivery="exactly_once")
    place.insert(item(1), item(2))

    def die(*args: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "finish", die)
        with pytest.raises(Killed):
            place.run()
    assert (place.sent, place.watermark) == ([1, 2], None)
    place.insert(item(3))
    assert place.run().acknowledged == 1
    assert (place.sent, place.value) == ([1, 2, 3], "3")


def test_a_lost_ledger_takes_the_watermark_from_the_control_topic(place: Place):
    place.write_job(delivery="exactly_once")
    place.insert(item(1), item(2))
    place.run()
    for file in place.folder.glob(".pstt/ledger.sqlite*"):
        file.unlink()
    place.insert(item(3))
    assert place.run().acknowledged == 1
    assert (place.sent, place.value) == ([1, 2, 3], "3")
    entry = place.ledger(lambda ledger: ledger.audit.entries("job item"))[-1]
    assert (entry.who, entry.action, entry.after["value"]) == ("control topic", "watermark", "2")


def test_a_change_by_a_user_during_a_run_stays(place: Place, monkeypatch: pytest.MonkeyPatch):
    place.insert(item(1), item(2))
    finish = Ledger.finish

    def changed(ledger: Ledger, run_id: str, *args: Any) -> Run:
        with App.open(place.folder, {}, log=False) as app:
            set_watermark(app, app.job("item"), "0", why="again", caller=caller("maria"), now=NOON)
        return finish(ledger, run_id, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "finish", changed)
        place.run()
    assert place.value == "0"
    place.run()
    assert (place.sent, place.value) == ([1, 2, 1, 2], "2")
    assert len(set(place.ids)) == 2


# ── bad input ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("incremental", "sql", "message"),
    [
        ({"column": "nr"}, "", "names column nr, which the query does not return"),
        ({"tie_column": "nr"}, "", "names column nr, which the query does not return"),
        ({"column": "name"}, "", "column name .TEXT. cannot be the column of an incremental job.*needs a number"),
        ({"tie_column": "name"}, "", "column name .TEXT. cannot be the tie_column"),
        ({}, "SELECT 'x' AS id, at FROM item", "the cursor .id. has a value that is not a number"),
        ({"column": "id", "kind": "timestamp"}, "", "column id .INTEGER. cannot be the column"),
        ({"column": "name", "kind": "timestamp"}, "", "has a value that is not a time"),
        ({}, "SELECT id, at FROM item LIMIT 10", "cannot be read incrementally.*each run would choose its own ones"),
        ({}, "SELECT id FROM item; SELECT at FROM item", "several statements that return rows"),
    ],
)
def test_a_cursor_that_cannot_be_one(place: Place, incremental: dict[str, Any], sql: str, message: str):
    place.incremental |= incremental
    place.write_job(sql or "SELECT id, at, name FROM item")
    place.insert(item(1, NOON))
    done = place.run()
    assert done.state == "failed"
    assert re.search(message, f"{done.error_text}", re.DOTALL), done.error_text
    assert (place.sent, place.watermark) == ([], None)


@pytest.mark.parametrize(
    ("incremental", "message"),
    [
        ({"start": "abc"}, "start: abc is not a whole number"),
        ({"start": 1.5}, "start"),
        ({"kind": "timestamp", "column": "at", "start": 5}, "start: 5 is not a time"),
        ({"kind": "timestamp", "column": "at", "start": "2026-13-01"}, "is not a time"),
        ({"kind": "text"}, "kind"),
        ({"column": ""}, "column"),
        ({"delay_s": 60}, '"delay_s" needs a cursor of times'),
        ({"look_back_s": 60}, '"look_back_s" needs a cursor of times'),
        ({"delay_s": -1, "kind": "timestamp"}, "delay_s"),
        ({"tie_column": "id"}, "the tie column is the cursor itself"),
        ({"timezone": "Europe/Roma"}, "timezone"),
        ({"colum": "id"}, 'unknown key "colum"'),
    ],
)
def test_a_job_file_that_cannot_be_right(place: Place, incremental: dict[str, Any], message: str):
    place.incremental |= incremental
    place.write_job()
    with App.open(place.folder, {}, log=False) as app, pytest.raises(ConfigError) as refused:
        app.job("item")
    assert message in str(refused.value)


@pytest.mark.parametrize("text", ["2026-01-17 12:00:00+01:00", "17.01.2026", "1768651200"])
def test_a_text_of_sqlite_that_is_no_time_without_offset_is_refused(place: Place, text: str):
    times(place, delay_s=0)
    place.insert(item(1, text))
    done = place.run()
    assert (done.state, place.watermark) == ("failed", None)
    assert "has a value that is not a time" in (done.error_text or "")


def test_a_column_whose_name_has_braces(place: Place):
    place.incremental = {"column": "a{}b", "kind": "integer"}
    place.write_job('SELECT id, id AS "a{}b" FROM item')
    place.insert(item(1), item(2))
    assert (place.run().acknowledged, place.value) == (2, "2")


def test_a_file_has_all_rows(place: Place):
    place.write_job(export_format="csv", output="item.csv")
    with App.open(place.folder, {}, log=False) as app, pytest.raises(ConfigError, match="always has all rows"):
        app.job("item")


def test_another_cursor_needs_a_watermark_of_its_own(place: Place):
    place.insert(item(1, NOON))
    place.run()
    times(place, delay_s=0)
    with pytest.raises(ConfigError, match=r"of another cursor.*1 is a value of ID \(integer\).*watermark item --set"):
        place.run()


def test_parameters_of_one_run_would_pass_over_rows(place: Place):
    place.write_job(
        "define N='x'  --Obbligatorio: a name\nSELECT id, at FROM item WHERE name = '&N'", parameters={"N": "x"}
    )
    with App.open(place.folder, {}, log=False) as app:
        plan = app.plan(app.job("item"), now=NOON, params={"N": "y"})
        with pytest.raises(ConfigError, match="takes no parameters for one run"):
            app.execute(plan, stop=Stop(), now=lambda: NOON)


def test_its_parameters_are_bound_beside_the_window(place: Place):
    place.write_job(
        "define N='x'  --Obbligatorio: a name\nSELECT id, at FROM item WHERE name = '&N'", parameters={"N": "x"}
    )
    place.insert(item(1), item(2, name="y"), item(3))
    place.run()
    place.insert(item(4), item(5, name="y"))
    place.run()
    assert place.sent == [1, 3, 4]
