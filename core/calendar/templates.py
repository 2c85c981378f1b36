"""Resolves templates such as `{date-1}` in parameter values and file names, from the scheduled time.

The clock is never read: a run that is caught up or repeated a week later asks for the same day.
"""

from __future__ import annotations

import difflib
import re
import zoneinfo
from collections.abc import Callable, Mapping
from datetime import date, datetime, timedelta

from core.errors import ConfigError

__all__ = ["DIRECTIVES", "EXAMPLES", "resolve"]

EXAMPLES: tuple[str, ...] = (
    "{date}",
    "{date-1}",
    "{date+7}",
    "{date-1:%d/%m/%Y}",
    "{month_start}",
    "{month_start-1}",
    "{now}",
    "{now:%Y%m%d%H%M%S}",
)
"""One of each, for help texts and editors."""

_PIECE = re.compile(r"\{\{|\}\}|\{(?P<body>[^{}]*)\}|(?P<brace>[{}])")
_BODY = re.compile(r"\s*(?P<name>\w*)\s*(?P<offset>[+-]\s*\d{1,6})?\s*(?::(?P<format>.*))?", re.DOTALL)
# The directives that mean the same on Windows and Linux.
_DIRECTIVE = re.compile(r"%(.?)", re.DOTALL)
DIRECTIVES = frozenset("aAbBdHIjmMpSUwWyYfGVuzZ%")


def resolve(text: str, scheduled_at: datetime, timezone: str, names: Mapping[str, str] | None = None) -> str:
    """Replaces each template of a text.

    `{date}` is the scheduled day in the job's time zone, `{date-1}` the day before on the calendar (also
    across a clock change); `{month_start}` the first day of its month, `{month_start-1}` the first day
    **one month** earlier, not one day; `{now}` the scheduled local time, `2026-01-17T02:00:00`. A
    `strftime` format may follow: `{date-1:%d/%m/%Y}`. `{{` and `}}` are single braces.

    >>> resolve("{date-1}/{month_start-1}", datetime.fromisoformat("2026-01-17T01:00:00+00:00"), "Europe/Rome")
    '2026-01-16/2025-12-01'

    Args:
        text: A parameter's value, or a file name.
        scheduled_at: When the run was due; aware.
        timezone: IANA name, such as `Europe/Rome`.
        names: More templates with a fixed text each, such as `query` in file names.

    Raises:
        ConfigError: An unknown template (the nearest valid one is named), a bad format, a brace alone, a day
            out of the calendar, an unknown time zone.
        ValueError: `scheduled_at` has no time zone.
    """
    if scheduled_at.tzinfo is None:
        raise ValueError("scheduled_at has no time zone")
    local = scheduled_at.astimezone(_zone(timezone))
    return _PIECE.sub(lambda piece: _replacement(piece, local, names or {}), text)


def _zone(name: str) -> zoneinfo.ZoneInfo:
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        near = difflib.get_close_matches(name, zoneinfo.available_timezones(), 1)
        raise ConfigError(
            f"time zone {name[:60]!r} is not known",
            why=f"the nearest is {near[0]}" if near else "",
            remedy="use an IANA name such as Europe/Rome",
            key="timezone",
        ) from None


def _replacement(piece: re.Match[str], local: datetime, names: Mapping[str, str]) -> str:
    if piece["body"] is None:
        if piece["brace"]:
            raise _error(piece["brace"], "the brace stands alone", "write {{ or }} for a brace that is plain text")
        return piece[0][0]
    template, body = piece[0], _BODY.fullmatch(piece["body"])
    name = body["name"].lower() if body else ""
    if body and name in names and not body["offset"] and body["format"] is None:
        return names[name]
    if body is None or name not in _TEMPLATES:
        raise _unknown(template, name, names)
    if name == "now" and body["offset"]:
        raise _error(template, "{now} takes no offset", "use {date-1} for another day")
    offset = int(re.sub(r"\s", "", body["offset"] or "0"))
    try:
        moment = _TEMPLATES[name](local, offset)
    except (OverflowError, ValueError):
        raise _error(template, "that day is out of the calendar", "use a smaller offset") from None
    return _formatted(moment, body["format"], template)


def _formatted(moment: date, form: str | None, template: str) -> str:
    if form is None:
        return moment.strftime("%Y-%m-%dT%H:%M:%S") if isinstance(moment, datetime) else moment.isoformat()
    wrong = next((found[0] for found in _DIRECTIVE.finditer(form) if found[1] not in DIRECTIVES), None)
    if not form or wrong:
        why = f"{wrong} means nothing on every system" if wrong else "the format is empty"
        raise _error(template, why, "use for example %d/%m/%Y or %Y%m%d")
    return moment.strftime(form)


def _day(local: datetime, days: int) -> date:
    return local.date() + timedelta(days=days)


def _month_start(local: datetime, months: int) -> date:
    count = local.year * 12 + local.month - 1 + months
    return date(count // 12, count % 12 + 1, 1)


def _now(local: datetime, _: int) -> datetime:
    return local


_TEMPLATES: dict[str, Callable[[datetime, int], date]] = {"date": _day, "month_start": _month_start, "now": _now}


def _unknown(template: str, name: str, names: Mapping[str, str]) -> ConfigError:
    valid = [*_TEMPLATES, *names]
    near = difflib.get_close_matches(name, valid, 1, cutoff=0.5)
    why = f"the nearest is {{{near[0]}}}" if near else "there are " + ", ".join(f"{{{known}}}" for known in valid)
    return _error(template, why, "write {{ and }} for braces that are plain text")


def _error(template: str, why: str, remedy: str) -> ConfigError:
    shown = template if len(template) <= 60 else template[:59] + "…"
    return ConfigError(f"template {shown!a} cannot be used", why=why, remedy=remedy)
