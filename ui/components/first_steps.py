"""What an empty workspace shows: three steps to the first job, or the demo."""

from __future__ import annotations

import streamlit as st

from core.errors import PsttError
from ui import changes
from ui.access import may
from ui.components.links import go
from ui.components.problem import problem
from ui.components.runner_requests import follow
from ui.data.first_steps import first_steps_done
from ui.language import t

__all__ = ["show"]


def show() -> None:
    """Draws three steps, each with a button, and the button of the demo."""
    st.markdown(t("This workspace has no job yet. Three steps to the first message:"))
    progress = first_steps_done()
    steps = (
        (
            ("connections", {"add": "database"}),
            t("1. A connection"),
            t("Say where the database and the Kafka cluster are."),
            progress.connection,
        ),
        (
            ("jobs", {"new": "query"}),
            t("2. A query"),
            t("Put the SQL file into queries/, or write it in the editor."),
            progress.query,
        ),
        (
            ("jobs", {"new": "1"}),
            t("3. A job"),
            t("Say which columns make the key, which topic, and when."),
            False,
        ),
    )
    for column, ((view, query), title, text, done) in zip(st.columns(3, gap="medium"), steps, strict=True):
        with column, st.container(border=True):
            st.subheader(f"{title} ✔" if done else title, anchor=False)
            st.write(text)
            if st.button(t("Go there"), key=f"step_{title}", icon=":material/arrow_forward:"):
                go(view, **query)
    st.space("medium")
    with st.container(border=True):
        st.subheader(t("Or look first: fill it with the demo"), anchor=False)
        st.write(
            t(
                "A small database, a broker of its own and one job with 60 days of history; nothing outside this folder is touched."
            )
        )
        if st.button(t("Fill with the demo"), disabled=not may("demo"), icon=":material/auto_awesome:"):
            _fill()


def _fill() -> None:
    try:
        with st.spinner(t("Making 60 days of history…")):
            slug = changes.fill_with_demo()
        follow(changes.run(slug))
    except PsttError as error:
        problem(error)
        return
    st.rerun()
