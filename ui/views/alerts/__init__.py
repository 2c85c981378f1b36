"""Alerts: what is wrong now, who knows of it, who was notified, and the rules."""

from __future__ import annotations

import streamlit as st

from ui import data
from ui.components.problem import guarded
from ui.data.status import workspace_status
from ui.language import t
from ui.views.alerts.incidents import show_incidents
from ui.views.alerts.messages import show_messages
from ui.views.alerts.rules import show_rules
from ui.views.alerts.silences import show_silences

__all__ = ["show"]


def show() -> None:
    """Draws the view."""
    st.title(t("Alerts"), anchor=False)
    zone = workspace_status().timezone
    with data.opened() as app:
        open_ones, ended = app.outbox.open_incidents(), [e for e in app.outbox.incidents() if e.state == "ended"]
        waiting, done = app.outbox.waiting(), app.outbox.newest()
    now_tab, rules_tab, messages_tab = st.tabs([t("Now and before"), t("Rules"), t("Notifications")])
    with now_tab:
        guarded(show_incidents)(open_ones, ended, zone)
        guarded(show_silences)(zone)
    with rules_tab:
        guarded(show_rules)()
    with messages_tab:
        guarded(show_messages)(waiting, done, zone)
