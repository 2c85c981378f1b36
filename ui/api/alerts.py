"""`/api/alerts`: open alerts, acknowledgements, silences, tests of channels, and what the rules would have fired."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends

from core.admin import alerts as actions
from core.app import App
from core.cli.alert_documents import alert_document, incident_document, silence_document, simulation_document
from core.errors import ConfigError
from core.notify.silences import AlertRecords
from ui.api import alert_shapes as shapes
from ui.api.auth import MessageSender, Reader
from ui.api.body import document
from ui.api.documents import takes
from ui.api.problems import conflict, not_found, responses
from ui.api.workspace import now, opened

router = APIRouter(prefix="/alerts", tags=["alerts"], responses=responses(401, 403, 422, 503))

SILENCE = {"rule": "job_late", "subject": "export-cdg-tracce", "until": "2h", "note": "the database is moved"}
SIMULATION = {"days": 7, "rules": {"error_rate": {"threshold_percent": 5, "for_s": 300}}}


@router.get("")
def alerts(caller: Reader) -> shapes.AlertRows:
    """The open alerts and the newest that have ended, the silences that hold, and the messages about them."""
    with opened() as app:
        pending = [incident for incident in app.outbox.open_incidents() if incident.state == "pending"]
        found = alert_document(
            [*pending, *app.outbox.incidents()], app.outbox.waiting(), app.outbox.newest(10), _silences(app)
        )
    return shapes.AlertRows.model_validate(found)


@router.post(
    "/{number}/acknowledge",
    responses=responses(404, 409, 413, 415),
    openapi_extra=takes(shapes.AcknowledgeShape, required=False, example={"note": "the broker is restarted"}),
)
def acknowledge(
    caller: MessageSender,
    number: int,
    asked: Annotated[shapes.AcknowledgeShape, Depends(document(shapes.AcknowledgeShape, optional=True))],
) -> shapes.AlertRow:
    """Records that the caller knows of an open alert; it stays in the list."""
    with opened() as app:
        records = AlertRecords(app.ledger)
        with _not_found():
            records.incident(number)
        with conflict():
            made = actions.acknowledge(app.ledger, number, asked.note, caller=caller, now=now())
        return shapes.AlertRow.model_validate(incident_document(made, _silences(app)))


@router.get("/silences")
def silences(caller: Reader) -> list[shapes.SilenceRow]:
    """The silences that hold, the one that ends next first."""
    with opened() as app:
        return [_row(silence) for silence in _silences(app)]


@router.post(
    "/silences",
    status_code=HTTPStatus.CREATED,
    responses=responses(413, 415),
    openapi_extra=takes(shapes.SilenceShape, example=SILENCE),
)
def silence(
    caller: MessageSender,
    asked: Annotated[shapes.SilenceShape, Depends(document(shapes.SilenceShape))],
) -> shapes.SilenceRow:
    """Keeps the messages about a rule, a subject or both back up to a time; what still lasts then is reported."""
    with opened() as app:
        until = actions.silence_end(asked.until, app.timezone, now())
        return _row(
            actions.silence(
                app.ledger,
                rule=asked.rule or "",
                subject=asked.subject or "",
                until=until,
                note=asked.note,
                caller=caller,
                now=now(),
            )
        )


@router.delete("/silences/{number}", responses=responses(404, 409))
def end_silence(caller: MessageSender, number: int) -> shapes.SilenceRow:
    """Ends a silence before its time."""
    with opened() as app:
        with _not_found():
            AlertRecords(app.ledger).silence(number)
        with conflict():
            return _row(actions.end_silence(app.ledger, number, caller=caller, now=now()))


@router.post(
    "/test",
    responses=responses(413, 415),
    openapi_extra=takes(shapes.ChannelTestShape, required=False, example={"channel": "mail", "to": ["a@example.com"]}),
)
def test(
    caller: MessageSender,
    asked: Annotated[shapes.ChannelTestShape, Depends(document(shapes.ChannelTestShape, optional=True))],
) -> shapes.Delivered:
    """Sends a test message at once, by mail or through a channel of alerts.json."""
    with opened() as app:
        result = actions.send_test(app, asked.channel, caller=caller, now=now(), to=asked.to)
    return shapes.Delivered.model_validate(asdict(result))


@router.post(
    "/simulate",
    responses=responses(413, 415),
    openapi_extra=takes(shapes.SimulateShape, required=False, example=SIMULATION),
)
def simulate(
    caller: Reader,
    asked: Annotated[shapes.SimulateShape, Depends(document(shapes.SimulateShape, optional=True))],
) -> shapes.SimulationRows:
    """What the rules would have fired in the last days, with the numbers of alerts.json or with others; changes nothing."""
    with opened() as app:
        found = actions.simulated(app, days=asked.days, now=now(), changes=asked.rules)
    return shapes.SimulationRows.model_validate(simulation_document(found))


def _silences(app: App) -> list[Any]:
    return AlertRecords(app.outbox).active(now())


def _row(silence: Any) -> shapes.SilenceRow:
    return shapes.SilenceRow.model_validate(silence_document(silence))


@contextmanager
def _not_found() -> Iterator[None]:
    """Responds with 404 to a number that is not there."""
    try:
        yield
    except ConfigError as error:
        raise not_found(error) from None
