"""The runner on a virtual clock: what it starts, how it treats each ending, and its requests."""

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import psutil
import pytest

from core.admin.edit_queries import query_versions
from core.errors import BrokerUnavailable, ConfigError, LedgerBusy, PsttError, QueryFailed, RunTimedOut
from core.model.query import Query, Step
from core.model.run import Plan
from core.records.ledger import Ledger, Outcome
from core.run.watchdog import RUNNER_STOPS, broken_off
from core.scheduler.backfills import backfill
from core.scheduler.commands import cancel_job, cancel_run, set_job_enabled
from core.scheduler.dry_runs import DryRuns
from core.scheduler.kept_files import CHECKED_EVERY_S, MOST_BYTES
from core.scheduler.metrics_copies import MetricsCopies
from core.scheduler.processes import BUSY
from core.scheduler.runner import Runner
from core.workspace.identity import own_identity, resolve_identity
from core.workspace.jobs import parse_job
from core.workspace.paths import Workspace
from core.workspace.process import LOW_PRIORITY, begin_process
from core.workspace.settings import Settings
from tests.rigs.callers import caller

NOON = datetime(2026, 1, 17, 12, tzinfo=UTC)
HOUR, SECOND = timedelta(hours=1), timedelta(seconds=1)


class Clock:
    """Blocks until the test releases it."""

    def __init__(self) -> None:
        self.at = NOON

    def __call__(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return (self.at - NOON).total_seconds()


@dataclass
class Worker:
    """A running process of a scheduled run, which ends when the test says so."""

    hands: "Hands"
    scheduled_run_id: int
    run_id: str | None = None
    code: int | None = None
    words: str = ""
    is_killed: bool = False

    def poll(self) -> int | None:
        return self.code

    def kill(self) -> None:
        self.is_killed = True
        self.leaves(-9)

    def last_words(self) -> str:
        return self.words

    def begins(self) -> None:
        """Takes the scheduled run, as a process does before it reads a row."""
        scheduled_run = self.hands.ledger.scheduled_runs.get(self.scheduled_run_id)
        version = self.hands.ledger.job_versions.get(scheduled_run.job, scheduled_run.job_sha256)
        job = parse_job(self.hands.workspace.queries_dir / f"{scheduled_run.job}.job.json", version.document)
        query = Query("q.sql", (Step("select 1"),), {}, "ab" * 32)
        plan = Plan(
            job,
            query,
            "rig",
            "t",
            scheduled_run.scheduled_at,
            100,
            scheduled_run_id=scheduled_run.scheduled_run_id,
            job_sha256=scheduled_run.job_sha256,
        )
        self.run_id = self.hands.ledger.start(plan, self.hands.clock()).run_id

    def ends(self, state: str = "succeeded", error: PsttError | None = None) -> None:
        """Writes the verdict and ends."""
        if self.run_id is None:
            self.begins()
        self.hands.ledger.finish(self.run_id, Outcome(state, error=error), self.hands.clock())
        self.code = 0

    def leaves(self, code: int, words: str = "") -> None:
        """Ends without a verdict; its pid is then unused."""
        self.code, self.words = code, words
        if self.run_id:
            self.hands.ledger._db.execute("UPDATE run SET pid_started_at = 0 WHERE run_id = ?", [self.run_id])


@dataclass
class Hands:
    """Workers that do nothing by themselves."""

    workspace: Workspace
    ledger: Ledger
    clock: Clock
    started: list[Worker] = field(default_factory=list)

    def warm(self, count: int) -> None:
        raise AssertionError("only the loop around the ticks makes processes ready")

    def cool(self) -> None:
        """Whether no process was started ahead."""

    def start(self, scheduled_run_id: int) -> Worker:
        self.started.append(Worker(self, scheduled_run_id))
        return self.started[-1]

    def start_day(self, scheduled_run_id: int) -> Worker:
        return self.start(scheduled_run_id)

    def release_days(self) -> None:
        """No process is kept for backfills."""

    @property
    def last(self) -> Worker:
        return self.started[-1]


class Ended:
    """A process that has copied sends by the time it is asked; tests/unit/test_metrics_copies.py has real ones."""

    def poll(self) -> int:
        return 0


@dataclass
class Stage:
    """A workspace with its runner; `go` moves the clock."""

    workspace: Workspace
    ledger: Ledger
    clock: Clock
    hands: Hands
    runner: Runner
    settings: dict
    copies: list[bool] = field(default_factory=list)
    """Whether each process that copies was started at a low priority."""

    def begin_copy(self, words: list[str], *, priority: int | None, **_: object) -> "Ended":
        self.copies.append(priority == LOW_PRIORITY)
        return Ended()

    def go(self, span: timedelta = SECOND) -> None:
        self.clock.at += span
        self.runner.tick()

    def write(self, slug: str = "export", **changes) -> None:
        document = {
            "name": slug.title(),
            "query": "q.sql",
            "connection": "A00",
            "scheduling_mode": "cron",
            "cron": "0 * * * *",
            "timezone": "UTC",
            **changes,
        }
        self.write_text(json.dumps(document), slug)

    def write_text(self, text: str, slug: str = "export") -> None:
        (self.workspace.queries_dir / f"{slug}.job.json").write_text(text, encoding="utf-8")

    def restart(self, **changes) -> None:
        settings = Settings(**{**self.settings, **changes})
        self.copies.clear()
        self.runner = Runner(
            self.workspace,
            settings,
            self.ledger,
            self.hands,
            dry_runs=DryRuns(self.workspace.root, self.ledger, begin_process, settings.PSTT_WORKERS),
            copies=MetricsCopies(self.workspace, self.ledger, self.begin_copy, self.clock.monotonic),
            now=self.clock,
            monotonic=self.clock.monotonic,
        )
        self.runner.begin()

    def scheduled_runs(self, job: str | None = None) -> list[tuple[str, str]]:
        found = self.ledger.scheduled_runs.between(NOON - timedelta(days=30), NOON + timedelta(days=30), job)
        return [(f"{scheduled_run.scheduled_at:%H:%M}", scheduled_run.state) for scheduled_run in found]


@pytest.fixture
def stage(tmp_path):
    (tmp_path / "queries").mkdir()
    workspace, clock = Workspace(tmp_path), Clock()
    with Ledger(workspace.ledger_file) as ledger:
        hands = Hands(workspace, ledger, clock)
        made = Stage(workspace, ledger, clock, hands, None, {})
        made.write()
        made.restart()
        yield made


# ── copying sends ─────────────────────────────────────────────────────────────────────────────


def test_sends_are_copied_after_a_run_and_not_while_the_next_is_near(stage):
    stage.write(cron="*/2 * * * *")
    stage.go()
    stage.go(119 * SECOND)
    stage.hands.last.begins()
    for _ in range(30):
        stage.go()
    assert stage.copies == []  # a run goes on
    stage.hands.last.ends()
    for _ in range(10):
        stage.go()
    assert stage.copies == [True]
    for _ in range(70):
        stage.go()
    assert stage.copies == [True]  # nothing waits
    refused = {"scheduled_run_id": None, "job_sha256": "", "asked_by": "anna"}
    stage.ledger.refuse(stage.runner.jobs()[0], NOON, QueryFailed("no"), stage.clock(), **refused)
    for _ in range(8):
        stage.go()  # to 12:03:58
    assert stage.copies == [True]
    assert len(stage.hands.started) == 1


def test_a_runner_that_ends_copies_what_waits_once_its_runs_have_ended(stage):
    stage.go(HOUR)
    stage.hands.last.ends()
    stage.go()
    stage.runner.end()
    assert stage.copies == [False]
    assert stage.ledger.heartbeats.newest().state == "stopped"


def test_a_runner_that_is_to_end_at_once_copies_nothing(stage):
    stage.go(HOUR)
    stage.hands.last.ends()
    stage.go()
    stage.runner.end(at_once=True)
    assert stage.copies == []


# ── from a fire to its verdict ────────────────────────────────────────────────────────────────


def test_a_fire_is_written_started_with_the_version_on_disk_and_done_with_its_run(stage):
    stage.go(HOUR)
    (scheduled_run,) = stage.ledger.scheduled_runs.between(NOON, NOON + HOUR)
    assert scheduled_run.state == "planned"
    assert stage.ledger.job_versions.get("export", scheduled_run.job_sha256).document == (
        stage.workspace.queries_dir / "export.job.json"
    ).read_text(encoding="utf-8")
    stage.hands.last.ends()
    stage.go()
    run = stage.ledger.run(stage.ledger.scheduled_runs.get(scheduled_run.scheduled_run_id).run_id)
    assert (run.state, run.scheduled_run_id, run.job_sha256, run.scheduled_at) == (
        "succeeded",
        scheduled_run.scheduled_run_id,
        scheduled_run.job_sha256,
        NOON + HOUR,
    )
    assert stage.scheduled_runs() == [("13:00", "done")]


def test_no_more_runs_at_once_than_there_are_workers_and_the_next_begins_when_one_ends(stage):
    for n in range(5):
        stage.write(f"job{n}")
    stage.restart(PSTT_WORKERS=2)
    stage.go(HOUR)
    assert len(stage.hands.started) == 2
    stage.hands.started[0].ends()
    stage.go()
    assert len(stage.hands.started) == 3


def test_a_job_never_runs_beside_itself(stage):
    stage.write(overlap="queue")
    stage.go()
    stage.go(HOUR)
    stage.hands.last.begins()
    stage.go(HOUR)
    assert len(stage.hands.started) == 1
    assert [state for _, state in stage.scheduled_runs()] == ["running", "planned"]
    stage.hands.last.ends()
    stage.go()
    assert len(stage.hands.started) == 2


def test_with_skip_the_fire_that_comes_during_a_run_says_why_it_did_not_run(stage):
    stage.go(HOUR)
    stage.hands.last.begins()
    stage.go(HOUR)
    assert stage.scheduled_runs() == [("13:00", "running"), ("14:00", "skipped")]
    assert stage.ledger.scheduled_runs.between(NOON + HOUR, NOON + 2 * HOUR)[0].reason.startswith(
        "the one before it was still running"
    )


@pytest.mark.parametrize(("state", "error"), [("partial", QueryFailed("lost")), ("cancelled", None)])
def test_a_verdict_that_waiting_does_not_change_stands(stage, state, error):
    stage.go(HOUR)
    stage.hands.last.ends(state, error)
    stage.go(HOUR / 2)
    assert stage.scheduled_runs() == [("13:00", "done")]
    assert len(stage.hands.started) == 1


def test_a_run_that_failed_for_a_reason_that_may_pass_is_tried_again_with_doubling_waits(stage):
    stage.restart(PSTT_RUN_RETRIES=2, PSTT_RUN_RETRY_WAIT_S=30)
    stage.go(HOUR)
    began = []
    for _ in range(200):
        if len(stage.hands.started) > len(began):
            began.append((stage.clock.at - NOON - HOUR).total_seconds())
            stage.hands.last.ends("failed", BrokerUnavailable("no broker answers"))
        stage.go()
    assert began == [0, 31, 92]
    assert stage.scheduled_runs() == [("13:00", "done")]
    runs = stage.ledger.history.newest("export")
    assert [(run.attempt, run.scheduled_at) for run in runs] == [(3, NOON + HOUR), (2, NOON + HOUR), (1, NOON + HOUR)]


def test_a_run_that_failed_for_good_is_not_tried_again(stage):
    stage.go(HOUR)
    stage.hands.last.ends("failed", QueryFailed("bad SQL"))
    stage.go(timedelta(minutes=20))
    assert len(stage.hands.started) == 1
    assert stage.scheduled_runs() == [("13:00", "done")]


def test_a_process_that_dies_in_its_run_leaves_it_interrupted_and_the_fire_is_run_again(stage):
    stage.go(HOUR)
    stage.hands.last.begins()
    stage.hands.last.leaves(-11, "Segmentation fault")
    stage.go()
    assert len(stage.hands.started) == 2
    stage.hands.last.ends()
    stage.go()
    second, first = stage.ledger.history.newest("export")
    assert (first.state, second.state, second.attempt) == ("interrupted", "succeeded", 2)
    assert "code -11: Segmentation fault; how many rows arrived is not known" in first.error_text
    assert stage.scheduled_runs() == [("13:00", "done")]


def test_a_run_that_always_takes_its_process_down_is_given_up(stage):
    stage.write(cron="0 13 * * *")
    stage.go()
    stage.go(HOUR)
    for _ in range(3 * 3600):
        if stage.hands.last.code is None:
            stage.hands.last.begins()
            stage.hands.last.leaves(-9)
        if stage.scheduled_runs() == [("13:00", "done")]:
            break
        stage.go(10 * SECOND)
    assert len(stage.hands.started) == 11
    assert stage.ledger.history.newest("export")[0].state == "interrupted"


def test_a_process_that_ends_before_its_run_began_is_a_run_that_failed_with_its_last_words(stage):
    stage.restart(PSTT_RUN_RETRIES=0)
    stage.go(HOUR)
    for _ in range(11):
        stage.hands.last.leaves(1, "ModuleNotFoundError: No module named 'psycopg'")
        stage.go(timedelta(minutes=4))
    (run, *_) = stage.ledger.history.newest("export")
    assert run.state == "failed"
    assert "code 1: ModuleNotFoundError: No module named 'psycopg', before the run began" in run.error_text
    assert run.scheduled_at == NOON + HOUR


def test_a_process_that_does_not_heed_its_time_out_is_killed_and_its_run_has_failed(stage):
    stage.write(timeout_s=60)
    stage.go()
    stage.restart(PSTT_STOP_TIMEOUT_S=30)
    stage.go(HOUR)
    stage.hands.last.begins()
    stage.go(timedelta(seconds=90))
    assert not stage.hands.last.is_killed
    stage.go(timedelta(seconds=30))
    assert stage.hands.last.is_killed
    stage.go()
    (run,) = stage.ledger.history.newest("export")
    assert (run.state, run.error_class) == ("failed", RunTimedOut.__name__)
    assert '"timeout_s" = 60' in run.error_text
    assert stage.scheduled_runs() == [("13:00", "done")]


def test_a_process_that_does_not_heed_a_wish_to_cancel_is_killed_and_its_run_is_cancelled(stage):
    stage.go(HOUR)
    stage.hands.last.begins()
    cancel_run(stage.ledger, stage.hands.last.run_id, caller=caller("anna"), now=stage.clock())
    stage.go(timedelta(seconds=50))
    stage.go()
    (run,) = stage.ledger.history.newest("export")
    assert (run.state, run.error_text) == ("cancelled", "the run was cancelled: asked by anna; its process was killed")
    assert stage.scheduled_runs() == [("13:00", "done")]


def test_a_job_started_by_hand_makes_the_fire_wait_or_be_skipped(stage):
    stage.write("other", overlap="queue")
    stage.go()
    stage.go(HOUR)
    for worker in stage.hands.started:
        worker.leaves(BUSY)
    stage.go()
    assert stage.scheduled_runs("export") == [("13:00", "skipped")]
    assert stage.scheduled_runs("other") == [("13:00", "planned")]
    stage.go(timedelta(seconds=6))
    assert len(stage.hands.started) == 3


def test_one_failing_fire_does_not_keep_the_others_from_starting(stage):
    stage.write("other")
    stage.go()
    begin, refused = stage.hands.start, []

    def start(scheduled_run_id: int) -> Worker:
        if not refused:
            refused.append(scheduled_run_id)
            raise OSError(11, "Resource temporarily unavailable")
        return begin(scheduled_run_id)

    stage.hands.start = start
    stage.clock.at += HOUR
    stage.runner.guarded_tick()
    stage.runner.guarded_tick()
    assert len(stage.hands.started) == 2


def test_a_step_that_fails_each_second_stops_neither_the_others_nor_the_heartbeat(stage):
    stage.write("other")
    stage.go()

    def start(_fire_id: int) -> Worker:
        raise OSError(12, "Cannot allocate memory")

    stage.hands.start = start
    stage.clock.at += HOUR
    stage.runner.guarded_tick()
    stage.clock.at += HOUR
    stage.runner.guarded_tick()
    assert stage.ledger.heartbeats.newest().beat_at == stage.clock()
    assert [time for time, _ in stage.scheduled_runs("other")] == ["13:00", "14:00"]


# ── a runner after another ────────────────────────────────────────────────────────────────────


def test_planned_fires_of_the_last_runner_are_started_by_the_next(stage):
    stage.restart(PSTT_WORKERS=1)
    stage.write("other")
    stage.go()
    stage.go(HOUR)
    assert len(stage.hands.started) == 1
    stage.restart()
    stage.go()
    assert len({worker.scheduled_run_id for worker in stage.hands.started}) == 2


def test_a_run_that_outlives_its_runner_is_waited_for_and_not_begun_again(stage):
    stage.go(HOUR)
    orphan = stage.hands.last
    orphan.begins()
    stage.restart()
    stage.go()
    assert len(stage.hands.started) == 1
    orphan.ends()
    stage.go()
    assert stage.scheduled_runs() == [("13:00", "done")]


def test_a_process_that_an_earlier_runner_had_just_begun_may_take_the_fire_first(stage):
    stage.go(HOUR)
    orphan = stage.hands.last
    stage.restart()
    stage.go()
    assert len(stage.hands.started) == 2
    orphan.begins()
    stage.hands.last.leaves(0)
    stage.go()
    assert stage.scheduled_runs() == [("13:00", "running")]
    orphan.ends()
    stage.go()
    assert stage.scheduled_runs() == [("13:00", "done")]
    assert [run.state for run in stage.ledger.history.newest("export")] == ["succeeded"]


def test_a_process_that_takes_its_run_after_the_next_runner_has_begun_is_waited_for(stage):
    stage.go(HOUR)
    orphan = stage.hands.last
    stage.restart()
    orphan.begins()
    stage.go()
    assert len(stage.hands.started) == 1
    orphan.ends()
    stage.go()
    assert stage.scheduled_runs() == [("13:00", "done")]
    stage.go(HOUR)
    assert len(stage.hands.started) == 2


def test_a_run_that_outlives_its_runner_and_its_time_out_is_killed_and_run_again(stage):
    stage.write(timeout_s=5)
    stage.go()
    stage.go(HOUR)
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as wedged:
        stage.hands.last.begins()
        pid_started_at = psutil.Process(wedged.pid).create_time()
        stage.ledger._db.execute("UPDATE run SET pid = ?, pid_started_at = ?", [wedged.pid, pid_started_at])
        stage.restart(PSTT_STOP_TIMEOUT_S=1)
        stage.go()
        assert wedged.poll() is None
        stage.go(timedelta(seconds=20))
        assert wedged.wait(10) != 0
    stage.go()
    assert len(stage.hands.started) == 2
    assert stage.ledger.history.newest("export")[0].state == "interrupted"


def test_a_run_whose_process_died_with_its_runner_is_repeated_with_the_same_scheduled_time(stage):
    stage.go(HOUR)
    script = (
        "import os, sys\nfrom pathlib import Path\nfrom tests.unit.test_runner import *\n"
        "workspace = Workspace(Path(sys.argv[1]))\n"
        "with Ledger(workspace.ledger_file) as ledger:\n"
        "    Worker(Hands(workspace, ledger, Clock()), int(sys.argv[2])).begins()\n"
        "os._exit(9)\n"
    )
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([os.getcwd(), os.path.join(os.getcwd(), "tests")])}
    subprocess.run(
        [sys.executable, "-c", script, str(stage.workspace.root), str(stage.hands.last.scheduled_run_id)],
        env=environ,
        check=False,
    )
    stage.restart()
    stage.go()
    stage.hands.last.ends()
    stage.go()
    second, first = stage.ledger.history.newest("export")
    assert (first.state, second.state) == ("interrupted", "succeeded")
    assert first.scheduled_at == second.scheduled_at == NOON + HOUR
    assert first.scheduled_run_id == second.scheduled_run_id
    assert stage.scheduled_runs() == [("13:00", "done")]


def test_missed_fires_are_caught_up_by_the_next_runner(stage):
    stage.clock.at += timedelta(hours=3, minutes=30)
    stage.restart()
    stage.go()
    assert stage.scheduled_runs() == [("13:00", "skipped"), ("14:00", "skipped"), ("15:00", "planned")]


def test_a_stopping_runner_asks_its_runs_to_end_and_leaves_them_to_be_repeated(stage, monkeypatch):
    stage.go(HOUR)
    worker = stage.hands.last
    worker.begins()

    def a_moment(_seconds: float) -> None:
        stage.clock.at += SECOND
        if worker.code is None and stage.ledger.run(worker.run_id).cancel_asked_by == RUNNER_STOPS:
            worker.ends("interrupted", broken_off("the runner was stopped"))

    monkeypatch.setattr("core.scheduler.runner.time.sleep", a_moment)
    stage.runner.end()
    assert stage.ledger.heartbeats.newest().state == "stopped"
    assert stage.scheduled_runs() == [("13:00", "planned")]
    assert not worker.is_killed
    stage.clock.at += HOUR / 2  # longer than a run has after it was asked to end
    stage.restart()
    for _ in range(3):
        stage.go()
    assert len(stage.hands.started) == 2
    assert not stage.hands.last.is_killed
    stage.hands.last.ends()
    stage.go()
    assert stage.scheduled_runs() == [("13:00", "done")]


def test_a_stopping_runner_kills_what_does_not_end_and_the_ledger_says_so(stage, monkeypatch):
    stage.go(HOUR)
    worker = stage.hands.last
    worker.begins()

    def a_moment(_seconds: float) -> None:
        stage.clock.at += SECOND

    monkeypatch.setattr("core.scheduler.runner.time.sleep", a_moment)
    stage.runner.end()
    assert worker.is_killed
    (run,) = stage.ledger.history.newest("export")
    assert run.state == "interrupted"
    assert "how many rows arrived is not known" in run.error_text
    assert stage.scheduled_runs() == [("13:00", "planned")]


# ── files that change ─────────────────────────────────────────────────────────────────────────


def test_a_broken_edit_keeps_the_last_good_version_also_over_a_restart_and_says_so(stage):
    stage.go()
    stage.write_text('{"name": "Export", "query": ')
    stage.go()
    (problem,) = stage.runner.problems()
    assert problem["where"].startswith("export.job.json, line 1")
    assert problem["instead"] == "its last valid version stays in use"
    stage.restart()
    stage.go(HOUR)
    assert stage.scheduled_runs() == [("13:00", "planned")]
    assert [p["where"] for p in stage.ledger.heartbeats.newest().problems] == [problem["where"]]
    stage.write()
    stage.go()
    assert stage.runner.problems() == []


def test_a_job_that_was_never_right_does_not_run_and_is_told(stage):
    stage.write("broken", cron="0 0 31 2 *")
    stage.go()
    (problem,) = stage.runner.problems()
    assert "this time never comes" in problem["text"]
    assert problem["instead"] == "the job does not run until it is fixed"


def test_an_edit_is_picked_up_by_the_next_tick_and_a_run_keeps_what_it_began_with(stage):
    stage.go(HOUR)
    first = stage.ledger.scheduled_runs.get(stage.hands.last.scheduled_run_id).job_sha256
    stage.write(cron="30 * * * *", timeout_s=5)
    stage.go()
    stage.hands.last.ends()
    stage.go(HOUR / 2)
    assert stage.scheduled_runs() == [("13:00", "done"), ("13:30", "planned")]
    second = stage.ledger.scheduled_runs.get(stage.hands.last.scheduled_run_id).job_sha256
    assert stage.ledger.history.newest("export")[0].job_sha256 == first != second


def test_an_edit_of_the_same_size_in_the_same_moment_is_seen(stage):
    file = stage.workspace.queries_dir / "export.job.json"
    before = file.stat()
    stage.write(cron="5 * * * *")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    stage.go()
    assert stage.runner.registry.entries["export"].job.cron == "5 * * * *"


def test_a_job_deleted_in_its_run_ends_with_its_verdict_and_fires_no_more(stage):
    stage.go(HOUR)
    stage.hands.last.begins()
    (stage.workspace.queries_dir / "export.job.json").unlink()
    stage.go()
    stage.go()
    stage.hands.last.ends()
    stage.go(HOUR)
    stage.go(HOUR)
    assert stage.scheduled_runs() == [("13:00", "done")]
    assert stage.ledger.history.newest("export")[0].state == "succeeded"


def test_an_edit_seen_while_the_ledger_was_busy_is_not_forgotten(stage, monkeypatch):
    stage.write(cron="30 * * * *")
    change, refused = stage.runner.planner.change, []

    def busy_once(slug, job, now):
        if not refused:
            refused.append(slug)
            raise LedgerBusy("the ledger is held by another process")
        return change(slug, job, now)

    monkeypatch.setattr(stage.runner.planner, "change", busy_once)
    stage.clock.at += SECOND
    stage.runner.guarded_tick()
    stage.go()
    stage.go(HOUR / 2)
    assert refused == ["export"]
    assert stage.scheduled_runs() == [("12:30", "planned")]


def test_a_file_that_is_missing_for_one_look_has_not_gone(stage):
    file = stage.workspace.queries_dir / "export.job.json"
    text = file.read_text(encoding="utf-8")
    file.unlink()
    stage.go()
    file.write_text(text, encoding="utf-8")
    stage.go(HOUR)
    assert stage.scheduled_runs() == [("13:00", "planned")]


def test_what_waits_of_a_deleted_or_disabled_job_is_skipped_with_the_reason(stage):
    stage.write("other")
    stage.go()
    stage.restart(PSTT_WORKERS=1)
    stage.write("first", cron="59 12 * * *")
    stage.go()
    stage.go(HOUR)
    stage.write(enabled=False)
    (stage.workspace.queries_dir / "other.job.json").unlink()
    stage.go()
    stage.go()
    reasons = {f.job: f.reason for f in stage.ledger.scheduled_runs.between(NOON, NOON + HOUR) if f.state == "skipped"}
    assert reasons == {"export": "its job was disabled", "other": "its job file was deleted"}


# ── requests ──────────────────────────────────────────────────────────────────────────────────


def asked(stage, kind: str, **what):
    number = stage.ledger.requests.submit(kind, asked_by="anna", now=stage.clock(), **what)
    stage.go()
    return stage.ledger.requests.get(number)


def test_a_run_asked_for_begins_at_once_with_its_parameters_and_is_answered_with_its_verdict(stage):
    request = asked(stage, "run", job="export", args={"parameters": {"DATA": "2026-01-01"}})
    assert request.state == "taken"
    scheduled_run = stage.ledger.scheduled_runs.get(stage.hands.last.scheduled_run_id)
    assert (scheduled_run.kind, scheduled_run.scheduled_at, scheduled_run.args["parameters"]) == (
        "request",
        NOON,
        {"DATA": "2026-01-01"},
    )
    stage.hands.last.ends()
    stage.go()
    answered = stage.ledger.requests.get(request.request_id)
    assert answered.state == "done"
    assert answered.answer == f"run {stage.hands.last.run_id} succeeded"


def sent_by_hand(stage, at: datetime) -> str:
    job = parse_job(path := stage.workspace.queries_dir / "export.job.json", path.read_text(encoding="utf-8"))
    plan = Plan(job, Query("q.sql", (Step("select 1"),), {}, "ab" * 32), "rig", "t", at, 100)
    run = stage.ledger.start(plan, stage.clock())
    stage.ledger.finish(run.run_id, Outcome("succeeded", rows_read=70, acknowledged=70), stage.clock())
    return run.run_id


def test_what_has_been_sent_is_sent_again_only_where_that_is_said(stage):
    sent_by_hand(stage, NOON)
    request = asked(stage, "run", job="export", args={"at": NOON.isoformat()})
    assert request.state == "refused"
    assert "70 messages" in request.answer
    assert stage.hands.started == []
    assert asked(stage, "run", job="export", args={"at": NOON.isoformat(), "again": True}).state == "taken"


def test_the_calendar_does_not_send_what_a_person_has_sent_for_its_time(stage):
    at = NOON + HOUR
    run_id = sent_by_hand(stage, at)
    stage.go(HOUR)
    (scheduled_run,) = stage.ledger.scheduled_runs.between(NOON, at)
    assert (scheduled_run.state, scheduled_run.reason) == ("skipped", f"run {run_id} has sent it before")
    assert stage.hands.started == []


def test_a_dry_run_gets_a_list_as_the_text_that_the_command_line_takes(stage):
    begun = []

    def begin(words, **streams):
        begun.extend(words)
        return subprocess.Popen([sys.executable, "-c", ""], **streams)

    args = {"parameters": {"STATI": ["N", "a,b"], "DATA": "2026-01-01"}}
    number = stage.ledger.requests.submit("dry_run", job="export", args=args, asked_by="anna", now=stage.clock())
    dry_runs = DryRuns(stage.workspace.root, stage.ledger, begin, 1)
    dry_runs.start(stage.ledger.requests.get(number), stage.runner.registry.entries["export"].job)
    dry_runs.end(stage.clock())
    assert begun[begun.index("--param") :] == ["--param", 'STATI=N,"a,b"', "--param", "DATA=2026-01-01", "--", "export"]


def test_a_disabled_job_runs_when_it_is_asked_for(stage):
    stage.write(enabled=False)
    stage.go()
    assert asked(stage, "run", job="export").state == "taken"
    assert len(stage.hands.started) == 1


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        ("run", {"job": "nothing"}),
        ("run", {"job": "export", "args": {"at": "2026-01-17T02:00"}}),
        ("run", {"job": "export", "args": {"at": "soon"}}),
        ("replay", {"run_id": "ffff"}),
        ("disable", {"job": "../secret"}),
    ],
)
def test_a_request_that_cannot_be_done_is_refused_with_the_reason(stage, kind, what):
    request = asked(stage, kind, **what)
    assert request.state == "refused"
    assert request.answer


@pytest.mark.parametrize("kind", ["backfill", "cancel", "enable"])
def test_what_an_earlier_version_asked_for_is_refused_with_what_to_do(stage, kind):
    request = asked(stage, kind, job="export")
    assert (request.state, request.answer) == (
        "refused",
        f"the runner does not do {kind} requests any more: an earlier version of PSTT Kafka asked for it",
    )


def test_disable_and_enable_edit_the_file_leave_its_form_and_write_down_who_did_it(stage):
    stage.write_text('{\n  "name": "Export", "query": "q.sql",   "connection": "A00", "enabled" : true}\n')
    request = asked(stage, "disable", job="export")
    assert (request.state, request.answer) == ("done", "job export is disabled")
    text = (stage.workspace.queries_dir / "export.job.json").read_text(encoding="utf-8")
    assert text == '{\n  "name": "Export", "query": "q.sql",   "connection": "A00", "enabled" : false}\n'
    assert asked(stage, "disable", job="export").answer == "job export was disabled"
    assert set_job_enabled(
        stage.workspace, stage.ledger, "export", enabled=True, caller=caller("maria"), now=stage.clock()
    )
    assert [(e.who, e.action) for e in stage.ledger.audit.entries("job export")] == [
        ("maria", "enable"),
        ("anna", "disable"),
    ]


def test_disabling_a_job_whose_file_does_not_name_it_adds_the_key(stage):
    assert set_job_enabled(stage.workspace, stage.ledger, "export", enabled=False, caller=caller("rule"), now=NOON)
    document = json.loads((stage.workspace.queries_dir / "export.job.json").read_text(encoding="utf-8"))
    assert document["enabled"] is False
    assert document["cron"] == "0 * * * *"


def test_a_stop_asked_for_through_the_ledger_is_obeyed(stage):
    assert asked(stage, "stop").answer == "the runner stops"
    assert stage.runner.requests.is_stop_requested


def test_a_stop_that_a_killed_runner_was_asked_for_does_not_stop_the_next_one(stage):
    number = stage.ledger.requests.submit("stop", asked_by="anna", now=stage.clock())
    stage.restart()
    stage.go()
    request = stage.ledger.requests.get(number)
    assert (request.state, request.answer) == ("done", "the runner had ended before")
    assert not stage.runner.requests.is_stop_requested


def test_a_replay_asked_for_keeps_the_scheduled_time_of_its_run(stage):
    stage.go(HOUR)
    stage.hands.last.ends()
    stage.go()
    request = asked(stage, "replay", run_id=stage.hands.last.run_id[:6], args={"rejects_only": True, "keys": ["A"]})
    assert request.state == "taken"
    scheduled_run = stage.ledger.scheduled_runs.get(stage.hands.last.scheduled_run_id)
    assert scheduled_run.scheduled_at == NOON + HOUR
    assert [scheduled_run.args[name] for name in ("rejects_only", "to", "keys")] == [True, "run", ["A"]]


def test_a_replay_to_a_place_that_is_none_is_refused(stage):
    stage.go(HOUR)
    stage.hands.last.ends()
    stage.go()
    request = asked(stage, "replay", run_id=stage.hands.last.run_id, args={"to": "nowhere"})
    assert (request.state, request.answer) == ("refused", '"nowhere" is no place to send to again')


# ── backfill ──────────────────────────────────────────────────────────────────────────────────


def test_a_backfill_plans_each_scheduled_time_of_its_days_and_leaves_out_what_succeeded(stage):
    stage.go(HOUR)
    stage.hands.last.ends()
    stage.go()
    day = stage.clock().date()
    made = backfill(
        stage.ledger, stage.runner.registry.entries["export"].job, day, day, caller=caller("anna"), now=stage.clock()
    )
    assert (len(made.scheduled_run_ids), made.succeeded_before) == (13, 1)  # 00:00 to 13:00, without 13:00
    again = backfill(
        stage.ledger, stage.runner.registry.entries["export"].job, day, day, caller=caller("anna"), now=stage.clock()
    )
    assert (len(again.scheduled_run_ids), again.succeeded_before, again.planned_before) == (0, 1, 13)
    for _ in range(13):
        stage.go()
        stage.hands.last.ends()
    stage.go()
    assert {state for _, state in stage.scheduled_runs()} == {"done"}
    assert [f"{run.scheduled_at:%H}" for run in reversed(stage.ledger.history.newest("export"))][1:] == [
        f"{hour:02}" for hour in range(13)
    ]


def test_a_backfill_by_mistake_is_cancelled_with_its_job(stage):
    day = NOON.date()
    job = stage.runner.registry.entries["export"].job
    made = backfill(stage.ledger, job, day, day, caller=caller("anna"), now=stage.clock())
    request = stage.ledger.requests.get(made.request_id)
    assert (request.state, request.answer, made.text) == ("taken", "12 runs planned", "12 runs planned")
    stage.go()
    stage.hands.last.begins()
    cancelled = cancel_job(stage.ledger, "export", caller=caller("anna"), now=stage.clock())
    assert cancelled.startswith("11 waiting runs of export are cancelled, run ")
    stage.hands.last.ends("cancelled")
    stage.go()
    assert sorted(state for _, state in stage.scheduled_runs()) == ["done"] + ["skipped"] * 11
    stage.go(6 * SECOND)
    assert stage.ledger.requests.get(request.request_id).state == "done"


def test_a_backfill_of_a_manual_job_is_one_run_a_day_at_midnight_of_its_zone(stage):
    stage.write("manual", scheduling_mode="manual", timezone="Europe/Rome")
    stage.go()
    job = stage.runner.registry.entries["manual"].job
    backfill(stage.ledger, job, NOON.date() - timedelta(days=1), NOON.date(), caller=caller("anna"), now=NOON)
    assert stage.scheduled_runs("manual") == [("23:00", "planned"), ("23:00", "planned")]


def test_a_backfill_of_the_future_or_of_ten_thousand_fires_is_refused(stage):
    job = stage.runner.registry.entries["export"].job
    tomorrow = NOON.date() + timedelta(days=1)
    with pytest.raises(ConfigError, match="no range of past days"):
        backfill(stage.ledger, job, tomorrow, tomorrow, caller=caller("anna"), now=NOON)
    with pytest.raises(ConfigError, match="shorter range"):
        backfill(stage.ledger, job, tomorrow - timedelta(days=900), tomorrow, caller=caller("anna"), now=NOON)


def test_a_workspace_that_may_be_a_copy_is_a_problem_until_it_is_answered_for(stage):
    own_identity(stage.workspace, NOON)
    file = stage.workspace.state_dir / "identity.json"
    elsewhere = json.loads(file.read_text(encoding="utf-8"))
    elsewhere["place"] = {"host": "other", "path": "/srv/pstt", "folder": ""}
    file.write_text(json.dumps(elsewhere), encoding="utf-8")
    (problem,) = stage.runner.problems()
    assert problem["where"] == "identity"
    assert "this workspace may be a copy of /srv/pstt on other" in problem["text"]
    assert problem["instead"] == "runs of exactly_once fail; the others go on"
    resolve_identity(stage.workspace, "copied", NOON)
    assert stage.runner.problems() == []


def test_a_connections_file_that_an_editor_changed_is_kept_and_one_with_a_fault_is_not(stage):
    file = stage.workspace.connections_file
    for text in (
        '{"connections": []}',
        '{"connections": [], "kafka_connections": {"": {}}}',
        '{"connections"',
        '{"kafka_connections": {"a": {}}}',
    ):
        file.write_text(text, encoding="utf-8")
        stage.go()
    kept = [version.document for version in stage.ledger.connections_versions.newest_first()]
    assert [list(json.loads(document)) for document in kept] == [["kafka_connections"], ["connections"]]


def test_an_sql_file_that_an_editor_changed_or_removed_is_kept_once_it_rests(stage):
    queries, name = stage.workspace.queries_dir, "below/kept.sql"
    (queries / "below").mkdir()

    def kept():
        stage.go(timedelta(seconds=CHECKED_EVERY_S))
        stage.go(timedelta(seconds=CHECKED_EVERY_S))
        with query_versions(stage.workspace) as versions:
            return [(one.query, one.sha256[:4]) for one in versions.newest_of_each() if one.query == name]

    digest = {text: hashlib.sha256(text.encode()).hexdigest()[:4] for text in ("SELECT 1", "SELECT 22")}
    for text in digest:
        (queries / name).write_text(text, encoding="utf-8")
        stage.go(timedelta(seconds=CHECKED_EVERY_S))
        (queries / "below" / "large.sql").write_bytes(b" " * (MOST_BYTES + 1))
        assert kept() == [(name, digest[text])]
    (queries / "below" / "large.sql").unlink()
    (queries / name).rename(queries / "elsewhere")
    stage.go(timedelta(seconds=CHECKED_EVERY_S))
    (queries / "elsewhere").rename(queries / name)
    assert kept() == [(name, digest["SELECT 22"])]
    (queries / name).unlink()
    assert kept() == [(name, "")]
    with query_versions(stage.workspace) as versions:
        assert [(one.size_bytes, one.saved_by) for one in versions.of_query(name)] == [(9, ""), (8, "")]
        assert [one.query for one in versions.newest_of_each() if "large" in one.query] == []
