"""The earlier versions of connections.json, kept without the passwords in it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from core.errors import ConfigError
from core.records.agenda import Agenda
from core.workspace.json_file import parse_json_file
from core.workspace.paths import Workspace
from core.workspace.secrets import is_reference

__all__ = ["hidden_secrets", "keep_connections"]


def keep_connections(workspace: Workspace, agenda: Agenda, text: str, now: datetime, *, saved_by: str = "") -> None:
    """Keeps a text of connections.json among its versions, without the passwords that stand in it.

    One with a fault is not kept: nobody brings it back, and a password under a mistyped key could not be told.
    """
    from core.workspace.connections import parse_connections

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


HIDDEN = "***"
SECRET_KEYS = ("password", "sasl_password")
