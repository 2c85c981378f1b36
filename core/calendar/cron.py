"""Cron, interval and missed fires: which scheduled times a job has, and which of them are due.

Pure: no clock, no file; aware datetimes in, aware UTC out. cronsim reads the five fields and finds the matching
wall-clock times; what a clock change makes of them is decided here, by the rule of Debian's cron:

* A calendar with a set time (`0 2 * * *`, `30 2 1 * *`) means the clock on the wall. A time that the change leaps
  over comes at the change, one that comes twice runs the first time: daily 02:30 runs exactly once on both days.
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
from typing import TYPE_CHECKING, Literal, Protocol
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

if TYPE_CHECKING:
    from core.model.job import CatchUp, SchedulingMode

__all__ = [
    "ALIASES",
    "Calendar",
    "Due",
    "Skipped",
    "all_scheduled_times",
    "check_cron",
    "decided",
    "due",
    "in_words",
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
"""More than any clock change; only a move over the date line is longer."""
SHOWN_ONE_BY_ONE = 1000
"""Skipped fires that are told apart; the older ones of one gap are told as a span."""


class Calendar(Protocol):
    """The part of a `core.model.all.Job` that says when."""

    @property
    def scheduling_mode(self) -> SchedulingMode:
        """Which of the two below counts."""
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
        """IANA name; the cron fields mean the clock on its walls."""
        ...

    @property
    def catch_up(self) -> CatchUp:
        """What becomes of missed fires."""
        ...

    @property
    def max_catch_up(self) -> int:
        """At most so many missed fires run."""
        ...


@dataclass(frozen=True, slots=True)
class Skipped:
    """Fires that do not run, from `first` to `last`, both among them."""

    first: datetime
    last: datetime
    count: int
    reason: str


@dataclass(frozen=True, slots=True)
class Due:
    """What became of the fires of a span: each is in exactly one of the three, in the order of time."""

    on_time: tuple[datetime, ...] = ()
    missed: tuple[datetime, ...] = ()
    """Missed, and run now."""
    skipped: tuple[Skipped, ...] = ()


def check_cron(text: str) -> str:
    """The text itself, where it is a calendar that comes round.

    Raises:
        ValueError: Not five fields, a value out of range, or a time that never comes, such as `0 0 31 2 *`.
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
    """The first `count` scheduled times later than `after`."""
    return list(islice(all_scheduled_times(job, after), count))


def previous_scheduled_time(job: Calendar, at: datetime, *, before: bool = False) -> datetime | None:
    """The newest scheduled time at or before `at` (strictly before it if `before`); None where there is none.

    It looks into ever longer spans before `at`, so that it can never disagree with `fires`.
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
    """Yields the scheduled times later than `after`, without end; who keeps it pays 15 µs a fire."""
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
        if moment > last:  # two times that were leapt over come at one moment
            last = moment
            yield moment


def _moments(fields: str, zone: ZoneInfo, after: datetime) -> Iterator[datetime]:
    """UTC moments, ascending; a few before `after` and some twice."""
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
    """A wall-clock time from which no fire after `after` is missed: earlier where the clock changes near it."""
    near = {(after + shift).astimezone(zone).utcoffset() for shift in (-SHIFT, timedelta(), SHIFT)}
    start = after - SHIFT if len(near) > 1 else after
    return start.astimezone(zone).replace(tzinfo=None)


def _on_the_clock(wall: datetime, zone: ZoneInfo, *, every: bool) -> tuple[datetime | None, datetime | None]:
    """The moments at which the clock shows `wall`: one; none where it is leapt over; two where it comes twice."""
    local = wall.replace(tzinfo=zone)
    first, second = local.utcoffset(), local.replace(fold=1).utcoffset()
    if first == second:
        return local.astimezone(UTC), None
    if first is not None and second is not None and first < second:  # leapt over
        return (None if every else _after_the_leap(wall, zone)), None
    return local.astimezone(UTC), local.replace(fold=1).astimezone(UTC) if every else None


def _after_the_leap(wall: datetime, zone: ZoneInfo) -> datetime:
    wall = wall.replace(second=0)
    while wall.replace(tzinfo=zone).utcoffset() != wall.replace(tzinfo=zone, fold=1).utcoffset():
        wall += timedelta(minutes=1)
    return wall.replace(tzinfo=zone).astimezone(UTC)


def _is_a_day(field: str) -> bool:
    """Whether the field itself is right, so that only its month is at fault."""
    try:
        CronSim(f"0 0 {field} * *", datetime(2026, 1, 1))  # noqa: DTZ001 - any wall-clock time
    except CronSimError:
        return False
    return True


def due(job: Calendar, considered_until: datetime, now: datetime, grace_s: float) -> Due:
    """Decides about every fire with `considered_until` < t ≤ `now`.

    A fire at most `grace_s` old is on time. An older one was missed, and the job's `catch_up` says what happens:
    `all` runs them, the newest `max_catch_up`; `latest` runs the newest, if no later fire is on time; `none` runs none.

    Args:
        job: The job.
        considered_until: Aware; up to here every fire was decided about before.
        now: Aware.
        grace_s: Seconds.
    """
    return decided(job, list(scheduled_times(job, considered_until, now)), now, grace_s)


def decided(job: Calendar, found: Sequence[datetime], now: datetime, grace_s: float) -> Due:
    """As `due`, where the fires of the span are known."""
    limit = now.astimezone(UTC) - timedelta(seconds=grace_s)
    on_time = [moment for moment in found if moment >= limit]
    missed = found[: len(found) - len(on_time)]
    if not missed:
        return Due(tuple(on_time))
    kept, reason = _kept(job, missed, on_time)
    return Due(tuple(on_time), tuple(kept), told(missed[: len(missed) - len(kept)], reason))


def _kept(job: Calendar, missed: Sequence[datetime], on_time: Sequence[datetime]) -> tuple[Sequence[datetime], str]:
    if job.catch_up == "none":
        return (), 'missed; "catch_up" is none'
    if job.catch_up == "all":
        return missed[-job.max_catch_up :], f'missed; older than the newest "max_catch_up" = {job.max_catch_up}'
    if on_time:
        return (), 'missed; "catch_up" is latest, and a later one is on time'
    return missed[-1:], 'missed; "catch_up" is latest, and a later one runs'


def told(moments: Sequence[datetime], reason: str) -> tuple[Skipped, ...]:
    """Skipped fires one by one; of very many the older ones as one span."""
    older, newer = moments[:-SHOWN_ONE_BY_ONE], moments[-SHOWN_ONE_BY_ONE:]
    span = [Skipped(older[0], older[-1], len(older), reason)] if older else []
    return (*span, *(Skipped(moment, moment, 1, reason) for moment in newer))


Language = Literal["en", "it"]
_WORDS: dict[Language, dict[str, str]] = {
    "en": {
        "manual": "only when asked",
        "and": " and ",
        "at": " at ",
        "every minute": "every minute",
        "every n minutes": "every {n} minutes",
        "every hour": "every hour",
        "at minute": "every hour at minute {n}",
        "every n hours": "every {n} hours",
        "past": " at minute {n}",
        "between": " from {a} to {b}",
        "every second": "every {n} seconds",
        "every day": "every day",
        "weekdays": "{a} to {b}",
        "on days": "every {days}",
        "on the nth": "on the {nth} {day} of the month",
        "on the last": "on the last {day} of the month",
        "on day": "on day {n} of the month",
        "last day": "on the last day of the month",
        "last working day": "on the last working day of the month",
        "in months": " in {months}",
        "1": "first",
        "2": "second",
        "3": "third",
        "4": "fourth",
        "5": "fifth",
        "days": "Sunday Monday Tuesday Wednesday Thursday Friday Saturday",
        "months": "January February March April May June July August September October November December",
    },
    "it": {
        "manual": "solo su richiesta",
        "and": " e ",
        "at": " alle ",
        "every minute": "ogni minuto",
        "every n minutes": "ogni {n} minuti",
        "every hour": "ogni ora",
        "at minute": "ogni ora al minuto {n}",
        "every n hours": "ogni {n} ore",
        "past": " al minuto {n}",
        "between": " dalle {a} alle {b}",
        "every second": "ogni {n} secondi",
        "every day": "ogni giorno",
        "weekdays": "da {a} a {b}",
        "on days": "ogni {days}",
        "on the nth": "il {nth} {day} del mese",
        "on the last": "l'ultimo {day} del mese",
        "on day": "il giorno {n} del mese",
        "last day": "l'ultimo giorno del mese",
        "last working day": "l'ultimo giorno feriale del mese",
        "in months": " in {months}",
        "1": "primo",
        "2": "secondo",
        "3": "terzo",
        "4": "quarto",
        "5": "quinto",
        "days": "domenica lunedì martedì mercoledì giovedì venerdì sabato",
        "months": "gennaio febbraio marzo aprile maggio giugno luglio agosto settembre ottobre novembre dicembre",
    },
}


def in_words(job: Calendar, language: Language = "en") -> str:
    """`every day at 02:00`, `ogni giorno alle 02:00`; a rarer calendar is given as its cron text, never wrongly."""
    words = _WORDS[language]
    if job.scheduling_mode == "manual":
        return words["manual"]
    if job.scheduling_mode == "interval":
        return _interval_words(job.interval_s or 0, words)
    text = (job.cron or "").strip()
    minute, hour, day, month, weekday = ALIASES.get(text.lower(), text).upper().split()
    time_words = _time_words(minute, hour, words)
    day_words = _day_words(day, weekday, language)
    month_words = _month_words(month, language)
    if time_words is None or day_words is None or month_words is None:
        return f"cron {text}"
    if time_words.startswith(words["at"]):
        return f"{day_words or words['every day']}{month_words}{time_words}"
    return f"{time_words}{', ' if day_words else ''}{day_words}{month_words}"


def _interval_words(interval_s: int, words: dict[str, str]) -> str:
    for unit_s, one, many in ((3600, "every hour", "every n hours"), (60, "every minute", "every n minutes")):
        if interval_s % unit_s == 0:
            count = interval_s // unit_s
            return words[one] if count == 1 else words[many].format(n=count)
    return words["every second"].format(n=interval_s)


def _time_words(minute: str, hour: str, words: dict[str, str]) -> str | None:
    """With the leading ` at ` for set times; None for a rarer shape."""
    minutes, hours = _numbers(minute), _numbers(hour)
    if minutes and hours and len(minutes) * len(hours) <= 6:
        return words["at"] + _listed([f"{h:02}:{m:02}" for h in sorted(hours) for m in sorted(minutes)], words)
    if minutes and len(minutes) == 1 and hour == "*":
        return words["every hour"] if minutes[0] == 0 else words["at minute"].format(n=minutes[0])
    hour_step = _step(hour, 24)
    if minutes and len(minutes) == 1 and hour_step:
        past = words["past"].format(n=minutes[0]) if minutes[0] else ""
        return words["every n hours"].format(n=hour_step) + past
    minute_step = 1 if minute == "*" else _step(minute, 60)
    if minute_step is None:
        return None
    often = words["every minute"] if minute_step == 1 else words["every n minutes"].format(n=minute_step)
    if hour == "*":
        return often
    span = _span(hour)
    if span is None:
        return None
    return often + words["between"].format(a=f"{span[0]:02}:00", b=f"{span[1]:02}:{60 - minute_step:02}")


def _day_words(day: str, weekday: str, language: Language) -> str | None:
    """Empty for every day; None for a rarer shape."""
    words = _WORDS[language]
    if weekday == "*":
        numbers = _numbers(day)
        if numbers and len(numbers) == 1:
            return words["on day"].format(n=numbers[0])
        return {"*": "", "L": words["last day"], "LW": words["last working day"]}.get(day)
    if day != "*":
        return None
    names = words["days"].split()
    for number, short in enumerate(("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")):
        weekday = weekday.replace(short, str(number))
    if weekday[1:] == "L" and weekday[0].isdigit():
        return words["on the last"].format(day=names[int(weekday[0]) % 7])
    if weekday[1:2] == "#" and weekday[2:] in words:
        return words["on the nth"].format(nth=words[weekday[2:]], day=names[int(weekday[0]) % 7])
    span = _span(weekday)
    if span:
        return words["weekdays"].format(a=names[span[0] % 7], b=names[span[1] % 7])
    numbers = _numbers(weekday)
    return words["on days"].format(days=_listed([names[n % 7] for n in numbers], words)) if numbers else None


def _month_words(month: str, language: Language) -> str | None:
    words = _WORDS[language]
    names = words["months"].split()
    short = "JAN FEB MAR APR MAY JUN JUL AUG SEP OCT NOV DEC".split()
    for number, name in enumerate(short, 1):
        month = month.replace(name, str(number))
    if month == "*":
        return ""
    numbers = _numbers(month)
    return words["in months"].format(months=_listed([names[n - 1] for n in numbers], words)) if numbers else None


def _numbers(field: str) -> list[int] | None:
    parts = field.split(",")
    return [int(part) for part in parts] if all(part.isdecimal() for part in parts) else None


def _step(field: str, size: int) -> int | None:
    """The n of `*/n` where it comes evenly round, so that "every n" is true."""
    star, _, step = field.partition("/")
    return int(step) if star == "*" and step.isdecimal() and int(step) > 1 and size % int(step) == 0 else None


def _span(field: str) -> tuple[int, int] | None:
    first, _, last = field.partition("-")
    return (int(first), int(last)) if first.isdecimal() and last.isdecimal() else None


def _listed(parts: Sequence[str], words: dict[str, str]) -> str:
    return words["and"].join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else list(parts))
