"""The figures of the overview.

They are the slowest questions of the page, and many sessions ask them every few seconds. One check in `CHECK_S` seconds
finds out whether runs or sends were added; only then are the figures computed again, once for all sessions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from core import open_workspace
from core.errors import ConfigError
from core.notify.rules import load_alerts
from core.records.metrics_queries import SendFilter, UsualTraffic
from core.workspace.paths import Workspace
from ui import data
from ui.cache import SharedCache

if TYPE_CHECKING:
    from core.records.metrics_queries import MetricsQueries

__all__ = ["CountedError", "Overview", "frequent_errors", "overview_figures"]

MAX_AGE_S = 60.0
"""Lifetime of figures in seconds, although no change was noticed: a file's change time may come late or stay the same."""
QUARTER_S = 900


@dataclass(frozen=True)
class CountedError:
    """An error, how often it occurred, and how often a retry succeeded."""

    kind: Literal["message", "run", "row"]
    text: str
    count: int
    last_seen: datetime
    retried_ok: int
    """How many of them succeeded later."""


@dataclass(frozen=True)
class Overview:
    """All figures that the overview draws."""

    at: datetime
    summary: dict[str, Any]
    usual: UsualTraffic
    days: list[dict[str, Any]]
    usual_days: dict[date, UsualTraffic]
    hours: list[dict[str, Any]]
    runs: list[dict[str, Any]]
    errors_24h: list[CountedError]
    """The newest first."""
    threshold_ms: float | None
    """An alert is raised above this p99; None: the rule is disabled."""


@dataclass(frozen=True)
class _CacheKey:
    """What figures depend on: as long as all of these are the same, so are the figures."""

    folder: Path
    timezone: str
    send_filter: SendFilter
    days: int
    quarter: int
    """Quarter of an hour since the epoch. Time alone changes what is usual so far, and days begin with a quarter in every zone."""
    runs: tuple[int, int, int]
    sends: tuple[int, ...]

    def at(self) -> datetime:
        """The clock, but never after the end of this quarter: an answer is about one day."""
        begins = datetime.fromtimestamp(self.quarter * QUARTER_S, UTC)
        return min(data.now(), begins + timedelta(seconds=QUARTER_S, microseconds=-1))


def overview_figures(send_filter: SendFilter, days: int) -> Overview:
    """The figures of the overview, of the last `days` days.

    Raises:
        PsttError: They cannot be read.
    """
    at = data.now()
    key = replace(_newest_keys.get(data.root()), send_filter=send_filter, quarter=_quarter(at))
    of_any, of_this = _of_any_period.get(key), _of_the_period.get(replace(key, days=days))
    return Overview(at=at, threshold_ms=_threshold_ms(key.folder), **of_any, **of_this)


def frequent_errors(send_filter: SendFilter, days: int) -> list[CountedError]:
    """Errors of the last `days` days, the most frequent first.

    The slowest question of the overview: it is asked separately, while the browser draws the rest.

    Raises:
        PsttError: They cannot be read.
    """
    key = replace(_newest_keys.get(data.root()), send_filter=send_filter, days=days, quarter=_quarter(data.now()))
    return _errors_of_the_period.get(key)


def _quarter(at: datetime) -> int:
    return int(at.timestamp()) // QUARTER_S


def _read_newest_key(folder: Path) -> _CacheKey:
    with open_workspace(folder, log=False) as app:
        timezone, runs = app.timezone, app.ledger.history.state()
    return _CacheKey(folder, timezone, SendFilter(), 0, 0, runs, data.metrics_of(folder).state())


def _read_any_period(key: _CacheKey) -> dict[str, Any]:
    at = key.at()
    end, week, day = (at + timedelta(days=days) for days in (1, -7, -1))
    with data.metrics_of(key.folder).figures(key.timezone) as figures:
        newest = sorted(_errors(figures, day, end, key.send_filter), key=lambda error: error.last_seen, reverse=True)
        return {
            "summary": figures.summary(at, key.send_filter),
            "usual": figures.usual(at, key.send_filter),
            "hours": figures.hours(week, end, key.send_filter),
            "runs": figures.runs(week, end, key.send_filter),
            "errors_24h": newest,
        }


def _read_the_period(key: _CacheKey) -> dict[str, Any]:
    at = key.at()
    with data.metrics_of(key.folder).figures(key.timezone) as figures:
        return {
            "days": figures.days(at, key.days, key.send_filter),
            "usual_days": figures.usual_days(at, key.days, key.send_filter),
        }


def _read_errors_of_the_period(key: _CacheKey) -> list[CountedError]:
    at = key.at()
    with data.metrics_of(key.folder).figures(key.timezone) as figures:
        return _errors(figures, figures.midnight(at, days=1 - key.days), at + timedelta(days=1), key.send_filter)


def _errors(figures: MetricsQueries, since: datetime, until: datetime, send_filter: SendFilter) -> list[CountedError]:
    found = [
        CountedError("message", row["error"] or "", row["count"], row["last_seen"], row["retried_ok"])
        for row in figures.errors(since, until, send_filter)
    ]
    found += [
        CountedError("run", row["error"] or "", row["count"], row["last_seen"], row["retried_ok"])
        for row in figures.run_errors(since, until, send_filter)
    ]
    found += [
        CountedError(
            "row",
            f"{row['column']}: {row['reason']}" if row["column"] else row["reason"],
            row["count"],
            row["last_seen"],
            0,
        )
        for row in figures.reject_reasons(since, until, send_filter)
    ]
    return sorted(found, key=lambda error: (-error.count, error.text))


def _threshold_ms(folder: Path) -> float | None:
    try:
        rule = load_alerts(Workspace(folder).alerts_file).rules["latency_p99"]
    except ConfigError:
        return None
    return rule.threshold if rule.enabled else None


_newest_keys = SharedCache(_read_newest_key, fresh_s=data.CHECK_S, stale_s=data.CHECK_S)
_of_any_period = SharedCache(_read_any_period, fresh_s=MAX_AGE_S, stale_s=MAX_AGE_S, error_s=data.CHECK_S)
_of_the_period = SharedCache(_read_the_period, fresh_s=MAX_AGE_S, stale_s=MAX_AGE_S, error_s=data.CHECK_S)
_errors_of_the_period = SharedCache(
    _read_errors_of_the_period, fresh_s=MAX_AGE_S, stale_s=MAX_AGE_S, error_s=data.CHECK_S
)
for _cache in (_newest_keys, _of_any_period, _of_the_period, _errors_of_the_period):
    data.on_clear(_cache.clear)
