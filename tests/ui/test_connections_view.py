"""Connections on the page: tests, topics, a message by hand, entries with secrets that are written and never shown."""

import json
import os
import stat

import pytest

from core.model.check_result import CheckResult
from core.workspace.paths import Workspace
from core.workspace.secrets import store_secret
from tests.ui.conftest import SCRIPT, cells, is_harmless, words
from ui.access import CurrentUser

PASSWORD = "s3cret-nobody-sees"


@pytest.fixture
def as_viewer(monkeypatch):
    monkeypatch.setattr("ui.access.current_user", lambda: CurrentUser("vera", "viewer"))


@pytest.fixture
def as_operator(monkeypatch):
    monkeypatch.setattr("ui.access.current_user", lambda: CurrentUser("olga", "operator"))


def press(app, key):
    return app.button(key=key).click().run()


def document(place):
    return json.loads((place.folder / "connections.json").read_text(encoding="utf-8"))


def everything_below(folder):
    """All bytes of a workspace but those of the file with the secret."""
    return b"".join(f.read_bytes() for f in folder.rglob("*") if f.is_file() and f.parent.name != "secrets")


# ── can we reach it ───────────────────────────────────────────────────────────────────────────


def test_a_database_tells_its_version_its_account_and_whether_it_may_write(worked, see):
    app = press(see("connections"), "test_database_pg")
    assert not app.exception
    text = words(app)
    assert "✔ good] reached in" in text
    assert "PostgreSQL" in text
    assert "account" in text
    assert "▲ look at it" in text  # the rig's account may write
    assert "Next: use an account that may only SELECT" in text


def test_a_cluster_tells_how_fast_it_answered_and_the_topics_of_its_jobs(worked, see):
    app = press(see("connections"), "test_cluster_rig")
    text = words(app)
    assert "answered in" in text
    assert f'topic "{worked.topic}" of job' in text


def test_what_cannot_be_reached_is_told_with_what_to_do(spoilt, see):
    known = document(spoilt)
    known["connections"][0]["port"] = 1
    known["kafka_connections"]["rig"]["bootstrap_servers"] = "127.0.0.1:1"
    (spoilt.folder / "connections.json").write_text(json.dumps(known), encoding="utf-8")
    app = press(press(see("connections"), "test_database_pg"), "test_cluster_rig")
    assert not app.exception
    text = words(app)
    assert text.count("✘ not good") == 2
    assert "127.0.0.1:1" in text
    assert "Next: " in text


def test_a_missing_secret_names_the_reference_and_no_value(spoilt, see, monkeypatch):
    monkeypatch.delenv("RIG_DB_PASSWORD")
    app = press(see("connections"), "test_database_pg")
    assert "the variable of env:RIG_DB_PASSWORD is not set" in words(app)


def test_facts_are_shown_as_they_stand(worked, see, monkeypatch):
    sly = CheckResult("warn", "x", f"{SCRIPT} **b**", f"[a](x) {SCRIPT}")
    monkeypatch.setattr("ui.changes.test_database", lambda name: [sly])
    app = press(see("connections"), "test_database_pg")
    assert SCRIPT in words(app)
    assert is_harmless(app)


# ── topics, and a message by hand ─────────────────────────────────────────────────────────────


def test_topics_are_listed_with_partitions(worked, see):
    app = press(see("connections"), "list_topics")
    assert not app.exception
    frame = app.dataframe[0].value
    row = frame[frame["Topic"] == worked.topic]
    assert list(row["Partitions"]) == [3]


def test_the_settings_of_a_topic_say_where_they_come_from(worked):
    from ui import changes

    found = {setting.name: setting for setting in changes.topic_settings("rig", worked.topic)}
    assert found["cleanup.policy"].value == "delete"
    assert found["cleanup.policy"].is_default
    assert int(found["retention.ms"].value) > 0


def test_a_topic_that_is_not_there_has_no_settings(worked, see):
    from core.errors import PsttError
    from ui import changes

    with pytest.raises(PsttError, match="no-such-topic"):
        changes.topic_settings("rig", "no-such-topic")


def test_a_message_by_hand_is_confirmed_sent_audited_and_found(spoilt, see):
    app = see("connections")
    app.text_input(key="hand_topic").input(spoilt.topic).run()
    app.text_input(key="hand_key").input("by-hand-1").run()
    app.text_area(key="hand_value").input('{"data": {"n": 1}}').run()
    app = press(app, "hand_send")
    assert f"goes to {spoilt.topic} on rig" in words(app)
    app = press(app, "confirm_send")
    assert not app.exception
    assert f"at {spoilt.topic}-" in words(app)
    outcome, entry, *_earlier = spoilt.ledger(lambda ledger: ledger.audit.entries())
    assert (entry.action, entry.object) == ("send", f"topic {spoilt.topic}")
    assert (outcome.action, outcome.after["of"], outcome.after["outcome"]) == ("outcome", "send", "done")
    assert "by-hand-1" in cells(see("find", key="by-hand-1"))


def test_a_viewer_can_neither_test_nor_send_nor_change(worked, see, as_viewer):
    app = see("connections")
    assert all(button.disabled for button in app.button)
    app = see("connections")
    app.text_input(key="hand_topic").input("t").run()
    app.text_area(key="hand_value").input("{}").run()
    assert app.button(key="hand_send").disabled


# ── entries ───────────────────────────────────────────────────────────────────────────────────


def add_database(see, name="NEW", **fields):
    app = press(see("connections"), "add_database")
    app.text_input(key="c_name").input(name).run()
    app.selectbox(key="c_type").set_value("postgresql").run()
    for place, value in {"host": "db.example.com", "username": "pstt", "database": "d", **fields}.items():
        app.text_input(key=f"c_{place}").input(value).run()
    return app


def test_a_connection_is_added_and_its_password_is_only_a_reference(spoilt, see):
    app = add_database(see)
    app.selectbox(key="c_secret_how").select_index(1).run()
    app.text_input(key="c_secret_value").input(PASSWORD).run()
    app = press(app, "c_save")
    assert not app.exception
    added = document(spoilt)["connections"][-1]
    assert added == {
        "name": "NEW",
        "db_type": "postgresql",
        "host": "db.example.com",
        "username": "pstt",
        "database": "d",
        "password": "file:secrets/new",
    }
    secret = spoilt.folder / "secrets" / "new"
    assert secret.read_text(encoding="utf-8").strip() == PASSWORD
    if os.name != "nt":
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert PASSWORD.encode() not in everything_below(spoilt.folder)
    app = see("connections")
    assert PASSWORD not in words(app)
    assert "file:secrets/new" in words(app)
    actions = [(e.action, e.object) for e in spoilt.ledger(lambda ledger: ledger.audit.entries())]
    assert actions[:2] == [("change", "connection NEW"), ("store", "secret file:secrets/new")]


def test_own_keys_of_a_database_have_fields_and_go_with_its_type(spoilt, see):
    app = add_database(see)
    assert "c_dsn" not in [field.key for field in app.text_input]
    app.selectbox(key="c_target_session_attrs").set_value("primary").run()
    app.text_area(key="c_options").input("channel_binding = require\nload_balance_hosts = random").run()
    app = press(app, "c_save")
    assert not app.exception
    added = document(spoilt)["connections"][-1]
    assert added["target_session_attrs"] == "primary"
    assert added["options"] == {"channel_binding": "require", "load_balance_hosts": "random"}

    app = add_database(see, name="OTHER")
    app.text_area(key="c_options").input("gssencmode = require").run()
    app = press(app, "c_save")
    assert "options may not have gssencmode" in words(app)
    assert document(spoilt)["connections"][-1]["name"] == "NEW"


def test_a_literal_password_is_never_shown_and_not_in_the_audit(spoilt, see):
    known = document(spoilt)
    known["connections"][0]["password"] = PASSWORD
    file = spoilt.folder / "connections.json"
    file.write_text(json.dumps(known), encoding="utf-8")
    app = see("connections")
    assert "is in the file itself" in words(app)
    app = press(app, "edit_database_pg")
    assert PASSWORD not in words(app) + str([field.value for field in app.text_input])
    app.text_input(key="c_environment").input("rig2").run()
    app = press(app, "c_save")
    assert not app.exception
    assert document(spoilt)["connections"][0]["environment"] == "rig2"
    entry, *_earlier = spoilt.ledger(lambda ledger: ledger.audit.entries())
    assert entry.before["connections"][0]["password"] == entry.after["connections"][0]["password"] == "***"
    if os.name != "nt":
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("name", "fields", "told"),
    [
        ("pg", {}, 'there are two connections "pg"'),
        ("", {}, '"name" is not valid'),
        ("X", {"host": ""}, 'connection "X" (postgresql) needs "host"'),
    ],
)
def test_a_wrong_entry_is_refused_in_the_words_of_check(spoilt, see, name, fields, told):
    before = document(spoilt)
    app = press(add_database(see, name, **fields), "c_save")
    assert told in words(app)
    assert document(spoilt) == before


def test_an_entry_is_not_saved_over_a_newer_edit(spoilt, see):
    app = add_database(see)
    known = document(spoilt) | {"default_environment": "rig"}
    known["connections"][0]["connect_timeout_s"] = 3
    (spoilt.folder / "connections.json").write_text(json.dumps(known), encoding="utf-8")
    app = press(app, "c_save")
    assert "connections.json was changed by another user since you read it" in words(app)
    assert document(spoilt) == known


def test_a_cluster_is_changed_and_what_the_form_does_not_know_stays(spoilt, see):
    known = document(spoilt)
    known["kafka_connections"]["rig"]["linger_ms"] = 7
    (spoilt.folder / "connections.json").write_text(json.dumps(known), encoding="utf-8")
    app = press(see("connections"), "edit_cluster_rig")
    app.text_input(key="c_default_topic").input("other").run()
    app = press(app, "c_save")
    assert not app.exception
    assert document(spoilt)["kafka_connections"]["rig"] == known["kafka_connections"]["rig"] | {
        "default_topic": "other"
    }


def test_the_usual_environment_is_chosen_on_the_page(spoilt, see):
    known = document(spoilt)
    known["kafka_connections"]["other"] = {"bootstrap_servers": "127.0.0.1:1"}
    (spoilt.folder / "connections.json").write_text(json.dumps(known), encoding="utf-8")
    app = see("connections")
    box = app.selectbox(key="usual_environment_rig")
    assert (box.value, list(box.options)) == ("rig", ["rig", "other"])
    box.select("other").run()
    assert not app.exception
    assert document(spoilt) == known | {"default_environment": "other"}
    entry, *_earlier = spoilt.ledger(lambda ledger: ledger.audit.entries())
    assert (entry.action, entry.object) == ("change", "default_environment")


def test_only_an_administrator_chooses_the_usual_environment(worked, see, as_operator):
    assert see("connections").selectbox(key="usual_environment_rig").disabled


def test_the_first_cluster_is_the_usual_environment(spoilt, see):
    known = document(spoilt)
    del known["kafka_connections"], known["default_environment"]
    (spoilt.folder / "connections.json").write_text(json.dumps(known), encoding="utf-8")
    app = press(see("connections"), "add_cluster")
    app.text_input(key="c_key").input("mine").run()
    app.text_input(key="c_bootstrap_servers").input("127.0.0.1:1").run()
    app = press(app, "c_save")
    assert not app.exception
    assert document(spoilt)["default_environment"] == "mine"


def test_every_other_key_is_typed_one_a_line_and_checked_like_the_file(spoilt, see):
    known = document(spoilt)
    known["kafka_connections"]["rig"] |= {"linger_ms": 7, "ssl_certfile": "7"}
    (spoilt.folder / "connections.json").write_text(json.dumps(known), encoding="utf-8")
    app = press(see("connections"), "edit_cluster_rig")
    assert app.text_area(key="c_more").value == 'linger_ms = 7\nssl_certfile = "7"'
    app.text_area(key="c_more").input("compression_type = zstd\nenable_idempotence = false\n\nlinger_ms = 12").run()
    app = press(app, "c_save")
    assert not app.exception
    saved = document(spoilt)["kafka_connections"]["rig"]
    assert (saved["compression_type"], saved["enable_idempotence"], saved["linger_ms"]) == ("zstd", False, 12)
    assert "ssl_certfile" not in saved


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("lingr_ms = 5", "linger_ms"),
        ("linger_ms = soon", "linger_ms"),
        ("nonsense", "a line without ="),
        ("sasl_password = hunter2", "it has a field of its own in this form"),
    ],
)
def test_a_key_that_is_wrong_is_told_and_nothing_is_saved(spoilt, see, typed, told):
    before = document(spoilt)
    app = press(see("connections"), "edit_cluster_rig")
    app.text_area(key="c_more").input(typed).run()
    if any(button.key == "c_save" for button in app.button):
        app = press(app, "c_save")
    assert told in words(app)
    assert "hunter2" not in words(app)
    assert document(spoilt) == before


def test_the_first_connection_is_made_in_an_empty_workspace(empty, see):
    app = see("connections")
    assert "There is no connections.json yet" in words(app)
    app = press(add_database(see), "c_save")
    assert not app.exception
    assert document(empty)["connections"][0]["name"] == "NEW"


def test_an_operator_tests_and_does_not_change(spoilt, see, as_operator):
    app = see("connections")
    assert not app.button(key="test_database_pg").disabled
    assert app.button(key="edit_database_pg").disabled
    assert app.button(key="add_cluster").disabled


@pytest.mark.parametrize("reference", ["file:../outside", "file:/etc/outside", "env:NAME", "keyring:noslash", "plain"])
def test_a_secret_is_stored_below_the_workspace_or_not_at_all(empty, reference):
    from core.errors import ConfigError

    with pytest.raises(ConfigError) as caught:
        store_secret(reference, PASSWORD, Workspace(empty.folder))
    assert PASSWORD not in str(caught.value)
    assert not (empty.folder.parent / "outside").exists()


def test_a_file_that_is_no_json_is_told_with_its_line(spoilt, see):
    (spoilt.folder / "connections.json").write_text('{\n "connections": [,]}', encoding="utf-8")
    app = see("connections")
    assert not app.exception
    assert "connections.json, line 2" in words(app)


# ── names, and what uses an entry ─────────────────────────────────────────────────────────────


def write(place, known):
    (place.folder / "connections.json").write_text(json.dumps(known), encoding="utf-8")


def add_cluster(see, key, **fields):
    app = press(see("connections"), "add_cluster")
    app.text_input(key="c_key").input(key).run()
    for place, value in {"bootstrap_servers": "127.0.0.1:2", **fields}.items():
        app.text_input(key=f"c_{place}").input(value).run()
    return app


@pytest.mark.parametrize(
    ("key", "fields", "told"),
    [
        ("rig", {"name": "Brand new"}, "there is a cluster of the environment rig already"),
        (" RIG ", {"name": "Brand new"}, "there is a cluster of the environment RIG already"),
        ("prod", {"name": "kafka rig"}, "another cluster, rig, is called kafka rig too"),
        ("Kafka Rig", {}, "another cluster, rig, is called Kafka Rig too"),
        ("", {}, "a cluster needs an environment"),
        ("  ", {"name": "x"}, "a cluster needs an environment"),
    ],
)
def test_a_cluster_never_takes_the_place_or_the_name_of_another(spoilt, see, key, fields, told):
    before = document(spoilt)
    app = press(add_cluster(see, key, **fields), "c_save")
    assert told in words(app)
    assert document(spoilt) == before


def test_a_delete_asks_first_and_says_which_jobs_use_it(spoilt, see):
    before = document(spoilt)
    for kind, name in (("database", "pg"), ("cluster", "rig")):
        app = press(press(see("connections"), f"edit_{kind}_{name}"), "c_delete")
        assert not app.exception
        assert "Used by:" in words(app)
        assert "- Broken (enabled)" in words(app)
        assert document(spoilt) == before
        assert is_harmless(app)
    app = press(app, "c_confirm_delete")
    assert document(spoilt)["kafka_connections"] == {}


def test_what_no_job_uses_is_deleted_after_one_question(spoilt, see):
    press(add_cluster(see, "prod", name="Prod"), "c_save")
    app = press(press(see("connections"), "edit_cluster_prod"), "c_delete")
    assert "No job uses it." in words(app)
    press(app, "c_confirm_delete")
    assert list(document(spoilt)["kafka_connections"]) == ["rig"]


def test_a_connection_that_jobs_use_is_renamed_only_when_that_is_meant(spoilt, see):
    app = press(see("connections"), "edit_database_pg")
    app.text_input(key="c_name").input("pg2").run()
    assert "- Broken (enabled)" in words(app)
    assert app.button(key="c_save").disabled
    app.checkbox(key="c_rename_sure").check().run()
    press(app, "c_save")
    assert [entry["name"] for entry in document(spoilt)["connections"]] == ["pg2"]


@pytest.mark.parametrize("name", ["", "  "])
def test_entries_without_a_name_are_told_and_deleted_one_after_the_other(spoilt, see, name):
    good = document(spoilt)
    nameless = {**good["connections"][0], "name": name}
    write(spoilt, good | {
        "connections": [*good["connections"], nameless],
        "kafka_connections": {**good["kafka_connections"], name: {}},
    })  # fmt: skip
    app = see("connections")
    assert not app.exception
    assert "without a name" in words(app)
    press(press(press(app, f"edit_cluster_{name}"), "c_delete"), "c_confirm_delete")
    assert document(spoilt)["kafka_connections"] == good["kafka_connections"]
    press(press(press(see("connections"), f"edit_database_{name}"), "c_delete"), "c_confirm_delete")
    assert document(spoilt) == good


def test_a_cluster_without_a_name_can_be_given_one(spoilt, see):
    good = document(spoilt)
    write(spoilt, good | {"kafka_connections": {**good["kafka_connections"], "": {"name": "Lost"}}})
    app = press(see("connections"), "edit_cluster_")
    app.text_input(key="c_key").input("lost").run()
    press(app, "c_save")
    assert document(spoilt)["kafka_connections"] == {**good["kafka_connections"], "lost": {"name": "Lost"}}


def test_one_of_two_connections_of_one_name_is_renamed(spoilt, see):
    good = document(spoilt)
    write(spoilt, good | {"connections": [*good["connections"], {**good["connections"][0], "host": "other"}]})
    app = press(see("connections"), "edit_database_pg_1")
    assert app.text_input(key="c_host").value == "other"
    app.text_input(key="c_name").input("second").run()
    app.checkbox(key="c_rename_sure").check().run()
    press(app, "c_save")
    assert [(e["name"], e["host"] == "other") for e in document(spoilt)["connections"]] == [
        ("pg", False),
        ("second", True),
    ]


# ── versions ──────────────────────────────────────────────────────────────────────────────────


def versions(place):
    return place.ledger(lambda ledger: ledger.connections_versions.newest_first())


def test_every_saved_version_is_kept_shown_with_its_difference_and_brought_back(spoilt, see):
    first = document(spoilt)
    press(add_cluster(see, "prod", name="Prod"), "c_save")
    press(press(press(see("connections"), "edit_database_pg"), "c_delete"), "c_confirm_delete")
    assert document(spoilt)["connections"] == []
    newest, second, oldest = versions(spoilt)
    assert json.loads(newest.document)["connections"] == []
    assert (json.loads(oldest.document), oldest.saved_by) == (first, "")
    assert second.saved_by
    app = see("connections")
    assert app.button(key="bring_back").disabled  # it is what the file says
    app.selectbox(key="connections_version").set_value(oldest.sha256).run()
    assert '-    "prod": {' in words(app)
    app = press(app, "bring_back")
    assert not app.exception
    assert document(spoilt) == first
    again, *before = versions(spoilt)
    assert json.loads(again.document) == first
    assert before == [newest, second, oldest]  # each with its own time
    assert spoilt.ledger(lambda ledger: ledger.audit.entries())[0].object.startswith("connections.json as of ")


def test_a_password_of_the_file_is_in_no_version_and_stays_what_it_is_now_when_one_is_brought_back(spoilt, see):
    known = document(spoilt)
    known["connections"][0]["password"] = PASSWORD
    known["kafka_connections"]["rig"] |= {
        "security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "PLAIN", "sasl_username": "u", "sasl_password": PASSWORD
    }  # fmt: skip
    write(spoilt, known)
    app = press(see("connections"), "edit_database_pg")
    app.text_input(key="c_environment").input("rig2").run()
    press(app, "c_save")
    file = spoilt.folder / "connections.json"
    assert PASSWORD.encode() not in everything_below(spoilt.folder).replace(file.read_bytes(), b"")
    oldest = versions(spoilt)[-1]
    app = see("connections")
    app.selectbox(key="connections_version").set_value(oldest.sha256).run()
    assert PASSWORD not in words(app)
    press(app, "bring_back")
    assert document(spoilt) == known


def test_a_password_that_is_nowhere_any_more_has_to_be_given_again(spoilt, see):
    known = document(spoilt)
    known["connections"][0]["password"] = PASSWORD
    write(spoilt, known)
    press(press(press(see("connections"), "edit_database_pg"), "c_delete"), "c_confirm_delete")
    app = see("connections")
    app.selectbox(key="connections_version").set_value(versions(spoilt)[-1].sha256).run()
    assert "give them again for: pg" in words(app)
    press(app, "bring_back")
    assert "password" not in document(spoilt)["connections"][0]


def test_a_viewer_brings_nothing_back(spoilt, see, as_operator):
    from core.records.connections_versions import keep_connections
    from tests.ui.conftest import now

    text = json.dumps(document(spoilt) | {"kafka_connections": {}})
    spoilt.ledger(lambda ledger: keep_connections(Workspace(spoilt.folder), ledger.connections_versions, text, now()))
    assert see("connections").button(key="bring_back").disabled


# ── logins of companies ───────────────────────────────────────────────────────────────────────


def test_the_fields_of_a_login_are_those_of_its_kind(spoilt, see):
    app = press(see("connections"), "edit_cluster_rig")
    app.selectbox(key="c_sasl_mechanism").set_value("GSSAPI").run()
    assert not [field for field in app.text_input if field.key == "c_sasl_username"]
    app.selectbox(key="c_security_protocol").set_value("SASL_SSL").run()
    app.text_input(key="c_sasl_kerberos_principal").input("pstt@EXAMPLE.COM").run()
    app = press(app, "c_save")
    assert not app.exception
    saved = document(spoilt)["kafka_connections"]["rig"]
    assert (saved["sasl_mechanism"], saved["sasl_kerberos_principal"]) == ("GSSAPI", "pstt@EXAMPLE.COM")


def test_the_secret_of_a_client_may_be_in_a_vault(spoilt, see):
    app = press(see("connections"), "edit_cluster_rig")
    app.selectbox(key="c_sasl_mechanism").set_value("OAUTHBEARER").run()
    app.selectbox(key="c_security_protocol").set_value("SASL_SSL").run()
    app.text_input(key="c_sasl_oauthbearer_token_endpoint_url").input("https://login.example.com/token").run()
    app.text_input(key="c_sasl_oauthbearer_client_id").input("pstt").run()
    app.selectbox(key="c_secret_how").set_value("it is in a vault, or a command prints it").run()
    app.text_input(key="c_secret_remote").input("hunter2").run()
    assert "write vault:PATH#KEY or exec:COMMAND" in words(app)
    app.text_input(key="c_secret_remote").input("vault:secret/pstt/kafka#client_secret").run()
    app = press(app, "c_save")
    assert not app.exception
    saved = document(spoilt)["kafka_connections"]["rig"]
    assert saved["sasl_oauthbearer_client_secret"] == "vault:secret/pstt/kafka#client_secret"
    assert not list(spoilt.folder.glob("secrets/*"))


def test_a_secret_among_the_other_keys_must_be_a_reference(spoilt, see):
    before = document(spoilt)
    app = press(see("connections"), "edit_cluster_rig")
    app.text_area(key="c_more").input("ssl_key_password = hunter2").run()
    assert "it is a secret" in words(app)
    assert document(spoilt) == before
    app.text_area(key="c_more").input('client_options = {"metadata_max_age_ms": 60000}\nclient_id = "pstt-a00"').run()
    app = press(app, "c_save")
    assert not app.exception
    saved = document(spoilt)["kafka_connections"]["rig"]
    assert (saved["client_options"], saved["client_id"]) == ({"metadata_max_age_ms": 60000}, "pstt-a00")


# ── schema registries ─────────────────────────────────────────────────────────────────────────


def test_a_registry_is_added_for_every_cluster_and_its_password_is_shown_nowhere(spoilt, see):
    app = press(see("connections"), "add_registry")
    app.text_input(key="c_url").input("https://registry.example.com:8081").run()
    app.selectbox(key="c_registry_login").set_value("basic").run()
    app.text_input(key="c_username").input("pstt").run()
    app.selectbox(key="c_secret_how").set_value("store it in a file for this account only").run()
    app.text_input(key="c_secret_value").input(PASSWORD).run()
    app = press(app, "c_save")
    assert not app.exception
    assert document(spoilt)["schema_registry"] == {
        "url": "https://registry.example.com:8081",
        "username": "pstt",
        "password": "file:secrets/registry-all",
    }
    assert PASSWORD.encode() not in everything_below(spoilt.folder)
    text = words(see("connections"))
    assert "https://registry.example.com:8081 · pstt" in text
    assert "password: file:secrets/registry-all" in text


def test_another_way_to_sign_in_to_a_registry_leaves_no_secret_of_the_old_one(spoilt, see):
    known = document(spoilt)
    known["kafka_connections"]["rig"]["schema_registry"] = {
        "url": "https://registry.example.com",
        "username": "pstt",
        "password": "env:HOME",
    }
    (spoilt.folder / "connections.json").write_text(json.dumps(known), encoding="utf-8")
    app = press(see("connections"), "edit_registry_rig")
    app.selectbox(key="c_registry_login").set_value("token").run()
    app.selectbox(key="c_secret_how").set_value("it is in an environment variable").run()
    app.text_input(key="c_secret_env").input("PATH").run()
    app.checkbox(key="c_auto_register").check().run()
    app = press(app, "c_save")
    assert not app.exception
    assert document(spoilt)["kafka_connections"]["rig"]["schema_registry"] == {
        "url": "https://registry.example.com",
        "bearer_token": "env:PATH",
        "auto_register": False,
    }


def test_a_registry_without_a_proper_address_is_refused_and_nothing_is_written(spoilt, see):
    before = document(spoilt)
    app = press(see("connections"), "add_registry")
    app.text_input(key="c_url").input("registry:8081").run()
    app = press(app, "c_save")
    assert "give the address of a registry" in words(app)
    assert document(spoilt) == before


def test_the_jobs_that_need_a_registry_are_named_before_it_is_deleted(spoilt, see):
    known = document(spoilt)
    known["schema_registry"] = {"url": "https://registry.example.com"}
    (spoilt.folder / "connections.json").write_text(json.dumps(known), encoding="utf-8")
    file = next((spoilt.folder / "queries").glob("*.job.json"))
    job = json.loads(file.read_text(encoding="utf-8")) | {"value_format": "avro"}
    file.write_text(json.dumps(job), encoding="utf-8")
    app = press(press(see("connections"), "edit_registry_"), "c_delete")
    assert f"{job['name']} (" in words(app)
    press(app, "c_confirm_delete")
    assert "schema_registry" not in document(spoilt)
