"""What uses a job, an SQL file or a connection, and what waits for it: asked before it is deleted or renamed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass

from core.errors import ConfigError
from core.model.job import Job
from core.records.ledger import Ledger
from core.workspace.connections import Connections
from core.workspace.jobs import load_jobs
from core.workspace.paths import Workspace

__all__ = ["Uses", "uses_of_cluster", "uses_of_connection", "uses_of_job", "uses_of_query", "uses_of_registry"]


@dataclass(frozen=True, slots=True)
class Uses:
    """The jobs that use a thing, and their runs that have not ended."""

    jobs: tuple[Job, ...]
    waiting_runs: int
    """Planned runs, and requests that the runner has not taken yet."""
    running: int


def uses_of_job(ledger: Ledger, job: Job) -> Uses:
    """Returns the runs of a job that have not ended."""
    return _uses(ledger, [job])


def uses_of_query(workspace: Workspace, ledger: Ledger, name: str) -> Uses:
    """Returns the valid jobs that read that SQL file, and their runs that have not ended."""
    path = workspace.query_file(name)
    found = []
    for job in load_jobs(workspace)[0]:
        with suppress(ConfigError):  # its query is no file of the workspace
            if workspace.query_file(job.query) == path:
                found.append(job)
    return _uses(ledger, found)


def uses_of_connection(workspace: Workspace, ledger: Ledger, name: str) -> Uses:
    """Returns the valid jobs that read from a database connection, and their runs that have not ended."""
    return _uses(ledger, [job for job in load_jobs(workspace)[0] if job.connection == name])


def uses_of_cluster(workspace: Workspace, ledger: Ledger, key: str, connections: Connections) -> Uses:
    """Returns the valid jobs that send to the cluster under that key of `kafka_connections`."""
    found = []
    for job in load_jobs(workspace)[0]:
        with suppress(ConfigError):  # its connection does not exist any more: it sends nowhere
            if job.export_format == "kafka" and connections.cluster_key_for(job) == key:
                found.append(job)
    return _uses(ledger, found)


def uses_of_registry(
    workspace: Workspace, ledger: Ledger, key: str | None, own: Collection[str], connections: Connections
) -> Uses:
    """Returns the valid jobs whose messages have a schema in that registry.

    Args:
        workspace: Has the jobs.
        ledger: Knows their runs.
        key: Of the cluster that the registry belongs to; None: the registry of every cluster without one of its own.
        own: The keys of the clusters that have one of their own.
        connections: Say to which cluster a job sends.
    """
    found = []
    for job in load_jobs(workspace)[0]:
        with suppress(ConfigError):  # its connection does not exist any more: it sends nowhere
            cluster = connections.cluster_key_for(job)
            if job.needs_registry and (cluster if cluster in own else None) == key:
                found.append(job)
    return _uses(ledger, found)


def _uses(ledger: Ledger, jobs: Iterable[Job]) -> Uses:
    found = tuple(jobs)
    slugs = {job.slug for job in found}
    states = Counter(run.state for run in ledger.scheduled_runs.unfinished() if run.job in slugs)
    asked = sum(request.job in slugs for request in ledger.requests.waiting())
    return Uses(found, states["planned"] + asked, states["running"])
