"""How soon the first row of a job is sent after its scheduled time, with and without spare worker processes.

A SQLite file gives the rows and a mock broker inside each run takes them, so that only our own start is measured. All
jobs have the same interval, so each scheduled time is a burst. Runs with and without spares alternate, since the load
of the machine changes.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bench.kills import stop_runner
from core.admin.demo import SLUG, make_demo
from core.app import App
from core.records.ledger import Ledger
from core.workspace.jobs import SUFFIX
from core.workspace.paths import Workspace
from tests.rigs.workspace import ROOT, environment

ROWS = 200
LEAD_S = 8
"""The runner must have loaded its jobs before they are due."""
SHORTEST_S = 15
PER_JOB_S = 3
"""Longer than a run takes on a busy machine: a burst has ended before the next one."""
RUNNER = {
    True: "from core.cli.main import main; main()",
    False: "from core.scheduler.processes import Processes; Processes.warm = lambda self, count: None\n"
    "from core.cli.main import main; main()",
}
"""The program of the runner, by whether it starts spares."""


def make_jobs(folder: Path, jobs: int, interval_s: int) -> None:
    """Writes a demo workspace whose jobs are all due at the same times."""
    make_demo(folder, ROWS, now=datetime.now(UTC))
    file = folder / "queries" / f"{SLUG}{SUFFIX}"
    document = json.loads(file.read_text(encoding="utf-8"))
    file.unlink()
    for number in range(jobs):
        changes = {"name": f"Job {number}", "scheduling_mode": "interval", "interval_s": interval_s}
        job = folder / "queries" / f"job-{number:03}{SUFFIX}"
        job.write_text(json.dumps(document | changes), encoding="utf-8")


def soonest(jobs: int) -> tuple[int, float]:
    """Returns the interval, in seconds, whose next multiple comes first after the runner is ready; and that Unix time."""
    ready_at = time.time() + LEAD_S
    shortest = max(SHORTEST_S, jobs * PER_JOB_S)
    return min(((n, ready_at - ready_at % n + n) for n in range(shortest, 2 * shortest)), key=lambda found: found[1])


def measure(folder: Path, jobs: int, bursts: int, *, spares: bool) -> list[float]:
    """Returns the seconds from the scheduled time to the first message of each run."""
    interval_s, first_at = soonest(jobs)
    make_jobs(folder, jobs, interval_s)
    command = [sys.executable, "-c", RUNNER[spares], "runner", "--workspace", str(folder)]
    runner = subprocess.Popen(command, cwd=ROOT, env=environment(), stderr=subprocess.DEVNULL)
    try:
        until = datetime.fromtimestamp(first_at + interval_s * (bursts - 1), UTC)
        time.sleep(max((until - datetime.now(UTC)).total_seconds(), 0))
        wait_for_runs(folder, jobs * bursts, until + timedelta(seconds=interval_s))
    finally:
        stop_runner(runner)
    with App.open(folder, environment(), log=False) as app:
        runs = {run.run_id: run for run in app.ledger.history.newest(None, 10_000) if run.scheduled_at <= until}
        app.metrics.sync()
        with app.metrics.reading() as metrics:
            first = metrics.execute("SELECT run_id, epoch_us(min(sent_at)) FROM sends GROUP BY run_id").fetchall()
    sent_at = {run_id: datetime.fromtimestamp(micros / 1e6, UTC) for run_id, micros in first}
    return [(sent_at[run_id] - run.scheduled_at).total_seconds() for run_id, run in runs.items() if run_id in sent_at]


def wait_for_runs(folder: Path, runs: int, deadline: datetime) -> None:
    """Waits until so many runs have ended; at the deadline the next burst would begin."""
    with Ledger(Workspace(folder).ledger_file) as ledger:
        while datetime.now(UTC) < deadline - timedelta(seconds=LEAD_S / 2):
            if sum(run.finished_at is not None for run in ledger.history.newest(None, runs)) == runs:
                return
            time.sleep(0.2)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.first_row", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--jobs", type=int, nargs="+", default=[1, 50], help="jobs that are due at the same time")
    parser.add_argument(
        "--bursts", type=int, default=4, help="scheduled times for each runner; 1 with ten jobs or more"
    )
    parser.add_argument(
        "--rounds", type=int, default=2, help="how often a runner with and one without spares alternate"
    )
    parser.add_argument("--spares", choices=("both", "with", "without"), default="both")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # else an ended bench would leave its runner behind
    kinds = {"both": (True, False), "with": (True,), "without": (False,)}[options.spares]
    for jobs in options.jobs:
        delays_s: dict[bool, list[float]] = defaultdict(list)
        for _ in range(options.rounds):
            for spares in kinds:
                with tempfile.TemporaryDirectory() as folder:
                    found = measure(Path(folder) / "ws", jobs, 1 if jobs >= 10 else options.bursts, spares=spares)
                delays_s[spares] += found
                print(f"  {line(jobs, found, spares=spares)}; load {load()}", flush=True)
        for spares in kinds:
            print(line(jobs, delays_s[spares], spares=spares), flush=True)
    return 0


def line(jobs: int, delays_s: list[float], *, spares: bool) -> str:
    return (
        f"{jobs:>3} jobs at once, {'with' if spares else 'without':>7} spares, {len(delays_s):>3} runs, first message after: "
        f"soonest {min(delays_s):.2f} s, median {statistics.median(delays_s):.2f} s, last {max(delays_s):.2f} s"
    )


def load() -> str:
    return f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "not known"


if __name__ == "__main__":
    raise SystemExit(main())
