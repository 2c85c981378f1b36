"""Asks before the tab is left with text that is not saved."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from ui import drafts

__all__ = ["show"]

_SCRIPT = (Path(__file__).parent / "leave_warning.js").read_text(encoding="utf-8")
_component = st.components.v2.component("pstt_leave_warning", js=_SCRIPT, isolate_styles=False)
TURN = "leave_warning_turn"


def show() -> None:
    """Draws nothing; the browser asks if a form that is open has text that is not saved."""
    if not st.session_state.get(drafts.FORMS):
        return
    turn = st.session_state[TURN] = st.session_state.get(TURN, 0) + 1
    _component(key="leave_warning", data={"unsaved": drafts.has_unsaved_text(), "turn": turn}, height=1)
