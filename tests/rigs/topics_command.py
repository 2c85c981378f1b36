"""A command more, in the one file that a new command takes: what `docs/ARCHITECTURE.md` describes, and a test calls."""

from __future__ import annotations

import typer

from core.app import App
from core.cli.options import JsonOption, WorkspaceOption
from core.cli.output import print_json, print_lines
from core.workspace.jobs import load_jobs

__all__ = ["app"]

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command("topics-of-jobs")
def topics_of_jobs(workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Lists the topic of each job."""
    with App.open(workspace) as opened:
        topics = {job.slug: job.kafka_config.topic for job in load_jobs(opened.workspace)[0]}
    print_json({"topics": topics}) if as_json else print_lines(f"{slug}: {topic}" for slug, topic in topics.items())
