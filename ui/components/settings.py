"""The settings of the workspace: value, origin and meaning of each, and a form that writes one into `.env`."""

from __future__ import annotations

import streamlit as st

from core.admin.edit_settings import is_editable, setting_applies, setting_meanings
from core.workspace.json_file import document_of
from core.workspace.settings import SettingRow
from core.workspace.stored_file import read_stored
from ui import changes, data
from ui.access import may
from ui.components import mail_server
from ui.components.default_environment import default_environment_box
from ui.components.problem import guarded
from ui.components.tables import text_table
from ui.components.text import plain
from ui.language import t

__all__ = ["show"]

NONE = "–"
_SAVED = "setting_saved"


def show() -> None:
    """Draws the table, and the form below it."""
    with data.opened() as app:
        rows = app.settings.table()
    wanted = st.text_input(t("Search"), key="settings_search", width=300).casefold()
    only = st.checkbox(t("only what is not at its default"), key="settings_given")
    shown = [
        row
        for row in rows
        if (wanted in row.name.casefold() or wanted in _meaning(row).casefold())
        and not (only and row.origin == "default")
    ]
    if shown:
        text_table([_cells(row) for row in shown], "settings", t("Settings"))
    else:
        st.markdown(t("No setting is like that.") if wanted else t("Every setting is at its default."))
    st.caption(t("Order: job, connections.json, environment, .env, default. Secrets are never shown."))
    guarded(_form)(rows)
    guarded(default_environment)()
    guarded(mail_server.show)()


def default_environment() -> None:
    """Draws the choice of the cluster of everything that names none, where there are clusters."""
    stored = read_stored(data.workspace().connections_file)
    document = document_of(stored)
    if not document.get("kafka_connections"):
        return
    st.markdown("**default_environment**")
    st.caption(t("Kept in connections.json; applies {when}.", when=t("from the next run on")))
    default_environment_box(document)


def _cells(row: SettingRow) -> dict[str, str]:
    return {
        t("Setting"): row.name,
        t("Value"): NONE if row.value is None else row.value,
        t("Origin"): _origin(row.origin),
        t("Applies"): _applies(row.name),
        t("Meaning"): _meaning(row),
    }


def _applies(name: str) -> str:
    return {
        "next run": t("from the next run on"),
        "runner": t("when the runner is started again"),
        "runner and page": t("when runner and page are started again"),
        "at once": t("at once"),
    }[setting_applies(name)]


def _origin(origin: str) -> str:
    return {"default": t("default"), "environment": t("environment")}.get(origin, origin)


def _meaning(row: SettingRow) -> str:
    return t(setting_meanings().get(row.name, ""))


def _form(rows: list[SettingRow]) -> None:
    saved = st.session_state.pop(_SAVED, None)
    if saved:
        st.success(t("{name} is saved. It applies {when}.", name=saved, when=_applies(saved)), icon=":material/check:")
    by_name = {row.name: row for row in rows if is_editable(row.name)}
    name = st.selectbox(
        t("Change a setting"), list(by_name), index=None, key="setting_name", placeholder=t("choose one"), width=400
    )
    if name is None:
        return
    row = by_name[name]
    st.markdown(plain(_meaning(row)))
    st.caption(t("A change applies {when}.", when=_applies(name)))
    if row.origin == "environment":
        st.info(t("The environment sets it, and takes precedence over .env: change it there."), icon=":material/info:")
        return
    value = st.text_input(t("Value"), row.value or "", key=f"setting_value_{name}", width=400)
    with st.container(horizontal=True):
        allowed = may("settings")
        if st.button(t("Save"), key="setting_save", disabled=not allowed or value == (row.value or "")):
            _save(name, value or None)
        is_default = row.origin == "default"
        if st.button(t("Back to its default"), key="setting_default", disabled=not allowed or is_default):
            _save(name, None)


def _save(name: str, value: str | None) -> None:
    changes.change_setting(name, value)
    del st.session_state[f"setting_value_{name}"]
    st.session_state[_SAVED] = name
    st.rerun()
