"""One connection to a database and the thread that makes the calls of its driver.

Most drivers wait for its server in C code, which no signal and no flag of this program interrupts, and a server whose
packets are lost never responds. So the caller does not make the call itself: it waits for the thread that does, with
limits of its own, and abandons the thread if the driver does not return. A driver that checks limits itself while it waits
may be called without the thread (`watch`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from math import inf
from queue import SimpleQueue
from time import monotonic
from typing import Any, TypeVar

__all__ = ["CHECK_EVERY_S", "NoAnswer", "Session", "is_left_behind"]

T = TypeVar("T")

CHECK_EVERY_S = 0.1
"""The interval in which a wait checks its limits. A response ends the wait at once."""
STOP_AGAIN_S = 1.0
"""A server ignores a cancel that arrives just before its statement, so it is sent again."""
CUT_WAIT_S = 1.0
"""How long a call may take to return after its connection was cut."""
CLOSE_WAIT_S = 5.0
"""How long closing may take; some drivers wait for the server's response to it."""

_left_behind: list[threading.Thread] = []


def is_left_behind() -> bool:
    """Returns True if a call of a driver has not returned. Such a process has to end by `os._exit`.

    At a normal exit Python would free the connection that the call still uses, and drivers wait there without a limit.
    """
    return any(thread.is_alive() for thread in _left_behind)


class NoAnswer(Exception):
    """A call was abandoned: it returned neither in time nor after its connection was cut."""


class Session:
    """Runs the calls of one connection one after the other, in a thread of their own.

    Args:
        name: For the thread's name.
        stop: Cancels what runs on the connection, in the server too; called in another thread.
        cut: Breaks the connection, so that a call that waits on it returns, if the driver supports that.
        close: Closes the connection; called in the thread of the calls, after the last of them has returned.
    """

    def __init__(
        self, name: str, *, stop: Callable[[], None], cut: Callable[[], None], close: Callable[[], None]
    ) -> None:
        self.is_cut = False
        """The connection was cut on purpose, so the driver's errors about it are expected."""
        self.is_given_up = False
        """A call did not return, so the connection is not usable any more."""
        self._heard_at = monotonic()
        self._stop = stop
        self._cut = cut
        self._close = close
        self._stopped_at = -inf
        """When what runs was last cancelled because it had to end."""
        self._stopping: threading.Thread | None = None
        self._is_ending = False
        self._stop_lock = threading.Lock()
        """Held while a cancelling thread is started, so that closing waits for it and none is started afterwards."""
        self._newest: Future[Any] | None = None
        self._calls: SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=f"pstt-{name}", daemon=True)
        self._thread.start()

    def begin(self, call: Callable[[], T]) -> Future[T]:
        """Starts a call after those before it have returned."""
        pending: Future[T] = Future()
        self._newest = pending
        self._calls.put((call, pending))
        return pending

    def note_response(self) -> None:
        """Records that the server has responded, which restarts `silence_s`. For calls that take several responses."""
        self._heard_at = monotonic()

    def answer(
        self, pending: Future[T], *, silence_s: float | None, stop_by: Callable[[], float | None] = lambda: None
    ) -> T:
        """Waits for a call.

        Args:
            pending: The call.
            silence_s: How long the server may not respond, in seconds; None: without a limit.
            stop_by: When (monotonic) the call has to have ended, asked at each check; None: no limit.

        Raises:
            NoAnswer: The call was abandoned.
        """
        self._stopped_at = monotonic()
        while not _is_done(pending, CHECK_EVERY_S):
            if self._is_overdue(silence_s, stop_by) and not self._comes_back(pending):
                raise NoAnswer
        return pending.result()

    def watch(
        self, *, silence_s: float | None, stop_by: Callable[[], float | None] = lambda: None
    ) -> Callable[[], None]:
        """Returns what checks the limits of a call that begins now and is made by the caller itself.

        The driver has to call it at least every CHECK_EVERY_S while it waits. After a limit, as of `answer`, it cuts the connection.
        """
        self._stopped_at = self._heard_at = monotonic()

        def check() -> None:
            if self._is_overdue(silence_s, stop_by):
                self.is_cut = True
                self._cut()

        return check

    def _is_overdue(self, silence_s: float | None, stop_by: Callable[[], float | None]) -> bool:
        """Returns whether a call takes longer than its limits; one that has to end is cancelled again."""
        now, until = monotonic(), stop_by()
        if until is not None and now >= self._stopped_at + STOP_AGAIN_S:
            self._stopped_at = now
            self.stop()
        is_silent = silence_s is not None and now - self._heard_at > silence_s
        return is_silent or (until is not None and now > until)

    def stop(self) -> None:
        """Cancels what runs in the server, without waiting: cancelling may block as well.

        Does nothing once the connection is being closed.
        """
        with self._stop_lock:
            if self._is_ending or (self._stopping is not None and self._stopping.is_alive()):
                return
            stopping = threading.Thread(target=self._stop, name="pstt-stop", daemon=True)
            stopping.start()
            self._stopping = stopping

    def close(self) -> None:
        """Closes the connection, or abandons it to its thread if it does not return in time.

        A call that still waits for the server is cancelled there.
        """
        if self._newest is not None and not self._newest.done():
            self.stop()
        closed = self.begin(self._end)
        self._calls.put(None)
        is_closed = not self.is_given_up and (
            _is_done(closed, CUT_WAIT_S if self.is_cut else CLOSE_WAIT_S) or self._comes_back(closed)
        )
        if not is_closed:
            self.is_given_up = True
            _left_behind[:] = [*filter(threading.Thread.is_alive, _left_behind), self._thread]

    def _comes_back(self, pending: Future[Any]) -> bool:
        """Returns True if a call returns after its connection was cut."""
        self.is_cut = True
        self._cut()
        self.is_given_up = not _is_done(pending, CUT_WAIT_S)
        return not self.is_given_up

    def _end(self) -> None:
        with self._stop_lock:
            self._is_ending = True
        if self._stopping is not None:
            self._stopping.join()  # the cancelling thread uses the connection
        self._close()

    def _work(self) -> None:
        while (begun := self._calls.get()) is not None:
            call, pending = begun
            self._heard_at = monotonic()
            try:
                pending.set_result(call())
            except BaseException as error:  # noqa: BLE001 - raised again by the caller
                pending.set_exception(error)
            del call, pending, begun


def _is_done(pending: Future[Any], timeout_s: float) -> bool:
    try:
        pending.exception(timeout_s)
    except TimeoutError:
        return pending.done()
    return True
