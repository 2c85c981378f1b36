"""The outbox: messages are stored together with their reason, and retried until every recipient has them.

A message is retried for 24 hours, first after half a minute, then at growing intervals. A recipient who has it is not
sent it again. A mail server that is down delays mail and nothing else.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, ClassVar

from loguru import logger

from core.clock import iso_utc
from core.errors import PsttError
from core.language import Language
from core.notify.delivery import Channel, DeliveryResult, MessageKind, OutboxMessage, SendMessage
from core.notify.incidents import Incident, LedgerWrite
from core.notify.notification import Notification
from core.records.rows import from_row
from core.records.store import Store

__all__ = ["Outbox", "new_message"]

RETRIED_FOR = timedelta(hours=24)
FIRST_RETRY_S = 30.0
LONGEST_RETRY_S = 1800.0
KEPT = timedelta(days=90)
"""How long sent and given up messages stay in the ledger."""


def new_message(
    kind: MessageKind,
    key: str,
    channel: str,
    recipients: Sequence[str],
    notification: Notification,
    now: datetime,
    incident: int | None = None,
    language: Language = "en",
) -> LedgerWrite:
    """Returns the write that puts a message into the outbox; it has no effect if there is one with the same key.

    Args:
        kind: What it is about.
        key: Identifies the occasion; unique together with channel and recipients.
        channel: `mail`, or a channel of alerts.json.
        recipients: Addresses; empty for other channels.
        notification: The text.
        now: The current time.
        incident: Id of the incident that it is about.
        language: Of the stored text: what its receivers get.
    """
    spoken = notification.in_language(language)
    return "insert_message", {
        "kind": kind,
        "incident_id": incident,
        "dedupe_key": _dedupe_key(key, channel, recipients),
        "channel": channel,
        "recipients": json.dumps(list(recipients), ensure_ascii=False),
        "subject": spoken.subject_line,
        "body": spoken.text,
        "body_html": spoken.html,
        "now": iso_utc(now),
    }


def _dedupe_key(key: str, channel: str, recipients: Sequence[str]) -> str:
    return f"{key} {channel} {hashlib.sha256(chr(10).join(recipients).encode()).hexdigest()[:10]}"


class Outbox(Store):
    """Incidents and messages of one workspace; opened like every `Store`."""

    sql_file: ClassVar[str] = "alerts.sql"

    def apply(self, writes: Iterable[LedgerWrite]) -> None:
        """Executes all writes in one transaction, so that an incident and its message are stored together or not at all."""
        wanted = list(writes)
        if not wanted:
            return
        with self._translated(), self._transaction():
            for name, values in wanted:
                self._db.execute(self._sql[name], values)

    def rows(self, name: str, **values: Any) -> list[sqlite3.Row]:
        """Returns the rows of a reading statement of alerts.sql."""
        return self._rows(name, values)

    def considered_until(self, what: str) -> datetime | None:
        """Returns up to when `sends` or `verdicts` were evaluated; None: never."""
        rows = self._rows("considered_until", {"what": what})
        return datetime.fromisoformat(rows[0]["until"]) if rows else None

    def open_incidents(self) -> list[Incident]:
        """Returns the pending and the open ones."""
        return [from_row(Incident, row) for row in self._rows("open_incidents")]

    def incidents(self, limit: int = 50) -> list[Incident]:
        """Returns the open and the ended ones, the newest first."""
        return [from_row(Incident, row) for row in self._rows("incidents", {"limit": limit})]

    def waiting(self) -> list[OutboxMessage]:
        """Returns the messages that are not delivered yet, the oldest first."""
        return [from_row(OutboxMessage, row) for row in self._rows("waiting_messages")]

    def newest(self, limit: int = 50) -> list[OutboxMessage]:
        """Returns the messages that were sent or given up, the newest first."""
        return [from_row(OutboxMessage, row) for row in self._rows("newest_messages", {"limit": limit})]

    def given_up_since(self, since: datetime) -> list[OutboxMessage]:
        """Returns the messages that were given up."""
        return [
            from_row(OutboxMessage, row) for row in self._rows("messages_given_up_since", {"since": iso_utc(since)})
        ]

    def was_queued(self, key: str, channel: str, recipients: Sequence[str]) -> bool:
        """Whether there is such a message, in whichever state."""
        return bool(self._rows("message_exists", {"dedupe_key": _dedupe_key(key, channel, recipients)}))

    def deliver(self, now: Callable[[], datetime], channel_of: Callable[[str], Channel]) -> int:
        """Tries every due message once; returns how many were sent.

        Args:
            now: The clock, aware UTC.
            channel_of: Name → channel; raises ConfigError if there is none of that name.
        """
        due: dict[str, list[OutboxMessage]] = {}
        for row in self._rows("due_messages", {"now": iso_utc(now())}):
            due.setdefault(row["channel"], []).append(from_row(OutboxMessage, row))
        sent = sum(self._deliver_through(name, messages, now, channel_of) for name, messages in due.items())
        if sent:
            self._write("delete_old_messages", {"before": iso_utc(now() - KEPT)})
        return sent

    def _deliver_through(
        self,
        name: str,
        messages: Sequence[OutboxMessage],
        now: Callable[[], datetime],
        channel_of: Callable[[str], Channel],
    ) -> int:
        """Opens the channel once for all its messages; if that fails, all of them wait."""
        left = list(messages)
        sent = 0
        try:
            with channel_of(name).open() as send:
                while left:
                    sent += self._attempt(left.pop(0), send, now)
        except PsttError as error:
            for message in left:
                self._record_attempt(message, DeliveryResult(), str(error), now())
        return sent

    def _attempt(self, message: OutboxMessage, send: SendMessage, now: Callable[[], datetime]) -> bool:
        try:
            result = send(message)
        except PsttError as error:
            self._record_attempt(message, DeliveryResult(), str(error), now())
            return False
        problem = "; ".join(f"{address}: {why}" for address, why in (*result.refused.items(), *result.later.items()))
        return self._record_attempt(message, result, problem, now())

    def _record_attempt(self, message: OutboxMessage, result: DeliveryResult, problem: str, now: datetime) -> bool:
        """Stores and logs the result of one attempt; returns whether the message is sent."""
        delivered = (*message.delivered, *result.delivered)
        refused = {**message.refused, **result.refused}
        remaining = [r for r in message.open_recipients if r not in delivered and r not in refused]
        is_open = bool(remaining) or (not message.recipients and bool(problem))
        is_over = is_open and now >= message.created_at + RETRIED_FOR
        state = "waiting" if is_open and not is_over else "given_up"
        if not is_open and (delivered or not message.recipients):
            state = "sent"
        self._write(
            "record_attempt",
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
    """The wait doubles each time, up to half an hour; the last attempt is at the end of the 24 hours."""
    wait_s = min(FIRST_RETRY_S * 2 ** min(message.tries, 10), LONGEST_RETRY_S)
    return max(now, min(now + timedelta(seconds=wait_s), message.created_at + RETRIED_FOR))
