"""`/api/scheduler/scheduling/{id}/watermark`: how far an incremental job has sent its rows, and where it goes on."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends

from core.cli.documents import watermark_document
from core.scheduler.watermarks import WatermarkReport, set_watermark, watermark_of
from core.workspace.jobs import read_job_file
from ui.api import shapes
from ui.api.auth import Changer, Reader
from ui.api.body import document
from ui.api.documents import takes
from ui.api.problems import responses
from ui.api.workspace import now, opened

router = APIRouter(prefix="/scheduler/scheduling", tags=["scheduler"], responses=responses(401, 403, 404, 422, 503))

EXAMPLE = {"value": "2026-01-17T02:00:00", "why": "the consumer has lost a day"}


@router.get("/{id}/watermark")
def watermark(caller: Reader, id: str) -> shapes.WatermarkRow:
    """How far an incremental job has sent its rows, and what its next run reads."""
    with opened() as app:
        return _row(watermark_of(app, read_job_file(app.workspace, id).job, now()))


@router.put(
    "/{id}/watermark",
    responses=responses(413, 415),
    openapi_extra=takes(shapes.WatermarkShape, example=EXAMPLE),
)
def change(
    caller: Changer,
    id: str,
    asked: Annotated[shapes.WatermarkShape, Depends(document(shapes.WatermarkShape))],
) -> shapes.WatermarkRow:
    """Sets where the next run begins: it reads the rows after that value, also those that were sent before."""
    with opened() as app:
        job = read_job_file(app.workspace, id).job
        return _row(set_watermark(app, job, asked.value, why=asked.why, caller=caller, now=now()))


def _row(report: WatermarkReport) -> shapes.WatermarkRow:
    return shapes.WatermarkRow.model_validate(watermark_document(report))
