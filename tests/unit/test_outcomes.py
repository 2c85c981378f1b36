"""What became of each scheduled time and day, over a real ledger."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest

from core.calendar.cron import SkippedTimes
from core.errors import QueryFailed
from core.model.job import Job
from core.model.query import Query, Step
from core.model.run import Plan
from core.notify.daily_report import daily_report_notification, make_daily_report
from core.notify.outbox import Outbox
from core.records.ledger import Ledger, Outcome
from core.records.outcomes import day_state, day_totals, outcomes_of_days, scheduled_outcomes
from core.records.scheduled_runs import NewScheduledRuns
from core.workspace.jobs import job_text

NOW = datetime(2026, 1, 20, 12, tzinfo=UTC)
DAILY = Job("daily", "Daily", "q.sql", "A00", scheduling_mode="cron", cron="0 2 * * *")
SINCE = datetime(2026, 1, 15, tzinfo=UTC)


def at(day: int, hour: int = 1) -> datetime:
    """02:00 in Rome is 01:00 UTC in January."""
    return datetime(2026, 1, day, hour, tzinfo=UTC)


@pytest.fixture
def place(tmp_path):
    file = tmp_path / "ledger.sqlite"
    with Ledger(file) as ledger:

        class Place:
            def run(
                self,
                moment,
                state="succeeded",
                read=10,
                acknowledged=10,
                rejected=0,
                kind="job",
                job=DAILY,
                started=None,
                before=0,
                is_ad_hoc=False,
            ):
                query = Query("q.sql", (Step("select 1"),), {}, "ab" * 32)
                plan = Plan(job, query, "collaudo", "traces", moment, 100, kind=kind, is_ad_hoc=is_ad_hoc)
                run = ledger.start(plan, started or moment)
                error = QueryFailed("the query failed") if state == "failed" else None
                outcome = Outcome(
                    state, read, None, acknowledged, acknowledged, rejected, error=error, arrived_before=before
                )
                return ledger.finish(run.run_id, outcome, moment + timedelta(seconds=5))

            def follow(self, until, on_time=(), skipped=()):
                new = NewScheduledRuns("daily", "queue", list(on_time), [], list(skipped), until, "0 2 * * *")
                ledger.scheduled_runs.plan([new], until)

            def outcomes(self, job=DAILY, now=NOW):
                return scheduled_outcomes(job, ledger, SINCE, now + timedelta(days=1), now)

            def outcomes_of_days(self, day, job):
                return outcomes_of_days(job, ledger, day, day, NOW)

            def report(self, day, jobs):
                with Outbox(file) as outbox:
                    return make_daily_report(ledger, outbox, jobs, day, NOW, "Europe/Rome")

            def noticed(self, moment, job=DAILY):
                ledger.job_versions.add("daily", f"{job.enabled}{job.cron}", job_text(job), moment)

            def states(self, **kwargs):
                return {outcome.scheduled_at.day: outcome.state for outcome in self.outcomes(**kwargs)}

        yield Place()


def test_a_day_without_a_run_is_missing_from_the_first_scheduled_time_on(place):
    place.run(at(16))
    place.run(at(18))
    assert place.states() == {16: "complete", 17: "missing", 18: "complete", 19: "missing", 20: "missing"}


def test_a_job_that_never_ran_misses_nothing(place):
    assert place.outcomes() == []


def test_a_job_that_runs_for_an_old_day_misses_nothing_before_it_was_made(place):
    place.noticed(at(19, 5))
    place.run(at(16), started=at(19, 6))
    assert place.states() == {16: "complete", 20: "missing"}


def test_in_an_older_workspace_nothing_was_due_for_which_a_runner_planned_nothing(place):
    place.run(at(16))
    place.follow(at(17), on_time=[at(17)])
    place.follow(at(19, 5))
    assert place.states() == {16: "complete", 17: "waiting"}


def test_a_skipped_fire_is_missing_and_says_why(place):
    place.run(at(16))
    place.follow(at(17, 5), on_time=[at(16)], skipped=[SkippedTimes(at(17), at(17), 1, "the machine was off")])
    outcome = next(outcome for outcome in place.outcomes() if outcome.scheduled_at == at(17))
    assert (outcome.state, outcome.reason, outcome.run) == ("missing", "the machine was off", None)


def test_every_time_of_a_skipped_span_is_missing(place):
    place.run(at(15))
    place.follow(at(19, 5), on_time=[at(15)], skipped=[SkippedTimes(at(16), at(18), 3, "missed")])
    assert {day: state for day, state in place.states().items() if day in (16, 17, 18)} == dict.fromkeys(
        (16, 17, 18), "missing"
    )


def test_a_planned_fire_waits(place):
    place.run(at(19))
    place.follow(at(20), on_time=[at(20)])
    assert place.states()[20] == "waiting"


def test_a_disabled_job_misses_nothing(place):
    place.run(at(16))
    assert place.states(job=replace(DAILY, enabled=False)) == {16: "complete"}


def test_one_good_run_of_a_scheduled_time_is_enough(place):
    place.run(at(16), "failed", acknowledged=0)
    place.run(at(16))
    place.run(at(16), "failed", acknowledged=0)
    assert place.states()[16] == "complete"


def test_a_day_that_was_completed_by_a_replay_has_the_rows_of_both_runs(place):
    place.run(at(16), "partial", read=10, acknowledged=6)
    place.run(at(16), read=4, acknowledged=4, kind="replay", before=6)
    totals = day_totals(date(2026, 1, 16), place.outcomes_of_days(date(2026, 1, 16), DAILY))
    assert (totals.rows_read, totals.acknowledged, totals.is_complete) == (10, 10, True)


def test_the_daily_report_counts_each_row_once_and_the_whole_of_a_day_in_two_runs(place):
    place.run(at(16), "partial", read=10, acknowledged=6)
    place.run(at(16), read=4, acknowledged=4, kind="replay", before=6)
    other = replace(DAILY, slug="other", name="Other")
    place.run(at(16), job=other)
    place.run(at(16), job=other)  # again: ten more messages of the same rows
    found = place.report(date(2026, 1, 16), [DAILY, other])
    assert (found.rows, [topic.rows for topic in found.topics]) == (20, [30])
    mail = daily_report_notification(found)
    assert "everything arrived, 20 rows of 2 jobs" in mail.subject
    (lines,) = [table.rows[1:] for table in mail.tables if table.title == "Each job"]
    assert [line[3] for line in lines] == ["complete: 10 read = 10 acknowledged + 0 rejected"] * 2


def test_the_first_whole_run_counts_before_a_replay_of_rejects(place):
    whole = place.run(at(16), read=10, acknowledged=8, rejected=2)
    place.run(at(16), read=10, acknowledged=2, rejected=0, kind="replay")
    assert place.outcomes()[0].run.run_id == whole.run_id


@pytest.mark.parametrize(
    ("states", "of_day"),
    [
        ((), "nothing_due"),
        (("complete", "complete"), "complete"),
        (("failed", "failed"), "failed"),
        (("complete", "missing"), "partial"),
        (("failed", "missing"), "partial"),
        (("complete", "running"), "running"),
        (("complete", "waiting"), "waiting"),
    ],
)
def test_a_day_has_one_state(place, states, of_day):
    place.run(at(16))
    outcome = place.outcomes()[0]
    assert day_state([replace(outcome, state=state) for state in states]) == of_day


@pytest.mark.parametrize(
    ("scheduled", "timezone", "day"),
    [
        (at(17), "Europe/Rome", 17),  # 02:00 there
        (at(16, 23), "Europe/Rome", 17),  # midnight there
        (at(16, 22), "Europe/Rome", 16),  # 23:00 there
        (at(17, 3), "America/New_York", 16),  # 22:00 there, the day before
        (at(16, 15), "Pacific/Auckland", 17),  # 04:00 there, the day after
    ],
)
def test_a_scheduled_time_belongs_to_its_day_in_the_time_zone_of_its_job(place, scheduled, timezone, day):
    job = replace(DAILY, timezone=timezone, scheduling_mode="manual", cron=None)
    place.run(scheduled, job=job)
    outcomes = [outcome for d in (15, 16, 17, 18) for outcome in place.outcomes_of_days(date(2026, 1, d), job)]
    assert [outcome.day for outcome in outcomes] == [date(2026, 1, day)]


def test_a_run_with_other_parameters_decides_nothing_about_its_scheduled_time(place):
    place.noticed(at(15, 0))
    place.run(at(15))
    place.run(at(15), read=0, acknowledged=0, is_ad_hoc=True)
    place.run(at(16), "failed", acknowledged=0)
    place.run(at(16), is_ad_hoc=True)
    other = place.run(at(17), is_ad_hoc=True)
    place.run(at(18, 9), is_ad_hoc=True)  # no scheduled time
    by_day = {outcome.scheduled_at: outcome for outcome in place.outcomes(now=at(18, 12))}
    assert [by_day[moment].state for moment in (at(15), at(16), at(17), at(18, 9))] == [
        "complete",
        "failed",
        "missing",
        "complete",
    ]
    assert by_day[at(15)].acknowledged == 10
    assert by_day[at(17)].reason == f"run {other.run_id} had other parameters than the job's own"
    assert [run.run_id for run in by_day[at(17)].attempts] == [other.run_id]


def test_the_answer_counts_rows_and_runs(place):
    place.run(at(16), read=10, acknowledged=8, rejected=2)
    place.run(at(17), "failed", read=4, acknowledged=0)
    outcomes = [outcome for outcome in place.outcomes() if outcome.scheduled_at <= at(18)]
    answer = day_totals(date(2026, 1, 16), outcomes)
    assert (answer.due, answer.complete, answer.failed, answer.missing) == (3, 1, 1, 1)
    assert (answer.rows_read, answer.acknowledged, answer.rejected) == (14, 8, 2)
    assert not answer.is_complete


def test_an_outcome_has_all_its_attempts_in_order_and_the_deciding_one_is_among_them(place):
    failed = place.run(at(16), "failed", read=0, acknowledged=0)
    good = place.run(at(16), started=at(16, 3))
    (outcome,) = [one for one in place.outcomes() if one.scheduled_at == at(16)]
    assert [run.run_id for run in outcome.attempts] == [failed.run_id, good.run_id]
    assert outcome.run in outcome.attempts
    assert outcome.run.run_id == good.run_id
    assert [one.attempts for one in place.outcomes() if one.run is None] == [()] * sum(
        one.run is None for one in place.outcomes()
    )
