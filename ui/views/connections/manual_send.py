"""Sends one message that the user wrote."""

from __future__ import annotations

import json
from collections.abc import Sequence

import streamlit as st

from ui import changes
from ui.access import may
from ui.components.problem import guarded
from ui.components.text import plain
from ui.formats import milliseconds, size
from ui.language import t
from ui.views.connections.topics import cluster_box

SENDING = "connection_sending"


def show_manual_send(clusters: Sequence[str]) -> None:
    """Draws the form of one message."""
    st.subheader(t("Send a message by hand"), anchor=False)
    with st.expander(t("Write it")):
        cluster = cluster_box(clusters, "hand_cluster")
        topic = st.text_input(t("Topic"), key="hand_topic")
        key = st.text_input(t("Key"), key="hand_key")
        value = st.text_area(t("Value, JSON"), key="hand_value", height=140, placeholder='{"data": {}}')
        if not _is_json(value):
            st.caption(t("This is not JSON; readers of this topic may not take it."))
        ready = bool(topic.strip() and value.strip()) and may("send")
        if st.button(t("Send …"), key="hand_send", icon=":material/send:", disabled=not ready):
            st.session_state[SENDING] = True
        if st.session_state.get(SENDING) and ready:
            _confirm_send(cluster, topic.strip(), key, value)
        if sent := st.session_state.get("hand_sent"):
            st.success(
                t(
                    "acknowledged in {latency} at {place}; Find knows it by its key",
                    latency=milliseconds(sent["latency_ms"]),
                    place=plain(f"{sent['topic']}-{sent['partition']} @ {sent['offset']}"),
                ),
                icon=":material/check:",
            )


def _is_json(text: str) -> bool:
    try:
        json.loads(text or "null")
    except (ValueError, RecursionError):
        return False
    return True


def _confirm_send(cluster: str | None, topic: str, key: str, value: str) -> None:
    @st.dialog(t("Send this message?"), on_dismiss=lambda: st.session_state.pop(SENDING, None))
    @guarded
    def confirm() -> None:
        st.markdown(
            t(
                "One message of {size} with key {key} goes to {topic} on {cluster}. Readers see it at once, and it cannot be taken back.",
                size=size(len(value.encode("utf-8", "replace"))),
                key=plain(key or "–"),
                topic=plain(topic),
                cluster=plain(cluster or "KAFKA"),
            )
        )
        if st.button(t("Yes, send"), key="confirm_send", icon=":material/send:"):
            st.session_state.pop("hand_sent", None)
            st.session_state["hand_sent"] = changes.send(cluster, topic, key, value)
            st.session_state.pop(SENDING, None)
            st.rerun()

    confirm()
