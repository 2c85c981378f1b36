"""One contestant in a process of its own; prints its measurements as one line of JSON."""

from __future__ import annotations

import gc
import hashlib
import json
import logging
import sys
import time
from array import array
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from bench.processes import cpu_of

CLIENTS_LOG = logging.getLogger("kafka")
"""The logger of the contestants' clients, whose lines would otherwise go to the terminal; kafka-python-ng's own name."""
CLIENTS_LOG.addHandler(logging.NullHandler())


def peak_mb() -> float:
    memory = psutil.Process().memory_info()
    if hasattr(memory, "peak_wset"):
        return memory.peak_wset / 1e6
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


class Clock:
    """Wall clock and CPU time of this process and of the broker, from now on."""

    def __init__(self) -> None:
        self._broker = psutil.Process(int(sys.argv[4])) if len(sys.argv) > 4 else None
        self._begin = self._now()

    def taken(self) -> dict[str, float]:
        """Returns what has been used since this clock was made, in seconds."""
        return {name: value - self._begin[name] for name, value in self._now().items()}

    def _now(self) -> dict[str, float]:
        broker = {"broker_cpu_s": cpu_of(self._broker)} if self._broker else {}
        return {"seconds": time.perf_counter(), "cpu_s": time.process_time(), **broker}


def figures(rows: int, taken: dict[str, float], latencies_ms: Any = None, **more: Any) -> dict[str, Any]:
    ordered = sorted(latencies_ms) if latencies_ms else []
    at = {
        name: ordered[int(len(ordered) * share)] if ordered else None
        for name, share in (("p50_ms", 0.5), ("p99_ms", 0.99))
    }
    return {"rows": rows, "peak_mb": peak_mb(), **taken, **at, **more}


def made_beforehand(app: Any, rows: int) -> list[tuple[bytes, bytes, bytes]]:
    """Returns keys, values and message ids exactly as our run makes them."""
    from core.message.envelope import Envelope
    from core.sources import open_source

    now = datetime.now(UTC)
    plan = app.plan(app.job("export"), now=now)
    source = open_source(app.connections.database("pg"))
    messages: list[tuple[bytes, bytes, bytes]] = []
    with source.read(plan.query.steps, fetch_rows=plan.fetch_rows) as reading:
        envelope = Envelope(reading.columns, plan.job, scheduled_at=plan.scheduled_at)
        for block in reading:
            encoded = envelope.encode(block)
            values = envelope.wrap(encoded.data, extracted_at=encoded.extracted_at, published_at=now)
            messages += zip(encoded.keys, values, encoded.message_ids, strict=True)
            if len(messages) >= rows:
                break
    source.close()
    return messages[:rows]


def limit(app: Any, rows: int) -> dict[str, Any]:
    from confluent_kafka import Producer

    from core.kafka.confluent import producer_config

    cluster = app.connections.cluster_for(app.job("export"), app.settings)
    messages = made_beforehand(app, rows)
    config = producer_config(cluster, max_in_flight=app.settings.PSTT_MAX_IN_FLIGHT_MESSAGES)
    producer = Producer(config, logger=CLIENTS_LOG)
    bound = app.settings.PSTT_MAX_IN_FLIGHT_MESSAGES
    topic = app.job("export").kafka_config.topic
    latencies, offsets, partitions = array("d"), array("q"), array("i")

    def report(error: Any, message: Any) -> None:
        assert error is None
        latencies.append(message.latency() * 1000)
        offsets.append(message.offset())
        partitions.append(message.partition())

    headers = (("run_id", b"0123456789"), ("job", b"Export"))
    gc.freeze()  # otherwise the collector visits a million messages that exist only for this benchmark
    clock = Clock()
    for i in range(0, len(messages), 100):
        for key, value, message_id in messages[i : i + 100]:
            producer.produce(topic, value, key, -1, report, report, 0, [("message_id", message_id), *headers])
        producer.poll(0)
        while i + 100 - len(latencies) >= bound:
            producer.poll(0.01)
    assert producer.flush(60) == 0
    taken = clock.taken()
    assert len(offsets) == len(messages)
    return figures(len(messages), taken, latencies)


def our_run(app: Any, rows: int, points: list[tuple[int, float]] | None = None) -> dict[str, Any]:
    """Measures from the start of the run until its verdict is in the ledger and its sends are in metrics.duckdb."""
    from core.run.cancellation import Stop

    process = psutil.Process()
    step = max(rows // 10, 1)

    def watch(rows_read: int, _acknowledged: int, _counted: int | None) -> None:
        if points is not None and rows_read >= step * (len(points) + 1):
            points.append((rows_read, process.memory_info().rss / 1e6))

    plan = app.plan(app.job("export"), now=datetime.now(UTC))
    clock = Clock()
    run = app.execute(plan, stop=Stop(), now=lambda: datetime.now(UTC), progress=watch)
    taken = clock.taken()
    if run.state != "succeeded":
        sys.exit(f"the run {run.state}: {run.error_text}")
    return figures(run.rows_read, taken) | {
        "p50_ms": run.latency_p50_ms,
        "p99_ms": run.latency_p99_ms,
        "verdict_s": run.duration_s,
        "points": points,
    }


def by_hand(app: Any, rows: int) -> dict[str, Any]:
    """Measures a carefully hand-written script: the same query, the same key, headers and JSON; errors counted.

    The result is streamed in chunks; acks=all, compression and batching are on. Prices are floats, as pandas makes
    them and as `json` needs them.
    """
    import pandas as pd
    import sqlalchemy
    from kafka import KafkaProducer

    connection = app.connections.database("pg")
    cluster = app.connections.cluster_for(app.job("export"), app.settings)
    url = sqlalchemy.URL.create(
        "postgresql+psycopg",
        connection.username,
        connection.password.reveal(),
        connection.host,
        connection.port,
        connection.database,
    )
    sql = (app.workspace.queries_dir / "export.sql").read_text(encoding="utf-8")
    topic = app.job("export").kafka_config.topic
    source = {"system": "PSTT_Tool", "version": "1.0.4", "connection": "pg", "query": "export.sql"}
    headers = [("run_id", b"0123456789"), ("job", b"Export")]
    latencies, errors, sent, first = array("d"), [], 0, None

    def plain(value: Any) -> str:
        return value.isoformat(timespec="microseconds") if isinstance(value, datetime) else value.isoformat()

    clock = Clock()
    producer = KafkaProducer(
        bootstrap_servers=cluster.bootstrap_servers,
        acks="all",
        compression_type=cluster.compression_type,
        linger_ms=cluster.linger_ms,
        batch_size=cluster.batch_size_bytes,
    )
    with sqlalchemy.create_engine(url).connect().execution_options(stream_results=True) as database:
        for frame in pd.read_sql(sqlalchemy.text(f"{sql} LIMIT {rows}"), database, chunksize=10_000):
            extracted_at = datetime.now(UTC)
            for row in frame.to_dict("records"):
                published_at = datetime.now(UTC)
                message = {
                    "data": row,
                    "metadata": {
                        "source": source,
                        "timestamp": iso_z(published_at, "microseconds"),
                        "processing": {
                            "extracted_at": iso_z(extracted_at, "seconds"),
                            "published_at": iso_z(published_at, "seconds"),
                            "latency_ms": round((published_at - extracted_at).total_seconds() * 1000),
                        },
                    },
                }
                value = json.dumps(message, default=plain, ensure_ascii=False, separators=(",", ":")).encode()
                message_id = hashlib.md5(repr(row).encode()).hexdigest().encode()
                future = producer.send(
                    topic, value, row["barcode"].encode(), headers=[("message_id", message_id), *headers]
                )
                future.add_errback(errors.append)
                if sent % SAMPLE == 0:
                    future.add_callback(timed(latencies))
                first = first or value
                sent += 1
    producer.flush()
    taken = clock.taken()
    producer.close()
    require_same(app, first)
    if errors or sent != rows:
        sys.exit(f"{sent} sent, {len(errors)} errors")
    return figures(sent, taken, latencies)


SAMPLE = 50
"""kafka-python-ng measures no latency itself; a callback for each message would cost a tenth of its speed."""


def timed(latencies: array[float]) -> Any:
    at = time.perf_counter()
    return lambda _: latencies.append((time.perf_counter() - at) * 1000)


def iso_z(moment: datetime, precision: str) -> str:
    return moment.replace(tzinfo=None).isoformat(timespec=precision) + "Z"


def require_same(app: Any, value: bytes) -> None:
    """Fails unless the hand-written message equals ours, except for times and version."""
    _, ours, _ = made_beforehand(app, 1)[0]
    mine, yours = json.loads(ours), json.loads(value)
    for message in (mine, yours):
        message["metadata"] |= {"timestamp": None, "processing": list(message["metadata"]["processing"])}
        message["metadata"]["source"]["version"] = None
    if mine != yours:
        sys.exit(f"the contestants make different messages:\n{mine}\n{yours}")


def bare_loop(app: Any, rows: int) -> dict[str, Any]:
    from kafka import KafkaProducer

    cluster = app.connections.cluster_for(app.job("export"), app.settings)
    messages = made_beforehand(app, rows)
    producer = KafkaProducer(
        bootstrap_servers=cluster.bootstrap_servers,
        acks="all",
        compression_type=cluster.compression_type,
        linger_ms=cluster.linger_ms,
        batch_size=cluster.batch_size_bytes,
    )
    topic = app.job("export").kafka_config.topic
    headers = [("run_id", b"0123456789"), ("job", b"Export")]
    latencies, errors = array("d"), []
    gc.freeze()
    clock = Clock()
    for i, (key, value, message_id) in enumerate(messages):
        future = producer.send(topic, value, key, headers=[("message_id", message_id), *headers])
        if i % SAMPLE == 0:
            future.add_callback(timed(latencies))
            future.add_errback(errors.append)
    producer.flush()
    taken = clock.taken()
    producer.close()
    if errors:
        sys.exit(f"{len(errors)} errors, such as {errors[0]}")
    return figures(len(messages), taken, latencies)


def reading_back(app: Any) -> dict[str, Any]:
    from core.run.verify_run import verify_run

    (run,) = app.ledger.history.newest(limit=1)
    clock = Clock()
    found = verify_run(app, run.run_id, should_stop=lambda: False, now=lambda: datetime.now(UTC))
    taken = clock.taken()
    if found.answer != "complete":
        sys.exit(f"{found.answer}: {found}")
    return figures(found.found, taken)


def main() -> None:
    from core.app import App

    who, folder, rows = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    with App.open(folder) as app:
        if who == "a":
            result = limit(app, rows)
        elif who in ("b", "e"):
            result = our_run(app, rows)
        elif who == "v":
            result = reading_back(app)
        elif who == "c":
            result = by_hand(app, rows)
        elif who == "d":
            result = bare_loop(app, rows)
        else:
            result = our_run(app, rows, [])
    print(json.dumps(result))


if __name__ == "__main__":
    main()
