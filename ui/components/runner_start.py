"""How the runner of this workspace is started: the exact command, and as a service where that is possible."""

from __future__ import annotations

import streamlit as st

from core.admin.start_runner import service_commands, service_problem, start_commands
from ui import changes, data
from ui.access import may
from ui.components.text import plain
from ui.data.status import workspace_status
from ui.language import t, translated

__all__ = ["show"]

_STARTED = "service_started"


def show() -> None:
    """Draws the commands, and the button."""
    workspace = data.workspace()
    if workspace_status().runner_is_alive(data.now()):
        st.success(t("The runner of this workspace is working."), icon=":material/check:")
    st.markdown(t("In a terminal; it works until the terminal is closed:"))
    st.code("\n".join(start_commands(workspace)), language="shell", wrap_lines=True)
    st.markdown(t("As a service, which starts with the machine; an administrator of it enters:"))
    st.code("\n".join(service_commands(workspace)), language="shell", wrap_lines=True)
    why = service_problem()
    if why:
        st.caption(t("This page cannot do it itself: {why}.", why=plain(translated(why))))
    elif st.button(
        t("Start it as a service"), key="start_service", icon=":material/play_arrow:", disabled=not may("service")
    ):
        st.session_state[_STARTED] = changes.start_service()
        st.rerun()
    for line in st.session_state.pop(_STARTED, []):
        st.code(line, language=None, wrap_lines=True)
