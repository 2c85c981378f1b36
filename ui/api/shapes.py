"""Bodies and responses of the REST interface. Jobs have the shape of `core.workspace.job_schema`."""

from __future__ import annotations

from contextlib import suppress
from datetime import date, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from core.model.progress import RunStep
from core.model.run import RunState, Verdict
from core.records.backfills import BackfillOrder, BackfillState
from core.records.requests import RequestState
from core.workspace.job_schema import JobShape, Topic


class TakenBody(BaseModel):
    """A request body; an unknown key is refused."""

    model_config = ConfigDict(extra="forbid", strict=True)


class SendShape(TakenBody):
    """One message by hand."""

    topic: Annotated[Topic, Field(examples=["pstt-traces"])]
    key: Annotated[str, Field(max_length=100_000, examples=["572680001120"])]
    value: Any = Field(
        description="Text is sent as it is, anything else as JSON.", examples=[{"data": {"barcode": "572680001120"}}]
    )
    cluster: Annotated[str | None, Field(description="A name of kafka_connections; none: default_environment.")] = None


class TestShape(TakenBody):
    """Which cluster is tested."""

    __test__ = False  # not a test of pytest

    cluster: str | None = Field(None, description="A name of kafka_connections; none: default_environment.")


class RunShape(TakenBody):
    """How a run differs from the one that the calendar would start now."""

    at: Annotated[
        str | None,
        Field(
            description="Scheduled time, ISO 8601; without an offset in the job's time zone; none: the newest one of its calendar.",
            examples=["2026-01-17T02:00"],
        ),
    ] = None
    parameters: dict[str, str | list[str]] = Field(
        {},
        description="Parameter → value or template; for a parameter marked [list] several, as a list or with commas between.",
        examples=[{"DATA": "2026-01-16", "STATI": ["N", "S"]}],
    )
    again: bool = Field(
        default=False,
        description="Also where this scheduled time was sent: readers see its messages again. Without it: 409.",
    )
    dry_run: bool = Field(
        default=False,
        description="Reads every row and makes every message, and sends nothing: the request's answer says what it found.",
    )


class BackfillShape(TakenBody):
    """What of one job is sent: a range of days, or all rows of an incremental job after a value."""

    model_config = ConfigDict(extra="forbid", strict=True, populate_by_name=True)

    job: str = Field(description="Its id.", max_length=300, examples=["export-cdg-tracce"])
    first: str | None = Field(
        None, alias="from", description="The first day, in the job's time zone.", examples=["2026-01-01"]
    )
    last: str | None = Field(None, alias="to", description="The last day, included.", examples=["2026-01-31"])
    from_value: str | None = Field(
        None,
        min_length=1,
        max_length=200,
        description="Instead of days: one run sends all rows of an incremental job after this number or time, as "
        "`PUT …/watermark` sets it. It needs the right to change jobs.",
        examples=["2026-01-17T02:00:00"],
    )
    why: str = Field("", max_length=1_000, description="With `from_value`: the reason, for the audit trail.")
    again: bool = Field(default=False, description="Also times that have a succeeded run: readers see them again.")
    parallel: int = Field(default=1, description="Most runs at once, up to PSTT_BACKFILL_WORKERS.", examples=[4])
    order: BackfillOrder = Field(default="oldest", description="Which scheduled time is first.")


class Sent(BaseModel):
    """Where an acknowledged message is stored."""

    topic: str = Field(examples=["pstt-traces"])
    partition: int = Field(examples=[2])
    offset: int = Field(examples=[184_467])
    latency_ms: float = Field(examples=[12.4])
    run_id: str = Field(examples=["3f2a9c41d0"])


class ClusterHealth(BaseModel):
    """One cluster."""

    name: str = Field(examples=["Kafka Produzione"])
    connected: bool | None = Field(
        description="null: a demo cluster, whose broker is inside the process of each run, or not checked."
    )
    latency_ms: float | None = None
    error: str | None = None
    looked_at: datetime


class KafkaHealth(BaseModel):
    """State of Kafka, as the page shows it."""

    connected: bool = Field(description="Every cluster that can be looked at answers.")
    clusters: list[ClusterHealth]


class Tested(BaseModel):
    """Result of testing one connection."""

    cluster: str = Field(examples=["Kafka Produzione"])
    connected: bool
    brokers: list[str] = Field(examples=[["kafka-1.example.com:9093"]])
    latency_ms: float | None
    error: str | None


class TopicRow(BaseModel):
    """One topic."""

    name: str = Field(examples=["pstt-traces"])
    partitions: int = Field(examples=[3])
    replication: int = Field(examples=[3])
    messages: int | None = Field(None, description="End minus begin of its offsets; null without `counts=true`.")


class Topics(BaseModel):
    """The topics that this account may see."""

    cluster: str
    items: list[TopicRow]
    total: int
    limit: int
    offset: int


class Latency(BaseModel):
    """Time from sending to acknowledgement; null if nothing was sent."""

    avg: float | None
    p50: float | None
    p90: float | None
    p99: float | None


class Period(BaseModel):
    """What was sent in a period."""

    messages: int = Field(description="Acknowledged.", examples=[19_995])
    errors: int
    retried: int
    timed_out: int
    success_rate: float | None = Field(description="0 to 1.", examples=[0.99975])
    error_rate: float | None
    retry_rate: float | None
    timeout_rate: float | None
    bytes: int
    avg_latency_ms: float | None = Field(examples=[18.2])
    latency_ms: Latency
    last_send: datetime | None


class Week(Period):
    """The last seven days, including today."""

    messages_per_day: int


class Summary(BaseModel):
    """Today and the last seven days; days begin at midnight in the workspace's zone."""

    today: Period
    last_7_days: Week


class TopicMetrics(BaseModel):
    """What was sent to one topic."""

    messages: int
    bytes: int
    last_send: datetime | None


class RecentError(BaseModel):
    """Why messages failed in the last 24 hours."""

    error: str | None
    count: int
    last_seen: datetime
    retried_ok: int = Field(description="How many of them were acknowledged since.")


class Metrics(BaseModel):
    """Everything that was ever sent."""

    total_sent: int
    total_failed: int
    success_rate: float | None
    bytes: int
    latency_ms: Latency
    by_topic: dict[str, TopicMetrics]
    recent_errors: list[RecentError]
    known_since: date | None
    """The first day of which each single send is known; earlier ones are counted by day. null: every send is known."""


class LastRun(BaseModel):
    """The newest run of a job."""

    run_id: str
    state: str = Field(examples=["succeeded"])
    scheduled_at: datetime


class JobRow(BaseModel):
    """One job in the list."""

    id: str = Field(description="Its file's name, without .job.json.", examples=["export-cdg-tracce"])
    name: str = Field(examples=["Export CDG Tracce to Kafka"])
    enabled: bool
    scheduling_mode: Literal["manual", "cron", "interval"]
    cron: str | None = Field(examples=["0 2 * * *"])
    timezone: str
    topic: str | None
    next_scheduled_at: datetime | None
    last_run: LastRun | None
    problem: str | None = Field(description="Why every run of it will fail: its connection or cluster is not set up.")
    etag: str


class FileProblem(BaseModel):
    """An invalid job file."""

    text: str
    remedy: str


class Jobs(BaseModel):
    """A page of the jobs."""

    items: list[JobRow]
    total: int
    limit: int
    offset: int
    problems: list[FileProblem] = Field(description="Files that are no valid jobs.")


class JobDetail(BaseModel):
    """One job: its file, and its next scheduled times."""

    id: str
    job: JobShape
    next_scheduled_times: list[datetime]
    last_run: LastRun | None
    problems: list[FileProblem] = Field(description="What `python -m core check` says of it beside its own shape.")


class Switched(BaseModel):
    """A job that was enabled or disabled."""

    id: str
    enabled: bool
    changed: bool
    answer: str


class Asked(BaseModel):
    """A request to the runner, and its result."""

    request_id: int
    state: RequestState = Field(
        description="done: it came to an end (a run's verdict is the run's); skipped: nothing ran, the answer says why.",
        examples=["taken"],
    )
    answer: str
    run_id: str | None = Field(None, description="Its newest run, once it has one.", examples=["3f2a9c41d0"])


class BackfillPlanned(BaseModel):
    """What a backfill planned."""

    backfill_id: int
    planned: int = Field(description="Runs.")
    succeeded_before: int = Field(description="Left out: these have a succeeded run.")
    planned_before: int = Field(description="Left out: these wait or run already.")
    answer: str


class BackfillChanged(BaseModel):
    """A backfill that was paused, resumed or cancelled."""

    backfill_id: int
    state: BackfillState
    answer: str


class BackfillCounts(BaseModel):
    """The runs of a backfill, counted."""

    total: int
    waiting: int
    running: int
    complete: int = Field(description="Succeeded, with rejects or without.")
    with_rejects: int = Field(description="Those of `complete` that have rejected rows.")
    failed: int
    skipped: int
    sent_before: int = Field(description="Those of `skipped` that another run had sent.")
    acknowledged: int = Field(description="Messages.")


class IncompleteTime(BaseModel):
    """A scheduled time without success."""

    scheduled_at: datetime
    state: str = Field(description="Of its run; skipped: it did not run.", examples=["failed"])
    run_id: str | None
    why: str | None


class BackfillRow(BaseModel):
    """One backfill and its progress."""

    model_config = ConfigDict(populate_by_name=True)

    backfill_id: int
    job: str
    timezone: str = Field(description="Of the job when it was asked for.", examples=["Europe/Rome"])
    first: str = Field(alias="from", examples=["2026-01-01"])
    last: str = Field(alias="to")
    again: bool
    parallel: int
    order: BackfillOrder
    state: BackfillState = Field(description="done: each of its runs has ended, whatever its verdict.")
    asked_by: str
    created_at: datetime
    finished_at: datetime | None
    progress: BackfillCounts
    left_s: float | None = Field(description="Seconds that the rest takes at the speed so far; null: unknown.")
    summary: str = Field(description="How it ended; empty until then.")
    incomplete: list[IncompleteTime] = Field(description="Empty in the list of backfills.")


class BackfillRows(BaseModel):
    """A page of the backfills."""

    items: list[BackfillRow]
    total: int
    limit: int
    offset: int


class WatermarkShape(TakenBody):
    """Where the next run of an incremental job begins."""

    value: str = Field(
        min_length=1, max_length=200, description="A number or a time; with a tie column also `VALUE, TIE`."
    )
    why: str = Field(min_length=1, max_length=1_000, description="The reason, for the audit trail.")


def _iso_day(value: object) -> object:
    """Returns the day of a text such as 2026-01-16; what is none is left for the check of types."""
    if isinstance(value, str) and len(value) == len("2026-01-16"):
        with suppress(ValueError):
            return date.fromisoformat(value)
    return value


class NoteShape(TakenBody):
    """The note on a day of a job."""

    day: Annotated[date, BeforeValidator(_iso_day)] = Field(
        description="In the time zone of the job.", examples=["2026-01-16"]
    )
    text: str = Field(max_length=1_000, description="What others should know; empty: the note is removed.")


class NoteRow(BaseModel):
    """The note on a day of a job."""

    job: str
    day: date
    text: str = Field(description="Empty: it was removed.")
    written_by: str | None
    written_at: datetime | None


class NoteRows(BaseModel):
    """The notes, the newest day first."""

    items: list[NoteRow]


class NextWindow(BaseModel):
    """What the next run reads."""

    after: str | None = Field(description="The rows after this position; null: from the first one.")
    until: datetime | None = Field(description="Up to this time; null: the cursor is no time.")


class WatermarkRow(BaseModel):
    """How far an incremental job has sent its rows."""

    job: str
    column: str
    kind: Literal["integer", "timestamp"]
    tie_column: str | None
    value: str | None = Field(description="Every row up to it was sent or rejected; null: no run has sent a row.")
    tie: str | None
    version: int
    run_id: str | None = Field(description="The run that moved it; null: a user.")
    changed_by: str | None
    changed_at: datetime | None
    why: str | None
    next: NextWindow
    problem: str | None = Field(description="Why the next run cannot read; null: it can.")


class SentFromValue(Asked):
    """The request for the run that sends all rows after a value, and the watermark from which it starts."""

    watermark: WatermarkRow


class RunError(BaseModel):
    """Why a run is not complete."""

    model_config = ConfigDict(extra="allow")

    text: str
    remedy: str | None = None
    retriable: bool


class Progress(BaseModel):
    """How far a run is that is running, as of `at`; its process writes it twice a second."""

    step: RunStep
    at: datetime
    rows_read: int
    acknowledged: int = Field(description="Of a run that writes a file: rows written.")
    rejected: int
    rows_expected: int | None = Field(description="The rows that it reads, as far as that is known.")
    is_counted: bool = Field(description="`rows_expected` is counted, and not the number of the last complete run.")
    rate_per_s: float | None = Field(description="Rows per second of the last 30 s.")
    elapsed_s: float
    remaining_s: float | None = Field(description="Seconds until the rows of this step are done, at that rate.")


class Retry(BaseModel):
    """The next attempt of a run that failed or was interrupted."""

    at: datetime | None = Field(description="Not before this time; null: as soon as the runner has a free place.")
    attempt: int
    most: int = Field(description="The last attempt that is made, if all fail for a reason that may pass.")


class RunRow(BaseModel):
    """One run as `python -m core show RUN --json` prints it; it has more fields than are listed here."""

    model_config = ConfigDict(extra="allow")

    run_id: str = Field(examples=["3f2a9c41d0"])
    kind: Literal["job", "replay"]
    job: str = Field(examples=["export-cdg-tracce"])
    job_name: str
    topic: str
    state: RunState
    verdict: Verdict = Field(description="The state as people see it: a success is complete, or complete with rejects.")
    balanced: bool = Field(description="It succeeded, and each row read is acknowledged or rejected.")
    scheduled_at: datetime
    started_at: datetime
    finished_at: datetime | None
    rows_read: int
    acknowledged: int
    rejected: int
    failed: int
    error: RunError | None
    progress: Progress | None = Field(
        description="Null where it is not running, or only for less than a second, or its process has ended."
    )
    retry: Retry | None = Field(description="Null where no attempt follows, and in lists.")


class Runs(BaseModel):
    """A page of the runs, the newest first."""

    items: list[RunRow]
    total: int
    limit: int
    offset: int


class Alive(BaseModel):
    """Whether this process responds, and whether a runner is running beside it."""

    status: Literal["ok", "degraded"]
    runner: Literal["alive", "silent", "stopped", "never"]
    version: str
