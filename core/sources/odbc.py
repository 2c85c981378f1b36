"""Any database with an ODBC driver, through pyodbc. What a session allows is what its SQL can set up.

How much of a result is in memory depends on the driver: some read it as a whole unless an option says otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cache
from typing import Any, ClassVar

import pyodbc

from core.errors import ConfigError, PsttError, QueryFailed
from core.model.check_result import CheckResult
from core.model.connection import DatabaseConnection
from core.model.dialect import Dialect
from core.model.source import Column
from core.sources import find_dialect
from core.sources.odbc_dialect import DIALECT
from core.sources.pyodbc_source import INTEGERS, KINDS, LABELS, PyodbcSource, words

__all__ = ["SOURCE", "OdbcSource"]

_SPECIAL = re.compile(r"[\[\]{}(),;?*=!@\\]|^\s|\s$")
_LOST = re.compile(
    r"lost connection|gone away|not connected|broken pipe|terminating connection|communication link|unexpected eof"
    r"|(read from|write to) the server failed|dbprocess is dead|Unknown error \(0\)|connection (to the server )?(was |is )?"
    r"(killed|reset|closed|lost|broken|refused)",
    re.IGNORECASE,
)
_REFUSED = re.compile(
    r"login failed|access denied for user|authentication failed|invalid (username|password)", re.IGNORECASE
)
_READ_ONLY = re.compile(r"read.?only", re.IGNORECASE)
_NO_DATABASE = ("3D000", "42000", "08004")
_CONFLICTS = ("40001", "40P01", "55P03", "HYT02")


class OdbcSource(PyodbcSource):
    """One database behind an ODBC driver."""

    dialect: ClassVar[Dialect] = DIALECT

    def connect(self) -> pyodbc.Connection:
        """Connects, and sets the session up as the SQL of the connection needs it."""
        raw = pyodbc.connect(
            self.connection_string(),
            autocommit=False,
            timeout=max(round(self.connection.connect_timeout_s), 1),
            readonly=not self.connection.allow_writes,
        )
        with suppress(pyodbc.Error):  # some drivers have no time-outs; then the session limits each wait
            raw.timeout = max(round(self.silence_s), 1)
        try:
            for sql in self.dialect.session.setup:
                self._execute(raw, sql)
            raw.commit()
        except BaseException:
            raw.close()
            raise
        return raw

    def connection_string(self) -> str:
        """Returns the keywords of the connection, then those of `options`; the driver manager takes the first of two."""
        given = self.connection
        keywords = {
            "DRIVER": given.driver,
            "DSN": given.dsn,
            "SERVER": given.host,
            "PORT": str(given.port or ""),
            "DATABASE": given.database,
            "UID": given.username,
            "PWD": given.password.reveal() if given.password else "",
        }
        options = {name: int(value) if isinstance(value, bool) else value for name, value in given.options.items()}
        pairs = [*keywords.items(), *((name, str(value)) for name, value in options.items())]
        return "".join(f"{name}={_quoted(value)};" for name, value in pairs if value)

    def begin(self, raw: pyodbc.Connection) -> None:
        """Begins one read-only snapshot, if the SQL of the connection has one."""
        if not self.connection.allow_writes:
            for sql in self.dialect.session.begin:
                self._execute(raw, sql)

    def _execute(self, raw: pyodbc.Connection, sql: str) -> None:
        cursor = self.cursor_of(raw)
        try:
            cursor.execute(sql)
        finally:
            cursor.close()

    def cut(self, raw: pyodbc.Connection) -> None:
        """Cancels what runs, since ODBC cannot break a connection; not in this thread, because cancelling may block."""
        active = self._active
        if active is not None:
            active.session.stop()

    def silent(self, *, reading: bool) -> PsttError:
        """Returns the error for a server that no longer responds; not every driver has a time-out of the statement."""
        return self.timed_out() if self.connection.statement_timeout_s else super().silent(reading=reading)

    def column(self, described: Sequence[Any]) -> Column:
        """Returns a column from the type with which the driver describes it."""
        name, type_, _, _, precision, scale, _ = described
        kind = KINDS.get(type_, "unknown")
        if kind == "decimal":
            return Column(name, kind, f"decimal({precision},{scale})")
        if kind == "integer":
            return Column(name, kind, INTEGERS.get(precision or 0, "bigint"))
        return Column(
            name, kind, {"datetime": "timestamp", "float": "double"}.get(kind) or LABELS.get(type_, type_.__name__)
        )

    def error(self, error: BaseException, *, reading: bool) -> PsttError:
        """Translates by SQLSTATE, and by the driver's text where the state is a general one."""
        if not isinstance(error, pyodbc.Error):
            return self.unreadable(error)
        state = str(error.args[0]) if error.args else ""
        full = str(error.args[1]) if len(error.args) > 1 else state
        text = words(full)
        if state in ("IM002", "IM003", "IM004") or "Can't open lib" in full:
            return ConfigError(
                f'connection "{self.name}" needs an ODBC driver',
                why=text,
                remedy="install it, or correct driver or dsn",
            )
        if state.startswith("28"):
            return self.refused(text)
        if self._active is None:
            return self._not_connected(state, text)
        if state.startswith("08") or state in ("HYT01",) or _LOST.search(text):
            return self.lost(text, reading=reading)
        if state in _CONFLICTS:
            return self.conflict(text, reading=reading)
        if state in ("HYT00", "57014"):
            return self.waited_too_long(reading=reading)
        if state == "42501":
            return self.forbidden(text)
        return self._of_the_statement(state, text)

    def _of_the_statement(self, state: str, text: str) -> QueryFailed:
        if state == "25006" or _READ_ONLY.search(text):
            return self.failed(f"{text}: the session is read-only")
        return self.failed(text)

    def _not_connected(self, state: str, text: str) -> PsttError:
        if _REFUSED.search(text):  # not every driver has the state for it
            return self.refused(text)
        if state in _NO_DATABASE:
            return ConfigError(
                f'connection "{self.name}": {text}', remedy="correct database or options in connections.json"
            )
        return self.unavailable(text)

    @property
    def place(self) -> str:
        """Returns what the connection names: a host, a data source or a file."""
        given = self.connection
        return super().place if given.host else f'"{self.name}" ({given.dsn or given.database})'

    def server_checks(self, raw: pyodbc.Connection) -> Iterator[CheckResult]:
        """Yields server, driver and account, and a warning if the session is not read-only."""
        subject = f"database {self.name}"
        name, version, driver, account = (
            raw.getinfo(info)
            for info in (pyodbc.SQL_DBMS_NAME, pyodbc.SQL_DBMS_VER, pyodbc.SQL_DRIVER_NAME, pyodbc.SQL_USER_NAME)
        )
        yield CheckResult("pass", subject, f"{name} {version} through {driver}, account {account or 'unknown'}")
        if not self.dialect.session.begin:
            yield CheckResult(
                "warn", subject, "the session is not read-only", "use an account that may only SELECT, or set dialect"
            )


def _quoted(value: str) -> str:
    """Returns a value in braces where ODBC needs them: some drivers take braces as part of the value."""
    return f"{{{value.replace('}', '}}')}}}" if _SPECIAL.search(value) else value


@cache
def _source(sql: str) -> type[OdbcSource]:
    """Returns the class for the SQL of a connection."""
    return type("OdbcSource", (OdbcSource,), {"dialect": find_dialect(DIALECT.name, sql)})


def SOURCE(connection: DatabaseConnection) -> OdbcSource:
    """Returns the source of a connection, with the rules of its `dialect`."""
    return _source(connection.dialect)(connection)
