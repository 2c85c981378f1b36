"""What a run will do, decided before it starts: its query bound, its destination found."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from core.errors import ConfigError
from core.model.dialect import Dialect
from core.model.query import ParameterValue, Query
from core.sources import database_types, find_dialect

__all__ = ["DEFAULT_TIMEZONE", "bound", "bound_query", "overridden"]

DEFAULT_TIMEZONE = "Europe/Rome"


def bound_query(file: Path, db_type: str, params: Mapping[str, str], at: datetime) -> Query:
    """An SQL file with these parameters, as `python -m core sql` shows it."""
    if db_type not in database_types():
        raise ConfigError(f"--db-type {db_type} is not known", remedy=f"use one of {', '.join(database_types())}")
    scheduled_at = at if at.tzinfo else at.replace(tzinfo=ZoneInfo(DEFAULT_TIMEZONE))
    return bound(file, find_dialect(db_type), params, scheduled_at, DEFAULT_TIMEZONE, allow_writes=False)


def bound(
    file: Path,
    dialect: Dialect,
    params: Mapping[str, ParameterValue],
    scheduled_at: datetime,
    timezone: str,
    *,
    allow_writes: bool,
) -> Query:
    """Reads the file, resolves the templates, binds the values."""
    from core.calendar.templates import resolve
    from core.sql.query import load

    parsed = load(file, dialect)
    values = parsed.resolved(params, lambda text: resolve(text, scheduled_at, timezone))
    return parsed.bind(values, allow_writes=allow_writes)


def overridden(of_job: Mapping[str, ParameterValue], own: Mapping[str, ParameterValue]) -> dict[str, ParameterValue]:
    """The job's values, with a run's own ones instead; names compare in any case."""
    instead = {name.upper() for name in own}
    return {**{name: value for name, value in of_job.items() if name.upper() not in instead}, **own}
