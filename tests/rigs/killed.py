"""The program, killed by itself at a named point: `python -m tests.rigs.killed POINT WORDS…` runs `python -m core WORDS…`.

A point is `when:module:name:number`, such as `before:core.records.segments:SegmentFile.complete:2`: as soon as that function is called (or
has returned) for the second time, the process ends, as after a power cut. The functions are patched here, so that
the product needs no hook.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from importlib import import_module
from typing import Any

import psutil

SEGMENT_SENDS = 100
"""So that a few hundred rows make several segments."""


def _die() -> None:
    psutil.Process().kill()


def arm(point: str) -> None:
    """Patches the function of a point."""
    when, module, name, number = point.split(":")
    owner: Any = import_module(module)
    *outer, last = name.split(".")
    for part in outer:
        owner = getattr(owner, part)
    real: Callable[..., Any] = getattr(owner, last)
    calls = 0

    @wraps(real)
    def deadly(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        is_it = calls == int(number)
        if is_it and when == "before":
            _die()
        result = real(*args, **kwargs)
        if is_it and when == "after":
            _die()
        return result

    setattr(owner, last, deadly)


if __name__ == "__main__":
    point, sys.argv[1:] = sys.argv[1], sys.argv[2:]
    import core.records.spool
    from core.__main__ import main

    core.records.spool.SEGMENT_SENDS = SEGMENT_SENDS
    arm(point)
    main()
