"""The thread of a connection: whatever happens at the same moment, the connection is closed."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from core.sources.session import Session
from tests.rigs.waiting import until


class Closable:
    """Counts how often it was closed, and how many cancelling threads still used it then or began afterwards."""

    def __init__(self) -> None:
        self.closed = 0
        self.used_while_closed = 0
        self._using = 0

    def stop(self) -> None:
        self._using += 1
        self.used_while_closed += self.closed
        self._using -= 1

    def close(self) -> None:
        self.used_while_closed += self._using
        self.closed += 1


@pytest.fixture
def quick_switches() -> Iterator[None]:
    """Threads of this process take turns as often as those of a loaded machine."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("quick_switches")
def test_connection_that_is_cancelled_while_it_is_closed_is_closed_once_and_not_used_afterwards() -> None:
    with ThreadPoolExecutor(2) as cancelling:
        for _ in range(200):
            connection = Closable()
            session = Session("raced", stop=connection.stop, cut=lambda: None, close=connection.close)
            together = threading.Barrier(3)

            def cancel(session: Session = session, together: threading.Barrier = together) -> None:
                together.wait()
                session.stop()

            cancels = [cancelling.submit(cancel) for _ in range(2)]
            together.wait()
            session.close()
            for cancelled in cancels:
                cancelled.result()
            until(lambda: connection.closed, "the connection is closed", timeout_s=20)  # noqa: B023 - called at once
            assert (connection.closed, connection.used_while_closed) == (1, 0)
            assert not session.is_given_up
