"""Publisher over aiokafka: whole record batches built from columns, with no Python call or object for a single message.

aiokafka sends; what is read of a cluster (metadata, offsets, settings, the control topic) comes through librdkafka, whose
errors name their causes.
"""

from __future__ import annotations

import asyncio
import queue
import random
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import aiokafka.errors as client_errors
import numpy as np

from core.errors import BrokerUnavailable, ConfigError, PsttError
from core.kafka.client_log import ClientLog, LogRelay
from core.kafka.confluent import ConfluentPublisher
from core.kafka.diagnosis import BrokerObjection, Family
from core.kafka.librdkafka import void
from core.kafka.mock_cluster import resolved
from core.kafka.partitioning import group_by_partition, partitions_of
from core.kafka.producer_thread import Answer, Messages, ProducerThread
from core.kafka.record_batch import record_sizes
from core.kafka.refusals import Refusals
from core.kafka.security import tls_context, uses_login, uses_tls
from core.kafka.support import refuse_unsupported
from core.model.connection import Cluster
from core.model.publisher import Delivery, TopicInfo, TopicState

__all__ = ["FAMILIES", "AiokafkaPublisher", "producer_config"]

CLIENT_ID = "pstt-kafka"
QUEUE_BYTES = 67_108_864
"""The most bytes in flight: it limits the memory of a run with 1 MB messages."""
TRANSACTION_TIMEOUT_MS = 900_000
"""The longest that a broker allows by default (transaction.max.timeout.ms)."""
TRANSACTION_STEP_S = 60.0
"""For each request to the transaction coordinator, which takes 0.2 to 1 s on a healthy cluster."""
TOPIC_PROPAGATION_S = 10.0
"""How long a missing topic is waited for; a topic that was just created is unknown to some brokers for a moment."""

_NAMES: dict[Family, str] = {
    "late": "KafkaTimeoutError RequestTimedOutError",
    "away": "NoBrokersAvailable KafkaConnectionError KafkaUnavailableError BrokerNotAvailableError MetadataEmptyBrokerList"
    " NodeNotReadyError",
    "busy": "KafkaError BrokerResponseError NoError UnknownError KafkaProtocolError CorrelationIdError"
    " TooManyInFlightRequests StaleMetadata QuotaViolationError CorruptRecordException LeaderNotAvailableError"
    " NotLeaderForPartitionError ReplicaNotAvailableError StaleControllerEpochError StaleLeaderEpochCodeError"
    " GroupLoadInProgressError GroupCoordinatorNotAvailableError NotCoordinatorForGroupError NotEnoughReplicasError"
    " NotEnoughReplicasAfterAppendError NotControllerError ConcurrentTransactions KafkaStorageError LogDirNotFound"
    " ReassignmentInProgress OperationNotAttempted OutOfOrderSequenceNumber UnknownProducerId InvalidProducerIdMapping"
    " DuplicateSequenceNumber",
    "dropped": "Cancelled IllegalStateError ProducerClosed",
    "login": "AuthenticationFailedError AuthenticationMethodNotSupported UnsupportedSaslMechanismError IllegalSaslStateError"
    " SecurityDisabled SaslAuthenticationFailed DelegationTokenAuthDisabled DelegationTokenNotFound"
    " DelegationTokenOwnerMismatch DelegationTokenRequestNotAllowed DelegationTokenAuthorizationFailed"
    " DelegationTokenExpired InvalidPrincipalType",
    "denied": "TopicAuthorizationFailedError",
    "denied_cluster": "ClusterAuthorizationFailedError GroupAuthorizationFailedError TransactionalIdAuthorizationFailed",
    "topic": "UnknownTopicOrPartitionError",
    "name": "InvalidTopicError",
    "large": "MessageSizeTooLargeError RecordListTooLargeError RecordTooLargeError",
    "fenced": "ProducerFenced InvalidProducerEpoch TransactionCoordinatorFenced",
    "setting": "IllegalArgumentError KafkaConfigurationError UnsupportedCodecError UnrecognizedBrokerVersion"
    " IncompatibleBrokerVersion InvalidRequiredAcksError UnsupportedVersionError UnsupportedForMessageFormatError"
    " InvalidConfigurationError InvalidPartitionsError InvalidReplicationFactorError InvalidReplicationAssignmentError"
    " InvalidTransactionTimeout ListenerNotFound",
    "refused": "InvalidTimestampError InvalidRequestError PolicyViolationError TopicAlreadyExistsError",
    "void": "InvalidTxnState IllegalOperation",
    # Only consumers and groups receive these.
    "foreign": "OffsetOutOfRangeError InvalidFetchRequestError OffsetMetadataTooLargeError CommitFailedError"
    " IllegalGenerationError InconsistentGroupProtocolError InvalidGroupIdError UnknownMemberIdError"
    " InvalidSessionTimeoutError RebalanceInProgressError InvalidCommitOffsetSizeError NonEmptyGroup GroupIdNotFound"
    " FetchSessionIdNotFound InvalidFetchSessionEpoch MemberIdRequired ConsumerStoppedError NoOffsetForPartitionError",
}

FAMILIES: dict[Family, frozenset[type[Exception]]] = {
    family: frozenset(getattr(client_errors, name) for name in names.split()) for family, names in _NAMES.items()
}
"""What the user does next → the client's errors. A test checks that every error class of the client is here."""

_FAMILY_OF = {error: family for family, errors in FAMILIES.items() for error in errors}


class InvalidRecordError(client_errors.BrokerResponseError):  # type: ignore[misc]
    """The broker does not accept a record. Source: kafka.apache.org/protocol, error code 87."""

    errno = 87
    message = "INVALID_RECORD"
    description = "The broker failed to validate a record."


# aiokafka 0.14 does not know this error code. Remove with the next version that does.
client_errors.kafka_errors.setdefault(InvalidRecordError.errno, InvalidRecordError)

SAID: dict[type[Exception], BrokerObjection] = {
    client_errors.kafka_errors[InvalidRecordError.errno]: "record",
    client_errors.CorruptRecordException: "record",  # brokers before 2.4: no key on a compacted topic
    client_errors.InvalidTimestampError: "time",
    client_errors.PolicyViolationError: "policy",
}
"""Errors of a record batch that are about one of its records → what the broker objects to."""

NOT_STORED: frozenset[Family] = frozenset({"denied", "denied_cluster", "topic", "name", "large", "refused"})
"""Families of errors after which the broker has surely stored nothing, so that the next record has the same sequence number."""


def producer_config(cluster: Cluster, *, transactional_id: str | None = None) -> dict[str, Any]:
    """Returns every setting of a producer, by aiokafka's names. It contains the password: never log it."""
    config: dict[str, Any] = {
        "bootstrap_servers": [part.strip() for part in cluster.bootstrap_servers.split(",")],
        "client_id": CLIENT_ID,
        "security_protocol": cluster.security_protocol,
        "request_timeout_ms": cluster.request_timeout_ms,
        "retry_backoff_ms": cluster.retry_backoff_ms,
        "acks": "all",
        "enable_idempotence": cluster.enable_idempotence,
        "linger_ms": 0,  # record batches arrive finished
    }
    if transactional_id is not None:
        config |= {"transactional_id": transactional_id, "transaction_timeout_ms": TRANSACTION_TIMEOUT_MS}
    if uses_login(cluster):
        config["sasl_mechanism"] = cluster.sasl_mechanism
        config["sasl_plain_username"] = cluster.sasl_username
        config["sasl_plain_password"] = cluster.sasl_password.reveal() if cluster.sasl_password else ""
    if uses_tls(cluster):
        config["ssl_context"] = tls_context(cluster)
    return config


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
        self._reader = ConfluentPublisher(self.cluster, clock=clock)
        """Reads metadata, offsets and the control topic."""
        self.diagnosis = self._reader.diagnosis
        self._relay = LogRelay(ClientLog(self.diagnosis, clock), self.cluster.log_level, "aiokafka")
        self._refusals = Refusals(self.cluster, self.diagnosis, clock)
        self._limits_bytes: dict[str, int] = {}
        """Topic → the largest record batch, where that is smaller than KAFKA_MAX_REQUEST_SIZE."""
        self._refused_bytes: dict[str, int] = {}
        """Topic → the smallest record batch that was refused for its size."""
        self._thread: ProducerThread | None = None
        self._answers: queue.SimpleQueue[tuple[ProducerThread | None, Answer]] = queue.SimpleQueue()
        self._known_topics: set[str] = set()
        self._sticky: dict[str, tuple[int, int]] = {}
        """Topic → the partition of messages without a key, and the bytes it has got so far."""
        self._newest: dict[tuple[str, int], int] = {}
        """(Topic, partition) → the last acknowledged offset."""
        self._in_flight = 0
        self._in_flight_bytes = 0
        self._open: dict[Delivery, float] = {}
        """Delivery → when its first message was published, in seconds of `clock`."""
        self._is_stale = False
        """Whether the sequence numbers of the producer are not certain any more; the next one begins anew."""
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
            if not served:
                self._keep_delivery_timeout()
        if self._fatal is not None:
            raise self._fatal
        return served

    def give_up(self, timeout_s: float) -> None:
        """Closes the producer at once; answers that came before count. The next `publish` starts another one."""
        while not self._answers.empty():
            thread, answer = self._answers.get_nowait()
            if thread is self._thread:
                self._settle(answer)
        if self._in_flight:
            self._close_producer()
        for delivery in self._open:
            delivery.fail_unreported(partial(self.diagnosis.dropped, delivery.batch.topic))
        self._open.clear()
        self._in_flight = self._in_flight_bytes = 0

    def close(self, timeout_s: float = 10.0) -> None:
        """Waits for the last answers, then closes the connections."""
        deadline = self._clock() + timeout_s
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

    def commit(self) -> None:
        """Commits the transaction."""
        if self._in_flight:
            raise RuntimeError(f"commit with {self._in_flight} messages in flight")
        self._is_committing = True
        thread = self._prepare()
        with self._translating("commit"):
            thread.commit(TRANSACTION_STEP_S)
        self._is_committing = False

    def abort(self) -> None:
        """Aborts the transaction; what was sent stays invisible to consumers with read_committed.

        Where the producer had to be closed, another one with the same id makes the coordinator abort it.
        """
        self.give_up(TRANSACTION_STEP_S)
        if self._fatal is not None:
            raise self._fatal
        if self._is_committing:
            raise BrokerUnavailable(
                f"cannot abort the transaction on {self.diagnosis.place}",
                why="its commit was requested before, and not answered",
                remedy="run the job again: the marker on the control topic decides",
            )
        if self._thread is None:
            self._prepare()
            return
        with self._translating("abort"):
            self._thread.abort(TRANSACTION_STEP_S)

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
        self._open.setdefault(delivery, self._clock())
        try:
            thread, partitions, available = self._ready_for(delivery.batch.topic)
        except PsttError as error:
            _count_attempt(delivery, todo)
            self._fail(delivery, todo.tolist(), error)
            return
        batch = delivery.batch
        sizes = np.array(record_sizes(batch.keys, batch.values, batch.message_ids, batch.headers), np.int64)
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
            keys = batch.keys if len(part) == len(batch.keys) else [batch.keys[i] for i in part.tolist()]
            placed = partitions_of(keys, partitions, self._sticky_of(batch.topic, available, size))
            at_s = time.perf_counter()
            thread.add(
                batch.topic,
                [
                    (partition, Messages(delivery, rows, sizes[rows], sent_at_us // 1000, at_s, alone))
                    for partition, chosen in group_by_partition(placed, partitions)
                    for rows in (part[chosen],)
                ],
            )
            self.poll(0)

    def _next_part(self, todo: Any, sizes: Any) -> tuple[Any, Any]:
        """Splits off the messages that go together: half of what may be in flight, so that the other half can be made meanwhile."""
        fitting = int(np.searchsorted(np.cumsum(sizes[todo]), self._queue_bytes // 2, "right"))
        count = max(min(fitting, self.max_in_flight // 2), 1)
        return todo[:count], todo[count:]

    @property
    def _queue_bytes(self) -> int:
        return max(QUEUE_BYTES, 4 * self.cluster.max_request_size_bytes)

    def _without_too_large(self, delivery: Delivery, todo: Any, sizes: Any) -> Any:
        """Fails messages that exceed KAFKA_MAX_REQUEST_SIZE; returns the others."""
        are_too_large = sizes[todo] > self.cluster.max_request_size_bytes
        if not are_too_large.any():
            return todo
        too_large = todo[are_too_large]
        _count_attempt(delivery, too_large)
        batch = delivery.batch
        for index in too_large.tolist():
            size = len(batch.values[index]) + len(batch.keys[index] or b"")
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
            self._in_flight_bytes -= int(some.sizes.sum())
            delivery.pending -= len(indexes)
            if not delivery.pending:
                self._open.pop(delivery, None)
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
        family = _family_of(error)
        is_once = self.transactional_id is not None
        said = SAID.get(type(error))
        if self.cluster.enable_idempotence and family not in NOT_STORED and said is None:
            self._is_stale = True
        shared: PsttError | None = None
        if family == "large" and not is_once and not is_alone:
            self._refused_bytes[topic] = min(answer.size_bytes, self._refused_bytes.get(topic, answer.size_bytes))
            shared = self._refusals.size_together(topic)
        elif family != "large" and said is None:
            shared = self._translated(error, topic)
            shared = void(shared) if is_once else shared
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
        if family == "fenced" and self._fatal is None:
            self._fatal = self._translated(error, topic)

    def _fail(self, delivery: Delivery, indexes: Sequence[int], error: PsttError) -> None:
        """Sets the error of messages that are not sent at all."""
        for index in indexes:
            delivery.errors[index] = error
        delivery.pending -= len(indexes)
        if not delivery.pending:
            self._open.pop(delivery, None)

    def _keep_delivery_timeout(self) -> None:
        """Ends what is in flight for too long; all of it, as only a new producer makes its sequence numbers certain."""
        longest_s = self.cluster.delivery_timeout_ms / 1000
        oldest = min(self._open.values(), default=None)
        if oldest is None or self._clock() - oldest < longest_s:
            return
        lost = {d: [i for i, p in enumerate(d.partitions) if p == -1 and i not in d.errors] for d in self._open}
        self.give_up(5.0)
        self._close_producer()
        for delivery, indexes in lost.items():
            error = self._cause_of_timeout(delivery.batch.topic)
            for index in indexes:
                if delivery.partitions[index] == -1:
                    delivery.errors[index] = error

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
        if self._is_stale and self.transactional_id is None:
            while self._in_flight:
                self.poll(0.1)
            self._close_producer()
        thread = self._prepare() if self.transactional_id is not None else self._producer(timeout_s)
        try:
            return thread, *thread.partitions_of(topic, timeout_s)
        except (client_errors.KafkaError, OSError, TimeoutError) as error:
            raise self._translated(error, topic) from None

    def _producer(self, timeout_s: float) -> ProducerThread:
        if self._thread is None:
            thread = ProducerThread(
                producer_config(self.cluster, transactional_id=self.transactional_id),
                batch_size_bytes=self.cluster.batch_size_bytes,
                linger_ms=self.cluster.linger_ms,
                compression=self.cluster.compression_type,
                limit_bytes=self._limit_of,
                on_answer=lambda answer: self._answers.put((thread, answer)),
            )
            try:
                thread.start(timeout_s)
            except (client_errors.KafkaError, OSError, TimeoutError) as error:
                raise self._translated(error, "") from None
            self._thread = thread
            self._is_stale = False
        return self._thread

    def _prepare(self) -> ProducerThread:
        if self.transactional_id is None:
            raise ConfigError("this publisher has no transactions", why="it was opened without a transactional id")
        if self._fatal is not None:
            raise self._fatal
        if self._thread is None:
            self._reader.brokers(TRANSACTION_STEP_S)  # reports why no broker answers
        with self._translating("prepare"):
            return self._producer(TRANSACTION_STEP_S)

    def _close_producer(self) -> None:
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.abandon()

    def _limit_of(self, topic: str) -> int:
        return self._limits_bytes.get(topic, self.cluster.max_request_size_bytes)

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
            family = _family_of(error)
            if family in ("late", "away", "busy", "topic"):
                raise BrokerUnavailable(
                    f"cannot {step} the transaction on {self.diagnosis.place}",
                    why=self.diagnosis.scrub(str(error) or type(error).__name__),
                    remedy="look at the state of the brokers",
                ) from None
            translated = self._translated(error, "")
            if family == "fenced":
                self._fatal = translated
            raise translated from None

    def _translated(self, error: Exception, topic: str) -> PsttError:
        return self.diagnosis.of_family(
            _family_of(error), str(error) or type(error).__name__, topic, self.transactional_id
        )


def _family_of(error: Exception) -> Family:
    """Returns what the user does after this error; one that the client does not know is tried again."""
    if isinstance(error, TimeoutError | asyncio.TimeoutError):
        return "late"
    if isinstance(error, OSError):
        return "away"
    return _FAMILY_OF.get(type(error)) or "busy"


def _count_attempt(delivery: Delivery, indexes: Any) -> int:
    """Counts an attempt of these messages; returns the Unix time in µs that they get."""
    now_us = time.time_ns() // 1000
    np.frombuffer(delivery.attempts, np.int32)[indexes] += 1
    np.frombuffer(delivery.sent_at_us, np.int64)[indexes] = now_us
    return now_us
