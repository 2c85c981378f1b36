"""What the packages above need of an opened workspace, as a protocol; `core.app.App` is one."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol, Self

from core.records.ledger import Ledger
from core.workspace.connections import Connections
from core.workspace.paths import Workspace
from core.workspace.settings import Settings

if TYPE_CHECKING:
    from core.records.metrics import Metrics

__all__ = ["OpenWorkspace"]


class OpenWorkspace(Protocol):
    """The parts of one workspace, each opened when it is first used.

    It belongs to the thread that opened it, since its SQLite connections do: another thread uses `reopened`.
    """

    @property
    def workspace(self) -> Workspace:
        """The folder and its files."""
        ...

    @property
    def settings(self) -> Settings:
        """The settings of environment and `.env`.

        Raises:
            ConfigError: One of them is wrong.
        """
        ...

    @property
    def variables(self) -> Mapping[str, str]:
        """What a reference `env:NAME` may name: the environment, then `.env`."""
        ...

    @property
    def connections(self) -> Connections:
        """connections.json.

        Raises:
            ConfigError: The file is missing or wrong.
        """
        ...

    @property
    def timezone(self) -> str:
        """The IANA time zone of the workspace."""
        ...

    @property
    def ledger(self) -> Ledger:
        """Everything in the ledger file: runs, scheduled runs, requests, audit."""
        ...

    @property
    def metrics(self) -> Metrics:
        """The sends, as metrics.duckdb has them."""
        ...

    def reopened(self) -> AbstractContextManager[Self]:
        """Opens the same workspace once more, for another thread."""
        ...
