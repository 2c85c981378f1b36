"""The service over the publisher in memory: its errors, if a client fails, a recorder fails, a message is wrong."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from core.errors import (
    BrokerUnavailable,
    ConfigError,
    NotAuthorised,
    PsttError,
    RetriesExhausted,
    RunFailed,
    StorageFailed,
)
from core.kafka.memory import MemoryPublisher
from core.kafka.service import KafkaService, SendResult
from core.model.connection import Cluster
from core.model.publisher import Delivery

AWAY = BrokerUnavailable("no broker answers", why="connection refused", remedy="start it")
DENIED = NotAuthorised("not let in", why="wrong password", remedy="correct it")

NESTED: list[Any] = []
for _ in range(100_000):
    NESTED = [NESTED]


def service_over(
    *publishers: MemoryPublisher, recorder: Callable[[Delivery], None] | None = None, **options: Any
) -> KafkaService:
    waiting = list(publishers)
    cluster = Cluster("library", "memory", retry_backoff_ms=1, max_retries=2)
    return KafkaService(cluster, recorder=recorder, publisher=lambda _: waiting.pop(0), **options)


@pytest.mark.parametrize(
    ("key", "value", "headers", "words"),
    [
        (572680001120, "v", None, "a key is neither text nor bytes: it is of type int"),
        ("k\ud800", "v", None, "a key is no UTF-8 text"),
        ("k", "v\ud800", None, "a value is no UTF-8 text"),
        ("k", {"x": object()}, None, "a value has no JSON form"),
        ("k", NESTED, None, "a value has no JSON form"),
        ("k", {"x": [1, {"y": math.nan}]}, None, "a value has no JSON form: JSON has no nan"),
        ("k", {"x": Decimal("-Infinity")}, None, "a value has no JSON form: JSON has no -Infinity"),
        ("k", "v", {"h": 5}, 'a header "h" is neither text nor bytes'),
        ("k", "v", {"h\ud800": "x"}, "cannot be the name of a header: it is no UTF-8 text"),
        ("k", "v", {5: "x"}, "cannot be the name of a header: it is no UTF-8 text"),
        ("k", "v", [("h", "x")], "headers are no mapping: they are of type list"),
    ],
)
def test_a_message_that_no_client_could_take_is_refused_before_it_is_handed_over(
    key: Any, value: Any, headers: Any, words: str
):
    publisher = MemoryPublisher()
    with service_over(publisher) as service:
        with pytest.raises(ConfigError, match=words):
            service.send_message("orders", key, value, headers)
        with pytest.raises(ConfigError, match=words):
            service.send_batch("orders", [("good", "v"), (key, value)], headers)
        service.send_message("orders", "next", "v")
    assert [record.key for record in publisher.records["orders"]] == [b"next"]


def test_a_message_needs_a_topic():
    with service_over(MemoryPublisher()) as service, pytest.raises(ConfigError, match="needs a topic"):
        service.send_message("", "k", "v")


@pytest.mark.parametrize("topic", ["orders\ud800", "città", 5])
def test_a_topic_has_a_name_that_clients_can_take(topic: Any):
    with service_over(MemoryPublisher()) as service, pytest.raises(ConfigError, match="cannot be the name of a topic"):
        service.send_message(topic, "k", "v")


def test_null_in_a_value_is_sent_as_it_is():
    publisher = MemoryPublisher()
    with service_over(publisher) as service:
        service.send_message("orders", "k", {"NaN": None, "n": Decimal("1.50"), "text": "Infinity"})
    assert publisher.records["orders"][0].value == b'{"NaN":null,"n":1.50,"text":"Infinity"}'


def test_a_retriable_failure_is_tried_again_within_the_call():
    publisher = MemoryPublisher(fail=lambda _t, _k, _v, attempt: AWAY if attempt < 3 else None)
    with service_over(publisher) as service:
        service.send_message("orders", "k", "v")
    assert len(publisher.records["orders"]) == 1


def test_the_last_error_is_raised_when_the_tries_are_used_up():
    with service_over(MemoryPublisher(fail=lambda *_: AWAY)) as service:
        with pytest.raises(RetriesExhausted, match="connection refused, handed over 3 times"):
            service.send_message("orders", "k", "v")
        (error,) = service.get_metrics().recent_errors
        assert (error.topic, error.error) == ("orders", "RetriesExhausted")
        assert service.get_metrics().success_rate == 0


def test_a_client_that_failed_for_good_is_replaced_for_the_next_message():
    first, second = MemoryPublisher(), MemoryPublisher()
    with service_over(first, second) as service:
        service.send_message("orders", "1", "v")
        first.fatal = DENIED
        with pytest.raises(NotAuthorised):
            service.send_message("orders", "2", "v")
        service.send_message("orders", "3", "v")
        metrics = service.get_metrics()
    assert [record.key for record in second.records["orders"]] == [b"3"]
    assert (metrics.total_sent, metrics.failed) == (2, 1)


def test_all_who_wait_are_told_when_the_client_fails_for_good():
    stuck = MemoryPublisher(delay_s=60)
    errors: list[PsttError] = []
    recorded: list[Delivery] = []
    with service_over(stuck, MemoryPublisher(), recorder=recorded.append) as service:

        def send(number: int) -> None:
            try:
                service.send_message("orders", str(number), "v")
            except PsttError as error:
                errors.append(error)

        threads = [threading.Thread(target=send, args=(number,)) for number in range(5)]
        for thread in threads:
            thread.start()
        while stuck.in_flight < 5:
            pass
        stuck.fatal = DENIED
        for thread in threads:
            thread.join(10)
        assert errors == [DENIED] * 5
        assert len(recorded) == 5
        service.send_message("orders", "after", "v")


def test_a_client_that_cannot_be_opened_again_is_told_to_the_caller():
    first = MemoryPublisher()
    service = service_over(first)
    first.fatal = DENIED
    with pytest.raises(NotAuthorised):
        service.send_message("orders", "1", "v")

    def refuse(_: Cluster) -> MemoryPublisher:
        raise ConfigError("the settings cannot be used", why="no CA file")

    service._queue._open = refuse
    with pytest.raises(ConfigError, match="no CA file"):
        service.send_message("orders", "2", "v")
    assert service.health_check().error == "the settings cannot be used: no CA file"
    service.close()


def test_the_recorder_is_told_of_each_delivery_also_of_failed_ones():
    recorded: list[Delivery] = []
    publisher = MemoryPublisher(fail=lambda _t, key, _v, _a: DENIED if key == b"bad" else None)
    with service_over(publisher, recorder=recorded.append) as service:
        service.send_message("orders", "good", "v")
        service.send_batch("orders", [("good", "v"), ("bad", "v")])
    assert [delivery.acknowledged for delivery in recorded] == [1, 1]
    assert [list(delivery.errors) for delivery in recorded] == [[], [1]]
    assert all(delivery.pending == 0 for delivery in recorded)


def test_what_the_recorder_cannot_write_is_told_to_the_one_who_sent_it():
    full = StorageFailed("the sends cannot be written", why="disk full")

    def record(delivery: Delivery) -> None:
        if delivery.batch.keys[0] == b"unlucky":
            raise full

    with service_over(MemoryPublisher(delay_s=0.05), recorder=record) as service:
        outcomes: dict[str, object] = {}

        def send(key: str) -> None:
            try:
                outcomes[key] = service.send_message("orders", key, "v")
            except PsttError as error:
                outcomes[key] = error

        threads = [threading.Thread(target=send, args=(key,)) for key in ("a", "unlucky", "b", "c")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
    assert outcomes.pop("unlucky") is full
    assert {type(outcome).__name__ for outcome in outcomes.values()} == {"SendResult"}
    assert len(outcomes) == 3


def test_closing_gives_up_what_does_not_arrive_in_its_time():
    service = service_over(MemoryPublisher(delay_s=60))
    errors: list[PsttError] = []

    def send() -> None:
        try:
            service.send_message("orders", "k", "v")
        except PsttError as error:
            errors.append(error)

    thread = threading.Thread(target=send)
    thread.start()
    while not service._queue._in_flight:
        pass
    service.close(0.1)
    thread.join(10)
    assert [type(error).__name__ for error in errors] == ["DeliveryTimeout"]
    assert service.get_metrics().failed == 1


def test_the_figures_say_when_and_how_much():
    moments = iter(datetime(2026, 1, 17, 10, tzinfo=UTC) + timedelta(minutes=n) for n in range(10))
    with service_over(MemoryPublisher(), now=lambda: next(moments)) as service:
        assert service.get_metrics().latency_p99_ms is None
        assert service.get_metrics().success_rate == 1.0
        service.send_message("orders", "key", "value")
        service.send_batch("orders", [(None, "1234"), ("k", "5")])
        service.send_message("parcels", "k", "v")
        topics = service.get_metrics().topics
    assert (topics["orders"].messages, topics["orders"].bytes) == (3, 14)
    assert topics["orders"].last_send == datetime(2026, 1, 17, 10, 1, tzinfo=UTC)
    assert topics["parcels"].last_send == datetime(2026, 1, 17, 10, 2, tzinfo=UTC)


def test_recent_errors_are_the_latest_hundred():
    with service_over(MemoryPublisher(fail=lambda *_: DENIED)) as service:
        service.send_batch("orders", [(str(number), "v") for number in range(150)])
        metrics = service.get_metrics()
    assert metrics.failed == 150
    assert len(metrics.recent_errors) == 100


def queued_together(service: KafkaService, keys: list[str]) -> dict[str, object]:
    """Sends each key in a thread of its own; all of them are queued before one is served. Returns what each got."""
    outcomes: dict[str, object] = {}

    def send(key: str) -> None:
        try:
            outcomes[key] = service.send_message("orders", key, "v")
        except PsttError as error:
            outcomes[key] = error

    threads = [threading.Thread(target=send, args=(key,)) for key in keys]
    with service._lock:
        for thread in threads:
            thread.start()
        while len(service._queue._inbox) < len(keys):
            pass
    for thread in threads:
        thread.join(30)
    return outcomes


def test_messages_that_wait_at_the_same_time_are_published_together_and_only_the_wrong_one_fails():
    publisher = MemoryPublisher(fail=lambda _t, key, _v, _a: DENIED if key == b"5" else None)
    keys = [str(number) for number in range(10)]
    with service_over(publisher) as service:
        outcomes = queued_together(service, keys)
        metrics = service.get_metrics()
    assert outcomes.pop("5") is DENIED
    stored = {(record.partition, record.offset): record for record in publisher.records["orders"]}
    for key, result in outcomes.items():
        assert isinstance(result, SendResult)
        record = stored[result.partition, result.offset]
        assert record.key == key.encode()
        assert record.headers == (("message_id", result.message_id.encode()),)
    assert (metrics.total_sent, metrics.failed) == (9, 1)


def test_a_recorder_gets_a_delivery_for_each_caller():
    recorded: list[Delivery] = []
    with service_over(MemoryPublisher(), recorder=recorded.append) as service:
        queued_together(service, [str(number) for number in range(10)])
    assert [len(delivery.batch) for delivery in recorded] == [1] * 10


def test_a_fault_of_the_client_is_an_error_of_what_is_in_flight():
    class Broken(MemoryPublisher):
        def poll(self, timeout_s: float) -> int:
            raise KeyError("a fault of the client")

    with service_over(Broken(), MemoryPublisher()) as service:
        with pytest.raises(RunFailed, match="the Kafka client failed: KeyError"):
            service.send_message("orders", "1", "v")
        assert service.send_message("orders", "2", "v").topic == "orders"
        assert (service.get_metrics().total_sent, service.get_metrics().failed) == (1, 1)


def test_who_has_an_acknowledgement_does_not_wait_for_the_retries_of_others():
    publisher = MemoryPublisher(fail=lambda _t, key, _v, _a: AWAY if key == b"late" else None)
    cluster = Cluster("library", "memory", retry_backoff_ms=1, max_retries=100)
    service = KafkaService(cluster, publisher=lambda _: publisher)
    closing = threading.Thread(target=lambda: (early.wait(30), service.close(0.0)))
    early = threading.Event()

    def send_early() -> None:
        service.send_message("orders", "early", "v")
        early.set()

    threads = [threading.Thread(target=send_early), closing]
    with service._lock:
        threads[0].start()
        while len(service._queue._inbox) < 1:
            pass
        threads.append(threading.Thread(target=lambda: service.send_batch("orders", [("late", "v")])))
        threads[-1].start()
        while len(service._queue._inbox) < 2:
            pass
    closing.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert (service.get_metrics().total_sent, service.get_metrics().failed) == (1, 1)
    assert early.is_set()
