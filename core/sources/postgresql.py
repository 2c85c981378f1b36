"""PostgreSQL through psycopg 3: one read-only snapshot, streamed by libpq's chunked-rows mode.

Against a server-side cursor that mode costs a third a row, and the planner does not take the
statement for one of which only the first rows are wanted. Numbers and times are taken as the text
that the server sends: psycopg's own types refuse a whole fetch for one 'infinity' or one year 10000,
and a Decimal costs four times the text that it is turned back into.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import chain
from typing import Any, ClassVar

import psycopg
from psycopg import pq
from psycopg.adapt import Loader
from psycopg.types.string import TextLoader

from core.errors import ConfigError, PsttError
from core.model import Column, DbType, Fact, Kind, Step
from core.sources.pooled import PooledSource

__all__ = ["PostgresSource"]

_KINDS: dict[str, Kind] = {
    "int2": "integer",
    "int4": "integer",
    "int8": "integer",
    "oid": "integer",
    "numeric": "decimal",
    "money": "decimal",
    "float4": "float",
    "float8": "float",
    "date": "date",
    "timestamp": "datetime",
    "timestamptz": "datetime_tz",
    "time": "time",
    "timetz": "time",
    "interval": "interval",
    "bpchar": "char",
    "bytea": "bytes",
    "json": "json",
    "jsonb": "json",
    "bool": "boolean",
}
_AS_TEXT = (
    "numeric date timestamp timestamptz time timetz interval json jsonb uuid inet cidr int4range int8range numrange "
    "tsrange tstzrange daterange int4multirange int8multirange nummultirange tsmultirange tstzmultirange datemultirange"
).split()
_SESSION = {
    "DateStyle": "ISO",
    "IntervalStyle": "iso_8601",
    "TimeZone": "UTC",
    "lc_monetary": "C",
    "bytea_output": "hex",
    "extra_float_digits": "1",
}

_NETWORK = ("08", "57P01", "57P02", "57P03", "57P05", "53300")
"""SQLSTATE: connection exceptions, shutdown, crash, starting up, idle timeout, too many connections."""
_CONFLICTS = ("40001", "40P01", "55P03", "72000")
"""Serialisation, deadlock, lock not available, snapshot too old: the same statement may pass later."""


class _MoneyLoader(Loader):
    """`-$1,234.50` → `-1234.50`."""

    def load(self, data: Any) -> str:
        return bytes(data).decode().replace("$", "").replace(",", "")


class PostgresSource(PooledSource):
    """One database of a PostgreSQL server."""

    db_type: ClassVar[DbType] = "postgresql"
    driver_errors = (psycopg.Error,)

    def connect(self) -> psycopg.Connection[Any]:
        """Connects with time-outs, keepalives and a session whose texts we know how to read."""
        given = self.connection
        settings = dict(_SESSION)
        if given.statement_timeout_s:
            settings["statement_timeout"] = str(round(given.statement_timeout_s * 1000))
        raw = psycopg.connect(
            host=given.host,
            port=given.port or 5432,
            dbname=given.database,
            user=given.username,
            password=given.password.reveal() if given.password else None,
            connect_timeout=max(round(given.connect_timeout_s), 2),
            application_name="pstt-kafka",
            client_encoding="UTF8",
            options=" ".join(f"-c {name}={value}" for name, value in settings.items()),
            keepalives_idle=30,
            keepalives_interval=10,
            keepalives_count=3,
            sslmode=given.sslmode or None,
            sslrootcert=str(given.sslrootcert) if given.sslrootcert else None,
        )
        for name in _AS_TEXT:
            raw.adapters.register_loader(name, TextLoader)
        raw.adapters.register_loader("money", _MoneyLoader)
        raw.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        raw.read_only = not given.allow_writes
        return raw

    def begin(self, raw: psycopg.Connection[Any]) -> None:
        """Psycopg begins the transaction with the first statement; REPEATABLE READ makes it one snapshot."""

    def run(self, raw: psycopg.Connection[Any], step: Step) -> None:
        """Prepared, since a string of several statements could end the read-only transaction."""
        with raw.cursor() as cursor:
            cursor.execute(_text(step), step.binds or None, prepare=True)

    def count(self, raw: psycopg.Connection[Any], step: Step) -> int:
        """In the same snapshot."""
        with raw.cursor() as cursor:
            cursor.execute(self.counting(step.sql).encode(), step.binds or None, prepare=True)
            row = cursor.fetchone()
            return int(row[0]) if row else 0

    def stream(
        self, raw: psycopg.Connection[Any], step: Step, fetch_rows: int
    ) -> tuple[tuple[Column, ...], Iterator[Sequence[Any]]]:
        """Sends the statement; the server goes on while we work on the rows that have come."""
        cursor = raw.cursor()
        size = fetch_rows if pq.version() >= 170000 else 1
        rows = cursor.stream(_text(step), step.binds or None, size=size)
        first = next(rows, None)
        if first is None:
            # An empty stream describes nothing; the statement, known to be empty in this snapshot, describes itself.
            with closing(raw.cursor()) as again:
                again.execute(_text(step), step.binds or None, prepare=True)
                return self._columns(raw, again), iter(())
        return self._columns(raw, cursor), _blocks(chain([first], rows), rows, fetch_rows)

    def _columns(self, raw: psycopg.Connection[Any], cursor: psycopg.Cursor[Any]) -> tuple[Column, ...]:
        return tuple(self._column(raw, column) for column in cursor.description or ())

    def _column(self, raw: psycopg.Connection[Any], column: psycopg.Column) -> Column:
        info = raw.adapters.types.get(column.type_code)
        if info is None:  # an enum, a composite, a type of an extension: the server's text
            return Column(column.name, "text", column.type_display)
        kind = _KINDS.get(info.name, "text")
        if info.array_oid == column.type_code and info.oid != column.type_code:
            return Column(column.name, "array", f"{info.name}[]", element=kind)
        return Column(column.name, kind, column.type_display)

    def stop(self, raw: psycopg.Connection[Any]) -> None:
        """Asks the server to end the statement."""
        raw.cancel_safe(timeout=5)

    def error(self, error: BaseException, *, reading: bool) -> PsttError:
        """By SQLSTATE; without one the connection was never made, or broke."""
        state = getattr(error, "sqlstate", None) or ""
        text = _words(error)
        if state.startswith("28"):
            return self.refused(text)
        if state == "3D000":
            return ConfigError(f'connection "{self.name}": {text}', remedy="correct database in connections.json")
        if state.startswith(_NETWORK):
            return self.lost(text, reading=reading)
        if state in _CONFLICTS:
            return self.lost(text, reading=reading)
        if state == "42501":
            return self.forbidden(text)
        if state == "57014":
            return self.timed_out()
        if state == "25006":
            return self.failed(f"{text}: the session is read-only")
        if not state and isinstance(error, psycopg.OperationalError):
            return self._not_connected(text, reading=reading)
        return self.failed(text)

    def _not_connected(self, text: str, *, reading: bool) -> PsttError:
        """Libpq's own words: the server's FATAL answer to a login carries no SQLSTATE here."""
        if "password authentication failed" in text or "no password supplied" in text or "pg_hba.conf" in text:
            return self.refused(text)
        if 'database "' in text and "does not exist" in text:
            return ConfigError(f'connection "{self.name}": {text}', remedy="correct database in connections.json")
        if "certificate" in text or "SSL" in text:
            return ConfigError(
                f"database {self.place}: TLS failed", why=text, remedy="check sslmode and sslrootcert of the connection"
            )
        return self.lost(text, reading=reading)

    def facts(self, raw: psycopg.Connection[Any]) -> Iterator[Fact]:
        """Version, account, and whether it may write."""
        subject = f"database {self.name}"
        row = raw.execute(
            "SELECT current_setting('server_version'), current_user, "
            "(SELECT rolsuper FROM pg_roles WHERE rolname = current_user), "
            "EXISTS (SELECT 1 FROM information_schema.table_privileges WHERE grantee = current_user "
            "AND privilege_type IN ('INSERT', 'UPDATE', 'DELETE', 'TRUNCATE'))"
        ).fetchone()
        version, user, is_super, may_write = row or ("?", "?", False, False)
        tls = "TLS" if raw.pgconn.ssl_in_use else "no TLS"
        yield Fact("pass", subject, f"PostgreSQL {version}, account {user}, {tls}")
        if is_super or may_write:
            how = "is a superuser" if is_super else "may write to tables"
            yield Fact("warn", subject, f"account {user} {how}", "use an account that may only SELECT")


def _text(step: Step) -> bytes:
    """Bytes, since psycopg reserves str for literals of the program."""
    return step.sql.encode()


def _blocks(rows: Iterator[Any], stream: Any, fetch_rows: int) -> Iterator[Sequence[Any]]:
    from itertools import islice

    try:
        while block := list(islice(rows, fetch_rows)):
            yield block
    finally:
        stream.close()


def _words(error: BaseException) -> str:
    """The server's message with its hint and place, or libpq's, in one line."""
    diag = getattr(error, "diag", None)
    if diag is not None and diag.message_primary:
        parts = [diag.message_primary, diag.message_detail, diag.message_hint]
        place = f"at character {diag.statement_position}" if diag.statement_position else None
        return "; ".join(part for part in [*parts, place] if part)
    return " ".join(str(error).split())
