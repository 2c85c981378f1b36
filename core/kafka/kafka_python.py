"""Publisher over kafka-python-ng, all Python: for machines where librdkafka cannot be installed.

It has no idempotence, no transactions and no delivery time-out. The first two are refused when a publisher is opened; the
third is implemented here.
"""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import kafka.errors as client_errors
from kafka import KafkaClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.protocol.metadata import MetadataRequest
from kafka.sasl import scram

from core.errors import PsttError
from core.kafka.client_log import ClientLog, LogRelay
from core.kafka.client_options import options_for
from core.kafka.diagnosis import BrokerObjection, Diagnosis, Family
from core.kafka.kafka_python_login import Tokens
from core.kafka.login import login_config, require_login
from core.kafka.mock_cluster import resolved
from core.kafka.probe import Cause, probe
from core.kafka.refusals import Refusals
from core.kafka.security import tls_context, uses_login, uses_tls
from core.kafka.support import no_transactions
from core.model.connection import Cluster
from core.model.publisher import Delivery, LogSpan, TopicInfo, TopicState

__all__ = ["FAMILIES", "KafkaPythonPublisher", "client_config", "producer_config"]

BUFFER_BYTES = 33_554_432
CHUNK = 200
"""Messages published between two polls for responses: 5 ms of this client's time."""
NO_LIMIT = 2**31 - 1


class InvalidRecordError(client_errors.BrokerResponseError):  # type: ignore[misc]
    """The broker does not accept a record. Source: kafka.apache.org/protocol, error code 87."""

    errno = 87
    message = "INVALID_RECORD"
    description = "The broker failed to validate a record."


# kafka-python-ng 2.2.3 does not know this error code. Remove with the next version that does.
if InvalidRecordError.errno not in client_errors.kafka_errors:
    client_errors.InvalidRecordError = client_errors.kafka_errors[InvalidRecordError.errno] = InvalidRecordError

_NAMES: dict[Family, str] = {
    "late": "KafkaTimeoutError RequestTimedOutError",
    "away": "NoBrokersAvailable KafkaConnectionError KafkaUnavailableError BrokerNotAvailableError MetadataEmptyBrokerList"
    " NodeNotReadyError",
    "busy": "KafkaError BrokerResponseError NoError UnknownError KafkaProtocolError CorrelationIdError ProtocolError"
    " TooManyInFlightRequests StaleMetadata FailedPayloadsError AsyncProducerQueueFull QuotaViolationError"
    " CorruptRecordException LeaderNotAvailableError NotLeaderForPartitionError ReplicaNotAvailableError"
    " StaleControllerEpochError StaleLeaderEpochCodeError GroupLoadInProgressError GroupCoordinatorNotAvailableError"
    " NotCoordinatorForGroupError NotEnoughReplicasError NotEnoughReplicasAfterAppendError NotControllerError",
    "dropped": "Cancelled IllegalStateError",
    "login": "AuthenticationFailedError AuthenticationMethodNotSupported UnsupportedSaslMechanismError IllegalSaslStateError"
    " SecurityDisabledError",
    "denied": "TopicAuthorizationFailedError",
    "denied_cluster": "ClusterAuthorizationFailedError GroupAuthorizationFailedError",
    "topic": "UnknownTopicOrPartitionError",
    "name": "InvalidTopicError",
    "large": "MessageSizeTooLargeError RecordListTooLargeError",
    "setting": "IllegalArgumentError KafkaConfigurationError UnsupportedCodecError UnrecognizedBrokerVersion"
    " IncompatibleBrokerVersion InvalidRequiredAcksError UnsupportedVersionError UnsupportedForMessageFormatError"
    " InvalidConfigurationError InvalidPartitionsError InvalidReplicationFactorError InvalidReplicationAssignmentError",
    "refused": "InvalidRecordError InvalidTimestampError InvalidRequestError PolicyViolationError TopicAlreadyExistsError",
    # Only consumers and groups receive these.
    "foreign": "OffsetOutOfRangeError InvalidFetchRequestError OffsetMetadataTooLargeError CommitFailedError"
    " IllegalGenerationError InconsistentGroupProtocolError InvalidGroupIdError UnknownMemberIdError"
    " InvalidSessionTimeoutError RebalanceInProgressError InvalidCommitOffsetSizeError NonEmptyGroupError"
    " GroupIdNotFoundError",
}

FAMILIES: dict[Family, frozenset[type[Exception]]] = {
    family: frozenset(getattr(client_errors, name) for name in names.split()) for family, names in _NAMES.items()
}
"""What the user does next → the client's errors. A test checks that every error class of the client is here."""

# kafka-python-ng 2.2.3 logs SCRAM to the root logger, which writes to stderr. Remove with the next version that does not.
scram.log = logging.getLogger("kafka.sasl.scram")

_FAMILY_OF = {error: family for family, errors in FAMILIES.items() for error in errors}


def client_config(cluster: Cluster) -> dict[str, Any]:
    """Returns the settings of every client of this cluster. They contain the password: never log them."""
    config: dict[str, Any] = options_for(cluster, "kafka-python-ng") | {
        "bootstrap_servers": [part.strip() for part in cluster.bootstrap_servers.split(",")],
        "client_id": cluster.client_id,
        "security_protocol": cluster.security_protocol,
        "request_timeout_ms": cluster.request_timeout_ms,
        "retry_backoff_ms": cluster.retry_backoff_ms,
        "api_version_auto_timeout_ms": cluster.request_timeout_ms,
    }
    if uses_login(cluster):
        config["sasl_mechanism"] = cluster.sasl_mechanism
        config |= login_config(cluster, Tokens)
    if uses_tls(cluster):
        # The client's own context trusts every certificate where no CA file is set.
        config["ssl_context"] = tls_context(cluster)
    return config


def producer_config(cluster: Cluster) -> dict[str, Any]:
    """Returns every setting of a producer, by kafka-python-ng's names."""
    return client_config(cluster) | {
        "acks": "all",
        "compression_type": None if cluster.compression_type == "none" else cluster.compression_type,
        "batch_size": cluster.batch_size_bytes,
        "linger_ms": cluster.linger_ms,
        "max_request_size": cluster.max_request_size_bytes,
        "buffer_memory": max(BUFFER_BYTES, 4 * cluster.max_request_size_bytes),
        "max_block_ms": cluster.request_timeout_ms,
        "max_in_flight_requests_per_connection": cluster.max_in_flight_requests,
        "kafka_client": _SingleWakeupClient,
        # The delivery time-out, which is implemented here, ends the client's own retries.
        "retries": NO_LIMIT,
    }


SAID: dict[type[Exception], BrokerObjection] = {
    InvalidRecordError: "record",
    client_errors.CorruptRecordException: "record",  # brokers before 2.4: no key on a compacted topic
    client_errors.InvalidTimestampError: "time",
    client_errors.PolicyViolationError: "policy",
}
"""Errors of a record batch that are about one of its records → what the broker objects to."""


class _SingleWakeupClient(KafkaClient):  # type: ignore[misc]
    """The client's connections, whose thread is woken once and not again before it is awake.

    Otherwise each message for a waiting record batch writes into a socket, which costs as much as the message itself.
    """

    _is_woken = False

    def wakeup(self) -> None:
        """The caller has added its message to what the thread checks before it sleeps again."""
        if not self._is_woken:
            self._is_woken = True
            super().wakeup()

    def _clear_wake_fd(self) -> None:
        super()._clear_wake_fd()
        self._is_woken = False  # after the socket was emptied: a wake-up that it drops would never arrive


class KafkaPythonPublisher:
    """Publishes through kafka-python-ng and reads one response for each record batch that the client made.

    Larger than other classes: it implements the 16 methods of the protocol over state that all of them share.

    Args:
        cluster: Its addresses and settings.
        transactional_id: Must be None: this client has no transactions.
        max_in_flight: The most messages that are published and not yet reported.
        clock: Monotonic seconds.

    Raises:
        ConfigError: The settings ask for something that this client does not support.
    """

    def __init__(
        self,
        cluster: Cluster,
        *,
        transactional_id: str | None = None,
        max_in_flight: int = 5000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.cluster = resolved(cluster)
        self.max_in_flight = max_in_flight
        self.diagnosis = Diagnosis(self.cluster, clock=clock)
        self._clock = clock
        self._relay = LogRelay(ClientLog(self.diagnosis, clock), self.cluster.log_level, "kafka")
        self._refusals = Refusals(self.cluster, self.diagnosis, clock)
        self._batch_size_bytes = cluster.batch_size_bytes
        self._producer: KafkaProducer | None = None
        self._alone: KafkaProducer | None = None
        """Sends each message in a record batch of its own; created when the first message is refused together with others."""
        self._blocked: PsttError = self.diagnosis.busy("", "")
        """Why the client last refused to accept more messages."""
        self._known_topics: set[str] = set()
        self._newest: dict[tuple[str, int], int] = {}
        """(Topic, partition) → the last acknowledged offset."""
        self._in_flight = 0
        self._open: dict[Delivery, float] = {}
        """Delivery → when its first message was published, in seconds of `clock`."""
        self._record_batches: dict[Any, list[tuple[Delivery, int, float]]] = {}
        """The client's future of a record batch → its messages, in the order of their offsets."""
        self._responses: queue.SimpleQueue[tuple[Any, float]] = queue.SimpleQueue()
        """Filled by the client's thread: the future of a record batch, and when its response came."""

    @property
    def in_flight(self) -> int:
        """Messages that are published and not yet reported."""
        return self._in_flight

    def publish(self, delivery: Delivery, indexes: Sequence[int] | None = None) -> None:
        """Publishes messages; the client itself needs 20 µs for each."""
        self._publish(self._ready_for, delivery, indexes)

    def publish_alone(self, delivery: Delivery, indexes: Sequence[int]) -> None:
        """Sends messages through a second producer, which puts one message into a record batch."""
        self._publish(self._ready_alone, delivery, indexes)

    def fit(self, topic: str) -> None:
        """Closes the producer; the next one makes smaller record batches."""
        self._batch_size_bytes = self._refusals.smaller(topic, self._batch_size_bytes)
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.close(timeout=1.0)

    def _publish(
        self, ready: Callable[[str, float], KafkaProducer], delivery: Delivery, indexes: Sequence[int] | None
    ) -> None:
        todo = range(len(delivery.batch)) if indexes is None else indexes
        if not todo:
            return
        for index in todo if delivery.errors else ():
            delivery.errors.pop(index, None)
        delivery.pending += len(todo)
        self._open.setdefault(delivery, self._clock())
        try:
            producer = ready(delivery.batch.topic, self.cluster.request_timeout_ms / 1000)
        except PsttError as error:
            for index in todo:
                delivery.attempts[index] += 1
                delivery.sent_at_us[index] = time.time_ns() // 1000
            self._fail(delivery, todo, error)
            return
        start = 0
        while start < len(todo):
            while self._in_flight >= self.max_in_flight:
                self.poll(0.1)
            chunk = todo[start : start + min(CHUNK, self.max_in_flight - self._in_flight)]
            taken = self._publish_some(producer, delivery, chunk)
            self.poll(0)
            start += taken
            if taken < len(chunk):
                # The client waited its full time for room or metadata; the next message would wait as long again.
                self._fail(delivery, todo[start:], self._blocked)
                return

    def poll(self, timeout_s: float) -> int:
        """Processes the responses that the client's thread has received."""
        served = 0
        try:
            answer = self._responses.get(timeout=timeout_s) if timeout_s > 0 else self._responses.get_nowait()
            while True:
                served += self._settle(*answer)
                answer = self._responses.get_nowait()
        except queue.Empty:
            if not served:
                self._keep_delivery_timeout()
        return served

    def give_up(self, timeout_s: float) -> None:
        """Closes the client at once, as it cannot drop messages otherwise. The next `publish` opens another one."""
        producers, self._alone, self._producer = (self._alone, self._producer), None, None
        for producer in producers:
            if producer is not None:
                producer.close(timeout=0)
        deadline = self._clock() + timeout_s
        while self._in_flight and (left_s := deadline - self._clock()) > 0:
            try:
                self._settle(*self._responses.get(timeout=left_s))
            except queue.Empty:
                break
        for delivery in self._open:
            delivery.fail_unreported(partial(self.diagnosis.dropped, delivery.batch.topic))
        self._open.clear()
        self._record_batches.clear()
        self._in_flight = 0

    def close(self, timeout_s: float = 10.0) -> None:
        """Waits for the last responses, then closes the connections."""
        deadline = self._clock() + timeout_s
        while self._producer is not None and self._in_flight and self._clock() < deadline:
            self.poll(0.1)
        if self._in_flight:
            self.give_up(1.0)
        for producer in (self._alone, self._producer):
            if producer is not None:
                producer.close(timeout=max(deadline - self._clock(), 1.0))
        self._alone = self._producer = None
        self._relay.end()

    def _publish_some(self, producer: KafkaProducer, delivery: Delivery, chunk: Sequence[int]) -> int:
        """Publishes messages until the client cannot accept one; returns how many it accepted."""
        batch = delivery.batch
        topic, keys, values, message_ids, headers = (
            batch.topic,
            batch.keys,
            batch.values,
            batch.message_ids,
            batch.headers,
        )
        send, record_batches, now_s = producer.send, self._record_batches, time.perf_counter
        is_plain = not batch.header_columns and batch.timestamps_ms is None and batch.partitions is None
        now_us = time.time_ns() // 1000
        for position, index in enumerate(chunk):
            delivery.attempts[index] += 1
            delivery.sent_at_us[index] = now_us
            at_s = now_s()
            try:
                if is_plain:
                    future = send(topic, values[index], keys[index], [("message_id", message_ids[index]), *headers])
                else:
                    partition = None if batch.partitions is None else batch.partitions[index]
                    own = batch.headers_of(index), partition, batch.timestamp_ms(index)
                    future = send(topic, values[index], keys[index], *own)
            except client_errors.KafkaError as error:
                self._blocked = self._translated(error, topic)
                return position
            # One callback for a whole record batch: a callback for each message costs this client 20 % of its speed.
            answer = future._produce_future
            members = record_batches.get(answer)
            if members is not None:
                members.append((delivery, index, at_s))
            elif future.exception is not None and not answer.is_done:
                self._fail(delivery, [index], self._refused(future.exception, delivery, index))
                continue
            else:
                record_batches[answer] = [(delivery, index, at_s)]
                self._expect(answer)
            self._in_flight += 1
        return len(chunk)

    def _expect(self, answer: Any) -> None:
        def put(_outcome: object) -> None:
            self._responses.put((answer, time.perf_counter()))

        answer.add_callback(put)
        answer.add_errback(put)
        if answer.is_done:
            # The response may have come between the two steps of add_callback. A second one is not counted.
            put(None)

    def _settle(self, answer: Any, answered_at_s: float) -> int:
        """Writes the outcome of one record batch into its deliveries; returns the number of messages."""
        members = self._record_batches.pop(answer, ())
        if answer.exception is not None:
            for delivery, index, _ in members:
                delivery.errors[index] = self._refused(answer.exception, delivery, index, alone=len(members) == 1)
        else:
            partition, first_offset = answer.topic_partition.partition, answer.value[0]
            self._note_offsets(members, partition, first_offset)
            for offset, (delivery, index, at_s) in enumerate(members, first_offset):
                delivery.partitions[index] = partition
                delivery.offsets[index] = offset
                delivery.latencies_ms[index] = (answered_at_s - at_s) * 1000
        self._in_flight -= len(members)
        for delivery, _, _ in members:
            delivery.pending -= 1
            if not delivery.pending:
                self._open.pop(delivery, None)
        return len(members)

    def _note_offsets(self, members: Sequence[tuple[Delivery, int, float]], partition: int, first_offset: int) -> None:
        """Compares offsets: a leader appends and acknowledges in order, so a lower offset belongs to another log."""
        if not members or first_offset < 0:
            return
        delivery = members[0][0]
        place = delivery.batch.topic, partition
        newest = self._newest.get(place, -1)
        if first_offset <= newest:
            delivery.went_back[partition] = newest, first_offset
        self._newest[place] = first_offset + len(members) - 1

    def _fail(self, delivery: Delivery, indexes: Sequence[int], error: PsttError) -> None:
        """Sets the error of messages that the client never accepted."""
        for index in indexes:
            delivery.errors[index] = error
        delivery.pending -= len(indexes)
        if not delivery.pending:
            self._open.pop(delivery, None)

    def _keep_delivery_timeout(self) -> None:
        """Ends what is in flight for too long; all of it, as the client cannot end a part."""
        longest_s = self.cluster.delivery_timeout_ms / 1000
        oldest = min(self._open.values(), default=None)
        if oldest is None or self._clock() - oldest < longest_s:
            return
        overdue = list(self._open)
        lost = {d: [i for i, p in enumerate(d.partitions) if p == -1 and i not in d.errors] for d in overdue}
        self.give_up(5.0)
        for delivery, indexes in lost.items():
            error = self.diagnosis.not_delivered(delivery.batch.topic)
            for index in indexes:
                if delivery.partitions[index] == -1:
                    delivery.errors[index] = error

    def prepare_once(self, control_topic: str) -> None:
        """Refuses: this client has no transactions."""
        raise no_transactions(self.cluster.client)

    def read_control(self, control_topic: str, keys: Collection[bytes]) -> Mapping[bytes, bytes]:
        """Refuses: this client has no transactions."""
        raise no_transactions(self.cluster.client)

    def begin(self) -> None:
        """Refuses: this client has no transactions."""
        raise no_transactions(self.cluster.client)

    def commit(self) -> None:
        """Refuses: this client has no transactions."""
        raise no_transactions(self.cluster.client)

    def abort(self) -> None:
        """Refuses: this client has no transactions."""
        raise no_transactions(self.cluster.client)

    def topics(self, timeout_s: float = 10.0) -> list[TopicInfo]:
        """Returns the topics that this account may see, without Kafka's internal ones."""
        return [
            TopicInfo(name, len(partitions), max((len(p["replicas"]) for p in partitions), default=0))
            for name, (_, partitions) in sorted(self._metadata(None, timeout_s)["topics"].items())
            if not name.startswith("__")
        ]

    def brokers(self, timeout_s: float = 10.0) -> list[str]:
        """Returns `host:port` of every broker."""
        return sorted(f"{b['host']}:{b['port']}" for b in self._metadata(None, timeout_s)["brokers"])

    def require_topic(self, topic: str, timeout_s: float = 10.0) -> None:
        """Requests the metadata of all topics, then of this one by name, which creates it where the cluster creates topics on use."""
        deadline = self._clock() + timeout_s
        found = self._metadata(None, timeout_s)["topics"].get(topic)
        being_made = min(deadline, self._clock() + 3.0)
        while found is None or found[0]:
            found = self._metadata([topic], max(deadline - self._clock(), 0.5))["topics"][topic]
            error = client_errors.for_code(found[0])
            if found[0] and (_FAMILY_OF.get(error) not in ("topic", "busy") or self._clock() > being_made):
                raise self._translated(error(), topic)
            if found[0]:
                time.sleep(0.1)
        self._known_topics.add(topic)

    def describe(self, topic: str, timeout_s: float = 10.0) -> TopicState:
        """Returns the state without the topic's id: this client has no metadata request that returns one."""
        deadline = self._clock() + timeout_s
        found = self._metadata(None, timeout_s)
        _, partitions = found["topics"].get(topic, (0, ()))
        state = TopicState(topic, found["cluster_id"] or "", self.cluster.bootstrap_servers)
        if not partitions:
            return state
        places = [TopicPartition(topic, entry["partition"]) for entry in partitions]
        left_s = max(deadline - self._clock(), 1.0)
        wait_ms = {"request_timeout_ms": int(left_s * 1000), "fetch_max_wait_ms": 500}
        consumer = self._open_client(KafkaConsumer, client_config(self.cluster) | wait_ms, left_s)
        try:
            earliest, ends = consumer.beginning_offsets(places), consumer.end_offsets(places)
        except client_errors.KafkaError as error:
            raise self._translated(error, topic) from None
        finally:
            consumer.close(autocommit=False)
        return replace(state, partitions={p.partition: LogSpan(earliest[p], ends[p]) for p in places})

    def _metadata(self, topics: list[str] | None, timeout_s: float) -> dict[str, Any]:
        """Returns cluster, brokers and topics: `{"cluster_id": …, "brokers": […], "topics": {name: (error code, partitions)}}`."""
        deadline = self._clock() + timeout_s
        with self._connected(timeout_s) as client:
            future = None
            while future is None or not future.is_done or future.exception is not None:
                if self._clock() > deadline:
                    raise self.diagnosis.no_contact(timeout_s)
                if future is None or future.is_done:
                    future = self._ask(client, topics)
                client.poll(timeout_ms=100)
            answer = future.value.to_object()
        self.diagnosis.forget()
        return {
            "cluster_id": answer["cluster_id"],
            "brokers": answer["brokers"],
            "topics": {t["topic"]: (t["error_code"], t["partitions"]) for t in answer["topics"]},
        }

    def _ask(self, client: KafkaClient, topics: list[str] | None) -> Any:
        node = client.least_loaded_node()
        if node is None or not client.ready(node):
            return None
        # Version 4 is the first with the flag that decides whether a missing topic may be created.
        return client.send(node, MetadataRequest[4](topics=topics, allow_auto_topic_creation=topics is not None))

    @contextmanager
    def _connected(self, timeout_s: float) -> Iterator[KafkaClient]:
        client = self._open_client(KafkaClient, client_config(self.cluster), timeout_s)
        try:
            yield client
        finally:
            client.close()

    def _ready_for(self, topic: str, timeout_s: float) -> KafkaProducer:
        if topic not in self._known_topics:
            # send() would wait for a missing topic, and then report another cause.
            self.require_topic(topic, timeout_s)
        if self._producer is None:
            config = producer_config(self.cluster) | {"batch_size": self._batch_size_bytes}
            self._producer = self._open_client(KafkaProducer, config, timeout_s)
        return self._producer

    def _ready_alone(self, _topic: str, timeout_s: float) -> KafkaProducer:
        if self._alone is None:
            config = producer_config(self.cluster) | {"batch_size": 0, "linger_ms": 0}
            self._alone = self._open_client(KafkaProducer, config, timeout_s)
        return self._alone

    def _open_client(self, client: Callable[..., Any], config: dict[str, Any], timeout_s: float) -> Any:
        """Creates a client, which connects. The broker is probed first, as the client cannot tell causes apart."""
        deadline = self._clock() + timeout_s
        while True:
            cause = None if self.cluster.mock_brokers else probe(self.cluster)
            # What does not greet like Kafka may still be a mock or a proxy: the client decides.
            if cause is None or cause.kind == "not_kafka":
                require_login(self.cluster)
                wait_ms = max(1000, int((deadline - self._clock()) * 1000))
                try:
                    return client(**config | {"api_version_auto_timeout_ms": wait_ms})
                except (client_errors.KafkaError, AssertionError, KeyError, ValueError, OSError) as failure:
                    error = self._not_opened(failure, cause, timeout_s)
            else:
                error = self.diagnosis.of_cause(cause, timeout_s)
            if not error.is_retriable or self._clock() >= deadline:
                raise error from None
            time.sleep(min(self.cluster.retry_backoff_ms / 1000, 1.0))

    def _not_opened(self, failure: Exception, cause: Cause | None, timeout_s: float) -> PsttError:
        if cause is not None:
            return self.diagnosis.of_cause(cause)
        if isinstance(failure, AssertionError):
            return self.diagnosis.setting(str(failure))
        if uses_login(self.cluster) and not isinstance(failure, OSError):
            # The probe found port, TLS and mechanism in order; what remains is the login itself.
            return self.diagnosis.of_family("login", "", "")
        return self.diagnosis.no_contact(timeout_s)

    def _refused(self, error: Exception, delivery: Delivery, index: int, *, alone: bool = False) -> PsttError:
        batch = delivery.batch
        if (
            isinstance(error, client_errors.MessageSizeTooLargeError) and error.args
        ):  # the client knows more than the code only here
            return self.diagnosis.too_large_here(
                batch.topic, len(batch.values[index] or b"") + len(batch.keys[index] or b"")
            )
        if _FAMILY_OF.get(type(error)) == "large":
            return self._refusals.size(batch, index) if alone else self._refusals.size_together(batch.topic)
        said = SAID.get(type(error))
        if said is not None:
            return (
                self._refusals.record(batch, index, str(error), said) if alone else self._refusals.together(batch.topic)
            )
        return self._translated(error, batch.topic)

    def _translated(self, error: Exception, topic: str) -> PsttError:
        family = _FAMILY_OF.get(type(error)) or ("busy" if getattr(error, "retriable", True) else "refused")
        return self.diagnosis.of_family(family, str(error), topic)
