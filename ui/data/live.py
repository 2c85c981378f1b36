"""The runs that are running now, and how far each is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from core import open_workspace
from core.admin.log_reader import LogLine
from core.model.progress import RunProgress
from core.model.run import Run
from core.records.run_progress import ProgressFiles
from ui import data
from ui.cache import SharedCache
from ui.data.runs import log_lines

__all__ = ["LiveDetail", "LiveRun", "live_detail", "live_runs", "running_now"]

READ_EVERY_S = 1.0
SILENT_AFTER_S = 15.0
"""A process writes twice a second. One of another machine that is silent for so long has probably ended."""


@dataclass(frozen=True)
class LiveRun:
    """A running run and how far it is."""

    run: Run
    progress: RunProgress | None
    """None: it has begun less than a second ago, or its process writes none."""
    at: datetime
    """When it was read."""

    @property
    def elapsed_s(self) -> float:
        """Seconds since the run began."""
        return max((self.at - self.run.started_at).total_seconds(), 0.0)

    @property
    def silent_s(self) -> float:
        """Seconds since the last sign of its process; 0.0 while they are too few to mean anything."""
        age_s = (self.at - (self.progress.at if self.progress else self.run.started_at)).total_seconds()
        return age_s if age_s > SILENT_AFTER_S else 0.0

    @property
    def remaining_s(self) -> float | None:
        """Seconds that are left, as far as that is known."""
        if self.progress is None or self.progress.remaining_s is None or self.silent_s:
            return None
        return max(self.progress.remaining_s - (self.at - self.progress.at).total_seconds(), 0.0)

    @property
    def share(self) -> float | None:
        """The part of the rows that is done, from 0 to 1; None: not known."""
        found = self.progress
        if found is None or not found.rows_expected:
            return None
        # Once all rows are read, those that have arrived count.
        is_sent = found.step in ("waiting", "verifying", "recording") or found.rows_read == found.rows_expected
        done = found.acknowledged + found.rejected if is_sent else found.rows_read
        return min(done / found.rows_expected, 1.0)


@dataclass(frozen=True)
class LiveDetail:
    """All that a running run shows."""

    live: LiveRun
    log: list[LogLine]


def running_now() -> tuple[LiveRun, ...]:
    """Returns the running runs, the newest first, up to 1 s old; their parts are not among it.

    Raises:
        PsttError: The ledger cannot be read.
    """
    return _running.get(data.root())


def live_runs(files: ProgressFiles, runs: Iterable[Run]) -> dict[str, LiveRun]:
    """Returns run id → how far it is, of those of these runs that are running."""
    at = data.now()
    return {run.run_id: LiveRun(run, files.read(run.run_id), at) for run in runs if run.state == "running"}


def live_detail(run_id: str) -> LiveDetail | None:
    """Returns all that a running run shows; None: it is not running any more.

    Raises:
        ConfigError: There is no such run.
    """
    with data.opened() as app:
        run = app.ledger.run(run_id)
    live = live_runs(ProgressFiles(data.workspace()), [run]).get(run.run_id)
    return LiveDetail(live, log_lines(run)) if live else None


def _read(folder: Path) -> tuple[LiveRun, ...]:
    with open_workspace(folder, log=False) as app:
        return tuple(live_runs(ProgressFiles(app.workspace), app.ledger.history.running()).values())


_running = SharedCache(_read, fresh_s=READ_EVERY_S, stale_s=READ_EVERY_S)
data.on_clear(_running.clear)
