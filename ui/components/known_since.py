"""Says from when on single sends are known."""

from __future__ import annotations

import streamlit as st

from core.records.known_since import KnownSince
from ui.components.text import plain
from ui.formats import day_of_year
from ui.language import t

__all__ = ["known_since"]


def known_since(known: KnownSince) -> None:
    """Draws one line, or none where every send is known."""
    words = []
    if day := known.of():
        words.append(t("Single sends are known since {day}; earlier ones are counted by day.", day=day_of_year(day)))
    for job, day in sorted(known.of_jobs.items()):
        words.append(t("Those of job {job} are known since {day}.", job=plain(job), day=day_of_year(day)))
    if words:
        st.caption(" ".join(words))
