"""Ends a run from outside while it runs: at its time-out, or when a cancellation is recorded in the ledger.

A cancellation goes through the ledger and not by a signal, so that command line, page and runner do it in one way, on
Windows too.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from core.errors import PsttError, RunCancelled, RunInterrupted, RunTimedOut
from core.model.job import Job
from core.records.ledger import Ledger
from core.run.cancellation import Stop

__all__ = ["RUNNER_STOPS", "broken_off", "timed_out", "watched"]

POLL_EVERY_S = 0.5
RUNNER_STOPS = "the runner, which was stopped"
"""A run that this one asked to end is interrupted and run again, not cancelled."""


@contextmanager
def watched(ledger_file: Path, job: Job, stop: Stop) -> Iterator[None]:
    """Sets `stop` when the job's `timeout_s` is over, or when the ledger asks the run of this process to end."""
    done = threading.Event()
    watcher = threading.Thread(target=_poll, args=(ledger_file, job, stop, done), name="pstt-watch", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join(10)


def timed_out(job: Job) -> RunTimedOut:
    """Returns the error of a run that took longer than its `timeout_s`."""
    return RunTimedOut(
        f'job "{job.name}" was stopped',
        why=f'it ran longer than "timeout_s" = {job.timeout_s or 0:g}',
        remedy=f"look at the query's plan, or raise timeout_s in {job.slug}.job.json",
    )


def broken_off(why: str) -> RunInterrupted:
    """Returns the error of a run that ends for a reason of the program, and is repeated."""
    return RunInterrupted(
        "the run was broken off", why=why, remedy="it is run again, with the same message ids, when a runner works"
    )


def _poll(ledger_file: Path, job: Job, stop: Stop, done: threading.Event) -> None:
    ends_at = time.monotonic() + job.timeout_s if job.timeout_s else None
    ledger: Ledger | None = None
    try:
        while not done.wait(POLL_EVERY_S if ends_at is None else max(min(ends_at - time.monotonic(), POLL_EVERY_S), 0)):
            if ends_at is not None and time.monotonic() >= ends_at:
                stop.set(timed_out(job))
                return
            try:
                ledger = ledger or Ledger(ledger_file)
                who = ledger.asked_to_end(job.slug)
            except PsttError:  # a busy ledger is polled again; the run itself meets any other problem
                continue
            if who is not None:
                stop.set(_reason(who))
                return
    finally:
        if ledger is not None:
            ledger.close()


def _reason(who: str) -> PsttError:
    if who == RUNNER_STOPS:
        return broken_off("the runner was stopped")
    return RunCancelled("the run was cancelled", why=f"asked by {who}")
