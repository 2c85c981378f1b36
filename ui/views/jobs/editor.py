"""The editor of one job: what, where and when in three columns, a preview, its JSON, its SQL, its versions.

The form holds what the user typed. At each drawing it becomes a job's file that is checked by the code of
`python -m core check`, so that a problem is shown below its field before anything is saved.
"""

from __future__ import annotations

import json
from datetime import datetime
from functools import partial

import streamlit as st

from core.model.job import Job
from ui import changes, drafts
from ui.access import may
from ui.components.difference import show_difference
from ui.components.links import link
from ui.components.problem import guarded, problem
from ui.components.runner_requests import progress
from ui.components.text import plain
from ui.language import t
from ui.views.jobs.form import JobForm, keep_hidden_fields, one_line_parts, what_fields, when_fields, where_fields
from ui.views.jobs.form_state import (
    FILE,
    JSON_TEXT,
    SAVING,
    discard_changes,
    draft_text,
    field_key,
    form_document,
    is_changed,
    load_form,
    restore_draft,
)
from ui.views.jobs.incremental import show_watermark
from ui.views.jobs.preview import show_preview
from ui.views.jobs.saving import confirm_save
from ui.views.jobs.scheduled_times import show_next_times, suggested_times
from ui.views.jobs.sql_editor import show_sql
from ui.views.jobs.versions import show_json, show_versions

__all__ = ["show_editor"]


def show_editor(slug: str) -> None:
    """Draws the editor of a job."""
    link("jobs", t("all jobs"), icon=":material/arrow_back:")
    file = st.session_state.get(FILE)
    if file is None or file.slug != slug or JSON_TEXT not in st.session_state:
        load_form(slug)
    file = st.session_state[FILE]
    heading = st.empty()
    heading.title(plain(slug), anchor=False)
    offer = drafts.offer_draft("job", slug, file.sha256, partial(_show_draft, slug))
    if offer.is_open:
        return
    if offer.accepted is not None:
        restore_draft(offer.accepted)
        st.rerun()
    as_stored = changes.draft(slug, file.text)
    if as_stored.job is None or as_stored.problems:
        _broken(slug, as_stored)
        return
    progress()
    form, raw, sql, versions = st.tabs([t("Job"), t("JSON"), t("SQL"), t("Versions")])
    with form:
        drafted = _form(slug)
    heading.title(plain(st.session_state[field_key("name")] or slug), anchor=False)
    with raw:
        guarded(show_json)(slug)
    with sql:
        guarded(show_sql)(st.session_state[field_key("query")], st.session_state[field_key("connection")])
    with versions:
        guarded(show_versions)(slug)
    if st.session_state.get(SAVING) and drafted.job is not None and not drafted.problems:
        confirm_save(drafted.job)


def _show_draft(slug: str, draft: drafts.Draft) -> None:
    stored = changes.job_text_of(slug, st.session_state[FILE].text)
    show_difference(stored, draft_text(draft, slug), t("stored"), t("your draft"))


def _broken(slug: str, found: changes.Draft) -> None:
    """Shows the text of a file that is not a valid job, to be fixed."""
    st.markdown(t("This file is not a valid job. Fix it here; then the form is shown."))
    for error in found.problems:
        problem(error)
    st.text_area(t("The file"), key=JSON_TEXT, height=420)
    drafted = changes.draft(slug, st.session_state[JSON_TEXT])
    if st.session_state[JSON_TEXT] != st.session_state[FILE].text:
        for error in drafted.problems:
            problem(error)
    wrong = bool(drafted.problems)
    if st.button(t("Save"), key="save_broken", icon=":material/save:", disabled=wrong or not may("change")):
        if drafted.job is not None:
            changes.save_job(drafted.job, st.session_state[FILE].sha256)
            discard_changes()
            st.rerun()


def _form(slug: str) -> changes.Draft:
    form = JobForm(disabled=not may("change"))
    top = st.container()
    what, where, when = st.columns(3, gap="large")
    with what:
        st.subheader(t("What"), anchor=False)
        what_fields(form)
        show_watermark(slug)
    with where:
        st.subheader(t("Where"), anchor=False)
        where_fields(form)
    with when:
        st.subheader(t("When"), anchor=False)
        when_fields(form)
    keep_hidden_fields(form)
    drafted = changes.draft(slug, json.dumps(form_document(), ensure_ascii=False))
    with top:
        _save_row(drafted)
    without_field = form.show_problems(drafted.problems)
    with top:
        for error in without_field:
            st.error(one_line_parts(error), icon=":material/error:")
    with form.calendar:
        show_next_times(drafted)
    if drafted.job is not None and not drafted.problems:
        with top:
            guarded(_show_binding)(drafted.job, suggested_times(drafted.job)[0])
        guarded(show_preview)(drafted.job)
    return drafted


def _show_binding(job: Job, at: datetime) -> None:
    """Raises why a run could not begin, or says into how many parts the query can be split."""
    changes.binding_problem(job, at)
    if job.partitions is not None and job.partitions.count > 1:
        given = job.partitions
        st.caption(
            t(
                "The query can be split into {count} parts by column {column}.",
                count=given.count,
                column=plain(given.column),
            )
        )


def _save_row(drafted: changes.Draft) -> None:
    changed = drafted.job is None or bool(drafted.problems) or is_changed(drafted.job)
    with st.container(horizontal=True, vertical_alignment="center"):
        ready = changed and not drafted.problems and drafted.job is not None and may("change")
        if st.button(t("Save …"), key="save", icon=":material/save:", disabled=not ready):
            st.session_state[SAVING] = True
        st.button(t("Discard changes"), key="discard", on_click=discard_changes, disabled=not changed)
        words = t("changed, not saved") if changed else t("as it is stored")
        st.markdown(f":gray[{words}]", width="content")
        if drafted.problems:
            st.markdown(f"✘ {t('problems: {count}', count=len(drafted.problems))}", width="content")
    drafts.show_problem()
