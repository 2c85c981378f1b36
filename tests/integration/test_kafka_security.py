"""TLS and SASL on a real broker, with every client; each mistake leads to the error that names its cause."""

from __future__ import annotations

import http.server
import logging
import socket
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from confluent_kafka.admin import AclBinding, AclOperation, AclPermissionType, ResourcePatternType, ResourceType

from core.errors import BrokerUnavailable, ConfigError, NotAuthorised, PsttError, RetriesExhausted, TopicMissing
from core.kafka import open_publisher
from core.kafka.clients import CLIENTS
from core.kafka.cluster_rights import cluster_rights
from core.kafka.diagnosis import ADVICE, Diagnosis, read_cause
from core.kafka.probe import Cause
from core.kafka.sender import Sender
from core.model.connection import Cluster, Secret
from core.model.publisher import Batch, Delivery
from tests.rigs.kafka import KafkaRig

MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
WRONG_PASSWORD = "wrong-secret-4713"

Open = Callable[..., Any]


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def secured(kafka: KafkaRig, client: str) -> Callable[..., Cluster]:
    """`secured("SASL_SSL", kafka.sasl_ssl, sasl_mechanism="PLAIN")`: user, password and CA are those of the rig."""

    def make(protocol: str, servers: str, **changes: Any) -> Cluster:
        values: dict[str, Any] = {
            "client": client,
            "enable_idempotence": CLIENTS[client].is_idempotent,
            "request_timeout_ms": 2000,
            "delivery_timeout_ms": 2500,
        }
        if protocol.startswith("SASL"):
            values |= {"sasl_mechanism": "PLAIN", "sasl_username": kafka.username}
            values["sasl_password"] = Secret(kafka.password)
        if protocol.endswith("SSL"):
            values["ssl_cafile"] = kafka.ca_file
        return Cluster("Kafka Collaudo", servers, protocol, **values | changes)  # type: ignore[arg-type]

    return make


@pytest.fixture
def opened() -> Iterator[Open]:
    """Opens publishers and closes them in the end."""
    publishers = []

    def make(cluster: Cluster) -> Any:
        publishers.append(open_publisher(cluster))
        return publishers[-1]

    yield make
    for publisher in publishers:
        publisher.close(0.0)


def batch_for(topic: str, count: int = 3) -> Batch:
    keys: list[bytes | None] = [b"k%d" % number for number in range(count)]
    return Batch(1, topic, keys, [b"v"] * count, [b"%032x" % number for number in range(count)], range(1, count + 1))


def sent(publisher: Any, batch: Batch, timeout_s: float = 30) -> Delivery:
    """Publishes with the product's own retry and very short waits."""
    sender = Sender(publisher, max_retries=1, backoff_ms=1)
    delivery = sender.submit(batch)
    sender.drain(timeout_s)
    assert delivery.pending == 0
    return delivery


# ── what works ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("protocol", "listener", "mechanism"),
    [
        ("SSL", "ssl", None),
        ("SSL", "mtls", None),
        *(("SASL_PLAINTEXT", "sasl_plaintext", mechanism) for mechanism in MECHANISMS),
        *(("SASL_SSL", "sasl_ssl", mechanism) for mechanism in MECHANISMS),
    ],
)
def test_messages_arrive_over(
    protocol: str,
    listener: str,
    mechanism: str | None,
    kafka: KafkaRig,
    secured: Callable[..., Cluster],
    opened: Open,
):
    changes: dict[str, Any] = {"sasl_mechanism": mechanism} if mechanism else {}
    if listener == "mtls":
        changes |= {"ssl_certfile": kafka.client_cert_file, "ssl_keyfile": kafka.client_key_file}
    topic = kafka.create_topic()
    cluster = secured(protocol, getattr(kafka, listener), **changes)
    publisher = opened(cluster)
    publisher.require_topic(topic)
    delivery = sent(publisher, batch_for(topic))
    assert delivery.errors == {}
    assert {message.key() for message in kafka.read(topic)} == {b"k0", b"k1", b"k2"}
    assert publisher.brokers() == [getattr(kafka, listener)]


# ── what does not, and the reason that a user reads ─────────────────────────────────────────


def wrong_password(kafka: KafkaRig, mechanism: str) -> tuple[str, str, dict[str, Any]]:
    return (
        "SASL_SSL",
        kafka.sasl_ssl,
        {"sasl_mechanism": mechanism, "sasl_password": Secret(WRONG_PASSWORD)},
    )


Case = tuple[Callable[[KafkaRig], tuple[str, str, dict[str, Any]]], type[PsttError], str]

REFUSED: dict[str, Case] = {
    **{
        f"wrong password, {mechanism}": (
            lambda kafka, mechanism=mechanism: wrong_password(kafka, mechanism),  # type: ignore[misc]
            NotAuthorised,
            r'refuses the login of user "pstt": wrong user name or password. check KAFKA_SASL_USERNAME',
        )
        for mechanism in MECHANISMS
    },
    "unknown user": (
        lambda kafka: ("SASL_PLAINTEXT", kafka.sasl_plaintext, {"sasl_username": "nobody"}),
        NotAuthorised,
        r'refuses the login of user "nobody": wrong user name or password',
    ),
    "unknown authority": (
        lambda kafka: ("SSL", kafka.ssl, {"ssl_cafile": kafka.other_ca_file}),
        NotAuthorised,
        r"cannot be trusted: .*unable to get local issuer certificate. set KAFKA_SSL_CAFILE",
    ),
    "authority of the system": (
        lambda kafka: ("SSL", kafka.ssl, {"ssl_cafile": None}),
        NotAuthorised,
        r"cannot be trusted: .*unable to get local issuer certificate. set KAFKA_SSL_CAFILE",
    ),
    "expired certificate": (
        lambda kafka: ("SSL", kafka.ssl_expired, {}),
        NotAuthorised,
        r"cannot be trusted: .*certificate has expired. the broker needs a new certificate",
    ),
    "certificate of another host": (
        lambda kafka: ("SSL", kafka.ssl_wrong_host, {}),
        NotAuthorised,
        r"cannot be trusted: .*not valid for '127.0.0.1'. use the name that stands in the broker's certificate",
    ),
    "no client certificate": (
        lambda kafka: ("SSL", kafka.mtls, {}),
        NotAuthorised,
        r"does not accept this client's certificate: .*wants one of ours, and none is set.*KAFKA_SSL_CERTFILE",
    ),
    "plaintext to a TLS port": (
        lambda kafka: ("PLAINTEXT", kafka.ssl, {}),
        ConfigError,
        r"not spoken to with PLAINTEXT: .*this port speaks TLS. set KAFKA_SECURITY_PROTOCOL to SSL",
    ),
    "login without TLS to a TLS port": (
        lambda kafka: ("SASL_PLAINTEXT", kafka.sasl_ssl, {}),
        ConfigError,
        r"not spoken to with SASL_PLAINTEXT: .*this port speaks TLS. set KAFKA_SECURITY_PROTOCOL to SASL_SSL",
    ),
    "TLS to a plaintext port": (
        lambda kafka: ("SSL", kafka.plaintext, {}),
        ConfigError,
        r"not spoken to with SSL: .*no TLS is spoken on this port. set KAFKA_SECURITY_PROTOCOL to PLAINTEXT",
    ),
    "login where none is taken": (
        lambda kafka: ("SASL_PLAINTEXT", kafka.plaintext, {}),
        ConfigError,
        r"takes no login: .*this port takes no login. set KAFKA_SECURITY_PROTOCOL to PLAINTEXT",
    ),
    "no login where one is wanted": (
        lambda kafka: ("PLAINTEXT", kafka.sasl_plaintext, {}),
        ConfigError,
        r"wants a login: .*the broker offers PLAIN.*set KAFKA_SECURITY_PROTOCOL to SASL_PLAINTEXT",
    ),
    "unknown host": (
        lambda kafka: ("PLAINTEXT", "no-such-host.invalid:9092", {}),
        BrokerUnavailable,
        r'answers: host name "no-such-host.invalid" is not known.*correct bootstrap_servers',
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_asking_the_cluster_tells_the_cause(
    case: str, kafka: KafkaRig, secured: Callable[..., Cluster], opened: Open, caplog: pytest.LogCaptureFixture
):
    arrange, expected, words = REFUSED[case]
    protocol, servers, changes = arrange(kafka)
    with caplog.at_level(logging.DEBUG), pytest.raises(PsttError, match=words) as raised:
        opened(secured(protocol, servers, **changes)).brokers(2.0)
    require_error(raised.value, expected, kafka)
    assert_no_secret(caplog.text, kafka)


@pytest.mark.parametrize("case", ["wrong password, PLAIN", "wrong password, SCRAM-SHA-512", "unknown authority"])
def test_a_message_that_cannot_be_sent_tells_the_cause(
    case: str, kafka: KafkaRig, secured: Callable[..., Cluster], opened: Open, caplog: pytest.LogCaptureFixture
):
    """The clients themselves report it as a time-out."""
    arrange, expected, words = REFUSED[case]
    protocol, servers, changes = arrange(kafka)
    with caplog.at_level(logging.DEBUG):
        delivery = sent(opened(secured(protocol, servers, **changes)), batch_for("orders", 1))
    error = delivery.errors[0]
    require_error(error, expected, kafka)
    with pytest.raises(expected, match=words):
        raise error
    assert delivery.attempts[0] == 1, "a fatal error is never tried again"
    assert_no_secret(caplog.text, kafka)


def require_error(error: PsttError, expected: type[PsttError], kafka: KafkaRig) -> None:
    assert type(error) is expected
    assert error.is_retriable is (expected is BrokerUnavailable)
    assert 'cluster "Kafka Collaudo" (' in str(error)
    shown: BaseException | None = error
    while shown is not None:
        parts = [str(shown), repr(shown), repr(shown.args), repr(vars(shown))]
        assert_no_secret("".join(parts), kafka)
        shown = shown.__cause__ or (None if shown.__suppress_context__ else shown.__context__)
    assert_no_secret("".join(traceback.format_exception(error)), kafka)


def assert_no_secret(text: str, kafka: KafkaRig) -> None:
    for secret in (WRONG_PASSWORD, kafka.password, kafka.limited_password):
        assert secret not in text


# ── ports behind which no broker is ───────────────────────────────────────────────────────────


@pytest.fixture
def listening() -> Iterator[Callable[[Callable[[socket.socket], None] | None], str]]:
    """`listening(None)`: a port that accepts connections and sends nothing; otherwise each connection is passed to the function."""
    sockets = []

    def make(serve: Callable[[socket.socket], None] | None) -> str:
        server = socket.create_server(("127.0.0.1", 0))
        sockets.append(server)
        if serve is not None:
            threading.Thread(target=accept, args=(server, serve), daemon=True).start()
        return f"127.0.0.1:{server.getsockname()[1]}"

    def accept(server: socket.socket, serve: Callable[[socket.socket], None]) -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=handle, args=(connection, serve), daemon=True).start()

    def handle(connection: socket.socket, serve: Callable[[socket.socket], None]) -> None:
        with connection, suppress(OSError):
            serve(connection)

    yield make
    for server in sockets:
        server.close()


# Each probe of such a port takes 5 s.
@pytest.mark.parametrize(
    ("client", "protocol"), [("aiokafka", "SSL"), ("confluent", "SSL"), ("kafka-python-ng", "PLAINTEXT")]
)
def test_a_port_that_takes_connections_and_says_nothing_is_a_stuck_broker_and_may_be_tried_later(
    protocol: str, kafka: KafkaRig, secured: Callable[..., Cluster], opened: Open, listening: Callable[..., str]
):
    with pytest.raises(BrokerUnavailable, match=r"takes the connection and answers nothing.*look at the broker's load"):
        opened(secured(protocol, listening(None))).brokers(1.0)


@pytest.mark.parametrize("protocol", ["PLAINTEXT", "SSL"])
def test_a_port_that_hangs_up_may_be_tried_later(
    protocol: str, kafka: KafkaRig, secured: Callable[..., Cluster], opened: Open, listening: Callable[..., str]
):
    with pytest.raises(BrokerUnavailable, match=r"ends the connection without an answer.*look into the broker's log"):
        opened(secured(protocol, listening(lambda connection: None))).brokers(1.0)


def greet_as_ssh(connection: socket.socket) -> None:
    connection.sendall(b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n")
    connection.settimeout(10)
    while connection.recv(4096):
        pass


@pytest.mark.parametrize("protocol", ["PLAINTEXT", "SSL"])
def test_a_program_that_is_no_broker_is_told_apart(
    protocol: str, secured: Callable[..., Cluster], opened: Open, listening: Callable[..., str]
):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), SilentHandler) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        with pytest.raises(ConfigError, match=r"not a Kafka broker.*correct the port in bootstrap_servers"):
            opened(secured(protocol, f"127.0.0.1:{web.server_address[1]}")).brokers(2.0)
        web.shutdown()


@pytest.mark.parametrize("client", ["aiokafka", "confluent"])
def test_a_program_that_speaks_first_is_told_apart(
    secured: Callable[..., Cluster], opened: Open, listening: Callable[..., str]
):
    with pytest.raises(ConfigError, match=r"not a Kafka broker.*correct the port in bootstrap_servers"):
        opened(secured("PLAINTEXT", listening(greet_as_ssh))).brokers(2.0)


class SilentHandler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *args: Any) -> None:
        pass


def test_a_port_on_which_nobody_listens_is_named_and_may_be_tried_later(
    secured: Callable[..., Cluster], opened: Open, unused_port: int
):
    servers = f"127.0.0.1:{unused_port}"
    publisher = opened(secured("PLAINTEXT", servers, delivery_timeout_ms=1000, request_timeout_ms=1000))
    with pytest.raises(BrokerUnavailable, match=rf"answers: {servers}: connection refused.*start the broker"):
        publisher.brokers(1.0)
    error = sent(publisher, batch_for("orders", 1)).errors[0]
    assert type(error) is RetriesExhausted
    assert type(error.__cause__) is BrokerUnavailable
    assert f"{servers}: connection refused" in str(error)
    assert "handed over 2 times" in str(error)


@pytest.fixture
def unused_port() -> int:
    from tests.rigs.server import free_ports

    return free_ports(1)[0]


# ── let in, and not allowed ───────────────────────────────────────────────────────────────────


@pytest.fixture
def limited(kafka: KafkaRig, secured: Callable[..., Cluster]) -> Cluster:
    return replace(
        secured("SASL_PLAINTEXT", kafka.sasl_plaintext),
        sasl_username=kafka.limited_username,
        sasl_password=Secret(kafka.limited_password),
    )


def test_an_account_without_rights_is_told_so_when_the_topic_is_looked_for(
    kafka: KafkaRig, limited: Cluster, opened: Open
):
    topic = kafka.create_topic()
    with pytest.raises(NotAuthorised) as raised:
        opened(limited).require_topic(topic)
    require_error(raised.value, NotAuthorised, kafka)
    assert f'user "limited" may not write to topic "{topic}"' in str(raised.value)
    assert "access rules (ACL)" in str(raised.value)


def test_an_account_without_rights_is_told_so_for_each_message_at_once(kafka: KafkaRig, limited: Cluster, opened: Open):
    topic = kafka.create_topic()
    delivery = sent(opened(limited), batch_for(topic))
    assert sorted(delivery.errors) == [0, 1, 2]
    for error in delivery.errors.values():
        require_error(error, NotAuthorised, kafka)
        assert f'user "limited" may not write to topic "{topic}"' in str(error)
    assert list(delivery.attempts) == [1, 1, 1]
    assert kafka.count(topic) == 0


def test_an_account_does_not_see_a_topic_for_which_it_has_no_right(kafka: KafkaRig, limited: Cluster, opened: Open):
    topic = kafka.create_topic()  # other tests may have given it rights for theirs
    assert topic not in [found.name for found in opened(limited).topics()]


def test_a_missing_topic_is_named(kafka: KafkaRig, secured: Callable[..., Cluster], opened: Open):
    publisher = opened(secured("SASL_SSL", kafka.sasl_ssl))
    with pytest.raises(
        TopicMissing, match=r'topic "no-such-topic" does not exist on cluster "Kafka Collaudo"'
    ) as raised:
        publisher.require_topic("no-such-topic")
    assert "does not make topics on first use" in str(raised.value)
    assert not raised.value.is_retriable


def test_a_message_to_a_missing_topic_is_told_so(kafka: KafkaRig, secured: Callable[..., Cluster], opened: Open):
    # A busy broker that does not answer in time is tried again, which is not what this is about.
    patient = secured("PLAINTEXT", kafka.plaintext, request_timeout_ms=10_000, delivery_timeout_ms=12_000)
    delivery = sent(opened(patient), batch_for("no-such-topic", 2))
    assert sorted(delivery.errors) == [0, 1]
    for error in delivery.errors.values():
        assert type(error) is TopicMissing
        assert 'topic "no-such-topic" does not exist' in str(error)
    assert list(delivery.attempts) == [1, 1]


def test_a_name_that_no_topic_can_have_is_told_so(kafka: KafkaRig, secured: Callable[..., Cluster], opened: Open):
    publisher = opened(secured("PLAINTEXT", kafka.plaintext))
    with pytest.raises(ConfigError, match='"no such topic!" cannot be the name of a topic'):
        publisher.require_topic("no such topic!")
    error = sent(publisher, batch_for("no such topic!", 1)).errors[0]
    assert type(error) is ConfigError
    assert "letters, digits, dot, hyphen and underscore" in str(error)


# ── what a client only guesses ────────────────────────────────────────────────────────────────

AT = "127.0.0.1:9092/bootstrap: "


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (f"{AT}Disconnected while requesting ApiVersion: might be caused by incorrect security.protocol configuration (connecting to a SSL listener?)", "tls_port"),
        (f"{AT}SSL handshake failed: Disconnected: connecting to a PLAINTEXT broker listener?", "closed"),
        (f"{AT}SASL authentication error: SaslAuthenticateRequest failed: Local: Broker transport failure", "closed"),
        (f"{AT}SASL authentication error: Authentication failed: Invalid username or password", "login"),
        (f"{AT}Disconnected (after 3ms in state UP)", "closed"),
    ],
)  # fmt: skip
def test_a_broker_that_goes_down_while_it_is_entered_is_no_mistake_of_the_settings(line: str, kind: str):
    cluster = Cluster("Kafka Collaudo", "127.0.0.1:9092")
    cause = read_cause(line)
    assert cause is not None
    assert cause.kind == kind
    down = Diagnosis(cluster, look=lambda _: Cause("unreachable", "127.0.0.1:9092: connection refused"))
    down.remember(line)
    assert type(down.no_contact()) is BrokerUnavailable
    assert not down.is_hopeless
    in_order = Diagnosis(cluster, look=lambda _: None)
    in_order.remember(line)
    assert in_order.is_hopeless is (kind == "login"), "the broker is back, and only a refused login stays one"


def test_each_cause_has_its_advice():
    from typing import get_args

    from core.kafka.probe import FailureKind

    assert set(ADVICE) == set(get_args(FailureKind))


# ── what an account may do ────────────────────────────────────────────────────────────────────


def allow(kafka: KafkaRig, topic: str, operation: AclOperation) -> None:
    """Gives the limited user a right."""
    rule = AclBinding(
        ResourceType.TOPIC,
        topic,
        ResourcePatternType.LITERAL,
        f"User:{kafka.limited_username}",
        "*",
        operation,
        AclPermissionType.ALLOW,
    )
    admin = kafka._admin()
    for done in admin.create_acls([rule]).values():
        done.result(10)


def test_the_cluster_tells_what_an_account_may_do_and_shows_its_certificate(kafka: KafkaRig) -> None:
    topic = kafka.create_topic()
    login: dict[str, Any] = {"sasl_mechanism": "SCRAM-SHA-256", "ssl_cafile": kafka.ca_file}
    root = Cluster(
        "Kafka Collaudo",
        kafka.sasl_ssl,
        "SASL_SSL",
        sasl_username=kafka.username,
        sasl_password=Secret(kafka.password),
        **login,
    )
    found = cluster_rights(root, [topic])
    assert (found.brokers, bool(found.cluster_id)) == (1, True)
    assert {"WRITE", "DESCRIBE"} <= (found.topic_operations[topic] or set())
    assert "CREATE" in (found.cluster_operations or set())
    assert found.certificate is not None
    assert found.certificate.valid_until > datetime.now(UTC)
    assert found.certificate.issuer

    limited = replace(root, sasl_username=kafka.limited_username, sasl_password=Secret(kafka.limited_password))
    allow(kafka, topic, AclOperation.DESCRIBE)
    rights = cluster_rights(limited, [topic]).topic_operations[topic]
    assert rights == {"DESCRIBE"}
    allow(kafka, topic, AclOperation.WRITE)
    assert cluster_rights(limited, [topic]).topic_operations[topic] == {"DESCRIBE", "WRITE"}
    assert kafka.count(topic) == 0


def test_without_tls_there_is_no_certificate_and_a_cluster_that_is_away_is_told(kafka: KafkaRig) -> None:
    assert cluster_rights(Cluster("Kafka Collaudo", kafka.plaintext), []).certificate is None
    away = Cluster("Kafka Collaudo", "127.0.0.1:9", request_timeout_ms=2000)
    with pytest.raises(BrokerUnavailable, match="Kafka Collaudo"):
        cluster_rights(away, [], timeout_s=2)
