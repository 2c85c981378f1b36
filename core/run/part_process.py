"""One part of a run in a process of its own on this machine.

The process is `python -m core part`: it reads the task from the first line of its standard input and writes events,
one a line, to its standard output. Its input stays open as long as the process that started it lives: when it closes,
which the system does even after a kill, the part ends at once. That works on Windows too.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import BinaryIO, cast

import msgspec

from core.errors import StorageFailed
from core.run.parts import PartEvent, PartLost, PartProgress, PartTask, decode_event, encode

__all__ = ["PART_COMMAND", "PartProcess"]

PART_COMMAND = ("-m", "core", "part")
"""Arguments of the Python interpreter; `--workspace DIR` is added."""
CANCEL = b"cancel\n"
"""The line of the standard input that asks a part to end."""
PROGRAM = Path(__file__).parents[2]
ERROR_LINES = 20
"""How many of the last lines of its standard error are kept, for the user."""
EXIT_S = 10.0
"""How long a process may take to exit after its result."""


class PartProcess:
    """Runs one part. It belongs to one thread.

    Args:
        task: The part.
        root: The workspace in which it runs.
        environ: Its environment; None: that of this process.
        command: Arguments of the Python interpreter.

    Raises:
        StorageFailed: The process cannot be started.
    """

    def __init__(
        self,
        task: PartTask,
        root: Path,
        *,
        environ: Mapping[str, str] | None = None,
        command: Sequence[str] = PART_COMMAND,
    ) -> None:
        self._index = task.index
        self._attempt = task.attempt
        self._events: SimpleQueue[PartEvent | None] = SimpleQueue()
        self._errors: deque[str] = deque(maxlen=ERROR_LINES)
        self._kill_at: float | None = None
        self.has_ended = False
        """Whether `events` has returned its end: a result, or that it was lost."""
        self._process = self._started([sys.executable, *command, "--workspace", str(root)], environ)
        self.pid = self._process.pid
        pipes = (self._process.stdin, self._process.stdout, self._process.stderr)
        self._stdin, self._stdout, self._stderr = (cast(BinaryIO, pipe) for pipe in pipes)
        self._readers = [_thread(self._read_events), _thread(self._read_errors)]
        self._write(encode(task) + b"\n")

    def events(self, timeout_s: float) -> list[PartEvent]:
        """Waits for events at most this long and returns them; the last one of all is a `PartResult` or a `PartLost`."""
        self._kill_if_late()
        found: list[PartEvent] = []
        with suppress(Empty):
            while not self.has_ended:
                event = self._events.get(timeout=0 if found else self._patience(timeout_s))
                event = event or self._lost()
                self.has_ended = not isinstance(event, PartProgress)
                found.append(event)
        if self.has_ended:
            self._exit()
        return found

    def cancel(self, within_s: float) -> None:
        """Asks the part to end. Returns at once; a part that goes on after this time is killed by `events`."""
        if self._kill_at is None:
            self._write(CANCEL)
        self._kill_at = min(self._kill_at or float("inf"), time.monotonic() + within_s)

    def kill(self) -> None:
        """Ends the process by force and waits for it. May be called twice."""
        if self._process.poll() is None:
            self._process.kill()
        self._exit()

    def _started(self, command: list[str], environ: Mapping[str, str] | None) -> subprocess.Popen[bytes]:
        environment = dict(os.environ if environ is None else environ)
        known = environment.get("PYTHONPATH")
        environment["PYTHONPATH"] = os.pathsep.join([str(PROGRAM), *([known] if known else [])])
        try:
            return subprocess.Popen(  # noqa: S603 - our own interpreter
                command,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                # Ctrl-C of a terminal reaches the coordinator alone, which then asks its parts to end.
                start_new_session=os.name != "nt",
                creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
            )
        except OSError as error:
            raise StorageFailed(
                f"no process can be started for part {self._index + 1}",
                why=error.strerror or type(error).__name__,
                remedy="end other programs, or set PSTT_RUN_PROCESSES to fewer",
            ) from None

    def _read_events(self) -> None:
        for line in self._stdout:
            try:
                event = decode_event(line)
            except msgspec.DecodeError:  # what a library has printed
                self._errors.append(line.decode(errors="replace").strip())
                continue
            self._events.put(event)
        self._events.put(None)

    def _read_errors(self) -> None:
        for line in self._stderr:
            self._errors.append(line.decode(errors="replace").rstrip())

    def _write(self, line: bytes) -> None:
        with suppress(OSError):  # it has exited, which the end of its output reports
            self._stdin.write(line)
            self._stdin.flush()

    def _patience(self, timeout_s: float) -> float:
        left_s = float("inf") if self._kill_at is None else self._kill_at - time.monotonic()
        return max(0.0, min(timeout_s, left_s))

    def _kill_if_late(self) -> None:
        if self._kill_at is not None and time.monotonic() >= self._kill_at and self._process.poll() is None:
            self._process.kill()

    def _lost(self) -> PartLost:
        code = self._process.wait()
        how = f"was ended by {_signal_name(-code)}" if code < 0 else f"exited with code {code}"
        self._readers[1].join(1)
        said = next((line for line in reversed(self._errors) if line.strip()), "")
        return PartLost(
            self._index, self._attempt, f"process {self.pid} {how}" + (f": {said}" if said else ""), str(self.pid)
        )

    def _exit(self) -> None:
        """Waits for the end of the process and closes its pipes."""
        with suppress(OSError):  # a line that it has not read
            self._stdin.close()
        try:
            self._process.wait(EXIT_S)
        except subprocess.TimeoutExpired:  # a library waits for a server: its result is here already
            self._process.kill()
            self._process.wait()
        for reader in self._readers:
            reader.join(1)
        self._stdout.close()
        self._stderr.close()


def _thread(work: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def _signal_name(number: int) -> str:
    try:
        return f"signal {number} ({signal.Signals(number).name})"
    except ValueError:
        return f"signal {number}"
