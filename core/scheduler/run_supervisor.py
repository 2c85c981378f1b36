"""Starts a process for each planned scheduled run and follows it to its verdict.

A process that dies leaves a run without a verdict: the supervisor writes one, and decides whether the scheduled run is
tried again. A process that ignores its time-out or a cancel is killed.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from loguru import logger

from core.errors import PsttError, RunCancelled, StorageFailed
from core.run.watchdog import RUNNER_STOPS, broken_off, timed_out
from core.scheduler.active_runs import ActiveRun, ActiveRuns
from core.scheduler.backfill_queue import pause_in_outage, queued_runs
from core.scheduler.processes import BUSY, kill_process

if TYPE_CHECKING:
    from core.model.run import Run
    from core.records.ledger import Ledger
    from core.records.scheduled_runs import ScheduledRun
    from core.scheduler.job_registry import JobRegistry, RegisteredJob
    from core.scheduler.processes import Workers
    from core.workspace.settings import Settings

__all__ = ["RunSupervisor"]

POLL_EVERY_S = 0.05
"""How often the end of a process is checked for while the runner stops."""
KILL_AFTER_S = 10.0
"""What a process gets beyond PSTT_STOP_TIMEOUT_S to write its verdict."""
RETRY_BUSY_S = 5.0
LONGEST_HOLD_S = 10.0
"""Where a scheduled time is always near, a day of a backfill is started at least so often."""
MOST_INTERRUPTIONS = 10
"""A run that takes its process down each time is not started for ever."""
LONGEST_WAIT_S = 3600.0
MOST_OUTAGE_TRIES = 150
"""Tries of a day in outages that pause its backfill: a day of pauses of ten minutes."""


class RunSupervisor:
    """The processes of one runner.

    Larger than other classes: starts, ends and retries of all runs, scheduled and of backfills, share one table of processes.

    Args:
        settings: PSTT_WORKERS, PSTT_BACKFILL_WORKERS, PSTT_STOP_TIMEOUT_S and the retries.
        ledger: Holds the scheduled runs, the runs and their verdicts.
        workers: Starts processes.
        registry: The jobs as the runner knows them.
        monotonic: Seconds that only go forward.
    """

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        workers: Workers,
        registry: JobRegistry,
        monotonic: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._ledger = ledger
        self._workers = workers
        self._registry = registry
        self._monotonic = monotonic
        self._patience_s = settings.PSTT_STOP_TIMEOUT_S + KILL_AFTER_S
        self.active = ActiveRuns(monotonic)
        self._held_since_s: float | None = None
        """Since when no day of a backfill is started, because a scheduled time is near."""

    @property
    def free_workers(self) -> int:
        """Runs that may still be started; negative where earlier runners left more than PSTT_WORKERS.

        Runs of backfills have places of their own.
        """
        return self._settings.PSTT_WORKERS - self.active.count

    def _adopt_running(self) -> None:
        """Takes over the scheduled runs that processes of an earlier runner work on.

        A process that was started just before its runner was killed takes its scheduled run after this runner has begun.
        """
        for scheduled_run in self._ledger.scheduled_runs.running():
            if self.active.has(scheduled_run.scheduled_run_id):
                continue
            entry = self._registry.entries.get(scheduled_run.job)
            self.active.add(scheduled_run, entry.job if entry else None, None)

    # Starting

    def start_planned(self, now: datetime, *, is_due_soon: bool = False) -> None:
        """Starts what is due, as far as there are free workers, and then runs of backfills on places of their own.

        Args:
            now: The clock.
            is_due_soon: A scheduled time is near: days of backfills wait for it, but not for ever.
        """
        free = self.free_workers
        for scheduled_run in self._ledger.scheduled_runs.startable(now) if free > 0 else ():
            if self.active.has_job(scheduled_run.job):
                continue
            # The calendar does not send a second time what a person has sent.
            if self._start_one(scheduled_run, now, again=scheduled_run.kind == "request"):
                free -= 1
                if not free:
                    break
        if not is_due_soon:
            self._held_since_s = None
        elif self._held_since_s is None:
            self._held_since_s = self._monotonic()
        if self._held_since_s is None or self._monotonic() - self._held_since_s >= LONGEST_HOLD_S:
            self._held_since_s = None
            self._start_backfills(now)

    def _start_backfills(self, now: datetime) -> None:
        running = self.active.by_backfill()
        free = self._settings.PSTT_BACKFILL_WORKERS - running.total()
        for queued in queued_runs(self._ledger, self.active.by_backfill(), now) if free > 0 else ():
            backfill = queued.backfill
            if running[backfill.backfill_id] >= backfill.parallel:
                continue
            if self._start_one(queued.scheduled_run, now, again=backfill.again):
                running[backfill.backfill_id] += 1
                free -= 1
                if not free:
                    break
        if not running.total():
            self._workers.release_days()

    def _start_one(self, scheduled_run: ScheduledRun, now: datetime, *, again: bool) -> bool:
        """Starts a run, or skips it with the reason. Returns whether it has a process now."""
        entry = self._registry.entries.get(scheduled_run.job)
        if entry is None:
            self._skip(scheduled_run, "there is no such job, or its file is wrong and was never right", now)
            return False
        its_time = (scheduled_run.job, scheduled_run.scheduled_at)
        if self.active.has_time(*its_time):
            return False  # it waits for that run
        if not again and (sent := self._ledger.history.sent_before(*its_time)):
            self._skip(scheduled_run, f"run {sent.run_id} has sent it before", now)
            return False
        self._start(scheduled_run, entry)
        return True

    def _start(self, scheduled_run: ScheduledRun, entry: RegisteredJob) -> None:
        if scheduled_run.job_sha256 != entry.sha256:
            self._ledger.scheduled_runs.assign(scheduled_run.scheduled_run_id, entry.sha256)
        try:
            start = self._workers.start_day if scheduled_run.kind == "backfill" else self._workers.start
            worker = start(scheduled_run.scheduled_run_id)
        except OSError as error:  # no memory, no processes: the scheduled run stays planned
            raise StorageFailed(
                f"no process can be started for job {scheduled_run.job}", why=error.strerror or str(error)
            ) from None
        self.active.add(scheduled_run, entry.job, worker)
        logger.info(
            "scheduled run {} of {} for {:%Y-%m-%d %H:%M:%S} UTC begins",
            scheduled_run.scheduled_run_id,
            scheduled_run.job,
            scheduled_run.scheduled_at,
        )

    def _skip(self, scheduled_run: ScheduledRun, reason: str, now: datetime) -> None:
        self._ledger.scheduled_runs.skip(scheduled_run.scheduled_run_id, reason, now)
        logger.warning(
            "scheduled run {} of {} is skipped: {}", scheduled_run.scheduled_run_id, scheduled_run.job, reason
        )
        self._answer(scheduled_run, f"skipped: {reason}", now)

    # Settling what has ended

    def settle_ended(self, now: datetime) -> None:
        """Writes the verdict of each process that has ended, and decides whether its run is tried again."""
        self._adopt_running()
        for active in self.active.all():
            code = active.worker.poll() if active.worker else None
            if active.worker is not None and code is None:
                continue
            scheduled_run = self._ledger.scheduled_runs.get(active.scheduled_run_id)
            if active.worker is None and not self._has_ended(scheduled_run, now):
                continue
            if active.worker is not None and self._was_taken_by_another(scheduled_run):
                active.worker.last_words()
                active.worker = None
                continue
            self._settle(scheduled_run, active, code, now)
            self.active.remove(active)  # only now: what the ledger could not store is tried again by the next tick

    def _was_taken_by_another(self, scheduled_run: ScheduledRun) -> bool:
        """Returns whether a process that an earlier runner had just started took the scheduled run first."""
        if scheduled_run.state != "running" or scheduled_run.run_id is None:
            return False
        return self._ledger.run(scheduled_run.run_id).state == "running" and self._ledger.is_alive(scheduled_run.run_id)

    def _has_ended(self, scheduled_run: ScheduledRun, now: datetime) -> bool:
        """The same for a process of an earlier runner."""
        if scheduled_run.run_id and self._ledger.run(scheduled_run.run_id).state == "running":
            self._ledger.mark_interrupted(now)
            return self._ledger.run(scheduled_run.run_id).state != "running"
        return True

    def _settle(self, scheduled_run: ScheduledRun, active: ActiveRun, code: int | None, now: datetime) -> None:
        words = active.worker.last_words() if active.worker else ""
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

    def _wait_for_busy(self, scheduled_run: ScheduledRun, active: ActiveRun, now: datetime) -> None:
        """The job is running in another process, started by hand."""
        if scheduled_run.kind == "calendar" and active.job is not None and active.job.overlap == "skip":
            self._skip(scheduled_run, 'the job was running, started by hand; "overlap" is skip', now)
        else:
            not_before = now + timedelta(seconds=RETRY_BUSY_S)
            self._ledger.scheduled_runs.wait(
                scheduled_run.scheduled_run_id, not_before, "the job runs, started by hand"
            )

    def _refuse(
        self, scheduled_run: ScheduledRun, active: ActiveRun, code: int | None, words: str, now: datetime
    ) -> ScheduledRun:
        """Stores a failed run for a process that ended before its run began."""
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

    def _close(self, run: Run, active: ActiveRun, code: int | None, words: str, now: datetime) -> Run:
        """Stores the verdict that a dead process could not write."""
        if active.is_killed and active.job is not None and self._is_overdue(active):
            return self._ledger.close_run(run.run_id, "failed", timed_out(active.job), now)
        if active.is_killed and run.cancel_asked_by not in (None, RUNNER_STOPS):
            error = RunCancelled("the run was cancelled", why=f"asked by {run.cancel_asked_by}; its process was killed")
            return self._ledger.close_run(run.run_id, "cancelled", error, now)
        why = f"its process ended with code {code}" + (f": {words}" if words else "")
        error_ = broken_off(f"{why}; how many rows arrived is not known")
        return self._ledger.close_run(run.run_id, "interrupted", error_, now)

    def _conclude(self, scheduled_run: ScheduledRun, run: Run, now: datetime) -> None:
        """Marks the scheduled run as done, or plans it again: see `_retry_wait_s`."""
        text = f"{run.state}: {run.error_text}" if run.error_text else run.state
        logger.info(
            "scheduled run {} of {}: run {} {}", scheduled_run.scheduled_run_id, scheduled_run.job, run.run_id, text
        )
        wait_s = self._retry_wait_s(scheduled_run, run)
        is_outage = pause_in_outage(self._ledger, self._settings, scheduled_run, run, now)
        if is_outage and wait_s is None and scheduled_run.tries < MOST_OUTAGE_TRIES:
            wait_s = self._settings.PSTT_RUN_RETRY_WAIT_S
        if wait_s is None:
            self._ledger.scheduled_runs.finish(scheduled_run.scheduled_run_id, now)
            self._answer(scheduled_run, f"run {run.run_id} {run.state}", now)
            return
        at = now + timedelta(seconds=wait_s) if wait_s else None
        self._ledger.scheduled_runs.requeue(
            scheduled_run.scheduled_run_id, at, f"run {run.run_id} {text}; it is tried again"
        )

    def _retry_wait_s(self, scheduled_run: ScheduledRun, run: Run) -> float | None:
        """Returns the seconds until the scheduled run is tried again; None: its verdict is final.

        An interrupted run starts again at once. One that failed before its first message for a reason that may pass (the
        database or the broker was unavailable) is retried PSTT_RUN_RETRIES times, waiting PSTT_RUN_RETRY_WAIT_S and twice as
        long each time, an hour at most.
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
        if scheduled_run.request_id is not None and scheduled_run.kind != "backfill":  # that has a summary at its end
            self._ledger.requests.finish(scheduled_run.request_id, answer, now)

    # Ending what runs

    def kill_overdue(self, now: datetime) -> list[str]:
        """Kills processes that ignore their own time-out or a cancel. Returns what was killed, in words."""
        killed = []
        for active in self.active.all():
            if active.is_killed or not (self._is_overdue(active) or self._ignores_cancel(active, now)):
                continue
            killed.append(f"the process of scheduled run {active.scheduled_run_id} does not end and is killed")
            active.is_killed = True
            self._kill(active)
        return killed

    def _kill(self, active: ActiveRun) -> None:
        if active.worker is not None:
            active.worker.kill()
            return
        run_id = self._ledger.scheduled_runs.get(active.scheduled_run_id).run_id
        host, pid, started_at = self._ledger.process_of(run_id) if run_id else ("", 0, 0.0)
        if host == platform.node():
            kill_process(pid, started_at)

    def _ignores_cancel(self, active: ActiveRun, now: datetime) -> bool:
        """Returns whether it was asked to end so long ago that it cannot be waiting for its last batch."""
        scheduled_run = self._ledger.scheduled_runs.get(active.scheduled_run_id)
        if scheduled_run.state != "running" or scheduled_run.run_id is None:
            return False  # the process has not begun its run yet: `run_id` is the attempt before, which may have been asked
        asked_at = self._ledger.run(scheduled_run.run_id).cancel_asked_at
        return asked_at is not None and (now - asked_at).total_seconds() > self._patience_s

    def _is_overdue(self, active: ActiveRun) -> bool:
        if active.job is None or active.job.timeout_s is None:
            return False
        return self._monotonic() - active.started_s > active.job.timeout_s + self._patience_s

    def end_all(self, now: Callable[[], datetime], while_waiting: Callable[[], object], *, at_once: bool) -> bool:
        """Asks every process of this runner to end, waits for the current batches, and kills what does not end.

        Returns whether there was time for that: False where the runner is told to end at once.

        Args:
            now: The clock.
            while_waiting: Called at each check, so that the heartbeat continues.
            at_once: Waits for nothing.
        """
        deadline = self._monotonic() + (0 if at_once else self._patience_s)
        try:
            while self.active.children() and self._monotonic() < deadline:
                with suppress(PsttError):
                    self._ask_to_end(now())
                    self.settle_ended(now())
                    while_waiting()
                time.sleep(POLL_EVERY_S)
        except KeyboardInterrupt:  # the second Ctrl-C
            logger.warning("the runner was asked to end at once")
            at_once = True
        self._kill_all(now)
        return not at_once

    def _ask_to_end(self, now: datetime) -> None:
        for active in self.active.children():
            scheduled_run = self._ledger.scheduled_runs.get(active.scheduled_run_id)
            if scheduled_run.state == "running" and scheduled_run.run_id:
                self._ledger.ask_to_end(scheduled_run.run_id, RUNNER_STOPS, now)

    def _kill_all(self, now: Callable[[], datetime]) -> None:
        for active in self.active.children():
            if active.worker is not None:
                active.is_killed = True
                active.worker.kill()
        ends_s = self._monotonic() + KILL_AFTER_S
        while self.active.children() and self._monotonic() < ends_s:
            with suppress(PsttError):
                self.settle_ended(now())
            time.sleep(POLL_EVERY_S)
