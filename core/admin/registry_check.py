"""The check of a cluster's schema registry."""

from __future__ import annotations

from collections.abc import Iterator

from core.kafka.schema_registry import RegistryClient
from core.model.check_result import CheckResult
from core.model.connection import Cluster

__all__ = ["check_registry"]


def check_registry(cluster: Cluster, subject: str) -> Iterator[CheckResult]:
    """Yields whether the registry of a cluster answers and accepts the account; nothing if it has none.

    Raises:
        RegistryUnavailable, NotAuthorised, ConfigError: It does not.
    """
    if cluster.schema_registry is None:
        return
    count = len(RegistryClient(cluster.schema_registry).subjects())
    word = "subject" if count == 1 else "subjects"
    yield CheckResult("pass", subject, f"schema registry {cluster.schema_registry.place} answered, {count:,} {word}")
