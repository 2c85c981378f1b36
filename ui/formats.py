"""Formats numbers, quantities and times in the language of the session; times in the zone that is given."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

from babel.dates import format_date, format_datetime, format_time
from babel.numbers import format_decimal

from ui.language import current, t

__all__ = [
    "ago",
    "day",
    "day_of_year",
    "day_short",
    "duration",
    "milliseconds",
    "moment",
    "month_short",
    "number",
    "quantity",
    "share",
    "size",
    "span",
    "span_text",
    "until",
]

NOTHING = "–"


def number(value: float | None, digits: int = 0) -> str:
    """`18,543`, `18.543`; at most so many decimal digits."""
    if value is None:
        return NOTHING
    pattern = "#,##0" + ("." + "0" * digits if digits else "")
    return format_decimal(value, format=pattern, locale=_locale())


def quantity(value: float) -> str:
    """`18,543`, `1.5`: with the decimal digits that it has, at most three."""
    return format_decimal(value, format="#,##0.###", locale=_locale())


def share(rate: float | None) -> str:
    """`99.98 %`; rounded down, since 99.996 % is not 100 %."""
    if rate is None:
        return NOTHING
    percent = int(rate * 10_000) / 100
    return f"{format_decimal(percent, format='#,##0.##', locale=_locale())} %"


def milliseconds(value: float | None) -> str:
    """`9.1 ms`, `350 ms`."""
    if value is None:
        return NOTHING
    return f"{number(value, 1 if value < 10 else 0)} ms"


def size(size_bytes: float) -> str:
    """`1.9 MB`, by thousands."""
    for unit in ("B", "kB", "MB", "GB"):
        if size_bytes < 1000:
            return f"{number(size_bytes, 0 if unit == 'B' else 1)} {unit}"
        size_bytes /= 1000
    return f"{number(size_bytes, 1)} TB"


def duration(seconds: float) -> str:
    """`0.9 s`, `4 min`, `6 h 12 min`, `3 d 4 h`."""
    if seconds < 60:
        return f"{number(seconds, 1 if seconds < 10 else 0)} s"
    minutes = int(seconds // 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    unit = t("d")
    return f"{days} {unit} {hours} h" if hours else f"{days} {unit}"


def span(length: timedelta) -> str:
    """A duration in whole seconds or more."""
    seconds = max(length.total_seconds(), 0)
    return f"{int(seconds)} s" if seconds < 60 else duration(seconds)


def span_text(seconds: float) -> str:
    """`0:12`, `4:05`, `1:02:03`: a duration that is counted by the second."""
    minutes, rest = divmod(int(max(seconds, 0.0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def ago(then: datetime, now: datetime) -> str:
    """`3 s ago`."""
    return t("{time} ago", time=span(now - then))


def until(then: datetime, now: datetime) -> str:
    """`in 6 h 12 min`."""
    return t("in {time}", time=span(then - now)) if then > now else t("now")


def moment(at: datetime | None, timezone: str, *, seconds: bool = False, year: bool = True) -> str:
    """`17 Jan 2026 02:00`, `17 gen 2026 02:00`; the zone is named once on the page."""
    if at is None:
        return NOTHING
    pattern = f"d MMM{' yyyy' if year else ''} HH:mm{':ss' if seconds else ''}"
    return format_datetime(at.astimezone(ZoneInfo(timezone)), pattern, locale=_locale())


def clock(at: datetime, timezone: str) -> str:
    """`06:12`."""
    return format_time(at.astimezone(ZoneInfo(timezone)), "HH:mm", locale=_locale())


def day(of: date) -> str:
    """`Fri 16 Jan`."""
    return format_date(of, "EEE d MMM", locale=_locale())


def day_of_year(of: date) -> str:
    """`16 Jan 2026`."""
    return format_date(of, "d MMM yyyy", locale=_locale())


def day_short(of: date) -> str:
    """`17/01`."""
    return format_date(of, "dd/MM", locale=_locale())


def month_short(of: date) -> str:
    """`Nov`, `nov`."""
    return format_date(of, "LLL", locale=_locale())


def weekday(of: date) -> str:
    """`Saturday`, `sabato`."""
    return format_date(of, "EEEE", locale=_locale())


def _locale() -> str:
    return "it_IT" if current() == "it" else "en_GB"
