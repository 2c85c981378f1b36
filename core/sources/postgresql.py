"""PostgreSQL through psycopg 3: one read-only snapshot, streamed in libpq's chunked-rows mode.

That mode takes a third of the time that a server-side cursor takes per row, and the planner does not optimise the
statement for its first rows. Numbers and times are read as the text that the server sends: psycopg's own types fail a
whole fetch for one 'infinity' or one year 10000, and a Decimal costs four times as much as the text, to which it would
be converted back.
"""

from __future__ import annotations

import re
import socket
import ssl
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain, islice
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import psycopg
from psycopg import pq, waiting
from psycopg.abc import PQGen
from psycopg.adapt import Loader
from psycopg.generators import execute
from psycopg.pq.abc import PGresult
from psycopg.types import TypeInfo
from psycopg.types.string import TextLoader

from core.errors import ConfigError, PsttError
from core.model.check_result import CheckResult
from core.model.dialect import Dialect
from core.model.query import Step
from core.model.source import Column, ColumnType
from core.sources.pooled import PooledSource
from core.sources.postgresql_dialect import DIALECT, hosts_and_ports
from core.sources.session import CHECK_EVERY_S

__all__ = ["SOURCE", "PostgresSource"]

T = TypeVar("T")

KINDS: dict[str, ColumnType] = {
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
    "numeric date timestamp timestamptz time timetz interval json jsonb uuid inet cidr record "
    "int4range int8range numrange "
    "tsrange tstzrange daterange int4multirange int8multirange nummultirange tsmultirange tstzmultirange datemultirange"
).split()
_TEXTS: tuple[str | int, ...] = (0, "text", "varchar", "bpchar", "name", '"char"', *_AS_TEXT)
"""Types that arrive as text; psycopg registers the loader for unknown types under 0."""
_UNIFORM = ("int2", "int4", "int8", "bool", "text", "varchar", "bpchar", "name")
"""Types whose loaders return values of one class."""
_SESSION = {
    "DateStyle": "ISO",
    "IntervalStyle": "iso_8601",
    "TimeZone": "UTC",
    "lc_monetary": "C",
    "bytea_output": "hex",
    "extra_float_digits": "1",
}

DEAD_AFTER_S = 60.0
"""The time after which the keepalives give up: then the system closes a connection whose packets are not acknowledged."""
_CLIENT_CHECK_INTERVAL_MS = 5000
"""How often the server checks during a statement that the client is connected. By default it notices only when it sends rows."""
_SSL_REQUEST = struct.pack("!ii", 8, 80877103)
"""https://www.postgresql.org/docs/current/protocol-message-formats.html"""
_FIRST_USER_OID = 16384
# Types that the driver does not know: their name, and the base type of the elements of their arrays.
_USER_TYPES = """
WITH RECURSIVE element (array_oid, oid) AS (
    SELECT oid, typelem FROM pg_catalog.pg_type WHERE oid = ANY (%s) AND typcategory = 'A' AND typelem <> 0
    UNION ALL
    SELECT element.array_oid, type.typbasetype
    FROM element JOIN pg_catalog.pg_type type ON type.oid = element.oid AND type.typtype = 'd'
)
SELECT wanted.oid, format_type(wanted.oid, NULL), type.oid, type.typname, type.typdelim
FROM pg_catalog.pg_type wanted
LEFT JOIN (element JOIN pg_catalog.pg_type type ON type.oid = element.oid AND type.typtype <> 'd')
    ON element.array_oid = wanted.oid
WHERE wanted.oid = ANY (%s)
"""

_NETWORK = ("08", "25P03", "25P04", "57P01", "57P02", "57P03", "57P05")
"""SQLSTATE: connection exceptions, idle in transaction, shutdown, crash, starting up, idle session."""
_CONFLICTS = ("40000", "40001", "40003", "40P01", "53", "55006", "55P03", "72000", "HV00N")
"""Serialisation, deadlock, no memory, disk or connection left, locks, snapshot too old, a foreign server that is down:
the same statement may succeed later."""
_REFUSED = (
    "authentication failed",
    "no password supplied",
    "password is empty",
    "pg_hba.conf",
    "not permitted to log in",
    "permission denied for database",
    "requires a valid client certificate",
    "authentication method requirement",
)
_TLS = ("certificate", "does not support SSL", "SSL error", "sslmode", "SSL is not")
_DOLLARS = re.compile(r"-?\$[0-9]{1,3}(?:,[0-9]{3})*(?:\.[0-9]{2})?").fullmatch


class _MoneyLoader(Loader):
    """`-$1,234.50` → `-1234.50`.

    Another format, after a step has set lc_monetary, is left as it is and rejected later.
    """

    def load(self, data: Any) -> str:
        text = bytes(data).decode()
        return text.replace("$", "").replace(",", "") if _DOLLARS(text) else text


class _StoredText(Loader):
    """Decodes invalid bytes to lone surrogates, which reject their row."""

    codec: ClassVar[str]

    def load(self, data: Any) -> str:
        return str(data, self.codec, "surrogateescape")


class _Connection(psycopg.Connection[Any]):
    """A connection that records each response of the server, and returns from any wait once it is cut."""

    note_response: Callable[[], None] | None = None
    on_wait: Callable[[], None] | None = None
    """Called at each response, and every 0.1 s of a wait; it may cut the connection."""
    is_cut = False

    def wait(self, gen: PQGen[T], interval: float = CHECK_EVERY_S, timeout: float | None = None) -> T:
        """Waits as psycopg does, which resumes the generator at each interval.

        But Ctrl-C ends it at once; psycopg's own waits up to 10 s for the server to cancel what runs.
        """
        return waiting.wait(self._watched(gen), self.pgconn.socket, interval=interval, timeout=timeout)

    def _watched(self, gen: PQGen[T]) -> PQGen[T]:
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if ready and self.note_response is not None:
                    self.note_response()
                if self.on_wait is not None:
                    self.on_wait()
                if self.is_cut:
                    self.pgconn.finish()
                    raise psycopg.OperationalError("the connection was cut")
                wanted = gen.send(ready)
        except StopIteration as end:
            result: T = end.value
            return result


class PostgresSource(PooledSource):
    """One database of a PostgreSQL server."""

    dialect: ClassVar[Dialect] = DIALECT
    driver_errors = (psycopg.Error, UnicodeError)
    """UnicodeError: the encoding of the database lacks a character of the statement."""
    checks_limits = True
    logins: ClassVar[int] = 8
    """Psycopg tries each address of the host for the whole time-out."""

    def connect(self) -> _Connection:
        """Connects with time-outs, keepalives, and session settings that fix how values are written as text."""
        try:
            raw = _Connection.connect(**self.parameters())
        except psycopg.ProgrammingError as error:
            raise self._wrong_option(error) from None
        try:
            self._set_up(raw)
        except BaseException:
            raw.close()
            raise
        return raw

    def parameters(self) -> dict[str, Any]:
        """Returns libpq's parameters. What they leave out, a service file or the environment may set."""
        given = self.connection
        hosts, ports = hosts_and_ports(given.host, given.port or (None if given.service else self.port))
        files = {
            "passfile": given.passfile,
            "sslrootcert": given.sslrootcert,
            "sslcert": given.sslcert,
            "sslkey": given.sslkey,
        }
        texts = {
            "service": "" if given.service_file else given.service,
            "host": hosts,
            "port": ports,
            "dbname": given.database,
            "user": given.username,
            "password": given.password.reveal() if given.password else "",
            "sslmode": given.sslmode,
            "sslpassword": given.sslpassword.reveal() if given.sslpassword else "",
            "target_session_attrs": given.target_session_attrs,
            **{name: str(file) for name, file in files.items() if file},
        }
        settings = dict(_SESSION)
        if given.statement_timeout_s:
            settings["statement_timeout"] = str(round(given.statement_timeout_s * 1000))
        ours = " ".join(f"-c {name}={value}" for name, value in settings.items())
        return {
            **(self._of_service_file(given.service_file) if given.service_file else {}),
            **{name: value for name, value in given.options.items() if name != "options"},
            **{name: value for name, value in texts.items() if value},
            "connect_timeout": max(round(given.connect_timeout_s), 2),
            "application_name": "pstt-kafka",
            "client_encoding": "UTF8",
            "options": f"{given.options.get('options', '')} {ours}".strip(),  # the last one counts
            "keepalives_idle": 30,
            "keepalives_interval": 10,
            "keepalives_count": 3,
            "tcp_user_timeout": round(min(self.silence_s, DEAD_AFTER_S) * 1000),
        }

    @property
    def login_s(self) -> float:
        """Returns how long connecting may take in total: each of several hosts has its own time-out."""
        hosts = self.connection.host.count(",") + 1
        return super().login_s * max(1, hosts / 2)

    def _of_service_file(self, file: Path) -> dict[str, str]:
        """Returns the parameters of the connection's service. Libpq takes the path of the file from the environment only."""
        found: dict[str, dict[str, str]] = {}
        section: dict[str, str] = {}
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise self._wrong_service(f"{file.name} cannot be read: {error}") from None
        for line in map(str.strip, lines):
            name, equals, value = line.partition("=")
            if line.startswith("[") and line.endswith("]"):
                section = found.setdefault(line[1:-1].strip(), {})
            elif equals and not line.startswith("#"):
                section.setdefault(name.strip(), value.strip())
        if self.connection.service not in found:
            raise self._wrong_service(f"{file.name} has no section [{self.connection.service}]")
        return found[self.connection.service]

    def _wrong_service(self, why: str) -> ConfigError:
        return ConfigError(
            f'connection "{self.name}": its service is not found', why=why, remedy="correct service or service_file"
        )

    def _wrong_option(self, error: psycopg.ProgrammingError) -> ConfigError:
        return ConfigError(
            f'connection "{self.name}": libpq does not take its settings',
            why=_words(error),
            remedy="correct options and the keys of the connection in connections.json",
        )

    def _set_up(self, raw: _Connection) -> None:
        if raw.info.server_version >= 140000:
            raw.autocommit = True
            with suppress(psycopg.Error):  # not on Windows: there a long query outlives a killed run
                raw.execute(f"SET client_connection_check_interval = {_CLIENT_CHECK_INTERVAL_MS}")
            raw.autocommit = False
        for name in _AS_TEXT:
            raw.adapters.register_loader(name, TextLoader)
        raw.adapters.register_loader("money", _MoneyLoader)
        raw.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        raw.read_only = not self.connection.allow_writes
        raw.note_response = self.note_response

    def begin(self, raw: psycopg.Connection[Any]) -> None:
        """Sets REPEATABLE READ, which makes the transaction one snapshot; psycopg begins it with the first statement."""

    def begin_at(self, raw: psycopg.Connection[Any], snapshot: str) -> None:
        """Imports a snapshot, which has to be the first statement of the transaction."""
        if not re.fullmatch(r"[0-9A-F-]+", snapshot):
            raise self.failed("the snapshot of the run has an unknown form")
        raw.execute(f"SET TRANSACTION SNAPSHOT '{snapshot}'".encode())

    def export_snapshot(self, raw: psycopg.Connection[Any]) -> tuple[str, str]:
        """Exports the snapshot of this transaction; other connections may import it until it ends."""
        row = raw.execute("SELECT pg_export_snapshot()").fetchone()
        return str(row[0]) if row else "", ""

    def rows(self, raw: psycopg.Connection[Any], step: Step) -> list[tuple[Any, ...]]:
        """Runs a prepared statement and returns its rows."""
        with raw.cursor() as cursor:
            return cursor.execute(_text(step), step.binds or None, prepare=True).fetchall()

    def run(self, raw: psycopg.Connection[Any], step: Step) -> None:
        """Runs a prepared statement, since a string of several statements could end the read-only transaction."""
        with raw.cursor() as cursor:
            cursor.execute(_text(step), step.binds or None, prepare=True)

    def count(self, raw: psycopg.Connection[Any], step: Step) -> int:
        """Counts in the same snapshot."""
        with raw.cursor() as cursor:
            cursor.execute(self.counting(step.sql).encode(), step.binds or None, prepare=True)
            row = cursor.fetchone()
            return int(row[0]) if row else 0

    def stream(
        self, raw: psycopg.Connection[Any], step: Step, fetch_rows: int
    ) -> tuple[tuple[Column, ...], Iterator[Sequence[Any]]]:
        """Sends the statement; the server continues while the received rows are processed."""
        columns = self._columns(raw, step)
        codec = _as_stored(raw)
        self._refuse_cancelled()
        size = fetch_rows if pq.version() >= 170000 else 1
        rows = raw.cursor().stream(step.sql.encode(codec), step.binds or None, size=size)
        bits = [i for i, column in enumerate(columns) if column.database_type.startswith("bit(1)")]
        first = next(rows, None)  # waits until the statement has begun, so that its errors are raised here
        if first is None:
            return columns, iter(())
        blocks = _blocks(chain([first], rows), rows, fetch_rows)
        return columns, (_with_booleans(block, bits) for block in blocks) if bits else blocks

    def _columns(self, raw: psycopg.Connection[Any], step: Step) -> tuple[Column, ...]:
        """Returns the columns, which are queried beforehand because a stream without rows describes none."""
        with raw.cursor() as cursor:
            cursor.pgresult = _described(raw, step)
            described = cursor.description or []
        unknown = [c.type_code for c in described if raw.adapters.types.get(c.type_code) is None]
        names = _learn(raw, unknown) if unknown else {}
        return tuple(self._column(raw, column, names) for column in described)

    def _column(self, raw: psycopg.Connection[Any], column: psycopg.Column, names: Mapping[int, str]) -> Column:
        code = column.type_code
        name = names.get(code, column.type_display)
        info = raw.adapters.types.get(code)
        if info is None:  # an enum, a composite, a type of an extension: the server's text
            return Column(column.name, "text", name)
        kind = KINDS.get(info.name, "text")
        if info.array_oid == code and info.oid != code:
            if name == "bit(1)[]":
                return Column(column.name, "array", name, element="boolean")
            return Column(column.name, "array", names.get(code, f"{info.name}[]"), element=kind)
        return Column(column.name, "boolean" if name == "bit(1)" else kind, name, is_uniform=info.name in _UNIFORM)

    def stop(self, raw: psycopg.Connection[Any]) -> None:
        """Sends a cancel request to the server."""
        raw.cancel_safe(timeout=5)

    def cut(self, raw: _Connection) -> None:
        """Ends the wait for the server within a tenth of a second."""
        raw.is_cut = True

    def error(self, error: BaseException, *, reading: bool) -> PsttError:
        """Translates by SQLSTATE; without one, the connection was never made or broke."""
        if isinstance(error, UnicodeError):
            return self.failed(f"the encoding of the database has no such character: {error}")
        state = getattr(error, "sqlstate", None) or ""
        text = _words(error)
        if state.startswith("28"):
            return self.refused(text)
        if state == "3D000":
            return self._no_such_database(text)
        if state.startswith(_NETWORK):
            return self.lost(text, reading=reading)
        if state.startswith(_CONFLICTS):
            return self.conflict(text, reading=reading)
        if state == "42501":
            return self.forbidden(text)
        if state == "57014":
            return self.timed_out() if self.connection.statement_timeout_s else self.failed(text)
        if state == "25006":
            return self.failed(f"{text}: the session is read-only")
        if state or not isinstance(error, psycopg.OperationalError):
            return self.failed(text)
        return self.lost(text, reading=reading) if self._active else self._not_connected(error, text)

    def _not_connected(self, error: psycopg.OperationalError, text: str) -> PsttError:
        """Translates by libpq's text: the server's FATAL response to a login has no SQLSTATE here."""
        given = self.connection
        said = text.rpartition("failed: ")[2]
        if any(words in said for words in _REFUSED) or ('role "' in said and "does not exist" in said):
            return self.refused(text)
        if f'"{given.database}"' in said and ("does not exist" in said or given.database != given.username):
            return self._no_such_database(text)
        if any(words in said for words in _TLS):
            why = self._why_refused() if "certificate verify failed" in said else ""
            return ConfigError(
                f"database {self.place}: TLS failed",
                why=f"{text} ({why})" if why else text,
                remedy="check sslmode and sslrootcert of the connection",
            )
        # Servers report in the language they are set up with. A response that follows the password and names the user is a refused login.
        if getattr(error.pgconn, "used_password", False) and given.username and given.username in said:
            return self.refused(text)
        return self.unavailable(text)

    def _why_refused(self) -> str:
        """Returns why a certificate was refused, from a handshake of its own: libpq does not report it."""
        given = self.connection
        host, _, _ = hosts_and_ports(given.host, None)[0].partition(",")
        try:
            with socket.create_connection((host, self.port), given.connect_timeout_s) as plain:
                plain.sendall(_SSL_REQUEST)
                plain.recv(1)
                context = ssl.create_default_context(cafile=given.sslrootcert)
                context.check_hostname = False  # libpq's message for a wrong host name is clear enough
                context.wrap_socket(plain, server_hostname=host).close()
        except ssl.SSLCertVerificationError as refused:
            return refused.verify_message
        except (OSError, ValueError):
            return ""
        return ""

    def _no_such_database(self, text: str) -> ConfigError:
        return ConfigError(f'connection "{self.name}": {text}', remedy="correct database in connections.json")

    def server_checks(self, raw: psycopg.Connection[Any]) -> Iterator[CheckResult]:
        """Yields version and account, and a warning if the account may write."""
        subject = f"database {self.name}"
        row = raw.execute(
            "SELECT current_setting('server_version'), current_user, "
            "(SELECT rolsuper FROM pg_roles WHERE rolname = current_user), "
            "EXISTS (SELECT 1 FROM pg_class t JOIN pg_namespace n ON n.oid = t.relnamespace WHERE t.relkind IN ('r', 'p') "
            "AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema' "
            "AND has_table_privilege(t.oid, 'INSERT, UPDATE, DELETE, TRUNCATE'))"
        ).fetchone()
        version, user, is_super, may_write = row or ("?", "?", False, False)
        tls = "TLS" if raw.pgconn.ssl_in_use else "no TLS"
        yield CheckResult("pass", subject, f"PostgreSQL {version}, account {user}, {tls}")
        if is_super or may_write:
            how = "is a superuser" if is_super else "may write to tables"
            yield CheckResult("warn", subject, f"account {user} {how}", "use an account that may only SELECT")


def _text(step: Step) -> bytes:
    """Returns the statement as bytes, since psycopg's typing reserves str for literals of the program."""
    return step.sql.encode()


def _as_stored(raw: psycopg.Connection[Any]) -> str:
    """Makes the server send texts as they are stored; returns the codec of the session.

    A server whose encoding is not UTF-8 converts what it sends, and ends the query at the first byte that it cannot
    convert: in SQL_ASCII, which checks nothing, any byte that is not UTF-8; in WIN1252 the five without a character.
    """
    stored = raw.info.parameter_status("server_encoding") or "UTF8"
    if stored == "UTF8":
        return "utf-8"
    _run(raw, f"SET client_encoding TO '{stored}'")
    try:
        codec = "utf-8" if stored == "SQL_ASCII" else raw.info.encoding
    except psycopg.NotSupportedError:  # Python has no such codec: the server converts
        _run(raw, "SET client_encoding TO 'UTF8'")
        return "utf-8"
    loader = type("_Stored", (_StoredText,), {"codec": codec})
    for name in _TEXTS:
        raw.adapters.register_loader(name, loader)
    return codec


def _described(raw: psycopg.Connection[Any], step: Step) -> PGresult:
    """Returns the description of the result without running the statement, which is only parsed, with its values in the text.

    It is sent without blocking: libpq's blocking calls stop every thread of the process while the server is silent.
    """
    text = psycopg.ClientCursor(raw).mogrify(_text(step), step.binds or None)
    raw.pgconn.send_prepare(b"", text.encode())
    _require_good(raw.wait(execute(raw.pgconn)))
    raw.pgconn.send_describe_prepared(b"")
    return _require_good(raw.wait(execute(raw.pgconn)))


def _run(raw: psycopg.Connection[Any], sql: str) -> None:
    """Runs a statement on libpq, because psycopg would begin a transaction.

    The session's parameters show whether it succeeded.
    """
    raw.pgconn.send_query(sql.encode())
    raw.wait(execute(raw.pgconn))


def _require_good(results: Sequence[PGresult]) -> PGresult:
    (result,) = results
    if result.status != pq.ExecStatus.COMMAND_OK:
        raise psycopg.errors.error_from_result(result)
    return result


def _learn(raw: psycopg.Connection[Any], oids: list[int]) -> dict[int, str]:
    """Returns the names of these types, and registers their arrays to be read with the loader of their elements."""
    names = {}
    for oid, name, element_oid, element, delimiter in raw.execute(_USER_TYPES, [oids, oids]).fetchall():
        names[oid] = name
        if element_oid is not None:
            # A user's type may have the name of one that has a conversion of its own here.
            known = element if element_oid < _FIRST_USER_OID else str(element_oid)
            TypeInfo(known, element_oid, oid, delimiter=delimiter).register(raw)
    return names


def _with_booleans(block: Sequence[Any], indexes: Sequence[int]) -> list[tuple[Any, ...]]:
    """Converts `bit(1)`, which arrives as the text 0 or 1, and arrays of it, which arrive as lists of such texts."""
    columns = list(zip(*block, strict=True))
    for i in indexes:
        columns[i] = tuple(map(_boolean, columns[i]))
    return list(zip(*columns, strict=True))


def _boolean(value: Any) -> Any:
    if isinstance(value, list):
        return [_boolean(member) for member in value]
    return None if value is None else value == "1"


def _blocks(rows: Iterator[Any], stream: Any, fetch_rows: int) -> Iterator[Sequence[Any]]:
    try:
        while block := list(islice(rows, fetch_rows)):
            yield block
    finally:
        stream.close()


def _words(error: BaseException) -> str:
    """Returns the server's message with its hint and position, or libpq's, in one line."""
    diag = getattr(error, "diag", None)
    if diag is not None and diag.message_primary:
        parts = [diag.message_primary, diag.message_detail, diag.message_hint]
        place = f"at character {diag.statement_position}" if diag.statement_position else None
        return "; ".join(part for part in [*parts, place] if part)
    return " ".join(str(error).split())


SOURCE = PostgresSource
