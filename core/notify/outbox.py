"""What people are to be told, kept until they have it: written with the reason for it, delivered when a server takes it.

Delivery is tried again for 24 hours, first after half a minute, then ever more rarely; whoever was served is not served
again. A mail server that is down delays mail and nothing else.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Literal

from core.clock import iso_utc
from core.errors import ConfigError, NotDelivered, PsttError
from core.notify.notification import Notification
from core.notify.smtp import DeliveryResult
from core.records.store import Store

__all__ = ["MAIL", "Channel", "Incident", "LedgerWrite", "MessageKind", "Outbox", "OutboxMessage", "new_message"]

MAIL = "mail"
"""The channel that has recipients."""
RETRIED_FOR = timedelta(hours=24)
FIRST_RETRY_S = 30.0
LONGEST_RETRY_S = 1800.0
KEPT = timedelta(days=90)

MessageKind = Literal["alert", "recovered", "job", "receipt"]
LedgerWrite = tuple[str, Mapping[str, Any]]
"""A statement of alerts.sql and its values."""


@dataclass(frozen=True, slots=True)
class Incident:
    """One time that something was wrong, from when it began to when it was over."""

    incident_id: int
    rule: str
    subject: str
    state: Literal["pending", "open", "ended"]
    first_true_at: datetime
    opened_at: datetime | None
    last_true_at: datetime
    notified_at: datetime | None
    ended_at: datetime | None
    value: float | None
    text: str


@dataclass(frozen=True, slots=True)
class OutboxMessage:
    """One message on its way through one channel."""

    outbox_id: int
    kind: MessageKind
    incident_id: int | None
    dedupe_key: str
    channel: str
    recipients: tuple[str, ...]
    delivered: tuple[str, ...]
    refused: Mapping[str, str]
    subject: str
    body: str
    body_html: str
    created_at: datetime
    next_try_at: datetime
    tries: int
    state: Literal["waiting", "sent", "given_up"]
    last_error: str
    sent_at: datetime | None

    @property
    def open_recipients(self) -> tuple[str, ...]:
        """Those that neither have it nor were refused for good."""
        return tuple(r for r in self.recipients if r not in self.delivered and r not in self.refused)


Channel = Callable[[], AbstractContextManager[Callable[[OutboxMessage], DeliveryResult]]]
"""Opens a channel; what it gives hands one entry over. Raises NotDelivered or ConfigError."""


def new_message(
    kind: MessageKind,
    key: str,
    channel: str,
    recipients: Sequence[str],
    notification: Notification,
    now: datetime,
    incident: int | None = None,
) -> LedgerWrite:
    """The change that puts a notice into the outbox, once: another one with the same key is left out.

    Args:
        kind: What it is about.
        key: Names the occasion; with channel and recipients it is unique.
        channel: `mail`, or a channel of alerts.json.
        recipients: Addresses; empty for other channels.
        notice: The text.
        now: The clock.
        episode: The episode that it tells of.
    """
    to = hashlib.sha256("\n".join(recipients).encode()).hexdigest()[:10]
    return "put", {
        "kind": kind,
        "episode_id": incident,
        "dedupe_key": f"{key} {channel} {to}",
        "channel": channel,
        "recipients": json.dumps(list(recipients), ensure_ascii=False),
        "subject": notification.subject_line,
        "body": notification.text,
        "body_html": notification.html,
        "now": iso_utc(now),
    }


class Outbox(Store):
    """Episodes and messages of one workspace; opened as every `Store`."""

    sql_file: ClassVar[str] = "alerts.sql"

    def apply(self, changes: Iterable[LedgerWrite]) -> None:
        """Makes all these changes in one transaction: an episode and the message about it come together or not at all."""
        wanted = list(changes)
        if not wanted:
            return
        with self._translated(), self._transaction():
            for name, values in wanted:
                self._db.execute(self._sql[name], values)

    def rows(self, name: str, **values: Any) -> list[sqlite3.Row]:
        """A statement of alerts.sql that only reads."""
        return self._rows(name, values)

    def considered_until(self, what: str) -> datetime | None:
        """Up to when something was looked at; None: never."""
        rows = self._rows("considered", {"what": what})
        return _moment(rows[0]["until"]) if rows else None

    def open_incidents(self) -> list[Incident]:
        """Pending and open ones."""
        return [_incident(row) for row in self._rows("open_episodes")]

    def incidents(self, limit: int = 50) -> list[Incident]:
        """Open and ended ones, the newest first."""
        return [_incident(row) for row in self._rows("episodes", {"limit": limit})]

    def waiting(self) -> list[OutboxMessage]:
        """Messages that are not delivered yet, oldest first."""
        return [_message(row) for row in self._rows("waiting")]

    def newest(self, limit: int = 50) -> list[OutboxMessage]:
        """Messages that were sent or given up, the newest first."""
        return [_message(row) for row in self._rows("newest", {"limit": limit})]

    def given_up_since(self, since: datetime) -> list[OutboxMessage]:
        """Messages that nobody got."""
        return [_message(row) for row in self._rows("given_up_since", {"since": iso_utc(since)})]

    def was_queued(self, key: str, channel: str, recipients: Sequence[str]) -> bool:
        """Whether there is, or was, such a message."""
        to = hashlib.sha256("\n".join(recipients).encode()).hexdigest()[:10]
        return bool(self._rows("was_put", {"dedupe_key": f"{key} {channel} {to}"}))

    def deliver(self, now: Callable[[], datetime], channels: Callable[[str], Channel]) -> int:
        """Tries whatever is due once; how many messages were handed over.

        Args:
            now: The clock.
            doors: Channel → how it is opened; raises ConfigError where it is not set up.
        """
        due: dict[str, list[OutboxMessage]] = {}
        for row in self._rows("due", {"now": iso_utc(now())}):
            due.setdefault(row["channel"], []).append(_message(row))
        sent = sum(self._through(channel, messages, now, channels) for channel, messages in due.items())
        if sent:
            self._write("prune", {"before": iso_utc(now() - KEPT)})
        return sent

    def _through(
        self,
        channel: str,
        messages: Sequence[OutboxMessage],
        now: Callable[[], datetime],
        channels: Callable[[str], Channel],
    ) -> int:
        """One opening of a channel for all that waits for it; a channel that cannot be opened delays them all."""
        left = list(messages)
        sent = 0
        try:
            with channels(channel)() as send:
                while left:
                    sent += self._send(left.pop(0), send, now)
        except (NotDelivered, ConfigError) as error:
            for message in left:
                self._settle(message, DeliveryResult(), str(error), now())
        return sent

    def _send(
        self, message: OutboxMessage, send: Callable[[OutboxMessage], DeliveryResult], now: Callable[[], datetime]
    ) -> bool:
        try:
            result = send(message)
        except PsttError as error:
            self._settle(message, DeliveryResult(), str(error), now())
            return False
        problem = "; ".join(f"{who}: {why}" for who, why in (*result.refused.items(), *result.later.items()))
        return self._settle(message, result, problem, now())

    def _settle(self, message: OutboxMessage, result: DeliveryResult, problem: str, now: datetime) -> bool:
        """Writes down what became of one try; whether the message has left."""
        from loguru import logger

        delivered = (*message.delivered, *result.delivered)
        refused = {**message.refused, **result.refused}
        remaining = [r for r in message.open_recipients if r not in delivered and r not in refused]
        is_open = bool(remaining) or (not message.recipients and bool(problem))
        is_over = is_open and now >= message.created_at + RETRIED_FOR
        state = "waiting" if is_open and not is_over else "given_up"
        if not is_open and (delivered or not message.recipients):
            state = "sent"
        self._write(
            "settle",
            {
                "outbox_id": message.outbox_id,
                "state": state,
                "delivered": json.dumps(delivered, ensure_ascii=False),
                "refused": json.dumps(refused, ensure_ascii=False),
                "last_error": problem,
                "next_try_at": iso_utc(_next_try(message, now) if state == "waiting" else now),
                "sent_at": iso_utc(now) if state == "sent" else None,
            },
        )
        whom = f'{message.channel} "{message.subject}"'
        for address, why in result.refused.items():
            logger.error("{}: {} is refused for good: {}", whom, address, why)
        if state == "given_up":
            logger.error("{} is given up after {} tries: {}", whom, message.tries + 1, problem)
        elif state == "waiting" and message.tries == 0:
            logger.warning("{} could not be delivered and is tried again for 24 h: {}", whom, problem)
        elif state == "sent":
            logger.info("{} delivered to {}", whom, ", ".join(delivered) or message.channel)
        return state == "sent"


def _next_try(message: OutboxMessage, now: datetime) -> datetime:
    """Twice as long each time, half an hour at most; the last try is when the 24 hours are over."""
    wait_s = min(FIRST_RETRY_S * 2 ** min(message.tries, 10), LONGEST_RETRY_S)
    return max(now, min(now + timedelta(seconds=wait_s), message.created_at + RETRIED_FOR))


def _incident(row: sqlite3.Row) -> Incident:
    values = dict(row)
    for name in ("first_true_at", "opened_at", "last_true_at", "told_at", "ended_at"):
        values[name] = _moment(values[name]) if values[name] else None
    return Incident(**values)


def _message(row: sqlite3.Row) -> OutboxMessage:
    values = dict(row)
    for name in ("created_at", "next_try_at", "sent_at"):
        values[name] = _moment(values[name]) if values[name] else None
    for name in ("recipients", "delivered"):
        values[name] = tuple(json.loads(values[name]))
    values["refused"] = json.loads(values["refused"])
    return OutboxMessage(**values)


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)
