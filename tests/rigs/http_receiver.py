"""An HTTP server in the test process that keeps every request, as a lineage or tracing server does."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

__all__ = ["HttpReceiver", "ReceivedRequest", "http_receiver"]


@dataclass(frozen=True)
class ReceivedRequest:
    path: str
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes


@dataclass
class HttpReceiver:
    url: str = ""
    requests: list[ReceivedRequest] = field(default_factory=list)
    status: int = 200
    """Of each answer."""

    def bodies(self, path: str) -> list[bytes]:
        return [request.body for request in self.requests if request.path == path]


@contextmanager
def http_receiver(status: int = 200) -> Iterator[HttpReceiver]:
    received = HttpReceiver(status=status)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            headers = {name.lower(): value for name, value in self.headers.items()}
            received.requests.append(ReceivedRequest(self.path, headers, body))
            self.send_response(received.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        received.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield received
        finally:
            server.shutdown()
            thread.join()
