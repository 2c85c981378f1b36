"""The topics of a cluster and their settings."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from ui import changes
from ui.access import may
from ui.components.problem import guarded
from ui.components.tables import choose, table
from ui.components.text import plain
from ui.data.status import workspace_status
from ui.language import t


def cluster_box(clusters: Sequence[str], key: str) -> str | None:
    """Draws the choice of a cluster, at first the default one; None: there is no cluster."""
    if not clusters:
        return None
    default = workspace_status().environment
    index = list(clusters).index(default) if default in clusters else 0
    return st.selectbox(t("Cluster"), clusters, index=index, key=key, width=280)


def show_topics(clusters: Sequence[str]) -> None:
    """Lists the topics of a cluster; one can be selected to see its settings."""
    st.subheader(t("Topics"), anchor=False)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        cluster = cluster_box(clusters, "topics_cluster")
        if st.button(t("List the topics"), key="list_topics", icon=":material/list:", disabled=not may("test")):
            st.session_state.pop("topics_found", None)
            st.session_state["topics_found"] = (cluster, changes.topics(cluster))
    listed = st.session_state.get("topics_found")
    if listed is None or listed[0] != cluster:
        return
    topics = listed[1]
    if not topics:
        st.markdown(t("This account sees no topic."))
        return
    chosen = choose(
        [{t("Topic"): i.name, t("Partitions"): i.partitions, t("Replicas"): i.replication} for i in topics],
        "topics",
        most_px=320,
    )
    st.caption(t("Select one to see how it is set up."))
    if chosen is not None:
        guarded(_topic)(cluster, topics[chosen].name)


def _topic(cluster: str | None, topic: str) -> None:
    st.markdown(f"**{plain(topic)}**")
    rows = [
        {
            t("Setting"): setting.name,
            t("Value"): setting.value,
            t("Origin"): t("of the broker") if setting.is_default else t("set for this topic"),
        }
        for setting in changes.topic_settings(cluster, topic)
    ]
    table(rows, "topic_settings", most_px=320)
