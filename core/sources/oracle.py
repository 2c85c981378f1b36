"""Oracle through python-oracledb: thin by default, thick (Instant Client) for servers older than 12.1.

The conversion of values is configured once for the whole process, before the first statement: a cached statement
keeps the conversion with which it was first fetched.
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, ClassVar

import oracledb

from core.errors import ConfigError, PsttError, SourceUnavailable
from core.model.check_result import CheckResult
from core.model.dialect import Dialect
from core.model.query import LiteralText, Step
from core.model.source import Column, ColumnType
from core.sources.cursors import fetched_in_pieces, shortest_single
from core.sources.oracle_dialect import DIALECT
from core.sources.pooled import PooledSource

__all__ = ["SOURCE", "OracleSource"]

oracledb.defaults.fetch_decimals = True  # a bare NUMBER as a double would lose digits
oracledb.defaults.fetch_lobs = False  # CLOB and BLOB as str and bytes, without a round trip each

KINDS: dict[Any, ColumnType] = {
    oracledb.DB_TYPE_BINARY_FLOAT: "float",
    oracledb.DB_TYPE_BINARY_DOUBLE: "float",
    oracledb.DB_TYPE_BINARY_INTEGER: "integer",
    oracledb.DB_TYPE_BOOLEAN: "boolean",
    oracledb.DB_TYPE_DATE: "oracle_date",
    oracledb.DB_TYPE_TIMESTAMP: "datetime",
    oracledb.DB_TYPE_TIMESTAMP_LTZ: "datetime_tz",
    oracledb.DB_TYPE_INTERVAL_DS: "interval",
    oracledb.DB_TYPE_INTERVAL_YM: "interval",
    oracledb.DB_TYPE_VARCHAR: "text",
    oracledb.DB_TYPE_NVARCHAR: "text",
    oracledb.DB_TYPE_CHAR: "char",
    oracledb.DB_TYPE_NCHAR: "char",
    oracledb.DB_TYPE_CLOB: "text",
    oracledb.DB_TYPE_NCLOB: "text",
    oracledb.DB_TYPE_LONG: "text",
    oracledb.DB_TYPE_LONG_NVARCHAR: "text",
    oracledb.DB_TYPE_ROWID: "text",
    oracledb.DB_TYPE_UROWID: "text",
    oracledb.DB_TYPE_XMLTYPE: "text",
    oracledb.DB_TYPE_RAW: "bytes",
    oracledb.DB_TYPE_LONG_RAW: "bytes",
    oracledb.DB_TYPE_BLOB: "bytes",
    oracledb.DB_TYPE_JSON: "json",
}

_LOCAL = "TIMESTAMP WITH LOCAL TIME ZONE"
_LABELS: dict[Any, str] = {
    oracledb.DB_TYPE_TIMESTAMP_LTZ: _LOCAL,
    oracledb.DB_TYPE_INTERVAL_DS: "INTERVAL DAY TO SECOND",
    oracledb.DB_TYPE_INTERVAL_YM: "INTERVAL YEAR TO MONTH",
    oracledb.DB_TYPE_VARCHAR: "VARCHAR2",
    oracledb.DB_TYPE_NVARCHAR: "NVARCHAR2",
    oracledb.DB_TYPE_LONG_NVARCHAR: "LONG",
    oracledb.DB_TYPE_BINARY_FLOAT: "BINARY_FLOAT",
    oracledb.DB_TYPE_BINARY_DOUBLE: "BINARY_DOUBLE",
}
"""Oracle's own names where the driver has another."""
_TEXTS: dict[Any, tuple[Any, str]] = {
    oracledb.DB_TYPE_VARCHAR: (oracledb.DB_TYPE_VARCHAR, "surrogateescape"),
    oracledb.DB_TYPE_CHAR: (oracledb.DB_TYPE_CHAR, "surrogateescape"),
    oracledb.DB_TYPE_LONG: (oracledb.DB_TYPE_LONG, "surrogateescape"),
    oracledb.DB_TYPE_CLOB: (oracledb.DB_TYPE_LONG, "surrogateescape"),
    oracledb.DB_TYPE_NVARCHAR: (oracledb.DB_TYPE_NVARCHAR, "surrogatepass"),
    oracledb.DB_TYPE_NCHAR: (oracledb.DB_TYPE_NCHAR, "surrogatepass"),
    oracledb.DB_TYPE_LONG_NVARCHAR: (oracledb.DB_TYPE_LONG_NVARCHAR, "surrogatepass"),
    oracledb.DB_TYPE_NCLOB: (oracledb.DB_TYPE_LONG_NVARCHAR, "surrogatepass"),
}
"""Type → the type it is fetched as, and how its bytes are decoded: UTF-8 for the first four, UTF-16 for the others."""
_MOMENTS: dict[str, str] = {
    "DATE": "SYYYY-MM-DD HH24:MI:SS",
    "TIMESTAMP": "SYYYY-MM-DD HH24:MI:SS.FF6",
    _LOCAL: "SYYYY-MM-DD HH24:MI:SS.FF6",
}
"""The formats in which the server writes dates and times that Python cannot represent."""
_AS_UTC = "TO_CHAR(SYS_EXTRACT_UTC({0}), 'YYYY-MM-DD\"T\"HH24:MI:SS.FF6')||'+00:00' AS {0}"

MOST_CHAR_BYTES = 2000
"""The longest CHAR; a longer text cannot be equal to one."""

# ORA codes, and DPY codes of the driver, grouped by what the program does about them.
REFUSED = {1004, 1005, 1017, 1040, 1045, 9901, 28000, 28001, 28002, 28009, 28040}
"""Password, locked or expired account, no CREATE SESSION."""
UNREACHABLE = {
    *(12150, 12152, 12153, 12154, 12157, 12160, 12161, 12170, 12203, 12224, 12500, 12502, 12516, 12518),
    *(12519, 12520, 12521, 12523, 12528, 12535, 12537, 12541, 12543, 12545, 12547, 12560, 12569, 12570, 12571, 12606),
    *(12609, 12637, 12757, 18, 20, 1033, 1034, 1035, 1089, 1090, 1109, 2391, 25408, 27101),
}
"""The listener or the instance refuses connections at the moment."""
NO_SERVICE = {12505, 12514}
LOST = {28, 31, 41, 1012, 1041, 1092, 2396, 2399, 3113, 3114, 3135, 25401, 25402, 25403, 25405, 25425}
"""The session was killed, or the connection broke."""
CONFLICT = {54, 60, 1555, 8176, 8177, 22924, 30006, 4020, 4021}
"""Locks, deadlock, snapshot too old: the same statement may succeed later."""
FORBIDDEN = {1031, 1720, 1926, 2030, 28100, 28113, 28115, 47306, 47401}
"""The account lacks a right."""
READ_ONLY = {1456, 16000}
CANCELLED = {1013}
DRIVER_UNREACHABLE = {"DPY-4005", "DPY-5005", "DPY-6000", "DPY-6001", "DPY-6003", "DPY-6004", "DPY-6005"}
DRIVER_LOST = {"DPY-1001", "DPY-4011", "DPY-4033"}
DRIVER_REFUSED = {"DPY-4001"}
DRIVER_TIMED_OUT = {"DPY-4024"}
NEEDS_THICK = {"DPY-3001", "DPY-3010", "DPY-3015"}
"""Native network encryption, a server older than 12.1, a password verifier of 10g: thin mode supports none of them."""

_mode_lock = threading.Lock()
_client: list[dict[str, str]] = []
"""The folders with which this process has loaded the Oracle client."""


class OracleSource(PooledSource):
    """One service of an Oracle database."""

    dialect: ClassVar[Dialect] = DIALECT
    driver_errors = (oracledb.Error, OSError, ValueError, OverflowError)
    """The driver does not translate an unknown host, or a date before the year 1, which Python cannot represent."""
    reads_ahead = True
    _zone_changed = False

    def connect(self) -> oracledb.Connection:
        """Connects; the session's time zone is UTC, so that LOCAL TIME ZONE columns come as UTC."""
        given = self.connection
        if given.sslmode not in ("", "disable") or given.sslrootcert:
            raise ConfigError(
                f'connection "{self.name}": sslmode and sslrootcert are not for Oracle',
                remedy="leave them out; encryption on the wire is set up in the server's sqlnet.ora (thick mode)",
            )
        with _mode_lock:
            if given.thick:
                self._use_thick_mode()
            elif oracledb.is_thin_mode():
                # Set explicitly: otherwise the first login of the process decides, and all others wait for it.
                oracledb.enable_thin_mode()  # type: ignore[no-untyped-call]
        raw = oracledb.connect(**self.parameters())
        raw.call_timeout = round(self.silence_s * 1000)
        return raw

    def parameters(self) -> dict[str, Any]:
        """Returns the arguments of the driver's `connect`.

        Raises:
            ConfigError: The driver has no such setting, or the descriptor or alias cannot be read.
        """
        given = self.connection
        place: dict[str, Any] = {}
        if not given.dsn:
            place = {"host": given.host, "port": self.port, **({"sid": given.sid} if given.sid else {})}
            place |= {"service_name": given.service_name} if given.service_name else {}
        extras = {
            "config_dir": str(given.config_dir) if given.config_dir else None,
            "wallet_location": str(given.wallet_location) if given.wallet_location else None,
            "wallet_password": given.wallet_password.reveal() if given.wallet_password else None,
            "server_type": given.server_type or None,
            "cclass": "PSTT" if given.server_type == "pooled" else None,
            # Another client's session would keep its settings.
            "purity": oracledb.PURITY_NEW if given.server_type == "pooled" else None,
        }
        ours = {"tcp_connect_timeout": given.connect_timeout_s, "retry_count": 0, "expire_time": 2}
        try:
            parameters = oracledb.ConnectParams(
                **{**given.options, **place, **{n: v for n, v in extras.items() if v is not None}, **ours}
            )
        except TypeError as error:
            raise self._wrong_option(str(error)) from None
        login: dict[str, Any] = {"user": given.username or None, "proxy_user": given.proxy_user or None}
        login["password"] = given.password.reveal() if given.password else None
        if not given.username:
            login["externalauth"] = True  # the wallet or the system's account; thick mode only
        dsn = {"dsn": given.dsn} if given.dsn else {}
        return {**{name: value for name, value in login.items() if value is not None}, **dsn, "params": parameters}

    @property
    def login_s(self) -> float:
        """Returns how long connecting may take in total: a descriptor may have several addresses."""
        return super().login_s * (4 if self.connection.dsn else 1)

    def _wrong_option(self, why: str) -> ConfigError:
        return ConfigError(
            f'connection "{self.name}": the driver does not take its options',
            why=why,
            remedy="correct options in connections.json; python-oracledb's ConnectParams has their names",
        )

    def begin(self, raw: oracledb.Connection) -> None:
        """Begins a read-only transaction, which in Oracle is also one snapshot for every statement in it."""
        self._zone_changed = False
        with raw.cursor() as cursor:
            cursor.execute("ALTER SESSION SET TIME_ZONE = '+00:00'")
            if not self.connection.allow_writes:
                cursor.execute("SET TRANSACTION READ ONLY")

    def run(self, raw: oracledb.Connection, step: Step) -> None:
        """Runs a step without committing: ALTER SESSION ends no transaction."""
        self._zone_changed |= "TIME_ZONE" in step.sql.upper()
        with raw.cursor() as cursor:
            _execute(cursor, step.sql, step)

    def rows(self, raw: oracledb.Connection, step: Step) -> list[tuple[Any, ...]]:
        """Returns all rows of a statement."""
        with raw.cursor() as cursor:
            _execute(cursor, step.sql, step)
            return list(cursor.fetchall())

    def count(self, raw: oracledb.Connection, step: Step) -> int:
        """Counts in the same read-only transaction, hence in the same snapshot."""
        with raw.cursor() as cursor:
            _execute(cursor, self.counting(step.sql), step)
            (count,) = cursor.fetchone()
            return int(count)

    def stream(
        self, raw: oracledb.Connection, step: Step, fetch_rows: int
    ) -> tuple[tuple[Column, ...], Iterator[Sequence[Any]]]:
        """Runs the statement; each block takes one round trip."""
        cursor = raw.cursor()
        cursor.arraysize = fetch_rows
        cursor.prefetchrows = 0  # rows that arrive with the statement would hide how slowly the first rows arrive
        cursor.outputtypehandler = _lenient_decoding(fetch_rows)
        try:
            _execute(cursor, step.sql, step)
            columns = tuple(self._refuse_shifted(_column(described)) for described in cursor.description or ())
        except BaseException:
            cursor.close()
            raise
        blocks = self._blocks(cursor, fetch_rows, columns, _CONVERSIONS)
        if not any(c.database_type in _MOMENTS for c in columns):
            return columns, blocks
        return columns, self.readable(
            blocks, lambda: self._with_moments_as_text(raw, step, columns, fetch_rows), fetch_rows
        )

    def _with_moments_as_text(
        self, raw: oracledb.Connection, step: Step, columns: Sequence[Column], fetch_rows: int
    ) -> Generator[Sequence[Any], None, None]:
        """Reads the result again with dates and times as text.

        For one that Python cannot represent, the driver drops the whole block.
        """
        cursor = raw.cursor()
        cursor.arraysize = fetch_rows
        cursor.prefetchrows = 0
        cursor.outputtypehandler = _lenient_decoding(fetch_rows)
        _execute(cursor, _with_text_columns(step.sql, columns), step)
        yield from self._blocks(cursor, fetch_rows, columns, _CONVERSIONS | _FROM_TEXT)

    def _blocks(
        self,
        cursor: oracledb.Cursor,
        fetch_rows: int,
        columns: Sequence[Column],
        conversions: Mapping[str, Callable[[Any], Any]],
    ) -> Iterator[Sequence[Any]]:
        blocks = fetched_in_pieces(cursor, fetch_rows, self.note_response, self.silence_s)
        return _converted(blocks, _special(columns, {**conversions, "XMLTYPE": self._xml}))

    def _xml(self, value: Any) -> Any:
        """Returns XML as text.

        Short XML arrives as text, longer XML as a LOB in spite of fetch_lobs; each LOB costs a round trip.
        """
        self.note_response()
        return value.read() if isinstance(value, oracledb.LOB) else value

    def _refuse_shifted(self, column: Column) -> Column:
        if column.database_type != _LOCAL or not self._zone_changed:
            return column
        why = (
            "an earlier step sets TIME_ZONE, and the driver would not say by how much its values are shifted. "
            f"Leave that step out, or write in the query: {_AS_UTC.format(column.name)}"
        )
        return replace(column, refusal=why)

    def error(self, error: BaseException, *, reading: bool) -> PsttError:
        """Translates by ORA code; errors of the driver itself by DPY code."""
        if isinstance(error, OSError):
            return self.lost(str(error), reading=reading)
        if not isinstance(error, oracledb.Error):
            return self.unreadable(error)
        detail = error.args[0] if error.args else None
        code, full = getattr(detail, "code", 0), getattr(detail, "full_code", "")
        text = _words(str(detail))
        if full in NEEDS_THICK:
            return ConfigError(
                f'connection "{self.name}" does not work in thin mode',
                why=text,
                remedy='install Oracle Instant Client and set "thick": true on the connection',
            )
        if code in REFUSED or full in DRIVER_REFUSED:
            return self.refused(text)
        if full in DRIVER_TIMED_OUT or "socket timed out" in text:
            return self.waited_too_long(reading=reading)
        if code in CANCELLED:
            return self.timed_out()
        if not reading and (code in NO_SERVICE or "DPY-6001" in text or "DPY-6003" in text):
            return SourceUnavailable(
                f"database {self.place} does not know its service",
                why=text,
                remedy="check service_name or sid in connections.json; a database that starts registers itself within a minute",
            )
        if full in DRIVER_LOST or code in LOST or getattr(detail, "isrecoverable", False):
            return self.lost(text, reading=reading)
        if full in DRIVER_UNREACHABLE or code in UNREACHABLE | NO_SERVICE:
            return self.lost(text, reading=reading)
        if code in CONFLICT:
            return self.conflict(text, reading=reading)
        if code in FORBIDDEN:
            return self.forbidden(text)
        if code in READ_ONLY:
            return self.failed(f"{text} (the session is read-only)")
        offset = getattr(detail, "offset", 0)
        return self.failed(f"{text} (at character {offset + 1})" if code and offset else text)

    def server_checks(self, raw: oracledb.Connection) -> Iterator[CheckResult]:
        """Yields version and account, and a warning if the account may write."""
        subject = f"database {self.name}"
        mode = "thin" if raw.thin else "thick"
        yield CheckResult("pass", subject, f"Oracle {raw.version} ({mode} mode), account {raw.username.upper()}")
        with raw.cursor() as cursor:
            cursor.execute(
                "SELECT privilege FROM session_privs WHERE privilege LIKE '%INSERT ANY%' OR privilege LIKE '%UPDATE ANY%' "
                "OR privilege LIKE '%DELETE ANY%' OR privilege LIKE '%EXECUTE ANY%'"
            )
            rights = [name for (name,) in cursor.fetchall()]
        if rights:
            yield CheckResult(
                "warn", subject, f"the account may {', '.join(rights)}", "use an account that may only SELECT"
            )

    def _use_thick_mode(self) -> None:
        given = self.connection
        named = {"lib_dir": given.client_dir, "config_dir": given.config_dir}
        folders = {name: str(folder) for name, folder in named.items() if folder}
        if not oracledb.is_thin_mode():
            if folders and folders not in _client:
                raise ConfigError(
                    f'connection "{self.name}" has another client_dir or config_dir',
                    why="a process loads the Oracle client once",
                    remedy="give every thick connection that the same process uses the same folders",
                )
            return
        try:
            oracledb.init_oracle_client(**folders)
            _client.append(folders)
        except oracledb.Error as error:
            text = _words(str(error))
            remedy = "install Oracle Instant Client and put it on the PATH or name its folder as client_dir, or set thick to false"
            if "DPY-2019" in text:  # a process has one mode, and thin came first
                remedy = "set thick on every Oracle connection that the same process uses, or on none"
            raise ConfigError(f'connection "{self.name}" asks for thick mode', why=text, remedy=remedy) from None


def _execute(cursor: oracledb.Cursor, sql: str, step: Step) -> None:
    if not step.binds:
        cursor.execute(sql)
        return
    binds: dict[str, Any] = dict(step.binds)  # type: ignore[arg-type]
    for name, value in binds.items():
        if isinstance(value, LiteralText) and 0 < len(value.encode()) <= MOST_CHAR_BYTES:
            binds[name] = cursor.var(oracledb.DB_TYPE_CHAR, len(value))
            binds[name].setvalue(0, str(value))
    moments = {name: oracledb.DB_TYPE_TIMESTAMP for name, value in binds.items() if isinstance(value, datetime)}
    if moments:  # a datetime bound as DATE, the driver's choice, loses its microseconds
        cursor.setinputsizes(**moments)
    cursor.execute(sql, binds)


def _column(described: Any) -> Column:
    name, code = described.name, described.type_code
    if code is oracledb.DB_TYPE_NUMBER:
        return Column(name, *_number(described.precision, described.scale))
    label = _LABELS.get(code) or code.name.removeprefix("DB_TYPE_").replace("_", " ")
    if code is oracledb.DB_TYPE_TIMESTAMP_TZ:
        return Column(name, "datetime_tz", "TIMESTAMP WITH TIME ZONE", refusal=_zone_refusal(name))
    return Column(name, KINDS.get(code, "unknown"), label)


def _number(precision: int | None, scale: int | None) -> tuple[ColumnType, str]:
    """Returns the type of a NUMBER. FLOAT has scale -127; a NUMBER without precision and scale may hold anything."""
    if not precision and scale in (None, 0, -127):
        return "decimal", "NUMBER"
    if scale == -127:
        return "decimal", f"FLOAT({precision})"
    if scale:
        return "decimal", f"NUMBER({precision},{scale})"
    return "integer", f"NUMBER({precision})"


def _lenient_decoding(fetch_rows: int) -> Callable[[oracledb.Cursor, Any], Any]:
    """Returns a handler that decodes invalid bytes to lone surrogates, which reject their row.

    Without it the driver ends the whole read.
    """

    def made(cursor: oracledb.Cursor, described: Any) -> Any:
        if described.type_code not in _TEXTS:
            return None
        type_, errors = _TEXTS[described.type_code]
        return cursor.var(type_, arraysize=fetch_rows, encoding_errors=errors)

    return made


def _with_text_columns(sql: str, columns: Sequence[Column]) -> str:
    """Returns the statement with its dates and times converted to text by the server.

    Columns are addressed by position, since an expression may have a name that cannot be written. The line break ends a
    comment at the end of the statement.
    """
    names = [f"c{i}" for i in range(1, len(columns) + 1)]
    wanted = [
        f"TO_CHAR({name}, '{_MOMENTS[column.database_type]}') AS {name}" if column.database_type in _MOMENTS else name
        for name, column in zip(names, columns, strict=True)
    ]
    return f"WITH given ({', '.join(names)}) AS (\n{sql}\n)\nSELECT {', '.join(wanted)} FROM given"


def _zone_refusal(name: str) -> str:
    return (
        "the driver drops its time zone. Write in the query: "
        f"TO_CHAR({name}, 'YYYY-MM-DD\"T\"HH24:MI:SS.FF6TZH:TZM') AS {name}"
    )


def _special(
    columns: Sequence[Column], conversions: Mapping[str, Callable[[Any], Any]]
) -> dict[int, Callable[[Any], Any]]:
    return {i: conversions[c.database_type] for i, c in enumerate(columns) if c.database_type in conversions}


def _converted(
    blocks: Iterator[Sequence[Any]], special: dict[int, Callable[[Any], Any]]
) -> Iterator[Sequence[Sequence[Any]]]:
    if not special:
        yield from blocks
        return
    for block in blocks:
        columns = list(zip(*block, strict=True))
        for i, convert in special.items():
            columns[i] = tuple(None if v is None else convert(v) for v in columns[i])
        yield list(zip(*columns, strict=True))


def _in_utc(value: datetime) -> datetime:
    """Returns a TIMESTAMP WITH LOCAL TIME ZONE as UTC. It arrives naive, in the session's zone, which is UTC."""
    return value.replace(tzinfo=UTC)


def _moment(text: str) -> datetime | str:
    """Returns the date and time, or its text if Python cannot represent it."""
    try:
        return datetime.fromisoformat(text.strip())
    except ValueError:
        return text.strip()


def _moment_in_utc(text: str) -> datetime | str:
    moment = _moment(text)
    return _in_utc(moment) if isinstance(moment, datetime) else moment


def _json(value: Any) -> Any:
    """Returns a document as a structure.

    A document that is a single text is quoted, since it would be read as JSON itself.
    """
    if isinstance(value, bytes):
        value = base64.b64encode(value).decode()
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else value


_CONVERSIONS: dict[str, Callable[[Any], Any]] = {
    _LOCAL: _in_utc,
    "JSON": _json,
    "BINARY_FLOAT": shortest_single,
}
_FROM_TEXT: dict[str, Callable[[Any], Any]] = {"DATE": _moment, "TIMESTAMP": _moment, _LOCAL: _moment_in_utc}


def _words(text: str) -> str:
    """Returns the first lines, without the driver's help link."""
    return " ".join(line for line in text.splitlines() if line and not line.startswith("Help: ")).strip()


SOURCE = OracleSource
