"""The command `watermark`: how far an incremental job has sent its rows, and where its next run begins."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from core.app import App
from core.cli.documents import watermark_document
from core.cli.options import JobArgument, JsonOption, WorkspaceOption, now
from core.cli.output import print_json, print_lines
from core.errors import ConfigError
from core.language import Data
from core.records.rights import local_caller
from core.scheduler.control import first_answer
from core.scheduler.watermarks import CANNOT_BE_SEEN, WatermarkReport, backfill_from, set_watermark, watermark_of

__all__ = ["app", "print_watermark"]

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def watermark(
    job: JobArgument,
    value: Annotated[
        str | None,
        typer.Option("--set", metavar="VALUE", help="The next run reads the rows after it: a number or a time."),
    ] = None,
    why: Annotated[str, typer.Option("--why", metavar="TEXT", help="The reason, for the audit trail.")] = "",
    run: Annotated[bool, typer.Option("--run", help="With --set: ask the runner for a run at once.")] = False,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Shows how far an incremental job has sent its rows; sets where its next run begins, to send rows again."""
    with App.open(workspace) as opened:
        found, asked = opened.job(job), None
        if value is None:
            if why or run:
                raise ConfigError("--why and --run go with --set", remedy="add --set VALUE")
            report = watermark_of(opened, found, now())
        elif run:
            made = backfill_from(opened, found, value, why=why, caller=local_caller(), now=now())
            report, asked = made.report, first_answer(opened, made.request_id, now)
        else:
            report = set_watermark(opened, found, value, why=why, caller=local_caller(), now=now())
    print_watermark(report, asked, as_json=as_json)


def print_watermark(report: WatermarkReport, asked: dict[str, Any] | None, *, as_json: bool) -> None:
    """Prints a watermark, and the answer to the request for a run if there was one."""
    if as_json:
        print_json(watermark_document(report) | ({"request": asked} if asked else {}))
    else:
        print_lines(_lines(report))
        if asked:
            print_lines([f"  run        {asked['answer']}"])


def _lines(report: WatermarkReport) -> Iterator[str]:
    """Yields the report as text."""
    incremental, known = report.incremental, report.known
    names = " and ".join(filter(None, (incremental.column, incremental.tie_column)))
    yield f"{Data(report.job.name)}: incremental by {Data(names)} ({incremental.kind})"
    if known is None:
        yield "  watermark  none yet: no run has sent a row"
    else:
        by = f"{Data(known.changed_by)}" + (f": {Data(known.why)}" if known.why else "")
        yield f"  watermark  {Data(known.cursor.text)}"
        yield f"  changed    {known.changed_at:%Y-%m-%d %H:%M:%S} UTC by {by}"
    begin = f"after {report.after.text}" if report.after else "from the first row"
    until = f", up to {report.until:%Y-%m-%d %H:%M:%S} UTC" if report.until else ""
    yield f"  next run   {begin}{until}"
    if report.problem:
        yield f"  ✘ {report.problem}"
    yield f"  {CANNOT_BE_SEEN}"
