"""What a worker of a Dask cluster does for one part: it runs it in a process of its own and sends back what comes of it.

Two queues of the scheduler lead to the coordinator. Small ones, events, are dropped while it is busy; files and the
result wait for it, in pieces, so that neither worker nor scheduler holds a whole file in memory.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from core.errors import BrokerUnavailable, ConfigError, PsttError, StorageFailed
from core.kafka import import_client
from core.model.connection import Cluster
from core.run.dask_cluster import Examined, other_version, worker_label
from core.run.dask_processes import KeptProcesses, WorkerProcess
from core.run.local_parts import LocalProcesses
from core.run.parts import PartError, PartEvent, PartLost, PartProgress, PartResult, PartTask
from core.sources import find_dialect, import_driver
from core.version import __version__
from core.workspace.connections import load_connections
from core.workspace.paths import Workspace
from core.workspace.references import References
from core.workspace.settings import load_settings, read_env_file

if TYPE_CHECKING:
    from distributed import Client, Queue

__all__ = ["PIECES_AT_ONCE", "Delivery", "PartOrder", "decode_delivery", "examine", "release", "run_order"]

PIECE_BYTES = 1024 * 1024
PIECES_AT_ONCE = 8
"""In the scheduler's queue."""
MOST_EVENTS = 200
"""In the queue of events; more mean that the coordinator is busy."""
POLL_S = 0.5
STORED_POLL_S = 0.1
"""While a transaction waits for the coordinator's disk."""
CANCEL_EVERY_S = 1.0
PROGRESS_S = 1.0
"""How often the progress of a part is reported, besides each change of its state."""
QSIZE_EVERY = 5
"""Reports after which the number of waiting ones is asked for."""
BEAT_S = 2.0
"""A part without progress is reported as alive this often."""
ANSWER_S = 20.0
"""A scheduler that does not answer a short question for so long is lost, and with it the coordinator."""
WAIT_S = 900.0
"""How long a file waits for a coordinator that is busy."""
LITTLE_SPACE_BYTES = 64 * 1024**2
BROKER_S = 3.0


DeliveryKind = Literal["alive", "event", "piece", "stored", "end"]


class PartOrder(msgspec.Struct, frozen=True):
    """A part and what it needs, as bytes. It has no secret."""

    task: PartTask
    references: References
    files: dict[str, bytes]
    """Files of the workspace: path with slashes → content."""
    events: str
    """Name of the queue of events."""
    pieces: str
    """Name of the queue of files and results."""
    begin: str
    """Name of the queue with one token: who takes it begins the part. Dask starts a task again by itself, we do not."""
    stored: str
    """Name of the queue with which the coordinator answers that the files of this attempt are on its disk."""
    cancel: str
    """Name of the event that asks all parts to end."""
    module: str = "core"
    """What runs a part: `python -m MODULE part`."""
    prepares: bool = False
    """Whether a worker that is examined also starts the process of its first part."""


class Delivery(msgspec.Struct, frozen=True):
    """One message from a worker to the coordinator."""

    index: int
    attempt: int
    kind: DeliveryKind
    """`stored`: the files so far have been sent; a transaction waits until they are on the coordinator's disk."""
    worker: str = ""
    """For display."""
    address: str = ""
    """`alive`: the worker's address in Dask."""
    event: PartEvent | None = None
    name: str = ""
    """`piece`: the file."""
    data: bytes = b""
    is_last: bool = False


_decoder = msgspec.msgpack.Decoder(Delivery)


_kept = KeptProcesses()


def decode_delivery(message: bytes) -> Delivery:
    """Returns a message of a worker."""
    return _decoder.decode(message)


def examine(worker: Any, order: bytes) -> bytes:
    """Returns an `Examined` of this worker as JSON.

    Args:
        worker: The worker of distributed.
        order: A `PartOrder` as msgpack; empty: only the version is wanted. An order of another version is not decoded.
    """
    found = Examined(worker.address, socket.gethostname(), __version__)
    version, _, body = order.partition(b"\n")
    if version and version.decode() != __version__:
        return msgspec.json.encode(found)
    try:
        if body:
            wanted = msgspec.msgpack.decode(body, type=PartOrder)
            _examine(wanted, Path(worker.local_directory))
            if wanted.prepares:
                process = _new_process(wanted, worker.local_directory)
                process.local.prepare(wanted.task, 1)
                _kept.keep(wanted.events, process)
    except PsttError as error:
        place = worker_label(found.host, found.address)
        problem = msgspec.structs.replace(PartError.of(error), what=f"worker {place}: {error.what}")
        found = msgspec.structs.replace(found, problem=problem)
    return msgspec.json.encode(found)


def _examine(order: PartOrder, local: Path) -> None:
    """Raises what would fail in a part: no driver, no secret, no room, no network to the brokers."""
    free = shutil.disk_usage(local).free
    if free < LITTLE_SPACE_BYTES:
        raise StorageFailed(
            f"{free / 1e6:,.0f} MB are free in {local}",
            why=f"a part needs {LITTLE_SPACE_BYTES // 1024**2} MB for its sends",
            remedy="free space there, or start `dask worker` with another --local-directory",
        )
    with tempfile.TemporaryDirectory(dir=local) as folder:
        scratch, variables = _prepared(order, Path(folder))
        settings = load_settings(scratch, variables)
        connections = load_connections(scratch, settings, variables)
        database = connections.database(order.task.connection)
        dialect = find_dialect(database.db_type)
        try:
            import_driver(database.db_type)
        except ImportError as error:
            raise ConfigError(
                f"the driver for {dialect.name} is missing", why=str(error), remedy=dialect.install
            ) from None
        if missing := dialect.missing(database.driver):
            raise ConfigError(missing.text, remedy=missing.remedy)
        _check_cluster(connections.cluster_at(order.task.cluster_key or None, settings))


def _check_cluster(cluster: Cluster) -> None:
    try:
        import_client(cluster.client)
    except ImportError as error:
        raise ConfigError(
            f"the library of KAFKA_CLIENT={cluster.client} is missing",
            why=str(error),
            remedy="install requirements.txt",
        ) from None
    if cluster.mock_brokers:
        raise ConfigError(
            f'cluster "{cluster.name}" has mock brokers',
            why="each process would have its own",
            remedy="remove DASK_SCHEDULER_ADDRESS for the demo",
        )
    failures = []
    for server in cluster.bootstrap_servers.split(","):
        host, _, port = server.strip().rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=BROKER_S).close()
        except OSError as error:
            failures.append(f"{server.strip()}: {error.strerror or error}")
        else:
            return
    raise BrokerUnavailable(
        f'no broker of cluster "{cluster.name}" can be reached',
        why="; ".join(failures),
        remedy="open the network between this worker and the brokers",
    )


def _prepared(order: PartOrder, folder: Path) -> tuple[Workspace, dict[str, str]]:
    """Fills a scratch workspace for one part; returns it and the environment of the part's process.

    Secrets are those of this machine: its environment, the `.env` and the files of PSTT_WORKSPACE (default: the folder
    in which the worker was started), its keyring.
    """
    home = Workspace.find(None, os.environ)
    scratch = Workspace(folder)
    order.references.write(scratch, home.root)
    own = {name: value for name, (value, _) in read_env_file(home.env_file).items()}
    variables: Mapping[str, str] = {**own, **os.environ}
    return scratch, order.references.environment(variables, home.root)


def run_order(message: bytes) -> None:
    """Runs a part to its end and sends events, files and the result to the coordinator: the task of Dask."""
    from distributed import get_client, get_worker

    version, _, body = message.partition(b"\n")
    client, worker = get_client(timeout=ANSWER_S), get_worker()
    if version.decode() != __version__:  # it has joined since the workers were examined
        raise other_version(Examined(worker.address, socket.gethostname(), __version__))
    order = msgspec.msgpack.decode(body, type=PartOrder)
    with _Line(client, order, worker) as line:
        if not line.may_begin():
            return
        _run(order, worker.local_directory, line)


def release(run: str) -> None:
    """Ends the processes that this worker keeps for a run: its coordinator has closed it.

    Args:
        run: `PartOrder.events`, the name that is the run's alone.
    """
    _kept.release(run)


def _new_process(order: PartOrder, local_directory: str) -> WorkerProcess:
    folder = tempfile.TemporaryDirectory(dir=local_directory, ignore_cleanup_errors=True)
    try:
        scratch, variables = _prepared(order, Path(folder.name))
    except BaseException:
        folder.cleanup()
        raise
    return WorkerProcess(folder, scratch, LocalProcesses(scratch.root, 1, environ=variables, module=order.module))


def _run(order: PartOrder, local_directory: str, line: _Line) -> None:
    task, process = order.task, None
    is_reusable = False
    try:
        try:
            process = _kept.take(order.events) or _new_process(order, local_directory)
            process.write_files(order.files)
            process.local.start(task)
            last = _followed(process.local, task, process.scratch.state_dir / task.folder, line)
        except PsttError as error:
            last = PartResult(index=task.index, attempt=task.attempt, error=PartError.of(error))
        if process is not None and isinstance(last, PartResult):
            folder = process.scratch.state_dir / task.folder
            for name in [*last.segments, *([last.rejects_file] if last.rejects_file else [])]:
                line.send_file(folder / name)
            process.clear(folder)
            is_reusable = last.error is None
        # Kept before the end is reported, upon which the coordinator may release the processes of the run.
        if process is not None and is_reusable:
            _kept.keep(order.events, process)
        if last is not None:
            line.end(last)
    finally:
        if process is not None and not is_reusable:
            process.close()


def _followed(local: LocalProcesses, task: PartTask, folder: Path, line: _Line) -> PartResult | PartLost | None:
    """Reports the progress of a part until it ends; None: the coordinator no longer wants it."""
    line.alive()
    is_cancelled = is_waiting = False
    while line.is_wanted():
        for event in local.events(STORED_POLL_S if is_waiting else POLL_S):
            if not isinstance(event, PartProgress):
                return event
            line.progress(event)
            if task.confirm and event.state == "committing":
                for file in sorted(folder.glob(f"{task.name}[-.]*")):
                    if file.suffix in (".parquet", ".rejects"):
                        line.send_file(file)
                line.ask_stored()
                is_waiting = True
        # What readers of the topic will see has to be on the coordinator's disk too, whoever is killed after the commit.
        if is_waiting and line.is_stored():
            is_waiting = False
            local.confirm()
        if not is_cancelled and line.is_cancelled():
            is_cancelled = True
            local.cancel(task.stop_timeout_s)
        line.beat()
    return None


class _Line:
    """The connection of a running part to its coordinator; a context manager."""

    def __init__(self, client: Client, order: PartOrder, worker: Any) -> None:
        self._order = order
        self._client = client
        self._worker = worker
        self._key = worker.get_current_task()
        self._label = worker_label(socket.gethostname(), worker.address)
        self._queues: list[Queue] = []
        self._sent: set[str] = set()
        self._spoken = self._asked = self._progressed = float("-inf")
        self._state = ""
        self._reports = 0
        self._has_room = True

    def __enter__(self) -> _Line:
        order = self._order
        self._events = self._queue(order.events)
        self._pieces = self._queue(order.pieces, PIECES_AT_ONCE)
        self._stored = self._queue(order.stored)
        return self

    def __exit__(self, *exc_info: object) -> None:
        for queue in self._queues:
            queue.close()

    def may_begin(self) -> bool:
        """Takes the token of this attempt; False if another worker had it, or the coordinator took it back."""
        return bool(self._queue(self._order.begin).get(batch=True, callback_timeout=ANSWER_S))

    def is_wanted(self) -> bool:
        """Returns whether the task is still to run: Dask cancels it if the coordinator gives it up or is gone."""
        if self._worker.status.name not in ("running", "paused"):
            return False
        task = self._worker.state.tasks.get(self._key)
        return task is not None and task.state not in ("cancelled", "resumed", "released")

    def is_cancelled(self) -> bool:
        """Asks, once in a while, whether the run was cancelled. Raises TimeoutError if the scheduler is lost."""
        now = time.monotonic()
        if now - self._asked < CANCEL_EVERY_S:
            return False
        self._asked = now
        ask = self._client.scheduler.event_is_set
        return bool(self._client.sync(ask, name=self._order.cancel, callback_timeout=ANSWER_S))

    def beat(self) -> None:
        """Reports that the part runs, if nothing was reported for 2 s."""
        if time.monotonic() - self._spoken >= BEAT_S:
            self.alive()

    def alive(self) -> None:
        """Reports that the part runs here."""
        self._report(self._delivery("alive", address=self._worker.address))

    def progress(self, event: PartProgress) -> None:
        """Reports progress, with the name of this worker: each state, and the counts once a second."""
        now = time.monotonic()
        if event.state == self._state and now - self._progressed < PROGRESS_S:
            return
        self._state, self._progressed = event.state, now
        self._report(self._delivery("event", event=msgspec.structs.replace(event, worker=self._label)))

    def send_file(self, file: Path) -> None:
        """Sends a file in pieces, once; waits while the coordinator has some to read."""
        name, size = file.name, file.stat().st_size
        if name in self._sent:
            return
        self._sent.add(name)
        with file.open("rb") as content:
            sent = 0
            while sent < size or not size:
                data = content.read(PIECE_BYTES)
                sent += len(data)
                self._wait(self._delivery("piece", name=name, data=data, is_last=sent >= size))
                if sent >= size:
                    return

    def ask_stored(self) -> None:
        """Asks the coordinator to answer when it has stored the files that were sent."""
        self._wait(self._delivery("stored"))

    def is_stored(self) -> bool:
        """Returns whether it has answered that."""
        return bool(self._stored.get(batch=True, callback_timeout=ANSWER_S))

    def end(self, event: PartResult | PartLost) -> None:
        """Sends the end of the part, after its files."""
        self._wait(self._delivery("end", event=msgspec.structs.replace(event, worker=self._label)))

    def _delivery(self, kind: DeliveryKind, **what: Any) -> Delivery:
        task = self._order.task
        return Delivery(task.index, task.attempt, kind, self._label, **what)

    def _report(self, delivery: Delivery) -> None:
        self._spoken = time.monotonic()
        if self._reports % QSIZE_EVERY == 0 or not self._has_room:
            self._has_room = self._events.qsize(callback_timeout=ANSWER_S) < MOST_EVENTS
        self._reports += 1
        if self._has_room:
            self._events.put(msgspec.msgpack.encode(delivery), callback_timeout=ANSWER_S)

    def _wait(self, delivery: Delivery) -> None:
        self._pieces.put(msgspec.msgpack.encode(delivery), timeout=WAIT_S, callback_timeout=WAIT_S + ANSWER_S)

    def _queue(self, name: str, size: int = 0) -> Queue:
        from distributed import Queue

        queue = Queue(name, client=self._client, maxsize=size)
        self._queues.append(queue)
        return queue
