"""What only MySQL and MariaDB have: sql_mode, TLS, rights, sequences, logins in clear text, and values in the text."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pymysql
import pytest

from core.errors import ConfigError, NotAuthorised, PsttError, QueryFailed, SourceUnavailable
from core.model.connection import DatabaseConnection, Secret
from core.model.job import Partitions
from core.model.query import Step
from core.sources import find_dialect, open_source
from core.sources.mysql import MySqlSource
from core.sql.parser import parse
from core.sql.values import join
from tests.integration.test_query_binds import DEFINES, GIVEN, HOSTILE, LIST_DEFINES, LIST_FORMS, listed_rows, pasted
from tests.integration.test_splitting import split_and_read
from tests.rigs.certificates import Certificates, make_certificates
from tests.rigs.mysql import MySqlRig


def read_all(connection: DatabaseConnection, *sql: str) -> list[tuple[Any, ...]]:
    steps = [Step(text, returns_rows=text is sql[-1]) for text in sql]
    with closing(open_source(connection)) as source, source.read(steps) as reading:
        return [tuple(row) for rows in reading for row in rows.rows]


def error_of(connection: DatabaseConnection, *sql: str) -> PsttError:
    with pytest.raises(PsttError) as caught:
        read_all(connection, *(sql or ("SELECT 1 AS n",)))
    return caught.value


# ── the session ───────────────────────────────────────────────────────────────────────────────


def test_modes_that_change_where_literals_end_are_off_in_a_run(mariadb: MySqlRig) -> None:
    (before,) = mariadb.execute("SELECT @@GLOBAL.sql_mode")[0]
    try:
        for mode in ("ANSI_QUOTES", "NO_BACKSLASH_ESCAPES", "ANSI", "ORACLE", "STRICT_TRANS_TABLES,ANSI_QUOTES"):
            mariadb.execute(f"SET GLOBAL sql_mode = '{mode}'")
            sql = """SELECT "a'b" AS x, 'it\\'s' AS y, @@SESSION.sql_mode AS m"""
            ((x, y, modes),) = read_all(mariadb.connection(), sql)
            assert (x, y) == ("a'b", "it's")
            assert ("STRICT_TRANS_TABLES" in modes) == ("STRICT_TRANS_TABLES" in mode)
            with closing(MySqlSource(mariadb.connection())) as source:
                assert any("which a run turns off" in result.text for result in source.check())
    finally:
        mariadb.execute(f"SET GLOBAL sql_mode = '{before}'")


def test_time_zone_is_utc_and_the_server_waits_an_hour_for_a_slow_reader(mariadb: MySqlRig) -> None:
    sql = "SELECT @@SESSION.time_zone AS z, @@SESSION.net_write_timeout AS w, @@SESSION.tx_isolation AS i"
    assert read_all(mariadb.connection(), sql) == [("+00:00", 3600, "REPEATABLE-READ")]


def test_a_sequence_is_not_moved_by_a_run(mariadb: MySqlRig) -> None:
    mariadb.execute("CREATE SEQUENCE moved")
    try:
        assert "read-only" in error_of(mariadb.connection(), "SELECT NEXT VALUE FOR moved AS n").text
        assert mariadb.execute("SELECT NEXT VALUE FOR moved") == [(1,)]
    finally:
        mariadb.execute("DROP SEQUENCE moved")


def test_a_statement_time_out_reaches_a_mariadb_as_seconds(mariadb: MySqlRig) -> None:
    given = mariadb.connection(statement_timeout_s=1.5)
    assert float(read_all(given, "SELECT @@SESSION.max_statement_time AS t")[0][0]) == 1.5


# ── TLS ───────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def tls_server(certificates: Certificates) -> Iterator[MySqlRig]:
    with MySqlRig(keystore=certificates.server, client_ca=certificates.ca_file) as rig:
        yield rig


CIPHER = "SELECT variable_value AS v FROM information_schema.session_status WHERE variable_name = 'SSL_CIPHER'"


def test_tls_is_used_as_sslmode_asks(tls_server: MySqlRig, certificates: Certificates) -> None:
    for settings in (
        {},
        {"sslmode": "prefer"},
        {"sslmode": "require"},
        {"sslmode": "verify-ca", "sslrootcert": certificates.ca_file},
        {"sslmode": "verify-full", "sslrootcert": certificates.ca_file},
    ):
        connection = tls_server.connection(**settings)
        assert read_all(connection, CIPHER)[0][0] != ""
        with closing(MySqlSource(connection)) as source:
            assert any("account pstt@%, TLS" in result.text for result in source.check())
    assert read_all(tls_server.connection(sslmode="disable"), CIPHER) == [("",)]


@pytest.mark.parametrize("mode", ["verify-ca", "verify-full"])
def test_certificate_of_an_unknown_authority_is_refused(
    tls_server: MySqlRig, certificates: Certificates, mode: str
) -> None:
    error = error_of(tls_server.connection(sslmode=mode, sslrootcert=certificates.other_ca_file))
    assert type(error) is ConfigError
    assert "certificate verify failed" in error.text
    assert "sslrootcert" in error.remedy


def test_the_host_of_the_certificate_counts_with_verify_full(tls_server: MySqlRig, certificates: Certificates) -> None:
    with MySqlRig(keystore=certificates.wrong_host) as other:
        error = error_of(other.connection(sslmode="verify-full", sslrootcert=certificates.ca_file))
        assert type(error) is ConfigError
        assert "not valid for '127.0.0.1'" in error.text
        assert read_all(other.connection(sslmode="verify-ca", sslrootcert=certificates.ca_file), "SELECT 1 AS n")


@pytest.mark.parametrize("mode", ["require", "verify-ca", "verify-full"])
def test_server_without_tls_is_refused_where_it_is_required(mariadb: MySqlRig, mode: str) -> None:
    error = error_of(mariadb.connection(sslmode=mode))
    assert type(error) is ConfigError
    assert "SSL is required but the server doesn't support it" in error.text


def test_a_missing_authority_is_a_problem_of_the_connection(tls_server: MySqlRig, tmp_path: Path) -> None:
    error = error_of(tls_server.connection(sslmode="verify-full", sslrootcert=tmp_path / "no-such-ca.pem"))
    assert type(error) is ConfigError
    assert "no-such-ca.pem" in error.text


# ── logins and rights ─────────────────────────────────────────────────────────────────────────


class ClearTextServer:
    """A server that asks for the password in clear text, and keeps what it receives."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.received = b""
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        capabilities = 0x8000 | 0x200 | 0x80000  # secure connection, protocol 4.1, plugins
        greeting = b"\x0a8.4.0\0" + struct.pack("<I", 7) + b"12345678\0" + struct.pack("<H", capabilities & 0xFFFF)
        greeting += b"\x2d" + struct.pack("<HH", 2, capabilities >> 16) + b"\x15" + bytes(10) + b"123456789012\0"
        greeting += b"mysql_native_password\0"
        with self._listener, self._listener.accept()[0] as client:
            client.sendall(struct.pack("<I", len(greeting))[:3] + b"\0" + greeting)
            self.received += client.recv(4096)
            asked = b"\xfemysql_clear_password\0"
            client.sendall(struct.pack("<I", len(asked))[:3] + b"\x02" + asked)
            while data := client.recv(4096):
                self.received += data

    def wait(self) -> None:
        self._thread.join(30)


def test_a_password_is_never_sent_in_clear_text_without_tls() -> None:
    server = ClearTextServer()
    given = DatabaseConnection("x", "mysql", host="127.0.0.1", port=server.port, database="d", username="u")
    error = error_of(DatabaseConnection(**{**vars_of(given), "password": Secret("geheim-4711")}))
    server.wait()
    assert type(error) is NotAuthorised
    assert "clear text" in error.text
    assert b"mysql" in server.received
    assert b"geheim" not in server.received


def vars_of(connection: DatabaseConnection) -> dict[str, Any]:
    return {name: getattr(connection, name) for name in connection.__dataclass_fields__}


@pytest.fixture(scope="module")
def rights(mariadb: MySqlRig) -> Iterator[MySqlRig]:
    for sql in (
        "CREATE TABLE seen (a int, b int)",
        "CREATE TABLE hidden (a int)",
        "CREATE DATABASE closed",
        "CREATE USER reader@'%' IDENTIFIED BY 'reader-4711'",
        f"GRANT SELECT (a) ON {mariadb.database}.seen TO reader@'%'",
        "CREATE USER locked@'%' IDENTIFIED BY 'locked-4711' ACCOUNT LOCK",
    ):
        mariadb.execute(sql)
    yield mariadb
    for sql in ("DROP USER reader@'%', locked@'%'", "DROP DATABASE closed", "DROP TABLE seen, hidden"):
        mariadb.execute(sql)


def test_what_the_account_may_not_read_is_not_authorised(rights: MySqlRig) -> None:
    reader = rights.connection(username="reader", password=Secret("reader-4711"))
    assert read_all(reader, "SELECT a FROM seen") == []
    for sql in ("SELECT b FROM seen", "SELECT a FROM hidden", "SELECT a FROM closed.t"):
        error = error_of(reader, sql)
        assert type(error) is NotAuthorised, sql
        assert "SELECT right" in error.remedy
    with closing(MySqlSource(reader)) as source:
        assert {result.status for result in source.check()} == {"pass"}
    with closing(MySqlSource(rights.connection())) as source:
        assert any("may ALTER, CREATE, DELETE" in result.text for result in source.check())


def test_logins_that_fail_say_why(rights: MySqlRig) -> None:
    locked = error_of(rights.connection(username="locked", password=Secret("locked-4711")))
    assert type(locked) is NotAuthorised
    assert "locked" in locked.text
    nobody = error_of(rights.connection(username="nobody", password=None))
    assert type(nobody) is NotAuthorised
    missing = error_of(rights.connection(database="no_such_database"))
    assert type(missing) is ConfigError
    assert "correct database" in missing.remedy
    reader = {"username": "reader", "password": Secret("reader-4711")}
    closed = error_of(rights.connection(database="closed", **reader))
    assert type(closed) is ConfigError


# ── errors of the server ──────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("args", "reading", "wanted"),
    [
        ((1205, "Lock wait timeout exceeded"), False, SourceUnavailable),
        ((1213, "Deadlock found"), True, QueryFailed),
        ((1040, "Too many connections"), False, SourceUnavailable),
        ((1129, "Host is blocked"), False, SourceUnavailable),
        ((1130, "Host is not allowed to connect"), False, NotAuthorised),
        ((1862, "Your password has expired"), False, NotAuthorised),
        ((1412, "Table definition has changed"), False, SourceUnavailable),
        ((1054, "Unknown column"), False, QueryFailed),
        ((1146, "Table doesn't exist"), False, QueryFailed),
        ((1142, "SELECT command denied"), False, NotAuthorised),
        ((1927, "Connection was killed"), False, SourceUnavailable),
        ((2013, "Lost connection"), True, QueryFailed),
        ((0, ""), False, SourceUnavailable),
        ((1317, "Query execution was interrupted"), False, QueryFailed),
    ],
)
def test_numbers_of_errors_say_what_to_do(args: tuple[int, str], reading: bool, wanted: type[PsttError]) -> None:
    source = MySqlSource(DatabaseConnection("x", "mysql", host="h", database="d", username="u"))
    error = source.error(pymysql.OperationalError(*args), reading=reading)
    assert type(error) is wanted
    assert args[1] in error.text


def test_what_answers_is_no_mysql() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]

        def greet() -> None:
            with listener.accept()[0] as client:
                client.sendall(b"\x01\x00\x00\x00\x0a")

        thread = threading.Thread(target=greet)
        thread.start()
        given = DatabaseConnection("x", "mysql", host="127.0.0.1", port=port, database="d", username="u")
        error = error_of(given)
        thread.join()
    assert type(error) is SourceUnavailable


# ── binds ─────────────────────────────────────────────────────────────────────────────────────

FORMS = [
    "SELECT id FROM parcel WHERE day = '&D' ORDER BY id",
    "SELECT id FROM parcel WHERE day = DATE '&D' ORDER BY id",
    "SELECT id FROM parcel WHERE at >= '&D 00:00:00' AND at < TIMESTAMP '&D 23:59:59' ORDER BY id",
    "SELECT id FROM parcel WHERE day >= DATE '&D' - INTERVAL '&N' DAY ORDER BY id",
    "SELECT id FROM parcel WHERE day >= DATE_SUB('&D', INTERVAL 1 DAY) ORDER BY id",
    "SELECT id FROM parcel WHERE name LIKE '%&X%' OR name = '&X.\\'s' OR name = \"&X.'s\" ORDER BY id",
    "SELECT id FROM parcel WHERE name LIKE 'a\\_%' OR name LIKE '100\\%%&X%' ORDER BY id",
    "SELECT id FROM parcel WHERE code IN ('A', '&X') AND name <> '&X' ORDER BY id",
    "SELECT '&X', 'a&X.b', \"&X&D\", 'a\\tb&X\\\\', N'&X', 'it''s &X'",
    "SELECT '100%', '&X', 5 % 3, 5 MOD 3, 5--3 # %s &X",
    "SELECT CONCAT('&X', 'a'), CONCAT_WS('-', '&X', '&D'), COUNT('&X')",
    "SELECT CASE '&X' WHEN 'it' THEN 1 ELSE 2 END, IF('&X' = 'it', '&D', NULL)",
    "SELECT &N, &N + 1, &P * 2, -&N, ROUND(&P, 0), SUBSTR('abc', &N), &N * &N, &N & 3",
    "SELECT id FROM parcel ORDER BY id LIMIT &N OFFSET 1",
    "SELECT id FROM parcel WHERE price > &P AND id IN (&N, 3) ORDER BY id",
    "SELECT &COL FROM parcel ORDER BY &COL DESC LIMIT 1",
    "SELECT JSON_EXTRACT('{\"k\": &N}', '$.k'), JSON_OBJECT('k', '&X')",
    "WITH x AS (SELECT '&X' AS k) SELECT k, LENGTH(k) FROM x WHERE k = 'it' UNION ALL SELECT '&D', &N",
    "VALUES ('&X', &N)",
]


@pytest.fixture
def cursor(mariadb: MySqlRig) -> Iterator[Any]:
    with closing(mariadb.connect()) as connection, connection.cursor() as made:
        made.execute(
            "CREATE TEMPORARY TABLE parcel (id int, name varchar(50), code varchar(5), day date, at datetime(6), price decimal(9,2))"
        )
        for values in (
            (1, "it's", "A", "2026-01-17", "2026-01-17 07:30:00", 1.25),
            (2, "100% it", "it", "2026-01-16", "2026-01-16 08:00:00", 9.99),
            (3, "a_item", "it", "2026-02-01", "2026-02-01 00:00:00", 0),
        ):
            made.execute("INSERT INTO parcel VALUES (%s, %s, %s, %s, %s, %s)", values)
        yield made


def rows_of(cursor: Any, text: str, values: dict[str, str]) -> list[tuple[Any, ...]]:
    query = parse(DEFINES + text, name="q.sql", dialect=find_dialect("mysql")).bind(values)
    (step,) = query.steps
    cursor.execute(step.sql, dict(step.binds) or None)
    return list(cursor.fetchall())


@pytest.mark.parametrize("text", FORMS)
def test_form_gives_the_same_rows_as_pasted_text(cursor: Any, text: str) -> None:
    cursor.execute(pasted(text, GIVEN))
    expected = list(cursor.fetchall())
    assert rows_of(cursor, text, GIVEN) == expected


@pytest.mark.parametrize("text", LIST_FORMS)
def test_members_of_a_list_are_found(cursor: Any, text: str) -> None:
    class Positional:
        """`listed_rows` passes binds as they are; an empty mapping would turn `%` into a bind."""

        def execute(self, sql: str, binds: Any = None) -> None:
            cursor.execute(sql, dict(binds) if binds else None)

        def fetchall(self) -> list[tuple[Any, ...]]:
            return list(cursor.fetchall())

    assert listed_rows(Positional(), text, "mysql")


@pytest.mark.parametrize("value", [*HOSTILE, "\0", "\x1a", "a\\", "\\'; DROP TABLE parcel; -- "])
def test_hostile_values_come_back(cursor: Any, value: str) -> None:
    text = "SELECT '&X', 'a&X.b', 'it\\'s &X', \"&X\", CONCAT('&X', ''), '%'"
    assert rows_of(cursor, text, {"X": value}) == [(value, f"a{value}b", f"it's {value}", value, value, "%")]


def test_a_list_takes_hostile_values(cursor: Any) -> None:
    text = LIST_DEFINES + "SELECT COUNT(*) FROM parcel WHERE '%' = '%' AND name NOT IN ('&STATI')"
    query = parse(text, name="q", dialect=find_dialect("mysql")).bind({"STATI": join(HOSTILE), "NAMES": "x"})
    cursor.execute(query.steps[0].sql, dict(query.steps[0].binds))
    assert cursor.fetchall() == ((3,),)


def test_text_without_binds_keeps_its_percent_signs(mariadb: MySqlRig) -> None:
    assert read_all(mariadb.connection(), "SELECT '100%' AS a, '%s' AS b, 7 % 4 AS c -- %s") == [("100%", "%s", 3)]


# ── parts ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "expression",
    [
        "seq",
        "CAST(seq * 4611686018427387 AS unsigned)",
        "CAST(seq AS signed) - 500",
        "CAST(seq / 7 AS decimal(40,30))",
        "seq / 7e0",
        "DATE('2026-01-01') + INTERVAL seq DAY",
        "TIMESTAMP('2026-01-01') + INTERVAL seq * 333333 MICROSECOND",
        "SEC_TO_TIME(seq * 80 + 0.125)",
    ],
)
def test_ranges_have_each_row_once_and_are_even(mariadb: MySqlRig, expression: str) -> None:
    sql = f"SELECT seq AS id, {expression} AS `split by` FROM seq_1_to_1000 -- all\n"
    split, rows = split_and_read(mariadb.connection(), [Step(sql)], Partitions("split by", 4))
    assert rows == [250] * 4
    assert any("not read in one snapshot" in warning for warning in split.warnings)


def test_hash_splits_texts_and_binds_stay(mariadb: MySqlRig) -> None:
    sql = "SELECT seq AS id, CONCAT('p', seq) AS name FROM seq_1_to_1000 WHERE seq <= %(P_N)s AND '5%%' = '5%%'"
    _, rows = split_and_read(mariadb.connection(), [Step(sql, {"P_N": 900})], Partitions("name", 3, "hash"))
    assert sum(rows) == 900
    assert all(count > 200 for count in rows)
