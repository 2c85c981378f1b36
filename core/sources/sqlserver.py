"""SQL Server through pyodbc: Microsoft's ODBC driver on Windows, that or FreeTDS on Linux.

SQL Server has no read-only session. The readonly guard refuses what writes, and `check` warns where the login may.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Generator, Iterator, Mapping, Sequence
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any, ClassVar

import pyodbc

from core.errors import ConfigError, PsttError
from core.model.check_result import CheckResult
from core.model.connection import Option
from core.model.dialect import Dialect
from core.model.query import Step
from core.model.source import Column, ColumnType
from core.sources.pooled import PooledSource, fetched_in_pieces, shortest_single
from core.sources.sqlserver_dialect import DIALECT

__all__ = ["SOURCE", "SqlServerSource"]

pyodbc.pooling = False  # the driver manager's pool, on by default on Windows, would reuse sessions with their settings

_DATETIMEOFFSET = -155
KINDS: dict[type, ColumnType] = {
    int: "integer",
    float: "float",
    Decimal: "decimal",
    str: "text",
    bytes: "bytes",
    bytearray: "bytes",
    bool: "boolean",
    date: "date",
    datetime: "datetime",
    time: "time",
}

_INTEGERS = {3: "tinyint", 5: "smallint", 10: "int", 19: "bigint"}
_LABELS: dict[type, str] = {
    str: "varchar",
    bytes: "varbinary",
    bytearray: "varbinary",
    bool: "bit",
    datetime: "datetime2",
}
"""The type objects of the driver, which distinguish families of types only."""

REFUSED = {18450, 18451, 18452, 18456, 18458, 18459, 18470, 18486, 18487, 18488}
"""Login failed, disabled, locked, expired."""
NO_DATABASE = {911, 4060}
"""The database does not exist, or this login may not open it."""
FORBIDDEN = {229, 230, 262, 297, 300, 371, 916}
"""A permission is missing."""
CONFLICT = {1204, 1205, 1222, 3960, 3961, 40197, 40501, 40613, 49918, 49919, 49920}
"""Deadlock, lock time-out, snapshot conflict, throttling: the same statement may succeed later."""
_NUMBER = re.compile(r"\((\d+)\)(?= \(SQL|;|$)")
"""The server's number of each message: `… (18456) (SQLDriverConnect)`."""
_TLS = re.compile(r"SSL Provider|SSL routines|certificate verify|TLS handshake", re.IGNORECASE)
AWAY_STATES = ("08001", "08004", "08S01", "08007", "HYT01", "01000")
TIMED_OUT = "HYT00"
CANCELLED = "HY008"


_UTF16 = (pyodbc.SQL_WCHAR, pyodbc.SQL_WVARCHAR, pyodbc.SQL_WLONGVARCHAR, -152)
"""Types that arrive as UTF-16; the last one is XML."""


class SqlServerSource(PooledSource):
    """One database of a SQL Server."""

    dialect: ClassVar[Dialect] = DIALECT
    driver_errors = (pyodbc.Error, ValueError, OverflowError)
    """ValueError and OverflowError: text with half a character, a date that Python cannot represent."""
    reads_ahead = True
    _cursor: pyodbc.Cursor | None = None

    def connect(self) -> pyodbc.Connection:
        """Connects with the driver of the connection, else the newest installed one."""
        driver = self.connection.driver or self._newest_driver()
        raw = pyodbc.connect(
            self._connection_string(driver),
            autocommit=False,
            timeout=max(round(self.connection.connect_timeout_s), 1),
            readonly=not self.connection.allow_writes,
        )
        raw.timeout = max(round(self.silence_s), 1)
        raw.add_output_converter(_DATETIMEOFFSET, _moment_with_offset)
        return raw

    def begin(self, raw: pyodbc.Connection) -> None:
        """Begins one snapshot if the database allows it; otherwise each statement sees what is committed when it reads."""
        cursor = self._cursor_of(raw)
        try:
            row = cursor.execute("SELECT snapshot_isolation_state FROM sys.databases WHERE name = DB_NAME()").fetchone()
            level = "SNAPSHOT" if row and row[0] == 1 else "READ COMMITTED"
            raw.rollback()
            cursor.execute(f"SET TRANSACTION ISOLATION LEVEL {level}")
        finally:
            cursor.close()

    def stream(
        self, raw: pyodbc.Connection, step: Step, fetch_rows: int
    ) -> tuple[tuple[Column, ...], Iterator[Sequence[Any]]]:
        """Runs the statement; yields the blocks of the driver."""
        columns, blocks = self._opened(raw, step, fetch_rows)
        return columns, self.readable(blocks, lambda: self._with_halves(raw, step, fetch_rows), fetch_rows)

    def _opened(
        self, raw: pyodbc.Connection, step: Step, fetch_rows: int
    ) -> tuple[tuple[Column, ...], Iterator[Sequence[Any]]]:
        cursor = self._cursor_of(raw)
        try:
            cursor.execute(step.sql, *step.binds) if step.binds else cursor.execute(step.sql)
            columns = _columns(cursor)
        except BaseException:
            cursor.close()
            raise
        blocks = fetched_in_pieces(cursor, fetch_rows, self.note_response, self.silence_s)
        singles = [i for i, column in enumerate(columns) if column.database_type == "real"]
        return columns, (_shortened(block, singles) for block in blocks) if singles else blocks

    def _with_halves(self, raw: pyodbc.Connection, step: Step, fetch_rows: int) -> Generator[Sequence[Any], None, None]:
        """Reads the result again; halves of characters, which LEFT can produce, become lone surrogates and reject their row."""
        for type_ in _UTF16:
            raw.add_output_converter(type_, _with_halves)
        yield from self._opened(raw, step, fetch_rows)[1]

    def run(self, raw: pyodbc.Connection, step: Step) -> None:
        """Runs a step on a cursor of its own, so that it can be cancelled."""
        cursor = self._cursor_of(raw)
        try:
            cursor.execute(step.sql, *step.binds) if step.binds else cursor.execute(step.sql)
        finally:
            cursor.close()

    def stop(self, raw: pyodbc.Connection) -> None:
        """Cancels the newest cursor; SQLCancel is the only call that another thread may make."""
        if self._cursor is not None:
            self._cursor.cancel()

    def _cursor_of(self, raw: pyodbc.Connection) -> pyodbc.Cursor:
        self._cursor = raw.cursor()
        return self._cursor

    def rows(self, raw: pyodbc.Connection, step: Step) -> list[tuple[Any, ...]]:
        """Returns all rows of a statement."""
        cursor = self._cursor_of(raw)
        try:
            return [tuple(row) for row in cursor.execute(step.sql, *step.binds).fetchall()]
        finally:
            cursor.close()

    def count(self, raw: pyodbc.Connection, step: Step) -> int:
        """Counts the same state as the rows under SNAPSHOT, otherwise what is committed at that moment."""
        sql, kept = _counting(step.sql)
        binds = [bind for i, bind in enumerate(step.binds) if i in kept]
        cursor = self._cursor_of(raw)
        try:
            return int(cursor.execute(sql, *binds).fetchone()[0])
        finally:
            cursor.close()

    def error(self, error: BaseException, *, reading: bool) -> PsttError:
        """Translates by the server's number in the text, else by SQLSTATE."""
        if not isinstance(error, pyodbc.Error):
            return self.unreadable(error)
        state = str(error.args[0]) if error.args else ""
        full = str(error.args[1]) if len(error.args) > 1 else state
        numbers = {int(number) for number in _NUMBER.findall(full)}
        text = _words(full)
        if numbers & NO_DATABASE and self._active is None:
            return ConfigError(
                f'connection "{self.name}": {text}',
                remedy=f"correct database in connections.json, or let {self.connection.username} open it",
            )
        if numbers & REFUSED or state == "28000":
            return self.refused(text)
        if state == TIMED_OUT:
            return self.waited_too_long(reading=reading) if self._active else self.unavailable(self._no_answer)
        if state == CANCELLED:
            return self.timed_out()
        if state in ("IM002", "IM003") or "Can't open lib" in full:
            return self._no_driver(text)
        if numbers & FORBIDDEN:
            return self.forbidden(text)
        if numbers & CONFLICT or state == "40001":
            return self.conflict(text, reading=reading)
        if _TLS.search(full):
            return ConfigError(
                f"database {self.place}: TLS failed",
                why=text,
                remedy='let this machine trust the server\'s CA; "sslmode": "require" encrypts without looking at it',
            )
        if "[FreeTDS]" in full and "Unknown error (0)" in full:
            return self.lost("the connection broke, FreeTDS does not say why", reading=reading)
        if state in AWAY_STATES:
            return self.lost(text, reading=reading)
        return self.failed(text)

    def server_checks(self, raw: pyodbc.Connection) -> Iterator[CheckResult]:
        """Yields version and account, and a warning if the account may write."""
        subject = f"database {self.name}"
        cursor = raw.cursor()
        try:
            version, login = cursor.execute("SELECT @@VERSION, SUSER_SNAME()").fetchone()
            yield CheckResult("pass", subject, f"{str(version).splitlines()[0]}, account {login}")
            row = cursor.execute(
                "SELECT IS_SRVROLEMEMBER('sysadmin'), IS_MEMBER('db_owner'), IS_MEMBER('db_datawriter')"
            ).fetchone()
        finally:
            cursor.close()
        if any(row):
            yield CheckResult("warn", subject, f"account {login} may write", "use a login that may only SELECT")

    @property
    def _no_answer(self) -> str:
        return f"no answer in connect_timeout_s = {self.connection.connect_timeout_s:g} s"

    def _connection_string(self, driver: str) -> str:
        """Returns the connection string. Values are in braces, so that `;` and `=` in a password are part of it.

        A `;` follows the last one too: FreeTDS 1.3 takes a brace at the very end as part of the value.
        """
        quoted = self._for_freetds if _is_freetds(driver) else _for_microsoft
        return "".join(f"{name}={quoted(value)};" for name, value in self._attributes(driver).items() if value)

    def _for_freetds(self, value: str) -> str:
        """Checks a value for FreeTDS, which has no doubled brace: a value ends at the first `};`."""
        if "};" in value:
            raise ConfigError(
                f'connection "{self.name}": FreeTDS takes no value with }}; in it',
                remedy="give the account another password, or use Microsoft's ODBC driver",
            )
        return f"{{{value}}}"

    def _attributes(self, driver: str) -> dict[str, str]:
        given = self.connection
        if given.sslrootcert:
            raise ConfigError(
                f'connection "{self.name}": SQL Server\'s drivers take no sslrootcert',
                remedy="put that CA into the system's store of trusted ones and leave sslrootcert out",
            )
        common = {
            "DRIVER": driver,
            "DATABASE": given.database,
            "UID": given.username,
            "PWD": given.password.reveal() if given.password else "",
            "APP": "pstt-kafka",
        }
        if not given.username and not given.authentication:
            common["Trusted_Connection"] = "yes"
        if _is_freetds(driver):
            return {
                **_as_texts(given.options),
                **common,
                "SERVER": given.host,
                "PORT": self._stated_port,
                "ApplicationIntent": given.application_intent,
                "TDS_Version": "7.4",
                "ClientCharset": "UTF-8",
                "Encryption": self._freetds_encryption(),
            }
        verified = given.sslmode in ("", "verify-ca", "verify-full")
        port = self._stated_port
        return {
            **_as_texts(given.options),
            **common,
            "SERVER": f"{given.host},{port}" if port else given.host,
            "Authentication": given.authentication,
            "MultiSubnetFailover": "yes" if given.multi_subnet_failover else "",
            "Encrypt": "no" if given.sslmode == "disable" else "yes",
            "TrustServerCertificate": "no" if verified else "yes",
            "ApplicationIntent": given.application_intent or ("ReadWrite" if given.allow_writes else "ReadOnly"),
        }

    @property
    def _stated_port(self) -> str:
        """Returns the port; empty for a host with the name of an instance, whose port SQL Server Browser knows."""
        return "" if "\\" in self.connection.host and not self.connection.port else str(self.port)

    def _freetds_encryption(self) -> str:
        mode = self.connection.sslmode
        if mode.startswith("verify"):
            raise ConfigError(
                f'connection "{self.name}" asks for sslmode {mode}',
                why="FreeTDS does not check certificates",
                remedy='install Microsoft\'s ODBC driver; "sslmode": "require" encrypts without looking',
            )
        return {"disable": "off", "require": "require"}.get(mode, "request")

    def _newest_driver(self) -> str:
        installed = pyodbc.drivers()
        microsoft = sorted(
            (name for name in installed if re.fullmatch(r"ODBC Driver \d+ for SQL Server", name)),
            key=lambda name: int(name.split()[2]),
        )
        freetds = [name for name in installed if "freetds" in name.lower() or "tds" in name.lower()]
        found = [*freetds, *microsoft]
        if not found:
            raise self._no_driver("no ODBC driver for SQL Server is installed")
        return str(found[-1])

    def _no_driver(self, why: str) -> ConfigError:
        return ConfigError(
            f'connection "{self.name}" needs an ODBC driver',
            why=why,
            remedy="install Microsoft's ODBC Driver 18 for SQL Server, or on Debian: apt-get install unixodbc tdsodbc",
        )


def _for_microsoft(value: str) -> str:
    return f"{{{value.replace('}', '}}')}}}"


def _as_texts(options: Mapping[str, Option]) -> dict[str, str]:
    """Returns the values as ODBC writes them: yes and no."""
    return {
        name: ("yes" if value else "no") if isinstance(value, bool) else str(value) for name, value in options.items()
    }


def _is_freetds(driver: str) -> bool:
    return "tds" in driver.lower()


def _columns(cursor: pyodbc.Cursor) -> tuple[Column, ...]:
    return tuple(_column(*described) for described in cursor.description or ())


def _column(
    name: str, type_: type, _display: Any, _size: Any, precision: int | None, scale: int | None, _nullable: Any
) -> Column:
    kind = KINDS.get(type_, "unknown")
    if kind == "text" and scale:  # only DATETIMEOFFSET is described as text with a scale
        return Column(name, "datetime_tz", "datetimeoffset")
    if kind == "float" and precision == 24:
        return Column(name, kind, "real")
    if kind == "decimal":
        return Column(name, kind, f"decimal({precision},{scale})")
    if kind == "integer":
        return Column(name, kind, _INTEGERS.get(precision or 0, "int"))
    return Column(name, kind, _LABELS.get(type_, type_.__name__))


def _moment_with_offset(data: bytes) -> str:
    """Returns SQL_SS_TIMESTAMPOFFSET (six shorts, nanoseconds, offset hours and minutes) as ISO 8601 text.

    Digits beyond the microsecond are cut. It returns text because DATETIMEOFFSET(0) is described like a VARCHAR.
    """
    year, month, day, hour, minute, second, nanos, off_hours, off_minutes = struct.unpack("<6hI2h", data)
    zone = timezone(timedelta(hours=off_hours, minutes=off_minutes))
    moment = datetime(year, month, day, hour, minute, second, nanos // 1000, zone)
    return moment.isoformat(timespec="microseconds")


def _with_halves(data: bytes | None) -> str | None:
    return None if data is None else data.decode("utf-16-le", "surrogatepass")


def _shortened(block: Sequence[Any], indexes: Sequence[int]) -> list[tuple[Any, ...]]:
    """Shortens REAL values, which arrive widened to a double: 0.1 as 0.10000000149."""
    columns = list(zip(*block, strict=True))
    for i in indexes:
        columns[i] = tuple(None if v is None else shortest_single(v) for v in columns[i])
    return list(zip(*columns, strict=True))


def _counting(sql: str) -> tuple[str, set[int]]:
    """Returns the statement that counts, and the indexes of the binds that it keeps, from 0.

    A derived table allows no WITH, no OPTION and, without TOP or OFFSET, no ORDER BY: WITH is moved to the front, OPTION to
    the end, ORDER BY is removed. The text is cut, not regenerated, so that the rest is unchanged.
    """
    from sqlglot.dialects.tsql import TSQL
    from sqlglot.tokenizer_core import Token, TokenType

    depth = 0
    outer: list[Token] = []
    binds: list[int] = []
    for token in TSQL().tokenize(sql):
        depth += (token.token_type == TokenType.L_PAREN) - (token.token_type == TokenType.R_PAREN)
        if token.token_type == TokenType.PLACEHOLDER:
            binds.append(token.start)
        elif depth == 0 and token.token_type not in (TokenType.IDENTIFIER, TokenType.STRING, TokenType.NATIONAL_STRING):
            outer.append(token)

    def places(*words: str) -> list[int]:
        return [token.start for token in outer if " ".join(token.text.upper().split()) in words]

    end = next(iter(places("OPTION")), len(sql))
    start = next(iter(places("SELECT")), 0)
    order = next(iter(places("ORDER BY")), end)
    is_limited = places("OFFSET") or (places("TOP") and not places("UNION", "EXCEPT", "INTERSECT"))
    cut = end if is_limited else order
    kept = {i for i, place in enumerate(binds) if not cut <= place < end}
    counted = f"SELECT COUNT_BIG(*) FROM (\n{sql[start:cut]}\n) counted\n"  # noqa: S608 - the user's own statement
    return sql[:start] + counted + sql[end:], kept


def _words(text: str) -> str:
    """Returns the text without the prefixes of the driver layers: `[42S02] [FreeTDS][SQL Server]…`."""
    text = re.sub(r"\[[^\]]*\]\s?", "", text)
    return " ".join(re.sub(r"\(SQL\w+\)", "", text).split()).strip("; ")


SOURCE = SqlServerSource
