"""The message ids of parts are those of the whole result, also where rows are equal in every column."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from core.message.envelope import Envelope
from core.model.job import Job
from core.model.source import Column, Rows

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
