"""`check` reads every file of a workspace, reports all problems at once, contacts no server and changes nothing."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from core.admin.check import Finding, check
from core.cli.main import app
from core.workspace.paths import Workspace

SQL = "define DATA='2026-01-17' --Obbligatorio: the day\nSELECT barcode FROM t WHERE d = '&DATA'"
JOB: dict[str, Any] = {
    "name": "Export",
    "query": "export.sql",
    "connection": "db",
    "parameters": {"DATA": "{date-1}"},
    "kafka_config": {"topic": "t", "message_key_field": "barcode"},
}
DATABASE: dict[str, Any] = {
    "name": "db",
    "db_type": "postgresql",
    "host": "db.example.com",
    "database": "d",
    "username": "u",
    "password": "env:DB_PASSWORD",
}
CLUSTER: dict[str, Any] = {"bootstrap_servers": "kafka.example.com:9092"}
ENVIRON = {"DB_PASSWORD": "x"}


@pytest.fixture
def place(tmp_path: Path) -> Workspace:
    place = Workspace(tmp_path)
    place.queries_dir.mkdir()
    query(place, SQL)
    job(place)
    connections(place)
    return place


def query(place: Workspace, text: str, name: str = "export.sql") -> None:
    (place.queries_dir / name).write_text(text, encoding="utf-8")


def job(place: Workspace, slug: str = "export", **changes: Any) -> None:
    (place.queries_dir / f"{slug}.job.json").write_text(json.dumps({**JOB, **changes}, indent=1), encoding="utf-8")


def connections(place: Workspace, cluster: dict[str, Any] | None = None, **changes: Any) -> None:
    document = {
        "default_environment": "c",
        "connections": [{**DATABASE, **changes}],
        "kafka_connections": {"c": CLUSTER if cluster is None else cluster},
    }
    place.connections_file.write_text(json.dumps(document, indent=1), encoding="utf-8")


def errors(place: Workspace, **environ: str) -> list[Finding]:
    return [problem for problem in check(place, {**ENVIRON, **environ}) if problem.severity == "error"]


def only(place: Workspace, **environ: str) -> Finding:
    (problem,) = check(place, {**ENVIRON, **environ})
    return problem


def test_a_workspace_in_order_has_no_problem(place):
    assert check(place, ENVIRON) == []


def test_nothing_is_contacted_and_nothing_is_changed(place, monkeypatch):
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a socket was opened")

    for name in ("socket", "create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, refuse)
    before = {path: path.read_bytes() for path in place.root.rglob("*") if path.is_file()}
    connections(place, {**CLUSTER, "linger_ms": "x"})
    before[place.connections_file] = place.connections_file.read_bytes()
    assert errors(place) != []
    assert {path: path.read_bytes() for path in place.root.rglob("*") if path.is_file()} == before


def test_all_problems_of_all_files_come_at_once(place):
    place.env_file.write_text("KAFKA_LINGER=5\nKAFKA_BATCH_SIZE=x\n", encoding="utf-8")
    job(place, "torn", cron="x")
    job(place, "lost", name="Lost", connection="dbb")
    connections(place, {**CLUSTER, "bootstrap_server": "h:1"}, hots="x")
    found = errors(place)
    assert sorted(problem.where.split(",")[0] for problem in found) == [
        *(".env", ".env", "connections.json", "connections.json", "lost.job.json", "torn.job.json")
    ]


@pytest.mark.parametrize(
    ("changes", "where", "text", "remedy"),
    [
        ({"connection": "dbb"}, "export.job.json", 'no connection "dbb"', 'did you mean "db"?'),
        ({"query": "exprot.sql"}, "exprot.sql", "", "queries"),
        ({"parameters": {}}, "export.sql, line 1", "DATA", ""),
        ({"parameters": {"DATA": "{date-1}", "DATE": "x"}}, "", "has no parameter DATE: the nearest is DATA", ""),
        ({"parameters": {"DATA": "{dates}"}}, "", "{dates}", ""),
        ({"kafka_config": {"cluster": "cc"}}, "export.job.json", 'no cluster "cc"', 'did you mean "c"?'),
    ],
)
def test_what_a_job_names_and_is_not_there_is_an_error_before_any_run(place, changes, where, text, remedy):
    job(place, **changes)
    (problem,) = errors(place)
    assert "export.job.json" in problem.where
    assert where in problem.where
    assert text in problem.text
    assert remedy in problem.remedy


@pytest.mark.parametrize(
    ("sql", "text"),
    [
        ("DELETE FROM t; SELECT 1 AS barcode", "DELETE"),
        ("SELECT '&NAME' AS barcode FROM t WHERE d = '&DATA'", "NAME"),
    ],
)
def test_a_query_that_cannot_run_is_found_with_its_line(place, sql, text):
    query(place, f"{SQL.splitlines()[0]}\n{sql}")
    problem = errors(place)[0]
    assert "export.sql, line 2" in problem.where
    assert text in problem.text


PARTS = {"partitions": {"column": "barcode", "count": 4}}


@pytest.mark.parametrize(
    ("sql", "partitions", "text"),
    [
        ("SELECT barcode FROM t", {"column": "barcode", "count": 4}, ""),
        ("SELECT * FROM t", {"column": "id", "count": 4, "by": "hash"}, ""),
        ("SELECT t.* FROM t", {"column": "id", "count": 4}, ""),
        ("SELECT barcode FROM t LIMIT 5", {"column": "barcode", "count": 4}, "limits its rows"),
        ("SELECT barcode, barcode FROM t", {"column": "barcode", "count": 4}, "two columns of the result"),
        ("SELECT barcode AS code FROM t", {"column": "barcode", "count": 4}, "which the query does not return"),
        ("SELECT a FROM t UNION ALL SELECT b FROM u", {"column": "b", "count": 4}, "which the query does not return"),
    ],
)
def test_whether_a_query_can_be_split_is_known_before_any_run(place, sql, partitions, text):
    query(place, sql)
    job(place, partitions=partitions, order="none", parameters={})
    if not text:
        assert check(place, ENVIRON) == []
        return
    found = only(place)
    assert (found.severity, text in found.text) == ("error", True), found
    assert "export" in found.where
    assert found.remedy


def test_a_job_in_parts_on_a_mock_broker_is_a_warning(place):
    query(place, "SELECT barcode FROM t")
    job(place, **PARTS, parameters={})
    connections(place, {"name": "demo", "mock_brokers": 1, "default_topic": "t"})
    found = only(place)
    assert (found.severity, found.where) == ("warning", "export.job.json")
    assert "the run has no parts" in found.text
    job(place, partitions={"column": "barcode", "count": 1}, parameters={})
    assert check(place, ENVIRON) == []


def test_a_query_that_no_job_uses_is_looked_at_too(place):
    query(place, "SELECT '&NOWHERE' FROM t", "unused.sql")
    assert "unused.sql, line 1" in only(place).where


def test_a_literal_password_is_a_warning_and_never_shown(place):
    connections(place, password="hunter2")
    place.connections_file.chmod(0o600)
    problem = only(place)
    assert (problem.severity, problem.text) == ("warning", '"db" has its password in the file')
    assert "env:NAME" in problem.remedy
    assert "hunter2" not in repr(problem)


@pytest.mark.skipif(os.name == "nt", reason="the folder's rights apply there")
def test_a_file_with_a_password_that_others_may_read_is_a_warning(place):
    connections(place, password="hunter2")
    place.connections_file.chmod(0o644)
    assert "chmod 600 connections.json" in [problem.remedy for problem in check(place, ENVIRON)]


def test_a_secret_that_is_not_there_is_reported_once_with_its_line(place):
    job(place, "second", name="Second")
    (problem,) = check(place, {})
    assert problem.where.startswith("connections.json, line ")
    assert "the variable of env:DB_PASSWORD is not set" in problem.text


def test_a_cluster_that_no_job_uses_is_looked_at_too(place):
    document = json.loads(place.connections_file.read_text(encoding="utf-8"))
    document["kafka_connections"]["unused"] = {**CLUSTER, "security_protocol": "SASL_SSL"}
    place.connections_file.write_text(json.dumps(document), encoding="utf-8")
    assert "SASL_SSL needs sasl_mechanism" in only(place).text


def test_a_client_that_cannot_do_what_is_asked_is_an_error(place):
    connections(place, {**CLUSTER, "client": "kafka-python-ng"})
    assert "idempoten" in only(place).text
    connections(place, {**CLUSTER, "client": "kafka-python-ng", "enable_idempotence": False})
    job(place, delivery="exactly_once")
    assert "kafka-python-ng" in only(place).text


def test_a_variable_that_looks_like_a_setting_is_a_warning(place):
    problem = only(place, KAFKA_LINGERMS="5", KAFKA_HOME="/opt/kafka")
    assert (problem.severity, problem.text) == ("warning", "KAFKA_LINGERMS is no setting and has no effect")


def test_without_a_job_there_is_a_warning_and_no_error(place):
    (place.queries_dir / "export.job.json").unlink()
    query(place, "SELECT 1 AS a")
    problem = only(place)
    assert (problem.severity, problem.text) == ("warning", "there is no *.job.json")


@pytest.mark.parametrize(("changes", "code"), [({}, 0), ({"cron": "x"}, 2)])
def test_the_exit_code_shows_errors_and_json_is_one_document(place, monkeypatch, changes, code):
    monkeypatch.setenv("DB_PASSWORD", "x")
    job(place, **changes)
    done = CliRunner().invoke(app, ["check", "--workspace", str(place.root), "--json"])
    assert done.exit_code == code
    document = json.loads(done.stdout)
    assert document["ok"] is (code == 0)
    shown = CliRunner().invoke(app, ["check", "--workspace", str(place.root)])
    assert shown.exit_code == code
    assert ("✔" in shown.stdout) is (code == 0)
