"""The registry of Kafka clients: one entry each. `core.model.publisher.Publisher` is what a client implements."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec

__all__ = ["CLIENTS", "KafkaClient", "client_names", "default_client"]


@dataclass(frozen=True, slots=True)
class KafkaClient:
    """Where a client is implemented, and what it can do."""

    publisher: str
    """`module:Class`; imported when a publisher is opened."""
    libraries: tuple[str, ...]
    """What `pip install` needs for it."""
    is_idempotent: bool = False
    """It has an idempotent producer and transactions."""
    reports_rights: bool = False
    """Its administration API reports what the account may do (`core.kafka.cluster_rights`)."""


CLIENTS: dict[str, KafkaClient] = {
    "aiokafka": KafkaClient(
        "core.kafka.aiokafka:AiokafkaPublisher",
        ("aiokafka", "cramjam", "google-crc32c", "confluent-kafka"),
        is_idempotent=True,
        reports_rights=True,
    ),
    "confluent": KafkaClient(
        "core.kafka.confluent:ConfluentPublisher", ("confluent-kafka",), is_idempotent=True, reports_rights=True
    ),
    "kafka-python-ng": KafkaClient("core.kafka.kafka_python:KafkaPythonPublisher", ("kafka-python-ng",)),
}
"""Value of KAFKA_CLIENT → the client. The first one whose libraries are installed is the default."""

_MODULES = {"kafka-python-ng": "kafka"}
"""Libraries whose module has another name."""


def client_names() -> tuple[str, ...]:
    """Returns every value that KAFKA_CLIENT may have."""
    return tuple(CLIENTS)


def default_client() -> str:
    """Returns the value of KAFKA_CLIENT where it is not set: the first client whose libraries are installed."""
    return next((name for name, client in CLIENTS.items() if all(map(_is_installed, client.libraries))), "aiokafka")


def _is_installed(library: str) -> bool:
    try:
        return find_spec(_MODULES.get(library, library.replace("-", "_"))) is not None
    except ImportError:
        return False
