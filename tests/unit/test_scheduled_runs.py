"""The ledger and the planner: each scheduled time has one row, even if the clock or the runner fails."""

import threading
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.calendars import calendars, sweep
from core.calendar.cron import scheduled_times
from core.errors import ConfigError, LedgerBusy
from core.model.job import Job
from core.records.ledger import Ledger
from core.records.runner_status import BrokerSample, RunnerStatus
from core.records.scheduled_runs import NewScheduledRuns
from core.scheduler.planner import Planner

NOON = datetime(2026, 1, 17, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def a_job(slug: str = "export", cron: str = "0 * * * *", **changes) -> Job:
    changes = {"timezone": "UTC", "scheduling_mode": "cron", **changes}
    return Job(slug, slug.title(), "q.sql", "A00", cron=cron, **changes)


@pytest.fixture
def ledger(tmp_path):
    with Ledger(tmp_path / "ledger.sqlite") as opened:
        yield opened


def a_planner(ledger, *jobs, now=NOON, seen_at=None, **changes) -> Planner:
    planner = Planner(ledger, grace_s=60, longest_gap=timedelta(days=31))
    planner.open({job.slug: job for job in jobs}, now, seen_at, **changes)
    return planner


def rows(ledger, **span) -> list[tuple[str, str, str]]:
    """Scheduled hour, kind and state of each scheduled run."""
    found = ledger.scheduled_runs.between(
        span.get("after", NOON - timedelta(days=400)), span.get("until", NOON + timedelta(days=800))
    )
    return [(f"{f.scheduled_at:%d %H:%M}", f.kind, f.state) for f in found]


def finish_all(ledger) -> None:
    """Marks every planned run as done."""
    ledger._db.execute("UPDATE scheduled_run SET state = 'done' WHERE state IN ('planned', 'running')")


# ── once ──────────────────────────────────────────────────────────────────────────────────────


def test_a_job_first_seen_begins_now_and_runs_no_history(ledger):
    planner = a_planner(ledger, a_job(catch_up="all"))
    assert planner.tick(NOON + timedelta(minutes=59)) == 0
    planner.tick(NOON + HOUR)
    assert rows(ledger) == [("17 13:00", "calendar", "planned")]


def test_two_planners_over_one_agenda_write_each_fire_once(ledger, tmp_path):
    with Ledger(ledger.file) as other:
        planners = [a_planner(ledger, a_job()), a_planner(other, a_job())]
        for planner in planners:
            planner.tick(NOON + HOUR)
    assert rows(ledger) == [("17 13:00", "calendar", "planned")]


def test_a_fire_belongs_to_whoever_takes_it_first(ledger):
    new = NewScheduledRuns("export", "queue", [NOON], [], [], NOON, "")
    counts = []

    def plan() -> None:
        with Ledger(ledger.file) as own:
            counts.append(own.scheduled_runs.plan([new], NOON))

    threads = [threading.Thread(target=plan) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(counts) == [0] * 7 + [1]


def test_what_could_not_be_written_comes_due_again(ledger, monkeypatch):
    def refuse(due, now):
        raise LedgerBusy("the ledger is held by another process")

    planner = a_planner(ledger, a_job())
    with monkeypatch.context() as patch:
        patch.setattr(ledger.scheduled_runs, "plan", refuse)
        with pytest.raises(LedgerBusy):
            planner.tick(NOON + HOUR)
    planner.tick(NOON + HOUR)
    assert rows(ledger) == [("17 13:00", "calendar", "planned")]


# ── overlap ───────────────────────────────────────────────────────────────────────────────────


def test_with_skip_a_fire_is_skipped_with_the_reason_while_the_one_before_it_is_not_done(ledger):
    planner = a_planner(ledger, a_job(overlap="skip"))
    planner.tick(NOON + HOUR)
    planner.tick(NOON + 2 * HOUR)
    assert rows(ledger) == [("17 13:00", "calendar", "planned"), ("17 14:00", "calendar", "skipped")]
    assert 'still waiting; "overlap" is skip' in ledger.scheduled_runs.between(NOON, NOON + 2 * HOUR)[1].reason


def test_with_queue_both_wait_and_a_job_that_runs_gives_none_to_start(ledger):
    planner = a_planner(ledger, a_job(overlap="queue"))
    planner.tick(NOON + HOUR)
    planner.tick(NOON + 2 * HOUR)
    assert [f"{f.scheduled_at:%H}" for f in ledger.scheduled_runs.startable(NOON + 2 * HOUR)] == ["13", "14"]
    ledger._db.execute("UPDATE scheduled_run SET state = 'running' WHERE scheduled_run_id = 1")
    assert ledger.scheduled_runs.startable(NOON + 2 * HOUR) == []


def test_caught_up_fires_do_not_skip_each_other_nor_the_one_on_time(ledger):
    a_planner(ledger, a_job(overlap="skip", catch_up="all"))
    planner = a_planner(ledger, a_job(overlap="skip", catch_up="all"), now=NOON + 4 * HOUR, seen_at=NOON)
    planner.tick(NOON + 4 * HOUR)
    assert rows(ledger) == [
        ("17 13:00", "catch_up", "planned"),
        ("17 14:00", "catch_up", "planned"),
        ("17 15:00", "catch_up", "planned"),
        ("17 16:00", "calendar", "planned"),
    ]


def test_asked_fires_start_first_and_backfills_are_started_apart(ledger):
    a_planner(ledger, a_job()).tick(NOON + HOUR)
    ledger.scheduled_runs.plan_requested("b", [NOON], kind="backfill", asked_by="anna", now=NOON)
    ledger.scheduled_runs.plan_requested("c", [NOON], kind="request", asked_by="anna", now=NOON)
    assert [f.kind for f in ledger.scheduled_runs.startable(NOON + HOUR)] == ["request", "calendar"]


# ── restarts, edits ───────────────────────────────────────────────────────────────────────────


def test_an_edited_calendar_counts_from_its_edit_and_the_old_one_until_then(ledger):
    planner = a_planner(ledger, a_job())
    planner.change("export", a_job(cron="*/10 * * * *"), NOON + HOUR + timedelta(minutes=35))
    planner.tick(NOON + HOUR + timedelta(minutes=45))
    assert [time for time, _, _ in rows(ledger)] == ["17 13:00", "17 13:40"]


def test_a_calendar_edited_while_no_runner_worked_counts_from_when_the_last_one_was_seen(ledger):
    a_planner(ledger, a_job())
    edited, now = a_job(cron="*/30 * * * *", catch_up="all"), NOON + 5 * HOUR
    a_planner(ledger, edited, now=now, seen_at=NOON + 4 * HOUR).tick(now)
    assert [time for time, _, _ in rows(ledger)] == ["17 16:30", "17 17:00"]


def test_a_job_disabled_and_enabled_again_catches_up_nothing_of_the_time_between(ledger):
    planner = a_planner(ledger, a_job(catch_up="all"))
    planner.change("export", a_job(catch_up="all", enabled=False), NOON + HOUR / 2)
    planner.tick(NOON + 3 * HOUR)
    planner.change("export", a_job(catch_up="all"), NOON + 3.5 * HOUR)
    planner.tick(NOON + 4 * HOUR)
    assert [time for time, _, _ in rows(ledger)] == ["17 16:00"]


def test_a_job_enabled_while_no_runner_worked_begins_now(ledger):
    a_planner(ledger, a_job(catch_up="all"))
    a_planner(ledger, a_job(catch_up="all", enabled=False), now=NOON + HOUR, seen_at=NOON)
    planner = a_planner(ledger, a_job(catch_up="all"), now=NOON + 3.5 * HOUR, seen_at=NOON + HOUR)
    planner.tick(NOON + 4 * HOUR)
    assert [time for time, _, _ in rows(ledger)] == ["17 16:00"]


# ── the clock ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("back", [HOUR, timedelta(days=1)])
def test_a_clock_set_back_runs_nothing_twice_and_goes_on_at_once(ledger, back):
    planner = a_planner(ledger, a_job())
    for hour in range(1, 31):
        planner.tick(NOON + hour * HOUR)
        finish_all(ledger)
    before = rows(ledger)
    clock = NOON + 30 * HOUR - back
    while clock < NOON + 33 * HOUR:
        planner.tick(clock)
        finish_all(ledger)
        clock += timedelta(minutes=20)
    assert rows(ledger)[: len(before)] == before
    assert [f"{f.scheduled_at:%d %H}" for f in ledger.scheduled_runs.between(NOON, NOON + 33 * HOUR)] == [
        f"{NOON + hour * HOUR:%d %H}" for hour in range(1, 33)
    ]


def test_what_was_skipped_under_a_clock_that_ran_ahead_runs_at_its_true_time(ledger):
    planner = a_planner(ledger, a_job(catch_up="none"))
    planner.tick(NOON + timedelta(minutes=1))
    planner.tick(NOON + 5.5 * HOUR)  # the clock jumps ahead
    assert {state for _, _, state in rows(ledger)} == {"skipped"}
    planner.tick(NOON + timedelta(minutes=2))  # and is corrected
    planner.tick(NOON + HOUR)
    assert rows(ledger) == [("17 13:00", "calendar", "planned")]
    assert ledger.audit.entries("clock")[0].action == "clock set back"


@pytest.mark.parametrize(("ahead", "count"), [(HOUR, 1), (timedelta(days=1), 24)])
def test_a_clock_set_forward_leaves_no_silent_gap(ledger, ahead, count):
    planner = a_planner(ledger, a_job(catch_up="none"))
    planner.tick(NOON + timedelta(minutes=1))
    planner.tick(NOON + timedelta(minutes=5) + ahead)
    found = ledger.scheduled_runs.between(NOON, NOON + 2 * ahead)
    assert len(found) == count
    assert all(f.state == "skipped" and 'missed; "catch_up" is none' in f.reason for f in found)


def test_a_clock_a_year_ahead_catches_up_nothing_and_says_so(ledger):
    planner = a_planner(ledger, a_job(catch_up="all"), a_job("other", catch_up="latest"))
    planner.tick(NOON + timedelta(minutes=1))
    ahead = NOON + timedelta(days=365, seconds=5)
    planner.tick(ahead)
    found = ledger.scheduled_runs.between(NOON, ahead)
    assert [(f.job, f.state, f.kind) for f in found] == [
        ("export", "skipped", "catch_up"),
        ("other", "skipped", "catch_up"),
        ("export", "planned", "calendar"),
        ("other", "planned", "calendar"),
    ]
    assert "more than 31 days are not caught up" in found[0].reason
    assert found[0].skipped_until == ahead - timedelta(seconds=60)
    assert "check the clock" in planner.problem


def test_a_clock_a_year_behind_fires_nothing_until_it_is_right_again(ledger):
    planner = a_planner(ledger, a_job())
    planner.tick(NOON + HOUR)
    with pytest.raises(ConfigError, match="set the clock"):
        planner.tick(NOON - timedelta(days=365))
    assert "--accept-clock" in planner.problem
    planner.tick(NOON + 2 * HOUR)
    assert planner.problem == ""
    assert [time for time, _, _ in rows(ledger)] == ["17 13:00", "17 14:00"]


def test_a_runner_does_not_start_with_a_clock_a_year_behind_unless_a_person_says_that_it_is_right(ledger):
    a_planner(ledger, a_job()).tick(NOON + HOUR)
    finish_all(ledger)
    behind = NOON - timedelta(days=365)
    with pytest.raises(ConfigError, match="a runner worked here at 2026-01-17 13:00"):
        a_planner(ledger, a_job(), now=behind, seen_at=NOON + HOUR)
    planner = a_planner(ledger, a_job(), now=behind, seen_at=NOON + HOUR, accept_clock=True)
    planner.tick(behind + HOUR)
    assert rows(ledger) == [("17 13:00", "calendar", "planned"), ("17 13:00", "calendar", "done")]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("pass"), st.integers(1, 300)),
        st.tuples(st.just("set"), st.sampled_from([-1440, -60, -7, 45, 60, 1440])),
        st.tuples(st.just("restart"), st.integers(0, 2000)),
    ),
    max_size=30,
)


@given(STEPS, st.sampled_from(["none", "latest", "all"]), st.sampled_from(["0 * * * *", "30 2 * * *", "*/20 * * * *"]))
@settings(max_examples=60)
def test_whatever_clock_and_runner_do_every_fire_until_now_has_one_row(tmp_path_factory, steps, catch_up, cron):
    job = a_job(cron=cron, catch_up=catch_up, timezone="Europe/Rome")
    start = clock = datetime(2026, 3, 28, 12, tzinfo=ZoneInfo("Europe/Rome")).astimezone(UTC)
    with Ledger(tmp_path_factory.mktemp("a") / "ledger.sqlite") as ledger:
        planner = a_planner(ledger, job, now=clock)
        latest = clock
        for what, minutes in steps:
            clock += timedelta(minutes=minutes)
            if what == "restart":
                planner = a_planner(ledger, job, now=clock, seen_at=clock - timedelta(minutes=minutes))
            planner.tick(clock)
            finish_all(ledger)
            latest = max(latest, clock)
        planner.tick(latest)
        found = [
            f.scheduled_at for f in ledger.scheduled_runs.between(start - timedelta(days=3), latest + timedelta(days=3))
        ]
    assert [moment for moment in found if moment > start] == list(scheduled_times(job, start, latest))
    assert len(set(found)) == len(found)


def test_calendars_of_every_shape_over_a_year_of_stops_and_clock_steps_equal_the_independent_table(tmp_path):
    story = sweep(calendars(20), datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC), tmp_path, seed=7)
    assert (story.missing, story.extra, story.twice, story.without_reason) == ([], [], [], 0)
    assert story.restarts > 3
    assert story.steps > 3
    assert story.scheduled_runs > 10_000


# ── requests, heartbeat, samples, audit ───────────────────────────────────────────────────────


def test_a_request_waits_is_taken_and_ends_with_its_last_fire(ledger):
    number = ledger.requests.submit("run", job="export", args={"parameters": {"DATA": "è"}}, asked_by="anna", now=NOON)
    (request,) = ledger.requests.waiting()
    assert (request.state, request.job, request.args, request.asked_by) == (
        "waiting",
        "export",
        {"parameters": {"DATA": "è"}},
        "anna",
    )
    (first, second) = ledger.scheduled_runs.plan_requested(
        "export", [NOON, NOON + HOUR], kind="request", asked_by="anna", now=NOON, request_id=number
    )
    ledger.requests.answer(number, "taken", "planned", NOON)
    assert ledger.requests.waiting() == []
    ledger.scheduled_runs.skip(first, "for a reason", NOON)
    ledger.requests.finish(number, "too early", NOON)
    assert ledger.requests.get(number).state == "taken"
    ledger.scheduled_runs.skip(second, "for a reason", NOON)
    ledger.requests.finish(number, "all ended", NOON)
    assert (ledger.requests.get(number).state, ledger.requests.get(number).answer) == ("skipped", "all ended")
    assert ledger.scheduled_runs.run_of_request(number) is None


@pytest.mark.parametrize("by", ["its last fire", "whoever looks later"])
def test_a_request_of_which_one_fire_ran_is_done_and_one_of_which_none_did_is_skipped(ledger, by):
    states = {}
    for ran in (True, False):
        number = ledger.requests.submit("backfill", job="export", asked_by="anna", now=NOON)
        ledger.requests.answer(number, "taken", "planned", NOON)
        one, other = ledger.scheduled_runs.plan_requested(
            "export", [NOON, NOON + HOUR], kind="backfill", asked_by="anna", now=NOON, request_id=number
        )
        ledger.scheduled_runs.skip(one, "the job is gone", NOON)
        if ran:
            finish_all(ledger)
        else:
            ledger.scheduled_runs.skip(other, "the job is gone", NOON)
        if by == "its last fire":
            ledger.requests.finish(number, "skipped: the job is gone", NOON)
        else:
            ledger.requests.close_ended(NOON)
        request = ledger.requests.get(number)
        states[ran] = (request.state, request.finished_at == NOON)
        if not ran:
            assert request.answer == "skipped: the job is gone"
            assert ledger.scheduled_runs.run_of_request(number) is None
    assert states == {True: ("done", True), False: ("skipped", True)}


def test_another_connections_write_is_noticed_and_ones_own_is_not(ledger):
    ledger.was_written_elsewhere()
    ledger.audit.add("anna", "disable", "job export", NOON)
    assert not ledger.was_written_elsewhere()
    with Ledger(ledger.file) as other:
        other.audit.add("anna", "enable", "job export", NOON)
    assert ledger.was_written_elsewhere()
    assert not ledger.was_written_elsewhere()


def test_the_heartbeat_says_who_works_and_goes_silent(ledger):
    assert ledger.heartbeats.newest() is None
    problems = ({"where": "a.job.json", "text": "torn", "instead": "its last valid version stays in use"},)
    beat = RunnerStatus("host", 42, 1.5, NOON, NOON, "1.0.4", 1000, 0.25, "working", 3, problems)
    ledger.heartbeats.write(beat)
    assert ledger.heartbeats.newest() == beat
    assert beat.is_alive(NOON + timedelta(seconds=14))
    assert not beat.is_alive(NOON + timedelta(seconds=16))


def test_broker_samples_are_kept_for_ninety_days(ledger):
    for days in (0, 50, 100):
        ledger.broker_samples.add(BrokerSample("rig", NOON + timedelta(days=days), days > 0, 1.5, None))
    assert [(s.connected, s.latency_ms) for s in ledger.broker_samples.since(NOON - HOUR)] == [(True, 1.5), (True, 1.5)]
    assert ledger.broker_samples.since(NOON, "another") == []


def test_the_audit_trail_tells_who_changed_what_from_what(ledger):
    ledger.audit.add("anna", "disable", "job export", NOON, before={"enabled": True}, after={"enabled": False})
    (entry,) = ledger.audit.entries("job export")
    assert (entry.who, entry.action, entry.before, entry.after) == (
        "anna",
        "disable",
        {"enabled": True},
        {"enabled": False},
    )
    assert ledger.audit.entries("job other") == []


def test_every_version_of_a_job_is_kept_and_the_newest_is_the_one_seen_last(ledger):
    for hour, sha in enumerate(["a", "b", "a"]):
        ledger.job_versions.add("export", sha, f"document {sha}", NOON + hour * HOUR)
    assert ledger.job_versions.get("export").sha256 == "a"
    assert ledger.job_versions.get("export", "b").document == "document b"
    found = [(version.sha256, version.seen_at) for version in ledger.job_versions.of_job("export")]
    assert found == [("a", NOON + 2 * HOUR), ("b", NOON + HOUR), ("a", NOON)]
    assert ledger.job_versions.get("other") is None
