"""The command `demo`: a first look without a database or a broker of your own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from core.admin.demo import SLUG, create_demo, read_back
from core.app import App
from core.cli.documents import demo_document
from core.cli.options import JsonOption, now
from core.cli.output import print_json, print_lines
from core.cli.render import demo_lines, run_lines
from core.cli.run import execute_plan
from core.model.verdict import exit_code
from core.records.rights import local_caller

__all__ = ["app"]

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def demo(
    rows: Annotated[int, typer.Option(min=1, max=10_000_000, help="Rows that the job reads.")] = 1_000,
    days: Annotated[
        int | None, typer.Option(min=0, max=380, help="Earlier days with a history. Default: 60, fewer with many rows.")
    ] = None,
    workspace: Annotated[Path, typer.Option("--workspace", metavar="DIR", help="Where the demo is made.")] = Path(
        "demo"
    ),
    as_json: JsonOption = False,
) -> None:
    """Makes a workspace with a database and a broker of its own, runs its job, and reads the topic back."""
    from core.admin.demo_history import days_for, simulated_past  # loads pyarrow
    from core.run.execute import servers_of_plan

    days = days_for(rows) if days is None else days
    create_demo(workspace, rows, days=days, open_workspace=App.open, caller=local_caller(), now=now())
    with App.open(workspace) as opened:
        plan = opened.plan(opened.job(SLUG), now=now(), asked_by="demo")
        run = execute_plan(opened, plan, as_json=as_json)
        topic = read_back(servers_of_plan(opened, plan), plan.topic, timeout_s=10, sent=run.partitions)
        past = simulated_past(opened, plan.job, plan.scheduled_at)
        if as_json:
            print_json(demo_document(run, topic, past))
        else:
            print_lines([*run_lines(run, opened.rejects(run)), *demo_lines(run, topic, past, workspace)])
    if run.state != "succeeded":  # some of the demo's rows are there to be rejected
        raise typer.Exit(exit_code(run))
