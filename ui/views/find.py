"""Find."""

from __future__ import annotations

import streamlit as st

from ui.language import t

__all__ = ["show"]


def show() -> None:
    """Draws the view."""
    st.title(t("Find"))
