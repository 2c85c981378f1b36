"""The consumer groups of a topic: how far each has read, and who reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import streamlit as st

from ui.access import may
from ui.components.tables import table
from ui.components.text import plain
from ui.data.messages import groups
from ui.formats import number
from ui.language import t, tn
from ui.views.messages.asking import asking
from ui.views.messages.reset import FOUND, RESETTING, show_reset

if TYPE_CHECKING:
    from core.kafka.consumer_groups import ConsumerGroup, GroupsOfTopic

__all__ = ["lag_words", "show_groups"]


def show_groups(cluster: str, topic: str) -> None:
    """Draws the groups; the cluster is asked again when the button is used."""
    if st.button(t("Read again"), key="groups_again", icon=":material/refresh:"):
        st.session_state.pop(FOUND, None)
    asking(_groups)(cluster, topic)


def _groups(cluster: str, topic: str) -> None:
    known = st.session_state.get(FOUND)
    if known is None or known[0] != (cluster, topic):
        st.session_state.pop(FOUND, None)
        with st.spinner(t("asking the cluster …")):
            known = ((cluster, topic), groups(cluster, topic))
        st.session_state[FOUND] = known
    found: GroupsOfTopic = known[1]
    if found.note:
        st.info(t("A mock broker, as that of the demo, does not list consumer groups."), icon=":material/info:")
        return
    if not found.groups:
        st.info(t("No consumer group reads this topic, or has read it."), icon=":material/group_off:")
    for index, group in enumerate(found.groups):
        _group(group, index)
    show_reset(cluster, topic)
    if found.asked < found.total:
        st.caption(
            t(
                "Only the first {asked} of {total} groups of the cluster were asked.",
                asked=number(found.asked),
                total=number(found.total),
            )
        )
    if found.refused:
        st.caption(
            tn(
                found.refused,
                "This account may not read 1 group.",
                "This account may not read {count} groups.",
                count=number(found.refused),
            )
        )


def _why_not(group: ConsumerGroup) -> str | None:
    """Returns why the offsets of a group cannot be reset; None: they can."""
    if not may("reset offsets"):
        return t("only an admin may do this")
    return t("It has members: stop its consumers first.") if group.members else None


def _group(group: ConsumerGroup, index: int) -> None:
    with st.container(border=True):
        st.subheader(plain(group.name), anchor=False)
        if group.never_committed:
            st.warning(
                t("It reads this topic and has never committed an offset: how far it is, is not known."),
                icon=":material/help:",
            )
        else:
            st.markdown(f"**{lag_words(group)}**")
        count = len(group.members)
        members = tn(count, "1 member", "{count} members", count=number(count)) if count else ""
        st.caption(" · ".join(filter(None, (_state(group.state), members))))
        rows = [_partition(group, part) for part in group.partitions]
        table(rows, f"group_{index}", most_px=320, missing=t("never committed"))
        if not group.never_committed and group.uncommitted:
            st.caption(
                tn(
                    group.uncommitted,
                    "1 message is in partitions for which it never committed an offset, and is not counted: it may be unread.",
                    "{count} messages are in partitions for which it never committed an offset, and are not counted: they may be unread.",
                    count=number(group.uncommitted),
                )
            )
        if group.members:
            table(
                [
                    {
                        t("Member"): member.client_id,
                        t("Host"): member.host,
                        t("Partitions"): ", ".join(map(str, member.partitions)) or t("none of this topic"),
                    }
                    for member in group.members
                ],
                f"members_{index}",
                most_px=320,
            )
        if st.button(
            t("Reset its offsets"),
            key=f"reset_group_{index}",
            icon=":material/restart_alt:",
            disabled=not may("reset offsets") or bool(group.members),
            help=_why_not(group),
        ):
            st.session_state[RESETTING] = group.name


def lag_words(group: ConsumerGroup) -> str:
    """How far a group is, green only if no message can be unread."""
    if group.lag:
        return f"🟠 {tn(group.lag, '1 message behind', '{count} messages behind', count=number(group.lag))}"
    if group.uncommitted:
        return f"🟠 {t('Everything is read where it committed an offset, but not every partition has one.')}"
    return f"🟢 {t('It has read everything.')}"


def _partition(group: ConsumerGroup, part: Any) -> dict[str, Any]:
    readers = [member.client_id for member in group.members if part.partition in member.partitions]
    return {
        t("Partition"): part.partition,
        t("Behind"): part.lag,
        t("Next offset to read"): part.committed,
        t("End"): part.end,
        t("Read by"): ", ".join(readers) or "–",
    }


def _state(state: str) -> str:
    words = {
        "stable": t("stable"),
        "empty": t("nobody reads now"),
        "dead": t("dead"),
        "preparing rebalancing": t("is being rebalanced"),
        "completing rebalancing": t("is being rebalanced"),
        "": t("its state may not be seen"),
    }
    return words.get(state, plain(state))
