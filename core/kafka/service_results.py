"""What a service returns for messages that were sent, and for a health check."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from itertools import repeat

from core.model.publisher import Delivery

__all__ = ["BatchResult", "Health", "SendResult"]


@dataclass(frozen=True, slots=True)
class SendResult:
    """Where an acknowledged message is stored."""

    topic: str
    partition: int
    offset: int
    latency_ms: float
    """From publishing to acknowledgement."""
    message_id: str

    @classmethod
    def of(cls, delivery: Delivery, index: int) -> SendResult:
        """Returns the result of one acknowledged message of a delivery, by its index from 0."""
        return cls(
            delivery.batch.topic,
            delivery.partitions[index],
            delivery.offsets[index],
            delivery.latencies_ms[index],
            delivery.batch.message_ids[index].decode(),
        )

    @classmethod
    def all_of(cls, delivery: Delivery, first: int, count: int) -> list[SendResult]:
        """Returns the results of `count` acknowledged messages, from an index on; by columns, in a quarter of the time."""
        part = slice(first, first + count)
        results = list(map(_new, repeat(cls, count)))
        columns: tuple[Iterable[object], ...] = (
            repeat(delivery.batch.topic),
            delivery.partitions[part],
            delivery.offsets[part],
            delivery.latencies_ms[part],
            map(bytes.decode, delivery.batch.message_ids[part]),
        )
        # What `__init__` of a frozen class does, without a Python call for each result.
        for descriptor, column in zip(_FIELDS, columns, strict=True):
            deque(map(descriptor.__set__, results, column), 0)
        return results


_new = object.__new__
_FIELDS = [getattr(SendResult, field.name) for field in fields(SendResult)]
"""What stores the value of each field in a result."""


@dataclass(frozen=True, slots=True)
class BatchResult:
    """The result of sending many messages."""

    total: int
    succeeded: int
    failed: int
    errors: Mapping[int, str]
    """Index in the list of messages, from 0 → what failed and why."""


@dataclass(frozen=True, slots=True)
class Health:
    """Whether the cluster answers."""

    connected: bool
    brokers: tuple[str, ...] = ()
    """`host:port` of each."""
    latency_ms: float | None = None
    """Time for one request and its response."""
    error: str | None = None
