"""Coordinates a run whose query is split into parts: starts them, repeats those that are lost, and joins their results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import monotonic

import msgspec
from loguru import logger

from core.clock import iso_utc
from core.errors import ConfigError, PsttError, RunCancelled, RunFailed
from core.message.envelope import Envelope
from core.model.job import Partitions
from core.model.progress import RunStep
from core.model.publisher import TopicState
from core.model.query import Step
from core.model.run import PartState, Plan, RunPart
from core.model.source import Source, Split
from core.records.ledger import Outcome
from core.records.send_totals import SendTotals
from core.run.exactly_once import ExactlyOnce, SentMarker
from core.run.look_back import KNOWN_FILE, write_known
from core.run.part_markers import EarlierParts, earlier_parts, once_of_part, record_of
from core.run.part_results import (
    clear_folder,
    drop_segments,
    joined,
    move_segments,
    rejects_of,
    result_of_lost,
    result_of_marker,
)
from core.run.parts import (
    PartError,
    PartEvent,
    PartExecutor,
    PartLost,
    PartProgress,
    PartResult,
    PartStep,
    PartTask,
)
from core.run.pipeline import KafkaRun
from core.run.row_reader import formats_of
from core.run.settling_parts import PartOfNote, PartsNote, write_parts_note
from core.version import __version__

__all__ = ["PartitionedRun", "is_partitioned"]

MOST_ATTEMPTS = 3
"""How often a part is started whose process ends without a result."""
WAIT_S = 0.5
SHOW_EVERY_S = 1.0
CANCEL_SLACK_S = 5.0
"""What a part may take, beyond the time-out for messages in flight, to return its result."""


def is_partitioned(plan: Plan) -> bool:
    """Returns whether a plan is executed in parts: not a replay, which sends a few rows or repeats a run as a whole."""
    given = plan.job.partitions
    return given is not None and given.count > 1 and plan.kind == "job" and plan.skip_ids is None


@dataclass(slots=True, kw_only=True)
class PartitionedRun(KafkaRun):
    """The state of one run in parts, and its steps."""

    state_dir: Path
    cluster_key: str
    open_executor: Callable[[int], PartExecutor]
    """Returns what runs that many parts."""
    tasks: dict[int, PartTask] = field(default_factory=dict)
    """The newest attempt of each part."""
    results: dict[int, PartResult] = field(default_factory=dict)
    lines: dict[int, RunPart] = field(default_factory=dict)
    earlier: EarlierParts = field(default_factory=EarlierParts)
    """exactly_once: the parts that earlier attempts have sent."""
    is_cancelled: bool = False
    shown_at: float = 0.0

    @property
    def folder(self) -> Path:
        """Where the parts write their files."""
        return self.state_dir / "parts" / self.run_id

    def send_parts(self, source: Source, partitions: Partitions) -> None:
        """Splits the query and runs all parts to their end, without those that an earlier attempt has sent exactly once."""
        state = self.find_topic()
        if self.once and self._find_earlier(self.once, state):
            return
        wanted, bounds = partitions, None
        if self.earlier.record is not None:
            wanted, bounds = self.earlier.record.partitions, self.earlier.bounds
            if self.plan.window:  # the parts that were sent end there
                self.plan = replace(self.plan, window=replace(self.plan.window, high=self.earlier.record.end))
        steps = self.steps(source)
        if self.plan.window and self.end is None:
            self.read_nothing(source, steps)
            return
        count = self.plan.job.verify_count and not self.earlier.markers
        parts = wanted.count - len(self.earlier.markers)
        executor = self.open_executor(parts)
        try:
            executor.prepare(self._task(()), parts)
            with source.split(steps, wanted, count=count, bounds=bounds) as split:
                self._check(split, wanted)
                expected = (split.counted or 0) // len(split.parts)
                tasks = [
                    self._task(steps, index, len(split.parts), split.snapshot, expected)
                    for index, steps in enumerate(split.parts)
                ]
                if self.once:
                    tasks = self._once(self.once, state, wanted, split, tasks)
                self._write_note(tasks, len(split.parts))
                if self.plan.window and self.plan.window.since:
                    write_known(self.folder, self.plan.window)
                self._run(tasks, executor)
        finally:
            executor.close()
        self._raise_first_error()
        self.check_row_count()

    def read_nothing(self, source: Source, steps: Sequence[Step]) -> None:
        """Checks the columns of an incremental job that has no new row."""
        with source.read(steps, fetch_rows=1) as reading:
            self.envelope_of(reading)

    @property
    def is_committed(self) -> bool:
        """See `KafkaRun.is_committed`. A run that has only looked for late rows has no transaction for a part without any."""
        count = self.earlier.record.count if self.earlier.record else len(self.lines)
        sent = [r for r in self.results.values() if r.taken_over or r.transaction == "committed"]
        empty = [r for r in self.results.values() if r.error is None and not r.transaction] if self.high is None else []
        return self.sent_before is not None or (bool(sent) and count == len(sent) + len(empty))

    def _find_earlier(self, once: ExactlyOnce, state: TopicState) -> bool:
        """Finds what earlier attempts have sent, takes it over, and returns whether that is everything."""
        topic = self.plan.control_topic
        self.publisher.prepare_once(topic)
        once, found = self.read_markers(once)
        marker = once.earlier(found, self.ledger, state)
        if marker is not None:
            self.take_over(marker)
            return True
        self.earlier = earlier_parts(once, self.publisher, found.get(once.parts_key), self.ledger, state)
        for index, sent in self.earlier.markers.items():
            self._take_over_part(index, sent)
        runs = {sent.run for sent in self.earlier.markers.values()}
        if self.earlier.is_complete and len(runs) == 1:
            self.ledger.recognise(self.run_id, *runs)
        if self.earlier.is_complete:
            self.end_at(self.earlier.record.end if self.earlier.record else None)
            self.check_row_count()
            self._show(now=True)
        return self.earlier.is_complete

    def _take_over_part(self, index: int, marker: SentMarker) -> None:
        """Takes over a part that an earlier attempt has sent, with its rejects."""
        count = self.earlier.record.count if self.earlier.record else 1
        mine = (r for r in self.ledger.rejects.of_run(marker.run) if (r.row_number - 1) % count == index)
        self.take_over_rejects(mine)
        self._add(result_of_marker(index, marker, self.spool_dir), worker=f"run {marker.run}")

    def _once(
        self, once: ExactlyOnce, state: TopicState, partitions: Partitions, split: Split, tasks: list[PartTask]
    ) -> list[PartTask]:
        """Returns the tasks that are not sent yet, each with its transaction."""
        skips_empty = self.plan.window is not None and self.high is None
        record = self.earlier.record or record_of(once, self.run, partitions, len(tasks), split.bounds, self.end)
        return [
            msgspec.structs.replace(
                task, once=once_of_part(once, self.run, task.index, record, state, skips_empty=skips_empty)
            )
            for task in tasks
            if task.index not in self.earlier.markers
        ]

    def _write_note(self, tasks: Sequence[PartTask], count: int) -> None:
        """Stores what settles the parts if this process is killed."""
        parts = [PartOfNote(task.index, task.once.transactional_id, task.once.key) for task in tasks if task.once]
        plan = self.plan
        note = PartsNote(
            self.run_id,
            plan.job.slug,
            iso_utc(plan.scheduled_at),
            plan.is_backfill,
            self.cluster_key,
            plan.control_topic,
            count,
            parts,
            self.end.value if self.end else "",
            self.end.tie if self.end else "",
        )
        write_parts_note(self.folder, note)

    def _check(self, split: Split, partitions: Partitions) -> None:
        """Checks the columns, once for all parts."""
        self.warnings += split.warnings
        if (split.is_one_snapshot or self.plan.job.verify_count) and not self.earlier.markers:
            self.rows_counted = split.counted
        if self.context.check_columns:
            self.context.check_columns(split.columns)
        self.context.observer.columns(split.columns)
        plan = self.plan
        formats = formats_of(plan, self.context.schemas)
        Envelope(split.columns, plan.job, scheduled_at=plan.scheduled_at, formats=formats)
        column = next(column for column in split.columns if column.name.lower() == partitions.column.lower())
        if column.kind == "decimal" and self.plan.job.decimals == "float":
            raise ConfigError(
                f'the query cannot be split by {column.name} with "decimals": "float"',
                why="different decimals become the same number, so that equal messages could be in two parts",
                remedy='name another column in "partitions", or write "decimals": "number"',
                key="partitions.column",
            )

    def _task(
        self, steps: Sequence[Step], index: int = 0, count: int = 1, snapshot: str = "", expected_rows: int = 0
    ) -> PartTask:
        plan, state, folder = self.plan, self.at_start, f"parts/{self.run_id}"
        since = plan.window.since if plan.window else None
        return PartTask(
            version=__version__,
            run_id=self.run_id,
            index=index,
            count=count,
            job=plan.job,
            connection=plan.job.connection,
            cluster_key=self.cluster_key,
            cluster=plan.cluster,
            topic=plan.topic,
            cluster_id=state.cluster_id if state else "",
            bootstrap_servers=state.bootstrap_servers if state else "",
            steps=[PartStep.of(step) for step in steps],
            snapshot=snapshot,
            expected_rows=expected_rows,
            scheduled_at=plan.scheduled_at,
            timezone=plan.job.timezone,
            batch_size=plan.batch_size,
            fetch_rows=plan.fetch_rows,
            stop_timeout_s=plan.stop_timeout_s,
            control_topic=plan.control_topic,
            log_payload=plan.log_payload,
            value_schema=plan.value_schema,
            key_schema=plan.key_schema,
            traceparent=self.context.observer.traceparent,
            folder=folder,
            since=since.value if since else "",
            needs=["connections.json", *([f".pstt/{folder}/{KNOWN_FILE}"] if since else [])],
        )

    def _run(self, tasks: Sequence[PartTask], executor: PartExecutor) -> None:
        """Runs parts until each has a result."""
        self.step = "reading"
        self.lines |= {task.index: RunPart(task.index + 1) for task in tasks}
        self._show(now=True)
        try:
            for task in tasks:
                self.tasks[task.index] = task
                executor.start(task)
            while any(task.index not in self.results for task in tasks):
                for event in executor.events(WAIT_S):
                    self._take(event, executor)
                self._cancel_if_needed(executor)
                self._show()
        finally:
            executor.close()
            for task in tasks:
                if task.index not in self.results:
                    error = RunCancelled("the run was cancelled", why="the program was told to end at once")
                    self._add(result_of_lost(self.tasks.get(task.index, task), self.folder, error))
            self._show(now=True)

    def _take(self, event: PartEvent, executor: PartExecutor) -> None:
        if event.index in self.results or event.attempt != self.tasks[event.index].attempt:
            return
        match event:
            case PartProgress():
                self.lines[event.index] = replace(
                    self.lines[event.index],
                    state=event.state,
                    worker=event.worker,
                    rows_read=event.rows_read,
                    acknowledged=event.acknowledged,
                )
            case PartLost():
                self._repeat(event, executor)
            case PartResult():
                self._add(event)

    def _repeat(self, lost: PartLost, executor: PartExecutor) -> None:
        """Starts a lost part again, unless the run ends or the part was lost too often."""
        task = self.tasks[lost.index]
        name = f"part {lost.index + 1} of {task.count}"
        logger.warning("{} was lost: {}", name, lost.why)
        if self.is_cancelled:
            error: PsttError = RunCancelled("the run was cancelled", why=f"{name} did not end in time: {lost.why}")
        elif lost.attempt >= MOST_ATTEMPTS:
            error = RunFailed(
                f"{name} was lost {lost.attempt} times",
                why=lost.why,
                remedy="check memory and disk of the machine; then run the job again",
            )
        else:
            if task.once is None:  # else it is not known yet whether it has committed
                drop_segments(task, self.folder)
            self.warnings.append(f"{name} was repeated: {lost.why}{self._of_repetition()}")
            self.tasks[lost.index] = again = _next_attempt(task)
            self.lines[lost.index] = RunPart(lost.index + 1, "lost", again.attempt, lost.worker)
            executor.start(again)
            return
        self._add(result_of_lost(task, self.folder, error, lost.worker))

    def _of_repetition(self) -> str:
        return "" if self.once else "; messages that it had sent may be on the topic twice, with the same message ids"

    def _add(self, result: PartResult, *, worker: str = "") -> None:
        """Adds the result of a part to the run: counts, rejects and sends."""
        self.results[result.index] = result
        self.context.observer.part(result.index + 1, result.steps)
        self.rows_read += result.rows_read
        self.rejected += result.rejected
        self.left_out += result.left_out
        self.refused += result.refused
        self.acknowledged += result.acknowledged
        self.warnings += result.warnings
        for rejects in rejects_of(result, self.folder):
            self.rejects.add(self.run_id, rejects)
        move_segments(result, self.folder, self.spool_dir)
        error = result.error
        self.lines[result.index] = RunPart(
            result.index + 1,
            _end_state(error),
            result.attempt,
            worker or result.worker,
            result.rows_read,
            result.acknowledged,
            result.rejected,
            result.seconds,
            error.error.text if error else "",
        )

    def _cancel_if_needed(self, executor: PartExecutor) -> None:
        """Ends all parts if the run is cancelled, or if one has failed; those of transactions of their own go on then."""
        if self.is_cancelled:
            return
        has_failed = self.once is None and any(result.error for result in self.results.values())
        if self.context.stop.is_set() or has_failed:
            self.is_cancelled = True
            executor.cancel(self.context.stop.left_s(self.plan.stop_timeout_s) + CANCEL_SLACK_S)

    def _raise_first_error(self) -> None:
        """Raises the error of the part that failed first; that of a cancelled part only if there is no other."""
        errors = [result.error.error for result in self.results.values() if result.error]
        others = [error for error in errors if not isinstance(error, RunCancelled)]
        for error in [*others, *errors]:
            raise error

    def _show(self, *, now: bool = False) -> None:
        """Records how far the parts are, once a second."""
        if not now and monotonic() - self.shown_at < SHOW_EVERY_S:
            return
        self.shown_at = monotonic()
        self.ledger.parts.put(self.run_id, self.lines.values())
        if self.context.progress:
            read, sent, _ = self.counts()
            self.context.progress(read, sent, self.rows_counted)

    def counts(self) -> tuple[int, int, int]:
        """See `RowReader.counts`: the sum over all parts."""
        lines = list(self.lines.values())
        if not lines:
            return KafkaRun.counts(self)
        return (
            sum(line.rows_read for line in lines),
            sum(line.acknowledged for line in lines),
            sum(line.rejected for line in lines),
        )

    def current_step(self) -> RunStep:
        """See `RowReader.current_step`: the step of the slowest part, while parts are running."""
        lines = list(self.lines.values())
        if self.step != "reading" or not lines:
            return self.step
        if self.has_read_all():
            return "waiting"
        return "sending" if any(line.acknowledged for line in lines) else "reading"

    def has_read_all(self) -> bool:
        """See `RowReader.has_read_all`: whether no part reads any more or waits for its start."""
        lines = list(self.lines.values())
        return bool(lines) and not any(line.state in ("waiting", "reading", "lost") for line in lines)

    def own_sends(self) -> SendTotals:
        """See `KafkaRun.own_sends`."""
        return joined(result for result in self.results.values() if result.segments or not result.taken_over)

    def visible_sends(self) -> SendTotals:
        """See `KafkaRun.visible_sends`."""
        return self.sent_before or joined(self.results.values())

    def outcome(self, error: PsttError | None) -> Outcome:
        """See `KafkaRun.outcome`."""
        own = self.own_sends()
        return replace(KafkaRun.outcome(self, error), sent=own.acknowledged + own.failed)

    def close_note(self) -> None:
        """Deletes the files of the parts, once the verdict is recorded; of a transaction only if its end is known."""
        if not any(result.transaction == "unknown" for result in self.results.values()):
            clear_folder(self.folder)


def _next_attempt(task: PartTask) -> PartTask:
    return msgspec.structs.replace(task, attempt=task.attempt + 1)


def _end_state(error: PartError | None) -> PartState:
    if error is None:
        return "succeeded"
    return "cancelled" if error.kind == "RunCancelled" else "failed"
