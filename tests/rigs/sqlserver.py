"""A server that speaks SQL Server's protocol: the one named by SQLSERVER_TEST_ODBC, or the prebuilt one beside the project."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pyodbc

from core.model import DatabaseConnection, Secret
from tests.rigs.errors import RigMissing


def shared_folder() -> Path:
    """Where the project's shared material is: PSTT_SHARED, else beside the checkout."""
    return Path(os.environ.get("PSTT_SHARED") or Path(__file__).parents[3] / "shared")


class SqlServerRig:
    """The server's ODBC string and what core makes of it."""

    def __init__(self) -> None:
        self.odbc = os.environ.get("SQLSERVER_TEST_ODBC") or self._start()
        parts = dict(part.split("=", 1) for part in self.odbc.split(";") if part)
        self.host, self.port = parts["SERVER"], int(parts.get("PORT", "1433"))
        self.user, self.password = parts["UID"], parts["PWD"]
        self.database, self.driver = parts.get("DATABASE", "master"), parts["DRIVER"].strip("{}")

    @staticmethod
    def _start() -> str:
        tds = shared_folder() / "tds" / "tds"
        if not tds.exists():
            raise RigMissing("SQL Server: set SQLSERVER_TEST_ODBC")
        done = subprocess.run(["bash", str(tds), "start"], capture_output=True, text=True, check=False, timeout=300)
        if done.returncode:
            raise RigMissing(f"the TDS server did not start: {done.stderr[-500:]}")
        return done.stdout.strip().splitlines()[-1]

    def connect(self) -> pyodbc.Connection:
        """An autocommit connection."""
        return pyodbc.connect(self.odbc, autocommit=True, timeout=10)

    def connection(self, **changes: Any) -> DatabaseConnection:
        """The connection as core describes it."""
        facts: dict[str, Any] = {
            "name": "mssql",
            "db_type": "sqlserver",
            "host": self.host,
            "port": self.port,
            "database": self.database,
            "username": self.user,
            "password": Secret(self.password),
            "driver": self.driver,
        }
        return DatabaseConnection(**{**facts, **changes})
