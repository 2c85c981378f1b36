"""Reads large SQL files in a process of its own, so that nobody else's page or request waits meanwhile.

The parser is Python and holds the interpreter's lock: 5 MB of values take seconds. The functions that may be called are
those of this module; their arguments and results are pickled between the two processes.
"""

from __future__ import annotations

import gc
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from core import open_workspace
from core.admin.edit_files import check_query
from core.errors import PsttError
from core.sql.parser import load
from core.sql.partitioning import require_splittable
from core.sql.query import ParsedQuery
from core.workspace.connections import read_connections
from core.workspace.jobs import SUFFIX, checked_job
from core.workspace.paths import Workspace
from core.workspace.process import begin_process

__all__ = ["binding_error", "checked", "is_large", "outline"]

P = ParamSpec("P")
R = TypeVar("R")

LARGE_BYTES = 200_000
"""A file up to this size is read in a tenth of a second, as long as another process takes to start."""


def is_large(path: Path) -> bool:
    """Returns whether a file is read in another process."""
    try:
        return path.stat().st_size > LARGE_BYTES
    except OSError:
        return False


def checked(root: Path, connection: str, path: Path, content: bytes) -> tuple[str, ...]:
    """As `core.admin.edit_files.check_query`, for a connection of the workspace; large content in another process."""
    call = _check if len(content) <= LARGE_BYTES else partial(_apart, _check)
    return call(root, connection, path, content)


def outline(root: Path, connection: str, path: Path) -> ParsedQuery:
    """Returns an SQL file without its statements: parameters and notes. It is read in another process."""
    return _apart(_outline, root, connection, path)


def binding_error(root: Path, slug: str, text: str, now: datetime, at: datetime, *, apart: bool) -> PsttError | None:
    """Returns the error that a run of this job would have before it contacts anything; None: it has none.

    Args:
        root: Of the workspace.
        slug: Of the job.
        text: Of its file.
        now: The clock.
        at: The scheduled time.
        apart: Read the SQL in another process.
    """
    return (partial(_apart, _binding_error) if apart else _binding_error)(root, slug, text, now, at)


def _check(root: Path, connection: str, path: Path, content: bytes) -> tuple[str, ...]:
    connections, _ = read_connections(Workspace(root), os.environ)
    dialect, writes = connections.dialect(connection), connections.allows_writes(connection)
    return check_query(path, content, dialect, allow_writes=writes)


def _outline(root: Path, connection: str, path: Path) -> Any:
    connections, _ = read_connections(Workspace(root), os.environ)
    parsed = load(path, connections.dialect(connection))
    # A dialect has functions, which cannot be pickled: the caller puts its own in place.
    return replace(parsed, dialect=None, _text="", _statements=())  # type: ignore[arg-type]


def _binding_error(root: Path, slug: str, text: str, now: datetime, at: datetime) -> PsttError | None:
    with open_workspace(root, log=False) as app:
        job, _ = checked_job(root / f"{slug}{SUFFIX}", text)
        try:
            if job is not None:
                plan = app.plan(job, now=now, at=at)
                if job.partitions is not None:
                    require_splittable(plan.query.steps, app.connections.dialect(job.connection), job.partitions)
        except PsttError as error:
            return error
    return None


_CALLED = {function.__name__: function for function in (_check, _outline, _binding_error)}


def _apart(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Calls a function of this module in another process.

    Raises:
        PsttError: What the function raised, or that the process ended without a result.
    """
    asked = pickle.dumps((function.__name__, args))
    try:
        process = begin_process(
            (), module="ui.apart", stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        with process:
            answer, _ = process.communicate(asked)
    except OSError as error:
        raise PsttError("another process cannot be started", why=error.strerror or str(error)) from None
    if process.returncode != 0:
        raise PsttError("the SQL could not be read", why=f"its process ended with {process.returncode}")
    found = pickle.loads(answer)  # noqa: S301 - written by this very module
    if isinstance(found, _Raised):
        raise found.error
    result: R = found
    return result


class _Raised:
    """An error that the function raised."""

    def __init__(self, error: PsttError) -> None:
        self.error = error


def main() -> None:
    """Does what the caller's process has asked for, and writes the result."""
    gc.disable()  # the process ends with its answer
    name, args = pickle.loads(sys.stdin.buffer.read())  # noqa: S301 - written by this very module
    found: Any
    try:
        found = _CALLED[name](*args)
    except PsttError as error:
        found = _Raised(error)
    sys.stdout.buffer.write(pickle.dumps(found))


if __name__ == "__main__":
    from ui import apart  # its classes have their name in pickles, not that of `__main__`

    apart.main()
