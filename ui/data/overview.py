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
from core.records.metrics_queries import USUAL_WEEKS, SendFilter, UsualTraffic, usual_of
from core.workspace.paths import Workspace
from ui import data
from ui.cache import SharedCache
from ui.metrics_answers import clear_answers, metrics_answer, metrics_version, one_opening

if TYPE_CHECKING:
    from core.records.metrics_queries import MetricsQueries

__all__ = ["PERIODS", "CountedError", "Overview", "Period", "days_of_hours", "frequent_errors", "overview_figures"]

PERIODS = (7, 30, 90)
"""Numbers of last days that the overview offers."""
HOURS_OF_DAYS = 7
"""Days of which the charts show single hours where the period is that of the last days."""
MOST_DAYS_OF_HOURS = 31
"""The same of a period that was chosen by its dates: more hours than pixels make no chart."""


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
    week_before: dict[str, Any]
    """The seven days before the last seven, up to the same time of day."""
    usual: UsualTraffic
    days: list[dict[str, Any]]
    days_before: list[dict[str, Any]]
    """The same days of the week before."""
    messages_before: int
    """Messages of these days; where the last one is today, up to the same time of day."""
    rejected_days: dict[date, int]
    """Day → rows rejected."""
    usual_days: dict[date, UsualTraffic]
    hours: list[dict[str, Any]]
    """Of the last days of the period: `days_of_hours`."""
    runs: list[dict[str, Any]]
    """Of the same days as `hours`."""
    rejected_today: int
    """Rows rejected by runs that ended today."""
    errors_24h: list[CountedError]
    """The newest first."""
    threshold_ms: float | None
    """An alert is raised above this p99; None: the rule is disabled."""


def days_of_hours(days: int, last: date | None) -> int:
    """Of how many days, up to the last one of a period, the charts show single hours."""
    return min(days, HOURS_OF_DAYS if last is None else MOST_DAYS_OF_HOURS)


@dataclass(frozen=True)
class Period:
    """The days that the overview shows."""

    days: int
    last: date | None = None
    """The last one; None: today, whatever day that is."""

    def newest(self, today: date) -> date:
        """The last day."""
        return self.last or today

    def axis(self, today: date) -> list[date]:
        """Its days in order."""
        newest = self.newest(today)
        return [newest - timedelta(days=back) for back in range(self.days - 1, -1, -1)]


def overview_figures(
    send_filter: SendFilter, days: int, last: date | None = None, *, folder: Path | None = None
) -> Overview:
    """The figures of the overview, of so many days up to `last` (None: today).

    Args:
        send_filter: Which sends.
        days: How many days.
        last: The last one.
        folder: Of the workspace; None: that of the session.

    Raises:
        PsttError: They cannot be read.
    """
    at, version = data.now(), _versions.get(folder or data.root())
    with one_opening(version):
        of_any = metrics_answer(version, at, _any_period, send_filter)
        of_this = metrics_answer(version, at, _the_period, send_filter, days, last)
        of_hours = metrics_answer(version, at, _the_hours, send_filter, days_of_hours(days, last), last)
    return Overview(at=at, threshold_ms=_threshold_ms(version.folder), **of_any, **of_this, **of_hours)


def frequent_errors(
    send_filter: SendFilter, days: int, last: date | None = None, *, folder: Path | None = None
) -> list[CountedError]:
    """Errors of so many days up to `last` (None: today), the most frequent first. Arguments as of `overview_figures`.

    The slowest question of the overview: it is asked separately, while the browser draws the rest.

    Raises:
        PsttError: They cannot be read.
    """
    version = _versions.get(folder or data.root())
    return metrics_answer(version, data.now(), _errors_of_the_period, send_filter, days, last)


def _any_period(figures: MetricsQueries, at: datetime, send_filter: SendFilter) -> dict[str, Any]:
    end, day = at + timedelta(days=1), at - timedelta(days=1)
    newest = sorted(_errors(figures, day, end, send_filter), key=lambda error: error.last_seen, reverse=True)
    return {
        "summary": figures.summary(at, send_filter),
        "week_before": figures.week_before(at, 7, send_filter),
        "usual": figures.usual(at, send_filter),
        "rejected_today": figures.rejected_days(at, 1, send_filter).get(figures.today(at), 0),
        "errors_24h": newest,
    }


def _the_period(
    figures: MetricsQueries, at: datetime, send_filter: SendFilter, days: int, last: date | None
) -> dict[str, Any]:
    newest = last or figures.today(at)
    # One reading for the chart, the week before it and its band of eight weeks: it reads every quarter of an hour.
    rows = figures.days(at, days + 7 * USUAL_WEEKS, send_filter, last)
    first = newest - timedelta(days=days - 1)
    week = timedelta(days=7)
    return {
        "days": [row for row in rows if row["day"] >= first],
        "days_before": [row for row in rows if first - week <= row["day"] <= newest - week],
        "messages_before": figures.week_before(at, days, send_filter, last)["messages"],
        "rejected_days": figures.rejected_days(at, days, send_filter, last),
        "usual_days": usual_of(rows, newest, days),
    }


def _the_hours(
    figures: MetricsQueries, at: datetime, send_filter: SendFilter, days: int, last: date | None
) -> dict[str, Any]:
    since, until = _span(figures, at, days, last)
    return {"hours": figures.hours(since, until, send_filter), "runs": figures.runs(since, until, send_filter)}


def _errors_of_the_period(
    figures: MetricsQueries, at: datetime, send_filter: SendFilter, days: int, last: date | None
) -> list[CountedError]:
    return _errors(figures, *_span(figures, at, days, last), send_filter)


def _span(figures: MetricsQueries, at: datetime, days: int, last: date | None) -> tuple[datetime, datetime]:
    if last is None:  # to the present, and a little longer: other machines' clocks differ
        return figures.midnight(at, days=1 - days), at + timedelta(days=1)
    back = (figures.today(at) - last).days
    return figures.midnight(at, days=1 - days - back), figures.midnight(at, days=1 - back)


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
