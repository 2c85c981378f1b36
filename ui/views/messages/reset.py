"""The dialog that resets the offsets of a consumer group: where to, what would change, and then the change."""

from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import streamlit as st

from core.admin.group_offsets import GroupReset
from ui import changes, data
from ui.components.problem import guarded
from ui.components.tables import table
from ui.components.text import plain
from ui.data.messages import group_plan
from ui.data.status import workspace_status
from ui.formats import number
from ui.language import t, tn

__all__ = ["FOUND", "RESETTING", "show_reset"]

FOUND = "groups_found"
"""Session key: the topic that was asked for, and its groups."""
RESETTING = "group_resetting"
"""Session key: the group whose dialog is open."""
_PLAN = "group_reset_plan"
"""Session key: what was asked for, and what it would change."""


def show_reset(cluster: str, topic: str) -> None:
    """Draws the dialog, if a group was chosen."""
    group = st.session_state.get(RESETTING)
    if group is None:
        return

    @st.dialog(t("Reset the offsets of this group?"), width="medium", on_dismiss=_close)
    @guarded
    def dialog() -> None:
        st.markdown(
            t(
                "Another application reads with **{group}**: it will read messages of **{topic}** again, or leave some out.",
                group=plain(group),
                topic=plain(topic),
            )
        )
        to = _target()
        asked = (cluster, topic, group, to)
        if st.button(t("Show what would change"), key="reset_plan", icon=":material/preview:"):
            st.session_state[_PLAN] = (asked, group_plan(cluster, topic, group, to))
        known = st.session_state.get(_PLAN)
        if known is not None and known[0] == asked:
            _plan(cluster, known[1])

    dialog()


def _target() -> str:
    """Draws the choice. Returns it as core takes it."""
    words = {
        "earliest": t("the oldest message"),
        "latest": t("the end: only new messages"),
        "time": t("a day and time"),
        "offset": t("an offset"),
    }
    chosen = st.radio(t("It goes on with"), list(words), format_func=lambda key: words[key], key="reset_to")
    if chosen == "offset":
        return str(st.number_input(t("Offset"), min_value=0, value=0, step=1, key="reset_offset"))
    if chosen == "time":
        zone = workspace_status().timezone
        yesterday = (data.now() - timedelta(days=1)).astimezone(ZoneInfo(zone)).replace(second=0, microsecond=0)
        at: datetime | None = st.datetime_input(
            t("From, in {zone}", zone=zone),
            yesterday.replace(tzinfo=None),
            format="DD/MM/YYYY",
            step=60,
            key="reset_at",
        )
        return (at or yesterday).isoformat()
    return str(chosen)


def _plan(cluster: str, plan: GroupReset) -> None:
    if not plan.changed:
        st.info(t("Nothing would change."), icon=":material/info:")
        return
    rows = [
        {
            t("Partition"): part.partition,
            t("Before"): part.before,
            t("After"): part.after,
            t("End"): part.end,
            t("Repeated"): part.again,
            t("Left out"): part.left_out,
        }
        for part in plan.partitions
    ]
    table(rows, "reset_rows", most_px=320, missing=t("never committed"))
    again = tn(plan.again, "1 message is read again", "{count} messages are read again", count=number(plan.again))
    out = tn(plan.left_out, "1 is left out", "{count} are left out", count=number(plan.left_out))
    st.warning(f"**{again}, {out}.**", icon=":material/warning:")
    if st.button(t("Reset these offsets"), key="reset_do", type="primary", icon=":material/restart_alt:"):
        changes.reset_group(cluster, plan)
        _close()
        st.session_state.pop(FOUND, None)
        st.toast(t("The offsets are reset"), icon=":material/check:")
        st.rerun()


def _close() -> None:
    for key in (RESETTING, _PLAN):
        st.session_state.pop(key, None)
