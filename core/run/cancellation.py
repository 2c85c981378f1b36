"""A request to stop: by Ctrl-C, SIGTERM, Ctrl-Break on Windows, a time-out, or through the ledger."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from core.errors import PsttError

__all__ = ["Stop", "stop_on_signals"]


class Stop:
    """A flag that is set once, with the actions to take when it is.

    A statement that waits in the database does not check flags, so `on_stop` registers what cancels it.
    """

    def __init__(self) -> None:
        self._event = threading.Event()
        self._actions: list[Callable[[], None]] = []
        self._set_at: float | None = None
        self.error: PsttError | None = None
        """The error of a run that is stopped by this; None: it was cancelled."""

    def is_set(self) -> bool:
        """Returns whether a stop was requested."""
        return self._event.is_set()

    def wait(self, timeout_s: float) -> bool:
        """Waits until the flag is set, at most so many seconds; returns whether it is set."""
        return self._event.wait(timeout_s)

    def left_s(self, timeout_s: float) -> float:
        """Returns the seconds that are left of `timeout_s` since the flag was set; all of them if it is not set."""
        return timeout_s if self._set_at is None else max(self._set_at + timeout_s - time.monotonic(), 0)

    def on_stop(self, action: Callable[[], None]) -> None:
        """Calls `action` in a thread of its own when the flag is set; at once if it is set already."""
        self._actions.append(action)
        if self.is_set():
            self._start(action)

    def set(self, error: PsttError | None = None) -> None:
        """Requests a stop with this error as its reason; a second request changes nothing."""
        if not self._event.is_set():
            self.error = error
            self._set_at = time.monotonic()
            self._event.set()
            for action in self._actions:
                self._start(action)

    @staticmethod
    def _start(action: Callable[[], None]) -> None:
        # In a thread: a signal handler may interrupt the very call that holds the driver's lock.
        threading.Thread(target=action, daemon=True).start()


@contextmanager
def stop_on_signals(error: PsttError | None = None) -> Iterator[Stop]:
    """Yields a flag that the first signal sets, with this error; a second signal raises KeyboardInterrupt."""
    stop = Stop()

    def handle(_number: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set(error)

    names = [name for name in ("SIGINT", "SIGTERM", "SIGBREAK") if hasattr(signal, name)]
    before = {name: signal.signal(getattr(signal, name), handle) for name in names}
    try:
        yield stop
    finally:
        for name, handler in before.items():
            signal.signal(getattr(signal, name), handler)
