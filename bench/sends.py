"""A year of sends in a workspace, and how long each query over them takes.

DuckDB makes the sends with the product's own statements, so that the file is like one after a year of copying. The ledger
has their runs, and the spool's folder the names of their segments (empty, since none is read again).
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import tempfile
import time
from array import array
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from core.model.publisher import Batch, Delivery
from core.records.ledger import Ledger
from core.records.merging import MergeResult, merge_small
from core.records.metrics import Metrics
from core.records.metrics_queries import MetricsQueries, SendFilter, metrics_sql
from core.records.retention import Retention, roll_up
from core.records.segments import SEND_SCHEMA
from core.records.spool import SEGMENT_SENDS, Spool
from core.workspace.paths import Workspace

ZONE = "Europe/Rome"
HOURLY_JOBS, NIGHTLY_JOBS = 4, 8
RUNS_A_DAY = HOURLY_JOBS * 24 + NIGHTLY_JOBS
SHARES = HOURLY_JOBS * 24 + NIGHTLY_JOBS * 12
"""A nightly run sends as much as twelve hourly ones."""

WHOLE_YEAR = "errors, all"
"""Reads each failed send of the year; no page uses it, so it has no limit."""

MOST_BYTES = 40
FEWEST_WEIGHED = 10_000_000
"""Sends from which the size of the file is theirs; the rest are counts, which depend on the number of runs."""
LEAST_REBUILT_A_SECOND = 500_000
REBUILT_SENDS = 2_000_000

LIMITS_S = {"days, 30": 0.5}

RUNS = f"""
CREATE TEMP TABLE planned AS
SELECT *, row_number() OVER ()::INTEGER AS sender, CASE WHEN nightly THEN TIMESTAMP '{{first}}' + to_days(day) + INTERVAL 1 HOUR + to_minutes(slot % 8)
               ELSE TIMESTAMP '{{first}}' + to_days(day) + to_hours(slot // {HOURLY_JOBS}) END AS started_at,
    (CASE WHEN nightly THEN 12 ELSE 1 END * {{per_share}})::BIGINT AS sends
FROM (SELECT day::INTEGER AS day, slot::INTEGER AS slot, slot >= {HOURLY_JOBS * 24} AS nightly,
          CASE WHEN slot >= {HOURLY_JOBS * 24} THEN 'nightly-' || (slot - {HOURLY_JOBS * 24}) ELSE 'hourly-' || (slot % {HOURLY_JOBS}) END AS job,
          'pstt-' || (CASE WHEN slot >= {HOURLY_JOBS * 24} THEN slot % 5 ELSE 5 + slot % {HOURLY_JOBS} % 2 END) AS topic,
          substr(md5(day || '-' || slot), 1, 10) AS run_id
      FROM range({{days}}) d(day), range({RUNS_A_DAY}) s(slot))
ORDER BY started_at, slot
"""
SENDERS = "INSERT INTO sender SELECT sender, run_id, job, topic, 'collaudo', 'bench', '127.0.0.1:9092' FROM planned"
# Latencies are log-normal, with a median of about 12 ms and a 99th percentile of 80 ms; one send in 5,000 fails, one in 100 is retried.
SENDS = """
INSERT INTO send SELECT sender, CASE WHEN failed THEN NULL ELSE (h % 6)::INTEGER END,
    CASE WHEN failed THEN NULL ELSE n END, key, md5(run_id || n)::UUID, NULL, 600 + (h % 200)::INTEGER,
    started_at + to_microseconds(n * 50), CASE WHEN failed THEN NULL ELSE round(latency * 1000)::BIGINT END,
    CASE WHEN h % 100 = 7 THEN 2 ELSE 1 END::SMALLINT, CASE WHEN failed THEN 'failed' ELSE 'acknowledged' END,
    CASE WHEN failed THEN 'no acknowledgement from topic "' || topic || '": none within 30 s' END,
    CASE WHEN failed THEN 'DeliveryTimeout' END, key_hash(key), key_head(key)
FROM (SELECT *, h % 5000 = 7 AS failed, (572680000000 + h % 40000000000)::VARCHAR AS key,
          exp(2.5 + 0.8 * sqrt(-2 * ln((h % 1000003 + 1) / 1000004.0)) * cos(6.2831853 * (h % 999983) / 999983.0)) AS latency
      FROM (SELECT *, hash(run_id, n) AS h FROM (
                SELECT sender, run_id, topic, started_at, unnest(range(sends)) AS n FROM planned WHERE day BETWEEN ? AND ?)))
"""
TRAFFIC = "INSERT INTO traffic SELECT {as_traffic} FROM sends WHERE sent_at >= ? AND sent_at < ? GROUP BY ALL"


def make_year(workspace: Workspace, rows: int, days: int, now: datetime) -> None:
    """Fills the workspace with `rows` sends over the `days` that end today."""
    first = (now - timedelta(days=days - 1)).replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
    workspace.spool_dir.mkdir(parents=True, exist_ok=True)
    with duckdb.connect(str(workspace.metrics_file)) as db:
        db.execute(metrics_sql()["schema"])
        db.execute(metrics_sql()["view_sends_copied"].replace("CREATE VIEW", "CREATE TEMP VIEW"))
        db.execute(RUNS.format(first=first, days=days, per_share=rows / days / SHARES))
        db.execute(SENDERS)
        for begin in range(0, days, 30):
            end = min(begin + 29, days - 1)
            db.execute(SENDS, [begin, end])
            span = [first + timedelta(days=begin), first + timedelta(days=end + 1)]
            db.execute(TRAFFIC.replace("{as_traffic}", metrics_sql()["as_traffic"]), span)
            print(f"  {end + 1} of {days} days", flush=True)
        db.execute("INSERT INTO segment SELECT run_id || '-000001.parquet', sends, started_at FROM planned")
        runs = db.execute("SELECT run_id, job, topic, started_at, sends FROM planned").fetchall()
    for run_id, *_ in runs:
        (workspace.spool_dir / f"{run_id}-000001.parquet").touch()
    _fill_ledger(workspace, runs)
    Metrics(workspace).sync()


def _fill_ledger(workspace: Workspace, runs: list[tuple[Any, ...]]) -> None:
    Ledger(workspace.ledger_file).close()
    filled = {
        "kind": "job", "connection": "A00", "query": "export.sql", "timezone": ZONE, "attempt": 1,
        "asked_by": "calendar", "parameters": "{}", "sql_sha256": "0" * 64, "sql_text": "SELECT 1", "pid": 1,
        "pid_started_at": 0.0, "host": "bench", "state": "succeeded", "latency_avg_ms": 17.0,
    }  # fmt: skip
    rows = []
    for number, (run_id, job, topic, started_at, sends) in enumerate(runs):
        began = f"{started_at.isoformat(timespec='seconds')}Z"
        ended = f"{(started_at + timedelta(seconds=30)).isoformat(timespec='seconds')}Z"
        rejected = 1 if number % 50 == 0 else 0
        rows.append({
            **filled, "run_id": run_id, "job": job, "job_name": job, "topic": topic, "cluster": ("collaudo", "produzione")[number % 2],
            "scheduled_at": began, "started_at": began, "finished_at": ended, "rows_read": sends + rejected, "sent": sends,
            "acknowledged": sends, "rejected": rejected, "duration_s": 30.0,
        })  # fmt: skip
    names = list(rows[0])
    db = sqlite3.connect(workspace.ledger_file)
    with db:
        db.executemany(f"INSERT INTO run ({', '.join(names)}) VALUES ({', '.join(':' + n for n in names)})", rows)
        rejects = [
            (row["run_id"], 1, "IMPORTO", "float8", "NaN has no JSON form", "1") for row in rows if row["rejected"]
        ]
        db.executemany("INSERT INTO reject VALUES (?, ?, ?, ?, ?, ?, NULL)", rejects)
    db.close()


def _forget(workspace: Workspace) -> None:
    """Drops the file from the system's cache, if the system can do that."""
    if not hasattr(os, "posix_fadvise"):
        return
    with workspace.metrics_file.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def questions(now: datetime) -> dict[str, Callable[[MetricsQueries], Any]]:
    """Returns every query of the dashboard, then the others."""
    month, day = now - timedelta(days=30), now - timedelta(days=1)
    return {
        "summary": lambda f: f.summary(now),
        "days, 30": lambda f: f.days(now),
        "usual band of 30 days": lambda f: f.usual_days(now),
        "usual today": lambda f: f.usual(now),
        "hours, 7 days": lambda f: f.hours(now - timedelta(days=7), now),
        "errors, 30 days": lambda f: f.errors(month, now),
        "run errors, 30 days": lambda f: f.run_errors(month, now),
        "by job, 1 day": lambda f: f.by_job(day, now),
        "runs, 1 day": lambda f: f.runs(day, now, limit=50),
    }


def more_questions(key: str, now: datetime) -> dict[str, Callable[[MetricsQueries], Any]]:
    year, month = now - timedelta(days=365), now - timedelta(days=30)
    return {
        "totals, 5 min": lambda f: f.totals(now - timedelta(minutes=5), now),
        "totals, all": lambda f: f.totals(year, now),
        "summary of a cluster": lambda f: f.summary(now, SendFilter(cluster="collaudo")),
        "days of a job": lambda f: f.days(now, 30, SendFilter(job="hourly-1")),
        "days, 365": lambda f: f.days(now, 365),
        "hours, 30 days": lambda f: f.hours(month, now),
        "by job, 30 days": lambda f: f.by_job(month, now),
        "by topic, all": lambda f: f.by_topic(year, now),
        "errors, all": lambda f: f.errors(year, now),
        "reject reasons, all": lambda f: f.reject_reasons(year, now),
        "find a key": lambda f: f.find(key),
        "find no key": lambda f: f.find("nowhere"),
        "find the start, 9 digits": lambda f: f.find_beginning(key[:9]),
        "find the start, 6 digits": lambda f: f.find_beginning(key[:6]),
        "find the start, 2 digits": lambda f: f.find_beginning(key[:2]),
    }


def main(rows: int, days: int, folder: Path, *, with_retention: bool = False) -> int:
    """Makes the workspace if it does not exist, runs all queries, prints; returns the number of limits that are exceeded."""
    workspace = Workspace(folder)
    now = datetime.now(UTC)
    started = time.perf_counter()
    if not workspace.metrics_file.exists():
        make_year(workspace, rows, days, now)
        print(f"made in {time.perf_counter() - started:.0f} s")
    metrics = Metrics(workspace)
    size_gb = workspace.metrics_file.stat().st_size / 1e9
    with metrics.reading() as db:
        counts = [db.execute(f"SELECT count(*) FROM {view}").fetchone()[0] for view in ("sends", "runs", "traffic")]
        key = db.execute("SELECT key FROM sends OFFSET 1000 LIMIT 1").fetchone()[0]
    each = workspace.metrics_file.stat().st_size / counts[0]
    print(f"{counts[0]:,} sends, {counts[1]:,} runs, {counts[2]:,} rows of traffic, {size_gb:.2f} GB")
    broken = _line("bytes a send", each, MOST_BYTES if counts[0] >= FEWEST_WEIGHED else None, unit="")

    if hasattr(os, "getloadavg"):
        print(f"{os.cpu_count()} processors, {os.getloadavg()[0]:.1f} processes want them")
    print(f"\n{'':<50} {'s':>8} {'CPU s':>8} {'again s':>8}")
    _forget(workspace)
    opened_s, _ = _timed(Metrics(workspace), lambda figures: None)
    _forget(workspace)
    dashboard = questions(now).values()
    together_s, cpu_s = _timed(Metrics(workspace), lambda figures: [ask(figures) for ask in dashboard])
    broken += _line("dashboard, all its questions, file not in memory", together_s, 2.0, cpu_s)
    _line("  of which opening", opened_s, None)
    for name, ask in {**questions(now), **more_questions(key, now)}.items():
        _forget(workspace)
        (cold_s, cpu_s), (warm_s, _) = (_timed(metrics, ask) for _ in range(2))
        broken += _line(name, cold_s, None if name == WHOLE_YEAR else LIMITS_S.get(name, 1.0), cpu_s, warm_s)
    broken += measure_rebuild()
    if with_retention:
        measure_retention(workspace, days, now)
    return broken


def _timed(metrics: Metrics, ask: Callable[[MetricsQueries], Any]) -> tuple[float, float]:
    """Returns wall clock and processor time, in seconds."""
    started, cpu = time.perf_counter(), time.process_time()
    with metrics.figures(ZONE) as figures:
        ask(figures)
    return time.perf_counter() - started, time.process_time() - cpu


def measure_rebuild(sends: int = REBUILT_SENDS) -> int:
    """Makes a spool with `sends` sends in segments of the product's size, rebuilds metrics.duckdb and prints. Returns 1 if slow."""
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(Path(folder))
        batch = 2_000
        for run in range(sends // SEGMENT_SENDS):
            spool = Spool(workspace.spool_dir, run_id=f"{run:010x}", job="nightly-1")
            for first in range(run * SEGMENT_SENDS, (run + 1) * SEGMENT_SENDS, batch):
                numbers = range(first, first + batch)
                keys = [b"%d" % (572_680_000_000 + n * 7_919 % 40_000_000_000) for n in numbers]
                ids = [hashlib.md5(b"%d" % n, usedforsecurity=False).hexdigest().encode() for n in numbers]
                delivery = Delivery.of(Batch(1, "pstt-1", keys, [b"x" * 600] * batch, ids, range(batch)))
                delivery.partitions = array("i", [n % 6 for n in numbers])
                delivery.offsets = array("q", numbers)
                delivery.latencies_ms = array("d", [8 + n * 13 % 997 / 37 for n in numbers])
                delivery.sent_at_us = array("q", [1_790_000_000_000_000 + n * 50 for n in numbers])
                delivery.attempts = array("i", [1] * batch)
                spool.record(delivery)
            spool.close()
        metrics = Metrics(workspace)
        started, cpu = time.perf_counter(), time.process_time()
        found = metrics.rebuild()
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
        print(
            f"\nrebuild of {found.sends:,} sends: {found.sends / seconds:,.0f} a second, {cpu:.1f} s of processor time"
        )
        return int(found.sends / seconds < LEAST_REBUILT_A_SECOND)


def measure_merging(segments: int, sends: int = 10) -> None:
    """Makes this many segments of one job that runs each minute, and prints what they cost before and after they are merged."""
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(Path(folder))
        now = datetime.now(UTC)
        _make_small_segments(workspace, segments, sends, now)
        metrics = Metrics(workspace, ZONE)
        print(f"\n{segments:,} segments of {sends} sends{'':<20} {'s':>8} {'CPU s':>8}")
        _step("copy", metrics.sync)
        _ask_small(workspace, now)
        made = MergeResult()
        started, cpu = time.perf_counter(), time.process_time()
        # They have no run in the ledger, so that their day is the one on which they were copied: today.
        while not (done := merge_small(metrics, ZONE, now + timedelta(days=1))).is_complete:
            made = MergeResult(made.files + done.files, made.replaced + done.replaced)
        made = MergeResult(made.files + done.files, made.replaced + done.replaced)
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
        print(f"{f'merge {made.replaced:,} into {made.files:,}':<50} {seconds:8.2f} {cpu:8.2f}")
        _ask_small(workspace, now)


def _make_small_segments(workspace: Workspace, segments: int, sends: int, now: datetime) -> None:
    workspace.spool_dir.mkdir(parents=True)
    Ledger(workspace.ledger_file).close()
    for number in range(segments):
        run_id, first = f"{number:010x}", number * sends
        moment = (now - timedelta(days=2, minutes=segments - number)).replace(tzinfo=None)
        numbers = range(first, first + sends)
        rows = {
            "run_id": [run_id] * sends,
            "job": ["each-minute"] * sends,
            "topic": ["pstt-1"] * sends,
            "partition": [n % 6 for n in numbers],
            "offset": list(numbers),
            "key": [str(572_680_000_000 + n * 7_919 % 40_000_000_000) for n in numbers],
            "message_id": [hashlib.md5(b"%d" % n, usedforsecurity=False).hexdigest() for n in numbers],
            "size_bytes": [600] * sends,
            "sent_at": [moment + timedelta(microseconds=50 * n) for n in range(sends)],
            "latency_ms": [8 + n * 13 % 997 / 37 for n in numbers],
            "attempt": [1] * sends,
            "status": ["acknowledged"] * sends,
        }
        columns = {field.name: rows.get(field.name, [None] * sends) for field in SEND_SCHEMA}
        pq.write_table(
            pa.table(columns, schema=SEND_SCHEMA),
            workspace.spool_dir / f"{run_id}-000001.parquet",
            compression="zstd",
            use_dictionary=["run_id", "job", "topic", "status"],
        )


def _ask_small(workspace: Workspace, now: datetime) -> None:
    size = sum(path.stat().st_blocks * 512 for path in workspace.spool_dir.iterdir())
    print(f"files in the spool: {len(os.listdir(workspace.spool_dir)):,}, {size / 1e6:.0f} MB on the disk")
    metrics = Metrics(workspace, ZONE)
    _step("list the spool", metrics.segment_names)
    _step("summary", lambda: Metrics(workspace, ZONE).summary(now, ZONE))
    _step("find a key", lambda: Metrics(workspace, ZONE).find("572680007919"))
    _step("rebuild", metrics.rebuild)


def _step(name: str, act: Callable[[], object]) -> None:
    started, cpu = time.perf_counter(), time.process_time()
    act()
    print(f"{name:<50} {time.perf_counter() - started:8.2f} {time.process_time() - cpu:8.2f}", flush=True)


def measure_retention(workspace: Workspace, days: int, now: datetime) -> None:
    """Rolls up the oldest day, then all but 30 days, and prints time and sizes."""
    metrics = Metrics(workspace, ZONE)
    print(
        f"\n{'roll up':<32} {'sends':>12} {'s':>8} {'CPU s':>8} {'GB before':>10} {'after':>7} {'days.parquet, MB':>17}"
    )
    for name, kept in (("the oldest day", days - 2), ("all but 30 days", 30)):
        before = workspace.metrics_file.stat().st_size
        started, cpu = time.perf_counter(), time.process_time()
        done = roll_up(metrics, Retention(kept, ZONE), now)
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
        after, counts = workspace.metrics_file.stat().st_size, metrics.rolled_up.file.stat().st_size
        print(
            f"{name:<32} {done.sends:>12,} {seconds:8.1f} {cpu:8.1f} {before / 1e9:10.2f} {after / 1e9:7.2f} {counts / 1e6:17.2f}"
        )


def _line(name: str, seconds: float, limit_s: float | None, *more_s: float, unit: str = " s") -> bool:
    is_over = limit_s is not None and seconds > limit_s
    sign = "" if limit_s is None else f"{'FAIL' if is_over else 'pass'}  ≤ {limit_s:g}{unit}"
    more = " ".join(f"{value:8.3f}" for value in more_s)
    print(f"{name:<50} {seconds:8.3f} {more:<17}   {sign}", flush=True)
    return is_over
