"""Reads large SQL files in a process of its own, so that nobody else's page or request waits meanwhile.

The parser is Python and holds the interpreter's lock: 5 MB of values take seconds. The functions that may be called are
those of this module; their arguments and results are pickled between the two processes. What was found out about a file
is kept by its hash: after the save that has checked it, this process knows its parameters and where they are bound, and so
what is wrong with the values of a job. Another process reads the file again only where its text is needed.
"""

from __future__ import annotations

import gc
import os
import pickle
import subprocess
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from core import open_workspace
from core.admin.check import Finding, check_job
from core.admin.edit_files import bind_examples, checked_query
from core.errors import ConfigError, PsttError
from core.model.job import Job
from core.run.planning import plan_run
from core.sql.known_statements import KnownStatements
from core.sql.parser import load
from core.sql.query import ParsedQuery
from core.workspace.connections import read_connections
from core.workspace.jobs import SUFFIX, JobFile, checked_job, parse_job
from core.workspace.paths import Workspace
from core.workspace.process import begin_process
from core.workspace.stored_file import read_stored
from ui.cache import SharedCache

if TYPE_CHECKING:
    from core.model.run import Plan
    from core.run.planning import ReadQuery
    from core.run.preview import Preview

__all__ = ["binding_error", "checked", "has_large_query", "is_large", "job_findings", "outline", "preview"]

P = ParamSpec("P")
R = TypeVar("R")

LARGE_BYTES = 200_000
"""A file up to this size is read in a tenth of a second, as long as another process takes to start."""


KEPT_OUTLINES = 16
FRESH_S = 60.0
"""How soon a changed variable or secret file is noticed by the check of a job with a large SQL file."""
_JobKey = tuple[Path, str, str, tuple[tuple[int, int], ...]]


@dataclass(frozen=True, slots=True)
class _Outline:
    """What is known of an SQL file without its text."""

    query: ParsedQuery
    is_enough: bool
    """No values make its statements wrong; False: the text is needed to know."""


class _Outlines:
    """The outlines that were used last, by workspace, connection and hash of the file; of a file that is wrong the error."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[str, ...], _Outline | PsttError] = OrderedDict()

    def get(self, key: tuple[str, ...]) -> _Outline | PsttError | None:
        with self._lock:
            return self._known.get(key)

    def keep(self, key: tuple[str, ...], found: _Outline | PsttError) -> None:
        with self._lock:
            self._known[key] = found
            self._known.move_to_end(key)
            while len(self._known) > KEPT_OUTLINES:
                self._known.popitem(last=False)


def is_large(path: Path) -> bool:
    """Returns whether a file is read in another process."""
    try:
        return path.stat().st_size > LARGE_BYTES
    except OSError:
        return False


def has_large_query(workspace: Workspace, job: Job) -> bool:
    """Returns whether what a job would do is found out in another process."""
    with suppress(ConfigError):  # its query is no file of the workspace: the caller says so
        return is_large(workspace.query_file(job.query))
    return False


def checked(root: Path, connection: str, path: Path, content: bytes) -> tuple[str, ...]:
    """As `core.admin.edit_files.check_query`, for a connection of the workspace; large content in another process."""
    if len(content) <= LARGE_BYTES:
        return _check(root, connection, path, content)[0]
    notes, found = _apart(_check, root, connection, path, content)
    _outlines.keep(_outline_key(root, connection, found.query.sha256), found)
    return notes


def outline(root: Path, connection: str, path: Path) -> ParsedQuery:
    """Returns an SQL file without its statements: parameters and notes. It is read in another process, once.

    Its dialect is None: the caller puts the one of the connection in its place.
    """
    return _outline_of(root, connection, path).query


def _outline_of(root: Path, connection: str, path: Path) -> _Outline:
    key = _outline_key(root, connection, read_stored(path).sha256)
    known = _outlines.get(key)
    if known is None:
        try:
            known = _apart(_outline, root, connection, path)
        except ConfigError as error:
            known = error
        _outlines.keep(key, known)
    if isinstance(known, PsttError):
        raise known.with_traceback(None)
    return known


def _is_outline_enough(workspace: Workspace, job: Job) -> bool:
    """Returns whether the problems of a job with a large SQL file can be found without the text of that file."""
    try:
        return (
            job.partitions is None
            and _outline_of(workspace.root, job.connection, workspace.query_file(job.query)).is_enough
        )
    except ConfigError:
        return True  # the error is found again in its place


def _reads_outlines(root: Path, connection: str) -> ReadQuery:
    return lambda path, dialect: replace(outline(root, connection, path), dialect=dialect)


def _outline_key(root: Path, connection: str, sha256: str) -> tuple[str, ...]:
    """Returns what an outline depends on: the file, and which database the connection is."""
    return str(root), connection, sha256, read_stored(Workspace(root).connections_file).sha256


def job_findings(workspace: Workspace, file: JobFile) -> list[Finding]:
    """Returns what `core.admin.check.check_job` finds of a job with a large SQL file, which another process reads, once.

    Raises:
        ConfigError: connections.json or a setting is wrong.
    """
    if _is_outline_enough(workspace, file.job):
        return _job_findings(workspace.root, file.slug, file.text, outlines=True)
    files = (workspace.query_file(file.job.query), workspace.connections_file, workspace.env_file)
    stamps = tuple((one.stat().st_mtime_ns, one.stat().st_size) for one in files if one.exists())
    return _findings.get((workspace.root, file.slug, file.text, stamps))


def preview(
    root: Path, slug: str, text: str, now: datetime, at: datetime, rows: int, timeout_s: float
) -> tuple[Plan, Preview]:
    """Returns the plan of a job, without its statements, and its first messages. Both are made in another process.

    Args:
        root: Of the workspace.
        slug: Of the job.
        text: Of its file, which need not be saved.
        now: The clock.
        at: The scheduled time.
        rows: Rows to read, at most.
        timeout_s: How long the statement may take, if the connection does not allow less.

    Raises:
        PsttError: What a run would end with before or while it reads.
    """
    return _apart(_preview, root, slug, text, now, at, rows, timeout_s)


def binding_error(root: Path, slug: str, text: str, now: datetime, at: datetime, *, apart: bool) -> PsttError | None:
    """Returns the error that a run of this job would have before it contacts anything; None: it has none.

    Args:
        root: Of the workspace.
        slug: Of the job.
        text: Of its file.
        now: The clock.
        at: The scheduled time.
        apart: Read the SQL in another process, if this one does not know enough about it.
    """
    if not apart:
        return _binding_error(root, slug, text, now, at)
    job, _ = checked_job(root / f"{slug}{SUFFIX}", text)
    if job is not None and _is_outline_enough(Workspace(root), job):
        return _binding_error(root, slug, text, now, at, outlines=True)
    return _apart(_binding_error, root, slug, text, now, at)


def _check(root: Path, connection: str, path: Path, content: bytes) -> tuple[tuple[str, ...], _Outline]:
    connections, _ = read_connections(Workspace(root), os.environ)
    dialect, writes = connections.dialect(connection), connections.allows_writes(connection)
    parsed = checked_query(path, content, dialect, allow_writes=writes)
    return parsed.notes, _picklable(parsed, is_enough=not parsed.inserts_names)


def _outline(root: Path, connection: str, path: Path) -> _Outline:
    connections, _ = read_connections(Workspace(root), os.environ)
    parsed = load(path, connections.dialect(connection))
    try:
        bind_examples(parsed, allow_writes=connections.allows_writes(connection))
    except PsttError:
        return _picklable(parsed, is_enough=False)
    return _picklable(parsed, is_enough=not parsed.inserts_names)


def _picklable(parsed: ParsedQuery, *, is_enough: bool) -> _Outline:
    # A dialect has functions, which cannot be pickled: the caller puts its own in place.
    return _Outline(replace(parsed.outline(), dialect=None), is_enough)  # type: ignore[arg-type]


def _job_findings(root: Path, slug: str, text: str, *, outlines: bool = False) -> list[Finding]:
    with open_workspace(root, log=False) as app:
        job = parse_job(app.workspace.queries_dir / f"{slug}{SUFFIX}", text)
        read = _reads_outlines(root, job.connection) if outlines else load
        return check_job(app.workspace, job, app.connections, app.settings, read=read)


def _findings_of(key: _JobKey) -> list[Finding]:
    root, slug, text, _ = key
    return _apart(_job_findings, root, slug, text)


def _preview(
    root: Path, slug: str, text: str, now: datetime, at: datetime, rows: int, timeout_s: float
) -> tuple[Plan, Preview]:
    with open_workspace(root, log=False) as app:
        job = parse_job(app.workspace.queries_dir / f"{slug}{SUFFIX}", text)
        plan = app.plan(job, now=now, at=at)
        seen = app.preview(plan, rows=rows, timeout_s=timeout_s)
        return replace(plan, query=replace(plan.query, steps=())), seen


def _binding_error(
    root: Path, slug: str, text: str, now: datetime, at: datetime, *, outlines: bool = False
) -> PsttError | None:
    with open_workspace(root, log=False) as app:
        job, _ = checked_job(root / f"{slug}{SUFFIX}", text)
        try:
            if job is not None:
                read = _reads_outlines(root, job.connection) if outlines else load
                plan = plan_run(app, job, now=now, at=at, read=read)
                if job.partitions is not None:
                    known = KnownStatements(app.workspace.statements_dir)
                    known.require_splittable(plan.query.steps, app.connections.dialect(job.connection), job.partitions)
        except PsttError as error:
            return error
    return None


_CALLED = {function.__name__: function for function in (_check, _outline, _job_findings, _preview, _binding_error)}


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


_outlines = _Outlines()
_findings: SharedCache[_JobKey, list[Finding]] = SharedCache(_findings_of, fresh_s=FRESH_S, stale_s=FRESH_S)


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
