"""Runs parts of a run in a process of their own: what `python -m core part` does for the process of the run.

Each line of stdin is a task, or `cancel`; each line of stdout is an event. The process ends when its stdin ends.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
from typing import IO

import msgspec
import typer
from loguru import logger

from core.app import App
from core.cli.options import WorkspaceOption
from core.errors import PsttError, RunCancelled
from core.run.cancellation import Stop
from core.run.parts import PartError, PartProgress, PartResult, PartTask, encode

__all__ = ["app"]

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(hidden=True)
def part(workspace: WorkspaceOption = None) -> None:
    """Runs parts of a run; the process of the run starts it."""
    events = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints is no event
    with App.open(workspace) as opened:
        inbox = _Inbox(sys.stdin.buffer)
        while (line := inbox.next()) is not None:
            events.write(_run(line, opened, inbox, events) + b"\n")
            events.flush()
            inbox.done()


def _run(line: bytes, opened: App, inbox: _Inbox, events: IO[bytes]) -> bytes:
    """Runs one task; returns its result as a line."""
    from core.run.part import PartSettings, run_part  # loads pyarrow

    def report(progress: PartProgress) -> None:
        events.write(encode(progress) + b"\n")
        events.flush()

    task = msgspec.json.decode(line, type=PartTask)
    before_commit = inbox.wait_until_stored if task.confirm else lambda: None
    settings = PartSettings(worker=f"process {os.getpid()}", before_commit=before_commit)
    try:
        return encode(run_part(task, opened, stop=inbox.stop, report=report, settings=settings))
    except Exception as error:  # noqa: BLE001 - the run has to know it; a repeated part would meet it again
        name = type(error).__name__
        logger.opt(exception=error).error("unexpected {} in part {} of run {}", name, task.index, task.run_id)
        defect = PsttError(f"unexpected {name}", remedy="this is a defect of PSTT Kafka: report it")
        return encode(PartResult(index=task.index, attempt=task.attempt, error=PartError.of(defect)))


class _Inbox:
    """Reads stdin in a thread, so that a cancel is seen while a part runs."""

    def __init__(self, stdin: IO[bytes]) -> None:
        self.stop = Stop()
        self._stored = threading.Event()
        self._tasks: queue.Queue[bytes | None] = queue.Queue()
        threading.Thread(target=self._read, args=(stdin,), name="pstt-stdin", daemon=True).start()

    def next(self) -> bytes | None:
        """Waits for a task; None: there is no further one."""
        return self._tasks.get()

    def wait_until_stored(self) -> None:
        """Waits for `stored`. Raises the reason of the stop if the part is cancelled meanwhile."""
        while not self._stored.wait(0.2):
            if self.stop.is_set():
                raise self.stop.error or RunCancelled("the run was cancelled")
        self._stored.clear()

    def done(self) -> None:
        """Records that the task was run and its result written."""
        self._tasks.task_done()

    def _read(self, stdin: IO[bytes]) -> None:
        for line in stdin:
            if line.strip() == b"cancel":
                self.stop.set(RunCancelled("the run was cancelled"))
            elif line.strip() == b"stored":
                self._stored.set()
            else:
                self._tasks.put(line)
        if self._tasks.unfinished_tasks:
            # The process of the run is gone. What it would do with a result is left to the next run, as after a kill.
            os._exit(1)
        self._tasks.put(None)
