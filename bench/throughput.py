"""The contest: contestants over the same rows and with the same producer settings, in turn, several times.

The table is read from a real PostgreSQL and the messages go to a real Kafka, all on this machine. `b`, `o`, `x`, `s`
and `p` are whole processes, as a user starts them: start-up and the copy of the sends in metrics.duckdb count. `r` is
the process of a run beside a working runner, which copies the sends later; what the runner used is printed by itself.
`k` is a whole process up to its last message. `a`, `c`, `d` and `e` measure themselves, without their start-up.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil

from bench.arrival import Arrival
from bench.baseline import checked_out
from bench.connect import Peer
from bench.distant import DistantKafka
from bench.figures import (
    HEAD,
    NOT_MEASURED,
    Figure,
    Measurement,
    NotMeasured,
    best,
    line,
    median,
    rate,
    rate_ratio,
    ratio,
)
from bench.kills import start_runner, stop_runner
from bench.processes import cpu_of, cpu_of_children, run_measured
from bench.table import QUERY, make_table
from core.kafka.clients import CLIENTS
from core.records.ledger import Ledger
from core.workspace.paths import Workspace
from tests.rigs.kafka import KafkaRig
from tests.rigs.postgres import PostgresRig
from tests.rigs.waiting import until
from tests.rigs.workspace import ROOT, command, environment, make_workspace, run_command

NAMES = {
    "a": "a  limit, messages made beforehand",
    "b": "b  python -m core run",
    "r": "r  b beside a runner, which copies the sends",
    "k": "k  Kafka Connect, Aiven's JDBC source",
    "o": "o  python -m core run of the baseline",
    "x": "x  b with exactly_once",
    "c": "c  by hand: pandas, kafka-python-ng",
    "d": "d  bare kafka-python-ng loop",
    "e": "e  in-process run with kafka-python-ng",
    "s": "s  b with 100 rows",
    "p": "p  b, one partition of a distant broker",
    "h": "h  python -m core --help and demo",
}
IN_TURN = "abrkox"
"""These are compared with each other, at each size of a record batch. The others run at the first size only."""
SLOW_ROWS = 200_000
"""Of d and e, which are only compared with each other; a million futures would be another contest."""
SMALL_ROWS = 100
SMALL_RUNS = 5
DEFAULT_SIZES = (16_384, 131_072)


@dataclass(frozen=True)
class Options:
    """What is measured."""

    rows: int = 1_000_000
    repeat: int = 3
    sizes: tuple[int, ...] = DEFAULT_SIZES
    """KAFKA_BATCH_SIZE in bytes."""
    only: frozenset[str] = frozenset(NAMES)
    """Letters of NAMES."""
    client: str | None = None
    """The client of b, x, s and p; None: the product's default."""
    peer: Path | None = None
    """Where the connector of k is."""
    peer_java: tuple[str, ...] = ()
    """More options of the JVM of k."""
    baseline: str | None = None
    """The commit of o."""
    round_trip_ms: float = 20
    """To the distant broker of p."""


@dataclass
class Results:
    """Every measurement, and why a contestant has none."""

    measured: dict[tuple[str, int], list[Measurement]] = field(default_factory=lambda: defaultdict(list))
    """Contestant, size of a record batch → its measurements."""
    missing: dict[str, str] = field(default_factory=dict)
    """Contestant → why it was not measured."""

    def add(self, who: str, size: int, measured: Measurement) -> None:
        """Keeps a measurement and prints its line."""
        self.measured[who, size].append(measured)
        print(line(f"{NAMES[who]}, {size:,} B", measured), flush=True)

    def leave_out(self, who: str, why: str) -> None:
        """Notes why a contestant is not measured, and prints it."""
        self.missing[who] = why
        print(f"{NAMES[who]:<50} {NOT_MEASURED}: {why}", flush=True)


def contest(who: str, workspace: Path, postgres: PostgresRig, kafka: KafkaRig, rows: int) -> Measurement:
    """Runs a contestant that measures itself.

    Raises:
        NotMeasured: It failed; what it said is on the terminal.
    """
    words = [sys.executable, "-m", "bench.contestant", who, str(workspace), str(rows), str(kafka.pid)]
    done = subprocess.run(words, cwd=ROOT, env=environment(postgres), stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise NotMeasured(f"contestant {who} failed with code {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def whole_run(workspace: Path, postgres: PostgresRig, kafka: KafkaRig, rows: int, program: Path = ROOT) -> Measurement:
    """Runs `python -m core run export` as a user does, from the start of the process to its end.

    Args:
        workspace: It has the job `export`.
        postgres: Where its rows are.
        kafka: Where its messages go.
        rows: How many it has.
        program: The folder of the program's files.

    Raises:
        NotMeasured: The run failed, or did not send all rows.
    """
    job = json.loads((workspace / "queries" / "export.job.json").read_text(encoding="utf-8"))
    arrival = Arrival(kafka.plaintext, job["kafka_config"]["topic"], rows)
    broker = psutil.Process(kafka.pid)
    before = cpu_of(broker)
    # Users have compiled modules; where a shell forbids to write them, each process would compile them, 0.3 s.
    env = environment(postgres, PYTHONPATH=str(program), PYTHONDONTWRITEBYTECODE="")
    ended = run_measured(command("run", "export", "--json"), cwd=workspace, env=env, poll=arrival.poll)
    broker_cpu_s = cpu_of(broker) - before
    if ended.code:
        raise NotMeasured(f"python -m core run ended with code {ended.code}:\n{ended.output}{ended.errors}")
    run = json.loads(ended.output)
    if run["acknowledged"] != rows:
        raise NotMeasured(f"the run sent {run['acknowledged']:,} messages for {rows:,} rows")
    return {
        "rows": rows,
        "seconds": ended.seconds,
        "cpu_s": ended.usage.cpu_s,
        "broker_cpu_s": broker_cpu_s,
        "peak_mb": ended.usage.peak_mb,
        "p50_ms": run["latency_ms"]["p50"],
        "p99_ms": run["latency_ms"]["p99"],
        # Markers of transactions count as messages there.
        "between_s": arrival.between_s if job.get("delivery") is None else None,
        "verdict_s": datetime.fromisoformat(run["finished_at"]).timestamp() - ended.started_at,
    }


def run_beside_runner(workspace: Path, postgres: PostgresRig, kafka: KafkaRig, rows: int) -> Measurement:
    """Does the same as `whole_run` while a runner works in the workspace, and stops the runner when it is over.

    Returns:
        The figures of the run's process alone. `runner_cpu_s` is what the runner used: its start, and the copy that it
        makes at its end at the latest.

    Raises:
        NotMeasured: The run failed, or the runner did.
    """
    used_before = cpu_of_children()
    runner = start_runner(workspace, environment(postgres))
    try:
        with Ledger(Workspace(workspace).ledger_file) as ledger:
            until(lambda: (found := ledger.heartbeats.newest()) is not None and found.state == "working", "the runner")
        measured = whole_run(workspace, postgres, kafka, rows)
    finally:
        code = stop_runner(runner)
    if code:
        raise NotMeasured(f"the runner ended with code {code}")
    if used_before is None:
        return measured
    return measured | {"runner_cpu_s": (cpu_of_children() or 0) - used_before - measured["cpu_s"]}


def seconds_of(*words: str, program: Path = ROOT) -> float:
    """Returns the wall clock of `python -m core …` in an empty folder, in seconds."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        done = run_command(*words, env=environment(PYTHONPATH=str(program)), cwd=Path(folder))
        seconds = time.perf_counter() - started
    if done.returncode:
        sys.exit(f"python -m core {' '.join(words)} ended with code {done.returncode}:\n{done.stderr}")
    return seconds


class Contest:
    """The contestants over one database.

    Args:
        options: What is measured.
        folder: Where the workspaces are made.
        postgres: It has the table.
        results: Where the measurements are kept.
        program: The files of the baseline; None: it is left out already.
        peer: None: it is left out already.
    """

    def __init__(
        self,
        options: Options,
        folder: Path,
        postgres: PostgresRig,
        results: Results,
        program: Path | None,
        peer: Peer | None,
    ) -> None:
        self._options, self._folder, self._postgres, self._results = options, folder, postgres, results
        self._program, self._peer = program, peer

    def run(self, kafka: KafkaRig) -> None:
        """Runs every chosen contestant but `p`."""
        options, slow = self._options, min(self._options.rows, SLOW_ROWS)
        first = options.sizes[0]
        # The broker's JVM compiles its code; whoever came first would pay for that.
        for size in options.sizes:
            place = self._place("a", size, kafka)
            contest("a", place, self._postgres, kafka, options.rows)
        print(HEAD)
        in_turn = [(who, size) for who in IN_TURN for size in options.sizes]
        self._run_in_turn(in_turn, kafka, options.repeat, options.rows)
        self._run_in_turn([("c", first)], kafka, 1, options.rows)
        self._run_in_turn([("d", first), ("e", first)], kafka, options.repeat, slow)
        self._run_in_turn([("s", first)], kafka, SMALL_RUNS, SMALL_ROWS)

    def run_distant(self) -> None:
        """Runs `p`, on a broker of its own."""
        with DistantKafka(self._options.round_trip_ms / 1000) as kafka:
            for size in self._options.sizes:
                place = self._place("p", size, kafka, partitions=1, bootstrap_servers=kafka.distant)
                self._measure("p", size, place, kafka, self._options.rows)

    def _run_in_turn(self, contestants: list[tuple[str, int]], kafka: KafkaRig, turns: int, rows: int) -> None:
        limit = rows if rows < self._options.rows else None
        places = {
            (who, size): self._place(who, size, kafka, rows=limit)
            for who, size in contestants
            if who in self._options.only
        }
        for turn in range(turns):
            # Every second turn begins at the other end, so that no contestant is always the first one.
            for who, size in reversed(places) if turn % 2 else places:
                self._measure(who, size, places[who, size], kafka, rows)

    def _measure(self, who: str, size: int, place: Path, kafka: KafkaRig, rows: int) -> None:
        """Measures a contestant once, unless it is left out; one that fails is left out from then on."""
        if who in self._results.missing:
            return
        try:
            if who in "acde":
                measured = contest(who, place, self._postgres, kafka, rows)
            elif who == "k":
                assert self._peer
                topic = kafka.create_topic(partitions=6)
                measured = self._peer.measure(self._postgres, kafka, topic=topic, rows=rows, batch_size=size)
            elif who == "r":
                measured = run_beside_runner(place, self._postgres, kafka, rows)
            else:
                program = self._program if who == "o" else ROOT
                assert program
                measured = whole_run(place, self._postgres, kafka, rows, program)
        except NotMeasured as failed:
            self._results.leave_out(who, str(failed))
        else:
            self._results.add(who, size, measured)

    def _place(
        self,
        who: str,
        size: int,
        kafka: KafkaRig,
        *,
        rows: int | None = None,
        partitions: int = 6,
        bootstrap_servers: str | None = None,
    ) -> Path:
        """Makes a contestant's workspace, with a topic of its own."""
        cluster: dict[str, Any] = {"batch_size": size}
        client = "kafka-python-ng" if who in "de" else self._options.client if who in "brxsp" else None
        if client:
            cluster |= {"client": client}
        if client and not CLIENTS[client].is_idempotent:
            cluster |= {"enable_idempotence": False}
        return make_workspace(
            Path(tempfile.mkdtemp(prefix=f"{who}-", dir=self._folder)),
            postgres=self._postgres,
            bootstrap_servers=bootstrap_servers or kafka.plaintext,
            topic=kafka.create_topic(partitions=partitions),
            sql=f"{QUERY} LIMIT {rows}" if rows else QUERY,
            cluster=cluster,
            job={"delivery": "exactly_once"} if who == "x" else None,
        )


def throughput(options: Options) -> None:
    """Measures, and prints each measurement, medians and best ones, and the required figures."""
    print(f"load of the machine before: {_load()}")
    results = Results()
    starts: dict[str, float | None] = {}
    with ExitStack() as stack:
        program = _baseline(options, results, stack)
        peer = _peer(options, results, stack)
        if "x" in options.only and options.client and not CLIENTS[options.client].is_idempotent:
            results.leave_out("x", f"{options.client} has no transactions")
        if "h" in options.only:
            starts = _starts(program)
        if options.only - {"h"} - set(results.missing):
            postgres = stack.enter_context(PostgresRig())
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            make_table(postgres, options.rows)
            contestants = Contest(options, folder, postgres, results, program, peer)
            if options.only - {"h", "p"}:
                with KafkaRig(for_long=True) as kafka:
                    contestants.run(kafka)
            if "p" in options.only:
                contestants.run_distant()
    _print_summary(results)
    _print_figures(options, results, starts)
    print(f"\nload of the machine after: {_load()}; memory over 10,000,000 rows: python -m bench memory")


def _baseline(options: Options, results: Results, stack: ExitStack) -> Path | None:
    if "o" not in options.only and "h" not in options.only:
        return None
    if options.baseline:
        return stack.enter_context(checked_out(options.baseline))
    if "o" in options.only:
        results.leave_out("o", "no --baseline COMMIT")
    return None


def _starts(program: Path | None) -> dict[str, float | None]:
    """The seconds of commands that need no server, each the best of some tries in turn; None without a baseline."""
    tries = [
        {
            "demo": seconds_of("demo"),
            "demo of one day": seconds_of("demo", "--rows", "20000", "--days", "0") if program else math.inf,
            "demo of the baseline": seconds_of("demo", program=program) if program else math.inf,
            "help": seconds_of("--help"),
        }
        for _ in range(3)
    ]
    found = {name: min(taken[name] for taken in tries) for name in tries[0]}
    return {name: None if math.isinf(seconds) else seconds for name, seconds in found.items()}


def _peer(options: Options, results: Results, stack: ExitStack) -> Peer | None:
    if "k" not in options.only:
        return None
    try:
        return stack.enter_context(Peer(options.peer, options.peer_java))
    except NotMeasured as missing:
        results.leave_out("k", str(missing))
        return None


def _load() -> str:
    return " ".join(f"{value:.1f}" for value in psutil.getloadavg()) + f" (1, 5, 15 minutes; {os.cpu_count()} cores)"


def _print_summary(results: Results) -> None:
    print(f"\n{HEAD}")
    for (who, size), measured in results.measured.items():
        for name, found in (("median", median(measured)), ("best", best(measured))):
            assert found
            print(line(f"{who} {size:,} B, {name} of {len(measured)}", found))
    copied = [m["runner_cpu_s"] for (who, _), each in results.measured.items() if who == "r" for m in each]
    if copied:
        print(
            f"r: beside the run, the runner used {statistics.median(copied):.1f} s of CPU: its start and the copy of the sends"
        )
    for who, why in results.missing.items():
        print(f"{NAMES[who]:<50} {NOT_MEASURED}: {why.splitlines()[0]}")


def _print_figures(options: Options, results: Results, starts: dict[str, float | None]) -> None:
    measured, first = results.measured, options.sizes[0]

    def of(who: str, size: int = first) -> list[Measurement]:
        return measured.get((who, size), [])

    for size in options.sizes:
        _print_chosen(
            f"{size:,} bytes a record batch, medians", _figures_of_size({who: of(who, size) for who in NAMES}), options
        )
    small = median(of("s"))
    demo_before = starts.get("demo of the baseline")
    one_day = starts.get("demo of one day")
    once = (
        Figure("b/c, messages a second", rate_ratio(median(of("b")), median(of("c"))), "≥ 15", "bc"),
        Figure("e/d, kafka-python-ng against its own limit", rate_ratio(best(of("e")), best(of("d"))), "≥ 0.8", "de"),
        Figure("a job of 100 rows, s from process start to verdict", small and small["verdict_s"], "≤ 1.0", "s"),
        Figure("python -m core demo, s", starts.get("demo"), "≤ 15 s", "h"),
        # A tenth for the noise of the measurement. Earlier commits made no history.
        Figure(
            "the demo's newest day, against the baseline",
            one_day and demo_before and one_day / demo_before,
            "≤ 1.1",
            "h",
        ),
        Figure("python -m core --help, s", starts.get("help"), "≤ 0.5 s", "h"),
    )
    _print_chosen(f"{first:,} bytes a record batch, or none", once, options)


def _print_chosen(title: str, figures: Sequence[Figure], options: Options) -> None:
    """Prints the figures whose contestants were all chosen."""
    if chosen := [figure for figure in figures if set(figure.contestants) <= options.only]:
        print("", title, *chosen, sep="\n")


def _figures_of_size(of: dict[str, list[Measurement]]) -> Sequence[Figure]:
    """The figures that are asked for at each size of a record batch, from the measurements of each contestant."""
    a, b, r, k, o, x, p = (median(of[who]) for who in "abrkoxp")
    largest_mb = max((m["peak_mb"] for m in of["b"]), default=None)
    return (
        Figure("b/a, messages a second, against the limit", rate_ratio(b, a), "≥ 1.0", "ab"),
        Figure("b/k, messages a second, whole processes", rate_ratio(b, k), "≥ 1.5", "bk"),
        Figure("b/k, messages a second, first to last message", ratio("between_s", k, b), "≥ 1.5", "bk"),
        Figure("b/k, CPU of the process", ratio("cpu_s", b, k), "≤ 0.4", "bk"),
        Figure("b/k, peak memory", ratio("peak_mb", b, k), "≤ 0.25", "bk"),
        Figure("r/k, messages a second, beside a runner", rate_ratio(r, k), "≥ 1.5", "rk"),
        Figure("r/k, CPU of the process", ratio("cpu_s", r, k), "≤ 0.4", "rk"),
        Figure("r/k, peak memory", ratio("peak_mb", r, k), "≤ 0.25", "rk"),
        Figure("b/o, CPU of the process, against the baseline", ratio("cpu_s", b, o), "≤ 0.45", "bo"),
        Figure("b/o, CPU of the broker", ratio("broker_cpu_s", b, o), "≤ 0.5", "bo"),
        Figure("x/b, exactly_once against at_least_once", rate_ratio(x, b), "≥ 0.9", "bx"),
        Figure("p99 of b at full speed, ms", b and b["p99_ms"], "≤ 100 ms", "b"),
        Figure("peak memory of b, the largest, MB", largest_mb, "≤ 230 MB", "b"),
        Figure("p, one partition of a distant broker, messages a second", p and rate(p), "≥ 30000", "p"),
    )
