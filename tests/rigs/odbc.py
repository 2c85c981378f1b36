"""ODBC drivers that are installed on this machine."""

from __future__ import annotations

from tests.rigs.errors import RigMissing


def odbc_driver(name: str) -> str:
    """Returns the name of a driver if the driver manager knows it."""
    try:
        import pyodbc
    except ImportError as error:
        raise RigMissing("odbc", str(error)) from None
    if name not in pyodbc.drivers():
        raise RigMissing(
            "odbc", f"the ODBC driver {name} is not installed (Debian: libsqliteodbc, odbc-mariadb, tdsodbc)"
        )
    return name
