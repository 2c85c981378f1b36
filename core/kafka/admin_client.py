"""Opens the client with which a cluster is asked about topics, groups and rights."""

from __future__ import annotations

from confluent_kafka.admin import AdminClient

from core.kafka.client_log import ClientLog
from core.kafka.diagnosis import Diagnosis
from core.kafka.librdkafka import client_config
from core.model.connection import Cluster

__all__ = ["open_admin"]


def open_admin(cluster: Cluster, diagnosis: Diagnosis, log: ClientLog) -> AdminClient:
    """Opens an admin client.

    Args:
        cluster: Its mock brokers are started already.
        diagnosis: Remembers what the client reports.
        log: Receives the client's log lines.
    """
    reported = {"error_cb": lambda error: diagnosis.remember(error.str())}
    return AdminClient(client_config(cluster) | reported, logger=log)
