"""The REST interface: mounted at `/api` beside the page, over the same workspace, with the texts of the command line."""

from __future__ import annotations

from fastapi import Depends, FastAPI

from core import __version__
from ui.api import (
    alerts,
    backfills,
    documents,
    files,
    kafka,
    messages,
    monitoring,
    notes,
    problems,
    scheduler,
    signin,
    versions,
    watermarks,
)
from ui.api.head import HeadAsGet
from ui.api.language import RequestLanguage
from ui.api.parameters import require_once
from ui.api.workspace import ChosenWorkspace

__all__ = ["api", "make_api"]

DESCRIPTION = """SQL files become JSON messages on Kafka, and every row is accounted for.

A program sends `Authorization: Bearer TOKEN`; `python -m core token add NAME --scope read|send|admin` makes one.
Without users, callers on this machine need none. Where the page has several workspaces, `?workspace=NAME` chooses one,
and the first has the users and tokens. A problem is `application/problem+json`. With `Accept-Language: it` the texts of
problems, and `answer`, are in Italian; codes, keys and states never change."""


def make_api() -> FastAPI:
    """Returns the application with all its routes."""
    made = FastAPI(
        title="PSTT Kafka",
        version=__version__,
        summary="Jobs, runs, messages and figures of one workspace.",
        description=DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
        dependencies=[Depends(require_once)],
    )
    routers = [
        module.router
        for module in (
            kafka,
            messages,
            scheduler,
            watermarks,
            notes,
            backfills,
            files,
            versions,
            alerts,
            monitoring,
            signin,
        )
    ]
    for router in routers:
        made.include_router(router)
    made.add_middleware(HeadAsGet)
    made.add_middleware(ChosenWorkspace)
    made.add_middleware(RequestLanguage)
    problems.install(made, routers)
    documents.install(made)
    return made


api = make_api()
