"""The parts of partitioned runs: how far each is, and how it ended."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import ClassVar

from core.model.run import RunPart
from core.records.store import StorePart

__all__ = ["RunParts"]


class RunParts(StorePart):
    """The parts of all runs of one workspace."""

    sql_file: ClassVar[str] = "run_parts.sql"

    def put(self, run_id: str, parts: Iterable[RunPart]) -> None:
        """Writes how far these parts are; what was known of them before is replaced."""
        with self._store.transaction() as db:
            db.executemany(self._sql["put"], [{"run_id": run_id, **asdict(part)} for part in parts])
