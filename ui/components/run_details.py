"""What the page of a run shows while it is running and afterwards: its origin, its parts, its log."""

from __future__ import annotations

from datetime import timedelta
from zoneinfo import ZoneInfo

import streamlit as st

from core.admin.log_reader import LogLine
from core.formatting import short_value
from core.model.run import PartState, Run
from ui import data
from ui.components.day_note import show_note
from ui.components.tables import table
from ui.components.text import plain
from ui.components.verdict import subject
from ui.data.notes import note_on
from ui.formats import moment
from ui.language import t, translated

__all__ = ["log", "origin", "parameters", "parts"]


def origin(run: Run) -> None:
    """Draws where a run reads and sends, its scheduled time, who asked for it, and its parameters."""
    scheduled = t("scheduled {time} {zone}", time=moment(run.scheduled_at, run.timezone), zone=plain(run.timezone))
    parts = [
        subject(run),
        scheduled,
        t("attempt {number}", number=run.attempt),
        t("asked by {who}", who=plain(run.asked_by)),
        t("run {id}", id=run.run_id),
    ]
    st.markdown(" · ".join(parts))
    parameters(run)
    if run.increment:
        st.markdown(f"**{t('Only new rows')}**: {plain(translated(run.increment.text))}")
    if note := note_on(run.job, run.scheduled_at.astimezone(ZoneInfo(run.timezone)).date()):
        show_note(note)


def parameters(run: Run) -> None:
    """Draws the parameters of a run."""
    if run.parameters:
        st.markdown(
            " · ".join(f"**{plain(name)}** = {plain(short_value(value))}" for name, value in run.parameters.items())
        )


def parts(run: Run) -> None:
    """Draws a line for each part of a run; nothing where it has none."""
    if not run.parts:
        return
    with st.container(border=True):
        st.subheader(t("Parts"), anchor=False)
        rows = [
            {
                t("Part of the run"): part.part,
                t("State"): _part_state(part.state),
                t("Rows read"): part.rows_read,
                t("Acknowledged"): part.acknowledged,
                t("Rejected"): part.rejected,
                t("Seconds"): round(part.duration_s, 1),
                t("Attempt"): part.attempt,
                t("Where it ran"): part.worker,
                t("Error"): translated(part.error or ""),
            }
            for part in run.parts
        ]
        table(rows, "parts", most_px=400)


def _part_state(state: PartState) -> str:
    words: dict[PartState, str] = {
        "waiting": t("waiting"),
        "reading": t("reading"),
        "sending": t("sending"),
        "committing": t("committing"),
        "succeeded": t("succeeded"),
        "failed": t("failed"),
        "cancelled": t("cancelled"),
        "lost": t("lost"),
    }
    return words[state]


def log(run: Run, lines: list[LogLine]) -> None:
    """Draws these lines of the log of a run."""
    with st.container(border=True):
        st.subheader(t("Log of this run"), anchor=False)
        if not lines:
            old = data.now() - run.started_at > timedelta(days=30)
            st.markdown(t("the log of that time is gone") if old else t("the log says nothing about it"))
            return
        text = "\n".join(
            f"{moment(line.at, run.timezone, seconds=True, year=False)}  {line.level:<7}  {translated(line.message)}"
            for line in lines
        )
        st.code(text, language=None, wrap_lines=True)
