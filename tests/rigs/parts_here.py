"""Runs the parts of a run in this process, one after the other, so that they reach a broker that is in this process too."""

from __future__ import annotations

import msgspec

from core.records.opened import OpenWorkspace
from core.run.cancellation import Stop
from core.run.part import run_part
from core.run.parts import PartEvent, PartTask, decode_event, encode

__all__ = ["PartsHere"]


class PartsHere:
    """A `core.run.parts.PartExecutor`; tasks and results go through JSON, as between processes."""

    def __init__(self, opened: OpenWorkspace, _parts: int) -> None:
        self._opened = opened
        self._ready: list[PartEvent] = []

    def prepare(self, _task: PartTask, _parts: int) -> None:
        """See `core.run.parts.PartExecutor`: there is nothing to start."""

    def start(self, task: PartTask) -> None:
        """See `core.run.parts.PartExecutor`."""
        task = msgspec.json.decode(encode(task), type=PartTask)
        result = run_part(task, self._opened, stop=Stop(), report=self._ready.append)
        self._ready.append(decode_event(encode(result)))

    def events(self, timeout_s: float) -> list[PartEvent]:
        """See `core.run.parts.PartExecutor`."""
        ready, self._ready = self._ready, []
        return ready

    def cancel(self, within_s: float) -> None:
        """See `core.run.parts.PartExecutor`."""

    def close(self) -> None:
        """See `core.run.parts.PartExecutor`."""
