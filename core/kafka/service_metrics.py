"""What a service has sent since it was created: counts by topic, latencies, recent errors."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from core.model.percentile import percentile
from core.model.publisher import Delivery

__all__ = ["Counters", "RecentError", "ServiceMetrics", "TopicMetrics"]

KEPT_LATENCIES = 10_000
KEPT_ERRORS = 100


@dataclass(frozen=True, slots=True)
class TopicMetrics:
    """What was sent to one topic."""

    messages: int
    bytes: int
    """Of keys and values."""
    last_send: datetime


@dataclass(frozen=True, slots=True)
class RecentError:
    """One failed message."""

    at: datetime
    topic: str
    error: str
    text: str


@dataclass(frozen=True, slots=True)
class ServiceMetrics:
    """What this service has sent since it was created. Latencies are those of the latest 10,000 messages."""

    total_sent: int
    """Acknowledged messages."""
    failed: int
    success_rate: float
    """0 … 1; 1 if nothing was sent."""
    latency_avg_ms: float | None
    latency_p50_ms: float | None
    latency_p90_ms: float | None
    latency_p99_ms: float | None
    topics: Mapping[str, TopicMetrics]
    recent_errors: tuple[RecentError, ...]
    """The latest 100, the newest last."""


@dataclass(slots=True)
class Counters:
    """Counts finished deliveries. Any thread may call it."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    sent: int = 0
    failed: int = 0
    latencies_ms: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT_LATENCIES))
    topics: dict[str, TopicMetrics] = field(default_factory=dict)
    errors: deque[RecentError] = field(default_factory=lambda: deque(maxlen=KEPT_ERRORS))

    def add(self, delivery: Delivery, now: datetime) -> None:
        """Counts a finished delivery."""
        with self.lock:
            self._add(delivery, now)

    def _add(self, delivery: Delivery, now: datetime) -> None:
        batch = delivery.batch
        arrived = delivery.acknowledged
        self.sent += arrived
        self.failed += len(delivery.errors)
        for error in delivery.errors.values():
            self.errors.append(RecentError(now, batch.topic, type(error).__name__, str(error)))
        if not arrived:
            return
        latencies_ms: Sequence[float] = delivery.latencies_ms
        keys, values = batch.keys, list(batch.values)
        if arrived < len(batch):
            indexes = [index for index, partition in enumerate(delivery.partitions) if partition != -1]
            latencies_ms = [latencies_ms[index] for index in indexes]
            keys, values = [keys[index] for index in indexes], [values[index] for index in indexes]
        self.latencies_ms.extend(latencies_ms)
        size = sum(map(len, filter(None, values))) + sum(map(len, filter(None, keys)))
        before = self.topics.get(batch.topic, TopicMetrics(0, 0, now))
        self.topics[batch.topic] = TopicMetrics(before.messages + arrived, before.bytes + size, now)

    def summary(self) -> ServiceMetrics:
        """Returns the counts of this moment."""
        with self.lock:
            latencies_ms = tuple(self.latencies_ms)
            topics, errors = dict(self.topics), tuple(self.errors)
            sent, failed = self.sent, self.failed
        counts = Counter(latencies_ms)
        return ServiceMetrics(
            total_sent=sent,
            failed=failed,
            success_rate=sent / (sent + failed) if sent + failed else 1.0,
            latency_avg_ms=sum(latencies_ms) / len(latencies_ms) if latencies_ms else None,
            latency_p50_ms=percentile(counts, 0.5),
            latency_p90_ms=percentile(counts, 0.9),
            latency_p99_ms=percentile(counts, 0.99),
            topics=topics,
            recent_errors=errors,
        )
