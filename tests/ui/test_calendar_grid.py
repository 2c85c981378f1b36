"""The calendar's grid and bars, the overview's period, and jobs that write files, over a ledger with a clock of the test's."""

import json
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import QueryFailed
from core.model.query import Query, Step
from core.model.run import Plan, RunFile
from core.records.ledger import Ledger, Outcome
from core.records.outcomes import outcomes_of_days
from core.workspace.jobs import load_job
from core.workspace.paths import Workspace
from tests.ui.conftest import Place, cells, metric, words
from tests.unit.test_metrics_queries import spooled
from ui import access, data
from ui.components.attempt_bars import MOST_ATTEMPTS, attempts_data
from ui.components.day_grid import Asked, Chosen, GridRow, asked_for, cells_of, grid_data
from ui.components.round_axis import MOST_STEPS, round_steps
from ui.data import files
from ui.data.outcomes import outcomes_by_job

ROME = ZoneInfo("Europe/Rome")
TODAY = date(2026, 11, 26)
NOON = datetime(2026, 11, 26, 12, tzinfo=ROME)
AT_TWO = {"scheduling_mode": "cron", "cron": "0 2 * * *", "timezone": "Europe/Rome"}
COLOURS = {"succeeded": "green", "failed": "red"}


def two(back: int) -> datetime:
    """02:00 in Rome, so many days before the test's today."""
    return datetime(2026, 11, 26, 2, tzinfo=ROME) - timedelta(days=back)


class Written(Place):
    """A workspace with a job that sends and a job that writes a file, and what its ledger has about them."""

    def job(self, slug: str, **more):
        file = self.folder / "queries" / f"{slug}.job.json"
        document = {"name": slug.title(), "query": "q.sql", "connection": "pg", **AT_TWO, **more}
        if "export_format" not in more:
            document["kafka_config"] = {"topic": "t"}
        file.write_text(json.dumps(document), encoding="utf-8")
        job = load_job(file)
        self.ledger(lambda ledger: ledger.job_versions.add(slug, slug, file.read_text("utf-8"), two(90)))
        return job

    def run(self, job, moment, *, state="succeeded", rows=10, rejected=0, seconds=4.0, ended=True, content=None):
        moment = moment.astimezone(UTC)
        is_file = job.export_format != "kafka"
        plan = Plan(job, Query("q.sql", (Step("select 1"),), {}, "ab" * 32), "rig", "" if is_file else "t", moment, 100)
        with Ledger(Workspace(self.folder).ledger_file) as ledger:
            run = ledger.start(plan, moment)
            if not ended:
                return run
            written = () if content is None else (self.file(job, content, rows),)
            outcome = Outcome(
                state,
                rows_read=rows + rejected,
                sent=rows,
                acknowledged=rows,
                rejected=rejected,
                duration_s=seconds,
                files=written,
                error=QueryFailed("the query failed") if state == "failed" else None,
            )
            ledger.finish(run.run_id, outcome, moment + timedelta(seconds=seconds))
        if not is_file:
            spooled(Workspace(self.folder), run.run_id, [moment] * rows, job=job.slug)
        return run

    def file(self, job, content: bytes, rows: int) -> RunFile:
        path = self.folder / "exports" / f"{job.slug}.csv"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        return RunFile(f"exports/{job.slug}.csv", rows, len(content), "ab" * 32)


@pytest.fixture
def place(tmp_path, look_at, monkeypatch):
    made = Written(tmp_path / "ws")
    (made.folder / "queries").mkdir(parents=True)
    (made.folder / "queries" / "q.sql").write_text("SELECT 1", encoding="utf-8")
    document = {"default_environment": "rig", "connections": [], "kafka_connections": {}}
    (made.folder / "connections.json").write_text(json.dumps(document), encoding="utf-8")
    look_at(made)
    monkeypatch.setenv("PSTT_TIMEZONE", ROME.key)
    monkeypatch.setattr(data, "now", lambda: NOON.astimezone(UTC))
    return made


@pytest.fixture
def both(place):
    """Two days of a job that sends and of one that writes a file; a day with an attempt that failed."""
    sending, writing = place.job("send"), place.job("write", export_format="csv", output="write.csv")
    place.run(sending, two(1), state="failed", rows=0, seconds=2.0)
    place.run(sending, two(1), rejected=1, seconds=4.0)
    place.run(sending, two(0), rows=200)
    place.run(writing, two(1), rows=30, content=b"30 rows, older")
    place.run(writing, two(0), rows=3_000, content=b"a,b\n1,2\n")
    data.clear_caches()
    return place


def grid_of(place, chosen=None):
    days = [TODAY - timedelta(days=back) for back in (2, 1, 0)]
    rows = [
        GridRow(slug, slug.title(), f"job?job={slug}", cells_of(found, days, data.now()), slug == "write")
        for slug, found in outcomes_by_job(60).items()
    ]
    return grid_data(rows, days, TODAY, chosen)


def test_each_attempt_is_a_bar_with_its_colour_and_duration_and_file_jobs_are_in_the_grid(both):
    found = grid_of(both, Chosen("send", TODAY - timedelta(days=1), TODAY))
    assert [(job["slug"], job["is_file"]) for job in found["jobs"]] == [("send", False), ("write", True)]
    words_of = [state["sign"] + " " + state["word"] for state in found["states"]]
    missing, with_rejects, complete = found["jobs"][0]["cells"]
    assert (words_of[missing[0]], missing[1:]) == ("? missing", [0, 0, []])
    assert (words_of[with_rejects[0]], with_rejects[1:3]) == ("◐ complete with rejects", [10, 1])
    assert with_rejects[3] == [["red", 2.0], ["amber", 4.0]]
    assert (words_of[complete[0]], complete[1:]) == ("✔ complete", [200, 0, [["green", 4.0]]])
    assert found["jobs"][1]["cells"][2][1] == 3_000
    assert found["chosen"] == {"job": "send", "first": "2026-11-25", "last": "2026-11-26"}
    assert [day["is_today"] for day in found["days"]] == [False, False, True]


def test_a_day_on_which_nothing_was_due_has_no_cell_and_a_running_run_has_its_seconds_so_far(place):
    job = place.job("by-hand", scheduling_mode="manual")
    place.run(job, NOON - timedelta(seconds=90), ended=False)
    data.clear_caches()
    before, _, today = grid_of(place)["jobs"][0]["cells"]
    assert before is None
    assert today[3] == [["blue", 90.0]]


@pytest.mark.parametrize(
    ("answer", "asked"),
    [
        ({"what": "day", "job": "send", "first": "2026-11-25", "last": "2026-11-25"}, ("day", 25, 25)),
        ({"what": "range", "job": "send", "first": "2026-11-24", "last": "2026-11-25"}, ("range", 24, 25)),
        ({"what": "job", "job": "send"}, ("job",)),
        ({"what": "range", "job": "send", "first": "2026-11-25", "last": "2026-11-24"}, None),
        ({"what": "day", "job": "send", "first": "yesterday", "last": "2026-11-25"}, None),
        ({"what": "day", "job": "../secret", "first": "2026-11-25", "last": "2026-11-25"}, None),
        ({"what": "day", "job": ["send"], "first": 1, "last": 2}, None),
        ("send", None),
        (None, None),
    ],
)
def test_what_a_browser_sends_is_checked(answer, asked):
    days = None if not asked or len(asked) == 1 else tuple(date(2026, 11, day) for day in asked[1:])
    assert asked_for(answer, {"send"}) == (Asked(asked[0], "send", days) if asked else None)


def test_the_fields_below_the_grid_take_what_was_clicked_and_what_was_marked(both, see):
    app = see("calendar")
    assert not app.exception
    app.session_state["calendar_asked"] = Asked("day", "write", (TODAY - timedelta(days=1),) * 2)
    app.run()
    assert (app.selectbox(key="calendar_job").value, app.date_input(key="calendar_day").value) == (
        "write",
        TODAY - timedelta(days=1),
    )
    assert "Written" in cells(app)
    marked = (TODAY - timedelta(days=3), TODAY - timedelta(days=1))
    app.session_state["calendar_asked"] = Asked("range", "send", marked)
    app.run()
    assert (app.selectbox(key="calendar_range_job").value, app.date_input(key="calendar_range").value) == (
        "send",
        marked,
    )
    assert app.date_input(key="calendar_day").value == TODAY - timedelta(days=1)  # the open day stays
    assert not app.exception


def test_a_link_opens_a_day_of_a_job(both, see):
    app = see("calendar", job="write", day="2026-11-25")
    assert app.selectbox(key="calendar_job").value == "write"
    assert app.date_input(key="calendar_day").value == date(2026, 11, 25)
    assert "✔ complete" in words(app)
    app = see("calendar", job="no-such-job", day="no day")
    assert not app.exception
    assert app.date_input(key="calendar_day").value == TODAY


def test_sending_a_range_of_a_file_job_again_counts_rows(both, see):
    app = see("calendar", job="write", day="2026-11-25")
    app.checkbox(key="calendar_again").check().run()
    assert "**1 run, about 1,515 rows in files**" in words(app)


def test_the_bars_are_the_newest_attempts_up_to_the_day_with_round_steps(place):
    job = place.job("send")
    for back in range(MOST_ATTEMPTS + 5, 0, -1):
        place.run(job, two(back), seconds=150.0 if back == 2 else 40.0)
    with Ledger(Workspace(place.folder).ledger_file) as ledger:
        outcomes = outcomes_of_days(job, ledger, TODAY - timedelta(days=80), TODAY, data.now())
    found = attempts_data(outcomes, TODAY - timedelta(days=2), data.now())
    assert len(found["attempts"]) == MOST_ATTEMPTS
    assert [attempt["is_of_day"] for attempt in found["attempts"][-2:]] == [False, True]
    assert [step["text"] for step in found["steps"]] == ["0 min", "0.5 min", "1 min", "1.5 min", "2 min", "2.5 min"]
    assert [attempt["height"] for attempt in found["attempts"][-2:]] == [26.7, 100.0]
    assert "24 Nov 2026 02:00 · ✔ complete · 2 min · 10 acknowledged" in found["attempts"][-1]["text"]


@given(st.floats(min_value=1e-6, max_value=1e12), st.booleans())
def test_the_steps_of_an_axis_are_round_even_and_reach_the_highest_value(highest, whole):
    steps = round_steps(highest, whole=whole)
    assert steps[0] == 0
    assert len(steps) <= MOST_STEPS + 1
    assert steps[-1] >= highest * (1 - 1e-6)
    assert steps[-2] < highest
    assert f"{steps[1]:e}"[:3].rstrip(".0") in ("1", "2", "5") or f"{steps[1]:e}".startswith("2.5")
    if whole:
        assert all(step == int(step) for step in steps)


# ── the overview ──────────────────────────────────────────────────────────────────────────────


def test_the_sentence_counts_sent_rows_and_written_rows_apart(both, see):
    text = words(see("overview"))
    sent, written = "200 of 200 rows acknowledged, 1 of 1 runs complete.", "3,000 of 3,000 rows written to files"
    assert f"{sent} {written}, 1 of 1 runs complete." in text
    assert "10 of 11 rows acknowledged, 1 of 1 runs complete. 30 of 30 rows written to files" in text


def test_a_period_of_the_address_is_shown_and_compared_with_the_week_before(place, see):
    job = place.job("send")
    for back, rows in ((4, 30), (5, 20), (11, 10), (12, 30)):
        place.run(job, two(back), rows=rows)
    data.clear_caches()
    app = see("overview", overview_range=["2026-11-20", "2026-11-22"], overview_compare="true")
    assert not app.exception
    assert app.date_input(key="overview_range").value == (date(2026, 11, 20), date(2026, 11, 22))
    text = words(app)
    assert "20 Nov 2026 – 22 Nov 2026: 50 messages." in text
    assert "The same days of the week before: 40 messages (now ▲ 25 %)." in text
    assert "The week before, up to the same time: 40 messages (now ▲ 25 %)" in text
    assert metric(app, "Messages") == "50"  # the last 7 days are what they were
    assert "50 messages in 3 days" in [chart.proto.alt for chart in app.get("plotly_chart")]


def test_rejected_rows_and_failed_messages_have_their_colours(both, see):
    text = words(see("overview"))
    assert ":orange[◐ see the rejects]" in text


def test_the_newest_file_of_a_job_is_listed_and_can_be_downloaded_by_an_operator(both, monkeypatch, see):
    (newest,) = files.newest_files(files.SendFilter())
    assert (newest.file.rows, newest.state, newest.name) == (3_000, "there", "write.csv")
    assert "write.csv,3000,8 B" in cells(see("overview"))
    assert files.content(newest.run.run_id, newest.file.path) == b"a,b\n1,2\n"
    assert [one.state for one in files.files_of(both.runs("write")[1])] == ["changed"]  # the later run has its name
    assert see("runs", run=newest.run.run_id).get("download_button")[0].proto.disabled is False
    monkeypatch.setattr(access, "current_user", lambda: access.CurrentUser("maria", "viewer"))
    assert see("runs", run=newest.run.run_id).get("download_button")[0].proto.disabled is True


@pytest.mark.parametrize("path", ["exports/other.csv", "../ws/connections.json", "connections.json", ".env"])
def test_no_other_file_can_be_read(both, path):
    (both.folder / "exports" / "other.csv").write_bytes(b"secret")
    run_id = both.runs("write")[0].run_id
    with pytest.raises(files.ConfigError, match="has written no file"):
        files.content(run_id, path)


def test_the_first_steps_lead_to_forms(place, see):
    app = see("overview")
    assert [button.label for button in app.button if button.key and button.key.startswith("step_")] == ["Go there"] * 3
    next(button for button in app.button if button.key == "step_1. A connection").click().run()
    assert "database" in app.query_params["add"]
    app = see("connections", add="database")
    assert not app.exception
    assert app.session_state["connection_editing"] == ("database", None)
    app.session_state["connection_editing"] = None  # the form was closed
    assert not app.run().exception
    assert app.session_state["connection_editing"] is None
