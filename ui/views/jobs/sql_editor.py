"""The SQL files: shown, edited, uploaded."""

from __future__ import annotations

import streamlit as st

from core.admin.edit_files import LARGEST_QUERY_BYTES
from ui import changes, data
from ui.access import may
from ui.components.problem import guarded
from ui.components.text import plain
from ui.data.jobs import query_names
from ui.formats import size
from ui.language import t, translated
from ui.views.jobs.form import database_names

SHOWN_SQL_BYTES = 300_000
"""A browser's text field gets slow beyond this; the file itself may be larger."""


def show_sql(name: str, connection: str) -> None:
    """Shows the text of one SQL file, to be edited or replaced by an uploaded file."""
    file = changes.query_file(name)
    key = f"sql:{name}:{file.sha256[:12]}"
    st.caption(f"queries/{plain(name)} · {size(len(file.content))} · sha256 {file.sha256[:12]}")
    uploaded = st.file_uploader(t("Another file in its place"), type=["sql"], key=f"upload:{key}", max_upload_size=50)
    if len(file.content) > SHOWN_SQL_BYTES:
        st.info(t("The file is too large for a text field; its first lines:"), icon=":material/info:")
        st.code(file.text[:5_000], language="sql")
        content = None
    else:
        typed = st.text_area(t("SQL"), value=file.text, key=key, height=420, disabled=not may("save"))
        content = typed.encode() if typed != file.text else None
    if uploaded is not None:
        content = uploaded.getvalue()
    _checked_by(content, name, connection)
    if st.button(
        t("Save the SQL"),
        key="save_sql",
        icon=":material/save:",
        disabled=content is None or not may("save"),
        help=t("{size} at most; statements that could write are refused.", size=size(LARGEST_QUERY_BYTES)),
    ):
        with st.spinner(t("reading the SQL …")):
            notes = changes.save_query(name, content or b"", connection, file.sha256)
        for note in notes:
            st.warning(plain(translated(note)))
        st.toast(t("Saved"), icon=":material/check:")
        st.rerun()


def _checked_by(content: bytes | None, name: str, connection: str) -> None:
    if content is not None:
        st.caption(t("It is checked as SQL of {connection} when it is saved.", connection=plain(connection)))


def show_queries() -> None:
    """Draws the page of the SQL files without a job."""
    st.title(t("Queries"), anchor=False)
    with data.opened() as app:
        databases = database_names(app)
    connection = st.selectbox(
        t("Checked as SQL of"), databases, key="sql_connection", placeholder=t("no connection yet")
    )
    names = query_names()
    new = t("a new one")
    name = st.selectbox(t("Query"), [*names, new], key="sql_name")
    if connection is None:
        return
    if name != new:
        guarded(show_sql)(name, connection)
        return
    name = st.text_input(t("File name"), placeholder="tracce.sql", key="sql_new_name").strip()
    uploaded = st.file_uploader(t("SQL file"), type=["sql"], key="sql_new_upload", max_upload_size=50)
    typed = st.text_area(t("SQL"), key="sql_new_text", height=320)
    if st.button(t("Save the SQL"), key="save_new_sql", disabled=not may("save"), icon=":material/save:"):
        content = uploaded.getvalue() if uploaded is not None else typed.encode()
        for note in changes.save_query(name or (uploaded.name if uploaded else ""), content, connection, ""):
            st.warning(plain(translated(note)))
        st.toast(t("Saved"), icon=":material/check:")
