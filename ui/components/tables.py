"""Tables: numbers right-aligned with the separators of the language, a row that can be chosen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import streamlit as st

__all__ = ["choose", "table"]

ROW_PX = 35
MOST_PX = 760
NAME_PX = 190


def table(rows: Sequence[dict[str, Any]], key: str, *, most_px: int = MOST_PX, names: Sequence[str] = ()) -> None:
    """Draws rows; cells are shown as they are, whatever they hold.

    Args:
        rows: Column → value; the first columns are those that a phone shows.
        key: Of the session.
        most_px: How high it may be.
        names: Columns whose values may be long: not wider than leaves room for the next one on a phone.
    """
    st.dataframe(rows, hide_index=True, key=key, column_config=_config(rows, names), height=_height(rows, most_px))


def choose(
    rows: Sequence[dict[str, Any]], key: str, *, most_px: int = MOST_PX, names: Sequence[str] = ()
) -> int | None:
    """Draws rows of which one can be chosen; its index. See `table`."""
    event = st.dataframe(
        rows,
        hide_index=True,
        key=key,
        column_config=_config(rows, names),
        height=_height(rows, most_px),
        on_select="rerun",
        selection_mode="single-row",
    )
    chosen = event.selection.rows
    return chosen[0] if chosen and chosen[0] < len(rows) else None


def _config(rows: Sequence[dict[str, Any]], names: Sequence[str]) -> dict[str, Any]:
    first = rows[0] if rows else {}
    numbers = {
        name: st.column_config.NumberColumn(format="localized")
        for name, value in first.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
    return {**numbers, **{name: st.column_config.Column(width=NAME_PX) for name in names}}


def _height(rows: Sequence[dict[str, Any]], most_px: int) -> int:
    return min(most_px, ROW_PX * (len(rows) + 1) + 3)
