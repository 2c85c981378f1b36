"""The processes in which runs happen: started, looked at, killed."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Protocol

import psutil

from core.workspace.process import is_running

__all__ = ["BUSY", "Processes", "Worker", "Workers", "begin_process", "kill_process"]

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

    def warm(self, count: int) -> None:
        """Fires come soon: so many processes may get ready for them, and none needs to."""
        ...

    def cool(self) -> None:
        """No fire comes soon, or ever again: what was made ready and not used ends."""
        ...

    def start(self, scheduled_run_id: int) -> Worker:
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
    if is_running(pid, started_at):
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            psutil.Process(pid).kill()


def begin_process(words: Sequence[str], **streams: Any) -> subprocess.Popen[bytes]:
    """Starts `python -m core …` of this very program.

    It is in a session (on Windows: a process group) of its own, so that Ctrl-C at a terminal does not reach it.

    Args:
        words: What follows `python -m core`.
        streams: stdin, stdout and stderr, as for Popen.

    Raises:
        OSError: The system cannot start a process now.
    """
    own_group: dict[str, Any] = {"start_new_session": True}
    if sys.platform == "win32":
        own_group = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW}
    package_parent = str(Path(__file__).resolve().parents[1])
    known = os.environ.get("PYTHONPATH")
    environ = {**os.environ, "PYTHONPATH": f"{package_parent}{os.pathsep}{known}" if known else package_parent}
    return subprocess.Popen([sys.executable, "-m", "core", *words], env=environ, **streams, **own_group)  # noqa: S603 - ourselves


class Processes:
    """Each fire in a process `python -m core work FIRE`.

    Ctrl-C at the runner's terminal reaches only the runner, which then asks its runs to end.

    Args:
        workspace: The workspace's folder.
    """

    def __init__(self, workspace: Path) -> None:
        self._workspace = workspace
        self._spares: list[_Process] = []

    def warm(self, count: int) -> None:
        """Starts processes that read the program and then wait to be told their fire.

        Reading it takes 0.7 s of a core, which is most of the time from a fire to its first row: four fires at 02:00
        would be two seconds late on two cores.
        """
        self._spares = [spare for spare in self._spares if spare.poll() is None]
        for _ in range(count - len(self._spares)):
            self._spares.append(self._begin("--wait"))

    def cool(self) -> None:
        """See `Workers`."""
        for spare in self._spares:
            spare.dismiss()
        self._spares = [spare for spare in self._spares if spare.poll() is None]

    def start(self, scheduled_run_id: int) -> Worker:
        """See `Workers`."""
        while self._spares:
            spare = self._spares.pop(0)
            if spare.tell(scheduled_run_id):
                return spare
        return self._begin(str(scheduled_run_id))

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
    """A child of ours."""

    def __init__(self, process: subprocess.Popen[bytes], output: Any) -> None:
        self._process = process
        # It was asked for as a pipe, so it is there.
        self._stdin: IO[bytes] = process.stdin  # type: ignore[assignment]
        self._output = output
        self._words: str | None = None

    def tell(self, scheduled_run_id: int) -> bool:
        """Gives a waiting process its fire; whether it was there to hear it."""
        try:
            self._stdin.write(f"{scheduled_run_id}\n".encode())
            self._stdin.close()
        except OSError:
            self._leave()
            return False
        return True

    def dismiss(self) -> None:
        """Ends a waiting process."""
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
        self._output.seek(0, os.SEEK_END)
        self._output.seek(max(self._output.tell() - TAIL_BYTES, 0))
        lines = self._output.read().decode("utf-8", "replace").split("\n")
        self._output.close()
        self._words = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return self._words


BUSY = 75
"""Exit code: the job runs elsewhere, by hand; EX_TEMPFAIL of sysexits.h."""
