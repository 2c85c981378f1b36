"""Any bytes as a person reads them: JSON, text, or hexadecimal digits where they are neither; never more than fits a screen.

`core.message.decoding.readable` is for messages of ours, whose text is compared with what was sent. This is for every topic.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

from core.errors import PsttError
from core.message.decoding import Lookup, readable
from core.model.schema import Schema

__all__ = ["ShownBytes", "ShownForm", "asked_once", "exact_tree", "shown"]

ShownForm = Literal["null", "json", "text", "hex"]
MOST_DECODED = 2_000_000
"""Bytes of a value that are decoded by its schema: 10 MB of Avro take seconds."""
MOST_HEX = 4_096
MOST_LEVELS = 100
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_LARGEST_EXACT = 2**53
"""JavaScript, and so the tree of a browser, has no larger whole numbers."""


@dataclass(frozen=True, slots=True)
class ShownBytes:
    """A key, a value or a header."""

    text: str
    """Empty for null."""
    form: ShownForm
    size_bytes: int = 0
    """Of the whole."""
    is_cut: bool = False
    """The text is only the beginning."""
    schema_id: int | None = None
    format: str = ""
    """`avro`, `protobuf` or `json_schema`; empty: it has no schema."""
    problem: str = ""
    """Why it is not decoded although it begins as a message with a schema does."""

    @property
    def described(self) -> str:
        """The format, for people and documents: that of the schema, else the form."""
        return self.format or self.form


def shown(raw: bytes | None, lookup: Lookup | None, *, size_bytes: int | None = None) -> ShownBytes:
    """Returns bytes as a person reads them.

    Args:
        raw: The bytes, or only their beginning.
        lookup: Finds schemas; None: there is no registry.
        size_bytes: Of the whole; None: `raw` is the whole.
    """
    if raw is None:
        return ShownBytes("", "null")
    size = len(raw) if size_bytes is None else size_bytes
    is_cut = len(raw) < size
    problem, schema_id = "", None
    if not is_cut and size <= MOST_DECODED:
        found = readable(raw, lookup)
        if found.format:
            return ShownBytes(found.text, "json", size, False, found.schema_id, found.format)
        problem, schema_id = found.problem, found.schema_id
    text = _text_of(raw, is_cut=is_cut)
    if text is None:
        digits = raw[:MOST_HEX].hex(" ")
        return ShownBytes(digits, "hex", size, is_cut or len(raw) > MOST_HEX, schema_id, problem=problem)
    form: ShownForm = "json" if not is_cut and _is_json(text) else "text"
    return ShownBytes(text, form, size, is_cut, schema_id, problem=problem)


def asked_once(lookup: Lookup | None) -> Lookup | None:
    """Returns a lookup that repeats its failures: a page of messages waits once for a registry that does not answer."""
    if lookup is None:
        return None
    failures: dict[int, PsttError] = {}
    unavailable: list[PsttError] = []

    def find(schema_id: int, ask: Callable[[int], Schema] = lookup) -> Schema:
        if unavailable:
            raise unavailable[0]
        if schema_id in failures:
            raise failures[schema_id]
        try:
            return ask(schema_id)
        except PsttError as error:
            failures[schema_id] = error
            if error.is_retriable:
                unavailable.append(error)
            raise

    return find


def exact_tree(text: str) -> tuple[Any, bool]:
    """Returns JSON as a tree whose numbers a browser shows with all digits.

    Returns:
        The tree, and whether every number is one: those that a browser would round are texts.

    Raises:
        ValueError: It is not JSON, or is nested too deeply.
    """
    rounded: list[str] = []

    def whole(digits: str) -> int | str:
        if len(digits) < 18 and abs(int(digits)) <= _LARGEST_EXACT:
            return int(digits)
        rounded.append(digits)
        return digits

    def fraction(digits: str) -> float | str:
        if Decimal(repr(float(digits))) == Decimal(digits):
            return float(digits)
        rounded.append(digits)
        return digits

    try:
        tree = json.loads(text, parse_int=whole, parse_float=fraction)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if _is_deep(tree):
        raise ValueError("nested too deeply")
    return tree, not rounded


def _is_deep(tree: Any) -> bool:
    """Returns whether a tree is nested so deeply that nobody can read it, nor a browser draw it."""
    level = [tree]
    for _ in range(MOST_LEVELS):
        level = [
            child
            for node in level
            if isinstance(node, dict | list)
            for child in (node.values() if isinstance(node, dict) else node)
        ]
        if not level:
            return False
    return True


def _is_json(text: str) -> bool:
    if text.lstrip()[:1] not in ("{", "["):  # a number or a word is text; a person sees no difference
        return False
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _text_of(raw: bytes, *, is_cut: bool) -> str | None:
    """Returns bytes as text; None: they are none. A letter that is cut at the end is left out."""
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(raw, final=not is_cut)
    except UnicodeDecodeError:
        return None
    return None if _CONTROL.search(text) else text
