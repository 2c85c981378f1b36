"""Transactions on a real broker: all rows and the marker become visible together, or nothing ever does."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from core.delivery import Sender
from core.errors import (
    ConfigError,
    MessageRefused,
    MessageTooLarge,
    NotAuthorised,
    PsttError,
    RetriesExhausted,
    RunFailed,
)
from core.model import Batch, Cluster, Delivery, Secret
from core.publishers import open_publisher
from core.publishers.confluent import ConfluentPublisher
from tests.rigs.kafka import KafkaRig
from tests.rigs.postgres import PostgresRig
from tests.rigs.workspace import command, environment, make_workspace, run_command

Open = Callable[..., ConfluentPublisher]


@pytest.fixture
def opened(kafka: KafkaRig) -> Iterator[Open]:
    """`opened("job-a")`: a publisher with that transactional id."""
    publishers = []

    def make(transactional_id: str, **changes: Any) -> Any:
        cluster = Cluster("once", kafka.plaintext, linger_ms=2, **changes)
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


def sent(publisher: ConfluentPublisher, batch: Batch) -> Delivery:
    delivery = Delivery.of(batch)
    publisher.publish(delivery)
    deadline = time.monotonic() + 30
    while delivery.pending:
        assert time.monotonic() < deadline
        publisher.poll(0.1)
    return delivery


def mark(publisher: ConfluentPublisher, control: str, key: bytes, value: bytes) -> None:
    assert sent(publisher, Batch(0, control, [key], [value], [b"0" * 32], [0])).errors == {}


# ── the client ────────────────────────────────────────────────────────────────────────────────


def test_messages_and_marker_are_seen_together_and_only_after_the_commit(kafka: KafkaRig, opened: Open, control: str):
    topic = kafka.create_topic()
    publisher = opened(f"tx-{topic}")
    publisher.prepare_once(control)
    assert publisher.read_control(control, b"run-1") is None
    publisher.begin()
    delivery = sent(publisher, batch_of(topic))
    mark(publisher, control, b"run-1", b"all 100")
    assert delivery.acknowledged == 100
    assert kafka.read(topic) == []
    assert len(kafka.read(topic, "read_uncommitted")) == 100
    assert publisher.read_control(control, b"run-1") is None
    publisher.commit()
    assert len(kafka.read(topic)) == 100
    assert publisher.read_control(control, b"run-1") == b"all 100"
    assert publisher.read_control(control, b"run-2") is None


def test_the_newest_marker_of_a_key_counts(kafka: KafkaRig, opened: Open, control: str):
    publisher = opened(f"tx-{control}")
    publisher.prepare_once(control)
    for value in (b"first", b"second"):
        publisher.begin()
        mark(publisher, control, b"run-1", value)
        mark(publisher, control, b"run-2", b"other")
        publisher.commit()
    assert publisher.read_control(control, b"run-1") == b"second"


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
    assert publisher.read_control(control, b"run-1") is None
    publisher.begin()
    sent(publisher, batch_of(topic, 3))
    publisher.commit()
    assert len(kafka.read(topic)) == 3


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
    assert len(kafka.read(topic)) == 7


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
    assert len(kafka.read(topic)) == 500


@pytest.mark.parametrize("bad", [[None], [None, None]], ids=["one", "two"])  # librdkafka answers for all if it is one
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


def test_an_account_without_rights_on_the_transactional_id_is_told_so(kafka: KafkaRig, opened: Open, control: str):
    cluster = Cluster(
        "once",
        kafka.sasl_plaintext,
        "SASL_PLAINTEXT",
        sasl_mechanism="PLAIN",
        sasl_username=kafka.limited_username,
        sasl_password=Secret(kafka.limited_password),
    )
    publisher = open_publisher(cluster, transactional_id="tx-limited")
    try:
        with pytest.raises(NotAuthorised, match=r'user "limited".*exactly_once needs them on the transactional id too'):
            publisher.prepare_once(control)
    finally:
        publisher.close(0.0)


def test_a_broker_that_allows_no_transaction_as_long_as_ours_is_named(own_kafka: Callable[..., KafkaRig]):
    broker = own_kafka(properties={"transaction.max.timeout.ms": "60000"})
    publisher = open_publisher(Cluster("once", broker.plaintext), transactional_id="tx-short")
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
        deadline = time.monotonic() + 60
        while kafka.count(topic) < 1000:
            assert time.monotonic() < deadline
            assert process.poll() is None, "the run ended before it could be killed"
    finally:
        process.kill()
        process.wait(30)
    assert kafka.read(topic) == []

    again = run_as_json(folder, env)
    assert (again["state"], again["rows_read"], again["acknowledged"]) == ("succeeded", ROWS, ROWS)
    seen = Counter(message.key() for message in kafka.read(topic))
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
    first = job_in(tmp_path / "first", kafka, postgres, topic, 50)
    assert run_as_json(first, env)["sent"] == 50
    elsewhere = job_in(tmp_path / "second", kafka, postgres, topic, 50)
    repeated = run_as_json(elsewhere, env)
    assert (repeated["state"], repeated["acknowledged"], repeated["sent"]) == ("succeeded", 50, 0)
    assert len(kafka.read(topic)) == 50
    other = run_command("run", "export", "--at", "2026-01-18T02:00", "--json", env=env, cwd=elsewhere)
    assert json.loads(other.stdout)["sent"] == 50, "another scheduled time is another run"
    assert len(kafka.read(topic)) == 100


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
