"""A cursor of ODBC is not used by a cancel once it is closed: the driver would read freed memory."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from core.sources.pyodbc_source import CancellableCursor


class Driver:
    """A cursor as pyodbc has it: `cancel` checks that it is open, lets other threads go on, and then uses it."""

    def __init__(self) -> None:
        self.is_open = True
        self.checked = threading.Event()
        self.go_on = threading.Event()
        self.used_after_close = False

    def cancel(self) -> None:
        assert self.is_open
        self.checked.set()
        self.go_on.wait(20)
        self.used_after_close |= not self.is_open

    def close(self) -> None:
        self.is_open = False


def test_closing_waits_for_a_cancel_that_goes_on() -> None:
    driver = Driver()
    cursor = CancellableCursor(driver)
    with ThreadPoolExecutor(2) as threads:
        cancelling = threads.submit(cursor.cancel)
        assert driver.checked.wait(20)
        closing = threads.submit(cursor.close)
        driver.go_on.set()
        cancelling.result()
        closing.result()
    assert (driver.is_open, driver.used_after_close) == (False, False)


def test_a_cancel_after_closing_does_nothing() -> None:
    driver = Driver()
    cursor = CancellableCursor(driver)
    cursor.close()
    cursor.cancel()
    assert not driver.checked.is_set()
