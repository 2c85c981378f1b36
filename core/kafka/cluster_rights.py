"""Asks a cluster which account it has authenticated and what it allows it to do. Nothing is sent to find out."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from core.kafka.client_log import ClientLog
from core.kafka.diagnosis import Diagnosis
from core.kafka.librdkafka import translated
from core.kafka.probe import addresses
from core.kafka.security import tls_context, uses_tls
from core.model.connection import Cluster

__all__ = ["Certificate", "ClusterRights", "cluster_rights"]

TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Certificate:
    """The certificate that the first reachable broker presents."""

    subject: str
    issuer: str
    valid_until: datetime
    """Aware, UTC."""


@dataclass(frozen=True, slots=True)
class ClusterRights:
    """What the cluster reports about itself and this account.

    Operations are Kafka's own names in capitals: `WRITE`, `DESCRIBE`, `CREATE`.
    """

    cluster_id: str
    brokers: int
    cluster_operations: frozenset[str] | None
    """None: the brokers are too old to report it."""
    topic_operations: dict[str, frozenset[str] | None]
    """Of the existing topics that were asked for."""
    certificate: Certificate | None
    """None without TLS, and where certificates are not verified."""


def cluster_rights(cluster: Cluster, topics: Iterable[str], *, timeout_s: float = TIMEOUT_S) -> ClusterRights:
    """Asks the cluster what this account may do with it and with these topics, all of which exist.

    Raises:
        BrokerUnavailable, NotAuthorised: The cluster cannot be asked.
    """
    from confluent_kafka import KafkaException, TopicCollection

    from core.kafka.admin_client import open_admin

    diagnosis = Diagnosis(cluster)
    client = open_admin(cluster, diagnosis, ClientLog(diagnosis, time.monotonic))
    asked: dict[str, Any] = {"include_authorized_operations": True, "request_timeout": timeout_s}
    wanted = sorted(set(topics))
    try:
        told = client.describe_cluster(**asked).result()
        described = client.describe_topics(TopicCollection(wanted), **asked) if wanted else {}
        operations = {name: _names(future.result().authorized_operations) for name, future in described.items()}
    except KafkaException as failure:
        raise translated(diagnosis, failure.args[0], wanted[0] if wanted else "", None) from None
    return ClusterRights(
        told.cluster_id or "", len(told.nodes), _names(told.authorized_operations), operations, _certificate(cluster)
    )


def _names(operations: Iterable[Any] | None) -> frozenset[str] | None:
    return None if operations is None else frozenset(operation.name for operation in operations)


def _certificate(cluster: Cluster) -> Certificate | None:
    """Reads the certificate over a connection of its own: the clients verify it and do not return it."""
    if not uses_tls(cluster):
        return None
    for host, port in addresses(cluster.bootstrap_servers):
        try:
            with (
                socket.create_connection((host, port), TIMEOUT_S) as connection,
                tls_context(cluster).wrap_socket(connection, server_hostname=host) as encrypted,
            ):
                shown = encrypted.getpeercert()
        except OSError:
            continue
        if shown:
            until = ssl.cert_time_to_seconds(str(shown["notAfter"]))
            return Certificate(
                _name(shown.get("subject")), _name(shown.get("issuer")), datetime.fromtimestamp(until, UTC)
            )
    return None


def _name(parts: Any) -> str:
    """Returns the common name, else the whole name."""
    pairs = [pair for part in parts or () for pair in part]
    common = [value for name, value in pairs if name == "commonName"]
    return common[0] if common else ", ".join(f"{name}={value}" for name, value in pairs)
