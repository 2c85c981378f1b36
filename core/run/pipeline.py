"""The whole flow of a run to Kafka: read rows, make messages, publish them, account for each one, return the verdict."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from loguru import logger

from core.errors import PsttError, RunCancelled, RunFailed, StorageFailed
from core.formatting import counted
from core.kafka.sender import Sender
from core.message.envelope import Encoded, Envelope
from core.model.connection import Destination
from core.model.publisher import Publisher, TopicState
from core.model.run import Plan, Reject, Run, Verification
from core.model.source import Increment, Source
from core.model.window import Cursor
from core.records.ledger import Ledger, Outcome
from core.records.send_totals import SendTotals
from core.records.spool import Spool
from core.run.arrival import SentRange, deleted_since, failure_of, lost_since, not_verified
from core.run.exactly_once import ExactlyOnce, SentMarker, decoded
from core.run.incremental import WatermarkRecord, increment_warnings, record_of_watermark, take_record
from core.run.part_markers import refuse_parts
from core.run.pending_transactions import TransactionNote, remove_note, write_note
from core.run.row_reader import REJECTS_AT_ONCE, RunContext, end_state, fewer_collections, with_stop_reason
from core.run.sending import Sending, stored_on_disk
from core.run.settling import drop_aborted, move_to_spool, with_totals

__all__ = ["KafkaRun", "RunMeans", "run_job", "to_verdict"]

AnyKafkaRun = TypeVar("AnyKafkaRun", bound="KafkaRun")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunMeans:
    """What a run to Kafka works with, whether its query is split into parts or not."""

    plan: Plan
    """What is read and where it goes."""
    publisher: Publisher
    """The cluster."""
    ledger: Ledger
    """Where the run and its rejects are recorded."""
    spool_dir: Path
    """Where the sends are recorded."""
    context: RunContext
    """Clock, stop, progress and column check."""
    once: ExactlyOnce | None = None
    """Identifies what is sent exactly once; None: at least once."""
    verify: Callable[[SentRange], Verification] | None = None
    """Reads the messages back when all are acknowledged; None: they are not read back."""
    warnings: tuple[str, ...] = ()
    """What is to be said of the run from the beginning."""

    def begin(self, kind: Callable[..., AnyKafkaRun], sender: Sender, **more: Any) -> AnyKafkaRun:
        """Records the start of a run and returns its state; `more` are the fields that only `kind` has.

        Raises:
            StorageFailed: The ledger cannot be written.
            LedgerBusy: Another process holds the ledger, or sends the same scheduled time.
        """
        run = self.ledger.start(self.plan, self.context.now())
        self.context.observer.started(run)
        return kind(
            plan=self.plan,
            run_id=run.run_id,
            rejects=self.ledger.rejects,
            run=run,
            ledger=self.ledger,
            context=self.context,
            verify=self.verify,
            publisher=self.publisher,
            sender=sender,
            spool_dir=self.spool_dir,
            once=self.once,
            warnings=list(self.warnings),
            **more,
        )


def run_job(means: RunMeans, source: Source, sender: Sender) -> Run:
    """Runs one job once and returns its verdict; errors of the run are in the verdict, not raised.

    The verdict is green only if every row read is acknowledged or rejected, which is counted from
    delivery reports, and after every send is on disk.

    Args:
        means: What the run works with.
        source: The database.
        sender: Publishes batches through the publisher, with retries.

    Raises:
        StorageFailed: The ledger cannot be written, so there is no verdict.
        LedgerBusy: Another process holds the ledger.
    """
    kafka_run = means.begin(KafkaRun, sender)
    with logger.contextualize(run=kafka_run.run_id):
        return to_verdict(kafka_run, lambda: kafka_run.send_all(source))


def to_verdict(kafka_run: KafkaRun, send: Callable[[], None]) -> Run:
    """Sends everything, and records the verdict and how the run was done; raises as `run_job`."""
    with kafka_run.context.published(kafka_run):
        error = _execute(kafka_run, send)
        kafka_run.step = "recording"
        outcome = kafka_run.outcome(error)
        with kafka_run.context.observer.step("record"):
            ended = kafka_run.ledger.finish(kafka_run.run_id, outcome, kafka_run.context.now())
    kafka_run.close_note()
    return ended


def _execute(kafka_run: KafkaRun, send: Callable[[], None]) -> PsttError | None:
    """Runs to the end and records everything; returns the error of the run, None if it succeeded."""
    error: PsttError | None = None
    try:
        with fewer_collections():
            send()
    except PsttError as failure:
        error = failure
    except KeyboardInterrupt:
        error = _ended_at_once()
    error = kafka_run.settle(error)
    if error is None:
        kafka_run.step = "verifying"
        try:
            kafka_run.check_topic()
            kafka_run.verify_messages()
        except PsttError as failure:
            error = failure
        except KeyboardInterrupt:
            error = _ended_at_once()
    return with_stop_reason(error, kafka_run.context.stop)


def _ended_at_once() -> RunCancelled:
    return RunCancelled("the run was cancelled", why="the program was told to end at once")


@dataclass(slots=True, kw_only=True)
class KafkaRun(Sending):
    """The state of one run to Kafka, and its steps."""

    run: Run
    ledger: Ledger
    verify: Callable[[SentRange], Verification] | None = None
    at_start: TopicState | None = None
    """The topic before the first message."""
    warnings: list[str] = field(default_factory=list)
    spool_dir: Path
    once: ExactlyOnce | None = None
    """What is sent exactly once; None: at least once."""
    is_placed: bool = False
    """Whether the sends were moved to the spool, or dropped, as the transaction ended."""
    sent_before: SendTotals | None = None
    """The sends of an earlier attempt that had sent everything exactly once."""

    def send_all(self, source: Source) -> None:
        """Reads and sends all rows, as the job wants them delivered."""
        folder = self.once.folder if self.once else self.spool_dir
        self.spool = Spool(folder, run_id=self.run_id, job=self.plan.job.slug)
        if self.once:
            self.send_once(source, self.once)
        else:
            self.send(source)

    def send(self, source: Source) -> None:
        """At least once: publishes rows while the next ones are read."""
        self.find_topic()
        for envelope, encoded in self.read(source):
            self.step = "sending"
            self.publish(envelope, encoded)
        self.drain()
        self.check_row_count()

    def find_topic(self) -> TopicState:
        """Finds the topic, which may be created by this, and records its identity before the first message."""
        if self.context.prepare_topic is not None:
            self.warnings += self.context.prepare_topic(self.publisher)
        self.publisher.require_topic(self.plan.topic)
        self.at_start = self.publisher.describe(self.plan.topic)
        self.ledger.place(self.run.run_id, self.at_start)
        if self.spool:
            found = self.at_start
            self.spool.destination = Destination(self.plan.cluster, found.cluster_id, found.bootstrap_servers)
        return self.at_start

    def send_once(self, source: Source, once: ExactlyOnce) -> None:
        """Exactly once: fetches all rows first, then sends them and a marker in one transaction.

        A later attempt reads from the marker that this one had committed, even if this process died before it recorded it.
        """
        state = self.find_topic()
        self.publisher.prepare_once(self.plan.control_topic)
        once, found = self.read_markers(once)
        marker = once.earlier(found, self.ledger, state)
        if marker is not None:
            self.take_over(marker)
            return
        if once.parts_key in found:
            raise refuse_parts(once, found[once.parts_key])
        with stored_on_disk(once.folder / f"{self.run.run_id}.rows", self.read(source)) as fetched:
            self.check_row_count()
            if self.rows_read > self.rejected:  # a run without messages sends nothing twice
                self.commit(once, state, fetched)

    def read_markers(self, once: ExactlyOnce) -> tuple[ExactlyOnce, dict[bytes, bytes]]:
        """Returns the records of the control topic, and what is sent once: from a newer watermark if they have one."""
        topic = self.plan.control_topic
        found = dict(self.publisher.read_control(topic, once.keys))
        raw = found.get(once.watermark_key) if self.plan.window else None
        if raw is None:
            return once, found
        plan = take_record(self.ledger, self.plan, decoded(raw, WatermarkRecord), self.context.now())
        if plan is self.plan:
            return once, found
        self.plan = plan
        self.once = replace(once, plan=plan)
        return self.once, dict(self.publisher.read_control(topic, self.once.keys))

    def note_increment(self, found: Increment) -> None:
        """Records what an incremental job reads, before it reads."""
        window, incremental = self.plan.window, self.plan.job.incremental
        if window is not None and incremental is not None:
            self.ledger.watermarks.put_window(self.run_id, self.plan.job.slug, incremental, window, found)
            self.warnings += increment_warnings(self.plan, found.nulls)

    @property
    def high(self) -> Cursor | None:
        """The position up to which this run reads; None: it has no new row, or is not incremental."""
        return self.increment.high if self.increment else None

    def end_at(self, high: Cursor | None) -> None:
        """Takes over up to which position of an incremental job an earlier attempt has sent its rows."""
        if self.plan.window is not None:
            self.increment = Increment((), (), high)
            self.note_increment(self.increment)

    @property
    def end(self) -> Cursor | None:
        """The position of the watermark after this run; where it sends only late rows, that from which it started."""
        return self.high or (self.plan.window.low if self.plan.window and self.plan.window.since else None)

    def moved_to(self, error: PsttError | None) -> Cursor | None:
        """Returns where the watermark moves: with the transaction of exactly_once, else with a balanced run.

        It also gets a new version where only late rows were sent, since the marker of exactly_once is named by that.
        """
        if self.plan.window is None or not self.plan.window.moves:
            return None
        if self.once:
            return self.end if self.is_committed else None
        if error is not None:
            return None
        return self.end if self.acknowledged else self.high if self.left_out else None

    @property
    def is_committed(self) -> bool:
        """Whether everything of exactly_once is committed."""
        return self.transaction == "committed" or self.sent_before is not None

    def commit(self, once: ExactlyOnce, state: TopicState, fetched: Iterable[tuple[Envelope, Encoded]]) -> None:
        """Sends all messages and the marker in one transaction: readers see all of them, or none."""
        write_note(once.folder, self.note(once, state))
        self.send_in_transaction(fetched, lambda digest: self.markers(once, state, digest))

    def note(self, once: ExactlyOnce, state: TopicState) -> TransactionNote:
        """Returns the note from which a later process finds out whether this transaction was committed."""
        error = self.expectation_error()
        return TransactionNote(
            run=self.run.run_id,
            job=self.plan.job.slug,
            cluster=once.cluster_key,
            topic=state.topic,
            topic_id=state.topic_id,
            cluster_id=state.cluster_id,
            control_topic=self.plan.control_topic,
            transactional_id=once.transactional_id,
            key=once.key.decode(),
            rows_read=self.rows_read,
            rejected=self.rejected,
            rows_counted=self.rows_counted,
            unexpected=(error.what, error.why, error.remedy) if error else ("", "", ""),
        )

    def markers(self, once: ExactlyOnce, state: TopicState, digest: str) -> dict[bytes, bytes]:
        """Returns the marker, and that this workspace was the last sender, as records of the control topic."""
        now = self.context.now()
        marker = once.marker(
            self.run,
            rows=self.acknowledged,
            read=self.rows_read,
            rejected=self.rejected,
            sha256=digest,
            state=state,
            now=now,
            high=self.end if self.plan.window and self.plan.window.moves else None,
        )
        records = {once.key: marker, once.last_sender_key: once.last_sender(self.run, now)}
        window, incremental = self.plan.window, self.plan.job.incremental
        if window is not None and incremental is not None and window.moves and self.end is not None:
            record = record_of_watermark(self.run_id, incremental, window.version + 1, self.end, now)
            records[once.watermark_key] = record
        return records

    def take_over(self, marker: SentMarker) -> None:
        """Takes over the result of an earlier attempt that had sent everything; nothing is sent again."""
        self.ledger.recognise(self.run.run_id, marker.run)
        self.take_over_rejects(self.ledger.rejects.of_run(marker.run))
        self.rejected = marker.rejected
        self.rows_read = marker.rows_read
        self.acknowledged = marker.rows
        self.end_at(marker.moved_to)
        self.sent_before = marker.recorded_sends(self.spool_dir, marker.run) or SendTotals(acknowledged=marker.rows)

    def take_over_rejects(self, rejects: Iterator[Reject]) -> None:
        """Records rejects of an earlier attempt as those of this run."""
        while some := list(islice(rejects, REJECTS_AT_ONCE)):
            self.rejects.add(self.run_id, some)

    def settle(self, error: PsttError | None) -> PsttError | None:
        """Finishes every message in flight and writes all sends to disk; returns the error of the run."""
        try:
            if error is not None:
                self.finish_sending(error)
            if self.spool:
                self.spool.close()
            self._place_sends()
        except PsttError as failure:
            # A failing disk outweighs an earlier error: not all sends are recorded.
            error = failure if error is None or isinstance(failure, StorageFailed) else error
        return error

    def _place_sends(self) -> None:
        """Moves the sends of a committed transaction to the spool, or drops those of an aborted one."""
        if self.once is None or self.transaction not in ("committed", "aborted"):
            return
        move = move_to_spool if self.transaction == "committed" else drop_aborted
        move(self.once.folder, self.spool_dir, self.run.run_id)
        self.is_placed = True

    def close_note(self) -> None:
        """Deletes the note of the transaction; called when the verdict is recorded."""
        if self.once is not None and self.is_placed:
            with suppress(PsttError):  # else `settle` deletes it
                remove_note(self.once.folder, self.run.run_id)

    def check_topic(self) -> None:
        """Checks, once every message is acknowledged, that the topic is the same one and can hold them all.

        Raises:
            MessagesLost: It cannot.
        """
        tally = self.visible_sends()
        if self.at_start is None or not (sent := tally.placed):
            return
        try:
            after = self.publisher.describe(self.plan.topic)
        except PsttError as failure:
            self.warnings.append(f"the topic could not be looked at after the last message: {failure.text}")
            return
        self.warnings += deleted_since(after, sent)
        lost = lost_since(self.at_start, after, sent, tally.falls, self.run.run_id)
        if lost is not None:
            raise lost

    def verify_messages(self) -> None:
        """Reads the messages back if the job asks for it; stores the answer in any case.

        Raises:
            VerificationFailed: They are not all on the topic as they were sent, or could not be read.
        """
        tally, topic = self.own_sends(), self.at_start
        if self.verify is None or topic is None or not tally.acknowledged:
            return
        sent = SentRange(
            self.run.run_id, topic.topic, topic.cluster_id, topic.topic_id, tally.placed, tally.acknowledged
        )
        try:
            found = self.verify(sent)
        except RunCancelled:
            raise
        except PsttError as failure:
            raise not_verified(sent, failure) from None
        self.ledger.add_verification(found)
        failed = failure_of(found, topic.topic, may_repeat=self.plan.job.delivery != "exactly_once")
        if failed is not None:
            raise failed
        if found.answer != "complete":
            count = found.duplicates or found.not_verifiable
            text = f"{counted(count, 'message')} could not be verified"
            if found.duplicates:
                text = f"{counted(count, 'message')} {'is' if count == 1 else 'are'} on the topic twice, as at_least_once allows"
            self.warnings.append(text + (f": {found.reason}" if found.reason else ""))

    def outcome(self, error: PsttError | None) -> Outcome:
        """Returns the verdict with its numbers."""
        tally = self.visible_sends()
        if error is None and self.rows_read != tally.acknowledged + self.rejected:
            error = RunFailed(
                f"{self.rows_read:,} rows read, but {tally.acknowledged:,} acknowledged and {self.rejected:,} rejected",
                why="some rows are not accounted for",
                remedy="report this: it is a defect of PSTT Kafka",
            )
        error = error or self.expectation_error()
        outcome = Outcome(
            state=end_state(error, tally.acknowledged),
            rows_read=self.rows_read,
            rows_counted=self.rows_counted,
            sent=0 if self.sent_before else tally.acknowledged + tally.failed,
            acknowledged=tally.acknowledged,
            rejected=self.rejected,
            arrived_before=self.arrived_before,
            failed=tally.failed - self.refused,
            duration_s=(self.context.now() - self.run.started_at).total_seconds(),
            error=error,
            warnings=(*self.warnings, *(self.context.schemas.notes if self.context.schemas else ())),
            moved_to=self.moved_to(error),
        )
        return with_totals(outcome, tally)

    def own_sends(self) -> SendTotals:
        """Returns the sends of this run itself."""
        return self.spool.totals if self.spool else SendTotals()

    def visible_sends(self) -> SendTotals:
        """Returns the sends that readers of the topic can see: none of a transaction that was not committed."""
        tally = self.sent_before or self.own_sends()
        if self.once is None or self.sent_before or self.transaction == "committed":
            return tally
        return SendTotals(failed=tally.failed + tally.acknowledged, retried=tally.retried)
