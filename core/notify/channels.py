"""The ways out of this machine: mail, and whatever else apprise reaches by a URL (SMS, Teams, Slack and others)."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from core.errors import ConfigError, NotDelivered
from core.model.check_result import CheckResult
from core.model.connection import Secret
from core.notify.outbox import MAIL, Channel, OutboxMessage
from core.notify.smtp import DeliveryResult, Mail, MailServer, connect
from core.workspace.json_file import nearest
from core.workspace.secrets import resolve_secret

__all__ = ["channel_problem", "doors", "mail_fact", "mail_of"]

MASK = "***"
SHORTEST_SECRET = 4


def open_channels(
    server: Callable[[], MailServer | None],
    channels: Callable[[], Mapping[str, str]],
    variables: Mapping[str, str],
    root: Path,
) -> Callable[[str], Channel]:
    """Channel → how it is opened.

    Args:
        server: The mail server; None where there is none.
        channels: Name → URL or reference, as alerts.json has them.
        variables: The environment and `.env`.
        root: The workspace.
    """

    def open_channel(channel: str) -> Channel:
        if channel == MAIL:
            found = server()
            if found is None:
                raise ConfigError("no mail server is set up", remedy="set PSTT_SMTP_HOST and PSTT_MAIL_FROM")
            return lambda: _mail(found)
        known = channels()
        if channel not in known:
            raise ConfigError(f'there is no channel "{channel}" in alerts.json', remedy=nearest(channel, known))
        return lambda: _apprise(channel, resolve_secret(known[channel], variables, root))

    return open_channel


def mail_of(message: OutboxMessage, server: MailServer) -> Mail:
    """The mail of an entry, for those who do not have it yet."""
    domain = server.sender.partition("@")[2]
    stamp = f"{message.created_at:%Y%m%d%H%M%S}"
    return Mail(
        message.open_recipients,
        message.subject,
        message.body,
        message.body_html,
        datetime.now(UTC),
        f"<pstt-{stamp}-{message.outbox_id}@{domain}>",
    )


@contextmanager
def _mail(server: MailServer) -> Iterator[Callable[[OutboxMessage], DeliveryResult]]:
    with connect(server) as link:
        yield lambda message: link.send(mail_of(message, server))


def mail_fact(server: MailServer | None, mail_to: Sequence[str]) -> CheckResult:
    """Whether mail can leave: connects, verifies the certificate, logs in; sends nothing."""
    if server is None:
        return CheckResult(
            "warn", "mail", "is not set up: nobody is told by mail", "set PSTT_SMTP_HOST and PSTT_MAIL_FROM"
        )
    try:
        with connect(server):
            pass
    except NotDelivered as error:
        return CheckResult("fail", "mail", error.text, error.remedy, unreachable=True)
    how = {"starttls": "STARTTLS, certificate verified", "tls": "TLS, certificate verified", "none": "not encrypted"}
    user = f', logged in as "{server.username}"' if server.username else ""
    text = f"{server.place} answers: {how[server.security]}{user}"
    if not mail_to:
        return CheckResult(
            "warn", "mail", f"{text}; but rules tell nobody", "set PSTT_MAIL_TO, or recipients in alerts.json"
        )
    return CheckResult("pass", "mail", text)


def channel_problem(name: str, reference: str, variables: Mapping[str, str], root: Path) -> ConfigError | None:
    """Why a channel cannot work, as far as it can be told without contacting anything."""
    try:
        _service(name, resolve_secret(reference, variables, root))
    except ConfigError as error:
        return error
    return None


@contextmanager
def _apprise(name: str, url: Secret) -> Iterator[Callable[[OutboxMessage], DeliveryResult]]:
    service = _service(name, url)

    def send(message: OutboxMessage) -> DeliveryResult:
        with _heard(url) as said:
            done = service.notify(
                title=message.subject, body=message.body, notify_type=_notify_type(message), body_format="text"
            )
        if not done:
            raise NotDelivered(f'channel "{name}" took no message', why="; ".join(said) or "it gave no reason")
        return DeliveryResult()

    yield send


def _service(name: str, url: Secret) -> Any:
    with _heard(url), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of imghdr, which apprise 2.3 imports before Python 3.13
        import apprise

        service = apprise.Apprise()
        if not service.add(url.reveal()):
            raise ConfigError(
                f'the URL of channel "{name}" is none that apprise knows',
                remedy="write it as github.com/caronc/apprise/wiki says for that service",
            )
    return service


def _notify_type(message: OutboxMessage) -> str:
    return {"alert": "failure", "recovered": "success"}.get(message.kind, "info")


@contextmanager
def _heard(url: Secret) -> Iterator[list[str]]:
    """What apprise says meanwhile: it tells why something failed nowhere else. Never into our log: URLs are secrets."""
    said: list[str] = []
    secrets = _parts(url)

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            text = record.getMessage()
            for secret in secrets:
                text = text.replace(secret, MASK)
            said.append(text)

    log = logging.getLogger("apprise")
    ear, level, propagates = Ear(level=logging.WARNING), log.level, log.propagate
    log.addHandler(ear)
    log.setLevel(logging.WARNING)
    log.propagate = False
    try:
        yield said
    finally:
        log.removeHandler(ear)
        log.setLevel(level)
        log.propagate = propagates


def _parts(url: Secret) -> list[str]:
    """The URL and whatever in it may be a token, the longest first."""
    whole = url.reveal()
    split = urlsplit(whole)
    parts = {whole, split.netloc, *split.path.split("/"), split.username or "", split.password or "", split.query}
    parts |= {unquote(part) for part in parts}
    return sorted((part for part in parts if len(part) >= SHORTEST_SECRET), key=len, reverse=True)
