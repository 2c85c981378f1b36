"""The job's file as JSON, and its earlier versions."""

from __future__ import annotations

import json

import streamlit as st

from core.model.job import Job
from ui import changes, data
from ui.access import may
from ui.components.difference import show_difference
from ui.components.problem import problem
from ui.components.tables import choose
from ui.data.status import workspace_status
from ui.formats import moment
from ui.language import t
from ui.views.jobs.form_state import BROUGHT_BACK, FILE, JSON_TEXT, fill_form, form_document


def show_json(slug: str) -> None:
    """Shows the JSON of the file, which may be edited instead of the form."""
    st.text_area(t("The file"), key=JSON_TEXT, height=420, disabled=not may("change"))
    drafted = changes.draft(slug, st.session_state[JSON_TEXT])
    for error in drafted.problems:
        problem(error)
    with st.container(horizontal=True):
        st.button(
            t("Put it into the form"),
            key="raw_to_form",
            on_click=lambda: fill_form(drafted.job) if drafted.job is not None else None,
            disabled=bool(drafted.problems) or not may("change"),
        )
        st.button(t("Take it from the form"), key="form_to_raw", on_click=_form_to_raw, args=(slug,))


def _form_to_raw(slug: str) -> None:
    st.session_state[JSON_TEXT] = changes.job_text_of(slug, json.dumps(form_document(), ensure_ascii=False, indent=2))


def show_versions(slug: str) -> None:
    """Lists the earlier versions of the job; one can be compared with the form and brought back into it."""
    with data.opened() as app:
        versions = app.ledger.job_versions.of_job(slug)
    if not versions:
        st.markdown(t("No earlier version is known yet; each one that is saved, or that a runner finds, is kept."))
        return
    zone = workspace_status().timezone
    rows = [
        {
            t("Seen"): moment(version.seen_at, zone, seconds=True),
            t("Saved by"): version.saved_by or t("found on disk"),
            t("Version"): version.sha256[:12],
        }
        for version in versions
    ]
    chosen = choose(rows, "job_versions", most_px=300)
    # A text that came back is there twice, each time with its own time.
    names = {f"{version.sha256} {version.seen_at}": row for version, row in zip(versions, rows, strict=True)}
    picked = st.selectbox(
        t("Compare with the form"),
        list(names),
        index=chosen or 0,
        format_func=lambda name: " · ".join(names[name].values()),
        key="job_version",
    )
    version = versions[list(names).index(picked)]
    mine = changes.job_text_of(slug, json.dumps(form_document(), ensure_ascii=False))
    theirs = changes.job_text_of(slug, version.document)
    stored = st.session_state[FILE].text
    if mine == theirs != version.document and mine == changes.job_text_of(slug, stored) and stored != version.document:
        st.markdown(t("Only the layout differs: blanks, line ends or the order of the keys."))
        mine, theirs = stored, version.document
    show_difference(mine, theirs, t("in the form"), t("that version"))
    drafted = changes.draft(slug, version.document)
    for error in drafted.problems:
        problem(error)
    st.button(
        t("Bring it back into the form"),
        key="bring_back",
        icon=":material/history:",
        on_click=_bring_back,
        args=(drafted.job, version.sha256),
        disabled=bool(drafted.problems) or not may("change"),
        help=t("It is stored once you save it."),
    )


def _bring_back(job: Job | None, sha256: str) -> None:
    if job is not None:
        fill_form(job)
        st.session_state[BROUGHT_BACK] = sha256
