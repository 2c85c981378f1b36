"""MySQL and MariaDB through PyMySQL: one read-only snapshot, row by row as the server sends it.

Values are read as the text that the server sends: a Python date cannot be `0000-00-00`, and a Decimal would be
converted back to that text. PyMySQL writes the values of binds into the statement as escaped literals, because the
protocol of a plain statement has no binds.
"""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from typing import Any, ClassVar

import pymysql
from pymysql.constants import FIELD_TYPE, FLAG
from pymysql.cursors import SSCursor

from core.errors import ConfigError, PsttError
from core.model.check_result import CheckResult
from core.model.dialect import Dialect
from core.model.query import Step
from core.model.source import Column, ColumnType
from core.sources.cursors import fetched_in_pieces
from core.sources.mysql_dialect import DIALECT, UNREADABLE_MODES
from core.sources.pooled import PooledSource

__all__ = ["SOURCE", "MySqlSource"]

KINDS: dict[int, ColumnType] = {
    FIELD_TYPE.TINY: "integer",
    FIELD_TYPE.SHORT: "integer",
    FIELD_TYPE.INT24: "integer",
    FIELD_TYPE.LONG: "integer",
    FIELD_TYPE.LONGLONG: "integer",
    FIELD_TYPE.YEAR: "integer",
    FIELD_TYPE.BIT: "integer",
    FIELD_TYPE.DECIMAL: "decimal",
    FIELD_TYPE.NEWDECIMAL: "decimal",
    FIELD_TYPE.FLOAT: "float",
    FIELD_TYPE.DOUBLE: "float",
    FIELD_TYPE.DATE: "date",
    FIELD_TYPE.NEWDATE: "date",
    FIELD_TYPE.DATETIME: "datetime",
    FIELD_TYPE.TIMESTAMP: "datetime_tz",
    FIELD_TYPE.TIME: "time",
    FIELD_TYPE.JSON: "json",
    FIELD_TYPE.STRING: "char",
    FIELD_TYPE.VARCHAR: "text",
    FIELD_TYPE.VAR_STRING: "text",
    FIELD_TYPE.TINY_BLOB: "text",
    FIELD_TYPE.BLOB: "text",
    FIELD_TYPE.MEDIUM_BLOB: "text",
    FIELD_TYPE.LONG_BLOB: "text",
    FIELD_TYPE.ENUM: "text",
    FIELD_TYPE.SET: "text",
    FIELD_TYPE.GEOMETRY: "bytes",
}
_LABELS: dict[int, str] = {
    FIELD_TYPE.TINY: "tinyint",
    FIELD_TYPE.SHORT: "smallint",
    FIELD_TYPE.INT24: "mediumint",
    FIELD_TYPE.LONG: "int",
    FIELD_TYPE.LONGLONG: "bigint",
    FIELD_TYPE.YEAR: "year",
    FIELD_TYPE.FLOAT: "float",
    FIELD_TYPE.DOUBLE: "double",
    FIELD_TYPE.DATE: "date",
    FIELD_TYPE.NEWDATE: "date",
    FIELD_TYPE.DATETIME: "datetime",
    FIELD_TYPE.TIMESTAMP: "timestamp",
    FIELD_TYPE.TIME: "time",
    FIELD_TYPE.JSON: "json",
    FIELD_TYPE.STRING: "char",
    FIELD_TYPE.VARCHAR: "varchar",
    FIELD_TYPE.VAR_STRING: "varchar",
    FIELD_TYPE.GEOMETRY: "geometry",
    FIELD_TYPE.NULL: "null",
}
_BINARY = 63
"""The character set of binary values."""
_ANY_SCALE = 31
"""The scale of a FLOAT without a declared one."""

_WRITE_TIMEOUT_S = 3600
"""How long the server waits to send a row; its default of 60 s ends a read while Kafka is not available."""
_KILL_TIMEOUT_S = 3.0

# Numbers of the server's errors, grouped by what the program does about them.
REFUSED = {1045, 1130, 1251, 1524, 1698, 1820, 1862, 2059, 3118, 3159, 3955, 4151}
"""Password, host, account locked or expired, a method of login that this driver does not have, TLS demanded."""
NO_DATABASE = {1044, 1049}
"""The database does not exist, or this account may not open it."""
FORBIDDEN = {1044, 1142, 1143, 1227, 1356, 1370}
UNREACHABLE = {1040, 1129, 1203, 1226, 2002, 2003, 2005}
"""Too many connections, or no server."""
LOST = {0, 1053, 1079, 1152, 1158, 1159, 1160, 1161, 1927, 2006, 2013, 2014, 2055, 3169, 4031}
CONFLICT = {1020, 1021, 1037, 1038, 1041, 1135, 1205, 1206, 1213, 1412, 1615, 3572}
"""Locks, a deadlock, a table that was altered, memory or disk: the same statement may succeed later."""
NO_NUMBER = -1
"""An error of the driver itself: the connection is closed, or what arrived is not the protocol."""
TIMED_OUT = {1907, 1969, 3024}
READ_ONLY = {1290, 1792, 1836}
NO_SUCH_VARIABLE = 1193
TLS_FAILED = {2026}


class _Connection(pymysql.Connection):  # type: ignore[misc]  # the driver has no types
    """A connection that sends its password in clear text only if the connection is encrypted."""

    def _process_auth(self, plugin_name: bytes, auth_packet: Any, handler: Any = None) -> Any:
        if plugin_name in (b"mysql_clear_password", b"dialog") and not self._secure:
            method = plugin_name.decode()
            raise pymysql.OperationalError(2059, f"the server asks for the password in clear text ({method})")
        return super()._process_auth(plugin_name, auth_packet, handler)


class _Cursor(SSCursor):  # type: ignore[misc]
    """An unbuffered cursor that closes without reading the rows that are left."""

    first: tuple[Any, ...] | None = None
    """The row that was read to see whether there is one."""

    def begin(self) -> bool:
        """Waits for the first row. Returns whether there is one; without one, the result is read to its end."""
        self.first = self.fetchone()
        return self.first is not None

    def fetchmany(self, size: int | None = None) -> list[tuple[Any, ...]]:
        """Returns the next rows, `first` among them."""
        if self.first is None:
            return list(super().fetchmany(size))
        row, self.first = self.first, None
        return [row, *super().fetchmany((size or self.arraysize) - 1)]

    def close(self) -> None:
        result = self._result
        if result is not None:
            result.unbuffered_active = False
            result.connection = None
        self.connection = None

    __del__ = close


class MySqlSource(PooledSource):
    """One database of a MySQL or MariaDB server."""

    dialect: ClassVar[Dialect] = DIALECT
    driver_errors = (pymysql.Error, OSError, ValueError, OverflowError, RuntimeError, struct.error, IndexError)
    """RuntimeError: a login or a request of the server for which the driver lacks a package or a permission; the last
    two: a server that does not follow the protocol."""
    logins: ClassVar[int] = 4
    """PyMySQL tries each address of the host for the whole time-out."""
    _zone_changed = False

    def connect(self) -> _Connection:
        """Connects; the session's time zone is UTC, so that TIMESTAMP columns come as UTC."""
        raw = self._login(self.connection.connect_timeout_s)
        try:
            self._set_up(raw)
        except BaseException:
            raw.close()
            raise
        raw._read_timeout = None  # from here on the session limits each wait
        return raw

    def _login(self, timeout_s: float) -> _Connection:
        given = self.connection
        password = given.password.reveal() if given.password else ""
        tls = self._tls()
        settings = {
            **given.options,
            "host": given.host,
            "port": self.port,
            "user": given.username,
            "password": password.encode(),  # the driver would encode a text as Latin-1
            "database": given.database,
            "charset": "utf8mb4",
            "connect_timeout": max(timeout_s, 1),
            "read_timeout": timeout_s,
            "write_timeout": timeout_s,
            "autocommit": None,
            "program_name": "pstt-kafka",
            "cursorclass": _Cursor,
            "ssl": tls,
            "ssl_disabled": given.sslmode == "disable",
        }
        try:
            return _Connection(**settings)
        except (TypeError, NotImplementedError) as error:
            raise ConfigError(
                f'connection "{self.name}": the driver does not take its options',
                why=str(error),
                remedy="correct options in connections.json; PyMySQL's Connection has their names",
            ) from None

    def _tls(self) -> ssl.SSLContext | None:
        """Returns how TLS is used; None: as far as the server offers it, without checking its certificate."""
        mode = self.connection.sslmode
        if mode in ("", "prefer", "disable"):
            return None
        try:
            context = ssl.create_default_context(cafile=self.connection.sslrootcert)
        except OSError as error:
            raise self._tls_failed(f"sslrootcert {self.connection.sslrootcert}: {error}") from None
        context.check_hostname = mode == "verify-full"
        if mode == "require":
            context.verify_mode = ssl.CERT_NONE
        self._add_certificate(context)
        return context

    def _add_certificate(self, context: ssl.SSLContext) -> None:
        given = self.connection
        if not given.sslcert:
            return
        try:
            # Without a passphrase OpenSSL would ask for it at the terminal.
            passphrase = given.sslpassword.reveal() if given.sslpassword else ""
            context.load_cert_chain(given.sslcert, given.sslkey, passphrase)
        except (OSError, ValueError) as error:
            raise self._tls_failed(f"sslcert, sslkey or sslpassword: {error}") from None

    def _set_up(self, raw: _Connection) -> None:
        (modes,) = self._row(raw, "SELECT @@SESSION.sql_mode")
        kept = [mode for mode in str(modes or "").split(",") if mode and mode not in UNREADABLE_MODES]
        self._run(
            raw,
            f"SET SESSION sql_mode = '{','.join(kept)}', time_zone = '+00:00', net_write_timeout = {_WRITE_TIMEOUT_S}",
        )
        limit = self.connection.statement_timeout_s
        if not limit:
            return
        seconds = f"max_statement_time = {limit:.3f}"
        setting = seconds if _is_mariadb(raw) else f"max_execution_time = {max(round(limit * 1000), 1)}"
        try:
            self._run(raw, f"SET SESSION {setting}")
        except pymysql.Error as error:  # before MySQL 5.7 only the wait for a response is limited
            if error.args[0] != NO_SUCH_VARIABLE:
                raise

    def begin(self, raw: _Connection) -> None:
        """Begins one read-only snapshot of the tables that have transactions."""
        self._zone_changed = False
        access = "READ WRITE" if self.connection.allow_writes else "READ ONLY"
        self._run(raw, "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        self._run(raw, f"START TRANSACTION WITH CONSISTENT SNAPSHOT, {access}")

    def run(self, raw: _Connection, step: Step) -> None:
        """Runs a step and discards its rows one by one."""
        self._zone_changed |= "TIME_ZONE" in step.sql.upper()
        with closing(raw.cursor()) as cursor:
            _execute(cursor, step.sql, step)
            while cursor.fetchmany(1000):
                self.note_response()
                self._refuse_cancelled()

    def rows(self, raw: _Connection, step: Step) -> list[tuple[Any, ...]]:
        """Returns all rows of a statement."""
        with closing(raw.cursor()) as cursor:
            _execute(cursor, step.sql, step)
            return list(cursor.fetchall())

    def count(self, raw: _Connection, step: Step) -> int:
        """Counts in the same snapshot."""
        (row,) = self.rows(raw, replace(step, sql=self.counting(step.sql)))
        return int(row[0])

    def stream(
        self, raw: _Connection, step: Step, fetch_rows: int
    ) -> tuple[tuple[Column, ...], Iterator[Sequence[Any]]]:
        """Runs the statement; the server sends rows no faster than they are read."""
        cursor = raw.cursor()
        try:
            _execute(cursor, step.sql, step)
            result: Any = cursor._result
            columns = tuple(self._refuse_shifted(_column(field)) for field in result.fields)
            result.converters = [_conversion(column) for column in columns]
            has_rows = cursor.begin()  # waits until the statement has begun, so that its errors are raised here
        except BaseException:
            cursor.close()
            raise
        return columns, self._blocks(raw, cursor, fetch_rows) if has_rows else iter(())

    def _blocks(self, raw: _Connection, cursor: SSCursor, fetch_rows: int) -> Iterator[Sequence[Any]]:
        try:
            yield from fetched_in_pieces(cursor, fetch_rows, self.note_response, self.silence_s)
        except GeneratorExit:
            self.stop(raw)  # else the server would go on until it fails to send a row
            raise

    def _refuse_shifted(self, column: Column) -> Column:
        if column.database_type != "timestamp" or not self._zone_changed:
            return column
        why = (
            "an earlier step sets time_zone, and the server does not report by how much its values are shifted. "
            f"Leave that step out, or write in the query: CAST({column.name} AS datetime(6)) AS {column.name}"
        )
        return replace(column, refusal=why)

    def stop(self, raw: _Connection) -> None:
        """Ends the running statement with KILL QUERY, on a connection of its own, if that reaches the same server."""
        with (
            suppress(ConfigError),
            closing(self._login(min(self.connection.connect_timeout_s, _KILL_TIMEOUT_S))) as other,
        ):
            if other.server_version == raw.server_version:
                self._run(other, f"KILL QUERY {raw.thread_id()}")

    def cut(self, raw: _Connection) -> None:
        """Shuts the socket down, which ends the wait for the server at once."""
        connected = raw._sock
        if connected is not None:
            with suppress(OSError):
                socket.socket.shutdown(connected, socket.SHUT_RDWR)

    def error(self, error: BaseException, *, reading: bool) -> PsttError:
        """Translates by the server's number, which the driver's own errors have too."""
        if not isinstance(error, pymysql.Error):
            return self._of_the_system(error, reading=reading)
        code = error.args[0] if error.args and isinstance(error.args[0], int) else NO_NUMBER
        text = _words(error, code)
        cause = getattr(error, "original_exception", None)
        if isinstance(cause, ssl.SSLError) or code in TLS_FAILED:
            return self._tls_failed(text)
        if code in NO_DATABASE and self._active is None:
            return ConfigError(
                f'connection "{self.name}": {text}',
                remedy=f"correct database in connections.json, or let {self.connection.username} open it",
            )
        if code in REFUSED:
            return self.refused(text)
        if code in FORBIDDEN:
            return self.forbidden(text)
        if code == NO_NUMBER or code in UNREACHABLE or code in LOST:
            return self.lost(text, reading=reading)
        if code in CONFLICT:
            return self.conflict(text, reading=reading)
        if code in TIMED_OUT:
            return self.timed_out()
        if code in READ_ONLY:
            return self.failed(f"{text}: the session is read-only")
        return self.failed(text)

    def _of_the_system(self, error: BaseException, *, reading: bool) -> PsttError:
        if isinstance(error, ssl.SSLError):
            return self._tls_failed(str(error))
        if isinstance(error, OSError):
            return self.lost(str(error), reading=reading)
        if isinstance(error, RuntimeError) and self._active is None:
            return ConfigError(
                f'connection "{self.name}": the driver cannot log in as the account asks',
                why=str(error),
                remedy="install the package that it names, or give the account another method of login",
            )
        if isinstance(error, struct.error | IndexError) and self._active is None:
            return self.unavailable("what answers there is no MySQL server")
        return self.unreadable(error)

    def _tls_failed(self, text: str) -> ConfigError:
        return ConfigError(
            f"database {self.place}: TLS failed",
            why=text,
            remedy="check sslmode, sslrootcert and host of the connection; the server's certificate has to name that host",
        )

    def server_checks(self, raw: _Connection) -> Iterator[CheckResult]:
        """Yields version and account, and warnings if the account may write, or if names are quoted otherwise there."""
        subject = f"database {self.name}"
        account, modes = self._row(raw, "SELECT CURRENT_USER(), @@GLOBAL.sql_mode")
        version = raw.server_version
        name = "MariaDB" if _is_mariadb(raw) else "MySQL"
        tls = "TLS" if raw._secure else "no TLS"
        yield CheckResult("pass", subject, f"{name} {version}, account {account}, {tls}")
        user, _, host = str(account).rpartition("@")
        grantee = f"'{user}'@'{host}'"
        rights = [str(row[0]) for row in self.rows(raw, Step(_RIGHTS, {"WHO": grantee}))]
        if rights:
            yield CheckResult(
                "warn", subject, f"account {account} may {', '.join(rights)}", "use an account that may only SELECT"
            )
        dropped = sorted(set(UNREADABLE_MODES) & set(str(modes or "").split(",")))
        if dropped:
            yield CheckResult(
                "warn",
                subject,
                f"sql_mode of the server has {', '.join(dropped)}, which a run turns off",
                "quote names with backticks and texts with single quotes",
            )

    def _run(self, raw: _Connection, sql: str) -> None:
        with closing(raw.cursor()) as cursor:
            cursor.execute(sql)

    def _row(self, raw: _Connection, sql: str) -> tuple[Any, ...]:
        with closing(raw.cursor()) as cursor:
            cursor.execute(sql)
            (row,) = cursor.fetchall()
            return tuple(row)


_RIGHTS = """
SELECT DISTINCT privilege_type FROM (
    SELECT grantee, privilege_type FROM information_schema.user_privileges
    UNION ALL SELECT grantee, privilege_type FROM information_schema.schema_privileges
    UNION ALL SELECT grantee, privilege_type FROM information_schema.table_privileges
) given
WHERE grantee = %(WHO)s AND privilege_type IN ('INSERT', 'UPDATE', 'DELETE', 'CREATE', 'DROP', 'ALTER', 'FILE', 'SUPER')
ORDER BY privilege_type
"""


def _execute(cursor: SSCursor, sql: str, step: Step) -> None:
    cursor.execute(sql, dict(step.binds) if step.binds else None)  # type: ignore[arg-type]


def _is_mariadb(raw: _Connection) -> bool:
    return "mariadb" in raw.server_version.lower()


def _column(field: Any) -> Column:
    code, name = field.type_code, field.name
    kind = KINDS.get(code, "unknown")
    label = _LABELS.get(code, "")
    if code == FIELD_TYPE.BIT:
        return Column(name, "boolean" if field.length == 1 else "integer", f"bit({field.length})")
    if kind == "decimal":
        signs = (field.scale > 0) + (not field.flags & FLAG.UNSIGNED)
        return Column(name, kind, f"decimal({field.length - signs},{field.scale})")
    if code == FIELD_TYPE.FLOAT and field.scale == _ANY_SCALE:
        return Column(name, kind, label, refusal=_float_refusal(name))
    if kind in ("text", "char"):
        return _text_column(name, kind, label, field)
    if kind == "integer" and field.flags & FLAG.UNSIGNED and code != FIELD_TYPE.YEAR:
        label += " unsigned"
    return Column(name, kind, label or f"type {code}")


def _text_column(name: str, kind: ColumnType, label: str, field: Any) -> Column:
    if field.charsetnr == _BINARY:
        return Column(name, "bytes", {"char": "binary", "varchar": "varbinary"}.get(label, "blob"))
    if field.flags & (FLAG.ENUM | FLAG.SET):
        return Column(name, "text", "enum" if field.flags & FLAG.ENUM else "set")
    return Column(name, kind, label or "text")


def _float_refusal(name: str) -> str:
    return (
        "the server sends a FLOAT with six digits, whatever it holds. "
        f"Write in the query: CAST({name} AS double) AS {name}, or CAST({name} AS char) AS {name} for those six digits"
    )


def _conversion(column: Column) -> tuple[str | None, Callable[[Any], Any] | None]:
    """Returns the encoding of a column's values, and what converts the decoded value."""
    if column.database_type.startswith("bit("):
        return None, _bit if column.kind == "boolean" else _bits
    if column.database_type == "timestamp":
        return None, _moment_in_utc
    by_kind: dict[ColumnType, tuple[str | None, Callable[[Any], Any] | None]] = {
        "integer": (None, int),
        "float": (None, float),
        "bytes": (None, None),
        "unknown": (None, None),
    }
    return by_kind.get(column.kind, (None, _text))


def _text(data: bytes) -> str:
    """Decodes invalid bytes to lone surrogates, which reject their row."""
    return str(data, "utf-8", "surrogateescape")


def _moment_in_utc(data: bytes) -> str:
    return f"{data.decode()}+00:00"


def _bits(data: bytes) -> int:
    return int.from_bytes(data)


def _bit(data: bytes) -> bool:
    return data != b"\0"


def _words(error: pymysql.Error, code: int) -> str:
    """Returns the server's text with its number."""
    text = " ".join(str(error.args[1] if len(error.args) > 1 else error).split())
    return f"{text or 'the connection is closed'} ({code})" if code > 0 else text or "the connection is closed"


SOURCE = MySqlSource
