"""A server that speaks SQL Server's protocol: the one of SQLSERVER_TEST_ODBC, or the prebuilt one beside the project."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from core.model.connection import DatabaseConnection, Secret
from tests.rigs.errors import RigMissing

if TYPE_CHECKING:
    import pyodbc

ODBC_PART = re.compile(r"\s*([^=;]+?)\s*=\s*(?:\{((?:[^}]|\}\})*)\}|([^;]*))\s*(?:;|$)")


def number_table(count: int) -> str:
    """Returns a table expression with the numbers 1 to `count` in its column `n`.

    It reads no table of the catalogue: those fail where another test drops a table at the same time.
    """
    return f"(SELECT TOP {count} ROW_NUMBER() OVER (ORDER BY (SELECT 1)) AS n FROM {_digits(len(str(count)))}) numbers"


def _digits(places: int) -> str:
    one = "(VALUES (0), (1), (2), (3), (4), (5), (6), (7), (8), (9))"
    return " CROSS JOIN ".join(f"{one} d{place}(n)" for place in range(places))


SLOW_COUNT = f"SELECT COUNT(*) AS c FROM (SELECT TOP 80000000 d0.n FROM {_digits(8)}) q"
"""A statement that takes some ten seconds."""


def shared_folder() -> Path:
    """Where the project's shared material is: PSTT_SHARED, else beside the checkout."""
    return Path(os.environ.get("PSTT_SHARED") or Path(__file__).parents[3] / "shared")


def sqlserver_origin() -> str:
    """Returns which server the tests use.

    Raises:
        RigMissing: There is none.
    """
    return "SQLSERVER_TEST_ODBC" if os.environ.get("SQLSERVER_TEST_ODBC") else str(_script())


def _script() -> Path:
    script = shared_folder() / "tds" / "tds"
    if not script.exists() or not shutil.which("bash"):
        raise RigMissing("sqlserver", "no SQL Server: name one in SQLSERVER_TEST_ODBC, as an ODBC string")
    return script


def parse_odbc(text: str) -> dict[str, str]:
    """Keyword in capitals → value, braces removed."""
    return {key.upper(): quoted.replace("}}", "}") or plain for key, quoted, plain in ODBC_PART.findall(text)}


class SqlServerRig:
    """The server's ODBC string and what core makes of it. It keeps running after the tests."""

    def __init__(self) -> None:
        self.odbc = os.environ.get("SQLSERVER_TEST_ODBC") or self._start()
        parts = parse_odbc(self.odbc)
        host, _, port = parts["SERVER"].removeprefix("tcp:").partition(",")
        self.host, self.port = host, int(port or parts.get("PORT", "1433"))
        self.user, self.password = parts["UID"], parts["PWD"]
        self.database, self.driver = parts.get("DATABASE", "master"), parts["DRIVER"]
        self._sslmode = _sslmode(parts)

    @staticmethod
    def _start() -> str:
        script = _script()
        with FileLock(Path(tempfile.gettempdir()) / "pstt-tds-start.lock"):  # test processes side by side
            done = subprocess.run(
                ["bash", str(script), "start"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
            )
        if done.returncode:
            raise RigMissing("sqlserver", f"the TDS server did not start: {done.stderr.strip()[-500:]}")
        return done.stdout.strip().splitlines()[-1]

    def connect(self) -> pyodbc.Connection:
        """An autocommit connection."""
        import pyodbc

        return pyodbc.connect(self.odbc, autocommit=True, timeout=10)

    def connection(self, **changes: Any) -> DatabaseConnection:
        """The connection as core describes it."""
        values: dict[str, Any] = {
            "name": "mssql",
            "db_type": "sqlserver",
            "host": self.host,
            "port": self.port,
            "database": self.database,
            "username": self.user,
            "password": Secret(self.password),
            "driver": self.driver,
            "sslmode": self._sslmode,
        }
        return DatabaseConnection(**{**values, **changes})


def _sslmode(parts: dict[str, str]) -> str:
    """Returns the sslmode for the TLS settings of the string; empty if it has none."""
    if parts.get("ENCRYPT", "yes").lower() in ("no", "optional", "false"):
        return "disable"
    return "require" if parts.get("TRUSTSERVERCERTIFICATE", "no").lower() in ("yes", "true") else ""
