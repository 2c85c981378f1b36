"""Nothing typed is lost, and what was deleted comes back: drafts, SQL files, deleted jobs and connections on the page."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from core.admin.demo import SLUG, make_demo
from core.admin.edit_queries import query_names
from core.records.drafts import Draft, Drafts
from core.records.edits_file import EditsFile
from core.workspace.jobs import read_job_file
from core.workspace.paths import Workspace
from core.workspace.stored_file import read_stored
from tests.ui.conftest import Place, words
from ui import data
from ui.access import current_user

QUERY = "CDG-KAFKA-001--SelezioneTracceGiornaliere.sql"
CONNECTION = "A00-CDG-Collaudo"
PASSWORD = "Zitr0nen-Falter"


def _page() -> None:
    from importlib import import_module

    import streamlit as st

    from ui import drafts
    from ui.components.problem import guarded

    guarded(drafts.keep_typed)()
    guarded(import_module(f"ui.views.{st.query_params.get('view', 'jobs')}").show)()


@pytest.fixture(scope="module")
def _demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("editing") / "demo"
    make_demo(folder, 50, now=datetime.now(UTC))
    return folder


@pytest.fixture
def place(_demo: Path, tmp_path: Path, look_at: Callable[[Place], None]) -> Place:
    shutil.copytree(_demo, tmp_path / "demo")
    found = Place(tmp_path / "demo")
    look_at(found)
    return found


def visit(view: str = "jobs", **query: str) -> AppTest:
    """Opens the page in a new session, as after a reload."""
    app = AppTest.from_function(_page, default_timeout=60)
    app.session_state["language"] = "en"
    return go(app, view, **query)


def go(app: AppTest, view: str, **query: str) -> AppTest:
    """Clicks on a link: another address in the same session."""
    app.query_params.clear()
    for name, value in {"view": view, **query}.items():
        app.query_params[name] = value
    return app.run()


def press(app: AppTest, key: str) -> AppTest:
    app = app.button(key=key).click().run()
    assert not app.exception
    return app


def keys(app: AppTest) -> set[str | None]:
    return {button.key for button in app.button}


def stored(place: Place) -> list[Draft]:
    with EditsFile(Workspace(place.folder).edits_file) as file:
        return Drafts(file).of_user(current_user().name, data.now())


# ── drafts ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("leaves", ["by a click", "by a reload"])
def test_what_was_typed_into_a_job_is_offered_again_with_its_difference(place: Place, leaves: str) -> None:
    app = visit(job=SLUG)
    app.text_input(key="job:cron").input("0 7 * * *").run()
    app.number_input(key="job:timeout_s").set_value(90).run()
    app.text_input(key="job:kafka_config.topic").input("another").run()  # the click sends it: the next view has no form
    app = go(app, "connections") if leaves == "by a click" else app
    app = go(go(app, "connections"), "jobs", job=SLUG) if leaves == "by a click" else visit(job=SLUG)
    assert "You have a draft of" in words(app)
    assert '+  "cron": "0 7 * * *",' in words(app)
    assert not app.text_input
    app = press(app, "draft_go_on")
    assert app.text_input(key="job:cron").value == "0 7 * * *"
    assert app.number_input(key="job:timeout_s").value == 90
    assert app.text_input(key="job:kafka_config.topic").value == "another"
    assert "changed, not saved" in words(app)
    app = press(press(app, "save"), "confirm_save")
    job = read_job_file(Workspace(place.folder), SLUG).job
    assert (job.cron, job.timeout_s, job.kafka_config.topic) == ("0 7 * * *", 90, "another")
    assert stored(place) == []
    assert "draft_go_on" not in keys(visit(job=SLUG))


def test_a_value_that_makes_no_job_is_kept_too(place: Place) -> None:
    app = visit(job=SLUG)
    app.text_input(key="job:name").input("").run()
    app.text_input(key="job:cron").input("not a calendar").run()
    app = press(visit(job=SLUG), "draft_go_on")
    assert (app.text_input(key="job:name").value, app.text_input(key="job:cron").value) == ("", "not a calendar")


def test_a_parameter_that_was_typed_is_kept(place: Place) -> None:
    visit(job=SLUG).text_input(key="job:parameter:DATA").input("{date-9}").run().run()
    app = press(visit(job=SLUG), "draft_go_on")
    assert app.text_input(key="job:parameter:DATA").value == "{date-9}"


def test_a_draft_is_thrown_away_and_one_that_says_what_is_stored_is_none(place: Place) -> None:
    visit(job=SLUG).text_input(key="job:cron").input("0 7 * * *").run().run()
    app = press(visit(job=SLUG), "draft_drop")
    assert app.text_input(key="job:cron").value != "0 7 * * *"
    assert stored(place) == []
    as_it_was = app.text_input(key="job:cron").value
    app.text_input(key="job:cron").input("0 8 * * *").run().run()
    assert [draft.name for draft in stored(place)] == [SLUG]
    app.text_input(key="job:cron").input(as_it_was).run().run()
    assert stored(place) == []


def test_looking_at_a_job_makes_no_draft(place: Place) -> None:
    app = visit(job=SLUG)
    go(go(app.run(), "connections"), "jobs", job=SLUG).run()
    assert stored(place) == []


def test_a_draft_of_an_older_file_says_so_and_does_not_overwrite_the_newer_one(place: Place) -> None:
    visit(job=SLUG).text_input(key="job:cron").input("0 7 * * *").run().run()
    file = place.folder / "queries" / f"{SLUG}.job.json"
    newer = json.loads(file.read_text(encoding="utf-8")) | {"name": "Of another user"}
    file.write_text(json.dumps(newer), encoding="utf-8")
    data.clear_caches()
    app = visit(job=SLUG)
    assert "The file was changed since you began it" in words(app)
    app = press(press(press(app, "draft_go_on"), "save"), "confirm_save")
    assert "was changed by another user since you read it" in words(app)
    assert read_job_file(Workspace(place.folder), SLUG).job.name == "Of another user"


def test_each_user_has_drafts_of_his_own(place: Place) -> None:
    with EditsFile(Workspace(place.folder).edits_file) as file:
        Drafts(file).save(Draft("somebody-else", "job", SLUG, "", "{}", data.now()))
    assert "draft_go_on" not in keys(visit(job=SLUG))


def test_the_form_goes_on_where_no_draft_can_be_written(place: Place) -> None:
    Workspace(place.folder).edits_file.mkdir()
    app = visit(job=SLUG)
    app = app.text_input(key="job:cron").input("0 7 * * *").run().run()
    assert not app.exception
    assert "no draft is kept" in words(app)
    app = press(press(app, "save"), "confirm_save")
    assert read_job_file(Workspace(place.folder), SLUG).job.cron == "0 7 * * *"


def plain_sql(app: AppTest) -> AppTest:
    return app.toggle(key="sql_simple").set_value(True).run()


def sql_field(app: AppTest):  # type: ignore[no-untyped-def]
    return next(area for area in app.text_area if area.key and area.key.startswith("sql"))


@pytest.mark.parametrize("query", [{"job": SLUG}, {"new": "query", "file": QUERY}], ids=["beside the job", "its page"])
def test_typed_sql_is_offered_again(place: Place, query: dict[str, str]) -> None:
    app = plain_sql(visit(**query))
    text = sql_field(app).value
    sql_field(app).input(f"{text}-- mine\n").run()
    app = go(app, "connections")
    assert [(draft.kind, draft.document) for draft in stored(place)] == [("query", f"{text}-- mine\n")]
    app = press(visit(**query), "draft_go_on")
    assert sql_field(plain_sql(app)).value == f"{text}-- mine\n"
    app = press(app, "save_sql")
    assert read_stored(Workspace(place.folder).query_file(QUERY)).text == f"{text}-- mine\n"
    assert stored(place) == []


def test_a_typed_connection_is_offered_again_without_its_password(place: Place) -> None:
    app = press(visit("connections"), "add_database")
    app.text_input(key="c_name").input("pg").run()
    app.selectbox(key="c_type").set_value("postgresql").run()
    app.text_input(key="c_host").input("db.example.com").run()
    app.selectbox(key="c_secret_how").set_value("store it in a file for this account only").run()
    app.text_input(key="c_secret_value").input(PASSWORD).run()
    app.text_area(key="c_more").input(f"password = {PASSWORD}").run()
    app.run()
    written = b"".join(path.read_bytes() for path in (place.folder / ".pstt").glob("edits.sqlite*"))
    assert b"db.example.com" in written
    assert PASSWORD.encode() not in written
    app = press(visit("connections"), "add_database")
    assert "Passwords are in no draft" in words(app)
    app = press(app, "draft_go_on")
    assert (app.text_input(key="c_name").value, app.text_input(key="c_host").value) == ("pg", "db.example.com")
    assert app.selectbox(key="c_type").value == "postgresql"


def test_a_typed_registry_is_offered_again_without_its_password(place: Place) -> None:
    app = press(visit("connections"), "add_registry")
    app.selectbox(key="c_registry_of").select_index(1).run()
    app.text_input(key="c_url").input("https://registry.example.com").run()
    app.selectbox(key="c_registry_login").set_value("basic").run()
    app.text_input(key="c_username").input("pstt").run()
    app.selectbox(key="c_secret_how").set_value("store it in a file for this account only").run()
    app.text_input(key="c_secret_value").input(PASSWORD).run()
    app.checkbox(key="c_auto_register").check().run()
    of = app.selectbox(key="c_registry_of").value
    app.run()
    written = b"".join(path.read_bytes() for path in (place.folder / ".pstt").glob("edits.sqlite*"))
    assert b"registry.example.com" in written
    assert PASSWORD.encode() not in written
    app = press(press(visit("connections"), "add_registry"), "draft_go_on")
    assert (app.selectbox(key="c_registry_of").value, app.text_input(key="c_url").value) == (
        of,
        "https://registry.example.com",
    )
    assert (app.selectbox(key="c_registry_login").value, app.text_input(key="c_username").value) == ("basic", "pstt")
    app = press(app, "c_save")
    saved = json.loads(Workspace(place.folder).connections_file.read_text(encoding="utf-8"))["kafka_connections"][of]
    assert saved["schema_registry"] == {
        "url": "https://registry.example.com",
        "username": "pstt",
        "auto_register": False,
    }
    assert stored(place) == []
    app = press(visit("connections"), f"edit_registry_{of}")
    app.checkbox(key="c_auto_register").uncheck().run()
    app.run()
    app = press(press(visit("connections"), f"edit_registry_{of}"), "draft_go_on")
    assert not app.checkbox(key="c_auto_register").value
    assert app.text_input(key="c_username").value == "pstt"


# ── SQL files, and what was deleted ───────────────────────────────────────────────────────────


def test_a_renamed_query_stays_on_the_page_and_its_job_follows(place: Place) -> None:
    app = press(visit(new="query", file=QUERY), "query_rename")
    assert "1 job reads it and follows" in words(app)
    app.text_input(key="query_new_name").input("tracce.sql").run()
    app = press(app, "confirm_query_rename")
    assert app.selectbox(key="sql_name").value == "tracce.sql"
    assert read_job_file(Workspace(place.folder), SLUG).job.query == "tracce.sql"


def test_a_query_is_deleted_after_a_question_and_comes_back(place: Place) -> None:
    app = press(visit(new="query", file=QUERY), "query_delete")
    assert "Used by:" in words(app)
    assert app.button(key="confirm_query_delete").disabled
    app.checkbox(key="query_sure").check().run()
    app = press(app, "confirm_query_delete")
    assert query_names(Workspace(place.folder)) == []
    app = press(app, f"restore_query_0_{QUERY}")
    assert query_names(Workspace(place.folder)) == [QUERY]
    assert app.selectbox(key="sql_name").options[0] == QUERY


def test_a_new_query_is_typed_saved_and_shown(place: Place) -> None:
    app = visit(new="query")
    app.selectbox(key="sql_name").set_value("a new one").run()
    app.text_input(key="sql_new_name").input("fresh.sql").run()
    sql_field(plain_sql(app)).input("SELECT 1 AS n").run()
    app = press(app, "save_new_sql")
    assert app.selectbox(key="sql_name").value == "fresh.sql"
    assert sql_field(app).value == "SELECT 1 AS n"
    assert stored(place) == []


def test_an_earlier_version_of_a_query_is_brought_back_into_the_editor(place: Place) -> None:
    app = plain_sql(visit(new="query", file=QUERY))
    first = sql_field(app).value
    sql_field(app).input("SELECT 1 AS n").run()
    app = press(app, "save_sql")
    assert app.button(key="query_bring_back").disabled
    versions = app.selectbox(key="query_version")
    versions.select_index(1).run()
    app = press(app, "query_bring_back")
    assert sql_field(app).value == first
    app = press(app, "save_sql")
    assert read_stored(Workspace(place.folder).query_file(QUERY)).text == first


@pytest.mark.parametrize("layout", ["line ends", "byte order mark"])
def test_a_version_of_a_query_that_differs_in_bytes_only_is_brought_back(place: Place, layout: str) -> None:
    file = Workspace(place.folder).query_file(QUERY)
    plain = file.read_bytes().replace(b"\r\n", b"\n")
    other = plain.replace(b"\n", b"\r\n") if layout == "line ends" else b"\xef\xbb\xbf" + plain
    file.write_bytes(other)
    app = plain_sql(visit(new="query", file=QUERY))
    sql_field(app).input("SELECT 1 AS n").run()
    press(app, "save_sql")
    file.write_bytes(plain)
    app = plain_sql(visit(new="query", file=QUERY))
    versions = app.selectbox(key="query_version")
    versions.select_index(len(versions.options) - 1).run()
    app = press(app, "query_bring_back")
    app = press(app, "save_sql")
    assert not app.exception
    assert file.read_bytes() == other


def test_a_problem_of_typed_sql_is_shown_with_its_line_before_it_is_saved(place: Place) -> None:
    app = plain_sql(visit(new="query", file=QUERY))
    sql_field(app).input("SELECT 1 AS n\nFROM t WHERE a = '&MISSING'").run()
    app = app.run()
    assert "MISSING" in words(app)
    assert "line 2" in words(app)


def test_a_deleted_job_comes_back_from_the_list(place: Place) -> None:
    file = place.folder / "queries" / f"{SLUG}.job.json"
    text = file.read_text(encoding="utf-8")
    app = visit()
    app = app.menu_button(key=f"more_{SLUG}").set_value("delete").run()
    app.text_input(key="delete_sure").input(SLUG).run()
    app = press(app, "confirm_delete")
    assert not file.exists()
    press(app, f"restore_job_0_{SLUG}")
    assert file.read_text(encoding="utf-8") == text


def test_a_deleted_connection_comes_back_from_the_page(place: Place) -> None:
    before = json.loads(Workspace(place.folder).connections_file.read_text(encoding="utf-8"))
    app = press(press(visit("connections"), f"edit_database_{CONNECTION}"), "c_delete")
    assert "Used by:" in words(app)
    app = press(app, "c_confirm_delete")
    press(app, f"restore_connection_0_{CONNECTION}")
    assert json.loads(Workspace(place.folder).connections_file.read_text(encoding="utf-8")) == before
