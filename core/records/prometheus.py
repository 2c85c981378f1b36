"""Renders the metrics for Prometheus: counters since the first send, from which it computes rates and quantiles.

Throughput is `rate(pstt_messages_total[5m])`, a percentile
`histogram_quantile(0.99, rate(pstt_acknowledgement_latency_seconds_bucket[1h]))`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from core.errors import PsttError

if TYPE_CHECKING:
    from prometheus_client import Metric

    from core.records.ledger import Ledger
    from core.records.metrics import Metrics
    from core.records.metrics_queries import MetricsQueries
    from core.records.runner_status import BrokerSample

__all__ = ["CONTENT_TYPE", "render"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
EVER = datetime(1970, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
LATENCY_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper ends of the histogram's buckets in seconds; the alert of SPEC 12 begins at 5 s."""


def render(metrics: Metrics, ledger: Ledger, timezone: str, now: datetime) -> bytes:
    """Returns all metrics in the text format of Prometheus, of type `CONTENT_TYPE`; reads metrics.duckdb once.

    Where it cannot be read, `pstt_metrics_readable` is 0 and the metrics that come from it are left out.

    Source: https://prometheus.io/docs/practices/naming/
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Once(list(_families(metrics, ledger, timezone, now))))
    return generate_latest(registry)


class _Once(Collector):
    """Metric families that were computed before."""

    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Sequence[Metric]:
        return self._families


def _families(metrics: Metrics, ledger: Ledger, timezone: str, now: datetime) -> Iterator[Metric]:
    readable = True
    try:
        with metrics.figures(timezone) as figures:
            end = now + DAY  # another clock may be ahead
            families = [*_sent(figures, end), _latency(figures, end), *_runs(figures, end)]
    except PsttError:
        readable, families = False, []
    yield _gauge("pstt_metrics_readable", "1 where metrics.duckdb could be read, else 0", [((), float(readable))])
    yield from families
    yield from _clusters(ledger.broker_samples.since(now - DAY))
    yield from _runner(ledger, now)


def _sent(figures: MetricsQueries, end: datetime) -> Iterator[Metric]:
    rows = [((row["job"], row["topic"]), row) for row in figures.by_job_and_topic(EVER, end)]
    labels = ("job", "topic")
    outcomes = [((*of, "acknowledged"), row["messages"]) for of, row in rows]
    outcomes += [((*of, "failed"), row["errors"]) for of, row in rows]
    yield _counter("pstt_messages", "Messages by outcome", outcomes, (*labels, "outcome"))
    yield _counter(
        "pstt_messages_retried",
        "Messages sent more than once",
        [(of, row["retried"]) for of, row in rows],
        labels,
    )
    yield _counter(
        "pstt_messages_timed_out",
        "Messages that failed because no acknowledgement came in time",
        [(of, row["timed_out"]) for of, row in rows],
        labels,
    )
    yield _counter(
        "pstt_sent_bytes", "Keys and values of acknowledged messages", [(of, row["bytes"]) for of, row in rows], labels
    )
    yield _gauge(
        "pstt_last_send_timestamp_seconds",
        "When the newest message was sent, Unix time",
        [(of, row["last_send"].timestamp()) for of, row in rows if row["last_send"]],
        labels,
    )


def _latency(figures: MetricsQueries, end: datetime) -> Metric:
    """Counts from buckets that are 3 % wide, so the ends of these buckets are exact to 1.5 %."""
    family = HistogramMetricFamily(
        "pstt_acknowledgement_latency_seconds", "From sending to acknowledgement", labels=["topic"]
    )
    counts: dict[str, list[int]] = {}
    sums_us: dict[str, int] = {}
    for row in figures.latency_counts(EVER, end):
        of_topic = counts.setdefault(row["topic"], [0] * (len(LATENCY_S) + 1))
        of_topic[bisect_left(LATENCY_S, row["latency_ms"] / 1000)] += row["messages"]
        sums_us[row["topic"]] = sums_us.get(row["topic"], 0) + row["latency_us"]
    for topic, of_topic in counts.items():
        ends = [*map(str, LATENCY_S), "+Inf"]
        buckets = list(zip(ends, map(float, accumulate(of_topic)), strict=True))
        family.add_metric([topic], buckets, sums_us[topic] / 1e6)
    return family


def _runs(figures: MetricsQueries, end: datetime) -> Iterator[Metric]:
    states = [((row["job"], row["state"]), row["runs"]) for row in figures.run_states(EVER, end)]
    yield _counter("pstt_runs", "Runs by state", states, ("job", "state"))
    jobs = [row for row in figures.by_job(EVER, end) if row["runs"]]
    for name, help_, value in (
        ("pstt_rows_read", "Rows read from the databases", "rows_read"),
        ("pstt_rows_acknowledged", "Rows whose message is acknowledged", "acknowledged"),
        ("pstt_rows_rejected", "Rows that have no message", "rejected"),
    ):
        yield _counter(name, help_, [((row["job"],), row[value]) for row in jobs], ("job",))
    newest = figures.newest_runs()
    for name, help_, value in (
        ("pstt_run_duration_seconds", "Duration of the newest run that ended", "duration_s"),
        (
            "pstt_run_end_to_end_seconds",
            "From trigger to last acknowledgement of the newest run that ended",
            "end_to_end_s",
        ),
    ):
        yield _gauge(name, help_, [((row["job"],), row[value]) for row in newest if row[value] is not None], ("job",))
    yield _gauge(
        "pstt_run_last_success_timestamp_seconds",
        "When the newest scheduled time that has a success got it, Unix time",
        [((row["job"],), row["succeeded_at"].timestamp()) for row in newest if row["succeeded_at"]],
        ("job",),
    )


def _clusters(samples: Sequence[BrokerSample]) -> Iterator[Metric]:
    of: dict[str, list[BrokerSample]] = {}
    for sample in sorted(samples, key=lambda sample: sample.at):
        of.setdefault(sample.cluster, []).append(sample)
    connected = [((cluster,), float(seen[-1].connected)) for cluster, seen in of.items()]
    yield _gauge(
        "pstt_cluster_connected", "1 where the cluster answered when last asked, else 0", connected, ("cluster",)
    )
    uptime = [((cluster,), sum(s.connected for s in seen) / len(seen)) for cluster, seen in of.items()]
    yield _gauge(
        "pstt_cluster_uptime_ratio", "Share of the checks of 24 hours that the cluster answered", uptime, ("cluster",)
    )


def _runner(ledger: Ledger, now: datetime) -> Iterator[Metric]:
    beat = ledger.heartbeats.newest()
    is_alive = beat is not None and beat.is_alive(now)
    yield _gauge("pstt_runner_up", "1 where the runner is alive, else 0", [((), float(is_alive))])
    if beat is not None and is_alive:
        yield _gauge("pstt_runner_memory_bytes", "Memory of the runner", [((), float(beat.memory_bytes))])
        yield _gauge(
            "pstt_runner_start_timestamp_seconds",
            "When the runner started, Unix time",
            [((), beat.started_at.timestamp())],
        )


def _counter(name: str, help_: str, values: Sequence[tuple[tuple[str, ...], Any]], labels: Sequence[str]) -> Metric:
    family = CounterMetricFamily(name, help_, labels=labels)
    for of, value in values:
        family.add_metric(of, float(value))
    return family


def _gauge(
    name: str, help_: str, values: Sequence[tuple[tuple[str, ...], float]], labels: Sequence[str] = ()
) -> Metric:
    family = GaugeMetricFamily(name, help_, labels=labels)
    for of, value in values:
        family.add_metric(of, value)
    return family
