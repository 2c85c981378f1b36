"""A job's calendar in words, for people: `every day at 02:00`, `ogni giorno alle 02:00`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from core.calendar.cron import ALIASES, Calendar

__all__ = ["describe_calendar"]


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


def describe_calendar(job: Calendar, language: Language = "en") -> str:
    """Returns `every day at 02:00`, `ogni giorno alle 02:00`; a rarer calendar as its cron text, so never a wrong one."""
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
    """Returns the time in words, for set times with the leading ` at `; None for a rarer form."""
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
    """Returns the day in words, empty for every day; None for a rarer form."""
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
    """Returns the n of `*/n` if it divides `size`, so that "every n" is true; else None."""
    star, _, step = field.partition("/")
    return int(step) if star == "*" and step.isdecimal() and int(step) > 1 and size % int(step) == 0 else None


def _span(field: str) -> tuple[int, int] | None:
    first, _, last = field.partition("-")
    return (int(first), int(last)) if first.isdecimal() and last.isdecimal() else None


def _listed(parts: Sequence[str], words: dict[str, str]) -> str:
    return words["and"].join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else list(parts))
