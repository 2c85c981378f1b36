"""Times, sizes and verdicts as text for people."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from zoneinfo import ZoneInfo

from core.model.run import Run

__all__ = ["counted", "duration_text", "heading", "local_time", "ms_text", "short_value", "size_text", "verdict"]

SHOWN_CHARACTERS = 200
"""Characters of a parameter's value that a line of text shows: a list may have thousands of values."""


def counted(number: int, noun: str) -> str:
    """Returns `1 row`, `1,234 rows`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def local_time(moment: datetime, timezone: str, *, seconds: bool = False) -> str:
    """Returns `17 Jan 2026 02:00` in an IANA time zone."""
    return (
        moment.astimezone(ZoneInfo(timezone)).strftime("%d %b %Y %H:%M:%S" if seconds else "%d %b %Y %H:%M").lstrip("0")
    )


def duration_text(seconds: float) -> str:
    """Returns `40 s`, `12 min` or `3 h 05 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def size_text(size_bytes: float) -> str:
    """Returns `1.9 MB`; a kB is 1,000 bytes."""
    for unit in ("B", "kB", "MB", "GB"):
        if size_bytes < 1000 or unit == "GB":
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1000
    raise AssertionError


def ms_text(latency_ms: float | None) -> str:
    """Returns a latency with one decimal below 10 ms and none above; `–` if it is not known."""
    if latency_ms is None:
        return "–"
    return f"{latency_ms:,.1f}" if latency_ms < 10 else f"{latency_ms:,.0f}"


def heading(
    job_name: str,
    scheduled_at: datetime,
    timezone: str,
    parameters: Iterable[tuple[str, str]],
    as_data: Callable[[str], str] = str,
) -> str:
    """Returns `Export CDG Tracce to Kafka · scheduled 17 Jan 2026 02:00 Europe/Rome · DATA = 2026-01-16`.

    Args:
        job_name: Its name.
        scheduled_at: Aware.
        timezone: Of the job.
        parameters: Names and values.
        as_data: Marks the names and values of the user.
    """
    parts = [as_data(job_name), f"scheduled {local_time(scheduled_at, timezone)} {timezone}"]
    return " · ".join([*parts, *(f"{as_data(f'{name} = {short_value(value)}')}" for name, value in parameters)])


def short_value(value: str) -> str:
    """Returns a parameter's value, cut after 200 characters."""
    return value if len(value) <= SHOWN_CHARACTERS else f"{value[:SHOWN_CHARACTERS]}… ({len(value):,} characters)"


def verdict(run: Run) -> str:
    """Returns `12 read = 10 acknowledged + 2 rejected` for a run that succeeded, else how far it came and why it stopped.

    Where not one row is counted, only the reason: of an interrupted run the counts are not known, and of a replay of keys
    rows were read that are not counted.
    """
    done = "written" if run.is_file else "acknowledged"
    if run.state == "succeeded":
        if run.sent == 0 and run.acknowledged:
            return (
                f"{counted(run.acknowledged, 'row')} {'was' if run.acknowledged == 1 else 'were'} sent exactly once by an "
                "earlier attempt; nothing was sent again"
            )
        return f"{run.rows_read:,} read = {run.acknowledged:,} {done} + {run.rejected:,} rejected"
    if run.state in ("running", "planned"):
        return f"since {local_time(run.started_at, run.timezone, seconds=True)}"
    if not (run.rows_read or run.acknowledged or run.rejected):
        return run.error_text or "no row was read"
    counts = f"{run.acknowledged:,} of {run.rows_read:,} rows read are {done}"
    if run.acknowledged == 1:
        counts = f"1 of {run.rows_read:,} rows read is {'written' if run.is_file else 'acknowledged'}"
    if run.rejected:
        counts += f", {run.rejected:,} rejected"
    return f"{counts}: {run.error_text}" if run.error_text else counts
