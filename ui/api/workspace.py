"""Opens the workspace of the REST interface for one request; nothing is kept open between two requests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from core import open_workspace
from core.workspace.paths import Workspace

if TYPE_CHECKING:
    from core.app import App

__all__ = ["now", "opened", "workspace"]


def now() -> datetime:
    """Returns the current time, aware UTC."""
    return datetime.now(UTC)


def workspace() -> Workspace:
    """Returns the workspace of PSTT_WORKSPACE, else the folder in which the page was started.

    Raises:
        ConfigError: The folder does not exist.
    """
    return Workspace.find(None, os.environ)


@contextmanager
def opened() -> Iterator[App]:
    """Yields the opened workspace for one request."""
    with open_workspace(workspace().root, log=False) as app:
        yield app
