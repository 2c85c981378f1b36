"""What differs between two schemas of a row, in words."""

from __future__ import annotations

import json
from typing import Any

from core.errors import ConfigError
from core.message.protobuf_schema import parse_proto
from core.model.schema import Schema

__all__ = ["schema_difference"]


def schema_difference(before: str, after: Schema) -> list[str]:
    """Returns what differs from a registered schema, one clause for each field; empty: nothing of the fields.

    Args:
        before: The text of the registered schema.
        after: The new one.
    """
    try:
        old, new = _fields(Schema(after.type, before)), _fields(after)
    except (ConfigError, ValueError, KeyError, TypeError, AttributeError):
        return [f"what is registered is no schema of {after.type}, or not of a row"]
    parts = [f"{name} is new" for name in new if name not in old]
    parts += [f"{name} is gone" for name in old if name not in new]
    return parts + [f"{name} has another type" for name in new if name in old and old[name] != new[name]]


def _fields(schema: Schema) -> dict[str, Any]:
    """Returns name → type of the fields of a row, also where they are within `data`."""
    if schema.type == "PROTOBUF":
        message = parse_proto(schema.text)
        row = message.nested("Data") or message
        return {field.name: (field.label, field.type) for field in row.fields}
    document = json.loads(schema.text)
    if schema.type == "JSON":
        properties = document.get("properties", {})
        return dict(properties.get("data", {}).get("properties", properties))
    fields = {field["name"]: field["type"] for field in document["fields"]}
    data = fields.get("data")
    return (
        {field["name"]: field["type"] for field in data["fields"]}
        if isinstance(data, dict) and "fields" in data
        else fields
    )
