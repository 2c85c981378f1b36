"""Incidents: from when a condition holds for one subject until it no longer does; and the writes that change them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from core.clock import iso_utc

__all__ = [
    "COMMIT_DELAY",
    "Incident",
    "LedgerWrite",
    "begin_incident",
    "end_incident",
    "set_silenced",
    "update_incident",
]

COMMIT_DELAY = timedelta(seconds=60)
"""A run may be committed this long after the time that it records as its end; reading starts so much earlier."""
LedgerWrite = tuple[str, Mapping[str, Any]]
"""Name of a statement of alerts.sql, and its values."""


@dataclass(frozen=True, slots=True)
class Incident:
    """One time that a rule's condition held for one subject. It is `pending` until it has held for the rule's time."""

    incident_id: int
    rule: str
    subject: str
    """A job's slug, a cluster's name, a segment's name, or `runner`."""
    state: Literal["pending", "open", "ended"]
    first_true_at: datetime
    opened_at: datetime | None
    last_true_at: datetime
    notified_at: datetime | None
    """When a message about it was last put into the outbox."""
    ended_at: datetime | None
    value: float | None
    text: str
    severity: Literal["warning", "critical"] = "warning"
    run_id: str = ""
    """The run that it is about; empty: it is about no single run."""
    acknowledged_at: datetime | None = None
    acknowledged_by: str = ""
    note: str = ""
    """What the user wrote who acknowledged it."""
    silenced_at: datetime | None = None
    """Since when a silence keeps its messages back; None: none does."""


def begin_incident(
    rule: str,
    subject: str,
    value: float | None,
    text: str,
    now: datetime,
    *,
    severity: str = "warning",
    run_id: str = "",
) -> LedgerWrite:
    """Returns the write that begins a pending incident."""
    row = {"rule": rule, "subject": subject, "value": value, "text": text, "now": iso_utc(now)}
    return "begin_incident", row | {"severity": severity, "run_id": run_id}


def update_incident(
    incident: Incident, value: float | None, text: str, now: datetime, *, severity: str = "warning", run_id: str = ""
) -> LedgerWrite:
    """Returns the write of what is known of an incident now; without `run_id` the run that is known stays."""
    row = {"incident_id": incident.incident_id, "value": value, "text": text, "now": iso_utc(now)}
    return "update_incident", row | {"severity": severity, "run_id": run_id}


def set_silenced(rule: str, subject: str, at: datetime | None) -> LedgerWrite:
    """Returns the write that a silence keeps the messages of an open incident back since then; None: no longer."""
    return "set_silenced", {"rule": rule, "subject": subject, "at": iso_utc(at) if at else None}


def end_incident(incident: Incident, text: str, now: datetime) -> LedgerWrite:
    """Returns the write that ends an incident; a pending one, of which no user knows, is deleted."""
    if incident.state == "pending":
        return "delete_pending_incident", {"incident_id": incident.incident_id}
    row = {"incident_id": incident.incident_id, "text": f"{incident.text}; then: {text}", "now": iso_utc(now)}
    return "end_incident", row
