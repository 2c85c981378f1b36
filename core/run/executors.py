"""Chooses where the parts of a run are executed."""

from __future__ import annotations

from core.records.opened import OpenWorkspace
from core.run.dask_parts import DaskParts
from core.run.local_parts import LocalProcesses, default_processes
from core.run.own_process import OwnProcess
from core.run.parts import PartExecutor

__all__ = ["open_executor"]


def open_executor(opened: OpenWorkspace, parts: int) -> PartExecutor:
    """Returns what runs the parts of one run, on a Dask cluster if DASK_SCHEDULER_ADDRESS is set; to be closed.

    Args:
        opened: The workspace.
        parts: How many there are.

    Raises:
        ConfigError: dask is not installed, or its TLS settings cannot be used.
        WorkersUnavailable: No scheduler answers at the address.
    """
    if opened.settings.DASK_SCHEDULER_ADDRESS:
        return DaskParts(opened.workspace, opened.settings, opened.variables)
    processes = opened.settings.PSTT_RUN_PROCESSES or default_processes()
    if processes == 1:
        return OwnProcess(opened)
    return LocalProcesses(opened.workspace.root, min(processes, parts))
