"""Which version of a file a request changes: `ETag` in answers, `If-Match` in requests."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated

from fastapi import Header

from core.errors import PsttError
from ui.api.problems import Refused

__all__ = ["ETAG", "IfMatch", "required_match", "seen_sha256"]

ETAG = {"headers": {"ETag": {"description": "The version of the file.", "schema": {"type": "string"}}}}
IfMatch = Annotated[
    str | None, Header(alias="If-Match", description="The ETag of the version that you read, or *.", examples=["*"])
]


def required_match(match: str | None, *, changed: str = "the file since you read it", source: str = "it") -> str:
    """Returns the header of a request that has one.

    Args:
        match: The header.
        changed: What another user may have changed, for the error.
        source: With what the ETag came, for the error.

    Raises:
        Refused: The request does not say which version it changes.
    """
    if match is None:
        raise Refused(
            HTTPStatus.PRECONDITION_REQUIRED,
            PsttError(
                "the request does not say which version it changes",
                why=f"another user may have changed {changed}",
                remedy=f"send the ETag that came with {source} as If-Match, or If-Match: *",
            ),
        )
    return match


def seen_sha256(stored_sha256: str, match: str, etag: str = "") -> str:
    """Returns the hash of the file if it is the version that the caller read, else one that no file has.

    It is compared again, under the lock, when the file is written.

    Args:
        stored_sha256: Of the file as it is now.
        match: The header of the request.
        etag: Of the file as it is now; empty: its hash in quotation marks.
    """
    tags = [tag.strip() for tag in match.split(",")]
    return stored_sha256 if "*" in tags or (etag or f'"{stored_sha256}"') in tags else "another"
