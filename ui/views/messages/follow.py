"""Follows a topic: new messages appear at the top while the switch is on, for some minutes at most."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import streamlit as st

from core.admin.topic_messages import MessageQuery, ReadableMessage
from ui import data
from ui.components.links import go
from ui.components.problem import fragment
from ui.components.tables import choose
from ui.components.text import plain
from ui.data.messages import followed, page_of_topic
from ui.data.status import workspace_status
from ui.formats import clock, number
from ui.language import t, tn
from ui.views.messages.asking import asking
from ui.views.messages.rows import message_row

__all__ = ["follow", "follow_switch", "was_ended"]

EVERY_S = 2.0
LASTS = timedelta(minutes=10)
"""A forgotten page stops asking the cluster."""
MOST_SHOWN = 200
_SWITCH = "topic_follow"
_STATE = "topic_followed"
"""Session key: what is followed, and what has come."""
_ENDED = "topic_follow_ended"
"""Session key: it stopped by itself."""
_ROWS = "topic_follow_rows"


@dataclass
class _Followed:
    asked: tuple[str, str, MessageQuery]
    until: datetime
    position: dict[int, int]
    messages: deque[ReadableMessage] = field(default_factory=lambda: deque(maxlen=MOST_SHOWN))
    """The newest first."""
    came: int = 0
    examined: int = 0
    passed_over: int = 0


def follow_switch() -> bool:
    """Draws the switch. Returns whether the topic is followed."""
    if _ENDED in st.session_state:
        st.session_state[_SWITCH] = False
    is_on = st.toggle(t("Follow"), key=_SWITCH, help=t("Shows new messages as they come, for 10 minutes at most."))
    if not is_on:
        st.session_state.pop(_STATE, None)
    return is_on


def was_ended() -> bool:
    """Returns whether following stopped by itself; once."""
    return bool(st.session_state.pop(_ENDED, False))


@fragment(run_every=EVERY_S)
def follow(cluster: str, topic: str, query: MessageQuery) -> None:
    """Draws the newest messages, and above them those that come."""
    asking(_follow)(cluster, topic, replace(query, newest_first=True))


def _follow(cluster: str, topic: str, query: MessageQuery) -> None:
    state = _state(cluster, topic, query)
    if data.now() >= state.until:
        st.session_state[_ENDED] = True
        st.session_state.pop(_STATE, None)
        st.rerun()
    # The rows must not move between the click on one and its answer.
    if not _is_chosen():
        turn, state.position = followed(cluster, topic, replace(query, limit=MOST_SHOWN), state.position)
        state.came += len(turn.messages)
        state.examined += turn.examined
        state.passed_over += turn.passed_over
        state.messages = _joined(turn.messages, state.messages)
    # Streamlit fades what is redrawn; a list that is redrawn every two seconds would blink.
    st.html("<style>.st-key-followed [data-stale='true'] { opacity: 1 !important }</style>")
    with st.container(key="followed"):
        _drawn(cluster, topic, state)


def _drawn(cluster: str, topic: str, state: _Followed) -> None:
    zone = workspace_status().timezone
    _said(state, zone)
    if not state.messages:
        st.info(t("No message is like that."), icon=":material/filter_alt_off:")
        return
    index = choose([message_row(message, zone) for message in state.messages], _ROWS, most_px=560)
    if index is not None:
        place = state.messages[index].stored
        of = {"cluster": cluster} if cluster else {}
        go("messages", topic=topic, at=f"{place.partition}@{place.offset}", **of)


def _state(cluster: str, topic: str, query: MessageQuery) -> _Followed:
    """Returns what is followed; begins with the newest page, and with what comes after it."""
    asked = (cluster, topic, query)
    known: _Followed | None = st.session_state.get(_STATE)
    if known is not None and known.asked == asked:
        return known
    # The position is taken first, so that no message is missed between the two; one that is in both is shown once.
    _, position = followed(cluster, topic, query, None)
    page = page_of_topic(cluster, topic, query)
    older = (m for m in page.messages if m.stored.offset < position.get(m.stored.partition, 0))
    made = _Followed(asked, data.now() + LASTS, position, _joined((), older))
    st.session_state[_STATE] = made
    return made


def _joined(newer: Iterable[ReadableMessage], older: Iterable[ReadableMessage]) -> deque[ReadableMessage]:
    joined: deque[ReadableMessage] = deque(maxlen=MOST_SHOWN)
    for message in (*newer, *older):
        if len(joined) == MOST_SHOWN:
            break
        joined.append(message)
    return joined


def _is_chosen() -> bool:
    rows = st.session_state.get(_ROWS)
    return st.session_state.get(f"{_ROWS}_card") is not None or bool(rows and rows["selection"]["rows"])


def _said(state: _Followed, zone: str) -> None:
    """Draws what has come, and until when the topic is followed."""
    came = tn(state.came, "1 new message", "{count} new messages", count=number(state.came))
    looked = tn(
        state.examined,
        "It looked through 1 message.",
        "It looked through {count} messages.",
        count=number(state.examined),
    )
    st.markdown(
        f"**:material/sensors: {came}** · {looked} "
        + t("It stops at {time} ({zone}).", time=clock(state.until, zone), zone=plain(zone))
    )
    kept = t("The newest {count} at most are kept here. Select a message to open it.", count=number(MOST_SHOWN))
    if state.passed_over:
        fast = tn(
            state.passed_over,
            "1 message came too fast and is not shown.",
            "{count} messages came too fast and are not shown.",
            count=number(state.passed_over),
        )
        kept = f"{fast} {kept}"
    st.caption(kept)
