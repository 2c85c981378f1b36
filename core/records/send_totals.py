"""The totals of recorded sends, counted by columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt

from core.model.percentile import percentile
from core.model.run import PartitionRange

__all__ = ["SendColumns", "SendTotals"]

Numbers = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class SendColumns:
    """What is counted of some sends; all columns have the same length."""

    topics: Sequence[tuple[str, int]]
    """Topic and how many sends in a row went there."""
    partitions: Numbers
    """-1: not acknowledged."""
    offsets: Numbers
    """-1: unknown."""
    sizes: Numbers
    """Bytes of the value."""
    key_sizes: Numbers
    """Bytes of the key."""
    sent_at_us: Numbers
    """Microseconds since 1970; -1: unknown."""
    latencies_ms: Numbers
    attempts: Numbers


@dataclass(slots=True)
class SendTotals:
    """The totals of recorded sends. Latencies are counted in steps of 0.1 ms, so memory stays constant."""

    acknowledged: int = 0
    failed: int = 0
    retried: int = 0
    bytes: int = 0
    latencies: Counter[float] = field(default_factory=Counter)
    """Latency in ms, rounded to 0.1 → messages."""
    ranges: dict[tuple[str, int], PartitionRange] = field(default_factory=dict)
    unplaced: Counter[tuple[str, int]] = field(default_factory=Counter)
    """Topic and partition → messages acknowledged without an offset, as they were stored before they were sent again."""
    falls: dict[tuple[str, int], list[tuple[int, int]]] = field(default_factory=dict)
    """Topic and partition → each decrease of the offsets: (before, after)."""
    last_sent_at: datetime | None = None

    def percentile_ms(self, share: float) -> float | None:
        """Returns the latency that `share` (0 to 1) of the acknowledged messages did not exceed, to 0.1 ms."""
        return percentile(self.latencies, share)

    @property
    def average_ms(self) -> float | None:
        """Mean latency of the acknowledged messages in ms."""
        total = sum(self.latencies.values())
        return sum(ms * count for ms, count in self.latencies.items()) / total if total else None

    @property
    def latency_counts(self) -> dict[str, int]:
        """Latency in ms to two digits → messages: some hundred entries at most."""
        counts: Counter[str] = Counter()
        for latency_ms, count in self.latencies.items():
            counts[f"{float(f'{latency_ms:.2g}'):g}"] += count
        return dict(counts)

    @property
    def partitions(self) -> tuple[PartitionRange, ...]:
        """Offsets by topic and partition, in order."""
        return tuple(self.ranges[place] for place in sorted(self.ranges))

    @property
    def placed(self) -> tuple[PartitionRange, ...]:
        """The same for the messages whose offset is known."""
        counted = (replace(r, count=r.count - self.unplaced[r.topic, r.partition]) for r in self.partitions)
        return tuple(r for r in counted if r.count)

    def add(self, sends: SendColumns) -> None:
        """Adds some sends."""
        acknowledged = sends.partitions >= 0
        self.acknowledged += int(np.count_nonzero(acknowledged))
        self.failed += int(np.count_nonzero(~acknowledged))
        self.retried += int(np.count_nonzero(sends.attempts > 1))
        last_us = int(sends.sent_at_us.max(initial=-1))
        if last_us >= 0:
            moment = datetime.fromtimestamp(last_us / 1e6, UTC)
            self.last_sent_at = max(moment, self.last_sent_at or moment)
        self.bytes += int(sends.sizes[acknowledged].sum()) + int(sends.key_sizes[acknowledged].sum())
        # Stored as 32 bits: a run and a later reading of its segments count the same.
        latencies = sends.latencies_ms[acknowledged].astype(np.float32).astype(np.float64)
        for latency_ms, count in _counted(np.round(latencies, 1)):
            self.latencies[latency_ms] += count
        for topic, is_topic in _by_topic(sends.topics):
            self._add_offsets(topic, sends.partitions[is_topic], sends.offsets[is_topic])

    def _add_offsets(self, topic: str, partitions: Numbers, offsets: Numbers) -> None:
        for partition, count in _counted(partitions[partitions >= 0]):
            found = offsets[partitions == partition]
            found = found[found >= 0]
            place = (topic, partition)
            known = self.ranges.get(place)
            has_offsets = known is not None and known.count > self.unplaced[place]
            self.unplaced[place] += count - len(found)
            spread = [int(found.min()), int(found.max())] if len(found) else []
            if known is not None and has_offsets:
                spread += [known.first_offset, known.last_offset]
            count += known.count if known is not None else 0
            self.ranges[place] = PartitionRange(*place, min(spread, default=0), max(spread, default=0), count)


def _by_topic(runs: Sequence[tuple[str, int]]) -> Iterator[tuple[str, slice | Numbers]]:
    """Yields each topic with what selects its sends."""
    topics = list(dict.fromkeys(topic for topic, _ in runs))
    if len(topics) == 1:
        yield topics[0], slice(None)
        return
    ends = list(accumulate(count for _, count in runs))
    for topic in topics:
        chosen = np.zeros(ends[-1], np.bool_)
        for (other, count), end in zip(runs, ends, strict=True):
            if other == topic:
                chosen[end - count : end] = True
        yield topic, chosen


def _counted(values: Numbers) -> Iterator[tuple[Any, int]]:
    """Yields each different value and how often it is there; `np.unique` would import more of numpy, 8 ms a process."""
    if not len(values):
        return
    ordered = np.sort(values)
    firsts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    yield from zip(ordered[firsts].tolist(), np.diff(firsts, append=len(ordered)).tolist(), strict=True)
