"""The overview over real runs: its numbers are those of `metrics summary`."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from datetime import time as clock_time
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from bench.kills import start_runner, stop_runner
from core.model.connection import Cluster
from core.records.metrics import Metrics
from core.scheduler.broker_health import look
from core.workspace.paths import Workspace
from tests.rigs.waiting import until
from tests.rigs.workspace import ROOT, environment
from tests.ui.conftest import ZONE, cells, is_harmless, metric, now, words
from ui import changes, data
from ui.components import header
from ui.data import overview
from ui.data.outcomes import outcomes_by_job
from ui.data.status import ClusterStatus, WorkspaceStatus
from ui.formats import day
from ui.language import in_language


def test_its_numbers_are_those_of_the_command_line(worked, see):
    app = see("overview")
    assert not app.exception
    summary = worked.command("metrics", "summary")
    today, week = summary["today"], summary["last_7_days"]
    assert today["messages"] == 3 * 495
    assert metric(app, "Sent") == f"{today['messages']:,}"
    assert metric(app, "Success") == "100 %"
    assert metric(app, "Errors") == str(today["errors"])
    assert metric(app, "Messages") == f"{week['messages']:,}"
    assert metric(app, "A day") == f"{week['messages_per_day']:,}"
    for name in ("p90", "p99"):
        shown = float(metric(app, name).removesuffix(" ms").replace(",", ""))
        assert shown == pytest.approx(week["latency_ms"][name], abs=0.6)


def test_the_first_line_answers_for_today_and_yesterday_by_the_scheduled_day_as_the_calendar_does(
    worked, see, monkeypatch
):
    newest = worked.runs("export")[0].scheduled_at.astimezone(ZONE).date()
    noon = datetime.combine(newest, clock_time(12), ZONE).astimezone(UTC)
    monkeypatch.setattr(data, "now", lambda: noon)
    data.clear_caches()
    text = words(see("overview"))
    told = "495 of 500 rows acknowledged, 1 of "  # `broken` ran by hand, whenever this suite began
    assert f"**Today, {day(newest)}, so far**: {told}" in text
    assert f"**Yesterday, {day(newest - timedelta(days=1))}**: {told}" in text
    states = {slot.day: slot.state for slot in outcomes_by_job(60)["export"]}
    assert [states[newest - timedelta(days=back)] for back in (0, 1, 2)] == [
        "complete_with_rejects",
        "complete_with_rejects",
        "missing",
    ]


@pytest.mark.parametrize(
    ("seconds", "today", "yesterday"),
    [
        (-60, "so far**: 495 of 500", "**: 495 of 500"),  # 23:59 of the newest run's day
        (0, "so far**: no run was due.", "**: 495 of 500"),  # midnight
        (3 * 3600, "so far**: 0 of 0 rows acknowledged, 0 of 1 runs complete. 1 run is missing.", "**: 495 of 500"),
    ],
)
def test_around_midnight_each_day_is_told_by_itself(worked, see, monkeypatch, seconds, today, yesterday):
    newest = worked.runs("export")[0].scheduled_at.astimezone(ZONE).date()
    midnight = datetime.combine(newest + timedelta(days=1), clock_time(), ZONE).astimezone(UTC)
    monkeypatch.setattr(data, "now", lambda: midnight + timedelta(seconds=seconds))
    data.clear_caches()
    text = words(see("overview"))
    this = newest if seconds < 0 else newest + timedelta(days=1)
    assert f"**Today, {day(this)}, {today}" in text
    assert f"**Yesterday, {day(this - timedelta(days=1))}{yesterday}" in text


def test_jobs_come_with_next_fire_topic_and_verdict_and_errors_with_their_count(worked, see):
    shown = cells(see("overview"))
    assert worked.topic in shown
    assert "◐ complete with rejects" in shown
    assert "✘ failed" in shown
    assert "in " in shown
    assert "barcode: the key is null" in shown
    assert 'relation ""nowhere"" does not exist' in shown


def test_a_filter_counts_only_what_it_names(worked, see):
    app = see("overview")
    app.selectbox(key="overview_job").select("broken").run()
    assert metric(app, "Sent") == "0"
    assert "nothing was sent in 30 days" in words(app)
    assert not app.get("plotly_chart")
    app.selectbox(key="overview_job").select("export").run()
    assert metric(app, "Sent") == f"{3 * 495:,}"


def test_an_address_that_names_what_is_not_there_filters_nothing_and_says_so(worked, see):
    app = see("overview", overview_job="No such job", overview_topic="no-such-topic")
    assert metric(app, "Sent") == f"{3 * 495:,}"
    (popover,) = app.get("popover")
    assert popover.proto.popover.label == "Filter: all jobs, topics and environments"


def test_html_and_markdown_in_names_and_errors_stay_text(worked, see):
    app = see("overview")
    assert "<script>alert(1)</script>" in cells(app)
    assert is_harmless(app)


def test_it_speaks_italian_with_italian_numbers(worked, see):
    app = see("overview", language="it")
    assert app.title[0].value == "Panoramica"
    assert metric(app, "Inviati") == "1.485"


def test_an_empty_workspace_shows_three_steps_and_no_chart(empty, see):
    app = see("overview")
    assert not app.exception
    assert [title.value for title in app.subheader[:3]] == ["1. A connection", "2. A query", "3. A job"]
    assert not app.get("plotly_chart")


def test_the_demo_fills_an_empty_workspace_and_asks_the_runner_for_its_run(empty, see, monkeypatch):
    monkeypatch.setattr(changes, "DEMO_DAYS", 1)
    app = see("overview")
    next(button for button in app.button if button.label == "Fill with the demo").click().run()
    assert not app.exception
    (request,) = empty.requests()
    assert (request.kind, request.job, request.state) == ("run", "export-cdg-tracce", "waiting")
    assert (empty.folder / "demo.sqlite").exists()
    assert "it waits until a runner works" in words(app)


def test_metrics_held_by_another_program_are_a_message_and_no_crash(spoilt, see):
    script = "import duckdb, sys, time; db = duckdb.connect(sys.argv[1]); print('held', flush=True); time.sleep(120)"
    file = Workspace(spoilt.folder).metrics_file
    holder = subprocess.Popen([sys.executable, "-c", script, str(file)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        app = see("overview")
    finally:
        holder.kill()
        holder.communicate()
    assert not app.exception
    assert "metrics.duckdb is held by another program" in words(app)
    assert "close the notebook or tool that has it open" in words(app)


def test_without_metrics_the_numbers_come_from_the_spool(spoilt, see):
    Workspace(spoilt.folder).metrics_file.unlink()
    assert metric(see("overview"), "Sent") == f"{3 * 495:,}"


def test_its_figures_are_asked_for_again_when_something_is_new_and_only_then(spoilt, see, monkeypatch):
    asked = []
    at = now() + timedelta(minutes=5)  # of the send too; the end of a quarter-hour would be something new
    monkeypatch.setattr(data, "now", lambda: at)
    ask = Metrics.figures
    monkeypatch.setattr(Metrics, "figures", lambda metrics, zone: asked.append(zone) or ask(metrics, zone))
    before = metric(see("overview"), "Sent")
    first = len(asked)
    overview._versions.clear()  # as after five seconds
    assert metric(see("overview"), "Sent") == before
    assert len(asked) == first > 0
    spoilt.command("send", spoilt.topic, "572680001120", "by hand")
    overview._versions.clear()
    assert metric(see("overview"), "Sent") == f"{3 * 495 + 1:,}"
    assert len(asked) > first


# ── the frame ─────────────────────────────────────────────────────────────────────────────────


def test_the_frame_says_that_no_runner_works_and_how_to_start_one(worked, see):
    text = words(see("header", package="components"))
    assert "ws · rig" in text
    assert "🔴 Runner stopped: start it with `python -m core runner`" in text


def test_the_frame_shows_a_runners_heartbeat_and_its_look_at_the_cluster(spoilt, see):
    runner = start_runner(spoilt.folder, environment(**spoilt.env))
    try:
        until(lambda: spoilt.ledger(lambda ledger: ledger.broker_samples.states()), "the runner has asked the broker")
        text = words(see("header", package="components"))
    finally:
        stop_runner(runner)
    assert "🟢 Runner: heartbeat" in text
    assert "🟢 Kafka Rig: Connected since" in text


def test_the_frame_tells_in_words_that_a_cluster_is_away(spoilt, see):
    away = Cluster("Kafka Rig", "127.0.0.1:9")
    for seconds in (240, 120, 0):
        at = now() - timedelta(seconds=seconds)
        spoilt.ledger(lambda ledger, at=at: ledger.broker_samples.add(look(away, at)))
    text = words(see("header", package="components"))
    assert "🔴 Kafka Rig: Disconnected for 4 min" in text


def test_a_broken_connections_file_is_told_in_the_frame_and_the_views_go_on(spoilt, see):
    (spoilt.folder / "connections.json").write_text("{", encoding="utf-8")
    assert "connections.json" in words(see("header", package="components"))
    assert metric(see("overview"), "Sent") == f"{3 * 495:,}"


def test_a_view_that_fails_shows_a_problem_and_no_traceback(worked, see, monkeypatch):
    def fail():
        raise RuntimeError("secret-detail")

    monkeypatch.setattr("ui.views.overview.today_and_yesterday", fail)
    app = see("overview")
    assert not app.exception
    assert "this part of the page could not be shown" in words(app)
    assert "secret-detail" not in words(app)


def test_the_frame_is_one_line_of_states_with_what_is_red_first():
    at = now()
    clusters = tuple(ClusterStatus(f"K{n}", n != 3, at - timedelta(minutes=4), at, "") for n in range(4))
    status = WorkspaceStatus(Path("ws"), "", str(ZONE), clusters, None, ("one",), "", 0)
    with in_language("en"):
        shown = header._summary(status, at)
    assert shown == "🔴 K3: Disconnected for 4 min · 🔴 Runner stopped · 🟢 clusters connected: 3 · 🔔 open alerts: 1"


def test_the_figures_come_first_and_the_charts_once_the_browser_has_drawn_them(worked, see):
    app = see("overview", is_drawn=False)
    assert metric(app, "Sent")
    assert not app.get("plotly_chart")
    assert not app.dataframe
    app.run()
    assert len(app.get("plotly_chart")) >= 3
    assert len(app.dataframe)


# ── the whole page ────────────────────────────────────────────────────────────────────────────


def test_the_page_draws_the_frame_around_the_view(worked):
    app = AppTest.from_file(str(ROOT / "ui" / "page.py"), default_timeout=60).run()
    assert not app.exception
    assert app.title[0].value == "Overview"
    assert "Runner stopped" in words(app)


def test_a_workspace_that_is_not_there_is_told_in_words(worked, monkeypatch, tmp_path):
    monkeypatch.setenv("PSTT_WORKSPACE", str(tmp_path / "nowhere"))
    app = AppTest.from_file(str(ROOT / "ui" / "page.py"), default_timeout=60).run()
    assert not app.exception
    assert "there is no workspace" in words(app)
    assert "PSTT_WORKSPACE names a folder that does not exist" in words(app)


def test_damaged_segments_are_told_above_every_view(spoilt, see):
    assert "damaged segments" not in words(see("header", package="components"))
    damaged = spoilt.folder / ".pstt" / "spool" / "damaged"
    damaged.mkdir()
    (damaged / "aaaaaaaaaa-000001.parquet").write_bytes(b"")
    data.clear_caches()
    assert "damaged segments of the spool, set aside: 1" in words(see("header", package="components"))
