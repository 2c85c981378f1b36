"""The JSON documents of alerts, silences and simulations; REST answers with the same ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from core.clock import iso_utc
from core.notify.silences import silence_of
from core.notify.simulation import NO_HISTORY

if TYPE_CHECKING:
    from core.admin.alert_rules import StoredRules
    from core.notify.delivery import OutboxMessage
    from core.notify.incidents import Incident
    from core.notify.silences import Silence
    from core.notify.simulation import Simulation, WouldFire

__all__ = ["alert_document", "incident_document", "rules_document", "silence_document", "simulation_document"]


def alert_document(
    incidents: Sequence[Incident],
    waiting: Sequence[OutboxMessage],
    newest: Sequence[OutboxMessage],
    silences: Sequence[Silence],
) -> dict[str, Any]:
    """Returns alerts, the silences that hold, the messages that wait for delivery, and those sent last."""
    return {
        "incidents": [incident_document(incident, silences) for incident in incidents],
        "silences": [silence_document(silence) for silence in silences],
        "waiting": [_message_document(message) for message in waiting],
        "sent": [_message_document(message) for message in newest],
    }


def incident_document(incident: Incident, silences: Sequence[Silence]) -> dict[str, Any]:
    """Returns one alert, and until when its messages are kept back."""
    silence = silence_of(silences, incident) if incident.state != "ended" else None
    return {
        "id": incident.incident_id,
        "rule": incident.rule,
        "subject": incident.subject,
        "severity": incident.severity,
        "state": incident.state,
        "since": iso_utc(incident.first_true_at),
        "opened_at": iso_utc(incident.opened_at) if incident.opened_at else None,
        "ended_at": iso_utc(incident.ended_at) if incident.ended_at else None,
        "value": incident.value,
        "text": incident.text,
        "run_id": incident.run_id or None,
        "acknowledged_at": iso_utc(incident.acknowledged_at) if incident.acknowledged_at else None,
        "acknowledged_by": incident.acknowledged_by or None,
        "note": incident.note or None,
        "silenced_until": iso_utc(silence.until) if silence else None,
    }


def silence_document(silence: Silence) -> dict[str, Any]:
    """Returns one silence."""
    return {
        "id": silence.silence_id,
        "rule": silence.rule or None,
        "subject": silence.subject or None,
        "until": iso_utc(silence.until),
        "note": silence.note or None,
        "made_by": silence.made_by,
        "made_at": iso_utc(silence.made_at),
        "ended_at": iso_utc(silence.ended_at) if silence.ended_at else None,
        "ended_by": silence.ended_by or None,
    }


def rules_document(found: StoredRules) -> dict[str, Any]:
    """Returns every rule that applies; the addresses of channels, which hold tokens, are left out."""
    return {
        "rules": [
            {"rule": name, "title": rule.title, "about": found.about(name), "values": dict(found.values[name])}
            for name, rule in found.alerts.rules.items()
        ],
        "channels": sorted(found.alerts.channels),
        "is_default": not found.sha256,
    }


def simulation_document(found: Simulation) -> dict[str, Any]:
    """Returns what each rule would have fired."""
    return {
        "since": iso_utc(found.since),
        "until": iso_utc(found.until),
        "rules": [
            {
                "rule": rule.name,
                "title": rule.title,
                "enabled": rule.enabled,
                "for_s": rule.for_s,
                "severity": rule.severity,
                "not_known": NO_HISTORY.get(rule.name),
                "fired": [_fired(one) for one in found.of_rule(rule.name)],
            }
            for rule in found.rules.values()
        ],
    }


def _fired(one: WouldFire) -> dict[str, Any]:
    return {
        "subject": one.subject,
        "opened_at": iso_utc(one.opened_at),
        "ended_at": iso_utc(one.ended_at) if one.ended_at else None,
        "text": one.text,
        "run_id": one.run_id or None,
    }


def _message_document(message: OutboxMessage) -> dict[str, Any]:
    return {
        "kind": message.kind,
        "state": message.state,
        "channel": message.channel,
        "recipients": list(message.recipients),
        "delivered": list(message.delivered),
        "refused": dict(message.refused),
        "subject": message.subject,
        "created_at": iso_utc(message.created_at),
        "next_try_at": iso_utc(message.next_try_at) if message.state == "waiting" else None,
        "sent_at": iso_utc(message.sent_at) if message.sent_at else None,
        "tries": message.tries,
        "last_error": message.last_error,
    }
