"""Keeps the publisher of a part open for the next part in the same process: a client costs connections and a thread."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from core.kafka import open_publisher
from core.model.connection import Cluster
from core.model.publisher import Publisher

__all__ = ["KeptPublishers", "Loan"]


@dataclass(slots=True)
class Loan:
    """A publisher that one part uses."""

    publisher: Publisher
    is_reusable: bool = False
    """Set by the part when it has ended without an error; else the publisher is closed."""


class KeptPublishers:
    """The idle publishers of a process. Several threads may borrow; each publisher has one user at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[tuple[Cluster, int, Publisher]] = []
        self._is_closed = False

    @contextmanager
    def borrow(self, cluster: Cluster, *, transactional_id: str | None, max_in_flight: int) -> Iterator[Loan]:
        """Yields a publisher of this cluster, an idle one if there is one; keeps it afterwards if it is reusable.

        One with a transactional id is never kept, since each part has its own.

        Args and Raises: as `core.kafka.open_publisher`.
        """
        idle = None if transactional_id else self._idle_one(cluster, max_in_flight)
        loan = Loan(idle or open_publisher(cluster, transactional_id=transactional_id, max_in_flight=max_in_flight))
        try:
            yield loan
        finally:
            is_kept = loan.is_reusable and not transactional_id and not loan.publisher.in_flight
            with self._lock:
                is_kept = is_kept and not self._is_closed
                if is_kept:
                    self._idle.append((cluster, max_in_flight, loan.publisher))
            if not is_kept:
                loan.publisher.close()

    def _idle_one(self, cluster: Cluster, max_in_flight: int) -> Publisher | None:
        with self._lock:
            for number, (of, most, publisher) in enumerate(self._idle):
                if (of, most) == (cluster, max_in_flight):
                    del self._idle[number]
                    return publisher
        return None

    def close(self) -> None:
        """Closes the idle ones at once, and each other one when its part ends."""
        with self._lock:
            self._is_closed = True
            idle, self._idle = self._idle, []
        for *_, publisher in idle:
            publisher.close()
