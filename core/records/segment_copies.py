"""Copies segments into the open metrics.duckdb: how many in a transaction, and by which statements."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from core.records.damaged_segments import quoted
from core.records.merged_store import MergedSegments
from core.records.metrics_file import state_of
from core.records.metrics_queries import metrics_sql

__all__ = ["TOGETHER", "copy_together", "first_of", "over", "portions"]

TOGETHER = 20
"""Segments in a transaction: a million sends, copied in half the time of twenty transactions."""
WHOLE_BYTES = 1_100_000
"""Of a segment of 50,000 sends. The last one of each part of a run is shorter, so that more of them go together."""
SMALL_TOGETHER, SMALL_BYTES = 200, 500_000
"""Small segments in a transaction, and their size together. They are read once, into memory: to open a file costs as much as
to copy 500 sends, and each segment was opened five times."""


def over(statement: str, paths: Sequence[Path]) -> str:
    """Returns a statement of metrics.sql over these segments."""
    return metrics_sql()[statement].replace("{paths}", "[" + ", ".join(f"'{quoted(path)}'" for path in paths) + "]")


def portions(segments: Sequence[Path]) -> Iterator[list[Path]]:
    """Yields the segments that are copied in one transaction: 20, or more if some are small."""
    portion: list[Path] = []
    size = 0
    for segment in segments:
        more = _size_of(segment)
        is_small = size + more <= SMALL_BYTES and len(portion) < SMALL_TOGETHER
        if not is_small and not _has_room(len(portion), size + more, TOGETHER):
            yield portion
            portion, size = [], 0
        portion.append(segment)
        size += more
    if portion:
        yield portion


def first_of(segments: Iterable[Path], most: int) -> int:
    """Returns how many of these segments hold about as many sends as `most` whole ones, at most half as many more."""
    count = size = 0
    for segment in segments:
        size += _size_of(segment)
        if not _has_room(count, size, most):
            break
        count += 1
    return count


def _has_room(count: int, size: int, most: int) -> bool:
    """Returns whether one more segment goes with `count` others, `size` bytes together with it, where `most` whole ones do."""
    return count < most or (count < most + most // 2 and size <= most * WHOLE_BYTES)


def copy_together(db: duckdb.DuckDBPyConnection, segments: Sequence[Path], merged: MergedSegments) -> int:
    """Copies segments and writes their names in one transaction, so that none counts twice. Returns the sends."""
    if not segments:
        return 0
    is_small = sum(map(_size_of, segments)) <= SMALL_BYTES
    read = _from_small if is_small else over
    db.execute("BEGIN")
    try:
        if is_small:
            db.execute(over("read_small", segments))
        db.execute(read("senders_of_copy", segments))
        db.execute(metrics_sql()["copy_senders"])
        (count,) = db.execute(read("copy_sends", segments)).fetchone() or (0,)
        db.execute(read("copy_traffic", segments))
        db.execute(over("remember_segments", segments), [datetime.now(UTC).replace(tzinfo=None)])
        for segment in segments:
            merged.remember(db, segment.name)
        db.execute("COMMIT")
    except BaseException:
        db.execute("ROLLBACK")
        raise
    return int(count)


def _from_small(statement: str, segments: Sequence[Path]) -> str:
    """Returns a statement over the segments that are in memory already."""
    return metrics_sql()[statement].replace(metrics_sql()["segments_read"], "small")


def _size_of(segment: Path) -> int:
    state = state_of(segment)
    return state[1] if state else 0
