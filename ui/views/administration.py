"""Administration: settings, users, audit, log."""

from __future__ import annotations

import streamlit as st

from ui import data
from ui.language import t

__all__ = ["show"]


def show() -> None:
    """Draws the view."""
    st.title(t("Administration"))
    with data.opened() as app:
        rows = [{t("Setting"): r.name, t("Value"): str(r.value), t("Origin"): r.origin} for r in app.settings.table()]
    st.dataframe(rows, hide_index=True)
