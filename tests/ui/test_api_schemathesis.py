"""The REST interface responds to any request as its document says, and never with an internal error.

All checks that Schemathesis has are made, by an admin, and without sign-in.
The examples are bounded so that all routes take less than a minute; SCHEMATHESIS_EXAMPLES sets more. Schemathesis'
own plugin (4.32) does not know pytest 9, so its strategies are run by hypothesis itself.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from datetime import UTC, date, datetime, timedelta

import pytest
import schemathesis
from confluent_kafka import Producer
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.core import NOT_SET
from starlette.applications import Starlette
from starlette.routing import Mount

from core import open_workspace
from core.admin.alerts import silence
from core.admin.demo import SLUG, make_demo
from core.admin.edit_queries import query_versions
from core.clock import iso_utc
from core.kafka.mock_cluster import resolved
from core.notify.incidents import begin_incident
from core.notify.outbox import Outbox
from core.records.ledger import Ledger
from core.scheduler.backfills import backfill, cancel_backfill
from core.workspace.jobs import read_job_file
from core.workspace.paths import Workspace
from tests.rigs.callers import caller
from tests.rigs.http_receiver import http_receiver
from tests.ui.rest import add_user, bearer, token
from tests.unit.test_ledger import a_plan
from ui.api import api

JOB = {
    "query": "x.sql",
    "connection": "A00-CDG-Collaudo",
    "scheduling_mode": "cron",
    "cron": "0 2 * * *",
    "timezone": "Europe/Rome",
    "kafka_config": {"topic": "pstt-traces"},
    "export_format": "kafka",
}
TOGETHER = (
    "csv", "types", "email_notification", "expect", "headers", "interval_s", "value_format", "key_format", "schemas",
    "cloudevents", "envelope", "null_value_when", "incremental", "partitions",
)  # fmt: skip
"""Keys of a job whose values have to fit each other, or the query."""
INCREMENTAL = "incremental"
"""The job with a watermark."""
TOPIC = "fuzzed"
MANY_WAYS = ("cluster", "partition", "from_offset", "to_offset", "since", "until", "next", "where")
"""Parameters for messages whose values have to fit the topic, or each other."""
THERE = {
    "id": SLUG, "run_id": "", "number": 0, "topic": TOPIC, "partition": 0, "offset": 0, "rule": "error_rate", "version": 0,
}  # fmt: skip
"""Values of the demo for the parameters of an address."""
BACKFILLS = {"": 0, "cancel": 0, "retry": 0}
"""Last word of an address → the number of a backfill with which that works."""
SILENCES: list[int] = []
"""Numbers of silences that have not ended."""
BACKFILL = {"job": SLUG, "from": "2026-01-01", "to": "2026-01-03", "parallel": 2, "order": "newest"}
FREE_QUERY, GONE_QUERY = "free.sql", "gone.sql"
"""An SQL file that no job reads, and one that was deleted."""
EXAMPLES = int(os.environ.get("SCHEMATHESIS_EXAMPLES", "15"))
SCHEMA = schemathesis.openapi.from_asgi("/api/openapi.json", Starlette(routes=[Mount("/api", api)]))
OPERATIONS = [found.ok() for found in SCHEMA.get_all_operations()]


@pytest.fixture(scope="module")
def workspace_of_demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz") / "demo"
    make_demo(folder, 60, now=datetime.now(UTC))
    with pytest.MonkeyPatch.context() as patch, http_receiver() as receiver:
        patch.setenv("PSTT_WORKSPACE", str(folder))
        add_user(folder, "root", "admin")
        demo = json.loads((folder / "queries" / f"{SLUG}.job.json").read_text(encoding="utf-8"))
        cursor = {"column": "MTF_MTFID", "kind": "integer"}
        (folder / "queries" / f"{INCREMENTAL}.job.json").write_text(
            json.dumps(demo | {"name": INCREMENTAL, "incremental": cursor}), encoding="utf-8"
        )
        with Ledger(Workspace(folder).ledger_file) as ledger:
            run = ledger.start(a_plan(), datetime.now(UTC))
            request = ledger.requests.submit("run", job=SLUG, asked_by="test", now=datetime.now(UTC))
            make_backfills(ledger, read_job_file(Workspace(folder), SLUG).job)
        with open_workspace(folder, log=False) as app:
            producer = Producer({"bootstrap.servers": resolved(app.cluster()).bootstrap_servers})
        producer.produce(TOPIC, '{"data": {}}', "key", partition=0)
        assert producer.flush(30) == 0
        with query_versions(Workspace(folder)) as versions:
            versions.add(GONE_QUERY, b"SELECT 1 AS n", datetime.now(UTC))
            patch.setitem(THERE, "version", versions.of_query(GONE_QUERY)[0].version_id)
        make_alerts(Workspace(folder), receiver.url)
        patch.setitem(THERE, "run_id", run.run_id)
        patch.setitem(THERE, "number", request)
        yield folder


def _of_alerts(case, number):
    """Alerts and silences that are there, and bodies whose values fit the workspace."""
    path = case.operation.path
    if "number" in case.path_parameters:
        case.path_parameters["number"] = SILENCES.pop() if "/silences/" in path and SILENCES else 1
    if isinstance(case.body, dict) and path.endswith("/silences"):
        case.body |= {"rule": "job_late", "until": "2h"}
    if isinstance(case.body, dict) and path.endswith("/simulate"):
        case.body["rules"] = {"error_rate": {"threshold_percent": number % 100}}
    if isinstance(case.body, dict) and "days" in case.body:
        case.body["days"] = int(case.body["days"])  # 10.0 is an integer of JSON Schema, and none of ours
    if path.endswith("/test"):
        case.body = {"channel": "teams"}
    if path.endswith("/rules/{rule}"):
        case.headers["If-Match"] = "*"
        if isinstance(case.body, dict):
            case.body = {"threshold_percent": number % 100}


def make_alerts(workspace, url):
    """An open alert, silences to end, and a channel that takes messages."""
    now = datetime.now(UTC)
    workspace.alerts_file.write_text(json.dumps({"channels": {"teams": url.replace("http", "json")}}), encoding="utf-8")
    with Outbox(workspace.ledger_file) as outbox:
        outbox.apply([begin_incident("error_rate", SLUG, 20.0, "20 % failed", now)])
        outbox.apply([("open_incident", {"incident_id": 1, "now": iso_utc(now)})])
    with Ledger(workspace.ledger_file) as ledger:
        until = now + timedelta(days=1)
        for n in range(3):
            made = silence(ledger, rule="", subject=f"s{n}", until=until, note="", caller=caller("test"), now=now)
            SILENCES.append(made.silence_id)


def make_backfills(ledger, job):
    """Makes one that goes on, one to cancel, and one that was cancelled."""
    given = {"caller": caller("test"), "now": datetime.now(UTC)}
    for month, word in enumerate(BACKFILLS, start=1):
        BACKFILLS[word] = backfill(ledger, job, date(2025, month, 1), date(2025, month, 3), **given).request_id
    cancel_backfill(ledger, BACKFILLS["retry"], **given)


@pytest.fixture(scope="module")
def known(workspace_of_demo):
    """Headers of an admin."""
    return bearer(token(workspace_of_demo, "admin"))


def test_every_route_is_among_them():
    assert len(OPERATIONS) == 55


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["as_told", "wrong"])
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.label)
def test_no_input_makes_a_defect(operation, mode, workspace_of_demo, known):
    file = workspace_of_demo / "queries" / f"{SLUG}.job.json"
    queries = Workspace(workspace_of_demo).queries_dir
    as_it_was = file.read_text(encoding="utf-8")
    met = Counter()

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case):
        file.write_text(as_it_was, encoding="utf-8")
        (queries / FREE_QUERY).write_text("SELECT 1 AS n", encoding="utf-8")
        (queries / GONE_QUERY).unlink(missing_ok=True)
        met[case.call_and_validate(headers=_sensible(case, mode, sum(met.values()), known)).status_code] += 1

    try:
        ask()
    except Unsatisfiable:
        if mode == GenerationMode.POSITIVE:
            raise
        pytest.skip("it takes nothing that could be wrong")
    finally:
        file.write_text(as_it_was, encoding="utf-8")
    # Mock brokers, which the demo has, list no consumer groups.
    if mode == GenerationMode.POSITIVE and not operation.path.endswith("/groups/reset"):
        assert any(status < 400 for status in met), met


def _sensible(case, mode, number, known):
    """Two thirds of the requests are signed in and name an existing job, with a valid job as body."""
    headers = {"Host": "127.0.0.1:8501"}
    for name, value in case.path_parameters.items():
        # Starlette's Mount takes no line break: such a path does not reach the interface, and gets Starlette's plain 404.
        case.path_parameters[name] = re.sub(r"%0[AaDd]|[\r\n]", "_", str(value))
    if number % 3 == 0:
        return headers
    for name in ("Authorization", "authorization"):
        case.headers.pop(name, None)
    case.cookies.clear()
    headers |= known
    case.path_parameters |= {name: THERE[name] for name in case.path_parameters if mode == GenerationMode.POSITIVE}
    if mode == GenerationMode.POSITIVE and "topic" in case.path_parameters:
        for name in MANY_WAYS:
            case.query.pop(name, None)
        if isinstance(case.body, dict) and "to" in case.body:
            case.body |= {"to": "earliest", "partitions": []}
    if "id" in case.path_parameters:
        case.path_parameters["id"] = SLUG
        headers["If-Match"] = "*"
    if "/watermark" in case.operation.path:
        case.path_parameters["id"] = INCREMENTAL
        if mode == GenerationMode.POSITIVE and isinstance(case.body, dict):
            case.body = {"value": "5", "why": "a test"}
    if mode == GenerationMode.POSITIVE and "Idempotency-Key" in case.headers:
        headers["Idempotency-Key"] = f"{case.operation.label} {number}"  # each request is another one
    if mode == GenerationMode.POSITIVE and isinstance(case.body, dict) and "JobShape" in str(case.operation.body):
        case.body = {**case.body, **JOB, "name": f"{case.operation.label} {number}"}
        for name in TOGETHER:
            case.body.pop(name, None)
        if "id" not in case.path_parameters:
            case.query["id"] = f"job{number}-{mode.value}"
    if mode == GenerationMode.POSITIVE and "/backfills" in case.operation.path:
        if "number" in case.path_parameters:
            case.path_parameters["number"] = BACKFILLS.get(case.operation.path.rpartition("/")[2], BACKFILLS[""])
        if isinstance(case.body, dict):
            case.body = dict(BACKFILL)
    if mode == GenerationMode.POSITIVE and case.operation.path.startswith("/files"):
        _make_files_sensible(case, number, headers)
    if mode == GenerationMode.POSITIVE and case.operation.path.startswith("/alerts"):
        _of_alerts(case, number)
    if case.operation.path == "/alerts/test" and case.body is NOT_SET:
        case.body = {"channel": "teams"}  # without a body it is the mail server, which the workspace does not have
    if mode == GenerationMode.POSITIVE and isinstance(case.body, dict):
        if "at" in case.body:
            case.body["at"] = "2026-01-17T02:00"
        if "cluster" in case.body and number % 2:  # no made-up name is that of a cluster
            case.body["cluster"] = None
    return headers


def _make_files_sensible(case, number, headers):
    """The request names an SQL file that exists, or brings back one that was deleted."""
    if "/files/versions" in case.operation.path:
        case.query |= {"kind": "query", "name": GONE_QUERY}
        case.path_parameters |= {name: THERE["version"] for name in case.path_parameters}
        return
    if "name" in case.query:
        case.query["name"] = GONE_QUERY if case.operation.path.endswith("versions") else FREE_QUERY
        case.headers.pop("If-None-Match", None)
        headers["If-Match"] = "*"
    if isinstance(case.body, dict):
        bodies = {
            "sql": {"sql": "SELECT 2 AS n", "connection": JOB["connection"]},
            "new_name": {"new_name": f"renamed{number}.sql"},
            "kind": {"kind": "query", "name": GONE_QUERY},
        }
        case.body = next(body for key, body in bodies.items() if key in case.body)
