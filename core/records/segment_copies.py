"""Copies segments into the open metrics.duckdb: how many in a transaction, and by which statements."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from core.records.damaged_segments import quoted
from core.records.merged_store import MergedSegments
from core.records.metrics_file import state_of
from core.records.metrics_queries import metrics_sql

__all__ = ["TOGETHER", "copy_together", "over", "portions"]

TOGETHER = 20
"""Segments in a transaction: a million sends, copied in half the time of twenty transactions."""
MORE_TOGETHER, MORE_BYTES = 40, 22_000_000
"""Segments in a transaction if together they are as large as twenty whole ones: the last one of each part of a run is shorter."""
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
        whole = size + more
        most = SMALL_TOGETHER if whole <= SMALL_BYTES else MORE_TOGETHER if whole <= MORE_BYTES else TOGETHER
        if len(portion) >= most:
            yield portion
            portion, size = [], 0
        portion.append(segment)
        size += more
    if portion:
        yield portion


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
