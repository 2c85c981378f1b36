"""One fire, run in a process of its own: what `python -m core work FIRE` does for the runner.

A process, so that a driver that hangs can be killed and its memory goes back to the system. Whatever happens in it
ends as a verdict in the ledger, or leaves a run whose process is gone, which the runner sees.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from core.errors import ConfigError, LedgerBusy, PsttError
from core.records.scheduled_runs import ScheduledRun
from core.run.watchdog import broken_off
from core.sources import import_driver
from core.workspace.jobs import SUFFIX, parse_job

if TYPE_CHECKING:
    from core.app import App
    from core.model.job import Job
    from core.model.run import Plan
    from core.run.replay import ReplayTo
from core.scheduler.processes import BUSY

__all__ = ["warm_up", "work"]


def warm_up(app: App) -> None:
    """Reads what a run of this workspace will need of the program, so that it need not when its time has come."""
    from importlib import import_module

    names = [
        "run.pipeline",
        "kafka.sender",
        "run.watchdog",
        "records.metrics",
        "workspace.job_schema",
        "sql.query",
        "calendar.templates",
        "kafka.confluent",
    ]
    with suppress(PsttError):
        types = {app.connections.dialect(name).name for name in app.connections.database_names}
        for db_type in types:
            with suppress(ImportError):  # a driver that is not installed: the run that needs it reports that
                import_driver(db_type)
    for name in names:
        with suppress(ImportError):  # a driver that is not installed is told by the run that needs it
            import_module(f"core.{name}")
    for read in ("settings", "connections"):  # they may change until its time has come
        app.__dict__.pop(read, None)


def work(app: App, scheduled_run_id: int, now: Callable[[], datetime]) -> int:
    """Runs a planned fire to its verdict; the exit code of the process."""
    from core.run.cancellation import stop_on_signals

    scheduled_run = app.ledger.scheduled_runs.get(scheduled_run_id)
    if scheduled_run.state != "planned":
        return 0
    job: Job | None = None
    try:
        job = _job(app, scheduled_run)
        with stop_on_signals(broken_off("its process was told to end")) as stop:
            app.execute(_plan(app, scheduled_run, job, now), stop=stop, now=now)
    except LedgerBusy:
        return BUSY
    except PsttError as error:
        _conclude(app, scheduled_run, job, error, now())
    except Exception as error:  # noqa: BLE001 - a run must end in a verdict, whatever we did not foresee
        from loguru import logger

        logger.opt(exception=error).error("unexpected {} in a run of {}", type(error).__name__, scheduled_run.job)
        defect = PsttError(f"unexpected {type(error).__name__}", remedy="this is a defect of PSTT Kafka: report it")
        _conclude(app, scheduled_run, job, defect, now())
    return 0


def _job(app: App, scheduled_run: ScheduledRun) -> Job:
    """The job as the runner knew it when it started this process, not as an editor leaves it meanwhile."""
    version = app.ledger.job_versions.get(scheduled_run.job, scheduled_run.job_sha256)
    if version is None:
        raise ConfigError(f"the version of job {scheduled_run.job} that was to run is not in the ledger")
    return parse_job(app.workspace.queries_dir / f"{scheduled_run.job}{SUFFIX}", version.document)


def _plan(app: App, scheduled_run: ScheduledRun, job: Job, now: Callable[[], datetime]) -> Plan:
    if of_run := scheduled_run.args.get("of_run"):
        rejects_only = bool(scheduled_run.args.get("rejects_only"))
        to: ReplayTo = "job" if scheduled_run.args.get("to") == "job" else "run"
        plan: Plan = app.replay_plan(of_run, rejects_only=rejects_only, asked_by=scheduled_run.asked_by, job=job, to=to)
    else:
        params = scheduled_run.args.get("parameters") or {}
        plan = app.plan(job, now=now(), at=scheduled_run.scheduled_at, params=params, asked_by=scheduled_run.asked_by)
    return replace(plan, scheduled_run_id=scheduled_run.scheduled_run_id, job_sha256=scheduled_run.job_sha256)


def _conclude(app: App, scheduled_run: ScheduledRun, job: Job | None, error: PsttError, now: datetime) -> None:
    """Writes the verdict that the run itself could not write."""
    from core.model.job import Job

    known = app.ledger.scheduled_runs.get(scheduled_run.scheduled_run_id)
    if known.state == "running" and known.run_id:
        app.ledger.close_run(known.run_id, "failed", error, now)
    elif known.state == "planned":
        app.ledger.refuse(
            job or Job(scheduled_run.job, scheduled_run.job, "", ""),
            scheduled_run.scheduled_at,
            error,
            now,
            scheduled_run_id=scheduled_run.scheduled_run_id,
            job_sha256=scheduled_run.job_sha256,
            asked_by=scheduled_run.asked_by,
        )
