"""Commands for what was sent: runs, show, verify, find, rejects, receipt, metrics."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from core.admin.actions import rebuild_metrics
from core.app import App
from core.cli.options import (
    JsonOption,
    RunArgument,
    WorkspaceOption,
    day_of,
    now,
)
from core.cli.output import print_json, print_lines
from core.cli.render import (
    run_document,
    run_lines,
    runs_table,
    send_document,
    send_lines,
    summary_lines,
    verification_document,
    verification_lines,
)
from core.files.rejects_csv import write_rejects
from core.formatting import heading, local_time
from core.notify.daily_report import receipt_document, receipt_notice
from core.records.rights import local_caller
from core.run.cancellation import stop_on_signals

if TYPE_CHECKING:
    from core.model.run import Run

__all__ = ["app"]

app = typer.Typer(rich_markup_mode=None)
metrics_app = typer.Typer(
    name="metrics", no_args_is_help=True, rich_markup_mode=None, help="What was sent, in numbers."
)
app.add_typer(metrics_app)


@app.command()
def runs(
    job: Annotated[str | None, typer.Option("--job", metavar="JOB")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000)] = 50,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Lists the newest runs and their verdicts."""
    with App.open(workspace) as opened:
        slug = opened.job(job).slug if job else None
        found = opened.ledger.runs(slug, limit)
    if as_json:
        print_json({"runs": [run_document(run) for run in found]})
    else:
        print_lines(runs_table(found) if found else ["no run yet", "  next   python -m core run JOB"])


@app.command()
def show(run: RunArgument, workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Shows one run: verdict, parameters, the SQL that ran, offsets per partition, rejects."""
    with App.open(workspace) as opened:
        found = opened.ledger.run(run)
        rejects = opened.rejects(found)
    if as_json:
        print_json(run_document(found) | {"sql": found.sql_text})
        return
    print_lines([heading(found.job_name, found.scheduled_at, found.timezone, found.parameters.items())])
    print_lines(
        [
            f"{found.connection} → {found.topic or 'file'}{f' ({found.cluster})' if found.cluster else ''}   attempt {found.attempt}   asked by {found.asked_by}"
            + _of_run(found)
        ]
    )
    print_lines(run_lines(found, rejects))
    print_lines([f"  started    {local_time(found.started_at, found.timezone, seconds=True)} {found.timezone}"])
    for p in found.partitions:
        print_lines(
            [f"  {p.topic}-{p.partition}   offsets {p.first_offset:,} to {p.last_offset:,}   {p.count:,} messages"]
        )
    print_lines(["", *(f"  {line}" for line in found.sql_text.splitlines()), f"  sha256 {found.sql_sha256}"])


@app.command()
def verify(run: RunArgument, workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Reads a run's messages back from the topic and compares keys, counts and message ids with what was sent."""
    with App.open(workspace) as opened, stop_on_signals() as stop:
        found = opened.verify(run, should_stop=stop.is_set, now=now)
    print_json(verification_document(found)) if as_json else print_lines(verification_lines(found))
    raise typer.Exit({"complete": 0, "not_verifiable": 3}.get(found.answer, 1))


@app.command()
def find(
    key: Annotated[str, typer.Argument(metavar="KEY")], workspace: WorkspaceOption = None, as_json: JsonOption = False
) -> None:
    """Finds every send of a key: run, topic, partition, offset, latency, attempt, outcome."""
    with App.open(workspace) as opened:
        sends = opened.metrics.find(key)
        timezone = opened.timezone
    if as_json:
        print_json({"key": key, "sends": [send_document(s) for s in sends]})
    else:
        print_lines(send_lines(key, sends, timezone))
    raise typer.Exit(0 if sends else 1)


@app.command()
def rejects(
    run: RunArgument,
    csv: Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="Write them into a CSV file.")] = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Lists the rows of a run that could not be sent, and why."""
    with App.open(workspace) as opened:
        found = opened.ledger.run(run)
        rows = list(opened.ledger.rejects(found.run_id))
    if csv:
        write_rejects(csv, rows)
    if as_json:
        print_json({"run_id": found.run_id, "rejects": [asdict(row) for row in rows]})
    elif csv:
        print_lines([f"{len(rows):,} rejected rows of run {found.run_id} written to {csv}"])
    else:
        for row in rows:
            column = f"{row.column} ({row.database_type})" if row.column else "row"
            print_lines(
                [f"row {row.row_number:,}   key {row.key if row.key is not None else '–'}   {column}: {row.reason}"]
            )
        print_lines([f"{len(rows):,} rejected rows in run {found.run_id}"])


@app.command()
def receipt(
    day: Annotated[str | None, typer.Option("--day", metavar="DAY", help="2026-01-17. Default: today so far.")] = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """What was due on a day and what arrived, per topic and job, in words for everybody."""
    with App.open(workspace) as opened:
        made = opened.receipt(day_of("--day", day) if day else None, now())
    if as_json:
        print_json(receipt_document(made))
    else:
        notice = receipt_notice(made)
        print_lines([notice.subject_line, "", *notice.text.splitlines()[:-3]])
    raise typer.Exit(0 if made.is_green else 1)


@metrics_app.command("summary")
def metrics_summary(workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Today, the last 7 days, topics, errors of the last 24 hours."""
    with App.open(workspace) as opened:
        summary = opened.metrics.summary(now(), opened.timezone)
    print_json(summary) if as_json else print_lines(summary_lines(summary))


@metrics_app.command("rebuild")
def metrics_rebuild(workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Makes metrics.duckdb again from the spool."""
    with App.open(workspace) as opened:
        made = rebuild_metrics(opened.metrics, opened.ledger, caller=local_caller(), now=now())
    if as_json:
        document = {"state": made.state, "segments": made.segments, "sends": made.sends}
        print_json(document | {"set_aside": list(made.set_aside)})
    else:
        print_lines([f"✔ metrics.duckdb rebuilt: {made.sends:,} sends from {made.segments:,} segments"])
        print_lines([f"! {name} could not be read: it is in .pstt/spool/damaged" for name in made.set_aside])


def _of_run(run: Run) -> str:
    if run.of_run is None:
        return ""
    return f"   {'replay of' if run.kind == 'replay' else 'sent before by run'} {run.of_run}"
