"""The asynchronous service on a real broker: thousands of callers at once, wrong messages, a broker that goes away."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from core import AsyncKafkaService, BatchResult, open_workspace
from core.errors import (
    BrokerUnavailable,
    DeliveryTimeout,
    MessageTooLarge,
    NotAuthorised,
    PsttError,
    RetriesExhausted,
    TopicMissing,
)
from core.kafka.service_results import SendResult
from core.model.connection import Cluster, Secret
from core.model.publisher import Delivery
from tests.rigs.event_loop import run_in_loop
from tests.rigs.kafka import KafkaRig

CLIENTS = ("aiokafka", "confluent", "kafka-python-ng")
README = Path(__file__).parents[2] / "README.md"
SHORT: dict[str, Any] = {
    "delivery_timeout_ms": 1500,
    "request_timeout_ms": 1500,
    "retry_backoff_ms": 50,
    "max_retries": 1,
}


@pytest.fixture(params=CLIENTS)
def service_of(request: pytest.FixtureRequest) -> Callable[..., AsyncKafkaService]:
    """`service_of(servers, **cluster)`; the test closes it."""

    def make(servers: str, *, recorder: Callable[[Delivery], None] | None = None, **changes: Any) -> AsyncKafkaService:
        facts: dict[str, Any] = {"client": request.param, "enable_idempotence": request.param != "kafka-python-ng"}
        return AsyncKafkaService(Cluster("library", servers, **facts | {"linger_ms": 2} | changes), recorder=recorder)

    return make


def test_a_message_is_where_the_result_says(kafka: KafkaRig, service_of: Callable[..., AsyncKafkaService]):
    topic = kafka.create_topic()

    async def main() -> SendResult:
        async with service_of(kafka.plaintext) as service:
            return await service.send_message(topic, "572680001120", {"kg": Decimal("1.50")}, {"job": "manual"})

    result = run_in_loop(main())
    (message,) = kafka.read(topic)
    assert (message.topic(), message.partition(), message.offset()) == (topic, result.partition, result.offset)
    assert (message.key(), message.value()) == (b"572680001120", b'{"kg":1.50}')
    assert message.headers() == [("message_id", result.message_id.encode()), ("job", b"manual")]
    assert result.latency_ms > 0


def test_10000_single_messages_awaited_together_and_a_batch(
    kafka: KafkaRig, service_of: Callable[..., AsyncKafkaService]
):
    topic = kafka.create_topic()
    recorded: list[Delivery] = []

    async def main() -> tuple[list[SendResult], BatchResult, Any]:
        async with service_of(kafka.plaintext, recorder=recorded.append) as service:
            results = await asyncio.gather(*(service.send_message(topic, str(n), {"n": n}) for n in range(10_000)))
            batch = await service.send_batch(topic, ((str(n), {"n": n}) for n in range(10_000, 20_000)))
            return results, batch, service.get_metrics()

    results, batch, metrics = run_in_loop(main())
    records = {(message.partition(), message.offset()): message for message in kafka.read(topic)}
    assert len(records) == 20_000
    for number, result in enumerate(results):
        message = records.pop((result.partition, result.offset))
        assert message.key() == str(number).encode()
        assert (message.headers() or [])[0] == ("message_id", result.message_id.encode())
    assert batch == BatchResult(10_000, 10_000, 0, {})
    assert {json.loads(message.value() or b"")["n"] for message in records.values()} == set(range(10_000, 20_000))
    assert (metrics.total_sent, metrics.failed) == (20_000, 0)
    assert metrics.topics[topic].messages == 20_000
    assert len({id_ for delivery in recorded for id_ in delivery.batch.message_ids}) == 20_000


def test_one_message_too_large_among_many_fails_alone(kafka: KafkaRig, service_of: Callable[..., AsyncKafkaService]):
    topic = kafka.create_topic(config={"max.message.bytes": "20000"})

    async def main() -> list[Any]:
        async with service_of(kafka.plaintext, max_request_size_bytes=50_000, compression_type="none") as service:
            values = ["v"] * 300
            values[100], values[200] = "x" * 30_000, "x" * 60_000
            return await asyncio.gather(
                *(service.send_message(topic, str(n), value) for n, value in enumerate(values)), return_exceptions=True
            )

    results = run_in_loop(main())
    for index, words in ((200, "KAFKA_MAX_REQUEST_SIZE is 50,000"), (100, "max.message.bytes")):
        refused = results.pop(index)
        assert isinstance(refused, MessageTooLarge)
        assert words in str(refused)
    assert all(isinstance(result, SendResult) for result in results)
    assert kafka.count(topic) == 298


def test_a_missing_topic_is_reported_to_its_callers_and_to_no_others(
    kafka: KafkaRig, service_of: Callable[..., AsyncKafkaService]
):
    topic = kafka.create_topic()

    async def main() -> list[Any]:
        async with service_of(kafka.plaintext, delivery_timeout_ms=4000, request_timeout_ms=4000) as service:
            return await asyncio.gather(
                *(service.send_message(name, "k", "v") for name in ("no-such-topic", topic) for _ in range(20)),
                return_exceptions=True,
            )

    results = run_in_loop(main())
    assert [type(result) for result in results] == [TopicMissing] * 20 + [SendResult] * 20
    assert "no-such-topic" in str(results[0])
    assert kafka.count(topic) == 20


def test_a_wrong_password_is_named_by_connect_and_by_each_message(
    kafka: KafkaRig, service_of: Callable[..., AsyncKafkaService]
):
    login = {
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": "PLAIN",
        "sasl_username": kafka.username,
        "sasl_password": Secret("wrong"),
    }

    async def main() -> None:
        service = service_of(kafka.sasl_plaintext, **login, **SHORT)
        with pytest.raises(NotAuthorised, match="password"):
            await service.connect()
        health = await service.health_check(1.0)
        assert not health.connected
        assert "password" in (health.error or "")
        results = await asyncio.gather(
            *(service.send_message("orders", str(n), "v") for n in range(50)), return_exceptions=True
        )
        assert {type(result) for result in results} == {NotAuthorised}
        await service.close(1.0)
        with pytest.raises(NotAuthorised):
            async with service_of(kafka.sasl_plaintext, **login, **SHORT):
                pass

    run_in_loop(main())


def test_health_names_the_brokers_or_the_cause(kafka: KafkaRig, service_of: Callable[..., AsyncKafkaService]):
    async def main() -> None:
        async with service_of(kafka.plaintext) as service:
            health = await service.health_check()
            assert health.brokers == (kafka.plaintext,)
            assert (health.latency_ms or 0) > 0
        away = service_of("127.0.0.1:1")
        health = await away.health_check(timeout_s=1.0)
        assert not health.connected
        assert "127.0.0.1:1" in (health.error or "")
        with pytest.raises(BrokerUnavailable, match=r"127\.0\.0\.1:1"):
            await away.connect(1.0)
        await away.close()

    run_in_loop(main())


def test_cancelled_callers_and_closing_at_once_lose_no_message(
    kafka: KafkaRig, service_of: Callable[..., AsyncKafkaService]
):
    topic = kafka.create_topic()

    async def main() -> tuple[list[Any], Any]:
        service = service_of(kafka.plaintext, linger_ms=100)
        sent = [asyncio.ensure_future(service.send_message(topic, str(n), "v")) for n in range(3000)]
        batch = asyncio.create_task(service.send_batch(topic, [(str(n), "v") for n in range(3000, 4000)]))
        for _ in range(20):  # until the batch is turned into bytes
            await asyncio.sleep(0)
        for task in (*sent[::2], batch):
            task.cancel()
        await service.close()
        return await asyncio.gather(*sent, return_exceptions=True), service.get_metrics()

    results, metrics = run_in_loop(main())
    assert {type(result) for result in results[::2]} == {asyncio.CancelledError}
    assert {type(result) for result in results[1::2]} == {SendResult}
    assert (metrics.total_sent, metrics.failed) == (4000, 0)
    assert sorted(int(message.key() or b"") for message in kafka.read(topic)) == list(range(4000))


@pytest.mark.slow
def test_a_broker_that_goes_away_and_comes_back(own_kafka: Callable[..., KafkaRig]):
    broker = own_kafka()
    topic = broker.create_topic()

    async def main() -> None:
        services = [
            AsyncKafkaService(
                Cluster(
                    client, broker.plaintext, client=client, enable_idempotence=client != "kafka-python-ng", **SHORT
                )
            )
            for client in CLIENTS
        ]
        for service in services:
            await service.send_message(topic, f"{service.cluster.name} before", "v")
        await asyncio.to_thread(broker.kill)
        for service in services:
            away = await asyncio.gather(
                *(service.send_message(topic, "away", "v") for _ in range(20)), return_exceptions=True
            )
            assert {type(error) for error in away} == {RetriesExhausted}
            assert "connection refused" in str(away[0])
            assert not (await service.health_check(1.0)).connected
            closing = AsyncKafkaService(service.cluster)
            sending = asyncio.gather(
                *(closing.send_message(topic, "away", "v") for _ in range(20)), return_exceptions=True
            )
            await closing.close(0.0)
            assert {type(error) for error in await sending} <= {DeliveryTimeout, BrokerUnavailable, RetriesExhausted}
            assert closing.get_metrics().failed == 20
        await asyncio.to_thread(broker.start)
        for service in services:
            await send_until_it_works(service, topic, f"{service.cluster.name} back")
            metrics = service.get_metrics()
            assert metrics.total_sent == 2
            assert metrics.failed >= 20
            await service.close()

    run_in_loop(main())
    keys = [(message.key() or b"").decode() for message in broker.read(topic)]
    for client in CLIENTS:
        assert keys.count(f"{client} before") == 1
        assert f"{client} back" in keys


async def send_until_it_works(service: AsyncKafkaService, topic: str, key: str) -> None:
    """The broker answers a moment before it takes messages."""
    async with asyncio.timeout(60):
        while True:
            try:
                await service.send_message(topic, key, "v")
                return
            except PsttError:
                await asyncio.sleep(0.1)


def test_the_example_with_fastapi(kafka: KafkaRig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    kafka.create_topic("pstt-traces")
    (tmp_path / "demo").mkdir()
    cluster = {"bootstrap_servers": kafka.plaintext}
    document = {"default_environment": "rig", "connections": [], "kafka_connections": {"rig": cluster}}
    (tmp_path / "demo" / "connections.json").write_text(json.dumps(document), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    with open_workspace("demo") as workspace:
        assert workspace.cluster().bootstrap_servers == kafka.plaintext
    names: dict[str, Any] = {}
    exec(example("FastAPI"), names)
    with TestClient(names["app"]) as client:
        answer = client.post("/traces/572680001120", json={"hello": "world"})
        assert answer.status_code == 200, answer.text
        refused = client.post("/traces/572680001120", json={"hello": "x" * 2_000_000})
    (message,) = kafka.read("pstt-traces")
    assert (message.key(), message.value()) == (b"572680001120", b'{"hello":"world"}')
    assert answer.json() == {
        "topic": "pstt-traces",
        "partition": message.partition(),
        "offset": message.offset(),
        "latency_ms": answer.json()["latency_ms"],
        "message_id": (message.headers() or [])[0][1].decode(),  # type: ignore[union-attr]
    }
    assert refused.status_code == 503
    assert "too large" in refused.json()["detail"]


def example(word: str) -> str:
    """Returns the example of the README in which a word occurs."""
    (found,) = [code for code in re.findall(r"```python\n(.*?)```", README.read_text("utf-8"), re.S) if word in code]
    return str(found)
