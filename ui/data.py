"""The page's only door to core: what the views show, read anew at most every few seconds for all sessions together.

Nothing is held open between two calls. What is cached is keyed by the workspace's folder.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import streamlit as st

from core import open_workspace
from core.agenda import RunnerBeat
from core.errors import ConfigError, PsttError
from core.workspace import Workspace

if TYPE_CHECKING:
    from core.bootstrap import App
    from core.model import Job

__all__ = ["ClusterState", "FrameState", "frame", "now", "opened", "root", "start_log"]

SOON_S = 2.0
"""How old what changes by the second may be."""


def now() -> datetime:
    """The clock."""
    return datetime.now(UTC)


def root() -> Path:
    """The workspace's folder: PSTT_WORKSPACE, else where the page was started.

    Raises:
        ConfigError: It is not there.
    """
    return Workspace.find(None, os.environ).root


@contextmanager
def opened() -> Iterator[App]:
    """The workspace, for one question."""
    with open_workspace(root(), log=False) as app:
        yield app


@st.cache_resource(show_spinner=False)
def start_log(folder: Path) -> str:
    """Begins the log of this process, once; why there is no log file, empty where there is one."""
    with open_workspace(folder) as app:
        return app.log_problem


def jobs() -> tuple[list[Job], list[ConfigError]]:
    """All jobs that are right, and all problems of those that are not."""
    return _jobs(root())


@st.cache_data(ttl=SOON_S, show_spinner=False, max_entries=8)
def _jobs(folder: Path) -> tuple[list[Job], list[ConfigError]]:
    from core.jobs import load_jobs

    return load_jobs(Workspace(folder))


# ── the frame ─────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class ClusterState:
    """What is known about one cluster."""

    name: str
    connected: bool | None
    """None: nobody has looked lately."""
    since: datetime | None
    looked_at: datetime | None
    error: str
    is_demo: bool = False
    """It lives inside the process of each run."""


@dataclass(frozen=True)
class FrameState:
    """What stands around every view."""

    folder: Path
    environment: str
    timezone: str
    clusters: tuple[ClusterState, ...]
    runner: RunnerBeat | None
    alerts: tuple[str, ...]
    problem: str
    """What is wrong with connections.json; empty where nothing is."""

    def runner_lives(self, at: datetime) -> bool:
        """Whether a runner works here."""
        return self.runner is not None and self.runner.is_alive(at)


def frame() -> FrameState:
    """The frame."""
    return _frame(root())


@st.cache_data(ttl=SOON_S, show_spinner=False, max_entries=8)
def _frame(folder: Path) -> FrameState:
    with open_workspace(folder, log=False) as app:
        problem, environment = "", ""
        try:
            environment = app.connections.default_environment
        except ConfigError as error:
            problem = error.text
        return FrameState(
            folder=folder,
            environment=environment,
            timezone=app.timezone,
            clusters=tuple(_clusters(app)),
            runner=app.agenda.runner(),
            alerts=_open_alerts(app),
            problem=problem,
        )


def _clusters(app: App) -> Iterator[ClusterState]:
    stale = now() - timedelta(seconds=3 * app.settings.KAFKA_HEALTH_CHECK_INTERVAL_SEC + 15)
    seen = {state.cluster: state for state in app.agenda.broker_states()}
    for state in seen.values():
        connected = state.connected if state.at >= stale else None
        yield ClusterState(state.cluster, connected, state.since, state.at, state.error or "")
    try:
        names = app.connections.cluster_names
    except ConfigError:
        return
    for name in names:
        try:
            cluster = app.cluster(name)
        except ConfigError as error:
            if name not in seen:
                yield ClusterState(name, None, None, None, error.text)
            continue
        if cluster.name not in seen:
            yield ClusterState(cluster.name, None, None, None, "", is_demo=bool(cluster.mock_brokers))


def _open_alerts(app: App) -> tuple[str, ...]:
    from core.outbox import Outbox

    try:
        with Outbox(app.workspace.ledger_file) as outbox:
            return tuple(episode.text for episode in outbox.open_episodes() if episode.state == "open")
    except PsttError:
        return ()
