"""The status above every view: workspace, clusters, runner, open alerts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import streamlit as st

from core import open_workspace
from core.errors import ConfigError, PsttError
from core.notify.outbox import Outbox
from core.records.damaged_segments import damaged_segments
from core.records.runner_status import RunnerStatus
from ui import data
from ui.cache import SharedCache
from ui.data.jobs import jobs_of

if TYPE_CHECKING:
    from core.app import App

__all__ = ["ClusterStatus", "WorkspaceStatus", "size_of_spool", "status_of", "workspace_status"]


@dataclass(frozen=True)
class ClusterStatus:
    """What the runner last found out about one cluster."""

    name: str
    connected: bool | None
    """None: it was not checked lately."""
    since: datetime | None
    checked_at: datetime | None
    error: str
    is_demo: bool = False
    """The demo's broker exists only inside the process of each run."""


@dataclass(frozen=True)
class WorkspaceStatus:
    """The status of the workspace, its clusters and its runner."""

    folder: Path
    environment: str
    timezone: str
    clusters: tuple[ClusterStatus, ...]
    runner: RunnerStatus | None
    alerts: tuple[str, ...]
    problem: str
    """What is wrong with connections.json; empty where nothing is."""
    damaged: int
    """Number of spool segments that could not be read."""
    is_demo: bool = False
    """Made by `python -m core demo`: its rows are made up, and its past is simulated."""

    def runner_is_alive(self, at: datetime) -> bool:
        """Whether a runner works in this workspace."""
        return self.runner is not None and self.runner.is_alive(at)


def workspace_status() -> WorkspaceStatus:
    """The status, up to 2 s old."""
    return status_of(data.root())


@st.cache_data(ttl=data.STATUS_TTL_S, show_spinner=False, max_entries=32)
def status_of(folder: Path) -> WorkspaceStatus:
    """As `workspace_status`, of the workspace in that folder."""
    with open_workspace(folder, log=False) as app:
        problem, environment = "", ""
        try:
            environment = app.connections.default_environment
        except ConfigError as error:
            is_new = not app.workspace.connections_file.exists() and not any(jobs_of(folder))
            problem = "" if is_new else error.text  # in a new workspace the first steps say what to do
        return WorkspaceStatus(
            folder=folder,
            environment=environment,
            timezone=app.timezone,
            clusters=tuple(_clusters(app)),
            runner=app.ledger.heartbeats.newest(),
            alerts=_open_alerts(app),
            problem=problem,
            damaged=len(damaged_segments(app.workspace.spool_dir)),
            is_demo=app.workspace.is_demo,
        )


def size_of_spool(folder: Path) -> tuple[int, int]:
    """Returns how many segments the spool has, and their bytes: those of some minutes ago, since a year has 40,000."""
    return _sizes.get(folder)


def _size_of_spool(folder: Path) -> tuple[int, int]:
    sizes: list[int] = []
    with suppress(FileNotFoundError), os.scandir(folder) as files:
        for file in files:
            if file.name.endswith(".parquet"):
                with suppress(FileNotFoundError):  # merged meanwhile
                    sizes.append(file.stat().st_size)
    return len(sizes), sum(sizes)


_sizes = SharedCache(_size_of_spool, fresh_s=60, stale_s=900)
data.on_clear(_sizes.clear)


def _clusters(app: App) -> Iterator[ClusterStatus]:
    stale = data.now() - timedelta(seconds=3 * app.settings.KAFKA_HEALTH_CHECK_INTERVAL_SEC + 15)
    seen = {state.cluster: state for state in app.ledger.broker_samples.states()}
    for state in seen.values():
        connected = state.connected if state.at >= stale else None
        yield ClusterStatus(state.cluster, connected, state.since, state.at, state.error or "")
    try:
        names = app.connections.cluster_names
    except ConfigError:
        return
    for name in names:
        try:
            cluster = app.cluster(name)
        except PsttError as error:
            if name not in seen:
                yield ClusterStatus(name, None, None, None, error.text)
            continue
        if cluster.name not in seen:
            yield ClusterStatus(cluster.name, None, None, None, "", is_demo=bool(cluster.mock_brokers))


def _open_alerts(app: App) -> tuple[str, ...]:
    try:
        with Outbox(app.workspace.ledger_file) as outbox:
            return tuple(incident.text for incident in outbox.open_incidents() if incident.state == "open")
    except PsttError:
        return ()
