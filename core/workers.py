"""The processes in which runs happen: started, looked at, killed."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

__all__ = ["Processes", "Worker", "Workers", "kill_process"]

TAIL_BYTES = 2000


class Worker(Protocol):
    """One fire on its way."""

    def poll(self) -> int | None:
        """Its exit code; None while it goes on."""
        ...

    def kill(self) -> None:
        """Ends it at once; nothing happens to one that has ended."""
        ...

    def last_words(self) -> str:
        """What it wrote to stderr last, in one line; empty where it wrote nothing."""
        ...


class Workers(Protocol):
    """Starts fires."""

    def start(self, fire_id: int) -> Worker:
        """Begins that fire and returns at once.

        Raises:
            OSError: The system cannot start a process now.
        """
        ...


def kill_process(pid: int, started_at: float) -> None:
    """Ends a process of an earlier runner; another one that has its pid by now is left alone.

    Args:
        pid: Its number.
        started_at: Unix time.
    """
    import psutil

    with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
        process = psutil.Process(pid)
        if abs(process.create_time() - started_at) < 2:
            process.kill()


class Processes:
    """Each fire in a process `python -m core work FIRE`.

    It is in a session (on Windows: a process group) of its own, so that Ctrl-C at the runner's terminal reaches only
    the runner, which then asks its runs to end.

    Args:
        workspace: The workspace's folder.
    """

    def __init__(self, workspace: Path) -> None:
        self._workspace = workspace
        package_parent = str(Path(__file__).resolve().parents[1])
        known = os.environ.get("PYTHONPATH")
        self._environ = {
            **os.environ,
            "PYTHONPATH": f"{package_parent}{os.pathsep}{known}" if known else package_parent,
        }

    def start(self, fire_id: int) -> Worker:
        """See `Workers`."""
        own_group: dict[str, Any] = {"start_new_session": True}
        if sys.platform == "win32":
            own_group = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW}
        output = tempfile.TemporaryFile()
        process = subprocess.Popen(  # noqa: S603 - ourselves
            [sys.executable, "-m", "core", "work", str(fire_id), "--workspace", str(self._workspace)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=output,
            env=self._environ,
            **own_group,
        )
        return _Process(process, output)


class _Process:
    def __init__(self, process: subprocess.Popen[bytes], output: Any) -> None:
        self._process = process
        self._output = output
        self._words: str | None = None

    def poll(self) -> int | None:
        return self._process.poll()

    def kill(self) -> None:
        self._process.kill()

    def last_words(self) -> str:
        if self._words is not None:
            return self._words
        self._output.seek(0, os.SEEK_END)
        self._output.seek(max(self._output.tell() - TAIL_BYTES, 0))
        lines = self._output.read().decode("utf-8", "replace").split("\n")
        self._output.close()
        self._words = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return self._words
