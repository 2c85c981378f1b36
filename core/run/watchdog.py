"""What may end a run from outside while it goes on: its time-out, and whoever asks through the ledger.

The ledger and not a signal, so that a person, the page and the runner ask in one way, on Windows too.
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

LOOK_EVERY_S = 0.5
RUNNER_STOPS = "the runner, which was stopped"
"""Asked for by this one, a run is broken off and run again, not cancelled."""


@contextmanager
def watched(ledger_file: Path, job: Job, stop: Stop) -> Iterator[None]:
    """Within it `stop` is set when the job's `timeout_s` is over, or when the run of this process is asked to end."""
    done = threading.Event()
    watcher = threading.Thread(target=_watch, args=(ledger_file, job, stop, done), name="pstt-watch", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join(10)


def timed_out(job: Job) -> RunTimedOut:
    """The verdict of a run that went on for too long."""
    return RunTimedOut(
        f'job "{job.name}" was stopped',
        why=f'it ran longer than "timeout_s" = {job.timeout_s or 0:g}',
        remedy=f"look at the query's plan, or raise timeout_s in {job.slug}.job.json",
    )


def broken_off(why: str) -> RunInterrupted:
    """The verdict of a run that ends for a reason of ours."""
    return RunInterrupted(
        "the run was broken off", why=why, remedy="it is run again, with the same message ids, when a runner works"
    )


def _watch(ledger_file: Path, job: Job, stop: Stop, done: threading.Event) -> None:
    ends_at = time.monotonic() + job.timeout_s if job.timeout_s else None
    ledger: Ledger | None = None
    try:
        while not done.wait(LOOK_EVERY_S if ends_at is None else max(min(ends_at - time.monotonic(), LOOK_EVERY_S), 0)):
            if ends_at is not None and time.monotonic() >= ends_at:
                stop.set(timed_out(job))
                return
            try:
                ledger = ledger or Ledger(ledger_file)
                who = ledger.asked_to_end(job.slug)
            except PsttError:  # a busy ledger is asked again; the run itself meets whatever is wrong with it
                continue
            if who is not None:
                stop.set(_asked(who))
                return
    finally:
        if ledger is not None:
            ledger.close()


def _asked(who: str) -> PsttError:
    if who == RUNNER_STOPS:
        return broken_off("the runner was stopped")
    return RunCancelled("the run was cancelled", why=f"asked by {who}")
