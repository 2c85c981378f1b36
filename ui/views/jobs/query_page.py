"""The page of the SQL files: choose one, or make a new one; deleted ones come back."""

from __future__ import annotations

import streamlit as st

from ui import changes, data, drafts
from ui.access import may
from ui.components.deleted import show_deleted
from ui.components.problem import guarded, problem
from ui.components.sql_editor import sql_editor, typed_sql
from ui.data.jobs import query_names
from ui.language import t
from ui.views.jobs.form import database_names
from ui.views.jobs.query_dialogs import RENAMED
from ui.views.jobs.sql_editor import check_typed, put_into_editor, saved, show_sql, text_in_editor

__all__ = ["show_queries"]

NEW_TEXT = "sql_new_text"


def show_queries() -> None:
    """Draws the page of the SQL files without a job."""
    st.title(t("Queries"), anchor=False)
    with data.opened() as app:
        databases = database_names(app)
    names, new = query_names(), t("a new one")
    now = st.session_state.pop(RENAMED, None)
    if now is None and "sql_name" not in st.session_state:
        now = st.query_params.get("file")
    if now is not None:
        st.session_state["sql_name"] = now if now in names else (names or [new])[0]
    with st.container(horizontal=True):
        connection = st.selectbox(
            t("Checked as SQL of"), databases, key="sql_connection", placeholder=t("no connection yet"), width=320
        )
        name = st.selectbox(t("Query"), [*names, new], key="sql_name", width=480)
    if connection is None:
        guarded(show_deleted)("query")
        return
    if name == new:
        _new(connection)
    else:
        guarded(show_sql)(name, connection, is_page=True)
    guarded(show_deleted)("query")


def _new(connection: str) -> None:
    offer = drafts.offer_draft("query", "", "", lambda draft: st.code(draft.document, language="sql"))
    if offer.is_open:
        return
    if offer.accepted is not None:
        put_into_editor("", offer.accepted.document)
        st.rerun()
    name = st.text_input(t("File name"), placeholder="tracce.sql", key="sql_new_name").strip()
    uploaded = st.file_uploader(t("SQL file"), type=["sql"], key="sql_new_upload", max_upload_size=50)
    number, text = text_in_editor("")
    key = f"{NEW_TEXT}:{number}"
    now = typed_sql(key)
    error = check_typed(name or "new.sql", text if now is None else now, connection)
    typed = sql_editor(text, key, connection=connection, error=error, disabled=not may("save"))
    if error is not None:
        problem(error)
    drafts.watch(drafts.Form("query", "", "", "", lambda: typed_sql(key)))
    drafts.show_problem()
    if st.button(t("Save the SQL"), key="save_new_sql", disabled=not may("save"), icon=":material/save:"):
        content = uploaded.getvalue() if uploaded is not None else typed.encode("utf-8", "surrogatepass")
        made = name or (uploaded.name if uploaded else "")
        notes = changes.save_query(made, content, connection, "")
        st.session_state[RENAMED] = made
        saved("", notes)
