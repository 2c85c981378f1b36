"""Publisher over confluent-kafka (librdkafka), one call a message; with idempotence and transactions."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from types import MappingProxyType
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer

from core.errors import BrokerUnavailable, ConfigError, PsttError
from core.kafka.client_log import ClientLog
from core.kafka.control_topic import ControlTopic
from core.kafka.diagnosis import Diagnosis
from core.kafka.kerberos import adopt
from core.kafka.librdkafka import (
    ONE_BY_ONE,
    SAID,
    TRANSACTION_TIMEOUT_MS,
    can_log_in,
    family_of,
    producer_config,
    require_gssapi,
    translated,
    void,
)
from core.kafka.mock_cluster import resolved
from core.kafka.refusals import Refusals
from core.kafka.security import uses_login
from core.kafka.topic_state import describe_topic
from core.model.connection import Cluster
from core.model.publisher import Batch, Delivery, TopicInfo, TopicState

__all__ = ["ConfluentPublisher", "producer_config"]

CHUNK = 1000
"""Messages published between two polls for delivery reports."""
BEING_MADE_S = 3.0
"""A topic that is created on first use is unknown for a moment, like one that does not exist."""
TRANSACTION_STEP_S = 60.0
"""For each request to the transaction coordinator, which takes 0.2 to 1 s on a healthy cluster."""


class ConfluentPublisher:
    """Publishes through librdkafka and writes its delivery reports into the deliveries.

    Larger than other classes: it implements the 16 methods of the protocol over state that all of them share.

    Args:
        cluster: Its addresses and settings.
        transactional_id: None: no transactions.
        max_in_flight: The most messages that are published and not yet reported.
        clock: Monotonic seconds.
        producer: Creates librdkafka's producer from its settings.

    Raises:
        ConfigError: librdkafka does not know a setting or refuses it; its own text says which.
    """

    def __init__(
        self,
        cluster: Cluster,
        *,
        transactional_id: str | None = None,
        max_in_flight: int = 5000,
        clock: Callable[[], float] = time.monotonic,
        producer: Callable[..., Producer] = Producer,
    ) -> None:
        self.cluster = resolved(cluster)
        self.max_in_flight = max_in_flight
        self.transactional_id = transactional_id
        self.diagnosis = Diagnosis(self.cluster, clock=clock)
        self._clock = clock
        self._make = producer
        self._log = ClientLog(self.diagnosis, clock)
        self._refusals = Refusals(self.cluster, self.diagnosis, clock)
        self._batch_size_bytes = cluster.batch_size_bytes
        self._in_flight = 0
        self._open: set[Delivery] = set()
        self._fatal: PsttError | None = None
        self._errors: dict[tuple[int, str], tuple[float, PsttError]] = {}
        self._newest: dict[tuple[str, bool], dict[int, int]] = {}
        """(Topic, whether messages were sent alone) → partition → the last offset acknowledged to that producer."""
        self._is_prepared = False
        if not can_log_in(self.cluster):
            require_gssapi(self.cluster)
            adopt(self.cluster)
        # A token or a ticket is got when the client is first used: a failure then belongs to the run.
        is_later = uses_login(self.cluster) and self.cluster.sasl_mechanism in ("GSSAPI", "OAUTHBEARER")
        self._producer: Producer | None = None if is_later else self._start()
        self._alone: Producer | None = None
        """Sends each message in a record batch of its own; created when the first message is refused together with others."""

    @property
    def in_flight(self) -> int:
        """Messages that are published and not yet reported."""
        return self._in_flight

    def publish(self, delivery: Delivery, indexes: Sequence[int] | None = None) -> None:
        """Publishes messages; 2 µs each, as the only object created for a message is the index for its report."""
        self._publish(self._live, delivery, indexes, alone=False)

    def publish_alone(self, delivery: Delivery, indexes: Sequence[int]) -> None:
        """Sends messages through a second producer, which puts one message into a record batch."""
        self._require_life()
        if self._alone is None:
            self._alone = self._start(ONE_BY_ONE)
        self._publish(self._alone, delivery, indexes, alone=True)

    def fit(self, topic: str) -> None:
        """Closes the producer; the next one makes smaller record batches."""
        self._batch_size_bytes = self._refusals.smaller(topic, self._batch_size_bytes)
        self._producer = None
        self._producer = self._live

    def _publish(self, producer: Producer, delivery: Delivery, indexes: Sequence[int] | None, *, alone: bool) -> None:
        todo = range(len(delivery.batch)) if indexes is None else indexes
        if not todo:
            return
        for index in todo if delivery.errors else ():
            delivery.errors.pop(index, None)
        delivery.pending += len(todo)
        self._open.add(delivery)
        report = self._report_into(delivery, alone=alone)
        start = 0
        while start < len(todo):
            while self._in_flight >= self.max_in_flight:
                self.poll(0.1)
            chunk = todo[start : start + min(CHUNK, self.max_in_flight - self._in_flight)]
            self._hand_over(producer, delivery, chunk, report)
            start += len(chunk)
            self.poll(0)

    def poll(self, timeout_s: float) -> int:
        """Serves delivery reports, log lines and errors of librdkafka."""
        if self._producer is None:
            return 0
        before = self._in_flight
        if self._alone is not None and len(self._alone):
            self._serve(self._producer, 0)
            self._serve(self._alone, timeout_s)
        else:
            self._serve(self._producer, timeout_s)
        if self._fatal is not None:
            raise self._fatal
        return before - self._in_flight

    def give_up(self, timeout_s: float) -> None:
        """Purges librdkafka's queues and sets an error for each message that is never reported."""
        deadline = self._clock() + timeout_s
        for producer in (self._alone, self._producer):
            if producer is None or not self._in_flight:
                continue
            producer.purge()
            while self._in_flight and len(producer) and self._clock() < deadline:
                self._serve(producer, 0.1)
        if self._in_flight:
            # A message may still be reported later; the report must not be used then.
            self._alone = self._producer = None
        for delivery in self._open:
            delivery.fail_unreported(partial(self.diagnosis.dropped, delivery.batch.topic))
        self._open.clear()
        self._in_flight = 0

    def close(self, timeout_s: float = 10.0) -> None:
        """Waits for the last reports, then closes the connections."""
        deadline = self._clock() + timeout_s
        while self._producer is not None and self._in_flight and self._clock() < deadline:
            self.poll(0.1)
        self.give_up(1.0)
        self._alone = self._producer = None

    def _serve(self, producer: Producer, timeout_s: float) -> None:
        """Serves callbacks. An exception of librdkafka itself is translated here."""
        try:
            producer.poll(timeout_s)
        except KafkaException as failure:
            self._fatal = self._fatal or self._translated(failure.args[0], "")

    def _hand_over(
        self, producer: Producer, delivery: Delivery, chunk: Sequence[int], report: Callable[..., None]
    ) -> None:
        batch = delivery.batch
        topic, keys, values, message_ids, headers = (
            batch.topic, batch.keys, batch.values, batch.message_ids, batch.headers,
        )  # fmt: skip
        attempts, sent_at_us = delivery.attempts, delivery.sent_at_us
        produce = producer.produce
        is_plain = not batch.header_columns and batch.timestamps_ms is None and batch.partitions is None
        now_us = time.time_ns() // 1000
        self._in_flight += len(chunk)
        for index in chunk:
            reported = partial(report, index)
            attempts[index] += 1
            sent_at_us[index] = now_us
            try:
                if not is_plain:
                    produce(*_arguments(batch, index, reported))
                    continue
                produce(
                    topic, values[index], keys[index], -1, reported, reported, 0,
                    [("message_id", message_ids[index]), *headers],
                )  # fmt: skip
            except BufferError:
                self._publish_when_queue_has_room(producer, delivery, index, reported)
            except KafkaException as error:
                self._refuse(delivery, index, error.args[0])

    def _publish_when_queue_has_room(
        self, producer: Producer, delivery: Delivery, index: int, reported: Callable[..., None]
    ) -> None:
        """Waits until librdkafka's queue has room for this message: publishing another one first would change their order."""
        arguments = _arguments(delivery.batch, index, reported)
        while True:
            self.poll(0.1)
            self._require_life()
            try:
                producer.produce(*arguments)
            except BufferError:
                continue
            except KafkaException as error:
                self._refuse(delivery, index, error.args[0])
            return

    def _report_into(self, delivery: Delivery, *, alone: bool) -> Callable[..., None]:
        partitions, offsets, latencies_ms = delivery.partitions, delivery.offsets, delivery.latencies_ms
        newest = self._newest.setdefault((delivery.batch.topic, alone), {})  # two producers report in any order

        def report(index: int, error: KafkaError | None, message: Any) -> None:
            if error is None:
                partitions[index] = partition = message.partition()
                offset = message.offset()
                if offset is None:  # a repeated send whose first response was lost: it is stored, at an unknown offset
                    offsets[index] = -1
                else:
                    offsets[index] = offset
                    # A leader appends and acknowledges in order, so a lower offset belongs to another log.
                    if offset <= newest.get(partition, -1):
                        delivery.went_back[partition] = (newest[partition], offset)
                    newest[partition] = offset
                latencies_ms[index] = message.latency() * 1000.0
            else:
                delivery.errors[index] = self._refusal(error, delivery.batch, index, alone=alone)
            self._in_flight -= 1
            delivery.pending -= 1
            if not delivery.pending:
                self._open.discard(delivery)

        return report

    def _refuse(self, delivery: Delivery, index: int, error: KafkaError) -> None:
        """Sets the error of a message that the client itself refuses."""
        self._in_flight -= 1
        delivery.pending -= 1
        if not delivery.pending:
            self._open.discard(delivery)
        batch = delivery.batch
        if error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
            size = len(batch.values[index] or b"") + len(batch.keys[index] or b"")
            delivery.errors[index] = self.diagnosis.too_large_here(batch.topic, size)
            return
        delivery.errors[index] = self._error_of(error, batch.topic)
        if error.fatal():
            self._fatal = delivery.errors[index]
            raise self._fatal

    def prepare_once(self, control_topic: str) -> None:
        """Fences earlier holders of the transactional id, then creates the control topic if it does not exist."""
        self._prepare()
        self.require_control_topic(control_topic)

    def require_control_topic(self, control_topic: str) -> None:
        """Creates the control topic if it does not exist."""
        if control_topic not in self._metadata(TRANSACTION_STEP_S).topics:
            if not self.cluster.mock_brokers:  # mock brokers know no CreateTopics
                self._control(control_topic).make(TRANSACTION_STEP_S)
            self.require_topic(control_topic)

    def read_control(self, control_topic: str, keys: Collection[bytes]) -> Mapping[bytes, bytes]:
        """Reads the committed records of the control topic to its end."""
        found = self._metadata(TRANSACTION_STEP_S).topics.get(control_topic)
        if found is None:
            return {}
        return self._control(control_topic).newest(keys, len(found.partitions), TRANSACTION_STEP_S)

    def begin(self) -> None:
        """Begins a transaction."""
        self._prepare()
        with self._steps("begin"):
            self._live.begin_transaction()

    def commit(self) -> None:
        """Commits the transaction; retries while the coordinator is not ready."""
        if self._in_flight:
            raise RuntimeError(f"commit with {self._in_flight} messages under way")
        self._step("commit", lambda: self._live.commit_transaction(TRANSACTION_STEP_S))

    def abort(self) -> None:
        """Aborts the transaction; what was sent stays invisible to consumers with read_committed."""
        self.give_up(TRANSACTION_STEP_S)
        self._step("abort", lambda: self._live.abort_transaction(TRANSACTION_STEP_S))

    def _prepare(self) -> None:
        if self.transactional_id is None:
            raise ConfigError("this publisher has no transactions", why="it was opened without a transactional id")
        if self._is_prepared:
            return
        self._metadata(TRANSACTION_STEP_S)  # reports why no broker answers, which init_transactions does not
        try:
            self._step("prepare", lambda: self._live.init_transactions(TRANSACTION_STEP_S))
        except ConfigError as error:
            raise ConfigError(
                error.what,
                why=error.why,
                remedy=f"set transaction.max.timeout.ms of the brokers to {TRANSACTION_TIMEOUT_MS:,} ms or more",
            ) from None
        self._is_prepared = True

    def _step(self, name: str, step: Callable[[], None]) -> None:
        deadline = self._clock() + TRANSACTION_STEP_S
        while True:
            try:
                with self._steps(name):
                    step()
                return
            except BrokerUnavailable:
                if self._clock() > deadline:
                    raise

    @contextmanager
    def _steps(self, name: str) -> Iterator[None]:
        """Translates the exceptions of a step of a transaction."""
        try:
            yield
        except KafkaException as failure:
            error: KafkaError = failure.args[0]
            if self._producer is not None:
                self._serve(self._producer, 0)
            if error.retriable():
                raise BrokerUnavailable(
                    f"cannot {name} the transaction on {self.diagnosis.place}",
                    why=self.diagnosis.scrub(error.str()),
                    remedy="look at the state of the brokers",
                ) from None
            raise self._translated(error, "") from None

    def _control(self, name: str) -> ControlTopic:
        return ControlTopic(name, self.cluster, self.diagnosis, self._log, self._clock)

    def topics(self, timeout_s: float = 10.0) -> list[TopicInfo]:
        """Returns the topics that this account may see, without Kafka's internal ones."""
        found = self._metadata(timeout_s).topics
        return [
            TopicInfo(name, len(partitions), max((len(p.replicas) for p in partitions.values()), default=0))
            for name, partitions in sorted((name, topic.partitions) for name, topic in found.items())
            if not name.startswith("__")
        ]

    def brokers(self, timeout_s: float = 10.0) -> list[str]:
        """Returns `host:port` of every broker."""
        return sorted(f"{broker.host}:{broker.port}" for broker in self._metadata(timeout_s).brokers.values())

    def require_topic(self, topic: str, timeout_s: float = 10.0) -> None:
        """Requests the metadata of all topics, then of this one by name, which creates it where the cluster creates topics on use.

        A transaction fails with the first record batch that exceeds the topic's limit, so the limit is requested here.
        """
        self._await_topic(topic, timeout_s)
        largest = None if self.transactional_id is None else self._refusals.limits_of(topic).largest_bytes
        if largest is not None and largest < self._batch_size_bytes and not self._is_prepared:
            self.fit(topic)

    def _await_topic(self, topic: str, timeout_s: float) -> None:
        deadline = self._clock() + timeout_s
        found = self._metadata(timeout_s).topics.get(topic)
        being_made = min(deadline, self._clock() + BEING_MADE_S)
        while found is None or found.error is not None:
            found = self._metadata(max(deadline - self._clock(), 0.5), topic).topics[topic]
            if found.error is None:
                return
            if family_of(found.error) not in ("topic", "busy") or self._clock() > being_made:
                raise self._translated(found.error, topic)
            self.poll(0.1)

    def describe(self, topic: str, timeout_s: float = 10.0) -> TopicState:
        """Uses an admin client of its own, which never creates a topic."""
        found = describe_topic(self.cluster, self.diagnosis, self._log, topic, timeout_s, self._clock)
        self.diagnosis.forget()
        return found

    def _metadata(self, timeout_s: float, topic: str | None = None) -> Any:
        """Returns the cluster's metadata; waits in growing intervals so that a cause that will not go away ends it early."""
        producer = self._live
        asked = {} if topic is None else {"topic": topic}
        deadline = self._clock() + timeout_s
        patience_s = 0.5
        while True:
            slice_s = min(patience_s, max(deadline - self._clock(), 0.05))
            try:
                found = producer.list_topics(**asked, timeout=slice_s)
            except KafkaException as failure:
                self.poll(0)
                error: KafkaError = failure.args[0]
                if family_of(error) not in ("late", "away", "busy"):
                    raise self._translated(error, topic or "") from None
                if self.diagnosis.is_hopeless or self._clock() >= deadline:
                    raise self.diagnosis.no_contact(timeout_s) from None
                patience_s *= 2
            else:
                self.diagnosis.forget()
                return found

    def _start(self, changes: Mapping[str, Any] = MappingProxyType({})) -> Producer:
        config = producer_config(self.cluster, transactional_id=self.transactional_id, max_in_flight=self.max_in_flight)
        config |= {"batch.size": self._batch_size_bytes, "error_cb": self._heard}
        try:
            return self._make(config | dict(changes), logger=self._log)
        except KafkaException as failure:
            words = str(failure.args[0].str()).removeprefix("Failed to create producer: ")
            raise self.diagnosis.setting(words) from None

    def _heard(self, error: KafkaError) -> None:
        self.diagnosis.remember(error.str())
        if error.fatal() and self._fatal is None:
            self._fatal = self._translated(error, "")

    @property
    def _live(self) -> Producer:
        """Returns the producer, created again after `fit`; after a fatal error raises that error."""
        self._require_life()
        if self._producer is None:
            self._producer = self._start()
        return self._producer

    def _require_life(self) -> None:
        if self._fatal is not None:
            raise self._fatal

    def _translated(self, error: KafkaError, topic: str) -> PsttError:
        return translated(self.diagnosis, error, topic, self.transactional_id)

    def _refusal(self, error: KafkaError, batch: Batch, index: int, *, alone: bool) -> PsttError:
        """Returns the error for a refused message: refused by itself, or because of its record batch."""
        once = self.transactional_id is not None
        if family_of(error) == "large":
            if once:
                return self._refusals.size_in_transaction(batch, index, self._batch_size_bytes)
            return self._refusals.size(batch, index) if alone else self._refusals.size_together(batch.topic)
        said = SAID.get(error.code())
        if said is None:
            return self._error_of(error, batch.topic)
        if once:
            return self._refusals.in_transaction(batch, index, error.str(), said)
        if alone:
            return self._refusals.record(batch, index, error.str(), said)
        return self._refusals.together(batch.topic)

    def _error_of(self, error: KafkaError, topic: str) -> PsttError:
        """Returns one shared error for all messages that fail in the same second for the same reason."""
        made_at, known = self._errors.get((error.code(), topic), (0.0, None))
        now = self._clock()
        if known is None or now - made_at > 1.0:
            known = self._translated(error, topic)
            if self.transactional_id is not None:
                known = void(known)
            self._errors[error.code(), topic] = now, known
        return known


def _arguments(batch: Batch, index: int, reported: Callable[..., None]) -> tuple[Any, ...]:
    """Returns what `produce` takes for one message, with what its batch says about each by itself."""
    partition = -1 if batch.partitions is None else batch.partitions[index]
    headers = batch.headers_of(index)
    own_ms = batch.timestamp_ms(index)
    timestamp_ms = 0 if own_ms is None else max(own_ms, 1)  # librdkafka takes 0 as the time of this call
    return (
        batch.topic, batch.values[index], batch.keys[index], partition, reported, reported, timestamp_ms, headers,
    )  # fmt: skip
