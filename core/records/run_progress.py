"""The progress of running runs: a small file for each, so that page, REST and command line can read it.

It is a file and not a row of the ledger: a write twice a second would sync the disk and take the ledger's write lock. It
is lost with its process, so that nothing is read from it once the run has a verdict.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC
from pathlib import Path

import msgspec

from core.model.progress import RunProgress
from core.model.run import Run
from core.workspace.paths import Workspace

__all__ = ["ProgressFiles"]

ORPHANED_AFTER_S = 3600.0
"""A running run writes twice a second; the file of a killed one is deleted after this. One that is deleted too early, since
the machine was suspended, is written again."""

_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0)
_decoder = msgspec.json.Decoder(RunProgress)


class ProgressFiles:
    """The progress of the runs of one workspace."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self._folder = workspace.state_dir / "progress"

    def write(self, progress: RunProgress) -> bool:
        """Replaces what is known of a run; readers see the old or the new state, never a part.

        Returns:
            False if it could not be written: on Windows while a reader has the file open, or on a full disk. The
            caller writes again half a second later, and no run fails for it.
        """
        file = self._file(progress.run_id)
        temporary = file.with_suffix(".tmp")
        try:
            _write(temporary, msgspec.json.encode(progress))
            os.replace(temporary, file)
        except OSError:
            return False
        return True

    def read(self, run_id: str) -> RunProgress | None:
        """Returns the progress of a run; None where there is none, or not yet.

        The caller asks only for runs that are running: a killed run leaves its file behind.
        """
        try:
            found = _decoder.decode(self._file(run_id).read_bytes())
        except (OSError, msgspec.DecodeError):
            return None
        return replace(found, at=found.at.astimezone(UTC)) if found.run_id == run_id else None

    def of_runs(self, runs: Iterable[Run]) -> dict[str, RunProgress]:
        """Returns run id → progress, of those of these runs that are running."""
        found = {run.run_id: self.read(run.run_id) for run in runs if run.state == "running"}
        return {run_id: progress for run_id, progress in found.items() if progress}

    def remove(self, run_id: str) -> None:
        """Deletes the progress of a run that has its verdict; on Windows a file that is being read is left to `clean`."""
        for file in (self._file(run_id), self._file(run_id).with_suffix(".tmp")):
            with suppress(OSError):
                file.unlink(missing_ok=True)

    def clean(self) -> None:
        """Deletes what killed runs left behind."""
        with suppress(OSError):
            for file in self._folder.iterdir():
                with suppress(OSError):
                    if time.time() - file.stat().st_mtime > ORPHANED_AFTER_S:
                        file.unlink()

    def _file(self, run_id: str) -> Path:
        return self._folder / f"{run_id}.json"


def _write(file: Path, content: bytes) -> None:
    """Writes a small file: a third of the time of `Path.write_bytes`."""
    try:
        handle = os.open(file, _FLAGS, 0o644)
    except FileNotFoundError:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(file, _FLAGS, 0o644)
    try:
        os.write(handle, content)
    finally:
        os.close(handle)
