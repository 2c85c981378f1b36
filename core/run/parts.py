"""The parts of a partitioned run: what one is given, what it returns, and the protocol of what runs them.

A part reads one range of the query and sends it. It runs in a process of its own: on this machine
(`core.run.local_parts`) or on a worker elsewhere. It writes nothing into the ledger: its coordinator
(`core.run.partitioned`) does, from the `PartResult`.

Where a part runs, `core.run.part.run_part(task, opened, stop=stop, report=report) -> PartResult` is called: `opened`
needs settings, connections and workspace, but no ledger; `report` receives a `PartProgress` about twice a second.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Literal, Protocol

import msgspec

from core import errors
from core.errors import ConfigError, PsttError
from core.model.job import Job
from core.model.query import LiteralText, Step, Value
from core.model.run import PartitionRange, Reject
from core.run.observation import RunStep

__all__ = [
    "PartError",
    "PartEvent",
    "PartExecutor",
    "PartLost",
    "PartOnce",
    "PartPhase",
    "PartProgress",
    "PartResult",
    "PartStep",
    "PartTask",
    "PartValue",
    "attempt_name",
    "decode_event",
    "encode",
    "steps_of",
]

NEXT_BEGINS_AT = 0.75
"""The share of its rows that a part has read when the next one logs in: a database that scans a table for each part
takes longer to its first row the later the part is."""
PartPhase = Literal["reading", "sending", "committing"]
ValueKind = Literal["null", "boolean", "integer", "float", "decimal", "text", "literal_text", "date", "datetime"]


class PartValue(msgspec.Struct, frozen=True):
    """A bound value as JSON, without loss: numbers of any size and microseconds are text."""

    kind: ValueKind
    text: str = ""

    @classmethod
    def of(cls, value: Value) -> PartValue:
        """Returns the value in this form.

        Raises:
            ConfigError: It has a type that no statement of a job can have.
        """
        kinds: tuple[tuple[type, ValueKind], ...] = (
            (bool, "boolean"),
            (int, "integer"),
            (float, "float"),
            (Decimal, "decimal"),
            (LiteralText, "literal_text"),
            (str, "text"),
        )
        if value is None:
            return cls("null")
        if isinstance(value, date):  # a datetime is one too
            return cls("datetime" if isinstance(value, datetime) else "date", value.isoformat())
        for known, kind in kinds:
            if isinstance(value, known):
                return cls(kind, repr(value) if kind == "float" else str(value))
        raise ConfigError(
            f"a value of type {type(value).__name__} cannot be passed to a part of a run",
            remedy='remove "partitions" from the job file',
        )

    @property
    def value(self) -> Value:
        """The value itself."""
        match self.kind:
            case "null":
                return None
            case "boolean":
                return self.text == "True"
            case "integer":
                return int(self.text)
            case "float":
                return float(self.text)
            case "decimal":
                return Decimal(self.text)
            case "literal_text":
                return LiteralText(self.text)
            case "date":
                return date.fromisoformat(self.text)
            case "datetime":
                return datetime.fromisoformat(self.text)
            case _:
                return self.text


class PartStep(msgspec.Struct, frozen=True):
    """A `core.model.query.Step` as JSON."""

    sql: str
    named: dict[str, PartValue] = {}
    """Binds by name, where the database takes names."""
    positional: list[PartValue] = []
    """Binds in order, where it takes positions."""
    returns_rows: bool = True
    line: int = 1

    @classmethod
    def of(cls, step: Step) -> PartStep:
        """Returns the step in this form; raises as `PartValue.of`."""
        if isinstance(step.binds, Mapping):
            named = {name: PartValue.of(value) for name, value in step.binds.items()}
            return cls(step.sql, named, [], step.returns_rows, step.line)
        return cls(step.sql, {}, [PartValue.of(value) for value in step.binds], step.returns_rows, step.line)

    @property
    def step(self) -> Step:
        """The step itself."""
        named = {name: value.value for name, value in self.named.items()}
        binds = named or tuple(value.value for value in self.positional)
        return Step(self.sql, binds, self.returns_rows, self.line)


class PartOnce(msgspec.Struct, frozen=True):
    """exactly_once: the transaction of one part, and the marker in it."""

    transactional_id: str
    """Of this part alone. A repeated part has the same, which fences the earlier process and aborts its transaction."""
    key: str
    """Key of the part's marker on the control topic."""
    marker: str
    """The marker (`core.run.exactly_once.SentMarker`) as JSON; the part adds its counts."""
    skips_empty: bool = False
    """Whether a part without a message has no transaction: the run has no new rows and only looks for late ones."""
    records: dict[str, str] = {}
    """Other records of the control topic that are sent in the same transaction: key → value."""


def attempt_name(run_id: str, index: int, attempt: int) -> str:
    """Returns what the files of one attempt of a part begin with: `<run_id>-p<index>x<attempt>`."""
    return f"{run_id}-p{index}x{attempt}"


class PartTask(msgspec.Struct, frozen=True, kw_only=True):
    """One part of a run, as JSON. It has no secret: the connections are resolved where the part runs."""

    version: str
    """Of the product. A process with another version refuses the task."""
    run_id: str
    index: int
    """From 0."""
    count: int
    """Parts of the run."""
    attempt: int = 1
    """From 1; a repeated part has the next one."""
    job: Job
    connection: str
    """The database, a name in connections.json."""
    cluster_key: str
    """The cluster, a key of `kafka_connections`; empty: that of the KAFKA_* settings."""
    cluster: str
    """Its name, for display."""
    topic: str
    cluster_id: str = ""
    bootstrap_servers: str = ""
    """The addresses for display; the part resolves its own."""
    steps: list[PartStep]
    """The statements. The last one that returns rows is restricted to the rows of this part."""
    expected_rows: int = 0
    """About how many rows it has; 0: not known. What runs it may prepare the next part before its end."""
    snapshot: str = ""
    """Token of the snapshot that all parts read; empty: this database has none."""
    scheduled_at: datetime
    """Aware."""
    timezone: str
    """IANA name of the zone of `scheduled_at`."""
    batch_size: int
    fetch_rows: int
    stop_timeout_s: float
    control_topic: str
    log_payload: bool = False
    value_schema: str = ""
    """The text of the job's `schemas.value_file`; empty: it has none."""
    key_schema: str = ""
    traceparent: str = ""
    """The W3C trace context of the run, for jobs whose messages carry it."""
    once: PartOnce | None = None
    """None: at_least_once."""
    confirm: bool = False
    """exactly_once: before its commit the part waits for the line `stored`: its files are then safe elsewhere."""
    folder: str
    """Where the part writes its segments: path below `.pstt/`, with slashes. It is created if needed."""
    since: str = ""
    """Incremental job: from where it looks back; what `core.run.look_back` has stored in the folder is left out. Empty: it does not."""
    needs: list[str] = []
    """Files of the workspace that the part reads: paths below the workspace, with slashes."""

    @property
    def rows_before_next(self) -> int:
        """After how many rows another part may begin in the same process, to be ready at the end of this one; 0: at its end."""
        return 0 if self.once else int(self.expected_rows * NEXT_BEGINS_AT)

    @property
    def name(self) -> str:
        """What the files of this attempt begin with: `<run_id>-p<index>x<attempt>`."""
        return attempt_name(self.run_id, self.index, self.attempt)


class PartError(msgspec.Struct, frozen=True):
    """The error of a part: a class of `core.errors` by its name, with what it says."""

    kind: str
    what: str
    why: str = ""
    remedy: str = ""
    retriable: bool = False

    @classmethod
    def of(cls, error: PsttError) -> PartError:
        """Returns the error in this form."""
        return cls(type(error).__name__, error.what, error.why, error.remedy, error.is_retriable)

    @property
    def error(self) -> PsttError:
        """The error itself; one of an unknown class is a PsttError."""
        found = getattr(errors, self.kind, PsttError)
        is_plain = isinstance(found, type) and issubclass(found, PsttError) and self.kind not in ("RowRejected",)
        made: type[PsttError] = found if is_plain else PsttError
        try:
            return made(self.what, why=self.why, remedy=self.remedy)
        except TypeError:  # its class needs more than these
            return PsttError(self.what, why=self.why, remedy=self.remedy)


class PartProgress(msgspec.Struct, frozen=True, tag="progress"):
    """How far a part is."""

    index: int
    attempt: int
    state: PartPhase
    rows_read: int = 0
    acknowledged: int = 0
    worker: str = ""
    """Where it runs, for display: a process id, a host."""


class PartResult(msgspec.Struct, frozen=True, kw_only=True, tag="result"):
    """The end of a part, also of one that failed or was cancelled: `error` says why."""

    index: int
    attempt: int
    rows_read: int = 0
    acknowledged: int = 0
    """Messages that readers of the topic can see."""
    rejected: int = 0
    """Also the messages that the broker refused for good."""
    left_out: int = 0
    """Rows of a look-back that earlier runs had sent or rejected; they do not count as read."""
    refused: int = 0
    """How many of them were refused by the broker."""
    failed: int = 0
    """Messages that were sent and not acknowledged, without the refused ones."""
    retried: int = 0
    bytes: int = 0
    """Key and value bytes of the acknowledged messages."""
    latencies: dict[str, int] = {}
    """Latency in ms, rounded to 0.1 → messages."""
    ranges: list[PartitionRange] = []
    """Offsets by topic and partition."""
    unplaced: list[tuple[str, int, int]] = []
    """Topic, partition, messages acknowledged without an offset."""
    falls: list[tuple[str, int, int, int]] = []
    """Topic, partition, and each decrease of the offsets: before, after."""
    rejects: list[Reject] = []
    """The first 1,000."""
    rejects_file: str = ""
    """All rejects as JSON lines, if there are more: a name in `PartTask.folder`."""
    segments: list[str] = []
    """Names in `PartTask.folder`: the sends that readers of the topic can see, and those that failed by themselves."""
    warnings: list[str] = []
    error: PartError | None = None
    transaction: Literal["", "unknown", "committed", "aborted"] = ""
    """exactly_once: its state. `unknown`: the cluster has not answered."""
    taken_over: bool = False
    """exactly_once: an earlier attempt of this part had committed; nothing was sent again."""
    columns: list[tuple[str, str, str]] = []
    """Name, kind and database type of each column of the result."""
    seconds: float = 0.0
    worker: str = ""
    """Where it ran, for display."""
    steps: dict[RunStep, tuple[int, int, int, int]] = {}
    """What it measured, if the run is traced: see `core.run.observation.PartSteps`."""


class PartLost(msgspec.Struct, frozen=True, tag="lost"):
    """A part whose process or worker ended without a result. What it sent is not known."""

    index: int
    attempt: int
    why: str
    """For the user: `process 4711 was ended by signal 9`."""
    worker: str = ""


PartEvent = PartProgress | PartResult | PartLost


class PartExecutor(Protocol):
    """Runs parts in other processes. It belongs to one run and one thread, and repeats nothing itself."""

    def prepare(self, task: PartTask, parts: int) -> None:
        """Starts what parts will need, while the query is still being split. Optional; `close` ends it.

        Args:
            task: A part of the run without its statements.
            parts: How many there will be at most.

        Raises:
            PsttError: As `start`.
        """
        ...

    def start(self, task: PartTask) -> None:
        """Accepts a part; it begins as soon as a process is free. Returns at once.

        Raises:
            PsttError: No process can be started, or the cluster of workers cannot be reached.
        """
        ...

    def events(self, timeout_s: float) -> list[PartEvent]:
        """Waits for events at most this long; returns them in the order of each part.

        Each part that was started ends with exactly one `PartResult` or one `PartLost`. The files that a result
        names are then in `PartTask.folder` of the coordinator's workspace, whole.

        Raises:
            PsttError: The executor itself has failed; parts without an end are lost.
        """
        ...

    def cancel(self, within_s: float) -> None:
        """Asks every part to end, those that wait too. Returns at once; the results come as events.

        Args:
            within_s: After this time, in seconds, a part that goes on is ended by force, which is a `PartLost`.
        """
        ...

    def close(self) -> None:
        """Ends all parts by force and frees everything. May be called twice."""
        ...


_encoder = msgspec.json.Encoder(decimal_format="string")
_events: msgspec.json.Decoder[PartEvent] = msgspec.json.Decoder(PartProgress | PartResult | PartLost)


def encode(message: PartTask | PartEvent) -> bytes:
    """Returns a task or an event as one line of JSON, without the line's end."""
    return _encoder.encode(message)


def decode_event(line: bytes) -> PartEvent:
    """Returns the event of a line. Raises msgspec.DecodeError if it is none."""
    return _events.decode(line)


def steps_of(steps: Sequence[PartStep]) -> list[Step]:
    """Returns the statements as a source takes them."""
    return [step.step for step in steps]
