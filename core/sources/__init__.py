"""Databases, one file each, behind `core.model.all.Source`."""

from __future__ import annotations

from importlib import import_module

from core.errors import ConfigError
from core.model.connection import DatabaseConnection
from core.model.source import Source

__all__ = ["open_source"]

_CLASSES = {
    "oracle": ("core.sources.oracle", "OracleSource", "pip install oracledb"),
    "sqlserver": (
        "core.sources.sqlserver",
        "SqlServerSource",
        "pip install pyodbc (on Debian also: apt-get install unixodbc)",
    ),
    "postgresql": ("core.sources.postgresql", "PostgresSource", "pip install 'psycopg[binary]'"),
    "sqlite": ("core.sources.sqlite", "SqliteSource", ""),
}


def open_source(connection: DatabaseConnection) -> Source:
    """A source for that connection; the database is contacted by the first call that needs it.

    Raises:
        ConfigError: The driver is not installed; says how to install it.
    """
    module, name, install = _CLASSES[connection.db_type]
    try:
        source: Source = getattr(import_module(module), name)(connection)
    except ImportError as error:
        raise ConfigError(
            f'connection "{connection.name}" needs the driver for {connection.db_type}', why=str(error), remedy=install
        ) from None
    return source
