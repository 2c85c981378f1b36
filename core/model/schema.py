"""The schema of a key or a value, and the protocol of what gives it an id."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

__all__ = ["Schema", "SchemaType", "Schemas"]

SchemaType = Literal["AVRO", "PROTOBUF", "JSON"]
"""As Confluent's registry names them."""


@dataclass(frozen=True, slots=True)
class Schema:
    """A schema as it is stored in a registry."""

    type: SchemaType
    text: str
    name: str = ""
    """Full name of its record or message; empty for a key without a record."""


class Schemas(Protocol):
    """Gives ids to schemas. Implementations are in `core.kafka.schema_registry`."""

    notes: list[str]
    """What people should know of the schemas, a sentence each: one that differs from the version before."""

    def id_of(self, subject: str, schema: Schema) -> int:
        """Returns the id of a schema under a subject; registers the schema if it is new and may be registered.

        Raises:
            SchemaRefused: It is not compatible with the subject's versions, or is new and may not be registered.
            RegistryUnavailable: The registry does not answer; try later.
            NotAuthorised: It refused the account.
            ConfigError: What answers is no schema registry.
        """
        ...

    def latest(self, subject: str) -> str | None:
        """Returns the text of the newest schema of a subject; None: it has none. Raises as `id_of`."""
        ...
