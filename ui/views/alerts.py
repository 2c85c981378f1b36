"""Alerts: what is wrong now, and who was told."""

from __future__ import annotations

import streamlit as st

from ui import data
from ui.components.text import plain
from ui.language import t

__all__ = ["show"]


def show() -> None:
    """Draws the view."""
    st.title(t("Alerts"))
    alerts = data.frame().alerts
    for text in alerts:
        st.warning(plain(text))
    if not alerts:
        st.write(t("no alert is open"))
