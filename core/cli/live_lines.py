"""The lines of `show` about a run that is running or is tried again, and about its parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.formatting import duration_text, local_time
from core.language import Data

if TYPE_CHECKING:
    from core.model.progress import RunProgress
    from core.model.run import Run, RunPart
    from core.scheduler.next_attempt import NextAttempt

__all__ = ["live_lines", "part_line"]

STEPS = {
    "connecting": "connecting",
    "reading": "reading",
    "sending": "sending",
    "writing": "writing the file",
    "waiting": "waiting for acknowledgements",
    "verifying": "verifying",
    "recording": "recording the verdict",
}


def live_lines(run: Run, progress: RunProgress | None, retry: NextAttempt | None) -> list[str]:
    """Returns how far a run is and when it is tried again; nothing where neither is known."""
    lines = []
    if progress is not None:
        lines += _progress_lines(run, progress)
    if retry is not None:
        when = f"at {local_time(retry.at, run.timezone, seconds=True)}" if retry.at else "as soon as a place is free"
        lines.append(f"  again      {when}: attempt {retry.attempt} of at most {retry.most}")
    return lines


def part_line(part: RunPart, count: int) -> str:
    """Returns one line about a part of a run: its state, its rows, and where it ran."""
    again = f", attempt {part.attempt}" if part.attempt > 1 else ""
    line = (
        f"  part {part.part} of {count}   {part.state}{again}   {part.rows_read:,} {'row' if part.rows_read == 1 else 'rows'}, "
        f"{part.acknowledged:,} acknowledged, {part.rejected:,} rejected in {part.duration_s:.1f} s   {Data(part.worker)}"
    ).rstrip()
    return f"{line}   {part.error}" if part.error else line


def _progress_lines(run: Run, progress: RunProgress) -> list[str]:
    read, expected = progress.rows_read, progress.rows_expected
    done = "written" if run.is_file else "acknowledged"
    elapsed_s = max((progress.at - run.started_at).total_seconds(), 0.0)
    times = [f"{duration_text(elapsed_s)} so far"]
    if progress.rate_per_s is not None:
        times.insert(0, f"{progress.rate_per_s:,.0f} rows/s")
    if progress.remaining_s is not None:
        times.append(f"{duration_text(progress.remaining_s)} left")
    counts = f"{progress.acknowledged:,} {done}, {progress.rejected:,} rejected"
    return [
        f"  step       {STEPS[progress.step]}",
        f"  progress   {read:,}{f' of {expected:,} rows' if expected is not None else ' row' if read == 1 else ' rows'} read, "
        f"{counts} · {' · '.join(times)}",
    ]
