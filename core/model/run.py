"""One run: its plan, its counts, its verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from core.model.connection import Cluster
from core.model.job import Job, RowRange, VerifyMode
from core.model.query import Query

__all__ = ["PartitionRange", "Plan", "Reject", "Run", "RunFile", "Verification", "VerificationProblem"]


@dataclass(frozen=True, slots=True)
class Reject:
    """A row that cannot become a message, and why."""

    row_number: int
    column: str
    database_type: str
    reason: str
    key: str | None = None
    row: Mapping[str, str | None] | None = None
    """The row as text, for the person who has to fix it."""


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
"""What people see of a run's state: a success is complete, or complete with rejects (`core.model.verdict` has the words)."""


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
    """exactly_once: distinguishes what is sent again on purpose; attempts of one such request have the same. Empty: the first time."""
    skip_ids: frozenset[bytes] | None = None
    """Message ids that are acknowledged already and are not sent again; None: all are sent."""
    window_start: datetime | None = None
    """The scheduled time before `scheduled_at`; None if the job has no calendar."""
    asked_by: str = ""
    scheduled_run_id: int | None = None
    """The scheduled run that this run is for; None: it was started by hand."""
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
class VerificationProblem:
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
    listed: tuple[VerificationProblem, ...] = ()
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
