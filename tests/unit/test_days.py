"""What became of each scheduled time and day, over a real ledger and agenda."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest

from core.agenda import Agenda, NewFires
from core.calendar import Skipped
from core.days import answer_for, day_state, rows_day, slots_of
from core.errors import QueryFailed
from core.ledger import Ledger, Outcome
from core.model import Job, Plan, Query, Step

NOW = datetime(2026, 1, 20, 12, tzinfo=UTC)
DAILY = Job("daily", "Daily", "q.sql", "A00", scheduling_mode="cron", cron="0 2 * * *")
SINCE = datetime(2026, 1, 15, tzinfo=UTC)


def at(day: int, hour: int = 1) -> datetime:
    """02:00 in Rome is 01:00 UTC in January."""
    return datetime(2026, 1, day, hour, tzinfo=UTC)


@pytest.fixture
def place(tmp_path):
    file = tmp_path / "ledger.sqlite"
    with Ledger(file) as ledger, Agenda(file) as agenda:

        class Place:
            def run(self, moment, state="succeeded", read=10, acknowledged=10, rejected=0, kind="job"):
                query = Query("q.sql", (Step("select 1"),), {}, "ab" * 32)
                plan = Plan(DAILY, query, "collaudo", "traces", moment, 100, kind=kind)
                run = ledger.start(plan, moment)
                error = QueryFailed("the query failed") if state == "failed" else None
                outcome = Outcome(state, read, None, acknowledged, acknowledged, rejected, error=error)
                return ledger.finish(run.run_id, outcome, moment + timedelta(seconds=5))

            def follow(self, until, on_time=(), skipped=()):
                new = NewFires("daily", "queue", list(on_time), [], list(skipped), until, "0 2 * * *")
                agenda.plan([new], until)

            def slots(self, job=DAILY, now=NOW):
                return slots_of(job, ledger, agenda, SINCE, now + timedelta(days=1), now)

            def states(self, **kwargs):
                return {slot.scheduled_at.day: slot.state for slot in self.slots(**kwargs)}

        yield Place()


def test_a_day_without_a_run_is_missing_from_the_first_scheduled_time_on(place):
    place.run(at(16))
    place.run(at(18))
    assert place.states() == {16: "complete", 17: "missing", 18: "complete", 19: "missing", 20: "missing"}


def test_a_job_that_never_ran_misses_nothing(place):
    assert place.slots() == []


def test_nothing_was_due_while_a_runner_followed_the_job_and_planned_nothing(place):
    place.run(at(16))
    place.follow(at(16), on_time=[at(16)])
    place.follow(at(19, 5))
    assert place.states() == {16: "complete", 20: "missing"}


def test_a_skipped_fire_is_missing_and_says_why(place):
    place.run(at(16))
    place.follow(at(17, 5), on_time=[at(16)], skipped=[Skipped(at(17), at(17), 1, "the machine was off")])
    slot = next(slot for slot in place.slots() if slot.scheduled_at == at(17))
    assert (slot.state, slot.reason, slot.run) == ("missing", "the machine was off", None)


def test_every_time_of_a_skipped_span_is_missing(place):
    place.run(at(15))
    place.follow(at(19, 5), on_time=[at(15)], skipped=[Skipped(at(16), at(18), 3, "missed")])
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


def test_the_first_whole_run_counts_before_a_replay_of_rejects(place):
    whole = place.run(at(16), read=10, acknowledged=8, rejected=2)
    place.run(at(16), read=10, acknowledged=2, rejected=0, kind="replay")
    assert place.slots()[0].run.run_id == whole.run_id


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
    slot = place.slots()[0]
    assert day_state([replace(slot, state=state) for state in states]) == of_day


@pytest.mark.parametrize(
    ("scheduled", "previous", "day"),
    [
        (at(17), at(16), date(2026, 1, 16)),  # daily at 02:00: yesterday's rows
        (at(16, 23), at(16, 22), date(2026, 1, 16)),  # hourly, at midnight in Rome
        (at(17, 0), at(16, 23), date(2026, 1, 17)),  # hourly, at 01:00 in Rome
        (at(17), datetime(2025, 12, 17, 1, tzinfo=UTC), date(2026, 1, 16)),  # monthly: the day before
        (at(17), None, date(2026, 1, 17)),  # by hand
    ],
)
def test_a_run_carries_the_rows_of_the_day_on_which_its_window_began(place, scheduled, previous, day):
    place.run(at(16))
    slot = replace(place.slots()[0], scheduled_at=scheduled)
    assert rows_day(slot, previous) == day


def test_the_answer_counts_rows_and_runs(place):
    place.run(at(16), read=10, acknowledged=8, rejected=2)
    place.run(at(17), "failed", read=4, acknowledged=0)
    slots = [slot for slot in place.slots() if slot.scheduled_at <= at(18)]
    answer = answer_for(date(2026, 1, 16), slots)
    assert (answer.due, answer.complete, answer.failed, answer.missing) == (3, 1, 1, 1)
    assert (answer.rows_read, answer.acknowledged, answer.rejected) == (14, 8, 2)
    assert not answer.is_complete
