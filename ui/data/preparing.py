"""Finds what a user is likely to ask for next while the user looks at the overview.

Of a year of sends the figures of another period take half a second, the calendar's first drawing as long. What is found
stays in the caches of `ui.data`, so a click waits for the browser only.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from pathlib import Path

from loguru import logger

from core.errors import PsttError
from core.records.metrics_queries import SendFilter
from core.workspace.paths import Workspace
from ui.data.outcomes import CALENDAR_DAYS, outcomes_by_job
from ui.data.overview import PERIODS, frequent_errors, overview_figures
from ui.data.status import size_of_spool

__all__ = ["prepare", "prepare_in_thread"]

AFTER_S = 1.0
"""Time for the browser to draw the charts, which takes a core where it is on the same machine."""
_at_work = threading.Lock()


def prepare(folder: Path, send_filter: SendFilter) -> None:
    """Finds the figures of all periods, the outcomes that the calendar shows and the size of the spool.

    Raises:
        PsttError: They cannot be read.
    """
    for days in PERIODS:
        overview_figures(send_filter, days, folder=folder)
        frequent_errors(send_filter, days, folder=folder)
    outcomes_by_job(CALENDAR_DAYS, folder=folder)
    size_of_spool(Workspace(folder).spool_dir)


def prepare_in_thread(folder: Path, send_filter: SendFilter) -> None:
    """Does so soon, in a thread. Only one works at a time: another session asks for much the same."""
    if _at_work.acquire(blocking=False):
        threading.Thread(target=_prepare_soon, args=(folder, send_filter), name="prepare", daemon=True).start()


def _prepare_soon(folder: Path, send_filter: SendFilter) -> None:
    try:
        time.sleep(AFTER_S)
        with suppress(PsttError):  # the page reports it when it is asked
            prepare(folder, send_filter)
    except Exception as error:  # noqa: BLE001 - a thread whose result is not awaited: the log has it
        logger.opt(exception=error).error("the next figures could not be found: {}", type(error).__name__)
    finally:
        _at_work.release()
