"""Saves SQL files, connections.json and alerts.json: checked first, never over a newer edit, each change audited."""

from __future__ import annotations

import hashlib
import json
import re
import stat
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from core.admin.edit_jobs import BEFORE, editing, require_seen
from core.errors import ConfigError
from core.model.dialect import Dialect
from core.model.query import Parameter
from core.notify.rules import default_document, parse_alerts
from core.records.connections_versions import HIDDEN, SECRET_KEYS, hidden_secrets, keep_connections
from core.records.edits_file import EditsFile
from core.records.ledger import Ledger
from core.records.query_versions import QueryVersions
from core.records.rights import Caller, require
from core.sql.parser import parse
from core.sql.query import ParsedQuery
from core.workspace.atomic import write_atomically
from core.workspace.connections import parse_connections
from core.workspace.json_file import parse_json_file
from core.workspace.paths import Workspace
from core.workspace.secrets import store_secret
from core.workspace.stored_file import StoredFile, read_stored

__all__ = [
    "LARGEST_QUERY_BYTES",
    "bind_examples",
    "brought_back",
    "check_query",
    "checked_query",
    "create_alerts",
    "is_private",
    "require_query_name",
    "save_alerts",
    "save_connections",
    "save_query",
    "save_secret",
]

LARGEST_QUERY_BYTES = 5_000_000
"""A hand-written query has some kilobytes; more is a list of values that belongs in a table."""
AUDITED_BYTES = 100_000
"""Of a larger file the audit trail has only size and hash."""
QUERY_NAME = re.compile(r"[\w][\w .()+-]{0,150}\.sql", re.IGNORECASE)
_EXAMPLES = {"integer": "1", "decimal": "1", "date": "2026-01-01", "datetime": "2026-01-01 00:00:00"}


def check_query(path: Path, content: bytes, dialect: Dialect, *, allow_writes: bool) -> tuple[str, ...]:
    """Checks that a file can be a query of such a database. Returns notes for the user; raises as `checked_query`."""
    return checked_query(path, content, dialect, allow_writes=allow_writes).notes


def checked_query(path: Path, content: bytes, dialect: Dialect, *, allow_writes: bool) -> ParsedQuery:
    """Returns the query of a file that can be one of such a database.

    Raises:
        ConfigError: It is too large.
        SqlError: As `python -m core check` says it, with line and column; also where it could change data.
    """
    if len(content) > LARGEST_QUERY_BYTES:
        raise ConfigError(
            f"{path.name} has {len(content) / 1e6:,.1f} MB, and a query may have {LARGEST_QUERY_BYTES / 1e6:,.0f} MB",
            why="a query so large is mostly a list of values",
            remedy="put the values into a table and join it",
        )
    parsed = parse(content, name=path.name, dialect=dialect, file=path)
    bind_examples(parsed, allow_writes=allow_writes)
    return parsed


def bind_examples(parsed: ParsedQuery, *, allow_writes: bool) -> None:
    """Checks the statements of a file with values that fit; raises as `ParsedQuery.bind`."""
    parsed.bind({p.name: _example(p) for p in parsed.parameters}, allow_writes=allow_writes)


def _example(parameter: Parameter) -> str:
    """Returns a value to check the statements with: templates are resolved when a run is due."""
    if parameter.allowed:
        return parameter.allowed[0]
    if parameter.type in _EXAMPLES:
        return _EXAMPLES[parameter.type]
    return "1" if not parameter.default or "{" in parameter.default else parameter.default


def save_query(
    workspace: Workspace,
    ledger: Ledger,
    name: str,
    content: bytes,
    *,
    dialect: Dialect,
    allow_writes: bool,
    seen_sha256: str,
    caller: Caller,
    now: datetime,
    check: Callable[[Path, bytes], tuple[str, ...]] | None = None,
) -> tuple[str, ...]:
    """Writes an SQL file byte for byte. Returns notes for the user.

    Args:
        workspace: The workspace.
        ledger: Stores the audit line.
        name: The file, below `queries/`.
        content: The whole file.
        dialect: The dialect of the database that it is written for.
        allow_writes: The connection allows statements that write.
        seen_sha256: Of the file that the caller has read; empty: the file is new.
        caller: Who changes it.
        now: The clock.
        check: Does what `check_query` does, with the same rules, in another process; None: it is done in this one.

    Raises:
        AccessRefused: The caller has no right to change it.
        NewerEdit: It was changed since it was read.
        ConfigError: The name is not valid, or as `check_query`; nothing is written.
        StorageFailed: The file cannot be written; the old one is untouched.
    """
    require(caller, "save")
    path = require_query_name(workspace, name)
    if check is None:
        check = partial(check_query, dialect=dialect, allow_writes=allow_writes)
    notes = check(path, content)
    with editing(workspace), EditsFile(workspace.edits_file) as edits:
        before, versions = _unchanged(path, seen_sha256), QueryVersions(edits)
        if before.sha256:
            versions.add(name, before.content, now - BEFORE)
        write_atomically(path, content)
        versions.add(name, content, now, saved_by=caller.name)
        ledger.audit.add(
            caller.name, "save", f"query {name}", now, before=_audited(before.content), after=_audited(content)
        )
    return notes


def require_query_name(workspace: Workspace, name: str) -> Path:
    """Returns the path of an SQL file that is to be written.

    Raises:
        ConfigError: The name has no `.sql`, has signs that are not allowed in it, or leads out of `queries/`.
    """
    path = workspace.query_file(name)
    is_plain = ".." not in path.parts and path.relative_to(workspace.queries_dir).as_posix() == name
    if not is_plain or not QUERY_NAME.fullmatch(path.name):
        raise ConfigError(f"{name!r} is no name for a query", remedy="use letters, digits, blanks and - _ . with .sql")
    return path


def _audited(content: bytes) -> Any:
    if not content:
        return None
    if len(content) > AUDITED_BYTES:
        return {"size_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    return content.decode("utf-8", "replace")


def save_connections(
    workspace: Workspace,
    ledger: Ledger,
    document: Mapping[str, Any],
    environ: Mapping[str, str],
    *,
    about: str,
    seen_sha256: str,
    caller: Caller,
    now: datetime,
) -> None:
    """Writes connections.json.

    Args:
        workspace: The workspace.
        ledger: Stores the audit line, without secrets, and the version.
        document: The whole file.
        environ: What `env:` may name.
        about: What was changed, such as `connection BOSC`.
        seen_sha256: Of the file that the caller has read; empty: the file is new.
        caller: Who changes it.
        now: The clock.

    Raises:
        AccessRefused: The caller has no right to change it.
        NewerEdit: It was changed since it was read.
        ConfigError: The first problem that was not there before, as `python -m core check` says it; nothing is written.
        StorageFailed: The file cannot be written; the old one is untouched.
    """
    require(caller, "connections")
    path = workspace.connections_file
    text = json.dumps(document, ensure_ascii=False, indent=2) + "\n"
    _, problems = parse_connections(parse_json_file(path, text), workspace, environ)
    with editing(workspace):
        before = _unchanged(path, seen_sha256)
        old = parse_json_file(path, before.text) if before.content else None
        # Old problems may stay: a file with two of them is fixed one after the other.
        faults = {error.what for error in parse_connections(old, workspace, environ)[1]} if old else set()
        if new := [error for error in problems if error.what not in faults]:
            raise new[0]
        known = old.document if old else None
        keep_connections(workspace, ledger.connections_versions, before.text, now - BEFORE)
        write_atomically(path, text, private=_has_literal(document) or is_private(path))
        ledger.audit.add(
            caller.name, "change", about, now, before=hidden_secrets(known), after=hidden_secrets(document)
        )
        keep_connections(workspace, ledger.connections_versions, text, now, saved_by=caller.name)


def brought_back(version: str, current: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Returns a kept version of connections.json in a form that can be saved.

    Args:
        version: The document that was kept.
        current: The file as it is now: passwords, which no version has, are taken from it.

    Returns:
        The document, and the names of connections and clusters whose password has to be entered again.
    """
    document: dict[str, Any] = json.loads(version)
    now = {entry.get("name"): entry for entry in current.get("connections", []) if isinstance(entry, dict)}
    clusters = current.get("kafka_connections", {})
    entries = [(str(entry["name"]), entry, now.get(entry["name"])) for entry in document.get("connections", [])]
    entries += [(key, entry, clusters.get(key)) for key, entry in document.get("kafka_connections", {}).items()]
    if "schema_registry" in document:
        entries.append(("schema_registry", document["schema_registry"], current.get("schema_registry")))
    return document, [name for name, entry, known in entries if not _restore_secrets(entry, known)]


def _restore_secrets(entry: dict[str, Any], known: Any) -> bool:
    """Puts the secrets of `known` in place of `***`, also in objects within the entry; returns False if one is missing."""
    has_all = True
    known = known if isinstance(known, dict) else {}
    for key, value in list(entry.items()):
        if isinstance(value, dict):
            has_all &= _restore_secrets(value, known.get(key))
        elif key in SECRET_KEYS and value == HIDDEN:
            if known.get(key):
                entry[key] = known[key]
            else:
                del entry[key]
                has_all = False
    return has_all


def save_alerts(
    workspace: Workspace,
    ledger: Ledger,
    document: Mapping[str, Any],
    *,
    seen_sha256: str,
    caller: Caller,
    now: datetime,
) -> None:
    """Writes alerts.json; the arguments and what it raises are those of `save_connections`."""
    require(caller, "alerts")
    path = workspace.alerts_file
    text = json.dumps(document, ensure_ascii=False, indent=2) + "\n"
    _, problems = parse_alerts(parse_json_file(path, text))
    if problems:
        raise problems[0]
    with editing(workspace):
        before = _unchanged(path, seen_sha256)
        known = None
        with suppress(ValueError):  # a file that is no JSON is replaced
            known = json.loads(before.text)
        write_atomically(path, text, private=is_private(path))
        ledger.audit.add(
            caller.name, "change", "alert rules", now, before=hidden_secrets(known), after=hidden_secrets(document)
        )


def create_alerts(workspace: Workspace, ledger: Ledger, *, caller: Caller, now: datetime) -> Path:
    """Writes alerts.json with every rule at its default. Returns the file.

    Raises:
        AccessRefused: The caller is no admin.
        ConfigError: There is one already; it is left as it is.
        StorageFailed: The file cannot be written.
    """
    require(caller, "alerts")
    file = workspace.alerts_file
    if file.exists():
        raise ConfigError(f"{file.name} is there already", remedy="edit it, or move it away first")
    # An empty hash: one that another process writes in the meantime is not replaced.
    save_alerts(workspace, ledger, json.loads(default_document()), seen_sha256="", caller=caller, now=now)
    return file


def save_secret(
    workspace: Workspace, ledger: Ledger, reference: str, value: str, *, caller: Caller, now: datetime
) -> None:
    """Stores a secret where its reference says; the audit trail has only the reference.

    Raises:
        AccessRefused: The caller is no admin.
        ConfigError: The reference is `env:` or leads out of the workspace, or there is no keyring.
        StorageFailed: The file cannot be written.
    """
    require(caller, "secret")
    store_secret(reference, value, workspace)
    ledger.audit.add(caller.name, "store", f"secret {reference}", now)


def _has_literal(document: Mapping[str, Any]) -> bool:
    return bool(hidden_secrets(document) != document)


def is_private(path: Path) -> bool:
    """Returns whether other accounts may not read it; on Windows the folder's permissions apply."""
    return path.exists() and not path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH)


def _unchanged(path: Path, seen_sha256: str) -> StoredFile:
    found = read_stored(path)
    require_seen(path.name, found.sha256, seen_sha256)
    return found
