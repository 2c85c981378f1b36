"""One run: its plan, its counts, its verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from core.model.connection import Cluster
from core.model.job import Job, RowRange, VerifyMode
from core.model.query import Query
from core.model.window import RunWindow, Window

__all__ = ["PartitionRange", "Plan", "Reject", "Run", "RunFile", "RunPart", "Verification", "VerificationProblem"]


@dataclass(frozen=True, slots=True)
class Reject:
    """A row that cannot become a message, and why."""

    row_number: int
    column: str
    database_type: str
    reason: str
    key: str | None = None
    row: Mapping[str, str | None] | None = None
    """The row as text, for the user who has to fix it."""

    @property
    def content(self) -> str:
        """The row and the reason as one text, to recognise it in another run; empty: the row is not known."""
        return repr((sorted(self.row.items()), self.column, self.reason)) if self.row else ""


VerifyAnswer = Literal["complete", "missing", "other_content", "duplicates", "not_verifiable"]

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
"""A run's state as users see it: a success is complete, or complete with rejects (`core.model.verdict` has the words)."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One run before it starts: everything is decided, nothing is open."""

    job: Job
    query: Query
    cluster: str
    """Name of the Kafka cluster, for display."""
    topic: str
    scheduled_at: datetime
    """Aware; parameters and message ids are computed from it."""
    batch_size: int
    """Messages per batch."""
    fetch_rows: int = 5000
    kind: Literal["job", "replay"] = "job"
    of_run: str | None = None
    """The run that a replay repeats."""
    repeat: str = ""
    """exactly_once: identifies what is sent again on purpose; all attempts of one such request have the same.

    Empty: the first time.
    """
    skip_ids: frozenset[bytes] | None = None
    """Ids of messages that are acknowledged already and are not sent again; None: all are sent."""
    only_keys: frozenset[bytes] = frozenset()
    """The keys, as text, of the rows that a replay sends; empty: all are sent."""
    window: Window | None = None
    """Incremental job: which rows it reads, decided when the run begins; None: all."""
    window_start: datetime | None = None
    """The scheduled time before `scheduled_at`; None if the job has no calendar."""
    asked_by: str = ""
    scheduled_run_id: int | None = None
    """The scheduled run that this run belongs to; None: it was started by hand."""
    is_backfill: bool = False
    """It belongs to a backfill: it may run beside runs of the same job for other scheduled times."""
    job_sha256: str = ""
    """Hash of the job file as it was read; empty if it is not known."""
    expected: RowRange | None = None
    """How many rows are expected; None: any number."""
    expected_why: str = ""
    """Where `expected` comes from, for display."""
    is_altered: bool = False
    """The caller gave parameters for this run only, so its number of rows cannot be compared with other runs."""
    is_ad_hoc: bool = False
    """These parameters have other values than the job's own, so that other rows are read: see `Run.is_ad_hoc`."""
    stop_timeout_s: float = 30.0
    control_topic: str = "pstt-control"
    log_payload: bool = False
    """KAFKA_LOG_PAYLOAD: messages that could not be sent are logged at level DEBUG with their content."""
    output: str | None = None
    """excel and csv: the file's name below `exports/`."""
    value_schema: str = ""
    """The text of the job's `schemas.value_file`; empty: it has none."""
    key_schema: str = ""
    to_cluster: Cluster | None = None
    """Where a replay is sent; None: to the cluster of its job."""

    @property
    def is_whole(self) -> bool:
        """Whether all rows of the query are sent, so that their number can be compared with that of other runs."""
        return self.skip_ids is None and not self.only_keys


@dataclass(frozen=True, slots=True)
class PartitionRange:
    """The offsets of a run on one partition. Records of other producers may be between first and last."""

    topic: str
    partition: int
    first_offset: int
    last_offset: int
    count: int


PartState = Literal["waiting", "reading", "sending", "committing", "succeeded", "failed", "cancelled", "lost"]


@dataclass(frozen=True, slots=True)
class RunPart:
    """One part of a partitioned run."""

    part: int
    """From 1."""
    state: PartState = "waiting"
    """`lost`: its process ended without a result."""
    attempt: int = 1
    """From 1; a lost part is repeated."""
    worker: str = ""
    """Where it runs or ran."""
    rows_read: int = 0
    acknowledged: int = 0
    rejected: int = 0
    duration_s: float = 0.0
    error: str = ""
    """Empty: none."""


@dataclass(frozen=True, slots=True)
class RunFile:
    """A file that a run has written."""

    path: str
    """Path below the workspace, with slashes."""
    rows: int
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class VerificationProblem:
    """A message that is not on the topic as it was sent, or is there twice."""

    problem: Literal["missing", "other_content", "duplicate"]
    partition: int
    offset: int
    key: str | None


@dataclass(frozen=True, slots=True)
class Verification:
    """The result of reading a run's messages back from the topic."""

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
    """Messages of the run that occur again between its first and last offset."""
    not_verifiable: int = 0
    """Messages that can no longer be read back."""
    reason: str = ""
    """Why some are not verifiable."""
    listed: tuple[VerificationProblem, ...] = ()
    """The first messages that are missing, different or duplicate."""
    duration_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Run:
    """One run as the ledger has it."""

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
    """Messages passed to the client at least once."""
    acknowledged: int
    rejected: int
    failed: int
    retried: int
    """Messages published more than once."""
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
    scheduled_run_id: int | None = None
    job_sha256: str = ""
    cancel_asked_at: datetime | None = None
    cancel_asked_by: str | None = None
    cluster_id: str = ""
    """The cluster's own id, which is the same under another name; empty if it is not known."""
    bootstrap_servers: str = ""
    """The cluster's addresses at the time of the run."""
    topic_id: str = ""
    """The topic's id (KIP-516), which changes if the topic is deleted and created again; empty if it is not known."""
    max_rejects: int = 0
    """How many rejects the job allowed in a complete run, at the time of the run."""
    warnings: tuple[str, ...] = ()
    """Messages for the user about a run that is not wrong."""
    arrived_before: int = 0
    """Replay of what is missing: rows that it left out, because earlier runs of its scheduled time had sent them."""
    is_ad_hoc: bool = False
    """It read other rows than the calendar asks for, so it decides nothing about its scheduled time."""
    partitions: tuple[PartitionRange, ...] = ()
    files: tuple[RunFile, ...] = ()
    parts: tuple[RunPart, ...] = ()
    """The parts of a partitioned run; empty: it is not partitioned."""
    verification: Verification | None = None
    """The newest, if any."""
    increment: RunWindow | None = None
    """Incremental job: which rows it has read; None: all, or it has not asked its database."""

    @property
    def verdict(self) -> Verdict:
        """The state as users see it: a success with more rejects than the job allows is one with rejects."""
        if self.state != "succeeded":
            return self.state
        return "complete" if self.rejected <= self.max_rejects else "complete_with_rejects"

    @property
    def is_balanced(self) -> bool:
        """Whether it succeeded with every row read either acknowledged or rejected; never while it runs."""
        return self.state == "succeeded" and not self.unaccounted

    @property
    def unaccounted(self) -> int:
        """Rows read that are neither acknowledged nor rejected so far."""
        return self.rows_read - self.acknowledged - self.rejected

    @property
    def is_file(self) -> bool:
        """Whether its rows are written to a file and not sent to a topic; also true if the file was not written."""
        return not self.topic

    @property
    def rate_per_s(self) -> float:
        """Rows per second over the whole run."""
        return self.rows_read / self.duration_s if self.duration_s else 0.0
