"""The versions of connections.json, stored without its passwords."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar

from core.clock import iso_utc
from core.errors import ConfigError
from core.records.rows import from_row
from core.records.store import StorePart
from core.workspace.connections import CLUSTER_SECRETS, parse_connections
from core.workspace.database_checks import REFERENCE_KEYS
from core.workspace.json_file import parse_json_file
from core.workspace.paths import Workspace
from core.workspace.registries import REGISTRY_SECRETS
from core.workspace.secrets import is_reference

__all__ = ["ConnectionsVersion", "ConnectionsVersions", "hidden_secrets", "keep_connections"]

HIDDEN = "***"
SECRET_KEYS = ("password", *REFERENCE_KEYS, *REGISTRY_SECRETS, *CLUSTER_SECRETS)


@dataclass(frozen=True, slots=True)
class ConnectionsVersion:
    """A version of connections.json, with `***` in place of each password written in it."""

    sha256: str
    """Of its time and text, as one text may come back. Versions of older workspaces have that of the text."""
    document: str
    seen_at: datetime
    saved_by: str
    """Who saved it on the page; empty: it was found on disk."""


class ConnectionsVersions(StorePart):
    """The versions of connections.json of one workspace."""

    sql_file: ClassVar[str] = "connections_versions.sql"

    def add(self, document: str, now: datetime, saved_by: str = "") -> None:
        """Writes a version, unless the newest one has the same text. The versions before keep their times."""
        seen_at = iso_utc(now)
        sha256 = hashlib.sha256(f"{seen_at}\n{document}".encode()).hexdigest()
        self._write("insert", {"sha256": sha256, "document": document, "seen_at": seen_at, "saved_by": saved_by})

    def newest_first(self) -> list[ConnectionsVersion]:
        """Returns every version, newest first."""
        return [from_row(ConnectionsVersion, row) for row in self._rows("newest_first")]


def keep_connections(
    workspace: Workspace, versions: ConnectionsVersions, text: str, now: datetime, *, saved_by: str = ""
) -> None:
    """Stores a text of connections.json as a version, without the passwords written in it.

    A text with an error is not stored: it is never restored, and a password under a mistyped key would be stored
    in the clear.
    """
    try:
        file = parse_json_file(workspace.connections_file, text)
    except ConfigError:
        return
    if parse_connections(file, workspace, {})[1]:
        return
    versions.add(json.dumps(hidden_secrets(file.document), ensure_ascii=False, indent=2), now, saved_by)


def hidden_secrets(value: Any) -> Any:
    """Returns the document with `***` for each password and channel address that is written in the file itself."""
    if isinstance(value, Mapping):
        return {name: _hidden(name, member) for name, member in value.items()}
    return [hidden_secrets(member) for member in value] if isinstance(value, list) else value


def _hidden(name: str, value: Any) -> Any:
    if name in SECRET_KEYS and isinstance(value, str) and value and not is_reference(value):
        return HIDDEN
    if name == "channels" and isinstance(value, Mapping):
        return {channel: place if is_reference(str(place)) else HIDDEN for channel, place in value.items()}
    return hidden_secrets(value)
