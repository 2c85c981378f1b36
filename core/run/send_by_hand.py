"""One message that a person sends, without a job."""

from __future__ import annotations

import secrets
from datetime import datetime
from typing import Any

from core.errors import PsttError
from core.kafka import open_publisher
from core.kafka.service import KafkaService
from core.model.connection import Cluster
from core.model.publisher import Publisher
from core.records.opened import OpenWorkspace
from core.records.rights import Caller, require
from core.records.spool import Spool
from core.run.kept_messages import kept_messages
from core.run.metrics_update import update_metrics

__all__ = ["send_message"]

CONTACT_S = 10.0


def send_message(
    opened: OpenWorkspace, topic: str, key: str, value: str, *, cluster: str | None, caller: Caller, now: datetime
) -> dict[str, Any]:
    """Sends one message and waits for its acknowledgement; it is recorded in the spool as every other send.

    Args:
        opened: The workspace.
        topic: The topic.
        key: The key, as text.
        value: The value, as text.
        cluster: A key of `kafka_connections`; None: `default_environment`.
        caller: Who sends it.
        now: The clock, for the audit trail.

    Returns:
        `topic`, `partition`, `offset`, `latency_ms` and the `run_id` under which it is recorded.

    Raises:
        AccessRefused: The caller may not send.
        ConfigError: The cluster is not set up.
        PsttError: The message was not acknowledged.
    """
    require(caller, "send")
    chosen = opened.connections.cluster(cluster, opened.settings)
    spool = Spool(opened.workspace.spool_dir, run_id=secrets.token_hex(5), job="")
    asked = {"cluster": chosen.name, "run_id": spool.run_id, "size_bytes": len(value.encode())}
    with opened.ledger.audit.around(caller.name, "send", f"topic {topic}", now, after=asked) as outcome:
        try:
            with kept_messages(chosen), KafkaService(chosen, recorder=spool.record, publisher=_reached) as service:
                result = service.send_message(topic, key, value)
                spool.destination = service.destination(topic)
        finally:
            spool.close()
            update_metrics(opened, now)
        outcome.update(partition=result.partition, offset=result.offset, latency_ms=round(result.latency_ms, 1))
    return {"topic": topic, "run_id": spool.run_id, **outcome}


def _reached(cluster: Cluster) -> Publisher:
    """Opens a publisher whose cluster answers: a person waits, and the delivery time-out would pass four times."""
    publisher = open_publisher(cluster)
    try:
        publisher.brokers(CONTACT_S)
    except PsttError:
        publisher.close()
        raise
    return publisher
