"""Probes each cluster and stores the result as a sample, from which uptime is computed.

It greets the broker over the wire and hangs up (`core.kafka.probe`): no client, no login, no memory. A password
that is refused shows in the runs.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from time import perf_counter
from typing import TYPE_CHECKING

from core.errors import PsttError
from core.kafka.probe import probe
from core.records.runner_status import BrokerSample

if TYPE_CHECKING:
    from core.model.connection import Cluster
    from core.model.job import Job
    from core.workspace.connections import Connections
    from core.workspace.settings import Settings

__all__ = ["look", "used_clusters"]


def look(cluster: Cluster, now: datetime) -> BrokerSample:
    """Whether the cluster answers, and how fast."""
    started = perf_counter()
    cause = probe(cluster)
    latency_ms = round((perf_counter() - started) * 1000, 1)
    if cause is not None:
        return BrokerSample(cluster.name, now, connected=False, latency_ms=None, error=cause.words)
    return BrokerSample(cluster.name, now, connected=True, latency_ms=latency_ms, error=None)


def used_clusters(
    jobs: Iterable[Job], connections: Connections, settings: Settings, now: datetime
) -> tuple[list[Cluster], list[BrokerSample]]:
    """The clusters that enabled jobs send to, and samples that say why one cannot even be tried."""
    clusters: dict[str, Cluster] = {}
    broken: dict[str, BrokerSample] = {}
    for job in jobs:
        if not job.enabled or job.export_format != "kafka":
            continue
        try:
            cluster = connections.cluster_for(job, settings)
        except PsttError as error:
            name = job.kafka_config.cluster or job.connection
            broken[name] = BrokerSample(name, now, connected=False, latency_ms=None, error=error.text)
            continue
        if not cluster.mock_brokers:  # such a cluster is inside the process of its run
            clusters[cluster.name] = cluster
    return list(clusters.values()), list(broken.values())
