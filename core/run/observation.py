"""What is measured of a run for lineage and traces: its steps, columns and times. Nothing is measured unless it is asked for."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal, Protocol

from core.model.run import Run
from core.model.source import Column

__all__ = [
    "NOT_OBSERVED",
    "NotObserved",
    "Observation",
    "PartObserver",
    "PartSteps",
    "RunObserver",
    "RunStep",
    "StepTimes",
]

RunStep = Literal["read", "encode", "send", "record"]
PartSteps = Mapping[RunStep, tuple[int, int, int, int]]
"""RunStep → the fields of `StepTimes`: began, ended, work (ns) and pieces."""


class RunObserver(Protocol):
    """Is notified of the steps of a run. None of its methods raises or waits."""

    @property
    def traceparent(self) -> str:
        """The W3C trace context of the run, which messages may carry; empty: it is not traced."""
        ...

    def started(self, run: Run) -> None:
        """Called when the ledger has the run."""
        ...

    def ended(self, run: Run) -> None:
        """Called with the verdict."""
        ...

    def columns(self, columns: Sequence[Column]) -> None:
        """Called with the columns of the result."""
        ...

    def step(self, name: RunStep) -> AbstractContextManager[None]:
        """Returns what measures one piece of a step: once for each fetch, never for each message."""
        ...

    def part(self, number: int, steps: PartSteps) -> None:
        """Called with what a part of the run has measured; its number is from 1."""
        ...


_NOT_MEASURED = nullcontext()


@dataclass(frozen=True, slots=True)
class NotObserved:
    """Measures nothing."""

    traceparent: str = ""

    def started(self, run: Run) -> None:
        """Does nothing."""

    def ended(self, run: Run) -> None:
        """Does nothing."""

    def columns(self, columns: Sequence[Column]) -> None:
        """Does nothing."""

    def step(self, name: RunStep) -> AbstractContextManager[None]:
        """Returns a context that does nothing."""
        return _NOT_MEASURED

    def part(self, number: int, steps: PartSteps) -> None:
        """Does nothing."""


NOT_OBSERVED = NotObserved()


@dataclass(slots=True)
class StepTimes:
    """When one step of a run worked. Steps take turns, so the work is less than the time from begin to end."""

    began_ns: int
    """Unix time in ns, as `ended_ns`."""
    ended_ns: int = 0
    work_ns: int = 0
    pieces: int = 0
    _piece_began: int = 0

    def __enter__(self) -> None:
        self._piece_began = time.perf_counter_ns()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.work_ns += time.perf_counter_ns() - self._piece_began
        self.ended_ns = time.time_ns()
        self.pieces += 1


@dataclass(slots=True)
class PartObserver:
    """Measures the steps of one part of a run."""

    traceparent: str
    """Of the whole run, which the messages of the part may carry."""
    steps: dict[RunStep, StepTimes] = field(default_factory=dict)

    @property
    def measured(self) -> PartSteps:
        """What the result of the part says."""
        return {name: (t.began_ns, t.ended_ns, t.work_ns, t.pieces) for name, t in self.steps.items()}

    def started(self, run: Run) -> None:
        """Does nothing: the run has started before."""

    def ended(self, run: Run) -> None:
        """Does nothing."""

    def columns(self, columns: Sequence[Column]) -> None:
        """Does nothing: the run knows them."""

    def step(self, name: RunStep) -> StepTimes:
        """Returns what measures one piece of a step."""
        if name not in self.steps:
            self.steps[name] = StepTimes(time.time_ns())
        return self.steps[name]

    def part(self, number: int, steps: PartSteps) -> None:
        """Does nothing: a part has no parts."""


@dataclass(slots=True)
class Observation:
    """What is known of one run so far."""

    trace_id: int = field(default_factory=lambda: secrets.randbits(128) or 1)
    span_id: int = field(default_factory=lambda: secrets.randbits(64) or 1)
    run: Run | None = None
    began_ns: int = field(default_factory=time.time_ns)
    """Unix time in ns, as `ended_ns`."""
    ended_ns: int = 0
    result: tuple[Column, ...] = ()
    """The columns; empty: not known yet."""
    steps: dict[RunStep, StepTimes] = field(default_factory=dict)
    parts: dict[int, dict[RunStep, StepTimes]] = field(default_factory=dict)
    """Number of a part → what it measured; the last attempt only."""

    @property
    def traceparent(self) -> str:
        """The run's own span, sampled. Source: https://www.w3.org/TR/trace-context/#traceparent-header."""
        return f"00-{self.trace_id:032x}-{self.span_id:016x}-01"

    def step(self, name: RunStep) -> StepTimes:
        """Returns what measures one piece of a step."""
        if name not in self.steps:
            self.steps[name] = StepTimes(time.time_ns())
        return self.steps[name]
