"""A parsed SQL file: parameters, steps, and the values that are bound."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

__all__ = ["LiteralText", "Parameter", "ParameterValue", "Query", "Step", "Value"]
ParameterValue = str | tuple[str, ...]
"""The value that a job gives to a parameter: a text, which may be a list such as `N,S`, or a list."""

# A value bound to a statement.
Value = str | int | float | datetime | None | Any


@dataclass(frozen=True, slots=True)
class Parameter:
    """One `define` of an SQL file."""

    name: str
    """In capitals, as SQL*Plus compares them."""
    default: str
    """The value in the file. For a mandatory parameter it is only an example and is never used."""
    mandatory: bool
    description: str
    allowed: tuple[str, ...] = ()
    """The only values that are allowed in place of an identifier; empty: none is."""
    type: Literal["string", "integer", "decimal", "date", "datetime"] | None = None
    """Declared type; None: text inside quotes, else decided by the value."""
    line: int = 1
    is_list: bool = False
    """`[list]`: several values, each with a bind of its own in `IN (&NAME)`."""


class LiteralText(str):
    """A text that is compared as a literal in its place would be.

    Oracle ignores blanks at the end of a CHAR column only if the other side is a CHAR too: `code = 'N'` finds
    `'N    '`, and `code = :P` with a VARCHAR2 bind finds nothing.
    """

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Step:
    """One statement as it reaches the driver: the text in the driver's own bind style, and the values."""

    sql: str
    binds: Mapping[str, Value] | tuple[Value, ...] = ()
    """A mapping of names, or a tuple if the database's binds are positional (`BindRules.is_positional`)."""
    returns_rows: bool = True
    """False for a session setting (ALTER SESSION, SET …)."""
    line: int = 1
    """Where the statement begins in the file, from 1."""


@dataclass(frozen=True, slots=True)
class Query:
    """An SQL file with all its parameters given: the steps, in order. The last one that returns rows is the result."""

    name: str
    steps: tuple[Step, ...]
    values: Mapping[str, str]
    """Parameter → the resolved text that was bound; a list as `core.sql.values.join` writes it."""
    sha256: str
    """Hash of the file's bytes, in hex."""

    @property
    def sql_text(self) -> str:
        """Returns the statements as they reach the driver, to be read and compared."""
        return ";\n".join(step.sql for step in self.steps)
