"""Jobs: what is sent, where and when. The list, the editor of one job, and the forms for a new one."""

from __future__ import annotations

import streamlit as st

from ui.views.jobs.editor import show_editor
from ui.views.jobs.job_list import show_list
from ui.views.jobs.new_job import show_new

__all__ = ["show"]


def show() -> None:
    """Draws the list, or the editor of the job that the address names."""
    if "new" in st.query_params:
        show_new()
    elif slug := st.query_params.get("job", ""):
        show_editor(slug)
    else:
        show_list()
