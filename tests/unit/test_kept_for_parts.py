"""What a process keeps from one part of a run to the next: publishers, and on a Dask worker the process itself."""

from __future__ import annotations

import tempfile
from pathlib import Path

from core.model.connection import Cluster
from core.run.dask_processes import KeptProcesses, WorkerProcess
from core.run.kept_publishers import KeptPublishers
from core.run.local_parts import LocalProcesses
from core.workspace.paths import Workspace
from tests.rigs.waiting import until

ONE = Cluster("one", bootstrap_servers="127.0.0.1:1")
OTHER = Cluster("other", bootstrap_servers="127.0.0.1:2")


def test_a_publisher_is_used_again_for_the_same_cluster_only():
    kept = KeptPublishers()
    with kept.borrow(ONE, transactional_id=None, max_in_flight=10) as loan:
        first = loan.publisher
        loan.is_reusable = True
    with kept.borrow(OTHER, transactional_id=None, max_in_flight=10) as other:
        assert other.publisher is not first
    with kept.borrow(ONE, transactional_id=None, max_in_flight=10) as again:
        assert again.publisher is first
        with kept.borrow(ONE, transactional_id=None, max_in_flight=10) as beside:
            assert beside.publisher is not first  # each has one user at a time
    kept.close()


def test_a_publisher_of_a_failed_part_or_of_a_transaction_is_not_used_again():
    kept = KeptPublishers()
    with kept.borrow(ONE, transactional_id=None, max_in_flight=10) as failed:
        pass
    with kept.borrow(ONE, transactional_id="part-1", max_in_flight=10) as transaction:
        transaction.is_reusable = True
    with kept.borrow(ONE, transactional_id=None, max_in_flight=10) as third:
        assert third.publisher is not failed.publisher
        assert third.publisher is not transaction.publisher
    kept.close()


def test_what_is_returned_after_the_end_is_not_kept():
    kept = KeptPublishers()
    with kept.borrow(ONE, transactional_id=None, max_in_flight=10) as loan:
        kept.close()
        loan.is_reusable = True
    with kept.borrow(ONE, transactional_id=None, max_in_flight=10) as next_one:
        assert next_one.publisher is not loan.publisher


def worker_process(folder: Path) -> WorkerProcess:
    scratch = tempfile.TemporaryDirectory(dir=folder)
    return WorkerProcess(scratch, Workspace(Path(scratch.name)), LocalProcesses(Path(scratch.name), 1))


def test_a_process_is_kept_for_its_run_only_until_it_is_released(tmp_path: Path):
    kept = KeptProcesses()
    process = worker_process(tmp_path)
    kept.keep("run-1", process)
    assert kept.take("run-2") is None
    assert kept.take("run-1") is process
    assert kept.take("run-1") is None
    kept.keep("run-1", process)
    kept.release("run-2")
    assert list(tmp_path.iterdir())
    kept.release("run-1")
    assert not list(tmp_path.iterdir())
    assert kept.take("run-1") is None


def test_a_process_whose_coordinator_is_gone_ends_by_itself(tmp_path: Path):
    kept = KeptProcesses(idle_s=0.01)
    kept.keep("run-1", worker_process(tmp_path))
    until(lambda: not list(tmp_path.iterdir()), "its scratch workspace is deleted")
    assert kept.take("run-1") is None
