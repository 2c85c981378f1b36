"""A proxy for a connection, with which a test can observe and cut it."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue

Seen = Callable[[bytes], bytes | None]
"""Bytes of the client → what to answer in the server's place, or None to pass them on."""

Alter = Callable[[bytes], bytes]
"""Bytes of the server → what the client receives."""


class Proxy:
    """A port in front of another one; a context manager.

    Args:
        host: Where the other one is.
        port: As above.
        seen: Called with the client's bytes.
        alter: Changes the server's bytes.
        silent_after: Bytes of the server on one connection after which nothing passes any more; None: never.
        delay_s: How much later each byte arrives, in either direction; the throughput stays. Excludes the three above.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        seen: Seen | None = None,
        alter: Alter | None = None,
        silent_after: int | None = None,
        delay_s: float = 0,
    ) -> None:
        self._target = (host, port)
        self._seen = seen
        self._alter = alter
        self._silent_after = silent_after
        self._delay_s = delay_s
        self._open: list[socket.socket] = []
        self.is_silent = threading.Event()
        """All bytes are dropped without an error, in both directions and on new connections too."""

    def __enter__(self) -> Proxy:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.host, self.port = self._listener.getsockname()
        self._start(self._accept)
        return self

    def __exit__(self, *exc_info: object) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def cut(self, *, reset: bool = False) -> None:
        """Ends every connection that is open."""
        ends, self._open = self._open, []
        for end in ends:
            with suppress(OSError):
                if reset:
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    @staticmethod
    def _start(work: Callable[[], None]) -> None:
        threading.Thread(target=work, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
                for end in (client, server):  # else Nagle's algorithm adds a delay of its own
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._open += [client, server]
                self._start(lambda c=client, s=server: self._pass(c, s, self._seen, None))  # type: ignore[misc]
                self._start(lambda c=client, s=server: self._pass(s, c, None, self._alter, self._silent_after))  # type: ignore[misc]

    def _pass(
        self,
        source: socket.socket,
        target: socket.socket,
        seen: Seen | None,
        alter: Alter | None = None,
        silent_after: int | None = None,
    ) -> None:
        passed = 0
        if self._delay_s:
            return self._pass_late(source, target)
        with suppress(OSError):
            while data := source.recv(65536):
                passed += len(data)
                if silent_after is not None and passed > silent_after:
                    self.is_silent.set()
                answer = seen(data) if seen else None
                if self.is_silent.is_set():
                    continue
                if answer is None:
                    target.sendall(alter(data) if alter else data)
                else:
                    source.sendall(answer)
        if self.is_silent.is_set():  # not even a close is passed on
            return
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _pass_late(self, source: socket.socket, target: socket.socket) -> None:
        """Passes bytes on after the delay. Bytes wait in a queue, so that later ones are read meanwhile."""
        waiting: SimpleQueue[tuple[float, bytes]] = SimpleQueue()
        self._start(lambda: self._send_late(waiting, target))
        data = b"-"
        while data:
            try:
                data = source.recv(65536)
            except OSError:
                data = b""
            waiting.put((time.monotonic() + self._delay_s, data))

    @staticmethod
    def _send_late(waiting: SimpleQueue[tuple[float, bytes]], target: socket.socket) -> None:
        with suppress(OSError):
            while True:
                due, data = waiting.get()
                time.sleep(max(due - time.monotonic(), 0))
                if not data:
                    break
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)
