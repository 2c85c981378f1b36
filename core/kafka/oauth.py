"""Tokens for SASL/OAUTHBEARER: from an OpenID provider by client credentials, or as they are given.

All three clients take their token from here, so that it is fetched once, renewed before it expires, and each failure is one
error with the same words.
"""

from __future__ import annotations

import base64
import json
import re
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlencode, urlsplit
from urllib.request import HTTPRedirectHandler, HTTPSHandler, Request, build_opener

from core.errors import BrokerUnavailable, ConfigError, NotAuthorised, PsttError
from core.model.connection import Cluster, RenewedSecret

__all__ = ["TokenSource", "extensions_of", "require_token_endpoint", "token_source", "uses_tokens"]

TIMEOUT_S = 10.0
"""For the whole answer of a token endpoint, and at most the cluster's request time-out."""
UNKNOWN_LIFETIME_S = 300.0
"""How long a token is used that does not say when it expires."""
EARLY_S = 60.0
"""A token is renewed that long before it expires; one of less than five minutes after four fifths of its life."""
MOST_BYTES = 1_000_000
LOOPBACK = ("127.0.0.1", "::1", "localhost")
ENDPOINT = "KAFKA_SASL_OAUTHBEARER_TOKEN_ENDPOINT_URL"
ERROR_CODE = re.compile(r"[a-z_]{1,60}")
"""`error` of RFC 6749, section 5.2; other texts of an answer are not shown."""


@dataclass(frozen=True, slots=True)
class _Token:
    value: str
    expires_at_s: float
    """Unix seconds."""
    renew_at_s: float


class _NoRedirect(HTTPRedirectHandler):
    """A redirect would take the client's secret to another server."""

    def redirect_request(self, *_: Any) -> None:
        return None


class TokenSource:
    """Returns the token of one cluster, and fetches another one before it expires.

    Args:
        cluster: Its sasl_oauthbearer_* settings.
        now: Unix seconds.
    """

    def __init__(self, cluster: Cluster, now: Callable[[], float] = time.time) -> None:
        self._cluster = cluster
        self._now = now
        self._token: _Token | None = None
        self._lock = threading.Lock()
        self.problem: PsttError | None = None
        """Why there is no token; None: there is one, or none was asked for."""

    def token(self) -> str:
        """Returns a token that has not expired.

        Raises:
            BrokerUnavailable: The endpoint does not answer, or is broken.
            NotAuthorised: It refuses the client, or the given token has expired.
            ConfigError: What answers is no token endpoint.
        """
        return self._valid().value

    def with_expiry(self, _config: str = "") -> tuple[str, float, str, dict[str, str]]:
        """Returns what librdkafka's `oauth_cb` wants: token, its end in Unix seconds, principal, extensions."""
        token = self._valid()
        return token.value, token.expires_at_s, "", extensions_of(self._cluster)

    def discard(self) -> None:
        """Forgets the token, which a broker refused: the next one is fetched."""
        with self._lock:
            self._token = None

    def _valid(self) -> _Token:
        with self._lock:
            if self._token is None or self._now() >= self._token.renew_at_s:
                try:
                    self._token = self._renewed()
                except PsttError as error:
                    # The one before may still hold: the endpoint has some time to come back.
                    if self._token is None or self._now() >= self._token.expires_at_s:
                        self._token, self.problem = None, error
                        raise
            self.problem = None
            return self._token

    def _renewed(self) -> _Token:
        given = self._cluster.sasl_oauthbearer_token
        if given is None:
            return self._of(*_fetched(self._cluster))
        is_first = self._token is None and self.problem is None
        value = given.read_again() if isinstance(given, RenewedSecret) and not is_first else given.reveal()
        token = self._of(value, None)
        if token.expires_at_s <= self._now() and isinstance(given, RenewedSecret) and is_first:
            token = self._of(given.read_again(), None)
        if token.expires_at_s <= self._now():
            raise NotAuthorised(
                f'no login to cluster "{self._cluster.name}" is possible',
                why="the token has expired",
                remedy="set KAFKA_SASL_OAUTHBEARER_TOKEN to a new one, best as exec:COMMAND or vault:PATH#KEY",
            )
        return token

    def _of(self, value: str, lasts_s: float | None) -> _Token:
        now = self._now()
        expires_at_s = now + lasts_s if lasts_s is not None else _expiry(value) or now + UNKNOWN_LIFETIME_S
        left_s = max(expires_at_s - now, 0.0)
        return _Token(value, expires_at_s, expires_at_s - min(EARLY_S, left_s / 5))


@lru_cache(maxsize=32)
def token_source(cluster: Cluster) -> TokenSource:
    """Returns the tokens of a cluster, shared by its producer, consumers and admin clients in this process."""
    return TokenSource(cluster)


def uses_tokens(cluster: Cluster) -> bool:
    """Returns True if the login sends a token."""
    return cluster.sasl_mechanism == "OAUTHBEARER" and cluster.security_protocol in ("SASL_PLAINTEXT", "SASL_SSL")


def extensions_of(cluster: Cluster) -> dict[str, str]:
    """Returns the extensions that go to the broker with the token."""
    pairs = (part.partition("=") for part in (cluster.sasl_oauthbearer_extensions or "").split(",") if part.strip())
    return {name.strip(): value.strip() for name, _, value in pairs}


def require_token_endpoint(cluster: Cluster) -> None:
    """Refuses an address to which the client's secret would go in clear text. Contacts nothing."""
    url = cluster.sasl_oauthbearer_token_endpoint_url or ""
    parts = urlsplit(url)
    if parts.scheme not in ("https", "http") or not parts.hostname or parts.username:
        raise ConfigError(f"{ENDPOINT} is not an address", remedy="write https://…", key=ENDPOINT)
    if parts.scheme == "http" and parts.hostname not in LOOPBACK:
        raise ConfigError(
            f"{ENDPOINT} is not encrypted",
            why="the client's secret would go over the network in clear text",
            remedy="write https://…",
            key=ENDPOINT,
        )


def _fetched(cluster: Cluster) -> tuple[str, float | None]:
    """Returns a token and its lifetime in seconds, by the grant `client_credentials`. Source: RFC 6749, section 4.4."""
    require_token_endpoint(cluster)
    form = {"grant_type": "client_credentials"}
    if cluster.sasl_oauthbearer_scope:
        form["scope"] = cluster.sasl_oauthbearer_scope
    secret = cluster.sasl_oauthbearer_client_secret.reveal() if cluster.sasl_oauthbearer_client_secret else ""
    pair = f"{quote(cluster.sasl_oauthbearer_client_id or '', safe='')}:{quote(secret, safe='')}"
    request = Request(  # noqa: S310 - http or https, as require_token_endpoint says
        cluster.sasl_oauthbearer_token_endpoint_url or "",
        urlencode(form).encode(),
        {
            "Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}",
            "Accept": "application/json",
            "User-Agent": cluster.client_id,
        },
    )
    with _translated(cluster):
        content = _answer(cluster, request)
        try:
            document = json.loads(content)
            token, lasts = document["access_token"], document.get("expires_in")
            if not isinstance(token, str) or not token or not token.isascii() or any(c.isspace() for c in token):
                raise ValueError(token)
            return token, float(lasts) if lasts is not None else None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise _not_an_endpoint(cluster, "what answers there is no token endpoint") from None


def _answer(cluster: Cluster, request: Request) -> bytes:
    """Returns the body of an answer, which must be complete in time."""
    timeout_s = _timeout_s(cluster)
    end = time.monotonic() + timeout_s
    opener = build_opener(HTTPSHandler(context=_trusting(cluster)), _NoRedirect)
    content = b""
    with opener.open(request, timeout=timeout_s) as answer:
        while chunk := answer.read1(65_536):
            content += chunk
            if time.monotonic() > end:
                raise TimeoutError
            if len(content) > MOST_BYTES:
                raise ValueError("too long")
    return content


def _timeout_s(cluster: Cluster) -> float:
    return min(TIMEOUT_S, cluster.request_timeout_ms / 1000)


def _trusting(cluster: Cluster) -> ssl.SSLContext:
    file = cluster.sasl_oauthbearer_cafile
    try:
        return ssl.create_default_context(cafile=str(file) if file else None)
    except (ssl.SSLError, OSError) as error:
        key = "KAFKA_SASL_OAUTHBEARER_CAFILE"
        why = getattr(error, "strerror", None) or type(error).__name__
        raise ConfigError(f"{file} holds no usable certificate", why=why, remedy=f"correct {key}", key=key) from None


@contextmanager
def _translated(cluster: Cluster) -> Iterator[None]:
    """Translates what fails at the endpoint. The texts of its answers are left out: they may repeat what was sent."""
    place = urlsplit(cluster.sasl_oauthbearer_token_endpoint_url or "").netloc
    try:
        yield
    except HTTPError as error:
        with error:
            raise _of_status(cluster, place, error) from None
    except (TimeoutError, URLError, HTTPException, OSError, ValueError) as error:
        reason = error.reason if isinstance(error, URLError) else error
        if isinstance(reason, ssl.SSLCertVerificationError):
            why = f"{place}: {reason.verify_message.rstrip('.')}"
            remedy = "set KAFKA_SASL_OAUTHBEARER_CAFILE to the authority of the token endpoint"
            raise NotAuthorised(_what(cluster), why=why, remedy=remedy) from None
        if isinstance(reason, TimeoutError):
            why = f"the token endpoint {place} gave no answer within {_timeout_s(cluster):g} s"
        elif isinstance(reason, OSError):
            why = f"the token endpoint {place} does not answer: {(reason.strerror or str(reason)).lower()}"
        else:
            why = f"the token endpoint {place} does not speak HTTP"
        raise BrokerUnavailable(_what(cluster), why=why, remedy=f"check that server, or correct {ENDPOINT}") from None


def _of_status(cluster: Cluster, place: str, error: HTTPError) -> PsttError:
    code = error.code
    if code in (400, 401, 403):
        why = f"the token endpoint {place} refuses client {cluster.sasl_oauthbearer_client_id!r} ({_error_code(error)})"
        remedy = "check KAFKA_SASL_OAUTHBEARER_CLIENT_ID, _CLIENT_SECRET and _SCOPE"
        return NotAuthorised(_what(cluster), why=why, remedy=remedy)
    if code == 429 or code >= 500:
        why = f"the token endpoint {place} answers {code}"
        return BrokerUnavailable(_what(cluster), why=why, remedy="check that server; a later attempt may succeed")
    return _not_an_endpoint(cluster, f"it answers {code}")


def _error_code(error: HTTPError) -> str:
    try:
        said = json.loads(error.read(10_000))["error"]
        return said if ERROR_CODE.fullmatch(said) else str(error.code)
    except (ValueError, KeyError, TypeError, OSError, HTTPException):
        return str(error.code)


def _not_an_endpoint(cluster: Cluster, why: str) -> ConfigError:
    url = urlsplit(cluster.sasl_oauthbearer_token_endpoint_url or "")
    place = f"{url.scheme}://{url.netloc}{url.path}"
    return ConfigError(_what(cluster), why=f"{place}: {why}", remedy=f"correct {ENDPOINT}", key=ENDPOINT)


def _what(cluster: Cluster) -> str:
    return f'there is no token for the login to cluster "{cluster.name}"'


def _expiry(token: str) -> float | None:
    """Returns `exp` of a JWT in Unix seconds; None for a token of another kind. The signature is the broker's business."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        payload = base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))
        return float(json.loads(payload)["exp"])
    except (ValueError, KeyError, TypeError):
        return None
