"""The queries over the sends, which page, REST, notebooks and command line share, so that they never disagree.

Counts are exact. Percentiles are exact to 1.5 %, since latencies are counted in buckets each 3 % wider than the one
before. Averages are exact to the microsecond.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from core.records.known_since import KnownSince
from core.records.named_sql import load_named_sql

if TYPE_CHECKING:
    import duckdb

__all__ = [
    "EVERYTHING",
    "USUAL_WEEKS",
    "MetricsQueries",
    "SendFilter",
    "UsualTraffic",
    "dicts",
    "metrics_sql",
    "usual_of",
]

QUARTER = timedelta(minutes=15)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
USUAL_WEEKS = 8
FEWEST_USUAL = 3
"""Earlier days of the same weekday with messages; with fewer there is no usual number."""
NEWEST_ROWS = "number >= (SELECT max(number) - 2_000_000 FROM send)"
"""Where many keys have the same beginning, their newest sends are among these; sorting all would take seconds."""
MOST_FOUND = 100_000
"""The most sends of one key that are read."""
READERS = 8
"""Threads that search a key. 100,000,000 sends that are not in memory take 0.6 s, 1.0 with two threads, as much processor time."""


@dataclass(frozen=True, slots=True)
class SendFilter:
    """Which sends a query counts; None: any."""

    job: str | None = None
    """A job's slug; empty: what was sent by hand."""
    topic: str | None = None
    cluster: str | None = None
    """The environment that a run sent to. Messages sent by hand belong to no run, so to no environment."""


EVERYTHING = SendFilter()


@dataclass(frozen=True, slots=True)
class UsualTraffic:
    """The usual number of messages on a weekday: lowest, median and highest of at most eight earlier ones."""

    days: int
    """How many of them had messages."""
    whole_day: tuple[int, int, int] | None
    """Lowest, median, highest; None where fewer than three such days are known."""
    so_far: tuple[int, int, int] | None
    """The same, up to the same time of day."""


class MetricsQueries:
    """The queries, over one opening of the metrics (`Metrics.figures`).

    Larger than other classes: each method is one query of metrics.sql, and all share its filter and period.

    Args:
        db: Has the views of `Metrics.reading`.
        timezone: IANA time zone of days and hours.
        again: Called with the error of a query. Returns another opening, or raises where that would not help.
    """

    def __init__(
        self,
        db: duckdb.DuckDBPyConnection,
        timezone: str,
        again: Callable[[duckdb.Error], duckdb.DuckDBPyConnection] | None = None,
    ) -> None:
        self._db = db
        self._again = again
        self._timezone = timezone
        self._sql = metrics_sql()
        self._zone = ZoneInfo(timezone)
        make_zone(db, timezone)

    def totals(self, since: datetime, until: datetime, scope: SendFilter | None = None) -> dict[str, Any]:
        """Returns counts, rates and latencies of any period, exact to the microsecond.

        Returns:
            `messages` (acknowledged), `errors`, `retried`, `timed_out`, `bytes` (keys and values of what was
            acknowledged), `success_rate, error_rate, retry_rate, timeout_rate` (0 to 1, None where nothing was sent),
            `avg_latency_ms`, `latency_ms{avg, p50, p90, p99}`, `messages_per_s` over the whole period, `last_send`.
        """
        (row,) = self._ask("totals", since, until, scope)
        seconds = (until - since).total_seconds()
        return _numbers(row) | {"messages_per_s": row["sent"] / seconds if seconds > 0 else None}

    def summary(self, now: datetime, scope: SendFilter | None = None) -> dict[str, Any]:
        """Returns today, the last 7 days and everything; days begin at midnight in the time zone.

        Returns:
            `total_sent, total_failed, success_rate, bytes, latency_ms{avg,p50,p90,p99}, by_topic{topic: messages, bytes,
            last_send}, recent_errors[{error, count, last_seen, retried_ok}], known_since (a day, or None: every single send is known), today{…}, last_7_days{…}`.
        """
        midnight, end = self.midnight(now), _up(now + DAY)
        today = self.totals(midnight, end, scope)
        week = self.totals(self.midnight(now, days=-6), end, scope)
        all_of_it, *topics = self._ask("totals_and_topics", EPOCH, end, scope)
        everything = _numbers(all_of_it)
        return {
            "total_sent": everything["messages"],
            "total_failed": everything["errors"],
            "success_rate": everything["success_rate"],
            "bytes": everything["bytes"],
            "latency_ms": everything["latency_ms"],
            "by_topic": {
                row["topic"]: {"messages": row["sent"], "bytes": row["bytes"], "last_send": row["last_send"]}
                for row in topics
            },
            "recent_errors": self.errors(now - DAY, end, scope),
            "known_since": self.known_since().of(scope.job if scope else None),
            "today": _without_rate(today),
            "last_7_days": _without_rate(week) | {"messages_per_day": round(week["messages"] / 7)},
        }

    def known_since(self) -> KnownSince:
        """Returns from when on single sends are known; earlier ones are counted by day."""
        return KnownSince({row["job"]: row["since"] for row in self._rows("known_days", {})})

    def by_topic(self, since: datetime, until: datetime, scope: SendFilter | None = None) -> list[dict[str, Any]]:
        """Returns for each topic what `totals` returns, without percentiles; ordered by name."""
        return [{"topic": row["topic"]} | _numbers(row) for row in self._ask("by_topic", since, until, scope)]

    def by_job(self, since: datetime, until: datetime, scope: SendFilter | None = None) -> list[dict[str, Any]]:
        """Returns for each job what `totals` returns, and its runs that began in the period.

        Returns:
            By slug: the numbers of `totals`, then `runs, succeeded, not_succeeded, rows_read, acknowledged, rejected`,
            `duration_avg_s, duration_max_s, rows_per_s`, `end_to_end_avg_s, end_to_end_max_s` (trigger to last
            acknowledgement). The job `""` is for messages sent by hand. Where a job had no run, or sent nothing,
            the numbers are 0 or None.
        """
        sent = {row["job"]: _numbers(row) for row in self._ask("by_job", since, until, scope)}
        runs = {row.pop("job"): row for row in self._ask("job_runs", since, until, scope)}
        return [{"job": job} | sent.get(job, _NOTHING_SENT) | runs.get(job, _NO_RUNS) for job in sorted({*sent, *runs})]

    def by_job_and_topic(
        self, since: datetime, until: datetime, scope: SendFilter | None = None
    ) -> list[dict[str, Any]]:
        """Returns for each job and topic what `totals` returns, without percentiles."""
        rows = self._ask("by_job_and_topic", since, until, scope)
        return [{"job": row["job"], "topic": row["topic"]} | _numbers(row) for row in rows]

    def latency_counts(self, since: datetime, until: datetime, scope: SendFilter | None = None) -> list[dict[str, Any]]:
        """Returns acknowledged messages by topic and latency: `topic, latency_ms` (to 1.5 %)`, messages, latency_us` (sum)."""
        return self._ask("latency_counts", since, until, scope)

    def run_states(self, since: datetime, until: datetime, scope: SendFilter | None = None) -> list[dict[str, Any]]:
        """Returns the runs that began in the period by job and state: `job, state, runs`."""
        return self._ask("run_states", since, until, scope)

    def newest_runs(self) -> list[dict[str, Any]]:
        """Returns the newest ended run of each job: `job, duration_s, end_to_end_s`, and when it last `succeeded_at`."""
        return self._rows("newest_runs", {})

    def senders(self, first: date, last: date, scope: SendFilter | None = None) -> list[dict[str, Any]]:
        """Returns which runs sent on these days of the zone: `run_id, job` (empty: by hand)`, messages`, failed ones too."""
        noon = datetime(first.year, first.month, first.day, 12, tzinfo=self._zone)
        since = self.midnight(noon)
        return self._ask("senders", since, self.midnight(noon, days=(last - first).days + 1), scope)

    def counted_by_day(self, first: date, last: date, scope: SendFilter | None = None) -> int:
        """Returns how many messages of these days of the zone are rolled up, so that their runs are not known."""
        noon = datetime(first.year, first.month, first.day, 12, tzinfo=self._zone)
        (row,) = self._ask(
            "counted_by_day", self.midnight(noon), self.midnight(noon, days=(last - first).days + 1), scope
        )
        return int(row["messages"])

    def days(
        self, now: datetime, days: int = 30, scope: SendFilter | None = None, last: date | None = None
    ) -> list[dict[str, Any]]:
        """Returns so many days up to `last` (None: today), by day and topic: what `totals` returns, without percentiles.

        Days without a message have no row.
        """
        rows = self._ask("days", *self._span_of_days(now, days, last), scope)
        return [{"day": row["day"], "topic": row["topic"]} | _numbers(row) for row in rows]

    def hours(self, since: datetime, until: datetime, scope: SendFilter | None = None) -> list[dict[str, Any]]:
        """Returns by hour of the zone what `totals` returns; `hour` is its beginning, aware UTC.

        Counts whole quarter-hours: `since` is rounded down and `until` up. Hours without a message have no row.
        """
        rows = self._ask("hours", _down(since), _up(until), scope)
        return [
            {"hour": row["hour"]}
            | _numbers(row)
            | {"messages_per_s": row["sent"] / 3600, "bytes_per_s": row["bytes"] / 3600}
            for row in rows
        ]

    def usual(self, now: datetime, scope: SendFilter | None = None) -> UsualTraffic:
        """Returns the usual number of messages on this weekday, from the eight before it.

        `so_far` counts each day up to the time of `now`, in quarter-hours, so a morning is compared with mornings.
        """
        earlier = [7 * week for week in range(1, USUAL_WEEKS + 1)]
        begins = [self.midnight(now, days=-back) for back in earlier]
        local = now.astimezone(self._zone)
        so_far = [_down((local - timedelta(days=back)).astimezone(UTC)) for back in earlier]
        ends = [self.midnight(now, days=1 - back) for back in earlier]
        rows = self._ask("usual", begins[-1], ends[0], scope, begins=begins, so_far=so_far, ends=ends)
        known = [row for row in rows if row["whole_day"]]
        return UsualTraffic(
            len(known), _spread(row["whole_day"] for row in known), _spread(row["so_far"] for row in known)
        )

    def week_before(
        self, now: datetime, days: int = 7, scope: SendFilter | None = None, last: date | None = None
    ) -> dict[str, Any]:
        """Returns what `totals` returns for so many days up to `last` (None: today), each a week earlier.

        If the last one is today, its day a week ago is counted up to the same time of day, so that a morning is
        compared with a morning. With seven days it is what `summary` has as `last_7_days`, a week earlier.
        """
        newest = last or self.today(now)
        since, until = self._span_of_days(now, days, newest - timedelta(days=7))
        same_time = (now.astimezone(self._zone) - timedelta(days=7)).astimezone(UTC)
        return _without_rate(self.totals(since, min(until, same_time), scope))

    def usual_days(
        self, now: datetime, days: int = 30, scope: SendFilter | None = None, last: date | None = None
    ) -> dict[date, UsualTraffic]:
        """Returns for each day of `days` what was usual before it: the band of its chart."""
        rows = self.days(now, days + 7 * USUAL_WEEKS, scope, last)
        return usual_of(rows, last or self.today(now), days)

    def errors(
        self, since: datetime, until: datetime, scope: SendFilter | None = None, limit: int = 20
    ) -> list[dict[str, Any]]:
        """Returns why messages failed, the most frequent first.

        Returns:
            `error, count, last_seen, retried_ok`: how many of them another run has acknowledged since under the
            same message id.
        """
        return self._ask("errors", since, until, scope, limit=limit)

    def run_errors(
        self, since: datetime, until: datetime, scope: SendFilter | None = None, limit: int = 20
    ) -> list[dict[str, Any]]:
        """Returns why runs failed, the most frequent first: `error, error_class, count, last_seen, retried_ok, last_run`.

        `retried_ok`: for how many of them a later run of the same scheduled time succeeded.
        """
        return self._ask("run_errors", since, until, scope, limit=limit)

    def reject_reasons(
        self, since: datetime, until: datetime, scope: SendFilter | None = None, limit: int = 20
    ) -> list[dict[str, Any]]:
        """Returns why rows were rejected, most frequent first.

        Returns:
            `column, database_type, reason, count, runs, last_seen, last_run`.
        """
        return self._ask("reject_reasons", since, until, scope, limit=limit)

    def rejected_days(
        self, now: datetime, days: int = 30, scope: SendFilter | None = None, last: date | None = None
    ) -> dict[date, int]:
        """Returns day of the zone → rows rejected by runs that ended on it, of so many days up to `last` (None: today)."""
        rows = self._ask("rejected_days", *self._span_of_days(now, days, last), scope)
        return {row["day"]: row["rejected"] for row in rows}

    def runs(
        self, since: datetime, until: datetime, scope: SendFilter | None = None, limit: int = 1000
    ) -> list[dict[str, Any]]:
        """Returns the runs that began in the period, newest first.

        Returns:
            The columns of the view `runs`, and `last_acknowledged_at`, `triggered_at` (the scheduled time for a
            run of the calendar, else its beginning), `end_to_end_s` (trigger to last acknowledgement), `rows_per_s`.
        """
        return self._ask("run_figures", since, until, scope, limit=limit)

    def run_span(self, run_id: str, since: datetime, until: datetime) -> dict[str, Any]:
        """Returns when a run's first message was sent and acknowledged, and when the last; None where there is none.

        Args:
            run_id: The run.
            since: When it began. Sends are stored in order of time, so few of 50,000,000 are read.
            until: When it ended.
        """
        return self._rows("run_span", {"run_id": run_id, "since": since, "until": until})[0]

    def latency_histogram(self, run_id: str) -> list[dict[str, Any]]:
        """Returns the latencies of one run: `from_ms, to_ms, messages`; each bucket is 3 % wider than the one before."""
        return self._rows("latency_histogram", {"run_id": run_id})

    def find(self, key: str, limit: int = MOST_FOUND) -> list[dict[str, Any]]:
        """Returns every send of that key, also with blanks after it, as in a CHAR column; oldest first, times aware UTC."""
        self._read_at_once()
        found = self._rows("found", {"key": key.rstrip(" "), "limit": limit})
        return [row for row in found if row.pop("same")]

    def find_beginning(self, start: str, limit: int = 200) -> list[dict[str, Any]]:
        """Returns the newest `limit` sends whose key begins with `start`, by key and time; times aware UTC."""
        self._read_at_once()
        size = min(len(start.encode()), 8)
        below = 4 * (8 - size)
        low = self._head_of(start) >> below << below
        values = {"key": start, "low": low, "high": low + (1 << below) - 1, "limit": limit}
        exact = "starts_with(key, $key)"
        steps = (exact,) if size == 8 else (NEWEST_ROWS, "true", exact)
        found: list[dict[str, Any]] = []
        for match in steps:
            found = self._find_beginning(match, values)
            if len(found) >= limit and all(row["begins"] for row in found):
                break
            if match == "true" and len(found) < limit:
                break  # these are all
        newest = [row for row in found if row.pop("begins")][:limit]
        return sorted(newest, key=lambda row: (row["key"], row["sent_at"], row["attempt"]))

    def _read_at_once(self) -> None:
        """Lets this opening of the file read a column with more threads than there are processors: they wait for the disk."""
        self._db.execute(f"SET threads = {READERS}")

    def _find_beginning(self, match: str, values: dict[str, Any]) -> list[dict[str, Any]]:
        return self._answered(self._sql["found_beginning"].replace("{match}", match), values)

    def _head_of(self, key: str) -> int:
        return int(self._rows("head_of_key", {"key": key})[0]["head"])

    def today(self, now: datetime) -> date:
        """Returns the date of `now` in the zone."""
        return now.astimezone(self._zone).date()

    def midnight(self, now: datetime, days: int = 0) -> datetime:
        """Returns the beginning of the day of `now` in the zone, or of the day `days` later; aware UTC."""
        day = self.today(now) + timedelta(days=days)
        return datetime(day.year, day.month, day.day, tzinfo=self._zone).astimezone(UTC)

    def _span_of_days(self, now: datetime, days: int, last: date | None) -> tuple[datetime, datetime]:
        """The beginning and the end of so many days; those up to today end a day later: other machines' clocks differ."""
        if last is None:
            return self.midnight(now, days=1 - days), _up(now + DAY)
        noon = datetime(last.year, last.month, last.day, 12, tzinfo=self._zone)
        return self.midnight(noon, days=1 - days), self.midnight(noon, days=1)

    def _ask(
        self, name: str, since: datetime, until: datetime, scope: SendFilter | None, **values: Any
    ) -> list[dict[str, Any]]:
        first, last = _up(since), _down(until)
        if first > last:  # the period is within one quarter-hour
            first = last = until
        period = {"since": since, "until": until, "first": first, "last": last}
        return self._rows(name, asdict(scope or EVERYTHING) | period | values)

    def _rows(self, name: str, values: Mapping[str, Any]) -> list[dict[str, Any]]:
        sql = self._sql[name]
        asked = set(re.findall(r"\$(\w+)", sql))
        return self._answered(sql, {n: _plain(value) for n, value in values.items() if n in asked})

    def _answered(self, sql: str, values: dict[str, Any]) -> list[dict[str, Any]]:
        import duckdb

        try:
            return dicts(self._db.execute(sql, values))
        except duckdb.Error as error:
            if self._again is None:
                raise
            self._db = self._again(error)
            make_zone(self._db, self._timezone)
        return dicts(self._db.execute(sql, values))


def usual_of(rows: Iterable[Mapping[str, Any]], newest: date, days: int) -> dict[date, UsualTraffic]:
    """Returns for each of so many days up to `newest` what was usual before it.

    Args:
        rows: What `MetricsQueries.days` returns, beginning eight weeks (`USUAL_WEEKS`) before the first of these days.
        newest: The last day.
        days: How many.
    """
    counts: dict[date, int] = {}
    for row in rows:
        counts[row["day"]] = counts.get(row["day"], 0) + row["messages"]
    bands = {}
    for back in range(days):
        day = newest - timedelta(days=back)
        earlier = [counts.get(day - timedelta(days=7 * week), 0) for week in range(1, USUAL_WEEKS + 1)]
        known = [count for count in earlier if count]
        bands[day] = UsualTraffic(len(known), _spread(known), None)
    return bands


def _numbers(row: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a row of sums under their public names."""
    total = row["total"]
    latency_ms = {name: _rounded(row.get(f"latency_{name}_ms")) for name in ("avg", "p50", "p90", "p99")}
    return {
        "messages": row["sent"],
        "errors": row["failed"],
        "retried": row["retried"],
        "timed_out": row["timed_out"],
        "success_rate": row["sent"] / total if total else None,
        "error_rate": row["failed"] / total if total else None,
        "retry_rate": row["retried"] / total if total else None,
        "timeout_rate": row["timed_out"] / total if total else None,
        "bytes": row["bytes"],
        "avg_latency_ms": latency_ms["avg"],
        "latency_ms": latency_ms,
        "last_send": row["last_send"],
    }


def _without_rate(totals: dict[str, Any]) -> dict[str, Any]:
    """Returns the totals without messages a second, which mean nothing for a day that is not over."""
    return {name: value for name, value in totals.items() if name != "messages_per_s"}


def _rounded(latency_ms: float | None) -> float | None:
    return None if latency_ms is None else round(latency_ms, 2)


_NOTHING_SENT = _numbers(
    {"total": 0, "sent": 0, "failed": 0, "retried": 0, "timed_out": 0, "bytes": 0, "last_send": None}
)
_NO_RUNS = {
    **dict.fromkeys(("runs", "succeeded", "not_succeeded", "rows_read", "acknowledged", "rejected"), 0),
    **dict.fromkeys(("duration_avg_s", "duration_max_s", "rows_per_s", "end_to_end_avg_s", "end_to_end_max_s")),
}


def _spread(counts: Iterable[int]) -> tuple[int, int, int] | None:
    ordered = sorted(counts)
    if len(ordered) < FEWEST_USUAL:
        return None
    return ordered[0], round(statistics.median(ordered)), ordered[-1]


def _down(moment: datetime) -> datetime:
    return moment - (moment - EPOCH) % QUARTER


def _up(moment: datetime) -> datetime:
    return moment + (EPOCH - moment) % QUARTER


@cache
def metrics_sql() -> Mapping[str, str]:
    """Returns the statements of metrics.sql."""
    return load_named_sql("metrics.sql")


def make_zone(db: duckdb.DuckDBPyConnection, timezone: str) -> None:
    """Creates the temporary table `zone`: the offsets of a time zone, and from when each is valid."""
    _make_zone(db, timezone, "TEMP TABLE")


def keep_zone(db: duckdb.DuckDBPyConnection, timezone: str) -> None:
    """Creates the table `zone` in the open file, for its views; writes only where the offsets have changed."""
    kept = db.execute("SELECT 1 FROM duckdb_tables() WHERE table_name = 'zone' AND NOT temporary").fetchone()
    wanted = (timezone, len(_offsets_so_far(timezone)))
    if not kept or db.execute("SELECT any_value(timezone), count(*) FROM main.zone").fetchone() != wanted:
        _make_zone(db, timezone, "TABLE")


def _make_zone(db: duckdb.DuckDBPyConnection, timezone: str, kind: str) -> None:
    begins, offsets = zip(*_offsets_so_far(timezone), strict=True)
    db.execute(
        f"CREATE OR REPLACE {kind} zone AS SELECT ? AS timezone, unnest(?::TIMESTAMP[]) AS begins, "
        "to_seconds(unnest(?::BIGINT[])) AS utc_offset",
        [timezone, [_plain(moment) for moment in begins], list(offsets)],
    )


def _offsets_so_far(timezone: str) -> Sequence[tuple[datetime, int]]:
    return _offsets(timezone, datetime.now(UTC).year + 2)


@cache
def _offsets(timezone: str, until_year: int) -> Sequence[tuple[datetime, int]]:
    """Returns the changes of a zone's offset since 2000, to the quarter-hour: (UTC, seconds)."""
    zone = ZoneInfo(timezone)

    def offset(moment: datetime) -> int:
        return int((moment.astimezone(zone).utcoffset() or timedelta()).total_seconds())

    weeks = [datetime(2000, 1, 1, tzinfo=UTC) + timedelta(days=7 * n) for n in range((until_year - 2000) * 53)]
    found = [(EPOCH, offset(weeks[0]))]
    for before, after in pairwise(weeks):
        if offset(before) == offset(after):
            continue
        quarters = range(1, 7 * 24 * 4 + 1)
        moment = next(before + n * QUARTER for n in quarters if offset(before + n * QUARTER) == offset(after))
        found.append((moment, offset(after)))
    return found


def dicts(result: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    """Returns the rows by column name; times aware UTC."""
    names = [column[0] for column in result.description or []]
    return [
        {n: v.replace(tzinfo=UTC) if isinstance(v, datetime) else v for n, v in zip(names, row, strict=True)}
        for row in result.fetchall()
    ]


def _plain(value: Any) -> Any:
    """Returns times as naive UTC, as DuckDB's TIMESTAMP columns have them."""
    if isinstance(value, list):
        return [_plain(entry) for entry in value]
    return value.astimezone(UTC).replace(tzinfo=None) if isinstance(value, datetime) else value
