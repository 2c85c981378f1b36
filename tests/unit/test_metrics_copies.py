"""Who copies sends into metrics.duckdb, and when: the runner for all runs, a run by hand where no runner works."""

from __future__ import annotations

import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import duckdb
import psutil
import pytest

from core.admin.demo import SLUG, make_demo
from core.app import App
from core.errors import LedgerBusy
from core.records.ledger import Ledger
from core.records.metrics import MOST_WAITING, TOGETHER, Metrics
from core.records.metrics_file import copying as holding_lock
from core.records.metrics_file import is_copied_into, state_of
from core.records.runner_status import RunnerStatus
from core.run.cancellation import Stop
from core.run.send_by_hand import send_message
from core.scheduler.metrics_copies import EVERY_S, LONGEST_WAIT_S, MOST_WAIT_S, UNCHANGED_S, MetricsCopies
from core.workspace.jobs import read_job_file
from core.workspace.paths import Workspace
from core.workspace.process import LOW_PRIORITY, begin_process
from tests.rigs.callers import caller
from tests.rigs.workspace import ROOT, environment, log_text
from tests.unit.test_ledger import a_plan
from tests.unit.test_metrics import count, holder, spooled

NOTHING = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)


def now() -> datetime:
    return datetime.now(UTC)


def copied(workspace: Workspace) -> int:
    """The sends that another program finds in the file itself."""
    if not workspace.metrics_file.exists():
        return 0
    with duckdb.connect(str(workspace.metrics_file), read_only=True) as db:
        return db.execute("SELECT count(*) FROM sends").fetchone()[0]


def counted(metrics: Metrics) -> tuple[int, int]:
    """Sends, and sends as the table of counts has them."""
    sql = "SELECT (SELECT count(*) FROM sends), (SELECT sum(messages)::BIGINT FROM traffic)"
    return metrics.answer(lambda db: db.execute(sql).fetchone())


# ── a run by hand, with and without a runner ──────────────────────────────────────────────────


@pytest.fixture
def demo(tmp_path: Path) -> Workspace:
    make_demo(tmp_path, 40, now=now())
    return Workspace(tmp_path)


def heartbeat(workspace: Workspace, state: str = "working", pid: int | None = None, started_at: float = 0.0) -> None:
    """Writes what a runner of this machine would write; without a pid it is this process."""
    own = psutil.Process()
    status = RunnerStatus(
        platform.node(), pid or own.pid, started_at or own.create_time(), now(), now(), "1", 1, 0.1, state, 1, ()
    )
    with Ledger(workspace.ledger_file) as ledger:
        ledger.heartbeats.write(status)


def run_by_hand(workspace: Workspace) -> int:
    with App.open(workspace.root, {}, log=False) as app:
        return app.execute(app.plan(app.job(SLUG), now=now()), stop=Stop(), now=now).acknowledged


def test_a_run_by_hand_without_a_runner_copies_at_its_end(demo: Workspace) -> None:
    sent = run_by_hand(demo)
    assert sent > 0
    assert copied(demo) == sent


def test_a_run_by_hand_leaves_copying_to_a_runner_that_works(demo: Workspace) -> None:
    heartbeat(demo)
    sent = run_by_hand(demo)
    assert not demo.metrics_file.exists()
    assert count(Metrics(demo)) == sent


@pytest.mark.parametrize("state", ["stopping", "stopped"])
def test_a_runner_that_ends_is_not_relied_on(demo: Workspace, state: str) -> None:
    heartbeat(demo, state)
    sent = run_by_hand(demo)
    assert copied(demo) == sent


def test_a_runner_that_was_killed_is_not_relied_on(demo: Workspace) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as gone:
        started_at = psutil.Process(gone.pid).create_time()
    heartbeat(demo, pid=gone.pid, started_at=started_at)
    sent = run_by_hand(demo)
    assert copied(demo) == sent


@pytest.mark.parametrize("works", [False, True])
def test_a_message_sent_by_hand_is_copied_where_no_runner_does(demo: Workspace, works: bool) -> None:
    if works:
        heartbeat(demo)
    with App.open(demo.root, {}, log=False) as app:
        send_message(app, "pstt-traces", "k", "{}", cluster=None, caller=caller("admin"), now=now())
    assert copied(demo) == (0 if works else 1)
    assert count(Metrics(demo)) == 1


WORK = """
import sys
from core.cli.main import main
try:
    main()
except SystemExit as ended:
    print(ended.code, "duckdb" in sys.modules)
"""


def test_the_process_of_a_run_of_the_runner_neither_copies_nor_loads_duckdb(demo: Workspace) -> None:
    with Ledger(demo.ledger_file) as ledger:
        file = read_job_file(demo, SLUG)
        ledger.job_versions.add(SLUG, file.sha256, file.text, now())
        (planned,) = ledger.scheduled_runs.plan_requested(SLUG, [now()], kind="request", asked_by="anna", now=now())
        ledger.scheduled_runs.assign(planned, file.sha256)
    words = [sys.executable, "-c", WORK, "work", str(planned), "--workspace", str(demo.root)]
    done = subprocess.run(words, env=environment(), cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0", "False"]
    with Ledger(demo.ledger_file) as ledger:
        (run,) = ledger.history.newest()
    assert (run.state, run.scheduled_run_id) == ("succeeded", planned)
    assert not demo.metrics_file.exists()
    assert count(Metrics(demo)) == run.acknowledged > 0


# ── the process that copies for the runner ────────────────────────────────────────────────────


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


@pytest.fixture
def ledger(workspace: Workspace):
    with Ledger(workspace.ledger_file) as opened:
        yield opened


def copying(workspace: Workspace, **more: int) -> subprocess.Popen[bytes]:
    return begin_process(["copy-sends", "--workspace", str(workspace.root)], **NOTHING, **more)


def test_it_copies_everything_and_each_question_has_the_answer_it_had_before(workspace: Workspace) -> None:
    runs = 2 * TOGETHER + 3
    for n in range(runs):
        spooled(workspace, f"r{n:02}", 20)
    metrics = Metrics(workspace)

    def answers() -> tuple[object, ...]:
        with metrics.figures("Europe/Rome") as figures:
            return (
                counted(metrics) if not metrics.waiting else counted(Metrics(workspace)),
                figures.find("k7"),
                figures.find_beginning("k1", 50),
                figures.summary(now()),
            )

    before = answers()
    assert len(metrics.waiting) == runs
    assert copying(workspace).wait(60) == 0
    assert answers()[0] == before[0] == (runs * 20, runs * 20)
    assert sorted(map(str, answers()[1])) == sorted(map(str, before[1]))
    assert answers()[3] == before[3]
    assert metrics.waiting == []
    assert copied(workspace) == runs * 20


def test_it_works_at_a_low_priority(workspace: Workspace) -> None:
    spooled(workspace, "r1", 20)
    Metrics(workspace).sync()
    spooled(workspace, "r2", 20)
    with holder(workspace.metrics_file, "read"):  # so that it waits
        process = copying(workspace, priority=LOW_PRIORITY)
        assert psutil.Process(process.pid).nice() == LOW_PRIORITY != psutil.Process().nice()
    assert process.wait(60) == 0
    assert copied(workspace) == 40


@pytest.mark.slow
def test_a_file_that_stays_held_is_no_success_and_hides_nothing(workspace: Workspace) -> None:
    spooled(workspace, "r1", 20)
    Metrics(workspace).sync()
    spooled(workspace, "r2", 20)
    with holder(workspace.metrics_file, "read"):
        assert copying(workspace).wait(60) == 1
        assert count(Metrics(workspace)) == 40
    assert "open in another program" in log_text(workspace.root)
    assert copied(workspace) == 20


def test_killed_again_and_again_while_it_copies_nothing_counts_twice(workspace: Workspace) -> None:
    runs, sends = 2 * TOGETHER, 200
    for n in range(runs):
        spooled(workspace, f"r{n:02}", sends)
    metrics = Metrics(workspace)
    kills, partly = 0, 0
    while True:
        process, changes, state = copying(workspace), 0, state_of(workspace.metrics_file)
        # Each one lives for one change of the file longer than the one before.
        while process.poll() is None and changes <= kills:
            if state_of(workspace.metrics_file) != state:
                state = state_of(workspace.metrics_file)
                changes += 1
        if process.poll() is not None:
            break
        process.kill()
        process.wait()
        kills += 1
        assert counted(metrics) == (runs * sends, runs * sends)
        partly += 0 < len(metrics.waiting) < runs
    assert kills > 1
    assert process.returncode == 0
    assert counted(metrics) == (runs * sends, runs * sends)
    assert (metrics.waiting, copied(workspace)) == ([], runs * sends)


def test_damaged_segments_that_cannot_be_moved_keep_no_other_from_its_turn(workspace: Workspace, monkeypatch) -> None:
    monkeypatch.setattr("core.records.metrics.set_aside", lambda segment: False)
    for n in range(TOGETHER + 5):
        spooled(workspace, f"a{n:02}", 1)
    for segment in workspace.spool_dir.glob("*.parquet"):
        segment.write_bytes(b"")
    spooled(workspace, "b", 7)
    metrics = Metrics(workspace)
    assert sum(metrics.sync(TOGETHER).sends for _ in range(3)) == 7
    assert metrics.sync(TOGETHER).segments == 0


# ── when the runner starts it ─────────────────────────────────────────────────────────────────


@dataclass
class Started:
    """A process that ends when the test says so."""

    words: list[str]
    low_priority: bool
    code: int | None = None
    is_killed: bool = False

    def poll(self) -> int | None:
        return self.code

    def wait(self) -> int:
        return self.code or 0

    def kill(self) -> None:
        self.is_killed, self.code = True, -9


@dataclass
class Stage:
    """The copies of a runner on a clock of their own."""

    copies: MetricsCopies | None = None
    at_s: float = 1_000.0
    started: list[Started] = field(default_factory=list)

    def begin(self, words: list[str], *, priority: int | None, **_: object) -> Started:
        self.started.append(Started(words, priority == LOW_PRIORITY))
        return self.started[-1]

    def go(self, seconds: float, *, is_quiet: bool = True) -> int:
        """Lets time pass in steps of a second; how many processes were started by then."""
        for _ in range(int(seconds)):
            self.at_s += 1
            self.copies.tick(is_quiet=is_quiet)
        return len(self.started)


@pytest.fixture
def stage(workspace: Workspace, ledger: Ledger) -> Stage:
    made = Stage()
    made.copies = MetricsCopies(workspace, ledger, made.begin, lambda: made.at_s)
    return made


def test_a_workspace_that_was_never_used_has_nothing_to_copy(stage: Stage) -> None:
    assert stage.go(3 * EVERY_S) == 0


def test_many_runs_are_copied_by_one_process_once_the_last_has_ended(workspace: Workspace, stage: Stage) -> None:
    for n in range(5):
        spooled(workspace, f"r{n}", 1)
        assert stage.go(UNCHANGED_S - 1) == 0
    assert stage.go(UNCHANGED_S) == 1
    assert stage.started[0].words == ["copy-sends", "--workspace", str(workspace.root), "--merge"]
    assert stage.started[0].low_priority
    assert stage.go(5 * EVERY_S) == 1  # it is still at it
    stage.started[0].code = 0
    assert stage.go(5 * EVERY_S) == 1  # nothing waits any more


def test_a_run_without_sends_is_copied_too(ledger: Ledger, stage: Stage) -> None:
    ledger.start(a_plan(), now())
    assert stage.go(UNCHANGED_S + 1) == 1


def test_no_more_than_one_process_a_minute(workspace: Workspace, stage: Stage) -> None:
    begun = []
    for n in range(200):
        spooled(workspace, f"r{n}", 1) if n % 5 == 0 else None
        if stage.go(1) > len(begun):
            begun.append(stage.at_s)
            stage.started[-1].code = 0
    assert len(begun) > 2
    assert min(later - earlier for earlier, later in pairwise(begun)) >= EVERY_S


def test_while_runs_go_on_it_waits_a_minute_and_no_longer(workspace: Workspace, stage: Stage) -> None:
    spooled(workspace, "r1", 1)
    assert stage.go(LONGEST_WAIT_S, is_quiet=False) == 0
    assert stage.go(1, is_quiet=False) == 1


def test_what_is_written_while_it_copies_is_copied_by_the_next(workspace: Workspace, stage: Stage) -> None:
    spooled(workspace, "r1", 1)
    stage.go(UNCHANGED_S + 1)
    spooled(workspace, "r2", 1)
    stage.started[0].code = 0
    assert stage.go(EVERY_S + 1) == 2


def test_after_failures_it_waits_longer_each_time_and_after_a_success_no_more(
    workspace: Workspace, stage: Stage
) -> None:
    spooled(workspace, "r1", 1)
    begun = []
    while len(begun) < 8:
        if stage.go(1) > len(begun):
            begun.append(stage.at_s)
            stage.started[-1].code = 1
    waits = [round(later - earlier - 1) for earlier, later in pairwise(begun)]
    assert waits == [EVERY_S, 2 * EVERY_S, 4 * EVERY_S, 8 * EVERY_S, MOST_WAIT_S, MOST_WAIT_S, MOST_WAIT_S]
    assert stage.go(MOST_WAIT_S + 1) == 9
    stage.started[-1].code = 0
    spooled(workspace, "r2", 1)
    assert stage.go(EVERY_S + 1) == 10


def test_no_process_can_be_started_and_the_runner_goes_on(workspace: Workspace, ledger: Ledger, stage: Stage) -> None:
    def none(*_: object, **__: object) -> Started:
        raise OSError(12, "Cannot allocate memory")

    stage.copies = MetricsCopies(workspace, ledger, none, lambda: stage.at_s)
    spooled(workspace, "r1", 1)
    assert stage.go(3 * EVERY_S) == 0


def test_a_runner_that_ends_copies_what_waits(workspace: Workspace, ledger: Ledger) -> None:
    spooled(workspace, "r1", 20)
    spooled(workspace, "r2", 20)
    beats: list[None] = []
    MetricsCopies(workspace, ledger, begin_process).end(60, lambda: beats.append(None))
    assert copied(workspace) == 40
    assert beats


def test_a_runner_that_ends_waits_no_longer_than_it_may(workspace: Workspace, stage: Stage) -> None:
    spooled(workspace, "r1", 1)
    stage.copies.end(0, lambda: None)
    assert stage.started == []
    stage.go(UNCHANGED_S + 1)

    def beat() -> None:
        stage.at_s += 10

    stage.copies.end(30, beat)
    assert [one.is_killed for one in stage.started] == [True]


# ── readers while segments wait ───────────────────────────────────────────────────────────────


def test_a_reader_that_finds_many_segments_copies_some_first(workspace: Workspace) -> None:
    runs = MOST_WAITING + 2 * TOGETHER - 5
    for n in range(runs):
        spooled(workspace, f"r{n:03}", 2)
    metrics = Metrics(workspace)
    metrics.sync(1)
    found, short = [], TOGETHER + TOGETHER // 2
    for _ in range(4):
        assert counted(metrics) == (2 * runs, 2 * runs)
        found.append(len(metrics.waiting))
    assert found == [runs - 1 - short, runs - 1 - 2 * short, runs - 1 - 2 * short, runs - 1 - 2 * short]


def test_a_reader_copies_nothing_while_the_file_is_held_also_by_its_own_process(workspace: Workspace) -> None:
    for n in range(MOST_WAITING + 5):
        spooled(workspace, f"r{n:03}", 2)
    metrics = Metrics(workspace)
    metrics.sync(1)
    with holder(workspace.metrics_file, "read"):
        assert counted(metrics) == (210, 210)
        assert len(metrics.waiting) == MOST_WAITING + 4
    with duckdb.connect() as db:  # as another thread of the page
        db.execute(f"ATTACH '{workspace.metrics_file}' AS store (READ_ONLY)")
        assert counted(metrics) == (210, 210)
        assert metrics.sync().state == "held"
    assert metrics.sync().state == "copied"


def test_a_reader_waits_for_a_copy_longer_than_for_another_program(workspace: Workspace, monkeypatch) -> None:
    spooled(workspace, "r1", 2)
    metrics = Metrics(workspace)
    metrics.sync()
    monkeypatch.setattr("core.records.metrics.READ_WAIT_S", 0.0)
    lock = workspace.state_dir / "locks" / "metrics.lock"
    with ThreadPoolExecutor() as pool, ExitStack() as copy, ExitStack() as file:
        file.enter_context(holder(workspace.metrics_file, "write"))
        with pytest.raises(LedgerBusy, match="held by another program"):
            count(metrics)
        assert not is_copied_into(lock)
        copy.enter_context(holding_lock(lock))
        answer = pool.submit(count, metrics)
        wait([answer], timeout=1)
        assert not answer.done()
        assert metrics.sync().state == "held"
        file.close()
        copy.close()
        assert answer.result(timeout=60) == 2


def test_a_reader_waits_while_its_own_process_copies(workspace: Workspace, monkeypatch) -> None:
    spooled(workspace, "r1", 2)
    metrics = Metrics(workspace)
    metrics.sync()
    monkeypatch.setattr("core.records.metrics.READ_WAIT_S", 0.2)
    with duckdb.connect(str(workspace.metrics_file)), pytest.raises(LedgerBusy, match="held by another program"):
        count(metrics)
    assert count(metrics) == 2
