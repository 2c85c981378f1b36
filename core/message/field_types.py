"""What a column becomes in a schema, before a format gives it a name: the same for Avro, Protobuf, JSON Schema and Connect."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from core.errors import ConfigError
from core.model.job import DecimalForm, TypeOverride
from core.model.source import Column

__all__ = ["Field", "FieldKind", "field_names", "field_of", "identifier"]

FieldKind = Literal[
    "long",
    "decimal",
    "digits",
    "double",
    "boolean",
    "date",
    "local",
    "instant",
    "text",
    "bytes",
    "json",
    "array",
    "any",
]
"""`decimal` has a known scale; `digits` is a number without one, as text. `local` is a time without a zone, `instant` one with.
`any` is a column whose type the database does not say: its text."""

_SCALE = re.compile(r"\(\s*(\d+)\s*(?:,\s*(-?\d+)\s*)?\)")
LONG_DIGITS = 18
"""A whole number of so many digits fits into 64 bits."""
_MOST_DIGITS = 76
_MONEY = {"money": (19, 4), "smallmoney": (10, 4)}
_OVERRIDES: dict[TypeOverride, FieldKind] = {
    "date": "date",
    "datetime": "local",
    "string": "text",
    "integer": "long",
    "decimal": "digits",
    "base64": "bytes",
    "json": "json",
}
_KINDS: dict[str, FieldKind] = {
    "integer": "long",
    "float": "double",
    "date": "date",
    "oracle_date": "local",
    "datetime": "local",
    "datetime_tz": "instant",
    "text": "text",
    "char": "text",
    "time": "text",
    "interval": "text",
    "bytes": "bytes",
    "json": "json",
    "boolean": "boolean",
    "unknown": "any",
}


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a message. Every field may be null: a database does not say which columns of a result never are."""

    name: str
    """The column's name in lower case, as in JSON."""
    kind: FieldKind
    precision: int = 0
    """Of a decimal: the digits in all."""
    scale: int = 0
    """Of a decimal: the digits after the point."""
    element: FieldKind | None = None
    """Of an array."""


def field_of(column: Column, override: TypeOverride | None, decimals: DecimalForm) -> Field:
    """Returns the field of a column.

    Args:
        column: The column.
        override: What the job says under `types`; None: nothing.
        decimals: The job's setting.
    """
    name = column.name.lower()
    if override is not None:
        if override == "decimal" and (known := _precision(column)):
            return Field(name, "decimal", *known)
        return Field(name, _OVERRIDES[override])
    if column.kind == "array":
        element = field_of(Column(column.name, column.element or "unknown", ""), None, "number").kind
        return Field(name, "array", element="digits" if element == "decimal" else element)
    if column.kind == "decimal":
        if decimals == "float":
            return Field(name, "double")
        known = None if decimals == "string" else _precision(column)
        return Field(name, "decimal", *known) if known else Field(name, "digits")
    if column.kind == "integer" and (known := _precision(column)) and known[0] > LONG_DIGITS:
        return Field(name, "decimal", known[0], 0)
    return Field(name, _KINDS.get(column.kind, "text"))


def _precision(column: Column) -> tuple[int, int] | None:
    """Returns precision and scale of a number as the database describes them; None: it does not, or they make no decimal."""
    described = column.database_type.lower()
    if described in _MONEY:
        return _MONEY[described]
    found = _SCALE.search(described)
    if found is None or described.startswith("float"):
        return None
    precision, scale = int(found[1]), int(found[2] or 0)
    return (precision, scale) if 0 < precision <= _MOST_DIGITS and 0 <= scale <= precision else None


def identifier(text: str) -> str:
    """Returns a text as a name that every schema language allows: letters, digits and `_`, and no digit first."""
    name = re.sub(r"[^A-Za-z0-9_]", "_", text)
    return f"_{name}" if not name or name[0].isdigit() else name


def field_names(fields: Sequence[Field]) -> list[str]:
    """Returns the names of fields as Avro and Protobuf allow them.

    Raises:
        ConfigError: Two columns become the same name.
    """
    names: dict[str, str] = {}
    for field in fields:
        name = identifier(field.name)
        if name in names:
            raise ConfigError(
                f"columns {names[name]} and {field.name} become the same field {name} of the schema",
                why="a schema allows letters, digits and _ only",
                remedy=f"give one of them another name in the query: … AS {name}_2",
            )
        names[name] = field.name
    return list(names)
