"""A third Kafka client, in the one file that a new client takes: what `docs/ARCHITECTURE.md` describes, and a test runs.

Its broker is a list in this process; messages stay there when the publisher is closed, as on a cluster.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from dataclasses import dataclass, field, replace

from core.kafka.memory import Fail, MemoryPublisher, MemoryRecord
from core.model.connection import Cluster
from core.model.publisher import TopicState

__all__ = ["BROKERS", "ListBroker", "ListPublisher"]


@dataclass
class ListBroker:
    """What is behind one address."""

    records: dict[str, list[MemoryRecord]] = field(default_factory=dict)
    """Topic → the committed messages."""
    ends: dict[str, array[int]] = field(default_factory=dict)
    """Topic → the next offset of each partition."""
    fail: Fail | None = None
    """Decides which attempt fails, and with what error."""


BROKERS: defaultdict[str, ListBroker] = defaultdict(ListBroker)
"""Address → its broker."""


class ListPublisher(MemoryPublisher):
    """Publishes into the lists of the broker at the cluster's address."""

    __slots__ = ("_address",)

    def __init__(self, cluster: Cluster, *, transactional_id: str | None = None, max_in_flight: int = 5000) -> None:
        self._address = cluster.bootstrap_servers
        broker = BROKERS[self._address]
        super().__init__(
            fail=broker.fail,
            max_in_flight=max_in_flight,
            max_request_size_bytes=cluster.max_request_size_bytes,
            records=broker.records,
            _ends=broker.ends,
        )

    def brokers(self, timeout_s: float = 10.0) -> list[str]:
        """Returns the address that the cluster was given."""
        return [self._address]

    def describe(self, topic: str, timeout_s: float = 10.0) -> TopicState:
        """Returns the topic with that address, which a run records."""
        return replace(super().describe(topic, timeout_s), bootstrap_servers=self._address)
