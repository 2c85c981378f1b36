"""Backfills: ranges of scheduled times that a user asked for, their state and their progress.

The runs of a backfill are scheduled runs of the kind `backfill` with its number as request. What is stored here is how
many of them run at once, in which order, and whether the backfill is paused or was cancelled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import ClassVar, Literal

from core.clock import iso_utc
from core.errors import ConfigError
from core.model.job import Job
from core.records.rows import from_row
from core.records.scheduled_runs import ScheduledRun
from core.records.store import StorePart

__all__ = ["Backfill", "BackfillOrder", "BackfillProgress", "BackfillState", "Backfills", "IncompleteTime"]

BackfillState = Literal["running", "paused", "cancelled", "done"]
"""`done`: each of its runs has a verdict or was skipped, whatever the verdict."""
BackfillOrder = Literal["oldest", "newest"]


@dataclass(frozen=True, slots=True)
class Backfill:
    """One backfill, as it was asked for."""

    backfill_id: int
    job: str
    timezone: str
    """Of the job when it was asked for."""
    first_day: str
    """ISO 8601, in that time zone."""
    last_day: str
    again: bool
    """Also times that have a succeeded run."""
    parallel: int
    run_order: BackfillOrder
    state: BackfillState
    asked_by: str
    created_at: datetime
    measured_since: datetime
    """The speed is measured from here: the begin, the last resume or the start of the runner."""
    finished_at: datetime | None
    """None: a run of it waits or runs."""
    summary: str
    """How it ended; before that, why it paused by itself, or empty."""

    @property
    def paused_by_itself(self) -> bool:
        """Whether it goes on by itself: the database or the broker could not be reached."""
        return self.state == "paused" and bool(self.summary)


@dataclass(frozen=True, slots=True)
class BackfillProgress:
    """The runs of one backfill, counted by state."""

    total: int
    waiting: int
    running: int
    complete: int
    """Succeeded, with rejects or without."""
    with_rejects: int
    """Those of `complete` that have rejected rows."""
    failed: int
    """Ended without success: failed, partial, cancelled or interrupted."""
    skipped: int
    sent_before: int
    """Those of `skipped` that another run had sent."""
    acknowledged: int
    """Messages."""
    measured: int
    """Runs that ended since `Backfill.measured_since`."""
    measured_until: datetime | None

    @property
    def ended(self) -> int:
        """Runs that have a verdict or were skipped."""
        return self.complete + self.failed + self.skipped

    def left_s(self, backfill: Backfill) -> float | None:
        """Returns the seconds that the rest takes at the speed so far; None: it is not running, or nothing ended yet."""
        if backfill.state != "running" or backfill.finished_at is not None or self.measured_until is None:
            return None
        passed: timedelta = self.measured_until - backfill.measured_since
        return passed.total_seconds() / self.measured * (self.waiting + self.running)


@dataclass(frozen=True, slots=True)
class IncompleteTime:
    """A scheduled time of a backfill that was not sent, and why."""

    scheduled_at: datetime
    state: str
    """The state of its run; `skipped`: it did not run."""
    run_id: str | None
    why: str | None


class Backfills(StorePart):
    """The backfills of one workspace."""

    sql_file: ClassVar[str] = "backfills.sql"

    def add(
        self,
        backfill_id: int,
        job: Job,
        *,
        days: tuple[str, str],
        again: bool,
        parallel: int,
        order: BackfillOrder,
        asked_by: str,
        now: datetime,
    ) -> None:
        """Writes a backfill, in the transaction that plans its runs."""
        row = {"backfill_id": backfill_id, "job": job.slug, "timezone": job.timezone, "again": int(again)}
        row |= {"first_day": days[0], "last_day": days[1]}
        self._write(
            "insert", row | {"parallel": parallel, "run_order": order, "asked_by": asked_by, "now": iso_utc(now)}
        )

    def get(self, backfill_id: int) -> Backfill:
        """Returns one backfill.

        Raises:
            ConfigError: There is none with that number.
        """
        rows = self._rows("backfill", {"backfill_id": backfill_id}) if 0 < backfill_id < 2**63 else []
        if not rows:
            raise ConfigError(
                f"there is no backfill {str(backfill_id)[:30]}", remedy="python -m core backfill list lists them"
            )
        return from_row(Backfill, rows[0])

    def newest(self, limit: int = 50, offset: int = 0) -> list[Backfill]:
        """Returns those that have not ended, and then the newest first."""
        return [from_row(Backfill, row) for row in self._rows("newest", {"limit": limit, "offset": offset})]

    def ended_after(self, after: datetime) -> list[Backfill]:
        """Returns those that have ended since; not the cancelled ones."""
        return [from_row(Backfill, row) for row in self._rows("ended_after", {"after": iso_utc(after)})]

    def count(self) -> int:
        """Returns how many there are."""
        (row,) = self._rows("count")
        return int(row[0])

    def unfinished(self) -> list[Backfill]:
        """Returns those of which a run waits or runs, oldest first; also the paused ones."""
        return [from_row(Backfill, row) for row in self._rows("unfinished")]

    def ended(self) -> list[Backfill]:
        """Returns those of which no run waits or runs any more, and that were not closed."""
        return [from_row(Backfill, row) for row in self._rows("ended")]

    def next_runs(self, backfill: Backfill, now: datetime, limit: int) -> list[ScheduledRun]:
        """Returns the planned runs of a backfill that may start now, in its order."""
        values = {"backfill_id": backfill.backfill_id, "now": iso_utc(now), "limit": limit}
        return [from_row(ScheduledRun, row) for row in self._rows(f"next_{backfill.run_order}", values)]

    def progress(self, backfill: Backfill) -> BackfillProgress:
        """Returns the runs of a backfill, counted."""
        values = {"backfill_id": backfill.backfill_id, "since": iso_utc(backfill.measured_since)}
        return from_row(BackfillProgress, self._rows("counts", values)[0])

    def incomplete(self, backfill_id: int, limit: int = 10_000) -> Sequence[IncompleteTime]:
        """Returns the scheduled times that were not sent, oldest first: their run has no success, or was skipped."""
        rows = self._rows("incomplete", {"backfill_id": backfill_id, "limit": limit})
        return [from_row(IncompleteTime, row) for row in rows]

    def set_state(
        self, backfill_id: int, before: BackfillState, state: BackfillState, now: datetime, why: str = ""
    ) -> bool:
        """Changes the state of a backfill that has not ended. Returns False if it was not in the state `before`.

        Args:
            backfill_id: Its number.
            before: The state that it must have.
            state: The new state.
            now: The clock.
            why: Why it pauses by itself.
        """
        values = {"backfill_id": backfill_id, "before": before, "state": state, "now": iso_utc(now), "why": why}
        return bool(self._write("set_state", values))

    def skip_planned(self, backfill_id: int, reason: str, now: datetime) -> int:
        """Writes that none of its planned runs is run, and why. Returns how many there were."""
        return self._write("skip_planned", {"backfill_id": backfill_id, "reason": reason, "now": iso_utc(now)})

    def running_run_ids(self, backfill_id: int) -> list[str]:
        """Returns the ids of its runs that a process works on."""
        return [row["run_id"] for row in self._rows("run_ids", {"backfill_id": backfill_id})]

    def failures_in_a_row(self, backfill_id: int, most: int) -> int:
        """Returns how many of its newest runs, at most `most`, have failed one after the other for a reason that may pass."""
        rows = self._rows("newest_ends", {"backfill_id": backfill_id, "limit": most})
        return next((count for count, row in enumerate(rows) if not row[0]), len(rows))

    def measure_from(self, now: datetime) -> None:
        """Measures the speed of all that have not ended from now on: no runner worked before."""
        self._write("measure_from", {"now": iso_utc(now)})

    def close(self, backfill_id: int, summary: str, now: datetime) -> bool:
        """Writes that a backfill has ended. Returns False while a run of it waits or runs, or if it had ended before."""
        return bool(self._write("close", {"backfill_id": backfill_id, "summary": summary, "now": iso_utc(now)}))
