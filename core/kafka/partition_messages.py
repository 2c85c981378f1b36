"""Messages on their way to one partition, and the record batch that they become."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.kafka.record_batch import RecordBatch, encode_batch
from core.model.publisher import NO_TIME, Delivery

__all__ = ["Messages", "can_share_batch", "encoded"]


@dataclass(slots=True, eq=False)
class Messages:
    """Messages of one delivery for one partition, in their order."""

    delivery: Delivery
    indexes: NDArray[np.int64]
    """Their positions in the delivery."""
    sizes: NDArray[np.int64]
    """Bytes of each in a record batch, at most."""
    sent_at_ms: int
    published_at_s: float
    """Of `time.perf_counter`."""
    are_alone: bool = False
    """Each goes in a record batch of its own."""
    record_batch: RecordBatch | None = None
    """All of them, encoded already; None: they wait for others."""

    @property
    def size_bytes(self) -> int:
        """Bytes of all of them in a record batch, at most."""
        return int(self.sizes.sum())

    def split(self, count: int) -> tuple[Messages, Messages]:
        """Returns the first `count` messages and the others."""
        first, rest = (
            Messages(
                self.delivery,
                self.indexes[part],
                self.sizes[part],
                self.sent_at_ms,
                self.published_at_s,
                self.are_alone,
            )
            for part in (slice(0, count), slice(count, None))
        )
        return first, rest


def encoded(messages: Sequence[Messages], compression: str, *, is_transactional: bool) -> RecordBatch:
    """Returns one record batch with these messages.

    Args:
        messages: At least one message; all may share a record batch.
        compression: A name of `record_batch.COMPRESSIONS`.
        is_transactional: Whether it belongs to a transaction.
    """
    keys: list[bytes | None] = []
    values: list[bytes | None] = []
    message_ids: list[bytes] = []
    timestamps_ms: list[int] = []
    first = messages[0].delivery.batch
    further: list[tuple[str, list[bytes | None]]] = [(name, []) for name, _ in first.header_columns]
    for some in messages:
        batch, indexes = some.delivery.batch, some.indexes.tolist()
        keys += map(batch.keys.__getitem__, indexes)
        values += map(batch.values.__getitem__, indexes)
        message_ids += map(batch.message_ids.__getitem__, indexes)
        for (_, column), (_, given) in zip(further, batch.header_columns, strict=True):
            column += map(given.__getitem__, indexes)
        if batch.timestamps_ms is not None:
            timestamps_ms += _times(batch.timestamps_ms, indexes, some.sent_at_ms)
        else:
            timestamps_ms += [some.sent_at_ms] * len(indexes) if len(messages) > 1 else ()
    return encode_batch(
        keys,
        values,
        message_ids,
        first.headers,
        timestamps_ms=timestamps_ms or messages[0].sent_at_ms,
        compression=compression,
        is_transactional=is_transactional,
        header_columns=further,
    )


def can_share_batch(some: Messages, others: Messages) -> bool:
    """Returns whether both can be in one record batch, whose messages have the same headers."""
    own, other = some.delivery.batch, others.delivery.batch
    if own.headers != other.headers:
        return False
    return [name for name, _ in own.header_columns] == [name for name, _ in other.header_columns]


def _times(timestamps_ms: Sequence[int], indexes: Sequence[int], sent_at_ms: int) -> list[int]:
    """Returns the time of each record; one without a time of its own gets that of sending."""
    return [sent_at_ms if timestamps_ms[i] == NO_TIME else timestamps_ms[i] for i in indexes]
