"""What people should know about the schemas of a job before it runs."""

from __future__ import annotations

from collections.abc import Iterator

from core.message.envelope import Envelope
from core.message.field_types import identifier
from core.model.schema import Schemas

__all__ = ["format_warnings"]


def format_warnings(envelope: Envelope, schemas: Schemas | None) -> Iterator[str]:
    """Yields one sentence for each thing that a reader of the topic could trip over."""
    if envelope.value_schema is None or envelope.value_schema.type == "JSON":
        return
    for column, field in zip(envelope.columns, envelope.fields, strict=True):
        allowed = identifier(field.name)
        if allowed != field.name:
            yield f'{column.name}: a schema does not allow this name, so that the field is called "{allowed}"; give it another name in the query if readers should see one of your own'
        if field.kind == "digits":
            yield f"{column.name} ({column.database_type}): the database does not say how many digits follow the point, so that the number is sent as text; write CAST({column.name} AS DECIMAL(18,2)) in the query to send a decimal"
        if field.kind == "any":
            yield f'{column.name}: the database does not say its type, so that it is sent as text; set "types": {{"{column.name}": "integer"}} or another one'
    for subject in getattr(schemas, "new", ()):
        yield f'the schema is new under subject "{subject}" and compatible with it; the first run registers it'
