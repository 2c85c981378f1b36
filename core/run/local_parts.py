"""Runs parts in processes on this machine: `python -m core part`, with tasks on stdin and events on stdout, a line each.

A process runs one part after the other. It ends when its stdin is closed, which the system does if the coordinator dies.
"""

from __future__ import annotations

import os
import queue
import subprocess
import tempfile
import threading
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO

import msgspec

from core.errors import RunCancelled, StorageFailed
from core.run.parts import PartError, PartEvent, PartLost, PartResult, PartTask, decode_event, encode
from core.workspace.process import begin_process, last_line

__all__ = ["CANCEL_LINE", "STORED_LINE", "LocalProcesses", "default_processes"]

CANCEL_LINE = b"cancel\n"
STORED_LINE = b"stored\n"
END_S = 5.0
"""How long an idle process may take to end."""


def default_processes() -> int:
    """Returns how many processors this process may use."""
    with suppress(AttributeError):  # not on Windows and macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class LocalProcesses:
    """A `core.run.parts.PartExecutor` of processes on this machine.

    Args:
        workspace: The workspace's folder.
        processes: The most processes at once; further parts wait.
        environ: The environment of the processes; None: that of this process.
        module: What runs as `python -m MODULE part`.
    """

    def __init__(
        self, workspace: Path, processes: int, *, environ: Mapping[str, str] | None = None, module: str = "core"
    ) -> None:
        self._workspace = workspace
        self._environ = environ
        self._module = module
        self._most = processes
        self._waiting: deque[PartTask] = deque()
        self._processes: list[_Process] = []
        self._events: queue.Queue[tuple[_Process, bytes]] = queue.Queue()
        self._kill_at: float | None = None
        self._ready: list[PartEvent] = []

    def prepare(self, task: PartTask, parts: int) -> None:
        """See `core.run.parts.PartExecutor`: starts the processes, so that they load their modules meanwhile."""
        while len(self._processes) < min(self._most, parts):
            self._add()

    def start(self, task: PartTask) -> None:
        """See `core.run.parts.PartExecutor`."""
        self._waiting.append(task)
        self._assign()

    def events(self, timeout_s: float) -> list[PartEvent]:
        """See `core.run.parts.PartExecutor`."""
        if not self._ready:
            self._collect(timeout_s)
        if self._kill_at is not None and time.monotonic() >= self._kill_at:
            for process in self._processes:
                process.kill()
            self._kill_at = None
        ready, self._ready = self._ready, []
        return ready

    def cancel(self, within_s: float) -> None:
        """See `core.run.parts.PartExecutor`."""
        error = PartError.of(RunCancelled("the run was cancelled", why="before this part began"))
        self._ready += [PartResult(index=task.index, attempt=task.attempt, error=error) for task in self._waiting]
        self._waiting.clear()
        for process in self._processes:
            process.send(CANCEL_LINE)
        self._kill_at = time.monotonic() + within_s

    def confirm(self) -> None:
        """Lets parts commit that wait for it (`PartTask.confirm`)."""
        for process in self._processes:
            process.send(STORED_LINE)

    def close(self) -> None:
        """See `core.run.parts.PartExecutor`."""
        self._waiting.clear()
        for process in self._processes:  # all of them at once, then wait
            process.close_stdin()
        for process in self._processes:
            process.end(0 if process.task or not process.is_used else END_S)
        self._processes.clear()

    def _collect(self, timeout_s: float) -> None:
        """Waits for the first line of any process, and takes those that are there already."""
        try:
            self._take(*self._events.get(timeout=timeout_s))
            while True:
                self._take(*self._events.get_nowait())
        except queue.Empty:
            return

    def _take(self, process: _Process, line: bytes) -> None:
        """Takes a line of a process; an empty one is its end."""
        task = process.task
        if not line:
            why = process.end(END_S)
            self._processes.remove(process)
            if task is not None:
                self._ready.append(PartLost(task.index, task.attempt, why, process.name))
            self._assign()
            return
        with suppress(msgspec.DecodeError):  # cut off in the middle: the end of the process follows
            event = decode_event(line)
            self._ready.append(event)
            if isinstance(event, PartResult):
                process.task = None
                self._assign()

    def _assign(self) -> None:
        """Gives waiting parts to idle processes, and starts further ones."""
        while self._waiting and self._kill_at is None:
            idle = next((process for process in self._processes if process.task is None), None)
            if idle is None:
                if len(self._processes) >= self._most:
                    return
                idle = self._add()
            idle.run(self._waiting.popleft())

    def _add(self) -> _Process:
        process = _Process(self._workspace, self._events, self._environ, self._module)
        self._processes.append(process)
        return process


class _Process:
    """One child process."""

    def __init__(
        self,
        workspace: Path,
        events: queue.Queue[tuple[_Process, bytes]],
        environ: Mapping[str, str] | None,
        module: str,
    ) -> None:
        self.task: PartTask | None = None
        self.is_used = False
        """Whether it was given a part."""
        self._words = tempfile.TemporaryFile()
        try:
            self._child = begin_process(
                ["part", "--workspace", str(workspace)],
                environ=environ,
                module=module,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._words,
            )
        except OSError as error:
            self._words.close()
            raise StorageFailed(
                "the process of a part cannot be started",
                why=error.strerror or str(error),
                remedy="free memory, or lower PSTT_RUN_PROCESSES",
            ) from None
        self.name = f"process {self._child.pid}"
        # Both were asked for as pipes, so they are there.
        self._stdin: IO[bytes] = self._child.stdin  # type: ignore[assignment]
        self._stdout: IO[bytes] = self._child.stdout  # type: ignore[assignment]
        self._reader = threading.Thread(target=self._read, args=(events,), name=self.name, daemon=True)
        self._reader.start()

    def _read(self, events: queue.Queue[tuple[_Process, bytes]]) -> None:
        with suppress(OSError, ValueError):
            for line in self._stdout:
                events.put((self, line))
        events.put((self, b""))

    def run(self, task: PartTask) -> None:
        """Gives it a part."""
        self.task, self.is_used = task, True
        self.send(encode(task) + b"\n")

    def send(self, line: bytes) -> None:
        """Writes a line to its stdin; the end of a process that has ended is an event."""
        with suppress(OSError, ValueError):
            self._stdin.write(line)
            self._stdin.flush()

    def kill(self) -> None:
        """Ends it at once; its end is an event."""
        self._child.kill()

    def close_stdin(self) -> None:
        """Ends its input, upon which it ends."""
        with suppress(OSError):
            self._stdin.close()

    def end(self, within_s: float) -> str:
        """Ends it, by force after this time in seconds; returns how it ended."""
        self.close_stdin()
        with suppress(subprocess.TimeoutExpired):
            self._child.wait(within_s)
        self._child.kill()
        code = self._child.wait()
        self._reader.join(END_S)
        self._stdout.close()
        how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
        words = last_line(self._words)
        self._words.close()
        return f"{self.name} {how}" + (f": {words}" if words else "")
