"""Column drift of a run: its columns are compared with the remembered ones before the first message."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from loguru import logger

from core.errors import ColumnsChanged
from core.model.job import Job
from core.model.source import Column
from core.records.columns import ColumnMemory, Columns, Drift, drift_between, gained_types
from core.records.opened import OpenWorkspace
from core.records.rights import Caller, require
from core.run.row_reader import ColumnCheck

__all__ = ["accept_columns", "column_check"]


def column_check(
    job: Job, memory: ColumnMemory, asked_by: str, now: Callable[[], datetime], *, dry_run: bool = False
) -> ColumnCheck:
    """Returns what a run calls with the columns of its result, before the first message.

    Args:
        job: Its `on_drift` says whether a difference is ignored, logged, or ends the run.
        memory: The remembered columns.
        asked_by: Who asked for the run; recorded with the columns.
        now: The clock, aware UTC.
        dry_run: Compares, and remembers nothing.
    """

    def check(columns: Sequence[Column], /) -> None:
        if job.on_drift == "ignore":
            return
        found: Columns = [(column.name, column.kind, column.database_type) for column in columns]
        known = memory.remembered(job.slug)
        drift = drift_between(known, found) if known is not None else None
        if drift:
            _report(job, memory, found, drift, asked_by, now(), dry_run=dry_run)
        elif dry_run:
            return
        elif known is None or gained_types(known, found):
            memory.remember(job.slug, found, asked_by, now())
        else:
            memory.note(job.slug, None, now())

    return check


def accept_columns(opened: OpenWorkspace, job: Job, caller: Caller, now: datetime) -> str:
    """Accepts the columns that the last run of a job was stopped for; returns the difference in words.

    Raises:
        AccessRefused: The caller may not change jobs.
        ConfigError: There is nothing to accept.
    """
    require(caller, "accept-columns")
    with ColumnMemory(opened.workspace.ledger_file) as memory:
        before, after = memory.accept(job, caller.name, now)
    drift = drift_between(before, after).text
    opened.ledger.audit.add(caller.name, "accept-columns", f"job {job.slug}", now, before=before, after=after)
    return drift


def _report(
    job: Job, memory: ColumnMemory, found: Columns, drift: Drift, asked_by: str, now: datetime, *, dry_run: bool
) -> None:
    if job.on_drift == "warn":
        logger.warning("job {}: the columns of the result have changed: {}", job.slug, drift.text)
        if not dry_run:
            memory.remember(job.slug, found, asked_by, now)
        return
    if not dry_run:
        memory.note(job.slug, found, now)
    raise ColumnsChanged(
        f'the columns of job "{job.name}" have changed',
        why=drift.text,
        remedy=f"mend the query; or, if the readers of the topic agree: python -m core accept-columns {job.slug}",
    )
