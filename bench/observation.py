"""What lineage and traces cost: the CPU of a run with them and without, over SQLite and mock brokers, in turn."""

from __future__ import annotations

import json
import os
import resource
import sqlite3
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from tests.rigs.http_receiver import http_receiver

__all__ = ["main"]


def make_place(folder: Path, rows: int) -> None:
    """Makes a workspace with a table of parcels in SQLite, mock brokers, and the job `parcel`."""
    (folder / "queries").mkdir()
    with closing(sqlite3.connect(folder / "parcel.sqlite")) as db, db:
        db.execute("CREATE TABLE parcel (barcode TEXT, office TEXT, weight INTEGER, seen TIMESTAMP, note TEXT)")
        made = (
            (f"57{n:010}", f"O{n % 977}", n % 3000, f"2026-01-17 {n % 24:02}:{n % 60:02}:00", f"note {n}")
            for n in range(rows)
        )
        db.executemany("INSERT INTO parcel VALUES (?, ?, ?, ?, ?)", made)
    document = {
        "connections": [
            {"name": "LITE", "environment": "test", "db_type": "sqlite", "database": "parcel.sqlite"},
        ],
        "kafka_connections": {"test": {"name": "Mock", "mock_brokers": 1}},
    }
    job = {
        "name": "Parcel",
        "query": "parcel.sql",
        "connection": "LITE",
        "kafka_config": {"topic": "parcel", "message_key_field": "barcode"},
    }
    (folder / "connections.json").write_text(json.dumps(document), encoding="utf-8")
    (folder / "queries/parcel.sql").write_text("SELECT * FROM parcel", encoding="utf-8")
    (folder / "queries/parcel.job.json").write_text(json.dumps(job), encoding="utf-8")


def cpu_s(folder: Path, rows: int, variables: Mapping[str, str]) -> float:
    """Runs the job once in a process of its own. Returns its user and system time, in seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    words = ["run", "parcel", "--json", "--workspace", str(folder)]
    done = subprocess.run(
        [sys.executable, "-m", "core", *words],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    acknowledged = json.loads(done.stdout).get("acknowledged")
    if acknowledged != rows:
        sys.exit(f"{acknowledged} of {rows} rows: {done.stdout}{done.stderr}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main(rows: int, repeat: int) -> None:
    """Prints the CPU seconds of a run without both, with OpenLineage into a file, and with OpenTelemetry over HTTP."""
    with tempfile.TemporaryDirectory() as name, http_receiver() as collector:
        folder = Path(name)
        make_place(folder, rows)
        kinds: dict[str, dict[str, str]] = {
            "off": {},
            "lineage into a file": {"PSTT_LINEAGE_FILE": "lineage.jsonl"},
            "traces and metrics": {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url},
        }
        cpu_s(folder, rows, {})  # reads the files of Python into the cache
        found: dict[str, list[float]] = {kind: [] for kind in kinds}
        for _ in range(repeat):
            for kind, variables in kinds.items():
                found[kind].append(cpu_s(folder, rows, variables))
        events = len((folder / "lineage.jsonl").read_text(encoding="utf-8").splitlines())
        if events != 2 * repeat or len(collector.requests) < repeat:
            sys.exit(f"{events} events and {len(collector.requests)} requests arrived")
    off = statistics.median(found["off"])
    print(f"{rows:,} rows, {repeat} runs each in turn, CPU seconds (user and system) of the process")
    for kind, seconds in found.items():
        middle = statistics.median(seconds)
        print(f"{kind:<22} median {middle:.2f}  best {min(seconds):.2f}  against off {middle - off:+.2f} s")
