"""Kafka clients, one file each, behind `core.model.all.Publisher`.

A client is imported when it is opened: nobody pays for one that is not used.
"""

from __future__ import annotations

import logging

from core.kafka.support import refuse_unsupported
from core.model.connection import Cluster
from core.model.publisher import Publisher

__all__ = ["bootstrap_servers", "open_publisher", "refuse_unsupported"]

# Without a handler Python writes warnings to stderr, in the middle of what people read there. "kafka" is
# kafka-python-ng's own: its threads may still say something when their publisher is closed.
for _name in ("pstt.kafka", "kafka"):
    logging.getLogger(_name).addHandler(logging.NullHandler())


def open_publisher(cluster: Cluster, *, transactional_id: str | None = None, max_in_flight: int = 5000) -> Publisher:
    """Opens the client that the cluster's settings name; the brokers are contacted by the first call that needs them.

    Args:
        cluster: Where, and with which settings.
        transactional_id: The same for every run of one job; None: no transactions.
        max_in_flight: Messages handed over and not yet reported, at most. 5,000 keep the 99th
            percentile of the latency near 60 ms at full speed; more only add waiting.

    Raises:
        ConfigError: The settings are incomplete, contradict each other, or ask for something that
            this client does not have.
    """
    if cluster.client == "kafka-python-ng":
        from core.kafka.kafka_python import KafkaPythonPublisher

        return KafkaPythonPublisher(cluster, transactional_id=transactional_id, max_in_flight=max_in_flight)
    from core.kafka.confluent import ConfluentPublisher

    return ConfluentPublisher(cluster, transactional_id=transactional_id, max_in_flight=max_in_flight)


def bootstrap_servers(cluster: Cluster) -> str:
    """Where the cluster is reached; for mock brokers, which are started by this, the port they were given."""
    if not cluster.mock_brokers:
        return cluster.bootstrap_servers
    from core.kafka.mock_cluster import resolved

    return resolved(cluster).bootstrap_servers
