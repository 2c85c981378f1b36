"""Requests to the runner: run a job now, backfill days, cancel, enable, disable, stop.

The page, REST and the command line write a request; the runner takes it within a second and writes its answer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, Literal

from core.clock import iso_utc
from core.errors import ConfigError
from core.records.rows import from_row
from core.records.store import StorePart

__all__ = ["Request", "RequestKind", "RequestState", "Requests"]

RequestKind = Literal["run", "dry_run", "replay", "backfill", "enable", "disable", "cancel", "stop"]
RequestState = Literal["waiting", "taken", "done", "skipped", "refused"]
"""`skipped`: it ended and nothing ran, since each run planned for it was skipped; the answer says why."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request to the runner, and its answer."""

    request_id: int
    kind: RequestKind
    job: str
    run_id: str | None
    args: Mapping[str, Any]
    asked_by: str
    asked_at: datetime
    state: RequestState
    taken_at: datetime | None
    finished_at: datetime | None
    answer: str


class Requests(StorePart):
    """The requests of one workspace."""

    sql_file: ClassVar[str] = "requests.sql"

    def submit(
        self,
        kind: RequestKind,
        *,
        asked_by: str,
        now: datetime,
        job: str = "",
        run_id: str | None = None,
        args: Mapping[str, Any] | None = None,
    ) -> int:
        """Writes a request for the runner. Returns its number."""
        row = {
            "kind": kind,
            "job": job,
            "run_id": run_id,
            "args": json.dumps(dict(args or {}), ensure_ascii=False),
            "asked_by": asked_by,
            "asked_at": iso_utc(now),
        }
        with self._store.transaction() as db:
            return int(db.execute(self._sql["insert"], row).lastrowid or 0)

    def get(self, request_id: int) -> Request:
        """Returns one request.

        Raises:
            ConfigError: There is none with that number.
        """
        rows = self._rows("request", {"request_id": request_id})
        if not rows:
            raise ConfigError(f"there is no request {request_id}")
        return from_row(Request, rows[0])

    def newest(self, limit: int = 50) -> list[Request]:
        """Returns the newest requests first."""
        return [from_row(Request, row) for row in self._rows("newest", {"limit": limit})]

    def waiting(self) -> list[Request]:
        """Returns the requests that no runner has taken, oldest first."""
        return [from_row(Request, row) for row in self._rows("waiting")]

    def taken(self, kind: RequestKind) -> list[Request]:
        """Returns the requests of a kind that were taken and have not ended, oldest first."""
        return [from_row(Request, row) for row in self._rows("taken", {"kind": kind})]

    def answer(self, request_id: int, state: Literal["taken", "done", "refused"], answer: str, now: datetime) -> None:
        """Writes the state and the answer of a request that has not ended."""
        self._write("answer", {"request_id": request_id, "state": state, "answer": answer, "now": iso_utc(now)})

    def finish(self, request_id: int, answer: str, now: datetime) -> None:
        """Ends a request when all its scheduled runs have ended: `skipped` where none of them ran, else `done`.

        Does nothing while one of them is planned or running.
        """
        self._write("finish", {"request_id": request_id, "answer": answer, "now": iso_utc(now)})

    def close_ended(self, now: datetime) -> None:
        """Ends requests whose scheduled runs were all cancelled (`skipped`), or ended while no runner worked (`done`)."""
        self._write("close_ended", {"now": iso_utc(now)})
