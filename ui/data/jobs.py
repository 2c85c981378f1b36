"""Jobs as the page lists them: those that are valid, what is wrong with the others, and what comes next."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import streamlit as st

from core import open_workspace
from core.admin import edit_queries
from core.calendar.cron import next_scheduled_times
from core.errors import ConfigError, PsttError
from core.model.job import Job
from core.model.run import Run
from core.records.metrics_queries import SendFilter
from core.run.planning import unusable_jobs
from core.workspace.jobs import SUFFIX, load_jobs
from core.workspace.paths import Workspace
from ui import data

if TYPE_CHECKING:
    from core.app import App

__all__ = [
    "ActiveJob",
    "active_jobs",
    "all_jobs",
    "cluster_choices",
    "jobs_of",
    "last_runs",
    "query_names",
    "stranded_jobs",
]


LOADED_S = 30.0
"""Also files that seem to be as they were are read again: FAT stores the time of a change in steps of 2 s."""


@dataclass(frozen=True)
class ActiveJob:
    """An enabled job and its next scheduled time."""

    slug: str
    name: str
    topic: str
    timezone: str
    next_scheduled_at: datetime | None
    last_run: Run | None
    problem: str
    """Why each of its runs will fail; empty where no reason is known."""


def all_jobs() -> tuple[list[Job], list[ConfigError]]:
    """Returns all valid jobs, and all problems of the others."""
    return jobs_of(data.root())


@st.cache_resource(ttl=data.STATUS_TTL_S, show_spinner=False, max_entries=32)  # never changed: readers need no copy
def jobs_of(folder: Path) -> tuple[list[Job], list[ConfigError]]:
    """As `all_jobs`, of the workspace in that folder."""
    return _loaded(folder, _stamps(folder))


@st.cache_resource(ttl=LOADED_S, show_spinner=False, max_entries=32)
def _loaded(folder: Path, stamps: int) -> tuple[list[Job], list[ConfigError]]:
    """Reads the files; `stamps` says whether one has changed. 250 of them take 0.2 s of a processor, their stamps 1 ms."""
    return load_jobs(Workspace(folder))


def _stamps(folder: Path) -> int:
    with suppress(OSError), os.scandir(Workspace(folder).queries_dir) as files:
        found = [(file.name, file.stat()) for file in files if file.name.endswith(SUFFIX)]
        return hash(tuple(sorted((name, status.st_mtime_ns, status.st_size) for name, status in found)))
    return 0


data.on_clear(jobs_of.clear)
data.on_clear(_loaded.clear)


def stranded_jobs() -> dict[str, ConfigError]:
    """Slug → why every run of the job will fail, of jobs whose connection or cluster is not configured."""
    with data.opened() as app:
        return unusable_jobs(app, all_jobs()[0])


def last_runs(slugs: Sequence[str]) -> dict[str, Run]:
    """The newest run of each of these jobs."""
    with data.opened() as app:
        found = {slug: next(iter(app.ledger.history.newest(slug, 1)), None) for slug in slugs}
    return {slug: run for slug, run in found.items() if run is not None}


def query_names() -> list[str]:
    """The SQL files of `queries/`, including those in folders below it."""
    return edit_queries.query_names(data.workspace())


def cluster_choices() -> tuple[list[str], str]:
    """Returns the keys of `kafka_connections`, and the default topic of the default cluster."""
    with data.opened() as app:
        try:
            names = list(app.connections.cluster_names)
        except ConfigError:
            return [], ""
        try:
            return names, app.cluster().default_topic
        except PsttError:
            return names, ""


def active_jobs(send_filter: SendFilter) -> list[ActiveJob]:
    """The enabled jobs, ordered by their next scheduled time."""
    found = [
        job
        for job in _active_jobs(data.root())
        if send_filter.job in (None, job.slug)
        and send_filter.topic in (None, job.topic)
        and (send_filter.cluster is None or job.last_run is None or job.last_run.cluster == send_filter.cluster)
    ]
    last = datetime.max.replace(tzinfo=UTC)
    return sorted(found, key=lambda job: (job.next_scheduled_at or last, job.name))


@st.cache_data(ttl=data.CHECK_S, show_spinner=False, max_entries=32)
def _active_jobs(folder: Path) -> list[ActiveJob]:
    with open_workspace(folder, log=False) as app:
        stranded = unusable_jobs(app, jobs_of(folder)[0])
        return [
            ActiveJob(
                slug=job.slug,
                name=job.name,
                topic=_topic(app, job),
                timezone=job.timezone,
                next_scheduled_at=next(iter(next_scheduled_times(job, data.now(), 1)), None),
                last_run=next(iter(app.ledger.history.newest(job.slug, 1)), None),
                problem=stranded[job.slug].text if job.slug in stranded else "",
            )
            for job in jobs_of(folder)[0]
            if job.enabled
        ]


def _topic(app: App, job: Job) -> str:
    if job.export_format != "kafka":
        return job.output or job.export_format
    if job.kafka_config.topic:
        return job.kafka_config.topic
    try:
        return app.connections.cluster_for(job, app.settings).default_topic
    except PsttError:
        return ""
