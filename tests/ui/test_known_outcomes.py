"""The outcomes that the page remembers are those that it would read anew, and only jobs that changed are read."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from core.app import App
from core.calendar.cron import SkippedTimes
from core.errors import QueryFailed
from core.model.job import Job
from core.model.query import Query, Step
from core.model.run import Plan, Run, Verification
from core.records.ledger import Ledger, Outcome
from core.records.outcomes import ScheduledOutcome, outcomes_of_days
from core.records.scheduled_runs import NewScheduledRuns
from core.workspace.jobs import SUFFIX, load_job
from tests.ui.conftest import Place
from ui import data
from ui.data import outcomes as read_model

BEGIN = datetime(2026, 3, 27, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAYS = 5


class Jobs(Place):
    """Two jobs of every hour and one by hand; `at` holds the clock of the page."""

    def file(self, slug: str) -> Path:
        return self.folder / "queries" / f"{slug}{SUFFIX}"

    def write(self, slug: str, moment: datetime, **changes: object) -> None:
        document = {"name": slug, "query": "q.sql", "connection": "pg", "kafka_config": {"topic": "t"}, **changes}
        self.file(slug).write_text(json.dumps(document), encoding="utf-8")
        text = self.file(slug).read_text(encoding="utf-8")
        self.ledger(lambda ledger: ledger.job_versions.add(slug, f"{hash(text):x}", text, moment))

    def start(self, slug: str, moment: datetime) -> Run:
        query = Query("q.sql", (Step("select 1"),), {}, "ab" * 32)
        job: Job = load_job(self.file(slug))
        run: Run = self.ledger(lambda ledger: ledger.start(Plan(job, query, "rig", "t", moment, 100), moment))
        return run

    def finish(self, run: Run, state: str = "succeeded", rejected: int = 0) -> None:
        error = QueryFailed("the query failed") if state == "failed" else None
        outcome = Outcome(state, 10 + rejected, None, 10, 10, rejected, error=error)  # type: ignore[arg-type]
        self.ledger(lambda ledger: ledger.finish(run.run_id, outcome, run.started_at + timedelta(seconds=5)))

    def follow(self, until: datetime, on_time: list[datetime], skipped: list[SkippedTimes]) -> None:
        new = NewScheduledRuns("a", "queue", on_time, [], skipped, until, "0 * * * *")
        self.ledger(lambda ledger: ledger.scheduled_runs.plan([new], until))

    def anew(self) -> dict[str, list[ScheduledOutcome]]:
        at = data.now()
        with App.open(self.folder, {"PSTT_TIMEZONE": "UTC"}, log=False) as app:
            jobs = read_model._jobs(self.folder, app)
            return {
                job.slug: outcomes_of_days(job, app.ledger, *read_model._last_days(job, DAYS, at), at) for job in jobs
            }


@pytest.fixture
def clock() -> list[datetime]:
    return [BEGIN]


@pytest.fixture
def place(tmp_path: Path, look_at, clock: list[datetime], monkeypatch: pytest.MonkeyPatch) -> Jobs:
    made = Jobs(tmp_path / "ws")
    (made.folder / "queries").mkdir(parents=True)
    (made.folder / "queries" / "q.sql").write_text("SELECT 1", encoding="utf-8")
    (made.folder / "connections.json").write_text('{"connections": []}', encoding="utf-8")
    for slug in ("a", "b"):
        made.write(slug, BEGIN - 30 * HOUR, scheduling_mode="cron", cron="0 * * * *", timezone="Europe/Rome")
    made.write("by-hand", BEGIN - 30 * HOUR, scheduling_mode="manual")
    look_at(made)
    monkeypatch.setattr(data, "now", lambda: clock[0])
    return made


def known() -> dict[str, list[ScheduledOutcome]]:
    """What the page shows at its next check."""
    for cached in (read_model._outcomes_by_job, read_model.jobs_of):
        cached.clear()
    return read_model.outcomes_by_job(DAYS)


def test_whatever_happens_they_are_as_if_they_were_read_anew(place: Jobs, clock: list[datetime]) -> None:
    runs: list[Run] = []

    def pass_time(span: timedelta) -> None:
        clock[0] += span

    def verify() -> None:
        result = Verification(runs[0].run_id, clock[0], "count", "missing", acknowledged=10, found=9, missing=1)
        place.ledger(lambda ledger: ledger.add_verification(result))

    steps = [
        lambda: runs.append(place.start("a", BEGIN - 3 * HOUR)),
        lambda: place.finish(runs[0]),
        verify,
        lambda: runs.append(place.start("b", BEGIN - 2 * HOUR)),
        lambda: place.finish(runs[1], "failed"),
        lambda: place.finish(place.start("b", BEGIN - 2 * HOUR), rejected=2),  # the next attempt
        lambda: pass_time(HOUR),  # a time is due, and waits
        lambda: pass_time(timedelta(minutes=5)),  # it is missing
        lambda: place.follow(clock[0], [BEGIN], [SkippedTimes(BEGIN + HOUR, BEGIN + HOUR, 1, "the machine was off")]),
        lambda: place.finish(place.start("by-hand", clock[0])),
        lambda: place.write("b", clock[0], scheduling_mode="cron", cron="*/10 * * * *", timezone="UTC"),
        lambda: pass_time(timedelta(minutes=10)),
        lambda: place.write("b", clock[0], scheduling_mode="cron", cron="*/10 * * * *", timezone="UTC", enabled=False),
        lambda: pass_time(12 * HOUR),  # another day
        lambda: place.file("b").unlink(),
        lambda: place.ledger(lambda ledger: ledger.job_versions.end_job("b", clock[0])),
        lambda: pass_time(-6 * HOUR),  # the clock is set back
        lambda: pass_time(24 * HOUR),  # over the change of the clocks in Rome
    ]
    assert known() == place.anew()
    for number, step in enumerate(steps):
        step()
        assert known() == place.anew(), number
        assert known() == place.anew(), number
    states = {outcome.state for found in known().values() for outcome in found}
    assert states >= {"complete", "complete_with_rejects", "missing"}


def test_only_the_jobs_that_changed_are_read_again(place: Jobs, clock: list[datetime], monkeypatch) -> None:
    read: list[str] = []
    clock[0] = BEGIN + HOUR / 2  # nothing waits
    data.clear_caches()
    original = read_model.outcomes_of_days

    def noted(job: Job, *args: object) -> list[ScheduledOutcome]:
        read.append(job.slug)
        return original(job, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(read_model, "outcomes_of_days", noted)
    monkeypatch.setattr(read_model, "RECHECK", 24 * HOUR)
    before = known()
    read.clear()
    clock[0] += timedelta(minutes=10)
    assert (known(), read) == (before, [])
    place.finish(place.start("a", BEGIN - HOUR))
    after = known()
    assert read == ["a"]
    assert after["b"] is before["b"]
    clock[0] += timedelta(minutes=21)  # both have a time that is due
    known()
    assert read == ["a", "a", "b"]


def test_a_folder_that_was_made_anew_is_read_anew(place: Jobs) -> None:
    run = place.start("a", BEGIN - HOUR)
    assert [one.state for one in known()["a"] if one.run] == ["running"]
    place.finish(run)
    file = place.folder / ".pstt" / "ledger.sqlite"
    other = file.with_name("other.sqlite")
    Ledger(other).close()
    other.replace(file)
    for left in file.parent.glob("ledger.sqlite-*"):
        left.unlink()
    assert known() == place.anew()
