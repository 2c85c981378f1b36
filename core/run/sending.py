"""The sending side of a run, or of one part of it: publishes rows, accounts for each message, ends what is in flight."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Literal

import msgspec
from loguru import logger

from core.errors import MessageRefused, PsttError, RetriesExhausted, RunCancelled, RunFailed, StorageFailed
from core.formatting import counted
from core.kafka.sender import Sender
from core.message.envelope import Encoded, Envelope
from core.message.record_fields import RowFields, fixed_headers
from core.model.publisher import Batch, Delivery, Publisher
from core.model.run import Reject
from core.records.spool import Spool
from core.run.row_reader import RowReader

__all__ = ["Sending", "stored_on_disk"]

_Frame = tuple[
    list[int],
    list[bytes | None],
    list[bytes],
    list[bytes],
    datetime,
    RowFields,
    list[bool] | None,
    list[bytes | None] | None,
]
"""The rows of one fetch on disk: the fields of `Encoded` but its rejects, which are recorded already."""


@dataclass(slots=True, kw_only=True)
class Sending(RowReader):
    """What a run to Kafka and a part of one have in common."""

    publisher: Publisher
    sender: Sender
    spool: Spool | None = None
    refused: int = 0
    """How many of the rejected rows were sent and refused for good by the broker or its client."""
    refusal: MessageRefused | None = None
    """Why the first of them was refused."""
    batches: int = 0
    transaction: Literal["", "unknown", "committed", "aborted"] = ""
    """Its state; empty: there was none. `unknown`: the cluster has not answered."""
    headers: tuple[tuple[str, bytes], ...] = field(default=())
    topic_partitions: int = 0
    """How many partitions the topic has; 0: not known yet. Only a job with a partitioner of its own needs it."""

    def __post_init__(self) -> None:
        job = self.plan.job
        self.headers = (("run_id", self.run_id.encode()), ("job", job.name.encode()), *fixed_headers(job))
        if job.kafka_config.traceparent and self.context.observer.traceparent:
            self.headers += (("traceparent", self.context.observer.traceparent.encode()),)

    def publish(self, envelope: Envelope, encoded: Encoded) -> None:
        """Publishes the rows of one fetch as one block; each `batch_size` of them get their timestamp together."""
        size, now, values = self.plan.batch_size, self.context.now, list[bytes | None]()
        step = self.context.observer.step
        with step("encode"):
            for start in range(0, len(encoded.data), size):
                values += envelope.values(encoded, published_at=now(), start=start, stop=start + size)
        if self.context.stop.is_set():
            raise RunCancelled("the run was cancelled", why=f"stopped after {counted(self.acknowledged, 'message')}")
        self.batches += 1
        batch = Batch(
            self.batches,
            self.plan.topic,
            encoded.keys,
            values,
            encoded.message_ids,
            encoded.row_numbers,
            self.headers + envelope.headers(encoded),
            encoded.fields.headers + envelope.header_columns(encoded),
            encoded.fields.timestamps_ms,
            self._partitions(encoded),
            encoded.key_texts,
        )
        with step("send"):
            self.sender.submit(batch)
        self.account(self.sender.finished())

    def _partitions(self, encoded: Encoded) -> list[int] | None:
        """Returns the partition of each message; None: the client places them by their keys."""
        config = self.plan.job.kafka_config
        if config.partitioner == "murmur2":
            return None
        from core.kafka.partitioning import places  # imports numpy, 70 ms

        if not self.topic_partitions:
            self.topic_partitions = len(self.publisher.describe(self.plan.topic).partitions)
        return places(
            config, self.plan.topic, self.topic_partitions, encoded.row_numbers, encoded.fields.placed_by or ()
        )

    def counts(self) -> tuple[int, int, int]:
        """See `RowReader.counts`; batches that have ended and are not accounted for yet count too."""
        rows_read, acknowledged, rejected = RowReader.counts(self)
        return rows_read, acknowledged + self.sender.acknowledged_unclaimed(), rejected

    def drain(self) -> None:
        """Waits until no message is in flight."""
        self.step = "waiting"
        with self.context.observer.step("send"):
            deliveries = self.sender.drain()
        self.account(deliveries)

    def account(self, deliveries: list[Delivery]) -> None:
        """Records finished batches; raises the first failure that the next batch would meet too."""
        failure: PsttError | None = None
        for delivery in deliveries:
            with self.context.observer.step("record"):
                self._record(delivery)
            self.acknowledged += delivery.acknowledged
            refused = {index: e for index, e in delivery.errors.items() if isinstance(e, MessageRefused)}
            others = (error for error in delivery.errors.values() if not isinstance(error, MessageRefused))
            # Every delivery is recorded before the run ends because of one of them.
            failure = self._reject_refused(delivery.batch, refused) or failure or next(others, None)
        if failure and self.refusal and self.plan.job.delivery == "exactly_once":
            raise self.refused_transaction(self.refusal)  # the other messages fail because of it
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
                value = (batch.values[index] or b"").decode("utf-8", "replace")
                entry.debug("row {} not acknowledged: {}: {}", batch.row_numbers[index], error.text, value)

    def _reject_refused(self, batch: Batch, refused: Mapping[int, MessageRefused]) -> RunFailed | None:
        """Records refused messages as rejects; returns an error if the job ends at the first one."""
        if not refused:
            return None
        self.refused += len(refused)
        self.refusal = self.refusal or next(iter(refused.values()))
        keys = {
            index: key.decode("utf-8", "replace")
            for index in refused
            if (key := batch.readable_keys[index]) is not None
        }
        rejects = [
            Reject(batch.row_numbers[index], "", "", str(error), key=keys.get(index))
            for index, error in sorted(refused.items())
        ]
        try:
            self.reject(rejects)
        except RunFailed as failure:
            return failure
        return None

    def send_in_transaction(
        self, fetched: Iterable[tuple[Envelope, Encoded]], records: Callable[[str], Mapping[bytes, bytes]]
    ) -> None:
        """Sends all messages and these records of the control topic in one transaction: readers see all of them, or none.

        Args:
            fetched: The rows.
            records: Returns key → value, given the hash of the message ids in order.
        """
        digest = hashlib.sha256()
        self.transaction = "unknown"
        try:
            self.publisher.begin()
            self.step = "sending"
            for envelope, encoded in fetched:
                digest.update(b"".join(encoded.message_ids))
                self.publish(envelope, encoded)
            self.drain()
            if self.refusal:
                raise self.refused_transaction(self.refusal)
            self.mark(records(digest.hexdigest()))
            if self.spool:
                self.spool.close()  # every send is on disk before a reader can see it
            self.publisher.commit()
        except BaseException:
            self.abort()
            raise
        self.transaction = "committed"

    def mark(self, records: Mapping[bytes, bytes]) -> None:
        """Sends records of the control topic within the transaction."""
        keys: list[bytes | None] = list(records)
        values, count = list(records.values()), len(records)
        topic = self.plan.control_topic
        self.sender.submit(Batch(0, topic, keys, values, [b"0" * 32] * count, [0] * count, self.headers))
        for delivery in self.sender.drain():
            for failure in delivery.errors.values():
                raise failure

    def refused_transaction(self, refusal: MessageRefused) -> RunFailed:
        """Returns why a transaction with refused messages is not committed."""
        count = f"{self.refused:,} messages are" if self.refused > 1 else "1 message is"
        return RunFailed(
            f"{count} refused, and exactly_once sends all rows or none",
            why=refusal.text,
            remedy=f"{refusal.remedy}; python -m core rejects {self.run_id} lists them",
        )

    def abort(self) -> None:
        """Aborts the transaction; if the cluster does not confirm it, the marker decides later."""
        self.acknowledged = 0
        with suppress(PsttError):
            self.account(self.sender.give_up())
        self.acknowledged = 0
        with suppress(PsttError):
            self.publisher.abort()
            self.transaction = "aborted"

    def finish_sending(self, error: PsttError) -> None:
        """Waits for messages in flight if the run was only cancelled; if the cluster has failed, gives them up at once."""
        deliveries = []
        self.step = "waiting"
        if not isinstance(error, RetriesExhausted) and not error.is_retriable:
            deliveries = self.sender.drain(self.context.stop.left_s(self.plan.stop_timeout_s))
        deliveries += self.sender.give_up()
        for delivery in deliveries:
            with suppress(RunFailed):
                self._record(delivery)
            self.acknowledged += delivery.acknowledged


@contextmanager
def stored_on_disk(
    file_path: Path, read: Iterator[tuple[Envelope, Encoded]]
) -> Iterator[Iterator[tuple[Envelope, Encoded]]]:
    """Stores a whole result on disk, so that the transaction is short and memory stays flat; deletes it afterwards.

    Yields:
        The stored rows, fetch by fetch.
    """
    frames = msgspec.msgpack.Encoder()
    envelope: Envelope | None = None
    try:
        try:
            with file_path.open("wb") as file:
                for envelope, encoded in read:  # noqa: B007 - there is one envelope a run
                    frame = frames.encode(
                        (
                            encoded.row_numbers,
                            encoded.keys,
                            encoded.data,
                            encoded.message_ids,
                            encoded.extracted_at,
                            encoded.fields,
                            encoded.tombstones,
                            encoded.key_texts,
                        )
                    )
                    file.write(len(frame).to_bytes(8, "little"))
                    file.write(frame)
        except OSError as error:
            raise StorageFailed(
                f"the rows cannot be kept in {file_path.parent}",
                why=error.strerror or str(error),
                remedy="make room on that disk",
            ) from None
        with file_path.open("rb") as file:
            yield ((envelope, encoded) for encoded in _frames(file)) if envelope else iter(())
    finally:
        with suppress(OSError):  # the next run deletes it
            file_path.unlink(missing_ok=True)


def _frames(file: BinaryIO) -> Iterator[Encoded]:
    decoder = msgspec.msgpack.Decoder(_Frame)
    while size := file.read(8):
        numbers, keys, data, ids, extracted_at, *rest = decoder.decode(file.read(int.from_bytes(size, "little")))
        yield Encoded(numbers, keys, data, ids, [], extracted_at.astimezone(UTC), *rest)
