"""The OpenAPI document, including the bodies that `ui.api.body` reads, and its page at `/api/docs`."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from core.workspace.job_schema import JobShape
from ui.api import alert_shapes, file_shapes, message_shapes, shapes

__all__ = ["install", "takes"]

TAKEN: tuple[type[BaseModel], ...] = (
    JobShape,
    shapes.SendShape,
    shapes.TestShape,
    shapes.RunShape,
    shapes.BackfillShape,
    shapes.WatermarkShape,
    shapes.NoteShape,
    file_shapes.QueryShape,
    file_shapes.RenameShape,
    file_shapes.RestoreShape,
    alert_shapes.AcknowledgeShape,
    alert_shapes.SilenceShape,
    alert_shapes.ChannelTestShape,
    alert_shapes.SimulateShape,
    alert_shapes.RuleShape,
    message_shapes.ResetShape,
)
REFERENCE = "#/components/schemas/{model}"

PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>PSTT Kafka REST</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="docs/static/favicon.png"><link rel="stylesheet" href="docs/static/swagger-ui.css"></head>
<body><div id="swagger-ui"></div>
<script src="docs/static/swagger-ui-bundle.js"></script><script src="docs/start.js"></script></body></html>
"""
START = """SwaggerUIBundle({url: "openapi.json", dom_id: "#swagger-ui", deepLinking: true, validatorUrl: null,
  persistAuthorization: false, presets: [SwaggerUIBundle.presets.apis, SwaggerUIBundle.SwaggerUIStandalonePreset]})
"""


def takes(model: type[BaseModel], *, required: bool = True, example: Any = None) -> dict[str, Any]:
    """Returns the description of a body for the OpenAPI document."""
    content: dict[str, Any] = {"schema": {"$ref": REFERENCE.format(model=model.__name__)}}
    if example is not None:
        content["example"] = example
    return {"requestBody": {"required": required, "content": {"application/json": content}}}


def install(api: FastAPI) -> None:
    """Adds the OpenAPI document and the page that shows it; the page loads nothing from other servers."""

    def openapi() -> dict[str, Any]:
        if api.openapi_schema is None:
            api.openapi_schema = _document(api)
        return api.openapi_schema

    api.openapi = openapi  # type: ignore[method-assign]
    api.router.routes += [
        Route("/docs", _page),
        Route("/docs/start.js", _start),
        Mount("/docs/static", StaticFiles(directory=_scripts())),
    ]


def _document(api: FastAPI) -> dict[str, Any]:
    document = get_openapi(
        title=api.title,
        version=api.version,
        summary=api.summary,
        description=api.description,
        routes=api.routes,
        servers=[{"url": "/api"}],
        separate_input_output_schemas=False,
    )
    _, taken = models_json_schema([(model, "validation") for model in TAKEN], ref_template=REFERENCE)
    document["components"]["schemas"] = {**taken["$defs"], **document["components"]["schemas"]}
    return document


def _scripts() -> Path:
    """Returns the folder with the files of Swagger UI; they come with a package of which nothing else is used."""
    spec = find_spec("fastapi_offline")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("fastapi-offline is not installed: pip install -r requirements.txt")
    return Path(spec.origin).parent / "static"


def _page(request: Request) -> Response:
    return HTMLResponse(PAGE)


def _start(request: Request) -> Response:
    return Response(START, media_type="text/javascript")
