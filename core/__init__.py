"""PSTT Kafka: SQL files to JSON messages on Kafka, with proof that every row arrived.

The names below are what other programs and notebooks may rely on; they are imported when first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from core.version import __version__

if TYPE_CHECKING:
    from core.app import open_workspace as open_workspace
    from core.kafka.async_service import AsyncKafkaService as AsyncKafkaService
    from core.kafka.service import BatchResult as BatchResult
    from core.kafka.service import KafkaService as KafkaService
    from core.records.metrics_reader import open_metrics as open_metrics

__all__ = ["AsyncKafkaService", "BatchResult", "KafkaService", "__version__", "open_metrics", "open_workspace"]

_HOMES = {
    "AsyncKafkaService": "core.kafka.async_service",
    "BatchResult": "core.kafka.service",
    "KafkaService": "core.kafka.service",
    "open_metrics": "core.records.metrics_reader",
    "open_workspace": "core.app",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'core' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
