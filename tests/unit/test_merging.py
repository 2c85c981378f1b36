"""Small segments are merged by job and day: no send is lost, none counts twice, and no figure changes."""

import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from core.admin.doctor import _metrics as examined
from core.records import merging
from core.records.ledger import Ledger, Outcome
from core.records.merged_segments import is_merged, names_in, segments_with, sends_in, sent_by
from core.records.merging import merge_daily, merge_small
from core.records.metrics import Metrics
from core.records.retention import Retention, roll_up
from core.records.segments import COUNTED, read_segment
from core.workspace.paths import Workspace
from tests.unit.test_ledger import a_plan
from tests.unit.test_metrics import holder
from tests.unit.test_metrics_queries import spooled
from tests.unit.test_retention import NOW, ZONE, by_day, daily

DAYS, A_DAY = 2, 4


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path)


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(merging, "FEWEST_FILES", 3)


@pytest.fixture
def metrics(workspace):
    return Metrics(workspace, ZONE)


def a_small_run(workspace, at: datetime, job: str = "j", state: str = "succeeded", ended: bool = True) -> str:
    with Ledger(workspace.ledger_file) as ledger:
        run = ledger.start(a_plan(), at)
        if ended:
            ledger.finish(run.run_id, Outcome(state, 1), at + timedelta(seconds=30))
    keys = [f"{run.run_id}-{n}".encode() for n in range(3)]
    spooled(workspace, run.run_id, [at + timedelta(seconds=n) for n in range(3)], job=job, keys=keys)
    return run.run_id


def filled(workspace, days: int = DAYS) -> list[str]:
    """Runs of each of the days before today and of today, of two jobs; returns their ids."""
    noon = NOW.replace(hour=6)
    return [
        a_small_run(workspace, noon - timedelta(days=back, minutes=n), job=f"j{n % 2}")
        for back in range(days + 1)
        for n in range(2 * A_DAY)
    ]


def every_send(metrics) -> list[tuple]:
    with metrics.reading() as db:
        return db.execute("SELECT * FROM sends ORDER BY ALL").fetchall()


def figures(workspace) -> tuple:
    """Returns all that people can ask, by a reader of its own."""
    metrics = Metrics(workspace, ZONE)
    return by_day(metrics), every_send(metrics), metrics.find(KEY[0])


KEY = [""]


def spool(workspace) -> tuple[list[str], list[str]]:
    names = sorted(path.name for path in workspace.spool_dir.glob("*.parquet"))
    return [n for n in names if is_merged(n)], [n for n in names if not is_merged(n)]


def test_each_job_and_day_before_today_is_one_segment_and_no_figure_changes(workspace, metrics):
    runs = filled(workspace)
    KEY[0] = f"{runs[-1]}-1"
    metrics.sync()
    before, days = figures(workspace), daily(workspace)
    assert len(before[2]) == 1
    done = merge_small(metrics, ZONE, NOW)
    assert (done.files, done.replaced, done.is_complete) == (2 * DAYS, 2 * DAYS * A_DAY, True)
    merged, single = spool(workspace)
    assert (len(merged), len(single)) == (2 * DAYS, 2 * A_DAY)
    assert (figures(workspace), daily(workspace)) == (before, days)
    assert merge_small(metrics, ZONE, NOW).files == 0
    metrics.rebuild()
    assert (figures(workspace), daily(workspace)) == (before, days)
    workspace.metrics_file.unlink()
    assert figures(workspace) == before
    assert Metrics(workspace, ZONE).sync().sends == 3 * len(runs)
    assert (figures(workspace), daily(workspace)) == (before, days)
    assert merge_small(metrics, ZONE, NOW).files == 0


def test_a_merged_segment_has_the_same_sends_in_every_column(workspace, metrics):
    a_day = [a_small_run(workspace, NOW - timedelta(days=1, minutes=n)) for n in range(A_DAY)]
    metrics.sync()
    before = {run: read_segment(segments_with(workspace.spool_dir, run)[0]) for run in a_day}
    totals = {run: sent_by(workspace.spool_dir, run) for run in a_day}
    listed = segments_with(workspace.spool_dir, a_day[0])
    assert merge_small(metrics, ZONE, NOW).files == 1
    (merged,) = segments_with(workspace.spool_dir, a_day[0])
    assert set(names_in(merged)) == {f"{run}-000001.parquet" for run in a_day}
    for run in a_day:
        columns = before[run].column_names
        assert sends_in(merged, run, columns).equals(before[run])
        assert sent_by(workspace.spool_dir, run) == totals[run]
    # A program that has listed the files before finds the sends too.
    assert sends_in(listed[0], a_day[0], COUNTED).equals(before[a_day[0]].select(COUNTED))


def test_what_may_still_change_or_is_large_or_few_is_left_alone(workspace, metrics, monkeypatch):
    monkeypatch.setattr(merging, "MOST_SENDS", 100)
    yesterday = NOW - timedelta(days=1)
    a_day = [a_small_run(workspace, yesterday - timedelta(minutes=n)) for n in range(A_DAY)]
    kept = [a_small_run(workspace, yesterday, state="interrupted"), a_small_run(workspace, yesterday, ended=False)]
    kept += [a_small_run(workspace, yesterday, job="few") for _ in range(merging.FEWEST_FILES - 1)]
    large = a_small_run(workspace, yesterday)
    spooled(workspace, large, [yesterday] * 101)
    for part in range(2):
        spooled(workspace, f"{a_small_run(workspace, yesterday)}-p{part}x1", [yesterday])
    metrics.sync()
    merge_small(metrics, ZONE, NOW)
    merged, single = spool(workspace)
    (file,) = merged
    assert {f"{run}-000001.parquet" for run in [*kept, large]} <= set(single)
    assert set(names_in(workspace.spool_dir / file)) == {f"{run}-000001.parquet" for run in a_day}


def test_messages_by_hand_are_merged_too_but_not_those_of_today(workspace, metrics):
    for n in range(A_DAY):
        spooled(workspace, f"{n:010x}", [NOW], job="")
    metrics.sync()
    a_day_ago = datetime.now(UTC)  # when they were copied: they have no run
    assert merge_small(metrics, ZONE, a_day_ago).files == 0
    assert merge_small(metrics, ZONE, a_day_ago + timedelta(days=1)).replaced == A_DAY


def test_many_small_segments_are_merged_500_at_a_time_and_a_pass_ends_when_its_time_is_over(
    workspace, metrics, monkeypatch
):
    monkeypatch.setattr(merging, "MOST_FILES", 3)
    filled(workspace, days=1)
    metrics.sync()
    first = merge_small(metrics, ZONE, NOW, most_s=0)  # as where planning takes all the time: one is made in any case
    assert (first.files, first.replaced, first.is_complete) == (1, 3, False)
    done = merge_small(metrics, ZONE, NOW)
    assert (done.files, done.replaced, done.is_complete) == (1, 3, True)  # one of each job is left alone
    assert len(spool(workspace)[1]) == 2 * A_DAY + 2


def test_while_another_program_has_the_file_open_nothing_is_merged_and_then_it_is(workspace, metrics):
    filled(workspace, days=1)
    metrics.sync()
    with holder(workspace.metrics_file, "read"):
        assert not merge_small(metrics, ZONE, NOW).is_complete
    merge_daily(metrics, workspace, ZONE, NOW)
    assert len(spool(workspace)[0]) == 2
    assert (workspace.state_dir / "merged.json").exists()


def test_merged_runs_are_rolled_up_together_and_their_file_is_deleted(workspace, metrics):
    filled(workspace)
    metrics.sync()
    merge_small(metrics, ZONE, NOW)
    before, days = by_day(metrics), daily(workspace)
    assert roll_up(metrics, Retention(1, ZONE), NOW).runs == 2 * A_DAY
    assert (by_day(metrics), daily(workspace)) == (before, days)
    assert len(spool(workspace)[0]) == 2
    metrics.rebuild()
    assert (by_day(metrics), daily(workspace)) == (before, days)
    # In Chicago the day begins between the last run of one job and the one before it: they wait for each other.
    assert roll_up(metrics, Retention(1, "America/Chicago"), NOW).runs == A_DAY
    assert len(spool(workspace)[0]) == 1
    assert by_day(metrics)["totals"]["messages"] == before["totals"]["messages"]


def test_parts_of_a_run_are_rolled_up_with_it(workspace, metrics):
    old = NOW - timedelta(days=40)
    with Ledger(workspace.ledger_file) as ledger:
        run = ledger.start(a_plan(), old)
        ledger.finish(run.run_id, Outcome("succeeded", 1), old + timedelta(minutes=5))
    for part in range(2):
        spooled(workspace, run.run_id, [old], keys=[b"%d" % part])
        (workspace.spool_dir / f"{run.run_id}-000001.parquet").rename(
            workspace.spool_dir / f"{run.run_id}-p{part}x1-000001.parquet"
        )
    metrics.sync()
    done = roll_up(metrics, Retention(30, ZONE), NOW)
    assert (done.runs, done.sends) == (1, 2)
    assert not list(workspace.spool_dir.glob("*.parquet"))


@pytest.mark.parametrize("merged_before", [False, True], ids=["no file merged yet", "other files merged before"])
def test_a_metrics_file_from_a_backup_counts_each_send_once(workspace, metrics, tmp_path, merged_before):
    runs = filled(workspace)
    KEY[0] = f"{runs[-1]}-1"
    if merged_before:
        metrics.sync()
        merge_small(metrics, ZONE, NOW - timedelta(days=1))
    metrics.sync(2 * A_DAY + 2)
    shutil.copy(workspace.metrics_file, tmp_path / "backup")
    metrics.sync()
    before = figures(workspace)
    assert merge_small(metrics, ZONE, NOW).files
    shutil.copy(tmp_path / "backup", workspace.metrics_file)
    assert figures(workspace) == before
    Metrics(workspace, ZONE).sync()
    assert figures(workspace) == before


def test_segments_that_come_back_from_a_backup_count_once_and_doctor_agrees(workspace, metrics, tmp_path):
    filled(workspace)
    metrics.sync()
    shutil.copytree(workspace.spool_dir, tmp_path / "spool")
    before = figures(workspace)
    merge_small(metrics, ZONE, NOW)
    shutil.copytree(tmp_path / "spool", workspace.spool_dir, dirs_exist_ok=True)
    assert figures(workspace) == before
    assert metrics.sync().sends == 0
    assert "wait" not in next(c.text for c in examined(workspace))
    merge_small(metrics, ZONE, NOW)
    assert len(spool(workspace)[1]) == 2 * A_DAY


PASS = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from core.records import merging
from core.records.metrics import Metrics
from core.workspace.paths import Workspace
from tests.rigs.killed import arm
arm(sys.argv[2])
merging.FEWEST_FILES = 3
merging.merge_small(Metrics(Workspace(Path(sys.argv[1])), "Asia/Kathmandu"), "Asia/Kathmandu",
                    datetime(2026, 11, 27, 12, tzinfo=UTC))
"""
POINTS = [
    "before:core.records.merging:write_merged:1",
    "before:core.records.segments:flush_folder:1",
    "after:core.records.merging:write_merged:1",
    "after:core.records.merging:replace_file:1",
    "before:core.records.merged_store:MergedSegments.remember:1",
    "after:core.records.merged_store:MergedSegments.remember:2",
    "after:core.records.merged_store:MergedSegments.adopt:3",
    "before:core.records.merging:_delete_replaced:3",
    "after:core.records.merging:_delete_replaced:3",
]


@pytest.mark.parametrize(
    "point", [pytest.param(p, marks=[pytest.mark.slow] if n != 4 else []) for n, p in enumerate(POINTS)]
)
def test_a_kill_at_any_step_loses_nothing_and_counts_nothing_twice(workspace, metrics, point):
    runs = filled(workspace, days=2)
    KEY[0] = f"{runs[-1]}-1"
    metrics.sync()
    before, days = figures(workspace), daily(workspace)
    killed = subprocess.run([sys.executable, "-c", PASS, str(workspace.root), point], check=False, timeout=120)
    assert killed.returncode != 0, "it was not killed"
    assert figures(workspace) == before
    for again in (
        lambda m: m.sync(),
        lambda m: merge_small(m, ZONE, NOW),
        lambda m: m.rebuild(),
        lambda m: m.sync(),
    ):
        again(Metrics(workspace, ZONE))
        assert (figures(workspace), daily(workspace)) == (before, days)
    merged, single = spool(workspace)
    assert (len(merged), len(single)) == (4, 2 * A_DAY)
    assert {path.suffix for path in workspace.spool_dir.iterdir() if path.is_file()} == {".parquet"}
