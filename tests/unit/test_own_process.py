"""Parts in the process of the run: when the next one begins. What they send is tested in tests/integration/test_partitioned_runs.py."""

from __future__ import annotations

import queue
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from core.app import App
from core.model.query import Step
from core.run import own_process
from core.run.own_process import OwnProcess
from core.run.part import PartSettings
from core.run.parts import PartOnce, PartPhase, PartProgress, PartResult, PartTask
from tests.rigs.waiting import until
from tests.unit.test_parts_protocol import task


class Stage:
    """An executor whose parts do what the test says, one order at a time."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.orders: dict[int, queue.Queue[PartProgress | PartResult]] = defaultdict(queue.Queue)
        self.begun: list[int] = []
        self.before_rows: dict[int, Callable[[], object]] = {}
        monkeypatch.setattr(own_process, "run_part", self._run_part)
        self.executor = OwnProcess(App.open(folder, {}, log=False))

    def _run_part(self, task: PartTask, *_: object, report: Any, settings: PartSettings, **__: object) -> PartResult:
        self.before_rows[task.index] = settings.before_rows
        self.begun.append(task.index)
        while True:
            order = self.orders[task.index].get(timeout=20)
            if isinstance(order, PartResult):
                return order
            report(order)

    def start(self, parts: int, **changes: Any) -> None:
        given = task(Step("SELECT 1"))
        for index in range(parts):
            self.executor.start(msgspec.structs.replace(given, index=index, attempt=1, **changes))
        until(lambda: self.begun == [0], "the first part has begun")

    def report(self, index: int, rows: int, state: PartPhase = "reading") -> list[int]:
        """Has a part report; returns which parts have begun then."""
        self.orders[index].put(PartProgress(index, 1, state, rows_read=rows))
        return self._seen()

    def end(self, index: int) -> list[int]:
        """Ends a part; returns which parts have begun then."""
        self.orders[index].put(PartResult(index=index, attempt=1))
        return self._seen()

    def with_first_rows(self, index: int) -> threading.Thread:
        """Has a part arrive at its first rows; the thread ends when it may go on."""
        thread = threading.Thread(target=self.before_rows[index], daemon=True)
        thread.start()
        thread.join(0.1)
        return thread

    def _seen(self) -> list[int]:
        assert self.executor.events(20)
        until(lambda: len(self.begun) >= len(self.executor._running), "what was begun runs")
        return sorted(self.begun)


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    made = Stage(tmp_path, monkeypatch)
    yield made
    for index in range(5):
        made.orders[index].put(PartResult(index=index, attempt=1))
    made.executor.close()


def test_the_next_part_begins_in_the_last_quarter_of_the_one_before(stage: Stage) -> None:
    stage.start(4, expected_rows=100)
    assert stage.report(0, 74) == [0]
    assert stage.report(0, 75) == [0, 1]
    assert stage.report(1, 80) == [0, 1]  # two read at most
    assert stage.report(0, 100, "sending") == [0, 1, 2]
    assert stage.end(0) == [0, 1, 2]
    assert stage.end(1) == [0, 1, 2]
    assert stage.report(2, 75) == [0, 1, 2, 3]


def test_a_part_of_unknown_size_is_read_to_its_end_before_the_next_begins(stage: Stage) -> None:
    stage.start(2, expected_rows=0)
    assert stage.report(0, 1_000_000) == [0]
    assert stage.report(0, 1_000_000, "sending") == [0, 1]


def test_a_part_with_fewer_rows_than_expected_does_not_hold_up_the_next(stage: Stage) -> None:
    stage.start(2, expected_rows=100)
    assert stage.report(0, 10) == [0]
    assert stage.end(0) == [0, 1]


def test_a_part_of_a_transaction_begins_when_the_one_before_commits(stage: Stage) -> None:
    stage.start(2, expected_rows=100, once=PartOnce("id", "key", "{}"))
    assert stage.report(0, 90) == [0]
    assert stage.report(0, 100, "sending") == [0]
    assert stage.report(0, 100, "committing") == [0, 1]


def test_a_part_waits_with_its_first_rows_until_the_one_before_has_read_all(stage: Stage) -> None:
    stage.start(3, expected_rows=100)
    assert not stage.with_first_rows(0).is_alive()
    assert stage.report(0, 80) == [0, 1]
    second = stage.with_first_rows(1)
    assert second.is_alive()
    assert stage.report(0, 100, "sending") == [0, 1]
    second.join(5)
    assert not second.is_alive()
    assert stage.report(1, 80) == [0, 1, 2]
    assert stage.with_first_rows(2).is_alive()
    stage.end(0)
    assert stage.with_first_rows(2).is_alive()  # the second one reads
    stage.end(1)  # by an error, for example
    third = stage.with_first_rows(2)
    third.join(5)
    assert not third.is_alive()


def test_a_part_that_waits_goes_on_when_the_run_is_cancelled(stage: Stage) -> None:
    stage.start(2, expected_rows=100)
    stage.report(0, 80)
    second = stage.with_first_rows(1)
    assert second.is_alive()
    stage.executor.cancel(10)
    second.join(5)
    assert not second.is_alive()


def test_a_part_does_not_wait_until_its_database_gives_up(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_process, "TURN_S", 0.3)
    stage.start(2, expected_rows=100)
    stage.report(0, 80)
    second = stage.with_first_rows(1)
    assert second.is_alive()
    second.join(5)
    assert not second.is_alive()
