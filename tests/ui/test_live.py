"""Running runs on the page: their figures, in the list, on the overview and on their own page."""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from subprocess import PIPE

import pytest

from core.errors import BrokerUnavailable
from core.model.job import Job
from core.model.progress import RunProgress
from core.model.query import Query, Step
from core.model.run import Plan, Run, RunPart
from core.records.ledger import Ledger, Outcome
from core.records.run_progress import ProgressFiles
from core.workspace.paths import Workspace
from tests.rigs.waiting import until
from tests.rigs.workspace import command, environment
from tests.ui.conftest import SLY, Place, cells, is_harmless, metric, words
from ui import data
from ui.data.live import LiveRun

NOW = datetime(2026, 1, 17, 10, 30, tzinfo=UTC)
JOB = Job("tracce", f"Tracce {SLY}", "q.sql", "A00")


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    monkeypatch.setattr(data, "now", lambda: NOW)


def begin(place: Place, job: Job = JOB, *, topic: str = "pstt-traces", **more: object) -> Run:
    """Writes that a run begins in this very process, which does nothing."""
    plan = Plan(job, Query("q.sql", (Step("select 1"),), {}, "ab" * 32), "rig", topic, NOW, 100, **more)
    begun: Run = place.ledger(lambda ledger: ledger.start(plan, NOW - timedelta(seconds=75)))
    return begun


def write(place: Place, run: Run, **more: object) -> None:
    known = {
        "step": "sending",
        "at": NOW,
        "rows_read": 12_345,
        "acknowledged": 12_000,
        "rejected": 3,
        "rows_expected": 49_380,
        "rate_per_s": 617.25,
        "remaining_s": 60.0,
    }
    assert ProgressFiles(Workspace(place.folder)).write(RunProgress(run.run_id, **(known | more)))
    data.clear_caches()


def bars(app) -> list[tuple[int, str]]:
    """Percent and text of each bar."""
    return [(bar.proto.value, bar.proto.text.replace("\\", "")) for bar in app.get("progress")]


def test_the_page_of_a_running_run_shows_its_figures_its_parts_and_its_log(empty, see):
    run = begin(empty)
    write(empty, run)
    empty.ledger(
        lambda ledger: ledger.parts.put(
            run.run_id, [RunPart(1, "sending", 1, "process 7", 400, 399, 1, 1.5), RunPart(2)]
        )
    )
    logs = empty.folder / "logs"
    logs.mkdir()
    line = {"time": NOW.isoformat(), "level": "WARNING", "message": "part 2 of 2 was lost", "run": run.run_id}
    (logs / "pstt-2026-01-17.log").write_text(json.dumps(line) + "\n", encoding="utf-8")
    app = see("runs", run=run.run_id)
    assert not app.exception
    assert bars(app) == [(25, "**sending** · 12,345 of about 49,380 rows read")]
    assert {element.label: element.value for element in app.metric} == {
        "Rows read": "12,345",
        "Acknowledged": "12,000",
        "Rejected": "3",
        "Rows a second": "617",
        "So far": "1:15",
        "Left": "1:00",
    }
    assert "1,sending,400,399,1,1.5,1,process 7" in cells(app)
    assert "WARNING  part 2 of 2 was lost" in words(app)
    assert is_harmless(app)


@pytest.mark.parametrize("view", ["overview", "runs"])
def test_what_runs_now_is_above_the_figures_and_above_the_list(empty, see, view):
    run = begin(empty)
    write(empty, run)
    app = see(view)
    assert not app.exception
    assert "Running now" in words(app)
    ((percent, text),) = bars(app)
    assert percent == 25
    assert text == (
        "**sending** · 12,345 of about 49,380 rows read · 12,000 acknowledged · :orange[3 rejected] · 617 rows/s · "
        "1:15 so far · 1:00 left"
    )
    assert is_harmless(app)
    if view == "runs":
        (row,) = app.dataframe[0].value.to_dict("records")
        assert (row["Read"], row["Acknowledged"], row["Rejected"]) == (12_345, 12_000, 3)
        assert row["Duration"] == "1:15"
    ProgressFiles(Workspace(empty.folder)).remove(run.run_id)
    empty.ledger(lambda ledger: ledger.finish(run.run_id, Outcome("succeeded"), NOW))
    data.clear_caches()
    app = see(view)
    assert "Running now" not in words(app)
    assert bars(app) == []


def test_a_running_run_in_italian_and_one_that_writes_a_file(empty, see):
    run = begin(empty, Job("file", "File", "q.sql", "A00", export_format="csv"), topic="")
    write(empty, run, step="writing", is_counted=True)
    app = see("runs", language="it")
    ((_, text),) = bars(app)
    assert text.startswith("**in scrittura** · 12.345 di 49.380 righe lette · 12.000 scritte · :orange[3 scartate]")
    app = see("runs", language="it", run=run.run_id)
    assert metric(app, "Scritte") == "12.000"
    app.button(key="cancel").click().run()
    assert "Il file non viene scritto." in words(app)


def test_a_run_that_has_just_begun_and_one_whose_rows_are_not_known_have_no_bar(empty, see):
    run = begin(empty)
    assert "it has just begun" in words(see("runs", run=run.run_id))
    write(empty, run, step="reading", rows_expected=None, remaining_s=None)
    app = see("runs", run=run.run_id)
    assert bars(app) == []
    assert "**reading**" in words(app)
    assert metric(app, "Left") == "–"
    assert "**reading** · 12,345 rows read · 12,000 acknowledged" in words(see("overview"))


def test_a_run_whose_process_gives_no_sign_is_not_shown_as_if_it_went_on(empty):
    run = begin(empty)
    fresh = LiveRun(run, RunProgress(run.run_id, "sending", NOW, remaining_s=60.0), NOW)
    assert (fresh.silent_s, fresh.remaining_s is None) == (0.0, False)
    silent = replace(fresh, at=NOW + timedelta(minutes=5))
    assert silent.silent_s >= 299
    assert silent.remaining_s is None


def test_a_run_that_waits_for_acknowledgements_is_as_far_as_they_are(empty):
    run = begin(empty)
    progress = RunProgress(run.run_id, "waiting", NOW, 1_000, 700, 50, 1_000, True)
    assert LiveRun(run, progress, NOW).share == 0.75


def test_a_killed_run_is_not_running_for_ever(empty, see):
    """Its process is gone, and its last progress is still there."""
    run = begin(empty)
    write(empty, run)
    with Ledger(Workspace(empty.folder).ledger_file) as ledger:
        ledger._db.execute("UPDATE run SET pid_started_at = 1.0")
        ledger._db.commit()
    data.clear_caches()
    app = see("runs", run=run.run_id)
    assert "ended without finishing the run" in words(app)
    assert bars(app) == []
    assert bars(see("overview")) == []


def test_a_failed_run_says_when_it_is_tried_again(empty, see, monkeypatch):
    monkeypatch.setenv("PSTT_RUN_RETRIES", "3")

    def fail(ledger: Ledger) -> Run:
        (number,) = ledger.scheduled_runs.plan_requested("tracce", [NOW], kind="request", asked_by="a", now=NOW)
        plan = Plan(JOB, Query("q.sql", (Step("select 1"),), {}, ""), "rig", "t", NOW, 100, scheduled_run_id=number)
        begun = ledger.start(plan, NOW)
        failed = ledger.finish(begun.run_id, Outcome("failed", error=BrokerUnavailable("no broker answers")), NOW)
        ledger.scheduled_runs.requeue(number, NOW + timedelta(minutes=5), "it is tried again")
        return failed

    run = empty.ledger(fail)
    assert "It is tried again at 17 Jan 11:35:00: attempt 2 of at most 4." in words(see("runs", run=run.run_id))


# ── a real run and a real browser ─────────────────────────────────────────────────────────────


@pytest.fixture
def endless(tmp_path) -> Iterator[Place]:
    """A workspace in which a job runs that does not end by itself."""
    (tmp_path / "queries").mkdir()
    sqlite3.connect(tmp_path / "source.sqlite").close()
    sql = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT printf('%012d', n) AS barcode FROM c"
    (tmp_path / "queries" / "endless.sql").write_text(sql, encoding="utf-8")
    job = {"name": "Endless", "query": "endless.sql", "connection": "DB", "kafka_config": {"topic": "endless"}}
    (tmp_path / "queries" / "endless.job.json").write_text(json.dumps(job), encoding="utf-8")
    connections = {
        "connections": [{"name": "DB", "environment": "rig", "db_type": "sqlite", "database": "source.sqlite"}],
        "kafka_connections": {"rig": {"name": "Mock", "mock_brokers": 1}},
    }
    (tmp_path / "connections.json").write_text(json.dumps(connections), encoding="utf-8")
    place = Place(tmp_path)
    with subprocess.Popen(command("run", "endless", "--json"), env=environment(), cwd=tmp_path, stdout=PIPE) as process:
        try:
            until(lambda: place.ledger(lambda ledger: ledger.history.running()), "the run has not begun")
            yield place
        finally:
            process.kill()


@pytest.mark.slow
def test_a_run_is_followed_from_the_overview_and_cancelled_on_its_page(endless, serve, visit):
    (run,) = endless.runs()
    files = ProgressFiles(Workspace(endless.folder))
    until(lambda: (found := files.read(run.run_id)) and found.acknowledged, "nothing was acknowledged")
    seen = visit(serve(endless))
    seen.has("Running now")
    seen.has(re.compile(r"[1-9][\d,]* rows read · [1-9][\d,]* acknowledged"))
    seen.page.get_by_role("link", name=re.compile("Endless")).first.click()
    seen.heading("Endless")
    seen.has("Rows a second")
    seen.photograph("run_live")
    seen.page.get_by_role("button", name="Cancel this run").click()
    seen.has("It ends between two batches")
    assert endless.runs()[0].cancel_asked_at is None
    seen.page.get_by_role("button", name="Yes, cancel").click()
    seen.has(re.compile("cancelled"))
    seen.has("The SQL that ran")  # the page of a run that has ended
    assert endless.runs()[0].state == "cancelled"
    assert files.read(run.run_id) is None
    assert seen.troubles == []
