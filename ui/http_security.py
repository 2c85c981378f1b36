"""HTTP security of page and REST: who may reach them without signing in, and the headers of every response."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from anyio import to_thread
from starlette.requests import HTTPConnection
from starlette.responses import RedirectResponse, Response

from core.errors import ConfigError
from core.records.accounts import Accounts
from core.workspace.paths import Workspace
from ui.workspaces import home_workspace

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = [
    "COOKIE",
    "WANTED_COOKIE",
    "SecurityHeaders",
    "SignInFirst",
    "is_local_name",
    "oidc_is_set_up",
    "opens_the_page",
    "path_of",
    "require_sign_in_or_loopback",
    "wanted_address",
]

COOKIE = "pstt_session"
WANTED_COOKIE = "pstt_wanted"
WANTED_S = 600
LONGEST_WANTED = 2_000
"""Characters; a browser keeps cookies up to 4 kB."""
_ADDRESS = re.compile(r"/(?![/\\])[A-Za-z0-9_.~%/-]*(\?[\x21-\x7e]*)?")

SELF_ONLY = (
    "default-src 'self'; "
    # Streamlit's own script is inline in its HTML; plotly and vega compile expressions.
    "script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    "connect-src 'self' data: blob:; worker-src 'self' blob:; media-src 'self' data: blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-src 'self'; frame-ancestors 'self'"
)
API_ONLY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
NOT_THE_PAGE = ("/api/", "/_stcore/", "/static/", "/media/", "/component/", "/oauth2callback", "/auth/")
HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"SAMEORIGIN"),
    (b"referrer-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), microphone=(), geolocation=()"),
    (b"cross-origin-opener-policy", b"same-origin"),
)


def is_local_name(host: str) -> bool:
    """Whether a Host header, or an address to listen on, is a loopback name or address."""
    name = host.strip().lower()
    if name.startswith("["):
        name = name[1:].partition("]")[0]
    elif name.count(":") == 1:
        name = name.partition(":")[0]
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


@lru_cache(maxsize=1)
def oidc_is_set_up() -> bool:
    """Whether secrets.toml has a section [auth]; read once, as Streamlit does."""
    import streamlit as st  # slow, and REST alone works without it
    from streamlit.errors import StreamlitSecretNotFoundError

    try:
        return "auth" in st.secrets
    except (FileNotFoundError, StreamlitSecretNotFoundError):
        return False


def require_sign_in_or_loopback(address: str | None, workspace: Workspace) -> None:
    """Refuses to listen for other machines while no sign-in is required.

    Args:
        address: `server.address`; None: every interface.
        workspace: The workspace whose users may sign in.

    Raises:
        ConfigError: It listens on more than loopback, and no sign-in is required.
    """
    if address and is_local_name(address):
        return
    with Accounts(workspace.ledger_file) as accounts:
        if accounts.has_users() or oidc_is_set_up():
            return
    raise ConfigError(
        f"the page does not listen on {address or 'every address'} while nobody has to sign in",
        why=f"workspace {workspace.root.name} has no user, and .streamlit/secrets.toml has no [auth]",
        remedy="python -m core user add NAME --role admin, or start it with --server.address 127.0.0.1",
    )


class SecurityHeaders:
    """Adds to each response the headers by which a browser loads nothing from other sites and is framed by none.

    Args:
        app: The ASGI application that answers.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on and adds the headers to its response."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        of_api = scope.get("path", "").startswith("/api")
        policy = (b"content-security-policy", (API_ONLY if of_api else SELF_ONLY).encode())

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = message.setdefault("headers", [])
                known = {name.lower() for name, _ in headers}
                message["headers"] = [*headers, *(pair for pair in (*HEADERS, policy) if pair[0] not in known)]
                if of_api and b"cache-control" not in known:
                    message["headers"].append((b"cache-control", b"no-store"))
            await send(message)

        await self.app(scope, receive, send_with_headers)


class SignInFirst:
    """Redirects a browser that opens the page to the sign-in form, where sign-in is required and missing.

    The page's script checks the sign-in itself: the redirect only saves the user a click.

    Args:
        app: The ASGI application that answers.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, or redirects it to the form."""
        if scope["type"] == "http" and opens_the_page(scope) and not await to_thread.run_sync(_may_open, scope):
            answer = RedirectResponse(f"{scope.get('root_path', '')}/api/signin", HTTPStatus.SEE_OTHER)
            remember_wanted(answer, scope)
            await answer(scope, receive, send)
            return
        await self.app(scope, receive, send)


def remember_wanted(answer: Response, scope: Scope) -> None:
    """Keeps the address that was asked for in a cookie, so that the sign-in leads there."""
    path = path_of(scope)
    query = scope.get("query_string", b"").decode("latin-1")
    wanted = quote(path) + (f"?{query}" if query else "")
    if wanted != "/" and is_of_the_page(wanted):
        is_https = scope.get("scheme") == "https"
        answer.set_cookie(
            WANTED_COOKIE, quote(wanted, safe=""), max_age=WANTED_S, path="/", secure=is_https, httponly=True,
            samesite="strict",
        )  # fmt: skip


def wanted_address(cookies: Mapping[str, str]) -> str:
    """Returns the address, below the page's, that was asked for before the sign-in; empty: none, or not one of ours."""
    wanted = unquote(cookies.get(WANTED_COOKIE, ""))
    return wanted if is_of_the_page(wanted) else ""


def is_of_the_page(address: str) -> bool:
    """Returns whether an address leads to a view of this page; after two slashes a browser expects another server."""
    return (
        _ADDRESS.fullmatch(address) is not None
        and len(address) <= LONGEST_WANTED
        and not address.startswith(NOT_THE_PAGE)
    )


def path_of(scope: Scope) -> str:
    """Returns the path of a request, below the address that the page is served at."""
    return str(scope["path"]).removeprefix(str(scope.get("root_path", "")))


def opens_the_page(scope: Scope) -> bool:
    """Returns whether a browser asks for a view, and not for a file or an answer of REST."""
    accepted = dict(scope["headers"]).get(b"accept", b"")
    return scope["method"] == "GET" and b"text/html" in accepted and not scope["path"].startswith(NOT_THE_PAGE)


def _may_open(scope: Scope) -> bool:
    if oidc_is_set_up():  # the page itself offers both ways
        return True
    with Accounts(home_workspace().ledger_file) as accounts:
        cookie = HTTPConnection(scope).cookies.get(COOKIE, "")
        return not accounts.has_users() or accounts.whoami(cookie, datetime.now(UTC)) is not None
