"""One message at an address of its own, and the messages of a run one after the other."""

from __future__ import annotations

import re
from typing import Literal

import streamlit as st

from ui.components.links import go, link
from ui.components.message import message_details
from ui.components.text import plain
from ui.data.messages import one_message, run_message, run_of
from ui.data.status import workspace_status
from ui.formats import number
from ui.language import t
from ui.views.messages.asking import asking

__all__ = ["show_one", "show_run"]

_PLACE = re.compile(r"(\d{1,9})@(\d{1,18})")
_STEP = "run_step"
"""Session key: the run, the message that was shown, and the direction of the button that was used."""


def show_one(cluster: str, topic: str, at: str) -> None:
    """Draws one message of a topic.

    Args:
        cluster: Its key or its name; empty: the default one.
        topic: The topic.
        at: `PARTITION@OFFSET`.
    """
    of = {"cluster": cluster} if cluster else {}
    link("messages", t("all messages of {topic}", topic=plain(topic)), icon=":material/arrow_back:", topic=topic, **of)
    place = _place(at)
    if place is None:
        st.warning(t("The address does not name a message."), icon=":material/link_off:")
        return
    partition, offset = place
    st.title(plain(f"{topic}-{partition} @ {offset}"), anchor=False)
    with st.container(horizontal=True):
        if st.button(t("Previous offset"), key="one_back", icon=":material/arrow_back:", disabled=not offset):
            go("messages", topic=topic, at=f"{partition}@{offset - 1}", **of)
        if st.button(t("Next offset"), key="one_next", icon=":material/arrow_forward:"):
            go("messages", topic=topic, at=f"{partition}@{offset + 1}", **of)
    asking(_one)(cluster, topic, partition, offset)


def _one(cluster: str, topic: str, partition: int, offset: int) -> None:
    with st.spinner(t("reading the topic …")):
        found = one_message(cluster, topic, partition, offset)
    message_details(found, cluster, workspace_status().timezone)


def show_run(run_id: str, at: str) -> None:
    """Draws a message of a run, with buttons to the one before and the one after it.

    Args:
        run_id: The run.
        at: `PARTITION@OFFSET`; empty: its first message.
    """
    run = run_of(run_id)
    link("runs", t("open run {id}", id=run.run_id), icon=":material/arrow_back:", run=run.run_id)
    st.title(plain(run.job_name), anchor=False)
    asking(_of_run)(run.run_id, at)


def _of_run(run_id: str, at: str) -> None:
    run = run_of(run_id)
    place, step = _asked(run_id, at)
    with st.spinner(t("reading the topic …")):
        found = run_message(run, place, step)
    stored = found.message.stored
    if step:
        st.query_params["at"] = f"{stored.partition}@{stored.offset}"
    if found.number is not None:
        st.markdown(
            t(
                "Message **{number}** of **{total}** of this run, by partition and offset",
                number=number(found.number),
                total=number(run.acknowledged),
            )
        )
    with st.container(horizontal=True):
        back = st.button(
            t("Previous message"), key="run_back", icon=":material/arrow_back:", disabled=not found.has_previous
        )
        on = st.button(t("Next message"), key="run_next", icon=":material/arrow_forward:", disabled=not found.has_next)
    if back or on:
        st.session_state[_STEP] = (run_id, (stored.partition, stored.offset), 1 if on else -1)
        st.rerun()
    message_details(found.message, found.cluster, run.timezone, has_address=True, has_run=False)


def _asked(run_id: str, at: str) -> tuple[tuple[int, int] | None, Literal[-1, 0, 1]]:
    """Returns from which message to go on, and in which direction: by a button, else as the address says."""
    moved = st.session_state.pop(_STEP, None)
    if moved is not None and moved[0] == run_id:
        return moved[1], moved[2]
    return _place(at), 0


def _place(at: str) -> tuple[int, int] | None:
    found = _PLACE.fullmatch(at)
    return (int(found[1]), int(found[2])) if found else None
