"""The script of the page: Streamlit runs it for every view, and it draws the header above the view."""

from __future__ import annotations

from importlib import import_module

import streamlit as st

from core.errors import PsttError
from ui import access, data, drafts
from ui.addresses import show_unknown
from ui.components import header, leave_warning, problem, sign_in, tour
from ui.components.links import SESSION_PAGES
from ui.language import t
from ui.pages import PAGES


def main() -> None:
    """Draws the view that the address names."""
    st.set_page_config(page_title="PSTT Kafka", page_icon="📦", layout="wide")
    pages = {}
    for page in PAGES:
        show = problem.guarded(import_module(f"ui.views.{page.name}").show)
        title = t(page.title)
        pages[page.name] = st.Page(show, title=title, icon=page.icon, url_path=page.name, default=page is PAGES[0])
        for address in dict.fromkeys(page.details.values()):
            pages[address] = st.Page(show, title=title, url_path=address, visibility="hidden")
    st.session_state[SESSION_PAGES] = pages
    chosen = st.navigation(list(pages.values()))
    try:
        data.choose_workspace()
        data.start_log(data.root())
    except PsttError as error:
        problem.problem(error)
        st.stop()
    if not access.is_known():
        problem.guarded(sign_in.show)()
        st.stop()
    problem.guarded(drafts.keep_typed)()
    problem.guarded(header.show)()
    problem.guarded(tour.show)()
    problem.guarded(show_unknown)()
    chosen.run()
    problem.guarded(leave_warning.show)()


main()
