"""Administration on the page: settings, users, tokens, audit, log, metrics."""

import re

import pytest

from core.records.accounts import Accounts
from core.workspace.paths import Workspace
from tests.ui.conftest import SCRIPT, cells, is_harmless, metric, now, words
from ui.access import CurrentUser

PASSWORD = "four words are enough"


@pytest.fixture
def be(monkeypatch):
    def become(role):
        monkeypatch.setattr("ui.access.current_user", lambda: CurrentUser(f"a {role}", role))
        monkeypatch.setattr("ui.views.administration.current_user", lambda: CurrentUser(f"a {role}", role))

    return become


def press(app, key):
    return app.button(key=key).click().run()


def submit(app, label):
    return next(button for button in app.button if button.label == label).click().run()


def accounts(place, ask):
    with Accounts(Workspace(place.folder).ledger_file) as opened:
        return ask(opened)


def test_settings_have_their_origin_and_secrets_are_masked(spoilt, see):
    (spoilt.folder / ".env").write_text("KAFKA_LINGER_MS=7\nKAFKA_SASL_PASSWORD=hush-hush\n", encoding="utf-8")
    app = see("administration")
    assert not app.exception
    rows = settings_of(app)
    assert rows["KAFKA_LINGER_MS"][:2] == ["7", ".env, line 1"]
    assert "waited that many ms" in rows["KAFKA_LINGER_MS"][-1]
    assert rows["KAFKA_SASL_PASSWORD"][0] == "***"
    assert "hush-hush" not in words(app) + cells(app) + str(rows)
    app.checkbox(key="settings_given").check().run()
    assert set(settings_of(app)) == {"KAFKA_LINGER_MS", "KAFKA_SASL_PASSWORD", "PSTT_TIMEZONE"}


def settings_of(app) -> dict[str, list[str]]:
    """Setting → its other cells."""
    (table,) = (found.proto.body for found in app.get("html") if "pstt-texts" in found.proto.body)
    lines = [re.findall(r"<td>(.*?)</td>", line) for line in table.split("<tr>")]
    return {line[0]: line[1:] for line in lines if line}


def test_users_are_added_changed_and_removed_and_each_is_written_down(spoilt, see, be):
    be("admin")
    app = see("administration")
    assert "There are no users" in words(app)
    app.text_input(key="user_name").input("anna")
    app.text_input(key="user_password").input(PASSWORD)
    app.selectbox(key="user_role").set_value("admin")
    app = submit(app, "Add")
    assert not app.exception
    (anna,) = accounts(spoilt, Accounts.users)
    assert (anna.name, anna.role, anna.has_password, anna.created_by) == ("anna", "admin", True, "a admin")
    app = see("administration")
    app.text_input(key="user_name").input("vera")
    app.text_input(key="user_password").input("short")
    app = submit(app, "Add")
    assert "a password has at least 10 characters" in words(app)
    app.text_input(key="user_name").input("vera")
    app.text_input(key="user_password").input(PASSWORD)
    app = submit(app, "Add")
    app = see("administration")
    app.selectbox(key="change_user").set_value("anna").run()
    app.selectbox(key="change_role").set_value("viewer").run()
    app = press(app, "set_role")
    assert "anna is the only admin" in words(app)
    app.selectbox(key="change_user").set_value("vera").run()
    assert app.button(key="remove_user").disabled
    app.checkbox(key="remove_sure_vera").check().run()
    app = press(app, "remove_user")
    assert [user.name for user in accounts(spoilt, Accounts.users)] == ["anna"]
    actions = [(e.action, e.object) for e in spoilt.ledger(lambda ledger: ledger.audit.entries())]
    assert actions[:2] == [("remove", "user vera"), ("add", "user vera")]
    assert PASSWORD.encode() not in Workspace(spoilt.folder).ledger_file.read_bytes()


def test_a_token_is_shown_once_and_can_be_revoked(spoilt, see, be):
    be("admin")
    app = see("administration")
    app.text_input(key="token_name").input("nagios")
    app = submit(app, "Make")
    assert not app.exception
    token = next(code.value for code in app.code if code.value.startswith("pstt_"))
    assert token.encode() not in Workspace(spoilt.folder).ledger_file.read_bytes()
    app = press(app, "token_seen")
    assert "pstt_" not in words(app)
    assert "✔ valid" in cells(app)
    app = press(app, "revoke_token")
    assert not app.exception
    assert [t.state(now()) for t in accounts(spoilt, Accounts.tokens)] == ["revoked"]


def test_the_audit_shows_who_did_what_and_is_searched(spoilt, see):
    spoilt.ledger(
        lambda ledger: ledger.audit.add(
            "vera", "disable", f"job {SCRIPT}", now(), {"enabled": True}, {"enabled": False}
        )
    )
    spoilt.ledger(lambda ledger: ledger.audit.add("anna", "send", "topic t", now()))
    app = see("administration")
    frame = next(f.value for f in app.dataframe if "Did" in f.value.columns)
    assert list(frame["Who"])[:2] == ["anna", "vera"]  # then those who made the runs of the fixture
    app.text_input(key="audit_search").input("vera").run()
    frame = next(f.value for f in app.dataframe if "Did" in f.value.columns)
    assert list(frame["On"]) == [f"job {SCRIPT}"]
    assert is_harmless(app)


def test_the_log_is_filtered_by_run_and_level(worked, see):
    failed, good = worked.runs("broken")[0], worked.runs("export")[0]
    app = see("administration")
    app.text_input(key="log_run").input(good.run_id[:6]).run()
    log = next(code.value for code in app.code if "acknowledged" in code.value)
    assert "500 read, 495 acknowledged" in log
    assert "broken" not in log
    app.text_input(key="log_run").input(failed.run_id).run()
    app.selectbox(key="log_level").set_value("CRITICAL").run()
    assert "the log says nothing about it" in words(app)
    app.text_input(key="log_run").input("nosuchrun").run()
    assert not app.exception
    assert "there is no run" in words(app)


def test_metrics_are_made_again(spoilt, see):
    app = see("administration")
    assert metric(app, "Segments in the spool") != "0"
    Workspace(spoilt.folder).metrics_file.unlink()
    app = press(app, "rebuild")
    assert not app.exception
    assert "made again, with 1,485 sends" in words(app)
    assert Workspace(spoilt.folder).metrics_file.exists()
    assert spoilt.ledger(lambda ledger: ledger.audit.entries())[0].action == "rebuild"


def test_an_operator_sees_the_log_and_a_viewer_the_versions(worked, see, be):
    be("operator")
    app = see("administration")
    assert not app.exception
    assert "are shown to admins" in words(app)
    assert app.selectbox(key="log_level")
    assert "KAFKA_LINGER_MS" not in cells(app)
    be("viewer")
    app = see("administration")
    assert "log_level" not in [box.key for box in app.selectbox]
    assert "PSTT Kafka" in cells(app)


def test_it_is_italian_where_that_is_wanted(worked, see):
    app = see("administration", language="it")
    assert app.title[0].value == "Amministrazione"
    assert "Ordine: job" in words(app)
