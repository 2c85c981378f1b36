"""Commands for the calendar and the runner: runner, next, scheduled, backfill, cancel, enable, disable, accept-columns."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from core.app import App
from core.cli.options import (
    JobArgument,
    JsonOption,
    WorkspaceOption,
    day_of,
    now,
)
from core.cli.output import print_answer, print_json, print_lines
from core.cli.render import scheduled_run_document, scheduled_run_lines, scheduled_runs_table
from core.cli.worker import warm_up
from core.cli.worker import work as run_scheduled
from core.records.rights import local_caller
from core.run.cancellation import stop_on_signals
from core.scheduler.commands import backfill as plan_days
from core.scheduler.commands import set_job_enabled

__all__ = ["app"]

app = typer.Typer(rich_markup_mode=None)


@app.command()
def runner(
    stop: Annotated[bool, typer.Option("--stop", help="Ask the runner that works here to end, and wait.")] = False,
    accept_clock: Annotated[
        bool, typer.Option("--accept-clock", help="The clock is right, although it is behind what was seen before.")
    ] = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Runs every job on its calendar until it is stopped: Ctrl-C, SIGTERM, or runner --stop."""
    with App.open(workspace) as opened:
        if stop:
            print_lines([opened.stop_runner(local_caller(), now)])
            return
        with stop_on_signals() as stopping:
            print(f"runner of {opened.workspace.root} starts; Ctrl-C ends it", file=sys.stderr, flush=True)
            opened.work(stopping, now, accept_clock=accept_clock)


@app.command("next")
def next_(
    days: Annotated[float, typer.Option(min=0, max=3660, help="How far to look.")] = 7,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Lists when each enabled job is due next."""
    with App.open(workspace) as opened:
        jobs, scheduled_runs = opened.coming_scheduled_times(now(), days)
        stranded = opened.stranded(jobs)
    if as_json:
        print_json({"fires": [{"job": slug, "scheduled_at": moment.isoformat()} for moment, slug in scheduled_runs]})
    else:
        print_lines(
            scheduled_run_lines(jobs, scheduled_runs, days)
            + [f"✘ {slug} will fail: {error.text}" for slug, error in stranded.items()]
        )


@app.command("fires")
def scheduled_runs_(
    job: Annotated[str | None, typer.Option("--job", metavar="JOB")] = None,
    days: Annotated[float, typer.Option(min=0, max=3660, help="How far to look back.")] = 1,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Lists what became of each scheduled time: its run, or why it was skipped or waits."""
    with App.open(workspace) as opened:
        slug = opened.job(job).slug if job else None
        found = opened.past_scheduled_runs(now(), days, slug)
        timezone = opened.timezone
    if as_json:
        print_json({"fires": [scheduled_run_document(scheduled_run, run) for scheduled_run, run in found]})
    else:
        print_lines(scheduled_runs_table(found, timezone))


@app.command()
def backfill(
    job: JobArgument,
    first: Annotated[str, typer.Option("--from", metavar="DAY", help="First day: 2026-01-10.")],
    last: Annotated[str, typer.Option("--to", metavar="DAY", help="Last day; it is among them.")],
    again: Annotated[bool, typer.Option("--again", help="Also times that have a succeeded run.")] = False,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Plans a run for each scheduled time of a range of days; the runner does them one after the other."""
    with App.open(workspace) as opened:
        found = opened.job(job)
        days = (day_of("--from", first), day_of("--to", last))
        made = plan_days(opened.ledger, found, *days, caller=local_caller(), now=now(), again=again)
        note = opened.runner_note(now())
    if as_json:
        print_json(
            {
                "job": found.slug,
                "planned": len(made.scheduled_run_ids),
                "succeeded_before": made.succeeded_before,
                "planned_before": made.planned_before,
                "scheduled_run_ids": list(made.scheduled_run_ids),
            }
        )
    else:
        print_lines([f"{'✔' if made.scheduled_run_ids else '–'} {found.name}: {made.text}", *note])


@app.command()
def cancel(
    run: Annotated[str, typer.Argument(metavar="RUN|JOB", help="A run's id, or a job: then what waits of it too.")],
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Asks a run to end, whoever started it; it does between two batches, and its query is stopped."""
    with App.open(workspace) as opened:
        text = opened.cancel(run, caller=local_caller(), now=now())
    print_answer({"answer": text}, as_json)


@app.command()
def enable(job: JobArgument, workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Switches a job on, in its file; its calendar begins now, without what was missed."""
    _switch(job, workspace, enabled=True, as_json=as_json)


@app.command()
def disable(job: JobArgument, workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Switches a job off, in its file; a run under way goes on."""
    _switch(job, workspace, enabled=False, as_json=as_json)


@app.command("accept-columns")
def accept_columns(job: JobArgument, workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Says that the changed columns a job was stopped for are right; its runs go on with them."""
    with App.open(workspace) as opened:
        found = opened.job(job)
        drift = opened.accept_columns(found, local_caller(), now())
    answer = f'job "{found.name}" goes on with the columns that its last run found ({drift})'
    print_answer({"job": found.slug, "drift": drift, "answer": answer}, as_json)


@app.command(hidden=True)
def work(
    scheduled_run: Annotated[int | None, typer.Argument()] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Get ready, then read the fire from stdin.")] = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Runs one planned fire for the runner."""
    with App.open(workspace) as opened:
        if wait:
            warm_up(opened)
            told = sys.stdin.readline().strip()
            scheduled_run = int(told) if told else None
        raise typer.Exit(run_scheduled(opened, scheduled_run, now) if scheduled_run is not None else 0)


def _switch(job: str, workspace: Path | None, *, enabled: bool, as_json: bool) -> None:
    word = "enabled" if enabled else "disabled"
    with App.open(workspace) as opened:
        found = opened.job(job)
        changed = set_job_enabled(
            opened.workspace, opened.ledger, found.slug, enabled=enabled, caller=local_caller(), now=now()
        )
    answer = f'job "{found.name}" is {word}' if changed else f'job "{found.name}" was {word} before'
    print_answer({"job": found.slug, "enabled": enabled, "changed": changed, "answer": answer}, as_json)
