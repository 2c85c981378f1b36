"""Reads addresses that were shared by a person with another language.

Streamlit writes the label of a bound widget into the address, and takes no other: `overview_days=90+giorni` from an Italian
is nothing to an English page.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

import streamlit as st

from ui.language import LANGUAGES, current, in_language

__all__ = ["accept_every_language"]

T = TypeVar("T")


def accept_every_language(key: str, options: Iterable[T], label: Callable[[T], str], *, many: bool = False) -> None:
    """Sets the value of a widget if the address has it in another language; call it before the widget is drawn.

    Args:
        key: Key of the widget, which is the parameter of the address.
        options: As the widget has them.
        label: What the widget calls an option in the language of the session.
        many: Whether the value of the widget is a list of options.
    """
    given = st.query_params.get_all(key)
    if not given or key in st.session_state:
        return
    foreign: dict[str, T] = {}
    for language in LANGUAGES:
        if language != current():
            with in_language(language):
                foreign |= {label(option): option for option in options}
    if found := [foreign[one] for one in given if one in foreign]:
        st.session_state[key] = found if many else found[0]
