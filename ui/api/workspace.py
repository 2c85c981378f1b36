"""Opens the workspace of the REST interface for one request; nothing is kept open between two requests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from core import open_workspace
from core.workspace.paths import Workspace
from ui.workspaces import PARAMETER, home_workspace, named_workspace

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from core.app import App

__all__ = ["ChosenWorkspace", "now", "opened", "workspace"]

_named: ContextVar[str] = ContextVar("named", default="")
"""The workspace that the request names; empty: the first one."""


class ChosenWorkspace:
    """Reads `?workspace=NAME` of a request.

    Args:
        app: The ASGI application that answers.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on."""
        query = parse_qs(scope.get("query_string", b"").decode("latin-1"))
        _named.set(query.get(PARAMETER, [""])[-1])
        await self.app(scope, receive, send)


def now() -> datetime:
    """Returns the current time, aware UTC."""
    return datetime.now(UTC)


def workspace() -> Workspace:
    """Returns the workspace that the request names, else the first one.

    Raises:
        ConfigError: The folder does not exist, or no workspace has that name.
    """
    return named_workspace(name) if (name := _named.get()) else home_workspace()


@contextmanager
def opened() -> Iterator[App]:
    """Yields the opened workspace for one request."""
    with open_workspace(workspace().root, log=False) as app:
        yield app
