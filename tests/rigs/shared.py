"""Servers that all test processes of a run share: the process that hands out the tests starts them.

A broker costs seconds of a processor before its first answer, and each one compiles the same classes anew. A test process
asks for a server over a local connection; the first one that asks waits until it has started. The servers end with the
process that started them, however that ends.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, Listener
from typing import Any

from tests.rigs.errors import RigMissing, ServerFailed
from tests.rigs.kafka import KafkaRig
from tests.rigs.postgres import PostgresRig
from tests.rigs.registry import RegistryRig

__all__ = ["SharedServers", "shared"]

Address = tuple[str, int, bytes]
"""Host, port, and the key without which nothing is answered."""
RIGS: Mapping[str, Callable[[], AbstractContextManager[Any]]] = {
    "kafka": KafkaRig,
    "postgres": PostgresRig,
    "registry": RegistryRig,
}


class SharedServers:
    """The servers, in the process that hands out the tests."""

    def __init__(self) -> None:
        self._key = os.urandom(16)
        self._listener = Listener(("127.0.0.1", 0), backlog=64, authkey=self._key)
        self._is_open = True
        self._running = ExitStack()
        self._answers: dict[str, tuple[str, Any]] = {}
        self._locks = {name: threading.Lock() for name in RIGS}
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def address(self) -> Address:
        """Where a test process asks."""
        host, port = self._listener.address
        return str(host), int(port), self._key

    def close(self) -> None:
        """Ends the servers."""
        self._is_open = False
        self._listener.close()
        self._running.close()

    def _accept(self) -> None:
        while self._is_open:
            with suppress(OSError, EOFError, AuthenticationError):  # closed, or a process that has gone away
                line = self._listener.accept()
                threading.Thread(target=self._answer, args=(line,), daemon=True).start()

    def _answer(self, line: Connection) -> None:
        with line, suppress(OSError, EOFError):
            name = line.recv()
            with self._locks[name]:
                if name not in self._answers:
                    self._answers[name] = self._start(name)
            line.send(self._answers[name])

    def _start(self, name: str) -> tuple[str, Any]:
        try:
            return "runs", self._running.enter_context(RIGS[name]())
        except RigMissing as missing:
            return "missing", (missing.service, str(missing))
        except Exception as error:  # each test that asks for the server fails with this text
            return "failed", f"{type(error).__name__}: {error}"


@contextmanager
def shared(name: str, address: Address | None) -> Iterator[Any]:
    """A running server of RIGS.

    Args:
        name: Its name there.
        address: Where to ask for the one that all test processes share; None: this process is the only one.

    Raises:
        RigMissing: This machine has no such server.
        ServerFailed: It did not start.
    """
    if address is None:
        with RIGS[name]() as rig:
            yield rig
        return
    host, port, key = address
    with Client((host, port), authkey=key) as line:
        line.send(name)
        outcome, found = line.recv()
    if outcome == "missing":
        raise RigMissing(*found)
    if outcome == "failed":
        raise ServerFailed(found)
    yield found
