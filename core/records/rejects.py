"""Rejected rows: what was wrong with each, and the row itself."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, ClassVar

from core.model.run import Reject
from core.records.rows import from_row
from core.records.store import StorePart

__all__ = ["Rejects"]

MOST_SHOWN = 100_000
"""Rejects that are read to be grouped by reason; the others are only counted."""


class Rejects(StorePart):
    """The rejected rows of one workspace."""

    sql_file: ClassVar[str] = "rejects.sql"

    def add(self, run_id: str, rejects: Iterable[Reject]) -> None:
        """Writes rejected rows; they are kept even if the run fails later."""
        rows = [
            {
                "run_id": run_id,
                "row_number": r.row_number,
                "column_name": r.column,
                "database_type": r.database_type,
                "reason": r.reason,
                "key": None if r.key is None else _storable(r.key),
                "row": None if r.row is None else _storable(json.dumps(r.row, ensure_ascii=False)),
            }
            for r in rejects
        ]
        if rows:
            with self._store.transaction() as db:
                db.executemany(self._sql["insert"], rows)

    def count(self, run_id: str) -> int:
        """Returns how many rejected rows of a run are stored, also of an interrupted run."""
        (row,) = self._rows("count", {"run_id": run_id})
        return int(row[0])

    def rows(self, run_ids: Iterable[str]) -> Iterator[dict[str, Any]]:
        """Yields what was wrong with the rejected rows of these runs, without the rows themselves."""
        for row in self._each("rows", {"run_ids": json.dumps(list(run_ids))}):
            yield dict(row)

    def of_run(self, run_id: str) -> Iterator[Reject]:
        """Yields the rejected rows of a run, by row number."""
        for row in self._each("of_run", {"run_id": run_id}):
            yield from_row(Reject, row, column=row["column_name"])

    def first_of_run(self, run_id: str) -> list[Reject]:
        """Returns the first 100,000 rejected rows of a run."""
        return list(islice(self.of_run(run_id), MOST_SHOWN))


def _storable(text: str) -> str:
    """Returns text that SQLite can store as UTF-8: half of a surrogate pair becomes its escape."""
    return text.encode("utf-8", "backslashreplace").decode()
