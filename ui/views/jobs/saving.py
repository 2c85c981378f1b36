"""Saves the job in the form, after showing the difference; another user may have saved it in the meantime."""

from __future__ import annotations

from typing import Any

import streamlit as st

from core.admin.edit_jobs import NewerEdit
from core.model.job import Job
from core.workspace.jobs import job_text
from ui import changes, drafts
from ui.components.difference import show_difference
from ui.components.problem import guarded, problem
from ui.language import t
from ui.views.jobs.form_state import (
    BROUGHT_BACK,
    FILE,
    SAVING,
    THEIRS,
    discard_changes,
    layout_brought_back,
    watch_form,
)


def confirm_save(job: Job) -> None:
    """Opens the dialog that shows the difference and saves."""

    @st.dialog(t("Save this change?"), width="large", on_dismiss=_close_save)
    @guarded
    def confirm() -> None:
        file, theirs = st.session_state[FILE], st.session_state.get(THEIRS)
        if theirs is not None:
            _conflict(job, theirs)
            return
        layout = layout_brought_back(job)
        if layout is not None:
            st.markdown(t("Only the layout differs: blanks, line ends or the order of the keys."))
            show_difference(file.text, layout, t("stored"), t("new"))
        else:
            show_difference(changes.job_text_of(file.slug, file.text), _file_text(job), t("stored"), t("new"))
        if st.button(t("Save"), key="confirm_save", icon=":material/save:"):
            _save(job, file.sha256)

    confirm()


def _close_save() -> None:
    st.session_state.pop(SAVING, None)
    st.session_state.pop(THEIRS, None)


def _save(job: Job, seen_sha256: str) -> None:
    try:
        saved = changes.save_job(job, seen_sha256, st.session_state.get(BROUGHT_BACK, ""))
    except NewerEdit as error:
        problem(error)
        st.session_state[THEIRS] = changes.job_file(job.slug)
        _conflict(job, st.session_state[THEIRS])
        return
    _close_save()
    st.session_state[FILE] = saved
    st.session_state.pop(BROUGHT_BACK, None)
    watch_form()
    drafts.drop_draft("job", saved.slug)
    st.toast(t("Saved"), icon=":material/check:")
    st.rerun()


def _conflict(job: Job, theirs: Any) -> None:
    """Another user saved in the meantime: shows both versions and what can be done."""
    st.markdown(t("Another user has saved this job while you were changing it. Lines with + are yours, with - theirs."))
    show_difference(changes.job_text_of(job.slug, theirs.text), _file_text(job), t("theirs"), t("yours"))
    with st.container(horizontal=True):
        if st.button(t("Take theirs, mine is lost"), key="take_theirs"):
            _close_save()
            discard_changes()
            st.rerun()
        if st.button(t("Save mine over theirs"), key="save_mine"):
            st.session_state.pop(THEIRS)
            _save(job, theirs.sha256)


def _file_text(job: Job) -> str:
    return job_text(job)
