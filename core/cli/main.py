"""The command line: `python -m core COMMAND`. Imports what is slow only inside the command that needs it.

Exit codes: 0 green, 1 the run or check failed, 2 usage or configuration, 3 a server cannot be reached, 4 complete with
rejects.
"""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer
from typer.exceptions import TyperException

from core.cli.accounts import token_app, user_app
from core.errors import ConfigError, PsttError, RunCancelled
from core.sources import database_types

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import date

    from core.app import App
    from core.model.check_result import CheckResult
    from core.model.run import Plan, Run

__all__ = ["app", "main"]

INTERRUPTED = 130
"""What Typer makes of Ctrl-C."""

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Turns SQL files into JSON messages on Kafka and proves that every row arrived.",
)
metrics_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="What was sent, in numbers.")
app.add_typer(metrics_app, name="metrics")
alerts_app = typer.Typer(rich_markup_mode=None, help="What is wrong, who was told; rules stand in alerts.json.")
app.add_typer(alerts_app, name="alerts")
app.add_typer(user_app, name="user")
app.add_typer(token_app, name="token")

Workspace_ = Annotated[
    Path | None,
    typer.Option("--workspace", metavar="DIR", help="The workspace. Default: PSTT_WORKSPACE, else this folder."),
]
Json_ = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
Job_ = Annotated[str, typer.Argument(metavar="JOB", help="The job's file name (without .job.json) or its name.")]
Run_ = Annotated[str, typer.Argument(metavar="RUN", help="The run's id, or the beginning of it.")]
At_ = Annotated[
    str | None,
    typer.Option("--at", metavar="TIME", help="Scheduled time, ISO 8601; without an offset in the job's time zone."),
]
Params_ = Annotated[
    list[str] | None, typer.Option("--param", metavar="NAME=VALUE", help="A parameter's value or template.")
]


def main() -> None:
    """Runs one command; a problem is printed in our words and ends in its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a Windows console with an old code page cannot print ✔
            stream.reconfigure(encoding="utf-8", errors="replace")
    as_json = "--json" in sys.argv
    try:
        code = _command(as_json=as_json)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output (head, less) has gone
        _say_no_more()
        code = 0
    _leave(code)


def _leave(code: int) -> NoReturn:
    """Ends the process, at once where a driver's call has not come back: everything is written down by now."""
    session = sys.modules.get("core.sources.session")  # not there where no database was opened
    if session is not None and session.is_left_behind():
        import os

        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _command(*, as_json: bool) -> int:
    """One command of the command line; its exit code."""
    try:
        code = app(standalone_mode=False) or 0
    except PsttError as error:
        return _fail(error, as_json=as_json)
    except TyperException as error:  # a wrong word on the command line
        return _misused(error, as_json=as_json)
    except SystemExit:  # what Typer makes of a closed pipe, and of nothing else here
        raise BrokenPipeError from None
    except Exception as error:  # noqa: BLE001 - no traceback reaches a user; the log has it
        return _defect(error, as_json=as_json)
    if code == INTERRUPTED:
        return _fail(RunCancelled("stopped"), as_json=as_json)
    return int(code)


def _misused(error: TyperException, *, as_json: bool) -> int:
    # Typer has no public name for what its usage errors can do.
    usage: Any = error
    if as_json:
        place = usage.ctx.command_path if getattr(usage, "ctx", None) else "python -m core"
        return _fail(ConfigError(usage.format_message(), remedy=f"{place} --help"), as_json=True)
    usage.show()
    return 2


def _say_no_more() -> None:
    """Python writes what is left at its end, and would complain that nobody reads it."""
    import os

    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


@app.command()
def demo(
    rows: Annotated[int, typer.Option(min=1, max=10_000_000, help="Rows in the demo table.")] = 20_000,
    workspace: Annotated[Path, typer.Option("--workspace", metavar="DIR", help="Where the demo is made.")] = Path(
        "demo"
    ),
    as_json: Json_ = False,
) -> None:
    """Makes a workspace with a database and a broker of its own, runs its job, and reads the topic back."""
    from core.admin.demo import make_demo, read_back
    from core.app import App
    from core.cli.render import run_document, run_lines

    make_demo(workspace, rows, now=_now())
    with App.open(workspace) as opened:
        plan = opened.plan(opened.job("export-cdg-tracce"), now=_now(), asked_by="demo")
        run = _execute(opened, plan, as_json=as_json)
        topic = read_back(opened.bootstrap_servers(plan), plan.topic, timeout_s=10)
        if as_json:
            example = {"key": topic.key, "headers": topic.headers, "value": topic.value}
            _print_json(run_document(run) | {"topic_count": topic.count, "example": example})
        else:
            _print(run_lines(run, opened.rejects(run)))
            _print(
                [f"  read back  {topic.count:,} messages on {plan.topic}; one of them:", "", f"  key    {topic.key}"]
            )
            _print(
                [
                    *(f"  header {name} = {value}" for name, value in topic.headers.items()),
                    f"  value  {topic.value}",
                    "",
                ]
            )
            place = f"--workspace {workspace}"
            _print(
                [
                    "Next:",
                    f"  python -m core find {topic.key} {place}        where is one barcode?",
                    f"  python -m core preview export-cdg-tracce {place}   the exact messages, before they are sent",
                    f"  python -m core rejects {run.run_id} {place}        the rows that could not be sent, and why",
                    "  README.md: your own database, your own broker",
                ]
            )
        if run.state != "succeeded":  # some of the demo's rows are there to be rejected
            _exit_with(run)


@app.command()
def run(
    job: Job_,
    at: At_ = None,
    param: Params_ = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read and make every message, send nothing.")] = False,
    by_runner: Annotated[bool, typer.Option("--by-runner", help="Ask the runner to run it, and do not wait.")] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Also where this scheduled time was sent: readers see its messages again.")
    ] = False,
    workspace: Workspace_ = None,
    as_json: Json_ = False,
) -> None:
    """Runs a job once, now, and says what became of every row."""
    from core.app import App
    from core.scheduler.commands import require_unsent

    with App.open(workspace) as opened:
        if by_runner:
            asked = opened.ask_for_run(
                job, at=_moment(at), params=_pairs(param), who=_user(), now=_now, dry_run=dry_run, again=again
            )
            _print_answer(asked, as_json)
            return
        plan = opened.plan(opened.job(job), now=_now(), at=_moment(at), params=_pairs(param), asked_by=_user())
        if not dry_run:
            require_unsent(opened.ledger, plan.job, plan.scheduled_at, again=again)
        _run_and_report(opened, plan, as_json=as_json, dry_run=dry_run)


@app.command()
def replay(
    run: Run_,
    rejects_only: Annotated[
        bool, typer.Option("--rejects-only", help="Only the rows that have not been acknowledged.")
    ] = False,
    to: Annotated[
        Literal["run", "job"],
        typer.Option(help="run: the topic and cluster that the run was sent to. job: those that its job has now."),
    ] = "run",
    workspace: Workspace_ = None,
    as_json: Json_ = False,
) -> None:
    """Runs a run's query again for the same scheduled time; the same rows get the same message ids."""
    from core.app import App

    with App.open(workspace) as opened:
        plan = opened.replay_plan(run, rejects_only=rejects_only, asked_by=_user(), to=to)
        if not as_json:
            seen = (
                "rows that arrived before are left out"
                if rejects_only
                else ("readers see these messages again, with the message ids they had")
            )
            goes = f" to {plan.topic} on {plan.cluster}" if plan.topic else ""
            _print([f"replay of run {plan.of_run}{goes}: {seen}", *opened.replay_choice(run).notes(to)])
        _run_and_report(opened, plan, as_json=as_json)


@app.command()
def parity(
    job: Job_,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The .xlsx or .csv that was made earlier.")],
    at: At_ = None,
    param: Params_ = None,
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
    workspace: Workspace_ = None,
    as_json: Json_ = False,
) -> None:
    """Compares what a job would send with a file made earlier: missing and extra keys, cells that differ."""
    from contextlib import nullcontext

    from core.app import App
    from core.cli.render import parity_document, parity_lines
    from core.files.parity import compare, write_differences
    from core.files.reader import FileOptions

    with App.open(workspace) as opened:
        chosen = opened.job(job)
        plan = opened.plan(chosen, now=_now(), at=_moment(at), params=_pairs(param), asked_by=_user())
        keys = [name.strip() for name in key.split(",")] if key else None
        options = FileOptions(separator, encoding, decimal, sheet)
        with write_differences(csv) if csv else nullcontext() as on_difference, opened.reading(plan) as reading:
            found = compare(chosen, plan, reading, file, keys=keys, options=options, on_difference=on_difference)
    if as_json:
        _print_json(parity_document(found, limit))
    else:
        _print(parity_lines(found, file.name, plan, limit))
    raise typer.Exit(0 if found.is_equal else 1)


@app.command()
def send(
    topic: Annotated[str, typer.Argument()],
    key: Annotated[str, typer.Argument()],
    value: Annotated[str, typer.Argument()],
    cluster: Annotated[
        str | None, typer.Option(help="A name of kafka_connections. Default: default_environment.")
    ] = None,
    workspace: Workspace_ = None,
    as_json: Json_ = False,
) -> None:
    """Sends one message by hand and waits for its acknowledgement."""
    from core.app import App

    with App.open(workspace) as opened:
        result = opened.send(topic, key, value, cluster=cluster, now=_now())
    if as_json:
        _print_json(result)
    else:
        where = f"{result['topic']}-{result['partition']} @ {result['offset']:,}"
        _print([f"✔ acknowledged   {where}   in {result['latency_ms']:.1f} ms"])


@app.command()
def runner(
    stop: Annotated[bool, typer.Option("--stop", help="Ask the runner that works here to end, and wait.")] = False,
    accept_clock: Annotated[
        bool, typer.Option("--accept-clock", help="The clock is right, although it is behind what was seen before.")
    ] = False,
    workspace: Workspace_ = None,
) -> None:
    """Runs every job on its calendar until it is stopped: Ctrl-C, SIGTERM, or runner --stop."""
    from core.app import App
    from core.run.cancellation import stop_on_signals

    with App.open(workspace) as opened:
        if stop:
            _print([opened.stop_runner(_user(), _now)])
            return
        with stop_on_signals() as stopping:
            print(f"runner of {opened.workspace.root} starts; Ctrl-C ends it", file=sys.stderr, flush=True)
            opened.work(stopping, _now, accept_clock=accept_clock)


@app.command(hidden=True)
def work(
    scheduled_run: Annotated[int | None, typer.Argument()] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Get ready, then read the fire from stdin.")] = False,
    workspace: Workspace_ = None,
) -> None:
    """Runs one planned fire for the runner."""
    from core.app import App
    from core.cli.worker import warm_up
    from core.cli.worker import work as run_scheduled

    with App.open(workspace) as opened:
        if wait:
            warm_up(opened)
            told = sys.stdin.readline().strip()
            scheduled_run = int(told) if told else None
        raise typer.Exit(run_scheduled(opened, scheduled_run, _now) if scheduled_run is not None else 0)


@app.command()
def service(
    action: Annotated[Literal["install", "uninstall", "start", "stop", "restart", "status"], typer.Argument()],
    page: Annotated[bool, typer.Option("--page", help="The page instead of the runner.")] = False,
    account: Annotated[str, typer.Option(help="install: whose rights it has, a user or DOMAIN\\NAME$.")] = "",
    name: Annotated[str, typer.Option(help="Another name, for a second workspace on this machine.")] = "",
    nssm: Annotated[str, typer.Option(metavar="PROGRAM", help="Windows: where nssm.exe is.")] = "nssm",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be done, and do nothing.")] = False,
    workspace: Workspace_ = None,
    as_json: Json_ = False,
) -> None:
    """Makes the runner a service of this machine that starts with it, or looks after that service."""
    import os

    from core.admin.os_service import Service, perform, status, steps, this_system
    from core.workspace.paths import Workspace
    from core.workspace.settings import load_settings

    place = Workspace.find(workspace, os.environ)
    stop_timeout_s = load_settings(place, os.environ).PSTT_STOP_TIMEOUT_S
    made = Service.here(place.root, page=page, account=account, stop_timeout_s=stop_timeout_s, given_name=name)
    system = this_system()
    planned = steps(action, made, system=system, nssm=nssm)
    if dry_run:
        code, lines = 0, [step.shown(system) for step in planned]
    elif action == "status":
        runs, word = status(made, system=system, nssm=nssm)
        code, lines = (0, [f"✔ {made.name}: {word}"]) if runs else (1, [f"✘ {made.name}: {word}"])
    else:
        code, lines = 0, [*perform(planned, system), f"✔ {made.name}: {action} done"]
    _print_json({"service": made.name, "action": action, "lines": lines}) if as_json else _print(lines)
    raise typer.Exit(code)


@app.command("next")
def next_(
    days: Annotated[float, typer.Option(min=0, max=3660, help="How far to look.")] = 7,
    workspace: Workspace_ = None,
    as_json: Json_ = False,
) -> None:
    """Lists when each enabled job is due next."""
    from core.app import App
    from core.cli.render import scheduled_run_lines

    with App.open(workspace) as opened:
        jobs, scheduled_runs = opened.coming_scheduled_times(_now(), days)
        stranded = opened.stranded(jobs)
    if as_json:
        _print_json({"fires": [{"job": slug, "scheduled_at": moment.isoformat()} for moment, slug in scheduled_runs]})
    else:
        _print(
            scheduled_run_lines(jobs, scheduled_runs, days)
            + [f"✘ {slug} will fail: {error.text}" for slug, error in stranded.items()]
        )


@app.command("fires")
def scheduled_runs_(
    job: Annotated[str | None, typer.Option("--job", metavar="JOB")] = None,
    days: Annotated[float, typer.Option(min=0, max=3660, help="How far to look back.")] = 1,
    workspace: Workspace_ = None,
    as_json: Json_ = False,
) -> None:
    """Lists what became of each scheduled time: its run, or why it was skipped or waits."""
    from core.app import App
    from core.cli.render import scheduled_run_document, scheduled_runs_table

    with App.open(workspace) as opened:
        slug = opened.job(job).slug if job else None
        found = opened.past_scheduled_runs(_now(), days, slug)
        timezone = opened.timezone
    if as_json:
        _print_json({"fires": [scheduled_run_document(scheduled_run, run) for scheduled_run, run in found]})
    else:
        _print(scheduled_runs_table(found, timezone))


@app.command()
def backfill(
    job: Job_,
    first: Annotated[str, typer.Option("--from", metavar="DAY", help="First day: 2026-01-10.")],
    last: Annotated[str, typer.Option("--to", metavar="DAY", help="Last day; it is among them.")],
    again: Annotated[bool, typer.Option("--again", help="Also times that have a succeeded run.")] = False,
    workspace: Workspace_ = None,
    as_json: Json_ = False,
) -> None:
    """Plans a run for each scheduled time of a range of days; the runner does them one after the other."""
    from core.app import App
    from core.scheduler.commands import backfill as plan_days

    with App.open(workspace) as opened:
        found = opened.job(job)
        days = (_day("--from", first), _day("--to", last))
        made = plan_days(opened.ledger, found, *days, asked_by=_user(), now=_now(), again=again)
        note = opened.runner_note(_now())
    if as_json:
        _print_json(
            {
                "job": found.slug,
                "planned": len(made.scheduled_run_ids),
                "succeeded_before": made.succeeded_before,
                "planned_before": made.planned_before,
                "scheduled_run_ids": list(made.scheduled_run_ids),
            }
        )
    else:
        _print([f"{'✔' if made.scheduled_run_ids else '–'} {found.name}: {made.text}", *note])


@app.command()
def cancel(
    run: Annotated[str, typer.Argument(metavar="RUN|JOB", help="A run's id, or a job: then what waits of it too.")],
    workspace: Workspace_ = None,
    as_json: Json_ = False,
) -> None:
    """Asks a run to end, whoever started it; it does between two batches, and its query is stopped."""
    from core.app import App

    with App.open(workspace) as opened:
        text = opened.cancel(run, who=_user(), now=_now())
    _print_answer({"answer": text}, as_json)


@app.command()
def enable(job: Job_, workspace: Workspace_ = None, as_json: Json_ = False) -> None:
    """Switches a job on, in its file; its calendar begins now, without what was missed."""
    _switch(job, workspace, enabled=True, as_json=as_json)


@app.command()
def disable(job: Job_, workspace: Workspace_ = None, as_json: Json_ = False) -> None:
    """Switches a job off, in its file; a run under way goes on."""
    _switch(job, workspace, enabled=False, as_json=as_json)


@app.command("accept-columns")
def accept_columns(job: Job_, workspace: Workspace_ = None, as_json: Json_ = False) -> None:
    """Says that the changed columns a job was stopped for are right; its runs go on with them."""
    from core.app import App

    with App.open(workspace) as opened:
        found = opened.job(job)
        drift = opened.accept_columns(found, _user(), _now())
    answer = f'job "{found.name}" goes on with the columns that its last run found ({drift})'
    _print_answer({"job": found.slug, "drift": drift, "answer": answer}, as_json)


@app.command()
def preview(
    job: Job_,
    rows: Annotated[int, typer.Option(min=1, max=10_000)] = 20,
    at: At_ = None,
    param: Params_ = None,
    workspace: Workspace_ = None,
    as_json: Json_ = False,
) -> None:
    """Shows the exact key, headers, value and size of a job's first messages, or the first rows of its file."""
    from dataclasses import asdict

    from core.app import App
    from core.cli.render import table_lines
    from core.run.preview import file_rows

    with App.open(workspace) as opened:
        plan = opened.plan(opened.job(job), now=_now(), at=_moment(at), params=_pairs(param), asked_by=_user())
        seen = opened.preview(plan, rows=rows)
    notes = {"warnings": seen.warnings, "rejects": [asdict(r) for r in seen.rejects]}
    table = file_rows(seen, plan.job) if plan.output is not None else []
    if as_json and plan.output is not None:
        names = [column.name for column in seen.columns]
        _print_json({"file": f"exports/{plan.output}", "columns": names, "rows": table} | notes)
        return
    if as_json:
        _print_json({"messages": [asdict(m) for m in seen.messages]} | notes)
        return
    _print_heading(plan)
    _print([f"! {warning}" for warning in seen.warnings])
    if plan.output is not None:
        _print(["", *table_lines([column.name for column in seen.columns], table)])
        _print(["", f"{len(table)} rows shown for exports/{plan.output}; nothing was written"])
        return
    for message in seen.messages:
        _print(["", f"row {message.row_number} · {message.size_bytes:,} bytes", f"  key    {message.key}"])
        _print([f"  header {name} = {text}" for name, text in message.headers.items()])
        _print([f"  value  {message.value}"])
    _print(["", f"{len(seen.messages)} messages shown for topic {plan.topic}; nothing was sent"])


@app.command()
def sql(
    file: Annotated[Path, typer.Argument(metavar="FILE")],
    db_type: Annotated[
        str, typer.Option("--db-type", help=f"{', '.join(database_types()[:-1])} or {database_types()[-1]}.")
    ],
    param: Params_ = None,
    at: At_ = None,
    workspace: Workspace_ = None,
    as_json: Json_ = False,
) -> None:
    """Prints the statements and values that would reach the driver, or the error; contacts nothing."""
    from core.cli.render import error_document
    from core.run.planning import bound_query

    try:
        query = bound_query(file, db_type, _pairs(param), _moment(at) or _now())
    except ConfigError as error:
        if not as_json:
            raise
        _print_json({"error": error_document(error)})
        raise typer.Exit(error.exit_code) from None
    if as_json:
        _print_json({"steps": [{"sql": step.sql, "binds": _binds(step.binds)} for step in query.steps]})
        return
    for number, step in enumerate(query.steps, 1):
        _print([f"-- step {number} (line {step.line})", step.sql])
        binds = _binds(step.binds)
        items = binds.items() if isinstance(binds, dict) else enumerate(binds, 1)
        _print([f"   bind {name} = {value!r}" for name, value in items])


@app.command()
def check(workspace: Workspace_ = None, as_json: Json_ = False) -> None:
    """Looks at every file of the workspace and lists all problems; contacts nothing."""
    import os

    from core.admin.check import check as check_files
    from core.workspace.paths import Workspace

    place = Workspace.find(workspace, os.environ)
    problems = check_files(place, os.environ)
    errors = [p for p in problems if p.severity == "error"]
    if as_json:
        _print_json(
            {
                "ok": not errors,
                "problems": [
                    {"severity": p.severity, "text": p.text, "where": p.where, "remedy": p.remedy} for p in problems
                ],
            }
        )
    else:
        for problem in problems:
            _print(
                [
                    f"{'✘' if problem.severity == 'error' else '!'} {problem.where + ': ' if problem.where else ''}{problem.text}"
                ]
            )
            _print([f"  next   {problem.remedy}"] if problem.remedy else [])
        warnings = len(problems) - len(errors)
        _print(
            [
                f"✔ {place.root.resolve().name}: no errors, {warnings} warnings"
                if not errors
                else f"✘ {len(errors)} errors, {warnings} warnings"
            ]
        )
    raise typer.Exit(2 if errors else 0)


@app.command()
def doctor(workspace: Workspace_ = None, as_json: Json_ = False) -> None:
    """Reaches every database and broker and looks at disk, clock and permissions."""
    from core.app import App

    with App.open(workspace) as opened:
        _print_facts(opened.examine(_now), as_json=as_json)


def _print_facts(found: Iterable[CheckResult], *, as_json: bool) -> None:
    """Each as it is found, then the sum; ends in exit code 0, 1 or 3."""
    from dataclasses import asdict

    signs = {"pass": "✔", "warn": "!", "fail": "✘"}
    facts = []
    for fact in found:
        facts.append(fact)
        if not as_json:
            _print([f"{signs[fact.status]} {fact.subject}: {fact.text}"])
            _print([f"  next   {fact.remedy}"] if fact.remedy else [])
    failed = [fact for fact in facts if fact.status == "fail"]
    if as_json:
        _print_json({"ok": not failed, "facts": [asdict(fact) for fact in facts]})
    else:
        warned = sum(fact.status == "warn" for fact in facts)
        _print([f"{'✘' if failed else '✔'} {len(failed)} failed, {warned} warnings, {len(facts)} looked at"])
    raise typer.Exit(3 if any(fact.unreachable for fact in failed) else 1 if failed else 0)


@app.command()
def identity(
    answer: Annotated[
        Literal["moved", "copied"] | None,
        typer.Argument(help="moved: it is the same workspace in another place. copied: it is another one from now on."),
    ] = None,
    workspace: Workspace_ = None,
    as_json: Json_ = False,
) -> None:
    """Tells the identity under which runs of exactly_once send, or says where this workspace came from."""
    import os

    from core.workspace.identity import answer as keep_answer
    from core.workspace.identity import doubt, read_identity
    from core.workspace.paths import Workspace

    place = Workspace.find(workspace, os.environ)
    if answer:
        keep_answer(place, answer, _now())
    known, question = read_identity(place), doubt(place)
    if question:
        raise question
    made = f"{known.id}, at {known.place}" if known else "none yet: the first run of exactly_once makes it"
    _print_answer({"id": known.id if known else None, "answer": f"identity {made}"}, as_json)


@app.command()
def config(workspace: Workspace_ = None, as_json: Json_ = False) -> None:
    """Lists each setting, its value (secrets as ***) and where it came from."""
    from core.app import App

    with App.open(workspace) as opened:
        rows = opened.settings.table()
    if as_json:
        _print_json({"settings": [{"name": r.name, "value": r.value, "origin": r.origin} for r in rows]})
        return
    width = max(len(row.name) for row in rows)
    _print(
        [f"{row.name:<{width}}  {row.value if row.value not in (None, '') else '–'}   ({row.origin})" for row in rows]
    )


@app.command()
def health(workspace: Workspace_ = None, as_json: Json_ = False) -> None:
    """Is the runner alive, and has each job succeeded in time? Exit code 1 if not: for your own monitoring."""
    from core.app import App

    with App.open(workspace) as opened:
        _print_facts(opened.health(_now()), as_json=as_json)


@app.command()
def runs(
    job: Annotated[str | None, typer.Option("--job", metavar="JOB")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000)] = 50,
    workspace: Workspace_ = None,
    as_json: Json_ = False,
) -> None:
    """Lists the newest runs and their verdicts."""
    from core.app import App
    from core.cli.render import run_document, runs_table

    with App.open(workspace) as opened:
        slug = opened.job(job).slug if job else None
        found = opened.ledger.runs(slug, limit)
    if as_json:
        _print_json({"runs": [run_document(run) for run in found]})
    else:
        _print(runs_table(found) if found else ["no run yet", "  next   python -m core run JOB"])


@app.command()
def show(run: Run_, workspace: Workspace_ = None, as_json: Json_ = False) -> None:
    """Shows one run: verdict, parameters, the SQL that ran, offsets per partition, rejects."""
    from core.app import App
    from core.cli.render import run_document, run_lines
    from core.formatting import heading, local_time

    with App.open(workspace) as opened:
        found = opened.ledger.run(run)
        rejects = opened.rejects(found)
    if as_json:
        _print_json(run_document(found) | {"sql": found.sql_text})
        return
    _print([heading(found.job_name, found.scheduled_at, found.timezone, found.parameters.items())])
    _print(
        [
            f"{found.connection} → {found.topic or 'file'}{f' ({found.cluster})' if found.cluster else ''}   attempt {found.attempt}   asked by {found.asked_by}"
            + _of_run(found)
        ]
    )
    _print(run_lines(found, rejects))
    _print([f"  started    {local_time(found.started_at, found.timezone, seconds=True)} {found.timezone}"])
    for p in found.partitions:
        _print([f"  {p.topic}-{p.partition}   offsets {p.first_offset:,} to {p.last_offset:,}   {p.count:,} messages"])
    _print(["", *(f"  {line}" for line in found.sql_text.splitlines()), f"  sha256 {found.sql_sha256}"])


@app.command()
def verify(run: Run_, workspace: Workspace_ = None, as_json: Json_ = False) -> None:
    """Reads a run's messages back from the topic and compares keys, counts and message ids with what was sent."""
    from core.app import App
    from core.cli.render import verification_document, verification_lines
    from core.run.cancellation import stop_on_signals

    with App.open(workspace) as opened, stop_on_signals() as stop:
        found = opened.verify(run, should_stop=stop.is_set, now=_now)
    _print_json(verification_document(found)) if as_json else _print(verification_lines(found))
    raise typer.Exit({"complete": 0, "not_verifiable": 3}.get(found.answer, 1))


@app.command()
def find(
    key: Annotated[str, typer.Argument(metavar="KEY")], workspace: Workspace_ = None, as_json: Json_ = False
) -> None:
    """Finds every send of a key: run, topic, partition, offset, latency, attempt, outcome."""
    from core.app import App
    from core.cli.render import send_document, send_lines

    with App.open(workspace) as opened:
        sends = opened.metrics.find(key)
        timezone = opened.timezone
    if as_json:
        _print_json({"key": key, "sends": [send_document(s) for s in sends]})
    else:
        _print(send_lines(key, sends, timezone))
    raise typer.Exit(0 if sends else 1)


@app.command()
def rejects(
    run: Run_,
    csv: Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="Write them into a CSV file.")] = None,
    workspace: Workspace_ = None,
    as_json: Json_ = False,
) -> None:
    """Lists the rows of a run that could not be sent, and why."""
    from dataclasses import asdict

    from core.app import App
    from core.files.rejects_csv import write_rejects

    with App.open(workspace) as opened:
        found = opened.ledger.run(run)
        rows = list(opened.ledger.rejects(found.run_id))
    if csv:
        write_rejects(csv, rows)
    if as_json:
        _print_json({"run_id": found.run_id, "rejects": [asdict(row) for row in rows]})
    elif csv:
        _print([f"{len(rows):,} rejected rows of run {found.run_id} written to {csv}"])
    else:
        for row in rows:
            column = f"{row.column} ({row.database_type})" if row.column else "row"
            _print([f"row {row.row_number:,}   key {row.key if row.key is not None else '–'}   {column}: {row.reason}"])
        _print([f"{len(rows):,} rejected rows in run {found.run_id}"])


@app.command()
def receipt(
    day: Annotated[str | None, typer.Option("--day", metavar="DAY", help="2026-01-17. Default: today so far.")] = None,
    workspace: Workspace_ = None,
    as_json: Json_ = False,
) -> None:
    """What was due on a day and what arrived, per topic and job, in words for everybody."""
    from core.app import App
    from core.notify.daily_report import daily_report_document, daily_report_notification

    with App.open(workspace) as opened:
        made = opened.receipt(_day("--day", day) if day else None, _now())
    if as_json:
        _print_json(daily_report_document(made))
    else:
        notice = daily_report_notification(made)
        _print([notice.subject_line, "", *notice.text.splitlines()[:-3]])
    raise typer.Exit(0 if made.is_green else 1)


@alerts_app.callback(invoke_without_command=True)
def alerts(context: typer.Context, workspace: Workspace_ = None, as_json: Json_ = False) -> None:
    """Lists open alerts, messages that wait, and what was sent last."""
    if context.invoked_subcommand is not None:
        return
    from core.app import App
    from core.cli.render import alert_document, alert_lines

    with App.open(workspace) as opened:
        found = opened.outbox.open_incidents(), opened.outbox.waiting(), opened.outbox.newest(10)
        timezone = opened.timezone
    _print_json(alert_document(*found)) if as_json else _print(alert_lines(*found, timezone))


@alerts_app.command("test")
def alerts_test(
    to: Annotated[list[str] | None, typer.Option("--to", metavar="ADDRESS", help="Default: PSTT_MAIL_TO.")] = None,
    workspace: Workspace_ = None,
    as_json: Json_ = False,
) -> None:
    """Sends a test mail and says what became of it."""
    from dataclasses import asdict

    from core.app import App

    with App.open(workspace) as opened:
        fate = opened.test_mail(to or (), _now())
    if as_json:
        _print_json(asdict(fate))
    else:
        _print([f"✔ {address}: the mail server has taken it" for address in fate.delivered])
        _print([f"✘ {address}: refused, {why}" for address, why in fate.refused.items()])
        _print([f"✘ {address}: not now, {why}" for address, why in fate.later.items()])
    raise typer.Exit(1 if fate.refused or fate.later else 0)


@alerts_app.command("init")
def alerts_init(workspace: Workspace_ = None, as_json: Json_ = False) -> None:
    """Writes alerts.json with every rule at its default; an existing one is left as it is."""
    import os

    from core.notify.rules import default_document
    from core.workspace.atomic import write_whole
    from core.workspace.paths import Workspace

    file = Workspace.find(workspace, os.environ).alerts_file
    if file.exists():
        raise ConfigError(f"{file.name} is there already", remedy="edit it, or move it away first")
    write_whole(file, default_document())
    _print_answer({"file": str(file), "answer": f"{file} is written: edit it, then python -m core check"}, as_json)


@metrics_app.command("summary")
def metrics_summary(workspace: Workspace_ = None, as_json: Json_ = False) -> None:
    """Today, the last 7 days, topics, errors of the last 24 hours."""
    from core.app import App
    from core.cli.render import summary_lines

    with App.open(workspace) as opened:
        summary = opened.metrics.summary(_now(), opened.timezone)
    _print_json(summary) if as_json else _print(summary_lines(summary))


@metrics_app.command("rebuild")
def metrics_rebuild(workspace: Workspace_ = None, as_json: Json_ = False) -> None:
    """Makes metrics.duckdb again from the spool."""
    from core.app import App

    with App.open(workspace) as opened:
        made = opened.metrics.rebuild()
    if as_json:
        document = {"state": made.state, "segments": made.segments, "sends": made.sends}
        _print_json(document | {"set_aside": list(made.set_aside)})
    else:
        _print([f"✔ metrics.duckdb rebuilt: {made.sends:,} sends from {made.segments:,} segments"])
        _print([f"! {name} could not be read: it is in .pstt/spool/damaged" for name in made.set_aside])


def _run_and_report(opened: App, plan: Plan, *, as_json: bool, dry_run: bool = False) -> None:
    from core.cli.render import dry_run_lines, reject_reasons, run_document, run_lines

    run = _execute(opened, plan, as_json=as_json, dry_run=dry_run)
    if as_json:
        dry = {"dry_run": True, "reasons": reject_reasons(opened.dry_rejects)} if dry_run else {}
        _print_json(run_document(run) | dry)
    elif dry_run:
        _print(dry_run_lines(run, opened.dry_rejects))
    else:
        _print(run_lines(run, opened.rejects(run)))
    _exit_with(run)


def _execute(opened: App, plan: Plan, *, as_json: bool, dry_run: bool = False) -> Run:
    from core.cli.progress import showing
    from core.run.cancellation import stop_on_signals

    if not as_json:
        _print_heading(plan)
    with stop_on_signals() as stop, showing(plan, opened.expected_rows(plan), silent=as_json) as progress:
        return opened.execute(plan, stop=stop, progress=progress, now=_now, dry_run=dry_run)


def _of_run(run: Run) -> str:
    if run.of_run is None:
        return ""
    return f"   {'replay of' if run.kind == 'replay' else 'sent before by run'} {run.of_run}"


def _switch(job: str, workspace: Path | None, *, enabled: bool, as_json: bool) -> None:
    from core.app import App
    from core.scheduler.commands import switch

    word = "enabled" if enabled else "disabled"
    with App.open(workspace) as opened:
        found = opened.job(job)
        changed = switch(opened.workspace, opened.ledger, found.slug, enabled=enabled, who=_user(), now=_now())
    answer = f'job "{found.name}" is {word}' if changed else f'job "{found.name}" was {word} before'
    _print_answer({"job": found.slug, "enabled": enabled, "changed": changed, "answer": answer}, as_json)


def _print_answer(document: dict[str, Any], as_json: bool) -> None:
    _print_json(document) if as_json else _print([f"✔ {document['answer']}"])


def _day(option: str, text: str) -> date:
    from datetime import date

    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"{option} {text} is not a day", remedy="write it as 2026-01-17") from None


def _exit_with(run: Run) -> None:
    from core.model.verdict import exit_code

    raise typer.Exit(exit_code(run))


def _print_heading(plan: Plan) -> None:
    from core.formatting import heading

    _print([heading(plan.job.name, plan.scheduled_at, plan.job.timezone, plan.query.values.items())])


def _print(lines: list[str]) -> None:
    for line in lines:
        print(line)


def _print_json(document: Any) -> None:
    import json

    print(json.dumps(document, ensure_ascii=False, indent=2, default=str))


def _fail(error: PsttError, *, as_json: bool) -> int:
    from core.cli.render import error_document, error_lines

    if as_json:
        _print_json({"error": error_document(error)})
    else:
        for line in error_lines(error):
            print(line, file=sys.stderr)
    return error.exit_code


def _defect(error: Exception, *, as_json: bool) -> int:
    """Something that we did not foresee: one line for the user, the traceback for the log."""
    from loguru import logger

    logger.opt(exception=error).debug("unexpected error")
    text = f"unexpected {type(error).__name__}"
    return _fail(
        PsttError(
            text,
            remedy="this is a defect of PSTT Kafka: report it with the newest file in logs, at KAFKA_LOG_LEVEL=DEBUG",
        ),
        as_json=as_json,
    )


def _now() -> datetime:
    from datetime import UTC

    return datetime.now(UTC)


def _user() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a service account without a name
        return "unknown"


def _moment(text: str | None) -> datetime | None:
    """An ISO 8601 time; naive means the job's time zone, which the plan adds."""
    if text is None:
        return None
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(
            f"--at {text} is not a time", remedy="write it as 2026-01-17T02:00 or 2026-01-17T02:00:00+01:00"
        ) from None


def _pairs(params: list[str] | None) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for param in params or []:
        name, equals, value = param.partition("=")
        if not equals or not name:
            raise ConfigError(f"--param {param} is not NAME=VALUE", remedy="write --param DATA=2026-01-16")
        if pairs.setdefault(name.upper(), value) != value:
            raise ConfigError(
                f"--param {name} is given twice",
                why="the second value would replace the first",
                remedy=f"leave one out; several values of a parameter marked [list] are written {name}=A,B",
            )
    return pairs


def _binds(binds: Any) -> dict[str, Any] | list[Any]:
    return dict(binds) if hasattr(binds, "items") else list(binds)
