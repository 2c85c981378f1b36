"""The ids of schemas from a registry. They are cached: a process asks once for each schema."""

from __future__ import annotations

import threading

from loguru import logger

from core.errors import SchemaRefused
from core.kafka.schema_registry import NO_REASON, RegistryClient
from core.message.schema_difference import schema_difference
from core.model.schema import Schema

__all__ = ["CheckedSchemas", "RegisteredSchemas"]


class RegisteredSchemas:
    """Gives ids to the schemas of a run; registers new ones that are compatible. See `core.model.schema.Schemas`."""

    def __init__(self, client: RegistryClient) -> None:
        self._client = client
        self._ids: dict[tuple[str, Schema], int] = {}
        self._lock = threading.Lock()
        self.notes: list[str] = []
        """See `Schemas.notes`."""

    def id_of(self, subject: str, schema: Schema) -> int:
        """See `Schemas.id_of`."""
        with self._lock:
            if (subject, schema) not in self._ids:
                self._ids[subject, schema] = self._found(subject, schema)
            return self._ids[subject, schema]

    def latest(self, subject: str) -> str | None:
        """See `Schemas.latest`."""
        found = self._client.latest(subject)
        return None if found is None else found[1].text

    def _found(self, subject: str, schema: Schema) -> int:
        known = self._client.find(subject, schema)
        if known is not None:
            return known
        _require_compatible(self._client, subject, schema)
        registry = self._client.registry
        if not registry.auto_register:
            raise SchemaRefused(
                f'the schema is not registered under subject "{subject}" of {registry.place}',
                why='schema_registry has "auto_register": false',
                remedy="let who may register it, and run again; python -m core preview shows it",
            )
        before = self._client.latest(subject)
        made = self._client.register(subject, schema)
        text = f'schema {made} is new under subject "{subject}" of {registry.place}'
        if before is None:
            logger.info("{}", text)
        else:
            difference = ", ".join(schema_difference(before[1].text, schema)) or "only its text has changed"
            self.notes.append(f"{text}: {difference}")
        return made


class CheckedSchemas:
    """Checks the schemas of a run that sends nothing; registers none. See `core.model.schema.Schemas`."""

    def __init__(self, client: RegistryClient) -> None:
        self._client = client
        self.notes: list[str] = []
        """See `Schemas.notes`."""
        self.new: list[str] = []
        """Subjects whose schema is not registered yet."""

    def id_of(self, subject: str, schema: Schema) -> int:
        """Returns the id of a schema; 0 if it is new."""
        known = self._client.find(subject, schema)
        if known is not None:
            return known
        _require_compatible(self._client, subject, schema)
        self.new.append(subject)
        return 0

    def latest(self, subject: str) -> str | None:
        """See `Schemas.latest`."""
        found = self._client.latest(subject)
        return None if found is None else found[1].text


def _require_compatible(client: RegistryClient, subject: str, schema: Schema) -> None:
    """Raises SchemaRefused if a schema is not compatible with the newest one of its subject."""
    problems = client.problems(subject, schema)
    if problems == [NO_REASON] and (newest := client.latest(subject)):
        problems = schema_difference(newest[1].text, schema) or problems
    if problems:
        raise SchemaRefused(
            f'the schema is not compatible with subject "{subject}" of {client.place}',
            why="; ".join(problems)[:2000],
            remedy="change the query back, or ask the readers of the topic and register the schema under another compatibility",
        )
