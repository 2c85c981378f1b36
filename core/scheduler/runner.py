"""The runner: one process a workspace that turns calendars and requests into runs, and follows each to its verdict.

It reads no database and sends nothing: each run is a process (`core.cli.worker`), so a driver that hangs can be killed and
the runner stays small. `schedule` gives the tick of a second; the guard is inside its job, since `schedule` drops the
rest of its jobs when one raises. It compares local wall-clock times, so when the clock is set back it would wait until
that time comes again: its job is then registered anew.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol

import psutil
import schedule
from loguru import logger

from core.errors import ConfigError, PsttError
from core.records.ledger import Ledger
from core.records.runner_status import BEAT_EVERY_S, RunnerStatus
from core.scheduler.backfill_queue import close_ended, resume_after_outage
from core.scheduler.job_registry import JobRegistry, RegisteredJob
from core.scheduler.kept_files import KeptFiles
from core.scheduler.planner import Planner
from core.scheduler.request_handler import RequestHandler
from core.scheduler.run_supervisor import RunSupervisor
from core.workspace.identity import identity_problem

if TYPE_CHECKING:
    from core.model.job import Job
    from core.run.cancellation import Stop
    from core.scheduler.dry_runs import DryRuns
    from core.scheduler.metrics_copies import MetricsCopies
    from core.scheduler.processes import Workers
    from core.workspace.paths import Workspace
    from core.workspace.settings import Settings

__all__ = ["BackgroundTask", "Runner"]

POLL_EVERY_S = 0.25
"""How soon a request, or the end of a run, is seen."""
READY_BEFORE_S = 3.0
"""How long before a scheduled time its process is started: it loads the program meanwhile."""
READY_FOR_S = 30.0
NO_DAY_BEFORE_S = 2.0
"""No day of a backfill is started when a scheduled time is so near: short ones have ended by then."""
QUIET_BEFORE_S = 10.0
"""Sends are not copied when a scheduled time is so near: a million take 2.5 s of a processor."""


class BackgroundTask(Protocol):
    """Something that the runner does beside the runs, in a thread of its own: broker health, alerts, mail."""

    def start(self) -> None:
        """Starts the thread."""
        ...

    def stop(self) -> None:
        """Ends the thread, within a few seconds."""
        ...


class Runner:
    """Everything between the calendar and the verdicts of one workspace.

    Args:
        workspace: The workspace.
        settings: Its settings, read once: a change needs a restart.
        ledger: Holds scheduled runs, requests, the heartbeat and runs.
        workers: Starts the processes of scheduled runs.
        dry_runs: Starts the processes of dry runs.
        copies: Starts the processes that copy sends into metrics.duckdb.
        now: The clock, aware UTC.
        version: Of the program, for the heartbeat.
        note: A problem known at the start, such as a log folder that cannot be written.
        monotonic: Seconds that only go forward.
    """

    def __init__(
        self,
        workspace: Workspace,
        settings: Settings,
        ledger: Ledger,
        workers: Workers,
        *,
        dry_runs: DryRuns,
        copies: MetricsCopies,
        now: Callable[[], datetime],
        version: str = "",
        note: str = "",
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.registry = JobRegistry(workspace.queries_dir, ledger, now)
        self.planner = Planner(
            ledger,
            grace_s=settings.PSTT_GRACE_S,
            longest_gap=timedelta(days=settings.PSTT_MAX_CATCH_UP_DAYS),
        )
        self.requests = RequestHandler(workspace, ledger, self.registry, dry_runs)
        self.supervisor = RunSupervisor(settings, ledger, workers, self.registry, monotonic)
        self.background_tasks: Sequence[BackgroundTask] = ()
        self._workspace = workspace
        self._settings = settings
        self._ledger = ledger
        self._workers = workers
        self._dry_runs = dry_runs
        self._copies = copies
        self._now = now
        self._version = version
        self._note = note
        self._monotonic = monotonic
        self._changes: dict[str, RegisteredJob | None] = {}
        """Edits that the planner has not taken yet."""
        self._heartbeat_s: float | None = None
        self._ready_until_s: float | None = None
        self._started_at = now()
        self._logged: set[str] = set()
        self._kept_files = KeptFiles(workspace, ledger, monotonic)

    def run(self, stop: Stop, *, accept_clock: bool = False) -> None:
        """Works until it is asked to stop, then waits for what runs.

        Raises:
            ConfigError: The clock is far behind what was seen before.
        """
        self.begin(accept_clock=accept_clock)
        for task in self.background_tasks:
            task.start()
        at_once = False
        try:
            self._work(stop)
        except KeyboardInterrupt:  # the second Ctrl-C
            at_once = True
        finally:
            self.end(at_once=at_once)
            for task in self.background_tasks:
                task.stop()

    def jobs(self) -> list[Job]:
        """Returns every job as it is known now; may be called from another thread."""
        return [entry.job for entry in list(self.registry.entries.values())]

    def begin(self, *, accept_clock: bool = False) -> None:
        """Continues where the last runner ended: runs of dead processes, planned runs, missed times."""
        now = self._now()
        self.requests.drop_stops(now)
        before = self._ledger.heartbeats.newest()
        if before is None or before.beat_at <= now:  # else the clock has to be checked first
            self._write_heartbeat(now)
        gone_host = before.host if before and before.host != platform.node() and not before.is_alive(now) else ""
        for run in self._ledger.mark_interrupted(now, gone_host):
            logger.warning("run {} of {} was left by a process that is gone", run.run_id, run.job)
        self._dry_runs.open(now)
        self.registry.refresh()
        jobs = {slug: entry.job for slug, entry in self.registry.entries.items()}
        self.planner.open(jobs, now, before.beat_at if before else None, accept_clock=accept_clock)
        self._ledger.backfills.measure_from(now)
        self._write_heartbeat(now)
        logger.info("runner started: {} jobs, {} workers", len(jobs), self._settings.PSTT_WORKERS)
        self._log_problems()

    def _work(self, stop: Stop) -> None:
        ticks = schedule.Scheduler()
        ticks.every(1).seconds.do(self.guarded_tick)
        self.guarded_tick()
        while not stop.is_set() and not self.requests.is_stop_requested:
            if self._has_work():
                self.guarded_tick()
            ticks.run_pending()
            if (ticks.idle_seconds or 0) > 1:
                ticks.clear()
                ticks.every(1).seconds.do(self.guarded_tick)
            self._prepare_workers()
            stop.wait(self._pause_s())

    def _has_work(self) -> bool:
        """Returns whether something has to be done before the next tick.

        A scheduled time has come, a process has ended, or another process wrote into the ledger.
        """
        at = self.planner.next_scheduled_at()
        if at is not None and at <= self._now():
            return True
        with suppress(PsttError):
            return self._ledger.was_written_elsewhere() or self.supervisor.active.has_ended_process()
        return False

    def _prepare_workers(self) -> None:
        """Starts spare processes shortly before a scheduled time, and ends them when none has come for a while."""
        at, now = self.planner.next_scheduled_at(), self._now()
        soon = timedelta(seconds=READY_BEFORE_S)
        if at is not None and at - now <= soon:
            self._ready_until_s = self._monotonic() + READY_FOR_S
            free = max(self.supervisor.free_workers, 0)
            with suppress(OSError):  # without memory for it the run only starts later
                self._workers.warm(min(self.planner.count_until(now + soon), free))
        elif self._ready_until_s is not None and self._monotonic() > self._ready_until_s:
            self._ready_until_s = None
            self._workers.cool()

    def _pause_s(self) -> float:
        """Returns the seconds until the next poll; less where a scheduled time comes before it."""
        at = self.planner.next_scheduled_at()
        wait_s = (at - self._now()).total_seconds() if at else POLL_EVERY_S
        return min(wait_s, POLL_EVERY_S) if wait_s > 0 else POLL_EVERY_S

    def end(self, *, at_once: bool = False) -> None:
        """Asks what runs to end, waits for the batch in flight, and kills what does not end; the ledger says which.

        Sends that wait are copied in what is left of PSTT_STOP_TIMEOUT_S.
        """
        ends_s = self._monotonic() + self._settings.PSTT_STOP_TIMEOUT_S
        self._workers.cool()
        with suppress(PsttError):
            self._write_heartbeat(self._now(), state="stopping")
        with suppress(PsttError):
            self._dry_runs.end(self._now())

        def beat() -> None:
            with suppress(PsttError):
                self._write_heartbeat_if_due(self._now(), "stopping")

        has_time = self.supervisor.end_all(self._now, beat, at_once=at_once)
        self._workers.release_days()
        with suppress(PsttError):
            self._copies.end(ends_s - self._monotonic() if has_time else 0, beat)
        with suppress(PsttError):
            self._write_heartbeat(self._now(), state="stopped")
        logger.info("runner stopped")

    def guarded_tick(self) -> None:
        """Does one tick. No failure ends the runner or the other steps; each is logged once, not each second."""
        now, failures = self._now(), set()
        for step in self._steps():
            try:
                step(now)
            except PsttError as error:
                failures.add(error.text)
            except Exception as error:  # noqa: BLE001 - the guard: one bad job or a full disk must not end all others
                failures.add(f"unexpected {type(error).__name__} in the runner: {error}")
                logger.opt(exception=error).debug("unexpected error")
        for text in failures:
            self._log_once(text)
        self._logged &= failures | {_problem_text(problem) for problem in self.problems()}  # logged again if it returns

    def tick(self) -> None:
        """Does every step once. Costs some 2 ms with 500 jobs of which none is due."""
        now = self._now()
        for step in self._steps():
            step(now)

    def _steps(self) -> tuple[Callable[[datetime], object], ...]:
        return (
            self.supervisor.settle_ended,
            self._dry_runs.settle,
            self._take_changes,
            self._kept_files.keep_connections,
            self._kept_files.keep_queries,
            self.requests.handle_waiting,
            self._plan,
            self._start_planned,
            self._close_backfills,
            self._kill_overdue,
            self._copy_sends,
            self._report,
        )

    def _start_planned(self, now: datetime) -> None:
        at = self.planner.next_scheduled_at()
        is_due_soon = at is not None and at - now < timedelta(seconds=NO_DAY_BEFORE_S)
        self.supervisor.start_planned(now, is_due_soon=is_due_soon)

    def _close_backfills(self, now: datetime) -> None:
        close_ended(self._ledger, now)
        resume_after_outage(self._ledger, self._settings, now)

    def _kill_overdue(self, now: datetime) -> None:
        for text in self.supervisor.kill_overdue(now):
            self._log_once(text)

    def _copy_sends(self, now: datetime) -> None:
        at = self.planner.next_scheduled_at()
        is_soon = at is not None and at - now < timedelta(seconds=QUIET_BEFORE_S)
        self._copies.tick(is_quiet=self.supervisor.active.is_idle and not is_soon)

    def _report(self, now: datetime) -> None:
        self._log_problems()
        if self._write_heartbeat_if_due(now):
            self._ledger.requests.close_ended(now)

    def _plan(self, now: datetime) -> None:
        with suppress(ConfigError):  # the clock is wrong, as `problems` says; requests are carried out all the same
            self.planner.tick(now)

    def _take_changes(self, now: datetime) -> None:
        self._changes |= self.registry.refresh()
        for slug, entry in list(self._changes.items()):
            try:
                self.planner.change(slug, entry.job if entry else None, now)
            except ConfigError:  # a wrong clock, as `problems` says; the change waits for the right one
                continue
            if entry is None:
                self._ledger.scheduled_runs.skip_planned(slug, "its job file was deleted", now)
            elif not entry.job.enabled:
                self._ledger.scheduled_runs.skip_planned(slug, "its job was disabled", now, calendar_only=True)
            del self._changes[slug]
            logger.info("job {} {}", slug, "has gone" if entry is None else f"is now version {entry.sha256[:10]}")

    def _log_problems(self) -> None:
        for problem in self.problems():
            self._log_once(_problem_text(problem))

    def _write_heartbeat(self, now: datetime, state: Any = "working") -> None:
        process = psutil.Process()
        used = process.memory_info().rss
        self._ledger.heartbeats.write(
            RunnerStatus(
                host=platform.node(),
                pid=os.getpid(),
                pid_started_at=process.create_time(),
                started_at=self._started_at,
                beat_at=now,
                version=self._version,
                memory_bytes=used,
                memory_share=used / psutil.virtual_memory().total,
                state=state,
                jobs_loaded=len(self.registry.entries),
                problems=tuple(self.problems()),
            )
        )
        self._heartbeat_s = self._monotonic()

    def _write_heartbeat_if_due(self, now: datetime, state: Any = "working") -> bool:
        due = self._heartbeat_s is None or self._monotonic() - self._heartbeat_s >= BEAT_EVERY_S
        if due:
            self._write_heartbeat(now, state)
        return due

    def problems(self) -> list[dict[str, str]]:
        """Returns what the operator should fix, and what is used meanwhile."""
        found = list(self.registry.problems.values())
        if self.planner.problem:
            found.append({"where": "clock", "text": self.planner.problem, "instead": "requests are done all the same"})
        if question := identity_problem(self._workspace):
            text, instead = str(question), "runs of exactly_once fail; the others go on"
            found.append({"where": "identity", "text": text, "instead": instead})
        if self._note:
            found.append({"where": "logs", "text": self._note, "instead": "warnings go to the terminal only"})
        return found

    def _log_once(self, text: str) -> None:
        """Logs an error once; a problem that stays is not logged each second."""
        if text not in self._logged:
            self._logged.add(text)
            logger.error("{}", text)


def _problem_text(problem: Mapping[str, str]) -> str:
    return f"{problem['where']}: {problem['text']}; {problem['instead']}"
