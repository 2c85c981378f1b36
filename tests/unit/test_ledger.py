"""The ledger: what was written is kept, and runs of ended processes are reported as interrupted."""

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

import core.records.store
from core.errors import ConfigError, QueryFailed, StorageFailed
from core.model.job import Job
from core.model.query import Query, Step
from core.model.run import PartitionRange, Plan, Reject
from core.records.ledger import Ledger, Outcome

NOW = datetime(2026, 1, 17, 1, 0, 5, 123456, tzinfo=UTC)


def a_plan(**changes) -> Plan:
    job = Job("export", "Export", "q.sql", "A00")
    query = Query("q.sql", (Step("select 1"),), {"DATA": "2026-01-16"}, "ab" * 32)
    plan = Plan(job, query, "collaudo", "pstt-traces", datetime(2026, 1, 17, 1, tzinfo=UTC), 100, asked_by="anna")
    return replace(plan, **changes)


@pytest.fixture
def ledger(tmp_path):
    with Ledger(tmp_path / "state" / "ledger.sqlite") as opened:
        yield opened


def test_a_started_run_is_running_and_knows_what_it_was_asked(ledger):
    run = ledger.start(a_plan(), NOW)
    assert (run.state, run.attempt, run.asked_by, run.topic) == ("running", 1, "anna", "pstt-traces")
    assert run.parameters == {"DATA": "2026-01-16"}
    assert run.scheduled_at == datetime(2026, 1, 17, 1, tzinfo=UTC)
    assert run.started_at == NOW


def test_attempts_count_per_job_and_scheduled_time(ledger):
    assert [ledger.start(a_plan(), NOW).attempt for _ in range(3)] == [1, 2, 3]
    assert ledger.start(a_plan(scheduled_at=NOW), NOW).attempt == 1


def test_the_verdict_comes_back_as_it_was_written(ledger):
    run = ledger.start(a_plan(), NOW)
    ranges = (PartitionRange("pstt-traces", 0, 5, 9, 5), PartitionRange("pstt-traces", 1, 0, 3, 4))
    error = QueryFailed("the query failed", why="ORA-01555", remedy="run it again")
    outcome = Outcome("partial", 10, 11, 9, 9, 0, 1, 2, 1234, 1.5, 3.0, 2.0, 4.0, 5.0, ranges, error)
    ledger.finish(run.run_id, outcome, NOW + timedelta(seconds=2))
    again = ledger.run(run.run_id[:4])
    assert again.partitions == ranges
    assert (again.state, again.rows_read, again.rows_counted, again.acknowledged) == ("partial", 10, 11, 9)
    assert (again.error_class, again.error_text, again.error_retriable) == (
        "QueryFailed",
        "the query failed: ORA-01555",
        False,
    )
    assert not again.is_balanced


def test_rejects_keep_order_and_survive_text_that_has_no_utf8(ledger):
    run = ledger.start(a_plan(), NOW)
    rejects = [Reject(7, "A", "text", "bad", key="k\ud800", row={"a": "x"}), Reject(3, "B", "date", "worse")]
    ledger.rejects.add(run.run_id, rejects)
    found = list(ledger.rejects.of_run(run.run_id))
    assert [r.row_number for r in found] == [3, 7]
    assert found[1].row == {"a": "x"}
    assert found[1].key == "k\\ud800"


@pytest.mark.parametrize("text", ["", "zz", "0123456789abcdef"])
def test_an_unknown_run_says_how_to_list_them(ledger, text):
    with pytest.raises(ConfigError, match="python -m core runs"):
        ledger.run(text)


def test_an_ambiguous_prefix_is_refused(ledger):
    for _ in range(17):  # there are sixteen first characters
        ledger.start(a_plan(), NOW)
    firsts = [run.run_id[0] for run in ledger.history.newest(limit=100)]
    twice = next(c for c in firsts if firsts.count(c) > 1)
    with pytest.raises(ConfigError, match="more characters"):
        ledger.run(twice)


def test_a_run_of_a_killed_process_becomes_interrupted_and_a_living_one_stays(ledger, tmp_path):
    mine = ledger.start(a_plan(), NOW)
    script = (
        "import sys, pathlib; sys.path.insert(0, '.')\n"
        "from core.records.ledger import Ledger\nfrom tests.unit.test_ledger import a_plan, NOW\nimport os\n"
        f"run = Ledger(pathlib.Path({str(ledger.file)!r})).start(a_plan(), NOW)\n"
        "print(run.run_id, flush=True); os._exit(9)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    other = done.stdout.strip()
    interrupted = ledger.mark_interrupted(NOW)
    assert [run.run_id for run in interrupted] == [other]
    assert "not known" in interrupted[0].error_text
    assert f"replay {other}" in interrupted[0].error_remedy
    assert ledger.run(mine.run_id).state == "running"
    assert ledger.mark_interrupted(NOW) == []


def test_a_reused_pid_does_not_keep_a_dead_run_alive(ledger):
    run = ledger.start(a_plan(), NOW)
    with sqlite3.connect(ledger.file) as db:
        db.execute("UPDATE run SET pid_started_at = pid_started_at - 1000")
    db.close()
    assert [r.run_id for r in ledger.mark_interrupted(NOW)] == [run.run_id]


def test_two_processes_write_at_once_and_nothing_is_lost(ledger):
    script = (
        "import sys, pathlib; sys.path.insert(0, '.')\n"
        "from core.records.ledger import Ledger\nfrom tests.unit.test_ledger import a_plan, NOW\n"
        f"with Ledger(pathlib.Path({str(ledger.file)!r})) as ledger:\n"
        "    for _ in range(20): ledger.start(a_plan(), NOW)\n"
    )
    writers = [subprocess.Popen([sys.executable, "-c", script]) for _ in range(2)]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    runs = ledger.history.newest(limit=100)
    assert sorted(run.attempt for run in runs) == list(range(1, 41))


def test_a_ledger_filled_with_garbage_says_what_to_do(tmp_path):
    file = tmp_path / "ledger.sqlite"
    file.write_bytes(b"this is no database" * 100)
    with pytest.raises(StorageFailed, match=r"ledger\.sqlite cannot be used: .*not a database.* move the file away"):
        Ledger(file)


def test_a_ledger_of_a_newer_version_is_left_alone(tmp_path):
    file = tmp_path / "ledger.sqlite"
    Ledger(file).close()
    with sqlite3.connect(file) as db:
        db.execute("PRAGMA user_version=99")
    db.close()
    with pytest.raises(ConfigError, match="newer version"):
        Ledger(file)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="needs a folder that this user cannot write")
def test_a_folder_that_cannot_be_written_is_one_clear_error(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(StorageFailed, match="permissions"):
        Ledger(tmp_path / "x" / "ledger.sqlite")


def test_a_folder_that_cannot_be_used_is_no_reason_to_move_the_ledger_away(tmp_path):
    (tmp_path / "x").write_text("a file in the place of the folder", encoding="utf-8")
    with pytest.raises(StorageFailed, match=r"cannot be used: .* check the disk and the folder's permissions"):
        Ledger(tmp_path / "x" / "ledger.sqlite")


def test_a_run_of_an_earlier_version_of_which_nothing_arrived_is_no_success(tmp_path):
    file = tmp_path / "ledger.sqlite"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            core.records.store, "SCHEMAS", {version: core.records.store.SCHEMAS[version] for version in (1, 2)}
        )
        patch.setattr(core.records.store, "SCHEMA_VERSION", 2)
        Ledger(file).close()
    with closing(sqlite3.connect(file)) as db:
        for run_id, acknowledged, rejected in (("aa", 0, 5), ("bb", 3, 2), ("cc", 0, 0)):
            db.execute(
                "INSERT INTO run (run_id, kind, job, job_name, connection, cluster, topic, query, scheduled_at, timezone,"
                " attempt, asked_by, parameters, sql_sha256, sql_text, state, pid, pid_started_at, host, started_at,"
                " rows_read, acknowledged, rejected) VALUES (?, 'job', 'j', 'J', '', '', 't', '', '2026-01-17T00:00:00Z',"
                " 'UTC', 1, '', '{}', '', '', 'succeeded', 1, 0, 'h', '2026-01-17T00:00:00Z', ?, ?, ?)",
                (run_id, acknowledged + rejected, acknowledged, rejected),
            )
        db.commit()
    with Ledger(file) as ledger:
        assert {run.run_id: run.verdict for run in ledger.history.newest()} == {
            "aa": "failed",
            "bb": "complete_with_rejects",
            "cc": "complete",
        }
        assert ledger.run("aa").error_class == "NothingArrived"
        assert [run.run_id for run in ledger.history.page(states=["complete_with_rejects"])[0]] == ["bb"]
        assert {run.run_id for run in ledger.history.page(states=["succeeded"])[0]} == {"bb", "cc"}


@pytest.mark.parametrize("version", [1, 2, 3, 4])
def test_a_ledger_of_each_earlier_schema_opens_with_all_that_is_in_it(tmp_path, monkeypatch, version):
    file = tmp_path / "ledger.sqlite"
    with monkeypatch.context() as patch:
        older = {number: steps for number, steps in core.records.store.SCHEMAS.items() if number <= version}
        patch.setattr(core.records.store, "SCHEMAS", older)
        patch.setattr(core.records.store, "SCHEMA_VERSION", version)
        Ledger(file).close()
    with closing(sqlite3.connect(file)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (version,)
        db.executescript(OF_AN_EARLIER_VERSION)
        if version == 4:  # since then the history is a table of its own
            db.execute("INSERT INTO job_history VALUES ('export', '2026-01-16T00:00:00.000000Z', 'ab')")
            db.commit()
    with Ledger(file) as ledger:
        assert ledger.query("PRAGMA user_version")[0][0] == core.records.store.SCHEMA_VERSION
        run = ledger.run("ab12")
        assert (run.state, run.scheduled_run_id, run.parameters) == ("succeeded", 7, {"DATA": "2026-01-16"})
        assert [reject.reason for reject in ledger.rejects.of_run("ab12cd34ef")] == ["no key"]
        (scheduled_run,) = ledger.scheduled_runs.between(NOW - timedelta(days=1), NOW)
        assert (scheduled_run.scheduled_run_id, scheduled_run.run_id) == (7, "ab12cd34ef")
        assert ledger.requests.get(3).args == {"again": True}
        assert [(entry.who, entry.after) for entry in ledger.audit.entries()] == [("anna", {"enabled": False})]
        assert [document for _, document in ledger.job_versions.history("export")] == ["{}"]
        (planned,) = ledger.scheduled_runs.plan_requested(
            "export", [NOW], kind="request", asked_by="anna", now=NOW + timedelta(seconds=1)
        )
        assert planned == 8
        assert ledger.start(a_plan(scheduled_run_id=8), NOW).scheduled_run_id == 8


OF_AN_EARLIER_VERSION = """
INSERT INTO fire (fire_id, job, kind, scheduled_at, state, reason, run_id, args, asked_by, created_at)
VALUES (7, 'export', 'calendar', '2026-01-17T01:00:00.000000Z', 'done', '', 'ab12cd34ef', '{}', 'calendar',
    '2026-01-17T01:00:00.000000Z');
INSERT INTO run (run_id, kind, job, job_name, connection, cluster, topic, query, scheduled_at, timezone, attempt, asked_by,
    parameters, sql_sha256, sql_text, state, pid, pid_started_at, host, started_at, finished_at, rows_read, acknowledged,
    rejected, fire_id)
VALUES ('ab12cd34ef', 'job', 'export', 'Export', 'A00', 'collaudo', 't', 'q.sql', '2026-01-17T01:00:00.000000Z', 'UTC', 1,
    'calendar', '{"DATA": "2026-01-16"}', '', 'select 1', 'succeeded', 1, 0.0, 'h', '2026-01-17T01:00:00.000000Z',
    '2026-01-17T01:00:02.000000Z', 2, 1, 1, 7);
INSERT INTO reject VALUES ('ab12cd34ef', 2, 'K', 'TEXT', 'no key', NULL, '{"K": null}');
INSERT INTO request (request_id, kind, job, args, asked_by, asked_at, state)
VALUES (3, 'run', 'export', '{"again": true}', 'anna', '2026-01-17T01:00:00.000000Z', 'done');
INSERT INTO audit (at, who, action, object, before, after)
VALUES ('2026-01-17T01:00:00.000000Z', 'anna', 'disable', 'job export', '{"enabled": true}', '{"enabled": false}');
INSERT INTO job_version VALUES ('export', 'ab', '{}', '2026-01-16T00:00:00.000000Z', '');
"""
"""Rows as versions before 5 wrote them, in which a scheduled run was called a fire."""
