"""Runs asyncio code of a test, whatever else runs in its process."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


def run_in_loop(steps: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine to its end in a new event loop, in a thread: browser tests leave a loop in the main one."""
    with ThreadPoolExecutor(1) as apart:
        return apart.submit(asyncio.run, steps).result()
