"""The scheduled runs that have a process, of one runner."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from core.model.job import Job
    from core.records.scheduled_runs import ScheduledRun
    from core.scheduler.processes import Worker

__all__ = ["ActiveRun", "ActiveRuns"]


@dataclass(slots=True)
class ActiveRun:
    """A scheduled run that has a process."""

    scheduled_run_id: int
    slug: str
    scheduled_at: datetime
    backfill_id: int | None
    """The backfill that it belongs to; None: it has one of the PSTT_WORKERS places."""
    job: Job | None
    worker: Worker | None
    """None: the process was started by an earlier runner and still runs."""
    started_s: float
    """On the monotonic clock."""
    is_killed: bool = False


class ActiveRuns:
    """The processes of a runner by the number of their scheduled run.

    Of one job only one run goes on, and beside it those of its backfills; of one scheduled time of a job only one.

    Args:
        monotonic: Seconds that only go forward.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._by_number: dict[int, ActiveRun] = {}

    def all(self) -> list[ActiveRun]:
        """Returns all of them."""
        return list(self._by_number.values())

    def children(self) -> list[ActiveRun]:
        """Returns those whose process this runner has started."""
        return [active for active in self.all() if active.worker is not None]

    def add(self, scheduled_run: ScheduledRun, job: Job | None, worker: Worker | None) -> None:
        """Follows a scheduled run whose process has begun now."""
        self._by_number[scheduled_run.scheduled_run_id] = ActiveRun(
            scheduled_run.scheduled_run_id,
            scheduled_run.job,
            scheduled_run.scheduled_at,
            (scheduled_run.request_id or 0) if scheduled_run.kind == "backfill" else None,
            job,
            worker,
            self._monotonic(),
        )

    def remove(self, active: ActiveRun) -> None:
        """Ends to follow a run, whose verdict is stored."""
        del self._by_number[active.scheduled_run_id]

    def has_ended_process(self) -> bool:
        """Returns whether a process has ended that is still followed."""
        return any(active.worker is not None and active.worker.poll() is not None for active in self.all())

    @property
    def count(self) -> int:
        """Runs that are of no backfill."""
        return sum(active.backfill_id is None for active in self._by_number.values())

    @property
    def is_idle(self) -> bool:
        """Whether nothing runs."""
        return not self._by_number

    def by_backfill(self) -> Counter[int]:
        """Returns the number of a backfill → how many of its runs go on."""
        return Counter(active.backfill_id for active in self.all() if active.backfill_id is not None)

    def has(self, scheduled_run_id: int) -> bool:
        """Returns whether this scheduled run is followed."""
        return scheduled_run_id in self._by_number

    def has_job(self, slug: str) -> bool:
        """Returns whether a run of the job goes on that is of no backfill."""
        return any(active.slug == slug for active in self.all() if active.backfill_id is None)

    def has_time(self, slug: str, scheduled_at: datetime) -> bool:
        """Returns whether a run of the job for this scheduled time goes on."""
        return any((active.slug, active.scheduled_at) == (slug, scheduled_at) for active in self.all())
