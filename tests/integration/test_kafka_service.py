"""The Kafka service for programs, on a real broker: many threads, wrong messages, a broker that stops."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import pytest

from core import BatchResult, KafkaService
from core.errors import ConfigError, MessageRefused, MessageTooLarge, RetriesExhausted, TopicMissing
from core.kafka.clients import CLIENTS
from core.kafka.service import SendResult
from core.model.connection import Cluster
from core.model.publisher import Delivery
from tests.rigs.kafka import KafkaRig


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def service_of(client: str) -> Iterator[Callable[..., KafkaService]]:
    """`service_of(servers, **cluster)`; closed in the end."""
    made: list[KafkaService] = []

    def make(servers: str, *, recorder: Callable[[Delivery], None] | None = None, **changes: Any) -> KafkaService:
        values: dict[str, Any] = {"client": client, "enable_idempotence": CLIENTS[client].is_idempotent, "linger_ms": 2}
        made.append(KafkaService(Cluster("library", servers, **values | changes), recorder=recorder))
        return made[-1]

    yield make
    for service in made:
        service.close(0.0)


def test_a_message_stands_where_the_result_says(kafka: KafkaRig, service_of: Callable[..., KafkaService]):
    topic = kafka.create_topic()
    with service_of(kafka.plaintext) as service:
        result = service.send_message(
            topic, "572680001120", {"barcode": "572680001120", "kg": Decimal("1.50")}, {"job": "manual"}
        )
    (message,) = kafka.read(topic)
    assert (message.topic(), message.partition(), message.offset()) == (topic, result.partition, result.offset)
    assert message.key() == b"572680001120"
    assert message.value() == b'{"barcode":"572680001120","kg":1.50}'
    assert message.headers() == [("message_id", result.message_id.encode()), ("job", b"manual")]
    assert len(result.message_id) == 32
    assert result.latency_ms > 0


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        (None, "Übergabe", (None, "Übergabe".encode())),
        (b"\x00\xff", b"\xfe", (b"\x00\xff", b"\xfe")),
        ("k", bytearray(b"raw"), (b"k", b"raw")),
        ("k", [1, None, "x"], (b"k", b'[1,null,"x"]')),
        ("", "", (b"", b"")),
    ],
)
def test_keys_and_values_are_sent_as_they_are(
    key: Any, value: Any, expected: tuple[bytes | None, bytes], kafka: KafkaRig, service_of: Callable[..., KafkaService]
):
    topic = kafka.create_topic()
    service_of(kafka.plaintext).send_message(topic, key, value)
    (message,) = kafka.read(topic)
    assert (message.key(), message.value()) == expected


@pytest.mark.always("aiokafka")
def test_eight_threads_with_500_messages_each_are_acknowledged_once(
    kafka: KafkaRig, service_of: Callable[..., KafkaService]
):
    topic = kafka.create_topic()
    recorded: list[Delivery] = []
    service = service_of(kafka.plaintext, recorder=recorded.append)
    places: list[tuple[int, int]] = []
    failures: list[BaseException] = []

    def send(thread: int) -> None:
        try:
            for number in range(500):
                result = service.send_message(topic, f"{thread}-{number}", {"n": number})
                places.append((result.partition, result.offset))
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=send, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert failures == []
    assert not any(thread.is_alive() for thread in threads)
    records = kafka.read(topic)
    assert Counter(message.key() for message in records) == Counter(
        f"{thread}-{number}".encode() for thread in range(8) for number in range(500)
    )
    assert sorted(places) == sorted((message.partition(), message.offset()) for message in records)
    assert len({delivery.batch.message_ids[0] for delivery in recorded}) == 4000
    metrics = service.get_metrics()
    assert (metrics.total_sent, metrics.failed, metrics.success_rate) == (4000, 0, 1.0)
    assert metrics.topics[topic].messages == 4000
    assert metrics.topics[topic].bytes == sum(len(m.key() or b"") + len(m.value() or b"") for m in records)


def test_figures_and_health_are_told_while_others_send(kafka: KafkaRig, service_of: Callable[..., KafkaService]):
    topic = kafka.create_topic()
    service = service_of(kafka.plaintext)
    done = threading.Event()

    def send() -> None:
        while not done.is_set():
            service.send_batch(topic, [(str(number), "v") for number in range(200)])

    threads = [threading.Thread(target=send) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(5):
            health = service.health_check()
            assert health.connected, health.error
            service.get_metrics()
    finally:
        done.set()
        for thread in threads:
            thread.join(60)
    assert service.get_metrics().total_sent == kafka.count(topic)


def test_a_batch_tells_each_failure_by_its_place(kafka: KafkaRig, service_of: Callable[..., KafkaService]):
    topic = kafka.create_topic()
    service = service_of(kafka.plaintext, max_request_size_bytes=10_000)
    messages: list[tuple[str, str]] = [(f"k{number}", "v") for number in range(50)]
    messages[7] = ("k7", "x" * 20_000)
    messages[30] = ("k30", "x" * 30_000)
    result = service.send_batch(topic, messages)
    assert isinstance(result, BatchResult)
    assert (result.total, result.succeeded, result.failed) == (50, 48, 2)
    assert list(result.errors) == [7, 30]
    assert "20,002 bytes" in result.errors[7]
    assert "KAFKA_MAX_REQUEST_SIZE is 10,000" in result.errors[30]
    assert {message.key() for message in kafka.read(topic)} == {
        f"k{number}".encode() for number in range(50) if number not in (7, 30)
    }
    metrics = service.get_metrics()
    assert (metrics.total_sent, metrics.failed, metrics.success_rate) == (48, 2, 0.96)
    assert [error.error for error in metrics.recent_errors] == ["MessageTooLarge", "MessageTooLarge"]
    with pytest.raises(MessageTooLarge):
        service.send_message(topic, "k", "x" * 20_000)


def test_a_message_without_a_key_on_a_compacted_topic_is_refused_alone_and_the_setting_named(
    kafka: KafkaRig, service_of: Callable[..., KafkaService]
):
    topic = kafka.create_topic(config={"cleanup.policy": "compact"})
    service = service_of(kafka.plaintext)
    messages: list[tuple[str | None, str]] = [(f"k{number}", "v") for number in range(50)]
    messages[7] = messages[30] = (None, "v")
    result = service.send_batch(topic, messages)
    assert (result.succeeded, list(result.errors)) == (48, [7, 30])
    for text in result.errors.values():
        assert "it has no key, and the topic is compacted (cleanup.policy=compact)" in text
        assert "message_key_field" in text
    with pytest.raises(MessageRefused, match="without a key"):
        service.send_message(topic, None, "v")
    assert service.send_message(topic, "k", "v").offset >= 0
    assert len(kafka.read(topic)) == 49


def test_20000_messages_at_once_and_none_at_all(kafka: KafkaRig, service_of: Callable[..., KafkaService]):
    topic = kafka.create_topic()
    service = service_of(kafka.plaintext)
    assert service.send_batch(topic, []) == BatchResult(0, 0, 0, {})
    result = service.send_batch(topic, ((str(number), {"n": number}) for number in range(20_000)))
    assert (result.total, result.succeeded, result.errors) == (20_000, 20_000, {})
    values = Counter(json.loads(message.value() or b"")["n"] for message in kafka.read(topic))
    assert values == Counter(range(20_000))
    metrics = service.get_metrics()
    percentiles = [metrics.latency_p50_ms, metrics.latency_p90_ms, metrics.latency_p99_ms]
    assert None not in percentiles
    assert percentiles == sorted(percentiles)  # type: ignore[type-var]


def test_a_missing_topic_is_told_to_the_caller_and_the_service_works_on(
    kafka: KafkaRig, service_of: Callable[..., KafkaService]
):
    topic = kafka.create_topic()
    service = service_of(kafka.plaintext, delivery_timeout_ms=4000, request_timeout_ms=4000)
    with pytest.raises(TopicMissing, match="no-such-topic"):
        service.send_message("no-such-topic", "k", "v")
    assert service.send_message(topic, "k", "v").offset == 0
    (error,) = service.get_metrics().recent_errors
    assert (error.topic, error.error) == ("no-such-topic", "TopicMissing")


def test_health_names_the_brokers_or_the_cause(kafka: KafkaRig, service_of: Callable[..., KafkaService]):
    health = service_of(kafka.plaintext).health_check()
    assert health.connected
    assert health.brokers == (kafka.plaintext,)
    assert health.latency_ms is not None
    assert health.latency_ms > 0
    away = service_of("127.0.0.1:1").health_check(timeout_s=1.0)
    assert not away.connected
    assert away.brokers == ()
    assert "127.0.0.1:1" in (away.error or "")


def test_a_broker_that_goes_away_and_comes_back(own_kafka: Callable[..., KafkaRig]):
    broker = own_kafka()
    services = {client: quick_service(client, broker) for client in CLIENTS}
    topics = {client: broker.create_topic() for client in CLIENTS}
    for client, service in services.items():
        service.send_message(topics[client], "before", "v")
    broker.kill()
    for client, service in services.items():
        assert not service.health_check(timeout_s=1.0).connected
        with pytest.raises(RetriesExhausted, match="connection refused"):
            service.send_message(topics[client], "away", "v")
        result = service.send_batch(topics[client], [("away-1", "v"), ("away-2", "v")])
        assert (result.succeeded, result.failed) == (0, 2)
        assert all("connection refused" in text for text in result.errors.values())
    broker.start()
    for client, service in services.items():
        assert send_until_it_works(service, topics[client]).topic == topics[client]
        keys = [message.key() for message in broker.read(topics[client])]
        assert keys.count(b"before") == 1
        assert b"back" in keys
        metrics = service.get_metrics()
        assert metrics.total_sent == 2
        assert metrics.failed >= 3
        service.close()


def quick_service(client: str, broker: KafkaRig) -> KafkaService:
    """Returns a service that gives up a message within 3 s."""
    short: dict[str, Any] = {"delivery_timeout_ms": 1500, "request_timeout_ms": 1500, "retry_backoff_ms": 50}
    return KafkaService(
        Cluster(
            "library",
            broker.plaintext,
            client=client,  # type: ignore[arg-type]
            enable_idempotence=CLIENTS[client].is_idempotent,
            max_retries=1,
            **short,
        )
    )


def send_until_it_works(service: KafkaService, topic: str) -> SendResult:
    """Retries, because the broker responds a moment before it accepts messages."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return service.send_message(topic, "back", "v")
        except RetriesExhausted:
            if time.monotonic() > deadline:
                raise


def test_closing_waits_for_what_others_send_and_refuses_what_comes_later(
    kafka: KafkaRig, service_of: Callable[..., KafkaService]
):
    topic = kafka.create_topic()
    service = service_of(kafka.plaintext, linger_ms=300)
    outcomes: list[Any] = []

    def send() -> None:
        outcomes.append(service.send_message(topic, "k", "v"))

    thread = threading.Thread(target=send)
    thread.start()
    time.sleep(0.1)
    service.close()
    thread.join(30)
    service.close()
    assert [outcome.topic for outcome in outcomes] == [topic]
    assert kafka.count(topic) == 1
    with pytest.raises(ConfigError, match=r'service for cluster "library" is closed. make a new one'):
        service.send_message(topic, "k", "v")
    assert "is closed" in (service.health_check().error or "")
    assert service.get_metrics().total_sent == 1
