"""One contract, four publishers: what `core.model.publisher.Publisher` promises holds for each of them.

aiokafka, confluent-kafka and kafka-python-ng work against a real broker; memory keeps its own topics.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AclOperation

from core.errors import (
    BatchRefused,
    BatchTooLarge,
    BrokerUnavailable,
    ConfigError,
    DeliveryTimeout,
    MessageRefused,
    MessageTooLarge,
    PsttError,
    RetriesExhausted,
    TopicMissing,
)
from core.kafka import open_publisher
from core.kafka.clients import CLIENTS
from core.kafka.confluent import ConfluentPublisher
from core.kafka.memory import MemoryPublisher, MemoryRecord
from core.kafka.sender import Sender
from core.model.connection import Cluster, Secret
from core.model.publisher import NO_TIME, Batch, Delivery, LogSpan, Publisher, TopicInfo
from tests.rigs.kafka import KafkaRig, KafkaTopics, PlainKafkaRig
from tests.rigs.sweeps import sweep

REAL = ("aiokafka", "confluent", "kafka-python-ng")

# Java's own hashes. Source: UtilsTest.testMurmur2 of Apache Kafka.
JAVA_MURMUR2 = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}


def cluster_of(client: str, servers: str, **changes: Any) -> Cluster:
    facts: dict[str, Any] = {"client": client, "enable_idempotence": CLIENTS[client].is_idempotent, "linger_ms": 2}
    return Cluster("contract", servers, **facts | changes)


# ── the three worlds ──────────────────────────────────────────────────────────────────────────


class Memory:
    """Topics in this process, each with three partitions."""

    def __init__(self) -> None:
        self.topics: dict[str, int | None] = {}
        self.compacted = False
        self.opened: list[MemoryPublisher] = []

    def topic(self, max_message_bytes: int | None = None, *, compacted: bool = False) -> str:
        self.compacted = self.compacted or compacted
        name = f"t-{len(self.topics)}"
        self.topics[name] = max_message_bytes
        return name

    def open(self, *, max_in_flight: int = 5000, max_request_size_bytes: int = 1_048_576, **_: Any) -> Publisher:
        limits = [limit for limit in self.topics.values() if limit]
        self.opened.append(
            MemoryPublisher(
                partitions=3,
                delay_s=0.001,
                topics_made=self.topics,
                max_in_flight=max_in_flight,
                max_request_size_bytes=max_request_size_bytes,
                max_record_batch_bytes=limits[-1] if limits else None,
                refuse=_without_key if self.compacted else None,
            )
        )
        return self.opened[-1]

    def read(self, topic: str) -> list[MemoryRecord]:
        return sorted(
            (record for publisher in self.opened for record in publisher.records.get(topic, [])),
            key=lambda record: (record.partition, record.offset),
        )


def _without_key(key: bytes | None, _value: bytes) -> MessageRefused | None:
    if key is not None:
        return None
    return MessageRefused("a message without a key", why="cleanup.policy=compact", remedy="set message_key_field")


class Real:
    """One client over a real broker."""

    def __init__(self, client: str, broker: KafkaTopics) -> None:
        self.client = client
        self.broker = broker
        self.opened: list[Publisher] = []

    def topic(self, max_message_bytes: int | None = None, *, compacted: bool = False) -> str:
        config = {"max.message.bytes": str(max_message_bytes)} if max_message_bytes else {}
        return self.broker.create_topic(config=config | ({"cleanup.policy": "compact"} if compacted else {}))

    def open(self, *, max_in_flight: int = 5000, **changes: Any) -> Publisher:
        cluster = cluster_of(self.client, self.broker.plaintext, **changes)
        self.opened.append(open_publisher(cluster, max_in_flight=max_in_flight))
        return self.opened[-1]

    def read(self, topic: str) -> list[MemoryRecord]:
        return [
            MemoryRecord(
                m.partition(),
                m.offset(),
                m.key(),
                m.value(),
                tuple(m.headers() or ()),
                m.timestamp()[1],  # type: ignore[arg-type]
            )
            for m in self.broker.read(topic)
        ]


World = Memory | Real


@pytest.fixture(params=["memory", *REAL])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    made: World = Memory() if request.param == "memory" else Real(request.param, request.getfixturevalue("kafka"))
    yield made
    for publisher in made.opened:
        publisher.close(1.0)


@dataclass
class Outage:
    """A broker that a test may stop, and a client of it."""

    broker: KafkaRig
    world: Real


@pytest.fixture(scope="module")
def falling() -> Iterator[KafkaRig]:
    """A broker that each test leaves running again; for 2 s a killed one counts as alive, and cannot register again."""
    with PlainKafkaRig(properties={"broker.session.timeout.ms": "2000"}) as rig:
        yield rig


@pytest.fixture(params=REAL)
def outage(request: pytest.FixtureRequest, falling: KafkaRig) -> Iterator[Outage]:
    if not falling.is_running:
        falling.start()
    world = Real(request.param, falling)
    yield Outage(falling, world)
    for publisher in world.opened:
        publisher.close(0.0)


def batch_of(
    topic: str,
    count: int,
    number: int = 1,
    *,
    keys: Sequence[bytes | None] | None = None,
    values: Sequence[bytes] | None = None,
    headers: tuple[tuple[str, bytes], ...] = (),
) -> Batch:
    return Batch(
        number,
        topic,
        list(keys) if keys is not None else [b"%d-%d" % (number, i) for i in range(count)],
        list(values) if values is not None else [b'{"n":%d,"i":%d}' % (number, i) for i in range(count)],
        [b"%032x" % (number * 1_000_000 + i) for i in range(count)],
        range(1, count + 1),
        headers,
    )


def finish(publisher: Publisher, *deliveries: Delivery, timeout_s: float = 40) -> None:
    deadline = time.monotonic() + timeout_s
    while any(delivery.pending for delivery in deliveries):
        assert time.monotonic() < deadline, f"{publisher.in_flight} messages never reported"
        publisher.poll(0.1)


def sent(publisher: Publisher, batch: Batch) -> Delivery:
    delivery = Delivery.of(batch)
    publisher.publish(delivery)
    finish(publisher, delivery)
    return delivery


def sender_of(publisher: Publisher, max_retries: int = 3) -> Sender:
    return Sender(publisher, max_retries=max_retries, backoff_ms=100)


def require_accounted(delivery: Delivery) -> None:
    """Checks that each message is either acknowledged or has an error."""
    assert delivery.pending == 0
    for index, partition in enumerate(delivery.partitions):
        assert (partition != -1) is (index not in delivery.errors)


# ── what is acknowledged stands on the topic ──────────────────────────────────────────────────


def test_acknowledged_messages_stand_where_the_delivery_says_with_key_bytes_and_headers(world: World):
    topic = world.topic()
    publisher = world.open()
    headers = (("run_id", b"r-1"), ("job", "Übergabe".encode()), ("trace", b"\x00\xff"))
    values = [bytes([i % 256]) * (i + 1) for i in range(300)]
    before_us = time.time_ns() // 1000
    deliveries = [sent(publisher, batch_of(topic, 300, number, values=values, headers=headers)) for number in (1, 2)]
    there = {(record.partition, record.offset): record for record in world.read(topic)}
    assert len(there) == 600
    for delivery in deliveries:
        batch = delivery.batch
        assert delivery.errors == {}
        assert delivery.acknowledged == 300
        assert set(delivery.attempts) == {1}
        assert all(0 < latency_ms < 60_000 for latency_ms in delivery.latencies_ms)
        assert all(before_us <= at_us <= time.time_ns() // 1000 for at_us in delivery.sent_at_us)
        for index in range(300):
            record = there[delivery.partitions[index], delivery.offsets[index]]
            assert (record.key, record.value) == (batch.keys[index], batch.values[index])
            assert record.headers == (("message_id", batch.message_ids[index]), *headers)


def test_order_is_kept_on_each_partition(world: World):
    topic = world.topic()
    publisher = world.open()
    deliveries = [Delivery.of(batch_of(topic, 100, number)) for number in range(1, 21)]
    for delivery in deliveries:
        publisher.publish(delivery)
    finish(publisher, *deliveries)
    handed_over: dict[int, list[bytes | None]] = defaultdict(list)
    for delivery in deliveries:
        for index, partition in enumerate(delivery.partitions):
            handed_over[partition].append(delivery.batch.keys[index])
    found: dict[int, list[bytes | None]] = defaultdict(list)
    for record in world.read(topic):
        found[record.partition].append(record.key)
    assert found == handed_over
    assert len(found) == 3


def test_null_keys_and_empty_values_arrive_as_they_are(world: World):
    topic = world.topic()
    keys: list[bytes | None] = [None, b"", b"\x00", b"k", None]
    delivery = sent(world.open(), batch_of(topic, 5, keys=keys, values=[b"a", b"b", b"", b"\x00", b"e"]))
    assert delivery.errors == {}
    found = Counter((record.key, record.value) for record in world.read(topic))
    assert found == Counter({(None, b"a"): 1, (b"", b"b"): 1, (b"\x00", b""): 1, (b"k", b"\x00"): 1, (None, b"e"): 1})


def test_only_the_messages_that_are_named_are_handed_over(world: World):
    topic = world.topic()
    publisher = world.open()
    delivery = Delivery.of(batch_of(topic, 5))
    delivery.errors[3] = DeliveryTimeout("an earlier try")
    delivery.attempts[3] = 1
    publisher.publish(delivery, [1, 3])
    assert 3 not in delivery.errors, "a new try removes the error of the last one"
    finish(publisher, delivery)
    assert list(delivery.attempts) == [0, 1, 0, 2, 0]
    assert [partition != -1 for partition in delivery.partitions] == [False, True, False, True, False]
    assert {record.key for record in world.read(topic)} == {b"1-1", b"1-3"}
    publisher.publish(delivery, [])
    assert delivery.pending == 0


def test_a_key_is_always_on_the_same_partition(world: World):
    topic = world.topic()
    publisher = world.open()
    keys = [b"%d" % (5_726_800 + number) for number in range(200)]
    first, second = (sent(publisher, batch_of(topic, 200, number, keys=keys)) for number in (1, 2))
    assert first.partitions == second.partitions
    assert len(set(first.partitions)) == 3


@pytest.mark.parametrize("client", REAL)
@pytest.mark.parametrize("partitions", [1, 7, 12])
def test_a_key_is_where_java_would_place_it(client: str, partitions: int, kafka: KafkaRig):
    topic = kafka.create_topic(partitions=partitions)
    publisher = Real(client, kafka).open()
    delivery = sent(publisher, batch_of(topic, len(JAVA_MURMUR2), keys=list(JAVA_MURMUR2)))
    publisher.close()
    assert list(delivery.partitions) == [(hash_ & 0x7FFFFFFF) % partitions for hash_ in JAVA_MURMUR2.values()]


def test_all_clients_place_each_key_alike(kafka: KafkaRig):
    topic = kafka.create_topic(partitions=12)
    keys = [b"%012d" % (number * 7919) for number in range(1000)] + [b"", b"\x00", "Übergabe".encode(), b"\xff" * 300]
    placed = []
    for client in REAL:
        publisher = Real(client, kafka).open()
        placed.append(list(sent(publisher, batch_of(topic, len(keys), keys=keys)).partitions))
        publisher.close()
    assert placed[0] == placed[1] == placed[2]
    assert len(set(placed[0])) == 12


def test_each_message_has_its_own_headers_its_time_and_its_partition(world: World):
    topic = world.topic()
    publisher = world.open()
    count, hour_ms = 300, 3_600_000
    now_ms = time.time_ns() // 1_000_000
    offices = [None if i % 7 == 0 else b"office-%d" % (i % 50) for i in range(count)]
    times = [NO_TIME if i % 5 == 0 else now_ms - (i % 10) * hour_ms - 1 for i in range(count)]
    batch = replace(
        batch_of(topic, count, headers=(("job", b"j"),)),
        header_columns=(("office", offices), ("row", [b"%d" % i for i in range(count)])),
        timestamps_ms=times,
        partitions=[i % 2 for i in range(count)],
    )
    delivery = sent(publisher, batch)
    assert delivery.errors == {}
    assert list(delivery.partitions) == batch.partitions
    there = {(record.partition, record.offset): record for record in world.read(topic)}
    assert len(there) == count
    for index in range(count):
        record = there[delivery.partitions[index], delivery.offsets[index]]
        assert (record.key, record.value) == (batch.keys[index], batch.values[index])
        own = [] if offices[index] is None else [("office", offices[index])]
        named = [("message_id", batch.message_ids[index]), ("job", b"j"), *own, ("row", b"%d" % index)]
        assert list(record.headers) == named
        if times[index] == NO_TIME:
            assert now_ms <= record.timestamp_ms <= now_ms + 60_000
        else:
            assert record.timestamp_ms == times[index]


def test_batches_with_other_headers_are_not_mixed_up(world: World):
    topic = world.topic()
    publisher = world.open()
    plain = batch_of(topic, 5, 1)
    named = replace(batch_of(topic, 5, 2), header_columns=(("a", [b"1"] * 5),))
    other = replace(
        batch_of(topic, 5, 3),
        header_columns=(("b", [b"2"] * 5),),
        timestamps_ms=[time.time_ns() // 1_000_000 - 5_000] * 5,
    )
    deliveries = [Delivery.of(replace(batch, partitions=[0] * 5)) for batch in (plain, named, other)]
    for delivery in deliveries:
        publisher.publish(delivery)
    finish(publisher, *deliveries)
    found = [[header for header in record.headers if header[0] != "message_id"] for record in world.read(topic)]
    assert found == [[]] * 5 + [[("a", b"1")]] * 5 + [[("b", b"2")]] * 5


# ── sizes ─────────────────────────────────────────────────────────────────────────────────────


def test_a_message_over_the_clients_limit_fails_alone_and_at_once(world: World):
    topic = world.topic()
    publisher = world.open(max_request_size_bytes=20_000)
    values = [b"small"] * 10
    values[4] = b"x" * 30_000
    delivery = Delivery.of(batch_of(topic, 10, values=values))
    publisher.publish(delivery)
    assert type(delivery.errors[4]) is MessageTooLarge, "before anything was waited for"
    assert "30,003 bytes" in str(delivery.errors[4])
    assert "KAFKA_MAX_REQUEST_SIZE is 20,000" in str(delivery.errors[4])
    finish(publisher, delivery)
    assert list(delivery.errors) == [4]
    assert delivery.acknowledged == len(world.read(topic)) == 9
    require_accounted(delivery)


def test_a_message_over_the_brokers_limit_alone_fails_alone_and_the_others_arrive_once(world: World):
    topic = world.topic(max_message_bytes=10_000)
    publisher = world.open(compression_type="none")
    sender = sender_of(publisher)
    batches = [batch_of(topic, 60, number) for number in (1, 2, 3)]
    batches[1].values[17] = b"x" * 15_000
    deliveries = [sender.submit(batch) for batch in batches]
    sender.drain(60)
    assert deliveries[0].errors == deliveries[2].errors == {}
    assert list(deliveries[1].errors) == [17]
    error = deliveries[1].errors[17]
    assert type(error) is MessageTooLarge
    assert not error.is_retriable
    for delivery in deliveries:
        require_accounted(delivery)
    found = Counter(record.key for record in world.read(topic))
    wanted = {key for batch in batches for key in batch.keys} - {b"2-17"}
    assert found == Counter(wanted)


def test_messages_that_are_too_large_only_together_all_arrive_once(world: World):
    topic = world.topic(max_message_bytes=10_000)
    sender = sender_of(world.open(compression_type="none", batch_size_bytes=100_000))
    delivery = sender.submit(batch_of(topic, 40, values=[b"x" * 2000] * 40))
    sender.drain(60)
    assert delivery.errors == {}
    assert Counter(record.key for record in world.read(topic)) == Counter(delivery.batch.keys)


def test_the_broker_refuses_a_record_batch_as_a_whole_and_may_take_its_messages_alone(world: World):
    topic = world.topic(max_message_bytes=10_000)
    publisher = world.open(compression_type="none", batch_size_bytes=100_000, linger_ms=200)
    delivery = sent(publisher, batch_of(topic, 12, keys=[b"same"] * 12, values=[b"x" * 2000] * 12))
    assert len(delivery.errors) >= 6
    for error in delivery.errors.values():
        assert type(error) is BatchTooLarge
        assert error.is_retriable
        assert f'topic "{topic}"' in str(error)


def restricted(client: str, kafka: KafkaRig, topic: str) -> Publisher:
    """A client whose account may write to the topic and may not ask for its settings."""
    kafka.allow(kafka.limited_username, topic, AclOperation.WRITE, AclOperation.DESCRIBE)
    cluster = cluster_of(
        client,
        kafka.sasl_plaintext,
        security_protocol="SASL_PLAINTEXT",
        sasl_mechanism="PLAIN",
        sasl_username=kafka.limited_username,
        sasl_password=Secret(kafka.limited_password),
        compression_type="none",
    )
    return open_publisher(cluster)


@pytest.mark.parametrize("limit", sweep([10_000, 1_500], always=[1_500]))
@pytest.mark.parametrize("may_ask", [True, False])
@pytest.mark.parametrize("client", REAL)
def test_record_batches_are_below_the_topics_limit_once_it_refused_one(
    client: str, may_ask: bool, limit: int, kafka: KafkaRig
):
    topic = kafka.create_topic(partitions=1, config={"max.message.bytes": str(limit)})
    publisher = Real(client, kafka).open(compression_type="none") if may_ask else restricted(client, kafka, topic)
    sender = sender_of(publisher)
    values = [os.urandom(250).hex().encode()] * 200
    deliveries = []
    for number in range(1, 9):
        deliveries.append(sender.submit(batch_of(topic, 200, number, values=values)))
        sender.drain(60)
    publisher.close()
    assert [delivery.errors for delivery in deliveries] == [{}] * 8
    assert max(deliveries[0].attempts) == 2, "the first one is refused"
    assert set(deliveries[-1].attempts) == {1}, "the last one is not"
    if may_ask:
        assert all(set(delivery.attempts) == {1} for delivery in deliveries[1:])
    found = Counter(record.key() for record in kafka.read(topic))
    assert found == Counter(key for delivery in deliveries for key in delivery.batch.keys)


# ── records that the broker does not take ─────────────────────────────────────────────────────


def test_a_record_without_a_key_on_a_compacted_topic_fails_alone_and_the_others_arrive_once(world: World):
    topic = world.topic(compacted=True)
    sender = sender_of(world.open())
    batches = [batch_of(topic, 60, number) for number in (1, 2, 3)]
    batches[1].keys[17] = batches[1].keys[40] = None
    deliveries = [sender.submit(batch) for batch in batches]
    sender.drain(60)
    assert deliveries[0].errors == deliveries[2].errors == {}
    assert sorted(deliveries[1].errors) == [17, 40]
    for error in deliveries[1].errors.values():
        assert type(error) is MessageRefused
        assert not error.is_retriable
        assert "without a key" in error.what
        assert "cleanup.policy=compact" in error.why
        assert "message_key_field" in error.remedy
    for delivery in deliveries:
        require_accounted(delivery)
        assert max(delivery.attempts) <= 2
    found = Counter(record.key for record in world.read(topic))
    assert found == Counter(key for batch in batches for key in batch.keys if key is not None)


@pytest.mark.parametrize("client", REAL)
def test_where_the_settings_may_not_be_asked_for_the_reason_names_them_all_the_same(client: str, kafka: KafkaRig):
    topic = kafka.create_topic(config={"cleanup.policy": "compact"})
    publisher = restricted(client, kafka, topic)
    sender = sender_of(publisher)
    delivery = sender.submit(batch_of(topic, 40, keys=[None] * 20 + [b"k"] * 20))
    sender.drain(60)
    publisher.close()
    assert sorted(delivery.errors) == list(range(20))
    for error in delivery.errors.values():
        assert "it has no key, which a compacted topic (cleanup.policy=compact) does not take" in str(error)
        assert "message_key_field" in error.remedy
    assert len(kafka.read(topic)) == 20


@pytest.mark.parametrize("client", REAL)
def test_a_record_whose_time_is_refused_names_the_limits_of_the_topic_and_the_clock(client: str, kafka: KafkaRig):
    topic = kafka.create_topic(config={"message.timestamp.before.max.ms": "0"})
    publisher = Real(client, kafka).open()
    sender = sender_of(publisher)
    for number in range(1, 1000):  # a record that arrives in the millisecond of its timestamp is accepted
        delivery = sender.submit(batch_of(topic, 100, number))
        sender.drain(60)
        require_accounted(delivery)
        if delivery.errors:
            break
    publisher.close()
    for error in delivery.errors.values():
        assert type(error) is MessageRefused
        assert "message.timestamp.before.max.ms=0" in error.why
        assert "this machine's clock" in error.remedy


@pytest.mark.parametrize("client", REAL)
def test_a_record_batch_with_a_record_that_is_not_taken_is_refused_as_a_whole(client: str, kafka: KafkaRig):
    topic = kafka.create_topic(partitions=1, config={"cleanup.policy": "compact"})
    publisher = Real(client, kafka).open(linger_ms=200)
    delivery = sent(publisher, batch_of(topic, 10, keys=[b"k"] * 9 + [None]))
    publisher.close()
    assert len(delivery.errors) == 10
    assert {type(error) for error in delivery.errors.values()} == {BatchRefused}
    assert all(error.is_retriable for error in delivery.errors.values())


# ── the flow ──────────────────────────────────────────────────────────────────────────────────


class Watching:
    """Reads `in_flight` repeatedly while the publisher works."""

    def __init__(self, publisher: Publisher) -> None:
        self.publisher = publisher
        self.most = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def _look(self) -> None:
        while not self._done.wait(0.0002):
            self.most = max(self.most, self.publisher.in_flight)

    def __enter__(self) -> Watching:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()


def test_never_more_than_max_in_flight_are_under_way_and_a_full_client_waits(world: World):
    topic = world.topic()
    publisher = world.open(max_in_flight=50)
    sender = sender_of(publisher)
    with Watching(publisher) as watching:
        deliveries = [sender.submit(batch_of(topic, 120, number)) for number in range(1, 26)]
        sender.drain(60)
    assert 0 < watching.most <= 50
    assert publisher.in_flight == 0
    assert all(delivery.acknowledged == 120 for delivery in deliveries)
    assert Counter(record.key for record in world.read(topic)) == Counter(
        key for delivery in deliveries for key in delivery.batch.keys
    )


def test_a_single_message_may_be_under_way_at_a_time(world: World):
    topic = world.topic()
    delivery = sent(world.open(max_in_flight=1, linger_ms=0), batch_of(topic, 20))
    assert delivery.acknowledged == 20
    assert len(world.read(topic)) == 20


def test_poll_waits_no_longer_than_it_is_told_and_tells_how_many_reports_it_served(world: World):
    topic = world.topic()
    publisher = world.open()
    started = time.monotonic()
    assert publisher.poll(0.2) == 0
    assert publisher.poll(0) == 0
    assert time.monotonic() - started < 2
    delivery = Delivery.of(batch_of(topic, 10))
    publisher.publish(delivery)
    served = 10 - delivery.pending
    while delivery.pending:
        served += publisher.poll(5.0)
    assert served == 10
    assert publisher.in_flight == 0


def test_a_full_queue_of_librdkafka_waits_with_the_message_in_hand(kafka: KafkaRig):
    full: list[int] = []

    class Counting(Producer):
        def produce(self, *args: Any, **options: Any) -> None:
            try:
                super().produce(*args, **options)
            except BufferError:
                full.append(1)
                raise

    def narrow(config: dict[str, Any], **options: Any) -> Producer:
        return Counting(config | {"queue.buffering.max.messages": 50}, **options)

    topic = kafka.create_topic(partitions=1)
    publisher = ConfluentPublisher(cluster_of("confluent", kafka.plaintext), producer=narrow)
    delivery = sent(publisher, batch_of(topic, 2000))
    publisher.close()
    assert full, "the queue was never full"
    assert delivery.errors == {}
    assert [message.key() for message in kafka.read(topic)] == delivery.batch.keys


@pytest.mark.parametrize("client", REAL)
def test_more_bytes_than_the_client_may_hold_all_arrive(client: str, kafka: KafkaRig):
    topic = kafka.create_topic()
    publisher = Real(client, kafka).open()
    count = 900  # of 90 kB: 81 MB, where librdkafka holds 64 MB and kafka-python-ng 32 MB
    delivery = sent(publisher, batch_of(topic, count, values=[b"parcel " * 13_000] * count))
    publisher.close()
    assert delivery.errors == {}
    assert kafka.count(topic) == count


# ── the cluster ───────────────────────────────────────────────────────────────────────────────


def test_topics_and_brokers_are_those_of_the_cluster(world: World):
    topic = world.topic()
    publisher = world.open()
    topics = publisher.topics()
    assert TopicInfo(topic, 3, 1) in topics
    assert [info.name for info in topics] == sorted(info.name for info in topics)
    assert not [info.name for info in topics if info.name.startswith("__")]
    servers = world.broker.plaintext if isinstance(world, Real) else "memory:0"
    assert publisher.brokers() == [servers]
    publisher.require_topic(topic)


def test_a_topic_that_is_not_there_and_will_not_be_made_is_told_so(world: World):
    publisher = world.open()
    with pytest.raises(TopicMissing, match=r'topic "t-missing" does not exist.*have it created') as raised:
        publisher.require_topic("t-missing", 5.0)
    assert not raised.value.is_retriable
    assert "t-missing" not in [info.name for info in publisher.topics()]


def test_a_topic_is_made_on_first_use_where_the_cluster_makes_topics(own_kafka: Callable[..., KafkaRig]):
    broker = own_kafka(auto_create=True)
    for client in REAL:
        publisher = Real(client, broker).open()
        publisher.require_topic(f"made-{client}")
        assert sent(publisher, batch_of(f"made-{client}", 3)).errors == {}
        assert sent(publisher, batch_of(f"made-without-asking-{client}", 3)).errors == {}
        publisher.close()
        assert broker.count(f"made-{client}") == broker.count(f"made-without-asking-{client}") == 3


# ── what a topic is ───────────────────────────────────────────────────────────────────────────


def test_a_topic_is_described_by_its_offsets_and_where_it_is(world: World):
    topic = world.topic()
    publisher = world.open()
    delivery = sent(publisher, batch_of(topic, 30))
    ends = {number: delivery.partitions.tolist().count(number) for number in range(3)}
    state = publisher.describe(topic)
    assert state.partitions == {number: LogSpan(0, end) for number, end in ends.items()}
    assert (state.topic, bool(state.cluster_id)) == (topic, True)
    servers = world.broker.plaintext if isinstance(world, Real) else "memory:0"
    assert state.bootstrap_servers == servers
    assert bool(state.topic_id) is (not isinstance(world, Real) or world.client != "kafka-python-ng")
    assert publisher.describe(topic) == state, "asking changes nothing"


def test_a_missing_topic_has_no_partitions_and_is_not_made_by_the_question(
    own_kafka: Callable[..., KafkaRig],
):
    broker = own_kafka(auto_create=True)
    for client in REAL:
        publisher = Real(client, broker).open()
        state = publisher.describe(f"never-made-{client}")
        assert (state.partitions, state.topic_id) == ({}, "")
        assert state.cluster_id
        assert f"never-made-{client}" not in [info.name for info in publisher.topics()]
        publisher.close()


def test_a_topic_that_was_made_again_has_another_id_and_begins_again(kafka: KafkaRig):
    topic = kafka.create_topic()
    publisher = Real("confluent", kafka).open()
    sent(publisher, batch_of(topic, 30))
    before = publisher.describe(topic)
    kafka.delete_topic(topic)
    kafka.create_topic(topic, partitions=2)
    after = publisher.describe(topic)
    publisher.close()
    assert before.topic_id != after.topic_id
    assert before.cluster_id == after.cluster_id
    assert after.partitions == {0: LogSpan(0, 0), 1: LogSpan(0, 0)}


@pytest.mark.parametrize("client", REAL)
def test_records_that_were_deleted_move_the_earliest_offset(client: str, kafka: KafkaRig):
    topic = kafka.create_topic(partitions=1)
    publisher = Real(client, kafka).open()
    sent(publisher, batch_of(topic, 10))
    kafka.delete_records(topic)
    sent(publisher, batch_of(topic, 5, 2))
    assert publisher.describe(topic).partitions == {0: LogSpan(10, 15)}
    publisher.close()


def test_a_topic_of_mock_brokers_has_offsets_and_no_id():
    publisher = open_publisher(Cluster("described", "", mock_brokers=1, linger_ms=2))
    publisher.require_topic("demo")
    delivery = sent(publisher, batch_of("demo", 20))
    state = publisher.describe("demo")
    publisher.close()
    assert sum(span.end for span in state.partitions.values()) == delivery.acknowledged == 20
    assert (state.topic_id, bool(state.cluster_id)) == ("", True)
    assert state.bootstrap_servers.startswith("127.0.0.1:")


@pytest.mark.parametrize("client", REAL)
def test_a_topic_cannot_be_described_while_no_broker_answers(client: str):
    publisher = open_publisher(cluster_of(client, "127.0.0.1:1"))
    with pytest.raises(BrokerUnavailable, match="refused"):
        publisher.describe("t", 1.0)
    publisher.close(0.0)


# ── the end ───────────────────────────────────────────────────────────────────────────────────


def test_close_waits_for_what_is_under_way_and_may_be_called_twice(world: World):
    topic = world.topic()
    publisher = world.open()
    delivery = Delivery.of(batch_of(topic, 500))
    publisher.publish(delivery)
    publisher.close(30)
    publisher.close(30)
    assert delivery.acknowledged == 500
    require_accounted(delivery)
    assert len(world.read(topic)) == 500


def test_a_publisher_that_did_nothing_closes_at_once(world: World):
    publisher = world.open()
    started = time.monotonic()
    publisher.give_up(30)
    publisher.close(30)
    publisher.close(30)
    assert time.monotonic() - started < 5


def test_giving_up_leaves_each_message_with_a_report_or_a_time_out(world: World):
    topic = world.topic()
    publisher = world.open()
    deliveries = [Delivery.of(batch_of(topic, 400, number)) for number in (1, 2)]
    for delivery in deliveries:
        publisher.publish(delivery)
    publisher.give_up(10)
    there = {(record.partition, record.offset) for record in world.read(topic)}
    for delivery in deliveries:
        require_accounted(delivery)
        for error in delivery.errors.values():
            assert type(error) is DeliveryTimeout
        for partition, offset in zip(delivery.partitions, delivery.offsets, strict=True):
            assert partition == -1 or (partition, offset) in there
    assert publisher.in_flight == 0
    again = sent(publisher, batch_of(topic, 10, 3))
    assert again.acknowledged == 10, "the publisher works on"


@pytest.mark.parametrize("step", ["prepare_once", "read_control", "begin", "commit", "abort"])
def test_transactions_without_a_transactional_id_are_refused_with_the_reason(step: str, kafka: KafkaRig):
    for client in REAL:
        publisher: Any = Real(client, kafka).open()
        words = {"prepare_once": ("pstt-control",), "read_control": ("pstt-control", [b"k"])}.get(step, ())
        if client == "kafka-python-ng":
            with pytest.raises(ConfigError, match="no transactions"):
                getattr(publisher, step)(*words)
        elif step in ("prepare_once", "begin"):
            with pytest.raises(ConfigError, match="opened without a transactional id"):
                getattr(publisher, step)(*words)
        publisher.close(0.0)


# ── brokers that stop ─────────────────────────────────────────────────────────────────────────


def start_run(outage: Outage, topic: str, **changes: Any) -> tuple[Sender, Callable[[int], None], list[Delivery]]:
    """A sender and a way to submit batches of 100."""
    publisher = outage.world.open(request_timeout_ms=3000, retry_backoff_ms=50, **changes)
    publisher.require_topic(topic)
    # Eight further tries last 50 s: a broker starts in 3 s, and in 25 s on a busy machine.
    sender = sender_of(publisher, max_retries=8)
    deliveries: list[Delivery] = []

    def submit(count: int) -> None:
        for _ in range(count):
            deliveries.append(sender.submit(batch_of(topic, 100, len(deliveries) + 1)))

    return sender, submit, deliveries


def require_exactly(outage: Outage, topic: str, deliveries: list[Delivery]) -> None:
    """Each message once with an idempotent client, at least once with the other."""
    wanted = Counter(key for delivery in deliveries for key in delivery.batch.keys)
    records = outage.world.read(topic)
    found = Counter(record.key for record in records)
    if CLIENTS[outage.world.client].is_idempotent:
        assert found == wanted
    else:
        assert found.keys() == wanted.keys()
    there = {(record.partition, record.offset): record.key for record in records}
    for delivery in deliveries:
        require_accounted(delivery)
        for index, key in enumerate(delivery.batch.keys):
            offset = delivery.offsets[index]
            assert offset == -1 or there[delivery.partitions[index], offset] == key


@pytest.mark.always("aiokafka")
def test_a_run_goes_on_once_a_broker_that_was_killed_is_back(outage: Outage):
    topic = outage.broker.create_topic()
    sender, submit, deliveries = start_run(outage, topic, delivery_timeout_ms=60_000)
    submit(10)
    outage.broker.kill()
    threading.Timer(1.0, outage.broker.start).start()
    submit(30)
    sender.drain(90)
    submit(5)
    sender.drain(30)
    assert [delivery.errors for delivery in deliveries] == [{}] * 45
    require_exactly(outage, topic, deliveries)


@pytest.mark.skipif(os.name == "nt", reason="SIGSTOP")
def test_a_run_goes_on_once_a_broker_that_was_stuck_answers_again(outage: Outage):
    topic = outage.broker.create_topic()
    sender, submit, deliveries = start_run(outage, topic, delivery_timeout_ms=25_000)
    submit(5)
    sender.drain(30)
    outage.broker.pause()
    threading.Timer(5.0, outage.broker.resume).start()
    submit(20)
    sender.drain(60)
    assert [delivery.errors for delivery in deliveries] == [{}] * 25
    require_exactly(outage, topic, deliveries)


@pytest.mark.always("aiokafka")
def test_what_the_client_gave_up_is_tried_again_and_arrives_once_the_broker_is_back(outage: Outage):
    topic = outage.broker.create_topic()
    sender, submit, deliveries = start_run(outage, topic, delivery_timeout_ms=3000)
    submit(3)
    sender.drain(30)
    outage.broker.kill()
    threading.Timer(4.0, outage.broker.start).start()
    submit(3)
    sender.drain(90)
    assert [delivery.errors for delivery in deliveries] == [{}] * 6
    assert max(deliveries[-1].attempts) > 1, "the client never gave anything up"
    assert max(deliveries[0].attempts) == 1, "an acknowledged message was handed over again"
    assert set(Counter(record.key for record in outage.world.read(topic))) == {
        key for delivery in deliveries for key in delivery.batch.keys
    }


@pytest.mark.always("aiokafka")
def test_with_a_broker_that_stays_away_each_message_ends_with_the_cause(outage: Outage):
    topic = outage.broker.create_topic()
    sender, submit, deliveries = start_run(outage, topic, delivery_timeout_ms=1500)
    submit(2)
    sender.drain(30)
    outage.broker.kill()
    sender.max_retries = 1
    submit(3)
    sender.drain(60)
    for delivery in deliveries:
        require_accounted(delivery)
    assert [delivery.acknowledged for delivery in deliveries] == [100, 100, 0, 0, 0]
    for delivery in deliveries[2:]:
        for error in delivery.errors.values():
            require_broker_away(error, outage.broker.plaintext)
    assert sender.unfinished == 0


def require_broker_away(error: PsttError, servers: str) -> None:
    assert type(error) is RetriesExhausted
    assert type(error.__cause__) is BrokerUnavailable
    assert "connection refused" in str(error)
    assert servers in str(error)
    assert "handed over 2 times" in str(error)


@pytest.mark.skipif(os.name == "nt", reason="SIGSTOP")
def test_giving_up_while_the_broker_is_stuck_accounts_for_each_message_and_the_publisher_works_on(outage: Outage):
    topic = outage.broker.create_topic()
    sender, submit, deliveries = start_run(outage, topic, delivery_timeout_ms=25_000)
    submit(2)
    sender.drain(30)
    outage.broker.pause()
    submit(4)
    started = time.monotonic()
    given_up = sender.give_up(5.0)
    assert time.monotonic() - started < 15
    assert len(given_up) == 4
    for delivery in deliveries:
        require_accounted(delivery)
    assert {type(error) for delivery in given_up for error in delivery.errors.values()} == {DeliveryTimeout}
    outage.broker.resume()
    again = sender.submit(batch_of(topic, 50, 99))
    sender.drain(40)
    assert again.acknowledged == 50
