"""Where data comes from and goes to: databases, Kafka clusters, and the secrets that open them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

__all__ = ["UNREAD", "Cluster", "DatabaseConnection", "Destination", "RenewedSecret", "SchemaRegistry", "Secret"]


class Secret:
    """A value that `str`, `repr`, logging and pickling show as `***`; only `reveal` returns it."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Returns the value, for the call that passes it to a driver."""
        return self._value

    def __repr__(self) -> str:
        return "***"

    def __reduce__(self) -> tuple[Any, ...]:
        return (Secret, ("***",))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)


class RenewedSecret(Secret):
    """A secret that is read again when it has expired, such as a token that a command prints.

    Args:
        value: As it was read first.
        read: Reads it again; raises PsttError.
    """

    __slots__ = ("_read_again",)

    def __init__(self, value: str, read: Callable[[], Secret]) -> None:
        super().__init__(value)
        self._read_again = read

    def read_again(self) -> str:
        """Returns the present value. Raises what the reference's resolution raises."""
        return self._read_again().reveal()


UNREAD = Secret("(not read)")
"""In place of a secret that a check of the files does not read: a vault would be contacted, or a command run."""
READ_TIMEOUT_S = 300.0
"""Also the default of PSTT_READ_TIMEOUT_S."""


Option = str | int | float | bool
"""The value of one of the driver's own settings."""
SessionAttributes = Literal["", "any", "read-write", "read-only", "primary", "standby", "prefer-standby"]
EntraMethod = Literal[
    "",
    "ActiveDirectoryIntegrated",
    "ActiveDirectoryMsi",
    "ActiveDirectoryPassword",
    "ActiveDirectoryServicePrincipal",
    "SqlPassword",
]
ApplicationIntent = Literal["", "ReadOnly", "ReadWrite"]
ServerType = Literal["", "dedicated", "shared", "pooled"]


@dataclass(frozen=True, slots=True)
class DatabaseConnection:
    """One entry of `connections` in connections.json, its secret resolved."""

    name: str
    db_type: str
    """A name of the registry `core.sources`."""
    environment: str = ""
    host: str = ""
    """PostgreSQL: also several, with commas, each with a port or not; SQL Server: also HOST\\INSTANCE."""
    port: int | None = None
    database: str = ""
    """Database name; for a database in a file its path, absolute or below the workspace (already resolved)."""
    service_name: str = ""
    sid: str = ""
    username: str = ""
    password: Secret | None = None
    sslmode: str = ""
    """PostgreSQL, MySQL: disable, prefer, require, verify-ca, verify-full; SQL Server: the same words map to Encrypt and TrustServerCertificate."""
    sslrootcert: Path | None = None
    sslcert: Path | None = None
    """PostgreSQL, MySQL: the client's certificate, PEM."""
    sslkey: Path | None = None
    """PostgreSQL, MySQL: the key of the client's certificate, PEM."""
    sslpassword: Secret | None = None
    """PostgreSQL, MySQL: the passphrase of that key."""
    service: str = ""
    """PostgreSQL: a section of the service file, which may have host, database, username and more."""
    service_file: Path | None = None
    """PostgreSQL: the service file; None: PGSERVICEFILE, or the one of the account."""
    passfile: Path | None = None
    """PostgreSQL: a file of passwords; None: PGPASSFILE, or the .pgpass of the account."""
    target_session_attrs: SessionAttributes = ""
    """PostgreSQL: which of several hosts is taken."""
    authentication: EntraMethod = ""
    """SQL Server: how to log in with Entra; empty: with username and password, or as the Windows account without a username."""
    multi_subnet_failover: bool = False
    """SQL Server: the host is the listener of an availability group."""
    application_intent: ApplicationIntent = ""
    """SQL Server: which replica is asked for; empty: ReadOnly, with `allow_writes` ReadWrite."""
    dsn: str = ""
    """Oracle: a TNS alias, a full descriptor or an Easy Connect string, in place of host and service; ODBC: a data source."""
    config_dir: Path | None = None
    """Oracle: the folder of tnsnames.ora and sqlnet.ora."""
    wallet_location: Path | None = None
    """Oracle: the folder of the wallet, for TLS with a client certificate or an external password store."""
    wallet_password: Secret | None = None
    proxy_user: str = ""
    """Oracle: the account whose rights the session has after `username` has logged in."""
    client_dir: Path | None = None
    """Oracle: the folder of the Instant Client, for `thick`."""
    server_type: ServerType = ""
    """Oracle: pooled takes a server of the resident connection pool (DRCP)."""
    options: Mapping[str, Option] = field(default_factory=dict)
    """Further settings of the driver, by their own names. Those that would undo a protection are refused."""
    driver: str = ""
    """SQL Server, ODBC: name or path of the ODBC driver; empty: for SQL Server the newest installed one."""
    dialect: str = ""
    """ODBC: whose SQL it is, a `db_type`; empty: standard SQL, without settings of the session."""
    thick: bool = False
    """Oracle: thick mode, for servers older than 12.1."""
    allow_writes: bool = False
    connect_timeout_s: float = 15.0
    statement_timeout_s: float | None = None
    """PostgreSQL, SQLite: the whole statement; Oracle, SQL Server (in whole seconds): each wait for the server."""
    read_timeout_s: float = READ_TIMEOUT_S
    """How long a server may not respond, in seconds, if `statement_timeout_s` sets no limit."""


SecurityProtocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
SaslMechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "GSSAPI", "OAUTHBEARER"]
Compression = Literal["none", "gzip", "snappy", "lz4", "zstd"]
LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]


@dataclass(frozen=True, slots=True)
class SchemaRegistry:
    """A schema registry with Confluent's REST API, its secrets resolved."""

    url: str
    username: str = ""
    """Basic authentication; empty: none."""
    password: Secret | None = None
    bearer_token: Secret | None = None
    ssl_cafile: Path | None = None
    """None: the certificates that this system trusts."""
    ssl_certfile: Path | None = None
    """The client's own certificate, with `ssl_keyfile`."""
    ssl_keyfile: Path | None = None
    ssl_key_password: Secret | None = None
    auto_register: bool = True
    """Whether a run registers a new schema that is compatible; False: it has to be registered before."""
    timeout_s: float = 10.0
    """For connecting, and for each answer."""

    @property
    def place(self) -> str:
        """Its address, for messages."""
        parts = urlsplit(self.url)
        return f"{parts.netloc.rpartition('@')[2]}{parts.path}".rstrip("/")


@dataclass(frozen=True, slots=True)
class Cluster:
    """One Kafka cluster and the client's settings for it.

    Each setting is resolved: job > connections.json > environment > .env > default.
    """

    name: str
    bootstrap_servers: str
    security_protocol: SecurityProtocol = "PLAINTEXT"
    sasl_mechanism: SaslMechanism | None = None
    sasl_username: str | None = None
    sasl_password: Secret | None = None
    ssl_cafile: Path | None = None
    ssl_certfile: Path | None = None
    ssl_keyfile: Path | None = None
    ssl_key_password: Secret | None = None
    """Of the key in `ssl_keyfile`, or of the key in a JKS keystore that has a password of its own."""
    ssl_keystore_location: Path | None = None
    """JKS or PKCS#12 with client certificate and key, in place of `ssl_certfile` and `ssl_keyfile`."""
    ssl_keystore_password: Secret | None = None
    ssl_truststore_location: Path | None = None
    """JKS or PKCS#12 with the authorities, in place of `ssl_cafile`."""
    ssl_truststore_password: Secret | None = None
    sasl_kerberos_service_name: str = "kafka"
    """First part of the brokers' principal: `kafka` in `kafka/broker-1.example.com@EXAMPLE.COM`."""
    sasl_kerberos_keytab: Path | None = None
    """GSSAPI; None: the ticket that the account of this process has."""
    sasl_kerberos_principal: str | None = None
    sasl_oauthbearer_token_endpoint_url: str | None = None
    sasl_oauthbearer_client_id: str | None = None
    sasl_oauthbearer_client_secret: Secret | None = None
    sasl_oauthbearer_scope: str | None = None
    sasl_oauthbearer_extensions: str | None = None
    """`name=value,name=value`, sent to the broker with the token."""
    sasl_oauthbearer_cafile: Path | None = None
    """Authority of the token endpoint; None: those of the system."""
    sasl_oauthbearer_token: Secret | None = None
    """The token itself, in place of an endpoint."""
    client_id: str = "pstt-kafka"
    """How the brokers' logs and quotas name this client."""
    client_rack: str | None = None
    """Rack of this machine: topics are read from the nearest replica."""
    client_options: tuple[tuple[str, str | int | float | bool], ...] = ()
    """Further settings of the client, by its own names."""
    default_topic: str = "pstt-data"
    client: str = "aiokafka"
    """A name of the registry `core.kafka.clients`."""
    compression_type: Compression = "snappy"
    batch_size_bytes: int = 16384
    linger_ms: int = 10
    max_request_size_bytes: int = 1_048_576
    request_timeout_ms: int = 30_000
    """How long the client waits for a response, and for a first broker."""
    delivery_timeout_ms: int = 30_000
    """How long the client itself retries one message (PSTT_DELIVERY_TIMEOUT_MS)."""
    enable_idempotence: bool = True
    retry_backoff_ms: int = 100
    """First wait between the client's own retries; it doubles up to four times this."""
    max_in_flight_requests: int = 5
    max_retries: int = 3
    """How often a batch is published again after the client gave up (KAFKA_MAX_RETRIES)."""
    message_batch_size: int = 100
    log_level: LogLevel = "INFO"
    mock_brokers: int = 0
    """More than 0: this process starts a mock cluster (demo), and bootstrap_servers is ignored."""
    kept_in: Path | None = None
    """Folder that keeps the messages of mock brokers from one process to the next; None: they end with the process."""
    schema_registry: SchemaRegistry | None = None
    """None: its messages are JSON without a schema."""


@dataclass(frozen=True, slots=True)
class Destination:
    """The cluster that messages were sent to; a text is empty if it is not known."""

    cluster: str = ""
    """Its name at that time."""
    cluster_id: str = ""
    """The cluster's own id, which is the same under another name or address."""
    bootstrap_servers: str = ""
    """Its addresses at that time."""
