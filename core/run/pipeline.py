"""The main job, whole: read rows, make messages, hand them over, account for each, say how it ended."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Literal

import msgspec
from loguru import logger

from core.errors import MessageRefused, PsttError, RetriesExhausted, RunCancelled, RunFailed, StorageFailed
from core.kafka.sender import Sender
from core.message.envelope import Encoded, Envelope
from core.model.connection import Destination
from core.model.publisher import Batch, Delivery, Publisher, TopicState
from core.model.run import Plan, Reject, Run, Verification
from core.model.source import Source
from core.records.ledger import Ledger, Outcome
from core.records.spool import Spool, Tally, sent_by
from core.run.arrival import SentRange, deleted_since, failure_of, lost_since, not_verified
from core.run.exactly_once import ExactlyOnce, Marker
from core.run.pending import TransactionNote, forget, keep
from core.run.row_reader import RowReader, RunContext, as_asked, end_state, rare_collections
from core.run.settling import discard, measured, release

__all__ = ["run_job"]

REJECTS_AT_ONCE = 1000


def run_job(
    plan: Plan,
    source: Source,
    publisher: Publisher,
    sender: Sender,
    ledger: Ledger,
    spool_dir: Path,
    *,
    context: RunContext,
    once: ExactlyOnce | None = None,
    verify: Callable[[SentRange], Verification] | None = None,
) -> Run:
    """Runs one job once and returns its verdict; errors of the run are in the verdict, not raised.

    The verdict is green only if every row read is acknowledged or rejected, which is counted from
    delivery reports, and after every send is on disk.

    Args:
        plan: What is read and where it goes.
        source: The database.
        publisher: The cluster.
        sender: Hands batches to `publisher` and tries them again.
        ledger: Where run and rejects are written.
        spool_dir: Where the sends are written.
        context: Clock, stop, progress and column check.
        once: Names what is sent exactly once; None: at least once.
        verify: Reads back what was sent, once all of it is acknowledged; None: nobody does.

    Raises:
        StorageFailed: The ledger itself cannot be written, so there is no verdict.
        LedgerBusy: Another process holds the ledger.
    """
    run = ledger.start(plan, context.now())
    with logger.contextualize(run=run.run_id):
        course = _KafkaRun(
            plan=plan,
            run=run,
            ledger=ledger,
            context=context,
            verify=verify,
            publisher=publisher,
            sender=sender,
            spool_dir=spool_dir,
            once=once,
        )
        ended = ledger.finish(run.run_id, course.outcome(_taken(course, source)), context.now())
        course.forget()
        return ended


def _taken(course: _KafkaRun, source: Source) -> PsttError | None:
    """Takes a course to its end, everything recorded; the error that stands."""
    error: PsttError | None = None
    try:
        folder = course.once.folder if course.once else course.spool_dir
        course.spool = Spool(folder, run_id=course.run.run_id, job=course.plan.job.slug)
        with rare_collections():
            if course.once:
                course.send_once(source, course.once)
            else:
                course.send(source)
    except PsttError as failure:
        error = failure
    except KeyboardInterrupt:
        error = _told_to_end()
    error = course.settle(error)
    if error is None:
        try:
            course.look_again()
            course.read_back()
        except PsttError as failure:
            error = failure
        except KeyboardInterrupt:
            error = _told_to_end()
    return as_asked(error, course.context.stop)


def _told_to_end() -> RunCancelled:
    return RunCancelled("the run was cancelled", why="the program was told to end at once")


@dataclass(slots=True, kw_only=True)
class _KafkaRun(RowReader):
    """How far one run has come."""

    publisher: Publisher
    sender: Sender
    verify: Callable[[SentRange], Verification] | None = None
    spool: Spool | None = None
    refused: int = 0
    """Of the rejected: those that were sent and that the broker, or its client, will never take."""
    refusal: MessageRefused | None = None
    """Why the first of them was refused."""
    batches: int = 0
    at_start: TopicState | None = None
    """The topic before the first message."""
    warnings: list[str] = field(default_factory=list)
    spool_dir: Path
    once: ExactlyOnce | None = None
    """What is sent exactly once; None: at least once."""
    fate: Literal["", "unknown", "committed", "aborted"] = ""
    """Of the transaction; empty: there was none."""
    is_settled: bool = False
    """Whether the sends are where the transaction's fate wants them."""
    done_before: Tally | None = None
    """An earlier attempt that had sent everything exactly once."""
    headers: tuple[tuple[str, bytes], ...] = field(default=())

    def __post_init__(self) -> None:
        job = self.plan.job
        own = tuple((name, value.encode()) for name, value in job.headers.items())
        self.headers = (("run_id", self.run.run_id.encode()), ("job", job.name.encode()), *own)

    def send(self, source: Source) -> None:
        """At least once: rows are handed over while the next ones are read."""
        self.find_topic()
        for envelope, encoded in self.read(source):
            self.hand_over(envelope, encoded)
        self.drain()
        self.check_whole()

    def find_topic(self) -> TopicState:
        """Has the topic made where it is made on first use, and writes down which one it is before the first message."""
        self.publisher.require_topic(self.plan.topic)
        self.at_start = self.publisher.describe(self.plan.topic)
        self.ledger.place(self.run.run_id, self.at_start)
        if self.spool:
            found = self.at_start
            self.spool.destination = Destination(self.plan.cluster, found.cluster_id, found.bootstrap_servers)
        return self.at_start

    def send_once(self, source: Source, once: ExactlyOnce) -> None:
        """Exactly once: all rows are fetched first, then sent with a marker in one transaction.

        The marker tells a later attempt that this one had committed, even if nobody lived to write it down.
        """
        state = self.find_topic()
        self.publisher.prepare_once(self.plan.control_topic)
        found = self.publisher.read_control(self.plan.control_topic, once.keys)
        marker = once.earlier(found, self.ledger, state)
        if marker is not None:
            self.recognise(marker)
            return
        with _fetched(once.folder / f"{self.run.run_id}.rows", self.read(source)) as fetched:
            self.check_whole()
            if self.rows_read > self.rejected:  # of a run without messages there is nothing that could be sent twice
                self.commit(once, state, fetched)

    def commit(self, once: ExactlyOnce, state: TopicState, fetched: Iterable[tuple[Envelope, Encoded]]) -> None:
        """Sends everything and the marker; visible all at once, or never."""
        digest = hashlib.sha256()
        self.fate = "unknown"
        keep(once.folder, self.note(once, state))
        try:
            self.publisher.begin()
            for envelope, encoded in fetched:
                for message_id in encoded.message_ids:
                    digest.update(message_id)
                self.hand_over(envelope, encoded)
            self.drain()
            if self.refusal:
                raise self.void(self.refusal)
            self.mark(once, state, digest.hexdigest())
            if self.spool:
                self.spool.close()  # every send is on disk before anybody can see it
            self.publisher.commit()
        except BaseException:
            self.abort()
            raise
        self.fate = "committed"

    def void(self, refusal: MessageRefused) -> RunFailed:
        """Why a transaction with refused messages is not committed."""
        count = f"{self.refused:,} messages are" if self.refused > 1 else "1 message is"
        return RunFailed(
            f"{count} refused, and exactly_once sends all rows or none",
            why=refusal.text,
            remedy=f"{refusal.remedy}; python -m core rejects {self.run.run_id} lists them",
        )

    def abort(self) -> None:
        """Ends the transaction without its messages; where the cluster does not say so, the marker decides later."""
        self.acknowledged = 0
        with suppress(PsttError):
            self.account(self.sender.give_up())
        self.acknowledged = 0
        with suppress(PsttError):
            self.publisher.abort()
            self.fate = "aborted"

    def note(self, once: ExactlyOnce, state: TopicState) -> TransactionNote:
        """How a later process finds out what became of this transaction."""
        unexpected = self.unexpected()
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
            unexpected=(unexpected.what, unexpected.why, unexpected.remedy) if unexpected else ("", "", ""),
        )

    def mark(self, once: ExactlyOnce, state: TopicState, digest: str) -> None:
        now = self.context.now()
        marker = once.marker(
            self.run,
            rows=self.acknowledged,
            read=self.rows_read,
            rejected=self.rejected,
            sha256=digest,
            state=state,
            now=now,
        )
        keys: list[bytes | None] = [once.key, once.holder_key]
        values = [marker, once.holder(self.run, now)]
        self.sender.submit(Batch(0, self.plan.control_topic, keys, values, [b"0" * 32] * 2, [0, 0], self.headers))
        for delivery in self.sender.drain():
            for failure in delivery.errors.values():
                raise failure

    def recognise(self, marker: Marker) -> None:
        """The topic says that an earlier attempt was whole: nothing is sent again."""
        self.ledger.recognise(self.run.run_id, marker.run)
        rejects = self.ledger.rejects(marker.run)
        while some := list(islice(rejects, REJECTS_AT_ONCE)):
            self.ledger.add_rejects(self.run.run_id, some)
        self.rejected = marker.rejected
        self.rows_read = marker.rows + marker.rejected if marker.read is None else marker.read
        self.acknowledged = marker.rows
        sends = Tally()
        with suppress(StorageFailed):  # a damaged segment is told elsewhere; the marker counts
            sends = sent_by(self.spool_dir, marker.run)
        is_whole = sends.acknowledged == marker.rows
        self.done_before = replace(sends, failed=0, retried=0) if is_whole else Tally(acknowledged=marker.rows)

    def hand_over(self, envelope: Envelope, encoded: Encoded) -> None:
        """Hands the rows of one fetch over in batches; each batch is stamped when its turn has come."""
        size = self.plan.batch_size
        for start in range(0, len(encoded.data), size):
            if self.context.stop.is_set():
                raise RunCancelled("the run was cancelled", why=f"stopped after {self.acknowledged:,} messages")
            end = start + size
            self.batches += 1
            values = envelope.wrap(
                encoded.data[start:end], extracted_at=encoded.extracted_at, published_at=self.context.now()
            )
            self.sender.submit(
                Batch(
                    self.batches,
                    self.plan.topic,
                    encoded.keys[start:end],
                    values,
                    encoded.message_ids[start:end],
                    encoded.row_numbers[start:end],
                    self.headers,
                )
            )
            self.collect()

    def drain(self) -> None:
        self.account(self.sender.drain())

    def collect(self) -> None:
        self.account(self.sender.finished())

    def account(self, deliveries: list[Delivery]) -> None:
        """Writes finished batches down, and stops the run at the first failure that the next batch would meet too."""
        failure: PsttError | None = None
        for delivery in deliveries:
            self._record(delivery)
            self.acknowledged += delivery.acknowledged
            refused = {index: e for index, e in delivery.errors.items() if isinstance(e, MessageRefused)}
            others = (error for error in delivery.errors.values() if not isinstance(error, MessageRefused))
            # Every delivery is written down before the run ends for one of them.
            failure = self._reject_refused(delivery.batch, refused) or failure or next(others, None)
        if failure and self.refusal and self.plan.job.delivery == "exactly_once":
            raise self.void(self.refusal)  # the others of the transaction only fail with it
        if failure:
            raise failure

    def _record(self, delivery: Delivery) -> None:
        self._log(delivery)
        if self.spool and delivery.batch.topic != self.plan.control_topic:
            self.spool.record(delivery)

    def _log(self, delivery: Delivery) -> None:
        batch = delivery.batch
        entry = logger.bind(batch=batch.number)
        entry.debug("batch {}: {} of {} acknowledged", batch.number, delivery.acknowledged, len(batch))
        if self.plan.log_payload:
            for index, error in delivery.errors.items():
                value = batch.values[index].decode("utf-8", "replace")
                entry.debug("row {} not acknowledged: {}: {}", batch.row_numbers[index], error.text, value)

    def _reject_refused(self, batch: Batch, refused: Mapping[int, MessageRefused]) -> RunFailed | None:
        """Puts the rows of refused messages aside; the error where the job wants to end at the first one."""
        if not refused:
            return None
        self.refused += len(refused)
        self.refusal = self.refusal or next(iter(refused.values()))
        keys = {index: key.decode("utf-8", "replace") for index in refused if (key := batch.keys[index]) is not None}
        rejects = [
            Reject(batch.row_numbers[index], "", "", str(error), key=keys.get(index))
            for index, error in sorted(refused.items())
        ]
        try:
            self.reject(rejects)
        except RunFailed as failure:
            return failure
        return None

    def settle(self, error: PsttError | None) -> PsttError | None:
        """Brings every message under way to an end and everything recorded to disk; the error that stands."""
        try:
            if error is not None:
                self._wind_up(error)
            if self.spool:
                self.spool.close()
            self._place_sends()
        except PsttError as failure:
            # A failing disk outweighs what came before: the sends are not all written down.
            error = failure if error is None or isinstance(failure, StorageFailed) else error
        return error

    def _place_sends(self) -> None:
        """Puts the sends of a transaction where they belong, now that it is known whether they happened."""
        if self.once is None or self.fate not in ("committed", "aborted"):
            return
        place = release if self.fate == "committed" else discard
        place(self.once.folder, self.spool_dir, self.run.run_id)
        self.is_settled = True

    def forget(self) -> None:
        """Removes the note of a transaction, once the verdict is written."""
        if self.once is not None and self.is_settled:
            with suppress(PsttError):  # `settle` removes it
                forget(self.once.folder, self.run.run_id)

    def _wind_up(self, error: PsttError) -> None:
        """Waits for what is under way if the run was only cancelled; otherwise the cluster has failed and waiting is vain."""
        deliveries = []
        if not isinstance(error, RetriesExhausted) and not error.is_retriable:
            deliveries = self.sender.drain(self.context.stop.left_s(self.plan.stop_timeout_s))
        deliveries += self.sender.give_up()
        for delivery in deliveries:
            with suppress(RunFailed):
                self._record(delivery)
            self.acknowledged += delivery.acknowledged

    def look_again(self) -> None:
        """Every message is acknowledged: looks whether the topic is still the one of before, and can hold them all.

        Raises:
            MessagesLost: It cannot.
        """
        tally = self._seen()
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

    def read_back(self) -> None:
        """Has the messages read back, where the job wants that; the answer is kept whatever it is.

        Raises:
            VerificationFailed: They are not all there as they were sent, or could not be read.
        """
        if self.verify is None or self.at_start is None or self.spool is None or not self.spool.tally.acknowledged:
            return
        tally, place = self.spool.tally, self.at_start
        sent = SentRange(
            self.run.run_id, place.topic, place.cluster_id, place.topic_id, tally.placed, tally.acknowledged
        )
        try:
            found = self.verify(sent)
        except RunCancelled:
            raise
        except PsttError as failure:
            raise not_verified(sent, failure) from None
        self.ledger.add_verification(found)
        failed = failure_of(found, place.topic, may_repeat=self.plan.job.delivery != "exactly_once")
        if failed is not None:
            raise failed
        if found.answer != "complete":
            count = found.duplicates or found.not_verifiable
            words = "are on the topic twice, as at_least_once allows" if found.duplicates else "could not be verified"
            self.warnings.append(f"{count:,} messages {words}" + (f": {found.reason}" if found.reason else ""))

    def outcome(self, error: PsttError | None) -> Outcome:
        tally = self._seen()
        if error is None and self.rows_read != tally.acknowledged + self.rejected:
            error = RunFailed(
                f"{self.rows_read:,} rows read, but {tally.acknowledged:,} acknowledged and {self.rejected:,} rejected",
                why="some rows are not accounted for",
                remedy="report this: it is a defect of PSTT Kafka",
            )
        error = error or self.unexpected()
        outcome = Outcome(
            state=end_state(error, tally.acknowledged),
            rows_read=self.rows_read,
            rows_counted=self.rows_counted,
            sent=0 if self.done_before else tally.acknowledged + tally.failed,
            acknowledged=tally.acknowledged,
            rejected=self.rejected,
            failed=tally.failed - self.refused,
            duration_s=(self.context.now() - self.run.started_at).total_seconds(),
            error=error,
            warnings=tuple(self.warnings),
        )
        return measured(outcome, tally)

    def _seen(self) -> Tally:
        """What the readers of the topic can see: of a transaction that was not committed, nothing."""
        tally = self.done_before or (self.spool.tally if self.spool else Tally())
        if self.once is None or self.done_before or self.fate == "committed":
            return tally
        return Tally(failed=tally.failed + tally.acknowledged, retried=tally.retried)


@contextmanager
def _fetched(aside: Path, read: Iterator[tuple[Envelope, Encoded]]) -> Iterator[Iterator[tuple[Envelope, Encoded]]]:
    """Keeps a whole result on disk, so that the transaction is short and memory stays flat; removes it in the end."""
    frames = msgspec.msgpack.Encoder()
    envelope: Envelope | None = None
    try:
        try:
            with aside.open("wb") as file:
                for envelope, encoded in read:  # noqa: B007 - there is one envelope a run
                    frame = frames.encode(
                        (encoded.row_numbers, encoded.keys, encoded.data, encoded.message_ids, encoded.extracted_at)
                    )
                    file.write(len(frame).to_bytes(8, "little"))
                    file.write(frame)
        except OSError as error:
            raise StorageFailed(
                f"the rows cannot be kept in {aside.parent}",
                why=error.strerror or str(error),
                remedy="make room on that disk",
            ) from None
        with aside.open("rb") as file:
            yield ((envelope, encoded) for encoded in _frames(file)) if envelope else iter(())
    finally:
        with suppress(OSError):  # it is swept when the next run begins
            aside.unlink(missing_ok=True)


def _frames(file: BinaryIO) -> Iterator[Encoded]:
    decoder = msgspec.msgpack.Decoder(tuple[list[int], list[bytes | None], list[bytes], list[bytes], datetime])
    while size := file.read(8):
        numbers, keys, data, ids, extracted_at = decoder.decode(file.read(int.from_bytes(size, "little")))
        yield Encoded(numbers, keys, data, ids, [], extracted_at.astimezone(UTC))
