"""What each client does not support, decided from the settings alone: no client is imported, nothing is contacted."""

from __future__ import annotations

from core.errors import ConfigError
from core.kafka.client_options import refuse_options
from core.kafka.clients import CLIENTS
from core.kafka.security import require_complete
from core.model.connection import Cluster

__all__ = ["refuse_unsupported"]

MAX_IDEMPOTENT_REQUESTS = 5
"""Brokers remember the order of the last five requests of an idempotent producer."""
_IDEMPOTENT = " or ".join(name for name, client in CLIENTS.items() if client.is_idempotent)


def refuse_unsupported(cluster: Cluster, *, transactional: bool = False) -> None:
    """Refuses settings that the cluster's client does not support, instead of ignoring them.

    Args:
        cluster: The cluster with its client.
        transactional: Whether delivery is "exactly_once".

    Raises:
        ConfigError: With the reason and what to set.
    """
    require_complete(cluster)
    refuse_options(cluster)
    if cluster.client_rack and not CLIENTS[cluster.client].reports_rights:
        raise ConfigError(
            f"KAFKA_CLIENT={cluster.client} has no KAFKA_CLIENT_RACK",
            why="it reads from the leaders only",
            remedy="delete it, or choose another client",
            key="KAFKA_CLIENT_RACK",
        )
    if not CLIENTS[cluster.client].is_idempotent:
        _refuse_idempotence(cluster, transactional)
    elif transactional and not cluster.enable_idempotence:
        raise ConfigError(
            'delivery "exactly_once" needs an idempotent producer',
            why="KAFKA_ENABLE_IDEMPOTENCE is false",
            remedy="set KAFKA_ENABLE_IDEMPOTENCE=true",
            key="KAFKA_ENABLE_IDEMPOTENCE",
        )
    elif cluster.enable_idempotence and cluster.max_in_flight_requests > MAX_IDEMPOTENT_REQUESTS:
        raise ConfigError(
            f"KAFKA_MAX_IN_FLIGHT_REQUESTS={cluster.max_in_flight_requests} cannot be had with KAFKA_ENABLE_IDEMPOTENCE=true",
            why=f"a broker keeps the order of {MAX_IDEMPOTENT_REQUESTS} requests at most",
            remedy=f"set KAFKA_MAX_IN_FLIGHT_REQUESTS to 1 … {MAX_IDEMPOTENT_REQUESTS}",
            key="KAFKA_MAX_IN_FLIGHT_REQUESTS",
        )


def _refuse_idempotence(cluster: Cluster, transactional: bool) -> None:
    if transactional:
        raise no_transactions(cluster.client)
    if cluster.enable_idempotence:
        raise ConfigError(
            f"KAFKA_CLIENT={cluster.client} cannot send with KAFKA_ENABLE_IDEMPOTENCE=true",
            why="that client has no idempotent producer: an acknowledgement that comes late makes a second record",
            remedy=f"set KAFKA_ENABLE_IDEMPOTENCE=false and accept repeated records, or KAFKA_CLIENT to {_IDEMPOTENT}",
            key="KAFKA_ENABLE_IDEMPOTENCE",
        )


def no_transactions(client: str) -> ConfigError:
    """Returns the error for exactly-once delivery with a client that has no transactions."""
    return ConfigError(
        f'delivery "exactly_once" cannot be had with KAFKA_CLIENT={client}',
        why="that client has no transactions",
        remedy=f"set KAFKA_CLIENT to {_IDEMPOTENT}",
        key="KAFKA_CLIENT",
    )
