"""Splits a query into parts on one connection, which holds the snapshot that the parts read."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from core.model.dialect import Dialect
from core.model.job import Partitions
from core.model.query import Step, Value
from core.model.source import Column, Split
from core.sql.known_statements import KnownStatements
from core.sql.partitioning import bounds_of, column_of, described, part_steps, tiles

__all__ = ["SplittingSource", "columns_of_step", "split_query"]

SAMPLED_ROWS_A_PART = 5_000
"""Rows that are sorted to find the ranges of a larger result. The size of a part then has a standard deviation of 1.4 %."""
LEAST_SAMPLED = 20_000


class SplittingSource(Protocol):
    """What a source does for this on an open connection."""

    @property
    def dialect(self) -> Dialect:
        """The rules of the database."""
        ...

    statements_dir: Path | None
    """See `core.model.source.Source`."""

    def run(self, raw: Any, step: Step) -> None:
        """Runs a statement and discards its rows."""
        ...

    def count(self, raw: Any, step: Step) -> int:
        """Returns COUNT(*) over a statement."""
        ...

    def rows(self, raw: Any, step: Step) -> list[tuple[Any, ...]]:
        """Returns all rows of a statement."""
        ...

    def stream(self, raw: Any, step: Step, fetch_rows: int) -> tuple[tuple[Column, ...], Iterator[Sequence[Any]]]:
        """Runs the result's statement; returns its columns and its blocks of rows."""
        ...

    def export_snapshot(self, raw: Any) -> tuple[str, str]:
        """Returns the token of the connection's snapshot, and a warning if other connections cannot read it."""
        ...


def columns_of_step(
    source: SplittingSource, raw: Any, steps: Sequence[Step], step: Step
) -> tuple[tuple[Step, ...], tuple[Column, ...]]:
    """Runs the session settings before a statement; returns them, and the columns of its result, of which no row is read."""
    before = tuple(steps[: list(steps).index(step)])
    for earlier in before:
        source.run(raw, earlier)
    columns, blocks = source.stream(raw, described(step, source.dialect), 1)
    if isinstance(blocks, Generator):
        blocks.close()
    return before, columns


def split_query(
    source: SplittingSource,
    raw: Any,
    steps: Sequence[Step],
    partitions: Partitions,
    *,
    count: bool,
    bounds: Sequence[Value] | None,
) -> Split:
    """Splits a query; see `core.model.source.Source.split`. The connection's transaction has begun."""
    dialect = source.dialect
    step = KnownStatements(source.statements_dir).require_wrappable(steps, dialect)
    snapshot, warning = source.export_snapshot(raw)
    warnings = [warning] if warning else []
    before, columns = columns_of_step(source, raw, steps, step)
    column = column_of(columns, partitions, dialect)
    counted = source.count(raw, step) if count or (partitions.by == "range" and bounds is None) else None
    if partitions.by == "hash":
        found: tuple[Value, ...] = ()
    elif bounds is not None:
        found = tuple(bounds)
    else:
        found = _bounds(source, raw, step, column, partitions, counted or 0)
        if len(found) + 1 < partitions.count:
            warnings.append(_fewer(column, partitions.count, len(found) + 1))
    parts = part_steps(step, dialect, column, partitions, found)
    return Split(
        columns, tuple((*before, part) for part in parts), found, counted, snapshot, not warning, tuple(warnings)
    )


def _bounds(
    source: SplittingSource, raw: Any, step: Step, column: Column, partitions: Partitions, counted: int
) -> tuple[Value, ...]:
    sampled = max(SAMPLED_ROWS_A_PART * partitions.count, LEAST_SAMPLED)
    ppm = sampled * 1_000_000 // counted if counted > 2 * sampled else None
    highest = [row[0] for row in source.rows(raw, tiles(step, source.dialect, column, partitions.count, ppm))]
    return bounds_of(highest, column, source.dialect)


def _fewer(column: Column, wanted: int, got: int) -> str:
    parts = "1 part" if got == 1 else f"{got} parts"
    return f"the query was split into {parts} instead of {wanted}: column {column.name} has too few different values"
