"""How long a backfill of many short days takes, with one and several days at once, and what it costs a scheduled job."""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from bench.kills import start_runner, stop_runner
from core.records.ledger import Ledger
from core.workspace.paths import Workspace
from tests.rigs.workspace import environment, make_workspace, run_command

SQL = """define D='2026-01-01'  --Obbligatorio: the day
SELECT CAST('&D' AS text) || '/' || lpad(g::text, 7, '0') AS barcode, g AS n FROM generate_series(1, {rows}) AS g
"""
LAST_DAY = date(2025, 12, 31)
LONGEST_S = 3600.0


def make(folder: Path, postgres: Any, kafka: Any, rows: int) -> str:
    """Makes the job of the backfill, and `second`, which is due each ten seconds. Returns the topic of the first."""
    topic = kafka.create_topic(partitions=3)
    make_workspace(
        folder,
        postgres=postgres,
        bootstrap_servers=kafka.plaintext,
        topic=topic,
        sql=SQL.format(rows=rows),
        job={"parameters": {"D": "{date}"}, "scheduling_mode": "manual", "timezone": "UTC"},
    )
    document = json.loads((folder / "queries" / "export.job.json").read_text(encoding="utf-8"))
    second = {
        "name": "Second",
        "query": "second.sql",
        "scheduling_mode": "interval",
        "interval_s": 10,
        "parameters": {},
    }
    second["kafka_config"] = {**document["kafka_config"], "topic": kafka.create_topic(partitions=1)}
    (folder / "queries" / "second.sql").write_text("SELECT 'k' AS barcode", encoding="utf-8")
    (folder / "queries" / "second.job.json").write_text(json.dumps(document | second), encoding="utf-8")
    return str(topic)


def measure(folder: Path, postgres: Any, kafka: Any, *, days: int, rows: int, parallel: int) -> dict[str, Any]:
    """Returns the seconds from the request to the last verdict, the messages on the topic, and delays of `second` in s."""
    topic = make(folder, postgres, kafka, rows)
    env = environment(postgres, PSTT_BACKFILL_WORKERS=str(max(parallel, 4)))
    runner = start_runner(folder, env)
    try:
        time.sleep(25)  # some runs of `second` beside nothing
        first = LAST_DAY - timedelta(days=days - 1)
        words = ("--from", str(first), "--to", str(LAST_DAY), "--parallel", str(parallel), "--json")
        began_at, began = datetime.now(UTC), time.monotonic()
        made = json.loads(run_command("backfill", "export", *words, env=env, cwd=folder).stdout)
        with Ledger(Workspace(folder).ledger_file) as ledger:
            while (found := ledger.backfills.get(made["backfill_id"])).finished_at is None:
                if time.monotonic() - began > LONGEST_S:
                    raise TimeoutError(f"the backfill has not ended after {LONGEST_S:.0f} s")
                time.sleep(0.2)
            seconds = time.monotonic() - began
            runs = [run for run in ledger.history.newest("second", 10_000) if run.attempt == 1]
    finally:
        stop_runner(runner)
    delays = {
        when: [
            (run.started_at - run.scheduled_at).total_seconds() for run in runs if (run.started_at > began_at) is beside
        ]
        for when, beside in (("before", False), ("beside", True))
    }
    return {"seconds": seconds, "summary": found.summary, "messages": kafka.count(topic), "delays_s": delays}


def main(days: int, rows: int, parallel: list[int]) -> int:
    """Prints the figures of each number of days at once."""
    from tests.rigs.kafka import KafkaRig
    from tests.rigs.postgres import PostgresRig

    code = 0
    with PostgresRig() as postgres, KafkaRig(for_long=True) as kafka:
        for at_once in parallel:
            with tempfile.TemporaryDirectory() as folder:
                found = measure(Path(folder), postgres, kafka, days=days, rows=rows, parallel=at_once)
            code |= found["messages"] != days * rows
            print(
                f"\n--parallel {at_once}: {found['summary']}, {found['messages']:,} messages for {days * rows:,} rows"
            )
            print(f"{found['seconds']:.1f} s, {found['seconds'] / days:.2f} s a day")
            for when, delays in found["delays_s"].items():
                middle, longest = statistics.median(delays), max(delays)
                print(
                    f"start of a scheduled run {when}: median {middle:.2f} s, longest of {len(delays)} {longest:.2f} s late",
                    flush=True,
                )
    return int(code)
