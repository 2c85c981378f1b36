"""The dialogs that rename and delete an SQL file."""

from __future__ import annotations

import streamlit as st

from ui import drafts, file_changes
from ui.access import may
from ui.components.problem import guarded
from ui.components.text import plain
from ui.components.uses import show_uses
from ui.formats import number
from ui.language import t, tn

__all__ = ["RENAMED", "file_buttons", "show_file_dialog"]

OPEN = "query_doing"
"""Session key: which dialog is open, for which file."""
RENAMED = "query_renamed"
"""Session key: the file that the page shows after a rename; empty after a delete."""


def file_buttons(name: str) -> None:
    """Draws the buttons that open the dialogs."""
    if st.button(t("Rename …"), key="query_rename", icon=":material/edit:", disabled=not may("rename query")):
        st.session_state[OPEN] = ("rename", name)
    if st.button(t("Delete …"), key="query_delete", icon=":material/delete:", disabled=not may("delete query")):
        st.session_state[OPEN] = ("delete", name)


def show_file_dialog(name: str, seen_sha256: str) -> None:
    """Draws the dialog that a button has opened for this file."""
    doing, of = st.session_state.get(OPEN, ("", ""))
    if of != name or not doing:
        return
    title = {"rename": t("Rename the SQL file"), "delete": t("Delete the SQL file?")}[doing]
    part = {"rename": _rename, "delete": _delete}[doing]

    @st.dialog(title, on_dismiss=_close)
    @guarded
    def dialog() -> None:
        st.markdown(f"**{plain(name)}**")
        part(name, seen_sha256)

    dialog()


def _close() -> None:
    st.session_state.pop(OPEN, None)


def _done(now: str) -> None:
    _close()
    st.session_state[RENAMED] = now
    st.rerun()


def _rename(name: str, seen_sha256: str) -> None:
    new_name = st.text_input(t("New file name"), value=name, key="query_new_name").strip()
    jobs = file_changes.uses_of_query(name).jobs
    if jobs:
        words = tn(
            len(jobs), "1 job reads it and follows:", "{count} jobs read it and follow:", count=number(len(jobs))
        )
        st.markdown("  \n".join([words, *(f"- {plain(job.name)}" for job in jobs)]))
    if st.button(t("Rename"), key="confirm_query_rename", icon=":material/edit:", disabled=new_name in ("", name)):
        file_changes.rename_query(name, new_name, seen_sha256)
        drafts.forget("query", name)
        st.toast(t("Renamed"), icon=":material/check:")
        _done(new_name)


def _delete(name: str, seen_sha256: str) -> None:
    uses = file_changes.uses_of_query(name)
    show_uses(uses)
    st.caption(t("It can be brought back from the page of the SQL files."))
    sure = not uses.jobs or st.checkbox(t("Delete it all the same: these jobs fail until it is back"), key="query_sure")
    if st.button(t("Yes, delete"), key="confirm_query_delete", icon=":material/delete:", disabled=not sure):
        file_changes.delete_query(name, seen_sha256)
        drafts.drop_draft("query", name)
        drafts.forget("query", name)
        st.toast(t("Deleted"), icon=":material/check:")
        _done("")
