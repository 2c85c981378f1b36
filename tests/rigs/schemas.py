"""A registry that is a dictionary: it gives ids and knows no compatibility."""

from __future__ import annotations

from core.errors import SchemaRefused
from core.model.schema import Schema


class ListedSchemas:
    """See `core.model.schema.Schemas`."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.subjects: dict[str, list[int]] = {}
        self.by_id: dict[int, Schema] = {}

    def id_of(self, subject: str, schema: Schema) -> int:
        known = next((number for number, other in self.by_id.items() if other == schema), len(self.by_id) + 1)
        self.by_id[known] = schema
        self.subjects.setdefault(subject, []).append(known)
        return known

    def latest(self, subject: str) -> str | None:
        ids = self.subjects.get(subject)
        return self.by_id[ids[-1]].text if ids else None

    def schema(self, schema_id: int) -> Schema:
        if schema_id not in self.by_id:
            raise SchemaRefused(f"there is no schema {schema_id}")
        return self.by_id[schema_id]
