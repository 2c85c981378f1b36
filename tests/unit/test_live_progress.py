"""The progress of a running run: what its process writes, what others read, and what is left when it has ended."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from core.app import App
from core.cli.documents import run_document
from core.cli.live_lines import live_lines
from core.errors import BrokerUnavailable
from core.model.job import Job
from core.model.progress import RunProgress
from core.model.query import Query, Step
from core.model.run import Plan, Run, RunPart
from core.records.ledger import Outcome
from core.records.run_progress import ProgressFiles
from core.run import live_progress
from core.run.cancellation import Stop
from core.run.execute import dry_run
from core.run.live_progress import ProgressMeter
from core.run.partitioned import PartitionedRun
from core.run.row_reader import RowReader, RunContext
from core.scheduler.next_attempt import NextAttempt, next_attempt
from core.workspace.paths import Workspace
from tests.rigs.waiting import until

NOW = datetime(2026, 1, 17, 1, tzinfo=UTC)
ROWS = 500
JOB = {"name": "Tracce", "query": "tracce.sql", "connection": "DB", "kafka_config": {"message_key_field": "barcode"}}


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[App]:
    with sqlite3.connect(tmp_path / "tracce.sqlite") as db:
        db.execute("CREATE TABLE tracce (barcode TEXT)")
        db.executemany("INSERT INTO tracce VALUES (?)", [(f"{n:012}" if n % 100 else None,) for n in range(ROWS)])
    db.close()
    document = {
        "connections": [{"name": "DB", "environment": "test", "db_type": "sqlite", "database": "tracce.sqlite"}],
        "kafka_connections": {"test": {"name": "mock", "mock_brokers": 1, "default_topic": "tracce"}},
    }
    (tmp_path / "connections.json").write_text(json.dumps(document), encoding="utf-8")
    (tmp_path / "queries").mkdir()
    (tmp_path / "queries" / "tracce.sql").write_text("SELECT barcode FROM tracce", encoding="utf-8")
    write_job(tmp_path)
    with App.open(tmp_path, {"PSTT_FETCH_ROWS": "100", "PSTT_RUN_RETRIES": "3"}, log=False) as app:
        yield app


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Progress is written more often, whatever it takes."""
    monkeypatch.setattr(live_progress, "WRITE_EVERY_S", 0.05)
    monkeypatch.setattr(live_progress, "SELDOM_S", 0.05)


def write_job(folder: Path, **more: object) -> None:
    (folder / "queries" / "tracce.job.json").write_text(json.dumps(JOB | more), encoding="utf-8")


def observed(app: App) -> tuple[Run, list[RunProgress]]:
    """Runs the job; after each fetch it waits until the progress of that fetch can be read. Returns these too."""
    files, seen = ProgressFiles(app.workspace), list[RunProgress]()

    def after_fetch(rows_read: int, acknowledged: int, rows_counted: int | None) -> None:
        (running,) = app.ledger.history.running()

        def is_written() -> RunProgress | None:
            found = files.of_runs([running]).get(running.run_id)
            expected = (rows_read, 0 if running.is_file else rows_read // 100)  # a file has no key that can be null
            return found if found and (found.rows_read, found.rejected) == expected else None

        seen.append(until(is_written, timeout_s=30, every_s=0.01))

    run = app.execute(app.plan(app.job("tracce"), now=NOW), stop=Stop(), now=lambda: NOW, progress=after_fetch)
    assert list((app.workspace.state_dir / "progress").iterdir()) == []  # removed with the verdict
    return run, seen


def test_other_processes_can_read_how_far_a_run_is_and_nothing_is_left_of_it(opened, at_once):
    run, seen = observed(opened)
    assert (run.verdict, run.rows_read, run.rejected) == ("complete_with_rejects", ROWS, 5)
    assert [found.rows_read for found in seen] == [100, 200, 300, 400, 500]
    assert {found.step for found in seen} == {"sending"}
    assert {found.rows_expected for found in seen} == {None}
    assert all(found.acknowledged + found.rejected <= found.rows_read for found in seen)
    assert seen[0].at == NOW
    _, again = observed(opened)
    assert {(found.rows_expected, found.is_counted) for found in again} == {(ROWS, False)}
    assert again[-1].rate_per_s
    assert again[-1].remaining_s == 0


@pytest.mark.parametrize(
    ("more", "step"),
    [
        ({"kafka_config": {"message_key_field": "barcode", "topic": "once"}, "delivery": "exactly_once"}, "reading"),
        ({"export_format": "csv", "output": "a.csv"}, "writing"),
    ],
)
def test_the_step_is_that_of_the_way_in_which_the_rows_are_delivered(opened, at_once, more, step):
    write_job(opened.workspace.root, verify_count=True, **more)
    run, seen = observed(opened)
    assert run.rows_read == ROWS, run.error_text
    assert {found.step for found in seen} == {step}
    assert {(found.rows_expected, found.is_counted) for found in seen} == {(ROWS, True)}


def test_a_dry_run_and_a_short_run_write_no_progress(opened):
    written = opened.workspace.state_dir / "progress"
    plan = opened.plan(opened.job("tracce"), now=NOW)
    dry_run(opened, plan, stop=Stop(), now=lambda: NOW)
    assert not written.exists()


# ── files ─────────────────────────────────────────────────────────────────────────────────────


def test_a_file_that_cannot_be_replaced_now_is_replaced_later(tmp_path):
    """On Windows a reader's open file cannot be replaced; here a folder in its place cannot."""
    files = ProgressFiles(Workspace(tmp_path))
    in_the_way = tmp_path / ".pstt" / "progress" / "ab12.json"
    in_the_way.mkdir(parents=True)
    assert not files.write(RunProgress("ab12", "reading", NOW))
    assert files.read("ab12") is None
    in_the_way.rmdir()
    assert files.write(RunProgress("ab12", "reading", NOW, rows_read=7))
    assert files.read("ab12") == RunProgress("ab12", "reading", NOW, rows_read=7)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"run_id":"ab12","step":"flying","at":"2026-01-17T01:00:00Z"}']
)
def test_a_file_that_is_no_progress_is_as_none(tmp_path, content):
    files = ProgressFiles(Workspace(tmp_path))
    assert files.write(RunProgress("ab12", "reading", NOW))
    (tmp_path / ".pstt" / "progress" / "ab12.json").write_bytes(content)
    assert files.read("ab12") is None


def test_what_a_killed_run_left_is_ignored_and_deleted_later(opened):
    files = ProgressFiles(opened.workspace)
    run = opened.ledger.start(opened.plan(opened.job("tracce"), now=NOW), NOW)
    assert files.write(RunProgress(run.run_id, "sending", NOW))
    assert files.write(RunProgress("other", "sending", NOW))
    assert set(files.of_runs([run])) == {run.run_id}
    ended = opened.ledger.close_run(run.run_id, "interrupted", BrokerUnavailable("gone"), NOW)
    assert files.of_runs([ended]) == {}
    long_ago = os.stat(opened.workspace.ledger_file).st_mtime - 2 * 3600
    os.utime(opened.workspace.state_dir / "progress" / f"{run.run_id}.json", (long_ago, long_ago))
    files.clean()
    assert files.read(run.run_id) is None
    assert files.read("other") is not None


# ── rate and time left ────────────────────────────────────────────────────────────────────────


class Nowhere:
    """Stores no reject."""

    def add(self, run_id, rejects, /):
        """Stores nothing."""


def plan_of(job: Job) -> Plan:
    return Plan(job, Query("q.sql", (Step("select 1"),), {}, "ab" * 32), "rig", "t", NOW, 100)


class Measured:
    """A run whose counts and clock a test sets."""

    def __init__(self, expected: int | None) -> None:
        context = RunContext(lambda: NOW, Stop())
        self.reader = RowReader(
            plan=plan_of(Job("e", "E", "q.sql", "A")), run_id="ab12", rejects=Nowhere(), context=context
        )
        self.at_s = 0.0
        self.meter = ProgressMeter(self.reader, expected, now=lambda: NOW, monotonic=lambda: self.at_s)

    def at(self, seconds: float, **counts: object) -> RunProgress:
        self.at_s = seconds
        for name, value in counts.items():
            setattr(self.reader, name, value)
        return self.meter.progress()


def test_rate_and_time_left_are_those_of_the_last_30_seconds():
    run = Measured(expected=10_000)
    assert run.at(0, step="reading").rate_per_s is None
    assert run.at(60).rate_per_s is None  # the query still runs: that time is not in the rate
    assert run.at(61, rows_read=1_000, step="sending").rate_per_s == 1_000
    found = run.at(63, rows_read=3_000, acknowledged=2_500, rejected=10)
    assert (found.rate_per_s, found.remaining_s) == (1_000, 7)
    run.at(90, rows_read=4_000)
    found = run.at(120, rows_read=4_300)
    assert (found.rate_per_s, found.remaining_s) == (10, 570)


def test_more_rows_than_expected_have_no_time_left_and_a_count_outweighs_the_last_run():
    run = Measured(expected=100)
    run.at(1, rows_read=50)
    assert run.at(2, rows_read=150).remaining_s is None
    found = run.at(3, rows_read=200, rows_counted=400)
    assert (found.rows_expected, found.is_counted, found.remaining_s) == (400, True, 200 / 75)


def test_once_all_rows_are_read_the_acknowledgements_are_measured():
    run = Measured(expected=100)
    run.at(1, rows_read=500, acknowledged=100)
    found = run.at(2, rows_read=1_000, acknowledged=200, is_read=True, step="waiting")
    assert (found.rows_expected, found.rate_per_s) == (1_000, None)
    found = run.at(4, acknowledged=600)
    assert (found.rate_per_s, found.remaining_s) == (200, 2)
    assert run.at(5, acknowledged=590).acknowledged == 600  # deliveries between two lists
    assert run.at(6, step="verifying").rate_per_s is None


def test_a_run_in_parts_is_the_sum_of_them_and_as_far_as_its_slowest():
    run = object.__new__(PartitionedRun)
    run.step, run.lines = "reading", {0: RunPart(1, "waiting"), 1: RunPart(2, "reading", rows_read=100)}
    assert (run.counts(), run.current_step(), run.has_read_all()) == ((100, 0, 0), "reading", False)
    run.lines[1] = RunPart(2, "reading", rows_read=300, acknowledged=200)
    assert (run.counts(), run.current_step()) == ((300, 200, 0), "sending")
    run.lines[0] = RunPart(1, "succeeded", rows_read=250, acknowledged=249, rejected=1)
    run.lines[1] = RunPart(2, "sending", rows_read=400, acknowledged=200)
    assert (run.counts(), run.current_step(), run.has_read_all()) == ((650, 449, 1), "waiting", True)
    run.step = "verifying"
    assert run.current_step() == "verifying"


# ── what people read ──────────────────────────────────────────────────────────────────────────


def test_show_and_rest_have_the_progress(opened):
    run = opened.ledger.start(opened.plan(opened.job("tracce"), now=NOW), NOW)
    progress = RunProgress(
        run.run_id, "sending", NOW + timedelta(seconds=75), 12_345, 12_000, 2, 40_000, False, 21_300.04, 1.26
    )
    assert run_document(run)["progress"] is None
    assert run_document(run, progress)["progress"] == {
        "step": "sending",
        "at": "2026-01-17T01:01:15.000000Z",
        "rows_read": 12_345,
        "acknowledged": 12_000,
        "rejected": 2,
        "rows_expected": 40_000,
        "is_counted": False,
        "rate_per_s": 21_300.0,
        "elapsed_s": 75.0,
        "remaining_s": 1.3,
    }
    assert live_lines(run, progress, None) == [
        "  step       sending",
        "  progress   12,345 of 40,000 rows read, 12,000 acknowledged, 2 rejected · 21,300 rows/s · 75 s so far · 1 s left",
    ]
    opened.ledger.close_run(run.run_id, "interrupted", BrokerUnavailable("gone"), NOW)


def test_a_failed_run_says_when_it_is_tried_again_and_how_often(opened):
    ledger = opened.ledger
    (number,) = ledger.scheduled_runs.plan_requested("tracce", [NOW], kind="request", asked_by="anna", now=NOW)
    plan = opened.plan(opened.job("tracce"), now=NOW)
    begun = ledger.start(Plan(plan.job, plan.query, "mock", "tracce", NOW, 100, scheduled_run_id=number), NOW)
    assert next_attempt(opened, begun) is None  # it is running
    failed = ledger.finish(begun.run_id, Outcome("failed", error=BrokerUnavailable("no broker answers")), NOW)
    assert next_attempt(opened, failed) is None  # the runner has not decided yet
    at = NOW + timedelta(minutes=1)
    ledger.scheduled_runs.requeue(number, at, "it is tried again")
    found = next_attempt(opened, failed)
    assert found == NextAttempt(at, attempt=2, most=4)
    assert run_document(failed, None, found)["retry"] == {"at": "2026-01-17T01:01:00.000000Z", "attempt": 2, "most": 4}
    (line,) = live_lines(failed, None, found)
    assert line.endswith(": attempt 2 of at most 4")
    again = ledger.start(Plan(plan.job, plan.query, "mock", "tracce", NOW, 100, scheduled_run_id=number), NOW)
    assert next_attempt(opened, failed) is None  # the next attempt is another run
    ledger.finish(again.run_id, Outcome("succeeded"), NOW)
