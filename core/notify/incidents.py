"""Incidents: from when a condition holds for one subject until it no longer does; and the writes that change them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from core.clock import iso_utc

__all__ = ["Incident", "LedgerWrite", "begin_incident", "end_incident", "update_incident"]

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


def begin_incident(
    rule: str, subject: str, value: float | None, text: str, now: datetime, *, is_open: bool = False
) -> LedgerWrite:
    """Returns the write that begins an incident, pending unless `is_open`."""
    row = {"rule": rule, "subject": subject, "value": value, "text": text, "now": iso_utc(now), "is_open": is_open}
    return "begin_incident", row


def update_incident(incident: Incident, value: float | None, text: str, now: datetime) -> LedgerWrite:
    """Returns the write of what is known of an incident now."""
    row = {"incident_id": incident.incident_id, "value": value, "text": text, "now": iso_utc(now)}
    return "update_incident", row


def end_incident(incident: Incident, text: str, now: datetime) -> LedgerWrite:
    """Returns the write that ends an incident; a pending one, of which no user knows, is deleted."""
    if incident.state == "pending":
        return "delete_pending_incident", {"incident_id": incident.incident_id}
    row = {"incident_id": incident.incident_id, "text": f"{incident.text}; then: {text}", "now": iso_utc(now)}
    return "end_incident", row
