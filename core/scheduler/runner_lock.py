"""Holds the lock that allows one runner per workspace."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from core.errors import RunnerBusy
from core.workspace.locks import locked
from core.workspace.process import is_running

if TYPE_CHECKING:
    from core.records.ledger import Ledger
    from core.workspace.paths import Workspace

__all__ = ["single_runner"]


@contextmanager
def single_runner(workspace: Workspace, ledger: Ledger) -> Iterator[None]:
    """Holds the runner's lock of a workspace.

    Raises:
        RunnerBusy: Another runner holds it; the text says which process, on which host, since when.
        StorageFailed: The lock file cannot be written.
    """

    def busy() -> RunnerBusy:
        return RunnerBusy(
            f"a runner works in {workspace.root} already",
            why=_holder(ledger),
            remedy="python -m core runner --stop ends it; one runner does the work of all jobs",
        )

    with locked(workspace.state_dir / "runner.lock", busy):
        yield


def _holder(ledger: Ledger) -> str:
    """Returns who holds the lock, in words; waits up to 5 s for the first heartbeat of a runner that has just started."""
    for _ in range(50):
        status = ledger.heartbeats.newest()
        if (
            status is not None
            and status.state != "stopped"
            and (status.host != platform.node() or is_running(status.pid, status.pid_started_at))
        ):
            return f"pid {status.pid} on {status.host}, since {status.started_at:%Y-%m-%d %H:%M:%S} UTC"
        time.sleep(0.1)
    return "it does not say which process it is"
