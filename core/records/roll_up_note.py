"""What the last roll-up did: `.pstt/roll-up.json`, for `doctor` and the administration page. It needs no duckdb."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from core.workspace.atomic import write_atomically

if TYPE_CHECKING:
    from core.workspace.paths import Workspace

__all__ = ["LastRollUp", "last_note", "last_roll_up", "read_note", "write_note"]


@dataclass(frozen=True, slots=True)
class LastRollUp:
    """The last pass that rolled up anything."""

    at: datetime
    runs: int
    sends: int
    """Single sends that were replaced by counts of days."""
    before_bytes: int
    """Size of metrics.duckdb before and after."""
    after_bytes: int


def last_roll_up(workspace: Workspace) -> LastRollUp | None:
    """Returns what the last pass did that rolled up anything; None: there was none, or its note cannot be read."""
    done = read_note(workspace).get("done")
    try:
        return LastRollUp(**{**done, "at": datetime.fromisoformat(done["at"])}) if isinstance(done, dict) else None
    except (KeyError, TypeError, ValueError):
        return None


def last_note(workspace: Workspace) -> str:
    """Returns what the last daily pass could not do; empty where it did everything."""
    return str(read_note(workspace).get("note", ""))


def read_note(workspace: Workspace) -> dict[str, Any]:
    """Returns the content of the file; empty if there is none, or it cannot be read."""
    try:
        found = json.loads((workspace.state_dir / "roll-up.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def write_note(workspace: Workspace, note: dict[str, Any]) -> None:
    """Replaces the content of the file.

    Raises:
        StorageFailed: It cannot be written.
    """
    write_atomically(workspace.state_dir / "roll-up.json", json.dumps(note))
