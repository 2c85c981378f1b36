"""The processes that another process has started."""

from __future__ import annotations

import psutil

__all__ = ["processes_below"]


def processes_below(pid: int, word: str) -> list[psutil.Process]:
    """Returns those below a process, at any depth, that have a word among their arguments and have not ended."""
    found = []
    for process in psutil.Process(pid).children(recursive=True):
        try:
            if word in process.cmdline():
                found.append(process)
        except psutil.NoSuchProcess:  # it has just ended; also where nobody has asked for its exit code yet
            continue
    return found
