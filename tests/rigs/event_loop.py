"""Runs asyncio code of a test, whatever else runs in its process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


def run_apart(action: Callable[[], T]) -> T:
    """Runs an action in a new thread: browser tests leave a running event loop in the main one."""
    with ThreadPoolExecutor(1) as apart:
        return apart.submit(action).result()


def run_in_loop(steps: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine to its end in a new event loop, in a new thread."""
    return run_apart(lambda: asyncio.run(steps))
