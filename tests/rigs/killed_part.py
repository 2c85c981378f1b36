"""Processes of parts, killed by themselves at a named point of `tests.rigs.killed`, each test so many times.

Python imports `sitecustomize` when it starts, so that the product needs no hook.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tests.rigs import killed

__all__ = ["arm_part", "deadly"]


def deadly(folder: Path, point: str, *, times: int = 1, part: int | None = None) -> dict[str, str]:
    """Returns the variables with which a part dies at this point, in its process.

    Args:
        folder: A new folder of the test.
        point: As in `tests.rigs.killed`.
        times: How many processes die; 0: every one.
        part: Only one that runs this part, from 0.
    """
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        "from tests.rigs.killed_part import arm_part\narm_part()\n", encoding="utf-8"
    )
    root = Path(__file__).parents[2]
    return {
        "PYTHONPATH": f"{folder}{os.pathsep}{root}",
        "RIG_KILL_POINT": point,
        "RIG_KILL_FOLDER": str(folder),
        "RIG_KILL_TIMES": str(times),
        "RIG_KILL_PART": "" if part is None else str(part),
    }


def arm_part() -> None:
    """Arms the point of the environment if this is the process of a part."""
    if "part" not in sys.orig_argv or "core" not in sys.orig_argv:
        return
    import core.records.spool

    core.records.spool.SEGMENT_SENDS = killed.SEGMENT_SENDS
    folder, times = Path(os.environ["RIG_KILL_FOLDER"]), int(os.environ["RIG_KILL_TIMES"])
    real = killed._die

    def die() -> None:
        wanted = os.environ["RIG_KILL_PART"]
        if wanted and wanted != _running_part():
            return
        for number in range(times or 1_000):
            try:
                (folder / f"{number}.killed").touch(exist_ok=False)
            except FileExistsError:
                continue
            real()

    killed._die = die
    killed.arm(os.environ["RIG_KILL_POINT"])


def _running_part() -> str:
    """Returns the part that this process runs, which the log names."""
    frame = sys._getframe()
    while frame is not None:
        task = frame.f_locals.get("task")
        if task is None and "self" in frame.f_locals:
            task = getattr(frame.f_locals["self"], "task", None)
        if task is not None and hasattr(task, "index"):
            return str(task.index)
        frame = frame.f_back  # type: ignore[assignment]
    return ""
