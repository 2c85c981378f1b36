"""Opens the workspace for the page, and clears what the page caches.

Each view has a read model of its own in this package. Nothing stays open between two calls. Caches are shared by all
sessions and keyed by the workspace's folder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx

from core import open_workspace
from core.workspace.paths import Workspace
from ui.workspaces import PARAMETER, workspaces

if TYPE_CHECKING:
    from core.app import App

__all__ = [
    "CHECK_S",
    "STATUS_TTL_S",
    "choose_workspace",
    "chosen_name",
    "clear_caches",
    "now",
    "on_clear",
    "opened",
    "root",
    "start_log",
    "workspace",
]

KEPT_KEYS = ("drawn", "language", "pages", "viewport")
"""Keys of the session that are the same for all workspaces."""
STATUS_TTL_S = 2.0
"""Cache lifetime, in seconds, of what changes by the second: jobs, runner, clusters, the signed-in user."""
CHECK_S = 5.0
"""Seconds between two checks whether there is anything new to count, for all sessions together."""

_clears: list[Callable[[], None]] = []


def now() -> datetime:
    """The clock."""
    return datetime.now(UTC)


def choose_workspace(name: str = "") -> None:
    """Shows the workspace of that name, or of the address, from now on; what was typed into another one is forgotten."""
    known = workspaces()
    wanted, shown = name or st.query_params.get(PARAMETER, ""), _chosen_among(known)
    if wanted in known and wanted != shown:
        for key in [key for key in st.session_state if key not in KEPT_KEYS]:
            del st.session_state[key]
        st.session_state[PARAMETER] = shown = wanted
    if len(known) > 1:
        st.query_params[PARAMETER] = shown


def chosen_name() -> str:
    """The name of the workspace that this session shows: the chosen one, else the first."""
    return _chosen_among(workspaces())


def _chosen_among(known: Mapping[str, Workspace]) -> str:
    chosen = st.session_state.get(PARAMETER) if get_script_run_ctx(suppress_warning=True) else None
    return str(chosen) if chosen in known else next(iter(known))


def root() -> Path:
    """The folder of the workspace that this session shows.

    Raises:
        ConfigError: There is no such folder.
    """
    known = workspaces()
    return known[_chosen_among(known)].root


def workspace() -> Workspace:
    """The paths of the workspace."""
    return Workspace(root())


@contextmanager
def opened() -> Iterator[App]:
    """Opens the workspace for one question."""
    with open_workspace(root(), log=False) as app:
        yield app


@st.cache_resource(show_spinner=False)
def start_log(folder: Path) -> str:
    """Starts the log of this process, once. Returns why there is no log file, empty where there is one."""
    with open_workspace(folder) as app:
        return app.log_problem


def on_clear(clear: Callable[[], None]) -> None:
    """Registers a cache that `clear_caches` has to clear. `st.cache_data` needs no registration."""
    _clears.append(clear)


def clear_caches() -> None:
    """Clears everything that was read, after a change: all sessions see the change at once."""
    st.cache_data.clear()
    for clear in _clears:
        clear()
