"""Notes on days: written on the calendar, shown wherever the day is, over REST too."""

from __future__ import annotations

import json
from datetime import date, timedelta

from tests.ui.conftest import ZONE, is_harmless, now, words
from tests.ui.rest import bearer, client, token
from ui import changes, data
from ui.components import charts
from ui.data.notes import note_on

TEXT = "database down until noon <script>alert(1)</script> [x](javascript:alert(1))"


def newest_day(place) -> date:
    return place.runs("export")[0].scheduled_at.astimezone(ZONE).date()


def test_a_note_is_written_on_the_calendar_and_seen_where_the_day_is(spoilt, see):
    day, run = newest_day(spoilt), spoilt.runs("export")[0]
    app = see("calendar")
    app.selectbox(key="calendar_job").select("export").run()
    app.date_input(key="calendar_day").set_value(day).run()
    (field,) = [one for one in app.text_area if str(one.key).startswith("day_note:")]
    field.input(TEXT).run()
    app = app.button(key="day_note_save").click().run()
    assert not app.exception
    assert note_on("export", day).text == TEXT
    assert "database down until noon" in words(app)
    assert is_harmless(app)
    shown = see("runs", run=run.run_id)
    assert "database down until noon" in words(shown)
    assert is_harmless(shown)
    overview = see("overview")
    assert not overview.exception
    chart = next(json.loads(one.proto.spec) for one in overview.get("plotly_chart"))
    (mark,) = [trace for trace in chart["data"] if trace.get("name") == "note"]
    assert (mark["x"], "<script" in json.dumps(mark["customdata"])) == ([str(day)], False)
    assert mark["customdata"][0].startswith("Export ")
    assert ": database down until noon" in mark["customdata"][0]


def test_the_grid_has_the_notes_of_its_days(spoilt, see, monkeypatch):
    day = newest_day(spoilt) - timedelta(days=1)
    changes.write_note("export", day, "holiday")
    drawn = []
    monkeypatch.setattr("ui.views.calendar.day_grid", lambda rows, *_: drawn.extend(rows))
    see("calendar")
    assert {row.slug: row.notes for row in drawn if row.notes} == {"export": {day: "holiday"}}


def test_a_viewer_reads_a_note_and_does_not_write_one(spoilt, see, monkeypatch):
    day = newest_day(spoilt)
    changes.write_note("export", day, "holiday")
    data.clear_caches()
    monkeypatch.setattr("ui.components.day_note.may", lambda action: False)
    app = see("calendar")
    app.selectbox(key="calendar_job").select("export").run()
    app.date_input(key="calendar_day").set_value(day).run()
    assert "holiday" in words(app)
    assert not [one for one in app.text_area if str(one.key).startswith("day_note:")]


def test_without_notes_the_chart_has_no_mark():
    axis = [now().date()]
    names = {trace.name for trace in charts.messages_per_day([], {}, {}, axis).data}
    assert "note" not in names


def test_over_rest_notes_are_read_by_days_and_written_by_senders(spoilt):
    asked = client()
    reader, sender = (bearer(token(spoilt.folder, scope)) for scope in ("read", "send"))
    put = {"day": "2026-01-16", "text": "maintenance"}
    made = asked.put("/api/scheduler/scheduling/export/notes", json=put, headers=sender)
    assert (made.status_code, made.json()["text"], made.json()["job"]) == (200, "maintenance", "export")
    within = {"from": "2026-01-16", "to": "2026-01-16", "job": "export"}
    (row,) = asked.get("/api/scheduler/notes", params=within, headers=reader).json()["items"]
    assert (row["day"], row["text"]) == ("2026-01-16", "maintenance")
    assert asked.get("/api/scheduler/notes", params={"from": "2026-01-17"}, headers=reader).json()["items"] == []
    assert asked.put("/api/scheduler/scheduling/export/notes", json=put, headers=reader).status_code == 403
    none = asked.put("/api/scheduler/scheduling/nothing/notes", json=put, headers=sender)
    assert none.status_code == 404
    gone = asked.put("/api/scheduler/scheduling/export/notes", json=put | {"text": ""}, headers=sender)
    assert (gone.json()["text"], gone.json()["written_by"]) == ("", None)
    assert asked.get("/api/scheduler/notes", headers=reader).json()["items"] == []
