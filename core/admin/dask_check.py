"""What `doctor` reports about the Dask cluster of DASK_SCHEDULER_ADDRESS."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing

from core.admin.server_checks import guarded
from core.model.check_result import CheckResult
from core.run.dask_cluster import Examined, connect, examine_workers, other_version
from core.version import __version__
from core.workspace.settings import Settings

__all__ = ["check_dask"]

SUBJECT = "dask"


def check_dask(settings: Settings, variables: Mapping[str, str]) -> Iterator[CheckResult]:
    """Connects to the scheduler and asks each worker for its version. Yields nothing if no address is set.

    Args:
        settings: The address.
        variables: Environment and `.env`, for Dask's own settings.
    """
    address = settings.DASK_SCHEDULER_ADDRESS
    if address:
        yield from guarded(SUBJECT, lambda: _check(address, variables))


def _check(address: str, variables: Mapping[str, str]) -> Iterator[CheckResult]:
    with closing(connect(address, variables)) as client:
        workers = examine_workers(client, b"")
    if not workers:
        yield CheckResult(
            "fail", SUBJECT, f"the scheduler {address} has no worker", "start at least one with `dask worker`"
        )
        return
    yield CheckResult("pass", SUBJECT, _summary(address, workers))
    for worker in workers:
        if worker.problem:
            yield CheckResult("fail", SUBJECT, worker.problem.error.text, worker.problem.remedy)
        elif worker.version != __version__:
            error = other_version(worker)
            yield CheckResult("fail", SUBJECT, error.text, error.remedy)


def _summary(address: str, workers: list[Examined]) -> str:
    count = "1 worker" if len(workers) == 1 else f"{len(workers):,} workers"
    hosts = len({worker.host for worker in workers})
    versions = Counter(worker.version or "none" for worker in workers)
    text = ", ".join(f"{version} on {number:,}" for version, number in sorted(versions.items()))
    places = "1 host" if hosts == 1 else f"{hosts:,} hosts"
    threads = sum(worker.threads for worker in workers)
    return f"{address}: {count} on {places}, {threads:,} {'part' if threads == 1 else 'parts'} at once; version {text}"
