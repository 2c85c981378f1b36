"""The note on a day of a job: shown, and written by those who may."""

from __future__ import annotations

from datetime import date

import streamlit as st

from core.admin.day_notes import MOST_CHARACTERS
from core.records.day_notes import DayNote
from ui import changes
from ui.access import may
from ui.components.text import plain
from ui.data.notes import note_on
from ui.data.status import workspace_status
from ui.formats import moment
from ui.language import t

__all__ = ["edit_note", "show_note"]


def show_note(note: DayNote) -> None:
    """Draws a note and who wrote it."""
    when = moment(note.written_at, workspace_status().timezone)
    by = t("{who}, {time}", who=plain(note.written_by), time=when)
    st.info(f"{plain(note.text)}  \n:small[{by}]", icon=":material/sticky_note_2:")


def edit_note(slug: str, day: date, key: str) -> None:
    """Draws the note on a day of a job, and the field to write it."""
    note = note_on(slug, day)
    if note is not None:
        show_note(note)
    if not may("note"):
        return
    label = t("Write a note on this day") if note is None else t("Change the note")
    with st.expander(label, icon=":material/edit_note:"):
        text = st.text_area(
            t("What others should know of this day"),
            note.text if note else "",
            max_chars=MOST_CHARACTERS,
            placeholder=t("why it is missing, who was told, what is done about it"),
            help=t(
                "Everybody sees it in the calendar, in the runs of this day and in the chart of the overview. Empty: no note."
            ),
            key=f"{key}:{slug}:{day}:{note.written_at if note else ''}",
        )
        if st.button(t("Save the note"), key=f"{key}_save", icon=":material/save:"):
            changes.write_note(slug, day, text)
            st.toast(t("Saved"), icon=":material/check:")
            st.rerun()
