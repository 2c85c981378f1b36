"""Connections: can we reach it?"""

from __future__ import annotations

import streamlit as st

from ui import data
from ui.language import t

__all__ = ["show"]


def show() -> None:
    """Draws the view."""
    st.title(t("Connections"))
    with data.opened() as app:
        databases = [
            {t("Database"): n, t("Type"): app.connections.database_type(n)} for n in app.connections.database_names
        ]
        clusters = [{t("Cluster"): name} for name in app.connections.cluster_names]
    st.dataframe(databases, hide_index=True)
    st.dataframe(clusters, hide_index=True)
