"""What users do about alerts on the page: acknowledge, silence, try the rules out, test a channel."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from core.clock import iso_utc
from core.notify.incidents import begin_incident
from core.notify.outbox import Outbox
from core.notify.rules import load_alerts
from core.notify.silences import AlertRecords
from core.workspace.paths import Workspace
from tests.rigs.http_receiver import http_receiver
from tests.ui.conftest import SLY, Place, is_harmless, now, words
from ui.access import CurrentUser


@pytest.fixture
def place(tmp_path, look_at) -> Place:
    """A workspace with one open alert."""
    made = Place(tmp_path / "ws")
    (made.folder / "queries").mkdir(parents=True)
    (made.folder / "connections.json").write_text('{"connections": []}', encoding="utf-8")
    at = datetime.now(UTC) - timedelta(hours=1)
    with Outbox(Workspace(made.folder).ledger_file) as outbox:
        outbox.apply([begin_incident("producer_disconnected", f"rig {SLY}", None, SLY, at, severity="critical")])
        outbox.apply([("open_incident", {"incident_id": 1, "now": iso_utc(at)})])
    look_at(made)
    return made


def outbox_of(place):
    return Outbox(Workspace(place.folder).ledger_file)


def test_an_alert_is_acknowledged_with_a_note_and_stays(place, see):
    app = see("alerts")
    assert "critical" in words(app)
    app.button(key="acknowledge_1").click().run()
    app.text_area(key="acknowledge_note").input(f"restarted {SLY}").run()
    app.button(key="confirm_acknowledge").click().run()
    assert not app.exception
    with outbox_of(place) as outbox:
        (incident,) = outbox.open_incidents()
    assert incident.note.startswith("restarted")
    app = see("alerts")
    assert "acknowledged by" in words(app)
    assert SLY.split()[0] in words(app)
    assert is_harmless(app)


def test_an_alert_is_silenced_for_two_hours_and_the_silence_is_ended(place, see):
    app = see("alerts")
    app.button(key="silence_1").click().run()
    app.radio(key="silence_for").set_value("2h").run()
    app.button(key="confirm_silence").click().run()
    assert not app.exception
    with outbox_of(place) as outbox:
        (made,) = AlertRecords(outbox).active(now())
    assert (made.rule, made.subject) == ("producer_disconnected", f"rig {SLY}")
    assert timedelta(minutes=110) < made.until - now() < timedelta(minutes=121)
    app = see("alerts")
    assert "silenced until" in words(app)
    app.button(key=f"end_silence_{made.silence_id}").click().run()
    with outbox_of(place) as outbox:
        assert AlertRecords(outbox).active(now()) == []


def test_a_silence_of_everything_is_refused_in_words(place, see):
    app = see("alerts")
    app.button(key="new_silence").click().run()
    app.button(key="confirm_silence").click().run()
    assert "a silence needs a rule or a subject" in words(app)


def test_a_viewer_sees_it_and_does_nothing(place, see, monkeypatch):
    monkeypatch.setattr("ui.access.current_user", lambda: CurrentUser("vera", "viewer"))
    app = see("alerts")
    assert all(app.button(key=key).disabled for key in ("acknowledge_1", "silence_1", "new_silence", "save_rules"))
    assert not app.button(key="simulate").disabled


def test_numbers_are_tried_out_before_they_are_saved(place, see):
    app = see("alerts")
    app.number_input(key="rule:job_failed:threshold").set_value(3).run()
    app.button(key="simulate").click().run()
    assert not app.exception
    assert "**0** alerts from" in words(app)
    assert not (place.folder / "alerts.json").exists()
    app.number_input(key="rule:job_failed:repeat").set_value(1.0).run()
    app.selectbox(key="rule:job_failed:severity").set_value("critical").run()
    app.button(key="save_rules").click().run()
    rule = load_alerts(place.folder / "alerts.json").rules["job_failed"]
    assert (rule.threshold, rule.repeat_s, rule.severity) == (3, 3600, "critical")


def test_a_channel_is_tested(place, see):
    with http_receiver() as received:
        channels = {"teams": received.url.replace("http", "json")}
        (place.folder / "alerts.json").write_text(json.dumps({"channels": channels}), encoding="utf-8")
        app = see("alerts")
        app.button(key="test_channel").click().run()
        assert not app.exception
        assert "teams took the message" in words(app)
        assert "Alerts reach this recipient" in json.loads(received.requests[0].body)["message"]


def test_an_alert_names_its_job_as_every_other_view_does(place, see):
    job = {"name": "Daily traces", "query": "a.sql", "connection": "pg", "kafka_config": {"topic": "t"}}
    (place.folder / "queries" / "cdg-001.job.json").write_text(json.dumps(job), encoding="utf-8")
    with outbox_of(place) as outbox:
        outbox.apply([begin_incident("job_failed", "cdg-001", None, "failed", now(), severity="warning")])
    assert "**Job failed** · Daily traces" in words(see("alerts"))
