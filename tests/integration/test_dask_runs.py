"""Runs in parts on a real Dask cluster, over the real PostgreSQL and Kafka: one verdict, whatever fails."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest

from core.admin.diagnosis import diagnose
from core.app import App
from core.errors import WorkersUnavailable
from core.model.check_result import CheckResult
from core.model.run import Run
from core.run.cancellation import Stop
from core.version import __version__
from tests.integration.test_partitioned_runs import AT, COMMITTED, NOT_COMMITTED, ONCE, ROWS, SQL, Place
from tests.rigs.dask import DaskRig
from tests.rigs.kafka import KafkaRig
from tests.rigs.killed_part import deadly
from tests.rigs.postgres import PostgresRig
from tests.rigs.processes import processes_below
from tests.rigs.sweeps import sweep
from tests.rigs.waiting import until
from tests.rigs.workspace import PASSWORD_VARIABLE, command

SLOW_SQL = "select g as id, 'parcel ' || g as status, pg_sleep(0.01)::text as s from generate_series(1, 1200) g"


class DaskPlace(Place):
    """A workspace with one job whose parts run on workers."""

    def __init__(self, folder: Path, kafka: KafkaRig, postgres: PostgresRig, rig: DaskRig) -> None:
        super().__init__(folder, kafka, postgres)
        self.rig = rig
        self.env["DASK_SCHEDULER_ADDRESS"] = rig.address

    def lines(self) -> list[str]:
        """Returns the state of each part of the newest run."""
        with App.open(self.folder, self.env, log=False) as app:
            return [part.state for run in app.ledger.history.newest("export", 1) for part in run.parts]

    def start(self, stop: Stop | None = None) -> Callable[[], Run]:
        """Runs the job in a thread; what is returned waits for its verdict."""
        found: list[Run] = []

        def run() -> None:
            with App.open(self.folder, self.env, log=False) as app:
                plan = app.plan(app.job("export"), now=datetime.now(UTC), at=AT)
                found.append(app.execute(plan, stop=stop or Stop(), now=lambda: datetime.now(UTC)))

        thread = threading.Thread(target=run)
        thread.start()

        def verdict() -> Run:
            thread.join(120)
            return found[0]

        return verdict


@pytest.fixture
def rig(tmp_path: Path, postgres: PostgresRig) -> Iterator[DaskRig]:
    environ = {PASSWORD_VARIABLE: postgres.password}
    with DaskRig(tmp_path / "dask", environ, clean=("KAFKA_", "PSTT_")) as rig:
        yield rig


@pytest.fixture
def place(tmp_path: Path, kafka: KafkaRig, postgres: PostgresRig, rig: DaskRig) -> DaskPlace:
    return DaskPlace(tmp_path / "workspace", kafka, postgres, rig)


def part_processes(rig: DaskRig) -> list[psutil.Process]:
    """The processes of parts on all workers that still run."""
    found = []
    for worker in rig.workers:
        if worker.server.is_running:
            found += processes_below(worker.server.pid, "part")
    return found


def test_a_run_on_dask_sends_what_a_run_here_sends(
    place: DaskPlace, tmp_path: Path, kafka: KafkaRig, postgres: PostgresRig
) -> None:
    place.rig.add_workers(2)
    place.set(verify="full", verify_count=True)
    run = place.run()
    assert (run.verdict, run.rows_read, run.acknowledged, run.rows_counted) == ("complete", ROWS, ROWS, ROWS), run
    assert run.warnings == ()
    assert [part.state for part in run.parts] == ["succeeded"] * 3
    assert all("tcp://127.0.0.1:" in part.worker for part in run.parts)
    assert len({part.worker for part in run.parts}) == 2
    plain = Place(tmp_path / "plain", kafka, postgres)
    plain.set(partitions=None)
    assert plain.run().verdict == "complete"
    assert place.ids() == plain.ids()
    assert Counter(place.sends()) == Counter({(message_id, "acknowledged"): 1 for message_id in place.ids()})
    assert place.left() == []
    assert part_processes(place.rig) == []


@pytest.mark.slow
def test_parts_on_workers_leave_out_what_an_earlier_run_has_sent(place: DaskPlace) -> None:
    place.rig.add_workers(2)
    late = {"column": "at", "kind": "timestamp", "delay_s": 0, "look_back_s": 3600}
    at = "timestamptz '2026-01-17 12:00:00+00' - (g % 50) * interval '1 second' as at"
    place.set(f"select g as id, {at} from generate_series(1, 300) g", incremental=late)
    assert place.run().acknowledged == 300
    place.set(f"select g as id, {at} from generate_series(1, 310) g", incremental=late)  # ten late rows
    run = place.run()
    assert (run.verdict, run.acknowledged, len(run.parts)) == ("complete", 10, 3), run
    assert (len(place.ids()), place.ids().total()) == (310, 310)
    assert place.left() == []


@pytest.mark.parametrize(
    "point",
    sweep(
        [
            "after:core.run.part:_PartRun._note_columns:1",
            "before:core.run.sending:Sending.publish:3",
            "after:core.run.sending:Sending.drain:1",
        ],
        always=["before:core.run.sending:Sending.publish:3"],
    ),
)
def test_a_part_process_killed_on_a_worker_is_repeated(place: DaskPlace, tmp_path: Path, point: str) -> None:
    variables = deadly(tmp_path / "deadly", point, part=1)
    for _ in range(2):
        place.rig.add_worker(environ=place.rig.environ | variables)
    place.set(verify="count")
    run = place.run()
    assert (tmp_path / "deadly" / "0.killed").exists(), "it was not killed"
    assert (run.verdict, run.rows_read, run.acknowledged) == ("complete", ROWS, ROWS), run.error_text
    assert [part.attempt for part in run.parts] == [1, 2, 1]
    assert "part 2 of 3 was repeated" in run.warnings[0]
    assert len(set(place.ids())) == ROWS
    assert len(place.sends()) == ROWS


@pytest.mark.parametrize(
    ("point", "whose"),
    sweep(
        [
            (NOT_COMMITTED[2], "part"),
            (NOT_COMMITTED[-1], "part"),
            (COMMITTED[0], "part"),
            (COMMITTED[1], "part"),
            (NOT_COMMITTED[2], "worker"),
            (NOT_COMMITTED[-1], "worker"),
            (COMMITTED[0], "worker"),
        ],
        always=[(COMMITTED[0], "worker")],
    ),
)
def test_a_part_of_exactly_once_that_is_killed_on_a_worker_is_there_once(
    place: DaskPlace, tmp_path: Path, point: str, whose: str
) -> None:
    variables = deadly(tmp_path / "deadly", point, part=1)
    if whose == "worker":
        variables["RIG_KILL_PARENT"] = "1"  # the parent of a part's process is the worker
    for _ in range(3):
        place.rig.add_worker(environ=place.rig.environ | variables)
    place.set(**ONCE, verify="count")
    run = place.run()
    assert (tmp_path / "deadly" / "0.killed").exists(), "it was not killed"
    assert (run.verdict, run.rows_read, run.acknowledged) == ("complete", ROWS, ROWS), run.error_text
    assert [part.attempt for part in run.parts] == [1, 2, 1]
    ids = place.ids()
    assert ids.total() == len(ids) == ROWS
    assert Counter(place.sends()) == Counter({(message_id, "acknowledged"): 1 for message_id in ids})
    assert place.left() == []


@pytest.mark.slow
def test_a_killed_worker_costs_its_part_one_attempt(place: DaskPlace) -> None:
    place.rig.add_workers(3)
    place.set(SLOW_SQL, partitions={"column": "ID", "count": 3})
    verdict = place.start()
    until(lambda: place.lines().count("reading") + place.lines().count("sending") >= 2, "parts run")
    place.rig.workers[1].kill()
    run = verdict()
    assert (run.verdict, run.rows_read, run.acknowledged) == ("complete", 1200, 1200), run.error_text
    assert sorted(part.attempt for part in run.parts) == [1, 1, 2]
    assert any("was repeated" in warning for warning in run.warnings)
    assert len(set(place.ids())) == 1200
    assert len(place.sends()) == 1200
    assert place.left() == []


@pytest.mark.slow
def test_a_killed_scheduler_fails_the_run_and_what_was_sent_is_accounted_for(place: DaskPlace) -> None:
    place.rig.add_workers(2)
    place.set(SLOW_SQL)
    verdict = place.start()
    until(lambda: {"reading", "sending"} & set(place.lines()), "parts run")
    processes = part_processes(place.rig)
    place.rig.scheduler.end()
    run = verdict()
    assert run.state in ("failed", "partial")
    assert run.error_class == WorkersUnavailable.__name__
    assert run.error_retriable
    until(lambda: not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in processes), "parts end")
    assert len(place.sends()) == run.acknowledged
    assert place.left() == []


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGSTOP")
@pytest.mark.parametrize("when", ["a coordinator that no longer reads", "just after a commit"])
def test_scheduler_and_coordinator_killed_together_leave_no_send_out_of_the_metrics(
    place: DaskPlace, tmp_path: Path, when: str
) -> None:
    """What is visible on the topic is on the disk of the workspace before its commit, so the next attempt has all of it."""
    killed = tmp_path / "deadly" / "0.killed"
    variables = deadly(tmp_path / "deadly", COMMITTED[0], part=1) if when == "just after a commit" else {}
    for _ in range(3):
        place.rig.add_worker(environ=place.rig.environ | variables)
    slow = SLOW_SQL.replace("1200", str(ROWS))
    place.set(slow if not variables else SQL, **ONCE)
    words = command("run", "export", "--at", "2026-01-17T02:00+00:00")
    with (
        subprocess.Popen(words, cwd=place.folder, env=place.env, stdout=subprocess.DEVNULL) as coordinator,
        ExitStack() as end,
    ):
        end.callback(coordinator.kill)  # a stopped process never ends by itself, and a failed test would wait for it
        if variables:
            until(killed.exists, "no part has committed", timeout_s=240)
        else:
            written = tmp_path / "dask"
            # Processes of parts begin while the query is still split; one that stores rows has got its task.
            until(lambda: [*written.rglob("*.rows")], "no part reads", timeout_s=240)
            coordinator.send_signal(signal.SIGSTOP)
            until(lambda: [*written.glob("local-*/**/*.parquet")], "no part is about to commit", timeout_s=240)
            time.sleep(3)  # it would have committed by now
            assert part_processes(place.rig), "a part has committed without the coordinator"
        place.rig.scheduler.end("SIGKILL")
    until(lambda: not part_processes(place.rig), "a part goes on")
    visible = place.ids()
    place.env.pop("DASK_SCHEDULER_ADDRESS")  # the next attempt runs here
    place.set(slow if not variables else SQL, **ONCE)
    run = place.run()
    assert (run.verdict, run.rows_read, run.acknowledged) == ("complete", ROWS, ROWS), run.error_text
    ids = place.ids()
    assert ids.total() == len(ids) == ROWS
    assert visible <= ids
    assert Counter(place.sends()) == Counter({(message_id, "acknowledged"): 1 for message_id in ids})
    assert place.left() == []


@pytest.mark.slow
def test_a_cancel_reaches_the_workers(place: DaskPlace) -> None:
    place.rig.add_workers(2)
    place.set(SLOW_SQL)
    stop = Stop()
    verdict = place.start(stop)
    until(lambda: {"reading", "sending"} & set(place.lines()), "parts run")
    stop.set()
    run = verdict()
    assert run.state in ("cancelled", "partial")
    assert {part.state for part in run.parts} <= {"cancelled", "succeeded"}
    assert len(place.sends()) == run.acknowledged
    assert part_processes(place.rig) == []


def test_a_time_out_reaches_the_workers(place: DaskPlace) -> None:
    place.rig.add_workers(2)
    place.set(SLOW_SQL, timeout_s=4)
    run = place.run()
    assert run.error_class == "RunTimedOut"
    assert part_processes(place.rig) == []


def test_an_address_without_scheduler_is_the_error_of_the_run(place: DaskPlace) -> None:
    place.rig.scheduler.end()
    place.set(SQL)
    run = place.run()
    assert run.state == "failed"
    assert "nothing answers at the Dask scheduler" in (run.error_text or "")
    assert run.acknowledged == 0
    assert "dask scheduler" in (run.error_remedy or "")


def dask_results(place: DaskPlace) -> list[CheckResult]:
    with App.open(place.folder, place.env, log=False) as app:
        return [result for result in diagnose(app, lambda: datetime.now(UTC)) if result.subject == "dask"]


def test_doctor_reports_scheduler_workers_and_versions(place: DaskPlace) -> None:
    place.set(SQL)
    (without,) = dask_results(place)
    assert (without.status, "has no worker" in without.text) == ("fail", True)
    place.rig.add_workers(1)
    other = place.rig.environ | {"OTHER_WORKER": "version"}
    place.rig.add_worker("--preload", "tests.rigs.other_worker", environ=other)
    found = dask_results(place)
    assert [result.status for result in found] == ["pass", "fail"]
    assert place.rig.address in found[0].text
    assert f"2 workers on 1 host, 2 parts at once; version 0.9.0 on 1, {__version__} on 1" in found[0].text
    assert "has PSTT Kafka 0.9.0" in found[1].text
    place.rig.scheduler.end()
    (gone,) = dask_results(place)
    assert (gone.status, gone.unreachable) == ("fail", True)
    place.env["DASK_SCHEDULER_ADDRESS"] = ""
    assert dask_results(place) == []
