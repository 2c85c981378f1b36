"""What a run will do, decided before it starts: its query bound, its destination found."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from core.errors import ConfigError
from core.model.connection import DbType
from core.model.query import ParameterValue, Query

if TYPE_CHECKING:
    pass
from core.model.connection import DB_TYPES

__all__ = ["DEFAULT_TIMEZONE", "bound", "bound_query", "overridden"]

DEFAULT_TIMEZONE = "Europe/Rome"


def bound_query(file: Path, db_type: str, params: Mapping[str, str], at: datetime) -> Query:
    """An SQL file with these parameters, as `python -m core sql` shows it."""
    if db_type not in DB_TYPES:
        raise ConfigError(f"--db-type {db_type} is not known", remedy=f"use one of {', '.join(DB_TYPES)}")
    scheduled_at = at if at.tzinfo else at.replace(tzinfo=ZoneInfo(DEFAULT_TIMEZONE))
    chosen = next(known for known in DB_TYPES if known == db_type)
    return bound(file, chosen, params, scheduled_at, DEFAULT_TIMEZONE, allow_writes=False)


def bound(
    file: Path,
    db_type: DbType,
    params: Mapping[str, ParameterValue],
    scheduled_at: datetime,
    timezone: str,
    *,
    allow_writes: bool,
) -> Query:
    """Reads the file, resolves the templates, binds the values."""
    from core.calendar.templates import resolve
    from core.sql.query import load

    parsed = load(file, db_type)
    values = parsed.resolved(params, lambda text: resolve(text, scheduled_at, timezone))
    return parsed.bind(values, allow_writes=allow_writes)


def overridden(of_job: Mapping[str, ParameterValue], own: Mapping[str, ParameterValue]) -> dict[str, ParameterValue]:
    """The job's values, with a run's own ones instead; names compare in any case."""
    instead = {name.upper() for name in own}
    return {**{name: value for name, value in of_job.items() if name.upper() not in instead}, **own}
