"""A token issuer in the test process: client credentials, signed tokens, and the keys that a broker checks them with."""

from __future__ import annotations

import base64
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote

from joserfc import jwt
from joserfc.jwk import RSAKey

CLIENT_ID, CLIENT_SECRET = "pstt-sender", "issuer secret/4711+ü"
AUDIENCE, SCOPE = "kafka-cluster", "kafka.write"


class TokenIssuer:
    """The issuer, from entering to leaving the block."""

    def __init__(self) -> None:
        self.claims: dict[str, Any] = {}
        """Changes of each token."""
        self.lasts_s = 600
        self.asked: list[dict[str, str]] = []
        """The form of each request."""
        self.broken: tuple[int, bytes] | None = None
        """Status and body of every answer, where it is not an issuer's own."""
        self.drips = threading.Event()
        """Set: an answer comes byte by byte."""
        self._key = RSAKey.generate_key(2048, {"kid": "rig", "use": "sig", "alg": "RS256"})
        self._ended = threading.Event()

    def __enter__(self) -> TokenIssuer:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self.token_url, self.jwks_url = f"{self.url}/token", f"{self.url}/jwks"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def reset(self) -> None:
        """Makes it an issuer as at the beginning."""
        self.claims, self.lasts_s, self.broken = {}, 600, None
        self.drips.clear()
        self.asked.clear()

    def token(self, **changes: Any) -> str:
        """Returns a signed token of the client."""
        now = int(time.time())
        claims = {"iss": self.url, "aud": AUDIENCE, "sub": CLIENT_ID, "scope": SCOPE, "iat": now}
        return jwt.encode(
            {"alg": "RS256", "kid": "rig"}, claims | {"exp": now + self.lasts_s} | self.claims | changes, self._key
        )

    def answer(self, form: dict[str, str], authorization: str) -> tuple[int, dict[str, Any]]:
        self.asked.append(form)
        kind, _, pair = authorization.partition(" ")
        client, _, secret = base64.b64decode(pair).decode().partition(":")
        if kind != "Basic" or (unquote(client), unquote(secret)) != (CLIENT_ID, CLIENT_SECRET):
            return 401, {"error": "invalid_client", "error_description": f"{unquote(secret)} is wrong"}
        if form.get("grant_type") != "client_credentials":
            return 400, {"error": "unsupported_grant_type"}
        return 200, {"access_token": self.token(), "token_type": "Bearer", "expires_in": self.lasts_s}

    def _handler(rig) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._send(200, json.dumps({"keys": [rig._key.as_dict(private=False)]}).encode())

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                form = {name: values[0] for name, values in parse_qs(body).items()}
                status, document = rig.answer(form, self.headers.get("Authorization", ""))
                self._send(*(rig.broken or (status, json.dumps(document).encode())))

            def _send(self, code: int, content: bytes) -> None:
                self.send_response(code)
                self.send_header("Content-Type", "application/json")
                if 300 <= code < 400:
                    self.send_header("Location", f"{rig.url}/elsewhere")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if not rig.drips.is_set():
                    self.wfile.write(content)
                    return
                for byte in content:
                    if rig._ended.wait(0.2):
                        return
                    try:
                        self.wfile.write(bytes([byte]))
                    except OSError:
                        return

            def log_message(self, *_: Any) -> None:
                """Writes nothing to stderr."""

        return Handler
