"""The registry of databases: one entry each. `core.model.source.Source` is the protocol that a database implements.

Modules are imported when they are used: dialects import no driver, and a driver takes up to 0.4 s.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import NamedTuple

from core.errors import ConfigError
from core.model.connection import DatabaseConnection
from core.model.dialect import Dialect
from core.model.source import Source

__all__ = ["DATABASES", "Database", "database_types", "find_dialect", "import_driver", "open_source"]


class Database(NamedTuple):
    """The modules that implement one database: two, if its driver is slow to import."""

    rules: str
    """The module with the `Dialect`, as DIALECT."""
    source: str = ""
    """The module with the class, as SOURCE; empty: the same module."""
    has_variants: bool = False
    """The module of the rules also has `variant`: the rules for the SQL that an entry's `dialect` names."""


DATABASES: dict[str, Database] = {
    "oracle": Database("core.sources.oracle_dialect", "core.sources.oracle"),
    "sqlserver": Database("core.sources.sqlserver_dialect", "core.sources.sqlserver"),
    "postgresql": Database("core.sources.postgresql_dialect", "core.sources.postgresql"),
    "mysql": Database("core.sources.mysql_dialect", "core.sources.mysql"),
    "sqlite": Database("core.sources.sqlite"),
    "odbc": Database("core.sources.odbc_dialect", "core.sources.odbc", has_variants=True),
}
"""`db_type` of a connection → its modules."""


def database_types() -> tuple[str, ...]:
    """Returns every value that `db_type` may have."""
    return tuple(DATABASES)


def find_dialect(db_type: str, variant: str = "") -> Dialect:
    """Returns the rules of a database; imports no driver.

    Args:
        db_type: A key of `DATABASES`.
        variant: Whose SQL it is, for a database that has variants; others ignore it.

    Raises:
        ConfigError: There is no such database; names the existing ones.
    """
    if db_type not in DATABASES:
        raise ConfigError(f"db_type {db_type} is not known", remedy=f"use one of {', '.join(DATABASES)}")
    found = DATABASES[db_type]
    if variant and found.has_variants:
        made: Dialect = import_module(found.rules).variant(variant)
        return made
    return _dialect(found.rules)


@cache
def _dialect(module: str) -> Dialect:
    found: Dialect = import_module(module).DIALECT
    return found


def import_driver(db_type: str) -> Callable[[DatabaseConnection], Source]:
    """Imports the database's class with its driver.

    Raises:
        ImportError: The driver is not installed.
    """
    database = DATABASES[db_type]
    found: Callable[[DatabaseConnection], Source] = import_module(database.source or database.rules).SOURCE
    return found


def open_source(connection: DatabaseConnection) -> Source:
    """Returns a source for that connection; the first call that needs the database contacts it.

    Raises:
        ConfigError: The driver is not installed; says how to install it.
    """
    dialect = find_dialect(connection.db_type)
    try:
        source = import_driver(connection.db_type)
    except ImportError as error:
        raise ConfigError(
            f'connection "{connection.name}" needs the driver for {dialect.name}',
            why=str(error),
            remedy=dialect.install,
        ) from None
    return source(connection)
