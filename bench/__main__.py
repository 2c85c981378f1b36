"""Every measurement, a command each, over a real Kafka and a real PostgreSQL.

The exit code of a contest is 0 whatever comes out: these are figures, not tests. `bench.throughput` has the contestants.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.figures import HEAD, Figure, line, rate
from bench.table import QUERY, make_table
from bench.throughput import DEFAULT_SIZES, NAMES, Options, contest, throughput
from core.kafka.clients import client_names
from tests.rigs.kafka import KafkaRig
from tests.rigs.postgres import PostgresRig
from tests.rigs.workspace import make_workspace


def memory(rows: int) -> None:
    with PostgresRig() as postgres, KafkaRig(properties={"log.retention.bytes": "200000000"}, for_long=True) as kafka:
        make_table(postgres, min(rows, 1_000_000))
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder) / "m"
            again = f"{QUERY} CROSS JOIN generate_series(1, {max(rows // 1_000_000, 1)}) AS again"
            topic = kafka.create_topic(partitions=6, config={"retention.bytes": "50000000"})
            make_workspace(place, postgres=postgres, bootstrap_servers=kafka.plaintext, topic=topic, sql=again)
            figures = contest("m", place, postgres, kafka, rows)
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
    print(Figure("peak memory, MB", figures["peak_mb"], "≤ 230 MB"))


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
            contest("b", place, postgres, kafka, rows * times)
            results.append(contest("v", place, postgres, kafka, rows * times))
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


def add_throughput(commands: Any) -> None:
    """Adds the command `throughput` and its options."""
    contestants = "\n".join(f"  {name}" for name in NAMES.values())
    command = commands.add_parser(
        "throughput",
        help="our run against its limits, an earlier commit and Kafka Connect",
        epilog=f"contestants:\n{contestants}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("--rows", type=int, default=1_000_000)
    command.add_argument("--repeat", type=int, help="how often they run in turn; default 3, with --peer 5")
    sizes = " ".join(map(str, DEFAULT_SIZES))
    command.add_argument(
        "--batch-size", type=int, nargs="+", default=DEFAULT_SIZES, help=f"KAFKA_BATCH_SIZE in bytes; default {sizes}"
    )
    command.add_argument("--only", help="letters of some contestants, such as b,k; default: all")
    command.add_argument("--client", choices=client_names(), help="of our run; the default is the product's")
    command.add_argument(
        "--peer",
        type=Path,
        metavar="PATH",
        help="Aiven's JDBC connector: a folder, a jar, or the zip or tar of a release",
    )
    command.add_argument(
        "--peer-java", default="", metavar="OPTIONS", help="more options of the peer's JVM, as in --peer-java=-Xmx2G"
    )
    command.add_argument("--baseline", metavar="COMMIT", help="an earlier commit, whose run is contestant o")
    command.add_argument("--round-trip-ms", type=float, default=20, help="to the distant broker")


def options_of(parsed: argparse.Namespace) -> Options:
    """What the command line asks for."""
    only = frozenset(parsed.only.replace(",", "").replace(" ", "")) if parsed.only else frozenset(NAMES)
    if unknown := only - set(NAMES):
        sys.exit(f"no contestant {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    return Options(
        rows=parsed.rows,
        repeat=parsed.repeat or (5 if parsed.peer else 3),
        sizes=tuple(parsed.batch_size),
        only=only,
        client=parsed.client,
        peer=parsed.peer,
        peer_java=tuple(parsed.peer_java.split()),
        baseline=parsed.baseline,
        round_trip_ms=parsed.round_trip_ms,
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    add_throughput(commands)
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
    days = commands.add_parser("backfill", help="a backfill of many short days, with one and several at once")
    days.add_argument("--days", type=int, default=365)
    days.add_argument("--rows", type=int, default=200)
    days.add_argument("--parallel", type=int, nargs="+", default=[1, 2, 4])
    sixth = commands.add_parser("sends", help="a year of sends: every question of page and notebooks, find, file size")
    sixth.add_argument("--rows", type=int, default=50_000_000)
    sixth.add_argument("--days", type=int, default=365)
    sixth.add_argument("--workspace", type=Path, help="kept, and used again; the default is made anew and removed")
    sixth.add_argument(
        "--retention", action="store_true", help="then roll up a day, and all but 30 days; the workspace is changed"
    )
    sixth.add_argument("--segments", type=int, default=0, help="only: so many small segments, before and after merging")
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
    parts = commands.add_parser(
        "partitions", help="a run in parts: overhead, two processes, memory, parts of Zipf data"
    )
    parts.add_argument("--rows", type=int, default=10_000_000)
    parts.add_argument("--parts", type=int, default=8)
    parts.add_argument("--repeat", type=int, default=3)
    parts.add_argument("--only-one-process", action="store_true", help="only what parts cost in one process")
    parts.add_argument("--indexed", action="store_true", help="the column of the parts has an index")
    news = commands.add_parser("incremental", help="runs of incremental jobs killed at random moments")
    news.add_argument("--kills", type=int, default=1000, help="with a broker that is a file")
    news.add_argument("--real-kills", type=int, default=100, help="with PostgreSQL and a real broker")
    observed = commands.add_parser("observation", help="CPU of a run with lineage or traces against one without")
    observed.add_argument("--rows", type=int, default=200_000)
    observed.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    if options.command == "observation":
        from bench.observation import main as observation

        observation(options.rows, options.repeat)
        return
    if options.command == "incremental":
        from bench.incremental import main as incremental

        sys.exit(incremental(options.kills, options.real_kills))
    if options.command == "partitions":
        from bench.partitions import main as partitions

        partitions(
            options.rows,
            options.parts,
            options.repeat,
            only_one_process=options.only_one_process,
            indexed=options.indexed,
        )
        return
    if options.command == "rest":
        sys.exit(asked(options.per_s, options.seconds, options.rows))
    if options.command == "files":
        from bench.files import main as files

        sys.exit(files(options.rows))
    if options.command == "calendar":
        from bench.calendars import main as calendar

        sys.exit(calendar(options.years, options.calendars))
    if options.command == "backfill":
        from bench.backfills import main as backfill

        sys.exit(backfill(options.days, options.rows, options.parallel))
    if options.command == "runner":
        from bench.runners import main as runner

        sys.exit(runner(options.minutes, options.idle_s))
    if options.command == "kill":
        from bench.kills import main as kills

        sys.exit(kills(options.times, options.rows, options.interval_s))
    if options.command == "sends":
        from bench.sends import main as sends
        from bench.sends import measure_merging

        if options.segments:
            measure_merging(options.segments)
            sys.exit(0)
        with tempfile.TemporaryDirectory() as folder:
            sys.exit(
                sends(
                    options.rows,
                    options.days,
                    options.workspace or Path(folder),
                    with_retention=options.retention,
                )
            )
    if options.command == "page":
        from bench.page import main as watch

        o = options
        with tempfile.TemporaryDirectory() as folder:
            sys.exit(watch(o.rows, o.sessions, o.repeat, o.sends, o.days, o.workspace or Path(folder)))
    if options.command == "verify":
        verified(options.rows)
    elif options.command == "throughput":
        throughput(options_of(options))
    else:
        memory(options.rows)


if __name__ == "__main__":
    main()
