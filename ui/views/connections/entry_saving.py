"""Saves or deletes the entry of an open form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import streamlit as st

from core.admin.uses import Uses
from core.errors import ConfigError
from core.workspace.secrets import is_reference
from core.workspace.stored_file import read_stored
from ui import changes, data
from ui.access import may
from ui.components.uses import show_uses
from ui.language import t
from ui.views.connections.cards import EDITED_ENTRY, TEST_RESULTS
from ui.views.connections.entry_draft import end_draft, forget_entries, keep_draft
from ui.views.connections.fields import put

SEEN_VERSION, DELETING = "connection_seen", "connection_deleting"


def dismiss_form() -> None:
    """Closes the form; what was typed stays as a draft."""
    keep_draft()
    close_form()


def close_form() -> None:
    """Closes the form."""
    forget_entries()
    for name in (EDITED_ENTRY, SEEN_VERSION, DELETING):
        st.session_state.pop(name, None)


def save_or_delete(
    with_it: dict[str, Any],
    without_it: dict[str, Any],
    place: tuple[dict[str, Any], str, tuple[str, str] | None],
    about: str,
    *,
    is_new: bool,
    users: Callable[[], Uses] | None = None,
    is_renamed: bool = False,
    draft: tuple[str, str],
    taken: ConfigError | None = None,
) -> None:
    """Draws the buttons below a form, and does what they say.

    Args:
        with_it: The file with the entry.
        without_it: The file without it.
        place: The entry, the key of its secret, and the secret's reference and value; None: as it is.
        about: What is changed, for the audit trail.
        is_new: The entry is not in the file yet.
        users: What uses the entry; None: it is new.
        draft: Kind and name under which the draft of this form is kept.
        is_renamed: These jobs would not find the entry any more.
        taken: Why it is not saved: another entry has its name.
    """
    entry, key, secret = place
    seen = _seen_sha256()
    sure = True
    if is_renamed and users is not None and (uses := users()).jobs:
        show_uses(uses)
        sure = st.checkbox(t("Rename it all the same: these jobs fail until they name it"), key="c_rename_sure")
    with st.container(horizontal=True):
        save = st.button(t("Save"), key="c_save", icon=":material/save:", disabled=not may("connections") or not sure)
        if not is_new and st.button(
            t("Delete"), key="c_delete", icon=":material/delete:", disabled=not may("connections")
        ):
            st.session_state[DELETING] = True
    if save and taken is not None:
        raise taken
    if save:
        if secret is not None:
            reference, value = secret
            if reference and not reference.startswith(("env:", "vault:", "exec:")):  # those are written elsewhere
                if not is_reference(reference):
                    raise ConfigError(t("write file:… or keyring:SERVICE/USER"))
                changes.store_secret(reference, value)
            put(entry, key, reference)
        changes.save_connections(with_it, about, seen)
    elif not is_new and st.session_state.get(DELETING) and _confirm_delete(users):
        changes.save_connections(without_it, about, seen)
    else:
        return
    end_draft(*draft)
    for name in [name for name in st.session_state if str(name).startswith("c_")]:
        del st.session_state[name]
    close_form()
    st.session_state.pop(TEST_RESULTS, None)
    st.toast(t("Saved"), icon=":material/check:")
    st.rerun()


def _confirm_delete(users: Callable[[], Uses] | None) -> bool:
    """Asks for confirmation and shows what uses the entry. Returns whether the user confirmed."""
    if users is not None:
        show_uses(users())
    st.caption(t("It can be brought back from the page of the connections; a password written in the file cannot."))
    return st.button(
        t("Yes, delete"), key="c_confirm_delete", icon=":material/delete:", disabled=not may("connections")
    )


def _seen_sha256() -> str:
    """The SHA-256 of the file as it was when the form was opened."""
    opened: tuple[Any, str] | None = st.session_state.get(SEEN_VERSION)
    editing = st.session_state[EDITED_ENTRY]
    if opened is None or opened[0] != editing:
        opened = (editing, read_stored(data.workspace().connections_file).sha256)
        st.session_state[SEEN_VERSION] = opened
    return opened[1]
