"""Copies sends into metrics.duckdb for all runs of the runner: one process at a time, at a low priority.

docs/decisions/005-metrics.md (8) has the figures: a thread would leave 55 MB in the runner, and a copy at the end of each
run costs a short run a quarter of its processor time and memory.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from loguru import logger

from core.workspace.process import LOW_PRIORITY

if TYPE_CHECKING:
    from core.records.ledger import Ledger
    from core.workspace.paths import Workspace

__all__ = ["MetricsCopies"]

EVERY_S = 60.0
"""Seconds from the start of one process to the start of the next, so that one copies for many runs."""
LONGEST_WAIT_S = 60.0
"""After this long sends are copied also while runs go on, so that readers find few segments that wait."""
UNCHANGED_S = 2.0
"""A run that has ended is followed by the end of others; and FAT stores times to 2 s."""
MOST_WAIT_S = 600.0
"""The longest wait after failures; each doubles it."""
POLL_EVERY_S = 0.05

Begin = Callable[..., "subprocess.Popen[bytes]"]
State = tuple[int, ...]


class MetricsCopies:
    """Starts the process that copies, and follows it; nothing here waits for it while the runner works.

    Args:
        workspace: The workspace.
        ledger: Its runs, which are copied too.
        begin: `core.workspace.process.begin_process`.
        monotonic: Seconds that only go forward.
    """

    def __init__(
        self, workspace: Workspace, ledger: Ledger, begin: Begin, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._workspace = workspace
        self._ledger = ledger
        self._begin_process = begin
        self._monotonic = monotonic
        self._process: subprocess.Popen[bytes] | None = None
        self._begun_at: State | None = None
        """The state that the process copies; None where it was still changing."""
        self._copied: State | None = None
        """The state that is copied; None: not known, as at the start."""
        self._seen: tuple[State, float] | None = None
        """The newest state, and since when it has not changed."""
        self._waiting_since_s: float | None = None
        self._not_before_s = monotonic()
        self._failures = 0

    def tick(self, *, is_quiet: bool) -> None:
        """Starts a process where something waits and it is time for it; returns at once.

        Args:
            is_quiet: No run goes on or is due soon.
        """
        if not self._has_ended() or not self._waits():
            return
        now_s = self._monotonic()
        if self._waiting_since_s is None:
            self._waiting_since_s = now_s
        is_overdue = now_s - self._waiting_since_s >= LONGEST_WAIT_S
        if now_s >= self._not_before_s and (is_overdue or (is_quiet and self._is_unchanged())):
            self._begin(low_priority=True)

    def end(self, within_s: float, while_waiting: Callable[[], object]) -> None:
        """Copies what waits before the runner ends, and kills the process that takes longer.

        Args:
            within_s: Seconds that are left for it.
            while_waiting: Called at each check, so that the heartbeat goes on.
        """
        deadline = self._monotonic() + within_s
        is_last = False
        try:
            while self._monotonic() < deadline:
                if not self._has_ended():
                    while_waiting()
                    time.sleep(POLL_EVERY_S)
                elif is_last or not self._waits():
                    break
                else:
                    self._begin(low_priority=False)  # no run is due any more, and someone waits for the end
                    is_last = True
        except KeyboardInterrupt:  # the second Ctrl-C
            logger.warning("the runner is told to end at once; the next one copies the sends that wait")
        if self._process is not None:
            self._process.kill()  # what it has not copied waits, and counts once
            self._process.wait()
            self._process = None

    def _has_ended(self) -> bool:
        """Returns whether no process is running; takes note of what the last one has done."""
        if self._process is None:
            return True
        code = self._process.poll()
        if code is None:
            return False
        self._process = None
        if code == 0:
            self._failures, self._copied = 0, self._begun_at
        else:
            self._postpone()
        return True

    def _postpone(self) -> None:
        """Waits longer after a failure: a notebook may hold the file for days."""
        self._failures += 1
        self._not_before_s = self._monotonic() + min(EVERY_S * 2 ** min(self._failures - 1, 10), MOST_WAIT_S)

    def _waits(self) -> bool:
        """Returns whether sends or runs may wait; notes since when the state has not changed."""
        try:
            spooled_ns = self._workspace.spool_dir.stat().st_mtime_ns
        except OSError:
            spooled_ns = 0
        state = (spooled_ns, *self._ledger.history.state())
        if self._seen is None or self._seen[0] != state:
            self._seen = state, self._monotonic()
        return state != self._copied and any(state)

    def _is_unchanged(self) -> bool:
        return self._seen is not None and self._monotonic() - self._seen[1] >= UNCHANGED_S

    def _begin(self, *, low_priority: bool) -> None:
        words = ["copy-sends", "--workspace", str(self._workspace.root)]
        if low_priority:  # the last copy merges nothing, so that the runner ends soon
            words.append("--merge")
        nothing = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
        self._waiting_since_s = None
        self._not_before_s = self._monotonic() + EVERY_S
        self._begun_at = self._seen[0] if self._seen is not None and self._is_unchanged() else None
        try:
            self._process = self._begin_process(words, priority=LOW_PRIORITY if low_priority else None, **nothing)
        except OSError as error:  # no memory, no processes
            logger.warning("sends cannot be copied into metrics.duckdb now: {}", error.strerror or error)
            self._postpone()
