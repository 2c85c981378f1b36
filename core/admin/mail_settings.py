"""The mail server: a test with values that are not saved, and saving them together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from core.admin.edit_settings import change_settings
from core.errors import ConfigError
from core.notify.delivery import DeliveryResult
from core.notify.smtp import mail_server
from core.notify.wiring import send_test_through
from core.records.opened import OpenWorkspace
from core.records.rights import Caller, require
from core.workspace.secrets import is_reference, store_secret
from core.workspace.settings import Settings, email_addresses, read_settings

__all__ = ["MAIL_SETTINGS", "save_mail_settings", "send_test_with"]

MAIL_SETTINGS = (
    "PSTT_SMTP_HOST",
    "PSTT_SMTP_PORT",
    "PSTT_SMTP_SECURITY",
    "PSTT_SMTP_USERNAME",
    "PSTT_SMTP_CAFILE",
    "PSTT_MAIL_FROM",
    "PSTT_MAIL_TO",
)
"""What the form has, beside the password."""
PASSWORD = "PSTT_SMTP_PASSWORD"  # noqa: S105 - the name of a setting


def send_test_with(
    opened: OpenWorkspace,
    values: Mapping[str, str | None],
    *,
    password: str | None,
    to: Sequence[str],
    caller: Caller,
    now: datetime,
) -> DeliveryResult:
    """Sends a test mail with settings that are not saved.

    Args:
        opened: The workspace.
        values: Setting → value; None or empty: its default. Settings that are not named are as they are saved.
        password: Of the mail server, or a reference to it; None: the one that is saved.
        to: Addresses; empty: those of PSTT_MAIL_TO.
        caller: Who asks for it; the saved password is sent to the server that they name.
        now: Aware UTC.

    Returns:
        The server's answer for each recipient.

    Raises:
        AccessRefused: The caller is no admin.
        ConfigError: A value is not valid, or there is no recipient.
        NotDelivered: The server cannot be reached, is not trusted, or refuses.
    """
    require(caller, "settings")
    settings = _settings_with(opened, values, password)
    server = mail_server(settings, opened.variables, opened.workspace.root)
    opened.ledger.audit.add(
        caller.name, "test mail", "mail", now, after={"to": list(to), "host": settings.PSTT_SMTP_HOST}
    )
    return send_test_through(
        server, tuple(to) or email_addresses(settings.PSTT_MAIL_TO), opened.timezone, now, settings.PSTT_LANGUAGE
    )


def save_mail_settings(
    opened: OpenWorkspace,
    values: Mapping[str, str | None],
    environ: Mapping[str, str],
    *,
    password: str | None,
    keep_in: str,
    caller: Caller,
    now: datetime,
) -> None:
    """Writes the settings of the mail server into `.env`, all or none, and stores its password as a secret.

    Args:
        opened: The workspace.
        values: Setting → value; None or empty: its default.
        environ: The environment, which takes precedence over `.env`.
        password: Of the mail server; None: it stays as it is.
        keep_in: Where the password is stored: `keyring:SERVICE/USER` or `file:PATH`.
        caller: Who changes it.
        now: The clock.

    Raises:
        AccessRefused: The caller is no admin.
        ConfigError: A value is not valid, or the values contradict each other; nothing is written.
        StorageFailed: A file cannot be written.
    """
    require(caller, "settings")
    require(caller, "secret")
    settings = _settings_with(opened, values, password)
    mail_server(settings, opened.variables, opened.workspace.root, contact=False)
    changes = {name: value or None for name, value in values.items()}
    if password:
        reference = password if is_reference(password) else keep_in
        if reference != password:
            store_secret(reference, password, opened.workspace)
            opened.ledger.audit.add(caller.name, "store", f"secret {reference}", now)
        changes[PASSWORD] = reference
    elif not changes.get("PSTT_SMTP_USERNAME"):
        changes[PASSWORD] = None  # they belong together
    change_settings(opened.workspace, opened.ledger, changes, environ, caller=caller, now=now)


def _settings_with(opened: OpenWorkspace, values: Mapping[str, str | None], password: str | None) -> Settings:
    if unknown := sorted(values.keys() - set(MAIL_SETTINGS)):
        raise ConfigError(f"{', '.join(unknown)} is no setting of the mail server", remedy=", ".join(MAIL_SETTINGS))
    keeps_password = not password and values.get("PSTT_SMTP_USERNAME", "unchanged")
    environ = {name: value for name, value in opened.variables.items() if name not in {*values, PASSWORD}}
    if keeps_password and PASSWORD in opened.variables:
        environ[PASSWORD] = opened.variables[PASSWORD]
    typed = {name: (value, 0) for name, value in {**values, PASSWORD: password}.items() if value}
    settings, problems = read_settings(opened.workspace, environ, typed)
    if settings is None:
        first = problems[0]
        raise ConfigError(first.what, why=first.why, remedy=first.remedy, key=first.key)
    return settings
