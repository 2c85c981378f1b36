"""What goes on beside the runs in a thread of its own, again and again; a failure is told once and never ends it."""

from __future__ import annotations

import threading
from collections.abc import Callable

__all__ = ["PeriodicTask"]

LONGEST_END_S = 5.0


class PeriodicTask:
    """Calls something each so many seconds.

    Args:
        name: For the log: `broker health`.
        every_s: Seconds from the end of one call to the beginning of the next.
        work: What is done; it makes in this thread whatever it holds open.
        close: Lets go of that, in this thread, in the end.
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
        self._said = ""

    def start(self) -> None:
        """Begins; the first call is at once."""
        self._thread = threading.Thread(target=self._repeat, name=f"pstt-{self._name}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends; a call under way gets 5 s."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join(LONGEST_END_S)

    def _repeat(self) -> None:
        while not self._ended.is_set():
            self._once()
            self._ended.wait(self._every_s)
        self._close()

    def _once(self) -> None:
        from loguru import logger

        try:
            self._work()
            self._said = ""
        except Exception as error:  # noqa: BLE001 - a chore that fails must not end the runner, nor itself
            text = f"{self._name}: {type(error).__name__}: {error}"
            if text != self._said:
                self._said = text
                logger.error("{}", text)
