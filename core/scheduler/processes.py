"""Starts, polls and kills the processes in which runs happen."""

from __future__ import annotations

import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Protocol

import psutil

from core.scheduler.day_processes import DayProcesses
from core.workspace.process import DAY_PRIORITY, begin_process, is_running, last_line

__all__ = ["BUSY", "Processes", "Worker", "Workers", "kill_process"]


class Worker(Protocol):
    """The process of one scheduled run."""

    def poll(self) -> int | None:
        """Returns its exit code; None while it runs."""
        ...

    def kill(self) -> None:
        """Ends it at once; nothing happens to one that has ended."""
        ...

    def last_words(self) -> str:
        """Returns the last line that it wrote to stderr; empty if there is none."""
        ...


class Workers(Protocol):
    """Starts the processes of scheduled runs."""

    def warm(self, count: int) -> None:
        """Starts up to `count` spare processes for scheduled runs that come soon; may do nothing."""
        ...

    def cool(self) -> None:
        """Ends the spare processes that were not used."""
        ...

    def start(self, scheduled_run_id: int) -> Worker:
        """Starts the process of a scheduled run and returns at once.

        Raises:
            OSError: The system cannot start a process now.
        """
        ...

    def start_day(self, scheduled_run_id: int) -> Worker:
        """Starts a run of a backfill, in a process of low priority that may have run others, and returns at once.

        Raises:
            OSError: The system cannot start a process now.
        """
        ...

    def release_days(self) -> None:
        """Ends the processes of backfills that have nothing to do."""
        ...


def kill_process(pid: int, started_at: float) -> None:
    """Kills a process of an earlier runner, unless its pid belongs to another process by now.

    Args:
        pid: Its number.
        started_at: Unix time.
    """
    if is_running(pid, started_at):
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            psutil.Process(pid).kill()


class Processes:
    """Runs each scheduled run in a process `python -m core work ID`, days of backfills in `python -m core work --many`.

    Ctrl-C at the runner's terminal reaches only the runner, which then asks its runs to end.

    Args:
        workspace: The workspace's folder.
    """

    def __init__(self, workspace: Path) -> None:
        self._workspace = workspace
        self._spares: list[_Process] = []
        self._days = DayProcesses(self._begin_days)

    def warm(self, count: int) -> None:
        """Starts processes that load the program and then wait for their scheduled run.

        Loading takes 0.65 s of a core, so that the first row of a job alone would be sent 0.6 s later, on a busy machine
        1.8 s (docs/decisions/003-calendar-and-runner.md).
        """
        self._spares = [spare for spare in self._spares if spare.poll() is None]
        for _ in range(count - len(self._spares)):
            self._spares.append(self._begin("--wait"))

    def cool(self) -> None:
        """See `Workers`."""
        for spare in self._spares:
            spare.dismiss()
        self._spares = [spare for spare in self._spares if spare.poll() is None]

    def start_day(self, scheduled_run_id: int) -> Worker:
        """See `Workers`."""
        return self._days.start(scheduled_run_id, tempfile.TemporaryFile())

    def release_days(self) -> None:
        """See `Workers`."""
        self._days.release()

    def start(self, scheduled_run_id: int) -> Worker:
        """See `Workers`."""
        while self._spares:
            spare = self._spares.pop(0)
            if spare.assign(scheduled_run_id):
                return spare
        return self._begin(str(scheduled_run_id))

    def _begin_days(self, output: IO[bytes]) -> subprocess.Popen[bytes]:
        return begin_process(
            ["work", "--many", "--workspace", str(self._workspace)],
            priority=DAY_PRIORITY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=output,
        )

    def _begin(self, what: str) -> _Process:
        output = tempfile.TemporaryFile()
        process = begin_process(
            ["work", what, "--workspace", str(self._workspace)],
            stdin=subprocess.PIPE,  # closed by the system if we are killed, which ends one that waits
            stdout=subprocess.DEVNULL,
            stderr=output,
        )
        return _Process(process, output)


class _Process:
    """One child process."""

    def __init__(self, process: subprocess.Popen[bytes], output: Any) -> None:
        self._process = process
        # It was asked for as a pipe, so it is there.
        self._stdin: IO[bytes] = process.stdin  # type: ignore[assignment]
        self._output = output
        self._words: str | None = None

    def assign(self, scheduled_run_id: int) -> bool:
        """Assigns a scheduled run to an idle process. Returns False if the process has exited."""
        try:
            self._stdin.write(f"{scheduled_run_id}\n".encode())
            self._stdin.close()
        except OSError:
            self._leave()
            return False
        return True

    def dismiss(self) -> None:
        """Ends an idle process."""
        with suppress(OSError):
            self._stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(2)
        self._leave()

    def _leave(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self.last_words()

    def poll(self) -> int | None:
        return self._process.poll()

    def kill(self) -> None:
        self._process.kill()

    def last_words(self) -> str:
        if self._words is not None:
            return self._words
        with suppress(OSError):
            self._stdin.close()
        self._words = last_line(self._output)
        self._output.close()
        return self._words


BUSY = 75
"""Exit code: the job is running in another process; EX_TEMPFAIL of sysexits.h."""
