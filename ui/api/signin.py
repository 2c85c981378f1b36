"""`/api/signin`: the form for users of the page. The session is a cookie that no script and no other site can use."""

from __future__ import annotations

import hmac
import secrets
from html import escape
from http import HTTPStatus
from typing import Annotated
from urllib.parse import parse_qs

from fastapi import APIRouter, Depends, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from core.errors import AccessRefused, PsttError, TooManyAttempts
from core.records.accounts import SESSION_LASTS, Accounts
from ui.api.auth import require_same_site
from ui.api.body import read_bytes
from ui.api.language import request_language
from ui.api.workspace import now
from ui.http_security import COOKIE, WANTED_COOKIE, wanted_address
from ui.language import in_language, t
from ui.workspaces import home_workspace

router = APIRouter(include_in_schema=False)

FORM_COOKIE = "pstt_form"
PAGE = """<!DOCTYPE html>
<html lang="{language}"><head><meta charset="utf-8"><title>{title} · PSTT Kafka</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
:root {{ color-scheme: light dark; }}
body {{ font-family: "Source Sans", "Segoe UI", Helvetica, Arial, sans-serif; display: grid; place-items: center;
  min-height: 90vh; margin: 0; }}
form {{ display: grid; gap: .75rem; width: min(20rem, 90vw); }}
h1 {{ font-size: 1.35rem; margin: 0; }} label {{ display: grid; gap: .25rem; }}
input, button {{ font: inherit; padding: .55rem .7rem; border-radius: .5rem; border: 1px solid #7b8b91; }}
button {{ background: #0f6b7c; color: #fff; border: 0; cursor: pointer; }}
[role=alert] {{ color: light-dark(#b3261e, #ff8a80); margin: 0; }}
</style></head><body><form method="post" action="{action}"><h1>PSTT Kafka · {title}</h1>{alert}{fields}
<input type="hidden" name="form" value="{form}"><button>{button}</button></form></body></html>
"""


@router.get("/signin")
def form(request: Request) -> Response:
    """Shows the form."""
    return _form(request)


@router.post("/signin")
def sign_in(request: Request, body: Annotated[bytes, Depends(read_bytes)]) -> Response:
    """Starts a session and redirects to the address of the page that was asked for."""
    given = _fields(body)
    if not _is_our_form(request, given):
        return _stale(request)
    address = request.client.host if request.client else "unknown"
    try:
        with Accounts(home_workspace().ledger_file) as accounts:
            cookie = accounts.sign_in(given.get("name", ""), given.get("password", ""), address=address, now=now())
    except TooManyAttempts as error:
        with in_language(request_language(request)):
            text = t("Too many wrong passwords. Try again in {wait} s.", wait=f"{error.wait_s:.0f}")
        return _form(request, text, HTTPStatus.TOO_MANY_REQUESTS)
    except AccessRefused:
        with in_language(request_language(request)):
            text = t("Name or password is wrong.")
        return _form(request, text, HTTPStatus.UNAUTHORIZED)
    wanted = wanted_address(request.cookies).lstrip("/")
    answer = RedirectResponse(f"{_page_of(request)}{wanted}", HTTPStatus.SEE_OTHER)
    answer.set_cookie(
        COOKIE,
        cookie,
        max_age=int(SESSION_LASTS.total_seconds()),
        path="/",
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )
    answer.delete_cookie(FORM_COOKIE, path="/")
    answer.delete_cookie(WANTED_COOKIE, path="/")
    return answer


@router.get("/signout")
def ask_sign_out(request: Request) -> Response:
    """Shows a button to sign out: a link alone ends no session."""
    return _form(request, out=True)


@router.post("/signout")
def sign_out(request: Request, body: Annotated[bytes, Depends(read_bytes)]) -> Response:
    """Ends the session."""
    if not _is_our_form(request, _fields(body)):
        return _stale(request, out=True)
    cookie = request.cookies.get(COOKIE)
    if cookie:
        with Accounts(home_workspace().ledger_file) as accounts:
            accounts.sign_out(cookie)
    answer = RedirectResponse(f"{request.scope.get('root_path', '')}/signin", HTTPStatus.SEE_OTHER)
    answer.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")
    return answer


def _stale(request: Request, *, out: bool = False) -> Response:
    with in_language(request_language(request)):
        text = t("The form was too old or came from elsewhere. Try again.")
    return _form(request, text, HTTPStatus.FORBIDDEN, out=out)


def _form(request: Request, alert: str = "", status: int = HTTPStatus.OK, *, out: bool = False) -> Response:
    token = secrets.token_urlsafe(24)
    with in_language(request_language(request)):
        title = t("Sign out") if out else t("Sign in")
        name, password = escape(t("Name")), escape(t("Password"))
    fields = "" if out else (
        f'<label>{name}<input name="name" autocomplete="username" required autofocus maxlength="200"></label>'
        f'<label>{password}<input name="password" type="password" autocomplete="current-password" required '
        'maxlength="1024"></label>'
    )  # fmt: skip
    page = PAGE.format(
        language=request_language(request),
        title=escape(title),
        action=f"{escape(request.scope.get('root_path', ''))}/{'signout' if out else 'signin'}",
        alert=f'<p role="alert">{escape(alert)}</p>' if alert else "",
        fields=fields,
        form=token,
        button=escape(title),
    )
    answer = HTMLResponse(page, status)
    answer.set_cookie(
        FORM_COOKIE,
        token,
        max_age=3600,
        path="/",
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )
    return answer


def _is_our_form(request: Request, given: dict[str, str]) -> bool:
    """Returns whether it was sent from our form, in this browser.

    Otherwise another site could sign a visitor in as another user.
    """
    try:
        require_same_site(request)
    except PsttError:
        return False
    cookie = request.cookies.get(FORM_COOKIE, "")
    return bool(cookie) and hmac.compare_digest(cookie.encode(), given.get("form", "").encode())


def _fields(body: bytes) -> dict[str, str]:
    try:
        found = parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=10)
    except ValueError:
        return {}
    return {name: values[-1] for name, values in found.items()}


def _page_of(request: Request) -> str:
    return str(request.scope.get("root_path", "")).removesuffix("/api") + "/"
