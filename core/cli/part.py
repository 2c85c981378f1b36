"""Runs parts of a run in a process of their own: what `python -m core part` does for the process of the run.

Each line of stdin is a task, or `cancel`; each line of stdout is an event. The process ends when its stdin ends.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
from contextlib import closing
from dataclasses import replace
from typing import IO, TYPE_CHECKING

import msgspec
import typer

from core.app import App
from core.cli.options import WorkspaceOption
from core.errors import RunCancelled
from core.run.cancellation import Stop
from core.run.kept_publishers import KeptPublishers
from core.run.parts import PartProgress, PartTask, encode

if TYPE_CHECKING:
    from core.run.part import PartSettings

__all__ = ["app"]

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(hidden=True)
def part(workspace: WorkspaceOption = None) -> None:
    """Runs parts of a run; the process of the run starts it."""
    events = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints is no event
    # Loads pyarrow: here, while the coordinator still splits the query, and not with the first task.
    from core.run.part import PartSettings

    with App.open(workspace) as opened, closing(KeptPublishers()) as publishers:
        inbox = _Inbox(sys.stdin.buffer)
        settings = PartSettings(worker=f"process {os.getpid()}", publishers=publishers)
        while (line := inbox.next()) is not None:
            events.write(_run(line, opened, inbox, events, settings) + b"\n")
            events.flush()
            inbox.done()


def _run(line: bytes, opened: App, inbox: _Inbox, events: IO[bytes], settings: PartSettings) -> bytes:
    """Runs one task; returns its result as a line."""
    from core.run.part import run_part  # loads pyarrow

    def report(progress: PartProgress) -> None:
        events.write(encode(progress) + b"\n")
        events.flush()

    task = msgspec.json.decode(line, type=PartTask)
    if task.confirm:
        settings = replace(settings, before_commit=inbox.wait_until_stored)
    return encode(run_part(task, opened, stop=inbox.stop, report=report, settings=settings))


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
