"""`/api/monitoring`: for load balancers and Prometheus."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Response

from core import __version__
from core.records.prometheus import CONTENT_TYPE, render
from core.records.runner_status import RunnerStatus
from ui.api import shapes
from ui.api.auth import Reader
from ui.api.problems import responses
from ui.api.workspace import now, opened

router = APIRouter(prefix="/monitoring", tags=["monitoring"])


@router.get("/health", responses=responses(503))
def health() -> shapes.Alive:
    """Whether page and REST respond: 200, also without a runner, since restarting the page would not start one.

    No sign-in.
    """
    with opened() as app:
        runner = _word(app.ledger.heartbeats.newest())
    return shapes.Alive(status="ok" if runner == "alive" else "degraded", runner=runner, version=__version__)


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **responses(401, 403, 503)},
)
def metrics(caller: Reader) -> Response:
    """All metrics, for Prometheus; a token of scope read is enough."""
    with opened() as app:
        return Response(render(app.metrics, app.ledger, app.timezone, now()), media_type=CONTENT_TYPE)


def _word(beat: RunnerStatus | None) -> Literal["alive", "silent", "stopped", "never"]:
    if beat is None:
        return "never"
    if beat.is_alive(now()):
        return "alive"
    return "stopped" if beat.state == "stopped" else "silent"
