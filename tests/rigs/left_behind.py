"""Ends what a test process has started and left behind, when that process has ended in any way: a runner works for ever.

A process of its own waits for the end of a pipe, which the system closes also for a process that was killed. It then ends
every process whose environment has the mark of that test process: children inherit it, at any depth. Servers of the rigs
do not have it, their guard ends them (`guard.py`).
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import psutil

__all__ = ["end_what_is_left_behind", "unmarked"]

MARK = "STARTED_BY_TESTS"
OWN_GROUP = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP} if os.name == "nt" else {"start_new_session": True}
"""Ctrl-C in the terminal of the tests is not for this process."""


_waiting: list[subprocess.Popen[bytes]] = []
"""Held, and its pipe with it, until this process ends."""


def end_what_is_left_behind() -> None:
    """Marks this process's environment, and starts the process that waits for its end."""
    mark = f"{os.getpid()}-{secrets.token_hex(4)}"
    os.environ[MARK] = mark
    words = [sys.executable, str(Path(__file__)), mark]
    env = unmarked(os.environ)
    _waiting.append(subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=env, **OWN_GROUP))


def unmarked(environ: Mapping[str, str]) -> dict[str, str]:
    """Returns an environment for a process that ends by itself."""
    return {name: value for name, value in environ.items() if name != MARK}


def marked(mark: str) -> Iterator[psutil.Process]:
    """Yields the processes with that mark; those of other accounts are not looked into."""
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.environ().get(MARK) == mark:
                yield process


def main() -> None:
    sys.stdin.buffer.read()
    for _ in range(5):  # one that was starting another one in this moment
        for process in marked(sys.argv[1]):
            with suppress(psutil.Error):
                process.kill()
        time.sleep(0.2)


if __name__ == "__main__":
    main()
