"""The contract of `core.model.source.Source`, tested on each database.

Each database is one class below: its connection, and the SQL in its dialect that the suite needs.
"""

from __future__ import annotations

import socket
import sqlite3
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import oracledb
import psutil
import pytest
from oracle_double import Hang, OracleDouble

from core.errors import NotAuthorised, PsttError, QueryFailed, RunCancelled, SourceUnavailable
from core.model.connection import DatabaseConnection, Secret
from core.model.query import Step
from core.model.source import Rows, Source
from core.sources import open_source
from tests.rigs.proxy import Proxy
from tests.rigs.server import free_ports
from tests.rigs.sqlserver import SLOW_COUNT, number_table
from tests.rigs.sweeps import sweep
from tests.rigs.waiting import until

if TYPE_CHECKING:
    from tests.rigs.mysql import MySqlRig
    from tests.rigs.oracle import OracleRig
    from tests.rigs.postgres import PostgresRig
    from tests.rigs.sqlserver import SqlServerRig

# python-oracledb 26.1 forgets to close its socket when the server resets the connection.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket.socket:ResourceWarning")

ORACLE_PASSWORD = "geheim;{pä}-4711"
WRONG = "wrong-pässwörd-8213"
PATIENCE_S = 30.0
"""Longer than anything here takes; only a hang reaches it."""


# ── the databases ─────────────────────────────────────────────────────────────────────────────


class SourceRig(ABC):
    """One database with the SQL that the suite needs. `table` holds (n, name); `execute` commits at once."""

    is_server = True
    """Whether it is reached by a network and has logins, hosts and sessions."""

    connection: DatabaseConnection
    table: str
    slow: str
    """A SELECT that returns no row for a minute."""
    slow_rows: str
    """A SELECT of many rows that takes a minute; its first rows arrive at once."""
    setting: str
    """A session setting …"""
    setting_shown: str
    """… and a SELECT of one value that is ON with it, and something else without."""
    bad_sql: str
    own_words: str
    """Part of the database's own error for `bad_sql`."""
    hidden_writes: tuple[str, ...]
    """Statements that return rows and would write one into `table`."""
    unshown: Mapping[str, str] = {}
    """Test of this suite → why this server cannot show it."""

    @abstractmethod
    def bound(self, value: str) -> Step:
        """Returns a SELECT of a bound text."""

    @abstractmethod
    def execute(self, sql: str) -> None:
        """Runs and commits a statement on a connection that is independent of the source."""

    @abstractmethod
    def rows_in_table(self) -> int:
        """Returns how many rows such a connection sees."""

    @abstractmethod
    def numbers(self, count: int) -> str:
        """A SELECT of (n, name) for n from 1 to `count`, in that order, made up by the database."""

    def sessions(self) -> int:
        """Returns how many sessions of the source the server has."""
        return 0

    def running(self) -> int:
        """Returns how many statements of the source the server runs."""
        return 0

    def wait_until_running(self) -> None:
        """Returns when a statement of ours has begun."""
        until(lambda: self.running() > 0, timeout_s=PATIENCE_S)

    def kill_sessions(self) -> None:
        """Ends the source's sessions on the server."""
        raise NotImplementedError

    def fill(self, count: int) -> None:
        self.execute(f"INSERT INTO {self.table} (n, name) {self.numbers(count)}")

    def source(self, **changes: Any) -> Source:
        return open_source(replace(self.connection, **changes))


class SqliteRig(SourceRig):
    is_server = False
    table = "parcel"
    _count = (
        "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c LIMIT {}) SELECT n, 'p' || n AS name FROM c"
    )
    slow = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c LIMIT 1000000000) SELECT count(*) FROM c"
    slow_rows = _count.format(1_000_000_000)
    setting = "PRAGMA case_sensitive_like = ON"
    setting_shown = "SELECT CASE WHEN 'a' LIKE 'A' THEN 'OFF' ELSE 'ON' END AS shown"
    bad_sql = "SELECT nowhere FROM parcel"
    own_words = "no such column: nowhere"
    hidden_writes = ("INSERT INTO parcel (n, name) VALUES (-1, 'x') RETURNING n",)

    def __init__(self, folder: Path) -> None:
        self._file = folder / "parcels.sqlite"
        self.execute("PRAGMA journal_mode = WAL")  # otherwise a reader blocks writers
        self.execute("CREATE TABLE parcel (n INTEGER, name TEXT)")
        self.connection = DatabaseConnection(name="lite", db_type="sqlite", database=str(self._file))

    def execute(self, sql: str) -> None:
        with closing(sqlite3.connect(self._file, isolation_level=None)) as other:
            other.execute(sql)

    def rows_in_table(self) -> int:
        with closing(sqlite3.connect(self._file)) as other:
            return int(other.execute("SELECT count(*) FROM parcel").fetchone()[0])

    def numbers(self, count: int) -> str:
        return self._count.format(count)

    def bound(self, value: str) -> Step:
        return Step("SELECT :P_X AS x", {"P_X": value})

    def wait_until_running(self) -> None:
        time.sleep(0.3)  # another thread's connection cannot be observed


class PostgresSourceRig(SourceRig):
    slow = "SELECT pg_sleep(60)"
    slow_rows = "SELECT n, CASE WHEN n > 20000 THEN pg_sleep(0.01)::text END AS name FROM generate_series(1, 30000) n"
    setting_shown = "SELECT CASE current_setting('pstt.shown', true) WHEN 'on' THEN 'ON' ELSE 'OFF' END AS shown"
    own_words = 'column "nowhere" does not exist'
    SESSIONS = "FROM pg_stat_activity WHERE application_name = 'pstt-kafka' AND datname = current_database()"

    def __init__(self, server: PostgresRig, name: str) -> None:
        self._server = server
        self.table = name
        self.setting = "SET pstt.shown = 'on'"
        self.bad_sql = f"SELECT nowhere FROM {name}"
        self.hidden_writes = (
            f"WITH written AS (INSERT INTO {name} (n, name) VALUES (-1, 'x') RETURNING n) SELECT n FROM written",
            f"SELECT {name}_writes()",
        )
        self.execute(f"CREATE TABLE {name} (n bigint, name text)")
        self.execute(
            f"CREATE FUNCTION {name}_writes() RETURNS int LANGUAGE sql AS $$INSERT INTO {name} VALUES (-1, 'x') RETURNING 1$$"
        )
        self.connection = server.connection()

    def execute(self, sql: str) -> None:
        with closing(self._server.connect()) as other:
            other.execute(sql.encode())

    def _value(self, sql: str) -> int:
        with closing(self._server.connect()) as other:
            row = other.execute(sql.encode()).fetchone()
            assert row is not None
            return int(row[0])

    def rows_in_table(self) -> int:
        return self._value(f"SELECT count(*) FROM {self.table}")

    def numbers(self, count: int) -> str:
        return f"SELECT n, 'p' || n AS name FROM generate_series(1, {count}) n"

    def bound(self, value: str) -> Step:
        return Step("SELECT %(P_X)s AS x", {"P_X": value})

    def sessions(self) -> int:
        return self._value(f"SELECT count(*) {self.SESSIONS}")

    def running(self) -> int:
        return self._value(f"SELECT count(*) {self.SESSIONS} AND state = 'active'")

    def kill_sessions(self) -> None:
        self.execute(f"SELECT pg_terminate_backend(pid) {self.SESSIONS}")

    def drop(self) -> None:
        self.execute(f"DROP FUNCTION {self.table}_writes()")
        self.execute(f"DROP TABLE {self.table}")


class MySqlSourceRig(SourceRig):
    slow = "SELECT SLEEP(60)"
    slow_rows = "SELECT seq AS n, CASE WHEN seq > 20000 THEN SLEEP(0.01) END AS name FROM seq_1_to_30000"
    setting = "SET group_concat_max_len = 4321"
    setting_shown = "SELECT CASE @@group_concat_max_len WHEN 4321 THEN 'ON' ELSE 'OFF' END AS shown"
    own_words = "Unknown column 'nowhere'"

    def __init__(self, server: MySqlRig, name: str) -> None:
        self._server = server
        self.table = name
        self.bad_sql = f"SELECT nowhere FROM {name}"
        self.hidden_writes = (
            f"SELECT {name}_writes()",
            f"INSERT INTO {name} (n, name) VALUES (-1, 'x') RETURNING n",
        )
        self.execute(f"CREATE TABLE {name} (n bigint, name text)")
        self.execute(
            f"CREATE FUNCTION {name}_writes() RETURNS int MODIFIES SQL DATA "
            f"BEGIN INSERT INTO {name} VALUES (-1, 'x'); RETURN 1; END"
        )
        self.connection = server.connection()

    def execute(self, sql: str) -> None:
        self._server.execute(sql)

    def rows_in_table(self) -> int:
        return int(self._server.execute(f"SELECT COUNT(*) FROM {self.table}")[0][0])

    def numbers(self, count: int) -> str:
        return f"SELECT seq AS n, CONCAT('p', seq) AS name FROM seq_1_to_{count}"

    def bound(self, value: str) -> Step:
        return Step("SELECT %(P_X)s AS x", {"P_X": value})

    def _ours(self) -> list[tuple[int, str]]:
        own = (
            "SELECT id, command FROM information_schema.processlist WHERE id <> CONNECTION_ID() AND command <> 'Daemon'"
        )
        return [(int(id_), str(command)) for id_, command in self._server.execute(own)]

    def sessions(self) -> int:
        return len(self._ours())

    def running(self) -> int:
        return sum(command == "Query" for _, command in self._ours())

    def kill_sessions(self) -> None:
        for id_, _ in self._ours():
            self.execute(f"KILL {id_}")

    def drop(self) -> None:
        self.execute(f"DROP FUNCTION {self.table}_writes")
        self.execute(f"DROP TABLE {self.table}")


class SqlServerSourceRig(SourceRig):
    """A server that speaks TDS; `unshown` is of the test server, a real SQL Server supports more."""

    slow = SLOW_COUNT
    slow_rows = f"SELECT n, REPLICATE('x', 500) AS name FROM {number_table(200_000)}"
    setting = "SET DATEFIRST 3"
    setting_shown = "SELECT CASE @@DATEFIRST WHEN 3 THEN 'ON' ELSE 'OFF' END AS shown"
    unshown = {  # noqa: RUF012 - never changed
        "test_database_itself_refuses_a_write_that_looks_like_a_query": "SQL Server has no read-only session; the gate and the login's rights stand there",
        "test_statement_timeout_ends_a_query_amid_its_rows": "ODBC bounds each wait for the server, not the statement as a whole",
        "test_cancel_between_steps_runs_no_further_step": "the test server goes on computing after a cancel",
    }

    def __init__(self, server: SqlServerRig, name: str) -> None:
        self._server = server
        self.table = name
        self.bad_sql = f"SELECT nowhere FROM {name}"
        self.own_words = "nowhere"
        self.hidden_writes = (f"INSERT INTO {name} (n, name) OUTPUT inserted.n VALUES (-1, 'x')",)
        self.execute(f"CREATE TABLE {name} (n bigint, name nvarchar(50))")
        self.connection = server.connection()

    def execute(self, sql: str) -> None:
        with closing(self._server.connect()) as other:
            other.execute(sql)

    def _rows(self, sql: str) -> list[tuple[Any, ...]]:
        with closing(self._server.connect()) as other:
            return [tuple(row) for row in other.execute(sql).fetchall()]

    def rows_in_table(self) -> int:
        return int(self._rows(f"SELECT COUNT(*) FROM {self.table}")[0][0])

    def numbers(self, count: int) -> str:
        return f"SELECT n, 'p' + CAST(n AS varchar(9)) AS name FROM {number_table(count)}"

    def bound(self, value: str) -> Step:
        return Step("SELECT CAST(? AS nvarchar(100)) AS x", (value,))

    def _ours(self) -> dict[int, str]:
        found = self._rows("SELECT spid, status FROM sys.sysprocesses WHERE program_name = 'pstt-kafka'")
        return {spid: status.strip() for spid, status in found}

    def sessions(self) -> int:
        return len(self._ours())

    def running(self) -> int:
        return sum(status in ("active", "running", "runnable", "suspended") for status in self._ours().values())

    def kill_sessions(self) -> None:
        for spid in self._ours():
            self.execute(f"KILL {spid}")

    def drop(self) -> None:
        self.execute(f"DROP TABLE {self.table}")


class OdbcSqlServerRig(SqlServerSourceRig):
    """The same server through FreeTDS as any ODBC driver."""

    unshown = {  # noqa: RUF012 - never changed
        **SqlServerSourceRig.unshown,
        "test_count_and_rows_are_of_the_same_snapshot": "only the source of SQL Server asks for its SNAPSHOT isolation",
        "test_count_is_of_a_statement_with_order_and_comment_at_its_end": "T-SQL takes no ORDER BY inside of a SELECT",
    }

    def __init__(self, server: SqlServerRig, name: str) -> None:
        super().__init__(server, name)
        options = {"TDS_Version": "7.4", "ClientCharset": "UTF-8", "APP": "pstt-kafka"}
        self.connection = replace(self.connection, db_type="odbc", dialect="sqlserver", sslmode="", options=options)


_NO_DATA = "the Oracle double has no tables; a true server (ORACLE_TEST_URL) shows it"
_NO_SESSION_STATE = "the Oracle double keeps no session settings; a true server (ORACLE_TEST_URL) shows it"


class OracleDoubleRig(SourceRig):
    """The wire protocol without a database behind it: each statement has the response that is set here."""

    table = "parcel"
    slow = "SELECT n FROM slow"
    slow_rows = "SELECT n, name FROM slow_rows"
    setting = "ALTER SESSION SET NLS_SORT = BINARY"
    setting_shown = "SELECT shown FROM dual"
    bad_sql = "SELECT nowhere FROM parcel"
    own_words = 'ORA-00904: "NOWHERE": invalid identifier'
    hidden_writes = ("SELECT parcel_writes() FROM dual",)
    unshown = {  # noqa: RUF012 - never changed
        "test_rows_committed_by_others_while_reading_are_not_seen": _NO_DATA,
        "test_count_and_rows_are_of_the_same_snapshot": _NO_DATA,
        "test_count_is_of_a_statement_with_order_and_comment_at_its_end": _NO_DATA,
        "test_database_itself_refuses_a_write_that_looks_like_a_query": _NO_DATA,
        "test_allowed_writes_are_committed_once_all_rows_were_read": _NO_DATA,
        "test_allowed_writes_of_a_broken_off_read_are_undone": _NO_DATA,
        "test_steps_share_a_session_and_only_the_last_result_is_read": _NO_SESSION_STATE,
        "test_setting_of_one_read_is_gone_in_the_next": _NO_SESSION_STATE,
    }

    def __init__(self, double: OracleDouble) -> None:
        self._double = double
        columns = [("N", "NUMBER(10)"), ("NAME", "VARCHAR2(50)")]
        endless = (columns, lambda sql, binds: chain(((n, "p") for n in range(1, 31)), [Hang()]))
        double.on(r"FROM slow$", [("N", "NUMBER")], hang=Hang())
        double.on(r"FROM slow_rows$", *endless)
        double.on(r"FROM parcel$", columns, [])
        double.on(r"COUNT\(\*\) FROM \(\s*SELECT n, name FROM parcel", [("C", "NUMBER")], [(0,)])
        double.on(r"^SELECT nowhere", error=(904, '"NOWHERE": invalid identifier'))
        double.on(r"FROM numbers_\d+$", columns, lambda sql, binds: self._numbers(sql))
        double.on(r"^SELECT :P_X", [("X", "VARCHAR2(100)")], lambda sql, binds: [(binds["P_X"],)])
        double.on(r"COUNT\(\*\) FROM \(\s*SELECT :P_X", [("C", "NUMBER")], [(1,)])
        double.on(r"session_privs", [("PRIVILEGE", "VARCHAR2(40)")], [])
        self.connection = DatabaseConnection(
            name="ora",
            db_type="oracle",
            host=double.host,
            port=double.port,
            service_name=double.service,
            username="pstt",
            password=Secret(ORACLE_PASSWORD),
        )

    @staticmethod
    def _numbers(sql: str) -> Iterator[tuple[int, str]]:
        return ((n, f"p{n}") for n in range(1, int(sql.rpartition("_")[2]) + 1))

    def execute(self, sql: str) -> None:
        raise AssertionError(_NO_DATA)

    def rows_in_table(self) -> int:
        raise AssertionError(_NO_DATA)

    def numbers(self, count: int) -> str:
        return f"SELECT n, name FROM numbers_{count}"

    def bound(self, value: str) -> Step:
        return Step("SELECT :P_X AS x FROM dual", {"P_X": value})

    def sessions(self) -> int:
        kinds = self._double.kinds()
        return kinds.count("login") - kinds.count("logoff") - kinds.count("lost")

    def wait_until_running(self) -> None:
        until(lambda: bool(self._double.statements(r"FROM slow")), timeout_s=PATIENCE_S)

    def kill_sessions(self) -> None:
        self._double.drop_connections()


class OracleSourceRig(SourceRig):
    """A real Oracle."""

    slow = "SELECT COUNT(*) AS c FROM all_objects a, all_objects b, all_objects c"
    slow_rows = "SELECT LEVEL AS n, RPAD('x', 500) AS name FROM dual CONNECT BY LEVEL <= 100000000"
    setting = "ALTER SESSION SET NLS_DATE_FORMAT = '\"ON\"'"
    setting_shown = "SELECT CASE TO_CHAR(SYSDATE) WHEN 'ON' THEN 'ON' ELSE 'OFF' END AS shown FROM dual"
    own_words = "ORA-00904"
    hidden_writes = ()
    unshown = {  # noqa: RUF012 - never changed
        "test_database_itself_refuses_a_write_that_looks_like_a_query": "Oracle lets no function called in a query write",
        "test_allowed_writes_are_committed_once_all_rows_were_read": "Oracle has no query that writes",
        "test_session_lost_before_the_first_row_may_be_tried_again": "killing a session wants a right that the account need not have",
        "test_session_lost_amid_the_rows_is_never_a_complete_result": "killing a session wants a right that the account need not have",
    }

    def __init__(self, server: OracleRig, name: str) -> None:
        self.table = name
        self.connection = server.connection()
        self.bad_sql = f"SELECT nowhere FROM {name}"
        self.execute(f"CREATE TABLE {name} (n NUMBER(18), name VARCHAR2(50))")

    def _connect(self) -> oracledb.Connection:
        given = self.connection
        service = {"sid": given.sid} if given.sid else {"service_name": given.service_name}
        password = given.password.reveal() if given.password else None
        return oracledb.connect(
            user=given.username, password=password, host=given.host, port=given.port or 1521, **service
        )

    def execute(self, sql: str) -> None:
        with self._connect() as other, other.cursor() as cursor:
            cursor.execute(sql)
            other.commit()

    def rows_in_table(self) -> int:
        with self._connect() as other, other.cursor() as cursor:
            return int(cursor.execute(f"SELECT COUNT(*) FROM {self.table}").fetchone()[0])

    def numbers(self, count: int) -> str:
        return f"SELECT LEVEL AS n, 'p' || LEVEL AS name FROM dual CONNECT BY LEVEL <= {count}"

    def bound(self, value: str) -> Step:
        return Step("SELECT :P_X AS x FROM dual", {"P_X": value})

    def wait_until_running(self) -> None:
        time.sleep(1)  # v$session needs a right that the account may lack

    def drop(self) -> None:
        self.execute(f"DROP TABLE {self.table} PURGE")


def _sqlserver(request: pytest.FixtureRequest) -> Iterator[SourceRig]:
    rig = SqlServerSourceRig(request.getfixturevalue("sqlserver"), f"parcel_{time.time_ns()}")
    yield rig
    rig.drop()


def _oracle_double(request: pytest.FixtureRequest) -> Iterator[SourceRig]:
    with OracleDouble(users={"pstt": ORACLE_PASSWORD}) as double:
        yield OracleDoubleRig(double)
        assert double.failures == []


def _oracle(request: pytest.FixtureRequest) -> Iterator[SourceRig]:
    rig = OracleSourceRig(request.getfixturevalue("true_oracle"), f"parcel_{time.time_ns()}")
    yield rig
    rig.drop()


def _sqlite(request: pytest.FixtureRequest) -> Iterator[SourceRig]:
    yield SqliteRig(request.getfixturevalue("tmp_path"))


def _postgresql(request: pytest.FixtureRequest) -> Iterator[SourceRig]:
    rig = PostgresSourceRig(request.getfixturevalue("postgres"), f"parcel_{time.time_ns()}")
    yield rig
    rig.drop()


def _mysql(request: pytest.FixtureRequest) -> Iterator[SourceRig]:
    rig = MySqlSourceRig(request.getfixturevalue("mariadb"), f"parcel_{time.time_ns()}")
    yield rig
    rig.drop()


def _odbc_sqlserver(request: pytest.FixtureRequest) -> Iterator[SourceRig]:
    rig = OdbcSqlServerRig(request.getfixturevalue("sqlserver"), f"parcel_{time.time_ns()}")
    yield rig
    rig.drop()


RIGS: dict[str, Callable[[pytest.FixtureRequest], Iterator[SourceRig]]] = {
    "sqlite": _sqlite,
    "postgresql": _postgresql,
    "mysql": _mysql,
    "odbc sqlserver": _odbc_sqlserver,
    "sqlserver": _sqlserver,
    "oracle double": _oracle_double,
    "oracle": _oracle,
}
UNSHOWN = {
    "odbc sqlserver": OdbcSqlServerRig.unshown,
    "sqlserver": SqlServerSourceRig.unshown,
    "oracle double": OracleDoubleRig.unshown,
    "oracle": OracleSourceRig.unshown,
}


SLOW = {"odbc sqlserver"}
"""The same server a second time."""


@pytest.fixture(params=[pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in RIGS])
def source_rig(request: pytest.FixtureRequest) -> Iterator[SourceRig]:
    if why := UNSHOWN.get(request.param, {}).get(request.node.originalname):
        pytest.skip(why)
    yield from RIGS[request.param](request)


@pytest.fixture
def server_rig(source_rig: SourceRig) -> SourceRig:
    """Only the databases that are servers."""
    if not source_rig.is_server:
        pytest.skip("a file has no logins, hosts and sessions")
    return source_rig


@pytest.fixture
def source(source_rig: SourceRig) -> Iterator[Source]:
    with closing(source_rig.source()) as opened:
        yield opened


# ── tools ─────────────────────────────────────────────────────────────────────────────────────


def query(sql: str) -> list[Step]:
    return [Step(sql)]


def read_all(source: Source, sql: str, *, fetch_rows: int = 5000) -> list[tuple[Any, ...]]:
    with source.read(query(sql), fetch_rows=fetch_rows) as reading:
        return [tuple(row) for rows in reading for row in rows.rows]


@contextmanager
def meanwhile(action: Callable[[], object]) -> Iterator[None]:
    """Runs `action` in a thread of its own; an exception there fails the test."""
    with ThreadPoolExecutor(1) as threads:
        done = threads.submit(action)
        yield
        done.result(PATIENCE_S)


def is_usable(source: Source, rig: SourceRig) -> bool:
    return [n for n, _ in read_all(source, rig.numbers(3))] == [1, 2, 3]


@contextmanager
def raises(wanted: type[PsttError], *secrets: str) -> Iterator[pytest.ExceptionInfo[PsttError]]:
    """As pytest.raises, exactly that class; neither its text nor those of its causes have a secret."""
    with pytest.raises(PsttError) as caught:
        yield caught
    assert type(caught.value) is wanted, repr(caught.value)
    for error in chain_of(caught.value):
        texts = [str(error), repr(error), *map(repr, error.args), *map(str, vars(error).values())]
        assert not [text for text in texts if any(secret and secret in text for secret in secrets)]


def secret_of(rig: SourceRig) -> str:
    return rig.connection.password.reveal() if rig.connection.password else ""


def chain_of(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


# ── rows ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("count", [1, 9, 10, 11, 95])
def test_rows_come_in_order_in_numbered_blocks_of_fetch_rows(source_rig: SourceRig, source: Source, count: int) -> None:
    with source.read(query(source_rig.numbers(count)), fetch_rows=10) as reading:
        blocks: list[Rows] = list(reading)

    assert [len(block.rows) for block in blocks] == [10] * (count // 10) + [count % 10] * (count % 10 > 0)
    assert [block.first_row for block in blocks] == list(range(1, count + 1, 10))
    assert [row[0] for block in blocks for row in block.rows] == list(range(1, count + 1))
    assert all(block.extracted_at.utcoffset() is not None for block in blocks)


def test_empty_result_has_columns_and_no_block(source_rig: SourceRig, source: Source) -> None:
    with source.read(query(f"SELECT n, name FROM {source_rig.table}"), count=True) as reading:
        assert [column.name.lower() for column in reading.columns] == ["n", "name"]
        assert list(reading) == []
        assert reading.counted == 0


def test_bad_sql_is_told_in_the_databases_own_words(source_rig: SourceRig, source: Source) -> None:
    with raises(QueryFailed, secret_of(source_rig)) as caught, source.read(query(source_rig.bad_sql)):
        pass
    assert source_rig.own_words in caught.value.text
    assert source_rig.connection.name in caught.value.text
    assert not caught.value.is_retriable
    assert is_usable(source, source_rig)


def test_bound_value_comes_back_as_it_is(source_rig: SourceRig, source: Source) -> None:
    value = "it's 100 %s; -- \\ è€😀"
    with source.read([source_rig.bound(value)], count=True) as reading:
        assert [tuple(row) for rows in reading for row in rows.rows] == [(value,)]
        assert reading.counted == 1


def test_memory_stays_flat_over_a_million_rows(source_rig: SourceRig, source: Source) -> None:
    process, sizes = psutil.Process(), []
    with source.read(query(source_rig.numbers(1_000_000))) as reading:
        for rows in reading:
            last = rows.first_row + len(rows.rows) - 1
            if last % 100_000 == 0:
                sizes.append(process.memory_info().rss)
    assert last == 1_000_000
    assert len(sizes) == 10
    # Kept, the rows would take more than 100 MB.
    assert max(sizes[1:]) - sizes[0] < 20_000_000


# ── one snapshot, nothing written ─────────────────────────────────────────────────────────────


def test_rows_committed_by_others_while_reading_are_not_seen(source_rig: SourceRig, source: Source) -> None:
    source_rig.fill(3000)
    seen = []
    with source.read(query(f"SELECT n FROM {source_rig.table}"), fetch_rows=10, count=True) as reading:
        for rows in reading:
            if rows.first_row == 1:
                source_rig.execute(f"INSERT INTO {source_rig.table} (n, name) VALUES (-1, 'late')")
                source_rig.execute(f"UPDATE {source_rig.table} SET n = -2 WHERE n = 2999")
            seen += [row[0] for row in rows.rows]
    assert sorted(seen) == list(range(1, 3001))
    assert reading.counted == 3000
    assert source_rig.rows_in_table() == 3001


def test_count_and_rows_are_of_the_same_snapshot(source_rig: SourceRig, source: Source) -> None:
    source_rig.fill(30)
    stream = source.stream  # type: ignore[attr-defined]

    def late(*given: Any) -> Any:
        source_rig.execute(f"INSERT INTO {source_rig.table} (n, name) VALUES (-1, 'late')")
        return stream(*given)

    source.stream = late  # type: ignore[attr-defined]
    with source.read(query(f"SELECT n FROM {source_rig.table}"), count=True) as reading:
        rows = [row for rows in reading for row in rows.rows]
    assert (reading.counted, len(rows), source_rig.rows_in_table()) == (30, 30, 31)


def test_count_is_of_a_statement_with_order_and_comment_at_its_end(source_rig: SourceRig, source: Source) -> None:
    source_rig.fill(7)
    with source.read(query(f"SELECT n FROM {source_rig.table} ORDER BY n DESC -- newest first"), count=True) as reading:
        assert reading.counted == 7
        assert [row[0] for rows in reading for row in rows.rows] == [7, 6, 5, 4, 3, 2, 1]


def test_database_itself_refuses_a_write_that_looks_like_a_query(source_rig: SourceRig, source: Source) -> None:
    for sql in source_rig.hidden_writes:
        with raises(QueryFailed, secret_of(source_rig)) as caught:
            read_all(source, sql)
        assert "read-only" in caught.value.text
    assert source_rig.rows_in_table() == 0
    assert is_usable(source, source_rig)


def test_allowed_writes_are_committed_once_all_rows_were_read(source_rig: SourceRig) -> None:
    with closing(source_rig.source(allow_writes=True)) as source:
        for sql in source_rig.hidden_writes:
            assert len(read_all(source, sql)) == 1
    assert source_rig.rows_in_table() == len(source_rig.hidden_writes)


def test_allowed_writes_of_a_broken_off_read_are_undone(source_rig: SourceRig) -> None:
    insert = Step(f"INSERT INTO {source_rig.table} (n, name) VALUES (-1, 'x')", returns_rows=False)
    with closing(source_rig.source(allow_writes=True)) as source:
        with source.read([insert, Step(source_rig.numbers(100))], fetch_rows=10) as reading:
            next(iter(reading))
        with (  # noqa: PT012 - the reader's own error is the subject
            pytest.raises(ZeroDivisionError),
            source.read([insert, Step(source_rig.numbers(1))]) as reading,
        ):
            assert len(list(reading)) == 1
            raise ZeroDivisionError
    assert source_rig.rows_in_table() == 0


# ── several steps on one connection ───────────────────────────────────────────────────────────


def test_steps_share_a_session_and_only_the_last_result_is_read(source_rig: SourceRig, source: Source) -> None:
    steps = [Step(source_rig.setting, returns_rows=False), Step(source_rig.numbers(50)), Step(source_rig.setting_shown)]
    with source.read(steps) as reading:
        assert [column.name.lower() for column in reading.columns] == ["shown"]
        assert [tuple(row) for rows in reading for row in rows.rows] == [("ON",)]


def test_setting_of_one_read_is_gone_in_the_next(source_rig: SourceRig, source: Source) -> None:
    with source.read([Step(source_rig.setting, returns_rows=False), Step(source_rig.setting_shown)]) as reading:
        assert [tuple(row) for rows in reading for row in rows.rows] == [("ON",)]
    assert read_all(source, source_rig.setting_shown) == [("OFF",)]


def test_failing_step_ends_the_read_before_its_result(source_rig: SourceRig, source: Source) -> None:
    with raises(QueryFailed), source.read([Step(source_rig.bad_sql), Step(source_rig.numbers(1))]):
        pytest.fail("there is no result")
    assert is_usable(source, source_rig)


# ── it may end early ──────────────────────────────────────────────────────────────────────────


def test_closing_early_leaves_nothing_behind(source_rig: SourceRig, source: Source) -> None:
    with source.read(query(source_rig.slow_rows), fetch_rows=10) as reading:
        for rows in reading:
            assert rows.first_row == 1
            break
    until(lambda: source_rig.running() == 0, timeout_s=PATIENCE_S)
    until(lambda: source_rig.sessions() == 0, timeout_s=PATIENCE_S)
    assert is_usable(source, source_rig)


def test_exception_of_the_reader_passes_and_closes(source_rig: SourceRig, source: Source) -> None:
    with (  # noqa: PT012 - the reader's own error is the subject
        pytest.raises(ZeroDivisionError),
        source.read(query(source_rig.numbers(100)), fetch_rows=10) as reading,
    ):
        next(iter(reading))
        raise ZeroDivisionError
    until(lambda: source_rig.sessions() == 0, timeout_s=PATIENCE_S)
    assert is_usable(source, source_rig)


def test_source_closes_twice_and_opens_again(source_rig: SourceRig, source: Source) -> None:
    assert is_usable(source, source_rig)
    source.close()
    source.close()
    until(lambda: source_rig.sessions() == 0, timeout_s=PATIENCE_S)
    assert is_usable(source, source_rig)


def test_statement_timeout_ends_a_query_without_rows(source_rig: SourceRig) -> None:
    with closing(source_rig.source(statement_timeout_s=2)) as source:  # the last query is quick, on a busy machine too
        with raises(QueryFailed, secret_of(source_rig)) as caught:
            read_all(source, source_rig.slow)
        assert "statement_timeout_s = 2 s" in caught.value.text
        assert "statement_timeout_s" in caught.value.remedy
        until(lambda: source_rig.running() == 0, timeout_s=PATIENCE_S)
        assert is_usable(source, source_rig)


def test_statement_timeout_ends_a_query_amid_its_rows(source_rig: SourceRig) -> None:
    seen = 0
    with closing(source_rig.source(statement_timeout_s=1)) as source:
        with (
            raises(QueryFailed, secret_of(source_rig)) as caught,
            source.read(query(source_rig.slow_rows), fetch_rows=10) as reading,
        ):
            for rows in reading:
                seen += len(rows.rows)
        assert "statement_timeout_s = 1 s" in caught.value.text
        assert seen > 0
        assert is_usable(source, source_rig)


def test_cancel_from_another_thread_ends_a_query_without_rows(source_rig: SourceRig, source: Source) -> None:
    def cancel() -> None:
        source_rig.wait_until_running()
        source.cancel()

    with raises(RunCancelled, secret_of(source_rig)), meanwhile(cancel):
        read_all(source, source_rig.slow)
    until(lambda: source_rig.running() == 0, timeout_s=PATIENCE_S)
    assert is_usable(source, source_rig)


def test_cancel_amid_the_rows_is_never_a_complete_result(source_rig: SourceRig, source: Source) -> None:
    with (
        raises(RunCancelled, secret_of(source_rig)),
        source.read(query(source_rig.slow_rows), fetch_rows=10) as reading,
    ):
        for rows in reading:
            if rows.first_row == 21:
                source.cancel()
    until(lambda: source_rig.running() == 0, timeout_s=PATIENCE_S)
    assert is_usable(source, source_rig)


def test_cancel_between_steps_runs_no_further_step(source_rig: SourceRig, source: Source) -> None:
    run = source.run  # type: ignore[attr-defined]

    def and_cancel(*given: Any) -> None:
        run(*given)
        source.cancel()

    source.run = and_cancel  # type: ignore[attr-defined]
    with raises(RunCancelled), source.read([Step(source_rig.numbers(1)), Step(source_rig.slow)]):
        pytest.fail("there is no result")
    assert source_rig.running() == 0


def test_cancel_before_a_read_stops_it_and_not_the_one_after(source_rig: SourceRig, source: Source) -> None:
    source.cancel()
    source.cancel()
    with raises(RunCancelled):
        read_all(source, source_rig.slow)
    assert is_usable(source, source_rig)


# ── servers that cannot be reached, or go away ────────────────────────────────────────────────


def test_wrong_password_is_not_authorised_and_not_tried_again(server_rig: SourceRig) -> None:
    with closing(server_rig.source(password=Secret(WRONG))) as source:
        with raises(NotAuthorised, WRONG) as caught:
            read_all(source, server_rig.numbers(1))
        assert not caught.value.is_retriable
        assert server_rig.connection.username in caught.value.text
        assert "password" in caught.value.remedy
        (result,) = source.check()
        assert (result.status, result.unreachable) == ("fail", False)
        assert WRONG not in repr(result)


def test_unknown_host_is_unavailable_and_may_be_tried_again(server_rig: SourceRig) -> None:
    with closing(server_rig.source(host="no-such-host.invalid")) as source:
        with raises(SourceUnavailable, secret_of(server_rig)) as caught:
            read_all(source, server_rig.numbers(1))
        assert caught.value.is_retriable
        assert "no-such-host.invalid" in caught.value.text
        (result,) = source.check()
        assert (result.status, result.unreachable) == ("fail", True)


def test_refused_port_is_unavailable(server_rig: SourceRig) -> None:
    (port,) = free_ports(1)
    with (
        closing(server_rig.source(port=port)) as source,
        raises(SourceUnavailable, secret_of(server_rig)) as caught,
    ):
        read_all(source, server_rig.numbers(1))
    assert str(port) in caught.value.text


def test_server_that_never_answers_is_unavailable_after_the_connect_timeout(server_rig: SourceRig) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        host, port = silent.getsockname()
        with closing(server_rig.source(host=host, port=port, connect_timeout_s=2.0)) as source:
            started = time.monotonic()
            with raises(SourceUnavailable, secret_of(server_rig)):
                read_all(source, server_rig.numbers(1))
            assert time.monotonic() - started < server_rig.connection.connect_timeout_s


def test_session_lost_before_the_first_row_may_be_tried_again(server_rig: SourceRig) -> None:
    def kill() -> None:
        server_rig.wait_until_running()
        server_rig.kill_sessions()

    with closing(server_rig.source()) as source:
        with raises(SourceUnavailable, secret_of(server_rig)), meanwhile(kill):
            read_all(source, server_rig.slow)
        assert is_usable(source, server_rig)


def test_session_lost_amid_the_rows_is_never_a_complete_result(server_rig: SourceRig) -> None:
    with closing(server_rig.source()) as source:
        with (
            raises(QueryFailed, secret_of(server_rig)) as caught,
            source.read(query(server_rig.slow_rows), fetch_rows=10) as reading,
        ):
            for rows in reading:
                if rows.first_row == 21:
                    server_rig.kill_sessions()
        assert "same message ids" in caught.value.remedy
        assert is_usable(source, server_rig)


def test_check_tells_what_was_reached_and_never_a_secret(source_rig: SourceRig, source: Source) -> None:
    results = source.check()
    assert {result.status for result in results} <= {"pass", "warn"}
    assert results[0].text.startswith("reached in")
    assert not secret_of(source_rig) or secret_of(source_rig) not in repr(results)
    until(lambda: source_rig.sessions() == 0, timeout_s=PATIENCE_S)


# ── servers that fall silent: what is said is swallowed on the way, and nobody is told ────────


@pytest.fixture
def way(server_rig: SourceRig) -> Iterator[Proxy]:
    """A proxy to the server, which a test may make silent."""
    with Proxy(server_rig.connection.host, server_rig.connection.port or 0) as made:
        yield made


Phase = Callable[[SourceRig, Source, Proxy], None]


def at_the_login(server_rig: SourceRig, source: Source, way: Proxy) -> None:
    way.is_silent.set()
    read_all(source, server_rig.numbers(1))


def after_the_login(server_rig: SourceRig, source: Source, way: Proxy) -> None:
    begin = source.begin  # type: ignore[attr-defined]

    def silenced(raw: Any) -> None:
        way.is_silent.set()
        begin(raw)

    source.begin = silenced  # type: ignore[attr-defined]
    read_all(source, server_rig.numbers(1))


def before_the_first_row(server_rig: SourceRig, source: Source, way: Proxy) -> None:
    stream = source.stream  # type: ignore[attr-defined]

    def silenced(*given: Any) -> Any:
        way.is_silent.set()
        return stream(*given)

    source.stream = silenced  # type: ignore[attr-defined]
    read_all(source, server_rig.numbers(1))


def amid_the_rows(server_rig: SourceRig, source: Source, way: Proxy) -> None:
    with source.read(query(server_rig.slow_rows), fetch_rows=10) as reading:
        for rows in reading:
            if rows.first_row == 11:
                way.is_silent.set()


PHASES = [at_the_login, after_the_login, before_the_first_row, amid_the_rows]


@pytest.mark.parametrize("phase", sweep(PHASES, always=PHASES[::2]), ids=lambda phase: phase.__name__)
def test_server_that_falls_silent_is_given_up(server_rig: SourceRig, way: Proxy, phase: Phase) -> None:
    changes = {"host": way.host, "port": way.port, "connect_timeout_s": 2.0, "read_timeout_s": 2.0}
    wanted = QueryFailed if phase is amid_the_rows else SourceUnavailable
    with closing(server_rig.source(**changes)) as source, raises(wanted, secret_of(server_rig)) as caught:
        phase(server_rig, source, way)
    if phase is not at_the_login:
        assert "fell silent" in caught.value.text
        assert "read_timeout_s = 2 s" in caught.value.text
        assert "read_timeout_s" in caught.value.remedy


@pytest.mark.parametrize("phase", sweep(PHASES, always=[amid_the_rows]), ids=lambda phase: phase.__name__)
def test_statement_timeout_ends_a_silence_as_well(server_rig: SourceRig, way: Proxy, phase: Phase) -> None:
    changes = {"host": way.host, "port": way.port, "connect_timeout_s": 2.0, "statement_timeout_s": 2.0}
    with closing(server_rig.source(**changes)) as source, pytest.raises(PsttError) as caught:
        phase(server_rig, source, way)
    if phase is not at_the_login:
        assert "statement_timeout_s = 2 s" in caught.value.text


@pytest.mark.parametrize("phase", sweep(PHASES, always=[before_the_first_row]), ids=lambda phase: phase.__name__)
def test_cancel_ends_a_read_whose_server_is_silent(server_rig: SourceRig, way: Proxy, phase: Phase) -> None:
    def cancel() -> None:
        assert way.is_silent.wait(PATIENCE_S)
        source.cancel(within_s=1)

    with closing(server_rig.source(host=way.host, port=way.port)) as source:
        with raises(RunCancelled, secret_of(server_rig)), meanwhile(cancel):
            phase(server_rig, source, way)
    with closing(server_rig.source()) as another:
        assert is_usable(another, server_rig)


def test_silence_at_the_goodbye_leaves_the_result_complete(server_rig: SourceRig, way: Proxy) -> None:
    with closing(server_rig.source(host=way.host, port=way.port)) as source:
        with source.read(query(server_rig.numbers(30)), fetch_rows=10) as reading:
            seen = [row[0] for rows in reading for row in rows.rows]
            way.is_silent.set()
    assert seen == list(range(1, 31))
