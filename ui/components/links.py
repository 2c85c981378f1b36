"""Ways from one view to another, with what is asked of it in the address."""

from __future__ import annotations

from collections.abc import Mapping

import streamlit as st

__all__ = ["DETAILS", "PAGES", "go", "link"]

PAGES = "pages"
"""Where the session keeps its pages, by view."""


DETAILS = {("runs", "run"): "run", ("jobs", "job"): "job", ("jobs", "new"): "job"}
"""A view asked for one thing has an address of its own: from there the sidebar leads back to the whole list."""


def _page(view: str, query: Mapping[str, str]) -> str:
    return next((page for (name, asked), page in DETAILS.items() if name == view and asked in query), view)


def link(view: str, label: str, *, icon: str | None = None, **query: str) -> None:
    """A link to a view; `label` is Markdown, so data in it has to be escaped."""
    pages = st.session_state.get(PAGES)
    if pages is None:  # the view is drawn alone
        st.markdown(label)
        return
    st.page_link(pages[_page(view, query)], label=label, icon=icon, query_params=query or None, width="content")


def go(view: str, **query: str) -> None:
    """Leaves for a view."""
    pages = st.session_state.get(PAGES)
    if pages is None:
        st.query_params.from_dict(query)
        st.rerun()
    st.switch_page(pages[_page(view, query)], query_params=query)
