"""The calendar: which day is missing, and how it is sent again."""

import json
from datetime import timedelta

from core.errors import ConfigError
from tests.ui.conftest import ZONE, is_harmless, now, words
from ui.data.outcomes import outcomes_by_job


def missing_day(place):
    """Two days before the newest run."""
    return (place.runs("export")[0].scheduled_at.astimezone(ZONE) - timedelta(days=2)).date()


def test_the_missing_day_is_told_apart_from_days_on_which_nothing_was_due(worked, see):
    slots = outcomes_by_job(60)["export"]
    states = {slot.scheduled_at.astimezone(ZONE).date(): slot.state for slot in slots}
    day = missing_day(worked)
    assert states[day] == "missing"
    assert states[day + timedelta(days=1)] == "complete_with_rejects"
    assert day - timedelta(days=3) not in states
    app = see("calendar")
    assert not app.exception
    assert app.get("bidi_component")
    assert is_harmless(app)


def test_a_job_that_only_the_command_line_ran_is_known_from_then_on(worked):
    assert set(worked.ledger(lambda ledger: ledger.job_versions.in_force())) == {"export", "broken"}


def test_a_day_opens_with_what_became_of_its_times(worked, see):
    app = see("calendar")
    app.selectbox(key="calendar_job").select("export").run()
    app.date_input(key="calendar_day").set_value(missing_day(worked)).run()
    assert "? missing" in words(app)
    assert "it was never started: no runner worked" in words(app)


def test_sending_a_range_again_tells_how_many_messages_and_asks_the_runner(spoilt, see):
    day = missing_day(spoilt)
    app = see("calendar")
    app.selectbox(key="calendar_range_job").select("export").run()
    app.date_input(key="calendar_range").set_value((day - timedelta(days=1), day)).run()
    assert "**1 run, about 495 messages**" in words(app)
    assert "1 left out that succeeded before" in words(app)
    app.checkbox(key="calendar_again").check().run()
    assert "**2 runs, about 990 messages**" in words(app)
    app.button(key="calendar_send").click().run()
    assert not app.exception
    (request,) = spoilt.requests()
    assert (request.kind, request.job) == ("backfill", "export")
    days = {"from": str(day - timedelta(days=1)), "to": str(day), "again": True}
    assert request.args == {**days, "parallel": 1, "order": "oldest"}
    entry = spoilt.ledger(lambda ledger: ledger.audit.entries())[0]  # the runs of the fixture are audited too
    assert (entry.action, entry.object, entry.after["request"]) == ("backfill", "job export", request.request_id)


def test_an_incremental_job_is_sent_again_from_a_value(spoilt, see):
    file = spoilt.folder / "queries/export.job.json"
    document = json.loads(file.read_text(encoding="utf-8")) | {"incremental": {"column": "id", "kind": "integer"}}
    file.write_text(json.dumps(document), encoding="utf-8")
    app = see("calendar")
    app.selectbox(key="calendar_range_job").select("export").run()
    assert not [box for box in app.date_input if box.key == "calendar_range"]
    app.text_input(key="calendar_export_why").set_value("a consumer has lost them").run()
    app.text_input(key="calendar_export_value").set_value("x").run()
    app.button(key="calendar_export_from_value").click().run()
    assert "x is not a whole number" in words(app)
    assert spoilt.requests() == []
    app.text_input(key="calendar_export_value").set_value("5").run()
    app.button(key="calendar_export_from_value").click().run()
    assert not app.exception
    (request,) = spoilt.requests()
    assert (request.kind, request.job) == ("run", "export")
    entry = spoilt.ledger(lambda ledger: ledger.audit.entries())[0]
    after = {"value": "5", "why": "a consumer has lost them", "request": request.request_id}
    assert (entry.action, entry.after) == ("watermark", after)


def test_a_range_without_a_scheduled_time_is_a_problem_in_words(worked, see):
    app = see("calendar")
    app.selectbox(key="calendar_range_job").select("export").run()
    today = now().astimezone(ZONE).date()
    app.date_input(key="calendar_range").set_value((today, today)).run()
    assert not app.exception
    assert "Nothing is left to send." in words(app) or "has no scheduled time" in words(app)


def test_that_nothing_is_due_on_the_day_that_is_shown_first_is_no_error(worked, see, monkeypatch):
    def refuse(*_args, **_options):
        raise ConfigError("no scheduled time")

    monkeypatch.setattr("ui.views.calendar.count_range", refuse)
    app = see("calendar")
    app.selectbox(key="calendar_range_job").select("export").run()
    assert "no scheduled time" not in words(app)
    assert "Choose the first and the last day." in words(app)
    day = now().astimezone(ZONE).date() - timedelta(days=1)
    app.date_input(key="calendar_range").set_value((day, day)).run()
    assert "no scheduled time" in words(app)


def test_an_empty_workspace_has_no_calendar(empty, see):
    assert "There is no job yet." in words(see("calendar"))


def test_a_backfill_is_seen_paused_resumed_cancelled_and_repeated(spoilt, see):
    day = missing_day(spoilt)
    app = see("calendar")
    assert "Ranges that are sent again" not in words(app)
    app.selectbox(key="calendar_range_job").select("export").run()
    app.date_input(key="calendar_range").set_value((day - timedelta(days=1), day)).run()
    app.checkbox(key="calendar_again").check().run()
    app.number_input(key="calendar_parallel").set_value(2).run()
    app.button(key="calendar_send").click().run()
    (request,) = spoilt.requests()
    number = request.request_id
    app = see("calendar")
    assert "Ranges that are sent again" in words(app)
    assert "in progress · 0 of 2 complete" in words(app)
    app.button(key=f"backfill_pause_{number}").click().run()
    assert "paused · 0 of 2 complete" in words(app)
    app.button(key=f"backfill_resume_{number}").click().run()
    app.button(key=f"backfill_stop_{number}").click().run()
    assert "cancelled · 0 of 2 complete, 2 not run" in words(app)
    assert [entry.action for entry in spoilt.ledger(lambda ledger: ledger.audit.entries(f"backfill {number}"))] == [
        "cancel", "resume", "pause",
    ]  # fmt: skip
    app.button(key=f"backfill_retry_{number}").click().run()
    assert not app.exception
    second = spoilt.ledger(lambda ledger: ledger.backfills.newest(1)[0])
    assert (second.parallel, second.again, second.state) == (2, True, "running")
