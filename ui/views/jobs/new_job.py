"""A new job from an SQL file."""

from __future__ import annotations

import streamlit as st

from core.admin.edit_jobs import slug_of
from core.model.job import Job
from ui import changes, data
from ui.access import may
from ui.components.links import go, link
from ui.components.text import plain
from ui.data.jobs import query_names
from ui.language import t, translated
from ui.views.jobs.form import database_names
from ui.views.jobs.query_page import show_queries

__all__ = ["show_new"]


def show_new() -> None:
    """Draws the form of a new job, or the page of the SQL files."""
    link("jobs", t("all jobs"), icon=":material/arrow_back:")
    if st.query_params.get("new") == "query":
        show_queries()
        return
    st.title(t("New job"), anchor=False)
    with data.opened() as app:
        databases = database_names(app)
    if not databases:
        st.info(t("First a connection: say where the database is."), icon=":material/info:")
        link("connections", t("Connections"))
        return
    connection = st.selectbox(t("Database connection"), databases, key="new_connection")
    query = _chosen_query(connection)
    if not query:
        return
    taken = query.removesuffix(".sql")
    slug = st.text_input(t("File name, without .job.json"), value=slug_of(taken), key="new_slug")
    name = st.text_input(t("Name"), value=taken, key="new_name")
    st.caption(t("It is made switched off; key, topic and calendar follow in the editor."))
    if st.button(t("Make the job"), key="make_job", icon=":material/add:", disabled=not may("create")):
        made = Job(slug.strip(), name.strip(), query, connection, enabled=False)
        changes.save_job(made, "")
        go("jobs", job=made.slug)


def _chosen_query(connection: str) -> str:
    names = query_names()
    new = t("upload a new SQL file")
    chosen = st.selectbox(t("Query"), [*names, new], key="new_query")
    if chosen != new:
        return chosen
    uploaded = st.file_uploader(t("SQL file"), type=["sql"], key="new_upload", max_upload_size=50)
    if uploaded is None:
        return ""
    if uploaded.name in names:
        st.warning(t("There is a query of that name; its text is kept. Change it in the editor's tab SQL."))
        return uploaded.name
    if st.button(t("Save the SQL"), key="save_new_sql", icon=":material/save:", disabled=not may("save")):
        for note in changes.save_query(uploaded.name, uploaded.getvalue(), connection, ""):
            st.warning(plain(translated(note)))
        st.rerun()
    return ""
