"""Copies new sends from the spool into metrics.duckdb; a failure there is logged and changes no verdict.

While a runner works, its own process for that does it (`core.scheduler.metrics_copies`): a run then neither imports
duckdb nor waits for the copy.
"""

from __future__ import annotations

import ctypes
import platform
import sys
import time
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING

from loguru import logger

from core.errors import PsttError
from core.records.ledger import Ledger
from core.records.opened import OpenWorkspace
from core.workspace.process import is_running

if TYPE_CHECKING:
    from core.records.metrics import Metrics

__all__ = ["copy_waiting", "update_metrics"]

AT_ONCE = 10
"""Segments copied in one opening of the file: half a million sends, 1 s. Twice as many would save 8 % of the processor time,
half as many cost 70 %, since each opening ends in a checkpoint."""
PAUSE_S = 0.1
"""Between two openings; a reader that waits checks twice as often whether the file is free."""
HELD_S = 3.0
"""How long to wait at least for a reader that has opened the file in a pause."""


def update_metrics(opened: OpenWorkspace, now: datetime) -> None:
    """Copies the spool and rolls up old sends, unless a runner works in this workspace, which does it soon; logs what prevents it."""
    if not _runner_works(opened.ledger, now):
        _give_memory_back()
        from core.records.retention import roll_up_daily  # loads duckdb

        if copy_waiting(opened.metrics):
            roll_up_daily(opened.metrics, opened.workspace, opened.settings, now)


def _give_memory_back() -> None:
    """Returns what the run has freed to the system: glibc keeps 7 MB of it, and what DuckDB takes comes on top."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # another C library
            ctypes.CDLL(None).malloc_trim(0)


def copy_waiting(metrics: Metrics, wait_s: float = 0.0) -> bool:
    """Copies all segments that wait, in several openings with pauses, so that readers get their turn.

    Args:
        metrics: The metrics of the workspace.
        wait_s: How long to wait where another program holds the file; at least 3 s once something is copied.

    Returns:
        Whether all of them are copied; else the log has the reason.
    """
    deadline = time.monotonic() + wait_s
    while True:
        try:
            synced = metrics.sync(AT_ONCE)
        except (PsttError, OSError) as error:
            logger.warning("metrics.duckdb was not updated: {}", error)
            return False
        if synced.state == "rebuilt":
            logger.warning(synced.note)
        if synced.state != "held":
            if not synced.left or not synced.segments:
                return not synced.left
            deadline = time.monotonic() + max(HELD_S, wait_s)
        elif time.monotonic() >= deadline:
            logger.info(synced.note)
            return False
        time.sleep(PAUSE_S)


def _runner_works(ledger: Ledger, now: datetime) -> bool:
    """Returns whether a runner works here that will copy; one that is stopping may have copied for the last time."""
    status = ledger.heartbeats.newest()
    if status is None or status.state != "working" or not status.is_alive(now):
        return False
    return status.host != platform.node() or is_running(status.pid, status.pid_started_at)
