"""The command `demo`: a first look without a database or a broker of your own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from core.admin.demo import make_demo, read_back
from core.app import App
from core.cli.options import (
    JsonOption,
    now,
)
from core.cli.output import print_json, print_lines
from core.cli.render import run_document, run_lines
from core.cli.run import execute_plan, exit_with

__all__ = ["app"]

app = typer.Typer(rich_markup_mode=None)


@app.command()
def demo(
    rows: Annotated[int, typer.Option(min=1, max=10_000_000, help="Rows in the demo table.")] = 20_000,
    workspace: Annotated[Path, typer.Option("--workspace", metavar="DIR", help="Where the demo is made.")] = Path(
        "demo"
    ),
    as_json: JsonOption = False,
) -> None:
    """Makes a workspace with a database and a broker of its own, runs its job, and reads the topic back."""
    make_demo(workspace, rows, now=now())
    with App.open(workspace) as opened:
        plan = opened.plan(opened.job("export-cdg-tracce"), now=now(), asked_by="demo")
        run = execute_plan(opened, plan, as_json=as_json)
        topic = read_back(opened.bootstrap_servers(plan), plan.topic, timeout_s=10)
        if as_json:
            example = {"key": topic.key, "headers": topic.headers, "value": topic.value}
            print_json(run_document(run) | {"topic_count": topic.count, "example": example})
        else:
            print_lines(run_lines(run, opened.rejects(run)))
            print_lines(
                [f"  read back  {topic.count:,} messages on {plan.topic}; one of them:", "", f"  key    {topic.key}"]
            )
            print_lines(
                [
                    *(f"  header {name} = {value}" for name, value in topic.headers.items()),
                    f"  value  {topic.value}",
                    "",
                ]
            )
            place = f"--workspace {workspace}"
            print_lines(
                [
                    "Next:",
                    f"  python -m core find {topic.key} {place}        where is one barcode?",
                    f"  python -m core preview export-cdg-tracce {place}   the exact messages, before they are sent",
                    f"  python -m core rejects {run.run_id} {place}        the rows that could not be sent, and why",
                    "  README.md: your own database, your own broker",
                ]
            )
        if run.state != "succeeded":  # some of the demo's rows are there to be rejected
            exit_with(run)
