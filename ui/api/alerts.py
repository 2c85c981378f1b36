"""`/api/alerts`: open alerts, acknowledgements, silences, the rules, tests of channels, and what would have fired."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Response

from core.admin import alerts as actions
from core.admin.alert_rules import StoredRules, replace_rule, stored_rules
from core.app import App
from core.cli.alert_documents import (
    alert_document,
    incident_document,
    rules_document,
    silence_document,
    simulation_document,
)
from core.errors import ConfigError
from core.notify.silences import AlertRecords
from ui.api import alert_shapes as shapes
from ui.api.auth import Administrator, MessageSender, Reader
from ui.api.body import document
from ui.api.documents import takes
from ui.api.etags import IfMatch, required_match, seen_sha256
from ui.api.problems import conflict, not_found, responses
from ui.api.workspace import now, opened

router = APIRouter(prefix="/alerts", tags=["alerts"], responses=responses(401, 403, 422, 503))

SILENCE = {"rule": "job_late", "subject": "export-cdg-tracce", "until": "2h", "note": "the database is moved"}
SIMULATION = {"days": 7, "rules": {"error_rate": {"threshold_percent": 5, "for_s": 300}}}
RULE = {"enabled": True, "threshold_percent": 5, "for_s": 300, "actions": ["mail", "log_error"]}
ETAG = {"headers": {"ETag": {"description": "The version of alerts.json.", "schema": {"type": "string"}}}}
NO_FILE = '"default"'
"""The ETag of a workspace without alerts.json."""


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


@router.get("/rules", responses={**responses(409), 200: ETAG})
def rules(caller: Reader, response: Response) -> shapes.AlertRuleRows:
    """The rules that apply, with every key: those of alerts.json, else the defaults."""
    with opened() as app:
        return _rules(_stored_rules(app), response)


@router.put(
    "/rules/{rule}",
    responses={**responses(404, 409, 412, 413, 415, 428), 200: ETAG},
    openapi_extra=takes(shapes.RuleShape, example=RULE),
)
def change_rule(
    caller: Administrator,
    rule: str,
    asked: Annotated[shapes.RuleShape, Depends(document(shapes.RuleShape))],
    response: Response,
    match: IfMatch = None,
) -> shapes.AlertRuleRows:
    """Replaces one rule of alerts.json, unless the file was changed after you read it. The runner has it within 10 s."""
    with opened() as app:
        known = _stored_rules(app)
        known.rule(rule)
        made = replace_rule(
            app.workspace,
            app.ledger,
            rule,
            asked.model_dump(exclude_unset=True),
            seen_sha256=_seen(known, match),
            caller=caller,
            now=now(),
        )
    return _rules(made, response)


def _stored_rules(app: App) -> StoredRules:
    """Responds to an invalid alerts.json with 409: the request itself is valid."""
    with conflict():
        return stored_rules(app.workspace)


def _rules(found: StoredRules, response: Response) -> shapes.AlertRuleRows:
    response.headers["ETag"] = _etag(found)
    return shapes.AlertRuleRows.model_validate(rules_document(found))


def _etag(found: StoredRules) -> str:
    return f'"{found.sha256}"' if found.sha256 else NO_FILE


def _seen(known: StoredRules, match: str | None) -> str:
    """Returns the hash of the version that the caller read; see `seen_sha256`."""
    given = required_match(match, changed="the rules since you read them", source="them")
    return seen_sha256(known.sha256, given, _etag(known))


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
