"""The lines of `show` about a run that is running, or that is tried again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.formatting import duration_text, local_time

if TYPE_CHECKING:
    from core.model.progress import RunProgress
    from core.model.run import Run
    from core.scheduler.next_attempt import NextAttempt

__all__ = ["live_lines"]

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


def _progress_lines(run: Run, progress: RunProgress) -> list[str]:
    of = f" of {progress.rows_expected:,}" if progress.rows_expected is not None else ""
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
        f"  progress   {progress.rows_read:,}{of} rows read, {counts} · {' · '.join(times)}",
    ]
