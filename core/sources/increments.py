"""Asks a database, on one connection, up to which position an incremental job reads now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from core.model.job import Incremental
from core.model.query import Step
from core.model.source import Increment
from core.model.window import Window
from core.sources.splitting import SplittingSource, columns_of_step
from core.sql.incremental import INCREMENTAL, cursor_columns
from core.sql.known_statements import KnownStatements

__all__ = ["find_increment"]


def find_increment(
    source: SplittingSource, raw: Any, steps: Sequence[Step], incremental: Incremental, window: Window
) -> Increment:
    """Returns what a run reads; see `core.model.source.Source.increment`. The connection's transaction has begun."""
    dialect = source.dialect
    step = KnownStatements(source.statements_dir).require_wrappable(steps, dialect, INCREMENTAL)
    before, columns = columns_of_step(source, raw, steps, step)
    cursor = cursor_columns(columns, incremental, dialect)
    nulls = None
    if incremental.count_nulls:
        nulls = int(source.rows(raw, cursor.nulls(step))[0][0])
    if incremental.kind == "timestamp" and dialect.is_untyped:  # a text that is no time sorts after every time
        found = source.rows(raw, cursor.highest(step, replace(window, latest=None)))
        cursor.position(found[0] if found else None)
    high = window.high
    if high is None:
        found = source.rows(raw, cursor.highest(step, window))
        high = cursor.position(found[0] if found else None)
    last = high or (window.low if window.since else None)
    return Increment(tuple(columns), (*before, cursor.window(step, window, last)), high, nulls)
