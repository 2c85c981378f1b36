"""The draft of a form of a database, cluster or schema registry. It has no secret, and no field in which one may be typed."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import streamlit as st

from core.records.connections_versions import SECRET_KEYS
from core.workspace.stored_file import read_stored
from ui import data, drafts
from ui.components.text import plain
from ui.language import t

__all__ = ["end_draft", "forget_entries", "keep_draft", "old_with_draft", "watch_entry"]

ACCEPTED = "connection_draft"
"""Session key: name of the form → values of the draft that the user has accepted."""
PREFIX = "c_"
FREE_FIELDS = ("c_more", "c_options", "c_secret", "c_save", "c_delete", "c_confirm", "c_rename", "c_dsn")
"""Beginnings of the keys of buttons, and of fields whose text may have a password in it."""
OF_ENTRY = {"type": "db_type", "writes": "allow_writes", "auto_register": "others_register"}
"""Field → key of the entry, where they differ. A registry's box asks for the opposite of its key."""
_PASSWORD = re.compile(r"(?i)(pwd|passw|secret|token)|://[^/\s]*:[^/\s]*@")


def old_with_draft(kind: str, name: str, old: Mapping[str, Any]) -> dict[str, Any] | None:
    """Offers the draft of this form.

    Args:
        kind: `database`, `cluster` or `registry`.
        name: Of the form: that of the entry; empty, or `+` of a registry: a new one.
        old: The entry as it is stored.

    Returns:
        The values that the fields begin with: those of the accepted draft, else the stored ones. None: the question is
        drawn, and not answered yet.
    """
    form = f"{kind}:{name}"
    base = read_stored(data.workspace().connections_file).sha256
    offer = drafts.offer_draft("connection", form, base, lambda draft: _show(draft, old))
    if offer.is_open:
        return None
    if offer.accepted is not None:
        st.session_state[ACCEPTED] = {form: _values(offer.accepted)}
        for key in [key for key in st.session_state if str(key).startswith(PREFIX)]:
            del st.session_state[key]
        st.rerun()
    return {**old, **st.session_state.get(ACCEPTED, {}).get(form, {})}


def watch_entry(kind: str, name: str) -> None:
    """Notes what is in the drawn form, so that what is typed from now on is kept."""
    form = f"{kind}:{name}"
    if drafts.is_watched("connection", form):
        drafts.keep_typed()  # a dialog is drawn without the page around it, which would do this
    else:
        base = read_stored(data.workspace().connections_file).sha256
        stored = "" if form in st.session_state.get(ACCEPTED, {}) else _typed() or ""
        drafts.watch(drafts.Form("connection", form, base, stored, _typed))


def keep_draft() -> None:
    """Keeps what is typed, as the form is being closed."""
    drafts.keep_typed()


def end_draft(kind: str, name: str) -> None:
    """Drops the draft of a form that was saved, or whose entry was deleted."""
    drafts.drop_draft("connection", f"{kind}:{name}")


def forget_entries() -> None:
    """Ends the watch of all forms: they are closed."""
    st.session_state.pop(ACCEPTED, None)
    for form in drafts.watched("connection"):
        drafts.forget("connection", form)


def _typed() -> str | None:
    """Returns the values of the fields that hold no secret; None: the form is not drawn."""
    fields = {
        str(key).removeprefix(PREFIX): float(value) if type(value) is int else value
        for key, value in st.session_state.items()
        if str(key).startswith(PREFIX) and not str(key).startswith(FREE_FIELDS)
    }
    kept = {name: value for name, value in fields.items() if name not in SECRET_KEYS and not _may_be_secret(value)}
    return json.dumps(kept, ensure_ascii=False, sort_keys=True) if fields else None


def _may_be_secret(value: Any) -> bool:
    return isinstance(value, str) and bool(_PASSWORD.search(value))


def _values(draft: drafts.Draft) -> dict[str, Any]:
    found = json.loads(draft.document)
    return {
        OF_ENTRY.get(name, name): int(value) if isinstance(value, float) else value
        for name, value in found.items()
        if value not in (None, "")
    }


def _show(draft: drafts.Draft, old: Mapping[str, Any]) -> None:
    changed = {name: value for name, value in _values(draft).items() if old.get(name) != value and value is not False}
    st.markdown("  \n".join(f"- {plain(name)}: **{plain(value)}**" for name, value in changed.items()))
    st.caption(t("Passwords are in no draft; enter them again."))
