"""How long after its scheduled time the first row of a job is sent: for 1 job alone, and for 50 in the same minute.

The rows come from SQLite and go to a mock broker in each run's process, so that only our own start is measured.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bench.kills import start_runner, stop_runner
from core.admin.demo import SLUG, make_demo
from core.app import App
from core.workspace.jobs import SUFFIX
from tests.rigs.workspace import environment

ROWS = 200
LEAD_S = 12
"""Time for the runner to load its jobs before they are due."""


def make_jobs(folder: Path, jobs: int) -> None:
    """Writes a demo workspace whose jobs are all due each minute."""
    make_demo(folder, ROWS, now=datetime.now(UTC))
    file = folder / "queries" / f"{SLUG}{SUFFIX}"
    document = json.loads(file.read_text(encoding="utf-8"))
    file.unlink()
    for number in range(jobs):
        changes = {"name": f"Job {number}", "cron": "* * * * *", "timezone": "UTC"}
        job = folder / "queries" / f"job-{number:03}{SUFFIX}"
        job.write_text(json.dumps(document | changes), encoding="utf-8")


def measure(folder: Path, jobs: int, minutes: int) -> list[float]:
    """Returns the seconds from the scheduled time to the first message of each run that has one."""
    make_jobs(folder, jobs)
    if (second := datetime.now(UTC).second) > 60 - LEAD_S:
        time.sleep(61 - second)
    runner = start_runner(folder, environment())
    try:
        begin = datetime.now(UTC).replace(second=0, microsecond=0) + timedelta(minutes=1)
        end = begin + timedelta(minutes=minutes - 1, seconds=58)
        time.sleep((end - datetime.now(UTC)).total_seconds())
    finally:
        stop_runner(runner)
    with App.open(folder, environment(), log=False) as app:
        runs = {run.run_id: run for run in app.ledger.history.newest(None, 10_000) if run.attempt == 1}
        app.metrics.sync()
        with app.metrics.reading() as metrics:
            first = metrics.execute("SELECT run_id, epoch_us(min(sent_at)) FROM sends GROUP BY run_id").fetchall()
    sent_at = {run_id: datetime.fromtimestamp(micros / 1e6, UTC) for run_id, micros in first}
    return [(sent_at[run_id] - run.scheduled_at).total_seconds() for run_id, run in runs.items() if run_id in sent_at]


def main(minutes: int = 4) -> int:
    for jobs, how_long in ((1, minutes), (50, 1)):
        with tempfile.TemporaryDirectory() as folder:
            delays = sorted(measure(Path(folder) / "ws", jobs, how_long))
        print(
            f"{jobs} jobs in one minute, {len(delays)} runs, from the scheduled time to the first message: "
            f"soonest {delays[0]:.2f} s, median {statistics.median(delays):.2f} s, last {delays[-1]:.2f} s",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
