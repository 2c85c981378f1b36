"""The main job, whole: read rows, make messages, hand them over, account for each, say how it ended."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import msgspec
from loguru import logger

from core.arrival import deleted_since, lost_since
from core.delivery import Sender
from core.envelope import Encoded, Envelope, Reject, iso_utc
from core.errors import MessageRefused, PsttError, RetriesExhausted, RunCancelled, RunFailed, StorageFailed
from core.intake import Intake, LookAtColumns, Progress, Stop, as_asked, end_state, rare_collections, time_left_s
from core.ledger import Ledger, Outcome
from core.model import Batch, Delivery, Destination, Plan, Publisher, Run, Source, TopicState
from core.spool import Spool, Tally

__all__ = ["run_job"]


def run_job(
    plan: Plan,
    source: Source,
    publisher: Publisher,
    sender: Sender,
    ledger: Ledger,
    spool_dir: Path,
    *,
    now: Callable[[], datetime],
    stop: Stop,
    progress: Progress | None = None,
    look_at_columns: LookAtColumns | None = None,
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
        now: The clock, aware UTC.
        stop: Set by somebody who wants the run to end; looked at between batches.
        progress: Told how far the run is.
        look_at_columns: Told the columns of the result before the first message; may refuse them.

    Raises:
        StorageFailed: The ledger itself cannot be written, so there is no verdict.
        LedgerBusy: Another process holds the ledger.
    """
    run = ledger.start(plan, now())
    with logger.contextualize(run=run.run_id):
        course = _Course(
            plan=plan,
            run=run,
            ledger=ledger,
            stop=stop,
            progress=progress,
            look_at_columns=look_at_columns,
            publisher=publisher,
            sender=sender,
            now=now,
        )
        return ledger.finish(run.run_id, course.outcome(_taken(course, source, spool_dir)), now())


def _taken(course: _Course, source: Source, spool_dir: Path) -> PsttError | None:
    """Takes a course to its end, everything recorded; the error that stands."""
    plan = course.plan
    error: PsttError | None = None
    try:
        course.spool = Spool(spool_dir, run_id=course.run.run_id, job=plan.job.slug)
        with rare_collections():
            if plan.job.delivery == "exactly_once":
                course.send_once(source, spool_dir)
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
        except PsttError as failure:
            error = failure
        except KeyboardInterrupt:
            error = _told_to_end()
    return as_asked(error, course.stop)


def _told_to_end() -> RunCancelled:
    return RunCancelled("the run was cancelled", why="the program was told to end at once")


@dataclass(slots=True, kw_only=True)
class _Course(Intake):
    """How far one run has come."""

    publisher: Publisher
    sender: Sender
    now: Callable[[], datetime]
    spool: Spool | None = None
    refused: int = 0
    """Of the rejected: those that were sent and that the broker, or its client, will never take."""
    refusal: MessageRefused | None = None
    """Why the first of them was refused."""
    batches: int = 0
    at_start: TopicState | None = None
    """The topic before the first message."""
    warnings: list[str] = field(default_factory=list)
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

    def send_once(self, source: Source, spool_dir: Path) -> None:
        """Exactly once: all rows are fetched first, then sent with a marker in one transaction.

        The marker tells a later attempt that this one had committed, even if nobody lived to write it down.
        """
        key = f"{self.plan.of_run or self.plan.job.slug}@{iso_utc(self.plan.scheduled_at)}".encode()
        self.find_topic()
        self.publisher.prepare_once(self.plan.control_topic)
        marker = self.publisher.read_control(self.plan.control_topic, key)
        if marker is not None:
            self.recognise(marker)
            return
        aside = spool_dir / f".{self.run.run_id}.rows"
        try:
            with _fetched(aside, self.read(source)) as fetched:
                self.check_whole()
                self.publisher.begin()
                self.commit(fetched, key)
        finally:
            aside.unlink(missing_ok=True)

    def commit(self, fetched: Iterable[tuple[Envelope, Encoded]], key: bytes) -> None:
        """Sends everything and the marker; visible all at once, or never."""
        digest = hashlib.sha256()
        try:
            for envelope, encoded in fetched:
                for message_id in encoded.message_ids:
                    digest.update(message_id)
                self.hand_over(envelope, encoded)
            self.drain()
            if self.refusal:
                raise self.void(self.refusal)
            self.mark(key, digest.hexdigest())
            self.publisher.commit()
        except BaseException:
            self.sender.give_up()
            self.collect()
            with suppress(PsttError):  # the transaction's time-out ends it all the same
                self.publisher.abort()
            self.acknowledged = 0
            raise

    def void(self, refusal: MessageRefused) -> RunFailed:
        """Why a transaction with refused messages is not committed."""
        count = f"{self.refused:,} messages are" if self.refused > 1 else "1 message is"
        return RunFailed(
            f"{count} refused, and exactly_once sends all rows or none",
            why=refusal.text,
            remedy=f"{refusal.remedy}; python -m core rejects {self.run.run_id} lists them",
        )

    def mark(self, key: bytes, digest: str) -> None:
        value = msgspec.json.encode({"run": self.run.run_id, "rows": self.acknowledged, "sha256": digest})
        batch = Batch(0, self.plan.control_topic, [key], [value], [b"0" * 32], [0], self.headers)
        self.sender.submit(batch)
        for delivery in self.sender.drain():
            for failure in delivery.errors.values():
                raise failure

    def recognise(self, marker: bytes) -> None:
        """The topic says that an earlier attempt was whole: nothing is sent again."""
        earlier = msgspec.json.decode(marker)
        self.rows_read = self.acknowledged = int(earlier["rows"])
        self.done_before = Tally(acknowledged=self.acknowledged)

    def hand_over(self, envelope: Envelope, encoded: Encoded) -> None:
        """Hands the rows of one fetch over in batches; each batch is stamped when its turn has come."""
        size = self.plan.batch_size
        for start in range(0, len(encoded.data), size):
            if self.stop.is_set():
                raise RunCancelled("the run was cancelled", why=f"stopped after {self.acknowledged:,} messages")
            end = start + size
            self.batches += 1
            values = envelope.wrap(encoded.data[start:end], extracted_at=encoded.extracted_at, published_at=self.now())
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
        except PsttError as failure:
            # A failing disk outweighs what came before: the sends are not all written down.
            error = failure if error is None or isinstance(failure, StorageFailed) else error
        return error

    def _wind_up(self, error: PsttError) -> None:
        """Waits for what is under way if the run was only cancelled; otherwise the cluster has failed and waiting is vain."""
        deliveries = []
        if not isinstance(error, RetriesExhausted) and not error.is_retriable:
            deliveries = self.sender.drain(time_left_s(self.stop, self.plan.stop_timeout_s))
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
        sent = self.spool.tally.partitions if self.spool else ()
        if self.at_start is None or not sent:
            return
        try:
            after = self.publisher.describe(self.plan.topic)
        except PsttError as failure:
            self.warnings.append(f"the topic could not be looked at after the last message: {failure.text}")
            return
        self.warnings += deleted_since(after, sent)
        lost = lost_since(self.at_start, after, sent, self.spool.tally.falls if self.spool else {}, self.run.run_id)
        if lost is not None:
            raise lost

    def outcome(self, error: PsttError | None) -> Outcome:
        tally = self.done_before or (self.spool.tally if self.spool else Tally())
        once = self.plan.job.delivery == "exactly_once" and error is not None
        acknowledged = 0 if once else tally.acknowledged
        if error is None and self.rows_read != acknowledged + self.rejected:
            error = RunFailed(
                f"{self.rows_read:,} rows read, but {acknowledged:,} acknowledged and {self.rejected:,} rejected",
                why="some rows are not accounted for",
                remedy="report this: it is a defect of PSTT Kafka",
            )
        error = error or self.unexpected()
        failed = tally.failed - self.refused + (tally.acknowledged - acknowledged)
        return Outcome(
            state=end_state(error, acknowledged),
            rows_read=self.rows_read,
            rows_counted=self.rows_counted,
            sent=0 if self.done_before else tally.acknowledged + tally.failed,
            acknowledged=acknowledged,
            rejected=self.rejected,
            failed=failed,
            retried=tally.retried,
            bytes=tally.bytes,
            duration_s=(self.now() - self.run.started_at).total_seconds(),
            latency_avg_ms=tally.average_ms,
            latency_p50_ms=tally.percentile_ms(0.5),
            latency_p90_ms=tally.percentile_ms(0.9),
            latency_p99_ms=tally.percentile_ms(0.99),
            latency_counts=tally.latency_counts,
            partitions=tally.partitions,
            error=error,
            warnings=tuple(self.warnings),
        )


@contextmanager
def _fetched(aside: Path, read: Iterator[tuple[Envelope, Encoded]]) -> Iterator[Iterator[tuple[Envelope, Encoded]]]:
    """Keeps a whole result on disk, so that the transaction is short and memory stays flat."""
    frames = msgspec.msgpack.Encoder()
    envelope: Envelope | None = None
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


def _frames(file: BinaryIO) -> Iterator[Encoded]:
    decoder = msgspec.msgpack.Decoder(tuple[list[int], list[bytes | None], list[bytes], list[bytes], datetime])
    while size := file.read(8):
        numbers, keys, data, ids, extracted_at = decoder.decode(file.read(int.from_bytes(size, "little")))
        yield Encoded(numbers, keys, data, ids, [], extracted_at.astimezone(UTC))
