"""The JSON Schema of a row, and rows that a given schema refuses."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import msgspec

from core.errors import ConfigError, RowRejected
from core.message.field_types import Field, FieldKind

__all__ = ["RowValidator", "json_schema_object", "json_schema_type"]

_TYPES: dict[FieldKind, dict[str, Any]] = {
    "long": {"type": "integer"},
    "decimal": {"type": "number"},
    "digits": {"type": "number"},
    "double": {"type": "number"},
    "boolean": {"type": "boolean"},
    "date": {"type": "string"},
    "local": {"type": "string"},
    "instant": {"type": "string", "format": "date-time"},
    "text": {"type": "string"},
    "bytes": {"type": "string", "contentEncoding": "base64"},
}
DRAFT = "http://json-schema.org/draft-07/schema#"
"""What every reader of the registry knows; a given file may name another one."""


def json_schema_type(field: Field, *, digits_as_text: bool = False) -> dict[str, Any]:
    """Returns the schema of a field, which may be null.

    Args:
        field: The field.
        digits_as_text: The job sends decimals as text (`"decimals": "string"`), and whole numbers beyond 2^53 too.
    """
    if field.kind == "array":
        items = json_schema_type(Field(field.name, field.element or "any"))
        return {"type": ["array", "null"], "items": {"anyOf": [items, {"type": "array"}]}}
    if field.kind in ("json", "any"):
        return {}
    found = dict(_TYPES[field.kind])
    types = [found.pop("type")]
    if digits_as_text and field.kind in ("decimal", "digits", "long"):
        types = [*types, "string"] if field.kind == "long" or field.kind == "decimal" else ["string"]
    return {"type": [*types, "null"], **found}


def json_schema_object(name: str, fields: Sequence[Field], *, digits_as_text: bool = False) -> dict[str, Any]:
    """Returns the schema of a row.

    No field is required and no other is allowed: so a column may be added and a registry with BACKWARD compatibility accepts it.
    """
    properties = {field.name: json_schema_type(field, digits_as_text=digits_as_text) for field in fields}
    return {"$schema": DRAFT, "title": name, "type": "object", "properties": properties, "additionalProperties": False}


class RowValidator:
    """Rejects rows that a given JSON Schema does not allow.

    Args:
        text: The schema.

    Raises:
        ConfigError: It is no JSON Schema.
    """

    def __init__(self, text: str) -> None:
        import jsonschema_rs  # 15 ms, only where a job gives a schema of its own

        try:
            self._validator = jsonschema_rs.validator_for(json.loads(text))
        except (ValueError, jsonschema_rs.ValidationError) as error:
            raise ConfigError("the schema is no JSON Schema", why=str(error).split("\n")[0]) from None

    def check(self, rows: Sequence[bytes], bad: dict[int, RowRejected]) -> None:
        """Adds the rows that the schema refuses to `bad`; the reason names the place, never the value."""
        for index, row in enumerate(rows):
            instance = msgspec.json.decode(row)
            if not self._validator.is_valid(instance):
                error = next(self._validator.iter_errors(instance))
                path = [str(part) for part in error.instance_path]
                rule = "/".join(str(part) for part in error.schema_path[-2:])
                bad.setdefault(index, RowRejected(f"the schema refuses it ({rule})", column=".".join(path)))
