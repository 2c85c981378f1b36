"""Repeats a task in a thread of its own. A failure is logged once and never ends the task."""

from __future__ import annotations

import threading
from collections.abc import Callable

from loguru import logger

__all__ = ["PeriodicTask"]

LONGEST_END_S = 5.0


class PeriodicTask:
    """Calls a function again and again.

    Args:
        name: For the log: `broker health`.
        every_s: Seconds from the end of one call to the beginning of the next.
        work: The function; it opens what it needs in this thread.
        close: Closes that, in this thread, at the end.
    """

    def __init__(
        self, name: str, every_s: float, work: Callable[[], object], close: Callable[[], object] = lambda: None
    ) -> None:
        self._name = name
        self._every_s = every_s
        self._work = work
        self._close = close
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._logged = ""

    def start(self) -> None:
        """Starts the thread; the first call is at once."""
        self._thread = threading.Thread(target=self._repeat, name=f"pstt-{self._name}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread; a call in progress gets 5 s."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join(LONGEST_END_S)

    def _repeat(self) -> None:
        while not self._ended.is_set():
            self._once()
            self._ended.wait(self._every_s)
        self._close()

    def _once(self) -> None:
        try:
            self._work()
            self._logged = ""
        except Exception as error:  # noqa: BLE001 - a task that fails must end neither the runner nor itself
            text = f"{self._name}: {type(error).__name__}: {error}"
            if text != self._logged:
                self._logged = text
                logger.error("{}", text)
