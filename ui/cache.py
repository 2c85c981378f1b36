"""A cache for slow answers that many sessions ask for at the same time: each answer is computed once."""

from __future__ import annotations

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
    """Answers by key; a stale one is served while a thread computes the next.

    Errors are cached as well, so that callers wait only once for a file that is locked.

    Args:
        compute: Computes an answer; slow.
        fresh_s: Age in seconds up to which an answer is returned without checking.
        stale_s: Age in seconds up to which it is still returned while another caller computes a new one.
        max_keys: The keys used last that are kept.
        error_s: Lifetime of an error in seconds; None: as of an answer.
        refresh_after_s: How long the thread waits in which a stale answer is computed again. Whoever was given the stale
            one has the processor until then.
    """

    def __init__(
        self,
        compute: Callable[[K], V],
        *,
        fresh_s: float,
        stale_s: float,
        max_keys: int = 64,
        error_s: float | None = None,
        refresh_after_s: float = 0.0,
    ) -> None:
        self._compute = compute
        self._fresh_s = fresh_s
        self._stale_s = stale_s
        self._error_s = fresh_s if error_s is None else error_s
        self._max_keys = max_keys
        self._lock = threading.Lock()
        self._answers: OrderedDict[K, tuple[float, V | PsttError]] = OrderedDict()
        self._computing: dict[K, threading.Lock] = {}
        self._refresh_after_s = refresh_after_s
        self._refreshing: set[K] = set()
        self._one_refresh = threading.Lock()

    def clear(self) -> None:
        """Forgets all answers."""
        with self._lock:
            self._answers.clear()
            self._computing = {key: lock for key, lock in self._computing.items() if lock.locked()}

    async def get_async(self, key: K) -> V:
        """As `get`, without blocking the event loop.

        Raises:
            PsttError: What `compute` raised.
        """
        known = self._known(key)
        if known is None or not self._may_serve(known):
            return await to_thread.run_sync(self.get, key)
        self._refresh_if_stale(key, known)
        return _value_of(known[1])

    def get(self, key: K) -> V:
        """Returns the answer, computing it where it is missing or too old.

        Raises:
            PsttError: What `compute` raised.
        """
        known = self._known(key)
        if known is None or not self._may_serve(known):
            known = self._computed(key)
        else:
            self._refresh_if_stale(key, known)
        return _value_of(known[1])

    def _may_serve(self, known: tuple[float, V | PsttError]) -> bool:
        """An old answer helps until there is a new one, an old error does not."""
        return _age_s(known) < (self._fresh_s if isinstance(known[1], PsttError) else self._stale_s)

    def _refresh_if_stale(self, key: K, known: tuple[float, V | PsttError]) -> None:
        """Computes in a thread, unless one does already."""
        if _age_s(known) < self._fresh_s:
            return
        with self._lock:
            is_known = key in self._refreshing
            self._refreshing.add(key)
        if not is_known:
            threading.Thread(target=self._refresh, args=(key,), name="refresh", daemon=True).start()

    def _refresh(self, key: K) -> None:
        try:
            time.sleep(self._refresh_after_s)
            with self._one_refresh:
                self._computed(key)
        except Exception as error:  # noqa: BLE001 - a thread whose result is not awaited: the log has it
            logger.opt(exception=error).error("the figures could not be found: {}", type(error).__name__)
        finally:
            with self._lock:
                self._refreshing.discard(key)

    def _computed(self, key: K) -> tuple[float, V | PsttError]:
        """Returns a fresh answer: waits for who computes it already, else computes it."""
        with self._lock:
            computing = self._computing.setdefault(key, threading.Lock())
        with computing:
            try:
                newer = self._known(key)
                if newer and _age_s(newer) < self._fresh_s:  # computed while this caller waited
                    return newer
                return self._compute_and_store(key)
            finally:
                with self._lock:
                    if key not in self._answers:  # `compute` failed with an unexpected error
                        self._computing.pop(key, None)

    def _known(self, key: K) -> tuple[float, V | PsttError] | None:
        with self._lock:
            known = self._answers.get(key)
            if known:
                self._answers.move_to_end(key)
        return known

    def _compute_and_store(self, key: K) -> tuple[float, V | PsttError]:
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
        return computed_at, answer


def _age_s(known: tuple[float, object]) -> float:
    return time.monotonic() - known[0]


def _value_of(answer: V | PsttError) -> V:
    if isinstance(answer, PsttError):
        raise answer.with_traceback(None)
    return answer
