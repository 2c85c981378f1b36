"""Servers that all test processes share: one is started, its copies cannot stop it, and what is missing is said to each."""

from __future__ import annotations

import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client
from pathlib import Path

import pytest

from tests.rigs import shared as rigs
from tests.rigs.errors import RigMissing, ServerFailed
from tests.rigs.server import Server, start_on_free_ports
from tests.rigs.shared import SharedServers, shared
from tests.rigs.waiting import until


class FilesRig:
    """Python's server of files."""

    started = 0

    def __enter__(self) -> FilesRig:
        self.folder = tempfile.TemporaryDirectory()
        start_on_free_ports(1, self._start)
        FilesRig.started += 1
        return self

    def __exit__(self, *_: object) -> None:
        if self.server:
            self.server.end()
        self.folder.cleanup()

    def __getstate__(self) -> dict[str, object]:
        return {"port": self.port, "server": self.server}

    def _start(self, ports: list[int]) -> None:
        (self.port,) = ports
        folder = Path(self.folder.name)
        words = [sys.executable, "-m", "http.server", str(self.port), "--bind", "127.0.0.1"]
        self.server: Server | None = Server(words, folder=folder, log=folder / "log")
        until(self.answers, timeout_s=60)

    def answers(self) -> bool:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{self.port}/", timeout=5).close()
        except (urllib.error.URLError, OSError):
            return False
        return True


class Absent:
    def __enter__(self) -> None:
        raise RigMissing("registry", "no `java` on the PATH")

    def __exit__(self, *_: object) -> None: ...


class Broken:
    def __enter__(self) -> None:
        raise ServerFailed("its last lines")

    def __exit__(self, *_: object) -> None: ...


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> Iterator[SharedServers]:
    monkeypatch.setattr(rigs, "RIGS", {"files": FilesRig, "absent": Absent, "broken": Broken})
    monkeypatch.setattr(FilesRig, "started", 0)
    made = SharedServers()
    yield made
    made.close()


def test_all_who_ask_get_one_server_which_ends_with_the_process_that_started_it(servers: SharedServers):
    with shared("files", servers.address) as first:
        assert first.answers()
    with shared("files", servers.address) as second:
        assert second.port == first.port
        assert second.answers()
    assert FilesRig.started == 1
    assert second.server is None  # it cannot stop what others use
    servers.close()
    assert not second.answers()


def test_a_process_without_others_has_a_server_of_its_own(servers: SharedServers):
    with shared("files", None) as own:
        assert own.answers()
    assert not own.answers()


def test_why_there_is_no_server_is_said_to_each_who_asks(servers: SharedServers):
    for _ in range(2):
        with pytest.raises(RigMissing, match="no `java` on the PATH") as missing, shared("absent", servers.address):
            pass
        assert missing.value.service == "registry"
        with pytest.raises(ServerFailed, match="its last lines"), shared("broken", servers.address):
            pass


def test_one_who_goes_away_or_does_not_know_the_key_stops_nobody_else(servers: SharedServers):
    host, port, key = servers.address
    with pytest.raises(AuthenticationError), Client((host, port), authkey=b"another"):
        pass
    Client((host, port), authkey=key).close()
    with shared("files", servers.address) as found:
        assert found.answers()
