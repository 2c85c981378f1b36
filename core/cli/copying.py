"""Copies what waits in the spool into metrics.duckdb: what `python -m core copy-sends` does for the runner.

It is a process so that the runner needs no duckdb, which would keep 50 MB of its memory, and so that it can run at a low
priority. It opens no `App`, whose imports would cost half as much again as copying a short run.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import Annotated

import typer

from core.admin.logs import start_logging
from core.cli.options import WorkspaceOption
from core.run.metrics_update import copy_waiting
from core.workspace.paths import Workspace
from core.workspace.settings import load_settings

__all__ = ["app"]

HELD_S = 20.0
"""How long to wait for readers: where many segments wait, on a busy machine, one has the file open for seconds."""

app = typer.Typer(add_completion=False, rich_markup_mode=None)


MergeOption = Annotated[bool, typer.Option("--merge", help="Then merge small segments of the days before, for 5 s")]


@app.command("copy-sends", hidden=True)
def copy_sends(workspace: WorkspaceOption = None, merge: MergeOption = False) -> None:
    """Copies what waits in the spool into metrics.duckdb, and rolls up old sends once a day; the runner starts it."""
    from core.records.merging import merge_daily  # loads duckdb
    from core.records.metrics import Metrics
    from core.records.retention import roll_up_daily

    place = Workspace.find(workspace, os.environ)
    settings = load_settings(place, os.environ)
    start_logging(
        place.logs_dir,
        level=settings.KAFKA_LOG_LEVEL,
        retention_days=settings.PSTT_LOG_RETENTION_DAYS,
        language=settings.PSTT_LANGUAGE,
    )
    metrics = Metrics(place, settings.PSTT_TIMEZONE)
    is_complete = copy_waiting(metrics, HELD_S)
    if is_complete:
        roll_up_daily(metrics, place, settings, datetime.now(UTC))
    if is_complete and merge:
        merge_daily(metrics, place, settings.PSTT_TIMEZONE, datetime.now(UTC))
    raise typer.Exit(0 if is_complete else 1)
