"""Remembers that a cluster does not answer: each drawing of a view would wait 5 s for it otherwise."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from core.errors import BrokerUnavailable
from core.kafka.late import NotReadInTime

__all__ = ["Failure", "FailureMemory"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Failure:
    """A cluster that did not answer."""

    error: BrokerUnavailable
    at: datetime
    """Aware UTC."""
    until: float
    """By the monotonic clock: it is not asked before."""


class FailureMemory:
    """Asks clusters, but one that did not answer only after a while, whoever asks.

    Args:
        lasts_s: Seconds for which a failure is remembered.
        now: Aware UTC.
        clock: Monotonic seconds.
    """

    def __init__(
        self, lasts_s: float, now: Callable[[], datetime], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._lasts_s, self._now, self._clock = lasts_s, now, clock
        self._lock = threading.Lock()
        self._failures: dict[Hashable, Failure] = {}

    def ask(self, key: Hashable, question: Callable[[], T]) -> T:
        """Returns the answer to a question.

        Raises:
            BrokerUnavailable: The cluster does not answer, or did not a moment ago and was not asked again.
        """
        if (known := self.of(key)) is not None:
            raise known.error.with_traceback(None)
        try:
            return question()
        except NotReadInTime:  # it answers: a smaller question may be answered in time
            raise
        except BrokerUnavailable as error:
            with self._lock:
                self._failures[key] = Failure(error, self._now(), self._clock() + self._lasts_s)
            raise

    def of(self, key: Hashable) -> Failure | None:
        """Returns the failure that is remembered; None: the cluster is asked."""
        with self._lock:
            known = self._failures.get(key)
            if known is not None and self._clock() >= known.until:
                del self._failures[key]
                return None
            return known

    def forget(self, key: Hashable) -> None:
        """Makes the next question be asked."""
        with self._lock:
            self._failures.pop(key, None)

    def clear(self) -> None:
        """Forgets every failure."""
        with self._lock:
            self._failures.clear()
