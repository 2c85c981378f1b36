"""Connections: can it be reached? Databases, clusters, topics, a message by hand, earlier versions."""

from __future__ import annotations

from typing import Any

import streamlit as st

from core.errors import ConfigError
from core.workspace.json_file import parse_json_file
from core.workspace.stored_file import read_stored
from ui import data
from ui.access import may
from ui.components.default_environment import default_environment_box
from ui.components.deleted import show_deleted
from ui.components.problem import guarded, problem
from ui.language import t
from ui.views.connections.cards import EDITED_ENTRY, section_heading, show_cards, show_test
from ui.views.connections.entry_form import show_entry_form
from ui.views.connections.manual_send import show_manual_send
from ui.views.connections.registry import show_registries
from ui.views.connections.topics import show_topics
from ui.views.connections.versions import show_versions

__all__ = ["show"]

ASKED_ENTRY = "connection_asked"
"""Session key: the kind of entry whose form a link has opened."""


def show() -> None:
    """Draws the view."""
    st.title(t("Connections"), anchor=False)
    _open_new()
    document = _read_document()
    if document is None:
        return
    databases = [(index, e) for index, e in enumerate(document.get("connections", [])) if isinstance(e, dict)]
    clusters = document.get("kafka_connections", {})
    entries = [(key, key, entry if isinstance(entry, dict) else {}) for key, entry in clusters.items()]
    section_heading(t("Databases"), "database")
    show_cards("database", [(index, str(entry.get("name", "")), entry) for index, entry in databases])
    section_heading(t("Kafka clusters"), "cluster")
    show_cards("cluster", entries)
    if clusters:
        guarded(default_environment_box)(document)
    else:
        st.caption(t("Without an entry the KAFKA settings say where the cluster is."))
        show_test("cluster", "")
    guarded(show_registries)(document)
    guarded(show_deleted)("connection", "cluster")
    guarded(show_topics)(list(clusters))
    guarded(show_manual_send)(list(clusters))
    guarded(show_versions)(document)
    show_entry_form(document)


def _open_new() -> None:
    """Opens the form of a new entry, once, where a link asks for it."""
    kind = st.query_params.get("add")
    if kind in ("database", "cluster") and st.session_state.get(ASKED_ENTRY) != kind and may("connections"):
        st.session_state[ASKED_ENTRY] = kind
        st.session_state[EDITED_ENTRY] = (kind, None)


def _read_document() -> dict[str, Any] | None:
    """Shows the problems of connections.json. Returns what can be read of it; None: nothing can."""
    stored = read_stored(data.workspace().connections_file)
    if not stored.sha256:
        st.info(t("There is no connections.json yet: add the first connection."), icon=":material/info:")
        return {}
    try:
        found: dict[str, Any] = parse_json_file(stored.path, stored.text).document
    except ConfigError as error:
        problem(error)
        return None
    with data.opened() as app:
        try:
            _ = app.connections
        except ConfigError as error:
            problem(error)
    if not isinstance(found.get("connections", []), list) or not isinstance(found.get("kafka_connections", {}), dict):
        return None
    return found
