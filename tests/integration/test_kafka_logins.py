"""Kerberos with a real KDC, and tokens of an issuer, on one real broker with every client."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AclOperation

from core.admin.server_checks import Servers, check_cluster
from core.errors import BrokerUnavailable, ConfigError, NotAuthorised, PsttError
from core.kafka import open_publisher
from core.kafka.clients import CLIENTS
from core.kafka.cluster_rights import cluster_rights
from core.kafka.librdkafka import has_gssapi
from core.kafka.oauth import token_source
from core.kafka.record_reader import read_message
from core.kafka.sender import Sender
from core.kafka.topic_settings import topic_settings
from core.model.connection import Cluster, RenewedSecret, Secret
from core.model.publisher import Batch, Delivery
from tests.rigs.company_kafka import CompanyKafka
from tests.rigs.java_stores import client_certificates
from tests.rigs.kerberos import REALM, KerberosRig
from tests.rigs.token_issuer import CLIENT_ID, CLIENT_SECRET, SCOPE, TokenIssuer
from tests.rigs.waiting import until

PRINCIPAL, OTHER = f"pstt@{REALM}", f"limited@{REALM}"
Open = Callable[[Cluster], Any]


@pytest.fixture(scope="module")
def kdc() -> Iterator[KerberosRig]:
    with KerberosRig() as rig, pytest.MonkeyPatch.context() as environment:
        environment.setenv("KRB5_CONFIG", str(rig.config))
        environment.setenv("KRB5CCNAME", "MEMORY:no-ticket-of-this-process")
        yield rig


@pytest.fixture(scope="module")
def issuer() -> Iterator[TokenIssuer]:
    with TokenIssuer() as rig:
        yield rig


@pytest.fixture(scope="module")
def broker(kdc: KerberosRig, issuer: TokenIssuer) -> Iterator[CompanyKafka]:
    with CompanyKafka(kdc.config, kdc.keytab("kafka/localhost"), issuer) as rig:
        yield rig


@pytest.fixture(scope="module")
def keytab(kdc: KerberosRig) -> Path:
    return kdc.keytab("pstt")


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def kerberos(broker: CompanyKafka, keytab: Path) -> Callable[..., Cluster]:
    def make(client: str, **changes: Any) -> Cluster:
        if client == "confluent" and not has_gssapi():
            pytest.skip("the wheel of confluent-kafka has no Kerberos")
        values = common(client) | {
            "sasl_mechanism": "GSSAPI",
            "sasl_kerberos_keytab": keytab,
            "sasl_kerberos_principal": PRINCIPAL,
        }
        return Cluster("Kafka Collaudo", broker.gssapi, "SASL_PLAINTEXT", **values | changes)

    return make


@pytest.fixture
def tokens(broker: CompanyKafka, issuer: TokenIssuer) -> Iterator[Callable[..., Cluster]]:
    def make(client: str, **changes: Any) -> Cluster:
        values = common(client) | {
            "sasl_mechanism": "OAUTHBEARER",
            "sasl_oauthbearer_token_endpoint_url": issuer.token_url,
            "sasl_oauthbearer_client_id": CLIENT_ID,
            "sasl_oauthbearer_client_secret": Secret(CLIENT_SECRET),
            "sasl_oauthbearer_scope": SCOPE,
        }
        return Cluster("Kafka Collaudo", broker.oauth, "SASL_PLAINTEXT", **values | changes)

    yield make
    issuer.reset()
    token_source.cache_clear()


@pytest.fixture
def opened() -> Iterator[Open]:
    publishers = []

    def make(cluster: Cluster) -> Any:
        publishers.append(open_publisher(cluster))
        return publishers[-1]

    yield make
    for publisher in publishers:
        publisher.close(0.0)


def common(client: str) -> dict[str, Any]:
    return {
        "client": client,
        "enable_idempotence": CLIENTS[client].is_idempotent,
        "request_timeout_ms": 2000,
        "delivery_timeout_ms": 2500,
    }


def sent(publisher: Any, topic: str) -> Delivery:
    keys: list[bytes | None] = [b"k0", b"k1", b"k2"]
    batch = Batch(1, topic, keys, [b"v"] * 3, [b"%032x" % number for number in range(3)], range(1, 4))
    sender = Sender(publisher, max_retries=1, backoff_ms=1)
    delivery = sender.submit(batch)
    sender.drain(30)
    return delivery


def arrives(broker: CompanyKafka, opened: Open, cluster: Cluster) -> str:
    """Sends over a cluster and compares what is there; returns the topic."""
    topic = broker.create_topic()
    publisher = opened(cluster)
    publisher.require_topic(topic)
    assert sent(publisher, topic).errors == {}
    assert {message.key() for message in broker.read(topic)} == {b"k0", b"k1", b"k2"}
    assert len(publisher.describe(topic).partitions) == 3
    assert topic in [info.name for info in publisher.topics()]
    return topic


def in_a_transaction(broker: CompanyKafka, cluster: Cluster) -> None:
    """Sends in a transaction, which needs the control topic and a producer that is idempotent."""
    publisher = open_publisher(cluster, transactional_id=f"t-{cluster.client}-{cluster.sasl_mechanism}")
    topic = broker.create_topic()
    try:
        publisher.prepare_once("pstt-control")
        publisher.begin()
        assert sent(publisher, topic).errors == {}
        publisher.commit()
    finally:
        publisher.close(0.0)
    until(lambda: len(broker.read(topic)) == 3, "the commit is not visible")


def failure(opened: Open, cluster: Cluster, broker: CompanyKafka, kind: type[PsttError]) -> PsttError:
    """The error of a cluster that cannot be used; no secret is in any of its texts."""
    with pytest.raises(kind) as caught:
        opened(cluster).require_topic("t", 3.0)
    whole = "".join(traceback.format_exception(caught.value)) + caught.value.text + caught.value.remedy
    assert CLIENT_SECRET not in whole
    assert "eyJ" not in whole  # as each token begins
    return caught.value


# ── Kerberos ──────────────────────────────────────────────────────────────────────────────────


def test_messages_arrive_with_a_keytab(
    client: str, kerberos: Callable[..., Cluster], broker: CompanyKafka, opened: Open
):
    arrives(broker, opened, kerberos(client))


@pytest.mark.parametrize("client", ["aiokafka", "kafka-python-ng"])
def test_each_cluster_logs_in_with_its_own_keytab(
    client: str, kerberos: Callable[..., Cluster], kdc: KerberosRig, broker: CompanyKafka, opened: Open
):
    """One process has several logins: the ticket of one is not used for the other."""
    topic = broker.create_topic()
    broker.allow("limited", topic, AclOperation.DESCRIBE)
    other = kerberos(
        client,
        sasl_kerberos_keytab=kdc.keytab("limited"),
        sasl_kerberos_principal=OTHER,
        enable_idempotence=False,  # for which the cluster is asked before the topic
    )
    assert sent(opened(kerberos(client)), topic).errors == {}
    errors = sent(opened(other), topic).errors
    assert {str(error) for error in errors.values()} == {
        f'user "{OTHER}" may not write to topic "{topic}" of cluster "Kafka Collaudo" ({broker.gssapi}):'
        " the broker's access rules (ACL) say no. have the rights Describe and Write on that topic given to this account"
    }
    assert sent(opened(kerberos(client)), topic).errors == {}


@pytest.mark.parametrize("client", ["aiokafka", "kafka-python-ng"])
def test_a_keytab_of_another_principal_is_one_error(
    client: str, kerberos: Callable[..., Cluster], broker: CompanyKafka, opened: Open
):
    error = failure(opened, kerberos(client, sasl_kerberos_principal=OTHER), broker, NotAuthorised)
    assert f'{OTHER} gets no Kerberos ticket for cluster "Kafka Collaudo"' in error.text
    assert "klist -k" in error.remedy


@pytest.mark.parametrize("client", ["aiokafka", "kafka-python-ng"])
def test_a_keytab_with_an_old_key_is_one_error(
    client: str, kerberos: Callable[..., Cluster], kdc: KerberosRig, broker: CompanyKafka, opened: Open, tmp_path: Path
):
    old = tmp_path / "old.keytab"
    old.write_bytes(kdc.keytab(f"rotated-{client}").read_bytes())
    kdc.keytab(f"rotated-{client}")
    cluster = kerberos(client, sasl_kerberos_keytab=old, sasl_kerberos_principal=f"rotated-{client}@{REALM}")
    assert "has the present key" in failure(opened, cluster, broker, NotAuthorised).remedy


@pytest.mark.parametrize("client", ["aiokafka", "kafka-python-ng"])
def test_a_principal_that_the_realm_does_not_know_is_one_error(
    client: str, kerberos: Callable[..., Cluster], kdc: KerberosRig, broker: CompanyKafka, opened: Open
):
    cluster = kerberos(client, sasl_kerberos_principal=f"nobody@{REALM}")
    assert f"nobody@{REALM} gets no Kerberos ticket" in failure(opened, cluster, broker, NotAuthorised).text


@pytest.mark.parametrize("client", ["aiokafka", "kafka-python-ng"])
def test_another_service_name_is_named(
    client: str, kerberos: Callable[..., Cluster], broker: CompanyKafka, opened: Open
):
    error = failure(opened, kerberos(client, sasl_kerberos_service_name="bus"), broker, NotAuthorised)
    assert "(bus@localhost)" in error.text
    assert "KAFKA_SASL_KERBEROS_SERVICE_NAME" in error.remedy


@pytest.mark.parametrize("client", ["aiokafka", "kafka-python-ng"])
def test_without_keytab_and_ticket_the_error_says_what_to_set(
    client: str, kerberos: Callable[..., Cluster], broker: CompanyKafka, opened: Open
):
    if has_gssapi():
        pytest.skip("the process has a default ticket already")
    cluster = kerberos(client, sasl_kerberos_keytab=None, sasl_kerberos_principal=None)
    error = failure(opened, cluster, broker, NotAuthorised)
    assert "this account gets no Kerberos ticket" in error.text
    assert "set KAFKA_SASL_KERBEROS_KEYTAB and KAFKA_SASL_KERBEROS_PRINCIPAL" in error.remedy


@pytest.mark.parametrize("client", ["aiokafka", "kafka-python-ng"])
def test_a_kdc_that_does_not_answer_is_retriable(
    client: str,
    kerberos: Callable[..., Cluster],
    kdc: KerberosRig,
    broker: CompanyKafka,
    opened: Open,
    monkeypatch: pytest.MonkeyPatch,
):
    cluster = kerberos(client, sasl_kerberos_keytab=kdc.keytab("away"), sasl_kerberos_principal=f"away@{REALM}")
    monkeypatch.setenv("KRB5_CONFIG", str(kdc.config_without_kdc))
    error = failure(opened, cluster, broker, BrokerUnavailable)
    assert "check the key distribution centre" in error.remedy


@pytest.mark.parametrize("client", ["aiokafka", "confluent"])
def test_a_transaction_is_possible_with_a_librdkafka_that_has_kerberos(
    client: str, kerberos: Callable[..., Cluster], broker: CompanyKafka
):
    if not has_gssapi():
        pytest.skip("the wheel of confluent-kafka has no Kerberos")
    in_a_transaction(broker, kerberos(client, request_timeout_ms=10_000, delivery_timeout_ms=10_000))


def test_what_needs_librdkafka_is_refused_where_that_has_no_kerberos(
    kerberos: Callable[..., Cluster], broker: CompanyKafka
):
    cluster = kerberos("aiokafka")
    if has_gssapi():
        assert cluster_rights(cluster, []).brokers == 1
        return
    for attempt in (
        lambda: open_publisher(cluster, transactional_id="t"),
        lambda: open_publisher(replace(cluster, client="confluent")),
        lambda: cluster_rights(cluster, []),
        lambda: topic_settings(cluster, "t"),
    ):
        with pytest.raises(ConfigError, match="cannot be used through librdkafka: it has no Kerberos"):
            attempt()


@pytest.mark.parametrize("client", ["aiokafka", "kafka-python-ng"])
def test_doctor_says_what_kerberos_cannot_do(client: str, kerberos: Callable[..., Cluster], broker: CompanyKafka):
    found = list(check_cluster(kerberos(client), {}, Servers()))
    assert [result.status for result in found if result.status == "fail"] == []
    if client == "aiokafka" and not has_gssapi():
        assert "librdkafka, which asks, has no Kerberos" in found[-1].text


# ── stores ──────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def stores(broker: CompanyKafka, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The client's certificate in each form that companies have it."""
    return client_certificates(broker, tmp_path_factory.mktemp("stores"))


@pytest.mark.parametrize("kind", ["jks", "pkcs12", "encrypted key"])
def test_messages_arrive_with_a_client_certificate_from(
    kind: str, client: str, stores: dict[str, dict[str, Any]], broker: CompanyKafka, opened: Open
):
    values = common(client) | stores[kind]
    topic = arrives(broker, opened, Cluster("Kafka Collaudo", broker.mtls, "SSL", **values))
    assert cluster_rights(Cluster("c", broker.mtls, "SSL", **values), [topic]).brokers == 1


# ── tokens ────────────────────────────────────────────────────────────────────────────────────


def test_messages_arrive_with_client_credentials(
    client: str, tokens: Callable[..., Cluster], broker: CompanyKafka, issuer: TokenIssuer, opened: Open
):
    cluster = tokens(client, sasl_oauthbearer_extensions="logicalCluster=lkc-1,identityPoolId=pool-1")
    topic = arrives(broker, opened, cluster)
    assert read_message(cluster, topic, *place_of_a_message(broker, topic)).value == b"v"
    assert cluster_rights(cluster, [topic]).brokers == 1
    assert issuer.asked == [{"grant_type": "client_credentials", "scope": SCOPE}]  # one token for all clients


def place_of_a_message(broker: CompanyKafka, topic: str) -> tuple[int, int]:
    message = broker.read(topic)[0]
    return message.partition(), message.offset()


@pytest.mark.parametrize("client", ["aiokafka", "confluent"])
def test_a_transaction_is_possible_with_a_token(client: str, tokens: Callable[..., Cluster], broker: CompanyKafka):
    in_a_transaction(broker, tokens(client, request_timeout_ms=10_000, delivery_timeout_ms=10_000))


def test_a_token_from_elsewhere_is_read_again_when_it_has_expired(
    client: str, tokens: Callable[..., Cluster], broker: CompanyKafka, issuer: TokenIssuer, opened: Open
):
    """As for exec: and vault:, whose token lasts for some minutes."""
    expired = issuer.token(exp=1_700_000_000)
    given = RenewedSecret(expired, lambda: Secret(issuer.token()))
    arrives(broker, opened, tokens(client, sasl_oauthbearer_token_endpoint_url=None, sasl_oauthbearer_token=given))
    assert issuer.asked == []


def test_an_expired_token_is_one_error(
    client: str, tokens: Callable[..., Cluster], broker: CompanyKafka, issuer: TokenIssuer, opened: Open
):
    token = Secret(issuer.token(exp=1_700_000_000))
    cluster = tokens(client, sasl_oauthbearer_token_endpoint_url=None, sasl_oauthbearer_token=token)
    assert "the token has expired" in failure(opened, cluster, broker, NotAuthorised).text


def test_a_token_that_the_broker_refuses_is_one_error(
    client: str, tokens: Callable[..., Cluster], broker: CompanyKafka, issuer: TokenIssuer, opened: Open
):
    issuer.claims = {"iss": "https://another-issuer.example.com"}
    error = failure(opened, tokens(client), broker, NotAuthorised)
    assert f'refuses the login of user "{CLIENT_ID}": the token is refused' in error.text
    assert "issuer, audience and scope" in error.remedy


@pytest.mark.parametrize(
    ("answer", "kind", "said"),
    [
        ((500, b"{}"), BrokerUnavailable, "answers 500"),
        ((200, b"<html>sign in</html>"), ConfigError, "what answers there is no token endpoint"),
        ((200, b'{"access_token": ""}'), ConfigError, "what answers there is no token endpoint"),
        ((302, b""), ConfigError, "it answers 302"),
        ((404, b"not found"), ConfigError, "it answers 404"),
    ],
)
def test_a_broken_token_endpoint_is_one_error(
    answer: tuple[int, bytes],
    kind: type[PsttError],
    said: str,
    client: str,
    tokens: Callable[..., Cluster],
    broker: CompanyKafka,
    issuer: TokenIssuer,
    opened: Open,
):
    issuer.broken = answer
    error = failure(opened, tokens(client), broker, kind)
    assert 'there is no token for the login to cluster "Kafka Collaudo"' in error.text
    assert said in error.text


def test_a_wrong_secret_of_the_client_is_one_error(
    client: str, tokens: Callable[..., Cluster], broker: CompanyKafka, opened: Open
):
    cluster = tokens(client, sasl_oauthbearer_client_secret=Secret("wrong"))
    error = failure(opened, cluster, broker, NotAuthorised)
    assert f"refuses client '{CLIENT_ID}' (invalid_client)" in error.text


def test_a_slow_token_endpoint_is_one_error(
    client: str, tokens: Callable[..., Cluster], broker: CompanyKafka, issuer: TokenIssuer, opened: Open
):
    issuer.drips.set()
    error = failure(opened, tokens(client, request_timeout_ms=1000), broker, BrokerUnavailable)
    assert "gave no answer within 1 s" in error.text


def test_an_endpoint_that_is_away_is_one_error(
    client: str, tokens: Callable[..., Cluster], broker: CompanyKafka, opened: Open
):
    cluster = tokens(client, sasl_oauthbearer_token_endpoint_url="http://127.0.0.1:1/token")
    assert "127.0.0.1:1 does not answer: connection refused" in failure(opened, cluster, broker, BrokerUnavailable).text
