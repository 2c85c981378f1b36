"""Waits for what another process or thread does."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from typing import TypeVar

__all__ = ["until"]

Found = TypeVar("Found")


def until(
    condition: Callable[[], Found],
    what: str | Callable[[], str] = "",
    *,
    timeout_s: float = 120,
    every_s: float = 0.05,
) -> Found:
    """Calls a condition again and again and returns its first true answer.

    Args:
        condition: What is waited for. It may raise to end the waiting at once, as where a process has exited.
        what: What did not happen, for the error; a function is called only then. Empty: the source of the condition.
        timeout_s: Long, for a machine that is busy: a test that passes does not wait for it.
        every_s: Pause between two calls; 0 where the moment must not be missed, as before a kill.

    Raises:
        AssertionError: It was not true within that time.
    """
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        if time.monotonic() > deadline:
            text = what() if callable(what) else what
            raise AssertionError(f"not within {timeout_s:g} s: {text or _source(condition)}")
        time.sleep(every_s)
    return found


def _source(condition: Callable[[], object]) -> str:
    try:
        return " ".join(inspect.getsource(condition).split())
    except (OSError, TypeError):  # made in C, or typed into a shell
        return repr(condition)
