"""The workspaces that page and REST interface show. The first one has the users, the sessions and the tokens."""

from __future__ import annotations

import os

from core.errors import ConfigError
from core.workspace.json_file import nearest
from core.workspace.paths import Workspace, page_workspaces

__all__ = ["PARAMETER", "home_workspace", "named_workspace", "workspaces"]

PARAMETER = "workspace"
"""Names a workspace in an address of the page and of the REST interface."""


def workspaces() -> dict[str, Workspace]:
    """Returns the workspaces of PSTT_WORKSPACES by name, else that of PSTT_WORKSPACE or of the current folder.

    Raises:
        ConfigError: A folder does not exist, or PSTT_WORKSPACES cannot be read.
    """
    return page_workspaces(os.environ)


def home_workspace() -> Workspace:
    """Returns the workspace whose users may sign in, and whose tokens are accepted.

    Raises:
        ConfigError: As `workspaces`.
    """
    return next(iter(workspaces().values()))


def named_workspace(name: str) -> Workspace:
    """Returns the workspace of that name.

    Raises:
        ConfigError: There is none, or as `workspaces`.
    """
    known = workspaces()
    if name not in known:
        raise ConfigError(f'there is no workspace "{name}"', remedy=nearest(name, known), key=PARAMETER)
    return known[name]
