"""What `doctor` and `health` report about an opened workspace: its parts are given to the checks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime

from core.admin.dask_check import check_dask
from core.admin.doctor import examine
from core.admin.health import health
from core.admin.server_checks import Servers, check_cluster, check_database
from core.errors import PsttError
from core.model.check_result import CheckResult
from core.model.job import Job
from core.notify.wiring import NotifyingWorkspace, mail_checks
from core.records.opened import OpenWorkspace
from core.run.planning import unusable_jobs
from core.workspace.jobs import load_jobs

__all__ = ["diagnose", "diagnose_cluster", "diagnose_database", "workspace_health"]


def diagnose(opened: NotifyingWorkspace, now: Callable[[], datetime]) -> Iterator[CheckResult]:
    """Yields what `doctor` finds, result by result."""
    jobs, _broken = load_jobs(opened.workspace)
    yield from examine(opened.workspace, opened.settings, opened.connections, jobs, Servers(now=now))
    yield from check_dask(opened.settings, opened.variables)
    yield from mail_checks(opened, now())


def diagnose_database(opened: OpenWorkspace, name: str) -> Iterator[CheckResult]:
    """Yields what `doctor` finds about one database."""
    return check_database(opened.connections, name, Servers())


def diagnose_cluster(opened: OpenWorkspace, name: str | None) -> Iterator[CheckResult]:
    """Yields what `doctor` finds about one cluster, with the topics that jobs send to.

    Args:
        opened: The workspace.
        name: A key of `kafka_connections`; None: `default_environment`.

    Raises:
        ConfigError: There is no such cluster, or its settings contradict each other.
    """
    cluster = opened.connections.cluster(name, opened.settings)
    wanted: dict[str, Job] = {}
    for job in load_jobs(opened.workspace)[0]:
        if job.export_format == "kafka" and job.kafka_config.enabled:
            try:
                same = opened.connections.cluster_for(job, opened.settings) == cluster
            except PsttError:  # reported by `check`, and by the diagnosis of that cluster
                continue
            if same:
                wanted.setdefault(job.kafka_config.topic or cluster.default_topic, job)
    return check_cluster(cluster, wanted, Servers())


def workspace_health(opened: NotifyingWorkspace, now: datetime) -> Iterator[CheckResult]:
    """Yields what `health` reports, result by result: jobs that cannot run, the runner, each job, open alerts."""
    found, broken = load_jobs(opened.workspace)
    unusable = unusable_jobs(opened, found)
    yield from (
        CheckResult("fail", f"job {slug}", f"cannot run: {unusable[slug].text}", unusable[slug].remedy)
        for slug in (job.slug for job in found if job.enabled)
        if slug in unusable
    )
    yield from health(
        opened.ledger,
        opened.outbox,
        [job for job in found if job.slug not in unusable],
        [error.text for error in broken],
        now,
        opened.settings.PSTT_HEALTH_GRACE_S,
    )
