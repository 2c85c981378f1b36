"""The audit trail: who changed what, and when."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar

from core.clock import iso_utc
from core.errors import PsttError
from core.records.rows import from_row
from core.records.store import StorePart

__all__ = ["OUTCOME", "AuditEntry", "AuditTrail"]

OUTCOME = "outcome"
"""The action of the entry that says what became of an act."""


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One change."""

    audit_id: int
    at: datetime
    who: str
    action: str
    object: str
    before: Any
    after: Any


class AuditTrail(StorePart):
    """The audit entries of one workspace; none is ever changed or deleted."""

    sql_file: ClassVar[str] = "audit.sql"

    def add(self, who: str, action: str, object_: str, now: datetime, before: Any = None, after: Any = None) -> None:
        """Writes an entry.

        Args:
            who: The user, or the rule or process of this program that made the change.
            action: A verb: `disable`, `accept-columns`.
            object_: What was changed: `job export`.
            now: The clock.
            before: The earlier value, as JSON can hold it; never a secret.
            after: The value now.
        """
        texts = [None if value is None else json.dumps(value, ensure_ascii=False) for value in (before, after)]
        row = {
            "at": iso_utc(now),
            "who": who,
            "action": action,
            "object": object_,
            "before": texts[0],
            "after": texts[1],
        }
        self._write("insert", row)

    @contextmanager
    def around(
        self, who: str, action: str, object_: str, now: datetime, before: Any = None, after: Any = None
    ) -> Iterator[dict[str, Any]]:
        """Writes an entry before an act outside of this workspace, and another one, `outcome`, after it.

        No transaction holds both the ledger and a Kafka cluster: an entry without an outcome was interrupted, and may have
        been done. The arguments are those of `add`.

        Yields:
            A dictionary for what the outcome says besides `done` or `failed`.
        """
        self.add(who, action, object_, now, before, after)
        said: dict[str, Any] = {}
        try:
            yield said
        except BaseException as error:
            why = error.what if isinstance(error, PsttError) else type(error).__name__
            self.add(who, OUTCOME, object_, now, after={"of": action, "outcome": "failed", "why": why, **said})
            raise
        self.add(who, OUTCOME, object_, now, after={"of": action, "outcome": "done", **said})

    def entries(self, object_: str | None = None, limit: int = 100) -> list[AuditEntry]:
        """Returns the entries about one object or about all, newest first."""
        return [from_row(AuditEntry, row) for row in self._rows("entries", {"object": object_, "limit": limit})]
