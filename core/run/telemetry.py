"""Sends what is known of a run to lineage and tracing servers, without ever delaying or failing the run.

A thread of its own builds and sends everything, and imports the libraries. The process waits for it for END_WAIT_S at
most, after the verdict is recorded. Whatever fails is one line of the log.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Protocol
from urllib.parse import urlsplit

from loguru import logger

from core.errors import ConfigError, PsttError
from core.model.run import Plan, Run
from core.model.source import Column
from core.records.opened import OpenWorkspace
from core.run.observation import NOT_OBSERVED, Observation, RunObserver, Step

__all__ = ["Sink", "Telemetry", "observed"]

END_WAIT_S = 5.0
"""How long a process waits, after the verdict, until everything is sent."""
INSTALL = "pip install -r requirements-lineage.txt"

# Without a handler Python writes their warnings to stderr, in the middle of the command's output.
for _name in ("openlineage", "opentelemetry", "urllib3"):
    logging.getLogger(_name).addHandler(logging.NullHandler())


class Sink(Protocol):
    """One receiver. Its methods are called in the thread of `Telemetry`, and may raise anything."""

    def started(self, seen: Observation) -> None:
        """Sends that the run has started."""
        ...

    def ended(self, seen: Observation) -> None:
        """Sends the verdict."""
        ...


@dataclass(frozen=True, slots=True)
class Receiver:
    """A receiver of the settings, which is opened by the first event."""

    name: str
    """What is sent, and where to: no path, no user, no password."""
    open: Callable[[], Sink]


@dataclass(slots=True)
class _Opened:
    """A receiver, and whether it still receives."""

    receiver: Receiver
    sink: Sink | None = None
    has_failed: bool = False


class Telemetry:
    """Observes one run and reports it.

    Args:
        plan: The run's.
        receivers: At least one.
        is_traced: Whether one of them receives traces.
        end_wait_s: How long `close` waits.
    """

    def __init__(
        self, plan: Plan, receivers: Sequence[Receiver], *, is_traced: bool, end_wait_s: float = END_WAIT_S
    ) -> None:
        self.seen = Observation(plan)
        self._receivers = [_Opened(receiver) for receiver in receivers]
        self._is_traced = is_traced
        self._end_wait_s = end_wait_s
        self._events: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="telemetry", daemon=True)
        self._is_ended = False

    @property
    def traceparent(self) -> str:
        """The trace context of the run; empty if no traces are sent."""
        return self.seen.traceparent if self._is_traced else ""

    def started(self, run: Run) -> None:
        """Reports the start of the run."""
        self.seen.run = run
        self._events.put("started")
        self._thread.start()

    def ended(self, run: Run) -> None:
        """Reports the verdict."""
        self.seen.run = run
        self._end()

    def columns(self, columns: Sequence[Column]) -> None:
        """Notes the columns of the result."""
        self.seen.result = tuple(columns)

    def step(self, name: Step) -> AbstractContextManager[None]:
        """Returns what measures one piece of a step."""
        return self.seen.step(name)

    def close(self) -> None:
        """Waits until everything is sent, for `end_wait_s` at most; a run without a verdict is reported as failed."""
        if self.seen.run is None:
            return
        if not self._is_ended:
            self._end()
        self._events.put(None)
        self._thread.join(self._end_wait_s)
        if self._thread.is_alive():
            names = " and ".join(opened.receiver.name for opened in self._receivers if not opened.has_failed)
            logger.warning("{}: not all was sent within {:g} s; the run is not affected", names, self._end_wait_s)

    def _end(self) -> None:
        self._is_ended = True
        self.seen.ended_ns = self.seen.began_ns + int(self._seconds() * 1e9)
        self._events.put("ended")

    def _seconds(self) -> float:
        run = self.seen.run
        last = max((times.ended_ns for times in self.seen.steps.values()), default=0)
        return max(run.duration_s if run else 0.0, (last - self.seen.began_ns) / 1e9)

    def _work(self) -> None:
        while (event := self._events.get()) is not None:
            for opened in self._receivers:
                if not opened.has_failed:
                    self._send(opened, event)

    def _send(self, opened: _Opened, event: str) -> None:
        try:
            if opened.sink is None:
                opened.sink = opened.receiver.open()
            (opened.sink.started if event == "started" else opened.sink.ended)(self.seen)
        except Exception as failure:  # noqa: BLE001 - whatever it is, the run goes on
            opened.has_failed = True
            logger.warning("{}: not sent: {}; the run is not affected", opened.receiver.name, _reason(failure))


@contextmanager
def observed(opened: OpenWorkspace, plan: Plan) -> Iterator[RunObserver]:
    """Yields what observes a run, as the settings OPENLINEAGE_*, PSTT_LINEAGE_* and OTEL_* say.

    Leaving it waits until everything is sent, for END_WAIT_S at most.
    """
    receivers = list(_receivers(opened, plan))
    if not receivers:
        yield NOT_OBSERVED
        return
    telemetry = Telemetry(plan, receivers, is_traced=bool(opened.settings.OTEL_EXPORTER_OTLP_ENDPOINT))
    try:
        yield telemetry
    finally:
        telemetry.close()


def _receivers(opened: OpenWorkspace, plan: Plan) -> Iterator[Receiver]:
    settings = opened.settings
    # The modules are imported by the thread: their libraries take 300 ms, and are not installed everywhere.
    if settings.OPENLINEAGE_URL:
        place = _host(settings.OPENLINEAGE_URL)
        yield Receiver(f"lineage to {place}", partial(_open, "core.run.lineage", "over_http", opened, plan))
    if settings.PSTT_LINEAGE_FILE:
        name = f"lineage to {settings.PSTT_LINEAGE_FILE}"
        yield Receiver(name, partial(_open, "core.run.lineage", "into_file", opened, plan))
    if settings.PSTT_LINEAGE_TOPIC:
        name = f"lineage to topic {settings.PSTT_LINEAGE_TOPIC}"
        yield Receiver(name, partial(_open, "core.run.lineage", "into_topic", opened, plan))
    if settings.OTEL_EXPORTER_OTLP_ENDPOINT:
        place = _host(settings.OTEL_EXPORTER_OTLP_ENDPOINT)
        yield Receiver(f"traces to {place}", partial(_open, "core.run.tracing", "over_otlp", opened, plan))


def _open(module: str, function: str, opened: OpenWorkspace, plan: Plan) -> Sink:
    sink: Sink = getattr(import_module(module), function)(opened, plan)
    return sink


def _host(url: str) -> str:
    """Returns scheme, host and port: a URL may have a user, a password or a token in it."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")


def _reason(failure: Exception) -> str:
    """Returns why something was not sent. Texts of other libraries may repeat a URL or a header, so they are left out."""
    if isinstance(failure, ImportError):
        return f"{failure.name or 'a library'} is not installed ({INSTALL})"
    if isinstance(failure, ConfigError | PsttError):
        return failure.text
    status = getattr(getattr(failure, "response", None), "status_code", None)
    return type(failure).__name__ + (f", status {status}" if status else "")
