"""The processes of parts on a Dask worker: kept for the next part of the same run, since each start costs a second of a core."""

from __future__ import annotations

import tempfile
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from core.run.local_parts import LocalProcesses
from core.workspace.paths import Workspace

__all__ = ["KeptProcesses", "WorkerProcess"]

IDLE_S = 60.0
"""How long a process waits for the next part of its run. The coordinator ends it sooner, unless that was killed."""


@dataclass(slots=True, eq=False)
class WorkerProcess:
    """One process and the scratch workspace in which it works."""

    folder: tempfile.TemporaryDirectory[str]
    scratch: Workspace
    local: LocalProcesses

    def write_files(self, files: dict[str, bytes]) -> None:
        """Writes files of the workspace that a part needs."""
        for name, content in files.items():
            file = self.scratch.inside(name)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)

    def clear(self, folder: Path) -> None:
        """Deletes what a part has written, once it is returned."""
        with suppress(OSError):  # it is deleted with the scratch workspace
            for file in folder.iterdir():
                file.unlink()

    def close(self) -> None:
        """Ends the process and deletes its scratch workspace."""
        self.local.close()
        self.folder.cleanup()


class KeptProcesses:
    """The idle processes of one worker, by run. Any thread may call."""

    def __init__(self, idle_s: float = IDLE_S) -> None:
        self._idle_s = idle_s
        self._lock = threading.Lock()
        self._idle: dict[WorkerProcess, tuple[str, threading.Timer]] = {}

    def take(self, run: str) -> WorkerProcess | None:
        """Returns an idle process of this run, which the caller keeps again or closes; None: there is none."""
        with self._lock:
            found = next((process for process, (of, _) in self._idle.items() if of == run), None)
            if found is not None:
                self._idle.pop(found)[1].cancel()
        return found

    def keep(self, run: str, process: WorkerProcess) -> None:
        """Keeps an idle process for the next part of this run, for a minute."""
        timer = threading.Timer(self._idle_s, self._end, [process])
        timer.daemon = True
        with self._lock:
            self._idle[process] = (run, timer)
        timer.start()

    def release(self, run: str) -> None:
        """Ends the idle processes of this run."""
        while (process := self.take(run)) is not None:
            process.close()

    def _end(self, process: WorkerProcess) -> None:
        with self._lock:
            if self._idle.pop(process, None) is None:  # it was taken just now
                return
        process.close()
