"""Times as text for programs."""

from __future__ import annotations

from datetime import UTC, datetime

__all__ = ["iso_utc"]


def iso_utc(moment: datetime, precision: str = "microseconds") -> str:
    """Returns `2026-01-17T10:30:45.123456Z`; `precision` is a timespec of `datetime.isoformat`."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec=precision) + "Z"
