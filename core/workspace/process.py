"""The processes of this program: starts one, and identifies one by its pid and its start time, since a pid is used again."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import psutil

__all__ = ["DAY_PRIORITY", "LOW_PRIORITY", "begin_process", "is_running", "last_line"]

LOW_PRIORITY: int = psutil.BELOW_NORMAL_PRIORITY_CLASS if sys.platform == "win32" else 5
"""Not lower: the process holds metrics.duckdb while it copies, and with nice 10 a busy machine would give it a tenth of a
processor, so that readers waited."""
DAY_PRIORITY: int = psutil.BELOW_NORMAL_PRIORITY_CLASS if sys.platform == "win32" else 15
"""Of days of backfills. With 5 a scheduled run beside two of them on two cores began up to 2.7 s late."""

START_TIME_TOLERANCE_S = 2.0
"""The start time of a process is rounded differently from one reading to the next."""
TAIL_BYTES = 2_000


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


def begin_process(
    words: Sequence[str],
    *,
    priority: int | None = None,
    environ: Mapping[str, str] | None = None,
    module: str = "core",
    **streams: Any,
) -> subprocess.Popen[bytes]:
    """Starts `python -m core …` of this very program.

    It is in a session (on Windows: a process group) of its own, so that Ctrl-C at a terminal does not reach it.

    Args:
        words: What follows `python -m core`.
        priority: `LOW_PRIORITY` or `DAY_PRIORITY`: other processes go first, where there are not enough processors.
        environ: Its environment; None: that of this process.
        module: What is started in place of `core`.
        streams: stdin, stdout and stderr, as for Popen.

    Raises:
        OSError: The system cannot start a process now.
    """
    own_group: dict[str, Any] = {"start_new_session": True}
    if sys.platform == "win32":
        own_group = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW}
    package_parent = str(Path(__file__).resolve().parents[2])
    given = os.environ if environ is None else environ
    known = given.get("PYTHONPATH")
    environ = {**given, "PYTHONPATH": f"{package_parent}{os.pathsep}{known}" if known else package_parent}
    process = subprocess.Popen([sys.executable, "-m", module, *words], env=environ, **streams, **own_group)  # noqa: S603 - ourselves
    if priority is not None:
        with suppress(psutil.Error, OSError):  # it has ended, or the system does not allow it
            psutil.Process(process.pid).nice(priority)
    return process


def last_line(output: IO[bytes], since: int | None = None) -> str:
    """Returns the last line with text that a process wrote into a file; empty if there is none.

    Args:
        output: The file.
        since: The byte from which to read; None: the last 2,000 bytes are read.
    """
    if since is None:
        since = max(output.seek(0, os.SEEK_END) - TAIL_BYTES, 0)
    output.seek(since)
    lines = output.read().decode("utf-8", "replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
