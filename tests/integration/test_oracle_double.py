"""The double, proved with the real python-oracledb driver in thin mode."""

import asyncio
import datetime
import gc
import itertools
import math
import resource
import socket
import subprocess
import sys
import threading
import time
from decimal import Decimal

import oracledb
import pytest

from oracle_double import Column, Drop, Hang, OracleDouble, OracleError, Wire

USER = {"user": "pstt", "password": "pw"}
MANY = 1_000_000


@pytest.fixture
def db():
    with OracleDouble() as double:
        yield double
        assert double.failures == []


@pytest.fixture
def conn(db):
    connection = oracledb.connect(**USER, dsn=db.dsn)
    yield connection
    try:
        connection.close()
    except oracledb.Error:
        pass


@pytest.fixture
def decimals(monkeypatch):
    monkeypatch.setattr(oracledb.defaults, "fetch_decimals", True)


@pytest.fixture
def no_lobs(monkeypatch):
    monkeypatch.setattr(oracledb.defaults, "fetch_lobs", False)


def fetch_one_column(db, conn, column_type, given, **kwargs):
    """What arrives for values of one column, NULL included."""
    db.on("from t$", [Column("V", column_type, **kwargs)], [(value,) for value in given] + [(None,)])
    rows = conn.cursor().execute("select v from t").fetchall()
    assert rows[-1] == (None,)
    return [row[0] for row in rows[:-1]]


def error_of(raised):
    return raised.value.args[0]


# -- connecting -----------------------------------------------------------------


def test_connect_and_close(db):
    with oracledb.connect(**USER, dsn=db.dsn) as conn:
        assert conn.thin
        assert conn.version == "19.3.0.0.0"
        conn.ping()
        conn.commit()
        conn.rollback()
    assert db.kinds() == ["connect", "login", "ping", "commit", "rollback", "logoff"]
    assert db.counts["connections"] == 1
    login = db.log[1]
    assert login.info["user"] == "pstt"
    assert "python-oracledb" in login.info["SESSION_CLIENT_DRIVER_NAME"]
    assert login.sql.startswith("ALTER SESSION SET TIME_ZONE='")


@pytest.mark.parametrize("user, password", [("pstt", "wrong"), ("nobody", "pw"), ("pstt", "p"), ("pstt", "pw" * 20)])
def test_wrong_password(db, user, password):
    with pytest.raises(oracledb.DatabaseError) as raised:
        oracledb.connect(user=user, password=password, dsn=db.dsn)
    error = error_of(raised)
    assert (error.code, error.full_code) == (1017, "ORA-01017")
    assert type(raised.value) is oracledb.DatabaseError
    assert not error.isrecoverable
    assert "denied" in db.kinds() and "login" not in db.kinds()


@pytest.mark.parametrize("password", ["x", "sixteen-chars-ok", "pä§§wörd" * 4])
def test_odd_passwords(password):
    with OracleDouble(users={"a": password}) as db:
        oracledb.connect(user="A", password=password, dsn=db.dsn).close()


def test_unknown_service(db):
    with pytest.raises(oracledb.OperationalError) as raised:
        oracledb.connect(**USER, dsn=f"{db.host}:{db.port}/OTHER")
    assert error_of(raised).full_code == "DPY-6005"
    assert "DPY-6001" in str(raised.value)  # where ORA-12514 ends up
    assert "refused" in db.kinds()


def test_nothing_listens():
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with pytest.raises(oracledb.OperationalError) as raised:
        oracledb.connect(**USER, dsn=f"127.0.0.1:{port}/DOUBLE")
    assert error_of(raised).full_code == "DPY-6005"
    assert not error_of(raised).isrecoverable


@pytest.mark.parametrize("code", [12514, 12516, 12528])
def test_listener_refuses(db, code):
    db.listener_error = code
    with pytest.raises(oracledb.OperationalError) as raised:
        oracledb.connect(**USER, dsn=db.dsn)
    error = error_of(raised)
    assert error.full_code == "DPY-6005" and not error.isrecoverable
    assert ("DPY-6001" if code == 12514 else f"ORA-{code}") in error.message


@pytest.mark.parametrize("code", [28000, 28001, 1045])
def test_login_error(db, code):
    db.login_error = (code, "not today")
    with pytest.raises(oracledb.DatabaseError) as raised:
        oracledb.connect(**USER, dsn=db.dsn)
    assert error_of(raised).full_code == f"ORA-{code:05}"
    db.login_error = None
    oracledb.connect(**USER, dsn=db.dsn).close()


def test_long_connect_data(db):
    with oracledb.connect(**USER, dsn=db.dsn, program="p" * 500) as conn:
        conn.ping()
    assert "p" * 500 in db.log[0].info["data"]


@pytest.mark.parametrize("sdu", [512, 8192, 65535, 2097152])
def test_sdu(db, sdu):
    text = "x" * 100_000
    db.on("from t where", [("V", "LONG")], [(text,)] * 3)
    dsn = (
        f"(DESCRIPTION=(SDU={sdu})(ADDRESS=(PROTOCOL=tcp)(HOST={db.host})"
        f"(PORT={db.port}))(CONNECT_DATA=(SERVICE_NAME=DOUBLE)))"
    )
    with oracledb.connect(**USER, dsn=dsn) as conn:
        sql = f"select v /* {'long statement ' * 2000} */ from t where a = :a"
        rows = conn.cursor().execute(sql, a="b" * 3000).fetchall()
    assert rows == [(text,)] * 3
    assert db.statements()[0].sql == sql
    assert db.statements()[0].binds == {"a": "b" * 3000}
    assert db.log[0].info["sdu"] == sdu


@pytest.mark.parametrize("major", [12, 18, 19, 21, 23])
def test_versions(major):
    with OracleDouble(version=(major, 2, 0, 0, 0)) as db:
        db.on("from t", [("N", "NUMBER(5)"), ("C", "CLOB")], [(7, "text")])
        with oracledb.connect(**USER, dsn=db.dsn) as conn:
            assert conn.version.startswith(f"{major}.")
            cursor = conn.cursor()
            n, lob = cursor.execute("select * from t where x = :x", x=1).fetchone()
            assert (n, lob.read()) == (7, "text")
            with pytest.raises(oracledb.DatabaseError):
                cursor.execute("select nothing")
        assert db.failures == []


def test_pool(db):
    pool = oracledb.create_pool(**USER, dsn=db.dsn, min=1, max=3)
    with pool.acquire() as a, pool.acquire() as b:
        a.cursor().execute("select 1 from dual").fetchall()
        b.cursor().execute("select 1 from dual").fetchall()
    pool.close()
    assert db.counts["connections"] >= 2


def test_session_attributes(db, conn):
    conn.module, conn.action, conn.client_identifier = "m", "act", "me"
    conn.clientinfo = "info"
    conn.current_schema = "OTHER"
    assert conn.cursor().execute("select 1 from dual").fetchall() == [(1,)]


def test_many_threads(db):
    db.on(
        "from t", [("N", "NUMBER"), ("S", "VARCHAR2(9)")], lambda sql, binds: [(n, f"s{n}") for n in range(binds["n"])]
    )
    pool = oracledb.create_pool(**USER, dsn=db.dsn, min=1, max=8)
    wrong = []

    def work():
        for n in range(50):
            with pool.acquire() as conn:
                rows = conn.cursor().execute("select n, s from t where n < :n", n=n).fetchall()
            if rows != [(m, f"s{m}") for m in range(n)]:
                wrong.append(n)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    pool.close()
    assert wrong == []
    assert len(db.statements("from t")) == 400


def test_async(db):
    db.on(
        "from t", [("N", "NUMBER"), ("S", "VARCHAR2(10)"), ("C", "CLOB")], [(n, f"s{n}", "c" * 50) for n in range(5000)]
    )

    async def main():
        async with oracledb.connect_async(**USER, dsn=db.dsn) as conn:
            cursor = conn.cursor()
            await cursor.execute("select * from t")
            rows = await cursor.fetchall()
            return len(rows), rows[4999][:2], await rows[4999][2].read()

    assert asyncio.run(main()) == (5000, (4999, "s4999"), "c" * 50)


# -- values ---------------------------------------------------------------------

NUMBERS = [
    "0",
    "1",
    "-1",
    "10",
    "100",
    "-100",
    "12345678901234567890",
    "0.1",
    "-0.1",
    "0.01",
    "0.001",
    "123.456",
    "-123.456",
    "99999999999999999999999999999999999999",
    "-99999999999999999999999999999999999999",
    "9999999999999999999999999999.9999999999",
    "-0.00000000000000000000000000000000000001",
    "1234567890123456789012345678901234567.8",
    "1E+125",
    "1E-130",
    "-9.99E+125",
    "1.5E-100",
]


def test_decimals_are_exact(db, conn, decimals):
    given = [Decimal(text) for text in NUMBERS]
    got = fetch_one_column(db, conn, "NUMBER", given)
    assert got == given
    assert {type(value) for value in got} == {Decimal}


def test_decimal_text(db, conn, decimals):
    """The driver sees no trailing zeros: NUMBER(10,2) 1.50 is Decimal 1.5."""
    got = fetch_one_column(db, conn, "NUMBER(10,2)", [Decimal("1.50"), Decimal("2.00")])
    assert [str(value) for value in got] == ["1.5", "2"]


def test_random_decimals(db, conn, decimals):
    import random

    random.seed(1)
    given = []
    for _ in range(3000):
        digits = random.randint(1, 38)
        value = Decimal(random.randint(0, 10**digits - 1))
        value = Decimal((random.randint(0, 1), value.as_tuple().digits, random.randint(-60, 60)))
        given.append(value)
    assert fetch_one_column(db, conn, "NUMBER", given) == given


@pytest.mark.parametrize(
    "column_type, given, got",
    [
        ("NUMBER", 5, 5),
        ("NUMBER", Decimal("5.5"), 5.5),
        ("NUMBER(10)", 5, 5),
        ("NUMBER(10,2)", 5, 5.0),
        ("NUMBER(38)", 10**38 - 1, 10**38 - 1),
        ("NUMBER(38,10)", Decimal("0.1"), 0.1),
        ("FLOAT(126)", 0.25, 0.25),
        ("NUMBER(5,-2)", 12300, 12300.0),
    ],
)
def test_numbers_without_fetch_decimals(db, conn, column_type, given, got):
    (value,) = fetch_one_column(db, conn, column_type, [given])
    assert value == got and type(value) is type(got)


@pytest.mark.parametrize(
    "column_type, precision, scale",
    [
        ("NUMBER", 0, -127),
        ("NUMBER(10)", 10, 0),
        ("NUMBER(10,2)", 10, 2),
        ("FLOAT", 126, -127),
        ("FLOAT(63)", 63, -127),
        ("NUMBER(38,0)", 38, 0),
    ],
)
def test_number_description(db, conn, column_type, precision, scale):
    seen = []

    def handler(cursor, metadata):
        seen.append((metadata.name, metadata.type, metadata.precision, metadata.scale, metadata.null_ok))

    conn.outputtypehandler = handler
    fetch_one_column(db, conn, column_type, [1], nullable=True)
    assert seen == [("V", oracledb.DB_TYPE_NUMBER, precision, scale, True)]


def test_description(db, conn):
    db.on(
        "from t",
        [
            Column("NOTE", "VARCHAR2", size=200, nullable=False),
            Column("Ünicode name", "NVARCHAR2(10)"),
            ("TS", "TIMESTAMP(3)"),
            ("R", "RAW(16)"),
            ("C", "CLOB"),
        ],
        [],
    )
    cursor = conn.cursor().execute("select * from t")
    assert [info[0] for info in cursor.description] == ["NOTE", "Ünicode name", "TS", "R", "C"]
    assert [info[1] for info in cursor.description] == [
        oracledb.DB_TYPE_VARCHAR,
        oracledb.DB_TYPE_NVARCHAR,
        oracledb.DB_TYPE_TIMESTAMP,
        oracledb.DB_TYPE_RAW,
        oracledb.DB_TYPE_CLOB,
    ]
    assert [info[3] for info in cursor.description] == [200, 20, None, 16, None]
    assert cursor.description[1][2] == 10  # characters, the above bytes
    assert cursor.description[2][5] == 3
    assert [info[6] for info in cursor.description] == [False] + [True] * 4


def test_output_type_handler(db, conn):
    def handler(cursor, metadata):
        if metadata.type is oracledb.DB_TYPE_NUMBER:
            return cursor.var(str, arraysize=cursor.arraysize)

    conn.outputtypehandler = handler
    got = fetch_one_column(db, conn, "NUMBER", [Decimal(n) for n in NUMBERS])
    assert [Decimal(text) for text in got] == [Decimal(n) for n in NUMBERS]


@pytest.mark.parametrize("column_type", ["BINARY_DOUBLE", "BINARY_FLOAT"])
def test_binary_floats(db, conn, column_type):
    given = [0.0, -0.0, 1.5, -1.5, 2.0**100, -(2.0**-100), math.inf, -math.inf, math.nan]
    got = fetch_one_column(db, conn, column_type, given)
    assert [str(value) for value in got] == [str(value) for value in given]


@pytest.mark.parametrize("column_type", ["VARCHAR2(4000)", "NVARCHAR2(2000)", "LONG"])
def test_strings(db, conn, column_type):
    given = ["a", "ä€😀", "x" * 252, "x" * 253, "ü" * 1900, " padded "]
    assert fetch_one_column(db, conn, column_type, given) == given


def test_char_is_padded(db, conn):
    assert fetch_one_column(db, conn, "CHAR(5)", ["ab"]) == ["ab   "]
    assert fetch_one_column(db, conn, "NCHAR(5)", ["äb"]) == ["äb   "]


def test_empty_string_is_null(db, conn):
    assert fetch_one_column(db, conn, "VARCHAR2(5)", [""]) == [None]


def test_null_by_description(db, conn):
    db.on("from dual", [Column("N", "VARCHAR2", size=0), ("A", "NUMBER")], [(None, 1), (None, 2)])
    rows = conn.cursor().execute("select null, a from dual").fetchall()
    assert rows == [(None, 1), (None, 2)]


@pytest.mark.parametrize("column_type", ["RAW(2000)", "LONG RAW"])
def test_bytes(db, conn, column_type):
    given = [b"\0", b"\xff\xfe", bytes(range(256)) * 7]
    assert fetch_one_column(db, conn, column_type, given) == given


DATES = [
    datetime.datetime(1, 1, 1),
    datetime.datetime(1970, 1, 1, 23, 59, 59),
    datetime.datetime(2024, 2, 29, 12, 30, 1),
    datetime.datetime(9999, 12, 31, 23, 59, 59),
]


def test_date(db, conn):
    assert fetch_one_column(db, conn, "DATE", DATES) == DATES


def test_timestamp(db, conn):
    given = DATES + [datetime.datetime(2024, 1, 1, 0, 0, 0, 123456)]
    assert fetch_one_column(db, conn, "TIMESTAMP(6)", given) == given


def test_nanoseconds_are_cut_by_the_driver(db, conn):
    wire = bytes([120, 124, 1, 2, 4, 5, 6]) + (999_999_999).to_bytes(4, "big")
    got = fetch_one_column(db, conn, "TIMESTAMP(9)", [Wire(wire)])
    assert got == [datetime.datetime(2024, 1, 2, 3, 4, 5, 999_999)]


def test_timestamp_with_time_zone_loses_its_zone(db, conn):
    """The driver returns the local time of the value's own zone, naive."""
    for hours in (-9.5, -1, 0, 1, 5.75, 14):
        zone = datetime.timezone(datetime.timedelta(hours=hours))
        given = datetime.datetime(2024, 7, 1, 12, 30, 15, 250000, zone)
        (got,) = fetch_one_column(db, conn, "TIMESTAMP WITH TIME ZONE", [given])
        assert got == given.replace(tzinfo=None)
        assert got.tzinfo is None


def test_region_time_zone(db, conn):
    """A zone given by name (not by offset) is an error in thin mode."""
    wire = bytes([120, 124, 1, 2, 4, 5, 6, 0, 0, 0, 0, 0x81, 0x9C])
    db.on("from t$", [("V", "TIMESTAMP WITH TIME ZONE")], [(Wire(wire),)])
    with pytest.raises(oracledb.NotSupportedError) as raised:
        conn.cursor().execute("select v from t").fetchall()
    assert error_of(raised).full_code == "DPY-3022"
    assert conn.cursor().execute("select 1 from dual").fetchall() == [(1,)]


@pytest.mark.parametrize("session_zone, hour", [(None, 12), ("+03:00", 15), ("-05:00", 7)])
def test_timestamp_with_local_time_zone(db, conn, session_zone, hour):
    """Local to the session: it depends on ALTER SESSION SET TIME_ZONE."""
    conn.cursor().execute(f"ALTER SESSION SET TIME_ZONE = '{session_zone or '+00:00'}'")
    given = datetime.datetime(2024, 7, 1, 12, 0, tzinfo=datetime.timezone.utc)
    (got,) = fetch_one_column(db, conn, "TIMESTAMP(6) WITH LOCAL TIME ZONE", [given])
    assert got == datetime.datetime(2024, 7, 1, hour, 0)


def test_intervals(db, conn):
    given = [
        datetime.timedelta(days=1, hours=2, minutes=3, seconds=4, microseconds=5),
        -datetime.timedelta(days=1, hours=2, minutes=3, seconds=4, microseconds=5),
        datetime.timedelta(),
        -datetime.timedelta(microseconds=1),
    ]
    assert fetch_one_column(db, conn, "INTERVAL DAY(9) TO SECOND(6)", given) == given
    (got,) = fetch_one_column(db, conn, "INTERVAL YEAR(4) TO MONTH", [(-2, -7)])
    assert got == oracledb.IntervalYM(-2, -7)


def test_rowid(db, conn):
    assert fetch_one_column(db, conn, "ROWID", ["AAAR3sAAEAAAACXAAA"]) == ["AAAR3sAAEAAAACXAAA"]


def test_boolean():
    with OracleDouble(version=(23, 4, 0, 0, 0)) as db:
        with oracledb.connect(**USER, dsn=db.dsn) as conn:
            got = fetch_one_column(db, conn, "BOOLEAN", [True, False])
            assert got == [True, False]
            conn.cursor().execute("select 1 from dual")
            db.on("from b where", [("N", "NUMBER")], [])
            conn.cursor().execute("select n from b where x = :x", x=True)
            assert db.statements("from b")[0].binds == {"x": True}
            assert db.statements("from b")[0].bind_types == {"x": "BOOLEAN"}


LOB_TEXTS = ["short", "ä€😀" * 1000, "x" * 200_000]


@pytest.mark.parametrize("column_type", ["CLOB", "NCLOB"])
def test_clob_as_locator(db, conn, column_type):
    lobs = fetch_one_column(db, conn, column_type, LOB_TEXTS)
    assert [type(lob) for lob in lobs] == [oracledb.LOB] * 3
    assert [lob.read() for lob in lobs] == LOB_TEXTS
    assert lobs[2].size() == 200_000
    assert lobs[2].read(199_999, 10) == "xx"
    assert "lob" in db.kinds()


def test_blob_as_locator(db, conn):
    given = [b"\0", bytes(range(256)) * 1000]
    lobs = fetch_one_column(db, conn, "BLOB", given)
    assert [lob.read() for lob in lobs] == given
    assert lobs[1].read(2, 3) == b"\1\2\3"


@pytest.mark.parametrize("column_type", ["CLOB", "NCLOB"])
def test_clob_as_string(db, conn, no_lobs, column_type):
    assert fetch_one_column(db, conn, column_type, LOB_TEXTS) == LOB_TEXTS
    assert "lob" not in db.kinds()  # no extra round trips


def test_blob_as_bytes(db, conn, no_lobs):
    given = [b"\0", bytes(range(256)) * 1000]
    assert fetch_one_column(db, conn, "BLOB", given) == given


def test_lob_statement_executed_again(db, conn, no_lobs):
    db.on(
        "from t where",
        [("N", "NUMBER(9)"), ("C", "CLOB")],
        lambda sql, binds: [(n, f"text {binds['x']}") for n in range(300)],
    )
    cursor = conn.cursor()
    for x in (1, 2, 3):
        rows = cursor.execute("select n, c from t where x = :x", x=x)
        assert rows.fetchall() == [(n, f"text {x}") for n in range(300)]
    assert len(db.statements()) == 3


# -- queries ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "prefetch, array, rows, fetches",
    [
        (2, 100, 0, 0),
        (2, 100, 1, 0),
        (2, 100, 2, 1),
        (2, 100, 102, 2),
        (0, 10, 25, 3),
        (1000, 10, 25, 0),
        (26, 10, 25, 0),
    ],
)
def test_round_trips(db, conn, prefetch, array, rows, fetches):
    db.on("from t", [("N", "NUMBER")], [(n,) for n in range(rows)])
    cursor = conn.cursor()
    cursor.prefetchrows, cursor.arraysize = prefetch, array
    for _ in range(2):  # the second time through the statement cache
        before = db.counts["fetches"]
        cursor.execute("select n from t")
        assert cursor.fetchall() == [(n,) for n in range(rows)]
        assert cursor.rowcount == rows
        assert db.counts["fetches"] - before == fetches


def test_generator_is_read_only_as_far_as_fetched(db, conn):
    produced = []

    def rows(sql, binds):
        for n in itertools.count():
            produced.append(n)
            yield (n,)

    db.on("from t", [("N", "NUMBER")], rows)
    cursor = conn.cursor()
    cursor.arraysize = cursor.prefetchrows = 10
    cursor.execute("select n from t")
    assert cursor.fetchmany(15) == [(n,) for n in range(15)]
    cursor.close()
    assert len(produced) == 20


def test_interleaved_cursors(db, conn):
    db.on("from t", [("N", "NUMBER")], [(n,) for n in range(1000)])
    cursors = [conn.cursor().execute("select n from t") for _ in range(3)]
    for n in range(1000):
        assert [cursor.fetchone() for cursor in cursors] == [(n,)] * 3


def test_columns_change_between_executions(db, conn):
    row = ("5", None)
    db.on("from t", [("A", "NUMBER"), ("B", "DATE")], [row])
    cursor = conn.cursor()
    assert cursor.execute("select * from t").fetchall() == [(5, None)]
    db.on("from t", [("A2", "VARCHAR2(10)"), ("B", "DATE")], [row])
    assert cursor.execute("select * from t").fetchall() == [("5", None)]
    db.on("from t", [("A3", "CLOB")], [("text",)])
    ((lob,),) = cursor.execute("select * from t").fetchall()
    assert cursor.description[0][0] == "A3"
    assert (lob if isinstance(lob, str) else lob.read()) == "text"


def test_statement_cache_keeps_fetch_settings(db, conn):
    """How a statement was fetched first is how it is fetched again."""
    db.on("from t", [("A", "NUMBER(10,2)"), ("C", "CLOB")], lambda sql, binds: [(Decimal("1.25"), "text")])
    cursor = conn.cursor()
    first = cursor.execute("select * from t").fetchone()
    again = cursor.execute("select * from t", fetch_decimals=True, fetch_lobs=False).fetchone()
    assert [type(value) for value in first + again] == [float, oracledb.LOB] * 2
    other = cursor.execute("select * from t where 1 = 1", fetch_decimals=True, fetch_lobs=False).fetchone()
    assert other == (Decimal("1.25"), "text")


def test_closed_cursors_are_forgotten(db):
    with oracledb.connect(**USER, dsn=db.dsn, stmtcachesize=0) as conn:
        for _ in range(5):
            conn.cursor().execute("select 1 from dual").fetchall()
        conn.ping()
        (session,) = db._sessions.values()
        assert session.cursors == {}


@pytest.mark.parametrize("array", [1, 3, 100])
def test_repeated_values(decimals, array):
    """Servers leave out values that are those of the row before."""
    rows = [(n // 7, f"s{n // 3}", None if n % 5 else "x", 1, DATES[n // 50]) for n in range(200)]
    columns = [("A", "NUMBER"), ("B", "VARCHAR2(9)"), ("C", "VARCHAR2(9)"), ("D", "NUMBER"), ("E", "DATE")]
    with OracleDouble(compress=True) as db:
        db.on("from t", columns, rows)
        with oracledb.connect(**USER, dsn=db.dsn) as conn:
            cursor = conn.cursor()
            cursor.arraysize = array
            cursor.outputtypehandler = lambda cursor, metadata: (
                cursor.var(str, arraysize=cursor.arraysize, outconverter=lambda text: text + "!")
                if metadata.name == "B"
                else None
            )
            assert cursor.execute("select * from t").fetchall() == [(a, b + "!", c, d, e) for a, b, c, d, e in rows]
        assert db.failures == []


def test_lobs_live_as_long_as_their_cursor(db):
    db.on("from t", [("C", "CLOB")], [("text",)] * 10)
    with oracledb.connect(**USER, dsn=db.dsn, stmtcachesize=0) as conn:
        (session,) = db._sessions.values()
        cursor = conn.cursor()
        for _ in range(3):
            cursor.execute("select c from t")
            (lob,) = cursor.fetchall()[-1]
            assert lob.read() == "text"
            assert len(session.lobs) == 1  # ten times the same tuple
        cursor.close()
        conn.ping()
        assert session.lobs == {}
        with pytest.raises(oracledb.DatabaseError, match="ORA-22922"):
            lob.read()


def test_newest_answer_wins_and_times(db, conn):
    db.on("from t", [("A", "NUMBER")], [(1,)])
    db.on("from t", error=(1555, "snapshot too old"), times=1)
    cursor = conn.cursor()
    with pytest.raises(oracledb.DatabaseError):
        cursor.execute("select a from t")
    assert cursor.execute("select a from t").fetchall() == [(1,)]


def test_no_answer(db, conn):
    with pytest.raises(oracledb.DatabaseError, match="no answer for: select x"):
        conn.cursor().execute("select x from unknown")
    with pytest.raises(oracledb.DatabaseError, match="no answer for: delete"):
        conn.cursor().execute("delete from t")


def test_parse_only(db, conn):
    db.on("from t", [("A", "NUMBER(5)")], [(1,)])
    cursor = conn.cursor()
    cursor.parse("select a from t where x = :x")
    assert cursor.description[0][0] == "A"
    assert db.statements() == [] and "parse" in db.kinds()


# -- binds and other statements -----------------------------------------------------


def test_binds_by_name(db, conn):
    db.on("from t", [("A", "NUMBER")], [(1,)])
    given = {
        "i": 42,
        "neg": -17,
        "big": 10**37,
        "f": 0.5,
        "d": Decimal("-123456789012345678901234567890.12345678"),
        "s": "ä€😀",
        "b": b"\0\xff",
        "none": None,
        "dt": datetime.datetime(2024, 1, 2, 3, 4, 5),
        "td": -datetime.timedelta(days=1, seconds=2, microseconds=3),
    }
    sql = "select a from t where x in (%s)" % ", ".join(f":{name}" for name in given)
    conn.cursor().execute(sql, given)
    (event,) = db.statements()
    assert event.sql == sql
    assert event.binds == given
    assert event.bind_types == {
        "i": "NUMBER",
        "neg": "NUMBER",
        "big": "NUMBER",
        "f": "NUMBER",
        "d": "NUMBER",
        "s": "VARCHAR2",
        "b": "RAW",
        "none": "VARCHAR2",
        "dt": "DATE",
        "td": "INTERVAL DAY TO SECOND",
    }


def test_datetime_binds_lose_fractions_unless_typed(db, conn):
    """A datetime is bound as DATE; setinputsizes keeps the microseconds."""
    db.on("from t", [("A", "NUMBER")], [])
    moment = datetime.datetime(2024, 1, 2, 3, 4, 5, 678901)
    cursor = conn.cursor()
    cursor.execute("select a from t where ts > :ts", ts=moment)
    cursor.setinputsizes(ts=oracledb.DB_TYPE_TIMESTAMP)
    cursor.execute("select a from t where ts >= :ts", ts=moment)
    plain, typed = db.statements()
    assert plain.binds["ts"] == moment.replace(microsecond=0)
    assert plain.bind_types["ts"] == "DATE"
    assert typed.binds["ts"] == moment
    assert typed.bind_types["ts"] == "TIMESTAMP"


def test_aware_datetime_bind_loses_its_zone(db, conn):
    db.on("from t", [("A", "NUMBER")], [])
    zone = datetime.timezone(datetime.timedelta(hours=2))
    cursor = conn.cursor()
    moment = datetime.datetime(2024, 1, 2, 3, 4, 5, tzinfo=zone)
    cursor.execute("select a from t where ts > :ts", ts=moment)
    cursor.setinputsizes(ts=oracledb.DB_TYPE_TIMESTAMP_TZ)
    cursor.execute("select a from t where ts >= :ts", ts=moment)
    plain, typed = db.statements()
    assert plain.binds["ts"] == moment.replace(tzinfo=None)
    assert typed.binds["ts"] == moment.replace(tzinfo=datetime.timezone.utc)


def test_binds_by_position_and_again(db, conn):
    db.on("from t", [("A", "NUMBER")], lambda sql, binds: [(binds["1"],), (binds["2"],)])
    cursor = conn.cursor()
    sql = "select a from t where b = :1 and c = ':no' and d = :2 -- :nor"
    for values in ([1, 2], [3, 4], ["5", 6]):
        got = cursor.execute(sql, values).fetchall()
        assert got == [(int(value),) for value in values]
    assert [event.binds for event in db.statements()] == [{"1": 1, "2": 2}, {"1": 3, "2": 4}, {"1": "5", "2": 6}]


def test_long_binds_come_last(db, conn):
    db.on("from t", [("A", "NUMBER")], [])
    binds = {"a": "a" * 5000, "b": 1, "c": b"c" * 40_000, "d": "d"}
    conn.cursor().execute("select a from t where x in (:a, :b, :c, :d)", binds)
    assert db.statements()[0].binds == binds


def test_executemany(db, conn):
    db.on("^insert", rowcount=3)
    rows = [(1, "a"), (2, None), (3, "c")]
    cursor = conn.cursor()
    cursor.executemany("insert into t values (:n, :s)", rows)
    assert cursor.rowcount == 3
    assert [tuple(row.values()) for row in db.statements()[0].bind_rows] == rows
    assert conn.transaction_in_progress
    conn.commit()
    assert not conn.transaction_in_progress


def test_session_statements(db, conn):
    cursor = conn.cursor()
    said = [
        "ALTER SESSION SET NLS_DATE_FORMAT = 'YYYY-MM-DD'",
        "SET TRANSACTION READ ONLY",
        "SAVEPOINT a",
        "COMMIT",
        "ROLLBACK",
    ]
    for sql in said:
        cursor.execute(sql)
    assert [event.sql for event in db.statements()] == said


@pytest.mark.parametrize(
    "request_",
    [
        lambda conn: conn.createlob(oracledb.DB_TYPE_CLOB, "text"),
        lambda conn: conn.cursor().execute(
            "insert into t values (:a) returning b into :b", a=1, b=conn.cursor().var(int)
        ),
        lambda conn: conn.cursor(scrollable=True).execute("select 1 from dual"),
        lambda conn: conn.tpc_begin(conn.xid(1, "a", "b")),
    ],
)
def test_what_is_not_supported_fails(request_):
    with OracleDouble() as db:
        db.on("^insert")
        with oracledb.connect(**USER, dsn=db.dsn) as conn:
            conn.call_timeout = 2000
            with pytest.raises(oracledb.DatabaseError, match="ORA-20999|ORA-03001"):
                request_(conn)
            assert conn.cursor().execute("select 1 from dual").fetchall()


# -- errors ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "code, kind, full_code, recoverable",
    [
        (942, oracledb.DatabaseError, "ORA-00942", False),
        (904, oracledb.DatabaseError, "ORA-00904", False),
        (1, oracledb.IntegrityError, "ORA-00001", False),
        (1555, oracledb.DatabaseError, "ORA-01555", False),
        (1722, oracledb.DatabaseError, "ORA-01722", False),
        (8177, oracledb.DatabaseError, "ORA-08177", False),
        (604, oracledb.OperationalError, "ORA-00604", False),
        (600, oracledb.DatabaseError, "DPY-4011", True),
        (376, oracledb.DatabaseError, "ORA-00376", True),
        (1033, oracledb.OperationalError, "ORA-01033", True),
        (12571, oracledb.OperationalError, "ORA-12571", True),
    ],
)
def test_error_on_execute(db, conn, code, kind, full_code, recoverable):
    db.on("from t", error=OracleError(code, "so it goes", position=14))
    with pytest.raises(oracledb.DatabaseError) as raised:
        conn.cursor().execute("select a from t")
    error = error_of(raised)
    assert (type(raised.value), error.full_code, error.isrecoverable) == (kind, full_code, recoverable)
    assert error.code == code and error.offset == 14
    if full_code != "DPY-4011":
        assert conn.cursor().execute("select 1 from dual").fetchone() == (1,)


@pytest.mark.parametrize("inside", ["item", "raised"])
def test_error_while_fetching(db, conn, inside):
    def rows(sql, binds):
        yield from ((n,) for n in range(25))
        error = OracleError(1555, "snapshot too old")
        if inside == "raised":
            raise error
        yield error

    db.on("from t", [("N", "NUMBER")], rows)
    cursor = conn.cursor()
    cursor.arraysize = 10
    cursor.execute("select n from t")
    got = []
    with pytest.raises(oracledb.DatabaseError) as raised:
        for row in cursor:
            got.append(row)
    assert error_of(raised).code == 1555
    # 2 prefetched, then whole arrays of 10: the rows that came with the error
    # in one response are lost.
    assert len(got) == 22
    assert conn.cursor().execute("select 1 from dual").fetchone() == (1,)
    (session,) = db._sessions.values()
    assert [cursor.sql for cursor in session.cursors.values()] == [
        "select 1 from dual"
    ]  # the driver has closed the other


def lost(raised):
    """What every lost connection looks like: not an OperationalError."""
    error = error_of(raised)
    assert type(raised.value) is oracledb.DatabaseError
    assert error.full_code == "DPY-4011"
    assert error.isrecoverable
    return error


@pytest.mark.parametrize("drop", [Drop(), Drop(reset=True)])
@pytest.mark.parametrize("after", [0, 1, 25])
def test_connection_lost_while_fetching(db, conn, drop, after):
    db.on("from t", [("N", "NUMBER")], [(n,) for n in range(after)] + [drop])
    cursor = conn.cursor()
    cursor.arraysize = 10
    got = []
    with pytest.raises(oracledb.DatabaseError) as raised:
        for row in cursor.execute("select n from t"):
            got.append(row)
    assert error_of(raised).code == 0
    assert ("reset by peer" in lost(raised).message) == drop.reset
    assert len(got) == (22 if after == 25 else 0)
    assert not conn.is_healthy()
    with pytest.raises(oracledb.InterfaceError) as again:
        conn.cursor().execute("select 1 from dual")
    assert error_of(again).full_code == "DPY-1001"
    assert not error_of(again).isrecoverable
    conn.close()


def test_connection_lost_on_execute(db, conn):
    db.on("from t", drop=True)
    with pytest.raises(oracledb.DatabaseError) as raised:
        conn.cursor().execute("select n from t")
    lost(raised)


def test_connection_lost_while_idle(db, conn):
    db.drop_connections()
    time.sleep(0.1)
    assert conn.is_healthy()  # it has not noticed yet
    with pytest.raises(oracledb.DatabaseError) as raised:
        conn.ping()
    lost(raised)
    assert not conn.is_healthy()


def test_session_killed(db, conn):
    db.kill_sessions()
    with pytest.raises(oracledb.DatabaseError) as raised:
        conn.cursor().execute("select 1 from dual")
    error = lost(raised)
    assert error.code == 28 and "ORA-00028" in error.message
    with pytest.raises(oracledb.InterfaceError):
        conn.ping()


def test_session_killed_while_fetching(db, conn):
    db.on("from t", [("N", "NUMBER")], [(n,) for n in range(10)] + [OracleError(28, "session killed")])
    with pytest.raises(oracledb.DatabaseError) as raised:
        conn.cursor().execute("select n from t").fetchall()
    assert lost(raised).code == 28


@pytest.mark.parametrize("where", ["execute", "fetch"])
def test_call_timeout(db, conn, where):
    if where == "execute":
        db.on("from t", [("N", "NUMBER")], [(1,)], hang=Hang())
    else:
        db.on("from t", [("N", "NUMBER")], [(n,) for n in range(50)] + [Hang()])
    conn.call_timeout = 200
    started = time.monotonic()
    with pytest.raises(oracledb.DatabaseError) as raised:
        conn.cursor().execute("select n from t").fetchall()
    assert 0.15 < time.monotonic() - started < 2
    error = error_of(raised)
    assert type(raised.value) is oracledb.DatabaseError
    assert error.full_code == "DPY-4024" and not error.isrecoverable
    assert "break" in db.kinds()
    # the connection survives
    assert conn.is_healthy()
    assert conn.cursor().execute("select 1 from dual").fetchone() == (1,)


def test_call_timeout_is_per_round_trip(db, conn):
    db.on("from t", [("N", "NUMBER")], itertools.chain.from_iterable([((n,), Hang(0.1)) for n in range(8)]))
    conn.call_timeout = 250
    cursor = conn.cursor()
    cursor.arraysize = cursor.prefetchrows = 1
    started = time.monotonic()
    assert len(cursor.execute("select n from t").fetchall()) == 8
    assert time.monotonic() - started > 0.6


def test_call_timeout_and_deaf_server(db, conn):
    db.on("from t", hang=Hang(deaf=True))
    conn.call_timeout = 200
    with pytest.raises(oracledb.DatabaseError) as raised:
        conn.cursor().execute("select n from t")
    error = lost(raised)
    assert "timed out while recovering" in error.message
    assert not conn.is_healthy()


def test_cancel_from_another_thread(db, conn):
    db.on("from t", [("N", "NUMBER")], [(1,)], hang=Hang())
    timer = threading.Timer(0.2, conn.cancel)
    timer.start()
    with pytest.raises(oracledb.OperationalError) as raised:
        conn.cursor().execute("select n from t")
    timer.join()
    assert error_of(raised).full_code == "ORA-01013"
    assert not error_of(raised).isrecoverable
    assert conn.cursor().execute("select 1 from dual").fetchone() == (1,)


def test_cancel_while_rows_stream(db, conn):
    db.on("from t", [("S", "VARCHAR2(100)")], lambda sql, binds: itertools.repeat(("x" * 100,)))
    cursor = conn.cursor()
    cursor.arraysize = 10_000_000  # one endless response
    cursor.execute("select s from t")
    timer = threading.Timer(0.3, conn.cancel)
    timer.start()
    started = time.monotonic()
    with pytest.raises(oracledb.OperationalError) as raised:
        cursor.fetchall()
    timer.join()
    assert time.monotonic() - started < 3
    assert error_of(raised).full_code == "ORA-01013"
    assert conn.cursor().execute("select 1 from dual").fetchone() == (1,)


def test_cancel_with_nothing_running(db, conn):
    """It hits the call that comes next."""
    conn.cancel()
    time.sleep(0.1)
    with pytest.raises(oracledb.OperationalError, match="ORA-01013"):
        conn.cursor().execute("select 1 from dual")
    assert conn.cursor().execute("select 1 from dual").fetchone() == (1,)


def test_lost_client_is_noticed(db):
    """The program dies while the server sends."""
    db.on("from t", [("S", "VARCHAR2(100)")], lambda sql, binds: itertools.repeat(("x" * 100,)))
    program = f"""
import os, oracledb
conn = oracledb.connect(user='pstt', password='pw', dsn={db.dsn!r})
cursor = conn.cursor()
cursor.execute('select s from t')
cursor.fetchmany(1000)
os._exit(1)
"""
    subprocess.run([sys.executable, "-c", program], timeout=60)
    deadline = time.monotonic() + 5
    while "lost" not in db.kinds() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert db.kinds()[-1] == "lost" and "break" not in db.kinds()
    assert db.counts["fetches"] >= 10


def test_close_ends_waiting_clients():
    db = OracleDouble().start()
    db.on("from t", hang=Hang())
    conn = oracledb.connect(**USER, dsn=db.dsn)
    timer = threading.Timer(0.2, db.close)
    timer.start()
    with pytest.raises(oracledb.DatabaseError) as raised:
        conn.cursor().execute("select a from t")
    lost(raised)
    timer.join()


def test_slow_server(db, conn):
    db.on("from t", [("N", "NUMBER")], [(1,)], hang=0.2)
    started = time.monotonic()
    assert conn.cursor().execute("select n from t").fetchall() == [(1,)]
    assert time.monotonic() - started >= 0.2


def test_mistakes_of_a_test_are_reported():
    with OracleDouble() as db:
        db.on("from t", [("A", "NUMBER"), ("B", "NUMBER")], [(1,)])
        with oracledb.connect(**USER, dsn=db.dsn) as conn:
            with pytest.raises(oracledb.DatabaseError, match="ORA-20999"):
                conn.cursor().execute("select * from t")
            assert len(db.failures) == 1
            assert conn.cursor().execute("select 1 from dual").fetchall()


# -- volume ---------------------------------------------------------------------------


def many_rows(sql=None, binds=None):
    day = datetime.datetime(2024, 1, 1)
    for n in range(MANY):
        yield (n, f"name {n % 1000}", Decimal(n) / 100, day, None if n % 3 else "x")


MANY_COLUMNS = [
    ("ID", "NUMBER(10)"),
    ("NAME", "VARCHAR2(30)"),
    ("AMOUNT", "NUMBER(12,2)"),
    ("DAY", "DATE"),
    ("MAYBE", "VARCHAR2(1)"),
]


def memory():
    """Resident set now, in MB."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize() / 2**20


def test_million_rows_with_flat_memory(db, conn, decimals, capsys):
    db.on("from t", MANY_COLUMNS, many_rows)
    cursor = conn.cursor()
    cursor.arraysize = cursor.prefetchrows = 5000
    started = time.monotonic()
    cursor.execute("select * from t")
    count, total, readings = 0, Decimal(0), []
    while rows := cursor.fetchmany(5000):
        count += len(rows)
        total += rows[-1][2]
        if count % 100_000 == 0:
            gc.collect()
            readings.append(memory())
    seconds = time.monotonic() - started
    with capsys.disabled():
        print(
            f"\n  {count} rows of 5 columns in {seconds:.1f} s = "
            f"{count / seconds:,.0f} rows/s; resident MB "
            f"{readings[0]:.0f} -> {readings[-1]:.0f}, "
            f"{db.counts['fetches']} fetches"
        )
    assert count == MANY
    assert rows == [] and total > 0
    assert readings[-1] - readings[0] < 20
    assert db.counts["fetches"] == 200


def test_million_rows_at_the_speed_of_the_driver(db, conn, capsys):
    """The same tuples again and again are encoded only once."""
    block = list(itertools.islice(many_rows(), 5000))
    db.on(
        "from t", MANY_COLUMNS, lambda sql, binds: itertools.chain.from_iterable(itertools.repeat(block, MANY // 5000))
    )
    cursor = conn.cursor()
    cursor.arraysize = cursor.prefetchrows = 5000
    started = time.monotonic()
    cursor.execute("select * from t")
    count = 0
    while rows := cursor.fetchmany(5000):
        count += len(rows)
        last = rows[-1]
    seconds = time.monotonic() - started
    with capsys.disabled():
        print(f"\n  {count} repeated rows in {seconds:.1f} s = {count / seconds:,.0f} rows/s")
    assert count == MANY
    assert last == (4999, "name 999", 49.99, datetime.datetime(2024, 1, 1), None)


def test_million_rows_as_arrow(db, conn, capsys):
    pa = pytest.importorskip("pyarrow")
    db.on("from t", MANY_COLUMNS, many_rows)
    started = time.monotonic()
    count, readings = 0, []
    for batch in conn.fetch_df_batches("select * from t", size=5000):
        table = pa.table(batch)
        count += table.num_rows
        if count % 100_000 == 0:
            readings.append(memory())
    seconds = time.monotonic() - started
    with capsys.disabled():
        print(
            f"\n  Arrow: {count} rows in {seconds:.1f} s = "
            f"{count / seconds:,.0f} rows/s; resident MB "
            f"{readings[0]:.0f} -> {readings[-1]:.0f}"
        )
    assert count == MANY
    assert readings[-1] - readings[0] < 20


def test_arrow_types(db, conn, decimals):
    pa = pytest.importorskip("pyarrow")
    columns = [
        ("I", "NUMBER(9)"),
        ("D", "NUMBER(38,10)"),
        ("N", "NUMBER"),
        ("S", "VARCHAR2(10)"),
        ("DT", "DATE"),
        ("TS", "TIMESTAMP(6)"),
        ("C", "CLOB"),
        ("B", "BLOB"),
        ("F", "BINARY_DOUBLE"),
    ]
    moment = datetime.datetime(2024, 1, 2, 3, 4, 5, 678901)
    row = (
        7,
        Decimal("1234567890123456789012345678.0123456789"),
        Decimal("0.5"),
        "ä",
        moment.replace(microsecond=0),
        moment,
        "clob",
        b"blob",
        math.pi,
    )
    db.on("from t", columns, [row, (None,) * 9])
    table = pa.table(conn.fetch_df_all("select * from t"))
    assert [str(kind) for kind in table.schema.types] == [
        "decimal128(9, 0)",
        "decimal128(38, 10)",
        "double",
        "large_string",
        "timestamp[s]",
        "timestamp[us]",
        "large_string",
        "large_binary",
        "double",
    ]
    got = table.to_pylist()
    assert tuple(got[0].values()) == row
    assert tuple(got[1].values()) == (None,) * 9


# -- SQLAlchemy -----------------------------------------------------------------------


@pytest.fixture
def engine(db):
    sqlalchemy = pytest.importorskip("sqlalchemy")
    engine = sqlalchemy.create_engine(db.url(), arraysize=1000)
    yield engine
    engine.dispose()


def test_sqlalchemy_connect(db, engine):
    from sqlalchemy import text

    db.on(
        "from t where",
        [
            ("id", "NUMBER(10)"),
            ("price", "NUMBER(12,2)"),
            ("n", "NUMBER"),
            ("doc", "CLOB"),
            ("data", "BLOB"),
            ("day", "DATE"),
        ],
        [(1, Decimal("1.25"), Decimal("2.5"), "text", b"bytes", DATES[2])],
    )
    with engine.connect() as connection:
        rows = connection.execute(text("select * from t where id = :id"), {"id": 1}).all()
    assert rows == [(1, Decimal("1.25"), Decimal("2.5"), "text", b"bytes", DATES[2])]
    assert [type(value).__name__ for value in rows[0]] == ["int", "Decimal", "Decimal", "str", "bytes", "datetime"]
    assert db.statements("from t")[0].binds == {"id": 1}
    assert [event.sql.split()[0] for event in db.statements()] == [
        "select",
        "begin",
        "SELECT",
        "select",
    ]  # three of its own


def test_sqlalchemy_raw_connection(db, engine):
    db.on("from t", [("N", "NUMBER(5)")], [(1,), (2,)])
    raw = engine.raw_connection()
    cursor = raw.cursor()
    cursor.execute("select n from t")
    assert cursor.fetchall() == [(1,), (2,)]
    assert isinstance(raw.driver_connection, oracledb.Connection)
    raw.close()
    assert db.kinds()[-1] == "rollback"


def test_sqlalchemy_converts_in_raw_connections_too(db, engine):
    """By an output type handler on the connection, until it is taken off."""
    exact = Decimal("1234567890123456789012345678.0123456789")
    db.on(
        "from t",
        [("A", "NUMBER(38,10)"), ("B", "NUMBER"), ("C", "NUMBER"), ("D", "FLOAT(126)"), ("E", "CLOB")],
        [(exact, exact, 7, Decimal("0.1"), "text")],
    )
    raw = engine.raw_connection()
    cursor = raw.cursor()
    row = cursor.execute("select * from t").fetchone()
    assert row == (exact, exact, 7, 0.1, "text")
    assert [type(value) for value in row] == [Decimal, Decimal, int, float, str]
    raw.driver_connection.outputtypehandler = None
    row = raw.cursor().execute("select * from t where 1 = 1").fetchone()
    assert [type(value) for value in row] == [float, float, int, float, oracledb.LOB]
    raw.invalidate()


def test_sqlalchemy_streams(db, engine):
    from sqlalchemy import text

    produced = []

    def rows(sql, binds):
        for n in range(100_000):
            produced.append(n)
            yield (n,)

    db.on("from t", [("n", "NUMBER(9)")], rows)
    with engine.connect() as connection:
        result = connection.execute(text("select n from t"))
        assert [row.n for row in next(result.partitions(500))] == [*range(500)]
        result.close()
    assert len(produced) < 3000


@pytest.mark.parametrize(
    "trouble, lost_for_good",
    [
        ({"drop": True}, True),
        ({"drop": Drop(reset=True)}, True),
        ({"error": (28, "killed")}, True),
        ({"error": (3113, "gone")}, True),
        ({"error": (942, "no table")}, False),
        ({"hang": Hang()}, False),
    ],
)
def test_sqlalchemy_knows_lost_connections(db, engine, trouble, lost_for_good):
    from sqlalchemy import exc, text

    db.on("from t", **trouble)
    with engine.connect() as connection:
        connection.connection.driver_connection.call_timeout = 200
        with pytest.raises(exc.DatabaseError) as raised:
            connection.execute(text("select a from t"))
        assert raised.value.connection_invalidated == lost_for_good
        assert isinstance(raised.value.orig, oracledb.DatabaseError)
    with engine.connect() as connection:
        assert connection.execute(text("select 1 from dual")).scalar() == 1
    assert db.counts["connections"] == (2 if lost_for_good else 1)


def test_sqlalchemy_pre_ping(db):
    sqlalchemy = pytest.importorskip("sqlalchemy")
    engine = sqlalchemy.create_engine(db.url(), pool_pre_ping=True)
    for _ in range(2):
        with engine.connect() as connection:
            assert connection.scalar(sqlalchemy.text("select 1 from dual")) == 1
        db.drop_connections()
    assert db.counts["connections"] == 2
    engine.dispose()
