"""Cron and interval: which scheduled times a job has, and which of the missed ones run.

Reads no clock and no file; takes aware datetimes and returns aware UTC. cronsim parses the five fields and finds the
matching wall-clock times; clock changes are handled here, by the rule of Debian's cron:

* A calendar with a set time (`0 2 * * *`, `30 2 1 * *`) means the local time. A time that the clock
  change skips runs at the change; one that occurs twice runs the first time: daily 02:30 runs exactly once on both days.
* A calendar that begins with a star in minute or hour (`*/15 * * * *`, `0 * * * *`) means every such moment: hourly
  runs 23 times on the short day and 25 times on the long one.
* An interval counts from 1970-01-01 00:00 UTC, so that neither a restart nor a clock change shifts it.

cronsim's own handling of clock changes is not used: where the clock moves by half an hour (Australia/Lord_Howe) it
leaves out `*/30 2 * * *` at 02:00 (cronsim 2.8).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Protocol
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

if TYPE_CHECKING:
    from core.model.job import CatchUp, SchedulingMode


__all__ = [
    "ALIASES",
    "Calendar",
    "CatchUpDecision",
    "SkippedTimes",
    "all_scheduled_times",
    "apply_catch_up",
    "check_cron",
    "next_scheduled_times",
    "previous_scheduled_time",
    "scheduled_times",
]

ALIASES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
ADVICE = "write five fields: minute hour day month weekday, such as 0 2 * * *"
LONGEST_WAIT = timedelta(days=50 * 366)
"""cronsim gives up after as many years without a match."""
SHIFT = timedelta(hours=3)
"""Longer than any clock change; only a move over the date line is longer."""
MAX_SINGLE_SKIPS = 1000
"""Skipped times that are listed one by one; the older ones of one gap are summed up as a span."""


class Calendar(Protocol):
    """The fields of a `core.model.job.Job` that say when it runs."""

    @property
    def scheduling_mode(self) -> SchedulingMode:
        """Which of `cron` and `interval_s` applies."""
        ...

    @property
    def cron(self) -> str | None:
        """Five fields, or a name such as `@daily`."""
        ...

    @property
    def interval_s(self) -> int | None:
        """Whole seconds."""
        ...

    @property
    def timezone(self) -> str:
        """IANA name; the cron fields are local times of this zone."""
        ...

    @property
    def catch_up(self) -> CatchUp:
        """Which missed times run."""
        ...

    @property
    def max_catch_up(self) -> int:
        """The most missed times that run."""
        ...


@dataclass(frozen=True, slots=True)
class SkippedTimes:
    """Scheduled times that do not run, from `first` to `last`, both included."""

    first: datetime
    last: datetime
    count: int
    reason: str


@dataclass(frozen=True, slots=True)
class CatchUpDecision:
    """The scheduled times of a span, ascending; each is in exactly one of the three."""

    on_time: tuple[datetime, ...] = ()
    missed: tuple[datetime, ...] = ()
    """They run now, although late."""
    skipped: tuple[SkippedTimes, ...] = ()


def check_cron(text: str) -> str:
    """Returns the text if it is a valid calendar.

    Raises:
        ValueError: Not five fields, a value out of range, or a time that never occurs, such as `0 0 31 2 *`.
    """
    fields = ALIASES.get(text.strip().lower(), text)
    if fields.startswith("@"):
        raise ValueError(f"{text} is not known; use one of {', '.join(ALIASES)}, or {ADVICE}")
    if len(fields.split()) != 5:
        raise ValueError(ADVICE)
    try:
        next(CronSim(fields, datetime(2026, 1, 1)))  # noqa: DTZ001 - any wall-clock time
    except CronSimError as error:
        if str(error) == "Bad day-of-month" and _is_a_day(fields.split()[2]):
            raise ValueError(f"this time never comes: no month of it has a day {fields.split()[2]}") from None
        raise ValueError(f"{error}; {ADVICE}") from None
    except StopIteration:
        raise ValueError("this time never comes") from None
    return text


def scheduled_times(job: Calendar, after: datetime, until: datetime) -> Iterator[datetime]:
    """Yields the scheduled times with `after` < t ≤ `until`, ascending, each once; none for a manual job.

    Args:
        job: The job.
        after: Aware.
        until: Aware.
    """
    until = until.astimezone(UTC)
    for moment in all_scheduled_times(job, after):
        if moment > until:
            return
        yield moment


def next_scheduled_times(job: Calendar, after: datetime, count: int) -> list[datetime]:
    """Returns the first `count` scheduled times later than `after`."""
    return list(islice(all_scheduled_times(job, after), count))


def previous_scheduled_time(job: Calendar, at: datetime, *, before: bool = False) -> datetime | None:
    """Returns the newest scheduled time at or before `at` (strictly before it if `before`); None if there is none.

    Searches ever longer spans before `at` with `scheduled_times`, so that the two cannot disagree.
    """
    if job.scheduling_mode == "manual":
        return None
    at = at.astimezone(UTC)
    until = at - timedelta(microseconds=1) if before else at
    span = timedelta(hours=1)
    while span < LONGEST_WAIT * 24:
        found = deque(scheduled_times(job, until - min(span, LONGEST_WAIT), until), maxlen=1)
        if found:
            return found[0]
        span *= 24
    return None


def all_scheduled_times(job: Calendar, after: datetime) -> Iterator[datetime]:
    """Yields the scheduled times later than `after`, without end; each costs 15 µs."""
    after = after.astimezone(UTC)
    if job.scheduling_mode == "interval" and job.interval_s:
        return _interval_times(job.interval_s, after)
    if job.scheduling_mode == "cron" and job.cron:
        return _cron_times(ALIASES.get(job.cron.strip().lower(), job.cron), ZoneInfo(job.timezone), after)
    return iter(())


def _interval_times(interval_s: int, after: datetime) -> Iterator[datetime]:
    moment = datetime.fromtimestamp(int(after.timestamp()) // interval_s * interval_s, UTC)
    while True:
        if moment > after:
            yield moment
        moment += timedelta(seconds=interval_s)


def _cron_times(fields: str, zone: ZoneInfo, after: datetime) -> Iterator[datetime]:
    last = after
    for moment in _moments(fields, zone, after):
        if moment > last:  # two skipped local times run at the same moment
            last = moment
            yield moment


def _moments(fields: str, zone: ZoneInfo, after: datetime) -> Iterator[datetime]:
    """Yields UTC moments, ascending; a few before `after` and some twice."""
    minute, hour = fields.split()[:2]
    every = minute.startswith("*") or hour.startswith("*")
    second_pass: deque[datetime] = deque()
    for wall in CronSim(fields, _wall_start(zone, after)):
        first, second = _on_the_clock(wall, zone, every=every)
        if first is None:
            continue
        while second_pass and second_pass[0] < first:
            yield second_pass.popleft()
        if second is not None:
            second_pass.append(second)
        yield first
    yield from second_pass


def _wall_start(zone: ZoneInfo, after: datetime) -> datetime:
    """Returns a local time from which no time after `after` is missed: earlier if the clock changes near it."""
    near = {(after + shift).astimezone(zone).utcoffset() for shift in (-SHIFT, timedelta(), SHIFT)}
    start = after - SHIFT if len(near) > 1 else after
    return start.astimezone(zone).replace(tzinfo=None)


def _on_the_clock(wall: datetime, zone: ZoneInfo, *, every: bool) -> tuple[datetime | None, datetime | None]:
    """Returns the moments at which the clock shows `wall`: one, none if it is skipped, two if it occurs twice."""
    local = wall.replace(tzinfo=zone)
    first, second = local.utcoffset(), local.replace(fold=1).utcoffset()
    if first == second:
        return local.astimezone(UTC), None
    if first is not None and second is not None and first < second:  # skipped
        return (None if every else _end_of_gap(wall, zone)), None
    return local.astimezone(UTC), local.replace(fold=1).astimezone(UTC) if every else None


def _end_of_gap(wall: datetime, zone: ZoneInfo) -> datetime:
    wall = wall.replace(second=0)
    while wall.replace(tzinfo=zone).utcoffset() != wall.replace(tzinfo=zone, fold=1).utcoffset():
        wall += timedelta(minutes=1)
    return wall.replace(tzinfo=zone).astimezone(UTC)


def _is_a_day(field: str) -> bool:
    """Whether the field itself is valid, so that only its month is wrong."""
    try:
        CronSim(f"0 0 {field} * *", datetime(2026, 1, 1))  # noqa: DTZ001 - any wall-clock time
    except CronSimError:
        return False
    return True


def apply_catch_up(job: Calendar, found: Sequence[datetime], now: datetime, grace_s: float) -> CatchUpDecision:
    """Sorts scheduled times into those that run and those that are skipped.

    A time at most `grace_s` old is on time. An older one was missed, and the job's `catch_up` decides: `all` runs them,
    the newest `max_catch_up`; `latest` runs the newest, if no later one is on time; `none` runs none.

    Args:
        job: The job.
        found: Its scheduled times since the last decision, ascending.
        now: Aware.
        grace_s: Seconds.
    """
    limit = now.astimezone(UTC) - timedelta(seconds=grace_s)
    on_time = [moment for moment in found if moment >= limit]
    missed = found[: len(found) - len(on_time)]
    if not missed:
        return CatchUpDecision(tuple(on_time))
    kept, reason = _kept(job, missed, on_time)
    return CatchUpDecision(tuple(on_time), tuple(kept), skipped_times(missed[: len(missed) - len(kept)], reason))


def _kept(job: Calendar, missed: Sequence[datetime], on_time: Sequence[datetime]) -> tuple[Sequence[datetime], str]:
    if job.catch_up == "none":
        return (), 'missed; "catch_up" is none'
    if job.catch_up == "all":
        return missed[-job.max_catch_up :], f'missed; older than the newest "max_catch_up" = {job.max_catch_up}'
    if on_time:
        return (), 'missed; "catch_up" is latest, and a later one is on time'
    return missed[-1:], 'missed; "catch_up" is latest, and a later one runs'


def skipped_times(moments: Sequence[datetime], reason: str) -> tuple[SkippedTimes, ...]:
    """Returns skipped times one by one; if they are very many, the older ones as one span."""
    older, newer = moments[:-MAX_SINGLE_SKIPS], moments[-MAX_SINGLE_SKIPS:]
    span = [SkippedTimes(older[0], older[-1], len(older), reason)] if older else []
    return (*span, *(SkippedTimes(moment, moment, 1, reason) for moment in newer))
