"""Addresses that no view has: the browser is led to the Overview, which says so in the reader's language.

Streamlit itself would show a dialog in English, also for `/overview`, since the first view has no name in its address.
"""

from __future__ import annotations

from http import HTTPStatus
from urllib.parse import urlencode

import streamlit as st
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from streamlit import config

from ui.components.text import plain
from ui.http_security import opens_the_page, path_of
from ui.language import t
from ui.pages import PAGES

__all__ = ["KnownAddresses", "show_unknown"]

UNKNOWN = "unknown"
"""The query parameter with the address that no view has."""
LONGEST = 100
_KNOWN = {"", *(page.name for page in PAGES[1:]), *(name for page in PAGES for name in page.details.values())}


class KnownAddresses:
    """Redirects a browser that opens an address without a view.

    Args:
        app: The ASGI application that answers.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, or redirects it to the Overview."""
        if scope["type"] == "http" and opens_the_page(scope) and _is_unknown(name := path_of(scope).strip("/")):
            query = scope.get("query_string", b"").decode("latin-1")
            if name != PAGES[0].name:
                query = urlencode({UNKNOWN: name[:LONGEST]})
            place = f"{scope.get('root_path', '')}/{'?' if query else ''}{query}"
            await RedirectResponse(place, HTTPStatus.SEE_OTHER)(scope, receive, send)
            return
        await self.app(scope, receive, send)


def _is_unknown(name: str) -> bool:
    if config.get_option("server.baseUrlPath"):  # each address begins with it; Streamlit answers as before
        return False
    return name not in _KNOWN and "." not in name  # a file of Streamlit has an ending


def show_unknown() -> None:
    """Says that there is no such view, where one was asked for."""
    name = st.query_params.get(UNKNOWN)
    if name:
        st.warning(t("There is no page /{name}. This is the Overview.", name=plain(name[:LONGEST])))
