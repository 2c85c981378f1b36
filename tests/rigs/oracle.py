"""A real Oracle, named by ORACLE_TEST_URL. Without it the double is used (tests/oracle_double)."""

from __future__ import annotations

import os
from typing import Any

from sqlalchemy.engine import make_url

from core.model.connection import DatabaseConnection, Secret
from tests.rigs.errors import RigMissing


def oracle_origin() -> str:
    """Returns which server the tests use.

    Raises:
        RigMissing: There is none.
    """
    if not os.environ.get("ORACLE_TEST_URL"):
        raise RigMissing("oracle", "no true Oracle: ORACLE_TEST_URL is not set")
    return "ORACLE_TEST_URL"


class OracleRig:
    """A real server: `oracle+oracledb://user:password@host:port/?service_name=NAME`."""

    def __init__(self) -> None:
        self._url = make_url(os.environ[oracle_origin()])

    def connection(self, **changes: Any) -> DatabaseConnection:
        """The connection as core describes it."""
        values: dict[str, Any] = {
            "name": "ora",
            "db_type": "oracle",
            "host": self._url.host or "",
            "port": self._url.port or 1521,
            "service_name": self._url.query.get("service_name", ""),
            "sid": self._url.database or "",
            "username": self._url.username or "",
            "password": Secret(str(self._url.password or "")),
        }
        return DatabaseConnection(**{**values, **changes})
