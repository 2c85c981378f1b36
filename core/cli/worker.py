"""Executes one scheduled run in a process of its own: what `python -m core work ID` does for the runner.

It is a process so that a driver that hangs can be killed and its memory goes back to the system. Every end of it is
either a verdict in the ledger, or a run whose process is gone, which the runner detects.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import Annotated

import typer
from loguru import logger

from core.app import App
from core.cli.options import WorkspaceOption, now
from core.errors import ConfigError, LedgerBusy, PsttError
from core.kafka import import_client
from core.model.job import Job
from core.model.run import Plan
from core.records.scheduled_runs import ScheduledRun
from core.run.cancellation import stop_on_signals
from core.run.replay import ReplayDestination, replay_plan
from core.run.watchdog import broken_off
from core.scheduler.processes import BUSY
from core.sources import import_driver
from core.sources.session import is_left_behind
from core.workspace.jobs import SUFFIX, parse_job

__all__ = ["app", "execute_many", "execute_scheduled_run", "warm_up"]

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(hidden=True)
def work(
    scheduled_run: Annotated[int | None, typer.Argument(help="The id of the planned run.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Import what a run needs, then read the id from stdin.")] = False,
    many: Annotated[bool, typer.Option("--many", help="Execute the runs whose ids come at stdin.")] = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Executes one planned run in a process of its own; the runner starts it."""
    with App.open(workspace) as opened:
        if many:
            execute_many(opened)
            raise typer.Exit(0)
        if wait:
            warm_up(opened)
            assigned = sys.stdin.readline().strip()
            scheduled_run = int(assigned) if assigned else None
        raise typer.Exit(0 if scheduled_run is None else execute_scheduled_run(opened, scheduled_run, now))


def warm_up(opened: App) -> None:
    """Imports the libraries that a run of this workspace needs, so that an idle worker starts its run at once."""
    # Slow libraries (pyarrow, numpy): 0.1 s that the commands without a run do not pay. Not duckdb: the runner copies
    # the sends.
    import core.run.execute  # noqa: F401

    with suppress(PsttError):
        for client in opened.connections.kafka_clients(opened.settings):
            with suppress(ImportError):  # a client that is not installed: the run that needs it reports that
                import_client(client)
        for db_type in {opened.connections.dialect(name).name for name in opened.connections.database_names}:
            with suppress(ImportError):  # a driver that is not installed: the run that needs it reports that
                import_driver(db_type)
    for name in ("settings", "connections"):  # the files may change before the run begins
        opened.__dict__.pop(name, None)


def execute_many(opened: App) -> None:
    """Executes the planned runs whose ids come at stdin, and reports the end of each at stdout.

    Each run reads settings, connections and ledger anew. An error that is no verdict ends the process, as for one run.
    """
    for line in iter(sys.stdin.readline, ""):
        with opened.reopened() as own:
            code = execute_scheduled_run(own, int(line), now)
        print(f"ended {int(line)} {code}", flush=True)
        if is_left_behind():  # a call of a driver has not returned: it is not to disturb the next run
            return


def execute_scheduled_run(opened: App, scheduled_run_id: int, now: Callable[[], datetime]) -> int:
    """Executes a planned run to its verdict and returns the exit code of the process."""
    from core.run.execute import execute  # loads pyarrow

    scheduled_run = opened.ledger.scheduled_runs.get(scheduled_run_id)
    if scheduled_run.state != "planned":
        return 0
    job: Job | None = None
    try:
        job = _job(opened, scheduled_run)
        with stop_on_signals(broken_off("its process was told to end")) as stop:
            execute(opened, _plan(opened, scheduled_run, job, now), stop=stop, now=now)
    except LedgerBusy:
        return BUSY
    except PsttError as error:
        _conclude(opened, scheduled_run, job, error, now())
    except Exception as error:  # noqa: BLE001 - a run must end in a verdict, also after an unexpected error
        logger.opt(exception=error).error("unexpected {} in a run of {}", type(error).__name__, scheduled_run.job)
        defect = PsttError(f"unexpected {type(error).__name__}", remedy="this is a defect of PSTT Kafka: report it")
        _conclude(opened, scheduled_run, job, defect, now())
    return 0


def _job(opened: App, scheduled_run: ScheduledRun) -> Job:
    """Returns the version of the job that the runner planned; its file may have been edited since."""
    version = opened.ledger.job_versions.get(scheduled_run.job, scheduled_run.job_sha256)
    if version is None:
        raise ConfigError(f"the version of job {scheduled_run.job} that was to run is not in the ledger")
    return parse_job(opened.workspace.queries_dir / f"{scheduled_run.job}{SUFFIX}", version.document)


def _plan(opened: App, scheduled_run: ScheduledRun, job: Job, now: Callable[[], datetime]) -> Plan:
    if of_run := scheduled_run.args.get("of_run"):
        rejects_only = bool(scheduled_run.args.get("rejects_only"))
        to: ReplayDestination = "job" if scheduled_run.args.get("to") == "job" else "run"
        keys = scheduled_run.args.get("keys") or []
        plan = replay_plan(
            opened, of_run, rejects_only=rejects_only, keys=keys, asked_by=scheduled_run.asked_by, job=job, to=to
        )
    else:
        params = scheduled_run.args.get("parameters") or {}
        plan = opened.plan(
            job, now=now(), at=scheduled_run.scheduled_at, params=params, asked_by=scheduled_run.asked_by
        )
    return replace(
        plan,
        scheduled_run_id=scheduled_run.scheduled_run_id,
        job_sha256=scheduled_run.job_sha256,
        is_backfill=scheduled_run.kind == "backfill",
    )


def _conclude(opened: App, scheduled_run: ScheduledRun, job: Job | None, error: PsttError, now: datetime) -> None:
    """Writes the verdict that the run itself could not write."""
    known = opened.ledger.scheduled_runs.get(scheduled_run.scheduled_run_id)
    if known.state == "running" and known.run_id:
        opened.ledger.close_run(known.run_id, "failed", error, now)
    elif known.state == "planned":
        opened.ledger.refuse(
            job or Job(scheduled_run.job, scheduled_run.job, "", ""),
            scheduled_run.scheduled_at,
            error,
            now,
            scheduled_run_id=scheduled_run.scheduled_run_id,
            job_sha256=scheduled_run.job_sha256,
            asked_by=scheduled_run.asked_by,
        )
