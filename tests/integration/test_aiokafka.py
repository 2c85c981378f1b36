"""aiokafka over a real broker in the cases that its contract with `Publisher` does not name.

In each of them a message is acknowledged or has an error, never both, and what is acknowledged is on the topic at its offset.
"""

from __future__ import annotations

import _thread
import gc
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from confluent_kafka import ElectionType, TopicPartition
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    NewPartitions,
    ResourcePatternType,
    ResourceType,
)

import core.kafka.aiokafka
from core.errors import BrokerUnavailable, NotAuthorised, PsttError, RetriesExhausted, RunFailed, TopicMissing
from core.kafka import open_publisher
from core.kafka.aiokafka import AiokafkaPublisher
from core.kafka.sender import Sender
from core.model.connection import Cluster, Secret
from core.model.publisher import Delivery
from tests.contract.test_publishers import batch_of, finish, require_accounted, sender_of, sent
from tests.rigs.interrupts import interruptible
from tests.rigs.kafka import FurtherBroker, KafkaRig, KafkaTopics, PlainKafkaRig, kafka_jars
from tests.rigs.kafka_proxy import METADATA, PRODUCE, Answer, Exchange, KafkaProxy
from tests.rigs.sweeps import sweep

Open = Callable[..., AiokafkaPublisher]
UNKNOWN_CODE, NOT_ALLOWED = 999, 29
QUICK: dict[str, Any] = {
    "request_timeout_ms": 2000,
    "delivery_timeout_ms": 6000,
    "retry_backoff_ms": 50,
    "linger_ms": 2,
}


@pytest.fixture
def opened() -> Iterator[Open]:
    """`opened(servers, **cluster)`; closed in the end, and nothing may be left of it."""
    publishers: list[Any] = []
    before = set(threading.enumerate())

    def make(servers: str, transactional_id: str | None = None, max_in_flight: int = 5000, **changes: Any) -> Any:
        cluster = Cluster("aiokafka", servers, client="aiokafka", **QUICK | changes)
        publishers.append(open_publisher(cluster, transactional_id=transactional_id, max_in_flight=max_in_flight))
        return publishers[-1]

    yield make
    for publisher in publishers:
        publisher.close(0.0)
    publishers.clear()
    left = [thread for thread in set(threading.enumerate()) - before if thread.name.startswith(("kafka", "asyncio"))]
    for thread in left:
        thread.join(30)
    assert [thread for thread in left if thread.is_alive()] == []
    gc.collect()  # what was not closed warns now, and a warning fails the test


@pytest.fixture
def proxy(kafka: KafkaRig) -> Iterator[KafkaProxy]:
    with KafkaProxy(kafka.plaintext) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def broker() -> Iterator[KafkaRig]:
    """A broker that each test leaves running, with its settings as they were."""
    with PlainKafkaRig(properties={"broker.session.timeout.ms": "2000"}) as rig:
        yield rig


def require_true(
    broker: KafkaTopics, *deliveries: Delivery, isolation: str = "read_committed"
) -> Counter[bytes | None]:
    """Each message has one outcome, and what is acknowledged is where it says. Returns how often each key is there."""
    for delivery in deliveries:
        require_accounted(delivery)
    records = {
        (topic, message.partition(), message.offset()): message
        for topic in {delivery.batch.topic for delivery in deliveries}
        for message in broker.read(topic, isolation)
    }
    keys = Counter(message.key() for message in records.values())
    for delivery in deliveries:
        batch = delivery.batch
        for index, partition in enumerate(delivery.partitions):
            if partition == -1:
                continue
            assert keys[batch.keys[index]], f"{batch.keys[index]!r} was acknowledged and is not there"
            if delivery.offsets[index] >= 0:
                message = records[batch.topic, partition, delivery.offsets[index]]
                assert (message.key(), message.value()) == (batch.keys[index], batch.values[index])
    return keys


def once(reply: Answer | Callable[[Exchange], Answer], api_key: int = PRODUCE) -> Callable[[Exchange], Answer]:
    """Gives that answer to the first request of this kind, and the broker's to all others."""
    given: list[bool] = []

    def answer(exchange: Exchange) -> Answer:
        if exchange.api_key != api_key or given:
            return "pass"
        given.append(True)
        return reply(exchange) if callable(reply) else reply

    return answer


# ── answers that do not come, or are not whole ────────────────────────────────────────────────


@pytest.mark.parametrize("reply", ["cut", "half", "swallow"])
def test_a_batch_whose_answer_is_lost_is_on_the_topic_once(
    reply: Answer, kafka: KafkaRig, proxy: KafkaProxy, opened: Open
):
    topic = kafka.create_topic()
    publisher = opened(proxy.address, delivery_timeout_ms=60_000)
    proxy.answer = once(reply)
    deliveries = [Delivery.of(batch_of(topic, 200, number)) for number in (1, 2, 3)]
    for delivery in deliveries:
        publisher.publish(delivery)
    finish(publisher, *deliveries, timeout_s=60)
    assert [delivery.errors for delivery in deliveries] == [{}] * 3
    assert set(require_true(kafka, *deliveries).values()) == {1}


@pytest.mark.parametrize("reply", ["cut", lambda exchange: exchange.with_error(UNKNOWN_CODE)], ids=["cut", "unknown"])
def test_without_idempotence_a_lost_answer_may_repeat_messages_and_loses_none(
    reply: Any, kafka: KafkaRig, proxy: KafkaProxy, opened: Open
):
    topic = kafka.create_topic()
    publisher = opened(proxy.address, enable_idempotence=False)
    proxy.answer = once(reply)
    sender = sender_of(publisher)
    deliveries = [sender.submit(batch_of(topic, 200, number)) for number in (1, 2, 3)]
    sender.drain(60)
    assert [delivery.errors for delivery in deliveries] == [{}] * 3
    assert set(require_true(kafka, *deliveries)) == {key for delivery in deliveries for key in delivery.batch.keys}


@pytest.mark.parametrize(
    "reply",
    [lambda exchange: exchange.with_error(UNKNOWN_CODE), Exchange.without_partitions],
    ids=["unknown", "nothing"],
)
def test_no_message_is_lost_after_an_answer_that_does_not_show_whether_its_batch_is_stored(
    reply: Callable[[Exchange], bytes], kafka: KafkaRig, proxy: KafkaProxy, opened: Open
):
    """The batches are equally large: with the sequence number of the first the second would be taken for its repetition."""
    topic = kafka.create_topic(partitions=1)
    publisher = opened(proxy.address, delivery_timeout_ms=3000)
    sender = sender_of(publisher)
    may_answer = threading.Event()
    proxy.answer = once(lambda exchange: reply(exchange) if may_answer.wait(30) else "cut")
    deliveries = [sender.submit(batch_of(topic, 100, 1))]
    deadline = time.monotonic() + 30
    while not proxy.requests[PRODUCE]:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    deliveries.append(sender.submit(batch_of(topic, 100, 2)))
    may_answer.set()
    sender.drain(60)
    assert [delivery.errors for delivery in deliveries] == [{}] * 2
    keys = require_true(kafka, *deliveries)
    assert set(keys) == {key for delivery in deliveries for key in delivery.batch.keys}
    assert sum(keys.values()) <= 2 * 200


def test_an_error_code_that_nobody_knows_ends_as_one_to_try_again(kafka: KafkaRig, proxy: KafkaProxy, opened: Open):
    topic = kafka.create_topic(partitions=1)
    publisher = opened(proxy.address)
    sender = sender_of(publisher, max_retries=1)
    proxy.answer = lambda exchange: exchange.with_error(UNKNOWN_CODE) if exchange.api_key == PRODUCE else "pass"
    delivery = sender.submit(batch_of(topic, 10))
    sender.drain(60)
    require_true(kafka, delivery)
    error = delivery.errors[0]
    assert type(error) is RetriesExhausted
    assert type(error.__cause__) is BrokerUnavailable
    assert "the broker reports an error that aiokafka does not know" in error.text
    proxy.answer = lambda _: "pass"
    assert sent(publisher, batch_of(topic, 10, 2)).errors == {}


def test_a_batch_that_is_refused_after_a_lost_answer_makes_the_next_one_no_repetition(
    kafka: KafkaRig, proxy: KafkaProxy, opened: Open
):
    """The first attempt is stored; the refusal of the second does not show it."""
    topic = kafka.create_topic(partitions=1)
    publisher = opened(proxy.address)
    answers: list[Answer] = ["cut"]

    def answer(exchange: Exchange) -> Answer:
        if exchange.api_key != PRODUCE or len(answers) > 1:
            return "pass"
        if proxy.requests[PRODUCE] == 1:
            return "cut"
        answers.append("pass")
        return exchange.with_error(NOT_ALLOWED)

    proxy.answer = answer
    first, second = (sent(publisher, batch_of(topic, 50, number)) for number in (1, 2))
    assert {type(error) for error in first.errors.values()} == {NotAuthorised}
    assert second.errors == {}
    assert set(require_true(kafka, first, second)) >= set(second.batch.keys)


def test_a_broker_that_takes_everything_and_answers_nothing_ends_in_an_error_and_leaves_no_connection(
    kafka: KafkaRig, proxy: KafkaProxy, opened: Open
):
    topic = kafka.create_topic()
    publisher = opened(proxy.address, delivery_timeout_ms=2500)
    assert sent(publisher, batch_of(topic, 20)).errors == {}
    proxy.is_silent.set()
    delivery = sent(publisher, batch_of(topic, 20, 2))
    require_accounted(delivery)
    assert all(error.is_retriable for error in delivery.errors.values())
    assert len(delivery.errors) == 20
    publisher.close(0.0)
    deadline = time.monotonic() + 30
    while proxy.open_connections:
        assert time.monotonic() < deadline, "a connection is left"
        time.sleep(0.05)


def test_no_partition_waits_for_another_one_whose_answers_do_not_come(kafka: KafkaRig, proxy: KafkaProxy, opened: Open):
    """What the broker has answered at the time-out counts, so that it is not sent a second time."""
    topic, stuck = kafka.create_topic(partitions=1), kafka.create_topic(partitions=1)
    publisher = opened(proxy.address, delivery_timeout_ms=3000)
    proxy.answer = lambda exchange: (
        Exchange.without_partitions(exchange)
        if exchange.api_key == PRODUCE and stuck.encode() in exchange.request
        else "pass"
    )
    lost = Delivery.of(batch_of(stuck, 10))
    publisher.publish(lost)
    good: list[Delivery] = []
    deadline = time.monotonic() + 60
    while lost.pending:
        assert time.monotonic() < deadline
        good.append(sent(publisher, batch_of(topic, 10, len(good) + 2)))
    assert {type(error).__name__ for error in lost.errors.values()} == {"DeliveryTimeout"}
    assert [delivery.errors for delivery in good if delivery.errors] == []
    assert set(require_true(kafka, *good).values()) == {1}


def test_a_delivery_that_takes_longer_than_the_delivery_time_out_is_not_late_while_each_message_is_in_time(
    kafka: KafkaRig, proxy: KafkaProxy, opened: Open
):
    topic = kafka.create_topic(partitions=1)
    publisher = opened(proxy.address, max_in_flight=2, request_timeout_ms=5000, delivery_timeout_ms=5000)

    def late(exchange: Exchange) -> Answer:
        if exchange.api_key == PRODUCE:
            time.sleep(0.5)
        return "pass"

    proxy.answer = late
    started = time.monotonic()
    delivery = Delivery.of(batch_of(topic, 48))
    publisher.publish(delivery)
    finish(publisher, delivery, timeout_s=60)
    assert time.monotonic() - started > 6
    assert delivery.errors == {}
    assert set(delivery.attempts) == {1}
    assert set(require_true(kafka, delivery).values()) == {1}


# ── topics ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("partitions", sweep([1, 1000], always=[1]))
def test_all_arrive_on_a_topic_of(partitions: int, broker: KafkaRig, opened: Open):
    topic = broker.create_topic(partitions=partitions)
    publisher = opened(broker.plaintext, delivery_timeout_ms=60_000, request_timeout_ms=30_000)
    deliveries = [Delivery.of(batch_of(topic, 4000, number)) for number in (1, 2)]
    for delivery in deliveries:
        publisher.publish(delivery)
    finish(publisher, *deliveries, timeout_s=120)
    publisher.close()
    assert [delivery.errors for delivery in deliveries] == [{}, {}]
    assert set(require_true(broker, *deliveries).values()) == {1}
    assert len({partition for delivery in deliveries for partition in delivery.partitions}) > 0.9 * partitions
    broker.delete_topic(topic)


def test_partitions_that_are_added_in_the_middle_lose_nothing(kafka: KafkaRig, opened: Open):
    topic = kafka.create_topic(partitions=1)
    publisher = opened(kafka.plaintext)
    before = sent(publisher, batch_of(topic, 100))
    admin = kafka._admin()
    admin.create_partitions([NewPartitions(topic, 3)])[topic].result(30)
    after = [sent(publisher, batch_of(topic, 100, number)) for number in range(2, 6)]
    newer = sent(opened(kafka.plaintext), batch_of(topic, 100, 6))
    assert before.errors == newer.errors == {}
    assert [delivery.errors for delivery in after] == [{}] * 4
    assert set(newer.partitions) == {0, 1, 2}
    assert set(require_true(kafka, before, *after, newer).values()) == {1}


@pytest.mark.parametrize(
    "config",
    [
        {"compression.type": "gzip"},
        {"compression.type": "uncompressed"},
        {"message.timestamp.type": "LogAppendTime"},
        {"max.message.bytes": "3000"},
    ],
    ids=lambda config: " ".join(config.values()),
)
@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_all_arrive_on_a_topic_whose_settings_differ_from_ours(
    config: Mapping[str, str], compression: str, kafka: KafkaRig, opened: Open
):
    topic = kafka.create_topic(config=config)
    sender = sender_of(opened(kafka.plaintext, compression_type=compression))
    deliveries = [sender.submit(batch_of(topic, 200, number)) for number in (1, 2)]
    sender.drain(60)
    assert [delivery.errors for delivery in deliveries] == [{}, {}]
    assert set(require_true(kafka, *deliveries).values()) == {1}


def test_a_topic_that_is_deleted_in_the_middle_is_named_in_the_end(kafka: KafkaRig, opened: Open):
    topic = kafka.create_topic()
    publisher = opened(kafka.plaintext, delivery_timeout_ms=4000, request_timeout_ms=1500)
    assert sent(publisher, batch_of(topic, 100)).errors == {}
    kafka.delete_topic(topic)
    sender = sender_of(publisher)
    # A broker forgets the topic a moment before it closes its logs, and takes messages in between.
    for number in range(2, 102):
        delivery = sender.submit(batch_of(topic, 100, number))
        sender.drain(90)
        require_accounted(delivery)
        if not delivery.acknowledged:
            break
        time.sleep(0.1)
    assert delivery.acknowledged == 0
    assert {type(error) for error in delivery.errors.values()} == {TopicMissing}
    assert f'topic "{topic}" does not exist' in delivery.errors[0].text


# ── rights and quotas ─────────────────────────────────────────────────────────────────────────


def limited(kafka: KafkaRig, **changes: Any) -> dict[str, Any]:
    return {
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": "PLAIN",
        "sasl_username": kafka.limited_username,
        "sasl_password": Secret(kafka.limited_password),
        **changes,
    }


def test_a_right_that_is_taken_away_in_the_middle_ends_in_that_reason(kafka: KafkaRig, opened: Open):
    topic = kafka.create_topic()
    user = kafka.limited_username
    kafka.allow(user, topic, AclOperation.WRITE, AclOperation.DESCRIBE)
    publisher = opened(kafka.sasl_plaintext, **limited(kafka))
    before = sent(publisher, batch_of(topic, 100))
    rule = AclBindingFilter(
        ResourceType.TOPIC, topic, ResourcePatternType.LITERAL, f"User:{user}", None, AclOperation.WRITE,
        AclPermissionType.ALLOW,
    )  # fmt: skip
    admin = kafka._admin()
    admin.delete_acls([rule])[rule].result(30)
    deliveries = [before]
    deadline = time.monotonic() + 60
    while not deliveries[-1].errors:
        assert time.monotonic() < deadline, "it may still write"
        deliveries.append(sent(publisher, batch_of(topic, 100, len(deliveries) + 1)))
    for error in deliveries[-1].errors.values():
        assert type(error) is NotAuthorised
        assert f'user "{user}" may not write to topic "{topic}"' in error.text
    kafka.allow(user, topic, AclOperation.WRITE)
    while deliveries[-1].errors:
        assert time.monotonic() < deadline, "it may not write again"
        deliveries.append(sent(publisher, batch_of(topic, 100, len(deliveries) + 1)))
    assert set(require_true(kafka, *deliveries).values()) == {1}


def configure(broker: KafkaRig, *words: str) -> None:
    """Calls Kafka's own tool for what no library offers."""
    tool = ["java", "-XX:TieredStopAtLevel=1", "-cp", f"{kafka_jars()}/*", "kafka.admin.ConfigCommand"]
    command = [*tool, "--bootstrap-server", broker.plaintext, "--alter", *words]
    subprocess.run(command, check=True, capture_output=True, timeout=120)


def test_a_client_that_is_throttled_loses_nothing_and_sends_nothing_twice(broker: KafkaRig, opened: Open):
    """60 kB at 10 kB/s; the broker is silent for longer than the client waits for an answer."""
    topic = broker.create_topic()
    client = ("--entity-type", "clients", "--entity-name", "pstt-kafka")
    configure(broker, "--add-config", "producer_byte_rate=10000", *client)
    try:
        publisher = opened(
            broker.plaintext, compression_type="none", request_timeout_ms=1000, delivery_timeout_ms=120_000
        )
        deliveries = [Delivery.of(batch_of(topic, 20, n, values=[b"x" * 1000] * 20)) for n in (1, 2, 3)]
        for delivery in deliveries:
            publisher.publish(delivery)
            finish(publisher, delivery, timeout_s=120)
    finally:
        configure(broker, "--delete-config", "producer_byte_rate", *client)
    assert [delivery.errors for delivery in deliveries] == [{}] * 3
    assert set(require_true(broker, *deliveries).values()) == {1}


# ── leaders ───────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def two() -> Iterator[tuple[KafkaRig, KafkaRig]]:
    """Two brokers, the first with the controller; each test leaves both running."""
    properties = {"broker.session.timeout.ms": "2000"}
    with PlainKafkaRig(properties=properties) as first, FurtherBroker(first, 2, properties=properties) as second:
        yield first, second


def wait_for_leader(broker: KafkaTopics, topic: str, leader: int) -> None:
    deadline = time.monotonic() + 60
    while broker.replicas_in_sync(topic)[0] != leader:
        assert time.monotonic() < deadline, f"{leader} does not lead"
        time.sleep(0.1)


def test_a_partition_without_a_leader_costs_few_requests_and_its_messages_arrive_once_there_is_one(
    two: tuple[KafkaRig, KafkaRig], opened: Open
):
    first, second = two
    topic = first.create_topic(replicas=[2])
    with KafkaProxy(first.plaintext) as proxy:
        publisher = opened(proxy.address, delivery_timeout_ms=120_000, retry_backoff_ms=100)
        assert sent(publisher, batch_of(topic, 10)).errors == {}
        second.kill()
        wait_for_leader(first, topic, -1)
        sender = sender_of(publisher, max_retries=8)
        delivery = sender.submit(batch_of(topic, 10, 2))
        asked, started = proxy.requests[METADATA], time.monotonic()
        while time.monotonic() < started + 5:
            sender.serve(0.1)
        asked = proxy.requests[METADATA] - asked
        assert asked < 2 * (time.monotonic() - started) / 0.1, "metadata is requested without a pause"
        assert delivery.pending == 10
        second.start()
        sender.drain(90)
        assert delivery.errors == {}
        assert set(require_true(first, delivery).values()) == {1}
        publisher.close(0.0)


def test_leaders_that_move_while_messages_are_sent_lose_nothing_and_repeat_nothing(
    two: tuple[KafkaRig, KafkaRig], opened: Open
):
    """A broker that is stopped in good order gives its partition to the other one, and gets it back."""
    first, second = two
    topic = first.create_topic(replicas=[2, 1])
    publisher = opened(first.plaintext, delivery_timeout_ms=120_000)
    sender = sender_of(publisher)
    deliveries: list[Delivery] = []

    def send_until(done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 90
        while not done():
            assert time.monotonic() < deadline
            deliveries.append(sender.submit(batch_of(topic, 50, len(deliveries) + 1)))
            sender.serve(0.02)

    stopping = threading.Thread(target=second.stop)
    stopping.start()
    send_until(lambda: first.replicas_in_sync(topic)[0] == 1)
    stopping.join()
    second.start()
    send_until(lambda: first.replicas_in_sync(topic)[1] == {1, 2})
    admin = first._admin()
    admin.elect_leaders(ElectionType.PREFERRED, [TopicPartition(topic, 0)]).result(30)
    send_until(lambda: first.replicas_in_sync(topic)[0] == 2)
    send_until(iter([False, True]).__next__)
    sender.drain(60)
    assert [delivery.errors for delivery in deliveries if delivery.errors] == []
    assert set(require_true(first, *deliveries).values()) == {1}


# ── transactions ──────────────────────────────────────────────────────────────────────────────


def require_ended(broker: KafkaTopics, topic: str, publisher: AiokafkaPublisher) -> None:
    """No transaction is open on the topic: a reader of committed records reaches what comes after it."""
    later = sent(publisher, batch_of(topic, 3, 99))
    deadline = time.monotonic() + 30
    while set(later.batch.keys) - {message.key() for message in broker.read(topic)}:
        assert time.monotonic() < deadline, "a transaction is open"


def test_an_older_run_that_lost_its_connection_does_not_fence_the_newer_one(
    kafka: KafkaRig, proxy: KafkaProxy, opened: Open
):
    topic, control = kafka.create_topic(), f"control-{proxy.address[10:]}"
    older = opened(proxy.address, f"tx-{topic}", delivery_timeout_ms=2500)
    newer = opened(kafka.plaintext, f"tx-{topic}")
    older.prepare_once(control)
    older.begin()
    assert sent(older, batch_of(topic, 50)).errors == {}
    proxy.is_silent.set()
    late = Delivery.of(batch_of(topic, 50, 2))
    older.publish(late)
    newer.prepare_once(control)
    newer.begin()
    first = sent(newer, batch_of(topic, 7, 3))
    finish(older, late)
    assert not any(error.is_retriable for error in late.errors.values()), "within a transaction nothing is tried again"
    proxy.is_silent.clear()
    proxy.cut()
    with pytest.raises(RunFailed, match="a newer run of the same job took over"):
        older.abort()
    for step in (older.begin, older.commit, older.abort, lambda: older.prepare_once(control)):
        with pytest.raises(RunFailed, match="a newer run of the same job took over"):
            step()
    newer.commit()
    assert set(require_true(kafka, first)) == set(first.batch.keys)


def test_a_transaction_is_aborted_once_a_killed_broker_is_back(broker: KafkaRig, opened: Open):
    topic, control = broker.create_topic(), "control-killed"
    publisher = opened(broker.plaintext, f"tx-{topic}", delivery_timeout_ms=2500)
    publisher.prepare_once(control)
    publisher.begin()
    sent(publisher, batch_of(topic, 50))
    broker.kill()
    lost = sent(publisher, batch_of(topic, 50, 2))
    assert len(lost.errors) == 50
    with pytest.raises(PsttError):
        publisher.commit()
    threading.Timer(1.0, broker.start).start()
    publisher.abort()
    assert broker.read(topic) == []
    publisher.begin()
    again = sent(publisher, batch_of(topic, 5, 4))
    publisher.commit()
    assert set(require_true(broker, again)) == set(again.batch.keys)


def test_a_transaction_with_a_topic_that_may_not_be_written_is_really_aborted(kafka: KafkaRig, opened: Open):
    """aiokafka forgets the partitions of the transaction after that error."""
    good, bad = kafka.create_topic(), kafka.create_topic()
    user = kafka.limited_username
    kafka.allow(user, good, AclOperation.WRITE, AclOperation.DESCRIBE)
    kafka.allow(user, bad, AclOperation.DESCRIBE)
    allow_transactions(kafka, user)
    publisher = opened(kafka.sasl_plaintext, f"tx-{good}", **limited(kafka))
    publisher.begin()
    assert sent(publisher, batch_of(good, 50)).errors == {}
    refused = sent(publisher, batch_of(bad, 50))
    assert {type(error) for error in refused.errors.values()} == {NotAuthorised}
    with pytest.raises(NotAuthorised):
        publisher.commit()
    publisher.abort()
    assert kafka.read(good) == []
    require_ended(kafka, good, opened(kafka.plaintext))


def allow_transactions(kafka: KafkaRig, user: str) -> None:
    rules = [
        AclBinding(
            ResourceType.TRANSACTIONAL_ID, "tx-", ResourcePatternType.PREFIXED, f"User:{user}", "*", operation,
            AclPermissionType.ALLOW,
        )
        for operation in (AclOperation.WRITE, AclOperation.DESCRIBE)
    ]  # fmt: skip
    admin = kafka._admin()
    for future in admin.create_acls(rules).values():
        future.result(30)


def test_a_transaction_after_one_whose_answers_were_lost_loses_nothing(
    kafka: KafkaRig, proxy: KafkaProxy, opened: Open
):
    topic = kafka.create_topic(partitions=1)
    publisher = opened(proxy.address, f"tx-{topic}")
    publisher.begin()
    proxy.answer = once(lambda exchange: exchange.with_error(UNKNOWN_CODE))
    lost = [Delivery.of(batch_of(topic, 20, number)) for number in (1, 2, 3)]
    for delivery in lost:
        publisher.publish(delivery)
    finish(publisher, *lost)
    assert not any(error.is_retriable for delivery in lost for error in delivery.errors.values())
    with pytest.raises(PsttError):
        publisher.commit()
    publisher.abort()
    publisher.begin()
    kept = sent(publisher, batch_of(topic, 20, 4))
    publisher.commit()
    assert kept.errors == {}
    assert require_true(kafka, kept) == Counter(kept.batch.keys)
    require_ended(kafka, topic, opened(kafka.plaintext))


STEPS = {
    "Produce": 0,
    "Metadata": 3,
    "FindCoordinator": 10,
    "InitProducerId": 22,
    "AddPartitionsToTxn": 24,
    "EndTxn": 26,
}


@pytest.mark.parametrize("reply", ["cut", "half"])
@pytest.mark.parametrize("step", STEPS)
def test_a_transaction_of_which_one_answer_is_lost_is_committed_once(
    step: str, reply: Answer, kafka: KafkaRig, proxy: KafkaProxy, opened: Open
):
    topic = kafka.create_topic()
    publisher = opened(proxy.address, f"tx-{topic}", delivery_timeout_ms=60_000)
    publisher.require_topic(topic)
    proxy.answer = once(reply, STEPS[step])
    publisher.begin()
    delivery = sent(publisher, batch_of(topic, 50))
    publisher.commit()
    assert delivery.errors == {}
    assert proxy.requests[STEPS[step]] >= 2, "no answer was lost"
    assert require_true(kafka, delivery) == Counter(delivery.batch.keys)


def test_a_commit_whose_answer_nobody_understands_is_neither_made_nor_aborted_by_us(
    kafka: KafkaRig, proxy: KafkaProxy, opened: Open
):
    """The marker decides later: the broker has committed it."""
    topic = kafka.create_topic()
    publisher = opened(proxy.address, f"tx-{topic}")
    publisher.begin()
    delivery = sent(publisher, batch_of(topic, 50))
    proxy.answer = once(lambda exchange: exchange.answer[:-2] + (UNKNOWN_CODE).to_bytes(2, "big"), STEPS["EndTxn"])
    with pytest.raises(BrokerUnavailable):
        publisher.commit()
    with pytest.raises(BrokerUnavailable, match="its commit was requested before"):
        publisher.abort()
    assert require_true(kafka, delivery) == Counter(delivery.batch.keys)


def test_answers_that_come_just_after_the_delivery_time_out_count_and_the_transaction_goes_on(
    kafka: KafkaRig, proxy: KafkaProxy, opened: Open, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("core.kafka.aiokafka.LATE_ANSWERS_S", 30.0)
    topic = kafka.create_topic(partitions=1)
    publisher = opened(proxy.address, f"tx-{topic}", request_timeout_ms=30_000, delivery_timeout_ms=2000)
    publisher.begin()
    may_answer = threading.Event()
    proxy.answer = once(lambda exchange: exchange.answer if may_answer.wait(30) else "cut")
    late = Delivery.of(batch_of(topic, 50))
    publisher.publish(late)
    while not proxy.requests[PRODUCE]:
        time.sleep(0.01)
    time.sleep(2.1)
    threading.Timer(0.3, may_answer.set).start()
    finish(publisher, late)
    second = sent(publisher, batch_of(topic, 50, 2))
    publisher.commit()
    assert late.errors == second.errors == {}
    assert require_true(kafka, late, second) == Counter([*late.batch.keys, *second.batch.keys])


# ── the end in the middle ─────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("after_ms", [0, 1, 3, 10, 30, 100])
def test_an_interrupt_in_the_middle_leaves_each_message_with_one_outcome(after_ms: int, kafka: KafkaRig, opened: Open):
    topic = kafka.create_topic()
    publisher = opened(kafka.plaintext)
    sent(publisher, batch_of(topic, 10))
    sender = Sender(publisher, max_retries=0, backoff_ms=1)
    deliveries = [Delivery.of(batch_of(topic, 2000, number)) for number in range(2, 12)]
    timer = threading.Timer(after_ms / 1000, _thread.interrupt_main)
    with interruptible(), suppress(KeyboardInterrupt):
        timer.start()
        for delivery in deliveries:
            publisher.publish(delivery)
        finish(publisher, *deliveries)
        timer.join()
        time.sleep(1)
    sender.give_up(1.0)
    begun = [delivery for delivery in deliveries if delivery.errors or delivery.acknowledged]
    require_true(kafka, *begun)
    again = sent(publisher, batch_of(topic, 10, 99))
    assert again.errors == {}


# ── sizes ─────────────────────────────────────────────────────────────────────────────────────


def test_keys_of_a_megabyte_ten_thousand_headers_and_empty_values_arrive(kafka: KafkaRig, opened: Open):
    topic = kafka.create_topic(config={"max.message.bytes": "4000000"})
    publisher = opened(kafka.plaintext, max_request_size_bytes=4_000_000, delivery_timeout_ms=60_000)
    headers = tuple((f"Größe-{number}", b"\x00\xff" * (number % 3)) for number in range(10_000))
    large = Delivery.of(batch_of(topic, 4, keys=[b"k" * 1_000_000, b"", None, b"\x00" * 1_000_000], values=[b""] * 4))
    many = Delivery.of(batch_of(topic, 3, 2, values=[b"", b"x", b""], headers=headers))
    for delivery in (large, many):
        publisher.publish(delivery)
    finish(publisher, large, many, timeout_s=60)
    assert large.errors == many.errors == {}
    assert require_true(kafka, large, many)
    there = {message.key(): message for message in kafka.read(topic)}
    for index, key in enumerate(many.batch.keys):
        assert there[key].headers() == [("message_id", many.batch.message_ids[index]), *headers]


def test_the_largest_message_that_the_client_takes_is_one_that_the_broker_takes(kafka: KafkaRig, opened: Open):
    """With the defaults of both, whose limits are 12 bytes apart."""
    topic = kafka.create_topic(partitions=1)
    publisher = opened(kafka.plaintext, compression_type="none", delivery_timeout_ms=60_000)
    sizes = range(publisher.cluster.max_request_size_bytes - 140, publisher.cluster.max_request_size_bytes - 100)
    delivery = sent(publisher, batch_of(topic, len(sizes), keys=[b"k"] * len(sizes), values=[b"x" * n for n in sizes]))
    require_true(kafka, delivery)
    taken = [index not in delivery.errors for index in range(len(sizes))]
    assert taken == sorted(taken, reverse=True), "a larger one was taken"
    assert set(taken) == {True, False}
    assert all("KAFKA_MAX_REQUEST_SIZE is 1,048,576" in error.text for error in delivery.errors.values())


@pytest.mark.parametrize("batch_size", [1, 2_000, 1_000_000], ids=["each", "some", "none"])
def test_messages_that_fill_a_record_batch_by_themselves_arrive_as_those_that_wait_for_others(
    batch_size: int, kafka: KafkaRig, opened: Open, monkeypatch: pytest.MonkeyPatch
):
    filled: list[int] = []
    encode = core.kafka.aiokafka.encoded

    def noting(messages: Any, *others: Any, **more: Any) -> Any:
        filled.append(sum(len(some.indexes) for some in messages))
        return encode(messages, *others, **more)

    monkeypatch.setattr(core.kafka.aiokafka, "encoded", noting)
    topic = kafka.create_topic(partitions=3)
    sender = sender_of(opened(kafka.plaintext, batch_size_bytes=batch_size))
    sizes = (5, 60, 5)  # some 20 messages of 250 bytes a partition are more than 2,000 bytes, 5 are not
    deliveries = [
        sender.submit(batch_of(topic, count, number, values=[b"v" * 200] * count)) for number, count in enumerate(sizes)
    ]
    sender.drain(60)
    assert require_true(kafka, *deliveries).total() == sum(sizes)
    assert sum(filled) == {1: 70, 2_000: 60, 1_000_000: 0}[batch_size]


def test_a_time_that_no_record_can_have_is_the_error_of_its_messages_and_not_of_the_caller(
    kafka: KafkaRig, opened: Open
):
    topic = kafka.create_topic(partitions=1)
    sender = sender_of(opened(kafka.plaintext, batch_size_bytes=1), max_retries=0)
    delivery = sender.submit(replace(batch_of(topic, 2), timestamps_ms=[0, 2**63]))
    sender.drain(60)
    assert set(delivery.errors) == {0, 1}
    assert "64 bits" in delivery.errors[0].text
    after = sender.submit(batch_of(topic, 2))
    sender.drain(60)
    assert require_true(kafka, after).total() == 2
