"""Changes of SQL files, connections.json and alerts.json by people: checked first, never over a newer edit, written down."""

from __future__ import annotations

import hashlib
import json
import re
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from core.admin.edit_jobs import NewerEdit, editing
from core.errors import ConfigError
from core.model.all import DbType, Parameter
from core.records.agenda import Agenda
from core.workspace.json_file import parse_json_file
from core.workspace.paths import Workspace, write_whole
from core.workspace.secrets import is_reference

__all__ = ["LARGEST_QUERY_BYTES", "StoredFile", "brought_back", "check_query", "hidden_secrets", "keep_connections", "read_stored", "save_alerts",
           "save_connections", "save_query"]  # fmt: skip

LARGEST_QUERY_BYTES = 5_000_000
"""A hand-written query has some kilobytes; more is a list of values that belongs into a table."""
AUDITED_BYTES = 100_000
"""A larger file is written down by its size and hash."""
HIDDEN = "***"
SECRET_KEYS = ("password", "sasl_password")
_QUERY_NAME = re.compile(r"[\w][\w .()+-]{0,150}\.sql", re.IGNORECASE)
_EXAMPLES = {"integer": "1", "decimal": "1", "date": "2026-01-01", "datetime": "2026-01-01 00:00:00"}


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file as it stands on disk."""

    path: Path
    content: bytes
    sha256: str
    """Empty: there is no such file."""

    @property
    def text(self) -> str:
        """For people: what is no UTF-8 is read as Windows-1252, as the query's reader does."""
        try:
            return self.content.decode("utf-8-sig")
        except UnicodeDecodeError:
            return self.content.decode("cp1252", "replace")


def read_stored(path: Path) -> StoredFile:
    """A file of the workspace; one that is not there is empty.

    Raises:
        ConfigError: It cannot be read.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return StoredFile(path, b"", "")
    except OSError as error:
        raise ConfigError("the file cannot be read", why=error.strerror or str(error), file=path) from None
    return StoredFile(path, content, hashlib.sha256(content).hexdigest())


# ── queries ───────────────────────────────────────────────────────────────────────────────────


def check_query(path: Path, content: bytes, db_type: DbType, *, allow_writes: bool) -> tuple[str, ...]:
    """Whether a file can be a query of such a database; what a person should know about it.

    Raises:
        ConfigError: It is too large.
        SqlError: As `python -m core check` says it, with line and column; also where it could write.
    """
    from core.sql.query import parse

    if len(content) > LARGEST_QUERY_BYTES:
        raise ConfigError(
            f"{path.name} has {len(content) / 1e6:,.1f} MB, and a query may have {LARGEST_QUERY_BYTES / 1e6:,.0f} MB",
            why="a query so large is mostly a list of values",
            remedy="put the values into a table and join it",
        )
    parsed = parse(content, name=path.name, db_type=db_type, file=path)
    parsed.bind({p.name: _example(p) for p in parsed.parameters}, allow_writes=allow_writes)
    return parsed.notes


def _example(parameter: Parameter) -> str:
    """A value to look at the statements with: templates are resolved when a run is due."""
    if parameter.allowed:
        return parameter.allowed[0]
    if parameter.type in _EXAMPLES:
        return _EXAMPLES[parameter.type]
    return "1" if not parameter.default or "{" in parameter.default else parameter.default


def save_query(
    workspace: Workspace,
    agenda: Agenda,
    name: str,
    content: bytes,
    *,
    db_type: DbType,
    allow_writes: bool,
    seen_sha256: str,
    who: str,
    now: datetime,
) -> tuple[str, ...]:
    """Writes an SQL file byte for byte; what a person should know about it.

    Args:
        workspace: Where.
        agenda: For the audit.
        name: Below `queries/`.
        content: The whole file.
        db_type: Whose SQL it is.
        allow_writes: The connection says so: the read-only gate stays open.
        seen_sha256: Of the file that the change began with; empty: it is a new one.
        who: Who changes it.
        now: The clock.

    Raises:
        NewerEdit: Somebody else has changed it since.
        ConfigError: The name is none, or as `check_query`; nothing is written.
        StorageFailed: The file cannot be written; the old one is untouched.
    """
    path = workspace.query_file(name)
    if not _QUERY_NAME.fullmatch(path.name):
        raise ConfigError(f"{name!r} is no name for a query", remedy="use letters, digits, blanks and - _ . with .sql")
    notes = check_query(path, content, db_type, allow_writes=allow_writes)
    with editing(workspace):
        before = _unchanged(path, seen_sha256)
        write_whole(path, content)
        agenda.audit(who, "save", f"query {name}", now, before=_told(before.content), after=_told(content))
    return notes


def _told(content: bytes) -> Any:
    if not content:
        return None
    if len(content) > AUDITED_BYTES:
        return {"size_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    return content.decode("utf-8", "replace")


# ── connections.json and alerts.json ──────────────────────────────────────────────────────────


def save_connections(
    workspace: Workspace,
    agenda: Agenda,
    document: Mapping[str, Any],
    environ: Mapping[str, str],
    *,
    about: str,
    seen_sha256: str,
    who: str,
    now: datetime,
) -> None:
    """Writes connections.json.

    Args:
        workspace: Where.
        agenda: For the audit, in which no secret stands.
        document: The whole file.
        environ: What `env:` may name.
        about: What was changed, such as `connection BOSC`.
        seen_sha256: Of the file that the change began with; empty: it is a new one.
        who: Who changes it.
        now: The clock.

    Raises:
        NewerEdit: Somebody else has changed it since.
        ConfigError: The first problem that was not there before, as `python -m core check` says it; nothing is written.
        StorageFailed: The file cannot be written; the old one is untouched.
    """
    from core.workspace.settings import parse_connections

    path = workspace.connections_file
    text = json.dumps(document, ensure_ascii=False, indent=2) + "\n"
    _, problems = parse_connections(parse_json_file(path, text), workspace, environ)
    with editing(workspace):
        before = _unchanged(path, seen_sha256)
        old = parse_json_file(path, before.text) if before.content else None
        # What was wrong before may stay: a file with two faults is mended one after the other.
        faults = {error.what for error in parse_connections(old, workspace, environ)[1]} if old else set()
        if new := [error for error in problems if error.what not in faults]:
            raise new[0]
        known = old.document if old else None
        keep_connections(workspace, agenda, before.text, now - timedelta(milliseconds=1))
        write_whole(path, text, private=_has_literal(document) or _is_private(path))
        agenda.audit(who, "change", about, now, before=hidden_secrets(known), after=hidden_secrets(document))
        keep_connections(workspace, agenda, text, now, saved_by=who)


def keep_connections(workspace: Workspace, agenda: Agenda, text: str, now: datetime, *, saved_by: str = "") -> None:
    """Keeps a text of connections.json among its versions, without the passwords that stand in it.

    One with a fault is not kept: nobody brings it back, and a password under a mistyped key could not be told.
    """
    from core.workspace.settings import parse_connections

    try:
        file = parse_json_file(workspace.connections_file, text)
    except ConfigError:
        return
    if parse_connections(file, workspace, {})[1]:
        return
    document = json.dumps(hidden_secrets(file.document), ensure_ascii=False, indent=2)
    sha256 = hashlib.sha256(document.encode()).hexdigest()
    newest = next(iter(agenda.connections_versions()), None)
    if newest is None or newest.sha256 != sha256:
        agenda.add_connections_version(sha256, document, now, saved_by)


def brought_back(version: str, current: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """A kept version of connections.json as it can be saved.

    Args:
        version: The document that was kept.
        current: The file as it is now: the passwords that were left out of the version are taken from it.

    Returns:
        The document, and the connections and clusters of which a password has to be given again.
    """
    document: dict[str, Any] = json.loads(version)
    now = {entry.get("name"): entry for entry in current.get("connections", []) if isinstance(entry, dict)}
    clusters = current.get("kafka_connections", {})
    entries = [(str(entry["name"]), entry, now.get(entry["name"])) for entry in document.get("connections", [])]
    entries += [(key, entry, clusters.get(key)) for key, entry in document.get("kafka_connections", {}).items()]
    missing = []
    for name, entry, known in entries:
        for key in SECRET_KEYS:
            if entry.get(key) != HIDDEN:
                continue
            if isinstance(known, dict) and known.get(key):
                entry[key] = known[key]
            else:
                del entry[key]
                missing.append(name)
    return document, missing


def save_alerts(
    workspace: Workspace, agenda: Agenda, document: Mapping[str, Any], *, seen_sha256: str, who: str, now: datetime
) -> None:
    """Writes alerts.json; the arguments and what it raises are those of `save_connections`."""
    from core.notify.rules import parse_alerts

    path = workspace.alerts_file
    text = json.dumps(document, ensure_ascii=False, indent=2) + "\n"
    _, problems = parse_alerts(parse_json_file(path, text))
    if problems:
        raise problems[0]
    with editing(workspace):
        before = _unchanged(path, seen_sha256)
        known = None
        with suppress(ValueError):  # what was wrong is replaced
            known = json.loads(before.text)
        write_whole(path, text, private=_is_private(path))
        agenda.audit(who, "change", "alert rules", now, before=hidden_secrets(known), after=hidden_secrets(document))


def hidden_secrets(value: Any) -> Any:
    """The same without passwords and addresses of channels that stand in the file itself."""
    if isinstance(value, Mapping):
        return {name: _hidden(name, member) for name, member in value.items()}
    return [hidden_secrets(member) for member in value] if isinstance(value, list) else value


def _hidden(name: str, value: Any) -> Any:
    if name in SECRET_KEYS and isinstance(value, str) and value and not is_reference(value):
        return HIDDEN
    if name == "channels" and isinstance(value, Mapping):
        return {channel: place if is_reference(str(place)) else HIDDEN for channel, place in value.items()}
    return hidden_secrets(value)


def _has_literal(document: Mapping[str, Any]) -> bool:
    return bool(hidden_secrets(document) != document)


def _is_private(path: Path) -> bool:
    """Whether somebody has taken it away from other accounts; on Windows the folder's rights apply."""
    return path.exists() and not path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH)


def _unchanged(path: Path, seen_sha256: str) -> StoredFile:
    found = read_stored(path)
    if found.sha256 != seen_sha256:
        raise NewerEdit(
            f"{path.name} was changed by somebody else since you read it",
            remedy="read it again, and make your change in that version",
        )
    return found
