"""Merges the small segments of days that are over into one for each job and day: docs/decisions/025-merged-segments.md.

A job that runs each minute leaves 525,600 segments a year. Each takes 5 kB on the disk, and 4 ms of a rebuild.

The steps, each of which may be the last one before a kill:
1. The sends of copied segments are written into a new file, which is flushed and read again.
2. It is renamed. It names what it replaces, so from here on those count no more where they are not copied.
3. metrics.duckdb notes the merged segment in place of the others, in one transaction; its sends do not change.
4. The others are deleted.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import duckdb
from loguru import logger

from core.errors import PsttError, StorageFailed
from core.records.merged_segments import NEW, PREFIX, write_merged
from core.records.metrics_file import FileHeld, FileUnreadable, copying, names_copied, opened
from core.records.metrics_queries import make_zone, metrics_sql
from core.records.segments import SUFFIX, flush_folder
from core.records.spool import SEGMENT_SENDS
from core.workspace.atomic import replace_file, write_atomically

if TYPE_CHECKING:
    from core.records.metrics import Metrics
    from core.workspace.paths import Workspace

__all__ = ["MergeResult", "merge_daily", "merge_small"]

MOST_SENDS = 5_000
"""Sends of a run whose segment is small: a tenth of a segment."""
MOST_FILES = 500
"""Segments in a merged one: half a second of a processor, for which the lock of copies is held."""
FEWEST_FILES = 10
"""Fewer runs of a job on a day are left as they are: 4,000 files a year and job at most."""
MOST_RUNS = 5_000
"""Runs that are planned at once."""
MERGE_S = 5.0
"""How long a pass may take, so that a runner that ends, or a copy, waits for it no longer."""
PAUSE_S = 0.1
"""Between two merged segments; a copy that waits for the lock gets its turn."""


@dataclass(frozen=True, slots=True)
class MergeResult:
    """What a pass did."""

    files: int = 0
    """Merged segments that were made."""
    replaced: int = 0
    """Segments that they replace."""
    is_complete: bool = True
    """Nothing is left to merge."""


def merge_small(metrics: Metrics, timezone: str, now: datetime, most_s: float = MERGE_S) -> MergeResult:
    """Merges small segments of days before today, until nothing is left or the time is over.

    Args:
        metrics: The metrics of the workspace.
        timezone: IANA time zone of the days.
        now: Aware; today and later are left alone.
        most_s: Seconds after which no other merged segment is begun. One is made in any case: on a busy machine the
            planning alone may take as long, and no pass would get any further.

    Returns:
        What was merged. It is not complete if time was over or another program holds metrics.duckdb.

    Raises:
        StorageFailed: The disk is full, or a file may not be read or written; no send is lost.
    """
    ends_s = time.monotonic() + most_s
    files = replaced = 0
    try:
        groups, is_all = _plan(metrics, timezone, now)
        for number, group in enumerate(groups):
            if number and time.monotonic() >= ends_s:
                return MergeResult(files, replaced, is_complete=False)
            with copying(metrics.lock_file):
                merged = _merge(metrics, group)
            files, replaced = files + bool(merged), replaced + merged
            time.sleep(PAUSE_S)
    except FileHeld:
        return MergeResult(files, replaced, is_complete=False)
    except (FileUnreadable, OSError, duckdb.Error) as error:
        raise StorageFailed(
            "small segments of the spool cannot be merged",
            why=str(error).partition("\n")[0],
            remedy="make room on the disk, or give this account the right to write there; nothing is lost",
        ) from None
    return MergeResult(files, replaced, is_complete=is_all)


def merge_daily(metrics: Metrics, workspace: Workspace, timezone: str, now: datetime) -> None:
    """Calls `merge_small` until the days before today are merged, then not before tomorrow; logs what it did."""
    today = now.astimezone(ZoneInfo(timezone)).date().isoformat()
    note = workspace.state_dir / "merged.json"
    with suppress(OSError, ValueError):
        if json.loads(note.read_text(encoding="utf-8")) == {"day": today}:
            return
    try:
        done = merge_small(metrics, timezone, now)
        if done.is_complete:
            write_atomically(note, json.dumps({"day": today}))
    except PsttError as error:
        logger.warning("small segments were not merged: {}", error)
        return
    if done.files:
        logger.info("{:,} small segments of the spool were merged into {:,}", done.replaced, done.files)


def _plan(metrics: Metrics, timezone: str, now: datetime) -> tuple[list[list[str]], bool]:
    """Deletes what an earlier pass has left. Returns what belongs together, and whether that is all."""
    if not metrics.file.exists():
        return [], True
    with copying(metrics.lock_file):
        for file in metrics.spool_dir.glob(f"{PREFIX}*{NEW}"):
            file.unlink()
        with opened(metrics.file, is_hurried=True) as db:
            metrics.prepare(db)
            known = names_copied(db, "segment")
            _delete_replaced(metrics, db, [name for name in metrics.segment_names() if name not in known])
            make_zone(db, timezone)
            today = now.astimezone(ZoneInfo(timezone)).date()
            limits = {"most_sends": MOST_SENDS, "most_runs": MOST_RUNS, "fewest": FEWEST_FILES, "today": today}
            rows = db.execute(metrics_sql()["small_runs"], limits).fetchall()
    days = (list(rows_of_day) for _, rows_of_day in groupby(rows, key=lambda row: row[:2]))
    groups = [group for day in days for group in _groups([(name, sends) for _, _, name, sends in day])]
    return groups, len(rows) < MOST_RUNS


def _groups(segments: list[tuple[str, int]]) -> Iterator[list[str]]:
    """Yields names with at most 50,000 sends and 500 segments together; one alone is not merged."""
    group: list[str] = []
    sum_ = 0
    for name, sends in segments:
        if group and (len(group) == MOST_FILES or sum_ + sends > SEGMENT_SENDS):
            yield group
            group, sum_ = [], 0
        group.append(name)
        sum_ += sends
    if len(group) > 1:
        yield group


def _merge(metrics: Metrics, names: list[str]) -> int:
    """Merges these segments; the lock of copies is held. Returns how many, 0 where that is not possible now."""
    segments = [metrics.spool_dir / name for name in names]
    if metrics.rolled_up.replaced_segments().intersection(names):  # rolled up since they were planned
        return 0
    try:
        made = write_merged(segments, metrics.spool_dir)
    except StorageFailed as error:  # one of them is damaged, or gone
        logger.warning("small segments were not merged: {}", error)
        return 0
    if made is None:
        logger.warning("small segments were not merged: the new one does not have the same sends")
        return 0
    replace_file(made, made.with_suffix(SUFFIX))
    flush_folder(metrics.spool_dir)
    with opened(metrics.file, is_hurried=True) as db:  # deleting needs more than copying, and no run is in this process
        metrics.prepare(db)
        _delete_replaced(metrics, db, names)
    return len(names)


def _delete_replaced(metrics: Metrics, db: duckdb.DuckDBPyConnection, names: list[str]) -> None:
    """Deletes those of the segments of which the open file knows that they are merged."""
    for name in metrics.merged.replaced(db, names):
        with suppress(PermissionError):  # Windows: a program reads it; the next pass tries again, and none counts twice
            (metrics.spool_dir / name).unlink(missing_ok=True)
