"""Settings from the environment and `.env`, with the origin of each value.

Precedence: job, connections.json, environment, `.env`, default. A value keeps its origin, because the question behind
most wrong settings is where they came from.
"""

from __future__ import annotations

import difflib
import io
import json
import re
import zoneinfo
from collections.abc import Mapping
from dataclasses import dataclass
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
    field_validator,
)

from core.errors import ConfigError
from core.kafka.clients import client_names, default_client
from core.language import Language
from core.model.connection import (
    READ_TIMEOUT_S,
    Cluster,
    Compression,
    LogLevel,
    SaslMechanism,
    SecurityProtocol,
)
from core.workspace.json_file import nearest
from core.workspace.paths import WORKSPACE_VARIABLES, Workspace
from core.workspace.validation import one_of

__all__ = ["SettingRow", "Settings", "load_settings", "read_settings"]

MASK = "***"
EMAIL_ADDRESS = re.compile(r"[^@\s<>\",;]+@[^@\s<>\".,;]+(\.[^@\s<>\".,;]+)*")
SECRETS = {
    "KAFKA_SASL_PASSWORD",
    "KAFKA_SSL_KEY_PASSWORD",
    "KAFKA_SSL_KEYSTORE_PASSWORD",
    "KAFKA_SSL_TRUSTSTORE_PASSWORD",
    "KAFKA_SASL_OAUTHBEARER_CLIENT_SECRET",
    "KAFKA_SASL_OAUTHBEARER_TOKEN",
    "PSTT_SMTP_PASSWORD",
    "OPENLINEAGE_API_KEY",
    "OTEL_EXPORTER_OTLP_HEADERS",
}
_PASSWORD_IN_URL = re.compile(r"//[^/@\s]*@")
OURS = ("KAFKA_", "PSTT_")
DEFAULTS = Cluster(name="", bootstrap_servers="localhost:9092")
"""The KAFKA_* settings have the defaults of a cluster."""


@dataclass(frozen=True, slots=True)
class SettingRow:
    """One setting as `python -m core config` shows it."""

    name: str
    value: str | None
    origin: str


class Settings(BaseModel):
    """Every setting, typed. `.env.example` explains each."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    KAFKA_BOOTSTRAP_SERVERS: str = DEFAULTS.bootstrap_servers
    KAFKA_SECURITY_PROTOCOL: SecurityProtocol = DEFAULTS.security_protocol
    KAFKA_SASL_MECHANISM: SaslMechanism | None = None
    KAFKA_SASL_USERNAME: str | None = None
    KAFKA_SASL_PASSWORD: SecretStr | None = None
    KAFKA_SSL_CAFILE: str | None = None
    KAFKA_SSL_CERTFILE: str | None = None
    KAFKA_SSL_KEYFILE: str | None = None
    KAFKA_SSL_KEY_PASSWORD: SecretStr | None = None
    KAFKA_SSL_KEYSTORE_LOCATION: str | None = None
    KAFKA_SSL_KEYSTORE_PASSWORD: SecretStr | None = None
    KAFKA_SSL_TRUSTSTORE_LOCATION: str | None = None
    KAFKA_SSL_TRUSTSTORE_PASSWORD: SecretStr | None = None
    KAFKA_SASL_KERBEROS_SERVICE_NAME: str = Field(
        default=DEFAULTS.sasl_kerberos_service_name, pattern=r"^[A-Za-z0-9._-]+$"
    )
    KAFKA_SASL_KERBEROS_KEYTAB: str | None = None
    KAFKA_SASL_KERBEROS_PRINCIPAL: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._/$@-]*$")
    KAFKA_SASL_OAUTHBEARER_TOKEN_ENDPOINT_URL: str | None = None
    KAFKA_SASL_OAUTHBEARER_CLIENT_ID: str | None = None
    KAFKA_SASL_OAUTHBEARER_CLIENT_SECRET: SecretStr | None = None
    KAFKA_SASL_OAUTHBEARER_SCOPE: str | None = None
    KAFKA_SASL_OAUTHBEARER_EXTENSIONS: str | None = Field(
        default=None, pattern=r"^[A-Za-z]+=[\x20-\x2b\x2d-\x7e]+(,[A-Za-z]+=[\x20-\x2b\x2d-\x7e]+)*$"
    )
    KAFKA_SASL_OAUTHBEARER_CAFILE: str | None = None
    KAFKA_SASL_OAUTHBEARER_TOKEN: SecretStr | None = None
    KAFKA_CLIENT_ID: str = Field(default=DEFAULTS.client_id, pattern=r"^[A-Za-z0-9._-]{1,200}$")
    KAFKA_CLIENT_RACK: str | None = Field(default=None, pattern=r"^[\x21-\x7e]{1,200}$")
    KAFKA_CLIENT_OPTIONS: dict[str, bool | int | float | str] | None = None
    KAFKA_COMPRESSION_TYPE: Compression = DEFAULTS.compression_type
    KAFKA_BATCH_SIZE: int = Field(default=DEFAULTS.batch_size_bytes, ge=1, le=2_147_483_647)
    KAFKA_LINGER_MS: int = Field(default=DEFAULTS.linger_ms, ge=0, le=900_000)
    KAFKA_MAX_REQUEST_SIZE: int = Field(default=DEFAULTS.max_request_size_bytes, ge=1_000, le=1_000_000_000)
    KAFKA_REQUEST_TIMEOUT_MS: int = Field(default=DEFAULTS.request_timeout_ms, ge=1_000, le=900_000)
    KAFKA_ENABLE_IDEMPOTENCE: bool = DEFAULTS.enable_idempotence
    KAFKA_RETRY_BACKOFF_MS: int = Field(default=DEFAULTS.retry_backoff_ms, ge=1, le=75_000)
    KAFKA_MAX_IN_FLIGHT_REQUESTS: int = Field(default=DEFAULTS.max_in_flight_requests, ge=1, le=1_000)
    KAFKA_DEFAULT_TOPIC: str = DEFAULTS.default_topic
    KAFKA_MESSAGE_BATCH_SIZE: int = Field(default=DEFAULTS.message_batch_size, ge=1, le=100_000)
    KAFKA_MAX_RETRIES: int = Field(default=DEFAULTS.max_retries, ge=0, le=100)
    KAFKA_HEALTH_CHECK_INTERVAL_SEC: int = Field(default=60, ge=1, le=86_400)
    KAFKA_LOG_LEVEL: LogLevel = DEFAULTS.log_level
    KAFKA_LOG_PAYLOAD: bool = False
    KAFKA_CLIENT: Annotated[str, AfterValidator(one_of(client_names))] = Field(default_factory=default_client)
    PSTT_TIMEZONE: str = "Europe/Rome"
    PSTT_LANGUAGE: Language = "en"
    PSTT_FETCH_ROWS: int = Field(default=2_000, ge=1, le=1_000_000)
    PSTT_DELIVERY_TIMEOUT_MS: int = Field(default=DEFAULTS.delivery_timeout_ms, ge=1_000, le=900_000)
    PSTT_MAX_IN_FLIGHT_MESSAGES: int = Field(default=5_000, ge=1, le=1_000_000)
    PSTT_STOP_TIMEOUT_S: float = Field(default=30.0, ge=0, le=3_600)
    PSTT_READ_TIMEOUT_S: float = Field(default=READ_TIMEOUT_S, ge=1, le=86_400)
    PSTT_WORKERS: int = Field(default=4, ge=1, le=64)
    PSTT_RUN_PROCESSES: int | None = Field(default=None, ge=1, le=1_000)
    PSTT_BACKFILL_WORKERS: int = Field(default=4, ge=1, le=64)
    PSTT_BACKFILL_PAUSE_AFTER: int = Field(default=3, ge=0, le=100)
    PSTT_BACKFILL_PAUSE_S: float = Field(default=600.0, ge=1, le=86_400)
    PSTT_GRACE_S: float = Field(default=60.0, ge=1, le=86_400)
    PSTT_RUN_RETRIES: int = Field(default=3, ge=0, le=100)
    PSTT_RUN_RETRY_WAIT_S: float = Field(default=30.0, ge=0, le=86_400)
    PSTT_MAX_CATCH_UP_DAYS: float = Field(default=31.0, gt=0, le=366)
    PSTT_LOG_RETENTION_DAYS: int = Field(default=30, ge=1, le=3_650)
    PSTT_KEEP_SENDS_DAYS: int = Field(default=400, ge=0, le=36_500)
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
    PSTT_PAGE_URL: str | None = Field(default=None, pattern=r"^https?://[^\s/?#]+(/[^\s?#]*)?$")
    PSTT_HEALTH_GRACE_S: float = Field(default=3_600.0, ge=1, le=604_800)
    PSTT_SECRET_COMMANDS: str | None = None
    PSTT_SECRET_COMMAND_TIMEOUT_S: float = Field(default=10.0, ge=0.1, le=300)
    DASK_SCHEDULER_ADDRESS: str | None = Field(
        default=None, pattern=r"^(tcp|tls)://(\[[0-9a-fA-F:]+\]|[^\s:/\[\]]+):[0-9]{1,5}/?$"
    )

    # Variables of other programs too: a value that is of no use here must not refuse every command.
    OPENLINEAGE_URL: str | None = None
    OPENLINEAGE_API_KEY: SecretStr | None = None
    OPENLINEAGE_NAMESPACE: str = "pstt-kafka"
    PSTT_LINEAGE_FILE: str | None = None
    PSTT_LINEAGE_TOPIC: str | None = Field(default=None, pattern=r"^([^/]+/)?[A-Za-z0-9._-]{1,249}$")
    OTEL_EXPORTER_OTLP_ENDPOINT: str | None = None
    OTEL_EXPORTER_OTLP_HEADERS: SecretStr | None = None
    OTEL_SERVICE_NAME: str = "pstt-kafka"

    _origins: dict[str, str] = PrivateAttr(default_factory=dict)

    @field_validator("PSTT_TIMEZONE")
    @classmethod
    def _known_zone(cls, name: str) -> str:
        return known_zone(name)

    @field_validator("KAFKA_CLIENT_OPTIONS", mode="before")
    @classmethod
    def _json_object(cls, text: Any) -> Any:
        try:
            return json.loads(text) if isinstance(text, str) else text
        except (ValueError, RecursionError):
            raise ValueError('it is no JSON object; write {"socket.keepalive.enable": true}') from None

    @field_validator("PSTT_MAIL_FROM", "PSTT_MAIL_TO", "PSTT_RECEIPT_TO")
    @classmethod
    def _known_addresses(cls, text: str | None) -> str | None:
        for address in email_addresses(text):
            if not EMAIL_ADDRESS.fullmatch(address):
                raise ValueError(f"{address!r} is no e-mail address; several are separated by commas")
        return text

    def origin(self, name: str) -> str:
        """Returns where a value came from: `environment`, `.env, line 4`, `default`."""
        return self._origins.get(name, "default")

    def __getstate__(self) -> dict[Any, Any]:
        """Masks the secrets in a pickled copy."""
        state = super().__getstate__()
        hidden = {name: SecretStr(MASK) for name in SECRETS if state["__dict__"].get(name)}
        return {**state, "__dict__": {**state["__dict__"], **hidden}}

    def table(self) -> list[SettingRow]:
        """Returns every setting with secrets masked."""
        rows = []
        for name in type(self).model_fields:
            value = getattr(self, name)
            shown = MASK if name in SECRETS and value else None if value is None else setting_text(value)
            shown = _PASSWORD_IN_URL.sub(f"//{MASK}@", shown) if shown else shown
            rows.append(SettingRow(name, shown, self.origin(name)))
        return rows


def setting_text(value: Any) -> str:
    """Returns a value of a setting as `.env` has it."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else str(value)


def email_addresses(text: str | None) -> tuple[str, ...]:
    """Splits `anna@example.com, carlo@example.com`."""
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())


SETTING_NAMES = tuple(Settings.model_fields)


def known_zone(name: str) -> str:
    """Returns the name, or raises ValueError if the time zone database does not have it."""
    try:
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"no such time zone; {nearest(name, sorted(zoneinfo.available_timezones()))}") from None
    return name


def read_env_file(file: Path) -> dict[str, tuple[str, int]]:
    """Returns name → (value, line) of each entry of a `.env`; an empty value counts as not set."""
    if not file.exists():
        return {}
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("the file cannot be read as UTF-8", why=type(error).__name__, file=file) from None
    return env_entries(text, file)


def env_entries(text: str, file: Path | None = None) -> dict[str, tuple[str, int]]:
    """Returns name → (value, line) of each entry in the text of a `.env`; an empty value counts as not set.

    Args:
        text: The text.
        file: Where it is from; None: lines that are no entries are passed over.

    Raises:
        ConfigError: A line of `file` is no entry.
    """
    entries = {}
    for binding in parse_stream(io.StringIO(text)):
        before = len(binding.original.string) - len(binding.original.string.lstrip())
        line = binding.original.line + binding.original.string.count("\n", 0, before)
        if file is not None and (binding.error or (binding.key and binding.value is None)):
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
        ConfigError: The first problem: an unknown KAFKA_ or PSTT_ name in `.env`, or a value that is not allowed.
    """
    settings, problems = read_settings(workspace, environ)
    if settings is None:
        raise problems[0]
    return settings


def read_settings(
    workspace: Workspace, environ: Mapping[str, str], entries: Mapping[str, tuple[str, int]] | None = None
) -> tuple[Settings | None, list[ConfigError]]:
    """Returns the settings, or None and every problem.

    Args:
        workspace: The workspace.
        environ: The environment variables.
        entries: Of `.env`, as `read_env_file` returns them; None: they are read from the file.

    Raises:
        ConfigError: `.env` cannot be read.
    """
    if entries is None:
        entries = read_env_file(workspace.env_file)
    problems = [
        ConfigError(
            f"unknown setting {name}", remedy=nearest(name, SETTING_NAMES), file=workspace.env_file, line=line, key=name
        )
        for name, (_, line) in entries.items()
        if name.startswith(OURS) and name not in (*SETTING_NAMES, *WORKSPACE_VARIABLES)
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
    """Returns variables of the environment that are probably misspelled settings, each with the nearest setting.

    KAFKA_HOME, KAFKA_OPTS and the like belong to other programs, so only a near miss counts.
    """
    found = []
    for name in sorted(environ):
        if name.startswith(OURS) and name not in SETTING_NAMES:
            close = difflib.get_close_matches(name, SETTING_NAMES, n=1, cutoff=0.85)
            found += [(name, close[0])] if close else []
    return found
