"""What the view of messages reads: topics, pages of messages, consumer groups, the messages of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Literal, TypeVar

import streamlit as st

from core.admin.group_offsets import GroupReset, plan_reset
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
from core.admin.topic_tail import TailTurn, TopicTail
from core.errors import ConfigError
from core.model.connection import Cluster
from core.model.run import Run
from ui import data
from ui.access import seeing
from ui.data.failures import Failure, FailureMemory

if TYPE_CHECKING:
    from core.kafka.consumer_groups import GroupsOfTopic
    from core.kafka.topic_list import TopicSummary

__all__ = [
    "ask_again",
    "cluster_of",
    "clusters",
    "failure_of",
    "followed",
    "group_plan",
    "groups",
    "known_run",
    "one_message",
    "page_of_topic",
    "run_message",
    "run_of",
    "topic_page",
]

FAILURE_S = 20.0
"""How long a cluster that did not answer is not asked again, in seconds, for all sessions."""
T = TypeVar("T")
_failures = FailureMemory(FAILURE_S, data.now)
data.on_clear(_failures.clear)
TOPICS_S = 5.0
"""Cache lifetime of a list of topics, in seconds: drawing a view again does not ask the cluster again."""


def clusters() -> list[str]:
    """Returns the key of every cluster, the default one first; an empty one is that of the KAFKA settings."""
    with data.opened() as app:
        default = app.connections.default_environment
        return sorted(app.connections.cluster_names, key=lambda key: key != default) or [""]


def topic_page(key: str, text: str, limit: int, page: int) -> tuple[list[TopicSummary], int]:
    """Returns one page of the topics of a cluster and how many there are; up to 5 s old."""
    return _asked(key, lambda: _topic_page(str(data.root()), key, text, limit, page))


@st.cache_data(ttl=TOPICS_S, show_spinner=False, max_entries=64)
def _topic_page(folder: str, key: str, text: str, limit: int, page: int) -> tuple[list[TopicSummary], int]:
    return topics_of_cluster(cluster_of(key), text, limit=limit, offset=page * limit)


def page_of_topic(key: str, topic: str, query: MessageQuery) -> TopicMessages:
    """Reads one page of a topic's messages.

    Raises:
        AccessRefused: The visitor may not see messages.
        PsttError: They cannot be read.
    """
    by = seeing("messages")
    return _asked(key, lambda: browse(cluster_of(key), topic, query, caller=by))


def followed(
    key: str, topic: str, query: MessageQuery, position: Mapping[int, int] | None
) -> tuple[TailTurn, dict[int, int]]:
    """Returns what has come to a topic since a position, and the position after it.

    Args:
        key: The cluster.
        topic: Its name.
        query: Which messages.
        position: Partition → offset; None: returns nothing but the position of now.

    Raises:
        AccessRefused: The visitor may not see messages.
        PsttError: They cannot be read.
    """
    by = seeing("messages")

    def turn() -> tuple[TailTurn, dict[int, int]]:
        with TopicTail(cluster_of(key), topic, query, caller=by, position=position) as tail:
            found = TailTurn((), 0, 0) if position is None else tail.turn()
            return found, tail.position

    return _asked(key, turn)


def failure_of(key: str) -> Failure | None:
    """Returns when and why a cluster did not answer a moment ago; None: it is asked.

    Args:
        key: The cluster, or the run whose cluster it is.
    """
    return _failures.of((data.root(), key))


def ask_again(key: str) -> None:
    """Makes a cluster be asked again that did not answer a moment ago; `key` as of `failure_of`."""
    _failures.forget((data.root(), key))


def _asked(key: str, question: Callable[[], T]) -> T:
    return _failures.ask((data.root(), key), question)


def one_message(key: str, topic: str, partition: int, offset: int) -> ReadableMessage:
    """Reads one message whole; raises as `page_of_topic`."""
    by = seeing("messages")
    return _asked(key, lambda: message_at(cluster_of(key), topic, partition, offset, caller=by))


def run_message(run: Run, place: tuple[int, int] | None, step: Literal[-1, 0, 1]) -> RunPosition:
    """Reads a message of a run, or the one before or after it; raises as `page_of_topic`."""
    by = seeing("messages")

    def read() -> RunPosition:
        with data.opened() as app:
            return message_of_run(app, run, place, step=step, caller=by)

    return _asked(run.run_id, read)


def groups(key: str, topic: str) -> GroupsOfTopic:
    """Returns the consumer groups of a topic."""
    return _asked(key, lambda: consumer_groups(cluster_of(key), topic))


def group_plan(key: str, topic: str, group: str, to: str) -> GroupReset:
    """Returns what a reset of a group's offsets would change; `to` as `core.admin.group_offsets.plan_reset` takes it."""
    with data.opened() as app:
        timezone = app.timezone
    return _asked(key, lambda: plan_reset(cluster_of(key), topic, group, to, timezone=timezone))


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


def cluster_of(key: str) -> Cluster:
    """Returns a cluster by its key, or by its name, as sends have it."""
    with data.opened() as app:
        if not key or key in app.connections.cluster_names:
            return app.cluster(key or None)
        known, _ = app.connections.known_clusters(app.settings)
        return next((cluster for cluster in known if cluster.name == key), None) or app.cluster(key)
