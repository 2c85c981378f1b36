"""A real schema registry from Maven: Apicurio, with Confluent's API under `/apis/ccompat/v7`; its store is in memory."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path

from filelock import FileLock

from tests.rigs.errors import RigMissing, ServerFailed
from tests.rigs.kafka import cache_dir
from tests.rigs.server import Server, start_on_free_ports, tail

VERSION = "3.0.9"
ARTIFACT = f"io.apicurio:apicurio-registry-app:{VERSION}:tar.gz:all"
JAR = f"apicurio-registry-app-{VERSION}-runner.jar"
START_S = 120


def registry_folder() -> Path:
    """The folder with the unpacked registry; fetched by Maven the first time, whole or not at all (109 MB).

    Raises:
        RigMissing: There is no Java or no Maven, or it cannot be fetched.
    """
    if shutil.which("java") is None:
        raise RigMissing("registry", "the schema registry needs Java: no `java` on the PATH")
    folder = cache_dir() / f"registry-{VERSION}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        if not folder.is_dir():
            aside = folder.with_suffix(".part")
            shutil.rmtree(aside, ignore_errors=True)
            _download(aside)
            aside.replace(folder)
    return folder


def _download(folder: Path) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise RigMissing("registry", "the schema registry is fetched with Maven: no `mvn` on the PATH")
    # Not a dependency of a pom: the parent of its pom is in no repository.
    command = [maven, "-q", "-B", "dependency:copy", f"-Dartifact={ARTIFACT}", f"-DoutputDirectory={folder}"]
    for wait_s in (5, 15, 0):
        done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)
        archive = next(folder.glob("*.tar.gz"), None) if folder.is_dir() else None
        if done.returncode == 0 and archive is not None:
            with tarfile.open(archive) as packed:
                packed.extractall(folder, filter="data")
            archive.unlink()
            return
        time.sleep(wait_s)
    raise RigMissing("registry", f"Maven could not fetch it: {(done.stdout + done.stderr).strip()[-500:]}")


class RegistryRig:
    """One registry. Subjects are shared by all tests of a process, so use topics of your own."""

    url: str

    def __enter__(self) -> RegistryRig:
        self._jar = next(registry_folder().rglob(JAR))
        self._folder = Path(tempfile.mkdtemp(prefix="pstt-registry-"))
        self._log = self._folder / "registry.log"
        self._server: Server | None = None
        try:
            start_on_free_ports(1, self._start)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.end()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _start(self, ports: list[int]) -> None:
        (port,) = ports
        options = ["-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]
        # The management port is a second listener, which would collide between two processes.
        options += [
            "-Dquarkus.http.host=127.0.0.1",
            f"-Dquarkus.http.port={port}",
            "-Dquarkus.management.enabled=false",
        ]
        command = ["java", *options, "-jar", str(self._jar)]
        self._server = Server(command, folder=self._folder, log=self._log)
        self.url = f"http://127.0.0.1:{port}/apis/ccompat/v7"
        self._await_answer()

    def _await_answer(self) -> None:
        assert self._server is not None
        end = time.monotonic() + START_S
        while time.monotonic() < end:
            if not self._server.is_running:
                raise ServerFailed(f"the schema registry ended:\n{tail(self._log)}")
            with suppress(urllib.error.URLError, OSError), urllib.request.urlopen(f"{self.url}/subjects", timeout=5):
                return
            time.sleep(0.1)
        raise ServerFailed(f"the schema registry did not answer in {START_S} s:\n{tail(self._log)}")
