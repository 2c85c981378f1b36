"""Translates the texts of the page: English is the key, `it.json` has the Italian.

The browser's language applies until the user chooses one in the header. A text without a translation is shown in English.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

import streamlit as st

__all__ = ["COOKIE", "LANGUAGES", "Language", "choose", "chosen", "current", "t", "tn"]

Language = Literal["it", "en"]
LANGUAGES: tuple[Language, ...] = get_args(Language)
COOKIE = "pstt_language"
"""What the user chose last in this browser, so that it survives a reload; `ui.components.viewport` writes it."""
_CHOSEN = "language"


def current() -> Language:
    """The language of this session: what the user chose, in it or in an earlier one, else the browser's."""
    chosen = st.session_state.get(_CHOSEN) or st.context.cookies.get(COOKIE)
    if chosen in LANGUAGES:
        return "it" if chosen == "it" else "en"
    return "it" if (st.context.locale or "").lower().startswith("it") else "en"


def choose(language: Language) -> None:
    """Sets the language of this session, instead of the browser's."""
    st.session_state[_CHOSEN] = language


def chosen() -> Language | None:
    """Returns what the user chose in this session; None: nothing."""
    return current() if st.session_state.get(_CHOSEN) in LANGUAGES else None


def t(text: str, /, **values: Any) -> str:
    """The text in the session's language, with its values inserted.

    Args:
        text: English, with `{name}` for each value; a literal, so that the tests find it.
        values: The values of the names in braces. Data has to be escaped by the caller where the text becomes Markdown.
    """
    translated = _italian().get(text, text) if current() == "it" else text
    return translated.format(**values) if values else translated


def tn(count: int, one: str, many: str, /, **values: Any) -> str:
    """Returns the singular or the plural text.

    Args:
        count: The number that decides.
        one: English for exactly one.
        many: English for any other number; `{count}` is inserted where it is given among the values.
        values: As in `t`.
    """
    return t(one if count == 1 else many, **values)


@cache
def _italian() -> dict[str, str]:
    texts: dict[str, str] = json.loads((Path(__file__).parent / "it.json").read_text(encoding="utf-8"))
    return texts
