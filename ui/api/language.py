"""The language of an answer of REST: that of the cookie of the page, else the first of `Accept-Language` that there is."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, cast

from starlette.requests import HTTPConnection

from core.language import LANGUAGES, Language, translated
from ui.language import COOKIE

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["RequestLanguage", "language", "request_language", "said", "with_answer"]

_language: ContextVar[Language] = ContextVar("language", default="en")


class RequestLanguage:
    """Reads the language of a request, and says in `Content-Language` which one the answer has.

    Args:
        app: The ASGI application that answers.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        chosen = request_language(HTTPConnection(scope))
        _language.set(chosen)

        async def send_with_language(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = dict(message.get("headers", ()))
                if b"json" in headers.get(b"content-type", b"") and b"content-language" not in headers:
                    message["headers"] = [*message["headers"], *_headers(chosen)]
            await send(message)

        await self.app(scope, receive, send_with_language)


def _headers(chosen: Language) -> list[tuple[bytes, bytes]]:
    return [(b"content-language", chosen.encode()), (b"vary", b"Accept-Language, Cookie")]


def language() -> Language:
    """Returns the language of the request that is being answered."""
    return _language.get()


def said(text: str) -> str:
    """Returns a sentence of `core` in the language of the request."""
    return translated(text, language())


def with_answer(document: dict[str, Any]) -> dict[str, Any]:
    """Returns a document whose `answer` is in the language of the request."""
    return document | {"answer": said(document["answer"])} if isinstance(document.get("answer"), str) else document


def request_language(request: HTTPConnection) -> Language:
    """Returns the language that was chosen on the page in this browser, else the one that the request likes best."""
    chosen = request.cookies.get(COOKIE)
    return cast(Language, chosen) if chosen in LANGUAGES else _accepted(request.headers.get("accept-language", ""))


def _accepted(header: str) -> Language:
    """Returns the language with the highest quality, the first of equal ones; English if there is none of them."""
    best, found = 0.0, "en"
    for part in header.split(","):
        tag, _, options = part.strip().partition(";")
        name = tag.strip().lower().partition("-")[0]
        quality = _quality(options)
        if name in LANGUAGES and quality > best:
            best, found = quality, name
    return cast(Language, found)


def _quality(options: str) -> float:
    name, _, value = options.strip().partition("=")
    if name.strip() != "q":
        return 1.0
    try:
        return float(value)
    except ValueError:
        return 0.0
