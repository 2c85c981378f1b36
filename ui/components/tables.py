"""Tables: numbers are right-aligned with the separators of the language; a row can be selected."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import streamlit as st

__all__ = ["choose", "table"]

ROW_PX = 35
MOST_PX = 760
NAME_PX = 190
SHORT_TEXT = 32
"""Texts up to so many letters are never cut off: they may end in a number, such as an offset."""
LETTER_PX = 7.5
DIGIT_PX = 7
"""Separators are narrower."""
PADDING_PX = 18


def table(
    rows: Sequence[dict[str, Any]],
    key: str,
    *,
    most_px: int = MOST_PX,
    names: Sequence[str] = (),
    missing: str | None = None,
) -> None:
    """Draws rows. Cells are shown as plain text.

    Args:
        rows: Column → value; the first columns are those that a phone shows.
        key: Session key of the table.
        most_px: Maximal height in pixels.
        names: Columns whose values may be long. They are kept narrow enough for the next column to fit on a phone.
        missing: What a cell without a value shows; None: `None`.
    """
    st.dataframe(
        rows,
        hide_index=True,
        key=key,
        column_config=_config(rows, names),
        height=_height(rows, most_px),
        placeholder=missing,
    )


def choose(
    rows: Sequence[dict[str, Any]], key: str, *, most_px: int = MOST_PX, names: Sequence[str] = ()
) -> int | None:
    """Draws rows of which one can be selected. Returns its index; None: none is. Arguments as of `table`."""
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
    """The width of each column. The browser measures only the first rows, and would cut off a longer number in a later one."""
    found: dict[str, Any] = {name: st.column_config.Column(width=NAME_PX) for name in names}
    for name in rows[0] if rows else ():
        values = [row[name] for row in rows if row.get(name) is not None]
        if values and all(_is_number(value) for value in values):
            width = _width_px(name, map(_written, values), DIGIT_PX)
            found[name] = st.column_config.NumberColumn(format="localized", width=width)
        elif name not in names and 0 < max((len(str(value)) for value in values), default=0) <= SHORT_TEXT:
            found[name] = st.column_config.Column(width=_width_px(name, map(str, values), LETTER_PX))
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _written(value: float) -> str:
    """A number as the browser writes it: with separators, and with three decimals where it has any."""
    return f"{value:,}" if isinstance(value, int) else f"{value:,.3f}"


def _width_px(heading: str, texts: Iterable[str], letter_px: float) -> int:
    return round(max(len(heading) * LETTER_PX, *(len(text) * letter_px for text in texts)) + PADDING_PX)


def _height(rows: Sequence[dict[str, Any]], most_px: int) -> int:
    return min(most_px, ROW_PX * (len(rows) + 1) + 3)
