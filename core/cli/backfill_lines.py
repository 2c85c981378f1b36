"""The lines that people read of a backfill: how far it is, how long it takes, and what has no success."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from core.formatting import counted, duration_text, local_time
from core.language import Data

if TYPE_CHECKING:
    from core.scheduler.backfills import BackfillReport

__all__ = ["backfill_lines", "backfills_table"]

SHOWN_TIMES = 20
"""Times without success that are listed; `--json` has all of them."""


def backfills_table(found: Sequence[BackfillReport]) -> list[str]:
    """Returns one line for each backfill: its number, job, days, state and progress."""
    if not found:
        return ["no backfill in this workspace", "  next   python -m core backfill JOB --from DAY --to DAY starts one"]
    width = max(len(one.backfill.job) for one in found)
    return [
        f"{one.backfill.backfill_id:>6}  {Data(one.backfill.job):<{width}}  {one.backfill.first_day} to {one.backfill.last_day}  "
        f"{one.backfill.state:<9}  {_progress_text(one)}"
        for one in found
    ]


def backfill_lines(found: BackfillReport) -> list[str]:
    """Returns a backfill for people: how far it is, and which times have no success."""
    backfill, progress = found.backfill, found.progress
    again = ", also times that were sent before" if backfill.again else ""
    lines = [
        f"backfill {backfill.backfill_id} of {Data(backfill.job)}: {backfill.state}",
        f"  days    {backfill.first_day} to {backfill.last_day}, {backfill.run_order} first, "
        f"{backfill.parallel} at once{again}; asked by {Data(backfill.asked_by)}",
        f"  runs    {_progress_text(found)}",
        f"  sent    {counted(progress.acknowledged, 'message')}",
    ]
    lines += [
        f"  {_sign(one.state)} {local_time(one.scheduled_at, backfill.timezone)}  {one.state}"
        f"{f', run {one.run_id}' if one.run_id else ''}{f': {one.why}' if one.why else ''}"
        for one in found.incomplete[:SHOWN_TIMES]
    ]
    if len(found.incomplete) > SHOWN_TIMES:
        lines.append(f"  … {len(found.incomplete) - SHOWN_TIMES:,} more; --json has all of them")
    if backfill.summary:
        lines.append(f"  {'end   ' if backfill.finished_at else 'pause '}  {backfill.summary}")
    return lines


def _sign(state: str) -> str:
    """Returns the sign of a scheduled time without success."""
    return "–" if state in ("skipped", "cancelled") else "✘"


def _progress_text(found: BackfillReport) -> str:
    progress = found.progress
    named = ("complete", "failed", "skipped", "running", "waiting")
    counts = [(getattr(progress, name), name) for name in named]
    parts = [f"{count:,} {name}" for count, name in counts if count or name == "complete"]
    share = f"{progress.ended:,} of {progress.total:,}: {', '.join(parts)}"
    return share if found.left_s is None else f"{share}; about {duration_text(found.left_s)} left"
