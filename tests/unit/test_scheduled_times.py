"""The outcome of a scheduled time in the four places that report it: page, daily report, health, alerts.

Each case is the life of one job on a virtual clock, over the real planner and ledger. The four must agree.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from core.admin.health import health
from core.errors import QueryFailed
from core.model.job import Expect, Job
from core.model.query import Query, Step
from core.model.run import Plan
from core.notify.daily_report import DailyReport, daily_report_notification, make_daily_report
from core.notify.evaluator import AlertRules
from core.notify.outbox import Outbox
from core.notify.situation import Recipients
from core.records.ledger import Ledger, Outcome
from core.records.outcomes import ScheduledOutcome, day_totals, outcomes_of_days, with_deleted_jobs
from core.scheduler.planner import Planner
from core.workspace.jobs import job_text

ROME = ZoneInfo("Europe/Rome")
DAY = date(2026, 1, 17)
HOURLY = Job("export", "Export", "q.sql", "A00", scheduling_mode="cron", cron="0 * * * *")
DAILY = replace(HOURLY, cron="0 2 * * *")
STEP = timedelta(minutes=30)
QUERY = Query("q.sql", (Step("select 1"),), {}, "ab" * 32)


def rome(hour: int, minute: int = 0, day: date = DAY) -> datetime:
    return datetime(day.year, day.month, day.day, hour, minute, tzinfo=ROME).astimezone(UTC)


@dataclass
class Life:
    """One job, its runner, and a virtual clock."""

    file: Path
    ledger: Ledger
    outbox: Outbox
    at: datetime
    job: Job | None = None
    planner: Planner | None = None
    seen_at: datetime | None = None
    ends: str = "succeeded"
    """The state in which the next runs end; `running`: they do not end."""
    open: list[tuple[int, str]] = field(default_factory=list)

    def save(self, job: Job) -> None:
        """A user saves the job's file; the runner, where there is one, sees it."""
        self.job = job
        text = job_text(job)
        self.ledger.job_versions.add(job.slug, hashlib.sha256(text.encode()).hexdigest(), text, self.at)
        if self.planner:
            self.planner.change(job.slug, job, self.at)
            if not job.enabled:
                self.ledger.scheduled_runs.skip_planned(job.slug, "its job was disabled", self.at, calendar_only=True)

    def begin(self, job: Job, until: datetime) -> None:
        """The job is saved, a runner starts, and time passes."""
        self.save(job)
        self.start()
        self.until(until)

    def delete(self) -> None:
        self.ledger.job_versions.end_job(self.job.slug, self.at)
        if self.planner:
            self.planner.change(self.job.slug, None, self.at)
            self.ledger.scheduled_runs.skip_planned(self.job.slug, "its job file was deleted", self.at)
        self.job = None

    def start(self) -> None:
        """The runner begins to work."""
        self.planner = Planner(self.ledger, grace_s=60, longest_gap=timedelta(days=30))
        self.planner.open({self.job.slug: self.job} if self.job else {}, self.at, self.seen_at)
        self.work()

    def stop(self) -> None:
        self.planner, self.seen_at = None, self.at

    def until(self, moment: datetime) -> None:
        while self.at < moment:
            self.at = min(
                moment,
                (self.at - datetime(2026, 1, 1, tzinfo=UTC)) // STEP * STEP + STEP + datetime(2026, 1, 1, tzinfo=UTC),
            )
            if self.planner:
                self.work()

    def work(self, waits: bool = False) -> None:
        self.planner.tick(self.at)
        for scheduled_run in () if waits else self.ledger.scheduled_runs.startable(self.at):
            self.run(scheduled_run.scheduled_at, scheduled_run.scheduled_run_id)

    def backfill(self, *moments: datetime) -> None:
        """Runs these times as a backfill does."""
        made = self.ledger.scheduled_runs.plan_requested(
            "export", moments, kind="backfill", asked_by="anna", now=self.at
        )
        for moment, number in zip(moments, made, strict=True):
            self.run(moment, number)

    def run(self, scheduled_at: datetime, scheduled_run_id: int | None = None, job: Job | None = None) -> None:
        plan = Plan(job or self.job, QUERY, "c", "t", scheduled_at, 100, scheduled_run_id=scheduled_run_id)
        run = self.ledger.start(plan, self.at)
        self.open.append((scheduled_run_id, run.run_id))
        if self.ends != "running":
            self.finish(self.ends)

    def finish(self, state: str) -> None:
        scheduled_run_id, run_id = self.open.pop()
        error = None if state == "succeeded" else QueryFailed("the query failed")
        self.ledger.finish(run_id, Outcome(state, rows_read=1, acknowledged=int(error is None), error=error), self.at)
        if scheduled_run_id is not None:
            self.ledger.scheduled_runs.finish(scheduled_run_id, self.at)

    @property
    def jobs(self) -> list[Job]:
        """The jobs that have a file."""
        return [self.job] if self.job else []

    def outcomes(self, day: date = DAY) -> list[ScheduledOutcome]:
        """Returns the outcome as the calendar and the overview query it."""
        jobs = with_deleted_jobs(self.jobs, self.ledger, "Europe/Rome")
        return [outcome for job in jobs for outcome in outcomes_of_days(job, self.ledger, day, day, self.at)]

    def page(self, day: date = DAY) -> dict[str, str]:
        outcomes = self.outcomes(day)
        totals = day_totals(day, outcomes)
        assert totals.complete == sum(outcome.state == "complete" for outcome in outcomes)
        assert totals.missing == sum(outcome.state == "missing" for outcome in outcomes)
        return {f"{outcome.scheduled_at.astimezone(ROME):%H:%M}": outcome.state for outcome in outcomes}

    def daily_report(self, day: date = DAY) -> DailyReport:
        return make_daily_report(self.ledger, self.outbox, self.jobs, day, self.at, "Europe/Rome")

    def reported(self, day: date = DAY) -> dict[str, str]:
        """Returns the outcome as the mail reports it."""
        found = {}
        for of_job in self.daily_report(day).jobs:
            found |= {outcome.scheduled_at: "missing" for outcome in of_job.missing}
            found |= {outcome.scheduled_at: "waiting" for outcome in of_job.waiting}
            found |= {run.scheduled_at: WORDS.get(run.state, "failed") for run in of_job.runs}
            assert of_job.is_green == all(state == "complete" for state in found.values())
        return {f"{moment.astimezone(ROME):%H:%M}": found[moment] for moment in sorted(found)}

    def health(self) -> str:
        if self.job is None:
            return "none"
        results = health(self.ledger, self.outbox, [self.job], [], self.at, 0)
        return next((result.status for result in results if result.subject == "job export"), "none")

    def late(self) -> str:
        """Returns the state of the rule `job_late` for a job that is due by now."""
        if self.job is None:
            return "none"
        job = replace(self.job, expect=Expect(by=f"{self.at.astimezone(ROME):%H:%M}"))
        rules = AlertRules(
            self.outbox,
            self.ledger,
            rules_file=self.file,
            spool_dir=self.file.parent / "spool",
            jobs=lambda: [job],
            recipients=Recipients(),
        )
        found = rules._checks.lateness(job, self.at)
        return "none" if found is None else "late" if found.is_true else "in time"


WORDS = {"succeeded": "complete", "running": "running", "partial": "partial"}


@pytest.fixture
def life(tmp_path):
    file = tmp_path / "ledger.sqlite"
    with Ledger(file) as ledger, Outbox(file) as outbox:
        yield Life(tmp_path / "alerts.json", ledger, outbox, rome(0, 10))


def made_today_with_one_run_for_an_old_day(life: Life) -> None:
    life.save(HOURLY)
    life.run(rome(2, day=date(2025, 12, 1)))
    life.until(rome(3, 5))


def made_today_with_a_backfill_of_this_morning(life: Life) -> None:
    life.at = rome(4, 10)
    life.save(HOURLY)
    life.start()
    life.backfill(rome(1), rome(2))
    life.until(rome(5, 5))


def a_backfill_of_a_time_before_the_job_was_made_is_cancelled(life: Life) -> None:
    life.at = rome(4, 10)
    life.save(HOURLY)
    life.start()
    life.ledger.scheduled_runs.plan_requested("export", [rome(1)], kind="backfill", asked_by="anna", now=life.at)
    life.ledger.scheduled_runs.skip_planned("export", "cancelled by anna", life.at)
    life.until(rome(5, 5))


def disabled_and_enabled_again(life: Life) -> None:
    life.begin(HOURLY, rome(3, 5))
    life.save(replace(HOURLY, enabled=False))
    life.until(rome(9, 5))
    life.save(HOURLY)
    life.until(rome(11, 5))


def disabled_and_enabled_again_without_a_runner(life: Life) -> None:
    life.begin(HOURLY, rome(3, 5))
    life.stop()
    life.save(replace(HOURLY, enabled=False))
    life.until(rome(9, 5))
    life.save(HOURLY)
    life.until(rome(11, 5))


def disabled_and_enabled_again_while_the_runner_is_off_for_longer(life: Life) -> None:
    life.begin(replace(HOURLY, catch_up="none"), rome(3, 5))
    life.stop()
    life.until(rome(4, 10))
    life.save(replace(HOURLY, catch_up="none", enabled=False))
    life.until(rome(6, 5))
    life.save(replace(HOURLY, catch_up="none"))
    life.until(rome(7, 30))
    life.start()
    life.until(rome(8, 5))


def disabled_while_its_run_waits(life: Life) -> None:
    life.begin(HOURLY, rome(1, 30))
    life.at = rome(2)
    life.work(waits=True)
    life.at = rome(2, 1)
    life.save(replace(HOURLY, enabled=False))
    life.until(rome(4, 5))


def deleted(life: Life) -> None:
    life.begin(HOURLY, rome(2, 5))
    life.stop()
    life.until(rome(4, 5))
    life.delete()
    life.until(rome(8, 5))


def deleted_and_made_again(life: Life) -> None:
    life.begin(HOURLY, rome(2, 5))
    life.delete()
    life.until(rome(5, 5))
    life.save(HOURLY)
    life.until(rome(6, 5))


def calendar_edited(life: Life) -> None:
    life.begin(HOURLY, rome(2, 5))
    life.save(replace(HOURLY, cron="30 */3 * * *"))
    life.until(rome(7, 5))


def calendar_edited_while_no_runner_works(life: Life) -> None:
    life.begin(HOURLY, rome(2, 5))
    life.stop()
    life.until(rome(4, 5))
    life.save(replace(HOURLY, cron="30 * * * *"))
    life.until(rome(5, 40))


def made_manual(life: Life) -> None:
    life.begin(HOURLY, rome(2, 5))
    life.save(replace(HOURLY, scheduling_mode="manual", cron=None))
    life.until(rome(5, 5))


def runner_off(life: Life, job: Job = HOURLY) -> None:
    life.begin(job, rome(2, 5))
    life.stop()
    life.until(rome(5, 5))


def catch_up(which: str) -> Callable[[Life], None]:
    def lived(life: Life) -> None:
        runner_off(life, replace(HOURLY, catch_up=which))
        life.start()
        life.until(rome(5, 30))

    lived.__name__ = f"caught_up_{which}"
    return lived


def missed_then_backfilled(life: Life) -> None:
    runner_off(life, replace(HOURLY, catch_up="none"))
    life.start()
    life.backfill(rome(3), rome(4))
    life.until(rome(5, 30))


def skipped_by_overlap(life: Life) -> None:
    life.save(HOURLY)
    life.start()
    life.ends = "running"
    life.until(rome(2, 5))
    life.finish("succeeded")
    life.ends = "succeeded"
    life.until(rome(3, 5))


def cancelled_while_it_waits(life: Life) -> None:
    life.begin(HOURLY, rome(1, 30))
    life.at = rome(2)
    life.work(waits=True)
    life.ledger.scheduled_runs.skip_planned("export", "cancelled by anna", life.at)
    life.at = rome(2, 30)


def cancelled_while_it_runs(life: Life) -> None:
    life.begin(HOURLY, rome(1, 30))
    life.ends = "cancelled"
    life.until(rome(2, 5))


def failed(life: Life) -> None:
    life.begin(HOURLY, rome(1, 30))
    life.ends = "failed"
    life.until(rome(2, 5))


def failed_then_run_again(life: Life) -> None:
    failed(life)
    life.ends = "succeeded"
    life.run(rome(2))


def still_running(life: Life) -> None:
    life.begin(HOURLY, rome(1, 30))
    life.ends = "running"
    life.until(rome(2, 30))


def running_past_the_next_time(life: Life) -> None:
    still_running(life)
    life.until(rome(3, 30))


def waiting(life: Life) -> None:
    life.begin(HOURLY, rome(1, 30))
    life.at = rome(2)
    life.work(waits=True)


def just_due_without_a_runner(life: Life) -> None:
    runner_off(life)
    life.at = rome(6, 1)


def clock_set_back(life: Life) -> None:
    life.begin(replace(HOURLY, catch_up="none"), rome(2, 5))
    life.stop()
    life.at = rome(6, 30)  # a wrong clock: the times up to then are skipped
    life.start()
    life.at = rome(2, 40)
    life.work()
    life.until(rome(4, 5))


def made_while_the_clock_was_wrong(life: Life) -> None:
    life.at = rome(6, 30)
    life.save(HOURLY)
    life.start()
    life.at = rome(2, 40)
    life.work()
    life.until(rome(4, 5))


def midnight(life: Life) -> None:
    life.at = rome(22, 10, day=date(2026, 1, 16))
    life.begin(HOURLY, rome(1, 5))


def before_the_first_time(life: Life) -> None:
    life.begin(DAILY, rome(1, 59))


B, M = "complete", "missing"
CASES = [
    (made_today_with_one_run_for_an_old_day, {"01:00": M, "02:00": M, "03:00": M}, "fail", "late"),
    (made_today_with_a_backfill_of_this_morning, {"01:00": B, "02:00": B, "05:00": B}, "pass", "in time"),
    (a_backfill_of_a_time_before_the_job_was_made_is_cancelled, {"05:00": B}, "pass", "in time"),
    (disabled_and_enabled_again, dict.fromkeys(("01:00", "02:00", "03:00", "10:00", "11:00"), B), "pass", "in time"),
    (
        disabled_and_enabled_again_without_a_runner,
        {"01:00": B, "02:00": B, "03:00": B, "10:00": M, "11:00": M},
        "fail",
        "late",
    ),
    (
        disabled_and_enabled_again_while_the_runner_is_off_for_longer,
        {"01:00": B, "02:00": B, "03:00": B, "04:00": M, "07:00": M, "08:00": B},
        "pass",
        "in time",
    ),
    (disabled_while_its_run_waits, {"01:00": B, "02:00": M}, "none", "none"),
    (deleted, {"01:00": B, "02:00": B, "03:00": M, "04:00": M}, "none", "none"),
    (deleted_and_made_again, {"01:00": B, "02:00": B, "06:00": B}, "pass", "in time"),
    (calendar_edited, {"01:00": B, "02:00": B, "03:30": B, "06:30": B}, "pass", "in time"),
    (
        calendar_edited_while_no_runner_works,
        {"01:00": B, "02:00": B, "03:00": M, "04:00": M, "04:30": M, "05:30": M},
        "fail",
        "late",
    ),
    (made_manual, {"01:00": B, "02:00": B}, "none", "none"),
    (runner_off, {"01:00": B, "02:00": B, "03:00": M, "04:00": M, "05:00": M}, "fail", "late"),
    (catch_up("none"), {"01:00": B, "02:00": B, "03:00": M, "04:00": M, "05:00": M}, "fail", "late"),
    (catch_up("latest"), {"01:00": B, "02:00": B, "03:00": M, "04:00": M, "05:00": B}, "pass", "in time"),
    (catch_up("all"), dict.fromkeys(("01:00", "02:00", "03:00", "04:00", "05:00"), B), "pass", "in time"),
    (missed_then_backfilled, {"01:00": B, "02:00": B, "03:00": B, "04:00": B, "05:00": M}, "fail", "late"),
    (skipped_by_overlap, {"01:00": B, "02:00": M, "03:00": B}, "pass", "in time"),
    (cancelled_while_it_waits, {"01:00": B, "02:00": M}, "fail", "late"),
    (cancelled_while_it_runs, {"01:00": B, "02:00": "failed"}, "fail", "late"),
    (failed, {"01:00": B, "02:00": "failed"}, "fail", "late"),
    (failed_then_run_again, {"01:00": B, "02:00": B}, "pass", "in time"),
    (still_running, {"01:00": B, "02:00": "running"}, "warn", "late"),
    (running_past_the_next_time, {"01:00": B, "02:00": "running", "03:00": M}, "warn", "late"),
    (waiting, {"01:00": B, "02:00": "waiting"}, "warn", "late"),
    (
        just_due_without_a_runner,
        {"01:00": B, "02:00": B, "03:00": M, "04:00": M, "05:00": M, "06:00": "waiting"},
        "warn",
        "late",
    ),
    (clock_set_back, {"01:00": B, "02:00": B, "03:00": B, "04:00": B}, "pass", "in time"),
    (made_while_the_clock_was_wrong, {"03:00": B, "04:00": B}, "pass", "in time"),
    (midnight, {"00:00": B, "01:00": B}, "pass", "in time"),
    (before_the_first_time, {}, "pass", "none"),
]


@pytest.mark.parametrize(("lived", "states", "of_health", "of_alerts"), CASES, ids=[case[0].__name__ for case in CASES])
def test_page_report_health_and_alerts_agree_on(life, lived, states, of_health, of_alerts):
    lived(life)
    assert life.page() == states
    assert life.reported() == states
    assert (life.health(), life.late()) == (of_health, of_alerts)


def test_an_hourly_job_that_was_disabled_for_six_hours_is_18_of_18_everywhere(life):
    life.at = rome(23, 10, day=DAY - timedelta(days=1))
    life.begin(HOURLY, rome(3, 5))
    life.save(replace(HOURLY, enabled=False))
    life.until(rome(9, 5))
    life.save(HOURLY)
    life.until(rome(23, 30))
    totals = day_totals(DAY, life.outcomes())
    assert (totals.complete, totals.due, totals.is_complete) == (18, 18, True)
    (of_job,) = life.daily_report().jobs
    assert (len(of_job.runs), len(of_job.missing), of_job.is_green) == (18, 0, True)
    assert (
        daily_report_notification(life.daily_report()).subject
        == "✔ 17 Jan 2026 so far: everything arrived, 18 rows of 1 job"
    )
    assert (life.health(), life.late()) == ("pass", "in time")


@pytest.mark.parametrize(
    ("until", "ends", "text"),
    [
        (rome(2, 50), "succeeded", "was never due yet"),
        (rome(3, 5), "failed", "was due for the first time less than 60 minutes ago and has not succeeded yet"),
        (rome(3, 5), "succeeded", "succeeded for 17 Jan 2026 03:00 Europe/Rome"),
    ],
)
def test_health_of_a_job_that_was_due_for_the_first_time_within_its_grace(life, until, ends, text):
    life.at, life.ends = rome(2, 30), ends
    life.begin(HOURLY, until)
    (found,) = (r for r in health(life.ledger, life.outbox, [life.job], [], life.at, 3600) if r.subject == "job export")
    assert (found.status, found.text) == ("pass", text)


def test_midnight_belongs_to_the_day_that_begins(life):
    midnight(life)
    assert life.page(date(2026, 1, 16)) == life.reported(date(2026, 1, 16)) == {"23:00": B}


def test_a_job_made_in_november_with_a_run_for_january_misses_no_day_before_november(life):
    life.at = datetime(2026, 11, 26, 9, tzinfo=UTC)
    life.save(DAILY)
    life.run(rome(2))
    life.at = datetime(2026, 11, 27, 9, tzinfo=UTC)
    outcomes = outcomes_of_days(DAILY, life.ledger, date(2026, 1, 1), date(2026, 11, 27), life.at)
    assert [(outcome.day, outcome.state) for outcome in outcomes] == [(DAY, B), (date(2026, 11, 27), M)]


@pytest.mark.parametrize(
    ("day", "cron", "times"),
    [
        (date(2026, 3, 29), "30 2 * * *", ["03:00"]),  # 02:30 is skipped
        (date(2026, 10, 25), "30 2 * * *", ["02:30"]),  # it occurs twice
        (date(2026, 3, 29), "0 * * * *", [f"{h:02}:00" for h in range(24) if h != 2]),
        (date(2026, 10, 25), "0 * * * *", [f"{h:02}:00" for h in (0, 1, 2, *range(2, 24))]),
    ],
)
@pytest.mark.parametrize("has_runner", [True, False])
def test_both_clock_changes(life, day, cron, times, has_runner):
    job = replace(HOURLY, cron=cron)
    life.at = rome(22, 10, day=day - timedelta(days=1))
    life.save(job)
    if has_runner:
        life.start()
    life.until(rome(0, 10, day=day + timedelta(days=1)))
    outcomes = outcomes_of_days(job, life.ledger, day, day, life.at)
    assert [f"{outcome.scheduled_at.astimezone(ROME):%H:%M}" for outcome in outcomes] == times
    assert {outcome.state for outcome in outcomes} == {B if has_runner else M}
    assert life.reported(day) == life.page(day)
    assert (life.health(), life.late()) == (("pass", "in time") if has_runner else ("fail", "late"))


def test_a_file_that_went_while_no_runner_worked_ends_when_the_next_runner_looks(life, tmp_path):
    from core.scheduler.job_registry import JobRegistry

    life.save(HOURLY)
    life.until(rome(2, 5))
    (tmp_path / "queries").mkdir()
    JobRegistry(tmp_path / "queries", life.ledger, lambda: life.at).refresh()
    life.job = None
    life.until(rome(4, 5))
    assert life.page() == life.reported() == {"01:00": M, "02:00": M}


def test_the_history_of_an_older_ledger_begins_with_the_versions_that_it_knows(tmp_path, monkeypatch):
    import core.records.store

    file = tmp_path / "ledger.sqlite"
    with monkeypatch.context() as patch:
        older = {version: files for version, files in core.records.store.SCHEMAS.items() if version < 4}
        patch.setattr(core.records.store, "SCHEMAS", older)
        patch.setattr(core.records.store, "SCHEMA_VERSION", 3)
        with Ledger(file) as ledger:
            for hour, text in ((1, job_text(HOURLY)), (2, job_text(replace(HOURLY, enabled=False)))):
                row = {
                    "job": "export",
                    "sha256": f"{hour}",
                    "document": text,
                    "seen_at": f"2026-01-17T0{hour}:30:00.000000Z",
                    "saved_by": "",
                }
                ledger.job_versions._write("insert", row)
    with Ledger(file) as ledger:
        outcomes = outcomes_of_days(HOURLY, ledger, DAY, DAY, rome(9))
    assert [outcome.scheduled_at.hour for outcome in outcomes] == [2]
