"""Finds the configured cluster that holds a message sent earlier: names and addresses may have changed since."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from core.errors import ConfigError, PsttError
from core.model.connection import Cluster, Destination

__all__ = ["cluster_of", "is_same_cluster", "unknown_cluster"]


def cluster_of(
    sent_to: Destination, clusters: Sequence[Cluster], ids: Mapping[str, str], ask: Callable[[Cluster], str]
) -> Cluster | None:
    """Returns the cluster with the recorded id; without one, the cluster with the same address, else the same name.

    Args:
        sent_to: What was recorded with the message.
        clusters: The configured clusters.
        ids: Addresses → the cluster id found there last; used for a cluster that does not answer.
        ask: Returns the id that a cluster has now; empty if it does not answer.

    Returns:
        None if it is none of them, or nothing was recorded that identifies it.
    """
    likely = sorted(clusters, key=lambda c: (not _has_addresses(c, sent_to), c.name != sent_to.cluster))
    demo = next((c for c in likely if c.mock_brokers and c.name == sent_to.cluster), None)
    if demo is not None:  # its broker ended with its run and cannot be asked
        return demo
    if not sent_to.cluster_id:
        found = (c for c in likely if _has_addresses(c, sent_to))
        named = (c for c in likely if c.name == sent_to.cluster)
        return next(found, None) or next(named, None)
    silent: list[Cluster] = []
    for cluster in (c for c in likely if not c.mock_brokers):
        found_id = ask(cluster)
        if found_id == sent_to.cluster_id:
            return cluster
        last_known = ids.get(
            cluster.bootstrap_servers, "" if not _has_addresses(cluster, sent_to) else sent_to.cluster_id
        )
        if not found_id and last_known == sent_to.cluster_id:
            silent.append(cluster)
    return next(iter(silent), None)


def is_same_cluster(one: Destination, other: Destination) -> bool:
    """Returns True if both are the same cluster: by id if both have one, else by an address or the name."""
    if one.cluster_id and other.cluster_id:
        return one.cluster_id == other.cluster_id
    shared = _addresses(one.bootstrap_servers) & _addresses(other.bootstrap_servers)
    return bool(shared) or one.cluster == other.cluster


def unknown_cluster(
    sent_to: Destination, problems: Sequence[PsttError] = (), *, what: str = "this message"
) -> ConfigError:
    """Returns the error for a cluster that is not in connections.json any more. `what` names what was sent, for the user."""
    known = [
        f'called "{sent_to.cluster}"' if sent_to.cluster else "",
        f"reached at {sent_to.bootstrap_servers}" if sent_to.bootstrap_servers else "",
        f"with the id {sent_to.cluster_id}" if sent_to.cluster_id else "",
    ]
    told = " and ".join(filter(None, known))
    why = f"it was then {told}" if told else "the version that sent it recorded neither its name nor its addresses"
    remedy = "add that cluster to kafka_connections again, under any name, or give it back its name"
    return ConfigError(
        f"the cluster that {what} was sent to is none of those that are set up now",
        why="; ".join([why, *(f"not asked: {problem.what}" for problem in problems)]),
        remedy=remedy,
    )


def _has_addresses(cluster: Cluster, sent_to: Destination) -> bool:
    """Returns True if they share an address."""
    return not cluster.mock_brokers and not _addresses(cluster.bootstrap_servers).isdisjoint(
        _addresses(sent_to.bootstrap_servers)
    )


def _addresses(servers: str) -> set[str]:
    return {server.strip().lower() for server in servers.split(",") if server.strip()}
