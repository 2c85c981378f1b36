"""Commands for the calendar and the runner: runner, next, scheduled, cancel, enable, disable, accept-columns."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from loguru import logger

from core.admin.edit_queries import finish_rename
from core.app import App
from core.cli.documents import scheduled_run_document
from core.cli.options import JobArgument, JsonOption, WorkspaceOption, now
from core.cli.output import print_answer, print_json, print_lines, print_note
from core.cli.schedule_lines import scheduled_runs_table, scheduled_time_lines
from core.errors import PsttError
from core.language import Data
from core.records.outcomes import with_deleted_jobs
from core.records.rights import local_caller
from core.run.cancellation import stop_on_signals
from core.run.drift import accept_columns as accept_drift
from core.run.planning import unusable_jobs
from core.scheduler.commands import set_job_enabled
from core.scheduler.control import cancel as cancel_run_or_job
from core.scheduler.control import coming_scheduled_times, past_scheduled_runs, stop_runner
from core.scheduler.wiring import run_runner
from core.workspace.jobs import load_jobs

__all__ = ["app"]

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def runner(
    stop: Annotated[bool, typer.Option("--stop", help="Ask the runner of this workspace to stop, and wait.")] = False,
    accept_clock: Annotated[
        bool, typer.Option("--accept-clock", help="The clock is right, although it is behind the last recorded time.")
    ] = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Runs every job on its calendar until it is stopped: Ctrl-C, SIGTERM, or runner --stop."""
    with App.open(workspace) as opened:
        if stop:
            print_lines([stop_runner(opened, local_caller(), now)])
            return
        with stop_on_signals() as stopping:
            print_note(f"runner of {Data(opened.workspace.root)} starts; Ctrl-C ends it")
            _finish_rename(opened)
            run_runner(opened, stopping, now, accept_clock=accept_clock, note=opened.log_problem)


def _finish_rename(opened: App) -> None:
    try:
        finish_rename(opened.workspace, opened.ledger)
    except PsttError as error:  # every job runs without it
        logger.warning("the interrupted rename of an SQL file was not completed: {}", error.text)


@app.command("next")
def next_(
    days: Annotated[float, typer.Option(min=0, max=3660, help="How far ahead.")] = 7,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Lists when each enabled job is due next."""
    with App.open(workspace) as opened:
        jobs, times = coming_scheduled_times(opened, now(), days)
        unusable, invalid = unusable_jobs(opened, jobs), load_jobs(opened.workspace)[1]
    if as_json:
        listed = [{"job": slug, "scheduled_at": moment.isoformat()} for moment, slug in times]
        print_json({"scheduled_times": listed, "invalid_files": [problem.text for problem in invalid]})
    else:
        print_lines(scheduled_time_lines(jobs, times, days, unusable, invalid))


@app.command("scheduled")
@app.command("fires", hidden=True)  # its name up to 1.0.4
def scheduled(
    job: Annotated[str | None, typer.Option("--job", metavar="JOB", help="Only those of this job.")] = None,
    days: Annotated[float, typer.Option(min=0, max=3660, help="How far back.")] = 1,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Lists the scheduled runs of the last days: the verdict of each, or why it was skipped or waits."""
    with App.open(workspace) as opened:
        slug = opened.job(job).slug if job else None
        found = past_scheduled_runs(opened, now(), days, slug)
        timezone = opened.timezone
        jobs = with_deleted_jobs(load_jobs(opened.workspace)[0], opened.ledger, timezone)
    if as_json:
        print_json({"scheduled_runs": [scheduled_run_document(scheduled_run, run) for scheduled_run, run in found]})
    else:
        print_lines(scheduled_runs_table(found, {one.slug: one.timezone for one in jobs}, timezone))


@app.command()
def cancel(
    run: Annotated[str, typer.Argument(metavar="RUN|JOB", help="A run's id, or a job: then its waiting runs too.")],
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Asks a run to stop, whoever started it: it stops between two batches, and its query is cancelled."""
    with App.open(workspace) as opened:
        text = cancel_run_or_job(opened, run, caller=local_caller(), now=now())
    print_answer({"answer": text}, as_json)


@app.command()
def enable(job: JobArgument, workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Enables a job, in its file; its calendar begins now, missed times do not run."""
    _switch(job, workspace, enabled=True, as_json=as_json)


@app.command()
def disable(job: JobArgument, workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Disables a job, in its file; a run that has begun continues."""
    _switch(job, workspace, enabled=False, as_json=as_json)


@app.command("accept-columns")
def accept_columns(job: JobArgument, workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Accepts the changed columns that a job was stopped for; its runs go on with them."""
    with App.open(workspace) as opened:
        found = opened.job(job)
        drift = accept_drift(opened, found, local_caller(), now())
    answer = f'job "{found.name}" goes on with the columns that its last run found ({drift})'
    print_answer({"job": found.slug, "drift": drift, "answer": answer}, as_json)


def _switch(job: str, workspace: Path | None, *, enabled: bool, as_json: bool) -> None:
    word = "enabled" if enabled else "disabled"
    with App.open(workspace) as opened:
        found = opened.job(job)
        changed = set_job_enabled(
            opened.workspace, opened.ledger, found.slug, enabled=enabled, caller=local_caller(), now=now()
        )
    answer = f'job "{found.name}" is {word}' if changed else f'job "{found.name}" was {word} before'
    print_answer({"job": found.slug, "enabled": enabled, "changed": changed, "answer": answer}, as_json)
