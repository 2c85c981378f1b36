"""The protocol that every Kafka client implements, and the batches and deliveries it exchanges.

The hot path holds columns of values, not one object per row: an object per row costs as much as turning the row into JSON.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from core.errors import PsttError

__all__ = ["Batch", "Delivery", "LogSpan", "Publisher", "TopicInfo", "TopicState"]


@dataclass(frozen=True, slots=True)
class Batch:
    """Messages that are published, tracked and retried together. All lists have the same length."""

    number: int
    """From 1, in the run."""
    topic: str
    keys: list[bytes | None]
    values: list[bytes]
    message_ids: list[bytes]
    """ASCII hex; sent as header `message_id`."""
    row_numbers: Sequence[int]
    headers: tuple[tuple[str, bytes], ...] = ()
    """The other headers, the same for each message."""

    def __len__(self) -> int:
        return len(self.values)


@dataclass(slots=True, eq=False)
class Delivery:
    """What became of one batch; filled by the publisher while reports arrive.

    `partitions[i]` is -1 until message i is acknowledged. A message is in exactly one of three
    states: acknowledged (partition ≥ 0), failed (`i in errors`), or still in flight.
    """

    batch: Batch
    partitions: array[int]
    offsets: array[int]
    latencies_ms: array[float]
    """From publishing to acknowledgement, in ms."""
    attempts: array[int]
    """1 for the first time a message is published."""
    sent_at_us: array[int]
    """Unix time of the last publishing, in µs."""
    errors: dict[int, PsttError] = field(default_factory=dict)
    went_back: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Partition → (offset acknowledged before, lower offset acknowledged then): its log was cut or made again."""
    pending: int = 0
    """Messages in flight; 0 means the delivery is complete."""

    @classmethod
    def of(cls, batch: Batch) -> Delivery:
        """A delivery in which nothing has been published yet."""
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
        """Messages the broker has confirmed."""
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
    """The offsets that one partition holds at a moment."""

    earliest: int
    """Of the oldest record that is still there."""
    end: int
    """The one that the next record will get."""


@dataclass(frozen=True, slots=True)
class TopicState:
    """One topic at one moment; a text is empty where the client or the cluster does not tell it."""

    topic: str
    cluster_id: str = ""
    """The cluster's own id, which no renaming changes."""
    bootstrap_servers: str = ""
    """The addresses that the client was given."""
    topic_id: str = ""
    """KIP-516: another one after the topic was deleted and made again."""
    partitions: Mapping[int, LogSpan] = field(default_factory=dict)
    """Empty: the topic does not exist."""


class Publisher(Protocol):
    """One client of one cluster. Implementations: `core.kafka`.

    Not thread-safe: one run, one publisher. It never tries a batch again by itself once the client
    has given a message up; `core.kafka.sender` does that, above every client alike.
    """

    max_in_flight: int
    """The most messages in flight: published and not yet reported."""

    def publish(self, delivery: Delivery, indexes: Sequence[int] | None = None) -> None:
        """Hands messages of `delivery.batch` to the client; waits while the client's queue or `max_in_flight` is full.

        Sets attempts (+1) and sent_at_us, removes stale `errors` of these indexes, and raises
        `pending`. Reports fill the delivery during this and later calls. A message that the client
        refuses at once (too large) is put into `errors` and is not pending.

        Args:
            delivery: The batch and its state.
            indexes: The messages to publish, from 0; None: all.

        Raises:
            BrokerUnavailable, NotAuthorised, TopicMissing: The client can do nothing more at all
                (fatal client error). Errors of single messages are never raised.
        """
        ...

    def publish_alone(self, delivery: Delivery, indexes: Sequence[int]) -> None:
        """Sends each message in a record batch of its own, so that the broker answers for each.

        For messages that were refused together with others (`BatchRefused`): a refusal is final here, a
        `MessageRefused`. As `publish`, at some 3,000 messages/s.
        """
        ...

    def fit(self, topic: str) -> None:
        """Makes smaller record batches from now on: just below the topic's limit, or half where that may not be asked for.

        Needs `in_flight == 0`, and no open transaction.
        """
        ...

    def poll(self, timeout_s: float) -> int:
        """Serves reports for at most that long and returns as soon as there was one; the number served."""
        ...

    @property
    def in_flight(self) -> int:
        """Messages that are published and not yet reported."""
        ...

    def give_up(self, timeout_s: float) -> None:
        """Drops what is still queued; after it every message has a report or a DeliveryTimeout in `errors`."""
        ...

    def prepare_once(self, control_topic: str) -> None:
        """Fences every earlier holder of the same transactional id, whose open transaction is aborted, and makes the control topic.

        Raises:
            ConfigError: This client, or these settings, have no transactions.
            BrokerUnavailable, NotAuthorised: As in `topics`.
        """
        ...

    def read_control(self, control_topic: str, keys: Collection[bytes]) -> Mapping[bytes, bytes]:
        """The newest committed value of each of these keys on the control topic; those that are there."""
        ...

    def begin(self) -> None:
        """Starts a transaction (fences earlier holders of the same id the first time). ConfigError where the client has none."""
        ...

    def commit(self) -> None:
        """Makes everything since `begin` visible at once. Needs `in_flight == 0`."""
        ...

    def abort(self) -> None:
        """Makes everything since `begin` invisible for ever to read_committed readers."""
        ...

    def topics(self, timeout_s: float = 10.0) -> list[TopicInfo]:
        """The topics this account may see.

        Raises:
            BrokerUnavailable, NotAuthorised: With the true cause: refused, unknown host, certificate, password.
        """
        ...

    def brokers(self, timeout_s: float = 10.0) -> list[str]:
        """`host:port` of every broker of the cluster, as the cluster itself names them; raises as `topics` does."""
        ...

    def require_topic(self, topic: str, timeout_s: float = 10.0) -> None:
        """Returns once the topic is known to exist, or the cluster would make it on first use.

        Raises:
            TopicMissing: It is not there and the cluster does not make topics.
            BrokerUnavailable, NotAuthorised: As in `topics`.
        """
        ...

    def describe(self, topic: str, timeout_s: float = 10.0) -> TopicState:
        """Ids of cluster and topic, and the offsets that each partition holds; 10 to 20 ms on a healthy cluster.

        It never makes the topic, except on librdkafka's mock brokers. kafka-python-ng and mock brokers give no topic id.

        Args:
            topic: One that this account may write to; a missing one has no partitions.
            timeout_s: For all of it; a partition whose leader is being elected is waited for.

        Raises:
            BrokerUnavailable, NotAuthorised: As in `topics`.
        """
        ...

    def close(self, timeout_s: float = 10.0) -> None:
        """Waits for reports at most that long, then lets go. May be called twice."""
        ...
