"""The runner's periodic tasks continue after any error in one."""

import threading

from loguru import logger

from core.scheduler.periodic import PeriodicTask


def test_a_chore_that_fails_is_told_once_and_tried_again_until_it_is_stopped():
    told: list[str] = []
    calls: list[int] = []
    enough = threading.Event()

    def work() -> None:
        calls.append(len(calls))
        if len(calls) == 5:
            enough.set()
        raise OSError("no route to host")

    sink = logger.add(lambda message: told.append(message.record["message"]), level="ERROR")
    chore = PeriodicTask("broker health", 0.01, work)
    chore.start()
    assert enough.wait(10)
    chore.stop()
    logger.remove(sink)
    assert told == ["broker health: OSError: no route to host"]
    seen = len(calls)
    assert not threading.Event().wait(0.1)
    assert len(calls) == seen


def test_a_problem_that_went_and_came_back_is_told_again():
    told: list[str] = []
    outcomes = iter([True, False, True])
    done = threading.Event()

    def work() -> None:
        fails = next(outcomes, None)
        if fails is None:
            done.set()
        if fails:
            raise OSError("no route to host")

    sink = logger.add(lambda message: told.append(message.record["message"]), level="ERROR")
    chore = PeriodicTask("mail", 0.01, work)
    chore.start()
    assert done.wait(10)
    chore.stop()
    logger.remove(sink)
    assert len(told) == 2
