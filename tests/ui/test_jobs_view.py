"""Jobs on the page: the list, what can be done with each, and the editor."""

import json
import os
import subprocess
from datetime import datetime, timedelta

import pytest

from bench.kills import stop_runner
from core.admin.edit_files import LARGEST_QUERY_BYTES
from core.app import App
from core.cli.worker import execute_scheduled_run
from core.model.job import Incremental, NewTopic, Partitions
from core.workspace.jobs import SUFFIX, checked_job, load_job, read_job_file
from tests.rigs.waiting import until
from tests.rigs.workspace import command, environment, run_command
from tests.ui.conftest import SCRIPT, ZONE, cells, is_harmless, now, words
from ui import changes, data
from ui.access import CurrentUser
from ui.components import runner_requests
from ui.views.jobs import job_list

SQL = """define DATA='2026-01-01'  --Obbligatorio: Data estrazione (YYYY-MM-DD)
define SITE='ROMA'  --Opzionale: Sede
SELECT lpad(g::text, 12, '0') AS barcode, g AS n, '&DATA' AS data, '&SITE' AS site FROM generate_series(1, 30) AS g;
"""


@pytest.fixture
def as_viewer(monkeypatch):
    monkeypatch.setattr("ui.access.current_user", lambda: CurrentUser("vera", "viewer"))


@pytest.fixture
def place(spoilt):
    """A workspace with a job whose query has parameters."""
    queries = spoilt.folder / "queries"
    (queries / "tracce.sql").write_text(SQL, encoding="utf-8")
    document = {
        "name": "Tracce",
        "query": "tracce.sql",
        "connection": "pg",
        "scheduling_mode": "cron",
        "cron": "0 2 * * *",
        "timezone": ZONE.key,
        "parameters": {"DATA": "{date-1}"},
        "kafka_config": {"topic": spoilt.topic, "message_key_field": "BARCODE"},
    }
    (queries / "tracce.job.json").write_text(json.dumps(document), encoding="utf-8")
    return spoilt


@pytest.fixture
def runner(place, tmp_path):
    """The runner of that workspace, as a process."""
    own_group = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP} if os.name == "nt" else {}
    with (tmp_path / "runner.log").open("wb") as log:
        process = subprocess.Popen(
            command("runner", "--workspace", place.folder),
            env=environment(**place.env),
            stdout=log,
            stderr=log,
            **own_group,
        )
    yield
    assert stop_runner(process) == 0, (tmp_path / "runner.log").read_text(encoding="utf-8")


def file_of(place, slug):
    return place.folder / "queries" / f"{slug}{SUFFIX}"


def job_of(place, slug):
    return load_job(file_of(place, slug))


def press(app, key):
    return app.button(key=key).click().run()


def more(app, slug, doing):
    """Chooses an entry of the menu of a job."""
    return app.menu_button(key=f"more_{slug}").set_value(doing).run()


def put(app, place_, value):
    """Types into a field of the form."""
    widget = next(
        element
        for kind in ("text_input", "text_area", "number_input", "selectbox", "checkbox")
        for element in app.get(kind)
        if element.key == f"job:{place_}"
    )
    return widget.set_value(value).run()


def audit(place):
    return [(entry.action, entry.object) for entry in place.ledger(lambda ledger: ledger.audit.entries())]


# ── the list ──────────────────────────────────────────────────────────────────────────────────


def test_the_list_tells_what_where_when_and_how_it_ended(worked, see):
    app = see("jobs")
    assert not app.exception
    text = words(app)
    assert "every day at 02:00" in text
    assert f"pg → {worked.topic}" in text
    assert app.button(key="last_export").label == ":orange[◐ complete with rejects]"
    assert app.button(key="last_broken").label == ":red[✘ failed]"
    assert is_harmless(app)


def test_a_search_finds_by_query_and_topic(place, see):
    app = see("jobs")
    app.text_input(key="jobs_search").input("tracce.sql").run()
    assert "**Tracce**" in words(app)
    assert "**Broken**" not in words(app)


def test_the_switch_writes_the_file_and_who_did_it(place, see):
    app = see("jobs")
    app.toggle(key="enabled_tracce_True").set_value(False).run()
    assert not app.exception
    assert not job_of(place, "tracce").enabled
    assert audit(place)[0] == ("disable", "job tracce")
    app.toggle(key="enabled_tracce_False").set_value(True).run()
    assert job_of(place, "tracce").enabled


def test_run_now_says_its_parameters_and_asks_the_runner(place, see):
    app = press(see("jobs"), "run_tracce")
    yesterday = now().astimezone(ZONE).date()
    assert place.requests() == []
    assert "**DATA** = " in words(app)
    app = press(app, "confirm_run")
    assert not app.exception
    (request,) = place.requests()
    assert (request.kind, request.job, request.state) == ("run", "tracce", "waiting")
    assert abs(yesterday - now().fromisoformat(request.args["at"]).date()) <= timedelta(days=1)
    assert "it waits until a runner works" in words(app)


def test_a_time_that_is_still_to_come_wants_a_yes(place, see):
    app = press(see("jobs"), "run_tracce")
    time = app.selectbox(key="run_at")
    app = time.select_index(1).run()
    assert "the runner skips it then" in words(app)
    assert app.button(key="confirm_run").disabled
    app = next(box for box in app.checkbox if "before its time" in box.label).check().run()
    press(app, "confirm_run")
    (request,) = place.requests()
    assert request.args["again"] is True
    assert datetime.fromisoformat(request.args["at"]) > now()


def test_a_real_runner_takes_the_request_and_the_page_links_its_run(place, see, runner):
    app = press(press(see("jobs"), "run_tracce"), "confirm_run")
    until(
        lambda: "open run" in words(app.run()) and place.runs("tracce")[0].finished_at, lambda: words(app), every_s=0.2
    )
    (run,) = place.runs("tracce")
    assert (run.state, run.acknowledged) == ("succeeded", 30)
    assert f"open run {run.run_id}" in words(app)
    assert run.parameters["DATA"] == str(run.scheduled_at.astimezone(ZONE).date() - timedelta(days=1))
    assert run.scheduled_at <= now()


def test_a_request_is_announced_once_and_its_next_state_draws_the_list_again(place, see, monkeypatch):
    """The box with the request may be far above the job that was started."""
    app = press(press(see("jobs"), "run_tracce"), "confirm_run")
    assert [toast.value for toast in app.toast] == ["request 1 · run Tracce"]
    drawn_again = []
    monkeypatch.setattr(runner_requests.st, "rerun", lambda: drawn_again.append(1))
    assert not app.run().toast
    assert drawn_again == []
    place.ledger(lambda ledger: ledger.requests.answer(1, "refused", "because", now()))
    assert "refused" in words(app.run())
    assert drawn_again == [1]
    app.run()
    assert drawn_again == [1]


def test_the_menu_of_a_job_has_what_the_user_may_do(place, see, monkeypatch):
    monkeypatch.setattr(job_list, "may", lambda action: action == "dry_run")
    app = see("jobs")
    assert app.button(key="run_tracce").disabled
    assert [label.split(" ", 1)[1] for label in app.menu_button(key="more_tracce").proto.options] == ["Dry run"]
    monkeypatch.setattr(job_list, "may", lambda action: False)
    app = see("jobs")
    assert not app.exception
    assert not app.error
    assert not app.menu_button
    assert not app.button(key="open_tracce").disabled


def test_a_dry_run_is_done_by_the_runner_and_its_answer_is_told(place, see, runner):
    app = press(more(see("jobs"), "tracce", "dry"), "confirm_dry")
    until(lambda: "✔ dry run" in words(app.run()), lambda: words(app), every_s=0.2)
    assert "30 rows read in" in words(app)
    assert "nothing was sent" in words(app)
    (request,) = place.requests()
    assert (request.kind, request.job, request.state) == ("dry_run", "tracce", "done")
    assert place.runs("tracce") == []


def test_a_range_is_counted_before_it_is_asked_for(place, see):
    day = (now().astimezone(ZONE) - timedelta(days=4)).date()
    app = more(see("jobs"), "tracce", "backfill")
    app.date_input(key="backfill_days").set_value((day, day + timedelta(days=1))).run()
    assert "2 runs" in words(app)
    app.number_input(key="backfill_parallel").set_value(3).run()
    app.selectbox(key="backfill_order").select("newest").run()
    app = press(app, "confirm_backfill")
    (request,) = place.requests()
    days = {"from": str(day), "to": str(day + timedelta(days=1)), "again": False}
    assert request.args == {**days, "parallel": 3, "order": "newest"}


def test_a_copy_is_switched_off_and_has_a_name_of_its_own(place, see):
    app = press(more(see("jobs"), "tracce", "duplicate"), "confirm_duplicate")
    assert not app.exception
    copy = job_of(place, "tracce-2")
    assert (copy.name, copy.enabled) == ("Tracce (copy)", False)
    assert audit(place)[0] == ("create", "job tracce-2")


def test_deleting_asks_for_the_name_and_keeps_the_file_among_the_versions(place, see):
    app = more(see("jobs"), "tracce", "delete")
    assert app.button(key="confirm_delete").disabled
    app.text_input(key="delete_sure").input("tracce").run()
    press(app, "confirm_delete")
    assert not file_of(place, "tracce").exists()
    assert place.ledger(lambda ledger: ledger.job_versions.of_job("tracce"))
    assert audit(place)[0] == ("delete", "job tracce")


def test_a_viewer_sees_the_list_and_can_do_nothing(place, see, as_viewer):
    app = see("jobs")
    acting = [b for b in app.button if b.key.startswith(("run_", "backfill_", "duplicate_", "delete_", "job_new"))]
    assert acting
    assert all(button.disabled for button in acting)
    assert all(toggle.disabled for toggle in app.toggle)


def test_a_viewers_save_is_refused_whatever_the_button_says(place, see, as_viewer, monkeypatch):
    monkeypatch.setattr("ui.views.jobs.editor.may", lambda role: True)
    before = file_of(place, "tracce").read_bytes()
    app = press(press(put(see("jobs", job="tracce"), "cron", "0 3 * * *"), "save"), "confirm_save")
    assert "only an operator may do this" in words(app)
    assert file_of(place, "tracce").read_bytes() == before


# ── the editor ────────────────────────────────────────────────────────────────────────────────


def test_the_editor_shows_parameters_scheduled_times_and_catch_up_in_words(place, see):
    app = see("jobs", job="tracce")
    assert not app.exception
    text = words(app)
    assert "every day at 02:00" in text
    assert text.count("- ") >= 5
    assert now().astimezone(ZONE).isoformat()[-6:] in text  # the offset of each scheduled time
    assert "the latest missed run is caught up once" in text
    assert "Data estrazione (YYYY-MM-DD)" in text
    tomorrow = now().astimezone(ZONE)
    due = tomorrow if tomorrow.hour < 2 else tomorrow + timedelta(days=1)
    assert f"→ **{(due - timedelta(days=1)).date()}**" in text
    assert "→ **ROMA**" in text
    labels = [field.label.replace("\\", "") for field in app.text_input]
    assert "DATA · mandatory" in labels
    assert "SITE · optional" in labels
    assert is_harmless(app)


LISTED = """define STATI='N'  --Obbligatorio [list]: Stati [allowed=N,S,R]
SELECT s AS barcode FROM (VALUES ('N'), ('S'), ('R')) AS v (s) WHERE s IN ('&STATI');
"""


def test_the_editor_says_that_a_parameter_is_a_list_and_shows_its_values(place, see):
    (place.folder / "queries" / "tracce.sql").write_text(LISTED, encoding="utf-8")
    document = json.loads(file_of(place, "tracce").read_text(encoding="utf-8"))
    file_of(place, "tracce").write_text(json.dumps(document | {"parameters": {"STATI": ["N", "S"]}}), encoding="utf-8")
    app = see("jobs", job="tracce")
    field = app.text_input(key="job:parameter:STATI")
    assert field.value == "N,S"
    assert "a list, such as N,S; a value that holds a comma stands in quotes" in field.help
    assert "one of N, S, R" in field.help
    assert "→ **N** · **S** (2 values)" in words(app)
    field.input(" 'R' ").run()
    assert "→ **R** (1 value)" in words(app)
    app.text_input(key="job:parameter:STATI").input("N,,S").run()
    assert "STATI: value 2 of the list is empty" in words(app)
    app.text_input(key="job:parameter:STATI").input("S, R").run()
    app = press(press(app, "save"), "confirm_save")
    assert not app.exception
    assert job_of(place, "tracce").parameters == {"STATI": "S, R"}
    assert "2 valori" in words(see("jobs", job="tracce", language="it"))


def test_run_now_carries_the_list_to_the_runner(place, see, runner):
    (place.folder / "queries" / "tracce.sql").write_text(LISTED, encoding="utf-8")
    document = json.loads(file_of(place, "tracce").read_text(encoding="utf-8"))
    file_of(place, "tracce").write_text(json.dumps(document | {"parameters": {"STATI": ["N", "S"]}}), encoding="utf-8")
    app = press(see("jobs"), "run_tracce")
    assert "**STATI** = N,S" in words(app)
    app = press(app, "confirm_run")
    (run,) = until(lambda: [run for run in place.runs("tracce") if run.finished_at], lambda: words(app))
    assert (run.state, run.acknowledged, run.parameters) == ("succeeded", 2, {"STATI": "N,S"})


def test_a_change_is_shown_as_a_difference_before_it_is_saved(place, see):
    app = put(see("jobs", job="tracce"), "cron", "*/15 8-18 * * 1-5")
    assert "every 15 minutes from 08:00 to 18:45, Monday to Friday" in words(app)
    assert job_of(place, "tracce").cron == "0 2 * * *"
    app = press(app, "save")
    shown = next(code.value for code in app.code if code.value.startswith("--- stored"))
    assert '-  "cron": "0 2 * * *",' in shown
    assert '+  "cron": "*/15 8-18 * * 1-5",' in shown
    app = press(app, "confirm_save")
    assert not app.exception
    saved = job_of(place, "tracce")
    assert saved.cron == "*/15 8-18 * * 1-5"
    assert saved.parameters == {"DATA": "{date-1}"}
    assert audit(place)[0] == ("change", "job tracce")
    assert [
        version.saved_by == "" for version in place.ledger(lambda ledger: ledger.job_versions.of_job("tracce"))
    ] == [False, True]


@pytest.mark.parametrize(
    ("field", "value", "attribute"),
    [
        ("types", "N = string\nDATA=date", lambda job: dict(job.types) == {"N": "string", "DATA": "date"}),
        ("headers", "source = cdg", lambda job: dict(job.headers) == {"source": "cdg"}),
        ("kafka_config.message_key_field", "BARCODE, N", lambda job: job.kafka_config.message_key_field == ("BARCODE", "N")),
        ("email_notification.recipients", "a@example.com, b@example.com", lambda job: len(job.email_notification.recipients) == 2),
        ("expect.rows.min", 10, lambda job: job.expect.rows.min == 10),
        ("timeout_s", 90.0, lambda job: job.timeout_s == 90),
        ("verify_count", True, lambda job: job.verify_count),
        ("on_drift", "warn", lambda job: job.on_drift == "warn"),
        ("verify", "full", lambda job: job.verify == "full"),
        ("headers", "office = {SITE}", lambda job: job.headers == {"office": "{SITE}"}),
        ("kafka_config.timestamp_field", "DATA", lambda job: job.kafka_config.timestamp_field == "DATA"),
        ("kafka_config.partitioner", "round_robin", lambda job: job.kafka_config.partitioner == "round_robin"),
        ("kafka_config.create_topic.partitions", 6, lambda job: job.kafka_config.create_topic == NewTopic(6)),
        ("value_format", "avro", lambda job: job.value_format == "avro"),
        ("envelope", "cloudevents", lambda job: job.envelope == "cloudevents"),
        ("null_value_when", "SITE = 'X'", lambda job: job.null_value_when == "SITE = 'X'"),
        ("schemas.name", "it.example.Parcel", lambda job: job.schemas.name == "it.example.Parcel"),
    ],
)  # fmt: skip
def test_what_is_typed_is_what_is_saved(place, see, field, value, attribute):
    app = press(press(put(see("jobs", job="tracce"), field, value), "save"), "confirm_save")
    assert not app.exception
    assert attribute(job_of(place, "tracce"))


def test_a_job_in_parts_is_shown_changed_and_saved(place, see):
    file = file_of(place, "tracce")
    document = json.loads(file.read_text(encoding="utf-8"))
    partitions = {"column": "N", "count": 4, "by": "hash"}
    file.write_text(json.dumps({**document, "partitions": partitions, "order": "none"}), encoding="utf-8")
    app = see("jobs", job="tracce")
    assert "as it is stored" in words(app)
    assert "The query can be split into 4 parts by column N." in words(app)
    app = press(press(put(app, "verify_count", True), "save"), "confirm_save")
    assert not app.exception
    saved = job_of(place, "tracce")
    assert (saved.partitions, saved.order, saved.verify_count) == (Partitions("N", 4, "hash"), "none", True)
    app = put(put(see("jobs", job="tracce"), "partitions.by", "range"), "partitions.count", 8)
    press(press(app, "save"), "confirm_save")
    assert job_of(place, "tracce").partitions == Partitions("N", 8)
    press(press(put(see("jobs", job="tracce"), "partitions.column", ""), "save"), "confirm_save")
    assert job_of(place, "tracce").partitions is None


def test_a_query_that_cannot_be_split_is_told_before_its_first_run(place, see):
    app = put(put(see("jobs", job="tracce"), "order", "none"), "partitions.column", "QUANTITA")
    app = put(app, "partitions.count", 4)
    assert "QUANTITA, which the query does not return" in words(app)
    (place.folder / "queries" / "tracce.sql").write_text(SQL.replace(" AS g;", " AS g LIMIT 5;"), encoding="utf-8")
    app = put(app, "partitions.column", "N")
    assert "it limits its rows" in words(app)


def test_a_column_places_messages_until_another_partitioner_is_chosen(place, see):
    app = put(see("jobs", job="tracce"), "kafka_config.partitioner", "column")
    assert 'needs "partition_field"' in words(app)
    app = put(app, "kafka_config.partition_field", "SITE, N")
    app = press(press(app, "save"), "confirm_save")
    assert not app.exception
    kafka = job_of(place, "tracce").kafka_config
    assert (kafka.partitioner, kafka.partition_field) == ("column", ("SITE", "N"))
    app = put(see("jobs", job="tracce"), "kafka_config.partitioner", "murmur2")
    app = press(press(app, "save"), "confirm_save")
    assert job_of(place, "tracce").kafka_config.partition_field is None


def test_how_a_topic_is_created_is_kept_and_shown(place, see):
    file = file_of(place, "tracce")
    document = json.loads(file.read_text(encoding="utf-8"))
    document["kafka_config"]["create_topic"] = {"partitions": 6, "config": {"retention.ms": "1000"}}
    file.write_text(json.dumps(document), encoding="utf-8")
    app = see("jobs", job="tracce")
    assert "as it is stored" in words(app)
    app = put(app, "kafka_config.create_topic.config", "retention.ms = 2000")
    app = press(press(app, "save"), "confirm_save")
    assert not app.exception
    assert job_of(place, "tracce").kafka_config.create_topic == NewTopic(6, None, {"retention.ms": "2000"})


def test_a_job_becomes_incremental_and_says_what_it_cannot_see(place, see):
    app = see("jobs", job="tracce")
    put(app, "incremental", True)
    assert "deletes, cannot be seen this way" in words(app)
    for field, value in (("column", "n"), ("kind", "integer"), ("start", " 7 ")):
        put(app, f"incremental.{field}", value)
    press(app, "save")
    press(app, "confirm_save")
    assert job_of(place, "tracce").incremental == Incremental("n", "integer", start=7)
    app = see("jobs", job="tracce")
    app.text_input(key="watermark_value").input("12").run()
    app.text_input(key="watermark_why").input("the consumer has lost some").run()
    press(app, "set_watermark")
    assert not app.exception
    assert "All rows up to **12** are sent or rejected." in words(app)
    assert ("watermark", "job tracce") in audit(place)


def test_a_job_that_is_opened_is_not_changed(place, see):
    for slug in ("tracce", "export", "broken"):
        app = see("jobs", job=slug)
        assert "as it is stored" in words(app)
        assert app.button(key="save").disabled


@pytest.mark.parametrize(
    ("field", "value", "key"),
    [
        ("cron", "99 2 * * *", "cron"),
        ("cron", "0 0 31 2 *", "cron"),
        ("cron", "", "scheduling_mode"),
        ("kafka_config.topic", "a topic!", "kafka_config.topic"),
        ("email_notification.recipients", "nobody", "email_notification"),
        ("types", "N = numberish", "types"),
        ("headers", "run_id = x", "headers"),
        ("null_value_when", "SITE =", "null_value_when"),
        ("expect.by", "25:00", "expect.by"),
        ("name", "", "name"),
        ("kafka_config.enabled", False, "kafka_config.enabled"),
    ],
)
def test_a_wrong_value_is_told_beside_its_field_in_the_words_of_check(place, see, field, value, key, tmp_path):
    app = put(see("jobs", job="tracce"), field, value)
    assert not app.exception
    document = json.loads(file_of(place, "tracce").read_text(encoding="utf-8"))
    told = typed_into(document, field, value)
    path = tmp_path / "tracce.job.json"
    path.write_text(json.dumps(told), encoding="utf-8")
    problems = checked_job(path, path.read_text(encoding="utf-8"))[1]
    assert problems
    assert problems[0].key.startswith(key)
    shown = words(app)
    for error in problems:
        for part in (error.what, error.why, error.remedy):
            assert " ".join(part.split()) in shown
    assert app.button(key="save").disabled


def typed_into(document, field, value):
    """Returns the file that a user would have written with the same value."""
    pairs = {"types", "headers"}
    if field in pairs:
        name, _, text = value.partition("=")
        value = {name.strip(): text.strip()}
    elif field.endswith("recipients"):
        value = [value]
    *above, last = field.split(".")
    into = document
    for step in above:
        into = into.setdefault(step, {})
    if value == "" and last != "name":
        into.pop(last, None)
    else:
        into[last] = value
    return document


def test_a_mandatory_parameter_without_value_and_an_unknown_template_are_told(place, see):
    app = see("jobs", job="tracce")
    field = app.text_input(key="job:parameter:DATA")
    field.input("").run()
    assert "DATA is mandatory and has no value" in words(app)
    assert "mandatory parameter DATA (Data estrazione (YYYY-MM-DD)) has no value" in words(app)
    app.text_input(key="job:parameter:DATA").input("{dat-1}").run()
    assert "the nearest is {date}" in words(app)


def test_two_people_at_once_see_both_versions_and_nothing_is_lost(place, see):
    mine = put(see("jobs", job="tracce"), "cron", "0 3 * * *")
    theirs = press(press(put(see("jobs", job="tracce"), "cron", "0 5 * * *"), "save"), "confirm_save")
    assert not theirs.exception
    mine = press(press(mine, "save"), "confirm_save")
    assert job_of(place, "tracce").cron == "0 5 * * *"
    assert "was changed by another user since you read it" in words(mine)
    shown = next(code.value for code in mine.code if code.value.startswith("--- theirs"))
    assert '-  "cron": "0 5 * * *",' in shown
    assert '+  "cron": "0 3 * * *",' in shown
    mine = press(mine, "save_mine")
    assert not mine.exception
    assert job_of(place, "tracce").cron == "0 3 * * *"
    documents = [
        json.loads(v.document)["cron"] for v in place.ledger(lambda ledger: ledger.job_versions.of_job("tracce"))
    ]
    assert set(documents) == {"0 2 * * *", "0 3 * * *", "0 5 * * *"}


def test_who_comes_second_can_take_the_other_version(place, see):
    mine = put(see("jobs", job="tracce"), "cron", "0 3 * * *")
    press(press(put(see("jobs", job="tracce"), "cron", "0 5 * * *"), "save"), "confirm_save")
    mine = press(press(press(mine, "save"), "confirm_save"), "take_theirs")
    assert not mine.exception
    assert mine.text_input(key="job:cron").value == "0 5 * * *"
    assert "as it is stored" in words(mine)


def test_an_earlier_version_is_brought_back_byte_for_byte(place, see):
    file = file_of(place, "tracce")
    written = b"\xef\xbb\xbf" + file.read_text(encoding="utf-8").replace("{", "{\r\n\t", 1).encode()
    file.write_bytes(written)
    press(press(put(see("jobs", job="tracce"), "cron", "0 5 * * *"), "save"), "confirm_save")
    app = see("jobs", job="tracce")
    oldest = place.ledger(lambda ledger: ledger.job_versions.of_job("tracce"))[-1]
    app.selectbox(key="job_version").set_value(f"{oldest.sha256} {oldest.seen_at}").run()
    assert '+  "cron": "0 2 * * *",' in next(code.value for code in app.code if code.language == "diff")
    app = press(app, "bring_back")
    assert app.text_input(key="job:cron").value == "0 2 * * *"
    app = press(press(app, "save"), "confirm_save")
    assert job_of(place, "tracce").cron == "0 2 * * *"
    assert file.read_bytes() == written
    app.selectbox(key="job_version").set_value(f"{oldest.sha256} {oldest.seen_at}").run()
    app = press(put(press(app, "bring_back"), "cron", "0 4 * * *"), "save")
    press(app, "confirm_save")
    assert job_of(place, "tracce").cron == "0 4 * * *"


def test_a_version_that_differs_in_layout_only_is_brought_back(place, see):
    file = file_of(place, "tracce")
    written = file.read_bytes()
    document = json.loads(written)
    other = json.dumps(dict(reversed(document.items())), indent=7).encode()
    press(press(put(see("jobs", job="tracce"), "cron", "0 5 * * *"), "save"), "confirm_save")
    first = place.ledger(lambda ledger: ledger.job_versions.of_job("tracce"))[-1]
    file.write_bytes(other)
    app = see("jobs", job="tracce")
    assert app.button(key="save").disabled
    app.selectbox(key="job_version").set_value(f"{first.sha256} {first.seen_at}").run()
    assert "Only the layout differs" in words(app)
    app = press(app, "bring_back")
    assert "changed, not saved" in words(app)
    app = press(app, "save")
    assert "Only the layout differs" in words(app)
    app = press(app, "confirm_save")
    assert not app.exception
    assert file.read_bytes() == written
    assert app.button(key="save").disabled
    assert "as it is stored" in words(app)


def test_a_version_that_was_brought_back_and_edited_to_the_stored_job_is_no_change(place, see):
    file = file_of(place, "tracce")
    press(press(put(see("jobs", job="tracce"), "cron", "0 5 * * *"), "save"), "confirm_save")
    first = place.ledger(lambda ledger: ledger.job_versions.of_job("tracce"))[-1]
    written = file.read_bytes()
    app = see("jobs", job="tracce")
    app.selectbox(key="job_version").set_value(f"{first.sha256} {first.seen_at}").run()
    app = put(press(app, "bring_back"), "cron", "0 5 * * *")
    assert app.button(key="save").disabled
    assert file.read_bytes() == written


def test_experts_write_json_and_put_it_into_the_form(place, see):
    app = see("jobs", job="tracce")
    document = json.loads(file_of(place, "tracce").read_text(encoding="utf-8")) | {"cron": "0 7 * * *", "corn": 1}
    app.text_area(key="job_raw").input(json.dumps(document)).run()
    assert 'unknown key "corn"' in words(app)
    assert app.button(key="raw_to_form").disabled
    del document["corn"]
    app.text_area(key="job_raw").input(json.dumps(document)).run()
    app = press(app, "raw_to_form")
    assert app.text_input(key="job:cron").value == "0 7 * * *"


def test_a_file_that_is_no_job_is_mended_where_it_is_told(place, see):
    file_of(place, "tracce").write_text('{"name": "Tracce", "query": "tracce.sql",', encoding="utf-8")
    app = see("jobs")
    assert "the file is not whole JSON" in words(app)
    app = see("jobs", job="tracce")
    assert "This file is not a valid job" in words(app)
    app.text_area(key="job_raw").input('{"name": "Tracce", "query": "tracce.sql", "connection": "pg"}').run()
    app = press(app, "save_broken")
    assert not app.exception
    assert job_of(place, "tracce").connection == "pg"


@pytest.mark.parametrize("slug", ["../../etc/passwd", "nothing", "..", "a\0b", SCRIPT])
def test_a_name_that_is_no_job_of_this_workspace_is_a_problem_in_words(worked, see, slug):
    app = see("jobs", job=slug)
    assert not app.exception
    assert "there is no job" in words(app)
    assert is_harmless(app)


def test_data_and_names_are_shown_as_they_are(worked, see):
    app = see("jobs", job="export")
    assert is_harmless(app)
    app = press(app, "preview")
    assert not app.exception
    assert is_harmless(app)
    assert SCRIPT in cells(app)


# ── preview ───────────────────────────────────────────────────────────────────────────────────


def test_the_preview_shows_the_messages_of_what_is_typed_without_saving(place, see):
    app = put(see("jobs", job="tracce"), "kafka_config.message_key_field", "BARCODE, N")
    app = press(app, "preview")
    assert not app.exception
    frame = app.dataframe[0].value
    assert list(frame["Key"])[:2] == ["000000000001|1", "000000000002|2"]
    assert len(frame) == 20
    text = words(app)
    assert f"Row 1 → {place.topic}, key 000000000001|1" in text
    assert "message_id" in text
    exact = [json.loads(code.value) for code in app.code if code.value.startswith("{") and '"metadata"' in code.value]
    assert exact[0]["data"]["barcode"] == "000000000001"
    assert job_of(place, "tracce").kafka_config.message_key_field == "BARCODE"


def test_a_preview_of_a_broken_query_is_a_problem_with_four_parts(worked, see):
    app = press(see("jobs", job="broken"), "preview")
    assert not app.exception
    assert "nowhere" in words(app)
    assert "Next: " in words(app)


# ── SQL ───────────────────────────────────────────────────────────────────────────────────────


def sql_field(app, beginning="sql:"):
    """The text of the SQL as a plain field: the editor itself is tested in a browser."""
    app.toggle(key="sql_simple").set_value(True).run()
    return next(area for area in app.text_area if area.key and area.key.startswith(beginning))


def test_sql_is_edited_beside_the_job_and_checked(place, see):
    app = see("jobs", job="tracce")
    sql_field(app).input(SQL.replace("30", "31")).run()
    app = press(app, "save_sql")
    assert not app.exception
    assert "generate_series(1, 31)" in (place.folder / "queries" / "tracce.sql").read_text(encoding="utf-8")
    assert audit(place)[0] == ("save", "query tracce.sql")


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        ("DELETE FROM parcels", "allow_writes"),
        ("SELECT * FROM t WHERE a = '&MISSING'", "MISSING"),
        ("SELECT 'no end", "has no end"),
    ],
)
def test_sql_that_could_write_or_is_wrong_is_refused_and_the_old_one_stays(place, see, sql, told):
    app = see("jobs", job="tracce")
    sql_field(app).input(sql).run()
    app = press(app, "save_sql")
    assert told in words(app)
    assert (place.folder / "queries" / "tracce.sql").read_text(encoding="utf-8") == SQL


def test_sql_that_somebody_else_has_changed_is_not_overwritten(place, see):
    app = see("jobs", job="tracce")
    sql_field(app).input(SQL.replace("30", "31")).run()
    seen = changes.query_file("tracce.sql").sha256
    (place.folder / "queries" / "tracce.sql").write_text(SQL.replace("30", "32"), encoding="utf-8")
    with pytest.raises(Exception, match=r"tracce\.sql was changed by another user"):
        changes.save_query("tracce.sql", SQL.encode(), "pg", seen)


def test_a_file_of_5_mb_is_refused_in_words_and_a_little_less_is_taken(place, see):
    padding = b"-- " + b"x" * 996 + b"\n"
    small = SQL.encode() + padding * ((LARGEST_QUERY_BYTES - len(SQL)) // 1000)
    app = see("jobs", job="tracce")
    app.file_uploader[0].set_value([("tracce.sql", small + padding, "text/plain")]).run()
    app = press(app, "save_sql")
    assert "a query may have 5 MB" in words(app)
    assert (place.folder / "queries" / "tracce.sql").read_text(encoding="utf-8") == SQL
    app.file_uploader[0].set_value([("tracce.sql", small, "text/plain")]).run()
    app = press(app, "save_sql")
    assert not app.exception
    assert (place.folder / "queries" / "tracce.sql").read_bytes() == small
    app = see("jobs", job="tracce")
    assert "too large for a text field" in words(app)
    assert "→ **ROMA**" in words(app)


def test_a_new_job_is_made_from_an_sql_file_and_is_switched_off(place, see):
    app = see("jobs", new="1")
    app.selectbox(key="new_query").set_value("tracce.sql").run()
    app.text_input(key="new_slug").input("second").run()
    app.text_input(key="new_name").input(SCRIPT).run()
    app = press(app, "make_job")
    assert not app.exception
    made = job_of(place, "second")
    assert (made.query, made.enabled, made.name) == ("tracce.sql", False, SCRIPT)
    assert is_harmless(app)


@pytest.mark.parametrize("slug", ["../evil", "con", "", "a/b", "tracce"])
def test_a_new_job_needs_a_free_file_name(place, see, slug):
    app = see("jobs", new="1")
    app.selectbox(key="new_query").set_value("tracce.sql").run()
    app.text_input(key="new_slug").input(slug).run()
    app = press(app, "make_job")
    assert not app.exception
    assert "cannot be the name" in words(app) or "already" in words(app)
    assert not (place.folder / "evil.job.json").exists()


def test_a_query_is_uploaded_below_queries_and_nowhere_else(place, see):
    app = see("jobs", new="query")
    new = app.selectbox(key="sql_name").options[-1]
    app.selectbox(key="sql_name").set_value(new).run()
    for name in ("../out.sql", "x.txt", "a\\..\\..\\b.sql"):
        app.text_input(key="sql_new_name").input(name).run()
        sql_field(app, "sql_new_text").input("SELECT 1").run()
        app = press(app, "save_new_sql")
        assert "is not a file below queries/" in words(app) or "is no name for a query" in words(app)
    assert not (place.folder / "out.sql").exists()
    app.text_input(key="sql_new_name").input("fresh.sql").run()
    app = press(app, "save_new_sql")
    assert (place.folder / "queries" / "fresh.sql").read_text(encoding="utf-8") == "SELECT 1"


# ── a job whose connection or cluster is gone ─────────────────────────────────────────────────


@pytest.fixture(params=["connection", "cluster", "file"])
def stranded(spoilt, request):
    """The enabled job `export` cannot run any more; why, in words."""
    file = spoilt.folder / "connections.json"
    known = json.loads(file.read_text(encoding="utf-8"))
    if request.param == "connection":
        known["connections"][0]["name"] = "renamed"
    elif request.param == "cluster":
        job = spoilt.folder / "queries" / "export.job.json"
        document = json.loads(job.read_text(encoding="utf-8"))
        document["kafka_config"]["cluster"] = "gone"
        job.write_text(json.dumps(document), encoding="utf-8")
    else:
        known["kafka_connections"][""] = {}
    file.write_text(json.dumps(known), encoding="utf-8")
    data.clear_caches()
    told = {
        "connection": 'there is no connection "pg"',
        "cluster": 'there is no cluster "gone"',
        "file": "a cluster has no name",
    }
    return spoilt, told[request.param]


@pytest.mark.always("cluster")
def test_a_job_that_can_only_fail_is_red_on_every_front(stranded, see):
    place, told = stranded
    for view in ("jobs", "calendar"):
        text = words(see(view))
        assert "every run will fail" in text
        assert told in text
    assert told in cells(see("overview")).replace('""', '"')
    for words_ in (("health",), ("check",), ("next",)):
        done = run_command(*words_, env=environment(**place.env), cwd=place.folder)
        assert told in done.stdout + done.stderr
        assert done.returncode or words_ == ("next",)


def test_its_scheduled_run_fails_with_the_reason(stranded):
    place, told = stranded
    at = now()
    with App.open(place.folder, os.environ, log=False) as app:
        file = read_job_file(app.workspace, "export")
        app.ledger.job_versions.add("export", file.sha256, file.text, at)
        (scheduled_run,) = app.ledger.scheduled_runs.plan_requested(
            "export", [at], kind="request", asked_by="calendar", now=at
        )
        app.ledger.scheduled_runs.assign(scheduled_run, file.sha256)
        execute_scheduled_run(app, scheduled_run, now)
        run = app.ledger.history.newest("export", 1)[0]
        assert (run.scheduled_run_id, run.state, run.error_class) == (scheduled_run, "failed", "ConfigError")
        assert told in run.error_text
