"""Silences: a rule, a subject, or one subject of one rule, about which nobody is notified up to a time.

Incidents of a silenced rule begin, are listed, logged and end as ever, and its other actions are executed. Only messages
are kept back. A silence that ends while an incident lasts sends its message then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from core.clock import iso_utc
from core.errors import ConfigError
from core.notify.incidents import Incident
from core.records.rows import from_row
from core.records.store import StorePart

__all__ = ["AlertRecords", "Silence", "silence_of"]


@dataclass(frozen=True, slots=True)
class Silence:
    """One silence as the ledger has it."""

    silence_id: int
    rule: str
    """Empty: every rule."""
    subject: str
    """As of an incident; empty: every subject."""
    until: datetime
    note: str
    made_by: str
    made_at: datetime
    ended_at: datetime | None = None
    """When a user ended it before its time."""
    ended_by: str = ""

    def covers(self, rule: str, subject: str) -> bool:
        """Returns whether messages about that subject of that rule are kept back."""
        return self.rule in ("", rule) and self.subject in ("", subject)


def silence_of(silences: Sequence[Silence], incident: Incident) -> Silence | None:
    """Returns the silence that keeps the messages of an incident back for longest; None: none does."""
    covering = [silence for silence in silences if silence.covers(incident.rule, incident.subject)]
    return max(covering, key=lambda silence: silence.until, default=None)


class AlertRecords(StorePart):
    """What users record about alerts: acknowledgements and silences."""

    sql_file: ClassVar[str] = "alerts.sql"

    def incident(self, incident_id: int) -> Incident:
        """Returns one incident.

        Raises:
            ConfigError: There is none with that number.
        """
        rows = self._rows("incident", {"incident_id": incident_id}) if _is_id(incident_id) else []
        if not rows:
            raise ConfigError(f"there is no alert {str(incident_id)[:30]}", remedy="python -m core alerts lists them")
        return from_row(Incident, rows[0])

    def acknowledge(self, incident_id: int, note: str, by: str, now: datetime) -> bool:
        """Records who knows of an open incident. Returns False where it has ended or is not open yet."""
        row = {"incident_id": incident_id, "note": note, "by": by, "now": iso_utc(now)}
        return self._write("acknowledge", row) > 0

    def silence(self, silence_id: int) -> Silence:
        """Returns one silence.

        Raises:
            ConfigError: There is none with that number.
        """
        rows = self._rows("silence", {"silence_id": silence_id}) if _is_id(silence_id) else []
        if not rows:
            raise ConfigError(f"there is no silence {str(silence_id)[:30]}", remedy="python -m core alerts lists them")
        return from_row(Silence, rows[0])

    def active(self, now: datetime) -> list[Silence]:
        """Returns the silences that hold now, the one that ends next first."""
        return [from_row(Silence, row) for row in self._rows("active_silences", {"now": iso_utc(now)})]

    def add_silence(self, rule: str, subject: str, until: datetime, note: str, by: str, now: datetime) -> int:
        """Stores a silence. Returns its number."""
        row = {"rule": rule, "subject": subject, "until": iso_utc(until), "note": note, "by": by, "now": iso_utc(now)}
        with self._store.transaction() as db:
            return int(db.execute(self._sql["insert_silence"], row).fetchone()[0])

    def end_silence(self, silence_id: int, by: str, now: datetime) -> bool:
        """Ends a silence before its time. Returns False where it has ended already."""
        return self._write("end_silence", {"silence_id": silence_id, "by": by, "now": iso_utc(now)}) > 0


def _is_id(number: int) -> bool:
    return 0 < number < 2**63
