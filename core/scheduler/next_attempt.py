"""Whether a run that has failed is tried again, when, and how often at most."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from core.errors import ConfigError
from core.model.run import Run
from core.records.opened import OpenWorkspace
from core.scheduler.run_supervisor import MOST_INTERRUPTIONS

__all__ = ["NextAttempt", "next_attempt"]


@dataclass(frozen=True, slots=True)
class NextAttempt:
    """The next attempt of a scheduled run whose last one has failed or was interrupted."""

    at: datetime | None
    """Not before this time, aware UTC; None: as soon as the runner has a free place."""
    attempt: int
    """Its number, from 2."""
    most: int
    """The last attempt that is made, if all fail for a reason that may pass."""


def next_attempt(opened: OpenWorkspace, run: Run) -> NextAttempt | None:
    """Returns the next attempt after this run; None: there is none, or another run has been it already.

    Raises:
        ConfigError: A setting is wrong.
        LedgerBusy: The ledger cannot be read now.
    """
    if run.scheduled_run_id is None or run.state not in ("failed", "interrupted"):
        return None
    try:
        planned = opened.ledger.scheduled_runs.get(run.scheduled_run_id)
    except ConfigError:
        return None
    if planned.state != "planned" or planned.run_id != run.run_id:
        return None
    retries = MOST_INTERRUPTIONS if run.state == "interrupted" else opened.settings.PSTT_RUN_RETRIES
    return NextAttempt(planned.not_before, planned.tries + 1, max(retries, planned.tries) + 1)
