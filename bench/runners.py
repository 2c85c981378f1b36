"""Cost and delay of the runner: 500 jobs loaded, jobs that are due each minute, then a minute in which nothing is due."""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil

from bench.kills import start_runner, stop_runner
from core.records.ledger import Ledger
from core.workspace.paths import Workspace
from tests.rigs.workspace import environment, make_workspace

JOBS = 500


def make_many(folder: Path, postgres: Any, kafka: Any, jobs: int) -> None:
    """Makes one job that is due each minute, and many that are due at other times of the year."""
    topic = kafka.create_topic(partitions=3)
    sql = "SELECT lpad(g::text, 12, '0') AS barcode FROM generate_series(1, 100) AS g"
    make_workspace(folder, postgres=postgres, bootstrap_servers=kafka.plaintext, topic=topic, sql=sql)
    document = json.loads((folder / "queries" / "export.job.json").read_text(encoding="utf-8"))
    far = datetime.now(UTC) + timedelta(days=90)
    for n in range(jobs):
        cron = "* * * * *" if n == 0 else f"{n % 60} {n % 24} {1 + n % 28} {far.month} *"
        changes = {"name": f"Job {n}", "scheduling_mode": "cron", "cron": cron, "timezone": "UTC"}
        file = folder / "queries" / f"job-{n:03}.job.json"
        file.write_text(json.dumps(document | changes), encoding="utf-8")


def measure(folder: Path, postgres: Any, kafka: Any, *, jobs: int, minutes: int, idle_s: float) -> dict[str, Any]:
    """Returns the delays of the runs (s), and share of a core and peak memory (MB) of the idle runner process."""
    make_many(folder, postgres, kafka, jobs)
    runner = start_runner(folder, environment(postgres))
    try:
        time.sleep(5)
        every_minute = folder / "queries" / "job-000.job.json"
        time.sleep(60 * minutes - 5 + 65 - datetime.now(UTC).second)
        document = json.loads(every_minute.read_text(encoding="utf-8"))
        every_minute.write_text(json.dumps(document | {"enabled": False}), encoding="utf-8")
        time.sleep(5)
        process = psutil.Process(runner.pid)
        before, began, peak = process.cpu_times(), time.monotonic(), 0
        while time.monotonic() - began < idle_s:
            peak = max(peak, process.memory_info().rss)
            time.sleep(0.5)
        after = process.cpu_times()
        share = (after.user + after.system - before.user - before.system) / (time.monotonic() - began)
    finally:
        code = stop_runner(runner)
    with Ledger(Workspace(folder).ledger_file) as ledger:
        loaded = ledger.heartbeats.newest()
        runs = ledger.history.newest("job-000")
        delays = [(run.started_at - run.scheduled_at).total_seconds() for run in runs if run.attempt == 1]
        states = {f"{run.state} {run.error_text or ''}".strip() for run in runs}
    return {
        "jobs": loaded.jobs_loaded if loaded else 0,
        "delays_s": delays,
        "cpu_share": share,
        "peak_mb": peak / 1e6,
        "exit_code": code,
        "states": states,
    }


def main(minutes: int, idle_s: float) -> int:
    from tests.rigs.kafka import KafkaRig
    from tests.rigs.postgres import PostgresRig

    with PostgresRig() as postgres, KafkaRig(for_long=True) as kafka, tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), postgres, kafka, jobs=JOBS, minutes=minutes, idle_s=idle_s)
    delays = found["delays_s"]
    print(f"jobs loaded {found['jobs']}, runs {found['states']}, exit code {found['exit_code']}")
    print(f"from the scheduled time to the begin of the run, s: {[round(d, 2) for d in delays]}, limit 2")
    print(f"median {statistics.median(delays):.2f} s, largest {max(delays):.2f} s")
    print(
        f"idle for {idle_s:.0f} s: {found['cpu_share']:.2%} of a core (limit 1 %), {found['peak_mb']:.0f} MB (limit 150)"
    )
    fits = max(delays) <= 2 and found["cpu_share"] < 0.01 and found["peak_mb"] < 150 and found["jobs"] >= JOBS
    return 0 if fits else 1
