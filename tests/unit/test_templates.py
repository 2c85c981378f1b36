"""`{date-1}` and the other templates: their values, and the errors of invalid ones."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.calendar.templates import EXAMPLES, resolve
from core.errors import ConfigError

AT = datetime(2026, 1, 17, 1, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-01-01", "2026-01-01"),
        ("", ""),
        ("{date}", "2026-01-17"),
        ("{date-1}", "2026-01-16"),
        ("{date+7}", "2026-01-24"),
        ("{date-17}", "2025-12-31"),
        ("{date-1:%d/%m/%Y}", "16/01/2026"),
        ("{date:%Y%m%d}", "20260117"),
        ("{month_start}", "2026-01-01"),
        ("{month_start-1}", "2025-12-01"),
        ("{month_start+1:%m/%Y}", "02/2026"),
        ("{month_start-13}", "2024-12-01"),
        ("{now}", "2026-01-17T02:00:00"),
        ("{now:%H:%M}", "02:00"),
        ("{ Date - 1 }", "2026-01-16"),
        ("from {date-1} to {date}", "from 2026-01-16 to 2026-01-17"),
        ('{{"day": "{date}"}}', '{"day": "2026-01-17"}'),
        ("{{date}}", "{date}"),
        ("{{{date}}}", "{2026-01-17}"),
        ("{date:%%}", "%"),
    ],
)
def test_template_is_computed_from_the_scheduled_time(text: str, expected: str) -> None:
    assert resolve(text, AT, "Europe/Rome") == expected


def test_day_is_that_of_the_job_not_of_utc() -> None:
    just_after_midnight_in_rome = datetime(2026, 1, 16, 23, 30, tzinfo=UTC)
    assert resolve("{date}", just_after_midnight_in_rome, "Europe/Rome") == "2026-01-17"
    assert resolve("{date}", just_after_midnight_in_rome, "America/New_York") == "2026-01-16"


@pytest.mark.parametrize("hour", range(24))
@pytest.mark.parametrize("day", [date(2026, 3, 29), date(2026, 3, 30), date(2026, 10, 25), date(2026, 10, 26)])
def test_yesterday_is_the_day_before_on_the_calendar_also_across_a_clock_change(day: date, hour: int) -> None:
    at = datetime(day.year, day.month, day.day, hour, 30, tzinfo=ZoneInfo("Europe/Rome"))
    at = at.astimezone(UTC).astimezone(ZoneInfo("Europe/Rome"))
    assert resolve("{date-1}", at, "Europe/Rome") == (at.date() - timedelta(days=1)).isoformat()


@given(st.dates(date(1990, 1, 1), date(2090, 1, 1)), st.integers(0, 86399), st.integers(-600, 600))
def test_month_start_counts_months(day: date, second: int, months: int) -> None:
    at = datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(seconds=second)
    start = date.fromisoformat(resolve(f"{{month_start{months:+d}}}", at, "Europe/Rome"))
    local = at.astimezone(ZoneInfo("Europe/Rome"))
    assert start.day == 1
    assert (start.year - local.year) * 12 + start.month - local.month == months


@given(st.text())
def test_text_with_doubled_braces_comes_back_as_it_was(text: str) -> None:
    assert resolve(text.replace("{", "{{").replace("}", "}}"), AT, "Europe/Rome") == text


def test_every_example_of_the_help_works() -> None:
    assert all(resolve(example, AT, "Europe/Rome") != example for example in EXAMPLES)


def test_more_names_may_be_given_for_file_names() -> None:
    names = {"query": "CDG", "connection": "A00"}
    text = resolve("{query}_{connection}_{date:%Y%m%d}.xlsx", AT, "Europe/Rome", names)
    assert text == "CDG_A00_20260117.xlsx"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{dat}", "the nearest is {date}"),
        ("{datee-1}", "the nearest is {date}"),
        ("{month_stat}", "the nearest is {month_start}"),
        ("{xyz}", "there are {date}, {month_start}, {now}"),
        ("{}", "there are {date}, {month_start}, {now}"),
        ('{"a": 1}', "there are {date}, {month_start}, {now}"),
        ("{date", "the brace stands alone"),
        ("date}", "the brace stands alone"),
        ("{now-1}", "{now} takes no offset"),
        ("{date-999999}", "that day is out of the calendar"),
        ("{month_start-99999}", "that day is out of the calendar"),
        ("{date:}", "the format is empty"),
        ("{date:%-d}", "%- means nothing on every system"),
        ("{date:%s}", "%s means nothing on every system"),
        ("{date:100%}", "% means nothing on every system"),
    ],
)
def test_wrong_template_is_named_with_the_reason(text: str, why: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve(f"x{text}y", AT, "Europe/Rome")
    assert why in str(caught.value)
    assert caught.value.remedy


def test_unknown_time_zone_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="time zone 'Europe/Rom' is not known: the nearest is Europe/Rome"):
        resolve("{date}", AT, "Europe/Rom")


def test_naive_scheduled_time_is_refused() -> None:
    with pytest.raises(ValueError, match="scheduled_at has no time zone"):
        resolve("{date}", datetime(2026, 1, 17), "Europe/Rome")  # noqa: DTZ001
