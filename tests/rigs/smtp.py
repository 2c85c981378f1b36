"""A real SMTP server in the test process (aiosmtpd), whose responses a test sets."""

from __future__ import annotations

import asyncio
import email
import email.policy
import socket
import ssl
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Inbox:
    """The mails that the server received, and how it responds."""

    mails: list[EmailMessage] = field(default_factory=list)
    recipients: list[list[str]] = field(default_factory=list)
    """Of each mail: those that the server took it for."""
    answers: dict[str, str] = field(default_factory=dict)
    """Recipient → answer to RCPT TO, such as `550 5.1.1 unknown`."""
    data_answer: str = ""
    """Answer to the mail itself, where it is not taken."""
    delay_s: float = 0.0
    """Before each answer to RCPT TO."""
    logins: list[str] = field(default_factory=list)
    connections: int = 0

    async def handle_EHLO(self, server: Any, session: Any, envelope: Any, hostname: str, responses: list[str]) -> Any:
        self.connections += 1
        session.host_name = hostname
        return responses

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: list[str]) -> str:
        await asyncio.sleep(self.delay_s)
        if address in self.answers:
            return self.answers[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        if self.data_answer:
            return self.data_answer
        mail = email.message_from_bytes(envelope.content, policy=email.policy.default)
        assert isinstance(mail, EmailMessage)
        self.recipients.append(list(envelope.rcpt_tos))
        self.mails.append(mail)
        return "250 OK"

    def text(self, index: int = -1) -> str:
        """The plain part of a mail as a user reads it."""
        part = self.mails[index].get_body(("plain",))
        assert part is not None
        return str(part.get_content()).replace("\r\n", "\n")

    def html(self, index: int = -1) -> str:
        """The HTML part of a mail."""
        part = self.mails[index].get_body(("html",))
        assert part is not None
        return str(part.get_content()).replace("\r\n", "\n")


class MailRig(AbstractContextManager["MailRig"]):
    """One server; `stop` and `start` stop and restart it on the same port.

    Args:
        certificate: PEM file with key and chain; None: no TLS at all.
        implicit: TLS from the first byte instead of STARTTLS.
        users: Name → password; empty: no login.
    """

    def __init__(
        self, certificate: Path | None = None, *, implicit: bool = False, users: Mapping[str, str] | None = None
    ) -> None:
        self.inbox = Inbox()
        self.port = free_port()
        self._users = users or {}
        self._context = _context(certificate) if certificate else None
        self._implicit = implicit
        self._controller: Controller | None = None

    def __enter__(self) -> MailRig:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def start(self) -> None:
        more: dict[str, Any] = {}
        if self._context and self._implicit:
            more["ssl_context"] = self._context
        elif self._context:
            more |= {"tls_context": self._context, "require_starttls": True}
        if self._users:
            more |= {
                "authenticator": self._authenticate,
                "auth_required": not self._implicit,  # aiosmtpd does not see that implicit TLS is TLS, and warns
                "auth_require_tls": not self._implicit,
            }
        self._controller = Controller(
            self.inbox, hostname="127.0.0.1", port=self.port, server_hostname="rig.example.com", **more
        )
        self._controller.start()

    def stop(self) -> None:
        if self._controller is not None:
            self._controller.stop()
            self._controller = None

    def _authenticate(self, server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        assert isinstance(data, LoginPassword)
        name, password = data.login.decode(), data.password.decode()
        self.inbox.logins.append(name)
        return AuthResult(success=self._users.get(name) == password, handled=False)


def _context(certificate: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    return context
