"""A way to a Kafka broker that knows requests from answers, so that a test can lose, cut or change one."""

from __future__ import annotations

import io
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from aiokafka.protocol import produce

PRODUCE, METADATA, FIND_COORDINATOR = 0, 3, 10
ADDRESSED = (METADATA, FIND_COORDINATOR)
"""API keys of answers that name brokers by host and port."""
HEAD = struct.Struct(">hhi")
"""API key, API version and correlation id, with which each request begins."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request and the broker's answer, both without their length."""

    api_key: int
    api_version: int
    request: bytes
    answer: bytes

    def with_error(self, code: int) -> bytes:
        """Returns the answer of a Produce request with that error code for each partition."""
        kind = getattr(produce, f"ProduceResponse_v{self.api_version}")
        found = kind.decode(io.BytesIO(self.answer[4:]))
        topics = [
            (topic, [(number, code, -1, *rest[1:]) for number, _, *rest in partitions])
            for topic, partitions in found.topics
        ]
        return self.answer[:4] + bytes(kind(topics, found.throttle_time_ms).encode())

    def without_partitions(self) -> bytes:
        """Returns the answer of a Produce request with no word about any partition."""
        kind = getattr(produce, f"ProduceResponse_v{self.api_version}")
        return self.answer[:4] + bytes(kind([], 0).encode())


Answer = Literal["pass", "swallow", "cut", "half"] | bytes
"""What the client gets: the answer, nothing, the end of the connection, half of the answer and the end, or this."""


class KafkaProxy:
    """A port in front of a broker, which names this port as its own; a context manager.

    Args:
        broker: Its `host:port`.
        answer: Decides what the client gets of each answer; may be replaced at any time.
    """

    def __init__(self, broker: str, answer: Callable[[Exchange], Answer] = lambda _: "pass") -> None:
        host, port = broker.split(":")
        self._target = host, int(port)
        self.answer = answer
        self.requests: Counter[int] = Counter()
        """API key → number of requests."""
        self.is_silent = threading.Event()
        """Nothing goes through any more, in either direction and on new connections too."""
        self._open: set[socket.socket] = set()

    def __enter__(self) -> KafkaProxy:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._port = self._listener.getsockname()[1]
        self.address = f"127.0.0.1:{self._port}"
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    @property
    def open_connections(self) -> int:
        """Connections of clients."""
        return len(self._open) // 2

    def cut(self) -> None:
        """Ends every connection that is open."""
        for end in list(self._open):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        asked: dict[int, tuple[int, int, bytes]] = {}
        try:
            server = socket.create_connection(self._target)
        except OSError:
            client.close()
            return
        self._open |= {client, server}
        back = threading.Thread(target=self._pass_answers, args=(server, client, asked), daemon=True)
        back.start()
        with suppress(OSError):
            while (request := _frame(client)) is not None:
                api_key, version, correlation = HEAD.unpack_from(request)
                asked[correlation] = api_key, version, request
                self.requests[api_key] += 1
                if not self.is_silent.is_set():
                    _send(server, request)
        _end(client, server)
        back.join()
        self._open -= {client, server}
        client.close()
        server.close()

    def _pass_answers(
        self, server: socket.socket, client: socket.socket, asked: dict[int, tuple[int, int, bytes]]
    ) -> None:
        with suppress(OSError):
            while (answer := _frame(server)) is not None:
                exchange = Exchange(*asked.pop(struct.unpack_from(">i", answer)[0]), answer)
                chosen = "swallow" if self.is_silent.is_set() else self.answer(exchange)
                if chosen == "cut":
                    break
                if chosen == "half":
                    client.sendall(struct.pack(">i", len(answer)) + answer[: len(answer) // 2])
                    break
                if chosen != "swallow":
                    _send(client, self._readdressed(exchange) if chosen == "pass" else chosen)
        _end(client, server)

    def _readdressed(self, exchange: Exchange) -> bytes:
        if exchange.api_key not in ADDRESSED:
            return exchange.answer
        host, port = self._target
        ours, its = (host.encode() + struct.pack(">i", number) for number in (self._port, port))
        return exchange.answer.replace(its, ours)


def _frame(source: socket.socket) -> bytes | None:
    """Returns the next request or answer; None at the end of the connection."""
    size = _exactly(source, 4)
    return _exactly(source, struct.unpack(">i", size)[0]) if size else None


def _exactly(source: socket.socket, count: int) -> bytes | None:
    data = bytearray()
    while len(data) < count:
        some = source.recv(min(count - len(data), 1 << 16))
        if not some:
            return None
        data += some
    return bytes(data)


def _send(target: socket.socket, frame: bytes) -> None:
    target.sendall(struct.pack(">i", len(frame)) + frame)


def _end(*ends: socket.socket) -> None:
    for end in ends:
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
