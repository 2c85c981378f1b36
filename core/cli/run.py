"""Commands that run a job now, or show what a run would do: run, replay, send, preview, parity, sql."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from core.app import App
from core.cli.options import (
    AtOption,
    JobArgument,
    JsonOption,
    ParamsOption,
    RunArgument,
    WorkspaceOption,
    moment_of,
    now,
    parameters_of,
    user_name,
)
from core.cli.output import print_answer, print_json, print_lines
from core.cli.progress import showing
from core.cli.render import (
    dry_run_lines,
    error_document,
    parity_document,
    parity_lines,
    reject_reasons,
    run_document,
    run_lines,
    table_lines,
)
from core.errors import ConfigError
from core.files.parity import compare, differences_into
from core.files.reader import FileOptions
from core.formatting import heading
from core.model.verdict import exit_code
from core.records.rights import local_caller
from core.run.cancellation import stop_on_signals
from core.run.planning import bound_query
from core.run.preview import file_rows
from core.scheduler.commands import audit_replay, audit_run
from core.sources import database_types

if TYPE_CHECKING:
    from core.app import App
    from core.model.run import Plan, Run

__all__ = ["app"]

app = typer.Typer(rich_markup_mode=None)


@app.command()
def run(
    job: JobArgument,
    at: AtOption = None,
    param: ParamsOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read and make every message, send nothing.")] = False,
    by_runner: Annotated[bool, typer.Option("--by-runner", help="Ask the runner to run it, and do not wait.")] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Also where this scheduled time was sent: readers see its messages again.")
    ] = False,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Runs a job once, now, and says what became of every row."""
    with App.open(workspace) as opened:
        if by_runner:
            asked = opened.ask_for_run(
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
            opened.job(job), now=now(), at=moment_of(at), params=parameters_of(param), asked_by=user_name()
        )
        if not dry_run:
            audit_run(opened.ledger, plan, caller=local_caller(), now=now(), again=again)
        _run_and_report(opened, plan, as_json=as_json, dry_run=dry_run)


@app.command()
def replay(
    run: RunArgument,
    rejects_only: Annotated[
        bool, typer.Option("--rejects-only", help="Only the rows that have not been acknowledged.")
    ] = False,
    to: Annotated[
        Literal["run", "job"],
        typer.Option(help="run: the topic and cluster that the run was sent to. job: those that its job has now."),
    ] = "run",
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Runs a run's query again for the same scheduled time; the same rows get the same message ids."""
    with App.open(workspace) as opened:
        plan = opened.replay_plan(run, rejects_only=rejects_only, asked_by=user_name(), to=to)
        if not as_json:
            seen = (
                "rows that arrived before are left out"
                if rejects_only
                else ("readers see these messages again, with the message ids they had")
            )
            goes = f" to {plan.topic} on {plan.cluster}" if plan.topic else ""
            print_lines([f"replay of run {plan.of_run}{goes}: {seen}", *opened.replay_choice(run).notes(to)])
        audit_replay(opened.ledger, plan, rejects_only=rejects_only, to=to, caller=local_caller(), now=now())
        _run_and_report(opened, plan, as_json=as_json)


@app.command()
def send(
    topic: Annotated[str, typer.Argument()],
    key: Annotated[str, typer.Argument()],
    value: Annotated[str, typer.Argument()],
    cluster: Annotated[
        str | None, typer.Option(help="A name of kafka_connections. Default: default_environment.")
    ] = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Sends one message by hand and waits for its acknowledgement."""
    with App.open(workspace) as opened:
        result = opened.send(topic, key, value, cluster=cluster, caller=local_caller(), now=now())
    if as_json:
        print_json(result)
    else:
        where = f"{result['topic']}-{result['partition']} @ {result['offset']:,}"
        print_lines([f"✔ acknowledged   {where}   in {result['latency_ms']:.1f} ms"])


@app.command()
def preview(
    job: JobArgument,
    rows: Annotated[int, typer.Option(min=1, max=10_000)] = 20,
    at: AtOption = None,
    param: ParamsOption = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Shows the exact key, headers, value and size of a job's first messages, or the first rows of its file."""
    with App.open(workspace) as opened:
        plan = opened.plan(
            opened.job(job), now=now(), at=moment_of(at), params=parameters_of(param), asked_by=user_name()
        )
        seen = opened.preview(plan, rows=rows)
    notes = {"warnings": seen.warnings, "rejects": [asdict(r) for r in seen.rejects]}
    table = file_rows(seen, plan.job) if plan.output is not None else []
    if as_json and plan.output is not None:
        names = [column.name for column in seen.columns]
        print_json({"file": f"exports/{plan.output}", "columns": names, "rows": table} | notes)
        return
    if as_json:
        print_json({"messages": [asdict(m) for m in seen.messages]} | notes)
        return
    print_lines([heading(plan.job.name, plan.scheduled_at, plan.job.timezone, plan.query.values.items())])
    print_lines([f"! {warning}" for warning in seen.warnings])
    if plan.output is not None:
        print_lines(["", *table_lines([column.name for column in seen.columns], table)])
        print_lines(["", f"{len(table)} rows shown for exports/{plan.output}; nothing was written"])
        return
    for message in seen.messages:
        print_lines(["", f"row {message.row_number} · {message.size_bytes:,} bytes", f"  key    {message.key}"])
        print_lines([f"  header {name} = {text}" for name, text in message.headers.items()])
        print_lines([f"  value  {message.value}"])
    print_lines(["", f"{len(seen.messages)} messages shown for topic {plan.topic}; nothing was sent"])


@app.command()
def parity(
    job: JobArgument,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The .xlsx or .csv that was made earlier.")],
    at: AtOption = None,
    param: ParamsOption = None,
    key: Annotated[
        str | None, typer.Option(help="Column(s) that tell rows apart, with commas. Default: the job's message key.")
    ] = None,
    separator: Annotated[str | None, typer.Option(help="Of the CSV. Default: told from its header.")] = None,
    encoding: Annotated[str | None, typer.Option(help="Of the CSV. Default: by its mark, UTF-8, else cp1252.")] = None,
    decimal: Annotated[str | None, typer.Option(help="Of the CSV, . or , Default: told from each number.")] = None,
    sheet: Annotated[
        str | None, typer.Option(help="Of the workbook. Default: the first, and those it goes on in.")
    ] = None,
    limit: Annotated[int, typer.Option(min=0, max=1_000, help="Differences to show.")] = 10,
    csv: Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="Write every difference into it.")] = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compares what a job would send with a file made earlier: missing and extra keys, cells that differ."""
    with App.open(workspace) as opened:
        chosen = opened.job(job)
        plan = opened.plan(chosen, now=now(), at=moment_of(at), params=parameters_of(param), asked_by=user_name())
        keys = [name.strip() for name in key.split(",")] if key else None
        options = FileOptions(separator, encoding, decimal, sheet)
        with differences_into(csv) if csv else nullcontext() as tell, opened.reading(plan) as reading:
            found = compare(chosen, plan, reading, file, keys=keys, options=options, tell=tell)
    if as_json:
        print_json(parity_document(found, limit))
    else:
        print_lines(parity_lines(found, file.name, plan, limit))
    raise typer.Exit(0 if found.is_equal else 1)


@app.command()
def sql(
    file: Annotated[Path, typer.Argument(metavar="FILE")],
    db_type: Annotated[
        str, typer.Option("--db-type", help=f"{', '.join(database_types()[:-1])} or {database_types()[-1]}.")
    ],
    param: ParamsOption = None,
    at: AtOption = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Prints the statements and values that would reach the driver, or the error; contacts nothing."""
    try:
        query = bound_query(file, db_type, parameters_of(param), moment_of(at) or now())
    except ConfigError as error:
        if not as_json:
            raise
        print_json({"error": error_document(error)})
        raise typer.Exit(error.exit_code) from None
    if as_json:
        print_json({"steps": [{"sql": step.sql, "binds": _binds(step.binds)} for step in query.steps]})
        return
    for number, step in enumerate(query.steps, 1):
        print_lines([f"-- step {number} (line {step.line})", step.sql])
        binds = _binds(step.binds)
        items = binds.items() if isinstance(binds, dict) else enumerate(binds, 1)
        print_lines([f"   bind {name} = {value!r}" for name, value in items])


def _run_and_report(opened: App, plan: Plan, *, as_json: bool, dry_run: bool = False) -> None:
    run = execute_plan(opened, plan, as_json=as_json, dry_run=dry_run)
    if as_json:
        dry = {"dry_run": True, "reasons": reject_reasons(opened.dry_rejects)} if dry_run else {}
        print_json(run_document(run) | dry)
    elif dry_run:
        print_lines(dry_run_lines(run, opened.dry_rejects))
    else:
        print_lines(run_lines(run, opened.rejects(run)))
    exit_with(run)


def execute_plan(opened: App, plan: Plan, *, as_json: bool, dry_run: bool = False) -> Run:
    if not as_json:
        print_lines([heading(plan.job.name, plan.scheduled_at, plan.job.timezone, plan.query.values.items())])
    with stop_on_signals() as stop, showing(plan, opened.expected_rows(plan), silent=as_json) as progress:
        return opened.execute(plan, stop=stop, progress=progress, now=now, dry_run=dry_run)


def exit_with(run: Run) -> None:
    raise typer.Exit(exit_code(run))


def _binds(binds: Any) -> dict[str, Any] | list[Any]:
    return dict(binds) if hasattr(binds, "items") else list(binds)
