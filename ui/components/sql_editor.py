"""The editor of SQL: colours, line numbers, a mark at the place of an error, completion of parameters.

It is CodeMirror in the page itself (docs/decisions/026-editor.md). `editor/sql_editor.js` is built from `editor_source`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import streamlit as st

from core.errors import ConfigError, PsttError
from ui import data
from ui.language import t, translated

__all__ = ["ASSETS", "sql_editor", "typed_sql"]

ASSETS = Path(__file__).parent / "editor"
"""What `ui.app` serves below `/editor`."""
SIMPLE, PREFERS_SIMPLE = "sql_simple", "sql_prefers_simple"
"""Session keys: the switch of a plain text field, and what it was, which outlives a view without it."""
HEIGHT_PX = 440
_MOUNT = """export default function (component) {
  let ended = false, end;
  const address = new URL("editor/sql_editor.js?v=VERSION", document.baseURI);
  import(address.href).then((editor) => { if (!ended) end = editor.mount(component); });
  return () => { ended = true; end?.(); };
}"""
"""The script itself is loaded by its address, so that the browser caches it."""


def _component() -> Any:
    version = hashlib.sha256((ASSETS / "sql_editor.js").read_bytes()).hexdigest()[:12]
    return st.components.v2.component("pstt_sql_editor", js=_MOUNT.replace("VERSION", version), isolate_styles=False)


_editor = _component()


def sql_editor(
    text: str, key: str, *, connection: str, error: ConfigError | None = None, disabled: bool = False
) -> str:
    """Draws the editor. Returns the text as it is typed.

    Args:
        text: What is in it at first; another text needs another key.
        key: Session key, from which `typed_sql` reads.
        connection: The words of its database are coloured.
        error: A problem of the text, which is marked at its place.
        disabled: The text can be read and not be changed.
    """
    st.session_state.setdefault(SIMPLE, st.session_state.get(PREFERS_SIMPLE, False))
    is_simple = st.toggle(t("Plain text field"), key=SIMPLE, help=t("Without colours, line numbers and completion."))
    st.session_state[PREFERS_SIMPLE] = is_simple
    if is_simple:
        if _field(key) not in st.session_state:
            st.session_state[_field(key)] = _now(key, text)
        return str(st.text_area(t("SQL"), key=_field(key), height=HEIGHT_PX, disabled=disabled))
    data = {
        "text": _now(key, text),
        "dialect": _db_type(connection),
        "marks": [{"line": error.line, "column": error.column or 1, "text": translated(error.text)}]
        if error and error.line
        else [],
        "disabled": disabled,
        "label": t("SQL"),
        "height": HEIGHT_PX,
        "words": _words(),
    }
    result = _editor(
        key=key, data=data, default={"text": text}, on_text_change=lambda: None, height="content", width="stretch"
    )
    typed = result.get("text")
    return text if typed is None else str(typed)


def _db_type(connection: str) -> str:
    with data.opened() as app:
        try:
            return str(app.connections.database(connection).db_type)
        except PsttError:
            return ""


def _field(key: str) -> str:
    return f"{key}:plain"


def _now(key: str, text: str) -> str:
    typed = typed_sql(key)
    return text if typed is None else typed


def typed_sql(key: str) -> str | None:
    """Returns what is typed in the editor with that key; None: it is not drawn."""
    found = st.session_state.get(_field(key))
    if found is None:
        state = st.session_state.get(key)
        found = state.get("text") if isinstance(state, Mapping) else None
    return None if found is None else str(found)


def _words() -> dict[str, str]:
    """CodeMirror's own texts, and those of the completion."""
    return {
        "Find": t("Find"),
        "Replace": t("Replace"),
        "next": t("next"),
        "previous": t("previous"),
        "all": t("all"),
        "match case": t("match case"),
        "regexp": t("regular expression"),
        "by word": t("whole words"),
        "replace": t("replace"),
        "replace all": t("replace all"),
        "close": t("close"),
        "parameter of this file": t("parameter of this file"),
        "a new parameter": t("a new parameter"),
    }
