"""A filter on the value of a message: `BODY.BARCODE = 'X' AND BODY.QUANTITY > 3`.

It is the language of `null_value_when`, with a path in the place of a column. JMESPath and JSONPath would be one library
more for the same paths, and would compare numbers as floats: an amount with 20 digits would be found wrongly.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import msgspec

from core.errors import ConfigError
from core.message.predicate import Node, Predicate, PredicateParser

__all__ = ["ValueFilter", "parse_value_filter"]

MOST_CHARACTERS = 1_000
_STEP = r"(?:[^\W\d][\w$#@-]*|\"[^\"]+\")"
_TOKEN = re.compile(
    rf"\s*(?:(?P<text>'(?:[^']|'')*')|(?P<number>-?\d+(?:\.\d+)?)|(?P<name>{_STEP}(?:\.{_STEP}|\[(?:\d{{1,9}}|\*)\])*)"
    r"|(?P<sign><>|!=|<=|>=|[=<>(),]))"
)
_ONE_STEP = re.compile(r"\[(?:(?P<index>\d+)|(?P<any>\*))\]|\"(?P<quoted>[^\"]+)\"|(?P<name>[^.\"\[\]]+)")
_NOTHING = object()
"""What a path leads to where there is no such place."""


class _AnyElement:
    """The step `[*]` of a path."""


_ANY = _AnyElement()
_Steps = tuple[str | int | _AnyElement, ...]


class ValueFilter:
    """A condition on JSON values. It remembers which of its paths no value had: such a path is often misspelled.

    Args:
        predicate: The condition; its columns are the paths.
        paths: Path → names of members and indexes of elements.
    """

    def __init__(self, predicate: Predicate, paths: dict[str, _Steps]) -> None:
        self._predicate = predicate
        self._paths = paths
        self._missing = dict.fromkeys(paths)
        self._decode: Callable[[bytes | str], Any] = msgspec.json.Decoder(float_hook=Decimal).decode

    @property
    def missing(self) -> tuple[str, ...]:
        """The paths that none of the values had so far."""
        return tuple(self._missing)

    def of(self, value: bytes | str) -> bool:
        """Returns whether a value is JSON for which the condition is true."""
        try:
            tree = self._decode(value)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return False
        columns = {}
        for path, steps in self._paths.items():
            found = _at(tree, steps)
            if self._missing and any(value is not _NOTHING for value in found):
                self._missing.pop(path, None)
            columns[path] = [None if value is _NOTHING else value for value in found]
        return self._predicate.of(columns, 1)[0]


def parse_value_filter(text: str) -> ValueFilter:
    """Returns the filter of a text.

    A path has the names of members, exactly as they are written in the value, with dots between them, and `[0]` for an
    element of an array: `BODY.LINES[0].SKU`. With `[*]` the comparison is true if it is for any element, also in arrays within
    arrays: `BODY.LINES[*].SKU = 'X'`; NOT before it finds values of which no element is like that. A name with other signs is in
    quotation marks: `BODY."net weight"`. Operators are `= != < <= > >= CONTAINS IN IS NULL`; texts are in single quotes. A place
    that a value does not have is null.

    Raises:
        ConfigError: The text is no such filter, or is too long; says where.
    """
    if len(text) > MOST_CHARACTERS:
        raise ConfigError(
            f"a filter on the value has at most {MOST_CHARACTERS:,} characters", why=f"it has {len(text):,}"
        )
    parser = _FilterParser(text)
    return ValueFilter(parser.predicate(), parser.paths)


class _FilterParser(PredicateParser):
    tokens = _TOKEN
    words = PredicateParser.words | {"contains"}
    what = "the filter on the value is not valid"
    remedy = "write a path and a comparison, with texts in single quotes: BODY.BARCODE = 'X' AND BODY.QUANTITY > 3"
    key = "where"
    operand = "a path"
    symbols = "a path, a literal or an operator"
    operators = "=, !=, <, >, CONTAINS, IS NULL or IN"

    def __init__(self, text: str) -> None:
        self.paths: dict[str, _Steps] = {}
        super().__init__(text)

    def name(self) -> str:
        """Parses a path."""
        path = self.advance()
        self.paths[path] = tuple(
            _ANY if step["any"] else int(step["index"]) if step["index"] else step["quoted"] or step["name"]
            for step in _ONE_STEP.finditer(path)
        )
        return path

    def comparison(self) -> Node:
        """Parses a comparison. Where its path has `[*]`, it is true if it is for any of the places, else false."""
        node = super().comparison()
        path = self.columns[-1]
        if _ANY not in self.paths[path]:
            return node
        return lambda columns, count: [any(truth is True for truth in node(columns, len(columns[path])))]


def _at(tree: Any, steps: _Steps) -> list[Any]:
    """Returns what is at a place of a tree: one value, or those of all elements where a step is `[*]`."""
    found = [tree]
    for step in steps:
        if isinstance(step, _AnyElement):
            found = [element for value in found if isinstance(value, list) for element in value]
        elif isinstance(step, str):
            found = [value.get(step, _NOTHING) if isinstance(value, dict) else _NOTHING for value in found]
        else:
            found = [value[step] if isinstance(value, list) and step < len(value) else _NOTHING for value in found]
    return found
