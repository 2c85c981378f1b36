"""Every error code that SQLite has is mapped on purpose: to what may succeed later, or to what has to be fixed."""

from __future__ import annotations

import inspect
import sqlite3

import pytest

from core.errors import ConfigError, NotAuthorised, PsttError, QueryFailed, SourceUnavailable
from core.model.connection import DatabaseConnection
from core.sources.sqlite import SqliteSource

# Primary result codes (https://sqlite.org/rescode.html); an extended one has it in its lowest byte.
PRIMARY: dict[str, type[PsttError]] = {
    **dict.fromkeys(("BUSY", "LOCKED", "IOERR", "CANTOPEN", "PROTOCOL", "SCHEMA", "NOMEM"), SourceUnavailable),
    **dict.fromkeys(("AUTH", "PERM"), NotAuthorised),
    **dict.fromkeys(("CORRUPT", "NOTADB"), ConfigError),
    **dict.fromkeys(("ERROR", "INTERNAL", "ABORT", "READONLY", "INTERRUPT", "NOTFOUND", "FULL", "EMPTY"), QueryFailed),
    **dict.fromkeys(("TOOBIG", "CONSTRAINT", "MISMATCH", "MISUSE", "NOLFS", "FORMAT", "RANGE"), QueryFailed),
}
NO_ERRORS = ("OK", "ROW", "DONE", "NOTICE", "WARNING")
FAMILIES = tuple(f"SQLITE_{name}_" for name in (*PRIMARY, *NO_ERRORS))
CODES = {
    name: code
    for name, code in inspect.getmembers(sqlite3, lambda member: type(member) is int)
    if name.removeprefix("SQLITE_") in (*PRIMARY, *NO_ERRORS) or name.startswith(FAMILIES)
}
# Other numbers of the module: action codes of an authorizer, limits, and what a callback may answer.
ACTIONS = {"SQLITE_DENY", "SQLITE_IGNORE", *(n for n in dir(sqlite3) if n.startswith("SQLITE_LIMIT_"))}


@pytest.fixture
def source() -> SqliteSource:
    return SqliteSource(DatabaseConnection(name="lite", db_type="sqlite", database="parcels.sqlite"))


@pytest.mark.parametrize("name", [n for n in CODES if not n.removeprefix("SQLITE_").startswith(NO_ERRORS)])
def test_every_error_code_is_mapped(source: SqliteSource, name: str) -> None:
    primary = next(n for n in PRIMARY if getattr(sqlite3, f"SQLITE_{n}") == CODES[name] & 0xFF)
    error = sqlite3.OperationalError("its own words")
    error.sqlite_errorcode, error.sqlite_errorname = CODES[name], name

    before, after = source.error(error, reading=False), source.error(error, reading=True)
    assert type(before) is PRIMARY[primary]
    assert "its own words" in before.text or primary == "INTERRUPT"
    assert "lite" in before.text
    assert not after.is_retriable


def test_every_class_of_the_driver_passes_the_seam_translated(source: SqliteSource) -> None:
    classes = [
        c
        for _, c in inspect.getmembers(sqlite3, inspect.isclass)
        if issubclass(c, Exception) and c.__module__ == "sqlite3"
    ]
    assert len(classes) == 10
    for error in classes:
        assert issubclass(error, source.driver_errors)
        assert type(source.error(error("its own words"), reading=False)) is QueryFailed


def test_codes_that_came_with_a_newer_sqlite_are_noticed() -> None:
    small = {
        name
        for name, code in inspect.getmembers(sqlite3, lambda member: type(member) is int)
        if name.startswith("SQLITE_") and name not in ACTIONS and name not in CODES
    }
    actions = ("ALTER", "ANALYZE", "ATTACH", "CREATE", "DELETE", "DETACH", "DROP", "FUNCTION", "INSERT", "PRAGMA")
    actions += ("READ", "REINDEX", "SAVEPOINT", "SELECT", "TRANSACTION", "UPDATE", "RECURSIVE")
    assert {name for name in small if not name.removeprefix("SQLITE_").startswith(actions)} == set()
