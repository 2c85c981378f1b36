"""The runner: one process a workspace that turns calendars and requests into runs, and sees each to its verdict.

It reads no database and sends nothing: each run is a process (`core.cli.worker`), so a driver that hangs can be killed and
the runner stays small. `schedule` gives the tick of a second; the guard is inside its job, since `schedule` drops the
rest of its jobs when one raises. It compares local wall-clock times, so when the clock is set back it would wait until
that time comes again: it is then begun anew.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol, get_args

from core.calendar.cron import previous_scheduled_time
from core.errors import ConfigError, PsttError, RunCancelled, RunnerBusy, StorageFailed
from core.records.ledger import Ledger
from core.records.requests import Request
from core.records.runner_status import BEAT_EVERY_S, RunnerStatus
from core.records.scheduled_runs import ScheduledRun
from core.run.replay import ReplayTo
from core.run.watchdog import RUNNER_STOPS, broken_off, timed_out
from core.scheduler.commands import backfill, cancel, cancel_job, require_unsent, switch
from core.scheduler.dry_runs import DryRuns
from core.scheduler.job_registry import JobRegistry, RegisteredJob
from core.scheduler.planner import Planner
from core.scheduler.processes import BUSY, kill_process
from core.workspace.identity import doubt
from core.workspace.locks import locked
from core.workspace.process import is_running

if TYPE_CHECKING:
    from core.model.job import Job
    from core.model.run import Run
    from core.run.cancellation import Stop
    from core.scheduler.processes import Worker, Workers
    from core.workspace.paths import Workspace
    from core.workspace.settings import Settings

__all__ = ["BackgroundTask", "Runner", "alone"]

LOOK_EVERY_S = 0.25
"""How soon a request, or the end of a run, is seen."""
KILL_AFTER_S = 10.0
"""What a process gets beyond PSTT_STOP_TIMEOUT_S to write its verdict."""
READY_BEFORE_S = 3.0
"""How long before a fire its process is begun: it reads the program meanwhile."""
READY_FOR_S = 30.0
WAIT_FOR_BUSY_S = 5.0
MOST_INTERRUPTIONS = 10
"""A run that takes its process down each time is not begun for ever."""
LONGEST_WAIT_S = 3600.0


class BackgroundTask(Protocol):
    """Something that goes on beside the runs, in a thread of its own: looks at brokers, mail."""

    def start(self) -> None:
        """Begins."""
        ...

    def stop(self) -> None:
        """Ends, within a few seconds."""
        ...


@dataclass(slots=True)
class _Active:
    """A fire that is on its way."""

    scheduled_run_id: int
    job: Job | None
    worker: Worker | None
    """None: the process of an earlier runner, which goes on."""
    started_s: float
    """On the monotonic clock."""
    is_killed: bool = False


@contextmanager
def alone(workspace: Workspace, ledger: Ledger) -> Iterator[None]:
    """One runner a workspace.

    Raises:
        RunnerBusy: There is one; says which process, where, since when.
        StorageFailed: The lock cannot be written.
    """

    def busy() -> RunnerBusy:
        return RunnerBusy(
            f"a runner works in {workspace.root} already",
            why=_who(ledger),
            remedy="python -m core runner --stop ends it; one runner does the work of all jobs",
        )

    with locked(workspace.state_dir / "runner.lock", busy):
        yield


def _who(ledger: Ledger) -> str:
    """Who holds the lock; one that has just got it has yet to say so."""
    for _ in range(50):
        beat = ledger.heartbeats.newest()
        if beat is not None and beat.state != "stopped" and (beat.host != platform.node() or _lives(beat)):
            return f"pid {beat.pid} on {beat.host}, since {beat.started_at:%Y-%m-%d %H:%M:%S} UTC"
        time.sleep(0.1)
    return "it does not say which process it is"


def _lives(beat: RunnerStatus) -> bool:
    return is_running(beat.pid, beat.pid_started_at)


class Runner:
    """Everything between the calendar and the verdicts of one workspace.

    Args:
        workspace: The workspace.
        settings: Its settings; read once, a change wants a restart.
        ledger: Scheduled runs, requests and runs.
        workers: Starts fires.
        dry_runs: What is tried without sending.
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
        now: Callable[[], datetime],
        version: str = "",
        note: str = "",
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.roster = JobRegistry(workspace.queries_dir, ledger, now)
        self.planner = Planner(
            ledger,
            grace_s=settings.PSTT_GRACE_S,
            longest_gap=timedelta(days=settings.PSTT_MAX_CATCH_UP_DAYS),
        )
        self.chores: Sequence[BackgroundTask] = ()
        """What goes on beside."""
        self.asked_to_stop = False
        """Somebody asked through the ledger."""
        self._workspace = workspace
        self._settings = settings
        self._ledger = ledger
        self._workers = workers
        self._dry_runs = dry_runs
        self._now = now
        self._version = version
        self._note = note
        self._monotonic = monotonic
        self._patience_s = settings.PSTT_STOP_TIMEOUT_S + KILL_AFTER_S
        self._active: dict[str, _Active] = {}
        """Slug → what runs; one job never beside itself."""
        self._changes: dict[str, RegisteredJob | None] = {}
        """Edits that the planner has yet to take."""
        self._beat_s: float | None = None
        self._ready_until_s: float | None = None
        self._started_at = now()
        self._said: set[str] = set()
        self._connections_stamp: tuple[int, int] | None = None

    def run(self, stop: Stop, *, accept_clock: bool = False) -> None:
        """Works until it is asked to stop, then sees to the end of what runs.

        Raises:
            ConfigError: The clock is far behind what was seen before.
        """
        self.begin(accept_clock=accept_clock)
        for chore in self.chores:
            chore.start()
        at_once = False
        try:
            self._work(stop)
        except KeyboardInterrupt:  # the second Ctrl-C
            at_once = True
        finally:
            self.end(at_once=at_once)
            for chore in self.chores:
                chore.stop()

    def jobs(self) -> list[Job]:
        """Every job as it is known now; may be called from another thread."""
        return [entry.job for entry in list(self.roster.entries.values())]

    def begin(self, *, accept_clock: bool = False) -> None:
        """Takes up where the last runner ended: runs of dead processes, planned fires, missed times."""
        now = self._now()
        before = self._ledger.heartbeats.newest()
        if before is None or before.beat_at <= now:  # else the clock is looked at first
            self._beat(now)
        gone_host = before.host if before and before.host != platform.node() and not before.is_alive(now) else ""
        interrupted = self._ledger.mark_interrupted(now, gone_host)
        for run in interrupted:
            _log().warning("run {} of {} was left by a process that is gone", run.run_id, run.job)
        self._dry_runs.open(now)
        self.roster.refresh()
        jobs = {slug: entry.job for slug, entry in self.roster.entries.items()}
        self.planner.open(jobs, now, before.beat_at if before else None, accept_clock=accept_clock)
        for scheduled_run in self._ledger.scheduled_runs.running():
            self._active[scheduled_run.job] = _Active(
                scheduled_run.scheduled_run_id, self._job(scheduled_run.job), None, self._monotonic()
            )
        self._beat(now)
        _log().info("runner started: {} jobs, {} workers", len(jobs), self._settings.PSTT_WORKERS)
        self._tell()

    def _work(self, stop: Stop) -> None:
        import schedule

        ticks = schedule.Scheduler()
        ticks.every(1).seconds.do(self.guarded_tick)
        self.guarded_tick()
        while not stop.is_set() and not self.asked_to_stop:
            if self._is_called():
                self.guarded_tick()
            ticks.run_pending()
            if (ticks.idle_seconds or 0) > 1:
                ticks.clear()
                ticks.every(1).seconds.do(self.guarded_tick)
            self._make_ready()
            stop.wait(self._pause_s())

    def _is_called(self) -> bool:
        """Whether there is something to do before the next tick: a fire, or a process that ended or wrote into the ledger."""
        at = self.planner.next_scheduled_at()
        if at is not None and at <= self._now():
            return True
        with suppress(PsttError):
            return self._ledger.was_written_elsewhere() or any(
                active.worker is not None and active.worker.poll() is not None for active in self._active.values()
            )
        return False

    def _make_ready(self) -> None:
        """Has processes ready when fires come soon, and none when none has come for a while."""
        at, now = self.planner.next_scheduled_at(), self._now()
        soon = timedelta(seconds=READY_BEFORE_S)
        if at is not None and at - now <= soon:
            free = self._settings.PSTT_WORKERS - len(self._active)
            self._ready_until_s = self._monotonic() + READY_FOR_S
            with suppress(OSError):  # without memory for it the fire is only later
                self._workers.warm(min(self.planner.count_until(now + soon), max(free, 0)))
        elif self._ready_until_s is not None and self._monotonic() > self._ready_until_s:
            self._ready_until_s = None
            self._workers.cool()

    def _pause_s(self) -> float:
        """Until the next look; less where a fire comes before it."""
        at = self.planner.next_scheduled_at()
        wait_s = (at - self._now()).total_seconds() if at else LOOK_EVERY_S
        return min(wait_s, LOOK_EVERY_S) if wait_s > 0 else LOOK_EVERY_S

    def end(self, *, at_once: bool = False) -> None:
        """Asks what runs to end, waits for the batch in hand, kills what does not end; the ledger says what was."""
        deadline = self._monotonic() + (0 if at_once else self._patience_s)
        self._workers.cool()
        with suppress(PsttError):
            self._beat(self._now(), state="stopping")
        with suppress(PsttError):
            self._dry_runs.end(self._now())
        try:
            while self._children() and self._monotonic() < deadline:
                with suppress(PsttError):
                    self._ask_to_end()
                    self._settle_ended(self._now())
                    self._beat_if_due(self._now(), "stopping")
                time.sleep(LOOK_EVERY_S / 5)
        except KeyboardInterrupt:  # the second Ctrl-C
            _log().warning("the runner is told to end at once")
        self._kill_all()
        with suppress(PsttError):
            self._beat(self._now(), state="stopped")
        _log().info("runner stopped")

    def _children(self) -> list[_Active]:
        return [active for active in self._active.values() if active.worker is not None]

    def _ask_to_end(self) -> None:
        for active in self._children():
            scheduled_run = self._ledger.scheduled_runs.get(active.scheduled_run_id)
            if scheduled_run.state == "running" and scheduled_run.run_id:
                self._ledger.ask_to_end(scheduled_run.run_id, RUNNER_STOPS, self._now())

    def _kill_all(self) -> None:
        for active in self._children():
            if active.worker is not None:
                active.is_killed = True
                active.worker.kill()
        ends_s = self._monotonic() + KILL_AFTER_S
        while self._children() and self._monotonic() < ends_s:
            with suppress(PsttError):
                self._settle_ended(self._now())
            time.sleep(LOOK_EVERY_S / 5)

    def guarded_tick(self) -> None:
        """One tick, of which no failure ends the runner, nor the other steps; each is told once, not each second."""
        now, failures = self._now(), set()
        for step in self._steps():
            try:
                step(now)
            except PsttError as error:
                failures.add(error.text)
            except Exception as error:  # noqa: BLE001 - the guard: one bad job or a full disk must not end all others
                failures.add(f"unexpected {type(error).__name__} in the runner: {error}")
                _log().opt(exception=error).debug("unexpected error")
        for text in failures:
            self._say("error", text)
        self._said &= failures | self._standing()  # what comes back later is said again

    def tick(self) -> None:
        """Looks at everything once. Costs some 2 ms with 500 jobs of which none is due."""
        now = self._now()
        for step in self._steps():
            step(now)

    def _steps(self) -> tuple[Callable[[datetime], object], ...]:
        return (
            self._settle_ended,
            self._dry_runs.settle,
            self._take_changes,
            self._keep_connections,
            self._take_requests,
            self._plan,
            self._start_planned,
            self._end_overdue,
            self._tell_state,
        )

    def _tell_state(self, now: datetime) -> None:
        self._tell()
        if self._beat_if_due(now):
            self._ledger.requests.close_ended(now)

    def _plan(self, now: datetime) -> None:
        try:
            self.planner.tick(now)
        except ConfigError:
            pass  # the clock is wrong: said by `problem`; what was asked for runs all the same

    def _keep_connections(self, now: datetime) -> None:
        """Keeps what an editor or a copy made of connections.json among its versions, as the roster does with jobs."""
        from core.records.connections_versions import keep_connections
        from core.workspace.stored_file import read_stored

        try:
            facts = self._workspace.connections_file.stat()
        except OSError:
            return
        stamp = (facts.st_mtime_ns, facts.st_size)
        if stamp != self._connections_stamp:
            keep_connections(
                self._workspace,
                self._ledger.connections_versions,
                read_stored(self._workspace.connections_file).text,
                now,
            )
            self._connections_stamp = stamp

    def _take_changes(self, now: datetime) -> None:
        self._changes |= self.roster.refresh()
        for slug, entry in list(self._changes.items()):
            try:
                self.planner.change(slug, entry.job if entry else None, now)
            except ConfigError:  # a wrong clock, which `_plan` tells; the change waits for the right one
                continue
            if entry is None:
                self._ledger.scheduled_runs.skip_planned(slug, "its job file was deleted", now)
            elif not entry.job.enabled:
                self._ledger.scheduled_runs.skip_planned(slug, "its job was disabled", now, calendar_only=True)
            del self._changes[slug]
            _log().info("job {} {}", slug, "has gone" if entry is None else f"is now version {entry.sha256[:10]}")

    def _tell(self) -> None:
        for problem in self.problems():
            self._say("error", _problem_text(problem))

    def _standing(self) -> set[str]:
        return {_problem_text(problem) for problem in self.problems()}

    def _start_planned(self, now: datetime) -> None:
        free = self._settings.PSTT_WORKERS - len(self._active)
        if free <= 0:
            return
        for scheduled_run in self._ledger.scheduled_runs.startable(now):
            if scheduled_run.job in self._active:
                continue
            entry = self.roster.entries.get(scheduled_run.job)
            if entry is None:
                self._skip(scheduled_run, "there is no such job, or its file is wrong and was never right", now)
                continue
            # A person may have run it for this time already; the calendar does not send it a second time.
            if scheduled_run.kind in ("calendar", "catch_up") and (
                sent := self._ledger.sent_before(scheduled_run.job, scheduled_run.scheduled_at)
            ):
                self._skip(scheduled_run, f"run {sent.run_id} has sent it before", now)
                continue
            self._start(scheduled_run, entry)
            free -= 1
            if not free:
                return

    def _start(self, scheduled_run: ScheduledRun, entry: RegisteredJob) -> None:
        if scheduled_run.job_sha256 != entry.sha256:
            self._ledger.scheduled_runs.assign(scheduled_run.scheduled_run_id, entry.sha256)
        try:
            worker = self._workers.start(scheduled_run.scheduled_run_id)
        except OSError as error:  # no memory, no processes: the fire stays planned
            raise StorageFailed(
                f"no process can be started for job {scheduled_run.job}", why=error.strerror or str(error)
            ) from None
        self._active[scheduled_run.job] = _Active(scheduled_run.scheduled_run_id, entry.job, worker, self._monotonic())
        _log().info(
            "fire {} of {} for {:%Y-%m-%d %H:%M:%S} UTC begins",
            scheduled_run.scheduled_run_id,
            scheduled_run.job,
            scheduled_run.scheduled_at,
        )

    def _skip(self, scheduled_run: ScheduledRun, reason: str, now: datetime) -> None:
        self._ledger.scheduled_runs.skip(scheduled_run.scheduled_run_id, reason, now)
        _log().warning("fire {} of {} is skipped: {}", scheduled_run.scheduled_run_id, scheduled_run.job, reason)
        self._answer(scheduled_run, f"skipped: {reason}", now)

    def _settle_ended(self, now: datetime) -> None:
        for slug, active in list(self._active.items()):
            code = active.worker.poll() if active.worker else None
            if active.worker is not None and code is None:
                continue
            scheduled_run = self._ledger.scheduled_runs.get(active.scheduled_run_id)
            if active.worker is None and not self._has_ended(scheduled_run, now):
                continue
            if active.worker is not None and self._was_taken_by_another(scheduled_run):
                self._words_of(active)
                self._active[slug] = _Active(scheduled_run.scheduled_run_id, active.job, None, active.started_s)
                continue
            self._settle(scheduled_run, active, code, now)
            del self._active[slug]  # only now: what the ledger could not take is tried again by the next tick

    def _was_taken_by_another(self, scheduled_run: ScheduledRun) -> bool:
        """Whether a process of an earlier runner, which was just beginning when that was killed, took the fire first."""
        if (
            scheduled_run.state != "running"
            or scheduled_run.run_id is None
            or self._ledger.run(scheduled_run.run_id).state != "running"
        ):
            return False
        return self._ledger.is_alive(scheduled_run.run_id)

    @staticmethod
    def _words_of(active: _Active) -> str:
        return active.worker.last_words() if active.worker else ""

    def _has_ended(self, scheduled_run: ScheduledRun, now: datetime) -> bool:
        """Of a process of an earlier runner."""
        if scheduled_run.run_id and self._ledger.run(scheduled_run.run_id).state == "running":
            self._ledger.mark_interrupted(now)
            return self._ledger.run(scheduled_run.run_id).state != "running"
        return True

    def _settle(self, scheduled_run: ScheduledRun, active: _Active, code: int | None, now: datetime) -> None:
        words = self._words_of(active)
        if scheduled_run.state == "planned" and code == BUSY:
            self._wait_for_busy(scheduled_run, active, now)
            return
        if scheduled_run.state == "planned":
            scheduled_run = self._refuse(scheduled_run, active, code, words, now)
        if scheduled_run.state != "running" or scheduled_run.run_id is None:
            return
        run = self._ledger.run(scheduled_run.run_id)
        if run.state == "running":
            run = self._close(run, active, code, words, now)
        self._conclude(scheduled_run, run, now)

    def _wait_for_busy(self, scheduled_run: ScheduledRun, active: _Active, now: datetime) -> None:
        """The job runs elsewhere, by hand."""
        if scheduled_run.kind == "calendar" and active.job is not None and active.job.overlap == "skip":
            self._skip(scheduled_run, 'the job was running, started by hand; "overlap" is skip', now)
        else:
            self._ledger.scheduled_runs.requeue(
                scheduled_run.scheduled_run_id,
                now + timedelta(seconds=WAIT_FOR_BUSY_S),
                "the job runs, started by hand",
            )

    def _refuse(
        self, scheduled_run: ScheduledRun, active: _Active, code: int | None, words: str, now: datetime
    ) -> ScheduledRun:
        """Its process ended before the run began: that is a run that failed."""
        if active.is_killed or active.job is None:
            return scheduled_run
        why = f"its process ended with code {code}" + (f": {words}" if words else "")
        self._ledger.refuse(
            active.job,
            scheduled_run.scheduled_at,
            broken_off(f"{why}, before the run began"),
            now,
            scheduled_run_id=scheduled_run.scheduled_run_id,
            job_sha256=scheduled_run.job_sha256,
            asked_by=scheduled_run.asked_by,
        )
        return self._ledger.scheduled_runs.get(scheduled_run.scheduled_run_id)

    def _close(self, run: Run, active: _Active, code: int | None, words: str, now: datetime) -> Run:
        """The process did not live to write the verdict."""
        if active.is_killed and active.job is not None and self._is_overdue(active):
            return self._ledger.close_run(run.run_id, "failed", timed_out(active.job), now)
        if active.is_killed and run.cancel_asked_by not in (None, RUNNER_STOPS):
            error = RunCancelled("the run was cancelled", why=f"asked by {run.cancel_asked_by}; its process was killed")
            return self._ledger.close_run(run.run_id, "cancelled", error, now)
        why = f"its process ended with code {code}" + (f": {words}" if words else "")
        return self._ledger.close_run(
            run.run_id, "interrupted", broken_off(f"{why}; how many rows arrived is not known"), now
        )

    def _conclude(self, scheduled_run: ScheduledRun, run: Run, now: datetime) -> None:
        """The fire is done, or is run again: see `_retry_wait_s`."""
        text = f"{run.state}: {run.error_text}" if run.error_text else run.state
        _log().info("fire {} of {}: run {} {}", scheduled_run.scheduled_run_id, scheduled_run.job, run.run_id, text)
        wait_s = self._retry_wait_s(scheduled_run, run)
        if wait_s is None:
            self._ledger.scheduled_runs.finish(scheduled_run.scheduled_run_id, now)
            self._answer(scheduled_run, f"run {run.run_id} {run.state}", now)
            return
        at = now + timedelta(seconds=wait_s) if wait_s else None
        self._ledger.scheduled_runs.requeue(
            scheduled_run.scheduled_run_id, at, f"run {run.run_id} {text}; it is tried again"
        )

    def _retry_wait_s(self, scheduled_run: ScheduledRun, run: Run) -> float | None:
        """Seconds until the fire is tried again; None: its verdict stands.

        A run that was broken off begins again at once. One that failed before its first message for a reason that may
        pass (the database or the broker was away) is tried again PSTT_RUN_RETRIES times, waiting PSTT_RUN_RETRY_WAIT_S
        and twice as long each time, an hour at most.
        """
        first = self._settings.PSTT_RUN_RETRY_WAIT_S
        if run.state == "interrupted":
            if scheduled_run.tries > MOST_INTERRUPTIONS:
                return None
            return 0.0 if scheduled_run.tries <= 3 else min(first * 2 ** (scheduled_run.tries - 4), LONGEST_WAIT_S)
        if run.state == "failed" and run.error_retriable and scheduled_run.tries <= self._settings.PSTT_RUN_RETRIES:
            return float(min(first * 2 ** (scheduled_run.tries - 1), LONGEST_WAIT_S))
        return None

    def _answer(self, scheduled_run: ScheduledRun, answer: str, now: datetime) -> None:
        if scheduled_run.request_id is not None:
            self._ledger.requests.finish(scheduled_run.request_id, answer, now)

    def _end_overdue(self, now: datetime) -> None:
        """A process that does not obey its own time-out, or a wish to cancel, is killed."""
        for active in self._active.values():
            if active.is_killed or not (self._is_overdue(active) or self._defies(active, now)):
                continue
            self._say("error", f"the process of fire {active.scheduled_run_id} does not end and is killed")
            active.is_killed = True
            self._kill(active)

    def _kill(self, active: _Active) -> None:
        if active.worker is not None:
            active.worker.kill()
            return
        run_id = self._ledger.scheduled_runs.get(active.scheduled_run_id).run_id
        host, pid, started_at = self._ledger.process_of(run_id) if run_id else ("", 0, 0.0)
        if host == platform.node():
            kill_process(pid, started_at)

    def _defies(self, active: _Active, now: datetime) -> bool:
        """Whether it was asked to end so long ago that it cannot be waiting for its last batch."""
        run_id = self._ledger.scheduled_runs.get(active.scheduled_run_id).run_id
        asked_at = self._ledger.run(run_id).cancel_asked_at if run_id else None
        return asked_at is not None and (now - asked_at).total_seconds() > self._patience_s

    def _is_overdue(self, active: _Active) -> bool:
        if active.job is None or active.job.timeout_s is None:
            return False
        return self._monotonic() - active.started_s > active.job.timeout_s + self._patience_s

    def _take_requests(self, now: datetime) -> None:
        for request in self._ledger.requests.waiting():
            try:
                state, answer = self._obey(request, now)
            except (PsttError, ValueError, KeyError, TypeError) as error:
                text = error.text if isinstance(error, PsttError) else f"the request is not whole: {error}"
                self._ledger.requests.answer(request.request_id, "refused", text, now)
                _log().warning("request {} ({}) refused: {}", request.request_id, request.kind, text)
                continue
            self._ledger.requests.answer(request.request_id, "taken" if state == "taken" else "done", answer, now)
            _log().info("request {} ({}) by {}: {}", request.request_id, request.kind, request.asked_by, answer)

    def _obey(self, request: Request, now: datetime) -> tuple[str, str]:
        """Does what is asked; the request's new state and the answer."""
        who = request.asked_by
        if request.kind == "stop":
            self.asked_to_stop = True
            return "done", "the runner stops"
        if request.kind == "cancel" and not request.run_id and request.job:
            return "done", cancel_job(self._ledger, request.job, who=who, now=now)
        if request.kind == "cancel":
            return "done", cancel(self._ledger, request.run_id or "", who=who, now=now)
        if request.kind in ("enable", "disable"):
            enabled = request.kind == "enable"
            changed = switch(self._workspace, self._ledger, request.job, enabled=enabled, who=who, now=now)
            return "done", f"job {request.job} {'is' if changed else 'was'} {request.kind}d"
        if request.kind == "replay":
            run = self._ledger.run(request.run_id or "")
            to = request.args.get("to", "run")
            if to not in get_args(ReplayTo):
                raise ConfigError(f'"{to}" is no place to send to again', remedy='"run" or "job"')
            args = {"of_run": run.run_id, "rejects_only": bool(request.args.get("rejects_only")), "to": to}
            return "taken", self._plan_asked(request, run.job, run.scheduled_at, args, now)
        job = self._known(request.job)
        if request.kind == "dry_run":
            return "taken", self._dry_runs.start(request, job)
        if request.kind == "backfill":
            first, last = (date.fromisoformat(request.args[name]) for name in ("from", "to"))
            again = bool(request.args.get("again"))
            made = backfill(
                self._ledger, job, first, last, asked_by=who, now=now, again=again, request_id=request.request_id
            )
            return "taken" if made.scheduled_run_ids else "done", made.text
        at = datetime.fromisoformat(request.args["at"]) if request.args.get("at") else None
        if at is not None and at.tzinfo is None:
            raise ConfigError(f"{at} has no offset")
        moment = at or previous_scheduled_time(job, now) or now.replace(microsecond=0)
        require_unsent(self._ledger, job, moment, again=bool(request.args.get("again")))
        args = {"parameters": dict(request.args.get("parameters") or {})}
        return "taken", self._plan_asked(request, job.slug, moment, args, now)

    def _plan_asked(self, request: Request, slug: str, at: datetime, args: Mapping[str, Any], now: datetime) -> str:
        self._known(slug)
        (scheduled_run_id,) = self._ledger.scheduled_runs.plan_requested(
            slug,
            [at.astimezone(UTC)],
            kind="request",
            asked_by=request.asked_by,
            now=now,
            args=args,
            request_id=request.request_id,
        )
        return f"planned as fire {scheduled_run_id}"

    def _known(self, slug: str) -> Job:
        entry = self.roster.entries.get(slug)
        if entry is None:
            raise ConfigError(f'there is no job "{slug}" that can run', remedy="python -m core check")
        return entry.job

    def _job(self, slug: str) -> Job | None:
        entry = self.roster.entries.get(slug)
        return entry.job if entry else None

    def _beat(self, now: datetime, state: Any = "working") -> None:
        import psutil

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
                jobs_loaded=len(self.roster.entries),
                problems=tuple(self.problems()),
            )
        )
        self._beat_s = self._monotonic()

    def _beat_if_due(self, now: datetime, state: Any = "working") -> bool:
        due = self._beat_s is None or self._monotonic() - self._beat_s >= BEAT_EVERY_S
        if due:
            self._beat(now, state)
        return due

    def problems(self) -> list[dict[str, str]]:
        """What a person should mend, and what is used meanwhile."""
        found = list(self.roster.problems.values())
        if self.planner.problem:
            found.append({"where": "clock", "text": self.planner.problem, "instead": "requests are done all the same"})
        if question := doubt(self._workspace):
            text, instead = str(question), "runs of exactly_once fail; the others go on"
            found.append({"where": "identity", "text": text, "instead": instead})
        if self._note:
            found.append({"where": "logs", "text": self._note, "instead": "warnings go to the terminal only"})
        return found

    def _say(self, level: str, text: str) -> None:
        """Logs a text once; a problem that stays is not said each second."""
        if text not in self._said:
            self._said.add(text)
            _log().log(level.upper(), text)


def _problem_text(problem: Mapping[str, str]) -> str:
    return f"{problem['where']}: {problem['text']}; {problem['instead']}"


def _log() -> Any:
    from loguru import logger

    return logger
