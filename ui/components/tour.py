"""The first minute's tour of a demo: five steps, each a link. It is above every view until it is closed.

A closed tour stays closed: a cookie for each user and demo says so, as with the language.
"""

from __future__ import annotations

import hashlib

import streamlit as st

from ui import data
from ui.access import current_user
from ui.components.links import link
from ui.data.tour import TourStops, tour_stops
from ui.language import t

__all__ = ["cookie", "offer", "show"]

_CLOSED = "tour_closed"
"""Session key: True or False; not there before the user has chosen."""
_WORDS = {True: "closed", False: "open"}
"""Value of the session → of the cookie."""
_STYLE = """<style>
.st-key-tour a { background: none !important }
.st-key-tour a span { font-weight: inherit !important }
@media (max-width: 640px) {
  .st-key-tour-steps [data-testid="stCaptionContainer"] { display: none }
  .st-key-tour-steps [data-testid="stHorizontalBlock"] { gap: 0 !important }
}
</style>"""
"""The sidebar marks the current view, so the steps are not marked. A phone shows their titles only."""


def show() -> None:
    """Draws the tour, if this workspace is a demo and the visitor has not closed it."""
    if _is_closed():
        return
    stops = tour_stops()
    if stops is None:
        return
    st.html(_STYLE)
    with st.container(border=True, key="tour", gap="xsmall"):
        with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
            st.markdown(f":material/explore: **{t('The first minute')}**", width="content")
            st.button(t("Close the tour"), key="tour-close", icon=":material/close:", type="tertiary", on_click=_close)
        st.caption(t("The parcels of this demo are made up, and all days before the newest are simulated."))
        with st.container(key="tour-steps"):
            _steps(stops)


def offer() -> None:
    """Draws the button that brings a closed tour back."""
    if _is_closed() and tour_stops() is not None:
        st.button(t("Tour of the demo"), icon=":material/explore:", type="tertiary", on_click=_reopen)


def cookie() -> dict[str, str]:
    """Returns the cookie with what the user chose in this session; empty: nothing."""
    chosen = st.session_state.get(_CLOSED)
    return {} if chosen is None else {_cookie_name(): _WORDS[chosen]}


def _is_closed() -> bool:
    chosen = st.session_state.get(_CLOSED)
    return st.context.cookies.get(_cookie_name()) == _WORDS[True] if chosen is None else bool(chosen)


def _cookie_name() -> str:
    """Returns a name of its own for each user and demo: several share a browser, and one machine has several demos."""
    of = f"{current_user().name}\0{data.root()}"
    return f"pstt_tour_{hashlib.sha256(of.encode()).hexdigest()[:12]}"


def _steps(stops: TourStops) -> None:
    exact = ("messages", stops.message) if stops.message else ("find", {"key": stops.barcode})
    again = {"run": stops.failed_run} if stops.failed_run else {}
    steps = (
        ("overview", {}, t("1. All is well?"), t("One sentence answers, then the figures of 60 days.")),
        ("calendar", {}, t("2. A failed day"), t("One day failed and one is missing: select it and see why.")),
        ("find", {"key": stops.barcode}, t("3. One barcode"), t("Each of its sends: which run, where, when.")),
        (*exact, t("4. The exact message"), t("As the topic has it now: key, headers, every field.")),
        ("runs", again, t("5. Send it again"), t("The failed run has a button that sends its day again.")),
    )
    for column, (view, query, title, text) in zip(st.columns(len(steps), gap="small"), steps, strict=True):
        with column:
            link(view, title, icon=":material/arrow_forward:", **query)
            st.caption(text)


def _close() -> None:
    st.session_state[_CLOSED] = True


def _reopen() -> None:
    st.session_state[_CLOSED] = False
