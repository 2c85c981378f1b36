"""Converts the text of a parameter to the value that a driver binds. The conversion is exact, or it fails."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from datetime import datetime
from decimal import Decimal

from core.model.dialect import Dialect, TypedValue
from core.model.query import Parameter, ParameterValue

__all__ = ["as_text", "join", "shown", "split", "typed_value", "value_problem"]

_MAX_DIGITS = 38
"""Oracle's NUMBER and SQL Server's decimal hold no more."""
_INTEGER = re.compile(r"[+-]?[0-9]+")
_DECIMAL = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_DATETIME = re.compile(r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?", re.ASCII)
_QUOTED = {'"': re.compile(r'"((?:[^"]|"")*)"\s*(?=,|\Z)'), "'": re.compile(r"'((?:[^']|'')*)'\s*(?=,|\Z)")}
_PLAIN = re.compile(r"[^,]*")
_EXPECTED = {
    "integer": "its declared type is integer: whole digits, such as 42",
    "decimal": "its declared type is decimal: digits with a point, such as 1234.50",
    "date": "its declared type is date: YYYY-MM-DD",
    "datetime": "its declared type is datetime: YYYY-MM-DDTHH:MM:SS without an offset",
}


def value_problem(parameter: Parameter, value: str, dialect: Dialect) -> str:
    """Returns why a parameter may not have this value, or a list not one of its values; empty: it may."""
    if not parameter.is_list:
        return _problem(parameter, value, dialect)
    try:
        values = split(value)
    except ValueError as error:
        return str(error)
    if dialect.binds.empty_is_null and "" in values:
        # `NOT IN ('A', NULL)` is true for no row at all.
        return f"one of its values is empty, which {dialect.title} takes for NULL"
    found = ((one, _problem(parameter, one, dialect)) for one in values)
    return next((f"{shown(one)} in it: {why}" for one, why in found if why), "")


def _problem(parameter: Parameter, value: str, dialect: Dialect) -> str:
    if any("\ud800" <= char <= "\udfff" for char in value):
        return "it holds half a character (a lone surrogate), which cannot be sent to any database"
    if not dialect.binds.takes_nul and "\0" in value:
        return f"it holds a NUL character, which {dialect.title} has not"
    if parameter.allowed and value not in parameter.allowed:
        return f"allowed are {', '.join(parameter.allowed)}"
    if parameter.type and typed_value(parameter.type, value) is None:
        return _EXPECTED[parameter.type]
    return ""


def split(text: str) -> tuple[str, ...]:
    """Returns the values of a list: `N,S`, or `["N", "S"]` as in JSON.

    Blanks around a value are ignored. A value with a comma is written in quotes, `"Roma, Centro"` or `'Roma, Centro'`, and a
    quote inside it is doubled. The quotes of `'N','S'`, which SQL*Plus needed, are not part of the values.

    Raises:
        ValueError: It is no list: it is empty, or one of its values is. The text says why.
    """
    stripped = text.strip()
    if not stripped:
        raise ValueError("the list is empty")
    return tuple(_json_values(stripped) if stripped.startswith("[") else _values(stripped))


def join(values: Iterable[str]) -> str:
    """Returns a list as one text, from which `split` makes the same values."""
    return ",".join(value if _is_plain(value) else '"' + value.replace('"', '""') + '"' for value in values)


def as_text(value: ParameterValue) -> str:
    """Returns the value that a job gives to a parameter as one text."""
    return value if isinstance(value, str) else join(value)


def _is_plain(value: str) -> bool:
    return bool(value) and value == value.strip() and "," not in value and value[0] not in "\"'["


def _json_values(text: str) -> list[str]:
    try:
        # A number keeps its digits as they are written.
        values = json.loads(text, parse_int=str, parse_float=str)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ValueError("it begins with [ and is no JSON list of texts and numbers; put such a value in quotes")
    if not values:
        raise ValueError("the list is empty")
    return values


def _values(text: str) -> Iterator[str]:
    at = number = 0
    while True:
        number += 1
        while text[at : at + 1].isspace():
            at += 1
        quote = text[at : at + 1]
        found = _QUOTED.get(quote, _PLAIN).match(text, at)
        if found is None:
            raise ValueError(
                f"value {number} begins with {quote} and does not end with it; put it in quotes of the other kind"
            )
        value = found[1].replace(quote * 2, quote) if quote in _QUOTED else found[0].strip()
        if not value and quote not in _QUOTED:
            raise ValueError(f"value {number} of the list is empty")
        yield value
        if found.end() == len(text):
            return
        at = found.end() + 1


def typed_value(type_: str | None, text: str) -> TypedValue | None:
    """Returns a text as a value of a declared type (None: as a number); None if it is no such value."""
    match type_:
        case "string":
            return text
        case "date":
            moment = _moment(text) if _DATE.fullmatch(text) else None
            return moment.date() if moment else None
        case "datetime":
            return _moment(text) if _DATETIME.fullmatch(text) else None
    number = _number(text)
    if type_ == "integer":
        return number if isinstance(number, int) else None
    return Decimal(number) if type_ == "decimal" and number is not None else number


def _moment(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def _number(text: str) -> int | Decimal | None:
    """Returns a numeric literal as the exact number; None if it is none or has more digits than databases hold."""
    stripped = text.strip()
    if len(stripped) > 2 * _MAX_DIGITS or not _DECIMAL.fullmatch(stripped):
        return None
    number = Decimal(stripped)
    exponent = number.as_tuple().exponent
    digits = len(number.as_tuple().digits)
    if not isinstance(exponent, int) or digits + max(exponent, 0) > _MAX_DIGITS or exponent < -_MAX_DIGITS:
        return None
    # Written in full, because not every driver reads 1E+3.
    return int(stripped) if _INTEGER.fullmatch(stripped) else Decimal(f"{number:f}")


def shown(value: str) -> str:
    """Returns a value for an error text: on one line, not too long, printable."""
    return ascii(value) if len(value) <= 40 else f"{value[:39]!a}… ({len(value)} characters)"
