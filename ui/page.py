"""The script of the page: it is run for every view, and draws the frame around it."""

from __future__ import annotations

import streamlit as st

from core.errors import PsttError
from ui import access, data
from ui.components import frame, problem, sign_in
from ui.components.links import DETAILS, PAGES
from ui.language import t
from ui.views import administration, alerts, calendar, connections, find, jobs, overview, runs

VIEWS = {
    "overview": (overview, "Overview", ":material/monitoring:"),
    "jobs": (jobs, "Jobs", ":material/list_alt:"),
    "runs": (runs, "Runs", ":material/play_circle:"),
    "calendar": (calendar, "Calendar", ":material/calendar_month:"),
    "find": (find, "Find", ":material/search:"),
    "connections": (connections, "Connections", ":material/lan:"),
    "alerts": (alerts, "Alerts", ":material/notifications:"),
    "administration": (administration, "Administration", ":material/settings:"),
}


OF_DETAILS = {page: view for (view, _), page in DETAILS.items()}


def main() -> None:
    """Draws the view that was asked for."""
    st.set_page_config(page_title="PSTT Kafka", page_icon="📦", layout="wide")
    pages = [
        st.Page(problem.guarded(view.show), title=t(title), icon=icon, url_path=name, default=name == "overview")
        for name, (view, title, icon) in VIEWS.items()
    ]
    pages += [
        st.Page(problem.guarded(VIEWS[view][0].show), title=t(VIEWS[view][1]), url_path=page, visibility="hidden")
        for page, view in OF_DETAILS.items()
    ]
    st.session_state[PAGES] = dict(zip([*VIEWS, *OF_DETAILS], pages, strict=True))
    chosen = st.navigation(pages)
    try:
        data.start_log(data.root())
    except PsttError as error:
        problem.problem(error)
        st.stop()
    if not access.is_known():
        problem.guarded(sign_in.show)()
        st.stop()
    problem.guarded(frame.show)()
    chosen.run()


main()
