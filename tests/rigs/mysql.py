"""A real MariaDB server on this machine, or the MySQL or MariaDB server of MYSQL_TEST_URL."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pymysql

from core.model.connection import DatabaseConnection, Secret
from tests.rigs.errors import RigMissing, ServerFailed
from tests.rigs.server import Server, start_on_free_ports, tail

ACCOUNT = "nobody" if os.name != "nt" and os.geteuid() == 0 else ""
"""The server refuses to run as root."""


def programs() -> tuple[str, str]:
    """Paths of the server and of the program that makes its data; distributions keep the server off the PATH."""
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/libexec", "/usr/local/sbin"])
    found = shutil.which("mariadbd", path=path), shutil.which("mariadb-install-db", path=path)
    if found[0] is None or found[1] is None:
        raise RigMissing("mariadb", "no MariaDB server is installed (mariadbd and mariadb-install-db were not found)")
    return found[0], found[1]


class MySqlRig:
    """One server with a database and an account that may do everything in it.

    Args:
        url: A server that is there already, `mysql://user:password@host:port/database`; none: one of our own.
        keystore: Key and chain with which our own server speaks TLS, in one PEM file; None: it speaks none.
        client_ca: The authority of its clients' certificates.
    """

    def __init__(self, url: str | None = None, *, keystore: Path | None = None, client_ca: Path | None = None) -> None:
        self._given = bool(url)
        self._tls = {"ssl-cert": keystore, "ssl-key": keystore, "ssl-ca": client_ca}
        self._server: Server | None = None
        self.host, self.port = "127.0.0.1", 0
        self.user, self.password, self.database = "pstt", "pstt-mÿ-4711", "parcels"
        if url:
            parts = urlsplit(url)
            self.host, self.port = str(parts.hostname), parts.port or 3306
            self.user, self.password = unquote(parts.username or ""), unquote(parts.password or "")
            self.database = parts.path.strip("/")

    def __enter__(self) -> MySqlRig:
        if self._given:
            return self
        self._program, install = programs()
        self._folder = Path(tempfile.mkdtemp(prefix="pstt-my-"))
        self._data, self._log = self._folder / "data", self._folder / "server.log"
        try:
            self._make_data(install)
            start_on_free_ports(1, self._start)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._given:
            return
        if self._server:
            self._server.end()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _make_data(self, install: str) -> None:
        if ACCOUNT:
            shutil.chown(self._folder, ACCOUNT)
        command = [install, "--no-defaults", f"--datadir={self._data}", "--auth-root-authentication-method=normal"]
        done = subprocess.run(
            [*command, "--skip-test-db"],
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            check=False,
            user=ACCOUNT or None,
            cwd=self._folder,
        )
        if done.returncode:
            raise ServerFailed(f"mariadb-install-db failed:\n{done.stdout}{done.stderr}")
        setup = self._folder / "setup.sql"
        setup.write_text(
            f"CREATE DATABASE IF NOT EXISTS {self.database} CHARACTER SET utf8mb4;\n"
            f"CREATE USER IF NOT EXISTS {self.user}@'%' IDENTIFIED BY '{self.password}';\n"
            f"GRANT ALL ON *.* TO {self.user}@'%' WITH GRANT OPTION;\n",
            encoding="utf-8",
        )

    def _start(self, ports: list[int]) -> None:
        (self.port,) = ports
        command = [self._program, "--no-defaults", f"--datadir={self._data}", f"--port={self.port}"]
        command += ["--bind-address=127.0.0.1", "--skip-name-resolve", f"--socket={self._folder / 'sock'}"]
        command += [f"--init-file={self._folder / 'setup.sql'}", "--character-set-server=utf8mb4"]
        command += ["--innodb-buffer-pool-size=64M", "--innodb-flush-log-at-trx-commit=0"]
        command += [f"--{option}={self._readable(file)}" for option, file in self._tls.items() if file] or [
            "--skip-ssl"
        ]
        self._server = Server(command, folder=self._folder, log=self._log, user=ACCOUNT)
        end = time.monotonic() + 60
        while not self._answers():
            if not self._server.is_running or time.monotonic() > end:
                self._server.end()
                raise ServerFailed(f"MariaDB did not start:\n{tail(self._log)}")
            time.sleep(0.05)

    def _readable(self, file: Path) -> Path:
        """Copies a file for the account of the server."""
        own = self._folder / file.name
        own.write_bytes(file.read_bytes())
        if ACCOUNT:
            shutil.chown(own, ACCOUNT)
        own.chmod(0o600)
        return own

    def _answers(self) -> bool:
        try:
            self.connect().close()
        except pymysql.OperationalError:
            return False
        return True

    # ── ways in ───────────────────────────────────────────────────────────────────────────────

    def connect(self) -> Any:
        """An autocommit connection with all rights."""
        return pymysql.connect(
            host=self.host,
            port=self.port,
            user=self.user,
            password=self.password.encode(),  # type: ignore[arg-type]
            database=self.database,
            charset="utf8mb4",
            autocommit=True,
            connect_timeout=5,
            read_timeout=60,
        )

    def execute(self, sql: str) -> list[tuple[Any, ...]]:
        """Runs one statement; returns its rows."""
        with closing(self.connect()) as connection, connection.cursor() as cursor:
            cursor.execute(sql)
            return list(cursor.fetchall())

    def connection(self, **changes: Any) -> DatabaseConnection:
        """The connection as core describes it."""
        values: dict[str, Any] = {
            "name": "my",
            "db_type": "mysql",
            "host": self.host,
            "port": self.port,
            "database": self.database,
            "username": self.user,
            "password": Secret(self.password),
        }
        return DatabaseConnection(**{**values, **changes})
