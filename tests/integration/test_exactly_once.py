"""Transactions on a real broker: all rows and the marker become visible together, or nothing ever does."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from confluent_kafka import Producer

from core.errors import (
    ConfigError,
    MessageRefused,
    MessageTooLarge,
    NotAuthorised,
    PsttError,
    RetriesExhausted,
    RunFailed,
)
from core.kafka import open_publisher
from core.kafka.clients import CLIENTS
from core.kafka.sender import Sender
from core.model.connection import Cluster, Secret
from core.model.publisher import Batch, Delivery, Publisher
from tests.rigs.kafka import KafkaRig, PlainKafkaRig
from tests.rigs.postgres import PostgresRig
from tests.rigs.sweeps import sweep
from tests.rigs.waiting import until
from tests.rigs.workspace import command, environment, make_workspace, run_command

Open = Callable[..., Publisher]


TRANSACTIONAL = [name for name, client in CLIENTS.items() if client.is_idempotent]


@pytest.fixture(params=TRANSACTIONAL)
def client(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def opened(client: str, kafka: KafkaRig) -> Iterator[Open]:
    """`opened("job-a")`: a publisher with that transactional id."""
    publishers = []

    def make(transactional_id: str, **changes: Any) -> Any:
        cluster = Cluster("once", kafka.plaintext, client=client, linger_ms=2, **changes)
        publishers.append(open_publisher(cluster, transactional_id=transactional_id))
        return publishers[-1]

    yield make
    for publisher in publishers:
        publisher.close(0.0)


@pytest.fixture
def control(kafka: KafkaRig) -> str:
    """The name of a control topic that is not there yet."""
    return f"control-{os.urandom(4).hex()}"


def batch_of(topic: str, count: int = 100, keys: list[bytes | None] | None = None) -> Batch:
    keys = keys or [b"k%d" % number for number in range(count)]
    return Batch(1, topic, keys, [b"v"] * count, [b"%032x" % n for n in range(count)], range(1, count + 1))


def sent(publisher: Publisher, batch: Batch) -> Delivery:
    delivery = Delivery.of(batch)
    publisher.publish(delivery)
    deadline = time.monotonic() + 30
    while delivery.pending:
        assert time.monotonic() < deadline
        publisher.poll(0.1)
    return delivery


def mark(publisher: Publisher, control: str, key: bytes, value: bytes) -> None:
    assert sent(publisher, Batch(0, control, [key], [value], [b"0" * 32], [0])).errors == {}


# ── the client ────────────────────────────────────────────────────────────────────────────────


def test_messages_and_marker_are_seen_together_and_only_after_the_commit(kafka: KafkaRig, opened: Open, control: str):
    topic = kafka.create_topic()
    publisher = opened(f"tx-{topic}")
    publisher.prepare_once(control)
    assert publisher.read_control(control, [b"run-1"]) == {}
    publisher.begin()
    delivery = sent(publisher, batch_of(topic))
    mark(publisher, control, b"run-1", b"all 100")
    assert delivery.acknowledged == 100
    assert kafka.read(topic) == []
    assert len(kafka.read(topic, "read_uncommitted")) == 100
    assert publisher.read_control(control, [b"run-1"]) == {}
    publisher.commit()
    assert len(kafka.read(topic, at_least=100)) == 100
    assert publisher.read_control(control, [b"run-1", b"run-2"]) == {b"run-1": b"all 100"}


def test_the_newest_marker_of_a_key_counts(kafka: KafkaRig, opened: Open, control: str):
    publisher = opened(f"tx-{control}")
    publisher.prepare_once(control)
    for value in (b"first", b"second"):
        publisher.begin()
        mark(publisher, control, b"run-1", value)
        mark(publisher, control, b"run-2", b"other")
        publisher.commit()
    assert publisher.read_control(control, [b"run-1", b"run-2"]) == {b"run-1": b"second", b"run-2": b"other"}
    assert publisher.read_control(control, [b"run-3"]) == {}


def test_markers_are_read_where_the_oldest_were_deleted(kafka: KafkaRig, opened: Open):
    control = kafka.create_topic(partitions=1)  # made by hand, with the usual retention
    publisher = opened(f"tx-{control}")
    publisher.prepare_once(control)
    for key in (b"run-1", b"run-2"):
        publisher.begin()
        mark(publisher, control, key, b"all")
        publisher.commit()
        if key == b"run-1":
            kafka.delete_records(control)
    assert publisher.read_control(control, [b"run-1", b"run-2"]) == {b"run-2": b"all"}


def test_the_control_topic_is_made_compacted_with_one_partition(kafka: KafkaRig, opened: Open, control: str):
    publisher = opened(f"tx-{control}")
    publisher.prepare_once(control)
    assert kafka.topic_config(control)["cleanup.policy"] == "compact"
    assert [info.partitions for info in publisher.topics() if info.name == control] == [1]
    opened(f"tx2-{control}").prepare_once(control)


def test_what_was_aborted_is_never_seen_and_the_publisher_works_on(kafka: KafkaRig, opened: Open, control: str):
    topic = kafka.create_topic()
    publisher = opened(f"tx-{topic}")
    publisher.prepare_once(control)
    publisher.begin()
    sent(publisher, batch_of(topic))
    mark(publisher, control, b"run-1", b"all")
    publisher.abort()
    assert kafka.read(topic) == []
    assert publisher.read_control(control, [b"run-1"]) == {}
    publisher.begin()
    sent(publisher, batch_of(topic, 3))
    publisher.commit()
    assert len(kafka.read(topic, at_least=3)) == 3


def test_what_was_committed_cannot_be_aborted(kafka: KafkaRig, opened: Open):
    """An interrupt may come between the commit and the note that it was made."""
    topic = kafka.create_topic()
    publisher = opened(f"tx-{topic}")
    publisher.begin()
    sent(publisher, batch_of(topic))
    publisher.commit()
    with pytest.raises(PsttError):
        publisher.abort()
    assert len(kafka.read(topic, at_least=100)) == 100


def test_an_abort_with_messages_under_way_accounts_for_each(kafka: KafkaRig, opened: Open, control: str):
    topic = kafka.create_topic()
    publisher = opened(f"tx-{topic}")
    publisher.prepare_once(control)
    publisher.begin()
    delivery = Delivery.of(batch_of(topic, 4000))
    publisher.publish(delivery)
    publisher.abort()
    assert delivery.pending == 0
    assert delivery.acknowledged + len(delivery.errors) == 4000
    assert kafka.read(topic) == []


def test_a_newer_run_of_the_same_job_fences_the_older_one(kafka: KafkaRig, opened: Open, control: str):
    topic = kafka.create_topic()
    older, newer = opened(f"tx-{topic}"), opened(f"tx-{topic}")
    older.prepare_once(control)
    older.begin()
    sent(older, batch_of(topic))
    newer.prepare_once(control)
    with pytest.raises(RunFailed) as raised:
        older.commit()
    assert "a newer run of the same job took over the transactional id" in str(raised.value)
    assert not raised.value.is_retriable
    assert kafka.read(topic) == []
    newer.begin()
    sent(newer, batch_of(topic, 7))
    newer.commit()
    assert len(kafka.read(topic, at_least=7)) == 7


def test_a_run_that_is_fenced_with_messages_under_way_ends_with_that_reason_and_accounts_for_each(
    kafka: KafkaRig, opened: Open, control: str
):
    topic = kafka.create_topic()
    older, newer = opened(f"tx-{topic}"), opened(f"tx-{topic}")
    older.prepare_once(control)
    older.begin()
    sender = Sender(older, max_retries=3, backoff_ms=100)
    deliveries = [sender.submit(batch_of(topic))]
    newer.prepare_once(control)
    with pytest.raises(RunFailed, match="a newer run of the same job took over"):  # noqa: PT012 - wherever it is noticed
        for _ in range(20):
            deliveries.append(sender.submit(batch_of(topic)))
            sender.drain(1.0)
            for delivery in deliveries:
                for error in delivery.errors.values():
                    raise error
    started = time.monotonic()
    sender.give_up(30)
    assert time.monotonic() - started < 10
    for delivery in deliveries:
        assert delivery.pending == 0
        assert delivery.acknowledged + len(delivery.errors) == 100
    assert kafka.read(topic) == []


def test_a_message_over_the_brokers_limit_voids_the_transaction_and_says_so(
    kafka: KafkaRig, opened: Open, control: str
):
    topic = kafka.create_topic(config={"max.message.bytes": "10000"})
    publisher = opened(f"tx-{topic}", compression_type="none")
    publisher.prepare_once(control)
    publisher.begin()
    batch = batch_of(topic, 3)
    batch.values[1] = b"x" * 20_000
    delivery = sent(publisher, batch)
    assert delivery.errors, "the broker took it"
    assert not any(error.is_retriable for error in delivery.errors.values())
    assert type(delivery.errors[1]) is MessageTooLarge
    with pytest.raises(PsttError):
        publisher.commit()
    publisher.abort()
    assert kafka.read(topic) == []


def test_record_batches_are_below_the_topics_limit_from_the_first_on(kafka: KafkaRig, opened: Open, control: str):
    topic = kafka.create_topic(config={"max.message.bytes": "2000"})
    publisher = opened(f"tx-{topic}", compression_type="none")
    publisher.require_topic(topic)
    publisher.prepare_once(control)
    publisher.begin()
    batch = batch_of(topic, 500)
    batch.values[:] = [b"x" * 300] * 500
    delivery = sent(publisher, batch)
    assert delivery.errors == {}
    publisher.commit()
    assert len(kafka.read(topic, at_least=500)) == 500


@pytest.mark.parametrize(
    "bad", [[None], [None, None]], ids=["one", "two"]
)  # librdkafka returns one error for all if it is a single key
def test_a_record_that_is_not_taken_is_told_from_those_that_fail_with_the_transaction(
    kafka: KafkaRig, opened: Open, control: str, bad: list[bytes | None]
):
    topic = kafka.create_topic(partitions=1, config={"cleanup.policy": "compact"})
    publisher = opened(f"tx-{topic}")
    publisher.prepare_once(control)
    publisher.begin()
    delivery = sent(publisher, batch_of(topic, 8 + len(bad), keys=[b"k"] * 7 + bad + [b"k"]))
    wanted = list(range(7, 7 + len(bad)))
    assert sorted(index for index, error in delivery.errors.items() if type(error) is MessageRefused) == wanted
    assert "cleanup.policy=compact" in delivery.errors[7].why
    assert all(type(error) is RetriesExhausted for index, error in delivery.errors.items() if index not in wanted)
    publisher.abort()
    assert kafka.read(topic) == []


def test_an_account_without_rights_on_the_transactional_id_is_told_so(kafka: KafkaRig, client: str, control: str):
    cluster = Cluster(
        "once",
        kafka.sasl_plaintext,
        "SASL_PLAINTEXT",
        client=client,
        sasl_mechanism="PLAIN",
        sasl_username=kafka.limited_username,
        sasl_password=Secret(kafka.limited_password),
    )
    publisher = open_publisher(cluster, transactional_id="without-rights")
    try:
        with pytest.raises(NotAuthorised, match=r'user "limited".*exactly_once needs them on the transactional id too'):
            publisher.prepare_once(control)
    finally:
        publisher.close(0.0)


@pytest.fixture(scope="module")
def short_transactions() -> Iterator[KafkaRig]:
    with PlainKafkaRig(properties={"transaction.max.timeout.ms": "60000"}) as broker:
        yield broker


def test_a_broker_that_allows_no_transaction_as_long_as_ours_is_named(client: str, short_transactions: KafkaRig):
    cluster = Cluster("once", short_transactions.plaintext, client=client)
    publisher = open_publisher(cluster, transactional_id="tx-short")
    try:
        with pytest.raises(ConfigError, match=r"set transaction.max.timeout.ms of the brokers to 900,000 ms"):
            publisher.prepare_once("control")
    finally:
        publisher.close(0.0)


# ── the program ───────────────────────────────────────────────────────────────────────────────

ROWS = 200_000
AT = ("--at", "2026-01-17T02:00")


def job_in(folder: Path, kafka: KafkaRig, postgres: PostgresRig, topic: str, rows: int, **cluster: Any) -> Path:
    return make_workspace(
        folder,
        postgres=postgres,
        bootstrap_servers=kafka.plaintext,
        topic=topic,
        sql=f"select g::text as barcode, 'parcel ' || g as status from generate_series(1, {rows}) g order by g;",
        job={"delivery": "exactly_once"},
        cluster=cluster,
    )


def run_as_json(folder: Path, env: dict[str, str]) -> dict[str, Any]:
    done = run_command("run", "export", *AT, "--json", env=env, cwd=folder)
    assert done.returncode == 0, done.stderr + done.stdout
    return dict(json.loads(done.stdout))


def test_a_run_killed_in_its_transaction_leaves_nothing_to_see_and_the_next_one_sends_exactly_its_rows(
    kafka: KafkaRig, postgres: PostgresRig, tmp_path: Path, control: str
):
    topic = kafka.create_topic()
    folder = job_in(tmp_path / "ws", kafka, postgres, topic, ROWS)
    env = environment(postgres, PSTT_CONTROL_TOPIC=control)
    process = subprocess.Popen(
        command("run", "export", *AT), cwd=folder, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        until(lambda: process.poll() is not None or kafka.count(topic) >= 1000, "1,000 messages", every_s=0)
        assert process.poll() is None, "the run ended before it could be killed"
    finally:
        process.kill()
        process.wait(30)
    assert kafka.read(topic) == []

    again = run_as_json(folder, env)
    assert (again["state"], again["rows_read"], again["acknowledged"]) == ("succeeded", ROWS, ROWS)
    seen = Counter(message.key() for message in kafka.read(topic, at_least=ROWS))
    assert len(seen) == ROWS
    assert set(seen.values()) == {1}

    states = json.loads(run_command("runs", "--json", env=env, cwd=folder).stdout)
    assert sorted(run["state"] for run in states["runs"]) == ["interrupted", "succeeded"]

    end = kafka.count(topic)
    third = run_as_json(folder, env)
    assert (third["state"], third["acknowledged"], third["sent"]) == ("succeeded", ROWS, 0)
    assert kafka.count(topic) == end, "a run that is done was sent again"


def test_a_run_whose_marker_is_there_is_done_though_the_ledger_forgot_it(
    kafka: KafkaRig, postgres: PostgresRig, tmp_path: Path, control: str
):
    topic = kafka.create_topic()
    env = environment(postgres, PSTT_CONTROL_TOPIC=control)
    folder = job_in(tmp_path / "ws", kafka, postgres, topic, 50)
    assert run_as_json(folder, env)["sent"] == 50
    for file in (folder / ".pstt").glob("ledger.sqlite*"):
        file.unlink()
    repeated = run_as_json(folder, env)
    assert (repeated["state"], repeated["acknowledged"], repeated["sent"]) == ("succeeded", 50, 0)
    assert sum(p["count"] for p in repeated["partitions"]) == 50
    assert len(kafka.read(topic, at_least=50)) == 50
    other = run_command("run", "export", "--at", "2026-01-18T02:00", "--json", env=env, cwd=folder)
    assert json.loads(other.stdout)["sent"] == 50, "another scheduled time is another run"
    assert len(kafka.read(topic, at_least=100)) == 100


# ── whose marker it is ────────────────────────────────────────────────────────────────────────


@dataclass
class Once:
    """A cluster with a control topic of its own, and workspaces whose job has the same name and time."""

    kafka: KafkaRig
    postgres: PostgresRig
    folder: Path
    control: str

    @property
    def env(self) -> dict[str, str]:
        return environment(self.postgres, PSTT_CONTROL_TOPIC=self.control)

    def workspace(self, name: str, topic: str, rows: int) -> Path:
        return job_in(self.folder / name, self.kafka, self.postgres, topic, rows)

    def run(self, folder: Path, *words: str) -> dict[str, Any]:
        """The run's document, or that of the error before it."""
        done = run_command(*(words or ("run", "export", *AT)), "--json", env=self.env, cwd=folder)
        assert "Traceback" not in done.stderr
        return dict(json.loads(done.stdout))

    def text(self, folder: Path, *words: str) -> tuple[int, str]:
        done = run_command(*words, env=self.env, cwd=folder)
        return done.returncode, done.stdout + done.stderr

    def mark(self, key: str, **value: Any) -> None:
        """Writes a message to the control topic, as another program would."""
        with_one(self.kafka, self.control, key, json.dumps(value))


def with_one(kafka: KafkaRig, topic: str, key: str, value: str) -> None:
    producer = Producer({"bootstrap.servers": kafka.plaintext})
    producer.produce(topic, value.encode(), key.encode())
    assert producer.flush(30) == 0


@pytest.fixture
def once(kafka: KafkaRig, postgres: PostgresRig, tmp_path: Path, control: str) -> Once:
    return Once(kafka, postgres, tmp_path, control)


def change_sql(folder: Path, old: str, new: str) -> None:
    file = folder / "queries" / "export.sql"
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new), encoding="utf-8")


def change_job(folder: Path, **changes: Any) -> None:
    file = folder / "queries" / "export.job.json"
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | changes), encoding="utf-8")


def test_two_workspaces_with_the_same_job_and_time_both_send_all_their_rows(once: Once):
    first, second = (once.kafka.create_topic() for _ in range(2))
    collaudo, produzione = once.workspace("collaudo", first, 300), once.workspace("produzione", second, 70)
    assert once.run(collaudo)["sent"] == 300
    assert once.run(produzione)["sent"] == 70
    assert (len(once.kafka.read(first)), len(once.kafka.read(second))) == (300, 70)
    assert [once.run(folder)["sent"] for folder in (collaudo, produzione)] == [0, 0]
    assert [once.run(folder)["acknowledged"] for folder in (collaudo, produzione)] == [300, 70]
    ids = {json.loads((folder / ".pstt" / "identity.json").read_text())["id"] for folder in (collaudo, produzione)}
    assert len(ids) == 2


@pytest.mark.slow
def test_two_workspaces_also_send_into_one_topic(once: Once):
    topic = once.kafka.create_topic()
    for name, rows in (("a", 30), ("b", 7)):
        assert once.run(once.workspace(name, topic, rows))["sent"] == rows
    assert len(once.kafka.read(topic, at_least=37)) == 37


def test_a_run_of_another_workspace_fences_nobody(once: Once):
    """One is in its transaction while the other, with the same job name, runs all of its own."""
    topic = once.kafka.create_topic()
    slow, quick = once.workspace("slow", topic, ROWS), once.workspace("quick", topic, 20)
    process = subprocess.Popen(
        command("run", "export", *AT, "--json"), cwd=slow, env=once.env, stdout=subprocess.PIPE, encoding="utf-8"
    )
    try:
        until(lambda: process.poll() is not None or once.kafka.count(topic) >= 100, "100 messages", every_s=0)
        assert process.poll() is None
        psutil.Process(process.pid).suspend()
        assert once.run(quick)["sent"] == 20
    finally:
        psutil.Process(process.pid).resume()
        out, _ = process.communicate(timeout=120)
    assert json.loads(out)["acknowledged"] == ROWS
    assert len(once.kafka.read(topic, at_least=ROWS + 20)) == ROWS + 20


CHANGES: dict[str, tuple[Callable[[Once, Path], object], str]] = {
    "sql": (lambda once, folder: change_sql(folder, "1, 50", "1, 40"), "since then the SQL was changed"),
    "topic": (
        lambda once, folder: change_job(
            folder,
            kafka_config={"topic": once.kafka.create_topic(f"new-{once.control}"), "message_key_field": "barcode"},
        ),
        'since then the job was given topic "new-',
    ),
    "connection": (
        lambda once, folder: change_sql_connection(folder),
        "since then the connection was changed to other",
    ),
    "topic made again": (lambda once, folder: remake(once, folder), "was deleted and made again"),
}


def change_sql_connection(folder: Path) -> None:
    file = folder / "connections.json"
    document = json.loads(file.read_text(encoding="utf-8"))
    document["connections"].append(document["connections"][0] | {"name": "other"})
    file.write_text(json.dumps(document), encoding="utf-8")
    change_job(folder, connection="other")


def remake(once: Once, folder: Path) -> None:
    topic = json.loads((folder / "queries" / "export.job.json").read_text())["kafka_config"]["topic"]
    once.kafka.delete_topic(topic)
    once.kafka.create_topic(topic)


@pytest.mark.parametrize("change", sweep(CHANGES, always=["topic"]))
def test_a_marker_that_does_not_fit_makes_no_run_green(once: Once, change: str):
    topic = once.kafka.create_topic()
    folder = once.workspace("ws", topic, 50)
    first = once.run(folder)
    make_change, words = CHANGES[change]
    make_change(once, folder)
    again = once.run(folder)
    assert (again["state"], again["acknowledged"], again["sent"]) == ("failed", 0, 0)
    assert f'run {first["run_id"]} sent 50 messages to topic "{topic}"' in again["error"]["text"]
    assert words in again["error"]["text"]
    assert "nothing was sent now" in again["error"]["text"]
    assert f"python -m core replay {first['run_id']}" in again["error"]["remedy"]
    assert not again["error"]["retriable"]
    assert len(once.kafka.read(topic)) == (0 if change == "topic made again" else 50)
    replayed = once.run(folder, "replay", first["run_id"])
    assert replayed["state"] == "succeeded"
    assert replayed["sent"] == replayed["acknowledged"] == (40 if change == "sql" else 50)


def test_other_parameters_for_the_same_time_do_not_count_as_sent(once: Once):
    topic = once.kafka.create_topic()
    folder = once.workspace("ws", topic, 50)
    file = folder / "queries" / "export.sql"
    file.write_text(
        "define MOST='20' --Opzionale: rows\n" + file.read_text().replace("1, 50", "1, &MOST::int"), encoding="utf-8"
    )
    assert once.run(folder)["sent"] == 20
    other = once.run(folder, "run", "export", *AT, "--param", "MOST=30")
    assert other["state"] == "failed"
    assert "since then the parameters were given other values" in other["error"]["text"]
    same = once.run(folder, "run", "export", *AT, "--param", "MOST=20")
    assert (same["state"], same["sent"]) == ("succeeded", 0)
    assert len(once.kafka.read(topic, at_least=20)) == 20


def test_a_replay_is_sent_once_for_each_time_that_it_is_wanted(once: Once):
    topic = once.kafka.create_topic()
    folder = once.workspace("ws", topic, 10)
    first = once.run(folder)
    replays = [once.run(folder, "replay", first["run_id"]) for _ in range(2)]
    assert [(replay["state"], replay["sent"]) for replay in replays] == [("succeeded", 10)] * 2
    counts = Counter(dict(message.headers() or [])["message_id"] for message in once.kafka.read(topic, at_least=30))
    assert set(counts.values()) == {3}
    rest = once.run(folder, "replay", first["run_id"], "--rejects-only")
    assert (rest["state"], rest["sent"]) == ("succeeded", 0)
    recognised = once.run(folder)
    assert (recognised["state"], recognised["sent"], recognised["of_run"]) == ("succeeded", 0, first["run_id"])
    rest = once.run(folder, "replay", recognised["run_id"], "--rejects-only")
    assert (rest["state"], rest["sent"]) == ("succeeded", 0), "the rows of the run that it recognised were sent"
    assert len(once.kafka.read(topic, at_least=30)) == 30


def test_single_keys_are_sent_in_one_transaction_or_not_at_all(once: Once):
    topic = once.kafka.create_topic()
    folder = once.workspace("ws", topic, 10)
    first = once.run(folder)
    keys = [str(message.key(), "utf-8") for message in once.kafka.read(topic, at_least=10)]
    one = once.run(folder, "replay", first["run_id"], "--key", keys[3])
    other = once.run(folder, "replay", first["run_id"], "--key", keys[4], "--key", keys[5])
    missing = once.run(folder, "replay", first["run_id"], "--key", keys[6], "--key", "none of them")
    assert [(run["state"], run["sent"]) for run in (one, other, missing)] == [
        ("succeeded", 1),
        ("succeeded", 2),
        ("failed", 0),
    ]
    counts = Counter(str(message.key(), "utf-8") for message in once.kafka.read(topic, at_least=13))
    assert (counts.total(), {key for key, count in counts.items() if count == 2}) == (13, {keys[3], keys[4], keys[5]})


def test_a_run_of_no_rows_leaves_no_marker_so_that_rows_that_come_later_are_sent(once: Once):
    topic = once.kafka.create_topic()
    folder = once.workspace("ws", topic, 5)
    table = f"late_{topic.replace('-', '_')}"
    (folder / "queries" / "export.sql").write_text(f"select barcode from {table} order by 1", encoding="utf-8")
    with once.postgres.connect() as connection:
        connection.execute(f"create table {table} (barcode text)")
    assert once.run(folder)["rows_read"] == 0
    with once.postgres.connect() as connection:
        connection.execute(f"insert into {table} values ('a'), ('b')")
    assert once.run(folder)["sent"] == 2


def test_a_marker_of_an_earlier_version_counts_where_the_ledger_knows_its_run(once: Once):
    topic = once.kafka.create_topic()
    ours, other = once.workspace("ours", topic, 10), once.workspace("other", topic, 4)
    change_job(ours, delivery="at_least_once")
    first = once.run(ours)
    change_job(ours, delivery="exactly_once")
    once.kafka.create_topic(once.control, partitions=1)
    once.mark("export@2026-01-17T01:00:00.000000Z", run=first["run_id"], rows=10, sha256="0")
    done = once.run(ours)
    assert (done["state"], done["sent"], done["acknowledged"]) == ("succeeded", 0, 10)
    assert sum(p["count"] for p in done["partitions"]) == 10
    assert once.run(other)["sent"] == 4, "that marker is not of this workspace"
    change_sql(ours, "1, 10", "1, 11")
    changed = once.run(ours)
    assert changed["state"] == "failed"
    assert "since then the SQL was changed" in changed["error"]["text"]
    assert len(once.kafka.read(topic, at_least=14)) == 14


def test_something_else_on_the_control_topic_is_named(once: Once):
    folder = once.workspace("ws", once.kafka.create_topic(), 3)
    once.kafka.create_topic(once.control, partitions=1)
    with_one(once.kafka, once.control, "export@2026-01-17T01:00:00.000000Z", "hello")
    done = once.run(folder)
    assert "a marker on the control topic cannot be read" in done["error"]["text"]


# ── one identity, one workspace ───────────────────────────────────────────────────────────────


def test_a_copied_workspace_sends_nothing_until_it_has_an_identity_of_its_own(once: Once):
    topic = once.kafka.create_topic()
    folder = once.workspace("produzione", topic, 10)
    assert once.run(folder)["sent"] == 10
    copy = once.folder / "collaudo"
    shutil.copytree(folder, copy)
    refused = once.run(copy, "run", "export", "--at", "2026-01-18T02:00")
    assert f"this workspace is a copy of {folder} on" in refused["error"]["text"]
    assert "python -m core identity copied" in refused["error"]["remedy"]
    code, text = once.text(copy, "doctor")
    assert code == 1
    assert "✘ identity: this workspace is a copy of" in text
    code, text = once.text(copy, "identity")
    assert (code, "is a copy of" in text) == (2, True)
    code, text = once.text(copy, "identity", "copied")
    assert (code, text[0]) == (0, "✔")
    assert once.run(copy)["sent"] == 10, "what the other one sent is not what this one sent"
    assert once.run(folder)["sent"] == 0
    for place in (folder, copy):
        assert "identity, under which" not in once.text(place, "doctor")[1]
        assert "✘ identity" not in once.text(place, "doctor")[1]


def test_a_moved_workspace_keeps_its_identity_without_a_word(once: Once):
    folder = once.workspace("before", once.kafka.create_topic(), 10)
    assert once.run(folder)["sent"] == 10
    moved = folder.rename(once.folder / "after")
    assert (once.run(moved)["state"], once.run(moved)["sent"]) == ("succeeded", 0)
    elsewhere = shutil.copytree(moved, once.folder / "on another disk")
    shutil.rmtree(moved)
    for file in (elsewhere / ".pstt").glob("ledger.sqlite*"):
        file.unlink()
    assert once.run(elsewhere)["sent"] == 0, "what was sent from where it was before is its own"


def test_two_runners_with_one_identity_are_found(once: Once):
    """The copy was confirmed as moved although the original exists; both continue."""
    topic = once.kafka.create_topic()
    folder = once.workspace("original", topic, 10)
    assert once.run(folder)["sent"] == 10
    twin = shutil.copytree(folder, once.folder / "twin")
    assert once.text(twin, "identity", "moved")[0] == 0
    assert once.run(twin, "run", "export", "--at", "2026-01-18T02:00")["sent"] == 10
    refused = once.run(folder, "run", "export", "--at", "2026-01-19T02:00")
    assert refused["state"] == "failed"
    assert "another workspace sends under the identity of this one" in refused["error"]["text"]
    assert f"from {twin} on" in refused["error"]["text"]
    code, text = once.text(folder, "doctor")
    assert code == 1
    assert "another workspace sends under the identity of this one" in text
    assert once.text(folder, "identity", "copied")[0] == 0
    assert once.run(folder, "run", "export", "--at", "2026-01-19T02:00")["sent"] == 10
    assert once.run(twin, "run", "export", "--at", "2026-01-19T02:00")["sent"] == 10


def test_the_other_client_refuses_exactly_once_with_the_reason(
    kafka: KafkaRig, postgres: PostgresRig, tmp_path: Path, control: str
):
    topic = kafka.create_topic()
    folder = job_in(tmp_path / "ws", kafka, postgres, topic, 5)
    env = environment(
        postgres, PSTT_CONTROL_TOPIC=control, KAFKA_CLIENT="kafka-python-ng", KAFKA_ENABLE_IDEMPOTENCE="false"
    )
    done = run_command("run", "export", *AT, env=env, cwd=folder)
    assert done.returncode == 2
    assert 'delivery "exactly_once" cannot be had with KAFKA_CLIENT=kafka-python-ng' in done.stderr
    assert "no transactions" in done.stderr
    assert "Traceback" not in done.stderr
    assert kafka.count(topic) == 0
