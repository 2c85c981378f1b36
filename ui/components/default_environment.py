"""The choice of the cluster of everything that names none; it is kept in connections.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from core.workspace.stored_file import read_stored
from ui import changes, data
from ui.access import may
from ui.language import t

__all__ = ["default_environment_box"]


def default_environment_box(document: Mapping[str, Any]) -> None:
    """Draws the field that sets `default_environment`."""
    names = list(document["kafka_connections"])
    known = document.get("default_environment")
    chosen = st.selectbox(
        t("Usual environment"),
        names,
        index=names.index(known) if known in names else None,
        placeholder=t("none: what names no cluster is refused"),
        key=f"usual_environment_{known}",
        help=t("The cluster of everything that names none: jobs, messages by hand, REST, the command line."),
        disabled=not may("connections"),
        width=320,
    )
    if chosen is not None and chosen != known:
        seen = read_stored(data.workspace().connections_file).sha256
        changes.set_default_environment(chosen, seen)
        st.toast(t("Saved"), icon=":material/check:")
        st.rerun()
