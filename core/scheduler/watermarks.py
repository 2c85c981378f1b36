"""The watermark of an incremental job, for people: where it is, what the next run reads, and how it is changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from core.errors import ConfigError
from core.model.job import Incremental, Job
from core.model.window import Cursor
from core.records.ledger import Ledger
from core.records.opened import OpenWorkspace
from core.records.rights import Caller, require
from core.records.watermarks import Watermark
from core.run.incremental import start_of
from core.sql.incremental import cursor_text, latest

__all__ = [
    "CANNOT_BE_SEEN",
    "INSTEAD",
    "SentFrom",
    "WatermarkReport",
    "backfill_from",
    "set_watermark",
    "watermark_of",
]

CANNOT_BE_SEEN = "Updates that leave the cursor as it is, and deletes, cannot be seen this way."
INSTEAD = (
    "a full run (no incremental), which sends every row each time",
    "a column that each change and each delete sets, such as UPDATED_AT with DELETED = 'Y', as the cursor",
    "change data capture, such as Debezium, which reads the log of the database",
)
"""What sees updates and deletes."""


@dataclass(frozen=True, slots=True)
class WatermarkReport:
    """The watermark of a job, and what its next run reads."""

    job: Job
    incremental: Incremental
    known: Watermark | None
    """None: no run has moved it yet."""
    after: Cursor | None
    """The next run reads the rows after it; None: from the first one."""
    until: datetime | None
    """And up to this time, aware; None: the cursor is no time."""
    problem: str = ""
    """Why the next run cannot read; empty: it can."""


@dataclass(frozen=True, slots=True)
class SentFrom:
    """A watermark that was set, and the request for the run that sends the rows after it."""

    report: WatermarkReport
    request_id: int


def watermark_of(opened: OpenWorkspace, job: Job, now: datetime) -> WatermarkReport:
    """Returns the watermark of a job.

    Raises:
        ConfigError: The job is not incremental.
    """
    incremental = _incremental(job)
    known = opened.ledger.watermarks.get(job.slug)
    problem = ""
    if known is not None and not known.is_of(incremental):
        problem = f"it is a value of {known.column_name}, and the job reads by {incremental.column} now: set it"
    after = known.cursor if known else start_of(incremental)
    return WatermarkReport(job, incremental, known, after, latest(now, incremental), problem)


def set_watermark(
    opened: OpenWorkspace, job: Job, value: str, *, why: str, caller: Caller, now: datetime
) -> WatermarkReport:
    """Sets the watermark of a job: its next run reads the rows after that value. A run in progress does not move it then.

    Args:
        opened: The workspace.
        job: The job.
        value: A number or a time; with a tie column also `VALUE, TIE`.
        why: The reason, for the audit trail.
        caller: Who wants it.
        now: The clock.

    Returns:
        The watermark as it is then.

    Raises:
        AccessRefused: The caller may not change jobs.
        ConfigError: The job is not incremental, it is no value of its cursor, or there is no reason.
    """
    with opened.ledger.transaction():
        _set(opened.ledger, job, value, why, caller, now, {})
    return watermark_of(opened, job, now)


def backfill_from(opened: OpenWorkspace, job: Job, value: str, *, why: str, caller: Caller, now: datetime) -> SentFrom:
    """Sends the rows of an incremental job after a value again: sets its watermark and asks the runner for a run.

    Both are one change with one line in the audit trail, which has the number of the request.

    Args and Raises: as `set_watermark`.
    """
    require(caller, "run")
    ledger = opened.ledger
    args: dict[str, Any] = {"at": None, "parameters": {}, "again": False}
    with ledger.transaction():
        number = ledger.requests.submit("run", job=job.slug, args=args, asked_by=caller.name, now=now)
        _set(ledger, job, value, why, caller, now, {"request": number})
    return SentFrom(watermark_of(opened, job, now), number)


def _set(
    ledger: Ledger, job: Job, value: str, why: str, caller: Caller, now: datetime, more: Mapping[str, int]
) -> None:
    """Writes a watermark and its line of the audit trail, within a transaction; raises as `set_watermark`."""
    require(caller, "watermark")
    incremental = _incremental(job)
    at = _position(value, incremental)
    if not why.strip():
        raise ConfigError("a changed watermark needs a reason", remedy="give it by --why TEXT", key="why")
    before = ledger.watermarks.get(job.slug)
    ledger.watermarks.set(job.slug, incremental, at, changed_by=caller.name, why=why.strip(), now=now)
    ledger.audit.add(
        caller.name,
        "watermark",
        f"job {job.slug}",
        now,
        before={"value": before.cursor.text} if before else None,
        after={"value": at.text, "why": why.strip(), **more},
    )


def _position(text: str, incremental: Incremental) -> Cursor:
    value, comma, tie = text.partition(",") if incremental.tie_column else (text, "", "")
    number = Incremental(incremental.tie_column or "", "integer")
    return Cursor(
        cursor_text(value, incremental, "the watermark", "value"),
        cursor_text(tie, number, f"the value of {incremental.tie_column}", "value") if comma else "",
    )


def _incremental(job: Job) -> Incremental:
    if job.incremental is None:
        raise ConfigError(
            f'job "{job.name}" is not incremental: each run reads all rows',
            remedy='add "incremental": {"column": …, "kind": "integer"} to the job file',
        )
    return job.incremental
