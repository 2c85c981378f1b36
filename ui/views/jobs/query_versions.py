"""The earlier versions of an SQL file."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from core.workspace.stored_file import StoredFile
from ui import changes, file_changes
from ui.access import may
from ui.components.difference import show_difference
from ui.components.text import plain
from ui.data.status import workspace_status
from ui.formats import moment, size
from ui.language import t

__all__ = ["show_query_versions"]

COMPARED_BYTES = 300_000
"""A difference of larger texts takes seconds."""


def show_query_versions(name: str, restore: Callable[[bytes], None]) -> None:
    """Lists the versions of an SQL file; one can be compared and put into the editor.

    Args:
        name: Of the file.
        restore: Puts a text into the editor.
    """
    versions = file_changes.query_versions(name)
    if not versions:
        return
    with st.expander(t("Earlier versions"), icon=":material/history:"):
        zone = workspace_status().timezone
        labels = {
            version.version_id: f"{moment(version.seen_at, zone, seconds=True)} · "
            f"{version.saved_by or t('found on disk')} · {size(version.size_bytes)}"
            for version in versions
        }
        picked = st.selectbox(t("Version"), list(labels), format_func=lambda one: labels[one], key="query_version")
        version = next(one for one in versions if one.version_id == picked)
        file = changes.query_file(name)
        is_same = version.sha256 == file.sha256
        if version.size_bytes > COMPARED_BYTES or len(file.content) > COMPARED_BYTES:
            st.caption(t("The file is too large to be compared here: {size}.", size=size(version.size_bytes)))
            st.download_button(
                t("Download this version"), file_changes.query_version(name, picked), name.rpartition("/")[2],
                key="query_version_file",
            )  # fmt: skip
            return
        content = file_changes.query_version(name, picked)
        text = StoredFile(file.path, content, version.sha256).text
        show_difference(file.text, text, t("now"), t("that version"))
        st.button(
            t("Bring it back into the editor"),
            key="query_bring_back",
            icon=":material/history:",
            on_click=restore,
            args=(content,),
            disabled=is_same or not may("save"),
            help=plain(t("It is stored once you save it.")),
        )
