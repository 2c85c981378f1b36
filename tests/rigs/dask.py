"""A real Dask cluster on this machine: `dask scheduler` and `dask worker` processes, which a test can kill or cut off."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from tests.rigs.proxy import Proxy
from tests.rigs.server import Server, free_ports, tail
from tests.rigs.waiting import until

ROOT = Path(__file__).parents[2]


class DaskWorker:
    """One worker process without a nanny, so that nothing starts it again."""

    def __init__(self, server: Server, port: int, log: Path) -> None:
        self.server = server
        self.port = port
        self.log = log

    def wait(self) -> None:
        """Returns when it is registered at the scheduler."""
        until(lambda: "Registered to:" in self.log.read_text(errors="replace"), lambda: tail(self.log))

    def kill(self) -> None:
        """SIGKILL, and wait."""
        self.server.end("SIGKILL" if os.name != "nt" else "SIGTERM")


class DaskRig:
    """A scheduler and its workers; a context manager.

    Args:
        folder: Their files and logs.
        environ: What the workers have in their environment besides ours.
        scheme: `tcp` or `tls`; for `tls` the environment has Dask's settings.
        clean: Names that the workers do not have in their environment.
    """

    def __init__(
        self, folder: Path, environ: Mapping[str, str] | None = None, *, scheme: str = "tcp", clean: Sequence[str] = ()
    ) -> None:
        kept = {name: text for name, text in os.environ.items() if not name.startswith(("COV_", "COVERAGE", *clean))}
        self.environ = {**kept, "PYTHONPATH": str(ROOT), **(environ or {})}
        self.folder = folder
        self.scheme = scheme
        self.workers: list[DaskWorker] = []
        self._stack = ExitStack()

    def __enter__(self) -> DaskRig:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.port,) = free_ports(1)
        self.address = f"{self.scheme}://127.0.0.1:{self.port}"
        self.log = self.folder / "scheduler.log"
        command = ["scheduler", "--host", f"{self.scheme}://127.0.0.1", "--port", str(self.port), "--no-dashboard"]
        self.scheduler = self._server([*command, "--no-jupyter"], self.log)
        try:
            until(lambda: self._listens(self.port), lambda: tail(self.log))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    def proxy(self, record: bytearray | None = None) -> Proxy:
        """A proxy in front of the scheduler, for a worker whose network is cut; `record` gets the bytes of both sides."""
        if record is None:
            return self._stack.enter_context(Proxy("127.0.0.1", self.port))

        def seen(data: bytes) -> None:
            record.extend(data)

        def alter(data: bytes) -> bytes:
            record.extend(data)
            return data

        return self._stack.enter_context(Proxy("127.0.0.1", self.port, seen=seen, alter=alter))

    def add_worker(
        self,
        *options: str,
        via: int | None = None,
        environ: Mapping[str, str] | None = None,
        folder: Path | None = None,
        wait: bool = True,
    ) -> DaskWorker:
        """Starts a worker of one thread.

        Args:
            options: More options of `dask worker`.
            via: Port of a proxy in front of the scheduler; None: the scheduler itself.
            environ: Its whole environment; None: that of the rig.
            folder: Its `--local-directory`.
            wait: Whether to return only when it is registered.
        """
        number = len(self.workers)
        (port,) = free_ports(1)
        log = self.folder / f"worker-{number}.log"
        local = folder or self.folder / f"local-{number}"
        local.mkdir(exist_ok=True)
        scheduler = f"{self.scheme}://127.0.0.1:{via or self.port}"
        command = ["worker", scheduler, "--nthreads", "1", "--no-nanny", "--no-dashboard", "--memory-limit", "0"]
        address = ["--host", "127.0.0.1", "--worker-port", str(port), "--local-directory", str(local)]
        server = self._server([*command, *address, *options], log, environ)
        worker = DaskWorker(server, port, log)
        self.workers.append(worker)
        if wait:
            worker.wait()
        return worker

    def add_workers(self, count: int) -> None:
        """Starts workers together and waits for all."""
        for worker in [self.add_worker(wait=False) for _ in range(count)]:
            worker.wait()

    def worker_of(self, shown: str) -> DaskWorker:
        """The worker with that address in Dask, or that name for display: `host (tcp://127.0.0.1:PORT)`."""
        return next(worker for worker in self.workers if shown.rstrip(")").endswith(f":{worker.port}"))

    def _server(self, command: Sequence[str], log: Path, environ: Mapping[str, str] | None = None) -> Server:
        log.touch()
        server = Server(
            [sys.executable, "-m", "dask", *command],
            folder=self.folder,
            log=log,
            environ=self.environ if environ is None else environ,
        )
        self._stack.callback(server.end)
        return server

    @staticmethod
    def _listens(port: int) -> bool:
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return True
        return False
