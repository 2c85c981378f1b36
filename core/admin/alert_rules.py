"""Reads and changes single rules of alerts.json, for REST and the command line; the page saves its form of all rules.

All of them write through `core.admin.edit_files.save_alerts`: one check, one right, one audit line.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from core.admin.edit_files import save_alerts
from core.admin.edit_jobs import require_seen
from core.errors import ConfigError
from core.notify.rules import DEFINITIONS, AlertFile, Rule, default_alerts, merged_document, parse_alerts
from core.records.ledger import Ledger
from core.records.rights import Caller, require
from core.workspace.json_file import nearest, parse_json_file
from core.workspace.paths import Workspace
from core.workspace.stored_file import StoredFile, read_stored

__all__ = ["NoSuchRule", "StoredRules", "change_rules", "replace_rule", "stored_rules"]


class NoSuchRule(ConfigError):
    """There is no rule of that name."""


@dataclass(frozen=True, slots=True)
class StoredRules:
    """The rules that apply, and the version of the file they come from."""

    alerts: AlertFile
    values: Mapping[str, Mapping[str, Any]]
    """Rule → key → value as in alerts.json, with every default filled in."""
    sha256: str
    """Of alerts.json; empty: there is no file, so each rule has its defaults."""

    def about(self, name: str) -> str:
        """Returns what a rule is about, in one sentence."""
        return DEFINITIONS[self.rule(name).name].about

    def rule(self, name: str) -> Rule:
        """Returns one rule.

        Raises:
            NoSuchRule: There is none of that name.
        """
        _require_rule(name)
        return self.alerts.rules[name]


def stored_rules(workspace: Workspace) -> StoredRules:
    """Returns the rules that apply now.

    Raises:
        ConfigError: The first problem of alerts.json; it names the file.
    """
    stored = read_stored(workspace.alerts_file)
    alerts, given = _parsed(stored)
    return StoredRules(alerts, merged_document(given, {})["rules"], stored.sha256)


def replace_rule(
    workspace: Workspace,
    ledger: Ledger,
    name: str,
    values: Mapping[str, Any],
    *,
    seen_sha256: str | None,
    caller: Caller,
    now: datetime,
) -> StoredRules:
    """Writes one rule into alerts.json; a key that is left out gets its default. All other rules stay as they are.

    Args:
        workspace: Whose alerts.json; it is made if there is none.
        ledger: Stores the audit line.
        name: The rule.
        values: Key → value as in the file.
        seen_sha256: Of the version that the caller has read; empty: there was no file; None: any version.
        caller: Who changes it.
        now: The clock.

    Returns:
        The rules as they are then.

    Raises:
        AccessRefused: The caller is no admin.
        NoSuchRule: There is no rule of that name.
        NewerEdit: alerts.json was changed since it was read.
        ConfigError: The values are not valid, or alerts.json was not before; nothing is written.
        StorageFailed: The file cannot be written; the old one is untouched.
    """
    require(caller, "alerts")
    _require_rule(name)
    stored = read_stored(workspace.alerts_file)
    require_seen(stored.path.name, stored.sha256, seen_sha256)
    _, given = _parsed(stored)
    return _saved(workspace, ledger, _with(given, {name: values}), stored.sha256, caller, now)


def change_rules(
    workspace: Workspace,
    ledger: Ledger,
    changes: Mapping[str, Mapping[str, Any]],
    *,
    caller: Caller,
    now: datetime,
) -> StoredRules:
    """Changes single keys of rules, all or none; what it returns and raises is that of `replace_rule`.

    Args:
        workspace: Whose alerts.json.
        ledger: Stores the audit line.
        changes: Rule → key → value as in the file.
        caller: Who changes it.
        now: The clock.
    """
    require(caller, "alerts")
    for name in changes:
        _require_rule(name)
    stored = read_stored(workspace.alerts_file)
    _, given = _parsed(stored)
    known = given.get("rules", {})
    whole = {name: {**known.get(name, {}), **values} for name, values in changes.items()}
    return _saved(workspace, ledger, _with(given, whole), stored.sha256, caller, now)


def _with(given: Mapping[str, Any], rules: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {**given, "rules": {**given.get("rules", {}), **rules}}


def _saved(
    workspace: Workspace, ledger: Ledger, document: Mapping[str, Any], seen_sha256: str, caller: Caller, now: datetime
) -> StoredRules:
    try:
        save_alerts(workspace, ledger, document, seen_sha256=seen_sha256, caller=caller, now=now)
    except ConfigError as error:
        if error.file is None:
            raise
        # The file was valid, so the fault is in what the caller sent: a line of the unwritten file would mislead.
        raise ConfigError(error.what, why=error.why, remedy=error.remedy, key=error.key) from None
    return stored_rules(workspace)


def _parsed(stored: StoredFile) -> tuple[AlertFile, Mapping[str, Any]]:
    """Returns the rules and the document of alerts.json; the defaults and an empty one if there is no file."""
    if not stored.sha256:
        return default_alerts(), {}
    file = parse_json_file(stored.path, stored.text)
    alerts, problems = parse_alerts(file)
    if alerts is None:
        raise problems[0]
    return alerts, file.document


def _require_rule(name: str) -> None:
    if name not in DEFINITIONS:
        raise NoSuchRule(f'there is no rule "{name[:60]}"', remedy=nearest(name, tuple(DEFINITIONS)))
