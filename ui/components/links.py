"""Links from one view to another. What they ask for is in the address."""

from __future__ import annotations

from urllib.parse import urlencode

import streamlit as st

from ui import data
from ui.pages import address_of
from ui.workspaces import PARAMETER, workspaces

__all__ = ["SESSION_PAGES", "address", "go", "link"]

SESSION_PAGES = "pages"
"""Key of the session's Streamlit pages, by address."""


def link(view: str, label: str, *, icon: str | None = None, **query: str) -> None:
    """Draws a link to a view; `label` is Markdown, so data in it has to be escaped."""
    pages = st.session_state.get(SESSION_PAGES)
    if pages is None:  # a test draws the view without the page around it
        st.markdown(label)
        return
    asked = {**query, **_of_workspace()}
    st.page_link(pages[address_of(view, query)], label=label, icon=icon, query_params=asked or None, width="content")


def go(view: str, **query: str) -> None:
    """Opens another view and ends this drawing."""
    pages = st.session_state.get(SESSION_PAGES)
    if pages is None:
        st.query_params.from_dict(query)
        st.rerun()
    st.switch_page(pages[address_of(view, query)], query_params={**query, **_of_workspace()})


def address(view: str, **query: str) -> str:
    """Returns the address of a view, relative to that of another view."""
    return f"{address_of(view, query)}?{urlencode({**query, **_of_workspace()})}"


def _of_workspace() -> dict[str, str]:
    """Returns what makes an address show another person the same workspace; nothing where there is only one."""
    return {PARAMETER: data.chosen_name()} if len(workspaces()) > 1 else {}
