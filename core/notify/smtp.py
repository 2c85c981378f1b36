"""Sends mail over SMTP: TLS with a verified certificate, a result for each recipient, a reason for every failure.

Uses the standard library and not apprise, which reports neither the reason of a failure nor the recipients that were
refused permanently, and accepts no private certificate authority (apprise 2.3, docs/decisions/013-alerts.md).
"""

from __future__ import annotations

import smtplib
import socket
import ssl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from core.errors import ConfigError, NotDelivered
from core.model.connection import Secret
from core.notify.delivery import DeliveryResult
from core.workspace.secrets import resolve_secret

if TYPE_CHECKING:
    from core.workspace.settings import Settings

__all__ = ["Mail", "MailServer", "MailSession", "connect", "mail_server"]

PORTS = {"starttls": 587, "tls": 465, "none": 25}


@dataclass(frozen=True, slots=True)
class MailServer:
    """The server that accepts our mail, and how to connect to it."""

    host: str
    port: int
    security: Literal["starttls", "tls", "none"]
    sender: str
    username: str | None = None
    password: Secret | None = None
    cafile: Path | None = None
    """PEM file of certificate authorities that are trusted in addition to those of this machine."""
    timeout_s: float = 20.0

    @property
    def place(self) -> str:
        """Name of the server in texts that users see."""
        return f"mail server {self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Mail:
    """One mail. `message_id` stays the same in every attempt, so that mail programs show it once."""

    to: Sequence[str]
    subject: str
    text: str
    html: str
    date: datetime
    message_id: str


def mail_server(
    settings: Settings, variables: Mapping[str, str], root: Path, *, contact: bool = True
) -> MailServer | None:
    """Returns the server of the PSTT_SMTP_* settings; None if no mail is set up.

    Args:
        settings: The settings.
        variables: The environment and `.env`, to resolve the reference of a password.
        root: The workspace.
        contact: False: a password in a vault is not read; the server is for checks of the settings only.

    Raises:
        ConfigError: The settings contradict each other, or the password or the certificate file cannot be read.
    """
    if not settings.PSTT_SMTP_HOST:
        return None
    username, security = settings.PSTT_SMTP_USERNAME, settings.PSTT_SMTP_SECURITY
    password = settings.PSTT_SMTP_PASSWORD.get_secret_value() if settings.PSTT_SMTP_PASSWORD else None
    sender = settings.PSTT_MAIL_FROM or (username if username and "@" in username else None)
    if sender is None:
        raise ConfigError("PSTT_MAIL_FROM is missing", remedy="set it to the address that mail comes from")
    if bool(username) != bool(password):
        raise ConfigError("PSTT_SMTP_USERNAME and PSTT_SMTP_PASSWORD belong together", remedy="set both or none")
    if password and security == "none":
        raise ConfigError(
            "PSTT_SMTP_SECURITY is none and there is a PSTT_SMTP_PASSWORD",
            why="it would cross the network readable",
            remedy="set PSTT_SMTP_SECURITY to starttls or tls",
        )
    cafile = root / settings.PSTT_SMTP_CAFILE if settings.PSTT_SMTP_CAFILE else None
    if cafile is not None and not cafile.is_file():
        raise ConfigError(
            f"PSTT_SMTP_CAFILE: there is no file {settings.PSTT_SMTP_CAFILE}",
            remedy="give its path, absolute or below the workspace",
        )
    return MailServer(
        settings.PSTT_SMTP_HOST,
        settings.PSTT_SMTP_PORT or PORTS[security],
        security,
        sender,
        username,
        resolve_secret(password, variables, root, contact=contact) if password else None,
        cafile,
        settings.PSTT_SMTP_TIMEOUT_S,
    )


class MailSession:
    """An open, authenticated SMTP session."""

    def __init__(self, server: MailServer, smtp: smtplib.SMTP) -> None:
        self._server = server
        self._smtp = smtp

    def send(self, mail: Mail) -> DeliveryResult:
        """Sends one mail. Recipients that the server accepts get it even if it refuses others.

        Raises:
            NotDelivered: No recipient got it, for a reason that is not about a recipient.
        """
        message = _message(mail, self._server.sender)
        with _translated(self._server):
            try:
                answers = self._smtp.send_message(message, self._server.sender, list(mail.to))
            except smtplib.SMTPRecipientsRefused as refused:
                answers = refused.recipients
                with suppress(smtplib.SMTPException, OSError):
                    self._smtp.rset()
        result = DeliveryResult([address for address in mail.to if address not in answers])
        for address, (code, text) in answers.items():
            (result.refused if 500 <= code < 600 else result.later)[address] = _reply(code, text)
        return result


@contextmanager
def connect(server: MailServer) -> Iterator[MailSession]:
    """Connects, starts TLS and logs in; sends QUIT at the end.

    Raises:
        NotDelivered: The server is not reachable, its certificate is not trusted, it refuses the password, or it has no STARTTLS.
    """
    with _translated(server):
        smtp = _open(server)
    try:
        yield MailSession(server, smtp)
    finally:
        with suppress(smtplib.SMTPException, OSError):
            smtp.quit()
        smtp.close()


def _open(server: MailServer) -> smtplib.SMTP:
    context = ssl.create_default_context()
    if server.cafile:
        context.load_verify_locations(server.cafile)
    if server.security == "tls":
        smtp: smtplib.SMTP = smtplib.SMTP_SSL(server.host, server.port, timeout=server.timeout_s, context=context)
    else:
        smtp = smtplib.SMTP(server.host, server.port, timeout=server.timeout_s)
    try:
        if server.security == "starttls":
            smtp.starttls(context=context)
        if server.username and server.password:
            smtp.login(server.username, server.password.reveal())
    except BaseException:
        smtp.close()
        raise
    return smtp


def _message(mail: Mail, sender: str) -> EmailMessage:
    message = EmailMessage()
    message["Subject"] = mail.subject
    message["From"] = Address("PSTT Kafka", addr_spec=sender)
    message["To"] = ", ".join(mail.to)
    message["Date"] = format_datetime(mail.date)
    message["Message-ID"] = mail.message_id
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no automatic replies
    message.set_content(mail.text)
    message.add_alternative(mail.html, subtype="html")
    return message


@contextmanager
def _translated(server: MailServer) -> Iterator[None]:
    """Translates every failure of smtplib and ssl to NotDelivered."""
    try:
        yield
    except smtplib.SMTPAuthenticationError as error:
        raise NotDelivered(
            f'{server.place} refuses the user "{server.username}"',
            why=_reply(error.smtp_code, error.smtp_error),
            remedy="check PSTT_SMTP_USERNAME and PSTT_SMTP_PASSWORD",
        ) from None
    except smtplib.SMTPNotSupportedError as error:
        raise NotDelivered(
            f"{server.place} does not offer what is asked of it", why=str(error), remedy=_other_security(server)
        ) from None
    except smtplib.SMTPResponseException as error:
        raise NotDelivered(
            f"{server.place} refuses the mail",
            why=_reply(error.smtp_code, error.smtp_error),
            remedy="ask the administrator of the mail server; check PSTT_MAIL_FROM",
        ) from None
    except smtplib.SMTPException as error:
        if isinstance(error.__context__, TimeoutError):  # smtplib reports it as a closed connection
            raise _no_answer(server) from None
        why = "it closed the connection" if isinstance(error, smtplib.SMTPServerDisconnected) else str(error)
        raise NotDelivered(f"{server.place} broke off", why=why, remedy=_other_security(server)) from None
    except ssl.SSLCertVerificationError as error:
        raise NotDelivered(
            f"the certificate of {server.place} is not trusted",
            why=error.verify_message,
            remedy="put the authority that signed it into PSTT_SMTP_CAFILE, or correct PSTT_SMTP_HOST",
        ) from None
    except ssl.SSLError as error:
        why = (error.reason or str(error)).replace("_", " ").lower()
        raise NotDelivered(f"{server.place} speaks no TLS here", why=why, remedy=_other_security(server)) from None
    except socket.gaierror:
        raise NotDelivered(
            f"{server.place} is not known by that name", remedy="correct PSTT_SMTP_HOST, or the name server"
        ) from None
    except TimeoutError:
        raise _no_answer(server) from None
    except OSError as error:
        raise NotDelivered(
            f"{server.place} cannot be reached",
            why=error.strerror or str(error),
            remedy="check PSTT_SMTP_HOST, PSTT_SMTP_PORT and the firewall",
        ) from None


def _no_answer(server: MailServer) -> NotDelivered:
    return NotDelivered(
        f"{server.place} does not answer",
        why=f"waited {server.timeout_s:g} s",
        remedy="check PSTT_SMTP_HOST, PSTT_SMTP_PORT and the firewall",
    )


def _other_security(server: MailServer) -> str:
    return f"PSTT_SMTP_SECURITY is {server.security}: starttls is usual on port 587, tls on 465, none on 25"


def _reply(code: int, text: bytes | str) -> str:
    words = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    return f"{code} {' '.join(words.split())}"[:500]
