"""A server with the HTTP API of HashiCorp Vault, as far as reading secrets goes.

It implements what developer.hashicorp.com documents: KV version 2 (`GET /v1/MOUNT/data/PATH`, versions, deletion), tokens
(`X-Vault-Token`), namespaces, and the login by AppRole. Vault itself is in no package registry of the languages used here.
"""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

ROLE_ID, SECRET_ID = "role-4711", "secret-id-0815"
ROOT_TOKEN = "hvs.root-token"


class VaultRig:
    """What the server holds, and what it was asked."""

    def __init__(self) -> None:
        self.secrets: dict[str, list[dict[str, Any]]] = {}
        """`MOUNT/PATH` → its versions, oldest first; an empty one is deleted."""
        self.tokens = {ROOT_TOKEN}
        self.namespace = ""
        self.sealed = False
        self.broken: tuple[int, bytes] | None = None
        """Status and body of every answer, where it is not a Vault's own."""
        self.silent = threading.Event()
        """Set: requests wait until it is cleared by the end of the test."""
        self.lease_s = 3600
        self.logins = 0
        self.requests: list[str] = []
        self.url = ""

    def put(self, path: str, **values: Any) -> None:
        """Writes a new version."""
        self.secrets.setdefault(path, []).append(values)

    def revoke_all(self) -> None:
        """Revokes each token, as an administrator does."""
        self.tokens.clear()

    def answer(self, method: str, path: str, headers: Any, body: bytes) -> tuple[int, Any]:
        """Returns status and document of a request."""
        self.requests.append(f"{method} {path}")
        if self.sealed:
            return 503, {"errors": ["Vault is sealed"]}
        if headers.get("X-Vault-Namespace", "").strip("/") != self.namespace:
            return 404, {"errors": []}
        if path == "/v1/auth/approle/login":
            return self._login(json.loads(body))
        if headers.get("X-Vault-Token") not in self.tokens:
            return 403, {"errors": ["permission denied"]}
        mount, _, below = path.removeprefix("/v1/").partition("/data/")
        return self._version(self.secrets.get(f"{mount}/{below.partition('?')[0]}"))

    def _login(self, given: dict[str, str]) -> tuple[int, Any]:
        if (given.get("role_id"), given.get("secret_id")) != (ROLE_ID, SECRET_ID):
            return 400, {"errors": ["invalid role or secret ID"]}
        self.logins += 1
        token = f"hvs.approle-{self.logins}"
        self.tokens.add(token)
        return 200, {"auth": {"client_token": token, "lease_duration": self.lease_s, "renewable": True}}

    def _version(self, versions: list[dict[str, Any]] | None) -> tuple[int, Any]:
        if not versions:
            return 404, {"errors": []}
        deleted = not versions[-1]
        metadata = {"version": len(versions), "destroyed": False, "deletion_time": "2026-11-01T08:00:00Z" * deleted}
        document = {"data": {"data": versions[-1] or None, "metadata": metadata}, "lease_duration": 0}
        return (404 if deleted else 200), document


@contextmanager
def vault_server(certificate: Path | None = None) -> Iterator[VaultRig]:
    """Runs the server on a free port of this machine.

    Args:
        certificate: PEM with certificate and key, for https; None: http.
    """
    rig = VaultRig()

    class Handler(BaseHTTPRequestHandler):
        def _do(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if rig.silent.is_set():
                released.wait(60)
                return
            status, document = rig.answer(self.command, self.path, self.headers, body)
            content = json.dumps(document).encode()
            if rig.broken:
                status, content = rig.broken
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = _do

        def log_message(self, *_: Any) -> None:
            """Writes nothing to stderr."""

    released = threading.Event()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    scheme = "http"
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        scheme = "https"
    rig.url = f"{scheme}://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield rig
    finally:
        released.set()
        server.shutdown()
        thread.join()
        server.server_close()
