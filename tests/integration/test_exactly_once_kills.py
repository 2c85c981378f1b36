"""A run of exactly_once killed at any point: topic, ledger, metrics and `find` agree after the next run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from core.app import App
from core.errors import BrokerUnavailable, ConfigError, RunFailed
from core.kafka.aiokafka import AiokafkaPublisher
from core.model.run import PartitionRange
from core.run.cancellation import Stop
from core.run.pending_transactions import remove_leftovers
from core.run.settling import settle_transactions
from tests.rigs.kafka import KafkaRig
from tests.rigs.postgres import PostgresRig
from tests.rigs.sweeps import sweep
from tests.rigs.waiting import until
from tests.rigs.workspace import environment, make_workspace, run_command

ROWS = 250
"""Three segments of `tests.rigs.killed`."""
REJECTED = 2
AT = ("--at", "2026-01-17T02:00")
SQL = f"""
select case when g in (7, 8) then null else g::text end as barcode, 'parcel ' || g as status
from generate_series(1, {ROWS + REJECTED}) g order by g;
"""

NOT_COMMITTED = [
    "before:core.run.pipeline:write_note:1",
    "after:core.run.pipeline:write_note:1",
    "before:core.kafka.aiokafka:AiokafkaPublisher.begin:1",
    "after:core.kafka.aiokafka:AiokafkaPublisher.begin:1",
    "before:core.records.segments:SegmentFile.complete:1",
    "after:core.records.segments:SegmentFile.complete:1",
    "before:core.run.pipeline:KafkaRun.drain:1",
    "after:core.run.pipeline:KafkaRun.drain:1",
    "before:core.run.pipeline:KafkaRun.mark:1",
    "after:core.run.pipeline:KafkaRun.mark:1",
    "before:core.records.segments:SegmentFile.complete:3",
    "after:core.records.segments:SegmentFile.complete:3",
    "before:core.kafka.aiokafka:AiokafkaPublisher.commit:1",
]
COMMITTED = [
    "after:core.kafka.aiokafka:AiokafkaPublisher.commit:1",
    "before:core.run.settling:replace_file:1",
    "before:core.run.settling:replace_file:2",
    "after:core.run.settling:replace_file:3",
    "before:core.records.ledger:Ledger.finish:1",
    "after:core.records.ledger:Ledger.finish:1",
    "after:core.run.pipeline:remove_note:1",
    "before:core.records.metrics:Metrics.sync:1",
    "after:core.records.metrics:Metrics.sync:1",
]


class Place:
    """A workspace with one job, its topic and what is known of both."""

    def __init__(self, folder: Path, kafka: KafkaRig, postgres: PostgresRig) -> None:
        self.kafka = kafka
        self.topic = kafka.create_topic()
        self.folder = make_workspace(
            folder,
            postgres=postgres,
            bootstrap_servers=kafka.plaintext,
            topic=self.topic,
            sql=SQL,
            job={"delivery": "exactly_once"},
        )
        # Blocks of 50 rows make the three segments.
        self.env = environment(postgres, PSTT_CONTROL_TOPIC=f"control-{self.topic}", PSTT_FETCH_ROWS="50")

    def use(self, client: str) -> None:
        """Sends through that client."""
        self.env["KAFKA_CLIENT"] = client

    def kill(self, point: str) -> None:
        words = [sys.executable, "-m", "tests.rigs.killed", point, "run", "export", *AT]
        done = subprocess.run(words, cwd=self.folder, env=self.env, capture_output=True, check=False, timeout=120)
        assert done.returncode not in (0, 1, 2, 3, 4), f"it was not killed: {done.stdout!r} {done.stderr!r}"

    def run(self, *words: str) -> dict[str, Any]:
        done = run_command(*words, "--json", env=self.env, cwd=self.folder)
        assert "error" not in json.loads(done.stdout) or "run_id" in json.loads(done.stdout), done.stdout
        return dict(json.loads(done.stdout))

    def left(self) -> list[str]:
        """Returns the files that are no longer needed."""
        state = self.folder / ".pstt"
        return [f.name for f in (*state.glob("pending/*"), *state.glob("spool/*")) if f.suffix != ".parquet"]

    def check_agreement(self) -> None:
        """Checks that topic, ledger, metrics.duckdb and `find` agree."""
        messages = self.kafka.read(self.topic, at_least=250)
        assert sorted(int(message.key()) for message in messages) == [n for n in range(1, 253) if n not in (7, 8)]
        there = {(m.partition(), m.offset(), m.key().decode(), header(m, "message_id")) for m in messages}
        (sender,) = {header(message, "run_id") for message in messages}
        with App.open(self.folder, {**self.env}) as app:
            app.metrics.sync()
            runs = app.ledger.history.newest("export")
            with app.metrics.reading() as db:
                sends = db.execute('SELECT run_id, partition, "offset", key, message_id, status FROM sends').fetchall()
                states = dict(db.execute("SELECT run_id, state FROM runs").fetchall())
                (counted,) = db.execute("SELECT sum(messages) FROM traffic WHERE bucket IS NOT NULL").fetchone() or (0,)
            found = [app.metrics.find(key) for key in ("1", "251")]
        assert {send[1:5] for send in sends} == there
        assert len(sends) == len(there) == counted == ROWS
        assert {(send[0], send[5]) for send in sends} == {(sender, "acknowledged")}
        assert [[send["run_id"] for send in each] for each in found] == [[sender], [sender]]
        assert states == {run.run_id: run.state for run in runs}
        spans = tuple(
            PartitionRange(self.topic, p, min(offsets), max(offsets), len(offsets))
            for p in sorted({place[0] for place in there})
            for offsets in [[place[1] for place in there if place[0] == p]]
        )
        for run in runs:
            if run.state == "interrupted":
                assert (run.acknowledged, run.partitions, run.run_id == sender) == (0, (), False)
                continue
            assert (run.state, run.rows_read, run.acknowledged, run.rejected) == (
                "succeeded",
                ROWS + REJECTED,
                ROWS,
                REJECTED,
            )
            assert run.partitions == spans
            assert run.latency_p99_ms is not None
            assert run.bytes > ROWS * 50
            assert run.sent == (ROWS if run.run_id == sender else 0)
            assert run.of_run == (None if run.run_id == sender else sender)
            with App.open(self.folder, self.env) as app:
                assert [reject.row_number for reject in app.ledger.rejects.of_run(run.run_id)] == [7, 8]
        assert sender in {run.run_id for run in runs if run.state == "succeeded"}
        assert self.left() == []


def header(message: Any, name: str) -> str:
    return str(dict(message.headers())[name].decode())


@pytest.fixture
def place(tmp_path: Path, kafka: KafkaRig, postgres: PostgresRig) -> Place:
    return Place(tmp_path / "ws", kafka, postgres)


@pytest.mark.parametrize("point", sweep(NOT_COMMITTED, always=[NOT_COMMITTED[5]]))
def test_a_run_killed_before_its_commit_leaves_nothing_and_the_next_one_sends_all(place: Place, point: str):
    place.kill(point)
    assert place.kafka.read(place.topic) == []
    second = place.run("run", "export", *AT)
    assert (second["state"], second["sent"]) == ("succeeded", ROWS)
    place.check_agreement()


@pytest.mark.parametrize("point", sweep(COMMITTED, always=[COMMITTED[0]]))
def test_a_run_killed_after_its_commit_is_recognised_with_every_send(place: Place, point: str):
    place.kill(point)
    assert len(place.kafka.read(place.topic, at_least=ROWS)) == ROWS
    second = place.run("run", "export", *AT)
    assert (second["state"], second["sent"]) == ("succeeded", 0)
    place.check_agreement()


@pytest.mark.parametrize(
    "when", sweep(["after:{}.begin:1", "before:{}.commit:1", "after:{}.commit:1"], always=["after:{}.commit:1"])
)
def test_the_other_client_with_transactions_leaves_the_same(place: Place, when: str):
    place.use("confluent")
    place.kill(when.format("core.kafka.confluent:ConfluentPublisher"))
    committed = ROWS if when.startswith("after:{}.commit") else 0
    assert len(place.kafka.read(place.topic, at_least=committed)) == committed
    place.use("aiokafka")
    second = place.run("run", "export", *AT)
    assert (second["state"], second["sent"]) == ("succeeded", ROWS - committed)
    place.check_agreement()


AFTER_COMMIT = "after:core.kafka.aiokafka:AiokafkaPublisher.commit:1"
BEFORE_COMMIT = "before:core.kafka.aiokafka:AiokafkaPublisher.commit:1"


def test_a_replay_of_a_killed_run_that_had_committed_sends_nothing_twice(place: Place):
    place.kill(AFTER_COMMIT)
    (killed,) = place.run("runs")["runs"]
    assert killed["state"] == "interrupted"
    replayed = place.run("replay", killed["run_id"])
    assert (replayed["state"], replayed["sent"], replayed["acknowledged"]) == ("succeeded", 0, ROWS)
    place.check_agreement()


def test_a_killed_replay_that_had_committed_is_not_sent_again_by_the_next_one(place: Place):
    first = place.run("run", "export", *AT)
    words = [sys.executable, "-m", "tests.rigs.killed", AFTER_COMMIT, "replay", first["run_id"]]
    subprocess.run(words, cwd=place.folder, env=place.env, capture_output=True, check=False, timeout=120)
    assert len(place.kafka.read(place.topic, at_least=2 * ROWS)) == 2 * ROWS
    again = place.run("replay", first["run_id"])
    assert (again["state"], again["sent"]) == ("succeeded", 0)
    assert len(place.kafka.read(place.topic, at_least=2 * ROWS)) == 2 * ROWS
    assert place.run("replay", first["run_id"])["sent"] == ROWS


def test_the_runner_finds_out_what_became_of_a_killed_run(place: Place):
    place.kill(AFTER_COMMIT)
    code = run_command("doctor", env=place.env, cwd=place.folder)
    assert "! transactions: whether run" in code.stdout
    assert "of job export was committed is not known yet" in code.stdout
    rows = place.folder / ".pstt" / "spool" / ".0123456789.rows"
    rows.parent.mkdir()
    rows.write_bytes(b"of an earlier version, killed long ago")
    os.utime(rows, (0, 0))
    runner = subprocess.Popen(
        [sys.executable, "-m", "core", "runner"], cwd=place.folder, env=place.env, stderr=subprocess.DEVNULL
    )

    def succeeded() -> Any:
        assert runner.poll() is None
        newest = place.run("runs")["runs"][0]
        return newest if newest["state"] == "succeeded" and not place.left() else None

    try:
        run = until(succeeded, "the run has succeeded", timeout_s=90)
    finally:
        runner.terminate()
        runner.wait(60)
    assert (len(place.run("runs")["runs"]), run["acknowledged"]) == (1, ROWS)
    place.check_agreement()


def test_a_killed_run_of_which_nothing_arrived_says_so_once_that_is_known(place: Place):
    place.kill(BEFORE_COMMIT)
    with App.open(place.folder, place.env) as app:
        settle_transactions(app, lambda: datetime.now(UTC))
        (run,) = app.ledger.history.newest()
        assert app.metrics.find("1") == []
    assert (run.state, run.rows_read, run.acknowledged, run.error_class) == (
        "interrupted",
        ROWS + REJECTED,
        0,
        "RunInterrupted",
    )
    assert "nothing of it arrived" in (run.error_text or "")
    assert place.left() == []


def test_what_a_killed_run_kept_aside_goes_when_the_next_run_begins(place: Place):
    """Also that of another job, and of the version before, which kept it in the spool."""
    place.kill("before:core.run.pipeline:write_note:1")
    (killed,) = place.run("runs")["runs"]
    spool, pending = place.folder / ".pstt" / "spool", place.folder / ".pstt" / "pending"
    assert place.left() == [f"{killed['run_id']}.rows"]
    spool.mkdir()
    (spool / f".{killed['run_id']}.rows").write_bytes(b"x")
    (spool / f"{killed['run_id']}-000001.tmp").write_bytes(b"x")
    (pending / f".{killed['run_id']}.probe").write_bytes(b"x")
    (spool / ".feedfeedfe.probe").write_bytes(b"of a send by hand that may be going on")
    other = {"name": "Other", "query": "export.sql", "connection": "pg", "kafka_config": {"topic": place.topic}}
    (place.folder / "queries" / "other.job.json").write_text(json.dumps(other), encoding="utf-8")
    assert place.run("run", "other")["state"] == "succeeded"
    assert place.left() == [".feedfeedfe.probe"]


def test_rows_of_a_run_that_goes_on_are_left_alone(place: Place):
    with App.open(place.folder, place.env) as app:
        plan = app.plan(app.job("export"), now=datetime.now(UTC), at=datetime(2026, 1, 17, 1, tzinfo=UTC))
        run = app.ledger.start(plan, datetime.now(UTC))
        app.workspace.pending_dir.mkdir()
        file = app.workspace.pending_dir / f"{run.run_id}.rows"
        file.write_bytes(b"x")
        assert remove_leftovers(app.workspace, app.ledger) == []
        app.ledger.close_run(run.run_id, "failed", RunFailed("over"), datetime.now(UTC))
        assert remove_leftovers(app.workspace, app.ledger) == [file]


def test_what_an_aborted_transaction_had_sent_is_nowhere_told_as_arrived(place: Place):
    """One message over the size limit aborts all; only that one is found, as failed."""
    sql = (
        "select g::text as barcode, case when g = 200 then repeat('x', 2000000) end as t from generate_series(1, 250) g"
    )
    (place.folder / "queries" / "export.sql").write_text(sql, encoding="utf-8")
    run = place.run("run", "export", *AT)
    assert (run["state"], run["acknowledged"], run["partitions"]) == ("failed", 0, [])
    assert place.kafka.read(place.topic) == []
    with App.open(place.folder, place.env) as app, app.metrics.reading() as db:
        assert db.execute("SELECT key, status FROM sends").fetchall() == [("200", "failed")]
    assert place.left() == []


@pytest.mark.parametrize("same_id", sweep([True, False], always=[True]))
def test_a_transaction_is_not_looked_for_on_another_cluster(
    place: Place, own_kafka: Callable[..., KafkaRig], monkeypatch: pytest.MonkeyPatch, same_id: bool
):
    """Brokers of one test process have one id unless their storage is formatted again; copies of a cluster have one too."""
    place.kill(AFTER_COMMIT)
    if not same_id:
        monkeypatch.setattr(KafkaRig, "_formatted", {})
    other = own_kafka()
    file = place.folder / "connections.json"
    right = file.read_text(encoding="utf-8")
    file.write_text(right.replace(place.kafka.plaintext, other.plaintext), encoding="utf-8")

    with App.open(place.folder, place.env) as app:
        with pytest.raises(ConfigError, match=r"the transaction of run \w+ cannot be asked"):
            settle_transactions(app, lambda: datetime.now(UTC))
        (run,) = app.ledger.history.newest()
    assert run.state == "interrupted"
    assert f"{run.run_id}.json" in place.left()
    file.write_text(right, encoding="utf-8")
    with App.open(place.folder, place.env) as app:
        settle_transactions(app, lambda: datetime.now(UTC))
    place.check_agreement()


@pytest.mark.parametrize("arrived", [True, False])
def test_a_commit_whose_answer_is_lost_is_found_out_by_the_next_run(
    place: Place, monkeypatch: pytest.MonkeyPatch, arrived: bool
):
    real = AiokafkaPublisher.commit

    def lost(publisher: AiokafkaPublisher) -> None:
        if arrived:
            real(publisher)
        raise BrokerUnavailable("cannot commit the transaction", why="no answer")

    monkeypatch.setattr(AiokafkaPublisher, "commit", lost)
    with App.open(place.folder, place.env) as app:
        plan = app.plan(app.job("export"), now=datetime.now(UTC), at=datetime(2026, 1, 17, 1, tzinfo=UTC))
        run = app.execute(plan, stop=Stop(), now=lambda: datetime.now(UTC))
        assert (run.state, run.acknowledged, run.error_retriable) == ("failed", 0, True)
        assert app.metrics.find("1") == []
    monkeypatch.undo()
    second = place.run("run", "export", *AT)
    assert (second["state"], second["sent"]) == ("succeeded", 0 if arrived else ROWS)
    if arrived:
        place.check_agreement()


def test_what_was_committed_to_a_topic_that_was_made_again_is_not_green(place: Place):
    place.kill(AFTER_COMMIT)
    place.kafka.delete_topic(place.topic)
    place.kafka.create_topic(place.topic)
    second = place.run("run", "export", *AT)
    assert second["state"] == "failed"
    assert "was deleted and made again" in second["error"]["text"]
    first = place.run("runs")["runs"][1]
    assert (first["state"], first["error"]["class"]) == ("partial", "MessagesLost")
    assert place.run("replay", first["run_id"])["sent"] == ROWS
    assert len(place.kafka.read(place.topic, at_least=ROWS)) == ROWS


def test_rows_that_are_too_few_are_told_of_a_killed_run_too(place: Place):
    file = place.folder / "queries" / "export.job.json"
    job = json.loads(file.read_text(encoding="utf-8")) | {"expect": {"rows": {"min": 1000}}}
    file.write_text(json.dumps(job), encoding="utf-8")
    place.kill(AFTER_COMMIT)
    assert place.run("run", "export", *AT)["state"] == "partial"
    for run in place.run("runs")["runs"]:
        assert (run["state"], run["acknowledged"], run["error"]["class"]) == ("partial", ROWS, "ExpectationFailed")
        assert "250 rows" in run["error"]["text"] or "252 rows" in run["error"]["text"]
