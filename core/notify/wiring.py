"""Builds the parts of notification from an opened workspace: mail server, channels, rules, and what runs beside the runner."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from datetime import date, datetime, time, timedelta
from typing import Protocol
from zoneinfo import ZoneInfo

from core.errors import ConfigError, PsttError
from core.language import Language
from core.model.check_result import CheckResult
from core.model.job import Job
from core.notify.alert_messages import test_notification
from core.notify.channels import channel_factory
from core.notify.daily_report import DailyReport, make_daily_report
from core.notify.delivery import Channel, DeliveryResult, OutboxMessage
from core.notify.evaluator import AlertRules
from core.notify.mail_channel import check_mail
from core.notify.outbox import Outbox
from core.notify.rules import load_alerts
from core.notify.situation import Recipients
from core.notify.smtp import Mail, MailServer, connect, mail_server
from core.records.opened import OpenWorkspace
from core.workspace.jobs import load_jobs
from core.workspace.settings import email_addresses

__all__ = [
    "MailDelivery",
    "NotifyingWorkspace",
    "RuleEvaluation",
    "channels_of",
    "daily_report",
    "mail_checks",
    "mail_server_of",
    "send_test_mail",
    "send_test_message",
    "send_test_through",
]


class NotifyingWorkspace(OpenWorkspace, Protocol):
    """An opened workspace with its outbox."""

    @property
    def outbox(self) -> Outbox:
        """Incidents, and messages that wait to be sent."""
        ...


def mail_server_of(opened: OpenWorkspace) -> MailServer | None:
    """Returns the mail server of the settings; None: there is none.

    Raises:
        ConfigError: Its settings are incomplete, or its password cannot be read.
    """
    return mail_server(opened.settings, opened.variables, opened.workspace.root)


def channels_of(opened: OpenWorkspace) -> Callable[[str], Channel]:
    """Returns a function that opens a channel by its name."""
    return channel_factory(
        lambda: mail_server_of(opened),
        lambda: load_alerts(opened.workspace.alerts_file).channels,
        opened.variables,
        opened.workspace.root,
    )


def daily_report(opened: NotifyingWorkspace, day: date | None, now: datetime) -> DailyReport:
    """Returns the report of what was scheduled on a day; None: of today so far.

    Raises:
        ConfigError: The day is still to come.
    """
    today = now.astimezone(ZoneInfo(opened.timezone)).date()
    if day is not None and day > today:
        raise ConfigError(f"{day} is still to come")
    jobs, _broken = load_jobs(opened.workspace)
    return make_daily_report(opened.ledger, opened.outbox, jobs, day or today, now, opened.timezone)


def send_test_mail(opened: OpenWorkspace, to: Sequence[str], now: datetime) -> DeliveryResult:
    """Sends a test mail at once, without the outbox; returns the server's answer for each recipient.

    Args:
        opened: The workspace.
        to: Addresses; empty: those of PSTT_MAIL_TO.
        now: Aware UTC.

    Raises:
        ConfigError: No mail server is set up, or there is no recipient.
        NotDelivered: The server cannot be reached, is not trusted, or refuses.
    """
    recipients = tuple(to) or email_addresses(opened.settings.PSTT_MAIL_TO)
    language = opened.settings.PSTT_LANGUAGE
    return send_test_through(mail_server_of(opened), recipients, opened.timezone, now, language)


def send_test_through(
    server: MailServer | None, recipients: Sequence[str], timezone: str, now: datetime, language: Language = "en"
) -> DeliveryResult:
    """Sends a test mail through a server; as `send_test_mail`. None: no server is set up."""
    if server is None:
        raise ConfigError("no mail server is set up", remedy="set PSTT_SMTP_HOST and PSTT_MAIL_FROM")
    if not recipients:
        raise ConfigError("no recipient is named", remedy="write --to ADDRESS, or set PSTT_MAIL_TO")
    notice = test_notification(server.place, now, timezone).in_language(language)
    message_id = f"<pstt-test-{now:%Y%m%d%H%M%S%f}@{server.sender.partition('@')[2]}>"
    with connect(server) as link:
        return link.send(Mail(recipients, notice.subject_line, notice.text, notice.html, now, message_id))


def send_test_message(opened: OpenWorkspace, channel: str, now: datetime) -> DeliveryResult:
    """Sends a test message through a channel of alerts.json at once, without the outbox.

    Raises:
        ConfigError: There is no such channel, or its URL is not valid.
        NotDelivered: The service cannot be reached, or refuses.
    """
    notice = test_notification(f"channel {channel}", now, opened.timezone)
    notice = notice.in_language(opened.settings.PSTT_LANGUAGE)
    message = OutboxMessage(
        outbox_id=0,
        kind="receipt",
        incident_id=None,
        dedupe_key="",
        channel=channel,
        recipients=(),
        delivered=(),
        refused={},
        subject=notice.subject_line,
        body=notice.text,
        body_html=notice.html,
        created_at=now,
        next_try_at=now,
        tries=0,
        state="waiting",
        last_error="",
        sent_at=None,
    )
    with channels_of(opened)(channel).open() as send:
        return send(message)


def mail_checks(opened: NotifyingWorkspace, now: datetime) -> Iterator[CheckResult]:
    """Yields what `doctor` reports about mail: its set-up, and messages of the last day that were given up."""
    try:
        yield check_mail(mail_server_of(opened), email_addresses(opened.settings.PSTT_MAIL_TO))
    except PsttError as error:
        yield CheckResult("fail", "mail", error.text, error.remedy)
    if opened.workspace.ledger_file.exists():
        for entry in opened.outbox.given_up_since(now - timedelta(days=1)):
            whom = ", ".join(entry.recipients) or entry.channel
            yield CheckResult("warn", "mail", f'"{entry.subject}" never reached {whom}: {entry.last_error}')


class _InOwnThread:
    """Opens the workspace anew in the thread that works with it, since SQLite connections belong to one thread."""

    def __init__(self, opened: NotifyingWorkspace) -> None:
        self._opened = opened
        self._stack = ExitStack()
        self._own: NotifyingWorkspace | None = None

    def _here(self) -> NotifyingWorkspace:
        if self._own is None:
            self._own = self._stack.enter_context(self._opened.reopened())
        return self._own

    def close(self) -> None:
        """Closes what was opened; called in the same thread."""
        self._stack.close()


class RuleEvaluation(_InOwnThread):
    """Evaluates the alert rules each time that it is called.

    Args:
        opened: The workspace.
        jobs: Returns the jobs as the runner knows them.
        now: The clock, aware UTC.
    """

    def __init__(self, opened: NotifyingWorkspace, jobs: Callable[[], list[Job]], now: Callable[[], datetime]) -> None:
        super().__init__(opened)
        self._jobs, self._now = jobs, now
        self._rules: AlertRules | None = None

    def __call__(self) -> None:
        """Evaluates all rules once."""
        if self._rules is None:
            self._rules = _alert_rules(self._here(), self._jobs)
        self._rules.evaluate(self._now())


class MailDelivery(_InOwnThread):
    """Delivers what waits in the outbox each time that it is called.

    Args:
        opened: The workspace.
        now: The clock, aware UTC.
    """

    def __init__(self, opened: NotifyingWorkspace, now: Callable[[], datetime]) -> None:
        super().__init__(opened)
        self._now = now

    def __call__(self) -> None:
        """Delivers what is due."""
        self._here().outbox.deliver(self._now, channels_of(self._opened))


def _alert_rules(opened: NotifyingWorkspace, jobs: Callable[[], list[Job]]) -> AlertRules:
    settings = opened.settings
    recipients = Recipients(
        email_addresses(settings.PSTT_MAIL_TO) if settings.PSTT_SMTP_HOST else (),
        email_addresses(settings.PSTT_RECEIPT_TO) if settings.PSTT_SMTP_HOST else (),
        time.fromisoformat(settings.PSTT_RECEIPT_AT),
        opened.timezone,
        settings.PSTT_PAGE_URL or "",
        settings.PSTT_LANGUAGE,
    )
    return AlertRules(
        opened.outbox,
        opened.ledger,
        rules_file=opened.workspace.alerts_file,
        spool_dir=opened.workspace.spool_dir,
        jobs=jobs,
        recipients=recipients,
    )
