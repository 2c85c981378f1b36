"""The REST interface over a real workspace: every route, its refusals, and what it never does."""

from __future__ import annotations

import json
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from core.admin.demo import SLUG, make_demo
from core.errors import QueryFailed
from core.records.ledger import Ledger, Outcome
from core.workspace.jobs import read_job_file
from core.workspace.paths import Workspace
from tests.rigs.waiting import until
from tests.rigs.workspace import ROOT, command, environment, run_command
from tests.ui.rest import audit, bearer, client, token
from tests.unit.test_ledger import a_plan

JOBS = "/api/scheduler/scheduling"
PROBLEM = "application/problem+json"
NAMES_THAT_LEAVE = (
    "..", "../connections", "..%2fconnections", "%2e%2e%2fconnections", "..%252fconnections", "..\\connections",
    "..%5cconnections", "%2fetc%2fpasswd", "C:%5cWindows", "%5c%5chost%5cshare", "%00", f"{SLUG}%00", f"{SLUG}%2f..%2fx",
    "con", "~root", f"{SLUG}.job.json", "%c0%ae%c0%ae%c0%af",
)  # fmt: skip


@pytest.fixture(scope="module")
def _ran(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("rest") / "demo"
    make_demo(folder, 500, now=datetime.now(UTC))
    done = run_command("run", SLUG, "--workspace", folder, env=environment(), cwd=ROOT)
    assert done.returncode == 4, done.stderr  # five of the demo's rows are rejected
    return folder


@pytest.fixture
def folder(_ran, tmp_path, monkeypatch) -> Path:
    """A demo with one run, which a test may change."""
    import shutil

    place = tmp_path / "demo"
    shutil.copytree(_ran, place)
    monkeypatch.setenv("PSTT_WORKSPACE", str(place))
    return place


@pytest.fixture
def asked(folder):
    with client() as made:
        yield made


def etag(asked, slug=SLUG):
    return asked.get(f"{JOBS}/{slug}").headers["ETag"]


def new_job(**more):
    return {"name": "New one", "query": "x.sql", "connection": "A00-CDG-Collaudo", **more}


def is_problem(answer, status, text=""):
    """A problem has its media type, says its status, what failed and what to do."""
    document = answer.json()
    assert answer.status_code == status, document
    assert answer.headers["content-type"] == PROBLEM
    assert document["status"] == status
    assert document["detail"]
    assert document["title"]
    assert text in f"{document['detail']} {document['remedy']}"
    assert "Traceback" not in answer.text
    return document


# ── figures ───────────────────────────────────────────────────────────────────────────────────


def test_summary_and_metrics_say_what_the_command_line_says(asked, folder):
    done = run_command("metrics", "summary", "--json", "--workspace", folder, env=environment(), cwd=ROOT)
    spoken = json.loads(done.stdout)
    summary, metrics = (asked.get(f"/api/kafka/{name}").json() for name in ("metrics/summary", "metrics"))
    assert summary["today"]["messages"] == spoken["today"]["messages"] > 400
    assert set(summary) == {"today", "last_7_days"}
    assert summary["last_7_days"]["latency_ms"] == spoken["last_7_days"]["latency_ms"]
    for name in ("total_sent", "total_failed", "success_rate", "bytes", "latency_ms"):
        assert metrics[name] == spoken[name]
    assert metrics["by_topic"]["pstt-traces"]["messages"] == metrics["total_sent"]


def test_metrics_are_of_what_is_asked_for(asked):
    assert asked.get("/api/kafka/metrics", params={"job": SLUG}).json()["total_sent"] > 400
    assert asked.get("/api/kafka/metrics", params={"topic": "no-such"}).json()["total_sent"] == 0


def test_an_empty_folder_has_figures_and_no_job(tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("PSTT_WORKSPACE", str(tmp_path / "empty"))
    asked = client()
    assert asked.get("/api/kafka/metrics/summary").json()["today"]["messages"] == 0
    assert asked.get(JOBS).json() == {"items": [], "total": 0, "limit": 100, "offset": 0, "problems": []}
    assert asked.get("/api/scheduler/history").json()["total"] == 0


def test_a_workspace_that_is_gone_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("PSTT_WORKSPACE", str(tmp_path / "gone"))
    is_problem(client().get(JOBS), 422, "there is no workspace")


def test_history_has_the_runs_in_pages_and_of_what_is_asked_for(asked):
    history = asked.get("/api/scheduler/history").json()
    assert (history["total"], history["items"][0]["job"], history["items"][0]["balanced"]) == (1, SLUG, True)
    assert asked.get("/api/scheduler/history", params={"offset": 1}).json()["items"] == []
    for filters in ({"job": "other"}, {"state": "failed"}, {"until": "2020-01-01T00:00:00Z"}):
        assert asked.get("/api/scheduler/history", params=filters).json()["total"] == 0
    assert (
        asked.get("/api/scheduler/history", params={"state": ["failed", "succeeded", "partial"]}).json()["total"] == 1
    )


@pytest.mark.parametrize("query", ["limit=0", "limit=501", "limit=99999999999999999999", "offset=-1", f"offset={10**30}",
                                   "limit=x", "state=nonsense", "since=yesterday", "since=2026-01-01T00:00:00",
                                   "until=9999-12-31T23:59:59-23:00", "since=0001-01-01T00:00:00%2B10:00"])  # fmt: skip
def test_pages_and_times_that_are_none_are_refused(asked, query):
    name = query.partition("=")[0]
    is_problem(asked.get(f"/api/scheduler/history?{query}"), 422, f'the parameter "{name}" is not valid')


def test_a_runner_is_not_needed_to_serve(asked):
    answer = asked.get("/api/monitoring/health")
    assert answer.status_code == 200
    assert answer.json()["runner"] == "never"


def test_prometheus_reads_the_figures(asked):
    answer = asked.get("/api/monitoring/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    assert f'pstt_messages_total{{job="{SLUG}",outcome="acknowledged",topic="pstt-traces"}}' in answer.text


# ── jobs ──────────────────────────────────────────────────────────────────────────────────────


def test_a_job_is_made_read_changed_and_removed_and_each_change_is_written_down(asked, folder):
    made = asked.post(JOBS, json=new_job(cron="0 3 * * *", scheduling_mode="cron"))
    assert made.status_code == 201
    assert made.headers["Location"] == f"{JOBS}/new-one"
    read = asked.get(f"{JOBS}/new-one")
    assert read.json()["job"]["cron"] == "0 3 * * *"
    assert len(read.json()["next_scheduled_times"]) == 5
    assert "x.sql" in read.json()["problems"][0]["text"]
    assert asked.get(f"{JOBS}/new-one", headers={"If-None-Match": read.headers["ETag"]}).status_code == 304
    changed = asked.put(
        f"{JOBS}/new-one", json=read.json()["job"] | {"overlap": "queue"}, headers={"If-Match": read.headers["ETag"]}
    )
    assert changed.json()["job"]["overlap"] == "queue"
    assert changed.headers["ETag"] != read.headers["ETag"]
    removed = asked.delete(f"{JOBS}/new-one", headers={"If-Match": changed.headers["ETag"]})
    assert (removed.status_code, removed.content) == (204, b"")
    is_problem(asked.get(f"{JOBS}/new-one"), 404, "new-one")
    entries = [entry for entry in audit(folder) if entry.object == "job new-one"][::-1]
    assert [entry.action for entry in entries] == ["create", "change", "delete"]
    assert '"queue"' in entries[1].after
    assert '"queue"' not in entries[1].before
    with Ledger(Workspace(folder).ledger_file) as ledger:
        assert len(ledger.job_versions.of_job("new-one")) == 2


def test_a_change_over_a_newer_edit_is_refused_and_nothing_is_written(asked, folder):
    old = etag(asked)
    job = asked.get(f"{JOBS}/{SLUG}").json()["job"]
    assert asked.put(f"{JOBS}/{SLUG}", json=job | {"cron": "0 4 * * *"}, headers={"If-Match": old}).status_code == 200
    newer = read_job_file(Workspace(folder), SLUG)
    for answer in (
        asked.put(f"{JOBS}/{SLUG}", json=job, headers={"If-Match": old}),
        asked.put(f"{JOBS}/{SLUG}", json=job, headers={"If-Match": f'W/"{newer.sha256}"'}),
        asked.delete(f"{JOBS}/{SLUG}", headers={"If-Match": old}),
    ):
        is_problem(answer, 412, "another user")
    is_problem(asked.put(f"{JOBS}/{SLUG}", json=job), 428, "If-Match")
    is_problem(asked.delete(f"{JOBS}/{SLUG}"), 428, "If-Match")
    assert read_job_file(Workspace(folder), SLUG) == newer
    assert asked.put(f"{JOBS}/{SLUG}", json=job, headers={"If-Match": "*"}).status_code == 200


@pytest.mark.parametrize(
    ("headers", "cookie", "language"),
    [
        ({}, "", "en"),
        ({"Accept-Language": "it"}, "", "it"),
        ({"Accept-Language": "it-IT,it;q=0.9,en;q=0.8"}, "", "it"),
        ({"Accept-Language": "en;q=0.5, it;q=0.9"}, "", "it"),
        ({"Accept-Language": "de, en;q=0.8, it;q=0.2"}, "", "en"),
        ({"Accept-Language": "de, *;q=x"}, "", "en"),
        ({"Accept-Language": "it"}, "en", "en"),
        ({}, "it", "it"),
        ({"Accept-Language": "it"}, "xx", "it"),
    ],
)
def test_the_texts_of_a_problem_have_the_language_of_the_request(asked, headers, cookie, language):
    sent = headers | ({"Cookie": f"pstt_language={cookie}"} if cookie else {})
    english = asked.get(f"{JOBS}/nope").json()
    answer = asked.get(f"{JOBS}/nope", headers=sent)
    told = is_problem(answer, 404)
    assert answer.headers["Content-Language"] == language
    assert "Accept-Language" in answer.headers["Vary"]
    assert {name: told[name] for name in ("type", "status", "retriable")} == {
        name: english[name] for name in ("type", "status", "retriable")
    }
    if language == "en":
        assert told == english
    else:
        assert told["detail"] == 'non esiste il job "nope" in queries/'


def test_each_error_of_a_request_has_the_language_of_the_request(asked):
    body = '{\n  "name": "X",\n  "query": "x.txt",\n  "connection": "a",\n  "crom": "0 2 * * *"\n}'
    headers = {"Content-Type": "application/json", "Accept-Language": "it"}
    told = is_problem(asked.post(JOBS, content=body, headers=headers), 422)
    assert told["title"] == "Un file o un'impostazione va corretto."
    last = told["errors"][-1]
    assert (last["line"], last["column"], last["remedy"]) == (5, 3, 'forse si intendeva "cron"?')
    assert "riga 5, colonna 3: chiave sconosciuta" in last["text"]
    wrong = is_problem(
        asked.get("/api/scheduler/history", params={"limit": "x"}, headers={"Accept-Language": "it"}), 422
    )
    assert wrong["detail"].startswith('parametro: "limit" non è valido: deve essere un numero intero')
    nothing = is_problem(asked.get("/api/nowhere", headers={"Accept-Language": "it"}), 404)
    assert nothing["detail"] == "a questo indirizzo non c'è nulla"
    assert nothing["remedy"] == "/api/docs elenca ciò che c'è"


def test_an_answer_has_the_language_of_the_request_and_a_repeated_one_too(asked):
    headers = {"Accept-Language": "it", "Idempotency-Key": "one"}
    document = {"job": SLUG, "from": "2026-01-10", "to": "2026-01-10"}
    first = asked.post("/api/scheduler/backfills", json=document, headers=headers)
    again = asked.post("/api/scheduler/backfills", json=document, headers=headers)
    english = asked.post("/api/scheduler/backfills", json=document, headers=headers | {"Accept-Language": "en"})
    assert first.json()["answer"] == again.json()["answer"] == "1 esecuzione pianificata"
    assert english.json()["answer"] == "1 run planned"
    assert (first.headers["Content-Language"], english.headers["Content-Language"]) == ("it", "en")
    assert {**first.json(), "answer": ""} == {**english.json(), "answer": ""}
    switched = asked.post(f"{JOBS}/{SLUG}/disable", headers={"Accept-Language": "it"}).json()
    assert switched["answer"].startswith('il job "Export CDG Tracce to Kafka" è disattivato')


def test_a_name_or_a_file_name_that_another_job_has_is_refused(asked):
    is_problem(asked.post(JOBS, params={"id": SLUG.upper()}, json=new_job()), 409, "already")
    is_problem(asked.post(JOBS, json=new_job(name="export cdg TRACCE to kafka")), 409, "is called")
    assert asked.get(JOBS).json()["total"] == 1


def test_every_problem_of_a_job_is_told_in_the_words_of_check(asked, folder):
    body = '{\n  "name": "X",\n  "query": "x.txt",\n  "connection": "a",\n  "crom": "0 2 * * *"\n}'
    told = is_problem(asked.post(JOBS, content=body, headers={"Content-Type": "application/json"}), 422)
    (folder / "queries" / "x.job.json").write_text(body, encoding="utf-8")
    done = run_command("check", "--json", "--workspace", folder, env=environment(), cwd=ROOT)
    for problem in told["errors"]:
        text = problem["text"].split(": ", 1)[1]
        assert json.dumps(text, ensure_ascii=False)[1:-1] in done.stdout
    assert [(problem["line"], problem["remedy"]) for problem in told["errors"]][-1] == (5, 'did you mean "cron"?')
    assert "x.job.json" in asked.get(JOBS).json()["problems"][0]["text"]
    is_problem(asked.get(f"{JOBS}/x"), 409, "x.job.json")


@pytest.mark.parametrize("body", ["", "{", "[]", "null", '"x"', "NaN", '{"name": "\\ud800"}', "[" * 100_000,
                                  '{"name": ' + "9" * 5000 + "}", '{"name": "a", "name": "b"}'])  # fmt: skip
def test_a_body_that_is_no_job_is_told(asked, body):
    is_problem(asked.post(JOBS, content=body, headers={"Content-Type": "application/json"}), 422)


def test_a_body_of_another_type_or_size_is_refused(asked):
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""):
        is_problem(asked.post(JOBS, content=b'{"name": "x"}', headers={"Content-Type": kind}), 415, "application/json")
    is_problem(asked.post(JOBS, content=b"\xff\xfe", headers={"Content-Type": "application/json"}), 422, "UTF-8")
    is_problem(asked.post(JOBS, content=b" " * 5_000_000, headers={"Content-Type": "application/json"}), 413, "bytes")
    text = "SELECT 1 " * 600_000
    is_problem(asked.post("/api/kafka/send", json={"topic": "t", "key": "k", "value": text}), 413, "bytes")


@pytest.mark.parametrize("name", NAMES_THAT_LEAVE)
def test_no_name_leaves_the_workspace(asked, folder, name):
    before = sorted(path for path in folder.parent.rglob("*") if ".pstt" not in path.parts)
    for method, path in (
        ("GET", ""),
        ("DELETE", ""),
        ("PUT", ""),
        ("POST", "/enable"),
        ("POST", "/disable"),
        ("POST", "/run"),
    ):
        more = {"json": new_job()} if method == "PUT" else {}
        answer = asked.request(
            method, f"{JOBS}/{name}{path}", headers={"If-Match": "*"}, follow_redirects=False, **more
        )
        assert answer.status_code in (307, 404, 405), (method, name, answer.text)
    assert sorted(path for path in folder.parent.rglob("*") if ".pstt" not in path.parts) == before


@pytest.mark.parametrize("name", ["..", "../x", "..\\x", "a/b", "a\\b", "/etc/x", "C:x", "a\0b", "", ".x", "con", "NUL.x",
                                  "x.", "x" * 101, "ü", "a b"])  # fmt: skip
def test_no_id_makes_a_file_elsewhere(asked, folder, name):
    before = sorted(path for path in folder.parent.rglob("*") if ".pstt" not in path.parts)
    is_problem(asked.post(JOBS, params={"id": name}, json=new_job()), 422)
    for query in ("../x.sql", "..\\x.sql", "/x.sql", "C:x.sql"):
        is_problem(asked.post(JOBS, json=new_job(query=query)), 422, "queries/")
    assert sorted(path for path in folder.parent.rglob("*") if ".pstt" not in path.parts) == before


def test_texts_with_nul_or_html_come_back_as_they_are(asked):
    for number, text in enumerate(("a\0b", "<script>alert(1)</script>", "😀 'quoted' \"twice\"")):
        made = asked.post(JOBS, params={"id": f"j{number}"}, json=new_job(name=text))
        assert made.status_code == 201, made.text
        assert asked.get(f"{JOBS}/j{number}").json()["job"]["name"] == text
    assert [row["id"] for row in asked.get(JOBS, params={"limit": 2, "offset": 1}).json()["items"]] == ["j0", "j1"]


def test_a_job_is_switched_off_and_on_as_by_the_command_line(asked, folder):
    off = asked.post(f"{JOBS}/{SLUG}/disable").json()
    assert (off["enabled"], off["changed"]) == (False, True)
    assert not read_job_file(Workspace(folder), SLUG).job.enabled
    assert asked.get(f"{JOBS}/{SLUG}").json()["next_scheduled_times"] == []
    assert asked.post(f"{JOBS}/{SLUG}/disable").json()["changed"] is False
    assert asked.post(f"{JOBS}/{SLUG}/enable").json()["changed"] is True
    assert [entry.action for entry in audit(folder)] == ["enable", "disable", "run"]  # the fixture ran it


# ── runs ──────────────────────────────────────────────────────────────────────────────────────


def test_without_a_runner_a_run_waits_for_one(asked, folder):
    answer = asked.post(f"{JOBS}/{SLUG}/run", json={"parameters": {"DATA": "2026-01-16"}, "again": True})
    assert (answer.status_code, answer.json()["state"]) == (202, "waiting")
    assert "no runner works here" in answer.json()["answer"]
    assert asked.get(answer.headers["Location"]).json()["state"] == "waiting"
    with Ledger(Workspace(folder).ledger_file) as ledger:
        (request,) = ledger.requests.newest()
    assert (request.kind, request.job, request.args["parameters"]) == ("run", SLUG, {"DATA": "2026-01-16"})
    assert audit(folder)[0].action == "run"


def test_a_time_that_was_sent_wants_a_yes(asked, folder):
    with Ledger(Workspace(folder).ledger_file) as ledger:
        (run,) = ledger.history.newest(SLUG)
    body = {"at": run.scheduled_at.isoformat()}
    is_problem(asked.post(f"{JOBS}/{SLUG}/run", json=body), 409, f"{run.acknowledged:,} messages")
    assert asked.post(f"{JOBS}/{SLUG}/run", json=body | {"dry_run": True}).status_code == 202
    assert asked.post(f"{JOBS}/{SLUG}/run", json=body | {"again": True}).status_code == 202


def test_a_list_of_values_is_taken_as_a_parameter(asked, folder):
    parameters = {"STATI": ["N", "a,b"], "DATA": "2026-01-16"}
    assert asked.post(f"{JOBS}/{SLUG}/run", json={"parameters": parameters, "again": True}).status_code == 202
    with Ledger(Workspace(folder).ledger_file) as ledger:
        (request,) = ledger.requests.newest()
    assert request.args["parameters"] == parameters
    assert asked.post(f"{JOBS}/{SLUG}/run", json={"parameters": {"STATI": [["N"]]}}).status_code == 422


def test_the_runner_runs_what_is_asked_for(asked, folder):
    runner = subprocess.Popen(
        command("runner", "--workspace", folder), cwd=ROOT, env=environment(), stderr=subprocess.DEVNULL
    )
    try:
        until(lambda: asked.get("/api/monitoring/health").json()["runner"] == "alive", "the runner works")
        answer = asked.post(f"{JOBS}/{SLUG}/run", json={"again": True})
        assert answer.json()["state"] in ("taken", "waiting"), answer.json()
        until(lambda: asked.get(answer.headers["Location"]).json()["state"] == "done", "the run has ended")
        request = asked.get(answer.headers["Location"]).json()
        assert asked.get(f"/api/scheduler/runs/{request['run_id']}").json()["verdict"] == "complete_with_rejects"
        history = asked.get("/api/scheduler/history", params={"job": SLUG}).json()
        assert history["total"] == 2
        assert history["items"][0]["state"] in ("succeeded", "partial")
        assert history["items"][0]["acknowledged"] == history["items"][1]["acknowledged"] > 400
        tried = asked.post(f"{JOBS}/{SLUG}/run", json={"dry_run": True}).headers["Location"]
        until(lambda: asked.get(tried).json()["state"] not in ("waiting", "taken"), "the dry run has ended")
        assert asked.get(tried).json()["answer"].startswith("✔ dry run: ")
        assert asked.get("/api/scheduler/history", params={"job": SLUG}).json()["total"] == 2
    finally:
        runner.terminate()
        runner.wait(30)


@pytest.mark.parametrize("at", ["tomorrow", "", "0001-01-01T00:00", "9999-12-31T23:59:59-23:00", "2026-13-01"])
def test_a_run_for_no_time_is_refused(asked, at):
    is_problem(asked.post(f"{JOBS}/{SLUG}/run", json={"at": at}), 422, "is not a time")


def test_a_request_that_is_none_is_not_found(asked):
    for number in ("0", "-1", "7", str(2**63), "9" * 40):
        answer = asked.get(f"/api/scheduler/requests/{number}")
        is_problem(answer, 404, "no request")
        assert answer.json()["title"] == "Not Found"


def test_a_run_is_told_with_a_verdict_that_agrees_with_its_state(asked, folder):
    with Ledger(Workspace(folder).ledger_file) as ledger:
        green = ledger.start(a_plan(), datetime.now(UTC))
        ledger.finish(green.run_id, Outcome("succeeded", rows_read=3, sent=3, acknowledged=3), datetime.now(UTC))
        failed = ledger.start(a_plan(), datetime.now(UTC))
        ledger.finish(failed.run_id, Outcome("failed", rows_read=3, error=QueryFailed("no")), datetime.now(UTC))
        running = ledger.start(a_plan(), datetime.now(UTC))
        (of_demo,) = ledger.history.newest(SLUG)
    listed = {run["run_id"]: run for run in asked.get("/api/scheduler/runs").json()["items"]}
    assert asked.get("/api/scheduler/history").json() == asked.get("/api/scheduler/runs").json()
    for run, told in (
        (of_demo, ("succeeded", "complete_with_rejects", True)),
        (green, ("succeeded", "complete", True)),
        (failed, ("failed", "failed", False)),
        (running, ("running", "running", False)),
    ):
        one = asked.get(f"/api/scheduler/runs/{run.run_id}").json()
        assert (one["state"], one["verdict"], one["balanced"]) == told
        assert one == listed[run.run_id]
    assert listed[failed.run_id]["error"]["text"] == "no"
    assert [run["run_id"] for run in asked.get("/api/scheduler/runs?state=complete").json()["items"]] == [green.run_id]


@pytest.mark.parametrize("shape", ["{}", "{}%00", "x{}"])
def test_a_run_that_is_none_is_not_found(asked, folder, shape):
    with Ledger(Workspace(folder).ledger_file) as ledger:
        (run,) = ledger.history.newest(SLUG)
    for name in (run.run_id[:-1], "0", "%25", "_"):
        answer = asked.get(f"/api/scheduler/runs/{shape.format(name)}", follow_redirects=False)
        is_problem(answer, 404)
        assert answer.json()["title"] == "Not Found"


def test_a_request_whose_run_was_skipped_is_not_done(asked, folder):
    place = asked.post(f"{JOBS}/{SLUG}/run", json={"again": True}).headers["Location"]
    number = int(place.rsplit("/", 1)[1])
    now = datetime.now(UTC)
    with Ledger(Workspace(folder).ledger_file) as ledger:
        ledger.requests.answer(number, "taken", "planned", now)
        (scheduled_run,) = ledger.scheduled_runs.plan_requested(
            SLUG, [now], kind="request", asked_by="x", now=now, request_id=number
        )
        assert asked.get(place).json()["state"] == "taken"
        ledger.scheduled_runs.skip(scheduled_run, "the job is gone", now)
        ledger.requests.finish(number, "skipped: the job is gone", now)
    told = {"request_id": number, "state": "skipped", "answer": "skipped: the job is gone", "run_id": None}
    assert asked.get(place).json() == told


# ── what any client may expect of HTTP ────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "path", ["/monitoring/health", "/kafka/health", "/scheduler/runs", "/openapi.json", "/nothing"]
)
def test_head_is_answered_as_get_without_its_body(asked, path):
    got, headed = asked.get(f"/api{path}"), asked.head(f"/api{path}")
    assert (headed.status_code, headed.content) == (got.status_code, b"")
    assert headed.headers["Content-Type"] == got.headers["Content-Type"]
    assert int(headed.headers["Content-Length"]) == len(got.content)


def test_a_method_that_is_not_possible_is_told_with_those_that_are(asked):
    for path, allowed in (
        (JOBS, "GET, HEAD, POST"),
        (f"{JOBS}/{SLUG}", "DELETE, GET, HEAD, PUT"),
        (f"{JOBS}/{SLUG}/run", "POST"),
        ("/api/monitoring/health", "GET, HEAD"),
        ("/api/docs", "GET, HEAD"),
    ):
        for method in ("PATCH", "OPTIONS"):
            answer = asked.request(method, path)
            is_problem(answer, 405, f"{method} is not possible here")
            assert (answer.headers["Allow"], answer.json()["title"]) == (allowed, "Method Not Allowed")
    assert asked.head(f"{JOBS}/{SLUG}/run").headers["Allow"] == "POST"


def test_an_address_or_a_cluster_that_is_not_there_has_a_title_of_its_own(asked):
    message = {"topic": "t", "key": "k", "value": 1, "cluster": "nowhere"}
    for answer in (
        asked.get("/api/nothing"),
        asked.get("/api/kafka/topics", params={"cluster": "nowhere"}),
        asked.post("/api/kafka/test", json={"cluster": "nowhere"}),
        asked.post("/api/kafka/send", json=message),
    ):
        is_problem(answer, 404)
        assert (answer.json()["title"], answer.json()["type"]) == ("Not Found", "about:blank")


def test_the_same_key_asks_for_one_run(asked, folder):
    headers = {"Idempotency-Key": "evening"}
    first, again = (asked.post(f"{JOBS}/{SLUG}/run", headers=headers, json={"again": True}) for _ in range(2))
    assert (again.json(), again.headers["Location"]) == (first.json(), first.headers["Location"])
    assert again.headers["Idempotent-Replayed"] == "true"
    assert "Idempotent-Replayed" not in first.headers
    other = asked.post(f"{JOBS}/{SLUG}/run", headers=headers, json={"at": "2026-01-17T02:00"})
    is_problem(other, 422, "another request")
    with Ledger(Workspace(folder).ledger_file) as ledger:
        assert len(ledger.requests.newest()) == 1


# ── messages ──────────────────────────────────────────────────────────────────────────────────


def test_a_message_by_hand_is_acknowledged_recorded_and_sent_once_for_a_key(asked, folder):
    message = {"topic": "pstt-traces", "key": "by-hand-1", "value": {"data": {"barcode": "1"}}}
    sent, again = (asked.post("/api/kafka/send", json=message, headers={"Idempotency-Key": "m1"}) for _ in range(2))
    assert sent.status_code == 200
    assert again.json() == sent.json()
    done = run_command("find", "by-hand-1", "--json", "--workspace", folder, env=environment(), cwd=ROOT)
    found = json.loads(done.stdout)["sends"]
    assert [(one["topic"], one["offset"]) for one in found] == [("pstt-traces", sent.json()["offset"])]
    outcome, entry = audit(folder)[:2]
    assert (entry.action, entry.object) == ("send", "topic pstt-traces")
    assert (outcome.action, outcome.after["of"], outcome.after["offset"]) == ("outcome", "send", sent.json()["offset"])


@pytest.mark.parametrize("message", [{"topic": "a\0b"}, {"topic": ""}, {"topic": ".."}, {"topic": "a b"}, {"topic": 5},
                                     {"topic": "x" * 250}, {"key": None}, {"kex": "1"}])  # fmt: skip
def test_a_message_that_cannot_be_sent_is_told(asked, message):
    is_problem(asked.post("/api/kafka/send", json={"topic": "t", "key": "k", "value": "v", **message}), 422)


def test_a_message_over_the_limit_is_told(asked):
    answer = asked.post("/api/kafka/send", json={"topic": "t", "key": "k", "value": "v" * 1_200_000})
    is_problem(answer, 413, "bytes")


@pytest.fixture
def on_kafka(folder, kafka):
    """The demo with a real cluster."""
    file = folder / "connections.json"
    document = json.loads(file.read_text(encoding="utf-8"))
    document["kafka_connections"] = {"collaudo": {"name": "Kafka Rig", "bootstrap_servers": kafka.plaintext}}
    file.write_text(json.dumps(document), encoding="utf-8")
    return kafka


def test_a_real_cluster_is_looked_at_tried_and_sent_to(asked, on_kafka):
    topic = on_kafka.create_topic(partitions=2)
    health = asked.get("/api/kafka/health").json()
    assert (health["connected"], health["clusters"][0]["name"]) == (True, "Kafka Rig")
    tried = asked.post("/api/kafka/test").json()
    assert tried["connected"]
    assert tried["brokers"]
    listed = asked.get("/api/kafka/topics", params={"search": topic}).json()
    assert listed["items"] == [{"name": topic, "partitions": 2, "replication": 1, "messages": None}]
    assert listed["total"] == 1
    assert asked.get("/api/kafka/topics", params={"limit": 1}).json()["total"] >= 1
    first, second = (
        asked.post("/api/kafka/send", json={"topic": topic, "key": "k", "value": f"text {n}"}).json() for n in (1, 2)
    )
    assert (second["partition"], second["offset"]) == (first["partition"], first["offset"] + 1)
    is_problem(asked.post("/api/kafka/test", json={"cluster": "kolaudo"}), 404, 'did you mean "collaudo"?')


def test_who_names_no_cluster_gets_the_usual_environment_and_never_the_settings(asked, folder, on_kafka, monkeypatch):
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", on_kafka.plaintext)
    topic = on_kafka.create_topic(partitions=1)
    file = folder / "connections.json"
    document = json.loads(file.read_text(encoding="utf-8"))
    document["kafka_connections"]["away"] = {"bootstrap_servers": "127.0.0.1:9"}
    file.write_text(json.dumps({**document, "default_environment": ""}), encoding="utf-8")
    message = {"topic": topic, "key": "k", "value": "text"}
    for answer in (
        asked.post("/api/kafka/send", json=message),
        asked.post("/api/kafka/test"),
        asked.get("/api/kafka/topics"),
    ):
        is_problem(answer, 422, "which cluster is not said")
    file.write_text(json.dumps({**document, "default_environment": "collaudo"}), encoding="utf-8")
    assert asked.post("/api/kafka/send", json=message).json()["offset"] == 0
    assert asked.post("/api/kafka/test").json()["cluster"] == "Kafka Rig"
    assert asked.get("/api/kafka/topics").json()["cluster"] == "Kafka Rig"


def test_a_broker_that_is_away_is_told_and_the_key_may_be_used_again(asked, folder, on_kafka):
    file = folder / "connections.json"
    right = file.read_text(encoding="utf-8")
    document = json.loads(right)
    document["kafka_connections"]["collaudo"]["bootstrap_servers"] = "127.0.0.1:9"
    document["kafka_connections"]["collaudo"]["request_timeout_ms"] = 1500
    file.write_text(json.dumps(document), encoding="utf-8")
    assert asked.get("/api/kafka/health").json()["connected"] is False
    tried = asked.post("/api/kafka/test").json()
    assert (tried["connected"], tried["brokers"]) == (False, [])
    assert "127.0.0.1:9" in tried["error"]
    message = {"topic": on_kafka.create_topic(), "key": "k", "value": "v"}
    away = asked.post("/api/kafka/send", json=message, headers={"Idempotency-Key": "k"})
    is_problem(away, 503, "127.0.0.1:9")
    file.write_text(right, encoding="utf-8")
    assert asked.post("/api/kafka/send", json=message, headers={"Idempotency-Key": "k"}).status_code == 200


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"from_value": "5", "why": "again"}, "is not incremental"),
        ({"from_value": "5", "why": "again", "from": "2026-01-01"}, "`from` is for a range of days"),
        ({"from": "2026-01-01", "to": "2026-01-02", "why": "again"}, "`why` goes with `from_value`"),
        ({"from": "2026-01-01"}, "`to` is not a day"),
        ({"from_value": 5}, "from_value"),
    ],
)
def test_a_backfill_has_days_or_a_value(asked, body, text):
    before = asked.get("/api/scheduler/backfills").json()["total"]
    is_problem(asked.post("/api/scheduler/backfills", json={"job": SLUG, **body}), 422, text)
    assert asked.get("/api/scheduler/backfills").json()["total"] == before


# ── the document ──────────────────────────────────────────────────────────────────────────────


def test_the_document_has_every_route_with_examples_and_its_page_asks_nobody_else(asked):
    document = asked.get("/api/openapi.json").json()
    assert set(document["paths"]) == {
        "/kafka/health", "/kafka/topics", "/kafka/metrics", "/kafka/metrics/summary", "/kafka/test", "/kafka/send",
        "/kafka/topics/{topic}/messages", "/kafka/topics/{topic}/messages/{partition}/{offset}", "/kafka/topics/{topic}/groups", "/kafka/topics/{topic}/groups/reset",
        "/scheduler/scheduling", "/scheduler/scheduling/{id}", "/scheduler/scheduling/{id}/enable",
        "/scheduler/scheduling/{id}/disable", "/scheduler/scheduling/{id}/run", "/scheduler/scheduling/{id}/watermark", "/scheduler/requests/{number}",
        "/scheduler/scheduling/{id}/notes", "/scheduler/notes",
        "/scheduler/backfills", "/scheduler/backfills/{number}", "/scheduler/backfills/{number}/pause",
        "/scheduler/backfills/{number}/resume", "/scheduler/backfills/{number}/cancel", "/scheduler/backfills/{number}/retry",
        "/scheduler/history", "/scheduler/runs", "/scheduler/runs/{run_id}", "/monitoring/health", "/monitoring/metrics",
        "/alerts", "/alerts/{number}/acknowledge", "/alerts/silences", "/alerts/silences/{number}", "/alerts/test", "/alerts/simulate",
        "/alerts/rules", "/alerts/rules/{rule}",
        "/files/queries", "/files/query", "/files/query/rename", "/files/query/versions", "/files/deleted", "/files/restore",
        "/files/versions", "/files/versions/{number}", "/files/versions/{number}/restore",
    }  # fmt: skip
    assert document["servers"] == [{"url": "/api"}]
    named = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(document)))
    assert named <= set(document["components"]["schemas"])
    body = document["paths"]["/scheduler/scheduling"]["post"]["requestBody"]["content"]["application/json"]
    assert body["schema"] == {"$ref": "#/components/schemas/JobShape"}
    assert "crom" not in body["example"]
    assert set(document["components"]["schemas"]["JobShape"]["properties"]) >= {"kafka_config", "on_drift", "expect"}
    for name in ("docs", "docs/start.js", "docs/static/swagger-ui.css"):
        page = asked.get(f"/api/{name}")
        assert page.status_code == 200
        text = page.text if name != "docs/static/swagger-ui.css" else ""
        assert "//" not in text.replace("<!DOCTYPE html>", "")
    assert len(asked.get("/api/docs/static/swagger-ui-bundle.js").content) > 1_000_000


def test_what_is_not_there_is_told_as_a_problem(asked):
    is_problem(asked.get("/api/nothing"), 404, "/api/docs")
    is_problem(asked.patch(JOBS), 405, "PATCH")


def test_answers_carry_the_headers_that_protect_a_browser(asked):
    for path in (JOBS, "/api/docs", "/api/nothing", "/api/signin"):
        headers = asked.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["cache-control"] == "no-store"


def test_where_nobody_signs_in_no_token_is_needed_and_a_wrong_one_is_refused(asked, folder):
    assert asked.get(JOBS, headers=bearer(token(folder, "read"))).status_code == 200
    is_problem(asked.get(JOBS, headers=bearer("pstt_wrong")), 401, "not known")


def test_a_parameter_that_is_given_twice_is_refused(asked):
    for address in ("/api/kafka/metrics?cluster=a&cluster=b", "/api/scheduler/scheduling?limit=5&limit=6"):
        is_problem(asked.get(address), 422, "is given more than once")
    assert asked.get("/api/scheduler/runs?state=failed&state=succeeded").status_code == 200
