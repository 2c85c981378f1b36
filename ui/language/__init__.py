"""Every text of the page in the reader's language: English is the key, `it.json` holds the Italian.

The browser's language decides until the switch of the frame is used. A text without a translation is shown in English.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

import streamlit as st

__all__ = ["LANGUAGES", "Language", "choose", "current", "t", "tn"]

Language = Literal["it", "en"]
LANGUAGES: tuple[Language, ...] = get_args(Language)
_CHOSEN = "language"


def current() -> Language:
    """The language of this session."""
    chosen = st.session_state.get(_CHOSEN)
    if chosen in LANGUAGES:
        return "it" if chosen == "it" else "en"
    return "it" if (st.context.locale or "").lower().startswith("it") else "en"


def choose(language: Language) -> None:
    """From now on this session speaks that language, whatever the browser says."""
    st.session_state[_CHOSEN] = language


def t(text: str, /, **values: Any) -> str:
    """The text in the session's language, with its values put in.

    Args:
        text: English, with `{name}` for each value; a literal, so that the tests find it.
        values: What stands in the braces. Data has to be escaped by the caller where the text becomes Markdown.
    """
    translated = _italian().get(text, text) if current() == "it" else text
    return translated.format(**values) if values else translated


def tn(count: int, one: str, many: str, /, **values: Any) -> str:
    """One text or the other.

    Args:
        count: How many there are.
        one: English for exactly one.
        many: English for any other number; `{count}` stands where it is given among the values.
        values: As in `t`.
    """
    return t(one if count == 1 else many, **values)


@cache
def _italian() -> dict[str, str]:
    texts: dict[str, str] = json.loads((Path(__file__).parent / "it.json").read_text(encoding="utf-8"))
    return texts
