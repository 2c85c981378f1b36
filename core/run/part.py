"""Runs one part of a run, in the process where it belongs: reads its rows, sends them, and returns what became of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from zoneinfo import ZoneInfo

import msgspec
from loguru import logger

from core.clock import iso_utc
from core.errors import ConfigError, PsttError, RunFailed, StorageFailed
from core.kafka.sender import Sender
from core.message.envelope import Encoded, Envelope
from core.model.connection import Destination
from core.model.query import Query
from core.model.run import Plan, Reject
from core.model.source import CANCEL_S, Reading, Source
from core.records.opened import OpenWorkspace
from core.records.segments import segments_of
from core.records.send_totals import SendTotals
from core.records.spool import Spool
from core.run.cancellation import Stop
from core.run.exactly_once import SentMarker, same_content
from core.run.kept_publishers import KeptPublishers
from core.run.look_back import known_window
from core.run.observation import NOT_OBSERVED, PartObserver
from core.run.part_results import counts_of
from core.run.parts import PartError, PartOnce, PartPhase, PartProgress, PartResult, PartTask, attempt_name, steps_of
from core.run.pending_transactions import storing_in
from core.run.row_reader import RunContext, fewer_collections
from core.run.schemas import schemas_of
from core.run.sending import Sending, stored_on_disk
from core.sources import open_source
from core.version import __version__

__all__ = ["PartSettings", "Report", "run_part"]

REPORT_EVERY_S = 0.5
MOST_REJECTS = 1_000
"""Rejects in a result; if there are more, all are in a file."""

Report = Callable[[PartProgress], None]
"""Receives how far a part is."""


@dataclass(frozen=True, slots=True)
class PartSettings:
    """What the place where a part runs adds to its task."""

    worker: str = ""
    """Its name, for display."""
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    """The clock, aware UTC."""
    before_commit: Callable[[], None] = lambda: None
    """exactly_once: called when all files of the part are written, before its transaction is committed."""
    before_rows: Callable[[], object] = lambda: None
    """Called when the database has begun to answer, before the first row becomes a message; it may wait some seconds."""
    publishers: KeptPublishers | None = None
    """Those of earlier parts in the same process; None: the part opens and closes its own."""


def run_part(
    task: PartTask, opened: OpenWorkspace, *, stop: Stop, report: Report, settings: PartSettings | None = None
) -> PartResult:
    """Runs one part to its end and returns its result; its errors are in the result, not raised.

    Args:
        task: The part.
        opened: The workspace where it runs: its settings, connections and folder; its ledger is not opened.
        stop: Ends the part when it is set.
        report: Receives how far it is, about twice a second.
        settings: What this place adds; None: nothing.
    """
    given, started = settings or PartSettings(), time.monotonic()
    with logger.contextualize(run=task.run_id, part=task.index):
        try:
            result = _result(task, opened, stop, report, given)
        except PsttError as error:
            result = PartResult(index=task.index, attempt=task.attempt, error=PartError.of(error))
        except Exception as error:  # noqa: BLE001 - the run has to know it; a repeated part would meet it again
            name = type(error).__name__
            logger.opt(exception=error).error("unexpected {} in part {} of run {}", name, task.index, task.run_id)
            defect = PsttError(f"unexpected {name}", remedy="this is a defect of PSTT Kafka: report it")
            result = PartResult(index=task.index, attempt=task.attempt, error=PartError.of(defect))
        return msgspec.structs.replace(result, seconds=time.monotonic() - started, worker=given.worker)


def _result(task: PartTask, opened: OpenWorkspace, stop: Stop, report: Report, settings: PartSettings) -> PartResult:
    if task.version != __version__:
        raise ConfigError(
            f"this is version {__version__} of PSTT Kafka, and the run is of version {task.version}",
            remedy="install the same version everywhere",
        )
    folder = opened.workspace.inside(task.folder, opened.workspace.state_dir)
    with storing_in(folder):
        folder.mkdir(parents=True, exist_ok=True)
    cluster = opened.connections.cluster_at(task.cluster_key or None, opened.settings)
    with ExitStack() as stack:
        source = open_source(opened.connections.database(task.connection))
        stack.callback(source.close)
        stop.on_stop(partial(source.cancel, min(CANCEL_S, task.stop_timeout_s / 3)))
        kept = settings.publishers
        if kept is None:
            kept = KeptPublishers()
            stack.callback(kept.close)
        loan = stack.enter_context(
            kept.borrow(
                cluster,
                transactional_id=task.once.transactional_id if task.once else None,
                max_in_flight=opened.settings.PSTT_MAX_IN_FLIGHT_MESSAGES,
            )
        )
        publisher = loan.publisher
        rejects = _Rejects(task, folder)
        observer = PartObserver(task.traceparent) if task.traceparent else None
        part = _PartRun(
            plan=_plan(task, folder),
            run_id=task.run_id,
            rejects=rejects,
            context=RunContext(
                settings.now,
                stop,
                _Progress(task, report, settings.worker),
                schemas=schemas_of(task.job, cluster, registers=True),
                observer=observer or NOT_OBSERVED,
            ),
            publisher=publisher,
            sender=Sender(publisher, max_retries=cluster.max_retries, backoff_ms=cluster.retry_backoff_ms),
            task=task,
            folder=folder,
            report=partial(_report, task, report, settings.worker),
            before_rows=settings.before_rows,
            before_commit=settings.before_commit,
        )
        error = part.run(source)
        loan.is_reusable = error is None
        result = part.result(error, rejects)
        return msgspec.structs.replace(result, steps=dict(observer.measured)) if observer else result


def _plan(task: PartTask, folder: Path) -> Plan:
    return Plan(
        job=task.job,
        query=Query(task.job.query, tuple(steps_of(task.steps)), {}, ""),
        cluster=task.cluster,
        topic=task.topic,
        scheduled_at=task.scheduled_at.astimezone(ZoneInfo(task.timezone)),
        batch_size=task.batch_size,
        fetch_rows=task.fetch_rows,
        stop_timeout_s=task.stop_timeout_s,
        control_topic=task.control_topic,
        log_payload=task.log_payload,
        value_schema=task.value_schema,
        key_schema=task.key_schema,
        window=known_window(folder, task.since),
    )


def _report(task: PartTask, report: Report, worker: str, state: PartPhase, rows_read: int, acknowledged: int) -> None:
    report(PartProgress(task.index, task.attempt, state, rows_read, acknowledged, worker))


class _Progress:
    """Reports after a fetch, at most twice a second, and when most rows are read."""

    def __init__(self, task: PartTask, report: Report, worker: str) -> None:
        self._task, self._report, self._worker = task, report, worker
        self._due = time.monotonic()
        self._most = task.rows_before_next

    def __call__(self, rows_read: int, acknowledged: int, rows_counted: int | None) -> None:
        if time.monotonic() >= self._due or 0 < self._most <= rows_read:
            self._due = time.monotonic() + REPORT_EVERY_S
            if self._most <= rows_read:
                self._most = 0
            _report(self._task, self._report, self._worker, "reading", rows_read, acknowledged)


class _Rejects:
    """Keeps the first rejects for the result, and writes all of them into a file if there are more."""

    def __init__(self, task: PartTask, folder: Path) -> None:
        self._task = task
        self.first: list[Reject] = []
        self.file = folder / f"{task.name}.rejects"
        self.is_full = False

    def add(self, run_id: str, rejects: Sequence[Reject], /) -> None:
        """See `core.run.row_reader.RejectStore`."""
        numbered = [_storable(r, self._number(r.row_number)) for r in rejects]
        # What a transaction goes with must be there even if the process ends right after its commit.
        most = 0 if self._task.once else MOST_REJECTS
        if not self.is_full and len(self.first) + len(numbered) <= most:
            self.first += numbered
            return
        with storing_in(self.file.parent), self.file.open("ab") as file:
            for reject in numbered if self.is_full else [*self.first, *numbered]:
                file.write(msgspec.json.encode(reject) + b"\n")
        self.is_full = True

    def _number(self, row_number: int) -> int:
        """Returns a number that no row of another part has: the rows of n parts are numbered in turn."""
        return (row_number - 1) * self._task.count + self._task.index + 1


def _storable(reject: Reject, row_number: int) -> Reject:
    """Returns the reject as JSON can hold it: half of a surrogate pair becomes its escape."""

    def text(value: str | None) -> str | None:
        return None if value is None else value.encode("utf-8", "backslashreplace").decode()

    row = None if reject.row is None else {str(text(name)): text(value) for name, value in reject.row.items()}
    return replace(reject, row_number=row_number, key=text(reject.key), row=row, reason=str(text(reject.reason)))


@dataclass(slots=True, kw_only=True)
class _PartRun(Sending):
    """The state of one part, and its steps."""

    task: PartTask
    folder: Path
    report: Callable[[PartPhase, int, int], None]
    before_rows: Callable[[], object]
    before_commit: Callable[[], None]
    taken_over: SendTotals | None = None
    """The sends of an earlier attempt that had committed."""
    segments_of_attempt: str = ""
    """What the names of the segments begin with whose sends are visible."""
    columns: list[tuple[str, str, str]] | None = None

    def run(self, source: Source) -> PsttError | None:
        """Runs the part to its end; returns its error."""
        error: PsttError | None = None
        try:
            self.spool = Spool(self.folder, run_id=self.run_id, job=self.plan.job.slug, name=self.task.name)
            self.spool.destination = Destination(self.task.cluster, self.task.cluster_id, self.task.bootstrap_servers)
            self.segments_of_attempt = self.task.name
            with fewer_collections():
                self.publisher.require_topic(self.plan.topic)
                if self.task.once:
                    self.send_once(source, self.task.once)
                else:
                    self.send(source)
        except PsttError as failure:
            error = failure
        try:
            if error is not None:
                self.finish_sending(error)
            if self.spool:
                self.spool.close()
        except PsttError as failure:
            error = failure if error is None or isinstance(failure, StorageFailed) else error
        return error

    def read(self, source: Source) -> Iterator[tuple[Envelope, Encoded]]:
        """Reads the rows of this part in the snapshot of the run."""
        plan = self.plan
        with source.read(plan.query.steps, fetch_rows=plan.fetch_rows, snapshot=self.task.snapshot) as reading:
            self._note_columns(reading)
            self.before_rows()
            yield from self.rows(reading)

    def _note_columns(self, reading: Reading) -> None:
        self.columns = [(column.name, column.kind, column.database_type) for column in reading.columns]

    def send(self, source: Source) -> None:
        """At least once: publishes rows while the next ones are read."""
        for envelope, encoded in self.read(source):
            self.publish(envelope, encoded)
        self.report("sending", self.rows_read, self.acknowledged)
        self.drain()

    def send_once(self, source: Source, once: PartOnce) -> None:
        """Exactly once: sends all rows and the part's marker in one transaction, unless an earlier attempt has."""
        self.publisher.prepare_once(self.plan.control_topic)
        # An earlier process of this part cannot commit from here on.
        key = once.key.encode()
        raw = self.publisher.read_control(self.plan.control_topic, [key]).get(key)
        if raw is not None:
            self.take_over(once, raw)
            return
        with stored_on_disk(self.folder / f"{self.task.name}.rows", self.read(source)) as fetched:
            if once.skips_empty and self.rows_read == self.rejected:
                return
            self.report("sending", self.rows_read, 0)
            self.send_in_transaction(fetched, partial(self.markers, once))

    def markers(self, once: PartOnce, digest: str) -> dict[bytes, bytes]:
        """Returns the marker of the part, and the records that go with it."""
        if self.spool and self.task.confirm:
            self.spool.close()  # nothing is recorded after the last delivery report
        self.report("committing", self.rows_read, self.acknowledged)
        self.before_commit()
        marker = msgspec.structs.replace(
            msgspec.json.decode(once.marker, type=SentMarker),
            rows=self.acknowledged,
            sha256=digest,
            read=self.rows_read,
            rejected=self.rejected,
            left_out=self.left_out,
            at=iso_utc(self.context.now()),
            attempt=self.task.attempt,
        )
        records = {key.encode(): value.encode() for key, value in once.records.items()}
        return {once.key.encode(): msgspec.json.encode(marker), **records}

    def take_over(self, once: PartOnce, raw: bytes) -> None:
        """Takes over what an earlier attempt has committed.

        Raises:
            RunFailed: It was another query, or went elsewhere.
        """
        marker = msgspec.json.decode(raw, type=SentMarker)
        if not same_content(marker, msgspec.json.decode(once.marker, type=SentMarker)):
            raise RunFailed(
                f"run {marker.run} has sent other rows as part {self.task.index + 1} of {self.task.count}",
                why="query, parameters, topic or cluster have changed since",
                remedy=f"python -m core show {marker.run} shows what it sent",
            )
        name = attempt_name(marker.run, self.task.index, marker.attempt)
        recorded = marker.recorded_sends(self.folder, name)
        self.taken_over = recorded or SendTotals(acknowledged=marker.rows)
        self.segments_of_attempt = name if recorded is not None and marker.run == self.run_id else ""
        self.rejected = marker.rejected
        self.rows_read = marker.rows_read
        self.acknowledged = marker.rows
        self.left_out = marker.left_out

    def result(self, error: PsttError | None, rejects: _Rejects) -> PartResult:
        """Returns the result of the part."""
        own = self.spool.totals if self.spool else SendTotals()
        if self.task.once and self.transaction != "committed":
            own = SendTotals(failed=own.failed + own.acknowledged, retried=own.retried)
        sends = self.taken_over or own
        is_visible = not self.task.once or self.transaction == "committed" or self.taken_over is not None
        name = self.segments_of_attempt if is_visible else ""
        file = self.folder / f"{name or self.task.name}.rejects"
        return PartResult(
            index=self.task.index,
            attempt=self.task.attempt,
            rows_read=self.rows_read,
            rejected=self.rejected,
            left_out=self.left_out,
            refused=self.refused,
            rejects=[] if rejects.is_full else rejects.first,
            rejects_file=file.name if file.exists() else "",
            segments=[segment.name for segment in segments_of(self.folder, name)] if name else [],
            error=PartError.of(error) if error else None,
            transaction=self.transaction,
            taken_over=self.taken_over is not None,
            columns=self.columns or [],
            **{**counts_of(sends), "failed": sends.failed - self.refused},
        )
