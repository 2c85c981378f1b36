"""Chooses where the parts of a run are executed."""

from __future__ import annotations

from core.records.opened import OpenWorkspace
from core.run.local_parts import LocalProcesses, default_processes
from core.run.parts import PartExecutor

__all__ = ["open_executor"]


def open_executor(opened: OpenWorkspace, parts: int) -> PartExecutor:
    """Returns what runs the parts of one run; to be closed.

    Args:
        opened: The workspace.
        parts: How many there are.
    """
    processes = opened.settings.PSTT_RUN_PROCESSES or default_processes()
    return LocalProcesses(opened.workspace.root, min(processes, parts))
