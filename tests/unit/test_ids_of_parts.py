"""The message ids of parts are those of the whole result, also where rows are equal in every column."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.message.envelope import Envelope
from core.model.job import Job, Partitions
from core.model.query import Step
from core.model.source import Column, ColumnType, Rows
from core.sources import find_dialect
from core.sql.partitioning import bounds_of, part_steps

AT = datetime(2026, 1, 17, 2, tzinfo=UTC)
COLUMNS = (Column("ID", "decimal", "numeric"), Column("T", "text", "text"))
ROWS = st.lists(st.tuples(st.none() | st.decimals("-3", "3", places=1), st.sampled_from(["", "a", "b"])), max_size=80)


def ids(rows: Sequence[tuple[Any, ...]], fetch_rows: int) -> Counter[bytes]:
    """Returns the ids of a result that is read in blocks of so many rows."""
    envelope, found = Envelope(COLUMNS, Job("a", "A", "q.sql", "c"), scheduled_at=AT), Counter[bytes]()
    for first in range(0, len(rows), fetch_rows):
        found.update(envelope.encode(Rows(first + 1, rows[first : first + fetch_rows], AT)).message_ids)
    return found


@given(ROWS, st.lists(st.decimals("-3", "3", places=1), max_size=4, unique=True), st.integers(1, 20), st.randoms())
def test_ids_of_ranges_are_those_of_the_whole(
    rows: list[tuple[Decimal | None, str]], bounds: list[Decimal], fetch_rows: int, random: Any
) -> None:
    bounds = sorted(bounds)
    parts: dict[int, list[tuple[Any, ...]]] = {}
    shuffled = random.sample(rows, len(rows))  # a part may read its rows in another order
    for row in shuffled:
        parts.setdefault(0 if row[0] is None else bisect_left(bounds, row[0]), []).append(row)
    whole = ids(rows, 7)
    assert sum((ids(part, fetch_rows) for part in parts.values()), Counter()) == whole
    assert len(whole) == len(rows)


@given(st.lists(st.integers(0, 5_000), min_size=1, max_size=60), st.integers(1, 8), st.integers(1, 20))
def test_times_finer_than_a_microsecond_are_split_between_microseconds(
    nanoseconds: list[int], count: int, fetch_rows: int
) -> None:
    """Their messages have microseconds: rows that are equal there are in one part, and no row is in none or in two."""
    oracle, column = find_dialect("oracle"), Column("AT", "datetime", "TIMESTAMP")
    ordered = sorted(nanoseconds)
    tiles = [ordered[min((tile + 1) * len(ordered) // count, len(ordered)) - 1] for tile in range(count)]
    bounds = list(bounds_of([stored(highest) for highest in tiles if highest >= 0], column, oracle))
    parts: dict[int, list[tuple[Any, ...]]] = {}
    for number in nanoseconds:
        parts.setdefault(bisect_left(bounds, stored(number)), []).append(as_read(number))
    assert sum((ids_of_times(part, fetch_rows) for part in parts.values()), Counter()) == ids_of_times(
        [as_read(number) for number in nanoseconds], 7
    )
    steps = part_steps(Step("SELECT at FROM t"), oracle, column, Partitions("at", count), bounds)
    lows, highs = ([dict(step.binds).get(name) for step in steps] for name in ("PSTT_LOW", "PSTT_HIGH"))
    assert (lows[1:], highs[:-1]) == (bounds, bounds)  # each bound ends one part and begins the next


def stored(nanoseconds: int) -> str:
    """As Oracle writes a TIMESTAMP(9)."""
    return f" 2026-01-17 02:00:00.{nanoseconds:09}"


def as_read(nanoseconds: int) -> tuple[Any, ...]:
    """As the driver returns it."""
    return (datetime(2026, 1, 17, 2, 0, 0, nanoseconds // 1000),)  # noqa: DTZ001 - a TIMESTAMP has no zone


def ids_of_times(rows: Sequence[tuple[Any, ...]], fetch_rows: int) -> Counter[bytes]:
    envelope, found = Envelope((Column("AT", "datetime", "TIMESTAMP"),), JOB, scheduled_at=AT), Counter[bytes]()
    for first in range(0, len(rows), fetch_rows):
        found.update(envelope.encode(Rows(first + 1, rows[first : first + fetch_rows], AT)).message_ids)
    return found


JOB = Job("a", "A", "q.sql", "c")


@pytest.mark.parametrize(
    ("database", "kind", "moment", "bound"),
    [
        ("oracle", "datetime", " 2026-01-17 02:00:00.123456001", " 2026-01-17 02:00:00.123456999"),
        ("oracle", "datetime_tz", " 2026-01-17 02:00:00.000000000", " 2026-01-17 02:00:00.000000999"),
        ("sqlserver", "datetime", "2026-01-17T02:00:00.1234561", "2026-01-17T02:00:00.1234569"),
        ("sqlserver", "datetime", "2026-01-17T02:00:00.123", "2026-01-17T02:00:00.123"),
        ("sqlserver", "datetime", "2026-01-17T02:00:00", "2026-01-17T02:00:00"),
        ("sqlserver", "datetime_tz", "2026-01-17 02:00:00.1234561 +01:00", "2026-01-17 02:00:00.1234569 +01:00"),
        ("sqlserver", "time", "02:00:00.1234561", "02:00:00.1234569"),
    ],
)
def test_a_bound_is_the_end_of_its_microsecond_and_a_hash_is_made_of_microseconds(
    database: str, kind: ColumnType, moment: str, bound: str
) -> None:
    dialect, column = find_dialect(database), Column("AT", kind, "")
    assert bounds_of([moment, "9"], column, dialect) == (bound,)
    (_, second) = part_steps(Step("SELECT at FROM t"), dialect, column, Partitions("at", 2, "hash"), [])
    assert ("SUBSTR(" if database == "oracle" else "LEFT(") in second.sql
