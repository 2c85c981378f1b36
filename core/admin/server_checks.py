"""Checks of databases and Kafka clusters: each one is contacted; nothing is changed and nothing is sent."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from core.admin.registry_check import check_registry
from core.errors import (
    BrokerUnavailable,
    PsttError,
    RegistryUnavailable,
    SecretUnavailable,
    SourceUnavailable,
    WorkersUnavailable,
)
from core.formatting import counted
from core.kafka import open_publisher
from core.kafka.clients import CLIENTS
from core.kafka.topic_settings import topic_settings
from core.model.check_result import CheckResult
from core.model.connection import Cluster, DatabaseConnection
from core.model.job import Job, NewTopic
from core.model.publisher import Publisher, TopicInfo
from core.model.source import Source
from core.records.ledger import Ledger
from core.run.exactly_once import foreign_sender
from core.sources import find_dialect, open_source
from core.workspace.connections import Connections
from core.workspace.identity import Identity, read_identity
from core.workspace.paths import Workspace
from core.workspace.settings import Settings

if TYPE_CHECKING:
    from core.kafka.cluster_rights import Certificate, ClusterRights

__all__ = ["Servers", "check_cluster", "check_clusters", "check_database", "check_identity", "guarded"]

SLOW_MS = 1000.0
TOPICS_TIMEOUT_S = 10.0
CERTIFICATE_DAYS = 30


def _cluster_rights(cluster: Cluster, topics: Iterable[str]) -> ClusterRights:
    """Needs librdkafka, which not every machine has."""
    from core.kafka.cluster_rights import cluster_rights

    return cluster_rights(cluster, topics)


def _topic_differences(cluster: Cluster, found: TopicInfo, wanted: NewTopic) -> list[str]:
    """Needs librdkafka, which not every machine has."""
    from core.kafka.topic_creation import topic_differences

    return topic_differences(cluster, found, wanted)


@dataclass(frozen=True, slots=True)
class Servers:
    """How the checks reach servers, and the clock that certificates are compared with."""

    open_source: Callable[[DatabaseConnection], Source] = open_source
    open_publisher: Callable[[Cluster], Publisher] = open_publisher
    ask_rights: Callable[[Cluster, Iterable[str]], ClusterRights] = _cluster_rights
    now: Callable[[], datetime] = lambda: datetime.now(UTC)


def guarded(subject: str, check: Callable[[], Iterable[CheckResult]]) -> Iterator[CheckResult]:
    """Yields the results of one check. A PsttError becomes its last result."""
    try:
        yield from check()
    except PsttError as error:
        unreachable = isinstance(
            error, SourceUnavailable | BrokerUnavailable | SecretUnavailable | WorkersUnavailable | RegistryUnavailable
        )
        yield CheckResult("fail", subject, error.text, error.remedy, unreachable=unreachable)


def check_database(connections: Connections, name: str, servers: Servers) -> Iterator[CheckResult]:
    """Connects to one database. Yields a result as soon as it is known; no PsttError is raised."""
    subject = f"database {name}"
    yield from guarded(subject, partial(_database, connections, name, subject, servers))


def _database(connections: Connections, name: str, subject: str, servers: Servers) -> Iterator[CheckResult]:
    connection = connections.database(name)
    missing = find_dialect(connection.db_type).missing(connection.driver)
    if missing:
        yield missing
        return
    with closing(servers.open_source(connection)) as source:
        yield from (_under(subject, result) for result in source.check())


def _under(subject: str, result: CheckResult) -> CheckResult:
    """Returns the result of a source with our subject: a source does not know the name of its connection."""
    text = result.text if result.subject in ("", subject) else f"{result.subject}: {result.text}"
    return replace(result, subject=subject, text=text)


def check_clusters(
    settings: Settings, connections: Connections, jobs: Sequence[Job], servers: Servers
) -> Iterator[CheckResult]:
    """Connects to each cluster once and checks the topics of all jobs, also to the cluster of the KAFKA_* settings."""
    topics: dict[Cluster, dict[str, Job]] = {}
    for name in connections.cluster_names:
        try:
            topics[connections.cluster(name, settings)] = {}
        except PsttError as error:
            yield CheckResult("fail", f"cluster {name}", error.text, error.remedy)
    for job in jobs:
        try:
            connections.require(job)
            if job.export_format != "kafka" or not job.kafka_config.enabled:
                continue
            cluster = connections.cluster_for(job, settings)
        except PsttError as error:
            yield CheckResult("fail", f"job {job.slug}", error.text, error.remedy)
        else:
            of_cluster = topics.setdefault(cluster, {})
            name = job.kafka_config.topic or cluster.default_topic
            # The job that says how the topic is created decides what it is compared with.
            if name not in of_cluster or of_cluster[name].kafka_config.create_topic is None:
                of_cluster[name] = job if job.kafka_config.create_topic else of_cluster.get(name, job)
    for cluster, wanted in topics.items():
        yield from check_cluster(cluster, wanted, servers)


def check_cluster(cluster: Cluster, wanted: Mapping[str, Job], servers: Servers) -> Iterator[CheckResult]:
    """Connects to one cluster. Yields a result as soon as it is known; no PsttError is raised.

    Args:
        cluster: Its settings, resolved.
        wanted: Topic → a job that sends to it.
        servers: How the cluster is reached.
    """
    subject = f"cluster {cluster.name}"
    yield from guarded(subject, partial(_cluster, cluster, wanted, subject, servers))
    yield from guarded(f"{subject}, registry", partial(check_registry, cluster, f"{subject}, registry"))


def _cluster(cluster: Cluster, wanted: Mapping[str, Job], subject: str, servers: Servers) -> Iterator[CheckResult]:
    publisher = servers.open_publisher(cluster)
    try:
        began = time.perf_counter()
        topics = publisher.topics(TOPICS_TIMEOUT_S)
        latency_ms = (time.perf_counter() - began) * 1000
    finally:
        publisher.close(timeout_s=1)
    place = "mock brokers in this process" if cluster.mock_brokers else cluster.bootstrap_servers
    text = f"{place} answered in {latency_ms:,.0f} ms, {len(topics):,} {'topic' if len(topics) == 1 else 'topics'}"
    if latency_ms > SLOW_MS:
        yield CheckResult("warn", subject, text, "check the network between here and the brokers")
    else:
        yield CheckResult("pass", subject, text)
    for topic, job in wanted.items():
        yield from _topic(cluster, subject, topic, job, topics)
    if not CLIENTS[cluster.client].reports_rights:
        yield CheckResult("pass", subject, f"{cluster.client} does not report what this account may do there")
    elif cluster.sasl_mechanism == "GSSAPI" and not _reads_by_kerberos(cluster):
        yield CheckResult(
            "warn",
            subject,
            "what this account may do there is not known: librdkafka, which asks, has no Kerberos",
            "docs/KAFKA_SETUP.md says what exactly_once and verify need",
        )
    elif not cluster.mock_brokers:
        names = {info.name for info in topics}
        existing = [topic for topic in wanted if topic in names]
        yield from guarded(subject, partial(_rights, cluster, subject, existing, servers))


def _reads_by_kerberos(cluster: Cluster) -> bool:
    from core.kafka.librdkafka import can_log_in  # loads confluent_kafka

    return can_log_in(cluster)


def _topic(cluster: Cluster, subject: str, topic: str, job: Job, topics: list[TopicInfo]) -> Iterator[CheckResult]:
    """Searches the list of all topics: asking for one by name would create it on some clusters."""
    found = next((info for info in topics if info.name == topic), None)
    text = f'topic "{topic}" of job {job.slug}'
    wanted = job.kafka_config.create_topic
    if found:
        yield CheckResult("pass", subject, f"{text}: {counted(found.partitions, 'partition')}")
        yield from _as_job_wants(cluster, subject, job, found)
    elif cluster.mock_brokers:
        yield CheckResult("pass", subject, f"{text} is made on first use")
    elif wanted:
        yield CheckResult(
            "pass", subject, f"{text} is created by its first run, with {counted(wanted.partitions, 'partition')}"
        )
    else:
        yield CheckResult(
            "warn",
            subject,
            f"{text} is not there, or this account may not see it",
            "have it made before the first run, unless this cluster makes topics on first use",
        )


def _as_job_wants(cluster: Cluster, subject: str, job: Job, found: TopicInfo) -> Iterator[CheckResult]:
    """Yields how an existing topic differs from what its job says about it."""
    number = job.kafka_config.partition
    if number is not None and number >= found.partitions:
        yield CheckResult(
            "fail",
            subject,
            f'job {job.slug} sends to partition {number}, and topic "{found.name}" has 0 to {found.partitions - 1}',
            "correct kafka_config.partition, or have partitions added to the topic",
        )
    if job.kafka_config.timestamp_field is not None and not cluster.mock_brokers:
        yield from _record_times(cluster, subject, job.kafka_config.timestamp_field, found.name)
    if job.kafka_config.create_topic is not None:
        for difference in _topic_differences(cluster, found, job.kafka_config.create_topic):
            yield CheckResult(
                "warn", subject, difference, "have the topic changed, or correct create_topic: a run never changes it"
            )


def _record_times(cluster: Cluster, subject: str, column: str, topic: str) -> Iterator[CheckResult]:
    """Yields what the broker does with the record times of a job: it may replace them, and it deletes by them."""
    try:
        settings = {entry.name: entry.value for entry in topic_settings(cluster, topic)}
    except (PsttError, ImportError):  # this account may not read them, or librdkafka is not installed
        return
    if settings.get("message.timestamp.type") == "LogAppendTime":
        text = f'topic "{topic}" replaces the time in column {column}: message.timestamp.type is LogAppendTime'
        yield CheckResult("warn", subject, text, "have it set to CreateTime, or remove timestamp_field")
    elif "delete" in settings.get("cleanup.policy", "") and settings.get("retention.ms", "-1") != "-1":
        kept = f"retention.ms={int(settings['retention.ms']):,}"
        yield CheckResult(
            "pass", subject, f'topic "{topic}" keeps records for {kept} from their time in column {column}'
        )


def _rights(cluster: Cluster, subject: str, topics: Sequence[str], servers: Servers) -> Iterator[CheckResult]:
    """Yields the account's name, its rights, and how long the brokers' certificate is valid."""
    found = servers.ask_rights(cluster, topics)
    name = cluster.sasl_username or cluster.sasl_kerberos_principal or cluster.sasl_oauthbearer_client_id
    account = f'account "{name}"' if name else "no account"
    has_certificate = cluster.ssl_certfile or cluster.ssl_keystore_location
    account = "the account of our certificate" if has_certificate else account
    sign_in = " ".join(filter(None, [cluster.security_protocol, cluster.sasl_mechanism]))
    brokers = "1 broker" if found.brokers == 1 else f"{found.brokers:,} brokers"
    yield CheckResult("pass", subject, f"{account} over {sign_in}; {brokers}, cluster id {found.cluster_id}")
    if found.certificate:
        yield _certificate(subject, found.certificate, servers.now())
    for topic in topics:
        yield _may_write(subject, topic, found.topic_operations.get(topic))
    if found.cluster_operations is not None:
        makes = "may" if "CREATE" in found.cluster_operations else "may not"
        yield CheckResult("pass", subject, f"this account {makes} make topics")


def _certificate(subject: str, certificate: Certificate, now: datetime) -> CheckResult:
    days = (certificate.valid_until - now).days
    text = (
        f"certificate of {certificate.subject}, issued by {certificate.issuer}, "
        f"valid until {certificate.valid_until:%Y-%m-%d}, {days:,} {'day' if days == 1 else 'days'}"
    )
    if days < CERTIFICATE_DAYS:
        return CheckResult("warn", subject, text, "have it renewed before then: no run can send once it has expired")
    return CheckResult("pass", subject, text)


def _may_write(subject: str, topic: str, operations: frozenset[str] | None) -> CheckResult:
    if operations is None:
        return CheckResult(
            "warn", subject, f'whether this account may write to topic "{topic}", these brokers do not report'
        )
    rights = ", ".join(sorted(word.lower().replace("_", " ") for word in operations))
    if "WRITE" in operations:
        return CheckResult("pass", subject, f'this account may write to topic "{topic}" ({rights})')
    return CheckResult(
        "fail",
        subject,
        f'this account may not write to topic "{topic}"' + (f" (only: {rights})" if rights else ""),
        "ask the cluster's administrators for WRITE and DESCRIBE on it",
    )


def check_identity(
    workspace: Workspace, settings: Settings, connections: Connections, jobs: Sequence[Job], servers: Servers
) -> Iterator[CheckResult]:
    """Yields a failure for each cluster to which another workspace has sent with the identity of this one."""
    known = read_identity(workspace)
    if known is None:
        return
    transactional = [job for job in jobs if job.delivery == "exactly_once" and job.export_format == "kafka"]
    for cluster in dict.fromkeys(_cluster_of(job, connections, settings) for job in transactional):
        if cluster is not None and not cluster.mock_brokers and CLIENTS[cluster.client].is_idempotent:
            yield from guarded("identity", partial(_identity, workspace, settings, known, cluster, servers))


def _identity(
    workspace: Workspace, settings: Settings, known: Identity, cluster: Cluster, servers: Servers
) -> Iterator[CheckResult]:
    with closing(servers.open_publisher(cluster)) as publisher, Ledger(workspace.ledger_file) as ledger:
        key = known.id.encode()
        raw = publisher.read_control(settings.PSTT_CONTROL_TOPIC, [key]).get(key)
        foreign = foreign_sender(raw, known, ledger) if raw else None
    if foreign:
        yield CheckResult("fail", "identity", f"cluster {cluster.name}: {foreign.text}", foreign.remedy)


def _cluster_of(job: Job, connections: Connections, settings: Settings) -> Cluster | None:
    """Returns None if its settings are wrong, which `check_clusters` reports."""
    try:
        return connections.cluster_for(job, settings)
    except PsttError:
        return None
