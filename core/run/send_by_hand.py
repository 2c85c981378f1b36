"""One message that a person sends, without a job."""

from __future__ import annotations

import secrets
from typing import Any

from core.kafka.service import KafkaService
from core.records.opened import OpenWorkspace
from core.records.spool import Spool
from core.run.metrics_update import update_metrics

__all__ = ["send_message"]


def send_message(opened: OpenWorkspace, topic: str, key: str, value: str, *, cluster: str | None) -> dict[str, Any]:
    """Sends one message and waits for its acknowledgement; it is recorded in the spool as every other send.

    Args:
        opened: The workspace.
        topic: The topic.
        key: The key, as text.
        value: The value, as text.
        cluster: A key of `kafka_connections`; None: `default_environment`.

    Returns:
        `topic`, `partition`, `offset`, `latency_ms` and the `run_id` under which it is recorded.

    Raises:
        ConfigError: The cluster is not set up.
        PsttError: The message was not acknowledged.
    """
    chosen = opened.connections.cluster(cluster, opened.settings)
    spool = Spool(opened.workspace.spool_dir, run_id=secrets.token_hex(5), job="")
    try:
        with KafkaService(chosen, recorder=spool.record) as service:
            result = service.send_message(topic, key, value)
            spool.destination = service.destination(topic)
    finally:
        spool.close()
        update_metrics(opened.metrics)
    return {
        "topic": topic,
        "partition": result.partition,
        "offset": result.offset,
        "latency_ms": round(result.latency_ms, 1),
        "run_id": spool.run_id,
    }
