"""Where a run gets the ids of its schemas: the registry of its cluster."""

from __future__ import annotations

from core.kafka.schema_registry import RegistryClient
from core.message.decoding import Lookup
from core.message.key_comparison import KeyComparison
from core.model.connection import Cluster
from core.model.job import Job
from core.model.schema import Schemas
from core.run.registered_schemas import CheckedSchemas, RegisteredSchemas

__all__ = ["key_comparison", "schema_lookup", "schemas_of"]


def schemas_of(job: Job, cluster: Cluster, *, registers: bool) -> Schemas | None:
    """Returns what gives ids to the schemas of a job; None: it needs none, or its cluster has no registry.

    Args:
        job: The job.
        cluster: Where it sends.
        registers: Whether a new schema may be registered; False: it is only checked, and has the id 0.
    """
    if cluster.schema_registry is None or not job.needs_registry:
        return None
    client = RegistryClient(cluster.schema_registry)
    return RegisteredSchemas(client) if registers else CheckedSchemas(client)


def schema_lookup(cluster: Cluster) -> Lookup | None:
    """Returns what finds the schema with an id; None: the cluster has no registry."""
    if cluster.schema_registry is None:
        return None
    return RegistryClient(cluster.schema_registry).schema


def key_comparison(job: Job, cluster: Cluster) -> KeyComparison | None:
    """Returns what compares the keys of a job on a topic with the records of sends; None: its keys are text."""
    return None if job.key_format == "text" else KeyComparison(job, schema_lookup(cluster))
