"""Cell encoders: each turns one value, never None, into what msgspec writes as its JSON, or raises CannotEncode."""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec

__all__ = [
    "DATE",
    "DATETIME",
    "NUMBER",
    "TOO_DEEP",
    "CannotEncode",
    "CellEncoder",
    "as_boolean",
    "as_bytes",
    "as_text",
    "decimal_digits",
    "decimal_number",
    "encoding_reason",
    "exact_decimal",
    "finite_float",
    "integer",
    "iso_date",
    "iso_date_or_datetime",
    "iso_datetime",
    "iso_datetime_with_offset",
    "iso_interval",
    "iso_seconds",
    "iso_time",
    "json_value",
    "key_text",
    "oracle_date",
    "plain_text",
    "untyped",
]

TOO_DEEP = "the value is nested too deeply: some 800 levels can be read"
SURELY_FLAT = 500
"""JSON text with fewer brackets than this needs no check of its depth."""
SPARE_LEVELS = 60
"""Levels that a JSON text must leave free: consumers parse the message from deeper in their stack."""

NUMBER = r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?"
# Existing dates only, since SQLite stores any text. A 29 February that this pattern does not know is checked by Python.
DATE = (
    r"(?:[0-9]{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)"
    r"|02-(?:0[1-9]|1[0-9]|2[0-8]))|[0-9]{2}(?:0[48]|[2468][048]|[13579][26])-02-29)"
)
DATETIME = DATE + r"[ T](?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,6})?"
_is_number = re.compile(NUMBER).fullmatch
_is_interval = re.compile(
    r"-?P(?=.)(?:-?\d+Y)?(?:-?\d+M)?(?:-?\d+W)?(?:-?\d+D)?(?:T(?=.)(?:-?\d+H)?(?:-?\d+M)?(?:-?\d+(?:\.\d+)?S)?)?"
).fullmatch
_is_time = re.compile(
    r"(?:(?:[01][0-9]|2[0-3]):[0-5][0-9](?::[0-5][0-9](?:\.[0-9]{1,9})?)?|24:00(?::00(?:\.0+)?)?)"
    r"(?:Z|[+-][0-9]{2}(?::?[0-9]{2}){0,2})?"
).fullmatch
_datetime_text = re.compile(
    r"(?P<date>[0-9]{4}-[0-9]{2}-[0-9]{2})"
    r"(?:[ T](?P<time>[0-9]{2}:[0-9]{2}(?::[0-9]{2})?)(?:\.(?P<fraction>[0-9]{1,9}))?"
    r"\s?(?P<offset>Z|[+-][0-9]{2}(?::?[0-9]{2})?(?::?[0-9]{2})?)?)?"
).fullmatch

CellEncoder = Callable[[Any], Any]
"""Takes one value of a column, never None; returns what msgspec writes as its JSON. Raises CannotEncode."""


def key_text(value: Any) -> str:
    """Returns an encoded value as the text of a key: the JSON without quotes, and a whole number without `.0`."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, msgspec.Raw):
        text = bytes(value).decode()
        whole, dot, fraction = text.partition(".")
        return whole if dot and not fraction.strip("0") else text
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, int | float):
        return str(value)
    raise CannotEncode("a list or an object cannot be a key")


def plain_text(value: Any) -> str:
    """Returns an encoded value as text, for a column that the job sends as string."""
    if isinstance(value, list | dict):
        raise CannotEncode("a list or an object has no plain text form")
    return key_text(value)


def encoding_reason(error: Exception) -> str:
    """Returns why a value could not be written as JSON, without the value."""
    if isinstance(error, UnicodeEncodeError) and "\udc80" <= error.object[error.start] <= "\udcff":
        return "the text is not valid UTF-8"  # the source decodes with surrogateescape
    if isinstance(error, UnicodeError):
        return "the text holds half of a character (a lone surrogate) and has no UTF-8 form"
    if isinstance(error, RecursionError):
        return TOO_DEEP
    return f"the value has no JSON form ({type(error).__name__})"


class CannotEncode(Exception):
    """A value has no JSON form. The text says why and never holds the value."""


def integer(value: Any) -> Any:
    """Encodes a whole number."""
    if type(value) is int:
        return value
    if isinstance(value, bool):
        return int(value)
    number = exact_decimal(value)
    if number != number.to_integral_value():
        raise CannotEncode("not a whole number")
    return int(number)


def exact_decimal(value: Any) -> Decimal:
    """Returns the value as a finite Decimal with exactly its digits."""
    if isinstance(value, float):
        value = repr(value)
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
        raise CannotEncode(f"{type(value).__name__} is not a number")
    try:
        number = Decimal(value.strip() if isinstance(value, str) else value)
    except InvalidOperation:
        raise CannotEncode("the text is not a number") from None
    if number.is_nan():
        raise CannotEncode("NaN has no JSON form")
    if number.is_infinite():
        raise CannotEncode("Infinity has no JSON form")
    return number


def decimal_digits(value: Any) -> str:
    """Returns the exact digits of a number, without an exponent."""
    if isinstance(value, str) and _is_number(value):
        return value
    return format(exact_decimal(value), "f")


def decimal_number(value: Any) -> Any:
    """Encodes a number with exactly its digits."""
    return msgspec.Raw(decimal_digits(value).encode())


def finite_float(value: Any) -> Any:
    """Encodes a floating-point number."""
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise CannotEncode(f"{type(value).__name__} is not a number")
    if isinstance(value, Decimal) and value.is_snan():
        raise CannotEncode("NaN has no JSON form")
    number = float(value)
    if math.isnan(number):
        raise CannotEncode("NaN has no JSON form")
    if math.isinf(number):
        raise CannotEncode("Infinity has no JSON form")
    return number


def _datetime_parts(value: Any) -> re.Match[str]:
    if not isinstance(value, str):
        raise CannotEncode(f"{type(value).__name__} is not a date")
    parts = _datetime_text(value)
    if parts is None:
        raise CannotEncode("the text is not a date between the years 0001 and 9999")
    try:
        date.fromisoformat(parts["date"])
        if parts["time"]:
            time.fromisoformat(parts["time"])
    except ValueError:
        raise CannotEncode("no such date") from None
    return parts


def iso_date(value: Any) -> str:
    """Encodes a date; the time of day is dropped."""
    if isinstance(value, date):  # datetime is a subclass of date
        return value.isoformat()[:10]
    return _datetime_parts(value)["date"]


def iso_date_or_datetime(value: Any) -> str:
    """Returns the date alone at midnight, else with the time of day, which SQLite stores in DATE columns too."""
    if isinstance(value, date):
        return value.isoformat()[:10] if not isinstance(value, datetime) else _date_of_moment(iso_datetime(value))
    parts = _datetime_parts(value)
    return parts["date"] if parts["time"] is None else _date_of_moment(iso_datetime(value))


def _date_of_moment(text: str) -> str:
    return text.replace("T00:00:00.000000", "", 1).replace(".000000", "", 1) if len(text) == 26 else text


def oracle_date(value: Any) -> str:
    """Encodes an Oracle DATE: the date alone at midnight, else with the time of day."""
    text = iso_seconds(value)
    return text[:10] if text.endswith("T00:00:00") else text


def iso_seconds(value: Any) -> str:
    """Returns `YYYY-MM-DDTHH:MM:SS`: an Oracle DATE has no fraction of a second."""
    if isinstance(value, datetime):
        return value.isoformat(timespec="seconds")
    if isinstance(value, date):
        return f"{value.isoformat()}T00:00:00"
    return iso_datetime(value)[:19]


def iso_datetime(value: Any) -> str:
    """Encodes a date with time of day, with microseconds; an offset in the text is kept."""
    if isinstance(value, datetime):
        return value.isoformat(timespec="microseconds")
    if isinstance(value, date):
        return f"{value.isoformat()}T00:00:00.000000"
    parts = _datetime_parts(value)
    clock = parts["time"] or "00:00:00"
    clock = clock if len(clock) == 8 else f"{clock}:00"
    fraction = (parts["fraction"] or "").ljust(6, "0")[:6]
    return f"{parts['date']}T{clock}.{fraction}{_offset(parts['offset'])}"


def _offset(text: str | None) -> str:
    if not text:
        return ""
    if text == "Z":
        return "+00:00"
    digits = text[1:].replace(":", "").ljust(4, "0")
    pairs = [digits[i : i + 2] for i in range(0, len(digits), 2)]
    return text[0] + ":".join(pairs)


def iso_datetime_with_offset(value: Any) -> str:
    """Encodes a point in time, with microseconds and offset."""
    if isinstance(value, datetime):
        if value.utcoffset() is None:
            raise CannotEncode("the driver dropped the time zone")
        return value.isoformat(timespec="microseconds")
    text = iso_datetime(value)
    if len(text) == 26:
        raise CannotEncode("the time zone is missing")
    return text


def iso_time(value: Any) -> str:
    """Encodes a time of day."""
    if isinstance(value, time):
        return value.isoformat()
    if isinstance(value, timedelta):
        if not timedelta(0) <= value < timedelta(days=1):
            raise CannotEncode("the time of day is not below 24 hours")
        return (datetime(1, 1, 1) + value).time().isoformat()  # noqa: DTZ001 - only its time of day is used
    if not isinstance(value, str):
        raise CannotEncode(f"{type(value).__name__} is not a time of day")
    if not _is_time(value):
        raise CannotEncode("the text is not a time of day")
    return value


def iso_interval(value: Any) -> str:
    """Encodes an interval as ISO 8601 duration."""
    if isinstance(value, timedelta):
        return _iso_duration(value)
    if isinstance(value, tuple) and len(value) == 2:
        years, months = value
        return f"P{years}Y{months}M"
    if isinstance(value, str) and _is_interval(value):
        return value
    raise CannotEncode(f"{type(value).__name__} is not an interval")


def _iso_duration(value: timedelta) -> str:
    """Returns an ISO 8601 duration of days, hours, minutes and seconds; the sign precedes the P."""
    sign = "-" if value < timedelta(0) else ""
    value = abs(value)
    minutes, seconds = divmod(value.seconds, 60)
    hours, minutes = divmod(minutes, 60)
    fraction = f".{value.microseconds:06}".rstrip("0") if value.microseconds else ""
    parts = [f"{hours}H" if hours else "", f"{minutes}M" if minutes else ""]
    parts.append(f"{seconds}{fraction}S" if seconds or fraction else "")
    clock = "".join(parts)
    days = f"{value.days}D" if value.days else ""
    if not days and not clock:
        return "PT0S"
    return f"{sign}P{days}{'T' + clock if clock else ''}"


def as_text(value: Any) -> str:
    """Keeps text."""
    if isinstance(value, str):
        return value
    raise CannotEncode(f"{type(value).__name__} has no plain text form")


def as_bytes(value: Any) -> bytes:
    """Returns binary data, which becomes Base64."""
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    raise CannotEncode(f"{type(value).__name__} is not binary")


def as_boolean(value: Any) -> bool:
    """Encodes true and false; 0 and 1 count as such."""
    if isinstance(value, int) and value in (0, 1):
        return bool(value)
    raise CannotEncode(f"{type(value).__name__} is neither true nor false")


def json_value(value: Any) -> Any:
    """Returns JSON text unchanged after one check, as not every database guarantees it; encodes Python structures.

    Structures are walked because msgspec writes NaN as null.
    """
    try:
        if not isinstance(value, str | bytes):
            return _structure(value)
        text = value.encode() if isinstance(value, str) else value
        msgspec.json.decode(text, type=msgspec.Raw)
        if text.count(b"[") + text.count(b"{") > SURELY_FLAT:
            msgspec.json.decode(b"[" * SPARE_LEVELS + text + b"]" * SPARE_LEVELS, type=msgspec.Raw)
        return msgspec.Raw(text)
    except RecursionError:
        raise CannotEncode(TOO_DEEP) from None
    except UnicodeEncodeError as error:
        raise CannotEncode(encoding_reason(error)) from None
    except ValueError:
        raise CannotEncode(_json_reason(value)) from None


def _json_reason(value: str | bytes) -> str:
    """Returns why msgspec refused the text. Python's own parser accepts an escaped lone surrogate."""
    try:
        json.loads(value, parse_constant=_no_constant)
    except RecursionError:
        return TOO_DEEP
    except ValueError:
        return "the text is not JSON"
    return "the text escapes half of a character (a lone surrogate), which has no UTF-8 form"


def _no_constant(name: str) -> None:
    raise ValueError(name)


def _structure(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _structure(member) for name, member in value.items()}
    if isinstance(value, list | tuple):
        return [_structure(member) for member in value]
    if isinstance(value, float):
        return finite_float(value)
    if isinstance(value, Decimal):
        return decimal_number(value)
    if isinstance(value, datetime):
        return iso_datetime(value)
    if isinstance(value, date):
        return iso_date(value)
    if isinstance(value, timedelta):
        return _iso_duration(value)
    if value is None or isinstance(value, str | int | bytes):
        return value
    raise CannotEncode(f"{type(value).__name__} has no JSON form")


def untyped(value: Any) -> Any:
    """Encodes by the type of the value, where the column has none (SQLite)."""
    if isinstance(value, str | int | bytes):
        return value
    if isinstance(value, float):
        return finite_float(value)
    raise CannotEncode(f"{type(value).__name__} has no JSON form; set it under `types`, or convert it in the query")
