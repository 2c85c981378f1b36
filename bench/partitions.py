"""Partitioned runs: overhead with one process, gain of two, Dask, memory of each process, how even parts are on Zipf data."""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from bench.figures import Figure
from bench.processes import cpu_of_children
from bench.table import QUERY, make_table
from tests.rigs.dask import DaskRig
from tests.rigs.kafka import KafkaRig
from tests.rigs.postgres import PostgresRig
from tests.rigs.workspace import PASSWORD_VARIABLE, command, environment, make_workspace

POLL_S = 0.2
# 1/x of a uniform number: the first values have most rows, and the tail is long.
ZIPF = """CREATE TABLE zipf AS
    SELECT floor(1000 / power(1 - random(), 0.8))::numeric AS id, g AS n FROM generate_series(1, {rows}) AS g"""


@dataclass
class Run:
    """A run as its user sees it: whole processes, from start to end."""

    seconds: float = 0
    document: dict[str, Any] = field(default_factory=dict)
    cpu_s: float = 0
    """User and system time of the run's process with its children, and of Dask's workers with theirs."""
    resident_mb: dict[int, list[float]] = field(default_factory=dict)
    """Process → its memory in MB, five times a second."""

    @property
    def rate(self) -> float:
        """Messages a second."""
        return float(self.document["acknowledged"]) / self.seconds

    def look(self, process: psutil.Process) -> None:
        """Reads the memory of the process of the run and of those of its parts."""
        try:
            family = [process, *process.children(recursive=True)]
        except psutil.NoSuchProcess:
            return
        for one in family:
            try:
                self.resident_mb.setdefault(one.pid, []).append(one.memory_info().rss / 1e6)
            except psutil.NoSuchProcess:
                continue


def cpu_of(workers: Sequence[psutil.Process]) -> float:
    """Returns the seconds of processor time of these processes and their children, also of those that have ended."""
    total = 0.0
    for worker in workers:
        for one in [worker, *worker.children(recursive=True)]:
            times = one.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


def run_once(folder: Path, env: dict[str, str], at: int, workers: Sequence[psutil.Process] = ()) -> Run:
    """Runs the job of a workspace for a scheduled time of its own; `workers` are those of Dask."""
    before = (cpu_of_children() or 0) + cpu_of(workers)
    words = command("run", "export", "--json", "--at", f"2026-01-{1 + at:02}T02:00")
    run, started = Run(), time.perf_counter()
    process = subprocess.Popen(words, cwd=folder, env=env, stdout=subprocess.PIPE)
    known = psutil.Process(process.pid)
    while process.poll() is None:
        run.look(known)
        time.sleep(POLL_S)
    run.seconds = time.perf_counter() - started
    run.cpu_s = (cpu_of_children() or 0) + cpu_of(workers) - before
    run.document = json.loads(process.stdout.read() if process.stdout else b"{}")
    if run.document.get("verdict") != "complete":
        raise SystemExit(f"the run is not complete: {run.document.get('error')}")
    return run


def line(name: str, run: Run) -> str:
    """Returns a row of the table."""
    peak = max(max(points) for points in run.resident_mb.values())
    return (
        f"{name:<34} {run.document['rows_read']:>11,} {run.seconds:>7.1f} {run.rate:>9,.0f} {run.cpu_s:>7.1f}"
        f" {len(run.resident_mb):>9} {peak:>8.0f}"
    )


def growth(run: Run) -> float:
    """Returns how much a process of parts took in its last third more than in its middle third, at most, in percent.

    The process of the run, which is the first, is left out: at its end it copies all sends into metrics.duckdb.
    """
    found = [0.0]
    for points in list(run.resident_mb.values())[1:]:
        third = len(points) // 3
        if third:
            found.append(100 * (max(points[-third:]) / max(points[third : 2 * third]) - 1))
    return max(found)


def spread(run: Run) -> float:
    """Returns how much larger the largest part is than the smallest, in percent."""
    rows = [part["rows_read"] for part in run.document["parts"]]
    return 100 * (max(rows) / min(rows) - 1)


def main(rows: int, parts: int, repeat: int, *, only_one_process: bool = False, indexed: bool = False) -> None:
    """Measures all of it and prints the figures: medians of runs that take turns.

    Args:
        rows: Rows of the table.
        parts: Parts of a run.
        repeat: How many turns.
        only_one_process: Measures only what parts cost in one process, which needs many turns to be seen.
        indexed: Whether the column of the parts has an index; else the database scans the table for each part.
    """
    with (
        PostgresRig() as postgres,
        KafkaRig(for_long=True) as kafka,
        tempfile.TemporaryDirectory() as folder,
        ExitStack() as stack,
    ):
        workers, on_dask = [], {"DASK_SCHEDULER_ADDRESS": ""}
        if not only_one_process:
            dask = stack.enter_context(DaskRig(Path(folder) / "dask", {PASSWORD_VARIABLE: postgres.password}))
            dask.add_workers(2)
            workers = [psutil.Process(worker.server.pid) for worker in dask.workers]
            on_dask["DASK_SCHEDULER_ADDRESS"] = dask.address
        make_table(postgres, rows)
        with postgres.connect() as connection:
            connection.execute(ZIPF.format(rows=rows).encode())
            connection.execute("ANALYZE zipf")
            if indexed:
                connection.execute("CREATE INDEX ON export_table (arrivetimestamp)")

        def place(name: str, sql: str, column: str | None, key: str) -> Path:
            job: dict[str, Any] = {
                "kafka_config": {"message_key_field": key, "topic": kafka.create_topic(partitions=6)}
            }
            if column:
                job |= {"partitions": {"column": column, "count": parts}, "order": "none"}
            return make_workspace(
                Path(folder) / name,
                postgres=postgres,
                bootstrap_servers=kafka.plaintext,
                topic=job["kafka_config"]["topic"],
                sql=sql,
                job=job,
            )

        plain = place("plain", QUERY, None, "barcode")
        split = place("split", QUERY, "arrivetimestamp", "barcode")
        local = "PSTT_RUN_PROCESSES"
        contestants: dict[str, tuple[Path, dict[str, str]]] = {
            "without partitions": (plain, {}),
            f"{parts} parts, 1 process": (split, {local: "1"}),
        }
        if not only_one_process:
            contestants |= {
                f"{parts} parts, 2 processes": (split, {local: "2"}),
                f"{parts} parts, 2 Dask workers": (split, on_dask),
            }
        runs: dict[str, list[Run]] = {name: [] for name in contestants}
        print(f"{'':<34} {'rows':>11} {'s':>7} {'msg/s':>9} {'CPU s':>7} {'processes':>9} {'peak MB':>8}")
        for turn in range(repeat):
            order = list(contestants.items())
            if turn % 2:  # what comes second may pay for what comes first
                order.reverse()
            for number, (name, (where, variables)) in enumerate(order):
                at = turn * len(contestants) + number
                used = workers if variables is on_dask else ()
                runs[name].append(run_once(where, environment(postgres, **variables), at, used))
                print(line(name, runs[name][-1]), flush=True)
        _print_overhead(*runs.values())
        if only_one_process:
            return
        zipf = place("zipf", "SELECT id, n FROM zipf", "id", "id")
        skewed = run_once(zipf, environment(postgres, PSTT_RUN_PROCESSES="2"), 0)
        print(line(f"{parts} parts of Zipf data, 2 processes", skewed), end="\n\n")
    one_s, two_s, dask_s = (median(run.seconds for run in some) for some in list(runs.values())[1:])
    two_cpu, dask_cpu = (median(run.cpu_s for run in some) for some in list(runs.values())[2:])
    print(Figure("two processes against one", one_s / two_s, "≥ 1.2"))
    print(Figure("two Dask workers against two processes", two_s / dask_s, "≥ 0.9"))
    print(Figure("the same of processor time", two_cpu / dask_cpu, "≥ 0.9"))
    print(Figure("largest against smallest part of Zipf data, %", spread(skewed), "≤ 20 %"))
    print(
        Figure("growth of memory of a process, %", max(growth(run) for some in runs.values() for run in some), "≤ 10 %")
    )


def _print_overhead(whole: Sequence[Run], one: Sequence[Run], *_: Sequence[Run]) -> None:
    """Prints what parts in one process cost."""
    for name, figure in (("time", attrgetter("seconds")), ("processor time", attrgetter("cpu_s"))):
        before, after = (median(map(figure, some)) for some in (whole, one))
        print(Figure(f"overhead of partitions with one process, {name}, %", 100 * (after / before - 1), "≤ 5 %"))
