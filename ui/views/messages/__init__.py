"""Messages: what is on a topic? Topics, their messages, their consumer groups, and a run's messages one after the other."""

from __future__ import annotations

import streamlit as st

from ui.components.address import accept_every_language
from ui.components.links import link
from ui.components.text import plain
from ui.language import t
from ui.views.messages.browser import show_messages
from ui.views.messages.groups import show_groups
from ui.views.messages.one import show_one, show_run
from ui.views.messages.topic_list import show_topics

__all__ = ["show"]

PARTS = ("messages", "groups")


def show() -> None:
    """Draws what the address names: a run's messages, one message, a topic, or the topics."""
    asked = st.query_params
    cluster, topic = asked.get("cluster", ""), asked.get("topic", "")
    if asked.get("run"):
        show_run(asked["run"], asked.get("at", ""))
    elif topic and asked.get("at"):
        show_one(cluster, topic, asked["at"])
    elif topic:
        _topic(cluster, topic)
    else:
        show_topics(cluster)


def _topic(cluster: str, topic: str) -> None:
    link("messages", t("all topics"), icon=":material/arrow_back:", **({"cluster": cluster} if cluster else {}))
    st.title(plain(topic), anchor=False)
    accept_every_language("topic_part", PARTS, _part_word)
    part = st.segmented_control(
        t("Show"),
        PARTS,
        default="messages",
        required=True,
        format_func=_part_word,
        key="topic_part",
        label_visibility="collapsed",
        bind="query-params",
    )
    if part == "groups":
        show_groups(cluster, topic)
    else:
        show_messages(cluster, topic)


def _part_word(part: str) -> str:
    return {"messages": t("Messages"), "groups": t("Consumer groups")}[part]
