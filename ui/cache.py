"""A cache for slow answers that many sessions ask for at the same time: each answer is computed once."""

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

__all__ = ["SharedCache"]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class SharedCache(Generic[K, V]):
    """Answers by key; a stale one is served while one caller computes the next.

    Errors are cached as well, so that callers wait only once for a file that is locked.

    Args:
        compute: Computes an answer; slow.
        fresh_s: Age in seconds up to which an answer is returned without checking.
        stale_s: Age in seconds up to which it is still returned while another caller computes a new one.
        max_keys: The keys used last that are kept.
        error_s: Lifetime of an error in seconds; None: as of an answer.
    """

    def __init__(
        self,
        compute: Callable[[K], V],
        *,
        fresh_s: float,
        stale_s: float,
        max_keys: int = 64,
        error_s: float | None = None,
    ) -> None:
        self._compute = compute
        self._fresh_s = fresh_s
        self._stale_s = stale_s
        self._error_s = fresh_s if error_s is None else error_s
        self._max_keys = max_keys
        self._lock = threading.Lock()
        self._answers: OrderedDict[K, tuple[float, V | PsttError]] = OrderedDict()
        self._computing: dict[K, threading.Lock] = {}

    def clear(self) -> None:
        """Forgets all answers."""
        with self._lock:
            self._answers.clear()
            self._computing = {key: lock for key, lock in self._computing.items() if lock.locked()}

    async def get_async(self, key: K) -> V:
        """As `get`, without blocking the event loop: where a stale answer may be returned, it is recomputed in a thread.

        Raises:
            PsttError: What `compute` raised.
        """
        known = self._known(key)
        with self._lock:
            computing = self._computing.get(key)
        age_s = time.monotonic() - known[0] if known else float("inf")
        if known is None or age_s >= self._stale_s:
            return await to_thread.run_sync(self.get, key)
        if age_s >= self._fresh_s and computing is not None and not computing.locked():
            asyncio.get_running_loop().run_in_executor(None, self._refresh, key)
        return _value_of(known[1])

    def _refresh(self, key: K) -> None:
        try:
            self.get(key)
        except PsttError:
            return  # it is cached: the next caller gets it
        except Exception as error:  # noqa: BLE001 - a thread whose result is not awaited: the log has it
            logger.opt(exception=error).error("the figures could not be found: {}", type(error).__name__)

    def get(self, key: K) -> V:
        """Returns the answer, computing it where it is missing or too old.

        Raises:
            PsttError: What `compute` raised.
        """
        known = self._known(key)
        with self._lock:
            computing = self._computing.setdefault(key, threading.Lock())
        age_s = time.monotonic() - known[0] if known else float("inf")
        if known and age_s < self._fresh_s:
            return _value_of(known[1])
        if not computing.acquire(blocking=known is None or age_s > self._stale_s):
            assert known is not None  # noqa: S101 - else it would have waited
            return _value_of(known[1])
        try:
            with self._lock:
                newer = self._answers.get(key)
            if newer and time.monotonic() - newer[0] < self._fresh_s:  # computed while this caller waited
                return _value_of(newer[1])
            return _value_of(self._compute_and_store(key))
        finally:
            computing.release()
            with self._lock:
                if key not in self._answers:  # `compute` failed with an unexpected error
                    self._computing.pop(key, None)

    def _known(self, key: K) -> tuple[float, V | PsttError] | None:
        with self._lock:
            known = self._answers.get(key)
            if known:
                self._answers.move_to_end(key)
        return known

    def _compute_and_store(self, key: K) -> V | PsttError:
        answer: V | PsttError
        try:
            answer = self._compute(key)
        except PsttError as error:
            answer = error
        computed_at = time.monotonic()
        if isinstance(answer, PsttError):
            computed_at -= self._fresh_s - self._error_s
        with self._lock:
            self._answers[key] = (computed_at, answer)
            self._answers.move_to_end(key)
            while len(self._answers) > self._max_keys:
                oldest, _ = self._answers.popitem(last=False)
                self._computing.pop(oldest, None)
        return answer


def _value_of(answer: V | PsttError) -> V:
    if isinstance(answer, PsttError):
        raise answer.with_traceback(None)
    return answer
