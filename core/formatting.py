"""Times, sizes and verdicts as people read them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from core.model.run import Run

if TYPE_CHECKING:
    pass


from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass

__all__ = ["short_value"]


def local_time(moment: datetime, timezone: str, *, seconds: bool = False) -> str:
    """`17 Jan 2026 02:00` in that zone."""
    return (
        moment.astimezone(ZoneInfo(timezone)).strftime("%d %b %Y %H:%M:%S" if seconds else "%d %b %Y %H:%M").lstrip("0")
    )


def size_text(size_bytes: float) -> str:
    """`1.9 MB`, by thousands."""
    for unit in ("B", "kB", "MB", "GB"):
        if size_bytes < 1000 or unit == "GB":
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1000
    raise AssertionError


def ms_text(latency_ms: float | None) -> str:
    """A latency without needless digits."""
    if latency_ms is None:
        return "–"
    return f"{latency_ms:,.1f}" if latency_ms < 10 else f"{latency_ms:,.0f}"


def heading(job_name: str, scheduled_at: datetime, timezone: str, parameters: Iterable[tuple[str, str]]) -> str:
    """`Export CDG Tracce to Kafka · scheduled 17 Jan 2026 02:00 Europe/Rome · DATA = 2026-01-16`."""
    parts = [job_name, f"scheduled {local_time(scheduled_at, timezone)} {timezone}"]
    return " · ".join([*parts, *(f"{name} = {short_value(value)}" for name, value in parameters)])


def short_value(value: str) -> str:
    """A parameter's value for a line of text: a list may have thousands of values."""
    return value if len(value) <= SHOWN_CHARACTERS else f"{value[:SHOWN_CHARACTERS]}… ({len(value):,} characters)"


def verdict(run: Run) -> str:
    """The run as an equation, or how far it came."""
    done = "written" if run.is_file else "acknowledged"
    if run.state == "succeeded":
        if run.sent == 0 and run.acknowledged:
            return f"{run.acknowledged:,} rows were sent exactly once by an earlier attempt; nothing was sent again"
        return f"{run.rows_read:,} read = {run.acknowledged:,} {done} + {run.rejected:,} rejected"
    if run.state in ("running", "planned"):
        return f"since {local_time(run.started_at, run.timezone, seconds=True)}"
    counts = f"{run.acknowledged:,} of {run.rows_read:,} rows read are {done}"
    if run.rejected:
        counts += f", {run.rejected:,} rejected"
    return f"{counts}: {run.error_text}" if run.error_text else counts


SHOWN_CHARACTERS = 200
"""Of a parameter's value."""
