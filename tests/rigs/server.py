"""The common part of the test servers: a process that cannot outlive the tests, and free ports."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path

import psutil

from tests.rigs.errors import ServerFailed
from tests.rigs.left_behind import OWN_GROUP, unmarked

GUARD = Path(__file__).with_name("guard.py")

# Below the ports that systems give to outgoing connections (32768 and up on Linux, 49152 and up elsewhere): a client
# that retries a closed local port among those connects to itself at some point, and the server cannot have it back.
PORTS = range(20_000, 32_000)


def free_ports(count: int) -> list[int]:
    """Different ports that nothing listens on."""
    found: list[int] = []
    for port in random.sample(PORTS, len(PORTS)):
        if is_free(port):
            found.append(port)
        if len(found) == count:
            return found
    raise ServerFailed(f"{count} free ports between {PORTS.start} and {PORTS.stop} were not found")


def is_free(port: int) -> bool:
    with closing(socket.socket()) as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def start_on_free_ports(count: int, start: Callable[[list[int]], None]) -> None:
    """Calls `start` with free ports; with others, when another program was quicker to take one."""
    for tries_left in (2, 1, 0):
        try:
            return start(free_ports(count))
        except ServerFailed as failed:
            if not tries_left or "in use" not in str(failed):
                raise


class Server:
    """A running server.

    Args:
        command: The program and its arguments.
        folder: Its data; removed if this process is killed, else left to the caller.
        log: Its output is appended here.
        user: The account to run as, for a caller who is root; empty: the caller's own.
        environ: Its environment; None: ours.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        folder: Path,
        log: Path,
        user: str = "",
        environ: Mapping[str, str] | None = None,
    ) -> None:
        with log.open("ab") as output:
            self._guard = subprocess.Popen(  # its own group, so that Ctrl-C leaves the end of the server to us
                [sys.executable, "-I", "-S", str(GUARD), str(folder), user, *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=output,
                bufsize=0,
                cwd="/" if user else folder,
                env=unmarked(os.environ if environ is None else environ),
                **OWN_GROUP,
            )

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        """Another process that gets a copy of a rig has no server in it: it cannot end or signal ours."""
        return type(None), ()

    @property
    def is_running(self) -> bool:
        return self._guard.poll() is None

    @property
    def pid(self) -> int:
        """The server's own process id; the guard is another process."""
        (server,) = psutil.Process(self._guard.pid).children()
        return server.pid

    def signal(self, name: str) -> None:
        """Sends a signal, named as in `signal`: SIGTERM, SIGKILL, SIGSTOP…"""
        assert self._guard.stdin is not None
        with suppress(BrokenPipeError):  # it has just ended by itself
            self._guard.stdin.write(f"{name}\n".encode())

    def wait(self, timeout_s: float = 30) -> None:
        """Returns when the server has ended."""
        self._guard.wait(timeout_s)
        assert self._guard.stdin is not None
        self._guard.stdin.close()

    def end(self, name: str = "") -> None:
        """Sends that signal (none: the strongest of the system) and waits; nothing happens to a server that has ended."""
        if self.is_running:
            self.signal(name or ("SIGTERM" if os.name == "nt" else "SIGKILL"))
        self.wait()


def tail(log: Path, lines: int = 20) -> str:
    """The last lines of a log."""
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
