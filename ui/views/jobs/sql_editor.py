"""One SQL file: shown, edited, uploaded, renamed, deleted, and its earlier versions."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from core.admin.edit_files import LARGEST_QUERY_BYTES, check_query
from core.errors import ConfigError, PsttError
from core.workspace.stored_file import StoredFile
from ui import changes, data, drafts
from ui.access import may
from ui.components.difference import show_difference
from ui.components.links import link
from ui.components.problem import guarded, problem
from ui.components.sql_editor import sql_editor, typed_sql
from ui.components.text import plain
from ui.formats import size
from ui.language import t, translated
from ui.views.jobs.query_dialogs import file_buttons, show_file_dialog
from ui.views.jobs.query_versions import show_query_versions

__all__ = ["check_typed", "put_into_editor", "saved", "show_sql", "text_in_editor"]

SHOWN_SQL_BYTES = 300_000
"""A browser's text field gets slow beyond this; the file itself may be larger."""
CHECKED_BYTES = 30_000
"""Text up to this size is checked while it is typed, which takes some milliseconds."""
RESTORED, TURN, BROUGHT_BACK = "sql_restored", "sql_turn", "sql_brought_back"
"""Session keys: file name → text that was put into its editor in place of the stored one; number of its editor; bytes
of the version that the text is from."""


def show_sql(name: str, connection: str, *, is_page: bool = False) -> None:
    """Shows the text of one SQL file, to be edited or replaced by an uploaded file.

    Args:
        name: Of the file.
        connection: It is checked as SQL of that database.
        is_page: On the page of the SQL files, where it can be renamed and deleted; in a job's editor there is a link.
    """
    file = changes.query_file(name)
    offer = drafts.offer_draft("query", name, file.sha256, lambda draft: _show_draft(file, draft))
    if offer.is_open:
        return
    if offer.accepted is not None:
        put_into_editor(name, offer.accepted.document)
        st.session_state[_base(name)] = offer.accepted.base_sha256
        st.rerun()
    number, text = text_in_editor(name, file.text)
    base = st.session_state.get(_base(name), file.sha256)
    key = f"sql:{name}:{file.sha256[:12]}:{number}"
    st.caption(f"queries/{plain(name)} · {size(len(file.content))} · sha256 {file.sha256[:12]}")
    content = _typed(file, text, key, connection, base)
    buttons = st.container()
    uploaded = st.file_uploader(t("Another file in its place"), type=["sql"], key=f"upload:{key}", max_upload_size=50)
    if uploaded is not None:
        content = uploaded.getvalue()
    with buttons:
        is_saved = _buttons(name, content, connection, is_upload=uploaded is not None, is_page=is_page)
    if is_saved:
        _save(name, content or b"", connection, base)
    if is_page:
        show_file_dialog(name, file.sha256)
    guarded(show_query_versions)(name, lambda content: _bring_back(file, content))


def _buttons(name: str, content: bytes | None, connection: str, *, is_upload: bool, is_page: bool) -> bool:
    """Draws what can be done with the file. Returns whether it is to be saved."""
    if content is not None:
        st.caption(t("It is checked as SQL of {connection} when it is saved.", connection=plain(connection)))
    with st.container(horizontal=True, vertical_alignment="center"):
        is_saved = st.button(
            t("Save the SQL"),
            key="save_sql",
            icon=":material/save:",
            disabled=content is None or not may("save"),
            help=t("{size} at most; statements that could write are refused.", size=size(LARGEST_QUERY_BYTES)),
        )
        if content is not None and not is_upload:
            st.button(t("Discard changes"), key="sql_discard", on_click=_discard, args=(name,))
        if is_page:
            file_buttons(name)
        else:
            link("jobs", t("Rename or delete the file"), icon=":material/draft:", new="query", file=name)
    drafts.show_problem()
    return is_saved


def _typed(file: StoredFile, text: str, key: str, connection: str, base: str) -> bytes | None:
    """Draws the editor. Returns what is typed; None: as it is stored, or the file is too large for the editor."""
    if len(file.content) > SHOWN_SQL_BYTES:
        st.info(t("The file is too large for a text field; its first lines:"), icon=":material/info:")
        st.code(file.text[:5_000], language="sql")
        return None
    name = file.path.relative_to(data.workspace().queries_dir).as_posix()
    now = typed_sql(key)
    error = check_typed(name, text if now is None else now, connection)
    typed = sql_editor(text, key, connection=connection, error=error, disabled=not may("save"))
    if error is not None:
        problem(error)
    stored = file.text
    drafts.watch(drafts.Form("query", name, base, stored, lambda: typed_sql(key)))
    version = st.session_state.get(BROUGHT_BACK, {}).get(name)
    if version is not None and _lines(typed) == _lines(StoredFile(file.path, version, "").text):
        return version if version != file.content else None
    return typed.encode("utf-8", "surrogatepass") if typed != stored else None


def _lines(text: str) -> list[str]:
    """A browser's text field has line ends of its own."""
    return text.replace("\r\n", "\n").split("\n")


def _bring_back(file: StoredFile, content: bytes) -> None:
    """Puts a version into the editor; unless it is edited it is saved byte for byte, also if only line ends differ."""
    name = file.path.relative_to(data.workspace().queries_dir).as_posix()
    put_into_editor(name, StoredFile(file.path, content, "").text)
    st.session_state.setdefault(BROUGHT_BACK, {})[name] = content


def check_typed(name: str, text: str, connection: str) -> ConfigError | None:
    """Returns the first problem of a text that is being typed; None: there is none, or it is checked when it is saved."""
    if len(text) > CHECKED_BYTES or not text.strip():
        return None
    try:
        with data.opened() as app:
            dialect, writes = app.connections.dialect(connection), app.connections.allows_writes(connection)
        check_query(Path(name), text.encode("utf-8", "surrogatepass"), dialect, allow_writes=writes)
    except ConfigError as error:
        return error
    except PsttError:  # of connections.json, not of this text
        return None
    return None


def _save(name: str, content: bytes, connection: str, base: str) -> None:
    with st.spinner(t("reading the SQL …")):
        notes = changes.save_query(name, content, connection, base)
    saved(name, notes)


def saved(name: str, notes: tuple[str, ...]) -> None:
    """Ends the edit of an SQL file that was saved, and draws the page again."""
    for note in notes:
        st.warning(plain(translated(note)))
    _discard(name)
    st.toast(t("Saved"), icon=":material/check:")
    st.rerun()


def _discard(name: str) -> None:
    drafts.drop_draft("query", name)
    drafts.forget("query", name)
    st.session_state.get(RESTORED, {}).pop(name, None)
    st.session_state.get(BROUGHT_BACK, {}).pop(name, None)
    st.session_state.pop(_base(name), None)
    _begin_anew(name)


def put_into_editor(name: str, text: str) -> None:
    """Shows another text in the editor of a file, to be saved by the user."""
    st.session_state.setdefault(RESTORED, {})[name] = text
    _begin_anew(name)


def _begin_anew(name: str) -> None:
    """Makes the next drawing mount another editor: one that is mounted keeps its text."""
    turns = st.session_state.setdefault(TURN, {})
    turns[name] = turns.get(name, 0) + 1


def text_in_editor(name: str, stored: str = "") -> tuple[int, str]:
    """Returns what the editor of a file begins with, and a number that is another one for another text."""
    return st.session_state.get(TURN, {}).get(name, 0), st.session_state.get(RESTORED, {}).get(name, stored)


def _base(name: str) -> str:
    """The session key of the version from which a restored draft was begun."""
    return f"sql_base:{name}"


def _show_draft(file: StoredFile, draft: drafts.Draft) -> None:
    show_difference(file.text, draft.document, t("stored"), t("your draft"))
