"""Runs: the list, one run, and its actions."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from core.model.job import Job
from core.model.query import Query, Step
from core.model.run import Plan, RunFile, Verification, VerificationProblem
from core.model.window import RunWindow
from core.records.ledger import Ledger
from core.records.metrics_queries import SendFilter
from core.workspace.paths import Workspace
from tests.ui.conftest import SCRIPT, SLY, ZONE, cells, is_harmless, now, words
from ui.access import CurrentUser
from ui.components import charts
from ui.components.verdict import equation, subject
from ui.data.overview import overview_figures
from ui.data.runs import rejects_csv, run_detail


@pytest.fixture
def as_viewer(monkeypatch):
    monkeypatch.setattr("ui.access.current_user", lambda: CurrentUser("vera", "viewer"))


def press(app, key):
    return app.button(key=key).click().run()


# ── the list ──────────────────────────────────────────────────────────────────────────────────


def test_the_list_has_every_run_with_its_verdict(worked, see):
    app = see("runs")
    frame = app.dataframe[0].value
    assert list(frame["Run"]) == [run.run_id for run in worked.runs()]
    assert list(frame["Verdict"]) == ["✘ failed", *["◐ complete with rejects"] * 3]
    assert list(frame["Acknowledged"]) == [0, 495, 495, 495]
    assert is_harmless(app)


def test_filters_of_job_state_and_day_choose(worked, see):
    app = see("runs", job="export")
    assert len(app.dataframe[0].value) == 3
    app.multiselect(key="runs_states").select("failed").run()
    assert "No run is like that." in words(app)
    oldest = worked.runs("export")[-1]
    app = see("runs", day=str(oldest.scheduled_at.astimezone(ZONE).date()))
    assert list(app.dataframe[0].value["Run"]) == [oldest.run_id]


def test_a_bar_of_the_chart_leads_to_the_runs_that_sent_on_that_day(worked, see):
    """Three days were sent today: by the scheduled day the chart's 1,485 messages would be one run."""
    shown = overview_figures(SendFilter(topic=worked.topic), 30)
    (bar,) = shown.days
    app = see("runs", sent=str(bar["day"]), topic=worked.topic)
    runs = app.dataframe[0].value
    assert sum(runs["Acknowledged"]) == bar["messages"] == 3 * 495
    assert len(runs) == 3
    app = see("runs", sent=str(bar["day"] - timedelta(days=1)), topic=worked.topic)
    assert "No run is like that." in words(app)


def test_what_was_sent_by_hand_on_a_day_is_told_beside_its_runs(spoilt, see):
    spoilt.command("send", spoilt.topic, "572680001120", "by hand")
    (bar,) = overview_figures(SendFilter(), 30).days
    app = see("runs", sent=str(bar["day"]))
    assert "On these days 1 message was sent by hand; it belongs to no run." in words(app)
    assert sum(app.dataframe[0].value["Acknowledged"]) + 1 == bar["messages"]


def test_filters_of_topic_and_environment_choose(worked, see):
    app = see("runs", topic=worked.topic, cluster="Kafka Rig")
    assert len(app.dataframe[0].value) == 4
    assert app.selectbox(key="runs_topic").value == worked.topic
    app = see("runs", topic="no-such-topic")
    assert app.selectbox(key="runs_topic").value is None


def test_the_scheduled_day_is_that_of_the_jobs_time_zone(spoilt, see):
    moment = datetime(2026, 1, 17, 3, tzinfo=UTC)  # 22:00 of the 16th in New York
    with Ledger(Workspace(spoilt.folder).ledger_file) as ledger:
        query = Query("q.sql", (Step("select 1"),), {}, "ab" * 32)
        far = Job("far", "Far", "q.sql", "pg", timezone="America/New_York")
        ledger.start(Plan(far, query, "rig", "t", moment, 100), now())
    assert list(see("runs", day="2026-01-16").dataframe[0].value["Job"]) == ["Far"]
    assert "No run is like that." in words(see("runs", day="2026-01-17"))


def test_a_day_or_job_that_is_none_is_left_out_of_the_filter(worked, see):
    app = see("runs", day="not-a-day", job="../../etc")
    assert not app.exception
    assert len(app.dataframe[0].value) == 4


def test_a_long_list_pages(spoilt, see):
    with Ledger(Workspace(spoilt.folder).ledger_file) as ledger:
        query = Query("q.sql", (Step("select 1"),), {}, "ab" * 32)
        for _ in range(60):
            ledger.start(Plan(Job("many", "Many", "q.sql", "pg"), query, "rig", "t", now(), 100), now())
    app = see("runs")
    assert len(app.dataframe[0].value) == 50
    app.number_input(key="runs_page").set_value(2).run()
    assert len(app.dataframe[0].value) == 14


# ── one run ───────────────────────────────────────────────────────────────────────────────────


def test_a_run_is_an_equation_with_parameters_sql_offsets_and_rejects(worked, see):
    run = worked.runs("export")[0]
    app = see("runs", run=run.run_id)
    assert not app.exception
    text = words(app)
    assert "# 500 read = 495 acknowledged + 5 rejected" in text
    assert "COUNT(*) in the same snapshot: 500 = 500 read" in text
    assert "generate_series(1, 500)" in text
    assert f"run {run.run_id}" in text
    shown = cells(app)
    for part in run.partitions:
        assert f"{worked.topic},{part.partition},{part.first_offset},{part.last_offset},{part.count}" in shown
    assert "barcode,text,the key is null,5" in shown
    assert is_harmless(app)
    assert SCRIPT in shown  # a rejected row, as text


def test_a_run_to_a_file_speaks_of_rows_written_and_names_its_file(worked):
    run = replace(worked.runs("export")[0], topic="", cluster="", partitions=())
    written = replace(run, files=(RunFile("exports/a.csv", 495, 10, ""),))
    failed = replace(run, state="failed", acknowledged=0)
    assert equation(written) == "500 read = 495 written + 5 rejected"
    assert equation(failed) == "500 read, 0 written, 5 rejected"
    assert subject(written).endswith(r" → exports\/a\.csv")
    assert subject(failed).endswith(" → a file")


@pytest.fixture
def shown_as(monkeypatch):
    """Makes the page of a run show it with other values."""

    def show(run, *, first_sent_at=None, **changes):
        found = replace(run_detail(run.run_id), run=replace(run, **changes), first_sent_at=first_sent_at)
        monkeypatch.setattr("ui.views.runs.run_detail", lambda _: found)

    return show


def test_a_file_can_only_be_written_again_whole_and_no_query_is_said_to_have_lasted_as_long(worked, see, shown_as):
    run = worked.runs("export")[0]
    shown_as(run, topic="", cluster="", partitions=(), files=(RunFile("exports/a.csv", 495, 10, ""),))
    app = see("runs", run=run.run_id)
    assert app.button(key="again_all").label == "Write the file again"
    assert "again_rejects" not in [button.key for button in app.button]
    labels = [metric.label for metric in app.metric]
    assert "From start to end" in labels
    assert "Query, first row" not in labels


def test_a_run_of_an_incremental_job_says_which_rows_it_read(worked, see, shown_as):
    run = worked.runs("export")[0]
    window = RunWindow(run.run_id, run.job, "ID", "integer", "", 1, "", "", "", "60000", "", None, True)
    shown_as(run, increment=window)
    assert "**Only new rows**: ID from the first row up to 60000" in words(see("runs", run=run.run_id))
    italian = words(see("runs", run=run.run_id, language="it"))
    assert "**Solo le righe nuove**: ID dalla prima riga fino a 60000" in italian


def test_latencies_are_drawn_where_they_are_with_gaps_between_them():
    buckets = [{"from_ms": 0.1 * 1.03 ** (n - 1), "to_ms": 0.1 * 1.03**n, "messages": 10} for n in (180, 181, 190, 260)]
    figure = charts.histogram(buckets, {"p50": 22.0, "p90": 23.0, "p99": 200.0})
    (bars,) = figure.data
    assert figure.layout.xaxis.type == "log"
    assert sum(bars.y) == 40
    edges = [(x - width / 2, x + width / 2) for x, width in zip(bars.x, bars.width, strict=True)]
    for bucket in buckets:
        assert any(low <= bucket["from_ms"] * 1.001 and bucket["to_ms"] <= high * 1.001 for low, high in edges)
    assert edges[-1][0] > 6 * edges[-2][1]  # nobody waited between 28 and 211 ms
    assert [mark.text for mark in figure.layout.annotations] == ["p50 · p90", "p99"]
    first = {"from_ms": 0, "to_ms": 0.1, "messages": 3}
    alone = charts.histogram([first], {"p50": None})
    assert (len(alone.data[0].x), list(alone.data[0].y)) == (1, [3])


def test_a_run_shows_what_was_read_back_and_its_warnings(spoilt, see):
    run = spoilt.runs("export")[0]
    text = words(see("runs", run=run.run_id))
    assert "Read back from the topic" in text
    assert "495 of 495 acknowledged messages found, 0 missing, 0 with another content" in text

    found = Verification(
        run.run_id, run.started_at + timedelta(days=1), "full", "missing", 495, 494, missing=1,
        listed=(VerificationProblem("missing", 2, 17, f"k{SLY}"),),
    )  # fmt: skip
    with Ledger(spoilt.folder / ".pstt" / "ledger.sqlite") as ledger:
        ledger.add_verification(found)
        ledger._db.execute("UPDATE run SET warnings = ? WHERE run_id = ?", (json.dumps([f"look {SLY}"]), run.run_id))
    app = see("runs", run=run.run_id)
    assert "✘ messages are missing" in words(app)
    assert "missing,k" in cells(app)
    assert ",2,17" in cells(app)
    assert [warning.value.startswith("look ") for warning in app.warning] == [True]
    assert is_harmless(app)


def test_the_log_lines_of_a_run_are_its_own(worked, see):
    run, other = worked.runs("export")[:2]
    app = see("runs", run=run.run_id)
    log = app.code[-1].value
    assert "export succeeded: 500 read, 495 acknowledged, 5 rejected" in log
    assert other.run_id not in log


def test_a_failed_run_says_why_and_what_to_do(worked, see):
    text = words(see("runs", run=worked.runs("broken")[0].run_id))
    assert "✘ failed" in text
    assert 'relation "nowhere" does not exist' in text
    assert "Next:" in text


@pytest.mark.parametrize("run_id", ["ffffffffff", "../../../etc/passwd", "<script>", "%00"])
def test_a_run_that_is_not_there_is_a_problem_in_words(worked, see, run_id):
    app = see("runs", run=run_id)
    assert not app.exception
    assert "there is no run" in words(app)


def test_all_rejects_can_be_downloaded(worked, see):

    run = worked.runs("export")[0]
    lines = rejects_csv(run.run_id).decode("utf-8-sig").splitlines()
    assert lines[0].startswith("row_number,key,column,database_type,reason")
    assert len(lines) == 1 + 5


@pytest.mark.parametrize(("key", "rejects_only"), [("again_all", False), ("again_rejects", True)])
def test_a_replay_is_asked_for_after_it_said_what_readers_will_see(spoilt, see, key, rejects_only):
    run = spoilt.runs("export")[0]
    app = press(see("runs", run=run.run_id), key)
    assert spoilt.requests() == []
    assert (
        "are left out" if rejects_only else f"Readers of {spoilt.topic} on Kafka Rig see about 495 messages"
    ) in words(app)
    app = press(app, "confirm_replay")
    assert not app.exception
    (request,) = spoilt.requests()
    assert (request.kind, request.run_id, request.args) == (
        "replay",
        run.run_id,
        {"rejects_only": rejects_only, "to": "run"},
    )


def move_job(place, **changes):
    path = place.folder / "queries" / "export.job.json"
    job = json.loads(path.read_text(encoding="utf-8"))
    job["kafka_config"]["topic"] = "another-topic"
    path.write_text(json.dumps(job | changes), encoding="utf-8")


@pytest.mark.parametrize(("key", "rejects_only"), [("again_all", False), ("again_rejects", True)])
def test_a_replay_names_where_the_run_was_sent_and_where_its_job_sends_now(spoilt, see, key, rejects_only):
    move_job(spoilt)
    run = spoilt.runs("export")[0]
    app = press(see("runs", run=run.run_id), key)
    told = [option.replace("\\", "") for option in app.radio(key="replay_to").options]
    assert told == [
        f"where this run was sent: {spoilt.topic} on Kafka Rig",
        "where its job sends now: another-topic on Kafka Rig",
    ]
    assert f"eaders of {spoilt.topic} on Kafka Rig see" in words(app)
    app.radio(key="replay_to").set_value("job").run()
    assert "eaders of another-topic on Kafka Rig see" in words(app)
    app = press(app, "confirm_replay")
    (request,) = spoilt.requests()
    assert request.args == {"rejects_only": rejects_only, "to": "job"}


def test_a_replay_says_that_its_job_reads_something_else_now(spoilt, see):
    move_job(spoilt, query="broken.sql")
    app = press(see("runs", run=spoilt.runs("export")[0].run_id), "again_all")
    assert "it reads broken.sql from pg now, the run read export.sql from pg" in words(app)


def test_a_run_whose_job_was_deleted_is_not_sent_again(spoilt, see):
    (spoilt.folder / "queries" / "export.job.json").unlink()
    app = press(see("runs", run=spoilt.runs("export")[0].run_id), "again_all")
    assert not app.exception
    assert 'its job "export" has been deleted' in words(app)
    assert "confirm_replay" not in [button.key for button in app.button]


def test_a_run_whose_cluster_is_gone_is_not_sent_again_and_says_what_to_do(spoilt, see):
    path = spoilt.folder / "connections.json"
    known = json.loads(path.read_text(encoding="utf-8"))
    known["kafka_connections"] = {"rig": {"name": "Another", "bootstrap_servers": "127.0.0.1:1"}}
    path.write_text(json.dumps(known), encoding="utf-8")
    app = press(see("runs", run=spoilt.runs("export")[0].run_id), "again_all")
    assert "is none of those that are set up now" in words(app)
    assert app.button(key="confirm_replay").disabled


def test_a_running_run_can_be_cancelled(spoilt, see):
    with Ledger(Workspace(spoilt.folder).ledger_file) as ledger:
        query = Query("q.sql", (Step("select 1"),), {}, "ab" * 32)
        run = ledger.start(Plan(Job("slow", "Slow", "q.sql", "pg"), query, "rig", "t", now(), 100), now())
    app = see("runs", run=run.run_id)
    assert "… running" in words(app)
    app = press(app, "cancel")
    with Ledger(Workspace(spoilt.folder).ledger_file) as ledger:
        assert ledger.run(run.run_id).cancel_asked_at is None  # the button only asks
    press(app, "confirm_cancel")
    with Ledger(Workspace(spoilt.folder).ledger_file) as ledger:
        assert ledger.run(run.run_id).cancel_asked_at is not None
        (entry,) = [one for one in ledger.audit.entries() if one.action == "cancel"]
    assert entry.object == f"run {run.run_id}"


def test_a_viewer_sees_reasons_but_no_row_and_may_ask_for_nothing(worked, see, as_viewer):
    run = worked.runs("export")[0]
    app = see("runs", run=run.run_id)
    assert "barcode,text,the key is null,5" in cells(app)
    assert SCRIPT not in cells(app)
    assert app.button(key="again_all").disabled
    assert app.button(key="again_rejects").disabled


def test_a_viewers_wish_is_refused_even_where_the_button_was_not(spoilt, see, as_viewer, monkeypatch):
    monkeypatch.setattr("ui.views.runs.may", lambda role: True)
    app = press(see("runs", run=spoilt.runs("export")[0].run_id), "again_all")
    app = press(app, "confirm_replay")
    assert "only an operator may do this" in words(app)
    assert spoilt.requests() == []
