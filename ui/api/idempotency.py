"""`Idempotency-Key`: a request that a program repeats because it got no response is carried out once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import Header
from starlette.responses import JSONResponse, Response

from core.errors import ConfigError, DeliveryTimeout, LedgerBusy, PsttError, RetriesExhausted
from core.records.idempotency import Earlier, IdempotentAnswers, fingerprint
from core.records.rights import Caller
from core.workspace.paths import Workspace
from ui.api.language import with_answer
from ui.api.problems import PROBLEM, Refused, problem_document, spoken_problem, status_of
from ui.api.workspace import now

__all__ = ["IdempotencyKey", "idempotent"]

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=200,
        description="The same key with the same request within 24 hours gives the first answer and does nothing again.",
        examples=["2026-01-17-evening-run"],
    ),
]
IN_PROGRESS = timedelta(minutes=10)
"""A request that has not ended after this time never will: its process has ended."""
UNKNOWN_OUTCOME = (DeliveryTimeout, RetriesExhausted)
"""The message may be on the topic: an automatic retry could send it twice."""


def idempotent(
    workspace: Workspace,
    caller: Caller,
    key: str | None,
    what: str,
    document: Mapping[str, Any],
    do: Callable[[], tuple[int, dict[str, Any], dict[str, str]]],
) -> Response:
    """Carries a request out, or returns the response that the same request got before.

    Args:
        workspace: The workspace, whose ledger stores the responses.
        caller: The owner of the key.
        key: None: the request is carried out each time.
        what: The route with its names.
        document: The body.
        do: Carries it out. Returns status, body and headers of the response.
    """
    if key is None:
        status, answer, headers = do()
        return JSONResponse(with_answer(answer), status, headers)
    with IdempotentAnswers(workspace.ledger_file) as answers:
        earlier = answers.begin(caller.name, key, fingerprint(what, document), now())
        if earlier is not None:
            return _replayed(earlier)
        try:
            status, answer, headers = do()
        except UNKNOWN_OUTCOME as error:
            problem = problem_document(status_of(error), error)
            answers.keep(caller.name, key, problem["status"], {"problem": True, "body": problem, "headers": {}})
            raise
        except PsttError:
            answers.forget(caller.name, key)
            raise
        answers.keep(caller.name, key, status, {"problem": False, "body": answer, "headers": headers})
    return JSONResponse(with_answer(answer), status, headers)


def _replayed(earlier: Earlier) -> Response:
    if not earlier.is_same:
        raise Refused(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            ConfigError("this Idempotency-Key was used for another request", remedy="use a new key for a new request"),
        )
    if earlier.status is None and now() - earlier.begun_at < IN_PROGRESS:
        raise Refused(
            HTTPStatus.CONFLICT,
            LedgerBusy("the first request with this Idempotency-Key is in progress", remedy="ask again in a moment"),
            headers={"Retry-After": "2"},
        )
    if earlier.status is None:
        raise Refused(
            HTTPStatus.CONFLICT,
            ConfigError(
                "the first request with this Idempotency-Key never came to its end",
                why="the page was stopped in the middle of it",
                remedy="check /api/scheduler/history, or find the message by its key; then use a new key",
            ),
        )
    kept = earlier.answer
    media_type = PROBLEM if kept["problem"] else None
    headers = {**kept["headers"], "Idempotent-Replayed": "true"}
    body = spoken_problem(kept["body"]) if kept["problem"] else with_answer(kept["body"])
    return JSONResponse(body, earlier.status, headers, media_type)
