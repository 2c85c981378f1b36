"""Traces and metrics of runs by OTLP over HTTP (protobuf): a span for the run, one for each of its steps, and counters.

Spans and counters are made when the run has ended, from what was measured; until then nothing of OpenTelemetry is used.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.environment_variables import OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE
from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader, MetricExportResult
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.id_generator import IdGenerator, RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, set_span_in_context

from core.errors import BrokerUnavailable
from core.model.run import Run
from core.records.opened import OpenWorkspace
from core.run.observation import Observation, RunStep, StepTimes
from core.version import __version__
from core.workspace.secrets import resolve_secret

__all__ = ["TracingSink", "over_otlp"]

SCOPE = "pstt_kafka"
EXPORT_TIMEOUT_S = 2.0
Value = str | int | float | bool


class _KnownRoot(IdGenerator):  # type: ignore[misc]  # the library is not checked
    """Gives the first span the ids that messages carry already, and each later one a random id."""

    def __init__(self, trace_id: int, span_id: int) -> None:
        self._trace_id, self._first = trace_id, [span_id]
        self._random = RandomIdGenerator()

    def generate_trace_id(self) -> int:
        return self._trace_id

    def generate_span_id(self) -> int:
        return self._first.pop() if self._first else self._random.generate_span_id()


@dataclass(frozen=True, slots=True)
class TracingSink:
    """Sends the spans and metrics of a run when it has ended."""

    endpoint: str
    """Base URL, without a slash at its end."""
    headers: Mapping[str, str]
    resource: Resource

    def started(self, seen: Observation) -> None:
        """Does nothing: a span is sent when it has ended."""

    def ended(self, seen: Observation) -> None:
        """Sends everything.

        Raises:
            BrokerUnavailable: The server did not take it within the time.
        """
        if seen.run is None:
            return
        spans = OTLPSpanExporter(f"{self.endpoint}/v1/traces", headers=self.headers, timeout=EXPORT_TIMEOUT_S)
        if spans.export(self._spans(seen, seen.run)) is not SpanExportResult.SUCCESS:
            raise BrokerUnavailable("the server did not take the spans")
        metrics = OTLPMetricExporter(f"{self.endpoint}/v1/metrics", headers=self.headers, timeout=EXPORT_TIMEOUT_S)
        if self._export_metrics(metrics, seen.run) is not MetricExportResult.SUCCESS:
            raise BrokerUnavailable("the server did not take the metrics")

    def _spans(self, seen: Observation, run: Run) -> tuple[ReadableSpan, ...]:
        finished = InMemorySpanExporter()
        ids = _KnownRoot(seen.trace_id, seen.span_id)
        provider = TracerProvider(ALWAYS_ON, self.resource, shutdown_on_exit=False, id_generator=ids)
        provider.add_span_processor(SimpleSpanProcessor(finished))
        tracer = provider.get_tracer(SCOPE, __version__)
        whole = tracer.start_span(
            f"run {run.job}",
            kind=SpanKind.PRODUCER,
            attributes={**_identity(run), **dict(_counts(run))},
            start_time=seen.began_ns,
        )
        if run.state == "succeeded":
            whole.set_status(Status(StatusCode.OK))
        else:
            whole.set_status(Status(StatusCode.ERROR, run.error_text or run.state))
            whole.set_attribute("error.type", run.error_class or run.state)
        _add_steps(tracer, whole, seen.steps)
        for number, steps in sorted(seen.parts.items()):
            began_ns = min(times.began_ns for times in steps.values())
            part = tracer.start_span(f"part {number}", set_span_in_context(whole), start_time=began_ns)
            _add_steps(tracer, part, steps)
            part.end(max(times.ended_ns for times in steps.values()))
        whole.end(max(seen.ended_ns, seen.began_ns))
        spans: tuple[ReadableSpan, ...] = finished.get_finished_spans()
        return spans

    def _export_metrics(self, exporter: OTLPMetricExporter, run: Run) -> MetricExportResult:
        reader = InMemoryMetricReader(_temporality())
        provider = MeterProvider([reader], self.resource, shutdown_on_exit=False)
        meter = provider.get_meter(SCOPE, __version__)
        labels = {name: value for name, value in _identity(run).items() if name not in ("pstt.run_id", "pstt.of_run")}
        labels["pstt.verdict"] = run.verdict
        meter.create_counter("pstt.runs", "{run}", "Runs that have ended").add(1, labels)
        for name, count in _counts(run):
            unit = "By" if name.endswith("bytes") else "{row}"
            meter.create_counter(name, unit).add(count, labels)
        meter.create_histogram("pstt.run.duration", "s", "From start to verdict").record(run.duration_s, labels)
        found = reader.get_metrics_data()
        provider.shutdown()
        return MetricExportResult.SUCCESS if found is None else exporter.export(found)


def _add_steps(tracer: Tracer, parent: Span, steps: Mapping[RunStep, StepTimes]) -> None:
    for name, times in steps.items():
        step = tracer.start_span(name, set_span_in_context(parent), start_time=times.began_ns)
        step.set_attribute("pstt.work_s", times.work_ns / 1e9)
        step.set_attribute("pstt.pieces", times.pieces)
        step.end(times.ended_ns or times.began_ns)


def over_otlp(opened: OpenWorkspace, _run: Run, _file: str) -> TracingSink:
    """Returns the sink for OTEL_EXPORTER_OTLP_ENDPOINT.

    Raises:
        ConfigError: The secret of OTEL_EXPORTER_OTLP_HEADERS cannot be read.
    """
    settings = opened.settings
    text = ""
    if settings.OTEL_EXPORTER_OTLP_HEADERS is not None:
        reference = settings.OTEL_EXPORTER_OTLP_HEADERS.get_secret_value()
        text = resolve_secret(reference, opened.variables, opened.workspace.root).reveal()
    pairs = (pair.partition("=") for pair in text.split(",") if "=" in pair)
    resource = Resource.create(
        {
            "service.name": settings.OTEL_SERVICE_NAME,
            "service.version": __version__,
            "service.instance.id": f"{socket.gethostname()}-{os.getpid()}",
        }
    )
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    return TracingSink(str(settings.OTEL_EXPORTER_OTLP_ENDPOINT).rstrip("/"), headers, resource)


def _identity(run: Run) -> dict[str, Value]:
    found: dict[str, Value] = {
        "pstt.run_id": run.run_id,
        "pstt.job": run.job,
        "pstt.kind": run.kind,
        "pstt.connection": run.connection,
    }
    if run.of_run:
        found["pstt.of_run"] = run.of_run
    if run.topic:
        found |= {
            "messaging.system": "kafka",
            "messaging.destination.name": run.topic,
            "pstt.cluster": run.cluster,
        }
    return found


def _counts(run: Run) -> Iterator[tuple[str, int]]:
    yield "pstt.rows.read", run.rows_read
    yield "pstt.rows.acknowledged", run.acknowledged
    yield "pstt.rows.rejected", run.rejected
    yield "pstt.rows.failed", run.failed
    yield "pstt.bytes", run.bytes


def _temporality() -> dict[type, AggregationTemporality]:
    """Returns delta: each run is a process of its own. OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE may say cumulative."""
    wanted = os.environ.get(OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE, "delta").upper()
    kind = AggregationTemporality.CUMULATIVE if wanted == "CUMULATIVE" else AggregationTemporality.DELTA
    return {Counter: kind, Histogram: kind}
