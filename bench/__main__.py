"""Starts a real Kafka and a real PostgreSQL, runs each contestant in a process of its own, and prints the results.

Contestants, over the same rows and with the same producer settings:

a  the limit: prepared messages, published by the client with delivery reports, nothing else
b  our run: query, messages, sends in the spool, verdict in the ledger, sends in metrics.duckdb
c  a hand-written script: pandas.read_sql, json.dumps and kafka-python-ng; the same messages
d  a bare send loop of kafka-python-ng over prepared messages, and e our run with that client

They run in turn, several times; of each the best counts, since any disturbance makes a run slower. The exit code is always
0: these are measurements, not tests.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.table import QUERY, make_table
from tests.rigs.kafka import KafkaRig
from tests.rigs.postgres import PostgresRig
from tests.rigs.workspace import ROOT, environment, make_workspace, run_command

HEAD = f"{'':<34} {'rows':>10} {'s':>7} {'msg/s':>9} {'CPU s':>7} {'peak MB':>8} {'p50 ms':>7} {'p99 ms':>7}"
NAMES = {
    "a": "a  limit, messages made beforehand",
    "b": "b  python -m core run",
    "c": "c  by hand: pandas, kafka-python-ng",
    "d": "d  bare kafka-python-ng loop",
    "e": "e  our run with kafka-python-ng",
}
SLOW_ROWS = 200_000
"""Rows of d and e, which are compared only with each other; a million futures would be another benchmark."""


@dataclass(frozen=True)
class Figure:
    """One measurement and its limit."""

    name: str
    value: float
    limit: str
    """`≥ 0.5`, `≤ 100 ms`."""

    def __str__(self) -> str:
        relation, bound = self.limit.split()[:2]
        holds = self.value >= float(bound) if relation == "≥" else self.value <= float(bound)
        return f"{'pass' if holds else 'FAIL'}  {self.name:<52} {self.value:>8.2f}   {self.limit}"


def contest(who: str, workspace: Path, postgres: PostgresRig, rows: int) -> dict[str, Any]:
    """Runs one contestant; returns its measurements."""
    command = [sys.executable, "-m", "bench.contestant", who, str(workspace), str(rows)]
    done = subprocess.run(command, cwd=ROOT, env=environment(postgres), stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"contestant {who} failed with code {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def line(name: str, figures: dict[str, Any]) -> str:
    p50, p99 = (f"{figures[p]:.0f}" if figures.get(p) is not None else "–" for p in ("p50_ms", "p99_ms"))
    return (
        f"{name:<34} {figures['rows']:>10,} {figures['seconds']:>7.1f} {rate(figures):>9,.0f} {figures['cpu_s']:>7.1f} "
        f"{figures['peak_mb']:>8.0f} {p50:>7} {p99:>7}"
    )


def rate(figures: dict[str, Any]) -> float:
    return figures["rows"] / figures["seconds"]


def best(results: list[dict[str, Any]]) -> dict[str, Any]:
    return max(results, key=rate)


def seconds_of(*words: str, tries: int) -> float:
    """Returns the wall clock time of `python -m core …` in an empty folder; the best of some tries."""
    taken = []
    for _ in range(tries):
        with tempfile.TemporaryDirectory() as folder:
            started = time.perf_counter()
            done = run_command(*words, env=environment(), cwd=Path(folder))
            taken.append(time.perf_counter() - started)
        if done.returncode:
            sys.exit(f"python -m core {' '.join(words)} ended with code {done.returncode}:\n{done.stderr}")
    return min(taken)


def throughput(rows: int, repeat: int, client: dict[str, Any]) -> None:
    help_s, demo_s = seconds_of("--help", tries=5), seconds_of("demo", tries=2)
    results: dict[str, list[dict[str, Any]]] = {who: [] for who in NAMES}
    with PostgresRig() as postgres, KafkaRig(for_long=True) as kafka, tempfile.TemporaryDirectory() as folder:
        make_table(postgres, rows)
        slow = min(rows, SLOW_ROWS)
        places = {}
        for who in NAMES:
            extra = {"client": "kafka-python-ng", "enable_idempotence": False} if who in "de" else {}
            places[who] = make_workspace(
                Path(folder) / who,
                postgres=postgres,
                bootstrap_servers=kafka.plaintext,
                topic=kafka.create_topic(partitions=6),
                sql=f"{QUERY} LIMIT {slow}" if who in "de" else QUERY,
                cluster={**client, **extra},
            )
        contest("a", places["a"], postgres, min(rows, 200_000))  # the broker's JVM warms up
        print(HEAD)
        for turns, group, count in ((repeat, "ab", rows), (1, "c", rows), (repeat, "de", slow)):
            for who in group * turns:
                results[who].append(contest(who, places[who], postgres, count))
                print(line(NAMES[who], results[who][-1]), flush=True)
    a, b, c, d, e = (best(results[who]) for who in NAMES)
    print(
        f"\nb had its verdict after {b['verdict_s']:.1f} s and the copy in metrics.duckdb after {b['seconds']:.1f} s\n"
    )
    for figure in (
        Figure("b/a, our run against the limit", rate(b) / rate(a), "≥ 0.5"),
        Figure("b/c, our run against one written by hand", rate(b) / rate(c), "≥ 10"),
        Figure("p99 of b at full speed, ms", b["p99_ms"], "≤ 100 ms"),
        Figure("peak memory of b, MB", max(r["peak_mb"] for r in results["b"]), "≤ 250 MB"),
        Figure("e/d, kafka-python-ng against its own ceiling", rate(e) / rate(d), "≥ 0.8"),
        Figure("python -m core demo, s", demo_s, "≤ 15 s"),
        Figure("python -m core --help, s", help_s, "≤ 0.5 s"),
    ):
        print(figure)
    print("memory over 10,000,000 rows: python -m bench memory")


def memory(rows: int) -> None:
    with PostgresRig() as postgres, KafkaRig(properties={"log.retention.bytes": "200000000"}, for_long=True) as kafka:
        make_table(postgres, min(rows, 1_000_000))
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder) / "m"
            again = f"{QUERY} CROSS JOIN generate_series(1, {max(rows // 1_000_000, 1)}) AS again"
            topic = kafka.create_topic(partitions=6, config={"retention.bytes": "50000000"})
            make_workspace(place, postgres=postgres, bootstrap_servers=kafka.plaintext, topic=topic, sql=again)
            figures = contest("m", place, postgres, rows)
    print(f"{'rows':>12} {'memory MB':>10}")
    for count, resident_mb in figures["points"]:
        print(f"{count:>12,} {resident_mb:>10.0f}")
    print(f"\n{HEAD}")
    print(line(NAMES["b"], figures), end="\n\n")
    # The first point counts too: what a run takes on top of its own beginning is growth.
    middle = statistics.median(mb for _, mb in figures["points"])
    print(
        Figure(
            "largest distance from the median of the points, %",
            100 * max(abs(mb / middle - 1) for _, mb in figures["points"]),
            "≤ 10 %",
        )
    )
    print(Figure("peak memory, MB", figures["peak_mb"], "≤ 250 MB"))


def verified(rows: int) -> None:
    """Measures `verify RUN` on a topic with this many messages, and with three times as many."""
    results = []
    with PostgresRig() as postgres, KafkaRig(for_long=True) as kafka, tempfile.TemporaryDirectory() as folder:
        make_table(postgres, rows)
        print(HEAD)
        for times in (1, 3):
            place = make_workspace(
                Path(folder) / f"v{times}",
                postgres=postgres,
                bootstrap_servers=kafka.plaintext,
                topic=kafka.create_topic(partitions=6),
                sql=f"{QUERY} CROSS JOIN generate_series(1, {times}) AS again",
            )
            contest("b", place, postgres, rows * times)
            results.append(contest("v", place, postgres, rows * times))
            print(line(f"v  python -m core verify, × {times}", results[-1]), flush=True)
    print()
    print(Figure("messages a second", min(rate(r) for r in results), "≥ 100000"))
    print(Figure("messages a second of CPU", min(r["rows"] / r["cpu_s"] for r in results), "≥ 100000"))
    print(
        Figure("peak memory of the larger against the smaller", results[1]["peak_mb"] / results[0]["peak_mb"], "≤ 1.1")
    )


def asked(per_s: int, seconds: float, rows: int) -> int:
    """Measures REST without and with a token to check."""
    from bench.rest import measure, with_sign_in

    for name, prepare in (("nobody signs in", lambda folder: ""), ("with a token", with_sign_in)):
        with tempfile.TemporaryDirectory() as folder:
            found = measure(Path(folder) / "demo", per_s=per_s, seconds=seconds, rows=rows, prepare=prepare)
        print(
            f"\n{name}: {found['requests']:,} requests in {found['seconds']:.0f} s, {found['not_200']} not answered with 200; "
            f"p50 {found['p50_ms']:.1f} ms, p99 {found['p99_ms']:.1f} ms, longest {found['max_ms']:.1f} ms; "
            f"{100 * found['server_cpu_s'] / found['seconds']:.0f} % of a core"
        )
        print(Figure("answered a second", found["per_s"], f"≥ {0.99 * per_s:.0f}"))
        print(Figure("p99 of the summary, ms", found["p99_ms"], "≤ 100 ms"))
    return 0


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    first = commands.add_parser("throughput")
    first.add_argument("--rows", type=int, default=1_000_000)
    first.add_argument("--repeat", type=int, default=3, help="how often a and b, d and e run in turn")
    first.add_argument("--batch-size", type=int, help="KAFKA_BATCH_SIZE in bytes; the default is the product's")
    second = commands.add_parser("memory")
    second.add_argument("--rows", type=int, default=10_000_000)
    back = commands.add_parser("verify", help="reading a run back from its topic")
    back.add_argument("--rows", type=int, default=1_000_000)
    third = commands.add_parser("calendar", help="every shape of calendar over years, against an independent table")
    third.add_argument("--years", type=int, default=10)
    third.add_argument("--calendars", type=int, default=60)
    fourth = commands.add_parser("runner", help="delay of runs, CPU and memory of the runner with 500 jobs")
    fourth.add_argument("--minutes", type=int, default=5)
    fourth.add_argument("--idle-s", type=float, default=120)
    fifth = commands.add_parser("kill", help="the runner killed at random moments; two runners at once")
    fifth.add_argument("--times", type=int, default=50)
    fifth.add_argument("--rows", type=int, default=20_000)
    fifth.add_argument("--interval-s", type=int, default=5)
    sixth = commands.add_parser("sends", help="a year of sends: every question of page and notebooks, find, file size")
    sixth.add_argument("--rows", type=int, default=50_000_000)
    sixth.add_argument("--days", type=int, default=365)
    sixth.add_argument("--workspace", type=Path, help="kept, and used again; the default is made anew and removed")
    files_ = commands.add_parser("files", help="Excel and CSV jobs, and parity: time and memory at two sizes")
    files_.add_argument("--rows", type=int, default=1_000_000)
    page = commands.add_parser("page", help="a run with 20 sessions watching it; first paint over a year of sends")
    page.add_argument("--rows", type=int, default=1_000_000, help="of the run that is watched; 0: only the paint")
    page.add_argument("--sessions", type=int, default=20)
    page.add_argument("--repeat", type=int, default=6)
    page.add_argument("--sends", type=int, default=50_000_000, help="of the year; 0: only the run")
    page.add_argument("--days", type=int, default=365)
    page.add_argument("--workspace", type=Path, help="of the year: kept, and used again")
    rest = commands.add_parser("rest", help="requests for the summary against the real server, on one core")
    rest.add_argument("--per-s", type=int, default=300)
    rest.add_argument("--seconds", type=float, default=30)
    rest.add_argument("--rows", type=int, default=20_000, help="sends in the workspace")
    options = parser.parse_args()
    if options.command == "rest":
        sys.exit(asked(options.per_s, options.seconds, options.rows))
    if options.command == "files":
        from bench.files import main as files

        sys.exit(files(options.rows))
    if options.command == "calendar":
        from bench.calendars import main as calendar

        sys.exit(calendar(options.years, options.calendars))
    if options.command == "runner":
        from bench.runners import main as runner

        sys.exit(runner(options.minutes, options.idle_s))
    if options.command == "kill":
        from bench.kills import main as kills

        sys.exit(kills(options.times, options.rows, options.interval_s))
    if options.command == "sends":
        from bench.sends import main as sends

        with tempfile.TemporaryDirectory() as folder:
            sys.exit(sends(options.rows, options.days, options.workspace or Path(folder)))
    if options.command == "page":
        from bench.page import main as watch

        o = options
        with tempfile.TemporaryDirectory() as folder:
            sys.exit(watch(o.rows, o.sessions, o.repeat, o.sends, o.days, o.workspace or Path(folder)))
    if options.command == "verify":
        verified(options.rows)
    elif options.command == "throughput":
        throughput(options.rows, options.repeat, {"batch_size": options.batch_size} if options.batch_size else {})
    else:
        memory(options.rows)


if __name__ == "__main__":
    main()
