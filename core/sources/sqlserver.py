"""SQL Server through pyodbc: Microsoft's ODBC driver on Windows, that or FreeTDS on Linux.

SQL Server has no read-only session. The readonly guard refuses what writes, and `check` warns where the login may.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any, ClassVar

import pyodbc

from core.errors import ConfigError, PsttError
from core.model.check_result import CheckResult
from core.model.connection import Option
from core.model.dialect import Dialect
from core.model.query import Step
from core.model.source import Column
from core.sources.pyodbc_source import INTEGERS, KINDS, LABELS, PyodbcSource, words
from core.sources.sqlserver_dialect import DIALECT

__all__ = ["SOURCE", "SqlServerSource"]

_DATETIMEOFFSET = -155
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


class SqlServerSource(PyodbcSource):
    """One database of a SQL Server."""

    dialect: ClassVar[Dialect] = DIALECT

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

    def column(self, described: Sequence[Any]) -> Column:
        """Returns a column from its description."""
        return _column(*described)

    def begin(self, raw: pyodbc.Connection) -> None:
        """Begins one snapshot if the database allows it; otherwise each statement sees what is committed when it reads."""
        cursor = self.cursor_of(raw)
        try:
            row = cursor.execute("SELECT snapshot_isolation_state FROM sys.databases WHERE name = DB_NAME()").fetchone()
            level = "SNAPSHOT" if row and row[0] == 1 else "READ COMMITTED"
            raw.rollback()
            cursor.execute(f"SET TRANSACTION ISOLATION LEVEL {level}")
        finally:
            cursor.close()

    def count(self, raw: pyodbc.Connection, step: Step) -> int:
        """Counts the same state as the rows under SNAPSHOT, otherwise what is committed at that moment."""
        sql, kept = _counting(step.sql)
        binds = [bind for i, bind in enumerate(step.binds) if i in kept]
        cursor = self.cursor_of(raw)
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
        text = words(full)
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
        return Column(name, kind, INTEGERS.get(precision or 0, "int"))
    return Column(name, kind, LABELS.get(type_, type_.__name__))


def _moment_with_offset(data: bytes) -> str:
    """Returns SQL_SS_TIMESTAMPOFFSET (six shorts, nanoseconds, offset hours and minutes) as ISO 8601 text.

    Digits beyond the microsecond are cut. It returns text because DATETIMEOFFSET(0) is described like a VARCHAR.
    """
    year, month, day, hour, minute, second, nanos, off_hours, off_minutes = struct.unpack("<6hI2h", data)
    zone = timezone(timedelta(hours=off_hours, minutes=off_minutes))
    moment = datetime(year, month, day, hour, minute, second, nanos // 1000, zone)
    return moment.isoformat(timespec="microseconds")


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


SOURCE = SqlServerSource
