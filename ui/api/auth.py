"""Who is behind a request, and may that one do this: by token, by the page's session, or by being at this machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, Request
from fastapi.security import APIKeyCookie, HTTPBearer
from starlette.requests import HTTPConnection

from core.accounts import Accounts, Caller, Right, local_caller
from core.errors import AccessRefused, SignInNeeded
from ui.api.workspace import now, workspace
from ui.doors import COOKIE, is_local_name, oidc_is_set_up

__all__ = ["Changer", "Reader", "Sender", "caller_of", "require_same_site"]

_bearer = HTTPBearer(auto_error=False, description="A token of `python -m core token add`.")
_cookie = APIKeyCookie(name=COOKIE, auto_error=False, description="The session of the page.")


def caller_of(request: HTTPConnection) -> Caller:
    """Who asks.

    Raises:
        SignInNeeded: Nobody whom we know.
        AccessRefused: It came from another web site, or under another name of this machine.
    """
    with Accounts(workspace().ledger_file) as accounts:
        authorization = request.headers.get("authorization", "")
        if authorization:
            kind, _, text = authorization.partition(" ")
            return accounts.token_caller(text.strip() if kind.lower() == "bearer" else "", now())
        require_same_site(request)
        cookie = request.cookies.get(COOKIE)
        if cookie and (known := accounts.whoami(cookie, now())):
            return known
        if accounts.has_users() or oidc_is_set_up():
            raise SignInNeeded(
                "this needs a token or a sign-in", remedy="python -m core token add makes a token; /api/signin signs in"
            )
    require_local(request)
    return local_caller()


def require_local(request: HTTPConnection) -> None:
    """Without users only this machine is let in, under its own name: a web site cannot borrow it (DNS rebinding)."""
    if not is_local_name(request.headers.get("host", "")):
        raise AccessRefused(
            "nobody signs in here, so only this machine is let in",
            why="the request came for another name than 127.0.0.1 or localhost",
            remedy="python -m core user add NAME --role admin begins sign-in",
        )


def require_same_site(request: HTTPConnection) -> None:
    """A web site elsewhere may not use the browser of somebody who is signed in, or who sits at this machine."""
    if request.scope.get("method", "GET") in ("GET", "HEAD", "OPTIONS"):
        return
    origin, site = request.headers.get("origin"), request.headers.get("sec-fetch-site", "none")
    is_other = origin is not None and urlsplit(origin).netloc.lower() != request.headers.get("host", "").lower()
    if is_other or site not in ("same-origin", "none"):
        raise AccessRefused("another web site asked for this", remedy="use this page, or a token")


def _needs(right: Right) -> Callable[..., Caller]:
    def check(
        request: Request,
        bearer: Annotated[object, Depends(_bearer)] = None,
        cookie: Annotated[object, Depends(_cookie)] = None,
    ) -> Caller:
        caller = caller_of(request)
        if not caller.may(right):
            raise AccessRefused(f"{caller.name} may not do this", why=_WHY[right], remedy="ask an admin for the right")
        return caller

    return check


_WHY: dict[Right, str] = {
    "read": "it needs a viewer, or a token that may read",
    "send": "it needs an operator, or a token that may send",
    "change": "it needs an operator, or a token of scope admin",
    "admin": "it needs an admin",
}

Reader = Annotated[Caller, Depends(_needs("read"))]
Sender = Annotated[Caller, Depends(_needs("send"))]
Changer = Annotated[Caller, Depends(_needs("change"))]
