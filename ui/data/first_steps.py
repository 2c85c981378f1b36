"""How far a new workspace is set up, and the demo that fills it."""

from __future__ import annotations

from dataclasses import dataclass

from core.admin.demo import SLUG, make_demo
from ui import data

__all__ = ["FirstSteps", "fill_with_demo", "first_steps_done"]

DEMO_ROWS = 20_000


@dataclass(frozen=True)
class FirstSteps:
    """Which of the first steps are done."""

    connection: bool
    query: bool


def first_steps_done() -> FirstSteps:
    """Which of the first steps are done."""
    paths = data.workspace()
    return FirstSteps(paths.connections_file.exists(), any(paths.queries_dir.glob("*.sql")))


def fill_with_demo() -> str:
    """Makes the demo in this workspace, which has to be empty. Returns the slug of its job.

    Raises:
        ConfigError: There is something else in the folder.
        StorageFailed: It cannot be written.
    """
    make_demo(data.root(), DEMO_ROWS, now=data.now())
    data.clear_caches()
    return SLUG
