"""Identifies the caller of a request, by token, by the page's session, or as the local caller, and checks the right."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, Request
from fastapi.security import APIKeyCookie, HTTPBearer
from starlette.requests import HTTPConnection

from core.errors import AccessRefused, SignInNeeded
from core.records.accounts import Accounts
from core.records.rights import Caller, Right, local_caller, require_right
from core.workspace.paths import Workspace
from ui.api.workspace import now
from ui.cache import SharedCache
from ui.http_security import COOKIE, is_local_name, oidc_is_set_up
from ui.workspaces import home_workspace

__all__ = ["Administrator", "Changer", "MessageSender", "Reader", "Watcher", "caller_of", "require_same_site"]

_bearer = HTTPBearer(auto_error=False, description="A token of `python -m core token add`.")
_cookie = APIKeyCookie(name=COOKIE, auto_error=False, description="The session of the page.")


def caller_of(request: HTTPConnection) -> Caller:
    """Returns the caller, read from the ledger now.

    Raises:
        SignInNeeded: The caller is not known.
        AccessRefused: It came from another web site, or under another name of this machine.
    """
    return _let_in(request, _find(_shown(request)))


_Shown = tuple[Path, str | None, str]
"""Workspace, token and cookie."""


def _shown(request: HTTPConnection) -> _Shown:
    return home_workspace().root, request.headers.get("authorization"), request.cookies.get(COOKIE, "")


def _find(shown: _Shown) -> Caller:
    folder, authorization, cookie = shown
    with Accounts(Workspace(folder).ledger_file) as accounts:
        if authorization:
            kind, _, text = authorization.partition(" ")
            return accounts.token_caller(text.strip() if kind.lower() == "bearer" else "", now())
        if cookie and (known := accounts.whoami(cookie, now())):
            return known
        if accounts.has_users() or oidc_is_set_up():
            raise SignInNeeded(
                "this needs a token or a sign-in", remedy="python -m core token add makes a token; /api/signin signs in"
            )
    return local_caller()


def _let_in(request: HTTPConnection, caller: Caller) -> Caller:
    """Checks where the request comes from.

    A program sends its token on purpose; a browser sends cookies with any site's request.
    """
    if not request.headers.get("authorization"):
        require_same_site(request)
    if caller.is_local:
        require_local(request)
    return caller


def require_local(request: HTTPConnection) -> None:
    """Without users, accepts only requests for this machine under its local name, which stops DNS rebinding."""
    if not is_local_name(request.headers.get("host", "")):
        raise AccessRefused(
            "there are no users, so only this machine has access",
            why="the request came for another name than 127.0.0.1 or localhost",
            remedy="python -m core user add NAME --role admin begins sign-in",
        )


def require_same_site(request: HTTPConnection) -> None:
    """Refuses changes that another web site sends through the browser of a signed-in or local user."""
    if request.scope.get("method", "GET") in ("GET", "HEAD", "OPTIONS"):
        return
    origin, site = request.headers.get("origin"), request.headers.get("sec-fetch-site", "none")
    is_other = origin is not None and urlsplit(origin).netloc.lower() != request.headers.get("host", "").lower()
    if is_other or site not in ("same-origin", "none"):
        raise AccessRefused("another web site asked for this", remedy="use this page, or a token")


_KNOWN_S = 1.0
"""A caller is read once a second, and again when the ledger has changed, even if it asks for metrics 300 times a second.

All other requests read it each time. It is no longer, because Windows may report a changed file late.
"""
_known: SharedCache[tuple[_Shown, tuple[tuple[int, int], ...]], Caller] = SharedCache(
    lambda asked: _find(asked[0]), fresh_s=_KNOWN_S, stale_s=_KNOWN_S, max_keys=256
)


def _ledger_state(folder: Path) -> tuple[tuple[int, int], ...]:
    """Returns a value that changes with each change of tokens and users."""
    ledger = Workspace(folder).ledger_file
    state = []
    for file in (ledger, ledger.with_name(f"{ledger.name}-wal")):
        with suppress(FileNotFoundError):
            status = file.stat()
            state.append((status.st_mtime_ns, status.st_size))
    return tuple(state)


Bearer = Annotated[object, Depends(_bearer)]
Cookie = Annotated[object, Depends(_cookie)]


async def _watcher(request: Request, bearer: Bearer = None, cookie: Cookie = None) -> Caller:
    shown = _shown(request)
    return _allowed(_let_in(request, await _known.get_async((shown, _ledger_state(shown[0])))), "read")


def _reader(request: Request, bearer: Bearer = None, cookie: Cookie = None) -> Caller:
    return _allowed(caller_of(request), "read")


def _sender(request: Request, bearer: Bearer = None, cookie: Cookie = None) -> Caller:
    return _allowed(caller_of(request), "send")


def _changer(request: Request, bearer: Bearer = None, cookie: Cookie = None) -> Caller:
    return _allowed(caller_of(request), "change")


def _administrator(request: Request, bearer: Bearer = None, cookie: Cookie = None) -> Caller:
    return _allowed(caller_of(request), "admin")


def _allowed(caller: Caller, right: Right) -> Caller:
    require_right(caller, right)
    return caller


Watcher = Annotated[Caller, Depends(_watcher)]
Reader = Annotated[Caller, Depends(_reader)]
MessageSender = Annotated[Caller, Depends(_sender)]
Changer = Annotated[Caller, Depends(_changer)]
Administrator = Annotated[Caller, Depends(_administrator)]
