"""Runs the parts of a run on a Dask cluster: one task a part, each in a process of its own on its worker.

Dask decides which worker runs a part. What it must not decide is whether a part is run again: a task whose worker is
lost is started again by Dask itself, also with `retries=0`. So each attempt has one token in a queue of the scheduler,
and the task that takes it begins; a second one ends at once, and the part is reported as lost to the coordinator.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeVar

import msgspec

from core.errors import ConfigError, PsttError, RunCancelled, StorageFailed, WorkersUnavailable
from core.records.merged_segments import sent_by
from core.records.segments import flush_folder, segments_of
from core.run.dask_cluster import (
    call_by_name,
    connect,
    examine_workers,
    lost_scheduler,
    other_version,
)
from core.run.dask_worker import PIECES_AT_ONCE, Delivery, PartOrder, decode_delivery
from core.run.part_results import counts_of
from core.run.parts import PartError, PartEvent, PartLost, PartResult, PartTask
from core.version import __version__
from core.workspace.paths import Workspace
from core.workspace.references import references_of
from core.workspace.settings import Settings

if TYPE_CHECKING:
    from distributed import Client, Future, Queue

__all__ = ["DaskParts"]

End = TypeVar("End", bound=PartEvent | None)

WITH_SECRETS = ("connections.json", ".env")
"""They stay here: a part gets references instead."""
POLL_S = 0.5
"""How often the queues are read while parts read: each time is two questions to the scheduler. A task that ends wakes
the coordinator at once."""
FAST_POLL_S = 0.1
"""While a part sends its files or waits until they are stored."""
WORKERS_EVERY_S = 2.0
"""How often the list of workers is read while a part is silent."""
SILENT_S = 3.0
"""A part reports every 2 s; from then on its worker is looked for in that list."""
LOST_S = 25.0
"""A part without a report for so long is lost. Dask itself waits 5 minutes if the network is cut (worker-ttl)."""
NO_WORKERS_S = 30.0
"""How long parts wait for a first worker, for example while one is restarted."""
ANSWER_S = 15.0
"""How long the scheduler may take to answer a short question."""
RELEASE_S = 5.0
"""How long workers may take to end the processes of a run; those that do not answer end them after a minute."""
FORCE_S = 5.0
"""After `cancel`, a worker ends a part by force itself; this long its report may take."""


@dataclass(slots=True)
class _Part:
    """One attempt of a part that has no end yet."""

    task: PartTask
    future: Future
    token: Queue
    stored: Queue
    """Answers the worker that the files of the part are on the disk."""
    address: str = ""
    """Its worker in Dask; empty: it has not begun."""
    worker: str = ""
    """The same for display."""
    is_ending: bool = False
    """Whether it commits, or its files are arriving."""
    heard_at: float = 0.0
    """When it reported last; later by the time in which this side did not listen."""
    files: dict[str, BinaryIO] = field(default_factory=dict)


class DaskParts:
    """A `PartExecutor` over the Dask cluster of DASK_SCHEDULER_ADDRESS.

    Each worker has to have this version of the product. A part gets what it needs of connections.json and of the
    settings, without secrets: its references are resolved on the worker.

    Args:
        workspace: Where segments of the parts are written to, and where connections.json is.
        settings: The address, and the settings of a part.
        variables: Environment and `.env`, for Dask's own settings.
        module: What runs a part on a worker: `python -m MODULE part`.
        clock: Monotonic seconds.

    Raises:
        ConfigError: dask is not installed, or its TLS settings cannot be used.
        WorkersUnavailable: No scheduler answers at the address.
    """

    def __init__(
        self,
        workspace: Workspace,
        settings: Settings,
        variables: Mapping[str, str],
        *,
        module: str = "core",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._workspace = workspace
        self._settings = settings
        self._module = module
        self._clock = clock
        self._client: Client = connect(settings.DASK_SCHEDULER_ADDRESS or "", variables)
        self._name = f"pstt-{uuid.uuid4().hex}"
        self._events = self._queue("events")
        self._pieces = self._queue("pieces", PIECES_AT_ONCE)
        self._parts: dict[tuple[int, int], _Part] = {}
        self._early: list[PartEvent] = []
        """Events that are known before the caller asks for them."""
        self._is_examined = False
        self._woken = threading.Event()
        """Set when a task ends."""
        self._force_at: float | None = None
        self._workers_at = self._listened_at = clock()
        self._no_workers_s = 0.0

    def prepare(self, task: PartTask, parts: int) -> None:
        """Examines the workers, each of which starts a process if all get a part; see `PartExecutor`.

        Raises:
            PsttError: As `start`.
        """
        with self._answering():
            prepares = parts >= len(self._client.nthreads())
            unwritten = msgspec.structs.replace(task, needs=[])  # what parts read may be made only after the split
            self._examine(self._order(unwritten, self._name, prepares=prepares))

    def start(self, task: PartTask) -> None:
        """Submits a part; see `PartExecutor`.

        Raises:
            PsttError: No worker is there, or one cannot run parts of this run: other version, no driver, no secret,
                no room on its disk, no network to the brokers.
        """
        token_name = f"{self._name}-{task.index}-{task.attempt}"
        order = self._order(task, token_name)
        with self._answering():
            if not self._is_examined:
                self._examine(order)
            token = self._queue(token_name.removeprefix(f"{self._name}-"))
            token.put(1, callback_timeout=ANSWER_S)
            stored = self._queue(_stored_name(token_name).removeprefix(f"{self._name}-"))
            future = self._client.submit(
                call_by_name("core.run.dask_worker", "run_order"), order, key=token_name, pure=False, retries=0
            )
        self._parts[task.index, task.attempt] = _Part(task, future, token, stored)
        future.add_done_callback(lambda _: self._woken.set())

    def events(self, timeout_s: float) -> list[PartEvent]:
        """Waits for events; see `PartExecutor`.

        Raises:
            WorkersUnavailable: The scheduler is lost, or there is no worker for 30 s.
            StorageFailed: A segment cannot be written.
        """
        found, self._early = self._early, []
        self._excuse()
        deadline = self._clock() + timeout_s
        with self._answering():
            while True:
                # Before the queues are read: what a finished task has sent is in them by now.
                finished = [part for part in self._parts.values() if part.future.done()]
                found += self._received()
                found += self._without_end(finished)
                found += self._silent()
                found += self._forced()
                self._listened_at = self._clock()
                if found or not self._parts or self._listened_at >= deadline:
                    return found
                poll_s = FAST_POLL_S if any(part.is_ending for part in self._parts.values()) else POLL_S
                self._woken.wait(min(poll_s, deadline - self._listened_at))
                self._woken.clear()

    def cancel(self, within_s: float) -> None:
        """Asks every part to end; see `PartExecutor`."""
        from distributed import Event

        with self._answering():
            Event(f"{self._name}-cancel", client=self._client).set()
            for part in list(self._parts.values()):
                # Who has the token decides: with it here the part can no longer begin.
                if not part.address and part.token.get(batch=True, callback_timeout=ANSWER_S):
                    error = RunCancelled("the part was cancelled before it began")
                    self._early.append(self._ended(part, _result(part.task, error)))
        force_at = self._clock() + within_s + FORCE_S
        self._force_at = force_at if self._force_at is None else min(force_at, self._force_at)

    def close(self) -> None:
        """Ends all parts by force; see `PartExecutor`."""
        if self._client.status == "closed":
            return
        with suppress(Exception):  # the scheduler may be gone
            for part in list(self._parts.values()):
                self._ended(part, None)
            self._client.sync(self._client.scheduler.event_clear, name=f"{self._name}-cancel", callback_timeout=5)
            for queue in (self._events, self._pieces):
                queue.get(batch=True, callback_timeout=5)
                queue.close()
        with suppress(Exception):
            self._release()
        with suppress(Exception):
            self._client.close(timeout=5)

    def _release(self) -> None:
        """Ends the processes that workers keep for this run."""

        async def release(run: str) -> None:
            await asyncio.to_thread(import_module("core.run.dask_worker").release, run)

        if self._is_examined:
            self._client.run(release, f"{self._name}-events", on_error="ignore", callback_timeout=RELEASE_S)

    def _order(self, task: PartTask, token_name: str, *, prepares: bool = False) -> bytes:
        order = PartOrder(
            task=msgspec.structs.replace(task, confirm=task.once is not None),
            references=references_of(self._workspace, self._settings, task.connection, task.cluster_key),
            files={name: self._workspace.inside(name).read_bytes() for name in task.needs if name not in WITH_SECRETS},
            events=f"{self._name}-events",
            pieces=f"{self._name}-pieces",
            begin=token_name,
            stored=_stored_name(token_name),
            cancel=f"{self._name}-cancel",
            module=self._module,
            prepares=prepares,
        )
        # The version comes first and apart: a worker of another one could not read the rest.
        return __version__.encode() + b"\n" + msgspec.msgpack.encode(order)

    def _examine(self, order: bytes) -> None:
        """Raises if there is no worker, or if one of them could not run a part."""
        examined = examine_workers(self._client, order)
        if not examined:
            raise WorkersUnavailable(
                f"the Dask scheduler {self._settings.DASK_SCHEDULER_ADDRESS} has no worker",
                remedy="start at least one with `dask worker` (docs/SCALE.md)",
            )
        for worker in examined:
            if worker.problem:
                raise worker.problem.error
            if worker.version != __version__:
                raise other_version(worker)
        self._is_examined = True

    def _received(self) -> list[PartEvent]:
        """Returns the events that are in the queues, and writes the files."""
        found: list[PartEvent] = []
        for queue in (self._events, self._pieces):
            while messages := queue.get(batch=True, callback_timeout=ANSWER_S * 4):
                found += filter(None, (self._take(decode_delivery(message)) for message in messages))
        return found

    def _take(self, delivery: Delivery) -> PartEvent | None:
        part = self._parts.get((delivery.index, delivery.attempt))
        if part is None:  # it was given up
            return None
        part.heard_at = self._clock()
        part.worker = delivery.worker
        part.address = delivery.address or part.address
        part.is_ending = delivery.kind in ("piece", "stored") or getattr(delivery.event, "state", "") == "committing"
        if delivery.kind == "piece":
            self._write(part, delivery)
        if delivery.kind == "stored":  # its pieces have come before it, and are written
            part.stored.put(1, callback_timeout=ANSWER_S)
        if delivery.kind == "end" and delivery.event is not None:
            end = self._ended(part, delivery.event)
            return self._with_stored(part.task, end) if isinstance(end, PartResult) and end.taken_over else end
        return delivery.event

    def _with_stored(self, task: PartTask, result: PartResult) -> PartResult:
        """Adds the files of the attempt that had committed: they have come back before its commit."""
        folder = self._workspace.inside(task.folder, self._workspace.state_dir)
        for attempt in range(task.attempt - 1, 0, -1):
            name = f"{task.run_id}-p{task.index}x{attempt}"
            segments = segments_of(folder, name)
            sends = sent_by(folder, name)
            if result.segments or not segments or sends.acknowledged != result.acknowledged:
                continue
            rejects = folder / f"{name}.rejects"
            return msgspec.structs.replace(
                result,
                segments=[segment.name for segment in segments],
                rejects_file=rejects.name if rejects.exists() else result.rejects_file,
                **counts_of(dataclasses.replace(sends, failed=0, retried=0)),
            )
        return result

    def _write(self, part: _Part, delivery: Delivery) -> None:
        folder = self._workspace.inside(part.task.folder, self._workspace.state_dir)
        path = self._workspace.inside(delivery.name, folder)
        arriving = path.with_name(path.name + ".arriving")
        try:
            if delivery.name not in part.files:
                path.parent.mkdir(parents=True, exist_ok=True)
                part.files[delivery.name] = arriving.open("wb")
            part.files[delivery.name].write(delivery.data)
            if delivery.is_last:
                with part.files.pop(delivery.name) as file:
                    if part.task.once:  # its transaction is committed when this is on the disk
                        file.flush()
                        os.fsync(file.fileno())
                arriving.replace(path)
                if part.task.once:
                    flush_folder(path.parent)
        except OSError as error:
            raise StorageFailed(
                f"{path.name} of part {part.task.index + 1} cannot be written",
                why=error.strerror or type(error).__name__,
                remedy="make room on the disk of the workspace",
            ) from None

    def _without_end(self, finished: Sequence[_Part]) -> list[PartEvent]:
        """Returns the ends of parts whose task is over, and of which no end has arrived."""
        found: list[PartEvent] = []
        for part in finished:
            if (part.task.index, part.task.attempt) not in self._parts:
                continue
            if part.future.status == "error":
                found.append(self._ended(part, self._raised(part)))
            else:
                found.append(self._ended(part, self._lost(part, "its worker was lost, and Dask has started it again")))
        return found

    def _raised(self, part: _Part) -> PartEvent:
        """Returns the end of a part whose task has raised: outside the part itself, in what surrounds it."""
        error = part.future.exception(timeout=ANSWER_S)
        if isinstance(error, PsttError):
            return _result(part.task, error, part.worker)
        if isinstance(error, ImportError):
            refused = ConfigError("a worker cannot import PSTT Kafka", why=str(error), remedy="install it there")
            return _result(part.task, refused, part.worker)
        return self._lost(part, str(error).splitlines()[0] if str(error) else type(error).__name__)

    def _excuse(self) -> None:
        """Moves the last report of each part by the time that the caller needed since the last call."""
        away_s = self._clock() - self._listened_at
        for part in self._parts.values():
            part.heard_at += away_s

    def _silent(self) -> list[PartEvent]:
        """Returns the ends of parts whose worker is gone, or is not heard of for too long."""
        now = self._clock()
        running = [part for part in self._parts.values() if part.address]
        silent = [part for part in running if now - part.heard_at >= SILENT_S]
        waiting = len(running) < len(self._parts)
        if not (waiting or silent) or now - self._workers_at < WORKERS_EVERY_S:
            return []
        since_s = min(now - self._workers_at, NO_WORKERS_S / 4)
        self._workers_at = now
        workers = self._client.sync(self._client.scheduler.ncores, callback_timeout=ANSWER_S)
        self._no_workers_s = 0.0 if workers or not waiting else self._no_workers_s + since_s
        self._require_workers()
        found: list[PartEvent] = []
        for part in silent:
            silent_s = now - part.heard_at
            if part.address not in workers:
                found.append(self._ended(part, self._lost(part, f"worker {part.worker} has left the cluster")))
            elif silent_s >= LOST_S:
                why = f"worker {part.worker} has not reported for {silent_s:.0f} s"
                found.append(self._ended(part, self._lost(part, why)))
                self._remove(part.address)
        return found

    def _remove(self, address: str) -> None:
        """Removes a silent worker from the cluster; else Dask gives it the next part, and waits 5 minutes for it.

        Parts that it was given and that have not begun go to other workers. If it returns, it has to register again.
        """
        unregister = self._client.scheduler.unregister
        self._client.sync(unregister, address=address, stimulus_id=f"{self._name}-silent", callback_timeout=ANSWER_S)

    def _require_workers(self) -> None:
        if self._no_workers_s >= NO_WORKERS_S:
            raise WorkersUnavailable(
                f"the Dask scheduler {self._settings.DASK_SCHEDULER_ADDRESS} has no worker any more",
                why=f"for {self._no_workers_s:.0f} s",
                remedy="start workers (docs/SCALE.md); the run is then executed again",
            )

    def _forced(self) -> list[PartEvent]:
        if self._force_at is None or self._clock() < self._force_at:
            return []
        why = "it did not end in time after it was cancelled"
        return [self._ended(part, self._lost(part, why)) for part in list(self._parts.values())]

    def _lost(self, part: _Part, why: str) -> PartLost:
        return PartLost(part.task.index, part.task.attempt, why, part.worker)

    def _ended(self, part: _Part, end: End) -> End:
        """Forgets a part and frees what it has in the cluster; returns its end."""
        del self._parts[part.task.index, part.task.attempt]
        for file in part.files.values():
            file.close()
            with suppress(OSError):
                Path(file.name).unlink()
        part.files.clear()
        part.future.cancel()
        part.token.close()
        part.stored.close()
        return end

    def _queue(self, name: str, size: int = 0) -> Queue:
        from distributed import Queue

        with self._answering():
            return Queue(f"{self._name}-{name}", client=self._client, maxsize=size)

    def _answering(self) -> _Answering:
        return _Answering(self._client)


class _Answering:
    """Turns every failure of the scheduler inside the block into one error; a context manager."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def __enter__(self) -> None:
        if self._client.status != "running":
            raise lost_scheduler(self._client)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is None or isinstance(error, PsttError) or not isinstance(error, Exception):
            return
        is_lost = isinstance(error, OSError | TimeoutError) or self._client.status != "running"
        if is_lost:
            raise lost_scheduler(self._client, error) from None


def _stored_name(token_name: str) -> str:
    return f"{token_name}-stored"


def _result(task: PartTask, error: PsttError, worker: str = "") -> PartResult:
    return PartResult(index=task.index, attempt=task.attempt, error=PartError.of(error), worker=worker)
