"""The channel `mail`: messages of the outbox over the mail server of the PSTT_SMTP_* settings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

from core.errors import ConfigError, NotDelivered
from core.model.check_result import CheckResult
from core.notify.delivery import OutboxMessage, SendMessage
from core.notify.smtp import Mail, MailServer, connect

__all__ = ["MailChannel", "check_mail", "mail_of"]


class MailChannel:
    """Sends each message to its recipients.

    Args:
        server: None if no mail server is set up.
    """

    def __init__(self, server: MailServer | None) -> None:
        self._server = server

    def check(self) -> None:
        """Raises ConfigError if no mail server is set up."""
        self._configured()

    @contextmanager
    def open(self) -> Iterator[SendMessage]:
        """Opens one SMTP session for all messages; see `Channel.open`."""
        server = self._configured()
        with connect(server) as session:
            yield lambda message: session.send(mail_of(message, server))

    def _configured(self) -> MailServer:
        if self._server is None:
            raise ConfigError("no mail server is set up", remedy="set PSTT_SMTP_HOST and PSTT_MAIL_FROM")
        return self._server


def mail_of(message: OutboxMessage, server: MailServer) -> Mail:
    """Returns the mail for the recipients that have not received the message yet."""
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


def check_mail(server: MailServer | None, mail_to: Sequence[str]) -> CheckResult:
    """Connects, verifies the certificate and logs in, without sending a mail.

    Args:
        server: None if no mail server is set up.
        mail_to: Addresses of PSTT_MAIL_TO.
    """
    if server is None:
        return CheckResult("warn", "mail", "is not set up: no mail is sent", "set PSTT_SMTP_HOST and PSTT_MAIL_FROM")
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
            "warn", "mail", f"{text}; but the rules have no recipient", "set PSTT_MAIL_TO, or recipients in alerts.json"
        )
    return CheckResult("pass", "mail", text)
