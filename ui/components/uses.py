"""Says what uses a thing, before it is deleted or renamed."""

from __future__ import annotations

import streamlit as st

from core.admin.uses import Uses
from ui.components.text import plain
from ui.formats import number
from ui.language import t, tn

__all__ = ["show_uses", "show_waiting"]


def show_uses(uses: Uses) -> None:
    """Draws the jobs that use a thing, and their runs that have not ended."""
    if uses.jobs:
        lines = [f"- {plain(job.name)} ({t('enabled') if job.enabled else t('switched off')})" for job in uses.jobs]
        st.warning("  \n".join([t("Used by:"), *lines]), icon=":material/warning:")
    else:
        st.markdown(t("No job uses it."))
    show_waiting(uses)


def show_waiting(uses: Uses) -> None:
    """Draws how many runs wait or are running; nothing where there are none."""
    if uses.waiting_runs:
        st.markdown(tn(uses.waiting_runs, "1 run waits.", "{count} runs wait.", count=number(uses.waiting_runs)))
    if uses.running:
        st.markdown(
            tn(uses.running, "1 run is running; it goes on.", "{count} runs are running; they go on.",
               count=number(uses.running))
        )  # fmt: skip
