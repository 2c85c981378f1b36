"""Parts of a run on a real Dask cluster: they come back whole, also when workers, network or scheduler fail."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest

from core.errors import ConfigError, PsttError, WorkersUnavailable
from core.model.job import Job
from core.run.dask_parts import DaskParts
from core.run.parts import PartEvent, PartLost, PartProgress, PartResult, PartStep, PartTask
from core.version import __version__
from core.workspace.paths import Workspace
from core.workspace.settings import load_settings
from tests.rigs.certificates import make_certificates
from tests.rigs.dask import DaskRig
from tests.rigs.small_disk import small_disk
from tests.rigs.stand_in_part import content
from tests.rigs.sweeps import sweep
from tests.rigs.waiting import until

STAND_IN = "tests.rigs.stand_in_part"
SECRET = "sesame-4711-dask"
MEGABYTE = 1024 * 1024
A_MINUTE_S = 60
"""Of a fault, within which a part is reported as lost."""


class Cluster:
    """A cluster with a workspace of its own, and the events of its parts."""

    def __init__(self, folder: Path, rig: DaskRig, broker: int) -> None:
        self.rig = rig
        self.evidence = folder / "evidence"
        self.workspace = Workspace(folder / "workspace")
        self.variables = {
            "DASK_SCHEDULER_ADDRESS": rig.address,
            "KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{broker}",
            **{name: text for name, text in rig.environ.items() if name.startswith("DASK_DISTRIBUTED__")},
        }
        self.database = {"name": "A00", "db_type": "sqlite", "database": "a00.db"}
        self.seen: list[PartEvent] = []
        self.opened: list[DaskParts] = []

    def parts(self, module: str = STAND_IN, **variables: str) -> DaskParts:
        document = {"default_environment": "", "connections": [self.database]}
        self.workspace.connections_file.write_text(json.dumps(document), encoding="utf-8")
        settings = load_settings(self.workspace, self.variables | variables)
        self.opened.append(DaskParts(self.workspace, settings, self.variables, module=module))
        return self.opened[-1]

    def hold(self, phase: str, index: int = 0, attempt: int = 1) -> Path:
        """Lets a part wait in a phase until the file is deleted."""
        file = self.evidence / f"hold-{phase}-{index}-{attempt}"
        file.touch()
        return file

    def reached(self, phase: str, index: int = 0, attempt: int = 1) -> Callable[[], bool]:
        return (self.evidence / f"{phase}-{index}-{attempt}").exists

    def process(self, phase: str, index: int = 0, attempt: int = 1) -> psutil.Process:
        """The process that was in a phase."""
        return psutil.Process(int((self.evidence / f"{phase}-{index}-{attempt}").read_text()))

    def collect(self, parts: DaskParts, condition: Callable[[], object], timeout_s: float = A_MINUTE_S) -> None:
        """Reads events until the condition is true."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, self.seen
            self.seen += parts.events(0.2)

    def ends(self) -> list[PartEvent]:
        return [event for event in self.seen if not isinstance(event, PartProgress)]

    def progress(self) -> list[PartProgress]:
        return [event for event in self.seen if isinstance(event, PartProgress)]

    def all_end(self, parts: DaskParts, count: int) -> list[PartEvent]:
        """The next ends of parts, that many."""
        before = len(self.ends())
        self.collect(parts, lambda: len(self.ends()) >= before + count)
        return self.ends()[before:]

    def folder(self) -> Path:
        return self.workspace.state_dir / "parts" / "r1"


def task(index: int = 0, attempt: int = 1, size: int = 8000, **changes: object) -> PartTask:
    given = {
        "version": __version__,
        "run_id": "r1",
        "index": index,
        "count": 4,
        "attempt": attempt,
        "job": Job("clienti", "Clienti", "clienti.sql", "A00"),
        "connection": "A00",
        "cluster_key": "",
        "cluster": "KAFKA_* settings",
        "topic": str(size),
        "steps": [PartStep("SELECT 1")],
        "scheduled_at": datetime(2026, 1, 17, 2, tzinfo=UTC),
        "timezone": "Europe/Rome",
        "batch_size": 100,
        "fetch_rows": 1000,
        "stop_timeout_s": 5.0,
        "control_topic": "pstt-control",
        "folder": "parts/r1",
    }
    return PartTask(**(given | changes))  # type: ignore[arg-type]


@pytest.fixture
def broker() -> Iterator[int]:
    """A port that accepts connections, which is all that is asked of the brokers here."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.fixture
def cluster(tmp_path: Path, broker: int) -> Iterator[Callable[..., Cluster]]:
    """Starts a cluster with that many workers."""
    made: list[Cluster] = []
    rigs: list[DaskRig] = []

    def start(workers: int, environ: dict[str, str] | None = None, scheme: str = "tcp") -> Cluster:
        for name in ("evidence", "workspace"):
            (tmp_path / name).mkdir()
        given = {"STAND_IN_FOLDER": str(tmp_path / "evidence"), "PSTT_WORKSPACE": str(tmp_path), **(environ or {})}
        rig = DaskRig(tmp_path / "dask", given, scheme=scheme, clean=("KAFKA_", "PSTT_")).__enter__()
        rigs.append(rig)
        rig.add_workers(workers)
        made.append(Cluster(tmp_path, rig, broker))
        return made[-1]

    yield start
    for one in made:
        for parts in one.opened:
            parts.close()
    for rig in rigs:
        rig.__exit__()


def has_ended(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.status() == psutil.STATUS_ZOMBIE
    return True


# ── without a fault ───────────────────────────────────────────────────────────────────────────


def test_parts_run_on_all_workers_and_their_segments_come_back_whole(cluster: Callable[..., Cluster]) -> None:
    four = cluster(4)
    tasks = [task(index, size=3 * MEGABYTE + 8 * index) for index in range(4)]
    for one in tasks:
        four.hold("sending", one.index)
    with closing(four.parts()) as parts:
        for one in tasks:
            parts.start(one)
        four.collect(parts, lambda: all(four.reached("sending", index)() for index in range(4)))
        for one in tasks:  # all four run at once
            four.hold("sending", one.index).unlink()
        ends = four.all_end(parts, 4)
    assert sorted(end.index for end in ends) == [0, 1, 2, 3]
    assert all(isinstance(end, PartResult) and end.acknowledged == 100 and end.error is None for end in ends)
    assert len({end.worker for end in ends}) == 4
    assert all(socket.gethostname() in end.worker for end in ends)
    for one in tasks:
        assert (four.folder() / f"{one.name}.parquet").read_bytes() == content(one)
    assert not list(four.folder().glob("*.arriving"))
    assert {event.state for event in four.seen if isinstance(event, PartProgress)} >= {"reading", "sending"}


def test_scratch_of_a_part_is_removed_from_its_worker(cluster: Callable[..., Cluster]) -> None:
    one = cluster(1)
    with closing(one.parts()) as parts:
        parts.start(task())
        one.all_end(parts, 1)
    local = one.rig.folder / "local-0"
    until(lambda: not list(local.rglob("connections.json")), "the scratch folder is gone")


def test_more_parts_than_workers_wait_for_one(cluster: Callable[..., Cluster]) -> None:
    two = cluster(2)
    with closing(two.parts()) as parts:
        for index in range(6):
            parts.start(task(index))
        ends = two.all_end(parts, 6)
    assert sorted(end.index for end in ends) == [0, 1, 2, 3, 4, 5]
    assert all(isinstance(end, PartResult) for end in ends)


def test_file_that_the_part_needs_arrives_with_it(cluster: Callable[..., Cluster]) -> None:
    one = cluster(1)
    (one.workspace.root / "queries").mkdir()
    (one.workspace.root / "queries" / "clienti.sql").write_text("SELECT 4711", encoding="utf-8")
    with closing(one.parts()) as parts:
        parts.start(task(needs=["queries/clienti.sql", "connections.json"]))
        one.all_end(parts, 1)
    assert (one.evidence / "files-0").read_text() == "connections.json queries/clienti.sql"


# ── faults ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("phase", sweep(["reading", "sending", "committing"], always=["sending"]))
def test_killed_worker_loses_its_part_and_another_one_repeats_it(cluster: Callable[..., Cluster], phase: str) -> None:
    two = cluster(2)
    two.hold(phase)
    with closing(two.parts()) as parts:
        parts.start(task())
        two.collect(parts, two.reached(phase))
        two.collect(parts, lambda: two.seen)
        process = two.process(phase)
        worker = two.rig.worker_of(next(e.worker for e in two.seen if isinstance(e, PartProgress)))
        worker.kill()
        (lost,) = two.all_end(parts, 1)
        assert isinstance(lost, PartLost)
        assert str(worker.port) in lost.worker
        until(lambda: has_ended(process), "the part's own process ends with its worker")
        assert not two.reached("reading", 0, 2)()  # the executor itself repeats nothing
        parts.start(task(attempt=2))
        (end,) = two.all_end(parts, 1)
    assert isinstance(end, PartResult)
    assert (end.attempt, end.error) == (2, None)
    assert str(worker.port) not in end.worker
    assert (two.folder() / "r1-p0x2.parquet").is_file()


def test_worker_killed_while_its_segment_returns(cluster: Callable[..., Cluster]) -> None:
    two = cluster(2)
    with closing(two.parts()) as parts:
        parts.start(task(size=40 * MEGABYTE))
        two.collect(parts, lambda: two.reached("committing")() and two.progress())
        # Nothing reads: the queue of the scheduler is full with the first pieces of the segment.
        until(lambda: parts._pieces.qsize() == 8, "the first pieces are there")
        worker = two.rig.worker_of(two.progress()[0].worker)
        worker.kill()
        (lost,) = two.all_end(parts, 1)
        assert isinstance(lost, PartLost)
        assert not list(two.folder().iterdir())  # no half of a file is left
        parts.start(task(attempt=2, size=MEGABYTE))
        (end,) = two.all_end(parts, 1)
    assert isinstance(end, PartResult)
    assert (two.folder() / "r1-p0x2.parquet").stat().st_size == MEGABYTE


def test_killed_process_of_a_part_is_a_lost_part(cluster: Callable[..., Cluster]) -> None:
    one = cluster(1)
    one.hold("sending")
    with closing(one.parts()) as parts:
        parts.start(task())
        one.collect(parts, one.reached("sending"))
        process = one.process("sending")
        process.kill()
        (lost,) = one.all_end(parts, 1)
    assert isinstance(lost, PartLost)
    assert str(process.pid) in lost.why


def test_network_to_one_worker_is_cut(cluster: Callable[..., Cluster]) -> None:
    two = cluster(0)
    proxy = two.rig.proxy()
    two.rig.add_worker(via=proxy.port)
    for index in range(2):
        two.hold("sending", index)
    with closing(two.parts()) as parts:
        parts.start(task(0))
        two.collect(parts, two.reached("sending", 0))
        two.rig.add_worker()
        parts.start(task(1))
        two.collect(parts, two.reached("sending", 1))
        process = two.process("sending", 0)
        proxy.is_silent.set()
        (lost,) = two.all_end(parts, 1)
        assert isinstance(lost, PartLost)
        assert lost.index == 0
        assert re.search("has not reported for|has left the cluster", lost.why)
        two.hold("sending", 1).unlink()
        until(lambda: has_ended(process), "a worker that is cut off ends its part")
        parts.start(task(0, attempt=2))
        ends = two.all_end(parts, 2)
    assert {(end.index, end.attempt) for end in ends} == {(0, 2), (1, 1)}
    assert all(isinstance(end, PartResult) and end.error is None for end in ends)


def test_killed_scheduler_is_one_error_and_no_part_goes_on(cluster: Callable[..., Cluster]) -> None:
    one = cluster(1)
    one.hold("sending")
    with closing(one.parts()) as parts:
        parts.start(task())
        one.collect(parts, one.reached("sending"))
        process = one.process("sending")
        one.rig.scheduler.end()
        with pytest.raises(WorkersUnavailable, match=r"connection to the Dask scheduler .* is lost"):
            one.all_end(parts, 1)
    until(lambda: has_ended(process), "the part ends")


@pytest.mark.slow
def test_last_worker_that_is_gone_is_one_error(cluster: Callable[..., Cluster]) -> None:
    one = cluster(1)
    one.hold("sending")
    with closing(one.parts()) as parts:
        parts.start(task())
        parts.start(task(1))
        one.collect(parts, one.reached("sending"))
        one.rig.workers[0].kill()
        with pytest.raises(WorkersUnavailable, match="has no worker any more"):
            one.all_end(parts, 2)
    assert [type(end) for end in one.ends()] == [PartLost]


def test_cancel_reaches_parts_that_run_and_parts_that_wait(cluster: Callable[..., Cluster]) -> None:
    one = cluster(1)
    one.hold("sending")
    with closing(one.parts()) as parts:
        for index in range(3):
            parts.start(task(index))
        one.collect(parts, one.reached("sending"))
        parts.cancel(20)
        ends = one.all_end(parts, 3)
    assert all(isinstance(end, PartResult) and end.error and end.error.kind == "RunCancelled" for end in ends)
    assert {end.index: end.acknowledged for end in ends if isinstance(end, PartResult)} == {0: 50, 1: 0, 2: 0}
    assert not one.reached("reading", 1)()


def test_part_that_does_not_obey_is_ended_by_force(cluster: Callable[..., Cluster]) -> None:
    one = cluster(1)
    (one.evidence / "deaf").touch()
    one.hold("sending")
    with closing(one.parts()) as parts:
        parts.start(task(stop_timeout_s=1.0))
        one.collect(parts, one.reached("sending"))
        process = one.process("sending")
        parts.cancel(1)
        (lost,) = one.all_end(parts, 1)
    assert isinstance(lost, PartLost)
    assert has_ended(process)


def test_coordinator_that_is_killed_ends_its_parts(cluster: Callable[..., Cluster]) -> None:
    one = cluster(1)
    one.hold("sending")
    one.parts().close()  # writes connections.json
    program = (
        "import sys, time; from pathlib import Path; from tests.integration.test_dask import *\n"
        "workspace = Workspace(Path(sys.argv[1])); variables = dict(pair.split('=', 1) for pair in sys.argv[2:])\n"
        "parts = DaskParts(workspace, load_settings(workspace, variables), variables, module=STAND_IN)\n"
        "parts.start(task()); time.sleep(600)"
    )
    variables = [f"{name}={text}" for name, text in one.variables.items()]
    root = Path(__file__).parents[2]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (root, root / "tests")))}
    with subprocess.Popen(
        [sys.executable, "-c", program, str(one.workspace.root), *variables], cwd=root, env=environ
    ) as coordinator:
        try:
            until(one.reached("sending"), "the part runs")
        finally:
            coordinator.send_signal(signal.SIGTERM if os.name == "nt" else signal.SIGKILL)
    process = one.process("sending")
    until(lambda: has_ended(process), "the part ends")


def test_closed_executor_ends_its_parts(cluster: Callable[..., Cluster]) -> None:
    one = cluster(1)
    one.hold("sending")
    parts = one.parts()
    parts.start(task())
    until(one.reached("sending"), "the part runs")
    process = one.process("sending")
    parts.close()
    parts.close()
    until(lambda: has_ended(process), "the part ends")


# ── clusters that cannot be used ──────────────────────────────────────────────────────────────


def refused(cluster: Cluster, **variables: str) -> PsttError:
    """The error with which the first part is refused."""
    with closing(cluster.parts(**variables)) as parts, pytest.raises(PsttError) as caught:
        parts.start(task())
    assert not list(cluster.evidence.iterdir())
    return caught.value


def test_worker_of_another_version_is_refused(cluster: Callable[..., Cluster]) -> None:
    two = cluster(1)
    other = two.rig.add_worker(
        "--preload", "tests.rigs.other_worker", environ=two.rig.environ | {"OTHER_WORKER": "version"}
    )
    error = refused(two)
    assert isinstance(error, ConfigError)
    assert str(other.port) in error.what
    assert "0.9.0" in error.what
    assert __version__ in error.why
    assert __version__ in error.remedy


def test_worker_of_another_version_that_joins_later_runs_no_part(cluster: Callable[..., Cluster]) -> None:
    two = cluster(1)
    two.hold("sending")
    with closing(two.parts()) as parts:
        parts.start(task())
        two.collect(parts, two.reached("sending"))
        environ = two.rig.environ | {"OTHER_WORKER": "version"}
        two.rig.add_worker("--preload", "tests.rigs.other_worker", environ=environ)
        parts.start(task(1))
        (end,) = two.all_end(parts, 1)
    assert isinstance(end, PartResult)
    assert end.index == 1
    assert end.error is not None
    assert "0.9.0" in end.error.what
    assert not two.reached("reading", 1)()


def test_worker_without_the_product(cluster: Callable[..., Cluster]) -> None:
    two = cluster(0)
    environ = {name: text for name, text in two.rig.environ.items() if name != "PYTHONPATH"}
    worker = two.rig.add_worker(environ=environ)
    error = refused(two)
    assert f"127.0.0.1:{worker.port} cannot import PSTT Kafka" in error.what
    assert "PYTHONPATH" in error.remedy


def test_worker_without_the_driver(cluster: Callable[..., Cluster]) -> None:
    two = cluster(0)
    two.database = {"name": "A00", "db_type": "postgresql", "host": "db", "database": "a", "username": "u"}
    environ = two.rig.environ | {"OTHER_WORKER": "driver"}
    worker = two.rig.add_worker("--preload", "tests.rigs.other_worker", environ=environ)
    error = refused(two)
    assert f":{worker.port}" in error.what
    assert "driver for postgresql" in error.what
    assert "psycopg" in error.remedy


def test_worker_without_the_secret(cluster: Callable[..., Cluster]) -> None:
    one = cluster(1)
    one.database["password"] = "env:BOSC_PASSWORD"
    one.variables["BOSC_PASSWORD"] = SECRET
    error = refused(one)
    assert f":{one.rig.workers[0].port}" in error.what
    assert "env:BOSC_PASSWORD" in error.what
    assert SECRET not in str(error)


def test_worker_without_the_network_of_the_brokers(cluster: Callable[..., Cluster]) -> None:
    one = cluster(1)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    error = refused(one, KAFKA_BOOTSTRAP_SERVERS=f"127.0.0.1:{port}")
    assert error.is_retriable
    assert f":{one.rig.workers[0].port}" in error.what
    assert f"127.0.0.1:{port}" in error.why


def test_worker_without_room_on_its_disk(cluster: Callable[..., Cluster], tmp_path: Path) -> None:
    one = cluster(0)
    with small_disk(tmp_path / "disk", 16) as disk:
        worker = one.rig.add_worker(folder=disk)
        error = refused(one)
        worker.kill()
    assert f":{worker.port}" in error.what
    assert "MB are free in" in error.what
    assert "--local-directory" in error.remedy


def test_cluster_without_workers(cluster: Callable[..., Cluster]) -> None:
    error = refused(cluster(0))
    assert isinstance(error, WorkersUnavailable)
    assert "has no worker" in error.what


def test_password_in_the_file_itself_is_refused(cluster: Callable[..., Cluster]) -> None:
    one = cluster(1)
    one.database["password"] = SECRET
    error = refused(one)
    assert isinstance(error, ConfigError)
    assert "env:NAME" in error.remedy
    assert SECRET not in str(error)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", None])
def test_address_at_which_something_else_answers(tmp_path: Path, answer: bytes | None) -> None:
    (tmp_path / "connections.json").write_text("{}")
    held = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    accepted, _ = listener.accept()
                    held.append(accepted)
                    if answer:
                        accepted.sendall(answer)
                    if answer is not None:
                        accepted.close()

        threading.Thread(target=serve, daemon=True).start()
        address = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
        settings = load_settings(Workspace(tmp_path), {"DASK_SCHEDULER_ADDRESS": address})
        with pytest.raises(WorkersUnavailable, match=f"what answers at {address} is not a Dask scheduler"):
            DaskParts(Workspace(tmp_path), settings, {})
        listener.shutdown(socket.SHUT_RDWR)
    for one in held:
        one.close()


def test_address_at_which_nothing_answers(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
    settings = load_settings(Workspace(tmp_path), {"DASK_SCHEDULER_ADDRESS": address})
    with pytest.raises(WorkersUnavailable, match=f"nothing answers at the Dask scheduler {address}"):
        DaskParts(Workspace(tmp_path), settings, {})


# ── secrets and certificates ──────────────────────────────────────────────────────────────────


def test_secret_of_the_worker_is_used_and_none_crosses_the_network(cluster: Callable[..., Cluster]) -> None:
    own = "sesame-of-the-worker-4712"
    one = cluster(0)
    wire = bytearray()
    proxy = one.rig.proxy(record=wire)
    one.rig.add_worker(via=proxy.port, environ=one.rig.environ | {"BOSC_PASSWORD": own})
    one.database["password"] = "env:BOSC_PASSWORD"
    one.variables |= {
        "BOSC_PASSWORD": SECRET,
        "KAFKA_SASL_PASSWORD": SECRET,
        "DASK_SCHEDULER_ADDRESS": f"tcp://127.0.0.1:{proxy.port}",
    }
    with closing(one.parts()) as parts:
        parts.start(task(size=MEGABYTE))
        (end,) = one.all_end(parts, 1)
        memory = memory_of(one.rig.scheduler.pid)
    assert isinstance(end, PartResult)
    assert end.error is None
    assert (one.evidence / "secret-0").read_text() == own
    assert b"env:BOSC_PASSWORD" in wire  # the reference crosses it, and is not compressed
    for text in (SECRET, own):
        assert text.encode() not in wire
        assert text.encode() not in memory


def memory_of(pid: int) -> bytes:
    """Everything that a process has written in its memory; empty where the system does not show it."""
    maps, found = Path(f"/proc/{pid}/maps"), bytearray()
    if not maps.exists():
        return b""
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in maps.read_text().splitlines():
            where, rights, *_ = line.split()
            begin, end = (int(text, 16) for text in where.split("-"))
            if rights.startswith("rw"):
                with suppress(OSError):
                    memory.seek(begin)
                    found += memory.read(end - begin)
    return bytes(found)


def tls_variables(folder: Path) -> dict[str, str]:
    folder.mkdir()
    made = make_certificates(folder)
    prefix = "DASK_DISTRIBUTED__COMM__TLS__"
    roles = ("SCHEDULER", "WORKER")
    pairs = {f"{prefix}{role}__{key}": str(made.server) for role in roles for key in ("CERT", "KEY")}
    return pairs | {
        f"{prefix}CA_FILE": str(made.ca_file),
        f"{prefix}CLIENT__CERT": str(made.client_cert_file),
        f"{prefix}CLIENT__KEY": str(made.client_key_file),
        "DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION": "True",
    }


def test_cluster_with_certificates(cluster: Callable[..., Cluster], tmp_path: Path) -> None:
    variables = tls_variables(tmp_path / "tls")
    one = cluster(1, variables, "tls")
    with closing(one.parts()) as parts:
        parts.start(task())
        (end,) = one.all_end(parts, 1)
    assert isinstance(end, PartResult)
    assert "tls://" in end.worker
    # an authority that the scheduler does not know, and no TLS at all
    one.variables["DASK_DISTRIBUTED__COMM__TLS__CA_FILE"] = str(tmp_path / "tls" / "other-ca.pem")
    with pytest.raises(WorkersUnavailable, match="no TLS connection") as caught:
        one.parts()
    assert "CA_FILE" in caught.value.remedy
    address = one.rig.address.replace("tls:", "tcp:")
    with pytest.raises(WorkersUnavailable, match="is not a Dask scheduler") as caught:
        one.parts(DASK_SCHEDULER_ADDRESS=address)
    assert "tls://" in caught.value.remedy
