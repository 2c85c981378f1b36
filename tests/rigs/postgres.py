"""A real PostgreSQL server on this machine, with password authentication."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import psycopg

from core.model import DatabaseConnection, Secret
from tests.rigs.errors import RigMissing
from tests.rigs.kafka import free_ports


def find_program(name: str) -> str:
    """initdb and its siblings are often not on the PATH."""
    if found := shutil.which(name):
        return os.path.realpath(found)
    for folder in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True):
        if (folder / name).exists():
            return str(folder / name)
    raise RigMissing(f"PostgreSQL's {name} is not installed")


class PostgresRig:
    """One server; `user` is its superuser. Give `url` to use a server that is there already."""

    def __init__(self, url: str | None = None) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: Path | None = None
        self._url = url
        self.host, self.user, self.password, self.database = "127.0.0.1", "pstt", "pstt-pg-4711", "postgres"
        if url:
            parts = psycopg.conninfo.conninfo_to_dict(url)
            self.host, self.port = str(parts["host"]), int(parts.get("port") or 5432)
            self.user, self.password = str(parts["user"]), str(parts.get("password") or "")
            self.database = str(parts.get("dbname") or self.user)

    def __enter__(self) -> PostgresRig:
        if self._url:
            return self
        initdb = find_program("initdb")
        find_program("postgres")
        (self.port,) = free_ports(1)
        self._folder = Path(tempfile.mkdtemp(prefix="pstt-pg-"))
        if os.name != "nt" and os.geteuid() == 0:
            shutil.chown(self._folder, "nobody")
        secret = self._folder / "pw"
        secret.write_text(self.password, encoding="utf-8")
        secret.chmod(0o644)
        command = [initdb, "-D", str(self._folder / "data"), "-U", self.user, "-A", "scram-sha-256"]
        command += ["--pwfile", str(secret), "-E", "UTF8", "--locale=C.UTF-8" if os.name != "nt" else "--locale=C"]
        subprocess.run(command, check=True, capture_output=True, **self._account())
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _account(self) -> dict[str, Any]:
        """PostgreSQL refuses to run as root."""
        return {"user": "nobody", "cwd": "/"} if os.name != "nt" and os.geteuid() == 0 else {}

    def start(self) -> None:
        """Starts the server, also again after `kill`, on the same port and data."""
        assert self._folder
        log = (self._folder / "log").open("ab")
        command = [find_program("postgres"), "-D", str(self._folder / "data"), "-p", str(self.port)]
        command += [
            "-c",
            "listen_addresses=127.0.0.1",
            "-c",
            f"unix_socket_directories={self._folder if os.name != 'nt' else ''}",
        ]
        self._process = subprocess.Popen(command, stdout=log, stderr=log, **self._account())
        log.close()
        end = time.monotonic() + 30
        while True:
            try:
                self.connect().close()
                return
            except psycopg.OperationalError:
                if self._process.poll() is not None or time.monotonic() > end:
                    text = (self._folder / "log").read_text(encoding="utf-8", errors="replace")
                    raise RuntimeError(f"PostgreSQL did not start:\n{text[-2000:]}") from None
                time.sleep(0.05)

    def stop(self) -> None:
        """Ends the server, its clients with it."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """Ends the server as a crash would."""
        self._end(getattr(signal, "SIGQUIT", signal.SIGTERM))

    def _end(self, how: int) -> None:
        if self._process:
            self._process.send_signal(how)
            self._process.wait(30)
            self._process = None

    def connect(self) -> psycopg.Connection[Any]:
        """An autocommit connection of the superuser."""
        return psycopg.connect(
            host=self.host,
            port=self.port,
            user=self.user,
            password=self.password,
            dbname=self.database,
            autocommit=True,
            connect_timeout=5,
        )

    def connection(self, **changes: Any) -> DatabaseConnection:
        """The connection as core describes it."""
        facts: dict[str, Any] = {
            "name": "pg",
            "db_type": "postgresql",
            "host": self.host,
            "port": self.port,
            "database": self.database,
            "username": self.user,
            "password": Secret(self.password),
        }
        return DatabaseConnection(**{**facts, **changes})
