"""Rolls up sends that are older than `PSTT_KEEP_SENDS_DAYS`, deletes their segments, and makes metrics.duckdb smaller.

The order decides what a power cut leaves: the counts of the days are on the disk (`core.records.rolled_up`) before
metrics.duckdb forgets the single sends, and it has forgotten them before their segments are deleted. Each step is
repeated by the next pass, or by the next copy, where the one before was interrupted.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from zoneinfo import ZoneInfo

import duckdb
from loguru import logger

from core.clock import iso_utc
from core.errors import PsttError, StorageFailed
from core.formatting import counted
from core.records.damaged_segments import quoted
from core.records.known_since import KnownSince
from core.records.metrics import Metrics
from core.records.metrics_file import MUCH_MEMORY, NEW_FILE, FileHeld, FileUnreadable, copying, opened, remove
from core.records.metrics_queries import make_zone, metrics_sql
from core.records.roll_up_note import read_note, write_note
from core.workspace.atomic import replace_file
from core.workspace.jobs import load_jobs

if TYPE_CHECKING:
    from core.workspace.paths import Workspace
    from core.workspace.settings import Settings

__all__ = ["Retention", "RolledUpResult", "note_pass", "retention_of", "roll_up", "roll_up_daily", "shrink"]

WORTH_BYTES = 16 * 1024 * 1024
WORTH_SHARE = 0.2
"""The file is rewritten where more than this is free in it. New sends fill what a usual day frees."""
FOREVER = datetime(1, 1, 1)  # noqa: DTZ001 - as DuckDB's TIMESTAMP columns have times
TABLES = ("sender", "send", "traffic", "segment", "merged", "run", "reject", "rolled_up", "known_since")


@dataclass(frozen=True, slots=True)
class Retention:
    """How many days single sends are kept.

    The days are those of the workspace's time zone, in which `daily` and every figure by day count.
    """

    days: int
    """0: for ever."""
    timezone: str
    own: Mapping[str, int] = field(default_factory=dict)
    """Slug of a job with `keep_sends_days` → its days."""

    def first_days(self, now: datetime) -> dict[str | None, date | None]:
        """Returns the first day that is kept, for each job with its own number and for all others (None)."""
        today = now.astimezone(ZoneInfo(self.timezone)).date()
        numbers = [(None, self.days), *self.own.items()]
        return {job: today - timedelta(days=days) if days else None for job, days in numbers}


@dataclass(frozen=True, slots=True)
class RolledUpResult:
    """What a pass did."""

    state: Literal["done", "held"]
    runs: int = 0
    sends: int = 0
    """Single sends that are now only counted by day."""
    known_since: KnownSince = field(default_factory=KnownSince)
    note: str = ""
    """What could not be done now, and when it is tried again."""
    before_bytes: int = 0
    """Size of metrics.duckdb before the pass."""
    after_bytes: int = 0


def retention_of(workspace: Workspace, settings: Settings) -> Retention:
    """Returns the retention of settings and job files. A job file that is wrong has no number of its own."""
    jobs, _ = load_jobs(workspace)
    own = {job.slug: job.keep_sends_days for job in jobs if job.keep_sends_days is not None}
    return Retention(settings.PSTT_KEEP_SENDS_DAYS, settings.PSTT_TIMEZONE, own)


def roll_up(metrics: Metrics, retention: Retention, now: datetime) -> RolledUpResult:
    """Rolls up what is older than the retention and is copied, deletes its segments and makes the file smaller.

    Raises:
        StorageFailed: The disk is full, or a file may not be read or written; no send is lost.
    """
    note = "single sends that are too old are rolled up next time"
    before_bytes = _size(metrics.file)
    try:
        with copying(metrics.lock_file):
            if not metrics.file.exists():
                return RolledUpResult("done", known_since=metrics.rolled_up.known_since())
            with opened(metrics.file, is_hurried=True) as db:
                metrics.prepare(db)
                runs, sends = _expire(metrics, db, retention, now)
            _delete_segments(metrics)
    except FileHeld as held:
        return RolledUpResult("held", note=f"{metrics.file.name} is open in another program ({held}): {note}")
    except (FileUnreadable, OSError) as error:
        raise StorageFailed(
            "old sends cannot be rolled up",
            why=str(error),
            remedy="make room on the disk, or give this account the right to write there; nothing is lost",
        ) from None
    note = shrink(metrics)
    return RolledUpResult(
        "done", runs, sends, metrics.rolled_up.known_since(), note, before_bytes, after_bytes=_size(metrics.file)
    )


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def roll_up_daily(metrics: Metrics, workspace: Workspace, settings: Settings, now: datetime) -> None:
    """Calls `roll_up` once a day, and again when the retention was changed; logs what it did and what prevents it."""
    retention = retention_of(workspace, settings)
    today = now.astimezone(ZoneInfo(retention.timezone)).date().isoformat()
    asked = {"day": today, "days": retention.days, "own": dict(sorted(retention.own.items()))}
    if read_note(workspace).items() >= asked.items():
        return
    try:
        made = roll_up(metrics, retention, now)
        if made.state == "done":
            note_pass(workspace, made, now, asked)
    except PsttError as error:
        logger.warning("old sends were not rolled up: {}", error)
        return
    if made.runs:
        words = "{} of {} was rolled up: {}" if made.sends == 1 else "{} of {} were rolled up: {}"
        logger.info(words, counted(made.sends, "send"), counted(made.runs, "run"), made.known_since.text)
    if made.note:
        logger.info(made.note)


def note_pass(
    workspace: Workspace, made: RolledUpResult, now: datetime, asked: Mapping[str, Any] | None = None
) -> None:
    """Stores what a pass did, for `doctor` and the page. One that had nothing to do leaves what the last one did.

    Args:
        workspace: The workspace.
        made: The result of the pass.
        now: When it ended.
        asked: Of a daily pass: its day and the retention, so that the next one is on another day.

    Raises:
        StorageFailed: The file cannot be written.
    """
    note = read_note(workspace) | dict(asked or {}) | {"note": made.note}
    if made.runs:
        sizes = {"before_bytes": made.before_bytes, "after_bytes": made.after_bytes}
        note["done"] = {"at": iso_utc(now), "runs": made.runs, "sends": made.sends, **sizes}
    write_note(workspace, note)


def _expire(metrics: Metrics, db: duckdb.DuckDBPyConnection, retention: Retention, now: datetime) -> tuple[int, int]:
    """Writes the counts of runs that are too old, then deletes their sends from the open file. Returns runs and sends."""
    sql = metrics_sql()
    _make_kept(db, retention, now)
    db.execute(sql["expired_runs"], [metrics.waiting_runs(db)])
    db.execute(sql["keep_half_merged"])
    counted = "SELECT count(DISTINCT run_id), sum(messages) FROM traffic JOIN expired USING (run_id)"
    runs, sends = db.execute(counted).fetchone() or (0, 0)
    if runs:
        db.execute(sql["expired_segments"])
        make_zone(db, retention.timezone)
        db.execute(sql["since_now"])
        metrics.rolled_up.write(db)
        metrics.rolled_up.apply(db)
    return runs, int(sends or 0)


def _make_kept(db: duckdb.DuckDBPyConnection, retention: Retention, now: datetime) -> None:
    """Creates the table `kept`: the first day of each job, and its beginning in UTC."""
    zone = ZoneInfo(retention.timezone)
    db.execute("CREATE OR REPLACE TEMP TABLE kept (job VARCHAR, day DATE, since TIMESTAMP)")
    for job, day in retention.first_days(now).items():
        begins = FOREVER
        if day is not None:
            begins = datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC).replace(tzinfo=None)
        db.execute("INSERT INTO kept VALUES (?, ?, ?)", [job, day, begins])


def _delete_segments(metrics: Metrics) -> None:
    """Deletes the segments that are rolled up, also those that an earlier pass has left."""
    replaced = metrics.rolled_up.replaced_segments()
    for name in replaced.intersection(metrics.segment_names()):
        with suppress(PermissionError):  # Windows: a program reads it; the next pass tries again, and none counts twice
            (metrics.spool_dir / name).unlink(missing_ok=True)


def shrink(metrics: Metrics) -> str:
    """Rewrites metrics.duckdb where much of it is free. Returns why that has to wait; empty where nothing has to.

    Readers go on meanwhile: the new file is made aside, and replaces the old one when no program has it open.
    """
    aside = metrics.file.with_name(f"{metrics.file.name}.smaller")
    try:
        with copying(metrics.lock_file):
            remove(aside)
            if not _is_worth_it(metrics.file):
                return ""
            _rewrite(metrics, aside)
            metrics.require_free()
            replace_file(aside, metrics.file)
    except (FileHeld, PermissionError) as held:
        return f"{metrics.file.name} is open in another program ({held}): it is made smaller next time"
    except (FileUnreadable, OSError, duckdb.Error) as error:
        logger.warning("{} cannot be made smaller: {}", metrics.file.name, error)
        return f"{metrics.file.name} could not be made smaller ({error}); it is tried again next time"
    finally:
        with suppress(OSError):
            remove(aside)
    return ""


def _attach(db: duckdb.DuckDBPyConnection, file: Path) -> None:
    try:
        db.execute(f"ATTACH '{quoted(file)}' AS store (READ_ONLY)")
    except duckdb.Error as error:
        raise FileHeld(str(error).partition("\n")[0]) from None


def _is_worth_it(file: Path) -> bool:
    if not file.exists() or file.stat().st_size < WORTH_BYTES:
        return False
    with duckdb.connect(":memory:") as db:
        _attach(db, file)
        sizes = "SELECT block_size * free_blocks, free_blocks / total_blocks FROM pragma_database_size() WHERE database_name = 'store'"
        free_bytes, share = db.execute(sizes).fetchone() or (0, 0)
    return bool(free_bytes > WORTH_BYTES and share > WORTH_SHARE)


def _rewrite(metrics: Metrics, aside: Path) -> None:
    """Copies every table into a new file, in the order in which the rows are stored."""
    with duckdb.connect(str(aside), config={"threads": 1, "memory_limit": MUCH_MEMORY, **NEW_FILE}) as db:
        metrics.prepare(db, is_new=True)
        _attach(db, metrics.file)
        for table in TABLES:
            db.execute(f"INSERT INTO main.{table} SELECT * FROM store.{table}")  # noqa: S608 - our tables
