"""The rejected rows of a run as a CSV file."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING

from core.errors import StorageFailed
from core.files.writer import escape_text

if TYPE_CHECKING:
    from core.model.run import Reject


__all__ = ["write_rejects"]


def write_rejects(file: Path, rejects: list[Reject]) -> None:
    """Writes rejected rows as CSV: the reason first, then the row itself. The file appears complete or not at all.

    A text that a spreadsheet would execute as a formula gets a `'` in front.

    Raises:
        StorageFailed: It cannot be written.
    """
    names = list(dict.fromkeys(name for reject in rejects for name in reject.row or ()))
    aside = file.with_name(f"{file.name}.tmp")
    try:
        with aside.open("w", encoding="utf-8-sig", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["row_number", "key", "column", "database_type", "reason", *map(escape_text, names)])
            for r in rejects:
                cells = [r.key, r.column, r.database_type, r.reason, *((r.row or {}).get(name) for name in names)]
                writer.writerow([r.row_number, *map(escape_text, cells)])
        aside.replace(file)
    except OSError as error:
        raise StorageFailed(f"{file} cannot be written", why=error.strerror or str(error)) from None
