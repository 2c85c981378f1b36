"""The notes on the days of jobs, as calendar, runs and overview show them."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import streamlit as st

from core import open_workspace
from core.records.day_notes import DayNote
from ui import data

__all__ = ["note_on", "notes_between"]


def notes_between(first: date, last: date) -> list[DayNote]:
    """Returns the notes on these days, newest day first; up to `STATUS_TTL_S` seconds old."""
    return _notes(data.root(), first, last)


def note_on(slug: str, day: date) -> DayNote | None:
    """Returns the note on a day of a job; None: there is none."""
    return next((note for note in notes_between(day, day) if note.job == slug), None)


@st.cache_data(ttl=data.STATUS_TTL_S, show_spinner=False, max_entries=64)
def _notes(folder: Path, first: date, last: date) -> list[DayNote]:
    with open_workspace(folder, log=False) as app:
        return app.ledger.day_notes.between(first, last)


data.on_clear(_notes.clear)
