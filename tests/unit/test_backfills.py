"""Backfills on a virtual clock: places of their own, order, pause, restart, failures, and what is refused."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

import core.records.store
from core.cli.main import app
from core.errors import AccessRefused, BrokerUnavailable, ConfigError, LedgerBusy, QueryFailed, SourceUnavailable
from core.model.job import Incremental, Job
from core.model.query import Query, Step
from core.model.run import Plan
from core.records.ledger import Ledger
from core.records.rights import Caller
from core.records.store import Store
from core.run.exactly_once import ExactlyOnce
from core.run.pending_transactions import TransactionNote
from core.scheduler.backfills import (
    Backfilled,
    BackfillOptions,
    backfill,
    cancel_backfill,
    pause_backfill,
    report,
    reports,
    resume_backfill,
    retry_backfill,
    wanted_times,
)
from core.scheduler.commands import cancel_job
from core.workspace.identity import Identity, WorkspaceLocation
from tests.rigs.callers import caller
from tests.unit.test_runner import HOUR, NOON, SECOND, Stage, Worker, stage  # noqa: F401 - a fixture

ANNA = caller("anna")
DAYS = (date(2026, 1, 5), date(2026, 1, 14))
TEN = 10


@pytest.fixture
def daily(stage: Stage) -> Stage:  # noqa: F811
    """A runner with the job `daily`, due at 02:00 UTC."""
    stage.write("daily", cron="0 2 * * *")
    stage.go()
    return stage


def asked(
    stage: Stage,  # noqa: F811
    *,
    days: tuple[date, date] = DAYS,
    job: str = "daily",
    **options,
) -> Backfilled:
    options = {"most_parallel": 64, **options}
    found = stage.runner.registry.entries[job].job
    return backfill(stage.ledger, found, *days, caller=ANNA, now=stage.clock(), options=BackfillOptions(**options))


def open_workers(stage: Stage) -> list[Worker]:  # noqa: F811
    return [worker for worker in stage.hands.started if worker.code is None]


def days_of(stage: Stage, workers: list[Worker]) -> list[int]:  # noqa: F811
    return [stage.ledger.scheduled_runs.get(worker.scheduled_run_id).scheduled_at.day for worker in workers]


def job_of(stage: Stage, worker: Worker) -> str:  # noqa: F811
    return stage.ledger.scheduled_runs.get(worker.scheduled_run_id).job


def lives_on(stage: Stage, state: str = "succeeded") -> None:  # noqa: F811
    """Ends what runs, until nothing of a backfill waits."""
    for _ in range(100):
        stage.go()
        if not open_workers(stage):
            return
        for worker in open_workers(stage):
            worker.ends(state)
    raise AssertionError("it does not end")


@pytest.mark.parametrize(("order", "first"), [("oldest", [5, 6, 7]), ("newest", [14, 13, 12])])
def test_days_run_at_once_up_to_the_limit_in_the_order_asked_for(daily, order, first):
    made = asked(daily, parallel=3, order=order)
    daily.go()
    assert days_of(daily, daily.hands.started) == first
    daily.go()
    assert len(daily.hands.started) == 3
    daily.hands.started[1].ends()
    daily.go()
    assert days_of(daily, daily.hands.started) == [*first, first[-1] + (1 if order == "oldest" else -1)]
    lives_on(daily)
    assert sorted(days_of(daily, daily.hands.started)) == list(range(5, 15))
    found = report(daily.ledger, made.request_id)
    assert (found.backfill.state, found.backfill.summary) == ("done", "10 of 10 complete")
    assert daily.ledger.requests.get(made.request_id).answer == "10 of 10 complete"
    assert (found.progress.total, found.progress.ended, found.left_s) == (TEN, TEN, None)


def test_a_scheduled_run_starts_at_once_while_backfills_use_every_place(daily):
    daily.restart(PSTT_WORKERS=1, PSTT_BACKFILL_WORKERS=2)
    daily.write("daily", cron="0 13 * * *")  # so that the backfill is of the job that comes due
    daily.go()
    asked(daily, parallel=2)
    daily.go()
    assert len(open_workers(daily)) == 2
    daily.clock.at = NOON + HOUR
    daily.runner.tick()
    started = daily.ledger.scheduled_runs.get(daily.hands.last.scheduled_run_id)
    assert (started.kind, started.scheduled_at, started.job) == ("calendar", NOON + HOUR, "export")
    assert len(open_workers(daily)) == 3
    daily.hands.last.ends()
    daily.go()  # of the two jobs that were due the second has the one place now
    second = daily.ledger.scheduled_runs.get(daily.hands.last.scheduled_run_id)
    assert (second.kind, second.scheduled_at, second.job) == ("calendar", NOON + HOUR, "daily")
    assert len(open_workers(daily)) == 3  # two days of the same job go on beside it


def test_two_backfills_share_the_places_of_backfills(daily):
    daily.restart(PSTT_BACKFILL_WORKERS=3)
    daily.write("other", cron="0 3 * * *")
    daily.go()
    asked(daily, parallel=3)
    asked(daily, job="other", parallel=3)
    daily.go()
    jobs = [job_of(daily, worker) for worker in open_workers(daily)]
    assert jobs == ["daily", "other", "daily"]
    lives_on(daily)
    assert [one.backfill.summary for one in reports(daily.ledger)] == ["10 of 10 complete"] * 2


def test_a_paused_backfill_starts_nothing_more_also_after_a_restart_and_then_goes_on(daily):
    number = asked(daily, parallel=2).request_id
    daily.go()
    text = pause_backfill(daily.ledger, number, caller=ANNA, now=daily.clock())
    assert text == f"backfill {number} is paused with 10 runs waiting"  # its processes have not taken their runs yet
    for worker in open_workers(daily):
        worker.ends()
    daily.go()
    daily.restart()
    daily.go()
    assert len(daily.hands.started) == 2
    assert report(daily.ledger, number).backfill.state == "paused"
    assert pause_backfill(daily.ledger, number, caller=ANNA, now=daily.clock()).endswith("was paused before")
    assert resume_backfill(daily.ledger, number, caller=ANNA, now=daily.clock()).endswith("goes on with 8 runs waiting")
    lives_on(daily)
    assert sorted(days_of(daily, daily.hands.started)) == list(range(5, 15))
    actions = [(entry.action, entry.object) for entry in daily.ledger.audit.entries(limit=10)]
    assert actions == [
        ("resume", f"backfill {number}"), ("pause", f"backfill {number}"), ("backfill", "job daily"),
    ]  # fmt: skip


def test_a_restarted_runner_follows_the_runs_of_a_backfill_and_starts_none_twice(daily):
    number = asked(daily, parallel=3).request_id
    daily.go()
    running = open_workers(daily)
    for worker in running:
        worker.begins()
    daily.restart()
    daily.go()
    assert len(daily.hands.started) == 3
    running[0].leaves(-9)
    daily.go()  # its process is gone: the day is run again; the others go on
    assert days_of(daily, daily.hands.started) == [5, 6, 7, 5]
    for worker in running[1:]:
        worker.ends()
    lives_on(daily)
    assert report(daily.ledger, number).backfill.summary == "10 of 10 complete"


def test_a_cancelled_backfill_leaves_out_the_rest_and_asks_its_runs_to_end(daily):
    number = asked(daily, parallel=2).request_id
    daily.go()
    first, second = open_workers(daily)
    first.begins()
    second.begins()
    text = cancel_backfill(daily.ledger, number, caller=ANNA, now=daily.clock())
    assert text == f"backfill {number} is cancelled: 8 runs left out, 2 runs asked to end"
    assert daily.ledger.run(first.run_id).cancel_asked_by == "anna"
    first.ends("cancelled")
    second.ends()
    daily.go()
    found = report(daily.ledger, number)
    assert (found.backfill.state, found.progress.skipped, found.progress.complete) == ("cancelled", 8, 1)
    with pytest.raises(ConfigError, match="has ended: 1 of 10 complete, 1 failed, 8 skipped"):
        resume_backfill(daily.ledger, number, caller=ANNA, now=daily.clock())
    retried = retry_backfill(
        daily.ledger, number, daily.runner.registry.entries["daily"].job, caller=ANNA, now=daily.clock()
    )
    assert len(retried.scheduled_run_ids) == 9


def test_a_day_that_fails_stops_no_other_and_is_repeated_alone(daily):
    number = asked(daily, parallel=4).request_id
    for _ in range(20):
        daily.go()
        for worker in open_workers(daily):
            (day,) = days_of(daily, [worker])
            worker.ends(
                "failed" if day in (6, 9) else "succeeded", QueryFailed("no such table") if day in (6, 9) else None
            )
    found = report(daily.ledger, number)
    assert found.backfill.summary == (
        "8 of 10 complete, 2 failed: 6 Jan 2026 02:00 failed, 9 Jan 2026 02:00 failed; "
        f"python -m core backfill retry {number} repeats them"
    )
    assert [(one.scheduled_at.day, one.state, one.why) for one in found.incomplete] == [
        (6, "failed", "no such table"), (9, "failed", "no such table"),
    ]  # fmt: skip
    job = daily.runner.registry.entries["daily"].job
    again = retry_backfill(daily.ledger, number, job, caller=ANNA, now=daily.clock())
    daily.hands.started.clear()
    lives_on(daily)
    assert days_of(daily, daily.hands.started) == [6, 9]
    repeated = report(daily.ledger, again.request_id).backfill
    assert (repeated.parallel, repeated.summary, repeated.first_day) == (4, "2 of 2 complete", "2026-01-06")


def test_a_day_that_waits_for_its_next_try_holds_no_place(daily):
    number = asked(daily, parallel=1).request_id
    daily.go()
    daily.hands.last.ends("failed", BrokerUnavailable("the broker is away"))
    daily.go()
    assert days_of(daily, daily.hands.started) == [5, 6]
    lives_on(daily)
    assert report(daily.ledger, number).progress.waiting == 1
    daily.go(timedelta(minutes=1))
    lives_on(daily)
    assert report(daily.ledger, number).backfill.summary == "10 of 10 complete"


def fails(daily: Stage, error: Exception) -> None:
    daily.go()
    for worker in open_workers(daily):
        worker.ends("failed", error)
    daily.go()


def test_a_backfill_pauses_by_itself_while_the_broker_is_away_and_goes_on_and_loses_no_day(daily):
    daily.restart(PSTT_RUN_RETRIES=0, PSTT_BACKFILL_PAUSE_AFTER=3, PSTT_BACKFILL_PAUSE_S=600)
    number = asked(daily, parallel=1).request_id
    daily.go()
    daily.hands.last.ends()
    daily.go()
    for _ in range(3):
        fails(daily, BrokerUnavailable("the broker is away"))
    paused = report(daily.ledger, number)
    assert (paused.backfill.state, paused.backfill.paused_by_itself) == ("paused", True)
    assert paused.backfill.summary.startswith(
        "paused by itself after 3 failures in a row: the broker is away; it goes on after 10 min"
    )
    # The first two had used up their tries before it was known that it is an outage; the third waits.
    assert (paused.progress.failed, paused.progress.waiting) == (2, 7)
    started = len(daily.hands.started)
    daily.go(timedelta(minutes=9))
    assert len(daily.hands.started) == started
    daily.restart(PSTT_RUN_RETRIES=0)  # the pause outlives a restart, and begins again with it
    daily.go(timedelta(minutes=9))
    assert len(daily.hands.started) == started
    for _ in range(20):  # hours: one try each time, and the day is not given up
        daily.go(timedelta(minutes=11))
        fails(daily, BrokerUnavailable("the broker is away"))
    again = report(daily.ledger, number)
    assert (again.backfill.state, again.progress.failed, again.progress.waiting) == ("paused", 2, 7)
    daily.go(timedelta(minutes=11))
    lives_on(daily)
    daily.go(timedelta(minutes=1))
    lives_on(daily)
    ended = report(daily.ledger, number)
    assert (ended.progress.complete, ended.progress.failed, ended.backfill.state) == (8, 2, "done")
    assert "paused" not in ended.backfill.summary


def test_a_backfill_that_has_paused_by_itself_is_resumed_paused_or_cancelled_as_any_other(daily):
    daily.restart(PSTT_BACKFILL_PAUSE_AFTER=2)
    number = asked(daily, parallel=2).request_id
    fails(daily, SourceUnavailable("the database is away"))
    assert report(daily.ledger, number).backfill.paused_by_itself
    assert report(daily.ledger, number).progress.waiting == TEN
    pause_backfill(daily.ledger, number, caller=ANNA, now=daily.clock())
    found = report(daily.ledger, number).backfill
    assert (found.state, found.paused_by_itself) == ("paused", False)
    started = len(daily.hands.started)
    daily.go(timedelta(minutes=30))
    assert len(daily.hands.started) == started  # a pause that a user asked for lasts
    resume_backfill(daily.ledger, number, caller=ANNA, now=daily.clock())
    fails(daily, SourceUnavailable("the database is away"))
    assert report(daily.ledger, number).backfill.paused_by_itself
    cancel_backfill(daily.ledger, number, caller=ANNA, now=daily.clock())
    daily.go(timedelta(minutes=30))
    assert report(daily.ledger, number).backfill.state == "cancelled"


@pytest.mark.parametrize(
    ("settings", "errors"),
    [
        ({"PSTT_BACKFILL_PAUSE_AFTER": 0}, [BrokerUnavailable("away")] * 4),
        ({"PSTT_BACKFILL_PAUSE_AFTER": 3}, [BrokerUnavailable("away"), QueryFailed("no such table")] * 3),
        ({"PSTT_BACKFILL_PAUSE_AFTER": 3}, [BrokerUnavailable("away"), BrokerUnavailable("away"), None] * 2),
    ],
    ids=["never", "another error between", "a success between"],
)
def test_only_an_outage_pauses_a_backfill(daily, settings, errors):
    daily.restart(PSTT_RUN_RETRIES=0, **settings)
    number = asked(daily, parallel=1).request_id
    for error in errors:
        daily.go()
        daily.hands.last.ends("failed" if error else "succeeded", error)
        daily.go()
    assert report(daily.ledger, number).backfill.state == "running"


def test_a_backfill_that_overlaps_another_leaves_out_what_that_one_plans(daily):
    asked(daily, days=(DAYS[0], date(2026, 1, 9)))
    second = asked(daily, again=True)
    assert (len(second.scheduled_run_ids), second.planned_before) == (5, 5)
    lives_on(daily)
    assert sorted(days_of(daily, daily.hands.started)) == list(range(5, 15))
    third = asked(daily)
    assert (len(third.scheduled_run_ids), third.succeeded_before) == (0, 10)
    assert report(daily.ledger, third.request_id).backfill.state == "done"


def sends(stage: Stage, worker: Worker) -> None:  # noqa: F811
    """Ends a run that has sent a message."""
    worker.begins()
    stage.ledger._db.execute("UPDATE run SET topic = 't', acknowledged = 1 WHERE run_id = ?", [worker.run_id])
    stage.ledger._db.execute(
        "UPDATE run SET state = 'succeeded', finished_at = started_at WHERE run_id = ?", [worker.run_id]
    )
    worker.code = 0


def test_a_missed_time_waits_for_the_backfill_that_sends_it_and_is_not_sent_twice(daily):
    daily.write("daily", cron="0 2 * * *", catch_up="all")
    daily.go()
    daily.clock.at = datetime(2026, 1, 18, 2, 30, tzinfo=UTC)
    day = date(2026, 1, 18)
    asked(daily, days=(day, day))  # before the runner has planned it
    daily.runner.supervisor.start_planned(daily.clock())
    (sending,) = open_workers(daily)
    daily.go()
    daily.go()
    kinds = {one.kind: one.state for one in daily.ledger.scheduled_runs.between(NOON, daily.clock(), "daily")}
    assert kinds == {"backfill": "planned", "catch_up": "planned"}
    assert [worker for worker in open_workers(daily) if job_of(daily, worker) == "daily"] == [sending]
    sends(daily, sending)
    daily.go()
    daily.go()
    found = {one.kind: one for one in daily.ledger.scheduled_runs.between(NOON, daily.clock(), "daily")}
    assert (found["catch_up"].state, found["catch_up"].reason) == (
        "skipped",
        f"run {sending.run_id} has sent it before",
    )


def test_a_time_that_was_sent_after_the_backfill_was_asked_for_is_not_sent_again(daily):
    number = asked(daily, parallel=1).request_id
    pause_backfill(daily.ledger, number, caller=ANNA, now=daily.clock())
    job = daily.runner.registry.entries["daily"].job
    (ran,) = daily.ledger.scheduled_runs.plan_requested(
        "daily", [datetime(2026, 1, 6, 2, tzinfo=UTC)], kind="request", asked_by="anna", now=daily.clock()
    )
    daily.go()
    assert daily.hands.last.scheduled_run_id == ran
    sends(daily, daily.hands.last)
    daily.go()
    resume_backfill(daily.ledger, number, caller=ANNA, now=daily.clock())
    lives_on(daily)
    found = report(daily.ledger, number)
    assert found.progress.skipped == 1
    assert [(one.scheduled_at.day, one.state) for one in found.incomplete] == []
    assert found.backfill.summary == "9 of 10 complete, 1 was sent before"
    assert wanted_times(daily.ledger, job, *DAYS, now=daily.clock(), again=False)[1] == 10


def test_a_deleted_job_ends_its_backfill_and_an_edited_one_goes_on_with_the_edit(daily):
    number = asked(daily, parallel=1).request_id
    daily.go()
    before = daily.ledger.scheduled_runs.get(daily.hands.last.scheduled_run_id).job_sha256
    daily.write("daily", cron="0 2 * * *", name="Another")
    daily.go()
    daily.hands.last.ends()
    daily.go()
    after = daily.ledger.scheduled_runs.get(daily.hands.last.scheduled_run_id).job_sha256
    assert before != after
    daily.hands.last.begins()
    (daily.workspace.queries_dir / "daily.job.json").unlink()
    for _ in range(5):
        daily.go()
    daily.hands.last.ends()
    lives_on(daily)
    found = report(daily.ledger, number)
    assert (found.progress.complete, found.progress.skipped) == (2, 8)
    assert {one.why for one in found.incomplete} == {"its job file was deleted"}


def test_cancel_of_the_job_ends_its_backfill_too(daily):
    number = asked(daily, parallel=2).request_id
    assert "10 waiting runs of daily are cancelled" in cancel_job(daily.ledger, "daily", caller=ANNA, now=daily.clock())
    daily.go()
    assert report(daily.ledger, number).backfill.summary.startswith("0 of 10 complete, 10 skipped")


def test_the_time_left_is_measured_since_the_begin_or_the_resume(daily):
    number = asked(daily, parallel=1).request_id
    daily.go()
    for _ in range(4):
        daily.hands.last.begins()
        daily.clock.at += 9 * SECOND
        daily.hands.last.ends()
        daily.go()
    left_s = report(daily.ledger, number).left_s
    assert left_s == pytest.approx(6 * 10, abs=3)
    pause_backfill(daily.ledger, number, caller=ANNA, now=daily.clock())
    assert report(daily.ledger, number).left_s is None
    daily.hands.last.ends()
    daily.go(HOUR)
    resume_backfill(daily.ledger, number, caller=ANNA, now=daily.clock())
    assert report(daily.ledger, number).left_s is None  # nothing has ended since


@pytest.mark.parametrize("parallel", [0, -1, 5, 1000])
def test_an_impossible_number_of_runs_at_once_is_refused(daily, parallel):
    with pytest.raises(ConfigError, match=r"runs of a backfill at once are not possible: 1 to 4 are"):
        asked(daily, parallel=parallel, most_parallel=4)
    assert reports(daily.ledger) == []


@pytest.mark.parametrize(
    "days", [(DAYS[1], DAYS[0]), (date(2026, 1, 18), date(2026, 1, 19)), (date(2026, 2, 1), date(2026, 2, 3))]
)
def test_a_range_that_is_empty_or_still_to_come_is_refused(daily, days):
    with pytest.raises(ConfigError, match="no range of past days"):
        asked(daily, days=days)


@pytest.mark.parametrize(("kind", "value"), [("timestamp", "2026-01-05"), ("integer", "VALUE")])
def test_the_refusal_for_an_incremental_job_says_which_command_sends_its_rows_again(daily, kind, value):
    job = replace(daily.runner.registry.entries["daily"].job, incremental=Incremental("AT", kind))
    with pytest.raises(ConfigError, match=f"backfill daily --from-value {value} --why TEXT"):
        backfill(daily.ledger, job, *DAYS, caller=ANNA, now=daily.clock())
    assert reports(daily.ledger) == []


@pytest.mark.parametrize("act", [pause_backfill, resume_backfill, cancel_backfill])
@pytest.mark.parametrize("number", [0, -1, 99, 2**70])
def test_a_backfill_that_is_not_there_is_refused(daily, act, number):
    with pytest.raises(ConfigError, match="there is no backfill"):
        act(daily.ledger, number, caller=ANNA, now=daily.clock())


@pytest.mark.parametrize("act", [pause_backfill, resume_backfill, cancel_backfill])
def test_a_caller_who_may_not_send_is_refused(daily, act):
    number = asked(daily).request_id
    with pytest.raises(AccessRefused):
        act(daily.ledger, number, caller=Caller("eve", frozenset({"read"})), now=daily.clock())
    assert report(daily.ledger, number).backfill.state == "running"


def test_a_range_with_a_clock_change_has_each_time_of_its_calendar_once(daily):
    daily.write("rome", cron="30 2 * * *", timezone="Europe/Rome")
    daily.write("manual", scheduling_mode="manual", timezone="Europe/Rome")
    daily.write("hourly", cron="0 * * * *", timezone="Europe/Rome")
    daily.go()
    spring, autumn = date(2025, 3, 30), date(2025, 10, 26)
    for day, hours in ((spring, 23), (autumn, 25)):
        around = (day - timedelta(days=1), day + timedelta(days=1))
        assert len(asked(daily, job="rome", days=around).scheduled_run_ids) == 3
        assert len(asked(daily, job="manual", days=around).scheduled_run_ids) == 3
        assert len(asked(daily, job="hourly", days=(day, day)).scheduled_run_ids) == hours


def test_two_runs_for_one_scheduled_time_do_not_go_on_at_once(daily):
    asked(daily, parallel=2)
    daily.go()
    first = daily.hands.started[0]
    first.begins()
    job = daily.runner.registry.entries["daily"].job
    query = Query("q.sql", (Step("select 1"),), {}, "ab" * 32)
    same, other = datetime(2026, 1, 5, 2, tzinfo=UTC), datetime(2026, 1, 4, 2, tzinfo=UTC)
    with pytest.raises(LedgerBusy, match="running for this scheduled time already"):
        daily.ledger.start(Plan(job, query, "rig", "t", same, 100), daily.clock())
    by_hand = daily.ledger.start(Plan(job, query, "rig", "t", other, 100), daily.clock())
    with pytest.raises(LedgerBusy, match=by_hand.run_id):
        daily.ledger.start(Plan(job, query, "rig", "t", other, 100, is_backfill=True), daily.clock())
    first.leaves(-9)  # its process is gone: nothing is in the way
    daily.ledger.start(Plan(job, query, "rig", "t", same, 100), daily.clock())


def test_the_first_word_may_be_left_out_and_a_job_may_have_the_name_of_a_command(daily):
    daily.write("list", cron="0 2 * * *")
    for words in (["daily"], ["start", "daily"], ["list"]):
        given = ["--from", "2026-01-05", "--to", "2026-01-06", "--workspace", str(daily.workspace.root), "--json"]
        done = CliRunner().invoke(app, ["backfill", *words, *given])
        assert done.exit_code == 0, done.output
    done = CliRunner().invoke(app, ["backfill", "list", "--workspace", str(daily.workspace.root)])
    assert [line.split()[1] for line in done.stdout.splitlines()] == ["list", "daily", "daily"]


def test_no_day_begins_just_before_a_scheduled_time_unless_one_is_always_near(daily):
    asked(daily, parallel=1)
    daily.clock.at = NOON + HOUR - SECOND
    daily.runner.tick()
    daily.go(1.5 * SECOND)  # the scheduled run has begun, and with it the first day
    assert [daily.ledger.scheduled_runs.get(one.scheduled_run_id).kind for one in open_workers(daily)] == [
        "calendar",
        "backfill",
    ]
    daily.write("often", scheduling_mode="interval", interval_s=2, cron=None, overlap="queue")
    for _ in range(30):
        daily.go()
        for worker in open_workers(daily):
            worker.ends()
    kinds = [daily.ledger.scheduled_runs.get(one.scheduled_run_id).kind for one in daily.hands.started]
    assert 3 <= kinds.count("backfill") <= 6


BEFORE_SCHEMA_7 = """
INSERT INTO request (request_id, kind, job, args, asked_by, asked_at, state, answer) VALUES
    (1, 'backfill', 'daily', '{"from": "2026-01-05", "to": "2026-01-06", "again": true}', 'anna', '2026-01-16T10:00:00.000000Z', 'taken', '2 runs planned'),
    (2, 'backfill', 'daily', '{"from": "2026-01-01", "to": "2026-01-01"}', 'anna', '2026-01-15T10:00:00.000000Z', 'done', 'run ab succeeded'),
    (3, 'backfill', 'daily', '{}', 'anna', '2026-01-15T10:00:00.000000Z', 'refused', 'no');
INSERT INTO scheduled_run (job, kind, scheduled_at, state, reason, args, asked_by, request_id, created_at) VALUES
    ('daily', 'backfill', '2026-01-05T02:00:00.000000Z', 'planned', '', '{}', 'anna', 1, '2026-01-16T10:00:00.000000Z'),
    ('daily', 'backfill', '2026-01-06T02:00:00.000000Z', 'planned', '', '{}', 'anna', 1, '2026-01-16T10:00:00.000000Z'),
    ('daily', 'backfill', '2026-01-07T02:00:00.000000Z', 'planned', '', '{}', 'anna', NULL, '2026-01-16T10:00:00.000000Z'),
    ('daily', 'backfill', '2026-01-08T02:00:00.000000Z', 'planned', '', '{}', 'anna', NULL, '2026-01-16T10:00:00.000000Z');
"""


def test_a_backfill_of_an_earlier_version_goes_on_one_run_after_the_other(tmp_path, monkeypatch):
    file = tmp_path / "ledger.sqlite"
    with monkeypatch.context() as patch:
        older = {number: steps for number, steps in core.records.store.SCHEMAS.items() if number <= 6}
        patch.setattr(core.records.store, "SCHEMAS", older)
        patch.setattr(core.records.store, "SCHEMA_VERSION", 6)
        Store(file).close()
    with closing(sqlite3.connect(file)) as db:
        db.executescript(BEFORE_SCHEMA_7)
    with Ledger(file) as ledger:
        third, first, second = ledger.backfills.newest()
        assert (first.backfill_id, first.state, first.parallel, first.run_order) == (1, "running", 1, "oldest")
        assert (first.first_day, first.last_day, first.again) == ("2026-01-05", "2026-01-06", True)
        assert (second.backfill_id, second.state, second.summary) == (2, "done", "run ab succeeded")
        assert [run.scheduled_at.day for run in ledger.backfills.next_runs(first, NOON, 9)] == [5, 6]
        assert (third.first_day, third.last_day, third.again, third.state) == (
            "2026-01-07",
            "2026-01-08",
            True,
            "running",
        )
        assert [run.scheduled_at.day for run in ledger.backfills.next_runs(third, NOON, 9)] == [
            7,
            8,
        ]  # without a request
        assert ledger.requests.get(third.backfill_id).answer == "2 runs planned"
        assert ledger.scheduled_runs.startable(NOON) == []


def once(plan: Plan, folder: Path) -> ExactlyOnce:
    return ExactlyOnce(plan, Identity("own", WorkspaceLocation("h", "/w")), "rig", "", folder)


def test_each_day_of_a_backfill_has_a_transactional_id_of_its_own_and_the_markers_of_every_other_run(tmp_path):
    job = Job("export", "Export", "q.sql", "pg")
    query = Query("q.sql", (Step("select 1"),), {}, "ab" * 32)
    of_job = Plan(job, query, "rig", "t", NOON, 100)
    day, next_day = replace(of_job, is_backfill=True), replace(of_job, is_backfill=True, scheduled_at=NOON + HOUR)
    ids = [once(plan, tmp_path).transactional_id for plan in (of_job, day, next_day)]
    assert ids == ["pstt-export/t/rig/own", *(f"pstt-export/t/rig/own/2026-01-17T{h}:00:00.000000Z" for h in (12, 13))]
    assert once(day, tmp_path).keys == once(of_job, tmp_path).keys  # also those of earlier versions
    for plan, is_of_backfill in ((of_job, False), (day, True), (replace(of_job, repeat="7"), False)):
        sent = once(plan, tmp_path)
        note = TransactionNote("ab", "export", "", "", "t", "", "c", sent.transactional_id, sent.key.decode(), 1, 0)
        assert (note.scheduled_at, note.is_of_backfill) == ("2026-01-17T12:00:00.000000Z", is_of_backfill)
