"""Finds segments of the spool that cannot be read, moves them to `.pstt/spool/damaged/`, and lists them.

One damaged segment must not prevent the others from being read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from core.errors import StorageFailed

if TYPE_CHECKING:
    import duckdb

__all__ = ["DamagedSegment", "are_ours", "damage_of", "damaged_segments", "quoted", "set_aside"]

FOLDER = "damaged"
REMEDY = (
    "put a whole copy of it back into .pstt/spool from a backup, or delete the damaged one: its sends are then lost"
)
OURS = frozenset("run_id job topic partition offset key message_id size_bytes latency_ms attempt status error".split())
"""Columns of every segment since the first version; `sent_at` had another name then."""


@dataclass(frozen=True, slots=True)
class DamagedSegment:
    """A segment that was moved to `damaged/`."""

    name: str
    set_aside_at: datetime


def damaged_segments(spool_dir: Path) -> list[DamagedSegment]:
    """Returns the segments in `damaged/`, by name."""
    found = []
    try:
        for path in (spool_dir / FOLDER).iterdir():
            changed_s = path.lstat().st_ctime  # on Windows the creation time, which is close enough
            found.append(DamagedSegment(path.name, datetime.fromtimestamp(changed_s, UTC)))
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(found, key=lambda segment: segment.name)


def damage_of(db: duckdb.DuckDBPyConnection, segment: Path, *, whole: bool) -> str:
    """Returns why a segment cannot be read; empty where it can be read, or has been removed meanwhile.

    Args:
        db: Any connection.
        segment: The file.
        whole: Read every value (12 ms for 50,000 sends), not only the metadata of the file.

    Raises:
        StorageFailed: This account may not read the file, which does not mean that it is damaged.
    """
    import duckdb

    try:
        if not segment.is_file():
            return "it is no file" if segment.exists() or segment.is_symlink() else ""
        with segment.open("rb") as file:
            file.read(1)
    except FileNotFoundError:
        return ""
    except PermissionError as error:
        raise StorageFailed(
            f"segment {segment.name} of the spool cannot be opened",
            why=error.strerror or str(error),
            remedy=f"give this account the right to read {segment}",
        ) from None
    except OSError as error:
        return error.strerror or str(error)
    try:
        columns = {name for (name,) in db.execute("SELECT name FROM parquet_schema(?)", [str(segment)]).fetchall()}
        if missing := OURS - columns:
            return f"it is not ours: it has no column {min(missing)}"
        if whole:
            db.execute(f"SELECT bit_xor(hash(COLUMNS(*))) FROM read_parquet('{quoted(segment)}')").fetchall()  # noqa: S608
    except (duckdb.OutOfMemoryException, duckdb.InterruptException):
        return ""
    except duckdb.Error as error:
        return str(error).splitlines()[0].replace(str(segment), segment.name)
    return ""


def are_ours(db: duckdb.DuckDBPyConnection, segments: Sequence[Path]) -> bool:
    """Returns whether the metadata of all these can be read and is that of segments: one question for many small files."""
    import duckdb

    try:
        rows = db.execute(
            "SELECT count(*) FROM (SELECT file_name FROM parquet_schema(?) WHERE name IN (SELECT unnest(?)) "
            "GROUP BY file_name HAVING count(DISTINCT name) = ?)",
            [[str(segment) for segment in segments], sorted(OURS), len(OURS)],
        ).fetchall()
    except duckdb.Error:
        return False
    return rows == [(len(segments),)]


def set_aside(segment: Path) -> bool:
    """Moves a segment to `damaged/`. Returns False where the disk cannot be written; the segment then stays."""
    folder = segment.parent / FOLDER
    try:
        folder.mkdir(exist_ok=True)
        names = (f"{segment.name}{f'.{n}' if n else ''}" for n in count())
        segment.rename(next(folder / name for name in names if not (folder / name).exists()))
    except FileNotFoundError:  # another process has moved it
        return True
    except OSError:
        return False
    return True


def quoted(path: Path) -> str:
    """Returns a path as the content of an SQL string literal."""
    return str(path).replace("'", "''")
