"""A run with the wrong number of rows is not green, and reports what was expected and why."""

import json
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import ConfigError, ExpectationFailed
from core.model.job import Expect, Job, RowRange
from core.model.query import Query, Step
from core.model.run import Plan
from core.records.ledger import Ledger, Outcome
from core.run.expectations import EarlierRun, expected_rows, learnt_range
from core.run.row_reader import row_count_error
from core.workspace.jobs import checked_job, load_job, save_job
from core.workspace.paths import Workspace

ROME = ZoneInfo("Europe/Rome")
TUESDAY = datetime(2026, 4, 14, 2, 0, tzinfo=ROME)
DAILY = Job("export", "Export", "q.sql", "A00", scheduling_mode="cron", cron="0 2 * * *")


def tuesdays(*counts: int) -> list[EarlierRun]:
    """One run a week before, newest last; the clock change of 29 March is among them."""
    days = [TUESDAY - timedelta(weeks=n) for n in range(len(counts), 0, -1)]
    return [EarlierRun(day.astimezone(UTC), count) for day, count in zip(days, counts, strict=True)]


# ── the learnt range ──────────────────────────────────────────────────────────────────────────


def test_no_rows_on_a_tuesday_that_always_brings_20_000_is_not_expected():
    expected = expected_rows(DAILY, TUESDAY, tuesdays(20_000, 20_400, 19_800, 20_100))
    assert expected is not None
    assert expected.rows == RowRange(10_025, 40_100)
    assert expected.why == "the last 4 runs of Tuesday 02:00 brought 19,800 to 20,400"


def test_nothing_is_said_before_four_runs_of_that_weekday():
    assert expected_rows(DAILY, TUESDAY, tuesdays(20_000, 20_400, 19_800)) is None


def test_other_weekdays_other_times_and_older_than_eight_weeks_do_not_count():
    others = [EarlierRun((TUESDAY - timedelta(days=n)).astimezone(UTC), 20_000) for n in range(1, 57) if n % 7]
    others += [EarlierRun((TUESDAY - timedelta(weeks=n, hours=1)).astimezone(UTC), 20_000) for n in range(1, 9)]
    others += [EarlierRun((TUESDAY - timedelta(weeks=n)).astimezone(UTC), 20_000) for n in range(9, 20)]
    assert expected_rows(DAILY, TUESDAY, others) is None


def test_eight_weeks_reach_over_the_clock_change():
    expected = expected_rows(DAILY, TUESDAY, tuesdays(*[20_000] * 8))
    assert expected is not None
    assert expected.why.startswith("the last 8 runs")


def test_three_odd_days_of_eight_do_not_widen_the_range():
    assert learnt_range([20_000, 20_300, 0, 19_900, 20_100, 0, 0, 20_200]).min >= 9_000


def test_a_job_of_a_few_rows_a_day_may_have_none():
    assert learnt_range([3, 2, 4, 3, 5]).min == 0


def test_after_a_lasting_change_the_range_follows():
    counts = [20_000] * 3 + [60_000] * 5
    assert learnt_range(counts[:4]).max < 60_000 <= learnt_range(counts).max


@given(st.lists(st.integers(0, 10**7), min_size=4, max_size=60))
def test_the_middle_of_what_was_seen_is_always_right(counts):
    learnt = learnt_range(counts)
    middle = sorted(counts)[len(counts) // 2]
    assert learnt.max >= learnt.min >= 0
    assert sum(learnt.min <= count <= learnt.max for count in counts) * 2 >= len(counts)
    assert learnt_range([middle] * 4).min <= middle <= learnt_range([middle] * 4).max


def test_numbers_in_the_job_outrank_what_was_learnt_and_learning_can_be_off():
    job = Job("j", "J", "q.sql", "A", scheduling_mode="cron", cron="0 2 * * *", expect=Expect(RowRange(1, None)))
    assert expected_rows(job, TUESDAY, tuesdays(5, 5, 5, 5)).rows == RowRange(1, None)
    off = Job("j", "J", "q.sql", "A", scheduling_mode="cron", cron="0 2 * * *", expect=Expect(learn=False))
    assert expected_rows(off, TUESDAY, tuesdays(20_000, 20_000, 20_000, 20_000)) is None
    manual = Job("j", "J", "q.sql", "A")
    assert expected_rows(manual, TUESDAY, tuesdays(20_000, 20_000, 20_000, 20_000)) is None


# ── where the numbers come from ───────────────────────────────────────────────────────────────


def plan(at: datetime, **changes) -> Plan:
    return Plan(DAILY, Query("q.sql", (Step("select 1"),), {}, "ab" * 32), "rig", "t", at, 100, **changes)


def test_the_newest_whole_run_of_each_scheduled_time_counts(tmp_path):
    with Ledger(tmp_path / "ledger.sqlite") as ledger:

        def ran(weeks: int, state: str, rows: int, error=None) -> None:
            at = TUESDAY - timedelta(weeks=weeks)
            run = ledger.start(plan(at), at)
            ledger.finish(run.run_id, Outcome(state, rows_read=rows, error=error), at)

        ran(4, "succeeded", 100)
        ran(3, "succeeded", 7)
        ran(3, "succeeded", 200)
        ran(2, "failed", 9, ConfigError("broken off in the middle"))
        ran(1, "partial", 300, ExpectationFailed("300 rows where 0 to 250 are expected"))
        ran(0, "succeeded", 400)
        found = ledger.history.row_counts("export", TUESDAY - timedelta(weeks=8), TUESDAY)
    assert sorted(rows for _, rows in found) == [100, 200, 300]
    assert all(at.tzinfo is not None for at, _ in found)


# ── the verdict ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("expected", "rows", "text"),
    [
        (RowRange(15_000, 30_000), 0, "0 rows where 15,000 to 30,000 are expected: expect.rows"),
        (RowRange(15_000, 30_000), 30_001, "30,001 rows where 15,000 to 30,000 are expected: expect.rows"),
        (RowRange(15_000, None), 14_999, "14,999 rows where at least 15,000 are expected: expect.rows"),
        (RowRange(None, 0), 1, "1 row where 0 to 0 are expected: expect.rows"),
    ],
)
def test_what_is_not_expected_says_so_and_what_to_do(expected, rows, text):
    error = row_count_error(plan(TUESDAY, expected=expected, expected_why="expect.rows"), rows)
    assert error is not None
    assert error.text == text
    assert "export.job.json" in error.remedy
    assert not error.is_retriable


@pytest.mark.parametrize("rows", [15_000, 30_000, 20_000])
def test_both_bounds_are_right_themselves(rows):
    assert row_count_error(plan(TUESDAY, expected=RowRange(15_000, 30_000)), rows) is None


def test_without_an_expectation_any_number_is_right():
    assert row_count_error(plan(TUESDAY), 0) is None


# ── the job file ──────────────────────────────────────────────────────────────────────────────


def written(folder, **changes):
    path = folder / "export.job.json"
    path.write_text(json.dumps({"name": "E", "query": "q.sql", "connection": "A", **changes}, indent=1), "utf-8")
    return path


def test_the_job_file_of_the_issue_is_read_and_saved_again(tmp_path):
    (tmp_path / "queries").mkdir()
    expect = {"rows": {"min": 15000, "max": 30000}, "by": "07:00"}
    path = written(tmp_path / "queries", expect=expect, on_drift="warn")
    job = load_job(path)
    assert (job.expect, job.on_drift) == (Expect(RowRange(15_000, 30_000), by="07:00"), "warn")
    save_job(Workspace(tmp_path), job)
    assert load_job(path) == job


@pytest.mark.parametrize(
    ("changes", "key", "words"),
    [
        ({"expect": {"rows": {"mn": 1}}}, "expect.rows.mn", 'did you mean "min"?'),
        ({"expect": {"row": {}}}, "expect.row", 'did you mean "rows"?'),
        ({"expect": {"by": "7:00"}}, "expect.by", "write a time of the day as 07:00"),
        ({"expect": {"by": "24:00"}}, "expect.by", "write a time of the day as 07:00"),
        ({"expect": {"rows": {"min": -1}}}, "expect.rows.min", "greater than or equal to 0"),
        ({"expect": {"rows": {"min": 9, "max": 3}}}, "expect.rows", "min 9 is more than max 3"),
        ({"expect": {"rows": {"min": "9"}}}, "expect.rows.min", "valid integer"),
        ({"on_drift": "halt"}, "on_drift", "'stop', 'warn' or 'ignore'"),
    ],
)
def test_a_wrong_key_or_value_is_named_with_its_line(tmp_path, changes, key, words):
    file = written(tmp_path, **changes)
    _, (problem,) = checked_job(file, file.read_text(encoding="utf-8"))
    assert (problem.key, problem.line is not None and problem.line > 4) == (key, True)
    assert words in str(problem)
