"""How many rows a second each format encodes, and how many bytes a message has: `python -m bench.formats`.

CPU time of encoding alone, blocks of 2,000 rows of the columns of a real job, fastest of several: what a run adds (reading,
record batches, the spool) is the same for every format.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import ClassVar

from core.message.envelope import Envelope
from core.message.value_formats import Formats
from core.model.job import Job, KafkaConfig
from core.model.schema import Schema
from core.model.source import Column, Rows

AT = datetime(2026, 1, 17, 2, tzinfo=UTC)
BLOCK = 2_000
REPEATS = 30
COLUMNS = [
    Column("BARCODE", "text", "varchar(20)"),
    Column("TRKDATE", "date", "date"),
    Column("OPERATOR", "integer", "integer"),
    Column("MSGTYPE", "text", "varchar(4)"),
    Column("CAUSAL", "text", "varchar(4)"),
    Column("TEST_FLAG", "text", "char(1)"),
    Column("PHASE_AT", "text", "char(1)"),
    Column("ARRIVETIMESTAMP", "datetime", "timestamp"),
    Column("STATUS", "text", "char(1)"),
    Column("TRACK_OFFICE", "text", "varchar(8)"),
    Column("MTF_MTFID", "integer", "bigint"),
    Column("DATE_OTHER", "date", "date"),
    Column("CANALE", "text", "varchar(8)"),
    Column("CUSTCODE", "text", "varchar(12)"),
    Column("CUST_SPED", "text", "varchar(8)"),
    Column("IDSPED", "text", "varchar(20)"),
]
JOB = Job(
    "tracce",
    "Tracce",
    "CDG-KAFKA-001--SelezioneTracceGiornaliere.sql",
    "A00-CDG-Collaudo",
    kafka_config=KafkaConfig(topic="pstt-traces", message_key_field="BARCODE"),
)
CASES = [
    ("json", "pstt"),
    ("avro", "pstt"),
    ("protobuf", "pstt"),
    ("json_schema", "pstt"),
    ("json", "none"),
    ("avro", "none"),
    ("protobuf", "none"),
    ("json", "connect"),
]


class _AnyId:
    """Gives every schema the same id."""

    notes: ClassVar[list[str]] = []

    def id_of(self, subject: str, schema: Schema) -> int:
        return 1

    def latest(self, subject: str) -> str | None:
        return None


def rows_of(first: int) -> list[tuple[object, ...]]:
    """Rows as PostgreSQL's driver returns them: dates and times as text."""
    found = []
    for n in range(first, first + BLOCK):
        at = AT + timedelta(microseconds=37_000_001 * n)
        day = at.date().isoformat()
        moment = at.strftime("%Y-%m-%d %H:%M:%S.%f")
        found.append(
            (
                f"5726800{n:05}",
                day,
                848 + n % 50,
                "M3",
                "RKE",
                "N",
                "W",
                moment,
                "N",
                f"{38_000 + n % 900}",
                n % 20,
                day,
                "SGU",
                f"{30_026_661 + n:010}",
                "PS6",
                f"S{2_132_224 + n}",
            )
        )
    return found


def measure(value_format: str, envelope: str, blocks: Sequence[Rows]) -> tuple[float, float]:
    """Returns the fastest CPU time of a row in µs, and the mean bytes of a value."""
    job = replace(JOB, value_format=value_format, envelope=envelope)  # type: ignore[arg-type]
    made = Envelope(COLUMNS, job, scheduled_at=AT, formats=Formats("pstt-traces", _AnyId()))
    best, size = float("inf"), 0.0
    for rows in blocks:
        began = time.process_time()
        encoded = made.encode(rows)
        values = made.values(encoded, published_at=AT)
        best = min(best, time.process_time() - began)
        size = sum(len(value or b"") for value in values) / len(values)
    return best / BLOCK * 1e6, size


def main() -> None:
    """Prints one line for each format and envelope, compared with JSON in the same envelope."""
    blocks = [Rows(1 + n * BLOCK, rows_of(n * BLOCK), AT) for n in range(REPEATS)]
    plain: dict[str, tuple[float, float]] = {}
    print(f"{'format':<12} {'envelope':<9} {'µs a row':>9} {'rows/s':>10} {'rate':>6} {'bytes':>7} {'of JSON':>8}")
    for value_format, envelope in CASES:
        cost, size = measure(value_format, envelope, blocks)
        base, full = plain.setdefault("none" if envelope == "connect" else envelope, (cost, size))
        print(
            f"{value_format:<12} {envelope:<9} {cost:9.2f} {1e6 / cost:10,.0f} {base / cost:6.2f} {size:7.0f} {size / full:8.2f}"
        )


if __name__ == "__main__":
    main()
