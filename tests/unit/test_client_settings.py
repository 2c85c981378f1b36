"""Each KAFKA_* variable reaches the client that is used, or is refused with the reason.

From the variable to the client's own settings. The real clients are made,
against librdkafka's mock brokers where they have to connect.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import trustme
from confluent_kafka import Producer

from core.errors import ConfigError
from core.kafka import aiokafka, kafka_python, librdkafka, open_publisher, refuse_unsupported
from core.kafka.aiokafka import AiokafkaPublisher
from core.kafka.clients import CLIENTS
from core.kafka.confluent import ConfluentPublisher
from core.kafka.kafka_python import KafkaPythonPublisher
from core.kafka.sender import Sender
from core.kafka.service import KafkaService
from core.model.connection import Cluster, Secret
from core.model.publisher import Batch, Delivery
from core.workspace.connections import load_connections
from core.workspace.paths import Workspace
from core.workspace.settings import load_settings

PASSWORD = "s3cret-of-the-test"
LOGIN = {
    "KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
    "KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
    "KAFKA_SASL_USERNAME": "carrier",
    "KAFKA_SASL_PASSWORD": PASSWORD,
}
NOT_IDEMPOTENT = {"KAFKA_ENABLE_IDEMPOTENCE": "false"}


@pytest.fixture
def pem(tmp_path: Path) -> Path:
    authority = trustme.CA()
    leaf = authority.issue_cert("client.example.com")
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    leaf.cert_chain_pems[0].write_to_path(str(tmp_path / "client.pem"))
    leaf.private_key_pem.write_to_path(str(tmp_path / "client.key"))
    return tmp_path


def cluster_from(folder: Path, variables: dict[str, str]) -> Cluster:
    """Returns the cluster that the program makes from these variables alone."""
    (folder / "connections.json").write_text('{"connections": []}', encoding="utf-8")
    settings = load_settings(Workspace(folder), variables)
    return load_connections(Workspace(folder), settings, variables).cluster(None, settings)


def given_to_librdkafka(cluster: Cluster) -> dict[str, Any]:
    """Makes the real producer; returns its settings."""
    seen: list[dict[str, Any]] = []

    def make(config: dict[str, Any], **options: Any) -> Producer:
        seen.append(config)
        return Producer(config, **options)

    publisher = ConfluentPublisher(cluster, producer=make)
    publisher.close(0)
    return seen[0]


def given_to_aiokafka(cluster: Cluster) -> dict[str, Any]:
    """Makes the real producer thread; what it was given, and what it gives to aiokafka."""
    publisher = AiokafkaPublisher(cluster)
    thread = publisher._new_thread()
    thread.abandon()
    publisher.close(0)
    return {
        **thread._settings,
        "compression": thread._compression,
        "batch_size_bytes": thread._batch_size_bytes,
        "linger_s": thread._linger_s,
        "limit_bytes": thread._limit_bytes("any topic"),
    }


# What aiokafka and the thread around it are given, where that differs from kafka-python-ng.
OF_AIOKAFKA: dict[str, tuple[str, Any]] = {
    "KAFKA_COMPRESSION_TYPE=gzip": ("compression", "gzip"),
    "KAFKA_COMPRESSION_TYPE=none": ("compression", "none"),
    "KAFKA_BATCH_SIZE=4321": ("batch_size_bytes", 4321),
    "KAFKA_LINGER_MS=77": ("linger_s", 0.077),
    "KAFKA_MAX_REQUEST_SIZE=123456": ("limit_bytes", 123456),
}

# Variable, its value, the settings of librdkafka, the settings of kafka-python-ng.
EVERYWHERE: list[tuple[str, str, tuple[str, Any], tuple[str, Any]]] = [
    ("KAFKA_BOOTSTRAP_SERVERS", "k1:9092, k2:9093", ("bootstrap.servers", "k1:9092, k2:9093"), ("bootstrap_servers", ["k1:9092", "k2:9093"])),
    ("KAFKA_COMPRESSION_TYPE", "gzip", ("compression.type", "gzip"), ("compression_type", "gzip")),
    ("KAFKA_COMPRESSION_TYPE", "none", ("compression.type", "none"), ("compression_type", None)),
    ("KAFKA_BATCH_SIZE", "4321", ("batch.size", 4321), ("batch_size", 4321)),
    ("KAFKA_LINGER_MS", "77", ("linger.ms", 77), ("linger_ms", 77)),
    ("KAFKA_MAX_REQUEST_SIZE", "123456", ("message.max.bytes", 123456), ("max_request_size", 123456)),
    ("KAFKA_REQUEST_TIMEOUT_MS", "12345", ("request.timeout.ms", 12345), ("request_timeout_ms", 12345)),
    ("KAFKA_RETRY_BACKOFF_MS", "250", ("retry.backoff.ms", 250), ("retry_backoff_ms", 250)),
    ("KAFKA_MAX_IN_FLIGHT_REQUESTS", "2", ("max.in.flight.requests.per.connection", 2), ("max_in_flight_requests_per_connection", 2)),
    ("KAFKA_SASL_MECHANISM", "SCRAM-SHA-256", ("sasl.mechanisms", "SCRAM-SHA-256"), ("sasl_mechanism", "SCRAM-SHA-256")),
    ("KAFKA_SASL_USERNAME", "somebody", ("sasl.username", "somebody"), ("sasl_plain_username", "somebody")),
    ("KAFKA_SASL_PASSWORD", "other-secret", ("sasl.password", "other-secret"), ("sasl_plain_password", "other-secret")),
    ("KAFKA_SECURITY_PROTOCOL", "SASL_PLAINTEXT", ("security.protocol", "SASL_PLAINTEXT"), ("security_protocol", "SASL_PLAINTEXT")),
]  # fmt: skip


def ids(case: tuple[Any, ...]) -> str:
    return f"{case[0]}={case[1]}" if case[0] != "KAFKA_SASL_PASSWORD" else case[0]


def with_login(variable: str, value: str) -> dict[str, str]:
    return (LOGIN if "SASL" in value or "SASL" in variable else {}) | {variable: value}


@pytest.mark.parametrize("case", EVERYWHERE, ids=ids)
def test_confluent_is_given(case: tuple[Any, ...], tmp_path: Path):
    variable, value, (name, expected), _ = case
    cluster = cluster_from(tmp_path, with_login(variable, value))
    assert given_to_librdkafka(cluster)[name] == expected


@pytest.mark.parametrize("case", [case for case in EVERYWHERE if "IN_FLIGHT" not in case[0]], ids=ids)
def test_aiokafka_is_given(case: tuple[Any, ...], tmp_path: Path):
    """KAFKA_MAX_IN_FLIGHT_REQUESTS has no meaning for it: one record batch of a partition is in flight."""
    variable, value, _, of_kafka_python = case
    name, expected = OF_AIOKAFKA.get(f"{variable}={value}", of_kafka_python)
    assert given_to_aiokafka(cluster_from(tmp_path, with_login(variable, value)))[name] == expected


@pytest.mark.parametrize("case", EVERYWHERE, ids=ids)
def test_kafka_python_is_given(case: tuple[Any, ...], tmp_path: Path):
    variable, value, _, (name, expected) = case
    cluster = cluster_from(tmp_path, with_login(variable, value))
    assert kafka_python.producer_config(cluster)[name] == expected


def test_confluent_is_given_the_default_settings_of_the_specification(tmp_path: Path):
    given = given_to_librdkafka(cluster_from(tmp_path, {"KAFKA_BOOTSTRAP_SERVERS": "k:9092"}))
    assert {
        "acks": "all",
        "enable.idempotence": True,
        "compression.type": "snappy",
        "batch.size": 16384,
        "linger.ms": 10,
        "message.max.bytes": 1_048_576,
        "request.timeout.ms": 30_000,
        "delivery.timeout.ms": 30_000,
        "retry.backoff.ms": 100,
        "retry.backoff.max.ms": 400,
        "max.in.flight.requests.per.connection": 5,
        "partitioner": "murmur2_random",
        "client.id": "pstt-kafka",
        "log_level": 6,
    }.items() <= given.items()


def test_aiokafka_is_given_the_default_settings_of_the_specification(tmp_path: Path):
    given = given_to_aiokafka(cluster_from(tmp_path, {"KAFKA_BOOTSTRAP_SERVERS": "k:9092"}))
    assert {
        "acks": "all",
        "enable_idempotence": True,
        "compression": "snappy",
        "batch_size_bytes": 16384,
        "linger_s": 0.01,
        "limit_bytes": 1_048_576,
        "request_timeout_ms": 30_000,
        "retry_backoff_ms": 100,
        "client_id": "pstt-kafka",
    }.items() <= given.items()
    assert given_to_aiokafka(cluster_from(tmp_path, NOT_IDEMPOTENT))["enable_idempotence"] is False


def test_the_backoff_of_librdkafka_ends_at_four_times_the_first_wait(tmp_path: Path):
    cluster = cluster_from(tmp_path, {"KAFKA_RETRY_BACKOFF_MS": "250"})
    assert given_to_librdkafka(cluster)["retry.backoff.max.ms"] == 1000


@pytest.mark.parametrize("variable", ["KAFKA_SSL_CAFILE", "KAFKA_SSL_CERTFILE", "KAFKA_SSL_KEYFILE"])
def test_confluent_is_given_the_tls_files(variable: str, pem: Path):
    cluster = cluster_from(pem, TLS)
    name = {"CAFILE": "ssl.ca.location", "CERTFILE": "ssl.certificate.location", "KEYFILE": "ssl.key.location"}[
        variable[10:]
    ]
    assert given_to_librdkafka(cluster)[name] == str(pem / TLS[variable])


@pytest.mark.parametrize("client", [aiokafka, kafka_python], ids=["aiokafka", "kafka-python-ng"])
def test_a_client_in_python_is_given_a_context_with_the_tls_files(client: Any, pem: Path):
    cluster = cluster_from(pem, TLS)
    context = client.producer_config(cluster)["ssl_context"]
    assert context.check_hostname
    (trusted,) = context.get_ca_certs()
    assert "trustme" in str(trusted["issuer"])


TLS = {
    "KAFKA_SECURITY_PROTOCOL": "SSL",
    "KAFKA_SSL_CAFILE": "ca.pem",
    "KAFKA_SSL_CERTFILE": "client.pem",
    "KAFKA_SSL_KEYFILE": "client.key",
}


def test_confluent_is_given_idempotence_as_it_is_set(tmp_path: Path):
    assert given_to_librdkafka(cluster_from(tmp_path, {}))["enable.idempotence"] is True
    assert given_to_librdkafka(cluster_from(tmp_path, NOT_IDEMPOTENT))["enable.idempotence"] is False


def test_confluent_is_given_the_delivery_timeout(tmp_path: Path):
    cluster = cluster_from(tmp_path, {"PSTT_DELIVERY_TIMEOUT_MS": "45000"})
    assert given_to_librdkafka(cluster)["delivery.timeout.ms"] == 45000


@pytest.mark.parametrize(("level", "expected"), [("DEBUG", 7), ("INFO", 6), ("WARNING", 4), ("ERROR", 3)])
def test_confluent_is_given_the_log_level(level: str, expected: int, tmp_path: Path):
    assert given_to_librdkafka(cluster_from(tmp_path, {"KAFKA_LOG_LEVEL": level}))["log_level"] == expected


def test_the_variable_chooses_the_client(tmp_path: Path):
    by_default = open_publisher(cluster_from(tmp_path, {}))
    confluent = open_publisher(cluster_from(tmp_path, {"KAFKA_CLIENT": "confluent"}))
    python = open_publisher(cluster_from(tmp_path, {"KAFKA_CLIENT": "kafka-python-ng", **NOT_IDEMPOTENT}))
    assert isinstance(by_default, AiokafkaPublisher)
    assert isinstance(confluent, ConfluentPublisher)
    assert isinstance(python, KafkaPythonPublisher)
    by_default.close(0)
    confluent.close(0)
    python.close(0)


def test_the_number_of_further_tries_reaches_the_retry_above_the_client(tmp_path: Path):
    cluster = cluster_from(tmp_path, {"KAFKA_MAX_RETRIES": "7", "KAFKA_RETRY_BACKOFF_MS": "250"})
    with KafkaService(cluster) as service:
        sender = service._queue.client()
        assert isinstance(sender, Sender)
        assert (sender.max_retries, sender.backoff_ms) == (7, 250)


def test_the_client_queue_has_room_for_all_that_may_be_in_flight(tmp_path: Path):
    config = librdkafka.producer_config(cluster_from(tmp_path, {}), max_in_flight=20_000)
    assert config["queue.buffering.max.messages"] > 20_000


# ── kafka-python-ng as it runs ───────────────────────────────────────────────────────────────


@pytest.fixture
def mock() -> Cluster:
    """librdkafka's mock broker, for the client that connects when it is made."""
    return Cluster(
        "settings",
        "",
        client="kafka-python-ng",
        enable_idempotence=False,
        mock_brokers=1,
        compression_type="gzip",
        batch_size_bytes=4321,
        linger_ms=33,
        max_request_size_bytes=123_456,
        request_timeout_ms=12_345,
        retry_backoff_ms=250,
        max_in_flight_requests=2,
    )


def test_kafka_python_works_with_what_it_was_given(mock: Cluster):
    publisher = KafkaPythonPublisher(mock)
    delivery = Delivery.of(Batch(1, "settings", [b"k"], [b"v"], [b"0" * 32], [1]))
    publisher.publish(delivery)
    while delivery.pending:
        publisher.poll(1)
    config = publisher._producer.config  # type: ignore[union-attr]
    publisher.close()
    assert delivery.acknowledged == 1
    expected = {
        "acks": -1,
        "compression_type": "gzip",
        "batch_size": 4321,
        "linger_ms": 33,
        "max_request_size": 123_456,
        "request_timeout_ms": 12_345,
        "max_block_ms": 12_345,
        "retry_backoff_ms": 250,
        "max_in_flight_requests_per_connection": 2,
        "client_id": "pstt-kafka",
        "security_protocol": "PLAINTEXT",
    }
    assert {name: config[name] for name in expected} == expected
    assert delivery.latencies_ms[0] >= 33  # the linger is waited for


@pytest.mark.parametrize(
    ("level", "expected"), [("DEBUG", logging.INFO), ("INFO", logging.INFO), ("WARNING", logging.WARNING), ("ERROR", logging.ERROR)]
)  # fmt: skip
@pytest.mark.parametrize(
    "client", [{"KAFKA_CLIENT": "kafka-python-ng", **NOT_IDEMPOTENT}, {"KAFKA_CLIENT": "aiokafka"}]
)
def test_a_client_in_python_logs_at_the_level_but_never_rows(
    client: dict[str, str], level: str, expected: int, tmp_path: Path
):
    publisher = open_publisher(cluster_from(tmp_path, {"KAFKA_LOG_LEVEL": level, **client}))
    assert logging.getLogger("aiokafka" if "aiokafka" in client.values() else "kafka").level == expected
    publisher.close(0)


def test_a_line_of_another_publisher_of_aiokafka_is_no_cause_of_ours():
    ours, other = (AiokafkaPublisher(Cluster(name, "k:9092")) for name in ("ours", "other"))
    thread = other._new_thread()
    line = "Failed to resolve 'nowhere:9092'"
    thread._loop.call_soon_threadsafe(logging.getLogger("aiokafka.conn").warning, line)
    thread.abandon()
    assert other.diagnosis.last_cause is not None
    assert ours.diagnosis.last_cause is None
    ours.close(0)
    other.close(0)


# ── refused with the reason ──────────────────────────────────────────────────────────────────


def test_kafka_python_refuses_idempotence_and_says_what_to_set(tmp_path: Path):
    cluster = cluster_from(tmp_path, {"KAFKA_CLIENT": "kafka-python-ng"})
    with pytest.raises(ConfigError) as raised:
        open_publisher(cluster)
    text = str(raised.value)
    assert "KAFKA_CLIENT=kafka-python-ng cannot send with KAFKA_ENABLE_IDEMPOTENCE=true" in text
    assert "no idempotent producer" in text
    assert "set KAFKA_ENABLE_IDEMPOTENCE=false" in text
    assert raised.value.key == "KAFKA_ENABLE_IDEMPOTENCE"


def test_kafka_python_refuses_exactly_once(tmp_path: Path):
    cluster = cluster_from(tmp_path, {"KAFKA_CLIENT": "kafka-python-ng", **NOT_IDEMPOTENT})
    with pytest.raises(ConfigError, match=r"exactly_once.*no transactions.*set KAFKA_CLIENT to aiokafka or confluent"):
        open_publisher(cluster, transactional_id="pstt-export")
    publisher = open_publisher(cluster)
    for step in (
        publisher.begin,
        publisher.commit,
        publisher.abort,
        lambda: publisher.prepare_once("pstt-control"),
        lambda: publisher.read_control("pstt-control", [b"k"]),
    ):
        with pytest.raises(ConfigError, match="no transactions"):
            step()
    publisher.close(0)


@pytest.mark.parametrize("client", ["aiokafka", "confluent"])
def test_exactly_once_without_idempotence_is_refused(client: str, tmp_path: Path):
    cluster = cluster_from(tmp_path, {"KAFKA_CLIENT": client, **NOT_IDEMPOTENT})
    with pytest.raises(ConfigError, match=r"KAFKA_ENABLE_IDEMPOTENCE is false.*set KAFKA_ENABLE_IDEMPOTENCE=true"):
        open_publisher(cluster, transactional_id="pstt-export")


def test_confluent_refuses_more_requests_in_flight_than_idempotence_allows():
    cluster = Cluster("Kafka Collaudo", "k:9092", max_in_flight_requests=6)
    with pytest.raises(ConfigError) as raised:
        open_publisher(cluster)
    assert "KAFKA_MAX_IN_FLIGHT_REQUESTS=6" in str(raised.value)
    assert "5 requests at most" in str(raised.value)


@pytest.mark.parametrize("missing", ["KAFKA_SASL_MECHANISM", "KAFKA_SASL_USERNAME", "KAFKA_SASL_PASSWORD"])
@pytest.mark.parametrize("client", CLIENTS)
def test_an_incomplete_login_is_refused_at_start(missing: str, client: Any):
    values: dict[str, Any] = {"sasl_mechanism": "PLAIN", "sasl_username": "u", "sasl_password": Secret(PASSWORD)}
    del values[missing.removeprefix("KAFKA_").lower()]
    cluster = Cluster(
        "Kafka Collaudo",
        "k:9092",
        "SASL_SSL",
        client=client,
        enable_idempotence=CLIENTS[client].is_idempotent,
        **values,
    )
    with pytest.raises(
        ConfigError, match=f'{missing} is missing for cluster "Kafka Collaudo".*SASL_SSL logs in'
    ) as raised:
        open_publisher(cluster)
    assert PASSWORD not in str(raised.value)


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"\x30\x82\x01\x02", "is not a PEM file: no line -----BEGIN"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "holds no usable certificate"),
    ],
    ids=["missing", "DER", "broken"],
)
def test_a_bad_ca_file_is_named(client: Any, content: bytes | None, words: str, tmp_path: Path):
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_bytes(content)
    cluster = Cluster(
        "Kafka Collaudo",
        "k:9092",
        "SSL",
        ssl_cafile=file,
        client=client,
        enable_idempotence=CLIENTS[client].is_idempotent,
    )
    with pytest.raises(ConfigError) as raised:
        open_publisher(cluster)
    assert "ca.pem" in str(raised.value)
    assert words in str(raised.value)
    assert "KAFKA_SSL_CAFILE" in str(raised.value)


def test_certificate_and_key_that_do_not_belong_together_are_refused(pem: Path):
    trustme.CA().issue_cert("other.example.com").private_key_pem.write_to_path(str(pem / "client.key"))
    cluster = cluster_from(pem, TLS)
    with pytest.raises(ConfigError, match=r"cannot be used together.*KAFKA_SSL_CERTFILE and KAFKA_SSL_KEYFILE"):
        open_publisher(cluster)


def test_what_librdkafka_refuses_is_told_in_its_own_words():
    cluster = Cluster("Kafka Collaudo", "k:9092", batch_size_bytes=0)
    with pytest.raises(ConfigError, match=r'settings for cluster "Kafka Collaudo".*batch.size'):
        open_publisher(cluster)


def test_check_needs_no_client_and_no_broker(tmp_path: Path):
    refuse_unsupported(cluster_from(tmp_path, {}), transactional=True)
    with pytest.raises(ConfigError, match="no transactions"):
        refuse_unsupported(
            cluster_from(tmp_path, {"KAFKA_CLIENT": "kafka-python-ng", **NOT_IDEMPOTENT}), transactional=True
        )


def test_no_secret_is_in_what_a_publisher_shows(tmp_path: Path):
    for client in (
        {"KAFKA_CLIENT": "aiokafka"},
        {"KAFKA_CLIENT": "confluent"},
        {"KAFKA_CLIENT": "kafka-python-ng", **NOT_IDEMPOTENT},
    ):
        publisher = open_publisher(cluster_from(tmp_path, LOGIN | client))
        shown = repr(publisher) + repr(vars(publisher)) + repr(vars(publisher.diagnosis)) + str(publisher.cluster)  # type: ignore[attr-defined]
        publisher.close(0)
        assert PASSWORD not in shown
        assert "***" in shown
