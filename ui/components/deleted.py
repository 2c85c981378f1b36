"""What was deleted, each with a button that brings it back."""

from __future__ import annotations

import streamlit as st

from core.records.rights import Action
from ui import file_changes
from ui.access import may
from ui.components.text import plain
from ui.data.status import workspace_status
from ui.file_changes import Deleted, DeletedKind
from ui.formats import moment
from ui.language import t

__all__ = ["show_deleted"]

SHOWN = 20
SAID = "deleted_said"
"""Session key: what is said after something was brought back."""


def show_deleted(*kinds: DeletedKind) -> None:
    """Draws the deleted things of these kinds behind a heading; nothing where there are none."""
    if said := st.session_state.pop(SAID, ""):
        st.warning(said, icon=":material/key_off:")
    found = [one for one in file_changes.deleted() if one.kind in kinds]
    if not found:
        return
    with st.expander(t("Deleted: {count}", count=len(found)), icon=":material/restore_from_trash:"):
        for index, one in enumerate(found[:SHOWN]):
            _row(one, index)
        if len(found) > SHOWN:
            st.caption(t("The newest {count} are shown.", count=SHOWN))


def _row(one: Deleted, index: int) -> None:
    action: Action = "connections" if one.kind in ("connection", "cluster") else "restore"
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.markdown(f"**{plain(one.title)}**  \n:small[{_when(one)}]", width="content")
        key = f"restore_{one.kind}_{index}_{one.name}"
        if st.button(t("Bring back"), key=key, icon=":material/history:", disabled=not may(action)):
            _restore(one)


def _when(one: Deleted) -> str:
    name = "" if one.title == one.name else f"{plain(one.name)} · "
    if one.deleted_at is None:
        return f"{name}{t('deleted outside of this page')}"
    time = moment(one.deleted_at, workspace_status().timezone)
    if not one.deleted_by:
        return f"{name}{t('deleted {time}', time=time)}"
    return f"{name}{t('deleted {time} by {who}', time=time, who=plain(one.deleted_by))}"


def _restore(one: Deleted) -> None:
    if not file_changes.restore(one.kind, one.name):
        st.session_state[SAID] = t("{name} is back. Enter its password again.", name=plain(one.title))
    st.toast(t("{name} is back", name=plain(one.title)), icon=":material/check:")
    st.rerun()
