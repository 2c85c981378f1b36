"""Every error that psycopg has is mapped on purpose: to what may succeed later, or to what has to be fixed."""

from __future__ import annotations

import inspect

import psycopg
import pytest
from psycopg import errors

from core.errors import ConfigError, NotAuthorised, PsttError, QueryFailed, SourceUnavailable
from core.model.connection import DatabaseConnection
from core.sources.postgresql import PostgresSource

# SQLSTATE, or its first two characters, the longest match counts → the error before the first row.
# After it, what may succeed later is a QueryFailed: the result is not complete.
BEFORE_THE_FIRST_ROW: dict[str, type[PsttError]] = {
    **dict.fromkeys(("02", "03", "09", "0A", "0B", "0F", "0L", "0P", "0Z", "10", "20", "21", "22", "23"), QueryFailed),
    **dict.fromkeys(("24", "25", "26", "27", "2B", "2D", "2F", "34", "38", "39", "3B", "3F", "42", "44"), QueryFailed),
    **dict.fromkeys(("54", "55", "57", "58", "F0", "HV", "P0", "XX", "40002"), QueryFailed),
    **dict.fromkeys(("08", "25P03", "25P04", "57P01", "57P02", "57P03", "57P05"), SourceUnavailable),
    **dict.fromkeys(("40", "53", "55006", "55P03", "72", "HV00N"), SourceUnavailable),
    "28": NotAuthorised,
    "42501": NotAuthorised,
    "3D": ConfigError,
}
# Those that the driver raises itself, without a message of the server.
OF_THE_DRIVER: dict[type[psycopg.Error], type[PsttError]] = {
    psycopg.OperationalError: SourceUnavailable,
    psycopg.errors.ConnectionTimeout: SourceUnavailable,
    psycopg.errors.CancellationTimeout: SourceUnavailable,
    psycopg.errors._WaitTimeout: SourceUnavailable,
    psycopg.errors.PipelineAborted: SourceUnavailable,
    **dict.fromkeys(
        (
            psycopg.Error,
            psycopg.InterfaceError,
            psycopg.DatabaseError,
            psycopg.DataError,
            psycopg.IntegrityError,
            psycopg.InternalError,
            psycopg.ProgrammingError,
            psycopg.NotSupportedError,
        ),
        QueryFailed,
    ),
}
CLASSES = [c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, psycopg.Error)]


def expected(error: type[psycopg.Error]) -> type[PsttError]:
    if not error.sqlstate:
        return OF_THE_DRIVER[error]
    keys = [key for key in BEFORE_THE_FIRST_ROW if error.sqlstate.startswith(key)]
    return BEFORE_THE_FIRST_ROW[max(keys, key=len)]


@pytest.fixture
def source() -> PostgresSource:
    return PostgresSource(
        DatabaseConnection(name="pg", db_type="postgresql", host="db.example.com", database="tt2", username="reader")
    )


@pytest.mark.parametrize("error", CLASSES, ids=lambda error: f"{error.__name__}-{error.sqlstate}")
def test_every_error_of_the_driver_is_mapped(source: PostgresSource, error: type[psycopg.Error]) -> None:
    assert issubclass(error, source.driver_errors)
    before = source.error(error("the server's words"), reading=False)

    assert type(before) is expected(error)
    assert "the server's words" in before.text
    assert "pg" in before.text
    assert before.is_retriable is (type(before) is SourceUnavailable)


def test_the_mapping_covers_what_the_driver_knows() -> None:
    """The classes are found as psycopg itself finds them: by SQLSTATE."""
    assert len(CLASSES) > 250
    assert all(errors.lookup(c.sqlstate) is c for c in CLASSES if c.sqlstate)


@pytest.mark.parametrize("error", [c for c in CLASSES if c.sqlstate], ids=lambda error: str(error.sqlstate))
def test_no_error_amid_the_rows_is_retriable(source: PostgresSource, error: type[psycopg.Error]) -> None:
    assert not source.error(error(), reading=True).is_retriable


def test_lost_connection_amid_the_rows_is_no_complete_result(source: PostgresSource) -> None:
    source._active = object()
    lost = source.error(psycopg.OperationalError("SSL SYSCALL error: EOF detected"), reading=True)
    assert type(lost) is QueryFailed
    early = source.error(psycopg.OperationalError("SSL connection has been closed unexpectedly"), reading=False)
    assert type(early) is SourceUnavailable


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ('FATAL:  password authentication failed for user "reader"', NotAuthorised),
        ('FATAL:  LDAP authentication failed for user "reader"', NotAuthorised),
        ("fe_sendauth: no password supplied", NotAuthorised),
        (
            'FATAL:  no pg_hba.conf entry for host "10.0.0.1", user "reader", database "tt2", SSL encryption',
            NotAuthorised,
        ),
        ('FATAL:  role "reader" is not permitted to log in', NotAuthorised),
        ('FATAL:  role "reader" does not exist', NotAuthorised),
        ('FATAL:  permission denied for database "tt2"', NotAuthorised),
        ('FATAL:  database "tt2" does not exist', ConfigError),
        ('FATALE:  il database "tt2" non esiste', ConfigError),
        ("FATAL:  the database system is starting up", SourceUnavailable),
        ("FATAL:  sorry, too many clients already", SourceUnavailable),
        ("Connection refused Is the server running on that host and accepting TCP/IP connections?", SourceUnavailable),
        ("SSL SYSCALL error: Connection reset by peer", SourceUnavailable),
        ("SSL error: certificate verify failed", ConfigError),
        ('server certificate for "a" does not match host name "db.example.com"', ConfigError),
        ("server does not support SSL, but SSL was required", ConfigError),
    ],
)
def test_login_that_fails_names_its_cause(source: PostgresSource, said: str, wanted: type[PsttError]) -> None:
    prefix = 'connection failed: connection to server at "db.example.com" (10.0.0.9), port 5432 failed: '
    error = source.error(psycopg.OperationalError(prefix + said), reading=False)
    assert type(error) is wanted
    assert " ".join(said.split()) in error.text
