"""The agenda and the planner: each scheduled time has one row, whatever the clock and the runner do."""

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
from core.records.agenda import Agenda, BrokerSample, NewScheduledRuns, RunnerStatus
from core.scheduler.planner import Planner

NOON = datetime(2026, 1, 17, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def a_job(slug: str = "export", cron: str = "0 * * * *", **changes) -> Job:
    changes = {"timezone": "UTC", "scheduling_mode": "cron", **changes}
    return Job(slug, slug.title(), "q.sql", "A00", cron=cron, **changes)


@pytest.fixture
def agenda(tmp_path):
    with Agenda(tmp_path / "ledger.sqlite") as opened:
        yield opened


def a_planner(agenda, *jobs, now=NOON, seen_at=None, **changes) -> Planner:
    planner = Planner(agenda, grace_s=60, longest_gap=timedelta(days=31))
    planner.open({job.slug: job for job in jobs}, now, seen_at, **changes)
    return planner


def rows(agenda, **span) -> list[tuple[str, str, str]]:
    """Scheduled hour, kind and state of each fire."""
    found = agenda.scheduled_runs(
        span.get("after", NOON - timedelta(days=400)), span.get("until", NOON + timedelta(days=800))
    )
    return [(f"{f.scheduled_at:%d %H:%M}", f.kind, f.state) for f in found]


def finish_all(agenda) -> None:
    """As if every planned fire had run."""
    agenda._db.execute("UPDATE scheduled_run SET state = 'done' WHERE state IN ('planned', 'running')")


# ── once ──────────────────────────────────────────────────────────────────────────────────────


def test_a_job_first_seen_begins_now_and_runs_no_history(agenda):
    planner = a_planner(agenda, a_job(catch_up="all"))
    assert planner.tick(NOON + timedelta(minutes=59)) == 0
    planner.tick(NOON + HOUR)
    assert rows(agenda) == [("17 13:00", "calendar", "planned")]


def test_two_planners_over_one_agenda_write_each_fire_once(agenda, tmp_path):
    with Agenda(agenda.file) as other:
        planners = [a_planner(agenda, a_job()), a_planner(other, a_job())]
        for planner in planners:
            planner.tick(NOON + HOUR)
    assert rows(agenda) == [("17 13:00", "calendar", "planned")]


def test_a_fire_belongs_to_whoever_takes_it_first(agenda):
    new = NewScheduledRuns("export", "queue", [NOON], [], [], NOON, "")
    counts = []

    def plan() -> None:
        with Agenda(agenda.file) as own:
            counts.append(own.plan([new], NOON))

    threads = [threading.Thread(target=plan) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(counts) == [0] * 7 + [1]


def test_what_could_not_be_written_comes_due_again(tmp_path):
    class Stubborn(Agenda):
        refused = 0

        def plan(self, brought, now):
            if not self.refused:
                self.refused += 1
                raise LedgerBusy("the ledger is held by another process")
            return super().plan(brought, now)

    with Stubborn(tmp_path / "ledger.sqlite") as agenda:
        planner = a_planner(agenda, a_job())
        with pytest.raises(LedgerBusy):
            planner.tick(NOON + HOUR)
        planner.tick(NOON + HOUR)
        assert rows(agenda) == [("17 13:00", "calendar", "planned")]


# ── overlap ───────────────────────────────────────────────────────────────────────────────────


def test_with_skip_a_fire_is_skipped_with_the_reason_while_the_one_before_it_is_not_done(agenda):
    planner = a_planner(agenda, a_job(overlap="skip"))
    planner.tick(NOON + HOUR)
    planner.tick(NOON + 2 * HOUR)
    assert rows(agenda) == [("17 13:00", "calendar", "planned"), ("17 14:00", "calendar", "skipped")]
    assert 'still waiting; "overlap" is skip' in agenda.scheduled_runs(NOON, NOON + 2 * HOUR)[1].reason


def test_with_queue_both_wait_and_a_job_that_runs_gives_none_to_start(agenda):
    planner = a_planner(agenda, a_job(overlap="queue"))
    planner.tick(NOON + HOUR)
    planner.tick(NOON + 2 * HOUR)
    assert [f"{f.scheduled_at:%H}" for f in agenda.startable(NOON + 2 * HOUR)] == ["13", "14"]
    agenda._db.execute("UPDATE scheduled_run SET state = 'running' WHERE scheduled_run_id = 1")
    assert agenda.startable(NOON + 2 * HOUR) == []


def test_caught_up_fires_do_not_skip_each_other_nor_the_one_on_time(agenda):
    a_planner(agenda, a_job(overlap="skip", catch_up="all"))
    planner = a_planner(agenda, a_job(overlap="skip", catch_up="all"), now=NOON + 4 * HOUR, seen_at=NOON)
    planner.tick(NOON + 4 * HOUR)
    assert rows(agenda) == [
        ("17 13:00", "catch_up", "planned"),
        ("17 14:00", "catch_up", "planned"),
        ("17 15:00", "catch_up", "planned"),
        ("17 16:00", "calendar", "planned"),
    ]


def test_asked_fires_start_first_and_backfills_last(agenda):
    a_planner(agenda, a_job()).tick(NOON + HOUR)
    agenda.plan_asked("b", [NOON], kind="backfill", asked_by="anna", now=NOON)
    agenda.plan_asked("c", [NOON], kind="request", asked_by="anna", now=NOON)
    assert [f.kind for f in agenda.startable(NOON + HOUR)] == ["request", "calendar", "backfill"]


# ── restarts, edits ───────────────────────────────────────────────────────────────────────────


def test_an_edited_calendar_counts_from_its_edit_and_the_old_one_until_then(agenda):
    planner = a_planner(agenda, a_job())
    planner.change("export", a_job(cron="*/10 * * * *"), NOON + HOUR + timedelta(minutes=35))
    planner.tick(NOON + HOUR + timedelta(minutes=45))
    assert [time for time, _, _ in rows(agenda)] == ["17 13:00", "17 13:40"]


def test_a_calendar_edited_while_no_runner_worked_counts_from_when_the_last_one_was_seen(agenda):
    a_planner(agenda, a_job())
    edited, now = a_job(cron="*/30 * * * *", catch_up="all"), NOON + 5 * HOUR
    a_planner(agenda, edited, now=now, seen_at=NOON + 4 * HOUR).tick(now)
    assert [time for time, _, _ in rows(agenda)] == ["17 16:30", "17 17:00"]


def test_a_job_disabled_and_enabled_again_catches_up_nothing_of_the_time_between(agenda):
    planner = a_planner(agenda, a_job(catch_up="all"))
    planner.change("export", a_job(catch_up="all", enabled=False), NOON + HOUR / 2)
    planner.tick(NOON + 3 * HOUR)
    planner.change("export", a_job(catch_up="all"), NOON + 3.5 * HOUR)
    planner.tick(NOON + 4 * HOUR)
    assert [time for time, _, _ in rows(agenda)] == ["17 16:00"]


def test_a_job_enabled_while_no_runner_worked_begins_now(agenda):
    a_planner(agenda, a_job(catch_up="all"))
    a_planner(agenda, a_job(catch_up="all", enabled=False), now=NOON + HOUR, seen_at=NOON)
    planner = a_planner(agenda, a_job(catch_up="all"), now=NOON + 3.5 * HOUR, seen_at=NOON + HOUR)
    planner.tick(NOON + 4 * HOUR)
    assert [time for time, _, _ in rows(agenda)] == ["17 16:00"]


# ── the clock ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("back", [HOUR, timedelta(days=1)])
def test_a_clock_set_back_runs_nothing_twice_and_goes_on_at_once(agenda, back):
    planner = a_planner(agenda, a_job())
    for hour in range(1, 31):
        planner.tick(NOON + hour * HOUR)
        finish_all(agenda)
    before = rows(agenda)
    clock = NOON + 30 * HOUR - back
    while clock < NOON + 33 * HOUR:
        planner.tick(clock)
        finish_all(agenda)
        clock += timedelta(minutes=20)
    assert rows(agenda)[: len(before)] == before
    assert [f"{f.scheduled_at:%d %H}" for f in agenda.scheduled_runs(NOON, NOON + 33 * HOUR)] == [
        f"{NOON + hour * HOUR:%d %H}" for hour in range(1, 33)
    ]


def test_what_was_skipped_under_a_clock_that_ran_ahead_runs_at_its_true_time(agenda):
    planner = a_planner(agenda, a_job(catch_up="none"))
    planner.tick(NOON + timedelta(minutes=1))
    planner.tick(NOON + 5.5 * HOUR)  # the clock leaps ahead
    assert {state for _, _, state in rows(agenda)} == {"skipped"}
    planner.tick(NOON + timedelta(minutes=2))  # and is corrected
    planner.tick(NOON + HOUR)
    assert rows(agenda) == [("17 13:00", "calendar", "planned")]
    assert agenda.audit_trail("clock")[0].action == "clock set back"


@pytest.mark.parametrize(("ahead", "count"), [(HOUR, 1), (timedelta(days=1), 24)])
def test_a_clock_set_forward_leaves_no_silent_gap(agenda, ahead, count):
    planner = a_planner(agenda, a_job(catch_up="none"))
    planner.tick(NOON + timedelta(minutes=1))
    planner.tick(NOON + timedelta(minutes=5) + ahead)
    found = agenda.scheduled_runs(NOON, NOON + 2 * ahead)
    assert len(found) == count
    assert all(f.state == "skipped" and 'missed; "catch_up" is none' in f.reason for f in found)


def test_a_clock_a_year_ahead_catches_up_nothing_and_says_so(agenda):
    planner = a_planner(agenda, a_job(catch_up="all"), a_job("other", catch_up="latest"))
    planner.tick(NOON + timedelta(minutes=1))
    ahead = NOON + timedelta(days=365, seconds=5)
    planner.tick(ahead)
    found = agenda.scheduled_runs(NOON, ahead)
    assert [(f.job, f.state, f.kind) for f in found] == [
        ("export", "skipped", "catch_up"),
        ("other", "skipped", "catch_up"),
        ("export", "planned", "calendar"),
        ("other", "planned", "calendar"),
    ]
    assert "more than 31 days are not caught up" in found[0].reason
    assert found[0].skipped_until == ahead - timedelta(seconds=60)
    assert "check the clock" in planner.problem


def test_a_clock_a_year_behind_fires_nothing_until_it_is_right_again(agenda):
    planner = a_planner(agenda, a_job())
    planner.tick(NOON + HOUR)
    with pytest.raises(ConfigError, match="set the clock"):
        planner.tick(NOON - timedelta(days=365))
    assert "--accept-clock" in planner.problem
    planner.tick(NOON + 2 * HOUR)
    assert planner.problem == ""
    assert [time for time, _, _ in rows(agenda)] == ["17 13:00", "17 14:00"]


def test_a_runner_does_not_start_with_a_clock_a_year_behind_unless_a_person_says_that_it_is_right(agenda):
    a_planner(agenda, a_job()).tick(NOON + HOUR)
    finish_all(agenda)
    behind = NOON - timedelta(days=365)
    with pytest.raises(ConfigError, match="a runner worked here at 2026-01-17 13:00"):
        a_planner(agenda, a_job(), now=behind, seen_at=NOON + HOUR)
    planner = a_planner(agenda, a_job(), now=behind, seen_at=NOON + HOUR, accept_clock=True)
    planner.tick(behind + HOUR)
    assert rows(agenda) == [("17 13:00", "calendar", "planned"), ("17 13:00", "calendar", "done")]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("pass"), st.integers(1, 300)),
        st.tuples(st.just("set"), st.sampled_from([-1440, -60, -7, 45, 60, 1440])),
        st.tuples(st.just("restart"), st.integers(0, 2000)),
    ),
    max_size=30,
)


@given(STEPS, st.sampled_from(["none", "latest", "all"]), st.sampled_from(["0 * * * *", "30 2 * * *", "*/20 * * * *"]))
@settings(max_examples=60, deadline=None)
def test_whatever_clock_and_runner_do_every_fire_until_now_has_one_row(tmp_path_factory, steps, catch_up, cron):
    job = a_job(cron=cron, catch_up=catch_up, timezone="Europe/Rome")
    start = clock = datetime(2026, 3, 28, 12, tzinfo=ZoneInfo("Europe/Rome")).astimezone(UTC)
    with Agenda(tmp_path_factory.mktemp("a") / "ledger.sqlite") as agenda:
        planner = a_planner(agenda, job, now=clock)
        latest = clock
        for what, minutes in steps:
            clock += timedelta(minutes=minutes)
            if what == "restart":
                planner = a_planner(agenda, job, now=clock, seen_at=clock - timedelta(minutes=minutes))
            planner.tick(clock)
            finish_all(agenda)
            latest = max(latest, clock)
        planner.tick(latest)
        found = [f.scheduled_at for f in agenda.scheduled_runs(start - timedelta(days=3), latest + timedelta(days=3))]
    assert [moment for moment in found if moment > start] == list(scheduled_times(job, start, latest))
    assert len(set(found)) == len(found)


def test_calendars_of_every_shape_over_a_year_of_stops_and_clock_steps_equal_the_independent_table(tmp_path):
    story = sweep(calendars(20), datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC), tmp_path, seed=7)
    assert (story.missing, story.extra, story.twice, story.without_reason) == ([], [], [], 0)
    assert story.restarts > 3
    assert story.steps > 3
    assert story.scheduled_runs > 10_000


# ── requests, heartbeat, samples, audit ───────────────────────────────────────────────────────


def test_a_request_waits_is_taken_and_ends_with_its_last_fire(agenda):
    number = agenda.ask("run", job="export", args={"parameters": {"DATA": "è"}}, asked_by="anna", now=NOON)
    (request,) = agenda.waiting_requests()
    assert (request.state, request.job, request.args, request.asked_by) == (
        "waiting",
        "export",
        {"parameters": {"DATA": "è"}},
        "anna",
    )
    (first, second) = agenda.plan_asked(
        "export", [NOON, NOON + HOUR], kind="request", asked_by="anna", now=NOON, request_id=number
    )
    agenda.take(number, "taken", "planned", NOON)
    assert agenda.waiting_requests() == []
    agenda.skip(first, "for a reason", NOON)
    agenda.finish_request(number, "too early", NOON)
    assert agenda.request(number).state == "taken"
    agenda.skip(second, "for a reason", NOON)
    agenda.finish_request(number, "all ended", NOON)
    assert (agenda.request(number).state, agenda.request(number).answer) == ("skipped", "all ended")
    assert agenda.run_of(number) is None


@pytest.mark.parametrize("by", ["its last fire", "whoever looks later"])
def test_a_request_of_which_one_fire_ran_is_done_and_one_of_which_none_did_is_skipped(agenda, by):
    states = {}
    for ran in (True, False):
        number = agenda.ask("backfill", job="export", asked_by="anna", now=NOON)
        agenda.take(number, "taken", "planned", NOON)
        one, other = agenda.plan_asked(
            "export", [NOON, NOON + HOUR], kind="backfill", asked_by="anna", now=NOON, request_id=number
        )
        agenda.skip(one, "the job is gone", NOON)
        if ran:
            finish_all(agenda)
        else:
            agenda.skip(other, "the job is gone", NOON)
        if by == "its last fire":
            agenda.finish_request(number, "skipped: the job is gone", NOON)
        else:
            agenda.close_ended_requests(NOON)
        request = agenda.request(number)
        states[ran] = (request.state, request.finished_at == NOON)
        if not ran:
            assert request.answer == "skipped: the job is gone"
            assert agenda.run_of(number) is None
    assert states == {True: ("done", True), False: ("skipped", True)}


def test_another_connections_write_is_noticed_and_ones_own_is_not(agenda):
    agenda.was_written()
    agenda.audit("anna", "disable", "job export", NOON)
    assert not agenda.was_written()
    with Agenda(agenda.file) as other:
        other.audit("anna", "enable", "job export", NOON)
    assert agenda.was_written()
    assert not agenda.was_written()


def test_the_heartbeat_says_who_works_and_goes_silent(agenda):
    assert agenda.runner() is None
    problems = ({"where": "a.job.json", "text": "torn", "instead": "its last good version goes on"},)
    beat = RunnerStatus("host", 42, 1.5, NOON, NOON, "1.0.4", 1000, 0.25, "working", 3, problems)
    agenda.beat(beat)
    assert agenda.runner() == beat
    assert beat.is_alive(NOON + timedelta(seconds=14))
    assert not beat.is_alive(NOON + timedelta(seconds=16))


def test_broker_samples_are_kept_for_ninety_days(agenda):
    for days in (0, 50, 100):
        agenda.add_broker_sample(BrokerSample("rig", NOON + timedelta(days=days), days > 0, 1.5, None))
    assert [(s.connected, s.latency_ms) for s in agenda.broker_samples(NOON - HOUR)] == [(True, 1.5), (True, 1.5)]
    assert agenda.broker_samples(NOON, "another") == []


def test_the_audit_trail_tells_who_changed_what_from_what(agenda):
    agenda.audit("anna", "disable", "job export", NOON, before={"enabled": True}, after={"enabled": False})
    (entry,) = agenda.audit_trail("job export")
    assert (entry.who, entry.action, entry.before, entry.after) == (
        "anna",
        "disable",
        {"enabled": True},
        {"enabled": False},
    )
    assert agenda.audit_trail("job other") == []


def test_every_version_of_a_job_is_kept_and_the_newest_is_the_one_seen_last(agenda):
    for hour, sha in enumerate(["a", "b", "a"]):
        agenda.add_job_version("export", sha, f"document {sha}", NOON + hour * HOUR)
    assert agenda.job_version("export").sha256 == "a"
    assert agenda.job_version("export", "b").document == "document b"
    assert [v.sha256 for v in agenda.job_versions("export")] == ["a", "b"]
    assert agenda.job_version("other") is None
