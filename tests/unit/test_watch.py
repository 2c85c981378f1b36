"""What ends a run from outside: its time-out, a user, the end of the runner."""

import time
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from core.errors import RunCancelled, RunInterrupted, RunTimedOut
from core.model.job import Job
from core.model.query import Query, Step
from core.model.run import Plan
from core.records.ledger import Ledger, Outcome
from core.run.cancellation import Stop
from core.run.watchdog import RUNNER_STOPS, watched

NOW = datetime(2026, 1, 17, 1, tzinfo=UTC)
JOB = Job("export", "Export", "q.sql", "A00")


@pytest.fixture
def run(tmp_path):
    plan = Plan(JOB, Query("q.sql", (Step("select 1"),), {}, "ab" * 32), "rig", "t", NOW, 100)
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        yield ledger, ledger.start(plan, NOW)


def test_a_time_out_stops_the_run_and_is_the_reason(run):
    ledger, _ = run
    stop, told = Stop(), []
    stop.on_stop(lambda: told.append("the query is cancelled"))
    with watched(ledger.file, replace(JOB, timeout_s=0.2), stop):
        assert stop.wait(5)
    assert isinstance(stop.error, RunTimedOut)
    time.sleep(0.1)
    assert told == ["the query is cancelled"]


@pytest.mark.parametrize(("who", "kind"), [("anna", RunCancelled), (RUNNER_STOPS, RunInterrupted)])
def test_who_asks_through_the_ledger_decides_whether_the_run_is_cancelled_or_run_again(run, who, kind):
    ledger, begun = run
    stop = Stop()
    with watched(ledger.file, JOB, stop):
        assert ledger.ask_to_end(begun.run_id, who, NOW)
        assert stop.wait(5)
    assert type(stop.error) is kind
    assert not ledger.ask_to_end(begun.run_id, "berta", NOW)
    assert ledger.run(begun.run_id).cancel_asked_by == who


def test_nobody_is_asked_once_the_run_has_its_verdict(run):
    ledger, begun = run
    ledger.finish(begun.run_id, Outcome("succeeded"), NOW)
    assert not ledger.ask_to_end(begun.run_id, "anna", NOW)
    stop = Stop()
    with watched(ledger.file, JOB, stop):
        assert not stop.wait(0.7)
