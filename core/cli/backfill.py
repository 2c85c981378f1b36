"""The commands `backfill …`: a range of days of one job is sent, several days at once, and followed to its end.

`backfill JOB --from DAY --to DAY` is short for `backfill start JOB …`, as the command was before it had others.
"""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from core.app import App
from core.cli.backfill_lines import backfill_lines, backfills_table
from core.cli.documents import backfill_document, backfill_report_document
from core.cli.options import JobArgument, JsonOption, WorkspaceOption, day_of, now
from core.cli.output import print_answer, print_json, print_lines
from core.cli.watermark import print_watermark
from core.errors import ConfigError
from core.language import Data
from core.records.backfills import BackfillOrder
from core.records.rights import local_caller
from core.scheduler.backfills import (
    BackfillOptions,
    cancel_backfill,
    pause_backfill,
    report,
    reports,
    resume_backfill,
    retry_backfill,
)
from core.scheduler.backfills import backfill as plan_days
from core.scheduler.control import first_answer, runner_note
from core.scheduler.watermarks import backfill_from

__all__ = ["app"]


class StartByDefault(TyperGroup):
    """Takes `backfill JOB …` for `backfill start JOB …`."""

    default_command = "start"

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Inserts `start` where the first word is no command of the group; a job may have the name of one."""
        is_command = bool(args) and args[0] in self.commands and not {"--from", "--to", "--from-value"} & set(args)
        if args and args[0] not in (*ctx.help_option_names, self.default_command) and not is_command:
            args = [self.default_command, *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    name="backfill",
    cls=StartByDefault,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="Plans a run for each scheduled time of a range of days: backfill JOB --from DAY --to DAY.",
)

NumberArgument = Annotated[int, typer.Argument(metavar="ID", help="The number of the backfill; backfill list has it.")]
ParallelOption = Annotated[
    int | None,
    typer.Option("--parallel", metavar="N", help="Most runs at once, up to PSTT_BACKFILL_WORKERS. Default: 1."),
]
OrderOption = Annotated[
    BackfillOrder | None, typer.Option("--order", help="Which scheduled time is first. Default: oldest.")
]


@app.command()
def start(
    job: JobArgument,
    first: Annotated[str | None, typer.Option("--from", metavar="DAY", help="First day: 2026-01-10.")] = None,
    last: Annotated[str | None, typer.Option("--to", metavar="DAY", help="Last day, included.")] = None,
    from_value: Annotated[
        str | None,
        typer.Option("--from-value", metavar="VALUE", help="Incremental job: all rows after it, in one run."),
    ] = None,
    why: Annotated[str, typer.Option("--why", metavar="TEXT", help="With --from-value: the reason, audited.")] = "",
    again: Annotated[bool, typer.Option("--again", help="Also times that have a succeeded run.")] = False,
    parallel: ParallelOption = None,
    order: OrderOption = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Plans a run for each scheduled time of a range of days; the runner executes them beside the scheduled runs.

    The days of an incremental job cannot be sent one by one: --from-value sends all its rows after a value again.
    """
    if from_value is not None:
        _refuse_days(first, last, again, parallel, order)
        with App.open(workspace) as opened:
            sent = backfill_from(opened, opened.job(job), from_value, why=why, caller=local_caller(), now=now())
            answer = first_answer(opened, sent.request_id, now)
        print_watermark(sent.report, answer, as_json=as_json)
        return
    if why:
        raise ConfigError("--why goes with --from-value", remedy="add --from-value VALUE")
    with App.open(workspace) as opened:
        found = opened.job(job)
        days = (_day("--from", first), _day("--to", last))
        options = BackfillOptions(
            1 if parallel is None else parallel, order or "oldest", again, opened.settings.PSTT_BACKFILL_WORKERS
        )
        made = plan_days(opened.ledger, found, *days, caller=local_caller(), now=now(), options=options)
        note = runner_note(opened, now())
    if as_json:
        print_json(backfill_document(found.slug, made))
    else:
        follow = [f"  next   python -m core backfill show {made.request_id}"] if made.scheduled_run_ids else []
        print_lines([f"{'✔' if made.scheduled_run_ids else '–'} {Data(found.name)}: {made.text}", *follow, *note])


def _refuse_days(*given: object) -> None:
    """Refuses what only a range of days has."""
    if any(one not in (None, False) for one in given):
        raise ConfigError(
            "--from-value sends all rows after a value in one run",
            why="--from, --to, --again, --parallel and --order are for ranges of days",
            remedy="leave them out",
        )


def _day(option: str, text: str | None) -> date:
    if text is None:
        raise ConfigError(
            f"a backfill needs {option}",
            remedy="add --from DAY --to DAY; an incremental job takes --from-value VALUE --why TEXT",
        )
    return day_of(option, text)


@app.command("list")
def list_(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many.")] = 20,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Lists the backfills that go on, and then the newest ones."""
    with App.open(workspace) as opened:
        found = reports(opened.ledger, limit)
    if as_json:
        print_json({"backfills": [backfill_report_document(one) for one in found]})
    else:
        print_lines(backfills_table(found))


@app.command()
def show(number: NumberArgument, workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Shows a backfill: how far it is, the time left, and which times have no success."""
    with App.open(workspace) as opened:
        found = report(opened.ledger, number)
        note = runner_note(opened, now()) if found.backfill.finished_at is None else []
    if as_json:
        print_json(backfill_report_document(found))
    else:
        print_lines([*backfill_lines(found), *note])


@app.command()
def pause(number: NumberArgument, workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Starts no further run of a backfill; those that run go on."""
    with App.open(workspace) as opened:
        answer = pause_backfill(opened.ledger, number, caller=local_caller(), now=now())
    print_answer({"backfill_id": number, "answer": answer}, as_json)


@app.command()
def resume(number: NumberArgument, workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Lets a paused backfill go on."""
    with App.open(workspace) as opened:
        answer = resume_backfill(opened.ledger, number, caller=local_caller(), now=now())
    print_answer({"backfill_id": number, "answer": answer}, as_json)


@app.command()
def cancel(number: NumberArgument, workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Runs nothing more of a backfill, and asks its runs in progress to end."""
    with App.open(workspace) as opened:
        answer = cancel_backfill(opened.ledger, number, caller=local_caller(), now=now())
    print_answer({"backfill_id": number, "answer": answer}, as_json)


@app.command()
def retry(
    number: NumberArgument,
    parallel: ParallelOption = None,
    order: OrderOption = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Plans the times of an ended backfill that have no success, as a new backfill."""
    with App.open(workspace) as opened:
        made = _retry(opened, number, parallel, order)
        job = opened.ledger.backfills.get(number).job
    if as_json:
        print_json(backfill_document(job, made))
    else:
        print_lines(
            [f"{'✔' if made.scheduled_run_ids else '–'} backfill {made.request_id} of {Data(job)}: {made.text}"]
        )


def _retry(opened: App, number: int, parallel: int | None, order: BackfillOrder | None) -> Any:
    earlier = opened.ledger.backfills.get(number)
    options = BackfillOptions(
        earlier.parallel if parallel is None else parallel,
        order or earlier.run_order,
        most_parallel=opened.settings.PSTT_BACKFILL_WORKERS,
    )
    job = opened.job(earlier.job)
    return retry_backfill(opened.ledger, number, job, caller=local_caller(), now=now(), options=options)
