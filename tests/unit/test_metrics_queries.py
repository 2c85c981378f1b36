"""Every metric is the same before and after its sends are copied, and equals the count of the raw sends."""

from array import array
from datetime import UTC, date, datetime, timedelta
from random import Random
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from core.errors import DeliveryTimeout, MessageTooLarge, RetriesExhausted
from core.model.publisher import Batch, Delivery
from core.model.run import Reject
from core.records.ledger import Ledger, Outcome
from core.records.metrics import Metrics
from core.records.metrics_queries import SendFilter
from core.records.spool import Spool
from core.workspace.paths import Workspace
from tests.unit.test_ledger import a_plan

NOW = datetime(2026, 1, 17, 12, tzinfo=UTC)
ZONE = "Europe/Rome"
EVER = (datetime(2000, 1, 1, tzinfo=UTC), datetime(2030, 1, 1, tzinfo=UTC))


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path)


@pytest.fixture
def metrics(workspace):
    return Metrics(workspace)


def spooled(
    workspace, run_id, moments, *, job="j", topic="t", keys=None, ids=None, latencies=None, errors=None, attempts=None
):
    """One run's sends at these moments."""
    count = len(moments)
    keys = keys or [b"k%d" % i for i in range(count)]
    ids = ids or [b"%s-%d" % (run_id.encode(), i) for i in range(count)]
    delivery = Delivery.of(Batch(1, topic, keys, [b"value"] * count, ids, range(1, count + 1)))
    errors = errors or {}
    delivery.partitions = array("i", [-1 if i in errors else 0 for i in range(count)])
    delivery.offsets = array("q", range(count))
    delivery.latencies_ms = array("d", latencies or [float(i + 1) for i in range(count)])
    delivery.attempts = array("i", attempts or [1] * count)
    delivery.sent_at_us = array("q", [int(m.timestamp() * 1_000_000) for m in moments])
    delivery.errors = errors
    spool = Spool(workspace.spool_dir, run_id=run_id, job=job)
    spool.record(delivery)
    spool.close()


def asked(metrics, question):
    with metrics.figures(ZONE) as figures:
        return question(figures)


def everything(figures):
    """Returns the results of all queries."""
    return {
        "summary": figures.summary(NOW),
        "totals": figures.totals(*EVER),
        "by_topic": figures.by_topic(*EVER),
        "by_job": figures.by_job(*EVER),
        "days": figures.days(NOW, 60),
        "hours": figures.hours(*EVER),
        "usual": figures.usual(NOW),
        "usual_days": figures.usual_days(NOW),
        "errors": figures.errors(*EVER),
        "run_errors": figures.run_errors(*EVER),
        "reject_reasons": figures.reject_reasons(*EVER),
        "runs": figures.runs(*EVER),
        "latency_histogram": figures.latency_histogram("r3"),
        "find": figures.find("k1"),
        "find_beginning": figures.find_beginning("k", 500),
    }


def test_no_figure_depends_on_what_is_copied_and_a_rebuild_gives_the_same(workspace, metrics):
    random = Random(1)
    for n in range(6):
        moments = [NOW - timedelta(days=random.randrange(50), seconds=random.randrange(86_400)) for _ in range(40)]
        errors = {0: DeliveryTimeout("late"), 1: MessageTooLarge("too large")} if n % 2 else {}
        spooled(workspace, f"r{n}", moments, job=f"j{n % 3}", topic=f"t{n % 2}", errors=errors,
                latencies=[random.lognormvariate(3, 1) for _ in moments])  # fmt: skip
        if n == 2:
            metrics.sync()  # half of it is copied, half is not
    before = asked(metrics, everything)
    assert before["totals"]["messages"] == 6 * 40 - 6
    metrics.sync()
    assert asked(metrics, everything) == before
    metrics.rebuild()
    assert asked(Metrics(workspace), everything) == before


def test_percentiles_are_at_most_two_percent_from_the_exact_ones(workspace, metrics):
    random = Random(2)
    latencies = [random.lognormvariate(3, 1.5) for _ in range(5000)]
    spooled(workspace, "r1", [NOW - timedelta(hours=1)] * 5000, latencies=latencies)
    told = asked(metrics, lambda f: f.totals(*EVER))["latency_ms"]
    exact = sorted(latencies)
    for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99)):
        assert told[name] == pytest.approx(exact[round(share * 5000) - 1], rel=0.02)
    assert told["avg"] == pytest.approx(sum(latencies) / 5000, abs=0.01)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(since=st.integers(0, 7200), length=st.integers(1, 7200))
@example(since=899, length=2)  # two quarters, none of them whole
@example(since=901, length=5)  # within one quarter
@example(since=900, length=900)  # a whole one
def test_totals_of_any_period_are_exact(tmp_path_factory, since, length):
    _, metrics = a_morning(tmp_path_factory)
    begin = NOW + timedelta(seconds=since)
    told = asked(metrics, lambda f: f.totals(begin, begin + timedelta(seconds=length)))
    assert told["messages"] == sum(since <= second < since + length for second in range(0, 14_400, 7))


MORNINGS: list[tuple[Workspace, Metrics]] = []


def a_morning(tmp_path_factory):
    """One message each seven seconds for four hours; made once."""
    if not MORNINGS:
        workspace = Workspace(tmp_path_factory.mktemp("morning"))
        spooled(workspace, "r1", [NOW + timedelta(seconds=s) for s in range(0, 14_400, 7)])
        Metrics(workspace).sync()
        MORNINGS.append((workspace, Metrics(workspace)))
    return MORNINGS[0]


def test_rates_tell_failures_retries_and_time_outs_apart(workspace, metrics):
    late = RetriesExhausted("no acknowledgement", why="none within 30 s, handed over 4 times")
    late.__cause__ = DeliveryTimeout("no acknowledgement")
    spooled(workspace, "r1", [NOW] * 10, errors={3: late, 4: MessageTooLarge("too large")},
            attempts=[1, 2, 1, 4, 1, 1, 1, 1, 1, 1])  # fmt: skip
    told = asked(metrics, lambda f: f.totals(NOW, NOW + timedelta(seconds=10)))
    rates = {
        name: told[name] for name in ("success_rate", "error_rate", "retry_rate", "timeout_rate", "messages_per_s")
    }
    assert rates == {
        "success_rate": 0.8,
        "error_rate": 0.2,
        "retry_rate": 0.2,
        "timeout_rate": 0.1,
        "messages_per_s": 0.8,
    }


@pytest.mark.parametrize(("day", "hours"), [(date(2026, 3, 29), 23), (date(2026, 10, 25), 25), (date(2026, 1, 17), 24)])
def test_a_day_has_the_hours_that_it_has_in_the_zone(workspace, metrics, day, hours):
    midnight = datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(ZONE)).astimezone(UTC)
    half_hours = [midnight + timedelta(minutes=30 * n) for n in range(-4, 60)]
    spooled(workspace, "r1", half_hours)
    evening = midnight + timedelta(hours=hours - 1)
    told = asked(metrics, lambda f: {row["day"]: row["messages"] for row in f.days(evening, 1)})
    assert told[day] == 2 * hours
    by_hour = asked(metrics, lambda f: f.hours(midnight, midnight + timedelta(hours=hours)))
    assert [row["hour"] for row in by_hour] == [midnight + timedelta(hours=n) for n in range(hours)]
    assert {row["messages"] for row in by_hour} == {2}


def test_the_usual_saturday_counts_saturdays_up_to_the_same_time(workspace, metrics):
    for week in range(1, 9):
        saturday = NOW - timedelta(days=7 * week)
        spooled(workspace, f"m{week}", [saturday - timedelta(hours=1)] * (10 * week))
        spooled(workspace, f"e{week}", [saturday + timedelta(hours=3)] * 5)
        spooled(workspace, f"s{week}", [saturday + timedelta(days=1)] * 999)
    usual = asked(metrics, lambda f: f.usual(NOW))
    assert (usual.days, usual.so_far, usual.whole_day) == (8, (10, 45, 80), (15, 50, 85))
    band = asked(metrics, lambda f: f.usual_days(NOW, 3))
    assert band[date(2026, 1, 17)].whole_day == (15, 50, 85)


def test_two_saturdays_are_not_called_usual(workspace, metrics):
    for week in (1, 2):
        spooled(workspace, f"m{week}", [NOW - timedelta(days=7 * week)] * 10)
    usual = asked(metrics, lambda f: f.usual(NOW))
    assert (usual.days, usual.whole_day, usual.so_far) == (2, None, None)


def test_an_error_tells_how_many_of_its_messages_were_acknowledged_since(workspace, metrics):
    with Ledger(workspace.ledger_file) as ledger:
        first, again = ledger.start(a_plan(), NOW), ledger.start(a_plan(), NOW)
        for run in (first, again):
            ledger.finish(run.run_id, Outcome("succeeded", 3), NOW)
    ids = [b"a", b"b", b"c"]
    errors = {0: DeliveryTimeout("late"), 1: DeliveryTimeout("late"), 2: MessageTooLarge("too large")}
    spooled(workspace, first.run_id, [NOW] * 3, ids=ids, errors=errors)
    spooled(
        workspace, again.run_id, [NOW + timedelta(minutes=1)] * 3, ids=ids, errors={2: MessageTooLarge("too large")}
    )
    told = asked(metrics, lambda f: f.errors(*EVER))
    assert [(row["error"], row["count"], row["retried_ok"]) for row in told] == [("late", 2, 2), ("too large", 2, 0)]


def test_a_scope_keeps_to_its_job_topic_and_environment(workspace, metrics):
    with Ledger(workspace.ledger_file) as ledger:
        run = ledger.start(a_plan(), NOW)
    spooled(workspace, run.run_id, [NOW] * 2, job=run.job, topic=run.topic)
    spooled(workspace, "by-hand", [NOW] * 3, job="", topic="other")
    for scope, messages in ((SendFilter(), 5), (SendFilter(job=run.job), 2), (SendFilter(job=""), 3), (SendFilter(topic="other"), 3),
                            (SendFilter(cluster=run.cluster), 2), (SendFilter(cluster="nowhere"), 0)):  # fmt: skip
        assert asked(metrics, lambda f, s=scope: f.summary(NOW, s))["total_sent"] == messages


def test_end_to_end_runs_from_the_trigger_to_the_last_acknowledgement(workspace, metrics):
    with Ledger(workspace.ledger_file) as ledger:
        run = ledger.start(a_plan(asked_by="calendar"), NOW)
        ledger.finish(run.run_id, Outcome("succeeded", 2, acknowledged=2, duration_s=4.0), NOW)
    spooled(
        workspace,
        run.run_id,
        [run.scheduled_at, run.scheduled_at + timedelta(seconds=9)],
        job=run.job,
        latencies=[5.0, 500.0],
    )
    (told,) = asked(metrics, lambda f: f.runs(NOW - timedelta(days=9), NOW + timedelta(days=1)))
    assert (told["end_to_end_s"], told["rows_per_s"]) == (9.5, 0.5)
    (job,) = asked(metrics, lambda f: f.by_job(NOW - timedelta(days=9), NOW + timedelta(days=1)))
    assert (job["runs"], job["end_to_end_max_s"], job["messages"]) == (1, 9.5, 2)


KEYS = [
    "572680001120",
    "572680001121",
    "57268000",
    "5726",
    "RR123456789IT",
    "è€𝄞è€𝄞",
    "",
    "ORDER-2026-000001",
    "pqrs",
    "0123",
    "p1",
]


@pytest.mark.parametrize("copied", [True, False])
def test_each_key_is_found_by_itself_and_by_each_of_its_beginnings(workspace, metrics, copied):
    spooled(workspace, "r1", [NOW] * len(KEYS), keys=[key.encode() for key in KEYS])
    if copied:
        metrics.sync()
    with metrics.figures("UTC", counted=False) as figures:  # opened once: there are a hundred beginnings
        for key in KEYS:
            assert [row["key"] for row in figures.find(key)] == [key]
            for end in range(len(key) + 1):
                start = key[:end]
                found = {row["key"] for row in figures.find_beginning(start)}
                assert found == {other for other in KEYS if other.startswith(start)}


@pytest.mark.parametrize("copied", [True, False])
@pytest.mark.parametrize("asked", ["AB", "AB ", "AB   "])
def test_a_key_is_found_with_and_without_the_blanks_of_a_char_column(workspace, metrics, copied, asked):
    keys = [b"AB", b"AB   ", b"AB" + b" " * 255, b" AB", b"AB x", b"A", b"AB\t"]
    spooled(workspace, "r1", [NOW] * len(keys), keys=keys)
    if copied:
        metrics.sync()
    found = metrics.find(asked)
    assert sorted(row["key"] for row in found) == ["AB", "AB   ", "AB" + " " * 255]
    assert "same" not in found[0]


def test_the_start_of_a_key_finds_as_many_as_asked_for_although_other_keys_have_the_same_bits(workspace, metrics):
    """`p` and `0` are the same in 6 bits."""
    spooled(workspace, "r1", [NOW] * 40, keys=[b"p%d" % i for i in range(20)] + [b"0%d" % i for i in range(20)])
    metrics.sync()
    found = metrics.find_beginning("0", limit=15)
    assert len(found) == 15
    assert all(row["key"].startswith("0") for row in found)


def test_a_message_without_a_key_is_no_key_of_anybody(workspace, metrics):
    spooled(workspace, "r1", [NOW] * 2, keys=[None, b"k"])
    metrics.sync()
    assert [row["key"] for row in metrics.find_beginning("")] == ["k"]
    assert asked(metrics, lambda f: f.totals(*EVER))["messages"] == 2


def test_runs_are_read_on_from_the_last_copy_and_open_ones_again(workspace, metrics):
    with Ledger(workspace.ledger_file) as ledger:
        first = ledger.start(a_plan(), NOW)
        metrics.sync()
        second = ledger.start(a_plan(), NOW)
        ledger.finish(first.run_id, Outcome("succeeded", 5), NOW - timedelta(days=400))  # a clock that was set back
        metrics.sync()
        ledger.finish(second.run_id, Outcome("failed", 5), NOW)
    states = {row["run_id"]: row["state"] for row in asked(metrics, lambda f: f.runs(*EVER))}
    assert states == {first.run_id: "succeeded", second.run_id: "failed"}


def test_a_ledger_begun_anew_adds_its_runs_to_those_that_were_copied(workspace, metrics):
    for _ in range(2):
        with Ledger(workspace.ledger_file) as ledger:
            ledger.start(a_plan(), NOW)
        metrics.sync()
        workspace.ledger_file.unlink()
    with Ledger(workspace.ledger_file) as ledger:
        ledger.start(a_plan(), NOW)
    assert len(asked(metrics, lambda f: f.runs(*EVER))) == 3


def test_a_file_of_another_version_is_made_again(workspace, metrics):
    import duckdb

    spooled(workspace, "r1", [NOW] * 3)
    metrics.sync()
    with duckdb.connect(str(workspace.metrics_file)) as db:
        db.execute("UPDATE format SET hash = hash + 1")
    assert asked(metrics, lambda f: f.totals(*EVER))["messages"] == 3
    assert [row["key"] for row in metrics.find("k1")] == ["k1"]
    synced = metrics.sync()
    assert (synced.state, synced.sends) == ("rebuilt", 3)
    assert "made by another version" in synced.note
    assert [row["key"] for row in metrics.find("k1")] == ["k1"]


def test_errors_and_reasons_name_the_newest_run_that_had_them_and_rejects_count_by_day(workspace, metrics):
    with Ledger(workspace.ledger_file) as ledger:
        runs = [ledger.start(a_plan(), NOW) for _ in range(3)]
        for hours, run in zip((-60, -37, -36), runs, strict=True):
            ledger.rejects.add(run.run_id, [Reject(1, "IMPORTO", "NUMBER", "NaN has no JSON form")])
            late = Outcome("partial", 3, rejected=2, error=DeliveryTimeout("late"))
            ledger.finish(run.run_id, late, NOW + timedelta(hours=hours))
    for seconds, run in enumerate(runs):
        spooled(
            workspace, run.run_id, [NOW + timedelta(seconds=seconds)], job=run.job, errors={0: DeliveryTimeout("late")}
        )
    spooled(workspace, "by-hand", [NOW + timedelta(hours=1)], job="", errors={0: DeliveryTimeout("late")})
    newest = runs[-1].run_id
    assert [row["last_run"] for row in asked(metrics, lambda f: f.errors(*EVER))] == [newest]
    assert [row["last_run"] for row in asked(metrics, lambda f: f.run_errors(*EVER))] == [newest]
    assert [row["last_run"] for row in asked(metrics, lambda f: f.reject_reasons(*EVER))] == [newest]
    # 12:00 UTC less 37 hours is midnight in Rome, and 23:00 UTC of the day before.
    by_day = asked(metrics, lambda f: f.rejected_days(NOW, 30))
    assert by_day == {date(2026, 1, 15): 2, date(2026, 1, 16): 4}
    assert asked(metrics, lambda f: f.rejected_days(NOW, 2)) == {date(2026, 1, 16): 4}


def test_days_up_to_any_day_are_counted_whole_and_no_further(workspace, metrics):
    for day in range(10, 18):
        noon = datetime(2026, 1, day, 11, tzinfo=UTC)
        late = datetime(2026, 1, day, 23, 30, tzinfo=ZoneInfo(ZONE)).astimezone(UTC)
        spooled(workspace, f"r{day}", [noon] * day + [late])
    days = asked(metrics, lambda f: f.days(NOW, 3, last=date(2026, 1, 14)))
    assert [(row["day"].day, row["messages"]) for row in days] == [(12, 13), (13, 14), (14, 15)]
    assert sorted(asked(metrics, lambda f: f.usual_days(NOW, 2, last=date(2026, 1, 14)))) == [
        date(2026, 1, 13), date(2026, 1, 14),
    ]  # fmt: skip


@pytest.mark.parametrize("last", [date(2026, 3, 29), date(2026, 10, 25)])
def test_a_day_on_which_a_clock_changes_is_the_last_one_whole(workspace, metrics, last):
    midnight = datetime(last.year, last.month, last.day, tzinfo=ZoneInfo(ZONE)).astimezone(UTC)
    after = datetime(last.year, last.month, last.day + 1, tzinfo=ZoneInfo(ZONE)).astimezone(UTC)
    spooled(workspace, "r1", [midnight, after - timedelta(minutes=1), after])
    (row,) = asked(metrics, lambda f: f.days(after, 1, last=last))
    assert (row["day"], row["messages"]) == (last, 2)


def test_the_week_before_ends_at_the_same_time_of_day(workspace, metrics):
    ends = NOW - timedelta(days=7)
    spooled(workspace, "in", [ends - timedelta(minutes=1)] * 4 + [ends - timedelta(days=6)] * 3)
    spooled(workspace, "out", [ends + timedelta(minutes=1), ends - timedelta(days=7)])
    assert asked(metrics, lambda f: f.week_before(NOW))["messages"] == 7
    days = {"days": 2, "last": date(2026, 1, 11)}  # is over: 3 and 4 January are counted whole
    assert asked(metrics, lambda f: f.week_before(NOW, **days))["messages"] == 4
