"""A real PostgreSQL server on this machine, with password authentication."""

from __future__ import annotations

import copy
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg

from core.model.connection import DatabaseConnection, Secret
from tests.rigs.errors import RigMissing, ServerFailed
from tests.rigs.server import Server, start_on_free_ports, tail

# PostgreSQL refuses to run as root.
ACCOUNT = "nobody" if os.name != "nt" and os.geteuid() == 0 else ""


def programs() -> Path:
    """The folder of one installation's initdb, postgres and pg_ctl; distributions keep it off the PATH."""
    for folder in _installations():
        if all(shutil.which(name, path=str(folder)) for name in ("initdb", "postgres", "pg_ctl")):
            return folder
    raise RigMissing("postgres", "no PostgreSQL server is installed (initdb, postgres and pg_ctl were not found)")


def _installations() -> Iterator[Path]:
    if found := shutil.which("initdb"):
        yield Path(found).resolve().parent
    if found := shutil.which("pg_config"):
        done = subprocess.run([found, "--bindir"], capture_output=True, text=True, check=False)
        yield Path(done.stdout.strip())
    for pattern in ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "C:/Program Files/PostgreSQL/*/bin"):
        root = Path(Path(pattern).anchor)
        yield from sorted(root.glob(pattern.removeprefix(root.as_posix())), reverse=True)


class PostgresRig:
    """One server; `user` is its superuser.

    Args:
        url: A server that is there already, as a PostgreSQL URL; none: one of our own, which can be killed.
    """

    def __init__(self, url: str | None = None) -> None:
        self._server: Server | None = None
        self._given = bool(url)
        self.host, self.port = "127.0.0.1", 0
        self.user, self.password, self.database = "pstt", "pstt-pg-4711", "postgres"
        if url:
            parts = psycopg.conninfo.conninfo_to_dict(url)
            self.host, self.port = str(parts["host"]), int(parts.get("port") or 5432)
            self.user, self.password = str(parts["user"]), str(parts.get("password") or "")
            self.database = str(parts.get("dbname") or self.user)

    # ── life ──────────────────────────────────────────────────────────────────────────────────

    def __enter__(self) -> PostgresRig:
        if self._given:
            return self
        self._programs = programs()
        self._folder = Path(tempfile.mkdtemp(prefix="pstt-pg-"))
        self._data, self._log = self._folder / "data", self._folder / "server.log"
        try:
            self._make_cluster()
            start_on_free_ports(1, self._first_start)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        if not self._given:
            self.kill()
            shutil.rmtree(self._folder, ignore_errors=True)

    def _make_cluster(self) -> None:
        password_file = self._folder / "password"
        password_file.write_text(self.password, encoding="utf-8")
        for path in (self._folder, password_file) if ACCOUNT else ():
            shutil.chown(path, ACCOUNT)
        how = [
            "-U",
            self.user,
            "-A",
            "scram-sha-256",
            "--pwfile",
            str(password_file),
            "-E",
            "UTF8",
            "--no-locale",
            "--no-sync",
        ]
        self._run("initdb", "-D", str(self._data), *how)

    def _first_start(self, ports: list[int]) -> None:
        (self.port,) = ports
        self.start()

    def start(self, timeout_s: float = 30) -> None:
        """Starts the server, also again after `stop` or `kill`, on the same port and data; returns when it answers."""
        self._need_own()
        command = [str(self._programs / "postgres"), "-D", str(self._data), "-p", str(self.port)]
        command += ["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]
        command += ["-c", "max_connections=300"]  # all test processes share one server
        self._server = Server(command, folder=self._folder, log=self._log, user=ACCOUNT)
        end = time.monotonic() + timeout_s
        while not self._answers():
            if not self._server.is_running or time.monotonic() > end:
                self._server.end()
                raise ServerFailed(f"PostgreSQL did not start:\n{tail(self._log)}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Stops the server cleanly; its clients lose their connections."""
        self._end("fast")

    def kill(self) -> None:
        """Ends the server at once, without a checkpoint, so that it recovers at its next start."""
        self._end("immediate")

    def use_tls(self, keystore: Path) -> None:
        """Serves TLS with this key and chain from the next connection on."""
        self._need_own()
        own = self._data / "tls.pem"
        own.write_bytes(keystore.read_bytes())
        own.chmod(0o600)
        if ACCOUNT:
            shutil.chown(own, ACCOUNT)
        with closing(self.connect()) as connection:
            for name, value in (("ssl_cert_file", own.name), ("ssl_key_file", own.name), ("ssl", "on")):
                connection.execute(f"ALTER SYSTEM SET {name} = '{value}'".encode())
            connection.execute("SELECT pg_reload_conf()")
        end = time.monotonic() + 30
        while not self._serves_tls():
            if time.monotonic() > end:
                raise ServerFailed(f"PostgreSQL did not turn TLS on:\n{tail(self._log)}")
            time.sleep(0.05)

    def _serves_tls(self) -> bool:
        with closing(self.connect()) as connection:
            return bool(connection.pgconn.ssl_in_use)

    def _end(self, mode: str) -> None:
        self._need_own()
        if self._server and self._server.is_running:
            self._run("pg_ctl", "-D", str(self._data), "-s", "-w", "-m", mode, "stop")
        if self._server:
            self._server.wait()

    def _run(self, program: str, *words: str) -> None:
        done = subprocess.run(
            [str(self._programs / program), *words],
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            check=False,
            user=ACCOUNT or None,
            cwd=self._folder,
        )
        if done.returncode:
            raise ServerFailed(f"{program} failed:\n{done.stdout}{done.stderr}")

    def _need_own(self) -> None:
        if self._given:
            raise RigMissing("postgres", "the server of POSTGRES_TEST_URL cannot be stopped; unset it to start one")

    def _answers(self) -> bool:
        try:
            self.connect().close()
        except psycopg.OperationalError:
            return False
        return True

    # ── ways in ───────────────────────────────────────────────────────────────────────────────

    def connect(self, database: str | None = None) -> psycopg.Connection[Any]:
        """An autocommit connection of the superuser."""
        return psycopg.connect(
            host=self.host,
            port=self.port,
            user=self.user,
            password=self.password,
            dbname=database or self.database,
            autocommit=True,
            connect_timeout=5,
        )

    def with_database(self, name: str) -> PostgresRig:
        """Creates a database; returns a copy of this rig that connects to it, and that cannot stop the server."""
        with closing(self.connect()) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        own = copy.copy(self)
        own._server, own.database = None, name
        return own

    def connection(self, **changes: Any) -> DatabaseConnection:
        """The connection as core describes it."""
        values: dict[str, Any] = {
            "name": "pg",
            "db_type": "postgresql",
            "host": self.host,
            "port": self.port,
            "database": self.database,
            "username": self.user,
            "password": Secret(self.password),
        }
        return DatabaseConnection(**{**values, **changes})
