"""A Kafka cluster inside this process, for the demo: librdkafka's own mock brokers.

They speak the real protocol on a local port, to any client, and create topics on first use. They keep everything in memory
and show aborted transactions, so they prove nothing about exactly-once delivery.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

from core.model.connection import Cluster

if TYPE_CHECKING:
    from confluent_kafka import Producer

__all__ = ["resolved", "start"]

_lock = threading.Lock()
_running: dict[str, tuple[Producer, str]] = {}


def resolved(cluster: Cluster) -> Cluster:
    """Returns the cluster itself or, if it asks for mock brokers, with their address and without security."""
    if not cluster.mock_brokers:
        return cluster
    return replace(cluster, bootstrap_servers=start(cluster.name, cluster.mock_brokers), security_protocol="PLAINTEXT")


def start(name: str, brokers: int) -> str:
    """Returns the address of the mock cluster with that name; it is started once and ends with the process."""
    from confluent_kafka import Producer  # kafka-python-ng is used where it cannot be installed

    with _lock:
        if name not in _running:
            # The cluster lives as long as this producer, which sends nothing.
            settings = {"bootstrap.servers": "127.0.0.1:1", "test.mock.num.brokers": brokers, "log_level": 0}
            host = Producer(settings, logger=logging.getLogger("pstt.kafka"))
            found = host.list_topics(timeout=10).brokers.values()
            _running[name] = host, ",".join(sorted(f"{broker.host}:{broker.port}" for broker in found))
        return _running[name][1]
