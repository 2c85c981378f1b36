"""The page of a run while it is running: its figures, its parts and its log as they come, and a cancel that asks."""

from __future__ import annotations

import streamlit as st

from ui import changes
from ui.access import may
from ui.components import live, run_details
from ui.components.problem import fragment, guarded
from ui.components.text import plain
from ui.components.verdict import coloured_word
from ui.data.live import LiveRun, live_detail
from ui.language import t

__all__ = ["show"]

_CANCELLING = "cancelling"
"""Session key: the run of the open dialog."""


def show(run_id: str) -> bool:
    """Draws a running run. Returns False, and draws nothing, if it is not running."""
    detail = live_detail(run_id)
    if detail is None:
        return False
    _head(run_id)
    _cancel(detail.live)
    _rest(run_id)
    return True


@fragment(run_every=1)
def _head(run_id: str) -> None:
    detail = live_detail(run_id)
    if detail is None:
        st.rerun()
    run = detail.live.run
    st.title(plain(run.job_name), anchor=False)
    st.markdown(f"### {coloured_word(run.verdict)}")
    live.figures(detail.live)
    run_details.origin(run)
    if run.cancel_asked_at is not None:
        st.info(
            t("It was asked to end by {who}; it does between two batches.", who=plain(run.cancel_asked_by)),
            icon=":material/stop_circle:",
        )


@fragment(run_every=2)
def _rest(run_id: str) -> None:
    detail = live_detail(run_id)
    if detail is None:
        st.rerun()
    guarded(run_details.parts)(detail.live.run)
    guarded(run_details.log)(detail.live.run, detail.log)


def _cancel(running: LiveRun) -> None:
    run = running.run
    if run.cancel_asked_at is not None:
        return
    if st.button(t("Cancel this run"), icon=":material/stop_circle:", disabled=not may("cancel"), key="cancel"):
        st.session_state[_CANCELLING] = run.run_id
    if st.session_state.get(_CANCELLING) == run.run_id:
        _confirm_cancel(running)


def _confirm_cancel(running: LiveRun) -> None:
    @st.dialog(t("Cancel this run?"), on_dismiss=lambda: st.session_state.pop(_CANCELLING, None))
    @guarded
    def confirm() -> None:
        st.write(plain(running.run.job_name))
        live.bar(running)
        st.write(
            t("It ends between two batches and is not tried again. A file is not written.")
            if running.run.is_file
            else t(
                "It ends between two batches and is not tried again. Readers keep the messages that are acknowledged; with exactly_once they see none of them."
            )
        )
        if st.button(t("Yes, cancel"), icon=":material/stop_circle:", type="primary", key="confirm_cancel"):
            st.session_state.pop(_CANCELLING, None)
            changes.cancel(running.run.run_id)
            st.rerun()

    confirm()
