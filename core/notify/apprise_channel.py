"""Channels by URL that apprise knows: SMS, Teams, Slack and others."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote, urlsplit

from core.errors import ConfigError, NotDelivered
from core.model.connection import Secret
from core.notify.delivery import DeliveryResult, OutboxMessage, SendMessage

__all__ = ["AppriseChannel"]

MASK = "***"
SHORTEST_SECRET = 4
"""Characters; a shorter part of a URL is not masked, since masking it would make messages unreadable."""
_NOTIFY_TYPES = {"alert": "failure", "recovered": "success"}


class AppriseChannel:
    """Sends messages to the service behind a URL.

    Args:
        name: The channel's name in alerts.json.
        url: As github.com/caronc/apprise/wiki describes it; it contains tokens and never reaches a log.
    """

    def __init__(self, name: str, url: Secret) -> None:
        self._name = name
        self._url = url

    def check(self) -> None:
        """Raises ConfigError if apprise does not know the URL."""
        self._service()

    @contextmanager
    def open(self) -> Iterator[SendMessage]:
        """Prepares the service; see `Channel.open`."""
        service = self._service()

        def send(message: OutboxMessage) -> DeliveryResult:
            with _captured_log(self._url) as lines:
                done = service.notify(
                    title=message.subject,
                    body=message.body,
                    notify_type=_NOTIFY_TYPES.get(message.kind, "info"),
                    body_format="text",
                )
            if not done:
                why = "; ".join(lines) or "it gave no reason"
                raise NotDelivered(f'channel "{self._name}" took no message', why=why)
            return DeliveryResult()

        yield send

    def _service(self) -> Any:
        with _captured_log(self._url), warnings.catch_warnings():
            # apprise 2.3 imports imghdr before Python 3.13
            warnings.simplefilter("ignore", DeprecationWarning)
            import apprise

            service = apprise.Apprise()
            if not service.add(self._url.reveal()):
                raise ConfigError(
                    f'the URL of channel "{self._name}" is none that apprise knows',
                    remedy="write it as github.com/caronc/apprise/wiki says for that service",
                )
        return service


@contextmanager
def _captured_log(url: Secret) -> Iterator[list[str]]:
    """Collects what apprise logs, the URL's secrets masked, and keeps it out of our log.

    apprise reports why something failed nowhere else.
    """
    lines: list[str] = []
    secrets = _secret_parts(url)

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            text = record.getMessage()
            for secret in secrets:
                text = text.replace(secret, MASK)
            lines.append(text)

    log = logging.getLogger("apprise")
    collector, level, propagates = Collector(level=logging.WARNING), log.level, log.propagate
    log.addHandler(collector)
    log.setLevel(logging.WARNING)
    log.propagate = False
    try:
        yield lines
    finally:
        log.removeHandler(collector)
        log.setLevel(level)
        log.propagate = propagates


def _secret_parts(url: Secret) -> list[str]:
    """The URL and each part of it that may be a token, the longest first."""
    whole = url.reveal()
    split = urlsplit(whole)
    parts = {whole, split.netloc, *split.path.split("/"), split.username or "", split.password or "", split.query}
    parts |= {unquote(part) for part in parts}
    return sorted((part for part in parts if len(part) >= SHORTEST_SECRET), key=len, reverse=True)
