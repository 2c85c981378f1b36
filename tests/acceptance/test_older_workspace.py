"""A workspace that version 1.0.4 of commit db0d166 made opens, shows its history and continues.

It has a run of the demo (60 rows, five of them rejected), one with every row rejected, one that failed, a
backfill without rows, a user and a disabled job.
"""

import json
from datetime import UTC, datetime
from pathlib import Path
from zipfile import ZipFile

import pytest

from core.admin.demo import SLUG
from core.records.accounts import Accounts
from core.records.ledger import Ledger
from tests.rigs.workspace import environment, run_command
from tests.ui.rest import bearer, client, token

STORED = Path(__file__).parents[1] / "fixtures" / "workspace-1.0.4-db0d166.zip"
FIRST = "d4963afda6"
VERDICTS = {
    FIRST: "complete_with_rejects",
    "1655feced7": "failed",
    "d85121f61e": "failed",
    "2ab1ed73c7": "complete",
}


@pytest.fixture
def ask(tmp_path):
    with ZipFile(STORED) as stored:
        stored.extractall(tmp_path)

    def run(*words: str, code: int = 0):
        done = run_command(*words, "--workspace", tmp_path, "--json", env=environment(measured=True), cwd=tmp_path)
        assert done.returncode == code, (words, done.stdout, done.stderr)
        return json.loads(done.stdout)

    run.folder = tmp_path
    return run


def test_its_history_is_there_with_the_verdicts_of_today(ask):
    assert {run["run_id"]: run["verdict"] for run in ask("runs")["runs"]} == VERDICTS
    assert ask("show", "1655feced7")["error"]["class"] == "NothingArrived"
    assert len(ask("rejects", FIRST)["rejects"]) == 5
    assert ask("metrics", "summary")["total_sent"] == 55
    (send,) = ask("find", "572680001120")["sends"]
    assert (send["run_id"], send["topic"]) == (FIRST, "pstt-traces")
    with Accounts(ask.folder / ".pstt" / "ledger.sqlite") as accounts:
        assert [(user.name, user.role) for user in accounts.users()] == [("anna", "admin")]


def test_its_scheduled_runs_and_audit_are_there(ask):
    with Ledger(ask.folder / ".pstt" / "ledger.sqlite") as ledger:
        begin, end = datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC)
        (backfilled,) = ledger.scheduled_runs.between(begin, end)
        assert (backfilled.kind, backfilled.state, backfilled.run_id) == ("backfill", "done", "2ab1ed73c7")
        assert ledger.run("2ab1ed73c7").scheduled_run_id == backfilled.scheduled_run_id
        assert [(entry.who, entry.action, entry.object) for entry in ledger.audit.entries()] == [
            ("root", "disable", f"job {SLUG}"),
            ("root", "add", "user anna"),
        ]
        assert ask("backfill", "list")["backfills"] == []  # that version stored no request for one, and it has ended
        assert ledger.job_versions.in_force()
        assert ledger.heartbeats.newest() is not None
    assert not any(ask("alerts").values())


def test_rest_shows_its_history(ask, monkeypatch):
    monkeypatch.setenv("PSTT_WORKSPACE", str(ask.folder))
    monkeypatch.setenv("PSTT_LOG_DIR", str(ask.folder / "logs"))
    with client(headers=bearer(token(ask.folder, "read"))) as rest:
        runs = rest.get("/api/scheduler/history").json()["items"]
        assert {run["run_id"]: run["verdict"] for run in runs} == VERDICTS
        assert rest.get(f"/api/scheduler/runs/{FIRST}").json()["acknowledged"] == 55
        assert rest.get("/api/kafka/metrics").json()["total_sent"] == 55


def test_it_goes_on(ask):
    replayed = ask("replay", FIRST, code=4)
    assert (replayed["rows_read"], replayed["acknowledged"], replayed["of_run"]) == (60, 55, FIRST)
    ask("enable", SLUG)
    ask("check")
    refused = ask("run", SLUG, "--at", "2026-11-27T02:00", code=2)
    assert "55 messages" in refused["error"]["text"]
    assert ask("metrics", "rebuild")["sends"] == 110
    assert len(ask("find", "572680001120")["sends"]) == 2
