"""Conditions as SQL has them: comparisons of values with literals, joined by AND, OR and NOT.

`null_value_when` names columns and is evaluated by columns; the filter of messages (`core.message.value_filter`) names
places in a JSON value. A comparison with NULL is neither true nor false, trailing blanks of a text do not count (CHAR), and
numbers compare by value. Dates and times compare as their ISO text.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import msgspec

from core.errors import ConfigError

__all__ = ["Node", "Predicate", "PredicateParser", "parse_predicate"]

MOST_LEVELS = 50
"""Of parentheses and NOT."""

_TOKEN = re.compile(
    r"\s*(?:(?P<text>'(?:[^']|'')*')|(?P<number>-?\d+(?:\.\d+)?)|(?P<name>[^\W\d][\w$#]*)|\"(?P<quoted>[^\"]+)\""
    r"|(?P<sign><>|!=|<=|>=|[=<>(),]))"
)
_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "<>": operator.ne,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_WORDS = {"and", "or", "not", "in", "is", "null", "true", "false"}
Literal = str | Decimal | bool
Truth = bool | None
Node = Callable[[Mapping[str, Sequence[Any]], int], list[Truth]]
"""A part of a condition: columns and number of rows → its truth for each row."""


@dataclass(frozen=True, slots=True)
class Predicate:
    """A condition on the columns of a row."""

    text: str
    columns: tuple[str, ...]
    """Their names in lower case, in the order of the text."""
    _node: Node

    def of(self, columns: Mapping[str, Sequence[Any]], count: int) -> list[bool]:
        """Returns for each row whether the condition is true.

        Args:
            columns: Name in lower case → encoded values, as they become JSON.
            count: The number of rows.
        """
        return [truth is True for truth in self._node(columns, count)]


def parse_predicate(text: str) -> Predicate:
    """Returns the condition of a text.

    Raises:
        ConfigError: The text is no such condition; says where.
    """
    return PredicateParser(text).predicate()


class PredicateParser:
    """A recursive-descent parser: OR, AND, NOT, parentheses, comparisons."""

    tokens = _TOKEN
    words: frozenset[str] = frozenset(_WORDS)
    what = "null_value_when is no condition"
    remedy = "write a comparison such as DELETED = 'Y', several joined by AND or OR"
    key = "null_value_when"
    operand = "a column"
    operators = "=, <>, <, >, IS NULL or IN"
    symbols = "a column, a literal or an operator"

    def __init__(self, text: str) -> None:
        self.text, self.at, self.level = text, 0, 0
        self.columns: list[str] = []
        self.kind, self.symbol = "", ""
        self.advance()

    def predicate(self) -> Predicate:
        """Parses the whole text."""
        node = self.disjunction()
        if self.kind:
            raise self.error("nothing more")
        return Predicate(self.text, tuple(dict.fromkeys(self.columns)), node)

    def error(self, expected: str) -> ConfigError:
        """Returns the error that names what is expected at this place."""
        found = f"{self.symbol!r} at character {self.start + 1}" if self.kind else "the end"
        return ConfigError(self.what, why=f"{expected} is expected, not {found}", remedy=self.remedy, key=self.key)

    def advance(self) -> str:
        """Moves to the next symbol and returns the text of the one before."""
        before, self.start = self.symbol, self.at
        if not self.text[self.at :].strip():
            self.kind, self.symbol = "", ""
            return before
        found = self.tokens.match(self.text, self.at)
        if found is None:
            self.start += len(self.text[self.at :]) - len(self.text[self.at :].lstrip())
            self.kind, self.symbol = "other", self.text[self.start]
            raise self.error(self.symbols)
        self.at, self.kind = found.end(), str(found.lastgroup)
        self.symbol, self.start = found[self.kind], found.start(self.kind)
        if self.kind == "name" and self.symbol.lower() in self.words:
            self.kind, self.symbol = "word", self.symbol.lower()
        return before

    def take(self, symbol: str) -> bool:
        """Skips this word or sign; returns False if another symbol is here."""
        if self.kind in ("word", "sign") and self.symbol == symbol:
            self.advance()
            return True
        return False

    def require(self, symbol: str) -> None:
        """Skips this word or sign, or raises."""
        if not self.take(symbol):
            raise self.error(symbol.upper())

    def disjunction(self) -> Node:
        """Parses conditions joined by OR."""
        node = self.conjunction()
        while self.take("or"):
            node = _either(node, self.conjunction())
        return node

    def conjunction(self) -> Node:
        """Parses conditions joined by AND."""
        node = self.negation()
        while self.take("and"):
            node = _both(node, self.negation())
        return node

    def negation(self) -> Node:
        """Parses one condition, with NOT or in parentheses."""
        if self.take("not"):
            return _not(self.deeper(self.negation))
        if self.take("("):
            node = self.deeper(self.disjunction)
            self.require(")")
            return node
        return self.comparison()

    def deeper(self, parse: Callable[[], Node]) -> Node:
        """Parses one level further down; Python's own stack would end at some hundred."""
        self.level += 1
        if self.level > MOST_LEVELS:
            raise ConfigError(
                self.what, why=f"it has more than {MOST_LEVELS} parentheses and NOTs in one another", key=self.key
            )
        node = parse()
        self.level -= 1
        return node

    def name(self) -> str:
        """Parses what is compared, and returns its key in the values that are evaluated."""
        return self.advance().lower()

    def comparison(self) -> Node:
        """Parses a column and what it is compared with."""
        if self.kind not in ("name", "quoted"):
            raise self.error(self.operand)
        column = self.name()
        self.columns.append(column)
        if self.take("is"):
            negated = self.take("not")
            self.require("null")
            return lambda columns, count: [(value is None) is not negated for value in columns[column]]
        negated = self.take("not")
        if self.take("in"):
            node = _member(column, self.literals())
            return _not(node) if negated else node
        if self.take("contains"):
            node = _containing(column, self.literal())
            return _not(node) if negated else node
        if negated or self.symbol not in _COMPARISONS:
            raise self.error("IN" if negated else self.operators)
        return _compared(column, _COMPARISONS[self.advance()], self.literal())

    def literals(self) -> list[Literal]:
        """Parses the list of IN."""
        self.require("(")
        found = [self.literal()]
        while self.take(","):
            found.append(self.literal())
        self.require(")")
        return found

    def literal(self) -> Literal:
        """Parses a text, a number, TRUE or FALSE."""
        kind, symbol = self.kind, self.symbol
        if kind == "text":
            self.advance()
            return symbol[1:-1].replace("''", "'").rstrip(" ")
        if kind == "number":
            self.advance()
            return Decimal(symbol)
        if kind == "word" and symbol in ("true", "false"):
            self.advance()
            return symbol == "true"
        raise self.error("a literal")


def _comparable(value: Any, literal: Literal) -> Any:
    """Returns an encoded value in the type of the literal; None if it has no such form."""
    if isinstance(value, dict | list):
        return None
    if isinstance(literal, str):
        return value.rstrip(" ") if isinstance(value, str) else _digits(value)
    if isinstance(literal, bool):
        return value if isinstance(value, bool) else None
    if isinstance(value, bool):
        return Decimal(value)
    try:
        number = Decimal(value if isinstance(value, str | int) else _digits(value))
    except ArithmeticError:
        return None
    return None if number.is_nan() else number  # a text such as NaN has no order


def _digits(value: Any) -> str:
    return bytes(value).decode() if isinstance(value, msgspec.Raw) else str(value)


def _compared(column: str, compare: Callable[[Any, Any], bool], literal: Literal) -> Node:
    def truths(columns: Mapping[str, Sequence[Any]], count: int) -> list[Truth]:
        return [_truth(value, compare, literal) for value in columns[column]]

    return truths


def _truth(value: Any, compare: Callable[[Any, Any], bool], literal: Literal) -> Truth:
    found = None if value is None else _comparable(value, literal)
    return None if found is None else compare(found, literal)


def _containing(column: str, literal: Literal) -> Node:
    """Returns the test whether a text has a part, or an array an element."""

    def truth(value: Any) -> Truth:
        if isinstance(value, list):
            return any(_truth(element, operator.eq, literal) for element in value)
        if value is None or isinstance(value, dict):
            return None
        text = value if isinstance(value, str) else _digits(value)
        return str(literal) in text

    return lambda columns, count: [truth(value) for value in columns[column]]


def _member(column: str, literals: Sequence[Literal]) -> Node:
    nodes = [_compared(column, operator.eq, literal) for literal in literals]
    node = nodes[0]
    for other in nodes[1:]:
        node = _either(node, other)
    return node


def _either(left: Node, right: Node) -> Node:
    def truths(columns: Mapping[str, Sequence[Any]], count: int) -> list[Truth]:
        return [
            True if a or b else None if a is None or b is None else False
            for a, b in zip(left(columns, count), right(columns, count), strict=True)
        ]

    return truths


def _both(left: Node, right: Node) -> Node:
    def truths(columns: Mapping[str, Sequence[Any]], count: int) -> list[Truth]:
        return [
            False if a is False or b is False else None if a is None or b is None else True
            for a, b in zip(left(columns, count), right(columns, count), strict=True)
        ]

    return truths


def _not(node: Node) -> Node:
    return lambda columns, count: [None if truth is None else not truth for truth in node(columns, count)]
