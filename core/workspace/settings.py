"""Settings and connections: from `.env`, the environment and connections.json, with the origin of each value.

Order: job, connections.json, environment, `.env`, default. A value keeps its origin, because the
question behind most wrong settings is "where did that come from?".
"""

from __future__ import annotations

import difflib
import io
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from dotenv.parser import parse_stream
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
    create_model,
    field_validator,
)

from core.errors import ConfigError
from core.model.connection import Cluster, DatabaseConnection, Secret
from core.model.dialect import Dialect
from core.model.job import Job
from core.sources import database_types, find_dialect
from core.workspace.json_file import JsonFile, nearest, read_json_file
from core.workspace.paths import Workspace
from core.workspace.secrets import is_reference, resolve_secret
from core.workspace.validation import validation_errors

__all__ = [
    "CLUSTER_KEYS",
    "DATABASE_KEYS",
    "Connections",
    "SettingRow",
    "Settings",
    "load_connections",
    "load_settings",
    "read_settings",
]

MASK = "***"
ADDRESS = re.compile(r"[^@\s<>\",;]+@[^@\s<>\".,;]+(\.[^@\s<>\".,;]+)*")
SECRETS = {"KAFKA_SASL_PASSWORD", "PSTT_SMTP_PASSWORD"}
OURS = ("KAFKA_", "PSTT_")
Protocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
Mechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]


@dataclass(frozen=True, slots=True)
class SettingRow:
    """One setting as `python -m core config` lists it."""

    name: str
    value: str | None
    origin: str


class Settings(BaseModel):
    """Every setting, typed. What each means stands in `.env.example`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    KAFKA_BOOTSTRAP_SERVERS: str = "localhost:9092"
    KAFKA_SECURITY_PROTOCOL: Protocol = "PLAINTEXT"
    KAFKA_SASL_MECHANISM: Mechanism | None = None
    KAFKA_SASL_USERNAME: str | None = None
    KAFKA_SASL_PASSWORD: SecretStr | None = None
    KAFKA_SSL_CAFILE: str | None = None
    KAFKA_SSL_CERTFILE: str | None = None
    KAFKA_SSL_KEYFILE: str | None = None
    KAFKA_COMPRESSION_TYPE: Literal["none", "gzip", "snappy", "lz4", "zstd"] = "snappy"
    KAFKA_BATCH_SIZE: int = Field(default=16_384, ge=1, le=2_147_483_647)
    KAFKA_LINGER_MS: int = Field(default=10, ge=0, le=900_000)
    KAFKA_MAX_REQUEST_SIZE: int = Field(default=1_048_576, ge=1_000, le=1_000_000_000)
    KAFKA_REQUEST_TIMEOUT_MS: int = Field(default=30_000, ge=1_000, le=900_000)
    KAFKA_ENABLE_IDEMPOTENCE: bool = True
    KAFKA_RETRY_BACKOFF_MS: int = Field(default=100, ge=1, le=75_000)
    KAFKA_MAX_IN_FLIGHT_REQUESTS: int = Field(default=5, ge=1, le=1_000)
    KAFKA_DEFAULT_TOPIC: str = "pstt-data"
    KAFKA_MESSAGE_BATCH_SIZE: int = Field(default=100, ge=1, le=100_000)
    KAFKA_MAX_RETRIES: int = Field(default=3, ge=0, le=100)
    KAFKA_HEALTH_CHECK_INTERVAL_SEC: int = Field(default=60, ge=1, le=86_400)
    KAFKA_LOG_LEVEL: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    KAFKA_LOG_PAYLOAD: bool = False
    KAFKA_CLIENT: Literal["confluent", "kafka-python-ng"] = "confluent"
    PSTT_TIMEZONE: str = "Europe/Rome"
    PSTT_FETCH_ROWS: int = Field(default=2_000, ge=1, le=1_000_000)
    PSTT_DELIVERY_TIMEOUT_MS: int = Field(default=30_000, ge=1_000, le=900_000)
    PSTT_MAX_IN_FLIGHT_MESSAGES: int = Field(default=5_000, ge=1, le=1_000_000)
    PSTT_STOP_TIMEOUT_S: float = Field(default=30.0, ge=0, le=3_600)
    PSTT_READ_TIMEOUT_S: float = Field(default=300.0, ge=1, le=86_400)
    PSTT_WORKERS: int = Field(default=4, ge=1, le=64)
    PSTT_GRACE_S: float = Field(default=60.0, ge=1, le=86_400)
    PSTT_RUN_RETRIES: int = Field(default=3, ge=0, le=100)
    PSTT_RUN_RETRY_WAIT_S: float = Field(default=30.0, ge=0, le=86_400)
    PSTT_MAX_CATCH_UP_DAYS: float = Field(default=31.0, gt=0, le=366)
    PSTT_LOG_RETENTION_DAYS: int = Field(default=30, ge=1, le=3_650)
    PSTT_CONTROL_TOPIC: str = "pstt-control"
    PSTT_SMTP_HOST: str | None = None
    PSTT_SMTP_PORT: int | None = Field(default=None, ge=1, le=65_535)
    PSTT_SMTP_SECURITY: Literal["starttls", "tls", "none"] = "starttls"
    PSTT_SMTP_USERNAME: str | None = None
    PSTT_SMTP_PASSWORD: SecretStr | None = None
    PSTT_SMTP_CAFILE: str | None = None
    PSTT_SMTP_TIMEOUT_S: float = Field(default=20.0, ge=1, le=600)
    PSTT_MAIL_FROM: str | None = None
    PSTT_MAIL_TO: str | None = None
    PSTT_RECEIPT_AT: str = Field(default="07:00", pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")
    PSTT_RECEIPT_TO: str | None = None
    PSTT_HEALTH_GRACE_S: float = Field(default=3_600.0, ge=1, le=604_800)

    _origins: dict[str, str] = PrivateAttr(default_factory=dict)

    @field_validator("PSTT_TIMEZONE")
    @classmethod
    def _known_zone(cls, name: str) -> str:
        return known_zone(name)

    @field_validator("PSTT_MAIL_FROM", "PSTT_MAIL_TO", "PSTT_RECEIPT_TO")
    @classmethod
    def _known_addresses(cls, text: str | None) -> str | None:
        for address in addresses(text):
            if not ADDRESS.fullmatch(address):
                raise ValueError(f"{address!r} is no e-mail address; several are separated by commas")
        return text

    def origin(self, name: str) -> str:
        """Where a value came from: `environment`, `.env, line 4`, `default`."""
        return self._origins.get(name, "default")

    def __getstate__(self) -> dict[Any, Any]:
        """A copy in another process, or in a file, does not hold the secrets."""
        state = super().__getstate__()
        hidden = {name: SecretStr(MASK) for name in SECRETS if state["__dict__"].get(name)}
        return {**state, "__dict__": {**state["__dict__"], **hidden}}

    def table(self) -> list[SettingRow]:
        """Every setting, secrets masked."""
        rows = []
        for name in type(self).model_fields:
            value = getattr(self, name)
            shown = MASK if name in SECRETS and value else None if value is None else str(value)
            rows.append(SettingRow(name, shown, self.origin(name)))
        return rows


def addresses(text: str | None) -> tuple[str, ...]:
    """`anna@example.com, carlo@example.com` one by one."""
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())


SETTING_NAMES = tuple(Settings.model_fields)


def known_zone(name: str) -> str:
    """The name itself, if the time zone database has it."""
    import zoneinfo

    try:
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"no such time zone; {nearest(name, sorted(zoneinfo.available_timezones()))}") from None
    return name


def read_env_file(file: Path) -> dict[str, tuple[str, int]]:
    """Name → value and line of each entry of a `.env`; empty values count as not given."""
    if not file.exists():
        return {}
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("the file cannot be read as UTF-8", why=type(error).__name__, file=file) from None
    entries = {}
    for binding in parse_stream(io.StringIO(text)):
        before = len(binding.original.string) - len(binding.original.string.lstrip())
        line = binding.original.line + binding.original.string.count("\n", 0, before)
        if binding.error or (binding.key and binding.value is None):
            raise ConfigError(
                "this line is not NAME=value",
                remedy="look for a missing = or quote; a comment begins with #",
                file=file,
                line=line,
            )
        if binding.key and binding.value:
            entries[binding.key] = (binding.value, line)
    return entries


def load_settings(workspace: Workspace, environ: Mapping[str, str]) -> Settings:
    """Reads `.env` and the environment.

    Raises:
        ConfigError: A name of ours in `.env` is unknown, or a value is not allowed; says where it came from.
    """
    settings, problems = read_settings(workspace, environ)
    if settings is None:
        raise problems[0]
    return settings


def read_settings(workspace: Workspace, environ: Mapping[str, str]) -> tuple[Settings | None, list[ConfigError]]:
    """The settings, or all their problems; a `.env` that cannot be read raises."""
    entries = read_env_file(workspace.env_file)
    problems = [
        ConfigError(
            f"unknown setting {name}", remedy=nearest(name, SETTING_NAMES), file=workspace.env_file, line=line, key=name
        )
        for name, (_, line) in entries.items()
        if name.startswith(OURS) and name not in SETTING_NAMES and name != "PSTT_WORKSPACE"
    ]
    values: dict[str, str] = {}
    origins: dict[str, str] = {}
    for name in SETTING_NAMES:
        if environ.get(name):
            values[name], origins[name] = environ[name], "environment"
        elif name in entries:
            values[name], origins[name] = entries[name][0], f".env, line {entries[name][1]}"
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        for detail in error.errors(include_input=False, include_url=False):
            name = str(detail["loc"][0])
            in_file = origins[name].startswith(".env")
            problems.append(
                ConfigError(
                    f"{name} is not valid" + ("" if in_file else " (from the environment)"),
                    why=detail["msg"].removeprefix("Value error, "),
                    remedy="see .env.example",
                    file=workspace.env_file if in_file else None,
                    line=entries[name][1] if in_file else None,
                    key=name,
                )
            )
        return None, problems
    settings._origins.update(origins)
    return (None if problems else settings), problems


def mistyped(environ: Mapping[str, str]) -> list[tuple[str, str]]:
    """Variables of the environment that look like a setting and are none, each with the nearest one.

    KAFKA_HOME, KAFKA_OPTS and the like belong to others, so only a near miss counts.
    """
    found = []
    for name in sorted(environ):
        if name.startswith(OURS) and name not in SETTING_NAMES:
            close = difflib.get_close_matches(name, SETTING_NAMES, n=1, cutoff=0.85)
            found += [(name, close[0])] if close else []
    return found


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def _known_database(db_type: str) -> str:
    *others, last = map(repr, database_types())
    if db_type not in database_types():
        raise ValueError(f"input should be {', '.join(others)} or {last}")
    return db_type


class _Database(_Entry):
    name: str
    db_type: Annotated[str, AfterValidator(_known_database)]
    environment: str = ""
    host: str = ""
    port: int | None = Field(default=None, ge=1, le=65_535)
    database: str = ""
    service_name: str = ""
    sid: str = ""
    username: str = ""
    password: str | None = Field(default=None, repr=False)
    sslmode: Literal["", "disable", "prefer", "require", "verify-ca", "verify-full"] = ""
    sslrootcert: str | None = None
    driver: str = ""
    thick: bool = False
    allow_writes: bool = False
    connect_timeout_s: float = Field(default=15.0, gt=0, le=600, strict=False)
    statement_timeout_s: float | None = Field(default=None, gt=0, strict=False)
    read_timeout_s: float | None = Field(default=None, gt=0, strict=False)

    @field_validator("name")
    @classmethod
    def _is_a_name(cls, name: str) -> str:
        if not name.strip():
            raise ValueError("a connection needs a name")
        return name


# setting of a cluster → field of `Cluster`, where the names differ
_RENAMED = {"batch_size": "batch_size_bytes", "max_request_size": "max_request_size_bytes"}
_OF_CLUSTER = {
    name.removeprefix("KAFKA_").lower(): name
    for name in SETTING_NAMES
    if name.startswith("KAFKA_") and name not in ("KAFKA_LOG_PAYLOAD", "KAFKA_HEALTH_CHECK_INTERVAL_SEC")
} | {"delivery_timeout_ms": "PSTT_DELIVERY_TIMEOUT_MS"}
_FILES = ("ssl_cafile", "ssl_certfile", "ssl_keyfile")


def _cluster_entry() -> type[BaseModel]:
    """A cluster's entry may set whatever the KAFKA_* settings may, under the same rules."""
    fields: dict[str, Any] = {"name": (str, ""), "mock_brokers": (int, Field(default=0, ge=0, le=9))}
    for key, setting in _OF_CLUSTER.items():
        rule = Settings.model_fields[setting]
        kind = str if setting in SECRETS else rule.rebuild_annotation()
        fields[key] = (kind | None, None)
    return create_model("_Cluster", __base__=_Entry, **fields)


_Cluster = _cluster_entry()
DATABASE_KEYS = tuple(_Database.model_fields)
CLUSTER_KEYS = tuple(_Cluster.model_fields)
_TOP = ("default_environment", "connections", "kafka_connections")


class Connections:
    """connections.json, read and found valid. A secret is resolved when its connection is used, not before."""

    def __init__(self, file: JsonFile, workspace: Workspace, variables: Mapping[str, str]) -> None:
        self._file = file
        self._workspace = workspace
        self._variables = variables
        self.default_environment: str = ""
        self._databases: dict[str, tuple[_Database, int]] = {}
        self._clusters: dict[str, dict[str, Any]] = {}
        self.read_timeout_s: float = Settings.model_fields["PSTT_READ_TIMEOUT_S"].default
        """Of connections that say nothing about it."""
        self.broken: set[str] = set()
        """Database connections that are there and not valid; what uses them needs no error of its own."""

    @property
    def database_names(self) -> list[str]:
        """Every database connection."""
        return list(self._databases)

    @property
    def cluster_names(self) -> list[str]:
        """Every key of `kafka_connections`."""
        return list(self._clusters)

    @cached_property
    def literal_passwords(self) -> list[str]:
        """Connections whose password stands in the file itself."""
        plain = [n for n, (entry, _) in self._databases.items() if entry.password and not is_reference(entry.password)]
        return plain + [
            n for n, e in self._clusters.items() if e.get("sasl_password") and not is_reference(e["sasl_password"])
        ]

    def dialect(self, name: str) -> Dialect:
        """The rules of a connection's database; needs no secret and no driver."""
        return find_dialect(self._database(name)[0].db_type)

    def environment_of(self, name: str) -> str:
        """The environment of a connection; needs no secret."""
        return self._database(name)[0].environment

    def require(self, job: Job) -> None:
        """Looks whether what a job uses is set up at all; needs no secret and contacts nothing.

        Raises:
            ConfigError: Its connection, or the cluster that it names, is not there.
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
        """Whether the read-only gate is open for a connection."""
        return self._database(name)[0].allow_writes

    def _database(self, name: str) -> tuple[_Database, int]:
        if name not in self._databases:
            raise ConfigError(
                f'there is no connection "{name}" in {self._file.path.name}', remedy=nearest(name, self._databases)
            )
        return self._databases[name]

    def database(self, name: str) -> DatabaseConnection:
        """A connection ready to be opened.

        Raises:
            ConfigError: Unknown name, or its secret cannot be had; names the reference, never the value.
        """
        entry, index = self._database(name)
        place = ("connections", index)
        values = entry.model_dump()
        values["password"] = self._secret(entry.password, (*place, "password"), f'connection "{name}"')
        if entry.sslrootcert:
            values["sslrootcert"] = self._existing(entry.sslrootcert, (*place, "sslrootcert"))
        values["read_timeout_s"] = entry.read_timeout_s or self.read_timeout_s
        if find_dialect(entry.db_type).connection.is_file:
            values["database"] = str(self._workspace.root / entry.database)
        return DatabaseConnection(**values)

    def cluster_for(self, job: Job, settings: Settings) -> Cluster:
        """The job's own choice, else its connection's environment, else `default_environment`, else the settings."""
        return self.cluster_at(self.cluster_key_for(job), settings)

    def cluster_key_for(self, job: Job) -> str | None:
        """Under which key of `kafka_connections` a job's cluster is; None: the KAFKA_* settings alone."""
        if job.kafka_config.cluster is not None:
            return job.kafka_config.cluster
        environments = (self._database(job.connection)[0].environment, self.default_environment)
        return next((name for name in environments if name in self._clusters), None)

    def key_of(self, cluster: Cluster, settings: Settings) -> str | None:
        """Under which key of `kafka_connections` a cluster is; None: the KAFKA_* settings alone."""
        for name in self._clusters:
            with suppress(ConfigError):  # this one cannot be used: it is another
                if self.cluster_at(name, settings) == cluster:
                    return name
        return None

    def cluster(self, name: str | None, settings: Settings) -> Cluster:
        """One cluster with every setting resolved; None: `default_environment`; where there are no clusters, the KAFKA_* settings.

        Raises:
            ConfigError: Unknown name, no name where nothing says which one is meant, or settings that contradict each other.
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

    def known_clusters(self, settings: Settings) -> tuple[list[Cluster], list[ConfigError]]:
        """Every cluster that a message may have gone to, the KAFKA_* settings' own last; and why some cannot be used."""
        clusters, problems = [], []
        for name in (*self._clusters, None):
            try:
                clusters.append(self.cluster_at(name, settings))
            except ConfigError as error:
                problems.append(error)
        return clusters, problems

    def cluster_at(self, name: str | None, settings: Settings) -> Cluster:
        """The cluster of a key of `kafka_connections`; None: that of the KAFKA_* settings."""
        entry = self._cluster_entry(name) if name is not None else {}
        values: dict[str, Any] = {}
        for key, setting in _OF_CLUSTER.items():
            value = entry[key] if entry.get(key) is not None else getattr(settings, setting)
            values[_RENAMED.get(key, key)] = value.get_secret_value() if isinstance(value, SecretStr) else value
        place: tuple[str | int, ...] = ("kafka_connections", name) if name is not None else ()
        label = entry.get("name") or name or "KAFKA_* settings"
        for key in _FILES:
            values[key] = self._existing(values[key], (*place, key)) if values[key] else None
        self._check_cluster(label, values, entry, place)
        values["sasl_password"] = self._secret(values["sasl_password"], (*place, "sasl_password"), f'cluster "{label}"')
        return Cluster(name=label, mock_brokers=entry.get("mock_brokers", 0), **values)

    def _check_cluster(
        self, label: str, values: dict[str, Any], entry: Mapping[str, Any], place: tuple[str | int, ...]
    ) -> None:
        """Contradictions that a client would report late, or not at all."""
        for what, remedy in [*_contradictions(values), *_useless(values, entry)]:
            raise self._file.error(place, f'cluster "{label}": {what}', remedy=remedy)

    def _secret(self, text: str | None, place: tuple[str | int, ...], owner: str) -> Secret | None:
        if not text:
            return None
        try:
            return resolve_secret(text, self._variables, self._workspace.root)
        except ConfigError as error:
            raise self._file.error(place, f"{owner}: {error.what}", why=error.why, remedy=error.remedy) from None

    def _existing(self, name: str, place: tuple[str | int, ...]) -> Path:
        path = self._workspace.root / name
        if not path.is_file():
            raise self._file.error(
                place, f"there is no file {name}", remedy="give its path, absolute or below the workspace"
            )
        return path


def _contradictions(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    found = []
    sasl = values["security_protocol"].startswith("SASL")
    if sasl:
        missing = [key for key in ("sasl_mechanism", "sasl_username", "sasl_password") if not values[key]]
        if missing:
            found.append(
                (f"{values['security_protocol']} needs {', '.join(missing)}", "set it here or as KAFKA_… setting")
            )
    if bool(values["ssl_certfile"]) != bool(values["ssl_keyfile"]):
        found.append(("ssl_certfile and ssl_keyfile belong together", "give both or none"))
    if values["enable_idempotence"] and values["max_in_flight_requests"] > 5 and values["client"] == "confluent":
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


def _useless(values: Mapping[str, Any], entry: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the protocol never looks at: somebody believes that the connection is encrypted, or logs in, and it does not.

    A cluster that chooses its own protocol is not blamed for settings that are meant for others.
    """
    protocol = values["security_protocol"]
    idle = [] if protocol.startswith("SASL") else ["sasl_mechanism"]
    idle += [] if protocol.endswith("SSL") else [*_FILES]
    own = bool(entry.get("security_protocol"))
    wanted = "SSL or SASL_SSL" if protocol.endswith("PLAINTEXT") else "SASL_SSL"
    return [
        (f"{key} is of no use with {protocol}", f"set security_protocol to {wanted}")
        for key in idle
        if (entry.get(key) if own else values[key])
    ]


TOPIC_NAME = re.compile(r"(?!\.\.?$)[a-zA-Z0-9._-]{1,249}")


def load_connections(workspace: Workspace, settings: Settings | None, environ: Mapping[str, str]) -> Connections:
    """Reads connections.json; the first problem in it is raised.

    Raises:
        ConfigError: With file, line and the nearest valid name.
    """
    connections, problems = read_connections(workspace, environ)
    if problems:
        raise problems[0]
    if settings is not None:
        connections.read_timeout_s = settings.PSTT_READ_TIMEOUT_S
    return connections


def read_connections(workspace: Workspace, environ: Mapping[str, str]) -> tuple[Connections, list[ConfigError]]:
    """connections.json and all its problems; a file that is no JSON raises."""
    return parse_connections(read_json_file(workspace.connections_file), workspace, environ)


def parse_connections(
    file: JsonFile, workspace: Workspace, environ: Mapping[str, str]
) -> tuple[Connections, list[ConfigError]]:
    """The connections of a file that was read already, and all its problems."""
    in_env_file = {name: value for name, (value, _) in read_env_file(workspace.env_file).items()}
    connections = Connections(file, workspace, {**in_env_file, **environ})
    problems = [
        file.error((key,), f'unknown key "{key}"', remedy=nearest(key, _TOP))
        for key in file.document
        if key not in _TOP
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
        place = ("connections", index)
        try:
            database = _Database.model_validate(entry)
        except ValidationError as error:
            problems += validation_errors(file, place, error, _Database)
            if isinstance(entry, dict) and isinstance(entry.get("name"), str):
                connections.broken.add(entry["name"])
            continue
        problems += _check_database(file, place, database, connections)
        connections._databases.setdefault(database.name, (database, index))
    return problems


def _check_database(
    file: JsonFile, place: tuple[str | int, ...], entry: _Database, connections: Connections
) -> list[ConfigError]:
    rules = find_dialect(entry.db_type).connection
    problems = []
    if entry.name in connections._databases:
        problems.append(
            file.error((*place, "name"), f'there are two connections "{entry.name}"', remedy="give one another name")
        )
    problems += [
        file.error(place, f'connection "{entry.name}" ({entry.db_type}) needs "{key}"', remedy=f'add "{key}": …')
        for key in rules.required
        if not getattr(entry, key)
    ]
    if rules.exactly_one_of and sum(bool(getattr(entry, key)) for key in rules.exactly_one_of) != 1:
        keys = " or ".join(f'"{key}"' for key in rules.exactly_one_of)
        problems.append(
            file.error(
                place,
                f'connection "{entry.name}" ({entry.db_type}) needs {keys}',
                remedy="give exactly one of them",
            )
        )
    return problems


def _read_clusters(file: JsonFile, connections: Connections) -> list[ConfigError]:
    default = file.document.get("default_environment", "")
    entries = file.document.get("kafka_connections", {})
    if not isinstance(default, str):
        return [file.error(("default_environment",), '"default_environment" must be a text')]
    if not isinstance(entries, dict):
        return [file.error(("kafka_connections",), '"kafka_connections" must be an object: name → cluster')]
    problems: list[ConfigError] = []
    for name, entry in entries.items():
        place = ("kafka_connections", name)
        if not name.strip():
            remedy = "give it the name of an environment, or delete the entry: the page's Connections can do both"
            problems.append(file.error(place, "a cluster has no name", remedy=remedy))
            continue
        try:
            connections._clusters[name] = _Cluster.model_validate(entry).model_dump()
        except ValidationError as error:
            problems += validation_errors(file, place, error, _Cluster)
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
