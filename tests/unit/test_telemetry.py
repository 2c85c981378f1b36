"""Lineage and traces of runs reach real HTTP receivers, a file and a topic, and never get in the way of a run."""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import sqlite3
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import openlineage.client.generated as generated
import pytest
from loguru import logger
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from core.admin.check import check
from core.app import App
from core.errors import QueryFailed, RunFailed
from core.kafka import clients
from core.model.connection import DatabaseConnection
from core.model.run import Run
from core.run.cancellation import Stop
from core.run.end_notes import EndNote
from core.run.execute import dry_run
from core.run.lineage_datasets import input_tables
from core.run.observation import NOT_OBSERVED, Observation
from core.run.telemetry import Receiver, Telemetry, observed, report_lost_ends
from core.sources import find_dialect
from core.workspace.paths import Workspace
from core.workspace.settings import read_settings
from tests.rigs.http_receiver import HttpReceiver, http_receiver
from tests.rigs.list_client import BROKERS, ListBroker

NOW = datetime(2026, 1, 17, 1, tzinfo=UTC)
ADDRESS = "list:9092"
ROWS = 30
API_KEY, PASSWORD = "key-of-the-lineage-server", "password-of-the-database"
LINEAGE = "/api/v1/lineage"


@pytest.fixture(autouse=True)
def entry(monkeypatch: pytest.MonkeyPatch) -> None:
    client = clients.KafkaClient("tests.rigs.list_client:ListPublisher", libraries=("nothing",))
    monkeypatch.setitem(clients.CLIENTS, "list", client)


@pytest.fixture(autouse=True)
def broker(monkeypatch: pytest.MonkeyPatch) -> ListBroker:
    made = ListBroker()
    monkeypatch.setitem(BROKERS, ADDRESS, made)
    return made


@pytest.fixture
def receiver() -> Iterator[HttpReceiver]:
    with http_receiver() as made:
        yield made


@pytest.fixture
def warnings() -> Iterator[list[str]]:
    """The log lines from WARNING on."""
    lines: list[str] = []
    number = logger.add(lambda line: lines.append(str(line)), level="WARNING", format="{message}")
    yield lines
    logger.remove(number)


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    with closing(sqlite3.connect(tmp_path / "tracce.sqlite")) as db, db:
        db.execute("CREATE TABLE tracce (barcode TEXT, importo INTEGER)")
        db.executemany("INSERT INTO tracce VALUES (?, ?)", [(f"57268{n:03}", n) for n in range(ROWS)])
        db.execute("INSERT INTO tracce VALUES (NULL, 1)")
    connection = {"name": "LITE", "environment": "test", "db_type": "sqlite", "database": "tracce.sqlite"}
    other = {
        "name": "PG",
        "environment": "test",
        "db_type": "postgresql",
        "host": "h",
        "database": "d",
        "username": "u",
        "password": "env:PG_PASSWORD",
    }
    cluster = {"name": "List", "client": "list", "enable_idempotence": False, "bootstrap_servers": ADDRESS}
    document = {
        "default_environment": "test",
        "connections": [connection, other],
        "kafka_connections": {"test": cluster},
    }
    (tmp_path / "connections.json").write_text(json.dumps(document), encoding="utf-8")
    (tmp_path / "queries").mkdir()
    write(tmp_path, "SELECT barcode, importo FROM tracce ORDER BY barcode")
    return tmp_path


def write(workspace: Path, sql: str, **job: Any) -> None:
    (workspace / "queries/tracce.sql").write_text(sql, encoding="utf-8")
    document = {
        "name": "Tracce",
        "query": "tracce.sql",
        "connection": "LITE",
        "kafka_config": {"message_key_field": "barcode", "topic": "tracce", **job.pop("kafka_config", {})},
        **job,
    }
    (workspace / "queries/tracce.job.json").write_text(json.dumps(document), encoding="utf-8")


def run(workspace: Path, **settings: str) -> Run:
    environ = {"PG_PASSWORD": PASSWORD, "LINEAGE_KEY": API_KEY, "PSTT_FETCH_ROWS": "10", **settings}
    with App.open(workspace, environ, log=False) as app:
        return app.execute(app.plan(app.job("tracce"), now=NOW), stop=Stop(), now=lambda: datetime.now(UTC))


# ── OpenLineage ───────────────────────────────────────────────────────────────────────────────


def facet_classes() -> dict[str, type]:
    """URL of each schema of the OpenLineage client → the class that was generated from it."""
    found = {}
    for module in pkgutil.iter_modules(generated.__path__):
        for made in vars(importlib.import_module(f"{generated.__name__}.{module.name}")).values():
            if isinstance(made, type) and hasattr(made, "_get_schema"):
                found[made._get_schema()] = made
    return found


def checked(event: dict[str, Any]) -> dict[str, Any]:
    """The event, each of whose facets has the keys that its schema requires and no other."""
    assert event["schemaURL"].endswith("OpenLineage.json#/$defs/RunEvent")
    uuid.UUID(event["run"]["runId"])
    assert datetime.fromisoformat(event["eventTime"]).tzinfo is not None
    classes = facet_classes()
    holders = [event["run"], event["job"], *event["inputs"], *event["outputs"]]
    facets = [
        facet
        for holder in holders
        for key in holder
        if key.lower().endswith("facets")
        for facet in holder[key].values()
    ]
    assert facets
    for facet in facets:
        assert facet["_producer"].startswith("urn:pstt-kafka:")
        classes[facet["_schemaURL"]](**{key: value for key, value in facet.items() if not key.startswith("_")})
    return event


def events(receiver: HttpReceiver) -> list[dict[str, Any]]:
    return [checked(json.loads(body)) for body in receiver.bodies(LINEAGE)]


def test_a_run_is_a_start_and_a_complete_with_tables_topic_schema_and_counts(workspace: Path, receiver: HttpReceiver):
    done = run(workspace, OPENLINEAGE_URL=receiver.url, OPENLINEAGE_API_KEY="env:LINEAGE_KEY")
    assert (done.state, done.acknowledged, done.rejected) == ("succeeded", ROWS, 1)
    start, complete = events(receiver)
    assert (start["eventType"], complete["eventType"]) == ("START", "COMPLETE")
    assert start["run"]["runId"] == complete["run"]["runId"]
    assert start["eventTime"] <= complete["eventTime"]
    assert {request.headers["authorization"] for request in receiver.requests} == {f"Bearer {API_KEY}"}
    for event in (start, complete):
        assert (event["job"]["namespace"], event["job"]["name"]) == ("pstt-kafka", "tracce")
        sql = event["job"]["facets"]["sql"]
        assert (sql["query"], sql["dialect"]) == ("SELECT barcode, importo FROM tracce ORDER BY barcode", "sqlite")
        assert event["run"]["facets"]["nominalTime"]["nominalStartTime"] == "2026-01-17T01:00:00.000000Z"
        (table,), (topic,) = event["inputs"], event["outputs"]
        assert (table["namespace"], table["name"]) == (f"sqlite://{workspace / 'tracce.sqlite'}", "tracce")
        assert (topic["namespace"], topic["name"]) == ("kafka://list:9092", "tracce")
    (table,), (topic,) = complete["inputs"], complete["outputs"]
    assert table["inputFacets"]["inputStatistics"]["rowCount"] == ROWS + 1
    assert topic["outputFacets"]["outputStatistics"]["rowCount"] == ROWS
    assert topic["outputFacets"]["outputStatistics"]["size"] == done.bytes
    assert [(f["name"], f["type"]) for f in topic["facets"]["schema"]["fields"]] == [
        ("barcode", "text"),
        ("importo", "integer"),
    ]
    assert [f["name"] for f in table["facets"]["schema"]["fields"]] == ["barcode", "importo"]
    tags = {tag["key"]: tag["value"] for tag in complete["run"]["facets"]["tags"]["tags"]}
    assert (tags["run_id"], tags["verdict"], tags["rows_rejected"]) == (done.run_id, "complete_with_rejects", "1")


def test_a_run_that_fails_is_a_fail_with_its_error(workspace: Path, receiver: HttpReceiver):
    write(workspace, "SELECT barcode FROM no_such_table")
    done = run(workspace, OPENLINEAGE_URL=receiver.url)
    assert done.state == "failed"
    start, fail = events(receiver)
    assert (start["eventType"], fail["eventType"]) == ("START", "FAIL")
    assert fail["run"]["facets"]["errorMessage"]["message"].startswith("QueryFailed: ")
    assert fail["outputs"][0]["outputFacets"]["outputStatistics"]["rowCount"] == 0


def test_events_go_into_a_file_and_onto_a_topic_too(workspace: Path, broker: ListBroker):
    run(
        workspace, PSTT_LINEAGE_FILE="logs/lineage.jsonl", PSTT_LINEAGE_TOPIC="test/lineage", OPENLINEAGE_NAMESPACE="ns"
    )
    lines = (workspace / "logs/lineage.jsonl").read_bytes().splitlines()
    on_topic = broker.records["lineage"]
    assert [checked(json.loads(line))["eventType"] for line in lines] == ["START", "COMPLETE"]
    assert [json.loads(record.value) for record in on_topic] == [json.loads(line) for line in lines]
    assert {record.key for record in on_topic} == {b"run:ns/tracce"}


def test_a_file_that_a_job_writes_is_the_output(workspace: Path, receiver: HttpReceiver):
    write(workspace, "SELECT barcode, importo FROM tracce", export_format="csv", output="tracce.csv")
    done = run(workspace, OPENLINEAGE_URL=receiver.url)
    _, complete = events(receiver)
    (file,) = complete["outputs"]
    assert (file["namespace"], file["name"]) == ("file", (workspace / "exports/tracce.csv").as_posix())
    assert file["outputFacets"]["outputStatistics"]["rowCount"] == done.acknowledged == ROWS + 1


def test_a_dry_run_reports_nothing(workspace: Path, receiver: HttpReceiver):
    with App.open(workspace, {"OPENLINEAGE_URL": receiver.url}, log=False) as app:
        dry_run(app, app.plan(app.job("tracce"), now=NOW), stop=Stop(), now=lambda: NOW)
    assert receiver.requests == []


def started_run(sql: str) -> Run:
    nothing: dict[str, Any] = {field.name: None for field in fields(Run)}
    return Run(**nothing | {"sql_text": sql, "query": "q.sql"})


PG = DatabaseConnection("TT2", "postgresql", host="tt2.example.com", database="tt2", username="pstt")
ORACLE = DatabaseConnection("A00", "oracle", host="cdg", port=1522, service_name="CDG", username="pstt")
MSSQL = DatabaseConnection("BOSC", "sqlserver", host="bosc", database="BOSC", username="pstt")


@pytest.mark.parametrize(
    ("connection", "sql", "expected"),
    [
        (PG, "SELECT * FROM Parcel p JOIN cdg.scan s USING (id)", ["tt2.public.parcel", "tt2.cdg.scan"]),
        (PG, 'WITH x AS (SELECT 1 FROM "Parcel") SELECT * FROM x, x y', ["tt2.public.Parcel"]),
        (
            PG,
            "SELECT * FROM a WHERE id = %(P1)s AND n IN (SELECT n FROM b) UNION SELECT * FROM a",
            ["tt2.public.a", "tt2.public.b"],
        ),
        (PG, "SELECT 1", ["q.sql"]),
        (PG, "SELECT ((( not SQL", ["q.sql"]),
        (ORACLE, "SELECT * FROM export_table t WHERE trkdate = :P1", ["CDG.PSTT.EXPORT_TABLE"]),
        (ORACLE, "SELECT * FROM cdg.export_table", ["CDG.CDG.EXPORT_TABLE"]),
        (MSSQL, "SELECT TOP 5 * FROM [Parcel] JOIN other.dbo.Scan ON 1 = 1", ["BOSC.dbo.Parcel", "other.dbo.Scan"]),
    ],
)
def test_tables_are_named_as_openlineage_names_them(connection: DatabaseConnection, sql: str, expected: list[str]):
    found = input_tables(started_run(f"SET x = 1;\n{sql}"), connection, find_dialect(connection.db_type))
    assert sorted(name.name for name in found) == sorted(expected)
    namespaces = {"TT2": "postgres://tt2.example.com:5432", "A00": "oracle://cdg:1522", "BOSC": "mssql://bosc:1433"}
    assert {name.namespace for name in found} == {namespaces[connection.name]}


# ── OpenTelemetry ─────────────────────────────────────────────────────────────────────────────


def test_a_run_is_a_trace_whose_context_its_messages_carry(workspace: Path, receiver: HttpReceiver, broker: ListBroker):
    write(workspace, "SELECT barcode, importo FROM tracce", kafka_config={"traceparent": True})
    done = run(workspace, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url + "/", OTEL_EXPORTER_OTLP_HEADERS="X-Token=abc, y=1")
    (body,) = receiver.bodies("/v1/traces")
    (resource,) = ExportTraceServiceRequest.FromString(body).resource_spans
    named = {a.key: a.value.string_value for a in resource.resource.attributes}
    assert named["service.name"] == "pstt-kafka"
    (scope,) = resource.scope_spans
    spans = {span.name: span for span in scope.spans}
    assert set(spans) == {"run tracce", "read", "encode", "send", "record"}
    whole = spans["run tracce"]
    for name, span in spans.items():
        assert span.trace_id == whole.trace_id
        assert span.parent_span_id == (b"" if span is whole else whole.span_id), name
        assert whole.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano, name
        assert span.end_time_unix_nano <= whole.end_time_unix_nano, name
    attributes = {a.key: a.value for a in whole.attributes}
    assert attributes["pstt.run_id"].string_value == done.run_id
    assert attributes["messaging.destination.name"].string_value == "tracce"
    assert attributes["pstt.rows.acknowledged"].int_value == ROWS
    pieces = {a.key: a.value.int_value for a in spans["read"].attributes}["pstt.pieces"]
    assert pieces == 5, "31 rows, 10 a fetch, and the end of the result"
    context = f"00-{whole.trace_id.hex()}-{whole.span_id.hex()}-01".encode()
    assert {dict(record.headers)["traceparent"] for record in broker.records["tracce"]} == {context}
    assert {request.headers["x-token"] for request in receiver.requests} == {"abc"}

    (body,) = receiver.bodies("/v1/metrics")
    metrics = ExportMetricsServiceRequest.FromString(body).resource_metrics[0].scope_metrics[0].metrics
    sums = {m.name: m.sum.data_points[0].as_int for m in metrics if m.HasField("sum")}
    assert sums == {
        "pstt.runs": 1,
        "pstt.rows.read": ROWS + 1,
        "pstt.rows.acknowledged": ROWS,
        "pstt.rows.rejected": 1,
        "pstt.rows.failed": 0,
        "pstt.bytes": done.bytes,
    }
    (duration,) = [m for m in metrics if m.name == "pstt.run.duration"]
    assert duration.histogram.data_points[0].count == 1


def test_a_failed_run_is_a_span_with_an_error(workspace: Path, receiver: HttpReceiver):
    write(workspace, "SELECT barcode FROM no_such_table")
    run(workspace, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url)
    (body,) = receiver.bodies("/v1/traces")
    spans = ExportTraceServiceRequest.FromString(body).resource_spans[0].scope_spans[0].spans
    whole = next(span for span in spans if span.name == "run tracce")
    assert whole.status.code == 2
    assert {a.key: a.value.string_value for a in whole.attributes}["error.type"] == "QueryFailed"


@pytest.mark.parametrize("wants", [True, False])
def test_messages_carry_no_context_where_no_traces_are_sent_or_none_is_wanted(
    workspace: Path, receiver: HttpReceiver, broker: ListBroker, wants: bool
):
    write(workspace, "SELECT barcode, importo FROM tracce", kafka_config={"traceparent": wants})
    run(workspace, **({} if wants else {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url}))
    assert all("traceparent" not in dict(record.headers) for record in broker.records["tracce"])


# ── never in the way ──────────────────────────────────────────────────────────────────────────


def test_without_a_setting_nothing_is_observed_and_no_library_is_imported(workspace: Path):
    with App.open(workspace, {}, log=False) as app, observed(app, app.plan(app.job("tracce"), now=NOW)) as observer:
        assert observer is NOT_OBSERVED
    code = (
        "import sys, core.run.execute, core.run.telemetry\n"
        "assert not [m for m in sys.modules if m.startswith(('openlineage', 'opentelemetry', 'requests'))]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


@pytest.mark.parametrize("setting", ["OPENLINEAGE_URL", "OTEL_EXPORTER_OTLP_ENDPOINT"])
@pytest.mark.parametrize("status", [None, 401, 500])
def test_a_server_that_is_away_or_refuses_is_one_warning_and_a_green_run(
    workspace: Path, warnings: list[str], setting: str, status: int | None
):
    with http_receiver(status or 200) as receiver:
        url = receiver.url if status else "http://127.0.0.1:9/SECRET-PATH"
        done = run(workspace, **{setting: url})
    assert (done.state, done.acknowledged, done.warnings) == ("succeeded", ROWS, ())
    assert len(warnings) == 1
    assert warnings[0].startswith(("lineage to http://127.0.0.1", "traces to http://127.0.0.1"))
    assert "the run is not affected" in warnings[0]
    assert "SECRET-PATH" not in warnings[0]


class Stuck:
    """A receiver that does not return until the test lets it."""

    def __init__(self) -> None:
        self.is_called, self.may_return = threading.Event(), threading.Event()

    def started(self, seen: Observation) -> None:
        self.is_called.set()
        self.may_return.wait(60)

    def ended(self, seen: Observation) -> None:
        raise QueryFailed("it is over")


def test_a_server_that_hangs_is_waited_for_so_long_and_no_longer(workspace: Path, warnings: list[str]):
    stuck = Stuck()
    with App.open(workspace, {}, log=False) as app:
        plan = app.plan(app.job("tracce"), now=NOW)
        telemetry = Telemetry([Receiver("stuck", lambda _run: stuck)], end_wait_s=0.01)
        started = app.ledger.start(plan, NOW)
        telemetry.started(started)
        assert stuck.is_called.wait(60)
        telemetry.ended(replace(started, state="succeeded"))
        telemetry.close()
    assert warnings == ["stuck: not all was sent within 0.01 s; the run is not affected\n"]
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "telemetry"]
    assert thread.daemon
    stuck.may_return.set()
    thread.join(60)
    assert len(warnings) == 2
    assert "it is over" in warnings[1]


def test_a_library_that_is_not_installed_is_one_warning(
    workspace: Path, warnings: list[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delitem(sys.modules, "core.run.lineage", raising=False)
    monkeypatch.setitem(sys.modules, "openlineage.client", None)
    assert run(workspace, OPENLINEAGE_URL="http://127.0.0.1:9").state == "succeeded"
    (line,) = warnings
    assert "openlineage.client is not installed (pip install -r requirements-lineage.txt)" in line


def test_a_secret_that_cannot_be_read_is_one_warning_that_names_its_reference(workspace: Path, warnings: list[str]):
    assert run(workspace, OPENLINEAGE_URL="http://127.0.0.1:9", OPENLINEAGE_API_KEY="env:NOT_SET").state == "succeeded"
    (line,) = warnings
    assert "the variable of env:NOT_SET is not set" in line


def test_no_secret_is_in_an_event_a_span_or_the_log(workspace: Path, receiver: HttpReceiver, warnings: list[str]):
    run(
        workspace,
        OPENLINEAGE_URL=receiver.url,
        OPENLINEAGE_API_KEY="env:LINEAGE_KEY",
        OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url,
        OTEL_EXPORTER_OTLP_HEADERS=f"authorization=Bearer {API_KEY}",
    )
    assert len(receiver.requests) == 4
    for request in receiver.requests:
        assert request.headers["authorization"] == f"Bearer {API_KEY}"
        for secret in (API_KEY, PASSWORD):
            assert secret.encode() not in request.body
    assert warnings == []


# ── an end that was lost ──────────────────────────────────────────────────────────────────────


def test_an_end_that_no_server_took_is_sent_after_the_next_run(workspace: Path, receiver: HttpReceiver):
    receiver.status = 500
    first = run(workspace, OPENLINEAGE_URL=receiver.url)
    assert [file.name for file in (workspace / ".pstt/lineage").iterdir()] == [first.run_id]
    receiver.status = 200
    receiver.requests.clear()
    run(workspace, OPENLINEAGE_URL=receiver.url)
    own_start, own_end, lost = events(receiver)
    assert (own_start["eventType"], own_end["eventType"], lost["eventType"]) == ("START", "COMPLETE", "COMPLETE")
    assert own_start["run"]["runId"] == own_end["run"]["runId"] != lost["run"]["runId"]
    tags = {tag["key"]: tag["value"] for tag in lost["run"]["facets"]["tags"]["tags"]}
    assert tags["run_id"] == first.run_id
    assert lost["outputs"][0]["outputFacets"]["outputStatistics"]["rowCount"] == ROWS
    assert list((workspace / ".pstt/lineage").iterdir()) == []


def test_a_run_whose_process_was_killed_is_a_fail_once_it_has_a_verdict(workspace: Path, receiver: HttpReceiver):
    with App.open(workspace, {"OPENLINEAGE_URL": receiver.url}, log=False) as app:
        started = app.ledger.start(app.plan(app.job("tracce"), now=NOW), NOW)
        note = EndNote.write(app.workspace, started)
        unknown = EndNote.write(app.workspace, replace(started, run_id="0" * 10))
        report_lost_ends(app)
        assert (receiver.requests, note.file.exists(), unknown.file.exists()) == ([], True, False), "it may be running"
        app.ledger.close_run(started.run_id, "interrupted", RunFailed("its process ended with code -9"), NOW)
        report_lost_ends(app)
        (fail,) = events(receiver)
        assert fail["eventType"] == "FAIL"
        assert "its process ended with code -9" in fail["run"]["facets"]["errorMessage"]["message"]
        assert not note.file.exists()
        receiver.requests.clear()
        report_lost_ends(app)
        assert receiver.requests == []


def test_an_end_that_nobody_takes_for_a_week_is_given_up(workspace: Path):
    with App.open(workspace, {"OPENLINEAGE_URL": "http://127.0.0.1:9"}, log=False) as app:
        started = app.ledger.start(app.plan(app.job("tracce"), now=NOW), NOW)
        note = EndNote.write(app.workspace, started)
        app.ledger.close_run(started.run_id, "interrupted", RunFailed("it was killed"), NOW)
        report_lost_ends(app)
        assert note.file.exists()
        os.utime(note.file, (0, 0))
        report_lost_ends(app)
        assert not note.file.exists()


def test_check_warns_about_what_would_keep_events_from_being_sent(workspace: Path, monkeypatch: pytest.MonkeyPatch):
    environ = {
        "PG_PASSWORD": PASSWORD,
        "OPENLINEAGE_URL": "http://marquez:5000",
        "OPENLINEAGE_API_KEY": "env:NOT_SET",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318",
    }

    def found(**more: str) -> list[str]:
        findings = check(Workspace(workspace), {**environ, **more})
        return [f"{f.severity}: {f.text}" for f in findings if f.where == "lineage and traces"]

    assert found() == ["warning: the variable of env:NOT_SET is not set"]
    assert found(NOT_SET="x") == []
    (line,) = found(NOT_SET="x", PSTT_LINEAGE_TOPIC="no-such-cluster/lineage")
    assert "no-such-cluster" in line
    monkeypatch.setattr("core.run.telemetry.find_spec", lambda name: None if name == "opentelemetry.sdk" else name)
    assert found(NOT_SET="x") == [
        "warning: opentelemetry.sdk is not installed, so nothing is sent: OTEL_EXPORTER_OTLP_ENDPOINT is set"
    ]


@pytest.mark.parametrize(
    "value", ["localhost:4317", "http://user:pass-word@marquez:5000", "ftp://marquez", "http://[::1", "http://h:port"]
)
@pytest.mark.parametrize("name", ["OPENLINEAGE_URL", "OTEL_EXPORTER_OTLP_ENDPOINT"])
def test_a_url_that_is_none_or_has_a_password_is_one_warning(
    workspace: Path, warnings: list[str], name: str, value: str
):
    """The variable may be set for another program."""
    assert run(workspace, **{name: value}).state == "succeeded"
    (line,) = warnings
    assert f"{name} is not usable" in line
    environ = {"PG_PASSWORD": "x", name: value}
    found = [f for f in check(Workspace(workspace), environ) if f.where == "lineage and traces"]
    assert [finding.severity for finding in found] == ["warning"]
    settings, _ = read_settings(Workspace(workspace), environ)
    assert settings is not None
    for text in (line, str(found), str(settings.table())):
        assert "pass-word" not in text


def test_check_says_that_traces_are_not_sent_over_grpc(workspace: Path):
    environ = {
        "PG_PASSWORD": PASSWORD,
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
    }
    (finding,) = [f for f in check(Workspace(workspace), environ) if f.where == "lineage and traces"]
    assert "traces and metrics are sent over HTTP" in finding.text


def test_the_secrets_are_masked_in_the_list_of_settings(tmp_path: Path):
    given = {"OPENLINEAGE_API_KEY": API_KEY, "OTEL_EXPORTER_OTLP_HEADERS": f"a={API_KEY}"}
    settings, _ = read_settings(Workspace(tmp_path), given)
    assert settings is not None
    assert {row.value for row in settings.table() if row.name in given} == {"***"}
