"""The contract between outbox and channels: a message to deliver, how a channel is opened, the result of one attempt."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, Protocol

__all__ = ["MAIL", "Channel", "DeliveryResult", "MessageKind", "OutboxMessage", "SendMessage"]

MAIL = "mail"
"""The channel that has recipients; every other channel's URL names its receiver."""

MessageKind = Literal["alert", "recovered", "job", "receipt"]


@dataclass(frozen=True, slots=True)
class OutboxMessage:
    """One message and its delivery through one channel."""

    outbox_id: int
    kind: MessageKind
    incident_id: int | None
    dedupe_key: str
    channel: str
    recipients: tuple[str, ...]
    delivered: tuple[str, ...]
    refused: Mapping[str, str]
    """Address → the server's permanent refusal."""
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
        """Recipients that neither received it nor were refused permanently."""
        return tuple(r for r in self.recipients if r not in self.delivered and r not in self.refused)


@dataclass(slots=True)
class DeliveryResult:
    """The answer for each recipient; empty for a channel without recipients."""

    delivered: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    """Address → why it will never be accepted (5xx)."""
    later: dict[str, str] = field(default_factory=dict)
    """Address → why it may be accepted later (4xx)."""


SendMessage = Callable[[OutboxMessage], DeliveryResult]
"""Sends one message.

Raises:
    NotDelivered: No recipient received it, for a reason that may pass; the outbox tries again.
"""


class Channel(Protocol):
    """A way for messages to leave this machine."""

    def check(self) -> None:
        """Checks the setup and contacts nothing.

        Raises:
            ConfigError: This channel cannot work.
        """
        ...

    def open(self) -> AbstractContextManager[SendMessage]:
        """Connects once for all messages that are due.

        Raises:
            NotDelivered: The service cannot be reached; all its messages wait.
            ConfigError: This channel is not set up.
        """
        ...
