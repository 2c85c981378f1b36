"""Publisher over aiokafka: whole record batches built from columns, with no Python call or object for a single message.

aiokafka sends; what is read of a cluster (metadata, offsets, settings, the control topic) comes through librdkafka, whose
errors name their causes.
"""

from __future__ import annotations

import queue
import random
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import aiokafka.errors as client_errors
import numpy as np

from core.errors import BrokerUnavailable, ConfigError, PsttError
from core.kafka.aiokafka_config import producer_config, reader_of
from core.kafka.aiokafka_errors import SAID, family_of, words_of
from core.kafka.client_log import ClientLog, LogRelay
from core.kafka.librdkafka import TRANSACTION_TIMEOUT_MS, void
from core.kafka.login import require_login
from core.kafka.mock_cluster import resolved
from core.kafka.partition_messages import Messages, encoded
from core.kafka.partitioning import group_by_partition, partitions_of
from core.kafka.producer_thread import Answer, ProducerThread
from core.kafka.record_batch import BATCH_HEADER_BYTES, record_sizes
from core.kafka.refusals import Refusals
from core.kafka.support import refuse_unsupported
from core.model.connection import Cluster
from core.model.publisher import Delivery, TopicInfo, TopicState

__all__ = ["AiokafkaPublisher", "producer_config"]

QUEUE_BYTES = 67_108_864
"""The most bytes in flight: it limits the memory of a run with 1 MB messages."""
MOST_QUEUE_BYTES = 100_000_000
"""aiokafka sends what is due for one broker in one request, and a broker takes 100 MB (socket.request.max.bytes)."""
ENCODED_BYTES = 16_777_216
"""While more bytes than these are in flight, record batches are encoded when they are sent, so that few of them wait encoded."""
TRANSACTION_STEP_S = 60.0
"""For each request to the transaction coordinator, which takes 0.2 to 1 s on a healthy cluster."""
LATE_ANSWERS_S = 0.5
"""At a delivery time-out, how long the next answer of a healthy partition is waited for, so that those are not sent again."""


class AiokafkaPublisher:
    """Publishes record batches built by columns and reads one answer for each.

    Larger than other classes: it implements the 16 methods of the protocol over state that all of them share.

    Args:
        cluster: Its addresses and settings.
        transactional_id: None: no transactions.
        max_in_flight: The most messages that are published and not yet reported.
        clock: Monotonic seconds.

    Raises:
        ConfigError: The settings are incomplete or contradict each other.
    """

    def __init__(
        self,
        cluster: Cluster,
        *,
        transactional_id: str | None = None,
        max_in_flight: int = 5000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        refuse_unsupported(cluster, transactional=transactional_id is not None)
        self.cluster = resolved(cluster)
        self.max_in_flight = max_in_flight
        self.transactional_id = transactional_id
        self._clock = clock
        self._reader = reader_of(self.cluster, clock, transactional=transactional_id is not None)
        """Reads metadata, offsets and the control topic."""
        self.diagnosis = self._reader.diagnosis
        self._relay = LogRelay(
            ClientLog(self.diagnosis, clock),
            self.cluster.log_level,
            "aiokafka",
            lambda line: line.threadName in self._threads,
        )
        self._refusals = Refusals(self.cluster, self.diagnosis, clock)
        self._limits_bytes: dict[str, int] = {}
        """Topic → the largest record batch, where that is smaller than KAFKA_MAX_REQUEST_SIZE."""
        self._refused_bytes: dict[str, int] = {}
        """Topic → the smallest record batch that was refused for its size."""
        self._thread: ProducerThread | None = None
        self._threads: set[str] = set()
        """Names of our producer's threads, also of one that is closing."""
        self._answers: queue.SimpleQueue[tuple[ProducerThread | None, Answer]] = queue.SimpleQueue()
        self._known_topics: set[str] = set()
        self._sticky: dict[str, tuple[int, int]] = {}
        """Topic → the partition of messages without a key, and the bytes it has got so far."""
        self._newest: dict[tuple[str, int], int] = {}
        """(Topic, partition) → the last acknowledged offset."""
        self._in_flight = 0
        self._in_flight_bytes = 0
        self._open: set[Delivery] = set()
        self._published: dict[float, int] = {}
        """Time of publishing (of `time.perf_counter`, ascending) → number of messages that are in flight since then."""
        self._transaction: tuple[int, int] | None = None
        """Id and epoch of the producer of the open transaction."""
        self._void: PsttError | None = None
        """Why the open transaction cannot be committed."""
        self._fatal: PsttError | None = None
        self._is_committing = False

    @property
    def in_flight(self) -> int:
        """Messages that are published and not yet reported."""
        return self._in_flight

    def publish(self, delivery: Delivery, indexes: Sequence[int] | None = None) -> None:
        """Publishes messages, by columns."""
        self._publish(delivery, indexes, alone=False)

    def publish_alone(self, delivery: Delivery, indexes: Sequence[int]) -> None:
        """Sends each message in a record batch of its own."""
        self._publish(delivery, indexes, alone=True)

    def fit(self, topic: str) -> None:
        """Makes smaller record batches of this topic from now on."""
        limit = min(self._limit_of(topic), self._refused_bytes.pop(topic, self.cluster.max_request_size_bytes))
        self._limits_bytes[topic] = self._refusals.smaller(topic, limit)

    def poll(self, timeout_s: float) -> int:
        """Processes the answers that the producer's thread has received."""
        served = 0
        try:
            thread, answer = self._answers.get(timeout=timeout_s) if timeout_s > 0 else self._answers.get_nowait()
            while True:
                served += self._settle(answer) if thread is self._thread else 0
                thread, answer = self._answers.get_nowait()
        except queue.Empty:
            self._keep_delivery_timeout()
        if self._fatal is not None:
            raise self._fatal
        return served

    def give_up(self, timeout_s: float) -> None:
        """Closes the producer at once; answers that came before count. The next `publish` starts another one."""
        self._settle_answers(0.0)
        self._drop(self.diagnosis.dropped)

    def _settle_answers(self, patience_s: float) -> None:
        """Processes answers until nothing is in flight, or none comes for so long."""
        with suppress(queue.Empty):
            while True:
                wait = patience_s > 0 and self._in_flight
                thread, answer = self._answers.get(timeout=patience_s) if wait else self._answers.get_nowait()
                if thread is self._thread:
                    self._settle(answer)

    def _drop(self, error_of: Callable[[str], PsttError]) -> None:
        """Ends everything in flight with the error for its topic."""
        if self._in_flight:
            self._close_producer()
        for delivery in self._open:
            delivery.fail_unreported(partial(error_of, delivery.batch.topic))
        self._open.clear()
        self._published.clear()
        self._in_flight = self._in_flight_bytes = 0

    def close(self, timeout_s: float = 10.0) -> None:
        """Waits for the last answers, then closes the connections."""
        deadline = self._clock() + timeout_s
        with suppress(PsttError):  # of a client that has failed for good
            while self._in_flight and self._clock() < deadline:
                self.poll(0.1)
        self.give_up(1.0)
        self._close_producer()
        self._reader.close(0.0)
        self._relay.end()

    def prepare_once(self, control_topic: str) -> None:
        """Fences earlier holders of the transactional id, then creates the control topic if it does not exist."""
        self._prepare()
        self._reader.require_control_topic(control_topic)

    def read_control(self, control_topic: str, keys: Collection[bytes]) -> Mapping[bytes, bytes]:
        """Reads the committed records of the control topic to its end."""
        return self._reader.read_control(control_topic, keys)

    def begin(self) -> None:
        """Begins a transaction."""
        thread = self._prepare()
        with self._translating("begin"):
            thread.begin(TRANSACTION_STEP_S)
        self._transaction, self._void, self._is_committing = thread.identity, None, False

    def commit(self) -> None:
        """Commits the transaction."""
        if self._in_flight:
            raise RuntimeError(f"commit with {self._in_flight} messages in flight")
        if self._fatal is not None:
            raise self._fatal
        if self._void is not None:
            raise self._void
        if self._thread is None or self._transaction is None:
            raise self._closed_producer("commit")
        self._is_committing = True
        with self._translating("commit"):
            self._thread.commit(TRANSACTION_STEP_S)
        self._transaction = None

    def abort(self) -> None:
        """Aborts the transaction; what was sent stays invisible to consumers with read_committed.

        A producer that was closed is not replaced for this: another one would fence a newer run of the same job.
        """
        self.give_up(TRANSACTION_STEP_S)
        if self._fatal is not None:
            raise self._fatal
        if self._is_committing or self._transaction is None:
            raise BrokerUnavailable(
                f"cannot abort the transaction on {self.diagnosis.place}",
                why="its commit was requested before" if self._is_committing else "none was begun",
                remedy="run the job again: the marker on the control topic decides",
            )
        with self._translating("abort"):
            if self._thread is not None and self._thread.can_abort:
                self._thread.abort(TRANSACTION_STEP_S)
            else:
                self._close_producer()
                thread = self._new_thread()
                try:
                    thread.abort_as(self._transaction, TRANSACTION_STEP_S)
                finally:
                    thread.abandon()
        self._transaction = None

    def _closed_producer(self, step: str) -> BrokerUnavailable:
        return BrokerUnavailable(
            f"cannot {step} the transaction on {self.diagnosis.place}",
            why="its producer was closed",
            remedy="run the job again",
        )

    def topics(self, timeout_s: float = 10.0) -> list[TopicInfo]:
        """Returns the topics that this account may see, without Kafka's internal ones."""
        return self._reader.topics(timeout_s)

    def brokers(self, timeout_s: float = 10.0) -> list[str]:
        """Returns `host:port` of every broker."""
        return self._reader.brokers(timeout_s)

    def require_topic(self, topic: str, timeout_s: float = 10.0) -> None:
        """Returns once the topic is known to exist; it is created where the cluster creates topics on first use.

        A transaction fails with the first record batch that exceeds the topic's limit, so the limit is requested here.
        """
        self._reader.require_topic(topic, timeout_s)
        if self.transactional_id is not None:
            largest = self._refusals.limits_of(topic).largest_bytes or self.cluster.batch_size_bytes
            if largest < self.cluster.max_request_size_bytes:
                self._limits_bytes[topic] = self._refusals.smaller(topic, largest + 1)
        self._known_topics.add(topic)

    def describe(self, topic: str, timeout_s: float = 10.0) -> TopicState:
        """Returns ids and offsets; it never creates the topic."""
        return self._reader.describe(topic, timeout_s)

    def _publish(self, delivery: Delivery, indexes: Sequence[int] | None, *, alone: bool) -> None:
        todo = np.arange(len(delivery.batch)) if indexes is None else np.asarray(indexes, np.int64)
        if not len(todo):
            return
        for index in todo.tolist() if delivery.errors else ():
            delivery.errors.pop(index, None)
        delivery.pending += len(todo)
        self._open.add(delivery)
        try:
            thread, partitions, available = self._ready_for(delivery.batch.topic)
        except PsttError as error:
            _count_attempt(delivery, todo)
            self._fail(delivery, todo.tolist(), self._final(error))
            return
        batch = delivery.batch
        sizes = np.array(
            record_sizes(batch.keys, batch.values, batch.message_ids, batch.headers, batch.header_columns), np.int64
        )
        todo = self._without_too_large(delivery, todo, sizes)
        while len(todo):
            part, todo = self._next_part(todo, sizes)
            size = int(sizes[part].sum())
            while self._in_flight + len(part) > self.max_in_flight or (
                self._in_flight and self._in_flight_bytes + size > self._queue_bytes
            ):
                self.poll(0.1)
                if thread is not self._thread:  # a delivery time-out has ended it, and the rest of this delivery
                    return
            self._in_flight += len(part)
            self._in_flight_bytes += size
            sent_at_us = _count_attempt(delivery, part)
            if batch.partitions is not None:
                placed = np.asarray(batch.partitions, np.int32)[part]
            else:
                keys = batch.keys if len(part) == len(batch.keys) else [batch.keys[i] for i in part.tolist()]
                placed = partitions_of(keys, partitions, self._sticky_of(batch.topic, available, size))
            at_s = time.perf_counter()
            self._published[at_s] = self._published.get(at_s, 0) + len(part)
            grouped = [
                (partition, Messages(delivery, rows, sizes[rows], sent_at_us // 1000, at_s, alone))
                for partition, chosen in group_by_partition(placed, partitions)
                for rows in (part[chosen],)
            ]
            if not alone and self._in_flight_bytes <= ENCODED_BYTES:
                for _, messages in grouped:
                    self._encode_if_full(messages)
            thread.add(batch.topic, grouped)
            self.poll(0)

    def _encode_if_full(self, messages: Messages) -> None:
        """Encodes messages that fill a record batch by themselves, which need not wait for others.

        The producer's thread would do it too. But each compression releases the interpreter's lock, which that thread gets back
        after this thread's turn of 5 ms: 10 % of a run's processor time, and 20 ms of the latency of its messages.
        """
        limit = self._limit_of(messages.delivery.batch.topic) - BATCH_HEADER_BYTES
        if self.cluster.batch_size_bytes <= messages.size_bytes <= limit:
            with suppress(ValueError):  # the producer's thread reports it
                messages.record_batch = encoded(
                    [messages], self.cluster.compression_type, is_transactional=self.transactional_id is not None
                )

    def _next_part(self, todo: Any, sizes: Any) -> tuple[Any, Any]:
        """Splits off the messages that go together: half of what may be in flight, so that the other half can be made meanwhile."""
        fitting = int(np.searchsorted(np.cumsum(sizes[todo]), self._queue_bytes // 2, "right"))
        count = max(min(fitting, self.max_in_flight // 2), 1)
        return todo[:count], todo[count:]

    @property
    def _queue_bytes(self) -> int:
        largest = self.cluster.max_request_size_bytes
        return max(QUEUE_BYTES, min(4 * largest, MOST_QUEUE_BYTES), largest)

    def _without_too_large(self, delivery: Delivery, todo: Any, sizes: Any) -> Any:
        """Fails messages that exceed KAFKA_MAX_REQUEST_SIZE; returns the others."""
        are_too_large = sizes[todo] + BATCH_HEADER_BYTES > self.cluster.max_request_size_bytes
        if not are_too_large.any():
            return todo
        too_large = todo[are_too_large]
        _count_attempt(delivery, too_large)
        batch = delivery.batch
        for index in too_large.tolist():
            size = len(batch.values[index] or b"") + len(batch.keys[index] or b"")
            self._fail(delivery, [index], self.diagnosis.too_large_here(batch.topic, size))
        return todo[~are_too_large]

    def _sticky_of(self, topic: str, available: Sequence[int], size_bytes: int) -> int:
        """Returns the partition for messages without a key: another one after KAFKA_BATCH_SIZE bytes, as Kafka's clients do."""
        partition, used_bytes = self._sticky.get(topic, (-1, self.cluster.batch_size_bytes))
        if used_bytes >= self.cluster.batch_size_bytes or partition not in available:
            others = [number for number in available if number != partition] or list(available) or [0]
            partition, used_bytes = random.choice(others), 0  # noqa: S311 - spreads load
        self._sticky[topic] = partition, used_bytes + size_bytes
        return partition

    def _settle(self, answer: Answer) -> int:
        """Writes the outcome of one record batch into its deliveries; returns the number of messages."""
        count = sum(len(some.indexes) for some in answer.messages)
        self._note_offsets(answer, count)
        offset = answer.first_offset
        for some in answer.messages:
            delivery, indexes = some.delivery, some.indexes
            if answer.error is None:
                np.frombuffer(delivery.partitions, np.int32)[indexes] = answer.partition
                np.frombuffer(delivery.offsets, np.int64)[indexes] = (
                    -1 if offset < 0 else np.arange(offset, offset + len(indexes))
                )
                np.frombuffer(delivery.latencies_ms, np.float64)[indexes] = (
                    answer.answered_at_s - some.published_at_s
                ) * 1000
                offset += len(indexes)
            else:
                self._refuse(answer, some, is_alone=count == 1)
            self._in_flight_bytes -= some.size_bytes
            self._published[some.published_at_s] -= len(indexes)
            if not self._published[some.published_at_s]:
                del self._published[some.published_at_s]
            delivery.pending -= len(indexes)
            if not delivery.pending:
                self._open.discard(delivery)
        self._in_flight -= count
        return count

    def _note_offsets(self, answer: Answer, count: int) -> None:
        """Compares offsets: a leader appends and acknowledges in order, so a lower offset belongs to another log."""
        if answer.first_offset < 0:
            return
        place = answer.topic, answer.partition
        newest = self._newest.get(place, -1)
        if answer.first_offset <= newest:
            answer.messages[0].delivery.went_back[answer.partition] = newest, answer.first_offset
        self._newest[place] = answer.first_offset + count - 1

    def _refuse(self, answer: Answer, some: Messages, *, is_alone: bool) -> None:
        """Sets the errors of the messages of a refused record batch: refused by themselves, or because of the batch."""
        error, batch, topic = answer.error or client_errors.UnknownError(), some.delivery.batch, answer.topic
        family = family_of(error)
        is_once = self.transactional_id is not None
        said = SAID.get(type(error))
        if family in ("busy", "topic"):
            self._known_topics.discard(topic)  # it may be gone: the next message finds out
        shared: PsttError | None = None
        if family == "large" and not is_once and not is_alone:
            self._refused_bytes[topic] = min(answer.size_bytes, self._refused_bytes.get(topic, answer.size_bytes))
            shared = self._refusals.size_together(topic)
        elif family != "large" and said is None:
            shared = self._final(self._translated(error, topic))
        elif not is_alone and not is_once:
            shared = self._refusals.together(topic)
        for index in some.indexes.tolist():
            if shared is not None:
                some.delivery.errors[index] = shared
            elif family == "large":
                some.delivery.errors[index] = (
                    self._refusals.size_in_transaction(batch, index, self._limit_of(topic))
                    if is_once
                    else self._refusals.size(batch, index)
                )
            elif is_once:
                some.delivery.errors[index] = self._refusals.in_transaction(batch, index, str(error), said or "other")
            else:
                some.delivery.errors[index] = self._refusals.record(batch, index, str(error), said or "other")
        if is_once:
            self._void = self._void or shared or some.delivery.errors[int(some.indexes[0])]
            if family == "fenced" and self._fatal is None:
                self._fatal = self._translated(error, topic)

    def _fail(self, delivery: Delivery, indexes: Sequence[int], error: PsttError) -> None:
        """Sets the error of messages that are not sent at all."""
        if self._transaction is not None:
            self._void = self._void or error
        for index in indexes:
            delivery.errors[index] = error
        delivery.pending -= len(indexes)
        if not delivery.pending:
            self._open.discard(delivery)

    def _keep_delivery_timeout(self) -> None:
        """Ends what is in flight, if the oldest message is for too long.

        That is all of it, as only a new producer makes sequence numbers certain. So partitions that still work get the time
        to finish what they have.
        """
        if not self._is_late():
            return
        self._settle_answers(LATE_ANSWERS_S)
        if not self._is_late():  # its answer has come after all
            return
        topics = {delivery.batch.topic for delivery in self._open}
        causes = {topic: self._final(self._cause_of_timeout(topic)) for topic in topics}
        if self.transactional_id is not None and causes:
            self._void = self._void or next(iter(causes.values()))
        self._close_producer()
        self._drop(causes.__getitem__)

    def _is_late(self) -> bool:
        """Returns True if the oldest message in flight is not answered within the delivery time-out."""
        oldest_s = next(iter(self._published), None)
        return oldest_s is not None and time.perf_counter() - oldest_s >= self.cluster.delivery_timeout_ms / 1000

    def _cause_of_timeout(self, topic: str) -> PsttError:
        """Returns why messages were not acknowledged in time: a topic may have been deleted, or a right taken away."""
        self._known_topics.discard(topic)
        error = self.diagnosis.not_delivered(topic)
        if isinstance(error, BrokerUnavailable):
            return error
        try:
            self._reader.require_topic(topic, 1.0)
        except PsttError as failure:
            return failure
        return error

    def _ready_for(self, topic: str) -> tuple[ProducerThread, int, list[int]]:
        """Returns a producer, the number of partitions of the topic, and those with a leader."""
        if self._fatal is not None:
            raise self._fatal
        timeout_s = self.cluster.request_timeout_ms / 1000
        if topic not in self._known_topics:
            self.require_topic(topic, timeout_s)
        if self._thread is None and self._transaction is not None:
            raise self._void or self._closed_producer("go on with")
        try:
            thread = self._prepare() if self.transactional_id is not None else self._producer(timeout_s)
            return thread, *thread.partitions_of(topic, timeout_s)
        except (client_errors.KafkaError, OSError, TimeoutError) as error:
            if family_of(error) == "topic":
                self._known_topics.discard(topic)
            raise self._translated(error, topic) from None

    def _producer(self, timeout_s: float) -> ProducerThread:
        if self._thread is None:
            require_login(self.cluster)
            thread = self._new_thread()
            try:
                thread.start(timeout_s)
            except TimeoutError:
                raise self.diagnosis.no_contact(timeout_s) from None
            self._thread = thread
        return self._thread

    def _new_thread(self) -> ProducerThread:
        thread = ProducerThread(
            producer_config(self.cluster, transactional_id=self.transactional_id),
            batch_size_bytes=self.cluster.batch_size_bytes,
            linger_ms=self.cluster.linger_ms,
            compression=self.cluster.compression_type,
            limit_bytes=self._limit_of,
            on_answer=lambda answer: self._answers.put((thread, answer)),
        )
        self._threads.add(thread.name)
        return thread

    def _prepare(self) -> ProducerThread:
        if self.transactional_id is None:
            raise ConfigError("this publisher has no transactions", why="it was opened without a transactional id")
        if self._fatal is not None:
            raise self._fatal
        if self._thread is not None:
            return self._thread
        self._reader.brokers(TRANSACTION_STEP_S)  # reports why no broker answers
        try:
            with self._translating("prepare"):
                return self._producer(TRANSACTION_STEP_S)
        except ConfigError as error:
            raise ConfigError(
                error.what,
                why=error.why,
                remedy=f"set transaction.max.timeout.ms of the brokers to {TRANSACTION_TIMEOUT_MS:,} ms or more",
            ) from None

    def _close_producer(self) -> None:
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.abandon()

    def _limit_of(self, topic: str) -> int:
        return self._limits_bytes.get(topic, self.cluster.max_request_size_bytes)

    def _final(self, error: PsttError) -> PsttError:
        """Returns the error itself or, within a transaction, one that is not tried again."""
        return error if self.transactional_id is None else void(error)

    @contextmanager
    def _translating(self, step: str) -> Iterator[None]:
        """Translates the exceptions of a step of a transaction."""
        try:
            yield
        except (
            client_errors.KafkaError,
            client_errors.IllegalOperation,
            OSError,
            TimeoutError,
            AssertionError,
        ) as error:
            family = family_of(error)
            if family in ("late", "away", "busy", "topic"):
                raise BrokerUnavailable(
                    f"cannot {step} the transaction on {self.diagnosis.place}",
                    why=self.diagnosis.scrub(words_of(error)),
                    remedy="look at the state of the brokers",
                ) from None
            translated = self._translated(error, "")
            if family == "fenced":
                self._fatal = translated
            raise translated from None

    def _translated(self, error: Exception, topic: str) -> PsttError:
        family = family_of(error)
        if family == "fenced" and self.transactional_id is None:
            family = "busy"  # another producer id goes on
        return self.diagnosis.of_family(family, words_of(error), topic, self.transactional_id)


def _count_attempt(delivery: Delivery, indexes: Any) -> int:
    """Counts an attempt of these messages; returns the Unix time in µs that they get."""
    now_us = time.time_ns() // 1000
    np.frombuffer(delivery.attempts, np.int32)[indexes] += 1
    np.frombuffer(delivery.sent_at_us, np.int64)[indexes] = now_us
    return now_us
