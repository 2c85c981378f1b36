"""The things this product is about, and the two seams where technologies plug in.

Nothing here opens a file, a connection or a clock. What travels in the hot path (`Rows`, `Batch`,
`Delivery`) holds columns of values, not one object per row: an object per row costs as much as
turning the row into JSON.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Protocol

from core.errors import PsttError

__all__ = [
    "Batch",
    "Cluster",
    "Column",
    "CsvDialect",
    "DatabaseConnection",
    "Delivery",
    "Destination",
    "EmailNotification",
    "Expect",
    "Fact",
    "Job",
    "KafkaConfig",
    "Kind",
    "LiteralText",
    "LogSpan",
    "Parameter",
    "ParameterValue",
    "PartitionRange",
    "Plan",
    "Publisher",
    "Query",
    "Reading",
    "RowRange",
    "Rows",
    "Run",
    "RunFile",
    "Secret",
    "Source",
    "Step",
    "TopicInfo",
    "TopicState",
    "Unlike",
    "Value",
    "Verification",
]

DbType = Literal["oracle", "sqlserver", "postgresql", "sqlite"]
ExportFormat = Literal["kafka", "excel", "csv"]
SchedulingMode = Literal["cron", "interval", "manual"]
CatchUp = Literal["none", "latest", "all"]
Overlap = Literal["skip", "queue"]
DeliveryGuarantee = Literal["at_least_once", "exactly_once"]
VerifyMode = Literal["none", "count", "full"]
VerifyAnswer = Literal["complete", "missing", "other_content", "duplicates", "not_verifiable"]
OnBadRow = Literal["reject", "fail"]
OnNullKey = Literal["reject", "send", "fail"]
OnDrift = Literal["stop", "warn", "ignore"]
DecimalForm = Literal["number", "string", "float"]
ParameterValue = str | tuple[str, ...]
"""What a job gives to a parameter: a text, which may be a list such as `N,S`, or a list."""
TypeOverride = Literal["date", "datetime", "string", "integer", "decimal", "base64", "json"]

RunState = Literal["planned", "running", "succeeded", "partial", "failed", "cancelled", "skipped", "interrupted"]
Verdict = Literal[
    "planned",
    "running",
    "complete",
    "complete_with_rejects",
    "partial",
    "failed",
    "cancelled",
    "skipped",
    "interrupted",
]
"""What people see of a run's state: a success is complete, or complete with rejects (`core.model.verdict` has the words)."""

# What a column holds, whatever the database calls it. The envelope knows one JSON form for each.
#
# kind         values a source may hand over (None always may)
# integer      int
# decimal      Decimal, int, or str with the exact digits ("-12.50", also "NaN", "Infinity")
# float        float (NaN and infinities too: the envelope rejects them)
# date         date, or ISO text "YYYY-MM-DD" (also out-of-range text such as "infinity": rejected)
# oracle_date  naive datetime: a date that carries a time
# datetime     naive datetime, or ISO text with a space or T between date and time
# datetime_tz  aware datetime, or ISO text with an offset
# time         time, or ISO text; with an offset where the type has one
# interval     timedelta, (years, months) of Oracle, or ISO 8601 text "P1Y2MT3.5S"
# text         str
# char         str, padded as the database gave it
# bytes        bytes
# json         str or bytes of JSON text, which is looked at once, or a Python structure
# array        list, nested lists included; the elements are of `Column.element`
# boolean      bool
# unknown      anything: only str, int and bool pass, the rest is rejected with its type named
Kind = Literal[
    "integer",
    "decimal",
    "float",
    "date",
    "oracle_date",
    "datetime",
    "datetime_tz",
    "time",
    "interval",
    "text",
    "char",
    "bytes",
    "json",
    "array",
    "boolean",
    "unknown",
]

# A value bound to a statement.
Value = str | int | float | datetime | None | Any


# ── where things are ──────────────────────────────────────────────────────────────────────────


class Secret:
    """A value that shows itself only when asked: `str`, `repr`, logging and pickling give `***`."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The value itself, for the one call that hands it to a driver."""
        return self._value

    def __repr__(self) -> str:
        return "***"

    def __reduce__(self) -> tuple[Any, ...]:
        return (Secret, ("***",))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)


@dataclass(frozen=True, slots=True)
class DatabaseConnection:
    """One entry of `connections` in connections.json, its secret resolved."""

    name: str
    db_type: DbType
    environment: str = ""
    host: str = ""
    port: int | None = None
    database: str = ""
    """Database name; for sqlite the path of the file, absolute or below the workspace (already resolved)."""
    service_name: str = ""
    sid: str = ""
    username: str = ""
    password: Secret | None = None
    sslmode: str = ""
    """PostgreSQL: disable, require, verify-ca, verify-full; SQL Server: the same words map to Encrypt and TrustServerCertificate."""
    sslrootcert: Path | None = None
    driver: str = ""
    """SQL Server: name or path of the ODBC driver; empty: the newest installed one."""
    thick: bool = False
    """Oracle: thick mode, for servers older than 12.1."""
    allow_writes: bool = False
    connect_timeout_s: float = 15.0
    statement_timeout_s: float | None = None
    """PostgreSQL, SQLite: the whole statement; Oracle, SQL Server (there in whole seconds): each wait for the server."""
    read_timeout_s: float = 300.0
    """How long a server may say nothing while it is waited for, where `statement_timeout_s` does not say it."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """One Kafka cluster and how a client talks to it, every setting resolved (job > connections.json > environment > .env > default)."""

    name: str
    bootstrap_servers: str
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = None
    sasl_username: str | None = None
    sasl_password: Secret | None = None
    ssl_cafile: Path | None = None
    ssl_certfile: Path | None = None
    ssl_keyfile: Path | None = None
    default_topic: str = "pstt-data"
    client: Literal["confluent", "kafka-python-ng"] = "confluent"
    compression_type: Literal["none", "gzip", "snappy", "lz4", "zstd"] = "snappy"
    batch_size_bytes: int = 16384
    linger_ms: int = 10
    max_request_size_bytes: int = 1_048_576
    request_timeout_ms: int = 30_000
    """How long the client waits for an answer, and for a first broker."""
    delivery_timeout_ms: int = 30_000
    """How long the client itself tries to deliver one message, retries included (PSTT_DELIVERY_TIMEOUT_MS)."""
    enable_idempotence: bool = True
    retry_backoff_ms: int = 100
    """First wait between the client's own tries; it doubles up to four times this."""
    max_in_flight_requests: int = 5
    max_retries: int = 3
    """How often a batch is handed over again once the client gave up (KAFKA_MAX_RETRIES)."""
    message_batch_size: int = 100
    log_level: str = "INFO"
    mock_brokers: int = 0
    """More than 0: this process carries its own mock cluster (demo); bootstrap_servers is then ignored."""


# ── the job and its query ─────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Destination:
    """The cluster that messages really went to, as far as it is known; empty texts: it is not."""

    cluster: str = ""
    """Its name at that time."""
    cluster_id: str = ""
    """The cluster's own id, which no renaming and no other address changes."""
    bootstrap_servers: str = ""
    """Its addresses at that time."""


@dataclass(frozen=True, slots=True)
class KafkaConfig:
    """Where a job's messages go, and how each is made."""

    enabled: bool = True
    topic: str | None = None
    """None: the cluster's `default_topic`, else `KAFKA_DEFAULT_TOPIC`."""
    message_key_field: str | tuple[str, ...] | None = None
    """Column(s) that make the key; several are joined with the job's `key_separator`."""
    batch_size: int | None = None
    """Messages handed over, tracked and tried again together; None: `KAFKA_MESSAGE_BATCH_SIZE`."""
    include_metadata: bool = True
    cluster: str | None = None
    """A name of `kafka_connections`; None: the connection's environment decides."""


@dataclass(frozen=True, slots=True)
class CsvDialect:
    """How a CSV file is written. The defaults open by a double click in an Italian Excel."""

    separator: str = ";"
    decimal: str = ","
    encoding: str = "utf-8"
    bom: bool = True
    """Only with utf-8: Excel takes the file for another encoding without it."""
    quote_all: bool = False
    line_end: str = "\r\n"
    date_format: str = ""
    """strftime; empty: ISO 8601."""
    datetime_format: str = ""


@dataclass(frozen=True, slots=True)
class EmailNotification:
    """Who is told about a finished run."""

    on_success: bool = False
    on_failure: bool = True
    recipients: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RowRange:
    """How many rows a run should bring; None: no bound on that side."""

    min: int | None = None
    max: int | None = None


@dataclass(frozen=True, slots=True)
class Expect:
    """What a good day of a job looks like."""

    rows: RowRange = RowRange()
    learn: bool = True
    """Where `rows` has no number: the range that the runs of the same weekday and time had in the last eight weeks."""
    by: str | None = None
    """`HH:MM` in the job's time zone: a success has to be there by then each day."""


@dataclass(frozen=True, slots=True)
class Job:
    """One `*.job.json`: what is read, where it goes, when. `slug` is the file's name without `.job.json`."""

    slug: str
    name: str
    query: str
    """File name below `queries/`."""
    connection: str
    """A name in connections.json."""
    scheduling_mode: SchedulingMode = "manual"
    cron: str | None = None
    interval_s: int | None = None
    enabled: bool = True
    parameters: Mapping[str, ParameterValue] = field(default_factory=dict)
    """Parameter → value or template such as `{date-1}`; a tuple where the file has a JSON list."""
    export_format: ExportFormat = "kafka"
    output: str | None = None
    """excel and csv: the file's name below `exports/`, with templates."""
    csv: CsvDialect = CsvDialect()
    kafka_config: KafkaConfig = KafkaConfig()
    email_notification: EmailNotification = EmailNotification()
    timezone: str = "Europe/Rome"
    catch_up: CatchUp = "latest"
    max_catch_up: int = 31
    overlap: Overlap = "skip"
    timeout_s: float | None = None
    delivery: DeliveryGuarantee = "at_least_once"
    on_bad_row: OnBadRow = "reject"
    on_null_key: OnNullKey = "reject"
    max_rejects: int = 0
    """A run with at most so many rejects is still complete."""
    types: Mapping[str, TypeOverride] = field(default_factory=dict)
    decimals: DecimalForm = "number"
    key_separator: str = "|"
    headers: Mapping[str, str] = field(default_factory=dict)
    verify_count: bool = False
    verify: VerifyMode = "none"
    """What is read back from the topic after each run: `count` the number of its messages, `full` their keys and ids too."""
    expect: Expect = Expect()
    on_drift: OnDrift = "stop"
    """What happens when the result has other columns or types than the runs before."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One `define` of an SQL file."""

    name: str
    """In capitals, as SQL*Plus compares them."""
    default: str
    """The value in the file. For a mandatory parameter it is only an example and is never used."""
    mandatory: bool
    description: str
    allowed: tuple[str, ...] = ()
    """The only values that may stand in an identifier position; empty: none may."""
    type: Literal["string", "integer", "decimal", "date", "datetime"] | None = None
    """Declared type; None: text inside quotes, else told from the value."""
    line: int = 1
    is_list: bool = False
    """`[list]`: several values, each bound for itself in `IN (&NAME)`."""


class LiteralText(str):
    """A text that is compared as the literal in its place would be.

    Oracle ignores blanks at the end of a CHAR column only if the other side is a CHAR too: `code = 'N'` finds
    `'N    '`, and `code = :P` with a VARCHAR2 bind finds nothing.
    """

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Step:
    """One statement as it reaches the driver: the text in the driver's own bind style, and the values."""

    sql: str
    binds: Mapping[str, Value] | tuple[Value, ...] = ()
    """A mapping for oracle (`:P1`) and sqlite (`:P1`) and postgresql (`%(P1)s`), a tuple for sqlserver (`?`)."""
    returns_rows: bool = True
    """False for a session setting (ALTER SESSION, SET …)."""
    line: int = 1
    """Where the statement begins in the file, from 1."""


@dataclass(frozen=True, slots=True)
class Query:
    """An SQL file with all its parameters given: the steps, in order. The last one that returns rows is the result."""

    name: str
    steps: tuple[Step, ...]
    values: Mapping[str, str]
    """Parameter → the resolved text that was bound; a list as `core.sql.values.join` writes it."""
    sha256: str
    """Hash of the file's bytes, in hex."""

    @property
    def sql_text(self) -> str:
        """The statements as they reach the driver, for people and for comparing."""
        return ";\n".join(step.sql for step in self.steps)


@dataclass(frozen=True, slots=True)
class Plan:
    """One run before it starts: everything that is decided, nothing that is open."""

    job: Job
    query: Query
    cluster: str
    """Name of the Kafka cluster, for people."""
    topic: str
    scheduled_at: datetime
    """Aware; parameters and message ids are computed from it."""
    batch_size: int
    """Messages a batch."""
    fetch_rows: int = 5000
    kind: Literal["job", "replay"] = "job"
    of_run: str | None = None
    """The run that a replay repeats."""
    repeat: str = ""
    """exactly_once: tells apart what is meant to be sent again; attempts of one such wish have the same. Empty: the first time."""
    skip_ids: frozenset[bytes] | None = None
    """Message ids that are acknowledged already and are not sent again; None: all are sent."""
    window_start: datetime | None = None
    """The fire before `scheduled_at`; None where the job has no calendar."""
    asked_by: str = ""
    fire_id: int | None = None
    """The planned fire that this run is for; None: it was started by hand."""
    job_sha256: str = ""
    """Hash of the job file as it was read; empty where it is not known."""
    expected: RowRange | None = None
    """How many rows are right; None: any number is."""
    expected_why: str = ""
    """Where `expected` comes from, for people."""
    is_altered: bool = False
    """Somebody gave parameters for this run alone: what is usual says nothing about its rows."""
    stop_timeout_s: float = 30.0
    control_topic: str = "pstt-control"
    log_payload: bool = False
    """KAFKA_LOG_PAYLOAD: what could not be sent goes into the log, at level DEBUG, with its content."""
    output: str | None = None
    """excel and csv: the file's name below `exports/`."""
    to_cluster: Cluster | None = None
    """Where a replay goes; None: to the cluster of its job."""


@dataclass(frozen=True, slots=True)
class PartitionRange:
    """What a run left on one partition. Other writers' records may lie between first and last."""

    topic: str
    partition: int
    first_offset: int
    last_offset: int
    count: int


@dataclass(frozen=True, slots=True)
class RunFile:
    """A file that a run has written."""

    path: str
    """Below the workspace, with slashes."""
    rows: int
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Unlike:
    """A message that is not on the topic as it was sent, or is there once more."""

    problem: Literal["missing", "other_content", "duplicate"]
    partition: int
    offset: int
    key: str | None


@dataclass(frozen=True, slots=True)
class Verification:
    """What reading a run's messages back found."""

    run_id: str
    checked_at: datetime
    mode: VerifyMode
    answer: VerifyAnswer
    acknowledged: int
    found: int
    """Messages that are on the topic as they were sent."""
    missing: int = 0
    other_content: int = 0
    """Another message has the offset."""
    duplicates: int = 0
    """Messages of the run that are there once more, between its first and last offset."""
    not_verifiable: int = 0
    """Messages that cannot be looked for any more."""
    reason: str = ""
    """Why some are not verifiable."""
    listed: tuple[Unlike, ...] = ()
    """The first of those that are not as they should be."""
    duration_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Run:
    """One run as the ledger knows it."""

    run_id: str
    kind: str
    job: str
    job_name: str
    connection: str
    cluster: str
    topic: str
    query: str
    scheduled_at: datetime
    window_start: datetime | None
    timezone: str
    attempt: int
    of_run: str | None
    asked_by: str
    parameters: Mapping[str, str]
    sql_sha256: str
    sql_text: str
    state: RunState
    started_at: datetime
    finished_at: datetime | None
    rows_read: int
    rows_counted: int | None
    sent: int
    """Messages handed to the client at least once."""
    acknowledged: int
    rejected: int
    failed: int
    retried: int
    """Messages handed over more than once."""
    bytes: int
    """Key and value bytes of the acknowledged messages."""
    duration_s: float
    latency_avg_ms: float | None
    latency_p50_ms: float | None
    latency_p90_ms: float | None
    latency_p99_ms: float | None
    error_class: str | None
    error_text: str | None
    error_remedy: str | None
    error_retriable: bool | None
    fire_id: int | None = None
    job_sha256: str = ""
    cancel_asked_at: datetime | None = None
    cancel_asked_by: str | None = None
    cluster_id: str = ""
    """The cluster's own id, which no renaming changes; empty where it is not known."""
    bootstrap_servers: str = ""
    """The cluster's addresses at the time of the run."""
    topic_id: str = ""
    """The topic's id (KIP-516): another one after the topic was deleted and made again; empty where it is not known."""
    max_rejects: int = 0
    """How many rejects the job called green at the time of the run."""
    warnings: tuple[str, ...] = ()
    """What a person should know of a run that is not wrong for it."""
    partitions: tuple[PartitionRange, ...] = ()
    files: tuple[RunFile, ...] = ()
    verification: Verification | None = None
    """The newest, if any."""

    @property
    def verdict(self) -> Verdict:
        """The state as people see it: a success with more rejects than the job calls green is one with rejects."""
        if self.state != "succeeded":
            return self.state
        return "complete" if self.rejected <= self.max_rejects else "complete_with_rejects"

    @property
    def is_balanced(self) -> bool:
        """Whether it came to a good end with every row read acknowledged or rejected; never while it runs."""
        return self.state == "succeeded" and not self.unaccounted

    @property
    def unaccounted(self) -> int:
        """Rows read that are neither acknowledged nor rejected, as far as the run came."""
        return self.rows_read - self.acknowledged - self.rejected

    @property
    def is_file(self) -> bool:
        """Whether its rows are written into a file and not sent to a topic; so it is too where no file came of it."""
        return not self.topic

    @property
    def rate_per_s(self) -> float:
        """Rows a second over the whole run."""
        return self.rows_read / self.duration_s if self.duration_s else 0.0


# ── rows on their way ─────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a result."""

    name: str
    """As the database spells it."""
    kind: Kind
    database_type: str
    """For people: `NUMBER(10,2)`, `timestamptz`."""
    element: Kind | None = None
    """Kind of the elements where kind is array."""
    refusal: str = ""
    """Why no value of this column may be sent, with the SQL to write instead; empty: it may."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows that were fetched together."""

    first_row: int
    """Number of `rows[0]` in the result, from 1."""
    rows: Sequence[Sequence[Any]]
    extracted_at: datetime


class Reading(Protocol):
    """One result being read. Closing it, also early, gives the connection back in a clean state."""

    columns: tuple[Column, ...]
    counted: int | None
    """COUNT(*) over the same statement in the same snapshot, where it was asked for."""

    def __iter__(self) -> Iterator[Rows]:
        """Yields the rows in the query's order; holds no more than two fetches in memory.

        Raises:
            QueryFailed: The database stopped in the middle; what was yielded is not the whole result.
            RunCancelled: `Source.cancel` was called.
        """
        ...


@dataclass(frozen=True, slots=True)
class Fact:
    """One line of a test of a server."""

    status: Literal["pass", "warn", "fail"]
    subject: str
    text: str
    remedy: str = ""
    unreachable: bool = False
    """The server did not answer, so that its files and rights could not even be looked at."""


CANCEL_S = 3.0
"""A server that answers at all has ended a statement by then."""


class Source(Protocol):
    """One database, for one run at a time. Implementations: `core.sources`.

    Every foreign exception is translated at this seam; SourceUnavailable and QueryFailed name the
    connection and carry the database's own text without secrets.
    """

    name: str
    db_type: DbType

    def read(
        self, steps: Sequence[Step], *, fetch_rows: int = 5000, count: bool = False
    ) -> AbstractContextManager[Reading]:
        """Runs all steps on one connection, in one snapshot, in a read-only session where there is one.

        With `allow_writes`, what the steps wrote is committed once the last row was read and the reader ended
        without an exception; else it is undone.

        Args:
            steps: At least one that returns rows; the last of these is the result, earlier results are discarded.
            fetch_rows: Rows a fetch.
            count: Also count the result in the same snapshot, before the first row.

        Raises:
            SourceUnavailable: Not reachable, or lost before the first row; try later.
            NotAuthorised: The server said no to this account.
            QueryFailed: The server refused a statement; fix it.
        """
        ...

    def cancel(self, within_s: float = CANCEL_S) -> None:
        """Stops the statement that runs, in the server too. Safe from another thread, and when nothing runs.

        It ends one `read`: the one that is open, else the next one, with RunCancelled; the source is usable after it.

        Args:
            within_s: How long the server may take to end it, in seconds; then its connection is given up.
        """
        ...

    def check(self) -> list[Fact]:
        """Reaches the server and says what was found: version, account, may it write? Never raises PsttError."""
        ...

    def close(self) -> None:
        """Closes every connection. May be called twice."""
        ...


# ── messages on their way ─────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Batch:
    """Messages that are handed over, tracked and tried again together. All lists have the same length."""

    number: int
    """From 1, in the run."""
    topic: str
    keys: list[bytes | None]
    values: list[bytes]
    message_ids: list[bytes]
    """ASCII hex; sent as header `message_id`."""
    row_numbers: Sequence[int]
    headers: tuple[tuple[str, bytes], ...] = ()
    """The other headers, the same for each message."""

    def __len__(self) -> int:
        return len(self.values)


@dataclass(slots=True, eq=False)
class Delivery:
    """What became of one batch; filled by the publisher while reports arrive.

    `partitions[i]` is -1 until message i is acknowledged. A message is in exactly one of three
    states: acknowledged (partition ≥ 0), failed (`i in errors`), or still under way.
    """

    batch: Batch
    partitions: array[int]
    offsets: array[int]
    latencies_ms: array[float]
    """Handing over to acknowledgement, in ms."""
    attempts: array[int]
    """1 for the first time a message is handed over."""
    handed_over_at_us: array[int]
    """Unix time of the last handing over, in µs."""
    errors: dict[int, PsttError] = field(default_factory=dict)
    went_back: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Partition → (offset acknowledged before, lower offset acknowledged then): its log was cut or made again."""
    pending: int = 0
    """Messages under way; 0 means the delivery is complete."""

    @classmethod
    def of(cls, batch: Batch) -> Delivery:
        """A delivery in which nothing has been handed over yet."""
        n = len(batch)
        return cls(
            batch,
            partitions=array("i", [-1]) * n,
            offsets=array("q", [-1]) * n,
            latencies_ms=array("d", [0.0]) * n,
            attempts=array("i", [0]) * n,
            handed_over_at_us=array("q", [0]) * n,
        )

    @property
    def acknowledged(self) -> int:
        """Messages the broker has confirmed."""
        return len(self.batch) - self.partitions.count(-1)


@dataclass(frozen=True, slots=True)
class TopicInfo:
    """One topic as the cluster describes it."""

    name: str
    partitions: int
    replication: int


@dataclass(frozen=True, slots=True)
class LogSpan:
    """The offsets that one partition holds at a moment."""

    earliest: int
    """Of the oldest record that is still there."""
    end: int
    """The one that the next record will get."""


@dataclass(frozen=True, slots=True)
class TopicState:
    """One topic at one moment; a text is empty where the client or the cluster does not tell it."""

    topic: str
    cluster_id: str = ""
    """The cluster's own id, which no renaming changes."""
    bootstrap_servers: str = ""
    """The addresses that the client was given."""
    topic_id: str = ""
    """KIP-516: another one after the topic was deleted and made again."""
    partitions: Mapping[int, LogSpan] = field(default_factory=dict)
    """Empty: the topic does not exist."""


class Publisher(Protocol):
    """One client of one cluster. Implementations: `core.kafka`.

    Not thread-safe: one run, one publisher. It never tries a batch again by itself once the client
    has given a message up; `core.kafka.sender` does that, above every client alike.
    """

    max_in_flight: int
    """Messages handed over and not yet reported, at most."""

    def publish(self, delivery: Delivery, indexes: Sequence[int] | None = None) -> None:
        """Hands messages of `delivery.batch` to the client; waits while the client's queue or `max_in_flight` is full.

        Sets attempts (+1) and handed_over_at_us, removes stale `errors` of these indexes, and raises
        `pending`. Reports fill the delivery during this and later calls. A message that the client
        refuses at once (too large) is put into `errors` and is not pending.

        Args:
            delivery: The batch and its state.
            indexes: The messages to hand over, from 0; None: all.

        Raises:
            BrokerUnavailable, NotAuthorised, TopicMissing: The client can do nothing more at all
                (fatal client error). Errors of single messages are never raised.
        """
        ...

    def publish_alone(self, delivery: Delivery, indexes: Sequence[int]) -> None:
        """Sends each message in a record batch of its own, so that the broker answers for each.

        For messages that were refused together with others (`BatchRefused`): a refusal is final here, a
        `MessageRefused`. As `publish`, at some 3,000 messages/s.
        """
        ...

    def fit(self, topic: str) -> None:
        """Makes smaller record batches from now on: just below the topic's limit, or half where that may not be asked for.

        Needs `in_flight == 0`, and no open transaction.
        """
        ...

    def poll(self, timeout_s: float) -> int:
        """Serves reports for at most that long and returns as soon as there was one; the number served."""
        ...

    @property
    def in_flight(self) -> int:
        """Messages handed over and not yet reported."""
        ...

    def give_up(self, timeout_s: float) -> None:
        """Drops what is still queued; after it every message has a report or a DeliveryTimeout in `errors`."""
        ...

    def prepare_once(self, control_topic: str) -> None:
        """Fences every earlier holder of the same transactional id, whose open transaction is aborted, and makes the control topic.

        Raises:
            ConfigError: This client, or these settings, have no transactions.
            BrokerUnavailable, NotAuthorised: As in `topics`.
        """
        ...

    def read_control(self, control_topic: str, keys: Collection[bytes]) -> Mapping[bytes, bytes]:
        """The newest committed value of each of these keys on the control topic; those that are there."""
        ...

    def begin(self) -> None:
        """Starts a transaction (fences earlier holders of the same id the first time). ConfigError where the client has none."""
        ...

    def commit(self) -> None:
        """Makes everything since `begin` visible at once. Needs `in_flight == 0`."""
        ...

    def abort(self) -> None:
        """Makes everything since `begin` invisible for ever to read_committed readers."""
        ...

    def topics(self, timeout_s: float = 10.0) -> list[TopicInfo]:
        """The topics this account may see.

        Raises:
            BrokerUnavailable, NotAuthorised: With the true cause: refused, unknown host, certificate, password.
        """
        ...

    def brokers(self, timeout_s: float = 10.0) -> list[str]:
        """`host:port` of every broker of the cluster, as the cluster itself names them; raises as `topics` does."""
        ...

    def require_topic(self, topic: str, timeout_s: float = 10.0) -> None:
        """Returns once the topic is known to exist, or the cluster would make it on first use.

        Raises:
            TopicMissing: It is not there and the cluster does not make topics.
            BrokerUnavailable, NotAuthorised: As in `topics`.
        """
        ...

    def describe(self, topic: str, timeout_s: float = 10.0) -> TopicState:
        """Ids of cluster and topic, and the offsets that each partition holds; 10 to 20 ms on a healthy cluster.

        It never makes the topic, except on librdkafka's mock brokers. kafka-python-ng and mock brokers give no topic id.

        Args:
            topic: One that this account may write to; a missing one has no partitions.
            timeout_s: For all of it; a partition whose leader is being elected is waited for.

        Raises:
            BrokerUnavailable, NotAuthorised: As in `topics`.
        """
        ...

    def close(self, timeout_s: float = 10.0) -> None:
        """Waits for reports at most that long, then lets go. May be called twice."""
        ...
