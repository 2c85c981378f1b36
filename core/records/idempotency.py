"""Executes a request with the same Idempotency-Key once; a repeated request gets the first answer, for 24 hours."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, ClassVar

from core.clock import iso_utc
from core.records.store import Store

__all__ = ["KEPT", "Earlier", "IdempotentAnswers", "fingerprint"]

KEPT = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class Earlier:
    """An earlier request with the same key."""

    is_same: bool
    """It had the same content."""
    begun_at: datetime
    status: int | None
    """HTTP status of the answer. None: it is running, or its process ended before the answer, so its effect is not known."""
    answer: Any = None


def fingerprint(what: str, document: Mapping[str, Any]) -> str:
    """Returns the SHA-256 of a request's content."""
    text = json.dumps([what, document], sort_keys=True, ensure_ascii=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


class IdempotentAnswers(Store):
    """The keys and answers of one workspace."""

    sql_file: ClassVar[str] = "idempotency.sql"

    def begin(self, who: str, key: str, request_sha256: str, now: datetime) -> Earlier | None:
        """Takes the key for this request. Returns the earlier request with that key, or None when this is the first.

        Args:
            who: The owner of the key; two programs may use the same key.
            key: The Idempotency-Key header.
            request_sha256: `fingerprint`.
            now: The clock.
        """
        values = {"who": who, "key": key, "request_sha256": request_sha256, "now": iso_utc(now)}
        with self._translated(), self._transaction():
            self._db.execute(self._sql["prune"], {"before": iso_utc(now - KEPT)})
            if self._db.execute(self._sql["insert"], values).rowcount:
                return None
            row = self._db.execute(self._sql["known"], values).fetchone()
        return Earlier(
            is_same=row["request_sha256"] == request_sha256,
            begun_at=datetime.fromisoformat(row["begun_at"]),
            status=row["status"],
            answer=json.loads(row["answer"]) if row["answer"] else None,
        )

    def keep(self, who: str, key: str, status: int, answer: Any) -> None:
        """Stores the answer for repeated requests."""
        text = json.dumps(answer, ensure_ascii=True, default=str)
        self._write("keep", {"who": who, "key": key, "status": status, "answer": text})

    def forget(self, who: str, key: str) -> None:
        """Deletes a key whose request had no effect, so that it can be used again."""
        self._write("forget", {"who": who, "key": key})
