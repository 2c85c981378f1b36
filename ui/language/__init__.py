"""Translates the texts of the page: English is the key, `it.po` has the Italian.

The browser's language applies until the user chooses one in the header; no address holds it, so that a shared link shows
each person the page in his own. A text without a translation is shown in English.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any

import streamlit as st

from core.language import LANGUAGES, Language
from core.language import translated as translated_to
from core.language.catalogue import Translations, translations

__all__ = [
    "COOKIE",
    "LANGUAGES",
    "Language",
    "choose",
    "current",
    "in_language",
    "language_cookie",
    "t",
    "tn",
    "translated",
]

COOKIE = "pstt_language"
"""What the user chose last in this browser, so that it survives a reload; `ui.components.viewport` writes it."""
_CHOSEN = "language"
_forced: ContextVar[Language | None] = ContextVar("language", default=None)


def current() -> Language:
    """The language of this session: what the user chose, in it or in an earlier one, else the browser's."""
    if (forced := _forced.get()) is not None:
        return forced
    chosen = st.session_state.get(_CHOSEN) or st.context.cookies.get(COOKIE)
    if chosen in LANGUAGES:
        return "it" if chosen == "it" else "en"
    return "it" if (st.context.locale or "").lower().startswith("it") else "en"


def choose(language: Language) -> None:
    """Sets the language of this session, instead of the browser's."""
    st.session_state[_CHOSEN] = language


def language_cookie() -> dict[str, str]:
    """Returns the cookie with what the user chose in this session; empty: nothing."""
    return {COOKIE: current()} if st.session_state.get(_CHOSEN) in LANGUAGES else {}


@contextmanager
def in_language(language: Language) -> Iterator[None]:
    """Within it, texts are in that language instead of the session's."""
    token = _forced.set(language)
    try:
        yield
    finally:
        _forced.reset(token)


def t(text: str, /, **values: Any) -> str:
    """The text in the session's language, with its values inserted.

    Args:
        text: English, with `{name}` for each value; a literal, so that the tests find it.
        values: The values of the names in braces. Data has to be escaped by the caller where the text becomes Markdown.
    """
    shown = _italian().texts.gettext(text) if text and current() == "it" else text
    return shown.format(**values) if values else shown


def tn(count: int, one: str, many: str, /, **values: Any) -> str:
    """Returns the text in the form that this number takes in the session's language.

    Args:
        count: The number that decides.
        one: English for exactly one.
        many: English for any other number; `{count}` is inserted where it is given among the values.
        values: As in `t`.
    """
    english = one if count == 1 else many
    shown = _italian().texts.ngettext(one, many, count) if current() == "it" else english
    return shown.format(**values) if values else shown


def translated(sentence: str) -> str:
    """Returns a finished sentence of `core` in the session's language: an error, a reason, a log line.

    What is not known of it, such as the answer of a server, stays as it is.
    """
    return translated_to(sentence, current())


@cache
def _italian() -> Translations:
    return translations("it")
