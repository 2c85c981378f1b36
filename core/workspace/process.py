"""Identifies a process on this machine by its pid and its start time, since a pid is used again."""

from __future__ import annotations

import psutil

__all__ = ["is_running"]

START_TIME_TOLERANCE_S = 2.0
"""The start time of a process is rounded differently from one reading to the next."""


def is_running(pid: int, started_at: float) -> bool:
    """Returns whether the process with this pid and this start time still runs.

    True if the system denies access to it: it may be a service of another account.

    Args:
        pid: Process id on this machine.
        started_at: Start time in Unix seconds, as `psutil.Process.create_time` reports it.
    """
    try:
        found: float = psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True
    return abs(found - started_at) < START_TIME_TOLERANCE_S
