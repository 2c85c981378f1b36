"""Refuses what needs the single sends of a run that are rolled up (`core.records.retention`)."""

from __future__ import annotations

from collections.abc import Sequence

from core.errors import ConfigError
from core.records.opened import OpenWorkspace

__all__ = ["require_known"]


def require_known(opened: OpenWorkspace, run_ids: Sequence[str], what: str, remedy: str = "") -> None:
    """Refuses runs whose single sends are only counted by day now.

    Args:
        opened: The workspace.
        run_ids: The runs whose sends are needed.
        what: What cannot be done, for the error.
        remedy: What can be done instead.

    Raises:
        ConfigError: It says from when on single sends are known.
    """
    gone = opened.metrics.rolled_up.runs(run_ids)
    if gone:
        of = "its sends are" if len(gone) == len(run_ids) == 1 else f"the sends of {', '.join(sorted(gone))} are"
        raise ConfigError(
            what,
            why=f"{of} only counted by day now; {opened.metrics.rolled_up.known_since().text}",
            remedy=remedy or "PSTT_KEEP_SENDS_DAYS, or the job's keep_sends_days, says how long single sends are kept",
        )
