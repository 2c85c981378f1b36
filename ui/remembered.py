"""An answer that many ask for at once is found once: the others get the one before it, or wait for it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from anyio import to_thread
from loguru import logger

from core.errors import PsttError

__all__ = ["Remembered"]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Remembered(Generic[K, V]):
    """Answers by key. A problem is remembered as well, so that a file that is held is waited for once.

    Args:
        find: Finds an answer; slow.
        fresh_s: An answer so young is given without looking.
        stale_s: An older one is still given while somebody else looks.
        most: Keys that are remembered, those asked for last.
        problem_s: How long a problem is; none: as long as an answer.
    """

    def __init__(
        self, find: Callable[[K], V], *, fresh_s: float, stale_s: float, most: int = 64, problem_s: float | None = None
    ) -> None:
        self._find = find
        self._fresh_s = fresh_s
        self._stale_s = stale_s
        self._problem_s = fresh_s if problem_s is None else problem_s
        self._most = most
        self._lock = threading.Lock()
        self._answers: OrderedDict[K, tuple[float, V | PsttError]] = OrderedDict()
        self._looking: dict[K, threading.Lock] = {}

    def forget(self) -> None:
        """Whoever asks next has it looked for."""
        with self._lock:
            self._answers.clear()

    async def soon(self, key: K) -> V:
        """The answer, for many callers in one loop: none of them waits while it is looked for anew.

        Raises:
            PsttError: What `find` raised.
        """
        with self._lock:
            known = self._answers.get(key)
            looking = self._looking.get(key)
        age_s = time.monotonic() - known[0] if known else float("inf")
        if known is None or age_s >= self._stale_s:
            return await to_thread.run_sync(self.get, key)
        if age_s >= self._fresh_s and looking is not None and not looking.locked():
            asyncio.get_running_loop().run_in_executor(None, self._look_again, key)
        return _given(known[1])

    def _look_again(self, key: K) -> None:
        try:
            self.get(key)
        except PsttError:
            return  # who asks next is told
        except Exception as error:  # noqa: BLE001 - a thread that nobody waits for: the log has it
            logger.opt(exception=error).error("the figures could not be found: {}", type(error).__name__)

    def get(self, key: K) -> V:
        """The answer.

        Raises:
            PsttError: What `find` raised.
        """
        with self._lock:
            known = self._answers.get(key)
            looking = self._looking.setdefault(key, threading.Lock())
        age_s = time.monotonic() - known[0] if known else float("inf")
        if known and age_s < self._fresh_s:
            return _given(known[1])
        if not looking.acquire(blocking=known is None or age_s > self._stale_s):
            assert known is not None  # noqa: S101 - else it would have waited
            return _given(known[1])
        try:
            with self._lock:
                again = self._answers.get(key)
            if again and time.monotonic() - again[0] < self._fresh_s:  # found while this one waited
                return _given(again[1])
            return _given(self._found(key))
        finally:
            looking.release()

    def _found(self, key: K) -> V | PsttError:
        answer: V | PsttError
        try:
            answer = self._find(key)
        except PsttError as error:
            answer = error
        found_at = time.monotonic()
        if isinstance(answer, PsttError):
            found_at -= self._fresh_s - self._problem_s
        with self._lock:
            self._answers[key] = (found_at, answer)
            self._answers.move_to_end(key)
            while len(self._answers) > self._most:
                oldest, _ = self._answers.popitem(last=False)
                self._looking.pop(oldest, None)
        return answer


def _given(answer: V | PsttError) -> V:
    if isinstance(answer, PsttError):
        raise answer.with_traceback(None)
    return answer
