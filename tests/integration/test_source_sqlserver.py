"""How the SQL Server source behaves against a server that speaks TDS: connection string, session, count, cancel, errors.

The test server (Babelfish) does not check for a cancel while it computes, so a proxy inserts the response of a SQL
Server; the driver, and the bytes that it sends, are the real ones.
"""

from __future__ import annotations

import itertools
import secrets
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import date, datetime
from typing import Any

import pyodbc
import pytest

from core.errors import ConfigError, NotAuthorised, PsttError, QueryFailed, RunCancelled, SourceUnavailable
from core.model.connection import DatabaseConnection, Secret
from core.model.query import Step
from core.sources import sqlserver as sqlserver_module
from core.sources.sqlserver import SqlServerSource
from tests.rigs.proxy import Proxy
from tests.rigs.sqlserver import SLOW_COUNT, SqlServerRig, number_table

PASSWORD = "s3cr3t;{pä}'--"
MANY_ROWS = f"SELECT n, REPLICATE('x', 200) AS filling FROM {number_table(300_000)}"
PATIENCE_S = 15.0


def read(rig: SqlServerRig, sql: str, binds: Sequence[Any] = (), *, count: bool = False, **changes: Any) -> Any:
    """(counted, rows) of one statement."""
    source = SqlServerSource(rig.connection(**changes))
    with closing(source), source.read([Step(sql, tuple(binds))], count=count) as reading:
        return reading.counted, [tuple(row) for rows in reading for row in rows.rows]


def failure(rig: SqlServerRig, sql: str = "SELECT 1 AS n", **changes: Any) -> PsttError:
    with pytest.raises(PsttError) as caught:
        read(rig, sql, **changes)
    link: BaseException | None = caught.value
    while link is not None:
        assert PASSWORD not in f"{link} {link!r} {link.args}"
        link = link.__cause__ or link.__context__
    return caught.value


# ── the connection string ─────────────────────────────────────────────────────────────────────


@pytest.fixture
def login(sqlserver: SqlServerRig) -> Iterator[Any]:
    """Makes a login with that password; returns its name."""
    made = []
    with closing(sqlserver.connect()) as connection, closing(connection.cursor()) as cursor:

        def make(password: str) -> str:
            name = f"u{secrets.token_hex(4)}"
            quoted = password.replace("'", "''")
            cursor.execute(f"CREATE LOGIN {name} WITH PASSWORD = N'{quoted}'")
            made.append(name)
            return name

        yield make
        for name in made:
            for _ in range(50):  # the server takes a moment to see that the session is gone
                try:
                    cursor.execute(f"DROP LOGIN {name}")
                    break
                except pyodbc.Error:
                    time.sleep(0.1)


@pytest.mark.parametrize("password", [PASSWORD, ";{'}", "{a}", "a}}b", "a=b; c", "}", ' "quoted" ', "è€😀", "a;PWD=b"])
def test_password_with_every_sign_of_an_odbc_string_logs_in(sqlserver: SqlServerRig, login: Any, password: str) -> None:
    counted, rows = read(
        sqlserver, "SELECT SUSER_SNAME() AS me", username=(name := login(password)), password=Secret(password)
    )
    assert (counted, rows) == (None, [(name,)])


def test_value_that_freetds_cannot_take_is_named_without_being_shown(sqlserver: SqlServerRig) -> None:
    error = failure(sqlserver, password=Secret(f"{PASSWORD}}};x"))
    assert type(error) is ConfigError
    assert "FreeTDS takes no value with }; in it" in error.text


def attributes(driver: str, **changes: Any) -> dict[str, str]:
    values: dict[str, Any] = {"host": "db.example.com", "database": "BOSC", "username": "pstt", "password": Secret("p")}
    source = SqlServerSource(DatabaseConnection("BOSC", "sqlserver", **{**values, **changes}))
    return source._attributes(driver)


MICROSOFT = "ODBC Driver 18 for SQL Server"


@pytest.mark.parametrize(
    ("sslmode", "encrypt", "trust"),
    [
        ("", "yes", "no"),
        ("disable", "no", "yes"),
        ("prefer", "yes", "yes"),
        ("require", "yes", "yes"),
        ("verify-ca", "yes", "no"),
        ("verify-full", "yes", "no"),
    ],
)
def test_words_of_sslmode_become_those_of_microsofts_driver(sslmode: str, encrypt: str, trust: str) -> None:
    made = attributes(MICROSOFT, sslmode=sslmode)
    assert (made["Encrypt"], made["TrustServerCertificate"]) == (encrypt, trust)
    assert made["SERVER"] == "db.example.com,1433"


@pytest.mark.parametrize(
    ("sslmode", "encryption"), [("", "request"), ("disable", "off"), ("prefer", "request"), ("require", "require")]
)
def test_words_of_sslmode_become_those_of_freetds(sslmode: str, encryption: str) -> None:
    assert attributes("FreeTDS", sslmode=sslmode)["Encryption"] == encryption


@pytest.mark.parametrize("sslmode", ["verify-ca", "verify-full"])
def test_freetds_is_refused_where_the_certificate_is_to_be_verified(sslmode: str) -> None:
    with pytest.raises(ConfigError, match="FreeTDS does not check certificates"):
        attributes("FreeTDS", sslmode=sslmode)


def test_own_authority_is_refused_and_not_ignored() -> None:
    from pathlib import Path

    with pytest.raises(ConfigError, match="take no sslrootcert"):
        attributes(MICROSOFT, sslrootcert=Path("ca.pem"))


def test_value_for_microsofts_driver_has_its_closing_brace_doubled() -> None:
    source = SqlServerSource(DatabaseConnection("B", "sqlserver", host="h", username="u", password=Secret(PASSWORD)))
    made = source._connection_string(MICROSOFT)
    assert "PWD={s3cr3t;{pä}}'--};" in made
    assert made.startswith("DRIVER={ODBC Driver 18 for SQL Server};")


@pytest.mark.parametrize("sslmode", ["disable", "prefer", "require"])
def test_server_is_reached_with_and_without_tls(sqlserver: SqlServerRig, sslmode: str) -> None:
    assert read(sqlserver, "SELECT 1 AS n", sslmode=sslmode) == (None, [(1,)])


# ── which driver ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("installed", "chosen"),
    [
        (["FreeTDS"], "FreeTDS"),
        (["FreeTDS", MICROSOFT, "ODBC Driver 9 for SQL Server", "SQLite3"], MICROSOFT),
        (["ODBC Driver 17 for SQL Server", MICROSOFT], MICROSOFT),
    ],
)
def test_newest_driver_of_microsoft_is_taken_else_freetds(
    monkeypatch: pytest.MonkeyPatch, installed: list[str], chosen: str
) -> None:
    monkeypatch.setattr(pyodbc, "drivers", lambda: installed)
    assert SqlServerSource(DatabaseConnection("B", "sqlserver"))._newest_driver() == chosen


def test_missing_driver_names_what_to_install_on_windows_and_debian(
    sqlserver: SqlServerRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pyodbc, "drivers", lambda: ["SQLite3"])
    for error in (failure(sqlserver, driver=""), failure(sqlserver, driver="ODBC Driver 99 for SQL Server")):
        assert type(error) is ConfigError
        assert "ODBC Driver 18 for SQL Server" in error.remedy
        assert "apt-get install unixodbc tdsodbc" in error.remedy


# ── count and binds ───────────────────────────────────────────────────────────────────────────

LETTERS = "(SELECT 1 AS n, 'a' AS l UNION ALL SELECT 2, 'b' UNION ALL SELECT 3, 'c') q"
COUNTED: list[tuple[str, tuple[Any, ...], int]] = [
    (f"SELECT n FROM {LETTERS}", (), 3),
    (f"SELECT n FROM {LETTERS} ORDER BY n -- at the end", (), 3),
    (f"SELECT n FROM {LETTERS} ORDER  BY\n n DESC /* (SELECT */", (), 3),
    (f"SELECT n FROM {LETTERS} WHERE n < ? ORDER BY CASE WHEN l = ? THEN 0 ELSE n END", (3, "b"), 2),
    (f"WITH x AS (SELECT n FROM {LETTERS} WHERE n > ?), y AS (SELECT n FROM x) SELECT n FROM y ORDER BY n", (1,), 2),
    (f"SELECT TOP 2 n FROM {LETTERS} ORDER BY n DESC", (), 2),
    (f"SELECT n FROM {LETTERS} ORDER BY n OFFSET 1 ROWS FETCH NEXT 5 ROWS ONLY", (), 2),
    ("SELECT 1 AS n UNION SELECT 2 AS n ORDER BY n", (), 2),
    (f"SELECT TOP 1 n FROM {LETTERS} UNION ALL SELECT 9 ORDER BY n", (), 2),
    (f"SELECT n, ROW_NUMBER() OVER (ORDER BY l DESC) AS r FROM {LETTERS} ORDER BY n OPTION (MAXDOP 1)", (), 3),
    (f"SELECT n AS [order by], l AS [top], 'ORDER BY' AS t FROM {LETTERS} ORDER BY n", (), 3),
]


@pytest.mark.parametrize(("sql", "binds", "rows"), COUNTED, ids=[sql[:60] for sql, *_ in COUNTED])
def test_count_of_a_statement_is_the_number_of_its_rows(
    sqlserver: SqlServerRig, sql: str, binds: tuple[Any, ...], rows: int
) -> None:
    counted, found = read(sqlserver, sql, binds, count=True)
    assert counted == len(found) == rows


@pytest.mark.parametrize("sql", [sql for sql, *_ in COUNTED[1:4]] + [COUNTED[7][0], COUNTED[8][0], COUNTED[10][0]])
def test_counted_statement_has_no_outer_order_which_sql_server_refuses(sql: str) -> None:
    counted, _ = sqlserver_module._counting(sql)
    assert "ORDER BY" not in counted.upper().replace("[ORDER BY]", "").replace("'ORDER BY'", "").replace(
        "ORDER  BY", "ORDER BY"
    )


def test_dates_and_any_unicode_are_bound_and_compared(sqlserver: SqlServerRig) -> None:
    table = f"s{secrets.token_hex(4)}"
    moment = datetime(2026, 1, 16, 11, 50, 32, 665000)  # noqa: DTZ001
    with closing(sqlserver.connect()) as connection, closing(connection.cursor()) as cursor:
        cursor.execute(f"CREATE TABLE {table} (d date, m datetime2, t nvarchar(20))")
        try:
            cursor.execute(f"INSERT INTO {table} VALUES ('2026-01-16', '2026-01-16T11:50:32.665', N'価è😀')")
            sql = f"SELECT t FROM {table} WHERE d = ? AND m = ? AND t = ?"
            assert read(sqlserver, sql, (date(2026, 1, 16), moment, "価è😀"))[1] == [("価è😀",)]
            assert read(sqlserver, sql, (date(2026, 1, 15), moment, "価è😀"))[1] == []
        finally:
            cursor.execute(f"DROP TABLE {table}")


# ── time-outs, cancel, losses ─────────────────────────────────────────────────────────────────


def test_statement_timeout_ends_the_query_and_names_the_setting(sqlserver: SqlServerRig) -> None:
    error = failure(sqlserver, SLOW_COUNT, statement_timeout_s=1)
    assert type(error) is QueryFailed
    assert "statement_timeout_s = 1 s" in error.text


def test_server_that_accepts_and_is_silent_is_given_up_after_the_connect_timeout(sqlserver: SqlServerRig) -> None:
    with socket.create_server(("127.0.0.1", 0)) as hole:
        error = failure(sqlserver, port=hole.getsockname()[1], connect_timeout_s=1)
    assert type(error) is SourceUnavailable
    assert "no answer in connect_timeout_s = 1 s" in error.text


ATTENTION = b"\x06"
ATTENTION_ANSWERED = b"\x04\x01\x00\x15\x00\x00\x01\x00" + b"\xfd\x20\x00\x00\x00" + bytes(8)
"""A packet with the one token DONE, its status saying that the attention was taken (MS-TDS 2.2.7.6)."""


@pytest.mark.parametrize("count", [False, True])
def test_cancel_sends_tds_attention_and_its_answer_ends_the_read(sqlserver: SqlServerRig, count: bool) -> None:
    attentions = []

    def seen(data: bytes) -> bytes | None:
        if data[:1] != ATTENTION:
            return None
        attentions.append(data)
        return ATTENTION_ANSWERED

    with Proxy(sqlserver.host, sqlserver.port, seen=seen) as way:
        source = SqlServerSource(sqlserver.connection(host=way.host, port=way.port, sslmode="disable"))
        timer = threading.Timer(1.5, source.cancel)  # a login takes half a second here
        timer.start()
        began = time.monotonic()
        with closing(source), pytest.raises(RunCancelled), source.read([Step(SLOW_COUNT)], count=count):
            pass
        timer.join()
    assert attentions
    assert time.monotonic() - began < PATIENCE_S


def test_cancel_amid_the_rows_is_never_a_complete_result(sqlserver: SqlServerRig) -> None:
    source = SqlServerSource(sqlserver.connection())
    seen = []

    def consume() -> None:
        with source.read([Step(MANY_ROWS)], fetch_rows=1000) as reading:
            for rows in reading:
                seen.append(len(rows.rows))
                if len(seen) == 3:
                    source.cancel()

    with closing(source), pytest.raises(RunCancelled):
        consume()
    assert sum(seen) < 300_000


@pytest.mark.parametrize("reset", [False, True])
def test_connection_lost_before_the_first_row_is_retriable(sqlserver: SqlServerRig, reset: bool) -> None:
    with Proxy(sqlserver.host, sqlserver.port) as way:
        timer = threading.Timer(1.5, lambda: way.cut(reset=reset))
        timer.start()
        error = failure(sqlserver, SLOW_COUNT, host=way.host, port=way.port)
        timer.join()
    assert type(error) is SourceUnavailable
    assert error.is_retriable


def test_a_login_that_ends_in_an_unknown_error_is_retriable(
    quiet: SqlServerSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "[HY000] [FreeTDS][SQL Server]Could not change transaction status (0) (SQLSetConnectAttr)"

    def cut(*_: object, **__: object) -> None:
        raise pyodbc.Error("HY000", text)

    monkeypatch.setattr(pyodbc, "connect", cut)  # what FreeTDS reports depends on the moment
    with pytest.raises(SourceUnavailable, match="cannot reach database") as raised, quiet.read([Step("SELECT 1 AS n")]):
        pass
    assert raised.value.is_retriable
    assert "Could not change transaction status" in raised.value.text


@pytest.mark.parametrize("reset", [False, True])
def test_connection_lost_after_the_first_row_fails_the_read_for_good(sqlserver: SqlServerRig, reset: bool) -> None:
    seen = []
    with Proxy(sqlserver.host, sqlserver.port) as way:
        source = SqlServerSource(sqlserver.connection(host=way.host, port=way.port))

        def consume() -> None:
            with source.read([Step(MANY_ROWS)], fetch_rows=1000) as reading:
                for rows in reading:
                    seen.append(len(rows.rows))
                    if len(seen) == 2:
                        way.cut(reset=reset)

        with closing(source), pytest.raises(QueryFailed, match="was lost in the middle of the rows") as caught:
            consume()
    assert not caught.value.is_retriable
    assert 2000 <= sum(seen) < 300_000


# ── errors as a person meets them ─────────────────────────────────────────────────────────────


def test_wrong_password_is_refused_and_not_retriable(sqlserver: SqlServerRig) -> None:
    error = failure(sqlserver, password=Secret(PASSWORD))
    assert type(error) is NotAuthorised
    assert "(18456)" in error.text


def test_unknown_database_names_the_setting(sqlserver: SqlServerRig) -> None:
    error = failure(sqlserver, database="nowhere")
    assert type(error) is ConfigError
    assert "correct database in connections.json" in error.remedy
    assert "nowhere" in error.text


@pytest.mark.parametrize("change", [{"port": 1}, {"host": "nosuchhost.invalid"}])
def test_server_that_cannot_be_reached_is_retriable(sqlserver: SqlServerRig, change: dict[str, Any]) -> None:
    error = failure(sqlserver, **change)
    assert type(error) is SourceUnavailable
    assert error.exit_code == 3


@pytest.mark.parametrize(
    ("sql", "words"), [("SELECT n FROM nowhere", '"nowhere" does not exist'), ("SELECT 1/0 AS n", "(8134)")]
)
def test_bad_sql_is_told_in_the_servers_words_without_the_layers_of_drivers(
    sqlserver: SqlServerRig, sql: str, words: str
) -> None:
    error = failure(sqlserver, sql)
    assert type(error) is QueryFailed
    assert words in error.text
    assert "[FreeTDS]" not in error.text
    assert "SQLExec" not in error.text


# ── errors one by one ─────────────────────────────────────────────────────────────────────────


@pytest.fixture
def quiet() -> Iterator[SqlServerSource]:
    """A source whose statement is running, without a server."""
    source = SqlServerSource(DatabaseConnection("BOSC", "sqlserver", host="db.example.com", username="pstt"))
    source._active = object()
    yield source
    source._active = None


def made(state: str = "42000", number: int = 0, text: str = "what it said") -> pyodbc.Error:
    return pyodbc.Error(state, f"[{state}] [Microsoft][{MICROSOFT}][SQL Server]{text} ({number}) (SQLExecDirectW)")


NUMBERED: dict[str, tuple[set[int], type[PsttError], type[PsttError]]] = {
    "REFUSED": (sqlserver_module.REFUSED, NotAuthorised, NotAuthorised),
    "FORBIDDEN": (sqlserver_module.FORBIDDEN, NotAuthorised, NotAuthorised),
    "CONFLICT": (sqlserver_module.CONFLICT, SourceUnavailable, QueryFailed),
}
STATES: dict[str, tuple[type[PsttError], type[PsttError]]] = {
    "28000": (NotAuthorised, NotAuthorised),
    "40001": (SourceUnavailable, QueryFailed),
    **dict.fromkeys(sqlserver_module.AWAY_STATES, (SourceUnavailable, QueryFailed)),
    sqlserver_module.TIMED_OUT: (SourceUnavailable, QueryFailed),
    sqlserver_module.CANCELLED: (QueryFailed, QueryFailed),
    "IM002": (ConfigError, ConfigError),
    "IM003": (ConfigError, ConfigError),
}


def test_no_number_has_two_meanings() -> None:
    groups = [*(codes for codes, *_ in NUMBERED.values()), sqlserver_module.NO_DATABASE]
    assert all(not one & other for one, other in itertools.combinations(groups, 2))


@pytest.mark.parametrize("name", NUMBERED)
def test_number_of_the_server_has_its_class_before_and_after_the_first_row(quiet: SqlServerSource, name: str) -> None:
    codes, before, after = NUMBERED[name]
    assert codes
    for code in codes:
        assert type(quiet.error(made(number=code), reading=False)) is before, code
        assert type(quiet.error(made(number=code), reading=True)) is after, code


@pytest.mark.parametrize("state", STATES)
def test_sqlstate_has_its_class_before_and_after_the_first_row(quiet: SqlServerSource, state: str) -> None:
    before, after = STATES[state]
    assert type(quiet.error(made(state), reading=False)) is before
    assert type(quiet.error(made(state), reading=True)) is after


STATEMENT = "01 07 21 22 23 24 25 34 3C 3D 3F 42 44 HY".split()
"""Classes of SQLSTATE (ODBC, appendix A) that are of the statement, its values or a defect."""
SORTED = "08 28 40 IM".split()
"""Classes in which each state has to be decided; those in STATES are."""
ODBC_STATES = (
    "01000 01001 01002 01003 01004 01006 01007 01S00 01S01 01S02 01S06 01S07 01S08 01S09 07001 07002 07005 07006 07007"
    " 07009 07S01 08001 08002 08003 08004 08007 08S01 21S01 21S02 22001 22002 22003 22007 22008 22012 22015 22018 22019"
    " 22025 22026 23000 24000 25000 25S01 25S02 25S03 28000 34000 3C000 3D000 3F000 40001 40002 40003 42000 42S01 42S02"
    " 42S11 42S12 42S21 42S22 44000 HY000 HY001 HY003 HY004 HY007 HY008 HY009 HY010 HY011 HY012 HY013 HY014 HY015 HY016"
    " HY017 HY018 HY019 HY020 HY021 HY024 HY090 HY091 HY092 HY095 HY096 HY097 HY098 HY099 HY100 HY101 HY103 HY104 HY105"
    " HY106 HY107 HY109 HY110 HY111 HYC00 HYT00 HYT01 IM001 IM002 IM003 IM004 IM005 IM006 IM007 IM008 IM009 IM010 IM011"
    " IM012 IM013 IM014 IM015"
).split()
TO_THE_STATEMENT = (
    "08002 08003 40002 40003 IM001 IM004 IM005 IM006 IM007 IM008 IM009 IM010 IM011 IM012 IM013 IM014 IM015".split()
)
"""Of the sorted classes, those reported with the driver's text: misuse, or a driver manager out of order."""


@pytest.mark.parametrize("state", ODBC_STATES)
def test_every_state_of_odbc_is_sorted(quiet: SqlServerSource, state: str) -> None:
    assert state[:2] in STATEMENT + SORTED
    if state in STATES:
        return
    assert state[:2] in STATEMENT or state in TO_THE_STATEMENT
    error = quiet.error(made(state), reading=False)
    assert type(error) is QueryFailed
    assert "what it said" in error.text


@pytest.mark.parametrize("number", sorted(sqlserver_module.NO_DATABASE))
def test_database_that_cannot_be_opened_is_a_setting_at_login_only(quiet: SqlServerSource, number: int) -> None:
    assert type(quiet.error(made(number=number), reading=False)) is QueryFailed
    quiet._active = None
    assert type(quiet.error(made(number=number), reading=False)) is ConfigError


@pytest.mark.parametrize("text", ["column varchar(229) is wide", "see (18456) below", "(1205)-lock"])
def test_number_inside_the_servers_words_is_not_taken_for_its_code(quiet: SqlServerSource, text: str) -> None:
    assert type(quiet.error(made(number=207, text=text), reading=False)) is QueryFailed


def test_freetds_unknown_error_is_a_connection_that_broke(quiet: SqlServerSource) -> None:
    error = pyodbc.Error("HY000", "[HY000] [FreeTDS][SQL Server]Unknown error (0) (SQLFetch)")
    assert type(quiet.error(error, reading=False)) is SourceUnavailable
    assert type(quiet.error(error, reading=True)) is QueryFailed
    assert "broke" in quiet.error(error, reading=True).text


def test_number_of_a_second_message_counts_too(quiet: SqlServerSource) -> None:
    error = pyodbc.Error(
        "42000", "[42000] [x][SQL Server]first (0) (SQLDriverConnect); [42000] [x][SQL Server]no (229)"
    )
    assert type(quiet.error(error, reading=False)) is NotAuthorised


@pytest.mark.parametrize(
    "text",
    [
        "SSL Provider: The certificate chain was issued by an authority that is not trusted.",
        "SSL Provider: [error:0A000086:SSL routines::certificate verify failed:self-signed certificate]",
    ],
)
def test_certificate_that_is_not_trusted_is_a_setting_and_not_retriable(quiet: SqlServerSource, text: str) -> None:
    quiet._active = None
    error = quiet.error(made("08001", -2146893019, text), reading=False)
    assert type(error) is ConfigError
    assert "TLS failed" in error.text
    assert "sslmode" in error.remedy


def test_text_that_is_half_a_character_fails_the_read_in_words(quiet: SqlServerSource) -> None:
    error = quiet.error(UnicodeDecodeError("utf-16-le", b"secret value", 0, 2, "illegal encoding"), reading=True)
    assert type(error) is QueryFailed
    assert "text that is not valid Unicode" in error.text
    assert "secret value" not in str(error)
