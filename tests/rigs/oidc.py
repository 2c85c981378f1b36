"""An OpenID provider in the test process: discovery, authorisation code, signed tokens; every visitor is signed in."""

from __future__ import annotations

import base64
import json
import secrets
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import RSAKey

CLIENT_ID, CLIENT_SECRET = "pstt-page", "client-secret-4711"


class OidcRig:
    """The provider, from entering to leaving the block.

    Args:
        claims: Of the account that is signed in, such as `email` and `email_verified`; may be changed at any time.
    """

    def __init__(self, **claims: Any) -> None:
        self.claims = claims
        self.asked: list[dict[str, str]] = []
        """The authorisation requests."""
        self._key = RSAKey.generate_key(2048, {"kid": "rig", "use": "sig"})
        self._nonces: dict[str, str] = {}
        """Code → nonce."""

    def __enter__(self) -> OidcRig:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def secrets(self, redirect_uri: str) -> str:
        """Returns the content of secrets.toml."""
        return (
            f'[auth]\nredirect_uri = "{redirect_uri}"\ncookie_secret = "{secrets.token_hex(32)}"\n'
            f'client_id = "{CLIENT_ID}"\nclient_secret = "{CLIENT_SECRET}"\n'
            f'server_metadata_url = "{self.url}/.well-known/openid-configuration"\n'
        )

    def metadata(self) -> dict[str, Any]:
        return {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "jwks_uri": f"{self.url}/jwks",
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "code_challenge_methods_supported": ["S256"],
        }

    def authorize(self, asked: dict[str, str]) -> str:
        """Where the browser goes next."""
        self.asked.append(asked)
        code = secrets.token_urlsafe(16)
        self._nonces[code] = asked.get("nonce", "")
        return f"{asked['redirect_uri']}?{urlencode({'code': code, 'state': asked['state']})}"

    def token(self, form: dict[str, str], authorization: str) -> tuple[int, dict[str, Any]]:
        basic = base64.b64encode(f"{CLIENT_ID}:{CLIENT_SECRET}".encode()).decode()
        if authorization != f"Basic {basic}" and form.get("client_secret") != CLIENT_SECRET:
            return 401, {"error": "invalid_client"}
        if form.get("code") not in self._nonces:
            return 400, {"error": "invalid_grant"}
        now = int(time.time())
        claims = {
            "iss": self.url,
            "aud": CLIENT_ID,
            "sub": "4711",
            "iat": now,
            "exp": now + 600,
            "nonce": self._nonces.pop(form["code"]),
            **self.claims,
        }
        id_token = jwt.encode({"alg": "RS256", "kid": "rig"}, claims, self._key)
        return 200, {"access_token": "a", "token_type": "Bearer", "expires_in": 600, "id_token": id_token}

    def _handler(rig) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                address = urlsplit(self.path)
                if address.path == "/authorize":
                    asked = {name: values[0] for name, values in parse_qs(address.query).items()}
                    self.send_response(302)
                    self.send_header("Location", rig.authorize(asked))
                    self.end_headers()
                elif address.path == "/jwks":
                    self._answer(200, {"keys": [rig._key.as_dict(private=False)]})
                else:
                    self._answer(200, rig.metadata())

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                form = {name: values[0] for name, values in parse_qs(body).items()}
                self._answer(*rig.token(form, self.headers.get("Authorization", "")))

            def _answer(self, code: int, document: dict[str, Any]) -> None:
                self.send_response(code)
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                self.wfile.write(json.dumps(document).encode())

            def log_message(self, *_: Any) -> None:
                pass

        return Handler
