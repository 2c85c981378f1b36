"""Sends what is known of a run to lineage and tracing servers, without ever delaying or failing the run.

A thread of its own builds and sends everything, and imports the libraries. The process waits for it for END_WAIT_S at
most, after the verdict is recorded. Whatever fails is one line of the log.
"""

from __future__ import annotations

import logging
import queue
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from loguru import logger

from core.errors import ConfigError, PsttError
from core.model.run import Plan, Run
from core.model.source import Column
from core.records.opened import OpenWorkspace
from core.run.end_notes import EndNote
from core.run.observation import NOT_OBSERVED, Observation, PartSteps, RunObserver, RunStep, StepTimes
from core.workspace.connections import Connections
from core.workspace.secrets import resolve_secret
from core.workspace.settings import Settings

__all__ = ["Receiver", "Sink", "Telemetry", "observed", "report_lost_ends", "telemetry_problems"]

END_WAIT_S = 5.0
"""How long a process waits, after the verdict, until everything is sent."""
INSTALL = "pip install -r requirements-lineage.txt"

_is_usable = re.compile(r"https?://([^\s/@:\[\]]+|\[[0-9a-fA-F:]+\])(:[0-9]{1,5})?(/[^\s@]*)?").fullmatch

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
    open: Callable[[Run], Sink]
    is_lineage: bool = True
    """It needs an end for each start, and gets a lost one later."""


@dataclass(slots=True)
class _Opened:
    """A receiver, and whether it still receives."""

    receiver: Receiver
    sink: Sink | None = None
    has_failed: bool = False


class Telemetry:
    """Observes one run and reports it.

    Args:
        receivers: At least one.
        note: Written at the start of the run and deleted when each lineage receiver has its end; None: none is kept.
        afterwards: Called in the thread when all events are sent.
        end_wait_s: How long `close` waits.
    """

    def __init__(
        self,
        receivers: Sequence[Receiver],
        *,
        note: Callable[[Run], EndNote] | None = None,
        afterwards: Callable[[], None] = lambda: None,
        end_wait_s: float = END_WAIT_S,
    ) -> None:
        self.seen = Observation()
        self._receivers = [_Opened(receiver) for receiver in receivers]
        self._make_note = note
        self._note: EndNote | None = None
        self._afterwards = afterwards
        self._end_wait_s = end_wait_s
        self._events: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="telemetry", daemon=True)
        self._is_ended = False
        self._is_sent = threading.Event()

    @property
    def traceparent(self) -> str:
        """The trace context of the run; empty if no traces are sent."""
        is_traced = any(not opened.receiver.is_lineage for opened in self._receivers)
        return self.seen.traceparent if is_traced else ""

    def started(self, run: Run) -> None:
        """Reports the start of the run."""
        self.seen.run = run
        if self._make_note is not None:
            self._note = self._make_note(run)
        self._events.put("started")
        self._thread.start()

    def ended(self, run: Run) -> None:
        """Reports the verdict."""
        self.seen.run = run
        self._end()

    def columns(self, columns: Sequence[Column]) -> None:
        """Notes the columns of the result."""
        self.seen.result = tuple(columns)

    def step(self, name: RunStep) -> AbstractContextManager[None]:
        """Returns what measures one piece of a step."""
        return self.seen.step(name)

    def part(self, number: int, steps: PartSteps) -> None:
        """Notes what a part has measured."""
        if steps:
            self.seen.parts[number] = {name: StepTimes(*times) for name, times in steps.items()}

    def close(self) -> None:
        """Waits until everything is sent, for `end_wait_s` at most; a run without a verdict is reported as failed."""
        if self.seen.run is None:
            return
        if not self._is_ended:
            self._end()
        self._events.put(None)
        if self._is_sent.wait(self._end_wait_s):
            self._thread.join(self._end_wait_s)
        else:
            names = " and ".join(opened.receiver.name for opened in self._receivers if not opened.has_failed)
            logger.warning("{}: not all was sent within {:g} s; the run is not affected", names, self._end_wait_s)

    def _end(self) -> None:
        self._is_ended = True
        last_ns = max((times.ended_ns for times in self.seen.steps.values()), default=0)
        duration_s = self.seen.run.duration_s if self.seen.run else 0.0
        self.seen.ended_ns = max(self.seen.began_ns + int(duration_s * 1e9), last_ns)
        self._events.put("ended")

    def _work(self) -> None:
        while (event := self._events.get()) is not None:
            for opened in self._receivers:
                if not opened.has_failed:
                    self._send(opened, event)
            if (
                event == "ended"
                and self._note
                and not any(o.has_failed and o.receiver.is_lineage for o in self._receivers)
            ):
                self._note.remove()
        self._is_sent.set()
        self._afterwards()

    def _send(self, opened: _Opened, event: str) -> None:
        run = self.seen.run
        if run is None:
            return
        try:
            if opened.sink is None:
                opened.sink = opened.receiver.open(run)
            (opened.sink.started if event == "started" else opened.sink.ended)(self.seen)
        except Exception as failure:  # noqa: BLE001 - whatever it is, the run goes on
            opened.has_failed = True
            logger.warning("{}: not sent: {}; the run is not affected", opened.receiver.name, _reason(failure))


@contextmanager
def observed(opened: OpenWorkspace, plan: Plan) -> Iterator[RunObserver]:
    """Yields what observes a run, as the settings OPENLINEAGE_*, PSTT_LINEAGE_* and OTEL_* say.

    Leaving it waits until everything is sent, for END_WAIT_S at most.
    """
    receivers = list(_receivers(opened, plan.output or ""))
    if not receivers:
        yield NOT_OBSERVED
        return
    has_lineage = any(receiver.is_lineage for receiver in receivers)
    telemetry = Telemetry(
        receivers,
        note=partial(EndNote.write, opened.workspace) if has_lineage else None,
        afterwards=partial(_report_in_thread, opened) if has_lineage else lambda: None,
    )
    try:
        yield telemetry
    finally:
        telemetry.close()


def telemetry_problems(
    settings: Settings, connections: Connections, variables: Mapping[str, str], root: Path
) -> Iterator[ConfigError]:
    """Yields why nothing would be sent although the settings ask for it; contacts no server.

    Args:
        settings: The settings.
        connections: Must have the cluster of PSTT_LINEAGE_TOPIC.
        variables: The environment and `.env`, for references to secrets.
        root: The workspace.
    """
    lineage = settings.OPENLINEAGE_URL or settings.PSTT_LINEAGE_FILE or settings.PSTT_LINEAGE_TOPIC
    libraries = {
        "openlineage": ("OPENLINEAGE_URL or PSTT_LINEAGE_*", lineage),
        "opentelemetry.sdk": ("OTEL_EXPORTER_OTLP_ENDPOINT", settings.OTEL_EXPORTER_OTLP_ENDPOINT),
    }
    for library, (name, value) in libraries.items():
        if value and not _is_installed(library):
            yield ConfigError(f"{library} is not installed, so nothing is sent", why=f"{name} is set", remedy=INSTALL)
    secrets = {
        settings.OPENLINEAGE_URL: settings.OPENLINEAGE_API_KEY,
        settings.OTEL_EXPORTER_OTLP_ENDPOINT: settings.OTEL_EXPORTER_OTLP_HEADERS,
    }
    if settings.OTEL_EXPORTER_OTLP_ENDPOINT and variables.get("OTEL_EXPORTER_OTLP_PROTOCOL", "").startswith("grpc"):
        yield ConfigError(
            "traces and metrics are sent over HTTP",
            why="OTEL_EXPORTER_OTLP_PROTOCOL is grpc, so the endpoint may not take them",
            remedy="set OTEL_EXPORTER_OTLP_ENDPOINT to the collector's HTTP port (4318)",
        )
    try:
        for name in ("OPENLINEAGE_URL", "OTEL_EXPORTER_OTLP_ENDPOINT"):
            if url := getattr(settings, name):
                _require_url(name, url)
        for url, secret in secrets.items():
            if url and secret is not None:
                resolve_secret(secret.get_secret_value(), variables, root)
        if settings.PSTT_LINEAGE_TOPIC:
            connections.cluster(settings.PSTT_LINEAGE_TOPIC.rpartition("/")[0] or None, settings)
    except ConfigError as error:
        yield error


def _is_installed(library: str) -> bool:
    try:
        return find_spec(library) is not None
    except ImportError:  # its parent is not installed
        return False


def report_lost_ends(opened: OpenWorkspace) -> None:
    """Sends the end of each run that lineage receivers know as started, and that has a verdict now.

    Its process was killed, or the receiver did not take the end. What cannot be sent is tried again by the next call,
    for a week.
    """
    for note in EndNote.all_of(opened.workspace):
        try:
            run = opened.ledger.run(note.run_id)
        except PsttError:
            note.remove()
            continue
        if run.state in ("planned", "running"):
            continue
        try:
            for receiver in _receivers(opened, ""):
                if receiver.is_lineage:
                    receiver.open(run).ended(Observation(run=run))
        except Exception as failure:  # noqa: BLE001 - the run had its warning
            logger.debug("the end of run {} is not reported yet: {}", run.run_id, _reason(failure))
            note.remove_if_old()
            return
        note.remove()


def _report_in_thread(opened: OpenWorkspace) -> None:
    if next(iter(EndNote.all_of(opened.workspace)), None) is not None:
        with opened.reopened() as own:
            report_lost_ends(own)


def _receivers(opened: OpenWorkspace, file: str) -> Iterator[Receiver]:
    """Yields the receivers of the settings.

    Args:
        opened: The workspace.
        file: What a run to a file writes, below `exports/`.
    """
    settings = opened.settings

    def of(name: str, module: str, function: str, setting: str = "", *, is_lineage: bool = True) -> Receiver:
        return Receiver(name, partial(_open, module, function, setting, opened, file), is_lineage)

    # The modules are imported by the thread: their libraries take 300 ms, and are not installed everywhere.
    if settings.OPENLINEAGE_URL:
        yield of(f"lineage to {_host(settings.OPENLINEAGE_URL)}", "core.run.lineage", "over_http", "OPENLINEAGE_URL")
    if settings.PSTT_LINEAGE_FILE:
        yield of(f"lineage to {settings.PSTT_LINEAGE_FILE}", "core.run.lineage", "into_file")
    if settings.PSTT_LINEAGE_TOPIC:
        yield of(f"lineage to topic {settings.PSTT_LINEAGE_TOPIC}", "core.run.lineage", "into_topic")
    if settings.OTEL_EXPORTER_OTLP_ENDPOINT:
        name = f"traces to {_host(settings.OTEL_EXPORTER_OTLP_ENDPOINT)}"
        yield of(name, "core.run.tracing", "over_otlp", "OTEL_EXPORTER_OTLP_ENDPOINT", is_lineage=False)


def _open(module: str, function: str, setting: str, opened: OpenWorkspace, file: str, run: Run) -> Sink:
    if setting:
        _require_url(setting, getattr(opened.settings, setting))
    sink: Sink = getattr(import_module(module), function)(opened, run, file)
    return sink


def _host(url: str) -> str:
    """Returns scheme, host and port: a URL may have a user, a password or a token in it."""
    try:
        parts = urlsplit(url)
        return f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")
    except ValueError:
        return "an address that is no URL"


def _require_url(setting: str, url: str) -> None:
    """Raises ConfigError if nothing can be sent to a URL, or a password is in it."""
    if not _is_usable(url):
        raise ConfigError(
            f"{setting} is not usable",
            why="it has to be http://HOST:PORT or https://…, without a user and a password",
            remedy="see .env.example",
        )


def _reason(failure: Exception) -> str:
    """Returns why something was not sent. Texts of other libraries may repeat a URL or a header, so they are left out."""
    if isinstance(failure, ImportError):
        return f"{failure.name or 'a library'} is not installed ({INSTALL})"
    if isinstance(failure, ConfigError | PsttError):
        return failure.text
    status = getattr(getattr(failure, "response", None), "status_code", None)
    return type(failure).__name__ + (f", status {status}" if status else "")
