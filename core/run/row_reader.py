"""The reading side of every run, to Kafka or to a file: read rows, check columns, record rejects, decide how it ends."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Protocol

from loguru import logger

from core.errors import (
    ExpectationFailed,
    NothingArrived,
    PsttError,
    QueryFailed,
    RunCancelled,
    RunFailed,
    RunInterrupted,
)
from core.formatting import counted
from core.message.envelope import NULL_KEY, Encoded, Envelope
from core.message.value_formats import Formats
from core.model.progress import RunStep
from core.model.publisher import Publisher
from core.model.query import Step
from core.model.run import Plan, Reject
from core.model.schema import Schemas
from core.model.source import Column, Increment, Reading, Source
from core.model.window import Window
from core.run.cancellation import Stop
from core.run.observation import NOT_OBSERVED, RunObserver

__all__ = [
    "REJECTS_AT_ONCE",
    "ColumnCheck",
    "Progress",
    "RejectStore",
    "RowReader",
    "RunContext",
    "end_state",
    "fewer_collections",
    "formats_of",
    "row_count_error",
    "with_stop_reason",
]

REJECTS_AT_ONCE = 1_000
"""Rejects that are recorded in one transaction of the ledger where many are taken over."""

MOST_NAMED = 5
"""Keys that an error names."""
COLLECT_AFTER = 10_000
"""Objects that may be created before the garbage collector runs."""


class Progress(Protocol):
    """Receives how far a run has come."""

    def __call__(self, rows_read: int, acknowledged: int, rows_counted: int | None) -> None:
        """Called after each fetch; `rows_counted` is the total if it is known."""
        ...


class ColumnCheck(Protocol):
    """Checks the columns of a result; `core.run.drift` has one."""

    def __call__(self, columns: Sequence[Column], /) -> None:
        """Called once a run, before the first row becomes a message.

        Raises:
            ColumnsChanged: The run has to stop.
        """
        ...


class RejectStore(Protocol):
    """Stores rejected rows; `core.records.rejects.Rejects` is one."""

    def add(self, run_id: str, rejects: Sequence[Reject], /) -> None:
        """Stores rejects of a run; they are kept even if the run fails later."""
        ...


@dataclass(frozen=True, slots=True)
class RunContext:
    """What every run is given besides its plan, its source and the places that it writes to."""

    now: Callable[[], datetime]
    """The clock, aware UTC."""
    stop: Stop
    """Set to end the run; checked between two fetches and between two batches."""
    progress: Progress | None = None
    check_columns: ColumnCheck | None = None
    schemas: Schemas | None = None
    """Gives ids to the schemas of the messages; None: the cluster has no schema registry."""
    prepare_topic: Callable[[Publisher], Sequence[str]] | None = None
    """Called before the topic is looked for; returns warnings of the run."""
    observer: RunObserver = NOT_OBSERVED
    """What measures the run for lineage and traces."""
    published: Callable[[RowReader], AbstractContextManager[None]] = lambda _: nullcontext()
    """Makes the progress of a run readable for other processes until it has its verdict."""


@dataclass(slots=True, kw_only=True)
class RowReader:
    """The reading side of one run."""

    plan: Plan
    run_id: str
    rejects: RejectStore
    context: RunContext
    rows_read: int = 0
    rows_counted: int | None = None
    rejected: int = 0
    acknowledged: int = 0
    """Rows that have arrived, as far as this run knows now."""
    left_out: int = 0
    """Rows that were sent by an earlier run, or have another key than those that a replay asks for."""
    arrived_before: int = 0
    """Those that a replay of what is missing left out."""
    found_keys: set[bytes] = field(default_factory=set)
    """Those of the plan's `only_keys` that rows have."""
    increment: Increment | None = None
    """Incremental job: what the database answered; None: it was not asked."""
    step: RunStep = "connecting"
    is_read: bool = False
    """Whether the last row has been read."""

    def counts(self) -> tuple[int, int, int]:
        """Returns rows read, acknowledged and rejected up to now; another thread may ask."""
        return self.rows_read, self.acknowledged, self.rejected

    def current_step(self) -> RunStep:
        """Returns what the run does now; another thread may ask."""
        return self.step

    def has_read_all(self) -> bool:
        """Returns whether the last row has been read; another thread may ask."""
        return self.is_read

    def steps(self, source: Source) -> Sequence[Step]:
        """Returns the statements of this run; for an incremental job the database is asked how far they read."""
        window, incremental = self.plan.window, self.plan.job.incremental
        if window is None or incremental is None:
            return self.plan.query.steps
        self.increment = source.increment(self.plan.query.steps, incremental, window)
        self.note_increment(self.increment)
        return self.increment.steps

    def note_increment(self, found: Increment) -> None:
        """Called before the first row of an incremental job is read."""

    def read(self, source: Source) -> Iterator[tuple[Envelope, Encoded]]:
        """Reads the source; yields rows as keys and JSON, one fetch at a time. Rejects are recorded."""
        plan = self.plan
        self.step = "reading"
        with source.read(self.steps(source), fetch_rows=plan.fetch_rows, count=plan.job.verify_count) as reading:
            yield from self.rows(reading)

    def rows(self, reading: Reading) -> Iterator[tuple[Envelope, Encoded]]:
        """Does the same for a result that is open already; the columns are checked before the first fetch."""
        envelope, step = self.envelope_of(reading), self.context.observer.step
        fetches = iter(reading)
        while True:
            with step("read"):
                rows = next(fetches, None)
            if rows is None:
                break
            if self.context.stop.is_set():
                raise RunCancelled("the run was cancelled", why=f"stopped after {counted(self.rows_read, 'row')}")
            with step("encode"):
                encoded = envelope.encode(rows)
            if self.plan.only_keys:
                encoded = self._of_keys(encoded)
            if self.plan.skip_ids is not None:
                left = _without(encoded, self.plan.skip_ids)
                self.arrived_before += len(encoded.data) - len(left.data)
                encoded = left
            elif self.plan.window and self.plan.window.since:
                encoded = self._without_known(encoded, self.plan.window)
            self.rows_read += len(encoded.data) + len(encoded.rejects)
            self.reject(encoded.rejects)
            yield envelope, encoded
            if self.context.progress:
                self.context.progress(self.rows_read, self.acknowledged, self.rows_counted)
        self.is_read = True

    def _of_keys(self, encoded: Encoded) -> Encoded:
        """Leaves out the rows and rejects of other keys than the plan's, which a CHAR column pads with blanks."""
        asked = self.plan.only_keys
        keys = [_key_among(asked, key) for key in encoded.readable_keys]
        of_rejects = [_key_among(asked, reject.key.encode() if reject.key else None) for reject in encoded.rejects]
        left = encoded.kept([key is not None for key in keys])
        rejects = [reject for reject, key in zip(encoded.rejects, of_rejects, strict=True) if key is not None]
        self.found_keys.update(key for key in (*keys, *of_rejects) if key is not None)
        self.left_out += len(encoded.data) - len(left.data) + len(encoded.rejects) - len(rejects)
        return replace(left, rejects=rejects)

    def _without_known(self, encoded: Encoded, window: Window) -> Encoded:
        """Leaves out the rows of the look-back that earlier runs have sent, or have rejected for the same reason."""
        left = _without(encoded, window.known_ids)
        rejects = [reject for reject in left.rejects if reject.content not in window.known_rejects]
        self.left_out += len(encoded.data) - len(left.data) + len(left.rejects) - len(rejects)
        return replace(left, rejects=rejects)

    def envelope_of(self, reading: Reading) -> Envelope:
        """Checks the columns of the result and returns the envelope for them."""
        self.rows_counted = reading.counted
        if self.context.check_columns:
            self.context.check_columns(reading.columns)
        self.context.observer.columns(reading.columns)
        plan = self.plan
        return Envelope(
            reading.columns,
            plan.job,
            scheduled_at=plan.scheduled_at,
            formats=formats_of(plan, self.context.schemas),
        )

    def reject(self, rejects: list[Reject]) -> None:
        """Records rejected rows.

        Raises:
            RunFailed: The job ends at the first one.
        """
        if not rejects:
            return
        self.rejects.add(self.run_id, rejects)
        self.rejected += len(rejects)
        if self.plan.log_payload:
            for reject in rejects:
                logger.debug("row {} rejected: {}: {}", reject.row_number, reject.reason, dict(reject.row or {}))
        job = self.plan.job
        for reject in rejects:
            option = "on_null_key" if reject.reason == NULL_KEY else "on_bad_row"
            if getattr(job, option) == "fail":
                where = f"row {reject.row_number}" + (f", column {reject.column}" if reject.column else "")
                raise RunFailed(
                    f"{where} cannot be {'sent' if self.plan.output is None else 'written'}",
                    why=reject.reason,
                    remedy=f'mend the row, or set "{option}": "reject" in {job.slug}.job.json',
                )

    def check_row_count(self) -> None:
        """Compares the rows read with the COUNT(*) of the same snapshot; called when all rows are read.

        Raises:
            QueryFailed: The job asks for COUNT(*), and it is another number.
            NothingArrived: Every row was rejected.
            RunFailed: A replay asks for keys that no row has.
        """
        if missing := self.plan.only_keys - self.found_keys:
            raise _keys_missing(missing, self.rows_read + self.left_out)
        if self.rows_read and self.rejected == self.rows_read and (self.plan.only_keys or not self.left_out):
            is_one = self.rows_read == 1
            raise NothingArrived(
                "1 row was read and did not arrive"
                if is_one
                else f"none of {self.rows_read:,} rows could be {'sent' if self.plan.output is None else 'written'}",
                why="it was rejected" if is_one else "all were rejected",
                remedy=f"python -m core rejects {self.run_id} lists the reasons",
            )
        found = self.rows_read + self.left_out
        if self.rows_counted is not None and self.plan.skip_ids is None and self.rows_counted != found:
            raise QueryFailed(
                f"COUNT(*) said {counted(self.rows_counted, 'row')} and {found:,} {'was' if found == 1 else 'were'} read",
                why="the statement gives another result when it is run twice",
                remedy="look for random or time functions in the query",
            )

    def expectation_error(self) -> PsttError | None:
        """Returns the error of a run whose rows have arrived, but not in the expected number; None: it is as expected."""
        return row_count_error(self.plan, self.rows_read) if self.plan.is_whole else None


def formats_of(plan: Plan, schemas: Schemas | None) -> Formats:
    """Returns what the formats of a plan's messages need besides its columns."""
    return Formats(plan.topic, schemas, plan.value_schema, plan.key_schema)


def row_count_error(plan: Plan, rows_read: int) -> ExpectationFailed | None:
    """Returns why that number of rows is not as expected; None: it is."""
    low, high = (plan.expected.min, plan.expected.max) if plan.expected else (None, None)
    if (low is None or rows_read >= low) and (high is None or rows_read <= high):
        return None
    wanted = f"{low or 0:,} to {high:,}" if high is not None else f"at least {low:,}"
    return ExpectationFailed(
        f"{rows_read:,} {'row' if rows_read == 1 else 'rows'} where {wanted} are expected",
        why=plan.expected_why,
        remedy=f"ask whether the source was complete; if this number is right, write "
        f'"expect": {{"rows": {{"min": …, "max": …}}}} into {plan.job.slug}.job.json',
    )


def _key_among(asked: frozenset[bytes], key: bytes | None) -> bytes | None:
    """Returns which of the asked keys a row has, with blanks at its end or without; None: another one."""
    if key is None or key in asked:
        return key
    bare = key.rstrip(b" ")
    return bare if bare in asked else None


def _keys_missing(missing: frozenset[bytes], rows: int) -> RunFailed:
    named = ", ".join(f'"{key.decode()}"' for key in sorted(missing)[:MOST_NAMED])
    more = f" and {len(missing) - MOST_NAMED:,} more" if len(missing) > MOST_NAMED else ""
    return RunFailed(
        f"{len(missing):,} keys that were asked for have no row: {named}{more}"
        if len(missing) > 1
        else f"the key that was asked for has no row: {named}",
        why="the only row that the query gives now does not have it"
        if rows == 1
        else f"none of the {rows:,} rows that the query gives now has it",
        remedy="look into the database: the row may be gone, or its key may be another one there",
    )


def with_stop_reason(error: PsttError | None, stop: Stop) -> PsttError | None:
    """Replaces the error of a cancelled run by the reason that `stop` was given, such as a time-out."""
    return stop.error if stop.error is not None and isinstance(error, RunCancelled) else error


def end_state(error: PsttError | None, acknowledged: int) -> str:
    """Returns the state of a run that ended with this error."""
    if error is None:
        return "succeeded"
    if isinstance(error, RunInterrupted):
        return "interrupted"
    if isinstance(error, RunCancelled):
        return "cancelled"
    return "partial" if acknowledged else "failed"


@contextmanager
def fewer_collections() -> Iterator[None]:
    """Makes the garbage collector run less often while rows flow.

    Rows are thousands of short-lived tuples: at the default of 700 objects the collector visits everything in flight
    several times a fetch and frees nothing, for 3 µs a row.
    """
    before = gc.get_threshold()
    gc.set_threshold(COLLECT_AFTER, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _without(encoded: Encoded, skip_ids: frozenset[bytes]) -> Encoded:
    """Returns the rows whose message id is not in `skip_ids`."""
    return encoded.kept([message_id not in skip_ids for message_id in encoded.message_ids])
