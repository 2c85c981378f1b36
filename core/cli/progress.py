"""Shows how far a run has come: a bar with rate and time left on a terminal, a line every 10 s if stderr is piped."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from core.cli.output import print_note, said
from core.model.run import Plan
from core.run.row_reader import Progress

__all__ = ["showing"]

LINE_EVERY_S = 10.0


@contextmanager
def showing(plan: Plan, expected_rows: int | None, *, silent: bool) -> Iterator[Progress | None]:
    """Shows progress on stderr during a run.

    Args:
        plan: The plan of the run.
        expected_rows: Rows of the last green run of this job, for the time left; None: not known.
        silent: Show nothing.
    """
    if silent:
        yield None
    elif sys.stderr.isatty():
        with _bar(plan, expected_rows) as progress:
            yield progress
    else:
        yield _lines("written" if plan and plan.output else "acknowledged")


def _lines(done: str) -> Progress:
    shown_at = time.monotonic()

    def progress(rows_read: int, acknowledged: int, rows_counted: int | None) -> None:
        nonlocal shown_at
        if time.monotonic() - shown_at >= LINE_EVERY_S:
            shown_at = time.monotonic()
            print_note(
                f"  {rows_read:,}{f' of {rows_counted:,} rows' if rows_counted else ' row' if rows_read == 1 else ' rows'} read, "
                f"{acknowledged:,} {done}"
            )

    return progress


@contextmanager
def _bar(plan: Plan, expected_rows: int | None) -> Iterator[Progress]:
    # rich takes 90 ms, and only a terminal needs it.
    from rich.console import Console
    from rich.progress import BarColumn, ProgressColumn, SpinnerColumn, Task, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text(
                said(f"{task.completed:,.0f} {'row' if task.completed == 1 else 'rows'} · {speed or 0:,.0f} rows/s")
            )

    columns = [SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), Rate(), TimeRemainingColumn()]
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(f"{plan.job.connection} → {plan.output or plan.topic}", total=expected_rows)

        def progress(rows_read: int, acknowledged: int, rows_counted: int | None) -> None:
            bar.update(task, completed=rows_read, acknowledged=acknowledged, total=rows_counted or expected_rows)

        yield progress
