"""Commands for what was sent: runs, show, verify, find, rejects, receipt, metrics."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from core.admin.actions import rebuild_metrics, roll_up_sends
from core.app import App
from core.cli.documents import (
    known_since_document,
    rebuilt_document,
    rolled_up_document,
    run_document,
    send_document,
    verification_document,
)
from core.cli.live_lines import live_lines
from core.cli.options import JsonOption, RunArgument, WorkspaceOption, day_of, now
from core.cli.output import print_json, print_lines
from core.cli.render import (
    rebuilt_lines,
    receipt_lines,
    reject_lines,
    rolled_up_lines,
    runs_table,
    send_lines,
    summary_lines,
    verification_lines,
    whole_run_lines,
)
from core.files.rejects_csv import write_rejects
from core.language import Data
from core.notify.daily_report import daily_report_document
from core.notify.wiring import daily_report
from core.records.damaged_segments import damaged_segments
from core.records.rights import local_caller
from core.records.run_progress import ProgressFiles
from core.run.cancellation import stop_on_signals
from core.run.verify_run import verify_run
from core.scheduler.next_attempt import next_attempt

__all__ = ["app"]

app = typer.Typer(add_completion=False, rich_markup_mode=None)
metrics_app = typer.Typer(
    name="metrics", no_args_is_help=True, add_completion=False, rich_markup_mode=None, help="What was sent, in numbers."
)
app.add_typer(metrics_app)


@app.command()
def runs(
    job: Annotated[str | None, typer.Option("--job", metavar="JOB", help="Only the runs of this job.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="How many at most.")] = 50,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Lists the newest runs and their verdicts."""
    with App.open(workspace) as opened:
        slug = opened.job(job).slug if job else None
        found, timezone = opened.ledger.history.newest(slug, limit), opened.timezone
        progress = ProgressFiles(opened.workspace).of_runs(found)
    if as_json:
        print_json({"runs": [run_document(run, progress.get(run.run_id)) for run in found]})
    else:
        print_lines(runs_table(found, timezone, progress))


@app.command()
def show(run: RunArgument, workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Shows one run: verdict, parameters, the SQL that ran, offsets per partition, rejects."""
    with App.open(workspace) as opened:
        found = opened.ledger.run(run)
        rejects = opened.rejects(found)
        progress = ProgressFiles(opened.workspace).of_runs([found]).get(found.run_id)
        retry = next_attempt(opened, found)
    if as_json:
        print_json(run_document(found, progress, retry) | {"sql": found.sql_text})
    else:
        print_lines(whole_run_lines(found, rejects, live_lines(found, progress, retry)))


@app.command()
def verify(run: RunArgument, workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Reads a run's messages back from the topic and compares keys, counts and message ids with what was sent."""
    with App.open(workspace) as opened, stop_on_signals() as stop:
        found = verify_run(opened, run, should_stop=stop.is_set, now=now)
    print_json(verification_document(found)) if as_json else print_lines(verification_lines(found))
    raise typer.Exit({"complete": 0, "not_verifiable": 3}.get(found.answer, 1))


@app.command()
def find(
    key: Annotated[str, typer.Argument(metavar="KEY", help="The whole key of the message, such as a barcode.")],
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Finds every send of a key: run, topic, partition, offset, latency, attempt, outcome."""
    with App.open(workspace) as opened:
        sends = opened.metrics.find(key)
        known, timezone = opened.metrics.rolled_up.known_since(), opened.timezone
        damaged = len(damaged_segments(opened.workspace.spool_dir))
    if as_json:
        found = {"key": key, "sends": [send_document(s) for s in sends], "damaged_segments": damaged}
        print_json(found | known_since_document(known))
    else:
        print_lines(send_lines(key, sends, timezone, known, damaged))
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
        rows = list(opened.ledger.rejects.of_run(found.run_id))
    if csv:
        write_rejects(csv, rows)
    if as_json:
        print_json({"run_id": found.run_id, "rejects": [asdict(row) for row in rows]})
    elif csv:
        count = len(rows)
        print_lines(
            [f"{count:,} rejected {'row' if count == 1 else 'rows'} of run {found.run_id} written to {Data(csv)}"]
        )
    else:
        print_lines(reject_lines(found.run_id, rows))


@app.command()
def receipt(
    day: Annotated[str | None, typer.Option("--day", metavar="DAY", help="2026-01-17. Default: today so far.")] = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Reports what was scheduled on a day and what arrived, by topic and job, in words for every reader."""
    with App.open(workspace) as opened:
        made = daily_report(opened, day_of("--day", day) if day else None, now())
    print_json(daily_report_document(made)) if as_json else print_lines(receipt_lines(made))
    raise typer.Exit(0 if made.is_green else 1)


@metrics_app.command("summary")
def metrics_summary(workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Summarises today, the last 7 days, topics, and the errors of the last 24 hours."""
    with App.open(workspace) as opened:
        summary = opened.metrics.summary(now(), opened.timezone)
    print_json(summary) if as_json else print_lines(summary_lines(summary))


@metrics_app.command("rebuild")
def metrics_rebuild(workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Rebuilds metrics.duckdb from the spool."""
    with App.open(workspace) as opened:
        made = rebuild_metrics(opened.metrics, opened.ledger, caller=local_caller(), now=now())
    print_json(rebuilt_document(made)) if as_json else print_lines(rebuilt_lines(made))


@metrics_app.command("roll-up")
def metrics_roll_up(workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Rolls up sends older than PSTT_KEEP_SENDS_DAYS now; the runner does it once a day."""
    with App.open(workspace) as opened:
        made = roll_up_sends(opened, caller=local_caller(), now=now())
    print_json(rolled_up_document(made)) if as_json else print_lines(rolled_up_lines(made))
    raise typer.Exit(0 if made.state == "done" else 1)
