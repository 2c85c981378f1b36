"""The wish to stop: Ctrl-C, SIGTERM, Ctrl-Break on Windows, a time-out, or somebody who asked through the ledger."""

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
    """A flag that is set once, and what has to be told when it is.

    A statement that waits in the database does not look at flags, so `on_stop` names what cancels it.
    """

    def __init__(self) -> None:
        self._event = threading.Event()
        self._actions: list[Callable[[], None]] = []
        self._set_at: float | None = None
        self.error: PsttError | None = None
        """What the verdict of a run says that was stopped by this; None: that it was cancelled."""

    def is_set(self) -> bool:
        """Whether somebody asked to stop."""
        return self._event.is_set()

    def wait(self, timeout_s: float) -> bool:
        """Returns when the flag is set, at the latest after so many seconds; whether it is set."""
        return self._event.wait(timeout_s)

    def left_s(self, timeout_s: float) -> float:
        """What is left of so many seconds since the flag was set; all of them where it is not."""
        return timeout_s if self._set_at is None else max(self._set_at + timeout_s - time.monotonic(), 0)

    def on_stop(self, action: Callable[[], None]) -> None:
        """Calls `action` in a thread of its own when the flag is set; at once where it is set already."""
        self._actions.append(action)
        if self.is_set():
            self._start(action)

    def set(self, error: PsttError | None = None) -> None:
        """Asks to stop, for that reason; the second time nothing more happens."""
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
    """Within it a first signal asks to stop, for that reason, and a second one raises KeyboardInterrupt."""
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
