"""Sends older than the retention are counted by day for ever: nothing is lost and nothing counts twice."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from random import Random
from types import SimpleNamespace

import duckdb
import pytest

from core.errors import ConfigError, DeliveryTimeout
from core.records.ledger import Ledger, Outcome
from core.records.metrics import Metrics
from core.records.metrics_queries import SendFilter
from core.records.retention import Retention, roll_up, roll_up_daily
from core.run.known_sends import require_known
from core.workspace.paths import Workspace
from core.workspace.settings import Settings
from tests.rigs.sweeps import sweep
from tests.rigs.workspace import environment, run_command
from tests.unit.test_ledger import a_plan
from tests.unit.test_metrics import count, holder
from tests.unit.test_metrics_queries import spooled

ZONE = "Asia/Kathmandu"  # +05:45: its days begin at a quarter-hour of UTC
NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)
KEEP_30 = Retention(30, ZONE)


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path)


@pytest.fixture
def metrics(workspace):
    return Metrics(workspace, ZONE)


def a_run(workspace, started: datetime, job: str = "j") -> str:
    with Ledger(workspace.ledger_file) as ledger:
        run = ledger.start(a_plan(), started)
        ledger.finish(run.run_id, Outcome("succeeded", 1), started + timedelta(minutes=5))
    return run.run_id


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """Sends of 60 days: by hand, of runs, of two jobs, failed, late at night and at clock changes; all are copied."""
    workspace, random = Workspace(tmp_path_factory.mktemp("full")), Random(1)
    for back in range(60):
        start = NOW - timedelta(days=back, seconds=random.randrange(86_400))
        moments = [start + timedelta(seconds=random.randrange(20_000)) for _ in range(20)]
        errors = {3: DeliveryTimeout("late")} if back % 3 else {}
        run_id = a_run(workspace, start) if back % 4 else f"hand{back}"
        spooled(workspace, run_id, moments, job=f"j{back % 2}" if back % 4 else "", topic=f"t{back % 3}", errors=errors,
                keys=[b"%d-%d" % (back, n) for n in range(20)], attempts=[1 + (n % 7 == 0) for n in range(20)],
                latencies=[random.lognormvariate(3, 1) for _ in moments])  # fmt: skip
    Metrics(workspace, ZONE).sync()
    return workspace


@pytest.fixture
def filled(full, workspace) -> None:
    """A copy of it as the workspace of the test."""
    shutil.copytree(full.root, workspace.root, dirs_exist_ok=True)


def by_day(metrics) -> dict:
    """Returns every figure of whole days."""
    with metrics.figures(ZONE) as figures:
        since, until = figures.midnight(NOW, days=-70), figures.midnight(NOW, days=1)
        middle = figures.midnight(NOW, days=-40)
        environments = [SendFilter(cluster=name) for name in ("collaudo", "Kafka Collaudo", "nowhere")]
        return {
            "totals": figures.totals(since, until),
            "of a job": figures.totals(since, until, SendFilter(job="j1")),
            "of environments": [figures.totals(since, until, scope) for scope in environments],
            "old": figures.totals(since, middle),
            "new": figures.totals(middle, until),
            "topics": figures.by_topic(since, until),
            "jobs": [{n: v for n, v in row.items() if "end_to_end" not in n} for row in figures.by_job(since, until)],
            "pairs": figures.by_job_and_topic(since, until),
            "days": figures.days(NOW, 70),
            "of a topic": figures.days(NOW, 70, SendFilter(topic="t1")),
            "bands": figures.usual_days(NOW, 5),
            "latencies": figures.latency_counts(since, middle),
            "summary": {n: v for n, v in figures.summary(NOW).items() if n not in ("recent_errors", "known_since")},
        }


def daily(workspace) -> list[tuple]:
    with duckdb.connect(str(workspace.metrics_file), read_only=True) as file:
        return file.execute("SELECT * FROM daily ORDER BY ALL").fetchall()


def test_every_figure_of_whole_days_is_as_before_and_after_a_rebuild_too(workspace, metrics, filled):
    before, days, sends = by_day(metrics), daily(workspace), count(metrics)
    done = roll_up(metrics, KEEP_30, NOW)
    assert (done.state, done.note) == ("done", "")
    assert done.sends == 20 * done.runs == sends - count(metrics) > 500
    assert (by_day(metrics), daily(workspace)) == (before, days)
    assert roll_up(metrics, KEEP_30, NOW).runs == 0
    metrics.rebuild()
    assert (by_day(Metrics(workspace, ZONE)), daily(workspace)) == (before, days)
    workspace.metrics_file.unlink()
    assert by_day(Metrics(workspace, ZONE)) == before
    Metrics(workspace, ZONE).sync()
    assert (by_day(metrics), daily(workspace)) == (before, days)


def test_days_are_rolled_up_one_after_another_as_time_goes_on(workspace, metrics, filled):
    before, days = by_day(metrics), daily(workspace)
    for later in (0, 1, 2, 9):
        done = roll_up(metrics, KEEP_30, NOW + timedelta(days=later))
        assert done.runs
        assert done.known_since.days == {None: date(2026, 10, 28) + timedelta(days=later)}
        assert (by_day(metrics), daily(workspace)) == (before, days)
    assert roll_up(metrics, Retention(400, ZONE), NOW).known_since.of() == date(2026, 11, 6)


def test_single_sends_are_whole_since_the_day_that_is_named(workspace, metrics, filled):
    since = roll_up(metrics, KEEP_30, NOW).known_since.of()
    begins = datetime(since.year, since.month, since.day, tzinfo=UTC) - timedelta(hours=5, minutes=45)
    for back in range(60):
        found = metrics.find(f"{back}-0")
        sent_before = NOW - timedelta(days=back, seconds=86_400) < begins
        assert found or sent_before
        assert all(send["key"] == f"{back}-0" for send in found)
    assert not metrics.find("59-0")
    assert metrics.rolled_up.known_since().text == f"single sends are known since {since}"


def test_a_job_keeps_its_sends_longer_or_shorter_or_for_ever(workspace, metrics, filled):
    before = by_day(metrics)
    done = roll_up(metrics, Retention(30, ZONE, {"j0": 0, "j1": 10}), NOW)
    known = done.known_since
    assert [known.of(job) for job in (None, "j0", "j1", "j2")] == [
        date(2026, 10, 28), None, date(2026, 11, 17), date(2026, 10, 28)]  # fmt: skip
    assert known.text == "single sends are known since 2026-10-28, of job j1 since 2026-11-17, of job j0 all of them"
    assert by_day(metrics) == before
    oldest = dict(
        metrics.answer(lambda db: db.execute("SELECT job, min(sent_at)::DATE FROM sends GROUP BY job").fetchall())
    )
    assert oldest["j1"] >= date(2026, 11, 16) > oldest[""] > date(2026, 10, 26) > oldest["j0"]


def test_nothing_is_rolled_up_where_sends_are_kept_for_ever(workspace, metrics, filled):
    assert roll_up(metrics, Retention(0, ZONE), NOW).runs == 0
    assert metrics.rolled_up.known_since().text == ""
    assert not metrics.rolled_up.exists


def test_a_run_that_goes_on_or_waits_to_be_copied_is_left_alone(workspace, metrics):
    old = NOW - timedelta(days=50)
    spooled(workspace, "waits", [old])
    metrics.sync()
    with Ledger(workspace.ledger_file) as ledger:
        open_run = ledger.start(a_plan(), old).run_id
    spooled(workspace, open_run, [old])
    metrics.sync()
    (workspace.spool_dir / "waits-000002.parquet").write_bytes(
        (workspace.spool_dir / "waits-000001.parquet").read_bytes()
    )
    assert roll_up(metrics, KEEP_30, NOW).runs == 0
    assert count(metrics) == 3


def test_a_segment_put_back_from_a_backup_does_not_count_twice(workspace, metrics, filled):
    kept = {path.name: path.read_bytes() for path in workspace.spool_dir.glob("*.parquet")}
    stored = workspace.metrics_file.read_bytes()
    before = by_day(metrics)
    roll_up(metrics, KEEP_30, NOW)
    for name, content in kept.items():
        (workspace.spool_dir / name).write_bytes(content)
    assert by_day(metrics) == before
    metrics.sync()
    metrics.rebuild()
    assert by_day(metrics) == before
    workspace.metrics_file.write_bytes(stored)  # a database of before the roll-up
    assert by_day(Metrics(workspace, ZONE)) == before
    Metrics(workspace, ZONE).sync()
    assert by_day(Metrics(workspace, ZONE)) == before
    assert not metrics.find("59-0")


def test_the_counts_of_old_days_survive_the_loss_of_their_file(workspace, metrics, filled):
    before = by_day(metrics)
    roll_up(metrics, KEEP_30, NOW)
    metrics.rolled_up.file.unlink()
    metrics.sync()
    assert by_day(metrics) == before
    metrics.rebuild()
    assert by_day(Metrics(workspace, ZONE)) == before
    assert metrics.rolled_up.known_since().of() == date(2026, 10, 28)
    metrics.rolled_up.file.unlink()
    assert roll_up(metrics, Retention(10, ZONE), NOW).runs
    metrics.rebuild()
    assert by_day(Metrics(workspace, ZONE)) == before


def test_a_program_that_has_the_file_open_delays_the_roll_up(workspace, metrics, filled):
    before = by_day(metrics)
    with holder(workspace.metrics_file, "read"):
        done = roll_up(metrics, KEEP_30, NOW)
        assert done.state == "held"
        assert "is open in another program" in done.note
        assert by_day(metrics) == before
    assert roll_up(metrics, KEEP_30, NOW).runs
    assert by_day(metrics) == before


PASS = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from core.records import retention
from core.records.metrics import Metrics
from core.workspace.paths import Workspace
from tests.rigs.killed import arm
retention.WORTH_BYTES = retention.WORTH_SHARE = 0
arm(sys.argv[2])
retention.roll_up(Metrics(Workspace(Path(sys.argv[1])), "Asia/Kathmandu"), retention.Retention(30, "Asia/Kathmandu"),
                  datetime(2026, 11, 27, 12, tzinfo=UTC))
"""
POINTS = [
    "before:core.records.rolled_up:RolledUp.write:1",
    "before:core.records.rolled_up:replace_file:1",
    "after:core.records.rolled_up:replace_file:1",
    "after:core.records.rolled_up:RolledUp.write:1",
    "before:core.records.rolled_up:RolledUp.insert:1",
    "after:core.records.rolled_up:RolledUp.insert:1",
    "after:core.records.rolled_up:RolledUp.apply:2",
    "before:core.records.retention:_delete_segments:1",
    "after:core.records.retention:_delete_segments:1",
    "after:core.records.retention:_rewrite:1",
    "before:core.records.retention:replace_file:1",
    "after:core.records.retention:replace_file:1",
]


@pytest.mark.parametrize("point", sweep(POINTS, always=[POINTS[6], POINTS[8]]))
def test_a_kill_at_any_step_loses_nothing_and_counts_nothing_twice(workspace, metrics, point, filled):
    before, days = by_day(metrics), daily(workspace)
    killed = subprocess.run([sys.executable, "-c", PASS, str(workspace.root), point], check=False, timeout=120)
    assert killed.returncode != 0, "it was not killed"
    assert by_day(Metrics(workspace, ZONE)) == before
    for again in (lambda m: m.sync(), lambda m: roll_up(m, KEEP_30, NOW), lambda m: m.rebuild()):
        again(Metrics(workspace, ZONE))
        assert (by_day(Metrics(workspace, ZONE)), daily(workspace)) == (before, days)
    assert not metrics.find("59-0")
    assert roll_up(metrics, KEEP_30, NOW).runs == 0
    left = {path.name for path in workspace.spool_dir.iterdir() if path.is_file()}
    assert not left & metrics.rolled_up.replaced_segments()
    assert os.listdir(metrics.rolled_up.file.parent) == ["days.parquet"]


def test_the_file_becomes_smaller_and_answers_the_same(workspace, metrics, monkeypatch):
    monkeypatch.setattr("core.records.retention.WORTH_BYTES", 100_000)
    for back in range(60):
        moments = [NOW - timedelta(days=back)] * 5_000
        spooled(workspace, f"r{back}", moments, keys=[os.urandom(24).hex().encode() for _ in moments])
    metrics.sync()
    size, before = workspace.metrics_file.stat().st_size, by_day(metrics)
    with holder(workspace.metrics_file, "read"):
        assert roll_up(metrics, Retention(10, ZONE), NOW).state == "held"
    assert roll_up(metrics, Retention(10, ZONE), NOW).note == ""
    assert workspace.metrics_file.stat().st_size < size / 3
    assert by_day(metrics) == before


def by_command(workspace, *words: str, code: int = 0) -> dict:
    env = environment(measured=True, PSTT_TIMEZONE=ZONE, PSTT_KEEP_SENDS_DAYS="30")
    done = run_command(*words, "--workspace", workspace.root, "--json", env=env, cwd=workspace.root)
    assert done.returncode == code, (words, done.stdout, done.stderr)
    return json.loads(done.stdout)


def an_old_run(workspace, metrics) -> str:
    run_id = a_run(workspace, datetime.now(UTC) - timedelta(days=100))
    spooled(workspace, run_id, [datetime.now(UTC) - timedelta(days=100)] * 3)
    spooled(workspace, "hand", [datetime.now(UTC) - timedelta(days=1)] * 3, keys=[b"new"] * 3)
    metrics.sync()
    return run_id


def test_the_command_rolls_up_and_every_answer_says_since_when_sends_are_known(workspace, metrics):
    an_old_run(workspace, metrics)
    assert by_command(workspace, "find", "k1")["known_since"] is None
    done = by_command(workspace, "metrics", "roll-up")
    since = done["known_since"]
    assert (done["state"], done["runs"], done["sends"], date.fromisoformat(since) < NOW.date()) == ("done", 1, 3, True)
    assert by_command(workspace, "find", "k1", code=1)["known_since"] == since
    summary = by_command(workspace, "metrics", "summary")
    assert (summary["total_sent"], summary["known_since"]) == (6, since)
    with Ledger(workspace.ledger_file) as ledger:
        assert [entry.action for entry in ledger.audit.entries(limit=1)] == ["roll up"]


def test_what_needs_single_sends_of_a_rolled_up_run_is_refused(workspace, metrics):
    run_id = an_old_run(workspace, metrics)
    roll_up(metrics, KEEP_30, datetime.now(UTC))
    opened = SimpleNamespace(metrics=metrics)
    require_known(opened, ["hand"], "run hand cannot be verified")
    with pytest.raises(ConfigError, match=rf"run {run_id} cannot be verified: its sends are only counted by day now; single "
                                          r"sends are known since 20\d\d-"):  # fmt: skip
        require_known(opened, [run_id], f"run {run_id} cannot be verified")


def test_a_copy_rolls_up_once_a_day_and_when_the_retention_changed(workspace, metrics):
    an_old_run(workspace, metrics)
    now, settings = datetime.now(UTC), Settings(PSTT_TIMEZONE=ZONE, PSTT_KEEP_SENDS_DAYS=200)
    roll_up_daily(metrics, workspace, settings, now)
    assert not metrics.rolled_up.exists
    shorter = Settings(PSTT_TIMEZONE=ZONE, PSTT_KEEP_SENDS_DAYS=99)
    roll_up_daily(metrics, workspace, shorter, now)
    assert not metrics.find("k1")
    spooled(workspace, "late", [now - timedelta(days=101)], keys=[b"late"])
    metrics.sync()
    roll_up_daily(metrics, workspace, shorter, now)
    assert metrics.find("late")
    roll_up_daily(metrics, workspace, shorter, now + timedelta(days=1))
    assert not metrics.find("late")


def test_runs_of_a_year_are_copied_in_little_memory(workspace, metrics):
    a_run(workspace, NOW)
    with sqlite3.connect(workspace.ledger_file) as db:
        names = ", ".join(name for _, name, *_ in db.execute("PRAGMA table_info(run)") if name != "run_id")
        numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 40000)"
        rows = f"SELECT hex(randomblob(5)), {names} FROM run, n"
        db.execute(f"{numbers} INSERT INTO run (run_id, {names}) {rows}")
    db.close()
    metrics.sync()
    assert metrics.answer(lambda db: db.execute("SELECT count(*) FROM runs").fetchone()) == (40_001,)
