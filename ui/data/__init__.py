"""Opens the workspace for the page, and clears what the page caches.

Each view has a read model of its own in this package. Nothing stays open between two calls. Caches are shared by all
sessions and keyed by the workspace's folder.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import streamlit as st

from core import open_workspace
from core.workspace.paths import Workspace

if TYPE_CHECKING:
    from core.app import App

__all__ = [
    "CHECK_S",
    "STATUS_TTL_S",
    "clear_caches",
    "now",
    "on_clear",
    "opened",
    "root",
    "start_log",
    "workspace",
]

STATUS_TTL_S = 2.0
"""Cache lifetime, in seconds, of what changes by the second: jobs, runner, clusters, the signed-in user."""
CHECK_S = 5.0
"""Seconds between two checks whether there is anything new to count, for all sessions together."""

_clears: list[Callable[[], None]] = []


def now() -> datetime:
    """The clock."""
    return datetime.now(UTC)


def root() -> Path:
    """The workspace's folder: PSTT_WORKSPACE, else the folder in which the page was started.

    Raises:
        ConfigError: There is no such folder.
    """
    return Workspace.find(None, os.environ).root


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
