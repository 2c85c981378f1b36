"""Adding a database takes one file (`tests/rigs/duckdb_database.py`) and one entry in the registry."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pytest

from core import sources
from core.admin.check import Finding, check
from core.app import App
from core.errors import SqlError
from core.run.cancellation import Stop
from core.run.planning import bound_query
from core.workspace.paths import Workspace

NOW = datetime(2026, 1, 17, 1, tzinfo=UTC)
QUERY = """define DATA='2026-01-17'  --Obbligatorio: the day [type=date]
SELECT barcode, trkdate, importo FROM tracce WHERE trkdate = &DATA AND stato = 'N' ORDER BY barcode;
"""


@pytest.fixture(autouse=True)
def entry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sources.DATABASES, "duckdb", sources.Database("tests.rigs.duckdb_database"))


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    with duckdb.connect(str(tmp_path / "tracce.duckdb")) as db:
        db.execute("CREATE TABLE tracce (barcode VARCHAR, trkdate DATE, importo DECIMAL(9,2), stato VARCHAR)")
        db.execute("INSERT INTO tracce SELECT '57268000' || i, DATE '2026-01-16', i / 4, 'N' FROM range(10, 30) t(i)")
    connection = {"name": "DUCK", "environment": "test", "db_type": "duckdb", "database": "tracce.duckdb"}
    cluster = {"name": "mock", "mock_brokers": 1, "default_topic": "tracce"}
    document = {"connections": [connection], "kafka_connections": {"test": cluster}}
    (tmp_path / "connections.json").write_text(json.dumps(document), encoding="utf-8")
    queries = tmp_path / "queries"
    queries.mkdir()
    (queries / "tracce.sql").write_text(QUERY, encoding="utf-8")
    job = {
        "name": "Tracce",
        "query": "tracce.sql",
        "connection": "DUCK",
        "parameters": {"DATA": "{date-1}"},
        "kafka_config": {"message_key_field": "barcode"},
    }
    (queries / "tracce.job.json").write_text(json.dumps(job), encoding="utf-8")
    return tmp_path


def test_a_job_runs_with_a_database_that_is_one_file_and_one_entry(workspace: Path) -> None:
    assert [problem for problem in check_files(workspace) if problem.severity == "error"] == []
    with App.open(workspace, {}, log=False) as app:
        plan = app.plan(app.job("tracce"), now=NOW)
        first = app.preview(plan, rows=1).messages[0]
        run = app.execute(plan, stop=Stop(), now=lambda: NOW)
    assert first.key == "5726800010"
    assert '"importo":2.50' in first.value
    assert (run.verdict, run.rows_read, run.acknowledged) == ("complete", 20, 20)


def test_its_statements_are_guarded_and_bound_by_its_own_rules(workspace: Path) -> None:
    query = bound_query(workspace / "queries/tracce.sql", "duckdb", {"DATA": "2026-01-16"}, NOW)
    assert "trkdate = $P_DATA AND" in query.steps[0].sql
    (workspace / "queries/files.sql").write_text("SELECT * FROM read_csv('/etc/passwd')", encoding="utf-8")
    with pytest.raises(SqlError, match="READ_CSV is not allowed here"):
        bound_query(workspace / "queries/files.sql", "duckdb", {}, NOW)


def test_a_connection_to_it_says_which_keys_it_needs(workspace: Path) -> None:
    document = {"connections": [{"name": "DUCK", "db_type": "duckdb"}]}
    (workspace / "connections.json").write_text(json.dumps(document), encoding="utf-8")
    assert any('connection "DUCK" (duckdb) needs "database"' in problem.text for problem in check_files(workspace))


def check_files(workspace: Path) -> list[Finding]:
    return check(Workspace(workspace), {})
