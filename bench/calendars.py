"""Tests calendars of every shape over simulated years of runner ticks against an independent table of their times.

The table uses neither cronsim nor `core.calendar.cron`: its own parser of the five fields gives the days and the local
times, and on a day with a clock change it computes the local time of each minute of UTC.
"""

from __future__ import annotations

import calendar
import random
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from core.model.job import Job
from core.records.ledger import Ledger
from core.scheduler.planner import Planner

ZONES = ("Europe/Rome", "America/New_York", "Australia/Lord_Howe", "UTC", "Africa/Casablanca", "America/Santiago")
SHAPES = (
    "0 2 * * *",
    "30 2 * * *",
    "0 * * * *",
    "*/15 8-18 * * 1-5",
    "0 3 1 * *",
    "45 1,2,3 * * *",
    "0 0 L * *",
    "30 1 * * SUN",
    "10 0 * * MON#2",
    "0 6 * * 5L",
    "@daily",
    "@monthly",
    "*/30 2 * * *",
    "0 0 13 * FRI",
    "15 2-3 * 3,10,4,11 *",
    "0 */6 * * *",
    "59 23 31 12 *",
    "0 4 LW * *",
    "5 0 29 2 *",
    "30 0-4/2 * jan-jun tue,thu",
)
DONE = "UPDATE scheduled_run SET state = 'done' WHERE state IN ('planned', 'running') AND state = 'planned'"
NAMES = {name: str(n) for n, name in enumerate("SUN MON TUE WED THU FRI SAT".split())}
MONTHS = {name: str(n) for n, name in enumerate("JAN FEB MAR APR MAY JUN JUL AUG SEP OCT NOV DEC".split(), 1)}
ALIASES = {"@daily": "0 0 * * *", "@monthly": "0 0 1 * *"}


def calendars(count: int = 60) -> list[Job]:
    """Returns each shape in three of the six zones, with each of the three ways to treat missed times, and `interval` too."""
    jobs = []
    for n in range(count):
        shape, zone = SHAPES[n % len(SHAPES)], ZONES[(n + n // len(SHAPES)) % len(ZONES)]
        mode = {"scheduling_mode": "cron", "cron": shape}
        if n % 20 == 19 and n > 20:
            mode = {"scheduling_mode": "interval", "interval_s": 3600 * (n % 7 + 1) + 1800}
        slug = f"job-{n:02}"
        ways = {"catch_up": ("none", "latest", "all")[n % 3], "overlap": ("skip", "queue")[n % 2]}
        jobs.append(Job(slug, slug, "q.sql", "A00", timezone=zone, max_catch_up=1 + n % 40, **mode, **ways))
    return jobs


def table(job: Job, start: datetime, end: datetime) -> list[int]:
    """Returns the Unix times of the scheduled times with start < t ≤ end."""
    first, last = int(start.timestamp()), int(end.timestamp())
    if job.interval_s:
        return [t for t in range(first - first % job.interval_s, last + 1, job.interval_s) if first < t]
    minute, hour, day, month, weekday = ALIASES.get(job.cron, job.cron).upper().split()
    minutes, hours, months = numbers(minute, 0, 59), numbers(hour, 0, 23), numbers(translated(month, MONTHS), 1, 12)
    walls = [h * 60 + m for h in sorted(hours) for m in sorted(minutes)]
    every = minute[0] == "*" or hour[0] == "*"
    zone = ZoneInfo(job.timezone)
    found: set[int] = set()
    today = start.astimezone(zone).date() - timedelta(days=1)
    while today <= end.astimezone(zone).date() + timedelta(days=1):
        if today.month in months and day_matches(today, day, translated(weekday, NAMES)):
            found.update(on_the_day(today, walls, zone, every=every))
        today += timedelta(days=1)
    return sorted(t for t in found if first < t <= last)


def translated(text: str, names: dict[str, str]) -> str:
    for name, number in names.items():
        text = text.replace(name, number)
    return text


def numbers(text: str, low: int, high: int) -> set[int]:
    found: set[int] = set()
    for part in text.split(","):
        span, _, step = part.partition("/")
        first, _, last = ("*", "", "") if span == "*" else span.partition("-")
        if first == "*":
            first, last = str(low), str(high)
        found.update(range(int(first), int(last or (high if step else first)) + 1, int(step or 1)))
    return found


def day_matches(day: date, days: str, weekdays: str) -> bool:
    both = days[0] == "*" or weekdays[0] == "*"
    ways = (matches_day_of_month(day, days), matches_weekday(day, weekdays))
    return all(ways) if both else any(ways)


def matches_day_of_month(day: date, text: str) -> bool:
    length = calendar.monthrange(day.year, day.month)[1]
    if text == "L":
        return day.day == length
    if text == "LW":
        working = [d for d in range(1, length + 1) if date(day.year, day.month, d).weekday() < 5]
        return day.day == working[-1]
    return day.day in numbers(text, 1, 31)


def matches_weekday(day: date, text: str) -> bool:
    number = (day.weekday() + 1) % 7
    length = calendar.monthrange(day.year, day.month)[1]
    if text.endswith("L"):
        return number == int(text[0]) % 7 and day.day > length - 7
    if "#" in text:
        return number == int(text[0]) % 7 and (day.day - 1) // 7 + 1 == int(text[2])
    return number in {n % 7 for n in numbers(text, 0, 7)}


def on_the_day(day: date, walls: list[int], zone: ZoneInfo, *, every: bool) -> Iterator[int]:
    """Returns the Unix times at which these minutes of that day are the local time."""
    noon = datetime(day.year, day.month, day.day, 12, tzinfo=zone)
    around = [noon + timedelta(hours=h) for h in (-15, 0, 15)]
    if len({moment.utcoffset() for moment in around}) == 1:
        midnight = int(noon.timestamp()) - 12 * 3600
        yield from (midnight + wall * 60 for wall in walls)
        return
    shown: dict[int, list[int]] = {}
    for t in range(int(noon.timestamp()) - 16 * 3600, int(noon.timestamp()) + 16 * 3600, 60):
        local = datetime.fromtimestamp(t, zone)
        if local.date() == day:
            shown.setdefault(local.hour * 60 + local.minute, []).append(t)
    for wall in walls:
        times = shown.get(wall, [])
        if times:
            yield from times if every else times[:1]
        elif not every:
            later = [ts[0] for minute, ts in shown.items() if minute > wall]
            yield min(later) if later else next_day_begins(day, zone)


def next_day_begins(day: date, zone: ZoneInfo) -> int:
    t = int(datetime(day.year, day.month, day.day, 12, tzinfo=UTC).timestamp()) - 24 * 3600
    while datetime.fromtimestamp(t, zone).date() <= day:
        t += 60
    return t


@dataclass
class Story:
    """What happened to the runner and its clock, and the results."""

    scheduled_runs: int = 0
    ticks: int = 0
    restarts: int = 0
    steps: int = 0
    seconds: float = 0.0
    states: Counter[str] = field(default_factory=Counter)
    missing: list[str] = field(default_factory=list)
    extra: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    without_reason: int = 0


def sweep(jobs: list[Job], start: datetime, end: datetime, folder: Path, seed: int = 1) -> Story:
    """Simulates the years tick by tick and compares the scheduled runs in the ledger with the table."""
    story, began = Story(), time.perf_counter()
    chance = random.Random(seed)
    by_slug = {job.slug: job for job in jobs}
    file = folder / "ledger.sqlite"
    ledger = opened(file)
    planner = fresh(ledger, by_slug, start, None)
    true_now, off_by, trouble_at = start, timedelta(), start + timedelta(days=chance.uniform(1, 20))
    corrected_at = end
    while true_now < end:
        coming = planner.next_scheduled_at() or end
        true_now = max(min(coming - off_by, trouble_at, corrected_at, end), true_now)
        clock = true_now + off_by + timedelta(milliseconds=chance.randrange(0, 999))
        planner.tick(clock)
        story.ticks += 1
        if chance.random() < 0.97:  # the others still run at the next scheduled time
            ledger._db.execute(DONE)
        if true_now >= corrected_at:
            off_by, corrected_at = timedelta(), end
        elif true_now >= trouble_at:
            trouble_at = true_now + timedelta(days=chance.uniform(1, 20))
            if chance.random() < 0.5:
                true_now += timedelta(hours=chance.choice((0.01, 1, 9, 30, 300)) * chance.random())
                ledger.close()
                ledger = opened(file)
                planner = fresh(ledger, by_slug, true_now + off_by, clock)
                story.restarts += 1
            elif end - true_now > timedelta(days=5):
                off_by = timedelta(hours=chance.choice((-24, -1, -0.3, 0.3, 1, 24)))
                corrected_at = true_now + timedelta(hours=chance.uniform(0.5, 40))
                story.steps += 1
    planner.tick(end)
    compare(ledger, jobs, start, end, story)
    ledger.close()
    story.seconds = time.perf_counter() - began
    return story


def opened(file: Path) -> Ledger:
    ledger = Ledger(file)
    ledger._db.execute("PRAGMA synchronous = OFF")  # the calendar is tested here, not the disk
    return ledger


def fresh(ledger: Ledger, jobs: dict[str, Job], now: datetime, seen_at: datetime | None) -> Planner:
    planner = Planner(ledger, grace_s=60, longest_gap=timedelta(days=31))
    planner.open(jobs, now, seen_at)
    return planner


def compare(ledger: Ledger, jobs: list[Job], start: datetime, end: datetime, story: Story) -> None:
    rows: dict[str, list[tuple[int, int]]] = {job.slug: [] for job in jobs}
    found = ledger._db.execute(
        "SELECT job, scheduled_at, skipped_until, skipped_count, state, reason FROM scheduled_run"
    )
    for slug, at, until, count, state, reason in found:
        first = unix(at)
        rows[slug].append((first, unix(until) if until else first))
        story.states[state] += count
        story.without_reason += state == "skipped" and not reason
    for job in jobs:
        expected = table(job, start, end)
        story.scheduled_runs += len(expected)
        singles = Counter(first for first, last in rows[job.slug] if first == last)
        spans = [(first, last) for first, last in rows[job.slug] if first != last]
        recorded = set(singles) | {t for t in expected for first, last in spans if first <= t <= last}
        story.missing += [
            f"{job.slug} {job.cron} {job.timezone} {datetime.fromtimestamp(t, UTC)}" for t in set(expected) - recorded
        ]
        story.extra += [
            f"{job.slug} {job.cron} {job.timezone} {datetime.fromtimestamp(t, UTC)}" for t in recorded - set(expected)
        ]
        story.twice += [f"{job.slug} {t}" for t, count in singles.items() if count > 1]


def unix(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp())


def main(years: int, count: int) -> int:
    import tempfile

    start = datetime(2026, 1, 1, tzinfo=UTC)
    with tempfile.TemporaryDirectory() as folder:
        story = sweep(calendars(count), start, start.replace(year=start.year + years), Path(folder))
    print(
        f"{count} calendars, {len(ZONES)} zones, {years} years: {story.scheduled_runs:,} scheduled times in the table"
    )
    print(
        f"{story.ticks:,} ticks, {story.restarts} stops and restarts, {story.steps} clock steps, {dict(story.states)}"
    )
    for name in ("missing", "extra", "twice"):
        found = getattr(story, name)
        print(f"{name:<8} {len(found)}" + "".join(f"\n  {text}" for text in found[:5]))
    print(f"skipped without a reason {story.without_reason}\n{story.seconds:.0f} s")
    return 1 if story.missing or story.extra or story.twice or story.without_reason else 0
