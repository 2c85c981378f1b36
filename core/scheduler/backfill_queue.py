"""Chooses which runs of backfills start next, and ends a backfill when its last run has ended.

Runs of backfills have places of their own (PSTT_BACKFILL_WORKERS), so that a scheduled run never waits for one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from loguru import logger

from core.formatting import duration_text, local_time

if TYPE_CHECKING:
    from core.model.run import Run
    from core.records.backfills import Backfill, BackfillProgress, IncompleteTime
    from core.records.ledger import Ledger
    from core.records.scheduled_runs import ScheduledRun
    from core.workspace.settings import Settings

__all__ = ["QueuedRun", "close_ended", "outcome_text", "pause_in_outage", "queued_runs", "resume_after_outage"]

NAMED_TIMES = 10
"""Times without success that the summary of a backfill names."""


@dataclass(frozen=True, slots=True)
class QueuedRun:
    """A planned run of a backfill that may start now."""

    backfill: Backfill
    scheduled_run: ScheduledRun


def queued_runs(ledger: Ledger, running: Counter[int], now: datetime) -> Iterator[QueuedRun]:
    """Yields the runs that may start, at most as many of each backfill as its `parallel` allows.

    Backfills take turns; the one with the fewest running runs is first.

    Args:
        ledger: The backfills and their planned runs.
        running: Number of a backfill → how many of its runs have a process.
        now: The clock.
    """
    waiting: dict[int, tuple[Backfill, list[ScheduledRun]]] = {}
    for backfill in ledger.backfills.unfinished():
        free = backfill.parallel - running[backfill.backfill_id]
        if backfill.state == "running" and free > 0:
            # Some more than are free: the caller may leave out times that are being sent.
            found = ledger.backfills.next_runs(backfill, now, free + backfill.parallel)
            waiting[backfill.backfill_id] = (backfill, found[::-1])
    taken = Counter(running)
    while waiting:
        number = min(waiting, key=lambda one: (taken[one], one))
        backfill, left = waiting[number]
        if not left:
            del waiting[number]
            continue
        taken[number] += 1
        yield QueuedRun(backfill, left.pop())


def pause_in_outage(ledger: Ledger, settings: Settings, scheduled_run: ScheduledRun, run: Run, now: datetime) -> bool:
    """Pauses a backfill whose newest runs have all failed because database or broker could not be reached.

    Args:
        ledger: The backfill and its runs.
        settings: PSTT_BACKFILL_PAUSE_AFTER and PSTT_BACKFILL_PAUSE_S.
        scheduled_run: What has ended now; of a backfill or not.
        run: Its run.
        now: The clock.

    Returns:
        Whether there is such an outage: the scheduled run is then planned again, however often it failed.
    """
    most, number = settings.PSTT_BACKFILL_PAUSE_AFTER, scheduled_run.request_id
    if not most or scheduled_run.kind != "backfill" or number is None:
        return False
    if run.state != "failed" or not run.error_retriable or ledger.backfills.get(number).state == "cancelled":
        return False
    if ledger.backfills.failures_in_a_row(number, most) < most:
        return False
    why = run.error_text or run.state
    wait_s = settings.PSTT_BACKFILL_PAUSE_S
    text = f"paused by itself after {most} failures in a row: {why}; it goes on after {duration_text(wait_s)}"
    if ledger.backfills.set_state(number, "running", "paused", now, text):
        logger.warning("backfill {} {}", number, text)
    return True


def resume_after_outage(ledger: Ledger, settings: Settings, now: datetime) -> list[int]:
    """Lets backfills go on that have paused by themselves PSTT_BACKFILL_PAUSE_S ago. Returns their numbers.

    One more failure pauses such a backfill again.
    """
    resumed = []
    for backfill in ledger.backfills.unfinished():
        waited_s = (now - backfill.measured_since).total_seconds()
        is_due = backfill.paused_by_itself and waited_s >= settings.PSTT_BACKFILL_PAUSE_S
        if is_due and ledger.backfills.set_state(backfill.backfill_id, "paused", "running", now):
            logger.info("backfill {} goes on: it paused by itself", backfill.backfill_id)
            resumed.append(backfill.backfill_id)
    return resumed


def close_ended(ledger: Ledger, now: datetime) -> list[str]:
    """Ends the backfills of which no run waits or runs. Returns one summary for each."""
    closed = []
    for backfill in ledger.backfills.ended():
        progress = ledger.backfills.progress(backfill)
        text = outcome_text(ledger, backfill, progress)
        with ledger.transaction():
            is_closed = ledger.backfills.close(backfill.backfill_id, text, now)
            if is_closed:
                ledger.requests.finish(backfill.backfill_id, text, now)
        if is_closed:
            is_whole = progress.complete + progress.sent_before == progress.total
            logger.log(
                "INFO" if is_whole else "WARNING", "backfill {} of {}: {}", backfill.backfill_id, backfill.job, text
            )
            closed.append(text)
    return closed


def outcome_text(ledger: Ledger, backfill: Backfill, progress: BackfillProgress) -> str:
    """Returns how a backfill ended in one line: how many times are complete, which are not, and how to repeat those."""
    if not progress.total:
        return "nothing was to be sent"
    parts = [f"{progress.complete:,} of {progress.total:,} complete"]
    if progress.with_rejects:
        parts[0] += f" ({progress.with_rejects:,} with rejects)"
    if progress.sent_before:
        parts.append(f"{progress.sent_before:,} {'was' if progress.sent_before == 1 else 'were'} sent before")
    skipped = progress.skipped - progress.sent_before
    if not (progress.failed or skipped):
        return ", ".join(parts)
    left = ledger.backfills.incomplete(backfill.backfill_id, NAMED_TIMES + 1)
    parts += [f"{count:,} {word}" for count, word in ((progress.failed, "failed"), (skipped, "skipped")) if count]
    named = ", ".join(_named(one, backfill.timezone) for one in left[:NAMED_TIMES])
    more = ", …" if len(left) > NAMED_TIMES else ""
    return f"{', '.join(parts)}: {named}{more}; python -m core backfill retry {backfill.backfill_id} repeats them"


def _named(one: IncompleteTime, zone: str) -> str:
    return f"{local_time(one.scheduled_at, zone)} {one.state}"
