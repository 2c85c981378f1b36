"""Overview, calendar and receipt at midnight and at both clock changes, with a clock that the test sets."""

import json
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from core import open_workspace
from core.calendar.cron import scheduled_times
from core.model.job import Job
from core.model.query import Query, Step
from core.model.run import Plan
from core.notify.wiring import daily_report
from core.records.ledger import Ledger, Outcome
from core.records.outcomes import day_state
from core.workspace.jobs import load_job
from core.workspace.paths import Workspace
from tests.ui.conftest import Place, metric, words
from tests.unit.test_metrics_queries import spooled
from ui import data
from ui.data.outcomes import outcomes_by_job
from ui.formats import day, day_short

ROME = ZoneInfo("Europe/Rome")
DAYS = [date(2026, 11, 26), date(2026, 3, 28), date(2026, 3, 29), date(2026, 10, 24), date(2026, 10, 25)]
"""A common one, those on which a clock changes and those before."""
MANUAL = {"scheduling_mode": "manual"}
HALF_PAST_TWO = {"scheduling_mode": "cron", "cron": "30 2 * * *"}
HOURLY = {"scheduling_mode": "cron", "cron": "0 * * * *"}


@pytest.fixture
def place(tmp_path, look_at, monkeypatch):
    """A workspace in Rome with jobs that ran at given moments, each of their rows sent; `at` holds the page's clock."""

    class Held(Place):
        def job(self, slug: str, **calendar) -> Job:
            file = self.folder / "queries" / f"{slug}.job.json"
            document = {"name": slug, "query": "q.sql", "connection": "pg", "kafka_config": {"topic": "t"}}
            file.write_text(json.dumps(document | calendar), encoding="utf-8")
            return load_job(file)

        def run(self, job: Job, moment: datetime, rows: int = 1) -> None:
            workspace, moment = Workspace(self.folder), moment.astimezone(UTC)
            query = Query("q.sql", (Step("select 1"),), {}, "ab" * 32)
            with Ledger(workspace.ledger_file) as ledger:
                run = ledger.start(Plan(job, query, "rig", "t", moment, 100), moment)
                outcome = Outcome("succeeded", rows_read=rows, sent=rows, acknowledged=rows)
                ledger.finish(run.run_id, outcome, moment + timedelta(seconds=1))
            spooled(workspace, run.run_id, [moment] * rows, job=job.slug)

        def at(self, moment: datetime) -> None:
            monkeypatch.setattr(data, "now", lambda: moment.astimezone(UTC))

    made = Held(tmp_path / "ws")
    (made.folder / "queries").mkdir(parents=True)
    (made.folder / "queries" / "q.sql").write_text("SELECT 1", encoding="utf-8")
    (made.folder / "connections.json").write_text(
        json.dumps({"default_environment": "rig", "connections": [], "kafka_connections": {}}), encoding="utf-8"
    )
    look_at(made)
    monkeypatch.setenv("PSTT_TIMEZONE", ROME.key)
    return made


def local(of: date, hour: int = 0, minute: int = 0, second: int = 0, *, fold: int = 0) -> datetime:
    return datetime(of.year, of.month, of.day, hour, minute, second, tzinfo=ROME, fold=fold)


def fill(place: Place, of: date) -> int:
    """Ten rows on the day before, and on this one at its first and last minute and whenever its clock says 02:30."""
    job = place.job("by-hand", **MANUAL)
    place.run(job, local(of - timedelta(days=1), 23, 58, 30), rows=10)
    moments = {local(of, 0, 0, 30), local(of, 23, 58, 30)}
    moments |= {local(of, 2, 30, fold=fold).astimezone(UTC) for fold in (0, 1)}
    for moment in moments:
        place.run(job, moment)
    return len(moments)


@pytest.mark.parametrize("of", DAYS, ids=str)
def test_at_midnight_today_becomes_yesterday_at_once(place, see, of):
    rows, after = fill(place, of), of + timedelta(days=1)
    place.at(local(of, 23, 59, 58))
    before_midnight = see("overview")
    text = words(before_midnight)
    assert f"Today {day_short(of)}" in text
    assert metric(before_midnight, "Sent") == str(rows)
    assert f"Yesterday, {day(of - timedelta(days=1))}" in text
    assert "10 of 10 rows acknowledged" in text
    place.at(local(after, 0, 0, 2))  # the cache is kept: its values are of another day
    after_midnight = see("overview")
    text = words(after_midnight)
    assert f"Today {day_short(after)}" in text
    assert metric(after_midnight, "Sent") == "0"
    assert f"Yesterday, {day(of)}" in text
    assert f"{rows} of {rows} rows acknowledged" in text


@pytest.mark.parametrize(
    ("of", "hours"), [(date(2026, 3, 29), 23), (date(2026, 10, 25), 25), (date(2026, 11, 26), 24)], ids=str
)
def test_a_day_of_the_calendar_has_each_of_its_times_once(place, of, hours):
    jobs = [place.job("nightly", **HALF_PAST_TWO), place.job("hourly", **HOURLY)]
    since = local(of - timedelta(days=1)).astimezone(UTC) - timedelta(microseconds=1)
    for job in jobs:
        for moment in scheduled_times(job, since, local(of + timedelta(days=1), 0, 0, 30)):
            place.run(job, moment)
    place.at(local(of + timedelta(days=1), 0, 0, 30))
    found = {
        slug: [slot for slot in slots if slot.scheduled_at.astimezone(ROME).date() == of]
        for slug, slots in outcomes_by_job(60).items()
    }
    assert {slug: len(slots) for slug, slots in found.items()} == {"nightly": 1, "hourly": hours}
    assert [slot.run.acknowledged for slots in found.values() for slot in slots] == [1] * (hours + 1)
    assert len({day_state(slots) for slots in found.values()}) == 1
    assert not [slot for slots in outcomes_by_job(60).values() for slot in slots if slot.state == "missing"]


@pytest.mark.parametrize("fold", [0, 1])
def test_in_the_hour_that_comes_twice_the_page_knows_which_one_it_is(place, see, fold):
    of = date(2026, 10, 25)
    job = place.job("by-hand", **MANUAL)
    for which in (0, 1):
        place.run(job, local(of, 2, 30, fold=which), rows=1 + which)
    place.at(local(of, 2, 10, fold=1))  # between the two
    assert metric(see("overview"), "Sent") == "3"  # today has both: another machine's clock may be ahead
    nightly = place.job("nightly", **HALF_PAST_TWO)
    place.run(nightly, local(of - timedelta(days=1), 2, 30))
    data.clear_caches()
    place.at(local(of, 2, 40, fold=fold))
    last = outcomes_by_job(60)["nightly"][-1]
    assert (last.scheduled_at, last.state) == (local(of, 2, 30).astimezone(UTC), "missing")


@pytest.mark.parametrize("of", DAYS, ids=str)
def test_the_receipt_of_a_day_ends_with_it(place, of):
    rows, after = fill(place, of), of + timedelta(days=1)
    with open_workspace(place.folder, log=False) as app:
        late = daily_report(app, None, local(of, 23, 59))
        early = daily_report(app, None, local(after, 0, 0, 30))
        whole = daily_report(app, of, local(after, 0, 0, 30))
    assert (late.rows, early.rows, whole.rows) == (rows, 0, rows)
    hours = (whole.until.astimezone(UTC) - whole.since.astimezone(UTC)) / timedelta(hours=1)
    assert hours == {date(2026, 3, 29): 23, date(2026, 10, 25): 25}.get(of, 24)
