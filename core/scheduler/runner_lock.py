"""Holds the lock that allows one runner per workspace."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psutil
from filelock import FileLock, Timeout

from core.errors import RunnerBusy, StorageFailed

if TYPE_CHECKING:
    from core.records.agenda import Agenda, RunnerStatus
    from core.workspace.paths import Workspace

__all__ = ["single_runner"]


@contextmanager
def single_runner(workspace: Workspace, agenda: Agenda) -> Iterator[None]:
    """Holds the runner's lock of a workspace.

    Raises:
        RunnerBusy: Another runner holds it; the text says which process, on which host, since when.
        StorageFailed: The lock file cannot be written.
    """
    try:
        with FileLock(workspace.state_dir / "runner.lock", timeout=0):
            yield
    except Timeout:
        raise RunnerBusy(
            f"a runner works in {workspace.root} already",
            why=_holder(agenda),
            remedy="python -m core runner --stop ends it; one runner does the work of all jobs",
        ) from None
    except OSError as error:
        raise StorageFailed(f"{workspace.state_dir} cannot be written", why=error.strerror or str(error)) from None


def _holder(agenda: Agenda) -> str:
    """Returns who holds the lock, in words; waits up to 5 s for the first heartbeat of a runner that has just started."""
    for _ in range(50):
        status = agenda.runner()
        if status is not None and status.state != "stopped" and (status.host != platform.node() or _is_running(status)):
            return f"pid {status.pid} on {status.host}, since {status.started_at:%Y-%m-%d %H:%M:%S} UTC"
        time.sleep(0.1)
    return "it does not say which process it is"


def _is_running(status: RunnerStatus) -> bool:
    try:
        started_at: float = psutil.Process(status.pid).create_time()
        return abs(started_at - status.pid_started_at) < 2
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True
