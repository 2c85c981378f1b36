"""Processes that run many days of backfills, one after the other.

Loading the program takes 0.65 s of a core, more than a short day itself. So a process gets the numbers of its scheduled
runs one by one at its stdin, and reports the end of each at its stdout: `ended NUMBER CODE`. It ends when its stdin is
closed, which the system does if the runner is killed; the run in progress goes on to its verdict before that.
"""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import IO, Any

from core.workspace.process import last_line

__all__ = ["Day", "DayProcesses"]

MOST_RUNS = 50
"""Runs of one process: what a driver or client does not give back is given back then."""
REPORT_WITHIN_S = 2.0
"""How long the last report of a process that has ended may take to be read."""


class DayProcesses:
    """The processes of one runner that run days of backfills.

    Args:
        begin: Starts a process with low priority and pipes at stdin and stdout.
    """

    def __init__(self, begin: Callable[[IO[bytes]], subprocess.Popen[bytes]]) -> None:
        self._begin = begin
        self._idle: list[_DayProcess] = []

    def start(self, scheduled_run_id: int, output: IO[bytes]) -> Day:
        """Assigns a scheduled run to an idle process, or to a new one.

        Args:
            scheduled_run_id: The scheduled run.
            output: Where a new process writes stderr; closed if there is no need for it.

        Raises:
            OSError: The system cannot start a process now.
        """
        while self._idle:
            idle = self._idle.pop()
            if idle.runs < MOST_RUNS and idle.assign(scheduled_run_id):
                output.close()
                return Day(idle, scheduled_run_id, self._idle.append)
            idle.end()
        made = _DayProcess(self._begin(output), output)
        made.assign(scheduled_run_id)  # if it has ended at once, `poll` reports that
        return Day(made, scheduled_run_id, self._idle.append)

    def release(self) -> None:
        """Ends the idle processes."""
        while self._idle:
            self._idle.pop().end()


class _DayProcess:
    """One process."""

    def __init__(self, process: subprocess.Popen[bytes], output: IO[bytes]) -> None:
        self.runs = 0
        self.ended: dict[int, int] = {}
        """Scheduled run → exit code."""
        self._process = process
        # They were asked for as pipes, so they are there.
        self._stdin: IO[bytes] = process.stdin  # type: ignore[assignment]
        self._stdout: IO[bytes] = process.stdout  # type: ignore[assignment]
        self._output = output
        self._begin_of_output = 0
        self._reader = threading.Thread(target=self._read, name="days of a backfill", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self._stdout:
            words = line.split()
            if len(words) == 3 and words[0] == b"ended":  # a library may write something else
                self.ended[int(words[1])] = int(words[2])
        self._stdout.close()

    def assign(self, scheduled_run_id: int) -> bool:
        """Returns False if the process has ended."""
        self.runs += 1
        with suppress(ValueError, OSError):
            self._begin_of_output = self._output.seek(0, os.SEEK_END)
        try:
            self._stdin.write(f"{scheduled_run_id}\n".encode())
            self._stdin.flush()
        except OSError:
            return False
        return self._process.poll() is None

    def poll(self, scheduled_run_id: int) -> int | None:
        """Returns how the run ended; None while it goes on."""
        code = self._process.poll()
        if code is not None and scheduled_run_id not in self.ended:
            self._reader.join(REPORT_WITHIN_S)
            self.ended.setdefault(scheduled_run_id, code or 1)  # it left without a report
        return self.ended.get(scheduled_run_id)

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        self._process.kill()

    def end(self) -> None:
        """Ends an idle process, or what is left of one that has ended."""
        with suppress(OSError):
            self._stdin.close()
        if self._process.poll() is None:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(2)
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._output.close()

    def last_line(self) -> str:
        """Returns the last line that the run in progress wrote to stderr; empty if there is none."""
        return "" if self._output.closed else last_line(self._output, self._begin_of_output)


class Day:
    """One scheduled run in a process that runs several; see `core.scheduler.processes.Worker`."""

    def __init__(self, process: _DayProcess, scheduled_run_id: int, give_back: Callable[[_DayProcess], Any]) -> None:
        self._process = process
        self._scheduled_run_id = scheduled_run_id
        self._give_back = give_back
        self._code: int | None = None
        self._words = ""

    def poll(self) -> int | None:
        """Returns the exit code of the run; None while it goes on."""
        if self._code is None and (code := self._process.poll(self._scheduled_run_id)) is not None:
            self._code, self._words = code, self._process.last_line()
            if self._process.is_alive():
                self._give_back(self._process)
            else:
                self._process.end()
        return self._code

    def kill(self) -> None:
        """Ends the process, unless the run has ended."""
        if self._code is None:  # else the process may have another run
            self._process.kill()

    def last_words(self) -> str:
        """Returns the last line that the run wrote to stderr; empty if there is none."""
        return self._words
