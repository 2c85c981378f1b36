"""connections.json: databases and Kafka clusters, each with its settings and secrets resolved."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, SecretStr, ValidationError, create_model

from core.errors import ConfigError, PsttError
from core.kafka.clients import CLIENTS
from core.model.connection import (
    READ_TIMEOUT_S,
    UNREAD,
    Cluster,
    DatabaseConnection,
    Option,
    RenewedSecret,
    SchemaRegistry,
    Secret,
)
from core.model.dialect import Dialect
from core.model.job import Job
from core.sources import database_types, find_dialect
from core.workspace.database_checks import FILE_KEYS, FOLDER_KEYS, REFERENCE_KEYS, entry_problems
from core.workspace.json_file import JsonFile, nearest, read_json_file
from core.workspace.paths import Workspace
from core.workspace.registries import REGISTRY_SECRETS, RegistryEntry, registry_of
from core.workspace.secrets import is_reference, is_remote, resolve_secret
from core.workspace.settings import SECRETS, SETTING_NAMES, SettingRow, Settings, read_env_file, setting_text
from core.workspace.validation import StrictModel, completed_from, one_of, validation_errors

__all__ = ["CLUSTER_KEYS", "CLUSTER_SECRETS", "DATABASE_KEYS", "Connections", "load_connections"]


def _not_blank(name: str) -> str:
    if not name.strip():
        raise ValueError("a connection needs a name")
    return name


@completed_from(DatabaseConnection)
class _DatabaseEntry(StrictModel):
    """One entry of `connections`: secrets and paths as the file has them."""

    name: Annotated[str, AfterValidator(_not_blank)]
    db_type: Annotated[str, AfterValidator(one_of(database_types))]
    port: Annotated[int, Field(ge=1, le=65_535)] | None
    password: Annotated[str | None, Field(repr=False)]
    sslmode: Literal["", "disable", "prefer", "require", "verify-ca", "verify-full"]
    sslrootcert: str | None
    sslcert: str | None
    sslkey: str | None
    sslpassword: Annotated[str | None, Field(repr=False)]
    service_file: str | None
    passfile: str | None
    config_dir: str | None
    wallet_location: str | None
    wallet_password: Annotated[str | None, Field(repr=False)]
    client_dir: str | None
    options: dict[str, Option]
    connect_timeout_s: Annotated[float, Field(gt=0, le=600, strict=False)]
    statement_timeout_s: Annotated[float, Field(gt=0, strict=False)] | None
    read_timeout_s: Annotated[float, Field(gt=0, strict=False)] | None = None
    """None: PSTT_READ_TIMEOUT_S."""


# key of a cluster → field of `Cluster`, where the names differ
_RENAMED = {"batch_size": "batch_size_bytes", "max_request_size": "max_request_size_bytes"}
_SETTING_OF_KEY = {
    name.removeprefix("KAFKA_").lower(): name
    for name in SETTING_NAMES
    if name.startswith("KAFKA_") and name not in ("KAFKA_LOG_PAYLOAD", "KAFKA_HEALTH_CHECK_INTERVAL_SEC")
} | {"delivery_timeout_ms": "PSTT_DELIVERY_TIMEOUT_MS"}
TLS_FILES = ("ssl_cafile", "ssl_certfile", "ssl_keyfile", "ssl_keystore_location", "ssl_truststore_location")
CLUSTER_FILES = (*TLS_FILES, "sasl_kerberos_keytab", "sasl_oauthbearer_cafile")
CLUSTER_SECRETS = tuple(key for key, setting in _SETTING_OF_KEY.items() if setting in SECRETS)
_NEEDED: dict[str, tuple[str, ...]] = {"GSSAPI": (), "OAUTHBEARER": ()}
"""Mechanism → the keys without which no login is possible; every other mechanism needs user name and password."""
_KEYS_OF_MECHANISM = {
    "GSSAPI": ("sasl_kerberos_keytab", "sasl_kerberos_principal"),
    "OAUTHBEARER": ("sasl_oauthbearer_token_endpoint_url", "sasl_oauthbearer_token"),
}


def _cluster_entry() -> type[StrictModel]:
    """Builds the model of a cluster's entry: its keys are the KAFKA_* settings, with the same limits."""
    fields: dict[str, Any] = {
        "name": (str, ""),
        "mock_brokers": (int, Field(default=0, ge=0, le=9)),
        "schema_registry": (RegistryEntry | None, None),
    }
    for key, setting in _SETTING_OF_KEY.items():
        rule = Settings.model_fields[setting]
        kind = str if setting in SECRETS else rule.rebuild_annotation()
        fields[key] = (kind | None, None)
    return create_model("_Cluster", __base__=StrictModel, **fields)


_Cluster = _cluster_entry()
DATABASE_KEYS = tuple(_DatabaseEntry.model_fields)
CLUSTER_KEYS = tuple(_Cluster.model_fields)
REMEMBERED_S = 10.0
"""How long a secret of a vault or a command is used again. A run is a process of its own and reads it anew."""
_TOP_KEYS = ("default_environment", "connections", "kafka_connections", "schema_registry")


class Connections:
    """The content of connections.json. A secret is resolved when its connection is used, not before."""

    def __init__(self, file: JsonFile, workspace: Workspace, variables: Mapping[str, str]) -> None:
        self._file = file
        self._workspace = workspace
        self._variables = variables
        self._read: dict[str, tuple[float, Secret | PsttError]] = {}
        """Reference to a vault or a command → when it was read (`time.monotonic`), and the outcome."""
        self.contacts_vaults = True
        """False: vaults are not contacted and commands not run; a password of theirs is then of no use (`check`)."""
        self.default_environment: str = ""
        self._databases: dict[str, tuple[_DatabaseEntry, int]] = {}
        self._clusters: dict[str, dict[str, Any]] = {}
        self._registry: dict[str, Any] | None = None
        """The registry of clusters without one of their own."""
        self.read_timeout_s: float = READ_TIMEOUT_S
        """For connections that do not set it."""
        self.broken: set[str] = set()
        """Names of entries that are not valid. A job that uses one needs no second error."""

    @property
    def database_names(self) -> list[str]:
        """Every database connection."""
        return list(self._databases)

    @property
    def cluster_names(self) -> list[str]:
        """Every key of `kafka_connections`."""
        return list(self._clusters)

    def kafka_clients(self, settings: Settings) -> set[str]:
        """Returns the value of KAFKA_CLIENT of each cluster; without clusters that of the settings."""
        return {entry.get("client") or settings.KAFKA_CLIENT for entry in self._clusters.values() or [{}]}

    def client_options(self) -> list[SettingRow]:
        """Returns the further client settings of each cluster that has some, as `config` lists them."""
        return [
            SettingRow(f"client_options of {name}", setting_text(entry["client_options"]), self._file.path.name)
            for name, entry in self._clusters.items()
            if entry.get("client_options")
        ]

    @cached_property
    def literal_passwords(self) -> list[str]:
        """Connections whose password is in the file itself."""
        plain = [n for n, (entry, _) in self._databases.items() if entry.password and not is_reference(entry.password)]
        registries = {n: e["schema_registry"] for n, e in self._clusters.items()} | {"schema_registry": self._registry}
        plain += [
            n for n, e in self._clusters.items() if any(e.get(k) and not is_reference(e[k]) for k in CLUSTER_SECRETS)
        ]
        return plain + [
            name
            for name, entry in registries.items()
            if name not in plain
            and any(entry and entry[key] and not is_reference(entry[key]) for key in REGISTRY_SECRETS)
        ]

    def dialect(self, name: str) -> Dialect:
        """Returns the rules of a connection's database; needs no secret and no driver."""
        entry = self._database(name)[0]
        return find_dialect(entry.db_type, entry.dialect)

    def environment_of(self, name: str) -> str:
        """Returns the environment of a connection; needs no secret."""
        environment: str = self._database(name)[0].environment
        return environment

    def database_entries(self) -> list[dict[str, Any]]:
        """Returns the keys that each database has in the file; a secret is its reference, or `***`."""
        entries = [entry.model_dump(exclude_unset=True) for entry, _ in self._databases.values()]
        for entry in entries:
            for key in ("password", *REFERENCE_KEYS):
                if entry.get(key) and not is_reference(entry[key]):
                    entry[key] = "***"
        return entries

    def require(self, job: Job) -> None:
        """Checks that the connection and the cluster of a job exist; needs no secret and contacts no server.

        Raises:
            ConfigError: One of them is not in connections.json.
        """
        self._database(job.connection)
        if job.export_format == "kafka" and (key := self.cluster_key_for(job)) is not None:
            self._cluster_entry(key)

    def _cluster_entry(self, name: str) -> dict[str, Any]:
        if name not in self._clusters:
            raise ConfigError(
                f'there is no cluster "{name}" in {self._file.path.name}', remedy=nearest(name, self._clusters)
            )
        return self._clusters[name]

    def allows_writes(self, name: str) -> bool:
        """Returns whether a connection allows statements that write."""
        allow_writes: bool = self._database(name)[0].allow_writes
        return allow_writes

    def _database(self, name: str) -> tuple[_DatabaseEntry, int]:
        if name not in self._databases:
            raise ConfigError(
                f'there is no connection "{name}" in {self._file.path.name}', remedy=nearest(name, self._databases)
            )
        return self._databases[name]

    def database(self, name: str) -> DatabaseConnection:
        """Returns a connection with its secret resolved.

        Raises:
            ConfigError: The name is unknown, or the secret cannot be read. Names the reference, never the value.
        """
        entry, index = self._database(name)
        position = ("connections", index)
        values = entry.model_dump()
        for key in ("password", *REFERENCE_KEYS):
            values[key] = self._secret(values[key], (*position, key), f'connection "{name}"')
        for key in (*FILE_KEYS, *FOLDER_KEYS):
            if values[key]:
                values[key] = self._existing(values[key], (*position, key), is_folder=key in FOLDER_KEYS)
        values["read_timeout_s"] = entry.read_timeout_s or self.read_timeout_s
        if find_dialect(entry.db_type).connection.is_file:
            values["database"] = str(self._workspace.root / entry.database)
        return DatabaseConnection(**values)

    def cluster_for(self, job: Job, settings: Settings) -> Cluster:
        """Returns the cluster of a job: its own, else its environment's, else `default_environment`, else the settings'."""
        return self.cluster_at(self.cluster_key_for(job), settings)

    def cluster_key_for(self, job: Job) -> str | None:
        """Returns the key of a job's cluster in `kafka_connections`; None: the KAFKA_* settings alone."""
        if job.kafka_config.cluster is not None:
            return job.kafka_config.cluster
        environments = (self._database(job.connection)[0].environment, self.default_environment)
        return next((name for name in environments if name in self._clusters), None)

    def key_of(self, cluster: Cluster, settings: Settings) -> str | None:
        """Returns the key of a cluster in `kafka_connections`; None: the KAFKA_* settings alone."""
        for name in self._clusters:
            with suppress(PsttError):  # a cluster that cannot be used is not the one
                if self.cluster_at(name, settings) == cluster:
                    return name
        return None

    def cluster(self, name: str | None, settings: Settings) -> Cluster:
        """Returns a cluster with every setting resolved.

        Args:
            name: A key of `kafka_connections`; None: `default_environment`, or the KAFKA_* settings if there are no clusters.
            settings: For what the entry does not set.

        Raises:
            ConfigError: The name is unknown or missing, or settings contradict each other.
        """
        if name is None and self.default_environment in self._clusters:
            name = self.default_environment
        if name is None and self._clusters:
            raise ConfigError(
                "which cluster is not said",
                why=f"{self._file.path.name} has {', '.join(self._clusters)}, and no default_environment",
                remedy=f'name one of them, or set "default_environment" in {self._file.path.name}',
            )
        return self.cluster_at(name, settings)

    def known_clusters(self, settings: Settings) -> tuple[list[Cluster], list[PsttError]]:
        """Returns every cluster, that of the KAFKA_* settings last, and the problems of those that cannot be used."""
        clusters, problems = [], []
        for name in (*self._clusters, None):
            try:
                clusters.append(self.cluster_at(name, settings))
            except PsttError as error:
                problems.append(error)
        return clusters, problems

    def cluster_at(self, name: str | None, settings: Settings) -> Cluster:
        """Returns the cluster with that key of `kafka_connections`; None: that of the KAFKA_* settings."""
        entry = self._cluster_entry(name) if name is not None else {}
        values: dict[str, Any] = {}
        for key, setting in _SETTING_OF_KEY.items():
            value = entry[key] if entry.get(key) is not None else getattr(settings, setting)
            values[_RENAMED.get(key, key)] = value.get_secret_value() if isinstance(value, SecretStr) else value
        position: tuple[str | int, ...] = ("kafka_connections", name) if name is not None else ()
        label = entry.get("name") or name or "KAFKA_* settings"
        for key in CLUSTER_FILES:
            values[key] = self._existing(values[key], (*position, key)) if values[key] else None
        self._check_cluster(label, values, entry, position)
        for key in CLUSTER_SECRETS:
            values[key] = self._secret(values[key], (*position, key), f'cluster "{label}"')
        token = entry.get("sasl_oauthbearer_token") or settings.KAFKA_SASL_OAUTHBEARER_TOKEN
        values["sasl_oauthbearer_token"] = _renewed(
            token,
            values["sasl_oauthbearer_token"],
            lambda text: resolve_secret(text, self._variables, self._workspace.root),
        )
        values["client_options"] = tuple(sorted((values["client_options"] or {}).items()))
        registry = self._registry_of(entry, position)
        mock_brokers = entry.get("mock_brokers", 0)
        kept_in = self._workspace.kept_topics_dir if mock_brokers and self._workspace.is_demo else None
        return Cluster(name=label, mock_brokers=mock_brokers, kept_in=kept_in, schema_registry=registry, **values)

    def _registry_of(self, entry: Mapping[str, Any], position: tuple[str | int, ...]) -> SchemaRegistry | None:
        """Returns the registry of a cluster: its own, else that of the file."""
        own = entry.get("schema_registry")
        found = own or self._registry
        if found is None:
            return None
        place = (*position, "schema_registry") if own else ("schema_registry",)
        return registry_of(found, place, self._file, secret=self._secret, existing=self._existing)

    def _check_cluster(
        self, label: str, values: dict[str, Any], entry: Mapping[str, Any], position: tuple[str | int, ...]
    ) -> None:
        """Raises on contradictions that a client would report late or never."""
        for what, remedy in [*_contradictions(values), *_ignored(values, entry)]:
            raise self._file.error(position, f'cluster "{label}": {what}', remedy=remedy)

    def _secret(self, text: str | None, position: tuple[str | int, ...], owner: str) -> Secret | None:
        if not text:
            return None
        try:
            return self._resolved(text)
        except ConfigError as error:
            raise self._file.error(position, f"{owner}: {error.what}", why=error.why, remedy=error.remedy) from None

    def _resolved(self, text: str) -> Secret:
        """Returns a secret. What a vault or a command answers holds for some seconds, as pages and checks ask several times."""
        if not is_remote(text) or not self.contacts_vaults:
            return resolve_secret(text, self._variables, self._workspace.root, contact=self.contacts_vaults)
        read_at_s, outcome = self._read.get(text, (0.0, None))
        if outcome is None or time.monotonic() - read_at_s > REMEMBERED_S:
            try:
                outcome = resolve_secret(text, self._variables, self._workspace.root)
            except PsttError as error:
                outcome = error
            self._read[text] = time.monotonic(), outcome
        if isinstance(outcome, PsttError):
            raise outcome
        return outcome

    def _existing(self, name: str, position: tuple[str | int, ...], *, is_folder: bool = False) -> Path:
        path = self._workspace.root / name
        if not (path.is_dir() if is_folder else path.is_file()):
            kind = "folder" if is_folder else "file"
            raise self._file.error(
                position, f"there is no {kind} {name}", remedy="give its path, absolute or below the workspace"
            )
        return path


def _renewed(text: str | SecretStr | None, token: Secret | None, resolve: Callable[[str], Secret]) -> Secret | None:
    """Returns a token as one that is read again when it has expired; a token that is written in a file itself cannot be.

    Args:
        text: As the file or the setting has it.
        token: As it was read first.
        resolve: Reads a reference again.
    """
    reference = text.get_secret_value() if isinstance(text, SecretStr) else text or ""
    if token is None or token is UNREAD or not is_reference(reference):
        return token
    return RenewedSecret(token.reveal(), lambda: resolve(reference))


def _contradictions(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    found = []
    sasl = values["security_protocol"].startswith("SASL")
    if sasl:
        needed = ("sasl_mechanism", *_NEEDED.get(values["sasl_mechanism"] or "", ("sasl_username", "sasl_password")))
        missing = [key for key in needed if not values[key]]
        if missing:
            found.append(
                (f"{values['security_protocol']} needs {', '.join(missing)}", "set it here or as KAFKA_… setting")
            )
        found += _login_contradictions(values)
    if bool(values["ssl_certfile"]) != bool(values["ssl_keyfile"]):
        found.append(("ssl_certfile and ssl_keyfile belong together", "give both or none"))
    found += [
        (f"{first} and {second} exclude each other", "give one of them")
        for first, second in (("ssl_cafile", "ssl_truststore_location"), ("ssl_certfile", "ssl_keystore_location"))
        if values[first] and values[second]
    ]
    if (
        values["enable_idempotence"]
        and values["max_in_flight_requests"] > 5
        and CLIENTS[values["client"]].is_idempotent
    ):
        found.append(
            ("idempotence allows at most 5 max_in_flight_requests", "lower it, or set enable_idempotence to false")
        )
    for server in values["bootstrap_servers"].split(","):
        if not re.fullmatch(r"\s*(\[[0-9a-fA-F:]+\]|[^:\s,\[\]]+):[0-9]{1,5}\s*", server):
            found.append((f"bootstrap_servers has {server.strip()!r}", "write host:port, several separated by commas"))
    if not TOPIC_NAME.fullmatch(values["default_topic"]):
        found.append(
            (f"{values['default_topic']!r} is no topic name", "use letters, digits, dot, _ and -, at most 249")
        )
    return found


def _login_contradictions(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns what is wrong with the settings of Kerberos or of OAUTHBEARER."""
    remedy = "set it here or as KAFKA_… setting"
    if (
        values["sasl_mechanism"] == "GSSAPI"
        and values["sasl_kerberos_keytab"]
        and not values["sasl_kerberos_principal"]
    ):
        return [("sasl_kerberos_keytab needs sasl_kerberos_principal", remedy)]
    if values["sasl_mechanism"] != "OAUTHBEARER":
        return []
    endpoint, token = values["sasl_oauthbearer_token_endpoint_url"], values["sasl_oauthbearer_token"]
    if bool(endpoint) == bool(token):
        both = "sasl_oauthbearer_token_endpoint_url or sasl_oauthbearer_token"
        return [(f"OAUTHBEARER needs {both}, and not both", remedy)]
    missing = [
        key for key in ("sasl_oauthbearer_client_id", "sasl_oauthbearer_client_secret") if endpoint and not values[key]
    ]
    return [(f"sasl_oauthbearer_token_endpoint_url needs {', '.join(missing)}", remedy)] if missing else []


def _ignored(values: Mapping[str, Any], entry: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns settings that the protocol ignores: the user would believe that the connection is encrypted or logs in.

    A cluster with a protocol of its own is checked without the KAFKA_* settings, which may be meant for other clusters.
    """
    protocol = values["security_protocol"]
    idle = [] if protocol.startswith("SASL") else ["sasl_mechanism"]
    idle += [] if protocol.endswith("SSL") else [*TLS_FILES]
    own = bool(entry.get("security_protocol"))
    wanted = "SSL or SASL_SSL" if protocol.endswith("PLAINTEXT") else "SASL_SSL"
    found = [
        (f"{key} is of no use with {protocol}", f"set security_protocol to {wanted}")
        for key in idle
        if (entry.get(key) if own else values[key])
    ]
    mechanism = values["sasl_mechanism"]
    if not mechanism or not protocol.startswith("SASL"):
        return found
    return found + [
        (f"{key} is of no use with sasl_mechanism {mechanism}", f"set sasl_mechanism to {other}, or delete it")
        for other, keys in _KEYS_OF_MECHANISM.items()
        for key in keys
        if other != mechanism and (entry.get(key) if entry.get("sasl_mechanism") else values[key])
    ]


TOPIC_NAME = re.compile(r"(?!\.\.?$)[a-zA-Z0-9._-]{1,249}")


def load_connections(workspace: Workspace, settings: Settings | None, environ: Mapping[str, str]) -> Connections:
    """Reads connections.json.

    Raises:
        ConfigError: The first problem, with file, line and the nearest valid name.
    """
    connections, problems = read_connections(workspace, environ)
    if problems:
        raise problems[0]
    if settings is not None:
        connections.read_timeout_s = settings.PSTT_READ_TIMEOUT_S
    return connections


def read_connections(workspace: Workspace, environ: Mapping[str, str]) -> tuple[Connections, list[ConfigError]]:
    """Reads connections.json and returns every problem.

    Raises:
        ConfigError: The file is not JSON.
    """
    return parse_connections(read_json_file(workspace.connections_file), workspace, environ)


def parse_connections(
    file: JsonFile, workspace: Workspace, environ: Mapping[str, str]
) -> tuple[Connections, list[ConfigError]]:
    """Returns the connections of a parsed file, and every problem."""
    in_env_file = {name: value for name, (value, _) in read_env_file(workspace.env_file).items()}
    connections = Connections(file, workspace, {**in_env_file, **environ})
    problems = [
        file.error((key,), f'unknown key "{key}"', remedy=nearest(key, _TOP_KEYS))
        for key in file.document
        if key not in _TOP_KEYS
    ]
    problems += _read_databases(file, connections)
    problems += _read_clusters(file, connections)
    return connections, problems


def _read_databases(file: JsonFile, connections: Connections) -> list[ConfigError]:
    entries = file.document.get("connections", [])
    if not isinstance(entries, list):
        return [file.error(("connections",), '"connections" must be a list', remedy='write "connections": [ … ]')]
    problems: list[ConfigError] = []
    for index, entry in enumerate(entries):
        position = ("connections", index)
        try:
            database = _DatabaseEntry.model_validate(entry)
        except ValidationError as error:
            problems += validation_errors(file, position, error, _DatabaseEntry)
            if isinstance(entry, dict) and isinstance(entry.get("name"), str):
                connections.broken.add(entry["name"])
            continue
        problems += _check_database(file, position, database, connections)
        connections._databases.setdefault(database.name, (database, index))
    return problems


def _check_database(
    file: JsonFile, position: tuple[str | int, ...], entry: _DatabaseEntry, connections: Connections
) -> list[ConfigError]:
    problems = []
    if entry.name in connections._databases:
        problems.append(
            file.error((*position, "name"), f'there are two connections "{entry.name}"', remedy="give one another name")
        )
    for key, what, remedy in entry_problems(entry, find_dialect(entry.db_type)):
        place, colon = ((*position, key), ":") if key else (position, "")
        problems.append(file.error(place, f'connection "{entry.name}" ({entry.db_type}){colon} {what}', remedy=remedy))
    return problems


def _read_registry(file: JsonFile, connections: Connections) -> list[ConfigError]:
    given = file.document.get("schema_registry")
    if given is None:
        return []
    try:
        connections._registry = RegistryEntry.model_validate(given).model_dump()
    except ValidationError as error:
        return validation_errors(file, ("schema_registry",), error, RegistryEntry)
    return []


def _read_clusters(file: JsonFile, connections: Connections) -> list[ConfigError]:
    default = file.document.get("default_environment", "")
    entries = file.document.get("kafka_connections", {})
    if not isinstance(default, str):
        return [file.error(("default_environment",), '"default_environment" must be a text')]
    if not isinstance(entries, dict):
        return [file.error(("kafka_connections",), '"kafka_connections" must be an object: name → cluster')]
    problems = _read_registry(file, connections)
    for name, entry in entries.items():
        position = ("kafka_connections", name)
        if not name.strip():
            remedy = "give it the name of an environment, or delete the entry: the page's Connections can do both"
            problems.append(file.error(position, "a cluster has no name", remedy=remedy))
            continue
        try:
            connections._clusters[name] = _Cluster.model_validate(entry).model_dump()
        except ValidationError as error:
            problems += validation_errors(file, position, error, _Cluster)
    connections.default_environment = default
    if default and entries and default not in entries:
        problems.append(
            file.error(
                ("default_environment",),
                f'default_environment "{default}" is not among kafka_connections',
                remedy=nearest(default, entries),
            )
        )
    return problems
