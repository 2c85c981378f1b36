"""Reads the bodies of requests: JSON up to a size limit, with problems reported like those of a file."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import TypeVar

from anyio import to_thread
from fastapi import Request
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect

from core.errors import ConfigError, PsttError
from core.workspace.json_file import parse_json_file
from core.workspace.validation import validation_errors
from ui.api.problems import REQUEST_BODY, Refused

__all__ = ["MOST_BYTES", "document", "large_document", "read_bytes", "read_text"]

MOST_BYTES = 2 * 1024 * 1024
"""Twice a broker's default limit of one message, for JSON's escapes."""
MOST_BYTES_OF_SQL = 12 * 1024 * 1024
"""Twice the largest SQL file, for JSON's escapes."""

M = TypeVar("M", bound=BaseModel)


async def read_bytes(request: Request) -> bytes:
    """Returns the body.

    Raises:
        Refused: It is longer than `MOST_BYTES`, or the caller disconnected.
    """
    return await _read(request, MOST_BYTES)


async def _read(request: Request, most_bytes: int) -> bytes:
    content = bytearray()
    try:
        async for chunk in request.stream():
            content += chunk
            if len(content) > most_bytes:
                raise Refused(
                    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                    PsttError(f"the request is longer than {most_bytes:,} bytes", remedy="send less at once"),
                    headers={"Connection": "close"},
                )
    except ClientDisconnect:
        raise Refused(HTTPStatus.BAD_REQUEST, PsttError("the caller has gone before the end")) from None
    return bytes(content)


async def read_text(request: Request) -> str:
    """Returns a JSON body as text; empty if there is none.

    Raises:
        Refused: It has another type, is too long, or is not UTF-8.
    """
    return await _text(request, MOST_BYTES)


async def _text(request: Request, most_bytes: int) -> str:
    content = await _read(request, most_bytes)
    if not content:
        return ""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Refused(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            PsttError("the request is not JSON", why=f"its type is {kind or 'not given'}"[:200],
                        remedy="send it with Content-Type: application/json"),
        )  # fmt: skip
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        error = ConfigError("the text is not UTF-8", file=REQUEST_BODY)
        raise Refused(HTTPStatus.UNPROCESSABLE_ENTITY, error) from None


def document(model: type[M], *, optional: bool = False) -> Callable[[Request], Awaitable[M]]:
    """Returns a dependency that reads a body as that model.

    Args:
        model: The shape of the body.
        optional: No body means the model's defaults.
    """

    async def read(request: Request) -> M:
        text = await read_text(request)
        return model() if not text and optional else _parsed(model, text)

    return read


def large_document(model: type[M]) -> Callable[[Request], Awaitable[M]]:
    """As `document`, for a body with an SQL file, which may be larger than a message."""

    async def read(request: Request) -> M:
        text = await _text(request, MOST_BYTES_OF_SQL)
        return await to_thread.run_sync(_parsed, model, text)

    return read


def _parsed(model: type[M], text: str) -> M:
    file = parse_json_file(REQUEST_BODY, text)
    try:
        return model.model_validate(file.document)
    except ValidationError as error:
        found = validation_errors(file, (), error, model)
        raise Refused(HTTPStatus.UNPROCESSABLE_ENTITY, found[0], errors=found) from None
