"""PSTT Kafka: SQL files to JSON messages on Kafka, with proof that every row arrived.

The names below are what other programs and notebooks may rely on; they are imported when first used.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from core.bootstrap import open_workspace as open_workspace
    from core.kafka_service import BatchResult as BatchResult
    from core.kafka_service import KafkaService as KafkaService
    from core.reader import open_metrics as open_metrics

__version__ = "1.0.4"
__all__ = ["BatchResult", "KafkaService", "__version__", "open_metrics", "open_workspace"]

_HOMES = {
    "BatchResult": "core.kafka_service",
    "KafkaService": "core.kafka_service",
    "open_metrics": "core.reader",
    "open_workspace": "core.bootstrap",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'core' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
