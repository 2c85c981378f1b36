"""Settings of aiokafka, its logins, and the publisher that reads for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

from core.kafka.aiokafka_workarounds import Tokens
from core.kafka.client_options import options_for
from core.kafka.confluent import ConfluentPublisher
from core.kafka.librdkafka import TRANSACTION_TIMEOUT_MS, can_log_in
from core.kafka.login import login_config
from core.kafka.security import tls_context, uses_login, uses_tls
from core.model.connection import Cluster

__all__ = ["producer_config", "reader_of"]


def producer_config(cluster: Cluster, *, transactional_id: str | None = None) -> dict[str, Any]:
    """Returns every setting of a producer, by aiokafka's names. It contains the password: never log it."""
    config: dict[str, Any] = options_for(cluster, "aiokafka") | {
        "bootstrap_servers": [part.strip() for part in cluster.bootstrap_servers.split(",")],
        "client_id": cluster.client_id,
        "security_protocol": cluster.security_protocol,
        "request_timeout_ms": cluster.request_timeout_ms,
        "retry_backoff_ms": cluster.retry_backoff_ms,
        "acks": "all",
        "enable_idempotence": cluster.enable_idempotence,
        "linger_ms": 0,  # record batches arrive finished
    }
    if transactional_id is not None:
        config |= {"transactional_id": transactional_id, "transaction_timeout_ms": TRANSACTION_TIMEOUT_MS}
    if uses_login(cluster):
        config["sasl_mechanism"] = cluster.sasl_mechanism
        config |= login_config(cluster, Tokens)
    if uses_tls(cluster):
        config["ssl_context"] = tls_context(cluster)
    return config


def reader_of(cluster: Cluster, clock: Callable[[], float], *, transactional: bool) -> ConfluentPublisher:
    """Returns the publisher that reads for aiokafka: librdkafka's or, where that cannot log in by Kerberos, kafka-python-ng's.

    Raises:
        ConfigError: Transactions need librdkafka, which cannot log in.
    """
    if transactional or can_log_in(cluster):
        return ConfluentPublisher(cluster, clock=clock)
    from core.kafka.kafka_python import KafkaPythonPublisher  # loaded only where it is needed

    options = tuple((name, value) for name, value in cluster.client_options if name == "sasl_kerberos_domain_name")
    own = replace(cluster, client="kafka-python-ng", enable_idempotence=False, client_options=options, client_rack=None)
    # It has what aiokafka needs of the other without transactions.
    return cast(ConfluentPublisher, KafkaPythonPublisher(own, clock=clock))
