"""Errors as `application/problem+json` (RFC 9457), with the same texts as on the command line."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from loguru import logger
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Match

from core.admin.alert_rules import NoSuchRule
from core.admin.deleted import NothingDeleted
from core.admin.edit_jobs import NameTaken, NewerEdit
from core.admin.edit_queries import NoSuchQuery, QueryInUse
from core.admin.group_offsets import GroupInUse, NoSuchGroup
from core.admin.versions import NoSuchVersion
from core.errors import (
    AccessRefused,
    AlreadySent,
    BatchRefused,
    BatchTooLarge,
    BrokerUnavailable,
    ConfigError,
    DeliveryTimeout,
    LedgerBusy,
    MessageRefused,
    MessageTooLarge,
    NotAuthorised,
    NotDueYet,
    PsttError,
    RetriesExhausted,
    SecretUnavailable,
    SignInNeeded,
    SourceUnavailable,
    StorageFailed,
    TooManyAttempts,
    TopicMissing,
    WorkersUnavailable,
)
from core.workspace.jobs import NoSuchJob
from ui.api.language import language, said

__all__ = [
    "PROBLEM",
    "Problem",
    "Refused",
    "answer",
    "conflict",
    "install",
    "not_found",
    "problem_document",
    "responses",
    "spoken_problem",
    "status_of",
]

PROBLEM = "application/problem+json"
RETRY_AFTER_S = 5
SPOKEN = frozenset({"title", "detail", "text", "remedy"})
"""Members of a problem that people read."""

STATUS: Mapping[type[PsttError], HTTPStatus] = {
    NoSuchJob: HTTPStatus.NOT_FOUND,
    NoSuchQuery: HTTPStatus.NOT_FOUND,
    NoSuchRule: HTTPStatus.NOT_FOUND,
    NoSuchGroup: HTTPStatus.NOT_FOUND,
    GroupInUse: HTTPStatus.CONFLICT,
    NothingDeleted: HTTPStatus.NOT_FOUND,
    NoSuchVersion: HTTPStatus.NOT_FOUND,
    QueryInUse: HTTPStatus.CONFLICT,
    NameTaken: HTTPStatus.CONFLICT,
    AlreadySent: HTTPStatus.CONFLICT,
    NotDueYet: HTTPStatus.CONFLICT,
    NewerEdit: HTTPStatus.PRECONDITION_FAILED,
    ConfigError: HTTPStatus.UNPROCESSABLE_ENTITY,
    SignInNeeded: HTTPStatus.UNAUTHORIZED,
    TooManyAttempts: HTTPStatus.TOO_MANY_REQUESTS,
    AccessRefused: HTTPStatus.FORBIDDEN,
    TopicMissing: HTTPStatus.NOT_FOUND,
    MessageTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    BatchTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    MessageRefused: HTTPStatus.UNPROCESSABLE_ENTITY,
    BatchRefused: HTTPStatus.UNPROCESSABLE_ENTITY,
    NotAuthorised: HTTPStatus.BAD_GATEWAY,  # the broker or the database refused this program, not this program its caller
    RetriesExhausted: HTTPStatus.BAD_GATEWAY,
    DeliveryTimeout: HTTPStatus.GATEWAY_TIMEOUT,
    BrokerUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    SecretUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    WorkersUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    SourceUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    LedgerBusy: HTTPStatus.SERVICE_UNAVAILABLE,
    StorageFailed: HTTPStatus.SERVICE_UNAVAILABLE,
}


class OneProblem(BaseModel):
    """One thing to fix in a request."""

    text: str
    remedy: str = ""
    line: int | None = None
    column: int | None = None


class Problem(BaseModel):
    """What failed, why, and what to do next."""

    type: str = Field("about:blank", examples=["urn:pstt-kafka:ConfigError"])
    title: str = Field(examples=["A file or a setting of the user has to be corrected."])
    status: int = Field(examples=[422])
    detail: str = Field(examples=['line 4, column 3: unknown key "crom"'])
    remedy: str = Field("", examples=['did you mean "cron"?'])
    retriable: bool = Field(False, description="The same request may succeed later.")
    errors: list[OneProblem] = Field([], description="All of them, where there is more than one.")


class Refused(Exception):
    """Responds to a request with a problem.

    Args:
        status: The HTTP status.
        error: The problem.
        errors: All problems, if there are several; `error` is the first.
        headers: Headers of the response.
    """

    def __init__(
        self,
        status: int,
        error: PsttError,
        *,
        errors: Sequence[PsttError] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(str(error))
        self.status = status
        self.error = error
        self.errors = errors
        self.headers = dict(headers or {})


def not_found(error: ConfigError) -> Refused:
    """Returns the 404 problem of a request that names something that does not exist."""
    return Refused(HTTPStatus.NOT_FOUND, PsttError(error.what, why=error.why, remedy=error.remedy))


@contextmanager
def conflict() -> Iterator[None]:
    """Responds with 409 where the state of a thing does not allow the request, which itself is valid."""
    try:
        yield
    except ConfigError as error:
        raise Refused(HTTPStatus.CONFLICT, error) from None


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Returns the entries of the OpenAPI document for responses that are problems."""
    return {
        status: {"model": Problem, "description": HTTPStatus(status).phrase, "content": {PROBLEM: {}}}
        for status in statuses
    }


def status_of(error: PsttError) -> int:
    """Returns the status of the nearest class that has one."""
    return next((int(STATUS[kind]) for kind in type(error).__mro__ if kind in STATUS), 500)


def problem_document(status: int, error: PsttError, errors: Sequence[PsttError] = ()) -> dict[str, Any]:
    """Returns a problem as the JSON document that is sent."""
    is_plain = type(error) is PsttError  # no more is known than the status
    document = {
        "type": "about:blank" if is_plain else f"urn:pstt-kafka:{type(error).__name__}",
        "title": HTTPStatus(status).phrase if is_plain else (inspect.getdoc(type(error)) or "").splitlines()[0],
        "status": status,
        "detail": error.text,
        "remedy": error.remedy,
        "retriable": error.is_retriable,
    }
    if len(errors) > 1:
        document["errors"] = [_one(one) for one in errors]
    return document


def answer(
    status: int, error: PsttError, errors: Sequence[PsttError] = (), headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """Returns a problem as a response."""
    sent = {"Content-Language": language(), "Vary": "Accept-Language, Cookie", **(headers or {})}
    if status == HTTPStatus.UNAUTHORIZED:
        sent.setdefault("WWW-Authenticate", 'Bearer realm="PSTT Kafka"')
    if isinstance(error, TooManyAttempts):
        sent.setdefault("Retry-After", f"{error.wait_s:.0f}")
    elif status == HTTPStatus.SERVICE_UNAVAILABLE:
        sent.setdefault("Retry-After", str(RETRY_AFTER_S))
    return JSONResponse(spoken_problem(problem_document(status, error, errors)), status, sent, PROBLEM)


def spoken_problem(document: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the document of a problem with its texts in the language of the request; `type` and `status` stay."""
    spoken = {name: said(text) if name in SPOKEN else text for name, text in document.items()}
    if "errors" in document:
        spoken["errors"] = [
            {name: said(text) if name in SPOKEN else text for name, text in one.items()} for one in document["errors"]
        ]
    return spoken


def _one(error: PsttError) -> dict[str, Any]:
    place = {"line": error.line, "column": error.column} if isinstance(error, ConfigError) else {}
    return {"text": error.text, "remedy": error.remedy, **place}


def install(api: FastAPI, routers: Sequence[APIRouter]) -> None:
    """Turns every error of this interface into a problem; `routers` are those that it includes."""

    @api.exception_handler(Refused)
    def refused(request: Request, refused: Refused) -> Response:
        return answer(refused.status, refused.error, refused.errors, refused.headers)

    @api.exception_handler(PsttError)
    def known(request: Request, error: PsttError) -> Response:
        status = status_of(error)
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            logger.warning("{} {} was not done: {}", request.method, request.url.path, error.text)
        return answer(status, error)

    @api.exception_handler(RequestValidationError)
    def invalid(request: Request, error: RequestValidationError) -> Response:
        found = [_of_pydantic(detail) for detail in error.errors()]
        return answer(HTTPStatus.UNPROCESSABLE_ENTITY, found[0], found)

    @api.exception_handler(HTTPException)
    def of_http(request: Request, error: HTTPException) -> Response:
        what = {404: "there is nothing at this address", 405: f"{request.method} is not possible here"}
        text = what.get(error.status_code, str(error.detail))
        headers = dict(error.headers or {})
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            headers["Allow"] = ", ".join(
                _methods([*api.routes, *(route for one in routers for route in one.routes)], request)
            )
        return answer(error.status_code, PsttError(text, remedy="/api/docs lists what there is"), headers=headers)

    @api.exception_handler(Exception)
    def unforeseen(request: Request, error: Exception) -> Response:
        """Returns a response without the traceback, which is in the log."""
        logger.opt(exception=error).error("{} {} failed: {}", request.method, request.url.path, type(error).__name__)
        defect = PsttError(
            f"unexpected {type(error).__name__}",
            remedy="this is a defect of PSTT Kafka: report it with the newest file in logs",
        )
        return answer(HTTPStatus.INTERNAL_SERVER_ERROR, defect)


def _methods(routes: Sequence[BaseRoute], request: Request) -> list[str]:
    """Returns the methods of an address; each of them is a route of its own."""
    there = [route for route in routes if route.matches(request.scope)[0] != Match.NONE]
    methods = {method for route in there for method in getattr(route, "methods", None) or ()}
    return sorted(methods | ({"HEAD"} if "GET" in methods else set()))


def _of_pydantic(detail: Mapping[str, Any]) -> PsttError:
    """Returns the problem of a query parameter or a header; its value is not shown."""
    place = [str(step) for step in detail["loc"][:2]]  # behind that is which of its values, and what pydantic tried
    what = {"query": "parameter", "path": "part of the address", "header": "header"}.get(place[0], place[0])
    why = str(detail["msg"])
    return PsttError(f'the {what} "{".".join(place[1:])}" is not valid', why=why[:1].lower() + why[1:])


REQUEST_BODY = Path("request body")
"""The file that the problem of a body names."""
