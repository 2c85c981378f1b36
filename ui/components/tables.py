"""Tables: numbers are right-aligned with the separators of the language; a row can be selected.

On a phone each row is a card: the first column is its heading, the others follow with their names, so that nothing is
cut off. The cards of `choose` are one list of choices, which a keyboard reaches too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from html import escape
from typing import Any

import pandas as pd
import streamlit as st

from core.files.writer import escape_text
from ui.components.text import plain
from ui.components.verdict import HEX_COLOURS, coloured, known_colours
from ui.components.viewport import is_narrow
from ui.formats import number, quantity
from ui.language import t

__all__ = ["choose", "table", "text_table", "without_usual"]

ROW_PX = 35
MOST_PX = 760
NAME_PX, TEXT_PX = 190, 440
"""The width of a column with long names, and of one with sentences."""
SHORT_TEXT = 32
"""Texts up to so many letters are never cut off: they may end in a number, such as an offset."""
LETTER_PX = {**dict.fromkeys("0123456789", 7.1), **dict.fromkeys(" .,:;'|!ijlI", 4.2), **dict.fromkeys("mwMW%@", 12.0)}
"""The width of a letter where it is not that of most."""
SMALL_PX, CAPITAL_PX = 7.2, 8.2
"""The width of any other letter."""
PADDING_PX = 18
LABEL_SHARE = 0.85
"""The size of the letters of a coloured label."""
LABEL_PX = 16
"""The edges of a coloured label."""
CARDS = 20
"""Cards that are drawn at first; a button draws as many more."""
PAIR = 2
"""Columns of a table of names and values, which is one card."""
HEADING_CELLS = 2
"""Cells in the heading of a card that can be chosen, such as verdict and job."""
EMPTY = ("", "–", None)
_NO_DOWNLOAD_STYLE = """<style>
[class*="st-key-formulas-"] [data-testid="stElementToolbarButton"]:has([aria-label="Download as CSV"]) { display: none }
</style>"""
_CARD_STYLE = """<style>
.pstt-card, [class*="st-key-cards-"] [role=radiogroup] > div {
  border: 1px solid color-mix(in srgb, currentColor 22%, transparent); position: relative;
  border-radius: .5rem; padding: .6rem .8rem; margin: 0 0 .5rem; width: 100%; overflow-wrap: anywhere;
}
.pstt-card dl { display: grid; grid-template-columns: minmax(5rem, max-content) 1fr; gap: .1rem .8rem; margin: .3rem 0 0; padding: 0 }
.pstt-card dt, .pstt-card dd { margin: 0; padding: 0 }
.pstt-card dt { opacity: .75 }
[class*="st-key-cards-"] [role=radiogroup] label { position: static }
[class*="st-key-cards-"] [role=radiogroup] label::after { content: ""; position: absolute; inset: 0; z-index: 1 }
[class*="st-key-cards-"] [role=radiogroup] > div:has(input:focus-visible) { outline: 2px solid currentColor }
</style>"""
"""The whole card of a choice is its label, so that a tap anywhere on it chooses it."""
_TEXT_STYLE = """<style>
.pstt-texts {
  border: 1px solid color-mix(in srgb, currentColor 14%, transparent); border-radius: .5rem; max-height: 760px; overflow: auto;
}
.pstt-texts table { border-collapse: collapse; width: 100%; font-size: .875rem }
.pstt-texts th { font-weight: 400; opacity: .75; text-align: left }
.pstt-texts th, .pstt-texts td { padding: .45rem .6rem; vertical-align: top; border: 0; white-space: nowrap }
.pstt-texts td { border-top: 1px solid color-mix(in srgb, currentColor 10%, transparent) }
.pstt-texts td:last-child { white-space: normal; min-width: 15rem; width: 100% }
.pstt-texts:focus-visible { outline: 2px solid currentColor }
</style>"""


def without_usual(rows: Sequence[dict[str, Any]], usual: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the rows without the columns that say the usual in each row, so that the last columns have room.

    Args:
        rows: Column → value.
        usual: Column → the value that needs no column, such as the first attempt.
    """
    same = {name for name, value in usual.items() if all(row.get(name) == value for row in rows)}
    return [{name: cell for name, cell in row.items() if name not in same} for row in rows]


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
        rows: Column → value; the first columns are those that matter most.
        key: Session key of the table.
        most_px: Maximal height in pixels.
        names: Columns whose values may be long. They are kept narrow enough for the next column to fit on a phone.
        missing: What a cell without a value shows; None: `None`.
    """
    if is_narrow():
        shown = _first(rows, key)
        cards = [{n: missing if v is None and missing else v for n, v in row.items()} for row in shown]
        is_pairs = all(len(row) == PAIR for row in cards)
        st.html(_CARD_STYLE + (_pairs(cards) if is_pairs else "".join(map(_card, cards))))
        _more(rows, shown, key)
        return
    with _without_download(rows, key):
        st.dataframe(
            _drawn(rows),
            hide_index=True,
            key=key,
            column_config=_config(rows, names),
            height=_height(rows, most_px),
            placeholder=missing,
        )


def text_table(rows: Sequence[dict[str, str]], key: str, label: str) -> None:
    """Draws rows of which the last column is a long text, in as many lines as it needs.

    Args:
        rows: Column → text; a text before the last one is not broken.
        key: As of `table`.
        label: What is in it, for a screen reader.
    """
    if is_narrow():
        table(rows, key)
        return
    head = "".join(f"<th scope=col>{escape(name)}</th>" for name in rows[0])
    lines = ("".join(f"<td>{escape(text)}</td>" for text in row.values()) for row in rows)
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    region = f'<div class="pstt-texts" tabindex="0" role="region" aria-label="{escape(label)}">'
    st.html(f"{_TEXT_STYLE}{region}<table><tr>{head}</tr>{body}</table></div>")


def choose(
    rows: Sequence[dict[str, Any]],
    key: str,
    *,
    most_px: int = MOST_PX,
    names: Sequence[str] = (),
    texts: Sequence[str] = (),
) -> int | None:
    """Draws rows of which one can be selected. Returns its index; None: none is.

    Arguments as of `table`; `texts` are columns of sentences, which get more room than the others.
    """
    if is_narrow():
        return _choose_card(rows, key)
    with _without_download(rows, key):
        event = st.dataframe(
            _drawn(rows),
            hide_index=True,
            key=key,
            column_config=_config(rows, names, texts),
            height=_height(rows, most_px),
            placeholder="–",
            on_select="rerun",
            selection_mode="single-row",
        )
    chosen = event.selection.rows
    return chosen[0] if chosen and chosen[0] < len(rows) else None


def _without_download(rows: Sequence[dict[str, Any]], key: str) -> AbstractContextManager[object]:
    """Where a spreadsheet would execute a cell, hides Streamlit's "Download as CSV", which writes cells as they are."""
    texts = (text for row in rows for pair in row.items() for text in pair if isinstance(text, str))
    if all(escape_text(text) == text for text in texts):
        return nullcontext()
    st.html(_NO_DOWNLOAD_STYLE)
    return st.container(key=f"formulas-{key}")


def _choose_card(rows: Sequence[dict[str, Any]], key: str) -> int | None:
    shown = _first(rows, key)
    st.html(_CARD_STYLE)
    with st.container(key=f"cards-{key}"):
        chosen: int | None = st.radio(
            t("Choose one"),
            range(len(shown)),
            index=None,
            format_func=lambda index: f"**{' · '.join(map(coloured, _heading(shown[index])[:HEADING_CELLS]))}**",
            captions=[_caption(row) for row in shown],
            label_visibility="collapsed",
            key=f"{key}_card",
            width="stretch",
        )
    _more(rows, shown, key)
    return chosen


def _first(rows: Sequence[dict[str, Any]], key: str) -> Sequence[dict[str, Any]]:
    return rows[: st.session_state.get(f"{key}_cards", CARDS)]


def _more(rows: Sequence[dict[str, Any]], shown: Sequence[dict[str, Any]], key: str) -> None:
    if len(shown) == len(rows):
        return

    def more() -> None:
        st.session_state[f"{key}_cards"] = len(shown) + CARDS

    st.button(t("{count} more", count=number(len(rows) - len(shown))), key=f"{key}_more", on_click=more)


def _cells(row: dict[str, Any]) -> dict[str, str]:
    """The cells that say something, as text."""
    return {name: _text(value) for name, value in row.items() if value not in EMPTY}


def _text(value: Any) -> str:
    return number(value) if isinstance(value, int) and _is_number(value) else str(value)


def _card(row: dict[str, Any]) -> str:
    others = list(_cells(row).items())[1:]
    pairs = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in others)
    heading = next(iter(_heading(row)), "–")
    return f'<div class="pstt-card"><strong>{escape(heading)}</strong><dl>{pairs}</dl></div>'


def _pairs(rows: Sequence[dict[str, Any]]) -> str:
    """One card for a table of names and values."""
    cells = [map(escape, map(_text, row.values())) for row in rows]
    pairs = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in cells)
    return f'<div class="pstt-card"><dl>{pairs}</dl></div>'


def _heading(row: dict[str, Any]) -> list[str]:
    """The cells as they are in the heading of a card: a number says what it counts."""
    return [f"{name} {text}" if _is_number(row[name]) else text for name, text in _cells(row).items()]


def _caption(row: dict[str, Any]) -> str:
    others = list(_cells(row).items())[HEADING_CELLS:]
    return " · ".join(f"{plain(name)} {coloured(value)}" for name, value in others)


def _config(rows: Sequence[dict[str, Any]], names: Sequence[str], texts: Sequence[str] = ()) -> dict[str, Any]:
    """The width of each column. The browser measures only the first rows, and would cut off a longer number in a later one."""
    widths = {**dict.fromkeys(names, NAME_PX), **dict.fromkeys(texts, TEXT_PX)}
    found: dict[str, Any] = {name: st.column_config.Column(width=width) for name, width in widths.items()}
    for name in rows[0] if rows else ():
        values = [row[name] for row in rows if row.get(name) is not None]
        if _is_verdict(values):
            found[name] = _labels(name, values)
        elif values and all(_is_number(value) for value in values):
            width = _width_px(name, map(quantity, values))
            found[name] = st.column_config.NumberColumn(width=width)
        elif name not in widths and _is_short(values):
            found[name] = st.column_config.Column(width=_width_px(name, map(str, values)))
    return found


def _is_short(values: Sequence[Any]) -> bool:
    return 0 < max((len(str(value)) for value in values), default=0) <= SHORT_TEXT


def _drawn(rows: Sequence[dict[str, Any]]) -> Any:
    """The rows, with what is drawn as a coloured label in a list, and numbers in the language of the session.

    Without these texts the browser writes numbers in its own language, and Italian thousands without their point.
    """
    names = list(rows[0] if rows else ())
    labels = [name for name in names if _is_verdict([row[name] for row in rows if row.get(name)])]
    drawn = [{name: [v] if v and name in labels else v for name, v in row.items()} for row in rows]
    numbers = [name for name in names if any(_needs_text(row.get(name)) for row in rows)]
    if not numbers:
        return drawn
    return pd.DataFrame(drawn).style.format(quantity, subset=numbers, na_rep="")


def _needs_text(value: Any) -> bool:
    """Whether a number has a separator."""
    return _is_number(value) and (abs(value) >= 1000 or value % 1 != 0)


def _is_verdict(values: Sequence[Any]) -> bool:
    """Whether these are short words of which one has the sign and the colour of a verdict."""
    if not values or not all(isinstance(value, str) and len(value) <= SHORT_TEXT for value in values):
        return False
    colours = known_colours()
    return any(value in colours for value in values)


def _labels(name: str, values: Sequence[str]) -> Any:
    """A column of labels: failures red, rejects amber, as in charts and badges."""
    options = list(dict.fromkeys(value for value in values if value))
    colours = known_colours()
    return st.column_config.MultiselectColumn(
        width=_width_px(name, options, LABEL_SHARE) + LABEL_PX,
        options=options,
        color=[HEX_COLOURS[colours.get(option, "grey")] for option in options],
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _width_px(heading: str, texts: Iterable[str], share: float = 1) -> int:
    """The width of a column in which nothing is cut off."""
    return round(max(_text_px(heading), *(_text_px(text) * share for text in texts)) + PADDING_PX)


def _text_px(text: str) -> float:
    return sum(LETTER_PX.get(letter) or (CAPITAL_PX if letter.isupper() else SMALL_PX) for letter in text)


def _height(rows: Sequence[dict[str, Any]], most_px: int) -> int:
    return min(most_px, ROW_PX * (len(rows) + 1) + 3)
