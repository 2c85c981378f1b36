"""Notes of runs whose start was reported to lineage receivers and whose end was not: one small file for each in `.pstt/`.

A killed process leaves its note; the end is reported from the ledger once the run has a verdict.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from core.model.run import Run
from core.workspace.paths import Workspace

__all__ = ["EndNote"]

KEEP_S = 7 * 86_400.0
"""After this no receiver waits for the end of a run any more."""


@dataclass(frozen=True, slots=True)
class EndNote:
    """The note of one run. A disk that is full or may not be written costs the note and nothing else."""

    file: Path

    @property
    def run_id(self) -> str:
        """Of the run."""
        return self.file.name

    @classmethod
    def write(cls, workspace: Workspace, run: Run) -> Self:
        """Writes the note of a run that starts."""
        note = cls(_folder(workspace) / run.run_id)
        with suppress(OSError):
            note.file.parent.mkdir(parents=True, exist_ok=True)
            note.file.touch()
        return note

    @classmethod
    def all_of(cls, workspace: Workspace) -> Iterator[Self]:
        """Yields every note of the workspace."""
        folder = _folder(workspace)
        if folder.is_dir():
            yield from map(cls, sorted(folder.iterdir()))

    def remove(self) -> None:
        """Deletes the note."""
        with suppress(OSError):
            self.file.unlink(missing_ok=True)

    def remove_if_old(self) -> None:
        """Deletes the note if it is older than KEEP_S."""
        with suppress(OSError):
            if time.time() - self.file.stat().st_mtime > KEEP_S:
                self.remove()


def _folder(workspace: Workspace) -> Path:
    return workspace.state_dir / "lineage"
