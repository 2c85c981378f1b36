"""The Kafka clients, one module each, behind the protocol `core.model.publisher.Publisher`.

A client library is imported when a publisher is opened, so an unused one costs nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from importlib import import_module

from core.errors import ConfigError
from core.kafka.clients import CLIENTS
from core.kafka.mock_cluster import resolved
from core.kafka.support import refuse_unsupported
from core.model.connection import Cluster
from core.model.publisher import Publisher

__all__ = ["bootstrap_servers", "import_client", "open_publisher", "refuse_unsupported"]

# Without a handler Python writes warnings to stderr, in the middle of the command's output. "kafka" and "aiokafka" are
# loggers of the clients, whose threads may still log when their publisher is closed.
for _name in ("pstt.kafka", "kafka", "aiokafka"):
    logging.getLogger(_name).addHandler(logging.NullHandler())


def open_publisher(cluster: Cluster, *, transactional_id: str | None = None, max_in_flight: int = 5000) -> Publisher:
    """Opens the client that the cluster's settings name. The brokers are contacted by the first call that needs them.

    Args:
        cluster: Its addresses and settings.
        transactional_id: The same for every run of one job; None: no transactions.
        max_in_flight: The most messages that are published and not yet reported. 5,000 keep the 99th percentile of the
            latency near 60 ms at full speed; more only wait longer.

    Raises:
        ConfigError: The settings are incomplete, contradict each other, or ask for something that this client does not
            support; or its library is not installed.
    """
    refuse_unsupported(cluster, transactional=transactional_id is not None)
    client = CLIENTS[cluster.client]
    try:
        opened = import_client(cluster.client)
    except ImportError as error:
        others = " or ".join(other for other in CLIENTS if other != cluster.client)
        raise ConfigError(
            f'cluster "{cluster.name}" is used through {cluster.client}, which cannot be imported',
            why=str(error),
            remedy=f"pip install {' '.join(client.libraries)}, or set KAFKA_CLIENT (client in connections.json) to {others}",
        ) from None
    publisher: Publisher = opened(cluster, transactional_id=transactional_id, max_in_flight=max_in_flight)
    return publisher


def import_client(name: str) -> Callable[..., Publisher]:
    """Imports a client with its library; returns the class of its publisher.

    Args:
        name: A value of KAFKA_CLIENT.

    Raises:
        ImportError: The library is not installed.
    """
    module, _, publisher = CLIENTS[name].publisher.partition(":")
    found: Callable[..., Publisher] = getattr(import_module(module), publisher)
    return found


def bootstrap_servers(cluster: Cluster) -> str:
    """Returns the cluster's addresses. Mock brokers are started by this call; their addresses are returned."""
    if not cluster.mock_brokers:
        return cluster.bootstrap_servers

    return resolved(cluster).bootstrap_servers
