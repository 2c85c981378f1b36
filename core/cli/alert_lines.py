"""Lines for people about alerts, silences and simulations."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from core.formatting import counted, local_time
from core.language import Data
from core.notify.silences import silence_of
from core.notify.simulation import NO_HISTORY

if TYPE_CHECKING:
    from core.admin.alert_rules import StoredRules
    from core.notify.delivery import OutboxMessage
    from core.notify.incidents import Incident
    from core.notify.silences import Silence
    from core.notify.simulation import Simulation

__all__ = ["alert_lines", "rules_lines", "silence_line", "simulation_lines"]

MOST_FIRED = 20
"""Lines of one rule in a simulation."""


def alert_lines(
    incidents: Sequence[Incident],
    waiting: Sequence[OutboxMessage],
    newest: Sequence[OutboxMessage],
    silences: Sequence[Silence],
    timezone: str,
) -> Iterator[str]:
    """Yields the open alerts, the silences, the messages that wait for delivery, and those sent last."""
    open_ones = [incident for incident in incidents if incident.state == "open"]
    yield f"✘ {counted(len(open_ones), 'alert')} open" if open_ones else "✔ no alert is open"
    for incident in open_ones:
        yield from _incident(incident, silences, timezone)
    for incident in incidents:
        if incident.state == "pending":
            since = local_time(incident.first_true_at, timezone)
            yield f"  … {incident.rule}   {Data(incident.subject)}   since {since}, no alert yet   {incident.text}"
    for silence in silences:
        yield silence_line(silence, timezone)
    yield f"{counted(len(waiting), 'message')} {'waits' if len(waiting) == 1 else 'wait'} for delivery"
    for message in waiting:
        next_try = local_time(message.next_try_at, timezone, seconds=True)
        yield f"  {message.subject}   to {_recipients(message)}   next try {next_try}"
        if message.last_error:
            yield f"    {message.last_error}"
    if newest:
        yield "sent last"
    for message in newest:
        yield from _sent(message, timezone)


def rules_lines(found: StoredRules) -> Iterator[str]:
    """Yields each rule with its condition, and its keys as `--set` takes them."""
    yield "the defaults: there is no alerts.json" if not found.sha256 else "the rules of alerts.json"
    for name, rule in found.alerts.rules.items():
        yield f"  {'✔' if rule.enabled else '–'} {name}   {rule.title}"
        for key, value in found.values[name].items():
            shown = json.dumps(value, ensure_ascii=False) if isinstance(value, list | bool) else value
            yield f"      {Data(f'{name}.{key}={shown}')}"


def _incident(incident: Incident, silences: Sequence[Silence], timezone: str) -> Iterator[str]:
    since = local_time(incident.opened_at or incident.first_true_at, timezone)
    critical = "CRITICAL   " if incident.severity == "critical" else ""
    number = f"{incident.incident_id}   {critical}{incident.rule}"
    yield f"  {number}   {Data(incident.subject)}   since {since}   {incident.text}"
    if incident.run_id:
        yield f"      run {incident.run_id}"
    if incident.acknowledged_at is not None:
        note = f": {Data(incident.note)}" if incident.note else ""
        yield f"      acknowledged {local_time(incident.acknowledged_at, timezone)} by {Data(incident.acknowledged_by)}{note}"
    if silence := silence_of(silences, incident):
        yield f"      silenced until {local_time(silence.until, timezone)} by silence {silence.silence_id}"


def silence_line(silence: Silence, timezone: str) -> str:
    """Returns one silence: what it covers, until when, who made it and why."""
    what = "   ".join(
        filter(
            None, (silence.rule or "every rule", Data(silence.subject).marked if silence.subject else "every subject")
        )
    )
    note = f": {Data(silence.note)}" if silence.note else ""
    until = local_time(silence.until, timezone)
    return f"  silence {silence.silence_id}   {what}   until {until}   by {Data(silence.made_by)}{note}"


def simulation_lines(found: Simulation, timezone: str) -> Iterator[str]:
    """Yields what each rule would have fired, the newest incidents of each."""
    yield f"{local_time(found.since, timezone)} to {local_time(found.until, timezone)} {timezone}"
    for rule in found.rules.values():
        fired = found.of_rule(rule.name)
        lasts = f", for {rule.for_s / 60:g} min" if rule.for_s else ""
        answer = counted(len(fired), "alert") if rule.enabled else "disabled"
        yield f"{rule.name}   {rule.title}{lasts}   {NO_HISTORY.get(rule.name, answer) if rule.enabled else answer}"
        for one in fired[-MOST_FIRED:]:
            end = f"to {local_time(one.ended_at, timezone)}" if one.ended_at else "and still"
            yield f"  {local_time(one.opened_at, timezone)} {end}   {Data(one.subject)}   {one.text}"
        if len(fired) > MOST_FIRED:
            yield f"  … {len(fired) - MOST_FIRED:,} earlier ones: --json has all"


def _sent(message: OutboxMessage, timezone: str) -> Iterator[str]:
    if message.state == "sent":
        at = local_time(message.sent_at or message.created_at, timezone)
        yield f"  ✔ {at}   {message.subject}   {_recipients(message)}"
    else:
        yield f"  ✘ given up   {message.subject}   {_recipients(message)}   {message.last_error}"
    yield from (f"    refused: {Data(address)}: {Data(why)}" for address, why in message.refused.items())


def _recipients(message: OutboxMessage) -> str:
    return Data(", ".join(message.recipients)).marked or f"channel {Data(message.channel)}"
