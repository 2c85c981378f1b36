"""The calendar: what runs when, also where the clock changes; a scheduled time is never lost and never occurs twice."""

from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.calendar.cron import (
    MAX_SINGLE_SKIPS,
    apply_catch_up,
    check_cron,
    next_scheduled_times,
    previous_scheduled_time,
    scheduled_times,
)
from core.calendar.describe import describe_calendar
from core.model.job import Job

ROME, NEW_YORK, LORD_HOWE = "Europe/Rome", "America/New_York", "Australia/Lord_Howe"
NOON = datetime(2026, 1, 17, 12, tzinfo=UTC)


def a_job(cron: str = "0 2 * * *", timezone: str = ROME, **changes) -> Job:
    job = Job("export", "Export", "q.sql", "A00", scheduling_mode="cron", cron=cron, timezone=timezone)
    return replace(job, **changes)


def on_day(job: Job, day: str) -> list[str]:
    """The scheduled times of one local day in local time, with the offset."""
    zone = ZoneInfo(job.timezone)
    first = datetime.combine(date.fromisoformat(day), time(), zone)
    end = datetime.combine(date.fromisoformat(day) + timedelta(days=1), time(), zone)
    tick = timedelta(microseconds=1)
    return [moment.astimezone(zone).strftime("%H:%M%z") for moment in scheduled_times(job, first - tick, end - tick)]


@pytest.mark.parametrize(
    ("timezone", "day", "cron", "expected"),
    [
        (ROME, "2026-03-29", "0 2 * * *", ["03:00+0200"]),
        (ROME, "2026-03-29", "30 2 * * *", ["03:00+0200"]),
        (ROME, "2026-03-29", "0 3 * * *", ["03:00+0200"]),
        (ROME, "2026-03-29", "0,30 2 * * *", ["03:00+0200"]),
        (ROME, "2026-03-29", "30 1-3 * * *", ["01:30+0100", "03:00+0200", "03:30+0200"]),
        (ROME, "2026-03-29", "*/30 2 * * *", []),
        (ROME, "2026-10-25", "0 2 * * *", ["02:00+0200"]),
        (ROME, "2026-10-25", "30 2 * * *", ["02:30+0200"]),
        (ROME, "2026-10-25", "*/30 2 * * *", ["02:00+0200", "02:30+0200", "02:00+0100", "02:30+0100"]),
        (ROME, "2026-10-26", "30 2 * * *", ["02:30+0100"]),
        (NEW_YORK, "2026-03-08", "0 2 * * *", ["03:00-0400"]),
        (NEW_YORK, "2026-03-08", "30 2 * * *", ["03:00-0400"]),
        (NEW_YORK, "2026-11-01", "30 1 * * *", ["01:30-0400"]),
        (NEW_YORK, "2026-11-01", "0 2 * * *", ["02:00-0500"]),
        (LORD_HOWE, "2026-10-04", "0 2 * * *", ["02:30+1100"]),
        (LORD_HOWE, "2026-10-04", "45 2 * * *", ["02:45+1100"]),
        (LORD_HOWE, "2026-04-05", "45 1 * * *", ["01:45+1100"]),
        (LORD_HOWE, "2026-04-05", "*/30 2 * * *", ["02:00+1030", "02:30+1030"]),
        (LORD_HOWE, "2026-04-05", "*/30 1 * * *", ["01:00+1100", "01:30+1100", "01:30+1030"]),
        ("UTC", "2026-03-29", "0 2 * * *", ["02:00+0000"]),
        ("UTC", "2026-03-29", "30 2 * * *", ["02:30+0000"]),
        ("UTC", "2026-10-25", "30 2 * * *", ["02:30+0000"]),
    ],
)
def test_a_set_time_runs_once_and_a_starred_one_whenever_the_clock_shows_it(timezone, day, cron, expected):
    assert on_day(a_job(cron, timezone), day) == expected


@pytest.mark.parametrize(
    ("timezone", "day", "count"),
    [
        (ROME, "2026-03-29", 23),
        (ROME, "2026-10-25", 25),
        (NEW_YORK, "2026-03-08", 23),
        (NEW_YORK, "2026-11-01", 25),
        (LORD_HOWE, "2026-04-05", 24),  # the clock goes from 02:00 to 01:30: it shows each full hour once
        (LORD_HOWE, "2026-10-04", 23),  # from 02:00 to 02:30: it never shows 02:00
        ("UTC", "2026-03-29", 24),
        ("UTC", "2026-10-25", 24),
    ],
)
def test_hourly_runs_as_often_as_the_day_has_hours(timezone, day, count):
    assert len(on_day(a_job("0 * * * *", timezone), day)) == count


@pytest.mark.parametrize(
    ("cron", "days"),
    [
        ("0 3 1 * *", ["2026-01-01", "2026-02-01", "2026-03-01"]),
        ("0 3 L * *", ["2026-01-31", "2026-02-28", "2026-03-31"]),
        ("0 3 * * MON#2", ["2026-01-12", "2026-02-09", "2026-03-09"]),
        ("0 3 * * 5L", ["2026-01-30", "2026-02-27", "2026-03-27"]),
        ("0 3 LW * *", ["2026-01-30", "2026-02-27", "2026-03-31"]),
        ("0 3 15 feb,mar *", ["2026-02-15", "2026-03-15"]),
        ("0 3 * * sat,sun", None),
        ("@monthly", ["2026-01-01", "2026-02-01", "2026-03-01"]),
        ("@yearly", ["2026-01-01"]),
    ],
)
def test_names_ranges_lists_and_the_signs_for_last_and_nth(cron, days):
    first, end = datetime(2025, 12, 31, 12, tzinfo=UTC), datetime(2026, 3, 31, 12, tzinfo=UTC)
    found = [moment.astimezone(ZoneInfo(ROME)) for moment in scheduled_times(a_job(cron), first, end)]
    if days is None:
        assert {moment.strftime("%a") for moment in found} == {"Sat", "Sun"}
        assert len(found) == 26
    else:
        assert [moment.strftime("%Y-%m-%d") for moment in found] == days


def test_an_interval_counts_from_1970_and_no_clock_change_shifts_it():
    job = a_job(scheduling_mode="interval", interval_s=5400)
    day = datetime(2026, 3, 29, tzinfo=UTC)
    assert [moment.strftime("%H:%M") for moment in scheduled_times(job, day, day + timedelta(hours=5))] == [
        "01:30",
        "03:00",
        "04:30",
    ]


def test_a_manual_job_has_no_fires():
    job = a_job(scheduling_mode="manual")
    assert next_scheduled_times(job, NOON, 3) == []
    assert previous_scheduled_time(job, NOON) is None


@pytest.mark.parametrize(
    ("cron", "reason"),
    [
        ("0 0 31 2 *", "this time never comes"),
        ("0 0 31 4,6 *", "this time never comes"),
        ("61 * * * *", "Bad minute"),
        ("0 2 * *", "five fields"),
        ("* * * * * *", "five fields"),
        ("@sometimes", "@daily"),
        ("", "five fields"),
        ("0 0 0 * *", "Bad day-of-month"),
    ],
)
def test_a_calendar_that_never_comes_or_is_none_is_refused(cron, reason):
    with pytest.raises(ValueError, match=reason):
        check_cron(cron)


@pytest.mark.parametrize("cron", ["0 0 29 2 *", "@daily", "*/15 8-18 * * 1-5", "0 3 L * *", "0 0 13 * FRI"])
def test_a_calendar_that_comes_is_taken(cron):
    assert check_cron(cron) == cron


def test_the_newest_fire_within_the_repeated_hour_is_the_one_that_ran():
    job = a_job("30 2 * * *")
    second_pass = datetime(2026, 10, 25, 2, 15, tzinfo=ZoneInfo(ROME), fold=1)
    assert previous_scheduled_time(job, second_pass) == datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
    assert next_scheduled_times(job, second_pass, 1) == [datetime(2026, 10, 26, 1, 30, tzinfo=UTC)]


# ── properties ────────────────────────────────────────────────────────────────────────────────

CRONS = st.sampled_from(
    "0 2 * * *|30 2 * * *|0 * * * *|*/15 8-18 * * 1-5|0 3 1 * *|*/20 1-3 * * *|15,45 1,2,3 * * *|0 0 L * *|"
    "30 1 * * 7|0 */2 * * *|59 1 * 3,10 *|* 2 * * SUN".split("|")
)
ZONES = st.sampled_from([ROME, NEW_YORK, LORD_HOWE, "UTC", "Europe/London", "Africa/Casablanca"])
MOMENTS = st.integers(0, 3 * 365 * 86_400).map(lambda s: datetime(2025, 1, 1, tzinfo=UTC) + timedelta(seconds=s))
SPANS = st.timedeltas(timedelta(), timedelta(days=4))


@given(CRONS, ZONES, MOMENTS, SPANS, SPANS)
def test_cutting_a_span_in_two_neither_loses_nor_doubles_a_fire(cron, timezone, start, first, second):
    job = a_job(cron, timezone)
    middle, end = start + first, start + first + second
    whole = list(scheduled_times(job, start, end))
    assert [*scheduled_times(job, start, middle), *scheduled_times(job, middle, end)] == whole
    assert whole == sorted(set(whole))


@given(CRONS, ZONES, MOMENTS)
def test_the_previous_fire_is_the_last_of_those_before(cron, timezone, at):
    job = a_job(cron, timezone)
    known = list(scheduled_times(job, at - timedelta(days=400), at))
    assert previous_scheduled_time(job, at) == known[-1]
    assert previous_scheduled_time(job, known[-1], before=True) == known[-2]
    assert next_scheduled_times(job, known[-2], 1) == [known[-1]]


@given(
    CRONS,
    ZONES,
    MOMENTS,
    SPANS,
    st.sampled_from(["none", "latest", "all"]),
    st.integers(1, 5),
    st.integers(0, 7200),
)
def test_every_fire_is_on_time_or_missed_and_run_or_skipped_with_a_reason(
    cron, timezone, start, span, catch_up, most, grace_s
):
    job = a_job(cron, timezone, catch_up=catch_up, max_catch_up=most)
    found = apply_catch_up(job, list(scheduled_times(job, start, start + span)), start + span, grace_s)
    skipped = [moment for s in found.skipped for moment in scheduled_times(job, s.first - timedelta(seconds=1), s.last)]
    assert sum(s.count for s in found.skipped) == len(skipped)
    assert sorted([*found.on_time, *found.missed, *skipped]) == list(scheduled_times(job, start, start + span))
    assert all(s.reason for s in found.skipped)
    assert len(found.missed) <= {"none": 0, "latest": 1, "all": most}[catch_up]
    assert all((start + span - moment).total_seconds() <= grace_s for moment in found.on_time)


# ── missed fires ──────────────────────────────────────────────────────────────────────────────


def missed(catch_up: str, hours: float = 5.5, **changes):
    job = a_job("0 * * * *", "UTC", catch_up=catch_up, **changes)
    now = NOON + timedelta(hours=hours)
    found = apply_catch_up(job, list(scheduled_times(job, NOON, now)), now, grace_s=60)
    return [m.hour for m in found.on_time], [m.hour for m in found.missed], [s.first.hour for s in found.skipped]


def test_none_skips_latest_runs_the_newest_and_all_runs_them_in_order():
    assert missed("none") == ([], [], [13, 14, 15, 16, 17])
    assert missed("latest") == ([], [17], [13, 14, 15, 16])
    assert missed("all") == ([], [13, 14, 15, 16, 17], [])


def test_all_runs_no_more_than_max_catch_up():
    assert missed("all", max_catch_up=2) == ([], [16, 17], [13, 14, 15])


def test_a_fire_on_time_takes_the_place_of_the_latest_missed_one():
    assert missed("latest", hours=5) == ([17], [], [13, 14, 15, 16])
    assert missed("all", hours=5) == ([17], [13, 14, 15, 16], [])


def test_very_many_skipped_fires_are_told_as_a_span_and_its_count():
    job = a_job("* * * * *", "UTC", catch_up="none")
    now = NOON + timedelta(minutes=MAX_SINGLE_SKIPS + 500)
    found = apply_catch_up(job, list(scheduled_times(job, NOON, now)), now, grace_s=0.5)
    assert found.skipped[0].count == 499
    assert found.skipped[0].last - found.skipped[0].first == timedelta(minutes=498)
    assert {s.count for s in found.skipped[1:]} == {1}


# ── in words ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("cron", "english", "italian"),
    [
        ("0 2 * * *", "every day at 02:00", "ogni giorno alle 02:00"),
        ("@daily", "every day at 00:00", "ogni giorno alle 00:00"),
        ("0 * * * *", "every hour", "ogni ora"),
        ("20 * * * *", "every hour at minute 20", "ogni ora al minuto 20"),
        ("0 */2 * * *", "every 2 hours", "ogni 2 ore"),
        (
            "*/15 8-18 * * 1-5",
            "every 15 minutes from 08:00 to 18:45, Monday to Friday",
            "ogni 15 minuti dalle 08:00 alle 18:45, da lunedì a venerdì",
        ),
        ("0 3 1 * *", "on day 1 of the month at 03:00", "il giorno 1 del mese alle 03:00"),
        ("0 0 L * *", "on the last day of the month at 00:00", "l'ultimo giorno del mese alle 00:00"),
        (
            "30 2 * * MON#2",
            "on the second Monday of the month at 02:30",
            "il secondo lunedì del mese alle 02:30",
        ),
        (
            "0 6 * jan,feb sat,sun",
            "every Saturday and Sunday in January and February at 06:00",
            "ogni sabato e domenica in gennaio e febbraio alle 06:00",
        ),
    ],
)
def test_a_calendar_in_words(cron, english, italian):
    assert (describe_calendar(a_job(cron)), describe_calendar(a_job(cron), "it")) == (english, italian)


@pytest.mark.parametrize("cron", ["*/7 * * * *", "0 0 13 * 5", "5-35/3 * * * *"])
def test_a_shape_without_words_is_given_as_it_is(cron):
    assert describe_calendar(a_job(cron)) == f"cron {cron}"


def test_interval_and_manual_in_words():
    interval = a_job(scheduling_mode="interval", interval_s=900)
    assert describe_calendar(interval) == "every 15 minutes"
    assert describe_calendar(replace(interval, interval_s=90), "it") == "ogni 90 secondi"
    assert describe_calendar(a_job(scheduling_mode="manual"), "it") == "solo su richiesta"
