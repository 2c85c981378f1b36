"""Commands that run a job now, or show what a run would send: run, replay, send, preview, parity, sql."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import typer

from core.app import App
from core.cli.documents import dry_run_document, parity_document, preview_document, query_document, run_document
from core.cli.options import (
    AtOption,
    JobArgument,
    JsonOption,
    ParamsOption,
    RunArgument,
    TopicArgument,
    WorkspaceOption,
    moment_of,
    now,
    parameters_of,
)
from core.cli.output import error_document, print_answer, print_json, print_lines
from core.cli.progress import showing
from core.cli.render import (
    acknowledged_lines,
    dry_run_lines,
    parity_lines,
    plan_heading,
    preview_lines,
    query_lines,
    replay_lines,
    run_lines,
)
from core.errors import ConfigError
from core.files.parity import compare, write_differences
from core.files.reader import FileOptions
from core.model.run import Plan, Run
from core.model.verdict import exit_code
from core.records.rights import local_caller
from core.run.cancellation import Stop, stop_on_signals
from core.run.incremental import query_of_job
from core.run.planning import bound_query, last_row_count
from core.run.preview import open_reading
from core.run.replay import replay_options, replay_plan
from core.run.row_reader import Progress
from core.scheduler.commands import audit_replay, audit_run
from core.scheduler.control import ask_for_run
from core.sources import database_types

__all__ = ["app", "execute_plan"]

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def run(
    job: JobArgument,
    at: AtOption = None,
    param: ParamsOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read and make every message, send nothing.")] = False,
    by_runner: Annotated[bool, typer.Option("--by-runner", help="Ask the runner to run it, and do not wait.")] = False,
    again: Annotated[
        bool,
        typer.Option(
            "--again",
            help="Also where this scheduled time was sent, so that readers see its messages again, or is in the future.",
        ),
    ] = False,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Runs a job once, now, and reports what became of every row."""
    with App.open(workspace) as opened:
        if by_runner:
            asked = ask_for_run(
                opened,
                job,
                at=moment_of(at),
                params=parameters_of(param),
                caller=local_caller(),
                now=now,
                dry_run=dry_run,
                again=again,
            )
            print_answer(asked, as_json)
            return
        plan = opened.plan(
            opened.job(job), now=now(), at=moment_of(at), params=parameters_of(param), asked_by=local_caller().name
        )
        audit_run(opened.ledger, plan, caller=local_caller(), now=now(), again=again, dry_run=dry_run)
        _run_and_report(opened, plan, as_json=as_json, dry_run=dry_run)


@app.command()
def replay(
    run: RunArgument,
    rejects_only: Annotated[
        bool, typer.Option("--rejects-only", help="Only the rows that have not been acknowledged.")
    ] = False,
    key: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY", help="Only the rows with this key; may be given several times."),
    ] = None,
    to: Annotated[
        Literal["run", "job"],
        typer.Option(help="run: the topic and cluster that the run was sent to. job: those that its job has now."),
    ] = "run",
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Runs a run's query again for the same scheduled time; the same rows get the same message ids."""
    with App.open(workspace) as opened:
        keys = key or []
        plan = replay_plan(opened, run, rejects_only=rejects_only, keys=keys, asked_by=local_caller().name, to=to)
        if not as_json:
            print_lines(replay_lines(plan, replay_options(opened, run).notes(to)))
        audit_replay(opened.ledger, plan, rejects_only=rejects_only, keys=keys, to=to, caller=local_caller(), now=now())
        _run_and_report(opened, plan, as_json=as_json)


@app.command()
def send(
    topic: TopicArgument,
    key: Annotated[str, typer.Argument(help="The key of the message.")],
    value: Annotated[str, typer.Argument(help="The value of the message, sent as it is.")],
    cluster: Annotated[
        str | None, typer.Option(help="A name of kafka_connections. Default: default_environment.")
    ] = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Sends one message by hand and waits for its acknowledgement."""
    with App.open(workspace) as opened:
        from core.run.send_by_hand import send_message  # loads pyarrow

        result = send_message(opened, topic, key, value, cluster=cluster, caller=local_caller(), now=now())
    print_json(result) if as_json else print_lines(acknowledged_lines(result))


@app.command()
def preview(
    job: JobArgument,
    rows: Annotated[int, typer.Option(min=1, max=10_000, help="How many at most.")] = 20,
    at: AtOption = None,
    param: ParamsOption = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Shows the exact key, headers, value and size of a job's first messages, or the first rows of its file."""
    with App.open(workspace) as opened:
        plan = opened.plan(
            opened.job(job), now=now(), at=moment_of(at), params=parameters_of(param), asked_by=local_caller().name
        )
        seen = opened.preview(plan, rows=rows)
    print_json(preview_document(plan, seen)) if as_json else print_lines(preview_lines(plan, seen))


@app.command()
def parity(
    job: JobArgument,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The .xlsx or .csv that was made earlier.")],
    at: AtOption = None,
    param: ParamsOption = None,
    key: Annotated[
        str | None,
        typer.Option(help="Column(s) that identify a row, separated by commas. Default: the job's message key."),
    ] = None,
    separator: Annotated[str | None, typer.Option(help="Of the CSV. Default: found in its header.")] = None,
    encoding: Annotated[
        str | None, typer.Option(help="Of the CSV. Default: by its byte order mark, UTF-8, else cp1252.")
    ] = None,
    decimal: Annotated[str | None, typer.Option(help="Of the CSV, . or , Default: found in each number.")] = None,
    sheet: Annotated[
        str | None, typer.Option(help="Of the workbook. Default: the first one and its continuations.")
    ] = None,
    limit: Annotated[int, typer.Option(min=0, max=1_000, help="Differences to show.")] = 10,
    csv: Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="Write every difference into it.")] = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compares what a job would send with a file made earlier: missing and extra keys, cells that differ."""
    with App.open(workspace) as opened:
        chosen = opened.job(job)
        plan = opened.plan(
            chosen, now=now(), at=moment_of(at), params=parameters_of(param), asked_by=local_caller().name
        )
        keys = [name.strip() for name in key.split(",")] if key else None
        options = FileOptions(separator, encoding, decimal, sheet)
        with write_differences(csv) if csv else nullcontext() as write, open_reading(opened, plan) as reading:
            found = compare(chosen, plan, reading, file, keys=keys, options=options, on_difference=write)
    print_json(parity_document(found, limit)) if as_json else print_lines(parity_lines(found, file.name, plan, limit))
    raise typer.Exit(0 if found.is_equal else 1)


@app.command()
def sql(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The SQL file, as the job names it.")],
    db_type: Annotated[
        str | None,
        typer.Option(
            "--db-type",
            help=f"{', '.join(database_types()[:-1])} or {database_types()[-1]}. Default: that of the job.",
        ),
    ] = None,
    job: Annotated[
        str | None,
        typer.Option("--job", metavar="JOB", help="As this job runs it: its parameters, what is new if incremental."),
    ] = None,
    param: ParamsOption = None,
    at: AtOption = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Prints the statements and values that would reach the driver, or the error; contacts nothing."""
    try:
        if job is not None:
            with App.open(workspace) as opened:
                query = query_of_job(opened, opened.job(job), file, parameters_of(param), moment_of(at), now())
        elif db_type is not None:
            query = bound_query(file, db_type, parameters_of(param), moment_of(at) or now())
        else:
            raise ConfigError("the kind of database is not known", remedy="give --db-type, or --job")
    except ConfigError as error:
        if not as_json:
            raise
        print_json({"error": error_document(error)})
        raise typer.Exit(error.exit_code) from None
    print_json(query_document(query)) if as_json else print_lines(query_lines(query))


def _run_and_report(opened: App, plan: Plan, *, as_json: bool, dry_run: bool = False) -> None:
    if dry_run:
        _try_and_report(opened, plan, as_json=as_json)
    run = execute_plan(opened, plan, as_json=as_json)
    print_json(run_document(run)) if as_json else print_lines(run_lines(run, opened.rejects(run)))
    raise typer.Exit(exit_code(run))


def _try_and_report(opened: App, plan: Plan, *, as_json: bool) -> NoReturn:
    from core.run.execute import dry_run  # loads pyarrow

    with _shown(opened, plan, as_json=as_json) as (stop, progress):
        tried = dry_run(opened, plan, stop=stop, progress=progress, now=now)
    print_json(dry_run_document(tried)) if as_json else print_lines(dry_run_lines(tried))
    raise typer.Exit(exit_code(tried.run))


def execute_plan(opened: App, plan: Plan, *, as_json: bool) -> Run:
    """Runs a plan, showing its heading and its progress unless the output is JSON. Ctrl-C and SIGTERM stop it."""
    from core.run.execute import execute  # loads pyarrow

    with _shown(opened, plan, as_json=as_json) as (stop, progress):
        return execute(opened, plan, stop=stop, progress=progress, now=now)


@contextmanager
def _shown(opened: App, plan: Plan, *, as_json: bool) -> Iterator[tuple[Stop, Progress | None]]:
    if not as_json:
        print_lines([plan_heading(plan)])
    expected = last_row_count(opened.ledger, plan.job.slug)
    with stop_on_signals() as stop, showing(plan, expected, silent=as_json) as progress:
        yield stop, progress
