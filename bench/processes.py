"""Measures a program as its user sees it: a process of its own, from its start to its end."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

POLL_S = 0.05
"""Between two looks at a process and at its topic: 0.5 % of a run of ten seconds."""


@dataclass
class Usage:
    """What a process has used."""

    cpu_s: float = 0
    """User and system time."""
    peak_mb: float = 0
    """The largest resident memory, in 10⁶ bytes."""

    def update(self, process: psutil.Process) -> None:
        """Reads both again; a process that has just ended keeps what was read last."""
        try:
            self.cpu_s = cpu_of(process)
            self.peak_mb = max(self.peak_mb, _resident_peak_mb(process))
        except (psutil.NoSuchProcess, ProcessLookupError):
            pass


def cpu_of(process: psutil.Process) -> float:
    """Returns the seconds of processor time, user and system, that a process has used."""
    times = process.cpu_times()
    return times.user + times.system


def _resident_peak_mb(process: psutil.Process) -> float:
    """The operating system's own maximum where it keeps one, else the memory of this moment."""
    memory = process.memory_info()
    if hasattr(memory, "peak_wset"):
        return memory.peak_wset / 1e6
    if sys.platform == "linux":
        for entry in Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8").splitlines():
            if entry.startswith("VmHWM"):
                return int(entry.split()[1]) * 1024 / 1e6
    return memory.rss / 1e6


@dataclass(frozen=True)
class Ended:
    """A process that has ended."""

    code: int
    output: str
    errors: str
    seconds: float
    """From its start to its end."""
    started_at: float
    """In seconds since 1970."""
    usage: Usage


def run_measured(
    command: Sequence[str], *, cwd: Path, env: Mapping[str, str], poll: Callable[[], object] = lambda: None
) -> Ended:
    """Runs a command to its end.

    Args:
        command: The program and its arguments.
        cwd: Where it runs.
        env: Its environment.
        poll: Called every POLL_S while it runs.
    """
    before, usage = cpu_of_children(), Usage()
    with tempfile.TemporaryFile("w+b") as output, tempfile.TemporaryFile("w+b") as errors:
        started, started_at = time.perf_counter(), time.time()
        child = subprocess.Popen(command, cwd=cwd, env=dict(env), stdout=output, stderr=errors)
        process = psutil.Process(child.pid)
        try:
            while not _ended(child):
                usage.update(process)
                poll()
        finally:
            if child.poll() is None:
                child.kill()
                child.wait()
        seconds = time.perf_counter() - started
        poll()
        for file in (output, errors):
            file.seek(0)
        texts = [file.read().decode("utf-8", "replace") for file in (output, errors)]
    if before is not None:
        usage.cpu_s = (cpu_of_children() or 0) - before
    return Ended(child.returncode, texts[0], texts[1], seconds, started_at, usage)


def _ended(child: subprocess.Popen[bytes]) -> bool:
    """Waits for the end for POLL_S, so that it is seen at once and not at the next look."""
    try:
        child.wait(POLL_S)
    except subprocess.TimeoutExpired:
        return False
    return True


def cpu_of_children() -> float | None:
    """What all children that have ended have used, exactly, to their ends; None where the system does not count it."""
    if sys.platform == "win32":
        return None
    import resource

    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
