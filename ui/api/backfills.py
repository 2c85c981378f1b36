"""`/api/scheduler/backfills`: ranges of days that are sent again, their progress, and what can be done with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response

from core.cli.documents import backfill_report_document, watermark_document
from core.errors import ConfigError
from core.records.ledger import Ledger
from core.records.rights import Caller
from core.scheduler import backfills
from core.scheduler.backfills import BackfillOptions, BackfillReport
from core.scheduler.control import first_answer
from core.scheduler.watermarks import backfill_from
from core.workspace.jobs import read_job_file
from ui.api import shapes
from ui.api.auth import MessageSender, Reader
from ui.api.body import document
from ui.api.documents import takes
from ui.api.idempotency import IdempotencyKey, idempotent
from ui.api.language import said, with_answer
from ui.api.pages import Limit, Offset
from ui.api.problems import conflict, not_found, responses
from ui.api.workspace import now, opened

router = APIRouter(prefix="/scheduler/backfills", tags=["scheduler"], responses=responses(401, 403, 422, 503))

EXAMPLE = {"job": "export-cdg-tracce", "from": "2026-01-01", "to": "2026-01-31", "parallel": 4, "order": "newest"}


@router.get("")
def backfills_(caller: Reader, limit: Limit = 50, offset: Offset = 0) -> shapes.BackfillRows:
    """The backfills: those that go on, then the newest first."""
    with opened() as app:
        items = [_row(one) for one in backfills.reports(app.ledger, limit, offset)]
        total = app.ledger.backfills.count()
    return shapes.BackfillRows(items=items, total=total, limit=limit, offset=offset)


@router.post(
    "",
    status_code=HTTPStatus.CREATED,
    response_model=shapes.BackfillPlanned,
    responses=responses(404, 409, 413, 415)
    | {HTTPStatus.ACCEPTED: {"model": shapes.SentFromValue, "description": "With `from_value`: the run is asked for"}},
    openapi_extra=takes(shapes.BackfillShape, example=EXAMPLE),
)
def start(
    caller: MessageSender,
    asked: Annotated[shapes.BackfillShape, Depends(document(shapes.BackfillShape))],
    request: Request,
    key: IdempotencyKey = None,
) -> Response:
    """Plans a run for each scheduled time of a range of days; the runner executes them beside the scheduled runs.

    The days of an incremental job cannot be sent one by one: `from_value` sends all its rows after a value, in one run.
    """
    if asked.from_value is not None:
        return _from_value(caller, asked, asked.from_value, request, key)
    if asked.why:
        raise ConfigError("`why` goes with `from_value`", remedy="add from_value", key="why")
    days = (_day("from", asked.first), _day("to", asked.last))
    with opened() as app:
        job = read_job_file(app.workspace, asked.job).job
        options = BackfillOptions(asked.parallel, asked.order, asked.again, app.settings.PSTT_BACKFILL_WORKERS)

        def do() -> tuple[int, dict[str, Any], dict[str, str]]:
            made = backfills.backfill(app.ledger, job, *days, caller=caller, now=now(), options=options)
            place = f"{request.scope.get('root_path', '')}/scheduler/backfills/{made.request_id}"
            return HTTPStatus.CREATED, _planned(made), {"Location": place}

        return idempotent(app.workspace, caller, key, f"backfill {job.slug}", asked.model_dump(by_alias=True), do)


def _from_value(caller: Caller, asked: shapes.BackfillShape, value: str, request: Request, key: str | None) -> Response:
    of_days = sorted(asked.model_fields_set & {"first", "last", "again", "parallel", "order"})
    if of_days:
        name = {"first": "from", "last": "to"}.get(of_days[0], of_days[0])
        raise ConfigError(
            "`from_value` sends all rows after a value in one run",
            why=f"`{name}` is for a range of days",
            remedy="leave it out",
            key=name,
        )
    with opened() as app:
        job = read_job_file(app.workspace, asked.job).job

        def do() -> tuple[int, dict[str, Any], dict[str, str]]:
            made = backfill_from(app, job, value, why=asked.why, caller=caller, now=now())
            answer = first_answer(app, made.request_id, now) | {"watermark": watermark_document(made.report)}
            place = f"{request.scope.get('root_path', '')}/scheduler/requests/{made.request_id}"
            return HTTPStatus.ACCEPTED, answer, {"Location": place}

        return idempotent(app.workspace, caller, key, f"backfill {job.slug}", asked.model_dump(by_alias=True), do)


@router.get("/{number}", responses=responses(404))
def backfill_(caller: Reader, number: int) -> shapes.BackfillRow:
    """One backfill: its progress, the time left, and the scheduled times without success."""
    with opened() as app, _not_found(app.ledger, number):
        return _row(backfills.report(app.ledger, number))


@router.post("/{number}/pause", responses=responses(404, 409))
def pause(caller: MessageSender, number: int) -> shapes.BackfillChanged:
    """Starts no further run; those that run go on."""
    return _change(backfills.pause_backfill, caller, number)


@router.post("/{number}/resume", responses=responses(404, 409))
def resume(caller: MessageSender, number: int) -> shapes.BackfillChanged:
    """Lets a paused backfill go on."""
    return _change(backfills.resume_backfill, caller, number)


@router.post("/{number}/cancel", responses=responses(404, 409))
def cancel(caller: MessageSender, number: int) -> shapes.BackfillChanged:
    """Runs nothing more of it, and asks its runs in progress to end."""
    return _change(backfills.cancel_backfill, caller, number)


@router.post("/{number}/retry", status_code=HTTPStatus.CREATED, responses=responses(404, 409))
def retry(caller: MessageSender, number: int) -> shapes.BackfillPlanned:
    """Plans the scheduled times of an ended backfill that have no success, as a new backfill."""
    with opened() as app, _not_found(app.ledger, number):
        job = read_job_file(app.workspace, app.ledger.backfills.get(number).job).job
        with conflict():
            made = backfills.retry_backfill(app.ledger, number, job, caller=caller, now=now())
    return shapes.BackfillPlanned.model_validate(with_answer(_planned(made)))


def _change(act: Callable[..., str], caller: Caller, number: int) -> shapes.BackfillChanged:
    with opened() as app, _not_found(app.ledger, number):
        with conflict():
            answer = act(app.ledger, number, caller=caller, now=now())
        state = app.ledger.backfills.get(number).state
    return shapes.BackfillChanged(backfill_id=number, state=state, answer=said(answer))


@contextmanager
def _not_found(ledger: Ledger, number: int) -> Iterator[None]:
    """Responds with 404 to a number that no backfill has."""
    try:
        ledger.backfills.get(number)
    except ConfigError as error:
        raise not_found(error) from None
    yield


def _planned(made: backfills.Backfilled) -> dict[str, Any]:
    return {
        "backfill_id": made.request_id,
        "planned": len(made.scheduled_run_ids),
        "succeeded_before": made.succeeded_before,
        "planned_before": made.planned_before,
        "answer": made.text,
    }


def _row(found: BackfillReport) -> shapes.BackfillRow:
    return shapes.BackfillRow.model_validate(backfill_report_document(found))


def _day(key: str, text: str | None) -> date:
    try:
        day: date | None = date.fromisoformat(text or "")
    except ValueError:
        day = None
    if day is None or not 2000 <= day.year < 2200:
        raise ConfigError(f"`{key}` is not a day", remedy="write it as 2026-01-17", key=key)
    return day
