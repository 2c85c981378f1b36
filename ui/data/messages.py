"""What the view of messages reads: topics, pages of messages, consumer groups, the messages of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import streamlit as st

from core.admin.topic_messages import (
    MessageQuery,
    ReadableMessage,
    RunPosition,
    TopicMessages,
    browse,
    consumer_groups,
    message_at,
    message_of_run,
    topics_of_cluster,
)
from core.errors import ConfigError
from core.model.connection import Cluster
from core.model.run import Run
from ui import data
from ui.access import seeing

if TYPE_CHECKING:
    from core.kafka.consumer_groups import GroupsOfTopic
    from core.kafka.topic_list import TopicSummary

__all__ = [
    "clusters",
    "groups",
    "known_run",
    "one_message",
    "page_of_topic",
    "run_message",
    "run_of",
    "topic_page",
]

TOPICS_S = 5.0
"""Cache lifetime of a list of topics, in seconds: drawing a view again does not ask the cluster again."""


def clusters() -> list[str]:
    """Returns the key of every cluster, the default one first; an empty one is that of the KAFKA settings."""
    with data.opened() as app:
        default = app.connections.default_environment
        return sorted(app.connections.cluster_names, key=lambda key: key != default) or [""]


def topic_page(key: str, text: str, limit: int, page: int) -> tuple[list[TopicSummary], int]:
    """Returns one page of the topics of a cluster and how many there are; up to 5 s old."""
    return _topic_page(str(data.root()), key, text, limit, page)


@st.cache_data(ttl=TOPICS_S, show_spinner=False, max_entries=64)
def _topic_page(folder: str, key: str, text: str, limit: int, page: int) -> tuple[list[TopicSummary], int]:
    return topics_of_cluster(_cluster(key), text, limit=limit, offset=page * limit)


def page_of_topic(key: str, topic: str, query: MessageQuery) -> TopicMessages:
    """Reads one page of a topic's messages.

    Raises:
        AccessRefused: The visitor may not see messages.
        PsttError: They cannot be read.
    """
    return browse(_cluster(key), topic, query, caller=seeing("messages"))


def one_message(key: str, topic: str, partition: int, offset: int) -> ReadableMessage:
    """Reads one message whole; raises as `page_of_topic`."""
    return message_at(_cluster(key), topic, partition, offset, caller=seeing("messages"))


def run_message(run: Run, place: tuple[int, int] | None, step: Literal[-1, 0, 1]) -> RunPosition:
    """Reads a message of a run, or the one before or after it; raises as `page_of_topic`."""
    with data.opened() as app:
        return message_of_run(app, run, place, step=step, caller=seeing("messages"))


def groups(key: str, topic: str) -> GroupsOfTopic:
    """Returns the consumer groups of a topic."""
    return consumer_groups(_cluster(key), topic)


def run_of(run_id: str) -> Run:
    """Returns a run.

    Raises:
        ConfigError: There is none.
    """
    with data.opened() as app:
        return app.ledger.run(run_id)


def known_run(run_id: str) -> bool:
    """Returns whether a run is one of this workspace: a topic has messages of other workspaces, too."""
    if not run_id:
        return False
    try:
        return run_of(run_id).run_id == run_id
    except ConfigError:
        return False


def _cluster(key: str) -> Cluster:
    """Returns a cluster by its key, or by its name, as sends have it."""
    with data.opened() as app:
        if not key or key in app.connections.cluster_names:
            return app.cluster(key or None)
        known, _ = app.connections.known_clusters(app.settings)
        return next((cluster for cluster in known if cluster.name == key), None) or app.cluster(key)
