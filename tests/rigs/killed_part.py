"""Processes of parts, killed by themselves at a named point of `tests.rigs.killed`, each test so many times.

Python imports `sitecustomize` when it starts, so that the product needs no hook.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import Any

import psutil

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
    when, module, name, number = os.environ["RIG_KILL_POINT"].split(":")
    owner: Any = import_module(module)
    *outer, last = name.split(".")
    for inner in outer:
        owner = getattr(owner, inner)
    real: Callable[..., Any] = getattr(owner, last)
    wanted = os.environ["RIG_KILL_PART"]
    calls = 0

    @wraps(real)
    def deadly_one(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        is_counted = not wanted or wanted == _running_part(args)
        calls += is_counted
        is_it = is_counted and calls == int(number)
        if is_it and when == "before":
            _die()
        result = real(*args, **kwargs)
        if is_it and when == "after":
            _die()
        return result

    setattr(owner, last, deadly_one)


def _die() -> None:
    """Ends this process, unless enough of them have died."""
    folder, times = Path(os.environ["RIG_KILL_FOLDER"]), int(os.environ["RIG_KILL_TIMES"])
    for number in range(times or 1_000):
        try:
            (folder / f"{number}.killed").touch(exist_ok=False)
        except FileExistsError:
            continue
        if os.environ.get("RIG_KILL_PARENT"):  # the process of the run too
            psutil.Process(os.getppid()).kill()
        killed._die()


def _running_part(given: tuple[Any, ...]) -> str:
    """Returns the part that this process runs: an argument here, or a variable of a function that runs in any thread."""
    frames = list(sys._current_frames().values())
    found = [getattr(given[0], "index", None) for _ in range(1) if given and hasattr(given[0], "run_id")]
    while frames:
        frame = frames.pop()
        task = frame.f_locals.get("task")
        found.append(getattr(task, "index", None))
        if frame.f_back is not None:
            frames.append(frame.f_back)
    return next((str(index) for index in found if index is not None), "")
