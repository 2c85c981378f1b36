"""The topics of a cluster: a search, partitions, message counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import streamlit as st

from ui.components.links import go
from ui.components.tables import choose
from ui.data.messages import clusters, topic_page
from ui.formats import number
from ui.language import t, tn
from ui.views.messages.asking import asking

if TYPE_CHECKING:
    from core.kafka.topic_list import TopicSummary

__all__ = ["show_topics"]

PER_PAGE = 100


def show_topics(asked_cluster: str) -> None:
    """Draws the list.

    Args:
        asked_cluster: The cluster of the address; empty: the default one.
    """
    st.title(t("Messages"), anchor=False)
    keys = clusters()
    with st.container(horizontal=True, vertical_alignment="bottom"):
        cluster = keys[0]
        if len(keys) > 1:
            index = keys.index(asked_cluster) if asked_cluster in keys else 0
            cluster = st.selectbox(t("Cluster"), keys, index=index, key=f"topics_of_{asked_cluster}", width=280)
            if cluster != keys[index]:
                go("messages", cluster=cluster)
        text = st.text_input(
            t("Topic"),
            placeholder=t("a part of its name"),
            icon=":material/search:",
            max_chars=249,
            key="topic_search",
            bind="query-params",
            width=360,
        )
    asking(_list)(cluster, text.strip())


def _list(cluster: str, text: str) -> None:
    page = st.session_state.get("topics_page", 1) - 1
    with st.spinner(t("asking the cluster …")):
        found, total = topic_page(cluster, text, PER_PAGE, page)
        if total and not found:
            st.session_state["topics_page"] = 1
            found, total = topic_page(cluster, text, PER_PAGE, 0)
    if not found:
        st.info(t("This account sees no topic like that."), icon=":material/filter_alt_off:")
        return
    topics = tn(total, "1 topic.", "{count} topics.", count=number(total))
    st.caption(f"{topics} {t('Select one to see its messages.')}")
    chosen = choose([_row(topic) for topic in found], "topics_table")
    if chosen is not None:
        go("messages", topic=found[chosen].name, **({"cluster": cluster} if cluster else {}))
    if total > PER_PAGE:
        pages = -(-total // PER_PAGE)
        st.number_input(
            t("Page, of {pages}", pages=number(pages)), min_value=1, max_value=pages, key="topics_page", width=160
        )
    st.caption(
        t(
            "Messages are counted by their offsets: what compaction removed and the ends of transactions are counted, too."
        )
    )


def _row(topic: TopicSummary) -> dict[str, Any]:
    return {
        t("Topic"): topic.name,
        t("Messages"): topic.messages,
        t("Partitions"): topic.partitions,
        t("Replicas"): topic.replication,
    }
