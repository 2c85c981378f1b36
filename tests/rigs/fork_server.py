"""Commands of the program as forks of one process that has imported it already: a command imports for a second and works
for a tenth of one.

The fork runs `core.__main__` in a process of its own with its own folder, environment, output and end, as `python -m core`
does. What an interpreter reads at its start, such as PYTHONHASHSEED, is that of the server: `ForkServer.takes` says so.
"""

from __future__ import annotations

import array
import importlib
import io
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).parents[2]
AT_THE_START = ("PYTHON", "LC_", "LANG", "TZ", "TMPDIR", "LD_", "TERM", "NO_COLOR", "FORCE_COLOR", "COLUMNS")
"""Beginnings of variables that Python and libraries read when they start."""
PRELOADED = (
    "core.cli.leaving",
    *("core.cli." + name for name in ("run", "schedule", "history", "inspect", "alerts")),
    "core.app",
    "core.run.execute",
    "core.run.pipeline",
    "core.run.export",
    "core.records.metrics",
    "core.kafka.aiokafka",
    "core.sources.postgresql",
    "core.sources.sqlite",
    "duckdb",
    "pyarrow.compute",
    "pyarrow.parquet",
)
"""What most commands import."""
_FILES = 2


class ForkServer:
    """Runs commands for this process; ends with it."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="pstt-fork-")
        self._address = f"{self._folder.name}/socket"
        self._environ = {n: v for n, v in os.environ.items() if not n.startswith(("KAFKA_", "PSTT_", "COVERAGE_"))}
        self._environ["PYTHONPATH"] = str(ROOT)
        self._alive, theirs = socket.socketpair()  # closed when this process ends, however it ends
        words = [sys.executable, "-m", "tests.rigs.fork_server", self._address, str(theirs.fileno())]
        self._process = subprocess.Popen(
            words,
            cwd=ROOT,
            env=self._environ,
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        theirs.close()
        if self._alive.recv(1) != b"+":
            raise RuntimeError("the process that runs commands did not start")

    def takes(self, env: Mapping[str, str]) -> bool:
        """Returns True if a fork has all of that environment, also what is read at the start; no coverage is measured in one."""
        return _read_at_the_start(env) == _read_at_the_start(self._environ)

    def run(
        self, words: Sequence[str], env: Mapping[str, str], cwd: Path, timeout_s: float
    ) -> subprocess.CompletedProcess[str]:
        """Runs `python -m core WORDS` to its end.

        Raises:
            subprocess.TimeoutExpired: It was killed after that time.
        """
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, socket.socket(socket.AF_UNIX) as line:
            line.connect(self._address)
            asked = json.dumps({"words": list(words), "env": dict(env), "cwd": str(cwd)}).encode()
            line.sendmsg(
                [len(asked).to_bytes(4, "big")],
                [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [out.fileno(), err.fileno()]))],
            )
            line.sendall(asked)
            pid = int.from_bytes(_received(line, 4), "big")
            line.settimeout(timeout_s)
            try:
                status = int.from_bytes(_received(line, 4), "big")
            except TimeoutError:
                os.kill(pid, signal.SIGKILL)
                raise subprocess.TimeoutExpired(list(words), timeout_s) from None
            texts = [_text(file) for file in (out, err)]
        return subprocess.CompletedProcess(list(words), os.waitstatus_to_exitcode(status), *texts)

    def close(self) -> None:
        """Ends the server."""
        self._alive.close()
        self._process.wait(30)
        self._folder.cleanup()


_lock = threading.Lock()
_server: ForkServer | None = None


def fork_server() -> ForkServer | None:
    """Returns the server of this process, which is started the first time; None: this system has no fork."""
    global _server
    if os.name == "nt":
        return None
    with _lock:
        if _server is None:
            _server = ForkServer()
        return _server


def end_fork_server() -> None:
    """Ends the server of this process, if it has one."""
    global _server
    with _lock:
        if _server is not None:
            _server.close()
            _server = None


def _read_at_the_start(env: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in env.items() if name.startswith((*AT_THE_START, "COVERAGE_"))}


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    with io.TextIOWrapper(file, encoding="utf-8") as text:
        return text.read()


def _received(line: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = line.recv(size - len(data))
        if not part:
            raise ConnectionError("the process that runs commands has ended")
        data += part
    return data


# ── the server's process ──────────────────────────────────────────────────────────────────────


def _serve(address: str, alive: socket.socket) -> dict[str, Any] | None:
    """Forks for each command. Returns what is asked in the fork that is to run it; None: the tests have ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the keepers
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen(64)
        alive.sendall(b"+")
        while alive not in select.select([listener, alive], [], [])[0]:
            line, _ = listener.accept()
            if os.fork() == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                listener.close()
                alive.close()
                return _begun(line)
            line.close()
    return None


def _begun(line: socket.socket) -> dict[str, Any]:
    """Forks the command's own process, where it returns; here, in its keeper, it reports how that ends."""
    length, found, _, _ = line.recvmsg(4, socket.CMSG_SPACE(_FILES * 4))
    files = array.array("i")
    files.frombytes(found[0][2][: _FILES * files.itemsize])
    asked: dict[str, Any] = json.loads(_received(line, int.from_bytes(length, "big")))
    if command := os.fork():
        line.sendall(command.to_bytes(4, "big"))
        _, status = os.waitpid(command, 0)
        with suppress(OSError):  # it was killed for its time
            line.sendall(status.to_bytes(4, "big"))
        os._exit(0)
    line.close()
    for file, number in zip(files, (1, 2), strict=True):
        os.dup2(file, number)
        os.close(file)
    return asked


def _become(asked: Mapping[str, Any]) -> None:
    """Gives this process the folder, environment, arguments and output of the command."""
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["env"])
    sys.argv = ["-m", *asked["words"]]
    sys.stdout = open(1, "w", encoding=sys.stdout.encoding, closefd=False)
    sys.stderr = open(2, "w", encoding=sys.stderr.encoding, errors="backslashreplace", buffering=1, closefd=False)


def _main() -> None:
    for module in PRELOADED:
        importlib.import_module(module)
    asked = _serve(sys.argv[1], socket.socket(fileno=int(sys.argv[2])))
    if asked is None:
        os._exit(0)
    _become(asked)
    runpy.run_module("core", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _main()
