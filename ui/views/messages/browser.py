"""The messages of a topic: filters, one page, and the selected message."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from zoneinfo import ZoneInfo

import streamlit as st

from core.admin.topic_messages import MessageQuery, ReadableMessage, TopicMessages
from ui.access import may
from ui.components.message import message_details
from ui.components.tables import choose
from ui.components.text import plain
from ui.data.messages import one_message, page_of_topic
from ui.data.status import workspace_status
from ui.formats import number
from ui.language import t, tn
from ui.views.messages.asking import asking
from ui.views.messages.follow import follow, follow_switch, was_ended
from ui.views.messages.rows import message_row

__all__ = ["show_messages"]

PER_PAGE = 50
_MORE = (
    "topic_value", "topic_where", "topic_oldest", "topic_partitions", "topic_from", "topic_to", "topic_since", "topic_until",
)  # fmt: skip
"""Query parameters of the filters that are closed at first."""
_PAGES = "topic_pages"
"""Session key: the query, and where each page up to the shown one begins."""
_READ = "topic_read"
"""Session key: query and beginning of the page that was read, and the page."""


def show_messages(cluster: str, topic: str) -> None:
    """Draws filters and messages. They are read when a filter changes, and not by a click elsewhere on the page."""
    if not may("messages"):
        st.info(t("The messages themselves are shown to operators."), icon=":material/lock:")
        return
    query, is_followed = _filters()
    if query is None:
        return
    if is_followed:
        follow(cluster, topic, query)
        return
    if was_ended():
        st.info(t("Following has stopped by itself. Switch it on again to go on."), icon=":material/sensors_off:")
    asking(_page)(cluster, topic, query)


def _filters() -> tuple[MessageQuery | None, bool]:
    """Draws the filters, most of them closed until they are used: a phone shows messages first.

    Returns:
        The query, None if a filter cannot be read; and whether the topic is followed.
    """
    zone = workspace_status().timezone
    with st.container(horizontal=True, vertical_alignment="bottom"):
        key = st.text_input(
            t("Key"),
            placeholder=t("a part of it"),
            icon=":material/search:",
            max_chars=1000,
            key="topic_key",
            bind="query-params",
            width=300,
        )
        exact = st.checkbox(t("exactly this key"), key="topic_exact", bind="query-params", width="content")
        is_followed = follow_switch()
        if st.button(t("Read again"), key="topic_again", icon=":material/refresh:", disabled=is_followed):
            st.session_state.pop(_READ, None)
            st.session_state.pop(_PAGES, None)
    is_used = any(st.query_params.get(name) for name in _MORE)
    with (
        st.expander(t("Value, order, partitions, offsets, times"), expanded=is_used),
        st.container(horizontal=True, vertical_alignment="bottom"),
    ):
        value = st.text_input(
            t("The value contains"), max_chars=1000, key="topic_value", bind="query-params", width=300
        )
        where = st.text_input(
            t("A field of the value"),
            placeholder="BODY.BARCODE = 'X'",
            help=t(
                "Names as they are in the JSON, with dots between them; LINES[0].SKU for an element, LINES[*].SKU for any. Operators: = != < > CONTAINS, IN, IS NULL, AND, OR, NOT; texts in single quotes."
            ),
            max_chars=1000,
            key="topic_where",
            bind="query-params",
            width=460,
        )
        text = st.text_input(
            t("Partitions"), placeholder=t("all, or 0, 3, 5"), key="topic_partitions", bind="query-params", width=200
        )
        oldest = st.checkbox(t("the oldest first"), key="topic_oldest", bind="query-params", width="content")
        first = st.number_input(
            t("From offset"), min_value=0, value=None, step=1, key="topic_from", bind="query-params", width=200
        )
        last = st.number_input(
            t("To offset"), min_value=0, value=None, step=1, key="topic_to", bind="query-params", width=200
        )
        since, until = (
            st.datetime_input(label, value=None, format="DD/MM/YYYY", step=60, key=key_, bind="query-params", width=240)
            for label, key_ in ((t("From, in {zone}", zone=zone), "topic_since"), (t("Until"), "topic_until"))
        )
    try:
        partitions = tuple(int(part) for part in text.replace(" ", "").split(",") if part)
    except ValueError:
        st.warning(t("Partitions are numbers, with a comma between them."), icon=":material/warning:")
        return None, is_followed
    query = MessageQuery(
        partitions=partitions,
        first_offset=None if first is None else int(first),
        last_offset=None if last is None else int(last),
        since=_aware(since, zone),
        until=_aware(until, zone),
        key=key,
        key_match="exact" if exact else "contains",
        value=value,
        where=where,
        newest_first=not oldest,
        limit=PER_PAGE,
    )
    return query, is_followed


def _aware(at: datetime | None, zone: str) -> datetime | None:
    return at.replace(tzinfo=ZoneInfo(zone)) if at else None


def _page(cluster: str, topic: str, query: MessageQuery) -> None:
    asked = (cluster, topic, query)
    pages = st.session_state.get(_PAGES)
    if pages is None or pages[0] != asked:
        pages = st.session_state[_PAGES] = (asked, [""])
    found = _read(cluster, topic, query, pages[1][-1])
    zone = workspace_status().timezone
    _summary(found, zone)
    _messages(cluster, found, zone)


def _read(cluster: str, topic: str, query: MessageQuery, begin: str) -> TopicMessages:
    asked = (cluster, topic, query, begin)
    known = st.session_state.get(_READ)
    if known is None or known[0] != asked:
        st.session_state.pop(_READ, None)
        with st.spinner(t("reading the topic …")):
            known = (asked, page_of_topic(cluster, topic, replace(query, rest=begin)))
        st.session_state[_READ] = known
    found: TopicMessages = known[1]
    return found


def _summary(found: TopicMessages, zone: str) -> None:
    there = sum(span.end - span.earliest for span in found.spans.values())
    parts = [
        tn(there, "1 message", "{count} messages", count=number(there)),
        tn(len(found.spans), "in 1 partition", "in {count} partitions", count=number(len(found.spans))),
        t("on {cluster}", cluster=plain(found.cluster)),
    ]
    st.markdown(" ".join(parts))
    if found.is_mock:
        st.info(
            t("This is a mock broker: it lives inside each process, so only what this page itself has sent is here."),
            icon=":material/info:",
        )
    st.caption(
        t("Select a message to see it whole. Times are those of {zone}; nothing is committed.", zone=plain(zone))
    )


def _messages(cluster: str, found: TopicMessages, zone: str) -> None:
    if not found.messages:
        st.info(t("No message is like that."), icon=":material/filter_alt_off:")
    pages = st.session_state[_PAGES][1]
    index = None
    if found.messages:
        rows = [message_row(message, zone) for message in found.messages]
        index = choose(rows, f"topic_messages_{len(pages)}_{found.next}", most_px=420)
    _turning(found, pages)
    if index is not None:
        asking(_selected)(cluster, found.messages[index], zone)


def _turning(found: TopicMessages, pages: list[str]) -> None:
    """Draws how far the page looked, and the buttons to other pages."""
    if found.missing:
        names = ", ".join(f"**{plain(path)}**" for path in found.missing)
        st.warning(
            t("None of these messages has {paths}: check how the names are written.", paths=names),
            icon=":material/spellcheck:",
        )
    looked = tn(
        found.examined,
        "It looked through 1 message.",
        "It looked through {count} messages.",
        count=number(found.examined),
    )
    if found.end == "bound":
        st.warning(
            tn(
                found.left,
                "{looked} More are not read at once; 1 is left. The next page goes on looking.",
                "{looked} More are not read at once; {left} are left. The next page goes on looking.",
                looked=looked,
                left=number(found.left),
            ),
            icon=":material/hourglass:",
        )
    elif found.next:
        st.caption(
            tn(
                found.left,
                "{looked} 1 more is left.",
                "{looked} {left} more are left.",
                looked=looked,
                left=number(found.left),
            )
        )
    else:
        st.caption(t("{looked} These are all.", looked=looked))
    with st.container(horizontal=True):
        if len(pages) > 1 and st.button(t("Previous page"), key="topic_back", icon=":material/arrow_back:"):
            pages.pop()
            st.rerun()
        if found.next and st.button(t("Next page"), key="topic_next", icon=":material/arrow_forward:"):
            pages.append(found.next)
            st.rerun()


def _selected(cluster: str, message: ReadableMessage, zone: str) -> None:
    stored = message.stored
    if stored.is_cut:
        with st.spinner(t("reading the topic …")):
            message = one_message(cluster, stored.topic, stored.partition, stored.offset)
    message_details(message, cluster, zone, has_address=True)
