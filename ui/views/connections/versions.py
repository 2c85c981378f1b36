"""Earlier versions of connections.json, and the way back to one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import streamlit as st

from core.admin.edit_files import brought_back
from core.records.connections_versions import hidden_secrets
from core.workspace.stored_file import read_stored
from ui import changes, data
from ui.access import may
from ui.components.difference import show_difference
from ui.components.text import plain
from ui.data.status import workspace_status
from ui.formats import moment
from ui.language import t
from ui.views.connections.cards import TEST_RESULTS


def show_versions(document: Mapping[str, Any]) -> None:
    """Shows each version of the file that was saved or found, and how it differs; one can be restored."""
    with data.opened() as app:
        versions = app.ledger.connections_versions.newest_first()
    st.subheader(t("Versions"), anchor=False)
    with st.expander(t("Earlier versions of connections.json")):
        if not versions:
            st.markdown(t("No earlier version is known yet; each one that is saved, or that a runner finds, is kept."))
            return
        zone = workspace_status().timezone
        names = {
            version.sha256: f"{moment(version.seen_at, zone, seconds=True)} · {version.saved_by or t('found on disk')}"
            for version in versions
        }
        picked = st.selectbox(t("Version"), list(names), format_func=names.get, key="connections_version")
        version = next(version for version in versions if version.sha256 == picked)
        now = json.dumps(hidden_secrets(document), ensure_ascii=False, indent=2)
        show_difference(now, version.document, t("now"), t("that version"))
        restored, missing = brought_back(version.document, document)
        if missing:
            st.warning(
                t("Passwords are in no version; give them again for: {names}", names=plain(", ".join(missing))),
                icon=":material/key_off:",
            )
        seen = read_stored(data.workspace().connections_file).sha256
        same = version.document == now
        if st.button(t("Bring this version back"), key="bring_back", icon=":material/history:",
                     disabled=same or not may("connections")):  # fmt: skip
            changes.save_connections(restored, f"connections.json as of {names[picked]}", seen)
            st.session_state.pop(TEST_RESULTS, None)
            st.toast(t("Saved"), icon=":material/check:")
            st.rerun()
