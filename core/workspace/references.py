"""What a part of a run elsewhere needs of this workspace: settings and two connections, with secret references only.

The secrets themselves never leave this machine: a reference (`env:NAME`, `file:PATH`, `keyring:…`) is resolved where
the part runs, with the environment, files and keyring of that machine.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from core.errors import ConfigError
from core.sources import find_dialect
from core.workspace.connections import CLUSTER_FILES, CLUSTER_SECRETS
from core.workspace.database_checks import FILE_KEYS, FOLDER_KEYS, REFERENCE_KEYS
from core.workspace.json_file import read_json_file
from core.workspace.paths import Workspace
from core.workspace.registries import REGISTRY_PATHS, REGISTRY_SECRETS
from core.workspace.secrets import is_reference
from core.workspace.settings import SECRETS, SETTING_NAMES, Settings, setting_text

__all__ = ["References", "references_of"]

DATABASE_PATHS = (*FILE_KEYS, *FOLDER_KEYS)
SETTING_PATHS = tuple(f"KAFKA_{key.upper()}" for key in CLUSTER_FILES)
VAULT_PATHS = ("VAULT_CACERT", "VAULT_CLIENT_CERT", "VAULT_CLIENT_KEY")
VAULT_LOGINS = ("VAULT_TOKEN", "VAULT_SECRET_ID")
NOT_FOR_PARTS = ("PSTT_SMTP_", "PSTT_MAIL_", "PSTT_RECEIPT_", "DASK_", "OPENLINEAGE_", "PSTT_LINEAGE_", "OTEL_")
"""Settings that no part needs."""
OF_EACH_MACHINE = ("PSTT_SECRET_COMMAND",)
"""Settings that a part takes from its own machine: the administrator there decides which commands may run."""


class References(msgspec.Struct, frozen=True):
    """Settings and connections without a secret."""

    settings: dict[str, str]
    """Name → value, without passwords."""
    connection: dict[str, Any]
    """The entry of `connections`."""
    cluster_key: str = ""
    cluster: dict[str, Any] | None = None
    """The entry of `kafka_connections`; None: the settings alone."""
    registry: dict[str, Any] | None = None
    """The `schema_registry` of the cluster, else of the file; None: there is none."""

    def write(self, scratch: Workspace, home: Path) -> None:
        """Writes a connections.json into `scratch`. A relative path in it is one below `home`, and becomes absolute."""
        document: dict[str, Any] = {"connections": [_absolute_database(self.connection, home)]}
        if self.cluster is not None:
            document["kafka_connections"] = {
                self.cluster_key: _absolute(self.cluster, CLUSTER_FILES, CLUSTER_SECRETS, home)
            }
        if self.registry is not None:
            document["schema_registry"] = _absolute(self.registry, REGISTRY_PATHS, REGISTRY_SECRETS, home)
        scratch.connections_file.write_text(json.dumps(document), encoding="utf-8")

    def environment(self, variables: Mapping[str, str], home: Path) -> dict[str, str]:
        """Returns the environment of a part: `variables` of its machine, and above them the settings of the run.

        Args:
            variables: They have the secrets.
            home: A relative path of a certificate is one below it.
        """
        paths = {name: str(home / self.settings[name]) for name in SETTING_PATHS if name in self.settings}
        # A worker's own value would change the run.
        own = {name for name in SETTING_NAMES if name not in SECRETS and not name.startswith(OF_EACH_MACHINE)}
        kept = {name: text for name, text in variables.items() if name not in own}
        vault = {name: str(home / kept[name]) for name in VAULT_PATHS if kept.get(name)}
        logins = {
            name: f"file:{home / kept[name].removeprefix('file:')}"
            for name in VAULT_LOGINS
            if kept.get(name, "").startswith("file:")
        }
        return {**kept, **vault, **logins, **self.settings, **paths}


def references_of(workspace: Workspace, settings: Settings, connection: str, cluster_key: str) -> References:
    """Returns what a part needs of a database and a cluster.

    Args:
        workspace: Has the connections.json.
        settings: Their secrets are left out.
        connection: A name of `connections`.
        cluster_key: A key of `kafka_connections`; empty: the KAFKA_* settings alone.

    Raises:
        ConfigError: An entry is not there, or has its password in the file itself: that would leave this machine.
    """
    document = read_json_file(workspace.connections_file).document
    entries = {entry.get("name"): entry for entry in document.get("connections", [])}
    clusters = document.get("kafka_connections", {})
    if connection not in entries or (cluster_key and cluster_key not in clusters):
        raise ConfigError(f"{workspace.connections_file.name} has changed since the run began", remedy="run it again")
    cluster = dict(clusters[cluster_key]) if cluster_key else {}
    registry = cluster.pop("schema_registry", None) or document.get("schema_registry")
    _refuse_literals(workspace, f'connection "{connection}"', entries[connection], ("password",))
    _refuse_literals(workspace, f'cluster "{cluster_key}"', cluster, CLUSTER_SECRETS)
    _refuse_literals(workspace, "schema_registry", registry or {}, REGISTRY_SECRETS)
    return References(
        dict(_public(settings)), entries[connection], cluster_key, cluster if cluster_key else None, registry
    )


def _refuse_literals(workspace: Workspace, owner: str, entry: Mapping[str, Any], secrets: Sequence[str]) -> None:
    for key in secrets:
        if entry.get(key) and not is_reference(entry[key]):
            raise ConfigError(
                f"{owner} has its password in {workspace.connections_file.name}",
                why="workers of a Dask cluster receive references to secrets only",
                remedy=f'write "{key}": "env:NAME" there, and set NAME in the environment of each worker',
            )


def _public(settings: Settings) -> Iterator[tuple[str, str]]:
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if value is not None and name not in SECRETS and not name.startswith((*NOT_FOR_PARTS, *OF_EACH_MACHINE)):
            yield name, setting_text(value)


def _absolute_database(entry: Mapping[str, Any], home: Path) -> dict[str, Any]:
    is_file = find_dialect(entry["db_type"]).connection.is_file
    paths = (*DATABASE_PATHS, "database") if is_file else DATABASE_PATHS
    return _absolute(entry, paths, ("password", *REFERENCE_KEYS), home)


def _absolute(entry: Mapping[str, Any], paths: Sequence[str], secrets: Sequence[str], home: Path) -> dict[str, Any]:
    found = {key: os.fspath(home / value) if key in paths and value else value for key, value in entry.items()}
    for secret in secrets:
        kind, _, name = str(found.get(secret) or "").partition(":")
        if kind == "file":
            found[secret] = f"file:{home / name}"
    return found
