"""Alerts over REST: a life of an alert, silences and simulations, and what is refused."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from core.clock import iso_utc
from core.notify.incidents import begin_incident
from core.notify.outbox import Outbox
from core.workspace.paths import Workspace
from tests.ui.rest import client
from tests.ui.test_api import is_problem

NOW = datetime.now(UTC)
SILENCES = "/api/alerts/silences"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A workspace with one open alert."""
    (tmp_path / "queries").mkdir()
    (tmp_path / "connections.json").write_text('{"connections": []}', encoding="utf-8")
    monkeypatch.setenv("PSTT_WORKSPACE", str(tmp_path))
    with Outbox(Workspace(tmp_path).ledger_file) as outbox:
        outbox.apply([begin_incident("error_rate", "export", 20.0, "20 % of 100 messages failed", NOW, run_id="ab12")])
        outbox.apply([("open_incident", {"incident_id": 1, "now": iso_utc(NOW)})])
    return tmp_path


@pytest.fixture
def asked(folder):
    return client()


def test_an_alert_is_read_acknowledged_and_silenced(asked):
    (alert,) = asked.get("/api/alerts").json()["incidents"]
    assert (alert["id"], alert["state"], alert["severity"], alert["run_id"]) == (1, "open", "warning", "ab12")
    done = asked.post("/api/alerts/1/acknowledge", json={"note": "the broker\nis restarted"}).json()
    assert (done["note"], done["state"]) == ("the broker is restarted", "open")
    made = asked.post(SILENCES, json={"rule": "error_rate", "until": "2h", "note": "moved"})
    assert made.status_code == 201
    assert asked.get(SILENCES).json() == [made.json()]
    document = asked.get("/api/alerts").json()
    assert document["incidents"][0]["silenced_until"] == made.json()["until"]
    assert document["incidents"][0]["acknowledged_by"] == done["acknowledged_by"]
    number = made.json()["id"]
    assert asked.delete(f"{SILENCES}/{number}").json()["ended_at"]
    is_problem(asked.delete(f"{SILENCES}/{number}"), 409, "has ended already")
    assert asked.get(SILENCES).json() == []


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "words"),
    [
        ("POST", "/api/alerts/2/acknowledge", None, 404, "there is no alert 2"),
        ("POST", f"/api/alerts/{10**30}/acknowledge", None, 404, "there is no alert"),
        ("DELETE", f"{SILENCES}/7", None, 404, "there is no silence 7"),
        ("POST", SILENCES, {"until": "2h"}, 422, "needs a rule or a subject"),
        ("POST", SILENCES, {"rule": "late", "until": "2h"}, 422, "job_late"),
        ("POST", SILENCES, {"rule": "job_late", "until": "soon"}, 422, "is no end of a silence"),
        ("POST", SILENCES, {"rule": "job_late", "until": "2020-01-01T00:00"}, 422, "ends in the future"),
        ("POST", "/api/alerts/test", {"channel": "pager"}, 422, "there is no channel"),
        ("POST", "/api/alerts/test", {"to": ["nobody"]}, 422, "e-mail"),
        ("POST", "/api/alerts/test", {}, 422, "no mail server is set up"),
        ("POST", "/api/alerts/simulate", {"days": 91}, 422, "days"),
        ("POST", "/api/alerts/simulate", {"rules": {"late": {}}}, 422, "late"),
        ("POST", "/api/alerts/simulate", {"rules": {"error_rate": {"threshold_percent": 101}}}, 422, "100"),
    ],
)
def test_what_cannot_be_is_refused(asked, method, path, body, status, words):
    is_problem(asked.request(method, path, json=body), status, words)


def test_an_alert_that_has_ended_is_not_acknowledged(asked, folder):
    with Outbox(Workspace(folder).ledger_file) as outbox:
        outbox.apply([("end_incident", {"incident_id": 1, "text": "over", "now": iso_utc(NOW)})])
    is_problem(asked.post("/api/alerts/1/acknowledge"), 409, "has ended")


RULES = "/api/alerts/rules"


def test_a_rule_is_replaced_and_the_others_stay_as_they_are(asked, folder):
    first = asked.get(RULES)
    assert (len(first.json()["rules"]), first.json()["is_default"], first.headers["etag"]) == (8, True, '"default"')
    body = {"threshold_percent": 5, "actions": ["mail"], "recipients": ["ops@example.com"]}
    done = asked.put(f"{RULES}/error_rate", json=body, headers={"If-Match": first.headers["etag"]})
    assert done.status_code == 200
    by_name = {rule["rule"]: rule for rule in done.json()["rules"]}
    assert by_name["error_rate"]["title"] == "error rate > 5 %"
    assert by_name["error_rate"]["values"] == {**body, "enabled": True, "severity": "warning", "for_s": 60}
    assert json.loads((folder / "alerts.json").read_text(encoding="utf-8")) == {"rules": {"error_rate": body}}
    other = asked.put(f"{RULES}/job_failed", json={"threshold_failures": 3}, headers={"If-Match": done.headers["etag"]})
    kept = {rule["rule"]: rule for rule in other.json()["rules"]}
    assert (kept["error_rate"], kept["job_failed"]["values"]["threshold_failures"]) == (by_name["error_rate"], 3)
    assert asked.get(RULES).headers["etag"] == other.headers["etag"] != done.headers["etag"]
    is_problem(asked.put(f"{RULES}/job_late", json={}, headers={"If-Match": done.headers["etag"]}), 412, "was changed")
    is_problem(asked.put(f"{RULES}/job_late", json={}), 428, "which version")


@pytest.mark.parametrize(
    ("rule", "body", "status", "words"),
    [
        ("error_rat", {}, 404, "there is no rule"),
        ("error_rate", {"threshold_percent": 101}, 422, "threshold_percent"),
        ("error_rate", {"threshold_ms": 5}, 422, "threshold_ms"),
        ("error_rate", {"for_s": -1}, 422, "for_s"),
        ("error_rate", {"actions": ["pager"]}, 422, "neither an action nor a channel"),
        ("runner_memory", {"actions": ["disable_job"]}, 422, "about no job"),
        ("error_rate", {"recipients": ["nobody"]}, 422, "e-mail"),
        ("error_rate", {"severity": "high"}, 422, "severity"),
        ("error_rate", {"treshold_percent": 5}, 422, "threshold_percent"),
    ],
)
def test_a_wrong_rule_is_refused_and_nothing_is_written(asked, folder, rule, body, status, words):
    answered = asked.put(f"{RULES}/{rule}", json=body, headers={"If-Match": "*"})
    is_problem(answered, status, words)
    assert "alerts.json" not in answered.json()["detail"]
    assert not (folder / "alerts.json").exists()


def test_a_file_of_rules_that_is_wrong_on_disk_is_a_conflict(asked, folder):
    (folder / "alerts.json").write_text('{"rules": {"late": {}}}', encoding="utf-8")
    is_problem(asked.get(RULES), 409, "alerts.json, line 1")
    is_problem(asked.put(f"{RULES}/error_rate", json={}, headers={"If-Match": "*"}), 409, "late")


def test_a_simulation_answers_for_every_rule_and_reads_the_file(asked, folder):
    rules = {"latency_p99": {"enabled": False}}
    (folder / "alerts.json").write_text(json.dumps({"rules": rules}), encoding="utf-8")
    found = asked.post("/api/alerts/simulate", json={"rules": {"success_rate": {"for_s": 60}}}).json()
    since, until = (datetime.fromisoformat(found[key]) for key in ("since", "until"))
    assert until - since == timedelta(days=7)
    by_name = {rule["rule"]: rule for rule in found["rules"]}
    assert len(by_name) == 8
    assert not by_name["latency_p99"]["enabled"]
    assert by_name["success_rate"]["for_s"] == 60
    assert by_name["runner_memory"]["not_known"]
    assert all(rule["fired"] == [] for rule in found["rules"])
