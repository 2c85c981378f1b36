"""Shows the difference between two versions of a file."""

from __future__ import annotations

import difflib

import streamlit as st

from ui.language import t

__all__ = ["show_difference"]


def show_difference(before: str, after: str, name_before: str, name_after: str) -> None:
    """Draws the lines that only one of two texts has."""
    lines = list(
        difflib.unified_diff(before.splitlines(), after.splitlines(), name_before, name_after, lineterm="", n=2)
    )
    if lines:
        st.code("\n".join(lines), language="diff", wrap_lines=True)
    else:
        st.markdown(t("Both say the same."))
