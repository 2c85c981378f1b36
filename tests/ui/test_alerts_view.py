"""Alerts on the page: incidents, rules, messages."""

import json
from datetime import timedelta

import pytest

from core.notify.notification import Notification
from core.notify.outbox import Outbox, new_message
from core.notify.rules import load_alerts
from core.workspace.paths import Workspace
from tests.ui.conftest import SCRIPT, SLY, cells, is_harmless, now, words
from ui.access import CurrentUser


def press(app, key):
    return app.button(key=key).click().run()


def rules(place):
    return load_alerts(place.folder / "alerts.json")


@pytest.fixture
def as_operator(monkeypatch):
    monkeypatch.setattr("ui.access.current_user", lambda: CurrentUser("olga", "operator"))


def test_without_a_file_the_defaults_stand_there(worked, see):
    app = see("alerts")
    assert not app.exception
    assert "No alert is open." in words(app)
    assert "These are the defaults" in words(app)
    assert app.number_input(key="rule:latency_p99:threshold").value == 5000
    assert app.number_input(key="rule:latency_p99:for").value == 10
    assert set(app.multiselect(key="rule:error_rate:actions").value) == {"mail", "log_error", "disable_job"}


def test_a_rule_is_changed_and_the_others_stay(spoilt, see):
    before = rules(spoilt)
    app = see("alerts")
    app.number_input(key="rule:latency_p99:threshold").set_value(750.0).run()
    app.number_input(key="rule:latency_p99:for").set_value(2.0).run()
    app.text_input(key="rule:latency_p99:recipients").input("a@example.com, b@example.com").run()
    app.toggle(key="rule:runner_memory:enabled").set_value(False).run()
    app = press(app, "save_rules")
    assert not app.exception
    after = rules(spoilt)
    latency = after.rules["latency_p99"]
    assert (latency.threshold, latency.for_s, latency.recipients) == (750, 120, ("a@example.com", "b@example.com"))
    assert not after.rules["runner_memory"].enabled
    assert after.rules["error_rate"] == before.rules["error_rate"]
    entry, *_earlier = spoilt.ledger(lambda ledger: ledger.audit.entries())
    assert (entry.action, entry.object) == ("change", "alert rules")


def test_a_wrong_recipient_is_refused_in_the_words_of_check(spoilt, see):
    app = see("alerts")
    app.text_input(key="rule:job_late:recipients").input("nobody").run()
    app = press(app, "save_rules")
    assert "this is no e-mail address" in words(app)
    assert not (spoilt.folder / "alerts.json").exists()


def test_the_address_of_a_channel_is_a_reference(spoilt, see):
    app = see("alerts")
    app.text_input(key="channel:new").input("teams").run()
    app.text_input(key="channel:reference").input("https://example.com/hook/t0ken").run()
    assert "an address holds a token" in words(app)
    app.text_input(key="channel:reference").input("env:TEAMS_URL").run()
    app = press(app, "save_rules")
    assert not app.exception
    assert rules(spoilt).channels == {"teams": "env:TEAMS_URL"}


def test_rules_are_not_saved_over_a_newer_edit(spoilt, see):
    app = see("alerts")
    app.number_input(key="rule:latency_p99:threshold").set_value(750.0).run()
    theirs = json.dumps({"rules": {"latency_p99": {"threshold_ms": 900}}})
    (spoilt.folder / "alerts.json").write_text(theirs, encoding="utf-8")
    app = press(app, "save_rules")
    assert "alerts.json was changed by another user since you read it" in words(app)
    assert (spoilt.folder / "alerts.json").read_text(encoding="utf-8") == theirs
    app = press(see("alerts"), "save_rules")
    assert rules(spoilt).rules["latency_p99"].threshold == 900


def test_a_file_with_an_unknown_rule_is_told_and_not_replaced(spoilt, see):
    (spoilt.folder / "alerts.json").write_text('{"rules": {"latencies": {}}}', encoding="utf-8")
    app = see("alerts")
    assert not app.exception
    assert 'unknown key "latencies"' in words(app)
    assert "save_rules" not in [button.key for button in app.button]


def test_an_operator_reads_the_rules_and_does_not_change_them(worked, see, as_operator):
    app = see("alerts")
    assert app.button(key="save_rules").disabled
    assert all(field.disabled for field in app.number_input)


def test_messages_that_wait_say_why(spoilt, see):
    at = now() - timedelta(hours=1)
    with Outbox(Workspace(spoilt.folder).ledger_file) as outbox:
        change = new_message("alert", "k", "mail", ["a@example.com"], Notification(SLY, "an answer"), at)
        outbox.apply([change])
        outbox.deliver(now, _no_door)
    app = see("alerts")
    assert not app.exception
    assert "**Waiting: 1**" in words(app)
    assert "the mail server is away" in cells(app)
    assert SCRIPT in cells(app)
    assert is_harmless(app)


def _no_door(channel):
    from core.errors import NotDelivered

    raise NotDelivered("the mail server is away")


def test_without_a_mail_server_the_page_says_what_to_set(worked, see):
    assert "PSTT_SMTP_HOST and PSTT_MAIL_FROM" in words(see("alerts"))


def test_a_mail_server_that_is_away_is_a_problem_in_words(spoilt, see):
    env = "PSTT_SMTP_HOST=127.0.0.1\nPSTT_SMTP_PORT=1\nPSTT_MAIL_FROM=pstt@example.com\n"
    (spoilt.folder / ".env").write_text(env, encoding="utf-8")
    app = see("alerts")
    app.text_input(key="test_mail_to").input("a@example.com").run()
    app = press(app, "test_mail")
    assert not app.exception
    assert "127.0.0.1" in words(app)
    assert "Next: " in words(app)
