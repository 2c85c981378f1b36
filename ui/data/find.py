"""Finds sends by key, and compares one of them with the message on its topic."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from core.errors import PsttError
from core.kafka.cluster_lookup import unknown_cluster
from core.message.decoding import Lookup, Readable, is_same_key, readable
from core.message.envelope import proves_data
from core.model.connection import Cluster, Destination
from core.model.run import Run
from core.records.known_since import KnownSince
from core.run.destination import find_cluster
from core.run.schemas import schema_lookup
from ui import data
from ui.metrics_answers import metrics_of

if TYPE_CHECKING:
    from core.kafka.record_reader import TopicMessage

__all__ = ["MessageComparison", "SearchResult", "compare_with_topic", "find_sends"]


@dataclass(frozen=True)
class SearchResult:
    """The sends that a search found."""

    sends: list[dict[str, Any]]
    by_prefix: bool
    """The text is only the start of their keys."""
    known: KnownSince
    """From when on single sends are known."""


def find_sends(text: str) -> SearchResult:
    """Every send of that key, the newest first; if there is none, or with `*` at its end, of keys that start with it."""
    metrics = metrics_of(data.root())
    known = metrics.rolled_up.known_since()
    sends = [] if text.endswith("*") else metrics.find(text)
    if sends:
        return SearchResult(sends[::-1], by_prefix=False, known=known)
    return SearchResult(metrics.find_beginning(text.rstrip("*")), by_prefix=True, known=known)


@dataclass(frozen=True)
class MessageComparison:
    """A message as it is on its topic now, compared with what was sent."""

    message: TopicMessage
    key: Readable
    value: Readable
    same_key: bool
    same_id: bool | None
    """None: the message has no such header."""
    same_size: bool
    data_proven: bool | None
    """Whether its data has the hash that its id is made of; None: it was sent by hand, or is not JSON with the row in it."""

    @property
    def is_equal(self) -> bool:
        """Whether nothing that can be compared differs."""
        return self.same_key and self.same_size and self.same_id is not False and self.data_proven is not False


def compare_with_topic(send: dict[str, Any]) -> MessageComparison:
    """Reads a message at its offset, on the cluster that it was sent to, and compares it with what was sent.

    Raises:
        PsttError: It cannot be read, or is not there any more; the text says why.
    """
    with data.opened() as app:
        run = app.ledger.run(send["run_id"]) if send["job"] else None
        sent_to = _destination(send, run)
        cluster = find_cluster(app, sent_to)
        clusters, problems = app.connections.known_clusters(app.settings)
    if cluster is not None:
        message = _read(cluster, send)
        lookup = schema_lookup(cluster)
    elif sent_to.cluster_id:
        raise unknown_cluster(sent_to, problems)
    else:
        message, lookup = _read_from_any(send, sent_to, clusters, problems)
    message_id = message.headers.get("message_id")
    return MessageComparison(
        message=message,
        key=readable(message.key, lookup),
        value=readable(message.value, lookup),
        same_key=is_same_key(message.key, send["key"], lookup),
        same_id=None if message_id is None else message_id == send["message_id"],
        same_size=len(message.value or b"") == send["size_bytes"],
        data_proven=None if run is None else proves_data(send["message_id"], message.value, run.job, run.scheduled_at),
    )


def _destination(send: dict[str, Any], run: Run | None) -> Destination:
    """What was recorded with the send, else with its run."""
    recorded = Destination(*(send[name] or "" for name in ("cluster", "cluster_id", "bootstrap_servers")))
    if run is None or recorded.cluster_id or recorded.bootstrap_servers:
        return recorded
    return Destination(run.cluster, run.cluster_id, run.bootstrap_servers)


def _read(cluster: Cluster, send: dict[str, Any]) -> TopicMessage:
    from core.kafka.record_reader import read_message  # loads confluent_kafka

    return read_message(cluster, send["topic"], send["partition"], send["offset"])


def _read_from_any(
    send: dict[str, Any], sent_to: Destination, clusters: list[Cluster], problems: list[PsttError]
) -> tuple[TopicMessage, Lookup | None]:
    """Reads the message from whichever cluster has it.

    An earlier version recorded no cluster id, and the cluster has another name now.
    """
    for cluster in clusters:
        with suppress(PsttError):  # it has no such topic or offset, or does not answer
            message = _read(cluster, send)
            if message.headers.get("message_id") == send["message_id"]:
                return message, schema_lookup(cluster)
    raise unknown_cluster(sent_to, problems)
