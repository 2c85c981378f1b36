"""The figures of the overview.

They are the slowest questions of the page, and many sessions ask them every few seconds. The version of the metrics is
asked for once in `CHECK_S` seconds; only a new one makes `ui.metrics_answers` compute again, once for all sessions.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from core.errors import ConfigError
from core.notify.rules import load_alerts
from core.records.metrics_queries import SendFilter, UsualTraffic
from core.workspace.paths import Workspace
from ui import data
from ui.cache import SharedCache
from ui.metrics_answers import clear_answers, metrics_answer, metrics_version

if TYPE_CHECKING:
    from core.records.metrics_queries import MetricsQueries

__all__ = ["CountedError", "Overview", "frequent_errors", "overview_figures"]


@dataclass(frozen=True)
class CountedError:
    """An error, how often it occurred, and how often a retry succeeded."""

    kind: Literal["message", "run", "row"]
    text: str
    count: int
    last_seen: datetime
    retried_ok: int
    """How many of them succeeded later."""
    last_run: str
    """The newest run that had it; empty for messages that were sent by hand."""


@dataclass(frozen=True)
class Overview:
    """All figures that the overview draws."""

    at: datetime
    summary: dict[str, Any]
    usual: UsualTraffic
    days: list[dict[str, Any]]
    rejected_days: dict[date, int]
    """Day → rows rejected."""
    usual_days: dict[date, UsualTraffic]
    hours: list[dict[str, Any]]
    runs: list[dict[str, Any]]
    errors_24h: list[CountedError]
    """The newest first."""
    threshold_ms: float | None
    """An alert is raised above this p99; None: the rule is disabled."""


def overview_figures(send_filter: SendFilter, days: int) -> Overview:
    """The figures of the overview, of the last `days` days.

    Raises:
        PsttError: They cannot be read.
    """
    at, version = data.now(), _versions.get(data.root())
    of_any = metrics_answer(version, at, _any_period, send_filter)
    of_this = metrics_answer(version, at, _the_period, send_filter, days)
    return Overview(at=at, threshold_ms=_threshold_ms(version.folder), **of_any, **of_this)


def frequent_errors(send_filter: SendFilter, days: int) -> list[CountedError]:
    """Errors of the last `days` days, the most frequent first.

    The slowest question of the overview: it is asked separately, while the browser draws the rest.

    Raises:
        PsttError: They cannot be read.
    """
    version = _versions.get(data.root())
    return metrics_answer(version, data.now(), _errors_of_the_period, send_filter, days)


def _any_period(figures: MetricsQueries, at: datetime, send_filter: SendFilter) -> dict[str, Any]:
    end, week, day = (at + timedelta(days=days) for days in (1, -7, -1))
    newest = sorted(_errors(figures, day, end, send_filter), key=lambda error: error.last_seen, reverse=True)
    return {
        "summary": figures.summary(at, send_filter),
        "usual": figures.usual(at, send_filter),
        "hours": figures.hours(week, end, send_filter),
        "runs": figures.runs(week, end, send_filter),
        "errors_24h": newest,
    }


def _the_period(figures: MetricsQueries, at: datetime, send_filter: SendFilter, days: int) -> dict[str, Any]:
    return {
        "days": figures.days(at, days, send_filter),
        "rejected_days": figures.rejected_days(at, days, send_filter),
        "usual_days": figures.usual_days(at, days, send_filter),
    }


def _errors_of_the_period(
    figures: MetricsQueries, at: datetime, send_filter: SendFilter, days: int
) -> list[CountedError]:
    return _errors(figures, figures.midnight(at, days=1 - days), at + timedelta(days=1), send_filter)


def _errors(figures: MetricsQueries, since: datetime, until: datetime, send_filter: SendFilter) -> list[CountedError]:
    found = [
        CountedError(
            "message", row["error"] or "", row["count"], row["last_seen"], row["retried_ok"], row["last_run"] or ""
        )
        for row in figures.errors(since, until, send_filter)
    ]
    found += [
        CountedError("run", row["error"] or "", row["count"], row["last_seen"], row["retried_ok"], row["last_run"])
        for row in figures.run_errors(since, until, send_filter)
    ]
    found += [
        CountedError(
            "row",
            f"{row['column']}: {row['reason']}" if row["column"] else row["reason"],
            row["count"],
            row["last_seen"],
            0,
            row["last_run"],
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


_versions = SharedCache(metrics_version, fresh_s=data.CHECK_S, stale_s=data.CHECK_S)
data.on_clear(_versions.clear)
data.on_clear(clear_answers)
