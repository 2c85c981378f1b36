"""How far a new workspace is set up."""

from __future__ import annotations

from dataclasses import dataclass

from ui import data

__all__ = ["FirstSteps", "first_steps_done"]


@dataclass(frozen=True)
class FirstSteps:
    """Which of the first steps are done."""

    connection: bool
    query: bool


def first_steps_done() -> FirstSteps:
    """Which of the first steps are done."""
    paths = data.workspace()
    return FirstSteps(paths.connections_file.exists(), any(paths.queries_dir.glob("*.sql")))
