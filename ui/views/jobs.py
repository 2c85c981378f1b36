"""Jobs: what is sent, where and when."""

from __future__ import annotations

import streamlit as st

from core.calendar import in_words
from ui import data
from ui.components.problem import problem
from ui.language import current, t

__all__ = ["show"]


def show() -> None:
    """Draws the view."""
    st.title(t("Jobs"))
    jobs, problems = data.jobs()
    for error in problems:
        problem(error)
    rows = [
        {
            t("Job"): job.name,
            t("Query"): job.query,
            t("Connection"): job.connection,
            t("Topic"): job.kafka_config.topic or "",
            t("Calendar"): in_words(job, current()),
            t("Enabled"): job.enabled,
        }
        for job in jobs
    ]
    st.dataframe(rows, hide_index=True, placeholder=t("no job yet"))
