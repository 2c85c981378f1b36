"""What users do about alerts: acknowledge, silence, try out rules and channels; each change is audited."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, get_args
from zoneinfo import ZoneInfo

from core.clock import iso_utc
from core.errors import ConfigError
from core.notify.delivery import MAIL, DeliveryResult
from core.notify.incidents import Incident
from core.notify.rules import RuleName, changed_alerts, load_alerts
from core.notify.silences import AlertRecords, Silence
from core.notify.simulation import Simulation, simulate
from core.notify.wiring import NotifyingWorkspace, send_test_mail, send_test_message
from core.records.ledger import Ledger
from core.records.rights import Caller, require
from core.workspace.jobs import load_jobs
from core.workspace.json_file import nearest

__all__ = [
    "LONGEST_SILENCE",
    "MOST_NOTE",
    "acknowledge",
    "end_silence",
    "send_test",
    "silence",
    "silence_end",
    "simulated",
]

LONGEST_SILENCE = timedelta(days=366)
"""A rule that is to be silent for longer is disabled in alerts.json."""
MOST_NOTE = 1_000
"""Characters."""
_DURATION = re.compile(r"([0-9]{1,5}) ?([mhd])")


def acknowledge(ledger: Ledger, incident_id: int, note: str, *, caller: Caller, now: datetime) -> Incident:
    """Records that a user knows of an open alert. It stays in the list, and is not mailed again while it lasts.

    Args:
        ledger: Stores it.
        incident_id: Number of the alert.
        note: What the user wants others to know; may be empty. A second acknowledgement replaces it.
        caller: Who acknowledges.
        now: The clock.

    Returns:
        The alert as it is then.

    Raises:
        AccessRefused: The caller may not send.
        ConfigError: There is no such alert, it has ended or is not open yet, or the note is too long.
    """
    require(caller, "acknowledge")
    records, text = AlertRecords(ledger), _note(note)
    with ledger.transaction():
        before = records.incident(incident_id)
        if not records.acknowledge(incident_id, text, caller.name, now):
            state = "has ended" if before.state == "ended" else "is not open yet"
            raise ConfigError(f"alert {incident_id} {state}", remedy="python -m core alerts lists the open ones")
        object_ = f"alert {before.rule} of {before.subject}"
        ledger.audit.add(caller.name, "acknowledge", object_, now, after={"id": incident_id, "note": text})
    return records.incident(incident_id)


def silence(
    ledger: Ledger, *, rule: str, subject: str, until: datetime, note: str, caller: Caller, now: datetime
) -> Silence:
    """Keeps the messages about a rule, a subject, or one subject of one rule back up to a time.

    Args:
        ledger: Stores it.
        rule: A rule of alerts.json; empty: every rule.
        subject: A job's file name, a cluster's name, `runner`; empty: every subject.
        until: Aware; at most a year from now.
        note: The reason; may be empty.
        caller: Who wants it.
        now: The clock.

    Returns:
        The silence.

    Raises:
        AccessRefused: The caller may not send.
        ConfigError: There is no such rule, neither rule nor subject is given, or the end is not to come within a year.
    """
    require(caller, "silence")
    rule, subject = rule.strip(), subject.strip()
    if rule and rule not in get_args(RuleName):
        raise ConfigError(f'there is no rule "{rule}"', remedy=nearest(rule, get_args(RuleName)))
    if not rule and not subject:
        raise ConfigError("a silence needs a rule or a subject", remedy="name the rule, the job or the cluster")
    if not now < until <= now + LONGEST_SILENCE:
        raise ConfigError(
            "a silence ends in the future, within a year",
            why=f"{iso_utc(until)} was asked for",
            remedy="a rule that is to stay silent is disabled in alerts.json",
        )
    records, text = AlertRecords(ledger), _note(note)
    with ledger.transaction():
        number = records.add_silence(rule, subject, until, text, caller.name, now)
        made = records.silence(number)
        after = {"id": number, "until": iso_utc(until), "note": text}
        ledger.audit.add(caller.name, "silence", _what(made), now, after=after)
    return made


def silence_end(text: str, timezone: str, now: datetime) -> datetime:
    """Returns the end of a silence from what a user writes: `30m`, `2h`, `3d`, or a time.

    Args:
        text: A duration from now, or an ISO 8601 time; without an offset it is one of `timezone`.
        timezone: Of the workspace.
        now: The clock.

    Raises:
        ConfigError: It is neither.
    """
    if found := _DURATION.fullmatch(text.strip()):
        return now + timedelta(minutes=int(found[1]) * {"m": 1, "h": 60, "d": 1_440}[found[2]])
    try:
        at = datetime.fromisoformat(text.strip())
        return (at if at.tzinfo else at.replace(tzinfo=ZoneInfo(timezone))).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ConfigError(
            f"{text[:60]!r} is no end of a silence",
            remedy="write a duration such as 30m, 2h or 3d, or 2026-01-17T08:00",
        ) from None


def end_silence(ledger: Ledger, silence_id: int, *, caller: Caller, now: datetime) -> Silence:
    """Ends a silence before its time; what still lasts is reported then.

    Returns:
        The silence as it is then.

    Raises:
        AccessRefused: The caller may not send.
        ConfigError: There is no such silence, or it has ended.
    """
    require(caller, "end silence")
    records = AlertRecords(ledger)
    with ledger.transaction():
        before = records.silence(silence_id)
        if not records.end_silence(silence_id, caller.name, now):
            raise ConfigError(f"silence {silence_id} has ended already", remedy="python -m core alerts lists them")
        ledger.audit.add(caller.name, "end silence", _what(before), now, before={"until": iso_utc(before.until)})
    return records.silence(silence_id)


def send_test(
    opened: NotifyingWorkspace, channel: str, *, caller: Caller, now: datetime, to: Sequence[str] = ()
) -> DeliveryResult:
    """Sends a test message through a channel at once, without the outbox.

    Args:
        opened: The workspace.
        channel: `mail`, or a channel of alerts.json.
        caller: Who asks for it.
        now: Aware UTC.
        to: `mail`: addresses; empty: those of PSTT_MAIL_TO.

    Returns:
        The answer for each recipient; empty for a channel that has none and took the message.

    Raises:
        AccessRefused: The caller may not send.
        ConfigError: There is no such channel, or it is not set up.
        NotDelivered: Its service cannot be reached or refuses.
    """
    require(caller, "test mail" if channel == MAIL else "test channel")
    if channel == MAIL:
        opened.ledger.audit.add(caller.name, "test mail", MAIL, now, after={"to": list(to)})
        return send_test_mail(opened, to, now)
    known = load_alerts(opened.workspace.alerts_file).channels
    if channel not in known:
        raise ConfigError(f'there is no channel "{channel}" in alerts.json', remedy=nearest(channel, (MAIL, *known)))
    opened.ledger.audit.add(caller.name, "test channel", f"channel {channel}", now)
    return send_test_message(opened, channel, now)


def simulated(
    opened: NotifyingWorkspace, *, days: int, now: datetime, changes: Mapping[str, Mapping[str, Any]] | None = None
) -> Simulation:
    """Returns what the rules would have fired in the last days, with the numbers of alerts.json or with others.

    Args:
        opened: The workspace; nothing in it is changed.
        days: How far back, 1 to 90.
        now: The clock.
        changes: Rule → key → value as in alerts.json, instead of what the file says.

    Raises:
        ConfigError: alerts.json or a change is not valid, or the number of days is out of range.
    """
    alerts = changed_alerts(opened.workspace.alerts_file, changes or {})
    jobs, _broken = load_jobs(opened.workspace)
    return simulate(alerts, jobs, opened.outbox, opened.ledger, days=days, now=now)


def _note(text: str) -> str:
    note = " ".join(text.split())
    if len(note) > MOST_NOTE:
        raise ConfigError(f"a note has at most {MOST_NOTE:,} characters", why=f"this one has {len(note):,}")
    return note


def _what(made: Silence) -> str:
    return f"alerts {made.rule or 'of every rule'}" + (f" of {made.subject}" if made.subject else "")
