"""Changes a setting in `.env`, or `default_environment` in connections.json: checked first, every other line stays as it is, each change audited."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Literal

from dotenv.parser import parse_stream

from core.admin.edit_files import is_private, save_connections
from core.admin.edit_jobs import editing
from core.errors import ConfigError
from core.records.ledger import Ledger
from core.records.rights import Caller, require
from core.workspace.atomic import write_atomically
from core.workspace.json_file import document_of, nearest
from core.workspace.paths import Workspace
from core.workspace.secrets import is_reference
from core.workspace.settings import MASK, SECRETS, SETTING_NAMES, env_entries, read_settings
from core.workspace.stored_file import read_stored

__all__ = [
    "DEFAULT_ENVIRONMENT",
    "Applies",
    "change_default_environment",
    "change_setting",
    "change_settings",
    "is_editable",
    "setting_applies",
    "setting_meanings",
]

DEFAULT_ENVIRONMENT = "default_environment"
"""The one setting that is a key of connections.json."""
Applies = Literal["next run", "runner", "runner and page", "at once"]
"""From when a changed setting holds: each run, and each command, reads it; or these processes when they start."""
_BY_RUNNER = frozenset(
    "PSTT_WORKERS PSTT_BACKFILL_WORKERS PSTT_BACKFILL_PAUSE_AFTER PSTT_BACKFILL_PAUSE_S PSTT_GRACE_S PSTT_RUN_RETRIES "
    "PSTT_RUN_RETRY_WAIT_S PSTT_MAX_CATCH_UP_DAYS PSTT_STOP_TIMEOUT_S PSTT_TIMEZONE PSTT_PAGE_URL "
    "PSTT_RECEIPT_AT PSTT_RECEIPT_TO PSTT_MAIL_FROM PSTT_MAIL_TO PSTT_SMTP_HOST PSTT_SMTP_PORT PSTT_SMTP_SECURITY "
    "PSTT_SMTP_USERNAME PSTT_SMTP_PASSWORD PSTT_SMTP_CAFILE PSTT_SMTP_TIMEOUT_S KAFKA_HEALTH_CHECK_INTERVAL_SEC".split()
)
_BY_LOGS = frozenset({"KAFKA_LOG_LEVEL", "PSTT_LANGUAGE", "PSTT_LOG_RETENTION_DAYS"})
_AT_ONCE = frozenset({"PSTT_HEALTH_GRACE_S"})

MACHINE_SETTINGS = frozenset({"PSTT_SECRET_COMMANDS"})
"""They decide which programs run on this machine."""
_EXAMPLE = Path(__file__).parent.parent.parent / ".env.example"
_PLAIN = re.compile(r"[A-Za-z0-9_./:@,+*{}-]+")
_ENTRY = re.compile(r"#([A-Z][A-Z0-9_]*)=")


def is_editable(name: str) -> bool:
    """Returns whether a setting may be changed here: the administrator of the machine writes the others."""
    return name in SETTING_NAMES and name not in SECRETS | MACHINE_SETTINGS


def setting_applies(name: str) -> Applies:
    """Returns from when a changed value of a setting holds."""
    if name in _BY_LOGS:
        return "runner and page"
    if name in _BY_RUNNER:
        return "runner"
    return "at once" if name in _AT_ONCE else "next run"


def change_setting(
    workspace: Workspace,
    ledger: Ledger,
    name: str,
    value: str | None,
    environ: Mapping[str, str],
    *,
    caller: Caller,
    now: datetime,
) -> None:
    """Writes a setting into `.env`, or removes it there.

    Args:
        workspace: Whose `.env`.
        ledger: Stores the audit line.
        name: The setting.
        value: None: it gets its default back.
        environ: The environment, which takes precedence over the file.
        caller: Who changes it.
        now: The clock.

    Raises:
        AccessRefused: The caller is no admin.
        ConfigError: There is no such setting, it is a secret, the environment sets it, or the value is not valid;
            nothing is written.
        StorageFailed: The file cannot be written; the old one is untouched.
    """
    change_settings(workspace, ledger, {name: value}, environ, caller=caller, now=now)


def change_settings(
    workspace: Workspace,
    ledger: Ledger,
    values: Mapping[str, str | None],
    environ: Mapping[str, str],
    *,
    caller: Caller,
    now: datetime,
) -> None:
    """Writes several settings into `.env`, all or none; see `change_setting`.

    The password of the mail server may be written as a reference, as the other secrets are by the administrator.
    """
    require(caller, "settings")
    for name, value in values.items():
        _refuse_what_others_set(name, value, environ)
        if value is not None and any(char in value for char in "\r\n\0"):
            raise ConfigError(f"{name} has a line break", remedy="write it in one line", key=name)
    with editing(workspace):
        stored = read_stored(workspace.env_file)
        before, text = env_entries(stored.text), stored.text
        for name, value in values.items():
            text = _with(text, name, value)
        known = {problem.what for problem in read_settings(workspace, environ, before)[1]}
        # An old problem of another setting may stay: they are fixed one after the other.
        for problem in read_settings(workspace, environ, env_entries(text))[1]:
            if problem.what not in known or problem.key in values:
                raise problem
        # A new file is private too: secrets may come into it.
        write_atomically(workspace.env_file, text, private=not stored.sha256 or is_private(workspace.env_file))
        for name, value in values.items():
            earlier = before[name][0] if name in before else None
            if len(values) == 1 or earlier != value:
                hidden = _shown(name, earlier), _shown(name, value)
                ledger.audit.add(caller.name, "change", f"setting {name}", now, before=hidden[0], after=hidden[1])


def change_default_environment(
    workspace: Workspace,
    ledger: Ledger,
    value: str | None,
    environ: Mapping[str, str],
    *,
    seen_sha256: str | None = None,
    caller: Caller,
    now: datetime,
) -> None:
    """Writes into connections.json which cluster is that of everything that names none.

    Args:
        workspace: Whose connections.json.
        ledger: Stores the audit line and the version.
        value: A key of `kafka_connections`; None: there is none from now on.
        environ: What `env:` may name.
        seen_sha256: Of the file that the caller has read; None: any version is changed.
        caller: Who changes it.
        now: The clock.

    Raises:
        AccessRefused: The caller is no admin.
        NewerEdit: The file was changed since it was read.
        ConfigError: There is no such cluster, or the file is no JSON; nothing is written.
        StorageFailed: The file cannot be written; the old one is untouched.
    """
    stored = read_stored(workspace.connections_file)
    document = document_of(stored)
    if value is None:
        document.pop(DEFAULT_ENVIRONMENT, None)
    else:
        document = {DEFAULT_ENVIRONMENT: None, **document} | {DEFAULT_ENVIRONMENT: value}
    seen = stored.sha256 if seen_sha256 is None else seen_sha256
    save_connections(
        workspace, ledger, document, environ, about=DEFAULT_ENVIRONMENT, seen_sha256=seen, caller=caller, now=now
    )


def _shown(name: str, value: str | None) -> str | None:
    """The value for the audit trail: a secret that is no reference is hidden."""
    return MASK if value and name in SECRETS and not is_reference(value) else value


def _is_mail_password(name: str, value: str | None) -> bool:
    return name == "PSTT_SMTP_PASSWORD" and (value is None or is_reference(value))


def _refuse_what_others_set(name: str, value: str | None, environ: Mapping[str, str]) -> None:
    if name not in SETTING_NAMES:
        raise ConfigError(f"there is no setting {name}", remedy=nearest(name, SETTING_NAMES), key=name)
    if not is_editable(name) and not _is_mail_password(name, value):
        raise ConfigError(
            f"{name} is not changed here",
            why="it is a secret" if name in SECRETS else "it decides what may run on this machine",
            remedy="the administrator of the machine writes it into .env, or as a reference into connections.json",
            key=name,
        )
    if environ.get(name):
        raise ConfigError(
            f"{name} is set by the environment, which takes precedence over .env",
            remedy="change it where the service or the terminal sets it",
            key=name,
        )


def _with(text: str, name: str, value: str | None) -> str:
    """Returns the text of `.env` with another value of one setting, in its place or at the end."""
    entry = "" if value is None else f"{name}={_quoted(value)}\n"
    kept, is_there = [], False
    for binding in parse_stream(io.StringIO(text)):
        original = binding.original.string
        if binding.key != name:
            kept.append(original)
            continue
        # What a dotenv parser gives to an entry begins with the blank lines and ends with the line's end.
        kept.append(original[: len(original) - len(original.lstrip())])
        kept.append("" if is_there else entry)
        is_there = True
    if not is_there and entry:
        kept.append(entry if not text or text.endswith("\n") else f"\n{entry}")
    return "".join(kept)


def _quoted(value: str) -> str:
    if _PLAIN.fullmatch(value):
        return value
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


@cache
def setting_meanings() -> dict[str, str]:
    """Returns what each setting means, in English: the comment above its line in `.env.example`."""
    meanings: dict[str, str] = {}
    comment: list[str] = []
    is_complete = True
    for line in _EXAMPLE.read_text(encoding="utf-8").splitlines():
        found = _ENTRY.match(line)
        if found:
            meanings[found[1]] = " ".join(comment)
            is_complete = True
        elif line.startswith("# "):
            comment = [line[2:]] if is_complete else [*comment, line[2:]]
            is_complete = False
        else:
            comment, is_complete = [], True
    return meanings
