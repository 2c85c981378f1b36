"""The registry of Kafka clients: one entry each. `core.model.publisher.Publisher` is what a client implements."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CLIENTS", "KafkaClient", "client_names"]


@dataclass(frozen=True, slots=True)
class KafkaClient:
    """Where a client is implemented, and what it can do."""

    publisher: str
    """`module:Class`; imported when a publisher is opened."""
    library: str
    """What `pip install` needs for it."""
    is_idempotent: bool = False
    """It has an idempotent producer and transactions."""
    reports_rights: bool = False
    """Its administration API reports what the account may do (`core.kafka.cluster_rights`)."""


CLIENTS: dict[str, KafkaClient] = {
    "confluent": KafkaClient(
        "core.kafka.confluent:ConfluentPublisher", "confluent-kafka", is_idempotent=True, reports_rights=True
    ),
    "kafka-python-ng": KafkaClient("core.kafka.kafka_python:KafkaPythonPublisher", "kafka-python-ng"),
}
"""Value of KAFKA_CLIENT → the client. The first one is the default."""


def client_names() -> tuple[str, ...]:
    """Returns every value that KAFKA_CLIENT may have."""
    return tuple(CLIENTS)
