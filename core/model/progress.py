"""How far a running run is: its step, its counts, its rate and the time left."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

__all__ = ["RunProgress", "RunStep"]

RunStep = Literal["connecting", "reading", "sending", "writing", "waiting", "verifying", "recording"]
"""`connecting`: source and topic are contacted. `reading`: the query runs; with exactly_once all rows are read first.
`sending`: rows are sent, with at_least_once while the next ones are read. `writing`: rows are written to a file.
`waiting`: all rows are sent, and some are not acknowledged yet. `verifying`: the topic is checked, messages are read back.
`recording`: the verdict is written."""


@dataclass(frozen=True, slots=True)
class RunProgress:
    """How far a run is. Its own process writes it, twice a second at most."""

    run_id: str
    step: RunStep
    at: datetime
    """When it was written; aware UTC."""
    rows_read: int = 0
    acknowledged: int = 0
    """For a run that writes a file: rows written."""
    rejected: int = 0
    rows_expected: int | None = None
    """How many rows it reads: its COUNT(*), or as many as the last complete run; None: not known."""
    is_counted: bool = False
    """Whether `rows_expected` is the COUNT(*) of this run."""
    rate_per_s: float | None = None
    """Rows per second of the last 30 s: rows read while it reads, then rows acknowledged or rejected."""
    remaining_s: float | None = None
    """Seconds until the rows of this step are done at that rate; None: not known."""
