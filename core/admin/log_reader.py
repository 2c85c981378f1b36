"""Reads the newest lines of the log in `logs/` from its end, of one run, of one job or of everything."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from core.errors import StorageFailed

__all__ = ["LogLine", "newest_lines"]

BLOCK_BYTES = 256 * 1024
READ_BYTES = 64_000_000
"""Most bytes read from the end, which takes 0.3 s."""
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of the log."""

    at: datetime
    level: str
    message: str
    job: str
    run: str


def newest_lines(
    folder: Path, *, run: str = "", job: str = "", level: str = "DEBUG", since: datetime | None = None, limit: int = 500
) -> list[LogLine]:
    """Returns the newest lines, oldest first, also of earlier days; reads at most 64 MB back.

    Args:
        folder: The workspace's `logs/`.
        run: Lines of this run; empty: of all.
        job: Lines of this job; empty: of all.
        level: The lowest level to return.
        since: The earliest time; reading stops there.
        limit: Most lines to return.

    Raises:
        StorageFailed: A log file cannot be read.
    """
    levels = frozenset(LEVELS[LEVELS.index(level) :])
    found: list[LogLine] = []
    needle = (run or job).encode()
    try:
        for raw in _backwards(folder):
            if needle not in raw:
                continue
            line = _parsed(raw)
            if line is None:
                continue
            if since is not None and line.at < since:
                break
            if line.level in levels and run in ("", line.run) and job in ("", line.job):
                found.append(line)
            if len(found) >= limit:
                break
    except OSError as error:
        raise StorageFailed(
            f"the log in {folder} cannot be read",
            why=error.strerror or str(error),
            remedy="check the folder's permissions",
        ) from None
    return found[::-1]


def _backwards(folder: Path) -> Iterator[bytes]:
    """Yields the lines of all log files, newest first."""
    files = sorted(folder.glob("pstt*.log"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
    left = READ_BYTES
    for file in files:
        with file.open("rb") as stream:
            position = stream.seek(0, 2)
            rest = b""
            while position > 0 and left > 0:
                size = min(BLOCK_BYTES, position)
                position -= size
                left -= size
                stream.seek(position)
                rest, *lines = (stream.read(size) + rest).split(b"\n")
                yield from reversed(lines)
            if position == 0:
                yield rest


def _parsed(raw: bytes) -> LogLine | None:
    """Returns None for a line that is not JSON of ours, such as one cut off by a crash."""
    try:
        entry: Mapping[str, Any] = json.loads(raw)
        return LogLine(
            datetime.fromisoformat(entry["time"]).astimezone(UTC),
            str(entry["level"]),
            str(entry["message"]),
            str(entry.get("job", "")),
            str(entry.get("run", "")),
        )
    except (ValueError, KeyError, TypeError):
        return None
