"""What one evaluation of the alert rules knows: rules, jobs, silences, recipients and the time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, time

from core.language import Language
from core.model.job import Job
from core.notify.rules import AlertFile
from core.notify.silences import Silence

__all__ = ["Recipients", "Situation"]


@dataclass(frozen=True, slots=True)
class Recipients:
    """Addresses for alerts and for the daily report, when the report is due, and where its readers find the page."""

    mail_to: tuple[str, ...] = ()
    """For rules without recipients of their own."""
    report_to: tuple[str, ...] = ()
    report_at: time = time(7)
    """In `timezone`."""
    timezone: str = "Europe/Rome"
    page_url: str = ""
    """Address of the page, for the links in mails; empty: mails have none."""
    language: Language = "en"
    """Of mails and of messages through other channels."""


@dataclass(frozen=True, slots=True)
class Situation:
    """The same for every rule of one evaluation."""

    alerts: AlertFile
    jobs: Mapping[str, Job]
    """By slug."""
    silences: Sequence[Silence]
    """Those that hold now."""
    recipients: Recipients
    now: datetime

    def is_silenced(self, rule: str, subject: str) -> bool:
        """Returns whether messages about that subject of that rule are kept back."""
        return any(silence.covers(rule, subject) for silence in self.silences)
