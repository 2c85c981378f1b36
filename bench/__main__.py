"""Starts a real Kafka and a real PostgreSQL, runs each contestant in a process of its own, prints the figures.

Contestants, over the same rows and with the same producer settings:

a  the limit: messages made beforehand, handed to the client with delivery reports, nothing else
b  our run: query, messages, sends in the spool, verdict in the ledger
c  what people write by hand: pandas.read_sql and kafka-python-ng
d  a bare send loop of kafka-python-ng over messages made beforehand, and e our run with that client
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.table import QUERY, make_table
from tests.rigs.kafka import KafkaRig
from tests.rigs.postgres import PostgresRig
from tests.rigs.workspace import ROOT, environment, make_workspace

HEAD = f"{'':<34} {'rows':>10} {'s':>7} {'msg/s':>9} {'CPU s':>7} {'peak MB':>8} {'p50 ms':>7} {'p99 ms':>7}"


def contest(who: str, workspace: Path, postgres: PostgresRig, rows: int) -> dict[str, Any]:
    """Runs one contestant; what it measured of itself."""
    command = [sys.executable, "-m", "bench.contestant", who, str(workspace), str(rows)]
    done = subprocess.run(command, cwd=ROOT, env=environment(postgres), stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"contestant {who} failed with code {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def line(name: str, figures: dict[str, Any]) -> str:
    p50, p99 = (f"{figures[p]:.0f}" if figures.get(p) is not None else "–" for p in ("p50_ms", "p99_ms"))
    rate = figures["rows"] / figures["seconds"]
    return (
        f"{name:<34} {figures['rows']:>10,} {figures['seconds']:>7.1f} {rate:>9,.0f} {figures['cpu_s']:>7.1f} "
        f"{figures['peak_mb']:>8.0f} {p50:>7} {p99:>7}"
    )


def throughput(rows: int, repeat: int, client: dict[str, Any]) -> None:
    with PostgresRig() as postgres, KafkaRig() as kafka, tempfile.TemporaryDirectory() as folder:
        make_table(postgres, rows)
        results: dict[str, list[dict[str, Any]]] = {}
        places = {}
        for who in "abcde":
            extra = {"client": "kafka-python-ng", "enable_idempotence": False} if who in "de" else {}
            places[who] = Path(folder) / who
            make_workspace(
                places[who],
                postgres=postgres,
                bootstrap_servers=kafka.plaintext,
                topic=kafka.create_topic(partitions=6),
                sql=QUERY,
                cluster={**client, **extra},
            )
        contest("a", places["a"], postgres, min(rows, 200_000))  # the broker's JVM warms up
        print(HEAD)
        slow = min(rows, 100_000)
        for _ in range(repeat):
            for who, name, count in (
                ("a", "a  limit, messages made beforehand", rows),
                ("b", "b  python -m core run", rows),
            ):
                results.setdefault(who, []).append(contest(who, places[who], postgres, count))
                print(line(name, results[who][-1]), flush=True)
        for who, name in (
            ("c", "c  pandas + kafka-python-ng"),
            ("d", "d  bare kafka-python-ng loop"),
            ("e", "e  our run with kafka-python-ng"),
        ):
            results[who] = [contest(who, places[who], postgres, slow)]
            print(line(name, results[who][-1]), flush=True)
    best = {who: max(f["rows"] / f["seconds"] for f in figures) for who, figures in results.items()}
    print(f"\nb/a {best['b'] / best['a']:.2f}   b/c {best['b'] / best['c']:.1f}   e/d {best['e'] / best['d']:.2f}")


def memory(rows: int) -> None:
    with PostgresRig() as postgres, KafkaRig(properties={"log.retention.bytes": "200000000"}) as kafka:
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
    later = [mb for _, mb in figures["points"][1:]]
    print(f"\nspread after the first point {max(later) / min(later) - 1:.1%}   peak {figures['peak_mb']:.0f} MB")
    print(HEAD)
    print(line("b  python -m core run", figures))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    first = commands.add_parser("throughput")
    first.add_argument("--rows", type=int, default=1_000_000)
    first.add_argument("--repeat", type=int, default=2, help="how often a and b run in turn; the best of each counts")
    first.add_argument("--batch-size", type=int, help="KAFKA_BATCH_SIZE in bytes; the default is the product's")
    second = commands.add_parser("memory")
    second.add_argument("--rows", type=int, default=10_000_000)
    options = parser.parse_args()
    if options.command == "throughput":
        throughput(options.rows, options.repeat, {"batch_size": options.batch_size} if options.batch_size else {})
    else:
        memory(options.rows)


if __name__ == "__main__":
    main()
