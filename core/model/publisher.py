"""The protocol that every Kafka client implements, and the batches and deliveries that it receives.

A batch has columns of values, not one object per row: an object per row costs as much as converting the row to JSON.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from core.errors import PsttError

__all__ = ["NO_TIME", "Batch", "Delivery", "LogSpan", "Publisher", "TopicInfo", "TopicState"]

NO_TIME = -1
"""Instead of the Unix time of a record: it gets the time when it is sent."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Messages that are published, tracked and retried together. All lists have the same length."""

    number: int
    """From 1, in the run."""
    topic: str
    keys: list[bytes | None]
    values: Sequence[bytes | None]
    """None: a tombstone."""
    message_ids: list[bytes]
    """ASCII hex; sent as header `message_id`."""
    row_numbers: Sequence[int]
    headers: tuple[tuple[str, bytes], ...] = ()
    """The other headers, the same for each message."""
    header_columns: tuple[tuple[str, Sequence[bytes | None]], ...] = ()
    """Headers with a value for each message; a message has no such header where it is None."""
    timestamps_ms: Sequence[int] | None = None
    """Unix time of each record, in ms; NO_TIME, or None for all of them: when it is sent."""
    partitions: Sequence[int] | None = None
    """The partition of each message; None: by its key, as Java's clients place it."""
    key_texts: list[bytes | None] | None = None
    """The keys as people read them, where they are in a format of their own; None: they are text."""

    def __len__(self) -> int:
        return len(self.values)

    @property
    def readable_keys(self) -> list[bytes | None]:
        """The keys as text, for people and for the records of sends."""
        return self.keys if self.key_texts is None else self.key_texts

    def headers_of(self, index: int) -> list[tuple[str, bytes]]:
        """Returns the headers of one message in their order, beginning with `message_id`."""
        own = [(name, value) for name, values in self.header_columns if (value := values[index]) is not None]
        return [("message_id", self.message_ids[index]), *self.headers, *own]

    def timestamp_ms(self, index: int) -> int | None:
        """Returns the Unix time of one record in ms; None: when it is sent."""
        if self.timestamps_ms is None or self.timestamps_ms[index] == NO_TIME:
            return None
        return self.timestamps_ms[index]


@dataclass(slots=True, eq=False)
class Delivery:
    """The state of one batch; the publisher fills it while reports arrive.

    `partitions[i]` is -1 until message i is acknowledged. A message is in exactly one of three
    states: acknowledged (partition ≥ 0), failed (`i in errors`), or still in flight.
    """

    batch: Batch
    partitions: array[int]
    offsets: array[int]
    latencies_ms: array[float]
    """From publishing to acknowledgement, in ms."""
    attempts: array[int]
    """1 after a message was published for the first time."""
    sent_at_us: array[int]
    """Unix time of the latest publishing, in µs."""
    errors: dict[int, PsttError] = field(default_factory=dict)
    went_back: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Partition → (offset acknowledged before, lower offset acknowledged later): its log was truncated or recreated."""
    pending: int = 0
    """Messages in flight; 0 means the delivery is complete."""

    @classmethod
    def of(cls, batch: Batch) -> Delivery:
        """Returns a delivery in which nothing has been published yet."""
        n = len(batch)
        return cls(
            batch,
            partitions=array("i", [-1]) * n,
            offsets=array("q", [-1]) * n,
            latencies_ms=array("d", [0.0]) * n,
            attempts=array("i", [0]) * n,
            sent_at_us=array("q", [0]) * n,
        )

    @property
    def acknowledged(self) -> int:
        """Messages that the broker has acknowledged."""
        return len(self.batch) - self.partitions.count(-1)

    def fail_unreported(self, error: Callable[[], PsttError]) -> None:
        """Ends the delivery: each message that is still in flight gets an error of its own."""
        for index, partition in enumerate(self.partitions):
            if partition == -1 and index not in self.errors:
                self.errors[index] = error()
        self.pending = 0


@dataclass(frozen=True, slots=True)
class TopicInfo:
    """One topic as the cluster describes it."""

    name: str
    partitions: int
    replication: int


@dataclass(frozen=True, slots=True)
class LogSpan:
    """The offsets of one partition at one moment."""

    earliest: int
    """Offset of the oldest record that is still stored."""
    end: int
    """Offset of the next record."""


@dataclass(frozen=True, slots=True)
class TopicState:
    """One topic at one moment; a text is empty if the client or the cluster does not report it."""

    topic: str
    cluster_id: str = ""
    """The cluster's own id, which is the same under another name."""
    bootstrap_servers: str = ""
    """The addresses that the client was given."""
    topic_id: str = ""
    """The topic's id (KIP-516), which changes if the topic is deleted and created again."""
    partitions: Mapping[int, LogSpan] = field(default_factory=dict)
    """Empty: the topic does not exist."""


class Publisher(Protocol):
    """One client of one cluster. Implementations: `core.kafka`.

    Not thread-safe: one run, one publisher. After the client has given up a message, it does not
    retry it; `core.kafka.sender` does that, in the same way for every client.
    """

    max_in_flight: int
    """The most messages in flight: published and not yet reported."""

    def publish(self, delivery: Delivery, indexes: Sequence[int] | None = None) -> None:
        """Publishes messages of `delivery.batch`; blocks while the client's queue or `max_in_flight` is full.

        Adds 1 to attempts, sets sent_at_us, removes earlier `errors` of these indexes, and raises
        `pending`. Reports fill the delivery during this and later calls. A message that the client
        refuses at once (too large) is added to `errors` and is not pending.

        Args:
            delivery: The batch and its state.
            indexes: The messages to publish, from 0; None: all.

        Raises:
            BrokerUnavailable, NotAuthorised, TopicMissing: The client cannot publish anything any more
                (fatal client error). Errors of single messages are never raised.
        """
        ...

    def publish_alone(self, delivery: Delivery, indexes: Sequence[int]) -> None:
        """Sends each message in a record batch of its own, so that the broker acknowledges or refuses each one.

        For messages that were refused together with others (`BatchRefused`): a refusal is final here, a
        `MessageRefused`. Otherwise like `publish`, at about 3,000 messages/s.
        """
        ...

    def fit(self, topic: str) -> None:
        """Makes smaller record batches from now on: just below the topic's limit, or half the size if the limit may not be read.

        Needs `in_flight == 0`, and no open transaction.
        """
        ...

    def poll(self, timeout_s: float) -> int:
        """Processes reports for at most that long, and returns after the first ones; returns how many."""
        ...

    @property
    def in_flight(self) -> int:
        """Messages that are published and not yet reported."""
        ...

    def give_up(self, timeout_s: float) -> None:
        """Drops what is still queued. After it every message has a report, or a DeliveryTimeout in `errors`."""
        ...

    def prepare_once(self, control_topic: str) -> None:
        """Fences every earlier producer with the same transactional id, which aborts its open transaction, and creates the control topic.

        Raises:
            ConfigError: This client, or these settings, do not support transactions.
            BrokerUnavailable, NotAuthorised: As in `topics`.
        """
        ...

    def read_control(self, control_topic: str, keys: Collection[bytes]) -> Mapping[bytes, bytes]:
        """Returns the newest committed value of each of these keys on the control topic; omits keys without one."""
        ...

    def begin(self) -> None:
        """Begins a transaction; the first one fences earlier producers with the same id.

        ConfigError if the client supports none.
        """
        ...

    def commit(self) -> None:
        """Commits everything published since `begin`. Needs `in_flight == 0`."""
        ...

    def abort(self) -> None:
        """Aborts everything published since `begin`: read_committed readers never see it."""
        ...

    def topics(self, timeout_s: float = 10.0) -> list[TopicInfo]:
        """Returns the topics that this account may see.

        Raises:
            BrokerUnavailable, NotAuthorised: With the cause: refused, unknown host, certificate, password.
        """
        ...

    def brokers(self, timeout_s: float = 10.0) -> list[str]:
        """Returns `host:port` of every broker, as the cluster itself names them; raises as `topics` does."""
        ...

    def require_topic(self, topic: str, timeout_s: float = 10.0) -> None:
        """Returns once the topic is known to exist, or the cluster would create it on first use.

        Raises:
            TopicMissing: It does not exist and the cluster does not create topics.
            BrokerUnavailable, NotAuthorised: As in `topics`.
        """
        ...

    def describe(self, topic: str, timeout_s: float = 10.0) -> TopicState:
        """Returns ids of cluster and topic, and the offsets of each partition; takes 10 to 20 ms on a healthy cluster.

        It never creates the topic, except on librdkafka's mock brokers. kafka-python-ng and mock brokers return no topic id.

        Args:
            topic: One that this account may write to; a missing one has no partitions.
            timeout_s: For the whole call; a partition whose leader is being elected is waited for.

        Raises:
            BrokerUnavailable, NotAuthorised: As in `topics`.
        """
        ...

    def close(self, timeout_s: float = 10.0) -> None:
        """Waits for reports for at most that long, then closes. May be called twice."""
        ...
