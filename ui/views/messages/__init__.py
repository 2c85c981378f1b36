"""Messages: what is on a topic? Topics, their messages, their consumer groups, and a run's messages one after the other."""

from __future__ import annotations

import streamlit as st

from ui.components.links import link
from ui.components.text import plain
from ui.language import t
from ui.views.messages.browser import show_messages
from ui.views.messages.groups import show_groups
from ui.views.messages.one import show_one, show_run
from ui.views.messages.topic_list import show_topics

__all__ = ["show"]


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
    words = {"messages": t("Messages"), "groups": t("Consumer groups")}
    asked = st.query_params.get("part", "messages")
    # The key has the part of the address: Back shows the part before. A bound widget would write its word in one language.
    part = st.segmented_control(
        t("Show"),
        list(words),
        default=asked if asked in words else "messages",
        required=True,
        format_func=lambda name: words[name],
        key=f"topic_part_{asked}",
        label_visibility="collapsed",
    )
    if part != asked:
        st.query_params["part"] = str(part)
    if part == "groups":
        show_groups(cluster, topic)
    else:
        show_messages(cluster, topic)
