"""Where messages go: the topic and cluster of a job now, and the cluster that a run sent to earlier."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from core.kafka.cluster_lookup import cluster_of, is_same_cluster, unknown_cluster
from core.model.connection import Cluster, Destination
from core.model.job import Job
from core.model.run import Run
from core.records.opened import OpenWorkspace

__all__ = [
    "KafkaTarget",
    "cluster_of_run",
    "find_cluster",
    "is_same_destination",
    "target_of_job",
    "was_sent_to",
]


@dataclass(frozen=True, slots=True)
class KafkaTarget:
    """A topic of a cluster."""

    cluster: Cluster
    topic: str

    @property
    def text(self) -> str:
        """Topic and cluster name, for people."""
        return f"{self.topic} on {self.cluster.name}"


def target_of_job(opened: OpenWorkspace, job: Job) -> KafkaTarget:
    """Returns where a job that sends to Kafka sends now.

    Raises:
        ConfigError: Its connection or its cluster is not set up, or cannot be used.
    """
    cluster = opened.connections.cluster_for(job, opened.settings)
    return KafkaTarget(cluster, job.kafka_config.topic or cluster.default_topic)


def find_cluster(opened: OpenWorkspace, sent_to: Destination) -> Cluster | None:
    """Returns the cluster to which messages were sent, which may have another name or address now.

    Asks the clusters that it may be for their ids. None: it is none of those that are set up.
    """
    clusters, _ = opened.connections.known_clusters(opened.settings)
    return cluster_of(sent_to, clusters, opened.ledger.history.cluster_ids(), _cluster_id)


def cluster_of_run(opened: OpenWorkspace, run: Run) -> Cluster:
    """Returns the cluster that a run sent to, which may have another name or address now.

    Raises:
        ConfigError: It is none of those that are set up.
    """
    sent_to = _destination(run)
    clusters, problems = opened.connections.known_clusters(opened.settings)
    found = cluster_of(sent_to, clusters, opened.ledger.history.cluster_ids(), _cluster_id)
    if found is None:
        raise unknown_cluster(sent_to, problems, what=f"run {run.run_id}")
    return found


def was_sent_to(run: Run, target: KafkaTarget, ids: Mapping[str, str]) -> bool:
    """Returns whether a run was sent to that topic of that cluster.

    Args:
        run: The run.
        target: The topic.
        ids: Addresses of clusters → the id that was found there last.
    """
    servers = target.cluster.bootstrap_servers
    there = Destination(target.cluster.name, ids.get(servers, ""), servers)
    return run.topic == target.topic and is_same_cluster(_destination(run), there)


def is_same_destination(one: Run, other: Run) -> bool:
    """Returns whether both runs were sent to one topic of one cluster."""
    return one.topic == other.topic and is_same_cluster(_destination(one), _destination(other))


def _destination(run: Run) -> Destination:
    return Destination(run.cluster, run.cluster_id, run.bootstrap_servers)


def _cluster_id(cluster: Cluster) -> str:
    """Asks a cluster for its id; empty if it does not answer, or if confluent-kafka is not installed to ask it."""
    try:
        from core.kafka.record_reader import cluster_id
    except ImportError:
        return ""
    return cluster_id(cluster)
