"""The content of a job file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from core.model.query import ParameterValue

__all__ = [
    "CloudEvents",
    "CsvDialect",
    "CursorKind",
    "EmailNotification",
    "Expect",
    "Incremental",
    "Job",
    "KafkaConfig",
    "NewTopic",
    "Partitioner",
    "Partitions",
    "RowRange",
    "SchemaOptions",
]
ExportFormat = Literal["kafka", "excel", "csv"]
SchedulingMode = Literal["cron", "interval", "manual"]
CatchUp = Literal["none", "latest", "all"]
Overlap = Literal["skip", "queue"]
DeliveryGuarantee = Literal["at_least_once", "exactly_once"]
VerifyMode = Literal["none", "count", "full"]
OnBadRow = Literal["reject", "fail"]
OnNullKey = Literal["reject", "send", "fail"]
OnDrift = Literal["stop", "warn", "ignore"]
PartitionBy = Literal["range", "hash"]
CursorKind = Literal["integer", "timestamp"]
MessageOrder = Literal["key", "none"]
DecimalForm = Literal["number", "string", "float"]
ValueFormat = Literal["json", "avro", "protobuf", "json_schema"]
KeyFormat = Literal["text", "json", "avro", "protobuf", "json_schema"]
EnvelopeKind = Literal["pstt", "none", "cloudevents", "connect"]
CloudEventsMode = Literal["binary", "structured"]
SubjectStrategy = Literal["topic", "record", "topic_record"]
TypeOverride = Literal["date", "datetime", "string", "integer", "decimal", "base64", "json"]
Partitioner = Literal["murmur2", "column", "fixed", "round_robin"]


@dataclass(frozen=True, slots=True)
class NewTopic:
    """How a job's topic is created if it does not exist, and what an existing one is compared with."""

    partitions: int
    replication: int | None = None
    """Replicas of each partition; None: the cluster's default, and not compared."""
    config: Mapping[str, str] = field(default_factory=dict)
    """Settings of the topic, such as `retention.ms`; the others are the cluster's defaults, and not compared."""


@dataclass(frozen=True, slots=True)
class KafkaConfig:
    """Where a job's messages go, and how they are built."""

    enabled: bool = True
    topic: str | None = None
    """None: the cluster's `default_topic`, else `KAFKA_DEFAULT_TOPIC`."""
    message_key_field: str | tuple[str, ...] | None = None
    """Column(s) that make the key; several are joined with the job's `key_separator`."""
    batch_size: int | None = None
    """Messages published, tracked and retried together; None: `KAFKA_MESSAGE_BATCH_SIZE`."""
    include_metadata: bool = True
    cluster: str | None = None
    """A name of `kafka_connections`; None: the connection's environment decides."""
    create_topic: NewTopic | None = None
    """None: the topic exists, or the cluster creates it on first use."""
    partitioner: Partitioner = "murmur2"
    """Which partition a message goes to: by its key as Java's clients do; by `partition_field`; `partition`; or each in turn."""
    partition_field: str | tuple[str, ...] | None = None
    """Column(s) whose text is hashed instead of the key; several are joined with the job's `key_separator`."""
    partition: int | None = None
    """The partition of all messages."""
    timestamp_field: str | None = None
    """Column with the time of the record; None: when it is sent."""
    traceparent: bool = False
    """Each message carries the W3C trace context of its run as header `traceparent`, if traces are sent (OTEL_…)."""


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
    """Who is notified when a run has finished."""

    on_success: bool = False
    on_failure: bool = True
    recipients: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RowRange:
    """How many rows a run should have; None: no limit on that side."""

    min: int | None = None
    max: int | None = None


@dataclass(frozen=True, slots=True)
class Expect:
    """What is expected of a job each day."""

    rows: RowRange = RowRange()
    learn: bool = True
    """If `rows` has no number: expect the range of the runs of the same weekday and time in the last eight weeks."""
    by: str | None = None
    """`HH:MM` in the job's time zone: the time by which a run has to have succeeded each day."""


@dataclass(frozen=True, slots=True)
class SchemaOptions:
    """How the schemas of a job are named and where they come from; for every format but json and text."""

    name: str | None = None
    """Full name of the value's record, such as `it.example.Parcel`; None: `pstt.` and the name of the job's file."""
    subject: SubjectStrategy = "topic"
    """Subject in the registry: `TOPIC-value`, the record's full name, or `TOPIC-NAME`."""
    value_file: str | None = None
    """File below `queries/` with the schema of the row; None: it is derived from the columns of the result."""
    key_file: str | None = None
    """The same for the key."""


@dataclass(frozen=True, slots=True)
class CloudEvents:
    """The attributes of CloudEvents that the row does not give."""

    mode: CloudEventsMode = "binary"
    """`binary`: attributes are headers, the value is the row. `structured`: all is one JSON object."""
    source: str | None = None
    """A URI reference; None: `/pstt/CONNECTION/QUERY`."""
    type: str | None = None
    """None: `pstt.` and the name of the job's file."""


@dataclass(frozen=True, slots=True)
class Partitions:
    """How a job's query is split into parts that are read and sent at the same time."""

    column: str
    """A column of the result; its name compares in any case."""
    count: int
    """The number of parts; 1: the query is not split."""
    by: PartitionBy = "range"
    """`range`: ranges of a number, a date or a time, with the same number of rows each. `hash`: the database's hash of any column."""


DELAY_S = 60.0
"""Default delay of a cursor of timestamps."""


@dataclass(frozen=True, slots=True)
class Incremental:
    """How each run of a job reads only the rows that came after those of the run before."""

    column: str
    """The cursor: a column of the result whose value is higher in every new row; its name compares in any case."""
    kind: CursorKind
    start: int | str | None = None
    """The first run reads the rows above it; None: all rows. A time without an offset is in `timezone`."""
    delay_s: float | None = None
    """Only timestamp: rows younger than this are left to a later run, since others may still be committed before them.

    None: 60.
    """
    tie_column: str | None = None
    """A column of numbers that orders rows with an equal cursor; None: equal values are read together."""
    look_back_s: float = 0.0
    """Only timestamp: how far before the watermark late rows are looked for; what was sent already is left out."""
    timezone: str = "UTC"
    """The zone of a column without an offset."""
    count_nulls: bool = True
    """Whether each run counts the rows whose cursor is NULL, which no run reads."""

    @property
    def lag_s(self) -> float:
        """The delay in force, in seconds; 0 for integers."""
        if self.kind == "integer":
            return 0.0
        return DELAY_S if self.delay_s is None else self.delay_s


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
    """A run with at most this many rejects is complete."""
    keep_sends_days: int | None = None
    """Days for which its single sends are kept; 0: for ever; None: PSTT_KEEP_SENDS_DAYS."""
    types: Mapping[str, TypeOverride] = field(default_factory=dict)
    decimals: DecimalForm = "number"
    key_separator: str = "|"
    headers: Mapping[str, str] = field(default_factory=dict)
    """Name → text, in which `{COLUMN}` is the value of that column."""
    value_format: ValueFormat = "json"
    """Every other one needs the `schema_registry` of its cluster."""
    key_format: KeyFormat = "text"
    envelope: EnvelopeKind = "pstt"
    """What is around the row: `data` and `metadata`; nothing; the attributes of CloudEvents 1.0; or Kafka Connect's schema and payload."""
    null_value_when: str | None = None
    """Condition on columns, such as `DELETED = 'Y'`: rows for which it is true are sent as tombstones, key and no value."""
    schemas: SchemaOptions = SchemaOptions()
    cloudevents: CloudEvents = CloudEvents()
    verify_count: bool = False
    verify: VerifyMode = "none"
    """What is read back from the topic after each run: `count` the number of its messages, `full` their keys and ids too."""
    expect: Expect = Expect()
    on_drift: OnDrift = "stop"
    """What happens if the result has other columns or types than in the runs before."""

    partitions: Partitions | None = None
    """None: one process reads and sends all rows."""
    incremental: Incremental | None = None
    """None: each run reads all rows of the query."""
    order: MessageOrder = "key"
    """`none`: the messages of one key may arrive in another order than the query gives them."""

    @property
    def needs_registry(self) -> bool:
        """Whether its keys or its values carry the id of a schema."""
        return self.export_format == "kafka" and not (
            self.value_format == "json" and self.key_format in ("text", "json")
        )

    @property
    def is_scheduled(self) -> bool:
        """Whether its calendar starts it: it is enabled and not manual."""
        return self.enabled and self.scheduling_mode != "manual"
